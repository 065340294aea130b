"""Start or remove the containers of ``docker-compose.yaml``: ``make up``, ``make down``.

The containers' secrets are generated once, into ``.env``. Git ignores this file, and only its owner can read it.
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
    """An error with its remedy."""


def main(command: str) -> int:
    """Run the command ``up`` or ``down``, and return the exit code."""
    try:
        check_engine()
        if command == "up":
            check_dags_readable()
            write_env()
            check_port()
            start()
            print_address()
        else:
            remove()
    except (Trouble, OSError) as error:
        print(f"\n{command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def check_engine() -> None:
    """Check that a container engine responds."""
    for command, problem in (
        ([*COMPOSE, "version"], "Docker's compose plugin is required"),
        (["docker", "version"], "No container engine responds"),
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        except FileNotFoundError:
            raise Trouble(_without_engine("`docker` is not on PATH")) from None
        if done.returncode:
            raise Trouble(_without_engine(f"{problem}: `{' '.join(command)}` failed: {done.stderr.strip()}"))


def check_dags_readable() -> None:
    """Check that the containers' user can read the mounted folder."""
    dags = ROOT / "dags"
    for path in [dags, *dags.rglob("*")]:
        needed = stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)
        if path.stat().st_mode & needed != needed:
            fix = shlex.join(["chmod", "-R", "o+rX", str(dags)])
            raise Trouble(f"the user in the containers cannot read {path}. For all of the folder: {fix}")


def write_env() -> None:
    """Generate the secrets and choose a port for Airflow, unless ``.env`` exists."""
    if ENV.exists():
        return
    # The name in docker-compose.yaml, or the user's, which is recorded for all later calls.
    given_project = os.environ.get("COMPOSE_PROJECT_NAME")
    project = given_project or "sewer"
    if volumes := _volumes(project):
        raise Trouble(
            f"{ENV} does not exist, but volumes of the project {project!r} do, with other passwords. "
            f"Restore the .env they were created with, remove them with `docker volume rm {' '.join(volumes)}`, "
            "or use another project: COMPOSE_PROJECT_NAME=another make up"
        )
    values = {
        **({"COMPOSE_PROJECT_NAME": given_project} if given_project else {}),
        "SEWER_AIRFLOW_PORT": str(_free_port()),
        "SEWER_AIRFLOW_PASSWORD": secrets.token_urlsafe(12),
        "SEWER_FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "SEWER_API_SECRET_KEY": secrets.token_hex(32),
        "SEWER_JWT_SECRET": secrets.token_hex(32),
        "SEWER_POSTGRES_PASSWORD": secrets.token_hex(16),
        "SEWER_MARIADB_PASSWORD": secrets.token_hex(16),
    }
    temporary = ENV.with_name(f".env.{os.getpid()}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(f"{name}={value}\n" for name, value in values.items())
    temporary.rename(ENV)


def check_port() -> None:
    """Check that Airflow's port is free, or used by this Airflow."""
    running = _compose("ps", "--services", "--status", "running", capture_output=True).stdout.split()
    if "airflow-apiserver" not in running and not _is_free(_port()):
        raise Trouble(f"port {_port()} is used by another process. Set another SEWER_AIRFLOW_PORT in {ENV}.")


def start() -> None:
    """Build changed images, start all containers, and wait until they are healthy."""
    if _compose("up", "--build", "--wait").returncode:
        raise Trouble(
            "not all containers are healthy, see above. `docker compose ps --all` lists them, "
            "`docker compose logs NAME` shows their output. `make up` resumes from there; "
            "`docker compose down --volumes` removes everything for a fresh start."
        )


def remove() -> None:
    """Remove the containers, and keep their volumes."""
    if not ENV.exists():
        raise Trouble(f"{ENV} does not exist. Without it: docker compose --project-name sewer down")
    if _compose("down").returncode:
        raise Trouble("not all containers could be removed, see above.")
    print("The volumes remain. `docker compose down --volumes` removes them as well.")


def print_address() -> None:
    """Print the address of Airflow and the login."""
    print(f"\nAirflow: http://127.0.0.1:{_port()}  user: admin  password: the SEWER_AIRFLOW_PASSWORD of {ENV.name}")


def _compose(*arguments: str, capture_output: bool = False) -> subprocess.CompletedProcess[str]:
    # The shell's variables would override those in .env.
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
        raise Trouble(f"SEWER_AIRFLOW_PORT in {ENV} must be set to a number.") from None


def _volumes(project: str) -> list[str]:
    named = ["--filter", f"label=com.docker.compose.project={project}", "--quiet"]
    return subprocess.run(["docker", "volume", "ls", *named], capture_output=True, text=True, check=True).stdout.split()


def _free_port() -> int:
    for port in range(FIRST_PORT, FIRST_PORT + 100):
        if _is_free(port):
            return port
    raise Trouble(f"all ports from {FIRST_PORT} to {FIRST_PORT + 99} are in use.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _without_engine(problem: str) -> str:
    return f"{problem}. `make demo` and `make test` do not need containers."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
