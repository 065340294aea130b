"""Execution of one module: its environment and its result."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from airflow_provider_sewer.core.environment import INHERITED
from airflow_provider_sewer.core.errors import ModuleFailed
from airflow_provider_sewer.execution.module_result import result_as_json
from airflow_provider_sewer.execution.output import Stream

# --- start


@pytest.mark.parametrize(
    "argument",
    [
        "",
        " ",
        "two words",
        "new\nline",
        "größe ✓",
        "'single'",
        '"double"',
        "$(touch trace)",
        "`id`; id | id > x",
        "*",
        "\\",
    ],
)
def test_module_arguments_are_passed_unchanged(argument: str, modules) -> None:
    """No shell is involved: an argument arrives letter by letter."""
    ran = modules.run("import json, sys; print(json.dumps(sys.argv[1:]))", argument, "--next")

    assert json.loads(ran.value) == [argument, "--next"]


def environment_of(ran) -> dict[str, str]:
    assert ran.error is None
    env = dict(json.loads(ran.value))
    assert re.fullmatch(r"[0-9a-f]{32}/1/", env.pop("SEWER_ATTEMPT_ID"))
    assert env.pop("SEWER_RESULT_FILE").startswith(tempfile.gettempdir())
    env.pop("LC_CTYPE", None)  # Python sets it itself where the locale is C
    env.pop("PYTEST_CURRENT_TEST", None)
    return env


PRINT_ENVIRONMENT = "import json, os; print(json.dumps(dict(os.environ)))"
OUTSIDE = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/home/of/mine",
    "LANG": "C.UTF-8",
    "TMPDIR": tempfile.gettempdir(),
    "AIRFLOW__CORE__FERNET_KEY": "hidden",
    "AIRFLOW_CONN_DB": "hidden",
    "AIRFLOW_HOME": "/airflow",
    "__AIRFLOW_STANDALONE": "1",
    "SLURM_JOB_ID": "17",
    "SBATCH_PARTITION": "gpu",
    "PYTHONPATH": "/worker/path",
    "SECRET_OF_THE_WORKER": "hidden",
    "CUDA_HOME": "/cuda",
}

#: The names under which the interpreter of these tests, in a virtual environment, finds them.
ACTIVE = {"PATH": f"{os.path.dirname(sys.executable)}:/usr/bin:/bin", "VIRTUAL_ENV": sys.prefix}


@pytest.fixture
def outside(monkeypatch) -> None:
    """Make this process's environment one that is known to the last variable."""
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in OUTSIDE.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("outside")
def test_module_environment_has_documented_and_given_variables(modules) -> None:
    """A module has only the inherited, the given and its two own variables."""
    settings = modules.settings(env={"GIVEN": "yes", "LANG": "de_DE.UTF-8"})

    env = environment_of(modules.run(PRINT_ENVIRONMENT, settings=settings))

    listed = {name: OUTSIDE[name] for name in ("PATH", "HOME", "TMPDIR")}
    assert set(listed) <= set(INHERITED)
    assert env == {**listed, **ACTIVE, "PYTHONPATH": str(modules.folder), "GIVEN": "yes", "LANG": "de_DE.UTF-8"}


@pytest.mark.usefixtures("outside")
def test_inherit_env_true_excludes_private_variables(modules) -> None:
    """With inherit_env=True everything passes but Airflow's and Slurm's own variables."""
    env = environment_of(modules.run(PRINT_ENVIRONMENT, settings=modules.settings(inherit_env=True)))

    private = {name for name in OUTSIDE if re.match("_*AIRFLOW|SLURM|SBATCH", name)}
    assert len(private) == 6
    passed = {k: v for k, v in OUTSIDE.items() if k not in private}
    assert env == {**passed, **ACTIVE, "SECRET_OF_THE_WORKER": "***", "PYTHONPATH": str(modules.folder)}


@pytest.mark.usefixtures("outside")
def test_inherit_env_by_name_passes_private_variable(modules) -> None:
    """A private variable passes where it is named, and only that one."""
    settings = modules.settings(inherit_env=["SLURM_JOB_ID", "CUDA_HOME", "NOT_SET_HERE"])

    env = environment_of(modules.run(PRINT_ENVIRONMENT, settings=settings))

    assert {"SLURM_JOB_ID", "CUDA_HOME"} <= set(env)
    assert set(env).isdisjoint({"SBATCH_PARTITION", "SECRET_OF_THE_WORKER", "AIRFLOW_HOME", "NOT_SET_HERE"})


def test_module_runs_in_new_session(modules) -> None:
    """A module leads a session and a process group of its own, without a terminal."""
    ran = modules.run("import os; print(os.getpid() == os.getsid(0) == os.getpgid(0), os.isatty(0))")

    assert ran.value == "True False"


@pytest.mark.parametrize("name", ["plain", "with spaces", "new\nline", "größe"])
def test_module_runs_in_its_workdir(name: str, modules, tmp_path: Path) -> None:
    """A module runs in its working directory, and finds modules there."""
    workdir = tmp_path / name
    workdir.mkdir()
    (workdir / "neighbour.py").write_text("", encoding="utf-8")

    ran = modules.run(
        "import json, os, neighbour; print(json.dumps(os.getcwd()))", settings=modules.settings(workdir=workdir)
    )

    assert json.loads(ran.value) == str(workdir)


def test_on_start_receives_masked_command_line(modules) -> None:
    """Before the start, ``on_start`` receives the masked command line and the working directory."""
    ran = modules.run("pass", "--password", "hunter2", "--key=abc-geheim-def", "a b", secrets=["geheim"])

    ((line, workdir),) = ran.started
    assert line == f"{sys.executable} -u -m made_1 --password *** '--key=abc-***-def' 'a b'"
    assert workdir is None


def test_on_start_error_prevents_start(modules, tmp_path: Path) -> None:
    """When the start cannot be recorded, nothing is started."""
    run = modules.module_run("import sys; open(sys.argv[1], 'w')", str(tmp_path / "trace"))

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        run.run(lambda *_: None, on_start=fail)
    assert not (tmp_path / "trace").exists()


# --- result

WRITE = "import os; open(os.environ['SEWER_RESULT_FILE'], 'w').write({!r}); print('last line')"


@pytest.mark.parametrize("value", [None, True, 0, -1.5, "text", "ünï\ncödé", [], [1, [2]], {"a": {"b": None}}])
def test_result_is_read_from_result_file(value: object, modules) -> None:
    """The JSON value in the result file is the result."""
    assert modules.run(WRITE.format(json.dumps(value, ensure_ascii=False))).value == value


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("pass", None),
        ("print('one'); print('two')", "two"),
        ("print('one'); print('two', end='')", "two"),
        ("print('one'); print()", ""),
        ("import sys; print('one'); print('two', file=sys.stderr)", "one"),
        ("import os; os.write(1, b'\\xff[red]')", "\\xff[red]"),
        ("print('x' * 100_000)", None),
    ],
)
def test_result_without_file_is_last_line_of_stdout(source: str, value: object, modules) -> None:
    """Without a result file the result is the last line of stdout; a line longer than a piece is not a result."""
    ran = modules.run(source)

    assert ran.error is None
    assert ran.value == value


UNREADABLE = {
    "nothing": (WRITE.format(""), "Expecting value"),
    "half a value": (WRITE.format('{"a": '), "Expecting value"),
    "two values": (WRITE.format("1 2"), "Extra data"),
    "NaN": (WRITE.format("[NaN]"), "NaN is not a JSON value; write null or text"),
    "-Infinity": (WRITE.format("-Infinity"), "-Infinity is not a JSON value"),
    "a number beyond all bounds": (WRITE.format("[1e999]"), "1e999 is not a JSON value"),
    "a deep nest": (WRITE.format("[" * 100_000 + "]" * 100_000), "nested too deeply"),
    "bytes that are no text": (
        "import os; open(os.environ['SEWER_RESULT_FILE'], 'wb').write(b'\"\\xff\"')",
        "can't decode byte 0xff",
    ),
    "too much": (
        "import os; open(os.environ['SEWER_RESULT_FILE'], 'w').truncate(1_000_000_000)",
        "it is 1,000,000,000 bytes; keep large values in a file and give its path",
    ),
    "a directory": ("import os; os.mkdir(os.environ['SEWER_RESULT_FILE'])", "it is not a regular file"),
    "a named pipe": ("import os; os.mkfifo(os.environ['SEWER_RESULT_FILE'])", "it is not a regular file"),
    "endless zeros": ("import os; os.symlink('/dev/zero', os.environ['SEWER_RESULT_FILE'])", "it is a symbolic link"),
}


@pytest.mark.parametrize(("source", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_unreadable_result_raises_module_failed(source: str, reason: str, modules) -> None:
    """A module with an unreadable result fails with any exit code."""
    error = modules.run(source).error

    assert isinstance(error, ModuleFailed)
    assert str(error).startswith("the module exited with 0, but its result in $SEWER_RESULT_FILE cannot be read: ")
    assert reason in str(error)


_WRITE = "import json, os; json.dump({}, open(os.environ['SEWER_RESULT_FILE'], 'w'))"
NOT_STORABLE = {
    "NUL": (_WRITE.format("'a\\0b'"), "result contains a NUL character, which PostgreSQL cannot store; remove it"),
    "NUL inside": (_WRITE.format("{'names': ['a', 'b\\0']}"), "result['names'][1] contains a NUL character"),
    "NUL in key": (_WRITE.format("[{'a\\0': 1}]"), "a key of result[0] contains a NUL character"),
    "NUL in last line": ("print('a\\0b')", "result contains a NUL character"),
    "surrogate": (_WRITE.format("['\\ud800']"), "result[0] is not valid Unicode; encode it, such as in base64"),
}


@pytest.mark.parametrize(("source", "reason"), NOT_STORABLE.values(), ids=NOT_STORABLE)
def test_text_in_result_that_cannot_be_stored_raises_module_failed(source: str, reason: str, modules) -> None:
    """A workflow fails in the same way with and without Airflow."""
    error = modules.run(source).error

    assert isinstance(error, ModuleFailed)
    assert str(error).startswith(f"the module exited with 0, but its result cannot be stored: {reason}")


def test_result_accepts_finite_numbers_of_any_size() -> None:
    """Large and small numbers pass as long as they are finite."""
    assert result_as_json("[1e308, -2.5e-320, 123456789012345678901234567890, 0.1]") == [
        1e308, -2.5e-320, 123456789012345678901234567890, 0.1,
    ]  # fmt: skip


@pytest.mark.parametrize("code", [0, 1])
def test_module_run_removes_its_temporary_folder(code: int, modules, tmp_path: Path, monkeypatch) -> None:
    """The folder of the result is removed after any end, with any content."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    modules.run(f"""
        import os, sys
        folder = os.path.dirname(os.environ["SEWER_RESULT_FILE"])
        os.makedirs(folder + "/more/and/more")
        os.chmod(folder + "/more", 0o500)
        open(folder + "/file", "w").close()
        sys.exit({code})
    """)

    assert list((tmp_path / "temporary").iterdir()) == []


def test_module_with_result_and_nonzero_exit_code_fails(modules) -> None:
    """A module that writes a result and then fails has failed."""
    assert isinstance(modules.run(WRITE.format("1") + "; raise SystemExit(1)").error, ModuleFailed)


def test_secret_written_in_two_parts_is_masked(modules, gate) -> None:
    """The part of the line before it is handed on, and the secret is not, although its beginning came first."""
    source = """
        import fcntl, sys
        print("a line that goes on and on and on with hush-hush", end="", flush=True)
        fcntl.flock(open(sys.argv[1]), fcntl.LOCK_SH)
        print("-hush and that was it")
    """
    pieces: list[str] = []

    def sink(stream: Stream, come: Sequence[str]) -> None:
        pieces.extend(come)
        gate.open()

    result = modules.module_run(source, gate.path, secrets=["hush-hush-hush"]).run(sink)

    assert len(pieces) > 1
    assert "".join(pieces) == "a line that goes on and on and on with *** and that was it\n"
    assert not any("hush" in piece for piece in pieces)
    assert result.value == "a line that goes on and on and on with *** and that was it"
