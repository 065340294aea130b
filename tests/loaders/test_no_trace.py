"""Loading a file leaves no trace of it in this process."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from textwrap import dedent
from types import ModuleType

import pytest

import airflow_provider_sewer
from airflow_provider_sewer import SewerError, Task, load_module, load_workflow


@pytest.fixture
def state():
    """Return a function that returns the state that loading must not change."""

    def look():
        return {
            "sys.path": (id(sys.path), list(sys.path)),
            "sys.meta_path": (id(sys.meta_path), list(sys.meta_path)),
            "sys.path_hooks": list(sys.path_hooks),
            "sys.modules": dict(sys.modules),
            "streams": (sys.stdin, sys.stdout, sys.stderr),
        }

    return look


NOISE = """
    import helper, package.inner, plain.inner, sewer.config
    print("to stdout")
    Task("a", "m").run()

    @workflow
    def w():
        import late
        print("to stdout, later")
        (Task("b", "m") >> Task("c", "m")).run()
"""


@pytest.fixture
def noisy(write):
    """Write a file with helpers of all kinds, which prints and runs."""
    for name in ("helper.py", "package/__init__.py", "package/inner.py", "plain/inner.py", "late.py"):
        write("print('helper')", name, imports="")
    return write(NOISE)


def test_isolated_import_restores_paths_modules_and_streams(noisy, state):
    """Helpers, packages with their parts, former names, the file itself: all gone."""
    before = state()

    load_workflow(noisy)

    assert state() == before


def test_isolated_import_restores_after_error(noisy, state):
    """An error halfway is no excuse."""
    noisy.write_text(noisy.read_text() + "\n1 / 0\n")
    before = state()

    with pytest.raises(SewerError, match="ZeroDivisionError"):
        load_workflow(noisy)

    assert state() == before


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "GeneratorExit", "Timeout"])
def test_isolated_import_restores_after_keyboard_interrupt(write, state, error):
    """Ctrl-C and the timeouts of Airflow, which are no ``Exception``, are not taken for a bad file."""
    path = write(f"import helper\nclass Timeout(BaseException): pass\nraise {error}('now')")
    write("", "helper.py", imports="")
    before = state()

    with pytest.raises(BaseException, match="now") as caught:
        load_workflow(path)

    assert (caught.type.__name__, state()) == (error, before)


def test_isolated_import_redirects_stdout_to_stderr(noisy, capsys):
    """Our own stdout may be read by a program."""
    load_workflow(noisy)

    output = capsys.readouterr()
    assert output.out == ""
    assert "to stdout\n" in output.err
    assert "to stdout, later\n" in output.err


def test_isolated_import_redirects_stdout_of_subprocess(write, capfd):
    """The file may, for example, ask git for a version."""
    load_workflow(write("import os; os.system('echo from a child'); Task('a', 'm')"))

    output = capfd.readouterr()
    assert output.out == ""
    assert "from a child\n" in output.err


def test_isolated_import_supports_closed_stdout(write):
    """A daemon may have closed it."""
    path = write("print('x'); Task('a', 'm')")
    code = f"""
import os, sys
os.close(1)
sys.stdout = None
from airflow_provider_sewer import load_workflow
os.write(2, repr(list(load_workflow({str(path)!r}).tasks)).encode())
"""
    folder = os.path.dirname(os.path.dirname(airflow_provider_sewer.__file__))
    child = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": folder}, capture_output=True, check=True
    )

    assert child.stderr.decode() == "x\n['a']"


def test_isolated_import_restores_import_finders(write, state):
    """Additions, new lists in the place of the old ones, hooks: undone."""
    path = write("""
        import os, sys
        here = os.path.dirname(__file__)
        sys.path.append(os.path.join(here, "lib"))
        import shared
        sys.path = [os.path.join(here, "lib")]
        sys.meta_path = list(sys.meta_path)
        sys.path_hooks.append(print)
        sys.stdout = sys.stderr = sys.stdin = open(os.devnull)
        Task(shared.NAME, "m")
    """)
    write("NAME = 'a'", "lib/shared.py", imports="")
    before = state()

    assert list(load_workflow(path).tasks) == ["a"]
    assert state() == before


def test_isolated_import_restores_sys_modules(write, state):
    """Replaced, taken out, or put in by hand."""
    path = write("""
        import sys
        from types import ModuleType
        sys.modules["json"] = ModuleType("json")
        del sys.modules["textwrap"]
        sys.modules["by_hand"] = ModuleType("by_hand")
        import by_hand
        Task("a", "m")
    """)
    before = state()

    load_workflow(path)

    assert state() == before


def test_isolated_import_separates_helpers_of_same_name(write):
    """The second file gets its own, from its own folder or from where it looks."""
    source = """
        import os, sys
        sys.path.append(os.path.join(os.path.dirname(__file__), "lib"))
        import helper, shared
        Task(helper.NAME + shared.NAME, "m")
    """
    paths = [write(source, f"{i}/flow.py") for i in "12"]
    for i in "12":
        write(f"NAME = 'helper{i}'", f"{i}/helper.py", imports="")
        write(f"NAME = 'shared{i}'", f"{i}/lib/shared.py", imports="")

    names = [list(load_workflow(path).tasks) for path in (*paths, paths[0])]

    assert names == [["helper1shared1"], ["helper2shared2"], ["helper1shared1"]]


def test_isolated_import_ignores_loaded_module_of_same_name(write, monkeypatch, tmp_path):
    """The file gets its own helper, and the module that had imported another one keeps that."""
    write("NAME = 'elsewhere'", "elsewhere/helper/__init__.py", imports="")
    write("NAME = 'elsewhere'", "elsewhere/helper/part.py", imports="")
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    part = importlib.import_module("helper.part")
    try:
        write("", "own/helper/__init__.py", imports="")
        write("NAME = 'own'", "own/helper/part.py", imports="")
        path = write("from helper import part; Task(part.NAME, 'm')", "own/flow.py")

        assert list(load_workflow(path).tasks) == ["own"]
        assert sys.modules["helper.part"] is part
        assert importlib.import_module("helper").part is part
    finally:
        sys.modules.pop("helper.part")
        sys.modules.pop("helper")


def test_isolated_import_reloads_changed_helper(write):
    """No state of an earlier load is cached."""
    path = write("import helper; Task(helper.NAME, 'm')")
    write("NAME = 'before'", "helper.py", imports="")
    load_workflow(path)
    write("NAME = 'afterwards'", "helper.py", imports="")

    assert list(load_workflow(path).tasks) == ["afterwards"]


def test_isolated_import_shares_modules_of_current_program(write, monkeypatch, tmp_path):
    """A helper that was already imported from this very folder is the same one."""
    write("TASKS = []", "helper_of_both.py", imports="")
    monkeypatch.syspath_prepend(str(tmp_path))
    helper = importlib.import_module("helper_of_both")
    try:
        load_workflow(write("import helper_of_both as h; h.TASKS.append(Task('a', 'm'))"))
        assert [task.name for task in helper.TASKS] == ["a"]
    finally:
        sys.modules.pop("helper_of_both")


def test_isolated_import_keeps_installed_packages(write, monkeypatch):
    """They are the same for all importers, and many cannot be loaded twice."""
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    monkeypatch.delitem(sys.modules, "iniconfig", raising=False)
    path = write("import colorsys, iniconfig\nTask('a', 'm')")

    load_workflow(path)
    loaded = sys.modules["iniconfig"], sys.modules["colorsys"]
    load_workflow(path)

    assert (sys.modules["iniconfig"], sys.modules["colorsys"]) == loaded


def test_isolated_import_keeps_finders_of_installed_packages(write, install, monkeypatch):
    """``six.moves`` is found by a finder that ``six`` puts in place once, when it is imported."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    finder = """
        import importlib.machinery, sys

        class Finder:
            def find_spec(self, name, path=None, target=None):
                return importlib.machinery.ModuleSpec(name, self) if name == "like_six.moves" else None
            def create_module(self, spec):
                return None
            def exec_module(self, module):
                module.NAME = "moved"

        __path__ = []
        sys.meta_path.append(Finder())
    """
    install("like_six", {"__init__.py": dedent(finder)})

    load_workflow(write("import like_six; Task('a', 'm')"))

    assert importlib.import_module("like_six.moves").NAME == "moved"


@pytest.fixture
def certificates(install):
    """Install a package named ``sewer`` that has nothing to do with sewer files, as PyPI's has."""
    install("sewer", {"__init__.py": "NAME = 'certificates'", "config.py": "ACME = 1"})


@pytest.mark.usefixtures("certificates")
def test_former_names_do_not_replace_installed_package(write):
    """A file that imports the installed ``sewer`` gets it."""
    path = write("import sewer.config; Task(sewer.NAME, 'm', {'acme': sewer.config.ACME})")

    assert load_workflow(path).tasks["certificates"].arguments() == ["--acme", "1"]


@pytest.mark.usefixtures("certificates")
@pytest.mark.parametrize("line", ["from sewer.config import Task", "from sewer.workflows import workflow"])
def test_import_error_of_installed_former_package_has_hint(write, line):
    """A package of another owner is not changed; the message includes the fix."""
    with pytest.raises(SewerError, match="write: from airflow_provider_sewer import Task, workflow"):
        load_workflow(write(line, imports=""))


def test_former_names_exist_only_during_load(write):
    """They cannot be imported afterwards."""
    load_workflow(write("from sewer.config import Task; Task('a', 'm')", imports=""))

    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("sewerpipe")
    assert "sewer" not in sys.modules


def test_load_workflow_does_not_share_tasks_between_files(write):
    """Declarations of one file are unknown to the next one, also under the same names."""
    source = """
        a = Task("a", "{0}")

        @workflow
        def w():
            a.run()
    """
    one, two = write(source.format("one"), "one.py"), write(source.format("two"), "two.py")

    assert [load_workflow(path).tasks["a"].module for path in (one, two, one)] == ["one", "two", "one"]


def test_task_created_outside_load_is_in_no_workflow(write):
    """The tasks of the loading file are not the tasks of the loaded one."""
    Task("mine", "m")

    assert list(load_workflow(write("Task('a', 'm')")).tasks) == ["a"]


def test_load_module_result_works_after_restore(write):
    """Its functions still see its variables and its imports."""
    write("def double(n):\n    return 2 * n", "helper.py", imports="")
    module = load_module(write("""
        import helper
        factor = 2

        def f(n):
            return factor * helper.double(n)
    """))  # fmt: skip

    assert isinstance(module, ModuleType)
    assert module.f(1) == 4
    assert module.__name__ not in sys.modules


def test_isolated_import_restores_working_directory(write, tmp_path):
    """A file that goes somewhere else goes there alone."""
    before = os.getcwd()

    load_workflow(write(f"import os; os.chdir({str(tmp_path)!r}); Task('a', 'm')"))

    assert os.getcwd() == before


def test_isolated_import_supports_missing_working_directory(write, tmp_path, monkeypatch):
    """Another program may have removed the file."""
    path = write("Task('a', 'm')")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert list(load_workflow(path).tasks) == ["a"]
