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


def test_a_part_of_a_workflow_is_expanded(expand):
    """What is left keeps its order, and has of the tasks for paths what it needs."""
    assert edges(expand(FLOW, select="+train")) == {"raw": set(), "clean": {"raw"}, "train": {"clean"}}
    assert edges(expand(FLOW, select=["tag:slow", "check"])) == {
        "raw": set(),
        "train": {"raw"},
        "check": {"raw", "wait_for_limits_txt"},
        "wait_for_limits_txt": set(),
    }
    assert edges(expand(FLOW, exclude=["raw+", "report"])) == {"score": set()}


def test_what_a_task_that_is_left_out_needs_is_not_removed(expand):
    """It runs elsewhere, or another day. What is made elsewhere is removed there."""
    assert "remove_raw_txt" in edges(expand(FLOW))
    assert "remove_raw_txt" in edges(expand(FLOW, select="raw+1"))
    assert "remove_raw_txt" not in edges(expand(FLOW, select="raw,tag:slow"))
    assert "remove_raw_txt" not in edges(expand(FLOW, exclude="check"))
    assert "remove_raw_txt" not in edges(expand(FLOW, exclude="raw"))


def test_a_result_of_a_task_that_is_left_out_is_an_error(expand):
    """It says whose it is, and what to do, when the DAG file is parsed."""
    said = r"flow\.py:\d+: task 'report': score\.result is the result of a task that is not here; select it too"
    with pytest.raises(SewerError, match=said):
        expand(FLOW, exclude="score")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"select": "tarin"}, "^select 'tarin': unknown task 'tarin'; did you mean 'train'"),
        ({"exclude": ["tag:gpus"]}, "^exclude 'tag:gpus': unknown tag 'gpus'; did you mean 'gpu'"),
        ({"exclude": "*"}, r"^exclude '\*' leaves no task to run"),
        ({"select": []}, "^select: the list is empty, and would leave no task"),
        ({"select": "9" * 5000 + "+tarin"}, "unknown task 'tarin'; did you mean 'train'"),
    ],
)
def test_what_means_nothing_is_an_error(expand, arguments, said):
    """So no DAG loses tasks for a slip of the pen."""
    with pytest.raises(SewerError, match=said):
        expand(FLOW, **arguments)


@pytest.mark.parametrize("argument", ["select", "exclude"])
def test_what_only_a_run_knows_selects_nothing(expand, argument):
    """What a DAG is made of is known before."""
    with DAG("other", schedule=None) as dag:
        later = [BaseOperator(task_id="names").output, dag.param("names", [])]

    for value in (*later, later):
        with pytest.raises(
            SewerError, match=rf"^{argument}: a text such as 'train\+', or a list of them, is needed, not "
        ):
            expand(FLOW, **{argument: value})


def test_a_part_of_a_mapped_task_is_made_of_single_ones(expand):
    """All of it is one mapped task still."""
    source = "each = Task('each', 'job', {'n': 0}).map(n=[1, 2, 3])"

    assert list(edges(expand(source, select="each"))) == ["each"]
    assert list(edges(expand(source, select="each[n=2]"))) == ["each[n=2]"]


def test_a_part_runs_without_the_rest(expand, run_dag, tmp_path):
    """What the rest would have made has to be there, as with any dependency that nobody makes."""
    assert run_dag(expand(FLOW, select="train").dag).states == {"g.train": "failed"}

    (tmp_path / "clean.txt").write_text("clean")
    assert run_dag(expand(FLOW, select="train").dag).results == {"g.train": "None clean"}


def test_tags_are_shown(expand):
    """Airflow has no tags of tasks; its notes on a task have them."""
    assert expand(FLOW)["train"].doc_md.endswith("```\n\nTags: gpu, slow")
