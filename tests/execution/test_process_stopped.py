"""Stopping of processes, and interruptions while they are followed."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from airflow_provider_sewer.core.command import Command
from airflow_provider_sewer.core.errors import InterpreterError
from airflow_provider_sewer.execution import process as process_module
from airflow_provider_sewer.execution.orphan_reaper import new_tag
from airflow_provider_sewer.execution.output import Stream
from airflow_provider_sewer.execution.process import Exit, Process
from tests.execution.commands import Collected, drop, holding, process

if TYPE_CHECKING:
    from collections.abc import Sequence

on_any_system = pytest.mark.usefixtures("on_any_system")

# --- ending it: every kind of descendant

DESCENDANTS = {
    "a child": "signal.pause()",
    "a child in a session of its own": "os.setsid(); signal.pause()",
    "a child of a child": "os.fork() == 0 and os.setsid(); signal.pause()",
    "one that was left by its parent": "os.setsid(); os.fork() and os._exit(0); put('member'); signal.pause()",
    "one that closed the output": "os.setsid(); os.close(1); os.close(2); signal.pause()",
    "one that ignores SIGTERM": "ignore_sigterm(); put('member'); signal.pause()",
    "one that forgot its environment": "forget()",
    "one that left and forgot": "os.setsid(); forget()",
    "one that forgot and was left": "os.fork() and os._exit(0); forget()",
    "one that left, forgot and is left when its parent ends": "os.setsid(); ignore_sigterm(); forget()",
}
BREED = """
    def ignore_sigterm():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def forget():
        pause = "import os, signal, sys; os.write(os.open(sys.argv[1], os.O_WRONLY), b'member\\\\n'); signal.pause()"
        os.execve(sys.executable, [sys.executable, "-c", pause, sys.argv[1]], {{}})

    if os.fork() == 0:
        put("member")
        {descendant}
    put("member")
    signal.pause()
"""


@on_any_system
@pytest.mark.parametrize("descendant", DESCENDANTS.values(), ids=DESCENDANTS)
def test_stop_ends_all_descendants(descendant: str, lifeline, background) -> None:
    """A stop ends the command and every descendant, however it has detached itself."""
    running = holding(BREED.format(descendant=descendant), lifeline, grace=0.5)
    members = 2 + descendant.count("member") + descendant.count("forget()")

    follow = background(lambda: running.follow(drop))
    lifeline.expect("member", times=members)
    running.stop()

    assert follow.result().stopped
    lifeline.expect_end()


@on_any_system
def test_stop_ends_process_without_tag(lifeline, background) -> None:
    """A command that overwrites its environment, as setproctitle does, is stopped all the same."""
    pause = "import os, signal; os.write({life}, b'ready\\n'); signal.pause()"
    source = f"""
        os.set_inheritable(life, True)
        os.execve(sys.executable, [sys.executable, "-c", {pause!r}.replace("{{life}}", str(life))], {{}})
    """
    running = holding(source, lifeline)

    follow = background(lambda: running.follow(drop))
    lifeline.expect("ready")
    running.stop()

    assert follow.result() == Exit(None, signal.SIGTERM, stopped=True, leftovers=False)
    lifeline.expect_end()


def test_stop_ends_children_forked_during_stop(lifeline, background) -> None:
    """A tree that keeps forking while it is being ended is ended to the last process."""
    source = """
        def breed(*_):
            while True:
                if os.fork():
                    os._exit(0)
        signal.signal(signal.SIGTERM, breed)
        put("ready")
        signal.pause()
    """
    running = holding(source, lifeline, grace=0.3)

    follow = background(lambda: running.follow(drop))
    lifeline.expect("ready")
    running.stop()

    assert follow.result().stopped
    lifeline.expect_end()


def test_output_during_stop_is_forwarded(lifeline, background) -> None:
    """Output after SIGTERM is part of the output."""
    sink = Collected()
    running = holding(
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved'), sys.exit(0))); put('ready'); signal.pause()",
        lifeline,
    )

    follow = background(lambda: running.follow(sink))
    lifeline.expect("ready")
    running.stop()

    assert follow.result() == Exit(0, None, stopped=True, leftovers=False)
    assert sink.of(Stream.STDOUT) == ["saved\n"]


def test_stop_before_start_runs_no_command(tmp_path: Path) -> None:
    """A stop that comes first is obeyed: nothing starts."""
    trace = tmp_path / "trace"
    running = process("import sys; open(sys.argv[1], 'w')", str(trace))
    running.stop()

    assert running.follow(drop) == Exit(None, None, stopped=True, leftovers=False)
    assert not trace.exists()


STUBBORN = """
    signal.signal(signal.SIGTERM, lambda *_: put("sigterm"))
    put("ready")
    while True: signal.pause()
"""


def test_stop_sends_sigterm_once_to_each_process(lifeline, background) -> None:
    """Each process gets one SIGTERM: a second one would interrupt its clean end."""
    running = holding(STUBBORN, lifeline, grace=1.0)

    follow = background(lambda: running.follow(drop))
    lifeline.expect("ready")
    running.stop()
    running.stop()

    assert follow.result() == Exit(None, signal.SIGKILL, stopped=True, leftovers=False)
    lifeline.expect_end()
    assert Counter(lifeline.heard.split()) == {"ready": 1, "sigterm": 1}


def test_stop_at_once_skips_sigterm(lifeline, background) -> None:
    """A stop at once kills without SIGTERM and without waiting."""
    running = holding(STUBBORN, lifeline, grace=3600)

    follow = background(lambda: running.follow(drop))
    lifeline.expect("ready")
    running.stop(at_once=True)

    assert follow.result() == Exit(None, signal.SIGKILL, stopped=True, leftovers=False)
    lifeline.expect_end()
    assert "sigterm" not in lifeline.heard


@on_any_system
def test_second_stop_at_once_ends_grace(lifeline, background) -> None:
    """A second stop with ``at_once`` ends the grace."""
    running = holding(STUBBORN, lifeline, grace=3600)

    follow = background(lambda: running.follow(drop))
    lifeline.expect("ready")
    running.stop()
    lifeline.expect("sigterm")
    running.stop(at_once=True)

    assert follow.result() == Exit(None, signal.SIGKILL, stopped=True, leftovers=False)


def test_stop_at_once_ends_grace_of_detached_descendant(lifeline, background) -> None:
    """A stop at once also ends a stubborn descendant that holds none of the output."""
    source = """
        if os.fork() == 0:
            os.setsid(); os.close(1); os.close(2)
            signal.signal(signal.SIGTERM, lambda *_: put("sigterm"))
            put("ready")
            while True: signal.pause()
        signal.pause()
    """
    running = holding(source, lifeline, grace=3600)

    follow = background(lambda: running.follow(drop))
    lifeline.expect("ready")
    running.stop()
    lifeline.expect("sigterm")
    running.stop(at_once=True)

    assert follow.result().stopped
    lifeline.expect_end()


def test_stop_after_end_writes_to_no_descriptor(tmp_path: Path) -> None:
    """A late stop does not write into a descriptor that has been opened since."""
    running = process("pass")
    running.follow(drop)

    with ExitStack() as stack:
        files = [stack.enter_context((tmp_path / f"file {number}").open("w")) for number in range(20)]
        running.stop()

    assert [Path(file.name).stat().st_size for file in files] == [0] * 20


# --- errors while the process is followed


@on_any_system
def test_failing_sink_ends_process_tree_and_raises(lifeline, background) -> None:
    """When the output cannot be taken, as on a full disk, the tree is ended and the error raised."""

    def full(stream: Stream, pieces: Sequence[str]) -> None:
        raise OSError(28, "No space left on device")

    running = holding("os.fork(); put('here'); print('hello'); signal.pause()", lifeline)
    follow = background(lambda: running.follow(full))

    with pytest.raises(OSError, match="No space left"):
        follow.result()
    lifeline.expect_end()


def test_failing_sink_drains_output_during_grace(lifeline, background) -> None:
    """A full pipe that is no longer read does not prevent a clean end."""

    def full(stream: Stream, pieces: Sequence[str]) -> None:
        raise OSError(28, "No space left on device")

    source = """
        def end(*_):
            print("x" * 1_000_000)
            put("ended cleanly")
            sys.exit()
        signal.signal(signal.SIGTERM, end)
        print("hello")
        signal.pause()
    """
    running = holding(source, lifeline, grace=50.0)
    follow = background(lambda: running.follow(full))

    with pytest.raises(OSError, match="No space left"):
        follow.result()
    lifeline.expect_end()
    assert "ended cleanly" in lifeline.heard


class TimeIsUp(BaseException):
    """An exception that a signal handler raises at any point."""


@on_any_system
def test_error_in_signal_handler_ends_process_tree(lifeline) -> None:
    """A timeout raised in the middle, as Airflow's execution_timeout is, ends the whole tree."""

    def raise_it(*_: object) -> None:
        raise TimeIsUp

    source = """
        if os.fork() == 0:
            os.setsid()
            put("here")
            signal.pause()
        put("here")
        os.kill(os.getppid(), signal.SIGUSR1)
        signal.pause()
    """
    running = holding(source, lifeline)
    previous = signal.signal(signal.SIGUSR1, raise_it)
    try:
        with pytest.raises(TimeIsUp):
            running.follow(drop)
    finally:
        signal.signal(signal.SIGUSR1, previous)

    lifeline.expect_end()
    assert lifeline.heard.count("here") >= 1


def test_error_right_after_start_ends_process_tree(lifeline, monkeypatch) -> None:
    """An error raised by a signal handler before the output is followed ends the tree as well."""
    real = process_module.spawn
    started = []

    def interrupted(*arguments: object) -> None:
        started.append(real(*arguments))
        lifeline.expect("here", times=2)
        raise TimeIsUp

    monkeypatch.setattr(process_module, "spawn", interrupted)

    with pytest.raises(TimeIsUp):
        holding("os.fork() or os.setsid(); put('here'); signal.pause()", lifeline).follow(drop)

    lifeline.expect_end()
    os.waitpid(started[0].pid, 0)


def test_stop_in_signal_handler_ends_process_tree(lifeline) -> None:
    """A stop that comes from a signal handler in the very thread that follows is obeyed."""
    running = holding("put('here'); os.kill(os.getppid(), signal.SIGUSR1); signal.pause()", lifeline)
    previous = signal.signal(signal.SIGUSR1, lambda *_: running.stop())
    try:
        exit_ = running.follow(drop)
    finally:
        signal.signal(signal.SIGUSR1, previous)

    assert exit_ == Exit(None, signal.SIGTERM, stopped=True, leftovers=False)
    lifeline.expect_end()


def test_signal_just_before_wait_stops_process(lifeline, signal_unnoticed) -> None:
    """A stop from a signal handler is obeyed even if the signal did not interrupt the wait for output."""
    running = holding("put('here'); signal.pause()", lifeline)
    signal_unnoticed(running.stop, lambda: lifeline.expect("here"))

    assert running.follow(drop).stopped


@pytest.mark.parametrize("executable", [sys.executable, "/nowhere"])
def test_process_closes_all_descriptors(executable: str, tmp_path: Path) -> None:
    """However often commands are run, fail, cannot start or lose their reader, no descriptor stays open."""

    def full(stream: Stream, pieces: Sequence[str]) -> None:
        raise OSError(28, "No space left on device")

    before = psutil.Process().num_fds()
    for code, sink in [("pass", drop), ("1 / 0", drop), ("print(1)", full)] * 3:
        with suppress(OSError, InterpreterError):
            Process(Command((executable, "-c", code), {}), mark=new_tag(), grace=0.0).follow(sink)

    assert psutil.Process().num_fds() == before
