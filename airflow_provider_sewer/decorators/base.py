"""What the decorators share: a function is called when the task runs, and says what the module is called with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk.bases.decorator import DecoratedOperator, _TaskDecorator, is_async_callable
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_sewer.core.call import checked_kwargs, function_call
from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.source import SourceLine
from airflow_provider_sewer.operators.module import PythonModuleOperator, warn_of_secrets
from airflow_provider_sewer.operators.secret_fields import hide_in_mapped, rows_of
from airflow_provider_sewer.operators.template_markers import TemplateMarkers

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg
    from airflow.sdk.bases.decorator import TaskDecorator
    from airflow.sdk.definitions._internal.expandinput import ExpandInput

#: Where what the function returns is kept and shown, be it for a module or for a function.
_RETURNED = "parameters_and_flags"
#: What Airflow takes for the arguments of the function where it is called.
_OF_THE_CALL = ("op_args", "op_kwargs")


def decorator_of(
    operator: type[CalledOperator],
    python_callable: Callable[..., Any] | None,
    multiple_outputs: bool | None,
    arguments: dict[str, Any],
) -> TaskDecorator:
    """Return what makes Airflow tasks of a function.

    :param operator: the class of these tasks.
    :param python_callable: the function, if the decorator stands there without brackets.
    :param multiple_outputs: whether each key of the module's result becomes an XCom of its own; what the function's
        annotation says of its own result is no answer to that.
    :param arguments: arguments of the operator.
    :raises InvalidTask: when one of them is not to be said here.
    """
    for name in _OF_THE_CALL:
        if name in arguments:
            line = _line(python_callable) if python_callable else None
            raise InvalidTask(f"{name}: the function is given its own where it is called; take the argument out", line)
    if python_callable is not None and not callable(python_callable):
        raise InvalidTask(f"the decorator takes keyword arguments only, got {python_callable!r:.200}")

    def decorate(function: Callable[..., Any]) -> HidingDecorator:
        return HidingDecorator(
            function=function, multiple_outputs=bool(multiple_outputs), operator_class=operator, kwargs={**arguments}
        )

    return cast("TaskDecorator", decorate(python_callable) if python_callable else decorate)


class HidingDecorator(_TaskDecorator):  # type: ignore[type-arg]
    """Makes operators of a function; of one that is mapped, it names and hides the secrets in its arguments."""

    def _expand(self, expand_input: ExpandInput, *, strict: bool) -> XComArg:
        called: Any = super()._expand(expand_input, strict=strict)
        operator = called.operator
        hide_in_mapped(operator)
        rows = [*rows_of(expand_input), operator.partial_kwargs["op_kwargs"]]
        warn_of_secrets(operator.task_id, operator.dag, operator.partial_kwargs, *({"op_kwargs": row} for row in rows))
        return cast("XComArg", called)


class CalledOperator(DecoratedOperator, PythonModuleOperator):
    """Takes what its module or function is called with from a Python function, which it calls when the task runs.

    :param python_callable: returns the parameters of the module, or the keyword arguments of the function.
    :param op_args: its own positional arguments. (templated)
    :param op_kwargs: its own keyword arguments. (templated)
    """

    overwrite_rtif_after_execution = True

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if _RETURNED in kwargs:
            raise InvalidTask(f"{_RETURNED}: the function returns them; take the argument out", _line(python_callable))
        if is_async_callable(python_callable):  # type: ignore[no-untyped-call]
            raise InvalidTask(
                f"{_name(python_callable)} is async, and what it returns is needed before anything is started; write "
                "def without async",
                _line(python_callable),
            )
        self._marks_in_returned: TemplateMarkers | None = None
        super().__init__(python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, **kwargs)
        # The name has two meanings: to Airflow these are arguments of the function that is called here.
        self.op_kwargs = op_kwargs or {}
        warn_of_secrets(self.task_id, self._dag, {"args": op_args, "op_kwargs": op_kwargs})

    def _call(self, context: Context) -> None:
        """Call the function, and keep its return value, in which nothing is a template.

        :raises AirflowFailException: when that is no mapping.
        """
        known: Any = {**context, **self.op_kwargs}
        returned = self.python_callable(*self.op_args, **self.determine_kwargs(known))
        if not isinstance(returned, Mapping):
            said = "nothing" if returned is None else f"a {type(returned).__name__}"
            raise AirflowFailException(
                f"{_name(self.python_callable)} returned {said} ({_line(self.python_callable)}); it has to return what "
                f"{self.module or self.function} is called with, as a dict: {{}} if that is nothing"
            )
        if self.function is not None:
            self._check_kwargs(returned)
        self._take(returned)

    def _check_kwargs(self, returned: Mapping[str, Any]) -> None:
        """Name what is no JSON before it is kept: Airflow could not show it either.

        :raises AirflowFailException: naming it.
        """
        try:
            function_call("", checked_kwargs(TemplateMarkers().extract(dict(returned), _RETURNED)))
        except InvalidTask as error:
            raise AirflowFailException(f"task {self.task_id!r}: {error}") from None

    def _take(self, returned: Mapping[str, Any]) -> None:
        """Keep what the function has returned, and what is marked in it."""
        self._marks_in_returned = TemplateMarkers()
        self.parameters_and_flags = self._marks_in_returned.extract(dict(returned), _RETURNED)
        self._mask_fields()

    @property
    def _has_called(self) -> bool:
        """Tell whether it is known what the function returns."""
        return self._marks_in_returned is not None

    def _called_with(self) -> dict[str, Any]:
        if self._marks_in_returned is None:
            return {}
        field = _RETURNED if self.function is None else "kwargs"
        return {field: self._marks_in_returned.restore(self.parameters_and_flags, _RETURNED)}

    def _can_have_products(self) -> bool:
        return True


def _name(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__name__', repr(function))}()"


def _line(function: Callable[..., Any]) -> SourceLine | None:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return SourceLine(code.co_filename, code.co_firstlineno) if code else None
