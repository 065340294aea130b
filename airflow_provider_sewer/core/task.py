"""A task: one Python module or function, its arguments, its products and dependencies, and where it runs."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Callable, Union

from airflow_provider_sewer.core.call import Call, checked_kwargs, function_call, module_call
from airflow_provider_sewer.core.chain import Chain, Operand
from airflow_provider_sewer.core.cli_args import to_arguments
from airflow_provider_sewer.core.errors import InvalidTask, Key, unknown_name
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.groups import checked_group, inner_group
from airflow_provider_sewer.core.mapping import MappedTask, checked_values, mapped_task
from airflow_provider_sewer.core.masking import Secrets
from airflow_provider_sewer.core.paths import Dependency, PathMarker, Product
from airflow_provider_sewer.core.placeholders import (
    Marker,
    Result,
    as_written,
    deep_copy,
    markers,
    replace_placeholders,
    unignored,
)
from airflow_provider_sewer.core.recording import record_task
from airflow_provider_sewer.core.resources import checked_resources
from airflow_provider_sewer.core.secret_detection import exposed, secret_texts
from airflow_provider_sewer.core.size_limits import bounded_list
from airflow_provider_sewer.core.slurm_settings import UNSET as UNSET_SLURM
from airflow_provider_sewer.core.slurm_settings import SlurmSettings
from airflow_provider_sewer.core.source import calling_line
from airflow_provider_sewer.core.staleness import RunPolicy
from airflow_provider_sewer.core.task_fields import (
    FIELDS,
    checked_args,
    checked_mapping,
    checked_name,
    checked_paths,
    checked_run_on,
    checked_stream,
    checked_string,
    checked_tags,
    checked_target,
    reject_shared_stdout,
)

#: Items of ``depends_on``: tasks, also mapped ones, or names of tasks.
Upstream = Union["Task", MappedTask, str]

#: Items of ``products`` and ``dependencies``; ``stdin`` and ``stdout``.
Path = Union[str, "os.PathLike[str]"]

#: Resolves a placeholder: a path or a result.
Fill = Callable[[Marker], Any]


class Task:
    """Node of a workflow: a Python module to run with ``python -m``, or a function to call.

    Relative paths of interpreter and working directory are resolved against the folder of the workflow file; those of
    products and dependencies against the working directory of the task.

    :param name: task name, unique within the workflow.
    :param module: dotted name of the module; it must be installed for the interpreter.
    :param parameters_and_flags: passed as ``--key value`` and ``--flag``
        (see :mod:`airflow_provider_sewer.core.cli_args`).
    :param use_underscores: keep ``_`` in keys instead of writing ``-``.
    :param args: verbatim arguments, put before the parameters.
    :param function: instead of a module, ``package.module:function``; its interpreter does not need this package.
    :param kwargs: its keyword arguments, as JSON values.
    :param python: interpreter of this task.
    :param env: environment variables of this task.
    :param inherit_env: ``True``, or names, to inherit more than the short list.
    :param workdir: working directory of this task.
    :param depends_on: tasks, or their names, that must succeed before this one.
    :param products: paths that it creates, besides those in its parameters.
    :param dependencies: paths that it needs, besides those in its parameters.
    :param stdin: the file that it reads as its stdin, a dependency; without it, stdin is empty.
    :param stdout: the file that its stdout is written to, byte for byte, a product; stderr is logged. Its last line is
        not the result then.
    :param run_when: ``"always"``, ``"missing"``, ``"stale"`` or ``"never"``
        (see :mod:`airflow_provider_sewer.core.staleness`).
    :param compare: how dependencies are compared with those of the last run: by ``"mtime"`` or ``"content"``.
    :param stale_with: further causes of staleness, besides dependencies and parameters: ``"code"``,
        ``"environment"``.
    :param resources: amounts of limited resources that it needs, such as ``{"gpu": 1}``.
    :param tags: tags for ``tag:`` selectors (see :mod:`airflow_provider_sewer.core.selection`).
    :param group: its group in Airflow; ``"a.b"`` is the group b in the group a.
    :param doc: description in Markdown; shown by Airflow.
    :param operator_kwargs: arguments of Airflow's operator for this task (pool, queue, retries, …).
    :param run_on: ``"local"`` or ``"slurm"``: where Airflow runs it. A plain run is on this machine; with
        ``sppe run --on slurm``, all tasks except those with ``"local"`` run as jobs.
    :param slurm: parameters of its Slurm job (see :data:`airflow_provider_sewer.core.slurm_parameters.RESOURCES`).
    :param retry_with: changes of the request of a retry of that job, by the error of the attempt before (see
        :mod:`airflow_provider_sewer.core.retry_requests`).
    :raises InvalidTask: when a field is not valid, naming it.
    """

    def __init__(
        self,
        name: str,
        module: str | None = None,
        parameters_and_flags: Mapping[str, Any] | None = None,
        use_underscores: bool = False,
        *,
        args: Iterable[Any] = (),
        function: str | None = None,
        kwargs: Mapping[str, Any] | None = None,
        python: str | os.PathLike[str] | None = None,
        env: Mapping[str, Any] | None = None,
        inherit_env: bool | Iterable[str] | None = None,
        workdir: str | os.PathLike[str] | None = None,
        depends_on: Upstream | Iterable[Upstream] = (),
        products: Path | Iterable[Path] = (),
        dependencies: Path | Iterable[Path] = (),
        stdin: Path | None = None,
        stdout: Path | None = None,
        run_when: str = "always",
        compare: str = "mtime",
        stale_with: str | Iterable[str] = (),
        resources: Mapping[str, int] | None = None,
        tags: str | Iterable[str] = (),
        group: str | None = None,
        doc: str = "",
        operator_kwargs: Mapping[str, Any] | None = None,
        run_on: str | None = None,
        slurm: Mapping[str, Any] | None = None,
        retry_with: Mapping[str, Any] | None = None,
        **unknown: Any,
    ) -> None:
        self.source = calling_line()
        self.identity = object()  # shared with the copies that have other settings
        self.mapped_task: MappedTask | None = None
        self.is_mapped = False
        self.secrets: Mapping[str, str] = {}
        try:
            for field in unknown:
                raise InvalidTask(unknown_name("field", field, FIELDS), at=(Key(field),))
            self.name = checked_name(name)
            self.module, self.function = checked_target(module, function)
            self.parameters_and_flags = deep_copy(checked_mapping("parameters_and_flags", parameters_and_flags))
            if not isinstance(use_underscores, bool):
                raise InvalidTask(
                    f"use_underscores must be a bool, got {use_underscores!r:.200}", at=("use_underscores",)
                )
            self.use_underscores = use_underscores
            self.args = tuple(deep_copy(checked_args(args)))
            self.kwargs = deep_copy(checked_kwargs(checked_mapping("kwargs", kwargs)))
            folder = "" if python is None and workdir is None else self.source.folder
            self.settings = ExecutionSettings.checked(
                python=python, env=env, inherit_env=inherit_env, workdir=workdir, folder=folder
            )
            self.depends_on = _upstream(depends_on)
            self._listed = (
                checked_paths("products", products, Product),
                checked_paths("dependencies", dependencies, Dependency),
            )  # fmt: skip
            self.stdin = checked_stream("stdin", stdin, Dependency)
            self.stdout = checked_stream("stdout", stdout, Product)
            self.note_arguments()
            self.run_policy = RunPolicy.checked(run_when, compare, stale_with, has_products=bool(self.products))
            self.resources = checked_resources(checked_mapping("resources", resources))
            self.tags = checked_tags(tags)
            self.group = checked_group(group)
            self.doc = checked_string("doc", doc)
            self.operator_kwargs = dict(checked_mapping("operator_kwargs", operator_kwargs))
            self.run_on = checked_run_on(run_on)
            is_unset = slurm is None and retry_with is None
            self.slurm = UNSET_SLURM if is_unset else SlurmSettings.checked(slurm=slurm, retry_with=retry_with)
        except InvalidTask as error:
            label = f"task {name!r}: " if isinstance(name, str) and name else "Task(…): "
            raise InvalidTask(label + str(error), self.source, at=error.at) from None
        record_task(self)

    @property
    def result(self) -> Result:
        """Return the placeholder of this task's result, for the parameters of later tasks."""
        return Result(self)

    def arguments(self) -> list[str]:
        """Return the command line arguments of the module, with placeholders as written."""
        return [*self.written.argv[2:]]

    def known_secrets(self) -> dict[str, str]:
        """Return the secrets that the task has under any name, each with the name of a variable that could hold it."""
        return {**self.secrets, **secret_texts(self.settings.env, [self.written.argv, self.slurm.slurm])}

    def exposed_secrets(self) -> list[str]:
        """Return descriptions of secrets that others could read, without the secrets."""
        secrets = Secrets(self.secrets)
        given = self.parameters_and_flags, self.args, self.kwargs
        parameters, args, kwargs = replace_placeholders(given, as_written)
        found = [*exposed(parameters, args, kwargs, self.slurm.slurm, secrets), *self._named_secrets(secrets)]
        return [f"task {secrets.mask(self.name)!r}: {secret}" for secret in found]

    def _named_secrets(self, secrets: Secrets) -> Iterator[str]:
        """Return a description of each name that contains a secret argument of the workflow."""
        paths = [marker.path for marker in (*self.products, *self.dependencies)]
        texts = {"name": [self.name], "group": [self.group], "tags": self.tags, "doc": [self.doc], "path": paths}
        for field, written in texts.items() if secrets else ():
            if name := next(secrets.names_in("\n".join(filter(None, written))), None):
                yield f"the secret {name} is in its {field}, which others can see; leave the secret out"

    def call(self, fill: Fill = as_written) -> Call:
        """Return the call that an interpreter runs.

        :param fill: resolves the placeholders; without it, they are shown as written.
        :raises InvalidTask: when an argument cannot be passed to the module or function.
        """
        given = self.parameters_and_flags, self.args, self.kwargs
        parameters, args, kwargs = replace_placeholders(given, fill) if self.markers else given
        if self.function is None:
            if kwargs:
                raise InvalidTask("kwargs require a function; give a module parameters_and_flags", at=(Key("kwargs"),))
            arguments = to_arguments(parameters, use_underscores=self.use_underscores, args=args)
            return self._redirected(module_call(self.target, arguments), fill)
        if parameters or args:
            at = Key("parameters_and_flags" if parameters else "args")
            raise InvalidTask("parameters_and_flags and args require a module; give a function kwargs", at=(at,))
        return self._redirected(function_call(self.function, kwargs), fill)

    def _redirected(self, call: Call, fill: Fill) -> Call:
        stdin, stdout = (None if each is None else os.fspath(fill(each)) for each in (self.stdin, self.stdout))
        return call._replace(stdin=stdin, stdout=stdout)

    def signature(self, fill: Fill = as_written) -> list[Any]:
        """Return the values that identify this task's command; ignored values do not count.

        :param fill: as for :meth:`call`.
        """
        values = unignored([list(self.parameters_and_flags.items()), list(self.args), list(self.kwargs.items())])
        products = [product.path for product in self.products]
        streams = [stream and stream.path for stream in (self.stdin, self.stdout)]
        return [self.target, replace_placeholders(values, fill), self.use_underscores, products, streams]

    def is_same(self, other: Task) -> bool:
        """Return whether another task has the same command, products, dependencies and settings."""
        return (
            self.signature() == other.signature()
            and self.products == other.products
            and self.dependencies == other.dependencies
            and self.run_policy == other.run_policy
            and self.resources == other.resources
            and self.settings == other.settings
            and self.run_on == other.run_on
            and self.slurm == other.slurm
        )

    def note_arguments(self) -> None:
        """Derive its target, its call as written, and the paths and results of other tasks from its fields.

        :raises InvalidTask: when an argument cannot be passed to the module or function.
        """
        arguments = markers([self.args, self.parameters_and_flags, self.kwargs])
        reject_shared_stdout(self.stdout, markers([arguments, self._listed, self.stdin]))
        self.markers = [*arguments, *markers([self.stdin, self.stdout])]
        self.target = self.module or self.function or ""
        self.written = self.call()
        self.results = tuple(dict.fromkeys(each for each in self.markers if isinstance(each, Result)))
        inside = [each for each in self.markers if isinstance(each, PathMarker)]
        products, dependencies = self._listed
        produced = [*(each for each in inside if isinstance(each, Product)), *products]
        needed = [*(each for each in inside if isinstance(each, Dependency)), *dependencies]
        for marker in (*produced, *needed):
            if not marker.path:
                raise InvalidTask(f"{marker!r} must have a path; only in an annotation it has none")
        # A module that is not given a path cannot write to a staging path.
        own = (each if each in inside else each.under_real_name() for each in produced)
        self.products, self.dependencies = tuple(dict.fromkeys(own)), tuple(dict.fromkeys(needed))

    def with_defaults(self, settings: ExecutionSettings) -> Task:
        """Return this task, with its own settings completed by ``settings``."""
        return self.with_settings(self.settings.with_fallback(settings))

    def with_settings(self, settings: ExecutionSettings) -> Task:
        """Return this task with other settings."""
        other = copy.copy(self)
        other.settings = settings
        return other

    def with_secrets(self, secrets: Mapping[str, str]) -> Task:
        """Return this task, which masks these values too.

        :param secrets: secrets among the arguments of its workflow, each with its name; it can use them anywhere.
        """
        if not secrets:
            return self
        other = copy.copy(self)
        other.secrets = {**self.secrets, **secrets}
        return other

    def renamed(self, name: str) -> Task:
        """Return this task under another name."""
        other = copy.copy(self)
        other.name = name
        return other

    def in_group(self, group: str) -> Task:
        """Return this task, with its own group inside the given one."""
        if not group:
            return self
        other = copy.copy(self)
        other.group = inner_group(group, self.group)
        return other

    def map(self, **values: Any) -> MappedTask:
        """Map the task over values: one task for each, and several lists in parallel like ``zip``.

        Paths of products and dependencies can name the values: ``Product("build/{n}/model.npz")``.

        :param values: a list of values for each parameter that differs.
        :raises InvalidTask: when the lists are of different lengths, or two tasks would produce the same path.
        """
        return mapped_task(self, checked_values(values, self.name), each_with_each=False)

    def map_product(self, **values: Any) -> MappedTask:
        """Map the task over each combination of values.

        :param values: as for :meth:`map`.
        """
        return mapped_task(self, checked_values(values, self.name), each_with_each=True)

    def with_values(self, name: str, values: Mapping[str, Any], change: Callable[[PathMarker], PathMarker]) -> Task:
        """Return another task, with the given parameters replaced or added.

        :param name: its name.
        :param values: parameters of the module, or keyword arguments of the function.
        :param change: returns the replacement of a path.
        """

        def exchanged(value: Any) -> Any:
            return replace_placeholders(
                value, lambda each: change(each) if isinstance(each, PathMarker) else each, keep_ignored=True
            )

        other = copy.copy(self)
        other.source, other.identity, other.is_mapped = calling_line(), object(), False
        field = "parameters_and_flags" if self.function is None else "kwargs"
        other.name = checked_name(name)
        other.args = tuple(exchanged(self.args))
        setattr(other, field, exchanged({**getattr(self, field), **values}))
        other.kwargs = checked_kwargs(other.kwargs)
        other._listed = exchanged(self._listed)
        other.stdin, other.stdout = exchanged(self.stdin), exchanged(self.stdout)
        other.note_arguments()
        record_task(other)
        return other

    def run(
        self,
        path_to_python: str | os.PathLike[str] | None = None,
        env: Mapping[str, Any] | None = None,
        workdir: str | os.PathLike[str] | None = None,
    ) -> None:
        """Run the task, or add it to the workflow that is being recorded.

        :raises WorkflowFailed: when the run failed.
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
        return f"Task({self.name!r}, {self.target!r})"


def _upstream(depends_on: Any) -> tuple[Task | str, ...]:
    if type(depends_on) in (tuple, list) and not depends_on:
        return ()
    is_several = isinstance(depends_on, Iterable) and not isinstance(depends_on, (str, bytes, Mapping))
    given = bounded_list("depends_on", depends_on) if is_several else [depends_on]
    upstream: list[Task | str] = []
    for item in given:
        if not isinstance(item, (Task, MappedTask, str)):
            raise InvalidTask(f"depends_on must contain tasks or names of tasks, got {item!r:.200}")
        upstream += item if isinstance(item, MappedTask) else (item,)
    return tuple(upstream)
