"""``sppe … --arg NAME=VALUE``: a workflow is called with it."""

from __future__ import annotations

import json

import pytest

FLOW = """
from airflow_provider_sewer import Task, workflow

@workflow
def train(models, n=10, text="x"):
    for model in models:
        Task(model, "says", {"n": n, "text": text}).run()
"""


@pytest.fixture
def flow(sppe):
    """Return the command, in a folder with a workflow file that has parameters."""
    sppe.write("flow.py", FLOW)
    sppe.write("says.py", "import sys; print(*sys.argv[1:])")
    return sppe


GIVEN = ["--arg", 'models=["svc", "forest"]', "--arg", "n=3", "--arg", "text=a=b c"]


@pytest.mark.parametrize("there", [[], ["--read-with-interpreter"]], ids=["here", "there"])
def test_run_passes_arg_to_workflow(flow, there) -> None:
    """Numbers and lists are written as JSON; other text stays text. The reader of the file makes no difference."""
    done = flow.run("run", *there, *GIVEN, env={"XDG_CACHE_HOME": str(flow.folder / "cache")})

    assert done.returncode == 0, done.stderr
    assert "[svc] --n 3 --text a=b c\n[forest] --n 3 --text a=b c\n" in done.stdout


def test_show_explain_and_convert_pass_arg_to_workflow(flow) -> None:
    """Shown, explained and converted is the same workflow that is run."""
    shown = json.loads(flow.run("show", "-p", "flow.py", "--format", "json", *GIVEN).stdout)
    explained = flow.run("explain", "-p", "flow.py", *GIVEN).stdout
    launch = json.loads(flow.run("convert", "-p", "flow.py", "--to", "vscode", "--print-only", *GIVEN).stdout)

    assert [task["name"] for task in shown["tasks"]] == ["svc", "forest"]
    assert "forest  runs" in explained
    assert launch["configurations"][1]["args"] == ["--n", "3", "--text", "a=b c"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            [],
            "flow.py:4: TypeError: train() missing 1 required positional argument: 'models'. Signature: (models, n=10",
        ),
        ([*GIVEN, "--arg", "m=1"], "got an unexpected keyword argument 'm'. Signature: (models, n=10, text='x'); pass"),
        (["--arg", "n"], "Invalid value for --arg: 'n': write NAME=VALUE, such as n=10"),
    ],
)
def test_run_rejects_invalid_arg(flow, given, expected) -> None:
    """Before anything runs."""
    done = flow.run("run", *given)

    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
