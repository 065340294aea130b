"""An error on the command line or in a file is one sentence, with exit code 2, and nothing runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_sewer import __version__


def test_version_option_prints_name_and_version(sppe) -> None:
    """`sppe --version` prints name and version."""
    done = sppe.run("--version")

    assert (done.returncode, done.stdout) == (0, f"sppe, version {__version__}\n")


@pytest.mark.parametrize("arguments", [["--help"], ["run", "-h"], ["convert", "--help"], ["show", "--help"]])
def test_help_option_prints_help(arguments: list[str], sppe) -> None:
    """`--help` and `-h` explain a command."""
    done = sppe.run(*arguments)

    assert done.returncode == 0
    assert done.stdout.startswith("Usage: ")


USAGE_ERRORS = {
    "no file": (["--", "run"], "Missing argument 'FILE'"),
    "two files": (["run", "other.py"], "the workflow file is given twice, as "),
    "an unknown option": (["run", "--frobnicate"], "No such option"),
    "an unknown command": (["ruin"], "No such command 'ruin'"),
    "no job": (["run", "-j", "0"], "Invalid value for '-j': 0 is not in the range"),
    "no number of jobs": (["run", "-j", "many"], "Invalid value for '-j': 'many' is not a valid integer"),
    "a number for a module": (["run", "--jobs", "4"], "'4' is not a module name; for 4 concurrent tasks use -j 4"),
    "a jobs module for a Python file": (["run", "--jobs", "jobs"], "flow.py: jobs requires stages in YAML"),
    "a variable without name": (["run", "--env", "=x"], "Invalid value for --env: '=x': write NAME=VALUE"),
    "a variable that is not set": (["run", "--env", "NOT_SET"], "Invalid value for --env: 'NOT_SET': write NAME=VALUE"),
    "a missing workflow file": (["run", "-p", "gone.py"], "work/gone.py: cannot read the workflow file"),
    "a folder as workflow file": (["run", "-p", "."], "work: the path is a directory"),
    "an unknown workflow": (["run", "-w", "other"], "flow.py: unknown workflow 'other'"),
    "a missing interpreter": (["run", "-i", "venv/bin/python"], "work/venv/bin/python does not exist; create the env"),
    "a name that is on no PATH": (["run", "-i", "python0"], "no interpreter 'python0' on PATH"),
    "no interpreter": (["run", "-i", "/bin/true"], "/bin/true is not a Python 3 interpreter"),
    "a missing working directory": (["run", "--workdir", "gone"], "the working directory "),
    "a log folder that cannot be": (
        ["run", "--log-dir", "flow.py/logs"],
        "cannot create the log folder flow.py/logs: Not a",
    ),
}


@pytest.mark.parametrize(("arguments", "expected"), USAGE_ERRORS.values(), ids=USAGE_ERRORS)
def test_invalid_input_exits_with_2_and_runs_nothing(arguments: list[str], expected: str, sppe) -> None:
    """Bad input is named in a sentence, not a traceback, with exit code 2; nothing runs, nothing is written."""
    sppe.tasks(first="open('trace', 'w')")

    done = sppe.run(*arguments)

    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (sppe.folder / "trace").exists()
    assert not (sppe.folder / ".sewer").exists()


BAD_FILES = {
    "syntax": ("Task(", ":1: syntax error"),
    "no task": ("x = 1", "the file defines no task"),
    "error": ("\n1 / 0", ":2: ZeroDivisionError: division by zero"),
    "exit": ("raise SystemExit(0)", ":1: the file exits the program"),
    "bad task": (
        "from airflow_provider_sewer import Task\nTask('a', 'b.py')",
        ":2: task 'a': module must be a dotted",
    ),
    "a template": (
        "from airflow_provider_sewer import Task\nTask('a', 'first_module', {'d': '{{ ds }}'})",
        ":2: task 'a': '{{ ds }}' is rendered only by Airflow; give a value to run it here",
    ),
    "a missing module": (
        "from airflow_provider_sewer import Task\nTask('a', 'gone')",
        f":2: task 'a': {sys.executable} has no module 'gone' to run; install it there",
    ),
}


@pytest.mark.parametrize(("text", "expected"), BAD_FILES.values(), ids=BAD_FILES)
def test_invalid_file_exits_with_2_and_names_line(text: str, expected: str, sppe) -> None:
    """An error in the file is reported with file and line, with exit code 2, before anything runs."""
    sppe.tasks(first="open('trace', 'w')")
    sppe.write("flow.py", text)

    done = sppe.run("run")

    assert done.returncode == 2
    assert done.stderr.startswith(f"sppe: {sppe.folder}/flow.py{expected}" if expected.startswith(":") else "sppe: ")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not (sppe.folder / "trace").exists()


PRINT_ENVIRONMENT = "import json, os; json.dump(dict(os.environ), open('environment', 'w'))"


def test_env_option_sets_variables(sppe) -> None:
    """`--env K=V` gives a value, `--env K` the one that is set here; the last one counts. Nothing else passes."""
    sppe.tasks(shows=PRINT_ENVIRONMENT)
    given = ["GIVEN=a=b", "EMPTY=", "TWICE=1", "TWICE=2", "MINE"]

    done = sppe.run("run", *(f"--env={pair}" for pair in given), env={"MINE": "my own", "NOT_NAMED": "hidden"})

    assert done.returncode == 0
    env = json.loads((sppe.folder / "environment").read_text(encoding="utf-8"))
    assert {name: env[name] for name in ("GIVEN", "EMPTY", "TWICE", "MINE")} == {
        "GIVEN": "a=b", "EMPTY": "", "TWICE": "2", "MINE": "my own",
    }  # fmt: skip
    assert "NOT_NAMED" not in env
    assert "PYTHONPATH" not in env


def test_paths_on_command_line_are_relative_to_current_directory(sppe) -> None:
    """Interpreter and working directory given on the command line are relative to the current directory."""
    sppe.tasks(shows="")
    (sppe.folder / "elsewhere").mkdir()
    sppe.write("elsewhere/shows_module.py", "import os; print(os.getcwd())")
    (sppe.folder / "here").symlink_to(Path(sys.executable).parent)

    done = sppe.run("run", "-i", f"here/{Path(sys.executable).name}", "--workdir", "elsewhere")

    assert done.returncode == 0
    assert f"[shows] {sppe.folder}/elsewhere\n" in done.stdout
    assert f"$ {sppe.folder}/here/" in done.stderr


def test_show_into_closed_pipe_prints_no_traceback(sppe) -> None:
    """`sppe show | head -1` ends without a traceback, however long the graph is."""
    tasks = "\n".join(f"Task('task {number} {'x' * 100}', 'module')" for number in range(3000))
    sppe.write("flow.py", f"from airflow_provider_sewer import Task\n{tasks}")
    read, write = os.pipe()
    shows = sppe.start("show", "-p", "flow.py", stdout=write, env={"PYTHONUNBUFFERED": ""})
    os.close(write)

    os.read(read, 1)
    os.close(read)

    assert shows.communicate(timeout=60)[1] == ""
    assert shows.returncode == 1


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_run_supports_closed_standard_streams(closed: str, sppe) -> None:
    """With stdin, stdout or stderr closed at the start, tasks run and logs are complete."""
    sppe.tasks(talks="import sys; print('to stdout'); print('to stderr', file=sys.stderr)")

    done = sppe.run("run", "--log-dir", "logs", through=["/bin/sh", "-c", f'exec "$@" {closed}', "sh"])

    assert done.returncode == 0
    log = (sppe.folder / "logs/talks.log").read_text(encoding="utf-8")
    assert "stdout| to stdout\n" in log
    assert "stderr| to stderr\n" in log
    assert log.endswith(" s\n")


def test_sppe_does_not_import_airflow(sppe) -> None:
    """`sppe` starts without Airflow, and without the libraries that only a terminal needs."""
    code = "import sys, airflow_provider_sewer.cli.run_command; print({'airflow', 'rich', 'psutil'} & {*sys.modules})"

    done = subprocess.run(
        [sys.executable, "-c", code], env=sppe.environment(), capture_output=True, text=True, check=True
    )

    assert done.stdout == "set()\n"


def test_missing_current_directory_exits_with_2(sppe) -> None:
    """Run in a folder that was removed, it reports that and ends with 2."""
    (sppe.folder / "gone").mkdir()
    through = ["/bin/sh", "-c", 'cd gone && rmdir ../gone && exec "$@"', "sh"]

    done = sppe.run("show", "-p", "flow.py", through=through)

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no longer exists" in done.stderr


def test_convert_writes_tasks_of_all_workflows(sppe) -> None:
    """There is a debug configuration for each, also for a task that no workflow runs."""
    sppe.write(
        "flow.py",
        """
        from airflow_provider_sewer import Task, workflow
        a, b, debug = (Task(name, "steps") for name in ("a", "b", "debug"))
        @workflow
        def one(): a.run()
        @workflow
        def two(): b.run()
        """,
    )

    everything = sppe.run("convert", "-p", "flow.py", "--to", "vscode", "--print-only")
    one = sppe.run("convert", "-p", "flow.py", "--to", "vscode", "--print-only", "-w", "one")

    assert [task["name"] for task in json.loads(everything.stdout)["configurations"]] == ["a", "b", "debug"]
    assert [task["name"] for task in json.loads(one.stdout)["configurations"]] == ["a"]


LONG = {"name": "x" * 300, "path": "/".join(["y" * 100] * 60)}
GIVEN_LONG = {
    "file": ["run", "-p", "{}"],
    "stages": ["show", "-p", "{}.yaml"],
    "state": ["run", "-p", "flow.py", "--state", "{}"],
    "resume": ["run", "-p", "flow.py", "--state", "{}", "--resume"],
    "log_dir": ["run", "-p", "flow.py", "--log-dir", "{}"],
    "workdir": ["run", "-p", "flow.py", "--workdir", "{}"],
    "interpreter": ["run", "-p", "flow.py", "-i", "./{}"],
    "reader": ["show", "-p", "flow.py", "-i", "./{}", "--read-with-interpreter"],
    "output": ["convert", "-p", "flow.py", "--to", "vscode", "-o", "{}/launch.json"],
}


@pytest.mark.parametrize("subject", GIVEN_LONG)
@pytest.mark.parametrize("kind", LONG)
def test_run_names_path_that_is_too_long(sppe, subject, kind) -> None:
    """In one line, with the begin of the path."""
    sppe.write("flow.py", 'from airflow_provider_sewer import Task\n\nTask("a", "this")\n')

    done = sppe.run(*(each.format(LONG[kind]) for each in GIVEN_LONG[subject]))

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert LONG[kind][:40] in done.stderr
    assert max(map(len, done.stderr.splitlines())) < 450


def test_run_names_task_that_no_workflow_runs(sppe) -> None:
    """With file and line; the run goes on."""
    sppe.tasks(first="pass")
    sppe.write(
        "flow.py",
        """
        from airflow_provider_sewer import Task, workflow
        first = Task("first", "first_module")
        forgotten = Task("forgotten", "first_module")

        @workflow
        def nightly():
            first.run()
        """,
    )

    done = sppe.run("run")

    assert done.returncode == 0
    assert f"sppe: {sppe.folder}/flow.py:4: task 'forgotten' is in no workflow of the file; add it" in done.stderr


def test_file_calling_sppe_at_module_level_is_named(sppe) -> None:
    """The file does not load itself again."""
    sppe.write(
        "flow.py",
        """
        from airflow_provider_sewer.cli import main
        main(["run", "-p", __file__])
        """,
    )

    ended = sppe.run("run")

    assert ended.returncode == 2
    assert "flow.py:3: sppe cannot start tasks while a workflow file is loaded; put the call under" in ended.stderr
