"""Import of a user's Python file in this process without side effects on later imports.

While the file is loaded, modules in its folder can be imported, and the old module names of sewer files
(``sewer.config``, ``sewerpipe.task``, …) exist. Afterwards modules, import finders, the standard streams and the
working directory are restored. Only installed packages stay loaded: every file gets the same ones, and many cannot be
loaded twice. Output of the file goes to stderr, so that it does not mix with the output of ``sppe``.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING

from airflow_provider_sewer.loaders.sewerpipe_names import SewerpipeNames

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


#: Names of standard library modules; available since Python 3.10.
STANDARD_LIBRARY: frozenset[str] = getattr(sys, "stdlib_module_names", frozenset())

_lock = threading.RLock()


def module_name(file: str) -> str:
    """Return a unique module name for a file."""
    return f"sewer_file_{hashlib.sha256(os.fsencode(file)).hexdigest()[:12]}"


@contextmanager
def isolated_import(module: ModuleType, folders: Sequence[str]) -> Iterator[None]:
    """Make ``module`` and modules in its folders importable inside the block."""
    with _lock, _restored_afterwards(), _stdout_to_stderr():
        for name in _namesakes(folders):
            del sys.modules[name]
        sys.modules[module.__name__] = module
        sys.meta_path.insert(0, _StandardLibrary(list(sys.path)))
        sys.meta_path.append(SewerpipeNames())
        sys.path[:0] = folders
        for folder in folders:
            sys.path_importer_cache.pop(folder, None)  # its cached listing may lack the newest file
        yield


class _StandardLibrary:
    """Finder that gives precedence to the standard library.

    Otherwise an installed package that is imported for the first time could get a user's module of the same name, and
    the package stays loaded.
    """

    def __init__(self, path: list[str]) -> None:
        self._path = path

    def find_spec(self, name: str, path: Sequence[str] | None = None, _: ModuleType | None = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, self._path) if path is None and name in STANDARD_LIBRARY else None


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Redirect stdout to stderr, also of processes that the file starts."""
    stdout = None
    with suppress(OSError):  # a daemon may have closed one of them
        stdout = os.dup(1)
        os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if stdout is not None:
            os.dup2(stdout, 1)
            os.close(stdout)


@contextmanager
def _restored_afterwards() -> Iterator[None]:
    modules = dict(sys.modules)
    lists = {name: getattr(sys, name) for name in ("path", "meta_path", "path_hooks")}
    contents = {name: list(content) for name, content in lists.items()}
    streams = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
    folder = None
    with suppress(OSError):
        folder = os.getcwd()
    try:
        yield
    finally:
        finders = [finder for finder in sys.meta_path if finder not in contents["meta_path"]]
        vars(sys).update(lists | streams)
        for name, content in contents.items():
            lists[name][:] = content
        installed = _forget(set(sys.modules).difference(modules))
        # An installed package adds its finders only on its first import.
        sys.meta_path += [finder for finder in finders if getattr(finder, "__module__", None) in installed]
        sys.modules.update(modules)
        with suppress(OSError):
            os.chdir(folder or os.curdir)


def _namesakes(folders: Sequence[str]) -> list[str]:
    """Return loaded modules from other folders whose names also exist in these folders."""
    beside: set[str] = set()
    for folder in folders:
        with suppress(OSError):
            beside.update(entry.partition(".")[0] for entry in os.listdir(folder))
    excluded = STANDARD_LIBRARY | {"__main__", __name__.partition(".")[0]}
    homes = {name: _home(sys.modules[name]) for name in beside.intersection(sys.modules) - excluded}
    tops = {name for name, home in homes.items() if home and home not in folders and not _is_installed(home)}
    return [name for name in list(sys.modules) if name.partition(".")[0] in tops]


def _home(module: ModuleType) -> str | None:
    """Return the folder that a top-level module was found in."""
    file = getattr(module, "__file__", None)
    places = [file] if file else list(getattr(module, "__path__", ()))
    if not places:
        return None
    folder = os.path.dirname(os.path.abspath(str(places[0])))
    return os.path.dirname(folder) if file and os.path.basename(str(file)).startswith("__init__.") else folder


def _is_installed(folder: str) -> bool:
    is_standard = folder == os.path.dirname(os.__file__)
    return is_standard or not {"site-packages", "dist-packages"}.isdisjoint(folder.split(os.sep))


def _forget(names: set[str]) -> set[str]:
    """Unload the modules that other files cannot import, and return the others."""
    stays: dict[str, bool] = {}
    for name in sorted(names):  # a package before its modules
        parent = name.rpartition(".")[0]
        if stays.get(parent, True) and (not parent or _is_namespace(sys.modules.get(parent))):
            stays[name] = _is_found_again(name, sys.modules.get(parent))
        else:
            stays[name] = stays.get(parent, True)
    for name in names:
        if not stays[name]:
            sys.modules.pop(name, None)  # another thread may have removed it
    return {name for name in names if stays[name]}


def _is_namespace(module: ModuleType | None) -> bool:
    return getattr(module, "__file__", None) is None and bool(getattr(module, "__path__", ()))


def _is_found_again(name: str, parent: ModuleType | None) -> bool:
    path = list(getattr(parent, "__path__", ())) if parent else None
    known = getattr(sys.modules.get(name), "__spec__", None)
    for finder in sys.meta_path:
        found = finder.find_spec(name, path) if hasattr(finder, "find_spec") else None
        if found:
            return known is None or found.origin == known.origin
    return False
