"""Pytest plugin that runs DAGs and sewer files in tests, in a separate Airflow.

Enable it in the ``conftest.py`` at the root of the tests::

    pytest_plugins = ["airflow_provider_sewer.testing"]

Before any test imports Airflow, the plugin sets AIRFLOW_HOME to a temporary folder and removes all variables of the
surrounding Airflow. Tests therefore cannot reach a real database or connection.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.execution.prefixed_lines import PrefixedLines
from airflow_provider_sewer.execution.workflow_runner import WorkflowRunner
from airflow_provider_sewer.loaders.workflow_files import load_workflow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.sdk import DAG

    from airflow_provider_sewer.execution.task_states import Outcome

_HOME = pytest.StashKey[Path]()
_SURROUNDING = pytest.StashKey[dict[str, str]]()
_BUNDLE = "dags-folder"


@dataclass(frozen=True)
class DagResult:
    """Result of a DAG run.

    :param state: the run's state, such as ``success``.
    :param states: task states by task id; for a mapped task, by ``id[map_index]``.
    :param results: the XComs ``return_value``, by the same keys.
    """

    state: str
    states: Mapping[str, str | None]
    results: Mapping[str, Any]


def pytest_configure(config: pytest.Config) -> None:
    """Set AIRFLOW_HOME to a temporary folder before any module imports Airflow."""
    if "airflow.settings" in sys.modules or "airflow.configuration" in sys.modules:
        raise pytest.UsageError(
            "Airflow was imported before airflow_provider_sewer.testing could set AIRFLOW_HOME; "
            "name this plugin in the root conftest.py, and import Airflow only in test modules"
        )
    home = Path(tempfile.mkdtemp(prefix="sewer-airflow-"))
    surrounding = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("AIRFLOW")}
    config.stash[_HOME] = home
    config.stash[_SURROUNDING] = surrounding
    os.environ |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }


def pytest_unconfigure(config: pytest.Config) -> None:
    """Restore the surrounding Airflow's variables and remove the temporary home."""
    if (home := config.stash.get(_HOME, None)) is None:
        return
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        del os.environ[name]
    surrounding: dict[str, str] = config.stash[_SURROUNDING]
    os.environ.update(surrounding)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def airflow_home(pytestconfig: pytest.Config) -> Path:
    """Initialize the database and return the AIRFLOW_HOME of the tests."""
    from airflow.utils.db import initdb

    initdb()
    return pytestconfig.stash[_HOME]


@pytest.fixture
def run_dag(airflow_home: Path) -> Callable[..., DagResult]:  # noqa: ARG001 - requested for its effect
    """Return a function that runs a DAG in this process, as ``dag.test()`` does, and returns its result."""

    def run(dag: DAG, *, conf: Mapping[str, Any] | None = None) -> DagResult:
        _register(dag)
        finished: Any = dag.test(run_conf=dict(conf or {}))
        states = {_key(instance): instance.state for instance in finished.get_task_instances()}
        return DagResult(
            state=str(finished.state),
            states={key: state and str(state) for key, state in states.items()},
            results=_results(finished),
        )

    return run


@pytest.fixture
def run_sewer_file() -> Callable[..., dict[str, Outcome]]:
    """Return a function that runs a workflow file on this machine, without Airflow."""

    def run(
        path: str | os.PathLike[str],
        workflow: str | None = None,
        *,
        jobs: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> dict[str, Outcome]:
        runner = WorkflowRunner(
            load_workflow(path, workflow, jobs=jobs, arguments=arguments),
            ExecutionSettings.checked(**settings),
            observers=[PrefixedLines()],
        )
        runner.check()
        return runner.run()

    return run


def _register(dag: DAG) -> None:
    """Register a DAG in the database, as the DAG processor would; a run requires it."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.utils.session import create_session

    with create_session() as session:
        DagBundlesManager().sync_bundles_to_db(session=session)  # type: ignore[no-untyped-call]
    bag = DagBag(dag_folder=os.devnull, bundle_path=None, bundle_name=_BUNDLE)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, _BUNDLE, None)


def _results(dag_run: Any) -> dict[str, Any]:
    # Read as a task reads them. TaskInstance.xcom_pull would parse text that looks like JSON.
    from airflow.models.xcom import XComModel
    from airflow.sdk.serde import deserialize
    from airflow.utils.session import create_session

    query = XComModel.get_many(run_id=dag_run.run_id, key="return_value", dag_ids=dag_run.dag_id)
    with create_session() as session:
        rows: Any = session.scalars(query)
        return {_key(row): deserialize(row.value) for row in rows}


def _key(instance: Any) -> str:
    return instance.task_id if instance.map_index < 0 else f"{instance.task_id}[{instance.map_index}]"
