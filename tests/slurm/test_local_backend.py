"""Jobs without Slurm: detached processes of this machine that outlive their worker, and end when cancelled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from airflow_provider_sewer.core.environment import ATTEMPT_ID, INHERITED
from airflow_provider_sewer.slurm.backend import UNKNOWN_JOB, JobRef, JobStatus
from airflow_provider_sewer.slurm.local_backend import LocalBackend
from tests.slurm.script_jobs import DEAF_TREE, WAIT, ScriptJob, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.slurm.script_jobs import ScriptJobs

# The program of a worker: it submits, prints its job, and waits.
WORKER = """
import sys, time
from airflow_provider_sewer.slurm.local_backend import LocalBackend
from airflow_provider_sewer.slurm.job_directory import JobDirectory
print(LocalBackend().submit(JobDirectory(sys.argv[1]), sys.argv[2]).id, flush=True)
time.sleep(4711)
"""
CANCEL = """
import sys
from airflow_provider_sewer.slurm.backend import JobRef
from airflow_provider_sewer.slurm.local_backend import LocalBackend
LocalBackend().cancel([JobRef(*sys.argv[1:4])], timeout=float(sys.argv[4]))
"""


def processes_of(job: ScriptJob) -> list[psutil.Process]:
    """Return all processes of a job, including uncollected dead ones."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(ATTEMPT_ID) == job.ref.name:
                found.append(process)
    return found


def script_process(job: ScriptJob) -> psutil.Process:
    start = wait_until(job.directory.read_start, "the start")
    return psutil.Process(start.pid)


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """Fail a test of which any process is left, and end that."""
    yield
    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get("SEWER_RESULT_FILE", "").startswith(str(tmp_path)):
                left.append((process.pid, process.cmdline()))
                process.kill()
    assert not left


# --- a life of its own


@pytest.mark.parametrize("kill", ["process", "group", "session"])
def test_local_job_survives_killed_worker(kill: str, local_jobs: ScriptJobs) -> None:
    """A worker that is killed, with its process group or its whole session, takes no job with it."""
    directory = local_jobs.directory()
    script = local_jobs.script(WAIT)
    script.write(directory)
    argv = [sys.executable, "-c", WORKER, directory.path, script.name]
    worker = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert worker.stdout is not None
    job = ScriptJob(JobRef(worker.stdout.readline().strip(), script.name, directory.path), directory, LocalBackend())
    job.expect_output("here")
    assert job.state == "RUNNING"

    if kill == "process":
        worker.kill()
    elif kill == "group":
        os.killpg(worker.pid, signal.SIGKILL)
    else:
        for pid in psutil.pids():
            with suppress(OSError):
                if os.getsid(pid) == worker.pid:
                    os.kill(pid, signal.SIGKILL)
    worker.communicate()

    assert job.state == "RUNNING"
    assert LocalBackend().find(script.name, job.directory.path) == job.ref.id
    job.create_file("go")
    assert job.record().is_success
    wait_until(lambda: not processes_of(job), "the end of all processes")


def test_local_job_is_detached_from_worker(local_jobs: ScriptJobs) -> None:
    """A job belongs to no process of ours, and leaves no dead one behind that we would have to collect."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    job = local_jobs.start(WAIT)
    job.expect_output("here")

    own = script_process(job)
    assert own.pid not in {child.pid for child in psutil.Process().children(recursive=True)}
    assert os.getsid(own.pid) != os.getsid(0)
    job.create_file("go")

    assert job.record().is_success
    wait_until(lambda: not processes_of(job), "the end of all processes")
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_local_job_environment_is_isolated(local_jobs: ScriptJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job sees the short list and its own variables; no terminal, no input, and default signals."""
    for name in ("AIRFLOW__CORE__FERNET_KEY", "SLURM_JOB_ID", "OF_THE_WORKER", "PYTHONPATH", "SEWER_LOCAL_ID"):
        monkeypatch.setenv(name, "hidden")
    source = """
        import json, os, signal, sys
        print(json.dumps([dict(os.environ), os.readlink("/proc/self/fd/0"), sorted(os.listdir("/proc/self/fd"))[:-1],
                          signal.getsignal(signal.SIGINT) is signal.default_int_handler, os.getcwd()]))
    """

    job = local_jobs.start(source, env={"GIVEN": "yes"}, secret_env={"TOKEN": "mine"})

    env, stdin, files, is_interruptible, cwd = job.output()
    of_bash = {"PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}
    assert set(env) - set(INHERITED) - of_bash == {
        "GIVEN", "TOKEN", "PYTHONPATH", "SEWER_RESULT_FILE", "SEWER_ATTEMPT_ID"
    }  # fmt: skip
    assert "hidden" not in env.values()
    assert (stdin, files, is_interruptible, cwd) == ("/dev/null", ["0", "1", "2"], True, job.directory.path)


def test_background_processes_end_with_local_job(local_jobs: ScriptJobs) -> None:
    """A process that the module has put into a session of its own, deaf to SIGTERM, does not outlive the job."""
    source = """
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            os.setsid()
            print("left behind", flush=True)
            time.sleep(4711)
        time.sleep(0.2)
    """

    job = local_jobs.start(source)

    assert job.record().is_success
    wait_until(lambda: not processes_of(job), "the end of all processes")
    record = job.directory.read_exit()
    assert record is not None
    assert record.stdout == len(job.stdout)


# --- its end


@pytest.mark.parametrize("grace", [0.0, 3.0])
def test_cancel_ends_process_tree_from_any_process(grace: float, local_jobs: ScriptJobs) -> None:
    """Another process cancels a job: its child, and a grandchild in a session of its own that is deaf, end as well."""
    job = local_jobs.start(DEAF_TREE)
    job.expect_output("all here")
    # Three shells of the script, its watcher, which starts others for a moment, and three processes of the module.
    wait_until(lambda: len(processes_of(job)) == 7, "seven processes")

    subprocess.run([sys.executable, "-c", CANCEL, *job.ref, str(1 + grace)], check=True, timeout=60)

    assert not processes_of(job)
    assert job.state == "FAILED"
    record = job.directory.read_exit()
    assert record is None or not record.is_success


def test_cancel_waits_for_module_that_handles_sigterm(local_jobs: ScriptJobs) -> None:
    """A module that cleans up when it is asked to is not killed meanwhile, and its end is recorded."""
    source = """
        import signal, sys, time
        def end(*_):
            time.sleep(0.5)
            print("cleaned up", flush=True)
            sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        print("here", flush=True)
        time.sleep(4711)
    """
    job = local_jobs.start(source, resources={"teardown": ["echo torn down"]})
    job.expect_output("here")

    LocalBackend().cancel([job.ref], timeout=30)

    record = job.record()
    assert (record.exit_code, record.asked, record.is_success) == (0, "TERM", False)
    assert job.stdout == "here\ncleaned up\ntorn down\n"
    assert not processes_of(job)


def test_job_directory_cancel_ends_local_job(local_jobs: ScriptJobs) -> None:
    """A job that is cancelled in its job directory, as from another host, ends itself and all its processes."""
    job = local_jobs.start(DEAF_TREE)
    job.expect_output("all here")

    job.directory.write_cancelled()

    record = job.record()
    assert (record.exit_code, record.asked) == (137, "TERM")
    wait_until(lambda: not processes_of(job), "the end of all processes")


def test_killed_script_of_local_job_leaves_no_process(local_jobs: ScriptJobs) -> None:
    """When the script is killed at once, the job counts as gone, and its watcher ends the rest of it."""
    job = local_jobs.start(DEAF_TREE)
    job.expect_output("all here")

    script_process(job).kill()
    assert job.state in {"RUNNING", "COMPLETING"}

    wait_until(lambda: job.state == "FAILED", "the end")
    assert not processes_of(job)
    assert job.cluster.poll([job.ref])[job.ref].reason == "ProcessGone"
    assert job.directory.read_exit() is None


def test_cancel_of_ended_local_job_changes_nothing(local_jobs: ScriptJobs) -> None:
    """Cancelling an ended or unknown job is no error and changes no record."""
    job = local_jobs.start("")
    record = job.record()
    wait_until(lambda: not processes_of(job), "the end of all processes")

    LocalBackend().cancel([job.ref], timeout=10)
    assert LocalBackend().cancel([JobRef("local-none", "no such job", job.ref.directory)], timeout=10) == {}

    assert job.directory.read_exit() == record


def test_cancel_of_many_jobs_ends_those_of_this_host(local_jobs: ScriptJobs) -> None:
    """A job of another host is reported, and does not keep the others from their end."""
    jobs = [local_jobs.start(WAIT) for _ in range(3)]
    for job in jobs:
        job.expect_output("here")
    changed_start(jobs[1], node="elsewhere")

    reasons = LocalBackend().cancel([job.ref for job in jobs], timeout=10)

    assert list(reasons) == [jobs[1].ref]
    wait_until(lambda: not processes_of(jobs[0]) and not processes_of(jobs[2]), "the end of the others")
    assert processes_of(jobs[1])
    jobs[1].create_file("go")
    wait_until(lambda: not processes_of(jobs[1]), "the end of all processes")


# --- status


def changed_start(job: ScriptJob, **change: Any) -> None:
    """Write another start record over that of a job."""
    start = json.loads(Path(job.directory.start).read_text())
    Path(job.directory.start).write_text(json.dumps({**start, **change}))


def test_poll_and_find_return_running_local_job(local_jobs: ScriptJobs) -> None:
    """A running job is seen with its node and its start, by its id and by its name."""
    job = local_jobs.start(WAIT)
    job.expect_output("here")
    start = job.directory.read_start()
    assert start is not None

    seen = job.cluster.poll([job.ref])

    assert seen == {job.ref: JobStatus("RUNNING", node=os.uname().nodename, start=start.time)}
    assert job.cluster.find(job.ref.name, job.directory.path) == job.ref.id
    assert job.cluster.find(f"{job.ref.name}x", job.directory.path) is None
    job.create_file("go")
    assert job.record().is_success


def test_poll_ignores_reused_pid(local_jobs: ScriptJobs) -> None:
    """A process that has the job's pid, but is another one, is not taken for it."""
    job = local_jobs.start("")
    assert job.record().is_success
    wait_until(lambda: not processes_of(job), "the end of all processes")

    changed_start(job, pid=os.getpid())

    assert job.state == "FAILED"


def test_poll_of_job_on_other_host_uses_alive_file(local_jobs: ScriptJobs) -> None:
    """A job of another machine is seen by its signs of life, and cannot be cancelled; its record counts."""
    job = local_jobs.start(WAIT)
    job.expect_output("here")
    changed_start(job, node="elsewhere")

    alive = Path(job.directory.alive)
    wait_until(alive.exists, "a sign of life")
    assert job.state == "RUNNING"
    os.utime(alive, (0, 0))
    assert job.cluster.poll([job.ref]) == {job.ref: UNKNOWN_JOB}
    wait_until(lambda: job.state == "RUNNING", "another sign of life")
    assert "runs on elsewhere" in job.cluster.cancel([job.ref], timeout=5)[job.ref]

    assert processes_of(job)
    job.create_file("go")
    assert wait_until(job.directory.read_exit, "the record").is_success
    wait_until(lambda: job.cluster.poll([job.ref]) == {job.ref: UNKNOWN_JOB}, "the end of its signs of life")
    wait_until(lambda: not processes_of(job), "the end of all processes")


def test_poll_before_start_record_returns_pending(local_jobs: ScriptJobs) -> None:
    """Between its submission and its first record a job waits; once its process is gone without one, it has failed."""
    directory = local_jobs.directory()
    Path(directory.script).write_text(
        textwrap.dedent(f"""
        while [ ! -e {directory.path}/go ]; do sleep 0.05; done
    """)
    )
    job = local_jobs.again(directory, "a name")

    assert job.cluster.poll([job.ref])[job.ref] == JobStatus("PENDING", "Starting")

    job.create_file("go")
    wait_until(lambda: job.state == "FAILED", "the end")


def test_claim_lets_one_of_two_local_jobs_run(local_jobs: ScriptJobs) -> None:
    """A second process for the same attempt ends at once; the first one goes on."""
    job = local_jobs.start(WAIT)
    job.expect_output("here")

    second = local_jobs.again(job.directory, job.ref.name)
    wait_until(lambda: second.state == "FAILED", "the end of the second one")

    assert job.state == "RUNNING"
    job.create_file("go")
    assert job.record().is_success
    assert job.stdout == "here\n"
