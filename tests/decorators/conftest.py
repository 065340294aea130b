"""Shared fixtures of the decorator tests."""

from __future__ import annotations

import json

import pytest

from tests.operators.conftest import defaults, module  # noqa: F401 - fixtures


@pytest.fixture
def echo(module):  # noqa: F811 - the fixture
    """Return operator arguments of a module that returns its own arguments."""
    return module("""
        import json, os, sys
        with open(os.environ["SEWER_RESULT_FILE"], "w") as file:
            json.dump({"argv": " ".join(sys.argv[1:])}, file)
    """)


@pytest.fixture
def made(module):  # noqa: F811 - the fixture
    """Return operator arguments of a module that writes the file ``--out``."""
    return module("""
        import sys
        with open(sys.argv[sys.argv.index("--out") + 1], "w") as file:
            file.write("made")
        print("ran")
    """)


@pytest.fixture
def shown(airflow_home):
    """Return a function that returns a field of a task's latest run as Airflow shows it."""

    def read(dag_id: str, task_id: str, field: str):
        from airflow.models.renderedtifields import RenderedTaskInstanceFields
        from airflow.utils.session import create_session
        from sqlalchemy import select

        query = select(RenderedTaskInstanceFields.rendered_fields).where(
            RenderedTaskInstanceFields.dag_id == dag_id, RenderedTaskInstanceFields.task_id == task_id
        )
        with create_session() as session:
            fields = session.scalars(query.order_by(RenderedTaskInstanceFields.run_id.desc())).first()
        return (json.loads(fields) if isinstance(fields, str) else fields)[field]

    return read
