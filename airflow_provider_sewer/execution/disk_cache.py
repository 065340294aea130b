"""What was found out by starting an interpreter, kept for as long as all that was looked at looks the same.

DAG files are parsed and tasks are run again and again, by processes that live for a moment. What is kept lies in the
user's cache folder, for nobody else to see or to write; nothing depends on it: what is missing, broken or not ours is
found out anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from airflow_provider_sewer.core.atomic_file import write_atomically
from airflow_provider_sewer.core.errors import UntrustedPath
from airflow_provider_sewer.core.file_fingerprints import fingerprint
from airflow_provider_sewer.core.formats import CACHE
from airflow_provider_sewer.core.trusted_files import PRIVATE, check_own_folders, parse_json, read_own

#: Seconds after which something that was kept is removed, used or not.
_MAX_AGE = 30 * 24 * 3600

#: Bytes that something which is kept may have.
_MAX_ENTRIES = 64 * 1024 * 1024
_NOTHING: Mapping[str, str] = MappingProxyType({})


class DiskCache:
    """The place for one thing that was found out.

    :param kind: a word for what it is about.
    :param key: all that is known beforehand to make a difference.
    """

    def __init__(self, kind: str, key: Any) -> None:
        self._folder = _folder(kind)
        self._name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest() + ".json"

    def get(self) -> Any:
        """Return what is kept, or ``None`` if there is nothing that still holds."""
        try:
            check_own_folders(_caches(), self._folder)
            data = read_own(os.path.join(self._folder, self._name), largest=_MAX_ENTRIES)
            digest, _, content = data.partition(b"\n")
            if hashlib.sha256(content).hexdigest().encode() != digest:
                return None
            kept = CACHE.read(self._name, parse_json(content))
        except (OSError, ValueError, UntrustedPath):
            return None
        return kept["value"] if all(fingerprint(path) == known for path, known in kept["looks"].items()) else None

    def put(self, value: Any, looks: Mapping[str, str] = _NOTHING) -> None:
        """Keep something, if there is a place for it.

        :param looks: what was looked at, and what it looked like just before.
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
            with suppress(FileNotFoundError):  # another process may be faster
                if entry.stat(follow_symlinks=False).st_mtime < oldest:
                    os.unlink(entry.path)


def _folder(kind: str) -> str:
    return os.path.join(_caches(), "airflow-provider-sewer", kind)


def _caches() -> str:
    caches = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(caches):  # by the specification, it then counts for nothing
        caches = os.path.join(os.path.expanduser("~"), ".cache")
    return caches
