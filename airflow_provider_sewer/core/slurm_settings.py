"""Settings of tasks that run as Slurm jobs: parameters of the job and options of its monitoring.

Settings are resolved one by one, in this order: the task's own field, the TaskGroup or the operator's default
arguments, the connection, :data:`DEFAULTS`. ``slurm`` is merged parameter by parameter in the same order, and
``retry_with`` error by error.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Callable, NamedTuple, Optional

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.execution_settings import checked_path
from airflow_provider_sewer.core.retry_requests import checked_retry_with, merged_rules
from airflow_provider_sewer.core.size_limits import MAX_SECONDS
from airflow_provider_sewer.core.slurm_parameters import (
    checked_slurm,
    checked_texts,
    merged,
    with_options,
    with_subject,
)

_NOTHING: Mapping[str, Any] = MappingProxyType({})

CLUSTERS = ("auto", "slurm", "local")
KILL_ACTIONS = ("cancel_job", "keep_job")

#: Seconds; a restart of Airflow takes less.
_SHORTEST_ORPHAN_TIMEOUT = 300.0


class SlurmSettings(NamedTuple):
    """Slurm settings given in one place; ``None`` where a setting is not given there.

    :param slurm: parameters of the job, see :data:`~airflow_provider_sewer.core.slurm_parameters.RESOURCES`; a
        parameter that is ``None`` removes the values of lower precedence.
    :param run_dir: folder in which every attempt gets its own job directory; all nodes must see it.
    :param cluster: ``"slurm"``, ``"local"`` (this machine), or ``"auto"``: Slurm where it is installed.
    :param deferrable: whether to wait in the triggerer instead of on a worker.
    :param poll_interval: seconds between two polls of a job.
    :param max_poll_interval: maximum in seconds to which the interval grows while the status does not change.
    :param durable: whether a retry reattaches to the job of an earlier attempt.
    :param on_kill_action: ``"cancel_job"`` or ``"keep_job"`` when the Airflow task is killed.
    :param requeue: whether Slurm may requeue the job after a node failure or a preemption.
    :param max_pending_time: seconds that a job may be pending.
    :param fail_on_pending_reason: Slurm's reasons for which a pending job fails at once.
    :param lost_after: seconds after which a job that is unknown to Slurm fails.
    :param orphan_timeout: seconds after which a running job without a monitoring process ends itself; 0 for never.
    :param wait_for_completion: whether the Airflow task lasts as long as the job.
    :param retry_with: changes of the request of a retry by the error of the attempt before, see
        :mod:`~airflow_provider_sewer.core.retry_requests`.
    :param array: whether the instances of a mapped Airflow task are submitted together, as job arrays.
    :param array_wait: seconds without another instance after which an incomplete array is submitted.
    """

    slurm: Mapping[str, Any] = _NOTHING
    run_dir: Optional[str] = None
    cluster: Optional[str] = None
    deferrable: Optional[bool] = None
    poll_interval: Optional[float] = None
    max_poll_interval: Optional[float] = None
    durable: Optional[bool] = None
    on_kill_action: Optional[str] = None
    requeue: Optional[bool] = None
    max_pending_time: Optional[float] = None
    fail_on_pending_reason: Optional[tuple[str, ...]] = None
    lost_after: Optional[float] = None
    orphan_timeout: Optional[float] = None
    wait_for_completion: Optional[bool] = None
    array: Optional[bool] = None
    array_wait: Optional[float] = None
    retry_with: Optional[Mapping[str, Any]] = None

    @classmethod
    def checked(
        cls,
        *,
        folder: str = "",
        slurm: Any = None,
        run_dir: Any = None,
        cluster: Any = None,
        deferrable: Any = None,
        poll_interval: Any = None,
        max_poll_interval: Any = None,
        durable: Any = None,
        on_kill_action: Any = None,
        requeue: Any = None,
        max_pending_time: Any = None,
        fail_on_pending_reason: Any = None,
        lost_after: Any = None,
        orphan_timeout: Any = None,
        wait_for_completion: Any = None,
        array: Any = None,
        array_wait: Any = None,
        retry_with: Any = None,
    ) -> SlurmSettings:
        """Return settings of checked values; times may be timedeltas.

        :param folder: base of a relative ``run_dir``; empty to keep it relative.
        :raises InvalidTask: when a value is not valid, naming the setting.
        """
        settings = cls(
            slurm=checked_slurm(slurm),
            run_dir=checked_path("run_dir", run_dir, folder),
            cluster=_choice("cluster", cluster, CLUSTERS),
            deferrable=_bool("deferrable", deferrable),
            poll_interval=_seconds("poll_interval", poll_interval),
            max_poll_interval=_seconds("max_poll_interval", max_poll_interval),
            durable=_bool("durable", durable),
            on_kill_action=_choice("on_kill_action", on_kill_action, KILL_ACTIONS),
            requeue=_bool("requeue", requeue),
            max_pending_time=_seconds("max_pending_time", max_pending_time),
            fail_on_pending_reason=_reasons(fail_on_pending_reason),
            lost_after=_seconds("lost_after", lost_after, zero=True),
            orphan_timeout=_orphan_timeout(orphan_timeout),
            wait_for_completion=_bool("wait_for_completion", wait_for_completion),
            array=_bool("array", array),
            array_wait=_seconds("array_wait", array_wait, zero=True),
            retry_with=checked_retry_with(retry_with),
        )
        least, most = settings.poll_interval, settings.max_poll_interval
        if least is not None and most is not None and most < least:
            raise InvalidTask(f"max_poll_interval must be at least poll_interval ({least:g} s), got {most:g} s")
        return settings

    def with_fallback(self, other: SlurmSettings) -> SlurmSettings:
        """Return these settings, completed by ``other`` where they are ``None``."""
        values = (mine if mine is not None else theirs for mine, theirs in zip(self, other))
        return SlurmSettings._make(values)._replace(
            slurm=merged(self.slurm, other.slurm), retry_with=merged_rules(self.retry_with, other.retry_with)
        )

    def with_options(self, options: Mapping[str, Any]) -> SlurmSettings:
        """Return these settings, completed by options of sbatch of the lowest precedence.

        :param options: values by sbatch's long names; ``True`` for an option without a value.
        :raises InvalidTask: when an option is not valid.
        """
        return self._replace(slurm=with_options(self.slurm, options))

    def map_paths(self, change: Callable[[str], str]) -> SlurmSettings:
        """Return these settings with ``change`` applied to ``run_dir``."""
        return self._replace(run_dir=change(self.run_dir) if self.run_dir else self.run_dir)


#: Settings of a place that gives none; shared by most tasks.
UNSET = SlurmSettings()

#: Values of settings that are given nowhere. ``deferrable`` is then Airflow's own default, and for
#: ``fail_on_pending_reason`` a built-in list of unsatisfiable reasons applies.
DEFAULTS = SlurmSettings(
    run_dir="~/.sewer/runs",
    cluster="auto",
    poll_interval=5.0,
    max_poll_interval=60.0,
    durable=True,
    on_kill_action="cancel_job",
    requeue=False,
    lost_after=300.0,
    orphan_timeout=86400.0,
    wait_for_completion=True,
    array=False,
    array_wait=30.0,
)


def _choice(field: str, value: Any, choices: tuple[str, ...]) -> str | None:
    if value is not None and value not in choices:
        raise InvalidTask(f"{field} must be {' or '.join(map(repr, choices))}, got {value!r:.200}")
    return value  # type: ignore[no-any-return]  # one of the choices, which are text


def _bool(field: str, value: Any) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise InvalidTask(f"{field} must be a bool, got {value!r:.200}")
    return value


def _seconds(field: str, value: Any, *, zero: bool = False) -> float | None:
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not is_number or not 0 <= seconds <= MAX_SECONDS or (seconds == 0 and not zero):
        form = "seconds or a timedelta" if zero else "seconds or a timedelta more than 0"
        raise InvalidTask(f"{field} must be {form}, got {value!r:.200}; at most {MAX_SECONDS:,} s")
    return float(seconds)


def _orphan_timeout(value: Any) -> float | None:
    seconds = _seconds("orphan_timeout", value, zero=True)
    if seconds and seconds < _SHORTEST_ORPHAN_TIMEOUT:
        raise InvalidTask(
            f"orphan_timeout must be 0 or at least {_SHORTEST_ORPHAN_TIMEOUT:g} s, got {seconds:g}; "
            "give a longer one, or 0 for never"
        )
    return seconds


def _reasons(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    try:
        return tuple(checked_texts(value))
    except InvalidTask as error:
        raise InvalidTask(with_subject("fail_on_pending_reason", error)) from None
