"""The language of the package and of its tests: it counts private words, and their number may only go down.

``docs/development/glossary.md`` has the word to use for each of them.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "airflow_provider_sewer"
TESTS = ROOT / "tests"
DOCS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs")
#: It lists the words to avoid.
GLOSSARY = ROOT / "docs/development/glossary.md"
WORDS = frozenset({
    "what", "whatever", "said", "says", "say", "told", "tells", "tell", "nobody", "somebody", "person", "people",
    "whoever", "anew", "hopeless", "unmade", "verdict", "judge",
})  # fmt: skip
OWNERS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
#: The most of each place today. A change that lowers a count lowers the number here.
MOST = {
    "identifiers": 0, "docstrings": 2, "comments": 1, "messages": 0, "docs": 0,
    "test identifiers": 0, "test docstrings": 1,
}  # fmt: skip


def docstrings(tree: ast.AST) -> set[ast.Constant]:
    """Return the constants that are docstrings."""
    owners = (node for node in ast.walk(tree) if isinstance(node, OWNERS) and node.body)
    firsts = (node.body[0] for node in owners)
    return {each.value for each in firsts if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)}


def identifiers(tree: ast.AST) -> list[str]:
    """Return the names in a source, each as words."""
    fields = ("id", "attr", "arg", "name", "asname")  # of Name, Attribute, arg and keyword, definitions, imports
    names = (getattr(node, field, None) for node in ast.walk(tree) for field in fields)
    return [re.sub(r"_|(?<=[a-z])(?=[A-Z])", " ", name) for name in names if isinstance(name, str)]


def comments(source: str) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [token.string for token in tokens if token.type == tokenize.COMMENT]


@cache
def texts() -> dict[str, list[str]]:
    """Return the texts of each place."""
    found: dict[str, list[str]] = {place: [] for place in MOST}
    for file in PACKAGE.rglob("*.py"):
        source = file.read_text()
        tree = ast.parse(source)
        documented = docstrings(tree)
        found["docstrings"] += [str(node.value) for node in documented]
        found["messages"] += [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documented
        ]
        found["identifiers"] += identifiers(tree)
        found["comments"] += comments(source)
    for file in TESTS.rglob("*.py"):
        tree = ast.parse(file.read_text())
        found["test identifiers"] += identifiers(tree)
        found["test docstrings"] += [str(node.value) for node in docstrings(tree)]
    for name in DOCS:
        path = ROOT / name
        for file in {path} if path.is_file() else {*path.rglob("*.md")} - {GLOSSARY}:
            found["docs"].append(file.read_text())
    return found


def counted(place: str) -> Counter[str]:
    return Counter(word for text in texts()[place] for word in re.findall(r"[a-z]+", text.lower()) if word in WORDS)


@pytest.mark.parametrize("place", MOST)
def test_private_words_do_not_grow_in_number(place):
    assert counted(place).total() <= MOST[place], counted(place)


def test_docstrings_have_few_indirect_clauses():
    words = sum(len(text.split()) for text in texts()["docstrings"])
    assert 1000 * counted("docstrings")["what"] <= 3 * words
