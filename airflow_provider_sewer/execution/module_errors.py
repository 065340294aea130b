"""Descriptions of how a module failed: its exit code or signal, and a module that was not found."""

from __future__ import annotations

import re
import signal

#: Problem of a package that is to be run as a module, and the fix.
NO_MAIN = "package {!r} has no __main__.py; add that file, or name a module in the package"


def exit_description(code: int | None, signal_number: int | None = None) -> str:
    """Return a clause that describes how a failed module ended.

    :param code: its exit code; a shell reports a signal as 128 plus its number.
    :param signal_number: the signal that ended it.
    """
    if signal_number is not None:
        return f"was ended by {_signal_name(signal_number)}{_hint(signal_number)}"
    if code is None:
        return "ended with an unknown exit code: it was collected elsewhere (is SIGCHLD ignored here?)"
    number = code - 128
    shell = f", which means {_signal_name(number)}{_hint(number)}" if number in signal.valid_signals() else ""
    return f"failed with exit code {code}{shell}"


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _hint(number: int) -> str:
    return " (out of memory?)" if number == signal.SIGKILL else ""


def module_not_found_line(module: str, code: int | None, stderr: list[str]) -> str | None:
    """Return the error line of ``python -m`` for a missing module. A module may print the same about another."""
    name = re.escape(module)
    pattern = rf"^\S.*: (No module named {name}\b.*|Error while finding module specification for '{name}' .*)$"
    found = re.match(pattern, stderr[-1]) if code == 1 and stderr else None
    return found.group(1) if found else None


def lacks_main(error_line: str) -> bool:
    """Return whether the missing module is the ``__main__`` of a package that exists."""
    return "is a package and cannot be directly executed" in error_line
