"""Decorator ``@task``: calls of a function of an importable module create tasks."""

from __future__ import annotations

import functools
import inspect
import json
import os
from types import FunctionType
from typing import TYPE_CHECKING, Any, Callable, Union, overload

from airflow_provider_sewer.core.annotations import Annotation, annotated, annotations_of
from airflow_provider_sewer.core.environment import ATTEMPT_ID
from airflow_provider_sewer.core.errors import InvalidTask, unknown_name
from airflow_provider_sewer.core.execution_settings import checked_path, resolve_relative
from airflow_provider_sewer.core.mapping import MappedTask, checked_values, mapped_task
from airflow_provider_sewer.core.paths import PathMarker
from airflow_provider_sewer.core.placeholders import Ignored, Result
from airflow_provider_sewer.core.recording import automatic_name, is_recording
from airflow_provider_sewer.core.source import SourceLine, calling_line
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.core.task_fields import FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from inspect import Parameter

#: Fields that the call sets, and fields of modules.
_NOT_FOR_A_FUNCTION = {"module", "parameters_and_flags", "use_underscores", "args", "function", "kwargs"}

_Function = Callable[..., Any]


@overload
def task(function: _Function, /) -> TaskFunction: ...
@overload
def task(name: str | None = None, **fields: Any) -> Callable[[_Function], TaskFunction]: ...
def task(
    function: Union[_Function, str, None] = None, /, *, name: str | None = None, **fields: Any
) -> Union[TaskFunction, Callable[[_Function], TaskFunction]]:
    """Make calls of a function create tasks that call it.

    Written ``@task``, ``@task("name")``, or ``@task(name=…, python=…, run_when=…)``. Annotations of the function's
    parameters mark paths of products and dependencies: ``Annotated[Path, Product]``.

    In the processes of a task, and in their children, the function stays a plain function. Only a workflow file that
    is loaded there creates tasks.

    :param name: the name of its tasks; by default, the function's.
    :param fields: any other field of a :class:`~airflow_provider_sewer.core.task.Task`, for all its tasks.
    :raises InvalidTask: when a field is unknown, or the decorated object is not a function.
    """
    if callable(function):
        return _decorated(function, None, {})
    if function is not None and name is not None:
        message = f"@task must have at most one name, got {function!r:.200} and {name!r:.200}"
        raise InvalidTask(message, calling_line())
    given = function if function is not None else name
    checked = _checked_fields(fields, calling_line())
    return lambda function: _decorated(function, given, checked)


class TaskFunction:
    """Function whose calls create tasks.

    :param function: the plain function.
    :param name: the name of its tasks.
    :param fields: further fields of all its tasks.
    :param fixed: default keyword arguments of every call.
    """

    def __init__(
        self, function: FunctionType, name: str, fields: Mapping[str, Any], fixed: Mapping[str, Any] | None = None
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self._name = name
        self._fields = fields
        self._fixed = dict(fixed or {})
        self._signature = inspect.signature(function)
        self._known_marks: Mapping[str, Annotation] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Task:
        """Return the task that calls the function with these arguments.

        Two calls with equal arguments are one task; different tasks of one workflow are numbered.

        :raises InvalidTask: when the function takes other arguments, or cannot be imported by an interpreter.
        """
        task = self._task(self._kwargs(args, kwargs))
        task.name = automatic_name(task.name, json.dumps(task.signature(), default=repr))
        return task

    def partial(self, **fixed: Any) -> TaskFunction:
        """Return this function with some of its arguments set.

        :param fixed: default keyword arguments of every call.
        """
        return TaskFunction(self.function, self._name, self._fields, {**self._fixed, **fixed})

    def map(self, **values: Any) -> MappedTask:
        """Map the function over values: one task for each, and several lists in parallel like ``zip``.

        :param values: a list of values for each argument that differs; set the others with :meth:`partial`.
        :raises InvalidTask: also when the lists are of different lengths.
        """
        return self._mapped(values, each_with_each=False)

    def map_product(self, **values: Any) -> MappedTask:
        """Map the function over each combination of values.

        :param values: as for :meth:`map`.
        """
        return self._mapped(values, each_with_each=True)

    def _mapped(self, values: Mapping[str, Any], *, each_with_each: bool) -> MappedTask:
        several = checked_values(values, self._name)
        first = {name: each if isinstance(each, Result) else each[0] for name, each in several.items()}
        kwargs = self._kwargs((), first)
        for name, each in several.items():
            if not isinstance(each, Result):
                several[name] = [self._marked(name, value) for value in each]
        template = self._task({name: value for name, value in kwargs.items() if name not in several})
        return mapped_task(template, several, each_with_each=each_with_each)

    def _task(self, kwargs: Mapping[str, Any]) -> Task:
        function = f"{self._home()}:{self.function.__qualname__}"
        return Task(self._name, function=function, kwargs=kwargs, **self._fields)

    def _kwargs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return all arguments by name, marked according to the annotations."""
        try:
            bound = self._signature.bind(*args, **{**self._fixed, **kwargs}).arguments
        except TypeError as error:
            raise self._error(f"{error}; it takes {self._takes()}") from None
        marks = self._marks()
        given: dict[str, Any] = {}
        for name, parameter in self._signature.parameters.items():
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL) and name in bound:
                raise self._error(
                    f"arguments are passed by name, and {name!r} has none; in the function, "
                    f"{'remove the /' if parameter.kind is parameter.POSITIONAL_ONLY else 'write a list for it'}"
                )
            if parameter.kind is parameter.VAR_KEYWORD:
                given.update(bound.get(name, {}))
            elif name in bound or _counts(parameter, is_marked=name in marks):
                given[name] = bound.get(name, parameter.default)
        for name, value in given.items():
            if isinstance(value, (Task, MappedTask)):
                raise self._error(f"{name!r} must not be a task; pass its result as {value.name}.result")
        return {name: self._marked(name, value) for name, value in given.items()}

    def _marked(self, name: str, value: Any) -> Any:
        """Return an argument marked like its parameter; the mark of ``**more`` applies to all arguments in it."""
        parameters = self._signature.parameters.values()
        rest = next((each.name for each in parameters if each.kind is each.VAR_KEYWORD), None)
        mark = self._marks().get(name if name in self._signature.parameters else str(rest))
        try:
            return value if mark is None else annotated(mark, value)
        except InvalidTask as error:
            separator = " " if str(error).startswith("must ") else ": "
            raise self._error(f"{name!r}{separator}{error}") from None

    def _marks(self) -> Mapping[str, Annotation]:
        if self._known_marks is None:  # only now, as annotations can use names that are defined below the function
            self._known_marks = annotations_of(self.function, self._defined)
        return self._known_marks

    def _home(self) -> str:
        """Return the module from which any interpreter can import the function."""
        function = self.function
        if "<lambda>" in function.__qualname__:
            reason = "is a lambda"
        elif "<locals>" in function.__qualname__:
            reason = "is defined in another function"
        elif not _is_found_by_name(function):
            reason = "is defined in the file that is being run or read as a workflow"
        else:
            return function.__module__
        name = "your_function" if "<lambda>" in function.__qualname__ else function.__name__
        raise self._error(
            f"the function {reason} ({self._defined}), where no interpreter can import it; move it to the top level of "
            f"a module beside, such as steps.py, and write here: from steps import {name}"
        )

    @property
    def _defined(self) -> SourceLine:
        code = inspect.unwrap(self.function).__code__
        return SourceLine(code.co_filename, code.co_firstlineno)

    def _takes(self) -> str:
        takes = [str(each.replace(annotation=each.empty)) for each in self._signature.parameters.values()]
        return f"({', '.join(takes)})"

    def _error(self, message: str) -> InvalidTask:
        return InvalidTask(f"{self.function.__name__}(…): {message}", calling_line())

    def __repr__(self) -> str:
        return f"<task {self.function.__module__}:{self.function.__qualname__}>"


def _decorated(function: Any, name: str | None, fields: Mapping[str, Any]) -> TaskFunction:
    if not isinstance(function, FunctionType):
        raise InvalidTask(f"@task must decorate a function, got {function!r:.200}", calling_line())
    if ATTEMPT_ID in os.environ and not is_recording():
        return _itself(function)  # type: ignore[no-any-return]  # a plain function with the same call
    doc = {"doc": inspect.cleandoc(function.__doc__ or ""), **fields}
    return TaskFunction(function, function.__name__ if name is None else name, doc)


def _itself(function: Any) -> Any:
    """Return a plain function for the processes of a task, with the public attributes of :class:`TaskFunction`."""
    function.function = function
    function.partial = functools.partial(functools.partial, function)
    return function


def _checked_fields(fields: Mapping[str, Any], where: SourceLine) -> dict[str, Any]:
    """Return the fields, with relative paths resolved against the folder of the file."""
    known = [field for field in FIELDS if field not in _NOT_FOR_A_FUNCTION]
    for field in fields:
        if field not in known:
            raise InvalidTask(f"@task: {unknown_name('field', field, known)}", where)
    checked = dict(fields)
    try:
        if "workdir" in checked:
            checked["workdir"] = checked_path("workdir", checked["workdir"], where.folder)
        if "python" in checked:
            python = checked_path("python", checked["python"], "")
            checked["python"] = resolve_relative(where.folder, python) if python and os.sep in python else python
    except InvalidTask as error:
        raise InvalidTask(f"@task: {error}", where) from None
    return checked


def _counts(parameter: Parameter, *, is_marked: bool) -> bool:
    """Return whether to pass on a default; a default that JSON changes is left to the function itself."""
    if parameter.default is parameter.empty:
        return False
    try:
        if is_marked or isinstance(parameter.default, (PathMarker, Ignored)):
            return True
        return bool(json.loads(json.dumps(parameter.default, allow_nan=False)) == parameter.default)
    except (TypeError, ValueError, RecursionError):
        return False


def _is_found_by_name(function: FunctionType) -> bool:
    """Return whether the file of a function has the name of its module, and was imported under it."""
    module = function.__globals__
    if module.get("__spec__") is None or function.__module__ in ("__main__", "__mp_main__"):
        return False
    folder, file = os.path.split(str(module.get("__file__", "")))
    stem = os.path.splitext(file)[0]
    return function.__module__.rpartition(".")[2] == (os.path.basename(folder) if stem == "__init__" else stem)
