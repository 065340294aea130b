"""Atomic writes of products, and errors if they are missing."""

from __future__ import annotations

import os
from pathlib import Path

from airflow_provider_sewer import Product
from airflow_provider_sewer.core.paths import located
from airflow_provider_sewer.execution.product_records import read_record
from airflow_provider_sewer.execution.staged_products import StagedProducts
from airflow_provider_sewer.execution.task_states import TaskState
from airflow_provider_sewer.execution.workflow_runner import WorkflowRunner
from tests.execution.product_workspace import RECORD, lab, outcome_of, writer

__all__ = ["lab"]


def test_commit_moves_product_to_its_real_path(lab) -> None:
    """While the module runs there is nothing under the real name; then it is there, and nothing else is left."""
    task = writer(
        lab, "paths[0].write_text('all'); assert not Path('build/raw.txt').exists()", Product("build/raw.txt")
    )

    assert outcome_of(lab, task) == (TaskState.SUCCEEDED, "")
    assert lab.read("build/raw.txt") == "all"
    assert lab.names("build") == [".sewer", ".sewer/raw.txt.json", "raw.txt"]


def test_staging_path_ends_with_product_name(lab) -> None:
    """The last part of the staging path is the same, so that programs recognize the file name extension."""
    task = writer(lab, "paths[0].write_text(paths[0].name)", Product("build/a.tar.gz"))

    lab.run(task)

    assert lab.read("build/a.tar.gz") == "a.tar.gz"


def test_discard_saves_failed_product(lab) -> None:
    """The real path is unchanged; the new product lies beside it as ….failed until the task succeeds."""
    good = writer(lab, "paths[0].write_text('good')", Product("x.txt"))
    bad = writer(lab, "paths[0].write_text('half'); sys.exit(3)", Product("x.txt"), name="bad", task="made")
    lab.run(good)

    assert outcome_of(lab, bad)[0] is TaskState.FAILED
    assert (lab.read("x.txt"), lab.read("x.txt.failed")) == ("good", "half")
    assert outcome_of(lab, good)[0] is TaskState.SUCCEEDED
    assert not lab.has("x.txt.failed")


def test_discard_removes_product_with_on_failure_remove(lab) -> None:
    """With on_failure='remove' nothing is left, neither of an atomic product nor of another."""
    products = Product("x", on_failure="remove"), Product("y/", on_failure="remove", atomic=False)
    task = writer(lab, "paths[0].write_text('half'); (paths[1] / 'z').write_text('half'); sys.exit(3)", *products)

    assert outcome_of(lab, task)[0] is TaskState.FAILED
    assert [name for name in lab.names() if "x" in name or "y/" in name] == []
    assert not lab.has("y")


def test_commit_of_missing_product_raises(lab) -> None:
    """The message names the product and its expected path."""
    state, reason = outcome_of(lab, writer(lab, "", Product("build/raw.txt")))

    assert state is TaskState.FAILED
    assert reason.startswith("exit code 0, but product build/raw.txt was not created: expected at the path that the")


def test_commit_with_one_missing_product_commits_none(lab) -> None:
    """The created one is saved as ….failed."""
    task = writer(lab, "paths[0].write_text('one')", Product("one.txt"), Product("two.txt"))

    assert outcome_of(lab, task)[0] is TaskState.FAILED
    assert not lab.has("one.txt")
    assert lab.read("one.txt.failed") == "one"


def test_commit_explains_atomic_false_if_real_path_was_written(lab) -> None:
    """It is a failure, for the path could have been seen half-written; the message has the two ways out."""
    state, reason = outcome_of(lab, writer(lab, "Path('x.txt').write_text('mine')", Product("x.txt")))

    assert state is TaskState.FAILED
    assert "the task wrote to x.txt itself" in reason
    assert "Product('x.txt', atomic=False)" in reason


def test_commit_of_unchanged_non_atomic_product_raises(lab) -> None:
    """atomic=False passes the real path to the module; an unchanged existing file is not its product."""
    product = Product("x.txt", atomic=False)
    assert outcome_of(lab, writer(lab, "assert sys.argv[1] == 'x.txt'; paths[0].write_text('1')", product))[
        0
    ].is_success

    state, reason = outcome_of(lab, writer(lab, "", product))

    assert state is TaskState.FAILED
    assert "product x.txt was not written" in reason
    assert lab.read("x.txt") == "1"
    assert read_record(str(lab.folder / "x.txt")).is_complete


def test_failed_task_without_product_leaves_no_record(lab) -> None:
    """Neither a file nor an incomplete record is left."""
    lab.run(writer(lab, "sys.exit(3)", Product("x.txt", atomic=False)))

    assert [name for name in lab.names() if "x.txt" in name] == []


def test_stop_during_commit_commits_all_products(lab, monkeypatch) -> None:
    """The work is done: the task has succeeded, and only its downstream tasks are not started."""
    task = writer(lab, "for path in paths: path.write_text('x')", Product("one"), Product("two"))
    runner = WorkflowRunner(lab.workflow(task, lab.step("after", depends_on="made")))
    really = os.replace

    def interrupted(source: str, target: str) -> None:
        runner.stop(at_once=True)
        really(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    outcomes = runner.run()

    assert [outcome.state for outcome in outcomes.values()] == [TaskState.SUCCEEDED, TaskState.STOPPED]
    assert (lab.read("one"), lab.read("two")) == ("x", "x")


def test_remove_failed_preserves_user_files(lab) -> None:
    """A saved product of a failed attempt replaces no other file, and the next success removes only its own."""
    lab.write("x.txt.failed", "mine")
    product = Product("x.txt")
    for succeeds in (False, True):
        making = StagedProducts("t", located([product], str(lab.folder)))
        making.begin()
        Path(lab.folder, making.paths[product]).write_text("made")
        if succeeds:
            making.commit(RECORD)
        else:
            making.discard()

    assert (lab.folder / "x.txt.failed").read_text() == "mine"
    assert (lab.folder / "x.txt").read_text() == "made"


def test_result_with_staging_path_is_rewritten_to_real_path(lab) -> None:
    """Whether a module returns the given path, or the absolute one."""
    product = Product("x.txt")
    making = StagedProducts("t", located([product], str(lab.folder)))
    place = making.paths[product]

    result = making.unstage_paths({"path": place, "whole": [f"in {lab.folder}/{place}"], "number": 3})
    assert result == {"path": "x.txt", "whole": [f"in {lab.folder}/x.txt"], "number": 3}


def test_too_long_staging_path_fails_task_with_product_path(lab, tmp_path) -> None:
    """The path itself fits, but not that below .sewer; the error is that of the path, not of the cleanup."""
    room = 4095 - len(os.fsencode(lab.folder)) - len("/0123456789")
    folders = "/".join([*["d" * 99] * (room // 100 - 1), "d" * (99 + room % 100)])
    task = writer(lab, "paths[0].write_text('x')", Product(f"{folders}/0123456789"))

    state, why = outcome_of(lab, task)

    assert state is TaskState.FAILED
    assert "cannot create its folder" in why
    assert why.endswith("File name too long")
