"""One module is run: with the environment that was promised, to a result or to an error that says what happened."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from airflow_provider_sewer.core.environment import INHERITED
from airflow_provider_sewer.core.errors import (
    InterpreterError,
    ModuleFailed,
    ModuleMissing,
    ModuleStopped,
    WorkdirError,
)
from airflow_provider_sewer.core.function import module_call
from airflow_provider_sewer.core.settings import Settings
from airflow_provider_sewer.runners.module import ModuleRun, result_as_json

# --- what the module gets


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
def test_arguments_arrive_as_they_are(argument: str, modules) -> None:
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


@pytest.fixture
def outside(monkeypatch) -> None:
    """Make this process's environment one that is known to the last variable."""
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in OUTSIDE.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("outside")
def test_a_module_sees_the_documented_variables_and_what_it_is_given(modules) -> None:
    """A module sees the short list, what it is given, and its two own variables: nothing else."""
    settings = modules.settings(env={"GIVEN": "yes", "LANG": "de_DE.UTF-8"})

    env = environment_of(modules.run(PRINT_ENVIRONMENT, settings=settings))

    listed = {name: OUTSIDE[name] for name in ("PATH", "HOME", "TMPDIR")}
    assert set(listed) <= set(INHERITED)
    assert env == {**listed, "PYTHONPATH": str(modules.folder), "GIVEN": "yes", "LANG": "de_DE.UTF-8"}


@pytest.mark.usefixtures("outside")
def test_inheriting_everything_leaves_out_what_is_private(modules) -> None:
    """With inherit_env=True everything passes but Airflow's and Slurm's own variables."""
    env = environment_of(modules.run(PRINT_ENVIRONMENT, settings=modules.settings(inherit_env=True)))

    private = {name for name in OUTSIDE if re.match("_*AIRFLOW|SLURM|SBATCH", name)}
    assert len(private) == 6
    assert env == {**{k: v for k, v in OUTSIDE.items() if k not in private}, "PYTHONPATH": str(modules.folder)}


@pytest.mark.usefixtures("outside")
def test_a_variable_that_is_named_passes(modules) -> None:
    """A private variable passes where it is named, and only that one."""
    settings = modules.settings(inherit_env=["SLURM_JOB_ID", "CUDA_HOME", "NOT_SET_HERE"])

    env = environment_of(modules.run(PRINT_ENVIRONMENT, settings=settings))

    assert {"SLURM_JOB_ID", "CUDA_HOME"} <= set(env)
    assert set(env).isdisjoint({"SBATCH_PARTITION", "SECRET_OF_THE_WORKER", "AIRFLOW_HOME", "NOT_SET_HERE"})


def test_a_module_does_not_belong_to_the_session_of_its_runner(modules) -> None:
    """A module leads a session and a process group of its own, without a terminal."""
    ran = modules.run("import os; print(os.getpid() == os.getsid(0) == os.getpgid(0), os.isatty(0))")

    assert ran.value == "True False"


@pytest.mark.parametrize("name", ["plain", "with spaces", "new\nline", "größe"])
def test_a_module_runs_in_its_working_directory(name: str, modules, tmp_path: Path) -> None:
    """A module runs in its working directory, and finds modules there."""
    workdir = tmp_path / name
    workdir.mkdir()
    (workdir / "neighbour.py").write_text("", encoding="utf-8")

    ran = modules.run(
        "import json, os, neighbour; print(json.dumps(os.getcwd()))", settings=modules.settings(workdir=workdir)
    )

    assert json.loads(ran.value) == str(workdir)


def test_the_command_line_is_told_with_its_secrets_masked(modules) -> None:
    """Before it starts, the command line and the working directory are told, secrets masked."""
    ran = modules.run("pass", "--password", "hunter2", "--key=abc-geheim-def", "a b", secrets=["geheim"])

    ((line, workdir),) = ran.started
    assert line == f"{sys.executable} -u -m made_1 --password *** '--key=abc-***-def' 'a b'"
    assert workdir is None


def test_nothing_starts_if_its_start_cannot_be_told(modules, tmp_path: Path) -> None:
    """When the start cannot be recorded, nothing is started."""
    run = modules.module_run("import sys; open(sys.argv[1], 'w')", str(tmp_path / "trace"))

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        run.run(lambda *_: None, on_start=fail)
    assert not (tmp_path / "trace").exists()


# --- what it leaves

WRITE = "import os; open(os.environ['SEWER_RESULT_FILE'], 'w').write({!r}); print('last line')"


@pytest.mark.parametrize("value", [None, True, 0, -1.5, "text", "ünï\ncödé", [], [1, [2]], {"a": {"b": None}}])
def test_a_result_is_what_the_module_wrote(value: object, modules) -> None:
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
def test_without_a_result_file_the_last_line_of_stdout_is_the_result(source: str, value: object, modules) -> None:
    """Without a result file the result is the last line of stdout; a line too long for that is none."""
    ran = modules.run(source)

    assert ran.error is None
    assert ran.value == value


UNREADABLE = {
    "nothing": (WRITE.format(""), "Expecting value"),
    "half a value": (WRITE.format('{"a": '), "Expecting value"),
    "two values": (WRITE.format("1 2"), "Extra data"),
    "NaN": (WRITE.format("[NaN]"), "NaN is no JSON value; write null or text"),
    "-Infinity": (WRITE.format("-Infinity"), "-Infinity is no JSON value"),
    "a number beyond all bounds": (WRITE.format("[1e999]"), "1e999 is no JSON value"),
    "a deep nest": (WRITE.format("[" * 100_000 + "]" * 100_000), "nested too deeply"),
    "bytes that are no text": (
        "import os; open(os.environ['SEWER_RESULT_FILE'], 'wb').write(b'\"\\xff\"')",
        "can't decode byte 0xff",
    ),
    "too much": (
        "import os; open(os.environ['SEWER_RESULT_FILE'], 'w').truncate(1_000_000_000)",
        "it is 1,000,000,000 bytes; keep large values in a file and give its path",
    ),
    "a directory": ("import os; os.mkdir(os.environ['SEWER_RESULT_FILE'])", "it is no file"),
    "a named pipe": ("import os; os.mkfifo(os.environ['SEWER_RESULT_FILE'])", "it is no file"),
    "endless zeros": ("import os; os.symlink('/dev/zero', os.environ['SEWER_RESULT_FILE'])", "it is no file"),
}


@pytest.mark.parametrize(("source", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_result_that_cannot_be_read_is_a_failure(source: str, reason: str, modules) -> None:
    """A module that leaves a result nobody can read has not succeeded, whatever it exited with."""
    error = modules.run(source).error

    assert isinstance(error, ModuleFailed)
    assert str(error).startswith("the module exited with 0, but its result in $SEWER_RESULT_FILE cannot be read: ")
    assert reason in str(error)


def test_numbers_of_any_size_that_json_has_are_read() -> None:
    """Large and small numbers pass as long as they are finite."""
    assert result_as_json("[1e308, -2.5e-320, 123456789012345678901234567890, 0.1]") == [
        1e308, -2.5e-320, 123456789012345678901234567890, 0.1,
    ]  # fmt: skip


@pytest.mark.parametrize("code", [0, 1])
def test_nothing_is_left_in_the_temporary_folder(code: int, modules, tmp_path: Path, monkeypatch) -> None:
    """The folder of the result is removed, whatever the module did in it and however it ended."""
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


def test_a_result_does_not_excuse_a_failure(modules) -> None:
    """A module that writes a result and then fails has failed."""
    assert isinstance(modules.run(WRITE.format("1") + "; raise SystemExit(1)").error, ModuleFailed)


# --- how it fails


def test_a_failure_says_what_ran_how_it_ended_and_what_it_said_last(modules) -> None:
    """The error holds exit code, command and the last lines of stderr."""
    ran = modules.run(
        """
        import sys
        print("progress")
        for number in range(30):
            print("problem", number, file=sys.stderr)
        sys.exit(3)
        """,
        "--out",
        "a b",
    )

    assert isinstance(ran.error, ModuleFailed)
    assert ran.error.exit_code == 3
    lines = str(ran.error).splitlines()
    assert lines[0] == f"made_1 failed with exit code 3; it was: {sys.executable} -u -m made_1 --out 'a b'"
    assert lines[1] == "The last lines of stderr:"
    assert lines[2:] == [f"  problem {number}" for number in range(10, 30)]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import sys; print('to stdout'); sys.exit(1)", "\nThe last lines of stdout:\n  to stdout"),
        ("import sys; sys.exit(1)", "\nIt wrote nothing."),
    ],
)
def test_a_failure_without_stderr_shows_what_there_is(source: str, said: str, modules) -> None:
    """Where stderr is empty the last lines of stdout are shown, or that there was nothing."""
    assert str(modules.run(source).error).endswith(said)


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("os._exit(1)", 1, "failed with exit code 1;"),
        ("os._exit(2)", 2, "failed with exit code 2;"),
        ("os._exit(137)", 137, "failed with exit code 137, a shell's word for SIGKILL (out of memory?);"),
        ("os._exit(139)", 139, "failed with exit code 139, a shell's word for SIGSEGV;"),
        ("os._exit(255)", 255, "failed with exit code 255;"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", None, "was ended by SIGSEGV;"),
        ("os.kill(os.getpid(), signal.SIGKILL)", None, "was ended by SIGKILL (out of memory?);"),
        ("os.kill(os.getpid(), signal.SIGRTMIN + 3)", None, "was ended by signal 37;"),
        ("os.abort()", None, "was ended by SIGABRT;"),
        ("raise RuntimeError('why')", 1, "failed with exit code 1;"),
    ],
)
def test_a_failure_says_how_the_module_ended(end: str, code: int | None, said: str, modules) -> None:
    """The error names the exit code, or the signal and what it usually means."""
    error = modules.run(f"import os, signal; {end}").error

    assert isinstance(error, ModuleFailed)
    assert error.exit_code == code
    assert str(error).startswith(f"made_1 {said}")


def test_secrets_are_masked_in_an_error(modules) -> None:
    """A secret does not get into the error, neither whole, nor over several lines, nor in part."""
    secrets = ["short-key", "short-key-made-long", "-----BEGIN-----\nsecond line\n-----END-----", ""]
    ran = modules.run(
        """
        import os, sys
        print("with", sys.argv[2], "and", os.environ["KEY_FILE"], file=sys.stderr)
        sys.exit(1)
        """,
        "--key",
        "short-key-made-long",
        secrets=secrets,
        settings=modules.settings(env={"KEY_FILE": secrets[2]}),
    )

    assert "--key ***" in str(ran.error)
    assert "  with *** and ***" in str(ran.error)
    for part in ("short", "long", "second", "BEGIN"):
        assert part not in str(ran.error)


def test_an_exit_code_that_was_taken_by_somebody_else_is_a_failure(modules, script) -> None:
    """Where exit codes are thrown away, a module has not succeeded: nobody knows."""
    unknowing = script(
        """
        import signal, sys
        from airflow_provider_sewer.core.errors import ModuleFailed
        from airflow_provider_sewer.core.settings import Settings
        from airflow_provider_sewer.core.function import module_call
        from airflow_provider_sewer.runners.module import ModuleRun
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        settings = Settings(python=sys.executable, env={"PYTHONPATH": sys.argv[1]})
        try:
            ModuleRun(module_call(sys.argv[2], []), settings).run(lambda *_: None)
        except ModuleFailed as error:
            print(error.exit_code, error)
        """,
        str(modules.folder),
        modules.write("import sys; sys.exit(3)"),
    )

    assert unknowing.output().startswith("None made_1 has ended, but how is not known: its exit code was collected")


# --- told apart from a failing module


def test_a_missing_module_is_no_failing_module(any_python: Path, modules) -> None:
    """In each version of Python, a missing module is told apart, with the interpreter and the fix."""
    ran = modules.run_there("nowhere.to_be_found", modules.settings(python=any_python))

    assert isinstance(ran.error, ModuleMissing)
    assert str(ran.error).startswith(f"{any_python} has no module to run as 'nowhere.to_be_found' (")
    assert str(ran.error).endswith("); install it there, correct the name, or name another interpreter")


def test_a_package_that_cannot_be_run_is_a_missing_module(any_python: Path, modules) -> None:
    """In each version of Python, a package without a __main__ is said to be no module to run."""
    modules.write("", "package.__init__")

    error = modules.run_there("package", modules.settings(python=any_python)).error

    assert isinstance(error, ModuleMissing)
    assert "'package' is a package and cannot be directly executed" in str(error)


FAILING = {
    "it imports something missing": "import nowhere",
    "it runs something missing": (
        "import subprocess, sys\n"
        "if __name__ == '__main__': sys.exit(subprocess.call([sys.executable, '-m', __spec__.name + '.nowhere']))"
    ),
    "it says so": "import sys; sys.exit(f'{sys.executable}: No module named {__spec__.name}')",
}


@pytest.mark.parametrize("source", FAILING.values(), ids=FAILING)
def test_a_failing_module_is_no_missing_module(source: str, any_python: Path, modules) -> None:
    """In each version of Python, a module that is there and fails is a failure, even if it sounds otherwise."""
    ran = modules.run(source, settings=modules.settings(python=any_python))

    assert isinstance(ran.error, ModuleFailed)
    assert "nowhere" in str(ran.error) or "No module named made_1" in str(ran.error)


def test_a_package_whose_start_fails_is_a_failure(any_python: Path, modules) -> None:
    """In each version of Python, a package that fails while it is imported is there, and failed."""
    modules.write("import nowhere", "package.__init__")
    modules.write("", "package.inner")

    error = modules.run_there("package.inner", modules.settings(python=any_python)).error

    assert isinstance(error, ModuleFailed)
    assert "nowhere" in str(error)


def test_a_missing_interpreter_and_workdir_are_found_before_anything_runs(modules, tmp_path: Path) -> None:
    """A missing interpreter and a missing working directory are errors of their own, and nothing starts."""
    name = modules.write("")

    no_python = modules.run_there(name, modules.settings(python=tmp_path / "python"))
    no_workdir = modules.run_there(name, modules.settings(workdir=tmp_path / "nowhere"))

    assert isinstance(no_python.error, InterpreterError)
    assert isinstance(no_workdir.error, WorkdirError)
    assert no_python.started == no_workdir.started == []


# --- how it is stopped


def test_a_stopped_module_says_so(modules, lifeline, background) -> None:
    """A module that was stopped is neither a success nor a failure, even if it exits with 0 then."""
    run = modules.module_run(
        """
        import os, signal, sys
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        os.write(os.open(sys.argv[1], os.O_WRONLY), b"ready\\n")
        signal.pause()
        """,
        lifeline.path,
    )

    follow = background(lambda: run.run(lambda *_: None))
    lifeline.expect("ready")
    run.stop()

    with pytest.raises(ModuleStopped, match="made_1 was stopped on request, and all it had started with it; it was: "):
        follow.result()
    lifeline.expect_end()


def test_a_module_that_is_stopped_before_it_starts_never_starts(modules, tmp_path: Path) -> None:
    """A stop before the start is obeyed."""
    run = modules.module_run("import sys; open(sys.argv[1], 'w')", str(tmp_path / "trace"))
    run.stop()

    with pytest.raises(ModuleStopped):
        run.run(lambda *_: None)
    assert not (tmp_path / "trace").exists()


def test_a_module_that_is_stopped_at_once_is_killed(modules, lifeline, background) -> None:
    """A stop at once does not wait for a module that ignores SIGTERM."""
    run = modules.module_run(
        """
        import os, signal, sys
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(os.open(sys.argv[1], os.O_WRONLY), b"ready\\n")
        while True: signal.pause()
        """,
        lifeline.path,
        grace=3600,
    )

    follow = background(lambda: run.run(lambda *_: None))
    lifeline.expect("ready")
    run.stop(at_once=True)

    with pytest.raises(ModuleStopped):
        follow.result()
    lifeline.expect_end()


def test_a_stop_in_the_middle_of_the_start_is_obeyed(modules, tmp_path: Path) -> None:
    """A stop that comes while the start is being told is obeyed: the module never runs."""
    run = modules.module_run("import sys; open(sys.argv[1], 'w')", str(tmp_path / "trace"))

    with pytest.raises(ModuleStopped):
        run.run(lambda *_: None, on_start=lambda *_: run.stop())
    assert not (tmp_path / "trace").exists()


def test_a_timeout_ends_the_module_and_is_raised(modules, lifeline) -> None:
    """An error raised by a signal handler, as Airflow's execution_timeout does, ends all that was started."""

    class TimeIsUp(BaseException):
        pass

    def raise_it(*_: object) -> None:
        raise TimeIsUp

    run = modules.module_run(
        """
        import os, signal, sys
        life = os.open(sys.argv[1], os.O_WRONLY)
        if os.fork() == 0:
            os.setsid()
            os.write(life, b"child\\n")
            signal.pause()
        os.write(life, b"ready\\n")
        os.kill(os.getppid(), signal.SIGUSR1)
        signal.pause()
        """,
        lifeline.path,
    )
    previous = signal.signal(signal.SIGUSR1, raise_it)
    try:
        with pytest.raises(TimeIsUp):
            run.run(lambda *_: None)
    finally:
        signal.signal(signal.SIGUSR1, previous)

    lifeline.expect_end()


def test_processes_left_behind_are_ended_and_named_on_a_line_of_its_own(modules, lifeline) -> None:
    """A successful module that left processes holding its output has succeeded; the log says what was ended."""
    ran = modules.run(
        """
        import os, signal, sys
        life = os.open(sys.argv[1], os.O_WRONLY)
        os.write(life, b"here\\n")
        print("almost", end="", file=sys.stderr)
        if os.fork() == 0:
            os.setsid()
            signal.pause()
        """,
        lifeline.path,
    )

    assert ran.error is None
    assert ran.stderr == (
        "almost\nmade_1 ended and left processes behind that held its output; they have been ended too.\n"
    )
    lifeline.expect_end()


def test_an_interpreter_that_hangs_can_be_stopped(lifeline, background, tmp_path: Path) -> None:
    """Asked who it is, it may never answer; a stop does not wait for that, and leaves nothing of it."""
    hanging = tmp_path / "python"
    hanging.write_text(f"#!/bin/sh\nexec 3>'{lifeline.path}'\necho ready >&3\nsleep 600\n")
    hanging.chmod(0o755)
    run = ModuleRun(module_call("this", []), Settings(python=str(hanging)))

    follow = background(lambda: run.run(lambda *_: None))
    lifeline.expect("ready")
    run.stop()

    with pytest.raises(ModuleStopped, match="before it was started"):
        follow.result()
    lifeline.expect_end()
