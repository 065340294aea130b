"""Positions of tasks and edges in a picture of a graph: layers from top to bottom, many similar tasks as one group."""

from __future__ import annotations

import re
from collections import defaultdict
from graphlib import TopologicalSorter
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Pixels.
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 184, 40, 20, 44, 16
CELL, CELLS_PER_ROW, TITLE = 13, 40, 26
_GROUP_WIDTH = 2 * WIDTH
#: Maximum number of boxes side by side; a layer with more has several rows.
_BOXES_PER_ROW = 6
#: From this number on, tasks of a layer with the same name before their number or values become a group.
_SMALLEST_GROUP = 9
#: Maximum number of boxes; a picture with more has one group for several layers.
_MOST_BOXES = 240
_BANDS = 40
_STEM = re.compile(r"^(.+?)[\W_]*(\d+|\[.*|\(.*)$", re.DOTALL)


class Box(NamedTuple):
    """A task, or a group of similar tasks, with its position in pixels.

    :param title: name of the task, or of the group.
    :param tasks: the tasks in it.
    """

    title: str
    tasks: Sequence[str]
    x: float
    y: float
    width: float
    height: float

    @property
    def is_group(self) -> bool:
        """Return whether it has several tasks."""
        return len(self.tasks) > 1


class Layout(NamedTuple):
    """Boxes, the edges between them as pairs of indexes, and the size of the picture in pixels."""

    boxes: Sequence[Box]
    edges: Sequence[tuple[int, int]]
    width: float
    height: float


def layout(upstream: Mapping[str, Iterable[str]]) -> Layout:
    """Return the layout of a graph.

    :param upstream: the upstream tasks of each task; tasks that are no keys are ignored.
    """
    known = {name: [up for up in upstreams if up in upstream] for name, upstreams in upstream.items()}
    groups = _groups(known)
    edges = _edges(known, groups)
    boxes, width, height = _placed(_ordered(groups, edges))
    index = {box.tasks[0]: number for number, box in enumerate(boxes)}
    by_number = [index[group.tasks[0]] for group in groups]
    return Layout(boxes, sorted((by_number[up], by_number[down]) for up, down in edges), width, height)


class _Group(NamedTuple):
    title: str
    tasks: list[str]
    layer: int


def _groups(upstream: Mapping[str, Sequence[str]]) -> list[_Group]:
    depths = _depths(upstream)
    by_stem: dict[tuple[int, str], list[str]] = defaultdict(list)
    for name, depth in depths.items():
        found = _STEM.match(name)
        by_stem[depth, found[1] if found else name].append(name)
    groups = []
    for (depth, stem), names in by_stem.items():
        if len(names) >= _SMALLEST_GROUP:
            groups.append(_Group(f"{stem} ({len(names):,} tasks)", names, depth))
        else:
            groups += [_Group(name, [name], depth) for name in names]
    return groups if len(groups) <= _MOST_BOXES else _bands(depths)


def _bands(depths: Mapping[str, int]) -> list[_Group]:
    """Return one group for several consecutive layers."""
    layers = max(depths.values()) + 1
    each = -(-layers // min(layers, _BANDS))
    bands: dict[int, list[str]] = defaultdict(list)
    for name, depth in depths.items():
        bands[depth // each].append(name)
    return [
        _Group(names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names):,} tasks)", names, band)
        for band, names in bands.items()
    ]


def _depths(upstream: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return the length of the longest way to each task, tasks with a short one first."""
    depths: dict[str, int] = {}
    for name in TopologicalSorter(upstream).static_order():
        depths[name] = max((depths[up] + 1 for up in upstream[name]), default=0)
    order = {name: number for number, name in enumerate(upstream)}
    return dict(sorted(depths.items(), key=lambda item: (item[1], order[item[0]])))


def _edges(upstream: Mapping[str, Sequence[str]], groups: Sequence[_Group]) -> set[tuple[int, int]]:
    """Return the edges between groups of different layers."""
    group_of = {name: number for number, group in enumerate(groups) for name in group.tasks}
    edges = {(group_of[up], group_of[name]) for name, ups in upstream.items() for up in ups}
    return {(up, down) for up, down in edges if groups[up].layer < groups[down].layer}


def _ordered(groups: Sequence[_Group], edges: Iterable[tuple[int, int]]) -> list[list[_Group]]:
    """Return the layers, with groups ordered by the mean position of their neighbours, so that fewer edges cross."""
    layers: dict[int, list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        layers[group.layer].append(number)
    above: dict[int, list[int]] = defaultdict(list)
    below: dict[int, list[int]] = defaultdict(list)
    for up, down in edges:
        above[down].append(up)
        below[up].append(down)
    position = {number: at / max(len(layer), 1) for layer in layers.values() for at, number in enumerate(layer)}
    for neighbours, order in ((above, sorted(layers)), (below, sorted(layers, reverse=True)), (above, sorted(layers))):
        for depth in order:
            means = {
                number: fmean([position[other] for other in neighbours[number]] or [position[number]])
                for number in layers[depth]
            }
            layers[depth].sort(key=means.__getitem__)
            position.update({number: (at + 0.5) / len(layers[depth]) for at, number in enumerate(layers[depth])})
    return [[groups[number] for number in layers[depth]] for depth in sorted(layers)]


def _placed(layers: Iterable[Sequence[_Group]]) -> tuple[list[Box], float, float]:
    rows = [
        [_sized(group) for group in layer[start : start + _BOXES_PER_ROW]]
        for layer in layers
        for start in range(0, len(layer), _BOXES_PER_ROW)
    ]
    widths = [sum(box.width for box in row) + GAP_X * (len(row) - 1) for row in rows]
    widest = max(widths, default=0.0)
    boxes, y = [], float(MARGIN)
    for row, width in zip(rows, widths, strict=True):
        x = MARGIN + (widest - width) / 2
        for box in row:
            boxes.append(box._replace(x=x, y=y))
            x += box.width + GAP_X
        y += max(box.height for box in row) + GAP_Y
    return boxes, widest + 2 * MARGIN, max(y - GAP_Y + MARGIN, 2.0 * MARGIN)


def _sized(group: _Group) -> Box:
    if len(group.tasks) == 1:
        return Box(group.title, group.tasks, 0, 0, WIDTH, HEIGHT)
    columns = min(len(group.tasks), CELLS_PER_ROW)
    rows = -(-len(group.tasks) // CELLS_PER_ROW)
    return Box(group.title, group.tasks, 0, 0, max(_GROUP_WIDTH, columns * CELL + 12), TITLE + rows * CELL + 8)
