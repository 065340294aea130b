"""``sppe submit --to argo``: submission of a workflow to an Argo server, and the wait for its end."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import click

from airflow_provider_sewer.cli.argo_manifest import manifest, note_secrets
from airflow_provider_sewer.cli.messages import write_message
from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.core.trusted_files import read_regular

if TYPE_CHECKING:
    from airflow_provider_sewer.cli.argo_manifest import ArgoTarget
    from airflow_provider_sewer.cli.options import ConvertRequest
    from airflow_provider_sewer.exporters.argo.manifest import Manifest

#: Phases of a workflow that has ended.
_SUCCEEDED, _FAILED = "Succeeded", ("Failed", "Error")
_LARGEST_TOKEN = 64 * 1024
#: Seconds between two requests, and without an answer until the wait ends.
POLL_INTERVAL, PATIENCE = 5.0, 600.0


class ArgoServer:
    """Argo server.

    :param host: its address.
    :param token: the token to log in with; ``None`` for none.
    :param namespace: Kubernetes namespace of the workflows.
    """

    def __init__(self, host: str, token: str | None, namespace: str) -> None:
        from hera.workflows import WorkflowsService

        self._service = WorkflowsService(
            host=host,
            token=token,
            namespace=namespace,
            verify_ssl=os.environ.get("ARGO_INSECURE_SKIP_VERIFY", "").lower() != "true",
        )
        self._host = host

    def submit(self, made: Manifest) -> str:
        """Submit a workflow and return its name.

        :raises SewerError: when the server refuses it or does not answer.
        """
        from hera.exceptions import HeraException
        from hera.workflows.models import WorkflowCreateRequest
        from requests import RequestException

        try:
            created = self._service.create_workflow(WorkflowCreateRequest(workflow=made.model()))
        except (HeraException, RequestException) as error:
            raise SewerError(f"the Argo server {self._host} has not taken the workflow: {_shown(error)}") from None
        return str(created.metadata.name)

    def follow(self, name: str, *, interval: float = POLL_INTERVAL, patience: float = PATIENCE) -> str:
        """Wait for the end of a workflow, write the phases of its tasks, and return its own.

        :param interval: seconds between two requests.
        :param patience: seconds without an answer after which the wait ends.
        :raises SewerError: when the workflow has been deleted, or the server no longer answers.
        """
        from hera.exceptions import HeraException, NotFound
        from requests import RequestException

        seen: dict[str, str] = {}
        answered = time.monotonic()
        while True:
            try:
                status = self._service.get_workflow(name).status
            except NotFound:
                raise SewerError(f"the workflow {name} is not on the Argo server {self._host} any more") from None
            except (HeraException, RequestException) as error:
                if time.monotonic() - answered > patience:
                    raise SewerError(
                        f"the Argo server {self._host} has not answered for {patience:g} s: {_shown(error)}; the "
                        f"workflow {name} goes on"
                    ) from None
                write_message(f"sppe: the Argo server {self._host} does not answer: {_shown(error)}", "yellow")
            else:
                answered = time.monotonic()
                phase = getattr(status, "phase", None) or "Pending"
                _write_phases(status, seen)
                if phase == _SUCCEEDED or phase in _FAILED:
                    return str(phase)
            time.sleep(interval)


def _write_phases(status: Any, seen: dict[str, str]) -> None:
    for key, node in (getattr(status, "nodes", None) or {}).items():
        if node.type == "Pod" and seen.get(key) != node.phase:
            seen[key] = node.phase
            click.echo(f"[{node.display_name or node.name}] {node.phase}{f': {node.message}' if node.message else ''}")


def server(host: str | None, token_file: str | None, namespace: str | None) -> ArgoServer:
    """Return the Argo server of the options, or of the variables that Argo's own client takes.

    :raises SewerError: when no server is given, or the token cannot be read.
    """
    address = host or os.environ.get("ARGO_SERVER")
    if not address:
        raise click.UsageError("--to argo requires --host or $ARGO_SERVER, the address of the Argo server")
    if "://" not in address:
        scheme = "http" if os.environ.get("ARGO_SECURE", "").lower() == "false" else "https"
        address = f"{scheme}://{address}"
    token = os.environ.get("ARGO_TOKEN")
    if token_file is not None:
        try:
            token = read_regular(os.path.expanduser(token_file), largest=_LARGEST_TOKEN).decode().strip()
        except (OSError, ValueError) as error:
            raise SewerError(f"--token-file {token_file}: {error}") from None
    return ArgoServer(address.rstrip("/") + "/", token, namespace or os.environ.get("ARGO_NAMESPACE") or "default")


def _shown(error: Exception) -> str:
    return " ".join(str(error).split())[:400] or type(error).__name__


def submit(request: ConvertRequest, target: ArgoTarget, to: ArgoServer, *, waits: bool, interval: float) -> int:
    """Submit a workflow and return the exit code: with ``waits``, that of its outcome."""
    made = manifest(request, target)
    note_secrets(made)
    name = to.submit(made)
    click.echo(f"Submitted Argo workflow {name}")
    if not waits:
        return 0
    try:
        phase = to.follow(name, interval=interval)
    except KeyboardInterrupt:
        write_message(f"sppe: the Argo workflow {name} goes on")
        return 130
    click.echo(f"Argo workflow {name}: {phase}")
    return 0 if phase == _SUCCEEDED else 1
