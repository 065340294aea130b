"""Logs of jobs: each byte once and in order, by any sequence of readers."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_sewer.execution.output import PIECE, LineSplitter, Stream
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.last_lines import last_line_between, last_lines
from airflow_provider_sewer.slurm.log_tailer import JobLogs, TriggerLog

SECRET = "hush-it-is-secret"


class Log:
    """A job directory with output from the test, and the output that readers have forwarded."""

    def __init__(self, folder: Path) -> None:
        self.directory = JobDirectory(str(folder))
        self.directory.create()
        self.pieces: list[tuple[Stream, str]] = []

    def write(self, data: bytes, stream: Stream = Stream.STDOUT) -> None:
        with open(self.path(stream), "ab") as file:
            file.write(data)

    def path(self, stream: Stream = Stream.STDOUT) -> str:
        return self.directory.stdout if stream is Stream.STDOUT else self.directory.stderr

    def reader(self, secrets: Sequence[str] = (), triggerer: str | None = None, **options: Any) -> JobLogs:
        trigger_log = None if triggerer is None else TriggerLog(triggerer)
        return JobLogs(self.directory, self._take, secrets, trigger_log=trigger_log, **options)

    def text(self, stream: Stream = Stream.STDOUT) -> str:
        return "".join(text for of, text in self.pieces if of is stream)

    def _take(self, stream: Stream, pieces: Sequence[str]) -> None:
        assert pieces
        assert all(pieces)
        self.pieces += [(stream, piece) for piece in pieces]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "run")


def decoded(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


# Long lines, characters of several bytes, line ends of all kinds, bytes that are no text, and secrets.
BITS = st.one_of(
    st.sampled_from([b"\n", b"\r\n", b"\0", b"\xff\xfe", "größe ✓ 日本".encode(), SECRET.encode(), b"hush-it-"]),
    st.integers(1, 3).map(lambda times: b"0123456789abcdef" * (times * PIECE // 20)),
    st.text(max_size=20).map(str.encode),
)
# After each of these a reader looks, and then goes on, is replaced, or loses its file server for a while.
STEPS = st.lists(
    st.tuples(BITS, st.sampled_from(list(Stream)), st.sampled_from(["look", "replace", "look and replace", "away"])),
    max_size=25,
)


@given(STEPS, st.integers(3_000, 100_000), st.booleans())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_pump_forwards_each_byte_once_across_processes(steps: Any, chunk: int, masks: bool) -> None:
    """Readers are replaced at any point, and the file server comes and goes: each byte arrives once, in its order."""
    secrets = [SECRET] if masks else []
    with tempfile.TemporaryDirectory() as folder:
        log = Log(Path(folder, "run"))
        written = dict.fromkeys(Stream, b"")
        reader = log.reader(secrets, chunk=chunk)
        for data, stream, action in steps:
            log.write(data, stream)
            written[stream] += data
            if action == "away":
                os.rename(log.directory.path, f"{folder}/elsewhere")
                Path(log.directory.path).touch()  # a path below it cannot be opened, as with an unreachable server
                reader = log.reader(secrets, chunk=chunk)
                assert not reader.pump()
                os.unlink(log.directory.path)
                os.rename(f"{folder}/elsewhere", log.directory.path)
            if "look" in action:
                reader.pump()
            if "replace" in action:
                reader = log.reader(secrets, chunk=chunk)
        reader.finish()

        for stream in Stream:
            masked = decoded(written[stream]).replace(SECRET, "***") if masks else decoded(written[stream])
            assert log.text(stream) == masked


def test_pump_forwards_complete_lines_and_finish_the_rest(log: Log) -> None:
    """Lines arrive one by one as they are written; text without a newline waits for it, or for the end of the job."""
    reader = log.reader()
    log.write(b"one\ntwo\nthr")
    reader.pump()
    assert [piece for _, piece in log.pieces] == ["one\n", "two\n"]

    log.write(b"ee\nfour")
    reader.pump()
    assert [piece for _, piece in log.pieces] == ["one\n", "two\n", "three\n"]

    reader.finish()
    assert log.text() == "one\ntwo\nthree\nfour"


def impatient() -> LineSplitter:
    """Return a splitter of which a piece of a line is overdue at the next look."""
    return LineSplitter(patience=0.0, pause=0.0)


def test_pump_forwards_overdue_line_without_newline(log: Log) -> None:
    """Also by a reader that goes on in the middle of it: each part once."""
    for number, reader in enumerate([log.reader(new_splitter=impatient) for _ in range(3)]):
        log.write(f"\repoch {number}".encode())
        reader.pump()
        assert log.text() == "".join(f"\repoch {each}" for each in range(number + 1))


def test_pump_masks_secret_across_chunks(log: Log) -> None:
    """By any reader of the parts: a beginning of it is held back."""
    for part in (f"{'x' * 80} {SECRET[:9]}", SECRET[9:12], f"{SECRET[12:]} and {SECRET}"):
        log.write(part.encode())
        log.reader([SECRET], new_splitter=impatient).pump()
        assert SECRET[:9] not in log.text()
    log.reader([SECRET]).finish()

    assert log.text() == f"{'x' * 80} *** and ***"


def test_finish_twice_forwards_nothing_again(log: Log) -> None:
    """A job that is taken up after its log was handed on in full is not logged again."""
    log.write(b"whole\nunfinished")
    log.reader().finish()

    log.reader().finish()

    assert log.text() == "whole\nunfinished"


def test_pump_waits_for_missing_files(log: Log) -> None:
    """A job that has not begun has no files; they are read as soon as they are there."""
    reader = log.reader()
    assert not reader.pump()

    log.write(b"late\n", Stream.STDERR)
    reader.pump()

    assert log.text(Stream.STDERR) == "late\n"


@pytest.mark.parametrize("state", ["", '{"stdout": {"off', "[]", '{"stdout": 5}', '{"stdout": {"offset": "x"}}'])
def test_damaged_log_state_repeats_output_and_loses_none(state: str, log: Log) -> None:
    """Where the offset of the log is unknown, the log is forwarded from the beginning."""
    log.write(b"one\ntwo\n")
    Path(log.directory.path, "log-offsets.json").write_text(state)

    log.reader().finish()

    assert log.text() == "one\ntwo\n"


def test_killed_process_repeats_at_most_one_chunk(log: Log) -> None:
    """The reader after a kill may log unrecorded output again; that is little, for any amount of output."""
    log.write(b"".join(b"line %06d\n" % number for number in range(100_000)))
    handed_on: list[str] = []

    class Killed(BaseException):
        """The end of a reader."""

    def sink(stream: Stream, pieces: Sequence[str]) -> None:
        handed_on.extend(pieces)
        if len(handed_on) > 50_000 and not kills:
            kills.append(len(handed_on))
            raise Killed

    kills: list[int] = []
    with pytest.raises(Killed):
        JobLogs(log.directory, sink).finish()
    JobLogs(log.directory, sink).finish()

    assert len(set(handed_on)) == 100_000
    assert 0 < len(handed_on) - 100_000 <= 32 * 1024 / len("line 000000\n")


def test_pump_forwards_output_on_full_disk(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the offset cannot be recorded, the log is forwarded all the same, and the offset recorded later."""
    log.write(b"one\n")
    reader = log.reader()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))  # Python ignores SIGXFSZ: writing is an OSError
    try:
        reader.pump()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert log.text() == "one\n"
    assert os.listdir(log.directory.path) == ["stdout.log"]

    log.write(b"two\n")
    reader.pump()
    log.reader().finish()

    assert log.text() == "one\ntwo\n"


def test_pump_forwards_output_after_truncation(log: Log) -> None:
    """A module that empties its own output file loses nothing that it writes afterwards."""
    log.write(b"before, a long line\nunfinished")
    reader = log.reader()
    reader.pump()

    os.truncate(log.path(), 0)
    log.write(b"after\n")
    reader.finish()

    assert log.text() == "before, a long line\nunfinishedafter\n"


def test_pump_waits_for_file_that_looks_shorter_on_other_host(log: Log) -> None:
    """A new reader to which the file looks shorter than the logged part does not log it again."""
    log.write(b"one\ntwo\n")
    log.reader().pump()
    os.rename(log.path(), f"{log.path()}.whole")
    log.write(b"one\n")  # possible content of a cache
    reader = log.reader()
    reader.pump()

    os.replace(f"{log.path()}.whole", log.path())
    log.write(b"three\n")
    reader.finish()

    assert log.text() == "one\ntwo\nthree\n"


HEAVY = """
import re, sys
from airflow_provider_sewer.slurm.log_tailer import JobLogs
from airflow_provider_sewer.slurm.job_directory import JobDirectory
seen = [0]
def take(stream, pieces):
    seen[0] += sum(map(len, pieces))
def most_memory():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1))
before = most_memory()
JobLogs(JobDirectory(sys.argv[1]), take, ["a-secret-of-mine"]).finish()
print(seen[0], most_memory() - before)
"""


def test_finish_of_200_mb_uses_little_memory(log: Log) -> None:
    """A log of 200 MB, half of it in one line, is handed on in full and in less than 40 MB of memory."""
    line = b"x" * 199 + b"\n"
    with open(log.path(), "wb") as file:
        file.writelines(line * 5000 for _ in range(100))
        file.writelines(b"y" * 1_000_000 for _ in range(100))

    done = subprocess.run(
        [sys.executable, "-c", HEAVY, log.directory.path], capture_output=True, text=True, check=True, timeout=120
    )

    size, more_memory_kb = map(int, done.stdout.split())
    assert size == 200_000_000
    assert more_memory_kb < 40_000


# --- the end of a log


def test_last_lines_masks_cut_secrets(tmp_path: Path) -> None:
    """The end of a log shows no secret and no part of one, wherever the log is cut to get its end."""
    path = tmp_path / "stderr.log"
    for shift in range(len(SECRET) + 1):
        path.write_text("x" * 1000 + SECRET + "y" * (PIECE - shift - len(SECRET)) + SECRET)
        shown = "".join(last_lines(str(path), [SECRET]))
        assert shown.startswith("y")
        path.write_text(f"a\n{SECRET}\nb")
        assert last_lines(str(path), [SECRET]) == ["a", "***", "b"]


@pytest.mark.parametrize(
    ("before", "of_module", "after", "expected"),
    [
        (b"setup\n", b"one\nresult\n", b"teardown\n", "result"),
        (b"setup\n", b"result", b"teardown", "result"),
        (b"setup\n", b"", b"teardown\n", None),
        (b"", b"\n", b"", ""),
        (b"", b"x" * PIECE * 2 + b"\nresult\n", b"after", "result"),
        (b"", b"x" * PIECE * 2, b"", None),
        (b"", b"first\n" + b"x" * PIECE * 2 + b"\n", b"", None),
        (b"", b"\xff" * (PIECE // 2), b"", None),
        (b"", "größe".encode(), b"", "größe"),
    ],
)
def test_last_line_between_returns_last_line_of_module(
    before: bytes, of_module: bytes, after: bytes, expected: str | None, tmp_path: Path
) -> None:
    """Only output of the module itself counts, and only a line that fits into one piece."""
    path = tmp_path / "stdout.log"
    path.write_bytes(before + of_module + after)

    assert last_line_between(str(path), len(before), len(before) + len(of_module)) == expected


def test_last_line_between_of_truncated_log_has_no_old_result(tmp_path: Path) -> None:
    """A module may empty its log, or remove it: the present content counts, and nothing is an error."""
    path = tmp_path / "stdout.log"
    path.write_bytes(b"short\n")

    assert last_line_between(str(path), 1000, 6) == "short"
    assert last_line_between(str(path), 1000, -1) is None
    assert last_line_between(str(path), -1, 6) == "short"
    assert last_line_between(str(tmp_path / "gone"), 0, 6) is None
    assert last_lines(str(tmp_path / "gone")) == []


# --- Airflow empties the log of a trigger that comes back to a triggerer


LINES = [f"line {number}\n" for number in range(30_000)]


def pump_all(reader: JobLogs) -> None:
    while reader.pump():
        pass


def lines_of(log: Log) -> list[str]:
    lines, log.pieces = [piece for _, piece in log.pieces], []
    return lines


def test_trigger_log_emptied_by_triggerer_is_forwarded_again(log: Log) -> None:
    """The parts that this triggerer has logged earlier, without those still in the log of another one."""
    log.write("".join(LINES[:10_000]).encode())
    pump_all(log.reader(triggerer="one"))
    log.write("".join(LINES[10_000:20_000]).encode())
    log.pieces = []
    pump_all(log.reader(triggerer="two"))
    log.write("".join(LINES[20_000:]).encode())
    in_log_of_two = lines_of(log)

    log.reader(triggerer="one").finish()

    assert lines_of(log) == [*LINES[:10_000], *LINES[20_000:]]
    assert in_log_of_two == LINES[10_000:20_000]


@pytest.mark.parametrize("size", range(1, len(SECRET)))
def test_trigger_log_forwarded_again_is_masked(log: Log, size: int) -> None:
    """Triggerers took turns in the middle of a long line, and of the secret in it."""
    long = "x" * (PIECE - size)
    log.write(f"{long}{SECRET[:size]}".encode())
    pump_all(log.reader([SECRET], triggerer="one"))
    log.write(f"{SECRET[size:]} of one\n".encode())
    pump_all(log.reader([SECRET], triggerer="two"))
    for triggerer in ("one", "two"):
        log.pieces = []
        pump_all(log.reader([SECRET], triggerer=triggerer))
        assert log.text() == {"one": long, "two": "*** of one\n"}[triggerer]


@pytest.mark.parametrize("triggerer", ["two", None])
def test_trigger_log_removed_parts_are_forwarded_by_next_process(triggerer: str | None, log: Log) -> None:
    """The triggerer ended after it had emptied the log: another one or the worker completes it."""
    log.write("".join(LINES).encode())
    pump_all(log.reader(triggerer="one"))
    log.pieces = []
    log.reader(triggerer="one").pump()

    log.reader(triggerer=triggerer).finish()

    assert lines_of(log) == LINES


def test_settle_of_idle_trigger_leaves_removed_logs_to_worker(log: Log) -> None:
    """The job has ended before the triggerer took the trigger back."""
    log.write("".join(LINES).encode())
    pump_all(log.reader(triggerer="one"))
    log.pieces = []
    log.reader(triggerer="one").settle()

    log.reader().finish()

    assert lines_of(log) == LINES


def test_trigger_log_of_same_trigger_is_not_repeated(log: Log) -> None:
    """A process that loses the job for a while, and gets it back with the same trigger, has an unharmed log."""
    trigger_log = TriggerLog("one")
    log.write("".join(LINES[:10]).encode())
    pump_all(JobLogs(log.directory, log._take, trigger_log=trigger_log))
    log.write("".join(LINES[10:20]).encode())

    pump_all(JobLogs(log.directory, log._take, trigger_log=trigger_log))

    assert lines_of(log) == LINES[:20]


@pytest.mark.parametrize(
    "damaged", [[], {"triggerers": 1, "removed": [1]}, {"removed": {"stdout": [[5, 1], "x", [1]]}}]
)
def test_damaged_trigger_log_ranges_count_as_empty(log: Log, damaged: Any) -> None:
    """The output is handed on from where it was."""
    log.write(b"one\ntwo\n")
    state = {"stdout": {"offset": 4, "held": ""}, "stderr": {"offset": 0, "held": ""}, "trigger_logs": damaged}
    log.directory.write_log_state(state)

    log.reader(triggerer="one").finish()

    assert lines_of(log) == ["two\n"]
