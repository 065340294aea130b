"""A workflow file is read as its writer meant it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import airflow_provider_sewer
from airflow_provider_sewer import load_workflow


def test_load_workflow_returns_tasks_and_edges(write):
    """Name, docstring, tasks, edges and line come from the file."""
    path = write('''
        a = Task("a", "pkg.a", {"n": 1})
        b = Task("b", "pkg.b")

        @workflow
        def daily():
            """Purpose of the workflow.

            And more.
            """
            (a >> b).run()
    ''')

    graph = load_workflow(path)

    assert (graph.name, graph.doc) == ("daily", "Purpose of the workflow.\n\nAnd more.")
    assert graph.edges == [("a", "b")]
    assert str(graph.source) == f"{path}:5"
    assert graph.tasks["a"].arguments() == ["--n", "1"]
    assert str(graph.tasks["b"].source) == f"{path}:3"


def test_load_workflow_accepts_str_and_relative_path(write, tmp_path, monkeypatch):
    """Errors and tasks name the file by its whole path all the same."""
    path = write('Task("a", "m")')
    monkeypatch.chdir(tmp_path)

    assert load_workflow("flow.py").tasks["a"].source.file == str(path)


SEVERAL = """
    a, b = Task("a", "m"), Task("b", "m")

    @workflow
    def one():
        a.run()

    @workflow
    def {other}():
        b.run()
"""


def test_load_workflow_selects_workflow_by_name(write):
    """Each has its own tasks, though they share a file."""
    path = write(SEVERAL.format(other="other"))

    assert list(load_workflow(path, "one").tasks) == ["a"]
    assert list(load_workflow(path, "other").tasks) == ["b"]


def test_load_workflow_selects_default_workflow(write):
    """It need not be named."""
    path = write(SEVERAL.format(other="workflow"))

    assert list(load_workflow(path).tasks) == ["b"]


def test_load_workflow_without_workflow_function_returns_all_tasks(write):
    """Tied or not, in variables or not, in the order they were made."""
    source = '''
        """A whole file."""
        from airflow_provider_sewer import Task
        tasks = [Task(f"t{i}", "m") for i in range(2)]
        last = Task("last", "m", depends_on="t0")
        tasks[1] >> last
        Task("alone", "m")
    '''

    graph = load_workflow(write(source, imports=""))

    assert list(graph.tasks) == ["t0", "t1", "last", "alone"]
    assert set(graph.edges) == {("t0", "last"), ("t1", "last")}
    assert (graph.name, graph.doc) == ("workflow", "A whole file.")


def test_load_workflow_with_top_level_run_returns_its_tasks(write, tmp_path):
    """``(a >> b).run()`` without a function is recorded too, and starts nothing."""
    path = write(f"""
        import sys
        a = Task("a", "touch", python=sys.executable, workdir={str(tmp_path)!r})
        b = Task("b", "touch")
        (a >> b).run(env={{"N": 1}})
    """)
    write("open('touched', 'w')", "touch.py", imports="")

    graph = load_workflow(path)

    assert graph.edges == [("a", "b")]
    assert list(graph.tasks) == ["a", "b"]
    assert graph.tasks["b"].settings.env == {"N": "1"}
    assert not (tmp_path / "touched").exists()


def test_relative_paths_are_resolved_against_file(write, tmp_path, monkeypatch):
    """Also in ``.run(…)``, and wherever the reader stands."""
    path = write("""
        @workflow
        def w():
            Task("a", "m", python="env/bin/python").run(workdir="data")
    """)
    monkeypatch.chdir("/")

    settings = load_workflow(path).tasks["a"].settings

    assert (settings.python, settings.workdir) == (str(tmp_path / "env/bin/python"), str(tmp_path / "data"))


def test_load_workflow_skips_main_block(write):
    """The block ``if __name__ == "__main__":`` runs only when the file itself is run."""
    path = write("""
        Task("a", "m")
        if __name__ == "__main__":
            raise SystemExit("never")
    """)

    assert list(load_workflow(path).tasks) == ["a"]


def test_main_block_runs_workflow_in_plain_python(write, tmp_path):
    """The same file, run by Python itself, really runs."""
    write("open('ran', 'w').write('yes')", "job.py", imports="")
    path = write("""
        import os, sys
        a = Task("a", "job", python=sys.executable, workdir=".", env={"PYTHONPATH": os.path.dirname(__file__)})

        @workflow
        def w():
            a.run()

        if __name__ == "__main__":
            w()
    """)

    run_in_python(path)

    assert (tmp_path / "ran").read_text() == "yes"


def run_in_python(path) -> None:
    """Run a file as a user does, in an interpreter that finds this package where this one does."""
    folder = Path(airflow_provider_sewer.__file__).parent.parent
    subprocess.run([sys.executable, path], env={**os.environ, "PYTHONPATH": str(folder)}, check=True, timeout=60)


@pytest.mark.parametrize(
    "name", ["json.py", "airflow_provider_sewer.py", "__main__.py", "site.py", "sewer.py", "a-b.c.py"]
)
def test_load_workflow_accepts_any_file_name(write, name):
    """Also the name of a module that it, or this package, imports."""
    path = write("import json\nfrom airflow_provider_sewer.core.task import Task\nTask(json.dumps('a'), 'm')", name)

    assert list(load_workflow(path).tasks) == ['"a"']


@pytest.mark.parametrize(
    "name", ["two\nlines.py", 'it\'s "quoted".py', "übung 🚰.py", "\udcff.py", "no ending", "$HOME *.py"]
)
def test_load_workflow_accepts_any_folder(write, name):
    """Spaces, quotes, line breaks, odd letters and bytes in a path are just a path."""
    path = write("import helper; Task('a', helper.M)", f"{name}.d/{name}")
    write("M = 'm'", f"{name}.d/helper.py", imports="")

    assert load_workflow(path).tasks["a"].source.file == str(path)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + "# ü\nfrom sewer.config import Task\nTask('ü', 'm')\n".encode(),
        "# coding: latin-1\nfrom sewer.config import Task\nTask('ü', 'm')\n".encode("latin-1"),
        "from sewer.config import Task\r\nTask('ü', 'm')\r\n".encode(),
        "from sewer.config import Task\rTask('ü', 'm')\r".encode(),
        "from sewer.config import Task\nTask('ü', 'm')".encode(),
    ],
    ids=["BOM", "latin-1", "CRLF", "CR", "no line end"],
)
def test_load_workflow_decodes_source_like_python(write, content):
    """Encodings and line ends are Python's business."""
    assert list(load_workflow(write(content)).tasks) == ["ü"]


def test_load_workflow_follows_symlink(write, tmp_path):
    """Its helpers lie beside the real file, as for ``python link.py``; its relative paths start at the link."""
    write("M = 'm'", "real/helper.py", imports="")
    real = write("import helper; Task('a', helper.M, workdir='data')", "real/flow.py")
    link = tmp_path / "dags" / "flow.py"
    link.parent.mkdir()
    link.symlink_to(real)

    task = load_workflow(link).tasks["a"]

    assert task.source.file == str(link)
    assert task.settings.workdir == str(tmp_path / "dags" / "data")


def test_load_workflow_includes_tasks_of_compiled_text(write):
    """``exec`` is a way to write them, too."""
    path = write("exec(\"Task('a', 'm')\")\nexec(\"Task('b', 'm')\", {'Task': Task})")

    assert list(load_workflow(path).tasks) == ["a", "b"]


def test_load_workflow_accepts_decorated_workflow(write):
    """Another decorator above or below changes neither its name nor its line."""
    write("""
        import functools

        def timed(function):
            @functools.wraps(function)
            def wrapper():
                return function()
            return wrapper
    """, "helper.py", imports="")  # fmt: skip
    path = write("""
        from helper import timed

        @timed
        @workflow
        def outside():
            Task("a", "m").run()

        @workflow
        @timed
        def inside():
            Task("b", "m").run()
    """)

    assert str(load_workflow(path, "outside").source) == f"{path}:5"
    assert str(load_workflow(path, "inside").source) == f"{path}:9"


def test_load_workflow_supports_dataclasses_in_workflow(write):
    """Dataclasses ask ``sys.modules`` for the file while it is loaded."""
    path = write("""
        from dataclasses import dataclass

        @dataclass
        class Options:
            n: "int" = 1

        Task("a", "m", {"n": Options().n})
    """, imports="from __future__ import annotations\nfrom airflow_provider_sewer import Task\n")  # fmt: skip

    assert load_workflow(path).tasks["a"].arguments() == ["--n", "1"]


def test_load_workflow_ignores_odd_objects(write):
    """An object that has any attribute one asks for, or fails when asked, is left alone."""
    path = write("""
        class Anything:
            def __getattr__(self, name):
                return None

        class Nothing:
            def __getattr__(self, name):
                raise RuntimeError(name)

        any, none = Anything(), Nothing()
        Task("a", "m")
    """)

    assert list(load_workflow(path).tasks) == ["a"]


def test_load_workflow_supports_chain_of_5000_tasks(write):
    """Grown in a loop, tied, and put in order."""
    path = write("""
        chain = first = Task("t0", "m")
        for i in range(1, 5000):
            chain = chain >> Task(f"t{i}", "m")

        @workflow
        def w():
            chain.run()
    """)

    graph = load_workflow(path)

    assert len(graph.edges) == 4999
    assert graph.order == tuple(f"t{i}" for i in range(5000))
