"""Loader of workflows from Python files."""

from __future__ import annotations

import inspect
import os
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import InvalidWorkflow, SewerError, WorkflowFileError, unknown_name
from airflow_provider_sewer.core.masking import masking_errors
from airflow_provider_sewer.core.recording import Recorder, Run, recording
from airflow_provider_sewer.core.source import SourceLine
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.core.workflow import DEFAULT_WORKFLOW, Workflow
from airflow_provider_sewer.loaders.isolated_import import isolated_import, module_name
from airflow_provider_sewer.loaders.sewerpipe_names import FORMER_NAMES
from airflow_provider_sewer.loaders.user_errors import as_file_error, read_workflow_file
from airflow_provider_sewer.loaders.workflow_files import select_workflow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import CodeType


def load_module(path: str | os.PathLike[str]) -> ModuleType:
    """Load a sewer file without running any of its tasks.

    :raises WorkflowFileError: when it cannot be read or loaded; with file and line.
    """
    with _loaded(path) as (module, _):
        return module


def get_tasks_from_module(module: ModuleType) -> dict[str, Task]:
    """Return the tasks of a loaded file by variable name."""
    return {name: value for name, value in vars(module).items() if isinstance(value, Task)}


def get_task_from_module(module: ModuleType, task_name: str) -> Task:
    """Return the task of this name from a loaded file.

    :raises WorkflowFileError: when no task, or more than one, has this name; the message lists the names.
    """
    tasks = _tasks(module)
    named = [task for task in tasks if task.name == task_name]
    if len(named) == 1:
        return named[0]
    if named:
        message = f"several tasks are named {task_name!r}: at {' and '.join(str(task.source) for task in named)}"
    else:
        message = unknown_name("task", task_name, [task.name for task in tasks])
    raise WorkflowFileError(message, SourceLine(str(module.__file__), 0))


def load_workflow(
    path: str | os.PathLike[str], workflow: str | None = None, arguments: Mapping[str, Any] | None = None
) -> Workflow:
    """Load a sewer file and return one of its workflows as a graph.

    :param workflow: its name; needed only if the file defines several and none is called ``workflow``. A file without
        ``@workflow`` is one workflow of all its tasks.
    :param arguments: arguments of the workflow function by parameter name.
    :raises SewerError: when the file, a task or the workflow is invalid; with file and line.
    """
    return load_parametrized(path, workflow, lambda _: arguments or {})


def load_parametrized(
    path: str | os.PathLike[str],
    workflow: str | None,
    arguments: Callable[[Mapping[str, inspect.Parameter]], Mapping[str, Any]],
) -> Workflow:
    """Load a workflow as :func:`load_workflow` does, with arguments that depend on the parameters of its function.

    :param arguments: returns the arguments for the parameters; those of a file without ``@workflow`` are empty.
    :raises SewerError: when the file, a task or the workflow is invalid; with file and line.
    """
    with _loaded(path) as (module, loading):
        declared = _declared_workflows(module, loading)
        if declared:
            name = select_workflow(workflow, list(declared), str(module.__file__))
            function = declared.pop(name)
            found = _recorded(function, arguments(inspect.signature(function).parameters))
            found.unused = _unused(vars(module)["__sewer_tasks__"], found, declared)
            return found
        _refuse_arguments(arguments({}), module)
        return _workflow_of_whole_file(module, loading, workflow)


def load_tasks(path: str | os.PathLike[str]) -> list[Task]:
    """Load a sewer file and return all its tasks: those of its workflows, then the others.

    :raises SewerError: when the file, a task or a workflow is invalid; with file and line.
    """
    with _loaded(path) as (module, loading):
        declared = _declared_workflows(module, loading)
        if not declared:
            return list(_workflow_of_whole_file(module, loading, None).tasks.values())
        run = [task for function in declared.values() for task in _recorded(function, {}).tasks.values()]
        # A task in a run is a copy with the settings of the run; its name and line are unchanged.
        tasks: dict[object, Task] = {}
        for task in [*run, *_tasks(module)]:
            tasks.setdefault((task.name, task.source), task)
        return list(tasks.values())


@contextmanager
def _loaded(path: str | os.PathLike[str]) -> Iterator[tuple[ModuleType, Recorder]]:
    """Load a file; inside the block it can still import modules from its folder."""
    file = os.path.abspath(path)
    code = _compiled(file)
    module = ModuleType(module_name(file))
    module.__file__ = file
    folders = dict.fromkeys(map(os.path.dirname, (file, os.path.realpath(file))))
    with isolated_import(module, list(folders)), recording() as recorder:
        with as_file_error(file):
            exec(code, vars(module))  # noqa: S102 - the user runs their own code
        vars(module)["__sewer_tasks__"] = _workflow_of(module, recorder)
        yield module, recorder


def _compiled(file: str) -> CodeType:
    source = read_workflow_file(file)
    if b"\0" in source:
        raise WorkflowFileError("the file is not valid UTF-8, so it is not a workflow file", SourceLine(file, 0))
    with as_file_error(file):
        return compile(source, file, "exec", dont_inherit=True)


def _workflow_of(module: ModuleType, recorder: Recorder) -> list[Task]:
    """Return the tasks that a file defines; the template of a mapped task counts only if it has edges itself."""
    connected = {task for edge in recorder.edges for task in edge}
    defined = [task for task, maker in recorder.tasks.items() if maker == module.__name__]
    return [task for task in defined if not task.is_mapped or task in connected]


def _tasks(module: ModuleType) -> list[Task]:
    """Return the tasks that a file defines, and those it has imported as variables."""
    defined = vars(module).get("__sewer_tasks__", ())
    named = [task for task in get_tasks_from_module(module).values() if not task.is_mapped]
    return list(dict.fromkeys([*defined, *named]))


def _declared_workflows(module: ModuleType, loading: Recorder) -> dict[str, FunctionType]:
    own = {name: function for (maker, name), function in loading.workflows.items() if maker == module.__name__}
    functions = [value for value in vars(module).values() if isinstance(value, FunctionType)]
    return {**own, **{function.__name__: function for function in functions if hasattr(function, "__sewer_workflow__")}}


def _recorded(function: Any, arguments: Mapping[str, Any]) -> Workflow:
    source: SourceLine = function.__sewer_workflow__
    hint = (
        f"Signature: {inspect.signature(function)}; "
        "pass values with --arg NAME=VALUE or arguments={…}, or set defaults"
    )
    with (
        recording(is_workflow=True) as recorder,
        masking_errors(recorder.secrets),
        as_file_error(source.file, called_at=source.line, if_not_called=hint),
    ):
        function(**arguments)
    doc = inspect.cleandoc(function.__doc__ or "")
    with masking_errors(recorder.secrets):
        return Workflow.of_runs(function.__name__, recorder.runs, stated=recorder.edges, doc=doc, source=source)


def _unused(tasks: list[Task], found: Workflow, others: Mapping[str, FunctionType]) -> tuple[Task, ...]:
    """Return the tasks of a file that no workflow runs; none if another workflow cannot be recorded."""
    unused = [task for task in tasks if found.name_of(task.name) is None]
    for function in others.values() if unused else ():
        try:
            other = _recorded(function, {})
        except SewerError:  # such as one that requires arguments
            return ()
        unused = [task for task in unused if other.name_of(task.name) is None]
    return tuple(unused)


def _refuse_arguments(arguments: Mapping[str, Any] | None, module: ModuleType) -> None:
    if arguments:
        raise InvalidWorkflow(
            f"the file has no @workflow that takes {', '.join(map(repr, arguments))}; define one with these parameters",
            SourceLine(str(module.__file__), 0),
        )


def _workflow_of_whole_file(module: ModuleType, loading: Recorder, name: str | None) -> Workflow:
    """Return the workflow of a file without ``@workflow``: the tasks of its runs, or else all its tasks."""
    source = SourceLine(str(module.__file__), 0)
    doc = inspect.cleandoc(module.__doc__ or "")
    if name not in (None, DEFAULT_WORKFLOW):
        raise WorkflowFileError(f"{unknown_name('workflow', name, ())} The file has no @workflow.", source)
    tasks = _tasks(module)
    if not tasks:
        raise WorkflowFileError(_missing_task_reason(module), source)
    runs = [run for run in loading.runs if run.module == module.__name__]
    if runs:
        _check_all_tasks_run(vars(module)["__sewer_tasks__"], runs)
        return Workflow.of_runs(DEFAULT_WORKFLOW, runs, doc=doc, source=source)
    members = set(tasks)
    edges = [edge for edge in loading.edges if members.issuperset(edge)]
    return Workflow(DEFAULT_WORKFLOW, tasks, edges, doc=doc, source=source)


def _check_all_tasks_run(tasks: list[Task], runs: list[Run]) -> None:
    """Reject a file that runs only some of its tasks: the intended workflow is ambiguous."""
    run = {task.name: task for recorded in runs for task in recorded.chain.tasks()}
    for task in tasks:
        if task.name not in run or not run[task.name].is_same(task):
            raise InvalidWorkflow(
                f"task {task.name!r} is not part of the run at {runs[0].source}; add it there, or define the workflow "
                "as a function with @workflow",
                task.source,
            )


def _missing_task_reason(module: ModuleType) -> str:
    for value in vars(module).values():
        maker = type(value)
        if maker.__name__ == "Task" and maker.__module__.partition(".")[0] in FORMER_NAMES:
            return (
                f"its tasks come from the installed package {maker.__module__.partition('.')[0]!r}; "
                "write: from airflow_provider_sewer import Task, workflow"
            )
    return "the file defines no task; add at least one Task(name, module)"
