"""Products, functions, results and resources of a workflow file, as a TaskGroup in a real Airflow."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from airflow.sdk import DAG

from airflow_provider_sewer import SewerError
from airflow_provider_sewer.execution.product_claims import Claim, Claims
from airflow_provider_sewer.task_group import sewer_task_group

MODULE = """
import argparse, json, os, sys
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--in", dest="sources", action="append", default=[])
parser.add_argument("--out")
parser.add_argument("--text", default="")
given = parser.parse_args()
with open("runs.txt", "a") as runs:
    print(Path(given.out).name, file=runs)
Path(given.out).write_text(given.text + "".join(Path(each).read_text() for each in given.sources))
if given.text == "fail":
    sys.exit(3)
Path(os.environ["SEWER_RESULT_FILE"]).write_text(json.dumps({"out": given.out, "seed": 17, "list": [1, 2]}))
"""

FUNCTIONS = """
def add(a, b=1):
    return {"sum": a + b}

async def later(value):
    return [value, type(value).__name__]
"""

CHAIN = """
from airflow_provider_sewer import Dependency, Ignored, Product, Task

raw = Task("raw", "job", {"out": Product("build/raw.txt"), "text": "r"}, run_when="stale")
clean = Task("clean", "job", {"in": Dependency("build/raw.txt"), "out": Product("build/clean.txt")}, run_when="stale")
"""


@pytest.fixture
def folder(tmp_path):
    """Return the working directory of the tasks, with the modules they run."""
    (tmp_path / "job.py").write_text(MODULE)
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    return tmp_path


@pytest.fixture
def expand(folder):
    """Expand a workflow file's source in a new DAG, as the group ``g``; return the DAG."""

    def make(source: str, dag_id: str = "products", **arguments) -> DAG:
        file = folder / "flow.py"
        file.write_text(dedent(source))
        with DAG(dag_id, schedule=None) as dag:
            sewer_task_group(file, group_id="g", **{"python": sys.executable, "workdir": str(folder), **arguments})
        return dag

    return make


def runs(folder: Path) -> list[str]:
    """Return the names of the tasks that ran, in order."""
    return (folder / "runs.txt").read_text().split()


def test_products_set_dependencies(expand, run_dag, folder):
    """Only paths connect the tasks; a result contains the real names of products."""
    result = run_dag(expand(CHAIN))

    assert result.state == "success"
    assert runs(folder) == ["raw.txt", "clean.txt"]
    assert (folder / "build" / "clean.txt").read_text() == "r"
    assert result.results["g.raw"]["out"] == "build/raw.txt"


def test_up_to_date_task_succeeds_without_running(expand, run_dag, folder):
    """Its result is the previous one; its downstream tasks run as usual."""
    first = run_dag(expand(CHAIN))
    second = run_dag(expand(CHAIN))

    assert second.states == {"g.raw": "success", "g.clean": "success"}
    assert second.results == first.results
    assert runs(folder) == ["raw.txt", "clean.txt"]


def test_changed_parameter_reruns_all_downstream_tasks(expand, run_dag, folder):
    """And only then."""
    run_dag(expand(CHAIN))
    run_dag(expand(CHAIN.replace('"text": "r"', '"text": "other"')))

    assert runs(folder) == ["raw.txt", "clean.txt"] * 2
    assert (folder / "build" / "clean.txt").read_text() == "other"


def test_unchanged_task_is_stale_after_upstream_run(expand, run_dag, folder):
    """Also where no file passes between them."""
    source = """
    from airflow_provider_sewer import Product, Task
    first = Task("first", "job", {"out": Product("first.txt"), "text": "%s"}, run_when="stale")
    second = Task("second", "job", {"out": Product("second.txt")}, run_when="stale", depends_on=first)
    """
    run_dag(expand(source % "a"))
    run_dag(expand(source % "a"))
    run_dag(expand(source % "b"))

    assert runs(folder) == ["first.txt", "second.txt"] * 2


def test_missing_product_fails_task(expand, run_dag, folder):
    """With any exit code; the real path is unchanged."""
    (folder / "job.py").write_text("")
    (folder / "there.txt").write_text("old")
    source = "from airflow_provider_sewer import Product, Task\nTask('t', 'job', {'out': Product('there.txt')})"

    assert run_dag(expand(source)).state == "failed"
    assert (folder / "there.txt").read_text() == "old"


def test_failed_module_leaves_product_in_staging(expand, run_dag, folder):
    """The real name never appears."""
    source = "from airflow_provider_sewer import Product, Task\n"
    source += "Task('t', 'job', {'out': Product('new.txt'), 'text': 'fail'})"

    assert run_dag(expand(source)).state == "failed"
    assert not (folder / "new.txt").exists()
    assert (folder / "new.txt.failed").read_text() == "fail"


def test_product_paths_are_templated(expand, run_dag, folder):
    """Each run has products of its own."""
    source = """
    from airflow_provider_sewer import Dependency, Product, Task
    Task("a", "job", {"out": Product("{{ dag.dag_id }}/a.txt"), "text": "a"})
    Task("b", "job", {"in": Dependency("{{ dag.dag_id }}/a.txt"), "out": Product("{{ dag.dag_id }}/b.txt")})
    """
    dag = expand(source, dag_id="templates")

    assert dag.get_task("g.a").downstream_task_ids == {"g.b"}
    assert dag.get_task("g.a").outlets == []
    assert run_dag(dag).state == "success"
    assert (folder / "templates" / "b.txt").read_text() == "a"


def events(dag_id: str) -> list[tuple[str, str, int]]:
    """Return the events of a DAG's assets: which asset, by which task, by which of its instances."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    query = select(AssetModel.name, AssetEvent.source_task_id, AssetEvent.source_map_index)
    with create_session() as session:
        rows = session.execute(
            query.join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            .where(AssetEvent.source_dag_id == dag_id)
            .order_by(AssetEvent.id)
        )
        return [(os.path.basename(name), task_id, map_index) for name, task_id, map_index in rows]


def test_products_are_outlets_and_skipped_tasks_emit_no_asset_event(expand, run_dag, folder):
    """Another DAG can be scheduled on them by their place."""
    dag = expand(CHAIN, "assets")
    assert [asset.uri for asset in dag.get_task("g.clean").outlets] == [f"file://{folder}/build/clean.txt"]
    run_dag(dag)
    assert events("assets") == [("raw.txt", "g.raw", -1), ("clean.txt", "g.clean", -1)]
    run_dag(expand(CHAIN, "assets"))
    assert len(events("assets")) == 2


def test_function_gets_key_of_upstream_result(expand, run_dag):
    """Of its own type, and however long: it goes by XCom, and not through a command line."""
    source = """
    from airflow_provider_sewer import Product, Task
    made = Task("made", "job", {"out": Product("made.txt")})
    total = Task("total", function="functions:add", kwargs={"a": made.result["seed"], "b": made.result["list"][1]})
    later = Task("later", function="functions:later", kwargs={"value": total.result["sum"]})
    long = Task("long", function="functions:add", kwargs={"a": "x" * 100_000, "b": "y" * 100_000})
    Task("longer", function="functions:later", kwargs={"value": long.result["sum"]})
    Task("output", "job", {"out": Product("output.txt"), "text": later.result[0]})
    """
    result = run_dag(expand(source))

    assert result.state == "success"
    assert result.results["g.total"] == {"sum": 19}
    assert result.results["g.later"] == [19, "int"]
    assert result.results["g.longer"] == ["x" * 100_000 + "y" * 100_000, "str"]


def test_missing_key_of_result_fails_downstream_task(expand, run_dag):
    """Another try would not help."""
    source = """
    from airflow_provider_sewer import Product, Task
    made = Task("made", "job", {"out": Product("made.txt")})
    Task("total", function="functions:add", kwargs={"a": made.result["sead"]}, operator_kwargs={"retries": 3})
    """
    assert run_dag(expand(source)).states == {"g.made": "success", "g.total": "failed"}


def test_temporary_products_are_removed_by_remove_task(expand, run_dag, folder):
    """Once all their users have succeeded, and not when one has failed."""
    source = """
    from airflow_provider_sewer import Dependency, Product, Task
    Task("raw", "job", {"out": Product("raw.txt", temporary=True), "text": "r"})
    Task("one", "job", {"in": Dependency("raw.txt"), "out": Product("one.txt")})
    Task("two", "job", {"in": Dependency("raw.txt"), "out": Product("two.txt"), "text": "%s"})
    """
    dag = expand(source % "fail")
    assert dag.get_task("g.remove_raw_txt").upstream_task_ids == {"g.one", "g.two"}
    assert run_dag(dag).states["g.remove_raw_txt"] == "upstream_failed"
    assert (folder / "raw.txt").exists()

    assert run_dag(expand(source % "")).states["g.remove_raw_txt"] == "success"
    assert not (folder / "raw.txt").exists()


def test_temporary_product_claimed_by_sppe_run_is_not_removed(expand, run_dag, folder):
    """Its process holds a lock, so that Airflow need not know of it."""
    source = """
    from airflow_provider_sewer import Dependency, Product, Task
    Task("raw", "job", {"out": Product("raw.txt", temporary=True), "text": "r"})
    Task("one", "job", {"in": Dependency("raw.txt"), "out": Product("one.txt")})
    """
    with Claims(str(folder / "raw.txt"), lambda _: True) as claims:
        lock = claims.hold(Claim("", "process 1 on here", "raw"))
    assert run_dag(expand(source)).state == "success"
    assert (folder / "raw.txt").read_text() == "r"

    os.close(lock)
    assert run_dag(expand(source)).state == "success"
    assert not (folder / "raw.txt").exists()


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "triggerer"])
def test_external_input_has_sensor(expand, run_dag, folder, deferrable):
    """By a task before its users."""
    source = """
    from airflow_provider_sewer import External, Product, Task
    Task("use", "job", {"in": External("delivery/today.txt", timeout=60), "out": Product("out.txt")})
    """
    (folder / "delivery").mkdir()
    (folder / "delivery" / "today.txt").write_text("news")
    dag = expand(source, deferrable=deferrable)

    assert dag.get_task("g.wait_for_today_txt").timeout == 60
    assert dag.get_task("g.use").upstream_task_ids == {"g.wait_for_today_txt"}
    assert run_dag(dag).state == "success"
    assert (folder / "out.txt").read_text() == "news"


def test_external_path_sensor_deferred_finishes_when_path_appears(folder, run_dag):
    """The task is deferred until the file is there."""
    import threading

    from airflow_provider_sewer.operators.paths import ExternalPathSensor

    with DAG("waits", schedule=None) as dag:
        sensor = ExternalPathSensor(task_id="wait", path=folder / "late.txt", deferrable=True, poke_interval=0.2)
    looked = threading.Event()
    poke = sensor.poke

    def note(context) -> bool:
        looked.set()
        return poke(context)

    sensor.poke = note
    writer = threading.Thread(target=lambda: looked.wait(60) and (folder / "late.txt").touch())
    writer.start()
    assert run_dag(dag).state == "success"
    writer.join()


def test_missing_dependency_fails_task_with_its_path(expand, run_dag, capsys):
    """Before its module is started."""
    source = "from airflow_provider_sewer import Dependency, Task\n"
    source += "Task('t', 'job', {'in': Dependency('nowhere.txt'), 'out': 'x'})"

    assert run_dag(expand(source)).state == "failed"
    output = capsys.readouterr().out
    assert "task 'g.t' needs 'nowhere.txt', which is not a product of any task and does not exist" in output


def test_resource_becomes_pool(expand):
    """As many slots as the task takes; operator_kwargs override that."""
    dag = expand("""
    from airflow_provider_sewer import Task
    Task("a", "job", resources={"gpu": 2})
    Task("b", "job", resources={"gpu": 2}, operator_kwargs={"pool": "mine", "pool_slots": 1})
    """)

    assert (dag.get_task("g.a").pool, dag.get_task("g.a").pool_slots) == ("gpu", 2)
    assert (dag.get_task("g.b").pool, dag.get_task("g.b").pool_slots) == ("mine", 1)


def test_two_resources_of_one_task_raise(expand):
    """The error includes the fix."""
    with pytest.raises(SewerError, match="an Airflow task uses one pool only; set 'pool' in operator_kwargs"):
        expand("from airflow_provider_sewer import Task\nTask('a', 'job', resources={'gpu': 1, 'licence': 1})")


def test_serialized_dag_is_stable_across_parses(expand):
    """Markers leave no trace of where they lie in memory."""
    from airflow.serialization.serialized_objects import DagSerialization

    first, second = (DagSerialization.to_dict(expand(CHAIN)) for _ in range(2))
    assert first == second
    assert " at 0x" not in str(first)  # as in the repr of an object; "0x" alone can be part of a folder's random name


MAPPED = """
from airflow_provider_sewer import Dependency, Product, Task

train = Task("train", "job", {"out": Product("models/{text}.txt", temporary=True)}).map(text=["a", "b", "c"])
all_of_them = Task(
    "all", "job", {"in": [Dependency(f"models/{n}.txt") for n in "abc"], "out": Product("all.txt")}
)
total = Task("total", function="functions:later", kwargs={"value": [each["seed"] for each in train.result]})
second = Task("second", function="functions:later", kwargs={"value": train[1].result["out"]})
"""


def test_mapped_task_becomes_one_mapped_airflow_task(expand, run_dag, folder):
    """Each instance has its own parameters and products; results are separate, and removed together."""
    dag = expand(MAPPED)

    assert set(dag.task_ids) == {"g.train", "g.all", "g.total", "g.second", "g.remove_a_txt"}
    assert dag.get_task("g.train").downstream_task_ids == {"g.all", "g.total", "g.second"}
    result = run_dag(dag)
    assert result.state == "success"
    assert (folder / "all.txt").read_text() == "abc"
    assert result.results["g.total"] == [[17, 17, 17], "list"]
    assert result.results["g.second"][0].endswith("/b.txt")
    assert sorted(key for key in result.states if "train" in key) == ["g.train[0]", "g.train[1]", "g.train[2]"]
    assert os.listdir(folder / "models") == [".sewer"]


MAPPED_ASSETS = """
from airflow.sdk import Asset
from airflow_provider_sewer import Product, Task

Task(
    "each", "job", {{"out": Product("each/{{text}}.txt"),}}, run_when="stale",
    operator_kwargs={{"outlets": [Asset("mine")]}},
).map(text={values})
"""


def test_mapped_instance_emits_asset_events_of_its_own_products(expand, run_dag, folder):
    """The DAG has the outlets of all; a skipped task emits no event, for given outlets either."""
    dag = expand(MAPPED_ASSETS.format(values=["a", "b"]), "mapped_assets")
    outlets = [asset.name for asset in dag.get_task("g.each").outlets]
    assert outlets == ["mine", f"file://{folder}/each/a.txt", f"file://{folder}/each/b.txt"]

    run_dag(dag)
    assert sorted(events("mapped_assets")) == [
        ("a.txt", "g.each", 0), ("b.txt", "g.each", 1), ("mine", "g.each", 0), ("mine", "g.each", 1)
    ]  # fmt: skip
    run_dag(expand(MAPPED_ASSETS.format(values=["a", "b", "c"]), "mapped_assets"))
    assert sorted(events("mapped_assets")[4:]) == [("c.txt", "g.each", 2), ("mine", "g.each", 2)]


def test_task_map_over_upstream_result(expand, run_dag, folder):
    """How many there are shows only in the run."""
    source = """
    from airflow_provider_sewer import Product, Task
    names = Task("names", function="functions:names", kwargs={"how_many": 3})
    each = Task("each", "job", {"out": Product("each/{text}.txt")}).map(text=names.result)
    Task("all", function="functions:later", kwargs={"value": each.result})
    """
    (folder / "functions.py").write_text(FUNCTIONS + "def names(how_many): return list('xyz'[:how_many])\n")
    result = run_dag(expand(source, "over_a_result"))

    assert result.state == "success"
    assert events("over_a_result") == []  # these products are not known beforehand
    assert sorted(runs(folder)) == ["x.txt", "y.txt", "z.txt"]
    assert [each["seed"] for each in result.results["g.all"][0]] == [17, 17, 17]


def test_run_when_never_fails_without_product(expand, run_dag, folder):
    """It has to be there already."""
    source = "from airflow_provider_sewer import Product, Task\n"
    source += "Task('t', 'job', {'out': Product('there.txt')}, run_when='never')"

    assert run_dag(expand(source)).state == "failed"
    (folder / "there.txt").write_text("made by hand")
    assert run_dag(expand(source)).state == "success"


def test_product_path_with_any_characters_is_accepted(expand, run_dag, folder):
    """As an asset it is known by its URI."""
    source = "from airflow_provider_sewer import Product, Task\nTask('t', 'job', {'out': Product('ü b/ß.txt')})"
    dag = expand(source, dag_id="letters")

    assert [asset.uri for asset in dag.get_task("g.t").outlets] == [f"file://{folder}/%C3%BC%20b/%C3%9F.txt"]
    assert run_dag(dag).state == "success"
