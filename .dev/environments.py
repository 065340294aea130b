"""Make the virtual environments of this checkout with uv: ``python3 .dev/environments.py airflow-test digits``.

They are in ``build/venv`` and are made once: a second call sees that nothing has changed and ends at once.
``constraints`` resolves their versions again. ``peers`` are the packages that ``make bench`` compares this one with.
This needs only the standard library of Python 3.9, so that it can name the Python that is missing.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
VENVS = BUILD / "venv"
CONSTRAINTS = ".dev/constraints.txt"
STAMP = "sewer-environment.json"
#: This package needs 3.11; Airflow 3.3 goes up to 3.14.
OLDEST, NEWEST = (3, 11), (3, 14)


class Environment(NamedTuple):
    """A virtual environment: its folder in ``build/venv``, and an editable project or packages of the index for it."""

    folder: str
    project: str = ""
    packages: tuple[str, ...] = ()
    versions: str = CONSTRAINTS


ENVIRONMENTS = {
    "airflow": Environment("airflow", "./"),
    "airflow-test": Environment("airflow", "./[test]"),
    "digits": Environment("digits", "./dags/digits"),
    "docs": Environment("docs", "./[docs]"),
}
PEERS = {"cosmos": ("apache-airflow", "astronomer-cosmos"), "sewerpipe": ("sewerpipe",), "depio": ("depio",)}
ENVIRONMENTS.update({name: Environment(name, "", PEERS[name], f".dev/peers/{name}.txt") for name in PEERS})


class Trouble(Exception):
    """A missing part, and the way to get it."""


def main(names: list[str]) -> int:
    """Make the environments of these names and return the exit code."""
    if not names or not set(names) <= {*ENVIRONMENTS, "peers", "constraints"}:
        print(f"usage: environments.py {'|'.join([*ENVIRONMENTS, 'peers', 'constraints'])} ...", file=sys.stderr)
        return 2
    try:
        continue_with_supported_python()
        VENVS.mkdir(parents=True, exist_ok=True)
        for name in [single for given in names for single in (PEERS if given == "peers" else [given])]:
            write_constraints() if name == "constraints" else make(name, ENVIRONMENTS[name])
    except (Trouble, OSError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. Give the same command again to go on.", file=sys.stderr)
        return 130
    return 0


def continue_with_supported_python() -> None:
    """Hand over to another Python if this one is too old or too new."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return
    for name in filter(shutil.which, ("python3.13", "python3.12", "python3.11", "python3.14")):
        # A name on PATH can be a script that only looks for the interpreter.
        asked = subprocess.run([name, "-c", "import sys; print(sys.executable)"], capture_output=True, check=False)
        if python := asked.stdout.decode().strip():
            os.execv(python, [python, *sys.argv])
    raise Trouble(
        f"Python 3.11 to 3.14 is needed; {sys.executable} is {sys.version.split()[0]}, and no other is on PATH.\n"
        "If you have one elsewhere: make PYTHON=/path/to/python3.11 ..."
    )


def make(name: str, environment: Environment) -> None:
    """Make an environment, unless one with the same contents, or with the test tools as well, is there."""
    home = VENVS / environment.folder
    wanted, with_tests = fingerprint(environment), fingerprint(ENVIRONMENTS.get(f"{name}-test", environment))
    with locked(home) as lock:
        if read_stamp(home) in (wanted, with_tests):
            return
        print(f"{name}: making {home.relative_to(ROOT)} with Python {sys.version.split()[0]}", flush=True)
        (home / STAMP).unlink(missing_ok=True)  # First: an interrupted call leaves no stamp.
        run_uv("venv", "--quiet", "--clear", "--python", sys.executable, str(home), lock=lock)
        versions = ["--constraints", environment.versions, "--build-constraints", CONSTRAINTS]
        target = environment.packages or ("--editable", environment.project)
        run_uv("pip", "install", "--python", str(home), *versions, "pip", *target, lock=lock)
        (home / STAMP).write_text(wanted)


def fingerprint(environment: Environment) -> str:
    """Return a text that changes whenever the environment has to be made again."""
    parts = [sys.version, os.path.realpath(sys.executable), str(ROOT), environment, read(environment.versions)]
    if environment.project:
        folder = environment.project.partition("[")[0]
        tables = pyproject(folder)
        # Not the tables for linters and tests.
        parts += [tables["build-system"], tables["project"], tables.get("tool", {}).get("hatch")]
        version_files = [file.read_text() for file in sorted((ROOT / folder).glob("*/__init__.py"))]
        parts += re.findall(r"^__version__ = .*", "\n".join(version_files), re.MULTILINE)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read_stamp(home: Path) -> str:
    """Return the fingerprint an environment was made for; empty if it is missing, incomplete or its Python is gone."""
    stamp = home / STAMP
    return stamp.read_text() if stamp.exists() and (home / "bin/python").exists() else ""


def pyproject(folder: str) -> dict[str, Any]:
    """Return the tables of a project's pyproject.toml."""
    import tomllib

    try:
        return tomllib.loads(read(f"{folder}/pyproject.toml"))
    except tomllib.TOMLDecodeError as error:
        raise Trouble(f"{folder}/pyproject.toml: {error}") from error


def read(file: str) -> str:
    """Return the content of a file of this checkout."""
    return (ROOT / file).read_text(encoding="utf-8")


@contextmanager
def locked(home: Path) -> Iterator[int]:
    """Hold the lock of an environment: of two concurrent calls, one makes it and the other waits."""
    with open(f"{home}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another call that makes {home.relative_to(ROOT)}", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


#: Variables that make pip install elsewhere, or Python read other modules.
UNWANTED = {"PIP_DRY_RUN", "PIP_PREFIX", "PIP_PYTHON", "PIP_ROOT", "PIP_TARGET", "PIP_USER"}
UNWANTED |= {"PYTHONDONTWRITEBYTECODE", "PYTHONHOME", "PYTHONPATH"}
#: Bytecode, certificates and several indexes as in pip.
UV = {"UV_PYTHON_DOWNLOADS": "never", "UV_COMPILE_BYTECODE": "1"}
UV |= {"UV_SYSTEM_CERTS": "1", "UV_INDEX_STRATEGY": "unsafe-best-match"}
#: The variables of uv for each option of pip that decides where packages come from.
PIP_OPTIONS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "HTTPS_PROXY HTTP_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
}


def run_uv(*arguments: str, lock: int) -> None:
    """Run uv with pip's configuration. On first use, pip installs uv in the version of the constraints."""
    home = VENVS / "uv"
    python = str(home / "bin/python")
    wanted = json.dumps([sys.version, str(ROOT), re.findall(r"^uv==.*", read(CONSTRAINTS), re.MULTILINE)])
    with locked(home) as lock_of_uv:
        if read_stamp(home) != wanted:
            print(f"installing uv into {home.relative_to(ROOT)}", flush=True)
            run([sys.executable, "-m", "venv", "--clear", str(home)], lock_of_uv)
            pip = [python, "-m", "pip", "install", "-qq", "--no-input", "--disable-pip-version-check"]
            run([*pip, "--constraint", CONSTRAINTS, "uv"], lock_of_uv)
            (home / STAMP).write_text(wanted)
    configured = pip_configuration(python)
    no_index = ["--no-index"] if configured.get("no-index", "").lower() in ("1", "true", "yes", "on") else []
    uv = str(home / "bin/uv")
    cache = Path(subprocess.check_output([uv, "cache", "dir"], text=True).strip())
    cache.mkdir(parents=True, exist_ok=True)
    # uv links files to its cache, and would warn where that is on another file system.
    linked = {"UV_LINK_MODE": "hardlink" if cache.stat().st_dev == home.stat().st_dev else "copy"}
    run([uv, *arguments, *no_index], lock, {**linked, **uv_variables(configured)})


def pip_configuration(python: str) -> dict[str, str]:
    """Return the options that pip takes from its files and variables, which uv does not read."""
    listed = subprocess.check_output([python, "-m", "pip", "config", "list"], text=True, stdin=subprocess.DEVNULL)
    found = re.findall(r"^(global|install|:env:)\.([\w-]+)=(.*)$", listed, re.MULTILINE)
    found.sort(key=lambda option: ("global", "install", ":env:").index(option[0]))  # The last one wins, as in pip.
    return {name: str(ast.literal_eval(value)) for _, name, value in found}


def uv_variables(configured: dict[str, str]) -> dict[str, str]:
    """Return the variables for uv that correspond to pip's options. Variables of uv that the user has set win."""
    variables = dict(UV)
    for option in PIP_OPTIONS.keys() & configured.keys():
        value = configured[option].replace("\n", " ").strip()
        value = value.replace(" ", ",") if option == "find-links" else value
        variables.update(dict.fromkeys(PIP_OPTIONS[option].split(), value))
    return {**variables, **{name: value for name, value in os.environ.items() if name.startswith("UV_")}}


def run(command: list[str], lock: int, variables: dict[str, str] | None = None) -> None:
    """Run a command in the checkout and print its progress; if it fails, raise Trouble with the known remedy."""
    env = {**{name: value for name, value in os.environ.items() if name not in UNWANTED}, **(variables or {})}
    pipes: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    printed = []
    # It keeps the lock, should it outlive this process.
    with subprocess.Popen(command, cwd=ROOT, env=env, errors="replace", pass_fds=[lock], **pipes) as process:
        for line in process.stdout or ():
            printed.append(line)
            if not re.match(r" [-+~] |Using Python ", line):
                print(f"  {line}", end="", flush=True)
    if process.returncode:
        remedies = [remedy for sign, remedy in REMEDIES.items() if re.search(sign, "".join(printed))]
        raise Trouble(remedies[0] if remedies else f"{Path(command[0]).name} failed; its output is above.")


#: Signs in the output of venv, pip and uv, and the remedy for each. The first match counts.
REMEDIES = {
    r"No module named '?venv|ensurepip": (
        "This Python has no module venv, or no ensurepip. On Debian: apt-get install python3-venv"
    ),
    r"No space left on device|Disk quota exceeded": "The disk is full.",
    r"'\S*(cc|\+\+|clang|cmake)'|\.h: No such file|command '\S+' failed: No such|No CMAKE_|nknown compiler": (
        "A package has no wheel for this Python, and a compiler or Python's headers are missing.\n"
        "On Debian: apt-get install build-essential python3-dev"
    ),
    r"SSLError|certificate verify failed|invalid peer certificate": (
        "The package index shows a certificate that this machine does not trust.\n"
        "If a proxy stands between them: set PIP_CERT to the file with the proxy's certificate."
    ),
    r"[Cc]onnection|[Rr]esolution|[Pp]roxy|timed out|dns error|connect error|tunnel error": (
        "No network: the package index cannot be reached. Connect, or set HTTPS_PROXY, or PIP_INDEX_URL to a package\n"
        "index within reach; then give the same command again."
    ),
}
HEADER = """\
# The versions that {whose} made with.
# Made by `make constraints`: the newest that fit together on Python 3.11, for {wanted}.
# Not to be edited by hand.
"""


def write_constraints() -> None:
    """Write the newest versions: of this package's environments, which share them, and of each peer."""
    building = [needed for project in (".", "dags/digits") for needed in pyproject(project)["build-system"]["requires"]]
    own = ["./[test,docs]", "./dags/digits", "uv", "editables", *building]
    resolve(CONSTRAINTS, own, "the environments in build/venv are", "this package, its tests, docs and dags/digits")
    for name, packages in PEERS.items():
        # The same Airflow, where there is one.
        same = ["--constraints", CONSTRAINTS] if "apache-airflow" in packages else []
        resolve(ENVIRONMENTS[name].versions, packages, f"build/venv/{name} is", " and ".join(packages), *same)


def resolve(file: str, requirements: Any, whose: str, wanted: str, *options: str) -> None:
    """Write the newest versions that fit together into a file."""
    needed, found = VENVS / "constraints.in", VENVS / "constraints.txt"
    with locked(VENVS / "constraints") as lock:
        needed.write_text("\n".join(["pip", *requirements]))
        found.unlink(missing_ok=True)  # uv would prefer its versions.
        options += ("--quiet", "--no-header", "--no-annotate", "--python-version", "3.11")
        run_uv("pip", "compile", *options, "--output-file", str(found), str(needed), lock=lock)
        pins = re.findall(r"^[\w.-]+==\S+$", found.read_text(), re.MULTILINE)
    (ROOT / file).write_text(HEADER.format(whose=whose, wanted=wanted) + "".join(f"{pin}\n" for pin in pins))
    print(f"{len(pins)} versions in {file}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
