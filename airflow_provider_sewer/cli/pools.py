"""``sppe pools``: the resources of a workflow as Airflow's pools."""

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
    """Return the commands of Airflow that make a pool of each resource.

    :param limits: how much there is of each.
    :raises SewerError: when that is not said of one, or is too little for a task.
    """
    check_limits(limits, workflow.tasks)
    resources = dict.fromkeys(name for task in workflow.tasks.values() for name in task.resources)
    if missing := [name for name in resources if name not in limits]:
        raise SewerError(f"how much there is of {missing[0]!r} is not said; say --limit {missing[0]}=N")
    return [["airflow", "pools", "set", name, str(limits[name]), f"for {workflow.name}"] for name in resources]


def make_pools(commands: list[list[str]]) -> None:
    """Run the commands, with the Airflow that is on PATH.

    :raises SewerError: when there is none, or it refuses.
    """
    if shutil.which("airflow") is None:
        raise SewerError("there is no airflow on PATH to make pools with; run the printed commands where it is")
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise SewerError(
                f"{shlex.join(command)} failed with exit code {done.returncode}: {said[-1] if said else ''}"
            )
