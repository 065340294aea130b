"""Stopping of a module and of its process tree."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from airflow_provider_sewer.core.call import module_call
from airflow_provider_sewer.core.errors import ModuleTerminated
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.execution.module_runner import ModuleRunner


def test_stop_raises_module_terminated(modules, lifeline, background) -> None:
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

    with pytest.raises(
        ModuleTerminated, match="made_1 was stopped on request, with all its child processes; command: "
    ):
        follow.result()
    lifeline.expect_end()


def test_stop_before_start_runs_no_module(modules, tmp_path: Path) -> None:
    """A stop before the start is obeyed."""
    run = modules.module_run("import sys; open(sys.argv[1], 'w')", str(tmp_path / "trace"))
    run.stop()

    with pytest.raises(ModuleTerminated):
        run.run(lambda *_: None)
    assert not (tmp_path / "trace").exists()


def test_stop_at_once_kills_module_ignoring_sigterm(modules, lifeline, background) -> None:
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

    with pytest.raises(ModuleTerminated):
        follow.result()
    lifeline.expect_end()


def test_stop_during_on_start_runs_no_module(modules, tmp_path: Path) -> None:
    """A stop during ``on_start`` is obeyed: the module never runs."""
    run = modules.module_run("import sys; open(sys.argv[1], 'w')", str(tmp_path / "trace"))

    with pytest.raises(ModuleTerminated):
        run.run(lambda *_: None, on_start=lambda *_: run.stop())
    assert not (tmp_path / "trace").exists()


def test_timeout_in_signal_handler_ends_process_tree_and_raises(modules, lifeline) -> None:
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


def test_background_process_holding_output_is_ended_and_logged(modules, lifeline) -> None:
    """A successful module whose background processes hold its output has succeeded; the log names the ended ones."""
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
    assert ran.stderr == ("almost\nWARNING: made_1 left processes behind that kept its output open; they were ended.\n")
    lifeline.expect_end()


def test_stop_ends_hanging_interpreter_query(lifeline, background, tmp_path: Path) -> None:
    """The query of an interpreter may never return; a stop does not wait for it and ends its processes."""
    hanging = tmp_path / "python"
    hanging.write_text(f"#!/bin/sh\nexec 3>'{lifeline.path}'\necho ready >&3\nsleep 600\n")
    hanging.chmod(0o755)
    run = ModuleRunner(module_call("this", []), ExecutionSettings(python=str(hanging)))

    follow = background(lambda: run.run(lambda *_: None))
    lifeline.expect("ready")
    run.stop()

    with pytest.raises(ModuleTerminated, match="before it was started"):
        follow.result()
    lifeline.expect_end()
