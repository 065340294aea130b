"""Client of Slurm's commands: queries, and their answers."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from airflow_provider_sewer.core.errors import SlurmUnavailable
from airflow_provider_sewer.slurm import accounting_queue, client
from airflow_provider_sewer.slurm.backend import UNKNOWN_JOB, CommandNotFound, JobRef, SlurmUnreachable
from airflow_provider_sewer.slurm.client import SlurmClient

if TYPE_CHECKING:
    from tests.slurm_cluster.cluster import SlurmCluster


@pytest.fixture
def on(slurm, talk_to) -> SlurmCluster:
    """Return the cluster without accounting, to which this process talks."""
    return talk_to(slurm)


@pytest.fixture
def on_accounting(slurm_accounting, talk_to) -> SlurmCluster:
    """Return the cluster with accounting, to which this process talks."""
    return talk_to(slurm_accounting)


def ref(job_id: str, name: str) -> JobRef:
    return JobRef(job_id, name, "/nowhere")


# -- Answers -----------------------------------------------------------------------------------------------------------


def test_poll_parses_all_squeue_fields(on):
    """Reasons with spaces, bars in names, and jobs that wait, run and have ended."""
    options = ("--job-name=a|b  c|d", "--no-requeue")
    held = on.submit("exit 0", "--hold", "-d", "singleton", *options)
    runs = on.submit("sleep 600", "-N2", "--job-name=runs")
    failed = on.submit("exit 3", "--job-name=fails")
    killed = on.submit("kill -SEGV $$", "--job-name=killed")
    on.wait_for(runs, "RUNNING")
    for job in (failed, killed):
        on.wait_for(job, "FAILED")
    jobs = [ref(held, "a|b  c|d"), ref(runs, "runs"), ref(failed, "fails"), ref(killed, "killed"), ref("99999", "x")]
    seen = SlurmClient().poll(jobs)
    assert [seen[job].state for job in jobs] == ["PENDING", "RUNNING", "FAILED", "FAILED", ""]
    assert seen[jobs[0]].reason == "JobHeldUser"
    assert seen[jobs[1]].node.startswith("n[")
    assert seen[jobs[1]].start == pytest.approx(time.time(), abs=120)
    assert (seen[jobs[2]].exit_code, seen[jobs[2]].signal) == (3, None)
    assert seen[jobs[3]].signal == 11
    assert seen[jobs[4]] is UNKNOWN_JOB


def test_poll_parses_reason_with_spaces(on):
    """As for a job that was requeued and held."""
    job_id = on.submit("sleep 600", "--job-name=held", "--requeue")
    on.wait_for(job_id, "RUNNING")
    on.command("scontrol", "requeuehold", job_id)
    job = ref(job_id, "held")
    on.until(lambda: SlurmClient().poll([job])[job].reason == "job requeued in held state", "the reason")


def test_poll_queries_sacct_for_jobs_unknown_to_squeue(make_slurm, talk_to):
    """By id and name; a name that has bars and spaces too."""
    slurm = talk_to(make_slurm(nodes=1, accounting=True, min_job_age=2))
    job_id = slurm.submit("exit 3", "--job-name=a|b c")
    slurm.wait_for(job_id, "FAILED")
    client, job = SlurmClient(), ref(job_id, "a|b c")
    slurm.until(lambda: not slurm.command("squeue", "-h", "-t", "all"), "the controller to forget")
    slurm.until(lambda: client.poll([job])[job].state == "FAILED", "accounting to know")
    assert client.poll([job])[job].exit_code == 3
    assert client.poll([ref(job_id, "other")]) == {ref(job_id, "other"): UNKNOWN_JOB}
    assert client.find("a|b c", "/nowhere") is None
    assert client.find_in_accounting("a|b c", "/nowhere", since=600) == job_id
    slurm.stop_daemon("slurmdbd")
    assert client.poll([job, ref("4711", "x")]) == {}


def test_poll_queries_disabled_accounting_once(on):
    """From then on, the controller is all there is."""
    on.put_in_front("sacct")
    client = SlurmClient()
    assert client.find_in_accounting("nobody", "/nowhere", since=60) is None
    assert client.poll([ref("99999", "nobody")]) == {ref("99999", "nobody"): UNKNOWN_JOB}
    assert on.counted("sacct") == 1


def test_poll_ignores_sacct_row_of_running_state(on_accounting):
    """While slurmdbd catches up, it may show a job as running that the controller has forgotten."""
    on_accounting.put_in_front("sacct", "echo '7|RUNNING|0:0|n1|/|odd'; echo '8|SOMETHING_NEW|0:0|n1|/|odd'; exit 0")
    jobs = [ref("7", "odd"), ref("8", "odd")]
    assert SlurmClient().poll(jobs) == dict.fromkeys(jobs, UNKNOWN_JOB)


def test_poll_gives_no_status_if_sacct_exits_0_without_slurmdbd(on_accounting):
    """As where the name of its host cannot be resolved, while its container is gone."""
    message = "getaddrinfo() failed: Name or service not known: No error, attempt number 5"
    lines = [
        f"get_addr_info: {message}",
        "Sending PersistInit msg: No error",
        "DBD_GET_JOBS_COND failure: Unspecified error",
    ]
    on_accounting.put_in_front("sacct", "".join(f"echo 'sacct: error: {line}' >&2; " for line in lines) + "exit 0")
    client, job = SlurmClient(), ref("99999", "x")
    assert client.poll([job]) == {}
    with pytest.raises(SlurmUnreachable, match="sacct exited with 0: Sending PersistInit"):
        client.find_in_accounting("x", "/nowhere", since=60)


def test_hanging_sacct_is_waited_for_once_by_all_threads(on_accounting, monkeypatch):
    """Each try that takes up an earlier one looks for itself; none asks again before the pause is over."""
    monkeypatch.setattr(accounting_queue, "_FIRST_PAUSE", 60.0)
    on_accounting.put_in_front("sacct", "exec sleep 600")
    with ThreadPoolExecutor(10) as threads:
        looks = [threads.submit(SlurmClient(patience=2).poll, [ref(f"{99_000 + index}", "x")]) for index in range(10)]
        assert [look.result() for look in looks] == [{}] * 10
    assert on_accounting.counted("sacct") == 1


# -- Commands that hang, or are not there ------------------------------------------------------------------------------


def test_hanging_command_is_killed_after_timeout(on):
    """With all it has started."""
    on.put_in_front("squeue", "sleep 61.25 & wait")
    began = time.monotonic()
    with pytest.raises(SlurmUnreachable, match="squeue timed out after 1 s"):
        SlurmClient(patience=1).find("x", "/nowhere")
    assert time.monotonic() - began < 30


def test_missing_command_raises_command_not_found(tmp_path, monkeypatch):
    """Waiting would not bring it."""
    (tmp_path / "timeout").symlink_to("/usr/bin/timeout")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CommandNotFound, match="command squeue not found"):
        SlurmClient().find("x", "/nowhere")
    with pytest.raises(SlurmUnavailable, match="sbatch, squeue, scancel not found on"):
        client.require_slurm()


def test_missing_sacct_counts_as_no_accounting(on):
    """Some sites do not install it on workers."""
    on.put_in_front("sacct", "exit 127")
    client = SlurmClient()
    assert client.find_in_accounting("x", "/nowhere", since=60) is None


def test_cancel_of_ended_or_unknown_job_raises_nothing(on):
    """A frozen or absent controller is: it is not known then whether it has heard."""
    job_id = on.submit("exit 0", "--job-name=over")
    on.wait_for(job_id, "COMPLETED")
    client = SlurmClient(patience=2)
    assert client.cancel([ref(job_id, "over")], timeout=30) == {}
    assert client.cancel([ref("99999", "never")], timeout=30) == {}
    assert on.state(job_id) == "COMPLETED"
    on.freeze("slurmctld")
    assert "scancel timed out" in client.cancel([ref(job_id, "over")], timeout=1)[ref(job_id, "over")]
    on.thaw("slurmctld")


def test_cancel_of_many_jobs_uses_one_squeue_and_one_scancel(on):
    """Jobs, and elements of an array whose others go on; a renamed or ended job is left alone."""
    array = on.submit("sleep 600", "--job-name=many", "--hold", "--array=0-9")
    jobs = [on.submit("sleep 600", "--job-name=many", "--hold") for _ in range(3)]
    over = on.submit("exit 0", "--job-name=many")
    on.wait_for(over, "COMPLETED")
    for command in ("squeue", "scancel"):
        on.put_in_front(command)
    unwanted = [*(f"{array}_{number}" for number in (1, 2, 7, 99)), *jobs[:2], over, "99999"]
    SlurmClient().cancel([*(ref(each, "many") for each in unwanted), ref(jobs[2], "other")], timeout=30)
    assert (on.counted("squeue"), on.counted("scancel")) == (1, 1)
    left = on.command("squeue", "-h", "-r", "-t", "PENDING", "-o", "%i", "-j", ",".join([array, *jobs])).split()
    assert sorted(left) == sorted([jobs[2], *(f"{array}_{number}" for number in (0, 3, 4, 5, 6, 8, 9))])


def test_cancel_uses_one_scancel_for_a_thousand_jobs(on):
    """Linux limits the length of an argument, and Slurm that of a request."""
    array = on.submit("sleep 600", "--job-name=many", "--hold", "--array=0-1499")
    on.put_in_front("scancel")
    assert SlurmClient().cancel([ref(f"{array}_{number}", "many") for number in range(1500)], timeout=60) == {}
    assert on.counted("scancel") == 2
    on.until(lambda: not on.command("squeue", "-h", "-r", "-j", array, "-o", "%i"), "no element to be left")


def test_cancel_of_many_jobs_names_each_unless_controller_answers(on):
    """The controller may have heard of none of them."""
    jobs = [ref(on.submit("sleep 600", "--job-name=many", "--hold"), "many") for _ in range(2)]
    on.freeze("slurmctld")
    reasons = SlurmClient().cancel(jobs, timeout=2)
    on.thaw("slurmctld")
    assert list(reasons) == jobs
    assert all("squeue timed out after 1 s" in reason for reason in reasons.values())


def test_poll_of_missing_element_uses_one_squeue(on):
    """Its array has to be asked for; from the second look on that is part of the one query."""
    array = on.submit("sleep 600", "--job-name=gone", "--hold", "--array=0-2")
    on.command("scancel", f"{array}_1")
    client, elements = SlurmClient(), [ref(f"{array}_{number}", "gone") for number in range(3)]
    first = client.poll(elements)
    on.put_in_front("squeue")
    assert [client.poll(elements) for _ in range(4)] == [first] * 4
    assert [first[each].state for each in elements] == ["PENDING", "CANCELLED", "PENDING"]
    assert on.counted("squeue") == 4


# -- The worker's environment ------------------------------------------------------------------------------------------


def test_commands_ignore_slurm_variables_of_worker(plan, jobs, slurm, monkeypatch):
    """Neither by Slurm's own variables, nor by its language."""
    for name, value in {
        "SBATCH_PARTITION": "nope", "SBATCH_TIMELIMIT": "x", "SLURM_CLUSTERS": "nope", "SLURM_JOB_ID": "1",
        "SQUEUE_PARTITION": "nope", "SQUEUE_STATES": "FAILED", "SQUEUE_FORMAT": "%i", "SQUEUE_USERS": "nobody",
        "SACCT_FORMAT": "jobid", "SCANCEL_STATE": "PENDING", "SCANCEL_INTERACTIVE": "1", "SLURM_TIME_FORMAT": "%Y",
        "SLURM_EXIT_ERROR": "0", "LC_ALL": "xx_XX.nonesuch", "LANG": "de_DE",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    planned = plan("say(sorted(name for name in os.environ if name.startswith(('SBATCH', 'SQUEUE', 'SACCT'))))")
    run = jobs.follow(planned)
    assert run.succeeds() == "[]"
    assert slurm.job(run.id).state == "COMPLETED"
