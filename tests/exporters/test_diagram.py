"""A workflow can be looked at: as a tree in a terminal, as a Mermaid flowchart."""

from __future__ import annotations

import html
import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.core.workflow import Workflow
from airflow_provider_sewer.exporters.diagram import DEEPEST, to_mermaid, to_tree


@pytest.fixture
def diamond():
    """Make generate >> [train tree, train forest] >> evaluate."""
    generate, tree = Task("generate", "digits.generate"), Task("train tree", "digits.train")
    forest, evaluate = Task("train forest", "digits.train"), Task("evaluate", "digits.evaluate")
    edges = [(generate, tree), (generate, forest), (tree, evaluate), (forest, evaluate)]
    return Workflow("digits", [generate, tree, forest, evaluate], edges, doc="Which model reads digits best?")


def chain(length):
    tasks = [Task(f"t{number}", "m.n") for number in range(length)]
    return Workflow("chain", tasks, itertools.pairwise(tasks))


@st.composite
def workflows(draw):
    """Draw a workflow: any edges that go from an earlier to a later task, the tasks named in any order."""
    count = draw(st.integers(1, 12))
    tasks = [Task(f"<{number}>", "m") for number in range(count)]
    pairs = [(up, down) for up in range(count) for down in range(up + 1, count)]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    return Workflow("any", draw(st.permutations(tasks)), [(tasks[up], tasks[down]) for up, down in edges])


def drawn(tree):
    """Return the tasks of a tree from top to bottom: (name, depth, the additional upstream tasks of its line)."""
    rows = tree[tree.index("\n\n") + 2 :].splitlines()
    found = [re.fullmatch(r"([ │├└─]*)(\S+) +m(?:\.n)?(?:  \((?:also )?after (.*)\))?", row) for row in rows]
    return [(row[2], len(row[1]) // 4, row[3].split(", ") if row[3] else []) for row in found]


def test_to_tree_draws_diamond_with_additional_upstream(diamond):
    """A task with two upstream tasks is below the second, and its line names the first."""
    assert to_tree(diamond) == (
        "digits\n"
        "Which model reads digits best?\n"
        "\n"
        "generate          digits.generate\n"
        "├── train tree    digits.train\n"
        "└── train forest  digits.train\n"
        "    └── evaluate  digits.evaluate  (also after train tree)\n"
    )


def test_to_tree_puts_roots_at_margin():
    """Tasks that wait for nothing are not under anything."""
    a, b, c = Task("a", "m"), Task("b", "m"), Task("c", "m")
    workflow = Workflow("roots", [a, b, c], [(b, c)])
    assert to_tree(workflow) == "roots\n\na      m\nb      m\n└── c  m\n"


def test_to_tree_connects_branches_with_lines():
    """One sees where a branch goes on below another one's tasks."""
    a, b, c, d = (Task(name, "m") for name in "abcd")
    assert to_tree(Workflow("w", [a, b, c, d], [(a, b), (b, c), (a, d)])).splitlines()[2:] == [
        "a          m",
        "├── b      m",
        "│   └── c  m",
        "└── d      m",
    ]


def test_to_tree_continues_long_chain_at_margin():
    """A thousand tasks are no staircase of a thousand steps; a continued chain names its upstream task."""
    rows = drawn(to_tree(chain(1000)))
    assert [name for name, _, _ in rows] == [f"t{number}" for number in range(1000)]
    assert max(depth for _, depth, _ in rows) == DEEPEST - 1
    assert rows[DEEPEST] == (f"t{DEEPEST}", 0, [f"t{DEEPEST - 1}"])
    assert f"  (after t{DEEPEST - 1})\n" in to_tree(chain(DEEPEST + 1))


@settings(deadline=None)
@given(workflows())
def test_to_tree_draws_each_task_once_after_its_upstream(workflow):
    """The tree loses no edge: one is the nesting, the others are named."""
    above, seen = [], []
    for name, depth, others in drawn(to_tree(workflow)):
        del above[depth:]
        assert set(workflow.upstream[name]) == {*others, *above[-1:]}
        assert set(workflow.upstream[name]) <= set(seen)
        above.append(name)
        seen.append(name)
    assert sorted(seen) == sorted(workflow.tasks)


def test_to_tree_dedents_doc():
    """It comes from a docstring; its paragraphs stay apart."""
    workflow = Workflow("w", [Task("a", "m")], doc="First line.\n\n        Second paragraph.")
    assert to_tree(workflow) == "w\nFirst line.\n\nSecond paragraph.\n\na  m\n"


def test_to_tree_escapes_control_characters():
    """Neither a doc nor a template can clear the screen or start a new line."""
    workflow = Workflow("w", [Task("a", "{{ x\n }}")], doc="red \x1b[31m")
    assert to_tree(workflow) == "w\nred \\x1b[31m\n\na  {{ x\\n }}\n"


def test_to_tree_aligns_wide_characters():
    """Chinese letters take two columns of a terminal, an accent that is a letter of its own takes none."""
    workflow = Workflow("w", [Task("数字", "m"), Task("abcd", "m"), Task("cafe\u0301", "m")])
    assert to_tree(workflow).splitlines()[2:] == ["数字  m", "abcd  m", "cafe\u0301  m"]


def test_to_tree_limits_column_width():
    """It sticks out; the others keep their column."""
    workflow = Workflow("w", [Task("x" * 200, "m"), Task("ab", "m"), Task("y" * 60, "m")])
    assert to_tree(workflow).splitlines()[2:] == ["x" * 200 + "  m", "ab" + " " * 60 + "m", "y" * 60 + "  m"]


def test_to_mermaid_has_node_per_task_and_arrow_per_edge(diamond):
    """Ids are numbers, so that no name can be a word of Mermaid."""
    assert to_mermaid(diamond) == (
        "---\n"
        'title: "digits"\n'
        "---\n"
        "flowchart TD\n"
        '    n0["generate"]\n'
        '    n1["train tree"]\n'
        '    n2["train forest"]\n'
        '    n3["evaluate"]\n'
        "    n0 --> n1\n"
        "    n0 --> n2\n"
        "    n1 --> n3\n"
        "    n2 --> n3\n"
    )


HOSTILE = [
    'say "hi"', "[x]", "{z}", "#35;", "; drop", "<script>alert(1)</script>", "`md`", "**bold** _x_", "1. list",
    "1) list", "- item", "# head", "> quote", "    code", "%%{init: {}}%%", "%% comment", "fa:fa-car", "a|b", "a\\b",
    "$$x^2$$", "&lt;b&gt;", "http://x.y/z", "style x fill:#f00;", "a@{shape: x}", "--> n3", "end", " both ",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_to_mermaid_escapes_names(name):
    """Markup of Mermaid or Markdown is written as an entity, and reads as the name again."""
    node = to_mermaid(Workflow("w", [Task(name, "m")])).splitlines()[-1]
    label = re.fullmatch(r' {4}n0\["(.*)"\]', node)[1]
    assert html.unescape(label.replace("#", "&#")) == name
    assert not re.search(r"[^\w ,().#;-]|(?<!\w)[._-]|[._-](?!\w)|^\d+[.)] |^ | $|  ", label)
    assert not re.search(r"#(?!\d+;)|(?<!\d);", label)


def test_to_mermaid_keeps_letters_and_punctuation():
    """Only dangerous characters are escaped."""
    workflow = Workflow("w", [Task("größe 数 🎉 a.b-c_d (v2), 20 °C", "m")])
    assert '    n0["größe 数 🎉 a.b-c_d (v2), 20 °C"]\n' in to_mermaid(workflow)


def test_to_mermaid_escapes_title():
    """Any title is a quoted text of YAML."""
    lines = to_mermaid(Workflow('a"\n---\n数 b', [Task("x", "m")])).splitlines()
    assert lines == ["---", r'title: "a\U00000022\U0000000a---\U0000000a数 b"', "---", "flowchart TD", '    n0["x"]']
