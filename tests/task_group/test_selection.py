"""A part of a workflow as a TaskGroup."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG, BaseOperator

from airflow_provider_sewer import SewerError

FLOW = """
raw = Task("raw", "job", {"out": Product("raw.txt", temporary=True)}, tags="slow")
clean = Task("clean", "job", {"in": Dependency("raw.txt"), "out": Product("clean.txt")})
train = Task("train", "job", {"in": Dependency("clean.txt")}, tags=["gpu", "slow"], doc="Train.")
check = Task("check", "job", {"in": [Dependency("raw.txt"), External("limits.txt")]})
score = Task("score", function="os:getcwd")
report = Task("report", "job", {"score": score.result}, depends_on=train)
"""


def edges(group) -> dict[str, set[str]]:
    return {operator.label: {name.removeprefix("g.") for name in operator.upstream_task_ids} for operator in group}


def test_select_expands_subset_of_workflow(expand):
    """The other tasks keep their order, and have the tasks for paths that they need."""
    assert edges(expand(FLOW, select="+train")) == {"raw": set(), "clean": {"raw"}, "train": {"clean"}}
    assert edges(expand(FLOW, select=["tag:slow", "check"])) == {
        "raw": set(),
        "train": {"raw"},
        "check": {"raw", "wait_for_limits_txt"},
        "wait_for_limits_txt": set(),
    }
    assert edges(expand(FLOW, exclude=["raw+", "report"])) == {"score": set()}


def test_exclude_keeps_temporary_products_of_excluded_consumer(expand):
    """It runs elsewhere, or another day. Products of other places are removed there."""
    assert "remove_raw_txt" in edges(expand(FLOW))
    assert "remove_raw_txt" in edges(expand(FLOW, select="raw+1"))
    assert "remove_raw_txt" not in edges(expand(FLOW, select="raw,tag:slow"))
    assert "remove_raw_txt" not in edges(expand(FLOW, exclude="check"))
    assert "remove_raw_txt" not in edges(expand(FLOW, exclude="raw"))


def test_exclude_of_task_with_used_result_raises(expand):
    """The message names the task and the fix, when the DAG file is parsed."""
    message = r"flow\.py:\d+: task 'report': score\.result is the result of a task that is not selected; select"
    with pytest.raises(SewerError, match=message):
        expand(FLOW, exclude="score")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"select": "tarin"}, "^select 'tarin': unknown task 'tarin'; did you mean 'train'"),
        ({"exclude": ["tag:gpus"]}, "^exclude 'tag:gpus': unknown tag 'gpus'; did you mean 'gpu'"),
        ({"exclude": "*"}, r"^exclude '\*' leaves no task to run"),
        ({"select": []}, "^select must not be an empty list, which matches no task"),
        ({"select": "9" * 5000 + "+tarin"}, "unknown task 'tarin'; did you mean 'train'"),
    ],
)
def test_select_without_match_raises(expand, arguments, message):
    """So no DAG loses tasks for a slip of the pen."""
    with pytest.raises(SewerError, match=message):
        expand(FLOW, **arguments)


@pytest.mark.parametrize("argument", ["select", "exclude"])
def test_select_runtime_value_raises(expand, argument):
    """The tasks of a DAG are known before."""
    with DAG("other", schedule=None) as dag:
        later = [BaseOperator(task_id="names").output, dag.param("names", [])]

    for value in (*later, later):
        with pytest.raises(
            SewerError, match=rf"^{argument} must be a text such as 'train\+', or a list of texts, got "
        ):
            expand(FLOW, **{argument: value})


def test_select_part_of_mapped_task_creates_single_tasks(expand):
    """All of it is one mapped task still."""
    source = "each = Task('each', 'job', {'n': 0}).map(n=[1, 2, 3])"

    assert list(edges(expand(source, select="each"))) == ["each"]
    assert list(edges(expand(source, select="each[n=2]"))) == ["each[n=2]"]


def test_select_subset_runs_alone(expand, run_dag, tmp_path):
    """Products of the other tasks have to be there, as with any dependency that no task makes."""
    assert run_dag(expand(FLOW, select="train").dag).states == {"g.train": "failed"}

    (tmp_path / "clean.txt").write_text("clean")
    assert run_dag(expand(FLOW, select="train").dag).results == {"g.train": "None clean"}


def test_doc_md_shows_tags(expand):
    """Airflow has no tags of tasks; its notes on a task have them."""
    assert expand(FLOW)["train"].doc_md.endswith("```\n\nTags: gpu, slow")
