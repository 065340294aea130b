"""A task becomes a configuration of the debugger, and tasks a fresh launch.json."""

from __future__ import annotations

import json
import os

import pytest

from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.exporters.vscode import (
    launch_configuration,
    launch_json,
    variables_needed,
    write_launch_json,
)


def test_launch_configuration_uses_debugpy(train):
    """The debugger starts the same module with the same arguments as a run does."""
    assert launch_configuration(train) == {
        "name": "train",
        "type": "debugpy",
        "request": "launch",
        "module": "digits.train",
        "args": ["--epochs", "3", "--verbose"],
        "console": "integratedTerminal",
    }


def test_launch_configuration_redirects_stdin_and_shows_stdout():
    """The terminal of VS Code reads the sign for a redirection as a shell; a debugged task leaves the product alone."""
    configuration = launch_configuration(Task("a", "m", {"n": 1}, stdin="in file.csv", stdout="out.csv"))
    assert configuration["args"] == ["--n", "1", "<", "in file.csv"]


def test_launch_configuration_has_python_cwd_and_env_of_task(tmp_path):
    """They are the task's own settings, under the names that VS Code has for them."""
    task = Task("a", "m", python=tmp_path / "bin/python", workdir=tmp_path, env={"GPU": 1})
    configuration = launch_configuration(task)
    assert configuration["python"] == str(tmp_path / "bin/python")
    assert configuration["cwd"] == str(tmp_path)
    assert configuration["env"] == {"GPU": "1"}


def test_write_launch_json_replaces_secrets_with_variables(tmp_path):
    """Users commit the file: it names variables in place of secrets, also where an older one had the values."""
    env = {"HF_TOKEN": "hf-secret", "DB_URL": "postgres://me:db-secret@host", "N": "1"}
    task = Task("a", "m", {"api_key": "key-secret", "to": "x/hf-secret"}, args=["redis://:arg-secret@h"], env=env)
    file = tmp_path / "launch.json"
    file.write_text(
        json.dumps({"configurations": [{"name": "a", "type": "debugpy", "env": {"HF_TOKEN": "hf-secret"}}]})
    )
    write_launch_json(file, [task])
    assert "secret" not in file.read_text().lower().replace("${env:secret}", "")
    (configuration,) = json.loads(file.read_text())["configurations"]
    assert configuration["env"] == {"HF_TOKEN": "${env:HF_TOKEN}", "DB_URL": "${env:DB_URL}", "N": "1"}
    assert configuration["args"] == [
        "redis://:${env:SECRET}@h", "--api-key", "${env:API_KEY}", "--to", "x/${env:HF_TOKEN}"
    ]  # fmt: skip
    assert variables_needed([task]) == ["SECRET", "API_KEY", "HF_TOKEN", "DB_URL"]


def test_launch_configuration_replaces_secrets_in_kwargs():
    """A function is called with JSON, in which VS Code fills in variables too."""
    *_, kwargs = launch_configuration(Task("a", function="m:f", kwargs={"password": "hunter2", "n": 1}))["args"]
    assert json.loads(kwargs) == {"password": "${env:PASSWORD}", "n": 1}


def test_launch_configuration_expands_home_folder(monkeypatch):
    """VS Code would take ~ for the name of a folder."""
    monkeypatch.setenv("HOME", "/home/ada")
    configuration = launch_configuration(Task("a", "m", python="~/env/bin/python", workdir="~"))
    assert configuration["python"] == "/home/ada/env/bin/python"
    assert configuration["cwd"] == "/home/ada"


def test_launch_configuration_keeps_bare_interpreter_name():
    """VS Code looks it up on PATH."""
    assert launch_configuration(Task("a", "m", python="python3.12"))["python"] == "python3.12"


def test_launch_json_is_plain_json(train):
    """Four spaces, letters as they are, a line break at the end."""
    text = launch_json([train, Task("Größe", "digits.size")])
    assert text.startswith(
        '{\n    "version": "0.2.0",\n    "configurations": [\n        {\n            "name": "train",'
    )
    assert '"name": "Größe"' in text
    assert text.endswith("\n}\n")
    assert json.loads(text)["configurations"][0] == launch_configuration(train)


def test_launch_json_uses_given_version(train):
    """It is the version of the format, not of the workflow."""
    assert json.loads(launch_json([train], version="0.3.0"))["version"] == "0.3.0"


def test_launch_json_rejects_duplicate_task_names(train):
    """VS Code could not distinguish them; the message has the lines of both."""
    other = Task("train", "digits.other")
    with pytest.raises(SewerError, match="two tasks are named 'train'") as refused:
        launch_json([train, other])
    assert str(train.source) in str(refused.value)
    assert refused.value.where == other.source


def test_launch_json_escapes_arguments_that_are_not_utf8(tmp_path):
    """An argument may hold a file name that is no UTF-8; the file is valid UTF-8 all the same."""
    task = Task("a", "m", {"file": os.fsdecode(b"\xff.npz")})
    write_launch_json(tmp_path / "launch.json", [task])
    written = json.loads((tmp_path / "launch.json").read_text(encoding="utf-8"))
    assert os.fsencode(written["configurations"][0]["args"][1]) == b"\xff.npz"
