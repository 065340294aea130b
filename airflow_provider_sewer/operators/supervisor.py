"""Process that supervises a task on a worker."""

from __future__ import annotations

import os


def supervisor() -> int | None:
    """Return the pid of the process that supervises this task; ``None`` in ``dag.test()``."""
    # Imported here: a worker has loaded it already, and DAG files parse faster without it.
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import CommsDecoder

    comms = getattr(task_runner, "SUPERVISOR_COMMS", None)
    return os.getppid() if isinstance(comms, CommsDecoder) else None
