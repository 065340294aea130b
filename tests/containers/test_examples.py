"""Every example DAG in the containers: started over REST, its log read over REST."""

from __future__ import annotations

import json
import re

import pytest

from tests.dags.test_dags import EXAMPLES, FOLLOWER

from .stack import LOGIN

#: Tasks that do not run modules; their log has only Airflow's lines.
OTHERS = {"choose_models", "choose_seed", "clean_up", "digits.remove_noisy_npz"}


@pytest.fixture(scope="module")
def runs(stack):
    """Start all of them at once, as soon as they are there; return their run ids."""
    return {dag_id: stack.trigger(dag_id) for dag_id in sorted(EXAMPLES)}


@pytest.mark.parametrize("dag_id", sorted(EXAMPLES))
def test_example_dag_succeeds_with_readable_logs(stack, runs, dag_id):
    """The log of each task has its module's output; Slurm tasks ran on the nodes, the others in the scheduler."""
    run_id = runs[dag_id]
    ends = {"success", "failed"}
    stack.until(lambda: stack.run_state(dag_id, run_id) in ends, f"the end of {dag_id}", timeout=600)
    instances = stack.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
    states = {(one["task_id"], one["map_index"]): one["state"] for one in instances}
    assert states == dict.fromkeys(states, "success")
    scheduler = stack.containers()["airflow-scheduler"]["ID"]
    assert {one["hostname"] for one in instances} == {scheduler[:12]}
    for one in instances:
        log = stack.log(dag_id, run_id, one["task_id"], one["try_number"], one["map_index"])
        if one["task_id"] not in OTHERS and dag_id != "data_prep_secondary":
            loggers = {line.get("logger") for line in log}
            # A try that Airflow makes once more on a busy machine may find the product of the one before.
            rests = any("Not running" in line["event"] for line in log) and one["try_number"] > 1
            assert rests or "airflow.task.module.stdout" in loggers, f"{one['task_id']}: {log}"


def test_asset_event_triggers_the_scheduled_dag(stack, runs):
    """A product is an asset by its path: the plot is drawn without a user's action."""
    path = f"/dags/{FOLLOWER}/dagRuns"
    stack.until(
        lambda: [run["state"] for run in stack.get(path)["dag_runs"]] == ["success"],
        f"a run of {FOLLOWER}",
        timeout=600,
    )
    (run,) = stack.get(path)["dag_runs"]
    assert run["run_type"] == "asset_triggered"
    picture = "/shared/digits/build/products/confusion.png"
    assert stack.run_in(LOGIN, "sh", "-c", f"head -c 4 {picture} | tail -c 3") == "PNG"


def test_example_models_are_trained_on_slurm(stack, runs):
    """Each by one job, with the CPUs that its task asks for; all can read the jobs' files."""
    dag_id = "sewer_cluster"
    stack.until(lambda: stack.run_state(dag_id, runs[dag_id]) == "success", f"the end of {dag_id}")
    lines = stack.command("sacct", "-anPX", "-S", "now-1days", "--format=JobName,AllocCPUS,State,WorkDir").splitlines()
    folder = re.sub(r"[^\w.+-]", "_", runs[dag_id])
    rows = sorted(line.split("|") for line in lines if line.startswith(f"{dag_id}.") and folder in line)
    seen = [row[:3] for row in rows]
    assert [(name.rpartition("-")[0], cpus, state) for name, cpus, state in seen] == [
        (f"{dag_id}.digits.train_forest", "2", "COMPLETED"),
        (f"{dag_id}.digits.train_svc", "1", "COMPLETED"),
    ]
    accuracies = stack.xcom(dag_id, runs[dag_id], "digits.compare")["accuracies"]
    written = json.loads(stack.run_in(LOGIN, "cat", "/shared/digits/build/cluster/comparison.json"))
    assert written["accuracies"] == accuracies
    assert set(accuracies) == {"svc", "forest"}
