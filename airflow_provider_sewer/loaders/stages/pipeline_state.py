"""The state that python-dag-pipeline keeps of its stages: a YAML file with how each one stands."""

from __future__ import annotations

import os
from contextlib import suppress

from airflow_provider_sewer.core.errors import StateError, UntrustedPath, WorkflowFileError
from airflow_provider_sewer.core.trusted_files import why_foreign
from airflow_provider_sewer.loaders.stages.yaml_file import YamlFile

_SUCCEEDED = "SUCCESS"

#: What it notes of a stage. ``RUNNING`` is left over when a stage ended the whole program.
_STATES = (_SUCCEEDED, "FAILED", "RUNNING", "null")


def succeeded_stages(path: str) -> list[str]:
    """Return the names of the stages that have succeeded.

    :raises StateError: when it cannot be read, or says something else of a stage; with file, line and column.
    :raises UntrustedPath: when another user could have written it.
    """
    with suppress(OSError):  # which reading it says
        if why := why_foreign(path, os.stat(path)):
            raise UntrustedPath(f"the state {path} {why}")
    try:
        file = YamlFile(os.path.abspath(path))
        stages = file.entries(file.root, "the state of stages")
        states = {name: file.text(entry.value, f"how stage {name!r} stands") for name, entry in stages.items()}
    except WorkflowFileError as error:
        raise StateError(str(error)) from None
    for name, state in states.items():
        if state not in _STATES and state:
            known = f"{', '.join(_STATES[:-1])} and {_STATES[-1]}"
            raise StateError(f"stage {name!r}: {known} are possible, not {state!r:.200}", file.at(stages[name].value))
    return [name for name, state in states.items() if state == _SUCCEEDED]
