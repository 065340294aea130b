"""A workflow file that was read before in this process is read again only where it could give something else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airflow_provider_sewer import load_workflow
from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.core.recording import recording

HEAD = "from airflow_provider_sewer import Task\n"
FORMER = """\
from sewerpipe.task import Task
from sewerpipe.workflows import workflow

a = Task("a", "m")

@workflow
def main():
    a.run()

if __name__ == "__main__":
    main()
"""
STAGES = "jobs: steps\nstages:\n  Lint: []\n  Test: [Lint]\n"


@pytest.fixture
def flow(tmp_path, monkeypatch):
    """Return a function that writes a workflow file and gives its path; the working directory is beside it."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "flow.py") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def value(path: Path) -> object:
    """Load a file and return the only value that its only task is given."""
    (task,) = load_workflow(path).tasks.values()
    return task.parameters_and_flags["value"]


def test_load_workflow_caches_self_contained_file(flow):
    """The second time, its tasks are not created again."""
    path = flow(HEAD + "Task('a', 'steps.a')\n")
    assert load_workflow(path) is load_workflow(path)


def test_load_workflow_caches_a_file_with_an_expression_of_1000_tasks(flow):
    """Whether the file can be cached is checked without recursion."""
    tasks = "".join(f"t{n} = Task('t{n}', 'm')\n" for n in range(1000))
    path = flow(f"{HEAD}{tasks}({' >> '.join(f't{n}' for n in range(1000))}).run()\n")
    assert load_workflow(path) is load_workflow(path)


def test_load_workflow_does_not_cache_with_arguments(flow):
    """They can be anything, and another thing each time; without any it is read once."""
    source = "from airflow_provider_sewer import workflow\n@workflow\ndef w(n=1):\n    Task('a', 'm', {'n': n}).run()\n"
    path = flow(HEAD + source)
    assert load_workflow(path) is load_workflow(path)
    assert load_workflow(path, arguments={"n": 2}) is not load_workflow(path, arguments={"n": 2})


@pytest.mark.parametrize(
    "text",
    [
        "from pathlib import Path\nHERE = Path(__file__).resolve().parent\nTask('a', 'm', workdir=HERE / 'data')\n",
        "import os\nTask('a', 'm', workdir=os.path.join(os.path.dirname(__file__), 'data'))\n",
        "from datetime import timedelta\nTask('a', 'm', operator_kwargs={'retry_delay': timedelta(minutes=5)})\n",
        "import itertools\nfor n, x in itertools.product(range(3), 'ab'):\n    Task(f'a {n} {x}', 'm', {'n': n})\n",
        FORMER,
        "try:\n    raise ValueError('x'.replace('x', 'y'))\nexcept ValueError as error:\n    Task(str(error), 'm')\n",
    ],
)
def test_modules_beside_accepts_pure_code(flow, text):
    """The idioms of workflow files are among it."""
    path = flow(text if "Task\n" in text else HEAD + text)
    assert load_workflow(path) is load_workflow(path)


def test_load_workflow_reloads_changed_file_with_same_mtime(flow):
    """Only the content counts."""
    path = flow(HEAD + "Task('a', 'm', {'value': 1})\n")
    status = path.stat()
    assert [value(path), value(path)] == [1, 1]
    path.write_text(path.read_text().replace("1", "2"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [value(path), value(path)] == [2, 2]


def test_load_workflow_reloads_after_change_of_imported_module(flow):
    """Also one that only another one imports."""
    path = flow(HEAD + "from helpers import VALUE\nTask('a', 'm', {'value': VALUE})\n")
    flow("import deeper\nVALUE = deeper.VALUE\n", "helpers.py")
    flow("VALUE = 1\n", "deeper.py")
    assert [value(path) for _ in range(3)] == [1, 1, 1]
    assert load_workflow(path) is load_workflow(path)
    flow("VALUE = 22\n", "deeper.py")  # of another length: Python's own cache goes by seconds and size
    assert [value(path) for _ in range(3)] == [22, 22, 22]


def test_load_workflow_reloads_after_module_is_shadowed(flow, tmp_path):
    """A package goes before a module of its name."""
    path = flow(HEAD + "from helpers import VALUE\nTask('a', 'm', {'value': VALUE})\n")
    flow("VALUE = 1\n", "helpers.py")
    assert [value(path) for _ in range(3)] == [1, 1, 1]
    (tmp_path / "helpers").mkdir()
    flow("VALUE = 2\n", "helpers/__init__.py")
    assert value(path) == 2


@pytest.mark.parametrize(
    "code",
    [
        "VALUE = open('data.txt').read()",
        "from pathlib import Path\nVALUE = Path('data.txt').read_text()",
        "from pathlib import Path\nread = Path.read_text\nVALUE = read(Path('data.txt'))",
        "from pathlib import Path\nVALUE = getattr(Path('data.txt'), 'read_' + 'text')()",
        "import io\nVALUE = io.open('data.txt').read()",
        "import os\nVALUE = os.environ['SEWER_TEST_VALUE']",
        "import os as o\nVALUE = o.getenv('SEWER_TEST_VALUE')",
        "from os import environ\nVALUE = environ['SEWER_TEST_VALUE']",
        "import os.path\nVALUE = os.path.expandvars('$SEWER_TEST_VALUE')",
        "import os\nVALUE = str(os.path.getsize('data.txt'))",
        "VALUE = eval(\"__import__('os').environ['SEWER_TEST_VALUE']\")",
        "VALUE = __import__('os').environ['SEWER_TEST_VALUE']",
        "VALUE = __builtins__['open']('data.txt').read()",
        "VALUE = Task.__init__.__globals__['__builtins__']['open']('data.txt').read()",
        "import time\nVALUE = str(time.time_ns())",
        "from datetime import datetime\nVALUE = str(datetime.now())",
        "import uuid\nVALUE = str(uuid.uuid4())",
        "from random import random\nVALUE = str(random())",
        "import airflow_provider_sewer as s\nVALUE = [*s.load_workflow('other.py').tasks.values()][0].args[0]",
        "from helpers import VALUE",
    ],
    ids=lambda code: code.splitlines()[-1][:60],
)
def test_load_workflow_does_not_cache_impure_file(flow, monkeypatch, code):
    """Data, variables, the clock and chance may have changed."""
    path = flow(f"{HEAD}{code}\nTask('a', 'm', {{'value': VALUE}})\n")
    seen = []
    for turn in ("one", "three", "fifteen"):
        monkeypatch.setenv("SEWER_TEST_VALUE", turn)
        flow(turn, "data.txt")
        flow(f"{HEAD}Task('a', 'm', args=[open('data.txt').read()])\n", "other.py")
        flow("import os\nVALUE = os.environ['SEWER_TEST_VALUE']\n", "helpers.py")
        seen.append(value(path))
    assert len(set(seen)) == 3


def test_load_workflow_does_not_cache_file_with_installed_package(flow):
    """The files that it reads are unknown."""
    path = flow(HEAD + "import click\nTask('a', 'm')\n")
    assert load_workflow(path) is not load_workflow(path)


def test_load_workflow_does_not_cache_while_recording(flow):
    """The names of tasks are numbered after those of existing ones."""
    path = flow(HEAD + "Task('a', 'm')\n")
    known = load_workflow(path)
    with recording():
        assert load_workflow(path) is not known


def test_load_workflow_caches_stages_until_jobs_module_changes(flow):
    """It is only looked at, and a function that has gone is missed at once."""
    flow("def Lint(): pass\ndef Test(): pass\n", "steps.py")
    path = flow(STAGES, "stages.yaml")
    assert load_workflow(path) is load_workflow(path)
    flow("def Lint(): pass\n", "steps.py")
    with pytest.raises(SewerError, match="'Test'"):
        load_workflow(path)


def test_load_workflow_cache_key_has_name_and_folder(flow, tmp_path, monkeypatch):
    """Two workflows of a file are two; and a path is where one stands."""
    path = flow(
        "from airflow_provider_sewer import Task, workflow\na = Task('a', 'm')\nb = Task('b', 'm')\n"
        "@workflow\ndef first():\n    a.run()\n@workflow\ndef second():\n    b.run()\n"
    )
    assert [*load_workflow(path, "first").tasks] == ["a"]
    assert [*load_workflow(path, "second").tasks] == ["b"]
    (tmp_path / "sub").mkdir()
    flow(HEAD + "Task('c', 'm')\n", "sub/flow.py")
    monkeypatch.chdir(tmp_path / "sub")
    assert [*load_workflow("flow.py").tasks] == ["c"]


def test_load_workflow_does_not_cache_errors(flow):
    """And read as soon as it is right."""
    path = flow(HEAD + "Task('a', 'no module')\n")
    for _ in range(2):
        with pytest.raises(SewerError, match="no module"):
            load_workflow(path)
    flow(HEAD + "Task('a', 'm')\n")
    assert load_workflow(path)
