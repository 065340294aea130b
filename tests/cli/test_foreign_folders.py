"""``sppe`` uses no folder that another user could have written, and names such a folder."""

from __future__ import annotations

import os

import pytest


@pytest.mark.parametrize("folder", [".sewer", ".sewer/state", ".sewer/logs"])
@pytest.mark.parametrize("command", ["run", "explain"])
def test_run_rejects_state_folders_of_other_users(folder: str, command: str, sppe) -> None:
    """Before anything runs; state and logs lie there."""
    sppe.tasks(a="print('ran')")
    assert sppe.run("run", "-p", "flow.py").returncode == 0
    (sppe.folder / folder).chmod(0o777)

    ran = sppe.run(command, "-p", "flow.py", "--resume")

    if command == "explain" and folder == ".sewer/logs":  # which it does not read
        assert ran.returncode == 0
        return
    assert ran.returncode == 2
    assert f"{sppe.folder}/{folder} is writable by other users (mode 0777)" in ran.stderr
    assert "[a] ran" not in ran.stdout


def test_run_on_slurm_rejects_run_dir_of_other_user(sppe, slurm) -> None:
    """Before a job is submitted."""
    sppe.tasks(a="print('ran')")
    (sppe.folder / "runs" / "workflow").mkdir(parents=True)
    (sppe.folder / "runs" / "workflow").chmod(0o777)

    ran = sppe.run("run", "-p", "flow.py", "--on", "slurm", "--run-dir", "runs", env=slurm.env)

    assert ran.returncode == 1
    assert f"run_dir: {sppe.folder}/runs/workflow is writable by other users (mode 0777)" in ran.stderr
    assert not list((sppe.folder / "runs").rglob("job.sh"))


@pytest.mark.parametrize("kind", ["a named pipe", "a device", "gigabytes"])
@pytest.mark.parametrize("ending", [".py", ".yaml"])
def test_run_rejects_workflow_file_that_is_not_regular(kind: str, ending: str, sppe) -> None:
    """It waits for none, and reads none into memory."""
    path = sppe.folder / f"flow{ending}"
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 4_000_000_000)

    ran = sppe.run("show", "-p", str(path))

    why = "it is 4,000,000,000 bytes" if kind == "gigabytes" else "it is not a regular file"
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"sppe: {path}: cannot read the workflow file: {why}")
