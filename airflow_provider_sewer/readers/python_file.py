"""Python sewer files → workflows."""

from __future__ import annotations

import hashlib
import os
import traceback
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import SewerError, WorkflowFileError, unknown_name
from airflow_provider_sewer.core.recording import Recorder, recording
from airflow_provider_sewer.core.source import SourceLine
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.core.workflow import Workflow
from airflow_provider_sewer.readers.guest import FORMER_NAMES, hosted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType

#: The workflow that is meant where a file holds several and none was named.
DEFAULT_WORKFLOW = "workflow"


def load_module(path: str | os.PathLike[str]) -> ModuleType:
    """Load a sewer file without running any of its tasks.

    :raises WorkflowFileError: when it cannot be read or does not load; with file and line.
    """
    with _loaded(Path(path)) as (module, _):
        return module


def get_tasks_from_module(module: ModuleType) -> dict[str, Task]:
    """Return the tasks of a loaded file by the name of the variable that holds them."""
    return {name: value for name, value in vars(module).items() if isinstance(value, Task)}


def get_task_from_module(module: ModuleType, task_name: str) -> Task:
    """Return the task of this name from a loaded file.

    :raises WorkflowFileError: when there is none; it lists the ones there are.
    """
    tasks = {task.name: task for task in _tasks(module)}
    if task_name not in tasks:
        raise WorkflowFileError(unknown_name("task", task_name, tasks), SourceLine(str(module.__file__), 0))
    return tasks[task_name]


def load_workflow(path: str | os.PathLike[str], workflow: str | None = None) -> Workflow:
    """Load a sewer file and return one of its workflows as a graph.

    :param workflow: its name; needed only where a file holds several and none is called
        ``workflow``. A file that declares none is one workflow: all its tasks.
    :raises SewerError: when the file, a task or the workflow is wrong; with file and line.
    """
    with _loaded(Path(path)) as (module, loading):
        declared = _declared_workflows(module, loading)
        if not declared:
            return _whole_file(module, loading, workflow)
        function = declared[_chosen(workflow, list(declared), str(module.__file__))]
        with recording() as recorder, _as_file_error(str(module.__file__)):
            function()
        return Workflow.of_runs(
            function.__name__, recorder.runs, doc=(function.__doc__ or "").strip(), source=_line_of(function)
        )


@contextmanager
def _loaded(path: Path) -> Iterator[tuple[ModuleType, Recorder]]:
    """Load a file; in the block it can still import what lies beside it."""
    file = os.path.abspath(path)
    code = _compiled(file)
    name = f"sewer_file_{hashlib.sha256(file.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"
    module = ModuleType(name)
    module.__file__ = file
    with hosted(module, os.path.dirname(file)):
        with recording() as recorder, _as_file_error(file):
            exec(code, vars(module))
        vars(module)["__sewer_tasks__"] = recorder.tasks
        yield module, recorder


def _compiled(file: str) -> CodeType:
    whole = SourceLine(file, 0)
    try:
        source = Path(file).read_bytes()
    except IsADirectoryError:
        raise WorkflowFileError("this is a directory; name a workflow file in it", whole) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WorkflowFileError(f"cannot read the workflow file: {reason}", whole) from None
    if b"\0" in source:
        raise WorkflowFileError("this is no text, so no workflow file", whole)
    with _as_file_error(file):
        return compile(source, file, "exec", dont_inherit=True)


@contextmanager
def _as_file_error(file: str) -> Iterator[None]:
    """Turn whatever a person's code raises into one error with file and line."""
    try:
        yield
    except SewerError as error:
        if error.where is not None:
            raise
        raise WorkflowFileError(str(error), _last_line_in(file, error)) from None
    except SyntaxError as error:
        where = SourceLine(error.filename or file, error.lineno or 0)
        raise WorkflowFileError(f"syntax error: {error.msg}", where) from error
    except SystemExit as error:
        raise WorkflowFileError(
            f"the file ends the program (exit {error.code!r}) while it is loaded; "
            "put that under if __name__ == '__main__':",
            _last_line_in(file, error),
        ) from error
    except Exception as error:
        raise WorkflowFileError(_told(file, error), _last_line_in(file, error)) from error


def _told(file: str, error: Exception) -> str:
    said = "".join(traceback.format_exception_only(type(error), error)).strip()
    place = _innermost(error)
    inside = f" (in {place})" if place and place.file != file else ""
    return f"{said}{inside}{_hint(error)}"


def _hint(error: Exception) -> str:
    if not isinstance(error, ImportError) or not error.name:
        return ""
    if error.name in FORMER_NAMES:
        return (
            f". The installed package {error.name.partition('.')[0]!r} is not the one sewer files mean; "
            "write: from airflow_provider_sewer import Task, workflow"
        )
    return (
        ". A workflow file may import its own folder and what is installed beside airflow-provider-sewer; "
        "what only the task needs belongs into the module it runs"
    )


def _last_line_in(file: str, error: BaseException) -> SourceLine:
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == file]
    return SourceLine(file, lines[-1] if lines else 0)


def _innermost(error: BaseException) -> SourceLine | None:
    places = [
        SourceLine(frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if os.path.isfile(frame.f_code.co_filename)
    ]
    return places[-1] if places else None


def _tasks(module: ModuleType) -> list[Task]:
    """Return the tasks a file made, and those it imported under a name of its own."""
    made = [task for task in vars(module).get("__sewer_tasks__", ()) if task.source.file == module.__file__]
    return list(dict.fromkeys([*made, *get_tasks_from_module(module).values()]))


def _declared_workflows(module: ModuleType, loading: Recorder) -> dict[str, Callable[[], Any]]:
    own = {name: f for name, f in loading.workflows.items() if _line_of(f).file == module.__file__}
    named = {value.__name__: value for value in vars(module).values() if hasattr(value, "__sewer_workflow__")}
    return {**own, **named}


def _chosen(wanted: str | None, known: list[str], file: str) -> str:
    if wanted is None and len(known) == 1:
        return known[0]
    name = DEFAULT_WORKFLOW if wanted is None else wanted
    if name in known:
        return name
    if wanted is None:
        said = f"the file holds several workflows; name one: {', '.join(map(repr, known))}"
    else:
        said = unknown_name("workflow", wanted, known)
    raise WorkflowFileError(said, SourceLine(file, 0))


def _whole_file(module: ModuleType, loading: Recorder, wanted: str | None) -> Workflow:
    """Make one workflow of a file that declares none: what it runs, or else all its tasks."""
    whole = SourceLine(str(module.__file__), 0)
    doc = (module.__doc__ or "").strip()
    if wanted not in (None, DEFAULT_WORKFLOW):
        raise WorkflowFileError(f"{unknown_name('workflow', wanted, ())} The file declares no @workflow.", whole)
    if loading.runs:
        return Workflow.of_runs(DEFAULT_WORKFLOW, loading.runs, doc=doc, source=whole)
    tasks = _tasks(module)
    if not tasks:
        raise WorkflowFileError(_why_no_task(module), whole)
    members = set(map(id, tasks))
    edges = [(up, down) for up, down in loading.edges if id(up) in members and id(down) in members]
    return Workflow(DEFAULT_WORKFLOW, tasks, edges, doc=doc, source=whole)


def _why_no_task(module: ModuleType) -> str:
    for value in vars(module).values():
        maker = type(value)
        if maker.__name__ == "Task" and maker.__module__.partition(".")[0] in FORMER_NAMES:
            return (
                f"its tasks are made by the installed package {maker.__module__.partition('.')[0]!r}; "
                "write: from airflow_provider_sewer import Task, workflow"
            )
    return "the file makes no task; write at least one Task(name, module)"


def _line_of(function: Any) -> SourceLine:
    code = function.__wrapped__.__code__
    return SourceLine(code.co_filename, code.co_firstlineno)
