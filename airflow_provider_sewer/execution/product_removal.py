"""Removal of a temporary product, with the files beside it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.fingerprints import Fingerprint, fingerprint_of
from airflow_provider_sewer.core.paths import absolute_path
from airflow_provider_sewer.core.staleness import ProductState
from airflow_provider_sewer.execution.product_records import read_record, write_record
from airflow_provider_sewer.execution.staging_folders import naming_product, remove_atomically

if TYPE_CHECKING:
    from airflow_provider_sewer.core.paths import Product


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
    with naming_product(record.task, product, "cannot remove it after use"):
        write_record(file, record._replace(is_removed=True))
        remove_atomically(there)
    return True


def _is_unchanged(file: str, known: Fingerprint | None) -> bool:
    now = fingerprint_of(file)
    return now is not None and known is not None and now.seen == known.seen
