"""Which interpreter a job of `sppe --on slurm` runs, and that `sppe explain` names it."""

from __future__ import annotations

import os
import shutil
import sys
import venv
from pathlib import Path

import pytest

from .slurm_runs import on_slurm

__all__ = ["on_slurm"]

PREFIX = "print(sys.prefix)"


@pytest.fixture
def env(on_slurm) -> Path:
    """Return a virtual environment that the nodes see."""
    folder = on_slurm.sppe.folder / "an env"
    venv.create(folder, symlinks=True, with_pip=False)
    (folder / "bin" / "python-of-mine").symlink_to("python")
    return folder


@pytest.fixture
def activated(on_slurm, env: Path) -> dict[str, str]:
    """Return the variables of a shell in which the environment is activated."""
    return {"PATH": f"{env / 'bin'}:{on_slurm.slurm.env['PATH']}", "VIRTUAL_ENV": str(env)}


def prefixes(run) -> dict[str, str]:
    assert run.code == 0, run.stderr
    lines = [line.partition("] ") for line in run.stdout.splitlines()]
    return {name.removeprefix("["): prefix for name, _, prefix in lines}


def test_interpreter_of_job_is_found_after_setup(on_slurm, env) -> None:
    """No python at all, and every bare name, is looked up on the node after setup; a path is that path."""
    on_slurm.flow(
        unset=PREFIX,
        named=f"# python='python'\n{PREFIX}",
        other=f"# python='python-of-mine'\n{PREFIX}",
        path=f"# python={sys.executable!r}\n{PREFIX}",
    )
    setup = f"setup=[\". '{env}/bin/activate'\"]"

    run = on_slurm.run("--slurm", setup, python=None)

    assert prefixes(run) == {**dict.fromkeys(("unset", "named", "other"), str(env)), "path": sys.prefix}
    command = ("explain", "-p", "flow.py", "--on", "slurm", "--slurm", setup)
    reported = on_slurm.sppe.run(*command, env=on_slurm.slurm.env).stdout
    there = "from the PATH on its node, after setup"
    assert [line.partition("always runs; as a job, with ")[2] for line in reported.splitlines()] == [
        f"python, else python3, {there}",
        f"python {there}",
        f"python-of-mine {there}",
        sys.executable,
    ]


def test_i_option_overrides_setup_with_local_interpreter(on_slurm, env, activated) -> None:
    """A name given to -i is looked up where sppe runs; a task that names an interpreter itself keeps it."""
    on_slurm.flow(unset=PREFIX, named=f"# python='python3'\n{PREFIX}")
    python3 = shutil.which("python3", path=on_slurm.slurm.env["PATH"])
    options = ("--slurm", f'setup=["PATH={os.path.dirname(python3)}:$PATH"]')

    run = on_slurm.run(*options, python="python", env=activated)

    ran = prefixes(run)
    assert ran["unset"] == str(env)
    assert ran["named"] != str(env)
    reported = on_slurm.sppe.run(
        "explain", "-p", "flow.py", "--on", "slurm", "-i", "python", *options, env={**on_slurm.slurm.env, **activated}
    )
    assert reported.stdout.splitlines()[0].endswith(f"; as a job, with {env}/bin/python")


def test_interpreter_of_job_without_setup_is_that_of_submitting_shell(on_slurm, env, activated) -> None:
    """With an environment activated there, as a run on this machine has it; a PATH that is passed on means the same."""
    on_slurm.flow(unset=PREFIX, named=f"# python='python-of-mine'\n{PREFIX}", path=f"# inherit_env=['PATH']\n{PREFIX}")

    run = on_slurm.run(python=None, env=activated)

    assert prefixes(run) == dict.fromkeys(("unset", "named", "path"), str(env))
    assert f"[named] $ {env}/bin/python-of-mine -m" in run.stderr.replace("'", "")


def test_job_path_has_programs_of_its_interpreter(on_slurm, env) -> None:
    """A PATH that is given counts more, and one that is inherited does not."""
    which = "import shutil; print(shutil.which('python-of-mine'))"
    on_slurm.flow(
        plain=which, inherits=f"# inherit_env=True\n{which}", given=f"# env={{'PATH': '/usr/bin:/bin'}}\n{which}"
    )

    run = on_slurm.run(python=str(env / "bin" / "python"))

    mine = f"{env}/bin/python-of-mine"
    assert prefixes(run) == {"plain": mine, "inherits": mine, "given": "None"}


def test_i_option_rejects_unknown_name(on_slurm) -> None:
    """Nothing is submitted."""
    on_slurm.flow(one=PREFIX)

    run = on_slurm.run(python="python-not-here")

    assert run.code == 2
    assert "no interpreter 'python-not-here' on PATH" in run.stderr
    assert on_slurm.jobs() == []


def test_explain_on_slurm_prints_interpreter_of_stages(on_slurm) -> None:
    """Stages in YAML follow the same rule; tasks on this machine have no job."""
    sppe = on_slurm.sppe
    sppe.write("steps.py", "")
    sppe.write(
        "stages.yaml",
        """
        stages:
          set-up: {module: steps, python: python3, slurm: {setup: [module load python]}}
          plain: {module: steps, python: /nodes/only/python}
          here: {module: steps, run_on: local}
        """,
    )
    reported = sppe.run("explain", "stages.yaml", "--on", "slurm", env=on_slurm.slurm.env).stdout.splitlines()

    assert [line.partition("it always runs")[2] for line in reported] == [
        "; as a job, with python3 from the PATH on its node, after setup",
        "; as a job, with /nodes/only/python",
        "",
    ]
