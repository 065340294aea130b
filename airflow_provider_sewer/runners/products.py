"""Make products whole: under another name first, put in place when the task has succeeded, with a record beside them.

Beside a product lies the folder ``.sewer``. In it are the record of what the product was made from, and for as long
as the task runs a folder ``making-…``, in which the product comes to be under its own name. An attempt that was killed
leaves that folder behind; the next one on this path removes it.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import ProductError
from airflow_provider_sewer.core.freshness import Made, Record, Stamp, stamp
from airflow_provider_sewer.core.paths import OWN_FOLDER, Product, located

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_MAKING = "making-"
_LOCK = "lock"
_OLD = "old-"
_FAILED = ".failed"


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
        self._folder = f"{_MAKING}{attempt or secrets.token_hex(6)}"
        self._is_for_others = attempt is not None
        self._locks: list[int] = []
        self._before: dict[Product, Stamp | None] = {}

    def begin(self) -> None:
        """Make the folders that the products go to, and note what is there now.

        :raises ProductError: when that cannot be done.
        """
        for product, file in self._files.items():
            with _named(self._task, product, "cannot make the folder for it"):
                os.makedirs(os.path.dirname(file), exist_ok=True)
                self._before[product] = stamp(file)
                if product.atomic:
                    self._begin_beside(product, file)
                else:
                    self._note_unfinished(file)
                    if product.path.endswith("/"):
                        os.makedirs(file, exist_ok=True)

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
            return product.path
        folder, name = os.path.split(os.path.expanduser(product.path.rstrip("/")))
        return os.path.join(folder, OWN_FOLDER, self._folder, name)

    def publish(self, record: Record, compare_content: Iterable[str] = ()) -> None:
        """Put the products in place, and record what they were made from.

        :param record: what they were made from, without a stamp of the product.
        :param compare_content: products whose content is part of their stamp.
        :raises ProductError: when one was not made, or not made anew; then none is put in place.
        """
        for product, file in self._files.items():
            self._check(product, file)
        for file in self._files.values():
            self._note_unfinished(file)
        for product, file in self._files.items():
            with _named(self._task, product, "it was made, but cannot be put in place"):
                if product.atomic and os.path.lexists(self._beside(file)):
                    _put_in_place(self._beside(file), file)
                _remove(f"{file}{_FAILED}")
        for product, file in self._files.items():
            made = stamp(file, read=product.path in set(compare_content))
            with _named(self._task, product, "it is in place, but its record cannot be written"):
                write_record(file, record._replace(product=made, attempt=self._folder))
        self._end()

    def fail(self) -> None:
        """Put aside, or remove, what has been made of the products."""
        for product, file in self._files.items():
            made = self._beside(file) if product.atomic else file
            with suppress(OSError):
                if not product.atomic and stamp(file) == self._before.get(product):
                    if self._before.get(product) is not None:
                        forget_unfinished(file)
                elif _is_something(made) and product.on_failure == "keep":
                    _remove(f"{file}{_FAILED}")
                    os.rename(made, f"{file}{_FAILED}")
                else:
                    _remove(made)
        self._end()

    def _begin_beside(self, product: Product, file: str) -> None:
        own = os.path.join(os.path.dirname(file), OWN_FOLDER)
        os.makedirs(own, exist_ok=True)
        _sweep(own, os.path.basename(file))
        folder = os.path.join(own, self._folder)
        if not os.path.isdir(folder):
            if self._is_for_others:
                os.mkdir(folder)  # without a lock, nobody takes it for abandoned
            else:
                self._locks.append(_made_and_locked(folder))
        if product.path.endswith("/"):
            os.makedirs(self._beside(file))

    def _beside(self, file: str) -> str:
        return os.path.join(os.path.dirname(file), OWN_FOLDER, self._folder, os.path.basename(file))

    def _check(self, product: Product, file: str) -> None:
        now = stamp(file)
        if product.atomic:
            if _is_something(self._beside(file), or_empty=True) or self._is_in_place(file):
                return
            wrote_itself = now is not None and now != self._before[product]
            hint = (
                f"it wrote to {product.path} itself; have it write to the path it is given, or say "
                f"Product({product.path!r}, atomic=False)"
                if wrote_itself
                else f"it was to write it to the path it was given, {self.place(product)}"
            )
            raise ProductError(f"it exited with 0, but did not make {product.path}: {hint}")
        if now is None:
            raise ProductError(f"it exited with 0, but did not make {product.path}, which was to be {file}")
        if now == self._before[product]:
            raise ProductError(f"it exited with 0, but did not make {product.path} anew: {file} is what it was before")

    def _is_in_place(self, file: str) -> bool:
        """Tell whether another process of this attempt has put it in place, and was ended before that was noted."""
        record = read_record(file)
        return record is not None and record.attempt == self._folder and os.path.lexists(file)

    def _note_unfinished(self, file: str) -> None:
        """Note that what is at this path now is not to be relied on, should this process be ended."""
        old = read_record(file) or Record(self._task, "", None, {})
        write_record(file, old._replace(is_whole=False, attempt=self._folder))

    def _end(self) -> None:
        for folder in {os.path.dirname(self._beside(file)) for file in self._files.values()}:
            shutil.rmtree(folder, ignore_errors=True)
        for lock in self._locks:
            os.close(lock)
        self._locks.clear()


def made_before(products: Iterable[Product], workdir: str | None) -> list[Made]:
    """Return products as they are now, with their records."""
    files = ((product.path, located(product.path, workdir)) for product in products)
    return [Made(path, file, read_record(file)) for path, file in files]


def remove_temporary(product: Product, workdir: str | None) -> bool:
    """Remove a product that is needed no longer, and record that it was there.

    :returns: whether it was: what has no record of being whole is none of ours.
    :raises ProductError: when that cannot be done.
    """
    file = located(product.path, workdir)
    record = read_record(file)
    if record is None or not record.is_whole or record.is_removed:
        return False
    with _named(record.task, product, "cannot remove it after use"):
        write_record(file, record._replace(is_removed=True))
        _remove(file)
    return True


def read_record(file: str) -> Record | None:
    """Return the record of a product; one that cannot be read is none."""
    try:
        with open(_record_path(file), encoding="utf-8") as opened:
            said: Any = json.load(opened)
        fields = {field: said[field] for field in Record._fields}
        stamps = {path: Stamp(*each) for path, each in said["dependencies"].items()}
        product = Stamp(*said["product"]) if said["product"] else None
        return Record(**{**fields, "dependencies": stamps, "product": product})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_record(file: str, record: Record) -> None:
    """Write the record of a product beside it, all at once."""
    path = _record_path(file)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    unfinished = f"{path}.{secrets.token_hex(4)}"
    try:
        with open(unfinished, "w", encoding="utf-8") as opened:
            json.dump(record._asdict(), opened)
        os.replace(unfinished, path)
    except OSError:
        with suppress(OSError):
            os.unlink(unfinished)
        raise


def forget_unfinished(file: str) -> None:
    """Take back that what is at a path is not to be relied on: nothing has changed it."""
    record = read_record(file)
    if record is None or record.product is None:
        with suppress(OSError):
            os.unlink(_record_path(file))
    else:
        write_record(file, record._replace(is_whole=True))


def stamps_of(files: Mapping[str, str], *, read: bool) -> dict[str, Stamp]:
    """Return what dependencies are like now.

    :param files: absolute paths by path as the task writes it.
    :param read: read their content as well.
    """
    stamps = {path: stamp(file, read=read) for path, file in files.items()}
    return {path: each for path, each in stamps.items() if each is not None}


def _record_path(file: str) -> str:
    return os.path.join(os.path.dirname(file), OWN_FOLDER, f"{os.path.basename(file)}.json")


def _put_in_place(made: str, file: str) -> None:
    """Give what was made its real name. Only a directory cannot take another's place in one step."""
    if (os.path.isdir(file) and not os.path.islink(file)) or (os.path.isdir(made) and os.path.lexists(file)):
        old = os.path.join(os.path.dirname(made), _OLD + os.path.basename(file))
        os.rename(file, old)
    os.replace(made, file)


def _is_something(path: str, *, or_empty: bool = False) -> bool:
    """Tell whether anything was made; a directory that was made for the module and is still empty is nothing."""
    return os.path.lexists(path) and (or_empty or not os.path.isdir(path) or bool(os.listdir(path)))


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)


def _made_and_locked(folder: str) -> int:
    """Make a folder, and hold a lock in it for as long as this process lives, or until the descriptor is closed."""
    path = os.path.join(folder, _LOCK)
    while True:
        os.makedirs(folder, exist_ok=True)
        with suppress(FileNotFoundError):
            lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            with suppress(OSError):  # where there are no locks, nobody removes the folder either
                fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.exists(path):  # else somebody has taken it for abandoned, before it was locked
                return lock
            os.close(lock)


def _sweep(own: str, name: str) -> None:
    """Remove what attempts at this product have left that are no more."""
    with os.scandir(own) as entries:
        folders = [entry.path for entry in entries if entry.name.startswith(_MAKING) and entry.is_dir()]
    for folder in folders:
        with suppress(OSError):
            if {_LOCK}.issuperset(set(os.listdir(folder)) - {name, _OLD + name}):
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
            raise ProductError(f"{self._said}: {error.filename}: {error.strerror}") from None
