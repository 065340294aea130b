"""Run the drill, print its figures, and exit with 1 if a guarantee was broken, with 2 if the drill itself failed.

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
    """Run the drill and return the exit code."""
    parser = argparse.ArgumentParser(prog="drill", description=__doc__)
    parser.add_argument("--seconds", type=_positive, default=600, help="how long signals are sent; 600 by default")
    parser.add_argument(
        "--tasks", type=_positive, default=60, help="parallel tasks, a third of each kind; 60 by default"
    )
    parser.add_argument(
        "--settle", type=_positive, default=300, help="maximum seconds until all tasks end after that; 300 by default"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="repeats the same order of signals")
    parser.add_argument("--folder", type=Path, help="new folder for all files; default: one in build/drill")
    options = parser.parse_args()
    folder = options.folder or ROOT / "build" / "drill" / f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}-{options.seed}"
    for number in _ENDING:
        signal.signal(number, _end)
    began = time.monotonic()
    print(f"drill: seed {options.seed}, files in {folder}", flush=True)
    try:
        result = drill(folder, options.tasks, options.seconds, options.settle, options.seed, notify=_print)
    # The Airflow of the tests raises pytest's exception if it does not start.
    except (Exception, pytest.fail.Exception) as error:
        traceback.print_exception(error)
        print(f"drill: the drill itself failed: {type(error).__name__}", file=sys.stderr)
        return 2
    print(result.text())
    print(f"drill: {time.monotonic() - began:.0f} s, seed {options.seed}, files in {folder}")
    return int(any(result.findings.counts.values()))


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """Exit, which ends all processes; further signals are ignored meanwhile."""
    for other in _ENDING:
        signal.signal(other, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _positive(text: str) -> int:
    number = int(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"must be greater than 0, got {text}")
    return number


def _print(line: str) -> None:
    print(f"drill: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
