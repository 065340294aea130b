"""Jobs module of stages: its location and functions, determined without importing it."""

from __future__ import annotations

import ast
import os
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.cache_fingerprints import record_access
from airflow_provider_sewer.core.errors import InvalidWorkflow, unknown_name
from airflow_provider_sewer.core.size_limits import MAX_FILE_BYTES
from airflow_provider_sewer.core.trusted_files import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Names that can define functions dynamically.
_WAYS_AROUND = frozenset({"globals", "locals", "vars", "exec", "eval", "setattr", "__getattr__", "modules"})


class FunctionsModule:
    """Module whose functions the stages run.

    :param module: its dotted name.
    :param folder: folder of the file with the stages.
    :raises InvalidWorkflow: when it is not a module name.
    """

    def __init__(self, module: str, folder: str) -> None:
        if module.endswith(".py") or not all(part.isidentifier() for part in module.split(".")):
            guess = os.path.basename(module).removesuffix(".py")
            hint = f"; did you mean {guess!r}?" if guess != module and guess.isidentifier() else ""
            raise InvalidWorkflow(f"jobs must be a module name such as 'foo_jobs', got {module!r}{hint}")
        self.module = module
        self._file = _file_of(module, folder)

    @property
    def is_beside(self) -> bool:
        """Return whether the module is in the folder of the file."""
        return self._file is not None

    def function(self, name: str) -> str:
        """Return the ``module:function`` reference to a function."""
        return f"{self.module}:{name}"

    def missing_reason(self, name: str) -> str | None:
        """Return the error text for a missing function, or ``None`` if it exists or that is unknown."""
        names = _names(self._file) if self._file else None
        if names is None or name in names:
            return None
        functions = [known for known, is_function in names.items() if is_function]
        return f"{self._file}: {unknown_name('function', name, functions)}"


def _file_of(module: str, folder: str) -> str | None:
    base = os.path.join(folder, *module.split("."))
    places = (f"{base}.py", os.path.join(base, "__init__.py"))
    for place in places:
        record_access(place)
    return next((file for file in places if os.path.isfile(file)), None)


def _names(file: str) -> dict[str, bool] | None:
    """Return the names that a module binds, and whether each is a function; ``None`` if that is unknown."""
    try:
        tree = ast.parse(read_regular(file, largest=MAX_FILE_BYTES))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None  # the task's interpreter may accept it, and reports the error otherwise
    names = dict(_bound(tree.body))
    return None if "*" in names or not _WAYS_AROUND.isdisjoint(_mentioned(tree)) else names


def _bound(statements: Iterable[ast.stmt]) -> Iterator[tuple[str, bool]]:
    for statement in statements:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield statement.name, not isinstance(statement, ast.ClassDef)
            continue
        for node in ast.walk(statement):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield node.name, True
            elif isinstance(node, ast.ClassDef):
                yield node.name, False
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id, False
            elif isinstance(node, ast.alias):
                yield (node.asname or node.name.partition(".")[0]), False


def _mentioned(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.FunctionDef):
            yield node.name
