"""Containers are killed and started again while jobs run: nothing is lost, doubled or left behind."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress

import pytest

from tests.airflow.slurm_cases import check_all_reattached, succeeded

from .stack import LOGIN, PATIENCE_FOR_UP

#: Seconds that the controller is stopped for. A poll takes ten of them while the name cannot be resolved.
A_WHILE = 25.0


@pytest.fixture(autouse=True)
def all_is_well_again(stack):
    """Check after each test that all containers are healthy, and that none has ended by itself."""
    yield
    if down := stack.down():  # the test has failed
        stack.start_again(*down)
    with suppress(pytest.fail.Exception):
        stack.until(lambda: not stack.ails(), "all containers to be healthy")
    assert stack.ails() == {}


def followed(cases):
    """Wait until lines of all cases are logged."""
    for case in cases:
        case.follows()


def silent(cases):
    """Return a context in which the modules write nothing, and all that they have written is logged."""
    silence = ExitStack()
    for case in cases:
        silence.enter_context(case.silence())
    return silence


def test_slurm_job_runs_in_containers(start, stack):
    """Without any trouble: one job each, a result, a link, its whole log."""
    cases = start("works", "defers")
    followed(cases)
    for case in cases:
        case.enough()
    for case in cases:
        succeeded(case)
        (job,) = case.jobs()
        assert stack.links(*case.key) == {"Slurm job": f"https://slurm.example/jobs/{job.id}"}


def test_jobs_survive_triggerer_container_restart(start, stack):
    """It is killed, and started again when one job has ended, and one has failed: no line is doubled or lost."""
    going_on, ending, failing = cases = start("defers", "defers", "defers_once")
    failing.send("fails")
    followed(cases)
    with silent(cases):
        stack.kill("airflow-triggerer")
    for case in (ending, failing):
        case.enough()
        case.is_over()
    stack.start_again("airflow-triggerer")
    check_all_reattached(going_on, ending, failing)


@pytest.mark.parametrize("way", ["killed", "restarted"])
def test_jobs_survive_scheduler_container_restart(start, stack, way):
    """Its running tasks end with it and start again, also without retries: jobs continue, local modules run again."""
    local, *cases = start("stays", "works", "works_once", "defers_once")
    followed([local, *cases])
    with silent(cases):
        if way == "killed":
            stack.kill("airflow-scheduler")
            stack.start_again("airflow-scheduler")
        else:
            stack.compose("restart", "airflow-scheduler")
    for case in (local, *cases):
        if case is not cases[-1]:
            case.until(lambda case=case: case.tries() > 1, "the next try")
            case.is_followed()
        case.enough()
    for case in cases:
        succeeded(case)
    local.ends("success")
    _, *numbers = local.logged(local.tries())
    assert numbers == [f"none 0 {number}" for number in range(local.result()["lines"])]
    assert stack.processes("airflow-scheduler", str(local.folder)) == []


def test_jobs_survive_api_server_container_restart(start, stack):
    """No server accepts heartbeats or logs for a while: the same try continues."""
    cases = start("works_once", "defers_once")
    followed(cases)
    began = time.monotonic()
    stack.kill("airflow-apiserver")
    while time.monotonic() - began < A_WHILE:
        stack.run_in(LOGIN, "sleep", "1")
    stack.start_again("airflow-apiserver")
    for case in cases:
        case.enough()
    for case in cases:
        succeeded(case)
        assert case.tries() == 1


def test_log_is_complete_when_api_server_stops_before_scheduler(start, stack):
    """The log forwarder is busy retrying the API server, and dies with its unread lines."""
    case = start("works")
    case.follows()
    stack.kill("airflow-apiserver")
    before, began = len(case.written()["1"]), time.monotonic()
    while len(case.written()["1"]) < before + 100:
        assert time.monotonic() - began < PATIENCE_FOR_UP
    stack.kill("airflow-scheduler")
    stack.start_again("airflow-apiserver")
    stack.start_again("airflow-scheduler")
    case.until(lambda: case.tries() == 2, "the next try")
    case.is_followed()
    case.enough()
    case.ends("success")
    case.has_seen("COMPLETED")
    logged = set(case.logged())
    assert [line for line in case.written()["1"][1:] if line not in logged] == []


def test_killed_node_fails_or_retries_its_tasks(start, stack):
    """No task succeeds: one with retries runs again on the other node, one without fails and names the node."""
    stack.run_in("slurmctld", "scontrol", "update", "nodename=node2", "state=drain", "reason=test")
    again, once = cases = start("defers", "works_once")
    followed(cases)
    stack.run_in("slurmctld", "scontrol", "update", "nodename=node2", "state=resume")
    elsewhere = start("works_once")
    elsewhere.follows()
    assert [case.nodes() for case in (again, once, elsewhere)] == [["node1"], ["node1"], ["node2"]]
    stack.kill("node1")
    once.ends("failed")
    assert "lost its node on node1" in once.text_of_log()
    again.runs(2)
    assert again.nodes() == ["node1", "node2"]
    stack.start_again("node1")
    for case in (again, elsewhere):
        case.enough()
    succeeded(again, earlier=("NODE_FAIL",))
    again.earlier_log_is_true()
    succeeded(elsewhere)
    once.has_seen("NODE_FAIL")
    for case in cases:
        case.is_over()


@pytest.mark.parametrize("way", ["killed", "stopped for a while"])
def test_jobs_survive_slurmctld_container_restart(start, stack, way):
    """They run and end while its name does not resolve; jobs submitted meanwhile wait for it."""
    cases = start("works_once", "defers_once", "works_once", "defers_once")
    followed(cases)
    if way == "killed":
        # It would lose unsaved jobs, and reuse their ids.
        (job,) = cases[-1].until(cases[-1].jobs, "accounting to hear of the job")
        stack.has_remembered(job)
        stack.kill("slurmctld")
    else:
        stack.compose("stop", "slurmctld")
    began = time.monotonic()
    for case in cases[:2]:
        case.enough()
    if way == "killed":
        stack.start_again("slurmctld")
    else:
        late = start("works_once")
        late.until(lambda: "trying again" in late.text_of_log(), "its submission to wait")
        stack.until(lambda: time.monotonic() - began > A_WHILE, "some failed polls")
        for case in cases[:2]:
            case.ends("success")  # the record is enough
        stack.start_again("slurmctld")
        late.runs()
        cases.append(late)
    for case in cases[2:]:
        case.enough()
    for case in cases:
        succeeded(case, is_remembered=way != "killed")
        assert case.tries() == 1


def test_jobs_survive_slurmdbd_and_munge_container_restart(start, stack):
    """These are killed, and started again when one job each has ended: it is nothing to those jobs."""
    cases = start("works_once", "defers_once", "works_once", "defers_once")
    followed(cases)
    services = ("munge", "slurmdbd", "mariadb")
    stack.kill(*services)
    for case in cases[:2]:
        case.enough()
    for case in cases[:2]:
        case.ends("success")
    stack.start_again(*services)
    for case in cases[2:]:
        case.enough()
    for case in cases:
        succeeded(case)
        assert case.tries() == 1


def test_jobs_are_retried_after_all_containers_restart(start, stack):
    """They are stopped and brought up again: a task whose node was stopped neither succeeds nor waits forever."""
    again, once = cases = start("defers", "defers_once")
    followed(cases)
    stack.compose("stop")
    stack.compose("up", "--detach", "--no-build", "--wait", timeout=PATIENCE_FOR_UP)
    again.runs(2)
    once.ends("failed")
    again.enough()
    succeeded(again, earlier=("NODE_FAIL",))
    for case in cases:
        case.earlier_log_is_true()
    once.has_seen("NODE_FAIL")
    once.is_over()
