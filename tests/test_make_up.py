"""`make up` where there is no container engine: it says so, and does nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WITHOUT = "`make demo` and `make test` do without containers."
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
    ("docker", "lack"),
    [
        ("", "There is no `docker` on PATH."),
        (NO_COMPOSE, "Docker's compose plugin is needed: `docker compose version` says: unknown command."),
        (NO_DAEMON, "No container engine answers: `docker version` says: Cannot connect to the Docker daemon."),
    ],
    ids=["no docker", "no compose", "no daemon"],
)  # fmt: skip
def test_what_is_missing_is_named(tmp_path, docker, lack):
    """One line, no traceback, and what can be done without."""
    if docker:
        (tmp_path / "docker").write_text(docker)
        (tmp_path / "docker").chmod(0o755)
    had_secrets = (ROOT / ".env").exists()
    done = subprocess.run(
        [sys.executable, ROOT / ".dev" / "containers.py", "up"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"\nup: {lack}")
    assert done.stderr.endswith(f"{WITHOUT}\n")
    assert (ROOT / ".env").exists() == had_secrets
