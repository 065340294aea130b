"""Exporter of a workflow to JSON for other programs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.cli_args import to_arguments
from airflow_provider_sewer.core.masking import Secrets
from airflow_provider_sewer.core.placeholders import as_written, replace_placeholders
from airflow_provider_sewer.core.secret_detection import (
    as_variable,
    looks_secret,
    masked_data,
    masked_env,
    masked_text,
    masked_words,
    secret_texts,
    variable_name,
)
from airflow_provider_sewer.exporters.json_text import to_json_text

if TYPE_CHECKING:
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def to_json(workflow: Workflow) -> str:
    """Return a workflow as JSON: its tasks with their commands and settings, and the edges.

    A secret is replaced with ``${env:NAME}``, the name of a variable that has it or could have it. A task from another
    file than the workflow has its own ``file``, to which its ``line`` refers.
    """
    file = workflow.source.file if workflow.source else None
    data = {
        "name": workflow.name,
        "doc": workflow.doc,
        "file": file,
        "tasks": [
            masked_data(_task(workflow, task, file), as_variable, Secrets(task.known_secrets()))
            for task in workflow.tasks.values()
        ],
        "edges": [list(edge) for edge in workflow.edges],
    }
    return to_json_text(masked_data(data, as_variable, Secrets(_secrets(workflow)))) + "\n"


def _secrets(workflow: Workflow) -> dict[str, str]:
    """Return the secret arguments of a workflow, each with its name."""
    return {value: name for task in workflow.tasks.values() for value, name in task.secrets.items()}


def _task(workflow: Workflow, task: Task, file: str | None) -> dict[str, Any]:
    settings = task.settings
    data: dict[str, Any] = {
        "name": task.name,
        **_target(task),
        "python": settings.python,
        "env": masked_env(settings.env, as_variable),
        "inherit_env": settings.inherit_env,
        "workdir": settings.workdir,
        "depends_on": list(workflow.upstream[task.name]),
        "doc": task.doc,
    }
    if task.products:
        data["products"] = [masked_text(product.path, as_variable) for product in task.products]
    if task.dependencies:
        data["dependencies"] = [masked_text(dependency.path, as_variable) for dependency in task.dependencies]
    for field, stream in (("stdin", task.stdin), ("stdout", task.stdout)):
        if stream is not None:
            data[field] = masked_text(stream.path, as_variable)
    if task.run_policy.run_when != "always":
        data["run_when"] = task.run_policy.run_when
    if task.resources:
        data["resources"] = dict(task.resources)
    if task.tags:
        data["tags"] = list(task.tags)
    if task.group:
        data["group"] = task.group
    if task.run_on:
        data["run_on"] = task.run_on
    if task.slurm.slurm:
        data["slurm"] = _PlainData(Secrets(secret_texts(settings.env))).data(task.slurm.slurm)
    if task.slurm.retry_with:
        data["retry_with"] = dict(task.slurm.retry_with)
    if task.operator_kwargs:
        data["operator_kwargs"] = _PlainData(Secrets(secret_texts(settings.env))).data(task.operator_kwargs)
    if task.source.file != file:
        data["file"] = task.source.file
    return {**data, "line": task.source.line}


def _target(task: Task) -> dict[str, Any]:
    if task.module is not None:
        return {"module": task.module, "arguments": _arguments(task)}
    kwargs = _PlainData(Secrets(secret_texts(task.settings.env))).data(replace_placeholders(task.kwargs, as_written))
    return {"function": task.function, "kwargs": kwargs}


def _arguments(task: Task) -> list[str]:
    """Return the arguments of a task; values are masked while their parameter names are still known."""
    secrets = Secrets(secret_texts(task.settings.env))
    parameters = masked_data(replace_placeholders(task.parameters_and_flags, as_written), as_variable, secrets)
    args = replace_placeholders(task.args, as_written)
    arguments = to_arguments(parameters, use_underscores=task.use_underscores, args=args)
    return masked_words(arguments, secrets, as_variable)


class _PlainData:
    """Converter of any value to JSON data; other types become their ``repr``."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._containers: list[int] = []

    def data(self, value: Any) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._text(str.__str__(value))
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float) and math.isfinite(value):
            return float(value)
        if id(value) in self._containers:
            return "…"
        self._containers.append(id(value))
        try:
            return self._container(value)
        finally:
            self._containers.pop()

    def _container(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {
                self._key(key): as_variable(variable_name(str(key))) if looks_secret(str(key)) else self.data(inner)
                for key, inner in value.items()
            }
        if isinstance(value, (list, tuple)):
            texts = [str.__str__(inner) for inner in value if isinstance(inner, str)]
            words = iter(masked_words(texts, self._secrets, as_variable))  # they can be an option and its value
            return [next(words) if isinstance(inner, str) else self.data(inner) for inner in value]
        if isinstance(value, AbstractSet):
            # The order of strings in a set differs between processes.
            return sorted((self.data(inner) for inner in value), key=repr)
        return self._shown(value)

    def _key(self, key: Any) -> str:
        return self._text(str.__str__(key)) if isinstance(key, str) else self._shown(key)

    def _shown(self, value: Any) -> str:
        """Return the ``repr`` without the memory address, which differs between processes."""
        try:
            text = repr(value)
        except Exception:
            text = f"<{type(value).__name__}>"
        return self._text(_ADDRESS.sub("", text))

    def _text(self, text: str) -> str:
        return masked_text(self._secrets.mask(text, as_variable), as_variable)
