"""Locks by which the runs of a user on one machine share its GPUs: the kernel releases those of a killed run."""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow_provider_sewer.core.errors import UntrustedPath
from airflow_provider_sewer.core.trusted_files import check_own_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_READ_WRITE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class GpuLocks:
    """Locks of GPUs; each is a locked file in the folder for temporary files.

    In Slurm jobs device numbers can be relative to the job, so each job has locks of its own.

    :param variables: the environment of this process.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        job = variables.get("SLURM_JOB_ID", "")
        name = f"airflow-provider-sewer-{os.geteuid()}-gpus" + (f"-job-{quote(job, safe='')}" if job else "")
        self._folder = os.path.join(tempfile.gettempdir(), name)
        self._files: dict[str, int] = {}
        #: Why there are no locks; empty if there are.
        self.trouble = ""
        try:
            with suppress(FileExistsError):
                os.mkdir(self._folder, 0o700)
            check_own_folder(self._folder)
        except (OSError, UntrustedPath) as error:
            self.trouble = f"GPUs are not locked, so another run may use the same ones: {error}"

    def lock(self, devices: Iterable[str], amount: int) -> list[str]:
        """Lock so many of these GPUs, and return them; return none if other processes hold too many of them."""
        locked: list[str] = []
        for device in devices:
            if len(locked) == amount:
                break
            if self._lock(device):
                locked.append(device)
        if len(locked) < amount:
            self.unlock(locked)
            return []
        return locked

    def unlock(self, devices: Iterable[str]) -> None:
        """Release these GPUs."""
        for device in devices:
            if (file := self._files.pop(device, None)) is not None:
                os.close(file)

    def _lock(self, device: str) -> bool:
        if self.trouble:
            return True
        try:
            file = os.open(os.path.join(self._folder, quote(device, safe="")), _READ_WRITE, 0o600)
        except OSError:
            return True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        except OSError:  # a file system without locks
            os.close(file)
            return True
        self._files[device] = file
        return True
