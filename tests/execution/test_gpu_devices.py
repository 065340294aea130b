"""GPUs of this machine: which are visible, and which task gets which."""

from __future__ import annotations

import os
import tempfile

import pytest

from airflow_provider_sewer.core.errors import InvalidWorkflow
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.core.workflow import Workflow
from airflow_provider_sewer.execution.gpu_devices import GpuDevices, visible_devices
from airflow_provider_sewer.execution.scheduler import Scheduler
from airflow_provider_sewer.execution.task_states import Outcome, TaskState


@pytest.fixture(autouse=True)
def _own_locks(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


@pytest.mark.parametrize(
    ("value", "devices"),
    [
        ("0,1", ("0", "1")),
        (" 3 , 5", ("3", "5")),
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",)),
        ("MIG-GPU-8932f937/1/2,0", ("MIG-GPU-8932f937/1/2", "0")),
        ("0,-1,1", ("0",)),
        ("0,0,1", ("0",)),
        ("-1", ()),
        ("", ()),
        ("NoDevFiles", ()),
    ],
)
def test_visible_devices_of_variable_end_at_first_invalid_one(value, devices) -> None:
    """As CUDA reads it."""
    assert visible_devices({"CUDA_VISIBLE_DEVICES": value}, ["/dev/nvidia0"]) == devices


@pytest.mark.parametrize(
    ("files", "devices"),
    [([], None), (["/dev/nvidia10", "/dev/nvidia2"], ("2", "10")), (["/dev/nvidiactl"], None)],
)
def test_visible_devices_without_variable_are_device_files(files, devices) -> None:
    assert visible_devices({}, files) == devices


def test_of_run_limit_cuts_the_visible_devices() -> None:
    assert GpuDevices.of_run(1, {"CUDA_VISIBLE_DEVICES": "3,5"}).devices == ("3",)


def test_of_run_limit_above_visible_devices_is_noted() -> None:
    gpus = GpuDevices.of_run(4, {"CUDA_VISIBLE_DEVICES": "3,5"})
    assert gpus.devices == ("3", "5")
    assert gpus.notes == ["2 of 'gpu' at once on this machine instead of 4: CUDA_VISIBLE_DEVICES is '3,5'"]


def test_check_task_that_needs_more_than_visible_raises() -> None:
    with pytest.raises(InvalidWorkflow, match=r"task 'a' needs 2 of 'gpu', and 1 are visible; check CUDA_VISIBLE"):
        GpuDevices(("0",)).check([Task("a", "m", resources={"gpu": 2})])


def test_acquire_and_release_hand_out_each_device_once() -> None:
    gpus = GpuDevices(("0", "1", "2"))
    gpus.reserve("a", 2)
    gpus.reserve("b", 1)
    assert not gpus.has(1)
    assert gpus.variables_of("a") == {}
    assert gpus.acquire("a")
    assert gpus.acquire("b")
    assert (gpus.variables_of("a"), gpus.variables_of("b")) == (
        {"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "2"},
    )  # fmt: skip
    gpus.release("b")
    gpus.release("a")
    gpus.reserve("c", 1)
    assert gpus.acquire("c")
    assert gpus.variables_of("c") == {"CUDA_VISIBLE_DEVICES": "0"}
    assert gpus.variables_of("a") == {}


def test_acquire_leaves_devices_of_another_run() -> None:
    """Each run has its own locks, also within one process."""
    one, other = GpuDevices(("0", "GPU-1/2")), GpuDevices(("GPU-1/2", "0"))
    one.reserve("a", 1)
    assert one.acquire("a")
    other.reserve("b", 2)
    assert not other.acquire("b")
    other.release("b")
    other.reserve("c", 1)
    assert other.acquire("c")
    assert other.variables_of("c") == {"CUDA_VISIBLE_DEVICES": "GPU-1/2"}
    one.release("a")
    other.reserve("d", 1)
    assert other.acquire("d")


def test_acquire_in_another_slurm_job_ignores_the_locks_of_the_first() -> None:
    """There, device 0 may be another device."""
    one, other = (GpuDevices.of_run(None, {"CUDA_VISIBLE_DEVICES": "0", "SLURM_JOB_ID": job}) for job in "12")
    for gpus in (one, other):
        gpus.reserve("a", 1)
        assert gpus.acquire("a")


def test_devices_without_a_trusted_folder_are_not_locked(tmp_path) -> None:
    (tmp_path / f"airflow-provider-sewer-{os.geteuid()}-gpus").symlink_to(tmp_path)
    gpus = GpuDevices(("0",))
    (note,) = gpus.notes
    assert "GPUs are not locked, so another run may use the same ones: " in note
    gpus.reserve("a", 1)
    assert gpus.acquire("a")


def test_scheduler_starts_tasks_only_with_free_devices() -> None:
    tasks = [Task(name, "m", resources={"gpu": amount}) for name, amount in (("a", 1), ("b", 2), ("c", 1))]
    plan = Scheduler(Workflow("w", tasks), 9, {}, None, GpuDevices(("0", "1")))
    for name in plan.newly_ready():
        plan.enqueue(name)
    assert plan.start(done=(), ahead=False) == ["a", "c"]
    plan.end("a", Outcome(TaskState.SUCCEEDED))
    assert plan.start(done=(), ahead=False) == []
    plan.end("c", Outcome(TaskState.FAILED))
    assert plan.start(done=(), ahead=False) == ["b"]
    assert plan.gpus.acquire("b")
    assert plan.gpus.variables_of("b") == {"CUDA_VISIBLE_DEVICES": "0,1"}
