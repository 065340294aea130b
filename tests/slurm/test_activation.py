"""Programs of the interpreter's environment come first in a job, unless `setup` or a given PATH overrides that."""

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
    """Return a starter of modules: as jobs of Slurm, and as detached processes."""
    return request.getfixturevalue(request.param)


def test_job_script_puts_interpreter_programs_on_path(jobs, own) -> None:
    """Also if the interpreter is called by a link inside of the environment."""
    (own / "bin" / "mine").symlink_to("python")

    assert jobs.start(WHICH, python=f"{own}/bin/mine", active=ACTIVE).output() == {
        "python": f"{own}/bin/python",
        "own-tool": f"{own}/bin/own-tool",
        "VIRTUAL_ENV": str(own),
        "CONDA_PREFIX": None,
        "PYTHONHOME": None,
    }


def test_setup_overrides_activation(cluster_jobs, own, tmp_path) -> None:
    """They see the activated environment, and their own PATH entries come first."""
    (tmp_path / "bin").mkdir()
    tool = executable(tmp_path / "bin" / "own-tool")
    setup = ["[[ $VIRTUAL_ENV == */own ]] || exit 1", f"PATH={tmp_path}/bin:$PATH", "export CONDA_PREFIX=/loaded"]

    seen = cluster_jobs.start(WHICH, python=f"{own}/bin/python", active=ACTIVE, resources={"setup": setup}).output()

    assert (seen["own-tool"], seen["python"], seen["CONDA_PREFIX"]) == (str(tool), f"{own}/bin/python", "/loaded")


def test_job_path_variable_overrides_activation(cluster_jobs, own) -> None:
    """Then only the other variables describe the interpreter's environment."""
    active = [name for name in ACTIVE if name != "PATH"]
    env = {"PATH": "/usr/bin:/bin", "CONDA_PREFIX": "/of/the/worker"}

    seen = cluster_jobs.start(WHICH, python=f"{own}/bin/python", active=active, env=env).output()

    assert (seen["own-tool"], seen["VIRTUAL_ENV"], seen["CONDA_PREFIX"]) == (None, str(own), None)


def test_activation_resolves_interpreter_symlink(local_jobs, tmp_path, bare_python) -> None:
    """As Python itself follows it: to the interpreter that the virtual environment was made of."""
    link = tmp_path / "link"
    link.symlink_to(os.path.realpath(bare_python))
    (tmp_path / "other").mkdir()
    other = executable(tmp_path / "other" / "python")

    seen = local_jobs.start(WHICH, python=str(link), active=ACTIVE, env={"PATH": f"{other.parent}:/bin"}).output()

    assert seen["python"] == str(Path(os.path.realpath(bare_python)).parent / "python")
    assert seen["VIRTUAL_ENV"] is None


def test_missing_interpreter_is_recorded_with_exit_code_127(local_jobs) -> None:
    """The error names it, and the job's end is recorded."""
    job = local_jobs.start("", python="/not/there/python", active=ACTIVE)

    assert job.record().exit_code == 127
    assert "/not/there/python: No such file or directory" in job.stderr
