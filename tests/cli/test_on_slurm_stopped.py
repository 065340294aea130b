"""However `sppe` ends, its jobs are taken up by the next run or cancelled: after a kill, a signal, Ctrl-C."""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from .slurm_runs import LONG, PRELUDE, QUICKLY, Ended, killed, on_slurm

__all__ = ["on_slurm"]

WAITS = """# {'out': Product('made.txt')}
print('one', flush=True)
say('here')
wait()
print('two')
open(sys.argv[2], 'w')
"""


def test_resume_reattaches_to_running_job(on_slurm) -> None:
    """After kill -9 the job goes on; --resume follows it to its end, shows each line once, and submits nothing."""
    killed(on_slurm, "--log-dir", "logs", first=WAITS, second="# {'in': Dependency('made.txt')}\nprint('three')")
    job = on_slurm.one_job("first")
    assert job.state == "RUNNING"
    again = on_slurm.start("--resume", "--log-dir", "logs")
    on_slurm.open("go")
    run = Ended(again)
    assert run.code == 0, run.stderr
    assert run.stdout == "[first] two\n[second] three\n"
    assert f"[first] Reattaching to Slurm job {job.id} (" in run.stderr
    assert on_slurm.one_job("first").state == "COMPLETED"
    log = (on_slurm.sppe.folder / "logs" / "first.log").read_text()
    assert (log.count("stdout| one\n"), log.count("stdout| two\n")) == (1, 1)
    assert (on_slurm.sppe.folder / "made.txt").exists()


def test_resume_passes_large_result_to_reattached_job(on_slurm) -> None:
    """More than a command line takes goes from job to job by files, and a killed run changes nothing of that."""
    steps = """
def measure(text):
    print(len(text), flush=True)
    say("here")
    wait()
    return len(text)
"""
    on_slurm.sppe.write("steps.py", PRELUDE.format(life=on_slurm.lifeline.path) + steps)
    killed(
        on_slurm,
        make="import json\nopen(os.environ['SEWER_RESULT_FILE'], 'w').write(json.dumps('ü' * 300_000))",
        tail="use = Task('use', function='steps:measure', kwargs={'text': make.result})",
    )
    job = on_slurm.one_job("use")
    again = on_slurm.start("--resume", "--log-dir", "logs")
    on_slurm.open("go")
    run = Ended(again)
    assert run.code == 0, run.stderr
    assert f"[use] Reattaching to Slurm job {job.id} (" in run.stderr
    assert json.loads(next(on_slurm.sppe.folder.glob("runs/*/*/use/*/result.json")).read_text()) == 300_000


def test_run_killed_during_sbatch_has_one_job(on_slurm) -> None:
    """sbatch goes on without sppe; the resumed run finds its job."""
    on_slurm.flow(first="print('once')")
    on_slurm.slurm.put_in_front("sbatch", "sleep 2")
    run = on_slurm.start()
    on_slurm.slurm.until(lambda: on_slurm.slurm.counted("sbatch"), "sbatch")
    run.kill()
    run.wait()
    assert on_slurm.jobs() == []
    ended = on_slurm.run("--resume")
    assert ended.code == 0, ended.stderr
    assert ended.stdout == "[first] once\n"
    assert on_slurm.one_job("first").state == "COMPLETED"
    assert on_slurm.slurm.counted("sbatch") == 1


def test_resume_collects_success_after_full_disk(on_slurm, small_disk) -> None:
    """The first run fails and names the reason; the job has succeeded, and does not run once more."""
    out, filler = small_disk / "made.txt", small_disk / "filler"
    fills = f"""# {{'out': Product({str(out)!r})}}
open(sys.argv[2], "w").write("whole")
with open({str(filler)!r}, "wb", buffering=0) as file:
    try:
        while True: file.write(bytes(4096))
    except OSError: pass
"""
    on_slurm.flow(first=fills)
    run = on_slurm.run()
    assert run.code != 0
    assert "it was produced, but its record cannot be written" in run.stderr
    assert "No space left on device" in run.stderr
    filler.unlink()

    ended = on_slurm.run("--resume")
    assert ended.code == 0, ended.stderr
    assert out.read_text() == "whole"
    assert on_slurm.one_job("first").state == "COMPLETED"


def test_resume_collects_job_that_ended_meanwhile(on_slurm) -> None:
    """Its products are put in place by the run that is resumed; it does not run again."""
    killed(on_slurm, first=WAITS)
    on_slurm.open("go")
    on_slurm.slurm.wait_for(on_slurm.one_job("first").id, "COMPLETED")
    assert not (on_slurm.sppe.folder / "made.txt").exists()
    run = on_slurm.run("--resume")
    assert run.code == 0, run.stderr
    assert run.stdout == "[first] two\n"
    assert on_slurm.one_job("first")
    assert (on_slurm.sppe.folder / "made.txt").exists()


def test_run_rejects_jobs_of_killed_run_without_slurm(on_slurm) -> None:
    """A run that would not look after them names the option that does, and runs nothing."""
    killed(on_slurm, first=WAITS)
    plain = on_slurm.sppe.run("run", "--resume", env=on_slurm.slurm.env)
    assert plain.returncode == 2
    assert f"was killed, and its jobs may still run; pass --on slurm --run-dir {on_slurm.sppe.folder}/runs" in (
        plain.stderr
    )
    assert on_slurm.one_job("first").state == "RUNNING"


@pytest.mark.parametrize("how", ["a new run", "other parameters"])
def test_new_run_cancels_previous_job_first(how, on_slurm) -> None:
    """A new run, or a task that runs something else now, does not run beside the earlier job."""
    killed(on_slurm, first=WAITS)
    on_slurm.open("go2")
    changed = WAITS.replace("wait()", "wait('go2')").replace(
        "')}", "'), 'n': 2}" if how == "other parameters" else "')}"
    )
    on_slurm.flow(first=changed)
    run = on_slurm.run(*(["--resume"] if how == "other parameters" else []))
    assert run.code == 0, run.stderr
    left, new = on_slurm.jobs("first")
    # The job script ends by itself where it finds its mark before scancel comes.
    assert left.state in {"CANCELLED", "FAILED"}
    on_slurm.slurm.wait_for(new.id, "COMPLETED")
    assert f"[first] Cancelling Slurm job {left.id} ({left.name}) of an earlier attempt first" in run.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"])
def test_signal_cancels_all_jobs(number, code, on_slurm) -> None:
    """Without a terminal there is no question: jobs that run or wait are cancelled, and nothing is left."""
    on_slurm.flow(
        **dict.fromkeys("ab", "say('here')\nwait('never')"),
        waits="# slurm={'additional_parameters': {'begin': 'now+1hour'}}\nwait('never')",
    )
    run = on_slurm.start()
    on_slurm.lifeline.expect("here", times=2)
    on_slurm.slurm.until(lambda: on_slurm.jobs("waits"), "the job that waits")
    run.send_signal(number)
    ended = Ended(run)
    assert ended.code == code
    assert on_slurm.queue_is_empty()
    # The job script ends by itself where it finds its mark before scancel comes.
    assert {job.state for job in on_slurm.jobs()} <= {"CANCELLED", "FAILED"}
    assert on_slurm.one_job("waits").state == "CANCELLED"
    assert len(on_slurm.jobs()) == 3
    assert "0 of 3 tasks succeeded" in ended.stderr
    for name in ("a", "b", "waits"):
        assert f"[{name}] stopped after " in ended.stderr


def test_second_signal_exits_without_slurm(on_slurm) -> None:
    """While the controller does not answer, jobs are ended through their job directory, and `sppe` ends."""
    on_slurm.flow(one="say('here')\nwait('never')")
    run = on_slurm.start()
    on_slurm.lifeline.expect("here")
    on_slurm.slurm.freeze("slurmctld")
    on_slurm.slurm.put_in_front("scancel", "exit 1")
    run.send_signal(signal.SIGTERM)
    on_slurm.slurm.until(lambda: on_slurm.slurm.counted("scancel"), "the first cancellation")
    run.send_signal(signal.SIGTERM)
    ended = Ended(run)
    on_slurm.slurm.thaw("slurmctld")
    assert ended.code == 143
    assert "[one] stopped after " in ended.stderr
    assert "was cancelled without waiting for its end" in ended.stderr
    on_slurm.lifeline.expect_end()


def test_signal_cancels_many_jobs_with_few_commands(on_slurm) -> None:
    """The first scancel may be for one job; those that the run cancels meanwhile share the next ones."""
    on_slurm.sppe.write("wait.py", "")
    on_slurm.sppe.write(
        "flow.py",
        """
        from airflow_provider_sewer import Task
        for number in range(200):
            Task(f"t{number}", "wait", slurm={"additional_parameters": {"hold": True}})
        """,
    )
    run = on_slurm.start()
    with ThreadPoolExecutor() as threads:
        ended = threads.submit(Ended, run)  # it reads the output, which is more than a pipe takes
        on_slurm.slurm.until(
            lambda: len([*on_slurm.sppe.folder.glob("runs/*/*/*/*/monitor.json")]) == 200, "all jobs to be monitored"
        )
        on_slurm.slurm.put_in_front("scancel")
        run.send_signal(signal.SIGTERM)
        assert ended.result().code == 143
    assert [job.state for job in on_slurm.jobs()] == ["CANCELLED"] * 200
    assert on_slurm.slurm.counted("scancel") <= 20


def test_second_signal_exits_while_scancel_hangs(on_slurm) -> None:
    """No thread of the run waits for a command that does not end while the controller is frozen."""
    on_slurm.flow(one="say('here')\nwait('never')")
    run = on_slurm.start()
    on_slurm.lifeline.expect("here")
    on_slurm.slurm.freeze("slurmctld")
    on_slurm.slurm.put_in_front("scancel", f"echo $$ > {on_slurm.sppe.folder}/scancel.pid")
    pid = on_slurm.sppe.folder / "scancel.pid"
    run.send_signal(signal.SIGTERM)
    on_slurm.slurm.until(lambda: pid.exists() and pid.read_text().endswith("\n"), "the first cancellation")
    run.send_signal(signal.SIGTERM)
    ended = Ended(run)
    assert psutil.pid_exists(int(pid.read_text()))
    on_slurm.slurm.thaw("slurmctld")
    assert ended.code == 143
    assert "was cancelled without waiting for its end" in ended.stderr
    on_slurm.lifeline.expect_end()


def test_first_ctrl_c_in_terminal_prints_warning(on_slurm, terminal) -> None:
    """The first Ctrl-C announces the effect of a second one, and the run goes on; the second cancels."""
    on_slurm.flow(one="say('here')\nwait('never')")
    screen = terminal(columns=150)
    run = screen.start(on_slurm.sppe, "run", "--on", "slurm", "--run-dir", "runs", *QUICKLY, env=on_slurm.slurm.env)
    on_slurm.lifeline.expect("here")
    screen.type(b"\x03")
    screen.expect(lambda shown: "1 Slurm job is active; press Ctrl-C again to cancel all and stop" in shown)
    assert on_slurm.one_job("one").state == "RUNNING"
    screen.type(b"\x03")
    screen.expect(lambda shown: "0 of 1 tasks succeeded" in shown)
    assert run.wait(LONG) == 130
    assert on_slurm.one_job("one").state == "CANCELLED"


def test_run_continued_after_first_ctrl_c_exits_with_0(on_slurm, terminal) -> None:
    """A Ctrl-C that was only asked about leaves no trace in the exit code."""
    on_slurm.flow(one="say('here')\nwait()")
    screen = terminal(columns=150)
    run = screen.start(on_slurm.sppe, "run", "--on", "slurm", "--run-dir", "runs", *QUICKLY, env=on_slurm.slurm.env)
    on_slurm.lifeline.expect("here")
    screen.type(b"\x03")
    screen.expect(lambda shown: "press Ctrl-C again" in shown)
    on_slurm.open("go")
    screen.expect(lambda shown: "1 of 1 tasks succeeded" in shown)
    assert run.wait(LONG) == 0
