"""What Ctrl-C, SIGTERM and SIGHUP do to ``sppe``."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.cli.say import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_sewer.execution.workflow_runner import WorkflowRunner

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Received(BaseException):
    """A signal came while there was nothing to be stopped in an orderly way.

    :param number: which one.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def raised() -> Iterator[None]:
    """Raise a signal as an error, so that whatever is under way cleans up after itself."""

    def raise_it(number: int, _: Any) -> None:
        raise Received(number)

    with _handled_by(raise_it):
        yield


@contextmanager
def stopping(engine: WorkflowRunner, *, asks: bool = False) -> Iterator[list[int]]:
    """Stop the engine at the first signal, at once at the second, and die of the third; collect them.

    Whoever dies of the third, perhaps because nobody takes the output, leaves the rest to the guardian.

    :param asks: while there are jobs, say what the next Ctrl-C does instead, at the first one.
    """
    received: list[int] = []
    questions: SimpleQueue[str | None] = SimpleQueue()
    may_ask = asks

    def stop(number: int, _: Any) -> None:
        nonlocal may_ask
        if number == signal.SIGINT and may_ask and (count := engine.jobs_under_way):
            may_ask = False
            jobs = f"{count} Slurm jobs are" if count > 1 else "1 Slurm job is"
            questions.put(f"sppe: {jobs} under way; Ctrl-C once more cancels and stops all. Until then, all goes on")
            return
        may_ask = False
        received.append(number)
        if len(received) > 2:  # noqa: PLR2004
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        engine.stop(at_once=len(received) > 1)

    # A signal handler must not write: it may have interrupted this very thread while it does.
    speaker = threading.Thread(target=_say_all, args=(questions,), name="sewer-questions", daemon=True)
    speaker.start()
    try:
        with _handled_by(stop):
            yield received
    finally:
        questions.put(None)
        speaker.join()


def _say_all(texts: SimpleQueue[str | None]) -> None:
    while (text := texts.get()) is not None:
        say(text)


@contextmanager
def _handled_by(handler: Callable[[int, Any], None]) -> Iterator[None]:
    # What is ignored stays ignored: `nohup sppe run` is to survive the end of the terminal.
    numbers = [number for number in _NUMBERS if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in previous.items():
            signal.signal(number, former)
