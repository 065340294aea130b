"""Subgroups of a workflow's group, and their ids."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG, TaskGroup
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_sewer import SewerError
from airflow_provider_sewer.task_group import sewer_task_group

NESTED = '''
load = Task("load", "job", {"out": Product("raw.txt", temporary=True)})
clean = Task("clean data", "job", {"in": Dependency("raw.txt")}, group="steps.second")
train = Task("train", "job", group="models")
train_all = Task("each", "job", {"exit": 0}, group="models").map(exit=[0, 0])
report = Task("report", "job")

@workflow
def prepare():
    """Get the data."""
    (load >> clean).run()

@workflow
def whole():
    prepare()
    ([train, *train_all] >> report).run()
'''


def edges(group) -> dict[str, set[str]]:
    return {operator.task_id: operator.upstream_task_ids for operator in group}


def test_nested_workflow_becomes_subgroup(expand):
    """It has its own name; a task's group becomes a subgroup of it."""
    group = expand(NESTED, workflow="whole")

    assert edges(group) == {
        "g.prepare.load": set(),
        "g.prepare.steps.second.clean_data": {"g.prepare.load"},
        "g.models.train": {"g.prepare.steps.second.clean_data"},
        "g.models.each": {"g.prepare.steps.second.clean_data"},
        "g.report": {"g.models.train", "g.models.each"},
        "g.remove_raw_txt": {"g.prepare.steps.second.clean_data"},
    }
    assert group["clean data"].task_group.group_id == "g.prepare.steps.second"


def test_subgroups_run_in_dag(expand, run_dag):
    """And are groups to Airflow, also once they are written and read again."""
    dag = expand(NESTED, workflow="whole").dag

    assert set(run_dag(dag).states.values()) == {"success"}
    read = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert {"g", "g.prepare", "g.prepare.steps", "g.prepare.steps.second", "g.models"} <= read.task_group_dict.keys()


def test_prefix_group_id_false_omits_group_ids(expand):
    """Then all that would be the same are numbered, groups as well."""
    group = expand(
        NESTED.replace('"train", "job"', '"prepare", "job"'), workflow="whole", prefix_group_id=False, group_id="models"
    )

    assert edges(group).keys() == {"load", "clean_data", "prepare", "each", "report", "remove_raw_txt"}
    assert group["clean data"].task_group.group_id == "second"
    assert group["load"].task_group.group_id == "prepare_2"
    assert group["prepare"].task_group.group_id == "models_2"
    assert group["load"].task_group.group_display_name == "prepare"


def test_task_and_group_may_share_a_name(expand):
    """The task has the id, for its history hangs on that."""
    group = expand("Task('a', 'job', group='b')\nTask('b', 'job')\nTask('b c', 'job')\nTask('d', 'job', group='b c')")

    assert edges(group).keys() == {"g.b_2.a", "g.b", "g.b_c", "g.b_c_2.d"}


def test_default_args_apply_to_tasks_of_subgroups(expand):
    """As in any TaskGroup."""
    group = expand(NESTED, workflow="whole", default_args={"retries": 4})

    assert {group[name].retries for name in ("load", "clean data", "each")} == {4}


def test_results_resolve_in_nested_subgroups(expand, tmp_path):
    """References to tasks include the prefix of their groups."""
    expand("a = Task('a', function='os:getcwd', group='x')\nb = Task('b', 'job', {'in': a.result}, group='y')")
    with DAG("outer", schedule=None), TaskGroup("around"):
        group = sewer_task_group(tmp_path / "flow.py", group_id="g")

    assert group["b"].parameters_and_flags["in"].task_id == "around.g.x.a"


@pytest.mark.parametrize("name", ["", ".", "a..b", "a. ", 3, "a\nb"])
def test_group_with_empty_name_raises(expand, name):
    """With file and line."""
    with pytest.raises(SewerError, match=r"flow\.py:2: task 't': group must be a name such as 'training'"):
        expand(f"Task('t', 'job', group={name!r})")
