"""The virtual environments of this checkout: which there are, where they lie, and what each is made from."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
CONSTRAINTS = Path(".dev/constraints.txt")
PEERS = Path(".dev/peers")
STAMP = "sewer-environment.json"


class Environment(NamedTuple):
    """A virtual environment.

    :param folder: its folder in ``build/venv``.
    :param project: what is installed into it: a project, as a path from the checkout.
    :param extra: an extra of that project.
    :param packages: instead of a project, packages from the index.
    """

    folder: str
    project: str = ""
    extra: str = ""
    packages: tuple[str, ...] = ()

    @property
    def target(self) -> list[str]:
        """What pip is to install."""
        if self.packages:
            return list(self.packages)
        return ["--editable", f"{self.project}[{self.extra}]" if self.extra else self.project]

    @property
    def versions(self) -> Path:
        """The file with the versions that it is made with, as a path from the checkout."""
        return PEERS / f"{self.folder}.txt" if self.packages else CONSTRAINTS


ENVIRONMENTS = {
    "airflow": Environment("airflow", "."),
    "airflow-test": Environment("airflow", ".", "test"),
    "digits": Environment("digits", "dags/digits"),
    "cosmos": Environment("cosmos", packages=("apache-airflow", "astronomer-cosmos")),
    "sewerpipe": Environment("sewerpipe", packages=("sewerpipe",)),
    "depio": Environment("depio", packages=("depio",)),
}

#: Names for several environments.
SEVERAL = {"peers": [name for name, environment in ENVIRONMENTS.items() if environment.packages]}


class Trouble(Exception):
    """What is missing, and what to do about it."""


def python_of(home: Path) -> Path:
    """Return the interpreter of the environment in a folder."""
    return home / "bin" / "python"


def count_packages(home: Path) -> int:
    """Tell how many packages are installed there."""
    return sum(1 for _ in home.glob("lib/python3*/site-packages/*.dist-info"))


def wanted_for(environment: Environment) -> dict[str, str]:
    """Return what the environment depends on, as it is now: where one of these differs, it has to be made anew."""
    installed = environment.packages or _packaging_of(ROOT / environment.project)
    return {
        "base": _hash([sys.version, os.path.realpath(sys.executable), str(ROOT)]),
        "packages": _hash([installed, (ROOT / environment.versions).read_text()]),
        "extra": environment.extra,
    }


def read_stamp(home: Path) -> dict[str, str]:
    """Return what the environment was made from; nothing if it is not there, not whole, or its Python is gone."""
    try:
        stamp = json.loads((home / STAMP).read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) and python_of(home).exists() else {}


def serves(found: dict[str, str], wanted: dict[str, str]) -> bool:
    """Tell whether an environment is what is wanted, or that and the test tools."""
    return found in (wanted, {**wanted, "extra": "test"})


def pyproject(project: Path) -> dict[str, dict[str, Any]]:
    """Return what the pyproject.toml of a project says."""
    import tomllib

    try:
        return tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise Trouble(f"{project / 'pyproject.toml'}: {error}") from error


def _packaging_of(project: Path) -> list[object]:
    """Return what of a project ends up in an environment: not how its code is checked."""
    tables = pyproject(project)
    versions = [file.read_text() for file in project.glob("*/__init__.py")]
    return [
        tables.get("build-system"),
        tables.get("project"),
        tables.get("tool", {}).get("hatch"),
        sorted(re.findall(r"^__version__ = .*", "\n".join(versions), re.MULTILINE)),
    ]


def _hash(parts: Iterable[object]) -> str:
    return hashlib.sha256(json.dumps(list(parts), default=str).encode()).hexdigest()
