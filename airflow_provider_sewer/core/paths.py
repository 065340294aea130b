"""What a task makes and what it needs: products, dependencies, external inputs; and what their paths mean.

A relative path is taken from the working directory of its task, as the module itself would take it.
Markers stand for their path wherever a path can stand, so the same dictionary still makes the same command line.
"""

from __future__ import annotations

import copy
import hashlib
import os
import re
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.process_text import invalid_reason
from airflow_provider_sewer.core.templates import is_template

if TYPE_CHECKING:
    from typing import Self

#: The folder beside products in which their records lie, and where they are made.
OWN_FOLDER = ".sewer"

#: What is added to the name of a product of which a task that failed has made something.
FAILED = ".failed"

#: The longest name of a file in Linux, the longest path, and the longest name that is made of another, in bytes.
LONGEST_NAME = 255
_LONGEST_PATH = 4095
_LONGEST_OWN_NAME = LONGEST_NAME - len(".01234567")  # what an unfinished record has at its end

#: What becomes of what a task that failed has made of a product.
ON_FAILURE = ("keep", "remove")

_TEMPLATE = re.compile(r"\{\{\s*(.*?)\s*\}\}")


class PathMarker:
    """A path, and what a task has to do with it.

    :param path: the path; a trailing slash says that it is a directory. In an annotation there is none.
    :raises InvalidTask: when it is no path.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = "" if path is None else checked_text(type(self).__name__, path)

    def at(self, path: str | os.PathLike[str]) -> Self:
        """Return the same of another path."""
        other = copy.copy(self)
        other.path = checked_text(type(self).__name__, path)
        return other

    def __fspath__(self) -> str:
        """Return the path, so that the marker can stand for it."""
        return self.path

    def __eq__(self, other: object) -> bool:
        """Markers are equal that say the same."""
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        """Return the hash of what it says."""
        return hash((type(self), *vars(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({repr(self.path) if self.path else ''})"


class Product(PathMarker):
    """A file or directory that a task makes.

    :param path: the path; a trailing slash says that it is a directory, which is then made for the module.
    :param atomic: give the module another name in its place, so that the real one never appears half-written.
    :param temporary: remove it when all tasks that depend on it have succeeded.
    :param on_failure: what becomes of it when its task fails: ``keep`` it as ``….failed``, or ``remove`` it.
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
                f"{self!r}: on_failure: {' or '.join(map(repr, ON_FAILURE))} is needed, not {on_failure!r:.200}",
                at=("on_failure",),
            )
        for field, value in (("atomic", atomic), ("temporary", temporary)):
            if not isinstance(value, bool):
                raise InvalidTask(f"{self!r}: {field}: True or False is needed, not {value!r:.200}", at=(field,))

    def under_real_name(self) -> Product:
        """Return this product, made under its real name."""
        return Product(self.path, atomic=False, temporary=self.temporary, on_failure=self.on_failure)


class Dependency(PathMarker):
    """A file or directory that a task reads, and that another task makes or that is there already."""


class External(Dependency):
    """A file or directory that comes from outside of the workflow.

    Airflow waits for it; a plain run wants it to be there.

    :param path: the path.
    :param timeout: seconds that Airflow waits for it; Airflow's ``sensors.default_timeout``, a week, if not said.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, timeout: float | None = None) -> None:
        super().__init__(path)
        self.timeout = timeout
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or timeout <= 0):
            raise InvalidTask(f"{self!r}: timeout: seconds are needed, not {timeout!r:.200}", at=("timeout",))


def checked_text(label: str, path: Any, *, may_be_template: bool = True) -> str:
    """Return a path as text.

    :param label: what the path is for, for the message.
    :param may_be_template: whether its templates may still have to be filled in, so that its parts are not known.
    :raises InvalidTask: when it is no path, or names no file.
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text.strip():
        raise InvalidTask(f"{label}: a path is needed, not {path!r:.200}", at=("path",))
    if why := invalid_reason(text):
        raise InvalidTask(f"{label}: the path {why}", at=("path",))
    if may_be_template and is_template(text):
        return text
    if text.strip("/") == "" or text.rstrip("/").rpartition("/")[2] in (".", "..", "~"):
        raise InvalidTask(f"{label}: {text!r} names no file or directory of its own", at=("path",))
    if OWN_FOLDER in text.split("/"):
        raise InvalidTask(f"{label}: {text!r}: what lies in {OWN_FOLDER} is this package's own", at=("path",))
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in text.split("/")):
        said = f"{label}: {text!r}: no name in a path can have more than {LONGEST_NAME} bytes"
        raise InvalidTask(said, at=("path",))
    if len(os.fsencode(text)) > _LONGEST_PATH:
        raise InvalidTask(f"{label}: {text!r}: a path must have at most {_LONGEST_PATH:,} bytes", at=("path",))
    return text


def path_key(path: str, workdir: str | None) -> str:
    """Return what a path is known by in a workflow: equal for two ways of writing one path.

    Nothing is looked up: a link and what it leads to are two paths. Of two templates, only blanks just inside of the
    braces can differ.

    :param workdir: what it is taken from if it is relative; where that is not known yet, it stays relative.
    """
    return _TEMPLATE.sub(r"{{ \1 }}", _joined(path, workdir))


def _joined(path: str, workdir: str | None) -> str:
    key = os.path.normpath(os.path.join(os.path.expanduser(workdir or ""), os.path.expanduser(path)))
    return key[1:] if key.startswith("//") else key


def path_for_module(path: str) -> str:
    """Return a path as a module can open it where this package would: ``~`` and ``..`` mean nothing special to it."""
    plain = os.path.expanduser(path)
    return os.path.normpath(plain) + "/" * plain.endswith("/") if ".." in plain.split("/") else plain


def is_relative(path: str) -> bool:
    """Tell whether a path depends on the working directory."""
    return not path.startswith(("/", "~"))


def absolute_path(path: str, workdir: str | None) -> str:
    """Return the absolute path of a product or dependency."""
    return os.path.abspath(_joined(path, workdir))


def sibling_path(file: str, ending: str, folder: str = "") -> str:
    """Return a path for what belongs to a file: its name with an ending, both shortened if that is too long a name.

    :param file: the path of the file.
    :param folder: a folder beside it; what belongs to it is in there.
    """
    around, name = os.path.split(file)
    encoded = os.fsencode(name)
    if len(encoded) + len(ending) > _LONGEST_OWN_NAME:
        ending = f"…{hashlib.sha256(encoded).hexdigest()[:8]}{ending}"
        name = encoded[: _LONGEST_OWN_NAME - len(os.fsencode(ending))].decode(errors="ignore")
    return os.path.join(around, folder, f"{name}{ending}")
