"""Faults in a file with stages are named, with the fix."""

from __future__ import annotations

import pytest

from airflow_provider_sewer import SewerError, load_workflow
from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow, WorkflowFileError
from airflow_provider_sewer.loaders.stages.layout import DEFAULT_FIELDS, STAGE_FIELDS

from .stage_cases import fails

NO_YAML = {
    "a tab": (
        "Lint:\n\t- Test",
        (
            "2:1: invalid YAML: while scanning for the next token: found character '\\t' that "
            "cannot start any token; use spaces instead of tabs"
        ),
    ),
    "an open list": (
        "Lint: [Test",
        ("1:12: invalid YAML: while parsing a flow sequence: expected ',' or ']', but got '<stream end>'"),
    ),
    "two documents": (
        "Lint: []\n---\nTest: []",
        ("2:1: invalid YAML: expected a single document in the stream: but found another document"),
    ),
    "an unknown anchor": ("Lint: *tests", "1:7: invalid YAML: found undefined alias 'tests'"),
    "a bell": ("Lint: []\nTest: \a", "2:7: invalid YAML: character '\\x07' is not allowed"),
    "Latin-1": ("Lint: []\nTést: []".encode("latin-1"), "2:2: the file is not valid UTF-8"),
    "a list": ("- Lint", "1:1: the file must be a mapping, got a list"),
    "text": ("Lint", "1:1: the file must be a mapping, got 'Lint'"),
    "no stage": ("{}", "1:1: the file has no stages; add at least one, e.g. 'Lint: []'"),
    "no stage below stages": ("stages: {}", "1:9: there are no stages; add at least one, e.g. 'Lint: []'"),
    "a stage twice": (
        "Lint: []\nTest: []\nLint: [Test]",
        "3:1: duplicate key 'Lint', first used in line 1; remove one of them",
    ),
    "a field twice": (
        "Lint: {env: {A: 1, A: 2}}",
        ("1:20: duplicate key 'A', first used in line 1; remove one of them"),
    ),
    "a list as key": ("? [Lint]\n: []", "1:3: a key must be a string, got a list"),
    "a template without quotes": (
        "Lint: {kwargs: {day: {{ ds }}}}",
        "1:23: a key must be a string, got a mapping; a template needs quotes: '{{ … }}'",
    ),
    "an unknown tag": (
        "Lint: {kwargs: {a: !produkt b}}",
        (
            "1:20: unknown tag '!produkt'; did you mean '!product'? "
            "Known: '!product', '!dependency', '!external', '!ignored', '!result', '!timedelta'."
        ),
    ),
    "a Python object": (
        "Lint: {kwargs: {a: !!python/name:os.system ''}}",
        "1:20: unknown tag !!python/name:os.system; remove it",
    ),
    "a text for a number": ("Lint: {kwargs: {a: !!int many}}", "1:20: 'many' is not a valid !!int"),
    "value that contains itself": ("Lint: {kwargs: {a: &a [*a]}}", "1:20: the value contains itself"),
    "a merge of itself": ("Lint: &a {kwargs: {a: 1}, <<: *a}", "1:7: the value contains itself"),
}


@pytest.mark.parametrize(("text", "message"), NO_YAML.values(), ids=NO_YAML)
def test_load_stages_rejects_invalid_yaml_with_line_and_column(text, message, stages):
    """No traceback, and of YAML's own long messages only the fault."""
    fails(stages(text), f"{{f}}:{message}")


def test_load_stages_rejects_empty_file(stages):
    """Also one that holds comments only."""
    fails(stages("# nothing yet"), "{f}: the file is empty")


def test_load_stages_limits_nesting_depth(stages):
    """Python itself would give up with a traceback of a thousand lines."""
    fails(stages("Lint: " + "[" * 5000), "{f}:1:105: the value is nested too deeply")


def test_load_stages_limits_alias_expansion(stages):
    """Eight lists of ten values would give a hundred million tasks; usual numbers are accepted."""
    lists = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 8)]
    bomb = "Lint:\n  kwargs:\n    a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n    " + "\n    ".join(lists)

    fails(stages(bomb), "{f}:7:9: aliases expand to more than 100,000 values; have a stage read them from a file")
    assert len(load_workflow(stages(bomb.partition("    a4")[0]), jobs="jobs").tasks["Lint"].kwargs) == 4


def test_load_stages_limits_mapped_tasks(stages):
    """Of one stage, or of several together; no task is made of them."""
    lists = [f"v{number}: {list(range(10))}" for number in range(9)]
    limit = "stages must be mapped to at most 100,000 tasks, got"
    one = stages(f"Lint: {{map_product: {{{', '.join(lists)}}}}}")
    with pytest.raises(InvalidTask, match=rf"\.yaml:1:\d+: task 'Lint': {limit} 1,000,000,000; map over fewer values"):
        load_workflow(one, jobs="jobs")
    two = stages(f"Lint: {{map: {{n: [1]}}}}\nTest: {{map_product: {{{', '.join(lists[:5])}}}}}")
    with pytest.raises(InvalidTask, match=rf"\.yaml:2:\d+: task 'Test': {limit} 100,001; map over fewer values"):
        load_workflow(two, jobs="jobs")


BAD_STAGES = {
    "an unknown stage": (
        "Lint: []\nTest:\n  - Lnt",
        ("3:5: stage 'Test' depends on an unknown stage 'Lnt'; did you mean 'Lint'? Known: 'Lint', 'Test'."),
        InvalidWorkflow,
    ),
    "an unknown stage in depends_on": (
        "Lint: {depends_on: Tst}\nTest: []",
        ("1:20: stage 'Lint' depends on an unknown stage 'Tst'; did you mean 'Test'? Known: 'Lint', 'Test'."),
        InvalidWorkflow,
    ),
    "a circle": (
        "Lint: [Test]\nTest: [Lint]",
        (
            "2:8: Cyclic dependency:\n  Lint   ({f}:1:1)\n    "
            "↓\n  Test   ({f}:2:1)\n    ↓\n  Lint   (again)\nRemove one of these edges."
        ),
        InvalidWorkflow,
    ),
    "an unknown field": (
        "Lint:\n  modul: x",
        "2:3: unknown field of a stage 'modul'; did you mean 'module'? Known: "
        + ", ".join(map(repr, STAGE_FIELDS))
        + ".",
        InvalidTask,
    ),
    "a bad module": (
        "Lint:\n  module: lint.py",
        (
            "2:11: task 'Lint': module must be a dotted name such as "
            "'package.module', got 'lint.py'; a file cannot be run, only an installed module: 'lint'?"
        ),
        InvalidTask,
    ),
    "a bad parameter": (
        "Lint:\n  module: m\n  parameters_and_flags:\n    a b: 1",
        (
            "4:5: task 'Lint': parameter 'a b': write the bare name, such as 'batch_size', "
            "without leading dash, space or '='"
        ),
        InvalidTask,
    ),
    "a bad amount": (
        "Lint:\n  resources:\n    cpu: 1\n    gpu: none",
        ("4:10: task 'Lint': resources: 'gpu' must be a whole number of at least 1, got 'none'"),
        InvalidTask,
    ),
    "a bad Slurm parameter": (
        "Lint:\n  slurm: {partition: gpu, mem_gb: 0}",
        ("2:35: task 'Lint': slurm: mem_gb must be at least one megabyte, in gigabytes, got 0"),
        InvalidTask,
    ),
    "a mode": (
        "Lint: {run_when: sometimes}",
        ("1:18: task 'Lint': run_when must be one of 'always', 'missing', 'stale', 'never'; got 'sometimes'"),
        InvalidTask,
    ),
    "an option of a product": (
        "Lint: {products: !product {path: a, atomc: true}}",
        (
            "1:37: unknown option of !product "
            "'atomc'; did you mean 'atomic'? Known: 'path', 'atomic', 'temporary', 'on_failure', 'ignored'."
        ),
        InvalidTask,
    ),
    "a product without path": (
        "Lint: {products: [!product {atomic: true}]}",
        ("1:19: !product: the path is missing; write !product {path: …}"),
        InvalidTask,
    ),
    "a bad path": (
        "Lint: {products: [a, !product ..]}",
        "1:22: Product must name a file or directory, got '..'",
        InvalidTask,
    ),
    "a result of no task": (
        "Lint: {kwargs: {a: !result Tst.x}}\nTest: []",
        ("1:20: !result: unknown stage 'Tst'; did you mean 'Test'? Known: 'Lint', 'Test'."),
        InvalidWorkflow,
    ),
    "a part of a result": (
        "Lint: []\nTest: {kwargs: {a: !result {stage: Lint, keys: seed}}}",
        ("2:48: !result: keys must be a list of keys and positions, got 'seed'"),
        InvalidTask,
    ),
    "results in a circle": (
        "Lint: {kwargs: {a: !result Test}}\nTest: {kwargs: {a: !result Lint}}",
        ("2:20: cyclic dependency of stages: 'Test' → 'Lint' → 'Test'; remove one of these dependencies"),
        InvalidWorkflow,
    ),
    "no function of that name": (
        "Lint: []\nTset: []",
        (
            "2:1: stage 'Tset' has no function in {d}/jobs.py: unknown "
            "function 'Tset'; did you mean 'Test'? Known: 'Lint', 'Test'."
        ),
        InvalidTask,
    ),
    "another case": (
        "lint: []",
        (
            "1:1: stage 'lint' has no function in {d}/jobs.py: unknown function 'lint'; did you "
            "mean 'Lint'? Known: 'Lint', 'Test'."
        ),
        InvalidTask,
    ),
    "a named function that is not there": (
        "Lint: {function: clean}",
        ("1:18: stage 'Lint' has no function in {d}/jobs.py: unknown function 'clean'. Known: 'Lint', 'Test'."),
        InvalidTask,
    ),
    "no name of a function": (
        "Unit tests: []",
        ("1:1: stage 'Unit tests': 'Unit tests' is not a valid function name; set the field 'function'"),
        InvalidTask,
    ),
    "a field at the top": (
        "stages:\n  Lint: []\njob: jobs",
        (
            "3:1: unknown field of the file 'job'; did you mean "
            "'jobs'? Known: 'name', 'doc', 'jobs', 'defaults', 'stages'."
        ),
        InvalidTask,
    ),
    "a default that is none": (
        "defaults:\n  module: m\nstages:\n  Lint: []",
        "2:3: unknown field in defaults 'module'. Known: " + ", ".join(map(repr, DEFAULT_FIELDS)) + ".",
        InvalidTask,
    ),
    "a bad default": (
        "defaults:\n  env: {A B: 1, C: []}\nstages:\n  Lint: []",
        ("2:20: task 'Lint': env: the value of 'C' must be text or a number, got list"),
        InvalidTask,
    ),
    "a bad jobs module": (
        "jobs: jobs.py\nstages:\n  Lint: []",
        ("1:7: jobs must be a module name such as 'foo_jobs', got 'jobs.py'; did you mean 'jobs'?"),
        InvalidWorkflow,
    ),
}


@pytest.mark.parametrize(("text", "message", "kind"), BAD_STAGES.values(), ids=BAD_STAGES)
def test_load_stages_rejects_invalid_stage_with_line_and_column(text, message, kind, stages):
    """With its message and position."""
    fails(stages(text), f"{{f}}:{message}", kind)


def test_load_stages_without_jobs_module_has_hint(stages):
    """The first one that needs it is named."""
    fails(
        stages("load: {module: m}\nLint: []"),
        "{f}:2:1: stage 'Lint' needs a jobs module, but none is set; set one with --jobs, with jobs=… in Python, or "
        "give the stage a module or a function 'package.module:function'",
        InvalidTask,
        jobs=None,
    )


def test_load_stages_rejects_invalid_jobs_module(stages):
    """A path is probably meant as jobs."""
    fails(
        stages("Lint: []"),
        "{f}: jobs must be a module name such as 'foo_jobs', got './jobs.py'; did you mean 'jobs'?",
        InvalidWorkflow,
        jobs="./jobs.py",
    )


def test_load_workflow_rejects_jobs_for_python_file(write):
    """There, each task has its own module or function."""
    path = write("Task('a', 'm')")
    message = f"{path}: jobs requires stages in YAML; in a Python file, set module or function of each task"
    fails(path, message, SewerError)


def test_load_stages_rejects_unknown_workflow(stages):
    """As in a Python file."""
    path = stages("Lint: []")
    with pytest.raises(WorkflowFileError, match=r"stages\.yaml: unknown workflow 'nightly'\. Known: 'workflow'\."):
        load_workflow(path, "nightly", jobs="jobs")


@pytest.mark.parametrize(
    "jobs",
    ["from lib import *", "for name in ['Lint']:\n    globals()[name] = print", "def __getattr__(name): ...",
     "import lib as Lint", "if True:\n    async def Lint(): ...", "Lint = print", "this is no Python"],
    ids=["star", "globals", "getattr", "import", "condition", "variable", "syntax"],
)  # fmt: skip
def test_load_stages_accepts_function_that_may_be_dynamic(jobs, stages):
    """Functions come into modules in many ways, and whether one is there shows when it is called."""
    assert load_workflow(stages("Lint: []", jobs), jobs="jobs").tasks["Lint"].function == "jobs:Lint"


def test_load_stages_finds_jobs_package_in_folder(write, tmp_path):
    """Also below folders, by its dotted name."""
    write("def Lint(): ...", "pkg/jobs/__init__.py", imports="")
    path = write("Lnt: []", "stages.yaml", imports="")

    fails(
        path,
        "{f}:1:1: stage 'Lnt' has no function in {d}/pkg/jobs/__init__.py: unknown function 'Lnt'; did you mean "
        "'Lint'? Known: 'Lint'.",
        InvalidTask,
        jobs="pkg.jobs",
    )
