"""Templates of operators: text of the DAG file is filled in, data is not, and other text arrives byte for byte."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from airflow.sdk import DAG, literal, task, task_group

from airflow_provider_sewer import Ignored, Product
from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.operators.module import PythonModuleOperator
from airflow_provider_sewer.operators.paths import ExternalPathSensor, RemoveProductsOperator
from airflow_provider_sewer.operators.slurm import SlurmModuleOperator

#: Texts of which Jinja would make something else.
TEXTS = ["{{ var.value.secret }}", "{{ 1 + 1 }}", "{% if x %}", "{#1.txt", "a\r\nb\n", "\n", "1.10", "None"]
#: Those that hold no template.
PLAIN = TEXTS[3:]
REPORTS_ARGUMENTS = """
    import json, os, sys
    if __name__ == "__main__":
        with open(os.environ["SEWER_RESULT_FILE"], "w") as file:
            json.dump({"argv": sys.argv[1:], "A": os.environ.get("A"), "B": os.environ.get("B")}, file)

    def give(**kwargs):
        return kwargs
"""


def leave(value):
    """Return an XCom, which is this value."""

    @task
    def leave(value):
        return value

    return leave(literal(value))


def of_function(job):
    """Return the arguments of an operator for the function that returns its arguments."""
    return {**{name: value for name, value in job.items() if name != "module"}, "function": "job:give"}


@pytest.fixture
def local(module):
    """Return the arguments of a PythonModuleOperator whose module returns its own arguments."""
    return module(REPORTS_ARGUMENTS)


@pytest.fixture
def as_job(local, defaults):
    """Return the same for a SlurmModuleOperator."""
    return {**local, **defaults, "cluster": "local", "poll_interval": 0.1}


@pytest.fixture(params=[PythonModuleOperator, SlurmModuleOperator])
def operator(request):
    """Return the class of an operator."""
    return request.param


@pytest.fixture
def job(operator, local, as_job):
    """Return the arguments of the operator."""
    return local if operator is PythonModuleOperator else as_job


@pytest.fixture(params=[False, True], ids=["text", "native"])
def dag(request):
    """Return a DAG that renders templates as text, or as native objects."""
    return DAG("templates", schedule=None, render_template_as_native_obj=request.param)


def instances(result, task_id, count):
    return [result.results.get(f"{task_id}[{index}]") for index in range(count)]


# -- Data ------------------------------------------------------------------------------------------------------------


def test_operator_expand_passes_items_of_an_xcom_literally(operator, job, dag, run_dag):
    """In all fields that can be mapped over."""
    env = job["env"]
    without_env = {name: value for name, value in job.items() if name != "env"}
    with dag:
        operator.partial(task_id="args", **job).expand(args=leave([TEXTS]))
        operator.partial(task_id="flags", **job).expand(parameters_and_flags=leave([{"x": TEXTS}]))
        operator.partial(task_id="kwargs", **of_function(job)).expand(op_kwargs=leave([{"x": [{"y": TEXTS}]}]))
        operator.partial(task_id="env", **without_env).expand(env=leave([{**env, "A": text} for text in TEXTS]))
    result = run_dag(dag)
    assert result.results["args[0]"]["argv"] == TEXTS
    assert result.results["flags[0]"]["argv"][1::2] == TEXTS
    assert result.results["kwargs[0]"] == {"x": [{"y": TEXTS}]}
    assert [each["A"] for each in instances(result, "env", len(TEXTS))] == TEXTS


def test_operator_expand_kwargs_passes_an_xcom_literally_and_renders_written_fields(operator, job, run_dag):
    """Which fields an XCom gives shows only when it is there."""
    env = job.pop("env")
    with DAG("kwargs", schedule=None, default_args={"env": {**env, "A": "{{ dag.dag_id }}"}}) as dag:
        partial = operator.partial(task_id="job", parameters_and_flags={"dag": "{{ dag.dag_id }}"}, **job)
        partial.expand_kwargs(leave([{"args": TEXTS}, {"args": [], "env": {**env, "A": TEXTS[0]}}]))
    first, second = instances(run_dag(dag), "job", 2)
    assert first["argv"] == [*TEXTS, "--dag", "kwargs"]
    assert [first["A"], second["A"]] == ["kwargs", TEXTS[0]]


def test_operator_expand_kwargs_passes_an_xcom_literally_in_place_of_a_written_field(operator, job, run_dag):
    """With strict=False the mapped value wins."""
    with DAG("strict", schedule=None) as dag:
        partial = operator.partial(task_id="job", args=["{{ dag.dag_id }}"], **job)
        partial.expand_kwargs(leave([{"args": TEXTS}, {"parameters_and_flags": {}}]), strict=False)
    first, second = instances(run_dag(dag), "job", 2)
    assert [first["argv"], second["argv"]] == [TEXTS, ["strict"]]


def test_operator_expand_kwargs_renders_written_rows(operator, job, run_dag):
    """A list in the DAG file is written; an XCom in it is data."""
    with DAG("rows", schedule=None) as dag:
        text, texts = leave(TEXTS[0]), leave(TEXTS)
        partial = operator.partial(task_id="job", **job)
        mapped = partial.expand_kwargs([{"args": ["{{ dag.dag_id }}", text]}, {"args": texts}])
        [text, texts] >> mapped
    first, second = instances(run_dag(dag), "job", 2)
    assert [first["argv"], second["argv"]] == [["rows", TEXTS[0]], TEXTS]


def test_operator_expand_renders_written_values(operator, job, run_dag):
    """Of two lists, that of the DAG file is written."""
    with DAG("lists", schedule=None) as dag:
        flags = [{"dag": "{{ dag.dag_id }}"}]
        operator.partial(task_id="job", **job).expand(parameters_and_flags=flags, args=leave([TEXTS]))
    assert run_dag(dag).results["job[0]"]["argv"] == [*TEXTS, "--dag", "lists"]


def test_operator_passes_map_zip_and_concat_literally(operator, job, run_dag):
    """They are made of XComs."""
    call = of_function(job)
    with DAG("made", schedule=None) as dag:
        texts = leave(TEXTS[:4])
        mapped = operator.partial(**call, task_id="mapped")
        mapped.expand(op_kwargs=texts.map(lambda text: {"x": text + "{{ 2 }}"}))
        zipped = operator.partial(**call, task_id="zipped")
        zipped.expand(op_kwargs=texts.zip(texts).map(lambda pair: {"x": pair}))
        concatenated = operator.partial(**call, task_id="concatenated")
        concatenated.expand(op_kwargs=texts.concat(leave([TEXTS[0]])).map(lambda text: {"x": text}))
    result = run_dag(dag)
    assert instances(result, "mapped", 4) == [{"x": text + "{{ 2 }}"} for text in TEXTS[:4]]
    assert instances(result, "zipped", 4) == [{"x": [text, text]} for text in TEXTS[:4]]
    assert instances(result, "concatenated", 5) == [{"x": text} for text in [*TEXTS[:4], TEXTS[0]]]


def test_operator_passes_xcoms_literally_however_deep(operator, job, dag, run_dag):
    """Without mapping; beside them, written text is filled in."""
    call = of_function(job)
    with dag:
        env = {**job.pop("env"), "A": leave(TEXTS[0]), "B": leave("1.10")}
        operator(task_id="job", args=[leave(TEXTS[1]), "{{ dag.dag_id }}"], env=env, **job)
        operator(task_id="call", op_kwargs={"x": [{"y": leave(TEXTS)}], "dag": "{{ dag.dag_id }}"}, **call)
    results = run_dag(dag).results
    assert results["job"] == {"argv": [TEXTS[1], "templates"], "A": TEXTS[0], "B": "1.10"}
    assert results["call"] == {"x": [{"y": TEXTS}], "dag": "templates"}


def test_operator_passes_arguments_of_a_mapped_group_literally(operator, job, dag, run_dag):
    """Whole, in a list, and as a value that a template names."""

    @task_group
    def each(text):
        kwargs = {"whole": text, "nested": [text], "named": "{{ task.arguments['text'] }}"}
        operator(task_id="call", arguments={"text": text}, op_kwargs=kwargs, **of_function(job))

    with dag:
        each.expand(text=leave(TEXTS))
    expected = [{"whole": text, "nested": [text], "named": text} for text in TEXTS]
    assert instances(run_dag(dag), "each.call", len(TEXTS)) == expected


@pytest.mark.parametrize("decorator", ["python_module", "slurm_module"])
def test_decorator_passes_xcoms_and_return_values_literally(decorator, local, as_job, run_dag):
    """Mapped and not; text in the call is written."""
    where = of_function(as_job if decorator == "slurm_module" else local)

    @getattr(task, decorator)(**where)
    def call(text, name):
        return {"text": text, "part": f"<{text}>", "name": name, "own": "{{ 1 + 1 }}"}

    with DAG("decorated", schedule=None) as dag:
        call.override(task_id="one")(leave(TEXTS[0]), name="{{ dag.dag_id }}")
        call.override(task_id="several").partial(name="{{ dag.dag_id }}").expand(text=leave(TEXTS))
        call.override(task_id="rows").expand_kwargs(leave([{"text": TEXTS[0], "name": TEXTS[1]}]))
    result = run_dag(dag)
    expected = [{"text": text, "part": f"<{text}>", "name": "decorated", "own": "{{ 1 + 1 }}"} for text in TEXTS]
    assert result.results["one"] == expected[0]
    assert instances(result, "several", len(TEXTS)) == expected
    assert instances(result, "rows", 1) == [{**expected[0], "name": TEXTS[1]}]


def test_slurm_operator_passes_a_mapped_xcom_literally_and_renders_default_args(as_job, run_dag, tmp_path):
    """The options of a job are merged from both."""
    default_args = {"slurm": {"setup": ["export B={{ dag.dag_id }}"]}}
    with DAG("merged", schedule=None, default_args=default_args) as dag:
        SlurmModuleOperator.partial(task_id="job", **as_job).expand(slurm=leave([{"comment": TEXTS[0]}]))
    assert run_dag(dag).results["job[0]"]["B"] == "merged"
    (script,) = (tmp_path / "runs").glob("**/job.sh")
    assert TEXTS[0] in script.read_text()


@pytest.mark.parametrize("path", [".sewer/{{ x }}.txt", "{{ x }}/.."])
def test_operator_validates_path_from_xcom_without_rendering(path, operator, job, run_dag, capsys):
    """Unlike a template, its value is complete."""
    with DAG("paths", schedule=None) as dag:
        operator(task_id="job", products=leave([path]), **job)
    assert run_dag(dag).states["job"] == "failed"
    assert re.search(f"Product must .* got {re.escape(repr(path))}", capsys.readouterr().out)


@pytest.mark.parametrize("how", ["one", "mapped"])
def test_external_path_sensor_passes_an_xcom_literally(how, run_dag, tmp_path):
    """It waits for the path as it is."""
    (tmp_path / TEXTS[1]).touch()
    where = {"task_id": "wait", "workdir": str(tmp_path), "timeout": 10}
    with DAG("sensor", schedule=None) as dag:
        if how == "one":
            ExternalPathSensor(path=leave(TEXTS[1]), **where)
        else:
            ExternalPathSensor.partial(**where).expand(path=leave([TEXTS[1]]))
    assert set(run_dag(dag).states.values()) == {"success"}


@pytest.mark.parametrize("how", ["one", "mapped"])
def test_remove_products_operator_passes_an_xcom_literally(how, local, run_dag, tmp_path):
    """It removes the file at the literal path."""
    (tmp_path / "job.py").write_text("import sys; open(sys.argv[2], 'w')")
    made = Product(f"{TEXTS[1]}.txt".replace("{{", "{{ '{{' }}"))
    with DAG("remover", schedule=None) as dag:
        make = PythonModuleOperator(task_id="make", parameters_and_flags={"out": made}, workdir=str(tmp_path), **local)
        where = {"task_id": "remove", "workdir": str(tmp_path)}
        if how == "one":
            make >> RemoveProductsOperator(products=leave([f"{TEXTS[1]}.txt"]), **where)
        else:
            make >> RemoveProductsOperator.partial(**where).expand(products=leave([[f"{TEXTS[1]}.txt"]]))
    assert set(run_dag(dag).states.values()) == {"success"}
    assert (tmp_path / ".sewer").exists()
    assert not list(tmp_path.glob("*.txt"))


# -- Text ------------------------------------------------------------------------------------------------------------


def test_operator_passes_text_without_a_template_byte_for_byte(operator, job, dag, run_dag):
    """As a whole value, in a list, in a mapping, as a key."""
    call = of_function(job)
    env = {**job.pop("env"), "A": "-----\nabc\r\n", "B": "1.10"}
    with dag:
        flags = {"x": PLAIN, "y": Ignored(PLAIN[0])}
        operator(task_id="job", args=PLAIN, parameters_and_flags=flags, env=env, **job)
        operator(task_id="call", op_kwargs={"x": PLAIN, "y": {"a\r\n{{b}}": PLAIN[0]}}, **call)
    results = run_dag(dag).results
    argv = [*PLAIN, *(part for text in PLAIN for part in ("--x", text)), "--y", PLAIN[0]]
    assert results["job"] == {"argv": argv, "A": env["A"], "B": env["B"]}
    assert results["call"] == {"x": PLAIN, "y": {"a\r\n{{b}}": PLAIN[0]}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ dag.dag_id }}\n", "templates\n"),
        ("a\r\n{{ dag.dag_id }}\r\n", "a\r\ntemplates\r\n"),
        ("\r{{ dag.dag_id\r\n }}\r\n\n", "\rtemplates\r\n\n"),
        ("{% for x in [1, 2] %}{{ x }};\r\n{% endfor %}", "1;\r\n2;\r\n"),
        ("{{ 'a\r\nb' }}\x1c\r", "a\r\nb\x1c\r"),
        ("{{ dag.dag_id }}{# comment #}", "templates"),
    ],
)
def test_operator_preserves_line_ends_around_a_template(text, expected, local, dag, run_dag):
    """With and without native objects."""
    with dag:
        PythonModuleOperator(task_id="call", op_kwargs={"x": text}, **of_function(local))
    assert run_dag(dag).results["call"] == {"x": expected}


def test_operator_renders_args_env_and_paths_as_text_in_a_native_dag(operator, job, run_dag, tmp_path):
    """There is nothing but text that they could be; parameters may be numbers and lists."""
    env = {**job.pop("env"), "A": "{{ params.version }}"}
    with DAG("native", schedule=None, params={"version": "1.10"}, render_template_as_native_obj=True) as dag:
        flags = {"n": "{{ [1, 2] }}"}
        (tmp_path / "1.10").touch()
        where = {"workdir": str(tmp_path), "dependencies": ["{{ params.version }}"]}
        operator(task_id="job", args=["{{ params.version }}"], parameters_and_flags=flags, env=env, **where, **job)
    assert run_dag(dag).results["job"] == {"argv": ["1.10", "--n", "1", "--n", "2"], "A": "1.10", "B": None}


def test_operator_renders_templates_of_a_dag_with_other_delimiters(local, run_dag):
    """A template is the same everywhere."""
    other = {"variable_start_string": "[[", "variable_end_string": "]]", "line_statement_prefix": "#"}
    with DAG("delimiters", schedule=None, jinja_environment_kwargs=other) as dag:
        kwargs = {"x": "{{ dag.dag_id }}", "y": "[[ dag.dag_id ]]", "z": "# if {{ dag.dag_id }}"}
        PythonModuleOperator(task_id="call", op_kwargs=kwargs, **of_function(local))
    assert run_dag(dag).results["call"] == {"x": "delimiters", "y": "[[ dag.dag_id ]]", "z": "# if delimiters"}


@pytest.mark.parametrize("text", ["{{ ds", "{% if %}", "{{ ds | no_such_filter }}"])
def test_template_syntax_error_fails_and_names_the_field(text, operator, job, run_dag, capsys):
    """A retry would fail as well."""
    again = {"retries": 2, "retry_delay": timedelta(0)}
    with DAG("syntax", schedule=None) as dag:
        operator(task_id="job", parameters_and_flags={"x": text}, **again, **job)
    assert run_dag(dag).states["job"] == "failed"
    output = capsys.readouterr().out
    assert output.count("AirflowFailException: task 'job': parameters_and_flags: ") == 1


def test_decorator_renders_a_path_in_the_call(module, run_dag, tmp_path):
    """A product that the DAG file gives to the function is written there."""
    job = module("import sys; open(sys.argv[2], 'w')")

    @task.python_module(workdir=str(tmp_path), **job)
    def make(out):
        return {"out": out}

    with DAG("call", schedule=None) as dag:
        make(Product("{{ dag.dag_id }}.txt"))
    assert run_dag(dag).states == {"make": "success"}
    assert (tmp_path / "call.txt").exists()


@pytest.mark.parametrize("field", ["module", "function", "python", "workdir", "sewer_conn_id"])
def test_operator_resolves_xcom_in_every_text_field(field, operator, as_job, local, run_dag, connection, tmp_path):
    """The name of the module is known only when the task runs, as that of the interpreter may be."""
    job = as_job if operator is SlurmModuleOperator else local
    value = {"module": "job", "function": "job:give", "python": local["python"], "workdir": str(tmp_path)}
    value["sewer_conn_id"] = connection(workdir=str(tmp_path))["sewer_conn_id"]
    if field == "function":
        job = of_function(job)
    with DAG("named_later", schedule=None) as dag:
        operator(task_id="job", **{**job, field: leave(value[field])})
    assert run_dag(dag).states["job"] == "success"


@pytest.mark.parametrize("given", ["{{ 'job' }}", None, 3])
def test_operator_does_not_render_module_from_xcom(given, operator, as_job, local, run_dag, logged_text):
    """It is a plain name and not rendered."""
    job = as_job if operator is SlurmModuleOperator else local
    with DAG("named_wrongly", schedule=None) as dag:
        operator(task_id="job", **{**job, "module": leave(given)})
    assert run_dag(dag).states["job"] == "failed"
    text = logged_text()
    shown = {
        None: "a task must have either a module or a function, got neither",
        3: "module must be a dotted name such as",
    }
    assert shown.get(given, "{{ 'job' }}") in text


def test_operator_requires_module_or_function_beside_xcom():
    """As many as ever."""
    with DAG("both", schedule=None), pytest.raises(InvalidTask, match="got both"):
        PythonModuleOperator(task_id="job", module=leave("job"), function="job:give")
