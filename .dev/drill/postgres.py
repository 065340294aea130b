"""A private PostgreSQL server: a socket in a folder of its own, no port, gone when the drill is."""

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

#: Where Debian's packages put what is not on PATH, one folder for each version.
_DEBIAN = Path("/usr/lib/postgresql")
_PATIENCE = 30.0

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
    """Return the folder with the programs of the newest PostgreSQL, or ``None`` if there is none."""
    if initdb := shutil.which("initdb"):
        return Path(initdb).resolve().parent
    found = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return found[-1].parent if found else None


class Postgres:
    """A server with an empty database; as a context manager, it is started and stopped.

    PostgreSQL refuses to run as root: there it runs as ``nobody``. Only that user and root can enter its folder.

    :param log: file for what the server writes.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._folder: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return the database as SQLAlchemy names it."""
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
            self._server.wait(_PATIENCE)
            self._server = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        programs = postgres_bin()
        if programs is None:
            raise PostgresMissing("PostgreSQL is not installed; apt-get install postgresql")
        # A socket's path is short, and an unprivileged user cannot enter the folders of the drill.
        self._folder = folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
        # The server ends with the drill, also when that is killed.
        argv = ["setpriv", "--pdeathsig", "TERM"]
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            argv += [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
        data = folder / "data"
        with self._log.open("ab") as log:
            subprocess.run(
                [*argv, programs / "initdb", f"--pgdata={data}", "--username=airflow", "--auth=trust",
                 "--encoding=UTF8", "--locale=C", "--no-sync"],
                cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True, timeout=_PATIENCE,
            )  # fmt: skip
            self._server = subprocess.Popen(
                [*argv, "sh", "-c", _SERVER, folder, programs / "postgres", "-D", data, "-c", "listen_addresses=",
                 "-c", f"unix_socket_directories={folder}", "-c", "fsync=off", "-c", "max_connections=300"],
                cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + _PATIENCE
        ready = [programs / "pg_isready", "--quiet", f"--host={folder}", "--username=airflow", "--dbname=postgres"]
        while subprocess.run(ready, check=False, timeout=_PATIENCE).returncode:
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not answer, see {self._log}")
            time.sleep(0.1)
