"""Tailers of a job's two output files, with their offsets stored in the job directory."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.trusted_files import open_own
from airflow_provider_sewer.execution.output import PIECE, LineSplitter, Masker, Sink, Stream
from airflow_provider_sewer.execution.supervisor_sockets import SupervisorSockets
from airflow_provider_sewer.execution.thread_slots import Slots
from airflow_provider_sewer.slurm.last_lines import pieces_of
from airflow_provider_sewer.slurm.log_ranges import LARGEST_OFFSET, LogRanges

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from airflow_provider_sewer.slurm.job_directory import JobDirectory

# Limit on the output that is forwarded before it is recorded, and so forwarded again if this process is killed in
# between. It is small: Airflow takes some 60 microseconds a line.
_CHUNK = 32 * 1024
# Seconds for which one poll of the output waits until Airflow has read the last chunk.
_READ_SOON = 0.25
# Seconds for which the end of the output waits for that; a supervisor is busy for longer only if it is stopped.
_READ_AT_LAST = 60.0
# Files of jobs that the monitoring threads open at once, should the file server be slow.
_SLOTS = Slots(16)


class TriggerLog:
    """Log of a trigger, which the triggerer has emptied when it started the trigger.

    :param triggerer: identifies the process that writes the log; empty under ``airflow dags test``, which empties no
        log.
    """

    def __init__(self, triggerer: str) -> None:
        self.triggerer = triggerer
        #: Whether the job directory does not yet record that the log is empty.
        self.is_new = bool(triggerer)


class JobLogs:
    """Output of a job, forwarded once and in order.

    The job directory records the offsets, so that another process continues there. A chunk is recorded when the
    supervisor of this process has read it, and the next one is forwarded only after that. So a killed process leaves at
    most one chunk that is forwarded twice, and none that is lost with its supervisor.

    :param directory: the job directory.
    :param sink: takes the output while the job runs.
    :param secrets: values to mask.
    :param read_at_last: seconds for which the end of the output waits for a supervisor that does not read.
    :param chunk: limit in bytes on the output that is forwarded before it is recorded.
    :param new_splitter: makes the splitter of each file into lines.
    :param trigger_log: log of the triggerer, if this process is one. Output that this triggerer has logged earlier is
        forwarded again.
    """

    def __init__(
        self,
        directory: JobDirectory,
        sink: Sink,
        secrets: Collection[str] = (),
        *,
        read_at_last: float = _READ_AT_LAST,
        chunk: int = _CHUNK,
        new_splitter: Callable[[], LineSplitter] = LineSplitter,
        trigger_log: TriggerLog | None = None,
    ) -> None:
        self._directory = directory
        self._trigger_log = trigger_log
        self._secrets = secrets
        self._read_at_last = read_at_last
        self._supervisor = SupervisorSockets()
        self._masker = Masker(secrets)
        self._streams = {
            stream: _StreamLog(path, stream, self._masker, sink, chunk, new_splitter())
            for stream, path in ((Stream.STDOUT, directory.stdout), (Stream.STDERR, directory.stderr))
        }
        self._saved: dict[str, Any] | None = None
        self._ranges = LogRanges()
        self._waits = True
        self._is_unread = False
        self._is_stopped = False

    def pump(self) -> bool:
        """Forward new output, at most 32 KiB of each stream, and return whether there may be more.

        Nothing is forwarded until the supervisor has read the previous chunk.
        """
        if self._saved is None and not self._resume():
            return False
        if self._ranges.next_removed():
            return self._pump_removed()
        has_more = False
        for stream, log in self._streams.items():
            if not self._save():
                return False
            begin = log.position
            has_more = log.pump() or has_more
            self._add(stream, begin, log.position)
        return self._save() and has_more

    def _pump_removed(self) -> bool:
        """Forward a chunk that Airflow has removed from the log of a trigger."""
        if self._save() and (removed := self._ranges.next_removed()):
            stream, begin, end = removed
            restored = self._streams[stream].forward_again(begin, end, Masker(self._secrets))
            self._ranges.restore(stream, restored)
            self._add(stream, begin, restored)
        return self._save()

    def _add(self, stream: Stream, begin: int, end: int) -> None:
        if self._trigger_log is not None and self._trigger_log.triggerer:
            self._ranges.add(self._trigger_log.triggerer, stream, begin, end)

    def finish(self) -> None:
        """Forward all remaining output, including an unfinished last line."""
        while self.pump() or self._is_unread:
            self._wait_until_read()
        for stream in self._streams.values():
            stream.finish()
        self.settle()

    def settle(self) -> None:
        """Wait until the forwarded output has been read, and record it; another process may continue then."""
        if (self._saved is not None or self._resume()) and not self._save():
            self._wait_until_read()
            self._save()

    def stop(self) -> None:
        """Forward and record nothing more, from any thread: the log that takes the output is closed.

        A chunk on its way is not recorded, so that another process forwards it again.
        """
        self._is_stopped = True

    def _wait_until_read(self) -> None:
        """Wait for a supervisor that has not read a chunk; if it never does, forward the rest without waiting."""
        if self._is_unread and not self._supervisor.wait_until_drained(self._read_at_last):
            self._waits = False

    def _resume(self) -> bool:
        """Continue at the recorded offsets; while they cannot be read, forward nothing, so that nothing is doubled."""
        try:
            record = self._directory.read_log_state()
        except OSError:
            return False
        for stream, log in self._streams.items():
            log.resume(record.get(stream.value))
        self._ranges = LogRanges(record.get("trigger_logs"))
        self._saved = self._state
        if self._trigger_log is not None and self._trigger_log.is_new:
            self._ranges.remove(self._trigger_log.triggerer)
            self._trigger_log.is_new = False
        return True

    @property
    def _state(self) -> dict[str, Any]:
        state = {stream.value: log.state for stream, log in self._streams.items()}
        return {**state, **({"trigger_logs": ranges} if (ranges := self._ranges.to_data()) else {})}

    def _save(self) -> bool:
        """Record the offsets of the output that was read, and return whether more may be forwarded."""
        state = self._state
        if state == self._saved or self._is_stopped:
            self._is_unread = False
            return not self._is_stopped
        is_read = self._supervisor.wait_until_drained(_READ_SOON)
        self._is_unread = self._waits and not is_read
        if is_read and not self._is_stopped:
            with suppress(OSError):  # a full disk must not end a healthy job
                self._directory.write_log_state(state)
                self._saved = state
        return not self._is_unread


class _StreamLog:
    """One of the two files of a job, with the offset of its forwarded output.

    :param path: the file.
    :param stream: its stream.
    :param masker: masks it.
    :param sink: takes it.
    :param chunk: limit in bytes on one read.
    :param splitter: splits it into lines.
    """

    def __init__(
        self, path: str, stream: Stream, masker: Masker, sink: Sink, chunk: int, splitter: LineSplitter
    ) -> None:
        self._path = path
        self._stream = stream
        self._masker = masker
        self._sink = sink
        self._chunk = chunk
        self._splitter = splitter
        self._has_read = False
        self.offset = 0

    @property
    def state(self) -> dict[str, Any]:
        """Return the state for another process to resume: the offset, and the text before it that the masker holds."""
        return {"offset": self.position, "held": self._masker.held(self._stream)}

    @property
    def position(self) -> int:
        """Return the offset at which another process resumes."""
        return self.offset - self._splitter.held

    def resume(self, state: Any) -> None:
        """Continue at a state; at the beginning if it is not one."""
        match state:
            case {"offset": int(offset), "held": str(held)} if 0 <= offset < LARGEST_OFFSET:
                self.offset = offset
                self._forward([held] if held else [])

    def pump(self) -> bool:
        """Forward new output, at most a chunk, and return whether there may be more."""
        try:
            data = self._read()
        except OSError:
            return False  # not there yet, or the file server is unreachable
        self.offset += len(data)
        self._has_read = self._has_read or bool(data)
        self._forward([*self._splitter.feed(data), *self._splitter.overdue()])
        return len(data) == self._chunk

    def finish(self) -> None:
        """Forward the text held back."""
        self._forward(self._splitter.finish())
        if rest := self._masker.rest(self._stream):
            self._sink(self._stream, rest)

    def _read(self) -> bytes:
        with _SLOTS.taken(), open_own(self._path, is_private=False) as file:
            # The module has emptied a file that is shorter than the part read here. One that is shorter than the part
            # read on another host may only look so on this one.
            if self._has_read and os.fstat(file.fileno()).st_size < self.offset:
                self.finish()
                self.offset = 0
            file.seek(self.offset)
            return file.read(self._chunk)

    def forward_again(self, begin: int, end: int, masker: Masker) -> int:
        """Forward a part again, at most a chunk of complete lines, and return where it ends.

        A secret may begin in the line before the part, and continue behind it: the text held back then was forwarded
        with the next part.
        """
        start = max(0, begin - PIECE) if masker.longest else begin
        try:
            with _SLOTS.taken(), open_own(self._path, is_private=False) as file:
                file.seek(start)
                before = file.read(begin - start)
                data = file.read(min(end - begin, self._chunk))
        except OSError:
            return begin
        if begin + len(data) < end:
            data = data[: data.rfind(b"\n") + 1] or data
        masker.mask(self._stream, pieces_of(before.rpartition(b"\n")[2]))
        if masked := masker.mask(self._stream, pieces_of(data)):
            self._sink(self._stream, masked)
        return begin + len(data) if data else end  # the module has emptied the file

    def _forward(self, pieces: Sequence[str]) -> None:
        if masked := self._masker.mask(self._stream, pieces):
            self._sink(self._stream, masked)
