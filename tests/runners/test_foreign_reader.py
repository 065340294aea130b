"""A file that only its own environment can import is read there; what comes back is what it says, and is kept."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import py_compile
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from airflow_provider_sewer import load_workflow
from airflow_provider_sewer.core.errors import (
    InterpreterError,
    InvalidTask,
    InvalidWorkflow,
    SewerError,
    WorkflowFileError,
)
from airflow_provider_sewer.core.settings import Settings
from airflow_provider_sewer.core.workflow_json import workflow_to_data
from airflow_provider_sewer.readers.python_file import load_tasks
from airflow_provider_sewer.runners import foreign_reader
from airflow_provider_sewer.runners.foreign_reader import read_tasks, read_workflow

if TYPE_CHECKING:
    from airflow_provider_sewer import Workflow

IMPORTS = "from airflow_provider_sewer import Dependency, Ignored, Product, Task, workflow\n"


class Land:
    """An environment of its own, and a folder with a workflow file."""

    def __init__(self, folder: Path, base: Path | str) -> None:
        self.folder = folder / "flows"
        self.folder.mkdir()
        self.file = self.folder / "flow.py"
        self.python = folder / "venv" / "bin" / "python"
        subprocess.run([base, "-m", "venv", "--without-pip", folder / "venv"], check=True, timeout=60)
        (self.packages,) = (folder / "venv" / "lib").glob("python*/site-packages")

    def install(self, name: str, source: str) -> None:
        """Put a module into the environment, as an installer does: what it replaces has another time or size."""
        self._put(self.packages / name, source)

    def write(self, source: str, name: str = "flow.py") -> None:
        """Write the workflow file, or something beside it."""
        self._put(self.folder / name, (IMPORTS if name == "flow.py" else "") + dedent(source))

    def read(self, workflow: str | None = None, **settings: object) -> Workflow:
        """Have the file read there."""
        return read_workflow(self.file, workflow, Settings.checked(**{"python": self.python, **settings}))

    def tasks(self) -> list[str]:
        """Have the file read there, and return the names of its tasks."""
        return list(self.read().tasks)

    @property
    def loads(self) -> int:
        """Return how often the file was loaded; it begins with :data:`COUNTED`."""
        return len((self.folder.parent / "loads").read_text().splitlines())

    @staticmethod
    def _put(path: Path, source: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")


#: Counts how often a file is loaded.
COUNTED = """
with open(__file__.replace("flows/flow.py", "loads"), "a") as loads:
    loads.write("x\\n")
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what is kept in a folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "airflow-provider-sewer" / "workflows"


@pytest.fixture
def land(tmp_path: Path) -> Land:
    """Return an environment made of the interpreter that runs the tests, with nothing in it."""
    return Land(tmp_path, sys.executable)


def refusal(land: Land, kind: type[SewerError] = WorkflowFileError) -> str:
    """Return what is said where the file is not read, with ``{f}`` for the file."""
    with pytest.raises(SewerError) as caught:
        land.read()
    assert type(caught.value) is kind
    return str(caught.value).replace(str(land.file), "{f}")


# --- what arrives

RICH = '''
from datetime import timedelta
import helper
from pathlib import Path

generate = Task("generate", "digits.generate", {"out": Product("build/raw.npz"), "n": 500, "threads": Ignored(4)})
train = Task(
    "Train: größe", "digits.train",
    {"in": Dependency("build/raw.npz"), "seed": generate.result["seed"], "x": Path("y")},
    python="env/bin/python", env={"A": "b"}, workdir="data", run_on="slurm", slurm={"mem_gb": 8}, resources={"gpu": 1},
    operator_kwargs={"retry_delay": timedelta(minutes=5)},
)
many = Task("many", "digits.noise", {"out": Product("build/{n}.npz")}).map(n=[1, 2, 3])

call = Task(helper.NAME, function="digits.report:show", kwargs={"seeds": [generate.result["seed"]]})

@workflow
def nightly():
    """Every night."""
    (generate >> [train, call] >> many).run(env={"C": "d"})

@workflow
def hourly():
    generate.run()
'''


def test_what_arrives_is_what_is_read_here(any_python, tmp_path):
    """Each version of Python reads a file to the same workflow, its lines and its folder included."""
    land = Land(tmp_path, any_python)
    land.write("NAME = 'call'", "helper.py")
    land.write(RICH)

    for name in ("nightly", "hourly"):
        there, here = workflow_to_data(land.read(name)), workflow_to_data(load_workflow(land.file, name))
        assert abs(there.pop("source")[1] - here.pop("source")[1]) <= 1  # that of def, or that of the line above it
        assert there == here


def test_a_file_may_import_what_only_its_environment_has(any_python, tmp_path):
    """The project of its owner, in each version of Python; what is imported here is of no use to it."""
    land = Land(tmp_path, any_python)
    land.install("project/__init__.py", "SIZES = [10, 20]")
    land.write("import project\nfor size in project.SIZES: Task(f'train {size}', 'project.train', {'size': size})")

    with pytest.raises(WorkflowFileError, match=r"No module named 'project'.* --read-with-interpreter"):
        load_workflow(land.file)

    workflow = land.read()
    assert list(workflow.tasks) == ["train 10", "train 20"]
    assert str(workflow.tasks["train 10"].source) == f"{land.file}:3"


def test_all_tasks_of_a_file_arrive(land):
    """Those that a workflow runs, and those that none does."""
    land.write("a = Task('a', 'm')\nb = Task('b', 'm')\n@workflow\ndef w():\n    b.run(env={'X': '1'})")

    arrived = read_tasks(land.file, Settings(python=str(land.python)))

    said = [(task.name, task.settings.env, task.source) for task in arrived]
    assert said == [(task.name, task.settings.env, task.source) for task in load_tasks(land.file)]
    assert [name for name, _, _ in said] == ["b", "a"]


def test_what_the_file_prints_goes_to_stderr(land, capfd):
    """Its own words and those of what it starts, before the workflow is there."""
    land.write("import os\nprint('from the file')\nos.system('echo from a child')\nTask('a', 'm')")

    land.read()

    said = capfd.readouterr()
    assert said.out == ""
    assert sorted(said.err.splitlines()) == ["from a child", "from the file"]


# --- what is in reach there


def test_what_is_installed_beside_this_package_is_not_in_reach(land):
    """Airflow, which lies in the same folder as this package may, is not there for the file."""
    land.write("""
        import importlib.util
        names = ("airflow", "click", "pytest", "airflow_provider_sewer")
        Task(",".join(name for name in names if importlib.util.find_spec(name)), "m")
    """)

    assert land.tasks() == ["airflow_provider_sewer"]


def test_this_very_package_is_used_whatever_is_installed_there(land):
    """Another version, installed in the environment, does not get in between."""
    land.install("airflow_provider_sewer/__init__.py", "raise SystemExit('another version')")
    land.write("Task('a', 'm')")

    assert land.tasks() == ["a"]


def test_the_folder_somebody_stands_in_is_not_in_reach(land, tmp_path, monkeypatch):
    """A file is read to the same wherever that is done."""
    (tmp_path / "json.py").write_text("raise SystemExit('not this one')")
    (tmp_path / "beside_me.py").touch()
    monkeypatch.chdir(tmp_path)
    land.write("import json\nimport beside_me")

    assert "No module named 'beside_me'" in refusal(land)


def test_the_file_sees_the_environment_of_its_tasks(land, monkeypatch):
    """What is given and the short list, nothing of Airflow's own."""
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "secret")
    monkeypatch.setenv("MINE", "mine")
    land.write("import os\nTask(os.environ['GIVEN'], 'm', {'x': [name for name in os.environ if name[0] in 'AM']})")

    assert land.read(env={"GIVEN": "a"}).tasks["a"].parameters_and_flags == {"x": []}
    assert land.read(env={"GIVEN": "a"}, inherit_env=["MINE"]).tasks["a"].parameters_and_flags == {"x": ["MINE"]}
    assert refusal(land).endswith(
        "'GIVEN'. What another interpreter reads has the environment of its tasks; give the variable with --env or env="
    )


def test_reading_leaves_no_compiled_modules_behind(land):
    """Neither beside the file nor in the environment."""
    land.install("project.py", "")
    land.write("", "helper.py")
    land.write("import helper, project\nTask('a', 'm')")

    land.read()

    assert sorted(os.listdir(land.folder)) == ["flow.py", "helper.py"]
    assert sorted(os.listdir(land.packages)) == ["project.py"]


# --- what goes wrong


def test_an_error_is_the_same_as_here(any_python, tmp_path):
    """Class, message and line, in each version of Python."""
    land = Land(tmp_path, any_python)
    for source in (
        "Task('a', 'm', nane=1)",
        "a = Task('a', 'm', depends_on='b')\nTask('b', 'm', depends_on=a)",
        "raise ValueError('no data')",
        "b = 1 +",
    ):
        land.write(source)
        with pytest.raises(SewerError) as here:
            load_workflow(land.file)
        with pytest.raises(SewerError) as there:
            land.read()
        assert (type(there.value), str(there.value), there.value.where) == (
            type(here.value), str(here.value), here.value.where
        )  # fmt: skip


def test_errors_are_told_apart_by_their_class(land):
    """A bad task, a bad workflow, a bad file; each with its line and without a traceback."""
    land.write("Task('a', 'm', nane=1)")
    assert refusal(land, InvalidTask).startswith("{f}:2: task 'a': unknown field 'nane'; did you mean 'name'?")
    land.write("Task('a', 'm', depends_on='b')")
    assert refusal(land, InvalidWorkflow).startswith("{f}:2: task 'a' depends on a task that")
    land.write("1 / 0")
    assert refusal(land) == "{f}:2: ZeroDivisionError: division by zero"


def test_a_missing_module_is_said_to_be_missing_there(land):
    """Whoever reads it knows which environment lacks it."""
    land.write("import torch_or_so")

    assert refusal(land) == (
        "{f}:2: ModuleNotFoundError: No module named 'torch_or_so'. A workflow file may import its own folder and what "
        f"is installed for {land.python}, which reads it; what only the task needs belongs into the module it runs"
    )


def test_what_json_cannot_say_is_named(land):
    """The task, the field and the line."""
    land.write("Task('a', 'm', operator_kwargs={'on_failure_callback': print})")

    assert "{f}:2: task 'a': operator_kwargs['on_failure_callback']: JSON, which" in refusal(land, InvalidTask)


def test_a_missing_file_is_named(land):
    """As it is here."""
    assert refusal(land) == "{f}: cannot read the workflow file: No such file or directory"


def test_stages_are_not_read_by_another_interpreter(land):
    """They import nothing, and the parser for YAML is not lent."""
    with pytest.raises(WorkflowFileError, match=r"stages.yaml: stages in YAML import nothing.*; leave out --read-with"):
        read_workflow(land.folder / "stages.yaml", None, Settings(python=str(land.python)))


def test_an_interpreter_that_is_none_is_named(land):
    """One that is not there, and a program that is something else."""
    land.write("Task('a', 'm')")

    with pytest.raises(InterpreterError, match="/nowhere/python does not exist; create the environment"):
        land.read(python="/nowhere/python")
    with pytest.raises(InterpreterError, match="/bin/echo is no Python 3 interpreter"):
        land.read(python="/bin/echo")


def test_an_interpreter_that_is_too_old_is_named(land, tmp_path):
    """Its version, and the oldest that can read a file."""
    old = tmp_path / "python"
    old.write_text("""#!/bin/sh\necho '{"version": "3.8.18", "executable": "python", "prefix": "/"}'\n""")
    old.chmod(0o755)
    land.write("Task('a', 'm')")

    with pytest.raises(InterpreterError) as caught:
        land.read(python=old)

    assert str(caught.value) == f"{old} is Python 3.8.18; a workflow file is read by Python 3.9 or later"


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("os.kill(os.getpid(), 11)", "was ended by SIGSEGV"),
        ("os._exit(3)", "failed with exit code 3"),
        ("os._exit(0)", "was ended by the file itself"),
    ],
)
def test_an_interpreter_that_does_not_live_to_the_end_is_no_workflow(land, end, said):
    """However it ended; its last words are shown."""
    land.write(f"import os\nTask('a', 'm')\nprint('last words', flush=True)\n{end}")

    assert refusal(land) == (
        f"{{f}}: {land.python} {said} while it was reading this file\nThe last lines it wrote:\n  last words"
    )


def test_what_is_not_to_be_caught_is_an_error_of_the_file(land):
    """There is nobody else it could be meant for."""
    land.write("raise KeyboardInterrupt('now')")

    assert refusal(land) == "{f}: the file ends the program (KeyboardInterrupt: now) while it is read"


HANGS = """
import os, subprocess, time
life = os.open({path!r}, os.O_WRONLY)
os.set_inheritable(life, True)
subprocess.Popen(["sleep", "1000"], close_fds=False)
os.write(life, b"here")
time.sleep(1000)
"""


def test_a_file_that_hangs_is_given_up_with_all_it_started(land, lifeline, monkeypatch):
    """After a while, with a clear error, and nothing of it stays."""
    monkeypatch.setattr(foreign_reader, "_PATIENCE", 1.0)
    land.write(HANGS.format(path=lifeline.path))

    assert refusal(land) == (
        f"{{f}}: {land.python} did not come to the end of this file within 1 s, and was ended; what takes long belongs "
        "into the module of a task"
    )
    lifeline.expect_end()


def test_what_a_file_leaves_running_is_ended(land, lifeline):
    """A workflow file starts nothing that outlives it."""
    land.write(HANGS.format(path=lifeline.path).replace("time.sleep(1000)", "Task('a', 'm')"))

    assert land.tasks() == ["a"]
    lifeline.expect_end()


def test_nothing_is_left_when_the_one_that_reads_is_killed(land, lifeline, script):
    """Such as a DAG processor that takes too long for its supervisor."""
    land.write(HANGS.format(path=lifeline.path))
    reader = script(
        """
        import sys
        from airflow_provider_sewer.core.settings import Settings
        from airflow_provider_sewer.runners.foreign_reader import read_workflow
        read_workflow(sys.argv[1], None, Settings(python=sys.argv[2]))
        """,
        str(land.file),
        str(land.python),
    )
    lifeline.expect("here")

    reader.send(signal.SIGKILL)

    lifeline.expect_end()


# --- what is kept


def test_a_file_is_loaded_once_as_long_as_nothing_changes(land):
    """The second time it is not even started; what arrives is the same."""
    land.write("NAME = 'a'", "helper.py")
    land.write(COUNTED + "import helper\nTask(helper.NAME, 'm')")

    first, second = land.read(), land.read()

    assert land.loads == 1
    assert workflow_to_data(first) == workflow_to_data(second)


def test_another_process_finds_what_was_kept(land, script):
    """DAG files are parsed by processes that live for a moment."""
    land.write(COUNTED + "Task('a', 'm')")
    land.read()

    other = script(
        """
        import sys
        from airflow_provider_sewer.core.settings import Settings
        from airflow_provider_sewer.runners.foreign_reader import read_workflow
        print(read_workflow(sys.argv[1], None, Settings(python=sys.argv[2])))
        """,
        str(land.file),
        str(land.python),
    )

    assert other.output() == "Workflow('workflow', tasks=['a'])\n"
    assert land.loads == 1


def test_a_file_that_has_changed_is_read_anew(land):
    """Also when time and size are what they were."""
    land.write("Task('a', 'm')")
    assert land.tasks() == ["a"]
    status = os.stat(land.file)

    land.write("Task('b', 'm')")
    os.utime(land.file, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert land.tasks() == ["b"]


@pytest.mark.parametrize("name", ["helper.py", "package/inner.py", "names.txt"])
def test_what_a_file_imports_or_reads_beside_it_counts(land, name):
    """A module, a part of a package, a text: whatever has changed is read anew."""
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


def test_what_a_file_has_looked_for_in_vain_counts(land):
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


def test_a_module_that_had_been_compiled_before_counts(land):
    """What Python opens is then not what somebody changes."""
    land.write("NAME = 'a'", "helper.py")
    py_compile.compile(str(land.folder / "helper.py"))
    land.write("import helper\nTask(helper.NAME, 'm')")
    assert land.tasks() == ["a"]

    land.write("NAME = 'changed'", "helper.py")

    assert land.tasks() == ["changed"]


def test_a_folder_that_is_looked_into_as_python_starts_counts(land, tmp_path):
    """A module that comes to lie there stands before the one that was found."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    (tmp_path / "second" / "project.py").write_text("NAME = 'second'")
    land.write("import project\nTask(project.NAME, 'm')")
    path = {"PYTHONPATH": f"{tmp_path}/first:{tmp_path}/second"}
    assert list(land.read(env=path).tasks) == ["second"]

    (tmp_path / "first" / "project.py").write_text("NAME = 'first'")

    assert list(land.read(env=path).tasks) == ["first"]


def test_a_module_of_machine_code_counts(land):
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


def test_a_project_that_is_worked_on_counts(land, tmp_path):
    """Installed by a path to its sources, as with `pip install -e`."""
    sources = tmp_path / "sources"
    sources.mkdir()
    land.install("project.pth", str(sources))
    (sources / "project.py").write_text("NAME = 'a'")
    land.write("import project\nTask(project.NAME, 'm')")
    assert land.tasks() == ["a"]

    (sources / "project.py").write_text("NAME = 'b'")

    assert land.tasks() == ["b"]


def test_what_is_installed_counts(land):
    """A package in another version, and one that comes before it."""
    land.install("project.py", "NAME = 'old'")
    land.write(COUNTED + "import project\nTask(project.NAME, 'm')")
    assert land.tasks() == ["old"]

    land.install("project.py", "NAME = 'newer'")
    assert land.tasks() == ["newer"]

    land.install("project/__init__.py", "NAME = 'package'")
    assert land.tasks() == ["package"]
    assert land.loads == 3


def test_what_is_asked_for_counts(land, tmp_path, monkeypatch):
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


def test_a_link_that_leads_to_another_version_counts(land):
    """As it is where a repository is put in place by changing one link."""
    for name in "ab":
        land.write(f"{IMPORTS}import helper\nTask(helper.NAME, 'm')", f"{name}/flow.py")
        land.write(f"NAME = {name!r}", f"{name}/helper.py")
    land.file.symlink_to("a/flow.py")
    assert land.tasks() == ["a"]

    land.file.unlink()
    land.file.symlink_to("b/flow.py")

    assert land.tasks() == ["b"]


def test_what_changes_while_it_is_read_is_read_anew(land):
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
def test_what_other_programs_say_is_asked_anew(land, source):
    """Nobody can tell what they have looked at."""
    land.write("", "data/x")
    land.write(f"{COUNTED}\nimport os; os.chdir(os.path.dirname(__file__))\n{source}\nTask(name, 'm')")

    land.read()
    land.read()

    assert land.loads == 2


def test_what_python_asks_about_the_system_does_not_count(land):
    """Many packages look for a library when they are imported, by way of other programs."""
    land.write(f"{COUNTED}\nimport ctypes.util\nctypes.util.find_library('c')\nTask('a', 'm')")

    land.read()
    land.read()

    assert land.loads == 1


def test_an_error_is_not_kept(land):
    """What was wrong may lie outside of anything that was looked at."""
    land.write(COUNTED + "1 / 0")

    refusal(land)
    refusal(land)

    assert land.loads == 2


@pytest.mark.parametrize("damage", [b"", b"{}", b"garbage\n{}", None])
def test_what_is_kept_and_broken_is_read_anew_and_replaced(land, cache, damage):
    """Empty, something else, cut off."""
    land.write(COUNTED + "Task('a', 'm')")
    land.read()
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:-9] if damage is None else damage)

    assert land.tasks() == land.tasks() == ["a"]

    assert land.loads == 2
    assert list(cache.iterdir()) == [kept]


def test_what_is_kept_is_its_owners_only(land, cache):
    """It holds what the file says, which may be secret."""
    land.write("Task('a', 'm', env={'TOKEN': 'x'})")

    land.read()

    modes = [oct(path.stat().st_mode & 0o777) for path in (cache, *cache.iterdir())]
    assert modes == ["0o700", "0o600"]


def test_what_others_could_have_put_there_is_not_taken(land, cache):
    """Whoever can write there could have tasks of theirs run."""
    land.write(COUNTED + "Task('a', 'm')")
    land.read()
    cache.chmod(0o777)

    land.read()

    assert land.loads == 2


def test_without_a_place_to_keep_it_a_file_is_read_each_time(land, monkeypatch):
    """A worker may have no home."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    land.write(COUNTED + "Task('a', 'm')")

    assert land.tasks() == land.tasks() == ["a"]
    assert land.loads == 2


def test_what_was_kept_long_ago_is_removed(land, cache):
    """Interpreters and files come and go."""
    land.write("Task('a', 'm')")
    land.read()
    (old,) = cache.iterdir()
    os.utime(old, (0, 0))

    land.read(env={"X": "1"})

    (kept,) = cache.iterdir()
    assert kept != old


def test_what_is_kept_is_plain_json(land, cache):
    """Nothing that could run when it is read."""
    land.write("Task('a', 'm')")
    land.read()

    (kept,) = cache.iterdir()
    assert json.loads(kept.read_bytes().partition(b"\n")[2])["value"]["tasks"][0]["name"] == "a"
