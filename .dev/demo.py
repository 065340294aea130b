"""Run the example DAG with ``airflow dags test``, on SQLite, and say what came out: ``make demo``.

What it writes lies in ``build``: Airflow's home in ``build/airflow``, what the DAG makes in ``build/demo``.
A run counts as a success only if Airflow says so in its exit code and in its database, and the results are there.
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
    """What went wrong, and what to do about it."""


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
    """Make Airflow's home, unless an earlier call has made all of it for this very checkout and Airflow."""
    made, made_for = HOME / "made-for.json", (AIRFLOW.parent.parent / "sewer-environment.json").read_text()
    if made.exists() and made.read_text() == made_for:
        return
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    log = HOME / "migrate.log"
    print(f"demo: making Airflow's database, {_short(DATABASE)}", flush=True)
    with log.open("w") as printed:
        code = _run([str(AIRFLOW), "db", "migrate"], printed)
    if code:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise Trouble(f"`airflow db migrate` {_how(code)}:\n{tail}\nAll of it: {_short(log)}")
    made.write_text(made_for)


def run_dag() -> None:
    """Run the DAG, its log on the terminal, and make sure that it succeeded."""
    before = _last_run()
    start = time.monotonic()
    print(f"demo: airflow dags test {DAG}", flush=True)
    code = _run([str(AIRFLOW), "dags", "test", DAG])
    if code:
        raise Trouble(f"`airflow dags test {DAG}` {_how(code)}; its log above says why.")
    number, state = _last_run()
    if number == before[0] or state != "success":
        raise Trouble(f"`airflow dags test {DAG}` ended well, but its database knows of no success: {state}.")
    print(f"\ndemo: the DAG {DAG} succeeded after {time.monotonic() - start:.0f} s.", flush=True)


def show_results() -> None:
    """Say which accuracies came out and where the files are, and how to get the same from a shell."""
    comparison, picture = RESULTS / "comparison.json", RESULTS / "confusion.png"
    missing = [str(file) for file in (comparison, picture) if not file.is_file()]
    if missing:
        raise Trouble(f"the DAG succeeded, but did not leave {' and '.join(missing)}.")
    found = json.loads(comparison.read_text())
    print()
    for model, accuracy in found["accuracies"].items():
        print(f"  {model:8} reads {accuracy:.1%} of the digits{', the best' if model == found['best'] else ''}")
    print(f"\n  {comparison}\n  {picture}")
    command = [SPPE, "run", "-p", WORKFLOW, "-i", PYTHON, "--workdir", WORKDIR]
    print(f"\nThe same workflow file without Airflow:\n\n  {shlex.join(map(str, command))}")


def _run(command: list[str], output: IO[str] | None = None) -> int:
    """Run one of Airflow's commands to its end: asked to stop, it gets the time that it needs for it."""
    process = subprocess.Popen(command, cwd=ROOT, env=_environment(), stdout=output, stderr=output)
    # Ctrl-C reaches the command by itself. A SIGTERM would end the task that runs, but not the DAG.
    signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGINT))
    return process.wait()


def _how(code: int) -> str:
    return f"ended with exit code {code}" if code > 0 else f"was ended by {signal.Signals(-code).name}"


def _environment() -> dict[str, str]:
    """Return Airflow's environment: nothing of an Airflow, or a database, that the shell is set up for."""
    kept = {name: value for name, value in os.environ.items() if not name.lstrip("_").startswith("AIRFLOW")}
    connection = {
        "conn_type": "sewer",
        "extra": {
            "python": str(PYTHON),
            "workdir": str(WORKDIR),
            "env": {"MPLCONFIGDIR": str(BUILD / "matplotlib")},
        },
    }
    return {
        **kept,
        "PYTHONUNBUFFERED": "1",
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_SEWER_DIGITS": json.dumps(connection),
    }


def _last_run() -> tuple[int, str]:
    """Return number and state of the newest run of the DAG, as Airflow's database knows it."""
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
