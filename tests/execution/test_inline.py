"""Inline execution with ``.run()``."""

from __future__ import annotations

import signal
import sys

import pytest

from airflow_provider_sewer import SewerError, Task
from airflow_provider_sewer.core.errors import WorkflowFailed


def test_task_run_prefixes_output_with_task_name(modules, capfd) -> None:
    """`.run()` runs a task; its output appears with its name before each line."""
    hello = Task("hello", modules.write("import sys; print('[hi]'); print('oh', file=sys.stderr)"))

    hello.run(path_to_python=sys.executable, env={"PYTHONPATH": str(modules.folder)})

    stdout, stderr = capfd.readouterr()
    assert stdout == "[hello] [hi]\n"
    assert "[hello] oh\n" in stderr


def test_chain_run_follows_its_edges(modules, capfd) -> None:
    """A chain is run along its edges."""
    first, second, third = (Task(name, modules.write(f"print({name!r})")) for name in ("first", "second", "third"))

    (first >> second >> third).run(path_to_python=sys.executable, env={"PYTHONPATH": str(modules.folder)})

    assert capfd.readouterr().out == "[first] first\n[second] second\n[third] third\n"


def test_chain_run_failure_raises_with_reason_and_line(modules) -> None:
    """A chain that does not succeed raises an error with the line of the call and the reason."""
    bad = Task("bad", modules.write("raise SystemExit('why')"))
    after = Task("after", modules.write(""))

    with pytest.raises(WorkflowFailed) as caught:
        (bad >> after).run(path_to_python=sys.executable, env={"PYTHONPATH": str(modules.folder)})

    assert str(caught.value).startswith(f"{__file__}:")
    assert "bad: made_1 failed with exit code 1" in str(caught.value)
    assert "  why" in str(caught.value)
    assert "after: 'bad' failed" in str(caught.value)


def test_chain_run_missing_interpreter_raises_before_start(modules) -> None:
    """A missing interpreter is named before anything runs."""
    with pytest.raises(SewerError, match="task 'hello': the interpreter /nowhere/python does not exist"):
        Task("hello", modules.write("")).run(path_to_python="/nowhere/python")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL])
def test_killed_program_leaves_no_process_of_its_workflow(number: int, modules, lifeline, script) -> None:
    """However a program that runs a workflow is ended, nothing it started stays."""
    module = modules.write(
        """
        import os, signal, sys
        life = os.open(sys.argv[1], os.O_WRONLY)
        os.fork() or os.setsid()
        os.write(life, b"here\\n")
        signal.pause()
        """
    )
    program = script(
        """
        import sys
        from airflow_provider_sewer import Task
        module, folder, lifeline = sys.argv[1:]
        (Task("one", module, args=[lifeline]) >> Task("two", module)).run(sys.executable, {"PYTHONPATH": folder})
        """,
        module,
        str(modules.folder),
        lifeline.path,
    )
    lifeline.expect("here", times=2)

    program.send(number)

    lifeline.expect_end()
    assert program.wait() == -number
