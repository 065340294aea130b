"""The page on containers: its commands and outputs, verbatim."""

from __future__ import annotations

import re

from tests.documentation import PAGES, commands

from .test_up import SERVICES

PAGE = "docs/howto/containers.md"


def test_page_commands_print_the_shown_output(stack):
    """Among them `airflow dags test` inside a container, on the cluster."""
    shown_commands = [(line, shown) for line, shown in commands(PAGE) if line.startswith("docker ")]
    assert [line for line, _ in shown_commands if "airflow dags test" in line]
    for line, shown in shown_commands:
        printed = stack.shell(line)
        assert shown
        for expected in shown:
            assert expected in printed


def test_page_explains_every_container():
    """Its table has each service of the compose file."""
    rows = re.findall(r"^\| (`.*`) \|", PAGES[PAGE], re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([\w-]+)`", row)} == SERVICES
