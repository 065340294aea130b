"""SlurmModuleOperator where the task ends before its job: no orphan is left, unless one is wanted."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskDeferralTimeout, TaskDeferred

from airflow_provider_sewer.operators.slurm import SlurmModuleOperator
from airflow_provider_sewer.slurm.job_directory import JobDirectory

SLEEPS = "import time; time.sleep(600)"


def task_instance(dag_id: str) -> SimpleNamespace:
    """Return a stub of a task instance, in its only try, with the attributes that the operator reads."""
    fields = {"map_index": -1, "try_number": 1, "max_tries": 0, "start_date": datetime.now(UTC)}
    return SimpleNamespace(dag_id=dag_id, run_id="run", task_id="job", **fields)


@pytest.fixture
def when_running(on_slurm, xcom):
    """Do something in this process as soon as the job of the task runs, and return the job's id afterwards."""
    threads = []

    def start(action) -> list:
        before = {job.id for job in on_slurm.jobs()}
        found = []

        def wait():
            on_slurm.until(lambda: [job for job in on_slurm.jobs() if job.id not in before], "a job")
            found.extend(job.id for job in on_slurm.jobs() if job.id not in before)
            on_slurm.wait_for(found[0], "RUNNING")
            action()

        threads.append(threading.Thread(target=wait))
        threads[0].start()
        return found

    yield start
    for thread in threads:
        thread.join()


@pytest.fixture
def signals_restored():
    """Put back the signal handlers that Airflow sets in this process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def resume(defaults, tmp_path):
    """Submit a deferred task's job, and return the function that resumes it on another worker, with its arguments."""

    def defer(**arguments):
        instance = task_instance("deferred")
        xcoms: dict = {}
        instance.xcom_push = lambda key, value: xcoms.update({key: value})

        def operator():
            with DAG("deferred", schedule=None):
                return SlurmModuleOperator(task_id="job", deferrable=True, **{**defaults, **arguments})

        context = {"ti": instance, "dag": operator().dag, "dag_run": SimpleNamespace(clear_number=0)}
        with pytest.raises(TaskDeferred) as deferred:
            operator().execute(context)

        def go_on(error: str):
            return operator().resume_execution("__fail__", {"error": error}, context)

        return xcoms["slurm_job_id"], go_on, deferred.value

    return defer


def test_execution_timeout_cancels_the_job(module, on_slurm, run_job, when_running):
    """The worker has stopped to wait, so the job must not go on."""
    found = when_running(lambda: None)
    result = run_job(execution_timeout=timedelta(seconds=4), **module(SLEEPS))
    assert result.states["job"] == "failed"
    on_slurm.wait_for(found[0], "CANCELLED")


def test_on_kill_cancels_the_job_and_the_task_fails(
    module, on_slurm, run_job, when_running, signals_restored, tmp_path
):
    """A module that exits with 0 because it was asked to stop has still not done its work."""
    ready = tmp_path / "ready"

    def kill():
        on_slurm.until(ready.exists, "the module")
        os.kill(os.getpid(), signal.SIGTERM)

    found = when_running(kill)
    job = module(f"""
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        open({str(ready)!r}, "w").close()
        time.sleep(600)
    """)
    assert run_job(**job).states["job"] == "failed"
    on_slurm.wait_for(found[0], "CANCELLED", "FAILED")


def test_sigint_cancels_the_job(module, on_slurm, run_job, when_running, signals_restored, deferrable, run_directories):
    """A user at `airflow dags test` leaves no job in the queue, whether a worker or a trigger follows it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt():
        on_slurm.until(lambda: os.path.exists(JobDirectory(str(run_directories()[-1])).monitor), "a follower")
        os.kill(os.getpid(), signal.SIGINT)

    found = when_running(interrupt)
    with suppress(KeyboardInterrupt):
        run_job(deferrable=deferrable, **module(SLEEPS))
    # Slurm usually signals the script before it sees the cancellation by itself.
    on_slurm.wait_for(found[0], "CANCELLED", "FAILED")


def test_sigterm_with_keep_job_leaves_it_running(module, on_slurm, run_job, when_running, signals_restored, tmp_path):
    """The run ends without the job, which goes on to its own end."""
    go = tmp_path / "go"

    def kill():
        os.kill(os.getpid(), signal.SIGTERM)
        go.touch()

    found = when_running(kill)
    job = module(f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.05)\nprint('kept')")
    assert run_job(on_kill_action="keep_job", **job).states["job"] == "failed"
    on_slurm.wait_for(found[0], "COMPLETED")


def test_on_kill_before_submission_leaves_no_job(module, on_slurm, defaults):
    """A task that is killed during its preparation leaves no job."""
    before = {job.id for job in on_slurm.jobs()}
    with DAG("early", schedule=None) as dag:
        operator = SlurmModuleOperator(task_id="job", **defaults, **module(SLEEPS))
    operator.on_kill()
    with pytest.raises(Exception, match="cancelled"):
        operator.execute({"ti": task_instance("early"), "dag": dag, "dag_run": SimpleNamespace(clear_number=0)})
    assert all(on_slurm.wait_for(job.id, "CANCELLED", "FAILED") for job in on_slurm.jobs() if job.id not in before)


def test_deferral_timeout_is_always_set(module, on_slurm, resume):
    """It is the rest of execution_timeout, or a limit that is never reached."""
    assert resume(**module("pass"))[2].timeout == timedelta(days=90)
    rest = resume(execution_timeout=timedelta(hours=1), **module("pass"))[2].timeout
    assert timedelta(minutes=50) < rest < timedelta(hours=1)


def test_deferral_timeout_cancels_the_job(module, on_slurm, resume):
    """Airflow notifies only the worker that fails, not the trigger."""
    job_id, go_on, _ = resume(**module(SLEEPS))
    with pytest.raises(TaskDeferralTimeout):
        go_on("Trigger timeout")
    on_slurm.wait_for(job_id, "CANCELLED")


def test_failed_trigger_makes_the_worker_monitor_the_job(module, on_slurm, resume):
    """The job knows nothing of the triggerer's troubles, and its result counts."""
    job_id, go_on, _ = resume(**module("import os; print(os.environ['SLURM_JOB_ID'])"))
    assert go_on("Trigger failure") == job_id


def test_failed_trigger_under_dags_test_cancels_the_job(module, on_slurm, run_job, monkeypatch):
    """Without a triggerer, no worker would be notified to cancel the job."""
    from airflow_provider_sewer.triggers.slurm import SlurmJobTrigger

    def fails(self, job):
        raise RuntimeError("no follower today")

    monkeypatch.setattr(SlurmJobTrigger, "_monitor", fails)
    name = "left_by_its_trigger"
    run_job(deferrable=True, slurm={"name": name}, **module("import time; time.sleep(600)"))
    (job,) = on_slurm.jobs(name)
    assert on_slurm.wait_for(job.id, "CANCELLED")
