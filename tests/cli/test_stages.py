"""`sppe` takes stages in YAML wherever it takes a Python file."""

from __future__ import annotations

import json

import pytest

from airflow_provider_sewer.loaders.workflow_files import schema_of_stages


@pytest.fixture
def stages(sppe):
    """Return `sppe` in a folder with two stages and their jobs module."""
    sppe.write("stages.yaml", "Lint: []\nTest: [Lint]\n")
    sppe.write("jobs.py", "def Lint(): print('lints')\ndef Test(): return {'passed': 3}\n")
    return sppe


OF_IT = ("-p", "stages.yaml", "--jobs", "jobs")


def test_show_prints_stages(stages) -> None:
    """`sppe show` draws them; its JSON has their lines."""
    tree = stages.run("show", *OF_IT)
    plain = stages.run("show", *OF_IT, "--format", "json")

    assert tree.stdout.split() == ["workflow", "Lint", "jobs:Lint", "└──", "Test", "jobs:Test"]
    assert [(task["function"], task["line"]) for task in json.loads(plain.stdout)["tasks"]] == [
        ("jobs:Lint", 1),
        ("jobs:Test", 2),
    ]


@pytest.mark.parametrize("more", [(), ("-w", "workflow")], ids=["all", "a workflow"])
def test_convert_writes_stages(more, stages) -> None:
    """`sppe convert` writes a configuration for each, in the folder where the jobs module lies."""
    done = stages.run("convert", *OF_IT, *more, "--to", "vscode", "--print-only")

    configurations = json.loads(done.stdout)["configurations"]
    assert [(each["name"], each["cwd"]) for each in configurations] == [
        ("Lint", "${workspaceFolder}"),
        ("Test", "${workspaceFolder}"),
    ]


def test_explain_prints_stages(stages) -> None:
    """`sppe explain` prints which of them a run would run."""
    done = stages.run("explain", *OF_IT)

    assert [line.split() for line in done.stdout.splitlines()] == [
        [name, "runs", "it", "always", "runs"] for name in ("Lint", "Test")
    ]


def test_run_uses_jobs_module_of_file(stages) -> None:
    """In the long form, the file has all settings."""
    stages.write("long.yml", "jobs: jobs\nstages:\n  Test: {}\n  report: {module: json.tool, args: [in.json]}\n")
    stages.write("in.json", "[1]")

    done = stages.run("--", "run", "-p", "long.yml")

    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == ["[report] " + line for line in ("    1", "[", "]")]


def test_run_passes_products_and_results_between_stages(stages) -> None:
    """A product is made whole, a result is handed on, and a second run finds that nothing has to be made again."""
    stages.write(
        "flow.yaml",
        """
        jobs: steps
        defaults: {run_when: stale}
        stages:
          use:
            kwargs: {src: !dependency build/numbers, dst: !product build/sum, seed: !result make.seed, jobs: !ignored 1}
          make:
            kwargs: {dst: !product {path: build/numbers}, n: 3}
        """,
    )
    stages.write(
        "steps.py",
        """
        from pathlib import Path

        def make(dst, n):
            assert dst != "build/numbers"
            Path(dst).write_text(" ".join(map(str, range(n))))
            return {"seed": 40}

        def use(src, dst, seed, jobs):
            Path(dst).write_text(str(seed + sum(map(int, Path(src).read_text().split())) - jobs))
        """,
    )

    first = stages.run("--", "run", "-p", "flow.yaml")
    stages.write("flow.yaml", (stages.folder / "flow.yaml").read_text().replace("!ignored 1", "!ignored 2"))
    second = stages.run("--", "run", "-p", "flow.yaml")

    assert first.returncode == 0, first.stderr
    assert (stages.folder / "build" / "sum").read_text() == "42"
    assert "\n2 of 2 tasks succeeded, 2 of them without running, in " in second.stderr


def test_schema_prints_json_schema(sppe) -> None:
    """`sppe schema > stages.schema.json` makes a file that editors can be pointed to."""
    done = sppe.run("schema")

    assert done.returncode == 0
    assert json.loads(done.stdout) == json.loads(schema_of_stages())
