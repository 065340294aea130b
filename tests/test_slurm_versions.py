"""`make test-slurm SLURM=VERSION` where it cannot run: the error names the cause, and no root folder is made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
AS_ROOT = [] if os.geteuid() == 0 else ["/usr/bin/unshare", "--map-root-user"]
# The tests may run as any user; this one is "nobody".
AS_ORDINARY_USER = ["/usr/bin/unshare", "--user"]


@pytest.fixture
def run(tmp_path):
    """Return a function that runs the tool in a checkout that has made no root yet."""
    shutil.copytree(ROOT / ".dev", tmp_path / ".dev", ignore=shutil.ignore_patterns("__pycache__"))

    def run(*arguments, path=os.environ["PATH"], user=AS_ROOT, **environment):
        tool = [*user, sys.executable, tmp_path / ".dev" / "slurm_versions.py", *arguments]
        env = {"PATH": str(path), "PYTHONDONTWRITEBYTECODE": "1", **environment}
        done = subprocess.run(tool, capture_output=True, text=True, check=False, env=env)
        assert not list((tmp_path / "build").glob("slurm/*/*"))
        return done

    return run


def test_unknown_slurm_version_prints_the_known_versions(run):
    done = run("1.2", "true")
    assert done.returncode == 2
    assert done.stderr.startswith("usage: slurm_versions.py 22.05|23.11|24.11|")


def test_missing_mmdebstrap_is_named_with_its_package(run, tmp_path):
    (tmp_path / "bin").mkdir()
    done = run("24.11", "true", path=tmp_path / "bin")
    assert (done.returncode, done.stdout) == (1, "")
    assert "missing: unshare chroot mmdebstrap. On Debian: apt-get install mmdebstrap" in done.stderr


def test_slurm_versions_unknown_archive_requests_its_variable(run, tmp_path):
    for name in ("mmdebstrap", "unshare", "chroot", "apt-get"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).symlink_to("/bin/true")
    done = run("24.11", "true", path=tmp_path / "bin")
    assert done.returncode == 1
    assert "apt knows no archive of Debian; run apt-get update, or set SEWER_DEBIAN_MIRROR" in done.stderr


def test_slurm_versions_failed_mmdebstrap_reports_its_output(run, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mmdebstrap").write_text('#!/bin/sh\nfor last; do :; done\necho "E: no $last" >&2\nexit 25\n')
    (tmp_path / "bin" / "mmdebstrap").chmod(0o755)
    done = run("26.05", "true", path=f"{tmp_path / 'bin'}:{os.environ['PATH']}", SEWER_DEBIAN_MIRROR="file:/no/archive")
    assert done.returncode == 1
    assert "Slurm 26.05: mmdebstrap exited with 25:\nE: no file:/no/archive" in done.stderr


def test_slurm_versions_requires_root(run):
    done = run("24.11", "true", user=AS_ORDINARY_USER)
    assert done.returncode == 1
    assert "chroot and mount take root" in done.stderr
