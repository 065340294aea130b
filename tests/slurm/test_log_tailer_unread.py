"""Logs of jobs in a process whose supervisor reads late, stops reading, or dies: at most one chunk is logged twice."""

from __future__ import annotations

import array
import fcntl
import gc
import logging
import os
import signal
import socket
import termios
import time
import uuid
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_sewer.execution.supervisor_sockets import SupervisorSockets
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.log_tailer import JobLogs
from tests.slurm.script_jobs import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHUNK = 32 * 1024
LINE = b"line %06d\n"
LINES = 20_000


class Supervisor:
    """This process as the supervisor of a child, with the sockets that Airflow gives it: requests and log."""

    def __init__(self) -> None:
        self._requests, self._child_requests = socket.socketpair()
        self.log, self._child_log = socket.socketpair()
        self.pid = 0

    def start(self, work: Callable[[socket.socket], None]) -> None:
        """Let a child work, with its end of the log."""
        self.pid = os.fork()
        if self.pid:
            self._child_requests.close()
            self._child_log.close()
            return
        self._requests.close()
        self.log.close()
        os.dup2(self._child_requests.fileno(), 0)
        for each in {*map(int, os.listdir("/proc/self/fd"))} - {0, 1, 2, self._child_log.fileno()}:
            with suppress(OSError):
                os.close(each)  # sockets of this process that other tests have left, read or not
        try:
            work(self._child_log)
        except BaseException:
            os._exit(1)
        os._exit(0)

    def unread(self) -> int:
        """Return the bytes that the child has written and this process has not read."""
        size = array.array("i", [0])
        fcntl.ioctl(self.log, termios.FIONREAD, size)
        return size[0]

    def read(self, most: int = 1 << 30) -> bytes:
        """Read so many bytes, or all until the child closes its log."""
        data = bytearray()
        while len(data) < most and (more := self.log.recv(min(1 << 16, most - len(data)))):
            data += more
        return bytes(data)

    def kill(self) -> None:
        """Kill the child."""
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> int:
        """Wait for the end of the child, and return its exit code."""
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def die(self) -> None:
        """Close all sockets, as they are when a supervisor ends."""
        self._requests.close()
        self.log.close()


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    """Return a supervisor whose child does not outlive the test."""
    supervisor = Supervisor()
    yield supervisor
    if supervisor.pid:
        with suppress(ProcessLookupError):
            supervisor.kill()
        supervisor.end()
    supervisor.die()


@pytest.fixture
def directory(tmp_path: Path) -> JobDirectory:
    """Return the job directory of a job that has written some chunks."""
    directory = JobDirectory(str(tmp_path / "run"))
    directory.create()
    with open(directory.stdout, "wb") as file:
        file.writelines(LINE % number for number in range(LINES))
    return directory


def hand_on(directory: JobDirectory, read_at_last: float = 600.0) -> Callable[[socket.socket], None]:
    """Return the work of a child that hands on the whole output."""

    def work(log: socket.socket) -> None:
        def sink(_: object, pieces: object) -> None:
            log.sendall("".join(pieces).encode())  # type: ignore[call-overload]

        JobLogs(directory, sink, read_at_last=read_at_last).finish()

    return work


def rest(directory: JobDirectory) -> bytes:
    """Return the output that the next process forwards."""
    pieces: list[str] = []
    JobLogs(directory, lambda _, more: pieces.extend(more)).finish()
    return "".join(pieces).encode()


def doubled(*texts: bytes) -> int:
    """Return how many lines of the job are in these texts more than once; each is there at least once."""
    count = Counter(line for text in texts for line in text.splitlines(keepends=True) if line.endswith(b"\n"))
    assert {LINE % number for number in range(LINES)} <= set(count)
    return sum(count.values()) - LINES


@pytest.mark.parametrize("size", [20_000, 200_000])
def test_finish_waits_for_late_supervisor(directory: JobDirectory, supervisor: Supervisor, size: int) -> None:
    """A process that has come to its own end has recorded all of the output, and the next one logs nothing twice."""
    os.truncate(directory.stdout, size)
    supervisor.start(hand_on(directory))
    wait_until(supervisor.unread, "output")
    time.sleep(1.5)  # longer than a look waits
    assert len(supervisor.read()) == size
    assert supervisor.end() == 0
    assert rest(directory) == b""


def test_killed_process_with_slow_supervisor_repeats_at_most_a_chunk(
    directory: JobDirectory, supervisor: Supervisor
) -> None:
    """However long the supervisor has not read, no more than one chunk is on its way to it."""
    supervisor.start(hand_on(directory))
    assert supervisor.read(100_000)
    wait_until(supervisor.unread, "output")
    time.sleep(1.0)  # a process that did not wait would fill the socket
    supervisor.kill()
    supervisor.end()
    first = b"".join([LINE % number for number in range(LINES)])[:100_000] + supervisor.read()
    assert 0 < doubled(first, rest(directory)) * len(LINE % 0) <= CHUNK


def test_killed_supervisor_loses_no_output(directory: JobDirectory, supervisor: Supervisor) -> None:
    """Its unread part is dropped with its sockets, and does not count as read."""
    supervisor.start(hand_on(directory, read_at_last=1.0))
    first = supervisor.read(100_000)
    wait_until(supervisor.unread, "output")
    supervisor.die()
    supervisor.end()
    assert doubled(first, rest(directory)) * len(LINE % 0) <= CHUNK


def test_finish_stops_waiting_for_supervisor_that_never_reads(directory: JobDirectory, supervisor: Supervisor) -> None:
    """The end of a task does not wait for it for ever; as the lines may be lost, the next process logs them again."""
    os.truncate(directory.stdout, 50_000)
    supervisor.start(hand_on(directory, read_at_last=0.5))
    assert supervisor.end() == 0
    assert len(supervisor.read()) == 50_000
    assert len(rest(directory)) == 50_000


def test_supervisor_sockets_drain_while_others_write(supervisor: Supervisor) -> None:
    """In a triggerer, many triggers write to one socket, which is seldom empty."""

    def work(log: socket.socket) -> None:
        sleep = time.sleep

        def write_on(_: float) -> None:  # by then, the part to read is known
            time.sleep = sleep
            log.sendall(b"b" * 5000)

        log.sendall(b"a" * 5000)
        time.sleep = write_on
        os._exit(7 if SupervisorSockets().wait_until_drained(60) else 8)

    supervisor.start(work)
    wait_until(lambda: supervisor.unread() == 10_000, "both writers")
    assert supervisor.read(5000) == b"a" * 5000
    assert supervisor.end() == 7
    assert supervisor.unread() == 5000


@pytest.mark.airflow
@pytest.mark.parametrize("reads", [False, True])
def test_supervisor_sockets_find_airflow_supervisor(reads: bool) -> None:
    """A child of Airflow's own supervisor can find out whether that has read the log."""
    from airflow.sdk.execution_time.supervisor import WatchedSubprocess

    def work() -> None:
        logging.getLogger("airflow.task.module.stdout").info("a line")
        os._exit(7 if SupervisorSockets().wait_until_drained(30.0 if reads else 0.0) else 8)

    process: Any = WatchedSubprocess.start(target=work, id=uuid.uuid4())
    if reads:
        wait_until(lambda: process._service_subprocess(max_wait_time=0.1) is not None, "the end of the child")
        assert process._exit_code == 7
    else:
        _, status = os.waitpid(process.pid, 0)
        assert os.waitstatus_to_exitcode(status) == 8
    process._cleanup_open_sockets()


def test_supervisor_sockets_leave_no_open_file(supervisor: Supervisor) -> None:
    """A triggerer looks for them once for each job that it follows."""

    def work(_: socket.socket) -> None:
        gc.collect()  # no file of an earlier test is closed in between
        gc.disable()
        with open(os.devnull), socket.socket() as tcp:
            before = len(os.listdir("/proc/self/fd"))
            assert all(SupervisorSockets().wait_until_drained(0.0) for _ in range(20))
            os._exit(7 if len(os.listdir("/proc/self/fd")) == before and tcp.getblocking() else 8)

    supervisor.start(work)
    assert supervisor.end() == 7


def test_supervisor_sockets_without_supervisor_are_empty() -> None:
    """Under `airflow dags test` there is nothing to wait for, with any sockets of the process."""
    one, other = socket.socketpair()
    with one, other:
        one.sendall(b"never read")
        assert SupervisorSockets().wait_until_drained(0.0)
