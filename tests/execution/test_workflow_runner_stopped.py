"""Stopping of a workflow, with all processes that it has started."""

from __future__ import annotations

import signal

import pytest

from tests.execution.workflow_helpers import HOLD, OK, STOPPED, states

STUBBORN = (
    HOLD
    + """
    signal.signal(signal.SIGTERM, lambda *_: put("sigterm"))
    put("ready")
    while True: signal.pause()
"""
)


def test_stop_ends_running_tasks_and_starts_none(plan, lifeline, background) -> None:
    """A stopped run ends its running tasks and starts no others. No process is left."""
    plan.task("done")
    for name in ("one", "two"):
        plan.task(
            name, HOLD + "    os.fork() or os.setsid(); put('here'); signal.pause()", lifeline.path, after=["done"]
        )
        plan.task(f"after {name}", after=[name])
    plan.task("queued", after=["done"])
    runner = plan.runner(jobs=2)

    run = background(runner.run)
    lifeline.expect("here", times=4)
    runner.stop()
    outcomes = run.result()

    assert outcomes.pop("done").state is OK
    assert set(states(outcomes).values()) == {STOPPED}
    assert outcomes["queued"].reason == outcomes["after one"].reason == "the run was stopped before it started"
    lifeline.expect_end()


def test_stop_before_run_starts_no_task(plan, witness) -> None:
    """A run that is stopped before it starts runs nothing."""
    plan.task("one")
    plan.task("two", after=["one"])
    runner = plan.runner()
    runner.stop()

    assert set(states(runner.run()).values()) == {STOPPED}
    assert [event for event, _ in witness.events] == ["stopped", "stopped"]


def test_second_stop_at_once_kills_tasks(plan, lifeline, background) -> None:
    """A second stop, at once, does not wait for the grace."""
    plan.task("stubborn", STUBBORN, lifeline.path)
    runner = plan.runner(grace=3600)

    run = background(runner.run)
    lifeline.expect("ready")
    runner.stop()
    lifeline.expect("sigterm")
    runner.stop(at_once=True)

    assert run.result()["stubborn"].state is STOPPED
    lifeline.expect_end()


def test_signal_just_before_wait_stops_run(plan, lifeline, signal_unnoticed) -> None:
    """A stop from a signal handler is obeyed even if the signal did not interrupt the wait for a task's end."""
    plan.task("one", HOLD + "    put('here'); signal.pause()", lifeline.path)
    runner = plan.runner()
    signal_unnoticed(runner.stop, lambda: lifeline.expect("here"))

    assert runner.run()["one"].state is STOPPED


def test_keyboard_interrupt_ends_all_tasks(plan, lifeline) -> None:
    """Ctrl-C in a plain Python program ends all tasks before it is raised."""
    plan.task("one", HOLD + "    os.fork() or os.setsid(); put('here'); signal.pause()", lifeline.path)
    plan.task("two", HOLD + "    put('here'); os.kill(os.getppid(), signal.SIGUSR1); signal.pause()", lifeline.path)
    previous = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            plan.runner(jobs=2).run()
    finally:
        signal.signal(signal.SIGUSR1, previous)

    lifeline.expect_end()


def test_stop_ends_detached_processes_of_finished_tasks(plan, lifeline, background) -> None:
    """A daemon that closed its output outlives its task; a stopped run leaves it no more than anything else."""
    daemon = (
        "import os, sys, time; life = os.open(sys.argv[1], os.O_WRONLY); os.write(life, b'here\\n'); time.sleep(600)"
    )
    plan.task(
        "detaches",
        f"""
        import subprocess, sys
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        subprocess.Popen([sys.executable, "-c", {daemon!r}, sys.argv[1]], start_new_session=True, **quiet)
        """,
        lifeline.path,
    )
    plan.task("waits", daemon, lifeline.path, after=["detaches"])
    runner = plan.runner()

    run = background(runner.run)
    lifeline.expect("here", times=2)
    runner.stop()

    assert states(run.result()) == {"detaches": OK, "waits": STOPPED}
    lifeline.expect_end()
