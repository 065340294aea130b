"""Recording of ``.run()`` calls instead of running them.

As plain Python, ``.run()`` runs. While a graph is built, a recorder is active and ``.run()`` only adds to it. The
recorder is a context variable, so that two files can be loaded at once.
"""

from __future__ import annotations

import copy
import inspect
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from airflow_provider_sewer.core.errors import InvalidWorkflow
from airflow_provider_sewer.core.groups import inner_group
from airflow_provider_sewer.core.secret_detection import secret_arguments
from airflow_provider_sewer.core.source import calling_line, executing_module

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from contextvars import Token

    from airflow_provider_sewer.core.chain import Chain
    from airflow_provider_sewer.core.execution_settings import ExecutionSettings
    from airflow_provider_sewer.core.source import SourceLine
    from airflow_provider_sewer.core.task import Task


class Run(NamedTuple):
    """Recorded ``.run(…)``.

    :param chain: its tasks.
    :param settings: their settings, if they have none.
    :param source: its line.
    :param module: the module whose code called it.
    :param group: the group of its tasks.
    :param secrets: the secrets among the arguments of the workflows around it, each with its name.
    """

    chain: Chain
    settings: ExecutionSettings
    source: SourceLine
    module: Optional[str]
    group: str = ""
    secrets: Mapping[str, str] = MappingProxyType({})


class TaskNamer:
    """Automatic names of tasks; different tasks with the same base name are numbered in their order."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], str] = {}
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}

    def unique_name(self, base: str, signature: str) -> str:
        """Return the name of a task; tasks with equal signatures share it.

        :param base: name that is used if it is free.
        :param signature: text that identifies the task.
        """
        if (base, signature) not in self._names:
            name = base
            while name in self._taken:
                self._counts[base] = self._counts.get(base, 1) + 1
                name = f"{base}_{self._counts[base]}"
            self._names[base, signature] = name
            self._taken.add(name)
        return self._names[base, signature]

    def copy(self) -> TaskNamer:
        """Return a copy that continues from these names."""
        return copy.deepcopy(self)


class Recorder:
    """Record of the tasks, edges, runs and workflows of a workflow file, or of one of its workflows.

    The names of a workflow's tasks continue from those of its file, independently of other recorded workflows. Tasks
    and workflows are recorded with the module whose top-level code created them, also through functions of other
    modules: tasks that an imported module creates do not belong to the importing file.

    :param names: the names of tasks so far.
    :param is_workflow: whether to record the first workflow that is called; any other one becomes a group of its
        caller.
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
        self.error: InvalidWorkflow | None = None
        #: The secrets among the arguments of the workflows called so far.
        self.secrets: dict[str, str] = {}

    def new_group(self, name: str) -> str:
        """Return the group of a called workflow; a second call gets another group."""
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
_secrets: ContextVar[Mapping[str, str]] = ContextVar("sewer_secrets", default=MappingProxyType({}))
_under_way: list[Recorder] = []
_run_inline: Callable[[Run], None]
_unrecorded_names: dict[str | None, TaskNamer] = {}


@contextmanager
def recording(*, is_workflow: bool = False) -> Iterator[Recorder]:
    """Record instead of running within the block.

    :param is_workflow: whether to record a single workflow, the first that is called.
    :raises InvalidWorkflow: at its end, when a task was run in another thread.
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
    if recorder.error:
        raise recorder.error


def is_recording() -> bool:
    """Return whether a graph is being recorded in this context."""
    return _recorder.get() is not None


def set_inline_runner(runner: Callable[[Run], None]) -> None:
    """Set the runner of plain ``.run()`` calls. The package does this once; this module starts no process."""
    global _run_inline  # noqa: PLW0603 - set once, when the package is imported
    _run_inline = runner


def run_chain(chain: Chain, settings: ExecutionSettings, source: SourceLine) -> None:
    """Record a ``.run()``, or run it now."""
    run = Run(chain, settings, source, executing_module(), secrets=_secrets.get())
    if recorder := _recorder.get():
        recorder.runs.append(run._replace(group=recorder.group))
    else:
        _reject_recorded_tasks(chain)
        _run_inline(run)


def _reject_recorded_tasks(chain: Chain) -> None:
    """Reject tasks under recording that run in another thread, where the recorder is not active."""
    recorders = {task: recorder for recorder in list(_under_way) for task in list(recorder.tasks)}
    for task in chain.tasks() if recorders else ():
        if recorder := recorders.get(task):
            recorder.error = InvalidWorkflow(
                f"task {task.name!r} is run in another thread, which cannot be recorded; "
                "to run tasks in parallel, write a >> [b, c]",
                task.source,
            )
            raise recorder.error


def record_task(task: Task) -> None:
    """Add a task to the recorder, if there is one."""
    if recorder := _recorder.get():
        recorder.tasks[task] = executing_module()


def secrets_of_workflow() -> Mapping[str, str]:
    """Return the secrets among the arguments of the workflows that are being called, each with its name."""
    return _secrets.get()


def automatic_name(base: str, signature: str) -> str:
    """Return the name of a task without a name of its own (see :class:`TaskNamer`).

    Without a recorder, names are unique within the module whose top-level code leads here.
    """
    recorder = _recorder.get()
    names = recorder.names if recorder else _unrecorded_names.setdefault(executing_module(), TaskNamer())
    return names.unique_name(base, signature)


def record_edges(edges: Iterable[tuple[Task, Task]]) -> None:
    """Add explicit edges to the recorder, if there is one."""
    if recorder := _recorder.get():
        recorder.edges.extend(edges)


class CalledWorkflow:
    """Context of a called workflow: the recorder, if there is one, adds runs to its group.

    The secrets among its arguments are known inside, for tasks can use them under any name. It is a class because a
    generator would add lines of its own to tracebacks.

    :param function: the called workflow.
    :param args: its positional arguments.
    :param kwargs: its keyword arguments.
    """

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._name = function.__name__
        self._recorder = _recorder.get()
        self._around = ""
        self._secrets = secret_arguments(_with_defaults(function, args, kwargs))
        self._token: Token[Mapping[str, str]] | None = None
        if self._recorder:
            self._recorder.secrets.update(self._secrets)

    def __enter__(self) -> None:
        self._token = _secrets.set({**_secrets.get(), **self._secrets})
        if self._recorder:
            self._around = self._recorder.group
            self._recorder.group = self._recorder.new_group(self._name)

    def __exit__(self, *exc: object) -> None:
        if self._token:
            _secrets.reset(self._token)
        if self._recorder:
            self._recorder.group = self._around


def _with_defaults(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by their names; unknown ones are left out, for the call itself rejects them."""
    parameters = inspect.signature(function).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
    return {**defaults, **dict(zip((each.name for each in parameters), args)), **kwargs}


def record_workflow(name: str, function: Any) -> None:
    """Add a declared workflow to the recorder, if there is one.

    :raises InvalidWorkflow: when the same file already declared one of this name.
    """
    if recorder := _recorder.get():
        known = recorder.workflows.setdefault((executing_module(), name), function)
        if known is not function:
            raise InvalidWorkflow(f"two workflows are named {name!r}; rename one", calling_line())
