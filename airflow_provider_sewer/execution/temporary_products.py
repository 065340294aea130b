"""Remove temporary products when all their users have succeeded, unless another run uses them as well."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import ProductError, SewerError
from airflow_provider_sewer.core.paths import absolute_path
from airflow_provider_sewer.execution.product_claims import Claim, Claims
from airflow_provider_sewer.execution.staged_products import remove_temporary

if TYPE_CHECKING:
    from airflow_provider_sewer.core.paths import Product
    from airflow_provider_sewer.core.workflow import Workflow


class TemporaryProducts:
    """The temporary products of a run, and which tasks are still to use them.

    :param workflow: the tasks, their settings settled.
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

    def claim(self, maker: str) -> None:
        """Claim the temporary products of a task that this run uses, before it is decided whether they are made.

        :raises ProductError: when that cannot be noted.
        """
        for product in self._used.get(maker, ()):
            file = self._located(maker, product)
            try:
                os.makedirs(os.path.dirname(file), exist_ok=True)
                with Claims(file, _unknown) as claims:
                    self._held[maker, file] = claims.hold(self._claim(maker))
            except OSError as error:
                said = f"task {maker!r}: product {product.path!r}: cannot note that this run uses it"
                raise ProductError(f"{said}: {error.filename}: {error.strerror}") from None

    def on_success(self, user: str) -> list[str]:
        """Note that a task has succeeded, and remove what was left only for it.

        :returns: what could not be removed, and why: the work is done, so it fails nobody.
        """
        warnings = []
        for maker, product in self._of_user.get(user, ()):
            self._users_left[maker, product.path] -= 1
            if self._users_left[maker, product.path] == 0:
                try:
                    warnings += self._removed(maker, product)
                except SewerError as error:
                    warnings.append(str(error))
                except OSError as error:
                    warnings.append(f"cannot remove {product.path} after use: {error.filename}: {error.strerror}")
        return warnings

    def close(self) -> None:
        """Withdraw the claims that are left: a task has failed, and its temporary products are kept."""
        for maker, file in list(self._held):
            with suppress(OSError, SewerError), Claims(file, _unknown) as claims:
                self._drop(claims, maker, file)

    def _removed(self, maker: str, product: Product) -> list[str]:
        """Remove a product that no other run claims; else return that it was left."""
        file = self._located(maker, product)
        if not os.path.isdir(os.path.dirname(file)):
            return []
        with Claims(file, _unknown) as claims:
            self._drop(claims, maker, file)
            if others := claims.claims_of_other_runs(self._claim(maker)):
                return [f"left {file} to {' and '.join(map(str, others))}, which uses it"]
            remove_temporary(product, self._tasks[maker].settings.workdir)
            claims.drop_all()
        return []

    def _drop(self, claims: Claims, maker: str, file: str) -> None:
        claims.drop(self._claim(maker))
        if (lock := self._held.pop((maker, file), None)) is not None:
            os.close(lock)

    def _claim(self, maker: str) -> Claim:
        return Claim("", self._run_id, maker)

    def _located(self, maker: str, product: Product) -> str:
        return absolute_path(product.path, self._tasks[maker].settings.workdir)


def _unknown(_: Claim) -> bool:
    """Take no DAG run for ended: there is no Airflow here to be asked."""
    return False
