"""Execution of workflows: order, concurrency and failures."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.workflow import Workflow
from airflow_provider_sewer.execution.workflow_runner import WorkflowRunner
from tests.execution.workflow_helpers import FAILED, HOLD, NOT_RUN, OK, PASS, states

# --- the order


def test_run_diamond_follows_edges(plan, witness) -> None:
    """Each task starts after its upstream tasks have succeeded, independent of the order of definition."""
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


def test_long_task_delays_only_its_downstream_tasks(plan, lifeline, gate, background) -> None:
    """There are no levels: the second task of one branch runs while the first of another still does."""
    plan.task("long", HOLD + f"    put('long'); {PASS}", lifeline.path, gate.path)
    plan.task("after long", HOLD + "    put('dependent')", lifeline.path, after=["long"])
    plan.task("short")
    plan.task("after short", HOLD + f"    put('other branch'); {PASS}", lifeline.path, gate.path, after=["short"])

    run = background(lambda: plan.run(jobs=2))
    lifeline.expect("long")
    lifeline.expect("other branch")
    assert "dependent" not in lifeline.heard
    gate.open()

    assert set(states(run.result()).values()) == {OK}


def test_jobs_limits_concurrent_tasks(plan, witness, lifeline, gate, background) -> None:
    """With three jobs, three tasks run at once and never more."""
    for number in range(9):
        plan.task(str(number), HOLD + f"    put('+'); {PASS}; put('-')", lifeline.path, gate.path)

    run = background(lambda: plan.run(jobs=3))
    lifeline.expect("+", times=3)
    assert len(witness.events) == 3
    gate.open()

    assert set(states(run.result()).values()) == {OK}
    lifeline.expect("-", times=9)
    running = [sum(1 if mark == "+" else -1 for mark in lifeline.heard.split()[:end]) for end in range(1, 19)]
    assert max(running) == 3


def test_jobs_1_runs_tasks_sequentially(plan, witness) -> None:
    """With one job, each task ends before the next starts."""
    for number in range(4):
        plan.task(str(number))

    plan.run(jobs=1)

    assert [event for event, _ in witness.events] == ["started", "succeeded"] * 4


def test_outcome_has_result_and_duration(plan) -> None:
    """The outcome has the result of the module and its duration."""
    plan.task("counts", "print(42)")

    outcome = plan.run()["counts"]

    assert outcome.result == "42"
    assert outcome.seconds > 0
    assert outcome.reason == ""


def test_run_wide_workflow_completes(plan) -> None:
    """A workflow wider than the machine comes to its end."""
    for number in range(40):
        plan.task(f"{number}", after=[str(up) for up in range(max(0, number - 3), number) if number % 4])

    assert set(states(plan.run(jobs=8)).values()) == {OK}


def test_run_workflow_without_tasks_returns_no_outcomes() -> None:
    """Nothing to do is done at once."""
    assert WorkflowRunner(Workflow("none", [])).run() == {}


# --- failures


def test_failed_task_stops_only_its_downstream_tasks(plan, witness) -> None:
    """Downstream tasks of a failed task do not run, with a reason; the other branch is finished."""
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
    assert outcomes["after both"].reason == "'after bad' upstream failed"
    assert "failed with exit code 1" in outcomes["bad"].reason
    assert "why" in outcomes["bad"].reason
    assert [name for event, name in witness.events if event == "started"].count("after bad") == 0
    assert {("upstream failed", "after bad"), ("upstream failed", "after both")} <= set(witness.events)


def test_upstream_failed_is_reported_while_other_tasks_run(plan, witness, lifeline, gate, background) -> None:
    """Dependents of a failure are called off at once, not at the end of the run."""
    plan.task("bad", HOLD + "    raise SystemExit(1)", lifeline.path)
    plan.task("after bad", after=["bad"])
    plan.task("long", HOLD + f"    put('long'); {PASS}", lifeline.path, gate.path)

    run = background(lambda: plan.run(jobs=2))
    with witness._changed:
        assert witness._changed.wait_for(lambda: ("upstream failed", "after bad") in witness.events, 60)
    assert ("succeeded", "long") not in witness.events
    gate.open()

    assert states(run.result()) == {"bad": FAILED, "after bad": NOT_RUN, "long": OK}


def test_upstream_failed_reason_names_all_failed_tasks(plan) -> None:
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


def test_missing_workdir_fails_task_with_reason(plan, tmp_path: Path) -> None:
    """A working directory that has not been made fails the task that needs it, with the reason."""
    plan.task("makes nothing")
    plan.task("needs it", workdir=tmp_path / "never made", after=["makes nothing"])
    plan.task("other")

    outcomes = plan.run()

    assert states(outcomes) == {"makes nothing": OK, "needs it": FAILED, "other": OK}
    assert "the working directory" in outcomes["needs it"].reason


def test_module_and_workdir_of_upstream_task_are_found(plan, modules, tmp_path: Path) -> None:
    """A module and a working directory that an earlier task makes are there for the later one."""
    make = """
        import os, sys
        os.mkdir(sys.argv[1])
        open(sys.argv[2], "w").write("print('made')")
    """
    plan.task("make", make, str(tmp_path / "work"), str(modules.folder / "late.py"))
    plan.task("use", module="late", workdir=tmp_path / "work", after=["make"])
    runner = plan.runner()

    warnings = runner.check()
    outcomes = runner.run()

    assert len(warnings) == 1
    assert "task 'use': the working directory" in warnings[0]
    assert outcomes["use"].result == "made"


def test_airflow_template_in_argument_raises_before_start(plan) -> None:
    """A template that only Airflow renders is rejected, with the task's name and line."""
    plan.task("first")
    plan.task("dated", "", "{{ ds }}", after=["first"])

    with pytest.raises(
        InvalidTask, match=r"workflow_helpers\.py:\d+: task 'dated': '\{\{ ds \}\}' is rendered only by Airflow"
    ):
        plan.runner().check()


def test_airflow_template_in_path_raises_before_start(plan) -> None:
    """No folder is ever called `{{ ds }}`."""
    plan.task("a", "", Path("build/{{ ds }}/x"))

    with pytest.raises(InvalidTask, match=r"\{\{ ds \}\}"):
        plan.runner().check()
