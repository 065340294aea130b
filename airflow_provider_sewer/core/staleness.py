"""Whether a task has to run: its build mode, and what its products were made from last.

``always`` runs. ``missing`` runs when a product is not there. ``stale`` runs also when a product is not what the task
has made, or was made from something else: another version of a dependency, other parameters, a task before it that
ran anew. ``never`` does not run.

A dependency is compared by ``mtime`` (time of change and size) or by ``content``. By content, a task before it that
ran anew counts only where something else than files is taken from it. Content is not read again while device, inode,
ctime, mtime and size are the same.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Optional

from airflow_provider_sewer.core.errors import InvalidTask, Key
from airflow_provider_sewer.core.paths import OWN_FOLDER
from airflow_provider_sewer.core.size_limits import bounded_list

RUN_WHEN = ("always", "missing", "stale", "never")
COMPARE = ("mtime", "content")
STALE_WITH = ("code", "environment")

_CHUNK = 1 << 20


class RunPolicy(NamedTuple):
    """When a task runs.

    :param run_when: one of :data:`RUN_WHEN`.
    :param compare: one of :data:`COMPARE`.
    :param stale_with: some of :data:`STALE_WITH`.
    """

    run_when: str = "always"
    compare: str = "mtime"
    stale_with: tuple[str, ...] = ()

    @classmethod
    def checked(cls, run_when: Any, compare: Any, stale_with: Any, *, has_products: bool) -> RunPolicy:
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


class Fingerprint(NamedTuple):
    """What a file or directory was like.

    It is stored as a list of these three.

    :param seen: what changes with its time of change or its size; of a directory, with those of anything in it.
    :param content: digest of its content; ``None`` where it was not read.
    :param identity: changes with its ctime and its inode as well: while it is the same, so is the content.
    """

    seen: str
    content: Optional[str] = None
    identity: Optional[str] = None


class Inputs(NamedTuple):
    """What products are made from, as it is when their task begins.

    :param dependencies: stamps of its dependencies, by path.
    :param after: of the tasks before it of which it takes something else than files, by name: which run of theirs it
        follows, as far as that is known.
    :param code: digest of its code, if that counts.
    :param environment: digest of its environment, if that counts.
    """

    dependencies: Mapping[str, Fingerprint]
    upstream: Mapping[str, str] = MappingProxyType({})
    code: Optional[str] = None
    environment: Optional[str] = None

    def to_data(self) -> dict[str, Any]:
        """Return this as JSON."""
        dependencies, after, code, environment = self
        return {"dependencies": dict(dependencies), "after": dict(after), "code": code, "environment": environment}

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> Inputs:
        """Return what :meth:`to_data` has returned.

        :raises LookupError: when it is not whole.
        """
        stamps = {path: Fingerprint(*each) for path, each in data["dependencies"].items()}
        return cls(stamps, data["after"], data["code"], data["environment"])


class ProductRecord(NamedTuple):
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
    :param beside: stamps of the files that the module wrote beside the product, by name; they belong to it. A link
        that leads nowhere has none.
    :param leaving: while the attempt puts the product and these in place: names of the files that belonged to it
        before and are to be removed; ``None`` at any other time.
    :param dag_run: DAG and run that have made it, if one has.
    """

    task: str
    command: str
    product: Optional[Fingerprint]
    dependencies: Mapping[str, Fingerprint]
    after: Mapping[str, str] = MappingProxyType({})
    code: Optional[str] = None
    environment: Optional[str] = None
    result: Any = None
    is_complete: bool = True
    is_removed: bool = False
    attempt: str = ""
    was_complete: Optional[bool] = None
    beside: Mapping[str, Optional[Fingerprint]] = MappingProxyType({})
    leaving: Optional[Sequence[str]] = None
    dag_run: Optional[Sequence[str]] = None


class ProductState(NamedTuple):
    """A product as it is now, and its record.

    :param path: its path, as the task writes it.
    :param file: its absolute path.
    """

    path: str
    file: str
    record: Optional[ProductRecord]

    def files_beside(self) -> dict[str, str]:
        """Return the absolute paths of the files that belong to it, by name."""
        names = self.record.beside if self.record is not None else ()
        return {name: os.path.join(os.path.dirname(self.file), name) for name in names}


class Decision(NamedTuple):
    """Whether a task has to run, and why or why not, as half a sentence.

    :param is_sure: whether that cannot turn out otherwise.
    """

    must_run: bool
    reason: str
    is_sure: bool = True

    @classmethod
    def run(cls, why: str) -> Decision:
        """It has to."""
        return cls(must_run=True, reason=why)

    @classmethod
    def skip(cls, why: str) -> Decision:
        """It has not."""
        return cls(must_run=False, reason=why)


class StalenessInputs(NamedTuple):
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
    :param beside: absolute paths of the files that belong to a dependency, by its path.
    """

    policy: RunPolicy
    products: Sequence[ProductState]
    dependencies: Mapping[str, str]
    command: str
    after: Mapping[str, str] = MappingProxyType({})
    code: Optional[str] = None
    environment: Optional[str] = None
    rerun_upstream: Sequence[str] = ()
    rerun_upstream_elsewhere: Sequence[str] = ()
    is_beforehand: bool = False
    left_open: Collection[str] = ()
    beside: Mapping[str, Sequence[str]] = MappingProxyType({})


def decide(question: StalenessInputs) -> Decision:
    """Say whether a task has to run."""
    mode = question.policy.run_when
    if mode == "always":
        return Decision.run("it always runs")
    if mode == "never":
        return Decision.skip("it never runs")
    why = missing_reason(question.products) or (_stale_reason(question) if mode == "stale" else None)
    if why:
        return Decision.run(why)
    return Decision.skip("its products are there" if mode == "missing" else "its products are up to date")


def missing_reason(products: Iterable[ProductState]) -> str | None:
    """Return which of the products is not there, or not whole, as half a sentence; ``None`` if all are."""
    for made in products:
        is_removed = made.record is not None and made.record.is_removed
        if not is_removed and not os.path.exists(made.file):
            return f"{made.path} is missing"
        if made.record is not None and not made.record.is_complete:
            return f"{made.path} was being made when an earlier run was ended"
        for name, file in ({} if is_removed else made.files_beside()).items():
            if not os.path.lexists(file):
                return f"{name}, which was made beside {made.path}, is missing"
    return None


def _stale_reason(question: StalenessInputs) -> str | None:
    by_content = question.policy.compare == "content"
    anew = [*question.rerun_upstream_elsewhere, *(() if by_content else question.rerun_upstream)]
    if anew:
        return f"{anew[0]!r} runs before it" if question.is_beforehand else f"{anew[0]!r} ran anew"
    for made in question.products:
        record = made.record
        if record is None:
            return f"there is no record of how {made.path} was made"
        why = _change_reason(made, record, question, by_content=by_content)
        if why:
            return why
    return None


def _change_reason(
    made: ProductState, record: ProductRecord, question: StalenessInputs, *, by_content: bool
) -> str | None:
    if record.command != question.command:
        return f"{made.path} was made with other parameters"
    for name, run in question.after.items():
        if record.after.get(name, run) != run:
            return f"{name!r} has run anew since {made.path} was made"
    if by_content and record.product is not None and record.product.content is None:
        return f"there is no record of the content of {made.path}"
    if not record.is_removed and _differs(record.product, made.file, by_content=by_content):
        return f"{made.path} was changed after it was made"
    for name, file in ({} if record.is_removed else made.files_beside()).items():
        if record.beside[name] is not None and _differs(record.beside[name], file, by_content=by_content):
            return f"{name}, which was made beside {made.path}, was changed after it was made"
    for path, file in question.dependencies.items():
        if path not in record.dependencies:
            return f"{made.path} was made without {path}"
        is_known = path not in question.left_open and os.path.exists(file)
        beside = question.beside.get(path, ())
        if is_known and _differs(record.dependencies[path], file, beside, by_content=by_content):
            return f"{path} has changed"
    for path in record.dependencies:
        if path not in question.dependencies:
            return f"{made.path} was made from {path} too"
    if question.code != record.code and "code" in question.policy.stale_with:
        return "its code has changed"
    if question.environment != record.environment and "environment" in question.policy.stale_with:
        return "its environment has changed"
    return None


def _differs(known: Fingerprint | None, file: str, beside: Sequence[str] = (), *, by_content: bool) -> bool:
    now = fingerprint_of(file, beside)
    if known is None or now is None:
        return True
    if not by_content:
        return now.seen != known.seen
    if now.identity == known.identity:
        return False
    read = fingerprint_of(file, beside, read=True)
    return read is None or read.content != known.content


def fingerprint_of(file: str, beside: Sequence[str] = (), *, read: bool = False) -> Fingerprint | None:
    """Return what a file or directory is like now, or ``None`` if it is not there.

    Links are followed, in a directory too: to files and to directories.

    :param beside: files that belong to it, and have to be there as well.
    :param read: read its content as well.
    """
    try:
        status = os.stat(file)
        if not beside and not stat.S_ISDIR(status.st_mode):  # looked at before it is read: a later change shows
            return Fingerprint(_seen(status), _content(file, status) if read else None, _identity(status))
        seen, content, identity = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        for whole in (file, *beside):
            name = "" if whole is file else os.path.basename(whole)
            for entry in _entries(whole):
                label = f"{name}\0{entry.name}"
                _add(seen, label, _seen(entry.status) if entry.status else entry.text)
                _add(identity, label, _identity(entry.status) if entry.status else entry.text)
                if read:
                    _add(content, label, _content(entry.path, entry.status) if entry.status else entry.text)
        return Fingerprint(seen.hexdigest(), content.hexdigest() if read else None, identity.hexdigest())
    except (FileNotFoundError, NotADirectoryError):
        return None


class _Entry(NamedTuple):
    """A file in a directory, or anything else that is not entered.

    :param name: its path in the directory.
    :param status: status of the file that it is, or leads to.
    :param text: description of anything else.
    """

    name: str
    path: str
    status: Optional[os.stat_result]
    text: str = ""


def _entries(whole: str) -> Iterator[_Entry]:
    """Return the files in a directory, however deep, and its empty directories; for a file, the file itself.

    Each directory is entered once, whatever links lead to it, so this ends. A link to the root of the file system is
    not followed: all that the machine has would count.
    """
    root = os.stat(os.sep)
    entered = {(root.st_dev, root.st_ino): os.sep}
    coming = [("", whole)]
    while coming:
        name, path = coming.pop()
        try:
            status = os.stat(path)
        except OSError as error:
            if not name:
                raise
            if os.path.lexists(path):  # else it was removed a moment ago
                yield _Entry(name, path, None, f"{error.strerror}: {_target(path)}")
            continue
        if not stat.S_ISDIR(status.st_mode):
            yield _Entry(name, path, status)
            continue
        key = (status.st_dev, status.st_ino)
        if name and key in entered:
            yield _Entry(name, path, None, f"the same as {entered[key]}")
            continue
        entered[key] = name
        try:
            names = [each for each in os.listdir(path) if each != OWN_FOLDER]
        except PermissionError:
            yield _Entry(name, path, None, "a directory that cannot be read")
            continue
        except FileNotFoundError:
            if not name:
                raise
            continue  # it was removed a moment ago
        if not names:
            yield _Entry(name, path, None, "an empty directory")
        coming += [(os.path.join(name, each), os.path.join(path, each)) for each in sorted(names, reverse=True)]


def _target(path: str) -> str:
    return os.readlink(path) if os.path.islink(path) else ""


def _add(digest: Any, label: str, text: str) -> None:
    digest.update(f"{label}\0{text}\0".encode("utf-8", "surrogateescape"))


def _seen(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns}-{status.st_size}"


def _identity(status: os.stat_result) -> str:
    return f"{status.st_dev}-{status.st_ino}-{status.st_ctime_ns}-{_seen(status)}"


def _content(file: str, status: os.stat_result) -> str:
    if not stat.S_ISREG(status.st_mode):  # a named pipe is not waited for
        return "no file"
    digest = hashlib.sha256()
    try:
        with open(file, "rb") as opened:
            while chunk := opened.read(_CHUNK):
                digest.update(chunk)
    except PermissionError:  # the module may not need it; a change shows as far as it can be seen
        return f"a file that cannot be read: {_seen(status)}"
    return digest.hexdigest()
