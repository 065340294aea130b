"""An interpreter with an environment of its own, and a folder with a workflow file that it reads."""

from __future__ import annotations

import subprocess
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from airflow_provider_sewer.core.errors import SewerError, WorkflowFileError
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.loaders.external.reader import read_workflow

if TYPE_CHECKING:
    from airflow_provider_sewer import Workflow

IMPORTS = "from airflow_provider_sewer import Dependency, Ignored, Product, Task, workflow\n"

#: Counts how often a file is loaded.
COUNTED = """
with open(__file__.replace("flows/flow.py", "loads"), "a") as loads:
    loads.write("x\\n")
"""


class Land:
    """An environment of its own, and a folder with a workflow file."""

    def __init__(self, folder: Path, base: Path | str) -> None:
        self.folder = folder / "flows"
        self.folder.mkdir()
        self.file = self.folder / "flow.py"
        self.python = folder / "venv" / "bin" / "python"
        subprocess.run([base, "-m", "venv", "--without-pip", folder / "venv"], check=True, timeout=60)
        (self.packages,) = (folder / "venv" / "lib").glob("python*/site-packages")

    def install(self, name: str, source: str) -> None:
        """Put a module into the environment, as an installer does: a replaced file gets another time or size."""
        self._put(self.packages / name, source)

    def write(self, source: str, name: str = "flow.py") -> None:
        """Write the workflow file, or something beside it."""
        self._put(self.folder / name, (IMPORTS if name == "flow.py" else "") + dedent(source))

    def read(self, workflow: str | None = None, **settings: object) -> Workflow:
        """Have the file read there."""
        return read_workflow(self.file, workflow, ExecutionSettings.checked(**{"python": self.python, **settings}))

    def tasks(self) -> list[str]:
        """Have the file read there, and return the names of its tasks."""
        return list(self.read().tasks)

    @property
    def loads(self) -> int:
        """Return how often the file was loaded; it begins with :data:`COUNTED`."""
        return len((self.folder.parent / "loads").read_text().splitlines())

    @staticmethod
    def _put(path: Path, source: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")


def refusal(land: Land, kind: type[SewerError] = WorkflowFileError) -> str:
    """Return the error message of a file that cannot be loaded, with ``{f}`` for the file."""
    with pytest.raises(SewerError) as caught:
        land.read()
    assert type(caught.value) is kind
    return str(caught.value).replace(str(land.file), "{f}")
