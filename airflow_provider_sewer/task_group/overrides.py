"""What a DAG file says of tasks in place of their workflow file."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.selection import Tasks
from airflow_provider_sewer.core.slurm_settings import SlurmSettings
from airflow_provider_sewer.core.task import FIELDS, checked_run_on
from airflow_provider_sewer.task_group.operator_fields import TASK_FIELDS, split_operator_kwargs
from airflow_provider_sewer.task_group.validation import is_by_name

if TYPE_CHECKING:
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.task_group.dag_values import DagValues

#: Where a task runs and in what: fields of a task that can be said anew. What it runs can not.
_SETTINGS = ("python", "env", "inherit_env", "workdir")
_RUN_ON = ("run_on", "slurm")
#: Airflow's operators have a ``doc`` of their own.
_NOT_OVERRIDABLE = TASK_FIELDS.union(FIELDS).difference(_SETTINGS, _RUN_ON, ["doc"])


class Override(NamedTuple):
    """What is said of a task in place of its workflow file.

    :param settings: interpreter, environment and working directory.
    :param run_on: where it runs.
    :param slurm: what is said of its Slurm job.
    :param operator_kwargs: arguments that all operators know.
    """

    settings: ExecutionSettings = ExecutionSettings()
    run_on: str | None = None
    slurm: SlurmSettings = SlurmSettings()
    operator_kwargs: Mapping[str, Any] = {}

    @classmethod
    def checked(cls, arguments: Any, values: DagValues) -> Override:
        """Make it of what a person wrote.

        :param values: what is known only when the tasks run.
        :raises InvalidTask: when something cannot stand there, naming it.
        """
        if not is_by_name(arguments):
            raise InvalidTask(f"a mapping of operator arguments is needed, not {arguments!r:.200}")
        if taken := sorted(_NOT_OVERRIDABLE.intersection(arguments)):
            pool = "for resources say 'pool' and 'pool_slots'; " if "resources" in taken else ""
            raise InvalidTask(
                f"{', '.join(map(repr, taken))} cannot stand there: what a task is and runs is said in the workflow "
                f"file; {pool}for anything else, use task_converter"
            )
        settings = {name: value for name, value in arguments.items() if name in _SETTINGS}
        for_slurm, others = split_operator_kwargs(
            {name: value for name, value in arguments.items() if name not in settings}
        )
        return cls(
            ExecutionSettings.checked(**values.settings(**settings)),
            checked_run_on(others.pop("run_on", None)),
            SlurmSettings.checked(**values.settings(slurm=others.pop("slurm", None), **for_slurm)),
            others,
        )

    def over(self, other: Override) -> Override:
        """Return this, completed by ``other`` where it says nothing."""
        return Override(
            self.settings.with_fallback(other.settings),
            self.run_on or other.run_on,
            self.slurm.with_fallback(other.slurm),
            {**other.operator_kwargs, **self.operator_kwargs},
        )

    def on(self, task: Task) -> Task:
        """Return a task of which this is said."""
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
    overrides: Mapping[str, Any], settled: Workflow, values: DagValues, run_on: str | None
) -> dict[str, Override]:
    """Return by the names of tasks what the DAG file says of them; of two things the later.

    :param overrides: what it says for names, globs and tags (see :mod:`airflow_provider_sewer.core.selection`).
    :param settled: the workflow, its edges known.
    :param values: what is known only when the tasks run.
    :param run_on: where all tasks run that do not say it themselves.
    :raises SewerError: when a key means no task, or something is said that cannot be.
    """
    if not overrides:
        return {}
    tasks = Tasks(settled)
    meant: dict[str, tuple[Override, set[str]]] = {}
    said: dict[str, Override] = {}
    for text, arguments in overrides.items():
        try:
            override = Override.checked(arguments, values)
        except InvalidTask as error:
            raise InvalidTask(f"overrides {text!r}: {error}") from None
        names = tasks.meant("overrides", text)
        meant[text] = override, names
        said |= {name: override.over(said.get(name, Override())) for name in names}
    for text, (override, names) in meant.items():
        if not any(_may_be_on_slurm(settled.tasks[name], said[name], run_on) for name in names):
            _refuse_what_is_for_slurm(text, override)
    return said


def apply_overrides(loaded: Workflow, settled: Workflow, said: Mapping[str, Override]) -> Workflow:
    """Return a workflow of whose tasks is said what the DAG file says of them.

    :param loaded: the workflow.
    :param settled: the same, its edges known.
    :param said: this, by the names of tasks.
    """

    def of_one(task: Task) -> Task:
        override = said.get(str(settled.name_of(task)))
        return task if override is None else override.on(task)

    return loaded.with_tasks(of_one)


def refuse_parts_of_mapped_tasks(wanted: Workflow, said: Mapping[str, Override]) -> None:
    """Refuse what is said of some tasks of a loop where that is one mapped task in Airflow.

    :param wanted: the workflow, as it is expanded outside of mapped groups.
    :param said: what the DAG file says, by the names of tasks.
    :raises InvalidWorkflow: naming the tasks.
    """
    for mapped in wanted.mapped.values() if said else ():
        if any(said.get(task.name) != said.get(mapped[0].name) for task in mapped):
            names = ", ".join(repr(task.name) for task in mapped if task.name in said)
            raise InvalidWorkflow(
                f"overrides: {names} are not all tasks of {mapped.name!r}, which is one mapped task in Airflow; "
                f"say it of {mapped.name!r}",
                mapped.source,
            )


def _may_be_on_slurm(task: Task, override: Override, run_on: str | None) -> bool:
    """Tell whether a task runs on Slurm, or where the DAG file says, which may say another place tomorrow."""
    of_dag_file = override.run_on or (run_on if task.run_on is None else None)
    return of_dag_file is not None or task.run_on == "slurm"


def _refuse_what_is_for_slurm(text: str, override: Override) -> None:
    names = [name for name, value in override.slurm._asdict().items() if value not in (None, {})]
    if names:
        raise InvalidTask(
            f"overrides {text!r}: {', '.join(map(repr, names))} is for tasks on Slurm, and what this is said of runs "
            "on the worker; say run_on='slurm' as well"
        )
