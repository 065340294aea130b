"""Extra link from a task to its Slurm job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class SlurmJobLink(BaseOperatorLink):
    """Link to the job on the site's own pages, if the connection has a ``job_url``.

    Airflow queries it on the worker, when the operator has run or is deferred, and stores the result.
    """

    name = "Slurm job"

    @property
    def xcom_key(self) -> str:
        """Return the XCom key of the link."""
        return "slurm_job_link"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's signature
        """Return the URL, or an empty string if there is none."""
        return getattr(operator, "job_link", None) or ""
