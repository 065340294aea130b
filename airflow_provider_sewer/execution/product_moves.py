"""Moves of products to their real paths, together with the files that their modules write beside them.

A shapefile has several files, as have an ONNX model with external data and an alignment with its index. They are
committed, saved as ``….failed`` and removed together.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def replace(staged: str, file: str, old: str) -> None:
    """Move a product to its real path. A file replaces another file atomically.

    :param old: the path to which a directory, or a file that a directory replaces, is moved first.
    """
    if not os.path.lexists(file) or not (os.path.isdir(staged) or (os.path.isdir(file) and not os.path.islink(file))):
        os.replace(staged, file)
        return
    os.makedirs(os.path.dirname(old), exist_ok=True)
    os.rename(file, old)
    try:
        os.replace(staged, file)
    except OSError:
        os.rename(old, file)
        raise


def replace_all(file: str, new: str, old: str, beside: Iterable[str], leaving: Iterable[str]) -> None:
    """Move a product and the files beside it to their paths, also if an ended process has moved some already.

    The previous product is moved away first and the new one is moved in last, so that its name never refers to a
    mixture of both. An error undoes all moves.

    :param file: the path of the product.
    :param new: their staging directory.
    :param old: a directory for the files that they replace.
    :param beside: names of the files beside it.
    :param leaving: names of files of the previous product that are removed.
    """
    folder, name = os.path.split(file)
    os.makedirs(old, exist_ok=True)
    coming = [each for each in (*beside, name) if os.path.lexists(os.path.join(new, each))]
    going = [each for each in (name, *leaving, *beside) if each in coming or each in leaving]
    moves = [(os.path.join(folder, each), os.path.join(old, each)) for each in going]
    moves = [(source, target) for source, target in moves if os.path.lexists(source)]
    _move_all([*moves, *((os.path.join(new, each), os.path.join(folder, each)) for each in coming)])


def _move_all(moves: Iterable[tuple[str, str]]) -> None:
    done: list[tuple[str, str]] = []
    try:
        for source, target in moves:
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
            done.append((source, target))
            os.rename(source, target)
    except BaseException:  # also a timeout that Airflow raises here
        for source, target in reversed(done):
            with suppress(OSError):
                if not os.path.lexists(source):
                    os.rename(target, source)
        raise


def exists(path: str, *, or_empty: bool = False) -> bool:
    """Return whether a product exists; an empty directory that was created for the module does not count."""
    return os.path.lexists(path) and (or_empty or not os.path.isdir(path) or bool(os.listdir(path)))


def remove(path: str) -> None:
    """Remove a file, a link or a directory, if it exists."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)
