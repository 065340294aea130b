"""Overrides: task settings given in a DAG file instead of the workflow file."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.selection import Tasks
from airflow_provider_sewer.core.slurm_settings import SlurmSettings
from airflow_provider_sewer.core.task_fields import FIELDS, checked_run_on
from airflow_provider_sewer.task_group.argument_checks import TASK_FIELDS, has_string_keys, split_operator_kwargs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.task_group.dag_values import DagValues

#: Task fields that can be overridden: where and in which environment a task runs, but not its command.
_SETTINGS = ("python", "env", "inherit_env", "workdir")
_RUN_ON = ("run_on", "slurm", "retry_with")
#: Airflow's operators have a ``doc`` of their own.
_NOT_OVERRIDABLE = TASK_FIELDS.union(FIELDS).difference(_SETTINGS, _RUN_ON, ["doc"])


class Override(NamedTuple):
    """Overridden settings of one task.

    :param settings: interpreter, environment and working directory.
    :param run_on: where it runs.
    :param slurm: settings of its Slurm job.
    :param operator_kwargs: arguments that every operator accepts.
    """

    settings: ExecutionSettings = ExecutionSettings()
    run_on: str | None = None
    slurm: SlurmSettings = SlurmSettings()
    operator_kwargs: Mapping[str, Any] = {}

    @classmethod
    def checked(cls, arguments: Any, values: DagValues) -> Override:
        """Validate the arguments given in a DAG file.

        :param values: run-time values of the DAG.
        :raises InvalidTask: when an argument cannot be overridden, naming it.
        """
        if not has_string_keys(arguments):
            raise InvalidTask(f"the value must be a mapping of operator arguments, got {arguments!r:.200}")
        if taken := sorted(_NOT_OVERRIDABLE.intersection(arguments)):
            pool = "override 'pool' and 'pool_slots' for resources; " if "resources" in taken else ""
            raise InvalidTask(
                f"{', '.join(map(repr, taken))} cannot be overridden; {pool}change the workflow file, "
                "or use task_converter"
            )
        settings = {name: value for name, value in arguments.items() if name in _SETTINGS}
        for_slurm, others = split_operator_kwargs(
            {name: value for name, value in arguments.items() if name not in settings}
        )
        return cls(
            ExecutionSettings.checked(**values.settings(**settings)),
            checked_run_on(others.pop("run_on", None)),
            SlurmSettings.checked(
                **values.settings(
                    slurm=others.pop("slurm", None), retry_with=others.pop("retry_with", None), **for_slurm
                )
            ),
            others,
        )

    def with_fallback(self, other: Override) -> Override:
        """Return this override, with unset values taken from ``other``."""
        return Override(
            self.settings.with_fallback(other.settings),
            self.run_on or other.run_on,
            self.slurm.with_fallback(other.slurm),
            {**other.operator_kwargs, **self.operator_kwargs},
        )

    def apply_to(self, task: Task) -> Task:
        """Return a copy of a task with this override applied."""
        of_file = dict(task.operator_kwargs)
        if self.run_on == "local":
            _, of_file = split_operator_kwargs(of_file)
        other = copy.copy(task)
        other.settings = self.settings.with_fallback(task.settings)
        other.run_on = self.run_on or task.run_on
        other.slurm = self.slurm.with_fallback(task.slurm)
        other.operator_kwargs = {**of_file, **self.operator_kwargs}
        return other


def checked_overrides(
    overrides: Mapping[str, Any], resolved: Workflow, values: DagValues, run_on: str | None
) -> dict[str, Override]:
    """Return the override of each task, by task name; later entries take precedence.

    :param overrides: arguments by name, glob or tag (see :mod:`airflow_provider_sewer.core.selection`).
    :param resolved: the workflow with its edges.
    :param values: run-time values of the DAG.
    :param run_on: where tasks without their own ``run_on`` run.
    :raises SewerError: when a key matches no task, or a value is invalid.
    """
    if not overrides:
        return {}
    tasks = Tasks(resolved)
    matches: dict[str, tuple[Override, set[str]]] = {}
    task_overrides: dict[str, Override] = {}
    for text, arguments in overrides.items():
        try:
            override = Override.checked(arguments, values)
        except InvalidTask as error:
            raise InvalidTask(f"overrides {text!r}: {error}") from None
        names = tasks.meant("overrides", text)
        matches[text] = override, names
        task_overrides |= {name: override.with_fallback(task_overrides.get(name, Override())) for name in names}
    for text, (override, names) in matches.items():
        if not any(_may_run_on_slurm(resolved.tasks[name], task_overrides[name], run_on) for name in names):
            _reject_slurm_fields(text, override)
    return task_overrides


def apply_overrides(loaded: Workflow, resolved: Workflow, task_overrides: Mapping[str, Override]) -> Workflow:
    """Return a workflow with overrides applied to its tasks.

    :param loaded: the workflow.
    :param resolved: the same workflow with its edges.
    :param task_overrides: overrides by task name.
    """

    def override_task(task: Task) -> Task:
        override = task_overrides.get(str(resolved.name_of(task)))
        return task if override is None else override.apply_to(task)

    return loaded.with_tasks(override_task)


def reject_partly_overridden_mapped_tasks(selection: Workflow, task_overrides: Mapping[str, Override]) -> None:
    """Reject overrides that differ between the tasks of one mapped Airflow task.

    :param selection: the selected workflow, outside of mapped groups.
    :param task_overrides: overrides by task name.
    :raises InvalidWorkflow: naming the tasks.
    """
    for mapped in selection.mapped.values() if task_overrides else ():
        if any(task_overrides.get(task.name) != task_overrides.get(mapped[0].name) for task in mapped):
            names = ", ".join(repr(task.name) for task in mapped if task.name in task_overrides)
            raise InvalidWorkflow(
                f"overrides: {names} are not all tasks of {mapped.name!r}, which is one mapped task in Airflow; "
                f"override {mapped.name!r}",
                mapped.source,
            )


def _may_run_on_slurm(task: Task, override: Override, run_on: str | None) -> bool:
    """Return whether a task runs on Slurm, or its ``run_on`` comes from the DAG file and so may change."""
    of_dag_file = override.run_on or (run_on if task.run_on is None else None)
    return of_dag_file is not None or task.run_on == "slurm"


def _reject_slurm_fields(text: str, override: Override) -> None:
    names = [name for name, value in override.slurm._asdict().items() if value not in (None, {})]
    if names:
        raise InvalidTask(
            f"overrides {text!r}: {', '.join(map(repr, names))} can only be set for tasks on Slurm, but the matching "
            "tasks run on the worker; add run_on='slurm'"
        )
