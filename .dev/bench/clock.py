"""Alternating runs of compared sides, and their medians."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.rows import Figure

ROOT = Path(__file__).resolve().parent.parent.parent
SIDES = Path(__file__).resolve().parent / "sides"

#: One side of a comparison: a function that runs it and returns its cost.
Side = Callable[[], float]

#: Maximum seconds of one run.
_TIMEOUT = 240.0


class CannotRun(Exception):
    """A side cannot be run; the message has the reason."""


def python_of(environment: str) -> Path:
    """Return the interpreter of an environment in ``build/venv``.

    :raises CannotRun: when there is none.
    """
    python = ROOT / "build" / "venv" / environment / "bin" / "python"
    if not python.exists():
        raise CannotRun(f"its environment, build/venv/{environment}, is missing")
    return python


def alternating(sides: Mapping[str, Side], times: int) -> dict[str, float | CannotRun]:
    """Run the sides alternately, and return the median of each, or the reason why it cannot be run."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    failed: dict[str, CannotRun] = {}
    for turn in range(times):
        names = list(sides) if turn % 2 == 0 else list(reversed(sides))  # no side is always first
        for name in names:
            if name not in failed:
                try:
                    found[name].append(sides[name]())
                except CannotRun as error:
                    failed[name] = error
    return {name: failed[name] if name in failed else statistics.median(found[name]) for name in sides}


def beside(here: float | CannotRun, there: float | CannotRun, *, times: float = 1) -> Figure:
    """Return the figure of two sides.

    :param times: factor by which the first side does more work than the second one.
    :raises CannotRun: when this package cannot be run.
    """
    if isinstance(here, CannotRun):
        raise here
    if isinstance(there, CannotRun):
        return Figure(here, cannot=f"cannot be run: {there}")
    return Figure(here, there * times)


def run_side(
    python: Path | str, side: str, *arguments: object, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> dict[str, Any]:
    """Run a script of ``sides`` in a fresh process and return the JSON object in its last line of stdout.

    :raises CannotRun: when it fails.
    """
    return last_line([str(python), str(SIDES / f"{side}.py"), *map(str, arguments)], env=env, cwd=cwd)


def last_line(argv: list[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> dict[str, Any]:
    """Run a command and return the JSON object in its last line of stdout.

    :raises CannotRun: when it fails, or takes too long.
    """
    try:
        done = subprocess.run(
            argv,
            env={**clean_environment(), **(env or {})},
            cwd=cwd,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CannotRun(f"timed out after {_TIMEOUT:.0f} s") from None
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise CannotRun(f"exit code {done.returncode}: {reason:.200}")
    lines = done.stdout.strip().splitlines() or [""]
    try:
        answer = json.loads(lines[-1])
    except ValueError:
        raise CannotRun(f"the last line must be a JSON object, got {lines[-1]!r:.200}") from None
    return dict(answer)


def clean_environment() -> dict[str, str]:
    """Return the environment without the shell's settings for Airflow and Python."""
    removed = ("AIRFLOW", "_AIRFLOW", "PYTHON", "VIRTUAL_ENV")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(removed)}
    bin_ = os.path.dirname(sys.executable)
    return {**inherited, "PATH": f"{bin_}{os.pathsep}{inherited.get('PATH', os.defpath)}"}
