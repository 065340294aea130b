"""A workflow file is read as its writer meant it."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

import airflow_provider_sewer
from airflow_provider_sewer import load_workflow


def test_a_workflow_is_its_tasks_and_edges(write):
    """Name, docstring, tasks, edges and line come from the file."""
    path = write('''
        a = Task("a", "pkg.a", {"n": 1})
        b = Task("b", "pkg.b")

        @workflow
        def daily():
            """What it is for.

            And more.
            """
            (a >> b).run()
    ''')

    graph = load_workflow(path)

    assert (graph.name, graph.doc) == ("daily", "What it is for.\n\nAnd more.")
    assert graph.edges == [("a", "b")]
    assert str(graph.source) == f"{path}:5"
    assert graph.tasks["a"].arguments() == ["--n", "1"]
    assert str(graph.tasks["b"].source) == f"{path}:3"


def test_a_path_may_be_text_or_relative(write, tmp_path, monkeypatch):
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


def test_of_several_workflows_one_is_named(write):
    """Each has its own tasks, though they share a file."""
    path = write(SEVERAL.format(other="other"))

    assert list(load_workflow(path, "one").tasks) == ["a"]
    assert list(load_workflow(path, "other").tasks) == ["b"]


def test_of_several_workflows_the_one_named_workflow_is_the_default(write):
    """It need not be named."""
    path = write(SEVERAL.format(other="workflow"))

    assert list(load_workflow(path).tasks) == ["b"]


def test_a_file_without_a_workflow_is_all_its_tasks(write):
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


def test_a_file_that_runs_at_its_top_is_what_it_runs(write, tmp_path):
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


def test_relative_paths_are_those_of_the_file(write, tmp_path, monkeypatch):
    """Also in ``.run(…)``, and wherever the reader stands."""
    path = write("""
        @workflow
        def w():
            Task("a", "m", python="env/bin/python").run(workdir="data")
    """)
    monkeypatch.chdir("/")

    settings = load_workflow(path).tasks["a"].settings

    assert (settings.python, settings.workdir) == (str(tmp_path / "env/bin/python"), str(tmp_path / "data"))


def test_relative_paths_in_a_helper_are_those_of_the_helper(write, tmp_path):
    """A path means what it says where it is written."""
    write("def make():\n    return Task('a', 'm', workdir='data')", "lib/helper.py")

    graph = load_workflow(write("from lib.helper import make\nmake()"))

    assert graph.tasks["a"].settings.workdir == str(tmp_path / "lib" / "data")


def test_the_main_block_is_not_run(write):
    """``if __name__ == "__main__":`` is for who runs the file itself."""
    path = write("""
        Task("a", "m")
        if __name__ == "__main__":
            raise SystemExit("never")
    """)

    assert list(load_workflow(path).tasks) == ["a"]


def test_the_main_block_runs_the_file_in_plain_python(write, tmp_path):
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
    """Run a file the way a person does, in an interpreter that finds this package where this one does."""
    folder = Path(airflow_provider_sewer.__file__).parent.parent
    subprocess.run([sys.executable, path], env={**os.environ, "PYTHONPATH": str(folder)}, check=True, timeout=60)


@pytest.mark.parametrize(
    "imports",
    [
        "from sewer.config import Task\nfrom sewer.workflows import workflow",
        "from sewerpipe.task import Task\nfrom sewerpipe.workflows import workflow",
        "from sewerpipe.config import Task\nfrom sewerpipe.workflows import workflow",
        "import sewer.config, sewer.workflows\nTask, workflow = sewer.config.Task, sewer.workflows.workflow",
        "import sewerpipe.task as t, sewerpipe.workflows as w\nTask, workflow = t.Task, w.workflow",
        "from sewer import config, workflows\nTask, workflow = config.Task, workflows.workflow",
    ],
)
def test_files_written_for_sewer_and_sewerpipe_load_unchanged(write, imports):
    """Their import lines mean this package's names."""
    path = write(f"{imports}\na = Task('a', 'm')\n@workflow\ndef w():\n    a.run()\n", imports="")

    assert list(load_workflow(path).tasks) == ["a"]


def test_a_former_name_in_a_helper_works_as_well(write):
    """The old names exist for all that the file imports from its folder."""
    write("from sewer.config import Task\na = Task('a', 'm')", "helper.py", imports="")

    assert list(load_workflow(write("from helper import a")).tasks) == ["a"]


def test_the_files_own_folder_can_be_imported_from(write):
    """Modules, packages and folders without ``__init__.py``, at the top and inside the function."""
    write("MODULE = 'pkg.one'", "helper.py", imports="")
    write("", "package/__init__.py", imports="")
    write("MODULE = 'pkg.two'", "package/inner.py", imports="")
    write("MODULE = 'pkg.three'", "plain/inner.py", imports="")
    path = write("""
        import helper
        from package.inner import MODULE

        @workflow
        def w():
            from plain import inner
            (Task("1", helper.MODULE) >> Task("2", MODULE) >> Task("3", inner.MODULE)).run()
    """)

    assert [task.module for task in load_workflow(path).tasks.values()] == ["pkg.one", "pkg.two", "pkg.three"]


def test_the_own_folder_comes_before_installed_packages(write):
    """As for a script: a helper is not hidden by a package that is installed under its name."""
    write("NAME = 'mine'", "pip.py", imports="")

    assert list(load_workflow(write("import pip; Task(pip.NAME, 'm')")).tasks) == ["mine"]


def test_the_standard_library_comes_before_the_own_folder(write, monkeypatch):
    """A helper named like a module of Python cannot get into what Python itself imports."""
    write("raise ZeroDivisionError", "colorsys.py", imports="")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)

    graph = load_workflow(write("import colorsys; Task(colorsys.rgb_to_hsv.__name__, 'm')"))

    assert list(graph.tasks) == ["rgb_to_hsv"]


@pytest.mark.parametrize(
    "name", ["json.py", "airflow_provider_sewer.py", "__main__.py", "site.py", "sewer.py", "a-b.c.py"]
)
def test_a_file_may_have_any_name(write, name):
    """Also the name of a module that it, or this package, imports."""
    path = write("import json\nfrom airflow_provider_sewer.core.task import Task\nTask(json.dumps('a'), 'm')", name)

    assert list(load_workflow(path).tasks) == ['"a"']


@pytest.mark.parametrize(
    "name", ["two\nlines.py", 'it\'s "quoted".py', "übung 🚰.py", "\udcff.py", "no ending", "$HOME *.py"]
)
def test_a_file_may_lie_anywhere(write, name):
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
def test_a_file_is_decoded_as_python_does(write, content):
    """Encodings and line ends are Python's business."""
    assert list(load_workflow(write(content)).tasks) == ["ü"]


def test_a_symbolic_link_is_the_file_it_points_to(write, tmp_path):
    """Its helpers lie beside the real file, as for ``python link.py``; its relative paths start at the link."""
    write("M = 'm'", "real/helper.py", imports="")
    real = write("import helper; Task('a', helper.M, workdir='data')", "real/flow.py")
    link = tmp_path / "dags" / "flow.py"
    link.parent.mkdir()
    link.symlink_to(real)

    task = load_workflow(link).tasks["a"]

    assert task.source.file == str(link)
    assert task.settings.workdir == str(tmp_path / "dags" / "data")


def test_beside_a_symbolic_link_can_be_imported_too(write, tmp_path):
    """The folder somebody sees the file in comes first."""
    real = write("import helper; Task('a', helper.M)", "real/flow.py")
    write("M = 'real'", "real/helper.py", imports="")
    write("M = 'link'", "dags/helper.py", imports="")
    link = tmp_path / "dags" / "flow.py"
    link.symlink_to(real)

    assert load_workflow(link).tasks["a"].module == "link"


def test_a_task_of_a_helper_belongs_to_the_workflow_that_uses_it(write):
    """A helper's tasks are the file's if it imports them by name; what it does not use stays out."""
    write("used = Task('used', 'm')\nunused = Task('unused', 'm')\nused >> unused", "helper.py")

    assert list(load_workflow(write("from helper import used\nTask('own', 'm')")).tasks) == ["own", "used"]


def test_tasks_that_a_helper_makes_for_the_file_are_the_files(write):
    """A function of a helper that makes tasks is a way to write them, wherever they are kept."""
    write("def make(name):\n    return Task(name, 'm')", "helper.py")

    graph = load_workflow(write("import helper\ntasks = [helper.make('a'), helper.make('b')]\nhelper.make('c')"))

    assert list(graph.tasks) == ["a", "b", "c"]


def test_what_a_file_makes_when_it_is_imported_a_second_time_is_not_its_own(write):
    """A helper may import the file that imports it: Python then runs the file twice."""
    write("import flow", "helper.py", imports="")

    assert list(load_workflow(write("import helper\nTask('a', 'm')")).tasks) == ["a"]


def test_tasks_made_by_text_that_the_file_compiles_are_the_files(write):
    """``exec`` is a way to write them, too."""
    path = write("exec(\"Task('a', 'm')\")\nexec(\"Task('b', 'm')\", {'Task': Task})")

    assert list(load_workflow(path).tasks) == ["a", "b"]


def test_a_workflow_of_a_helper_is_the_files_if_it_imports_it(write):
    """Only what stands in the file, or is imported by name, can be chosen."""
    write("""
        @workflow
        def imported():
            Task("a", "m").run()

        @workflow
        def hidden():
            Task("b", "m").run()
    """, "helper.py")  # fmt: skip

    assert load_workflow(write("from helper import imported")).name == "imported"


def test_a_workflow_of_a_helper_that_a_file_calls_is_a_group_of_it(write):
    """In a workflow of its own, or at the top of a file that declares none."""
    write("a = Task('a', 'm')\n@workflow\ndef prepare():\n    a.run()", "helper.py")
    path = write("import helper\nb = Task('b', 'm')\n@workflow\ndef whole():\n    helper.prepare()\n    b.run()")
    at_the_top = write("import helper\nhelper.prepare()\nTask('b', 'm').run()", "top.py")

    for loaded in (load_workflow(path, "whole"), load_workflow(at_the_top)):
        assert loaded.edges == [("a", "b")]
        assert [task.group for task in loaded.tasks.values()] == ["prepare", ""]


def test_a_decorated_workflow_is_still_one(write):
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


def test_a_workflow_may_define_classes_that_look_up_their_module(write):
    """Dataclasses ask ``sys.modules`` for the file while it is loaded."""
    path = write("""
        from dataclasses import dataclass

        @dataclass
        class Options:
            n: "int" = 1

        Task("a", "m", {"n": Options().n})
    """, imports="from __future__ import annotations\nfrom airflow_provider_sewer import Task\n")  # fmt: skip

    assert load_workflow(path).tasks["a"].arguments() == ["--n", "1"]


def test_odd_objects_in_variables_are_no_workflows(write):
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


def test_a_file_may_load_another_one(write):
    """Each has its own tasks and its own helper."""
    write("import helper; Task(helper.NAME, 'm')", "inner/flow.py")
    write("NAME = 'inner'", "inner/helper.py", imports="")
    write("NAME = 'outer'", "helper.py", imports="")
    path = write("""
        import helper
        from pathlib import Path
        from airflow_provider_sewer import load_workflow

        inner = load_workflow(Path(__file__).parent / "inner" / "flow.py")
        import helper as again
        Task(again.NAME, "m", {"inner": list(inner.tasks)})
    """)

    assert load_workflow(path).tasks["outer"].arguments() == ["--inner", "inner"]


def test_two_threads_can_load_files_at_once(write):
    """Helpers of one name, in many folders, do not meet."""
    paths = []
    for i in range(8):
        write(f"NAME = 'task{i}'", f"{i}/helper.py", imports="")
        paths.append(write("import helper; a = Task(helper.NAME, 'm'); (a >> Task('b', 'm')).run()", f"{i}/flow.py"))
    barrier = Barrier(len(paths))

    def load(path):
        barrier.wait()
        return load_workflow(path)

    with ThreadPoolExecutor(len(paths)) as pool:
        graphs = list(pool.map(load, paths))

    assert [graph.edges for graph in graphs] == [[(f"task{i}", "b")] for i in range(8)]


def test_a_chain_of_five_thousand_tasks_is_read(write):
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
