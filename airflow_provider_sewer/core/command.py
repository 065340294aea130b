"""Command of a process: an argv list, an environment and a working directory."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple, Optional

from airflow_provider_sewer.core.call import CALLER, CALLER_FILE
from airflow_provider_sewer.core.masking import MASK, Secrets
from airflow_provider_sewer.core.secret_detection import masked_words

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow_provider_sewer.core.call import Call

_LEFT_OUT = "…"
#: Maximum number of characters that are shown of a function's arguments.
_MOST_SHOWN = 2_000


class Command(NamedTuple):
    """Command of a process, which is started without a shell.

    :param argv: the executable's absolute path and its arguments.
    :param env: the complete environment.
    :param workdir: absolute path of the working directory; ``None`` for the caller's.
    :param stdin: path of the file that is its stdin; ``None`` for an empty one.
    :param stdout: path of the file that its stdout is written to; ``None`` for a pipe to the caller.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    workdir: Optional[str] = None
    stdin: Optional[str] = None
    stdout: Optional[str] = None


def interpreter_command(python: str, call: Call, env: Mapping[str, str], workdir: str | None) -> Command:
    """Return the command of an interpreter."""
    return Command((python, *interpreter_options(call), *call.argv), env, workdir, call.stdin, call.stdout)


def interpreter_options(call: Call) -> tuple[str, ...]:
    """Return the options of the interpreter: ``-u``, so that its output can be followed line by line.

    Where stdout is a file, it is buffered: unbuffered, ``print`` drops data without an error if the disk is full.
    """
    return ("-u",) if call.stdout is None else ()


def shown_call(interpreter: Collection[str], call: Call, secrets: Collection[str] = ()) -> str:
    """Return the command line of a call for display, with the files of its stdin and stdout.

    :param interpreter: the words before its arguments.
    :param secrets: as for :func:`shown`.
    """
    line = shown([*interpreter, *call.argv], secrets)
    files = [(sign, path) for sign, path in (("<", call.stdin), (">", call.stdout)) if path is not None]
    return " ".join([line, *(f"{sign} {shown([path], secrets)}" for sign, path in files)])


def shown(argv: Collection[str], secrets: Collection[str] = ()) -> str:
    """Return a command line for display, quoted for the shell, with secrets masked.

    In the command line of a function, the calling program is shown as its file, so that a user can repeat the command;
    long arguments are shortened.

    :param secrets: values to mask everywhere, besides those that
        :mod:`airflow_provider_sewer.core.secret_detection` finds in the command line itself.
    """
    known = Secrets(secrets)
    if CALLER not in argv:
        return " ".join([word if word == MASK else shlex.quote(word) for word in masked_words(argv, known)])
    words = list(argv)
    at = words.index(CALLER)
    words[at - 1 : at + 1] = [CALLER_FILE]
    return " ".join([word if word == MASK else _quoted_and_shortened(word) for word in masked_words(words, known)])


def _quoted_and_shortened(word: str) -> str:
    return shlex.quote(word[:_MOST_SHOWN]) + (_LEFT_OUT if len(word) > _MOST_SHOWN else "")
