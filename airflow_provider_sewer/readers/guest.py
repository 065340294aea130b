"""Run somebody's Python file inside this process and leave no trace of it.

While the file is loaded, its own folder can be imported from and the old names of sewer files
(``sewer.config``, ``sewerpipe.task``, …) exist. Afterwards ``sys.path`` and ``sys.modules`` are as
they were, but for installed packages the file imported: those are the same for everybody, and many
cannot be loaded twice. What the file prints goes to stderr, so that it cannot get into our output.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager, redirect_stdout
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.core.workflow import workflow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: The names found in sewer files written for earlier systems, and what they stand for here.
FORMER_NAMES: Mapping[str, Mapping[str, Any]] = {
    "sewer": {},
    "sewer.config": {"Task": Task},
    "sewer.workflows": {"workflow": workflow},
    "sewerpipe": {},
    "sewerpipe.config": {"Task": Task},
    "sewerpipe.task": {"Task": Task},
    "sewerpipe.workflows": {"workflow": workflow},
}

_lock = threading.RLock()


@contextmanager
def hosted(module: ModuleType, folder: str) -> Iterator[None]:
    """Make ``module`` and the files beside it importable for as long as the block lasts."""
    with _lock:
        path, meta_path = list(sys.path), list(sys.meta_path)
        hidden = _hide_namesakes(folder)
        before = set(sys.modules)
        sys.modules[module.__name__] = module
        sys.path.insert(0, folder)
        sys.meta_path.append(_FormerNames())
        sys.path_importer_cache.pop(folder, None)
        try:
            with redirect_stdout(sys.stderr):
                yield
        finally:
            sys.path[:], sys.meta_path[:] = path, meta_path
            sys.path_importer_cache.pop(folder, None)
            _forget(set(sys.modules) - before, folder, module.__name__)
            sys.modules.update(hidden)


class _FormerNames:
    """Finds the former names last of all, so that an installed package of that name comes first."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in FORMER_NAMES:
            return None
        return ModuleSpec(name, self, is_package="." not in name)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name)
        vars(module).update(FORMER_NAMES[spec.name])
        return module

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to execute: the names are already in it."""


def _hide_namesakes(folder: str) -> dict[str, ModuleType]:
    """Take modules out of ``sys.modules`` that some other folder's files were imported as."""
    beside = {entry.split(".")[0] for entry in os.listdir(folder)}
    tops = {
        name
        for name in beside.intersection(sys.modules)
        if (home := _home(sys.modules[name])) and home != folder and not _is_installed(home)
    }
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in tops}


def _forget(names: set[str], folder: str, guest: str) -> None:
    for name in names:
        top = name.partition(".")[0]
        package = sys.modules.get(top)
        is_former = isinstance(getattr(package, "__loader__", None), _FormerNames)
        if name == guest or is_former or (package is not None and _home(package) == folder):
            names_own = __name__.partition(".")[0]
            if top != names_own:
                sys.modules.pop(name, None)


def _home(module: ModuleType) -> str | None:
    """Return the folder that a top-level module was found in."""
    origin = getattr(module, "__file__", None)
    if origin is None:
        places = list(getattr(module, "__path__", ()))
        return os.path.dirname(os.path.abspath(places[0])) if places else None
    folder = os.path.dirname(os.path.abspath(origin))
    return os.path.dirname(folder) if os.path.basename(origin).startswith("__init__.") else folder


def _is_installed(folder: str) -> bool:
    parts = folder.split(os.sep)
    return "site-packages" in parts or "dist-packages" in parts or folder == os.path.dirname(os.__file__)
