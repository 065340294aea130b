"""Deferred tasks go on while the triggerer, the controller or the accounting of Slurm are away for a while."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from .slurm_cases import SECRET, Case, check_all_reattached, succeeded


@pytest.fixture
def other_slurm(stage, make_slurm):
    """Return a function that starts a cluster which forgets jobs at once, and leads Airflow to it."""
    before = stage.slurm

    def start(*, accounting):
        cluster = make_slurm(nodes=1, min_job_age=2, accounting=accounting)
        stage.lead_to(cluster)
        return cluster

    yield start
    stage.lead_to(before)
    # Its pollers still refer to the other cluster.
    stage.airflow.restart_part("triggerer")


def test_deferred_task_log_is_updated(start, stage, airflow):
    """The output of a module can be read before it ends; none of its secrets is in Airflow."""
    case = start("defers")
    case.is_deferred()
    before = len(case.logged())
    case.until(lambda: len(case.logged()) > before, "more lines")
    assert case.state() == "deferred"
    assert case.logged()[0] == "the token is ***"
    case.enough()
    succeeded(case)
    assert [SECRET in line for line in case.written()["1"]][:2] == [True, False]
    files = [path for path in airflow.home.rglob("*") if path.is_file()]
    assert any("attempt=1.log.trigger" in path.name for path in files)
    # The database with its journal: rendered fields, XComs and triggers.
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    scripts = [*case.folder.rglob("job.sh"), *case.folder.rglob("environment.sh"), *case.folder.rglob("secrets.sh")]
    assert [path for path in scripts if SECRET in path.read_text()] == []


@pytest.mark.parametrize("way", ["SIGKILL", "SIGTERM"])
def test_jobs_survive_triggerer_restart(start, airflow, way):
    """A new one takes them up, whether they still run or have ended meanwhile: no line is doubled or lost."""
    going_on, ending, failing = cases = start("defers", "defers", "defers_once")
    failing.send("fails")
    for case in cases:
        case.is_deferred()
    with ExitStack() as silence:
        if way == "SIGKILL":
            for case in cases:
                silence.enter_context(case.silence())
            airflow.kill_part("triggerer")
        else:
            airflow.stop_part("triggerer")
    for case in (ending, failing):
        case.enough()
        case.is_over()
    going_on.has_seen("RUNNING")
    airflow.start_part("triggerer")
    check_all_reattached(going_on, ending, failing)


@pytest.mark.parametrize("trouble", ["stopped for a minute", "frozen", "killed"])
def test_jobs_survive_slurmctld_restart(start, stage, trouble):
    """They run and end while the controller does not answer, and a worker and the triggerer collect them."""
    cases = start("works_once", "defers_once", "works_once", "defers_once")
    for case in cases:
        case.is_followed() if case.dag_id == "works_once" else case.is_deferred()
    slurm, began = stage.slurm, time.monotonic()
    if trouble == "frozen":
        slurm.freeze("slurmctld")
    elif trouble == "killed":
        slurm.kill("slurmctld")
    else:
        slurm.stop_daemon("slurmctld")
    for case in cases[:2]:
        case.enough()
        case.until(lambda case=case: not case.processes(), "the end of the module")
        if trouble == "frozen":
            case.ends("success")  # the record is enough
    if trouble == "stopped for a minute":
        stage.airflow.until(lambda: time.monotonic() - began > 60, "a minute to pass")
    if trouble == "frozen":
        slurm.thaw("slurmctld")
    else:
        slurm.start_daemon("slurmctld")
    for case in cases[2:]:
        case.enough()
    for case in cases:
        succeeded(case, is_remembered=trouble != "killed")
        assert case.tries() == 1


def test_slurmctld_killed_after_sbatch_loses_no_task(start, stage):
    """If it forgets the job that it has just taken, the task learns that from a state or a record, not from hope."""
    stage.slurm.put_in_front("sbatch", "")
    cases = start("works", "defers")
    stage.airflow.until(lambda: stage.slurm.counted("sbatch") == 2 or any(c.jobs() for c in cases), "a submission")
    stage.slurm.kill("slurmctld")
    stage.slurm.start_daemon("slurmctld")
    for case in cases:
        case.runs()
        case.enough()
    for case in cases:
        case.ends("success")
        case.is_over()
        job = case.result()["job"]
        assert list(case.written().values())[-1][-1].split()[0] == job
        # The controller may have forgotten it, and even give its number to another one.
        assert [known.id for known in case.jobs() if known.state == "COMPLETED"] in ([], [job])


@pytest.mark.parametrize("accounting", [False, True], ids=["without accounting", "with accounting"])
def test_jobs_unknown_to_slurm_use_exit_record_or_accounting(other_slurm, stage, tmp_path, accounting):
    """The record makes a success; without one accounting knows the end, and without that the job is lost."""
    cluster = other_slurm(accounting=accounting)
    stage.airflow.restart_part("triggerer")
    well, killed = cases = [Case(stage, tmp_path / name, "defers_once") for name in ("well", "killed")]
    for case in cases:
        case.is_deferred()
    with well.silence():
        stage.airflow.kill_part("triggerer")
    well.enough()
    (job,) = killed.jobs()
    cluster.command("scancel", job.id)
    for case in cases:
        case.is_over()
    for record in killed.folder.rglob("exit.json"):
        record.unlink()
    well.until(lambda: not cluster.command("squeue", "-h", "-t", "all"), "Slurm to forget its jobs")
    stage.airflow.start_part("triggerer")
    succeeded(well)
    killed.ends("failed")
    assert ("is lost: " in killed.text_of_log()) is not accounting
