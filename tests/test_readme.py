"""The README's code and commands, run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


@pytest.fixture
def folder(tmp_path):
    """Write every file that the README shows, and return their folder."""
    for text in [*blocks("python"), *blocks("yaml")]:
        if named := re.match(r"# (\w+\.(py|yaml))\n", text):
            (tmp_path / named[1]).write_text(text)
    return tmp_path


@pytest.fixture
def shell(folder, tmp_path_factory):
    """Return a function that runs a line of the README in the folder of its files."""
    home = tmp_path_factory.mktemp("home")
    env = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": os.environ["HOME"],
        "LANG": "C.UTF-8",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }

    def run(line: str) -> str:
        done = subprocess.run(["/bin/sh", "-c", line], cwd=folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.mark.parametrize(
    "block",
    [text for text in blocks("console") if not text.startswith("$ docker ")],
    ids=lambda block: block.splitlines()[0],
)
def test_readme_commands_print_the_shown_output(shell, block):
    """Each line that the README shows after a `$ command` is a line of the command's output."""
    if "airflow dags" in block:
        shell("airflow db migrate")
    commands = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    assert commands
    for command, shown in commands:
        printed = shell(command)
        for line in shown.splitlines():
            assert line in printed


def test_readme_python_blocks_run(shell, folder):
    """The operator's example makes an operator."""
    nameless = [text for text in blocks("python") if not re.match(r"# \w+\.py\n", text)]
    assert nameless
    for text in nameless:
        (folder / "block.py").write_text(text)
        shell("python block.py")


def test_readme_starts_with_the_two_install_commands():
    """`make demo` and `make test` stand at the top, and the Makefile has both."""
    first = next(text for kind, text in BLOCKS if kind == "bash")
    targets = re.findall(r"^make (\w+)", first, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_readme_connection_is_valid(monkeypatch, airflow_home):
    """The exported variable is a connection that the hook reads."""
    from airflow_provider_sewer.hooks.sewer import SewerHook

    ((name, value),) = re.findall(r"^export (AIRFLOW_CONN_\w+)='(.*)'$", README, re.MULTILINE)
    monkeypatch.setenv(name, value)
    settings = SewerHook("sewer_digits").settings
    assert (settings.python, settings.workdir) == ("/opt/envs/digits/bin/python", "/shared/digits")


def test_readme_promises_refer_to_existing_tests():
    """The tests of each promise exist."""
    rows = re.findall(r"^\| (P\d+) \|.*\| (.*) \|$", README, re.MULTILINE)
    assert [promise for promise, _ in rows] == [f"P{number}" for number in range(1, 11)]
    for promise, held_by in rows:
        assert_named(held_by, promise)


def test_readme_features_refer_to_existing_tests():
    """The tests of each feature of the earlier projects exist."""
    table = README.partition("\n## Features\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*) \| ([SDWPH ]*) ?\| (`.*`) \|$", table, re.MULTILINE)
    assert len(rows) == len(re.findall(r"^\|", table, re.MULTILINE)) - 2
    for feature, _, shown_by in rows:
        assert_named(shown_by, feature)


def assert_named(cell: str, context: str) -> None:
    """Check that a cell of a table names tests, and that these exist."""
    names = re.findall(r"`([\w/]+\.py)::(\w+)`", cell)
    assert names, context
    for file, name in names:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), f"{context}: {file}::{name}"


def test_readme_internal_links_have_targets():
    """Files exist, headings exist."""
    anchors = {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target[1:] in anchors if target.startswith("#") else (ROOT / target).exists(), target
