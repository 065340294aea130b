"""Hooks of mkdocs: the gallery of examples from ``dags/``, and pages that show a file of the checkout."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[2]
if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

DAGS = ROOT / "dags"
KINDS = {"module": "module", "slurm": "Slurm job", "airflow": "Airflow task"}
MAPPED = "\N{MULTIPLICATION SIGN}"
LEGEND = (
    "Green: a module, run by an interpreter of its own. Orange: a Slurm job. Grey: another Airflow task. "
    f"{MAPPED}: a mapped task."
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the examples."""
    from mkdocs.structure.files import File

    for name, text in example_pages().items():
        files.append(File.generated(config, f"examples/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace ``<!-- file: NAME -->`` by a file of the checkout, without its first heading."""
    return re.sub(r"<!-- file: (\S+) -->", lambda found: included(found[1]), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Remove the roles of Sphinx from docstrings: ``:class:`Task``` becomes code. So do indented lines of help."""
    html = re.sub(r":(?:class|data|exc|func|meth|mod):(?=<code>)", "", html)
    return re.sub(r"<p>(\S.*:)\n((?:  .*\n?)+)</p>", r"<p>\1</p>\n<pre><code>\2</code></pre>", html)


def included(name: str) -> str:
    """Return a file's text with links that fit a page of ``docs/development``."""
    _, _, text = (ROOT / name).read_text().partition("\n")
    return text.replace("](docs/development/", "](").replace("](docs/", "](../")


def example_pages() -> dict[str, str]:
    """Return the Markdown of each page: one for each DAG file, and an index."""
    files = sorted(DAGS.glob("*.py"), key=lambda file: file.name)
    index = [f"# Examples\n\nThe DAG files of `dags/` in the checkout. Tests run each of them. {LEGEND}\n"]
    pages = {}
    for file in files:
        summary, pictures = docstring(file), drawn(file.name)
        index.append(f"## [{file.stem}]({file.stem}.md)\n\n{summary.partition(chr(10) * 2)[0]}\n\n{pictures}\n")
        sources = "\n".join(source(shown) for shown in [file, *workflow_files(file)])
        pages[file.stem] = f"# {file.stem}\n\n{summary}\n\n{pictures}\n\n{LEGEND}\n\n{sources}"
    return {"index": "\n".join(index), **pages}


def docstring(file: Path) -> str:
    """Return the docstring of a Python file."""
    return ast.get_docstring(ast.parse(file.read_text())) or ""


def workflow_files(file: Path) -> list[Path]:
    """Return the workflow files that a DAG file names."""
    names = re.findall(r"\b(\w+\.py)\"", file.read_text())
    return [path for name in dict.fromkeys(names) if (path := DAGS / "workflows" / name).exists()]


def source(file: Path) -> str:
    """Return a file as a block of code with its name above it."""
    return f"## `{file.relative_to(ROOT)}`\n\n```python\n{file.read_text()}```\n"


def drawn(name: str) -> str:
    """Return the pictures of the DAGs in a file."""
    dags = graphs()[name]
    titles = {dag_id: f"`{dag_id}`:\n\n" if len(dags) > 1 else "" for dag_id in dags}
    return "\n\n".join(titles[dag_id] + picture(dag_id, tasks) for dag_id, tasks in dags.items())


def picture(dag_id: str, tasks: dict[str, dict[str, Any]]) -> str:
    """Return the graph of a DAG, drawn as ``sppe show --format svg`` draws a workflow."""
    from airflow_provider_sewer.exporters.svg import TaskMark, graph_svg

    upstream = {task["label"]: [tasks[name]["label"] for name in task["upstream"]] for task in tasks.values()}
    marks = {
        task["label"]: TaskMark(task["kind"], MAPPED * task["mapped"], KINDS[task["kind"]]) for task in tasks.values()
    }
    return f'<div class="graph">{graph_svg(upstream, marks, title=f"Graph of {dag_id}")}</div>'


@cache
def graphs() -> dict[str, dict[str, Any]]:
    """Return tasks and edges of each DAG, by the name of its file. Airflow loads the files in its own process."""
    connection = {"conn_type": "sewer", "extra": {"python": "/usr/bin/python3", "workdir": "/shared/digits"}}
    with tempfile.TemporaryDirectory(prefix="sewer-docs-") as home:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))}
        env = {
            **kept,
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
            "AIRFLOW_CONN_SEWER_DIGITS": json.dumps(connection),
        }
        command = [sys.executable, str(Path(__file__).parent / "graphs.py"), str(DAGS)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the graphs of the examples could not be made:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))
