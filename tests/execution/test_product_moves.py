"""Files that a module writes beside a product."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_sewer import Dependency, Product
from airflow_provider_sewer.core.errors import ProductError
from airflow_provider_sewer.core.paths import located
from airflow_provider_sewer.execution.product_records import read_record
from airflow_provider_sewer.execution.staged_products import StagedProducts
from airflow_provider_sewer.execution.task_states import TaskState
from airflow_provider_sewer.execution.temporary_products import remove_temporary
from tests.execution.product_workspace import RECORD, lab, outcome_of, writer

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["lab"]

#: Writes the suffixes in the file ``suffixes`` beside its product.
SHAPES = "for each in open('suffixes').read().split(): paths[0].with_suffix(each).write_text(paths[0].stem + each)"

SHAPE = Product("build/a.shp")


def shapes(lab, suffixes: str, product: Product = SHAPE, **fields):
    lab.write("suffixes", suffixes)
    return writer(lab, SHAPES, product, **fields)


def files(lab) -> list[str]:
    return [name for name in lab.names("build") if not name.startswith(".sewer")]


def test_commit_moves_additional_files_into_place(lab) -> None:
    """All of them lie under their own names, and nothing else is left."""
    assert outcome_of(lab, shapes(lab, ".shp .dbf .prj")) == (TaskState.SUCCEEDED, "")

    assert lab.names("build") == [".sewer", ".sewer/a.shp.json", "a.dbf", "a.prj", "a.shp"]
    assert lab.read("build/a.dbf") == "a.dbf"


def test_commit_moves_additional_directories_and_links(lab) -> None:
    """A relative link to another of the files leads to it as well."""
    task = writer(
        lab,
        "top = paths[0].parent\n(top / 'data' / 'sub').mkdir(parents=True)\n(top / 'data/sub/x').write_text('x')\n"
        "(top / 'latest').symlink_to('data/sub/x')\npaths[0].symlink_to('data/sub/x')",
        SHAPE,
    )

    assert outcome_of(lab, task) == (TaskState.SUCCEEDED, "")
    assert lab.read("build/data/sub/x") == lab.read("build/latest") == lab.read("build/a.shp") == "x"


@pytest.mark.parametrize("name", ["a.shp", "beside"])
def test_commit_rejects_link_into_staging_directory(lab, name) -> None:
    """It would lead nowhere once the files are in place."""
    write = "" if name == "a.shp" else "paths[0].write_text('x'); "
    source = f"(paths[0].parent / 'x').write_text('x'); {write}"
    task = writer(lab, f"{source}(paths[0].parent / {name!r}).symlink_to((paths[0].parent / 'x').resolve())", SHAPE)

    state, reason = outcome_of(lab, task)

    assert state is TaskState.FAILED
    assert "link" in reason
    assert files(lab) in ([], ["a.shp.failed", "beside.failed", "x.failed"], ["a.shp.failed", "x.failed"])


def test_discard_saves_additional_files_until_success(lab) -> None:
    """They are saved as ….failed with the product, also those that the next success does not write."""
    failing = writer(lab, f"{SHAPES}\nsys.exit(3)", SHAPE, name="failing", task="made")
    lab.write("suffixes", ".dbf .prj")
    assert outcome_of(lab, failing)[0] is TaskState.FAILED
    assert files(lab) == ["a.dbf.failed", "a.prj.failed"]

    assert outcome_of(lab, shapes(lab, ".shp .dbf")) == (TaskState.SUCCEEDED, "")
    assert lab.names("build") == [".sewer", ".sewer/a.shp.json", "a.dbf", "a.shp"]


def test_on_failure_remove_removes_additional_files(lab) -> None:
    """None of the files of a failed task is left."""
    lab.write("suffixes", ".shp .dbf")
    task = writer(lab, f"{SHAPES}\nsys.exit(3)", Product("build/a.shp", on_failure="remove"))

    assert outcome_of(lab, task)[0] is TaskState.FAILED
    assert lab.names("build") == [".sewer"]


def test_discard_preserves_user_file_with_failed_suffix(lab) -> None:
    """A file that is called as a failed one would be is not replaced."""
    lab.write("build/a.dbf.failed", "mine")
    lab.write("suffixes", ".shp .dbf")
    failing = writer(lab, f"{SHAPES}\nsys.exit(3)", SHAPE, name="failing", task="made")

    assert outcome_of(lab, failing)[0] is TaskState.FAILED
    assert files(lab) == ["a.dbf.failed", "a.shp.failed"]
    assert outcome_of(lab, shapes(lab, ".shp .dbf"))[0] is TaskState.SUCCEEDED
    assert lab.read("build/a.dbf.failed") == "mine"


def test_rerun_with_fewer_files_removes_previous_files(lab) -> None:
    """A file of an earlier run does not stay beside a product that it does not belong to."""
    lab.run(shapes(lab, ".shp .dbf .prj"))
    assert outcome_of(lab, shapes(lab, ".shp .shx")) == (TaskState.SUCCEEDED, "")

    assert files(lab) == ["a.shp", "a.shx"]
    assert [*read_record(str(lab.folder / "build/a.shp")).beside] == ["a.shx"]


def test_rerun_with_fewer_files_preserves_changed_file_and_fails(lab) -> None:
    """The user has written it since, so the task fails and names it; nothing is lost."""
    lab.run(shapes(lab, ".shp .dbf .prj"))
    lab.write("build/a.prj", "corrected by hand")

    state, reason = outcome_of(lab, shapes(lab, ".shp .dbf"))

    assert state is TaskState.FAILED
    assert f"{lab.folder}/build/a.prj was created with build/a.shp by an earlier run and changed since" in reason
    assert files(lab) == ["a.dbf", "a.dbf.failed", "a.prj", "a.shp", "a.shp.failed"]
    assert lab.read("build/a.prj") == "corrected by hand"


def test_additional_file_does_not_replace_user_file(lab) -> None:
    """It has the name of a file that no earlier run has written: the task fails and names it."""
    lab.write("build/a.dbf", "mine")

    state, reason = outcome_of(lab, shapes(lab, ".shp .dbf"))

    assert state is TaskState.FAILED
    assert f"a.dbf was written beside product build/a.shp, but {lab.folder}/build/a.dbf exists" in reason
    assert lab.read("build/a.dbf") == "mine"
    assert files(lab) == ["a.dbf", "a.dbf.failed", "a.shp.failed"]


def test_additional_file_does_not_replace_product_of_other_task(lab) -> None:
    """Two tasks may share a folder, but not a name in it."""
    other = writer(lab, "paths[0].write_text('other')", Product("build/a.dbf"), name="other")
    lab.run(other)

    assert outcome_of(lab, shapes(lab, ".shp .dbf"))[0] is TaskState.FAILED
    assert lab.read("build/a.dbf") == "other"


def test_additional_file_is_owned_in_its_own_folder_only(lab) -> None:
    """A name that belongs to the product of one folder may be a file of the user in another one."""
    other = Product("other/a.shp")
    source = "for path in paths: path.write_text('x')\npath = paths[int(open('at').read())]\n"
    source += "path.with_suffix('.dbf').write_text('x')"
    task = writer(lab, source, SHAPE, other)
    lab.write("at", "0")
    lab.run(task)
    lab.write("other/a.dbf", "mine")
    lab.write("at", "1")

    assert outcome_of(lab, task)[0] is TaskState.FAILED
    assert lab.read("other/a.dbf") == "mine"


def test_additional_directory_changed_by_user_is_not_replaced(lab) -> None:
    """A file that a user has put into it would be gone."""
    source = "paths[0].write_text('x')\ndata = paths[0].parent / 'a.data'\ndata.mkdir()\n(data / 'x').write_text('x')"
    task = writer(lab, source, SHAPE)
    assert outcome_of(lab, task) == (TaskState.SUCCEEDED, "")
    assert outcome_of(lab, task) == (TaskState.SUCCEEDED, "")
    lab.write("build/a.data/notes.txt", "mine")

    state, reason = outcome_of(lab, task)

    assert state is TaskState.FAILED
    assert "a.data was changed since an earlier run created it" in reason
    assert lab.read("build/a.data/notes.txt") == "mine"


def test_additional_file_does_not_replace_product(lab) -> None:
    """Not even one of a task of the same name, which may be of another workflow."""
    lab.run(writer(lab, "for path in paths: path.write_text('1')", SHAPE, Product("build/a.dbf")))

    assert outcome_of(lab, shapes(lab, ".shp .dbf"))[0] is TaskState.FAILED
    assert lab.read("build/a.dbf") == "1"
    assert read_record(str(lab.folder / "build/a.dbf")) is not None


@pytest.mark.parametrize("atomic", [True, False])
def test_product_does_not_replace_additional_file_of_other_task(lab, atomic) -> None:
    """The run that creates both fails, not the next one."""
    product = Product("build/a.dbf", atomic=atomic)
    other = writer(lab, "paths[0].write_text('other')", product, name="other", depends_on="made")

    ended = lab.run(shapes(lab, ".shp .dbf"), other)

    assert ended["made"].state is TaskState.SUCCEEDED
    assert ended["other"].state is TaskState.FAILED
    file, reason = lab.folder / "build/a", ended["other"].reason
    assert "task 'other': product 'build/a.dbf': " in reason
    assert f"{file}.dbf was written by task 'made' beside its product {file}.shp" in reason
    assert lab.read("build/a.dbf") != "other"
    assert outcome_of(lab, shapes(lab, ".shp .dbf")) == (TaskState.SUCCEEDED, "")


def test_product_does_not_replace_additional_file_created_meanwhile(lab) -> None:
    """The other task commits while this one runs."""
    other = StagedProducts("other", located([Product("build/a.dbf")], str(lab.folder)))
    other.begin()
    Path(lab.folder, other.paths[Product("build/a.dbf")]).write_text("other")
    lab.run(shapes(lab, ".shp .dbf"))

    with pytest.raises(ProductError, match=r"a\.dbf was written by task 'made' beside its product"):
        other.commit(RECORD)
    other.discard()

    assert lab.read("build/a.dbf") != "other"


def test_removed_additional_file_can_become_product(lab) -> None:
    """Another task makes it by now, and the one that wrote it before does not remove it."""
    lab.run(shapes(lab, ".shp .dbf"))
    (lab.folder / "build/a.dbf").unlink()
    other = writer(lab, "paths[0].write_text('other')", Product("build/a.dbf"), name="other")
    assert outcome_of(lab, other) == (TaskState.SUCCEEDED, "")

    assert outcome_of(lab, shapes(lab, ".shp")) == (TaskState.SUCCEEDED, "")
    assert lab.read("build/a.dbf") == "other"


def test_additional_file_can_become_product_of_same_task(lab) -> None:
    """The product that it belonged to is a product of the task as well."""
    lab.run(shapes(lab, ".shp .dbf"))

    task = writer(lab, "for path in paths: path.write_text('own')", SHAPE, Product("build/a.dbf"))
    assert outcome_of(lab, task) == (TaskState.SUCCEEDED, "")


def test_additional_files_belong_to_product_with_same_stem(lab) -> None:
    """A temporary product is removed with its own files; a file of another stem stays with the other product."""
    one, two = Product("build/one.bam", temporary=True), Product("build/two.bam")
    source = (
        "for path in paths: path.write_text('x'); Path(f'{path}.bai').write_text('x')\n"
        "(path.parent / 'weights').write_text('x')"
    )
    task = writer(lab, source, one, two)
    lab.run(task)
    assert files(lab) == ["one.bam", "one.bam.bai", "two.bam", "two.bam.bai", "weights"]

    assert remove_temporary(one, str(lab.folder))

    assert files(lab) == ["two.bam", "two.bam.bai", "weights"]


def test_remove_temporary_preserves_changed_additional_file(lab) -> None:
    """A user has written it since."""
    product = Product("build/a.shp", temporary=True)
    lab.run(shapes(lab, ".shp .dbf .prj", product))
    lab.write("build/a.prj", "corrected by hand")

    assert remove_temporary(product, str(lab.folder))
    assert files(lab) == ["a.prj"]


def test_declared_product_can_be_written_beside_another(lab) -> None:
    """So a task can declare all files of a data set, and pass the path of one to its module."""
    lab.write("suffixes", ".shp .dbf")
    task = writer(lab, SHAPES, SHAPE, products=["build/a.dbf"])

    assert outcome_of(lab, task) == (TaskState.SUCCEEDED, "")
    assert files(lab) == ["a.dbf", "a.shp"]
    assert read_record(str(lab.folder / "build/a.dbf")).is_complete


def test_directory_product_is_replaced_with_its_additional_files(lab) -> None:
    """It takes the place of the earlier one as a whole, with its own files."""
    source = "(paths[0] / sys.argv[2]).write_text('x'); (paths[0].parent / f'm.{sys.argv[2]}').write_text('x')"
    head = "import sys\nfrom pathlib import Path\npaths = [Path(sys.argv[1])]\n"
    for name in ("one", "two"):
        task = lab.module("made", head + source, args=[Product("build/m/"), name])
        assert outcome_of(lab, task) == (TaskState.SUCCEEDED, "")

    assert files(lab) == ["m", "m.two", "m/two"]


def test_result_with_staging_path_of_additional_file_is_rewritten(lab) -> None:
    """A path that the module has made of the one it was given leads to the file."""
    task = writer(
        lab,
        "import json; paths[0].write_text('x'); other = paths[0].with_suffix('.dbf'); other.write_text('x')\n"
        "names = json.dumps([str(other), str(other.resolve()), str(other.parent)])\n"
        "Path(os.environ['SEWER_RESULT_FILE']).write_text(names)",
        SHAPE,
    )

    assert lab.run(task)["made"].result == ["build/a.dbf", f"{lab.folder}/build/a.dbf", "build"]


@pytest.mark.parametrize("mode", ["missing", "stale"])
def test_missing_additional_file_is_stale(lab, mode) -> None:
    """The product is not whole without it; the reason names it."""
    task = shapes(lab, ".shp .dbf", run_when=mode)
    lab.run(task)
    assert lab.run(task)["made"].state is TaskState.UP_TO_DATE
    (lab.folder / "build/a.dbf").unlink()

    assert lab.explained(task) == {"made": "a.dbf, created beside build/a.shp, is missing"}


@pytest.mark.parametrize("compare", ["mtime", "content"])
def test_changed_additional_file_is_stale(lab, compare) -> None:
    """It was changed by hand, as the product itself may be."""
    task = shapes(lab, ".shp .dbf", run_when="stale", compare=compare)
    lab.run(task)
    assert lab.run(task)["made"].state is TaskState.UP_TO_DATE
    lab.write("build/a.dbf", "by hand")

    assert lab.explained(task) == {"made": "a.dbf, created beside build/a.shp, was changed after it was created"}


@pytest.mark.parametrize("compare", ["mtime", "content"])
def test_changed_additional_file_makes_consumer_stale(lab, compare) -> None:
    """Its module reads all of the files, of which its dependency names one."""
    make = writer(lab, "paths[0].write_text('x'); paths[0].with_suffix('.dbf').write_text(open('in').read())", SHAPE)
    use = lab.step("use", ["build/a.shp"], ["out"], run_when="stale", compare=compare)
    lab.write("in", "one")
    lab.run(make, use)
    lab.write("in", "two")

    lab.run(make)

    assert lab.explained(use) == {"use": "build/a.shp has changed"}


@pytest.mark.parametrize("run_when", ["always", "stale"])
def test_dependency_in_untrusted_folder_is_compared_without_record(lab, run_when) -> None:
    """A colleague has made it, in a folder of theirs; their record is not read."""
    lab.run(shapes(lab, ".shp .dbf"))
    (lab.folder / "build/.sewer").chmod(0o777)
    use = lab.step("use", ["build/a.shp"], ["out"], run_when=run_when)
    assert lab.ran(use) == ["use"]

    lab.write("build/a.dbf", "changed")

    assert lab.ran(use) == (["use"] if run_when == "always" else [])


@pytest.mark.parametrize("name", ["../a.dbf", "/etc/hosts", ".", "..", "", ".sewer", "sub/a.dbf"])
@pytest.mark.parametrize("field", ["beside", "leaving"])
def test_product_record_with_file_outside_its_folder_is_none(lab, field, name) -> None:
    """Nothing outside of the product's folder is ever moved or removed by a record."""
    lab.run(shapes(lab, ".shp .dbf"))
    path = lab.folder / "build/.sewer/a.shp.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, field: {name: None} if field == "beside" else [name]}))

    assert read_record(str(lab.folder / "build/a.shp")) is None


#: Publishes a data set of the suffixes in argv; killed at the n-th call of some functions of os.
PUBLISH = """
import os, signal, sys
from airflow_provider_sewer import Product
from airflow_provider_sewer.core.paths import located
from airflow_provider_sewer.core.staleness import ProductRecord
from airflow_provider_sewer.execution.staged_products import StagedProducts

folder, text, at, functions, *suffixes = sys.argv[1:]
product = Product("a.shp")
making = StagedProducts("t", located([product], folder))
making.begin()
place = os.path.join(folder, making.paths[product])
for suffix in suffixes:
    with open(place[:-4] + suffix, "w") as file:
        file.write(text)
steps = 0

def counted(move):
    def moved(*paths, **options):
        global steps
        steps += 1
        if steps == int(at):
            os.kill(os.getpid(), signal.SIGKILL)
        move(*paths, **options)
    return moved

for name in functions.split():
    setattr(os, name, counted(getattr(os, name)))
making.commit(ProductRecord("t", "digest", None, {}))
print(steps)
"""

FIRST = {".dbf": "1", ".prj": "1", ".shp": "1"}
SECOND = {".dbf": "2", ".shp": "2", ".shx": "2"}


def begun(folder: Path, text: str, suffixes: Iterable[str]) -> StagedProducts:
    """Return a staged data set of these files."""
    folder.mkdir(exist_ok=True)
    making = StagedProducts("t", located([product := Product("a.shp")], str(folder)))
    making.begin()
    for suffix in suffixes:
        Path(folder, making.paths[product]).with_suffix(suffix).write_text(text)
    return making


def publish(folder: Path, text: str, suffixes: Iterable[str]) -> None:
    begun(folder, text, suffixes).commit(RECORD)


def publish_killed(folder: Path, at: int, functions: str) -> subprocess.CompletedProcess[str]:
    """Publish the second data set in a process, killed at that call of these functions; with 0, it is not killed."""
    command = [sys.executable, "-c", PUBLISH, str(folder), "2", str(at), functions, *SECOND]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2])


def data_set(folder: Path) -> dict[str, str]:
    return {path.suffix: path.read_text() for path in sorted(folder.glob("a.*"))}


def test_kill_during_commit_never_mixes_files_of_two_runs(tmp_path) -> None:
    """The product's name stands for the files of one run. Its record is incomplete until all are in place."""
    functions = "rename replace"
    publish(tmp_path / "whole", "1", FIRST)
    steps = int(publish_killed(tmp_path / "whole", 0, functions).stdout)
    assert data_set(tmp_path / "whole") == SECOND
    for at in range(1, steps + 1):
        folder = tmp_path / str(at)
        publish(folder, "1", FIRST)

        assert publish_killed(folder, at, functions).returncode == -signal.SIGKILL

        seen = data_set(folder)
        assert ".shp" not in seen or seen in (FIRST, SECOND), at
        has_begun = not read_record(str(folder / "a.shp")).is_complete
        assert has_begun or seen == FIRST, at
        making = StagedProducts("t", located([Product("a.shp")], str(folder)))
        making.begin()
        assert data_set(folder) == (SECOND if has_begun else FIRST), at
        making.discard()
        publish(folder, "3", [".shp", ".cpg"])
        assert data_set(folder) == {".cpg": "3", ".shp": "3"}, at
        assert not [*folder.glob(".sewer/making-*")]


def test_kill_during_removal_is_completed_by_next_attempt(tmp_path) -> None:
    """The file that marks the rest for removal is removed last: products may be large."""
    functions = "unlink rmdir"
    publish(tmp_path / "whole", "1", FIRST)
    steps = int(publish_killed(tmp_path / "whole", 0, functions).stdout)
    assert steps > len(FIRST)
    for at in range(1, steps + 1):
        folder = tmp_path / str(at)
        publish(folder, "1", FIRST)
        assert publish_killed(folder, at, functions).returncode == -signal.SIGKILL

        making = StagedProducts("t", located([Product("a.shp")], str(folder)))
        making.begin()
        making.discard()

        assert data_set(folder) == SECOND, at
        assert not [*folder.glob(".sewer/making-*/*")], at


def test_error_during_commit_restores_previous_files(tmp_path, monkeypatch) -> None:
    """After an error in any move; the new files are saved aside."""
    rename = os.rename
    for at in range(1, 7):
        folder = tmp_path / str(at)
        publish(folder, "1", FIRST)
        making = begun(folder, "2", SECOND)
        steps = iter(range(1, 100))

        def refuse(*paths: str, steps=steps, at=at) -> None:
            if next(steps) == at:
                raise OSError(5, "Input/output error", *paths[:1])
            rename(*paths)

        with monkeypatch.context() as patched:
            patched.setattr(os, "rename", refuse)
            with pytest.raises(ProductError, match=r"cannot be moved to its path: .*Input/output error"):
                making.commit(RECORD)
        making.discard()

        assert {suffix: text for suffix, text in data_set(folder).items() if suffix != ".failed"} == FIRST
        assert sorted(path.name for path in folder.glob("*.failed")) == [f"a{each}.failed" for each in SECOND]
        assert read_record(str(folder / "a.shp")).is_complete


def test_dependency_without_additional_files_is_compared_as_file(lab) -> None:
    """A product that has none is compared as any other file."""
    make = lab.step("make", outputs="a", run_when="stale")
    use = lab.step("use", ["a"], ["b"], run_when="stale")
    lab.run(make, use)

    assert {outcome.state for outcome in lab.run(make, use).values()} == {TaskState.UP_TO_DATE}
    assert Dependency("a") in use.dependencies
