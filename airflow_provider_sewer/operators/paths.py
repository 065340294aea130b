"""Airflow operators for paths: a sensor that waits for a path, and removal of temporary products."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, BaseSensorOperator, conf
from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.exceptions import AirflowSensorTimeout

from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.formats import PATH_EVENT
from airflow_provider_sewer.core.paths import Product, absolute_path, checked_text, is_relative
from airflow_provider_sewer.core.size_limits import bounded_list
from airflow_provider_sewer.hooks.sewer import SewerHook
from airflow_provider_sewer.operators.dag_test_signals import interruptible
from airflow_provider_sewer.operators.overlapping_runs import remove_unclaimed
from airflow_provider_sewer.operators.supervisor import supervisor
from airflow_provider_sewer.operators.template_fields import TemplateFields
from airflow_provider_sewer.operators.workdir_warning import warn_without_workdir
from airflow_provider_sewer.triggers.path import PathTrigger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from airflow.sdk import Context

#: Seconds between two checks for a path; longer where each check takes a process of its own.
_POKE_INTERVAL, _RESCHEDULED_INTERVAL = 15.0, 60.0
#: Shortest time in seconds for which a worker reschedules a task: Airflow's scheduler fails a task that is queued again
#: before it has noticed that the worker is done.
_MIN_RESCHEDULE = 10.0


class ExternalPathSensor(TemplateFields, BaseSensorOperator):
    """Wait until a file or directory exists.

    The wait occupies no worker slot: the task is rescheduled between two checks, or deferred to the triggerer. With a
    timeout of less than ten seconds it stays on its worker.

    :param path: the path; a relative one starts at the working directory. (templated)
    :param arguments: values that other fields refer to as ``{{ task.arguments['name'] }}``; rendered first.
        (templated)
    :param workdir: working directory. Default: that of the connection. (templated)
    :param sewer_conn_id: ``sewer`` connection for arguments that are not given. (templated)
    :param item: the item of this instance, if the sensor is mapped over the result of a workflow task.
    :param deferrable: wait in the triggerer, which must also see the path. Default: Airflow's
        ``operators.default_deferrable``.
    :param mode: if not deferred, ``"reschedule"``, or ``"poke"`` to keep the worker slot.
    :param poke_interval: time between two checks, in seconds or as a timedelta. Default: 60 in mode ``"reschedule"``,
        else 15.
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
            poke_interval = (
                _RESCHEDULED_INTERVAL if mode == "reschedule" and not self._is_deferrable() else _POKE_INTERVAL
            )
        super().__init__(mode=mode, poke_interval=poke_interval, **kwargs)
        if self.timeout < _MIN_RESCHEDULE:
            self.mode = "poke"
        self.path = _text("path", path)
        self.arguments = arguments
        self.workdir = workdir
        self.sewer_conn_id = sewer_conn_id
        self.item = item
        warn_without_workdir(self, [self.path])

    def poke(self, context: Context) -> bool:
        """Return whether the path exists."""
        file = self._file(context)
        self.log.info("Looking for %s", file)
        return os.path.exists(file)

    def execute(self, context: Context) -> Any:
        """Wait for the path, here or in the triggerer.

        :raises AirflowSensorTimeout: if it has not appeared before the timeout.
        """
        with interruptible(context["ti"], is_supervised=supervisor() is not None):
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
                raise AirflowSensorTimeout(self._timeout_message(file)) from None

    def execute_complete(self, context: Context, event: dict[str, Any]) -> None:  # noqa: ARG002 - Airflow's signature
        """Log that the path exists.

        :raises AirflowSensorTimeout: if it has not appeared before the timeout.
        """
        event = PATH_EVENT.read("the event of the trigger", event)
        if not event["is_there"]:
            raise AirflowSensorTimeout(self._timeout_message(event["path"]))
        self.log.info("Found %s", event["path"])

    def _timeout_message(self, file: str) -> str:
        return f"{file} has not appeared within {self.timeout:g} s"

    def _is_deferrable(self) -> bool:
        if self.deferrable is None:
            return bool(conf.getboolean("operators", "default_deferrable", fallback=False))
        return self.deferrable

    def _begin_and_deadline(self, context: Context) -> tuple[datetime, datetime]:
        """Return the start of the wait, which for a rescheduled task is its first check, and its deadline."""
        first = context["ti"].get_first_reschedule_date(context) if self.reschedule else None
        begin = first or datetime.now(UTC)
        try:
            return begin, begin + timedelta(seconds=self.timeout)
        except OverflowError:
            return begin, datetime.max.replace(tzinfo=UTC)

    def _get_next_poke_interval(
        self, started_at: datetime | float, run_duration: Callable[[], float], poke_count: int
    ) -> float:
        """Return the seconds until the next check, which is no later than the timeout."""
        interval = super()._get_next_poke_interval(started_at, run_duration, poke_count)
        minimum = _MIN_RESCHEDULE if self.reschedule else 0.0
        return min(interval, max(minimum, self.timeout - run_duration()))

    def _file(self, context: Context) -> str:
        return absolute_path(checked_text("path", self.path, may_be_template=False), _workdir(self, context))


class RemoveProductsOperator(TemplateFields, BaseOperator):
    """Remove temporary products once all tasks that use them have succeeded.

    :param products: their paths; relative ones start at the working directory. (templated)
    :param arguments: values that other fields refer to as ``{{ task.arguments['name'] }}``; rendered first.
        (templated)
    :param workdir: working directory. Default: that of the connection. (templated)
    :param sewer_conn_id: ``sewer`` connection for arguments that are not given. (templated)
    :param made_by: id of the task that produces them. Default: any task of the DAG run. A product stays while another
        unfinished task or DAG run uses it, that is, has produced it or found it up to date.
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
            self.products = [_text("products", path) for path in bounded_list("products", products)]
        self.arguments = arguments
        self.workdir = workdir
        self.sewer_conn_id = sewer_conn_id
        if not isinstance(self.products, ResolveMixin):
            warn_without_workdir(self, self.products)

    def execute(self, context: Context) -> None:
        """Remove complete products of sewer tasks; any other file at these paths stays.

        A product used by another DAG run is left to that run.

        :raises ProductError: if a product cannot be removed.
        """
        workdir = _workdir(self, context)
        for path in self.products:
            product = Product(checked_text("products", path, may_be_template=False))
            self.log.info("%s", remove_unclaimed(product, workdir, self.made_by, context["ti"]))


def _text(field: str, path: Any) -> Any:
    """Return a path as text, in which Airflow renders templates; a reference stays.

    :raises InvalidTask: if it is not a path.
    """
    return path if isinstance(path, ResolveMixin) else checked_text(field, path)


def _workdir(operator: ExternalPathSensor | RemoveProductsOperator, context: Context) -> str | None:
    folder = os.path.dirname(os.path.abspath(str(context["dag"].fileloc)))
    own = ExecutionSettings.checked(workdir=operator.workdir, folder=folder)
    hook = SewerHook(operator.sewer_conn_id) if operator.sewer_conn_id else None
    return own.with_fallback(hook.settings).workdir if hook else own.workdir


def _origin(operator: ExternalPathSensor, context: Context) -> str:
    """Return the base folder of a relative path and the reason for it, for a log."""
    workdir = _workdir(operator, context)
    if workdir is None:
        return f"the working directory of this worker, {os.getcwd()}, as workdir is not given"
    return f"workdir, which is {workdir}"
