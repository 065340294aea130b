"""Base class of the decorated operators; a function returns the arguments of the module at run time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow.sdk.bases.decorator import DecoratedOperator, _TaskDecorator, is_async_callable
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_sewer.core.call import checked_kwargs, function_call
from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.source import SourceLine
from airflow_provider_sewer.hooks.sewer import mask_secrets
from airflow_provider_sewer.operators.module import PythonModuleOperator
from airflow_provider_sewer.operators.secret_fields import hide_in_mapped, rows_of
from airflow_provider_sewer.operators.secret_warnings import warn_of_secrets
from airflow_provider_sewer.operators.template_markers import MARKED, TemplateMarkers

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg
    from airflow.sdk.bases.decorator import TaskDecorator
    from airflow.sdk.definitions._internal.expandinput import ExpandInput

#: Field that stores and shows the function's return value, also where it holds arguments of a function.
_RETURNED = "parameters_and_flags"
#: Fields with markers that the function does not return.
_OWN_MARKED = [field for field in MARKED if field not in (_RETURNED, "op_kwargs")]
#: Arguments that Airflow sets from the call of the decorated function.
_SET_BY_CALL = ("op_args", "op_kwargs")


def decorator_of(
    operator: type[CalledOperator],
    python_callable: Callable[..., Any] | None,
    multiple_outputs: bool | None,
    arguments: dict[str, Any],
) -> TaskDecorator:
    """Return a decorator that creates Airflow tasks from a function.

    :param operator: operator class of these tasks.
    :param python_callable: the function, if the decorator is used without parentheses.
    :param multiple_outputs: whether each key of the module's result becomes an XCom of its own; not inferred from the
        function's return annotation, which describes the arguments.
    :param arguments: arguments of the operator.
    :raises InvalidTask: if one of them is not allowed here.
    """
    for name in _SET_BY_CALL:
        if name in arguments:
            line = _line(python_callable) if python_callable else None
            raise InvalidTask(f"{name} is not an argument of the decorator; pass it in the call of the function", line)
    if python_callable is not None and not callable(python_callable):
        raise InvalidTask(f"the decorator takes keyword arguments only, got {python_callable!r:.200}")

    def decorate(function: Callable[..., Any]) -> HidingDecorator:
        return HidingDecorator(
            function=function, multiple_outputs=bool(multiple_outputs), operator_class=operator, kwargs={**arguments}
        )

    return cast("TaskDecorator", decorate(python_callable) if python_callable else decorate)


class HidingDecorator(_TaskDecorator):  # type: ignore[type-arg]
    """Task decorator that reports and hides the secrets in the arguments of mapped operators."""

    def _expand(self, expand_input: ExpandInput, *, strict: bool) -> XComArg:
        called: Any = super()._expand(expand_input, strict=strict)
        operator = called.operator
        hide_in_mapped(operator)
        rows = [*rows_of(expand_input), operator.partial_kwargs["op_kwargs"]]
        warn_of_secrets(operator.task_id, operator.dag, operator.partial_kwargs, *({"op_kwargs": row} for row in rows))
        return cast("XComArg", called)


class CalledOperator(DecoratedOperator, PythonModuleOperator):
    """Operator that calls a Python function at run time to get the arguments of its module or function.

    :param python_callable: returns the parameters of the module, or the keyword arguments of the function.
    :param op_args: positional arguments of ``python_callable``. (templated)
    :param op_kwargs: keyword arguments of ``python_callable``. (templated)
    """

    overwrite_rtif_after_execution = True
    _returns_paths: ClassVar[bool] = True

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if _RETURNED in kwargs:
            raise InvalidTask(
                f"{_RETURNED} is not an argument of the decorator; return it from the function", _line(python_callable)
            )
        if is_async_callable(python_callable):  # type: ignore[no-untyped-call]
            raise InvalidTask(
                f"{_name(python_callable)} must not be async, as its result is needed before anything starts; use def",
                _line(python_callable),
            )
        self._returned_markers: TemplateMarkers | None = None
        super().__init__(python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, **kwargs)
        # Here, as in Airflow, op_kwargs are arguments of python_callable, not of the external function.
        self.op_kwargs = op_kwargs or {}
        warn_of_secrets(self.task_id, self._dag, {"args": op_args, "op_kwargs": op_kwargs})

    def _call(self, context: Context) -> None:
        """Call the function and store its return value, in which nothing is a template.

        :raises AirflowFailException: if the value is not a mapping.
        """
        known: Any = {**context, **self.op_kwargs}
        returned = self.python_callable(*self.op_args, **self.determine_kwargs(known))
        if not isinstance(returned, Mapping):
            value = "None" if returned is None else f"a {type(returned).__name__}"
            raise AirflowFailException(
                f"{_name(self.python_callable)} must return the arguments of {self.module or self.function} as a dict, "
                f"got {value} ({_line(self.python_callable)}); return {{}} if there are no arguments"
            )
        if self.function is not None:
            self._check_kwargs(returned)
        self._store_returned(returned)

    def _check_kwargs(self, returned: Mapping[str, Any]) -> None:
        """Check that the arguments can be written as JSON, before they are stored and shown.

        :raises AirflowFailException: naming the argument that cannot.
        """
        try:
            function_call("", checked_kwargs(TemplateMarkers().extract(dict(returned), _RETURNED)))
        except InvalidTask as error:
            raise AirflowFailException(f"task {self.task_id!r}: {error}") from None

    def _store_returned(self, returned: Mapping[str, Any]) -> None:
        """Store the function's return value and the markers in it."""
        self._returned_markers = TemplateMarkers()
        self.parameters_and_flags = self._returned_markers.extract(dict(returned), _RETURNED)
        mask_secrets(self._secrets_in_fields())

    @property
    def _has_called(self) -> bool:
        """Return whether the function's return value is known."""
        return self._returned_markers is not None

    def _marked_fields(self, names: Iterable[str] = _OWN_MARKED) -> dict[str, Any]:
        fields = super()._marked_fields(names)
        if self._returned_markers is not None:
            field = _RETURNED if self.function is None else "kwargs"
            fields[field] = self._returned_markers.restore(self.parameters_and_flags, _RETURNED)
        return fields


def _name(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__name__', repr(function))}()"


def _line(function: Callable[..., Any]) -> SourceLine | None:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return SourceLine(code.co_filename, code.co_firstlineno) if code else None
