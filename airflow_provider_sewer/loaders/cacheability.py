"""Check whether a Python file is self-contained: its workflow depends only on source code in its folder.

A file that reads data, environment variables, the clock or random numbers while it is loaded can define another
workflow the next time. So can a file that imports an installed package, because its accesses are unknown. A file
counts as self-contained only if all names that it uses are known to be pure.
"""

from __future__ import annotations

import ast
import builtins
import glob
import os
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.size_limits import MAX_FILE_BYTES
from airflow_provider_sewer.core.trusted_files import read_regular
from airflow_provider_sewer.loaders.sewerpipe_names import FORMER_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Modules whose functions depend on their arguments only.
_PURE_MODULES = frozenset({
    "__future__", "abc", "collections", "collections.abc", "copy", "dataclasses", "datetime", "enum", "fractions",
    "functools", "itertools", "json", "math", "numbers", "pathlib", "re", "shlex", "string", "textwrap", "typing",
    "airflow_provider_sewer", *FORMER_NAMES,
})  # fmt: skip

#: Names in ``os`` that depend on their arguments only.
_OF_OS = {
    "os": frozenset({"fspath", "sep", "PathLike"}),
    "os.path": frozenset(
        {"basename", "commonpath", "dirname", "isabs", "join", "normpath", "sep", "split", "splitext"}
    ),
}

#: Built-in names that depend on their arguments only.
_PURE_BUILTINS = frozenset({
    "__build_class__", "__debug__", "__doc__", "__file__", "__name__", "Ellipsis", "NotImplemented", "abs", "all",
    "any", "ascii", "bin", "bool", "bytes", "chr", "classmethod", "complex", "dict", "divmod", "enumerate", "filter",
    "float", "format", "frozenset", "hex", "int", "isinstance", "issubclass", "iter", "len", "list", "map", "max",
    "min", "next", "object", "oct", "ord", "pow", "print", "property", "range", "repr", "reversed", "round", "set",
    "slice", "sorted", "staticmethod", "str", "sum", "super", "tuple", "type", "zip",
})  # fmt: skip

#: Names in this package that read other files.
_LOADERS = frozenset({"get_task_from_module", "get_tasks_from_module", "load_module", "load_workflow"})

#: Attributes that depend on more than their object: on files, the clock or other objects.
_IMPURE_ATTRIBUTES = (frozenset(dir(Path)) - frozenset(dir(PurePath)) - {"replace"}) | _LOADERS | {
    "astimezone", "fromtimestamp", "now", "timestamp", "today", "utcnow",
}  # fmt: skip

#: Special attributes that are pure.
_PLAIN_DUNDERS = frozenset({"__doc__", "__init__", "__name__", "__post_init__", "__str__", "__repr__", "__eq__"})


def modules_beside(file: str) -> list[str] | None:
    """Return all possible paths of modules that a file imports from its folder; ``None`` if it is not self-contained.

    :param file: absolute path of the workflow file.
    """
    folder = os.path.dirname(file)
    waiting, places = [file], dict[str, None]()
    while waiting:
        tree = _parsed(waiting.pop())
        if tree is None or not all(map(_is_pure, ast.walk(tree))) or not _is_pure_in_os(tree):
            return None
        for module, is_required in _imported(tree):
            candidates = _places(module, folder)
            exists = any(map(os.path.isfile, candidates[-2:]))
            if (is_required and not exists) or any(map(_is_compiled, candidates)):
                return None
            waiting += [place for place in candidates if place not in places and os.path.isfile(place)]
            places.update(dict.fromkeys(candidates))
    return list(places)


def _parsed(file: str) -> ast.Module | None:
    try:
        return ast.parse(read_regular(file, largest=MAX_FILE_BYTES))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None


def _is_pure(node: ast.AST) -> bool:
    """Return whether a node uses only pure names."""
    if isinstance(node, ast.Name):
        return _is_pure_name(node.id)
    if isinstance(node, ast.Attribute):
        return _is_pure_attribute(node.attr) or _is_own_place(node)
    if isinstance(node, ast.Import):
        return all(each.name != "os" or each.asname is None for each in node.names)
    if isinstance(node, ast.ImportFrom):
        names = {each.name for each in node.names}
        if node.level or node.module in _OF_OS:
            return not node.level and names <= _OF_OS[str(node.module)]
        return all(map(_is_pure_attribute, names))
    return True


def _is_pure_name(name: str) -> bool:
    found = getattr(builtins, name, None)
    if name in _LOADERS:
        return False
    if name in _PURE_BUILTINS or (isinstance(found, type) and issubclass(found, BaseException)):
        return True
    return found is None and not _is_special(name)


def _is_pure_attribute(name: str) -> bool:
    return name not in _IMPURE_ATTRIBUTES and (name in _PLAIN_DUNDERS or not _is_special(name))


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _is_own_place(node: ast.Attribute) -> bool:
    """Return whether this is ``Path(__file__).resolve()``, which depends on the file only."""
    call = node.value
    if node.attr not in ("resolve", "absolute") or not isinstance(call, ast.Call) or len(call.args) != 1:
        return False
    return not call.keywords and _dotted(call.func) == "Path" and _dotted(call.args[0]) == "__file__"


def _is_pure_in_os(tree: ast.Module) -> bool:
    """Return whether ``os`` is used only for functions that handle text."""
    uses = [_dotted(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    known = [f"os.{name}" for name in _OF_OS["os"]] + [f"os.path.{name}" for name in _OF_OS["os.path"]]
    names = sum(isinstance(node, ast.Name) and node.id == "os" for node in ast.walk(tree))
    return names == sum(use in known for use in uses)


def _dotted(node: ast.expr) -> str | None:
    """Return a name such as ``os.path.join``, or ``None`` for an attribute of anything but a name."""
    parts = []
    while isinstance(node, ast.Attribute):  # not recursive: an expression can be a thousand levels deep
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def _imported(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Return imported modules except pure ones, and whether each has to exist."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
            yield from ((name, True) for name in names if name not in (*_PURE_MODULES, *_OF_OS))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module not in (*_PURE_MODULES, *_OF_OS):
            yield node.module, True
            yield from ((f"{node.module}.{each.name}", False) for each in node.names)


def _places(module: str, folder: str) -> list[str]:
    """Return the possible files of a module and its parent packages."""
    parts = module.split(".")
    bases = [os.path.join(folder, *parts[:length]) for length in range(1, len(parts) + 1)]
    return [file for base in bases for file in (os.path.join(base, "__init__.py"), f"{base}.py")]


def _is_compiled(file: str) -> bool:
    """Return whether an extension module could be imported instead."""
    return bool(glob.glob(f"{glob.escape(os.path.splitext(file)[0])}.*so"))
