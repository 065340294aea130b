"""Run pip: show what it does, keep what it prints, and say why it failed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from venvs import ROOT, STAMP, Trouble, count_packages, python_of

if TYPE_CHECKING:
    from progress import Progress

#: What would have pip install elsewhere, or Python read other modules.
UNWANTED = (
    *("PIP_DRY_RUN", "PIP_PREFIX", "PIP_PYTHON", "PIP_ROOT", "PIP_TARGET"),
    *("PYTHONDONTWRITEBYTECODE", "PYTHONHOME", "PYTHONPATH"),
)
#: Seconds between two looks at pip.
LOOK = 0.1


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
        python = str(python_of(self._home))
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
                    installing, before = line.split(": ")[1].split(", "), count_packages(self._home)
            if len(installing) > 1:
                done = min(len(installing), max(0, count_packages(self._home) - before))
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
