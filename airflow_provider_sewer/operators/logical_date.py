"""Error for templates such as `{{ ds }}` in runs without a logical date."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowFailException

if TYPE_CHECKING:
    from jinja2 import UndefinedError

#: Variables that Airflow leaves out of the context of a run without a logical date.
_DATES = frozenset({"ds", "ds_nodash", "logical_date", "ts", "ts_nodash", "ts_nodash_with_tz"})
_UNDEFINED = re.compile(r"'(\w+)' is undefined")


def missing_date_error(error: UndefinedError, *, has_date: bool) -> AirflowFailException | None:
    """Return the error that explains the failure of a template; ``None`` if the cause is not a missing logical date.

    :param error: the error of the template.
    :param has_date: whether the run has a logical date.
    """
    undefined = _UNDEFINED.fullmatch(error.message or "")
    if undefined is None or undefined[1] not in _DATES or has_date:
        return None
    return AirflowFailException(
        f"{undefined[0]}: this run has no logical date, like each run triggered by an asset, or by a user "
        "without a date; use {{ run_id }} or {{ dag_run.run_after }} instead"
    )
