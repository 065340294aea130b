"""Stages in YAML: the short form, the form with all fields of a task, and what is said of mistakes in them."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml

from airflow_provider_sewer import Dependency, External, Ignored, Product, SewerError, load_workflow
from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow, WorkflowFileError
from airflow_provider_sewer.core.task import FIELDS
from airflow_provider_sewer.readers.files import SCHEMA, load_tasks
from airflow_provider_sewer.readers.stages import DEFAULT_FIELDS, STAGE_FIELDS, TOP_FIELDS

#: Each way to say something, in the form that has a place for all of them.
EVERYTHING = """\
name: digits
doc: From noise to numbers.
jobs: jobs
defaults:
  python: ../venv/bin/python
  env: {LEVEL: 1, SHARED: "yes"}
  slurm: {partition: gpu, mem_gb: 8}
stages:
  generate:
    module: digits.generate
    args: [fast]
    parameters_and_flags:
      out: !product build/raw.npz
      n: 500
      verbose: true
      threads: !ignored 4
    use_underscores: true
    doc: Makes noise.
    resources: {gpu: 1}
    tags: [first, nightly]
    group: data.raw
  noise model:
    function: noise
    kwargs:
      src: !dependency build/raw.npz
      dst: !product {path: build/noisy.npz, atomic: false, temporary: true, on_failure: remove}
      seed: !result generate.seed
      first: !result {stage: generate, keys: [rows, 0]}
    env: {LEVEL: 2}
    workdir: data
    inherit_env: [CUDA_HOME]
  train:
    depends_on: [noise model]
    dependencies: [!external {path: /data/labels.csv, timeout: 60}, build/noisy.npz]
    products: model.bin
    run_when: stale
    compare: content
    stale_with: [code]
    operator_kwargs: {retries: 2}
    run_on: slurm
    slurm: {mem_gb: 16, time: 1:30:00}
"""


@pytest.fixture
def stages(write):
    """Return a function that writes stages beside a jobs module, and returns their path."""

    def stages(text: str, jobs: str = "def Lint(): ...\ndef Test(): ...\n", name: str = "stages.yaml"):
        write(jobs, "jobs.py", imports="")
        return write(text, name, imports="")

    return stages


def fails(path, message: str, kind: type[SewerError] = WorkflowFileError, jobs: str | None = "jobs") -> None:
    """Check that loading fails with this, and nothing but this, message (``{f}`` is the file)."""
    with pytest.raises(SewerError) as caught:
        load_workflow(path, jobs=jobs)
    assert str(caught.value) == message.replace("{f}", str(path)).replace("{d}", str(path.parent))
    assert type(caught.value) is kind


def test_a_stage_is_the_function_of_its_name(stages):
    """Whatever the case of its letters, as python-dag-pipeline has it; the stages before it are a list."""
    path = stages("Lint: []\nTest:\n  - Lint\n")

    graph = load_workflow(path, jobs="jobs")

    assert {name: task.function for name, task in graph.tasks.items()} == {"Lint": "jobs:Lint", "Test": "jobs:Test"}
    assert graph.edges == [("Lint", "Test")]
    assert graph.name == "workflow"


def test_nothing_and_a_single_name_stand_for_lists(stages):
    """``Lint:`` depends on nothing, ``Test: Lint`` on one stage."""
    assert load_workflow(stages("Lint:\nTest: Lint"), jobs="jobs").edges == [("Lint", "Test")]


def test_a_stage_may_be_named_like_anything(stages):
    """Also like what YAML takes for something else, and like the fields at the top of the long form."""
    path = stages("On: []\nnull: [On]\nstages: []\nname: [stages]\n", "def On(): ...\nnull = stages = name = On\n")

    assert load_workflow(path, jobs="jobs").edges == [("On", "null"), ("stages", "name")]


def test_stages_beside_their_jobs_run_in_that_folder(stages, tmp_path):
    """There Python finds the module. Where it is installed, they run where the run is started."""
    path = stages("Lint: []")

    assert load_workflow(path, jobs="jobs").tasks["Lint"].settings.workdir == str(tmp_path / ".") + "/."
    assert load_workflow(path, jobs="json").tasks["Lint"].settings.workdir is None


def test_a_task_knows_its_place_in_the_file(stages):
    """Line and column of its key, as editors open them."""
    path = stages("# all\nLint: []\nTest: []")

    assert str(load_workflow(path, jobs="jobs").tasks["Test"].source) == f"{path}:3:1"


def test_all_that_a_python_file_says_can_be_said(write, tmp_path):
    """The same tasks, field by field, whichever file they are written in."""
    write("def noise(): ...\ndef train(): ...", "jobs.py", imports="")
    python = write("""
        from airflow_provider_sewer import Dependency, External, Ignored, Product, Task

        around = {"python": "../venv/bin/python"}
        generate = Task(
            "generate", "digits.generate", args=["fast"], use_underscores=True, doc="Makes noise.", workdir=".",
            parameters_and_flags={"out": Product("build/raw.npz"), "n": 500, "verbose": True, "threads": Ignored(4)},
            resources={"gpu": 1}, env={"LEVEL": 1, "SHARED": "yes"}, slurm={"partition": "gpu", "mem_gb": 8}, **around,
            tags=["first", "nightly"], group="data.raw",
        )
        noise = Task(
            "noise model", function="jobs:noise", kwargs={
                "src": Dependency("build/raw.npz"),
                "dst": Product("build/noisy.npz", atomic=False, temporary=True, on_failure="remove"),
                "seed": generate.result["seed"],
                "first": generate.result["rows"][0],
            },
            env={"LEVEL": 2, "SHARED": "yes"}, workdir="data", inherit_env=["CUDA_HOME"],
            slurm={"partition": "gpu", "mem_gb": 8}, **around,
        )
        train = Task(
            "train", function="jobs:train", depends_on="noise model", workdir=".",
            dependencies=[External("/data/labels.csv", timeout=60), "build/noisy.npz"], products="model.bin",
            run_when="stale", compare="content", stale_with=["code"], operator_kwargs={"retries": 2}, run_on="slurm",
            env={"LEVEL": 1, "SHARED": "yes"}, slurm={"partition": "gpu", "mem_gb": 16, "time": "1:30:00"}, **around,
        )
    """, imports="")  # fmt: skip
    stages = write(EVERYTHING, "stages.yaml", imports="")

    graph, expected = load_workflow(stages), load_workflow(python)

    assert (graph.name, graph.doc) == ("digits", "From noise to numbers.")
    assert graph.why.reasons == expected.why.reasons
    for name, task in graph.tasks.items():
        said = {field: getattr(task, field) for field in vars(task) if field not in ("source", "identity")}
        other = expected.tasks[name]
        assert said == {field: getattr(other, field) for field in said}
        assert [vars(product) for product in task.products] == [vars(product) for product in other.products]
        assert task.parameters_and_flags.get("threads", Ignored(4)).value == 4


def test_text_stays_text(write):
    """What YAML 1.1 takes for a bool, a time, a date or an octal number is text; numbers, true and null are not."""
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


def test_anchors_and_merges_save_repetition(write):
    """As in any YAML; what a stage says itself wins over what it merges."""
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


def test_a_result_is_taken_by_the_longest_name_of_a_stage(write):
    """Names may hold dots; and a stage may take the result of one that stands below it."""
    path = write("""
        use: {function: "m:f", kwargs: {x: !result a.b.rows.0, y: !result a}}
        a: {function: "m:f"}
        a.b: {function: "m:f"}
    """, "s.yaml", imports="")  # fmt: skip

    graph = load_workflow(path)

    assert [repr(result) for result in graph.tasks["use"].results] == ["a.b.result['rows'][0]", "a.result"]
    assert graph.edges == [("a.b", "use"), ("a", "use")]


def test_all_tasks_of_stages_can_be_had(stages):
    """For ``sppe convert``, which asks for the tasks of a file."""
    tasks = load_tasks(stages("Lint: []\nTest: []"), jobs="jobs")

    assert [task.name for task in tasks] == ["Lint", "Test"]


def test_stages_that_a_python_file_loads_are_not_its_own(write):
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


def test_a_thousand_results_in_a_row_are_read(write):
    """Each stage takes the result of the one below it."""
    lines = [f"s{i}: {{function: 'm:f', kwargs: {{x: !result s{i + 1}}}}}" for i in range(1000)]
    path = write("\n".join([*lines, "s1000: {function: 'm:f'}"]), "s.yaml", imports="")

    assert load_workflow(path).order == tuple(f"s{i}" for i in range(1000, -1, -1))


NO_YAML = {
    "a tab": (
        "Lint:\n\t- Test",
        (
            "2:1: this is no YAML: while scanning for the next token: found character '\\t' that "
            "cannot start any token; YAML wants spaces there, no tab"
        ),
    ),
    "an open list": (
        "Lint: [Test",
        ("1:12: this is no YAML: while parsing a flow sequence: expected ',' or ']', but got '<stream end>'"),
    ),
    "two documents": (
        "Lint: []\n---\nTest: []",
        ("2:1: this is no YAML: expected a single document in the stream: but found another document"),
    ),
    "an unknown anchor": ("Lint: *tests", "1:7: this is no YAML: found undefined alias 'tests'"),
    "a bell": ("Lint: []\nTest: \a", "2:7: this is no YAML: '\\x07' cannot stand in it"),
    "Latin-1": ("Lint: []\nTést: []".encode("latin-1"), "2:2: this is no text in UTF-8"),
    "a list": ("- Lint", "1:1: the file: a mapping is needed, not a list"),
    "text": ("Lint", "1:1: the file: a mapping is needed, not 'Lint'"),
    "no stage": ("{}", "1:1: the file has no stages; write at least one, such as 'Lint: []'"),
    "no stage below stages": ("stages: {}", "1:1: the file has no stages; write at least one, such as 'Lint: []'"),
    "a stage twice": (
        "Lint: []\nTest: []\nLint: [Test]",
        "3:1: 'Lint' is here a second time, after line 1; take one of them out",
    ),
    "a field twice": (
        "Lint: {env: {A: 1, A: 2}}",
        ("1:20: 'A' is here a second time, after line 1; take one of them out"),
    ),
    "a list as key": ("? [Lint]\n: []", "1:3: a key is text, not a list"),
    "a template without quotes": (
        "Lint: {kwargs: {day: {{ ds }}}}",
        "1:23: a key is text, not a mapping; a template needs quotes: '{{ … }}'",
    ),
    "an unknown tag": (
        "Lint: {kwargs: {a: !produkt b}}",
        (
            "1:20: unknown tag '!produkt'; did you mean '!product'? "
            "Known: '!product', '!dependency', '!external', '!ignored', '!result'."
        ),
    ),
    "a Python object": (
        "Lint: {kwargs: {a: !!python/name:os.system ''}}",
        "1:20: !!python/name:os.system is not known here; take it out",
    ),
    "a text for a number": ("Lint: {kwargs: {a: !!int many}}", "1:20: !!int: 'many' is none"),
    "what holds itself": ("Lint: {kwargs: {a: &a [*a]}}", "1:20: this holds itself"),
    "a merge of itself": ("Lint: &a {kwargs: {a: 1}, <<: *a}", "1:7: this holds itself"),
}


@pytest.mark.parametrize(("text", "said"), NO_YAML.values(), ids=NO_YAML)
def test_what_is_no_yaml_is_named_by_line_and_column(text, said, stages):
    """No traceback, and nothing of YAML's own long messages but what is wrong."""
    fails(stages(text), f"{{f}}:{said}")


def test_an_empty_file_is_named(stages):
    """Also one that holds comments only."""
    fails(stages("# nothing yet"), "{f}: the file is empty")


def test_a_file_that_is_nested_too_deeply_is_named(stages):
    """Python itself would give up with a traceback of a thousand lines."""
    fails(stages("Lint: " + "[" * 5000), "{f}: this is nested too deeply")


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
            " these tasks wait for each other in a circle:\n  Lint   ({f}:1:1)\n    "
            "↓\n  Test   ({f}:2:1)\n    ↓\n  Lint   (again)\nTake one of these edges out."
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
            "2:11: task 'Lint': module: 'lint.py' is no dotted name such as "
            "'package.module'; a file cannot be run, only an installed module: 'lint'?"
        ),
        InvalidTask,
    ),
    "a bad parameter": (
        "Lint:\n  module: m\n  parameters_and_flags:\n    a b: 1",
        (
            "4:10: task 'Lint': parameter 'a b': write the bare name, such as 'batch_size'; no leading "
            "dash, space or '='"
        ),
        InvalidTask,
    ),
    "a bad amount": (
        "Lint:\n  resources:\n    cpu: 1\n    gpu: none",
        ("4:10: task 'Lint': resources: 'gpu': a whole number from 1 up is needed, not 'none'"),
        InvalidTask,
    ),
    "a bad Slurm parameter": (
        "Lint:\n  slurm: {partition: gpu, mem_gb: 0}",
        ("2:35: task 'Lint': slurm: mem_gb: gigabytes, at least one megabyte, are needed, not 0"),
        InvalidTask,
    ),
    "a mode": (
        "Lint: {run_when: sometimes}",
        ("1:18: task 'Lint': run_when: 'always', 'missing', 'stale', 'never' are possible, not 'sometimes'"),
        InvalidTask,
    ),
    "an option of a product": (
        "Lint: {products: !product {path: a, atomc: true}}",
        (
            "1:37: unknown option of !product "
            "'atomc'; did you mean 'atomic'? Known: 'path', 'atomic', 'temporary', 'on_failure'."
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
        "1:22: Product: '..' names no file or directory of its own",
        InvalidTask,
    ),
    "a result of nobody": (
        "Lint: {kwargs: {a: !result Tst.x}}\nTest: []",
        ("1:20: !result: unknown stage 'Tst'; did you mean 'Test'? Known: 'Lint', 'Test'."),
        InvalidWorkflow,
    ),
    "a part of a result": (
        "Lint: []\nTest: {kwargs: {a: !result {stage: Lint, keys: seed}}}",
        ("2:20: !result: keys are a list of keys and positions, not 'seed'"),
        InvalidTask,
    ),
    "results in a circle": (
        "Lint: {kwargs: {a: !result Test}}\nTest: {kwargs: {a: !result Lint}}",
        ("1:1: these stages take each other's results in a circle: 'Lint' → 'Test' → 'Lint'; take one of them out"),
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
        ("1:1: stage 'Unit tests': 'Unit tests' cannot be the name of a function; name one with the field 'function'"),
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
        ("2:20: task 'Lint': env: the value of 'C' is list; give text or a number"),
        InvalidTask,
    ),
    "a bad jobs module": (
        "jobs: jobs.py\nstages:\n  Lint: []",
        ("1:7: jobs: 'jobs.py' is no name of a module, such as 'foo_jobs'; did you mean 'jobs'?"),
        InvalidWorkflow,
    ),
}


@pytest.mark.parametrize(("text", "said", "kind"), BAD_STAGES.values(), ids=BAD_STAGES)
def test_a_bad_stage_is_named_by_line_and_column(text, said, kind, stages):
    """Of what a task itself refuses, the place is that of the field, or of what is in it."""
    fails(stages(text), f"{{f}}:{said}", kind)


def test_stages_without_jobs_module_say_how_to_name_one(stages):
    """The first one that needs it is named."""
    fails(
        stages("load: {module: m}\nLint: []"),
        "{f}:2:1: stage 'Lint' is to run a function of the jobs module, and none is named; name one with --jobs, "
        "with jobs=… in Python, or give the stage a module or a function 'package.module:function'",
        InvalidTask,
        jobs=None,
    )


def test_a_jobs_module_that_is_no_module_is_named(stages):
    """A path is taken for what was probably meant."""
    fails(
        stages("Lint: []"),
        "{f}: jobs: './jobs.py' is no name of a module, such as 'foo_jobs'; did you mean 'jobs'?",
        InvalidWorkflow,
        jobs="./jobs.py",
    )


def test_a_jobs_module_is_not_for_python_files(write):
    """There each task names what it runs."""
    path = write("Task('a', 'm')")
    said = f"{path}: a jobs module is for stages in YAML; in a Python file each task names what it runs"
    fails(path, said, SewerError)


def test_stages_have_one_workflow(stages):
    """The name of another one is an error, as in a Python file."""
    path = stages("Lint: []")
    with pytest.raises(WorkflowFileError, match=r"stages\.yaml: unknown workflow 'nightly'\. Known: 'workflow'\."):
        load_workflow(path, "nightly", jobs="jobs")


@pytest.mark.parametrize(
    "jobs",
    ["from lib import *", "for name in ['Lint']:\n    globals()[name] = print", "def __getattr__(name): ...",
     "import lib as Lint", "if True:\n    async def Lint(): ...", "Lint = print", "this is no Python"],
    ids=["star", "globals", "getattr", "import", "condition", "variable", "syntax"],
)  # fmt: skip
def test_a_function_that_may_be_there_is_not_refused(jobs, stages):
    """Functions come into modules in many ways, and whether one is there shows when it is called."""
    assert load_workflow(stages("Lint: []", jobs), jobs="jobs").tasks["Lint"].function == "jobs:Lint"


def test_a_jobs_package_beside_the_stages_is_found(write, tmp_path):
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


class _AsEditorsSeeIt(yaml.SafeLoader):
    """Reads values with a tag as if they had none."""


_AsEditorsSeeIt.add_multi_constructor(
    "!",
    lambda loader, _, node: (
        loader.construct_mapping(node, deep=True) if isinstance(node, yaml.MappingNode) else str(node.value)
    ),
)
_AsEditorsSeeIt.add_constructor(
    "tag:yaml.org,2002:int", lambda _, node: int(node.value) if node.value.isdecimal() else node.value
)


@pytest.fixture(scope="module")
def why_invalid():
    """Return a function that says why editors do not like a file."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)

    def why_invalid(text: str) -> str | None:
        error = jsonschema.exceptions.best_match(validator.iter_errors(yaml.load(text, _AsEditorsSeeIt)))
        return None if error is None else error.message

    return why_invalid


@pytest.mark.parametrize(
    "text",
    [EVERYTHING, "Lint: []\nTest:\n  - Lint", "Lint:\nTest: Lint", "stages: []", "a: {module: m, depends_on: b}\nb:"],
)
def test_the_schema_takes_what_the_reader_takes(text, why_invalid):
    """Short, long, and with fields."""
    assert why_invalid(text) is None


@pytest.mark.parametrize(
    "text",
    ["- Lint", "{}", "Lint: {modul: m}", "Lint: {module: m, function: 'm:f'}", "stages: {Lint: []}\njob: jobs",
     "Lint: {run_when: sometimes}", "Lint: {resources: {gpu: 0}}", "Lint: [[Test]]",
     "stages: {Lint: []}\ndefaults: {module: m}", "Lint: {products: [{atomic: true}]}", "Lint: {tags: [two words]}"],
)  # fmt: skip
def test_the_schema_refuses_what_the_reader_refuses(text, why_invalid, stages):
    """Editors underline it before anybody runs it."""
    assert why_invalid(text) is not None
    with pytest.raises(SewerError):
        load_workflow(stages(text), jobs="jobs")


def test_the_schema_has_all_fields():
    """None of a task's is forgotten, nor of what stands at the top."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))

    assert set(schema["definitions"]["fields"]["properties"]) == set(STAGE_FIELDS) == set(FIELDS) - {"name"}
    assert set(schema["then"]["properties"]) == set(TOP_FIELDS)
    assert set(schema["then"]["properties"]["defaults"]["properties"]) == set(DEFAULT_FIELDS)
    options = set(vars(Product("a"))) | set(vars(External("a"))) | set(vars(Dependency("a")))
    assert set(schema["definitions"]["path"]["anyOf"][1]["properties"]) == options
