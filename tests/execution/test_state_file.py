"""State files: resistance to kills, locking, and resuming."""

from __future__ import annotations

import json
import os
import random
import resource
import threading

import pytest

from airflow_provider_sewer import Product
from airflow_provider_sewer.core.errors import StateError, UnreadableRecord
from airflow_provider_sewer.execution.state_file import FinishedTask, StateFile, read_state
from airflow_provider_sewer.execution.task_states import TaskState
from tests.execution.product_workspace import lab

__all__ = ["lab"]


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "state" / "w.jsonl")


def record_successes(path: str, *names: str) -> None:
    """Have a run record that tasks have succeeded."""
    with StateFile(path, "w", keep=True) as state:
        for name in names:
            state.record(name, "succeeded", command=f"did {name}", result={"of": name})


def test_read_state_returns_recorded_successes(path) -> None:
    """With its command and its result; the last word on a task counts."""
    record_successes(path, "a", "b")
    with StateFile(path, "w", keep=True) as state:
        state.record("a", "waiting")

    assert read_state(path, "w") == {"b": FinishedTask("did b", {"of": "b"}, 2)}


def test_state_file_with_keep_false_is_emptied(path) -> None:
    """Its former content is removed."""
    record_successes(path, "a")
    with StateFile(path, "w", keep=False) as state:
        assert state.done == {}

    assert read_state(path, "w") == {}


def test_state_file_identifies_jobs_by_file_and_run(path) -> None:
    """A run that is resumed knows its jobs; a new one only knows that they are of the same file."""
    with StateFile(path, "w", keep=False) as first:
        pass
    with StateFile(path, "w", keep=True, resumes=True) as resumed:
        pass
    with StateFile(path, "w", keep=False) as another:
        pass

    assert (first.series, first.run) == (resumed.series, resumed.run)
    assert another.series == first.series
    assert another.run != first.run


def test_state_file_rejects_run_that_abandons_jobs(path) -> None:
    """The next run has to look after them, until one has come to its end."""
    with StateFile(path, "w", keep=False, run_dir="/runs"):
        pass
    for run_dir in (None, "/elsewhere"):
        with pytest.raises(StateError, match="its jobs may still run; pass --on slurm --run-dir /runs to cancel"):
            StateFile(path, "w", keep=False, run_dir=run_dir)
    with StateFile(path, "w", keep=True, run_dir="/runs") as state:
        state.record_end(is_part=True)
    with pytest.raises(StateError, match="its jobs may still run"):
        StateFile(path, "w", keep=True, resumes=True)
    with StateFile(path, "w", keep=True, resumes=True, run_dir="/runs") as state:
        state.record_end()

    with StateFile(path, "w", keep=True, resumes=True):
        pass


def test_truncated_state_file_keeps_complete_lines(path) -> None:
    """The unfinished line is ignored, and the next record begins on a new line."""
    record_successes(path, "a", "b")
    with open(path, "rb") as file:
        whole = file.read()
    ends = [at for at in range(len(whole) + 1) if whole[:at].endswith(b"\n")]

    for length in range(len(whole) + 1):
        with open(path, "wb") as file:
            file.write(whole[:length])
        wanted = {name for name, end in zip("ab", ends[1:], strict=True) if end <= length}
        assert set(read_state(path, "w")) == wanted
        record_successes(path, "c")
        assert set(read_state(path, "w")) == {*wanted, "c"}


def test_state_file_on_full_disk_has_complete_lines_only(path) -> None:
    """A line that does not fit is taken back, so that one that fits later is no part of it."""
    record_successes(path, "a")
    size = os.path.getsize(path)
    child = os.fork()
    if not child:
        try:
            with StateFile(path, "w", keep=True) as state:
                limit = os.path.getsize(path) + 120
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
                with pytest.raises(StateError, match=r"cannot write the state file .*no space left"):
                    state.record("long", "succeeded", result="x" * 500)
                state.record("b", "waiting")
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    assert os.path.getsize(path) > size
    assert set(read_state(path, "w")) == {"a"}


def test_locked_state_file_error_names_holder(path) -> None:
    """It names the process, and does not touch the file; when that has ended, it may."""
    with StateFile(path, "w", keep=False) as state:
        state.record("a", "succeeded")
        with pytest.raises(StateError) as caught:
            StateFile(path, "w", keep=False)
        assert f"another run (process {os.getpid()} on {os.uname().nodename}, since " in str(caught.value)
        assert "wait for it, or name another with --state" in str(caught.value)

    assert set(read_state(path, "w")) == {"a"}
    record_successes(path, "b")


def test_record_is_thread_safe(path) -> None:
    """Each line is written in one piece."""
    with StateFile(path, "w", keep=False) as state:
        threads = [
            threading.Thread(
                target=lambda n=n: [state.record(f"{n}-{i}", "succeeded", result="y" * 999) for i in range(50)]
            )
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(read_state(path, "w")) == 400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"sewer_state": 1, "workflow": "other"}\n', "not the state of workflow 'w' but of 'other'"),
        ('{"sewer_state": 99, "workflow": "w"}\n', ":1 has format 99, and this version of"),
        ("stages:\n  - a\n", ":1: not a state file"),
        ("[]\n", ":1: not a state file"),
        ('{"sewer_state": 1, "workflow": "w"}\n\xff\xfe\n', ":2: not a state file"),
    ],
)
def test_state_file_of_another_workflow_is_rejected_unchanged(path, text, message) -> None:
    """The message describes the file and names --state."""
    os.makedirs(os.path.dirname(path))
    with open(path, "w", encoding="latin-1") as file:
        file.write(text)

    for use in (lambda: read_state(path, "w"), lambda: StateFile(path, "w", keep=True)):
        with pytest.raises((StateError, UnreadableRecord)) as caught:
            use()
        assert message in str(caught.value)
        assert "--state" in str(caught.value)
    with open(path, encoding="latin-1") as file:
        assert file.read() == text


def test_unwritable_state_path_raises_with_its_path(tmp_path) -> None:
    """A folder in place of the file, a file in place of the folder."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "state"):
        with pytest.raises(StateError, match=r"cannot (open|read) the state file .*; name another with --state"):
            StateFile(str(path), "w", keep=True)
    with pytest.raises(StateError, match="cannot read the state file"):
        read_state(str(tmp_path), "w")


def test_resume_runs_unfinished_tasks_and_their_downstream(lab) -> None:
    """A task that succeeded before is finished, and its result is available."""
    tasks = [lab.step("a"), lab.step("b", depends_on="a"), lab.step("c", depends_on="b"), lab.step("d")]
    lab.write("fail-b")
    assert lab.run(*tasks, resume=False)["b"].state is TaskState.FAILED
    (lab.folder / "fail-b").unlink()

    assert lab.ran(*tasks, resume=True) == ["b", "c"]
    assert lab.ran(*tasks, resume=True) == []
    assert sorted(lab.ran(*tasks, resume=True, forced=["b"])) == ["b", "c"]
    assert sorted(lab.ran(*tasks, resume=False)) == ["a", "b", "c", "d"]


def test_resume_reruns_task_with_changed_parameters(lab) -> None:
    """Another command has not succeeded yet."""
    lab.run(lab.step("a", content=1), lab.step("b"), resume=False)

    assert lab.ran(lab.step("a", content=2), lab.step("b"), resume=True) == ["a"]


def test_resume_reruns_task_with_missing_product(lab) -> None:
    """It has succeeded, but its downstream tasks need the product."""
    tasks = [lab.step("a", (), "a.txt"), lab.step("b", "a.txt", "b.txt")]
    lab.run(*tasks, resume=False)
    (lab.folder / "a.txt").unlink()

    assert lab.ran(*tasks, resume=True) == ["a", "b"]


def test_resume_after_subset_run_reruns_its_downstream(lab) -> None:
    """The results of the rest are still recorded; tasks downstream of the subset run again."""
    tasks = [lab.step("a"), lab.step("b", depends_on="a"), lab.step("c")]
    lab.run(*tasks, resume=False)

    assert lab.ran(*tasks, select=["a"], resume=False) == ["a"]
    assert lab.ran(*tasks, resume=True) == ["b"]
    assert lab.ran(*tasks, resume=True) == []


def test_subset_run_reads_upstream_results_from_state(lab) -> None:
    """Without --resume as well; the error names tasks that have never run."""
    seed = lab.module("seed", "print(17)")
    train = lab.step("train", content=seed.result, outputs="t.txt")

    assert "no earlier run saved it" in lab.run(seed, train, select=["train"], resume=False)["train"].reason
    lab.run(seed, train, resume=False)
    assert lab.ran(seed, train, select=["train"], resume=False) == ["train"]
    assert lab.read("t.txt") == "train 17\n"


def test_up_to_date_task_is_recorded_as_succeeded(lab) -> None:
    """So do those after it, in the order in which they really ran."""
    tasks = [lab.step("a", (), "a.txt", run_when="stale"), lab.step("b", depends_on="a")]
    lab.run(*tasks)
    lab.run(*tasks, resume=False)

    assert lab.ran(*tasks, resume=True) == []
    assert lab.ran(*tasks, select=["a"], resume=False) == []
    assert lab.ran(*tasks, resume=True) == []


def test_resume_rebuilds_required_temporary_products(lab) -> None:
    """Though their task has succeeded."""
    tasks = [lab.step("a", (), Product("t.txt", temporary=True)), lab.step("b", "t.txt", "b.txt")]
    lab.run(*tasks, resume=False)
    assert not lab.has("t.txt")
    (lab.folder / "b.txt").unlink()

    assert lab.ran(*tasks, resume=True) == ["a", "b"]
    assert lab.ran(*tasks, resume=True) == []


def test_record_lines_have_time_and_reason(path) -> None:
    """The file has one JSON object per line."""
    with StateFile(path, "w", keep=False) as state:
        state.record("a", "failed", reason="no data")

    with open(path) as file:
        first, second = map(json.loads, file)
    assert first["workflow"] == "w"
    assert first["pid"] == os.getpid()
    assert (second["task"], second["state"], second["reason"]) == ("a", "failed", "no data")
    assert random.choice([second["at"]]).endswith("+00:00")


@pytest.mark.parametrize("text", ["notes of mine", "{}", '{"sewer": 1}'])
def test_state_file_of_other_format_is_not_overwritten(text, tmp_path) -> None:
    """Also where a new state was to begin."""
    file = tmp_path / "notes.txt"
    file.write_text(text)
    with pytest.raises(StateError, match=r"notes\.txt exists and is not a state file; name another"):
        StateFile(str(file), "w", keep=False)

    assert file.read_text() == text


def test_state_file_rejects_device() -> None:
    """A device stores nothing."""
    with pytest.raises(StateError, match="/dev/null exists and is not a state file"):
        StateFile("/dev/null", "w", keep=False)
