"""Products that are directories or links, with any name and in any folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from airflow_provider_sewer import Dependency, Product
from airflow_provider_sewer.core.errors import ProductError
from airflow_provider_sewer.core.paths import located
from airflow_provider_sewer.execution.product_records import read_record, write_record
from airflow_provider_sewer.execution.staged_products import StagedProducts
from airflow_provider_sewer.execution.task_states import TaskState
from tests.execution.product_workspace import RECORD, lab, outcome_of, writer

__all__ = ["lab"]


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "x" * 250 + ".txt"])
@pytest.mark.parametrize("atomic", [True, False])
def test_product_name_of_255_bytes_is_accepted(name, atomic, lab) -> None:
    """The names of its staging path, its record and its failed product are shorter."""
    product = Product(name, atomic=atomic)
    good = writer(lab, "paths[0].write_text('good')", product)
    bad = writer(lab, "paths[0].write_text('half'); sys.exit(3)", product, name="bad", task="made")

    assert outcome_of(lab, bad)[0] is TaskState.FAILED
    assert [lab.read(each) for each in lab.names() if each.endswith(".failed") and "/" not in each] == ["half"]
    assert outcome_of(lab, good) == (TaskState.SUCCEEDED, "")
    assert lab.read(name) == "good"
    assert read_record(str(lab.folder / name)).is_complete
    assert not [each for each in lab.names() if each.endswith(".failed")]


def test_product_named_lock_is_not_created_by_package(lab) -> None:
    """No name that a product may have is one that this package uses beside it."""
    for name in ("lock", "new", "old", "old-lock", "making-x"):
        assert outcome_of(lab, writer(lab, "", Product(name)))[0] is TaskState.FAILED, name
        task = writer(lab, "assert not paths[0].exists(); paths[0].write_text('mine')", Product(name))
        assert outcome_of(lab, task) == (TaskState.SUCCEEDED, ""), name
        assert lab.read(name) == "mine"


@pytest.mark.parametrize("path", ["build/", "build"])
def test_directory_product_is_replaced_atomically(lab, path) -> None:
    """It is made under another name as a whole, and takes the place of the one before as a whole."""
    make = "paths[0].mkdir(exist_ok=True); (paths[0] / sys.argv[2]).write_text('x')"
    tasks = [
        lab.module(
            "made",
            f"import sys; from pathlib import Path; paths = [Path(sys.argv[1])]\n{make}",
            args=[Product(path), name],
        )
        for name in ("one", "two")
    ]

    lab.run(tasks[0])
    lab.run(tasks[1])

    assert lab.names("build") == ["two"]
    assert lab.names(".sewer") == ["build.json"]


@pytest.mark.parametrize("atomic", [True, False])
def test_empty_directory_product_is_missing(lab, atomic) -> None:
    """A trailing slash has it made for the module; that alone is no product."""
    state, reason = outcome_of(lab, writer(lab, "", Product("build/", atomic=atomic)))

    assert state is TaskState.FAILED
    assert "product build/ was not created" in reason


def test_commit_replaces_file_by_directory_and_reverse(lab) -> None:
    """The previous product of any kind is removed."""
    lab.run(writer(lab, "paths[0].write_text('file')", Product("x")))
    lab.run(writer(lab, "paths[0].mkdir(); (paths[0] / 'in').write_text('dir')", Product("x")))
    assert lab.read("x/in") == "dir"

    lab.run(writer(lab, "paths[0].write_text('file')", Product("x")))
    assert lab.read("x") == "file"
    assert lab.names(".sewer") == ["x.json"]


def test_failed_directory_commit_restores_previous_directory(lab, monkeypatch) -> None:
    """Between the two steps that replacing a directory takes, an error gives the old one its name back."""
    lab.write("x/old")
    write_record(str(lab.folder / "x"), RECORD)
    making = StagedProducts("t", located([Product("x")], str(lab.folder)))
    making.begin()
    Path(lab.folder, making.paths[Product("x")]).mkdir()
    really = os.replace

    def refuse(source: str, target: str) -> None:
        if target.endswith("/x"):
            raise OSError(5, "Input/output error", target)
        really(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ProductError, match=r"cannot be moved to its path: .*/x: Input/output error"):
        making.commit(RECORD)
    monkeypatch.undo()
    making.discard()

    assert lab.names("x") == ["old"]


def test_product_path_is_normalized_for_module_and_check(lab, monkeypatch) -> None:
    """~, a detour by a folder that is not there, a trailing slash: the module gets a path that it can use as it is."""
    monkeypatch.setenv("HOME", str(lab.folder / "home"))
    lab.write("home/in.txt", "from home")
    products = Product("~/out.txt"), Product("~/plain.txt", atomic=False), Product("nowhere/../out.txt")
    task = writer(
        lab,
        "text = paths.pop().read_text()\nfor path in paths: path.write_text(text)",
        *products,
        Dependency("~/in.txt"),
        task="home",
    )

    assert outcome_of(lab, task) == (TaskState.SUCCEEDED, "")
    assert {lab.read(name) for name in ("home/out.txt", "home/plain.txt", "out.txt")} == {"from home"}
    assert not lab.has("nowhere")
    assert not lab.has("~")


def test_product_on_other_file_system_is_staged_beside_it(lab, tmp_path) -> None:
    """They are made beside their real name, so that they are put in place there, too, in one step."""
    if not os.access("/dev/shm", os.W_OK) or os.stat("/dev/shm").st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system here to write to")
    elsewhere = Path("/dev/shm", f"sewer-test-{os.getpid()}")
    try:
        products = Product("here.txt"), Product(elsewhere / "there.txt"), Product(f"{elsewhere}/folder/")
        task = writer(
            lab,
            "paths[0].write_text('1'); paths[1].write_text('2'); (paths[2] / 'x').write_text('3')",
            *products,
        )
        assert outcome_of(lab, task) == (TaskState.SUCCEEDED, "")
        assert (elsewhere / "there.txt").read_text() == "2"
        assert (elsewhere / "folder/x").read_text() == "3"
    finally:
        shutil.rmtree(elsewhere, ignore_errors=True)


def test_product_in_linked_folder_follows_link(lab, tmp_path) -> None:
    """A link on the way is followed; one that stands where the product belongs is replaced, its target untouched."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "old.txt").write_text("old")
    (lab.folder / "build").symlink_to(tmp_path / "scratch")
    (lab.folder / "build/x.txt").symlink_to(tmp_path / "old.txt")

    assert outcome_of(lab, writer(lab, "paths[0].write_text('new')", Product("build/x.txt")))[0].is_success

    assert (lab.folder / "build").is_symlink()
    assert (tmp_path / "scratch/x.txt").read_text() == "new"
    assert (tmp_path / "old.txt").read_text() == "old"


def test_link_product_requires_target_from_real_path(lab) -> None:
    """One that would lead nowhere once it is in place was not made."""
    lab.write("target.txt", "target")
    good = writer(lab, "paths[0].symlink_to(Path('target.txt').resolve())", Product("link"))
    bad = writer(lab, "paths[0].symlink_to('nowhere.txt')", Product("broken"), name="bad")

    assert outcome_of(lab, good)[0].is_success
    assert lab.read("link") == "target"
    state, reason = outcome_of(lab, bad)
    assert state is TaskState.FAILED
    assert "is a broken link" in reason


@pytest.mark.parametrize("atomic", [True, False])
def test_uncreatable_sewer_folder_fails_task_with_product_path(lab, atomic) -> None:
    """The message also names the path that blocks it; no task runs."""
    lab.write("build/.sewer", "a file")

    state, reason = outcome_of(
        lab, writer(lab, "open('ran', 'w')", Product("x.txt"), Product("build/x.txt", atomic=atomic))
    )

    assert state is TaskState.FAILED
    assert "task 'made': product 'build/x.txt': " in reason
    assert "build/.sewer" in reason
    assert not lab.has("ran")
    assert lab.names(".sewer") == []


@pytest.mark.parametrize(
    ("there", "product"), [("data/thesis/chapter", "data"), ("data/thesis/chapter", "data/"), ("data", "data/")]
)
def test_untracked_directory_is_not_replaced(there, product, lab) -> None:
    """A directory with files in it, or a file in place of a directory, raises before any task starts."""
    lab.write(there, "precious")
    with pytest.raises(
        ProductError, match="that was not created by a task; move it away, or give the product another path"
    ):
        StagedProducts("t", located([Product(product)], str(lab.folder))).begin()

    assert (lab.folder / there).read_text() == "precious"


def test_directory_product_does_not_replace_untracked_file(lab) -> None:
    """It is not known before the run that the product is a directory; the file stays."""
    lab.write("data", "precious")
    making = StagedProducts("t", located([Product("data")], str(lab.folder)))
    making.begin()
    Path(lab.folder, making.paths[Product("data")]).mkdir()
    with pytest.raises(ProductError, match="is a file that was not created by a task"):
        making.commit(RECORD)
    making.discard()

    assert (lab.folder / "data").read_text() == "precious"
