"""Staging of products: a task writes them to other paths, from which they are committed when it has succeeded.

Beside a product lies the folder ``.sewer``. It holds the product's record and, while the task runs, the staging
directory ``making-…``, in which the product is written under its own name. A killed attempt leaves its staging
directory behind; the next attempt on the same paths removes it. Files that the module writes beside the staged product
belong to it (see :mod:`~airflow_provider_sewer.execution.product_commit`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import ProductError
from airflow_provider_sewer.core.fingerprints import Fingerprint, fingerprint_of
from airflow_provider_sewer.core.paths import OWN_FOLDER
from airflow_provider_sewer.core.trusted_files import check_own_folder, make_own_folders
from airflow_provider_sewer.execution.failed_products import keep_failed
from airflow_provider_sewer.execution.product_commit import ProductCommit
from airflow_provider_sewer.execution.product_moves import remove
from airflow_provider_sewer.execution.product_records import (
    mark_incomplete,
    own_folder,
    record_path,
    unmark_incomplete,
)
from airflow_provider_sewer.execution.staging_folders import (
    StagedProduct,
    StagingFolder,
    abandoned,
    commit_locks,
    create_locked_folder,
    naming_product,
    remove_locked,
    staging_folders,
    staging_prefix,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_sewer.core.paths import LocatedProduct
    from airflow_provider_sewer.core.staleness import ProductRecord

_HOUR = 3600


class StagedProducts:
    """Products of one attempt of a task.

    :param task: the task's name.
    :param products: the products that the task declares.
    :param attempt: a name by which another process can resume the attempt; without it, the attempt ends with this
        process.
    """

    def __init__(self, task: str, products: Sequence[LocatedProduct], attempt: str | None = None) -> None:
        self._task = task
        self._prefix = staging_prefix(each.file for each in products) if products else ""
        self._folder = f"{self._prefix}{attempt or os.urandom(6).hex()}" if products else ""
        self._staged = {product: StagedProduct.at(product, file, self._folder) for product, file in products}
        #: The paths that the module is given in place of the products' own.
        self.paths = {product: staged.given for product, staged in self._staged.items()}
        self._commit = ProductCommit(task, self._staged.values(), self._folder)
        self._is_for_others = attempt is not None
        self._locks: list[int] = []
        #: The fingerprints at the start of the attempt, by path; set by another process that resumes it.
        self.before: dict[str, Fingerprint | None] = {}

    def begin(self) -> None:
        """Create the staging directories and record the current fingerprint of each product.

        :raises ProductError: when a folder cannot be created, or a product would replace untracked files.
        :raises UntrustedPath: when another user could have written the folder ``.sewer`` beside a product.
        """
        self._check_own_folders()
        try:
            for product, staged in self._staged.items():
                with naming_product(self._task, product, "cannot create its folder"):
                    os.makedirs(os.path.dirname(staged.file), exist_ok=True)
                    if product.atomic:
                        self._sweep(own_folder(staged.file))
                    self.before[product.path] = fingerprint_of(staged.file)
                    self._begin_one(staged)
        except BaseException:
            self.discard()
            raise

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
        is_locked = self._is_for_others
        locked = [(each.folder, product) for product, each in self._staged.items() if is_locked and product.atomic]
        with commit_locks(self._task, locked):
            self._commit.run(record, self.before, {*compare_content})
        self._end()

    def discard(self) -> None:
        """Remove the staged products, or save them as failed ones.

        If an ended process of this attempt has begun to commit, the commit is finished: the work was done.

        :raises UntrustedPath: as for :meth:`begin`.
        """
        self._check_own_folders()
        with suppress(ProductError):
            self._commit.finish()
        with suppress(OSError):  # the error that led here is the one to raise
            for folder in staging_folders(self._staged.values()):
                for staged in folder.products:
                    if staged.product.path in self.before:  # the attempt had begun it
                        with suppress(OSError):
                            self._discard_one(staged, folder)
        self._end()

    def unstage_paths(self, value: Any) -> Any:
        """Return a result in which staging paths are replaced with the products' real paths."""
        if isinstance(value, Mapping):
            return {key: self.unstage_paths(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.unstage_paths(item) for item in value]
        if isinstance(value, str) and self._folder:  # the folder's name is unique, so any path to it is recognized
            staging = os.path.join(OWN_FOLDER, self._folder, "new")
            return value.replace(f"/{staging}", "").replace(f"{staging}/", "")
        return value

    def _check_own_folders(self) -> None:
        for product, staged in self._staged.items():
            check_own_folder(own_folder(staged.file), f"task {self._task!r}: product {product.path!r}")

    def _begin_one(self, staged: StagedProduct) -> None:
        is_directory = staged.product.path.endswith("/")
        self._commit.refuse_to_take(staged)
        if staged.product.atomic:
            self._commit.refuse_to_replace(staged)
            make_own_folders(os.path.dirname(staged.file), own_folder(staged.file))
            # Without a lock, no attempt takes the folder for abandoned.
            if not os.path.isdir(staged.folder) and not self._is_for_others:
                self._locks.append(create_locked_folder(staged.folder))
            make_own_folders(own_folder(staged.file), os.path.dirname(staged.new))
        else:
            mark_incomplete(staged.file, self._task, self._folder)
        if is_directory:
            os.makedirs(staged.new if staged.product.atomic else staged.file, exist_ok=True)

    def _discard_one(self, staged: StagedProduct, folder: StagingFolder) -> None:
        product, file = staged.product, staged.file
        is_staged = product.atomic or os.path.lexists(staged.new)
        if not is_staged and fingerprint_of(file) == self.before[product.path]:
            unmark_incomplete(file, self._folder)
            return
        partial = staged.new if is_staged else file
        if product.on_failure == "keep":
            keep_failed(file, [partial, *(os.path.join(folder.new, name) for name in folder.written[product])])
        remove(partial)
        if not product.atomic:
            remove(record_path(file))

    def _sweep(self, own: str) -> None:
        """Remove the staging directories of ended attempts at exactly these products.

        Others are left alone: where locks do not work across machines, another machine may be working on them.
        """
        records = {os.path.basename(record_path(staged.file)) for staged in self._staged.values()}
        with suppress(FileNotFoundError), os.scandir(own) as entries:
            for entry in list(entries):
                with suppress(OSError):
                    if entry.name.startswith(self._prefix):
                        self._remove_if_abandoned(own, entry.name)
                    elif entry.name[: -len(".01234567")] in records and entry.stat().st_mtime < time.time() - _HOUR:
                        os.unlink(entry.path)  # a record that was never finished

    def _remove_if_abandoned(self, own: str, name: str) -> None:
        with abandoned(os.path.join(own, name)) as is_for_others:
            has_begun = False
            with suppress(ProductError):  # then it is removed, unless another process can do it later
                staged = [StagedProduct.at(each.product, each.file, name) for each in self._staged.values()]
                has_begun = ProductCommit(self._task, staged, name).finish()
            if has_begun or not is_for_others:
                remove_locked(os.path.join(own, name))

    def _end(self) -> None:
        for folder in {staged.folder for staged in self._staged.values()}:
            remove_locked(folder)
        for lock in self._locks:
            os.close(lock)
        self._locks.clear()
