"""Conversion of bytes into text: every byte once, in order, in bounded pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_sewer.execution.output import PIECE, LineSplitter, Masker, Stream, Tail, printable

CHUNKS = st.lists(st.one_of(st.binary(max_size=40), st.text(max_size=20).map(str.encode), st.just(b"\n")), max_size=30)


def pieces_of(chunks: list[bytes]) -> list[str]:
    splitter = LineSplitter()
    return [piece for chunk in chunks for piece in splitter.feed(chunk)] + splitter.finish()


@given(CHUNKS)
def test_line_splitter_preserves_bytes_for_any_chunks(chunks: list[bytes]) -> None:
    """All bytes arrive once and in order, however the pipe cuts them."""
    assert "".join(pieces_of(chunks)) == b"".join(chunks).decode("utf-8", "backslashreplace")


@given(CHUNKS)
def test_line_splitter_only_last_line_lacks_newline(chunks: list[bytes]) -> None:
    """Of short lines, each piece is one whole line; only the very last may lack its newline."""
    pieces = pieces_of(chunks)

    assert all(piece.count("\n") == 1 and piece.endswith("\n") for piece in pieces[:-1])


@given(st.text(min_size=1, max_size=5), st.integers(0, 3), st.sampled_from(["", "\n"]))
def test_line_splitter_cuts_long_line_between_characters(characters: str, shift: int, newline: str) -> None:
    """A line longer than a piece is cut, never inside a character and never into pieces that are too long."""
    line = "x" * shift + characters.replace("\n", "~") * (3 * PIECE // len(characters.encode()))
    data = (line + newline).encode()

    pieces = pieces_of([data[start : start + 65536] for start in range(0, len(data), 65536)])

    assert "".join(pieces) == line + newline
    assert max(map(len, pieces)) <= PIECE


def test_line_splitter_bounds_pieces_of_invalid_utf8() -> None:
    """A long line of bytes that are no text does not make pieces longer than agreed."""
    data = b"\xff\x80" * PIECE

    pieces = pieces_of([data[start : start + 65536] for start in range(0, len(data), 65536)])

    assert "".join(pieces) == r"\xff\x80" * PIECE
    assert max(map(len, pieces)) <= PIECE


def test_line_splitter_returns_line_at_its_newline() -> None:
    """A line is returned at its newline; the text after it waits."""
    splitter = LineSplitter()

    assert splitter.feed(b"one\ntwo\nthr") == ["one\n", "two\n"]
    assert splitter.feed(b"ee\n") == ["three\n"]
    assert splitter.finish() == []


def impatient(*, is_pause: bool) -> LineSplitter:
    """Return a splitter of which each piece is overdue at once, in a pause of the output or not."""
    return LineSplitter(patience=0.0, pause=0.0 if is_pause else 1e9)


def overdue(*chunks: bytes, is_pause: bool) -> tuple[list[str], list[str]]:
    """Return the overdue piece after some chunks, and the pieces after it."""
    splitter = impatient(is_pause=is_pause)
    for chunk in chunks:
        splitter.feed(chunk)
    return splitter.overdue(), splitter.finish()


@pytest.mark.parametrize("text", ["....", "Continue? ", "\repoch 3", "50%\r", "größe ✓ 🐍"])
def test_line_splitter_overdue_in_pause_returns_partial_line(text: str) -> None:
    """Dots, a prompt and a progress bar, as far as they have come."""
    assert overdue(text.encode(), is_pause=True) == ([text], [])


@pytest.mark.parametrize(
    ("text", "piece"),
    [
        ("\r 10% 1it/s\r 20% 2it/s\r 30", "\r 10% 1it/s\r 20% 2it/s"),
        ("10%\r20%\r30%\r", "10%\r20%\r30%"),
        ("\rone draw", "\rone "),
        ("words and half of a wo", "words and half of a "),
        ("....", "...."),
    ],
)
def test_line_splitter_overdue_cuts_at_redraw_or_word(text: str, piece: str) -> None:
    """A secret that Airflow knows of, and this package does not, is not cut: Airflow masks piece by piece."""
    assert overdue(text.encode(), is_pause=False) == ([piece], [text.removeprefix(piece)] if text != piece else [])


def test_line_splitter_overdue_retains_incomplete_character() -> None:
    """It comes with the rest of it."""
    for character in ("ö", "✓", "🐍"):
        data = character.encode()
        for size in range(1, len(data)):
            splitter = impatient(is_pause=True)
            splitter.feed(b"a" + data[:size])
            assert splitter.overdue() == ["a"]
            assert splitter.feed(data[size:] + b"\n") == [f"{character}\n"]


def test_line_splitter_overdue_before_timeout_returns_nothing() -> None:
    """Nor is there anything to hand on once its line is whole."""
    splitter = LineSplitter()

    splitter.feed(b"a line and a half\nof one")
    assert splitter.overdue() == []
    splitter.feed(b"\n")
    assert splitter.finish() == []


@given(CHUNKS, st.booleans())
def test_line_splitter_preserves_bytes_with_overdue_pieces(chunks: list[bytes], is_pause: bool) -> None:
    """Whenever it is asked for them."""
    splitter = impatient(is_pause=is_pause)
    pieces = [piece for chunk in chunks for piece in (*splitter.feed(chunk), *splitter.overdue())]
    pieces += splitter.finish()

    assert all(pieces)
    assert "".join(pieces) == b"".join(chunks).decode("utf-8", "backslashreplace")


def test_tail_retains_last_lines_and_cuts_wide_lines() -> None:
    """The tail keeps the last twenty lines, each cut to a readable width."""
    tail = Tail()

    tail.take([f"line {number}\n" for number in range(100)] + ["w" * 10_000 + "\n"])

    assert tail.lines[:-1] == [f"line {number}" for number in range(81, 100)]
    assert tail.lines[-1] == "w" * 2_000


def test_last_line_joins_pieces_and_rejects_longer_line() -> None:
    """The very last line is returned unchanged, unless it is longer than a piece can be."""
    whole, pieces, cut = Tail(), Tail(), Tail()
    whole.take(["first\n", "the result"])
    pieces.take(["first\n", "the ", "result\n"])
    cut.take(["x" * PIECE, "x\n"])

    assert whole.last_line == pieces.last_line == "the result"
    assert pieces.lines == ["first", "the result"]
    assert cut.last_line is None
    assert Tail().last_line is None


def test_escape_control_characters_for_terminal() -> None:
    """Control sequences are escaped; brackets, umlauts and tabs stay."""
    assert (
        printable("\x1b[31m[red] Größe\t1\r\x07 \x9b2J\n") == r"\x1b[31m[red] Größe" + "\t" + r"1\r\x07 \x9b2J" + "\n"
    )


@given(st.lists(st.sampled_from(["se", "cret", "secret", "x", "\n", "secretly ", "sec"]), max_size=12))
def test_stream_masker_masks_secret_across_any_pieces(pieces: list[str]) -> None:
    """A line in any pieces is masked like the complete line."""
    masker = Masker(["secret"])
    whole_lines = [part for text in pieces for part in text.splitlines(keepends=True)]

    masked = "".join(text for piece in whole_lines for text in masker.mask(Stream.STDOUT, [piece]))
    masked += "".join(masker.rest(Stream.STDOUT))

    assert masked == "".join(pieces).replace("secret", "***")


def test_masker_masks_each_line_of_secret_except_short_ones() -> None:
    """A key file is printed line by line; a secret of one letter would blacken everything."""
    masker = Masker(["-----BEGIN\nline-of-a-key", "a"])

    assert masker.mask(Stream.STDERR, ["a line-of-a-key\n"]) == ["a ***\n"]
