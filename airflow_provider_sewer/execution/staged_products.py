"""Atomic writes of products: staged under another path, committed when the task has succeeded, recorded beside them.

Beside a product lies the folder ``.sewer``. It holds the product's record and, while the task runs, the staging
directory ``making-…``, in which the product is written under its own name. A killed attempt leaves its staging
directory behind; the next attempt on the same paths removes it.

Files that the module writes beside the staged product belong to it, and its record names them. They are committed
together:

1. The record lists the files to add and the files to remove.
2. The previous product is moved away, the files beside it change, and the new product is moved in last.
3. The record is marked complete.

A kill in between leaves an incomplete record. The next attempt on the same paths, or the next process of the same
attempt, finishes the moves. No file moves before the records of all products of the task list their moves.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.atomic_file import write_atomically
from airflow_provider_sewer.core.errors import FileSystemRefused, ProductError, UnreadableRecord, UntrustedPath
from airflow_provider_sewer.core.fingerprints import Fingerprint, fingerprint_of
from airflow_provider_sewer.core.formats import PRODUCT
from airflow_provider_sewer.core.paths import OWN_FOLDER, Product, absolute_path, path_for_module, sibling_path
from airflow_provider_sewer.core.staleness import ProductRecord, ProductState
from airflow_provider_sewer.core.trusted_files import check_own_folder, make_own_folders, parse_json, read_own
from airflow_provider_sewer.execution.failed_products import keep_failed, remove_failed
from airflow_provider_sewer.execution.product_files import exists, file_names_in, owner_of, remove, replace, replace_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_STAGING = "making-"
_LOCK = "lock"
#: Used instead where several processes work on one attempt: the lock of the process that commits the products.
_PUT_LOCK = "put-lock"
_NEW = "new"
_OLD = "old"
#: Maximum bytes of a record; it holds the result of its task.
_LARGEST = 64 * 1024 * 1024
_HOUR = 3600


class _Commit(NamedTuple):
    """Moves that commit one product.

    :param inode: device and inode of the staged product.
    :param known: its fingerprint; ``None`` for a directory, because its links resolve differently once it is moved.
    :param beside: names of the files that are committed with it.
    :param leaving: names of the files of the previous product that are removed.
    :param former: the record of the previous product.
    """

    inode: tuple[int, int]
    known: Fingerprint | None
    beside: list[str]
    leaving: list[str]
    former: ProductRecord | None


class _StagingFolder(NamedTuple):
    """Staging directory of the products of one attempt that share a folder.

    :param new: the directory in which they are written.
    :param products: their names.
    :param written: names of the files that the module has written beside each product.
    """

    new: str
    products: dict[Product, str]
    written: dict[Product, list[str]]


class StagedProducts:
    """Products of one attempt of a task.

    :param task: the task's name.
    :param products: the products that the task declares.
    :param workdir: base of relative paths; the current directory if omitted.
    :param attempt: a name by which another process can resume the attempt; without it, the attempt ends with this
        process.
    """

    def __init__(
        self, task: str, products: Sequence[Product], workdir: str | None = None, attempt: str | None = None
    ) -> None:
        self._task = task
        self._workdir = workdir
        self._products = products
        self._files = {product: absolute_path(product.path, workdir) for product in products}
        self._kind = f"{_STAGING}{_digest(self._files.values())}-" if products else ""
        self._folder = f"{self._kind}{attempt or os.urandom(6).hex()}" if products else ""
        self._is_for_others = attempt is not None
        self._locks: list[int] = []
        self._before: dict[Product, Fingerprint | None] = {}

    def begin(self) -> None:
        """Create the staging directories and record the current fingerprint of each product.

        :raises ProductError: when a folder cannot be created, or a product would replace untracked files.
        :raises UntrustedPath: when another user could have written the folder ``.sewer`` beside a product.
        """
        self._check_own_folders()
        try:
            for product, file in self._files.items():
                with _naming_product(self._task, product, "cannot create its folder"):
                    os.makedirs(os.path.dirname(file), exist_ok=True)
                    if product.atomic:
                        self._sweep(os.path.join(os.path.dirname(file), OWN_FOLDER))
                    self._before[product] = fingerprint_of(file)
                    self._begin_one(product, file)
        except BaseException:
            self.discard()
            raise

    def snapshot(self) -> dict[str, Fingerprint | None]:
        """Return the fingerprints at the start of the attempt, by path, for another process that resumes it."""
        return {product.path: before for product, before in self._before.items()}

    def resume(self, snapshot: Mapping[str, Fingerprint | None]) -> None:
        """Resume an attempt that another process has begun.

        :param snapshot: the return value of :meth:`snapshot` in that process.
        """
        self._before = {product: snapshot.get(product.path) for product in self._products}

    def staging_path(self, product: Product) -> str:
        """Return the path that is passed to the module instead of the product's."""
        if not product.atomic:
            return path_for_module(product.path)
        folder, name = os.path.split(path_for_module(product.path).rstrip("/"))
        return os.path.join(folder, OWN_FOLDER, self._folder, _NEW, name)

    def commit(self, record: ProductRecord, compare_content: Iterable[str] = ()) -> None:
        """Move the products to their final paths and write their records.

        :param record: the inputs they were produced from, without a fingerprint of the product.
        :param compare_content: products whose content is part of their fingerprint.
        :raises ProductError: when a product was not written; then none is committed.
        :raises FileSystemRefused: when the file system rejects an operation, e.g. because it is full; another process
            can commit later.
        :raises UntrustedPath: as for :meth:`begin`.
        """
        self._check_own_folders()
        with self._commit_lock():
            self._commit_locked(record, {*compare_content})
        self._end()

    def _commit_locked(self, record: ProductRecord, read: set[str]) -> None:
        for product, file in self._files.items():
            with _naming_product(self._task, product, "it was produced, but cannot be checked"):
                self._check(product, file)
        puts: dict[Product, _Commit] = {}
        for folder in self._folders():
            own = {name for each in folder.products for name in _all_beside(read_record(self._files[each]))}
            for product in folder.products:
                puts[product] = self._moves(product, folder, own, read=product.path in read)
        recorded: dict[Product, str] = {}
        try:
            for product, file in self._files.items():
                with _naming_product(self._task, product, "it was produced, but its record cannot be written"):
                    self._mark_incomplete(file, puts[product])
                    recorded[product] = file
            for product, file in self._files.items():
                with _naming_product(self._task, product, "it was produced, but cannot be moved to its path"):
                    self._move_into_place(file, puts[product])
                    recorded.pop(product)
                    remove_failed(file)
        except BaseException:
            for product, file in recorded.items():  # nothing has changed at their paths
                _restore_record(file, puts[product].former)
            raise
        for product, file in self._files.items():
            with _naming_product(self._task, product, "it is in place, but its record cannot be written"):
                write_record(file, self._completed(record, file, puts[product], read=product.path in read))

    def discard(self) -> None:
        """Remove the staged products, or save them as failed ones.

        If an ended process of this attempt has begun to commit, the commit is finished: the work was done.

        :raises UntrustedPath: as for :meth:`begin`.
        """
        self._check_own_folders()
        with suppress(ProductError):
            self._finish()
        with suppress(OSError):  # the error that led here is the one to raise
            for folder in self._folders():
                for product in folder.products:
                    if product in self._before:  # the attempt had begun it
                        with suppress(OSError):
                            self._discard_one(product, self._files[product], folder)
        self._end()

    def unstage_paths(self, value: Any) -> Any:
        """Return a result in which staging paths are replaced with the products' real paths."""
        if isinstance(value, Mapping):
            return {key: self.unstage_paths(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.unstage_paths(item) for item in value]
        if isinstance(value, str) and self._folder:  # the folder's name is unique, so any path to it is recognized
            staging = os.path.join(OWN_FOLDER, self._folder, _NEW)
            return value.replace(f"/{staging}", "").replace(f"{staging}/", "")
        return value

    @contextmanager
    def _commit_lock(self) -> Iterator[None]:
        """Hold locks by which the next attempt sees that the committing process is still alive.

        A process that fails but stays alive leaves no lock: its attempt is not abandoned.
        """
        held: dict[str, int] = {}
        try:
            for product, file in self._files.items() if self._is_for_others else ():
                folder = os.path.join(_own_folder(file), self._folder)
                if product.atomic and folder not in held:
                    with _naming_product(self._task, product, "it was produced, but cannot be moved to its path"):
                        held[folder] = create_locked_folder(folder, _PUT_LOCK)
            yield
        finally:
            for folder, lock in held.items():
                with suppress(OSError):
                    os.unlink(os.path.join(folder, _PUT_LOCK))
                os.close(lock)

    def _check_own_folders(self) -> None:
        for product, file in self._files.items():
            check_own_folder(_own_folder(file), f"task {self._task!r}: product {product.path!r}")

    def _discard_one(self, product: Product, file: str, folder: _StagingFolder) -> None:
        is_staged = product.atomic or os.path.lexists(self._staged(file))
        if not is_staged and fingerprint_of(file) == self._before[product]:
            self._unmark_incomplete(file)
            return
        partial = self._staged(file) if is_staged else file
        if product.on_failure == "keep":
            keep_failed(file, [partial, *(os.path.join(folder.new, name) for name in folder.written[product])])
        remove(partial)
        if not product.atomic:
            remove(_record_path(file))

    def _refuse_to_replace(self, product: Product, file: str, staged: str | None = None) -> None:
        """Raise if the product would replace untracked files that cannot be recovered.

        :param staged: the path of the replacement, if it exists already.
        """
        if read_record(file) is not None or os.path.islink(file) or not os.path.exists(file):
            return
        becomes_directory = product.path.endswith("/") if staged is None else os.path.isdir(staged)
        if os.path.isdir(file) and os.listdir(file):
            kind = "a non-empty directory"
        elif os.path.isfile(file) and becomes_directory:
            kind = "a file"
        else:
            return
        raise ProductError(
            f"task {self._task!r}: product {product.path!r}: {file} is {kind} that was not created by a task; move it "
            "away, or give the product another path"
        )

    def _begin_one(self, product: Product, file: str) -> None:
        if product.atomic:
            self._refuse_to_replace(product, file)
            self._begin_beside(product, file)
        else:
            self._mark_incomplete(file)
            if product.path.endswith("/"):
                os.makedirs(file, exist_ok=True)

    def _begin_beside(self, product: Product, file: str) -> None:
        own = _own_folder(file)
        make_own_folders(os.path.dirname(file), own)
        folder = os.path.join(own, self._folder)
        if not os.path.isdir(folder) and not self._is_for_others:  # without a lock, no attempt takes it for abandoned
            self._locks.append(create_locked_folder(folder))
        make_own_folders(own, os.path.join(folder, _NEW))
        if product.path.endswith("/"):
            os.makedirs(self._staged(file), exist_ok=True)

    def _staged(self, file: str, kind: str = _NEW) -> str:
        return os.path.join(os.path.dirname(file), OWN_FOLDER, self._folder, kind, os.path.basename(file))

    def _current_path(self, file: str) -> str:
        """Return the path of a produced product: its staging path, or its real one.

        A non-atomic product can be written into the staging directory of another one as well.
        """
        return self._staged(file) if os.path.lexists(self._staged(file)) else file

    def _content(self, file: str) -> str:
        """Return the path of a produced product's content; a link is resolved as if it were committed already."""
        produced = self._current_path(file)
        if not os.path.islink(produced):
            return produced
        folder, target = os.path.split(produced)[0], os.readlink(produced)
        is_beside = target.split("/")[0] in file_names_in(folder, [".."])
        return os.path.join(folder if is_beside else os.path.dirname(file), target)

    def _check(self, product: Product, file: str) -> None:
        now = fingerprint_of(file)
        is_directory = product.path.endswith("/")
        if product.atomic or os.path.lexists(self._staged(file)):
            target = self._content(file)
            if os.path.islink(self._staged(file)) and (self._dangles(self._staged(file)) or not os.path.exists(target)):
                raise ProductError(f"exit code 0, but product {product.path} is a broken link: {target} does not exist")
            if exists(self._staged(file), or_empty=not is_directory) or self._is_in_place(file):
                self._refuse_to_replace(product, file, target)
                return
            wrote_itself = now is not None and now != self._before[product]
            hint = (
                f"the task wrote to {product.path} itself; write to the path that the task is given, or declare "
                f"Product({product.path!r}, atomic=False)"
                if wrote_itself
                else f"expected at the path that the task was given, {self.staging_path(product)}"
            )
            raise ProductError(f"exit code 0, but product {product.path} was not created: {hint}")
        if not exists(file, or_empty=not is_directory):
            raise ProductError(f"exit code 0, but product {product.path} was not created: expected at {file}")
        if now == self._before[product]:
            raise ProductError(f"exit code 0, but product {product.path} was not written: {file} is unchanged")

    def _is_in_place(self, file: str) -> bool:
        """Return whether another process of this attempt has moved it to its path, but was killed before recording."""
        record = read_record(file)
        return record is not None and record.attempt == self._folder and os.path.lexists(file)

    def _dangles(self, link: str) -> bool:
        """Return whether a link's absolute target lies in this attempt's staging directory, which will be removed."""
        return os.path.islink(link) and f"/{self._folder}/" in os.readlink(link)

    # -- Files beside products -----------------------------------------------------------------------------------------

    def _folders(self) -> list[_StagingFolder]:
        """Return the staging directories, with the files that the module has written beside the products."""
        names: dict[str, dict[Product, str]] = {}
        for product, file in self._files.items():
            names.setdefault(os.path.dirname(file), {})[product] = os.path.basename(file)
        folders = []
        for around, products in names.items():
            new = os.path.join(around, OWN_FOLDER, self._folder, _NEW)
            atomic = {product: name for product, name in products.items() if product.atomic}
            written: dict[Product, list[str]] = {product: [] for product in products}
            for name in file_names_in(new, products.values()) if atomic else ():
                written[owner_of(name, atomic)].append(name)
            folders.append(_StagingFolder(new, products, written))
        return folders

    def _moves(self, product: Product, folder: _StagingFolder, own: set[str], *, read: bool) -> _Commit:
        """Return the moves that commit a product.

        :param folder: its staging directory.
        :param own: names of files in this folder that belonged to the previous products.
        :raises ProductError: when a file beside it would replace a foreign file, or a file to remove was changed.
        """
        file = self._files[product]
        with _naming_product(self._task, product, "it was produced, but cannot be read"):
            status = os.lstat(self._current_path(file))
            inode, content = (status.st_dev, status.st_ino), self._content(file)
            # Of the staged content: another attempt may replace the product as soon as it is committed.
            known = None if os.path.isdir(content) else fingerprint_of(content, read=read)
            record = read_record(file)
            if record is not None and self._has_begun_commit(record):
                return _Commit(inode, known, [*record.beside], [*(record.leaving or ())], record)
            for name in folder.written[product]:
                self._check_beside(product, file, name, own, record.beside.get(name) if record is not None else None)
            leaving = self._leaving(product, file, folder, record) if product.atomic and record is not None else []
            return _Commit(inode, known, folder.written[product], leaving, record)

    def _has_begun_commit(self, record: ProductRecord) -> bool:
        return record.attempt == self._folder and (record.leaving is not None or record.is_complete)

    def _check_beside(self, product: Product, file: str, name: str, own: set[str], known: Fingerprint | None) -> None:
        target, record = self._next_to(file, name)
        where = f"task {self._task!r}: {name} was written beside product {product.path}"
        if self._dangles(os.path.join(os.path.dirname(self._staged(file)), name)):
            raise ProductError(f"{where} as a link with an absolute target in that folder; use a relative link")
        if not os.path.lexists(target):
            return
        if record is not None or name not in own:
            raise ProductError(
                f"{where}, but {target} exists and does not belong to that product; move it away, or give the product "
                "its own folder"
            )
        now = fingerprint_of(target) if known is not None and os.path.isdir(target) else None
        if now is not None and known is not None and now.seen != known.seen:
            raise ProductError(
                f"{where}, but the directory {target} was changed since an earlier run created it; move it away, or "
                "remove it"
            )

    def _leaving(self, product: Product, file: str, folder: _StagingFolder, record: ProductRecord) -> list[str]:
        """Return the names of the files that belonged to the previous product and were not written by this attempt."""
        new = {*folder.products.values(), *(name for names in folder.written.values() for name in names)}
        leaving = [name for name in _all_beside(record) if name not in new]
        leaving = [name for name in leaving if self._next_to(file, name)[1] is None]  # else it is a product now
        for name in leaving:
            target, known = self._next_to(file, name)[0], record.beside.get(name)
            if known is not None and (now := fingerprint_of(target)) is not None and now.seen != known.seen:
                raise ProductError(
                    f"task {self._task!r}: {target} was created with {product.path} by an earlier run and changed "
                    "since, and this run did not write it; move it away, or remove it"
                )
        return leaving

    @staticmethod
    def _next_to(file: str, name: str) -> tuple[str, ProductRecord | None]:
        target = os.path.join(os.path.dirname(file), name)
        return target, read_record(target)

    def _move_into_place(self, file: str, put: _Commit) -> None:
        new, old = os.path.dirname(self._staged(file)), os.path.dirname(self._staged(file, _OLD))
        if put.beside or put.leaving:
            replace_all(file, new, old, put.beside, put.leaving)
            for name in put.beside:
                remove(_record_path(self._next_to(file, name)[0]))
        elif self._current_path(file) != file:
            replace(self._staged(file), file, self._staged(file, _OLD))

    def _completed(self, record: ProductRecord, file: str, put: _Commit, *, read: bool) -> ProductRecord:
        """Return the record of a committed product.

        :param record: the inputs of all products of the task.
        """
        known, status = put.known, os.lstat(file)
        if (status.st_dev, status.st_ino) == put.inode:
            now = fingerprint_of(file, read=read and known is None)
            if known is not None and now is not None and now.seen == known.seen:
                known = known._replace(identity=now.identity)  # with the ctime that it has since the move
            known = known or now
        beside = {name: fingerprint_of(self._next_to(file, name)[0], read=read) for name in put.beside}
        return record._replace(product=known, attempt=self._folder, beside=beside)

    def _sweep(self, own: str) -> None:
        """Remove the staging directories of ended attempts at exactly these products.

        Others are left alone: where locks do not work across machines, another machine may be working on them.
        """
        records = {os.path.basename(_record_path(file)) for file in self._files.values()}
        with suppress(FileNotFoundError), os.scandir(own) as entries:
            for entry in list(entries):
                with suppress(OSError):
                    if entry.name.startswith(self._kind):
                        self._remove_if_abandoned(own, entry.name)
                    elif entry.name[: -len(".01234567")] in records and entry.stat().st_mtime < time.time() - _HOUR:
                        os.unlink(entry.path)  # a record that was never finished

    def _remove_if_abandoned(self, own: str, name: str) -> None:
        folder = os.path.join(own, name)
        is_for_others = os.path.exists(os.path.join(folder, _PUT_LOCK))
        lock = os.open(os.path.join(folder, _PUT_LOCK if is_for_others else _LOCK), os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            has_begun = False
            with suppress(ProductError):  # then it is removed, unless another process can do it later
                has_begun = StagedProducts(self._task, self._products, self._workdir, name[len(self._kind) :])._finish()
            if has_begun or not is_for_others:
                remove_locked(folder)
        finally:
            os.close(lock)

    def _finish(self) -> bool:
        """Finish the commit of an ended attempt; its records stay incomplete.

        :returns: whether the records of all its products show that the commit had begun.
        """
        records = {product: read_record(file) for product, file in self._files.items()}
        if not all(record is not None and self._has_begun_commit(record) for record in records.values()):
            return False
        for product, record in records.items():
            if record is not None and record.leaving is not None:
                with _naming_product(
                    self._task, product, "it was produced by an earlier attempt, but cannot be moved to its path"
                ):
                    put = _Commit((0, 0), None, [*record.beside], [*record.leaving], None)
                    self._move_into_place(self._files[product], put)
        return True

    # -- Records -------------------------------------------------------------------------------------------------------

    def _mark_incomplete(self, file: str, put: _Commit | None = None) -> None:
        """Mark the record incomplete, in case this process is killed.

        :param put: the moves of the commit, once nothing else is left to do.
        """
        old = read_record(file)
        record = old or ProductRecord(self._task, "", None, {})
        is_first = old is None or old.is_complete or old.attempt != self._folder
        if not is_first and put is None:
            return
        was_complete = None if old is None else old.is_complete if is_first else old.was_complete
        record = record._replace(is_complete=False, attempt=self._folder, was_complete=was_complete)
        if put is not None:
            record = record._replace(beside=dict.fromkeys(put.beside), leaving=put.leaving)
        write_record(file, record)

    def _unmark_incomplete(self, file: str) -> None:
        """Restore the record to its state before this attempt: the product at this path is unchanged."""
        record = read_record(file)
        if record is None or record.is_complete or record.attempt != self._folder:
            return
        if record.was_complete is None:
            remove(_record_path(file))
        elif record.was_complete:
            write_record(file, record._replace(is_complete=True))

    def _end(self) -> None:
        for folder in {os.path.dirname(file) for file in self._files.values()}:
            remove_locked(os.path.join(folder, OWN_FOLDER, self._folder))
        for lock in self._locks:
            os.close(lock)
        self._locks.clear()


def existing_products(products: Iterable[Product], workdir: str | None) -> list[ProductState]:
    """Return the current state of products, with their records."""
    return [_existing_product(product, absolute_path(product.path, workdir)) for product in products]


def _existing_product(product: Product, file: str) -> ProductState:
    record = read_record(file)
    if record is not None and record.is_removed and not product.temporary:  # it was temporary when it was removed
        record = record._replace(is_removed=False)
    return ProductState(product.path, file, record)


def remove_temporary(product: Product, workdir: str | None) -> bool:
    """Remove a product that is no longer needed, and record its removal.

    :returns: whether it was removed; a product without a complete record is not touched.
    :raises ProductError: when it cannot be removed.
    """
    file = absolute_path(product.path, workdir)
    record = read_record(file)
    if record is None or not record.is_complete:
        return False
    if record.is_removed and os.path.lexists(file) and not _is_unchanged(file, record.product):
        return False  # it is another file; otherwise a process was killed just before it removed the product
    beside = ProductState(product.path, file, record).files_beside()
    own = [file, *(path for name, path in beside.items() if _is_unchanged(path, record.beside[name]))]
    there = [path for path in own if os.path.lexists(path)]
    if not there:
        return False
    with _naming_product(record.task, product, "cannot remove it after use"):
        write_record(file, record._replace(is_removed=True))
        _remove_atomically(there)
    return True


def read_record(file: str) -> ProductRecord | None:
    """Return the record of a product; ``None`` if it is missing, unreadable or malformed.

    :raises UnreadableRecord: when another version has written it.
    :raises UntrustedPath: when another user could have written its folder.
    """
    check_own_folder(_own_folder(file))
    try:
        path = _record_path(file)
        data = PRODUCT.read(path, parse_json(read_own(path, largest=_LARGEST)))
        if not _is_record(data):
            return None
        data["dependencies"] = {path: Fingerprint(*each) for path, each in data["dependencies"].items()}
        data["product"] = Fingerprint(*data["product"]) if data["product"] else None
        data["beside"] = {_name(name): each and Fingerprint(*each) for name, each in data["beside"].items()}
        data["leaving"] = data["leaving"] and [_name(name) for name in data["leaving"]]
        return ProductRecord(*PRODUCT.values(data))
    except UnreadableRecord as error:
        if error.version is not None:
            raise
        return None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _restore_record(file: str, former: ProductRecord | None) -> None:
    with suppress(OSError):
        if former is None:
            os.unlink(_record_path(file))
        else:
            write_record(file, former)


def _name(name: str) -> str:
    """Return the name of a file beside its product, from a record.

    :raises ValueError: when it would lead out of the product's folder.
    """
    if os.path.basename(name) != name or name in ("", ".", "..", OWN_FOLDER):
        raise ValueError(name)
    return name


def _is_record(data: Mapping[str, Any]) -> bool:
    run = data["dag_run"]
    is_text = all(data[name] is None or isinstance(data[name], str) for name in ("code", "environment"))
    return is_text and (run is None or (isinstance(run, list) and [*map(type, run)] == [str, str]))


def write_record(file: str, record: ProductRecord) -> None:
    """Write the record of a product beside it, atomically; only its owner can read the result in it."""
    path = _record_path(file)
    make_own_folders(os.path.dirname(file), os.path.dirname(path))
    values = record._replace(upstream=dict(record.upstream), beside=dict(record.beside))
    write_atomically(path, json.dumps(PRODUCT.packed(values)).encode())


def fingerprints_of(files: Mapping[str, str], *, read: bool) -> dict[str, Fingerprint]:
    """Return the current fingerprints of dependencies.

    :param files: absolute paths by the path that the task declares.
    :param read: include their content.
    """
    fingerprints = {path: fingerprint_of(file, files_beside(file), read=read) for path, file in files.items()}
    return {path: each for path, each in fingerprints.items() if each is not None}


def files_beside(file: str) -> list[str]:
    """Return the absolute paths of the files that belong to a dependency, if it is a product with files beside it.

    A dependency may lie in the folder of another user, whose record is ignored.
    """
    try:
        record = read_record(file)
    except UntrustedPath:
        return []
    return (
        [*ProductState("", file, record).files_beside().values()] if record is not None and record.is_complete else []
    )


def _own_folder(file: str) -> str:
    return os.path.join(os.path.dirname(file), OWN_FOLDER)


def _record_path(file: str) -> str:
    return sibling_path(file, ".json", OWN_FOLDER)


def _all_beside(record: ProductRecord | None) -> set[str]:
    return set() if record is None else {*record.beside, *(record.leaving or ())}


def _is_unchanged(file: str, known: Fingerprint | None) -> bool:
    now = fingerprint_of(file)
    return now is not None and known is not None and now.seen == known.seen


def _remove_atomically(files: Sequence[str]) -> None:
    """Remove a product and the files beside it, in this order and each atomically."""
    own = _own_folder(files[0])
    folder = os.path.join(own, f"{_STAGING}{_digest(files[:1])}-{os.urandom(6).hex()}")
    lock = create_locked_folder(folder)
    try:
        for number, file in enumerate(files):
            os.rename(file, os.path.join(folder, f"{_OLD}-{number}"))
        remove_locked(folder)
    finally:
        os.close(lock)


def remove_locked(folder: str) -> None:
    """Remove a folder, its lock last, so that a later attempt can remove the rest if this process is killed."""
    with suppress(OSError):
        for name in os.listdir(folder):
            if name not in (_LOCK, _PUT_LOCK):
                shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
                with suppress(OSError):
                    os.unlink(os.path.join(folder, name))
    shutil.rmtree(folder, ignore_errors=True)


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


def _digest(files: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(sorted(files)).encode("utf-8", "surrogateescape")).hexdigest()[:8]


class _naming_product:  # noqa: N801 - reads as a function, and costs less
    """Context manager that adds the task and the product to errors of the file system."""

    def __init__(self, task: str, product: Product, problem: str) -> None:
        self._message = f"task {task!r}: product {product.path!r}: {problem}"

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, OSError):
            where = error.filename2 or error.filename
            reason = f"{where}: {error.strerror}" if where else error.strerror
            raise FileSystemRefused(f"{self._message}: {reason}") from None
