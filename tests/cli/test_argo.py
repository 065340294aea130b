"""``sppe convert --to argo`` and ``sppe submit --to argo``, with a server that answers as Argo's does."""

from __future__ import annotations

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from tests.exporters.argo_interpreter import check

FLOW = """
    from airflow_provider_sewer import Task, workflow

    @workflow
    def main(n=3, label="a"):
        first = Task("first", "work", {"n": n}, env={"API_TOKEN": "s3cr3t-value"})
        second = Task("second", "work", {"label": label})
        (first >> second).run()
"""


class Server(ThreadingHTTPServer):
    """Argo server: it keeps the requests, and answers with one status after the other."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str, str | None, dict]] = []
        self.statuses: list[dict | int] = []
        self.refuses = 0

    @property
    def address(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Paths and answers of Argo's API (its OpenAPI description, ``/api/v1/workflows/{namespace}``)."""

    server: Server

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(("POST", self.path, self.headers["Authorization"], body))
        if self.server.refuses:
            self.answer(self.server.refuses, {"code": 7, "message": "token not valid"})
            return
        body["workflow"]["metadata"]["name"] = "main-abcde"
        self.answer(200, body["workflow"])

    def do_GET(self):
        self.server.requests.append(("GET", self.path, self.headers["Authorization"], {}))
        status = self.server.statuses.pop(0)
        if isinstance(status, int):
            self.answer(status, {"code": 5, "message": "no answer"})
        else:
            self.answer(200, {"metadata": {"name": "main-abcde"}, "spec": {}, "status": status})

    def answer(self, code, data):
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(data).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """Start a server."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def submit(sppe, server):
    """Submit the workflow file to the server."""
    sppe.write("flow.py", FLOW)

    def run(*arguments, **env):
        env = {"ARGO_SERVER": server.address, "ARGO_TOKEN": "t0ken", "ARGO_NAMESPACE": "team", **env}
        given = ("submit", "flow.py", "--to", "argo", "--image", "i:1", "--poll-interval", "0.1", *arguments)
        return sppe.run(*given, env=env)

    return run


def node(name, phase, message=None):
    """Return the status of a pod."""
    return {
        "id": name,
        "name": f"main-abcde.{name}",
        "displayName": name,
        "type": "Pod",
        "phase": phase,
        "message": message,
    }


def test_convert_to_argo_writes_manifest_with_parameters(sppe):
    sppe.write("flow.py", FLOW)
    done = sppe.run("convert", "flow.py", "--to", "argo", "--image", "i:1", "--arg", "label=b")
    data = yaml.safe_load(done.stdout)
    check(data)
    assert data["spec"]["arguments"]["parameters"] == [{"name": "n", "value": "3"}]
    assert data["spec"]["templates"][1]["container"]["args"] == ["-m", "work", "--label", "b"]
    assert "must have API_TOKEN" in done.stderr
    assert "s3cr3t" not in done.stdout + done.stderr


def test_convert_to_argo_takes_settings_from_file(sppe):
    sppe.write("flow.py", FLOW)
    sppe.write("sewer.toml", 'argo_image = "i:2"\nargo_volume_claim = "c:/data"\nargo_namespace = "team"\n')
    assert sppe.run("convert", "flow.py", "--to", "argo", "-o", "out.yaml").returncode == 0
    data = yaml.safe_load((sppe.folder / "out.yaml").read_text())
    assert data["metadata"]["namespace"] == "team"
    template = data["spec"]["templates"][0]["container"]
    assert (template["image"], template["volumeMounts"][0]["mountPath"]) == ("i:2", "/data")


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (FLOW, [], "--to argo requires --image"),
        (FLOW, ["--image", "i", "--volume-claim", "c:data"], "--volume-claim must be CLAIM or CLAIM:/PATH"),
        (
            FLOW.replace("label=", "token=").replace(": label", ": token"),
            ["--image", "i"],
            "argument 'token' must be a variable of env",
        ),
        (FLOW.replace('"label": label', '"api_key": "x1y2z3w4"'), ["--image", "i"], "api_key"),
        (FLOW.replace('"label": label', '"d": "{{ ds }}"'), ["--image", "i"], "'{{ ds }}' is rendered only by Airflow"),
        (FLOW.replace("first >> second", "first >> second if n else first"), ["--image", "i"], "give it a value"),
    ],
)
def test_convert_to_argo_rejects(sppe, source, options, message):
    sppe.write("flow.py", source)
    done = sppe.run("convert", "flow.py", "--to", "argo", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_convert_to_argo_names_missing_hera(sppe):
    """As in an environment without the extra."""
    sppe.write("flow.py", FLOW)
    sppe.write("sitecustomize.py", "import sys; sys.modules['hera'] = None")
    path = os.pathsep.join([str(sppe.folder), *sys.path])
    done = sppe.run("convert", "flow.py", "--to", "argo", "--image", "i:1", env={"PYTHONPATH": path})
    assert done.stderr == "sppe: Argo requires Hera; install it with: pip install 'airflow-provider-sewer[argo]'\n"
    assert done.returncode == 2


def test_submit_sends_manifest_and_token(submit, server):
    done = submit()
    ((method, path, token, body),) = server.requests
    assert (method, path, token) == ("POST", "/api/v1/workflows/team", "Bearer t0ken")
    check(body["workflow"])
    assert done.stdout == "Submitted Argo workflow main-abcde\n"
    assert done.returncode == 0


def test_submit_takes_token_from_file_and_host_from_option(submit, server, sppe):
    sppe.write("token", "Bearer other\n")
    assert submit("--host", server.address, "--token-file", "token", ARGO_SERVER="http://127.0.0.1:9").returncode == 0
    assert server.requests[0][2] == "Bearer other"


def test_submit_wait_follows_to_success(submit, server):
    server.statuses = [
        {},
        {"phase": "Pending"},
        {"phase": "Running", "nodes": {"1": node("first", "Running")}},
        503,
        {"phase": "Succeeded", "nodes": {"1": node("first", "Succeeded"), "2": node("second", "Succeeded")}},
    ]
    done = submit("--wait")
    assert done.stdout.splitlines() == [
        "Submitted Argo workflow main-abcde",
        "[first] Running",
        "[first] Succeeded",
        "[second] Succeeded",
        "Argo workflow main-abcde: Succeeded",
    ]
    assert "does not answer" in done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("phase", ["Failed", "Error"])
def test_submit_wait_exits_with_1_when_workflow_fails(submit, server, phase):
    server.statuses = [{"phase": phase, "nodes": {"1": node("first", "Failed", "exit code 3")}}]
    done = submit("--wait")
    assert "[first] Failed: exit code 3" in done.stdout
    assert done.returncode == 1


def test_submit_wait_ends_when_workflow_is_deleted(submit, server):
    server.statuses = [{"phase": "Running"}, 404]
    done = submit("--wait")
    assert "the workflow main-abcde is not on the Argo server" in done.stderr
    assert done.returncode == 2


def test_submit_names_refusal_of_server(submit, server):
    server.refuses = 401
    done = submit()
    assert "has not taken the workflow: Server returned status code 401 with message: `token not valid`" in done.stderr
    assert "t0ken" not in done.stderr
    assert done.returncode == 2


def test_submit_without_server_is_a_usage_error(submit):
    done = submit(ARGO_SERVER="")
    assert "--to argo requires --host or $ARGO_SERVER" in done.stderr
    assert done.returncode == 2


def test_submit_names_server_that_does_not_answer(submit):
    done = submit(ARGO_SERVER="127.0.0.1:9", ARGO_SECURE="false")
    assert "the Argo server http://127.0.0.1:9/ has not taken the workflow" in done.stderr
    assert done.returncode == 2
