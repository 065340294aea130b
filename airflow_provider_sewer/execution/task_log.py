"""Where the output of a module goes under Airflow: into the log of its task, the two streams told apart."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_sewer.execution.output import Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

# Both streams are information: much of what is written to stderr is progress. The logger's name tells
# them apart. It lies below `airflow.task`, whose level Airflow sets itself.
_LOGGERS = {stream: logging.getLogger(f"airflow.task.module.{stream.value}") for stream in Stream}


def log_output(stream: Stream, pieces: Sequence[str]) -> None:
    """Log what a module has written, a line at a time."""
    log = _LOGGERS[stream]
    for piece in pieces:
        log.info("%s", piece.removesuffix("\n"))
