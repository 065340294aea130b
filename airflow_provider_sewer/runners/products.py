"""Make products whole: under another name first, put in place when the task has succeeded, with a record beside them.

Beside a product lies the folder ``.sewer``. In it are the record of what the product was made from, and for as long
as the task runs a folder ``making-…``, in which the product comes to be under its own name. An attempt that was killed
leaves that folder behind; the next one on the same paths removes it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import ProductError
from airflow_provider_sewer.core.freshness import Made, Record, Stamp, stamp
from airflow_provider_sewer.core.paths import FAILED, OWN_FOLDER, Product, beside, given_to_module, located
from airflow_provider_sewer.core.trusted import check_own_folder, make_own_folders, parse_json, read_own

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MAKING = "making-"
_LOCK = "lock"
_NEW = "new"
_OLD = "old"
#: Bytes that a record may have: it holds the result of its task.
_LARGEST = 64 * 1024 * 1024


class Making:
    """The products of one attempt at a task.

    :param task: the task's name.
    :param products: what it is to make.
    :param workdir: what relative paths are taken from; where this process is, if not said.
    :param attempt: a name for the attempt by which another process can go on with it; without one, it ends with this
        process.
    """

    def __init__(
        self, task: str, products: Sequence[Product], workdir: str | None = None, attempt: str | None = None
    ) -> None:
        self._task = task
        self._products = products
        self._files = {product: located(product.path, workdir) for product in products}
        self._kind = f"{_MAKING}{_digest(self._files.values())}-" if products else ""
        self._folder = f"{self._kind}{attempt or os.urandom(6).hex()}" if products else ""
        self._is_for_others = attempt is not None
        self._locks: list[int] = []
        self._before: dict[Product, Stamp | None] = {}

    def begin(self) -> None:
        """Make the folders that the products go to, and note what is there now.

        :raises ProductError: when that cannot be done.
        :raises UntrustedPath: when another user could have written the folder ``.sewer`` beside a product.
        """
        self._check_own_folders()
        try:
            for product, file in self._files.items():
                with _named(self._task, product, "cannot make the folder for it"):
                    os.makedirs(os.path.dirname(file), exist_ok=True)
                    self._before[product] = stamp(file)
                    self._begin_one(product, file)
        except BaseException:
            self.fail()
            raise

    def noted(self) -> dict[str, Stamp | None]:
        """Return what was there before, by path, for another process that goes on with the attempt."""
        return {product.path: before for product, before in self._before.items()}

    def go_on(self, noted: Mapping[str, Stamp | None]) -> None:
        """Go on with an attempt that another process has begun.

        :param noted: what :meth:`noted` returned there.
        """
        self._before = {product: noted.get(product.path) for product in self._products}

    def place(self, product: Product) -> str:
        """Return the path that the module is given in place of a product's."""
        if not product.atomic:
            return given_to_module(product.path)
        folder, name = os.path.split(given_to_module(product.path).rstrip("/"))
        return os.path.join(folder, OWN_FOLDER, self._folder, _NEW, name)

    def publish(self, record: Record, compare_content: Iterable[str] = ()) -> None:
        """Put the products in place, and record what they were made from.

        :param record: what they were made from, without a stamp of the product.
        :param compare_content: products whose content is part of their stamp.
        :raises ProductError: when one was not made, or not made anew; then none is put in place.
        :raises UntrustedPath: as for :meth:`begin`.
        """
        self._check_own_folders()
        for product, file in self._files.items():
            self._check(product, file)
        read = set(compare_content)
        made: dict[Product, Stamp | None] = {}
        for product, file in self._files.items():
            with _named(self._task, product, "it was made, but its record cannot be written"):
                # Of what this attempt has made: another one may replace it as soon as it is in place.
                made[product] = stamp(self._content(product, file), read=product.path in read)
                self._note_unfinished(file)
        for product, file in self._files.items():
            with _named(self._task, product, "it was made, but cannot be put in place"):
                if self._whereabouts(product, file) != file:
                    _put_in_place(self._beside(file), file, self._beside(file, _OLD))
                _remove_failed(file)
        for product, file in self._files.items():
            with _named(self._task, product, "it is in place, but its record cannot be written"):
                write_record(file, record._replace(product=made[product], attempt=self._folder))
        self._end()

    def fail(self) -> None:
        """Put aside, or remove, what has been made of the products.

        :raises UntrustedPath: as for :meth:`begin`.
        """
        self._check_own_folders()
        for product in self._before:  # those that it came as far as to begin
            with suppress(OSError):
                self._put_aside(product, self._files[product])
        self._end()

    def real_names_in(self, value: Any) -> Any:
        """Return a result with the real names of products, where it has those that the module was given."""
        if isinstance(value, Mapping):
            return {key: self.real_names_in(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.real_names_in(item) for item in value]
        if isinstance(value, str):
            for product, file in self._files.items():
                if product.atomic:
                    value = value.replace(self._beside(file), file)
                    value = value.replace(self.place(product), given_to_module(product.path).rstrip("/"))
        return value

    def _check_own_folders(self) -> None:
        for product, file in self._files.items():
            check_own_folder(_own_folder(file), f"task {self._task!r}: product {product.path!r}")

    def _put_aside(self, product: Product, file: str) -> None:
        if not product.atomic and stamp(file) == self._before[product]:
            self._forget_unfinished(file)
            return
        made = self._beside(file) if product.atomic else file
        if product.on_failure == "keep" and _is_something(made) and _make_way_for_failed(file):
            os.rename(made, beside(file, FAILED))
        else:
            _remove(made)
        if not product.atomic:
            _remove(_record_path(file))

    def _refuse_to_replace(self, product: Product, file: str, made: str | None = None) -> None:
        """Leave alone what no task has made, and what would be lost without anybody's having said so.

        :param made: what is to take its place, if it is there already.
        """
        if read_record(file) is not None or os.path.islink(file) or not os.path.exists(file):
            return
        becomes_directory = product.path.endswith("/") if made is None else os.path.isdir(made)
        if os.path.isdir(file) and os.listdir(file):
            what = "a directory with something in it"
        elif os.path.isfile(file) and becomes_directory:
            what = "a file"
        else:
            return
        raise ProductError(
            f"task {self._task!r}: product {product.path!r}: at {file} is {what} that no task has made; move it away, "
            "or give the product another path"
        )

    def _begin_one(self, product: Product, file: str) -> None:
        if product.atomic:
            self._refuse_to_replace(product, file)
            self._begin_beside(product, file)
        else:
            self._note_unfinished(file)
            if product.path.endswith("/"):
                os.makedirs(file, exist_ok=True)

    def _begin_beside(self, product: Product, file: str) -> None:
        own = _own_folder(file)
        make_own_folders(os.path.dirname(file), own)
        _sweep(own, self._kind)
        folder = os.path.join(own, self._folder)
        if not os.path.isdir(folder) and not self._is_for_others:  # without a lock, nobody takes it for abandoned
            self._locks.append(_made_and_locked(folder))
        make_own_folders(own, os.path.join(folder, _NEW))
        if product.path.endswith("/"):
            os.makedirs(self._beside(file), exist_ok=True)

    def _beside(self, file: str, kind: str = _NEW) -> str:
        return os.path.join(os.path.dirname(file), OWN_FOLDER, self._folder, kind, os.path.basename(file))

    def _whereabouts(self, product: Product, file: str) -> str:
        """Return where a product is that was made: beside its real name, or there already."""
        return self._beside(file) if product.atomic and os.path.lexists(self._beside(file)) else file

    def _content(self, product: Product, file: str) -> str:
        """Return where the content of a product is that was made; a link is taken as it will be once it is in place."""
        made = self._whereabouts(product, file)
        return os.path.join(os.path.dirname(file), os.readlink(made)) if os.path.islink(made) else made

    def _check(self, product: Product, file: str) -> None:
        now = stamp(file)
        is_made_for_it = product.path.endswith("/")
        if product.atomic:
            target = self._content(product, file)
            if os.path.islink(self._beside(file)) and not os.path.exists(target):
                raise ProductError(
                    f"it exited with 0, but made {product.path} a link that leads nowhere: {target} does not exist"
                )
            if _is_something(self._beside(file), or_empty=not is_made_for_it) or self._is_in_place(file):
                self._refuse_to_replace(product, file, target)
                return
            wrote_itself = now is not None and now != self._before[product]
            hint = (
                f"it wrote to {product.path} itself; have it write to the path it is given, or say "
                f"Product({product.path!r}, atomic=False)"
                if wrote_itself
                else f"it was to write it to the path it was given, {self.place(product)}"
            )
            raise ProductError(f"it exited with 0, but did not make {product.path}: {hint}")
        if not _is_something(file, or_empty=not is_made_for_it):
            raise ProductError(f"it exited with 0, but did not make {product.path}, which was to be {file}")
        if now == self._before[product]:
            raise ProductError(f"it exited with 0, but did not make {product.path} anew: {file} is what it was before")

    def _is_in_place(self, file: str) -> bool:
        """Tell whether another process of this attempt has put it in place, and was ended before that was noted."""
        record = read_record(file)
        return record is not None and record.attempt == self._folder and os.path.lexists(file)

    def _note_unfinished(self, file: str) -> None:
        """Note that what is at this path now is not to be relied on, should this process be ended."""
        old = read_record(file)
        if old is None:
            write_record(file, Record(self._task, "", None, {}, is_whole=False, attempt=self._folder))
        elif old.is_whole or old.attempt != self._folder:
            write_record(file, old._replace(is_whole=False, attempt=self._folder, was_whole=old.is_whole))

    def _forget_unfinished(self, file: str) -> None:
        """Take back what this attempt has noted: nothing has changed what is at this path."""
        record = read_record(file)
        if record is None or record.is_whole or record.attempt != self._folder:
            return
        if record.was_whole is None:
            _remove(_record_path(file))
        elif record.was_whole:
            write_record(file, record._replace(is_whole=True))

    def _end(self) -> None:
        for folder in {os.path.dirname(file) for file in self._files.values()}:
            shutil.rmtree(os.path.join(folder, OWN_FOLDER, self._folder), ignore_errors=True)
        for lock in self._locks:
            os.close(lock)
        self._locks.clear()


def made_before(products: Iterable[Product], workdir: str | None) -> list[Made]:
    """Return products as they are now, with their records."""
    return [_made_before(product, located(product.path, workdir)) for product in products]


def _made_before(product: Product, file: str) -> Made:
    record = read_record(file)
    if record is not None and record.is_removed and not product.temporary:  # it was when it was removed
        record = record._replace(is_removed=False)
    return Made(product.path, file, record)


def remove_temporary(product: Product, workdir: str | None) -> bool:
    """Remove a product that is needed no longer, and record that it was there.

    :returns: whether it was: what has no record of being whole is none of ours.
    :raises ProductError: when that cannot be done.
    """
    file = located(product.path, workdir)
    record = read_record(file)
    if record is None or not record.is_whole or not os.path.lexists(file):
        return False
    if record.is_removed and not _is_as_made(file, record):  # else a process was ended just before it was to remove it
        return False
    with _named(record.task, product, "cannot remove it after use"):
        write_record(file, record._replace(is_removed=True))
        _remove_at_once(file)
    return True


def read_record(file: str) -> Record | None:
    """Return the record of a product; ``None`` if it cannot be read, or is not of its form.

    :raises UntrustedPath: when another user could have written the folder that it is in.
    """
    check_own_folder(_own_folder(file))
    try:
        said: Any = parse_json(read_own(_record_path(file), largest=_LARGEST, is_private=False))
        if not _is_record(said):
            return None
        fields = {field: said[field] for field in Record._fields}
        stamps = {path: Stamp(*each) for path, each in said["dependencies"].items()}
        product = Stamp(*said["product"]) if said["product"] else None
        return Record(**{**fields, "dependencies": stamps, "product": product})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _is_record(said: Any) -> bool:
    match said:
        case {"task": str(), "command": str(), "attempt": str(), "dependencies": dict(), "after": dict()}:
            is_text = all(said.get(name) is None or isinstance(said[name], str) for name in ("code", "environment"))
            return is_text and all(isinstance(said.get(name), bool) for name in ("is_whole", "is_removed"))
    return False


def write_record(file: str, record: Record) -> None:
    """Write the record of a product beside it, all at once."""
    path = _record_path(file)
    make_own_folders(os.path.dirname(file), os.path.dirname(path))
    unfinished = f"{path}.{os.urandom(4).hex()}"
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with open(descriptor, "w", encoding="utf-8") as opened:
            json.dump({**record._asdict(), "after": dict(record.after)}, opened)
        os.replace(unfinished, path)
    except OSError:
        with suppress(OSError):
            os.unlink(unfinished)
        raise


def stamps_of(files: Mapping[str, str], *, read: bool) -> dict[str, Stamp]:
    """Return what dependencies are like now.

    :param files: absolute paths by path as the task writes it.
    :param read: read their content as well.
    """
    stamps = {path: stamp(file, read=read) for path, file in files.items()}
    return {path: each for path, each in stamps.items() if each is not None}


def _own_folder(file: str) -> str:
    return os.path.join(os.path.dirname(file), OWN_FOLDER)


def _record_path(file: str) -> str:
    return beside(file, ".json", OWN_FOLDER)


def _put_in_place(made: str, file: str, old: str) -> None:
    """Give what was made its real name. Only a directory cannot take another's place in one step.

    :param old: where what a directory takes the place of is kept until then.
    """
    if not os.path.lexists(file) or not (os.path.isdir(made) or (os.path.isdir(file) and not os.path.islink(file))):
        os.replace(made, file)
        return
    os.makedirs(os.path.dirname(old), exist_ok=True)
    os.rename(file, old)
    try:
        os.replace(made, file)
    except OSError:
        os.rename(old, file)
        raise


def _is_something(path: str, *, or_empty: bool = False) -> bool:
    """Tell whether anything was made; a directory that was made for the module and is still empty is nothing."""
    return os.path.lexists(path) and (or_empty or not os.path.isdir(path) or bool(os.listdir(path)))


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)


def _make_way_for_failed(file: str) -> bool:
    """Remove what a failed attempt has left of a product, and note that more is to come; anything else stays.

    :returns: whether the name for it is free now.
    """
    _remove_failed(file)
    if os.path.lexists(beside(file, FAILED)):
        return False
    with open(_failed_mark(file), "w", encoding="utf-8"):
        return True


def _remove_failed(file: str) -> None:
    if os.path.exists(_failed_mark(file)):
        _remove(beside(file, FAILED))
        _remove(_failed_mark(file))


def _failed_mark(file: str) -> str:
    return beside(file, FAILED, OWN_FOLDER)


def _is_as_made(file: str, record: Record) -> bool:
    now = stamp(file)
    return now is not None and record.product is not None and now.seen == record.product.seen


def _remove_at_once(file: str) -> None:
    """Remove what may be a directory, without its ever being there by half."""
    folder = os.path.join(_own_folder(file), f"{_MAKING}{_digest([file])}-{os.urandom(6).hex()}")
    lock = _made_and_locked(folder)
    try:
        os.rename(file, os.path.join(folder, _OLD))
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _made_and_locked(folder: str) -> int:
    """Make a folder, and hold a lock in it for as long as this process lives, or until the descriptor is closed."""
    path = os.path.join(folder, _LOCK)
    while True:
        make_own_folders(os.path.dirname(os.path.dirname(folder)), folder)
        with suppress(FileNotFoundError):
            lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            with suppress(OSError):  # where there are no locks, nobody removes the folder either
                fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.exists(path):  # else somebody has taken it for abandoned, before it was locked
                return lock
            os.close(lock)


def _digest(files: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(sorted(files)).encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _sweep(own: str, kind: str) -> None:
    """Remove what attempts at these very products have left that are no more.

    Only at these: where locks are known on one machine only, attempts at others may well be under way on another one.
    """
    with os.scandir(own) as entries:
        folders = [entry.path for entry in entries if entry.name.startswith(kind)]
    for folder in folders:
        with suppress(OSError):
            _remove_if_abandoned(folder)


def _remove_if_abandoned(folder: str) -> None:
    lock = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


class _named:  # noqa: N801 - reads as a function, and costs less
    """Say which product of which task the file system refuses."""

    def __init__(self, task: str, product: Product, what: str) -> None:
        self._said = f"task {task!r}: product {product.path!r}: {what}"

    def __enter__(self) -> None:
        """Nothing happens yet."""

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, OSError):
            where = error.filename2 or error.filename
            why = f"{where}: {error.strerror}" if where else str(error)
            raise ProductError(f"{self._said}: {why}") from None
