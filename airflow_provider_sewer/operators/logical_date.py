"""Error for templates such as `{{ ds }}` in runs without a logical date."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.sdk import Context
    from jinja2 import Environment

#: Variables that Airflow leaves out of the context of a run without a logical date.
_DATES = frozenset({"ds", "ds_nodash", "logical_date", "ts", "ts_nodash", "ts_nodash_with_tz"})
_UNDEFINED = re.compile(r"'(\w+)' is undefined")


class NamesMissingDate:
    """Mixin for operators that explains the failure of a template if the run has no logical date."""

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: Environment,
        seen_oids: set[int],
    ) -> None:
        from jinja2 import UndefinedError  # Airflow has loaded it before rendering

        base: Any = super()
        try:
            base._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
        except UndefinedError as error:
            undefined = _UNDEFINED.fullmatch(error.message or "")
            if undefined is None or undefined[1] not in _DATES or "logical_date" in context:
                raise
            raise AirflowFailException(
                f"{undefined[0]}: this run has no logical date, like each run triggered by an asset, or by a user "
                "without a date; use {{ run_id }} or {{ dag_run.run_after }} instead"
            ) from None
