"""A pytest plugin: run DAGs and sewer files in tests, in an Airflow of their own.

Turn it on in the ``conftest.py`` at the root of the tests::

    pytest_plugins = ["airflow_provider_sewer.testing"]

From then on, and before any test imports Airflow, AIRFLOW_HOME is a temporary folder and no variable of
the surrounding Airflow is left, so that no test can reach a real database or a real connection.
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
from airflow_provider_sewer.execution.log_observers import PrefixedLines
from airflow_provider_sewer.execution.workflow_runner import WorkflowRunner
from airflow_provider_sewer.loaders.workflow_files import load_workflow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.sdk import DAG

    from airflow_provider_sewer.execution.events import Outcome

_HOME = pytest.StashKey[Path]()
_SURROUNDING = pytest.StashKey[dict[str, str]]()
_BUNDLE = "dags-folder"


@dataclass(frozen=True)
class DagResult:
    """How a DAG run ended.

    :param state: the run's state, such as ``success``.
    :param states: the state of each task by its id; of a mapped task, by ``id[map_index]``.
    :param results: the XCom ``return_value`` of each task that left one, by the same keys.
    """

    state: str
    states: Mapping[str, str | None]
    results: Mapping[str, Any]


def pytest_configure(config: pytest.Config) -> None:
    """Give the tests an Airflow home of their own before anybody imports Airflow."""
    if "airflow.settings" in sys.modules or "airflow.configuration" in sys.modules:
        raise pytest.UsageError(
            "Airflow was imported before airflow_provider_sewer.testing could give it a home of its own; "
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
    """Put the surrounding Airflow's variables back and remove the home."""
    if (home := config.stash.get(_HOME, None)) is None:
        return
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        del os.environ[name]
    surrounding: dict[str, str] = config.stash[_SURROUNDING]
    os.environ.update(surrounding)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def airflow_home(pytestconfig: pytest.Config) -> Path:
    """Return the AIRFLOW_HOME of the tests, its database ready."""
    from airflow.utils.db import initdb

    initdb()
    return pytestconfig.stash[_HOME]


@pytest.fixture
def run_dag(airflow_home: Path) -> Callable[..., DagResult]:  # noqa: ARG001 - a fixture asks for another by name
    """Return a function that runs a DAG in this process, as ``dag.test()`` does, and says how it ended."""

    def run(dag: DAG, *, conf: Mapping[str, Any] | None = None) -> DagResult:
        _put_into_bag(dag)
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
    """Return a function that runs a workflow of a sewer file on this machine, without Airflow."""

    def run(
        path: str | os.PathLike[str],
        workflow: str | None = None,
        *,
        jobs: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> dict[str, Outcome]:
        engine = WorkflowRunner(
            load_workflow(path, workflow, jobs=jobs, arguments=arguments),
            ExecutionSettings.checked(**settings),
            observers=[PrefixedLines()],
        )
        engine.check()
        return engine.run()

    return run


def _put_into_bag(dag: DAG) -> None:
    """Register a DAG, as the DAG processor would: a run needs it in the database."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.utils.session import create_session

    with create_session() as session:
        DagBundlesManager().sync_bundles_to_db(session=session)  # type: ignore[no-untyped-call]
    bag = DagBag(dag_folder=os.devnull, bundle_path=None, bundle_name=_BUNDLE)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, _BUNDLE, None)


def _results(dag_run: Any) -> dict[str, Any]:
    # Read as a task reads them. (A TaskInstance's own xcom_pull takes text that looks like JSON apart.)
    from airflow.models.xcom import XComModel
    from airflow.sdk.serde import deserialize
    from airflow.utils.session import create_session

    query = XComModel.get_many(run_id=dag_run.run_id, key="return_value", dag_ids=dag_run.dag_id)
    with create_session() as session:
        rows: Any = session.scalars(query)
        return {_key(row): deserialize(row.value) for row in rows}


def _key(instance: Any) -> str:
    return instance.task_id if instance.map_index < 0 else f"{instance.task_id}[{instance.map_index}]"
