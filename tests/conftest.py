"""Fixtures and markers of all tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = [
    "tests.plugin_require_all",
    "tests.plugin_xdist",
    "airflow_provider_sewer.testing",
    "tests.slurm_cluster.fixtures",
    "tests.slurm.script_jobs",
    "tests.airflow_supervisor",
]

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"
#: The fixtures that make a test need Airflow, a Slurm cluster, containers or a browser.
MARKS = {
    "airflow": {"airflow_home", "airflow_command", "stage"},
    "slurm": {
        "slurm",
        "slurm_accounting",
        "tracked_slurm",
        "make_slurm",
        "needs_slurm",
        "cluster_jobs",
        "away",
        "site",
    },
    "containers": {"stack"},
    "browser": {"browser"},
}
#: The folders of tests above the Airflow line, which all import Airflow.
AIRFLOW = {"airflow", "containers", "dags", "decorators", "hooks", "links", "operators", "task_group", "triggers"}
AIRFLOW |= {"test_docs.py", "test_formats_in_airflow.py", "test_products_in_airflow.py", "test_task_group.py"}
VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import the tests above the Airflow line if ``-m`` excludes them: importing Airflow takes seconds."""
    excluded = config.option.markexpr.split(" and ")
    return True if "not airflow" in excluded and _is_above_airflow_line(collection_path) else None


def _is_above_airflow_line(path: Path) -> bool:
    return path.is_relative_to(TESTS) and path != TESTS and path.relative_to(TESTS).parts[0] in AIRFLOW


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the real parts that they use, before ``-m`` selects."""
    for item in items:
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        # A fixture can be requested by the name in a parameter.
        used = {*getattr(item, "fixturenames", ()), *(value for value in parameters if isinstance(value, str))}
        for mark, fixtures in MARKS.items():
            if not fixtures.isdisjoint(used):
                item.add_marker(mark)
        if _is_above_airflow_line(item.path):
            item.add_marker("airflow")


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Separate the cache of the tests from that of the user."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session", params=VERSIONS)
def any_python(request: pytest.FixtureRequest) -> Path:
    """Return one interpreter after the other, 3.9 to 3.13, where the machine has them."""
    version = request.param
    for candidate in _candidates(version):
        if _answers_as(candidate, version):
            return Path(candidate)
    pytest.skip(f"no Python {version} here; install it, or list interpreters in SEWER_TEST_PYTHONS")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of its own, of 64 kB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    asked = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(folder)]
    mount = shutil.which("mount")
    if mount is None or subprocess.run(asked, check=False, capture_output=True).returncode:
        pytest.skip("this user cannot mount a file system; run it as root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def digits_python() -> Path:
    """Return the interpreter that the example's modules are installed for."""
    python = ROOT / "build" / "venv" / "digits" / "bin" / "python"
    if not python.exists():
        pytest.skip("the digits environment is missing; `make test` makes it")
    return python


@pytest.fixture(scope="session")
def docs_python() -> Path:
    """Return the interpreter of the environment that builds the documentation."""
    python = ROOT / "build" / "venv" / "docs" / "bin" / "python"
    if not python.exists():
        pytest.skip("the docs environment is missing; `make docs` makes it")
    return python


@pytest.fixture
def everything_kept(airflow_home):
    """Return a function that returns all rows of Airflow's database as text, XComs, events and rendered fields too."""

    def read(but=()) -> str:
        from airflow.utils.session import create_session
        from sqlalchemy import text

        with create_session() as session:
            tables = session.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars().all()
            names = {*tables}.difference(but)
            rows = [[tuple(row) for row in session.execute(text(f'SELECT * FROM "{table}"'))] for table in names]
        return repr(rows)  # of tuples, since the text of a Row leaves out the middle of long values

    return read


def _candidates(version: str) -> list[str]:
    listed = os.environ.get("SEWER_TEST_PYTHONS", "").split(os.pathsep)
    found = shutil.which(f"python{version}")
    return [path for path in [*listed, found] if path]


def _answers_as(python: str, version: str) -> bool:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    asked = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False)
    return asked.returncode == 0 and asked.stdout.strip() == version
