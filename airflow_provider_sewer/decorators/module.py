"""``@task.python_module``: a function returns what a module is called with in an external interpreter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.bases.decorator import DecoratedOperator

from airflow_provider_sewer.decorators.base import CalledOperator, decorator_of
from airflow_provider_sewer.operators.module import PythonModuleOperator

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.bases.decorator import TaskDecorator


class PythonModuleDecoratedOperator(CalledOperator):
    """Runs a module or a function with what a Python function returns."""

    custom_operator_name = "@task.python_module"
    template_fields: Sequence[str] = tuple(
        dict.fromkeys([*DecoratedOperator.template_fields, *PythonModuleOperator.template_fields])
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **PythonModuleOperator.template_fields_renderers,
        **DecoratedOperator.template_fields_renderers,
    }

    def execute(self, context: Context) -> Any:
        """Call the function, and run the module with what it returns.

        :raises SewerError: when it cannot be run, fails, or is stopped.
        """
        self._call(context)
        return super().execute(context)


def python_module_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """Make an Airflow task of a function that returns what a module is called with: ``@task.python_module(module=…)``.

    When the task runs, the function is called by Airflow's own Python, on the worker, with its arguments and the
    context variables it names. What it returns are the parameters and flags of the module, or with ``function=`` the
    keyword arguments of that function. The values are data: no template in them is filled in. ``Product`` and the like
    count as in a task; but as they are known only then, they are no outlets.

    :param python_callable: the function.
    :param multiple_outputs: whether each key of the module's result becomes an XCom of its own as well.
    :param kwargs: all arguments of :class:`~airflow_provider_sewer.operators.module.PythonModuleOperator` but
        ``parameters_and_flags`` and ``op_kwargs``.
    """
    return decorator_of(PythonModuleDecoratedOperator, python_callable, multiple_outputs, kwargs)
