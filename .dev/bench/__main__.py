"""Measure all parts, or some by name, print the table, and write it into the README if it is whole.

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
from bench.rows import Figure, Row, merged, table

#: The questions, in the order of the table.
PARTS = ("parse", "imports", "tasks", "workflows", "jobs", "ends")

README = ROOT / "README.md"
BEGIN, END = "<!-- What `make bench` has measured: -->\n", "<!-- End of what it has measured. -->\n"

#: What is measured beside, and where it is installed.
_PEERS = {"astronomer-cosmos": "cosmos", "sewerpipe": "sewerpipe", "depio": "depio"}


def main() -> int:
    """Measure what is asked for and return the exit code."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"a part: {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes, only to see that everything runs")
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)  # in the process of a part: where its figures go
    asked = parser.parse_args()
    for name in asked.names:
        if name not in PARTS:
            parser.error(f"there is no part {name!r}, but {', '.join(PARTS)}")
    if asked.to:
        asked.to.write_text(json.dumps(figures_of(part(asked.names[0]), tiny=asked.tiny)))
        return 0
    return measure(asked.names or list(PARTS), tiny=asked.tiny)


def measure(names: list[str], *, tiny: bool) -> int:
    """Measure parts one after the other, show what came out, and return 1 if one of them failed."""
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
    print("Of the smallest sizes, whatever is said below.\n" * tiny + text)
    if failed:
        print(f"bench: without {', '.join(failed)}, which failed (see above)", file=sys.stderr)
    elif set(names) == set(PARTS) and not tiny:
        README.write_text(with_table(README.read_text(), text))
        print(f"bench: written into {README.name}", file=sys.stderr)
    return 1 if failed else 0


def figures_of(part: Any, *, tiny: bool) -> dict[str, Figure]:
    """Return what a part measures here and now, or that it cannot be run."""
    try:
        return dict(part.measure(tiny=tiny))
    except CannotRun as error:
        return dict.fromkeys(part.ROWS, Figure(cannot=f"cannot be run: {error}"))


def part(name: str) -> Any:
    """Return the module of a part."""
    return importlib.import_module(f"bench.{name}")


def rows(names: list[str] | tuple[str, ...] = PARTS) -> dict[str, Row]:
    """Return what parts measure."""
    return merged(part(name).ROWS for name in names)


def shown(names: list[str], figures: dict[str, Figure]) -> str:
    """Return the table, and under it how it was measured."""
    how = ";\n".join(f"- {part(name).HOW}" for name in names)
    return f"{table(rows(names), figures)}\n{_circumstances()}\n\n{how}.\n"


def with_table(readme: str, text: str) -> str:
    """Return the README with another table in the place of the one it has."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{README.name} has no place for the table: {BEGIN.strip()} … {END.strip()}")
    return f"{before}{begin}\n{text}\n{end}{after}"


def _measured(name: str, *, tiny: bool) -> dict[str, Figure]:
    """Return what came of a part, run in a process of its own; nothing if it failed."""
    with tempfile.TemporaryDirectory(prefix="sewer-bench-") as folder:
        file = Path(folder) / "figures.json"
        argv = [sys.executable, "-m", "bench", name, "--to", str(file), *(["--tiny"] if tiny else [])]
        subprocess.run(argv, cwd=ROOT / ".dev", env=clean_environment(), check=False)
        if not file.exists():
            return {}
        return {key: Figure(*figure) for key, figure in json.loads(file.read_text()).items()}


def _circumstances() -> str:
    """Say when and on what it was measured."""
    peers = [f"{name} {version}" for name, folder in _PEERS.items() if (version := _version_in(folder, name))]
    of = [f"Python {platform.python_version()}", f"Airflow {importlib.metadata.version('apache-airflow')}", *peers]
    today = dt.datetime.now(tz=dt.UTC).date()
    return f"Measured on {today} on {os.cpu_count()} cores, with {', '.join(of)}. What is compared ran in turn:"


def _version_in(environment: str, package: str) -> str | None:
    folders = (ROOT / "build" / "venv" / environment).glob("lib/python3*/site-packages")
    found = importlib.metadata.distributions(name=package, path=list(map(str, folders)))
    return next((distribution.version for distribution in found), None)


if __name__ == "__main__":
    sys.exit(main())
