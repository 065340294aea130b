"""`--read-with-interpreter` has the file read by the interpreter of `-i`, which has the packages that it imports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

FLOW = """
from airflow_provider_sewer import Task, workflow
import project

print("being read")
a = Task("a", "project.work", {"size": project.SIZE})
b = Task("b", "project.work", {"of": "b"}, depends_on=a)
"""


@pytest.fixture
def python(tmp_path) -> str:
    """Return an interpreter that has a project installed, and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True, timeout=60)
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (packages / "project").mkdir()
    (packages / "project" / "__init__.py").write_text("import os\nSIZE = int(os.environ.get('SIZE', 7))\n")
    (packages / "project" / "work.py").write_text("import sys; print('works on', sys.argv[1:])\n")
    return str(tmp_path / "venv" / "bin" / "python")


@pytest.fixture
def there(sppe, python, tmp_path):
    """Return a function that calls `sppe` on a file that only the project's interpreter can import."""
    sppe.write("flow.py", FLOW)

    def call(command: str, *arguments: str):
        options = ["-p", "flow.py", "-i", python, "--read-with-interpreter"]
        process = sppe.start("--", command, *options, *arguments, env={"XDG_CACHE_HOME": str(tmp_path / "cache")})
        stdout, stderr = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    return call


def test_read_with_interpreter_loads_file_and_runs_tasks(there) -> None:
    """The project is installed there and nowhere else; prints of the file do not get into the output."""
    done = there("run", "--env", "SIZE=8")

    assert (done.returncode, done.stdout) == (
        0,
        "[a] works on ['--size', '8']\n[b] works on ['--of', 'b']\n",
    )
    assert done.stderr.startswith("being read\n")


def test_run_without_read_with_interpreter_suggests_it(sppe, there) -> None:
    """The import that fails, and the option."""
    done = sppe.run("show", "-p", "flow.py")

    assert (done.returncode, done.stdout) == (2, "")
    assert "flow.py:3: ModuleNotFoundError: No module named 'project'" in done.stderr
    assert "sppe … -i PYTHON --read-with-interpreter" in done.stderr


def test_show_explain_and_convert_support_read_with_interpreter(there, sppe) -> None:
    """The graph, the plan of a run and the debugger's configurations show the lines as they were written."""
    shown = there("show", "--format", "json", "--env", "SIZE=9")
    explained = there("explain")
    converted = there("convert", "--to", "vscode", "--print-only")
    of_one = there("convert", "--to", "vscode", "--print-only", "-w", "workflow")

    tasks = json.loads(shown.stdout)["tasks"]
    assert [(task["name"], task["arguments"], task["line"]) for task in tasks] == [
        ("a", ["--size", "9"], 6),
        ("b", ["--of", "b"], 7),
    ]
    assert explained.stdout == "a  runs          it always runs\nb  runs          it always runs\n"
    for text in (converted.stdout, of_one.stdout):
        assert [each["args"] for each in json.loads(text)["configurations"]] == [["--size", "7"], ["--of", "b"]]


def test_read_with_interpreter_error_in_file_exits_with_2(there, sppe) -> None:
    """As if it had been read here: the line, no traceback, nothing runs."""
    sppe.write("flow.py", FLOW + "Task('c', 'm', nane=1)\n")

    done = there("run")

    assert (done.returncode, done.stdout) == (2, "")
    assert "sppe: " + str(sppe.folder / "flow.py") + ":8: task 'c': unknown field 'nane'; did you mean" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("options", [["-i", "python"], ["--env", "A=b"]])
def test_show_with_i_requires_read_with_interpreter(options, sppe) -> None:
    """`show` runs nothing, so that `-i` alone would be of no effect."""
    sppe.tasks(a="")

    done = sppe.run("show", "-p", "flow.py", *options)

    assert done.returncode == 2
    assert "-i and --env require --read-with-interpreter" in done.stderr


def test_ctrl_c_stops_external_load(sppe, python, lifeline) -> None:
    """A file that takes long does not go on in the background."""
    sppe.write(
        "flow.py", f"import os, time\nos.write(os.open({lifeline.path!r}, os.O_WRONLY), b'here')\ntime.sleep(1000)"
    )
    reading = sppe.start("show", "-p", "flow.py", "-i", python, "--read-with-interpreter")
    lifeline.expect("here")

    os.kill(reading.pid, signal.SIGINT)

    assert reading.wait(60) == 130
    lifeline.expect_end()
