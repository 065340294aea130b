"""``sppe status`` and ``sppe logs``: the last run of a workflow file."""

from __future__ import annotations

import re

import pytest

HOLD = """
    import fcntl, os, sys
    life = os.open({lifeline!r}, os.O_WRONLY)
    print("working on it", flush=True)
    os.write(life, b"here")
    fcntl.flock(open({gate!r}), fcntl.LOCK_SH)
    print("all done")
"""


@pytest.fixture
def running(sppe, lifeline, gate):
    """A run of two tasks, one at a time, the first of which waits at the gate."""
    sppe.tasks(first=HOLD.format(lifeline=lifeline.path, gate=gate.path), second="pass")
    run = sppe.start("run", "-j", "1")
    lifeline.expect("here")
    return run


@pytest.mark.parametrize("arguments", [("flow.py",), (), ("-w", "workflow"), ("-p", "flow.py")], ids=str)
def test_status_shows_tasks_and_failures(arguments: tuple[str, ...], sppe) -> None:
    sppe.tasks(first="pass", second="raise SystemExit(3)")
    sppe.run("run", "--log-dir", "logs")

    shown = sppe.run("status", *arguments)

    assert shown.returncode == 0, shown.stderr
    assert re.match(r"workflow: 1 of 2 tasks succeeded, in [\d.]+ s; it began at \d{4}-", shown.stdout)
    assert re.search(r"^  first   succeeded +[\d.]+ s$", shown.stdout, re.MULTILINE)
    assert re.search(r"^  second  failed +[\d.]+ s$", shown.stdout, re.MULTILINE)
    assert "\nsecond: second_module failed with exit code 3; command: " in shown.stdout
    assert shown.stdout.endswith(f"\nLogs: {sppe.folder}/logs\n")


def test_status_of_running_workflow_shows_states(running, sppe, gate) -> None:
    shown = sppe.run("status").stdout
    gate.open()
    running.communicate(timeout=60)

    assert re.match(r"workflow: running for [\d.]+ s, since .* \(process \d+ on ", shown)
    assert re.search(r"^  first   running$", shown, re.MULTILINE)
    assert re.search(r"^  second  waiting$", shown, re.MULTILINE)


def test_status_of_killed_run_has_no_running_task(running, sppe) -> None:
    running.kill()
    running.wait()

    shown = sppe.run("status").stdout

    assert shown.startswith("workflow: killed, or its host stopped")
    assert re.search(r"^  first   stopped$", shown, re.MULTILINE)


def test_status_of_resumed_run_shows_skipped_tasks(sppe) -> None:
    sppe.tasks(first="pass", second="raise SystemExit(3)")
    sppe.run("run")
    sppe.write("second_module.py", "")
    sppe.run("run", "--resume")

    shown = sppe.run("status").stdout

    assert re.search(r"^  first   skipped$", shown, re.MULTILINE)
    assert "2 of 2 tasks succeeded" in shown


def test_resume_skips_same_tasks_with_recorded_outcomes(sppe) -> None:
    """A task that did not run, because another one failed, has still succeeded before."""
    sppe.write(
        "flow.py",
        """
        from airflow_provider_sewer import Task
        (Task("None", "a_module") >> Task("after", "b_module")).run()
        """,
    )
    sppe.write("a_module.py", "")
    sppe.write("b_module.py", "")
    sppe.run("run")

    assert sppe.run("run", "--resume").stderr.count("skipped: ") == 2


def test_status_without_run_names_folder(sppe) -> None:
    sppe.tasks(first="pass")

    shown = sppe.run("status", "flow.py")

    assert shown.returncode == 2
    assert shown.stderr.startswith(f"sppe: no run of flow.py in {sppe.folder}/.sewer/state; run it here, or name ")


def test_logs_prints_log_of_task(sppe) -> None:
    sppe.tasks(first="print('hello')")
    sppe.run("run")

    shown = sppe.run("logs", "first", "flow.py")

    assert shown.returncode == 0, shown.stderr
    assert re.search(r"stdout\| hello\n.* sewer\| succeeded after ", shown.stdout)


def test_logs_follow_ends_with_task(running, sppe, gate) -> None:
    follower = sppe.start("logs", "first", "-f")
    while "working on it" not in (line := follower.stdout.readline()):
        assert line
    gate.open()

    rest, notice = follower.communicate(timeout=60)
    running.communicate(timeout=60)

    assert follower.returncode == 0
    assert re.match(r"sppe: following the run of workflow that began at \d{4}-[^(]*\(process \d+ on ", notice)
    assert "stdout| all done\n" in rest
    assert "succeeded after " in rest


UNLOGGED = {
    "unknown task": ("frist", "unknown task 'frist'; did you mean 'first'?"),
    "task that did not run": ("third", "task 'third' has no log: it is upstream failed ('first' failed); "),
}


@pytest.mark.parametrize(("task", "message"), UNLOGGED.values(), ids=UNLOGGED)
def test_logs_of_task_without_log_names_reason(task: str, message: str, sppe) -> None:
    sppe.tasks(first="raise SystemExit(1)")
    chain = "(Task('first', 'first_module') >> Task('third', 'first_module')).run()"
    sppe.write("flow.py", f"from airflow_provider_sewer import Task\n{chain}")
    sppe.run("run")

    shown = sppe.run("logs", task)

    assert shown.returncode == 2
    assert message in shown.stderr


@pytest.mark.parametrize("former", ["no run yet", "the run of "])
def test_logs_follow_waits_for_next_run(former: str, sppe) -> None:
    """A run that has ended is not followed."""
    sppe.tasks(first="print('old')")
    if former == "the run of ":
        sppe.run("run")
    sppe.write("first_module.py", "print('another')")
    follower = sppe.start("logs", "first", "-f")
    assert f"sppe: {former}" in (line := follower.stderr.readline())
    assert "; waiting for the next one" in line

    sppe.run("run")

    printed, _ = follower.communicate(timeout=60)
    assert "stdout| another\n" in printed
    assert "stdout| old\n" not in printed


@pytest.fixture
def mapped(sppe):
    """A run of a mapped task with two instances, and of one with a single instance."""
    sppe.write("steps.py", "def square(n):\n    print(n * n)\n    assert n < 3")
    sppe.write(
        "flow.py",
        """
        from airflow_provider_sewer import Task, run, workflow
        square = Task("square", function="steps:square", kwargs={"n": 0})
        single = Task("single", function="steps:square", kwargs={"n": 0})

        @workflow
        def flow():
            run(square.map(n=[2, 3]), single.map(n=[1]))
        """,
    )
    sppe.run("run")
    return sppe


def test_logs_of_mapped_task_lists_instances(mapped) -> None:
    shown = mapped.run("logs", "square")

    assert shown.returncode == 2
    assert shown.stderr == (
        "sppe: task 'square' has 2 instances; name one, such as: sppe logs 'square[n=2]'\n"
        "  square[n=2]  succeeded\n  square[n=3]  failed\n"
    )


@pytest.mark.parametrize(("name", "line"), [("square[n=2]", "stdout| 4\n"), ("single", "stdout| 1\n")])
def test_logs_prints_log_of_named_or_only_instance(name: str, line: str, mapped) -> None:
    assert line in mapped.run("logs", name).stdout
