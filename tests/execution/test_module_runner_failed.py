"""Errors of modules that fail or cannot be run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from airflow_provider_sewer.core.errors import InterpreterError, ModuleFailed, ModuleNotFound, WorkdirError

# --- how it fails


def test_module_failed_shows_command_exit_code_and_stderr_tail(modules) -> None:
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
    assert lines[0] == f"made_1 failed with exit code 3; command: {sys.executable} -u -m made_1 --out 'a b'"
    assert lines[1] == "The last lines of stderr:"
    assert lines[2:] == [f"  problem {number}" for number in range(10, 30)]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import sys; print('to stdout'); sys.exit(1)", "\nThe last lines of stdout:\n  to stdout"),
        ("import sys; sys.exit(1)", "\nIt had no output."),
    ],
)
def test_module_failed_without_stderr_shows_stdout_tail(source: str, message: str, modules) -> None:
    """Where stderr is empty the last lines of stdout are shown, or that there was nothing."""
    assert str(modules.run(source).error).endswith(message)


@pytest.mark.parametrize(
    ("end", "code", "message"),
    [
        ("os._exit(1)", 1, "failed with exit code 1;"),
        ("os._exit(2)", 2, "failed with exit code 2;"),
        ("os._exit(137)", 137, "failed with exit code 137, which means SIGKILL (out of memory?);"),
        ("os._exit(139)", 139, "failed with exit code 139, which means SIGSEGV;"),
        ("os._exit(255)", 255, "failed with exit code 255;"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", None, "was ended by SIGSEGV;"),
        ("os.kill(os.getpid(), signal.SIGKILL)", None, "was ended by SIGKILL (out of memory?);"),
        ("os.kill(os.getpid(), signal.SIGRTMIN + 3)", None, "was ended by signal 37;"),
        ("os.abort()", None, "was ended by SIGABRT;"),
        ("raise RuntimeError('why')", 1, "failed with exit code 1;"),
    ],
)
def test_module_failed_describes_exit_code_or_signal(end: str, code: int | None, message: str, modules) -> None:
    """The error names the exit code, or the signal and its usual cause."""
    error = modules.run(f"import os, signal; {end}").error

    assert isinstance(error, ModuleFailed)
    assert error.exit_code == code
    assert str(error).startswith(f"made_1 {message}")


def test_module_failed_masks_secrets(modules) -> None:
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


def test_unknown_exit_code_raises_module_failed(modules, script) -> None:
    """If exit codes are discarded, a module counts as failed."""
    unknowing = script(
        """
        import signal, sys
        from airflow_provider_sewer.core.errors import ModuleFailed
        from airflow_provider_sewer.core.execution_settings import ExecutionSettings
        from airflow_provider_sewer.core.call import module_call
        from airflow_provider_sewer.execution.module_runner import ModuleRunner
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        settings = ExecutionSettings(python=sys.executable, env={"PYTHONPATH": sys.argv[1]})
        try:
            ModuleRunner(module_call(sys.argv[2], []), settings).run(lambda *_: None)
        except ModuleFailed as error:
            print(error.exit_code, error)
        """,
        str(modules.folder),
        modules.write("import sys; sys.exit(3)"),
    )

    assert unknowing.output().startswith("None made_1 ended with an unknown exit code: it was collected")


# --- missing modules


def test_missing_module_raises_module_not_found(any_python: Path, modules) -> None:
    """In each version of Python, a missing module has an error of its own, with the interpreter and the fix."""
    ran = modules.run_there("nowhere.to_be_found", modules.settings(python=any_python))

    assert isinstance(ran.error, ModuleNotFound)
    assert str(ran.error).startswith(f"{any_python} has no module to run as 'nowhere.to_be_found' (")
    assert str(ran.error).endswith("); install it there, correct the name, or name another interpreter")


def test_package_without_main_raises_module_not_found(any_python: Path, modules) -> None:
    """In each version of Python, a package without ``__main__`` raises ModuleNotFound."""
    modules.write("", "package.__init__")

    error = modules.run_there("package", modules.settings(python=any_python)).error

    assert isinstance(error, ModuleNotFound)
    assert str(error) == "package 'package' has no __main__.py; add that file, or name a module in the package"


FAILING = {
    "it imports something missing": "import nowhere",
    "it runs something missing": (
        "import subprocess, sys\n"
        "if __name__ == '__main__': sys.exit(subprocess.call([sys.executable, '-m', __spec__.name + '.nowhere']))"
    ),
    "its message is alike": "import sys; sys.exit(f'{sys.executable}: No module named {__spec__.name}')",
}


@pytest.mark.parametrize("source", FAILING.values(), ids=FAILING)
def test_failing_module_raises_module_failed(source: str, any_python: Path, modules) -> None:
    """In each version of Python, a module that is there and fails is a failure, even if it sounds otherwise."""
    ran = modules.run(source, settings=modules.settings(python=any_python))

    assert isinstance(ran.error, ModuleFailed)
    assert "nowhere" in str(ran.error) or "No module named made_1" in str(ran.error)


def test_package_with_failing_init_raises_module_failed(any_python: Path, modules) -> None:
    """In each version of Python, a package that fails while it is imported is there, and failed."""
    modules.write("import nowhere", "package.__init__")
    modules.write("", "package.inner")

    error = modules.run_there("package.inner", modules.settings(python=any_python)).error

    assert isinstance(error, ModuleFailed)
    assert "nowhere" in str(error)


def test_missing_interpreter_or_workdir_raises_before_start(modules, tmp_path: Path) -> None:
    """A missing interpreter and a missing working directory are errors of their own, and nothing starts."""
    name = modules.write("")

    no_python = modules.run_there(name, modules.settings(python=tmp_path / "python"))
    no_workdir = modules.run_there(name, modules.settings(workdir=tmp_path / "nowhere"))

    assert isinstance(no_python.error, InterpreterError)
    assert isinstance(no_workdir.error, WorkdirError)
    assert no_python.started == no_workdir.started == []
