"""Errors of commands that cannot be started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from airflow_provider_sewer.core.command import Command
from airflow_provider_sewer.core.errors import InterpreterError, InvalidTask, WorkdirError
from airflow_provider_sewer.execution.orphan_reaper import new_tag
from airflow_provider_sewer.execution.process import Process
from tests.execution.commands import drop


def refused(*argv: str, env: dict[str, str] | None = None, workdir: str | None = None) -> Exception:
    with pytest.raises((InterpreterError, WorkdirError, InvalidTask)) as caught:
        Process(Command(argv, env or {}, workdir), mark=new_tag(), grace=0).follow(drop)
    return caught.value


def test_spawn_missing_executable_raises_interpreter_error(tmp_path: Path) -> None:
    """An executable that has gone is an interpreter error."""
    error = refused(str(tmp_path / "python"))

    assert isinstance(error, InterpreterError)
    assert str(error) == f"cannot start {tmp_path}/python: No such file or directory"


def test_spawn_explains_missing_shebang_interpreter(tmp_path: Path) -> None:
    """The error of a script with a missing interpreter differs from that of a missing script."""
    script = tmp_path / "python"
    script.write_text("#!/nowhere/python3\n", encoding="utf-8")
    script.chmod(0o755)

    error = refused(str(script))

    assert isinstance(error, InterpreterError)
    assert str(error).startswith(f"cannot start {script}: it exists, but the program that runs it does not")


def test_spawn_rejects_text_file_without_shebang(tmp_path: Path) -> None:
    """An executable text file without a first line for the kernel is refused, never given to a shell."""
    script = tmp_path / "python"
    script.write_text(f"touch {tmp_path}/trace\n", encoding="utf-8")
    script.chmod(0o755)

    error = refused(str(script))

    assert isinstance(error, InterpreterError)
    assert str(error) == f"cannot start {script}: Exec format error"
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("kind", ["missing", "a file"])
def test_spawn_missing_workdir_raises_with_its_path(kind: str, tmp_path: Path) -> None:
    """The error of a removed working directory differs from that of a missing interpreter."""
    workdir = tmp_path / "work"
    if kind == "a file":
        workdir.touch()

    error = refused(sys.executable, workdir=str(workdir))

    assert isinstance(error, WorkdirError)
    assert str(error).startswith(f"cannot enter the working directory {workdir}: No")


def test_spawn_workdir_without_permission_raises(closed_folder: Path, script) -> None:
    """A working directory that this user may not enter is named."""
    unprivileged = script(
        """
        import os, sys
        from airflow_provider_sewer.core.command import Command
        from airflow_provider_sewer.core.errors import WorkdirError
        from airflow_provider_sewer.execution.process import Process
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            Process(Command(("/bin/true",), {}, sys.argv[1]), mark="test/", grace=0).follow(lambda *_: None)
        except WorkdirError as error:
            print(error)
        """,
        str(closed_folder),
    )

    assert unprivileged.output() == f"cannot enter the working directory {closed_folder}: Permission denied\n"


def test_spawn_too_long_argument_error_has_its_size() -> None:
    """An argument too long for the system is named with its size."""
    error = refused(sys.executable, "-c", "pass", "--text", "é" * 100_000)

    assert isinstance(error, InvalidTask)
    assert "the one after --text alone is 200,001 bytes" in str(error)
    assert "é" not in str(error)


def test_spawn_too_many_arguments_error_has_their_size() -> None:
    """Arguments that are too long together are named with their size."""
    error = refused(sys.executable, "-c", "pass", *["x" * 100_000] * 50)

    assert isinstance(error, InvalidTask)
    assert "arguments and environment are 5,000," in str(error)


def test_spawn_too_long_variable_error_hides_its_value() -> None:
    """A variable too long for the system is named, and its value is not shown."""
    error = refused(sys.executable, "-c", "pass", env={"SMALL": "1", "BIG": "secret" * 50_000})

    assert isinstance(error, InvalidTask)
    assert "the variable 'BIG' alone is 300,005 bytes" in str(error)
    assert "secret" not in str(error)
