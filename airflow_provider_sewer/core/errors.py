"""Exceptions of this package.

Every message has the reason, the location and the fix; programs distinguish the errors by their classes.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_sewer.core.source import SourceLine

#: Default number of known names in a message.
_MOST_NAMES = 30
#: Maximum number of known names that are compared with a wrong one, and of its characters.
_MOST_GUESSES, _LONGEST_GUESS = 10_000, 200
#: Matches quoted values of more than 200 characters; such a value can be the content of a whole file.
_LONG = re.compile(r"""(?<!\w)(?:'((?:[^'\\]|\\.){200})(?:[^'\\]|\\.)+'|"((?:[^"\\]|\\.){200})(?:[^"\\]|\\.)+")""")
_QUOTED = re.compile(r"""(?<!\w)(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")
#: Matches long paths without quotes, which are shortened in the middle; quoted values are cut before.
_LONG_WORD = re.compile(r"(\S{100})\S{20,}(\S{100})")


class Key(NamedTuple):
    """Element of an error's location that points at a mapping key rather than its value."""

    key: Any


class SewerError(Exception):
    """Base class of all errors that this package raises on purpose.

    :param message: the reason, and the fix.
    :param where: the line of the workflow file, if there is one.
    :param at: location of the error in the task or workflow: for a task, its field, then keys and positions (see
        :class:`Key`); for a workflow, the name of a task before these.
    """

    def __init__(self, message: str, where: SourceLine | None = None, *, at: tuple[Any, ...] = ()) -> None:
        self.message = with_short_values(message)
        super().__init__(f"{where}: {self.message}" if where else self.message)
        self.where = where
        self.at = at


class SecretWarning(UserWarning):
    """A task contains a secret that other users could read."""


class WorkflowFileError(SewerError):
    """A workflow file cannot be read, or does not load."""


class InvalidTask(SewerError):
    """A field of a task is not valid."""


class InvalidWorkflow(SewerError):
    """The tasks do not form a workflow: a cycle, a duplicate name, an unknown name."""


class InterpreterError(SewerError):
    """The interpreter is missing, or is not Python."""


class WorkdirError(SewerError):
    """The working directory is missing, or is not a directory."""


class ModuleNotFound(SewerError):
    """The interpreter cannot find the module."""


class ModuleFailed(SewerError):
    """The module ran and failed, or its result cannot be read.

    :param exit_code: its exit code; ``None`` after a signal, or if it is unknown.
    """

    def __init__(self, message: str, *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ProductError(SewerError):
    """A product was not created, or cannot be committed; or a dependency is missing."""


class FileSystemRefused(ProductError):
    """The file system rejected, perhaps temporarily, a read or write of a file of a task."""


class StateError(SewerError):
    """The state of an earlier run cannot be read, or is in use by another run."""


class UnreadableRecord(SewerError, ValueError):
    """A record that must not be lost was written by another version, or is damaged.

    :param version: the format of the record, if this version does not read it.
    """

    def __init__(self, message: str, where: SourceLine | None = None, *, version: int | None = None) -> None:
        super().__init__(message, where)
        self.version = version


class UntrustedPath(SewerError):
    """Another Unix user could have written a folder or file that decides which code runs or which tasks succeeded."""


class ModuleTerminated(SewerError):
    """The module was terminated on request before its end."""


class WorkflowFailed(SewerError):
    """A task of a workflow run with ``.run()`` failed."""


class SlurmError(SewerError):
    """A Slurm job, or its submission, failed.

    :param job_id: the job's id, if it was submitted.
    :param state: the last known state, in Slurm's words.
    :param exit_code: the module's exit code; ``None`` after a signal, or if it is unknown.
    :param node: the node that it ran on; the first of several.
    :param run_directory: the folder of its script, its logs and its exit record.
    """

    def __init__(
        self,
        message: str,
        *,
        job_id: str | None = None,
        state: str | None = None,
        exit_code: int | None = None,
        node: str | None = None,
        run_directory: str | None = None,
    ) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.state = state
        self.exit_code = exit_code
        self.node = node
        self.run_directory = run_directory


class SlurmUnavailable(SlurmError):
    """Slurm is not available here, or one of its commands is missing."""


class SlurmJobReleased(SlurmError):
    """The job continues for the next try, because Airflow has ended this one."""


class SlurmSubmissionRejected(SlurmError):
    """Slurm rejected the job permanently: an invalid partition, account or limit."""


class SlurmJobFailed(SlurmError):
    """The job ran and its module failed."""


class SlurmOutOfMemory(SlurmError):
    """The job was killed because it used more memory than requested."""


class SlurmTimeout(SlurmError):
    """The job reached its time limit."""


class SlurmDeadline(SlurmError):
    """The job reached its deadline, or could not have met it."""


class SlurmNodeFailure(SlurmError):
    """A node of the job failed."""


class SlurmBootFailure(SlurmError):
    """A node of the job could not be booted."""


class SlurmLaunchFailure(SlurmError):
    """Slurm could not start the job's script."""


class SlurmPreempted(SlurmError):
    """The job was preempted by another one."""


class SlurmCancelled(SlurmError):
    """The job was cancelled from outside."""


class SlurmRequestLimit(SlurmError):
    """A retry would request more than ``max`` of ``retry_with`` allows."""


class SlurmUnsatisfiable(SlurmError):
    """The job is pending for a reason that cannot be resolved."""


class SlurmPendingTooLong(SlurmError):
    """The job did not start within ``max_pending_time``."""


class SlurmJobLost(SlurmError):
    """The job is unknown to Slurm, and there is no exit record."""


#: Errors that a retry cannot resolve.
FINAL_ERRORS = (InvalidTask, SlurmRequestLimit, SlurmSubmissionRejected, SlurmUnsatisfiable, UntrustedPath)

#: Names of the errors in records, trigger events and JSON of other interpreters; independent of the class names.
KEYS: Mapping[str, type[SewerError]] = {
    "error": SewerError,
    "workflow_file": WorkflowFileError,
    "invalid_task": InvalidTask,
    "invalid_workflow": InvalidWorkflow,
    "interpreter": InterpreterError,
    "workdir": WorkdirError,
    "module_not_found": ModuleNotFound,
    "module_failed": ModuleFailed,
    "product": ProductError,
    "file_system_refused": FileSystemRefused,
    "state": StateError,
    "unreadable_record": UnreadableRecord,
    "untrusted_path": UntrustedPath,
    "module_terminated": ModuleTerminated,
    "workflow_failed": WorkflowFailed,
    "slurm": SlurmError,
    "unavailable": SlurmUnavailable,
    "job_released": SlurmJobReleased,
    "submission_rejected": SlurmSubmissionRejected,
    "job_failed": SlurmJobFailed,
    "out_of_memory": SlurmOutOfMemory,
    "timeout": SlurmTimeout,
    "deadline": SlurmDeadline,
    "node_failure": SlurmNodeFailure,
    "boot_failure": SlurmBootFailure,
    "launch_failure": SlurmLaunchFailure,
    "preempted": SlurmPreempted,
    "cancelled": SlurmCancelled,
    "request_limit": SlurmRequestLimit,
    "unsatisfiable": SlurmUnsatisfiable,
    "pending_too_long": SlurmPendingTooLong,
    "job_lost": SlurmJobLost,
}
_KEY_OF = {kind: key for key, kind in KEYS.items()}


def key_of(kind: type[SewerError]) -> str:
    """Return the key of an error class; for a class of another package, that of the nearest base class."""
    return next(_KEY_OF[base] for base in kind.__mro__ if base in _KEY_OF)


def unknown_name(kind: str, name: object, known: Iterable[str], *, most: int = _MOST_NAMES) -> str:
    """Return a message for an unknown name, with the known names and the closest one.

    :param most: maximum number of known names in the message.
    """
    names = list(known)
    close = get_close_matches(str(name)[:_LONGEST_GUESS], names[:_MOST_GUESSES], n=1)
    guess = f"; did you mean {close[0]!r}?" if close else "."
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"unknown {kind} {name!r}{guess} Known: {', '.join(map(repr, names[:most])) or 'none'}{more}."


def with_short_values(message: str) -> str:
    """Shorten values and paths in the first line of a message, and mask secrets in its quoted values.

    Further lines are output, which is shortened and masked elsewhere.
    """
    first, newline, rest = message.partition("\n")
    return _LONG_WORD.sub(r"\1…\2", _LONG.sub(r"'\1\2…'", _with_masked_values(first))) + newline + rest


def _with_masked_values(line: str) -> str:
    if "=" not in line and "@" not in line:
        return line
    from airflow_provider_sewer.core.secret_detection import masked_text  # it imports this module

    return _QUOTED.sub(lambda found: found[0][0] + masked_text(found[0][1:-1]) + found[0][-1], line)
