"""Pictures of graphs: valid, without overlaps, small for many tasks, and safe for any name."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree as ET

import pytest

from airflow_provider_sewer import Task
from airflow_provider_sewer.core.workflow import Workflow
from airflow_provider_sewer.exporters.graph_layout import layout
from airflow_provider_sewer.exporters.svg import TaskMark, graph_svg, workflow_html, workflow_svg

SVG = "{http://www.w3.org/2000/svg}"
WIDE = {"start": [], **{f"part_{n}": ["start"] for n in range(30)}, "end": [f"part_{n}" for n in range(30)]}
FIRST, SECOND = Task("a", "pkg.a"), Task("b", "pkg.b")
PAIR = Workflow("w", [FIRST, SECOND], [(FIRST, SECOND)])
GRAPHS = {
    "one": {"a": []},
    "diamond": {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]},
    "wide": WIDE,
    "chain": {f"t{n}": [f"t{n - 1}"] if n else [] for n in range(2000)},
    "names": {f"{chr(97 + n % 26)}{n * 7919 % 9973}x": [] for n in range(500)},
    "empty": {},
}


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_layout_contains_each_task_once(graph) -> None:
    boxes = layout(graph).boxes
    assert sorted(name for box in boxes for name in box.tasks) == sorted(graph)


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_layout_boxes_do_not_overlap(graph) -> None:
    placed = layout(graph)
    for one, other in itertools.combinations(placed.boxes, 2):
        is_beside = one.x + one.width <= other.x or other.x + other.width <= one.x
        is_below = one.y + one.height <= other.y or other.y + other.height <= one.y
        assert is_beside or is_below
    assert all(box.x + box.width <= placed.width and box.y + box.height <= placed.height for box in placed.boxes)


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_layout_edges_point_downwards(graph) -> None:
    placed = layout(graph)
    assert all(placed.boxes[up].y < placed.boxes[down].y for up, down in placed.edges)


def test_layout_edges_of_small_graph_are_complete() -> None:
    placed = layout(GRAPHS["diamond"])
    names = {(placed.boxes[up].title, placed.boxes[down].title) for up, down in placed.edges}
    assert names == {("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")}


def test_layout_similar_tasks_become_a_group() -> None:
    assert [box.title for box in layout(WIDE).boxes] == ["start", "part (30 tasks)", "end"]


def test_layout_of_many_layers_is_limited_to_few_boxes() -> None:
    assert len(layout(GRAPHS["chain"]).boxes) <= 40


def test_layout_unselected_upstream_task_is_ignored() -> None:
    assert layout({"b": ["a"]}).edges == []


HOSTILE = ["<script>alert(1)</script>", "a & b", '"quoted"', "]]>", "tab\tand\nline", "\ud800", "\x1b[31m", "日本" * 30]


@pytest.mark.parametrize("name", HOSTILE)
def test_svg_of_hostile_name_is_valid_xml_without_elements_of_it(name) -> None:
    root = ET.fromstring(graph_svg({name: []}, {name: TaskMark("failed", "✗", name)}, title=name))
    assert {element.tag.removeprefix(SVG) for element in root.iter()} == {"svg", "g", "title", "rect", "text"}


def test_svg_of_group_has_a_cell_for_each_task() -> None:
    marks = {"part_7": TaskMark("failed", "✗", "failed")}
    root = ET.fromstring(graph_svg(WIDE, marks, title="w"))
    cells = [each for each in root.iter(f"{SVG}rect") if each.get("class", "").startswith("cell")]
    assert len(cells) == 30
    assert [each.findtext(f"{SVG}title") for each in cells if "failed" in each.get("class", "")] == ["part_7: failed"]


def test_workflow_svg_names_modules_and_loads_nothing() -> None:
    text = workflow_svg(PAIR)
    assert "<title>b: pkg.b</title>" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_workflow_html_is_a_page_with_the_graph() -> None:
    text = workflow_html(PAIR)
    assert text.startswith("<!doctype html>")
    assert "<svg" in text
    assert "<script" not in text
