"""GPUs of this machine that runs hand out to their tasks, so that two tasks never share one by accident."""

from __future__ import annotations

import glob
import os
import re
import threading
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import InvalidWorkflow
from airflow_provider_sewer.execution.gpu_locks import GpuLocks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_sewer.core.task import Task

#: Name of the resource, and variable that CUDA and the libraries on top of it read (CUDA C++ Programming Guide,
#: "CUDA Environment Variables"): device numbers or UUIDs, with commas between them.
RESOURCE = "gpu"
VARIABLE = "CUDA_VISIBLE_DEVICES"
_DEVICE_FILES = "/dev/nvidia[0-9]*"


def visible_devices(variables: Mapping[str, str], files: Iterable[str] | None = None) -> tuple[str, ...] | None:
    """Return the GPUs that this process may use; ``None`` if that is not known.

    :param variables: its environment. As for CUDA, the list ends at the first invalid device.
    :param files: device files; by default, those of this machine.
    """
    if (listed := variables.get(VARIABLE)) is not None:
        devices = []
        for device in map(str.strip, listed.split(",")):
            if not re.fullmatch(r"\d+|(GPU|MIG)-[\w./-]+", device) or device in devices:
                break
            devices.append(device)
        return tuple(devices)
    found = glob.glob(_DEVICE_FILES) if files is None else files
    numbers = sorted(int(number[1]) for file in found if (number := re.search(r"nvidia(\d+)$", file)))
    return tuple(map(str, numbers)) or None


class GpuDevices:
    """The GPUs of a run, and the tasks that hold them.

    The scheduler reserves an amount for a task. When the task runs, it gets devices that no other run has locked.

    :param devices: the GPUs; with ``None``, none are handed out and their number is not limited.
    :param notes: why there are fewer than requested, or they are not locked.
    :param locks: locks shared with other runs.
    """

    def __init__(self, devices: Sequence[str] | None, notes: Sequence[str] = (), locks: GpuLocks | None = None) -> None:
        self.devices = devices
        self.notes = [*notes]
        self._locks = locks or GpuLocks(os.environ)
        self._amounts: dict[str, int] = {}
        self._variables: dict[str, dict[str, str]] = {}
        self._held: dict[str, list[str]] = {}
        self._mutex = threading.Lock()
        if devices and self._locks.trouble:
            self.notes.append(self._locks.trouble)

    @classmethod
    def of_run(cls, limit: int | None, variables: Mapping[str, str]) -> GpuDevices:
        """Return the GPUs of a run.

        :param limit: maximum number of GPUs that it uses.
        :param variables: the environment of this process.
        """
        devices, locks = visible_devices(variables), GpuLocks(variables)
        if limit is None or devices is None:
            return cls(devices if limit is None else tuple(map(str, range(limit))), locks=locks)
        if limit <= len(devices):
            return cls(devices[:limit], locks=locks)
        seen = (
            f"{VARIABLE} is {variables[VARIABLE]!r}" if VARIABLE in variables else f"there is no other {_DEVICE_FILES}"
        )
        note = f"{len(devices)} of {RESOURCE!r} at once on this machine instead of {limit}: {seen}"
        return cls(devices, [note], locks)

    def check(self, tasks: Iterable[Task]) -> None:
        """Check that each task can get its GPUs.

        :raises InvalidWorkflow: naming the task.
        """
        for task in tasks:
            amount = task.resources.get(RESOURCE, 0)
            if self.devices is not None and amount > len(self.devices):
                raise InvalidWorkflow(
                    f"task {task.name!r} needs {amount} of {RESOURCE!r}, and {len(self.devices)} are visible; "
                    f"check {VARIABLE} and --limit {RESOURCE}=N",
                    task.source,
                )

    def has(self, amount: int) -> bool:
        """Return whether tasks of this run leave so many."""
        return self.devices is None or amount <= len(self.devices) - sum(self._amounts.values())

    def reserve(self, task: str, amount: int) -> None:
        """Reserve GPUs for a task."""
        if self.devices is not None and amount:
            self._amounts[task] = amount

    def acquire(self, task: str) -> bool:
        """Hand out the reserved GPUs to a task; return whether other runs leave enough of them."""
        with self._mutex:
            if task not in self._amounts or task in self._held:
                return True
            taken = {device for held in self._held.values() for device in held}
            free = [device for device in self.devices or () if device not in taken]
            self._held[task] = self._locks.lock(free, self._amounts[task])
            if not self._held[task]:
                del self._held[task]
                return False
            self.variables_of(task)[VARIABLE] = ",".join(self._held[task])
            return True

    def release(self, task: str) -> None:
        """Take back the GPUs of a task."""
        with self._mutex:
            self._amounts.pop(task, None)
            self._variables.pop(task, None)
            self._locks.unlock(self._held.pop(task, ()))

    def variables_of(self, task: str) -> dict[str, str]:
        """Return the variables by which a task sees only its own GPUs; they are set when it gets them."""
        return self._variables.setdefault(task, {})
