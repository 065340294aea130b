"""Products of failed tasks: kept aside, and removed by the next success."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.formats import FAILED_FILES
from airflow_provider_sewer.core.paths import FAILED, OWN_FOLDER, sibling_path
from airflow_provider_sewer.core.trusted_files import open_own_to_write, parse_json, read_own
from airflow_provider_sewer.execution.product_moves import exists, remove

if TYPE_CHECKING:
    from collections.abc import Sequence


def keep_failed(file: str, partial: Sequence[str]) -> None:
    """Save the files of a failed attempt as ``….failed``, replacing those of an earlier one.

    A file with such a name that is not listed in the marker belongs to the user, and stays.

    :param file: the path of the product.
    :param partial: paths of the files; their names are the real ones.
    """
    remove_failed(file)
    listing = sibling_path(file, FAILED, OWN_FOLDER)
    folder = os.path.dirname(file)
    saved = {
        each: sibling_path(os.path.join(folder, os.path.basename(each)), FAILED) for each in partial if exists(each)
    }
    saved = {each: failed for each, failed in saved.items() if not os.path.lexists(failed)}
    if saved:
        with open_own_to_write(listing, appends=False) as marker:  # first: only listed files are removed later
            os.fchmod(marker.fileno(), 0o644)  # independent of the umask: other users must not write it
            marker.write(json.dumps(FAILED_FILES.packed([[*map(os.path.basename, saved.values())]])).encode())
    for each, failed in saved.items():
        os.rename(each, failed)


def remove_failed(file: str) -> None:
    """Remove the files of a product that were saved after a failed attempt."""
    listing = sibling_path(file, FAILED, OWN_FOLDER)
    try:
        listed = FAILED_FILES.read(listing, parse_json(read_own(listing)))
        names = [name for name in listed["files"] if os.path.basename(name) == name and FAILED in name]
    except (OSError, ValueError, TypeError):
        names = []
    for name in names:
        remove(os.path.join(os.path.dirname(file), name))
    remove(listing)
