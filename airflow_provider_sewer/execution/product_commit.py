"""Commit of the products of one attempt: all of them with the files beside them, or none.

1. The record of each product lists the files to add and the files to remove.
2. The previous product is moved away, the files beside it change, and the new product is moved in last.
3. The record is marked complete.

A kill in between leaves an incomplete record. The next attempt on the same paths, or the next process of the same
attempt, finishes the moves. No file moves before the records of all products of the task list their moves.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.errors import ProductError
from airflow_provider_sewer.core.fingerprints import Fingerprint, fingerprint_of
from airflow_provider_sewer.execution.failed_products import remove_failed
from airflow_provider_sewer.execution.product_moves import exists, remove, replace, replace_all
from airflow_provider_sewer.execution.product_records import (
    mark_incomplete,
    products_in,
    read_record,
    record_path,
    restore_record,
    write_record,
)
from airflow_provider_sewer.execution.staging_folders import (
    StagedProduct,
    StagingFolder,
    file_names_in,
    naming_product,
    staging_folders,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from airflow_provider_sewer.core.paths import Product
    from airflow_provider_sewer.core.staleness import ProductRecord

_OLD = "old"


class _Moves(NamedTuple):
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


class ProductCommit:
    """Commit of the products of one attempt.

    :param task: the task's name.
    :param staged: the products.
    :param attempt: the name of the attempt's staging directories.
    """

    def __init__(self, task: str, staged: Collection[StagedProduct], attempt: str) -> None:
        self._task = task
        self._staged = staged
        self._attempt = attempt

    def run(
        self, record: ProductRecord, before: Mapping[str, Fingerprint | None], compare_content: Collection[str]
    ) -> None:
        """Move the products to their final paths and write their records.

        :param record: the inputs they were produced from, without a fingerprint of the product.
        :param before: the fingerprints of the products at the start of the attempt, by path.
        :param compare_content: products whose content is part of their fingerprint.
        :raises ProductError: when a product was not written; then none is committed.
        :raises FileSystemRefused: when the file system rejects an operation.
        """
        for each in self._staged:
            with naming_product(self._task, each.product, "it was produced, but cannot be checked"):
                self._check(each, before.get(each.product.path))
        moves: dict[Product, _Moves] = {}
        for folder in staging_folders(self._staged):
            own = {name for each in folder.products for name in _all_beside(read_record(each.file))}
            for each in folder.products:
                moves[each.product] = self._moves(each, folder, own, read=each.product.path in compare_content)
        recorded: dict[Product, str] = {}
        try:
            for each in self._staged:
                with naming_product(self._task, each.product, "it was produced, but its record cannot be written"):
                    own_moves = moves[each.product]
                    mark_incomplete(each.file, self._task, self._attempt, (own_moves.beside, own_moves.leaving))
                    recorded[each.product] = each.file
            for each in self._staged:
                with naming_product(self._task, each.product, "it was produced, but cannot be moved to its path"):
                    _move_into_place(each, moves[each.product].beside, moves[each.product].leaving)
                    recorded.pop(each.product)
                    remove_failed(each.file)
        except BaseException:
            for product, file in recorded.items():  # nothing has changed at their paths
                restore_record(file, moves[product].former)
            raise
        for each in self._staged:
            with naming_product(self._task, each.product, "it is in place, but its record cannot be written"):
                read = each.product.path in compare_content
                write_record(each.file, self._completed(record, each, moves[each.product], read=read))

    def finish(self) -> bool:
        """Finish the commit of an ended attempt; its records stay incomplete.

        :returns: whether the records of all its products show that the commit had begun.
        """
        records = [(each, read_record(each.file)) for each in self._staged]
        if not all(record is not None and self._has_begun(record) for _, record in records):
            return False
        for each, record in records:
            if record is not None and record.leaving is not None:
                with naming_product(
                    self._task, each.product, "it was produced by an earlier attempt, but cannot be moved to its path"
                ):
                    _move_into_place(each, [*record.beside], [*record.leaving])
        return True

    def refuse_to_take(self, staged: StagedProduct) -> None:
        """Raise if the path of a product holds a file that belongs to a product of another task.

        :raises ProductError: naming both tasks.
        """
        file, path = staged.file, staged.product.path
        if not os.path.lexists(file) or read_record(file) is not None:  # a product belongs to no other product
            return
        folder, name = os.path.split(file)
        own = {record_path(each.file) for each in self._staged}
        for other, record in products_in(folder):
            if name in record.beside and not record.is_removed and record_path(other) not in own:
                raise ProductError(
                    f"task {self._task!r}: product {path!r}: {file} was written by task {record.task!r} beside its "
                    f"product {other}; remove it once that task no longer writes it, or give one of the products its "
                    "own folder"
                )

    def refuse_to_replace(self, staged: StagedProduct, replacement: str | None = None) -> None:
        """Raise if a product would replace untracked files that cannot be recovered.

        :param replacement: the path of the replacement, if it exists already.
        :raises ProductError: naming the files.
        """
        file, path = staged.file, staged.product.path
        if read_record(file) is not None or os.path.islink(file) or not os.path.exists(file):
            return
        becomes_directory = path.endswith("/") if replacement is None else os.path.isdir(replacement)
        if os.path.isdir(file) and os.listdir(file):
            kind = "a non-empty directory"
        elif os.path.isfile(file) and becomes_directory:
            kind = "a file"
        else:
            return
        raise ProductError(
            f"task {self._task!r}: product {path!r}: {file} is {kind} that was not created by a task; move it "
            "away, or give the product another path"
        )

    def _has_begun(self, record: ProductRecord) -> bool:
        return record.attempt == self._attempt and (record.leaving is not None or record.is_complete)

    # -- Checks --------------------------------------------------------------------------------------------------------

    def _check(self, staged: StagedProduct, before: Fingerprint | None) -> None:
        product, file = staged.product, staged.file
        self.refuse_to_take(staged)
        now = fingerprint_of(file)
        is_directory = product.path.endswith("/")
        if product.atomic or os.path.lexists(staged.new):
            target = _content(staged)
            if os.path.islink(staged.new) and (self._dangles(staged.new) or not os.path.exists(target)):
                raise ProductError(f"exit code 0, but product {product.path} is a broken link: {target} does not exist")
            if exists(staged.new, or_empty=not is_directory) or self._is_in_place(file):
                self.refuse_to_replace(staged, target)
                return
            wrote_itself = now is not None and now != before
            hint = (
                f"the task wrote to {product.path} itself; write to the path that the task is given, or declare "
                f"Product({product.path!r}, atomic=False)"
                if wrote_itself
                else f"expected at the path that the task was given, {staged.given}"
            )
            raise ProductError(f"exit code 0, but product {product.path} was not created: {hint}")
        if not exists(file, or_empty=not is_directory):
            raise ProductError(f"exit code 0, but product {product.path} was not created: expected at {file}")
        if now == before:
            raise ProductError(f"exit code 0, but product {product.path} was not written: {file} is unchanged")

    def _is_in_place(self, file: str) -> bool:
        """Return whether another process of this attempt has moved it to its path, but was killed before recording."""
        record = read_record(file)
        return record is not None and record.attempt == self._attempt and os.path.lexists(file)

    def _dangles(self, link: str) -> bool:
        """Return whether a link's absolute target lies in this attempt's staging directory, which will be removed."""
        return os.path.islink(link) and f"/{self._attempt}/" in os.readlink(link)

    # -- Moves ---------------------------------------------------------------------------------------------------------

    def _moves(self, staged: StagedProduct, folder: StagingFolder, own: set[str], *, read: bool) -> _Moves:
        """Return the moves that commit a product.

        :param folder: its staging directory.
        :param own: names of files in this folder that belonged to the previous products.
        :raises ProductError: when a file beside it would replace a foreign file, or a file to remove was changed.
        """
        product, file = staged.product, staged.file
        with naming_product(self._task, product, "it was produced, but cannot be read"):
            status = os.lstat(staged.current)
            inode, content = (status.st_dev, status.st_ino), _content(staged)
            # Of the staged content: another attempt may replace the product as soon as it is committed.
            known = None if os.path.isdir(content) else fingerprint_of(content, read=read)
            record = read_record(file)
            if record is not None and self._has_begun(record):
                return _Moves(inode, known, [*record.beside], [*(record.leaving or ())], record)
            for name in folder.written[product]:
                self._check_beside(staged, name, own, record.beside.get(name) if record is not None else None)
            leaving = self._leaving(staged, folder, record) if product.atomic and record is not None else []
            return _Moves(inode, known, folder.written[product], leaving, record)

    def _check_beside(self, staged: StagedProduct, name: str, own: set[str], known: Fingerprint | None) -> None:
        target = staged.beside(name)
        where = f"task {self._task!r}: {name} was written beside product {staged.product.path}"
        if self._dangles(os.path.join(os.path.dirname(staged.new), name)):
            raise ProductError(f"{where} as a link with an absolute target in that folder; use a relative link")
        if not os.path.lexists(target):
            return
        if read_record(target) is not None or name not in own:
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

    def _leaving(self, staged: StagedProduct, folder: StagingFolder, record: ProductRecord) -> list[str]:
        """Return the names of the files that belonged to the previous product and were not written by this attempt."""
        new = {os.path.basename(each.file) for each in folder.products}
        new.update(name for names in folder.written.values() for name in names)
        # A file with a record of its own is a product now.
        leaving = [name for name in _all_beside(record) if name not in new and read_record(staged.beside(name)) is None]
        for name in leaving:
            target, known = staged.beside(name), record.beside.get(name)
            if known is not None and (now := fingerprint_of(target)) is not None and now.seen != known.seen:
                raise ProductError(
                    f"task {self._task!r}: {target} was created with {staged.product.path} by an earlier run and "
                    "changed since, and this run did not write it; move it away, or remove it"
                )
        return leaving

    def _completed(self, record: ProductRecord, staged: StagedProduct, moves: _Moves, *, read: bool) -> ProductRecord:
        """Return the record of a committed product.

        :param record: the inputs of all products of the task.
        """
        known, status = moves.known, os.lstat(staged.file)
        if (status.st_dev, status.st_ino) == moves.inode:
            now = fingerprint_of(staged.file, read=read and known is None)
            if known is not None and now is not None and now.seen == known.seen:
                known = known._replace(identity=now.identity)  # with the ctime that it has since the move
            known = known or now
        beside = {name: fingerprint_of(staged.beside(name), read=read) for name in moves.beside}
        return record._replace(product=known, attempt=self._attempt, beside=beside)


def _content(staged: StagedProduct) -> str:
    """Return the path of a produced product's content; a link is resolved as if it were committed already."""
    produced = staged.current
    if not os.path.islink(produced):
        return produced
    folder, target = os.path.dirname(produced), os.readlink(produced)
    is_beside = target.split("/")[0] in file_names_in(folder, [".."])
    return os.path.join(folder if is_beside else os.path.dirname(staged.file), target)


def _move_into_place(staged: StagedProduct, beside: Sequence[str], leaving: Sequence[str]) -> None:
    old = os.path.join(staged.folder, _OLD)
    if beside or leaving:
        replace_all(staged.file, os.path.dirname(staged.new), old, beside, leaving)
        for name in beside:
            remove(record_path(staged.beside(name)))
    elif os.path.lexists(staged.new):
        replace(staged.new, staged.file, os.path.join(old, os.path.basename(staged.file)))


def _all_beside(record: ProductRecord | None) -> set[str]:
    return set() if record is None else {*record.beside, *(record.leaving or ())}
