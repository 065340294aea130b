"""Disk cache of results from interpreters, valid while the fingerprints of all files involved are unchanged.

Short-lived processes parse the same DAG files and run the same tasks again and again. Entries are in the user's cache
folder, readable and writable only by this user. Nothing depends on them: a missing, broken or foreign entry is
computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.atomic_file import write_atomically
from airflow_provider_sewer.core.cache_fingerprints import fingerprint
from airflow_provider_sewer.core.errors import UntrustedPath
from airflow_provider_sewer.core.formats import CACHE
from airflow_provider_sewer.core.trusted_files import PRIVATE, check_own_folders, parse_json, read_own

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Seconds after which an entry is removed, used or not.
_MAX_AGE = 30 * 24 * 3600

#: Maximum bytes of an entry.
_MAX_BYTES = 64 * 1024 * 1024
_NOTHING: Mapping[str, str] = MappingProxyType({})


class DiskCache:
    """Cache entry of one result.

    :param kind: the kind of result, which names the subfolder.
    :param key: all inputs that are known beforehand.
    """

    def __init__(self, kind: str, key: Any) -> None:
        self._folder = _folder(kind)
        self._name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest() + ".json"

    def get(self) -> Any:
        """Return the cached value; ``None`` if there is no valid one."""
        try:
            check_own_folders(_caches(), self._folder)
            data = read_own(os.path.join(self._folder, self._name), largest=_MAX_BYTES)
            digest, _, content = data.partition(b"\n")
            if hashlib.sha256(content).hexdigest().encode() != digest:
                return None
            entry = CACHE.read(self._name, parse_json(content))
        except (OSError, ValueError, UntrustedPath):
            return None
        return (
            entry["value"] if all(fingerprint(path) == known for path, known in entry["fingerprints"].items()) else None
        )

    def put(self, value: Any, looks: Mapping[str, str] = _NOTHING) -> None:
        """Save a value; errors are ignored.

        :param looks: fingerprints of the files that were read, taken just before.
        """
        content = json.dumps(CACHE.packed([value, dict(looks)])).encode()
        with suppress(OSError, UntrustedPath):
            os.makedirs(self._folder, mode=PRIVATE, exist_ok=True)
            check_own_folders(_caches(), self._folder)
            self._remove_old()
            data = hashlib.sha256(content).hexdigest().encode() + b"\n" + content
            write_atomically(os.path.join(self._folder, self._name), data)

    def _remove_old(self) -> None:
        oldest = time.time() - _MAX_AGE
        for entry in os.scandir(self._folder):
            with suppress(FileNotFoundError):  # another process has removed it
                if entry.stat(follow_symlinks=False).st_mtime < oldest:
                    os.unlink(entry.path)


def _folder(kind: str) -> str:
    return os.path.join(_caches(), "airflow-provider-sewer", kind)


def _caches() -> str:
    caches = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(caches):  # the XDG specification ignores a relative path
        caches = os.path.join(os.path.expanduser("~"), ".cache")
    return caches
