"""Commands and options of ``sppe`` whose help lists options in groups."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from airflow_provider_sewer.cli.colors import COLOR_MODES, set_color
from airflow_provider_sewer.cli.config import Configuration, configuration, variable

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE, TASKS, PROCESS, SLURM, ARGO, OUTPUT = (
    "Workflow file", "Tasks", "Processes of tasks", "Slurm", "Argo", "Output",
)  # fmt: skip
_OTHERS = "Options"
_ORDER = (FILE, TASKS, PROCESS, SLURM, ARGO, OUTPUT, _OTHERS)
#: Key of the workflow file in ``Context.meta``.
META_FILE = "airflow_provider_sewer.file"
_META_CONFIGURATION = "airflow_provider_sewer.configuration"
_INHERIT = "--inherit-env"
_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")


class GroupedOption(click.Option):
    """Option that belongs to a group of the help.

    :param group: heading of the group.
    :param setting: name of its default in ``sewer.toml``, and of its environment variable.
    """

    def __init__(self, *arguments: Any, group: str = _OTHERS, setting: str = "", **settings: Any) -> None:
        super().__init__(*arguments, envvar=variable(setting) if setting else None, **settings)
        self.group = group
        self.setting = setting

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, ParameterSource]:
        """Return the value of the command line, else of the environment, else of a file, else the default."""
        value, source = super().consume_value(ctx, opts)
        if self.setting and source is ParameterSource.DEFAULT and not ctx.resilient_parsing:
            values = _configured(ctx).values
            if self.setting in values:
                return values[self.setting], ParameterSource.DEFAULT_MAP
        return value, source

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Return the name of the option, or of the variable that its value is from."""
        if ctx is not None and ctx.get_parameter_source(str(self.name)) is ParameterSource.ENVIRONMENT:
            return variable(self.setting)
        return super().get_error_hint(ctx)


def completed(ctx: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``K=V`` pairs after those of the places that they have precedence over.

    A later pair overrides an earlier one, so that settings are merged name by name.
    """
    if not isinstance(parameter, GroupedOption) or ctx.resilient_parsing:
        return pairs
    source = ctx.get_parameter_source(str(parameter.name))
    below = _configured(ctx).values.get(parameter.setting, ())
    if source is ParameterSource.COMMANDLINE:
        return (*below, *(parameter.value_from_envvar(ctx) or ()), *pairs)
    return (*below, *pairs) if source is ParameterSource.ENVIRONMENT else pairs


def is_given(name: str) -> bool:
    """Return whether the command line has an option.

    :param name: its parameter.
    """
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def _configured(ctx: click.Context) -> Configuration:
    if _META_CONFIGURATION not in ctx.meta:
        ctx.meta[_META_CONFIGURATION] = configuration(ctx.meta.get(META_FILE))
    found: Configuration = ctx.meta[_META_CONFIGURATION]
    return found


option = functools.partial(click.option, cls=GroupedOption)


_COLOR = GroupedOption(
    ["--color"],
    group=OUTPUT,
    setting="color",
    default="auto",
    type=click.Choice(COLOR_MODES),
    show_default=True,
    expose_value=False,
    callback=lambda *args: set_color(args[0], args[2]),
    help="Colours: auto uses them on a terminal; NO_COLOR and FORCE_COLOR override that.",
)


class Command(click.Command):
    """Command with ``--color``, whose help lists options in groups.

    ``--inherit-env`` takes the variable names that follow it.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.params.append(_COLOR)

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
