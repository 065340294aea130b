"""A workflow file → Airflow tasks: as a TaskGroup, or one by one."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.sdk import DAG, BaseOperator, TaskGroup
from airflow.sdk.definitions._internal.contextmanager import DagContext

from airflow_provider_sewer.core.command import shown
from airflow_provider_sewer.core.edges import STATED
from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow
from airflow_provider_sewer.core.settings import Settings, under
from airflow_provider_sewer.core.slurm import SlurmSettings
from airflow_provider_sewer.core.source import calling_line
from airflow_provider_sewer.core.task import checked_place
from airflow_provider_sewer.core.templates import is_template
from airflow_provider_sewer.core.values import Result, filled, markers
from airflow_provider_sewer.operators.marks import FromXCom
from airflow_provider_sewer.operators.module import PythonModuleOperator
from airflow_provider_sewer.path_tasks import add_path_tasks
from airflow_provider_sewer.readers.files import load_workflow

if TYPE_CHECKING:
    from airflow_provider_sewer.core.environment import Inherit
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.values import Marker
    from airflow_provider_sewer.core.workflow import Workflow

#: What a workflow file says in fields of its own, and so not in ``operator_kwargs``.
_TASK_FIELDS = frozenset(
    {"task_id", "task_display_name", "module", "parameters_and_flags", "args", "use_underscores", "python", "env",
     "inherit_env", "workdir", "run_on", "slurm", "task_group", "dag", "function", "op_kwargs", "products",
     "dependencies", "run_when", "compare", "stale_with", "stale_after"}
)  # fmt: skip

#: What only the operator for Slurm knows, and so reaches no other one out of ``operator_kwargs``.
_SLURM_FIELDS = frozenset(SlurmSettings._fields) - _TASK_FIELDS

_NONE: Mapping[Any, Any] = MappingProxyType({})

_Path = str | os.PathLike[str]


class _Around(NamedTuple):
    """What is said around the tasks: it holds where they say nothing themselves."""

    settings: Settings
    slurm: SlurmSettings
    run_on: str | None
    sewer_conn_id: str | None
    operator_kwargs: Mapping[str, Any]


def sewer_task_group(
    workflow_file: _Path,
    *,
    group_id: str | None = None,
    workflow: str | None = None,
    jobs: str | None = None,
    sewer_conn_id: str | None = None,
    python: _Path | None = None,
    env: Mapping[str, str] | None = None,
    inherit_env: Inherit | None = None,
    workdir: _Path | None = None,
    run_on: str | None = None,
    slurm: Mapping[str, Any] | None = None,
    run_dir: _Path | None = None,
    cluster: str | None = None,
    deferrable: bool | None = None,
    operator_kwargs: Mapping[str, Any] | None = None,
    default_args: Mapping[str, Any] | None = None,
    read_with_interpreter: bool = False,
) -> TaskGroup:
    """Expand a workflow of a workflow file into a TaskGroup; call it inside a DAG.

    What the file says of a task wins over what is said here, and that over the connection. Relative
    paths given here are taken from the folder of the DAG file.

    :param workflow_file: the workflow file: Python, or stages in YAML.
    :param group_id: id of the group; the workflow's name if not said.
    :param workflow: name of the workflow, where the file holds several.
    :param jobs: for stages: the module that has their functions, if the file names none.
    :param sewer_conn_id: a ``sewer`` connection for all its tasks.
    :param python: interpreter of the tasks that name none.
    :param env: environment variables, under those of the tasks.
    :param inherit_env: ``True``, or names, to inherit more than the short list.
    :param workdir: working directory of the tasks that name none.
    :param run_on: ``"local"``, which is the worker, or ``"slurm"``, for the tasks that name no place.
    :param slurm: parameters of Slurm jobs, under those of the tasks.
    :param run_dir: folder for the run directories of Slurm jobs.
    :param cluster: ``"slurm"``, ``"local"`` or ``"auto"``, for tasks on Slurm.
    :param deferrable: whether tasks on Slurm wait in the triggerer.
    :param operator_kwargs: arguments of every operator (pool, queue, retries, …), under those of the tasks. Those
        that only the operator for Slurm knows (poll_interval, requeue, …) reach the tasks on Slurm.
    :param default_args: default arguments of the group, as Airflow has them.
    :param read_with_interpreter: have the file read by ``python``, with ``env`` and ``inherit_env``: it imports what
        only that interpreter has (see :mod:`airflow_provider_sewer.runners.foreign_reader`).
    :raises SewerError: when the file, a task or an argument is wrong; with file and line.
    """
    dag_folder = _dag_folder()
    settings = Settings.checked(python=python, env=env, inherit_env=inherit_env, workdir=workdir)
    file = under(dag_folder, os.path.expanduser(workflow_file))
    if read_with_interpreter:
        from airflow_provider_sewer.runners.foreign_reader import read_workflow

        loaded = read_workflow(file, workflow, _reader(settings, dag_folder))
    else:
        loaded = load_workflow(file, workflow, jobs=jobs)
    around = _around(
        settings,
        {"slurm": slurm, "run_dir": run_dir, "cluster": cluster, "deferrable": deferrable},
        run_on,
        sewer_conn_id,
        operator_kwargs or {},
    )
    group = TaskGroup(
        group_id=_identifier(group_id or loaded.name),
        group_display_name=group_id or loaded.name,
        tooltip=loaded.doc,
        doc_md=f"{loaded.doc}\n",  # the line break keeps Airflow from taking "… notes.md" for a file to read
        default_args=dict(default_args or {}),  # type: ignore[arg-type]  # attrs and deepcopy
    )
    with group:
        # The edges that come of paths depend on where these are taken from.
        _expand(loaded, loaded.with_defaults(Settings(workdir=around.settings.workdir)), group, around, dag_folder)
    return group


def create_airflow_task(
    task: Task,
    path_to_python: _Path | None = None,
    env: Mapping[str, str] | None = None,
    workdir: _Path | None = None,
    *,
    sewer_conn_id: str | None = None,
    run_on: str | None = None,
    slurm: Mapping[str, Any] | None = None,
    run_dir: _Path | None = None,
    cluster: str | None = None,
    deferrable: bool | None = None,
    operator_kwargs: Mapping[str, Any] | None = None,
) -> Callable[[], BaseOperator]:
    """Return a function that makes an Airflow task of a sewer task, each time it is called inside a DAG.

    :param task: the task.
    :param path_to_python: interpreter, if the task names none.
    :param env: environment variables, under those of the task.
    :param workdir: working directory, if the task names none.
    :param sewer_conn_id: a ``sewer`` connection for what is still not said.
    :param run_on: ``"local"``, which is the worker, or ``"slurm"``, for a task that names no place.
    :param slurm: parameters of Slurm jobs, under those of the task.
    :param run_dir: folder for the run directories of Slurm jobs.
    :param cluster: ``"slurm"``, ``"local"`` or ``"auto"``, for a task on Slurm.
    :param deferrable: whether a task on Slurm waits in the triggerer.
    :param operator_kwargs: arguments of the operator, under those of the task.
    """
    around = _around(
        Settings.checked(python=path_to_python, env=env, workdir=workdir),
        {"slurm": slurm, "run_dir": run_dir, "cluster": cluster, "deferrable": deferrable},
        run_on,
        sewer_conn_id,
        operator_kwargs or {},
    )

    def make() -> BaseOperator:
        return _operator(task, _identifier(task.name), around, _dag_folder())

    return make


def create_airflow_tasks(tasks: Iterable[Task], **kwargs: Any) -> Iterator[Callable[[], BaseOperator]]:
    """Return :func:`create_airflow_task` of each task, with the same arguments."""
    return (create_airflow_task(task, **kwargs) for task in tasks)


def _reader(settings: Settings, dag_folder: str) -> Settings:
    """Return what a file is read with: of what its tasks get, what is known before anything runs."""
    if settings.python is None or is_template(settings.python):
        said = "not said" if settings.python is None else f"{settings.python!r}, which is known only when a task runs"
        raise InvalidTask(f"read_with_interpreter: python is {said}; name the interpreter that reads the file")
    env = {name: value for name, value in settings.env.items() if not is_template(value)}
    return settings.map_paths(lambda path: under(dag_folder, path))._replace(env=env)


def _around(
    settings: Settings,
    slurm_fields: Mapping[str, Any],
    run_on: str | None,
    sewer_conn_id: str | None,
    operator_kwargs: Mapping[str, Any],
) -> _Around:
    for_slurm, for_all = _sorted_out(operator_kwargs)
    said = {field: value for field, value in slurm_fields.items() if value is not None}
    return _Around(
        settings, SlurmSettings.checked(**{**said, **for_slurm}), checked_place(run_on), sewer_conn_id, for_all
    )


def _expand(loaded: Workflow, settled: Workflow, group: TaskGroup, around: _Around, dag_folder: str) -> None:
    """Make an Airflow task of each task, and of what their paths need besides."""
    ids = _Identifiers()
    own = {name: ids.new(name) for name in settled.tasks}
    full = {name: group.child_id(task_id) for name, task_id in own.items()}  # type: ignore[no-untyped-call]
    operators = {}
    for name in settled.tasks:
        ups = [full[up] for up in _makers_stale(settled, name)]
        operators[name] = _operator(
            loaded.tasks[name], own[name], around, dag_folder, xcoms=_xcoms(settled, name, full), stale_after=ups
        )
    for up, down in settled.edges:
        operators[up].set_downstream(operators[down])
    add_path_tasks(settled, operators, ids.new, deferrable=around.slurm.deferrable)


def _makers_stale(workflow: Workflow, name: str) -> list[str]:
    """Return the tasks whose running makes the products of one stale, besides what its files show."""
    freshness, reasons = workflow.tasks[name].freshness, workflow.why.reasons[name]
    if freshness.run_when != "stale":
        return []
    return [up for up in reasons if freshness.compare == "mtime" or STATED in reasons[up]]


def _xcoms(workflow: Workflow, name: str, ids: Mapping[str, str]) -> dict[Result, FromXCom]:
    """Return what stands for the results that a task takes from others."""
    return {
        result: FromXCom(f"{{{{ ti.xcom_pull(task_ids={ids[maker]!r}) | tojson }}}}", result)
        for result in workflow.tasks[name].results
        if (maker := workflow.name_of(result.task)) is not None
    }


def _operator(
    task: Task,
    task_id: str,
    around: _Around,
    dag_folder: str,
    *,
    xcoms: Mapping[Result, FromXCom] = _NONE,
    stale_after: Iterable[str] = (),
) -> BaseOperator:
    run_on = task.run_on or around.run_on or "local"
    for_slurm, for_all = _sorted_out(task.operator_kwargs)
    given = {**around.operator_kwargs, **for_all}
    try:
        given = {**_pool(task), **given}
        _check_operator_kwargs(given, for_slurm if run_on == "local" else {})
        own = task.settings.map_paths(lambda path: _from_dag_file(path, task, dag_folder)).over(around.settings)
        fields = {
            "sewer_conn_id": around.sewer_conn_id,
            "python": own.python,
            "env": dict(own.env) or None,
            "inherit_env": own.inherit_env,
            "workdir": own.workdir,
            "doc_md": _doc(task),
        }
        if run_on == "slurm":
            fields |= _slurm_fields(task, for_slurm, around.slurm, dag_folder)
        # What is not said here is left out, so that a default argument of the DAG or of the group can say it.
        said = {name: value for name, value in fields.items() if value is not None} | given
        return _operator_class(run_on)(
            task_id=task_id,
            task_display_name=task.name,
            **_what_is_run(task, xcoms),
            run_when=task.freshness.run_when,
            compare=task.freshness.compare,
            stale_with=task.freshness.stale_with,
            stale_after=stale_after,
            **said,
        )
    except Exception as error:  # whatever Airflow makes of a person's operator_kwargs
        raise InvalidTask(f"task {task.name!r}: {error}", task.source) from error


def _what_is_run(task: Task, xcoms: Mapping[Result, FromXCom]) -> dict[str, Any]:
    def fill(marker: Marker) -> Any:
        if isinstance(marker, Result) and marker not in xcoms:
            raise InvalidTask(f"{marker!r} is the result of a task that is not here; expand the whole workflow")
        return xcoms.get(marker, marker) if isinstance(marker, Result) else marker

    inside = [*markers([task.parameters_and_flags, task.args, task.kwargs])]
    return {
        "module": task.module,
        "parameters_and_flags": filled(task.parameters_and_flags, fill, keep_ignored=True),
        "args": filled(task.args, fill, keep_ignored=True),
        "use_underscores": task.use_underscores,
        "function": task.function,
        "op_kwargs": filled(task.kwargs, fill, keep_ignored=True),
        "products": [product for product in task.products if product not in inside],
        "dependencies": [dependency for dependency in task.dependencies if dependency not in inside],
    }


def _pool(task: Task) -> dict[str, Any]:
    """Return the pool that limits how many tasks take a resource at once."""
    if len(task.resources) > 1:
        names = ", ".join(map(repr, task.resources))
        raise InvalidTask(f"resources: {names}: an Airflow task takes from one pool only; give operator_kwargs a pool")
    return next(({"pool": name, "pool_slots": amount} for name, amount in task.resources.items()), {})


def _operator_class(run_on: str) -> type[BaseOperator]:
    if run_on == "local":
        return PythonModuleOperator
    # Most DAG files name no cluster, and need not wait for what belongs to one.
    from airflow_provider_sewer.operators.slurm import SlurmModuleOperator

    return SlurmModuleOperator


def _slurm_fields(
    task: Task, operator_kwargs: Mapping[str, Any], around: SlurmSettings, dag_folder: str
) -> dict[str, Any]:
    own = SlurmSettings.checked(**operator_kwargs, folder=task.source.folder)
    own = own.map_paths(lambda path: _from_dag_file(path, task, dag_folder))
    settings = task.slurm.over(own).over(around)
    return settings._asdict() | {"slurm": dict(settings.slurm) or None}


def _sorted_out(operator_kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part what only the operator for Slurm knows from what all operators do."""
    for_slurm = {name: value for name, value in operator_kwargs.items() if name in _SLURM_FIELDS}
    return for_slurm, {name: value for name, value in operator_kwargs.items() if name not in for_slurm}


def _check_operator_kwargs(given: Mapping[str, Any], astray: Mapping[str, Any]) -> None:
    if taken := sorted(_TASK_FIELDS.intersection(given)):
        raise InvalidTask(
            f"operator_kwargs: {', '.join(map(repr, taken))} cannot stand there; "
            "say it with the task's or the group's own field"
        )
    if astray:
        raise InvalidTask(
            f"operator_kwargs: {', '.join(map(repr, sorted(astray)))} can only be said of a task that runs on Slurm; "
            "give the task run_on='slurm', or say it for the whole group"
        )


def _doc(task: Task) -> str:
    command = shown(["python", *task.call().argv])
    return f"{task.doc}\n\n```\n{command}\n```".strip()


def _from_dag_file(path: str, task: Task, dag_folder: str) -> str:
    """Write a path that lies by the workflow file as one from the DAG file.

    The folder of both can be another one on each worker, so it must not be part of the task.
    """
    return os.path.relpath(path, dag_folder) if path.startswith(task.source.folder + os.sep) else path


def _dag_folder() -> str:
    # Airflow has no public way to ask for the DAG that is being made before there is a task in it.
    dag = DagContext.get_current()
    if not isinstance(dag, DAG):
        raise InvalidWorkflow("tasks are made inside a DAG: with DAG(…):, or in a function under @dag", calling_line())
    return os.path.dirname(os.path.abspath(dag.fileloc))


class _Identifiers:
    """Gives each name an id of its own that Airflow takes."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._counts: Counter[str] = Counter()

    def new(self, name: str) -> str:
        """Return an id that no other name has."""
        base = candidate = _identifier(name)
        while candidate in self._taken:
            self._counts[base] += 1
            candidate = f"{base}_{self._counts[base] + 1}"
        self._taken.add(candidate)
        return candidate


def _identifier(name: str) -> str:
    """Write a name with the characters that Airflow allows in an id: letters, digits, dash, underscore."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:200] or "task"
