"""Run the example DAG with ``airflow dags test``, on SQLite, and print its results: ``make demo``.

Airflow's home is ``build/airflow``; the DAG's output is in ``build/demo``.
A run succeeds only if Airflow's exit code and database report success, and the result files exist.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
HOME = BUILD / "airflow"
DATABASE = HOME / "airflow.db"
AIRFLOW = BUILD / "venv" / "airflow" / "bin" / "airflow"
SPPE = AIRFLOW.with_name("sppe")
PYTHON = BUILD / "venv" / "digits" / "bin" / "python"
WORKFLOW = ROOT / "dags" / "workflows" / "digits.py"
WORKDIR = BUILD / "demo"
RESULTS = WORKDIR / "build" / "digits"
DAG = "sewer_digits"


class Trouble(Exception):
    """An error with its remedy."""


def main() -> int:
    """Run the demo and return its exit code."""
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        BUILD.mkdir(exist_ok=True)
        with open(BUILD / "demo.lock", "w") as lock:
            _hold(lock.fileno())
            make_database()
            shutil.rmtree(WORKDIR, ignore_errors=True)
            WORKDIR.mkdir()
            run_dag()
            show_results()
    except (Trouble, OSError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    return 0


def make_database() -> None:
    """Create Airflow's home, unless it is complete and was created for this checkout and Airflow."""
    stamp, fingerprint = HOME / "made-for.json", (AIRFLOW.parent.parent / "sewer-environment.json").read_text()
    if stamp.exists() and stamp.read_text() == fingerprint:
        return
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    log = HOME / "migrate.log"
    print(f"demo: creating Airflow's database, {_short(DATABASE)}", flush=True)
    with log.open("w") as output:
        code = _run([str(AIRFLOW), "db", "migrate"], output)
    if code:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise Trouble(f"`airflow db migrate` {_ending(code)}:\n{tail}\nFull log: {_short(log)}")
    stamp.write_text(fingerprint)


def run_dag() -> None:
    """Run the DAG with its log on the terminal, and check that it succeeded."""
    before = _last_run()
    start = time.monotonic()
    print(f"demo: airflow dags test {DAG}", flush=True)
    code = _run([str(AIRFLOW), "dags", "test", DAG])
    if code:
        raise Trouble(f"`airflow dags test {DAG}` {_ending(code)}; see its log above.")
    number, state = _last_run()
    if number == before[0] or state != "success":
        raise Trouble(f"`airflow dags test {DAG}` exited with 0, but the run's state in the database is {state!r}.")
    print(f"\ndemo: the DAG {DAG} succeeded after {time.monotonic() - start:.0f} s.", flush=True)


def show_results() -> None:
    """Print the accuracies, the result files, and the command for the same run without Airflow."""
    comparison, picture = RESULTS / "comparison.json", RESULTS / "confusion.png"
    missing = [str(file) for file in (comparison, picture) if not file.is_file()]
    if missing:
        raise Trouble(f"the DAG succeeded, but did not create {' and '.join(missing)}.")
    found = json.loads(comparison.read_text())
    print()
    for model, accuracy in found["accuracies"].items():
        print(f"  {model:8} reads {accuracy:.1%} of the digits{', the best' if model == found['best'] else ''}")
    print(f"\n  {comparison}\n  {picture}")
    command = [SPPE, "run", "-p", WORKFLOW, "-i", PYTHON, "--workdir", WORKDIR]
    print(f"\nThe same workflow file without Airflow:\n\n  {shlex.join(map(str, command))}")


def _run(command: list[str], output: IO[str] | None = None) -> int:
    """Run an Airflow command to its end; a stop request is passed on without a time limit."""
    process = subprocess.Popen(command, cwd=ROOT, env=_environment(), stdout=output, stderr=output)
    # Ctrl-C reaches the command directly. A SIGTERM would end the running task, but not the DAG.
    signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGINT))
    return process.wait()


def _ending(code: int) -> str:
    return f"failed with exit code {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"


def _environment() -> dict[str, str]:
    """Return Airflow's environment without the shell's Airflow settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.lstrip("_").startswith("AIRFLOW")}
    connection = {
        "conn_type": "sewer",
        "extra": {
            "python": str(PYTHON),
            "workdir": str(WORKDIR),
            "env": {"MPLCONFIGDIR": str(BUILD / "matplotlib")},
        },
    }
    return {
        **inherited,
        "PYTHONUNBUFFERED": "1",
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_SEWER_DIGITS": json.dumps(connection),
    }


def _last_run() -> tuple[int, str]:
    """Return the id and state of the newest DAG run in Airflow's database."""
    with closing(sqlite3.connect(DATABASE)) as database:
        runs = database.execute("SELECT id, state FROM dag_run WHERE dag_id = ? ORDER BY id DESC", (DAG,))
        number, state = runs.fetchone() or (0, "no run")
    return number, state


def _hold(lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Trouble("another demo is running in this checkout.") from None


def _short(path: Path) -> Path:
    return path.relative_to(ROOT)


if __name__ == "__main__":
    sys.exit(main())
