"""Run all parts, or the named ones, print the table, and write a complete one into the documentation.

``python -m bench [NAME ...] [--tiny]``, in the folder ``.dev``.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.clock import ROOT, CannotRun, clean_environment
from bench.rows import Figure, Row, merged, missed, table

#: The parts, in the order of the table.
PARTS = ("parse", "imports", "tasks", "workflows", "jobs", "ends", "reports")

PAGE = ROOT / "docs/explanation/performance.md"
BEGIN, END = "<!-- Measured by `make bench`: -->\n", "<!-- End of the measurement. -->\n"

#: Compared packages and their environments in build/venv.
_PEERS = {"astronomer-cosmos": "cosmos", "sewerpipe": "sewerpipe", "depio": "depio"}


def main() -> int:
    """Run the requested parts and return the exit code."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"parts to run: {', '.join(PARTS)}; default: all")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes, to check that everything runs")
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)  # in a part's process: file for its figures
    asked = parser.parse_args()
    for name in asked.names:
        if name not in PARTS:
            parser.error(f"unknown part {name!r}; choose from {', '.join(PARTS)}")
    if asked.to:
        asked.to.write_text(json.dumps(figures_of(part(asked.names[0]), tiny=asked.tiny)))
        return 0
    return measure(asked.names or list(PARTS), tiny=asked.tiny)


def measure(names: list[str], *, tiny: bool) -> int:
    """Run parts one after the other, print the table, and return 1 if a part failed or a ratio missed its target."""
    figures: dict[str, Figure] = {}
    failed = []
    for name in names:
        start = time.monotonic()
        print(f"bench: {name} …", file=sys.stderr, flush=True)
        found = _measured(name, tiny=tiny)
        figures |= found
        failed += [] if found else [name]
        print(f"bench: {name} took {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    text = shown(names, figures)
    print("Measured with the smallest sizes, not those given below.\n" * tiny + text)
    if failed:
        print(f"bench: without {', '.join(failed)}, which failed (see above)", file=sys.stderr)
    elif set(names) == set(PARTS) and not tiny:
        PAGE.write_text(with_table(PAGE.read_text(), text))
        print(f"bench: written into {PAGE.relative_to(ROOT)}", file=sys.stderr)
    slow = [] if tiny else missed(rows(names), figures)
    for line in slow:
        print(f"bench: {line}", file=sys.stderr)
    return 1 if failed or slow else 0


def figures_of(part: Any, *, tiny: bool) -> dict[str, Figure]:
    """Return the figures of a part, or the reason why it cannot be run."""
    try:
        return dict(part.measure(tiny=tiny))
    except CannotRun as error:
        return dict.fromkeys(part.ROWS, Figure(cannot=f"cannot be run: {error}"))


def part(name: str) -> Any:
    """Return the module of a part."""
    return importlib.import_module(f"bench.{name}")


def rows(names: list[str] | tuple[str, ...] = PARTS) -> dict[str, Row]:
    """Return the rows of parts."""
    return merged(part(name).ROWS for name in names)


def shown(names: list[str], figures: dict[str, Figure]) -> str:
    """Return the table and, below it, the method."""
    how = ";\n".join(f"- {part(name).HOW}" for name in names)
    return f"{table(rows(names), figures)}\n{_circumstances()}\n\n{how}.\n"


def with_table(page: str, text: str) -> str:
    """Return the page with its table replaced."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE.name} has no place for the table: {BEGIN.strip()} … {END.strip()}")
    return f"{before}{begin}\n{text}\n{end}{after}"


def _measured(name: str, *, tiny: bool) -> dict[str, Figure]:
    """Return the figures of a part, run in its own process; empty if it failed."""
    with tempfile.TemporaryDirectory(prefix="sewer-bench-") as folder:
        file = Path(folder) / "figures.json"
        argv = [sys.executable, "-m", "bench", name, "--to", str(file), *(["--tiny"] if tiny else [])]
        subprocess.run(argv, cwd=ROOT / ".dev", env=clean_environment(), check=False)
        if not file.exists():
            return {}
        return {key: Figure(*figure) for key, figure in json.loads(file.read_text()).items()}


def _circumstances() -> str:
    """Return the date, the machine and the versions of the measurement."""
    peers = [f"{name} {version}" for name, folder in _PEERS.items() if (version := _version_in(folder, name))]
    of = [f"Python {platform.python_version()}", f"Airflow {importlib.metadata.version('apache-airflow')}", *peers]
    today = dt.datetime.now(tz=dt.UTC).date()
    return f"Measured on {today} on {os.cpu_count()} cores. Versions: {', '.join(of)}. Both sides ran in turn:"


def _version_in(environment: str, package: str) -> str | None:
    folders = (ROOT / "build" / "venv" / environment).glob("lib/python3*/site-packages")
    found = importlib.metadata.distributions(name=package, path=list(map(str, folders)))
    return next((distribution.version for distribution in found), None)


if __name__ == "__main__":
    sys.exit(main())
