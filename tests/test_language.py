"""The language of the package: it counts private words, and their number may only go down.

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
DOCS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs")
#: It lists the words to avoid.
GLOSSARY = ROOT / "docs/development/glossary.md"
WORDS = frozenset({
    "what", "whatever", "said", "says", "say", "told", "tells", "tell", "nobody", "somebody", "person", "people",
    "whoever", "anew", "hopeless", "unmade", "verdict", "judge",
})  # fmt: skip
#: The most of each place today. A change that lowers a count lowers the number here.
MOST = {"identifiers": 0, "docstrings": 3, "comments": 1, "messages": 0, "docs": 5}


@cache
def texts() -> dict[str, list[str]]:
    """Return the texts of each place."""
    found: dict[str, list[str]] = {place: [] for place in MOST}
    for file in PACKAGE.rglob("*.py"):
        source = file.read_text()
        tree = ast.parse(source)
        docstrings = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
                first = node.body[0]
                if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                    docstrings.add(first.value)
                    found["docstrings"].append(str(first.value.value))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
                found["messages"].append(node.value)
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                found["comments"].append(token.string)
            elif token.type == tokenize.NAME:
                found["identifiers"].append(re.sub(r"_|(?<=[a-z])(?=[A-Z])", " ", token.string))
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


def test_docstrings_have_few_clauses_with_what():
    words = sum(len(text.split()) for text in texts()["docstrings"])
    assert 1000 * counted("docstrings")["what"] <= 3 * words
