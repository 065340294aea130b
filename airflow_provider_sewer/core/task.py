"""A task: one Python module, what it is called with, and where it runs."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Union

from airflow_provider_sewer.core.arguments import detached, to_arguments
from airflow_provider_sewer.core.chain import Chain, Operand
from airflow_provider_sewer.core.errors import InvalidTask, unknown_name
from airflow_provider_sewer.core.recording import note_task
from airflow_provider_sewer.core.settings import Settings
from airflow_provider_sewer.core.slurm import SlurmSettings
from airflow_provider_sewer.core.source import calling_line
from airflow_provider_sewer.core.templates import is_template

if TYPE_CHECKING:
    import os

_FIELDS = (
    "name", "module", "parameters_and_flags", "use_underscores", "args", "python", "env", "inherit_env", "workdir",
    "depends_on", "doc", "operator_kwargs", "run_on", "slurm",
)  # fmt: skip

#: Where Airflow can run a task: on the worker, or as a job of a Slurm cluster.
PLACES = ("local", "slurm")

#: What may stand in ``depends_on``: tasks, or names of tasks.
Upstream = Union["Task", str]


class Task:
    """A Python module to run with ``python -m``, as a node of a workflow.

    Paths are relative to the workflow file they are written in.

    :param name: what people call it; unique in a workflow.
    :param module: dotted name of the module; it has to be installed for the interpreter.
    :param parameters_and_flags: what becomes ``--key value`` and ``--flag``
        (see :mod:`airflow_provider_sewer.core.arguments`).
    :param use_underscores: keep ``_`` in keys instead of writing ``-``.
    :param args: verbatim arguments, put before the parameters.
    :param python: interpreter of this task.
    :param env: environment variables of this task.
    :param inherit_env: ``True``, or names, to inherit more than the short list.
    :param workdir: working directory of this task.
    :param depends_on: tasks, or their names, that have to succeed before this one.
    :param doc: what it is for, in Markdown; shown by Airflow.
    :param operator_kwargs: arguments of Airflow's operator for this task (pool, queue, retries, …).
    :param run_on: ``"local"`` or ``"slurm"``: where Airflow runs it. A plain run is always on this machine.
    :param slurm: parameters of its Slurm job (see :data:`airflow_provider_sewer.core.slurm.RESOURCES`).
    :raises InvalidTask: when something in it cannot be run, naming the field.
    """

    def __init__(
        self,
        name: str,
        module: str,
        parameters_and_flags: Mapping[str, Any] | None = None,
        use_underscores: bool = False,
        *,
        args: Iterable[Any] = (),
        python: str | os.PathLike[str] | None = None,
        env: Mapping[str, Any] | None = None,
        inherit_env: bool | Iterable[str] | None = None,
        workdir: str | os.PathLike[str] | None = None,
        depends_on: Upstream | Iterable[Upstream] = (),
        doc: str = "",
        operator_kwargs: Mapping[str, Any] | None = None,
        run_on: str | None = None,
        slurm: Mapping[str, Any] | None = None,
        **unknown: Any,
    ) -> None:
        self.source = calling_line()
        self.identity = object()  # shared with the copies that have other settings
        try:
            for field in unknown:
                raise InvalidTask(unknown_name("field", field, _FIELDS))
            self.name = checked_name(name)
            self.module = checked_module(module)
            self.parameters_and_flags = dict(_mapping("parameters_and_flags", parameters_and_flags))
            if not isinstance(use_underscores, bool):
                raise InvalidTask(f"use_underscores: True or False is needed, not {use_underscores!r}")
            self.use_underscores = use_underscores
            self.args = _arguments(args)
            self.settings = Settings.checked(
                python=python, env=env, inherit_env=inherit_env, workdir=workdir, folder=self.source.folder
            )
            self.depends_on = _upstream(depends_on)
            self.doc = _text("doc", doc)
            self.operator_kwargs = dict(_mapping("operator_kwargs", operator_kwargs))
            self.run_on = checked_place(run_on)
            self.slurm = SlurmSettings.checked(slurm=slurm)
            self.arguments()
            self.parameters_and_flags, self.args = detached(self.parameters_and_flags), tuple(detached(self.args))
        except InvalidTask as error:
            label = f"task {name!r}: " if isinstance(name, str) and name else "Task(…): "
            raise InvalidTask(label + str(error), self.source) from None
        note_task(self)

    def arguments(self) -> list[str]:
        """Return the arguments of the module as a command line has them."""
        return to_arguments(self.parameters_and_flags, use_underscores=self.use_underscores, args=self.args)

    def with_defaults(self, settings: Settings) -> Task:
        """Return this task, its own settings completed by ``settings``."""
        other = copy.copy(self)
        other.settings = self.settings.over(settings)
        return other

    def run(
        self,
        path_to_python: str | os.PathLike[str] | None = None,
        env: Mapping[str, Any] | None = None,
        workdir: str | os.PathLike[str] | None = None,
    ) -> None:
        """Run the task, or add it to the workflow that is being recorded.

        :raises WorkflowFailed: when it ran and did not succeed.
        """
        Chain.of(self).run(path_to_python, env, workdir)

    def __rshift__(self, other: Operand) -> Chain:
        """``self >> other``: other runs after self."""
        return Chain.of(self) >> other

    def __lshift__(self, other: Operand) -> Chain:
        """``self << other``: self runs after other."""
        return Chain.of(self) << other

    def __rrshift__(self, other: Operand) -> Chain:
        """``[a, b] >> self``."""
        return Chain.of(other) >> self

    def __rlshift__(self, other: Operand) -> Chain:
        """``[a, b] << self``."""
        return Chain.of(other) << self

    def __repr__(self) -> str:
        return f"Task({self.name!r}, {self.module!r})"


def checked_name(name: Any) -> str:
    """Return a task's name, or say why it is none.

    :raises InvalidTask: for an empty name, or one that does not fit on a line.
    """
    if not isinstance(name, str) or not name.strip():
        raise InvalidTask(f"name: a task needs a name, not {name!r}")
    if not name.isprintable():
        raise InvalidTask(f"name: {name!r} holds a line break or another unprintable character")
    return name


def checked_module(module: Any) -> str:
    """Return a module's dotted name, or say why it is none; templates pass.

    :raises InvalidTask: for anything that ``python -m`` could not take.
    """
    if not isinstance(module, str):
        raise InvalidTask(f"module: {module!r} is no dotted name such as 'package.module'")
    is_file = module.endswith(".py") or "/" in module
    if is_template(module) or (all(part.isidentifier() for part in module.split(".")) and not is_file):
        return module
    guess = re.sub(r"\.py$", "", module).strip("./").replace("/", ".")
    hint = f"; a file cannot be run, only an installed module: {guess!r}?" if is_file else ""
    raise InvalidTask(f"module: {module!r} is no dotted name such as 'package.module'{hint}")


def checked_place(run_on: Any) -> str | None:
    """Return where a task is to run, or ``None`` if that was not said.

    :raises InvalidTask: for a place that there is not.
    """
    if run_on is not None and run_on not in PLACES:
        raise InvalidTask(f"run_on: {' or '.join(map(repr, PLACES))} is needed, not {run_on!r}")
    return run_on  # type: ignore[no-any-return]  # one of the places, which are text


def _mapping(field: str, value: Any) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise InvalidTask(f"{field}: a mapping is needed, not {type(value).__name__}")
    return value or {}


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidTask(f"{field}: text is needed, not {type(value).__name__}")
    return value


def _arguments(args: Any) -> tuple[Any, ...]:
    if isinstance(args, (str, bytes, Mapping, AbstractSet)) or not isinstance(args, Iterable):
        raise InvalidTask(f"args: a list of arguments is needed, not {args!r}")
    return tuple(args)


def _upstream(depends_on: Any) -> tuple[Upstream, ...]:
    is_several = isinstance(depends_on, Iterable) and not isinstance(depends_on, (str, bytes, Mapping))
    given = tuple(depends_on) if is_several else (depends_on,)
    for item in given:
        if not isinstance(item, (Task, str)):
            raise InvalidTask(f"depends_on: tasks or names of tasks are needed, not {item!r}")
    return given
