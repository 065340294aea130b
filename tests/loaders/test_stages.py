"""Stages in YAML: the forms of a file, and the types of its values."""

from __future__ import annotations

import json

from airflow_provider_sewer import load_workflow
from airflow_provider_sewer.loaders.workflow_files import load_tasks


def test_load_stages_uses_function_of_stage_name(stages):
    """In any letter case, as in python-dag-pipeline; the stages before it are a list."""
    path = stages("Lint: []\nTest:\n  - Lint\n")

    graph = load_workflow(path, jobs="jobs")

    assert {name: task.function for name, task in graph.tasks.items()} == {"Lint": "jobs:Lint", "Test": "jobs:Test"}
    assert graph.edges == [("Lint", "Test")]
    assert graph.name == "workflow"


def test_depends_on_accepts_null_and_single_name(stages):
    """``Lint:`` depends on nothing, ``Test: Lint`` on one stage."""
    assert load_workflow(stages("Lint:\nTest: Lint"), jobs="jobs").edges == [("Lint", "Test")]


def test_load_stages_accepts_any_stage_name(stages):
    """Also like another YAML type, and like the fields at the top of the long form."""
    path = stages(
        "On: []\nnull: [On]\nstages: []\nname: [stages]\nworkflows: {kwargs: {a: {b: 1}}}",
        "def On(): ...\nnull = stages = name = workflows = On\n",
    )

    assert load_workflow(path, jobs="jobs").edges == [("On", "null"), ("stages", "name")]


def test_load_stages_sets_workdir_to_folder_of_jobs_module(stages, tmp_path):
    """There Python finds the module. Where it is installed, they run where the run is started."""
    path = stages("Lint: []")

    assert load_workflow(path, jobs="jobs").tasks["Lint"].settings.workdir == str(tmp_path / ".") + "/."
    assert load_workflow(path, jobs="json").tasks["Lint"].settings.workdir is None


def test_load_stages_sets_source_of_task(stages):
    """Line and column of its key, as editors open them."""
    path = stages("# all\nLint: []\nTest: []")

    assert str(load_workflow(path, jobs="jobs").tasks["Test"].source) == f"{path}:3:1"


def test_yaml_file_keeps_implicit_types_as_text(write):
    """A bool, a time, a date or an octal number of YAML 1.1 is text; numbers, true and null are not."""
    path = write("""
        a:
          function: m:f
          kwargs:
            text: [no, On, 1:30:00, 2024-01-01, 007, 1_000, 0x10, .inf, "1", <<]
            data: [1, -2, +3, 1.5, .5, 1e-3, true, False, null, ~, !ignored 5, !ignored "5"]
    """, "s.yaml", imports="")  # fmt: skip

    kwargs = load_workflow(path).tasks["a"].kwargs

    assert kwargs["text"] == ["no", "On", "1:30:00", "2024-01-01", "007", "1_000", "0x10", ".inf", "1", "<<"]
    *plain, number, text = kwargs["data"]
    assert json.dumps(plain) == "[1, -2, 3, 1.5, 0.5, 0.001, true, false, null, null]"
    assert (number.value, text.value) == (5, "5")


def test_yaml_file_supports_anchors_and_merges(write):
    """As in any YAML; a stage's own fields override merged ones."""
    path = write("""
        a: &common
          module: m
          env: &env {A: 1, B: 1}
        b:
          <<: *common
          env: {<<: *env, B: 2}
    """, "s.yml", imports="")  # fmt: skip

    b = load_workflow(path).tasks["b"]

    assert (b.module, b.settings.env) == ("m", {"A": "1", "B": "2"})


def test_result_tag_uses_longest_stage_name(write):
    """Names may hold dots; and a stage may take the result of one that stands below it."""
    path = write("""
        use: {function: "m:f", kwargs: {x: !result a.b.rows.0, y: !result a}}
        a: {function: "m:f"}
        a.b: {function: "m:f"}
    """, "s.yaml", imports="")  # fmt: skip

    graph = load_workflow(path)

    assert [repr(result) for result in graph.tasks["use"].results] == ["a.b.result['rows'][0]", "a.result"]
    assert graph.edges == [("a.b", "use"), ("a", "use")]


def test_load_stage_tasks_returns_tasks_of_all_workflows(stages):
    """For ``sppe convert``, which asks for the tasks of a file."""
    tasks = load_tasks(stages("Lint: []\nTest: []"), jobs="jobs")

    assert [task.name for task in tasks] == ["Lint", "Test"]


def test_stages_loaded_by_python_file_are_not_recorded(write):
    """A Python file may load stages, and has its own tasks all the same."""
    write("Lint: []", "stages.yaml", imports="")
    path = write("""
        from pathlib import Path
        from airflow_provider_sewer import load_workflow
        other = load_workflow(Path(__file__).parent / "stages.yaml", jobs="jobs")
        Task("own", "m", {"other": list(other.tasks)})
    """)

    assert load_workflow(path).tasks["own"].arguments() == ["--other", "Lint"]
    assert list(load_workflow(path).tasks) == ["own"]


def test_load_stages_supports_chain_of_1000_results(write):
    """Each stage takes the result of the one below it."""
    lines = [f"s{i}: {{function: 'm:f', kwargs: {{x: !result s{i + 1}}}}}" for i in range(1000)]
    path = write("\n".join([*lines, "s1000: {function: 'm:f'}"]), "s.yaml", imports="")

    assert load_workflow(path).order == tuple(f"s{i}" for i in range(1000, -1, -1))
