"""Termination of a process tree, and of no other process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from airflow_provider_sewer.core.environment import ATTEMPT_ID
from airflow_provider_sewer.execution.orphan_reaper import new_tag
from airflow_provider_sewer.execution.process_tree import TreeTerminator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAUSE = "import os, signal, sys; print('ready', flush=True); signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + PAUSE


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts a process with a tag, which waits forever."""
    started = []

    def start(mark: str | None, source: str = PAUSE) -> subprocess.Popen[str]:
        env = {} if mark is None else {ATTEMPT_ID: mark}
        process = subprocess.Popen(
            [sys.executable, "-c", source], env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_tree_terminator_ends_all_processes_with_tag(start) -> None:
    """The processes of a run and those of each of its tasks are ended; others, however alike, are not."""
    run, other = new_tag(), new_tag()
    ours = [start(run), start(f"{run}1/"), start(f"{run}2/")]
    others = [start(other), start(f"{other}{run}"), start(None)]

    TreeTerminator(run, 30.0).run()

    assert [process.wait() for process in ours] == [-signal.SIGTERM] * 3
    assert [process.poll() for process in others] == [None] * 3


def test_tree_terminator_with_task_tag_spares_other_tasks(start) -> None:
    """The mark of one task does not reach those of another of the same run."""
    run = new_tag()
    first, eleventh = start(f"{run}1/"), start(f"{run}11/")

    TreeTerminator(f"{run}1/", 30.0).run()

    assert first.wait() == -signal.SIGTERM
    assert eleventh.poll() is None


def test_tree_terminator_kills_after_grace(start) -> None:
    """A process that ignores SIGTERM is killed once the grace is over."""
    mark = new_tag()
    stubborn = start(mark, STUBBORN)

    TreeTerminator(mark, 0.2).run()

    assert stubborn.wait() == -signal.SIGKILL


def test_tree_terminator_finds_root_without_tag(start) -> None:
    """A process that is known to be a root is ended even if it carries no mark."""
    root = start(None)

    TreeTerminator(new_tag(), 30.0, roots=[root.pid]).run()

    assert root.wait() == -signal.SIGTERM


def test_tree_terminator_kills_suspended_process(start) -> None:
    """A suspended process does not receive SIGTERM, but is killed."""
    mark = new_tag()
    suspended = start(mark)
    suspended.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, suspended.pid, os.WSTOPPED | os.WNOWAIT)

    TreeTerminator(mark, 0.2).run()

    assert suspended.wait() == -signal.SIGKILL


def test_tree_terminator_spares_its_own_session(script) -> None:
    """A caller that is part of the tree ends neither itself nor its session."""
    ends_itself = script(
        """
        import os, signal, subprocess, sys
        from airflow_provider_sewer.execution.process_tree import TreeTerminator
        neighbour = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
        TreeTerminator(os.environ["SEWER_ATTEMPT_ID"], 0.0).run()
        print(neighbour.poll())
        neighbour.communicate()
        """,
        env={ATTEMPT_ID: new_tag()},
        start_new_session=True,
    )

    assert ends_itself.output() == "None\n"
