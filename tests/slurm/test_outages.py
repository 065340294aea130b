"""No answer is no information about a job: the monitor waits, and then continues as before."""

from __future__ import annotations

import contextlib
import os
import threading
import time

import pytest

from airflow_provider_sewer.core import errors
from tests.slurm.conftest import Jobs

HELD = {"slurm": {"additional_parameters": {"hold": True}}}


# --- A controller that is away


@pytest.fixture(scope="module")
def away(tmp_path_factory):
    """Stop a controller for 60 s while jobs run, end, and are killed; return the outcomes."""
    from tests.slurm_cluster.cluster import SlurmCluster
    from tests.slurm_cluster.packages import missing_packages

    if missing_packages():
        pytest.skip(f"Slurm is not installed; apt-get install {' '.join(missing_packages(accounting=True))}")
    folder = tmp_path_factory.mktemp("away")
    with SlurmCluster(folder / "slurm") as slurm, pytest.MonkeyPatch.context() as patch:
        for name, value in slurm.env.items():
            patch.setenv(name, value)
        jobs = Jobs(folder / "jobs", slurm)
        runs = {
            "ends meanwhile": jobs.start("wait_for('enough'); say('42')"),
            "fails meanwhile": jobs.start("wait_for('enough'); sys.exit(3)"),
            "is killed meanwhile": jobs.start("wait_for('the end of days')"),
            "ends afterwards": jobs.start("wait_for('later'); say('43')"),
        }
        waiting = jobs.start("say('44')", **HELD)
        for job in runs.values():
            job.expect_start()
            job.expect_logged("is RUNNING")
        waiting.expect_logged("JobHeldUser")
        slurm.stop_daemon("slurmctld")
        stopped = time.monotonic()
        for name in ("ends meanwhile", "fails meanwhile"):
            runs[name].create_file("enough")
        os.kill(runs["is killed meanwhile"].directory.read_start().pid, 9)
        time.sleep(max(0.0, stopped + 60 - time.monotonic()))  # the test needs time to pass
        slurm.start_daemon("slurmctld")
        slurm.release(waiting.id)
        runs["ends afterwards"].create_file("later")
        yield {**runs, "waits meanwhile": waiting}


def test_success_during_controller_outage_is_success(away) -> None:
    """The record is enough."""
    assert away["ends meanwhile"].succeeds() == "42"


def test_failure_during_controller_outage_needs_no_controller(away) -> None:
    """It does not have to wait for the controller."""
    away["fails meanwhile"].fails(errors.SlurmJobFailed, "failed with exit code 3")


def test_kill_during_controller_outage_fails_afterwards(away) -> None:
    """Without a record, the end is known once the controller is back."""
    job = away["is killed meanwhile"]
    job.fails(errors.SlurmJobFailed, "was ended by signal 9 and left no exit record")
    assert [line for line in job.logged if "No answer from Slurm about" in line or "answers again about" in line] == [
        next(line for line in job.logged if "No answer from Slurm about" in line),
        f"Slurm answers again about {job.job}",
    ]


def test_jobs_survive_controller_outage(away) -> None:
    """It ends well after the outage, as it would have without."""
    assert away["ends afterwards"].succeeds() == "43"
    assert away["waits meanwhile"].succeeds() == "44"


# --- Answers that are none


@pytest.mark.parametrize(
    "script",
    [
        "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1",
        "sleep 3; exit 1",
        "echo; echo 'all is well | really'; exit 0",
        "exit 0",
    ],
    ids=["squeue fails", "squeue hangs", "squeue prints rubbish", "squeue prints nothing"],
)
def test_failing_squeue_is_logged_once_and_ends_no_job(jobs, script) -> None:
    """It is logged once, with any error; and once that there is an answer again."""
    job = jobs.start("wait_for('enough')")
    job.expect_start()
    job.expect_logged("is RUNNING")
    before = len(job.logged)
    jobs.slurm.put_in_front("squeue", script)
    jobs.slurm.until(lambda: jobs.slurm.counted("squeue") >= 4, "some looks")
    assert job.ending is None
    jobs.slurm.take_away("squeue")
    jobs.slurm.until(lambda: len(job.logged) >= before + 2, lambda: str(job.logged))
    job.create_file("enough")
    job.succeeds()
    reported = [line for line in job.logged[before:] if "No answer" in line or "no longer known" in line]
    assert len(reported) == 1, job.logged


def test_job_missing_in_squeue_is_polled_again(jobs) -> None:
    """An answer without it is no end; the others are seen all the same."""
    left_out, shown = (jobs.start("wait_for('enough')") for _ in range(2))
    for job in (left_out, shown):
        job.expect_start()
    real = jobs.slurm.command("bash", "-c", "command -v squeue")
    jobs.slurm.put_in_front("squeue", f'{real} "$@" | grep -v {left_out.job.ref.name}; exit 0')
    left_out.expect_logged("no longer known")
    shown.create_file("enough")
    shown.succeeds()
    assert left_out.ending is None
    jobs.slurm.take_away("squeue")
    left_out.create_file("enough")
    left_out.succeeds()
    assert len([line for line in left_out.logged if "is RUNNING" in line]) <= 2


def test_frozen_controller_is_waited_for(jobs) -> None:
    """A job that ends meanwhile is a success, and one that does not goes on."""
    ends, goes_on = jobs.start("wait_for('enough')"), jobs.start("wait_for('later')")
    for job in (ends, goes_on):
        job.expect_start()
    jobs.slurm.freeze("slurmctld")
    ends.create_file("enough")
    jobs.slurm.until(lambda: ends.ending, lambda: str(ends.logged))
    goes_on.expect_logged("No answer")
    jobs.slurm.thaw("slurmctld")
    ends.succeeds()
    goes_on.create_file("later")
    goes_on.succeeds()


def test_slurmdbd_outage_does_not_affect_jobs(slurm_accounting, talk_to, jobs_on) -> None:
    """Neither a success nor a failure needs it."""
    jobs = jobs_on(talk_to(slurm_accounting))
    succeeds, fails = jobs.start("wait_for('enough')"), jobs.start("wait_for('enough'); sys.exit(3)")
    for job in (succeeds, fails):
        job.expect_start()
    slurm_accounting.stop_daemon("slurmdbd")
    succeeds.create_file("enough")
    fails.create_file("enough")
    succeeds.succeeds()
    fails.fails(errors.SlurmJobFailed, "failed with exit code 3")


def test_controller_killed_post_sbatch_runs_module_once(make_slurm, talk_to, jobs_on) -> None:
    """Whether it has lost the job or not, the module runs once at most, and only its record is a success."""
    slurm = talk_to(make_slurm(nodes=1))
    jobs = jobs_on(slurm)
    job = jobs.start("say('42')", lost_after=5.0, **HELD)
    job.job  # noqa: B018 - it is submitted
    slurm.kill("slurmctld")
    slurm.start_daemon("slurmctld")
    stop = threading.Event()

    def release() -> None:
        while not stop.wait(0.5):
            with contextlib.suppress(AssertionError):
                slurm.release(job.id)

    thread = threading.Thread(target=release)
    thread.start()
    job._thread.join(180)
    stop.set()
    thread.join()
    if job.error is None:
        assert job.succeeds() == "42"
    else:
        assert type(job.error) is errors.SlurmJobLost
        assert job.stdout == ""
    assert len([one for one in slurm.jobs(job.job.ref.name) if one.state != "CANCELLED"]) <= 1


# --- Waiting


def test_pending_reason_is_logged_when_it_changes(jobs) -> None:
    """The reason is in the log once, until there is another; an estimate that moves is none."""
    job = jobs.start("", **HELD)
    held = job.expect_logged("is PENDING, waiting for JobHeldUser")
    jobs.slurm.put_in_front("squeue")

    def update(*fields: str) -> None:
        jobs.slurm.command("scontrol", "update", f"JobId={job.id}", *fields)

    def look_thrice() -> None:
        looks = jobs.slurm.counted("squeue")
        jobs.slurm.until(lambda: jobs.slurm.counted("squeue") >= looks + 3, "some looks")

    look_thrice()
    update("StartTime=now+3600", "TimeLimit=2")
    jobs.slurm.release(job.id)
    begins_later = job.expect_logged("waiting for BeginTime", "expected to start at")
    update("StartTime=now+7200")
    look_thrice()
    update("StartTime=now")
    job.succeeds()
    assert [line for line in job.logged if "BeginTime" in line or "Held" in line] == [held, begins_later]


def test_unsatisfiable_job_is_cancelled(jobs) -> None:
    """For a dependency that failed, nodes that are not there, and more time than there is: at once, and cancelled."""
    failed = jobs.slurm.submit("exit 1")
    jobs.slurm.wait_for(failed, "FAILED")
    cases = {
        "'DependencyNeverSatisfied'": {"dependency": f"afterok:{failed}"},
        # PartitionNodeLimit or PartitionConfig: newer versions give one after the other.
        "than the partition has or allows": {"partition": "tiny", "nodes": 2},
        # PartitionTimeLimit, or PartitionConfig before that.
        "waits for 'Partition": {"partition": "tiny", "timeout_min": 100},
    }
    followed = {words: jobs.start("", slurm=slurm) for words, slurm in cases.items()}
    for words, job in followed.items():
        job.fails(errors.SlurmUnsatisfiable, words, "It has been cancelled", runs=0)
        assert jobs.slurm.state(job.id) == "CANCELLED"


def test_job_that_fits_one_partition_is_waited_for(jobs) -> None:
    """Though Slurm shows that it asks for more than the other one has."""
    blocking = jobs.slurm.submit("sleep 600", "--exclusive", "--nodes=3")
    jobs.slurm.wait_for(blocking, "RUNNING")
    job = jobs.start("say('done')", slurm={"partition": "main,tiny", "timeout_min": 100})
    job.expect_logged("waiting for PartitionTimeLimit")
    assert job.ending is None
    jobs.slurm.command("scancel", blocking)
    assert job.succeeds() == "done"


def test_fail_on_pending_reason_replaces_built_in_reasons(jobs) -> None:
    """A reason that is named ends the job; with none named, none does."""
    named = jobs.start("", fail_on_pending_reason=["JobHeldUser"], **HELD)
    patient = jobs.start("", fail_on_pending_reason=[], slurm={"partition": "tiny", "timeout_min": 100})
    named.fails(errors.SlurmUnsatisfiable, "fail_on_pending_reason names it", runs=0)
    patient.expect_logged("PartitionTimeLimit")
    assert patient.ending is None
    jobs.slurm.command("scontrol", "update", f"JobId={patient.id}", "TimeLimit=5")
    patient.succeeds()


def test_held_job_is_waited_for(jobs) -> None:
    """Its holder will release it."""
    job = jobs.start("say('42')", **HELD)
    job.expect_logged("JobHeldUser")
    jobs.slurm.release(job.id)
    assert job.succeeds() == "42"


def test_max_pending_time_ends_at_first_start(jobs) -> None:
    """A job that waits for longer is cancelled; one that runs, or was requeued after it ran, is not."""
    waits = jobs.start("", max_pending_time=2.0, **HELD)
    runs = jobs.start("wait_for('enough')", max_pending_time=2.0)
    again = jobs.start("wait_for('enough')", max_pending_time=2.0, requeue=True)
    runs.expect_start()
    again.expect_start()
    jobs.slurm.requeue(again.id)
    waits.fails(errors.SlurmPendingTooLong, "max_pending_time, 2 s", "'JobHeldUser'", runs=0)
    assert jobs.slurm.state(waits.id) == "CANCELLED"
    again.expect_start(runs=2)
    runs.create_file("enough")
    again.create_file("enough")
    runs.succeeds()
    again.end()
    assert again.error is None
