"""Claims of runs on temporary products."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_sewer import Dependency, Product, Workflow
from airflow_provider_sewer.core.errors import UnreadableRecord
from airflow_provider_sewer.execution.product_claims import Claim, Claims
from airflow_provider_sewer.execution.task_states import TaskState
from airflow_provider_sewer.execution.workflow_runner import WorkflowRunner
from tests.execution.product_workspace import lab, writer

__all__ = ["lab"]

ONE, TWO, THREE = (Claim("dag", f"manual__{number}", "make") for number in range(3))


@pytest.fixture
def open_claims(tmp_path):
    """Return a function that opens the claims on a file, where the given runs have ended."""
    return lambda *ended: Claims(str(tmp_path / "x"), ended.__contains__)


def test_others_returns_claiming_runs_that_have_not_ended(open_claims) -> None:
    """A claim of a run that has ended counts again when a user has the run go on."""
    for run in (ONE, TWO, THREE):
        with open_claims() as claims:
            claims.add(run)
            claims.add(run)

    with open_claims(THREE) as claims:
        assert sorted(claims.claims_of_other_runs(ONE)) == [TWO]
    with open_claims() as claims:
        assert sorted(claims.claims_of_other_runs(ONE)) == [TWO, THREE]


def test_drop_all_removes_every_claim(open_claims, tmp_path) -> None:
    """Nor those of runs that have ended."""
    with open_claims(TWO) as claims:
        claims.add(ONE)
        claims.add(TWO)

        claims.drop_all()

        assert claims.claims_of_other_runs(THREE) == []
    assert os.listdir(tmp_path / ".sewer") == [".gitignore"]


def test_last_drop_removes_folder_of_claims(open_claims, tmp_path) -> None:
    """Nothing is left beside a product that is gone."""
    with open_claims() as claims:
        claims.add(ONE)
    with open_claims() as claims:
        claims.drop(ONE)
        claims.drop(TWO)

    assert os.listdir(tmp_path / ".sewer") == [".gitignore"]


def test_drop_without_task_withdraws_claims_of_run(open_claims) -> None:
    """Those of other runs stay."""
    with open_claims() as claims:
        for claim in (ONE, ONE._replace(task_id="other"), TWO):
            claims.add(claim)

        claims.drop(ONE._replace(task_id=""))

        assert claims.claims_of_other_runs(THREE) == [TWO]


HOLD = """
import os, sys
from airflow_provider_sewer.execution.product_claims import Claim, Claims
with Claims(sys.argv[1], lambda claim: True) as claims:
    claims.hold(Claim("", "process 1 on here", "make"))
print("held", flush=True)
sys.stdin.read()
"""


def test_held_claim_counts_until_its_process_ends(open_claims, tmp_path) -> None:
    """It names no DAG run, so Airflow is not asked."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "x")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with open_claims() as claims:
            assert [str(claim) for claim in claims.claims_of_other_runs(ONE)] == [
                "the sppe run of process 1 on here (task 'make')"
            ]
        process.kill()
        process.wait()
    with open_claims() as claims:
        assert claims.claims_of_other_runs(ONE) == []


TEMPORARY = Product("build/raw.txt", temporary=True)


def flow(lab, use: str = "") -> tuple[Workflow, Path]:
    """Return a workflow with a temporary product, and the path of that; the task that reads it does more as well."""
    make = writer(lab, "paths[0].write_text('raw')", TEMPORARY, name="make")
    use = lab.module("use", f"import sys; print(open(sys.argv[1]).read())\n{use}", args=[Dependency("build/raw.txt")])
    return lab.workflow(make, use), lab.folder / "build/raw.txt"


def test_run_preserves_temporary_product_claimed_by_dag_run(lab) -> None:
    """Only Airflow knows whether the DAG run has ended. The product stays for it, and so does the claim."""
    workflow, raw = flow(lab)
    raw.parent.mkdir()
    with Claims(str(raw), lambda _: True) as claims:
        claims.add(ONE)
    runner = WorkflowRunner(workflow, lab.settings)

    assert {outcome.state for outcome in runner.run().values()} == {TaskState.SUCCEEDED}

    assert raw.read_text() == "raw"
    assert runner.warnings == [f"did not remove {raw}: in use by run 'manual__0' of DAG 'dag' (task 'make')"]
    with Claims(str(raw), lambda _: False) as claims:
        assert claims.claims_of_other_runs(TWO) == [ONE]
        claims.drop(ONE)
    assert {outcome.state for outcome in WorkflowRunner(workflow, lab.settings).run().values()} == {TaskState.SUCCEEDED}
    assert not raw.exists()
    assert [path.name for path in raw.parent.glob(".sewer/*.runs")] == []


@pytest.mark.parametrize("ends", ["", "sys.exit(3)"], ids=["succeeds", "fails"])
def test_run_claims_temporary_product_until_it_ends(lab, ends) -> None:
    """A DAG run that ends meanwhile finds the claim while the task runs that reads the product, and leaves it."""
    asks = f"""
from airflow_provider_sewer.execution.product_claims import Claim, Claims
with Claims(sys.argv[1], lambda _: True) as claims:
    others = claims.claims_of_other_runs(Claim("dag", "run", "make"))
    open({str(lab.folder / "seen")!r}, "w").write(" ".join(map(str, others)))
{ends}
"""
    workflow, raw = flow(lab, asks)

    WorkflowRunner(workflow, lab.settings).run()

    assert lab.read("seen").startswith(f"the sppe run of process {os.getpid()} on ")
    assert raw.exists() == bool(ends)
    assert [path.name for path in raw.parent.glob(".sewer/*.runs")] == []


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"a": 1}'])
def test_unreadable_claim_raises(open_claims, tmp_path, text) -> None:
    """Another run may use the product."""
    with open_claims() as claims:
        claims.add(ONE)
        (tmp_path / ".sewer" / "x.runs" / "damaged.run").write_text(text)

        with pytest.raises(UnreadableRecord, match=r"x\.runs/damaged\.run cannot be read as format 1: .*; remove it"):
            claims.claims_of_other_runs(TWO)


ADD_AND_DROP = """
import sys
from airflow_provider_sewer.execution.product_claims import Claim, Claims
for turn in range(200):
    claim = Claim("dag", f"{sys.argv[2]}-{turn}", "make")
    with Claims(sys.argv[1], lambda claim: False) as claims:
        claims.add(claim)
        with open(sys.argv[1] + ".inside", "x"):
            pass
        import os; os.unlink(sys.argv[1] + ".inside")
    with Claims(sys.argv[1], lambda claim: False) as claims:
        claims.drop(claim)
"""


def test_claims_are_open_in_one_process_at_a_time(tmp_path) -> None:
    """Also while another process removes their folder, as it is empty."""
    command = [sys.executable, "-c", ADD_AND_DROP, str(tmp_path / "x")]
    processes = [subprocess.Popen([*command, name], cwd=Path(__file__).parents[2]) for name in "abc"]

    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert os.listdir(tmp_path / ".sewer") == [".gitignore"]
