"""Errors of workflow files that another interpreter loads."""

from __future__ import annotations

import signal

import pytest

from airflow_provider_sewer import load_workflow
from airflow_provider_sewer.core.errors import (
    InterpreterError,
    InvalidTask,
    InvalidWorkflow,
    SewerError,
    WorkflowFileError,
)
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.loaders.external import reader as client
from airflow_provider_sewer.loaders.external.reader import read_workflow

from .external_env import refusal


def test_external_error_equals_local_error(any_land):
    """Class, message and line, in each version of Python."""
    for source in (
        "Task('a', 'm', nane=1)",
        "a = Task('a', 'm', depends_on='b')\nTask('b', 'm', depends_on=a)",
        "raise ValueError('no data')",
        "b = 1 +",
    ):
        any_land.write(source)
        with pytest.raises(SewerError) as here:
            load_workflow(any_land.file)
        with pytest.raises(SewerError) as there:
            any_land.read()
        assert (type(there.value), str(there.value), there.value.where) == (
            type(here.value), str(here.value), here.value.where
        )  # fmt: skip


def test_external_error_keeps_its_class(land):
    """A bad task, a bad workflow, a bad file; each with its line and without a traceback."""
    land.write("Task('a', 'm', nane=1)")
    assert refusal(land, InvalidTask).startswith("{f}:2: task 'a': unknown field 'nane'; did you mean 'name'?")
    land.write("Task('a', 'm', depends_on='b')")
    assert refusal(land, InvalidWorkflow).startswith("{f}:2: task 'a' depends on a task that")
    land.write("1 / 0")
    assert refusal(land) == "{f}:2: ZeroDivisionError: division by zero"


def test_external_missing_module_names_interpreter(land):
    """The error names the environment that lacks it."""
    land.write("import torch_or_so")

    assert refusal(land) == (
        "{f}:2: ModuleNotFoundError: No module named 'torch_or_so'. A workflow file can import modules in its "
        f"folder and packages installed for {land.python}; move imports that only a task needs into its module"
    )


def test_external_value_without_json_form_raises_with_its_field(land):
    """The task, the field and the line."""
    land.write("Task('a', 'm', operator_kwargs={'on_failure_callback': print})")

    assert "{f}:2: task 'a': operator_kwargs['on_failure_callback'] must be a JSON value" in refusal(land, InvalidTask)


def test_external_missing_workflow_file_raises_with_its_path(land):
    """As it is here."""
    assert refusal(land) == "{f}: cannot read the workflow file: No such file or directory"


def test_external_interpreter_rejects_stages_in_yaml(land):
    """They import nothing, and the parser for YAML is not lent."""
    with pytest.raises(
        WorkflowFileError, match=r"stages.yaml: stages in YAML have no imports.*; leave out --read-with"
    ):
        read_workflow(land.folder / "stages.yaml", None, ExecutionSettings(python=str(land.python)))


def test_external_interpreter_that_is_not_python_raises(land):
    """One that is not there, and a program that is something else."""
    land.write("Task('a', 'm')")

    with pytest.raises(InterpreterError, match="/nowhere/python does not exist; create the environment"):
        land.read(python="/nowhere/python")
    with pytest.raises(InterpreterError, match="/bin/echo is not a Python 3 interpreter"):
        land.read(python="/bin/echo")


def test_external_python_3_8_raises_interpreter_error(land, tmp_path):
    """Its version, and the oldest that can read a file."""
    old = tmp_path / "python"
    old.write_text("""#!/bin/sh\necho '{"version": "3.8.18", "executable": "python", "prefix": "/"}'\n""")
    old.chmod(0o755)
    land.write("Task('a', 'm')")

    with pytest.raises(InterpreterError) as caught:
        land.read(python=old)

    assert str(caught.value) == f"{old} is Python 3.8.18; loading a workflow file requires Python 3.9 or later"


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("os.kill(os.getpid(), 11)", "was ended by SIGSEGV"),
        ("os._exit(3)", "failed with exit code 3"),
        ("os._exit(0)", "was terminated by the file itself"),
    ],
)
def test_external_interpreter_that_dies_raises(land, end, message):
    """However it ended; its last words are shown."""
    land.write(f"import os\nTask('a', 'm')\nprint('last words', flush=True)\n{end}")

    assert refusal(land) == (
        f"{{f}}: {land.python} {message} while it was loading this file\nLast lines of its output:\n  last words"
    )


def test_external_base_exception_is_workflow_file_error(land):
    """A SystemExit must not end the caller."""
    land.write("raise KeyboardInterrupt('now')")

    assert refusal(land) == "{f}: the file exits the program (KeyboardInterrupt: now) while it is loaded"


HANGS = """
import os, subprocess, time
life = os.open({path!r}, os.O_WRONLY)
os.set_inheritable(life, True)
subprocess.Popen(["sleep", "1000"], close_fds=False)
os.write(life, b"here")
time.sleep(1000)
"""


def test_external_file_that_hangs_times_out_with_its_process_tree(land, lifeline, monkeypatch):
    """After a while, with a clear error, and nothing of it stays."""
    monkeypatch.setattr(client, "_TIMEOUT", 1.0)
    land.write(HANGS.format(path=lifeline.path))

    assert refusal(land) == (
        f"{{f}}: {land.python} did not finish loading this file within 1 s and was terminated; move "
        "long-running code into the module of a task"
    )
    lifeline.expect_end()


def test_external_file_background_processes_are_ended(land, lifeline):
    """A workflow file starts nothing that outlives it."""
    land.write(HANGS.format(path=lifeline.path).replace("time.sleep(1000)", "Task('a', 'm')"))

    assert land.tasks() == ["a"]
    lifeline.expect_end()


def test_external_worker_ends_when_client_is_killed(land, lifeline, script):
    """Such as a DAG processor that takes too long for its supervisor."""
    land.write(HANGS.format(path=lifeline.path))
    reader = script(
        """
        import sys
        from airflow_provider_sewer.core.execution_settings import ExecutionSettings
        from airflow_provider_sewer.loaders.external.reader import read_workflow
        read_workflow(sys.argv[1], None, ExecutionSettings(python=sys.argv[2]))
        """,
        str(land.file),
        str(land.python),
    )
    lifeline.expect("here")

    reader.send(signal.SIGKILL)

    lifeline.expect_end()
