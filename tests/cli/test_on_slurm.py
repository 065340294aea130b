"""Run a workflow as Slurm jobs from the shell: one job for each task, whatever happens to `sppe` meanwhile."""

from __future__ import annotations

import json
import re
import signal
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import subprocess

    from tests.slurm.cluster import SlurmCluster

QUICKLY = ("--slurm", "poll_interval=0.3", "--slurm", "max_poll_interval=0.6")
ACTIVE = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED"}
LONG = 180


class OnSlurm:
    """`sppe run --on slurm` on a real cluster, in a folder that its nodes see."""

    def __init__(self, sppe: Any, slurm: SlurmCluster, lifeline: Any) -> None:
        self.sppe = sppe
        self.slurm = slurm
        self.lifeline = lifeline

    def flow(self, tail: str = "", **tasks: str) -> None:
        """Write a module for each task, and a workflow file; a task's arguments are the first line of its source.

        A module says `say(word)` to the test, and `wait()` ends when the test lets it.
        """
        lines = ["from airflow_provider_sewer import Dependency, Product, Task"]
        for name, source in tasks.items():
            first, _, rest = source.partition("\n")
            says = first.startswith("# ")
            arguments = first.removeprefix("# ") if says else ""
            self.sppe.write(
                f"{name}_module.py",
                _PRELUDE.format(life=self.lifeline.path) + textwrap.dedent(rest if says else source),
            )
            lines.append(f"{name} = Task({name!r}, '{name}_module', {arguments})")
        self.sppe.write("flow.py", "\n".join([*lines, tail]))

    def start(self, *options: str, **more: Any) -> subprocess.Popen[str]:
        """Start it; how often jobs are looked at is for impatient people."""
        env = {**self.slurm.env, **more.pop("env", {})}
        return self.sppe.start("run", "--on", "slurm", "--run-dir", "runs", *QUICKLY, *options, env=env, **more)

    def run(self, *options: str, **more: Any) -> Ended:
        """Run it to its end."""
        return Ended(self.start(*options, **more))

    def open(self, name: str) -> None:
        """Let modules go on that wait for this."""
        (self.sppe.folder / name).touch()

    def jobs(self, task: str = "") -> list[Any]:
        """Return the jobs there ever were of a task of this workflow."""
        noted = [json.loads(path.read_text()) for path in self.sppe.folder.glob("runs/*/*/*/*/attempt.json")]
        names = {each["name"] for each in noted}
        return [job for job in self.slurm.jobs(f".{task}") if job.name in names]

    def one_job(self, task: str) -> Any:
        """Return the only job there ever was of a task."""
        jobs = self.jobs(task)
        assert len(jobs) == 1, jobs
        return jobs[0]

    def noted_output(self) -> bool:
        """Tell whether it is noted in a run directory that some output has been shown."""
        states = [json.loads(path.read_text()) for path in self.sppe.folder.glob("runs/*/*/*/*/log-offsets.json")]
        return any(state["stdout"]["offset"] for state in states)

    def queue_is_empty(self) -> bool:
        """Tell whether no job waits or runs."""
        return not [job for job in self.jobs() if job.state in ACTIVE]

    def dependency(self, job: Any) -> str:
        """Return what Slurm lets a job wait for."""
        words = self.slurm.command("scontrol", "show", "job", job.id).split()
        return next(word.partition("=")[2] for word in words if word.startswith("Dependency="))


class Ended:
    """What came of a run."""

    def __init__(self, run: subprocess.Popen[str]) -> None:
        self.stdout, self.stderr = run.communicate(timeout=LONG)
        self.code = run.returncode
        assert "Traceback" not in self.stderr, self.stderr


_PRELUDE = """\
import os, sys, time
def say(word):
    global life
    life = open({life!r}, "w", buffering=1)
    print(word, file=life)
def wait(name="go"):
    while not os.path.exists(name): time.sleep(0.05)
"""


@pytest.fixture
def on_slurm(sppe: Any, slurm: SlurmCluster, lifeline: Any) -> OnSlurm:
    """Return what runs workflows on a cluster."""
    return OnSlurm(sppe, slurm, lifeline)


def test_a_workflow_runs_as_jobs_with_logs_results_and_products(on_slurm) -> None:
    """Each task is one job; what it prints is shown and kept, its result and its products reach the next one."""
    on_slurm.flow(
        make="""# {'out': Product('made.txt')}
        open(sys.argv[2], "w").write("made on " + os.environ["SLURM_JOB_ID"])
        print("hello")
        open(os.environ["SEWER_RESULT_FILE"], "w").write('{"seed": 7}')
        """,
        use="""# {'in': Dependency('made.txt'), 'seed': make.result['seed']}
        print("given", sys.argv[4], "and", open(sys.argv[2]).read())
        """,
    )
    run = on_slurm.run("--log-dir", "logs")
    assert run.code == 0, run.stderr
    made, used = (on_slurm.slurm.wait_for(on_slurm.one_job(name).id, "COMPLETED") for name in ("make", "use"))
    assert run.stdout == f"[make] hello\n[use] given 7 and made on {made.id}\n"
    assert f"[make] Slurm job {made.id} ({made.name}); its run directory is " in run.stderr
    log = (on_slurm.sppe.folder / "logs" / "use.log").read_text()
    assert log.count(f"stdout| given 7 and made on {made.id}\n") == 1
    assert f"sewer| Slurm job {used.id} ({used.name}); its run directory is " in log
    assert "2 of 2 tasks succeeded" in run.stderr


def test_a_failure_says_what_the_job_said_and_stops_what_comes_after(on_slurm) -> None:
    """The rest runs to its end; the summary has the last lines of stderr and where the files are."""
    on_slurm.flow(bad="sys.exit('no such thing')", after="# depends_on=bad\nsay('ran')", other="print('fine')")
    run = on_slurm.run()
    assert run.code == 1
    bad = on_slurm.one_job("bad")
    assert f"\nbad: Slurm job {bad.id} ({bad.name}) ran bad_module, which failed with exit code 1 on n" in run.stderr
    assert "The last lines of stderr:\n  no such thing\nIts files are in " in run.stderr
    assert "[after] not run: 'bad' failed" in run.stderr
    assert run.stdout == "[other] fine\n"
    assert on_slurm.jobs("after") == []


def test_a_task_that_says_so_stays_on_this_machine(on_slurm) -> None:
    """Only what does not say run_on='local' becomes a job, and a plain run has no jobs at all."""
    on_slurm.flow(
        here="# run_on='local'\nprint('job', os.environ.get('SLURM_JOB_ID'))",
        there="# run_on='slurm', depends_on=here\nprint('job', os.environ.get('SLURM_JOB_ID'))",
    )
    run = on_slurm.run()
    assert run.code == 0, run.stderr
    assert run.stdout == f"[here] job None\n[there] job {on_slurm.one_job('there').id}\n"
    assert on_slurm.jobs("here") == []
    plain = on_slurm.sppe.run("run", env=on_slurm.slurm.env)
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout == "[here] job None\n[there] job None\n"


def test_a_task_asks_for_more_than_the_command_line(on_slurm) -> None:
    """What a task says itself wins over --slurm, parameter by parameter."""
    show = "print(os.environ['SLURM_CPUS_PER_TASK'], os.environ.get('SAID'))"
    on_slurm.flow(
        plain=show, own=f"# slurm={{'cpus_per_task': 1, 'setup': ['export SAID=mine']}}, depends_on=plain\n{show}"
    )
    run = on_slurm.run("--slurm", "cpus_per_task=2", "--slurm", 'setup=["export SAID=all"]')
    assert run.code == 0, run.stderr
    assert run.stdout == "[plain] 2 all\n[own] 1 mine\n"


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (("--slurm", "partitoin=gpu"), "unknown Slurm parameter 'partitoin'; did you mean 'partition'?"),
        (("--slurm", "mem_gb=much"), "--slurm: slurm: mem_gb: a number is needed, not 'much'"),
        (("--slurm", "gpu"), "--slurm 'gpu': write NAME=VALUE"),
        (("--slurm", "requeue=maybe"), "requeue: True or False is needed, not 'maybe'"),
    ],
)
def test_a_parameter_that_slurm_could_not_take_is_named(said, answer, on_slurm) -> None:
    """Nothing is submitted then."""
    on_slurm.flow(one="say('ran')")
    run = on_slurm.run(*said)
    assert run.code == 2
    assert answer in run.stderr
    assert on_slurm.jobs() == []


def test_options_of_jobs_want_jobs(on_slurm) -> None:
    """Without --on slurm, they would mean nothing."""
    on_slurm.flow(one="say('ran')")
    run = on_slurm.sppe.run("run", "--slurm", "partition=gpu")
    assert run.returncode == 2
    assert "--slurm says something of Slurm jobs; add --on slurm" in run.stderr


def test_without_slurm_there_is_a_sentence(on_slurm) -> None:
    """No sbatch on PATH: nothing is run, and it is said what to do."""
    on_slurm.flow(one="say('ran')")
    run = on_slurm.run(env={"PATH": str(on_slurm.sppe.folder)})
    assert run.code == 2
    assert run.stderr == (
        "sppe: there is no sbatch, squeue, scancel on this machine's PATH; install Slurm's client there, "
        "or leave out --on slurm to run on this machine\n"
    )


def test_as_many_jobs_as_j_says_are_in_the_queue(on_slurm) -> None:
    """With -j 1, the second job is submitted when the first has ended; not before."""
    on_slurm.flow(**dict.fromkeys("ab", "say('here')\nwait()"))
    run = on_slurm.start("-j", "1")
    on_slurm.lifeline.expect("here")
    assert len(on_slurm.jobs()) == 1
    on_slurm.open("go")
    assert Ended(run).code == 0
    assert len(on_slurm.jobs()) == 2


def test_slurm_is_asked_about_all_jobs_at_once(on_slurm) -> None:
    """However many jobs are followed, each squeue is about all of them."""
    on_slurm.flow(**dict.fromkeys("abcd", "say('here')\nwait()"))
    run = on_slurm.start()
    on_slurm.slurm.until(lambda: [job.state for job in on_slurm.jobs()] == ["RUNNING"] * 4, "four jobs that run")
    ids = {job.id for job in on_slurm.jobs()}
    asked = on_slurm.sppe.folder / "asked"
    asked.touch()
    on_slurm.slurm.put_in_front("squeue", f'echo "$@" >> {asked}')

    def asked_about() -> list[set[str]]:
        return [set(said.split(",")) for said in re.findall(r"-j (\S+)", asked.read_text())]

    on_slurm.slurm.until(lambda: ids in asked_about(), "a look at all four")
    first = asked_about().index(ids)
    on_slurm.slurm.until(lambda: len(asked_about()) >= first + 4, "more looks")
    on_slurm.open("go")
    assert Ended(run).code == 0
    assert asked_about()[first : first + 4] == [ids] * 4


# -- However sppe ends ------------------------------------------------------------------------------------------------


WAITS = """# {'out': Product('made.txt')}
print('one', flush=True)
say('here')
wait()
print('two')
open(sys.argv[2], 'w')
"""


def killed(on_slurm: OnSlurm, *options: str, **tasks: str) -> None:
    """Start a run, and kill it when its first job says so and what that has printed is shown."""
    on_slurm.flow(**tasks)
    run = on_slurm.start(*options)
    on_slurm.lifeline.expect("here")
    on_slurm.slurm.until(on_slurm.noted_output, "what was shown to be noted")
    run.kill()
    run.wait()


def test_a_killed_run_is_resumed_with_the_job_that_still_runs(on_slurm) -> None:
    """After kill -9 the job goes on; --resume follows it to its end, shows each line once, and submits nothing."""
    killed(on_slurm, "--log-dir", "logs", first=WAITS, second="# {'in': Dependency('made.txt')}\nprint('three')")
    job = on_slurm.one_job("first")
    assert job.state == "RUNNING"
    again = on_slurm.start("--resume", "--log-dir", "logs")
    on_slurm.open("go")
    run = Ended(again)
    assert run.code == 0, run.stderr
    assert run.stdout == "[first] two\n[second] three\n"
    assert f"[first] Taking up Slurm job {job.id} (" in run.stderr
    assert on_slurm.one_job("first").state == "COMPLETED"
    log = (on_slurm.sppe.folder / "logs" / "first.log").read_text()
    assert (log.count("stdout| one\n"), log.count("stdout| two\n")) == (1, 1)
    assert (on_slurm.sppe.folder / "made.txt").exists()


def test_a_large_result_reaches_a_function_whose_job_is_taken_up(on_slurm) -> None:
    """More than a command line takes goes from job to job by files, and a killed run changes nothing of that."""
    steps = """
def measure(text):
    print(len(text), flush=True)
    say("here")
    wait()
    return len(text)
"""
    on_slurm.sppe.write("steps.py", _PRELUDE.format(life=on_slurm.lifeline.path) + steps)
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
    assert f"[use] Taking up Slurm job {job.id} (" in run.stderr
    assert json.loads(next(on_slurm.sppe.folder.glob("runs/*/*/use/*/result.json")).read_text()) == 300_000


def test_a_run_killed_while_it_submits_has_one_job(on_slurm) -> None:
    """sbatch goes on without sppe; the resumed run finds what came of it."""
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


def test_a_job_that_has_ended_meanwhile_is_collected(on_slurm) -> None:
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


def test_jobs_of_a_killed_run_keep_the_workflow_from_running_beside_them(on_slurm) -> None:
    """A run that would not look after them says how to, and runs nothing."""
    killed(on_slurm, first=WAITS)
    plain = on_slurm.sppe.run("run", "--resume", env=on_slurm.slurm.env)
    assert plain.returncode == 2
    assert f"was killed, and jobs of it may still run; say --on slurm --run-dir {on_slurm.sppe.folder}/runs" in (
        plain.stderr
    )
    assert on_slurm.one_job("first").state == "RUNNING"


@pytest.mark.parametrize("how", ["a new run", "other parameters"])
def test_what_begins_anew_cancels_the_job_that_is_left_first(how, on_slurm) -> None:
    """A new run, or a task that runs something else now, does not run beside the earlier job."""
    killed(on_slurm, first=WAITS)
    on_slurm.open("go2")
    anew = WAITS.replace("wait()", "wait('go2')").replace("')}", "'), 'n': 2}" if how == "other parameters" else "')}")
    on_slurm.flow(first=anew)
    run = on_slurm.run(*(["--resume"] if how == "other parameters" else []))
    assert run.code == 0, run.stderr
    left, new = on_slurm.jobs("first")
    assert (left.state, new.state) == ("CANCELLED", "COMPLETED")
    assert f"[first] Slurm job {left.id} ({left.name}) of an earlier attempt is cancelled first" in run.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"])
def test_a_signal_cancels_all_jobs(number, code, on_slurm) -> None:
    """Without a terminal there is nobody to be asked: jobs that run or wait are cancelled, and nothing is left."""
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
    assert {job.state for job in on_slurm.jobs()} == {"CANCELLED"}
    assert len(on_slurm.jobs()) == 3
    assert "0 of 3 tasks succeeded" in ended.stderr
    for name in ("a", "b", "waits"):
        assert f"[{name}] stopped after " in ended.stderr


def test_a_second_signal_does_not_wait_for_slurm(on_slurm) -> None:
    """While the controller does not answer, jobs are told to end by their run directory, and `sppe` ends."""
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
    assert "was told to end, and its end was not waited for" in ended.stderr
    on_slurm.lifeline.expect_end()


def test_in_a_terminal_ctrl_c_asks_once(on_slurm, terminal) -> None:
    """The first Ctrl-C says what a second one does, and the run goes on; the second cancels."""
    on_slurm.flow(one="say('here')\nwait('never')")
    screen = terminal(columns=150)
    run = screen.start(on_slurm.sppe, "run", "--on", "slurm", "--run-dir", "runs", *QUICKLY, env=on_slurm.slurm.env)
    on_slurm.lifeline.expect("here")
    screen.type(b"\x03")
    screen.expect(lambda shown: "1 Slurm job is under way; Ctrl-C once more cancels and stops all" in shown)
    assert on_slurm.one_job("one").state == "RUNNING"
    screen.type(b"\x03")
    screen.expect(lambda shown: "0 of 1 tasks succeeded" in shown)
    assert run.wait(LONG) == 130
    assert on_slurm.one_job("one").state == "CANCELLED"


def test_whoever_lets_the_run_go_on_after_ctrl_c_has_a_success(on_slurm, terminal) -> None:
    """A Ctrl-C that was only asked about leaves no trace in the exit code."""
    on_slurm.flow(one="say('here')\nwait()")
    screen = terminal(columns=150)
    run = screen.start(on_slurm.sppe, "run", "--on", "slurm", "--run-dir", "runs", *QUICKLY, env=on_slurm.slurm.env)
    on_slurm.lifeline.expect("here")
    screen.type(b"\x03")
    screen.expect(lambda shown: "Ctrl-C once more" in shown)
    on_slurm.open("go")
    screen.expect(lambda shown: "1 of 1 tasks succeeded" in shown)
    assert run.wait(LONG) == 0


# -- Ahead ------------------------------------------------------------------------------------------------------------


CHAIN = {
    "a": "say('here')\nprint('one', flush=True)\nwait()",
    "b": "# depends_on=a\nprint('b')",
    "c": "# depends_on=b\nprint('c')",
}


def test_later_tasks_are_submitted_ahead_with_afterok(on_slurm) -> None:
    """While the first job runs, the others wait in Slurm's queue, each for the one before it."""
    on_slurm.flow(**CHAIN)
    run = on_slurm.start("--ahead")
    on_slurm.slurm.until(lambda: len(on_slurm.jobs()) == 3, "three jobs")
    a, b, c = (on_slurm.one_job(name) for name in "abc")
    assert on_slurm.dependency(b) == f"afterok:{a.id}(unfulfilled)"
    assert on_slurm.dependency(c) == f"afterok:{b.id}(unfulfilled)"
    on_slurm.open("go")
    ended = Ended(run)
    assert ended.code == 0, ended.stderr
    assert ended.stdout == "[a] one\n[b] b\n[c] c\n"
    assert len(on_slurm.jobs()) == 3
    assert f"[b] It is submitted ahead, and starts when job {a.id} has succeeded" in ended.stderr


def test_what_was_submitted_ahead_is_called_off_after_a_failure(on_slurm) -> None:
    """Nothing of it runs, or stays in the queue for ever."""
    on_slurm.flow(**{**CHAIN, "a": CHAIN["a"] + "\nsys.exit(3)"})
    run = on_slurm.start("--ahead")
    on_slurm.slurm.until(lambda: len(on_slurm.jobs()) == 3, "three jobs")
    on_slurm.open("go")
    ended = Ended(run)
    assert ended.code == 1
    assert "[b] not run: 'a' failed" in ended.stderr
    assert "[c] not run: 'b' not run" in ended.stderr
    assert {on_slurm.one_job(name).state for name in "bc"} == {"CANCELLED"}
    assert on_slurm.queue_is_empty()


def test_what_takes_more_than_an_exit_code_is_not_submitted_ahead(on_slurm) -> None:
    """Products are whole only when sppe has put them in place, and results only known then: such tasks wait."""
    on_slurm.flow(
        maker="# {'out': Product('made.txt')}\nsay('here')\nwait()\nopen(sys.argv[2], 'w').write('all of it')",
        taker="# {'in': Dependency('made.txt')}\nprint(open(sys.argv[2]).read())",
        after="# depends_on=maker\nprint('after')",
        plain="print('42')",
        given="# {'n': plain.result}\nprint('given', sys.argv[2])",
        later="# depends_on=plain, run_when='missing', products=['later.txt']\nopen('later.txt', 'w')",
    )
    run = on_slurm.start("--ahead")
    on_slurm.lifeline.expect("here")
    on_slurm.slurm.until(lambda: on_slurm.jobs("given") and on_slurm.jobs("later"), "what comes after the plain one")
    assert on_slurm.jobs("taker") == on_slurm.jobs("after") == []
    on_slurm.open("go")
    ended = Ended(run)
    assert ended.code == 0, ended.stderr
    assert {"[taker] all of it", "[after] after", "[given] given 42"} < set(ended.stdout.splitlines())
    assert "It is submitted ahead" not in ended.stderr
    for name, why in {
        "taker": "the products of 'maker' are put in place only when its job has ended",
        "after": "the products of 'maker' are put in place only when its job has ended",
        "given": "plain.result is known only then",
        "later": "whether it has to run (run_when='missing') is known only then",
    }.items():
        assert f"sppe: task {name!r} is not submitted ahead, but when its turn comes: {why}\n" in ended.stderr


def test_a_killed_run_that_had_submitted_ahead_takes_up_all_of_it(on_slurm) -> None:
    """Each task still has one job, whether the resumed run submits ahead or not."""
    killed(on_slurm, "--ahead", **CHAIN)
    assert [len(on_slurm.jobs(name)) for name in "abc"] == [1, 1, 1]
    again = on_slurm.start("--resume")
    on_slurm.open("go")
    ended = Ended(again)
    assert ended.code == 0, ended.stderr
    assert ended.stdout == "[b] b\n[c] c\n"
    assert [len(on_slurm.jobs(name)) for name in "abc"] == [1, 1, 1]


def test_what_waits_for_a_job_that_failed_meanwhile_is_submitted_anew(on_slurm) -> None:
    """The job it was to follow has failed while there was no sppe: the resumed run has new ones of both."""
    killed(on_slurm, "--ahead", **{**CHAIN, "a": CHAIN["a"] + "\nsys.exit(os.path.exists('go2') - 1)"})
    on_slurm.open("go")
    on_slurm.slurm.wait_for(on_slurm.one_job("a").id, "FAILED")
    on_slurm.open("go2")
    ended = on_slurm.run("--resume", "--ahead")
    assert ended.code == 0, ended.stderr
    assert [len(on_slurm.jobs(name)) for name in "abc"] == [2, 2, 2]
    assert [on_slurm.jobs(name)[1].state for name in "abc"] == ["COMPLETED"] * 3
    assert on_slurm.queue_is_empty()
