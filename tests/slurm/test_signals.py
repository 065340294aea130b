"""Signals that Slurm sends to a job: the module gets each once, under each kind of process tracking."""

from __future__ import annotations

import os
import signal
import subprocess
import textwrap
from pathlib import Path

import psutil
import pytest

from airflow_provider_sewer.core import errors
from airflow_provider_sewer.slurm import monitor
from tests.slurm.conftest import until
from tests.slurm.script_jobs import DEAF_TREE, WAIT

# Counts each signal, has child processes, and ends in the given way after the first one.
COUNTS = """
    import select
    signals = [signal.Signals[f"SIG{{name}}"] for name in ("TERM", "INT", "HUP", "USR1", "USR2")]
    wakes, wakened = os.pipe()
    os.set_blocking(wakened, False)
    for number in signals:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(wakened)
    for _ in range({children}):
        if os.fork() == 0:
            signal.set_wakeup_fd(-1)
            [signal.signal(number, signal.SIG_DFL) for number in signals]
            signal.pause()
    say("listens")
    got = os.read(wakes, 1)
    while select.select([wakes], [], [], 1.0)[0]:
        got += os.read(wakes, 1)
    say("signals: " + " ".join(signal.Signals(number).name for number in got if number != signal.SIGCHLD))
    sys.exit({code})
"""
TORN_DOWN = {"teardown": ["echo torn down"]}


def counts(*, children: int = 8, code: int = 0) -> str:
    return COUNTS.format(children=children, code=code)


def signals_of(job) -> str:
    """Return the line in which the module has written its signals, and see that teardown ran after that."""
    *_, line, last = job.stdout.splitlines()
    assert last == "torn down", job.stdout
    return line.removeprefix("signals: ")


def test_sigterm_of_scancel_and_time_limit_reaches_module_once(tracked_jobs) -> None:
    """The module has time to save, teardown runs, and the end is recorded, with any options of setup."""
    strict = {"setup": ["trap : TERM", "set -euo pipefail", "set -o posix"]}
    cancelled, timed_out = (tracked_jobs.start(counts(code=1), slurm={**TORN_DOWN, **more}) for more in ({}, strict))
    cancelled.expect_line("listens")
    timed_out.expect_line("listens")
    tracked_jobs.slurm.time_out(timed_out.id)
    tracked_jobs.slurm.command("scancel", cancelled.id)

    cancelled.fails(errors.SlurmCancelled)
    timed_out.fails(errors.SlurmTimeout)

    for job in (cancelled, timed_out):
        assert signals_of(job) == "SIGTERM"
        record = job.directory.read_exit()
        assert (record.phase, record.exit_code, record.asked) == ("teardown", 1, "TERM")


@pytest.mark.parametrize("requeue", [False, True])
def test_sigterm_of_preemption_is_not_success(tracked_jobs, requeue) -> None:
    """A module that saves and exits with 0 has failed, or runs again where the job may be requeued."""
    source = f"""
    if "SLURM_RESTART_COUNT" in os.environ:
        say("42")
        sys.exit(0)
    {counts()}"""
    slurm = {**TORN_DOWN, "partition": "scavenge", "nodelist": "n3", "exclusive": True}
    job = tracked_jobs.start(source, requeue=requeue, slurm=slurm)
    job.expect_line("listens")

    tracked_jobs.slurm.submit("true", "--exclusive", "--nodelist=n3")

    if requeue:
        job.end()
        assert (job.value, job.error) == ("42", None), job.stdout
    else:
        job.fails(errors.SlurmPreempted)
        assert signals_of(job) == "SIGTERM"


def test_sigkill_under_pgid_ends_all_processes_of_job(make_slurm, talk_to, jobs_on) -> None:
    """There Slurm kills the process group of the batch script only, and the module is in another one."""
    slurm = talk_to(make_slurm(nodes=1, proctrack="pgid", extra_conf="KillWait=2"))
    job = jobs_on(slurm).start(DEAF_TREE, slurm=TORN_DOWN)
    job.expect_line("all here")

    slurm.command("scancel", job.id)

    job.fails(errors.SlurmCancelled)
    until(lambda: job.stdout.endswith("torn down\n"), lambda: f"teardown after {job.stdout!r}")


@pytest.mark.parametrize("how", ["--batch", "--full"])
@pytest.mark.parametrize("name", ["INT", "HUP", "USR1", "USR2"])
def test_signal_that_reaches_the_batch_script_reaches_module_once(tracked_jobs, name, how) -> None:
    """Each signal is passed on, unless Slurm has sent it to the module itself."""
    job = tracked_jobs.start(counts(children=0), slurm=TORN_DOWN)
    job.expect_line("listens")

    tracked_jobs.slurm.command("scancel", f"--signal={name}", how, job.id)

    job.end()
    assert signals_of(job) == f"SIG{name}"
    assert (job.error is None) == name.startswith("USR")


def test_signal_delay_s_sends_sigusr2_to_module(tracked_jobs) -> None:
    """The warning before the time limit reaches the module with and without srun, and is no reason to fail."""
    slurm = {**TORN_DOWN, "timeout_min": 1, "signal_delay_s": 60}
    followed = [tracked_jobs.start(counts(children=0), slurm={**slurm, "use_srun": srun}) for srun in (False, True)]

    for job in followed:
        job.succeeds()

        assert signals_of(job) == "SIGUSR2"


def test_sigterm_during_setup_ends_setup(tracked_jobs) -> None:
    """The command that setup waits for is ended, the module is not run, and the end is recorded."""
    setup = ["trap 'echo cleaned up' TERM", "echo sets up", "sleep 4711"]
    job = tracked_jobs.start("", slurm={"setup": setup})
    job.expect_line("sets up")

    tracked_jobs.slurm.command("scancel", job.id)

    job.end()
    assert type(job.error) is errors.SlurmCancelled
    record = job.directory.read_exit()
    assert (record.phase, record.exit_code, record.asked) == ("setup", 143, "TERM")
    assert job.stdout == "sets up\ncleaned up\n"


def test_sigterm_during_a_substitution_of_setup_is_not_lost(tracked_jobs) -> None:
    """bash loses a signal that comes between two substitutions of one command."""
    setup = ["trap 'echo cleaned up' TERM", "echo sets up", "both=$(sleep 4711)$(echo)"]
    job = tracked_jobs.start("time.sleep(4711)", slurm={"setup": setup})
    job.expect_line("sets up")

    tracked_jobs.slurm.command("scancel", job.id)

    job.end()
    assert type(job.error) is errors.SlurmCancelled
    assert job.directory.read_exit().asked == "TERM"
    assert job.stdout.endswith("cleaned up\n")


def test_scancel_during_teardown_keeps_success_of_module(tracked_jobs) -> None:
    """The module had ended by itself when Slurm decided to end the job."""
    waits = "until [ -e go ]; do sleep 0.1; done"
    job = tracked_jobs.start("say(42)", slurm={"teardown": ["cd ${SEWER_RESULT_FILE%/*}", "echo tears down", waits]})
    job.expect_line("tears down")

    tracked_jobs.slurm.command("scancel", job.id)
    until(lambda: "CANCELLED AT" in Path(job.directory.stderr).read_text(), lambda: "the signal")
    job.create_file("go")

    job.end()
    assert (job.value, job.error) == ("42", None)
    assert tracked_jobs.slurm.state(job.id) == "CANCELLED"


# Goes on after any signal.
ENDLESS = ["echo tears down", "while :; do sleep 1; done"]


@pytest.mark.parametrize("how", ["scancel", "requeue", "job directory"])
def test_sigkill_during_teardown_keeps_success_of_module(jobs, monkeypatch, how) -> None:
    """The job script has recorded the end of the module before `teardown`."""
    monkeypatch.setitem(monitor._SETTLING_TIME, "slurm", 2.0)
    job = jobs.start("say(42)", requeue=how == "requeue", slurm={"teardown": ENDLESS})
    job.expect_line("tears down")

    if how == "scancel":
        jobs.slurm.command("scancel", job.id)
    elif how == "requeue":
        jobs.slurm.requeue(job.id)
    else:
        job.directory.write_cancelled()

    job.end()
    assert (job.value, job.error) == ("42", None)
    assert not job.directory.read_module_end().is_torn_down
    assert ("already succeeded when it was requeued" in job.stderr) == (how == "requeue")


def test_sigkill_during_teardown_keeps_exit_code_of_module(jobs) -> None:
    """The module had failed before Slurm ended the job."""
    job = jobs.start("sys.exit(3)", slurm={"teardown": ENDLESS})
    job.expect_line("tears down")

    jobs.slurm.command("scancel", job.id)

    assert job.fails(errors.SlurmCancelled).exit_code == 3


def test_success_during_teardown_counts_after_job_end(jobs) -> None:
    """Until then `teardown` may write to the module's products."""
    waits = "until [ -e go ]; do sleep 0.1; done"
    job = jobs.start("say(42)", slurm={"teardown": ["cd ${SEWER_RESULT_FILE%/*}", "echo tears down", waits]})
    job.expect_line("tears down")
    until(job.directory.read_module_end, lambda: "a record")
    jobs.slurm.put_in_front("squeue")
    until(lambda: jobs.slurm.counted("squeue") > 2, lambda: "two looks")

    assert job.ending is None

    job.create_file("go")
    assert (job.end(), job.value) == (None, "42")


# --- Without Slurm


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], ids=lambda number: number.name)
def test_signal_to_the_first_shell_of_a_local_job_reaches_module_once(local_jobs, number) -> None:
    """A local job passes signals on as a Slurm job does."""
    source = "import os, signal, sys\ndef say(text): print(text, flush=True)\n" + textwrap.dedent(counts(children=0))
    job = local_jobs.start(source, resources=TORN_DOWN)
    job.expect_output("listens")
    shell = psutil.Process(job.directory.read_start().pid).parent()

    shell.send_signal(number)

    record = job.record()
    assert record.is_success == (number == signal.SIGUSR1)
    assert job.stdout == f"listens\nsignals: {number.name}\ntorn down\n"


@pytest.mark.slow
def test_signal_flood_does_not_block_exit_record_of_local_job(local_jobs) -> None:
    """The exit code is the module's, with any signal while bash waits, and while it writes the record."""
    source = "import os, signal, time\nsignal.signal(signal.SIGUSR1, lambda *_: None)\nprint('listens', flush=True)\n"
    for _ in range(4):
        # At its own end, Python gives up its handlers before it ends.
        job = local_jobs.start(source + "time.sleep(1)\nos._exit(0)\n", resources=TORN_DOWN)
        job.expect_output("listens")
        shell = psutil.Process(job.directory.read_start().pid).parent()

        while shell.is_running() and shell.status() != psutil.STATUS_ZOMBIE:
            shell.send_signal(signal.SIGUSR1)

        assert job.record().is_success


def test_signal_before_the_claim_is_recorded_after_it(local_jobs) -> None:
    """The second shell is held up as it starts, long enough for a signal to be passed on."""
    directory, script = local_jobs.directory(), local_jobs.script("", resources={"setup": ["sleep 4711"]})
    script.write(directory)
    slow, started = Path(directory.path, "slow.bash"), Path(directory.path, "started")
    slow.write_text(f'[[ -z $SEWER_SUPERVISOR ]] || {{ >"{started}"; read -t 1 <> <(:); }}')
    env = {"SEWER_LOCAL_ID": "1", "SEWER_ATTEMPT_ID": script.name, "BASH_ENV": str(slow)}
    shell = subprocess.Popen(["/bin/bash", directory.script], cwd=directory.path, env=env, stdin=subprocess.DEVNULL)
    until(started.exists, lambda: "the second shell")

    shell.terminate()

    assert shell.wait() == 143
    record = directory.read_exit()
    assert (record.phase, record.exit_code, record.asked) == ("setup", 143, "TERM")


@pytest.mark.parametrize("lost", [0, 1, 3, 4])
def test_exit_code_reaches_slurm_where_bash_loses_a_byte(local_jobs, lost) -> None:
    """Bash before 5.0 may lose a byte when `read` times out; a success must not end with another exit code."""
    directory, script = local_jobs.directory(), local_jobs.script(WAIT)
    script.write(directory)
    env = {"SEWER_LOCAL_ID": "1", "SEWER_ATTEMPT_ID": script.name}
    shell = subprocess.Popen(["/bin/bash", directory.script], cwd=directory.path, env=env, stdin=subprocess.DEVNULL)
    until(directory.read_start, lambda: "the second shell")
    second = psutil.Process(directory.read_start().pid)
    pipe = f"/proc/{shell.pid}/fd/{second.environ()['SEWER_PIPES'].split()[2]}"
    shell.send_signal(signal.SIGSTOP)
    Path(directory.path, "go").touch()
    until(lambda: second.status() == psutil.STATUS_ZOMBIE, lambda: "its end")

    with open(os.open(pipe, os.O_RDWR | os.O_NONBLOCK), "r+b", buffering=0) as file:
        text = file.read(1000)
        file.write(text[:lost] + text[lost + 1 :])
    shell.send_signal(signal.SIGCONT)

    assert shell.wait() == 0
    assert directory.read_exit().is_success
