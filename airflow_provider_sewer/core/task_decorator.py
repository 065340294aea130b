"""``@task``: a plain function of an importable module → what makes a task of each call of it."""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any, Callable, Union, overload

from airflow_provider_sewer.core.annotations import Annotation, annotated, annotations_of
from airflow_provider_sewer.core.environment import ATTEMPT_ID
from airflow_provider_sewer.core.errors import InvalidTask, unknown_name
from airflow_provider_sewer.core.execution_settings import checked_path, resolve_relative
from airflow_provider_sewer.core.mapping import MappedTask, checked_values, mapped_task
from airflow_provider_sewer.core.paths import PathMarker
from airflow_provider_sewer.core.recording import automatic_name, is_recording
from airflow_provider_sewer.core.source import SourceLine, calling_line
from airflow_provider_sewer.core.task import FIELDS, Task
from airflow_provider_sewer.core.values import Ignored, Result

if TYPE_CHECKING:
    from inspect import Parameter

#: What the call says, and so not the decorator; and what is a module's.
_NOT_FOR_A_FUNCTION = {"module", "parameters_and_flags", "use_underscores", "args", "function", "kwargs"}

_Function = Callable[..., Any]


@overload
def task(function: _Function, /) -> TaskFunction: ...
@overload
def task(name: str | None = None, **fields: Any) -> Callable[[_Function], TaskFunction]: ...
def task(
    function: Union[_Function, str, None] = None, /, *, name: str | None = None, **fields: Any
) -> Union[TaskFunction, Callable[[_Function], TaskFunction]]:
    """Have calls of a function make tasks that call it.

    Written ``@task``, ``@task("name")``, or ``@task(name=…, python=…, run_when=…)``. What of the function's parameters
    are paths of products and dependencies is read from its annotations: ``Annotated[Path, Product]``.

    In the processes of a task, and in those that they start, the function stays what it is, to be called by whoever
    likes. Only a workflow file that is read there has tasks all the same.

    :param name: the name of its tasks; the function's, if not said.
    :param fields: any other field of a :class:`~airflow_provider_sewer.core.task.Task`, for all its tasks.
    :raises InvalidTask: when there is no such field, or it stands above anything but a function.
    """
    if callable(function):
        return _decorated(function, None, {})
    if function is not None and name is not None:
        raise InvalidTask(f"@task: two names are given, {function!r} and {name!r}", calling_line())
    said = function if function is not None else name
    checked = _checked_fields(fields, calling_line())
    return lambda function: _decorated(function, said, checked)


class TaskFunction:
    """A function whose calls make tasks.

    :param function: the function itself, to be called plainly.
    :param name: the name of its tasks.
    :param fields: what else all its tasks say.
    :param fixed: keyword arguments of every call that does not give them.
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
        """Make the task that calls the function with these arguments.

        Two calls with equal arguments are one task; those of one workflow that differ are numbered.

        :raises InvalidTask: when the function takes other arguments, or no interpreter could import it.
        """
        task = self._task(self._kwargs(args, kwargs))
        task.name = automatic_name(task.name, json.dumps(task.signature(), default=repr))
        return task

    def partial(self, **fixed: Any) -> TaskFunction:
        """Return this function with some of its arguments given.

        :param fixed: keyword arguments of every call that does not give them.
        """
        return TaskFunction(self.function, self._name, self._fields, {**self._fixed, **fixed})

    def map(self, **values: Any) -> MappedTask:
        """Make one task for each value; several lists go side by side.

        :param values: a list of values for each argument that differs; the others are given with :meth:`partial`.
        :raises InvalidTask: also when the lists are of different lengths.
        """
        return self._mapped(values, each_with_each=False)

    def map_product(self, **values: Any) -> MappedTask:
        """Make one task for each combination of values.

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
        """Return all arguments by name, marked as the annotations say."""
        try:
            bound = self._signature.bind(*args, **{**self._fixed, **kwargs}).arguments
        except TypeError as error:
            raise self._refused(f"{error}; it takes {self._takes()}") from None
        marks = self._marks()
        given: dict[str, Any] = {}
        for name, parameter in self._signature.parameters.items():
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL) and name in bound:
                raise self._refused(
                    f"{name!r} has no name to give it by, and arguments are passed by name; in the function, "
                    f"{'take the / out' if parameter.kind is parameter.POSITIONAL_ONLY else 'write a list for it'}"
                )
            if parameter.kind is parameter.VAR_KEYWORD:
                given.update(bound.get(name, {}))
            elif name in bound or _counts(parameter, is_marked=name in marks):
                given[name] = bound.get(name, parameter.default)
        for name, value in given.items():
            if isinstance(value, (Task, MappedTask)):
                raise self._refused(f"{name!r} is a task; what it leaves is given as {value.name}.result")
        return {name: self._marked(name, value) for name, value in given.items()}

    def _marked(self, name: str, value: Any) -> Any:
        """Return an argument as its parameter is marked; ``**more`` says it of all that go there."""
        parameters = self._signature.parameters.values()
        of_the_rest = next((each.name for each in parameters if each.kind is each.VAR_KEYWORD), None)
        mark = self._marks().get(name if name in self._signature.parameters else str(of_the_rest))
        try:
            return value if mark is None else annotated(mark, value)
        except InvalidTask as error:
            raise self._refused(f"{name!r}: {error}") from None

    def _marks(self) -> Mapping[str, Annotation]:
        if self._known_marks is None:  # not before: what it names may be defined only below it
            self._known_marks = annotations_of(self.function, self._defined)
        return self._known_marks

    def _home(self) -> str:
        """Return the module that any interpreter can import the function from."""
        function = self.function
        if "<lambda>" in function.__qualname__:
            why = "is a lambda"
        elif "<locals>" in function.__qualname__:
            why = "is defined in another function"
        elif not _is_found_by_name(function):
            why = "is defined in the file that is being run or read as a workflow"
        else:
            return function.__module__
        name = "your_function" if "<lambda>" in function.__qualname__ else function.__name__
        raise self._refused(
            f"the function {why} ({self._defined}), and so no interpreter can import it; move it to the top level of a "
            f"module beside, such as steps.py, and write here: from steps import {name}"
        )

    @property
    def _defined(self) -> SourceLine:
        code = inspect.unwrap(self.function).__code__
        return SourceLine(code.co_filename, code.co_firstlineno)

    def _takes(self) -> str:
        takes = [str(each.replace(annotation=each.empty)) for each in self._signature.parameters.values()]
        return f"({', '.join(takes)})"

    def _refused(self, why: str) -> InvalidTask:
        return InvalidTask(f"{self.function.__name__}(…): {why}", calling_line())

    def __repr__(self) -> str:
        return f"<task {self.function.__module__}:{self.function.__qualname__}>"


def _decorated(function: Any, name: str | None, fields: Mapping[str, Any]) -> TaskFunction:
    if not isinstance(function, FunctionType):
        raise InvalidTask(f"@task stands above a function; {function!r} is none", calling_line())
    if ATTEMPT_ID in os.environ and not is_recording():
        return _itself(function)  # type: ignore[no-any-return]  # stands in for one, and is called like any
    doc = {"doc": inspect.cleandoc(function.__doc__ or ""), **fields}
    return TaskFunction(function, function.__name__ if name is None else name, doc)


def _itself(function: Any) -> Any:
    """Return a function as it is where a task runs, with what people use of a :class:`TaskFunction` there."""
    function.function = function
    function.partial = functools.partial(functools.partial, function)
    return function


def _checked_fields(fields: Mapping[str, Any], where: SourceLine) -> dict[str, Any]:
    """Return the fields, with paths taken from the file that they are written in."""
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
    """Tell whether a default is passed on: one that JSON changes is left to the function itself."""
    if parameter.default is parameter.empty:
        return False
    try:
        if is_marked or isinstance(parameter.default, (PathMarker, Ignored)):
            return True
        return bool(json.loads(json.dumps(parameter.default, allow_nan=False)) == parameter.default)
    except (TypeError, ValueError, RecursionError):
        return False


def _is_found_by_name(function: FunctionType) -> bool:
    """Tell whether the file of a function has the name of its module, and was imported under that."""
    around = function.__globals__
    if around.get("__spec__") is None or function.__module__ in ("__main__", "__mp_main__"):
        return False
    folder, file = os.path.split(str(around.get("__file__", "")))
    stem = os.path.splitext(file)[0]
    return function.__module__.rpartition(".")[2] == (os.path.basename(folder) if stem == "__init__" else stem)
