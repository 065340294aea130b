"""Each end of a job has its error, and only a recorded exit code 0 is a success."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from airflow_provider_sewer.core import errors
from tests.slurm.test_arrays import instances
from tests.slurm.worker import real

FOR_EVER = "wait_for('the end of days')"
# Exits with 0 when it is asked to end, before it has done its work.
TRAPS = """
    signal.signal(signal.SIGTERM, lambda *_: (say("asked to end"), os._exit(0)))
    say("traps")
    wait_for("the end of days")
"""
HALF = {"slurm": {"mem_gb": 2}}


def test_exit_0_is_success_with_last_line_as_result(any_jobs) -> None:
    """The result is the last line, and the log has all lines once."""
    assert any_jobs.start("say('42')").succeeds() == "42"


def test_exit_codes_are_reported_unchanged(jobs) -> None:
    """No code is taken for one of the job script's own, or for the end of the interpreter."""
    codes = (1, 2, 3, 72, 73, 74, 75, 126, 127, 137, 255)
    followed = {code: jobs.start(f"sys.exit({code})") for code in codes}
    for code, job in followed.items():
        error = job.fails(errors.SlurmJobFailed, f"ran {job.run.spec.task.target}, which failed with exit code {code}")
        assert error.exit_code == code
        assert error.node in jobs.slurm.nodes
        assert f"on {error.node}" in str(error)


def test_module_killed_by_signal_fails_with_signal_name(jobs) -> None:
    """The signal is named, where a module crashes and where it is killed."""
    crashed = jobs.start("os.kill(os.getpid(), signal.SIGSEGV)")
    killed = jobs.start("os.kill(os.getpid(), signal.SIGKILL)")
    assert crashed.fails(errors.SlurmJobFailed, "SIGSEGV").exit_code == 139
    assert killed.fails(errors.SlurmJobFailed, "SIGKILL (out of memory?)").exit_code == 137


def test_missing_interpreter_module_or_workdir_is_named(jobs) -> None:
    """An interpreter, a module or a working directory that the node lacks is reported as missing."""
    no_python = jobs.start("", python="/no/such/python")
    no_module = jobs.start("", module="no_such_module")
    no_main = jobs.start("", module="json")
    no_workdir = jobs.start("", workdir="/no/such/folder")
    for job, message in (
        (no_python, "could not start its interpreter (exit code 127)"),
        (no_module, "found no module to run as 'no_such_module' (No module named no_such_module)"),
        (no_main, "ran package 'json', which has no __main__.py"),
        (no_workdir, "could not enter its working directory"),
    ):
        job.end()
        assert type(job.error) is errors.SlurmJobFailed
        assert message in str(job.error)
        assert "?." not in str(job.error)
        assert "The last lines of stderr" in str(job.error)


def test_scancel_by_user_raises_slurm_cancelled(any_jobs) -> None:
    """It is a SlurmCancelled for jobs that ran, that may be requeued, and that had not begun."""
    running = any_jobs.start(FOR_EVER)
    requeued = any_jobs.start(FOR_EVER, requeue=True)
    waiting = any_jobs.start("", slurm={"additional_parameters": {"hold": True}})
    running.expect_start()
    requeued.expect_start()
    waiting.expect_logged("is PENDING")
    any_jobs.slurm.command("scancel", running.id, requeued.id, waiting.id)
    logged = ("was cancelled", "a user called scancel")
    assert running.fails(errors.SlurmCancelled, *logged).state == "CANCELLED"
    assert requeued.fails(errors.SlurmCancelled, *logged).state == "CANCELLED"
    assert waiting.fails(errors.SlurmCancelled, *logged, "It wrote nothing", runs=0).node is None


@pytest.mark.parametrize("use_srun", [False, True], ids=["plain", "under srun"])
def test_exit_0_after_sigterm_is_not_success(jobs, use_srun) -> None:
    """A module that traps SIGTERM and exits with 0 was cancelled, or ran out of time, all the same."""
    cancelled = jobs.start(TRAPS, slurm={"use_srun": use_srun})
    timed_out = jobs.start(TRAPS, slurm={"use_srun": use_srun})
    cancelled.expect_line("traps")
    timed_out.expect_line("traps")
    jobs.slurm.time_out(timed_out.id)
    jobs.slurm.command("scancel", cancelled.id)
    cancelled.fails(errors.SlurmCancelled, "was cancelled")
    assert timed_out.fails(errors.SlurmTimeout, "reached its time limit", "timeout_min").state == "TIMEOUT"
    assert "asked to end" in cancelled.stdout
    assert "asked to end" in timed_out.stdout


def test_missed_deadline_raises_slurm_deadline(jobs) -> None:
    """The error of a job that can no longer end before its deadline names the fix."""
    in_the_way = jobs.slurm.submit("sleep 4711", "--nodelist=n1", "--exclusive")
    jobs.slurm.wait_for(in_the_way, "RUNNING")
    deadline = {"additional_parameters": {"deadline": "now+62"}}
    job = jobs.start("", slurm={"timeout_min": 1, "nodelist": "n1", "exclusive": True, **deadline})
    error = job.fails(errors.SlurmDeadline, "could not end before its deadline", "a later deadline", runs=0)
    assert error.state == "DEADLINE"


def test_job_on_node_marked_down_ends_itself(jobs) -> None:
    """A node that is down for Slurm may be alive: its module does not run on beside the next attempt's."""
    job = jobs.start("wait_for('the end of days')", slurm={"nodelist": "n3"})
    job.expect_start()
    running = job.directory.read_start().pid
    jobs.slurm.kill("n3")
    jobs.slurm.node_down("n3")
    job.fails(errors.SlurmNodeFailure, "lost its node")
    jobs.slurm.until(lambda: not psutil.pid_exists(running), "the script to end itself")


def test_node_failure_raises_slurm_node_failure(any_jobs) -> None:
    """A job whose node goes down is a SlurmNodeFailure, with the node and the fix."""
    job = any_jobs.start(FOR_EVER, slurm={"nodelist": "n2"})
    job.expect_start()
    any_jobs.slurm.node_down("n2")
    error = job.fails(errors.SlurmNodeFailure, "lost its node on n2", "with retries, or with requeue=True")
    assert (error.state, error.node) == ("NODE_FAIL", "n2")


def test_preemption_raises_slurm_preempted(any_jobs) -> None:
    """Without requeue, a job of a weak partition ends for one of a stronger."""
    job = any_jobs.start(FOR_EVER, slurm={"partition": "scavenge", "nodelist": "n3", "exclusive": True})
    job.expect_start()
    any_jobs.slurm.submit("true", "--exclusive", "--nodelist=n3")
    error = job.fails(errors.SlurmPreempted, "was preempted by another job on n3", "a partition or QOS")
    assert error.state == "PREEMPTED"


def test_out_of_memory_state_raises_slurm_out_of_memory(jobs) -> None:
    """The node's report to the controller about a memory kill determines the error."""
    job = jobs.start(FOR_EVER)
    job.expect_start()
    jobs.slurm.out_of_memory(job.id)
    assert job.fails(errors.SlurmOutOfMemory, "ran out of memory", "mem_gb").state == "OUT_OF_MEMORY"


HOLDS = "held = b'x' * (400 << 20)"
#: The job script looks for an srun of the module at intervals, and notes it in this file.
WHEN_SEEN = """
import os, time
while not os.path.exists(os.path.join(os.path.dirname(os.environ["SEWER_RESULT_FILE"]), "steps")):
    time.sleep(0.05)
"""


@pytest.mark.parametrize(
    ("source", "use_srun"),
    [
        (HOLDS, False),
        (HOLDS, True),
        (f"import subprocess; sys.exit(subprocess.call(['srun', sys.executable, '-c', {WHEN_SEEN + HOLDS!r}]))", False),
    ],
    ids=["plain", "under srun", "with an srun of its own"],
)
def test_oom_kill_by_kernel_raises_slurm_out_of_memory(
    make_slurm, talk_to, tmp_path, jobs_on, source, use_srun
) -> None:
    """So it is under srun too, where Slurm calls the job failed and only the step out of memory."""
    slurm = talk_to(cgroup_cluster(make_slurm, tmp_path))
    job = jobs_on(slurm).start(source, slurm={"mem_gb": 0.06, "use_srun": use_srun})
    job.fails(errors.SlurmOutOfMemory, "ran out of memory on n1", "mem_gb")
    usage = job.directory.read_usage()
    assert usage is not None
    assert (usage.exit_class, usage.node, usage.requested) == ("out_of_memory", "n1", {"mem_gb": 0.06})
    assert usage.used["elapsed"] > 0


def cgroup_cluster(make_slurm, tmp_path):
    """Return a cluster where the kernel limits memory, or leave the test out."""
    from tests.slurm_cluster.cluster import SlurmCluster

    if not SlurmCluster(tmp_path).can_cgroup:
        pytest.skip("memory is limited by cgroups of version 1, for root")
    return make_slurm(nodes=1, cgroup=True)


def test_killed_script_fails_without_exit_record(any_jobs) -> None:
    """A job whose script is killed at once is a failure without a record."""
    job = any_jobs.start(FOR_EVER)
    job.expect_start()
    os.kill(job.directory.read_start().pid, signal.SIGKILL)
    error = job.fails(errors.SlurmJobFailed, "was ended by signal 9 and left no exit record on n1")
    assert error.node == "n1"


# -- Jobs whose script cannot do its work ------------------------------------------------------------------------------


def ended(job) -> str:
    """Wait for a launch failure and return its first line."""
    job._thread.join(120)
    assert type(job.error) is errors.SlurmLaunchFailure, (job.error, job.logged)
    assert job.error.exit_code is None
    return str(job.error).partition("\n")[0]


def test_script_exit_codes_without_record_raise_launch_failure(any_jobs) -> None:
    """As where the job directory is not shared with the nodes, so that no record can appear here."""
    messages = {
        72: "could not enter its working directory",
        73: "could not write into its run directory",
        74: "found no readable files in its job directory",
        75: "found its run directory taken by another job, or cancelled",
    }
    started = {code: any_jobs.start("", slurm={"setup": ["builtin trap - EXIT", f"exit {code}"]}) for code in messages}
    for code, job in started.items():
        assert messages[code] in ended(job)
    for code in (73, 74):
        assert started[code].directory.path in ended(started[code])
        assert "shared with the nodes" in ended(started[code])


def test_job_directory_removed_while_pending_is_named(jobs) -> None:
    """Whether Slurm finds no folder for the output, as 22.05, or makes it, as 23.02, or only a file is missing."""
    hold = {"slurm": {"additional_parameters": {"hold": True}}}
    gone, emptied, incomplete = (jobs.start("", **hold) for _ in range(3))
    element_gone, element_incomplete = (jobs.follow(instances(jobs.plan("", **hold), 1)[0]) for _ in range(2))
    every = (gone, emptied, incomplete, element_gone, element_incomplete)
    for job in every:
        job.expect_logged("is PENDING")
    for job in (gone, emptied, element_gone):
        os.rename(job.directory.path, f"{job.directory.path}.gone")
    os.mkdir(emptied.directory.path)
    Path(incomplete.directory.path, "environment.sh").unlink()
    Path(element_incomplete.directory.path, "job.sh").unlink()
    for job in every:
        jobs.slurm.release(job.id)
    for job in every:
        assert f"job directory {job.directory.path}" in ended(job)
        assert "shared with the nodes" in ended(job)


def test_job_cancelled_before_its_script_names_causes(make_slurm, talk_to, jobs_on, tmp_path) -> None:
    """A prolog that fails, or since 25.05 a login environment that cannot be made: Slurm shows only CANCELLED."""
    prolog = tmp_path / "prolog"
    prolog.write_text("#!/bin/sh\nexit 1\n")
    prolog.chmod(0o755)
    slurm = talk_to(make_slurm(nodes=2, extra_conf=f"Prolog={prolog}"))
    jobs = jobs_on(slurm)
    version_file = tmp_path / "version"
    slurm.put_in_front("squeue", f'[ "$1" != --version ] || exec cat {version_file}')
    for version, names_login in (("22.05.8", False), ("25.11.2", True)):
        version_file.write_text(f"slurm {version}\n")
        job = jobs.start("")
        job._thread.join(120)
        assert type(job.error) is errors.SlurmCancelled, (job.error, job.logged)
        first = str(job.error).partition("\n")[0]
        assert "was cancelled before its script began" in first
        assert "the prolog of the node failed" in first
        assert ("slurm={'login_environment': False}" in first) is names_login


# -- Memory ------------------------------------------------------------------------------------------------------------

#: As slurmstepd and srun print it; recorded on 22.05 and 24.11.
KILLED_BY_STEPD = "slurmstepd-n1: error: StepId=9.batch exceeded memory limit (315383808 > 104857600), being killed"
KILLED_BY_SRUN = "srun: error: n1: task 0: Out Of Memory"
EATS = """
    held = bytearray(300 << 20)
    wait_for("the end of days")
"""


def test_over_memory_kill_raises_slurm_out_of_memory(make_slurm, talk_to, jobs_on) -> None:
    """At a site with OverMemoryKill, where Slurm calls it FAILED: plain, under srun, and as an element of an array."""
    slurm = talk_to(make_slurm(nodes=1, memory_poll=1))
    jobs = jobs_on(slurm)
    ways = ({}, {"use_srun": True}, {"use_srun": True, "stderr_to_stdout": True})
    started = [jobs.start(EATS, slurm={"mem_gb": 0.1, **way}) for way in ways]
    started.append(jobs.follow(instances(jobs.plan(EATS, slurm={"mem_gb": 0.1}), 1)[0]))
    for job in started:
        job._thread.join(120)
        assert type(job.error) is errors.SlurmOutOfMemory, (job.error, job.logged)
        assert "ran out of memory on n1: request more with slurm={'mem_gb'" in str(job.error)


@pytest.mark.parametrize("use_srun", [False, True], ids=["plain", "under srun"])
def test_module_printing_slurmstepd_text_is_not_out_of_memory(jobs, use_srun) -> None:
    """The words are its own, and it fails of something else."""
    words = f"[say(line, sys.stderr) for line in ({KILLED_BY_STEPD!r}, {KILLED_BY_SRUN!r})]"
    job = jobs.start(f"{words}; sys.exit(3)", slurm={"use_srun": use_srun})
    assert job.fails(errors.SlurmJobFailed, "failed with exit code 3").exit_code == 3


# -- Reasons for waiting -----------------------------------------------------------------------------------------------


def test_job_larger_than_its_node_is_unsatisfiable(jobs) -> None:
    """Slurm 22.05 and 25.11 let it wait for PartitionConfig, and 24.11 refuses it."""
    job = jobs.start("", slurm={"cpus_per_task": 999})
    job._thread.join(120)
    assert type(job.error) in {errors.SlurmUnsatisfiable, errors.SlurmSubmissionRejected}, (job.error, job.logged)
    assert "PartitionConfig" in str(job.error) or "node configuration is not available" in str(job.error)


def test_revoked_job_of_federation_is_monitored_to_its_end(jobs) -> None:
    """Another cluster runs it. squeue stands in for a federation: it shows REVOKED and no node."""
    jobs.slurm.put_in_front("squeue", f'{real(jobs.slurm, "squeue")} "$@" | sed "s/RUNNING  /REVOKED  /"; exit 0')
    job = jobs.start("wait_for('go'); say('done')", lost_after=1.0)
    job.expect_start()
    job.expect_logged("is REVOKED")
    assert job.ending is None
    job.create_file("go")
    assert job.succeeds() == "done"
