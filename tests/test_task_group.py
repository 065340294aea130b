"""Workflow files as TaskGroups and as single Airflow tasks."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from textwrap import dedent

import pytest
from airflow.sdk import DAG, TaskGroup

from airflow_provider_sewer import SewerError, get_task_from_module, get_tasks_from_module, load_module
from airflow_provider_sewer.task_group import create_airflow_task, create_airflow_tasks, sewer_task_group

DIAMOND = '''
from airflow_provider_sewer import Task, workflow

a = Task("Example 1", "job", {"n": 1}, doc="The **first** one.")
b = Task("b", "job", {"day": "{{ ds_nodash }}"}, operator_kwargs={"retries": 2, "pool": "gpu"})
c = Task("c/ü", "job", {"verbose": True})
d = Task("d", "job")

@workflow
def diamond():
    """Four tasks."""
    (a >> [b, c] >> d).run()
'''
JOB = "import os, sys; print(sys.argv[1:], os.environ.get('COLOUR'), os.getcwd())"


@pytest.fixture
def sewer_file(tmp_path):
    """Write a workflow file and the module its tasks run; return the file's path."""

    def write(source: str, name: str = "flow.py") -> Path:
        (tmp_path / "job.py").write_text(JOB)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source))
        return path

    return write


@pytest.fixture
def expand(sewer_file, tmp_path):
    """Expand a workflow file's source in a new DAG; return the group."""

    def make(source: str = DIAMOND, **arguments) -> TaskGroup:
        with DAG("group", schedule=None):
            return sewer_task_group(sewer_file(source), **arguments)

    return make


def operators(group: TaskGroup) -> dict:
    return {operator.task_id: operator for operator in group}


def test_sewer_task_group_sets_every_workflow_edge(expand):
    """The diamond stays a diamond."""
    edges = {name: operator.downstream_task_ids for name, operator in operators(expand()).items()}
    assert edges == {
        "diamond.Example_1": {"diamond.b", "diamond.c"},
        "diamond.b": {"diamond.d"},
        "diamond.c": {"diamond.d"},
        "diamond.d": set(),
    }


def test_sewer_task_group_expands_a_chain_of_1000_tasks_twice(expand):
    """A second group in one process checks whether the file can be cached."""
    source = "from airflow_provider_sewer import Task\n" + "".join(f"t{n} = Task('t{n}', 'job')\n" for n in range(1000))
    source += f"({' >> '.join(f't{n}' for n in range(1000))}).run()\n"
    for _ in range(2):
        assert len(operators(expand(source, group_id="chain"))) == 1000


def test_task_ids_are_valid_and_task_display_name_is_the_name(expand):
    """A name that Airflow does not accept as an id is still shown."""
    names = {operator.task_id: operator.task_display_name for operator in expand()}
    assert names["diamond.Example_1"] == "Example 1"
    assert names["diamond.c"] == "c/ü"


def test_task_ids_are_unique_for_similar_names(expand):
    """`x y`, `x-y` and `x_y` are three tasks."""
    group = expand("""
        from airflow_provider_sewer import Task
        tasks = [Task(name, "job") for name in ("x y", "x_y", "x?y", "x-y", "###")]
    """)
    assert list(operators(group)) == [
        "workflow.x_y",
        "workflow.x_y_2",
        "workflow.x_y_3",
        "workflow.x-y",
        "workflow.task",
    ]


def test_doc_md_shows_docs_of_workflow_file(expand):
    """The workflow's docstring on the group; a task's doc and its command on the task."""
    group = expand()
    assert group.tooltip == "Four tasks."
    first = operators(group)["diamond.Example_1"]
    assert "The **first** one." in first.doc_md
    assert "python -m job --n 1" in first.doc_md


def test_operator_kwargs_precedence_task_group_default_args(expand):
    """The nearest one wins."""
    group = expand(operator_kwargs={"retries": 5, "queue": "q"}, default_args={"retries": 9, "owner": "me"})
    b, d = (operators(group)[f"diamond.{name}"] for name in "bd")
    assert (b.retries, b.pool, b.queue, b.owner) == (2, "gpu", "q", "me")
    assert (d.retries, d.pool, d.queue) == (5, "default_pool", "q")


def test_default_args_of_dag_fill_unset_group_fields(sewer_file):
    """A connection for all of a DAG's tasks is one for the group's tasks as well."""
    with DAG("defaults", schedule=None, default_args={"sewer_conn_id": "s", "workdir": "/w"}):
        group = sewer_task_group(sewer_file(DIAMOND), default_args={"python": "/env/bin/python"})
    operator = operators(group)["diamond.d"]
    assert (operator.sewer_conn_id, operator.workdir, operator.python) == ("s", "/w", "/env/bin/python")


def test_task_ids_of_thousands_of_non_latin_names(expand):
    """Names that all become the same id are counted, not tried one by one."""
    group = expand(
        "from airflow_provider_sewer import Task\ntasks = [Task(f'数据{n}' * 2, 'job') for n in range(3000)]"
    )
    assert len(operators(group)) == 3000


def test_sewer_task_group_sets_python_env_and_workdir(expand, run_dag, tmp_path):
    """Settings that the file leaves open are taken from the call."""
    env = {"PYTHONPATH": str(tmp_path), "COLOUR": "red"}
    group = expand(group_id="g", python=sys.executable, env=env, workdir=tmp_path)
    result = run_dag(group.dag)
    assert result.state == "success"
    assert result.results["g.Example_1"] == f"['--n', '1'] red {tmp_path}"
    assert result.results["g.c"] == f"['--verbose'] red {tmp_path}"


def test_workflow_file_templates_are_rendered(expand, run_dag, tmp_path):
    """Runtime values stay templates until then."""
    group = expand(python=sys.executable, env={"PYTHONPATH": str(tmp_path)}, operator_kwargs={"pool": "default_pool"})
    operators(group)["diamond.b"].pool = "default_pool"
    day = run_dag(group.dag).results["diamond.b"].split("'")[3]
    assert len(day) == 8
    assert day.isdigit()


def test_task_settings_override_group_settings(expand, run_dag, tmp_path):
    """A task's own environment and directory are nearer than the group's."""
    (tmp_path / "own").mkdir()
    group = expand(
        """
        from airflow_provider_sewer import Task
        t = Task("t", "job", env={"COLOUR": "blue"}, workdir="own")
        """,
        python=sys.executable,
        env={"PYTHONPATH": str(tmp_path), "COLOUR": "red"},
        workdir="/",
    )
    assert run_dag(group.dag).results["workflow.t"] == f"[] blue {tmp_path}/own"


def test_template_fields_contain_only_given_absolute_paths(expand):
    """The folder of the files differs from worker to worker, so paths stay relative to the DAG file."""
    group = expand("""
        from airflow_provider_sewer import Task
        t = Task("t", "job", python="env/bin/python", workdir="data")
        s = Task("s", "job", python="/opt/env/bin/python", workdir="/data")
    """)
    t, s = (operators(group)[f"workflow.{name}"] for name in "ts")
    assert not os.path.isabs(t.python)
    assert not os.path.isabs(t.workdir)
    assert (s.python, s.workdir) == ("/opt/env/bin/python", "/data")


def test_workflow_file_is_resolved_against_dag_folder(monkeypatch, tmp_path):
    """The working directory of the scheduler does not matter."""
    monkeypatch.chdir(tmp_path)
    with DAG("relative", schedule=None) as dag:
        sewer_task_group("../dags/workflows/data_generation.py", group_id="g")
    assert dag.task_ids == ["g.data_generation", "g.data_noising"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "from airflow_provider_sewer import Task\nTask('t', 'job', {'x': object()})",
            r"flow\.py:2: task 't': parameter",
        ),
        (
            "from airflow_provider_sewer import Task\n\nt = Task('t', 'job', operator_kwargs={'pol': 'gpu'})",
            r"(?s)flow\.py:3: task 't': .*'pol'",
        ),
        (
            "from airflow_provider_sewer import Task\nt = Task('t', 'job', operator_kwargs={'module': 'x'})",
            r"flow\.py:2: task 't': operator_kwargs must not contain 'module'; use the field of",
        ),
        (
            "from airflow_provider_sewer import Task\nt = Task('t', 'job', operator_kwargs={'slurm': {'nodes': 1}})",
            r"flow\.py:2: task 't': operator_kwargs must not contain 'slurm'; use the field of",
        ),
        (
            "from airflow_provider_sewer import Task\nt = Task('t', 'job', operator_kwargs={'requeue': True})",
            r"flow\.py:2: task 't': operator_kwargs: 'requeue' can only be set for tasks on Slurm",
        ),
        (
            "from airflow_provider_sewer import Task\nTask('t', 'job', run_on='slurm', operator_kwargs={'durable': 1})",
            r"flow\.py:2: task 't': durable must be a bool, got 1",
        ),
    ],
)
def test_invalid_workflow_file_raises_with_file_and_line(expand, source, message):
    """The DAG's import error has the paths that were searched."""
    with pytest.raises(SewerError, match=message):
        expand(source)


MIXED = """
from airflow_provider_sewer import Task, workflow

here = Task("here", "job", run_on="local", slurm={"nodes": 2})
there = Task("there", "job", run_on="slurm", slurm={"mem_gb": 8, "account": None})
open_ = Task("open", "job")

@workflow
def mixed():
    (here >> there >> open_).run()
"""


def kinds(group: TaskGroup) -> dict[str, str]:
    return {name.rpartition(".")[2]: type(operator).__name__ for name, operator in operators(group).items()}


def test_run_on_mixes_local_and_slurm_tasks(expand):
    """The task's own setting overrides the group's; the default is the worker."""
    local, slurm = "PythonModuleOperator", "SlurmModuleOperator"
    assert kinds(expand(MIXED)) == {"here": local, "there": slurm, "open": local}
    assert kinds(expand(MIXED, run_on="slurm")) == {"here": local, "there": slurm, "open": slurm}
    assert kinds(expand(MIXED, run_on="local")) == {"here": local, "there": slurm, "open": local}


def test_slurm_settings_precedence_task_then_group(expand):
    """Parameter by parameter, and the task's other spelling of one replaces the group's."""
    group = expand(MIXED, run_on="slurm", slurm={"mem": "1G", "account": "lab", "partition": "main"})
    assert operators(group)["mixed.there"].slurm == {"partition": "main", "mem_gb": 8, "account": None}
    assert operators(group)["mixed.open"].slurm == {"mem": "1G", "account": "lab", "partition": "main"}


def test_slurm_settings_apply_to_slurm_tasks_only(expand):
    """So one group can hold both kinds; pools and retries are for all."""
    group = expand(
        MIXED,
        run_dir="runs",
        cluster="local",
        deferrable=False,
        operator_kwargs={"poll_interval": 2, "max_pending_time": timedelta(hours=1), "retries": 4},
    )
    here, there = operators(group)["mixed.here"], operators(group)["mixed.there"]
    assert (there.run_dir, there.cluster, there.deferrable) == ("runs", "local", False)
    assert (there.poll_interval, there.max_pending_time) == (2, 3600)
    assert (here.retries, there.retries) == (4, 4)


def test_operator_kwargs_of_task_set_poll_interval(expand):
    """These are nearer than the group's, and a relative path is taken from the workflow file."""
    group = expand(
        """
        from airflow_provider_sewer import Task
        own = dict(run_dir="runs", poll_interval=1, fail_on_pending_reason=[])
        t = Task("t", "job", run_on="slurm", operator_kwargs=own)
        """,
        run_dir="/shared",
        cluster="local",
        operator_kwargs={"poll_interval": 2, "requeue": True},
    )
    operator = operators(group)["workflow.t"]
    assert (operator.poll_interval, operator.requeue, operator.cluster) == (1, True, "local")
    assert tuple(operator.fail_on_pending_reason) == ()
    assert operator.run_dir.endswith("/runs")
    assert not os.path.isabs(operator.run_dir)


def test_default_args_of_dag_apply_to_slurm_tasks(sewer_file):
    """Unset fields are left open for them; the local tasks of the DAG are unaffected."""
    with DAG("defaults", schedule=None, default_args={"run_dir": "/r", "requeue": True}):
        group = sewer_task_group(sewer_file(MIXED))
    assert (operators(group)["mixed.there"].run_dir, operators(group)["mixed.there"].requeue) == ("/r", True)
    assert kinds(group)["here"] == "PythonModuleOperator"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"run_on": "Slurm"}, "^run_on must be 'local' or 'slurm', got 'Slurm'"),
        ({"slurm": {"partiton": "x"}}, "^slurm: unknown Slurm parameter 'partiton'"),
        ({"cluster": "here"}, "^cluster must be 'auto' or 'slurm' or 'local'"),
        ({"operator_kwargs": {"poll_interval": 0}}, "^poll_interval must "),
        ({"operator_kwargs": {"run_on": "slurm"}}, "operator_kwargs must not contain 'run_on'; use the field of"),
    ],
)
def test_sewer_task_group_invalid_slurm_settings_raise(expand, arguments, message):
    """Even if no task of it runs on Slurm today."""
    with pytest.raises(SewerError, match=message):
        expand(**arguments)


def test_sewer_task_group_outside_of_dag_raises(sewer_file):
    """A group belongs into a DAG."""
    with pytest.raises(SewerError, match="no current DAG; create tasks inside 'with DAG"):
        sewer_task_group(sewer_file(DIAMOND))


def test_sewer_task_group_expands_one_file_twice_in_one_dag(sewer_file):
    """With ids of their own, the same workflow can be expanded twice."""
    with DAG("twice", schedule=None) as dag:
        path = sewer_file(DIAMOND)
        sewer_task_group(path, group_id="one") >> sewer_task_group(path, group_id="two")
    assert dag.get_task("two.Example_1").upstream_task_ids == {"one.d"}


def test_operator_kwargs_callbacks_and_timeouts_reach_operator(expand):
    """operator_kwargs take all arguments of Airflow's operators."""
    group = expand("""
        from datetime import timedelta
        from airflow_provider_sewer import Task

        def alarm(context): ...

        t = Task("t", "job", operator_kwargs=dict(
            execution_timeout=timedelta(minutes=5), on_failure_callback=alarm, trigger_rule="all_done"))
    """)
    operator = operators(group)["workflow.t"]
    assert operator.execution_timeout == timedelta(minutes=5)
    assert operator.trigger_rule == "all_done"
    assert [callback.__name__ for callback in operator.on_failure_callback] == ["alarm"]


@pytest.fixture
def own_environment(tmp_path, monkeypatch):
    """Make an environment with a project that is installed nowhere else; return its interpreter."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True, timeout=60)
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (packages / "project.py").write_text(f"NAME = 'train'\nif __name__ == '__main__':\n    {JOB}\n")
    return tmp_path / "venv" / "bin" / "python"


ONLY_THERE = """
    import os, project
    from airflow_provider_sewer import Task
    Task(project.NAME, "project", {"colours": os.environ.get("COLOUR"), "day": "{{ ds_nodash }}", "n": 1})
"""


def test_read_with_interpreter_imports_packages_of_environment(sewer_file, run_dag, own_environment, tmp_path):
    """The interpreter that runs the tasks reads the file, with the variables that are known by then."""
    with (
        pytest.raises(SewerError, match=r"No module named 'project'.* read_with_interpreter=True"),
        DAG("not", schedule=None),
    ):
        sewer_task_group(sewer_file(ONLY_THERE), python=own_environment)

    with DAG("there", schedule=None) as dag:
        sewer_task_group(
            sewer_file(ONLY_THERE), python=own_environment, env={"COLOUR": "red", "RUN": "{{ run_id }}"},
            workdir=tmp_path, read_with_interpreter=True,
        )  # fmt: skip

    (result,) = run_dag(dag).results.values()
    assert result.startswith("['--colours', 'red', '--day', '2")
    assert result.endswith(f"'--n', '1'] red {tmp_path}")


def test_read_with_interpreter_resolves_python_against_dag_folder(sewer_file, own_environment):
    """Like the one that runs its tasks."""
    relative = os.path.relpath(own_environment, Path(__file__).parent)
    with DAG("there", schedule=None):
        group = sewer_task_group(sewer_file(ONLY_THERE), python=relative, read_with_interpreter=True)

    assert operators(group)["workflow.train"].python == relative


@pytest.mark.parametrize(
    ("python", "message"),
    [(None, "python is not set"), ("{{ var.value.python }}", "python='{{ var.value.python }}' is a run-time value")],
)
def test_read_with_interpreter_without_known_python_raises(expand, python, message):
    """A connection is not asked while a DAG file is parsed."""
    with pytest.raises(SewerError, match=r"read_with_interpreter: .*; set python to the interpreter") as caught:
        expand(python=python, read_with_interpreter=True)
    assert message in str(caught.value)


def test_read_with_interpreter_with_jobs_raises(expand):
    """It is for stages, which import nothing."""
    with pytest.raises(SewerError, match="jobs is for stages in YAML, which import nothing; remove read_with"):
        expand(python=sys.executable, jobs="jobs", read_with_interpreter=True)


def test_create_airflow_task_creates_tasks_of_file(sewer_file, run_dag, tmp_path):
    """create_airflow_task returns a factory; its tasks can be connected with >>."""
    module = load_module(sewer_file(DIAMOND))
    arguments = {"path_to_python": Path(sys.executable), "env": {"PYTHONPATH": str(tmp_path)}, "workdir": tmp_path}
    first = create_airflow_task(get_task_from_module(module, "Example 1"), **arguments)
    last = create_airflow_task(get_task_from_module(module, "d"), **arguments)
    with DAG("single", schedule=None) as dag:
        first() >> last()
    assert dag.get_task("d").upstream_task_ids == {"Example_1"}
    assert run_dag(dag).results == {"Example_1": f"['--n', '1'] None {tmp_path}", "d": f"[] None {tmp_path}"}


def test_create_airflow_tasks_yields_factories(sewer_file):
    """create_airflow_tasks is create_airflow_task for each."""
    tasks = get_tasks_from_module(load_module(sewer_file(DIAMOND)))
    with DAG("several", schedule=None) as dag:
        for make in create_airflow_tasks(tasks.values(), workdir="/tmp"):
            make()
    assert dag.task_ids == ["Example_1", "b", "c", "d"]
    assert {dag.get_task(task_id).workdir for task_id in dag.task_ids} == {"/tmp"}


def test_create_airflow_task_runs_on_slurm(sewer_file):
    """create_airflow_task takes the group's arguments; the task's own settings override them."""
    module = load_module(sewer_file(MIXED))
    arguments = {"run_on": "slurm", "slurm": {"mem_gb": 1, "qos": "q"}, "run_dir": "/r", "cluster": "local"}
    with DAG("single_slurm", schedule=None):
        there = create_airflow_task(get_task_from_module(module, "there"), **arguments, deferrable=True)()
        here = create_airflow_task(get_task_from_module(module, "here"), **arguments)()
    assert there.slurm == {"mem_gb": 8, "qos": "q", "account": None}
    assert (there.run_dir, there.cluster, there.deferrable) == ("/r", "local", True)
    assert type(here).__name__ == "PythonModuleOperator"
