"""Module names of Sewerpipe and of its predecessor, under which workflow files import ``Task`` and ``workflow``."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.core.workflow import workflow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Module names in sewer files for earlier systems, with the objects that they provide here.
FORMER_NAMES: Mapping[str, Mapping[str, Any]] = {
    "sewer": {},
    "sewer.config": {"Task": Task},
    "sewer.workflows": {"workflow": workflow},
    "sewerpipe": {},
    "sewerpipe.config": {"Task": Task},
    "sewerpipe.task": {"Task": Task},
    "sewerpipe.workflows": {"workflow": workflow},
}


class SewerpipeNames:
    """Finder of the former names with the lowest precedence: an installed package of that name comes first."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, _: ModuleType | None = None) -> ModuleSpec | None:
        """Return the specification of a former name that no installed package has."""
        is_inside_installed_package = bool(path)  # a package created by this finder has no folders
        if name not in FORMER_NAMES or is_inside_installed_package:
            return None
        return ModuleSpec(name, self, is_package="." not in name)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return a module with the objects of a former name."""
        module = ModuleType(spec.name)
        vars(module).update(FORMER_NAMES[spec.name])
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: `create_module` has already set the names."""
