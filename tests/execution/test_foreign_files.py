"""Files that another user could have written are ignored or rejected."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_sewer import Product
from airflow_provider_sewer.core.errors import StateError, UntrustedPath
from airflow_provider_sewer.core.paths import located
from airflow_provider_sewer.execution.disk_cache import DiskCache
from airflow_provider_sewer.execution.product_records import read_record, write_record
from airflow_provider_sewer.execution.staged_products import StagedProducts
from airflow_provider_sewer.execution.state_file import StateFile, read_state, records_since
from airflow_provider_sewer.execution.task_states import TaskState
from airflow_provider_sewer.execution.temporary_products import remove_temporary
from airflow_provider_sewer.loaders.stages.pipeline_state import succeeded_stages
from tests.execution.product_workspace import RECORD, lab, outcome_of, writer

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["lab"]

OTHER = 65533
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to act as two users")


def be_open(path: Path) -> None:
    """Let all users write."""
    path.chmod(0o777 if path.is_dir() else 0o666)


def be_foreign(path: Path) -> None:
    """Let it belong to another user."""
    os.chown(path, OTHER, OTHER)


def be_link(path: Path) -> None:
    """Put it elsewhere, and a link in its place."""
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


CHANGES = [be_open, be_link, pytest.param(be_foreign, marks=needs_root)]

# -- Products ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("atomic", [True, False])
def test_task_with_untrusted_sewer_folder_fails_before_start(change: Callable[[Path], None], atomic: bool, lab) -> None:
    """The error names the folder."""
    (lab.folder / "build" / ".sewer").mkdir(parents=True)
    change(lab.folder / "build" / ".sewer")

    state, reason = outcome_of(lab, writer(lab, "open('ran', 'w')", Product("build/x.txt", atomic=atomic)))

    assert state is TaskState.FAILED
    assert f"task 'made': product 'build/x.txt': {lab.folder}/build/.sewer " in reason
    assert not lab.has("ran")


@pytest.mark.parametrize("change", CHANGES)
def test_commit_rejects_sewer_folder_that_became_untrusted(change: Callable[[Path], None], lab) -> None:
    """Another user could have swapped the file while the task ran."""
    making = StagedProducts("t", located([product := Product(lab.folder / "x.txt")], None))
    making.begin()
    Path(making.paths[product]).write_text("mine")
    change(lab.folder / ".sewer")

    with pytest.raises(UntrustedPath, match=r"\.sewer "):
        making.commit(RECORD)
    with pytest.raises(UntrustedPath, match=r"\.sewer "):
        making.discard()

    assert not lab.has("x.txt")


@pytest.mark.parametrize("change", CHANGES)
def test_product_record_in_untrusted_folder_raises(change: Callable[[Path], None], lab) -> None:
    """A forged one makes a stale product look up to date, or lets something be removed."""
    file = str(lab.write("x.txt", "x"))
    write_record(file, RECORD)
    change(lab.folder / ".sewer")

    for use in (
        read_record,
        lambda path: write_record(path, RECORD),
        lambda path: remove_temporary(Product(path), None),
    ):
        with pytest.raises(UntrustedPath, match=r"\.sewer "):
            use(file)
    assert lab.has("x.txt")


@pytest.mark.parametrize("change", CHANGES)
def test_untrusted_product_record_is_none(change: Callable[[Path], None], lab) -> None:
    """It was put there, or opened to all, while the folder was open to all."""
    file = str(lab.write("x.txt", "x"))
    write_record(file, RECORD)
    assert read_record(file) is not None
    change(lab.folder / ".sewer" / "x.txt.json")
    assert read_record(file) is None


@pytest.mark.parametrize("change", CHANGES)
def test_remove_failed_ignores_untrusted_marker(change, lab) -> None:
    """The names in it are of files that the next attempt removes."""
    task = writer(lab, "paths[0].write_text('x'); raise SystemExit(3)", Product("x.txt"))
    lab.run(task)
    assert lab.has("x.txt.failed")
    mark = lab.folder / ".sewer" / "x.txt.failed"
    lab.write("mine.failed", "mine")
    mark.write_text(json.dumps({"format": 1, "files": ["mine.failed"]}))
    change(mark)

    lab.run(task)

    assert lab.read("mine.failed") == "mine"


def test_remove_failed_ignores_other_file_names_in_marker(lab) -> None:
    """Independent of the names in it."""
    task = writer(lab, "paths[0].write_text('x'); raise SystemExit(3)", Product("x.txt"))
    lab.run(task)
    lab.write("thesis.tex", "mine")
    (lab.folder / ".sewer" / "x.txt.failed").write_text(json.dumps({"format": 1, "files": ["thesis.tex"]}))

    lab.run(task)

    assert lab.read("thesis.tex") == "mine"


FIELDS = {
    "format": 1,
    "task": "t", "command": "c", "product": None, "dependencies": {}, "upstream": {}, "code": None, "environment": None,
    "result": None, "is_complete": True, "is_removed": False, "attempt": "", "was_complete": None,
    "beside": {}, "leaving": None, "dag_run": None,
}  # fmt: skip


@pytest.mark.parametrize("field", [field for field in FIELDS if field != "format"])
def test_product_record_with_wrong_types_is_none(field: str, lab) -> None:
    """A record that is nested too deeply, or not a regular file, is None as well."""
    file = str(lab.write("x.txt", "x"))
    (lab.folder / ".sewer").mkdir(mode=0o700)
    record = lab.folder / ".sewer" / "x.txt.json"
    record.write_text(json.dumps(FIELDS))
    assert read_record(file) is not None
    if field not in ("result", "was_complete"):
        record.write_text(json.dumps({**FIELDS, field: 17}))
        assert read_record(file) is None
    record.write_text(json.dumps(FIELDS).replace(f'"{field}": ', f'"{field}": {"[" * 100_000}'))
    assert read_record(file) is None
    record.unlink()
    os.mkfifo(record)
    assert read_record(file) is None


@pytest.mark.parametrize("umask", [0, 0o002])
def test_task_with_open_umask_creates_private_sewer_folders(umask: int, lab) -> None:
    """Others cannot write there, and the product has the mode that the umask gives."""
    before = os.umask(umask)
    try:
        assert outcome_of(lab, writer(lab, "paths[0].write_text('x')", Product("x.txt")))[0] is TaskState.SUCCEEDED
        assert outcome_of(lab, writer(lab, "paths[0].write_text('y')", Product("x.txt")))[0] is TaskState.SUCCEEDED
    finally:
        os.umask(before)
    assert (lab.folder / "x.txt").stat().st_mode & 0o777 == 0o666 & ~umask
    assert [path for path in (lab.folder / ".sewer").rglob("*") if path.stat().st_mode & 0o022] == []


def test_record_of_a_product_is_private(lab) -> None:
    """It holds the result of the task, which is as private as its arguments."""
    assert outcome_of(lab, writer(lab, "paths[0].write_text('x')", Product("x.txt")))[0] is TaskState.SUCCEEDED
    (record,) = (lab.folder / ".sewer").glob("*.json")
    assert record.stat().st_mode & 0o777 == 0o600


# -- State files -------------------------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path) -> Path:
    """Return the state file of a run in which ``a`` has succeeded."""
    path = tmp_path / ".sewer" / "state" / "w.jsonl"
    with StateFile(str(path), "w", keep=False) as file:
        file.record("a", "succeeded", command="c")
    return path


READERS: list[Callable[[str], Any]] = [
    lambda path: read_state(path, "w"),
    lambda path: records_since(path, 0.0),
    lambda path: StateFile(path, "w", keep=True).close(),
    lambda path: StateFile(path, "w", keep=False).close(),
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("level", ["w.jsonl", "", ".."])
def test_untrusted_state_file_is_rejected(
    change: Callable[[Path], None], read: Callable[[str], Any], level: str, state: Path
) -> None:
    """They decide which tasks are skipped."""
    before = state.read_bytes()
    change(Path(os.path.normpath(state.parent / level)))
    with pytest.raises((StateError, UntrustedPath), match=r"is writable by other users|belongs to|symbolic link"):
        read(str(state))
    assert state.read_bytes() == before


def test_state_file_in_shared_folder_is_read(tmp_path: Path) -> None:
    """A folder that is not this package's own may belong to all, as /tmp does."""
    tmp_path.chmod(0o1777)
    path = str(tmp_path / "w.jsonl")
    with StateFile(path, "w", keep=False) as file:
        file.record("a", "succeeded", command="c")
    assert list(read_state(path, "w")) == ["a"]


@pytest.mark.parametrize("read", READERS)
def test_state_file_as_named_pipe_is_rejected(read: Callable[[str], Any], tmp_path: Path) -> None:
    """Nothing waits for it."""
    os.mkfifo(tmp_path / "w.jsonl")
    with pytest.raises(StateError):
        read(str(tmp_path / "w.jsonl"))


@pytest.mark.parametrize("line", ["[" * 100_000, '{"task": ' + "[" * 200 + "]" * 200 + "}", '{"task": NaN}', "7", "\\"])
def test_malformed_state_file_line_raises_with_its_number(line: str, state: Path) -> None:
    """With its number."""
    with state.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(StateError, match=r"w\.jsonl:3: "):
        read_state(str(state), "w")


@pytest.mark.parametrize("change", [be_open, pytest.param(be_foreign, marks=needs_root)])
def test_untrusted_pipeline_state_is_rejected(change, tmp_path: Path) -> None:
    """The state of python-dag-pipeline decides which stages are skipped."""
    path = tmp_path / "state.yaml"
    path.write_text("a: SUCCESS\n")
    assert succeeded_stages(str(path)) == ["a"]
    change(path)
    with pytest.raises(UntrustedPath, match=r"the state .*/state\.yaml (is writable|belongs)"):
        succeeded_stages(str(path))


# -- Caches ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("level", ["airflow-provider-sewer", "airflow-provider-sewer/things"])
def test_untrusted_cache_folder_is_ignored(
    change: Callable[[Path], None], level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are passed over, and nothing is written there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    DiskCache("things", 1).put("value")
    assert DiskCache("things", 1).get() == "value"
    names = sorted(os.listdir(tmp_path / "airflow-provider-sewer" / "things"))

    change(tmp_path / level)
    DiskCache("things", 2).put("value")

    assert DiskCache("things", 1).get() is None
    assert sorted(os.listdir(tmp_path / "airflow-provider-sewer" / "things")) == names
