"""Make the virtual environments of this checkout: ``python3 .dev/environments.py airflow-test digits``.

They lie in ``build/venv`` and are made once: a second call sees that nothing has changed and ends at once.
``python3 .dev/environments.py constraints`` writes the versions they are made with anew. ``peers`` are three of them:
what this package is measured beside by ``make bench``, each with versions of its own.

This needs only the standard library, and nothing newer than Python 3.9, so that it can say which Python is missing.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

# For a Python that leaves out the folder of what it runs (PYTHONSAFEPATH), too.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from progress import Progress
from running_pip import Pip
from venvs import (
    BUILD,
    CONSTRAINTS,
    ENVIRONMENTS,
    PEERS,
    ROOT,
    SEVERAL,
    STAMP,
    Environment,
    Trouble,
    count_packages,
    pyproject,
    python_of,
    read_stamp,
    serves,
    wanted_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

#: This package needs 3.11; Airflow 3.3 goes up to 3.14.
OLDEST, NEWEST = (3, 11), (3, 14)
#: The pip that first could install into another environment (``pip --python``).
OLDEST_PIP = (22, 3)


def main(names: list[str]) -> int:
    """Make the environments of these names and return the exit code."""
    if not names or not set(names) <= {*ENVIRONMENTS, *SEVERAL, "constraints"}:
        print(f"usage: environments.py {'|'.join([*ENVIRONMENTS, *SEVERAL, 'constraints'])} ...", file=sys.stderr)
        return 2
    try:
        _end_like_ctrl_c_when_asked_to()
        _go_on_with_a_supported_python()
        for name in [single for given in names for single in SEVERAL.get(given, [given])]:
            if name == "constraints":
                write_constraints()
            else:
                make(name, ENVIRONMENTS[name])
    except (Trouble, OSError) as error:
        print(f"\n{_in_words(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. Give the same command again to go on.", file=sys.stderr)
        return 130
    return 0


# -- An environment ----------------------------------------------------------------------------------------------------


def make(name: str, environment: Environment) -> None:
    """Make the environment, or bring it up to date, unless it is as it should be."""
    home = BUILD / "venv" / environment.folder
    home.parent.mkdir(parents=True, exist_ok=True)
    progress = Progress(name)
    with _locked(home, progress) as lock:
        wanted, found = wanted_for(environment), read_stamp(home)
        if serves(found, wanted):
            return
        pip = Pip(home, progress, lock)
        if found.get("base") != wanted["base"]:
            _create(home, pip, progress)
        progress.tell("looking up its packages")
        versions = ["--constraint", str(environment.versions)]
        pip.install("pip", *versions)
        pip.install(*environment.target, *versions, "--build-constraint", str(CONSTRAINTS))
        (home / STAMP).write_text(json.dumps(wanted))
        progress.end(f"ready, {count_packages(home)} packages in {home.relative_to(ROOT)}")


def _create(home: Path, pip: Pip, progress: Progress) -> None:
    """Make an empty environment with a pip in it, in place of whatever is there."""
    progress.tell(f"making {home.relative_to(ROOT)} with Python {sys.version.split()[0]}")
    (home / STAMP).unlink(missing_ok=True)  # first, lest half an environment has one
    if home.exists():
        shutil.rmtree(home)
    try:
        import venv  # Debian's smallest Python has none
    except ImportError:
        raise Trouble("This Python has no module venv. On Debian: apt-get install python3-venv") from None
    venv.EnvBuilder(symlinks=True).create(home)
    if importlib.util.find_spec("ensurepip") and pip.run([str(python_of(home)), "-Im", "ensurepip"]):
        return
    pip.install("pip", "--constraint", str(CONSTRAINTS), by=_a_pip_outside())


def _a_pip_outside() -> list[str]:
    """Return the command of a pip that can install into another environment: Debian has venv without ensurepip."""
    found = "no pip"
    for command in ([sys.executable, "-m", "pip"], ["pip3"], ["pip"]):
        version = re.match(r"pip (\d+)\.(\d+)", _output_of([*command, "--version"]))
        if version and (int(version[1]), int(version[2])) >= OLDEST_PIP:
            return command
        if version:
            found = f"only {version[0]}"
    raise Trouble(
        f"{sys.executable} has no module ensurepip and {found}; a virtual environment takes one of them "
        f"(pip from {'.'.join(map(str, OLDEST_PIP))} on).\nOn Debian: apt-get install python3-venv"
    )


@contextmanager
def _locked(home: Path, progress: Progress) -> Iterator[int]:
    """Hold the environment's lock: two calls at once make it one after the other."""
    with open(f"{home}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.tell("waiting for another call that is making it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


# -- The Python that runs this -----------------------------------------------------------------------------------------


def _go_on_with_a_supported_python() -> None:
    """Hand over to another Python if this one is too old or too new."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return
    for minor in (13, 12, 11, 14):
        python = _output_of([f"python3.{minor}", "-c", "import sys; print(sys.executable)"]).strip()
        if python:
            os.execv(python, [python, *sys.argv])
    span = f"Python {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    raise Trouble(
        f"{span} is needed; {sys.executable} is {sys.version.split()[0]}, and no other is on PATH.\n"
        "If you have one elsewhere: make PYTHON=/path/to/python3.11 ..."
    )


def _output_of(command: list[str]) -> str:
    """Return what a command prints, or nothing if it fails."""
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout


def _end_like_ctrl_c_when_asked_to() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


# -- The versions ------------------------------------------------------------------------------------------------------

HEADER = """\
# The versions that {whose} made with.
# Made by `make constraints`: pip {pip} on Python {python} took the newest versions that fit together, for
# {wanted}. Not to be edited by hand.
"""


def write_constraints() -> None:
    """Resolve what the environments need and write the versions down: of those of this package together."""
    if sys.version_info[:2] != OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise Trouble(
            f"The versions have to serve Python {oldest} too: make constraints PYTHON=python{oldest} "
            f"(this is {sys.version.split()[0]})"
        )
    home = BUILD / "venv" / "constraints"
    home.parent.mkdir(parents=True, exist_ok=True)
    progress = Progress("constraints")
    with _locked(home, progress) as lock:
        pip = Pip(home, progress, lock)
        _create(home, pip, progress)
        pip.install("--upgrade", "pip")
        wanted = "this package, its test tools, dags/digits and the building of both"
        count = _resolve(pip, CONSTRAINTS, _everything(), "the environments in build/venv are", wanted)
        (ROOT / PEERS).mkdir(exist_ok=True)
        for name in SEVERAL["peers"]:
            peer = ENVIRONMENTS[name]
            # The same Airflow, where there is one.
            beside = ["--constraint", str(CONSTRAINTS)] if "apache-airflow" in peer.packages else []
            packages = ["pip", *peer.packages]
            whose = f"build/venv/{peer.folder} is"
            count += _resolve(pip, peer.versions, [*packages, *beside], whose, " and ".join(peer.packages))
        progress.end(f"{count} versions in {CONSTRAINTS} and {PEERS}")


def _resolve(pip: Pip, file: Path, requirements: list[str], whose: str, wanted: str) -> int:
    """Write the newest versions that fit together into a file, and return how many they are."""
    report = BUILD / "venv" / "constraints.json"
    pip.install("--dry-run", "--ignore-installed", "--report", str(report), *requirements)
    versions = _versions(json.loads(report.read_text()))
    python = ".".join(map(str, OLDEST))
    header = HEADER.format(whose=whose, wanted=wanted, pip=dict(versions)["pip"], python=python)
    (ROOT / file).write_text(header + "".join(f"{name}=={version}\n" for name, version in versions))
    return len(versions)


def _everything() -> list[str]:
    """Return all requirements of this package's own environments, those of building their projects included."""
    projects = [ROOT, ROOT / "dags/digits"]
    building = [needed for project in projects for needed in pyproject(project)["build-system"]["requires"]]
    return ["./[test]", "./dags/digits", "pip", "editables", *building]


def _versions(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the packages of pip's report, without this checkout's own."""
    packages = [item["metadata"] for item in report["install"] if "dir_info" not in item["download_info"]]
    return sorted((re.sub(r"[-_.]+", "-", package["name"]).lower(), package["version"]) for package in packages)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
