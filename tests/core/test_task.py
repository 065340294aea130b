"""A task is checked the moment it is written, and every mistake in it is named with its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_provider_sewer import Task
from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.slurm_settings import SlurmSettings

HERE = Path(__file__)


def test_task_keeps_arguments():
    """Name, module and arguments are those of its line."""
    task = Task("Example 1", "pkg.mod", {"a_b": 1, "v": True}, True, args=["sub"], doc="What it is for.")

    assert (task.name, task.module, task.doc) == ("Example 1", "pkg.mod", "What it is for.")
    assert task.arguments() == ["sub", "--a_b", "1", "--v"]


def test_task_defaults():
    """Everything else has a default without an effect."""
    task = Task("a", "pkg.mod")

    assert task.arguments() == []
    assert task.settings == (None, {}, None, None)
    assert task.depends_on == ()
    assert task.run_on is None
    assert task.slurm.slurm == {}


def test_task_source_is_its_line():
    """Errors that show up later can still name it."""
    task = Task("a", "pkg.mod")

    line = HERE.read_text().splitlines()[task.source.line - 1]
    assert task.source.file == __file__
    assert line.strip() == 'task = Task("a", "pkg.mod")'
    assert str(task.source).endswith(f"test_task.py:{task.source.line}")


def test_task_paths_are_relative_to_workflow_file(monkeypatch, tmp_path):
    """The current directory at load time has no effect."""
    monkeypatch.chdir(tmp_path)

    task = Task("a", "pkg.mod", python="env/bin/python", workdir=Path("data"))

    assert task.settings.python == str(HERE.parent / "env/bin/python")
    assert task.settings.workdir == str(HERE.parent / "data")


def test_task_copies_arguments():
    """One list may grow from task to task; parameters do not leak from one into the other."""
    files, options, env, args = ["a"], {"sizes": [1]}, {"N": "1"}, ["sub"]
    parameters = {"in": files, "options": options}
    task = Task("a", "pkg.mod", parameters, args=args, env=env)

    files.append("b")
    options["sizes"].append(2)
    parameters["new"] = 1
    env["N"] = "2"
    args.append("later")

    assert task.arguments() == ["sub", "--in", "a", "--options", '{"sizes": [1]}']
    assert task.settings.env == {"N": "1"}


def test_task_reads_args_generator_once():
    """Arguments can be asked for again and again."""
    task = Task("a", "pkg.mod", args=(str(n) for n in range(2)))

    assert [task.arguments(), task.arguments()] == [["0", "1"], ["0", "1"]]


def test_depends_on_accepts_tasks_and_names():
    """One task, one name, a list, a set or a generator of both."""
    a = Task("a", "pkg.mod")

    assert Task("b", "pkg.mod", depends_on=a).depends_on == (a,)
    assert Task("b", "pkg.mod", depends_on="a").depends_on == ("a",)
    assert Task("b", "pkg.mod", depends_on=[a, "c"]).depends_on == (a, "c")
    assert Task("b", "pkg.mod", depends_on={"c"}).depends_on == ("c",)
    assert Task("b", "pkg.mod", depends_on=(task for task in (a, "c"))).depends_on == (a, "c")


def test_task_with_defaults_keeps_slurm_parameters():
    """Interpreter and directory of a run change nothing about the job."""
    task = Task("a", "pkg.mod", run_on="slurm", slurm={"partition": "gpu", "mem_gb": 8})
    settled = task.with_defaults(ExecutionSettings(python="python3"))

    assert (settled.run_on, settled.slurm) == ("slurm", SlurmSettings({"partition": "gpu", "mem_gb": 8}))
    assert Task("b", "pkg.mod", run_on="local").run_on == "local"


@pytest.mark.parametrize("name", ["Example 1", "ü", "a/b", "[brackets]", "{{ ds }}", "x" * 300])
def test_task_accepts_any_printable_name(name):
    """Names are texts for readers."""
    assert Task(name, "pkg.mod").name == name


@pytest.mark.parametrize("module", ["mod", "pkg.mod", "_a.b1.__main__", "paket.größe", "{{ params.module }}"])
def test_task_accepts_dotted_names_and_templates_as_module(module):
    """All names that ``python -m`` takes, or Airflow fills in."""
    assert Task("a", module).module == module


def fails(message: str, *args: object, **kwargs: object) -> None:
    """Check that these arguments make an error of this text, at a line of this file."""
    with pytest.raises(InvalidTask, match=re.escape(message)) as caught:
        Task(*args, **kwargs)
    assert caught.value.where.file == __file__
    assert str(caught.value).startswith(f"{caught.value.where}: ")


@pytest.mark.parametrize("name", ["", "  ", None, 5, b"a"])
def test_task_rejects_empty_name(name):
    """Nothing, only spaces, or no text at all."""
    fails(f"name must be non-empty text, got {name!r}", name, "pkg.mod")


@pytest.mark.parametrize("name", ["two\nlines", "a\0b", "bell\a", "\ud800"])
def test_task_rejects_unprintable_name(name):
    """It would tear a log line apart, or break the terminal."""
    fails("name must not contain a line break or another unprintable character", name, "pkg.mod")


@pytest.mark.parametrize("module", ["", ".", "a.", ".a", "a..b", "a b", "a-b", "1a", "a:b", "a\n", "a\0", 5, b"a"])
def test_task_rejects_invalid_module_name(module):
    """The message shows it and an example of one."""
    fails(f"task 'a': module must be a dotted name such as 'package.module', got {module!r}", "a", module)


@pytest.mark.parametrize("value", [b"a b " * 999, ["a"] * 999, {"a b": [1] * 999}, tuple(range(999))])
@pytest.mark.parametrize("field", ["module", "function"])
def test_task_error_shows_200_characters_of_value(field, value):
    """Also of a value that is no text, whose commas and blanks are those of a sentence."""
    with pytest.raises(InvalidTask) as raised:
        Task("a", **{field: value})

    assert len(raised.value.message) < 300


@pytest.mark.parametrize("module", ["pkg/mod.py", "./pkg/mod.py", "/pkg/mod.py", "pkg/mod", "pkg.mod.py"])
def test_task_suggests_module_for_file(module):
    """Scripts are not run; the message names the module to write instead."""
    fails(f"module must be a dotted name such as 'package.module', got {module!r}; "
          "a file cannot be run, only an installed module: 'pkg.mod'?", "a", module)  # fmt: skip


def test_task_suggests_field_for_unknown_one():
    """A typing error does not get lost."""
    fails("task 'a': unknown field 'parameter_and_flags'; did you mean 'parameters_and_flags'? Known: 'name', ",
          "a", "pkg.mod", parameter_and_flags={})  # fmt: skip


@pytest.mark.parametrize("parameters", ["--a", ["--a"], 5, {"a"}])
def test_task_rejects_parameters_of_other_types(parameters):
    """The message names the field and the type it got."""
    expected = f"task 'a': parameters_and_flags must be a mapping, got {type(parameters).__name__}"
    fails(expected, "a", "pkg.mod", parameters)


def test_task_names_key_of_invalid_parameter():
    """The message has the task, the key, the type and the fix."""
    fails("task 'a': parameter 'ids': a value of type set has no plain text form; give text", "a", "m", {"ids": {1}})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("args", "--all in one"),
        ("args", 5),
        ("args", None),
        ("args", {"a": 1}),
        ("args", {"in", "no", "order"}),
        ("env", "A=1"),
        ("env", {"A": None}),
        ("inherit_env", "PATH"),
        ("inherit_env", 5),
        ("python", 5),
        ("workdir", ""),
        ("depends_on", 5),
        ("depends_on", None),
        ("depends_on", [5]),
        ("depends_on", {"a": 1}),
        ("depends_on", b"a"),
        ("tags", 5),
        ("tags", ["a", 5]),
        ("tags", {"no", "order"}),
        ("tags", "two words"),
        ("tags", ["a,b"]),
        ("tags", "all*"),
        ("tags", ""),
        ("group", ""),
        ("group", "a..b"),
        ("group", "a\nb"),
        ("group", ["a"]),
        ("doc", 5),
        ("operator_kwargs", ["pool"]),
        ("run_on", "Slurm"),
        ("run_on", True),
        ("slurm", "partition=gpu"),
        ("slurm", {"partiton": "gpu"}),
        ("slurm", {"nodes": 0}),
    ],
)
def test_task_rejects_invalid_fields(field, value):
    """The message starts with task and field."""
    fails(f"task 'a': {field}", "a", "pkg.mod", **{field: value})


def test_task_tags_and_group():
    """One tag or several, each once; without any, it has none, and is in no group."""
    assert Task("a", "m", tags="gpu").tags == ("gpu",)
    assert Task("a", "m", tags=["gpu", "größe:1", "gpu"], group="models.svm").tags == ("gpu", "größe:1")
    assert (Task("a", "m").tags, Task("a", "m").group, Task("a", "m", group="a.b c").group) == ((), "", "a.b c")


def test_task_requires_module_or_function():
    """Neither is as wrong as both."""
    fails("task 'a': a task must have either a module or a function, got neither", "a")
    fails("task 'a': a task must have either a module or a function, got both", "a", "pkg.mod", function="pkg.mod:f")


def test_task_repr_shows_name_and_module():
    """So it is found again in a debugger and in messages."""
    assert repr(Task("a", "pkg.mod")) == "Task('a', 'pkg.mod')"
