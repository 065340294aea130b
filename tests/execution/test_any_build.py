"""Decisions of a run equal those of a model, for any graph, any build modes and any changes of its files.

No module runs: a task that must run writes its product here, with the package's own staging and records.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_sewer import Dependency, Product, Task, Workflow
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.paths import located
from airflow_provider_sewer.execution.plan import make_plan, rerun_upstream, upstream_by_value
from airflow_provider_sewer.execution.staged_products import StagedProducts
from airflow_provider_sewer.execution.state_file import FinishedTask
from airflow_provider_sewer.execution.task_runner import TaskRunner

if TYPE_CHECKING:
    from pathlib import Path

_NUMBERS = itertools.count()
INPUTS = 2


class Node(NamedTuple):
    """Task of the random graph.

    :param mode: its ``run_when``, and how it compares.
    :param files: numbers of the files it needs: inputs, or products of earlier tasks.
    :param after: which tasks before it it was tied to without a file.
    """

    mode: tuple[str, str]
    files: tuple[int, ...]
    after: tuple[int, ...]


class File(NamedTuple):
    """File in the model, identified by its time."""

    content: str
    time: int


class Made(NamedTuple):
    """Model of a product record."""

    product: File
    of: dict[str, File]
    value: int
    after: dict[str, int]


class ModelFolder:
    """A folder in which the tasks of a graph are run one after the other, and a model of it."""

    def __init__(self, folder: Path, nodes: list[Node]) -> None:
        self.folder = folder
        folder.mkdir()
        self.nodes = nodes
        self.clock = 10**9
        self.files: dict[str, File | None] = {}
        self.made: dict[str, Made] = {}
        self.values = [0] * len(nodes)
        self.broken: int | None = None
        self.done: dict[str, FinishedTask] = {}
        for number in range(INPUTS):
            self.write(f"in{number}", "a")
        for number, node in enumerate(nodes):
            if node.mode[0] == "never":
                self.write(f"out{number}", "a")

    # --- changes

    def write(self, name: str, content: str) -> None:
        self.files[name] = self._put(str(self.folder / name), content)

    def touch(self, name: str) -> None:
        if (file := self.files.get(name)) is not None:
            self.write(name, file.content)

    def remove(self, name: str) -> None:
        if self.files.get(name) is not None and not self._is_given(name):
            os.unlink(self.folder / name)
            self.files[name] = None

    def _is_given(self, name: str) -> bool:
        """Return whether no task of the graph would produce it again."""
        return name.startswith("in") or self.nodes[int(name[3:])].mode[0] == "never"

    def _put(self, path: str, content: str) -> File:
        self.clock += 1
        with open(path, "w") as file:
            file.write(content)
        os.utime(path, ns=(self.clock, self.clock))
        return File(content, self.clock)

    # --- the model

    def needs(self, number: int) -> list[str]:
        return [f"in{need % INPUTS}" if need >= number else f"out{need}" for need in self.nodes[number].files]

    def ups(self, number: int) -> list[int]:
        return [up for up in self.nodes[number].after if up < number]

    def should_run(self, number: int, rerun: set[int]) -> bool:
        """Return whether a task must run, after these reruns."""
        mode, compare = self.nodes[number].mode
        if mode in ("always", "never"):
            return mode == "always"
        if self.files.get(f"out{number}") is None:
            return True
        by_file = {need for need in self.nodes[number].files if need < number}
        otherwise = set(self.ups(number))
        counts = rerun & (otherwise if compare == "content" else otherwise | by_file)
        return mode == "stale" and (bool(counts) or self.is_other(number, compare))

    def is_other(self, number: int, compare: str) -> bool:
        """Return whether an existing product is stale."""
        made = self.made.get(f"out{number}")
        if made is None:
            return True
        there = [name for name in (f"out{number}", *self.needs(number)) if self.files[name] is not None]
        now, then = {name: self.files[name] for name in there}, {f"out{number}": made.product, **made.of}
        then = {name: then[name] for name in there}  # a removed file is produced again, or missing
        if compare == "content":
            now, then = ({name: file.content for name, file in each.items()} for each in (now, then))
        return now != then or made.value != self.values[number] or made.after != self.runs_before(number)

    def runs_before(self, number: int) -> dict[str, int]:
        ups = [f"out{up}" for up in self.ups(number)]
        return {up: self.made[up].product.time for up in ups if up in self.made}

    # --- the run

    def workflow(self) -> Workflow:
        tasks = [
            Task(
                f"t{number}",
                "m",
                {
                    "out": Product(f"out{number}"),
                    "in": [Dependency(name) for name in self.needs(number)],
                    "value": self.values[number],
                },
                depends_on=[f"t{up}" for up in self.ups(number)],
                run_when=node.mode[0],
                compare=node.mode[1],
            )
            for number, node in enumerate(self.nodes)
        ]
        return Workflow("model", tasks).with_defaults(ExecutionSettings(workdir=str(self.folder)))

    def round(self, *, resumes: bool) -> set[str]:
        """Run the tasks, as the runner does; each decision has to be the model's. Return those that ran."""
        workflow = self.workflow()
        plan = make_plan(workflow, self.done, resumes=resumes)
        self.check_done(workflow, plan, resumes=resumes)
        for name in list(self.done):
            if plan.decisions[name].must_run and plan.decisions[name].is_sure:
                del self.done[name]
        rerun: set[int] = set()
        failed: set[str] = set()
        for name in workflow.order:
            if failed.intersection(workflow.upstream[name]):
                failed.add(name)
            elif name not in plan.done:
                self.come_to(workflow, name, plan, rerun, failed)
        return {f"t{number}" for number in rerun}

    def come_to(self, workflow: Workflow, name: str, plan: Any, rerun: set[int], failed: set[str]) -> None:
        number = int(name[1:])
        run = TaskRunner(workflow.tasks[name], {}, after=upstream_by_value(workflow, name))
        decision, _ = run.decision(*rerun_upstream(workflow, name, [f"t{each}" for each in sorted(rerun)]))
        assert decision.must_run is self.should_run(number, rerun), (name, decision)
        if plan.decisions[name].is_sure and not failed:
            assert plan.decisions[name].must_run is decision.must_run, (name, decision, plan.decisions[name])
        if decision.must_run and not self.makes(workflow.tasks[name], number, run):
            failed.add(name)
            return
        before = self.done.get(name)
        if decision.must_run:
            rerun.add(number)
        if decision.must_run or before is None or before.command != run.command():
            self.clock += 1
            self.done[name] = FinishedTask(run.command(), None, self.clock)

    def makes(self, task: Task, number: int, run: TaskRunner) -> bool:
        """Run a task, and return whether it produces its product."""
        making, made_from = StagedProducts(task.name, located(task.products, str(self.folder))), run.inputs()
        making.begin()
        of = {name: self.files[name] for name in self.needs(number)}
        content = str(self.values[number] % 2) + "".join(file.content[0] for file in of.values())
        product = self._put(str(self.folder / making.paths[task.products[0]]), content)
        if self.broken == number:
            making.discard()
            return False
        run.commit(making, made_from, None)
        self.files[f"out{number}"] = product
        self.made[f"out{number}"] = Made(product, of, self.values[number], self.runs_before(number))
        return True

    def check_done(self, workflow: Workflow, plan: Any, *, resumes: bool) -> None:
        """Assert that a resumed run finishes only the tasks that have succeeded and are unchanged."""
        for name in workflow.order:
            number = int(name[1:])
            mode, compare = self.nodes[number].mode
            is_as_it_was = self.files.get(f"out{number}") is not None and (
                mode == "never" or f"out{number}" not in self.made or not self.is_other_but_for_order(number, compare)
            )
            is_done = (
                resumes
                and name in self.done
                and self.done[name].command == TaskRunner(workflow.tasks[name], {}).command()
                and not any(plan.decisions[up].must_run for up in workflow.upstream[name])
                and all(self.done[up].at <= self.done[name].at for up in workflow.upstream[name] if up in self.done)
                and is_as_it_was
            )
            assert (name in plan.done) is is_done, (name, plan.decisions[name])

    def is_other_but_for_order(self, number: int, compare: str) -> bool:
        made = self.made[f"out{number}"]
        self.made[f"out{number}"] = made._replace(after=self.runs_before(number))
        is_other = self.is_other(number, compare)
        self.made[f"out{number}"] = made
        return is_other


_STALE = [("stale", "mtime"), ("stale", "content")]
_MODES = st.sampled_from([*_STALE, *_STALE, ("always", "mtime"), ("missing", "mtime"), ("never", "mtime")])
_NODES = st.lists(
    st.builds(
        Node,
        _MODES,
        st.sampled_from([(0,), (1,), (2,), (0, 1), (1, 2), (3,)]),
        st.sampled_from([(), (0,), (1,), (0, 2)]),
    ),
    min_size=2,
    max_size=4,
)
_ANY = st.integers(0, 11)  # one of the files, or one of the tasks
_DEEDS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), _ANY, st.sampled_from(["ab", "b"])),
        st.tuples(st.sampled_from(["touch", "remove", "change", "break"]), _ANY),
    ),
    min_size=1,
    max_size=2,
)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(_NODES, st.lists(st.tuples(_DEEDS, st.booleans()), min_size=2, max_size=4))
def test_workflow_runner_matches_make_model_after_random_changes(tmp_path, nodes, rounds) -> None:
    """Files written, touched or removed, parameters changed, tasks that fail; from the start or resumed."""
    model = ModelFolder(tmp_path / str(next(_NUMBERS)), nodes)
    model.round(resumes=False)
    for deeds, resumes in rounds:
        model.broken = None
        for deed, which, *content in deeds:
            if deed == "change":
                model.values[which % len(nodes)] += 1
            elif deed == "break":
                model.broken = which % len(nodes)
            else:
                getattr(model, deed)(sorted(model.files)[which % len(model.files)], *content)
        model.round(resumes=resumes)

    model.broken = None
    model.round(resumes=False)
    again = model.round(resumes=False)
    if all(node.mode[0] != "always" for node in nodes):
        assert again == set()
    assert model.round(resumes=True) == set()
