"""State file of python-dag-pipeline: YAML with the state of each stage."""

from __future__ import annotations

import os
from contextlib import suppress

from airflow_provider_sewer.core.errors import StateError, UntrustedPath, WorkflowFileError
from airflow_provider_sewer.core.trusted_files import foreign_reason
from airflow_provider_sewer.loaders.stages.yaml_file import YamlFile

_SUCCEEDED = "SUCCESS"

#: States of a stage. ``RUNNING`` remains if a stage has exited the whole program.
_STATES = (_SUCCEEDED, "FAILED", "RUNNING", "null")


def succeeded_stages(path: str) -> list[str]:
    """Return the names of the stages that have succeeded.

    :raises StateError: when it cannot be read, or has another state of a stage; with file, line and column.
    :raises UntrustedPath: when another user could have written it.
    """
    with suppress(OSError):  # reading the file reports the error
        if reason := foreign_reason(path, os.stat(path)):
            raise UntrustedPath(f"the state file {path} {reason}")
    try:
        file = YamlFile(os.path.abspath(path))
        stages = file.entries(file.root, "the state file")
        states = {name: file.text(entry.value, f"state of stage {name!r}") for name, entry in stages.items()}
    except WorkflowFileError as error:
        raise StateError(str(error)) from None
    for name, state in states.items():
        if state not in _STATES and state:
            message = f"state of stage {name!r} must be one of {', '.join(_STATES)}; got {state!r:.200}"
            raise StateError(message, file.at(stages[name].value))
    return [name for name, state in states.items() if state == _SUCCEEDED]
