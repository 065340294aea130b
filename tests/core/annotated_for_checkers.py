"""A function whose mark only type checkers import, as linters would have it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from airflow_provider_sewer import task

if TYPE_CHECKING:
    from airflow_provider_sewer import Product


@task
def f(out: Annotated[Path, Product]): ...
