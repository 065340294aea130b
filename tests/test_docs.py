"""The documentation's code and commands, run as they stand: a page is one session."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documentation import DOCS, NAMED, PAGES, ROOT, TEXTS, blocks, commands, files, sentences, table_rows

GUARANTEES, FEATURES = "docs/explanation/guarantees.md", "docs/explanation/features.md"

#: Maximum number of words of a sentence.
MOST_WORDS = 25
#: The commands that tests/containers runs.
IN_CONTAINER = "docker "
WITH_COMMANDS = [page for page in PAGES if any(not line.startswith(IN_CONTAINER) for line, _ in commands(page))]
WITH_NAMELESS_BLOCKS = [page for page in PAGES if any(not NAMED.match(text) for text in blocks(page, "python"))]


@pytest.fixture
def shell(tmp_path, tmp_path_factory):
    """Return a function that runs a command in a folder of the page's own, with an Airflow home beside it."""
    env = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": os.environ["HOME"],
        "LANG": "C.UTF-8",
        "AIRFLOW_HOME": str(tmp_path_factory.mktemp("home")),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }

    def run(line: str) -> str:
        done = subprocess.run(
            ["/bin/sh", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    return run


def write_files(page: str, folder: Path) -> None:
    for name, text in files(page).items():
        (folder / name).write_text(text)


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_page_commands_print_the_shown_output(page, shell, tmp_path):
    """Each line below a `$ command` is a line of its output, or with … at its end, the begin of one."""
    write_files(page, tmp_path)
    if any(line.startswith("airflow ") for line, _ in commands(page)):
        shell("airflow db migrate")
    for line, shown in commands(page):
        if not line.startswith(IN_CONTAINER):
            printed = shell(line)
            assert [expected for expected in shown if expected.removesuffix("…") not in printed] == [], (
                f"{line}\n{printed}"
            )


@pytest.mark.parametrize("page", WITH_NAMELESS_BLOCKS)
def test_page_python_blocks_without_file_name_run(page, shell, tmp_path):
    write_files(page, tmp_path)
    for text in blocks(page, "python"):
        if not NAMED.match(text):
            (tmp_path / "block.py").write_text(text)
            shell("python block.py")


@pytest.mark.parametrize("page", TEXTS)
def test_sentences_have_at_most_25_words(page):
    long = [sentence for sentence in sentences(page) if len(re.findall(r"\S*\w\S*", sentence)) > MOST_WORDS]
    assert long == []


def test_readme_has_at_most_150_lines():
    assert len(PAGES["README.md"].splitlines()) <= 150


def test_readme_shows_the_two_install_commands():
    """`make demo` and `make test` are in the Makefile."""
    shown = "".join(blocks("README.md", "bash"))
    targets = re.findall(r"^make (\w+)", shown, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_shown_connection_is_valid(monkeypatch, airflow_home):
    """The hook reads the exported variable."""
    from airflow_provider_sewer.hooks.sewer import SewerHook

    ((name, value),) = table_rows("docs/reference/connection.md", r"^export (AIRFLOW_CONN_\w+)='(.*)'$")
    monkeypatch.setenv(name, value)
    settings = SewerHook("sewer_digits").settings
    assert (settings.python, settings.workdir) == ("/opt/envs/digits/bin/python", "/shared/digits")


def test_guarantees_refer_to_existing_tests():
    sections = re.findall(r"^## (P\d+): .*?\n(.*?)(?=^## )", PAGES[GUARANTEES], re.MULTILINE | re.DOTALL)
    assert [promise for promise, _ in sections] == [f"P{number}" for number in range(1, 11)]
    for promise, text in sections:
        assert_names_tests(text, promise)


def test_features_refer_to_existing_tests():
    """A user of one of the projects finds the test of each feature."""
    table = PAGES[FEATURES]
    rows = table_rows(FEATURES, r"^\| (.*) \| ([SDWPH ]*) ?\| (`.*`) \|$")
    assert len(rows) == len(re.findall(r"^\|", table, re.MULTILINE)) - 2
    for feature, _, shown_by in rows:
        assert_names_tests(shown_by, feature)


def assert_names_tests(text: str, subject: str) -> None:
    """Check that a text names tests, and that these exist."""
    names = re.findall(r"`([\w/]+\.py)::(\w+)`", text)
    assert names, subject
    for file, name in names:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), f"{subject}: {file}::{name}"


def test_readme_and_contributing_links_have_targets():
    """mkdocs checks the links of the pages in docs/."""
    for file in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#]+)", (ROOT / file).read_text()):
            assert (ROOT / target).exists(), f"{file}: {target}"


@pytest.fixture(scope="module")
def site(docs_python, tmp_path_factory):
    """Build the site in strict mode, in which a link without a target is an error, and return its folder."""
    folder = tmp_path_factory.mktemp("site")
    done = build(docs_python, "--site-dir", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def build(python: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """Build a site with the command of `make docs`."""
    (line,) = re.findall(r"build/venv/docs/bin/python (-m mkdocs .*)", (ROOT / "Makefile").read_text())
    command = [python, *line.split(), *options]
    return subprocess.run(command, cwd=ROOT, env=without_airflow(), capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("link", ["missing.md", "index.md#missing", "/missing"])
def test_link_without_target_fails_the_build(docs_python, tmp_path, link):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text(f"# Page\n\n[link]({link})\n")
    settings = {"docs_dir": "docs", "site_dir": "site", "hooks": [], "watch": [], "extra_css": [], "nav": ["index.md"]}
    (tmp_path / "mkdocs.yml").write_text(json.dumps({"INHERIT": str(ROOT / "mkdocs.yml"), **settings}))
    done = build(docs_python, "--config-file", tmp_path / "mkdocs.yml")
    assert (done.returncode, link in done.stderr) == (1, True), done.stderr


@pytest.mark.slow
def test_strict_build_has_a_file_for_each_page(site):
    built = {file.relative_to(site).with_suffix(".md") for file in site.rglob("*.html")}
    assert built >= {file.relative_to(DOCS) for file in DOCS.rglob("*.md")}


@pytest.mark.slow
def test_no_page_loads_from_the_network(site):
    assert {file.name: tags for file in site.rglob("*.html") if (tags := network_tags(file.read_text()))} == {}


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted((ROOT / "dags").glob("*.py")), ids=lambda file: file.stem)
def test_example_page_has_a_graph_for_each_dag(site, file):
    dags = re.findall(r"\bDAG\(\s*\"(\w+)\"", file.read_text())
    page = (site / "examples" / f"{file.stem}.html").read_text()
    assert dags
    assert sorted(re.findall(r"<title>Graph of (\w+)</title>", page)) == sorted(dags)


@pytest.mark.slow
def test_graph_has_a_box_for_each_task_and_an_arrow_for_each_edge(site):
    """`sewer_cluster`: two Slurm jobs between two modules and one."""
    page = (site / "examples" / "sewer_cluster.html").read_text()
    boxes = re.findall(r'<rect class="box (\w+)".*?<text[^>]*>(.*?)</text>', page, re.DOTALL)
    assert sorted(boxes) == [
        *(("module", label) for label in ("add noise", "compare", "generate")),
        *(("slurm", label) for label in ("train forest", "train svc")),
    ]
    assert page.count('class="edge"') == 5


@pytest.mark.slow
def test_cli_reference_has_every_command(site):
    from airflow_provider_sewer.cli import main

    page = (site / "reference" / "cli.html").read_text()
    assert main.commands
    assert [name for name in main.commands if f"sppe {name} " not in page] == []


@pytest.mark.slow
def test_cli_reference_shows_the_examples_as_code(site):
    page = (site / "reference" / "cli.html").read_text()

    assert re.search(r"<p>Examples:</p>\s*<pre><code>  sppe init ", page)


def without_airflow() -> dict[str, str]:
    """Return the variables of this process but those of its Airflow, and without mkdocs-material's announcement."""
    kept = {name: value for name, value in os.environ.items() if "AIRFLOW" not in name}
    return {**kept, "NO_MKDOCS_2_WARNING": "1"}


def network_tags(page: str) -> list[str]:
    """Return the tags by which a browser loads a file from the network."""
    tags = re.findall(r"<(?:script|img|link|iframe|source)\b[^>]*>", page)
    return [tag for tag in tags if re.search(r'(?:src|href)="?(?:https?:)?//', tag)]
