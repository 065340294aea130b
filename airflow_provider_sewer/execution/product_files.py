"""The files of a product: the product itself and the files that its module writes beside it.

A shapefile has several files, and so have an ONNX model with external data and an alignment with its index. They appear
together, are kept together as ``….failed`` and are removed together.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from contextlib import suppress
from itertools import takewhile
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.formats import FAILED_FILES
from airflow_provider_sewer.core.paths import FAILED, OWN_FOLDER, sibling_path
from airflow_provider_sewer.core.trusted_files import open_own_to_write, parse_json, read_own

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_sewer.core.paths import Product


def file_names_in(folder: str, besides: Iterable[str]) -> list[str]:
    """Return the names in a folder in which products are made, in order.

    :param folder: the folder; one that does not exist is empty.
    :param besides: names to leave out: those of the products.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        return sorted({*os.listdir(folder)} - {*besides, OWN_FOLDER})
    return []


def owner_of(name: str, products: Mapping[Product, str]) -> Product:
    """Return the product that a file belongs to: the one whose name is most like its own, else one that is kept.

    :param name: the name of the file.
    :param products: names of the products that are made in the same folder.
    """

    def likeness(product: Product) -> tuple[int, bool]:
        other = products[product]
        is_like = name.startswith(other.partition(".")[0] or other)
        same = takewhile(lambda pair: pair[0] == pair[1], zip(name, other, strict=False))
        return (len([*same]) if is_like else 0, not product.temporary)

    return max(products, key=likeness)


def replace(made: str, file: str, old: str) -> None:
    """Give a product its real name. A file takes the place of another file in one step.

    :param old: where a directory, or a file that a directory replaces, is kept until then.
    """
    if not os.path.lexists(file) or not (os.path.isdir(made) or (os.path.isdir(file) and not os.path.islink(file))):
        os.replace(made, file)
        return
    os.makedirs(os.path.dirname(old), exist_ok=True)
    os.rename(file, old)
    try:
        os.replace(made, file)
    except OSError:
        os.rename(old, file)
        raise


def replace_all(file: str, new: str, old: str, beside: Iterable[str], leaving: Iterable[str]) -> None:
    """Put a product and the files beside it in place, also where an ended process has begun to.

    The product of before goes first and the new one comes last, so its name never stands for a mixture of both. An
    error undoes all of it.

    :param file: the path of the product.
    :param new: the folder in which they were made.
    :param old: a folder for the files that they replace.
    :param beside: names of the files beside it.
    :param leaving: names of files that belonged to the product of before and are to go.
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
    """Tell whether anything was made; a directory that was made for the module and is still empty is nothing."""
    return os.path.lexists(path) and (or_empty or not os.path.isdir(path) or bool(os.listdir(path)))


def remove(path: str) -> None:
    """Remove a file, a link or a directory, if it is there."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)


def keep_failed(file: str, made: Sequence[str]) -> None:
    """Keep the files that a failed attempt has made of a product as ``….failed``, in place of those of an earlier one.

    A file of such a name that is not noted in the mark is the user's, and stays.

    :param file: the path of the product.
    :param made: paths of the files; their names are the real ones.
    """
    remove_failed(file)
    folder = os.path.dirname(file)
    kept = {each: sibling_path(os.path.join(folder, os.path.basename(each)), FAILED) for each in made if exists(each)}
    kept = {each: failed for each, failed in kept.items() if not os.path.lexists(failed)}
    if kept:
        with open_own_to_write(_failed_mark(file), appends=False) as mark:  # first: what is not in it is never removed
            os.fchmod(mark.fileno(), 0o644)  # whatever the umask: others must not write it
            mark.write(json.dumps(FAILED_FILES.packed([[*map(os.path.basename, kept.values())]])).encode())
    for each, failed in kept.items():
        os.rename(each, failed)


def remove_failed(file: str) -> None:
    """Remove the files that a failed attempt has left of a product."""
    try:
        marked = FAILED_FILES.read(_failed_mark(file), parse_json(read_own(_failed_mark(file))))
        names = [name for name in marked["files"] if os.path.basename(name) == name and FAILED in name]
    except (OSError, ValueError, TypeError):
        names = []
    for name in names:
        remove(os.path.join(os.path.dirname(file), name))
    remove(_failed_mark(file))


def _failed_mark(file: str) -> str:
    return sibling_path(file, FAILED, OWN_FOLDER)
