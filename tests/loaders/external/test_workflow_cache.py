"""The disk cache of loaded workflow files, and the changes that invalidate it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import py_compile
import shutil
from pathlib import Path

import pytest

from airflow_provider_sewer.core.serialization import workflow_to_data

from .external_env import COUNTED, IMPORTS, refusal


def test_unchanged_workflow_file_is_loaded_once(land):
    """The second time the interpreter is not even started; the workflow is the same."""
    land.write("NAME = 'a'", "helper.py")
    land.write(COUNTED + "import helper\nTask(helper.NAME, 'm')")

    first, second = land.read(), land.read()

    assert land.loads == 1
    assert workflow_to_data(first) == workflow_to_data(second)


def test_disk_cache_is_shared_between_processes(land, script):
    """DAG files are parsed by processes that live for a moment."""
    land.write(COUNTED + "Task('a', 'm')")
    land.read()

    other = script(
        """
        import sys
        from airflow_provider_sewer.core.execution_settings import ExecutionSettings
        from airflow_provider_sewer.loaders.external.reader import read_workflow
        print(read_workflow(sys.argv[1], None, ExecutionSettings(python=sys.argv[2])))
        """,
        str(land.file),
        str(land.python),
    )

    assert other.output() == "Workflow('workflow', tasks=['a'])\n"
    assert land.loads == 1


def test_changed_workflow_file_invalidates_cache(land):
    """Also with the same time and size."""
    land.write("Task('a', 'm')")
    assert land.tasks() == ["a"]
    status = os.stat(land.file)

    land.write("Task('b', 'm')")
    os.utime(land.file, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert land.tasks() == ["b"]


@pytest.mark.parametrize("name", ["helper.py", "package/inner.py", "names.txt"])
def test_changed_import_or_read_file_invalidates_cache(land, name):
    """A change of a module, a part of a package, or a text invalidates the cache."""
    land.write(
        {
            "helper.py": "from helper import NAME; Task(NAME, 'm')",
            "package/inner.py": "from package.inner import NAME; Task(NAME, 'm')",
            "names.txt": "NAME = ''\nexec(open(__file__.replace('flow.py', 'names.txt')).read()); Task(NAME, 'm')",
        }[name]
    )
    land.write("NAME = 'a'", name)
    assert land.tasks() == ["a"]

    land.write("NAME = 'b'", name)

    assert land.tasks() == ["b"]


def test_created_file_that_was_missing_invalidates_cache(land):
    """A module that may be there or not, and a folder that it goes through."""
    land.write("""
        import os
        try:
            from local import NAME
        except ImportError:
            NAME = "none"
        Task(NAME, "m")
        for name in sorted(os.listdir(os.path.dirname(__file__) + "/data")):
            Task(name, "m")
    """)
    land.write("", "data/x")
    assert land.tasks() == ["none", "x"]

    land.write("", "data/y")
    assert land.tasks() == ["none", "x", "y"]

    land.write("NAME = 'local'", "local.py")
    assert land.tasks() == ["local", "x", "y"]


def test_changed_compiled_module_invalidates_cache(land):
    """Python then opens the compiled file, but users change the source."""
    land.write("NAME = 'a'", "helper.py")
    py_compile.compile(str(land.folder / "helper.py"))
    land.write("import helper\nTask(helper.NAME, 'm')")
    assert land.tasks() == ["a"]

    land.write("NAME = 'changed'", "helper.py")

    assert land.tasks() == ["changed"]


def test_changed_startup_folder_invalidates_cache(land, tmp_path):
    """A module that comes to lie there stands before the one that was found."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    (tmp_path / "second" / "project.py").write_text("NAME = 'second'")
    land.write("import project\nTask(project.NAME, 'm')")
    path = {"PYTHONPATH": f"{tmp_path}/first:{tmp_path}/second"}
    assert list(land.read(env=path).tasks) == ["second"]

    (tmp_path / "first" / "project.py").write_text("NAME = 'first'")

    assert list(land.read(env=path).tasks) == ["first"]


def test_changed_extension_module_invalidates_cache(land):
    """The system opens it, not Python."""
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    source = Path(importlib.util.find_spec("_csv").origin)
    if suffix not in source.name:
        pytest.skip("this Python was built without modules of their own files")
    shutil.copy(source, land.folder / f"_csv{suffix}")
    land.write(f"""{COUNTED}
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("_csv", os.path.dirname(__file__) + "/_csv{suffix}")
importlib.util.module_from_spec(spec)
Task("a", "m")
""")
    land.read()
    with open(land.folder / f"_csv{suffix}", "ab") as file:
        file.write(b"another build")

    land.read()

    assert land.loads == 2


def test_changed_editable_install_invalidates_cache(land, tmp_path):
    """Installed by a path to its sources, as with `pip install -e`."""
    sources = tmp_path / "sources"
    sources.mkdir()
    land.install("project.pth", str(sources))
    (sources / "project.py").write_text("NAME = 'a'")
    land.write("import project\nTask(project.NAME, 'm')")
    assert land.tasks() == ["a"]

    (sources / "project.py").write_text("NAME = 'b'")

    assert land.tasks() == ["b"]


def test_changed_distribution_invalidates_cache(land):
    """A package in another version, and one that comes before it."""
    land.install("project.py", "NAME = 'old'")
    land.write(COUNTED + "import project\nTask(project.NAME, 'm')")
    assert land.tasks() == ["old"]

    land.install("project.py", "NAME = 'newer'")
    assert land.tasks() == ["newer"]

    land.install("project/__init__.py", "NAME = 'package'")
    assert land.tasks() == ["package"]
    assert land.loads == 3


def test_changed_read_arguments_invalidate_cache(land, tmp_path, monkeypatch):
    """Another workflow, other variables, another place to stand, another interpreter under the same path."""
    land.write(
        "import os, sys\n@workflow\ndef a(): Task(os.environ['X'], 'm').run()\n@workflow\ndef b(): Task('b', 'm').run()"
    )
    assert [list(land.read(name, env={"X": "x"}).tasks) for name in "ab"] == [["x"], ["b"]]
    assert list(land.read("a", env={"X": "y"}).tasks) == ["y"]

    land.write("import os, sys\nTask(os.path.basename(os.getcwd()), 'm')\nTask(os.path.basename(sys.executable), 'm')")
    monkeypatch.chdir(land.folder)
    assert land.tasks() == ["flows", "python"]
    monkeypatch.chdir(tmp_path)
    assert land.tasks()[0] == tmp_path.name
    land.python.rename(land.python.with_name("former"))
    land.python.write_text(f'#!/bin/sh\nexec {land.python.with_name("former")} "$@"\n')
    land.python.chmod(0o755)
    assert land.tasks()[1] == "former"


def test_retargeted_interpreter_link_invalidates_cache(land):
    """As it is where a repository is put in place by changing one link."""
    for name in "ab":
        land.write(f"{IMPORTS}import helper\nTask(helper.NAME, 'm')", f"{name}/flow.py")
        land.write(f"NAME = {name!r}", f"{name}/helper.py")
    land.file.symlink_to("a/flow.py")
    assert land.tasks() == ["a"]

    land.file.unlink()
    land.file.symlink_to("b/flow.py")

    assert land.tasks() == ["b"]


def test_file_changed_while_loading_is_not_cached(land):
    """The old version does not come to stand for the new one."""
    land.write("NAME = 'a'", "helper.py")
    land.write("""
        import helper
        Task(helper.NAME, "m")
        with open(helper.__file__, "w") as file:
            file.write("NAME = 'later'")
    """)
    assert land.tasks() == ["a"]

    assert land.tasks() == ["later"]


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess; name = subprocess.check_output(['sh', '-c', 'echo $(ls data | wc -l)'], text=True).strip()",
        "import os; name = 'a'; os.system('true')",
    ],
)
def test_output_of_subprocess_is_not_cached(land, source):
    """The files that they have read are unknown."""
    land.write("", "data/x")
    land.write(f"{COUNTED}\nimport os; os.chdir(os.path.dirname(__file__))\n{source}\nTask(name, 'm')")

    land.read()
    land.read()

    assert land.loads == 2


def test_platform_queries_do_not_prevent_caching(land):
    """Many packages look for a library when they are imported, by way of other programs."""
    land.write(f"{COUNTED}\nimport ctypes.util\nctypes.util.find_library('c')\nTask('a', 'm')")

    land.read()
    land.read()

    assert land.loads == 1


def test_load_error_is_not_cached(land):
    """The cause of an error may lie outside of the observed files."""
    land.write(COUNTED + "1 / 0")

    refusal(land)
    refusal(land)

    assert land.loads == 2


@pytest.mark.parametrize("damage", [b"", b"{}", b"garbage\n{}", None])
def test_broken_cache_entry_is_replaced(land, cache, damage):
    """Empty, something else, cut off."""
    land.write(COUNTED + "Task('a', 'm')")
    land.read()
    (entry,) = cache.iterdir()
    entry.write_bytes(entry.read_bytes()[:-9] if damage is None else damage)

    assert land.tasks() == land.tasks() == ["a"]

    assert land.loads == 2
    assert list(cache.iterdir()) == [entry]


def test_workflow_with_secrets_is_not_cached(land, cache):
    """The disk keeps no secret."""
    land.write("Task('a', 'm', env={'TOKEN': 'open-sesame'})")

    land.read()

    assert not cache.exists()


def test_cache_entry_is_private_to_user(land, cache):
    """It has the content of the file, which others may not be allowed to read."""
    land.write("Task('a', 'm', env={'COLOUR': 'x'})")

    land.read()

    modes = [oct(path.stat().st_mode & 0o777) for path in (cache, *cache.iterdir())]
    assert modes == ["0o700", "0o600"]


def test_cache_entry_writable_by_others_is_ignored(land, cache):
    """A user who can write there could inject tasks."""
    land.write(COUNTED + "Task('a', 'm')")
    land.read()
    cache.chmod(0o777)

    land.read()

    assert land.loads == 2


def test_unwritable_cache_folder_loads_file_each_time(land, monkeypatch):
    """A worker may have no home."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    land.write(COUNTED + "Task('a', 'm')")

    assert land.tasks() == land.tasks() == ["a"]
    assert land.loads == 2


def test_put_removes_expired_cache_entries(land, cache):
    """Interpreters and files come and go."""
    land.write("Task('a', 'm')")
    land.read()
    (old,) = cache.iterdir()
    os.utime(old, (0, 0))

    land.read(env={"X": "1"})

    (entry,) = cache.iterdir()
    assert entry != old


def test_cache_entry_is_plain_json(land, cache):
    """Nothing that could run when it is read."""
    land.write("Task('a', 'm')")
    land.read()

    (entry,) = cache.iterdir()
    assert json.loads(entry.read_bytes().partition(b"\n")[2])["value"]["tasks"][0]["name"] == "a"
