"""One job for one attempt, with any failure of sbatch, the controller and accounting."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_sewer.core.errors import (
    SlurmJobLost,
    SlurmPendingTooLong,
    SlurmSubmissionRejected,
    SlurmUnavailable,
)
from airflow_provider_sewer.slurm import accounting_queue, submission
from tests.slurm.conftest import Jobs
from tests.slurm.worker import folders, let_go, real, seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_sewer.slurm.job_spec import JobSpec
    from tests.slurm_cluster.cluster import SlurmCluster

UNREACHABLE = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
STRANGE = "sbatch: error: Batch job submission failed: A gremlin sits in the machine"


@pytest.fixture
def quick_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between two tries."""
    monkeypatch.setattr(submission, "_FIRST_PAUSE", 0.05)
    monkeypatch.setattr(submission, "_LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(submission, "_SHOWS_UP", 0.1)


def failing(words: str, times: int) -> str:
    """Return a script that lets a command fail so many times."""
    return f"if [ $count -le {times} ]; then echo '{words}' >&2; exit 1; fi"


def count_lines(logged: list[str], part: str) -> int:
    return sum(part in line for line in logged)


# -- sbatch that fails, or prints odd text -----------------------------------------------------------------------------


@pytest.mark.parametrize("words", [UNREACHABLE, STRANGE, ""], ids=["unreachable", "unknown", "silent"])
@pytest.mark.usefixtures("quick_tries")
def test_sbatch_failing_five_times_submits_one_job(plan, jobs, slurm, words):
    """A repeated message is logged once."""
    planned = plan("say('done')")
    slurm.put_in_front("sbatch", failing(words, 5))
    run = jobs.follow(planned)
    assert run.succeeds() == "done"
    assert seen(slurm, planned) == [run.id]
    assert slurm.counted("sbatch") == 6
    assert count_lines(run.logged, "Not submitted yet") == 1


@pytest.mark.usefixtures("quick_tries")
def test_permanent_unclassified_error_raises_slurm_unavailable(plan, jobs, slurm):
    """The task fails, and may be retried; nothing was submitted."""
    planned = plan("say('done')")
    slurm.put_in_front("sbatch", failing(STRANGE, 1000))
    run = jobs.follow(planned)
    run._thread.join(60)
    assert isinstance(run.error, SlurmUnavailable)
    assert "A gremlin sits in the machine" in str(run.error)
    assert slurm.counted("sbatch") == submission._MOST_UNCLASSIFIED + 1
    assert seen(slurm, planned) == []


@pytest.mark.usefixtures("quick_tries")
def test_unresolvable_controller_name_is_waited_for(plan, jobs, slurm):
    """As while its container is gone: sbatch then prints an error of a name, and in the end that there was no error."""
    planned = plan("say('done')")
    words = ['slurm_set_addr: Unable to resolve "slurmctld"', "Batch job submission failed: No error"]
    slurm.put_in_front(
        "sbatch", failing("\n".join(f"sbatch: error: {line}" for line in words), submission._MOST_UNCLASSIFIED + 3)
    )
    run = jobs.follow(planned)
    assert run.succeeds() == "done"
    assert slurm.counted("sbatch") == submission._MOST_UNCLASSIFIED + 4


@pytest.mark.parametrize("expect_output", ["Welcome to the cluster", ""])
@pytest.mark.usefixtures("quick_tries")
def test_sbatch_without_job_id_finds_job_by_name(plan, jobs, slurm, expect_output):
    """It exits with 0 and rubbish; the job is found by its name."""
    planned = plan("say('done')")
    slurm.put_in_front("sbatch", f"{real(slurm, 'sbatch')} \"$@\" >/dev/null; echo '{expect_output}'; exit 0")
    run = jobs.follow(planned)
    assert run.succeeds() == "done"
    assert slurm.counted("sbatch") == 1
    assert seen(slurm, planned) == [run.id]


def test_sbatch_output_before_job_id_is_ignored(plan, jobs, slurm):
    """The id is on the last line, and not a number above it."""
    planned = plan("say('done')")
    slurm.put_in_front("sbatch", "echo 2000 cores are free today")
    run = jobs.follow(planned)
    assert run.succeeds() == "done"
    assert seen(slurm, planned) == [run.id]


def test_hanging_sbatch_without_job_is_repeated(plan, jobs, slurm):
    """It is ended in time, and nothing came of it."""
    planned = plan("say('done')")
    slurm.put_in_front("sbatch", "[ $count -gt 1 ] || exec sleep 600")
    run = jobs.follow(planned, patience=2)
    assert run.succeeds() == "done"
    assert seen(slurm, planned) == [run.id]
    run.expect_logged("sbatch timed out after 2 s")


# -- A controller that is away -----------------------------------------------------------------------------------------


def test_sbatch_timeout_with_accepted_job_is_not_repeated(plan, jobs, slurm, tmp_path):
    """The controller freezes, and accepts the job as soon as it thaws, after sbatch has timed out."""
    planned = plan("say('done')")
    go = tmp_path / "frozen"
    slurm.put_in_front("sbatch", f"while [ ! -e {go} ]; do sleep 0.05; done")
    run = jobs.follow(planned)
    slurm.until(lambda: slurm.counted("sbatch"), "sbatch")
    slurm.freeze("slurmctld")
    go.touch()
    run.expect_logged("Not submitted yet, trying again ")
    slurm.thaw("slurmctld")
    assert run.succeeds() == "done"
    assert seen(slurm, planned) == [run.id]
    assert slurm.counted("sbatch") == 1


@pytest.mark.parametrize("when", ["before", "during"])
def test_stopped_controller_is_waited_for(plan, jobs, slurm, when, tmp_path):
    """It is stopped before the first look-up, or between that and sbatch."""
    planned = plan("say('done')")
    go = tmp_path / "stopped"
    slurm.put_in_front("squeue")
    slurm.put_in_front("sbatch", f"while [ ! -e {go} ]; do sleep 0.05; done")
    if when == "before":
        slurm.stop_daemon("slurmctld")
    run = jobs.follow(planned, patience=2)
    if when == "during":
        slurm.until(lambda: slurm.counted("sbatch"), "sbatch")
        slurm.stop_daemon("slurmctld")
    go.touch()
    run.expect_logged("trying again")
    slurm.start_daemon("slurmctld")
    assert run.succeeds() == "done"
    assert seen(slurm, planned) == [run.id]


def test_stopped_controller_is_waited_for_up_to_max_pending_time(plan, jobs, slurm):
    """It ends as a wait that was too long; nothing runs when the controller is back."""
    planned = plan("say('done')", max_pending_time=1)
    slurm.stop_daemon("slurmctld")
    run = jobs.follow(planned, patience=2)
    run._thread.join(60)
    assert isinstance(run.error, SlurmPendingTooLong)
    assert "max_pending_time, 1 s" in str(run.error)
    slurm.start_daemon("slurmctld")
    assert seen(slurm, planned) == []


@pytest.mark.usefixtures("quick_tries")
def test_controller_timeout_ends_submission_that_slurm_does_not_answer(plan, jobs, slurm):
    """`sppe run` has one; the log line names the end of the wait."""
    planned = plan("say('done')")._replace(controller_timeout=1.0)
    slurm.put_in_front("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    run = jobs.follow(planned)
    run._thread.join(60)
    assert isinstance(run.error, SlurmUnavailable)
    assert re.search(
        r"no answer from Slurm for 1 s; Cannot look for .* again until 2.* \(set max_pending_time ", str(run.error)
    )


@pytest.mark.usefixtures("quick_tries")
def test_controller_timeout_does_not_limit_wait_for_room(plan, jobs, slurm):
    """A controller with a full queue answers."""
    planned = plan("say('done')")._replace(controller_timeout=0.01)
    words = "sbatch: error: Batch job submission failed: Resource temporarily unavailable"
    slurm.put_in_front("sbatch", failing(words, 3))
    run = jobs.follow(planned)
    assert run.succeeds() == "done"
    assert slurm.counted("sbatch") == 4


def test_forgotten_job_is_lost_and_new_owner_of_id_untouched(make_slurm, talk_to, tmp_path):
    """The controller is killed before it has saved the job, and gives the id to a job of another user."""
    slurm = talk_to(make_slurm(nodes=1))
    planned = Jobs(tmp_path / "jobs", slurm).plan(
        "say('done')", lost_after=1.0, slurm={"additional_parameters": {"hold": True}}
    )
    jobs = Jobs(tmp_path / "others", slurm)
    run = jobs.follow(planned)
    run.expect_logged("PENDING")
    slurm.kill("slurmctld", signal.SIGKILL)
    for path in slurm._run_folder.glob("state/*job*"):
        path.unlink() if path.is_file() else None
    slurm.start_daemon("slurmctld")
    foreign = slurm.submit("sleep 600", "--job-name=foreign")
    assert foreign == run.id
    run._thread.join(60)
    assert isinstance(run.error, SlurmJobLost)
    slurm.wait_for(foreign, "RUNNING")
    run.run.cancel()
    assert slurm.state(foreign) == "RUNNING"


# -- Accounting that is away -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_tries")
def test_slurmdbd_outage_causes_no_duplicate_submission(slurm_accounting, talk_to, tmp_path):
    """After a failed submission, accounting is waited for as well: the job might be over and forgotten."""
    slurm = talk_to(slurm_accounting)
    jobs = Jobs(tmp_path / "jobs", slurm)
    slurm.put_in_front("sbatch", failing(UNREACHABLE, 1))
    slurm.stop_daemon("slurmdbd")
    run = jobs.follow(jobs.plan("say('done')"), patience=2)
    run.expect_logged("Cannot look for", "sacct")
    assert slurm.counted("sbatch") == 1
    slurm.start_daemon("slurmdbd")
    assert run.succeeds() == "done"
    assert slurm.counted("sbatch") == 2


#: More submissions that need an answer of accounting than there may be at once that need one of the controller.
MANY = 10


@pytest.mark.usefixtures("quick_tries")
def test_hanging_sacct_does_not_block_other_submissions(slurm_accounting, talk_to, tmp_path):
    """Submissions that Slurm has not answered wait for it in turn: at most one sacct of a process is under way."""
    slurm = talk_to(slurm_accounting)
    jobs = Jobs(tmp_path / "jobs", slurm)
    slurm.put_in_front("sbatch", failing(UNREACHABLE, MANY))
    answers, busy, overlap = (tmp_path / name for name in ("answers", "busy", "overlap"))
    hangs = f"while [ ! -e {answers} ]; do sleep 0.1; done"
    slurm.put_in_front("sacct", f"mkdir {busy} || touch {overlap}; ( {hangs} ); rmdir {busy}")
    waiting = [jobs.start("say('done')") for _ in range(MANY)]
    slurm.until(lambda: slurm.counted("sbatch") >= MANY and slurm.counted("sacct"), "a sacct that hangs")

    other = jobs.start("say('other')")

    assert other.succeeds() == "other"
    assert slurm.counted("sacct") < 4  # one after the other
    assert slurm.counted("sbatch") == MANY + 1
    answers.touch()
    assert [run.succeeds() for run in waiting] == ["done"] * MANY
    assert slurm.counted("sbatch") == 2 * MANY + 1
    assert not overlap.exists()


@pytest.mark.usefixtures("quick_tries")
def test_hanging_sacct_is_killed_and_queried_after_pause(slurm_accounting, talk_to, tmp_path, monkeypatch):
    """One for all that wait; a submission that was not answered goes on as soon as accounting answers."""
    monkeypatch.setattr(accounting_queue, "_FIRST_PAUSE", 0.7)
    slurm = talk_to(slurm_accounting)
    jobs = Jobs(tmp_path / "jobs", slurm)
    slurm.put_in_front("sbatch", failing(UNREACHABLE, 3))
    times = tmp_path / "times"
    slurm.put_in_front("sacct", f"date +%s.%N >> {times}; [ $count -gt 3 ] || exec sleep 600")
    runs = [jobs.follow(jobs.plan("say('done')"), patience=1) for _ in range(3)]

    assert [run.succeeds() for run in runs] == ["done"] * 3
    assert any("sacct timed out after 1 s" in line for run in runs for line in run.logged)
    began = [float(line) for line in times.read_text().splitlines()]
    pauses = [later - earlier - 1 for earlier, later in itertools.pairwise(began[:4])]
    # Less the time that one sacct took more than the next from its start to its first command.
    assert all(pause > 0.9 * least for pause, least in zip(pauses, (0.7, 1.4, 2.8), strict=True)), pauses


# -- Refusals and limits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asks", "words"),
    [
        ({"partition": "nope"}, "Invalid partition name"),
        ({"mem_gb": 9000}, "Memory specification can not be satisfied"),
        ({"gpus_per_node": 99}, "Requested node configuration is not available"),
        ({"nodelist": "nowhere"}, "Invalid node name"),
        ({"constraint": "nonesuch"}, "Invalid feature"),
        ({"additional_parameters": {"reservation": "none"}}, "Requested reservation is invalid"),
        ({"additional_parameters": {"no-such-option": "x"}}, "unrecognized option"),
        ({"additional_parameters": {"begin": "whenever"}}, "Invalid --begin specification"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_permanent_rejection_raises_submission_rejected(plan, jobs, slurm, asks, words):
    """sbatch is called once, and the next try begins with a new attempt."""
    planned = plan("say('done')", slurm=asks)
    slurm.put_in_front("sbatch")
    run = jobs.follow(planned)
    run._thread.join(60)
    assert isinstance(run.error, SlurmSubmissionRejected), (run.error, run.logged)
    assert words in str(run.error)
    assert slurm.counted("sbatch") == 1
    assert {job.state for job in slurm.jobs(planned.instance.dag_id)} <= {"FAILED"}
    assert folders(planned)[0].read_ended() == "failed"


@pytest.fixture
def strict(make_slurm: Callable[..., SlurmCluster], talk_to: Callable[..., Any]) -> SlurmCluster:
    """Return a cluster that enforces accounts, limits and the times of partitions."""
    conf = "AccountingStorageEnforce=associations,limits,qos\nEnforcePartLimits=ALL"
    slurm = make_slurm(nodes=1, accounting=True, extra_conf=conf)
    me = slurm.command("id", "-un")
    slurm.command("sacctmgr", "-i", "add", "account", "lab")
    slurm.command("sacctmgr", "-i", "add", "user", me, "account=lab")
    slurm.command("sacctmgr", "-i", "modify", "user", me, "set", "DefaultAccount=lab")
    slurm.until(lambda: "lab" in slurm.command("scontrol", "show", "assoc_mgr", "flags=assoc"), "the account")
    return talk_to(slurm)


@pytest.mark.usefixtures("quick_tries")
def test_account_limits_are_rejected_or_waited_for(strict, tmp_path):
    """Wrong ones are refused at once; a limit on the number of jobs is waited for, within max_pending_time."""
    jobs = Jobs(tmp_path / "jobs", strict)
    for asks, words in [
        ({"account": "nope"}, "Invalid account"),
        ({"qos": "nope"}, "Invalid qos"),
        ({"nodes": 99}, "More processors requested"),
        ({"partition": "tiny", "timeout_min": 100}, "Requested time limit is invalid"),
    ]:
        run = jobs.follow(jobs.plan("say('done')", slurm=asks))
        run._thread.join(60)
        assert isinstance(run.error, SlurmSubmissionRejected), (run.error, run.logged)
        assert words in str(run.error)
    me = strict.command("id", "-un")
    strict.command("sacctmgr", "-i", "modify", "user", me, "where", "account=lab", "set", "MaxSubmitJobs=1")
    first = jobs.plan("wait_for('go'); say('done')")
    one = jobs.follow(first)
    assert strict.state(one.id)
    hasty = jobs.follow(jobs.plan("say('done')", max_pending_time=1))
    hasty._thread.join(60)
    assert isinstance(hasty.error, SlurmPendingTooLong), hasty.error
    assert "MaxSubmitJob" in str(hasty.error)
    assert re.search(
        r"trying again until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+ \(max_pending_time\): ", "\n".join(hasty.logged)
    )
    other = jobs.follow(jobs.plan("say('done')"))
    other.expect_logged("Not submitted yet", "AssocMaxSubmitJobLimit")
    let_go(first)
    assert one.succeeds() == other.succeeds() == "done"


@pytest.mark.usefixtures("quick_tries")
def test_full_queue_is_waited_for(make_slurm, talk_to, tmp_path):
    """Where MaxJobCount is reached, sbatch hangs and is called again until there is room."""
    slurm = talk_to(make_slurm(nodes=1, min_job_age=2, extra_conf="MaxJobCount=2"))
    jobs = Jobs(tmp_path / "jobs", slurm)
    blocking = fill_queue(slurm)
    run = jobs.follow(jobs.plan("say('done')"), patience=3)
    run.expect_logged(
        "Not submitted yet, trying again without a limit (set max_pending_time to have one)", "sleeping and retrying"
    )
    slurm.command("scancel", blocking)
    assert run.succeeds() == "done"


@pytest.mark.usefixtures("quick_tries")
def test_full_queue_does_not_query_sacct(make_slurm, talk_to, tmp_path):
    """A queue that was full has taken no job that could have ended, and accounting may hang."""
    slurm = talk_to(make_slurm(nodes=1, min_job_age=2, extra_conf="MaxJobCount=2", accounting=True))
    jobs = Jobs(tmp_path / "jobs", slurm)
    blocking = fill_queue(slurm)
    slurm.put_in_front("sacct")
    run = jobs.follow(jobs.plan("say('done')"), patience=3)
    run.expect_logged("Not submitted yet", "sleeping and retrying")
    slurm.command("scancel", blocking)
    assert run.succeeds() == "done"
    assert slurm.counted("sacct") == 0


def fill_queue(slurm) -> str:
    """Submit jobs until sbatch has to wait, and return the last one: versions differ in how many there are."""
    argv = ["sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 600"]
    env = {**os.environ, **slurm.env}
    accepted = ""
    while True:
        with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as sbatch:
            complaint = sbatch.stderr.readline()
            if complaint:
                sbatch.kill()
                assert accepted, complaint
                return accepted
            accepted = sbatch.stdout.read().strip()


# -- Where nothing can be written --------------------------------------------------------------------------------------


def test_run_dir_that_is_a_file_raises_slurm_unavailable(plan, jobs, slurm, tmp_path):
    """So is one below a file."""
    file = tmp_path / "file"
    file.write_text("")
    slurm.put_in_front("sbatch")
    for run_dir in (file, file / "below"):
        planned = plan("say('done')")
        run = jobs.follow(planned._replace(slurm=planned.slurm._replace(run_dir=str(run_dir))))
        run._thread.join(60)
        assert isinstance(run.error, SlurmUnavailable)
        assert str(run.error).startswith(f"run_dir: cannot use '{file}")
        assert "Not a directory" in str(run.error)
    assert slurm.counted("sbatch") == 0


def test_run_dir_that_cannot_be_created_raises_slurm_unavailable(plan, jobs, slurm):
    """The error has the system's message; not even an administrator can create a folder there."""
    planned = plan("say('done')")
    run = jobs.follow(planned._replace(slurm=planned.slurm._replace(run_dir="/proc/sewer-runs")))
    run._thread.join(60)
    assert isinstance(run.error, SlurmUnavailable)
    assert "cannot use '/proc/sewer-runs/" in str(run.error)
    assert seen(slurm, planned) == []


def test_full_disk_raises_slurm_unavailable(plan, slurm, worker, tmp_path):
    """No file can take another byte: so it is with a quota, too."""
    planned: JobSpec = plan("say('done')")
    slurm.put_in_front("sbatch")
    logged = worker(planned, most_bytes=0).wait()
    assert any(line.startswith("SlurmUnavailable: run_dir: cannot write into") for line in logged), logged
    assert slurm.counted("sbatch") == 0
    assert not list(Path(planned.slurm.run_dir or "").glob("**/attempt.json"))
