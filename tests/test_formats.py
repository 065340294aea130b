"""Records of each released format are read correctly, and unreadable ones are named: see docs/development/formats.md.

``tests/records/<version>/`` holds one record of each format, written by hand. It stays as it is for ever: a change that
fails here breaks records of users.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from airflow_provider_sewer.core import errors, formats
from airflow_provider_sewer.core.errors import KEYS, SewerError, UnreadableRecord
from airflow_provider_sewer.core.fingerprints import Fingerprint
from airflow_provider_sewer.core.formats import Format
from airflow_provider_sewer.core.paths import Dependency, External, Product
from airflow_provider_sewer.core.retry_requests import Failure, Request
from airflow_provider_sewer.core.serialization import tasks_of_data, tasks_to_data
from airflow_provider_sewer.core.staleness import Inputs, ProductRecord
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.execution.disk_cache import DiskCache
from airflow_provider_sewer.execution.failed_products import remove_failed
from airflow_provider_sewer.execution.product_claims import Claim, Claims
from airflow_provider_sewer.execution.product_records import read_record, write_record
from airflow_provider_sewer.execution.state_file import FinishedTask, StateFile, read_state
from airflow_provider_sewer.execution.task_runner import TaskRunner
from airflow_provider_sewer.slurm import job as slurm_job
from airflow_provider_sewer.slurm.arrays.job_array import ArrayOptions, JobArray
from airflow_provider_sewer.slurm.arrays.member_queue import ArrayMember, MemberQueue
from airflow_provider_sewer.slurm.arrays.registration import ArrayRegistration
from airflow_provider_sewer.slurm.attempts import Attempt, Attempts, TaskInstance
from airflow_provider_sewer.slurm.client import SlurmClient
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.job_products import JobProducts
from airflow_provider_sewer.slurm.job_records import ExitRecord, JobUsage, Monitor, StartRecord
from airflow_provider_sewer.slurm.job_result import JobResult
from airflow_provider_sewer.slurm.job_spec import load_task
from airflow_provider_sewer.slurm.log_tailer import JobLogs

RECORDS = Path(__file__).with_name("records") / "1"
ASKED = Request({"mem_gb": 16}, {"mem_gb": 32, "exclude": "n1"}, {"node_failure": 1})
DOCS = Path(__file__).parents[1] / "docs" / "development" / "formats.md"
#: The error of an unreadable record that decides about a job.
ERROR = "an error"
NAME = "dag.task-eec1f15ddf65abcdef"
WANTS = ArrayOptions("dag.task", {"mem_gb": 8}, requeue=False, most_seconds=None)
PRODUCT = ProductRecord(
    "train", "c0ffee", Fingerprint("1-2", "aa", "3-4"), {"in.csv": Fingerprint("3-4")}, {"raw": "7-8"}, "bb", None,
    {"loss": 0.5}, attempt="making-1-2", beside={"x.idx": Fingerprint("5-6")}, dag_run=["dag", "run"],
)  # fmt: skip
USAGE = JobUsage(
    NAME, "dag", "run", "task", -1, "4711", "out_of_memory", "n1", 1.0, 1700000003.5, 1700000009.5,
    {"cpus": 4.0, "mem_gb": 8.0}, {"elapsed": 6.0, "cpu": 5.5, "max_rss": 8589934592.0}, "job",
)  # fmt: skip
ENDING = JobResult("out_of_memory", "more", "4711", "OUT_OF_MEMORY", None, "n1", "/runs/1")


class Stored(NamedTuple):
    """A record on disk.

    :param format: its format.
    :param file: its name below the folder of the test.
    :param read: reads it as the package does, given the folder.
    :param value: the expected value.
    :param write: writes it as the package does, given the folder; ``None`` where a shell script does.
    :param unreadable: the value of a damaged record; an error for :data:`ERROR`.
    :param other_version: likewise where it is of another format.
    """

    format: Format
    file: str
    read: Callable[[str], Any]
    value: Any
    write: Callable[[str], Any] | None
    unreadable: Any = ERROR
    other_version: Any = ERROR


def attempt(folder: str) -> Attempt:
    """Return the attempt whose job directory is in a folder."""
    return Attempt(JobDirectory(f"{folder}/dag/run/task/1"), NAME, "slurm", "2", 1, in_array=True)


def read_attempt(folder: str) -> Any:
    found = Attempts(folder, TaskInstance("dag", "run", "task", -1, "2")).latest()
    recorded = JobDirectory(f"{folder}/dag/run/task/1").read_attempt()
    assert found is not None
    assert recorded is not None
    return found.directory.path, found[1:], (recorded["created"], recorded["begun"])


def read_job(folder: str) -> Any:
    found = ArrayRegistration(SlurmClient(), attempt("")._replace(directory=JobDirectory(folder))).look_up()
    return (*found.ref, found.cluster.kind, found.submitted)


def job(folder: str) -> slurm_job.Job:
    return slurm_job.Job.of("4711", NAME, JobDirectory(folder), SlurmClient(), 1700000002.5)


def event_again(fields: Any) -> Any:
    job, result = JobResult.from_event(fields)
    return result.to_event(job.to_dict())


def read_task(folder: str) -> Any:
    task = load_task(JobDirectory(folder), Task("now", "today"))
    return task.name, task.call().argv, task.products, task.dependencies, task.settings.workdir


def task_of_record() -> Task:
    (task,) = tasks_of_data(json.loads((RECORDS / "task.json").read_text()))
    return task


def read_products(folder: str) -> Any:
    task = Task("t", "m", products=["/x/model.npz"])
    making, made_from = JobProducts(TaskRunner(task, {}), JobDirectory(folder))._read()
    return making._folder.rpartition("making-")[2][9:], made_from


def read_log(folder: str) -> Any:
    Path(folder, "stdout.log").write_text("0\n23\n56\n")
    logged: list[str] = []
    JobLogs(JobDirectory(folder), lambda _, pieces: logged.extend(pieces), ["secret-value"]).finish()
    return "".join(logged)


def read_exit(folder: str) -> Any:
    if not os.path.lexists(f"{folder}/claim"):
        os.symlink("4711", f"{folder}/claim")
    return JobDirectory(folder).read_exit()


def read_waiting(folder: str) -> Any:
    room = MemberQueue(f"{folder}/arrays")
    members = room.members()
    if error := room.read_error(f"{folder}/map-1/1"):
        raise error
    return [member._replace(path=os.path.basename(member.path)) for member in members]


def read_members(folder: str) -> Any:
    array = JobArray(f"{folder}/arrays/1")
    return {number: os.path.relpath(path, folder) for number, path in array.elements.items()}, array.options


def read_refusal(folder: str) -> Any:
    refusal = JobArray(folder).rejection
    return refusal and (type(refusal), refusal.message)


def read_claims(folder: str) -> Any:
    with Claims(f"{folder}/x", lambda claim: False) as claims:
        return claims.claims_of_other_runs(Claim("mine", "", ""))


def add_claim(folder: str) -> None:
    with Claims(f"{folder}/x", lambda claim: False) as claims:
        claims.add(Claim("dag", "run", "make"))


def read_failed(folder: str) -> bool:
    Path(folder, "x.failed").touch()
    remove_failed(f"{folder}/x")
    return not os.path.exists(f"{folder}/x.failed")


def form(folder: str) -> None:
    JobArray(f"{folder}/arrays/1").form({1: f"{folder}/map-1/1"}, WANTS._replace(most_seconds=60.0))


IN_JOB = {
    "attempt": Stored(
        formats.ATTEMPT, "dag/run/task/1/attempt.json", read_attempt, None,
        lambda folder: attempt(folder).record_intent("slurm", 1700000000.5, 1700000001.5),
    ),
    "job": Stored(
        formats.JOB, "job.json", read_job, None, lambda folder: JobDirectory(folder).write_job(job(folder).to_dict())
    ),
    "task": Stored(
        formats.TASK, "task.json", read_task,
        (
            "train",
            (
                "-m", "pkg.train", "fit", "0.5", "--out", "model.npz", "--in", "raw/1.npz", "--in", "raw/2.npz",
                "--seed", "raw[n=1].result['seed'][0]", "--lr", "<lr['x']>", "--path", "a/b", "--many", "1",
                "--many", "2", "--flag",
            ),
            (Product("model.npz"), Product("out.txt"), Product("log.txt", atomic=False)),
            (Dependency("raw/1.npz"), Dependency("raw/2.npz"), Dependency("in.txt"), External("in.csv", timeout=60.0)),
            "/data",
        ),
        lambda folder: JobDirectory(folder).write_task(tasks_to_data([task_of_record()])),
    ),
    "products": Stored(
        formats.PRODUCTS, "products.json", read_products,
        ("dag.task-1", Inputs({"in.csv": Fingerprint("3-4", "c0ffee", "5-6")}, {"raw": "7-8"}, "aa", None)),
        lambda folder: JobDirectory(folder).write_products(
            {
                "attempt": "dag.task-1", "before": {"model.npz": Fingerprint("1-2"), "log.txt": None},
                "inputs": Inputs({"in.csv": Fingerprint("3-4", "c0ffee", "5-6")}, {"raw": "7-8"}, "aa").to_data(),
            }
        ),
    ),
    "ended": Stored(
        formats.ENDED, "ended.json",
        lambda folder: (JobDirectory(folder).read_ended(), JobDirectory(folder).read_ended_try()), ("collected", 3),
        lambda folder: JobDirectory(folder).write_ended("collected", 3),
    ),
    "asked": Stored(
        formats.ASKED, "asked.json", lambda folder: JobDirectory(folder).read_request(), ASKED,
        lambda folder: JobDirectory(folder).write_request(ASKED),
    ),
    "failure": Stored(
        formats.FAILURE, "failure.json", lambda folder: JobDirectory(folder).read_failure(),
        Failure("out_of_memory", "n1"),
        lambda folder: JobDirectory(folder).write_failure(Failure("out_of_memory", "n1")),
    ),
    "cancelled": Stored(
        formats.CANCELLED, "cancelled", lambda folder: JobDirectory(folder).is_cleared, True,
        lambda folder: JobDirectory(folder).write_cancelled(is_cleared=True), False, False,
    ),
    "follower": Stored(
        formats.MONITOR, "monitor.json", lambda folder: JobDirectory(folder).read_monitor(), Monitor("c0ffee", 3),
        lambda folder: JobDirectory(folder).write_monitor(Monitor("c0ffee", 3)), None, None,
    ),
    "unknown": Stored(
        formats.UNKNOWN, "unknown.json", lambda folder: JobDirectory(folder).read_unknown_seconds(), 12.5,
        lambda folder: JobDirectory(folder).write_unknown_seconds(12.5), 0.0, 0.0,
    ),
    "log-offsets": Stored(
        formats.LOG_OFFSETS, "log-offsets.json", read_log, "sec6\n", None, "0\n23\n56\n", "0\n23\n56\n"
    ),
    "usage": Stored(
        formats.USAGE, "usage.json", lambda folder: JobDirectory(folder).read_usage(), USAGE,
        lambda folder: JobDirectory(folder).write_usage(USAGE), None, None,
    ),
    "start": Stored(
        formats.START, "start.json", lambda folder: JobDirectory(folder).read_start(),
        StartRecord(1, "n1", 99, 1700000003.5), None, None, None,
    ),
    "exit": Stored(
        formats.EXIT, "exit.json", read_exit,
        ExitRecord(
            1, "n1", "teardown", 0, None, 1700000003.5, 1700000009.5, 9, 0, [0, 9], -1, 2,
            unsignalled=True, is_torn_down=True,
        ),
        None,
    ),
    "waiting": Stored(
        formats.WAITING, "arrays/waiting/map-1-1.json", read_waiting, [ArrayMember("1", 1, 2, 30.0, WANTS)],
        lambda folder: MemberQueue(f"{folder}/arrays").register(ArrayMember(f"{folder}/map-1/1", 1, 2, 30.0, WANTS)),
    ),
    "members": Stored(
        formats.MEMBERS, "arrays/1/members.json", read_members,
        ({1: "map-1/1"}, WANTS._replace(most_seconds=60.0)), form,
    ),
    "refused": Stored(
        formats.REFUSED, "refused.json", read_refusal, (errors.SlurmSubmissionRejected, "invalid partition"),
        lambda folder: JobArray(folder).reject(errors.SlurmSubmissionRejected("invalid partition")),
    ),
    "product": Stored(
        formats.PRODUCT, ".sewer/x.json", lambda folder: read_record(f"{folder}/x"), PRODUCT,
        lambda folder: write_record(f"{folder}/x", PRODUCT), None,
    ),
    "claim": Stored(
        formats.CLAIM, ".sewer/x.runs/42ad19a443b1a9a7.run", read_claims, [Claim("dag", "run", "make")], add_claim,
    ),
    "failed": Stored(formats.FAILED_FILES, ".sewer/x.failed", read_failed, True, None, False, False),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Return a folder that no other user can write."""
    os.makedirs(tmp_path / "own", mode=0o700)
    return str(tmp_path / "own")


def put(folder: str, stored: Stored, text: str) -> Path:
    """Put a record in place."""
    path = Path(folder, stored.file)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(text)
    for each in (path, *path.parents):
        if str(each).startswith(folder):
            each.chmod(0o700 if each.is_dir() else 0o600)
    return path


def record(name: str, folder: str) -> dict[str, Any]:
    """Return a record of format 1 in a folder."""
    (file,) = RECORDS.glob(f"{name}.json") if name != "cancelled" else [RECORDS / "cancelled"]
    fields: dict[str, Any] = json.loads(file.read_text().replace("{folder}", folder))
    return fields


def expected(name: str, folder: str) -> Any:
    """Return the value that is read of a record in a folder."""
    if name == "attempt":
        return f"{folder}/dag/run/task/1", attempt(folder)[1:], (1700000000.5, 1700000001.5)
    return ("4711", NAME, folder, "slurm", 1700000002.5) if name == "job" else IN_JOB[name].value


@pytest.mark.parametrize("name", IN_JOB)
def test_record_of_format_1_is_read(name: str, folder: str) -> None:
    """With a key more as well."""
    stored = IN_JOB[name]
    put(folder, stored, json.dumps(record(name, folder) | {"a key of later": [1]}))

    assert stored.read(folder) == expected(name, folder)


@pytest.mark.parametrize("name", [name for name, stored in IN_JOB.items() if stored.write])
def test_record_is_written_in_format_1(name: str, folder: str) -> None:
    """Key by key, the value that an older version of the same format reads."""
    stored = IN_JOB[name]
    for each in ("dag/run/task/1", "arrays/1", "map-1/1"):
        Path(folder, each).mkdir(parents=True, mode=0o700)
    assert stored.write is not None
    stored.write(folder)

    assert json.loads(Path(folder, stored.file).read_text()) == record(name, folder)


def check_unreadable(stored: Stored, folder: str, path: Path, wanted: Any, words: str) -> None:
    if wanted != ERROR:
        assert stored.read(folder) == wanted
        return
    with pytest.raises(UnreadableRecord, match=words) as caught:
        stored.read(folder)
    assert str(path) in str(caught.value)
    assert stored.format.fix in str(caught.value)


@pytest.mark.parametrize("name", IN_JOB)
def test_truncated_exit_or_submission_record_raises(name: str, folder: str) -> None:
    """Elsewhere it counts as missing."""
    stored = IN_JOB[name]
    text = json.dumps(record(name, folder))
    path = put(folder, stored, text[: len(text) // 2])

    check_unreadable(stored, folder, path, stored.unreadable, "cannot be read as format 1: ")


@pytest.mark.parametrize("name", IN_JOB)
def test_exit_or_submission_record_of_newer_format_raises(name: str, folder: str) -> None:
    """The error names the file, both versions and the way out."""
    stored = IN_JOB[name]
    path = put(folder, stored, json.dumps(record(name, folder) | {"format": 99}))

    words = "has format 99, and this version of airflow-provider-sewer reads format 1; "
    check_unreadable(stored, folder, path, stored.other_version, words)


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name, stored in IN_JOB.items() for key in ("format", *stored.format.keys)]
)
def test_exit_or_submission_record_without_key_raises(name: str, key: str, folder: str) -> None:
    """No value is made up for it."""
    stored = IN_JOB[name]
    fields = record(name, folder)
    del fields[key]
    path = put(folder, stored, json.dumps(fields))

    check_unreadable(stored, folder, path, stored.unreadable, f"cannot be read as format 1: .*'{key}'")


def test_keys_of_a_task_are_all_needed(folder: str) -> None:
    """Those of its markers and settings included."""
    whole = json.loads((RECORDS / "task.json").read_text())

    def without_each(value: Any) -> Any:
        """Yield the value once for each key in it, without that."""
        if isinstance(value, list):
            for at, item in enumerate(value):
                yield from ((key, [*value[:at], less, *value[at + 1 :]]) for key, less in without_each(item))
        elif isinstance(value, dict):
            for key, item in value.items():
                if "identity" in value or "template" in value or value.get("$") not in (None, "task", "dict"):
                    yield key, {name: each for name, each in value.items() if name != key}
                yield from ((inner, {**value, key: less}) for inner, less in without_each(item))

    tried = 0
    for key, less in without_each(whole):
        if key != "$":
            tried += 1
            with pytest.raises(UnreadableRecord, match=f"the file cannot be read as .*: the key '{key}' is m"):
                tasks_of_data(less, "the file")
    assert tried > 100


def test_task_attributes_are_all_stored() -> None:
    """One that is new has to get a key."""
    task = task_of_record()
    fresh = Task("a", "m")
    assert vars(task).keys() == vars(fresh).keys()


def test_error_classes_have_unique_keys() -> None:
    """The keys stay when classes are renamed."""
    kinds = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, SewerError)}

    assert set(KEYS.values()) == kinds
    assert set(json.loads((RECORDS / "errors.json").read_text())) <= set(KEYS)
    assert KEYS["out_of_memory"] is errors.SlurmOutOfMemory


@pytest.mark.parametrize("kind", [formats.START, formats.EXIT], ids=lambda kind: kind.name)
def test_job_script_writes_each_key(kind: Format) -> None:
    """In the version that is read."""
    script = (Path(slurm_job.__file__).parent / "job.bash").read_text()
    (text,) = [line for line in script.splitlines() if f'"{[*kind.keys][4]}": ' in line and "printf" in line]

    assert set(re.findall(r'"(\w+)": ', text)) == {"format", *kind.keys}
    assert f'"format": {kind.version}, ' in text


# -- Caches and state files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, ["kept"]),
        ({"a key of later": 1}, ["kept"]),
        ({"format": 99}, None),
        ({"value": ...}, None),
        ({"fingerprints": ...}, None),
    ],
)
def test_cache_of_another_format_is_built_again(change: Any, found: Any, folder: str, monkeypatch: Any) -> None:
    """It counts as missing."""
    monkeypatch.setenv("XDG_CACHE_HOME", folder)
    cache = DiskCache("interpreters", "key")
    cache.put(["other"])
    fields = json.loads((RECORDS / "cache.json").read_text()) | change
    content = json.dumps({key: value for key, value in fields.items() if value is not ...}).encode()
    Path(cache._folder, cache._name).write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)

    assert cache.get() == found


def test_state_file_of_format_1_is_read(folder: str) -> None:
    """With a key more in each line as well."""
    text = (RECORDS / "state.jsonl").read_text()
    path = Path(folder, "w.jsonl")
    path.write_text(text.replace("{", '{"later": 1, '))

    assert read_state(str(path), "w") == {"a": FinishedTask("c0ffee", [1], 1)}


def test_state_file_is_written_in_format_1(folder: str) -> None:
    """Key by key."""
    with StateFile(f"{folder}/w.jsonl", "w", keep=False, run_dir="/runs") as state:
        state.record("a", "succeeded", command="c0ffee", result=[1])
        state.record("b", "failed", reason="no")
        state.record_end()

    written, wanted = (
        [json.loads(line) for line in file.read_text().splitlines()]
        for file in (Path(folder, "w.jsonl"), RECORDS / "state.jsonl")
    )
    assert [list(line) for line in written] == [list(line) for line in wanted]
    assert [line.get("sewer_state", line.get("sewer_end", line.get("state"))) for line in written] == [
        1, "succeeded", "failed", 1,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"sewer_state": 1', '"sewer_state": 99', ":1 has format 99, and this version .* reads format 1; .*--state"),
        ('"sewer_end": 1', '"sewer_end": 99', ":4 has format 99, and this version .* reads format 1; .*--state"),
        ('"command": "c0ffee", ', "", ":2 cannot be read as format 1: the key 'command' is missing; .*--state"),
        (', "result": [1]}', "}", ":2 cannot be read as format 1: the key 'result' is missing; .*--state"),
    ],
)
def test_state_file_of_another_format_raises(old: str, new: str, words: str, folder: str) -> None:
    """No task with an unknown result runs again."""
    path = Path(folder, "w.jsonl")
    path.write_text((RECORDS / "state.jsonl").read_text().replace(old, new))

    with pytest.raises(UnreadableRecord, match=words):
        read_state(str(path), "w")


# -- Documentation -----------------------------------------------------------------------------------------------------


def test_formats_documentation_has_all_keys() -> None:
    """And its version."""
    text = DOCS.read_text()
    for kind in (each for each in vars(formats).values() if isinstance(each, Format)):
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{kind.name}` | {kind.version} |")]
        assert [key for key in kind.keys if f"`{key}`" not in row] == [], kind.name
