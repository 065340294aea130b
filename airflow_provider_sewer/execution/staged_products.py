"""Make products whole: under another name first, put in place when the task has succeeded, with a record beside them.

Beside a product lies the folder ``.sewer``. In it are the record of what the product was made from, and for as long
as the task runs a folder ``making-…``, in which the product comes to be under its own name. An attempt that was killed
leaves that folder behind; the next one on the same paths removes it.

Files that the module writes there beside the product belong to it, and its record names them. They are put in place
together: the record says first which files come and which go; then the former product leaves its place, the files
beside it change, and the new product comes last; then the record says that all is whole. A kill in between leaves a
record that says so. The next attempt on the same paths, or the next process of the same attempt, finishes the moves.
Before the records of all products of the task say so, nothing has moved, and nothing is to be finished.
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
from airflow_provider_sewer.core.formats import PRODUCT
from airflow_provider_sewer.core.paths import OWN_FOLDER, Product, absolute_path, path_for_module, sibling_path
from airflow_provider_sewer.core.staleness import Fingerprint, ProductRecord, ProductState, fingerprint_of
from airflow_provider_sewer.core.trusted_files import check_own_folder, make_own_folders, parse_json, read_own
from airflow_provider_sewer.execution.product_files import (
    exists,
    file_names_in,
    keep_failed,
    owner_of,
    remove,
    remove_failed,
    replace,
    replace_all,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_STAGING = "making-"
_LOCK = "lock"
#: In place of it where several processes work on one attempt: the lock of the one that puts the products in place.
_PUT_LOCK = "put-lock"
_NEW = "new"
_OLD = "old"
#: Bytes that a record may have: it holds the result of its task.
_LARGEST = 64 * 1024 * 1024
_HOUR = 3600


class _Commit(NamedTuple):
    """A product that is put in place.

    :param inode: device and inode of what was made.
    :param known: stamp of it; ``None`` for a directory: links in it mean something else once it is in place.
    :param beside: names of the files that come with it.
    :param leaving: names of files that belonged to the product of before, and go.
    :param former: the record of the product of before.
    """

    inode: tuple[int, int]
    known: Fingerprint | None
    beside: list[str]
    leaving: list[str]
    former: ProductRecord | None


class _StagingFolder(NamedTuple):
    """A folder that products of one attempt go to.

    :param new: the folder in which they are made.
    :param products: their names.
    :param written: names of the files that the module has written beside each.
    """

    new: str
    products: dict[Product, str]
    written: dict[Product, list[str]]


class StagedProducts:
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
        self._workdir = workdir
        self._products = products
        self._files = {product: absolute_path(product.path, workdir) for product in products}
        self._kind = f"{_STAGING}{_digest(self._files.values())}-" if products else ""
        self._folder = f"{self._kind}{attempt or os.urandom(6).hex()}" if products else ""
        self._is_for_others = attempt is not None
        self._locks: list[int] = []
        self._before: dict[Product, Fingerprint | None] = {}

    def begin(self) -> None:
        """Make the folders that the products go to, and note what is there now.

        :raises ProductError: when that cannot be done.
        :raises UntrustedPath: when another user could have written the folder ``.sewer`` beside a product.
        """
        self._check_own_folders()
        try:
            for product, file in self._files.items():
                with _naming_product(self._task, product, "cannot make the folder for it"):
                    os.makedirs(os.path.dirname(file), exist_ok=True)
                    if product.atomic:
                        self._sweep(os.path.join(os.path.dirname(file), OWN_FOLDER))
                    self._before[product] = fingerprint_of(file)
                    self._begin_one(product, file)
        except BaseException:
            self.discard()
            raise

    def snapshot(self) -> dict[str, Fingerprint | None]:
        """Return what was there before, by path, for another process that goes on with the attempt."""
        return {product.path: before for product, before in self._before.items()}

    def resume(self, noted: Mapping[str, Fingerprint | None]) -> None:
        """Go on with an attempt that another process has begun.

        :param noted: what :meth:`noted` returned there.
        """
        self._before = {product: noted.get(product.path) for product in self._products}

    def staging_path(self, product: Product) -> str:
        """Return the path that the module is given in place of a product's."""
        if not product.atomic:
            return path_for_module(product.path)
        folder, name = os.path.split(path_for_module(product.path).rstrip("/"))
        return os.path.join(folder, OWN_FOLDER, self._folder, _NEW, name)

    def commit(self, record: ProductRecord, compare_content: Iterable[str] = ()) -> None:
        """Put the products in place, and record what they were made from.

        :param record: what they were made from, without a stamp of the product.
        :param compare_content: products whose content is part of their stamp.
        :raises ProductError: when one was not made, or not made anew; then none is put in place.
        :raises FileSystemRefused: when the file system is full, or the like; another process can do it later.
        :raises UntrustedPath: as for :meth:`begin`.
        """
        self._check_own_folders()
        with self._locked_to_put():
            self._publish(record, {*compare_content})
        self._end()

    def _publish(self, record: ProductRecord, read: set[str]) -> None:
        for product, file in self._files.items():
            with _naming_product(self._task, product, "it was made, but cannot be looked at"):
                self._check(product, file)
        puts: dict[Product, _Commit] = {}
        for folder in self._folders():
            own = {name for each in folder.products for name in _all_beside(read_record(self._files[each]))}
            for product in folder.products:
                puts[product] = self._planned(product, folder, own, read=product.path in read)
        noted: dict[Product, str] = {}
        try:
            for product, file in self._files.items():
                with _naming_product(self._task, product, "it was made, but its record cannot be written"):
                    self._note_unfinished(file, puts[product])
                    noted[product] = file
            for product, file in self._files.items():
                with _naming_product(self._task, product, "it was made, but cannot be put in place"):
                    self._put_in_place(file, puts[product])
                    noted.pop(product)
                    remove_failed(file)
        except BaseException:
            for product, file in noted.items():  # nothing has changed in their places
                _restore_record(file, puts[product].former)
            raise
        for product, file in self._files.items():
            with _naming_product(self._task, product, "it is in place, but its record cannot be written"):
                write_record(file, self._completed(record, file, puts[product], read=product.path in read))

    def discard(self) -> None:
        """Put aside, or remove, what has been made of the products.

        Those that an ended process of this attempt has begun to put in place are all put in place: the work was done.

        :raises UntrustedPath: as for :meth:`begin`.
        """
        self._check_own_folders()
        with suppress(ProductError):
            self._finish()
        with suppress(OSError):  # the error that led here is the one to raise
            for folder in self._folders():
                for product in folder.products:
                    if product in self._before:  # it came as far as to begin it
                        with suppress(OSError):
                            self._put_aside(product, self._files[product], folder)
        self._end()

    def unstage_paths(self, value: Any) -> Any:
        """Return a result with the real names of products, where it has those that the module was given."""
        if isinstance(value, Mapping):
            return {key: self.unstage_paths(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.unstage_paths(item) for item in value]
        if isinstance(value, str) and self._folder:  # which has a name of its own, whatever way leads to it
            made = os.path.join(OWN_FOLDER, self._folder, _NEW)
            return value.replace(f"/{made}", "").replace(f"{made}/", "")
        return value

    @contextmanager
    def _locked_to_put(self) -> Iterator[None]:
        """Hold locks by which the next attempt sees whether the process that puts the products in place still lives.

        A process that does not succeed, but lives on, leaves no lock: its attempt is not abandoned.
        """
        held: dict[str, int] = {}
        try:
            for product, file in self._files.items() if self._is_for_others else ():
                folder = os.path.join(_own_folder(file), self._folder)
                if product.atomic and folder not in held:
                    with _naming_product(self._task, product, "it was made, but cannot be put in place"):
                        held[folder] = locked_producer(folder, _PUT_LOCK)
            yield
        finally:
            for folder, lock in held.items():
                with suppress(OSError):
                    os.unlink(os.path.join(folder, _PUT_LOCK))
                os.close(lock)

    def _check_own_folders(self) -> None:
        for product, file in self._files.items():
            check_own_folder(_own_folder(file), f"task {self._task!r}: product {product.path!r}")

    def _put_aside(self, product: Product, file: str, folder: _StagingFolder) -> None:
        is_made_beside = product.atomic or os.path.lexists(self._beside(file))
        if not is_made_beside and fingerprint_of(file) == self._before[product]:
            self._forget_unfinished(file)
            return
        made = self._beside(file) if is_made_beside else file
        if product.on_failure == "keep":
            keep_failed(file, [made, *(os.path.join(folder.new, name) for name in folder.written[product])])
        remove(made)
        if not product.atomic:
            remove(_record_path(file))

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
        folder = os.path.join(own, self._folder)
        if not os.path.isdir(folder) and not self._is_for_others:  # without a lock, nobody takes it for abandoned
            self._locks.append(locked_producer(folder))
        make_own_folders(own, os.path.join(folder, _NEW))
        if product.path.endswith("/"):
            os.makedirs(self._beside(file), exist_ok=True)

    def _beside(self, file: str, kind: str = _NEW) -> str:
        return os.path.join(os.path.dirname(file), OWN_FOLDER, self._folder, kind, os.path.basename(file))

    def _whereabouts(self, file: str) -> str:
        """Return where a product is that was made: beside its real name, or there already.

        One that is made under its real name can be written beside another one as well.
        """
        return self._beside(file) if os.path.lexists(self._beside(file)) else file

    def _content(self, file: str) -> str:
        """Return where the content of a product is that was made; a link is taken as it will be once it is in place."""
        made = self._whereabouts(file)
        if not os.path.islink(made):
            return made
        there, target = os.path.split(made)[0], os.readlink(made)
        is_beside = target.split("/")[0] in file_names_in(there, [".."])
        return os.path.join(there if is_beside else os.path.dirname(file), target)

    def _check(self, product: Product, file: str) -> None:
        now = fingerprint_of(file)
        is_made_for_it = product.path.endswith("/")
        if product.atomic or os.path.lexists(self._beside(file)):
            target = self._content(file)
            if os.path.islink(self._beside(file)) and (self._is_lost(self._beside(file)) or not os.path.exists(target)):
                raise ProductError(
                    f"it exited with 0, but made {product.path} a link that leads nowhere: {target} does not exist"
                )
            if exists(self._beside(file), or_empty=not is_made_for_it) or self._is_in_place(file):
                self._refuse_to_replace(product, file, target)
                return
            wrote_itself = now is not None and now != self._before[product]
            hint = (
                f"it wrote to {product.path} itself; have it write to the path it is given, or say "
                f"Product({product.path!r}, atomic=False)"
                if wrote_itself
                else f"it was to write it to the path it was given, {self.staging_path(product)}"
            )
            raise ProductError(f"it exited with 0, but did not make {product.path}: {hint}")
        if not exists(file, or_empty=not is_made_for_it):
            raise ProductError(f"it exited with 0, but did not make {product.path}, which was to be {file}")
        if now == self._before[product]:
            raise ProductError(f"it exited with 0, but did not make {product.path} anew: {file} is what it was before")

    def _is_in_place(self, file: str) -> bool:
        """Tell whether another process of this attempt has put it in place, and was ended before that was noted."""
        record = read_record(file)
        return record is not None and record.attempt == self._folder and os.path.lexists(file)

    def _is_lost(self, link: str) -> bool:
        """Tell whether a link leads to where nothing will be: into the folder of this attempt by its whole path."""
        return os.path.islink(link) and f"/{self._folder}/" in os.readlink(link)

    # -- Files beside products -----------------------------------------------------------------------------------------

    def _folders(self) -> list[_StagingFolder]:
        """Return the folders that the products go to, with the files that the module has written beside these."""
        names: dict[str, dict[Product, str]] = {}
        for product, file in self._files.items():
            names.setdefault(os.path.dirname(file), {})[product] = os.path.basename(file)
        folders = []
        for around, products in names.items():
            new = os.path.join(around, OWN_FOLDER, self._folder, _NEW)
            told = {product: name for product, name in products.items() if product.atomic}
            written: dict[Product, list[str]] = {product: [] for product in products}
            for name in file_names_in(new, products.values()) if told else ():
                written[owner_of(name, told)].append(name)
            folders.append(_StagingFolder(new, products, written))
        return folders

    def _planned(self, product: Product, folder: _StagingFolder, own: set[str], *, read: bool) -> _Commit:
        """Return the moves that put a product in place.

        :param folder: the folder that it goes to.
        :param own: names of files that belonged to products of before in this folder.
        :raises ProductError: when a file beside it would replace another's, or one that is to go was changed.
        """
        file = self._files[product]
        with _naming_product(self._task, product, "it was made, but cannot be read"):
            status = os.lstat(self._whereabouts(file))
            inode, content = (status.st_dev, status.st_ino), self._content(file)
            # Of what this attempt has made: another one may replace it as soon as it is in place.
            known = None if os.path.isdir(content) else fingerprint_of(content, read=read)
            record = read_record(file)
            if record is not None and self._has_begun_to_put(record):
                return _Commit(inode, known, [*record.beside], [*(record.leaving or ())], record)
            for name in folder.written[product]:
                self._check_beside(product, file, name, own, record.beside.get(name) if record is not None else None)
            leaving = self._leaving(product, file, folder, record) if product.atomic and record is not None else []
            return _Commit(inode, known, folder.written[product], leaving, record)

    def _has_begun_to_put(self, record: ProductRecord) -> bool:
        return record.attempt == self._folder and (record.leaving is not None or record.is_complete)

    def _check_beside(self, product: Product, file: str, name: str, own: set[str], known: Fingerprint | None) -> None:
        target, record = self._next_to(file, name)
        where = f"task {self._task!r}: it wrote {name} beside {product.path}"
        if self._is_lost(os.path.join(os.path.dirname(self._beside(file)), name)):
            raise ProductError(f"{where}, a link by its whole path to a file there; write a relative link")
        if not os.path.lexists(target):
            return
        if record is not None or name not in own:
            raise ProductError(
                f"{where}, but {target} exists and does not belong to that product; move it away, or give the product "
                "a folder of its own"
            )
        now = fingerprint_of(target) if known is not None and os.path.isdir(target) else None
        if now is not None and known is not None and now.seen != known.seen:
            raise ProductError(
                f"{where}, but the directory {target} was changed since an earlier run made it; move it away, or "
                "remove it"
            )

    def _leaving(self, product: Product, file: str, folder: _StagingFolder, record: ProductRecord) -> list[str]:
        """Return the names of the files that belonged to a product, and that this attempt has not written."""
        new = {*folder.products.values(), *(name for names in folder.written.values() for name in names)}
        leaving = [name for name in _all_beside(record) if name not in new]
        leaving = [name for name in leaving if self._next_to(file, name)[1] is None]  # else it is a product by now
        for name in leaving:
            target, known = self._next_to(file, name)[0], record.beside.get(name)
            if known is not None and (now := fingerprint_of(target)) is not None and now.seen != known.seen:
                raise ProductError(
                    f"task {self._task!r}: {target} was made with {product.path} by an earlier run and changed since, "
                    "and this run did not write it; move it away, or remove it"
                )
        return leaving

    @staticmethod
    def _next_to(file: str, name: str) -> tuple[str, ProductRecord | None]:
        target = os.path.join(os.path.dirname(file), name)
        return target, read_record(target)

    def _put_in_place(self, file: str, put: _Commit) -> None:
        new, old = os.path.dirname(self._beside(file)), os.path.dirname(self._beside(file, _OLD))
        if put.beside or put.leaving:
            replace_all(file, new, old, put.beside, put.leaving)
            for name in put.beside:
                remove(_record_path(self._next_to(file, name)[0]))
        elif self._whereabouts(file) != file:
            replace(self._beside(file), file, self._beside(file, _OLD))

    def _completed(self, record: ProductRecord, file: str, put: _Commit, *, read: bool) -> ProductRecord:
        """Return the record of a product that is in place.

        :param record: what all products of the task were made from.
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
        """Remove what attempts at these very products have left that are no more.

        Only at these: where locks are known on one machine only, attempts at others may well be under way on another
        one.
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
            with suppress(ProductError):  # what cannot be finished is removed, unless another process can do it later
                has_begun = StagedProducts(self._task, self._products, self._workdir, name[len(self._kind) :])._finish()
            if has_begun or not is_for_others:
                remove_locked(folder)
        finally:
            os.close(lock)

    def _finish(self) -> bool:
        """Finish the moves that an attempt which is no more has begun; its records stay those of an unfinished one.

        :returns: whether it had begun to: the records of all its products say so.
        """
        records = {product: read_record(file) for product, file in self._files.items()}
        if not all(record is not None and self._has_begun_to_put(record) for record in records.values()):
            return False
        for product, record in records.items():
            if record is not None and record.leaving is not None:
                with _naming_product(
                    self._task, product, "an earlier attempt has made it, but it cannot be put in place"
                ):
                    put = _Commit((0, 0), None, [*record.beside], [*record.leaving], None)
                    self._put_in_place(self._files[product], put)
        return True

    # -- Records -------------------------------------------------------------------------------------------------------

    def _note_unfinished(self, file: str, put: _Commit | None = None) -> None:
        """Note that what is at this path now is not to be relied on, should this process be ended.

        :param put: the moves that come next, if these are all that is to be done.
        """
        old = read_record(file)
        record = old or ProductRecord(self._task, "", None, {})
        is_first = old is None or old.is_complete or old.attempt != self._folder
        if not is_first and put is None:
            return
        was_whole = None if old is None else old.is_complete if is_first else old.was_complete
        record = record._replace(is_complete=False, attempt=self._folder, was_complete=was_whole)
        if put is not None:
            record = record._replace(beside=dict.fromkeys(put.beside), leaving=put.leaving)
        write_record(file, record)

    def _forget_unfinished(self, file: str) -> None:
        """Take back what this attempt has noted: nothing has changed what is at this path."""
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
    """Return products as they are now, with their records."""
    return [_existing_product(product, absolute_path(product.path, workdir)) for product in products]


def _existing_product(product: Product, file: str) -> ProductState:
    record = read_record(file)
    if record is not None and record.is_removed and not product.temporary:  # it was when it was removed
        record = record._replace(is_removed=False)
    return ProductState(product.path, file, record)


def remove_temporary(product: Product, workdir: str | None) -> bool:
    """Remove a product that is needed no longer, and record that it was there.

    :returns: whether it was: what has no record of being whole is none of ours.
    :raises ProductError: when that cannot be done.
    """
    file = absolute_path(product.path, workdir)
    record = read_record(file)
    if record is None or not record.is_complete:
        return False
    if record.is_removed and os.path.lexists(file) and not _is_as_made(file, record.product):
        return False  # it is another one; else a process was ended just before it was to remove it
    beside = ProductState(product.path, file, record).files_beside()
    own = [file, *(path for name, path in beside.items() if _is_as_made(path, record.beside[name]))]
    there = [path for path in own if os.path.lexists(path)]
    if not there:
        return False
    with _naming_product(record.task, product, "cannot remove it after use"):
        write_record(file, record._replace(is_removed=True))
        _remove_at_once(there)
    return True


def read_record(file: str) -> ProductRecord | None:
    """Return the record of a product; ``None`` if it cannot be read, or is not of its form.

    :raises UnreadableRecord: when another version has written it.
    :raises UntrustedPath: when another user could have written the folder that it is in.
    """
    check_own_folder(_own_folder(file))
    try:
        path = _record_path(file)
        said = PRODUCT.read(path, parse_json(read_own(path, largest=_LARGEST)))
        if not _is_record(said):
            return None
        said["dependencies"] = {path: Fingerprint(*each) for path, each in said["dependencies"].items()}
        said["product"] = Fingerprint(*said["product"]) if said["product"] else None
        said["beside"] = {_name(name): each and Fingerprint(*each) for name, each in said["beside"].items()}
        said["leaving"] = said["leaving"] and [_name(name) for name in said["leaving"]]
        return ProductRecord(*PRODUCT.values(said))
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
    """Return a name that a record has of a file beside its product.

    :raises ValueError: when it would lead elsewhere.
    """
    if os.path.basename(name) != name or name in ("", ".", "..", OWN_FOLDER):
        raise ValueError(name)
    return name


def _is_record(said: Mapping[str, Any]) -> bool:
    run = said["dag_run"]
    is_text = all(said[name] is None or isinstance(said[name], str) for name in ("code", "environment"))
    return is_text and (run is None or (isinstance(run, list) and [*map(type, run)] == [str, str]))


def write_record(file: str, record: ProductRecord) -> None:
    """Write the record of a product beside it, all at once."""
    path = _record_path(file)
    make_own_folders(os.path.dirname(file), os.path.dirname(path))
    said = record._replace(after=dict(record.after), beside=dict(record.beside))
    write_atomically(path, json.dumps(PRODUCT.packed(said)).encode(), mode=0o644)


def fingerprints_of(files: Mapping[str, str], *, read: bool) -> dict[str, Fingerprint]:
    """Return what dependencies are like now.

    :param files: absolute paths by path as the task writes it.
    :param read: read their content as well.
    """
    stamps = {path: fingerprint_of(file, files_beside(file), read=read) for path, file in files.items()}
    return {path: each for path, each in stamps.items() if each is not None}


def files_beside(file: str) -> list[str]:
    """Return the absolute paths of the files that belong to a dependency, if it is a product that has some.

    A dependency may lie in the folder of another user, whose record says nothing.
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


def _is_as_made(file: str, known: Fingerprint | None) -> bool:
    now = fingerprint_of(file)
    return now is not None and known is not None and now.seen == known.seen


def _remove_at_once(files: Sequence[str]) -> None:
    """Remove a product and the files beside it; the first goes first, and none is there by half."""
    own = _own_folder(files[0])
    folder = os.path.join(own, f"{_STAGING}{_digest(files[:1])}-{os.urandom(6).hex()}")
    lock = locked_producer(folder)
    try:
        for number, file in enumerate(files):
            os.rename(file, os.path.join(folder, f"{_OLD}-{number}"))
        remove_locked(folder)
    finally:
        os.close(lock)


def remove_locked(folder: str) -> None:
    """Remove a folder; its lock goes last, so that a later attempt removes what an ended process leaves of it."""
    with suppress(OSError):
        for name in os.listdir(folder):
            if name not in (_LOCK, _PUT_LOCK):
                shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
                with suppress(OSError):
                    os.unlink(os.path.join(folder, name))
    shutil.rmtree(folder, ignore_errors=True)


def locked_producer(folder: str, name: str = _LOCK) -> int:
    """Make a folder, and hold a lock in it for as long as this process lives, or until the descriptor is closed.

    :param name: the name of the lock.
    :returns: the descriptor.
    """
    path = os.path.join(folder, name)
    while True:
        make_own_folders(os.path.dirname(os.path.dirname(folder)), folder)
        with suppress(FileNotFoundError):
            lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            with suppress(OSError):  # where there are no locks, nobody removes the folder either
                fcntl.flock(lock, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), os.stat(path)):  # else it was removed before it was locked
                    return lock
            os.close(lock)


def _digest(files: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(sorted(files)).encode("utf-8", "surrogateescape")).hexdigest()[:8]


class _naming_product:  # noqa: N801 - reads as a function, and costs less
    """Say which product of which task the file system refuses."""

    def __init__(self, task: str, product: Product, what: str) -> None:
        self._said = f"task {task!r}: product {product.path!r}: {what}"

    def __enter__(self) -> None:
        """Nothing happens yet."""

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, OSError):
            where = error.filename2 or error.filename
            why = f"{where}: {error.strerror}" if where else error.strerror
            raise FileSystemRefused(f"{self._said}: {why}") from None
