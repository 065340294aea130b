"""A temporary product is claimed by the DAG runs that use it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_sewer.core.errors import UnreadableRecord
from airflow_provider_sewer.runners.claims import Claim, Claims

ONE, TWO, THREE = (Claim("dag", f"manual__{number}", "make") for number in range(3))


@pytest.fixture
def open_claims(tmp_path):
    """Return a function that opens the claims on a file, where the given runs have ended."""
    return lambda *ended: Claims(str(tmp_path / "x"), ended.__contains__)


def test_others_are_runs_that_claim_and_have_not_ended(open_claims) -> None:
    """A claim of a run that has ended counts again when a user has the run go on."""
    for run in (ONE, TWO, THREE):
        with open_claims() as claims:
            claims.add(run)
            claims.add(run)

    with open_claims(THREE) as claims:
        assert sorted(claims.others(ONE)) == [TWO]
    with open_claims() as claims:
        assert sorted(claims.others(ONE)) == [TWO, THREE]


def test_drop_all_leaves_no_claim(open_claims, tmp_path) -> None:
    """Nor those of runs that have ended."""
    with open_claims(TWO) as claims:
        claims.add(ONE)
        claims.add(TWO)

        claims.drop_all()

        assert claims.others(THREE) == []
    assert os.listdir(tmp_path / ".sewer") == []


def test_last_drop_removes_folder_of_claims(open_claims, tmp_path) -> None:
    """Nothing is left beside a product that is gone."""
    with open_claims() as claims:
        claims.add(ONE)
    with open_claims() as claims:
        claims.drop(ONE)
        claims.drop(TWO)

    assert os.listdir(tmp_path / ".sewer") == []


def test_drop_without_task_withdraws_claims_of_run(open_claims) -> None:
    """Those of other runs stay."""
    with open_claims() as claims:
        for claim in (ONE, ONE._replace(task_id="other"), TWO):
            claims.add(claim)

        claims.drop(ONE._replace(task_id=""))

        assert claims.others(THREE) == [TWO]


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"a": 1}'])
def test_claim_that_cannot_be_read_raises(open_claims, tmp_path, text) -> None:
    """Another run may use the product."""
    with open_claims() as claims:
        claims.add(ONE)
        (tmp_path / ".sewer" / "x.runs" / "damaged.run").write_text(text)

        with pytest.raises(UnreadableRecord, match=r"x\.runs/damaged\.run cannot be read as format 1: .*; remove it"):
            claims.others(TWO)


ADD_AND_DROP = """
import sys
from airflow_provider_sewer.runners.claims import Claim, Claims
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
    assert os.listdir(tmp_path / ".sewer") == []
