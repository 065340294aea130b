"""Signal handling of ``sppe``: SIGINT, SIGTERM and SIGHUP."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.cli.messages import write_message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_sewer.execution.workflow_runner import WorkflowRunner

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Received(BaseException):
    """Signal received while no workflow was running.

    :param number: number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def raise_signals() -> Iterator[None]:
    """Raise signals as :class:`Received`, so that the interrupted code cleans up."""

    def raise_it(number: int, _: Any) -> None:
        raise Received(number)

    with _handled_by(raise_it):
        yield


@contextmanager
def stop_on_signals(engine: WorkflowRunner, *, asks: bool = False) -> Iterator[list[int]]:
    """Stop the engine at the first signal, kill its tasks at the second, and die of the third; yield the signals.

    A third signal is needed if writing the output blocks; the orphan reaper then ends the tasks.

    :param asks: while Slurm jobs are active, the first Ctrl-C only prints the effect of the next one.
    """
    received: list[int] = []
    messages: SimpleQueue[str | None] = SimpleQueue()
    may_ask = asks

    def stop(number: int, _: Any) -> None:
        nonlocal may_ask
        if number == signal.SIGINT and may_ask and (count := engine.jobs_under_way):
            may_ask = False
            jobs = f"{count} Slurm jobs are" if count > 1 else "1 Slurm job is"
            messages.put(f"sppe: {jobs} active; press Ctrl-C again to cancel all and stop. The run continues")
            return
        may_ask = False
        received.append(number)
        messages.put(f"sppe: {_announcement(engine.tasks_under_way, number, is_second=len(received) > 1)}")
        if len(received) > 2:  # noqa: PLR2004
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        engine.stop(at_once=len(received) > 1)

    # A signal handler must not write: it may have interrupted a write of the same thread.
    writer = threading.Thread(target=_write_all, args=(messages,), name="sewer-messages", daemon=True)
    writer.start()
    try:
        with _handled_by(stop):
            yield received
    finally:
        messages.put(None)
        writer.join()


def _announcement(count: int, number: int, *, is_second: bool) -> str:
    tasks = f"{count} task{'s' * (count != 1)}"
    if is_second:
        return f"Killing {tasks}"
    return f"Stopping {tasks}" + ("; press Ctrl-C again to kill" if number == signal.SIGINT and count else "")


def _write_all(messages: SimpleQueue[str | None]) -> None:
    while (text := messages.get()) is not None:
        write_message(text)


@contextmanager
def _handled_by(handler: Callable[[int, Any], None]) -> Iterator[None]:
    # Ignored signals stay ignored: `nohup sppe run` has to survive the end of the terminal.
    numbers = [number for number in _NUMBERS if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler_before in previous.items():
            signal.signal(number, handler_before)
