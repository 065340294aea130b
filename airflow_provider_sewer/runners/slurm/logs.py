"""Follow a job's two output files, and remember in the run directory how far."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_provider_sewer.runners.output import PIECE, LineSplitter, Masker, Sink, Stream, Tail

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from airflow_provider_sewer.runners.slurm.run_directory import RunDirectory

_CHUNK = 1024 * 1024
# As much of the end of a file is read for its last lines: less than a piece, so that a line is whole or too long.
_RESULT_END = PIECE


class JobLogs:
    """What a job has written, handed on once and in order.

    How far it was handed on is noted in the run directory whenever nothing is held back, so that
    whoever comes next, in another process, goes on there.

    :param directory: the run directory.
    :param sink: takes the output as it comes.
    :param secrets: values to mask.
    """

    def __init__(self, directory: RunDirectory, sink: Sink, secrets: Collection[str] = ()) -> None:
        self._directory = directory
        self._sink = sink
        self._paths = {Stream.STDOUT: directory.stdout, Stream.STDERR: directory.stderr}
        noted = directory.read_log_offsets()
        self._noted = {stream: noted.get(stream.value, 0) for stream in Stream}
        self._offsets = dict(self._noted)
        self._splitters = {stream: LineSplitter() for stream in Stream}
        self._masker = Masker(secrets)

    def pump(self) -> bool:
        """Hand on what is new, at most a megabyte of each stream, and tell whether there may be more."""
        more = [self._pump(stream) for stream in Stream]
        self._note()
        return any(more)

    def has_reached(self, stdout: int, stderr: int) -> bool:
        """Tell whether this many bytes of each stream have been read."""
        return self._offsets[Stream.STDOUT] >= stdout and self._offsets[Stream.STDERR] >= stderr

    def finish(self) -> None:
        """Hand on all there is, an unfinished last line included."""
        while self.pump():
            pass
        for stream in Stream:
            self._hand_on(stream, self._masker.mask(stream, self._splitters[stream].finish()))
            self._hand_on(stream, self._masker.rest(stream))
        self._note()

    def _pump(self, stream: Stream) -> bool:
        try:
            with open(self._paths[stream], "rb") as file:
                file.seek(self._offsets[stream])
                data = file.read(_CHUNK)
        except OSError:
            return False  # not there yet, or the file server is away
        self._offsets[stream] += len(data)
        self._hand_on(stream, self._masker.mask(stream, self._splitters[stream].feed(data)))
        return len(data) == _CHUNK

    def _hand_on(self, stream: Stream, pieces: Sequence[str]) -> None:
        if pieces:
            self._sink(stream, pieces)

    def _note(self) -> None:
        offsets = dict(self._noted)
        for stream in Stream:
            if not self._masker.holds(stream):
                offsets[stream] = self._offsets[stream] - self._splitters[stream].held
        if offsets != self._noted:
            with suppress(OSError):  # a full disk must not end a job that is well
                self._directory.write_log_offsets({stream.value: offset for stream, offset in offsets.items()})
                self._noted = offsets


def last_lines(path: str, secrets: Collection[str] = ()) -> list[str]:
    """Return the last lines of an output file, masked, each cut to a readable width."""
    tail = Tail()
    masker = Masker(secrets)
    tail.take(masker.mask(Stream.STDOUT, _end_of(path)))
    tail.take(masker.rest(Stream.STDOUT))
    return tail.lines


def last_line_between(path: str, begin: int, end: int) -> str | None:
    """Return the last line of this part of a file; ``None`` if there is none, or it is too long for a result."""
    pieces = _end_of(path, begin, end)
    complete = [piece.removesuffix("\n") for piece in pieces]
    is_cut = len(pieces) == 1 and end - begin > _RESULT_END
    return complete[-1] if complete and not is_cut else None


def _end_of(path: str, begin: int = 0, end: int | None = None) -> list[str]:
    try:
        with open(path, "rb") as file:
            end = os.fstat(file.fileno()).st_size if end is None else end
            start = max(begin, end - _RESULT_END)
            file.seek(start)
            data = file.read(end - start)
    except OSError:
        return []
    splitter = LineSplitter()
    return [*splitter.feed(data), *splitter.finish()]
