"""Task decorator ``@task.python_module``, which runs a module in an external interpreter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.bases.decorator import DecoratedOperator

from airflow_provider_sewer.decorators.called_operator import CalledOperator, decorator_of
from airflow_provider_sewer.operators.module import PythonModuleOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.sdk import Context
    from airflow.sdk.bases.decorator import TaskDecorator


class PythonModuleDecoratedOperator(CalledOperator):
    """Operator that runs a module or function with arguments returned by a Python function."""

    custom_operator_name = "@task.python_module"
    template_fields: Sequence[str] = tuple(
        dict.fromkeys([*DecoratedOperator.template_fields, *PythonModuleOperator.template_fields])
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **PythonModuleOperator.template_fields_renderers,
        **DecoratedOperator.template_fields_renderers,
    }

    def execute(self, context: Context) -> Any:
        """Call the function, and run the module with the returned arguments.

        :raises SewerError: when the module cannot be run, fails, or is terminated.
        """
        self._call(context)
        return super().execute(context)


def python_module_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """Create an Airflow task from a function that returns a module's arguments: ``@task.python_module(module=…)``.

    At run time Airflow's own Python calls the function on the worker, with its arguments and the context variables it
    names. It returns the parameters and flags of the module, or with ``function=`` the keyword arguments of that
    function. The values are data: templates in them are not rendered. ``Product`` and the other markers work as in a
    task. Products are not outlets, as they are known only at run time.

    :param python_callable: the function.
    :param multiple_outputs: whether each key of the module's result also becomes an XCom of its own.
    :param kwargs: all arguments of :class:`~airflow_provider_sewer.operators.module.PythonModuleOperator` but
        ``parameters_and_flags`` and ``op_kwargs``.
    """
    return decorator_of(PythonModuleDecoratedOperator, python_callable, multiple_outputs, kwargs)
