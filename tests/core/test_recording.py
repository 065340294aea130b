"""``.run()`` runs, or is recorded while the graph is loaded."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_provider_sewer import Task, Workflow, workflow
from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow, WorkflowFailed
from airflow_provider_sewer.core.recording import recording


@pytest.fixture
def mark(tmp_path):
    """Return a function that makes a task which leaves a line with its name when it really runs."""
    (tmp_path / "mark.py").write_text("import sys; open('ran', 'a').write(sys.argv[1] + '\\n')\n")

    def make(name: str, **fields: object) -> Task:
        env = {"PYTHONPATH": str(tmp_path)}
        return Task(name, "mark", args=[name], python=sys.executable, workdir=tmp_path, env=env, **fields)

    return make


@pytest.fixture
def ran(tmp_path):
    """Return a function that lists the names of the tasks that ran."""

    def read() -> list[str]:
        file = tmp_path / "ran"
        return file.read_text().split() if file.exists() else []

    return read


def recorded(function) -> Workflow:
    """Record a workflow function and make its graph."""
    with recording() as recorder:
        function()
    return Workflow.of_runs("w", recorder.runs)


def test_run_without_recorder_runs_immediately(mark, ran):
    """Called as plain Python, a chain runs in the order of its edges."""
    (mark("a") >> mark("b")).run()

    assert ran() == ["a", "b"]


def test_recorded_run_starts_no_process(mark, ran):
    """Only the graph grows."""
    graph = recorded((mark("a") >> mark("b")).run)

    assert graph.edges == [("a", "b")]
    assert ran() == []


def test_consecutive_runs_are_ordered(mark):
    """The first one is done before the next one starts, as in plain Python."""
    a, b, c, d = map(mark, "abcd")

    def steps():
        a.run()
        (b >> [c, d]).run()
        mark("e").run()

    assert recorded(steps).upstream == {"a": (), "b": ("a",), "c": ("b",), "d": ("b",), "e": ("c", "d")}


def test_called_workflow_is_recorded_in_caller(mark):
    """Its runs stand where it is called."""
    a, b, c = map(mark, "abc")

    @workflow
    def inner():
        b.run()

    @workflow
    def outer():
        a.run()
        inner()
        c.run()

    assert recorded(outer).edges == [("a", "b"), ("b", "c")]


def test_called_workflow_becomes_a_group(mark):
    """A second call is another group; a task's own group is a group in that."""

    @workflow
    def load(number):
        mark(f"fetch {number}").run()

    @workflow
    def prepare(number=0):
        load(number)
        mark(f"clean {number}", group="second.step").run()

    @workflow
    def outer():
        prepare(1)
        mark("alone").run()
        prepare(2)

    def groups(function) -> dict[str, str]:
        with recording(is_workflow=True) as recorder:
            function()
        return {name: task.group for name, task in Workflow.of_runs("w", recorder.runs).tasks.items()}

    assert groups(outer) == {
        "fetch 1": "prepare.load",
        "clean 1": "prepare.second.step",
        "alone": "",
        "fetch 2": "prepare_2.load",
        "clean 2": "prepare_2.second.step",
    }
    assert groups(prepare) == {"fetch 0": "load", "clean 0": "second.step"}


def test_called_workflow_that_raises_leaves_its_group(mark):
    """Later tasks are not in it."""

    @workflow
    def inner():
        raise ValueError

    @workflow
    def outer():
        with contextlib.suppress(ValueError):
            inner()
        mark("after").run()

    with recording(is_workflow=True) as recorder:
        outer()
    assert [run.group for run in recorder.runs] == [""]


def test_calling_workflow_runs_without_recorder(mark, ran):
    """Groups are for those who look at the graph."""

    @workflow
    def inner():
        mark("a").run()

    @workflow
    def outer():
        inner()
        mark("b").run()

    outer()

    assert ran() == ["a", "b"]


def test_workflow_keeps_function_metadata_and_return_value(mark, ran):
    """``@workflow`` only declares it; a call runs its body."""

    @workflow
    def daily(count=2):
        """Its purpose."""
        mark("a").run()
        return count * 2

    assert (daily.__name__, daily.__doc__) == ("daily", "Its purpose.")
    assert daily(3) == 6
    assert ran() == ["a"]


def test_plain_run_ignores_dependencies_on_other_tasks(mark, ran):
    """A single task runs without the tasks that it waits for elsewhere."""
    b = mark("b", depends_on=["a", mark("a")])

    b.run()
    (b >> mark("c", depends_on="b")).run()

    assert ran() == ["b", "b", "c"]


def test_recorded_workflow_requires_dependencies(mark):
    """In a graph, an unknown dependency is a mistake."""
    with pytest.raises(InvalidWorkflow, match="depends on a task that is not part of the workflow"):
        recorded(mark("b", depends_on="a").run)


def test_task_can_run_twice_without_recorder(mark, ran):
    """A task is not used up by running."""
    a = mark("a")

    a.run()
    a.run()

    assert ran() == ["a", "a"]


def test_task_run_twice_in_workflow_raises_with_both_lines(mark):
    """A graph has each task once; the message names the fix."""
    a, b = mark("a"), mark("b")

    def twice():
        a.run()
        (b >> a).run()

    line = twice.__code__.co_firstlineno
    with pytest.raises(InvalidWorkflow) as caught:
        recorded(twice)

    assert str(caught.value).startswith(
        f"{__file__}:{line + 2}: task 'a' is run a second time, after {__file__}:{line + 1}; "
    )


def test_two_workflows_can_share_tasks(mark):
    """Settings of one ``.run()`` do not reach the other."""
    a, b = mark("a"), mark("b")

    one = recorded(lambda: (a >> b).run(env={"N": "1"}))
    other = recorded(lambda: (b >> a).run(env={"N": "2"}))

    assert (one.order, other.order) == (("a", "b"), ("b", "a"))
    assert (one.tasks["a"].settings.env["N"], other.tasks["a"].settings.env["N"]) == ("1", "2")
    assert "N" not in a.settings.env


def test_task_settings_override_run_settings(mark):
    """``.run(…)`` fills in; relative paths in it are those of its file."""
    given, unsaid = mark("said"), Task("unsaid", "m")

    graph = recorded(lambda: (given >> unsaid).run("env/python", env={"PYTHONPATH": "x", "N": 1}, workdir="w"))

    here = Path(__file__).parent
    assert graph.tasks["said"].settings == given.settings.with_fallback(graph.tasks["unsaid"].settings)
    assert graph.tasks["said"].settings.python == sys.executable
    assert graph.tasks["unsaid"].settings == (
        str(here / "env/python"),
        {"PYTHONPATH": "x", "N": "1"},
        None,
        str(here / "w"),
    )


@pytest.mark.parametrize("wrong", [{"env": "A=1"}, {"workdir": 5}, {"path_to_python": ""}])
def test_run_rejects_invalid_arguments_with_line(mark, wrong):
    """Also in plain Python; and nothing has run."""
    with pytest.raises(InvalidTask, match=f"^{__file__}:[0-9]+: (env|workdir|python) must be "):
        mark("a").run(**wrong)


def test_plain_run_raises_workflow_failed(mark, ran, tmp_path):
    """The message names the task and its end; later tasks do not run."""
    (tmp_path / "fails.py").write_text("raise SystemExit(3)")
    fails = Task("broken", "fails", python=sys.executable, workdir=tmp_path)

    with pytest.raises(WorkflowFailed, match="broken: fails failed with exit code 3"):
        (mark("a") >> fails >> mark("b")).run()

    assert ran() == ["a"]


def test_workflow_without_run_raises():
    """The message names the missing call."""
    with pytest.raises(InvalidWorkflow, match=r"workflow 'w' runs no task; end it with \(a >> b\)\.run\(\)"):
        recorded(lambda: None)


def test_5000_runs_are_recorded():
    """One edge for each; nothing grows faster than the file."""
    graph = recorded(lambda: [Task(f"t{i}", "m").run() for i in range(5000)])

    assert len(graph.edges) == 4999


def test_recording_is_separate_per_thread():
    """Each thread records its own workflow."""
    with ThreadPoolExecutor(8) as pool:
        graphs = list(pool.map(lambda i: recorded(lambda: Task(f"t{i}", "m").run()), range(50)))

    assert [list(graph.tasks) for graph in graphs] == [[f"t{i}"] for i in range(50)]


def test_run_in_asyncio_is_recorded(mark, ran):
    """A coroutine stays in the workflow that awaits it."""

    async def inside():
        mark("a").run()

    assert list(recorded(lambda: asyncio.run(inside())).tasks) == ["a"]
    assert ran() == []


def test_run_in_thread_of_recorded_workflow_raises(mark, ran):
    """No process is started behind the recorder's back; the message names the way to run side by side."""

    def side_by_side():
        tasks = [mark("a"), mark("b")]
        mark("c").run()
        with ThreadPoolExecutor() as pool:
            pool.map(Task.run, tasks)  # whose results, and so whose errors, nobody looks at

    with pytest.raises(InvalidWorkflow, match=r"task '[ab]' is run in another thread, which cannot be recorded"):
        recorded(side_by_side)

    assert ran() == []


def test_failed_recording_resets_recorder(mark, ran):
    """After an error in a workflow function, ``.run()`` runs again."""
    with pytest.raises(ZeroDivisionError):
        recorded(lambda: 1 / 0)

    mark("a").run()
    assert ran() == ["a"]


def test_plain_run_beside_recording_runs(mark, ran):
    """Recording a workflow in one thread keeps no other thread from running its own tasks."""
    mine = mark("mine")

    def meanwhile():
        mark("recorded").run()
        with ThreadPoolExecutor() as pool:
            pool.submit(mine.run).result()

    assert list(recorded(meanwhile).tasks) == ["recorded"]
    assert ran() == ["mine"]


@pytest.mark.parametrize("thing", [None, 5, "name", Task("a", "m"), type("Class", (), {})])
def test_workflow_rejects_other_objects(thing):
    """A class, a task, or brackets behind ``@workflow`` make a message, not a traceback later."""
    with pytest.raises(InvalidWorkflow, match="@workflow must decorate a function"):
        workflow(thing)


def test_workflow_with_brackets_raises():
    """Airflow's ``@dag()`` is written with brackets, ``@workflow`` without."""
    with pytest.raises(InvalidWorkflow, match=r"@workflow must decorate a function and takes no arguments"):

        @workflow()
        def daily():
            """Never declared."""


def test_workflow_rejects_async_function():
    """No caller would await it."""
    with pytest.raises(InvalidWorkflow, match="workflow 'daily' is async or a generator"):

        @workflow
        async def daily():
            """Never awaited."""


def test_workflow_rejects_generator_function():
    """Called, it would run nothing."""
    with pytest.raises(InvalidWorkflow, match="workflow 'daily' is async or a generator"):

        @workflow
        def daily():
            yield


def test_workflow_accepts_lambda(mark):
    """It is a function like any other."""
    assert list(recorded(workflow(lambda: mark("a").run())).tasks) == ["a"]
