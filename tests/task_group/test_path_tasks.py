"""Path tasks: sensors for external inputs and tasks that remove temporary products."""

from __future__ import annotations

import os
import re
import time
import warnings

import pytest
from airflow.sdk import DAG

from airflow_provider_sewer import Product
from airflow_provider_sewer.operators.module import PythonModuleOperator

PATHS = """
make = Task("make", "job", {"in": External("delivery.txt"), "out": Product("raw.txt", temporary=True)}%s)
use = Task("use", "job", {"in": Dependency("raw.txt"), "exit": 3})
"""


def test_remove_keeps_temporary_products_after_failed_consumer(expand, run_dag, tmp_path):
    """The default trigger rule is for the tasks, not for the removal of products."""
    (tmp_path / "delivery.txt").touch()
    dag = expand(PATHS % "", dag_args={"trigger_rule": "all_done"}).dag

    assert run_dag(dag).states["g.remove_raw_txt"] == "upstream_failed"
    assert (tmp_path / "raw.txt").exists()


@pytest.mark.parametrize("how", ["", ".map(exit=[0])"], ids=["plain", "mapped"])
def test_path_tasks_inherit_location_of_consumers(expand, how):
    """On workers that see the same files, with as many tries; it takes nothing from the tasks' pool."""
    given = {"queue": "files", "retries": 3, "priority_weight": 7, "pool": "few", "executor_config": {"a": 1}}
    group = expand((PATHS % "").replace("temporary=True)})", f"temporary=True)}}){how}"), operator_kwargs=given)

    assert len(list(group)) == 4
    for operator in group:
        found = {field: getattr(operator, field) for field in given}
        assert found == {**given, "pool": "few" if operator.task_id in ("g.make", "g.use") else "default_pool"}


def test_external_path_sensor_deferrable_from_default_args(expand):
    """Unless the group sets deferrable itself."""
    by_default = {"deferrable": True, "timeout": 5}

    sensor = expand(PATHS % "", dag_args=by_default).dag.get_task("g.wait_for_delivery_txt")
    assert (sensor.deferrable, sensor.timeout) == (True, 5)
    sensor = expand(PATHS % "", dag_args=by_default, deferrable=False).dag.get_task("g.wait_for_delivery_txt")
    assert sensor.deferrable is False


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "triggerer"])
def test_external_path_sensor_fails_after_timeout(expand, run_dag, capsys, deferrable):
    """In the triggerer and on a worker; its consumers do not run."""
    source = "Task('use', 'job', {'in': External('never.txt', timeout=0.1)})"

    states = run_dag(expand(source, deferrable=deferrable, dag_args={"poke_interval": 0.1}).dag).states
    assert states == {"g.wait_for_never_txt": "failed", "g.use": "upstream_failed"}
    assert "AirflowSensorTimeout" in capsys.readouterr().out


def test_resources_two_with_pool_in_operator_kwargs(expand):
    """The error raised without a pool requests this."""
    source = "Task('a', 'job', resources={'gpu': 1, 'licence': 1}, operator_kwargs={'pool': 'gpu'})"

    assert expand(source)["a"].pool == "gpu"


def test_path_template_ignores_whitespace_in_braces(expand):
    """The edge is set; the expression in the braces is unchanged."""
    group = expand("""
        a = Task("a", "job", {"out": Product("{{ds}}/a.txt")})
        b = Task("b", "job", {"in": Dependency("{{  ds }}/a.txt"), "out": Product("{{ ds }}/b.txt")})
        c = Task("c", "job", {"in": Dependency("{{ ds_nodash }}/a.txt")})
    """)
    assert group["b"].upstream_task_ids == {"g.a"}
    assert group["c"].upstream_task_ids == set()
    assert group["b"].products == []
    assert group["b"].parameters_and_flags["out"] == "{{ ds }}/b.txt"


def test_external_path_sensor_reschedules_by_default(expand):
    """The default timeout is a week, the default poke interval a minute."""
    sensor = expand(PATHS % "").dag.get_task("g.wait_for_delivery_txt")

    assert (sensor.reschedule, sensor.timeout, sensor.poke_interval) == (True, 7 * 24 * 3600, 60)


def test_external_path_sensor_poke_mode_from_default_args(expand):
    """As Airflow's own sensors do."""
    sensor = expand(PATHS % "", dag_args={"mode": "poke"}).dag.get_task("g.wait_for_delivery_txt")

    assert (sensor.reschedule, sensor.poke_interval) == (False, 15)


def test_external_path_sensor_rescheduled_succeeds_when_path_exists(expand, run_dag, tmp_path, capsys):
    """The log contains the path, the start, the deadline, and the folder of a relative path."""
    source = "Task('use', 'job', {'in': External('delivery.txt', timeout=3600)})"
    late = expand(source, dag_args={"poke_interval": 0.1}).dag
    sensor = late.get_task("g.wait_for_delivery_txt")
    looks, poke = [], sensor.poke
    sensor.on_execute_callback = [lambda context: looks and (tmp_path / "delivery.txt").touch()]
    sensor.poke = lambda context: looks.append(1) or poke(context)

    assert run_dag(late).states == {"g.wait_for_delivery_txt": "success", "g.use": "success"}
    assert len(looks) == 2
    output = capsys.readouterr().out
    assert re.search(rf"Waiting for {tmp_path}/delivery.txt since \S+ \S+ until \S+ \S+", output)
    assert f"The relative path 'delivery.txt' is taken from workdir, which is {tmp_path}" in output


def test_external_path_sensor_without_workdir_logs_worker_folder(expand, run_dag, capsys, monkeypatch, tmp_path):
    """It is another one on each worker."""
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="workdir is not given"):
        dag = expand("Task('use', 'job', {'in': External('job.py')})", workdir=None).dag

    run_dag(dag)

    output = capsys.readouterr().out
    assert f"is taken from the working directory of this worker, {tmp_path}, as workdir is not given" in output


@pytest.mark.parametrize(
    "source",
    [
        "Task('a', 'job', {'in': External('a.txt')})",
        "Task('a', 'job', {'in': Dependency('a.txt')})",
        "Task('a', 'job', {'out': Product('a.txt')})",
        "Task('a', 'job', products=['{{ ds }}.txt', 'a.txt'])",
        "Task('a', 'job', {'out': Product('a.txt')}, run_on='slurm')",
        "Task('a', 'job', {'out': Product('a{n}.txt'), 'n': 0}).map(n=[1, 2])",
        "a = Task('b', 'job')\nTask('a', 'job', {'out': Product('a.txt')})",
    ],
)
def test_relative_paths_without_workdir_warn(expand, source):
    """Once, with the line of the DAG file."""
    with pytest.warns(UserWarning, match=r"workdir is not given, so the relative path 'a1?\.txt'") as caught:
        expand(source, workdir=None)

    own = [each for each in caught if "workdir" in str(each.message)]
    assert [os.path.basename(each.filename) for each in own] == ["conftest.py"]
    assert own[0].lineno > 1


@pytest.mark.parametrize(
    ("source", "arguments"),
    [
        ("Task('a', 'job', {'in': External('a.txt')})", {}),
        ("Task('a', 'job', {'in': External('a.txt')}, workdir='/data')", {"workdir": None}),
        ("Task('a', 'job', {'in': External('a.txt')})", {"workdir": None, "sewer_conn_id": "s"}),
        ("Task('a', 'job', {'in': External('a.txt')})", {"workdir": None, "dag_args": {"workdir": "/data"}}),
        ("Task('a', 'job', {'in': External('a.txt')})", {"workdir": None, "overrides": {"a": {"workdir": "/data"}}}),
        ("Task('a', 'job', {'in': External('/a.txt'), 'out': Product('{{ params.f }}/a')})", {"workdir": None}),
        ("Task('a', 'job', {'in': 'a.txt'})", {"workdir": None}),
    ],
)
def test_paths_with_known_folder_do_not_warn(expand, source, arguments):
    """Nor are parameters, which are the module's own business."""
    with warnings.catch_warnings(record=True) as caught:
        expand(source, **arguments)

    assert [each for each in caught if "workdir" in str(each.message)] == []


def test_operator_relative_paths_without_workdir_warn(expand):
    """For a hand-written operator and for one from a workflow file."""
    with DAG("dag", schedule=None), pytest.warns(UserWarning, match="task 'a': workdir is not given"):
        PythonModuleOperator(task_id="a", module="m", parameters_and_flags={"out": Product("a.txt")})


def one(context):
    """Be a callback."""


def other(context):
    """Be another one."""


CALLBACKS = [
    "on_execute_callback",
    "on_failure_callback",
    "on_retry_callback",
    "on_skipped_callback",
    "on_success_callback",
]


def callbacks_of(dag, field) -> dict:
    return {task.task_id: getattr(task, field) for task in dag.tasks}


@pytest.mark.parametrize("how", ["", ".map(exit=[0])"], ids=["plain", "mapped"])
@pytest.mark.parametrize("field", CALLBACKS)
def test_path_tasks_inherit_callbacks_of_group(expand, field, how):
    """Every Airflow task of the group has them."""
    source = (PATHS % "").replace("temporary=True)})", f"temporary=True)}}){how}")

    found = callbacks_of(expand(source, operator_kwargs={field: one}).dag, field)

    assert len(found) == 4
    assert all(each == [one] for each in found.values())


@pytest.mark.parametrize("given", ["overrides", "operator_kwargs"])
def test_external_path_sensor_merges_callbacks_of_consumers(expand, given, monkeypatch):
    """Each of them is called when the path does not come, in the process of a worker as well."""
    source = "from tests.task_group.test_path_tasks import other\n" if given == "operator_kwargs" else ""
    own = ", operator_kwargs={'on_failure_callback': [other]}" if given == "operator_kwargs" else ""
    source += f"Task('a', 'job', {{'in': External('a.txt')}})\nTask('b', 'job', {{'in': External('a.txt')}}{own})"
    arguments = {"overrides": {"b": {"on_failure_callback": other}}} if given == "overrides" else {}
    arguments |= {"dag_args": {"on_failure_callback": one}}
    whole = expand(source, **arguments).dag.get_task("g.wait_for_a_txt")

    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "dag")
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_TASK_ID", "g.wait_for_a_txt")
    worker = expand(source, **arguments).dag.get_task("g.wait_for_a_txt")

    names = [[each.__name__ for each in sensor.on_failure_callback] for sensor in (whole, worker)]
    assert names == [["one", "other"], ["one", "other"]]


@pytest.mark.filterwarnings("ignore:Setting email")
def test_external_path_sensor_merges_emails_of_consumers(expand):
    """Each address once; who asks for no mail of failures gets one only if another user of the path does."""
    group = expand(
        """
        no_mail = {"email_on_failure": False}
        Task("a", "job", {"in": External("a.txt")}, operator_kwargs={**no_mail, "email": "one@x, two@x"})
        Task("b", "job", {"in": External("a.txt")}, operator_kwargs={"email": ["two@x", "three@x"]})
        Task("c", "job", {"in": External("c.txt")}, operator_kwargs={**no_mail, "email": "one@x"})
        """
    )
    both, only = (group.dag.get_task(f"g.wait_for_{name}_txt") for name in "ac")

    assert (both.email, both.email_on_failure) == (["one@x", "two@x", "three@x"], True)
    assert (only.email, only.email_on_failure) == ("one@x", False)


def test_external_path_sensor_renders_params_of_consumer(expand, run_dag, tmp_path):
    """The template means the same in the task and in its sensor."""
    (tmp_path / "given.txt").touch()
    dag = expand("Task('a', 'job', {'in': External('{{ params.f }}')}, operator_kwargs={'params': {'f': 'given.txt'}})")

    assert run_dag(dag.dag).state == "success"


def test_external_path_sensor_failure_calls_group_callback(expand, run_dag):
    """The task that uses the path is only upstream_failed, and calls none."""
    failed = []
    source = "Task('a', 'job', {'in': External('a.txt', timeout=0.1)})"

    run_dag(
        expand(
            source, operator_kwargs={"on_failure_callback": lambda context: failed.append(context["ti"].task_id)}
        ).dag
    )

    assert failed == ["g.wait_for_a_txt"]


def test_external_path_sensor_short_timeout_is_kept(expand, run_dag):
    """It does not wait for its next look."""
    begin = time.monotonic()

    run_dag(expand("Task('a', 'job', {'in': External('a.txt', timeout=0.5)})").dag)

    assert time.monotonic() - begin < 15
