"""The cluster of the tests is a real Slurm, and works as documented."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from tests.slurm_cluster.cluster import SlurmCluster
from tests.slurm_cluster.fault_injection import SlurmTrouble
from tests.slurm_cluster.packages import path_with_sbin
from tests.waiting import PATIENCE

HERE = Path(__file__).parent
FOR_EVER = "sleep 1000000"
# One process of the shell, one in a session of its own, and one whose parent has died.
MANY = f"(setsid {FOR_EVER} &); setsid {FOR_EVER} & {FOR_EVER}"


def alive(pids) -> list[int]:
    """Return those that live."""
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def test_job_runs_on_node_with_exit_code(slurm) -> None:
    """A job runs on a node of the cluster and ends with its own exit code."""
    job = slurm.wait_for(slurm.submit("echo $SLURMD_NODENAME; exit 3"), "FAILED")

    assert job.exit_code == "3:0"
    assert slurm.output(job.id).strip() in slurm.nodes


def test_login_environment_ignores_user_profile(slurm) -> None:
    """The login environment is the cluster's own: the profile of the present user may hang, or print anything."""
    job = slurm.submit("env", "--export=NONE")
    slurm.wait_for(job, "COMPLETED")

    seen = dict(line.split("=", 1) for line in slurm.output(job).splitlines())
    # Newer versions set variables for several MPI launchers.
    by_slurm = ("SLURM", "ENVIRONMENT", "HOSTNAME", "TMPDIR", "HYDRA_", "I_MPI_", "OMPI_MCA_", "PRTE_MCA_")
    by_the_shell = ("PWD", "OLDPWD", "SHLVL", "_")
    login = {name: value for name, value in seen.items() if not name.startswith(by_slurm) and name not in by_the_shell}
    assert login.keys() == {"HOME", "LOGNAME", "USER", "SHELL", "PATH"}
    assert login["PATH"] == path_with_sbin()


def test_jobs_includes_jobs_forgotten_by_squeue(make_slurm) -> None:
    """A job that squeue has forgotten is still among the jobs, as it ended."""
    slurm = make_slurm(nodes=1, min_job_age=2)
    ids = [slurm.submit(script, "--job-name=daily load, JobState=7") for script in ("true", "exit 4")]
    slurm.submit("true", "--job-name=another")

    slurm.until(lambda: not slurm.command("squeue", "-h", "-t", "all", "-o", "%i"), "an empty queue")

    jobs = slurm.jobs(name_contains="load")
    assert [(job.id, job.state, job.exit_code, job.restarts) for job in jobs] == [
        (ids[0], "COMPLETED", "0:0", 0),
        (ids[1], "FAILED", "4:0", 0),
    ]


def test_node_down_fails_or_requeues_its_jobs(slurm) -> None:
    """With its node a job ends as NODE_FAIL; one that may start again does so on another node."""
    lost = slurm.submit(FOR_EVER, "--nodelist=n1", "--no-requeue")
    again = slurm.submit(f"echo $SLURMD_NODENAME; {FOR_EVER}")
    slurm.wait_for(lost, "RUNNING")
    first = slurm.until(lambda: slurm.output(again), "the name of a node").strip()

    for node in {"n1", first}:
        slurm.node_down(node)

    slurm.wait_for(lost, "NODE_FAIL")
    assert slurm.wait_for(again, "RUNNING").restarts == 1
    # Slurm starts the file of its output again.
    slurm.until(lambda: slurm.output(again).strip() not in {"", first}, "the name of another node")


def test_frozen_controller_answers_after_thaw(slurm) -> None:
    """A frozen controller lets its clients wait, and goes on as if nothing had been."""
    slurm.freeze("slurmctld")
    with pytest.raises(subprocess.TimeoutExpired):
        slurm.command("sinfo", timeout=1)

    slurm.thaw("slurmctld")

    assert "idle" in slurm.command("sinfo")


def test_killed_controller_restarts_with_its_jobs(slurm) -> None:
    """A job outlives its controller and its slurmd, and is known to the next ones."""
    job = slurm.submit(f"echo here; {FOR_EVER}", "--nodelist=n2")
    slurm.until(lambda: slurm.output(job), "a word of the job")
    # A controller writes its state down with some delay; one that is asked to end does it before.
    slurm.stop_daemon("slurmctld")
    slurm.kill("n2")
    with pytest.raises(SlurmTrouble, match=r"scontrol ping exited with 1"):
        slurm.command("scontrol", "ping")

    slurm.start_daemon("n2")
    slurm.start_daemon("slurmctld")

    assert slurm.job(job) == slurm.wait_for(job, "RUNNING")
    assert slurm.output(job) == "here\n"


def test_job_of_scavenge_is_preempted(slurm) -> None:
    """A job of the partition scavenge is ended for one of main."""
    options = ("--exclusive", "--nodelist=n3")
    weak = slurm.submit(FOR_EVER, "--partition=scavenge", "--no-requeue", *options)
    slurm.wait_for(weak, "RUNNING")

    strong = slurm.submit("true", *options)

    slurm.wait_for(weak, "PREEMPTED")
    slurm.wait_for(strong, "COMPLETED")


def test_job_is_held_released_suspended_resumed_and_requeued(slurm) -> None:
    """One job gets all commands for jobs, and then runs out of memory."""
    job = slurm.submit(FOR_EVER, "--hold")
    slurm.release(job)
    slurm.wait_for(job, "RUNNING")
    slurm.suspend(job)
    slurm.wait_for(job, "SUSPENDED")
    slurm.resume(job)
    slurm.wait_for(job, "RUNNING")
    slurm.requeue(job)
    slurm.wait_for(job, "PENDING")
    slurm.hold(job)
    slurm.release(job)
    slurm.wait_for(job, "RUNNING")

    slurm.out_of_memory(job)

    ended = slurm.wait_for(job, "OUT_OF_MEMORY")
    assert (ended.exit_code, ended.restarts) == ("0:125", 1)


def test_expired_time_limit_ends_job_as_timeout(slurm) -> None:
    """A job whose time limit is moved to now ends as TIMEOUT."""
    job = slurm.submit(FOR_EVER, "--partition=tiny")
    slurm.wait_for(job, "RUNNING")

    slurm.time_out(job)

    slurm.wait_for(job, "TIMEOUT")


def test_cgroup_memory_limit_ends_job_as_out_of_memory(make_slurm, tmp_path) -> None:
    """With cgroups, a job is out of memory when it takes too much; elsewhere the test is skipped with a reason."""
    if not SlurmCluster(tmp_path).can_cgroup:
        with pytest.raises(SlurmTrouble, match=r"out_of_memory\(\) does without"):
            make_slurm(cgroup=True)
        return
    # Two, because both have a node of the same name.
    clusters = [make_slurm(nodes=1, cgroup=True) for _ in range(2)]
    script = f"exec {sys.executable} -c 'bytearray(300 << 20)'"
    greedy = [slurm.submit(script, "--mem=50M") for slurm in clusters]

    for slurm, job in zip(clusters, greedy, strict=True):
        assert slurm.wait_for(job, "OUT_OF_MEMORY").exit_code == "0:125"


@pytest.mark.parametrize("proctrack", ["linuxproc", "cgroup"])
def test_proctrack_determines_processes_signalled_by_scancel(make_slurm, tmp_path, proctrack) -> None:
    """Under proctrack/cgroup, scancel sends SIGTERM to the batch script only; otherwise to its children as well."""
    if proctrack == "cgroup" and not SlurmCluster(tmp_path).can_track_by_cgroup:
        with pytest.raises(SlurmTrouble, match=r"proctrack/cgroup needs root and a writable /sys/fs/cgroup/freezer"):
            make_slurm(nodes=1, proctrack=proctrack)
        return
    slurm = make_slurm(nodes=1, proctrack=proctrack)
    child = "trap 'echo child; exit' TERM; echo ready; while :; do sleep 0.1; done"
    script = f"trap 'echo script' TERM; sh -c {shlex.quote(child)} & wait; wait"
    job = slurm.submit(script)
    slurm.until(lambda: "ready" in slurm.output(job), "the child of the script")

    slurm.command("scancel", job)
    slurm.wait_for(job, "CANCELLED")

    heard = {"script"} if proctrack == "cgroup" else {"script", "child"}
    assert set(slurm.output(job).split()) & {"script", "child"} == heard


def test_sacct_shows_ended_jobs(slurm_accounting) -> None:
    """With accounting there is a sacct, which knows of a job a little later than squeue."""
    job = slurm_accounting.submit("exit 3", "--comment=from a test")
    slurm_accounting.wait_for(job, "FAILED")
    sacct = ["sacct", "-X", "-n", "-P", "-j", job, "--format=State,ExitCode,Comment"]

    slurm_accounting.until(lambda: "FAILED" in slurm_accounting.command(*sacct), "word of sacct")

    assert slurm_accounting.command(*sacct) == "FAILED|3:0|from a test"


def test_wrapper_counts_and_fails_calls(slurm) -> None:
    """A wrapper sees each call of its command, and lets through the chosen ones."""
    slurm.put_in_front("squeue", 'if [ "$count" -le 2 ]; then echo "not now" >&2; exit 1; fi')

    def call() -> int:
        return subprocess.run(["squeue"], env=os.environ | slurm.env, stdout=subprocess.DEVNULL, check=False).returncode

    assert [call() for _ in range(4)] == [1, 1, 0, 0]
    assert slurm.jobs() is not None  # the cluster's own look goes past it
    assert slurm.counted("squeue") == 4

    slurm.take_away("squeue")
    assert call() == 0
    assert slurm.counted("squeue") == 4


def test_second_wrapper_calls_real_command(slurm, monkeypatch) -> None:
    """A test that has this cluster on its own PATH may put something else in front of a command."""
    monkeypatch.setenv("PATH", slurm.env["PATH"])
    slurm.put_in_front("squeue", "exit 1")

    slurm.put_in_front("squeue")

    subprocess.run(["squeue"], env=os.environ | slurm.env, stdout=subprocess.DEVNULL, check=True, timeout=PATIENCE)
    assert slurm.counted("squeue") == 1


def test_tidy_restores_cluster_after_test(make_slurm) -> None:
    """After any damage by a test, the next one finds a cluster at work."""
    slurm = make_slurm(nodes=2)
    jobs = [slurm.submit(FOR_EVER), slurm.submit(FOR_EVER, "--hold")]
    slurm.wait_for(jobs[0], "RUNNING")
    slurm.put_in_front("sinfo", "exit 9")
    slurm.node_down("n1")
    slurm.kill("n2")
    slurm.freeze("slurmctld")

    slurm.restore()

    assert [slurm.state(job) for job in jobs] == ["CANCELLED", "CANCELLED"]
    slurm.wait_for(slurm.submit("true", "--nodes=2"), "COMPLETED")
    assert not list(slurm.wrapper_folder.glob("[!.]*"))


@pytest.mark.usefixtures("needs_slurm")
def test_stop_leaves_no_process_or_file(tmp_path) -> None:
    """Daemons, step daemons and all processes of jobs are gone, also those that lost their slurmd; their files too."""
    with SlurmCluster(tmp_path, nodes=2) as slurm:
        daemons = slurm.processes()
        jobs = [slurm.submit(MANY, f"--nodelist={node}") for node in slurm.nodes]
        slurm.until(lambda: _sleepers(slurm) == 6, "three processes of each job")
        slurm.kill("n2")
        everyone = set(daemons) | set(slurm.processes())
        run_folder = slurm.conf.parent.parent
        assert _sleepers(slurm) == 6
        assert run_folder.exists()

    assert len(everyone) >= len(daemons) + 4 * len(jobs)
    assert not alive(everyone)
    assert not run_folder.exists()


def test_two_clusters_are_independent(make_slurm) -> None:
    """Clusters do not see each other's jobs, and the end of one leaves the other alone."""
    one, other = make_slurm(nodes=1), make_slurm(nodes=1)
    mine = one.submit(FOR_EVER, "--job-name=mine")
    theirs = other.submit(FOR_EVER, "--job-name=theirs")
    one.wait_for(mine, "RUNNING")
    other.wait_for(theirs, "RUNNING")
    before = other.processes()

    one.stop()

    assert [job.name for job in other.jobs()] == ["theirs"]
    assert alive(before) == before


@pytest.mark.usefixtures("needs_slurm")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_cluster_ends_with_its_owner_process(tmp_path, number) -> None:
    """A test session that is killed takes its cluster along, even while a fork of it lives on."""
    source = f"""
        import os, sys, time
        from pathlib import Path

        sys.path.insert(0, {str(HERE.parents[1])!r})
        from tests.slurm_cluster.cluster import SlurmCluster

        slurm = SlurmCluster(Path({str(tmp_path)!r}), nodes=1)
        slurm.start()
        fork = os.fork()
        if not fork:
            os.close(1)
            time.sleep(1000)
        slurm.until(lambda: slurm.state(slurm.submit("sleep 1000000")) and len(slurm.processes()) > 5, "a job")
        print(slurm.conf.parent.parent, fork, *slurm.processes(), flush=True)
        time.sleep(1000)
    """
    session = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    run_folder, fork, *pids = session.stdout.readline().split()
    try:
        assert len(alive(map(int, pids))) > 2

        session.send_signal(number)
        session.communicate()

        SlurmCluster(tmp_path).until(lambda: not os.path.exists(run_folder), "the end of the keeper")
        assert alive(map(int, pids)) == []
        assert alive([int(fork)]) == [int(fork)]
    finally:
        os.kill(int(fork), signal.SIGKILL)


def test_until_timeout_raises_with_logs(slurm) -> None:
    """The error has the awaited state, the present one, and the logs of the daemons."""
    job = slurm.submit("true")

    match = rf"timed out after 0\.5 s waiting for job {job} to be TIMEOUT; it was \[(.|\n)*ctld.log"
    with pytest.raises(SlurmTrouble, match=match):
        slurm.wait_for(job, "TIMEOUT", timeout=0.5)


def test_daemon_start_failure_raises_with_its_output(make_slurm) -> None:
    """A setting that Slurm does not know is read in the error, and nothing is left of the attempt."""
    with pytest.raises(SlurmTrouble, match=r"slurmctld ended at once(.|\n)*NoSuchSetting"):
        make_slurm(extra_conf="NoSuchSetting=1")


@pytest.mark.slow
def test_tests_without_slurm_are_skipped_with_hint(tmp_path) -> None:
    """Without the packages a test is skipped, and the end of the session names them."""
    env = {name: value for name, value in os.environ.items() if name != "SEWER_TEST_REQUIRE_ALL"}
    test = f"{HERE / 'test_cluster.py'}::test_job_runs_on_node_with_exit_code"
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inner'}", test]

    done = subprocess.run(
        argv, cwd=HERE.parent.parent, env=env | {"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout
    assert re.search(r"SKIPPED .* Slurm is not installed; apt-get install .*slurm-client", done.stdout)
    assert re.search(
        r"^1 test of Slurm was left out; to run it: apt-get install .*slurm-client", done.stdout, re.MULTILINE
    )


def _sleepers(slurm: SlurmCluster) -> int:
    names = []
    for pid in slurm.processes():
        try:
            names.append(psutil.Process(pid).name())
        except psutil.NoSuchProcess:
            continue
    return names.count("sleep")
