"""OperatorCloner: operators that differ only in per-task fields are cloned, and equal constructed ones."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.sdk import DAG, TaskGroup
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_sewer import Dependency, Product
from airflow_provider_sewer.core.placeholders import Ignored
from airflow_provider_sewer.operators.module import PythonModuleOperator
from airflow_provider_sewer.operators.operator_cloner import OperatorCloner
from airflow_provider_sewer.operators.slurm import SlurmModuleOperator
from airflow_provider_sewer.operators.xcom_references import FromXCom

NOTHING = {
    "module": None,
    "parameters_and_flags": {},
    "args": [],
    "use_underscores": False,
    "function": None,
    "op_kwargs": {},
    "products": [],
    "dependencies": [],
    "stale_after": [],
    "stdin": None,
    "stdout": None,
}
OWN = [
    {"module": "steps.first", "parameters_and_flags": {"n": 1, "verbose": True}},
    {"module": "steps.second", "args": ["{{ ds }}", 2.5], "use_underscores": True},
    {"module": "steps.third", "parameters_and_flags": {"out": Product("/data/a"), "in": Dependency("{{ ds }}/b")}},
    {"module": "steps.fourth", "products": [Product("c", temporary=True), "/data/d"], "dependencies": ["e"]},
    {"module": "steps.streams", "stdin": Dependency("{{ ds }}/in"), "stdout": Product("/data/out")},
    {"module": "steps.fifth", "parameters_and_flags": {"n": Ignored([3]), "x": FromXCom(None, "other")}},
    {"function": "steps:sixth", "op_kwargs": {"deep": {"er": [1, None]}}, "stale_after": ["group.task_0"]},
]
SHARED = {
    "python": "python3",
    "env": {"A": "{{ ds }}"},
    "workdir": "/data",
    "run_when": "always",
    "compare": "mtime",
    "stale_with": (),
    "retries": 3,
    "retry_delay": timedelta(minutes=1),
    "outlets": [],
    "params": {"size": 3},
    "executor_config": {"image": {"name": "x"}},
    "on_failure_callback": [print],
}


def own(number: int, **fields) -> dict:
    return {
        **NOTHING,
        "task_id": f"task_{number}",
        "task_display_name": f"Task {number}",
        "doc_md": f"*{number}*",
        **fields,
    }


def made(make, kind, *, owns=OWN, **shared) -> DAG:
    """Make a DAG of operators in a group, which share their other arguments."""
    shared = {**SHARED, **shared}
    with DAG("twins", schedule=None, default_args={"owner": "me"}, params={"color": "red"}) as dag:
        TaskGroup("before")
        with TaskGroup("group", default_args={"queue": "fast"}):
            for number, fields in enumerate(owns):
                make(kind, own(number, **fields), shared)
    return dag


def plainly(kind, own, shared):
    return kind(**own, **shared)


def state(operator) -> dict:
    """Return all there is in an operator, but for the DAG and the group it is in."""
    left_aside = ("_dag", "dag", "task_group", "_markers")
    found = {name: value for name, value in vars(operator).items() if name not in left_aside}
    inner = found.pop("_BaseOperator__init_kwargs")
    found["init_kwargs"] = {name: value for name, value in inner.items() if name not in left_aside}
    found["marks"] = operator._markers._marks
    return found


@pytest.fixture
def constructed(monkeypatch):
    """Return a list of the operators that their constructor has made."""
    ids = []
    check = PythonModuleOperator._check_known_fields
    monkeypatch.setattr(
        PythonModuleOperator, "_check_known_fields", lambda self: (ids.append(self.task_id), check(self))
    )
    return ids


@pytest.mark.parametrize("kind", [PythonModuleOperator, SlurmModuleOperator])
def test_clone_equals_a_constructed_operator(kind, constructed):
    """In itself, in its DAG and its group, and serialized."""
    more = {"slurm": {"mem_gb": 1}, "deferrable": True} if kind is SlurmModuleOperator else {}
    one, other = made(plainly, kind, **more), made(OperatorCloner().clone, kind, **more)

    assert len(constructed) == len(OWN) + 1
    assert [*one.task_dict] == [*other.task_dict] == [f"group.task_{number}" for number in range(len(OWN))]
    for task_id, operator in one.task_dict.items():
        twin = other.task_dict[task_id]
        assert state(twin) == state(operator)
        assert (twin.dag, twin.task_group.group_id, twin.label) == (other, "group", operator.label)
    assert [*one.task_group.children["group"].children] == [*other.task_group.children["group"].children]
    assert DagSerialization.to_dict(one) == DagSerialization.to_dict(other)


def test_clone_shares_no_mutable_state():
    """Lists, dictionaries, sets and parameters are each one's own."""
    dag = made(OperatorCloner().clone, PythonModuleOperator)
    first, second, third = [*dag.task_dict.values()][:3]
    before = state(third)
    first >> second
    second.outlets.append("more")
    second.params["size"] = 4
    second.on_failure_callback.append(len)
    second.executor_config["more"] = True
    assert state(third) == before
    assert third.upstream_task_ids == third.downstream_task_ids == set()


def test_operator_with_a_reference_is_constructed(constructed):
    """Airflow finds references where operators are constructed."""
    with DAG("twins", schedule=None) as dag:
        twins = OperatorCloner()
        first = twins.clone(PythonModuleOperator, own(0, module="m"), {})
        twins.clone(PythonModuleOperator, own(1, module="m", parameters_and_flags={"n": [first.output]}), {})
        shared = {"workdir": first.output["dir"]}
        for number in (2, 3):
            twins.clone(PythonModuleOperator, own(number, module="m"), shared)
    assert constructed == [*dag.task_dict]
    assert first.downstream_task_ids == {"task_1", "task_2", "task_3"}


def test_operators_with_other_arguments_or_groups_are_constructed(constructed):
    """Only operators with the same other arguments, in the same group, are cloned."""
    twins = OperatorCloner()
    one, two = {"retries": 1}, {"retries": 2}
    with DAG("twins", schedule=None):
        for number, shared in enumerate([one, two, one]):
            twins.clone(PythonModuleOperator, own(number, module="m"), shared)
        with TaskGroup("group"):
            twins.clone(PythonModuleOperator, own(3, module="m"), one)
    assert constructed == ["task_0", "task_1", "group.task_3"]


def test_clone_with_duplicate_task_id_raises():
    """As they are by the constructor."""
    with pytest.raises(Exception, match="task_0"):
        made(OperatorCloner().clone, PythonModuleOperator, owns=[{"module": "m"}, {"module": "m", "task_id": "task_0"}])
