"""Process of a command, followed until it and all its descendants have ended."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.execution.process_follower import Exit, ProcessFollower, new_terminator
from airflow_provider_sewer.execution.spawn import spawn

if TYPE_CHECKING:
    from airflow_provider_sewer.core.command import Command
    from airflow_provider_sewer.execution.orphan_reaper import OrphanReaper
    from airflow_provider_sewer.execution.output import Sink

_PAUSE = 0.05


class Process:
    """Process of a command, which can be stopped.

    :param command: the command.
    :param mark: the tag that its environment carries (see :mod:`airflow_provider_sewer.execution.process_tree`).
    :param grace: seconds between SIGTERM and SIGKILL when it is stopped.
    :param guardian: the reaper that it is registered with.
    :param supervisor: pid of the process it is run for; when that ends, it is stopped.
    """

    def __init__(
        self,
        command: Command,
        *,
        mark: str,
        grace: float,
        guardian: OrphanReaper | None = None,
        supervisor: int | None = None,
    ) -> None:
        self.command = command
        self.mark = mark
        self.grace = grace
        self.guardian = guardian
        self.supervisor = supervisor
        self.is_to_stop = False
        self.is_to_stop_at_once = False
        self._waker: int | None = None
        # Reentrant, because a signal handler may call stop() while its own thread holds the lock.
        self._lock = threading.RLock()

    def stop(self, *, at_once: bool = False) -> None:
        """Request the end of the whole tree; callable repeatedly, from a signal handler or another thread.

        :meth:`follow` ends the tree, and returns when no process is left.

        :param at_once: skip SIGTERM and the grace.
        """
        self.is_to_stop_at_once = self.is_to_stop_at_once or at_once
        self.is_to_stop = True
        with self._lock, suppress(BlockingIOError):
            if self._waker is not None:
                os.write(self._waker, b"!")

    def follow(self, sink: Sink, *, within: float | None = None) -> Exit:
        """Start the command, pass its output to ``sink`` as it is written, and return its exit.

        Any exception, including one from the sink, is raised only after the whole tree has been ended.

        :param within: seconds after which it is stopped.
        :raises InterpreterError: when the executable cannot be started.
        :raises WorkdirError: when the working directory cannot be entered.
        :raises InvalidTask: when the arguments are longer than the system allows.
        """
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        self._waker = waker
        try:
            if self.is_to_stop:
                return Exit(None, None, stopped=True, leftovers=False)
            return ProcessFollower(self, spawn(self.command, self.mark), sink, wake, within).run()
        except SewerError:  # the command was not started, or has been ended
            raise
        except BaseException:  # raised by a signal handler, perhaps before the follower existed
            self._end_remaining()
            raise
        finally:
            with self._lock:  # so that stop() does not write to a file that reuses the descriptor
                self._waker = None
                os.close(waker)
            os.close(wake)

    def _end_remaining(self) -> None:
        ending = new_terminator(self.mark, self.grace)
        while ending.step(at_once=self.is_to_stop_at_once):
            time.sleep(_PAUSE)
