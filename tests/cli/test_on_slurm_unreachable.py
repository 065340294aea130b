"""`sppe run --on slurm` on a machine with Slurm's commands and without a cluster."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from tests.slurm_cluster.fixtures import needs_slurm

__all__ = ["needs_slurm"]

pytestmark = pytest.mark.usefixtures("needs_slurm")


@pytest.mark.skipif(os.path.exists("/etc/slurm/slurm.conf"), reason="this machine has a configuration of Slurm")
@pytest.mark.parametrize("command", ["run", "explain"])
def test_missing_configuration_is_an_error_before_the_run(command: str, sppe, monkeypatch) -> None:
    monkeypatch.delenv("SLURM_CONF", raising=False)
    sppe.tasks(first="pass")

    done = sppe.run("--", command, "flow.py", "--on", "slurm")

    assert done.returncode == 2
    assert "sppe: Slurm has no configuration on this machine: " in done.stderr
    assert "leave out --on slurm" in done.stderr
    assert not (sppe.folder / ".sewer").exists()


@pytest.mark.parametrize(("path", "name"), [("/nowhere/slurm.conf", "/nowhere/slurm.conf"), ("", "an empty path")])
def test_slurm_conf_without_file_is_an_error_at_once(path: str, name: str, sppe) -> None:
    """Slurm's commands would look for it for a minute."""
    sppe.tasks(first="pass")

    done = sppe.run("run", "--on", "slurm", env={"SLURM_CONF": path})

    assert done.returncode == 2
    assert f"sppe: SLURM_CONF names {name}, which does not exist; correct SLURM_CONF" in done.stderr


def test_absent_controller_is_waited_for_until_a_stated_time(sppe) -> None:
    with socket.socket() as unused:
        unused.bind(("localhost", 0))  # not listened to
        port = unused.getsockname()[1]
        conf = f"ClusterName=x\nSlurmctldHost=localhost\nSlurmctldPort={port}\nAuthType=auth/none\nNodeName=a\n"
        sppe.write("slurm.conf", f"{conf}PartitionName=p Nodes=a\n")
        sppe.tasks(first="pass")
        run = sppe.start("run", "--on", "slurm", env={"SLURM_CONF": str(sppe.folder / "slurm.conf")})
        while "trying again" not in (line := run.stderr.readline()):
            assert line
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=60)

    assert "trying again until " in line
    assert "(set max_pending_time to change that): " in line
    assert run.returncode == 130
