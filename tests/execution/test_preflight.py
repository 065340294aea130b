"""Checks of a workflow before a run, with the line of the task in errors."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_sewer.core.errors import InterpreterError, ModuleNotFound, SewerError, WorkdirError
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.execution import preflight
from airflow_provider_sewer.execution.preflight import check_interpreters


def task(name: str, module: str, modules: Any, **fields: Any) -> Task:
    return Task(name, module, **fields).with_defaults(modules.settings())


@pytest.mark.parametrize(
    ("fields", "kind", "expected"),
    [
        ({"python": "/nowhere/python"}, InterpreterError, "the interpreter /nowhere/python does not exist"),
        ({"workdir": "/nowhere"}, WorkdirError, "the working directory /nowhere does not exist"),
        (
            {"module": "nowhere.at_all"},
            ModuleNotFound,
            f"{sys.executable} has no module 'nowhere.at_all' to run; install",
        ),
    ],
    ids=["interpreter", "workdir", "module"],
)
def test_check_surroundings_raises_for_first_task_with_its_line(
    fields: dict[str, str], kind, expected: str, modules
) -> None:
    """A first task without interpreter, working directory or module is an error that names task and line."""
    module = fields.pop("module", None) or modules.write("")

    with pytest.raises(SewerError) as caught:
        check_interpreters([(task("load", module, modules, **fields), True)])

    assert type(caught.value) is kind
    place, _, message = str(caught.value).partition(": ")
    assert place.startswith(f"{__file__}:")
    assert message.startswith(f"task 'load': {expected}")


def test_package_without_main_is_named(modules) -> None:
    """It is found, and cannot be run."""
    modules.write("", "package.__init__")

    with pytest.raises(ModuleNotFound, match=r"package 'package' has no __main__\.py; add that file, or name a module"):
        check_interpreters([(task("load", "package", modules), True)])


def test_check_surroundings_warns_for_later_task(modules) -> None:
    """An earlier task may yet produce the missing parts of a later task: each problem is a warning."""
    tasks = [
        (task("first", modules.write(""), modules), True),
        (task("second", "made_later", modules), False),
        (task("third", modules.write(""), modules, workdir="/nowhere"), False),
        (task("fourth", modules.write(""), modules, python="/nowhere/python"), False),
    ]

    warnings = check_interpreters(tasks)

    names = {warning.split(": ")[1] for warning in warnings}
    assert names == {"task 'second'", "task 'third'", "task 'fourth'"}
    assert len(warnings) == 3
    assert all(warning.startswith(f"{__file__}:") for warning in warnings)


def test_check_surroundings_without_problems_returns_no_warnings(modules, tmp_path: Path) -> None:
    """Without problems there are no warnings."""
    assert check_interpreters([(task("load", modules.write(""), modules, workdir=tmp_path), True)]) == []


def test_check_surroundings_queries_each_location_once(modules, monkeypatch) -> None:
    """However many tasks run in one place, their interpreter is started once to look for their modules."""
    asked = []
    real = preflight.missing_modules

    def counted(python: str, names: list[str], *where: Any) -> list[str]:
        asked.append(names)
        return real(python, names, *where)

    monkeypatch.setattr(preflight, "missing_modules", counted)
    names = [modules.write("") for _ in range(50)]
    path = {"PYTHONPATH": str(modules.folder)}

    check_interpreters([(task(name, name, modules, env={**path, "SEED": name}), True) for name in names])

    assert asked == [sorted(names)]


def test_check_surroundings_uses_env_of_each_task(modules, tmp_path: Path) -> None:
    """A module that only one task's variables lead to is not missing because another task lacks them."""
    name = modules.write("")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH=$WHERE exec {sys.executable} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    lost, found = (Task(where, name, python=python, env={"WHERE": where}) for where in ("nowhere", str(modules.folder)))

    warnings = check_interpreters([(lost, False), (found, True)])

    assert [warning.split(": ")[1] for warning in warnings] == ["task 'nowhere'"]


def test_check_surroundings_skips_too_many_modules(modules) -> None:
    """A workflow of more modules than fit on a command line is not refused for that."""
    first = task("load", modules.write(""), modules)
    many = [copy.copy(first) for _ in range(25_000)]
    for number, one in enumerate(many):
        one.module = f"{'x' * 100}{number}"

    assert check_interpreters((one, True) for one in [first, *many]) == []


def test_check_surroundings_ignores_unanswered_queries(modules, tmp_path: Path) -> None:
    """An interpreter without a usable answer does not stop the run."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nif [ "$2" = -c ]; then exec {sys.executable} "$@"; fi\nexit 1\n', encoding="utf-8")
    python.chmod(0o755)

    assert check_interpreters([(task("load", "nowhere", modules, python=python), True)]) == []


def test_check_surroundings_explains_module_beside_workflow_file(modules) -> None:
    """While the file is read it can be imported; a task finds it only where it runs."""
    here = Path(__file__)

    with pytest.raises(ModuleNotFound) as caught:
        check_interpreters([(Task("a", function=f"{here.stem}:f").with_defaults(modules.settings()), True)])

    assert str(caught.value).endswith(
        f"has no module '{here.stem}'; it is beside the workflow file, in {here.parent}, where only a task that runs "
        f"there finds it: set workdir='.' or env={{'PYTHONPATH': '{here.parent}'}}, "
        "or install the module"
    )
