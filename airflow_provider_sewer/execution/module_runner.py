"""Execution of one module: its settings are checked, its output is followed, its result is read."""

from __future__ import annotations

import itertools
import os
from contextlib import ExitStack, suppress
from textwrap import indent
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.command import Command, interpreter_command, interpreter_options, shown_call
from airflow_provider_sewer.core.environment import RESULT_FILE, UNBUFFERED, build_environment
from airflow_provider_sewer.core.errors import (
    InterpreterError,
    ModuleFailed,
    ModuleNotFound,
    ModuleTerminated,
)
from airflow_provider_sewer.core.secret_detection import secret_texts
from airflow_provider_sewer.execution.activation import activated
from airflow_provider_sewer.execution.interpreter import check_workdir, known_interpreter, missing_modules
from airflow_provider_sewer.execution.module_errors import NO_MAIN, exit_description, lacks_main, module_not_found_line
from airflow_provider_sewer.execution.module_result import read_result, reject_missing_result
from airflow_provider_sewer.execution.orphan_reaper import OrphanReaper
from airflow_provider_sewer.execution.output import Masker, Sink, Stream, Tail
from airflow_provider_sewer.execution.process import GRACE, Process

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from airflow_provider_sewer.core.call import Call
    from airflow_provider_sewer.core.execution_settings import ExecutionSettings
    from airflow_provider_sewer.execution.process import Exit


#: Numbers that distinguish the files of runs in one folder.
_NUMBERS = itertools.count(1)


class RunEnvironment(NamedTuple):
    """Properties that all modules of a process share.

    :param grace: seconds between SIGTERM and SIGKILL when a module is stopped.
    :param supervisor: pid of the process that modules are run for; when it ends, they are stopped.
    :param guardian: ends them if this process dies; by default, each has its own.
    :param variables: the environment variables that they can inherit; by default, those of this process.
    :param assigned: variables that the run sets; those that a task sets itself override them.
    """

    grace: float = GRACE
    supervisor: int | None = None
    guardian: OrphanReaper | None = None
    variables: Mapping[str, str] | None = None
    assigned: Mapping[str, str] = MappingProxyType({})


#: Environment of a single module.
DEFAULT_ENVIRONMENT = RunEnvironment()


class ModuleResult(NamedTuple):
    """Result of a module that succeeded.

    :param value: the JSON value it wrote to ``$SEWER_RESULT_FILE``, else its last line of stdout in the log,
        else ``None``.
    """

    value: Any


class ModuleRunner:
    """One run of one module or function, which can be stopped.

    :param call: the module or function, and its arguments.
    :param settings: its settings; omitted ones have their defaults.
    :param runner: the environment that it runs in.
    :param secrets: values to mask, in addition to those that the environment and the call mark as secret.
    :param shown_call: the call to show, if a user cannot repeat this one.
    """

    def __init__(
        self,
        call: Call,
        settings: ExecutionSettings,
        runner: RunEnvironment = DEFAULT_ENVIRONMENT,
        *,
        secrets: Collection[str] = (),
        shown_call: Call | None = None,
    ) -> None:
        self._call = call
        self._shown_call = shown_call or call
        self._target = call.target
        self._settings = settings
        self._runner = runner
        self._secrets = tuple(secrets)
        self._process: Process | None = None
        #: Usage of its process, once that has ended.
        self.used: Mapping[str, float] = {}
        self._stopped = False
        self._at_once = False

    def run(self, sink: Sink, *, on_start: Callable[[str, str | None], None] | None = None) -> ModuleResult:
        """Run the module and return its result.

        :param sink: receives its output as it is written.
        :param on_start: called with the command line, secrets masked, and the working directory.
        :raises InterpreterError, WorkdirError: before it starts.
        :raises ModuleNotFound: when the interpreter does not have the module.
        :raises ModuleTerminated: when it was stopped.
        :raises ModuleFailed: when it failed, or its result cannot be read.
        """
        with ExitStack() as stack:
            guardian = self._runner.guardian or stack.enter_context(OrphanReaper(self._runner.grace))
            number = next(_NUMBERS)
            result_file = os.path.join(guardian.folder, f"{number}-result.json")
            arguments_file = os.path.join(guardian.folder, f"{number}-arguments.json")
            try:
                command = self._command(result_file, guardian)
                secrets = [*self._secrets, *secret_texts(command.env, self._call.argv)]
                line = shown_call([command.argv[0], *interpreter_options(self._call)], self._shown_call, secrets)
                if on_start:
                    on_start(line, command.workdir)
                tails = {Stream.STDOUT: Tail(), Stream.STDERR: Tail()}
                started = self._started(command, arguments_file)
                exit_ = self._follow(started, guardian, Masker(secrets), sink, tails)
                self._raise_unless_succeeded(exit_, command, line, tails)
                return ModuleResult(read_result(result_file, lambda: self._result_unwritten(tails)))
            finally:
                _remove(result_file, arguments_file)

    def stop(self, *, at_once: bool = False) -> None:
        """End the whole process tree; callable from a signal handler or another thread."""
        self._stopped = True
        self._at_once = self._at_once or at_once
        if self._process is not None:
            self._process.stop(at_once=self._at_once)

    def _command(self, result_file: str, guardian: OrphanReaper) -> Command:
        settings = self._settings
        given = {**self._runner.assigned, **settings.env}
        env = build_environment(given, settings.inherit_env or False, source=self._runner.variables)
        try:
            python = known_interpreter(settings.python, env, lambda command: self._process_of(command, guardian))
        except InterpreterError:
            if self._stopped:
                raise ModuleTerminated(f"{self._target} was stopped on request, before it was started") from None
            raise
        workdir = check_workdir(settings.workdir)
        env[RESULT_FILE] = result_file
        if self._call.stdout is not None:
            env.pop(UNBUFFERED, None)
        return interpreter_command(python, self._call, activated(env, python, settings), workdir)

    def _started(self, command: Command, file: str) -> Command:
        """Return the command to start; the arguments of a function are written to a file."""
        if self._call.kwargs is None:
            return command
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(opened, "w", encoding="utf-8", errors="surrogateescape") as written:
            written.write(self._call.kwargs)
        return interpreter_command(command.argv[0], self._call.reading(file), command.env, command.workdir)

    def _follow(
        self, command: Command, guardian: OrphanReaper, masker: Masker, sink: Sink, tails: dict[Stream, Tail]
    ) -> Exit:
        def forward(stream: Stream, pieces: Sequence[str]) -> None:
            if pieces:
                tails[stream].take(pieces)
                sink(stream, pieces)

        process = self._process_of(command, guardian)
        try:
            exit_ = process.follow(lambda stream, pieces: forward(stream, masker.mask(stream, pieces)))
        finally:
            self.used = process.used
        for stream in Stream:
            forward(stream, masker.rest(stream))
        if exit_.leftovers:
            start = "\n" if tails[Stream.STDERR].is_unfinished else ""
            message = f"WARNING: {self._target} left processes behind that kept its output open; they were ended.\n"
            sink(Stream.STDERR, [start + message])
        return exit_

    def _process_of(self, command: Command, guardian: OrphanReaper) -> Process:
        """Create a process that ends when this run is stopped, and that the guardian watches."""
        grace, supervisor = self._runner.grace, self._runner.supervisor
        self._process = Process(
            command, mark=guardian.child_tag(), grace=grace, guardian=guardian, supervisor=supervisor
        )
        if self._stopped:
            self.stop()
        return self._process

    def _raise_unless_succeeded(self, exit_: Exit, command: Command, line: str, tails: dict[Stream, Tail]) -> None:
        if exit_.stopped:
            raise ModuleTerminated(
                f"{self._target} was stopped on request, with all its child processes; command: {line}"
            )
        if exit_.code == 0:
            return
        module = self._call.module
        error_line = module_not_found_line(module, exit_.code, tails[Stream.STDERR].lines)
        required = f"{module}:" if self._call.is_function else module
        if error_line and missing_modules(command.argv[0], [required], command.env, command.workdir):
            if lacks_main(error_line):
                raise ModuleNotFound(NO_MAIN.format(module))
            raise ModuleNotFound(
                f"{command.argv[0]} has no module to run as {self._target!r} ({error_line}); "
                "install it there, correct the name, or name another interpreter"
            )
        raise ModuleFailed(
            f"{self._target} {exit_description(exit_.code, exit_.signal)}; command: {line}{self._tail(tails)}",
            exit_code=exit_.code,
        )

    def _result_unwritten(self, tails: dict[Stream, Tail]) -> str | None:
        if self._call.is_function:
            reject_missing_result(self._target)
        return tails[Stream.STDOUT].last_line

    def _tail(self, tails: dict[Stream, Tail]) -> str:
        stream = Stream.STDERR if tails[Stream.STDERR].lines else Stream.STDOUT
        text = "\n".join(tails[stream].lines)
        if not text:
            return "\nIt had no output." if self._call.stdout is None else "\nIt wrote nothing to stderr."
        return f"\nThe last lines of {stream.value}:\n{indent(text, '  ')}"


def _remove(*files: str) -> None:
    for file in files:
        with suppress(OSError):
            os.unlink(file)
