"""A workflow is run as its edges say: nothing too early, nothing held up, nothing lost."""

from __future__ import annotations

import os
import queue
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.core.workflow import Workflow
from airflow_provider_sewer.runners.engine import Engine, Outcome, State
from airflow_provider_sewer.runners.output import Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

OK, FAILED, NOT_RUN, STOPPED = State.SUCCEEDED, State.FAILED, State.NOT_RUN, State.STOPPED


class Witness:
    """Hears everything, and lets a test wait for it."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.text: dict[str, str] = {}
        self._changed = threading.Condition()

    def started(self, task: Task, _line: str, _workdir: str | None) -> None:
        self._note("started", task.name)

    def output(self, task: Task, _stream: Stream, pieces: Sequence[str]) -> None:
        with self._changed:
            self.text[task.name] = self.text.get(task.name, "") + "".join(pieces)
            self._changed.notify_all()

    def ended(self, task: Task, outcome: Outcome) -> None:
        self._note(outcome.state.value, task.name)

    def _note(self, what: str, name: str) -> None:
        with self._changed:
            self.events.append((what, name))
            self._changed.notify_all()

    def expect_output(self, name: str) -> None:
        """Wait until a task has written something."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.text.get(name), 60), self.events


@pytest.fixture
def witness() -> Witness:
    """Return an observer that remembers."""
    return Witness()


class Plan:
    """Tasks whose modules are written on the spot, and the engine that runs them."""

    def __init__(self, modules: Any, witness: Witness) -> None:
        self._modules = modules
        self._witness = witness
        self._tasks: list[Task] = []

    def task(self, name: str, source: str = "", *args: str, after: Sequence[str] = (), **fields: Any) -> None:
        """Add a task."""
        module = fields.pop("module", None) or self._modules.write(source)
        self._tasks.append(Task(name, module, args=args, depends_on=list(after), **fields))

    def engine(self, *more: Any, **options: Any) -> Engine:
        """Return the engine of all tasks added so far."""
        observers = [self._witness, *more]
        return Engine(Workflow("plan", self._tasks), self._modules.settings(), observers=observers, **options)

    def run(self, **options: Any) -> dict[str, Outcome]:
        """Run the tasks."""
        return self.engine(**options).run()


@pytest.fixture
def plan(modules, witness) -> Plan:
    """Return an empty plan."""
    return Plan(modules, witness)


def states(outcomes: dict[str, Outcome]) -> dict[str, State]:
    return {name: outcome.state for name, outcome in outcomes.items()}


# --- the order


def test_a_diamond_is_run_from_top_to_bottom(plan, witness) -> None:
    """Each task starts after all it waits for have succeeded, whatever the order they are named in."""
    plan.task("bottom", after=["left", "right"])
    plan.task("left", after=["top"])
    plan.task("right", after=["top"])
    plan.task("top")

    outcomes = plan.run(jobs=4)

    assert states(outcomes) == dict.fromkeys(["bottom", "left", "right", "top"], OK)
    assert list(outcomes) == ["bottom", "left", "right", "top"]
    at = witness.events.index
    assert at(("succeeded", "top")) < min(at(("started", "left")), at(("started", "right")))
    assert max(at(("succeeded", "left")), at(("succeeded", "right"))) < at(("started", "bottom"))


HOLD = """
    import fcntl, os, signal, sys
    life = os.open(sys.argv[1], os.O_WRONLY)
    def say(word): os.write(life, word.encode() + b"\\n")
"""
PASS = "fcntl.flock(open(sys.argv[2]), fcntl.LOCK_SH)"


def test_a_long_task_holds_up_nothing_but_its_dependents(plan, lifeline, gate, background) -> None:
    """There are no levels: the second task of one branch runs while the first of another still does."""
    plan.task("long", HOLD + f"    say('long'); {PASS}", lifeline.path, gate.path)
    plan.task("after long", HOLD + "    say('dependent')", lifeline.path, after=["long"])
    plan.task("short")
    plan.task("after short", HOLD + f"    say('other branch'); {PASS}", lifeline.path, gate.path, after=["short"])

    run = background(lambda: plan.run(jobs=2))
    lifeline.expect("long")
    lifeline.expect("other branch")
    assert "dependent" not in lifeline.heard
    gate.open()

    assert set(states(run.result()).values()) == {OK}


def test_as_many_tasks_run_at_once_as_is_said(plan, witness, lifeline, gate, background) -> None:
    """With three jobs, three tasks run at once and never more."""
    for number in range(9):
        plan.task(str(number), HOLD + f"    say('+'); {PASS}; say('-')", lifeline.path, gate.path)

    run = background(lambda: plan.run(jobs=3))
    lifeline.expect("+", times=3)
    assert len(witness.events) == 3
    gate.open()

    assert set(states(run.result()).values()) == {OK}
    lifeline.expect("-", times=9)
    running = [sum(1 if mark == "+" else -1 for mark in lifeline.heard.split()[:end]) for end in range(1, 19)]
    assert max(running) == 3


def test_one_job_at_a_time_runs_one_after_the_other(plan, witness) -> None:
    """With one job, each task ends before the next starts."""
    for number in range(4):
        plan.task(str(number))

    plan.run(jobs=1)

    assert [what for what, _ in witness.events] == ["started", "succeeded"] * 4


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot bind a process to processors")
def test_the_default_is_the_processors_this_process_may_use(script) -> None:
    """In a container or a Slurm job, the processors of the whole machine do not count."""
    bound = script(
        """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        from airflow_provider_sewer.core.workflow import Workflow
        from airflow_provider_sewer.runners.engine import Engine
        print(Engine(Workflow("none", []))._jobs)
        """
    )

    assert bound.output() == "1\n"


def test_a_result_is_part_of_the_outcome(plan) -> None:
    """What a module leaves as its result is in its outcome, with the time it took."""
    plan.task("counts", "print(42)")

    outcome = plan.run()["counts"]

    assert outcome.result == "42"
    assert outcome.seconds > 0
    assert outcome.reason == ""


def test_many_tasks_with_many_edges_are_run(plan) -> None:
    """A workflow wider than the machine comes to its end."""
    for number in range(40):
        plan.task(f"{number}", after=[str(up) for up in range(max(0, number - 3), number) if number % 4])

    assert set(states(plan.run(jobs=8)).values()) == {OK}


def test_a_workflow_without_tasks_is_done() -> None:
    """Nothing to do is done at once."""
    assert Engine(Workflow("none", [])).run() == {}


# --- failures


def test_a_failure_stops_its_dependents_and_nothing_else(plan, witness) -> None:
    """What depends on a failed task does not run, and says why; the other branch is finished."""
    plan.task("after both", after=["after bad", "after good"])
    plan.task("after bad", after=["bad"])
    plan.task("bad", "raise SystemExit('why')")
    plan.task("good")
    plan.task("after good", after=["good"])

    outcomes = plan.run(jobs=2)

    assert states(outcomes) == {
        "after both": NOT_RUN,
        "after bad": NOT_RUN,
        "bad": FAILED,
        "good": OK,
        "after good": OK,
    }
    assert outcomes["after bad"].reason == "'bad' failed"
    assert outcomes["after both"].reason == "'after bad' not run"
    assert "failed with exit code 1" in outcomes["bad"].reason
    assert "why" in outcomes["bad"].reason
    assert [name for what, name in witness.events if what == "started"].count("after bad") == 0
    assert {("not run", "after bad"), ("not run", "after both")} <= set(witness.events)


def test_what_will_not_run_is_known_while_the_rest_still_runs(plan, witness, lifeline, gate, background) -> None:
    """Dependents of a failure are called off at once, not at the end of the run."""
    plan.task("bad", HOLD + "    raise SystemExit(1)", lifeline.path)
    plan.task("after bad", after=["bad"])
    plan.task("long", HOLD + f"    say('long'); {PASS}", lifeline.path, gate.path)

    run = background(lambda: plan.run(jobs=2))
    with witness._changed:
        assert witness._changed.wait_for(lambda: ("not run", "after bad") in witness.events, 60)
    assert ("succeeded", "long") not in witness.events
    gate.open()

    assert states(run.result()) == {"bad": FAILED, "after bad": NOT_RUN, "long": OK}


def test_every_failure_is_reported(plan) -> None:
    """Two failures are two reasons, and a task that waited for both names both."""
    plan.task("one", "raise SystemExit('first why')")
    plan.task("two", "raise SystemExit('second why')")
    plan.task("both", after=["one", "two"])

    outcomes = plan.run(jobs=2)

    assert states(outcomes) == {"one": FAILED, "two": FAILED, "both": NOT_RUN}
    assert "first why" in outcomes["one"].reason
    assert "second why" in outcomes["two"].reason
    # The one that failed first called it off; the other may not have been known then.
    assert outcomes["both"].reason in {"'one' failed", "'two' failed", "'one' failed, 'two' failed"}


def test_a_task_that_cannot_start_fails_like_any_other(plan, tmp_path: Path) -> None:
    """A working directory that has not been made fails the task that needs it, with the reason."""
    plan.task("makes nothing")
    plan.task("needs it", workdir=tmp_path / "never made", after=["makes nothing"])
    plan.task("other")

    outcomes = plan.run()

    assert states(outcomes) == {"makes nothing": OK, "needs it": FAILED, "other": OK}
    assert "the working directory" in outcomes["needs it"].reason


def test_a_task_may_need_what_an_earlier_one_makes(plan, modules, tmp_path: Path) -> None:
    """A module and a working directory that an earlier task makes are there for the later one."""
    make = """
        import os, sys
        os.mkdir(sys.argv[1])
        open(sys.argv[2], "w").write("print('made')")
    """
    plan.task("make", make, str(tmp_path / "work"), str(modules.folder / "late.py"))
    plan.task("use", module="late", workdir=tmp_path / "work", after=["make"])
    engine = plan.engine()

    warnings = engine.check()
    outcomes = engine.run()

    assert len(warnings) == 1
    assert "task 'use': the working directory" in warnings[0]
    assert outcomes["use"].result == "made"


def test_a_template_is_refused_before_anything_runs(plan) -> None:
    """What only Airflow can fill in is refused, with the task's name and line."""
    plan.task("first")
    plan.task("dated", "", "{{ ds }}", after=["first"])

    with pytest.raises(
        InvalidTask, match=r"test_engine\.py:\d+: task 'dated': '\{\{ ds \}\}' is filled in only by Airflow"
    ):
        plan.engine().check()


# --- stopping


STUBBORN = (
    HOLD
    + """
    signal.signal(signal.SIGTERM, lambda *_: say("told"))
    say("ready")
    while True: signal.pause()
"""
)


def test_a_stop_ends_what_runs_and_starts_nothing_more(plan, lifeline, background) -> None:
    """A stopped run ends its running tasks; what had not started never does. Nothing is left."""
    plan.task("done")
    for name in ("one", "two"):
        plan.task(
            name, HOLD + "    os.fork() or os.setsid(); say('here'); signal.pause()", lifeline.path, after=["done"]
        )
        plan.task(f"after {name}", after=[name])
    plan.task("queued", after=["done"])
    engine = plan.engine(jobs=2)

    run = background(engine.run)
    lifeline.expect("here", times=4)
    engine.stop()
    outcomes = run.result()

    assert outcomes.pop("done").state is OK
    assert set(states(outcomes).values()) == {STOPPED}
    assert outcomes["queued"].reason == outcomes["after one"].reason == "the run was stopped before it started"
    lifeline.expect_end()


def test_a_stop_before_the_start_runs_nothing(plan, witness) -> None:
    """A run that is stopped before it starts runs nothing."""
    plan.task("one")
    plan.task("two", after=["one"])
    engine = plan.engine()
    engine.stop()

    assert set(states(engine.run()).values()) == {STOPPED}
    assert [what for what, _ in witness.events] == ["stopped", "stopped"]


def test_a_second_stop_can_kill_at_once(plan, lifeline, background) -> None:
    """Who does not want to wait for the grace stops once more, at once."""
    plan.task("stubborn", STUBBORN, lifeline.path)
    engine = plan.engine(grace=3600)

    run = background(engine.run)
    lifeline.expect("ready")
    engine.stop()
    lifeline.expect("told")
    engine.stop(at_once=True)

    assert run.result()["stubborn"].state is STOPPED
    lifeline.expect_end()


def test_a_signal_that_comes_just_before_a_wait_is_obeyed(plan, lifeline, signal_unnoticed) -> None:
    """A stop from a signal handler is obeyed even if the signal did not interrupt the wait for a task's end."""
    plan.task("one", HOLD + "    say('here'); signal.pause()", lifeline.path)
    engine = plan.engine()
    signal_unnoticed(engine.stop, lambda: lifeline.expect("here"))

    assert engine.run()["one"].state is STOPPED


def test_an_interrupt_ends_everything(plan, lifeline) -> None:
    """Ctrl-C in a plain Python program ends all tasks before it is raised."""
    plan.task("one", HOLD + "    os.fork() or os.setsid(); say('here'); signal.pause()", lifeline.path)
    plan.task("two", HOLD + "    say('here'); os.kill(os.getppid(), signal.SIGUSR1); signal.pause()", lifeline.path)
    previous = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            plan.engine(jobs=2).run()
    finally:
        signal.signal(signal.SIGUSR1, previous)

    lifeline.expect_end()


# --- observers


class Failing(Witness):
    """An observer that fails at some point, for one task."""

    def __init__(self, at: str, error: BaseException) -> None:
        super().__init__()
        self._at = at
        self._error = error

    def _fail(self, at: str, task: Task) -> None:
        if (at, task.name) == (self._at, "watched"):
            raise self._error

    def started(self, task: Task, line: str, workdir: str | None) -> None:
        self._fail("started", task)

    def output(self, task: Task, stream: Stream, pieces: Sequence[str]) -> None:
        self._fail("output", task)

    def ended(self, task: Task, outcome: Outcome) -> None:
        self._fail("ended", task)


@pytest.mark.parametrize("error", [OSError("the disk is full"), SystemExit("the disk is full")], ids=["error", "exit"])
@pytest.mark.parametrize("at", ["started", "output", "ended"])
def test_a_task_that_cannot_be_recorded_has_failed(at: str, error: BaseException, plan, witness) -> None:
    """Where an observer fails, its task fails, everybody else hears of it, and the others run on."""
    plan.task("watched", "print('hello')")
    plan.task("after it", after=["watched"])
    plan.task("other", "print('hello')")

    outcomes = plan.engine(Failing(at, error), jobs=1).run()

    assert states(outcomes) == {"watched": FAILED, "after it": NOT_RUN, "other": OK}
    assert "the disk is full" in outcomes["watched"].reason
    assert [name for what, name in witness.events if what != "started"] == ["watched", "after it", "other"]


def test_everybody_hears_of_an_end_even_if_one_cannot(plan, modules, witness) -> None:
    """An observer that fails at the end of a task does not keep the next from hearing of it."""
    plan.task("watched")
    engine = Engine(
        Workflow("plan", plan._tasks), modules.settings(), observers=[Failing("ended", OSError("full")), witness]
    )

    engine.run()

    assert ("failed", "watched") in witness.events


def test_a_task_whose_log_fails_is_ended(plan, lifeline) -> None:
    """A task whose output cannot be recorded is ended with all it has started."""
    plan.task(
        "watched", HOLD + "    os.fork() or os.setsid(); say('here'); print('hello'); signal.pause()", lifeline.path
    )

    outcomes = plan.engine(Failing("output", OSError("the disk is full"))).run()

    assert outcomes["watched"].state is FAILED
    lifeline.expect_end()


def test_a_reader_that_has_gone_stops_the_run(plan, lifeline) -> None:
    """When nobody reads the output any more, the whole run is stopped, not one task after the other."""
    plan.task("long", HOLD + "    say('here'); signal.pause()", lifeline.path)
    plan.task("watched", "print('hello')")
    plan.task("after it", after=["watched"])

    outcomes = plan.engine(Failing("output", BrokenPipeError()), jobs=2).run()

    assert states(outcomes) == {"long": STOPPED, "watched": FAILED, "after it": STOPPED}
    assert outcomes["watched"].reason == "nobody reads the output of the run any more"


def test_a_reader_that_has_stalled_cannot_keep_tasks_running(plan, lifeline, background) -> None:
    """A stop ends the tasks even while the thread that follows them is stuck in handing on their output."""

    class Stalled(Witness):
        def __init__(self) -> None:
            super().__init__()
            self.goes_on: queue.SimpleQueue[None] = queue.SimpleQueue()

        def output(self, task: Task, stream: Stream, pieces: Sequence[str]) -> None:
            super().output(task, stream, pieces)
            self.goes_on.get(timeout=120)

    stalled = Stalled()
    plan.task("talks", HOLD + "    say('here'); print('hello'); signal.pause()", lifeline.path)
    engine = plan.engine(stalled, grace=0.2)

    run = background(engine.run)
    stalled.expect_output("talks")
    engine.stop()

    lifeline.expect_end()
    stalled.goes_on.put(None)
    assert run.result()["talks"].state is STOPPED


# --- what is easily forgotten


def test_a_stop_ends_what_a_task_that_is_done_has_detached(plan, lifeline, background) -> None:
    """A daemon that closed its output outlives its task; a stopped run leaves it no more than anything else."""
    daemon = (
        "import os, sys, time; life = os.open(sys.argv[1], os.O_WRONLY); os.write(life, b'here\\n'); time.sleep(600)"
    )
    plan.task(
        "detaches",
        f"""
        import subprocess, sys
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        subprocess.Popen([sys.executable, "-c", {daemon!r}, sys.argv[1]], start_new_session=True, **quiet)
        """,
        lifeline.path,
    )
    plan.task("waits", daemon, lifeline.path, after=["detaches"])
    engine = plan.engine()

    run = background(engine.run)
    lifeline.expect("here", times=2)
    engine.stop()

    assert states(run.result()) == {"detaches": OK, "waits": State.STOPPED}
    lifeline.expect_end()


def test_a_template_in_a_path_is_refused_like_one_in_a_text(plan) -> None:
    """No folder is ever called `{{ ds }}`."""
    plan.task("a", "", Path("build/{{ ds }}/x"))

    with pytest.raises(InvalidTask, match=r"\{\{ ds \}\}"):
        plan.engine().check()


def test_a_secret_variable_of_a_task_is_shown_nowhere(plan, witness, modules) -> None:
    """Neither the command line nor the output shows the value of a variable whose name looks secret."""
    source = "import os; print('it is', os.environ['API_TOKEN'])"
    plan.task("a", source, "hunter2-xyz", env={**modules.settings().env, "API_TOKEN": "hunter2-xyz"})

    outcome = plan.run()["a"]

    assert outcome.result == "it is ***"
    assert "hunter2" not in repr(witness.events)
