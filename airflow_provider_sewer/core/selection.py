"""Selection of tasks in a workflow: by name, glob or tag, with their upstream and downstream tasks.

The grammar is that of dbt, where a workflow has an equivalent:

==============  =================================================================================
``train``       the task of this name; all tasks of a mapped one
``train*``      the tasks whose names match: ``*`` stands for any text, ``?`` for one character
``tag:gpu``     the tasks with this tag, which can be a glob as well
``+train``      these and all upstream tasks; ``2+train``: upstream by at most two steps
``train+``      these and all downstream tasks; ``train+2``: downstream by at most two steps
``@train``      these, all downstream tasks, and all upstream tasks of any of these
``a,b``         the tasks that match both
==============  =================================================================================

A list matches the tasks that any of its texts matches. A name matches its task whatever characters it contains, also
commas and operators; of several matching names, the longest counts. A comma between square brackets does not separate,
as in ``train[lr=*,n=2]``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Optional, Union

from airflow_provider_sewer.core.errors import InvalidWorkflow, unknown_name
from airflow_provider_sewer.core.size_limits import bounded_list, joined_pattern

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_sewer.core.workflow import Workflow


class From(NamedTuple):
    """Selector of the tasks that a text matches, and of all their downstream tasks.

    :param text: the text.
    """

    text: str


#: Selectors: a text, or several.
Texts = Union[str, From, Iterable[Union[str, From]], None]

_TAG = "tag:"
_BEFORE = re.compile(r"@|(\d*)\+")
_STARS = re.compile(r"\*+")
_AFTER = re.compile(r"\+(\d*)\Z")


def selected(workflow: Workflow, select: Texts = None, exclude: Texts = None) -> Workflow:
    """Return the selected subset of a workflow: the tasks that ``select`` matches, or all, except those of ``exclude``.

    The remaining tasks keep their order, also if it came from edges through excluded tasks.

    :param select: a text, or a list of texts.
    :param exclude: a text, or a list of texts.
    :raises InvalidWorkflow: when a text matches no task, no task is left, or ``select`` is an empty list.
    """
    included, excluded = _texts("select", select), _texts("exclude", exclude)
    if not included and select is not None:
        raise InvalidWorkflow("select must not be an empty list, which matches no task; leave it out to run all tasks")
    if not included and not excluded:
        return workflow
    tasks = Tasks(workflow)
    names = tasks.any_of("select", included) if included else set(workflow.tasks)
    names -= tasks.any_of("exclude", excluded)
    if not names:
        raise InvalidWorkflow(f"exclude {', '.join(map(repr, excluded))} leaves no task to run")
    return workflow if len(names) == len(workflow.tasks) else workflow.subset(names)


class Tasks:
    """Tasks of a workflow, indexed for selectors."""

    def __init__(self, workflow: Workflow) -> None:
        self._upstream: Mapping[str, Collection[str]] = workflow.upstream
        self._downstream: dict[str, list[str]] = {name: [] for name in workflow.tasks}
        for down, ups in workflow.upstream.items():
            for up in ups:
                self._downstream[up].append(down)
        self._named: dict[str, set[str]] = {}
        self._tagged: dict[str, set[str]] = {}
        of_mapped: dict[str, set[str]] = {}
        for task in workflow.given:
            name = str(workflow.name_of(task))
            self._named[task.name] = {name}
            for tag in task.tags:
                self._tagged.setdefault(tag, set()).add(name)
            if task.mapped_task is not None:
                of_mapped.setdefault(task.mapped_task.name, set()).add(name)
        self._named = {**of_mapped, **self._named}
        self._most_commas = max((name.count(",") for name in self._named), default=0)

    def any_of(self, label: str, texts: Iterable[Union[str, From]]) -> set[str]:
        """Return the names of the tasks that any of these texts matches.

        :param label: use of the texts, for the message.
        :raises InvalidWorkflow: when one of them matches no task.
        """
        names: set[str] = set()
        return names.union(*(self.meant(label, text) for text in texts))

    def meant(self, label: str, text: Union[str, From]) -> set[str]:
        """Return the names of the tasks that a text matches.

        :param label: use of the text, for the message.
        :raises InvalidWorkflow: when it matches no task.
        """
        if isinstance(text, From):
            return _around(self.meant("from", text.text), self._downstream, None)
        try:
            names = set.intersection(*map(self._all_of, dict.fromkeys(self._readings(text))))
        except InvalidWorkflow as error:
            raise InvalidWorkflow(f"{label} {text!r}: {error}") from None
        if not names:
            raise InvalidWorkflow(f"{label} {text!r}: no task matches all parts")
        return names

    def _readings(self, text: str) -> Iterator[_Reading]:
        """Parse the parts between those commas that are not part of a name."""
        begin = 0
        while begin <= len(text):
            known = self._known_at(begin, text)
            end = _end_of_part(begin, text) if known is None else known[0]
            yield list(_ways_to_read(text[begin:end].strip()))[-1] if known is None else known[1]
            begin = end + 1

    def _known_at(self, begin: int, text: str) -> Optional[tuple[int, _Reading]]:
        """Return the end and the reading of the longest name, with its operators, at a position of a text."""
        commas = (at for at in range(begin, len(text)) if text[at] == ",")
        ends = list(islice(commas, self._most_commas + 1))
        if len(ends) <= self._most_commas:
            ends.append(len(text))
        for end in reversed(ends):
            part = text[begin:end]
            for reading in (*_ways_to_read(part), *_ways_to_read(part.strip())):
                if reading.core in self._named:
                    return end, reading
        return None

    def _all_of(self, reading: _Reading) -> set[str]:
        """Return the tasks that match the part between two commas, with their upstream and downstream tasks."""
        if not reading.core:
            raise InvalidWorkflow("the name of a task is missing")
        if reading.is_at and reading.after != 0:
            raise InvalidWorkflow(f"@ already includes all downstream tasks; write '@{reading.core}'")
        names = self._matching(reading.core)
        after = _around(names, self._downstream, None if reading.is_at else reading.after)
        return after | _around(after if reading.is_at else names, self._upstream, reading.before)

    def _matching(self, core: str) -> set[str]:
        """Return the tasks that a name, a glob or a tag matches."""
        if core in self._named:
            return self._named[core]
        is_tag = core.startswith(_TAG)
        pattern, known = (core[len(_TAG) :], self._tagged) if is_tag else (core, self._named)
        glob = joined_pattern([".".join(map(re.escape, part.split("?"))) for part in _STARS.split(pattern)], ".*")
        found = [names for text, names in known.items() if glob.fullmatch(text)]
        if not found:
            raise InvalidWorkflow(unknown_name("tag" if is_tag else "task", pattern, known))
        return found[0].union(*found)


class _Reading(NamedTuple):
    """Parsed text without commas.

    :param core: the name, the glob or the tag.
    :param before: number of upstream steps; ``None`` for all.
    :param after: number of downstream steps; ``None`` for all.
    :param is_at: whether to include the upstream tasks of the downstream tasks.
    """

    core: str
    before: Optional[float]
    after: Optional[float]
    is_at: bool


def _end_of_part(begin: int, text: str) -> int:
    """Return the end of a part without a known name: the next comma that is not between square brackets."""
    depth = 0
    for at in range(begin, len(text)):
        depth = max(0, depth + (text[at] == "[") - (text[at] == "]"))
        if text[at] == "," and not depth:
            return at
    return len(text)


def _ways_to_read(text: str) -> Iterator[_Reading]:
    """Return the possible readings of a text, those with fewer operators first."""
    before, after = _BEFORE.match(text), _AFTER.search(text)
    for first in (None, before) if before else (None,):
        for last in (None, after) if after else (None,):
            core = text[first.end() if first else 0 : last.start() if last else len(text)]
            yield _Reading(core, _steps(first), _steps(last), is_at=first is not None and first[0] == "@")


def _steps(operator: Optional[re.Match[str]]) -> Optional[float]:
    # float() because int() rejects numbers with too many digits.
    return 0 if operator is None else float(operator[1]) if operator[1] else None


def _around(names: set[str], neighbours: Mapping[str, Collection[str]], steps: Optional[float]) -> set[str]:
    """Return tasks and their neighbours within a number of steps; at any distance for ``None``."""
    found, outermost = set(names), names
    while outermost and steps != 0:
        outermost = {other for name in outermost for other in neighbours[name]} - found
        found |= outermost
        steps = None if steps is None else steps - 1
    return found


def _texts(label: str, given: Texts) -> list[Union[str, From]]:
    if given is None:
        return []
    if isinstance(given, (str, From)):
        return [given]
    with suppress(TypeError):  # also raised by a value that can be iterated only in a DAG run
        texts = bounded_list(label, given)
        if all(isinstance(text, (str, From)) for text in texts):
            return texts
    raise InvalidWorkflow(f"{label} must be a text such as 'train+', or a list of texts, got {given!r:.200}")
