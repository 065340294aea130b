"""Output of a module in the log of its Airflow task, with a logger for each of the two streams."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_sewer.execution.output import Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

# Both streams are logged as INFO: much of the output on stderr is progress. The logger's name distinguishes them. It is
# below `airflow.task`, whose level Airflow sets itself.
_LOGGERS = {stream: logging.getLogger(f"airflow.task.module.{stream.value}") for stream in Stream}


def log_output(stream: Stream, pieces: Sequence[str]) -> None:
    """Log the output of a module, one line at a time."""
    log = _LOGGERS[stream]
    for piece in pieces:
        log.info("%s", piece.removesuffix("\n"))
