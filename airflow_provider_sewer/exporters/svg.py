"""Exporter of a graph to SVG, with the state of each task if it has run. It needs no script, font or network."""

from __future__ import annotations

import unicodedata
from html import escape
from itertools import accumulate
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.exporters.diagram import printable
from airflow_provider_sewer.exporters.graph_layout import CELL, CELLS_PER_ROW, TITLE, layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.exporters.graph_layout import Box


class TaskMark(NamedTuple):
    """Appearance of a task in a picture.

    :param style: class of the box; :data:`STYLE` has a colour for each.
    :param sign: character that shows the state without colour.
    :param note: text below the pointer, after the name.
    """

    style: str = "plain"
    sign: str = ""
    note: str = ""


_NO_MARKS: Mapping[str, TaskMark] = MappingProxyType({})
_PLAIN = TaskMark()
#: Maximum number of columns of a name in a box, and of the title of a group.
_WIDEST_NAME, _WIDEST_TITLE = 20, 46

#: Colours by class, for a light and a dark background. Each has a sign too, for those who do not see the colour.
STYLE = """
.sewer { --ink: #1f2933; --soft: #61707f; --line: #9aa7b4; --paper: #ffffff; --box: #f3f6f9; --ok: #1f9254;
  --cached: #5f8fa8; --bad: #cc3b3b; --warn: #c47f17; --busy: #2f6fd0; --idle: #b6c0ca; }
@media (prefers-color-scheme: dark) {
  .sewer { --ink: #e4e9ee; --soft: #9aa8b5; --line: #64727f; --paper: #14191e; --box: #222a32; --ok: #3fbf7b;
    --cached: #7fb2cc; --bad: #f07070; --warn: #e6a94a; --busy: #6ea3f5; --idle: #56626d; }
}
.sewer text { font: 13px system-ui, sans-serif; fill: var(--ink); }
.sewer .edge { fill: none; stroke: var(--line); stroke-width: 1.3; }
.sewer .tip { fill: var(--line); }
.sewer .box { fill: var(--box); stroke: var(--line); stroke-width: 1.2; }
.sewer .succeeded { --state: var(--ok); } .sewer .cached { --state: var(--cached); }
.sewer .failed { --state: var(--bad); } .sewer .stopped, .sewer .upstream { --state: var(--warn); }
.sewer .running { --state: var(--busy); } .sewer .waiting { --state: var(--idle); }
.sewer .box.failed { stroke-width: 2.4; }
.sewer .box:not(.plain) { stroke: var(--state); }
.sewer .cell { fill: var(--state, var(--idle)); }
.sewer .bar { fill: var(--state, var(--idle)); }
.sewer .sign { fill: var(--state, var(--soft)); font-weight: 700; }
"""


def workflow_svg(workflow: Workflow) -> str:
    """Return a workflow as an SVG document; the pointer shows the module of a task."""
    marks = {name: TaskMark(note=task.target) for name, task in workflow.tasks.items()}
    return graph_svg(workflow.upstream, marks, title=workflow.name, is_document=True)


def workflow_html(workflow: Workflow) -> str:
    """Return a workflow as a self-contained HTML page."""
    marks = {name: TaskMark(note=task.target) for name, task in workflow.tasks.items()}
    title = escape(printable(workflow.name))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<style>{STYLE}{PAGE}</style>\n</head>\n"
        f'<body class="sewer">\n<h1>{title}</h1>\n<p>{escape(printable(workflow.doc))}</p>\n'
        f"{graph_svg(workflow.upstream, marks, title=workflow.name)}\n</body>\n</html>\n"
    )


#: Style of a page around a graph.
PAGE = """
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 78rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
svg { max-width: 100%; height: auto; }
"""


def graph_svg(
    upstream: Mapping[str, Iterable[str]],
    marks: Mapping[str, TaskMark] = _NO_MARKS,
    *,
    title: str,
    is_document: bool = False,
) -> str:
    """Return a graph as SVG.

    :param upstream: the upstream tasks of each task.
    :param marks: the appearance of each task.
    :param title: description for those who do not see it.
    :param is_document: add the style; otherwise the page around it has it.
    """
    placed = layout(upstream)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="sewer" role="img" viewBox="0 0 {placed.width:g} '
        f'{placed.height:g}" width="{placed.width:g}" height="{placed.height:g}">'
        f"<title>{escape(printable(title))}</title>"
    )
    style = f"<style>{STYLE}</style>" if is_document else ""
    edges = [_edge(placed.boxes[up], placed.boxes[down]) for up, down in placed.edges]
    boxes = [line for box in placed.boxes for line in _box(box, marks)]
    return "\n".join([head + style, *edges, *boxes, "</svg>"]) + ("\n" if is_document else "")


def _edge(up: Box, down: Box) -> str:
    x1, y1, x2, y2 = up.x + up.width / 2, up.y + up.height, down.x + down.width / 2, down.y - 5
    bend = (y2 - y1) / 2
    return (
        f'<path class="edge" d="M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"/>'
        f'<path class="tip" d="M{x2:g} {y2 + 5:g}l-4 -7h8z"/>'
    )


def _box(box: Box, marks: Mapping[str, TaskMark]) -> Iterator[str]:
    mark = _PLAIN if box.is_group else marks.get(box.tasks[0], _PLAIN)
    frame = f'x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" rx="6"'
    yield f"<g><title>{_note(box.tasks[0], mark) if not box.is_group else escape(printable(box.title))}</title>"
    yield f'<rect class="box {mark.style}" {frame}/>'
    if box.is_group:
        yield f'<text x="{box.x + 8:g}" y="{box.y + 17:g}">{escape(_shortened(box.title, _WIDEST_TITLE))}</text>'
        yield from _cells(box, marks)
    else:
        if mark.sign:
            yield f'<text class="sign {mark.style}" x="{box.x + 10:g}" y="{box.y + 25:g}">{escape(mark.sign)}</text>'
        at, anchor = (box.x + 27, "start") if mark.sign else (box.x + box.width / 2, "middle")
        name = escape(_shortened(box.title, _WIDEST_NAME))
        yield f'<text x="{at:g}" y="{box.y + 25:g}" text-anchor="{anchor}">{name}</text>'
    yield "</g>"


def _cells(box: Box, marks: Mapping[str, TaskMark]) -> Iterator[str]:
    for number, task in enumerate(box.tasks):
        row, column = divmod(number, CELLS_PER_ROW)
        mark = marks.get(task, _PLAIN)
        yield (
            f'<rect class="cell {mark.style}" x="{box.x + 6 + column * CELL:g}" y="{box.y + TITLE + row * CELL:g}" '
            f'width="{CELL - 3}" height="{CELL - 3}" rx="2"><title>{_note(task, mark)}</title></rect>'
        )


def _note(task: str, mark: TaskMark) -> str:
    return escape(printable(f"{task}: {mark.note}" if mark.note else task))


def _shortened(text: str, columns: int) -> str:
    """Return a text of at most a number of columns; the end is cut, since names differ there less often."""
    text = printable(text)
    if sum(map(_columns, text)) <= columns:
        return text
    ends = accumulate(map(_columns, text), initial=1)  # one column is for the dots
    return text[: sum(end <= columns for end in ends) - 1] + "…"


def _columns(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
