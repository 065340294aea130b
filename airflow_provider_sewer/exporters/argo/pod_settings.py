"""Settings of a task in Argo: names, environment, resources, retries and limits of time, and those that it lacks."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from hera.workflows import Env, Resources, RetryStrategy, SecretEnv
from hera.workflows import models as argo

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.masking import Secrets
from airflow_provider_sewer.core.paths import External
from airflow_provider_sewer.core.placeholders import as_written, replace_placeholders, without_values
from airflow_provider_sewer.core.secret_detection import is_secret
from airflow_provider_sewer.core.templates import find_template
from airflow_provider_sewer.exporters.argo.argo_names import valid_name

if TYPE_CHECKING:
    from airflow_provider_sewer.core.task import Task

#: Arguments of operators that have a counterpart in Argo.
OPERATOR_KWARGS = (
    "execution_timeout", "max_retry_delay", "retries", "retry_delay", "retry_exponential_backoff",
)  # fmt: skip

#: Airflow's ``default_task_retry_delay``, in seconds.
_RETRY_DELAY = 300
_MEMORY = re.compile(r"(\d+)([KMGT]?)B?", re.IGNORECASE)


def reject_unsupported(task: Task) -> None:
    """Reject a task with a field that has no counterpart in Argo.

    :raises InvalidTask: naming the task and the field.
    """
    for field, problem in _problems(task):
        raise InvalidTask(f"task {task.name!r}: {field} {problem}", task.source, at=(field,))


def _problems(task: Task) -> Iterable[tuple[str, str]]:
    if task.run_policy.run_when != "always":
        yield "run_when", f"must be 'always' for Argo, got {task.run_policy.run_when!r}; Argo has no check of staleness"
    for dependency in task.dependencies:
        if isinstance(dependency, External):
            yield "dependencies", f"must not contain {dependency!r} for Argo, which cannot wait for a file"
    if task.settings.inherit_env:
        yield "inherit_env", "must be unset for Argo: a pod inherits nothing; set the variables in env"
    for name in task.operator_kwargs:
        if name not in OPERATOR_KWARGS:
            known = ", ".join(OPERATOR_KWARGS)
            yield "operator_kwargs", f"must be among {known} for Argo, got {name!r}; it is an argument of Airflow only"
    for name in task.resources:
        if name != "gpu":
            yield "resources", f"must name only 'gpu' for Argo, got {name!r}; Argo has no such limit"
    settings = task.settings
    called = [task.target, task.parameters_and_flags, list(task.args), task.kwargs]
    paths = [path.path for path in (*task.products, *task.dependencies)]
    texts = _without_values([replace_placeholders(called, as_written), paths, dict(settings.env)])
    if template := find_template([texts, settings.python, settings.workdir]):
        yield "template", f"{template!r:.200} is rendered only by Airflow; give a value"


def _without_values(value: Any) -> Any:
    """Return a value whose texts have no run-time values: those are arguments of the workflow."""
    if isinstance(value, str):
        return without_values(value)
    if isinstance(value, Mapping):
        return [_without_values(item) for item in value.values()]
    return [_without_values(item) for item in value] if isinstance(value, (list, tuple)) else value


def environment(task: Task, secret: str) -> tuple[list[Env | SecretEnv], list[str]]:
    """Return variables for a container, and the names of those that it takes from a Kubernetes Secret.

    :param secret: name of that Secret; its keys are the names of the variables.
    """
    env, known = task.settings.env, Secrets(task.secrets)
    secrets = [name for name, value in env.items() if is_secret(name, value) or any(known.names_in(value))]
    variables = [
        SecretEnv(name=name, secret_name=secret, secret_key=name) if name in secrets else Env(name=name, value=value)
        for name, value in env.items()
    ]
    return variables, secrets


def resources(task: Task) -> Resources | None:
    """Return the CPU, memory and GPU of a task: those of its Slurm job, and the resource ``gpu``.

    Other parameters of Slurm, such as a partition, have no counterpart and do not count.
    """
    slurm = {name: value for name, value in task.slurm.slurm.items() if value is not None}
    cpus = _whole(slurm.get("cpus_per_task"))
    memory = _memory(slurm, cpus or 1)
    gpus = task.resources.get("gpu") or _gpus(slurm)
    if cpus is None and memory is None and not gpus:
        return None
    return Resources(
        cpu_request=cpus, cpu_limit=cpus, memory_request=memory, memory_limit=memory, gpus=gpus or None
    )  # fmt: skip


def _memory(slurm: Mapping[str, Any], cpus: int) -> str | None:
    if "mem_gb" in slurm:
        return f"{math.ceil(float(slurm['mem_gb']) * 1024)}Mi"
    text, count = (slurm["mem"], 1) if "mem" in slurm else (slurm.get("mem_per_cpu"), cpus)
    found = _MEMORY.fullmatch(str(text)) if text is not None else None
    return f"{int(found[1]) * count}{found[2].upper() or 'M'}i" if found else None


def _gpus(slurm: Mapping[str, Any]) -> int:
    given = next((slurm[name] for name in ("gpus_per_node", "gpus_per_task") if name in slurm), 0)
    return int(str(given).rpartition(":")[2])


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


class Limits(NamedTuple):
    """Retries and the limit of time of a task.

    :param retries: Argo's strategy; ``None`` for no retry.
    :param seconds: maximum duration of one try; ``None`` for no limit.
    """

    retries: RetryStrategy | None
    seconds: int | None


def limits(task: Task) -> Limits:
    """Return the retries and the limit of time of a task, as Airflow and Slurm apply them."""
    kwargs = task.operator_kwargs
    found = [_seconds(kwargs[name]) for name in ("execution_timeout",) if kwargs.get(name) is not None]
    minutes = task.slurm.slurm.get("timeout_min")
    found += [] if minutes is None else [int(minutes) * 60]
    return Limits(_retries(kwargs), min(found) if found else None)


def _retries(kwargs: Mapping[str, Any]) -> RetryStrategy | None:
    if not kwargs.get("retries"):
        return None
    delay = _seconds(kwargs.get("retry_delay", _RETRY_DELAY))
    longest = kwargs.get("max_retry_delay")
    # Airflow takes the factor itself, or True for 2.
    factor = kwargs.get("retry_exponential_backoff")
    backoff = argo.Backoff(
        duration=str(delay),
        factor=argo.IntOrString(str(max(2, int(factor)))) if factor else None,
        cap=None if longest is None else str(_seconds(longest)),
    )
    return RetryStrategy(limit=str(int(kwargs["retries"])), retry_policy="Always", backoff=backoff)


def _seconds(value: timedelta | float) -> int:
    return math.ceil(value.total_seconds() if isinstance(value, timedelta) else value)


def labels(task: Task) -> dict[str, str]:
    """Return the tags of a task as labels of its pods."""
    return {f"airflow-provider-sewer/{valid_name(tag)}": "true" for tag in task.tags}


def descriptions(task: Task, name: str) -> dict[str, str]:
    """Return the name and the description of a task for its pods."""
    return {"airflow-provider-sewer/task": name, **({"airflow-provider-sewer/doc": task.doc} if task.doc else {})}
