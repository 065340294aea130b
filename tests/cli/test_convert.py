"""``sppe convert --to vscode``: configurations that the debugger can start."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

from airflow_provider_sewer.core.call import CALLER_FILE

_spec = importlib.util.spec_from_file_location("debug_adapter", Path(__file__).with_name("debug_adapter.py"))
_debug_adapter = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_debug_adapter)

FLOW = """
    import sys
    from airflow_provider_sewer import Task
    square = Task("square", function="steps:square", kwargs={"n": 7})
    tell = Task("tell", function="steps:tell", kwargs={"number": square.result["square"]})
    option = Task("option", module="steps", parameters_and_flags={"indent": square.result["square"]})
"""
STEPS = """
import sys

def square(n):
    return {"square": n * n}

def tell(number):
    more = number + 1
    print("more", more)

if __name__ == "__main__":
    words = sys.argv[1:]
    print(words)
"""


@pytest.fixture
def flow(sppe):
    sppe.write("flow.py", FLOW)
    sppe.write("steps.py", STEPS)
    return sppe


def configurations(sppe) -> dict[str, dict]:
    file = sppe.folder / ".vscode/launch.json"
    return {each["name"]: each for each in json.loads(file.read_text())["configurations"]}


def test_convert_fills_in_results_of_the_last_run(flow) -> None:
    assert flow.run("run", "--only", "square").returncode == 0

    done = flow.run("convert", "flow.py", "--to", "vscode")

    assert done.returncode == 0, done.stderr
    written = configurations(flow)
    assert written["option"]["args"] == ["--indent", "49"]
    assert written["tell"]["args"] == ["steps:tell", '{"number": 49}']


UNKNOWN = {
    "result": ("", "task 'tell': no earlier run saved square.result['square']; run 'square' first"),
    "template": ("Task('t', 'm', args=['{{ ds }}'])", "task 't': '{{ ds }}' is rendered only by Airflow"),
    "template in env": ("Task('t', 'm', env={'A': '{{ ds }}'})", "task 't': '{{ ds }}' is rendered only by Airflow"),
    "template in workdir": ("Task('t', 'm', workdir='{{ ds }}')", "task 't': '{{ ds }}' is rendered only by Airflow"),
    "product": (
        "from airflow_provider_sewer import Product\nTask('t', 'm', args=[Product('{{ ds }}.txt')])",
        "task 't': '{{ ds }}.txt' is rendered only by Airflow",
    ),
    "mapped": ("Task('t', 'm').map(n=square.result)", "is mapped over square.result"),
}


@pytest.mark.parametrize(("line", "message"), UNKNOWN.values(), ids=UNKNOWN)
def test_convert_names_tasks_with_values_of_a_run(line: str, message: str, flow) -> None:
    """They get no configuration; the other tasks do."""
    flow.write("flow.py", "\n".join([*(each.strip() for each in FLOW.splitlines()), line]))

    done = flow.run("convert", "flow.py", "--to", "vscode")

    assert done.returncode == 1
    assert message in done.stderr
    assert list(configurations(flow)) == ["square"]


def test_convert_writes_no_program_text_and_paths_relative_to_the_workspace(sppe) -> None:
    """The file can be committed."""
    sppe.write(
        "flow.py",
        """
        from airflow_provider_sewer import Task
        Task("f", function="steps:f", workdir="work", python="venv/bin/python")
        Task("here", module="json.tool", workdir=".")
        """,
    )

    sppe.run("convert", "flow.py", "--to", "vscode")

    written = configurations(sppe)
    assert written["f"]["cwd"] == "${workspaceFolder}/work"
    assert written["f"]["python"] == "${workspaceFolder}/venv/bin/python"
    assert written["f"]["program"] == CALLER_FILE
    assert written["here"]["cwd"] == "${workspaceFolder}"
    assert len((sppe.folder / ".vscode/launch.json").read_text()) < 1_500


@pytest.mark.parametrize(
    ("task", "line", "variable"),
    [("square", "return {", ("n", "7")), ("tell", "more =", ("number", "49")), ("option", "print(words", None)],
)
def test_debugger_stops_at_breakpoint_in_converted_task(task: str, line: str, variable, flow) -> None:
    flow.run("run", "--only", "square")
    flow.run("convert", "flow.py", "--to", "vscode")
    at = next(number for number, text in enumerate(STEPS.splitlines(), 1) if line in text)
    steps = str(flow.folder / "steps.py")
    adapter = _debug_adapter.DebugAdapter(str(flow.folder), flow.environment())
    configuration = {**configurations(flow)[task], "python": sys.executable}
    try:
        variables = adapter.stop_at(configuration, os.path.realpath(steps), at)
    finally:
        adapter.close()

    if variable:
        assert variables[variable[0]] == variable[1]
    else:
        assert variables["words"] == "['--indent', '49']"


SIGNS = """
from airflow_provider_sewer import Task
Task("signs", "signs", args=[">", "kept.txt", "two\\nlines", "~"])
Task("reads", "signs", args=["a b", "$HOME", "*", ""], stdin="in put.txt")
Task("both", "signs", args=["<"], stdin="in put.txt")
"""
READS_SIGNS = """
import sys
words = [*sys.argv[1:], *([] if "kept.txt" in sys.argv else [sys.stdin.read()])]
print(words)
"""


@pytest.mark.parametrize(
    ("task", "words"),
    [("signs", [">", "kept.txt", "two\nlines", "~"]), ("reads", ["a b", "$HOME", "*", "", "line"])],
)
def test_debugged_task_gets_its_arguments_and_stdin(task: str, words: list[str], sppe) -> None:
    """The terminal of VS Code leaves "<" and ">" to its shell, and quotes neither lines nor "~"."""
    sppe.write("flow.py", SIGNS)
    sppe.write("signs.py", READS_SIGNS)
    (sppe.folder / "in put.txt").write_text("line")

    done = sppe.run("convert", "flow.py", "--to", "vscode")

    assert done.returncode == 1
    assert "task 'both': the terminal of VS Code, which stdin requires, changes '<'" in done.stderr
    adapter = _debug_adapter.DebugAdapter(str(sppe.folder), sppe.environment())
    configuration = {**configurations(sppe)[task], "python": sys.executable}
    try:
        variables = adapter.stop_at(configuration, os.path.realpath(sppe.folder / "signs.py"), 4)
    finally:
        adapter.close()
    assert variables["words"] == repr(words)
    assert not (sppe.folder / "kept.txt").exists()


@pytest.mark.parametrize("place", ["file", "variables", "options"])
def test_convert_completes_tasks_with_settings(place: str, flow) -> None:
    """They are those of `sppe run`; a secret is left to the environment of VS Code."""
    options, variables = [], {}
    if place == "file":
        flow.write("sewer.toml", "python = 'venv/bin/python'\nworkdir = 'work'\nenv = {A = '1', API_TOKEN = 'hunter2'}")
    elif place == "variables":
        names = {"PYTHON": "venv/bin/python", "WORKDIR": "work", "ENV": "A=1 API_TOKEN=hunter2"}
        variables = {f"SEWER_{name}": value for name, value in names.items()}
    else:
        options = ["-i", "venv/bin/python", "--workdir", "work", "--env", "A=1", "--env", "API_TOKEN=hunter2"]

    flow.run("convert", "flow.py", "--to", "vscode", *options, env=variables)

    written = configurations(flow)["square"]
    assert (written["python"], written["cwd"]) == ("${workspaceFolder}/venv/bin/python", "${workspaceFolder}/work")
    assert written["env"] == {"A": "1", "API_TOKEN": "${env:API_TOKEN}"}


def test_converted_task_keeps_its_own_settings(flow) -> None:
    flow.write("flow.py", "from airflow_provider_sewer import Task\nTask('t', 'json.tool', env={'A': 'own'})")
    flow.write("sewer.toml", "env = {A = 'file', B = 'file'}")

    flow.run("convert", "flow.py", "--to", "vscode")

    assert configurations(flow)["t"]["env"] == {"A": "own", "B": "file"}
