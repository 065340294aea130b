"""A user's mistake, or another user's malice, ends with a sentence and never with a traceback.

Workflow files, stages, state files, launch.json, connections, command lines and records of jobs are changed at random.
The seeds are fixed, and there are 1,000 inputs in all. A failure names its seed, from which :func:`changed` makes the
same input again.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from airflow_provider_sewer import Task
from airflow_provider_sewer.cli.main import main
from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.execution.disk_cache import DiskCache
from airflow_provider_sewer.execution.product_records import read_record
from airflow_provider_sewer.slurm.attempts import Attempts, TaskInstance
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.job_spec import load_task
from airflow_provider_sewer.slurm.job_usage import finished_usage
from airflow_provider_sewer.slurm.last_lines import last_line_between
from airflow_provider_sewer.slurm.log_tailer import JobLogs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning")

#: Seconds that one input may take.
PATIENCE = 20
#: So long a line of an error may be: it shows at most 200 characters of a value, and may show several.
LONGEST = 1500
#: Replacements for a piece of an input.
STRANGE = [
    "", "0", "-1", "1e999", "9" * 400, "9" * 5000, "NaN", "null", "true", "None", "True", "[]", "{}", "()", "''", '""',
    "[[[]]]",
    "{1: 2}", "x" * 10_000, "'" + "y" * 10_000 + "'", "\x00", "\ud800", "\\", "\\ud800", "\t", "\r", "\n\n", "é", "🚰",
    "{{ ds }}", "{% raw %}", "{#", "{n}", "*", "&a", "*a", "!product", "!!python/object:os.system", "<<", "---", "...",
    "- " * 200, "[" * 2000, "{" * 2000, "(" * 300, "a: " * 50, ":", ",", "=", "+", "@", "~", "../..", "/dev/null", "/",
    ".sewer", "lambda: 0", "object()", "...", "b'x'", "1j", "10 ** 30", "Task", "$(id)", "`id`", "\x1b[31m",
]  # fmt: skip

PYTHON = """\
from airflow_provider_sewer import Dependency, External, Ignored, Product, Task, workflow
raw = Task("raw", module="digits.generate", parameters_and_flags={"out": Product("build/raw.npz"), "n": 5, "x": True})
noise = Task("noise", "digits.noise", {"in": Dependency("build/raw.npz"), "out": Product("build/{n}.npz"), "n": 0},
             tags=["a", "b"])
each = noise.map(n=[1, 2, 3])
both = Task("both", function="digits.train:train", kwargs={"seed": raw.result["seed"], "n": Ignored(4)}, group="g.h")
last = Task("last", "digits.report", {"a": 0, "b": "", "out": Product("build/{a}{b}")}, args=["x", 1], env={"A": "b"},
            slurm={"mem_gb": 8, "partition": "gpu"}, run_when="stale", depends_on=[both])
many = last.map_product(a=[1, 2], b=["x", "y"])
@workflow
def digits(count: int = 3, name="w"):
    (raw >> [each, both] >> many).run(env={"C": "d"}, workdir="/tmp")
"""
YAML = """\
name: digits
jobs: digits_jobs
stages:
  raw: {module: digits.generate, parameters_and_flags: {out: !product build/raw.npz, n: 500}}
  noise:
    function: digits.noise:noise
    depends_on: &up [raw]
    kwargs: {seed: !result raw, path: !dependency build/raw.npz}
    map: {n: [1, 2, 3]}
    tags: [a, b]
  more:
    <<: [{run_on: local}, {group: "x"}]
    depends_on: *up
    function: digits.more:more
    map_product: {n: [1, 2], m: [x, "y"]}
  last:
    function: digits.last:last
    products: [build/last.txt]
    depends_on: [noise, more]
    slurm: {mem_gb: 8, timeout_min: 60}
    env: {A: b}
    run_when: stale
"""
STATE = "".join(
    json.dumps(line) + "\n"
    for line in (
        {
            "sewer_state": 1,
            "workflow": "workflow",
            "series": "a",
            "run": "b",
            "run_dir": "/tmp/x",
            "pid": 1,
            "host": "h",
        },
        {"task": "a", "state": "succeeded", "at": "2026-01-01T00:00:00.000+00:00", "command": "c", "result": [1]},
        {"task": "b", "state": "failed", "at": "2026-01-01T00:00:01.000+00:00", "reason": "no"},
        {"sewer_end": 1, "at": "2026-01-01T00:00:02.000+00:00"},
    )
)
LAUNCH = """\
{
    // a comment
    "version": "0.2.0",
    "configurations": [
        {"name": "mine", "type": "debugpy", "request": "launch", "module": "x", "args": ["--n"], "env": {"A": "b"}},
        /* another */ {"name": "a", "sewer": true,},
    ],
    "inputs": [],
}
"""
EXTRA = json.dumps(
    {
        "python": "/usr/bin/python3", "env": {"A": "b"}, "secret_env": {"TOKEN": "t"}, "workdir": "/tmp",
        "inherit_env": ["A"], "slurm": {"mem_gb": 8, "setup": ["true"]}, "run_dir": "/tmp/runs", "cluster": "slurm",
        "poll_interval": 5, "job_url": "https://example.org/{job_id}", "on_kill_action": "cancel_job", "array": True,
    },
    indent=1,
)  # fmt: skip
RECORDS = {
    "attempt.json": {
        "name": "n", "cluster": "slurm", "clears": "0", "run_clears": 0, "created": 1.0, "begun": 1.0,
        "in_array": False,
    },
    "job.json": {"id": "17", "cluster": "slurm", "submitted": 1.0, "name": "n", "directory": "/tmp"},
    "start.json": {"job_id": "17", "restart": 0, "node": "n1", "pid": 5, "time": 1.5},
    "exit.json": {
        "job_id": "17", "restart": 0, "node": "n1", "phase": "teardown", "exit_code": 0, "asked": None,
        "unsignalled": True, "start": 1.0, "end": 2.0, "stdout": 5, "stderr": 0, "module_stdout": [0, 5], "result": -1,
        "cpus": 2,
    },
    "monitor.json": {"token": "t", "try_number": 1},
    "usage.json": {
        "name": "n", "dag_id": "d", "run_id": "r", "task": "t", "map_index": -1, "job_id": "17",
        "exit_class": "success", "node": "n1", "waited": 0.5, "started": 1.0, "ended": 2.0,
        "requested": {"cpus": 2.0}, "used": {"elapsed": 1.0}, "source": "job",
    },
    "task.json": {"members": [], "tasks": [], "mapped": []},
    "products.json": {"attempt": "a", "before": {}, "made_from": {"dependencies": {}}},
    "ended.json": {"how": "collected", "try_number": 1},
    "log-offsets.json": {
        "stdout": {"offset": 0, "held": ""}, "stderr": {"offset": 0, "held": ""},
        "trigger_logs": {"triggerers": {"t": {"stdout": [[0, 3]], "stderr": []}}, "removed": {"stdout": [[0, 2]]}},
    },
    ".sewer/x.json": {
        "task": "t", "command": "c", "product": ["1-2", None], "dependencies": {"a": ["1-2", None]},
        "upstream": {"b": "c"}, "code": None, "environment": None, "result": 1, "is_complete": True,
        "is_removed": False, "attempt": "", "was_complete": None, "beside": {}, "leaving": None, "dag_run": None,
    },
}  # fmt: skip


def changed(text: str, seed: str, *, runs: bool = False) -> str:
    """Change a text at random, most times in one place.

    :param runs: whether it is a program, in which numbers are not to become so large that it takes long.
    """
    chance = random.Random(seed)
    words = [each for each in STRANGE if not (runs and each.startswith(("9", "10 **")))]
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        begin = chance.randrange(len(text) + 1)
        end = min(len(text), begin + chance.choice([0, 1, 1, 2, 5, 20, 100]))
        how = chance.randrange(6)
        if how == 0:  # one character for another
            text = text[:begin] + chr(chance.choice([*range(128), 0x85, 0x2028, 0xFEFF])) + text[begin + 1 :]
        elif how == 1:  # a piece is missing
            text = text[:begin] + text[end:]
        elif how == 2:  # a piece is there twice, or in another place
            other = chance.randrange(len(text) + 1)
            text = text[:other] + text[begin:end] + text[other:]
        elif how == 3:  # the rest is missing
            text = text[:begin] if chance.random() < 0.2 else text[:begin] + text[end:]
        else:
            text = _with_word(text, chance.choice(words), chance)
    return text


def _with_word(text: str, word: str, chance: random.Random) -> str:
    """Put a word in place of one that stands between marks, or of a whole line."""
    cuts = [at for at, character in enumerate(text) if character in " ,:=()[]{}\n\"'"] or [0]
    begin = chance.choice(cuts)
    later = [at for at in cuts if at > begin]
    end = chance.choice(later[:3]) if later else len(text)
    return text[: begin + 1] + word + text[end:]


def encoded(text: str, seed: str) -> bytes:
    """Return the bytes of a file; now and then it is not text in UTF-8."""
    chance = random.Random(f"bytes {seed}")
    data = text.encode("utf-8", "surrogatepass")
    if chance.random() < 0.1:
        return text.encode("utf-16", "surrogatepass") if chance.random() < 0.5 else data + b"\xff\xfe\x00"
    return data


class Fuzz:
    """Calls ``sppe`` in this process, and finds tracebacks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: list[str] = []
        self.worked = 0

    def write(self, name: str, data: bytes) -> str:
        """Replace a file."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        return str(path)

    def sppe(self, seed: str, *arguments: str) -> None:
        """Call it, and record errors."""
        result = CliRunner().invoke(main, list(arguments))
        self.worked += result.exit_code == 0
        gc.unfreeze()  # objects that the command freezes at its end would stay for all of these
        error = result.exception
        if error is not None and not isinstance(error, SystemExit):
            self.found.append(f"{seed}: {type(error).__name__}: {error!s:.200}")
        elif "Traceback" in result.output or result.exit_code not in (0, 1, 2):
            self.found.append(f"{seed}: exit code {result.exit_code}: {result.output[:200]}")
        elif result.exit_code == 2 and max(map(len, result.output.splitlines()), default=0) > LONGEST:
            self.found.append(f"{seed}: a line of {max(map(len, result.output.splitlines()))} characters")

    def call(self, seed: str, function: Callable[[], Any], *documented: type[Exception]) -> None:
        """Call a function that may raise documented errors, and record all others."""
        try:
            function()
        except (SewerError, *documented):
            pass
        except Exception as error:
            self.found.append(f"{seed}: {type(error).__name__}: {error!s:.200}")


@pytest.fixture
def fuzz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fuzz]:
    """Return a collector of tracebacks, and fail the test by them; a slow input fails it as well."""

    def hang(*_: Any) -> None:
        raise TimeoutError(f"it takes longer than {PATIENCE} s")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = signal.signal(signal.SIGALRM, hang)
    found = Fuzz(tmp_path)
    yield found
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    assert found.found == []


def seeds(kind: str, count: int) -> Iterator[str]:
    """Return seeds; each input has some seconds."""
    for number in range(count):
        signal.alarm(PATIENCE)
        yield f"{kind} {number}"
    signal.alarm(0)


SHOWS = [
    ("show",),
    ("show", "--format", "json"),
    ("show", "--format", "mermaid"),
    ("convert", "--to", "vscode", "--print-only"),
]


def test_workflow_files_leave_no_traceback(fuzz: Fuzz) -> None:
    """In Python, which is executed."""
    for number, seed in enumerate(seeds("python", 250)):
        path = fuzz.write("flow.py", encoded(changed(PYTHON, seed, runs=True), seed))
        fuzz.sppe(seed, *SHOWS[number % len(SHOWS)], "-p", path)


@pytest.mark.slow
def test_stages_leave_no_traceback(fuzz: Fuzz) -> None:
    """In YAML."""
    for number, seed in enumerate(seeds("yaml", 250)):
        path = fuzz.write("flow.yaml", encoded(changed(YAML, seed), seed))
        fuzz.sppe(seed, *SHOWS[number % len(SHOWS)], "-p", path)


def test_state_files_leave_no_traceback(fuzz: Fuzz) -> None:
    """Of this package, and of python-dag-pipeline."""
    flow = fuzz.write("flow.py", b"from airflow_provider_sewer import Task\na = Task('a', 'm')\nb = Task('b', 'm')\n")
    for number, seed in enumerate(seeds("state", 100)):
        stages = number % 4 == 0
        text = changed("a: SUCCESS\nb: FAILED\n" if stages else STATE, seed)
        path = fuzz.write("state.yaml" if stages else "state.jsonl", encoded(text, seed))
        os.chmod(path, 0o600)
        fuzz.sppe(seed, "explain", "-p", flow, "--resume", "--state", path)


def test_launch_json_leaves_no_traceback(fuzz: Fuzz) -> None:
    """A file that is there already is completed, or left alone."""
    flow = fuzz.write("flow.py", b"from airflow_provider_sewer import Task\na = Task('a', 'm')\n")
    for seed in seeds("launch", 100):
        path = fuzz.write("launch.json", encoded(changed(LAUNCH, seed), seed))
        fuzz.sppe(seed, "convert", "-p", flow, "--to", "vscode", "-o", path)


@pytest.mark.slow
def test_connections_leave_no_traceback(fuzz: Fuzz, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their fields come from a form, a URI, a file or a secrets backend."""
    from airflow.sdk.exceptions import AirflowNotFoundException

    from airflow_provider_sewer.hooks.sewer import SewerHook

    def all_of(hook: SewerHook) -> None:
        _ = hook.settings, hook.slurm_settings, hook.job_url, hook.secret_env

    for number, seed in enumerate(seeds("connection", 100)):
        text = changed(EXTRA, seed).replace("\0", "")
        extra: Any = text
        if number % 2:
            try:
                extra = json.loads(text)
            except (ValueError, RecursionError):
                extra = json.loads(EXTRA)
        monkeypatch.setenv("AIRFLOW_CONN_FUZZ", json.dumps({"conn_type": "sewer", "extra": extra}))
        fuzz.call(seed, lambda: all_of(SewerHook("fuzz")), AirflowNotFoundException)  # where Airflow cannot read it


OPTIONS = {
    "-p": ["flow.py", "flow.yaml", "missing.py", "/dev/zero", "/dev/stdin", ".", "pipe", "", "x" * 300],
    "-w": ["workflow", "digits", "", "x" * 10_000],
    "--arg": ["n=1", "n", "=", "n=" + "[" * 5000, "n=" + "9" * 5000, "n=NaN", "é=1", "n={{ ds }}"],
    "--jobs": ["m", "4", "a b", "x" * 10_000],
    "--limit": ["gpu=1", "gpu", "gpu=0", "gpu=" + "9" * 5000, "gpu=²", "gpu=-1", "=1"],
    "--select": [
        "a",
        "*",
        "*a" * 500,
        "+a+",
        "@a+",
        "999999999999+a",
        "a,b",
        "," * 5000,
        "[" * 5000,
        "tag:*",
        "x" * 10_000,
    ],
    "--exclude": ["a", "*", "", ",", "tag:", "?" * 5000],
    "--force": ["a", "x" * 10_000],
    "--only": ["a", ""],
    "--from": ["a", "+"],
    "--state": ["state.jsonl", "missing/state", "/dev/null", ".", "pipe", "state.yaml", "x" * 300, ""],
    "--env": ["A=b", "A", "=", "A=" + "x" * 200_000, "é=1"],
    "--workdir": [".", "/nowhere", "", "x" * 300, "{{ ds }}"],
    "-i": ["python3", "/nowhere", "", "a b", "{{ ds }}"],
    "--on": ["local", "slurm", "x" * 10_000],
    "--slurm": ["mem_gb=8", "mem_gb", "mem_gb=" + "9" * 5000, "x=1", "setup=[[[", "partition=" + "x" * 10_000],
    "--format": ["tree", "json", "mermaid", "x" * 10_000],
    "--to": ["vscode", "x" * 10_000],
    "-o": ["launch.json", ".", "/dev/full", "pipe", ""],
    "--launch-json-version": ["0.2.0", "", "x" * 10_000],
    "-j": ["1", "0", "x", "9" * 5000],
    "--unknown": ["x"],
}
COMMANDS = ["show", "explain", "convert", "pools", "schema", "", "x" * 10_000]


def test_command_lines_leave_no_traceback(fuzz: Fuzz) -> None:
    """Commands that run nothing, with options of all commands."""
    fuzz.write("flow.py", PYTHON.encode())
    fuzz.write("flow.yaml", YAML.encode())
    fuzz.write("state.jsonl", STATE.encode())
    os.mkfifo("pipe")
    for seed in seeds("command line", 100):
        chance = random.Random(seed)
        arguments = [chance.choice(COMMANDS), "-p", "flow.py" if chance.random() < 0.5 else "flow.yaml"]
        for option in chance.sample(sorted(OPTIONS), chance.randint(0, 5)):
            arguments += [option, chance.choice(OPTIONS[option])]
        if arguments[0] == "convert" and "--to" not in arguments:
            arguments += ["--to", "vscode"]
        fuzz.sppe(f"{seed} ({' '.join(arguments):.300})", *arguments)


def collected(directory: JobDirectory) -> str | None:
    """Return the last line of a module, found by the offset in its exit record."""
    record = directory.read_exit()
    return record and last_line_between(directory.stdout, *record.module_stdout)


def test_records_of_jobs_leave_no_traceback(fuzz: Fuzz) -> None:
    """Nor is a changed record of a success taken for one that it is not."""
    instance = TaskInstance("dag", "run", "task", -1, "0")
    names = list(RECORDS)
    for number, seed in enumerate(seeds("record", 100)):
        folder = fuzz.folder / "runs" / "dag" / "run" / "task" / str(number + 1)
        directory = JobDirectory(str(folder))
        directory.create()
        for name, record in RECORDS.items():
            (folder / name).parent.mkdir(exist_ok=True, mode=0o700)
            (folder / name).write_text(json.dumps({"format": 1, **record}))
        (folder / "claim").symlink_to("17")
        name = names[number % len(names)]
        (folder / name).write_bytes(encoded(changed(json.dumps({"format": 1, **RECORDS[name]}), seed), seed))
        (folder / name).chmod(0o600)
        attempts = Attempts(str(fuzz.folder / "runs"), instance)
        fuzz.call(seed, lambda attempts=attempts: (attempts.latest(), attempts.collected()))
        fuzz.call(seed, lambda directory=directory: collected(directory), OSError, ValueError)
        for read in (directory.read_start, directory.read_job, directory.read_monitor, directory.read_products):
            fuzz.call(seed, read)
        for read in (directory.read_ended, directory.read_ended_try, directory.read_log_state):
            fuzz.call(seed, read)
        fuzz.call(
            seed,
            lambda directory=directory: (finished_usage(directory, "success"), load_task(directory, Task("a", "m"))),
        )
        (folder / "stdout.log").write_text("a line\n")
        fuzz.call(seed, JobLogs(directory, lambda *_: None).finish)
        fuzz.call(seed, lambda folder=folder: read_record(str(folder / "x")))
    assert DiskCache("fuzz", 1).get() is None
