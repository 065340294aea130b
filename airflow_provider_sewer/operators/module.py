"""Run a Python module in an external interpreter, as an Airflow task."""

from __future__ import annotations

import logging
import os
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_provider_sewer.core.arguments import to_arguments
from airflow_provider_sewer.core.errors import InvalidTask, ModuleFailed
from airflow_provider_sewer.core.settings import Settings
from airflow_provider_sewer.core.task import checked_module
from airflow_provider_sewer.hooks.sewer import SewerHook
from airflow_provider_sewer.runners.module import GRACE, ModuleRun
from airflow_provider_sewer.runners.output import Stream

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_sewer.core.environment import Inherit

# Both streams are information: much of what is written to stderr is progress. The logger's name tells
# them apart. It lies below `airflow.task`, whose level Airflow sets itself.
_LOGGERS = {stream: logging.getLogger(f"airflow.task.module.{stream.value}") for stream in Stream}


class PythonModuleOperator(BaseOperator):
    """Run ``python -m module`` with parameters and flags in an interpreter of your choice.

    The module needs no Airflow. Its output is logged as it comes; the JSON value it writes to the file
    named by ``$SEWER_RESULT_FILE``, or else its last line of stdout, becomes the XCom. When the task is
    killed, cleared, marked failed or timed out, all that the module has started ends with it.

    Relative paths are taken from the folder of the DAG file.

    :param module: dotted name of the module. (templated)
    :param parameters_and_flags: what becomes ``--key value`` and ``--flag``
        (see :mod:`airflow_provider_sewer.core.arguments`). (templated)
    :param args: verbatim arguments, put before the parameters. (templated)
    :param use_underscores: keep ``_`` in keys instead of writing ``-``.
    :param python: path of the interpreter, or a name to look up on PATH. (templated)
    :param env: environment variables to give. (templated)
    :param inherit_env: ``True``, or names, to inherit more of the worker's environment than the short list.
    :param workdir: working directory; the worker's own if neither this nor the connection says. (templated)
    :param sewer_conn_id: a ``sewer`` connection for whatever is not said here. (templated)
    :param skip_on_exit_code: exit codes that mean "skip" instead of "failed".
    :param termination_grace_period: seconds between SIGTERM and SIGKILL when the module is ended.
    """

    template_fields: Sequence[str] = (
        "module", "parameters_and_flags", "args", "python", "env", "workdir", "sewer_conn_id",
    )  # fmt: skip
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "parameters_and_flags": "json",
        "args": "json",
        "env": "json",
    }
    ui_color = "#d7e3cf"

    def __init__(
        self,
        *,
        module: str,
        parameters_and_flags: Mapping[str, Any] | None = None,
        args: Iterable[Any] = (),
        use_underscores: bool = False,
        python: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        inherit_env: Inherit | None = None,
        workdir: str | os.PathLike[str] | None = None,
        sewer_conn_id: str | None = None,
        skip_on_exit_code: int | Container[int] | None = None,
        termination_grace_period: float = GRACE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.module = module
        self.parameters_and_flags = parameters_and_flags
        self.args = args
        self.use_underscores = use_underscores
        self.python = python
        self.env = env
        self.inherit_env = inherit_env
        self.workdir = workdir
        self.sewer_conn_id = sewer_conn_id
        self.skip_on_exit_code = skip_on_exit_code
        self.termination_grace_period = termination_grace_period
        self._module_run: ModuleRun | None = None
        self._killed = False
        self._check_what_is_known()

    def execute(self, context: Context) -> Any:
        """Run the module and return its result.

        :raises SewerError: when it cannot be run, fails, or is stopped.
        """
        try:
            self._module_run = self._prepare(os.path.dirname(str(context["dag"].fileloc)))
        except InvalidTask as error:
            raise AirflowFailException(str(error)) from None  # trying again would not help
        if self._killed:
            self._module_run.stop()
        try:
            return self._module_run.run(_log_output, on_start=self._log_start).value
        except ModuleFailed as error:
            if error.exit_code is not None and error.exit_code in self._skip_codes():
                raise AirflowSkipException(f"{self.module} exited with {error.exit_code}") from None
            raise

    def on_kill(self) -> None:
        """Have the module and all it has started ended; :meth:`execute` waits for that."""
        self._killed = True
        if self._module_run:
            self._module_run.stop()

    def _prepare(self, folder: str) -> ModuleRun:
        own = Settings.checked(
            python=self.python, env=self.env, inherit_env=self.inherit_env, workdir=self.workdir, folder=folder
        )
        hook = SewerHook(self.sewer_conn_id) if self.sewer_conn_id else None
        return ModuleRun(
            checked_module(self.module),
            to_arguments(self.parameters_and_flags or {}, use_underscores=self.use_underscores, args=self.args or ()),
            own.over(hook.settings) if hook else own,
            grace=self.termination_grace_period,
            secrets=tuple(hook.secret_env.values()) if hook else (),
        )

    def _log_start(self, command_line: str, workdir: str | None) -> None:
        self.log.info("Running %s in %s", command_line, workdir or os.getcwd())

    def _skip_codes(self) -> Container[int]:
        codes = self.skip_on_exit_code
        return () if codes is None else (codes,) if isinstance(codes, int) else codes

    def _check_what_is_known(self) -> None:
        """Name what is wrong while the DAG is parsed, as far as it is no template and no XCom."""
        known = {field: _known(getattr(self, field)) for field in self.template_fields}
        try:
            checked_module(known["module"])
            to_arguments(known["parameters_and_flags"] or {}, args=known["args"] or ())
            Settings.checked(
                python=known["python"], env=known["env"], inherit_env=self.inherit_env, workdir=known["workdir"]
            )
        except InvalidTask as error:
            raise InvalidTask(f"task {self.task_id!r}: {error}") from None


def _log_output(stream: Stream, pieces: Sequence[str]) -> None:
    log = _LOGGERS[stream]
    for piece in pieces:
        log.info("%s", piece.removesuffix("\n"))


def _known(value: Any) -> Any:
    """Return a value without what is known only at run time; a whole XCom is no value at all."""
    if _is_reference(value):
        return None
    if isinstance(value, Mapping):
        return {key: _known(item) for key, item in value.items() if not _is_reference(item)}
    if isinstance(value, (list, tuple)):
        return [_known(item) for item in value if not _is_reference(item)]
    return value


def _is_reference(value: Any) -> bool:
    """Tell whether Airflow resolves this later: an XComArg, a DAG's parameter, a literal."""
    return callable(getattr(value, "iter_references", None)) and callable(getattr(value, "resolve", None))
