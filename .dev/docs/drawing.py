"""Draw a small graph as SVG: layers from left to right, for the examples of the documentation."""

from __future__ import annotations

from html import escape
from typing import Any

HEIGHT, GAP, LAYER_GAP, MARGIN = 44, 18, 40, 8
LETTER = 7.6
ARROW_HEAD = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path class="head" d="M0 0 8 4 0 8z"/></marker></defs>'
)
NOTES = {"module": "module", "slurm": "Slurm job", "airflow": "Airflow task"}


def svg(tasks: dict[str, dict[str, Any]], title: str) -> str:
    """Return the picture of tasks, each with ``label``, ``kind``, ``mapped`` and ``upstream``."""
    columns = layers(tasks)
    places, width, height = positions(tasks, columns)
    edges = [
        edge(places[upstream], places[name]) for name, task in tasks.items() for upstream in reversed(task["upstream"])
    ]
    boxes = [box(task, *places[name]) for name, task in tasks.items()]
    start = (
        f'<div class="graph"><svg role="img" aria-label="{escape(title)}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">'
    )
    return "\n".join([start, ARROW_HEAD, *edges, *boxes, "</svg></div>"])


def layers(tasks: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Return the names by the length of the longest path to them; neighbours of neighbours stand beside each other."""
    depth: dict[str, int] = {}

    def depth_of(name: str) -> int:
        if name not in depth:
            depth[name] = 1 + max((depth_of(upstream) for upstream in tasks[name]["upstream"]), default=-1)
        return depth[name]

    columns: list[list[str]] = [[] for _ in range(1 + max(map(depth_of, tasks), default=0))]
    for name in tasks:
        columns[depth[name]].append(name)
    row = {name: index for column in columns for index, name in enumerate(column)}
    for column in columns[1:]:
        column.sort(key=lambda name: sum(row[up] for up in tasks[name]["upstream"]) / len(tasks[name]["upstream"]))
        row.update({name: index for index, name in enumerate(column)})
    return columns


def positions(
    tasks: dict[str, dict[str, Any]], columns: list[list[str]]
) -> tuple[dict[str, tuple[float, float, float]], int, int]:
    """Return left edge, middle line and width of each box, and the size of the picture."""
    tallest = max(len(column) for column in columns)
    total = tallest * (HEIGHT + GAP) - GAP
    places = {}
    left = float(MARGIN)
    for column in columns:
        width = max(96.0, *(len(tasks[name]["label"]) * LETTER + 24 for name in column))
        top = MARGIN + (total - len(column) * (HEIGHT + GAP) + GAP) / 2
        for index, name in enumerate(column):
            places[name] = (left, top + index * (HEIGHT + GAP) + HEIGHT / 2, width)
        left += width + LAYER_GAP
    return places, round(left - LAYER_GAP + MARGIN + 6), round(total + 2 * MARGIN + 6)


def edge(start: tuple[float, float, float], end: tuple[float, float, float]) -> str:
    """Return an arrow between two boxes."""
    (left, y, width), (x, bottom, _) = start, end
    begin, middle = left + width, (left + width + x) / 2
    path = f"M{begin:.0f} {y:.0f} C{middle:.0f} {y:.0f} {middle:.0f} {bottom:.0f} {x:.0f} {bottom:.0f}"
    return f'<path class="edge" marker-end="url(#head)" d="{path}"/>'


def box(task: dict[str, Any], left: float, middle: float, width: float) -> str:
    """Return the box of a task; a mapped one has two more behind it."""
    top = middle - HEIGHT / 2
    shape = '<rect class="box" x="{:.0f}" y="{:.0f}" width="{:.0f}" height="{}" rx="5"/>'
    shifts = (6, 3, 0) if task["mapped"] else (0,)
    shapes = "".join(shape.format(left + shift, top + shift, width, HEIGHT) for shift in shifts)
    x = left + width / 2
    note = NOTES[task["kind"]] + ", mapped" * task["mapped"]
    return (
        f'<g class="{task["kind"]}">{shapes}<text x="{x:.0f}" y="{middle - 2:.0f}">{escape(task["label"])}</text>'
        f'<text class="note" x="{x:.0f}" y="{middle + 14:.0f}">{note}</text></g>'
    )
