"""``sppe convert --to argo``: the options of a manifest, and the manifest of a workflow file."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from airflow_provider_sewer.cli.help import ARGO, is_given, option
from airflow_provider_sewer.cli.messages import write_message
from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.core.placeholders import RuntimeValue
from airflow_provider_sewer.core.secret_detection import looks_secret
from airflow_provider_sewer.exporters.text_files import replace_text
from airflow_provider_sewer.loaders.python_file import load_parametrized

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable, Mapping

    from airflow_provider_sewer.cli.options import ConvertRequest, WorkflowFile
    from airflow_provider_sewer.core.execution_settings import ExecutionSettings
    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.exporters.argo.manifest import Manifest

_IMAGE = option("--image", group=ARGO, setting="argo_image", help="Container image of all tasks.")
_VOLUME = option(
    "--volume-claim",
    "volume",
    group=ARGO,
    setting="argo_volume_claim",
    metavar="CLAIM[:PATH]",
    help="Mount this claim at PATH, /workspace by default, for all files. [default: pass products as artifacts]",
)
_NAMESPACE = option(
    "--namespace", group=ARGO, setting="argo_namespace", help="Kubernetes namespace. [default: $ARGO_NAMESPACE]"
)
_SECRET = option(
    "--secret",
    group=ARGO,
    metavar="NAME",
    help="Kubernetes Secret with the variables that look secret. [default: the workflow's name and -env]",
)


class ArgoTarget(NamedTuple):
    """Options of a manifest.

    :param image: image of all tasks.
    :param volume: volume claim and, after a colon, where it is mounted.
    :param namespace: Kubernetes namespace.
    :param secret: Kubernetes Secret with secret variables.
    """

    image: str | None
    volume: str | None
    namespace: str | None
    secret: str | None


def argo_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a manifest; the command gets an :class:`ArgoTarget` as ``target``."""

    @functools.wraps(command)
    def read(
        *args: Any, image: str | None, volume: str | None, namespace: str | None, secret: str | None, **more: Any
    ) -> Any:
        return command(*args, target=ArgoTarget(image, volume, namespace, secret), **more)

    wrapped: Callable[..., Any] = read
    for add in (_SECRET, _NAMESPACE, _VOLUME, _IMAGE):
        wrapped = add(wrapped)
    return wrapped


def manifest(request: ConvertRequest, target: ArgoTarget) -> Manifest:
    """Return the manifest of a workflow file; its arguments that have no value become parameters.

    :raises SewerError: when Hera is not installed, or a task has no counterpart in Argo.
    """
    try:
        from airflow_provider_sewer.exporters.argo.manifest import Target, to_argo
        from airflow_provider_sewer.exporters.argo.pod_files import MOUNT, Volume
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("hera"):
            raise
        message = "Argo requires Hera; install it with: pip install 'airflow-provider-sewer[argo]'"
        raise SewerError(message) from None
    if target.image is None:
        raise click.UsageError("--to argo requires --image, the container image of the tasks")
    claim, colon, path = (target.volume or "").partition(":")
    if target.volume is not None and (not claim or (colon and not path.startswith("/"))):
        message = f"--volume-claim must be CLAIM or CLAIM:/PATH, got {target.volume!r}"
        raise click.UsageError(message)
    volume = Volume(claim, path.rstrip("/") or MOUNT) if claim else None
    workflow, parameters = parametrized(request.file)
    return to_argo(
        workflow.with_defaults(_settings(request)),
        parameters,
        Target(target.image, volume, target.namespace, target.secret),
    )


def _settings(request: ConvertRequest) -> ExecutionSettings:
    """Return the settings of tasks that have none; a file can name only an interpreter and a folder of this machine."""
    settings = request.settings
    return settings._replace(
        python=settings.python if is_given("python") else None,
        workdir=settings.workdir if is_given("workdir") else None,
    )


def parametrized(file: WorkflowFile) -> tuple[Workflow, dict[str, Any]]:
    """Load a workflow with placeholders for arguments without a value, and return the defaults of these.

    The default of an argument that has none is ``...``.

    :raises SewerError: when the file is invalid, a value must be known now, or others could read a secret.
    """
    if file.external:
        raise click.UsageError("--to argo reads the file in this process; leave out --read-with-interpreter")
    defaults: dict[str, Any] = {}
    if file.path.endswith((".yaml", ".yml")):
        workflow = file.workflow()
    else:
        workflow = load_parametrized(file.path, file.name, lambda given: _arguments(file, given, defaults))
    for task in workflow.tasks.values():
        for message in task.exposed_secrets():
            raise SewerError(message, task.source)
    return workflow, defaults


def _arguments(
    file: WorkflowFile, parameters: Mapping[str, inspect.Parameter], defaults: dict[str, Any]
) -> dict[str, Any]:
    for name, parameter in parameters.items():
        if name in file.arguments or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if looks_secret(name):
            raise SewerError(f"{file.path}: argument {name!r} must be a variable of env: others can read parameters")
        defaults[name] = ... if parameter.default is parameter.empty else parameter.default
    return {**file.arguments, **{name: RuntimeValue(name) for name in defaults}}


def note_secrets(made: Manifest) -> None:
    """Write which Kubernetes Secret a manifest needs."""
    if made.variables:
        write_message(
            f"sppe: secrets are omitted; the Kubernetes Secret {made.secret} must have {', '.join(made.variables)}"
        )


def write_manifest(request: ConvertRequest, target: ArgoTarget, output: str | None) -> None:
    """Write the manifest of a workflow file.

    :param output: the file to write; ``None`` for stdout.
    """
    made = manifest(request, target)
    note_secrets(made)
    if output is None:
        click.echo(made.to_yaml(), nl=False)
    else:
        replace_text(output, made.to_yaml())
        click.echo(f"Wrote {output}", err=True)
