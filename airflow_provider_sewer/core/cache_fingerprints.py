"""Fingerprints of files and folders, by which a cache detects changes.

A fingerprint is recorded just before the file is read, so that a change during the read makes it differ.
"""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.fingerprints import fingerprint_of
from airflow_provider_sewer.core.paths import OWN_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Fingerprint of a missing or inaccessible file.
MISSING = "nothing"

#: Folders of installed packages: these change only by another installation, which shows in their time.
_INSTALLED = frozenset({"site-packages", "dist-packages"})

#: Entries that appear in a folder by themselves.
_PASSING = frozenset({"__pycache__", OWN_FOLDER})

#: Maximum size in bytes of a file that is fingerprinted by content.
_LARGEST = 16 * 1024 * 1024


def fingerprint(path: str) -> str:
    """Return a fingerprint of a file's content or a directory's listing.

    For installed files and large files, it consists of time and size.
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            return str(status.st_mtime_ns) if is_installed(path) else _names(path)
        if not stat.S_ISREG(status.st_mode):
            return "no file"
        by_content = status.st_size <= _LARGEST and not is_installed(path)
        seen = fingerprint_of(path, read=by_content)
    except (OSError, ValueError):
        return MISSING
    return MISSING if seen is None else seen.content or seen.seen


_recorder: ContextVar[dict[str, str] | None] = ContextVar("sewer_noted", default=None)


@contextmanager
def recording_access() -> Iterator[dict[str, str]]:
    """Collect the fingerprints that are recorded in the block, by path."""
    fingerprints: dict[str, str] = {}
    token = _recorder.set(fingerprints)
    try:
        yield fingerprints
    finally:
        _recorder.reset(token)


def record_access(path: str) -> None:
    """Record the fingerprint of a file for the surrounding :func:`recording_access`, if there is one."""
    fingerprints = _recorder.get()
    if fingerprints is not None and path not in fingerprints:
        fingerprints[path] = fingerprint(path)


def is_installed(path: str) -> bool:
    """Return whether a file or folder belongs to an installed package."""
    return not _INSTALLED.isdisjoint(path.split(os.sep))


def _names(folder: str) -> str:
    names = sorted(name for name in os.listdir(folder) if name not in _PASSING)
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()
