"""GPUs that Slurm gives a job: the module sees these, and no others, however they are requested."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.slurm.conftest import Jobs

VARIABLE = "CUDA_VISIBLE_DEVICES"
PRINTS = f"print(os.environ.get({VARIABLE!r}))"


@pytest.fixture(autouse=True)
def _worker_with_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process have GPUs of its own, which are not those of a job."""
    monkeypatch.setenv(VARIABLE, "5,6")


@pytest.fixture
def jobs_beside_another(jobs: Jobs) -> Iterator[Jobs]:
    """Return a starter of jobs on a cluster where another job has the first GPU of the first node."""
    assert jobs.slurm is not None
    other = jobs.slurm.submit("sleep 4711", "--gres=gpu:1", "--nodelist=n1")
    jobs.slurm.wait_for(other, "RUNNING")
    yield jobs
    jobs.slurm.command("scancel", other)


@pytest.mark.parametrize("use_srun", [False, True], ids=["script", "srun"])
@pytest.mark.parametrize(
    "request_",
    [
        {"gpus_per_node": 1},
        {"gres": "gpu:1"},
        {"gpus_per_task": 1, "additional_parameters": {"ntasks": 1}},
        {"additional_parameters": {"gpus": 1}},
    ],
    ids="-".join,
)
def test_module_sees_the_gpu_of_its_job(jobs_beside_another: Jobs, request_: dict[str, Any], use_srun: bool) -> None:
    job = jobs_beside_another.start(PRINTS, slurm={**request_, "nodelist": "n1", "use_srun": use_srun})
    assert job.succeeds() == "1"


def test_module_without_request_sees_no_gpu(jobs: Jobs) -> None:
    """That of the worker is not one of the job."""
    assert jobs.start(PRINTS).succeeds() in {"None", ""}


def test_module_sees_all_gpus_of_its_job(jobs: Jobs) -> None:
    assert jobs.start(PRINTS, slurm={"gpus_per_node": 2}).succeeds() == "0,1"


def test_module_sees_its_gpu_without_login_environment(jobs: Jobs) -> None:
    assert jobs.start(PRINTS, slurm={"gpus_per_node": 1, "login_environment": False}).succeeds() == "0"


def test_module_sees_its_gpu_after_setup_that_activates_an_environment(jobs: Jobs) -> None:
    assert jobs.start(PRINTS, slurm={"gpus_per_node": 1, "setup": ["set -u", "module_path=/x"]}).succeeds() == "0"
