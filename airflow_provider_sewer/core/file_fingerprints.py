"""What files and folders look like, so that it shows later whether something that was made of them still holds.

Who makes something of files notes each just before it is read; so whatever is changed meanwhile does not look as noted.
"""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.paths import OWN_FOLDER
from airflow_provider_sewer.core.staleness import fingerprint_of

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What is not there, or cannot be looked at.
MISSING = "nothing"

#: Whatever lies in one of these is installed: it is changed by installing something else, which its time shows.
_INSTALLED = frozenset({"site-packages", "dist-packages"})

#: What comes and goes in a folder by itself.
_PASSING = frozenset({"__pycache__", OWN_FOLDER})

#: Bytes up to which a file is looked at as a whole.
_LARGEST = 16 * 1024 * 1024


def fingerprint(path: str) -> str:
    """Return what a file looks like: its content; or a folder: the names in it.

    Of what is installed, and of a large file, time and size are enough.
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
    """Collect what is noted in the block: what each file looks like, by its path."""
    looks: dict[str, str] = {}
    token = _recorder.set(looks)
    try:
        yield looks
    finally:
        _recorder.reset(token)


def record_access(path: str) -> None:
    """Note what a file looks like, for whoever wants to know (see :func:`noting`)."""
    looks = _recorder.get()
    if looks is not None and path not in looks:
        looks[path] = fingerprint(path)


def is_installed(path: str) -> bool:
    """Tell whether a file or folder belongs to what is installed in an environment."""
    return not _INSTALLED.isdisjoint(path.split(os.sep))


def _names(folder: str) -> str:
    names = sorted(name for name in os.listdir(folder) if name not in _PASSING)
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()
