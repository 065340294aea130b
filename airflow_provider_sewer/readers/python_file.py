"""Python sewer files → workflows."""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import traceback
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import SewerError, WorkflowFileError, unknown_name
from airflow_provider_sewer.core.recording import Recorder, recording
from airflow_provider_sewer.core.source import SourceLine
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.core.workflow import Workflow
from airflow_provider_sewer.readers.guest import FORMER_NAMES, STANDARD_LIBRARY, hosted

if TYPE_CHECKING:
    from collections.abc import Iterator
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

    :raises WorkflowFileError: when there is none, or more than one; it lists the ones there are.
    """
    tasks = _tasks(module)
    named = [task for task in tasks if task.name == task_name]
    if len(named) == 1:
        return named[0]
    if named:
        said = f"several tasks are named {task_name!r}: at {' and '.join(str(task.source) for task in named)}"
    else:
        said = unknown_name("task", task_name, [task.name for task in tasks])
    raise WorkflowFileError(said, SourceLine(str(module.__file__), 0))


def load_workflow(path: str | os.PathLike[str], workflow: str | None = None) -> Workflow:
    """Load a sewer file and return one of its workflows as a graph.

    :param workflow: its name; needed only where a file holds several and none is called
        ``workflow``. A file that declares none is one workflow: all its tasks.
    :raises SewerError: when the file, a task or the workflow is wrong; with file and line.
    """
    with _loaded(Path(path)) as (module, loading):
        declared = _declared_workflows(module, loading)
        if declared:
            return _recorded(declared[_chosen(workflow, list(declared), str(module.__file__))], str(module.__file__))
        return _whole_file(module, loading, workflow)


@contextmanager
def _loaded(path: Path) -> Iterator[tuple[ModuleType, Recorder]]:
    """Load a file; in the block it can still import what lies beside it."""
    file = os.path.abspath(path)
    code = _compiled(file)
    name = f"sewer_file_{hashlib.sha256(file.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"
    module = ModuleType(name)
    module.__file__ = file
    folders = dict.fromkeys(map(os.path.dirname, (file, os.path.realpath(file))))
    with hosted(module, list(folders)), recording() as recorder:
        with _as_file_error(file):
            exec(code, vars(module))
        vars(module)["__sewer_tasks__"] = [task for task, maker in recorder.tasks.items() if maker == file]
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
        raise _syntax_error(file, error) from error
    except SystemExit as error:
        raise WorkflowFileError(
            f"the file ends the program (exit {error.code!r}) while it is read; "
            "put that under if __name__ == '__main__':",
            _last_line_in(file, error),
        ) from error
    except Exception as error:
        raise WorkflowFileError(_told(file, error), _last_line_in(file, error)) from error


def _syntax_error(file: str, error: SyntaxError) -> WorkflowFileError:
    here = _last_line_in(file, error)
    if not error.filename or not os.path.isfile(error.filename):  # in text that the file compiles itself
        return WorkflowFileError(f"syntax error: {error}", here)
    imported = f" (imported at {here})" if here.line else ""
    return WorkflowFileError(f"syntax error: {error.msg}{imported}", SourceLine(error.filename, error.lineno or 0))


def _told(file: str, error: Exception) -> str:
    said = "".join(traceback.format_exception_only(type(error), error)).strip()
    place = _innermost(error)
    inside = f" (in {place})" if place and place.file != file else ""
    return f"{said}{inside}{_hint(file, error)}"


def _hint(file: str, error: Exception) -> str:
    if isinstance(error, ImportError) and error.name:
        return _import_hint(os.path.dirname(file), error.name.partition(".")[0])
    if isinstance(error, TypeError) and re.search(r"for (>>|<<): '(list|tuple)' and '(list|tuple)'", str(error)):
        return ". Python cannot tie two lists; put a task between them, or give the later tasks depends_on=[…]"
    return ""


def _import_hint(folder: str, top: str) -> str:
    if top in FORMER_NAMES:
        return (
            f". Of {top!r}, sewer files can have Task and workflow, and an installed package of that name is "
            "another one; write: from airflow_provider_sewer import Task, workflow"
        )
    if top in STANDARD_LIBRARY and os.path.exists(os.path.join(folder, f"{top}.py")):
        return f". {top!r} is a module of Python itself, which comes before your {top}.py; rename yours"
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
    made = vars(module).get("__sewer_tasks__", ())
    return list(dict.fromkeys([*made, *get_tasks_from_module(module).values()]))


def _declared_workflows(module: ModuleType, loading: Recorder) -> dict[str, FunctionType]:
    own = {name: function for (file, name), function in loading.workflows.items() if file == module.__file__}
    functions = [value for value in vars(module).values() if isinstance(value, FunctionType)]
    return {**own, **{function.__name__: function for function in functions if hasattr(function, "__sewer_workflow__")}}


def _recorded(function: Any, file: str) -> Workflow:
    name, source = function.__name__, function.__sewer_workflow__
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        said = f"workflow {name!r} is called without arguments here: {error}; give its parameters defaults"
        raise WorkflowFileError(said, source) from None
    with recording() as recorder, _as_file_error(file):
        function()
    return Workflow.of_runs(name, recorder.runs, doc=inspect.cleandoc(function.__doc__ or ""), source=source)


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
    doc = inspect.cleandoc(module.__doc__ or "")
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
