"""Markers of paths: products, dependencies and external inputs.

A relative path is resolved against the working directory of its task, as by the module itself. Markers are path-like
wherever a path is accepted, so that the same dictionary makes the same command line.
"""

from __future__ import annotations

import copy
import hashlib
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.size_limits import MAX_SECONDS, invalid_reason
from airflow_provider_sewer.core.templates import is_template

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

#: Folder beside products for their records and staging.
OWN_FOLDER = ".sewer"

#: Suffix of a product of a failed task.
FAILED = ".failed"

#: Limits in bytes: a file name in Linux, a path, and a name derived from another one.
LONGEST_NAME = 255
_LONGEST_PATH = 4095
_LONGEST_OWN_NAME = LONGEST_NAME - len(".01234567")  # the suffix of an unfinished record

#: What to do with the products of a failed task.
ON_FAILURE = ("keep", "remove")

_TEMPLATE = re.compile(r"\{\{\s*(.*?)\s*\}\}")


class PathMarker:
    """Path and its role in a task.

    :param path: the path; a trailing slash marks a directory. In an annotation, it is omitted.
    :raises InvalidTask: when it is not a valid path.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = "" if path is None else checked_text(type(self).__name__, path)

    def at(self, path: str | os.PathLike[str]) -> Self:
        """Return the same marker with another path."""
        other = copy.copy(self)
        other.path = checked_text(type(self).__name__, path)
        return other

    def __fspath__(self) -> str:
        """Return the path, which makes the marker path-like."""
        return self.path

    def __eq__(self, other: object) -> bool:
        """Return whether another marker has the same type and fields."""
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        """Return the hash of type and fields."""
        return hash((type(self), *vars(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({repr(self.path) if self.path else ''})"


class Product(PathMarker):
    """File or directory that a task creates.

    :param path: the path; a trailing slash marks a directory, which is created for the module.
    :param atomic: whether the module writes to a staging path, so that the product is complete when it appears.
    :param temporary: whether to remove it when all tasks that depend on it have succeeded.
    :param on_failure: ``keep`` it as ``….failed`` when its task fails, or ``remove`` it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        atomic: bool = True,
        temporary: bool = False,
        on_failure: str = "keep",
    ) -> None:
        super().__init__(path)
        self.atomic = atomic
        self.temporary = temporary
        self.on_failure = on_failure
        if on_failure not in ON_FAILURE:
            raise InvalidTask(
                f"{self!r}: on_failure must be {' or '.join(map(repr, ON_FAILURE))}, got {on_failure!r:.200}",
                at=("on_failure",),
            )
        for field, value in (("atomic", atomic), ("temporary", temporary)):
            if not isinstance(value, bool):
                raise InvalidTask(f"{self!r}: {field} must be a bool, got {value!r:.200}", at=(field,))

    def under_real_name(self) -> Product:
        """Return this product, written directly to its path."""
        return Product(self.path, atomic=False, temporary=self.temporary, on_failure=self.on_failure)


class Dependency(PathMarker):
    """File or directory that a task reads: the product of another task, or an existing file."""


class External(Dependency):
    """File or directory from outside of the workflow.

    Airflow waits for it; a plain run requires it.

    :param path: the path.
    :param timeout: seconds that Airflow waits for it; by default Airflow's ``sensors.default_timeout``, a week.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, timeout: float | None = None) -> None:
        super().__init__(path)
        self.timeout = timeout
        is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
        if timeout is not None and not (is_number and 0 < timeout <= MAX_SECONDS):
            message = f"{self!r}: timeout must be seconds more than 0, got {timeout!r:.200}; at most {MAX_SECONDS:,} s"
            raise InvalidTask(message, at=("timeout",))


def checked_text(label: str, path: Any, *, may_be_template: bool = True) -> str:
    """Return a path as text.

    :param label: use of the path, for the message.
    :param may_be_template: whether its templates may be unrendered, so that its parts are not known.
    :raises InvalidTask: when it is not a path, or does not name a file.
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text.strip():
        raise InvalidTask(f"{label} must be a path, got {path!r:.200}", at=("path",))
    if reason := invalid_reason(text):
        raise InvalidTask(f"{label}: the path {reason}", at=("path",))
    if may_be_template and is_template(text):
        return text
    if text.strip("/") == "" or text.rstrip("/").rpartition("/")[2] in (".", "..", "~"):
        raise InvalidTask(f"{label} must name a file or directory, got {text!r}", at=("path",))
    if OWN_FOLDER in text.split("/"):
        raise InvalidTask(f"{label} must not be in {OWN_FOLDER}, which is reserved, got {text!r}", at=("path",))
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in text.split("/")):
        message = f"{label} must have at most {LONGEST_NAME} bytes in each name, got {text!r}"
        raise InvalidTask(message, at=("path",))
    if len(os.fsencode(text)) > _LONGEST_PATH:
        raise InvalidTask(f"{label} must have at most {_LONGEST_PATH:,} bytes, got {text!r}", at=("path",))
    return text


def path_key(path: str, workdir: str | None) -> str:
    """Return the key of a path in a workflow: equal for two spellings of one path.

    Symbolic links are not resolved: a link and its target are two paths. In templates, only blanks just inside of the
    braces are ignored.

    :param workdir: base of a relative path; ``None`` if not known yet: the path stays relative.
    """
    return _TEMPLATE.sub(r"{{ \1 }}", _joined(path, workdir))


def _joined(path: str, workdir: str | None) -> str:
    key = os.path.normpath(os.path.join(os.path.expanduser(workdir or ""), os.path.expanduser(path)))
    return key[1:] if key.startswith("//") else key


def path_for_module(path: str) -> str:
    """Return a path as a module can open it, with ``~`` and ``..`` resolved as in :func:`absolute_path`."""
    plain = os.path.expanduser(path)
    return os.path.normpath(plain) + "/" * plain.endswith("/") if ".." in plain.split("/") else plain


def is_relative(path: str) -> bool:
    """Return whether a path depends on the working directory."""
    return not path.startswith(("/", "~"))


def absolute_path(path: str, workdir: str | None) -> str:
    """Return the absolute path of a product or dependency."""
    return os.path.abspath(_joined(path, workdir))


class LocatedProduct(NamedTuple):
    """Product of a task with its place, which is resolved once.

    :param product: the product.
    :param file: its absolute path.
    """

    product: Product
    file: str


def located(products: Iterable[Product], workdir: str | None) -> tuple[LocatedProduct, ...]:
    """Return products with their absolute paths.

    :param workdir: base of relative paths; the current directory if not given.
    """
    return tuple(LocatedProduct(each, absolute_path(each.path, workdir)) for each in products)


def sibling_path(file: str, ending: str, folder: str = "") -> str:
    """Return the path of a file that belongs to another one: its name and a suffix, shortened if it is too long.

    :param file: the path of the other file.
    :param folder: folder beside it for the result.
    """
    parent, name = os.path.split(file)
    encoded = os.fsencode(name)
    if len(encoded) + len(ending) > _LONGEST_OWN_NAME:
        ending = f"…{hashlib.sha256(encoded).hexdigest()[:8]}{ending}"
        name = encoded[: _LONGEST_OWN_NAME - len(os.fsencode(ending))].decode(errors="ignore")
    return os.path.join(parent, folder, f"{name}{ending}")
