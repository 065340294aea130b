"""``sppe pools``: Airflow pools for the resources of a workflow."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.core.resources import check_limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_sewer.core.workflow import Workflow


def pool_commands(workflow: Workflow, limits: Mapping[str, int]) -> list[list[str]]:
    """Return the Airflow commands that create a pool for each resource.

    :param limits: available amount of each resource.
    :raises SewerError: when a limit is missing or too small for a task.
    """
    check_limits(limits, workflow.tasks)
    resources = dict.fromkeys(name for task in workflow.tasks.values() for name in task.resources)
    if missing := [name for name in resources if name not in limits]:
        raise SewerError(f"no limit for resource {missing[0]!r}; pass --limit {missing[0]}=N")
    return [["airflow", "pools", "set", name, str(limits[name]), f"for {workflow.name}"] for name in resources]


def make_pools(commands: list[list[str]]) -> None:
    """Run the commands with the Airflow on PATH.

    :raises SewerError: when it is missing or a command fails.
    """
    if shutil.which("airflow") is None:
        raise SewerError("--make requires airflow on PATH; run the printed commands where Airflow is installed")
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise SewerError(
                f"{shlex.join(command)} failed with exit code {done.returncode}: {lines[-1] if lines else ''}"
            )
