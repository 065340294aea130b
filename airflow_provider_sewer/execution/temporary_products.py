"""Removal of temporary products once all tasks that use them have succeeded, unless another run uses them as well."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import ProductError, SewerError
from airflow_provider_sewer.core.fingerprints import Fingerprint, fingerprint_of
from airflow_provider_sewer.core.paths import absolute_path
from airflow_provider_sewer.core.staleness import ProductState
from airflow_provider_sewer.execution.product_claims import Claim, Claims
from airflow_provider_sewer.execution.product_records import read_record, write_record
from airflow_provider_sewer.execution.staging_folders import naming_product, remove_atomically

if TYPE_CHECKING:
    from airflow_provider_sewer.core.paths import Product
    from airflow_provider_sewer.core.workflow import Workflow


class TemporaryProducts:
    """Temporary products of a run, and the tasks that have yet to use them.

    :param workflow: the workflow, the settings of its tasks resolved.
    """

    def __init__(self, workflow: Workflow) -> None:
        self._tasks = workflow.tasks
        self._of_user: dict[str, list[tuple[str, Product]]] = {}
        self._users_left: dict[tuple[str, str], int] = {}
        self._used: dict[str, list[Product]] = {}
        self._held: dict[tuple[str, str], int] = {}
        self._run_id = f"process {os.getpid()} on {socket.gethostname()}, {os.urandom(4).hex()}"
        for name, task in workflow.tasks.items():
            for product in task.products:
                users = (
                    set(workflow.edge_reasons.consumers.get((name, product.path), ())) if product.temporary else set()
                )
                elsewhere = workflow.excluded.consumers.get((name, product.path), ())
                self._users_left[name, product.path] = len(users) + len(elsewhere)
                if users:
                    self._used.setdefault(name, []).append(product)
                for user in users:
                    self._of_user.setdefault(user, []).append((name, product))

    def claim(self, producer: str) -> None:
        """Claim the temporary products of a task that this run uses, before the decision whether the task runs.

        :raises ProductError: when the claim cannot be written.
        """
        for product in self._used.get(producer, ()):
            file = self._located(producer, product)
            try:
                os.makedirs(os.path.dirname(file), exist_ok=True)
                with Claims(file, _unknown) as claims:
                    self._held[producer, file] = claims.hold(self._claim(producer))
            except OSError as error:
                message = f"task {producer!r}: product {product.path!r}: cannot record that this run uses it"
                raise ProductError(f"{message}: {error.filename}: {error.strerror}") from None

    def on_success(self, user: str) -> list[str]:
        """Record that a task has succeeded, and remove the products that no other task needs.

        :returns: warnings about products that could not be removed; this fails no task, as the work is done.
        """
        warnings = []
        for producer, product in self._of_user.get(user, ()):
            self._users_left[producer, product.path] -= 1
            if self._users_left[producer, product.path] == 0:
                try:
                    warnings += self._removed(producer, product)
                except SewerError as error:
                    warnings.append(str(error))
                except OSError as error:
                    warnings.append(f"cannot remove {product.path} after use: {error.filename}: {error.strerror}")
        return warnings

    def close(self) -> None:
        """Withdraw the remaining claims: a task has failed, and its temporary products are kept."""
        for producer, file in list(self._held):
            with suppress(OSError, SewerError), Claims(file, _unknown) as claims:
                self._drop(claims, producer, file)

    def _removed(self, producer: str, product: Product) -> list[str]:
        """Remove a product that no other run claims; otherwise return a warning."""
        file = self._located(producer, product)
        if not os.path.isdir(os.path.dirname(file)):
            return []
        with Claims(file, _unknown) as claims:
            self._drop(claims, producer, file)
            if others := claims.claims_of_other_runs(self._claim(producer)):
                return [f"did not remove {file}: in use by {' and '.join(map(str, others))}"]
            remove_temporary(product, self._tasks[producer].settings.workdir)
            claims.drop_all()
        return []

    def _drop(self, claims: Claims, producer: str, file: str) -> None:
        claims.drop(self._claim(producer))
        if (lock := self._held.pop((producer, file), None)) is not None:
            os.close(lock)

    def _claim(self, producer: str) -> Claim:
        return Claim("", self._run_id, producer)

    def _located(self, producer: str, product: Product) -> str:
        return absolute_path(product.path, self._tasks[producer].settings.workdir)


def _unknown(_: Claim) -> bool:
    """Treat every DAG run as active, because there is no Airflow to query here."""
    return False


def remove_temporary(product: Product, workdir: str | None) -> bool:
    """Remove a product that is no longer needed, and record its removal.

    :returns: whether it was removed; a product without a complete record is not touched.
    :raises ProductError: when it cannot be removed.
    """
    file = absolute_path(product.path, workdir)
    record = read_record(file)
    if record is None or not record.is_complete:
        return False
    if record.is_removed and os.path.lexists(file) and not _is_unchanged(file, record.product):
        return False  # it is another file; otherwise a process was killed just before it removed the product
    beside = ProductState(product.path, file, record).files_beside()
    own = [file, *(path for name, path in beside.items() if _is_unchanged(path, record.beside[name]))]
    there = [path for path in own if os.path.lexists(path)]
    if not there:
        return False
    with naming_product(record.task, product, "cannot remove it after use"):
        write_record(file, record._replace(is_removed=True))
        remove_atomically(there)
    return True


def _is_unchanged(file: str, known: Fingerprint | None) -> bool:
    now = fingerprint_of(file)
    return now is not None and known is not None and now.seen == known.seen
