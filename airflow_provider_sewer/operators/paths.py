"""What paths need besides the tasks of a workflow: to be waited for, and to be removed when nobody needs them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, BaseSensorOperator, conf
from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.exceptions import AirflowSensorTimeout

from airflow_provider_sewer.core.paths import Product, checked_text, located
from airflow_provider_sewer.core.settings import Settings
from airflow_provider_sewer.hooks.sewer import SewerHook
from airflow_provider_sewer.operators.in_process import interruptible
from airflow_provider_sewer.operators.module import supervisor
from airflow_provider_sewer.operators.overlaps import remove_unclaimed
from airflow_provider_sewer.operators.templates import TemplateFields
from airflow_provider_sewer.triggers.path import PathTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Seconds between two looks for a path.
_LOOK = 15.0


class ExternalPathSensor(TemplateFields, BaseSensorOperator):
    """Wait until a file or directory is there.

    :param path: the path; a relative one is taken from the working directory. (templated)
    :param arguments: values that the other fields name as ``{{ task.arguments['name'] }}``; filled in first.
        (templated)
    :param workdir: the working directory; the connection's if not said. (templated)
    :param sewer_conn_id: a ``sewer`` connection for what is not said here. (templated)
    :param item: where it is mapped over the result of a task of a workflow: the item that this instance is for.
    :param deferrable: wait in the triggerer, which has to see the path too; Airflow's ``operators.default_deferrable``
        if not said.
    """

    template_fields: Sequence[str] = ("arguments", "path", "workdir", "sewer_conn_id")
    ui_color = "#dcd6ea"

    def __init__(
        self,
        *,
        path: str | os.PathLike[str] | ResolveMixin,
        arguments: Mapping[str, Any] | None = None,
        workdir: str | None = None,
        sewer_conn_id: str | None = None,
        item: Any = None,
        deferrable: bool | None = None,
        poke_interval: float = _LOOK,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.path = _text(path)
        self.arguments = arguments
        self.workdir = workdir
        self.sewer_conn_id = sewer_conn_id
        self.item = item
        self.deferrable = deferrable

    def poke(self, context: Context) -> bool:
        """Tell whether it is there."""
        file = self._file(context)
        self.log.info("Looking for %s", file)
        return os.path.exists(file)

    def execute(self, context: Context) -> Any:
        """Wait for it, here or in the triggerer."""
        with interruptible(context, is_supervised=supervisor() is not None):
            if self._is_deferrable() and not self.poke(context):
                trigger = PathTrigger(self._file(context), self.poke_interval, time.time() + self.timeout)
                self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))
            return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> None:  # noqa: ARG002 - Airflow's signature
        """Say that it is there.

        :raises AirflowSensorTimeout: when it has not come in time.
        """
        if not event["is_there"]:
            raise AirflowSensorTimeout(f"{event['path']} has not come in {self.timeout:g} s")
        self.log.info("%s is there", event["path"])

    def _is_deferrable(self) -> bool:
        if self.deferrable is None:
            return bool(conf.getboolean("operators", "default_deferrable", fallback=False))
        return self.deferrable

    def _file(self, context: Context) -> str:
        return located(checked_text("path", self.path, may_be_template=False), _workdir(self, context))


class RemoveProductsOperator(TemplateFields, BaseOperator):
    """Remove temporary products once all tasks that use them have succeeded.

    :param products: their paths; relative ones are taken from the working directory. (templated)
    :param arguments: values that the other fields name as ``{{ task.arguments['name'] }}``; filled in first.
        (templated)
    :param workdir: the working directory; the connection's if not said. (templated)
    :param sewer_conn_id: a ``sewer`` connection for what is not said here. (templated)
    :param made_by: id of the task that makes them; any task of the DAG run by default. A product is left while another
        task or DAG run uses it: one that has made it or found it up to date, and has not ended.
    """

    template_fields: Sequence[str] = ("arguments", "products", "workdir", "sewer_conn_id")
    ui_color = "#e6dccf"

    def __init__(
        self,
        *,
        products: Iterable[str | os.PathLike[str]] | ResolveMixin,
        arguments: Mapping[str, Any] | None = None,
        workdir: str | None = None,
        sewer_conn_id: str | None = None,
        made_by: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.made_by = made_by
        self.products: Any = products if isinstance(products, ResolveMixin) else list(map(_text, products))
        self.arguments = arguments
        self.workdir = workdir
        self.sewer_conn_id = sewer_conn_id

    def execute(self, context: Context) -> None:
        """Remove what a task has made whole; anything else at these paths is left alone.

        A product that another DAG run uses is left to that run.

        :raises ProductError: when that cannot be done.
        """
        workdir = _workdir(self, context)
        for path in self.products:
            product = Product(checked_text("products", path, may_be_template=False))
            self.log.info("%s", remove_unclaimed(product, workdir, self.made_by, context))


def _text(path: Any) -> Any:
    """Return a path as text, in which Airflow fills in templates; a reference stays."""
    return path if isinstance(path, ResolveMixin) else os.fspath(path)


def _workdir(operator: ExternalPathSensor | RemoveProductsOperator, context: Context) -> str | None:
    folder = os.path.dirname(os.path.abspath(str(context["dag"].fileloc)))
    own = Settings.checked(workdir=operator.workdir, folder=folder)
    hook = SewerHook(operator.sewer_conn_id) if operator.sewer_conn_id else None
    return own.over(hook.settings).workdir if hook else own.workdir
