"""Help and arguments of ``sppe``."""

from __future__ import annotations

import re

import pytest


@pytest.mark.parametrize("command", ["run", "explain", "show", "pools"])
def test_workflow_file_is_an_argument(command: str, sppe) -> None:
    sppe.tasks(first="print('ran')")

    done = sppe.run("--", command, "flow.py") if command == "run" else sppe.run(command, "flow.py")

    assert done.returncode == 0, done.stderr


def test_sppe_without_command_prints_examples(sppe) -> None:
    done = sppe.run("--")

    assert done.returncode == 0
    assert "sppe run flow.py --resume" in done.stdout


def test_examples_have_one_indent(sppe) -> None:
    done = sppe.run("--")

    examples = re.search(r"Examples:\n(.+?)\n\n", done.stdout, re.DOTALL)
    assert examples
    assert {re.match(" *", line)[0] for line in examples[1].splitlines()} == {" " * 4}


def test_run_help_lists_options_in_groups(sppe) -> None:
    done = sppe.run("--", "run", "--help")

    headings = re.findall(r"^(\S.*):$", done.stdout, re.MULTILINE)
    assert headings[:4] == ["Workflow file", "Tasks", "Processes of tasks", "Slurm"]
    assert headings[-1] == "Options"


def test_file_without_command_is_an_error_with_the_command(sppe) -> None:
    sppe.tasks(first="pass")

    done = sppe.run("flow.py", "-n")

    assert done.returncode == 2
    assert "the command is missing; to run the file: sppe run flow.py -n" in done.stderr
