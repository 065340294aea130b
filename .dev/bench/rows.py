"""Rows of measurements, their figures, and the Markdown table."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Row(NamedTuple):
    """One comparison.

    :param subject: the measured work of this package.
    :param peer: the alternative it is compared with.
    :param unit: unit of both figures; a key of :data:`_DIGITS`.
    :param at_most: target for the ratio of both figures.
    """

    subject: str
    peer: str
    unit: str = "s"
    at_most: float | None = None


class Figure(NamedTuple):
    """Result of a row.

    :param here: the figure of this package.
    :param there: the figure of the peer.
    :param cannot: the reason if the peer has no figure.
    """

    here: float | None = None
    there: float | None = None
    cannot: str = ""

    @property
    def ratio(self) -> float | None:
        """Return the ratio of both figures, as shown."""
        return round(self.here / self.there, 2) if self.here is not None and self.there else None


#: Number of decimals; values below 1 get one more.
_DIGITS = {"s": 2, "ms": 0, "MB": 0, "": 0}

HEAD = ("Work", "Here", "Beside it", "There", "Here / there")


def table(rows: Mapping[str, Row], figures: Mapping[str, Figure]) -> str:
    """Return the rows as a table in Markdown."""
    lines = [HEAD, ("---", "---:", "---", "---:", "---:")]
    lines += [_cells(row, figures.get(key, Figure(cannot="not measured"))) for key, row in rows.items()]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def names_in(text: str) -> list[tuple[str, str]]:
    """Return the subject and peer of each row of a Markdown table."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    return [(row[0], row[2]) for row in cells]


def _cells(row: Row, figure: Figure) -> tuple[str, ...]:
    there = figure.cannot or _shown(figure.there, row.unit)
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    target = "" if row.at_most is None or not ratio else f" (at most {row.at_most:g})"
    return row.subject, _shown(figure.here, row.unit), row.peer, there, ratio + target


def missed(rows: Mapping[str, Row], figures: Mapping[str, Figure]) -> list[str]:
    """Return a line for each row whose ratio is above its target."""
    return [
        f"{row.subject}: {ratio:.2f}, must be at most {row.at_most:g}"
        for key, row in rows.items()
        if row.at_most is not None and key in figures and (ratio := figures[key].ratio or 0) > row.at_most
    ]


def _shown(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:,.{_DIGITS[unit] + (value < 1)}f} {unit}".strip()


def merged(tables: Iterable[Mapping[str, Row]]) -> dict[str, Row]:
    """Return the rows of several parts.

    :raises ValueError: when two parts share a key.
    """
    rows: dict[str, Row] = {}
    for each in tables:
        if taken := rows.keys() & each.keys():
            raise ValueError(f"two parts have rows named {', '.join(sorted(taken))}")
        rows |= each
    return rows
