"""What waits for paths and removes them: where it runs, and what it makes of default arguments."""

from __future__ import annotations

import pytest

PATHS = """
make = Task("make", "job", {"in": External("delivery.txt"), "out": Product("raw.txt", temporary=True)}%s)
use = Task("use", "job", {"in": Dependency("raw.txt"), "exit": 3})
"""


def test_temporary_products_outlive_a_user_that_failed_whatever_the_default_trigger_rule(expand, run_dag, tmp_path):
    """It says of the tasks when they run, and nothing of when products are needed no longer."""
    (tmp_path / "delivery.txt").touch()
    dag = expand(PATHS % "", dag_args={"trigger_rule": "all_done"}).dag

    assert run_dag(dag).states["g.remove_raw_txt"] == "upstream_failed"
    assert (tmp_path / "raw.txt").exists()


@pytest.mark.parametrize("how", ["", ".map(exit=[0])"], ids=["plain", "mapped"])
def test_what_waits_and_removes_does_so_where_the_tasks_run(expand, how):
    """On workers that see the same files, with as many tries; it takes nothing from the tasks' pool."""
    given = {"queue": "files", "retries": 3, "priority_weight": 7, "pool": "few", "executor_config": {"a": 1}}
    group = expand((PATHS % "").replace("temporary=True)})", f"temporary=True)}}){how}"), operator_kwargs=given)

    assert len(list(group)) == 4
    for operator in group:
        said = {field: getattr(operator, field) for field in given}
        assert said == {**given, "pool": "few" if operator.task_id in ("g.make", "g.use") else "default_pool"}


def test_a_default_argument_says_that_paths_are_waited_for_in_the_triggerer(expand):
    """Unless the group itself says otherwise."""
    by_default = {"deferrable": True, "timeout": 5}

    sensor = expand(PATHS % "", dag_args=by_default).dag.get_task("g.wait_for_delivery_txt")
    assert (sensor.deferrable, sensor.timeout) == (True, 5)
    sensor = expand(PATHS % "", dag_args=by_default, deferrable=False).dag.get_task("g.wait_for_delivery_txt")
    assert sensor.deferrable is False


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "triggerer"])
def test_a_path_that_does_not_come_in_time_fails_what_waits(expand, run_dag, capsys, deferrable):
    """In the triggerer as well as on a worker; what would use it does not run."""
    source = "Task('use', 'job', {'in': External('never.txt', timeout=0.1)})"

    states = run_dag(expand(source, deferrable=deferrable, dag_args={"poke_interval": 0.1}).dag).states
    assert states == {"g.wait_for_never_txt": "failed", "g.use": "upstream_failed"}
    assert "AirflowSensorTimeout" in capsys.readouterr().out


def test_the_pool_of_a_task_that_takes_two_resources_can_be_named(expand):
    """As the error says that is raised without one."""
    source = "Task('a', 'job', resources={'gpu': 1, 'licence': 1}, operator_kwargs={'pool': 'gpu'})"

    assert expand(source)["a"].pool == "gpu"


def test_a_template_is_the_same_however_many_blanks_are_in_its_braces(expand):
    """The edge is there; what is inside of the braces is not touched otherwise."""
    group = expand("""
        a = Task("a", "job", {"out": Product("{{ds}}/a.txt")})
        b = Task("b", "job", {"in": Dependency("{{  ds }}/a.txt"), "out": Product("{{ ds }}/b.txt")})
        c = Task("c", "job", {"in": Dependency("{{ ds_nodash }}/a.txt")})
    """)
    assert group["b"].upstream_task_ids == {"g.a"}
    assert group["c"].upstream_task_ids == set()
    assert group["b"].products == []
    assert group["b"].parameters_and_flags["out"] == "{{ ds }}/b.txt"
