"""Whether ``.run()`` runs or records.

Called as plain Python, ``.run()`` runs. While a graph is wanted, a recorder stands by and ``.run()``
only adds to it. The recorder is a context variable, so that two files read at once do not mix.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from airflow_provider_sewer.core.errors import InvalidWorkflow
from airflow_provider_sewer.core.source import calling_line, executing_module
from airflow_provider_sewer.core.tags_and_groups import inner_group

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_provider_sewer.core.chain import Chain
    from airflow_provider_sewer.core.execution_settings import ExecutionSettings
    from airflow_provider_sewer.core.source import SourceLine
    from airflow_provider_sewer.core.task import Task


class Run(NamedTuple):
    """One ``.run(…)``: what it was called on, with which settings, where, by which module's code, in which group."""

    chain: Chain
    settings: ExecutionSettings
    source: SourceLine
    maker: Optional[str]
    group: str = ""


class TaskNamer:
    """Names of tasks that nobody has named one by one; those that differ are numbered in their order."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], str] = {}
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}

    def unique_name(self, base: str, said: str) -> str:
        """Return the name of a task; the same for all that say the same.

        :param base: what it would be called if it were the only one.
        :param said: what tells it from others.
        """
        if (base, said) not in self._names:
            name = base
            while name in self._taken:
                self._counts[base] = self._counts.get(base, 1) + 1
                name = f"{base}_{self._counts[base]}"
            self._names[base, said] = name
            self._taken.add(name)
        return self._names[base, said]

    def copy(self) -> TaskNamer:
        """Return names that go on from these."""
        return copy.deepcopy(self)


class Recorder:
    """What a workflow file did while it was loaded or one of its workflows was recorded.

    The names of a workflow's tasks go on from those of its file, whatever other workflows were recorded before.
    Tasks and workflows are kept with the module whose top-level code made them, if need be by way of
    functions of other modules: what a helper makes when it is imported is not the importing file's.

    :param names: the names that tasks have had so far.
    :param is_workflow: whether the first workflow that is called is the one to be recorded; any other is part of what
        calls it, as a group.
    """

    def __init__(self, names: TaskNamer, *, is_workflow: bool = False) -> None:
        self.names = names
        self.group = ""
        self._groups: set[str] = set()
        self._is_awaited = is_workflow
        self.tasks: dict[Task, str | None] = {}
        self.edges: list[tuple[Task, Task]] = []
        self.runs: list[Run] = []
        self.workflows: dict[tuple[str | None, str], Any] = {}
        self.refused: InvalidWorkflow | None = None

    def new_group(self, name: str) -> str:
        """Return the group of a workflow that is called; one that is called again has another."""
        if self._is_awaited:
            self._is_awaited = False
            return ""
        first = group = inner_group(self.group, name)
        number = 1
        while group in self._groups:
            number += 1
            group = f"{first}_{number}"
        self._groups.add(group)
        return group


_recorder: ContextVar[Recorder | None] = ContextVar("sewer_recorder", default=None)
_under_way: list[Recorder] = []
_run_inline: Callable[[Run], None]
_unrecorded_names: dict[str | None, TaskNamer] = {}


@contextmanager
def recording(*, is_workflow: bool = False) -> Iterator[Recorder]:
    """Record instead of running for as long as the block lasts.

    :param is_workflow: whether it is to record one workflow, the first that is called.
    :raises InvalidWorkflow: at its end, when a task was run in a thread of its own.
    """
    around = _recorder.get()
    recorder = Recorder(around.names.copy() if around else TaskNamer(), is_workflow=is_workflow)
    token = _recorder.set(recorder)
    _under_way.append(recorder)
    try:
        yield recorder
    finally:
        _under_way.remove(recorder)
        _recorder.reset(token)
    if recorder.refused:
        raise recorder.refused


def is_recording() -> bool:
    """Tell whether a graph is wanted here."""
    return _recorder.get() is not None


def run_with(runner: Callable[[Run], None]) -> None:
    """Say who runs a plain ``.run()``. The package does this once; the model itself starts nothing."""
    global _run_inline  # noqa: PLW0603 - said once, when the package is imported
    _run_inline = runner


def run_chain(chain: Chain, settings: ExecutionSettings, source: SourceLine) -> None:
    """Record a ``.run()``, or have it run now."""
    run = Run(chain, settings, source, executing_module())
    if recorder := _recorder.get():
        recorder.runs.append(run._replace(group=recorder.group))
    else:
        _refuse_what_is_being_recorded(chain)
        _run_inline(run)


def _refuse_what_is_being_recorded(chain: Chain) -> None:
    """Keep a thread, which no recorder follows, from really starting what is only to be recorded."""
    makers = {task: recorder for recorder in list(_under_way) for task in list(recorder.tasks)}
    for task in chain.tasks() if makers else ():
        if recorder := makers.get(task):
            recorder.refused = InvalidWorkflow(
                f"task {task.name!r} is run in a thread of its own, which cannot be recorded; "
                "to have tasks run side by side, write a >> [b, c]",
                task.source,
            )
            raise recorder.refused


def note_task(task: Task) -> None:
    """Tell the recorder, if there is one, that a task was made."""
    if recorder := _recorder.get():
        recorder.tasks[task] = executing_module()


def automatic_name(base: str, said: str) -> str:
    """Return the name of a task that nobody has named by itself (see :class:`Names`).

    Where nothing is recorded, names are those of the module whose top-level code leads here.
    """
    recorder = _recorder.get()
    names = recorder.names if recorder else _unrecorded_names.setdefault(executing_module(), TaskNamer())
    return names.unique_name(base, said)


def note_edges(edges: Iterable[tuple[Task, Task]]) -> None:
    """Tell the recorder, if there is one, that edges were stated."""
    if recorder := _recorder.get():
        recorder.edges.extend(edges)


class CalledWorkflow:
    """Has the recorder, if there is one, take what is run in the block for a group of its own.

    No generator makes this, for that would leave lines of its own in what a traceback tells.

    :param name: the name of the workflow that is called.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._recorder = _recorder.get()
        self._around = ""

    def __enter__(self) -> None:
        if self._recorder:
            self._around = self._recorder.group
            self._recorder.group = self._recorder.new_group(self._name)

    def __exit__(self, *exc: object) -> None:
        if self._recorder:
            self._recorder.group = self._around


def note_workflow(name: str, function: Any) -> None:
    """Tell the recorder, if there is one, that a workflow was declared.

    :raises InvalidWorkflow: when the same file already declared one of this name.
    """
    if recorder := _recorder.get():
        known = recorder.workflows.setdefault((executing_module(), name), function)
        if known is not function:
            raise InvalidWorkflow(f"two workflows are named {name!r}; rename one", calling_line())
