"""Runs of DAGs whose tasks are jobs of the cluster in containers."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from tests.airflow.slurm_cases import Case

from .stack import LOGIN, NODES, PYTHON

if TYPE_CHECKING:
    from .stack import Stack

#: Prints the streams' files of all attempts below a folder, as a JSON object by the attempt's number.
READ = """
import json, pathlib, sys
files = pathlib.Path(sys.argv[1]).glob(sys.argv[2])
print(json.dumps({file.parent.name: file.read_text() for file in files}))
"""


class ContainerCase(Case):
    """One run of a DAG of one task, whose job runs in a node's container.

    :param name: name of its jobs and its folder.
    """

    def __init__(self, stack: Stack, name: str, dag_id: str) -> None:
        self.airflow = self.slurm = self.stack = stack
        self.folder = PurePosixPath("/shared/chaos", name)
        self.name = name
        self.dag_id = dag_id
        self.map_index = -1
        stack.run_in(LOGIN, "mkdir", "-p", str(self.folder))
        self.run_id = stack.trigger(dag_id, {"folder": str(self.folder), "name": name})

    def send(self, word: str) -> None:
        """Send the module a command."""
        self.stack.run_in(LOGIN, "touch", str(self.folder / word))

    def withdraw(self, word: str) -> None:
        """Withdraw a command."""
        self.stack.run_in(LOGIN, "rm", str(self.folder / word))

    def follows(self) -> None:
        """Wait until a worker or the triggerer has logged lines of its job, as its DAG sets it."""
        self.is_deferred() if self.dag_id.startswith("defers") else self.is_followed()

    def written(self, stream: str = "stdout") -> dict[str, list[str]]:
        """Return the jobs' output by their attempts, oldest first."""
        return {number: _own(text.splitlines()) for number, text in self._files(f"{stream}.log").items()}

    def logged(self, *tries: int, stream: str = "stdout") -> list[str]:
        """Return the lines of the module in the log of these tries, or of all."""
        return _own(super().logged(*tries, stream=stream))

    def nodes(self) -> list[str]:
        """Return the nodes that its jobs have begun on, oldest first."""
        return [json.loads(text)["node"] for text in self._files("start.json").values()]

    def processes(self) -> list[str]:
        """Return the processes of its modules, on all nodes that are there."""
        there = self.stack.containers()
        running = [node for node in NODES if there[node]["State"] == "running"]
        return [line for node in running for line in self.stack.processes(node, str(self.folder))]

    def _files(self, name: str) -> dict[str, str]:
        pattern = f"runs/{self.dag_id}/*/{self.task_id}/*/{name}"
        found = json.loads(self.stack.run_in(LOGIN, PYTHON, "-c", READ, str(self.folder), pattern))
        return {number: found[number] for number in sorted(found, key=int)}


def _own(lines: list[str]) -> list[str]:
    """Remove the lines that Slurm itself writes to a job's stderr if it cannot reach its controller."""
    return [line for line in lines if not line.startswith("slurmstepd-")]
