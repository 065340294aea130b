"""Files of a product: the product itself and the files that its module writes beside it.

A shapefile has several files, as have an ONNX model with external data and an alignment with its index. They are
committed, saved as ``….failed`` and removed together.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from itertools import takewhile
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.paths import OWN_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_sewer.core.paths import Product


def file_names_in(folder: str, besides: Iterable[str]) -> list[str]:
    """Return the names in a staging directory, sorted.

    :param folder: the directory; treated as empty if it does not exist.
    :param besides: names to leave out: those of the products.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        return sorted({*os.listdir(folder)} - {*besides, OWN_FOLDER})
    return []


def owner_of(name: str, products: Mapping[Product, str]) -> Product:
    """Return the product that a file belongs to: the one with the most similar name, else one that is not temporary.

    :param name: the name of the file.
    :param products: names of the products that are written in the same folder.
    """

    def likeness(product: Product) -> tuple[int, bool]:
        other = products[product]
        is_like = name.startswith(other.partition(".")[0] or other)
        same = takewhile(lambda pair: pair[0] == pair[1], zip(name, other, strict=False))
        return (len([*same]) if is_like else 0, not product.temporary)

    return max(products, key=likeness)


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
