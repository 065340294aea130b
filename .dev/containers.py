"""Bring up the containers of ``docker-compose.yaml``, or take them down: ``make up``, ``make down``.

The secrets of the containers are made up once, and stand in ``.env``, which git ignores and only its owner can read.
"""

from __future__ import annotations

import base64
import os
import secrets
import shlex
import socket
import stat
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENV = ROOT / ".env"
FIRST_PORT = 8080
COMPOSE = ["docker", "compose"]


class Trouble(Exception):
    """What is wrong, and what to do about it."""


def main(command: str) -> int:
    """Run one of the commands ``up`` and ``down``, and return the exit code."""
    try:
        need_an_engine()
        if command == "up":
            need_readable_dags()
            write_env()
            need_the_port()
            bring_up()
            say_where()
        else:
            take_down()
    except (Trouble, OSError) as error:
        print(f"\n{command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def need_an_engine() -> None:
    """Say what is missing where no container engine answers."""
    for command, lack in (
        ([*COMPOSE, "version"], "Docker's compose plugin is needed"),
        (["docker", "version"], "No container engine answers"),
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        except FileNotFoundError:
            raise Trouble(_without("There is no `docker` on PATH")) from None
        if done.returncode:
            raise Trouble(_without(f"{lack}: `{' '.join(command)}` says: {done.stderr.strip()}"))


def need_readable_dags() -> None:
    """Make sure that the containers' user, who is another one, can read the mounted folder."""
    dags = ROOT / "dags"
    for path in [dags, *dags.rglob("*")]:
        needed = stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)
        if path.stat().st_mode & needed != needed:
            mend = shlex.join(["chmod", "-R", "o+rX", str(dags)])
            raise Trouble(f"the user in the containers cannot read {path}. For all of the folder: {mend}")


def write_env() -> None:
    """Make up the secrets, and find a port for Airflow, unless an earlier call has."""
    if ENV.exists():
        return
    # As in docker-compose.yaml, or as somebody wants it this time, and will have to from then on.
    asked_for = os.environ.get("COMPOSE_PROJECT_NAME")
    project = asked_for or "sewer"
    if volumes := _volumes(project):
        raise Trouble(
            f"{ENV} is not there, but volumes of a project {project!r} are, with passwords of their own. "
            f"Put the .env back that they were made with, take them away with `docker volume rm {' '.join(volumes)}`, "
            "or use other ones: COMPOSE_PROJECT_NAME=another make up"
        )
    values = {
        **({"COMPOSE_PROJECT_NAME": asked_for} if asked_for else {}),
        "SEWER_AIRFLOW_PORT": str(_free_port()),
        "SEWER_AIRFLOW_PASSWORD": secrets.token_urlsafe(12),
        "SEWER_FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "SEWER_API_SECRET_KEY": secrets.token_hex(32),
        "SEWER_JWT_SECRET": secrets.token_hex(32),
        "SEWER_POSTGRES_PASSWORD": secrets.token_hex(16),
        "SEWER_MARIADB_PASSWORD": secrets.token_hex(16),
    }
    whole = ENV.with_name(f".env.{os.getpid()}")
    with open(os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(f"{name}={value}\n" for name, value in values.items())
    whole.rename(ENV)


def need_the_port() -> None:
    """Make sure that Airflow's port is free, unless it is this Airflow that has it."""
    running = _compose("ps", "--services", "--status", "running", capture_output=True).stdout.split()
    if "airflow-apiserver" not in running and not _is_free(_port()):
        raise Trouble(f"something else has port {_port()}. Write another one into {ENV}, as SEWER_AIRFLOW_PORT.")


def bring_up() -> None:
    """Build the images anew where something has changed, start everything, and wait until it is healthy."""
    if _compose("up", "--build", "--wait").returncode:
        raise Trouble(
            "it is not all healthy, see above. `docker compose ps --all` says which container, "
            "`docker compose logs NAME` what it wrote. `make up` goes on from there; after "
            "`docker compose down --volumes` it begins anew, with nothing of what was made."
        )


def take_down() -> None:
    """Remove the containers, and keep their volumes."""
    if not ENV.exists():
        raise Trouble(f"{ENV} is not there. Without it: docker compose --project-name sewer down")
    if _compose("down").returncode:
        raise Trouble("not everything could be taken down, see above.")
    print("What they have made stays on their volumes. `docker compose down --volumes` removes those as well.")


def say_where() -> None:
    """Say where Airflow is to be found, and how to log in."""
    print(f"\nAirflow: http://127.0.0.1:{_port()}  user: admin  password: the SEWER_AIRFLOW_PASSWORD of {ENV.name}")


def _compose(*arguments: str, capture_output: bool = False) -> subprocess.CompletedProcess[str]:
    # What the shell says would win over what is written down.
    env = {name: value for name, value in os.environ.items() if not name.startswith("SEWER_")}
    return subprocess.run(
        [*COMPOSE, *arguments],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=capture_output,
        text=True,
        check=False,
    )


def _port() -> int:
    written = dict(line.split("=", 1) for line in ENV.read_text().splitlines() if "=" in line)
    try:
        return int(written["SEWER_AIRFLOW_PORT"])
    except (KeyError, ValueError):
        raise Trouble(f"{ENV} says no SEWER_AIRFLOW_PORT, a number.") from None


def _volumes(project: str) -> list[str]:
    named = ["--filter", f"label=com.docker.compose.project={project}", "--quiet"]
    return subprocess.run(["docker", "volume", "ls", *named], capture_output=True, text=True, check=True).stdout.split()


def _free_port() -> int:
    for port in range(FIRST_PORT, FIRST_PORT + 100):
        if _is_free(port):
            return port
    raise Trouble(f"all ports from {FIRST_PORT} to {FIRST_PORT + 99} are taken.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _without(lack: str) -> str:
    return f"{lack}. `make demo` and `make test` do without containers."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
