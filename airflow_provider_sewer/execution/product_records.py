"""Records of products, each in the folder ``.sewer`` beside its product."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.atomic_file import write_atomically
from airflow_provider_sewer.core.errors import UnreadableRecord, UntrustedPath
from airflow_provider_sewer.core.fingerprints import Fingerprint, fingerprint_of
from airflow_provider_sewer.core.formats import PRODUCT
from airflow_provider_sewer.core.paths import OWN_FOLDER, sibling_path
from airflow_provider_sewer.core.staleness import ProductRecord, ProductState
from airflow_provider_sewer.core.trusted_files import check_own_folder, make_own_folders, parse_json, read_own

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow_provider_sewer.core.paths import LocatedProduct

#: Maximum bytes of a record; it holds the result of its task.
_LARGEST = 64 * 1024 * 1024
#: Ending of the name of a record.
_RECORD = ".json"


def own_folder(file: str) -> str:
    """Return the folder for the record and the staging directories of a product."""
    return os.path.join(os.path.dirname(file), OWN_FOLDER)


def record_path(file: str) -> str:
    """Return the path of the record of a product."""
    return sibling_path(file, _RECORD, OWN_FOLDER)


def read_record(file: str) -> ProductRecord | None:
    """Return the record of a product; ``None`` if it is missing, unreadable or malformed.

    :raises UnreadableRecord: when another version has written it.
    :raises UntrustedPath: when another user could have written its folder.
    """
    check_own_folder(own_folder(file))
    try:
        path = record_path(file)
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


def products_in(folder: str) -> Iterator[tuple[str, ProductRecord]]:
    """Yield the products of a folder that have a record, with these; the name of a product may be shortened.

    :raises UnreadableRecord: when another version has written a record.
    """
    with suppress(FileNotFoundError):
        for name in sorted(os.listdir(os.path.join(folder, OWN_FOLDER))):
            file = os.path.join(folder, name.removesuffix(_RECORD))
            if name.endswith(_RECORD) and (record := read_record(file)) is not None:
                yield file, record


def write_record(file: str, record: ProductRecord) -> None:
    """Write the record of a product beside it, atomically; only its owner can read the result in it."""
    path = record_path(file)
    make_own_folders(os.path.dirname(file), os.path.dirname(path))
    values = record._replace(upstream=dict(record.upstream), beside=dict(record.beside))
    write_atomically(path, json.dumps(PRODUCT.packed(values)).encode())


def restore_record(file: str, former: ProductRecord | None) -> None:
    """Write the former record of a product again, if possible; remove the present one if there was none."""
    with suppress(OSError):
        if former is None:
            os.unlink(record_path(file))
        else:
            write_record(file, former)


def mark_incomplete(
    file: str, task: str, attempt: str, moves: tuple[Sequence[str], Sequence[str]] | None = None
) -> None:
    """Mark the record of a product incomplete, in case this process is killed.

    :param task: the name of its task.
    :param attempt: the name of the attempt's staging directory.
    :param moves: the files beside the product to add and to remove, once nothing else is left to do.
    """
    old = read_record(file)
    record = old or ProductRecord(task, "", None, {})
    is_first = old is None or old.is_complete or old.attempt != attempt
    if not is_first and moves is None:
        return
    was_complete = None if old is None else old.is_complete if is_first else old.was_complete
    record = record._replace(is_complete=False, attempt=attempt, was_complete=was_complete)
    if moves is not None:
        record = record._replace(beside=dict.fromkeys(moves[0]), leaving=list(moves[1]))
    write_record(file, record)


def unmark_incomplete(file: str, attempt: str) -> None:
    """Restore the record of a product to its state before an attempt: the product at this path is unchanged."""
    record = read_record(file)
    if record is None or record.is_complete or record.attempt != attempt:
        return
    if record.was_complete is None:
        with suppress(FileNotFoundError):
            os.unlink(record_path(file))
    elif record.was_complete:
        write_record(file, record._replace(is_complete=True))


def existing_products(products: Iterable[LocatedProduct]) -> list[ProductState]:
    """Return the current state of products, with their records."""
    states = []
    for product, file in products:
        record = read_record(file)
        if record is not None and record.is_removed and not product.temporary:  # it was temporary when it was removed
            record = record._replace(is_removed=False)
        states.append(ProductState(product.path, file, record))
    return states


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
