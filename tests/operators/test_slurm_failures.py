"""Failures of SlurmModuleOperator: log messages, retries, and errors without a retry."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.operators.slurm import SlurmModuleOperator
from airflow_provider_sewer.reports.job_usages import jobs_below
from airflow_provider_sewer.reports.usage_summary import summarize

AGAIN = {"retries": 1, "retry_delay": timedelta(0)}


@pytest.fixture
def tries(monkeypatch):
    """Count how often the operator is executed."""
    counted = []
    execute = SlurmModuleOperator.execute

    def counting(self, context):
        counted.append(context["ti"].try_number)
        return execute(self, context)

    monkeypatch.setattr(SlurmModuleOperator, "execute", counting)
    return counted


def test_failing_job_fails_the_task_and_logs_stderr(
    module, on_slurm, run_job, deferrable, logged_text, run_directories
):
    """The error's name, exit code, node, the end of stderr, and where the files are: all in the task's log."""
    job = module("import sys; sys.exit('no such [file]: data.npz')")
    assert run_job(deferrable=deferrable, **job).states["job"] == "failed"
    text = logged_text()
    for words in ("SlurmJobFailed", "exit code 1", " on n", "no such [file]: data.npz", str(run_directories()[0])):
        assert words in text


def test_retry_after_failure_submits_a_new_job(module, on_slurm, run_job, deferrable, tmp_path, run_directories):
    """The second try is another job with a job directory of its own, and its result is the task's."""
    job = module(f"""
        import os, sys
        mark = {str(tmp_path / "tried")!r}
        if not os.path.exists(mark):
            open(mark, "w").close()
            sys.exit(4)
        print("better now")
    """)
    assert run_job(deferrable=deferrable, **AGAIN, **job).results["job"] == "better now"
    assert [directory.name for directory in run_directories()] == ["1", "2"]


def test_slurm_usage_of_failed_job_has_its_class_and_request(module, on_slurm, run_job, deferrable, xcom, tmp_path):
    job = module("raise SystemExit(3)")
    assert run_job(deferrable=deferrable, slurm={"mem_gb": 0.5}, **job).states["job"] == "failed"
    usage = xcom("slurm_usage")
    assert (usage["exit_class"], usage["requested"]) == ("job_failed", {"mem_gb": 0.5})
    assert usage["elapsed"] > 0
    assert usage["node"] in on_slurm.nodes
    (summary,) = summarize(jobs_below(str(tmp_path / "runs")))
    assert (summary.task, dict(summary.ends), summary.memory.requested) == ("job", {"job_failed": 1}, 0.5)


def test_skip_on_exit_code_skips_the_task(module, on_slurm, run_job, deferrable):
    """With skip_on_exit_code the task is skipped, not failed."""
    job = module("raise SystemExit(99)")
    assert run_job(deferrable=deferrable, skip_on_exit_code=[3, 99], **job).states["job"] == "skipped"


def test_skip_on_exit_code_ignores_exit_code_of_setup(module, on_slurm, run_job):
    """skip_on_exit_code applies to exit codes of the module only, and the module has not run."""
    job = module("print('it ran')")
    assert run_job(slurm={"setup": ["exit 99"]}, skip_on_exit_code=99, **job).states["job"] == "failed"


def test_result_invalid_as_xcom_fails_with_the_reason(module, on_slurm, run_job, deferrable, logged_text):
    """Airflow's own error would come later and without the reason."""
    job = module("import json, os; json.dump(2**70, open(os.environ['SEWER_RESULT_FILE'], 'w'))")
    assert run_job(deferrable=deferrable, **job).states["job"] == "failed"
    assert "Airflow cannot store its result" in logged_text()


def test_submission_rejected_by_slurm_fails_without_retry(module, on_slurm, run_job, logged_text, tries):
    """A partition that is not there will not be there at the next try."""
    assert run_job(slurm={"partition": "nowhere"}, **AGAIN, **module("pass")).states["job"] == "failed"
    assert tries == [1]
    assert "invalid partition specified: nowhere" in logged_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"slurm": {"timeout_min": "{{ 'long' }}"}}, "slurm: timeout_min must be a number, got 'long'"),
        ({"env": {"SHELLOPTS": "x"}}, "'SHELLOPTS' is not a valid variable name for a job script"),
        ({"run_dir": "{{ '/nowhere/ru\\nns' }}"}, "must not contain a line break"),
        ({"module": "{{ 'not a module' }}"}, "got 'not a module'"),
    ],
)
def test_invalid_rendered_value_fails_without_retry(module, on_slurm, run_job, logged_text, tries, arguments, words):
    """It would be as bad the next time; and nothing is submitted."""
    before = len(on_slurm.jobs())
    assert run_job(**AGAIN, **module("pass") | arguments).states["job"] == "failed"
    assert tries == [1]
    assert words in logged_text()
    assert len(on_slurm.jobs()) == before


def test_run_dir_invalid_in_job_script_raises_at_parse_time(run_job, module, tmp_path):
    """Each option of sbatch is a line of the job script."""
    with pytest.raises(InvalidTask, match=r"task 'job': run_dir must not contain a line break, got '.*/ru.*ns'"):
        run_job(run_dir=f"{tmp_path}/ru\nns", **module("pass"))


def test_unsatisfiable_job_is_cancelled_without_retry(module, on_slurm, run_job, deferrable, logged_text, tries, xcom):
    """More nodes than the partition allows: the reason is in the log at once, not a job in the queue for ever."""
    result = run_job(deferrable=deferrable, slurm={"partition": "tiny", "nodes": 2}, **AGAIN, **module("pass"))
    assert result.states["job"] == "failed"
    assert tries == [1]
    # Slurm gives one of two reasons: PartitionNodeLimit or PartitionConfig.
    assert "than the partition has or allows" in logged_text()
    on_slurm.wait_for(xcom("slurm_job_id"), "CANCELLED", "FAILED")


def test_cluster_auto_without_sbatch_runs_locally_and_logs_it(module, no_slurm, run_job, deferrable, logged_text, xcom):
    """cluster='auto' is the same job script in the same kind of job directory, on this machine."""
    job = module("import os; print('SLURM_JOB_ID' in os.environ)")
    assert run_job(deferrable=deferrable, **job).results["job"] == "False"
    assert "Running the job on this machine: sbatch not found (cluster='auto')" in logged_text()
    assert xcom("slurm_job_id").startswith("local-")
    assert xcom("slurm_usage")["elapsed"] > 0


def test_cluster_slurm_without_sbatch_fails(module, no_slurm, run_job, logged_text, run_directories):
    """cluster='slurm' without Slurm's commands runs nothing, and the error contains the fix."""
    assert run_job(cluster="slurm", **module("print('it ran')")).states["job"] == "failed"
    text = logged_text()
    assert "sbatch, squeue, scancel not found on this machine's PATH" in text
    assert "cluster='local'" in text
    assert run_directories() == []


class TaskInstanceWithoutXCom:
    """A task instance whose XComs cannot be kept."""

    def __init__(self, instance):
        self._instance = instance

    def __getattr__(self, name):
        return getattr(self._instance, name)

    def xcom_push(self, *args, **kwargs):
        raise ConnectionError("the database is away")


class StoreThatGoesAway:
    """Airflow's task state store, which accepts values and does not answer afterwards."""

    def __init__(self, store):
        self.set = store.set

    def get(self, key):
        raise ConnectionError("the database is away")


@pytest.fixture
def xcoms_cannot_be_kept(monkeypatch):
    """Let the first try of a task fail after its submission, for a reason that is neither the job's nor a kill."""
    execute = SlurmModuleOperator.execute

    def broken(self, context):
        is_first = context["ti"].try_number == 1
        away = {
            "ti": TaskInstanceWithoutXCom(context["ti"]),
            "task_state_store": StoreThatGoesAway(context["task_state_store"]),
        }
        return execute(self, {**context, **away} if is_first else context)

    monkeypatch.setattr(SlurmModuleOperator, "execute", broken)


def test_failed_last_try_cancels_its_job(module, on_slurm, run_job, xcoms_cannot_be_kept, run_directories):
    """No process would collect it."""
    assert run_job(**module("import time; time.sleep(600)")).states["job"] == "failed"
    on_slurm.wait_for(job_of(run_directories()[0]), "CANCELLED", "FAILED")


def test_retry_reattaches_to_the_job_of_a_failed_try(module, on_slurm, run_job, xcoms_cannot_be_kept, run_directories):
    """One job for both tries, and its result."""
    job = module("import os; print(os.environ['SLURM_JOB_ID'])")
    result = run_job(**AGAIN, **job).results["job"]
    assert [directory.name for directory in run_directories()] == ["1"]
    assert result == job_of(run_directories()[0])


def test_retry_that_cannot_be_prepared_cancels_the_previous_job(
    module, on_slurm, run_job, xcoms_cannot_be_kept, run_directories
):
    """A setting that has become invalid, for example by an edit of the connection, leaves no job behind."""
    memory = "{{ 0.1 if ti.try_number == 1 else 'a lot' }}"
    result = run_job(slurm={"mem_gb": memory}, **AGAIN, **module("import time; time.sleep(600)"))
    assert result.states["job"] == "failed"
    on_slurm.wait_for(job_of(run_directories()[0]), "CANCELLED", "FAILED")


def test_keep_job_survives_a_failed_last_try(module, on_slurm, run_job, xcoms_cannot_be_kept, run_directories):
    """on_kill_action='keep_job' holds then too."""
    run_job(on_kill_action="keep_job", **module("import time; time.sleep(600)"))
    assert on_slurm.wait_for(job_of(run_directories()[0]), "RUNNING")


def test_durable_false_retry_submits_a_new_job(module, on_slurm, run_job, xcoms_cannot_be_kept, run_directories):
    """The job of the earlier try does not count any more, however it fares."""
    job = module("import os; print(os.environ['SLURM_JOB_ID'])")
    result = run_job(durable=False, **AGAIN, **job).results["job"]
    _, second = run_directories()
    assert result == job_of(second)


def job_of(run_directory) -> str:
    """Return the id of the job that a job directory is of."""
    return json.loads((run_directory / "job.json").read_text())["id"]
