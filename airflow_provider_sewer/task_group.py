"""A workflow file → Airflow tasks: as a TaskGroup, or one by one."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Union

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
    from airflow.sdk import XComArg
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    from airflow_provider_sewer.core.environment import Inherit
    from airflow_provider_sewer.core.loop import MappedTask
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

#: An Airflow task, or a mapped one.
Operator = Union[BaseOperator, "MappedOperator"]

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

        loaded = read_workflow(file, workflow, _reader(settings, dag_folder, jobs))
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


def _reader(settings: Settings, dag_folder: str, jobs: str | None) -> Settings:
    """Return what a file is read with: of what its tasks get, what is known before anything runs."""
    if jobs is not None:
        raise InvalidTask("jobs: this is for stages in YAML, which import nothing; leave out read_with_interpreter")
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
    """Make the Airflow tasks: one of each task, one of those that were mapped, and what their paths need besides."""
    ids = _Identifiers()
    parts = _parts(settled)
    own = {part: ids.new(part) for part in dict.fromkeys(parts.values())}
    full = {part: group.child_id(task_id) for part, task_id in own.items()}  # type: ignore[no-untyped-call]
    wiring = _Wiring(settled, parts, full)
    operators: dict[str, Operator] = {}
    for name, part in parts.items():
        if part in operators:
            continue
        if mapped := settled.mapped.get(part):
            operators[part] = _mapped_operator(mapped, loaded, own[part], around, dag_folder, wiring)
        else:
            operators[part] = _operator(loaded.tasks[name], own[part], around, dag_folder, wiring)
    for up, down in dict.fromkeys((parts[up], parts[down]) for up, down in settled.edges):
        operators[up].set_downstream(operators[down])
    of_tasks = {name: operators[part] for name, part in parts.items()}
    add_path_tasks(settled, of_tasks, ids.new, deferrable=around.slurm.deferrable)


def _parts(workflow: Workflow) -> dict[str, str]:
    """Return for each task what it is a part of in Airflow: a mapped task, or nothing but itself."""
    parts = {name: name for name in workflow.tasks}
    for mapped in workflow.mapped.values():
        parts |= dict.fromkeys((task.name for task in mapped), mapped.name)
    return parts


class _Wiring(NamedTuple):
    """What one Airflow task knows of others.

    :param workflow: the workflow, its edges known.
    :param parts: for each task, what it is a part of in Airflow.
    :param ids: the ids of these.
    """

    workflow: Workflow
    parts: Mapping[str, str]
    ids: Mapping[str, str]

    def xcoms(self, task: Task) -> dict[Result, FromXCom]:
        """Return what stands for the results that a task takes from others."""
        makers = {result: self.workflow.name_of(result.task) for result in task.results}
        return {result: self._xcom(result, maker) for result, maker in makers.items() if maker is not None}

    def stale_after(self, name: str) -> list[str]:
        """Return the Airflow tasks whose running makes the products of a task stale, besides what its files show."""
        freshness, reasons = self.workflow.tasks[name].freshness, self.workflow.why.reasons[name]
        if freshness.run_when != "stale":
            return []
        ups = [up for up in reasons if freshness.compare == "mtime" or STATED in reasons[up]]
        return list(dict.fromkeys(self.ids[self.parts[up]] for up in ups if self.parts[up] == up))

    def _xcom(self, result: Result, maker: str) -> FromXCom:
        mapped = self.workflow.mapped.get(self.parts[maker])
        task_id = self.ids[self.parts[maker]]
        if mapped is None:
            return FromXCom(f"{{{{ ti.xcom_pull(task_ids={task_id!r}) | tojson }}}}", result)
        if not mapped.is_known_beforehand:
            return FromXCom(f"{{{{ ti.xcom_pull(task_ids={task_id!r}) | list | tojson }}}}", result)
        index = [task.name for task in mapped].index(maker)
        return FromXCom(f"{{{{ ti.xcom_pull(task_ids={task_id!r}, map_indexes={index}) | tojson }}}}", result)


def _mapped_operator(
    mapped: MappedTask, loaded: Workflow, task_id: str, around: _Around, dag_folder: str, wiring: _Wiring
) -> MappedOperator:
    """Make one mapped Airflow task of tasks that differ by some values only."""
    first = loaded.tasks[mapped[0].name]
    try:
        kind, fields = _fields(first, around, dag_folder)
        fields |= {"task_display_name": mapped.name, "doc_md": _doc(mapped.template)}
        partial = kind.partial(
            task_id=task_id,
            map_index_template=_index_template(mapped),
            stale_after=wiring.stale_after(first.name),
            **fields,
        )
        if mapped.is_known_beforehand:
            tasks = [loaded.tasks[task.name] for task in mapped]
            return partial.expand_kwargs([_what_is_run(task, wiring.xcoms(task)) for task in tasks])
        return partial.expand_kwargs(_rows(mapped, wiring))
    except Exception as error:  # whatever Airflow makes of it
        raise InvalidTask(f"task {mapped.name!r}: {error}", mapped.source) from error


def _rows(mapped: MappedTask, wiring: _Wiring) -> XComArg:
    """Return what a mapped task is run with whose values another task leaves."""
    results = {key: value for key, value in mapped.values.items() if isinstance(value, Result)}
    ((key, result), *more) = results.items()
    if more or len(mapped.values) > 1:
        raise InvalidTask("map: over a result and anything else at once is more than Airflow can do; map over one list")
    if result.keys:
        raise InvalidTask(f"map: Airflow maps over a whole result, not over a part as {result!r} is")
    maker = wiring.workflow.name_of(result.task)
    if maker is None or maker in wiring.workflow.mapped:
        raise InvalidTask(f"map: {result!r} is the result of a task that is not run here")
    xcoms = {known: xcom for known, xcom in wiring.xcoms(mapped[0]).items() if known != result}
    dag: Any = DagContext.get_current()
    output: XComArg = dag.get_task(wiring.ids[maker]).output
    return output.map(lambda value: _what_is_run(mapped.task_of({key: value}), xcoms))


def _index_template(mapped: MappedTask) -> str:
    field = "parameters_and_flags" if mapped.template.function is None else "op_kwargs"
    return ", ".join(f"{key}={{{{ task.{field}[{key!r}] }}}}" for key in mapped.values)


def _operator(
    task: Task, task_id: str, around: _Around, dag_folder: str, wiring: _Wiring | None = None
) -> BaseOperator:
    try:
        kind, fields = _fields(task, around, dag_folder)
        return kind(
            task_id=task_id,
            stale_after=wiring.stale_after(task.name) if wiring else (),
            **_what_is_run(task, wiring.xcoms(task) if wiring else {}),
            **fields,
        )
    except Exception as error:  # whatever Airflow makes of a person's operator_kwargs
        raise InvalidTask(f"task {task.name!r}: {error}", task.source) from error


def _fields(task: Task, around: _Around, dag_folder: str) -> tuple[type[BaseOperator], dict[str, Any]]:
    """Return the operator of a task, and its arguments but for what is run."""
    run_on = task.run_on or around.run_on or "local"
    for_slurm, for_all = _sorted_out(task.operator_kwargs)
    given = {**_pool(task), **around.operator_kwargs, **for_all}
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
    always = {
        "task_display_name": task.name,
        "run_when": task.freshness.run_when,
        "compare": task.freshness.compare,
        "stale_with": task.freshness.stale_with,
    }
    return _operator_class(run_on), always | said


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
