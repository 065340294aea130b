"""A worker creates only its running Airflow task, and tasks that the DAG file looks up."""

from __future__ import annotations

import itertools
import os
from contextlib import contextmanager

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.providers.standard.operators.latest_only import LatestOnlyOperator
from airflow.providers.standard.operators.python import ShortCircuitOperator
from airflow.sdk import DAG, BaseOperator, TaskGroup, chain, task
from airflow.sdk.definitions._internal.dag_parsing_context import _airflow_parsing_context_manager

from airflow_provider_sewer.task_group import sewer_task_group

FLOW = """
raw = Task("raw", "job", {"out": Product("raw.txt", temporary=True)})
clean = Task("clean", "job", {"in": [Dependency("raw.txt"), External("given.txt")], "out": Product("clean.txt")})
fit = Task("fit", "job", {"in": Dependency("clean.txt")}, operator_kwargs={"retries": 3}, env={"A": "1"})
list_ = Task("list", function="steps:numbers")
each = Task("each", "job").map(exit=list_.result)
known = Task("known", "job").map(exit=[0, 1])
last = Task("last", "job", depends_on=[fit, each, known])
"""


@pytest.fixture
def parse(expand):
    """Return a function that expands the workflow as the worker of a task does, or as the DAG processor."""

    def parse(task_id: str | None, source: str = FLOW, *, dag_id: str | None = "dag", **arguments):
        with on_the_worker_of(task_id, dag_id):
            return expand(source, **arguments)

    return parse


@contextmanager
def on_the_worker_of(task_id: str | None, dag_id: str | None = "dag"):
    before = dict(os.environ)
    try:
        with _airflow_parsing_context_manager(dag_id=dag_id, task_id=task_id):
            yield
    finally:  # Airflow leaves them, in the process of a worker
        os.environ.clear()
        os.environ.update(before)


def created(group) -> list[str]:
    """Return the ids of the created tasks."""
    return sorted(operator.task_id for operator in group)


def fields_of(operator) -> dict:
    """Return the fields of an operator, except its edges."""
    fields = {*type(operator).get_serialized_fields(), *operator.template_fields, "outlets", "_marks", "env"}
    left_aside = {"upstream_task_ids", "downstream_task_ids", "_marks"}
    marks = {place: repr(mark) for place, mark in operator._markers._marks.items()}
    return {name: getattr(operator, name, None) for name in fields - left_aside} | {"marks": marks}


@pytest.mark.parametrize("task_id", ["g.raw", "g.clean", "g.fit", "g.last"])
def test_lazy_tasks_worker_creates_only_its_running_task(parse, task_id):
    """It is the same as among all the others."""
    whole, own = parse(None), parse(task_id)
    assert created(own) == [task_id]
    assert fields_of(own.dag.get_task(task_id)) == fields_of(whole.dag.get_task(task_id))


def test_lazy_tasks_worker_creates_tasks_mapped_over_its_result(parse):
    """Airflow notes how long the result is only if something is mapped over it."""
    group = parse("g.list")
    assert created(group) == ["g.each", "g.list"]
    assert [operator.task_id for operator in group["list"].iter_mapped_dependants()] == ["g.each"]


def test_lazy_tasks_worker_of_mapped_task_resolves_its_upstream(parse):
    """Either values, which are in the task, or a result, whose task is then created."""
    assert created(parse("g.known")) == ["g.known"]
    assert created(parse("g.each")) == ["g.each", "g.list"]


@pytest.mark.parametrize(
    ("task_id", "users"), [("g.wait_for_given_txt", ["g.clean"]), ("g.remove_raw_txt", ["g.clean", "g.raw"])]
)
def test_lazy_tasks_worker_creates_path_task(parse, task_id, users, tmp_path):
    """It runs where the task runs that it is for, and has the callbacks of all that use the path."""
    group = parse(task_id)
    assert created(group) == sorted([task_id, *users])
    assert group.dag.get_task(task_id).workdir == str(tmp_path)


def test_lazy_tasks_lookup_by_dag_file_creates_task(parse):
    """By name or by id, in the group or in the DAG; unknown names are not found."""
    group = parse("g.raw")
    dag = group.dag
    assert group["fit"].retries == 3
    assert group.tasks_map["clean"].task_id == "g.clean"
    assert dag.get_task("g.last") is dag.task_dict["g.last"] is group.children["g.last"]
    assert group.get_child_by_label("known").is_mapped
    assert dag.has_task("g.remove_raw_txt")
    assert not dag.has_task("g.nothing")
    assert "nothing" not in group.tasks_map
    assert "nothing" not in group
    assert created(group) == ["g.clean", "g.fit", "g.known", "g.last", "g.raw", "g.remove_raw_txt"]


def test_lazy_tasks_iteration_over_tasks_map_creates_all(parse):
    """A hand-written loop over them works as in the DAG processor."""
    group = parse("g.raw")
    assert list(group.tasks_map) == list(parse(None).tasks_map)
    assert len(created(group)) == 7


def test_lazy_tasks_iteration_during_creation_succeeds(parse):
    """Those that were there are gone through."""
    group = parse("g.raw")
    assert [group["last"].task_id for _ in group] == ["g.last"]


def test_lazy_tasks_keeps_references_and_edges_of_dag_file(tmp_path, expand):
    """Whichever task runs: one of the group, one beside it, or one of another DAG."""
    expand(FLOW)  # for its files

    def whole_dag() -> DAG:
        with DAG("dag", schedule=None) as dag:
            before, after, beside = (BaseOperator(task_id=name) for name in ("before", "after", "beside"))
            with TaskGroup("outer") as outer:
                group = sewer_task_group(tmp_path / "flow.py", group_id="g", workdir=tmp_path)
            before >> group >> after
            chain(before, [group["raw"], group["list"]], beside)
            BaseOperator(task_id="first") >> outer >> BaseOperator(task_id="final")
            group["clean"] >> group["fit"]
            sewer_task_group(tmp_path / "flow.py", group_id="h", workdir=tmp_path) << group
        return dag

    ids = [*whole_dag().task_dict]
    beside_the_groups = [task_id for task_id in ids if "." not in task_id]
    assert (len(ids), len(beside_the_groups)) == (5 + 2 * 9, 5)
    for task_id in [*ids, "of another dag"]:
        with on_the_worker_of(task_id, "dag" if task_id in ids else "other"):
            dag = whole_dag()
            bag = DagBag(dag_folder=os.devnull, bundle_path=None, bundle_name="dags-folder")
            bag.bag_dag(dag)  # which looks for circles
        assert task_id not in ids or dag.task_dict[task_id].task_id == task_id
        assert (len(dag.tasks) == len(ids)) == (task_id in beside_the_groups)


@pytest.mark.parametrize("running", ["short", "latest", "mid"])
def test_lazy_tasks_other_task_of_dag_sees_all_downstream_tasks(running, tmp_path, expand):
    """It may skip them, and needs their ids."""
    expand(FLOW)

    def after(task_id: str | None) -> dict[str, list[str]]:
        with on_the_worker_of(task_id), DAG("dag", schedule=None) as dag:
            short = ShortCircuitOperator(task_id="short", python_callable=bool)
            group = sewer_task_group(tmp_path / "flow.py", group_id="g", workdir=tmp_path)
            short >> BaseOperator(task_id="mid") >> group >> LatestOnlyOperator(task_id="latest") >> group["last"]
        return {name: sorted(each.task_id for each in dag.get_task(name).get_flat_relatives()) for name in dag.task_ids}

    assert after(running) == after(None)
    assert len(after(running)["mid"]) == 10


LAYERS = """
before = [Task(f"before {n}", "job", group=GROUP) for n in range(11)]
after = [Task(f"after {n}", "job", group=GROUP, depends_on=before) for n in range(11)]
Task("last", "job", depends_on=after)
"""


@pytest.mark.parametrize(("group", "gate"), [("", "g.join"), ("wide", "g.wide.join")])
def test_lazy_tasks_join_task_runs_on_worker(parse, group, gate):
    """It does when it has a callback; else the scheduler has it succeed."""
    source = LAYERS.replace("GROUP", repr(group or None))
    whole, own = parse(None, source), parse(gate, source)
    assert own.dag.get_task(gate).upstream_task_ids == whole.dag.get_task(gate).upstream_task_ids


def test_lazy_tasks_join_task_is_found_by_other_worker(parse):
    """By the DAG file; a task of such a name outside the group creates nothing."""
    source = LAYERS.replace("GROUP", "None")
    group = parse("g.before_1", source)
    BaseOperator(task_id="join", dag=group.dag)
    assert created(group) == ["g.before_1"]
    assert group.children["g.join"] is group.dag.get_task("g.join")
    assert not group.dag.has_task("g.join2")


LOOPS = """
from airflow.sdk import DAG, BaseOperator, Label, TaskGroup, chain, cross_downstream, task
from airflow_provider_sewer.task_group import sewer_task_group

with DAG("dag", schedule=None):
    group = sewer_task_group("flow.py", group_id="g", workdir=".")
    LOOP
"""


@pytest.mark.parametrize("loop", [
    "for number, each in enumerate(group): each.env = {'N': str(number)}",
    "for number, each in enumerate(group.children.values()): each.env = {'N': str(number)}",
    "for number, each in enumerate(group.tasks_map.values()): each.env = {'N': str(number)}",
    "for number, each in enumerate(group.dag.tasks): each.env = {'N': str(number)}",
    "for number, each in enumerate(group.get_leaves()): each.env = {'N': str(number)}",
    "list(group)[-1].env = {'N': str(len(group.children))}",
    "[task for task in group.tasks_map.values() if not task.downstream_task_ids][-1].env = {'N': 'last'}",
])  # fmt: skip
def test_lazy_tasks_iteration_over_group_creates_all(loop, tmp_path, expand):
    """In the same order, and with the same edges, as in the DAG processor."""
    expand(FLOW)
    (tmp_path / "dag.py").write_text(LOOPS.replace("LOOP", loop))

    def env(task_id: str, *, on_worker: bool) -> dict[str, str] | None:
        dag = read(tmp_path / "dag.py", task_id if on_worker else None)
        return getattr(dag.get_task(task_id), "env", None)

    for task_id in ("g.raw", "g.fit", "g.last", "g.wait_for_given_txt"):
        assert env(task_id, on_worker=True) == env(task_id, on_worker=False)
    expand(LAYERS.replace("GROUP", "'wide'"))
    for task_id in ("g.wide.after_10", "g.last"):
        assert env(task_id, on_worker=True) == env(task_id, on_worker=False)


@pytest.mark.parametrize(("running", "first", "second"), [("g.fit", 1, 1), ("h.fit", 9, 1)])
def test_lazy_tasks_groups_before_running_group_are_complete(running, first, second, tmp_path, expand):
    """By then it is not known that the task which runs is one of a workflow."""
    expand(FLOW)
    with on_the_worker_of(running), DAG("dag", schedule=None):
        groups = [sewer_task_group(tmp_path / "flow.py", group_id=name, workdir=tmp_path) for name in "gh"]
    assert [len(created(group)) for group in groups] == [first, second]


@pytest.mark.parametrize("ties", [
    "BaseOperator(task_id='before') >> group >> BaseOperator(task_id='after')",
    "chain(BaseOperator(task_id='before'), Label('then'), group, [BaseOperator(task_id=name) for name in 'ab'])",
    "cross_downstream([group], [BaseOperator(task_id='a')])",
    "[BaseOperator(task_id='before')] >> group; group << BaseOperator(task_id='too')",
    "group >> task(task_id='decorated')(lambda: 1)()",
])  # fmt: skip
def test_lazy_tasks_dependency_of_group_creates_no_task(ties, tmp_path, expand):
    """Those edges mean nothing to a task of a workflow, and most DAG files have some."""
    expand(FLOW)
    (tmp_path / "dag.py").write_text(LOOPS.replace("LOOP", ties))

    dag = read(tmp_path / "dag.py", "g.fit")

    assert [task_id for task_id in dag.task_ids if task_id.startswith("g.")] == ["g.fit"]


def read(dag_file, task_id: str | None) -> DAG:
    """Return the DAG of a file as the worker of a task reads it, or as the DAG processor does."""
    with on_the_worker_of(task_id):
        bag = DagBag(dag_folder=dag_file, bundle_path=dag_file.parent, bundle_name="dags-folder")
    assert bag.import_errors == {}
    return bag.dags["dag"]


def test_lazy_tasks_result_reaches_task_outside_group(parse, tmp_path):
    """A reference creates its task, also on the worker of the task that uses it."""
    parse(None)
    with on_the_worker_of("g.raw"), DAG("dag", schedule=None) as dag:
        group = sewer_task_group(tmp_path / "flow.py", group_id="g", workdir=tmp_path)

        @task
        def user(value):
            return value

        user(group["list"].output)
        user.override(task_id="mapped").expand(value=group["known"].output)
    assert dag.get_task("user").upstream_task_ids == {"g.list"}
    assert created(group) == ["g.known", "g.list", "g.raw"]


def test_lazy_tasks_worker_of_other_dag_creates_one_task_per_group(parse):
    """So that no group is empty, to which Airflow ties other tasks."""
    assert created(parse("g.fit", dag_id="another")) == ["g.raw"]


def test_lazy_tasks_dag_processor_creates_all_tasks(parse):
    """As by `airflow dags test`, which names a DAG."""
    assert created(parse(None, dag_id="dag")) == created(parse(None, dag_id=None))
    assert len(created(parse(None, dag_id="another"))) == 9


def test_lazy_tasks_finds_subgroups_and_ids_without_prefix(parse):
    """A lookup in a subgroup creates the task in it."""
    source = """
        deep = Task("deep", "job", group="inner.most")
        top = Task("top", "job")
    """
    group = parse("g.top", source)
    assert group.children["g.inner"].children["g.inner.most"].children["g.inner.most.deep"] is group["deep"]
    group = parse("deep", source, prefix_group_id=False)
    assert created(group) == ["deep"]


def test_lazy_tasks_teardown_of_dag_file_stays_teardown_on_worker(parse):
    """It applies to created tasks."""
    group = parse("g.last")
    group["last"].as_teardown(setups=group["raw"])
    assert group.dag.task_dict["g.last"].is_teardown
    assert created(group) == ["g.last", "g.raw"]


def test_lazy_tasks_task_converter_is_called_for_all_tasks_on_worker(parse):
    """It may count tasks, or return an operator that uses its downstream tasks."""
    ports = itertools.count(8000)

    def converter(task, arguments):
        return arguments | {"env": {"PORT": str(next(ports))}}

    whole = parse(None, task_converter=converter)
    ports = itertools.count(8000)
    assert parse("g.fit", task_converter=converter)["fit"].env == whole["fit"].env


def test_lazy_tasks_duplicate_task_id_raises_on_worker(parse):
    """As by the DAG processor."""
    group = parse("g.raw")
    with pytest.raises(Exception, match=r"g\.fit"), group.dag, group:
        BaseOperator(task_id="fit")


def test_lazy_tasks_partial_subset_creates_no_other_task(parse):
    """A copy creates no further tasks."""
    part = parse("g.raw").dag.partial_subset(["g.raw"])
    assert not part.has_task("g.fit")
