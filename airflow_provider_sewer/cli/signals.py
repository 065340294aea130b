"""What Ctrl-C, SIGTERM and SIGHUP do to ``sppe``."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_sewer.runners.engine import Engine

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
def stopping(engine: Engine) -> Iterator[list[int]]:
    """Stop the engine at the first signal, at once at the second, and die of the third; collect them.

    Whoever dies of the third, perhaps because nobody takes the output, leaves the rest to the guardian.
    """
    received: list[int] = []

    def stop(number: int, _: Any) -> None:
        received.append(number)
        if len(received) > 2:  # noqa: PLR2004
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        engine.stop(at_once=len(received) > 1)

    with _handled_by(stop):
        yield received


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
