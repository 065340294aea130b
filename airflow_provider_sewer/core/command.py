"""Command of a process: an argv list, an environment and a working directory."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple, Optional

from airflow_provider_sewer.core.call import CALLER, CALLER_FILE
from airflow_provider_sewer.core.masking import MASK, Secrets
from airflow_provider_sewer.core.secret_detection import masked_words

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_LEFT_OUT = "…"
#: Maximum number of characters that are shown of a function's arguments.
_MOST_SHOWN = 2_000


class Command(NamedTuple):
    """Command of a process, which is started without a shell.

    :param argv: the executable's absolute path and its arguments.
    :param env: the complete environment.
    :param workdir: absolute path of the working directory; ``None`` for the caller's.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    workdir: Optional[str] = None


def interpreter_command(
    python: str, arguments: Collection[str], env: Mapping[str, str], workdir: str | None
) -> Command:
    """Return the command of an interpreter, unbuffered, so that its output can be followed line by line."""
    return Command((python, "-u", *arguments), env, workdir)


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
