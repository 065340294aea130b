"""URL of a job on the pages of its site, from the template ``job_url`` of a connection."""

from __future__ import annotations

import getpass
import string
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_sewer.core.errors import InvalidTask, unknown_name

if TYPE_CHECKING:
    from airflow_provider_sewer.slurm.backend import JobRef

#: Placeholders allowed in ``job_url``.
FIELDS = ("job_id", "job_name", "user")


def checked_job_url(url: Any) -> str | None:
    """Return a template if it is valid; ``None`` stays.

    :raises InvalidTask: when it is not a URL, or has other placeholders, or does not identify the job.
    """
    if url is None:
        return None
    if not isinstance(url, str) or not url.startswith(("http://", "https://")) or not url.isprintable():
        raise InvalidTask(f"job_url must be a URL that begins with https:// or http://, got {url!r:.200}")
    try:
        pieces = list(string.Formatter().parse(url))
    except ValueError as error:
        raise InvalidTask(f"job_url must be a valid template, got {url!r}: {error}") from None
    names = [name for _, name, _, _ in pieces if name is not None]
    for _, name, form, conversion in pieces:
        if name is not None and (name not in FIELDS or form or conversion):
            raise InvalidTask(f"job_url: {unknown_name('field', name, FIELDS)} Use it without a format.")
    if "job_id" not in names:
        raise InvalidTask("job_url must identify the job; {job_id} is missing, so all jobs would have the same link")
    return url


def url_of(template: str, job: JobRef) -> str:
    """Return the URL of a job.

    :param template: the ``job_url`` of the connection.
    """
    parts = {"job_id": job.id, "job_name": job.name, "user": getpass.getuser()}
    return template.format(**{name: quote(part, safe="") for name, part in parts.items()})
