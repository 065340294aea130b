"""Failure of `make up` without a container engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WITHOUT = "`make demo` and `make test` do not need containers."
NO_COMPOSE = """#!/bin/sh
echo "unknown command" >&2
exit 1
"""
NO_DAEMON = """#!/bin/sh
[ "$1" = compose ] && exit 0
echo "Cannot connect to the Docker daemon" >&2
exit 1
"""


@pytest.mark.parametrize(
    ("docker", "problem"),
    [
        ("", "`docker` is not on PATH."),
        (NO_COMPOSE, "Docker's compose plugin is required: `docker compose version` failed: unknown command."),
        (NO_DAEMON, "No container engine responds: `docker version` failed: Cannot connect to the Docker daemon."),
    ],
    ids=["no docker", "no compose", "no daemon"],
)  # fmt: skip
def test_make_up_without_container_engine_prints_missing_part(tmp_path, docker, problem):
    """The error is one line without traceback, and names the commands that need no containers."""
    if docker:
        (tmp_path / "docker").write_text(docker)
        (tmp_path / "docker").chmod(0o755)
    had_secrets = (ROOT / ".env").exists()
    done = subprocess.run(
        [sys.executable, ROOT / ".dev" / "docker_compose.py", "up"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"\nup: {problem}")
    assert done.stderr.endswith(f"{WITHOUT}\n")
    assert (ROOT / ".env").exists() == had_secrets
