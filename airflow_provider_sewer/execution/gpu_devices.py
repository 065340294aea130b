"""GPUs of this machine that a run hands out to its tasks, so that two tasks never share one by accident."""

from __future__ import annotations

import glob
import re
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import InvalidWorkflow

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
    """The GPUs of a run, and the tasks that hold them. Not thread-safe.

    :param devices: the GPUs; with ``None``, none are handed out and their number is not limited.
    :param notes: why there are fewer than requested.
    """

    def __init__(self, devices: Sequence[str] | None, notes: Sequence[str] = ()) -> None:
        self.devices = devices
        self.notes = notes
        self._free = list(devices or ())
        self._held: dict[str, list[str]] = {}

    @classmethod
    def of_run(cls, limit: int | None, variables: Mapping[str, str]) -> GpuDevices:
        """Return the GPUs of a run.

        :param limit: maximum number of GPUs that it uses.
        :param variables: the environment of this process.
        """
        devices = visible_devices(variables)
        if limit is None or devices is None:
            return cls(devices if limit is None else tuple(map(str, range(limit))))
        if limit <= len(devices):
            return cls(devices[:limit])
        seen = (
            f"{VARIABLE} is {variables[VARIABLE]!r}" if VARIABLE in variables else f"there is no other {_DEVICE_FILES}"
        )
        return cls(devices, [f"{len(devices)} of {RESOURCE!r} at once on this machine instead of {limit}: {seen}"])

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
        """Return whether so many are free."""
        return self.devices is None or amount <= len(self._free)

    def take(self, task: str, amount: int) -> None:
        """Hand out free GPUs to a task."""
        if self.devices is not None and amount:
            self._held[task], self._free = self._free[:amount], self._free[amount:]

    def release(self, task: str) -> None:
        """Take back the GPUs of a task; they are handed out again in their order."""
        if held := self._held.pop(task, None):
            order = {device: number for number, device in enumerate(self.devices or ())}
            self._free = sorted([*self._free, *held], key=order.__getitem__)

    def variables_of(self, task: str) -> dict[str, str]:
        """Return the variables by which a task sees only its own GPUs; empty if it has none."""
        return {VARIABLE: ",".join(self._held[task])} if task in self._held else {}
