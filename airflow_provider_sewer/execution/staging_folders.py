"""Staging directories beside products, their files, and the locks by which other processes see that they are in use.

Where locks do not work across machines, only the directories of the same products are ever removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from contextlib import contextmanager, suppress
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.errors import FileSystemRefused
from airflow_provider_sewer.core.paths import OWN_FOLDER, Product, path_for_module
from airflow_provider_sewer.core.trusted_files import make_own_folders
from airflow_provider_sewer.execution.product_records import own_folder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

_STAGING = "making-"
_LOCK = "lock"
#: Used instead where several processes work on one attempt: the lock of the process that commits the products.
_COMMIT_LOCK = "put-lock"
_NEW = "new"
_OLD = "old"


class StagedProduct(NamedTuple):
    """Product with its paths, which are resolved once for each attempt.

    :param product: the product.
    :param file: its absolute path.
    :param folder: the staging directory of the attempt, beside it.
    :param new: the absolute path at which it is staged.
    :param given: the path that the module is given; relative if that of the product is.
    """

    product: Product
    file: str
    folder: str
    new: str
    given: str

    @classmethod
    def at(cls, product: Product, file: str, attempt: str) -> StagedProduct:
        """Return a product at an absolute path.

        :param attempt: the name of the staging directory.
        """
        around, name = os.path.split(file)
        folder, given = os.path.join(around, OWN_FOLDER, attempt), path_for_module(product.path)
        if product.atomic:
            parent, own_name = os.path.split(given.rstrip("/"))
            given = os.path.join(parent, OWN_FOLDER, attempt, _NEW, own_name)
        return cls(product, file, folder, os.path.join(folder, _NEW, name), given)

    @property
    def current(self) -> str:
        """Return where it is once it is produced: its staging path, or its real one.

        A non-atomic product can be written into the staging directory of another one as well.
        """
        return self.new if os.path.lexists(self.new) else self.file

    def beside(self, name: str) -> str:
        """Return the final path of a file beside it."""
        return os.path.join(os.path.dirname(self.file), name)


class StagingFolder(NamedTuple):
    """Staging directory of the products of one attempt that share a folder.

    :param new: the directory in which they are written.
    :param products: the products.
    :param written: names of the files that the module has written beside each product.
    """

    new: str
    products: Sequence[StagedProduct]
    written: Mapping[Product, list[str]]


def staging_folders(staged: Collection[StagedProduct]) -> list[StagingFolder]:
    """Return the staging directories of products, with the files that the module has written beside these."""
    products_of: dict[str, list[StagedProduct]] = {}
    for each in staged:
        products_of.setdefault(each.folder, []).append(each)
    folders = []
    for folder, products in products_of.items():
        new = os.path.join(folder, _NEW)
        names = {each.product: os.path.basename(each.file) for each in products}
        atomic = {product: name for product, name in names.items() if product.atomic}
        written: dict[Product, list[str]] = {product: [] for product in names}
        for name in file_names_in(new, names.values()) if atomic else ():
            written[_owner_of(name, atomic)].append(name)
        folders.append(StagingFolder(new, products, written))
    return folders


def staging_prefix(files: Iterable[str]) -> str:
    """Return the first part of the names of all staging directories for products at these absolute paths."""
    digest = hashlib.sha256("\0".join(sorted(files)).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{_STAGING}{digest}-"


def create_locked_folder(folder: str, name: str = _LOCK) -> int:
    """Create a folder and hold a lock in it until the descriptor is closed or this process ends.

    :param name: the name of the lock.
    :returns: the descriptor.
    """
    path = os.path.join(folder, name)
    while True:
        make_own_folders(os.path.dirname(os.path.dirname(folder)), folder)
        with suppress(FileNotFoundError):
            lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            with suppress(OSError):  # without file locks, no process removes the folder either
                fcntl.flock(lock, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), os.stat(path)):  # else it was removed before it was locked
                    return lock
            os.close(lock)


def remove_locked(folder: str) -> None:
    """Remove a folder, its lock last, so that a later attempt can remove the rest if this process is killed."""
    with suppress(OSError):
        for name in os.listdir(folder):
            if name not in (_LOCK, _COMMIT_LOCK):
                shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
                with suppress(OSError):
                    os.unlink(os.path.join(folder, name))
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def commit_locks(task: str, products: Iterable[tuple[str, Product]]) -> Iterator[None]:
    """Hold locks by which the next attempt sees that the committing process is still alive.

    A process that fails but stays alive leaves no lock: its attempt is not abandoned.

    :param task: the name of the task.
    :param products: its products, each after its staging directory.
    """
    held: dict[str, int] = {}
    try:
        for folder, product in products:
            if folder not in held:
                with naming_product(task, product, "it was produced, but cannot be moved to its path"):
                    held[folder] = create_locked_folder(folder, _COMMIT_LOCK)
        yield
    finally:
        for folder, lock in held.items():
            with suppress(OSError):
                os.unlink(os.path.join(folder, _COMMIT_LOCK))
            os.close(lock)


@contextmanager
def abandoned(folder: str) -> Iterator[bool]:
    """Lock the staging directory of an attempt that has ended.

    :returns: whether several processes worked on the attempt, one of which has begun to commit.
    :raises OSError: when the attempt may still run.
    """
    is_for_others = os.path.exists(os.path.join(folder, _COMMIT_LOCK))
    lock = os.open(os.path.join(folder, _COMMIT_LOCK if is_for_others else _LOCK), os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield is_for_others
    finally:
        os.close(lock)


def remove_atomically(files: Sequence[str]) -> None:
    """Remove a product and the files beside it, in this order and each atomically."""
    folder = os.path.join(own_folder(files[0]), f"{staging_prefix(files[:1])}{os.urandom(6).hex()}")
    lock = create_locked_folder(folder)
    try:
        for number, file in enumerate(files):
            os.rename(file, os.path.join(folder, f"{_OLD}-{number}"))
        remove_locked(folder)
    finally:
        os.close(lock)


@contextmanager
def naming_product(task: str, product: Product, problem: str) -> Iterator[None]:
    """Add the task and the product to errors of the file system."""
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename
        reason = f"{where}: {error.strerror}" if where else error.strerror
        raise FileSystemRefused(f"task {task!r}: product {product.path!r}: {problem}: {reason}") from None


def file_names_in(folder: str, besides: Iterable[str]) -> list[str]:
    """Return the names in a staging directory, sorted.

    :param folder: the directory; treated as empty if it does not exist.
    :param besides: names to leave out: those of the products.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        return sorted({*os.listdir(folder)} - {*besides, OWN_FOLDER})
    return []


def _owner_of(name: str, products: Mapping[Product, str]) -> Product:
    """Return the product that a file belongs to: the one with the most similar name, else one that is not temporary.

    :param name: the name of the file.
    :param products: names of the products that are written in the same folder.
    """

    def likeness(product: Product) -> tuple[int, bool]:
        other = products[product]
        is_like = name.startswith(other.partition(".")[0] or other)
        same = takewhile(lambda pair: pair[0] == pair[1], zip(name, other, strict=False))
        return (len([*same]) if is_like else 0, not product.temporary)

    return max(products, key=likeness)
