"""Log files of tasks, and their names."""

from __future__ import annotations

import os
import re
import resource
import unicodedata
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.execution.log_files import LogFiles, file_names
from airflow_provider_sewer.execution.output import Stream
from airflow_provider_sewer.execution.task_states import Outcome, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterator

TASK = Task("a task", "module")
OUT, ERR = Stream.STDOUT, Stream.STDERR

# --- log files


@pytest.fixture
def log(tmp_path: Path):
    """Return the log files of one task that has started."""
    logs = LogFiles(str(tmp_path / "logs"), [TASK.name])
    logs.on_start(TASK, "python -m module", "/data")
    yield logs
    logs.on_end(TASK, Outcome(TaskState.SUCCEEDED, 1.0))


def lines_of(log: LogFiles, task: Task = TASK) -> list[str]:
    """Return the lines of a log without their times."""
    text = Path(log.paths[task.name]).read_text(encoding="utf-8")
    return [re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d ", "", line) for line in text.split("\n")]


def test_log_files_append_on_resume(tmp_path: Path) -> None:
    """A reattached job is logged in the file that has its submission; a new run begins a new file."""
    for goes_on, line in ((False, "one\n"), (True, "two\n")):
        logs = LogFiles(str(tmp_path), [TASK.name], goes_on=goes_on)
        logs.on_job_event(TASK, "job 7 is RUNNING")
        logs.on_output(TASK, OUT, [line])
        logs.on_end(TASK, Outcome(TaskState.STOPPED, 1.5))

    story = ["sewer| job 7 is RUNNING", "stdout| one", "sewer| stopped after 1.500 s"]
    assert lines_of(logs) == [*story, story[0], "stdout| two", story[2], ""]


def test_log_files_of_many_tasks_hold_few_files_open(tmp_path: Path) -> None:
    """Lines of concurrent tasks alternate; each log is complete."""
    tasks = [Task(f"t{number}", "module") for number in range(50)]
    logs = LogFiles(str(tmp_path / "logs"), [task.name for task in tasks])
    before = len(os.listdir("/proc/self/fd"))
    for task in tasks:
        logs.on_start(task, f"run {task.name}", "/data")
    for task in tasks:
        logs.on_output(task, OUT, ["half of ", "a line\n", "the be"])
    assert len(os.listdir("/proc/self/fd")) - before <= 16
    for task in tasks:
        logs.on_output(task, OUT, ["ginning\n"])
        logs.on_end(task, Outcome(TaskState.SUCCEEDED, 1.0))

    assert len(os.listdir("/proc/self/fd")) == before
    for task in tasks:
        expected = ["stdout| half of a line", "stdout| the beginning", "sewer| succeeded after 1.000 s", ""]
        assert lines_of(logs, task) == [f"sewer| $ run {task.name}", "sewer| in /data", *expected]


def test_log_file_has_command_output_and_outcome(tmp_path: Path) -> None:
    """A log holds command, working directory, each line with time and stream, why it failed and how long it took."""
    logs = LogFiles(str(tmp_path), [TASK.name])

    logs.on_start(TASK, "python -m module", "/data")
    logs.on_output(TASK, OUT, ["one\n", "[red]two[/red] ✓\n"])
    logs.on_output(TASK, ERR, ["three\n"])
    logs.on_end(TASK, Outcome(TaskState.FAILED, 1.5, reason="it broke\n  for a reason"))

    assert lines_of(logs) == [
        "sewer| $ python -m module",
        "sewer| in /data",
        "stdout| one",
        "stdout| [red]two[/red] ✓",
        "stderr| three",
        "sewer| it broke",
        "sewer|   for a reason",
        "sewer| failed after 1.500 s",
        "",
    ]


def test_log_file_is_flushed_while_task_runs(log) -> None:
    """A line is in the file as soon as it has been handed over."""
    log.on_output(TASK, OUT, ["now\n"])

    assert lines_of(log)[2:] == ["stdout| now", ""]


def test_log_file_joins_pieces_of_one_line(log) -> None:
    """The pieces of a long line are put together again, across hand-overs."""
    log.on_output(TASK, OUT, ["first\n", "be", "gin"])
    log.on_output(TASK, OUT, ["middle"])
    log.on_output(TASK, OUT, ["end\n", "last\n"])

    assert lines_of(log)[2:] == ["stdout| first", "stdout| beginmiddleend", "stdout| last", ""]


def test_log_file_splits_line_at_change_of_stream(log) -> None:
    """When the other stream interrupts a line, each part has the name of its stream."""
    log.on_output(TASK, OUT, ["begin"])
    log.on_output(TASK, ERR, ["warn"])
    log.on_output(TASK, OUT, ["end\n"])
    log.on_output(TASK, ERR, ["ing\n"])

    assert lines_of(log)[2:] == ["stdout| begin", "stderr| warn", "stdout| end", "stderr| ing", ""]


def test_log_file_ends_last_line_with_newline(tmp_path: Path) -> None:
    """Text after a line without a newline begins on a new line."""
    logs = LogFiles(str(tmp_path), [TASK.name])
    logs.on_start(TASK, "python", None)
    logs.on_output(TASK, OUT, ["no newline"])
    logs.on_end(TASK, Outcome(TaskState.SUCCEEDED, 1.0))

    assert lines_of(logs)[1:] == [
        f"sewer| in {os.getcwd()}",
        "stdout| no newline",
        "sewer| succeeded after 1.000 s",
        "",
    ]


def test_log_file_preserves_carriage_returns_and_escapes(log) -> None:
    """Carriage returns and escapes are preserved: a log is a record, not a terminal."""
    log.on_output(TASK, ERR, [" 1%\r 2%\r\x1b[32m100%\x1b[0m\r\n"])

    assert b" 1%\r 2%\r\x1b[32m100%\x1b[0m\r\n" in Path(log.paths[TASK.name]).read_bytes()


def test_log_file_open_error_names_file(tmp_path: Path) -> None:
    """Where a log file cannot be written, that file is named."""
    logs = LogFiles(str(tmp_path), [TASK.name])
    Path(logs.paths[TASK.name]).mkdir()

    with pytest.raises(SewerError, match=r"cannot write the log file .*/a_task\.log: Is a directory"):
        logs.on_start(TASK, "python", None)


@contextmanager
def no_room() -> Iterator[None]:
    """Let no file of this process become larger than 10 bytes in the block, in which pytest writes nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_log_file_on_full_disk_raises_with_its_path(tmp_path: Path) -> None:
    """Where no space left, the error names the file, also at the end."""
    logs = LogFiles(str(tmp_path), [TASK.name])
    message = r"cannot write the log file .*/a_task\.log: File too large"

    with no_room(), pytest.raises(SewerError, match=message):
        logs.on_start(TASK, "python", None)
    with no_room(), pytest.raises(SewerError, match=message):
        logs.on_end(TASK, Outcome(TaskState.SUCCEEDED, 1.0))


@pytest.mark.parametrize("goes_on", [True, False])
def test_log_file_that_is_a_link_is_rejected(goes_on: bool, tmp_path: Path) -> None:
    """A link in place of a log file, as another user can put it into a shared folder, overwrites nothing."""
    (tmp_path / "precious").write_text("mine")
    logs = LogFiles(str(tmp_path), [TASK.name], goes_on=goes_on)
    Path(logs.paths[TASK.name]).symlink_to("precious")

    with pytest.raises(SewerError, match=r"cannot write the log file .*/a_task\.log: is a symbolic link"):
        logs.on_start(TASK, "python", None)

    assert (tmp_path / "precious").read_text() == "mine"


def test_skipped_task_has_no_log_file(tmp_path: Path) -> None:
    """The end of a task that never started makes no file."""
    logs = LogFiles(str(tmp_path / "logs"), [TASK.name])

    logs.on_end(TASK, Outcome(TaskState.UPSTREAM_FAILED, reason="'x' failed"))

    assert list((tmp_path / "logs").iterdir()) == []


# --- names of files

NAMES = st.lists(st.text(min_size=1, max_size=60).filter(lambda name: name.isprintable() and name.strip()), unique=True)


@given(NAMES)
def test_log_file_names_are_unique_and_portable(names: list[str]) -> None:
    """Names become file names that are safe, short enough, and different even where case does not count."""
    files = file_names(names)

    assert list(files) == names
    assert len({unicodedata.normalize("NFC", file).casefold() for file in files.values()}) == len(names)
    for file in files.values():
        assert re.fullmatch(r"[\w.-]+", file)
        assert not file.startswith((".", "-"))
        assert len(os.fsencode(file)) <= 200


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["train"], ["train"]),
        (["Example 1", "step-2.b"], ["Example_1", "step-2.b"]),
        (["../x", "a/b", "/etc/passwd"], ["_x", "a_b", "_etc_passwd"]),
        (["A", "a", "Ä", "ä"], ["A", "a_2", "Ä", "ä_2"]),
        (["a b", "a/b", "a_b"], ["a_b", "a_b_2", "a_b_3"]),
        (["..", "...", "-"], ["task", "task_2", "task_3"]),
        (["é", "e\N{COMBINING ACUTE ACCENT}"], ["é", "é_2"]),
    ],
)
def test_file_names_keep_safe_characters(names: list[str], files: list[str]) -> None:
    """A file is called like its task as far as file systems allow."""
    assert list(file_names(names).values()) == files


@pytest.mark.parametrize("name", ["x" * 300, "語" * 300, "🙂é" * 200])
def test_log_file_name_of_long_task_name_is_cut(name: str, tmp_path: Path) -> None:
    """A name longer than file systems allow is cut, between characters, and stays different from its like."""
    logs = LogFiles(str(tmp_path), [name, name + "2"])

    for path in logs.paths.values():
        Path(path).touch()

    assert len(list(tmp_path.iterdir())) == 2
