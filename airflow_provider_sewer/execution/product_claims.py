"""Claims of runs on a temporary product, so that no run removes a product that another one uses.

The folder ``.sewer/….runs`` beside a product has a file for each task of a run that has produced it, or has found it up
to date. The run removes the file when it no longer needs the product, and removes the product if no other file is left.
Airflow knows whether a DAG run has ended. A run of ``sppe`` holds a lock in its file, which ends with its process.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.atomic_file import write_atomically
from airflow_provider_sewer.core.errors import UnreadableRecord
from airflow_provider_sewer.core.formats import CLAIM
from airflow_provider_sewer.core.paths import OWN_FOLDER, sibling_path
from airflow_provider_sewer.core.trusted_files import parse_json, read_own
from airflow_provider_sewer.execution.staging_folders import create_locked_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

_SUFFIX = ".run"


class Claim(NamedTuple):
    """A claim on a product.

    :param dag_id: the DAG; empty for a run of ``sppe``.
    :param run_id: its run.
    :param task_id: the task of the run that produces the product.
    """

    dag_id: str
    run_id: str
    task_id: str

    def __str__(self) -> str:
        run = f"run {self.run_id!r} of DAG {self.dag_id!r}" if self.dag_id else f"the sppe run of {self.run_id}"
        return f"{run} (task {self.task_id!r})"


class Claims:
    """The claims on a product. While they are open, no other process changes them or removes the product.

    :param file: absolute path of the product; its folder has to exist.
    :param has_ended: returns whether the DAG run of a claim has ended, so that the claim no longer counts.

    Another run may use the product of a claim that cannot be read. Therefore such a claim raises
    :class:`~airflow_provider_sewer.core.errors.UnreadableRecord`.
    """

    def __init__(self, file: str, has_ended: Callable[[Claim], bool]) -> None:
        self._folder = sibling_path(file, ".runs", OWN_FOLDER)
        self._has_ended = has_ended

    def __enter__(self) -> Self:
        self._lock = create_locked_folder(self._folder)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with suppress(OSError):
            if not self._named():
                shutil.rmtree(self._folder)
        os.close(self._lock)

    def add(self, claim: Claim) -> None:
        """Claim the product."""
        write_atomically(self._path(claim), json.dumps(CLAIM.packed(claim)).encode())

    def hold(self, claim: Claim) -> int:
        """Claim the product until the descriptor is closed or this process ends.

        :returns: the descriptor.
        """
        self.add(claim)
        lock = os.open(self._path(claim), os.O_RDWR | os.O_CLOEXEC)
        with suppress(OSError):  # without file locks, the claim counts until it is dropped
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock

    def drop(self, claim: Claim) -> None:
        """Withdraw a claim, if it exists; without a task id, all claims of its run."""
        for each in self._read():
            if each == claim._replace(task_id=claim.task_id or each.task_id):
                os.unlink(self._path(each))

    def claims_of_other_runs(self, claim: Claim) -> list[Claim]:
        """Return the other claims on the product whose runs have not ended; a user may rerun an ended one later."""
        return [other for other in self._read() if other != claim and self._counts(other)]

    def drop_all(self) -> None:
        """Withdraw all claims, once the product has been removed."""
        for each in self._read():
            os.unlink(self._path(each))

    def _counts(self, claim: Claim) -> bool:
        return not self._has_ended(claim) if claim.dag_id else self._is_held(claim)

    def _is_held(self, claim: Claim) -> bool:
        lock = os.open(self._path(claim), os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        else:
            return False
        finally:
            os.close(lock)

    def _read(self) -> list[Claim]:
        claims = []
        for name in self._named():
            path = os.path.join(self._folder, name)
            try:
                claim = CLAIM.read(path, parse_json(read_own(path)))
            except UnreadableRecord:
                raise
            except (OSError, ValueError) as error:
                raise CLAIM.damaged(path, error) from None
            claims.append(Claim(*map(str, CLAIM.values(claim))))
        return claims

    def _named(self) -> list[str]:
        return sorted(name for name in os.listdir(self._folder) if name.endswith(_SUFFIX))

    def _path(self, claim: Claim) -> str:
        digest = hashlib.sha256("\0".join(claim).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return os.path.join(self._folder, f"{digest}{_SUFFIX}")
