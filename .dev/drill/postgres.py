"""Private PostgreSQL server with a socket in its own folder, without a port, which ends with the drill."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

#: Folder of Debian's packages for programs not on PATH, with one folder per version.
_DEBIAN = Path("/usr/lib/postgresql")
_TIMEOUT = 30.0

#: Runs the server until it ends or SIGTERM comes, and then removes its folder.
_SERVER = """
"$@" &
trap 'kill -QUIT $!' TERM
wait; wait
exec rm -rf "$0"
"""


class PostgresMissing(Exception):
    """PostgreSQL is not installed."""


def postgres_bin() -> Path | None:
    """Return the folder with the programs of the newest PostgreSQL, or ``None`` if it is not installed."""
    if initdb := shutil.which("initdb"):
        return Path(initdb).resolve().parent
    found = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return found[-1].parent if found else None


class Postgres:
    """PostgreSQL server with an empty database; a context manager that starts and stops it.

    PostgreSQL does not run as root; for root it runs as ``nobody``. Only that user and root can enter its folder.

    :param log: file for the server's output.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._folder: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return the SQLAlchemy URL of the database."""
        return f"postgresql+psycopg2://airflow@/postgres?host={self._folder}"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server and remove its data."""
        if self._server is not None:
            self._server.terminate()
            self._server.wait(_TIMEOUT)
            self._server = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        programs = postgres_bin()
        if programs is None:
            raise PostgresMissing("PostgreSQL is not installed; apt-get install postgresql")
        # The path of a socket must be short, and an unprivileged user cannot enter the folders of the drill.
        self._folder = folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
        # The server ends with the drill, even if the drill is killed.
        argv = ["setpriv", "--pdeathsig", "TERM"]
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            os.chown(folder, user.pw_uid, user.pw_gid)
            argv += [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        data = folder / "data"
        with self._log.open("ab") as log:
            subprocess.run(
                [*argv, programs / "initdb", f"--pgdata={data}", "--username=airflow", "--auth=trust",
                 "--encoding=UTF8", "--locale=C", "--no-sync"],
                cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True, timeout=_TIMEOUT,
            )  # fmt: skip
            self._server = subprocess.Popen(
                [*argv, "sh", "-c", _SERVER, folder, programs / "postgres", "-D", data, "-c", "listen_addresses=",
                 "-c", f"unix_socket_directories={folder}", "-c", "fsync=off", "-c", "max_connections=300"],
                cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + _TIMEOUT
        ready = [programs / "pg_isready", "--quiet", f"--host={folder}", "--username=airflow", "--dbname=postgres"]
        while subprocess.run(ready, check=False, timeout=_TIMEOUT).returncode:
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not respond, see {self._log}")
            time.sleep(0.1)
