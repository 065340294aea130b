"""Files as stdin and stdout of an Airflow task, on the worker and as a Slurm job."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import dedent
from urllib.parse import quote

import pytest
from airflow.sdk import DAG, task

from airflow_provider_sewer import Dependency, Product, SewerError
from airflow_provider_sewer.operators.module import PythonModuleOperator
from airflow_provider_sewer.operators.slurm import SlurmModuleOperator
from airflow_provider_sewer.task_group import sewer_task_group

UPPER = """
import sys
data = sys.stdin.buffer.read()
sys.stdout.buffer.write(data.upper() + b"\\r\\n\\xff")
print("a note", file=sys.stderr)
"""


@pytest.fixture
def upper(module, tmp_path):
    """Return the arguments of an operator that runs a module with a file to read."""
    (tmp_path / "in.txt").write_bytes(b"text")
    return {**module(UPPER, "upper"), "workdir": str(tmp_path)}


def test_operator_redirects_streams_to_templated_paths(upper, run_dag, tmp_path, everything_kept):
    """They are templates, an asset if their place is known, and the last line is not the XCom."""
    with DAG("streams", schedule=None) as dag:
        first = PythonModuleOperator(
            task_id="first", **upper, stdin=Dependency("{{ 'in' }}.txt"), stdout=Product("{{ dag.dag_id }}/out.bin")
        )
        second = PythonModuleOperator(task_id="second", **upper, stdin="streams/out.bin", stdout=tmp_path / "out 2")
        first >> second
    result = run_dag(dag)

    assert result.state == "success"
    assert (tmp_path / "streams" / "out.bin").read_bytes() == b"TEXT\r\n\xff"
    assert (tmp_path / "out 2").read_bytes() == b"TEXT\r\n\xff\r\n\xff"
    assert result.results.get("first") is None
    assert [outlet.name for outlet in first.outlets] == []
    assert [outlet.name for outlet in second.outlets] == [f"file://{quote(str(tmp_path))}/out%202"]


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "triggerer"])
@pytest.mark.parametrize("options", [{}, {"use_srun": True}], ids=["batch", "srun"])
def test_slurm_operator_redirects_streams(deferrable, options, upper, on_slurm, run_job, tmp_path):
    """On the node; the product is committed when the job has ended, also by the process after the triggerer."""
    result = run_job(**upper, stdin="in.txt", stdout=Product("out.bin"), slurm=options, deferrable=deferrable)

    assert result.state == "success"
    assert result.results.get("job") is None
    assert (tmp_path / "out.bin").read_bytes() == b"TEXT\r\n\xff"
    assert sorted(os.listdir(tmp_path / ".sewer")) == [".gitignore", "out.bin.json"]


def test_failed_operator_has_no_product(module, run_dag, tmp_path):
    """Its output is set aside."""
    where = {**module("print(1, flush=True); raise SystemExit(3)"), "workdir": str(tmp_path)}
    with DAG("fails", schedule=None) as dag:
        PythonModuleOperator(task_id="job", **where, stdout=Product("out.txt"))

    assert run_dag(dag).state == "failed"
    assert not (tmp_path / "out.txt").exists()
    assert (tmp_path / "out.txt.failed").read_text() == "1\n"


def test_mapped_operator_redirects_each_instance(module, run_dag, tmp_path):
    """Paths of XComs are data and not rendered."""

    @task
    def paths():
        return ["{{ x }}.txt", "2.txt"]

    where = {**module("print(1)"), "workdir": str(tmp_path)}
    with DAG("mapped", schedule=None) as dag:
        PythonModuleOperator.partial(task_id="job", **where).expand(stdout=paths())
        PythonModuleOperator.partial(task_id="known", **where).expand(stdout=[Product("a.txt"), Product("b.txt")])
        PythonModuleOperator.partial(task_id="read", **where, stdout=Product("c.txt")).expand(args=[["1"]])

    assert run_dag(dag).state == "success"
    assert {each.name for each in tmp_path.glob("*.txt")} == {"{{ x }}.txt", "2.txt", "a.txt", "b.txt", "c.txt"}


def test_decorated_function_has_streams(upper, run_dag, tmp_path):
    """As fields of the decorator."""

    @task.python_module(**upper, stdin="in.txt", stdout=Product("out.bin"))
    def job():
        return {}

    with DAG("decorated", schedule=None) as dag:
        job()

    assert run_dag(dag).state == "success"
    assert (tmp_path / "out.bin").read_bytes() == b"TEXT\r\n\xff"


def test_up_to_date_stdout_is_not_written_again(upper, run_dag, tmp_path):
    """Its dependency is the file of stdin."""

    def run() -> int:
        with DAG("stale", schedule=None) as dag:
            PythonModuleOperator(task_id="job", **upper, stdin="in.txt", stdout="out.bin", run_when="stale")
        assert run_dag(dag).state == "success"
        return (tmp_path / "out.bin").stat().st_ino

    first = run()
    assert run() == first
    (tmp_path / "in.txt").write_text("another text")
    assert run() != first


@pytest.mark.parametrize("operator", [PythonModuleOperator, SlurmModuleOperator])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stdout": Dependency("x")}, "task 'job': stdout must be a Product, got Dependency"),
        ({"stdout": "x/"}, "task 'job': stdout must be a file, got the directory 'x/'"),
        ({"stdin": ["x"]}, "task 'job': stdin: Dependency must be a path"),
        ({"stdout": "x", "products": ["./x"]}, "task 'job': stdout must be a file of its own, but './x' is also a pro"),
        ({"stdout": "x", "args": [Product("x")]}, "task 'job': stdout must be a file of its own, but 'x' is also a pr"),
        ({"stdout": "x", "stdin": "x"}, "task 'job': stdout must be a file of its own, but 'x' is also a dependency"),
    ],
)
def test_invalid_stream_raises_while_parsing(operator, fields, message):
    """By name."""
    with DAG("invalid", schedule=None), pytest.raises(SewerError, match=message):
        operator(task_id="job", module="m", **fields)


GROUP = """
    from airflow_provider_sewer import Dependency, Product, Task

    first = Task("first", "upper", stdin="in.txt", stdout=Product("first.bin"))
    Task("second", "upper", stdin=Dependency("first.bin"), stdout="second.bin")
    Task("each", "upper", stdin="in.txt", stdout=Product("each-{n}.bin")).map(n=[1, 2])
    numbers = Task("numbers", function="json:loads", kwargs={"s": "[3, 4]"})
    Task("over", "upper", stdin="in.txt", stdout=Product("over-{n}.bin")).map(n=numbers.result)
"""


@pytest.mark.parametrize("run_on", ["local", "slurm"])
def test_task_group_redirects_streams(run_on, upper, run_dag, tmp_path, defaults):
    """Paths connect the tasks, and each instance of a mapped one has its own."""
    file = Path(tmp_path, "flow.py")
    file.write_text(dedent(GROUP))
    where = {name: value for name, value in upper.items() if name != "module"}
    on = {"run_on": "slurm", "operator_kwargs": {"cluster": "local", **defaults}} if run_on == "slurm" else {}
    with DAG("group", schedule=None) as dag:
        sewer_task_group(file, group_id="g", **where, **on)
    assert dag.get_task("g.second").upstream_task_ids == {"g.first"}

    assert run_dag(dag).state == "success"
    assert (tmp_path / "second.bin").read_bytes() == b"TEXT\r\n\xff\r\n\xff"
    assert {each.name for each in tmp_path.glob("*-*.bin")} == {"each-1.bin", "each-2.bin", "over-3.bin", "over-4.bin"}
