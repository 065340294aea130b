"""What paths need besides the tasks of a workflow: to be waited for, and to be removed when nobody needs them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, BaseSensorOperator, conf
from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.exceptions import AirflowSensorTimeout

from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.formats import PATH_EVENT
from airflow_provider_sewer.core.paths import Product, absolute_path, checked_text, is_relative
from airflow_provider_sewer.hooks.sewer import SewerHook
from airflow_provider_sewer.operators.dag_test_signals import interruptible
from airflow_provider_sewer.operators.module import supervisor
from airflow_provider_sewer.operators.overlapping_runs import remove_unclaimed
from airflow_provider_sewer.operators.template_fields import TemplateFields
from airflow_provider_sewer.operators.workdir_warning import warn_without_workdir
from airflow_provider_sewer.triggers.path import PathTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Seconds between two looks for a path; longer where each look takes a process of its own.
_LOOK, _LOOK_IN_OWN_PROCESS = 15.0, 60.0
#: The fewest seconds for which a worker gives a task away: Airflow's scheduler takes a task for failed that is queued
#: again before it has noticed that the worker is done.
_SHORTEST_ABSENCE = 10.0


class ExternalPathSensor(TemplateFields, BaseSensorOperator):
    """Wait until a file or directory is there.

    The wait takes no worker slot: between two looks the task is rescheduled, or it is deferred to the triggerer. A wait
    with a timeout of less than ten seconds stays on its worker.

    :param path: the path; a relative one is taken from the working directory. (templated)
    :param arguments: values that the other fields name as ``{{ task.arguments['name'] }}``; filled in first.
        (templated)
    :param workdir: the working directory; the connection's if not said. (templated)
    :param sewer_conn_id: a ``sewer`` connection for what is not said here. (templated)
    :param item: where it is mapped over the result of a task of a workflow: the item that this instance is for.
    :param deferrable: wait in the triggerer, which has to see the path too; Airflow's ``operators.default_deferrable``
        if not said.
    :param mode: where it is not deferred, ``"reschedule"``, or ``"poke"`` to keep the worker slot.
    :param poke_interval: seconds, or a timedelta, between two looks; by default 60 in mode ``"reschedule"``, else 15.
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
        mode: str = "reschedule",
        poke_interval: float | timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        self.deferrable = deferrable
        if poke_interval is None:
            poke_interval = _LOOK_IN_OWN_PROCESS if mode == "reschedule" and not self._is_deferrable() else _LOOK
        super().__init__(mode=mode, poke_interval=poke_interval, **kwargs)
        if self.timeout < _SHORTEST_ABSENCE:
            self.mode = "poke"
        self.path = _text("path", path)
        self.arguments = arguments
        self.workdir = workdir
        self.sewer_conn_id = sewer_conn_id
        self.item = item
        warn_without_workdir(self, [self.path])

    def poke(self, context: Context) -> bool:
        """Tell whether it is there."""
        file = self._file(context)
        self.log.info("Looking for %s", file)
        return os.path.exists(file)

    def execute(self, context: Context) -> Any:
        """Wait for it, here or in the triggerer.

        :raises AirflowSensorTimeout: when it has not come in time.
        """
        with interruptible(context, is_supervised=supervisor() is not None):
            file, since, deadline = self._file(context), *self._begin_and_deadline(context)
            self.log.info("Waiting for %s since %s until %s", file, since, deadline)
            if is_relative(self.path):
                self.log.info("The relative path %r is taken from %s", self.path, _origin(self, context))
            if self._is_deferrable() and not self.poke(context):
                trigger = PathTrigger(file, self.poke_interval, deadline.timestamp())
                self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))
            try:
                return super().execute(context)
            except AirflowSensorTimeout:
                raise AirflowSensorTimeout(self._not_come(file)) from None

    def execute_complete(self, context: Context, event: dict[str, Any]) -> None:  # noqa: ARG002 - Airflow's signature
        """Say that it is there.

        :raises AirflowSensorTimeout: when it has not come in time.
        """
        event = PATH_EVENT.read("the event of the trigger", event)
        if not event["is_there"]:
            raise AirflowSensorTimeout(self._not_come(event["path"]))
        self.log.info("%s is there", event["path"])

    def _not_come(self, file: str) -> str:
        return f"{file} has not come in {self.timeout:g} s"

    def _is_deferrable(self) -> bool:
        if self.deferrable is None:
            return bool(conf.getboolean("operators", "default_deferrable", fallback=False))
        return self.deferrable

    def _begin_and_deadline(self, context: Context) -> tuple[datetime, datetime]:
        """Return when the wait has begun, which for a rescheduled task is its first look, and when it is over."""
        first = context["ti"].get_first_reschedule_date(context) if self.reschedule else None
        begin = first or datetime.now(UTC)
        try:
            return begin, begin + timedelta(seconds=self.timeout)
        except OverflowError:
            return begin, datetime.max.replace(tzinfo=UTC)

    def _get_next_poke_interval(
        self, started_at: datetime | float, run_duration: Callable[[], float], poke_count: int
    ) -> float:
        """Return the seconds until the next look: when the wait is over, that is noticed soon."""
        interval = super()._get_next_poke_interval(started_at, run_duration, poke_count)
        soonest = _SHORTEST_ABSENCE if self.reschedule else 0.0
        return min(interval, max(soonest, self.timeout - run_duration()))

    def _file(self, context: Context) -> str:
        return absolute_path(checked_text("path", self.path, may_be_template=False), _workdir(self, context))


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
        self.products: Any = products
        if not isinstance(products, ResolveMixin):
            self.products = [_text("products", path) for path in products]
        self.arguments = arguments
        self.workdir = workdir
        self.sewer_conn_id = sewer_conn_id
        if not isinstance(self.products, ResolveMixin):
            warn_without_workdir(self, self.products)

    def execute(self, context: Context) -> None:
        """Remove what a task has made whole; anything else at these paths is left alone.

        A product that another DAG run uses is left to that run.

        :raises ProductError: when that cannot be done.
        """
        workdir = _workdir(self, context)
        for path in self.products:
            product = Product(checked_text("products", path, may_be_template=False))
            self.log.info("%s", remove_unclaimed(product, workdir, self.made_by, context))


def _text(field: str, path: Any) -> Any:
    """Return a path as text, in which Airflow fills in templates; a reference stays.

    :raises InvalidTask: when it is not a path.
    """
    return path if isinstance(path, ResolveMixin) else checked_text(field, path)


def _workdir(operator: ExternalPathSensor | RemoveProductsOperator, context: Context) -> str | None:
    folder = os.path.dirname(os.path.abspath(str(context["dag"].fileloc)))
    own = ExecutionSettings.checked(workdir=operator.workdir, folder=folder)
    hook = SewerHook(operator.sewer_conn_id) if operator.sewer_conn_id else None
    return own.with_fallback(hook.settings).workdir if hook else own.workdir


def _origin(operator: ExternalPathSensor, context: Context) -> str:
    """Return the folder that a relative path is taken from, and why, for a log."""
    workdir = _workdir(operator, context)
    if workdir is None:
        return f"the working directory of this worker, {os.getcwd()}, as workdir is not given"
    return f"workdir, which is {workdir}"
