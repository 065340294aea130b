"""README section on containers: its commands and outputs, verbatim."""

from __future__ import annotations

import re

from tests.test_readme import README, blocks

from .test_up import SERVICES


def test_readme_commands_print_the_shown_output(stack):
    """Among them `airflow dags test` inside a container, on the cluster."""
    (block,) = [text for text in blocks("console") if text.startswith("$ docker ")]
    commands = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    assert [command for command, _ in commands if "airflow dags test" in command]
    for command, shown in commands:
        printed = stack.shell(command)
        assert shown
        for line in shown.splitlines():
            assert line in printed


def test_readme_explains_every_container():
    """The README's table has each service of the compose file."""
    table = README.partition("## In containers")[2].partition("The examples can be")[0]
    rows = re.findall(r"^\| (`.*`) \|", table, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([\w-]+)`", row)} == SERVICES
