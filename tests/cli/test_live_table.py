"""In a terminal a live table shows how it goes; elsewhere, and in terminals that cannot, plain lines do."""

from __future__ import annotations

import re
import signal

import pytest

HOLD = """
    import fcntl, os, signal, sys
    life = os.open({lifeline!r}, os.O_WRONLY)
    def say(word): os.write(life, word.encode() + b"\\n")
"""
WAIT = "    say('here'); fcntl.flock(open({gate!r}), fcntl.LOCK_SH)\n"


def waiting(lifeline, gate, before: str = "") -> str:
    """Return a module that does something, reports that it is here, and waits at the gate."""
    return HOLD.format(lifeline=lifeline.path) + f"    {before}\n" + WAIT.format(gate=gate.path)


def test_live_table_shows_state_and_last_line(sppe, terminal, lifeline, gate) -> None:
    """While it runs, a table shows for each task its state and the last line it wrote."""
    sppe.tasks(first="print('all done')", second=waiting(lifeline, gate, "print('working on it')"), third="pass")
    window = terminal()
    run = window.start(sppe, "run", "-j", "1")

    window.expect(lambda text: re.search(r"first +│ succeeded +│ +[\d.]+ s +│ all done", text))
    window.expect(lambda text: re.search(r"second +│ running +│ +[\d.]+ s +│ working on it", text))
    window.expect(lambda text: re.search(r"third +│ waiting +│ +│", text))
    window.expect(lambda text: "workflow: 1 waiting, 1 running, 1 succeeded" in text)
    gate.open()

    assert run.wait(timeout=60) == 0


def test_live_table_is_replaced_with_summary(sppe, terminal) -> None:
    """At the end the table is gone, the summary stays, and the cursor is back."""
    sppe.tasks(first="print('hello')", second="raise SystemExit('why')")
    window = terminal()

    run = window.start(sppe, "run", "--log-dir", "logs")

    assert run.wait(timeout=60) == 1
    window.expect(lambda text: re.search(r"1 of 2 tasks succeeded, in [\d.]+ s; logs are in logs", text))
    shown = "\n".join(window.lines)
    assert re.search(r"^  first +succeeded +[\d.]+ s$", shown, re.MULTILINE)
    assert "second: second_module failed with exit code 1" in shown
    assert "│" not in shown
    assert window.shows_cursor


def test_ctrl_c_in_terminal_stops_tasks(sppe, terminal, lifeline) -> None:
    """Ctrl-C typed into a terminal ends all tasks, prints the summary and gives the cursor back."""
    sppe.tasks(one=HOLD.format(lifeline=lifeline.path) + "    os.fork() or os.setsid(); say('here'); signal.pause()")
    window = terminal()
    run = window.start(sppe, "run")
    lifeline.expect("here", times=2)

    window.type(b"\x03")

    assert run.wait(timeout=60) == 130
    lifeline.expect_end()
    window.expect(lambda text: "Stopping 1 task; press Ctrl-C again to kill" in text)
    window.expect(lambda text: "0 of 1 tasks succeeded" in text)
    assert window.shows_cursor


def test_second_ctrl_c_in_terminal_kills_tasks(sppe, terminal, lifeline) -> None:
    """Ctrl-C typed twice kills tasks that do not want to end."""
    sppe.tasks(
        one=HOLD.format(lifeline=lifeline.path)
        + "    signal.signal(signal.SIGTERM, lambda *_: say('told')); say('here')\n    while True: signal.pause()"
    )
    window = terminal()
    run = window.start(sppe, "run")
    lifeline.expect("here")

    window.type(b"\x03")
    lifeline.expect("told")
    window.type(b"\x03")

    assert run.wait(timeout=60) == 130
    lifeline.expect_end()
    window.expect(lambda text: "sppe: Killing 1 task" in text)


def test_closed_terminal_stops_tasks_and_sppe(sppe, terminal, lifeline) -> None:
    """When the terminal goes away, all tasks end, and `sppe` with them."""
    sppe.tasks(one=HOLD.format(lifeline=lifeline.path) + "    os.fork() or os.setsid(); say('here'); signal.pause()")
    window = terminal()
    run = window.start(sppe, "run")
    lifeline.expect("here", times=2)

    window.hang_up()

    lifeline.expect_end()
    assert run.wait(timeout=60) != 0


@pytest.mark.parametrize(("rows", "columns"), [(3, 20), (1, 1), (24, 10), (2, 200), (200, 300)])
def test_live_table_supports_any_window_size(rows: int, columns: int, sppe, terminal) -> None:
    """In a window too small for a table, or a huge one, tasks run as everywhere."""
    sppe.tasks(first="print('x' * 1000)", second="raise SystemExit('why')")

    run = terminal(rows, columns).start(sppe, "run", "--log-dir", "logs")

    assert run.wait(timeout=60) == 1
    assert "stdout| xxx" in (sppe.folder / "logs/first.log").read_text(encoding="utf-8")


def test_live_table_of_long_workflow_shows_running_and_failed(sppe, terminal, lifeline, gate) -> None:
    """Of a hundred tasks, those that run or have failed are in view; the rest is counted."""
    sources = {f"task{number:03}": "pass" for number in range(100)}
    sources["task050"] = "raise SystemExit('why')"
    sources["task099"] = waiting(lifeline, gate)
    sppe.tasks(**sources)
    window = terminal(16, 100)

    run = window.start(sppe, "run", "-j", "4")

    window.expect(lambda text: "workflow: 1 running, 98 succeeded, 1 failed" in text)
    window.expect(lambda text: re.search(r"task099 +│ running", text))
    window.expect(lambda text: re.search(r"task050 +│ failed +│ .*│ task050_module failed with exit code 1", text))
    gate.open()
    assert run.wait(timeout=60) == 1


def test_live_table_escapes_output(sppe, terminal, lifeline, gate) -> None:
    """Escapes and markup in a last line are shown as they are written, and move nothing."""
    odd = r"print('\x1b[2J\x1b[5;5H[bold]x[/bold]\ttab \x07 ünï')"
    sppe.tasks(odd=waiting(lifeline, gate, odd))
    window = terminal(24, 120)

    run = window.start(sppe, "run")

    window.expect(lambda text: r"│ \x1b[2J\x1b[5;5H[bold]x[/bold] tab \x07 ünï" in text)
    gate.open()
    assert run.wait(timeout=60) == 0
    assert b"\x1b[5;5H" not in window.raw


def test_summary_escapes_output(sppe, terminal) -> None:
    """The summary shows the last output of a failed task, and the terminal does not obey it."""
    sppe.tasks(odd=r"raise SystemExit('\x1b[2J\x1b[5;5H[red]why')")
    window = terminal(24, 120)

    run = window.start(sppe, "run")

    assert run.wait(timeout=60) == 1
    window.expect(lambda text: r"  \x1b[2J\x1b[5;5H[red]why" in text)
    assert b"\x1b[5;5H" not in window.raw


def test_live_table_shows_latest_state_of_progress_bar(sppe, terminal, lifeline, gate) -> None:
    """Of a line written over and over, the last state is shown."""
    sppe.tasks(bar=waiting(lifeline, gate, r"print(' 10%\r 50%\r 90%', file=sys.stderr)"))
    window = terminal()

    run = window.start(sppe, "run")

    window.expect(lambda text: re.search(r"bar +│ running +│ .*│  90% +", text) or re.search(r"│ +90%", text))
    gate.open()
    assert run.wait(timeout=60) == 0


@pytest.mark.parametrize("variable", ["TERM=dumb", "TERM=unknown", "FORCE_COLOR=", "TTY_COMPATIBLE=0"])
def test_dumb_terminal_gets_prefixed_lines(variable: str, sppe, terminal) -> None:
    """Where a table cannot be drawn, each line of output is printed with the name of its task."""
    sppe.tasks(first="print('hello')")
    window = terminal()

    run = window.start(sppe, "run", env=dict([variable.split("=")]))

    assert run.wait(timeout=60) == 0
    window.expect(lambda text: "[first] hello" in text)
    assert b"\x1b" not in window.raw


def test_stderr_on_terminal_is_escaped(sppe, terminal) -> None:
    """With stdout in a file and stderr on a terminal, output of tasks on stderr does not steer the terminal."""
    sppe.tasks(odd=r"import sys; print('\x1b[31mout'); print('\x1b[5;5Herr', file=sys.stderr)")
    window = terminal()

    with (sppe.folder / "out").open("wb") as out:
        run = window.start(sppe, "run", stdout=out)
        assert run.wait(timeout=60) == 0

    window.expect(lambda text: r"[odd] \x1b[5;5Herr" in text)
    assert b"\x1b[5;5H" not in window.raw
    assert (sppe.folder / "out").read_bytes() == b"[odd] \x1b[31mout\n"


def test_live_table_supports_terminal_without_unicode(sppe, terminal) -> None:
    """A terminal that cannot show a character, nor the lines of a table, shows something else."""
    sppe.tasks(first="import sys; sys.stdout.reconfigure(encoding='utf-8'); print('größe ✓'); raise SystemExit('✗')")
    window = terminal()

    run = window.start(sppe, "run", env={"PYTHONIOENCODING": "ascii"})

    assert run.wait(timeout=60) == 1
    window.expect(lambda text: r"  \u2717" in text)


def test_live_table_stops_on_sigterm(sppe, terminal, lifeline) -> None:
    """SIGTERM from elsewhere leaves the terminal as it was."""
    sppe.tasks(one=HOLD.format(lifeline=lifeline.path) + "    say('here'); signal.pause()")
    window = terminal()
    run = window.start(sppe, "run")
    lifeline.expect("here")

    run.send_signal(signal.SIGTERM)

    assert run.wait(timeout=60) == 143
    window.expect(lambda text: "0 of 1 tasks succeeded" in text)
    assert window.shows_cursor
