"""A workflow file imports modules beside it, and tasks from them become its own."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from airflow_provider_sewer import load_workflow


def test_relative_paths_in_helper_are_resolved_against_helper(write, tmp_path):
    """A relative path refers to the file in which it is written."""
    write("def make():\n    return Task('a', 'm', workdir='data')", "lib/helper.py")

    graph = load_workflow(write("from lib.helper import make\nmake()"))

    assert graph.tasks["a"].settings.workdir == str(tmp_path / "lib" / "data")


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
def test_load_workflow_supports_former_module_names(write, imports):
    """Their import lines mean this package's names."""
    path = write(f"{imports}\na = Task('a', 'm')\n@workflow\ndef w():\n    a.run()\n", imports="")

    assert list(load_workflow(path).tasks) == ["a"]


def test_load_workflow_supports_former_module_names_in_helper(write):
    """The old names exist for all that the file imports from its folder."""
    write("from sewer.config import Task\na = Task('a', 'm')", "helper.py", imports="")

    assert list(load_workflow(write("from helper import a")).tasks) == ["a"]


def test_load_workflow_imports_from_own_folder(write):
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


def test_import_prefers_own_folder_to_installed_packages(write):
    """As for a script: a helper is not hidden by a package that is installed under its name."""
    write("NAME = 'mine'", "pip.py", imports="")

    assert list(load_workflow(write("import pip; Task(pip.NAME, 'm')")).tasks) == ["mine"]


def test_import_prefers_standard_library_to_own_folder(write, monkeypatch):
    """A helper named like a module of Python does not affect the imports of Python itself."""
    write("raise ZeroDivisionError", "colorsys.py", imports="")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)

    graph = load_workflow(write("import colorsys; Task(colorsys.rgb_to_hsv.__name__, 'm')"))

    assert list(graph.tasks) == ["rgb_to_hsv"]


def test_import_searches_folder_of_symlink(write, tmp_path):
    """The folder through which the file is opened comes first."""
    real = write("import helper; Task('a', helper.M)", "real/flow.py")
    write("M = 'real'", "real/helper.py", imports="")
    write("M = 'link'", "dags/helper.py", imports="")
    link = tmp_path / "dags" / "flow.py"
    link.symlink_to(real)

    assert load_workflow(link).tasks["a"].module == "link"


def test_imported_task_belongs_to_workflow_that_uses_it(write):
    """A helper's tasks belong to the file if it imports them by name; unused ones stay out."""
    write("used = Task('used', 'm')\nunused = Task('unused', 'm')\nused >> unused", "helper.py")

    assert list(load_workflow(write("from helper import used\nTask('own', 'm')")).tasks) == ["own", "used"]


def test_tasks_created_by_helper_function_belong_to_file(write):
    """A function of a helper may create tasks, wherever the helper lies."""
    write("def make(name):\n    return Task(name, 'm')", "helper.py")

    graph = load_workflow(write("import helper\ntasks = [helper.make('a'), helper.make('b')]\nhelper.make('c')"))

    assert list(graph.tasks) == ["a", "b", "c"]


def test_tasks_of_second_import_are_excluded(write):
    """A helper may import the file that imports it: Python then runs the file twice."""
    write("import flow", "helper.py", imports="")

    assert list(load_workflow(write("import helper\nTask('a', 'm')")).tasks) == ["a"]


def test_imported_workflow_belongs_to_file(write):
    """Only workflows of the file itself, or imported by name, can be chosen."""
    write("""
        @workflow
        def imported():
            Task("a", "m").run()

        @workflow
        def hidden():
            Task("b", "m").run()
    """, "helper.py")  # fmt: skip

    assert load_workflow(write("from helper import imported")).name == "imported"


def test_called_workflow_of_helper_is_group(write):
    """In a workflow of its own, or at the top of a file that declares none."""
    write("a = Task('a', 'm')\n@workflow\ndef prepare():\n    a.run()", "helper.py")
    path = write("import helper\nb = Task('b', 'm')\n@workflow\ndef whole():\n    helper.prepare()\n    b.run()")
    at_the_top = write("import helper\nhelper.prepare()\nTask('b', 'm').run()", "top.py")

    for loaded in (load_workflow(path, "whole"), load_workflow(at_the_top)):
        assert loaded.edges == [("a", "b")]
        assert [task.group for task in loaded.tasks.values()] == ["prepare", ""]


def test_load_workflow_supports_nested_load(write):
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


def test_load_workflow_is_thread_safe(write):
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
