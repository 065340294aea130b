"""`SlurmModuleOperator.on_kill`: a user's request cancels the job, Airflow's bookkeeping leaves it to the next try."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG

from airflow_provider_sewer.core.errors import SlurmCancelled, SlurmJobFailed, SlurmJobReleased, UnreadableRecord
from airflow_provider_sewer.operators.slurm import SlurmModuleOperator
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from tests.airflow_supervisor import task_instance

#: Notes that it has begun, waits to be allowed to end, and prints in which run of the module that was.
MODULE = """
import os, time
with open("begun", "a") as file: file.write("x")
while not os.path.exists("go"): time.sleep(0.05)
print(len(open("begun").read()))
"""
PATIENCE = 30.0
USER_REQUESTS = ["failed", "success", "restarting", ...]
BOOKKEEPING = [None, "queued", "scheduled", "up_for_retry", "deferred", "running", TimeoutError("no API server")]


class Try:
    """One try of a task, in a thread of its own."""

    def __init__(self, operator, run_clears=0, **fields):
        self.operator = operator
        self._run_clears = run_clears
        self.result = self.error = None
        self._instance = task_instance(dag_id=operator.dag_id, task_id=operator.task_id, **fields)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        dag_run = SimpleNamespace(clear_number=self._run_clears)
        context = {"ti": self._instance, "dag": self.operator.dag, "dag_run": dag_run}
        try:
            self.result = self.operator.execute(context)
        except BaseException as error:
            self.error = error

    def ends(self):
        """Wait for the end of the try, and return its result."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.result


@pytest.fixture
def local_task(tmp_path, defaults, airflow_has_task_as, monkeypatch):
    """Return a function that starts a try of a task with ``cluster="local"``, and the folder of its module."""
    from airflow.sdk.bases.operator import ExecutorSafeguard

    monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)
    airflow_has_task_as("running")
    (tmp_path / "job.py").write_text(MODULE)

    def start(arguments=None, **fields) -> Try:
        with DAG("dag", schedule=None):
            kwargs = {"cluster": "local", "workdir": str(tmp_path), "python": sys.executable, **(arguments or {})}
            return Try(SlurmModuleOperator(task_id="job", module="job", **{**defaults, **kwargs}), **fields)

    return start


def until(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def runs(tmp_path: Path) -> int:
    """Return how often the module has begun."""
    begun = tmp_path / "begun"
    return len(begun.read_text()) if begun.exists() else 0


def followed(one: Try, tmp_path: Path) -> Path:
    """Wait until the module of the first attempt runs and is followed, and return the job directory."""
    directory = tmp_path / "runs" / "dag" / "run" / "job" / "1"
    until(lambda: one.error or ((directory / "monitor.json").exists() and runs(tmp_path)))
    assert one.error is None
    return directory


@pytest.mark.parametrize("state", USER_REQUESTS, ids=str)
def test_on_kill_user_request_cancels_the_job(local_task, airflow_has_task_as, tmp_path, state):
    first = local_task()
    directory = followed(first, tmp_path)
    airflow_has_task_as(state)
    first.operator.on_kill()
    with pytest.raises((SlurmCancelled, SlurmJobFailed)):
        first.ends()
    assert (directory / "cancelled").exists()


@pytest.mark.parametrize("state", BOOKKEEPING, ids=str)
def test_on_kill_bookkeeping_leaves_the_job_to_the_next_try(local_task, airflow_has_task_as, tmp_path, state):
    first = local_task()
    directory = followed(first, tmp_path)
    airflow_has_task_as(state)
    first.operator.on_kill()
    with pytest.raises(SlurmJobReleased):
        first.ends()
    assert not (directory / "cancelled").exists()
    second = local_task(try_number=2)
    (tmp_path / "go").touch()
    assert second.ends() == "1"


@pytest.mark.parametrize("state", BOOKKEEPING, ids=str)
def test_on_kill_bookkeeping_in_the_last_try_does_not_cancel_the_job(local_task, airflow_has_task_as, tmp_path, state):
    last = local_task(try_number=3)
    directory = followed(last, tmp_path)
    airflow_has_task_as(state)
    last.operator.on_kill()
    (tmp_path / "go").touch()
    if state == "running":  # Airflow still waits for this very try
        assert last.ends() == "1"
    else:
        with pytest.raises(SlurmJobReleased):
            last.ends()
    until((directory / "exit.json").exists)
    assert not (directory / "cancelled").exists()


def test_on_kill_supervisor_that_does_not_answer_leaves_the_job(local_task, monkeypatch, tmp_path):
    from airflow.sdk.execution_time import task_runner

    first = local_task()
    followed(first, tmp_path)
    asked = threading.Event()
    monkeypatch.setattr(type(task_runner.SUPERVISOR_COMMS), "send", lambda *_: (asked.set(), time.sleep(PATIENCE)))
    began = time.monotonic()
    first.operator.on_kill()
    assert time.monotonic() - began < 5  # then Airflow kills the worker
    assert asked.is_set()
    with pytest.raises(SlurmJobReleased):
        first.ends()


def test_execute_collected_success_is_collected_again_by_the_next_try(local_task, tmp_path):
    (tmp_path / "go").touch()
    assert local_task().ends() == "1"
    assert local_task(try_number=2).ends() == "1"
    assert local_task(try_number=3).ends() == "1"


def test_execute_collected_success_is_discarded_by_a_clear(local_task, tmp_path):
    (tmp_path / "go").touch()
    assert local_task().ends() == "1"
    assert local_task(try_number=2, max_tries=3).ends() == "2"


def test_execute_collected_success_is_discarded_by_a_first_try(local_task, tmp_path):
    """`airflow dags test` of the same run begins with the first try again."""
    (tmp_path / "go").touch()
    assert local_task().ends() == "1"
    assert local_task().ends() == "2"


def test_execute_collected_success_returns_final_product_paths(local_task, tmp_path):
    (tmp_path / "job.py").write_text(
        "import sys\nopen('begun', 'a').write('x')\nopen(sys.argv[1], 'w').write('made')\nprint(sys.argv[1])\n"
    )
    from airflow_provider_sewer import Product

    product = tmp_path / "product.txt"
    arguments = {"args": [Product(str(product))]}
    assert [local_task(arguments, try_number=number).ends() for number in (1, 2)] == [str(product)] * 2
    assert (product.read_text(), runs(tmp_path)) == ("made", 1)


def test_execute_result_that_airflow_cannot_store_is_not_collected_again(local_task, tmp_path):
    write = "open(os.environ['SEWER_RESULT_FILE'], 'w').write('1' * 30)"
    (tmp_path / "job.py").write_text(f"import os\nopen('begun', 'a').write('x')\n{write}\n")
    for number in (1, 2):
        with pytest.raises(Exception, match="does not fit into 64 bits"):
            local_task(try_number=number).ends()
    assert runs(tmp_path) == 2


def test_execute_stale_try_leaves_a_job_that_another_process_monitors(local_task, tmp_path):
    """A worker that was paused, while the scheduler took it for dead and started the next try."""
    first = local_task()
    followed(first, tmp_path)
    second = local_task(try_number=2)
    with pytest.raises(SlurmJobReleased, match="another process monitors"):
        first.ends()
    (tmp_path / "go").touch()
    assert second.ends() == "1"


def test_execute_dead_supervisor_in_the_last_try_leaves_the_job(local_task, tmp_path, monkeypatch):
    last = local_task(try_number=3)
    directory = followed(last, tmp_path)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    with pytest.raises(SlurmJobReleased):
        last.ends()
    assert not (directory / "cancelled").exists()
    (tmp_path / "go").touch()


def test_execute_late_stale_try_does_not_take_the_job_from_the_next(local_task, tmp_path):
    """A slow API server held up the first try between its submission and its first poll of the job."""
    first = local_task()
    followed(first, tmp_path)
    first.operator._job_run.release()
    with pytest.raises(SlurmJobReleased):
        first.ends()
    second = local_task(try_number=2)
    directory = JobDirectory(str(tmp_path / "runs" / "dag" / "run" / "job" / "1"))
    until(lambda: second.error or directory.read_monitor().try_number == 2)
    with pytest.raises(SlurmJobReleased, match="another process monitors"):
        local_task().ends()
    (tmp_path / "go").touch()
    assert second.ends() == "1"


def test_execute_collected_success_is_collected_again_after_a_clear_of_another_task(local_task, tmp_path):
    """That counts in the DAG run, and leaves ``max_tries`` of this task as it is."""
    (tmp_path / "go").touch()
    assert local_task().ends() == "1"
    assert local_task(try_number=2, run_clears=1).ends() == "1"
    assert local_task(try_number=3, run_clears=2).ends() == "1"


def test_execute_collected_success_is_discarded_by_an_extra_try_of_a_cleared_run(local_task, tmp_path):
    """A user has cleared the task in its last try, and its worker was dead by then."""
    (tmp_path / "go").touch()
    assert local_task(try_number=3).ends() == "1"
    assert local_task(try_number=4).ends() == "1"
    assert local_task(try_number=5, run_clears=1).ends() == "2"


def test_clear_raises_max_tries_of_the_cleared_task_only(run_dag):
    """The fact of Airflow by which an attempt knows that its task was cleared."""
    from airflow.models.taskinstance import TaskInstance, clear_task_instances
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with DAG("two_tasks", schedule=None):
        tasks = [EmptyOperator(task_id=name, retries=1) for name in ("cleared", "other")]
    run_dag(tasks[0].dag)

    with create_session() as session:
        instances = session.scalars(select(TaskInstance).where(TaskInstance.dag_id == "two_tasks")).all()
        before = {each.task_id: each.max_tries for each in instances}
        clear_task_instances([each for each in instances if each.task_id == "cleared"], session)
        after = {each.task_id: each.max_tries for each in instances}
    assert before == {"cleared": 1, "other": 1}
    assert after == {"cleared": 2, "other": 1}


def test_execute_first_try_of_a_new_run_discards_a_collected_success_for_later_tries(
    local_task, airflow_has_task_as, tmp_path
):
    """A DAG run of the same name was deleted; the first try of the new one fails before it begins an attempt."""
    (tmp_path / "go").touch()
    assert local_task().ends() == "1"
    with pytest.raises(Exception, match="nowhere"):
        local_task({"dependencies": [str(tmp_path / "nowhere")]}).ends()
    assert local_task(try_number=2).ends() == "2"


@pytest.mark.parametrize("record", ["attempt", "task", "job"])
def test_execute_unreadable_record_in_the_last_try_leaves_the_job(local_task, airflow_has_task_as, tmp_path, record):
    first = local_task()
    directory = followed(first, tmp_path)
    airflow_has_task_as("queued")
    first.operator.on_kill()
    with pytest.raises(SlurmJobReleased):
        first.ends()
    file = directory / f"{record}.json"
    whole = file.read_text()
    file.write_text(whole.replace('"format": 1', '"format": 99'))
    airflow_has_task_as("running")

    with pytest.raises(UnreadableRecord, match=rf"{record}\.json has format 99, and .* reads format 1; "):
        local_task(try_number=3).ends()

    assert not (directory / "cancelled").exists()
    file.write_text(whole)
    (tmp_path / "go").touch()
    assert local_task(try_number=4).ends() == "1"


def test_execute_complete_event_of_another_version_monitors_on_worker(local_task, airflow_has_task_as, tmp_path):
    first = local_task()
    followed(first, tmp_path)
    airflow_has_task_as("queued")
    first.operator.on_kill()
    with pytest.raises(SlurmJobReleased):
        first.ends()
    (tmp_path / "go").touch()
    context = {"ti": task_instance(), "dag": first.operator.dag, "dag_run": SimpleNamespace(clear_number=0)}
    with DAG("dag", schedule=None):
        kwargs = {"cluster": "local", "workdir": str(tmp_path), "python": sys.executable, "poll_interval": 0.2}
        operator = SlurmModuleOperator(task_id="job", module="job", run_dir=str(tmp_path / "runs"), **kwargs)

    event = {"format": 99, "job": "elsewhere", "ending": "well"}
    assert operator.resume_execution("execute_complete", {"event": event}, context) == "1"
