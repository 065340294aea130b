"""Amount and colours of the output of ``sppe``."""

from __future__ import annotations

import pytest

from airflow_provider_sewer.execution.durations import duration_text

GREEN = b"\x1b[32m"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, ""), (0.04, "0.0 s"), (12.34, "12.3 s"), (59.99, "1 min 0 s"), (303, "5 min 3 s"), (7500, "2 h 5 min")],
)
def test_duration_text_uses_units_of_its_size(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_quiet_run_prints_nothing_if_all_tasks_succeed(sppe) -> None:
    sppe.tasks(first="print('hello')")

    done = sppe.run("run", "-q")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_quiet_run_prints_failures_and_total(sppe) -> None:
    sppe.tasks(first="print('hello')", second="raise SystemExit('why')")

    done = sppe.run("run", "-q", "--log-dir", "logs")

    assert done.returncode == 1
    assert done.stderr.startswith("\nsecond: second_module failed with exit code 1; command: ")
    assert "1 of 2 tasks succeeded" in done.stderr
    assert "hello" not in done.stdout + done.stderr


def test_verbose_run_in_terminal_prints_lines_and_folders(sppe, terminal) -> None:
    sppe.tasks(first="print('hello')")
    window = terminal(24, 200)

    run = window.start(sppe, "run", "-v")

    assert run.wait(timeout=60) == 0
    window.expect(lambda text: "[first] hello" in text)
    window.expect(lambda text: f"[first] in {sppe.folder}" in text)


@pytest.mark.parametrize(
    ("options", "env", "is_colored"),
    [
        ([], {}, True),
        (["--color", "never"], {}, False),
        ([], {"NO_COLOR": "1"}, False),
        (["--color", "always"], {"NO_COLOR": "1"}, True),
        (["--color", "auto"], {"NO_COLOR": "1"}, False),
        ([], {"TERM": "dumb"}, False),
    ],
)
def test_color_of_summary_in_terminal(
    options: list[str], env: dict[str, str], is_colored: bool, sppe, terminal
) -> None:
    sppe.tasks(first="pass")
    window = terminal()

    run = window.start(sppe, "run", "--log-dir", "logs", *options, env={"TERM": "xterm-256color", **env})

    assert run.wait(timeout=60) == 0
    window.expect(lambda text: "1 of 1 tasks succeeded" in text)
    assert (GREEN + b"1 of 1" in window.raw.replace(b"\r\n", b"")) is is_colored


def test_summary_in_file_has_no_colors(sppe) -> None:
    sppe.tasks(first="pass")

    assert "\x1b" not in sppe.run("run").stderr


@pytest.mark.parametrize(
    ("env", "options", "is_colored"),
    [
        ({}, [], False),
        ({"FORCE_COLOR": "1"}, [], True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, [], False),
        ({"FORCE_COLOR": "1"}, ["--color", "never"], False),
        ({"NO_COLOR": "1"}, ["--color", "always"], True),
        ({"SEWER_COLOR": "always"}, [], True),
    ],
)
@pytest.mark.parametrize("command", ["run", "explain", "status", "show"])
def test_color_in_file_is_as_requested(command: str, env, options, is_colored: bool, sppe) -> None:
    """`show` prints an error here."""
    sppe.tasks(first="pass")
    sppe.run("run")
    file = "missing.py" if command == "show" else "flow.py"

    done = sppe.run("--", command, file, *options, env=env)

    assert ("\x1b[" in done.stdout + done.stderr) is is_colored


def test_every_command_has_color(sppe) -> None:
    from airflow_provider_sewer.cli import main

    shown = {name: sppe.run(name, "--help").stdout for name in main.commands}
    assert [name for name, text in shown.items() if "--color [auto|always|never]" not in text] == []
