"""Guard against tasks that start while a file is imported, instead of when it is run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import InvalidWorkflow
from airflow_provider_sewer.core.recording import is_recording

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from airflow_provider_sewer.core.source import SourceLine

#: The package in which Airflow imports DAG files, in the DAG processor, on workers and in its commands.
_IMPORTS_DAG_FILES = "airflow.dag_processing"
_FIX = 'put the call under if __name__ == "__main__":'


def refuse_during_import(call: str, place: SourceLine) -> None:
    """Raise an error while a workflow file is loaded, or while Airflow imports a DAG file.

    Airflow imports DAG files repeatedly and outside of DAG runs. The stack is inspected, because Airflow sets no
    variable at every such import. All threads are inspected, as a file may start one.

    :param call: the call that would start tasks, for the message.
    :param place: its line.
    :raises InvalidWorkflow: naming the line.
    """
    if is_recording():
        raise InvalidWorkflow(f"{call} cannot start tasks while a workflow file is loaded; {_FIX}", place)
    if any(str(frame.f_globals.get("__name__")).startswith(_IMPORTS_DAG_FILES) for frame in _frames()):
        raise InvalidWorkflow(
            f"{call} cannot start tasks while Airflow imports DAG files; name this workflow file in .airflowignore, or "
            f"{_FIX}",
            place,
        )


def _frames() -> Iterator[FrameType]:
    for innermost in sys._current_frames().values():
        frame: FrameType | None = innermost
        while frame:
            yield frame
            frame = frame.f_back
