"""Exporters of a workflow to diagrams: a tree for a terminal, a flowchart for Mermaid."""

from __future__ import annotations

import inspect
import re
import unicodedata
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_sewer.core.workflow import Workflow

#: Maximum depth of the tree before it continues at the margin, and maximum width of its first column.
DEEPEST = 12
WIDEST = 60

# Characters that Mermaid, or Markdown in its labels, may interpret: ASCII punctuation except round brackets, commas and
# characters between two letters; and spaces that would be lost. "1) " starts a list.
_SPECIAL = re.compile(r"^ | (?= |$)|(?<=\d)\)(?= )|(?<![^\W_])[._-]|[._-](?![^\W_])|[^\w ,()._\u0080-\U0010ffff-]")


def to_tree(workflow: Workflow) -> str:
    """Return a workflow as a text tree: each task once, after all its upstream tasks and below one of them.

    The other upstream tasks are listed next to it. A long chain continues at the margin after every
    :data:`DEEPEST` levels.
    """
    rows = list(_rows(workflow))
    column = max((width for width in (_width(left) for left, _ in rows) if width <= WIDEST), default=0)
    header = [workflow.name, *inspect.cleandoc(workflow.doc).splitlines()]
    lines = [left + " " * (max(column - _width(left), 0) + 2) + right for left, right in rows]
    return "".join(f"{line}\n" for line in [*map(printable, header), "", *lines])


def to_mermaid(workflow: Workflow) -> str:
    """Return a workflow as a Mermaid flowchart; names are escaped."""
    ids = {name: f"n{index}" for index, name in enumerate(workflow.tasks)}
    nodes = [f'    {node}["{_label(name)}"]' for name, node in ids.items()]
    edges = [f"    {ids[up]} --> {ids[down]}" for up, down in workflow.edges]
    head = ["---", f'title: "{_title(workflow.name)}"', "---", "flowchart TD"]
    return "".join(f"{line}\n" for line in [*head, *nodes, *edges])


def _rows(workflow: Workflow) -> Iterator[tuple[str, str]]:
    """Yield a row for each task: branches and name, and its description."""
    downstream = _downstream(workflow)
    waits_for = {name: len(upstream) for name, upstream in workflow.upstream.items()}
    margin = deque(name for name in workflow.tasks if not waits_for[name])
    while margin:
        later: list[str] = []
        stack = [(margin.popleft(), "", "", "", 0)]
        while stack:
            name, parent, before, branch, depth = stack.pop()
            yield before + branch + name, _description(workflow, name, parent)
            # A task is drawn below its last upstream task.
            children = []
            for other in downstream[name]:
                waits_for[other] -= 1
                if not waits_for[other]:
                    children.append(other)
            if depth + 1 == DEEPEST:
                later += children
                continue
            under = before + {"": "", "├── ": "│   ", "└── ": "    "}[branch]
            branches = ["├── "] * (len(children) - 1) + ["└── "]
            rows = [(child, name, under, b, depth + 1) for child, b in zip(children, branches, strict=False)]
            stack += reversed(rows)
        margin.extendleft(reversed(later))


def _downstream(workflow: Workflow) -> dict[str, list[str]]:
    downstream: dict[str, list[str]] = {name: [] for name in workflow.tasks}
    for up, down in workflow.edges:
        downstream[up].append(down)
    return downstream


def _description(workflow: Workflow, name: str, parent: str) -> str:
    others = [up for up in workflow.upstream[name] if up != parent]
    also = "also after" if parent else "after"
    return printable(workflow.tasks[name].target) + (f"  ({also} {', '.join(others)})" if others else "")


def printable(text: str) -> str:
    """Return text with control characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _width(text: str) -> int:
    """Return the number of terminal columns of a text."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def _label(text: str) -> str:
    """Escape text for a Mermaid label, whose entities are ``#`` and a number."""
    return _SPECIAL.sub(lambda found: f"#{ord(found[0])};", text)


def _title(text: str) -> str:
    """Escape text for a double-quoted YAML string."""
    return "".join(c if c.isalnum() or c in " ._-" else f"\\U{ord(c):08x}" for c in text)
