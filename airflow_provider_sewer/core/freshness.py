"""Whether a task has to run: its build mode, and what its products were made from last.

``always`` runs. ``missing`` runs when a product is not there. ``stale`` runs also when a product is not what the task
has made, or was made from something else: another version of a dependency, other parameters, a task before it that
ran anew. ``never`` does not run.

A dependency is compared by ``mtime`` (time of change and size) or by ``content``. By content, a task before it that
ran anew counts only where something else than files is taken from it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Optional

from airflow_provider_sewer.core.bounds import bounded_list
from airflow_provider_sewer.core.errors import InvalidTask, Key
from airflow_provider_sewer.core.paths import OWN_FOLDER

RUN_WHEN = ("always", "missing", "stale", "never")
COMPARE = ("mtime", "content")
STALE_WITH = ("code", "environment")

_CHUNK = 1 << 20


class Freshness(NamedTuple):
    """When a task runs.

    :param run_when: one of :data:`RUN_WHEN`.
    :param compare: one of :data:`COMPARE`.
    :param stale_with: some of :data:`STALE_WITH`.
    """

    run_when: str = "always"
    compare: str = "mtime"
    stale_with: tuple[str, ...] = ()

    @classmethod
    def checked(cls, run_when: Any, compare: Any, stale_with: Any, *, has_products: bool) -> Freshness:
        """Make it of what a person wrote.

        :raises InvalidTask: when there is no such mode, or nothing that it could look at.
        """
        if run_when == "always" and compare == "mtime" and stale_with == ():
            return cls()
        given = (stale_with,) if isinstance(stale_with, str) else stale_with
        if not isinstance(given, Iterable) or isinstance(given, Mapping):
            said = f"stale_with: a list of {' and '.join(map(repr, STALE_WITH))} is needed, not {given!r:.200}"
            raise InvalidTask(said, at=("stale_with",))
        several = tuple(bounded_list("stale_with", given))
        at: tuple[Any, ...]
        for at, value, known in (
            (("run_when",), run_when, RUN_WHEN),
            (("compare",), compare, COMPARE),
            *((("stale_with", place), each, STALE_WITH) for place, each in enumerate(several)),
        ):
            if value not in known:
                raise InvalidTask(f"{at[0]}: {', '.join(map(repr, known))} are possible, not {value!r:.200}", at=at)
        if run_when in ("missing", "stale") and not has_products:
            said = f"run_when={run_when!r}: there is no product to look at; name one with Product(path)"
            raise InvalidTask(said, at=("run_when",))
        if run_when != "stale" and (several or compare != "mtime"):
            field = "stale_with" if several else "compare"
            said = f"{field}: this says what makes a product stale; it takes run_when='stale'"
            raise InvalidTask(said, at=(Key(field),))
        return cls(run_when, compare, several)


class Stamp(NamedTuple):
    """What a file or directory was like.

    :param seen: what changes with its time of change or its size; of a directory, with those of anything in it.
    :param content: digest of its content; ``None`` where it was not read.
    """

    seen: str
    content: Optional[str] = None


class MadeFrom(NamedTuple):
    """What products are made from, as it is when their task begins.

    :param dependencies: stamps of its dependencies, by path.
    :param after: of the tasks before it of which it takes something else than files, by name: which run of theirs it
        follows, as far as that is known.
    :param code: digest of its code, if that counts.
    :param environment: digest of its environment, if that counts.
    """

    dependencies: Mapping[str, Stamp]
    after: Mapping[str, str] = MappingProxyType({})
    code: Optional[str] = None
    environment: Optional[str] = None


class Record(NamedTuple):
    """What a product was made from, and what it was like then.

    :param task: the task's name.
    :param command: digest of what its command was.
    :param product: stamp of the product itself.
    :param dependencies: as in :class:`MadeFrom`, like the three that follow.
    :param result: the result that the task left.
    :param is_whole: whether all products of the task were in place; they are not while they are moved there.
    :param is_removed: whether it was a temporary product, and removed after use.
    :param attempt: the attempt that put it in place, or was about to.
    :param was_whole: whether it was whole when that attempt began; ``None`` if it had no record then.
    """

    task: str
    command: str
    product: Optional[Stamp]
    dependencies: Mapping[str, Stamp]
    after: Mapping[str, str] = MappingProxyType({})
    code: Optional[str] = None
    environment: Optional[str] = None
    result: Any = None
    is_whole: bool = True
    is_removed: bool = False
    attempt: str = ""
    was_whole: Optional[bool] = None


class Made(NamedTuple):
    """A product as it is now, and its record.

    :param path: its path, as the task writes it.
    :param file: its absolute path.
    """

    path: str
    file: str
    record: Optional[Record]


class Verdict(NamedTuple):
    """Whether a task has to run, and why or why not, as half a sentence.

    :param is_sure: whether that cannot turn out otherwise.
    """

    must_run: bool
    why: str
    is_sure: bool = True

    @classmethod
    def run(cls, why: str) -> Verdict:
        """It has to."""
        return cls(must_run=True, why=why)

    @classmethod
    def rest(cls, why: str) -> Verdict:
        """It has not."""
        return cls(must_run=False, why=why)


class Question(NamedTuple):
    """What the verdict on a task depends on.

    :param freshness: when it runs.
    :param products: what it makes.
    :param dependencies: absolute paths of what it needs, by path as the task writes it.
    :param command: digest of its command now.
    :param after: as in :class:`MadeFrom`, now.
    :param code: digest of its code now, if that counts.
    :param environment: digest of its environment now, if that counts.
    :param ran_anew: names of the tasks before it that ran anew and of which it takes files.
    :param ran_anew_otherwise: names of those of which it takes something else.
    :param is_beforehand: these tasks have not run yet, but will.
    :param left_open: dependencies that are made anew before it runs, so that nobody knows yet what they will be like.
    """

    freshness: Freshness
    products: Sequence[Made]
    dependencies: Mapping[str, str]
    command: str
    after: Mapping[str, str] = MappingProxyType({})
    code: Optional[str] = None
    environment: Optional[str] = None
    ran_anew: Sequence[str] = ()
    ran_anew_otherwise: Sequence[str] = ()
    is_beforehand: bool = False
    left_open: Collection[str] = ()


def judge(question: Question) -> Verdict:
    """Say whether a task has to run."""
    mode = question.freshness.run_when
    if mode == "always":
        return Verdict.run("it always runs")
    if mode == "never":
        return Verdict.rest("it never runs")
    why = why_missing(question.products) or (_why_stale(question) if mode == "stale" else None)
    if why:
        return Verdict.run(why)
    return Verdict.rest("its products are there" if mode == "missing" else "its products are up to date")


def why_missing(products: Iterable[Made]) -> str | None:
    """Return which of the products is not there, or not whole, as half a sentence; ``None`` if all are."""
    for made in products:
        is_removed = made.record is not None and made.record.is_removed
        if not is_removed and not os.path.exists(made.file):
            return f"{made.path} is missing"
        if made.record is not None and not made.record.is_whole:
            return f"{made.path} was being made when an earlier run was ended"
    return None


def _why_stale(question: Question) -> str | None:
    by_content = question.freshness.compare == "content"
    anew = [*question.ran_anew_otherwise, *(() if by_content else question.ran_anew)]
    if anew:
        return f"{anew[0]!r} runs before it" if question.is_beforehand else f"{anew[0]!r} ran anew"
    for made in question.products:
        record = made.record
        if record is None:
            return f"there is no record of how {made.path} was made"
        why = _why_other(made, record, question, by_content=by_content)
        if why:
            return why
    return None


def _why_other(made: Made, record: Record, question: Question, *, by_content: bool) -> str | None:
    if record.command != question.command:
        return f"{made.path} was made with other parameters"
    for name, run in question.after.items():
        if record.after.get(name, run) != run:
            return f"{name!r} has run anew since {made.path} was made"
    if not record.is_removed and _differs(record.product, made.file, by_content=by_content):
        return f"{made.path} was changed after it was made"
    for path, file in question.dependencies.items():
        if path not in record.dependencies:
            return f"{made.path} was made without {path}"
        is_known = path not in question.left_open and os.path.exists(file)
        if is_known and _differs(record.dependencies[path], file, by_content=by_content):
            return f"{path} has changed"
    for path in record.dependencies:
        if path not in question.dependencies:
            return f"{made.path} was made from {path} too"
    if question.code != record.code and "code" in question.freshness.stale_with:
        return "its code has changed"
    if question.environment != record.environment and "environment" in question.freshness.stale_with:
        return "its environment has changed"
    return None


def _differs(known: Stamp | None, file: str, *, by_content: bool) -> bool:
    now = stamp(file)
    if known is None or now is None:
        return True
    if now.seen == known.seen:
        return False
    if not by_content or known.content is None:
        return True
    read = stamp(file, read=True)
    return read is None or read.content != known.content


def stamp(file: str, *, read: bool = False) -> Stamp | None:
    """Return what a file or directory is like now, or ``None`` if it is not there.

    :param read: read its content as well.
    """
    try:
        if not stat.S_ISDIR(os.stat(file).st_mode):
            return Stamp(_seen(file), _content(file) if read else None)
        seen, content = hashlib.sha256(), hashlib.sha256()
        for name, path in _files_in(file):
            seen.update(f"{name}\0{_seen(path)}\0".encode("utf-8", "surrogateescape"))
            if read:
                content.update(f"{name}\0{_content(path)}\0".encode("utf-8", "surrogateescape"))
        return Stamp(seen.hexdigest(), content.hexdigest() if read else None)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _files_in(folder: str) -> Iterable[tuple[str, str]]:
    """Return what is in a directory, however deep, but not directories that hold anything; links are not followed."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != OWN_FOLDER)
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        names = sorted([*files, *links]) if files or folders else [""]
        for name in names:
            path = os.path.join(parent, name)
            yield os.path.relpath(path, folder), path


def _seen(path: str) -> str:
    """Return what changes with a file; of a link to a directory or to nothing, where it leads."""
    if os.path.isdir(path) or not os.path.exists(path):
        return os.readlink(path) if os.path.islink(path) else "an empty directory"
    status = os.stat(path)
    return f"{status.st_mtime_ns}-{status.st_size}"


def _content(file: str) -> str:
    if not os.path.isfile(file):  # nobody waits for what a named pipe may bring
        return _seen(file) if os.path.islink(file) else "no file"
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
