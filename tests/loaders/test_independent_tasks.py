"""Independent tasks of a workflow, and tasks that no workflow runs."""

from __future__ import annotations

import json
import sys

import pytest

from airflow_provider_sewer import Task, load_workflow, run
from airflow_provider_sewer.core.errors import InvalidWorkflow

HEAD = """from airflow_provider_sewer import Task, run, workflow
a, b, c, d = (Task(name, "m") for name in "abcd")
"""


@pytest.fixture
def load(tmp_path):
    """Load a workflow file of a text."""

    def load_it(text: str, name: str | None = None):
        (tmp_path / "flow.py").write_text(HEAD + text)
        return load_workflow(tmp_path / "flow.py", name)

    return load_it


@pytest.mark.parametrize(
    ("body", "edges"),
    [
        ("run(a, b, c, d)", []),
        ("run(a >> b, c, d)", [("a", "b")]),
        ("run([a, b], c >> d)", [("c", "d")]),
        ("run(a, b); run(c, d)", [("a", "c"), ("b", "c"), ("a", "d"), ("b", "d")]),
    ],
)
def test_run_takes_independent_tasks_in_named_workflow(body: str, edges, load) -> None:
    found = load(f"@workflow\ndef nightly():\n    {body}\n")

    assert (found.name, list(found.tasks)) == ("nightly", ["a", "b", "c", "d"])
    assert found.edges == edges


def test_run_takes_settings(load) -> None:
    found = load("@workflow\ndef nightly():\n    run(a, b, c, d, env={'A': 1})\n")

    assert found.tasks["c"].settings.env == {"A": "1"}


def test_run_runs_tasks_as_plain_python(tmp_path) -> None:
    code = "import os; open(os.environ['NAME'], 'w').close()"
    (tmp_path / "touch_it.py").write_text(code)
    tasks = [Task(name, "touch_it", env={"NAME": name}) for name in ("one", "two")]

    run(*tasks, path_to_python=sys.executable, workdir=tmp_path)

    assert {"one", "two"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(("operands", "words"), [((), "run() requires at least one task"), ((3,), "got 3 (int)")])
def test_run_rejects_other_operands(operands, words: str) -> None:
    with pytest.raises(InvalidWorkflow) as error:
        run(*operands)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("text", "unused"),
    [
        ("@workflow\ndef one():\n    run(a, b)\n", ["c", "d"]),
        ("@workflow\ndef one():\n    run(a, b)\n@workflow\ndef two():\n    c.run()\n", ["d"]),
        ("@workflow\ndef one():\n    run(a, b)\n@workflow\ndef two(n):\n    c.run()\n", []),
        ("@workflow\ndef one():\n    run(a, b, c, d)\n", []),
        ("e = a.map(n=[1, 2])\n@workflow\ndef one():\n    run(b, c, d, list(e))\n", []),
    ],
)
def test_workflow_names_tasks_that_no_workflow_runs(text: str, unused: list[str], load) -> None:
    found = load(text, "one")

    assert [task.name for task in found.unused] == unused


def test_json_of_runs_has_all_tasks(load) -> None:
    from airflow_provider_sewer.exporters.workflow_json import to_json

    data = json.loads(to_json(load("@workflow\ndef nightly():\n    run(a, b, c, d)\n")))

    assert (data["name"], len(data["tasks"]), data["edges"]) == ("nightly", 4, [])
