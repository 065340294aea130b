"""Records of an end that do not rule out a signal: the state of Slurm decides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_sewer.core import errors
from airflow_provider_sewer.slurm import monitor
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from tests.slurm.conftest import until
from tests.slurm.test_monitor import freeze, thaw
from tests.slurm.test_signals import TORN_DOWN, counts


def doubtful(job) -> None:
    """Write the record as a job script does that cannot rule out a signal to the module."""
    record = Path(job.directory.exit)
    fields = json.loads(record.read_text())
    record.write_text(json.dumps({**fields, "asked": None, "unsignalled": False}))


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_state_of_slurm_decides_where_the_record_is_unsure(jobs, is_cancelled) -> None:
    """Exit code 0 in an unsure record is a success, unless Slurm has ended the job."""
    job = jobs.start("""
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        wait_for("enough")
        say("42")
    """)
    job.expect_start()
    freeze(job)
    if is_cancelled:
        jobs.slurm.command("scancel", job.id)
    else:
        job.create_file("enough")
    until(lambda: JobDirectory(job.directory.path).read_exit(), lambda: "a record")
    doubtful(job)
    thaw(job)

    if is_cancelled:
        job.fails(errors.SlurmCancelled)
    else:
        assert job.succeeds() == "42"


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_state_of_slurm_decides_where_announcements_cannot_be_read(jobs, is_cancelled) -> None:
    """grep has too little memory for a line without end; the script ignores SIGTERM, as if it came late."""
    job = jobs.start(
        """
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        for _ in range(80):
            sys.stderr.write("x" * 1_000_000)
        sys.stderr.flush()
        say("42")
        wait_for("enough")
        """,
        slurm={"setup": ["trap '' TERM", "ulimit -v 100000"]},
    )
    job.expect_line("42")

    if is_cancelled:
        jobs.slurm.command("scancel", job.id)
    else:
        job.create_file("enough")

    job.end()
    assert job.value == (None if is_cancelled else "42")
    assert type(job.error) is (errors.SlurmCancelled if is_cancelled else type(None))
    assert not job.directory.read_exit().unsignalled


def test_unsure_record_is_success_where_slurm_does_not_answer(jobs, monkeypatch) -> None:
    """A controller that is away makes neither a failure nor a wait for ever of exit code 0."""
    monkeypatch.setattr(monitor, "_REASON_GRACE", 1.0)
    job = jobs.start("wait_for('enough'); say(42)")
    job.expect_logged("is RUNNING")
    freeze(job)
    jobs.slurm.put_in_front("squeue", "exit 1")
    job.create_file("enough")
    until(lambda: JobDirectory(job.directory.path).read_exit(), lambda: "a record")
    doubtful(job)
    thaw(job)

    assert job.succeeds() == "42"


@pytest.mark.parametrize("more", [{}, {"stderr_to_stdout": True}, {"setup": ["exec 2>&1"]}])
def test_sigterm_to_step_only_is_not_success(jobs, more) -> None:
    """With a GraceTime, a preemption signals the step only; Slurm would call such a job COMPLETED."""
    job = jobs.start(counts(children=0), slurm={**TORN_DOWN, "use_srun": True, **more})
    job.expect_line("listens")

    jobs.slurm.command("scancel", "--signal=TERM", f"{job.id}.0")

    job.end()
    assert type(job.error) is errors.SlurmJobFailed
    assert "was asked to end by SIGTERM" in str(job.error)
    assert (job.error.state, job.error.exit_code) == ("FAILED", 0)


@pytest.mark.parametrize("more", [{"setup": ["exec 2>/dev/null"]}, {"setup": ["export SLURM_STDERRMODE=/dev/null"]}])
def test_announcement_that_no_log_gets_leaves_the_record_unsure(jobs, more) -> None:
    """Slurm's final state decides then."""
    job = jobs.start("say('42')", slurm={"use_srun": True, **more})

    job.end()

    assert job.error is None
    assert not job.directory.read_exit().is_sure_success


def test_sigkill_of_module_parent_is_reported_without_exit_code(jobs) -> None:
    """The kernel may choose any process when memory is short; there is no exit code of the module then."""
    job = jobs.start("os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(4711)")

    job.end()

    assert "signal 9" in str(job.error)
    assert job.directory.read_exit() is None
