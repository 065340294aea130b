"""A command that is started, followed, and seen to its end: itself and all it has started."""

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
    """A command that is started, followed and, if need be, stopped.

    :param command: what to start.
    :param mark: the mark that its environment carries (see :mod:`airflow_provider_sewer.execution.process_tree`).
    :param grace: seconds between SIGTERM and SIGKILL when it is stopped.
    :param guardian: who is told of it.
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
        # Reentrant, for a signal handler may call stop() while its own thread is inside of it.
        self._lock = threading.RLock()

    def stop(self, *, at_once: bool = False) -> None:
        """Have the whole tree ended; from a signal handler or another thread, and as often as you like.

        It only asks: :meth:`follow` does the work and returns when nothing is left.

        :param at_once: leave out SIGTERM and the grace.
        """
        self.is_to_stop_at_once = self.is_to_stop_at_once or at_once
        self.is_to_stop = True
        with self._lock, suppress(BlockingIOError):
            if self._waker is not None:
                os.write(self._waker, b"!")

    def follow(self, sink: Sink, *, within: float | None = None) -> Exit:
        """Start the command, hand its output to ``sink`` as it comes, and return how it ended.

        Whatever interrupts this, an error of the sink included, ends the whole tree first.

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
        except SewerError:  # nothing was started, or it has been ended
            raise
        except BaseException:  # raised by a signal handler, perhaps before there was anybody to follow it
            self._end_what_is_left()
            raise
        finally:
            with self._lock:  # so that nothing is written to whoever gets these numbers next
                self._waker = None
                os.close(waker)
            os.close(wake)

    def _end_what_is_left(self) -> None:
        ending = new_terminator(self.mark, self.grace)
        while ending.step(at_once=self.is_to_stop_at_once):
            time.sleep(_PAUSE)
