"""The pages of the documentation: README.md and docs/, their blocks of code, and the files that these name."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
#: By their names below the checkout.
PAGES = {str(file.relative_to(ROOT)): file.read_text() for file in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]}
#: The first line of a block that is a file.
NAMED = re.compile(r"# (\w+\.(?:py|yaml))\n")
#: Pages and further texts for users.
TEXTS = {**PAGES, **{name: (ROOT / name).read_text() for name in ("CONTRIBUTING.md", "CHANGELOG.md")}}


def sentences(page: str) -> list[str]:
    """Return the sentences of a text, without blocks of code, tables and comments; inline code is one word."""
    text = re.sub(r"^(\s*)(```|~~~).*?^\s*\2\s*$|<!--.*?-->", "\n\n", TEXTS[page], flags=re.MULTILINE | re.DOTALL)
    parts = re.split(r"\n\s*\n|\n(?=\s*(?:[-*+]|\d+\.) )|\n(?=[#|])", text)
    prose = [" ".join(part.split()) for part in parts if not part.strip().startswith(("|", ":::"))]
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "Code", part)) for part in prose]
    return [sentence for part in plain for sentence in re.split(r"(?<=[.!?])[)*_\"]*\s+(?=[A-Z*_\"(])", part)]


def blocks(page: str, *languages: str) -> list[str]:
    """Return the blocks of a page, in order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def files(page: str) -> dict[str, str]:
    """Return the files that a page shows, and those of the pages that it continues (``<!-- files: PAGE ... -->``)."""
    found: dict[str, str] = {}
    for names in re.findall(r"<!-- files: (.*?) -->", PAGES[page]):
        for name in names.split():
            found |= files(str(((ROOT / page).parent / name).resolve().relative_to(ROOT)))
    return found | {named[1]: text for text in blocks(page, "python", "yaml") if (named := NAMED.match(text))}


def commands(page: str) -> list[tuple[str, list[str]]]:
    """Return the commands of a page, each with the lines that the page shows below it."""
    text = "".join(blocks(page, "console"))
    found = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE)
    return [(command, shown.splitlines()) for command, shown in found]


def table_rows(page: str, pattern: str) -> list[tuple[str, ...]]:
    """Return the rows of a page's tables that match a pattern."""
    return re.findall(pattern, PAGES[page], re.MULTILINE)
