"""Every bad workflow, task or edge in a file is one clear error, with file and line."""

from __future__ import annotations

import re

import pytest

from airflow_provider_sewer import load_workflow
from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow, WorkflowFileError

from .file_cases import fails


def test_workflow_without_required_argument_is_error_with_line(write):
    """Without a default, each parameter needs an argument."""
    fails(
        write("a = Task('a', 'm')\n\n@workflow\ndef w(day):\n    a.run()"),
        "{f}:4: TypeError: w() missing 1 required positional argument: 'day'. "
        "Signature: (day); pass values with --arg NAME=VALUE or arguments={…}, or set defaults",
    )


def test_workflow_decorator_may_pass_arguments(write):
    """Whether a call goes wrong is seen by calling."""
    path = write("""
        import functools

        def on_monday(function):
            @functools.wraps(function)
            def wrapper():
                return function("monday")
            return wrapper

        @workflow
        @on_monday
        def w(day):
            Task(day, "m").run()
    """)

    assert list(load_workflow(path).tasks) == ["monday"]


def test_run_in_thread_is_rejected(write, tmp_path):
    """The message shows how to run them in parallel; no thread is started implicitly."""
    write("open('ran', 'w')", "job.py", imports="")
    path = write("""
        import sys
        from concurrent.futures import ThreadPoolExecutor
        a, b = (Task(name, "job", python=sys.executable, workdir=".") for name in "ab")

        @workflow
        def w():
            with ThreadPoolExecutor() as pool:
                list(pool.map(Task.run, [a, b]))
    """)

    with pytest.raises(InvalidWorkflow, match=r"flow\.py:4: task '[ab]' is run in another thread, .* a >> \[b, c\]"):
        load_workflow(path)
    assert not (tmp_path / "ran").exists()


def test_workflow_without_run_is_error_with_line(write):
    """A chain that was written but not run."""
    fails(
        write("a = Task('a', 'm')\n@workflow\ndef w():\n    a >> a\n"),
        "{f}:3: workflow 'w' runs no task; end it with (a >> b).run()",
        InvalidWorkflow,
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "@workflow\nasync def w():\n    pass",
            "workflow 'w' is async or a generator; write a plain function with def",
        ),
        ("@workflow\ndef w():\n    yield", "workflow 'w' is async or a generator; write a plain function with def"),
        ("@workflow()\ndef w():\n    pass", "@workflow must decorate a function and takes no arguments"),
    ],
)
def test_workflow_decorator_rejects_invalid_object_with_line(write, source, message):
    """The error comes when the file is loaded, not when the workflow is used."""
    fails(write(source), "{f}:2: " + message, InvalidWorkflow)


def test_workflow_decorator_rejects_class(write):
    """The message shows the value."""
    path = write("@workflow\nclass W:\n    pass")

    with pytest.raises(InvalidWorkflow, match=r"flow\.py:2: @workflow must decorate a function .*W'>$"):
        load_workflow(path)


TWO = """
    a = Task("a", "m")

    @workflow
    def daily():
        a.run()

    @workflow
    def weekly():
        a.run()
"""


def test_load_workflow_rejects_unknown_workflow(write):
    """And with the one that was probably meant."""
    fails(
        write(TWO),
        "{f}: unknown workflow 'dayly'; did you mean 'daily'? Known: 'daily', 'weekly'.",
        workflow="dayly",
    )


def test_load_workflow_rejects_empty_workflow_name(write):
    """It is not taken for none."""
    fails(write(TWO), "{f}: unknown workflow ''. Known: 'daily', 'weekly'.", workflow="")


def test_load_workflow_requires_name_with_several_workflows(write):
    """There is no guessing."""
    fails(write(TWO), "{f}: the file defines several workflows; choose one: 'daily', 'weekly'")


def test_load_workflow_rejects_name_without_workflow_function(write):
    """The message shows that the file declares none."""
    fails(
        write("Task('a', 'm')"),
        "{f}: unknown workflow 'daily'. Known: none. The file has no @workflow.",
        workflow="daily",
    )


def test_load_workflow_rejects_duplicate_workflow_names(write):
    """The second one would hide the first."""
    fails(
        write("@workflow\ndef w():\n    pass\n\n@workflow\ndef w():\n    pass"),
        "{f}:6: two workflows are named 'w'; rename one",
        InvalidWorkflow,
    )


def test_load_workflow_rejects_duplicate_task_names_with_both_lines(write):
    """In a file without a workflow, all its tasks count."""
    path = write("Task('a', 'm')\n\nTask('a', 'n')")

    fails(path, "{f}:4: two tasks are named 'a'; the other one is at {f}:2; rename one", InvalidWorkflow)


def test_task_name_may_repeat_across_workflows(write):
    """Names have to be unique in a workflow, not in a file."""
    path = write("""
        @workflow
        def one():
            Task("a", "m").run()

        @workflow
        def two():
            Task("a", "n").run()
    """)

    assert [load_workflow(path, name).tasks["a"].module for name in ("one", "two")] == ["m", "n"]


def test_cycle_is_printed(write):
    """Each task with its line."""
    path = write("""
        a = Task("a", "m")
        b = Task("b", "m", depends_on=a)
        b >> a
    """)

    fails(
        path,
        "{f}: Cyclic dependency:\n"
        "  a   ({f}:2)\n    ↓\n  b   ({f}:3)\n    ↓\n  a   (again)\n"
        "Remove one of these edges.",
        InvalidWorkflow,
    )


def test_cycle_in_workflow_function_has_line(write):
    """The workflow is where it was tied."""
    path = write("a, b = Task('a', 'm'), Task('b', 'm')\n\n@workflow\ndef w():\n    (a >> b >> a).run()")

    with pytest.raises(InvalidWorkflow, match=rf"^{re.escape(str(path))}:4: Cyclic dependency"):
        load_workflow(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Task('a', 'm', {'x': {1}})", "task 'a': parameter 'x': a value of type set has no plain text form"),
        ("Task('a', 'm', {'x': 'a\\0b'})", "task 'a': parameter 'x': the text contains a NUL byte; remove it"),
        ("Task('a', 'm', {1: 2})", "task 'a': parameter 1: the name must be text, got int"),
        ("Task('a', 'm', {'--x': 2})", "task 'a': parameter '--x': write the bare name"),
        ("Task('a', 'm', dependson='b')", "task 'a': unknown field 'dependson'; did you mean 'depends_on'?"),
        ("Task('', 'm')", "Task(…): name must be non-empty text, got ''"),
        ("Task('a', 'm.py')", "task 'a': module must be a dotted name such as 'package.module', got 'm.py'"),
        ("Task('a', 'm', env={'A': None})", "task 'a': env: the value of 'A' must be text or a number, got NoneType"),
        ("Task('a', 'm').run(workdir=5)", "workdir must be a path, got 5"),
    ],
)
def test_invalid_task_is_error_with_line(write, line, message):
    """Task, field, and the fix."""
    path = write(line)

    with pytest.raises(InvalidTask, match="^" + re.escape(f"{path}:2: {message}")):
        load_workflow(path)


def test_task_without_name_is_error_with_line(write):
    """In Python's own words."""
    with pytest.raises(WorkflowFileError, match=r"flow\.py:2: TypeError: .*missing 1 required .*'name'$"):
        load_workflow(write("Task()"))


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("a >> 'b'", "'b' (str)"),
        ("a << 5", "5 (int)"),
        ("None >> a", "None (NoneType)"),
        ("a >> b >> {b}", "{Task('b', 'm')} (set)"),
        ("[a, 'b'] >> b", "'b' (str)"),
        ("a >> []", "an empty list"),
    ],
)
def test_chain_of_other_object_is_error_with_line(write, line, kind):
    """On either side, alone or in a list."""
    fails(
        write(f"a, b = Task('a', 'm'), Task('b', 'm')\n{line}"),
        f"{{f}}:3: >> takes tasks, chains and lists of them, got {kind}",
        InvalidWorkflow,
    )


@pytest.mark.parametrize("line", ["[a] >> [b]", "[a] << [b]", "(a,) >> [b]"])
def test_chain_of_two_lists_is_error_with_hint(write, line):
    """Python does not ask a task about it, so the hint has to come from the reader."""
    path = write(f"a, b = Task('a', 'm'), Task('b', 'm')\n{line}")

    with pytest.raises(
        WorkflowFileError, match=r"flow\.py:3: TypeError: .* Python cannot connect two lists; put a task"
    ):
        load_workflow(path)
