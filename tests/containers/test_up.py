"""Containers started by ``make up``: healthy, not reachable from outside, and ready for use."""

from __future__ import annotations

import json
import re
import stat
from urllib.parse import quote

import pytest

from .stack import AIRFLOW, LOGIN, NODES, PYTHON

SERVICES = {*AIRFLOW, *NODES, "airflow-init", "mariadb", "munge", "postgres", "slurmctld", "slurmdbd"}


@pytest.fixture(autouse=True)
def _all_are_there(stack):
    """Also after earlier tests have changed the containers."""
    assert set(stack.containers()) == SERVICES


def test_all_containers_are_healthy(stack):
    """Each container reports it, and the init container has succeeded."""
    containers = stack.containers()
    assert containers.pop("airflow-init")["ExitCode"] == 0
    assert {name: row["Health"] for name, row in containers.items()} == dict.fromkeys(containers, "healthy")
    health = stack.get("/monitor/health")
    parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
    assert {part: health[part]["status"] for part in parts} == dict.fromkeys(parts, "healthy")
    states = stack.command("sinfo", "--noheader", "--Node", "--format=%N %T").split("\n")
    assert [line.split()[0] for line in states if line] == list(NODES)


def test_make_up_prints_url_and_no_password(stack):
    """It stands in a file that only its owner can read."""
    assert f"{stack.url}  user: admin" in stack.printed
    assert [name for name, value in stack.secrets.items() if value in stack.printed] == []
    assert stat.S_IMODE((stack.folder / ".env").stat().st_mode) == 0o600


def test_ports_are_bound_to_loopback_only(stack):
    """Airflow's port is the only one, so that other hosts cannot reach it."""
    published = {
        (service, port["URL"])
        for service, row in stack.containers().items()
        for port in row["Publishers"] or []
        if port["PublishedPort"]
    }
    assert published == {("airflow-apiserver", "127.0.0.1")}


def test_login_requires_the_password(stack):
    """The REST API refuses a wrong one."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    body = json.dumps({"username": "admin", "password": "admin"}).encode()
    with pytest.raises(HTTPError, match="401"):
        urlopen(Request(f"{stack.url}/auth/token", body, {"Content-Type": "application/json"}), timeout=30)


def test_images_contain_no_secret(stack):
    """They come with the environment, and the key of munge is made when its container starts."""
    for image in ("airflow", "slurm"):
        about = stack.docker("image", "inspect", f"{stack.project}-{image}")
        about += stack.docker("history", "--no-trunc", f"{stack.project}-{image}")
        assert [name for name, value in stack.secrets.items() if value in about] == []
    fresh = stack.docker("run", "--rm", "--entrypoint", "ls", f"{stack.project}-slurm", "-A", "/etc/munge")
    assert "munge.key" not in fresh


def test_example_interpreter_has_no_airflow(stack):
    """It is the same on the scheduler and on the nodes, and the nodes have no Airflow at all."""
    look = "import importlib.util, sys; print(sys.prefix, importlib.util.find_spec('airflow'), sys.version)"
    seen = {service: stack.run_in(service, PYTHON, "-c", look) for service in ("airflow-scheduler", *NODES)}
    assert set(seen.values()) == {seen["node1"]}
    assert seen["node1"].startswith("/opt/envs/digits None")
    assert stack.run_in("node1", "sh", "-c", "command -v airflow || echo none") == "none\n"


def test_provider_is_installed_from_the_checkout(stack):
    """Airflow knows its version and its connection type."""
    from airflow_provider_sewer import __version__

    (row,) = json.loads(stack.run_in(LOGIN, "airflow", "providers", "get", "airflow-provider-sewer", "-o", "json"))
    assert row["Version"] == __version__
    assert stack.get("/importErrors")["import_errors"] == []


def test_make_up_keeps_changes_of_the_user(stack):
    """A connection that was edited, and the containers themselves, for nothing has changed."""
    path = f"/connections/{quote('sewer_digits')}"
    connection = stack.get(path)
    before = {service: row["ID"] for service, row in stack.containers().items()}
    stack.patch(f"{path}?update_mask=description", {**connection, "description": "ours"})
    try:
        stack.make("up")
        assert stack.get(path)["description"] == "ours"
        assert {service: row["ID"] for service, row in stack.containers().items()} == before
    finally:
        stack.patch(f"{path}?update_mask=description", connection)


def test_make_up_with_new_env_file_keeps_volumes_usable(stack):
    """The databases keep their first passwords: the error states this, and nothing is started or written."""
    env = stack.folder / ".env"
    env.rename(stack.folder / "saved.env")
    try:
        with pytest.raises(OSError, match="with other passwords") as caught:
            stack.make("up")
        assert f"docker volume rm {stack.project}_" in str(caught.value)
        assert not env.exists()
    finally:
        (stack.folder / "saved.env").rename(env)


def test_make_up_names_unreadable_dags_folder(stack):
    """Otherwise Airflow would start without the DAGs and without an error."""
    file = stack.folder / "dags" / "sewer_digits.py"
    file.chmod(0o600)
    try:
        with pytest.raises(OSError, match=re.escape(f"cannot read {file}. For all of the folder: chmod -R o+rX")):
            stack.make("up")
    finally:
        file.chmod(0o644)
