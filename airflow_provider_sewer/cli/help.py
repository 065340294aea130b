"""Commands and options of ``sppe`` whose help lists options in groups."""

from __future__ import annotations

import functools
import re
from typing import Any

import click

FILE, TASKS, PROCESS, SLURM, OUTPUT = "Workflow file", "Tasks", "Processes of tasks", "Slurm", "Output"
_OTHERS = "Options"
_ORDER = (FILE, TASKS, PROCESS, SLURM, OUTPUT, _OTHERS)
_INHERIT = "--inherit-env"
_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")


class GroupedOption(click.Option):
    """Option that belongs to a group of the help.

    :param group: heading of the group.
    """

    def __init__(self, *arguments: Any, group: str = _OTHERS, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.group = group


option = functools.partial(click.option, cls=GroupedOption)


class Command(click.Command):
    """Command whose help lists options in groups; ``--inherit-env`` takes the variable names that follow it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments."""
        return super().parse_args(ctx, _with_names(args))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, group by group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                groups.setdefault(getattr(parameter, "group", _OTHERS), []).append(record)
        for heading, records in sorted(groups.items(), key=lambda group: _ORDER.index(group[0])):
            with formatter.section(heading):
                formatter.write_dl(records)


def _with_names(args: list[str]) -> list[str]:
    """Return arguments with each name after ``--inherit-env`` in an option of its own; without a name, ``*``.

    Only a name of a variable is taken, so that ``--inherit-env flow.py`` leaves the file alone.
    """
    given, rest = (args[: args.index("--")], args[args.index("--") :]) if "--" in args else (args, [])
    words: list[str] = []
    names_follow = False
    for word in given:
        if names_follow and _NAME.fullmatch(word):
            words = [*words[:-1], *([] if words[-1].endswith("=*") else words[-1:]), f"{_INHERIT}={word}"]
            continue
        names_follow = word == _INHERIT
        words.append(f"{_INHERIT}=*" if names_follow else word)
    return [*words, *rest]
