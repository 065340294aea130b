"""A folder with tasks that make files of files, and a diary of which of them ran."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_sewer import Dependency, Product, Task, Workflow
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.staleness import ProductRecord
from airflow_provider_sewer.execution.output import Stream
from airflow_provider_sewer.execution.plan import Selection, make_plan, select_tasks
from airflow_provider_sewer.execution.state_file import StateFile
from airflow_provider_sewer.execution.task_states import Outcome, TaskState
from airflow_provider_sewer.execution.workflow_runner import WorkflowRunner

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Writes its name into the diary, and into each output its name, its other parameters and the content of its inputs.
STEP = """
import argparse, os, sys

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--name")
    parser.add_argument("--in", action="append", default=[], dest="inputs")
    parser.add_argument("--out", action="append", default=[], dest="outputs")
    parser.add_argument("--content", default="")
    parser.add_argument("--fail-if", default="")
    given = parser.parse_args()
    with open(os.environ["DIARY"], "a") as diary:
        diary.write(given.name + "\\n")
    read = "".join(open(path).read() for path in given.inputs)
    for path in given.outputs:
        with open(path, "w") as file:
            file.write(f"{given.name} {given.content}\\n{read}")
    if given.fail_if and os.path.exists(given.fail_if):
        sys.exit(7)

main()
"""

#: A product record for tests.
RECORD = ProductRecord("t", "digest", None, {})


class RunObserver:
    """Observer that records the decisions, the output and the ends of a run."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self.text: dict[str, str] = {}
        self.ended_as: list[tuple[str, TaskState]] = []

    def on_decision(self, task: Task, decision: Any) -> None:
        self.reasons[task.name] = decision.reason

    def on_start(self, task: Task, _line: str, _workdir: str | None) -> None:
        """Not recorded."""

    def on_output(self, task: Task, _stream: Stream, pieces: Sequence[str]) -> None:
        self.text[task.name] = self.text.get(task.name, "") + "".join(pieces)

    def on_end(self, task: Task, outcome: Outcome) -> None:
        self.ended_as.append((task.name, outcome.state))


class Lab:
    """Where tasks make files of files.

    :param folder: a new folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.write("step.py", STEP)
        self.state = str(folder / "state.jsonl")
        self.observer = RunObserver()

    def write(self, name: str, text: str = "") -> Path:
        """Write a file of the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def read(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")

    def has(self, name: str) -> bool:
        return os.path.lexists(self.folder / name)

    def touch(self, name: str) -> None:
        """Change the fingerprint of a file, but not its content."""
        path = self.folder / name
        then = path.stat().st_mtime_ns + 1_000_000
        os.utime(path, ns=(then, then))

    def names(self, name: str = ".") -> list[str]:
        """Return the paths in a folder, recursively, without modules and the diary."""
        own = {".gitignore", "step.py", "diary", "state.jsonl"}
        root = self.folder / name
        return sorted(
            str(path.relative_to(root)) for path in root.rglob("*") if path.name not in own and "__pyc" not in str(path)
        )

    def step(
        self,
        name: str,
        inputs: str | Iterable[str] = (),
        outputs: str | Product | Iterable[str | Product] = (),
        content: Any = "",
        **fields: Any,
    ) -> Task:
        """Return a task that makes files of files."""
        given = [inputs] if isinstance(inputs, str) else inputs
        made = [outputs] if isinstance(outputs, (str, Product)) else outputs
        parameters = {
            "name": name,
            "in": [Dependency(each) for each in given],
            "out": [each if isinstance(each, Product) else Product(each) for each in made],
            "content": content,
            "fail_if": f"fail-{name}",
        }
        return Task(name, "step", parameters, **fields)

    def module(self, name: str, source: str, *, task: str = "", **fields: Any) -> Task:
        """Write a module and return a task that runs it."""
        self.write(f"{name}.py", source)
        return Task(task or name, name, **fields)

    @property
    def settings(self) -> ExecutionSettings:
        env = {"PYTHONPATH": str(self.folder), "DIARY": str(self.folder / "diary"), "PYTHONDONTWRITEBYTECODE": "1"}
        return ExecutionSettings.checked(python=sys.executable, env=env, workdir=str(self.folder))

    def workflow(self, *tasks: Task, edges: Iterable[tuple[Task, Task]] = ()) -> Workflow:
        return Workflow("lab", tasks, edges).with_defaults(self.settings)

    def run(
        self,
        *tasks: Task,
        edges: Iterable[tuple[Task, Task]] = (),
        resume: bool | None = None,
        select: Sequence[str] = (),
        forced: Sequence[str] = (),
        **options: Any,
    ) -> dict[str, Outcome]:
        """Check the tasks and run them; with a state file, if ``resume`` is given."""
        self.observer = RunObserver()
        part, names = select_tasks(
            self.workflow(*tasks, edges=edges), Selection(tuple(select) or None, (), tuple(forced))
        )
        runner = WorkflowRunner(part, observers=[self.observer], forced=names, **options)
        runner.check()
        if resume is None:
            return runner.run()
        with StateFile(self.state, "lab", keep=resume or bool(select)) as state:
            return runner.run(state, resume=resume)

    def ran(self, *tasks: Task, **options: Any) -> list[str]:
        """Run the tasks, all of which have to succeed, and return the names of those that really ran, in order."""
        before = self.diary
        outcomes = self.run(*tasks, **options)
        assert all(outcome.state.is_success for outcome in outcomes.values()), outcomes
        return self.diary[len(before) :]

    def explained(self, *tasks: Task, **options: Any) -> dict[str, str]:
        """Return the reason of each task's planned decision."""
        plan = make_plan(self.workflow(*tasks), {}, **options)
        return {name: decision.reason for name, decision in plan.decisions.items()}

    @property
    def diary(self) -> list[str]:
        """Return the names of the steps that ran, in the order in which they began."""
        return self.read("diary").split() if self.has("diary") else []


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Return a folder for tasks that make files of files."""
    return Lab(tmp_path / "lab")


def writer(lab: Lab, source: str, *products: Product, name: str = "made", **fields: object) -> Task:
    """Return a task whose module is given the paths of its products, and Path to write them with."""
    text = f"import os, sys, shutil\nfrom pathlib import Path\npaths = [Path(p) for p in sys.argv[1:]]\n{source}"
    return lab.module(name, text, args=list(products), **fields)


def outcome_of(lab: Lab, task: Task) -> tuple[TaskState, str]:
    outcome = lab.run(task)[task.name]
    return outcome.state, outcome.reason
