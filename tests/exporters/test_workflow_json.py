"""Other programs read a workflow as JSON, in which no secret is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from airflow_provider_sewer.core.source import SourceLine
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.core.workflow import Workflow
from airflow_provider_sewer.exporters.workflow_json import to_json


def exported(*tasks):
    return json.loads(to_json(Workflow("w", tasks)))["tasks"]


def test_to_json_names_files_of_streams():
    """Beside all products and dependencies."""
    (task,) = exported(Task("a", "m", stdin="in.csv", stdout="out.csv"))
    assert (task["stdin"], task["stdout"]) == ("in.csv", "out.csv")
    assert (task["dependencies"], task["products"]) == (["in.csv"], ["out.csv"])


def test_to_json_writes_workflow_tasks_and_edges(tmp_path):
    """Name, doc, file, tasks with all that they are run with, and edges."""
    line = SourceLine(__file__, 1)
    generate = Task("generate", "digits.generate", {"n": 500, "verbose": True}, doc="Makes **digits**.")
    train = Task(
        "train", "digits.train", python=tmp_path / "python", env={"GPU": 0}, inherit_env=["HF_HOME"], workdir=tmp_path,
        depends_on=generate,
    )  # fmt: skip
    text = to_json(Workflow("digits", [generate, train], doc="All of it.", source=line))
    assert text.endswith("}\n")
    assert json.loads(text) == {
        "name": "digits",
        "doc": "All of it.",
        "file": __file__,
        "tasks": [
            {
                "name": "generate",
                "module": "digits.generate",
                "arguments": ["--n", "500", "--verbose"],
                "python": None,
                "env": {},
                "inherit_env": None,
                "workdir": None,
                "depends_on": [],
                "doc": "Makes **digits**.",
                "line": generate.source.line,
            },
            {
                "name": "train",
                "module": "digits.train",
                "arguments": [],
                "python": str(tmp_path / "python"),
                "env": {"GPU": "0"},
                "inherit_env": ["HF_HOME"],
                "workdir": str(tmp_path),
                "depends_on": ["generate"],
                "doc": "",
                "line": train.source.line,
            },
        ],
        "edges": [["generate", "train"]],
    }


def test_to_json_depends_on_includes_edges():
    """depends_on is about the graph, not about the field of that name."""
    a, b, c = Task("a", "m"), Task("b", "m"), Task("c", "m", depends_on="a")
    data = json.loads(to_json(Workflow("w", [a, b, c], [(b, c)])))
    assert data["tasks"][2]["depends_on"] == ["b", "a"]
    assert data["edges"] == [["b", "c"], ["a", "c"]]


def test_to_json_writes_file_of_task_from_other_file():
    """Its line would otherwise be looked for in the file of the workflow."""
    task = Task("a", "m")
    data = json.loads(to_json(Workflow("w", [task], source=SourceLine("/elsewhere/flow.py", 3))))
    assert (data["file"], data["tasks"][0]["file"]) == ("/elsewhere/flow.py", __file__)
    assert data["tasks"][0]["line"] == task.source.line


def test_to_json_replaces_secrets_with_variables():
    """A value that stands in an argument or in another variable is as secret there."""
    env = {"API_TOKEN": "s3cr3t", "URL": "https://me:s3cr3t@host/", "DEBUG": "1"}
    [task] = exported(Task("a", "m", {"url": "https://me:s3cr3t@host/"}, args=["s3cr3t"], env=env))
    assert task["env"] == {"API_TOKEN": "${env:API_TOKEN}", "URL": "${env:URL}", "DEBUG": "1"}
    assert task["arguments"] == ["${env:API_TOKEN}", "--url", "https://me:${env:API_TOKEN}@host/"]


def test_to_json_masks_longest_secret_first():
    """The longer one goes first, or its end would be left."""
    [task] = exported(Task("a", "m", {"x": "abcdefg"}, env={"A_TOKEN": "abcde", "B_TOKEN": "abcdefg"}))
    assert task["arguments"] == ["--x", "${env:B_TOKEN}"]


def test_to_json_masks_parameters_with_secret_names():
    """Also those that start with a dash, in a list, or inside a mapping; the flags and the rest stay."""
    parameters = {
        "password": "--hunter2",
        "api_key": ["one", "two"],
        "token": True,
        "db": {"user": "me", "password": "hunter2", "more": [{"secret": 7}]},
        "credentials": {"user": "me"},
        "epochs": 3,
    }
    [task] = exported(Task("a", "m", parameters))
    db = json.dumps({"user": "me", "password": "${env:PASSWORD}", "more": [{"secret": "${env:SECRET}"}]})
    assert task["arguments"] == [
        "--password", "${env:PASSWORD}", "--api-key", "${env:API_KEY}", "--api-key", "${env:API_KEY}", "--db", db,
        "--credentials", "${env:CREDENTIALS}", "--epochs", "3", "--token",
    ]  # fmt: skip


def test_to_json_masks_secret_args():
    """With and without an equals sign, with and without dashes; the rest stays, such as a subcommand or a flag."""
    args = ["fit", "--password", "hunter2", "--auth-token=abc", "db.password=abc", "--use-token", "--verbose", "x=1"]
    [task] = exported(Task("a", "m", args=args))
    assert task["arguments"] == [
        "fit", "--password", "${env:PASSWORD}", "--auth-token=${env:AUTH_TOKEN}", "db.password=${env:DB_PASSWORD}",
        "--use-token", "--verbose", "x=1",
    ]  # fmt: skip


def test_to_json_masks_secret_option_in_list_of_kwargs():
    """As in the arguments of a module, the value follows its option."""
    [task] = exported(Task("a", function="m:f", kwargs={"command": ["run", "--token", "hunter2", 3]}))
    assert task["kwargs"] == {"command": ["run", "--token", "${env:TOKEN}", 3]}


def test_to_json_writes_tags_and_group():
    """So that other programs can sort tasks by them."""
    [task, other] = exported(Task("a", "m", tags=["x", "y"], group="g.h"), Task("b", "m"))
    assert (task["tags"], task["group"]) == (["x", "y"], "g.h")
    assert not {"tags", "group"} & other.keys()


def test_to_json_writes_operator_kwargs_or_repr():
    """A value without a JSON form is its repr, without its address, which differs between processes."""
    kwargs = {
        "retries": 2,
        "retry_delay": timedelta(minutes=5),
        "on_failure_callback": [exported],
        "tags": {"b", "a", "c"},
        "queue": "gpu",
        "pool": None,
        "limits": (1, 2.5, float("nan"), float("inf")),
        "executor_config": {1: Path("/x"), "password": "hunter2", "seen": "s3cr3t"},
        "broken": Unspeakable(),
    }
    [task] = exported(Task("a", "m", operator_kwargs=kwargs, env={"TOKEN": "s3cr3t"}))
    assert task["operator_kwargs"] == {
        "retries": 2,
        "retry_delay": "datetime.timedelta(seconds=300)",
        "on_failure_callback": ["<function exported>"],
        "tags": ["a", "b", "c"],
        "queue": "gpu",
        "pool": None,
        "limits": [1, 2.5, "nan", "inf"],
        "executor_config": {"1": "PosixPath('/x')", "password": "${env:PASSWORD}", "seen": "${env:TOKEN}"},
        "broken": "<Unspeakable>",
    }


def test_to_json_writes_run_on_and_slurm():
    """A task without Slurm settings has neither key; secret values are masked here as well."""
    slurm = {"gpus_per_node": 1, "setup": ["export KEY=s3cr3t"]}
    on_slurm, plain = exported(Task("a", "m", run_on="slurm", slurm=slurm, env={"TOKEN": "s3cr3t"}), Task("b", "m"))
    assert on_slurm["run_on"] == "slurm"
    assert on_slurm["slurm"] == {"gpus_per_node": 1, "setup": ["export KEY=${env:TOKEN}"]}
    assert {"run_on", "slurm"}.isdisjoint(plain)


def test_to_json_cuts_recursive_operator_kwargs():
    """The same object side by side is written twice; inside itself it is cut off."""
    inner = {"a": 1}
    around = {"one": inner, "two": inner}
    around["self"] = around
    [task] = exported(Task("a", "m", operator_kwargs={"params": around}))
    assert task["operator_kwargs"]["params"] == {"one": {"a": 1}, "two": {"a": 1}, "self": "…"}


@pytest.mark.parametrize("seed", ["1", "2"])
def test_to_json_is_deterministic_across_processes(tmp_path, seed):
    """Neither the order of sets nor addresses in memory show."""
    program = tmp_path / "program.py"
    program.write_text(
        "from airflow_provider_sewer.core.task import Task\n"
        "from airflow_provider_sewer.core.workflow import Workflow\n"
        "from airflow_provider_sewer.exporters.workflow_json import to_json\n"
        "def notify(context): pass\n"
        "kwargs = {'callback': notify, 'tags': set('sewer'), 'both': frozenset({1, 'x', (2,)})}\n"
        "print(to_json(Workflow('w', [Task('a', 'm', operator_kwargs=kwargs)])), end='')\n"
    )
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
    written = subprocess.run([sys.executable, str(program)], env=env, check=True, capture_output=True, text=True).stdout
    assert json.loads(written)["tasks"][0]["operator_kwargs"] == {
        "callback": "<function notify>",
        "tags": ["e", "r", "s", "w"],
        "both": ["x", 1, [2]],
    }


def test_to_json_escapes_arguments_that_are_not_utf8():
    """An argument may hold a file name that is no UTF-8."""
    text = to_json(Workflow("w", [Task("a", "m", {"file": os.fsdecode(b"\xff")})]))
    text.encode("utf-8")
    assert os.fsencode(json.loads(text)["tasks"][0]["arguments"][1]) == b"\xff"


class Unspeakable:
    def __repr__(self):
        raise RuntimeError
