"""Make the virtual environments of this checkout: ``python3 .dev/environments.py airflow-test digits``.

They lie in ``build/venv`` and are made once: a second call sees that nothing has changed and ends at once.
``python3 .dev/environments.py constraints`` writes the versions they are made with anew. ``peers`` are three of them:
what this package is measured beside by ``make bench``, each with versions of its own.

This needs only the standard library, and nothing newer than Python 3.9, so that it can say which Python is missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
CONSTRAINTS = Path(".dev/constraints.txt")
PEERS = Path(".dev/peers")
STAMP = "sewer-environment.json"
#: This package needs 3.11; Airflow 3.3 goes up to 3.14.
OLDEST, NEWEST = (3, 11), (3, 14)
#: The pip that first could install into another environment (``pip --python``).
OLDEST_PIP = (22, 3)
#: What would have pip install elsewhere, or Python read other modules.
UNWANTED = (
    *("PIP_DRY_RUN", "PIP_PREFIX", "PIP_PYTHON", "PIP_ROOT", "PIP_TARGET"),
    *("PYTHONDONTWRITEBYTECODE", "PYTHONHOME", "PYTHONPATH"),
)
#: Seconds between two looks at pip, and between two lines of progress where no terminal shows them.
LOOK, REPORT = 0.1, 10.0
#: Has a terminal forget the line it shows.
CLEAR = "\r\033[K"


class Environment(NamedTuple):
    """A virtual environment.

    :param folder: its folder in ``build/venv``.
    :param project: what is installed into it: a project, as a path from the checkout.
    :param extra: an extra of that project.
    :param packages: instead of a project, packages from the index.
    """

    folder: str
    project: str = ""
    extra: str = ""
    packages: tuple[str, ...] = ()

    @property
    def target(self) -> list[str]:
        """What pip is to install."""
        if self.packages:
            return list(self.packages)
        return ["--editable", f"{self.project}[{self.extra}]" if self.extra else self.project]

    @property
    def versions(self) -> Path:
        """The file with the versions that it is made with, as a path from the checkout."""
        return PEERS / f"{self.folder}.txt" if self.packages else CONSTRAINTS


ENVIRONMENTS = {
    "airflow": Environment("airflow", "."),
    "airflow-test": Environment("airflow", ".", "test"),
    "digits": Environment("digits", "dags/digits"),
    "cosmos": Environment("cosmos", packages=("apache-airflow", "astronomer-cosmos")),
    "sewerpipe": Environment("sewerpipe", packages=("sewerpipe",)),
    "depio": Environment("depio", packages=("depio",)),
}

#: Names for several environments.
SEVERAL = {"peers": [name for name, environment in ENVIRONMENTS.items() if environment.packages]}


class Trouble(Exception):
    """What is missing, and what to do about it."""


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
        wanted, found = _wanted(environment), _read_stamp(home)
        if _serves(found, wanted):
            return
        pip = Pip(home, progress, lock)
        if found.get("base") != wanted["base"]:
            _create(home, pip, progress)
        progress.tell("looking up its packages")
        versions = ["--constraint", str(environment.versions)]
        pip.install("pip", *versions)
        pip.install(*environment.target, *versions, "--build-constraint", str(CONSTRAINTS))
        (home / STAMP).write_text(json.dumps(wanted))
        progress.end(f"ready, {_count_packages(home)} packages in {home.relative_to(ROOT)}")


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
    if importlib.util.find_spec("ensurepip") and pip.run([str(_python_of(home)), "-Im", "ensurepip"]):
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


def _python_of(home: Path) -> Path:
    return home / "bin" / "python"


def _count_packages(home: Path) -> int:
    return sum(1 for _ in home.glob("lib/python3*/site-packages/*.dist-info"))


# -- What an environment was made from ---------------------------------------------------------------------------------


def _wanted(environment: Environment) -> dict[str, str]:
    """Return what the environment depends on, as it is now: where one of these differs, it has to be made anew."""
    installed = environment.packages or _packaging_of(ROOT / environment.project)
    return {
        "base": _hash([sys.version, os.path.realpath(sys.executable), str(ROOT)]),
        "packages": _hash([installed, (ROOT / environment.versions).read_text()]),
        "extra": environment.extra,
    }


def _packaging_of(project: Path) -> list[object]:
    """Return what of a project ends up in an environment: not how its code is checked."""
    tables = _pyproject(project)
    versions = [file.read_text() for file in project.glob("*/__init__.py")]
    return [
        tables.get("build-system"),
        tables.get("project"),
        tables.get("tool", {}).get("hatch"),
        sorted(re.findall(r"^__version__ = .*", "\n".join(versions), re.MULTILINE)),
    ]


def _pyproject(project: Path) -> dict[str, dict[str, Any]]:
    import tomllib

    try:
        return tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise Trouble(f"{project / 'pyproject.toml'}: {error}") from error


def _hash(parts: Iterable[object]) -> str:
    return hashlib.sha256(json.dumps(list(parts), default=str).encode()).hexdigest()


def _read_stamp(home: Path) -> dict[str, str]:
    """Return what the environment was made from; nothing if it is not there, not whole, or its Python is gone."""
    try:
        stamp = json.loads((home / STAMP).read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) and _python_of(home).exists() else {}


def _serves(found: dict[str, str], wanted: dict[str, str]) -> bool:
    """Tell whether an environment is what is wanted, or that and the test tools."""
    return found in (wanted, {**wanted, "extra": "test"})


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


# -- Running pip -------------------------------------------------------------------------------------------------------


class Pip:
    """The pip of an environment: shows what it does, keeps what it prints, and knows why it failed.

    :param lock: the environment's lock, which pip holds too, should it outlive this script.
    """

    def __init__(self, home: Path, progress: Progress, lock: int) -> None:
        self._home = home
        self._progress = progress
        self._lock = lock
        self._log = Path(f"{home}.log")
        self._log.write_text("")

    def install(self, *what: str, by: list[str] | None = None) -> None:
        """Install into the environment, with its own pip or with one from outside."""
        python = str(_python_of(self._home))
        pip = [*by, "--python", python] if by else [python, "-m", "pip"]
        start = self._log.stat().st_size
        if not self.run([*pip, "install", "--no-input", "--disable-pip-version-check", *what]):
            raise Trouble(self._why(_read_from(self._log, start)))

    def run(self, command: list[str]) -> bool:
        """Run a command, show what it does, and tell whether it succeeded."""
        with (
            tempfile.TemporaryDirectory(prefix="tmp-", dir=self._home.parent) as scratch,
            open(self._log, "a") as log,
            open(self._log, errors="replace") as printed,
        ):
            printed.seek(0, os.SEEK_END)
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=_clean_environment(scratch),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self._lock],
                start_new_session=True,
            )
            try:
                self._show(process, printed)
            finally:
                _end(process)
        return process.returncode == 0

    def _show(self, process: subprocess.Popen[bytes], printed: IO[str]) -> None:
        """Turn what pip prints into progress until it ends."""
        collected, before, rest = 0, 0, ""
        installing: list[str] = []
        while process.poll() is None:
            time.sleep(LOOK)
            *lines, rest = (rest + printed.read()).split("\n")
            for line in lines:
                verb, _, thing = line.strip().partition(" ")
                if verb == "Collecting":
                    collected += 1
                    self._progress.tell(f"looking up package {collected}, {thing.split()[0]}")
                elif verb == "Downloading":
                    self._progress.tell(f"downloading {_name_of(thing)}")
                elif verb == "Building" and " for " in thing:
                    self._progress.tell(f"building {thing.split()[2]}")
                elif line.startswith("WARNING: Retrying"):
                    self._progress.tell("no answer from the package index, trying again")
                elif line.startswith("Installing collected packages: "):
                    (self._home / STAMP).unlink(missing_ok=True)  # interrupted from here on, it is a broken one
                    installing, before = line.split(": ")[1].split(", "), _count_packages(self._home)
            if len(installing) > 1:
                done = min(len(installing), max(0, _count_packages(self._home) - before))
                self._progress.tell(f"installing {done} of {len(installing)} packages")
            elif installing:
                self._progress.tell(f"installing {installing[0]}")
            self._progress.tick()

    def _why(self, printed: str) -> str:
        log = f"All that pip printed: {self._log.relative_to(ROOT)}"
        for sign, advice in REASONS:
            if re.search(sign, printed):
                return f"{advice}\n{log}"
        tail = "\n".join(f"  {line}" for line in printed.splitlines()[-15:])
        return f"pip failed. Its last lines:\n{tail}\n{log}"


NO_SPACE = "The disk is full: pip could not write."
NO_COMPILER = """\
A package has no wheel for this Python and has to be compiled, and there is no compiler.
On Debian: apt-get install build-essential python3-dev"""
NO_HEADERS = """\
A package has no wheel for this Python and has to be compiled, and Python's headers are missing.
On Debian: apt-get install python3-dev"""
NO_TRUST = """\
The package index shows a certificate that this machine does not trust.
If a proxy stands between them: set PIP_CERT to the file with the proxy's certificate."""
NO_PROXY = """\
The proxy does not let pip through to the package index.
Set HTTPS_PROXY, or PIP_INDEX_URL to a package index within reach; then give the command again."""
NO_NETWORK = """\
No network: pip cannot reach the package index.
Connect, or set HTTPS_PROXY, or PIP_INDEX_URL to a package index within reach; then give the command again."""

#: Signs in what pip prints, and what to say. The first that is found is said.
REASONS = (
    (r"No space left on device|Disk quota exceeded", NO_SPACE),
    (r"No such file or directory: '\S*(cc|\+\+|clang|cmake)'|unable to execute|[Uu]nknown compiler", NO_COMPILER),
    (r"command '\S+' failed: No such|No CMAKE_|linker \S+ not found", NO_COMPILER),
    (r"Python\.h: No such file", NO_HEADERS),
    (r"SSLError|certificate verify failed", NO_TRUST),
    (r"ProxyError|[Cc]annot connect to proxy|Proxy Authentication Required", NO_PROXY),
    (r"NewConnectionError|[Nn]ame ?[Rr]esolution|timed out|Connection (reset|refused|broken|aborted)", NO_NETWORK),
)


def _name_of(file: str) -> str:
    """Return ``numpy 2.4.0`` for what pip says of a file: its URL or name, its tags and its size."""
    return "-".join(file.split(maxsplit=1)[0].rsplit("/", 1)[-1].split("-")[:2])


def _read_from(file: Path, start: int) -> str:
    with open(file, "rb") as stream:
        stream.seek(start)
        return stream.read().decode(errors="replace")


def _clean_environment(scratch: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in UNWANTED}
    return {**kept, "TMPDIR": scratch, "PIP_USER": "0", "PYTHONUNBUFFERED": "1"}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and all it has started, if it still runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


# -- Showing progress --------------------------------------------------------------------------------------------------


class Progress:
    """What is going on: a line that changes on a terminal, now and then a new one elsewhere."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._start = time.monotonic()
        self._live = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._doing = ""
        self._reported = 0.0

    def tell(self, doing: str) -> None:
        """Say what is being done now."""
        self._doing = doing
        self.tick()

    def tick(self) -> None:
        """Show that time passes."""
        now = time.monotonic()
        if self._live:
            print(f"{CLEAR}{self._line(now)[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)
        elif now - self._reported >= REPORT:
            self._reported = now
            print(self._line(now), flush=True)

    def end(self, result: str) -> None:
        """Say how it ended."""
        self._doing = result
        print(f"{CLEAR if self._live else ''}{self._line(time.monotonic())}", flush=True)

    def _line(self, now: float) -> str:
        return f"{self._name}: {self._doing}, {now - self._start:.0f} s"


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
    building = [needed for project in projects for needed in _pyproject(project)["build-system"]["requires"]]
    return ["./[test]", "./dags/digits", "pip", "editables", *building]


def _versions(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the packages of pip's report, without this checkout's own."""
    packages = [item["metadata"] for item in report["install"] if "dir_info" not in item["download_info"]]
    return sorted((re.sub(r"[-_.]+", "-", package["name"]).lower(), package["version"]) for package in packages)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
