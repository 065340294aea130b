"""Which tasks of a workflow are meant: by name, by glob, by tag, and with what lies before and after them.

The grammar is that of dbt, as far as a workflow has what it speaks of:

==============  =================================================================================
``train``       the task of this name; all tasks of a mapped one
``train*``      the tasks with such names: ``*`` stands for any text, ``?`` for one character
``tag:gpu``     the tasks that have this tag; it can be a glob as well
``+train``      these, and all that lies before them; ``2+train``: no more than two steps back
``train+``      these, and all that lies after them; ``train+2``: no more than two steps on
``@train``      these, all that lies after them, and all that lies before any of these
``a,b``         the tasks that both mean
==============  =================================================================================

A list means the tasks that any of its texts means. A name means its task whatever characters are in it, commas and
operators as well; where several names fit, the longest. And a comma between square brackets parts nothing, as in
``train[lr=*,n=2]``.
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
    """The tasks that a text means, and all that lies after them.

    :param text: the text.
    """

    text: str


#: What can be given where tasks are to be selected.
Texts = Union[str, From, Iterable[Union[str, From]], None]

_TAG = "tag:"
_BEFORE = re.compile(r"@|(\d*)\+")
_STARS = re.compile(r"\*+")
_AFTER = re.compile(r"\+(\d*)\Z")


def selected(workflow: Workflow, select: Texts = None, exclude: Texts = None) -> Workflow:
    """Return the part of a workflow that is meant: what ``select`` says, or all of it, without what ``exclude`` says.

    What is left keeps its order, also where that came about by way of what is left out.

    :param select: a text, or a list of texts.
    :param exclude: a text, or a list of texts.
    :raises InvalidWorkflow: when one of them means no task, none is left, or ``select`` is an empty list.
    """
    wanted, unwanted = _texts("select", select), _texts("exclude", exclude)
    if not wanted and select is not None:
        raise InvalidWorkflow("select: the list is empty, and would leave no task; leave it out where all are wanted")
    if not wanted and not unwanted:
        return workflow
    tasks = Tasks(workflow)
    names = tasks.any_of("select", wanted) if wanted else set(workflow.tasks)
    names -= tasks.any_of("exclude", unwanted)
    if not names:
        raise InvalidWorkflow(f"exclude {', '.join(map(repr, unwanted))} leaves no task to run")
    return workflow if len(names) == len(workflow.tasks) else workflow.subset(names)


class Tasks:
    """The tasks of a workflow, to be asked for in the words of this grammar."""

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

    def any_of(self, what: str, texts: Iterable[Union[str, From]]) -> set[str]:
        """Return the names of the tasks that any of these texts means.

        :param what: what the texts are for, as the message has it.
        :raises InvalidWorkflow: when one of them means none.
        """
        names: set[str] = set()
        return names.union(*(self.meant(what, text) for text in texts))

    def meant(self, what: str, text: Union[str, From]) -> set[str]:
        """Return the names of the tasks that a text means.

        :param what: what the text is for, as the message has it.
        :raises InvalidWorkflow: when it means none.
        """
        if isinstance(text, From):
            return _around(self.meant("from", text.text), self._downstream, None)
        try:
            names = set.intersection(*map(self._all_of, dict.fromkeys(self._readings(text))))
        except InvalidWorkflow as error:
            raise InvalidWorkflow(f"{what} {text!r}: {error}") from None
        if not names:
            raise InvalidWorkflow(f"{what} {text!r}: there is no task that all of this means")
        return names

    def _readings(self, text: str) -> Iterator[_Reading]:
        """Read what stands between the commas that are part of no name."""
        begin = 0
        while begin <= len(text):
            known = self._known_at(begin, text)
            end = _end_of_part(begin, text) if known is None else known[0]
            yield list(_ways_to_read(text[begin:end].strip()))[-1] if known is None else known[1]
            begin = end + 1

    def _known_at(self, begin: int, text: str) -> Optional[tuple[int, _Reading]]:
        """Return the longest name that begins at a place in a text, with its operators, and where these end."""
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
        """Return the tasks that are meant between two commas, with those around them."""
        if not reading.core:
            raise InvalidWorkflow("the name of a task is missing")
        if reading.is_at and reading.after != 0:
            raise InvalidWorkflow(f"@ takes in all that lies after a task; write '@{reading.core}'")
        names = self._matching(reading.core)
        after = _around(names, self._downstream, None if reading.is_at else reading.after)
        return after | _around(after if reading.is_at else names, self._upstream, reading.before)

    def _matching(self, core: str) -> set[str]:
        """Return the tasks that a name, a glob or a tag means."""
        if core in self._named:
            return self._named[core]
        is_tag = core.startswith(_TAG)
        wanted, known = (core[len(_TAG) :], self._tagged) if is_tag else (core, self._named)
        glob = joined_pattern([".".join(map(re.escape, part.split("?"))) for part in _STARS.split(wanted)], ".*")
        found = [names for text, names in known.items() if glob.fullmatch(text)]
        if not found:
            raise InvalidWorkflow(unknown_name("tag" if is_tag else "task", wanted, known))
        return found[0].union(*found)


class _Reading(NamedTuple):
    """A text without commas, taken apart.

    :param core: the name, the glob or the tag.
    :param before: how many steps back; ``None`` for all.
    :param after: how many steps on; ``None`` for all.
    :param is_at: whether what lies before the tasks after it counts as well.
    """

    core: str
    before: Optional[float]
    after: Optional[float]
    is_at: bool


def _end_of_part(begin: int, text: str) -> int:
    """Return where a part of a text ends that holds no name: at a comma that is not between square brackets."""
    depth = 0
    for at in range(begin, len(text)):
        depth = max(0, depth + (text[at] == "[") - (text[at] == "]"))
        if text[at] == "," and not depth:
            return at
    return len(text)


def _ways_to_read(text: str) -> Iterator[_Reading]:
    """Return the ways to read a text: the less is taken for an operator, the earlier."""
    before, after = _BEFORE.match(text), _AFTER.search(text)
    for first in (None, before) if before else (None,):
        for last in (None, after) if after else (None,):
            core = text[first.end() if first else 0 : last.start() if last else len(text)]
            yield _Reading(core, _steps(first), _steps(last), is_at=first is not None and first[0] == "@")


def _steps(operator: Optional[re.Match[str]]) -> Optional[float]:
    # As Python reads them, whole numbers are not as long as people may write them.
    return 0 if operator is None else float(operator[1]) if operator[1] else None


def _around(names: set[str], neighbours: Mapping[str, Collection[str]], steps: Optional[float]) -> set[str]:
    """Return tasks and those that lie so many steps from one of them at most; at any distance for ``None``."""
    found, outermost = set(names), names
    while outermost and steps != 0:
        outermost = {other for name in outermost for other in neighbours[name]} - found
        found |= outermost
        steps = None if steps is None else steps - 1
    return found


def _texts(what: str, given: Texts) -> list[Union[str, From]]:
    if given is None:
        return []
    if isinstance(given, (str, From)):
        return [given]
    with suppress(TypeError):  # as what can be gone through only in a run of a DAG raises it, too
        texts = bounded_list(what, given)
        if all(isinstance(text, (str, From)) for text in texts):
            return texts
    raise InvalidWorkflow(f"{what}: a text such as 'train+', or a list of them, is needed, not {given!r:.200}")
