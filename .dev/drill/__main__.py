"""Run the drill, print its figures, and exit with 1 if a promise was broken, with 2 if the drill itself failed.

``python -m drill [--seconds N] [--tasks N] [--seed N]``, in the folder ``.dev``.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from drill import ROOT
from drill.drill import drill

if TYPE_CHECKING:
    from types import FrameType


_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run the drill as asked for, and return the exit code."""
    parser = argparse.ArgumentParser(prog="drill", description=__doc__)
    parser.add_argument("--seconds", type=_positive, default=600, help="how long signals are sent; 600 by default")
    parser.add_argument(
        "--tasks", type=_positive, default=60, help="tasks at a time, a third of each kind; 60 by default"
    )
    parser.add_argument(
        "--settle", type=_positive, default=300, help="seconds that all may take to end then; 300 by default"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="for the same order of signals")
    parser.add_argument("--folder", type=Path, help="a new folder for all files; one in build/drill by default")
    asked = parser.parse_args()
    folder = asked.folder or ROOT / "build" / "drill" / f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}-{asked.seed}"
    for number in _ENDING:
        signal.signal(number, _end)
    began = time.monotonic()
    print(f"drill: seed {asked.seed}, files in {folder}", flush=True)
    try:
        result = drill(folder, asked.tasks, asked.seconds, asked.settle, asked.seed, say=_say)
    # The tests' Airflow fails as a test does, where it does not start.
    except (Exception, pytest.fail.Exception) as error:
        traceback.print_exception(error)
        print(f"drill: the drill itself failed: {type(error).__name__}", file=sys.stderr)
        return 2
    print(result.text())
    print(f"drill: {time.monotonic() - began:.0f} s, seed {asked.seed}, files in {folder}")
    return int(any(result.verdict.counts.values()))


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """End all processes on the way out; a second signal does not get in the way of that."""
    for other in _ENDING:
        signal.signal(other, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _positive(text: str) -> int:
    number = int(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"must be greater than 0, got {text}")
    return number


def _say(line: str) -> None:
    print(f"drill: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
