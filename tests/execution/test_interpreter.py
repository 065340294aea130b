"""Lookup and verification of interpreters, and of their modules."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_sewer.core.errors import InterpreterError, WorkdirError
from airflow_provider_sewer.execution import interpreter
from airflow_provider_sewer.execution.interpreter import check_workdir, find_interpreter, missing_modules

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def executable(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of executable scripts."""

    def write(text: str, path: str = "python", mode: int = 0o755) -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        file.chmod(mode)
        return file

    return write


def refusal(python: object) -> str:
    """Return the error message for an invalid interpreter."""
    with pytest.raises(InterpreterError) as caught:
        find_interpreter(str(python))
    return str(caught.value)


# --- the interpreter


def test_find_interpreter_identifies_every_supported_python(any_python: Path) -> None:
    """Each version of Python reports its version and the root of its environment."""
    found = find_interpreter(str(any_python))

    assert found.path == str(any_python)
    assert f"python{found.version.rpartition('.')[0]}" in os.path.realpath(any_python)
    assert Path(found.prefix, "bin").is_dir()


def test_find_interpreter_missing_path_raises(tmp_path: Path) -> None:
    """The error of a missing path contains "does not exist"."""
    assert refusal(tmp_path / "venv/bin/python") == (
        f"the interpreter {tmp_path}/venv/bin/python does not exist; create the environment, or correct the path"
    )


def test_find_interpreter_directory_raises(tmp_path: Path) -> None:
    """The error of an environment's folder asks for the executable in it."""
    assert refusal(tmp_path) == (
        f"the interpreter {tmp_path} is not a file; name the executable, such as {tmp_path}/bin/python"
    )


def test_find_interpreter_dangling_link_raises_with_its_target(tmp_path: Path) -> None:
    """A dangling link, left behind by an upgrade of Python, has another error than a wrong path."""
    link = tmp_path / "python"
    link.symlink_to("gone/python3.8")

    assert refusal(link) == (
        f"the interpreter {link} is a link to {tmp_path}/gone/python3.8, which does not exist; "
        "create the environment again"
    )


def test_find_interpreter_non_executable_file_raises(executable) -> None:
    """A file without the permission to run it is named."""
    file = executable("#!/bin/sh\n", mode=0o644)

    assert refusal(file) == f"the interpreter {file} is not executable for this user"


def test_find_interpreter_text_file_raises(executable) -> None:
    """An executable text that the system cannot run is named."""
    file = executable("I am no program\n")

    assert refusal(file) == f"cannot start {file}: Exec format error"


@pytest.mark.parametrize("path", ["/bin/true", "/bin/false", "/bin/echo", "/bin/cat", "/bin/sh", "/usr/bin/yes"])
def test_find_interpreter_rejects_other_programs(path: str) -> None:
    """Another program is rejected, and its output is shown."""
    message = refusal(path)

    assert message.startswith(f"{path} is not a Python 3 interpreter: asked for its version it exited with ")


def test_find_interpreter_rejects_unexpected_json(executable) -> None:
    """A program that happens to print JSON is no Python for that."""
    for text in ("[1, 2]", "{}", '"3.11"', "3"):
        assert "not a Python 3 interpreter" in refusal(executable(f"#!/bin/sh\necho '{text}'\n"))


def test_find_interpreter_times_out_with_process_tree(executable, lifeline, monkeypatch) -> None:
    """A program that does not answer is given up after a while, and nothing of it stays."""
    monkeypatch.setattr(interpreter, "_TIMEOUT", 1.0)
    file = executable(f"#!/bin/sh\nexec 3>{lifeline.path}\necho here >&3\nsleep 1000 &\nwait\n")

    message = refusal(file)

    assert message.startswith(
        f"{file} is not a Python 3 interpreter: asked for its version it gave no short answer within 1 s"
    )
    lifeline.expect_end()


def test_find_interpreter_limits_output(executable, lifeline) -> None:
    """A program that writes without end is given up long before the memory is full."""
    file = executable(f"#!/bin/sh\nexec 3>{lifeline.path}\necho here >&3\nyes 'it is me'\n")

    assert "gave no short answer" in refusal(file)
    lifeline.expect_end()


def test_find_interpreter_searches_name_on_path(executable, monkeypatch, tmp_path: Path) -> None:
    """A bare name is looked up on PATH; one that is not there is named."""
    found = executable(f'#!/bin/sh\nexec {sys.executable} "$@"\n', "bin/python-of-mine")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    assert find_interpreter("python-of-mine").path == str(found)
    assert refusal("python-of-yours") == ("no interpreter 'python-of-yours' on PATH; correct the name or give its path")


def test_find_interpreter_relative_path_entry_returns_absolute_path(executable, monkeypatch, tmp_path: Path) -> None:
    """An interpreter found in a relative entry of PATH is still found from another working directory."""
    found = executable(f'#!/bin/sh\nexec {sys.executable} "$@"\n', "bin/python")
    monkeypatch.setenv("PATH", "bin")
    monkeypatch.chdir(tmp_path)

    assert find_interpreter("python").path == str(found)
    assert find_interpreter(None).path == str(found)


def test_find_interpreter_default_is_python_then_python3(executable, monkeypatch, tmp_path: Path) -> None:
    """Without a setting, `python` is used, else `python3`; without both, the error names both."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(InterpreterError, match="no python on PATH"):
        find_interpreter(None)

    third = executable(f'#!/bin/sh\nexec {sys.executable} "$@"\n', "bin/python3")
    assert find_interpreter(None).path == str(third)

    first = executable(f'#!/bin/sh\nexec {sys.executable} "$@"\n', "bin/python")
    assert find_interpreter(None).path == str(first)


def test_find_interpreter_caches_until_file_changes(executable, tmp_path: Path) -> None:
    """A known interpreter is not queried again, unless the executable has been replaced."""
    text = f'#!/bin/sh\necho asked >>{tmp_path}/count\nexec {sys.executable} "$@"\n'
    file = executable(text)
    count = tmp_path / "count"

    find_interpreter(str(file))
    find_interpreter(str(file), {"OTHER": "environment"})
    assert count.read_text(encoding="utf-8") == "asked\n"

    file.unlink()
    executable(text)
    find_interpreter(str(file))
    assert count.read_text(encoding="utf-8") == "asked\nasked\n"


def test_known_interpreter_is_cached_between_processes(executable, script, tmp_path: Path) -> None:
    """Each task of a worker is a process; its interpreter is queried once, until it changes."""
    text = f'#!/bin/sh\necho asked >>{tmp_path}/count\nexec {sys.executable} "$@"\n'
    file = executable(text)
    find = "import sys; from airflow_provider_sewer.execution.interpreter import *; "
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}

    for _ in range(3):
        output = script(find + "print(known_interpreter(sys.argv[1]))", str(file), env=env).output()
        assert output == f"{file}\n"
    assert (tmp_path / "count").read_text(encoding="utf-8") == "asked\n"

    file.unlink()
    executable(text)
    script(find + "known_interpreter(sys.argv[1])", str(file), env=env).output()
    assert (tmp_path / "count").read_text(encoding="utf-8") == "asked\n" * 2


def test_find_interpreter_passes_given_environment(executable) -> None:
    """An interpreter that starts only with certain variables (a library path) is asked with these."""
    file = executable('#!/bin/sh\nexec "$ROOT_OF_PYTHON"/bin/python "$@"\n')

    assert "not a Python 3 interpreter" in refusal(file)
    assert find_interpreter(str(file), {"ROOT_OF_PYTHON": sys.prefix}).prefix == sys.prefix


def test_missing_modules_caches_interpreter(executable, tmp_path: Path) -> None:
    """One start answers both, which is all that a run of many tasks waits for."""
    file = executable(f'#!/bin/sh\necho asked >>{tmp_path}/count\nexec {sys.executable} "$@"\n')

    assert missing_modules(str(file), ["json.tool", "nowhere"], {}) == ["nowhere"]
    assert find_interpreter(str(file)).prefix == sys.prefix
    assert (tmp_path / "count").read_text(encoding="utf-8") == "asked\n"


# --- its modules


@pytest.fixture
def land(tmp_path: Path) -> Path:
    """Return a folder with modules of every kind."""
    files = {
        "plain.py": "",
        "package/__init__.py": "",
        "package/inner.py": "",
        "package/sub/__init__.py": "",
        "package/sub/__main__.py": "",
        "space/inner.py": "",
        "space/deep/deeper/inner.py": "",
        "loud/__init__.py": "open('trace', 'w'); raise SystemExit('this must not run')",
        "loud/inner.py": "",
        "json.py": "open('trace', 'w'); raise SystemExit('this must not run')",
        "sys.py": "open('trace', 'w'); raise SystemExit('this must not run')",
    }
    for name, text in files.items():
        path = tmp_path / "land" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "land"


THERE = ["plain", "package.inner", "package.sub", "space.inner", "space.deep.deeper.inner", "loud.inner", "http.server"]
NOT_THERE = [
    "nowhere",
    "package",
    "package.nowhere",
    "plain.inner",
    "space",
    "space.nowhere",
    "space.deep.nowhere.inner",
]


@pytest.mark.parametrize("way", ["PYTHONPATH", "workdir"])
def test_missing_modules_returns_modules_without_running_them(way: str, land: Path, any_python: Path) -> None:
    """Each version of Python reports the modules that it cannot run, without running their code."""
    env = {"PYTHONPATH": str(land)} if way == "PYTHONPATH" else {}
    workdir = str(land) if way == "workdir" else str(land.parent)

    assert missing_modules(str(any_python), [*THERE, *NOT_THERE], env, workdir) == NOT_THERE
    assert not (Path(workdir) / "trace").exists()


def test_missing_modules_agrees_with_python_m(land: Path, any_python: Path, modules) -> None:
    """A module is missing exactly if `python -m` does not find it."""
    found = {}
    settings = modules.settings(python=str(any_python), env={"PYTHONPATH": str(land)})
    for name in {*THERE, *NOT_THERE} - {"loud.inner", "http.server"}:
        missing = missing_modules(str(any_python), [name], settings.env)
        found[name] = not missing
        assert (modules.run_there(name, settings).error is None) is found[name], name

    assert set(found.values()) == {True, False}


def test_missing_modules_ignores_output_at_interpreter_start(land: Path) -> None:
    """An interpreter that prints at its start is understood all the same."""
    (land / "sitecustomize.py").write_text("print('welcome')\n", encoding="utf-8")

    assert missing_modules(sys.executable, ["plain"], {"PYTHONPATH": str(land)}) == []
    assert missing_modules(sys.executable, ["nowhere"], {"PYTHONPATH": str(land)}) == ["nowhere"]


def test_missing_modules_without_answer_returns_empty(executable) -> None:
    """An interpreter that gives no answer does not make modules missing."""
    assert missing_modules(str(executable("#!/bin/sh\nexit 3\n")), ["plain"], {}) == []
    assert missing_modules("/bin/echo", ["plain"], {}) == []


# --- the working directory


@pytest.mark.parametrize("name", ["plain", "with spaces", "new\nline", "größe", "'quoted\"", "--dash"])
def test_resolve_workdir_accepts_any_name(name: str, tmp_path: Path) -> None:
    """A directory may have any name."""
    (tmp_path / name).mkdir()

    assert check_workdir(str(tmp_path / name)) == str(tmp_path / name)


def test_resolve_workdir_missing_directory_raises(tmp_path: Path) -> None:
    """The error differs between a missing directory and a file."""
    (tmp_path / "file").touch()

    with pytest.raises(WorkdirError, match=r"the working directory .*/nowhere does not exist; create it, or correct"):
        check_workdir(str(tmp_path / "nowhere"))
    with pytest.raises(WorkdirError, match=r"the working directory .*/file is not a directory"):
        check_workdir(str(tmp_path / "file"))


def test_resolve_workdir_without_permission_raises(closed_folder: Path, script) -> None:
    """A directory that this user may not enter is named before anything runs."""
    unprivileged = script(
        """
        import os, sys
        from airflow_provider_sewer.core.errors import WorkdirError
        from airflow_provider_sewer.execution.interpreter import check_workdir
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            check_workdir(sys.argv[1])
        except WorkdirError as error:
            print(error)
        """,
        str(closed_folder),
    )

    assert unprivileged.output() == (
        f"the working directory {closed_folder} cannot be entered by this user; change its permissions\n"
    )


def test_resolve_workdir_expands_home_and_returns_none_for_none(monkeypatch, tmp_path: Path) -> None:
    """`~` is the home; without a setting, nothing is checked."""
    monkeypatch.setenv("HOME", str(tmp_path))

    assert check_workdir("~") == str(tmp_path)
    assert check_workdir(None) is None
