"""What a job starts by name is that of its interpreter's environment, unless `setup` or a given PATH say otherwise."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_sewer.execution.activation import ACTIVE
from tests.execution.test_activation import WHICH, executable, own

if TYPE_CHECKING:
    from tests.slurm.script_jobs import ScriptJobs

__all__ = ["own"]


@pytest.fixture(params=["cluster_jobs", "local_jobs"])
def jobs(request) -> ScriptJobs:
    """Return what runs modules: as jobs of Slurm, and as detached processes."""
    return request.getfixturevalue(request.param)


def test_job_finds_the_programs_of_its_own_environment(jobs, own) -> None:
    """Also if the interpreter is called by a link inside of the environment."""
    (own / "bin" / "mine").symlink_to("python")

    assert jobs.start(WHICH, python=f"{own}/bin/mine", active=ACTIVE).output() == {
        "python": f"{own}/bin/python",
        "own-tool": f"{own}/bin/own-tool",
        "VIRTUAL_ENV": str(own),
        "CONDA_PREFIX": None,
        "PYTHONHOME": None,
    }


def test_setup_lines_count_more(cluster_jobs, own, tmp_path) -> None:
    """They see the environment as it is, and what they put before it is found first."""
    (tmp_path / "bin").mkdir()
    tool = executable(tmp_path / "bin" / "own-tool")
    setup = ["[[ $VIRTUAL_ENV == */own ]] || exit 1", f"PATH={tmp_path}/bin:$PATH", "export CONDA_PREFIX=/loaded"]

    seen = cluster_jobs.start(WHICH, python=f"{own}/bin/python", active=ACTIVE, resources={"setup": setup}).output()

    assert (seen["own-tool"], seen["python"], seen["CONDA_PREFIX"]) == (str(tool), f"{own}/bin/python", "/loaded")


def test_path_given_to_a_job_counts_more(cluster_jobs, own) -> None:
    """Then only the variables that tell of the environment fit the interpreter."""
    active = [name for name in ACTIVE if name != "PATH"]
    env = {"PATH": "/usr/bin:/bin", "CONDA_PREFIX": "/of/the/worker"}

    seen = cluster_jobs.start(WHICH, python=f"{own}/bin/python", active=active, env=env).output()

    assert (seen["own-tool"], seen["VIRTUAL_ENV"], seen["CONDA_PREFIX"]) == (None, str(own), None)


def test_link_to_an_interpreter_leads_to_its_environment(local_jobs, tmp_path, bare_python) -> None:
    """As Python itself follows it: to the interpreter that the virtual environment was made of."""
    link = tmp_path / "link"
    link.symlink_to(os.path.realpath(bare_python))
    (tmp_path / "other").mkdir()
    other = executable(tmp_path / "other" / "python")

    seen = local_jobs.start(WHICH, python=str(link), active=ACTIVE, env={"PATH": f"{other.parent}:/bin"}).output()

    assert seen["python"] == str(Path(os.path.realpath(bare_python)).parent / "python")
    assert seen["VIRTUAL_ENV"] is None


def test_interpreter_that_is_not_there_fails_as_before(local_jobs) -> None:
    """The job says so, and its end is recorded."""
    job = local_jobs.start("", python="/not/there/python", active=ACTIVE)

    assert job.record().exit_code == 127
    assert "/not/there/python: No such file or directory" in job.stderr
