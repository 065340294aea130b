"""Imports go one way, and nothing above the Airflow line imports Airflow."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "airflow_provider_sewer"
CONTRACTS = [
    contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
]
LINT = "import sys; from importlinter.cli import lint_imports_command as lint; sys.argv[0] = 'lint-imports'; lint()"


def lint(folder: Path) -> dict[str, str]:
    """Run import-linter on the package in a folder, and return the result of each contract."""
    run = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {LINT}", "--no-cache"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    found = dict(re.findall(r"^(.+) (KEPT|BROKEN)$", run.stdout, re.MULTILINE))
    assert found, run.stdout + run.stderr
    return found


@pytest.fixture(scope="module")
def results() -> dict[str, str]:
    """Check the contracts once."""
    return lint(ROOT)


@pytest.mark.parametrize("contract", CONTRACTS)
def test_import_contract_is_kept(results, contract):
    """Each contract of pyproject.toml."""
    assert results[contract] == "KEPT"


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("core/graph_of_airflow.py", "import airflow", {CONTRACTS[1], CONTRACTS[2]}),
        ("core/upwards.py", "import airflow_provider_sewer.loaders.isolated_import", {CONTRACTS[0]}),
        ("loaders/model.py", "from airflow.sdk import DAG", {CONTRACTS[1]}),
    ],
)
def test_import_contract_detects_wrong_import(tmp_path, file, line, broken):
    """A copy of the package with one import too many breaks just the contracts it should."""
    shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / PACKAGE.name / file).write_text(line)

    assert {name for name, state in lint(tmp_path).items() if state == "BROKEN"} == broken


def test_only_cancellation_calls_the_cancellation_of_backends() -> None:
    """It marks the job directory first, repeats, and logs."""
    call = re.compile(r"cluster\.cancel\(|[\"']scancel[\"'], ")
    callers = {path.name for path in PACKAGE.rglob("*.py") if call.search(path.read_text())}
    assert callers == {"cancellation.py", "client.py"}
