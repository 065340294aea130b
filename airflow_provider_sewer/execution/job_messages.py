"""Lines about a job for the log of its task, each with a level."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class WarningLine(str):
    """A line that is logged as a WARNING; any other text is logged as INFO."""

    __slots__ = ()


def line_logger(log: Any) -> Callable[[str], None]:
    """Return a function that logs a line at its level.

    :param log: a logger of the standard library or of Airflow.
    """

    def write(line: str) -> None:
        if isinstance(line, WarningLine):
            log.warning("%s", line)
        else:
            log.info("%s", line)

    return write


def clock(seconds: float) -> str:
    """Return a point in time for a log line, in local time.

    :param seconds: seconds since 1970.
    """
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
