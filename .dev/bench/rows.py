"""What is measured, what came out, and the table that shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Row(NamedTuple):
    """What is measured, beside what.

    :param what: what this package does.
    :param peer: what else does it.
    :param unit: of both figures; a key of :data:`_DIGITS`.
    """

    what: str
    peer: str
    unit: str = "s"


class Figure(NamedTuple):
    """What came out for a row.

    :param here: the figure of this package.
    :param there: that of the peer.
    :param cannot: why there is none of the peer.
    """

    here: float | None = None
    there: float | None = None
    cannot: str = ""


#: How many decimals are shown; one more where it is less than one.
_DIGITS = {"s": 2, "ms": 0, "MB": 0, "": 0}

HEAD = ("What", "Here", "Beside it", "There", "Here / there")


def table(rows: Mapping[str, Row], figures: Mapping[str, Figure]) -> str:
    """Return the rows as a table in Markdown."""
    lines = [HEAD, ("---", "---:", "---", "---:", "---:")]
    lines += [_cells(row, figures.get(key, Figure(cannot="not measured"))) for key, row in rows.items()]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def names_in(text: str) -> list[tuple[str, str]]:
    """Return what the rows of a table in Markdown measure, beside what."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    return [(row[0], row[2]) for row in cells]


def _cells(row: Row, figure: Figure) -> tuple[str, ...]:
    there = figure.cannot or _shown(figure.there, row.unit)
    ratio = f"{figure.here / figure.there:.2f}" if figure.here is not None and figure.there else ""
    return row.what, _shown(figure.here, row.unit), row.peer, there, ratio


def _shown(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:,.{_DIGITS[unit] + (value < 1)}f} {unit}".strip()


def merged(tables: Iterable[Mapping[str, Row]]) -> dict[str, Row]:
    """Return the rows of several parts.

    :raises ValueError: when two of them have one key.
    """
    rows: dict[str, Row] = {}
    for each in tables:
        if taken := rows.keys() & each.keys():
            raise ValueError(f"two parts have rows named {', '.join(sorted(taken))}")
        rows |= each
    return rows
