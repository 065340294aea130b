"""What can go wrong, as one small family.

Every message says what happened, where, and what to do about it; a program tells the members apart
by their class.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_sewer.core.source import SourceLine

#: How many known names a message lists, unless it is told otherwise.
_MOST_NAMES = 30
#: So many known names are looked at for the one that was probably meant, and so much of that.
_MOST_GUESSES, _LONGEST_GUESS = 10_000, 200
#: So many characters are shown of a quoted value, which may be what a whole file holds.
_LONG = re.compile(r"""(?<!\w)(?:'((?:[^'\\]|\\.){200})(?:[^'\\]|\\.)+'|"((?:[^"\\]|\\.){200})(?:[^"\\]|\\.)+")""")
#: Of a longer path, which is not quoted, begin and end are shown; quoted values are cut by then.
_LONG_WORD = re.compile(r"(\S{100})\S{20,}(\S{100})")


class Key(NamedTuple):
    """On the way to what is wrong: a key itself, instead of what stands for it."""

    key: Any


class SewerError(Exception):
    """The base of everything this package raises on purpose.

    :param message: what happened, and what to do.
    :param where: the line of the workflow file it happened at, if there is one.
    :param at: the way to what is wrong, for whoever knows the place of each part: for a task, its field, then keys and
        positions in that (see :class:`Key`); for a workflow, the name of a task before these.
    """

    def __init__(self, message: str, where: SourceLine | None = None, *, at: tuple[Any, ...] = ()) -> None:
        self.message = with_short_values(message)
        super().__init__(f"{where}: {self.message}" if where else self.message)
        self.where = where
        self.at = at


class SecretWarning(UserWarning):
    """A task says a secret where other users could read it."""


class WorkflowFileError(SewerError):
    """A workflow file cannot be read, or does not load."""


class InvalidTask(SewerError):
    """A task says something that cannot be run."""


class InvalidWorkflow(SewerError):
    """The tasks do not make a workflow: a cycle, a name used twice, an unknown name."""


class InterpreterError(SewerError):
    """The interpreter is missing, or is no Python."""


class WorkdirError(SewerError):
    """The working directory is missing, or is no directory."""


class ModuleNotFound(SewerError):
    """The interpreter has no such module."""


class ModuleFailed(SewerError):
    """The module ran and failed, or its result cannot be read.

    :param exit_code: what it exited with; ``None`` where a signal ended it or none is known.
    """

    def __init__(self, message: str, *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ProductError(SewerError):
    """A product was not made, or cannot be put in place; or a dependency is not there."""


class FileSystemRefused(ProductError):
    """The file system refuses, perhaps only for a while, to read or write a file of a task."""


class StateError(SewerError):
    """The state of an earlier run cannot be read, or another run is using it."""


class UnreadableRecord(SewerError, ValueError):
    """A record that another version has written, or that is damaged, stands for something that must not be lost.

    :param version: the format of the record, where it is one that this version does not read.
    """

    def __init__(self, message: str, where: SourceLine | None = None, *, version: int | None = None) -> None:
        super().__init__(message, where)
        self.version = version


class UntrustedPath(SewerError):
    """Another Unix user could have written a folder or file that decides what is run or what has succeeded."""


class ModuleTerminated(SewerError):
    """The module was ended on request before it was done."""


class WorkflowFailed(SewerError):
    """A workflow that ran plainly did not succeed as a whole."""


class SlurmError(SewerError):
    """Something went wrong with a Slurm job, or before there was one.

    :param job_id: the job's id, once it has one.
    :param state: the last state that is known, in Slurm's words.
    :param exit_code: what the module exited with; ``None`` where a signal ended it or none is known.
    :param node: the node, or the first of the nodes, that it ran on.
    :param run_directory: where its script, its logs and its exit record lie.
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
    """There is no Slurm that can be used here, or one of its commands is missing."""


class SlurmJobReleased(SlurmError):
    """The job runs on for the next try: Airflow has taken this one away."""


class SlurmSubmissionRejected(SlurmError):
    """Slurm refuses the job for good: a bad partition, account or limit."""


class SlurmJobFailed(SlurmError):
    """The job ran and its module failed."""


class SlurmOutOfMemory(SlurmError):
    """The job was ended because it took more memory than it had asked for."""


class SlurmTimeout(SlurmError):
    """The job was ended at its time limit."""


class SlurmDeadline(SlurmError):
    """The job was ended at its deadline, or could not have met it."""


class SlurmNodeFailure(SlurmError):
    """A node of the job failed."""


class SlurmBootFailure(SlurmError):
    """A node of the job could not be booted."""


class SlurmLaunchFailure(SlurmError):
    """Slurm could not start the job's script."""


class SlurmPreempted(SlurmError):
    """The job had to make room for another one."""


class SlurmCancelled(SlurmError):
    """Somebody cancelled the job."""


class SlurmUnsatisfiable(SlurmError):
    """The job waits for something that will never be."""


class SlurmPendingTooLong(SlurmError):
    """The job has not started within the time it was given to wait."""


class SlurmJobLost(SlurmError):
    """Nobody knows the job any more, and it has left no record of its end."""


#: The name of each error in records, trigger events and JSON of other interpreters. It stays when a class is renamed.
KEYS: Mapping[str, type[SewerError]] = {
    "error": SewerError,
    "workflow_file": WorkflowFileError,
    "invalid_task": InvalidTask,
    "invalid_workflow": InvalidWorkflow,
    "interpreter": InterpreterError,
    "workdir": WorkdirError,
    "module_missing": ModuleNotFound,
    "module_failed": ModuleFailed,
    "product": ProductError,
    "state": StateError,
    "unreadable_record": UnreadableRecord,
    "untrusted_path": UntrustedPath,
    "module_stopped": ModuleTerminated,
    "workflow_failed": WorkflowFailed,
    "slurm": SlurmError,
    "unavailable": SlurmUnavailable,
    "job_released": SlurmJobReleased,
    "submit_refused": SlurmSubmissionRejected,
    "job_failed": SlurmJobFailed,
    "out_of_memory": SlurmOutOfMemory,
    "timeout": SlurmTimeout,
    "deadline": SlurmDeadline,
    "node_failure": SlurmNodeFailure,
    "boot_failure": SlurmBootFailure,
    "launch_failure": SlurmLaunchFailure,
    "preempted": SlurmPreempted,
    "cancelled": SlurmCancelled,
    "pending_hopeless": SlurmUnsatisfiable,
    "pending_too_long": SlurmPendingTooLong,
    "job_lost": SlurmJobLost,
}
_KEY_OF = {kind: key for key, kind in KEYS.items()}


def key_of(kind: type[SewerError]) -> str:
    """Return the key of an error's class; that of the nearest base for a class of another package."""
    return next(_KEY_OF[base] for base in kind.__mro__ if base in _KEY_OF)


def unknown_name(kind: str, name: object, known: Iterable[str], *, most: int = _MOST_NAMES) -> str:
    """Say that a name is unknown, which ones are known, and which was probably meant.

    :param most: how many of the known names are listed.
    """
    names = list(known)
    close = get_close_matches(str(name)[:_LONGEST_GUESS], names[:_MOST_GUESSES], n=1)
    guess = f"; did you mean {close[0]!r}?" if close else "."
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"unknown {kind} {name!r}{guess} Known: {', '.join(map(repr, names[:most])) or 'none'}{more}."


def with_short_values(message: str) -> str:
    """Cut values and paths in the first line of a message; further lines are output, which is cut elsewhere."""
    first, newline, rest = message.partition("\n")
    return _LONG_WORD.sub(r"\1…\2", _LONG.sub(r"'\1\2…'", first)) + newline + rest
