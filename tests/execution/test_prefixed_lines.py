"""Output of tasks on the terminal."""

from __future__ import annotations

import io
import sys

from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.execution.output import Stream
from airflow_provider_sewer.execution.prefixed_lines import PrefixedLines
from airflow_provider_sewer.execution.task_states import Outcome, TaskState

TASK = Task("a task", "module")
OUT, ERR = Stream.STDOUT, Stream.STDERR


def test_prefixed_lines_start_with_task_name(capsys) -> None:
    """Each line has its task before it; stdout goes to stdout, everything else to stderr."""
    lines = PrefixedLines()

    lines.on_start(TASK, "python -m module", None)
    lines.on_output(TASK, OUT, ["[red]one[/red]\n", "two"])
    lines.on_output(TASK, ERR, ["three\n"])
    lines.on_end(TASK, Outcome(TaskState.SUCCEEDED, 1.26))

    stdout, stderr = capsys.readouterr()
    assert stdout == "[a task] [red]one[/red]\n[a task] two\n"
    assert stderr == "[a task] $ python -m module\n[a task] three\n[a task] succeeded after 1.3 s\n"


def test_prefixed_lines_on_terminal_show_last_redraw(monkeypatch) -> None:
    """As a terminal does without names before the lines; in a pipe all of it stays."""
    terminal, pipe = Terminal(), io.StringIO()
    for target in (terminal, pipe):
        monkeypatch.setattr(sys, "stderr", target)
        PrefixedLines().on_output(TASK, ERR, ["\r 10%\r 20%"])

    assert terminal.getvalue() == "[a task]  20%\n"
    assert pipe.getvalue() == "[a task] \r 10%\r 20%\n"


def test_prefixed_lines_skip_empty_end_of_line_in_pieces(capsys) -> None:
    """But one for a line that is empty."""
    plain = PrefixedLines()
    for pieces in (["..."], ["\n"], ["\n"], ["1", "\n"], ["2"], ["3\n"]):
        plain.on_output(TASK, OUT, pieces)
    plain.on_output(TASK, ERR, ["\n"])

    shown = capsys.readouterr()
    assert shown.out == "".join(f"[a task] {line}\n" for line in ("...", "", "1", "", "2", "3"))
    assert shown.err == "[a task] \n"


def test_prefixed_lines_show_failure_reason(capsys) -> None:
    """A failure is shown with the first line of its reason; a task that never ran has no duration."""
    lines = PrefixedLines()

    lines.on_end(TASK, Outcome(TaskState.FAILED, 0.5, reason="it broke\nand more"))
    lines.on_end(TASK, Outcome(TaskState.UPSTREAM_FAILED, reason="'other' failed"))

    assert (
        capsys.readouterr().err == "[a task] failed after 0.5 s: it broke\n[a task] upstream failed: 'other' failed\n"
    )


def test_prefixed_lines_escape_unencodable_characters(monkeypatch) -> None:
    """A character that stdout cannot show is written out instead of failing the task."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))

    PrefixedLines().on_output(Task("größe", "module"), OUT, ["café ✓\n"])

    assert raw.getvalue() == b"[gr\\xf6\\xdfe] caf\\xe9 \\u2713\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_prefixed_lines_escape_control_characters(monkeypatch) -> None:
    """On a terminal, control characters are written out; in a pipe or a file they stay as they are."""
    line = "\x1b[2J\x1b]0;title\x07cleared\tall\r\n"
    terminal, pipe = Terminal(), io.StringIO()
    for target in (terminal, pipe):
        monkeypatch.setattr(sys, "stdout", target)
        PrefixedLines().on_output(TASK, OUT, [line])

    assert terminal.getvalue() == "[a task] \\x1b[2J\\x1b]0;title\\x07cleared\tall\\r\n"
    assert pipe.getvalue() == f"[a task] {line}"
