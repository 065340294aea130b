"""Start of a command, with an error that names the reason if it fails."""

from __future__ import annotations

import errno
import os
import subprocess
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.environment import ATTEMPT_ID
from airflow_provider_sewer.core.errors import InterpreterError, InvalidTask, SewerError, WorkdirError

if TYPE_CHECKING:
    from airflow_provider_sewer.core.command import Command


class Child(NamedTuple):
    """A started process; the caller collects its exit code.

    :param pid: its pid.
    :param stdout: the descriptor from which its stdout is read.
    :param stderr: the same for its stderr.
    """

    pid: int
    stdout: int
    stderr: int


def spawn(command: Command, mark: str) -> Child:
    """Start a command in its own session, with an empty stdin.

    :param mark: the tag that it and all its descendants carry in their environment.
    :raises InterpreterError: when the executable cannot be started.
    :raises WorkdirError: when the working directory cannot be entered.
    :raises InvalidTask: when the arguments are longer than the system allows.
    """
    stdout, its_stdout = os.pipe()
    stderr, its_stderr = os.pipe()
    try:
        process = subprocess.Popen(
            command.argv,
            env={**command.env, ATTEMPT_ID: mark},
            cwd=command.workdir,
            stdin=subprocess.DEVNULL,
            stdout=its_stdout,
            stderr=its_stderr,
            start_new_session=True,
        )
    except BaseException as error:
        os.close(stdout)
        os.close(stderr)
        if isinstance(error, OSError):
            raise _start_error(command, error) from error
        raise
    finally:
        os.close(its_stdout)
        os.close(its_stderr)
    process.returncode = 0  # so that Popen does not wait for the process
    return Child(process.pid, stdout, stderr)


def _start_error(command: Command, error: OSError) -> SewerError:
    if error.errno == errno.E2BIG:
        return InvalidTask(f"too long for this system: {_long_parts(command)}; put it into a file and pass the path")
    if command.workdir is not None and error.filename == command.workdir:
        return WorkdirError(f"cannot enter the working directory {command.workdir}: {error.strerror}")
    executable = command.argv[0]
    if error.errno == errno.ENOENT and os.path.exists(executable):
        return InterpreterError(
            f"cannot start {executable}: it exists, but the program that runs it does not "
            "(the one after #! in its first line, or the loader of the system it was built for); install it again"
        )
    return InterpreterError(f"cannot start {executable}: {error.strerror}")


def _long_parts(command: Command) -> str:
    """Return a description of the longest argument or variable, without its value."""
    sizes = [(_size(word), _position(before)) for before, word in pairwise(command.argv)]
    sizes += [(_size(f"{name}={value}"), f"the variable {name!r}") for name, value in command.env.items()]
    longest, name = max(sizes)
    total = sum(size for size, _ in sizes)
    return f"arguments and environment are {total:,} bytes together, {name} alone is {longest:,} bytes"


def _size(text: str) -> int:
    return len(os.fsencode(text)) + 1


def _position(before: str) -> str:
    return f"the one after {before.partition('=')[0]}" if before.startswith("--") else "an argument"
