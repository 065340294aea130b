"""Products shared by overlapping DAG runs: claims on temporary ones, and warnings that name the other runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import ProductError
from airflow_provider_sewer.core.paths import Product, absolute_path
from airflow_provider_sewer.execution.product_claims import Claim, Claims
from airflow_provider_sewer.execution.product_records import read_record
from airflow_provider_sewer.execution.temporary_products import remove_temporary

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.sdk.types import RuntimeTaskInstanceProtocol

    from airflow_provider_sewer.core.paths import LocatedProduct

_ACTIVE_STATES = ["queued", "running"]


def claim_temporary(
    task: str, products: Sequence[LocatedProduct], ti: RuntimeTaskInstanceProtocol, warn: Callable[[str], None]
) -> None:
    """Claim the temporary products of a task for its DAG run, before the task checks whether they are up to date.

    :param task: the name of the task.
    :param products: its products.
    :param ti: the task instance.
    :param warn: called with a line for each product that another unfinished run also claims.
    :raises ProductError: if the claim cannot be recorded.
    """
    for product, file in products:
        if product.temporary:
            claim = _claim(ti, ti.task_id)
            try:
                os.makedirs(os.path.dirname(file), exist_ok=True)
                with _claims(file, ti) as claims:
                    claims.add(claim)
                    others = claims.claims_of_other_runs(claim)
            except OSError as error:
                message = f"task {task!r}: product {product.path!r}: cannot record that this run uses it"
                raise ProductError(f"{message}: {error.filename}: {error.strerror}") from None
            if others:
                warn(_shared(file, _named(others)))


def warn_of_other_runs(
    products: Sequence[LocatedProduct], ti: RuntimeTaskInstanceProtocol, warn: Callable[[str], None]
) -> Sequence[str]:
    """Warn of each product of a task that another unfinished DAG run has produced.

    :param products: the products of the task, which is about to run.
    :param ti: the task instance.
    :param warn: called with a line for each product.
    :returns: DAG and run of this task, for the records of its products.
    """
    own = [ti.dag_id, ti.run_id] if products else []
    ended: dict[tuple[str, ...], bool] = {}
    for product, file in products:
        record = None if product.temporary else read_record(file)
        if record is not None and record.dag_run and list(record.dag_run) != own:
            dag_id, run_id = other = (record.dag_run[0], record.dag_run[-1])
            ended[other] = ended.get(other) or _has_ended(ti, dag_id, run_id)
            if not ended[other]:
                warn(_shared(file, f"run {run_id!r} of DAG {dag_id!r}"))
    return own


def remove_unclaimed(product: Product, workdir: str | None, made_by: str, ti: RuntimeTaskInstanceProtocol) -> str:
    """Withdraw a DAG run's claim on a temporary product; remove the product if there is no other claim.

    :param made_by: id of the task that produces it; all tasks of the run, if empty.
    :returns: the outcome, for the log.
    :raises ProductError: if it cannot be removed.
    """
    file = absolute_path(product.path, workdir)
    if not os.path.isdir(os.path.dirname(file)):
        return f"Nothing to remove at {file}"
    claim = _claim(ti, made_by)
    try:
        with _claims(file, ti) as claims:
            claims.drop(claim)
            if others := claims.claims_of_other_runs(claim):
                return f"Left {file} to {_named(others)}, which uses it"
            removed = remove_temporary(product, workdir)
            claims.drop_all()
    except OSError as error:
        raise ProductError(f"cannot remove {file} after use: {error.filename}: {error.strerror}") from None
    return f"{'Removed' if removed else 'Nothing to remove at'} {file}"


def _claims(file: str, ti: RuntimeTaskInstanceProtocol) -> Claims:
    return Claims(file, lambda claim: _has_ended(ti, claim.dag_id, claim.run_id))


def _claim(ti: RuntimeTaskInstanceProtocol, task_id: str) -> Claim:
    return Claim(ti.dag_id, ti.run_id, task_id)


def _named(claims: list[Claim]) -> str:
    return " and ".join(map(str, claims))


def _shared(file: str, others: str) -> str:
    return (
        f"{others} has also produced {file} and has not ended, so the tasks of both runs read the same file; "
        "add {{ run_id }} to its path, or set max_active_runs=1 in the DAG"
    )


def _has_ended(ti: RuntimeTaskInstanceProtocol, dag_id: str, run_id: str) -> bool:
    """Return whether a DAG run has ended or was deleted; ``False`` if Airflow does not answer."""
    try:
        return ti.get_dr_count(dag_id=dag_id, run_ids=[run_id], states=_ACTIVE_STATES) == 0
    except Exception:  # no error of the query implies that the run has ended
        return False
