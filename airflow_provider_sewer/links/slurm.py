"""The link from a task to its job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class SlurmJobLink(BaseOperatorLink):
    """Leads to the job on the site's own pages, if the connection has a ``job_url``.

    Airflow asks for it on the worker, when the operator has run or defers itself, and keeps the answer.
    """

    name = "Slurm job"

    @property
    def xcom_key(self) -> str:
        """Return the key that Airflow keeps the link under."""
        return "slurm_job_link"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow gives it
        """Return the address, or nothing if there is none."""
        return getattr(operator, "job_link", None) or ""
