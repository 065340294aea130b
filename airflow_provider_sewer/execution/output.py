"""Conversion of a pipe's bytes into pieces of text, in bounded memory and for any bytes."""

from __future__ import annotations

import enum
import re
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from airflow_provider_sewer.core.masking import Secrets

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Maximum characters of a piece of text. A longer line is split into several pieces.
PIECE = 64 * 1024
#: Seconds that a piece waits for the rest of its line, e.g. that of a progress bar.
_PATIENCE = 2.0
#: Seconds without more output after which a piece is not cut: the current write is complete.
_PAUSE = 0.5

# The control characters of ASCII and Latin-1, and those that change the text direction.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

# Mask of the upper bits of a UTF-8 byte, and their value in a continuation byte.
_KIND, _CONTINUATION = 0b1100_0000, 0b1000_0000
# The smallest first byte of a character, and its number of bytes.
_SIZES = ((0b1111_0000, 4), (0b1110_0000, 3), (0b1100_0000, 2), (0, 1))
_LONGEST_CHARACTER = 4

_TAIL_LINES = 20
_TAIL_WIDTH = 2_000


class Stream(enum.Enum):
    """The two streams of a process."""

    STDOUT = "stdout"
    STDERR = "stderr"


class Sink(Protocol):
    r"""Receiver of the output of a process.

    Pieces are like the return values of ``readline(limit)``: a complete line ends with ``\n``; a piece without it is
    continued by the next one of its stream, or is the last one.
    """

    def __call__(self, stream: Stream, pieces: Sequence[str], /) -> None:
        """Receive the next pieces, in order."""


class LineSplitter:
    r"""Splitter of a stream of bytes into lines of text.

    Bytes that are not valid UTF-8 are escaped as ``\xff``, so that the text can be encoded anywhere.

    :param patience: seconds that a piece waits for the rest of its line.
    :param pause: seconds without more output after which a piece is not cut.
    """

    def __init__(self, *, patience: float = _PATIENCE, pause: float = _PAUSE) -> None:
        self._patience = patience
        self._pause = pause
        self._rest = b""
        self._begun = self._fed = 0.0

    def feed(self, data: bytes) -> list[str]:
        """Append bytes and return the pieces that are complete now."""
        head, newline, rest = (self._rest + data).rpartition(b"\n")
        pieces = [line + "\n" for line in _decoded(head).split("\n")] if newline else []
        while len(rest) >= PIECE:
            end = _character_end(rest, PIECE)
            pieces.append(_decoded(rest[:end]))
            rest = rest[end:]
        if data:
            self._fed = time.monotonic()
        if pieces or not self._rest:
            self._begun = self._fed
        self._rest = rest
        return _cut(pieces)

    def overdue(self) -> list[str]:
        """Return the piece that has waited too long for the rest of its line, such as a progress bar's."""
        now = time.monotonic()
        if not self._rest or now - self._begun < self._patience:
            return []
        end = _end_of_characters(self._rest)
        if now - self._fed < self._pause:
            end = _end_of_drawing(self._rest[:end])
        piece, self._rest, self._begun = self._rest[:end], self._rest[end:], now
        return _cut([_decoded(piece)]) if piece else []

    @property
    def held(self) -> int:
        """Return the number of bytes that wait for the rest of their line."""
        return len(self._rest)

    def finish(self) -> list[str]:
        """Return the remaining text when the stream has ended without a newline."""
        rest, self._rest = self._rest, b""
        return _cut([_decoded(rest)]) if rest else []


class Masker:
    """Masker of known secrets in the pieces of a process's output, also across cuts in a long line.

    :param secrets: the values, masked in all their :func:`~airflow_provider_sewer.core.masking.forms`.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = Secrets(secrets)
        self._held = dict.fromkeys(Stream, "")

    def mask(self, stream: Stream, pieces: Sequence[str]) -> Sequence[str]:
        """Return the next pieces of a stream, masked; a possible beginning of a secret is held back."""
        if not self._secrets:
            return pieces
        masked = []
        for piece in pieces:
            text = self._held[stream] + piece
            is_complete = text.endswith("\n")
            shown, self._held[stream] = (self._secrets.mask(text), "") if is_complete else self._secrets.split(text)
            masked.append(shown)
        return [text for text in masked if text]

    @property
    def longest(self) -> int:
        """Return the number of characters of the longest text that is masked."""
        return max(map(len, self._secrets.forms), default=0)

    def held(self, stream: Stream) -> str:
        """Return the text held back of a stream; another masker continues from here when it receives this first."""
        return self._held[stream]

    def rest(self, stream: Stream) -> list[str]:
        """Return the text held back when the stream has ended."""
        held, self._held[stream] = self._held[stream], ""
        return [held] if held else []


class Tail:
    """The last lines of a stream, and the last one in full for a result."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_TAIL_LINES)
        self._open = False
        self._last: str | None = None

    def take(self, pieces: Iterable[str]) -> None:
        """Append the next pieces of the stream."""
        for piece in pieces:
            text = piece.removesuffix("\n")
            if self._open:
                self._last = _joined(self._last, text)
                self._lines[-1] = (self._lines[-1] + text)[:_TAIL_WIDTH]
            else:
                self._last = text
                self._lines.append(text[:_TAIL_WIDTH])
            self._open = not piece.endswith("\n")

    @property
    def lines(self) -> list[str]:
        """Return the last lines, each truncated to a readable width."""
        return list(self._lines)

    @property
    def is_unfinished(self) -> bool:
        """Return whether the last line has no newline yet."""
        return self._open

    @property
    def last_line(self) -> str | None:
        """Return the last line in full; ``None`` if there is no line or it is longer than a piece."""
        return self._last


def _joined(begin: str | None, text: str) -> str | None:
    return None if begin is None or len(begin) + len(text) > PIECE else begin + text


def printable(text: str) -> str:
    """Escape control characters, so that no task can control the terminal; tabs and newlines stay."""
    return _CONTROL.sub(lambda found: repr(found.group())[1:-1], text)


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _cut(pieces: list[str]) -> list[str]:
    if all(len(piece) <= PIECE for piece in pieces):
        return pieces
    return [piece[start : start + PIECE] for piece in pieces for start in range(0, len(piece), PIECE)]


def _end_of_characters(data: bytes) -> int:
    """Return the end of the last complete character."""
    for start in range(len(data) - 1, max(-1, len(data) - _LONGEST_CHARACTER), -1):
        if data[start] & _KIND != _CONTINUATION:
            is_complete = len(data) - start >= next(size for least, size in _SIZES if data[start] >= least)
            return len(data) if is_complete else start
    return len(data)


def _end_of_drawing(data: bytes) -> int:
    """Return the start of a line's last redrawing, else of its last word, so that neither is cut."""
    redrawn = data.rfind(b"\r")
    return redrawn if redrawn > 0 else max(data.rfind(b" "), data.rfind(b"\t")) + 1 or len(data)


def _character_end(data: bytes, end: int) -> int:
    """Return the position at or just before ``end`` where a UTF-8 character begins, if there is one."""
    for start in range(end, end - 4, -1):
        if start < len(data) and data[start] & _KIND != _CONTINUATION:
            return start
    return end
