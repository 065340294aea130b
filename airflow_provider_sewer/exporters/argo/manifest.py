"""Manifest of a workflow for Argo Workflows, built with Hera's models."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import yaml
from hera.workflows import DAG, Artifact, Container, Env, Parameter, RawArtifact, Workflow
from hera.workflows import Task as Step
from hera.workflows import models as argo

from airflow_provider_sewer.core.call import CALLER
from airflow_provider_sewer.core.errors import InvalidTask, SewerError
from airflow_provider_sewer.core.placeholders import as_written
from airflow_provider_sewer.exporters.argo import pod_files, pod_settings
from airflow_provider_sewer.exporters.argo.argo_names import valid_name
from airflow_provider_sewer.exporters.argo.dag_nodes import Node, Nodes
from airflow_provider_sewer.exporters.argo.task_values import Values, to_json_without_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_sewer.core.placeholders import Result
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow as SewerWorkflow

_FOLDER = "/sewer"
_PROGRAM, _CALLER, _TASK = f"{_FOLDER}/run.py", f"{_FOLDER}/call.py", f"{_FOLDER}/task.json"
#: Where a module writes its result, and where its program leaves it for Argo.
_RESULT_OF_MODULE, _RESULT = "/tmp/sewer-module-result.json", "/tmp/sewer-result.json"  # noqa: S108 - in a pod
_VOLUME = "work"
_DAG = "workflow"
_ITEM = "{{inputs.parameters.item}}"
#: Marks the places of JSON texts that Argo puts into the description of a task.
_MARK = "\x00"

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "task_program.py"), encoding="utf-8") as _file:
    #: The program of tasks with placeholders or products.
    PROGRAM = _file.read()


class Target(NamedTuple):
    """Settings of the manifest that the workflow file does not have.

    :param image: container image of all tasks.
    :param volume: volume claim for files; ``None`` to pass products as artifacts.
    :param namespace: Kubernetes namespace; ``None`` for that of the request.
    :param secret: name of the Kubernetes Secret with secret variables; ``None`` for the workflow's name.
    """

    image: str
    volume: pod_files.Volume | None = None
    namespace: str | None = None
    secret: str | None = None


class Manifest(NamedTuple):
    """Workflow of Argo.

    :param workflow: Hera's object.
    :param secret: name of the Kubernetes Secret that it needs.
    :param variables: the keys that the Secret must have.
    """

    workflow: Workflow
    secret: str
    variables: tuple[str, ...]

    def model(self) -> argo.Workflow:
        """Return the workflow as the API of Argo has it."""
        return cast("argo.Workflow", self.workflow.build())

    def to_yaml(self) -> str:
        """Return the manifest as YAML, with texts of several lines as they are."""
        return yaml.dump(self.workflow.to_dict(), Dumper=_Dumper, sort_keys=False, width=math.inf, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Dumper that writes texts of several lines line by line."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def to_argo(workflow: SewerWorkflow, parameters: Mapping[str, Any], target: Target) -> Manifest:
    """Return a workflow for Argo.

    :param parameters: defaults of the workflow's arguments that become parameters; ``...`` for an argument without one.
    :raises SewerError: when a task has a field that has no counterpart, or an argument cannot be a parameter.
    """
    for task in workflow.tasks.values():
        pod_settings.reject_unsupported(task)
    return _Exporter(workflow, parameters, target).manifest()


class _Exporter:
    def __init__(self, workflow: SewerWorkflow, parameters: Mapping[str, Any], target: Target) -> None:
        self._workflow = workflow
        self._parameters = parameters
        self._target = target
        self._folder = workflow.source.folder if workflow.source else os.getcwd()
        self._secret = target.secret or f"{valid_name(workflow.name).lower()}-env"
        self._variables: dict[str, None] = {}
        self._nodes = Nodes(workflow, has_artifacts=target.volume is None)
        self._artifacts = {} if target.volume else pod_files.artifacts(workflow, self._folder)
        self._text_arguments = frozenset(
            name for name, default in parameters.items() if isinstance(default, str) or default is ...
        )
        self._values = {name: self._values_of(node) for name, node in self._nodes.all.items()}
        self._used = {up for values, _ in self._values.values() for up in values.inputs}

    def manifest(self) -> Manifest:
        """Return the workflow with a template for each node, and the DAG."""
        with Workflow(
            generate_name=f"{valid_name(self._workflow.name).lower()}-",
            namespace=self._target.namespace,
            entrypoint=_DAG,
            arguments=[*map(self._parameter, self._parameters), *self._programs()],
            volumes=_volumes(self._target.volume),
            annotations={"airflow-provider-sewer/doc": self._workflow.doc} if self._workflow.doc else None,
        ) as made:
            templates = {name: self._template(node) for name, node in self._nodes.all.items()}
            with DAG(name=_DAG, inputs=[Artifact(name=program.name) for program in self._programs()]):
                for name, node in self._nodes.all.items():
                    self._step(node, templates[name])
        return Manifest(made, self._secret, tuple(self._variables))

    def _values_of(self, node: Node) -> tuple[Values, list[dict[str, Any]]]:
        """Return the encoder of a node, and the values of each of its tasks."""
        values = Values(self._nodes.refer, self._text_arguments, node.mapped_key)
        if node.mapped_over is not None:
            values.encoded(node.mapped_over)
        return values, [
            {**values.of(task), "products": [values.path(product) for product in task.products]} for task in node.tasks
        ]

    def _parameter(self, name: str) -> Parameter:
        default = self._parameters[name]
        if default is ...:
            return Parameter(name=name)
        return Parameter(name=name, value=default if isinstance(default, str) else _json_value(name, default))

    def _programs(self) -> list[RawArtifact]:
        """Return the programs that tasks use, as artifacts of the workflow."""
        nodes = self._nodes.all.values()
        programs = []
        if any(self._needs_program(node) for node in nodes):
            programs.append(RawArtifact(name="run", data=PROGRAM))
        if any(node.tasks[0].function is not None for node in nodes):
            programs.append(RawArtifact(name="call", data=CALLER))
        return programs

    def _needs_program(self, node: Node) -> bool:
        values, _ = self._values[node.name]
        has_values = bool(values.inputs or values.arguments) or _is_repeated(node)
        has_result = node.name in self._used or bool(self._counts(node))
        return has_values or has_result or bool(node.tasks[0].products or node.tasks[0].stdin)

    def _template(self, node: Node) -> Container:
        task = node.tasks[0]
        values, _ = self._values[node.name]
        variables, secrets = pod_settings.environment(task, self._secret)
        self._variables.update(dict.fromkeys(secrets))
        limits = pod_settings.limits(task)
        files_of = self._artifacts.get(task.name, pod_files.Artifacts())
        mount = self._target.volume.path if self._target.volume else pod_files.MOUNT
        return Container(
            name=node.name,
            image=self._target.image,
            command=[self._python(task), "-u"],
            args=self._arguments(node),
            working_dir=pod_files.pod_folder(task, self._folder, mount),
            env=[*variables, *self._own_variables(values, node)] or None,
            inputs=[
                *(Parameter(name=name) for name in values.inputs.values()),
                *([Parameter(name="item")] if _is_repeated(node) else []),
                *self._description(node),
                *(Artifact(name=each.name, path=each.path) for each in self._own_programs(node)),
                *(Artifact(name=each.name, path=each.path) for each in files_of.inputs),
            ]
            or None,
            outputs=[
                *([_output("result", _RESULT)] if node.name in self._used else []),
                *(_output(f"items-of-{user}", _items_file(user)) for user in self._counts(node)),
                *(Artifact(name=each.name, path=each.path) for each in files_of.outputs),
            ]
            or None,
            resources=pod_settings.resources(task),
            retry_strategy=limits.retries,
            active_deadline_seconds=None if limits.seconds is None else str(limits.seconds),
            labels=pod_settings.labels(task) or None,
            annotations=pod_settings.descriptions(task, node.task_name),
            volume_mounts=[argo.VolumeMount(name=_VOLUME, mount_path=mount)] if self._target.volume else None,
        )

    def _python(self, task: Task) -> str:
        python = task.settings.python or "python3"
        if os.sep in python and not os.path.relpath(python, self._folder).startswith(".."):
            raise InvalidTask(
                f"task {task.name!r}: python must be in the image for Argo, got {python!r}, which is in the folder of "
                "the workflow file; name one on the image's PATH",
                task.source,
                at=("python",),
            )
        return python

    def _arguments(self, node: Node) -> list[str]:
        if self._needs_program(node):
            return [_PROGRAM, _TASK]
        argv = list(node.tasks[0].call(as_written).argv)
        return [_CALLER, *argv[2:]] if node.tasks[0].function is not None else argv

    def _own_variables(self, values: Values, node: Node) -> list[Env]:
        arguments = [
            Env(name=_variable(name), value=f"{{{{workflow.parameters.{name}}}}}") for name in sorted(values.arguments)
        ]
        is_used = node.name in self._used or bool(self._counts(node))
        return [*arguments, *([Env(name="SEWER_RESULT_FILE", value=_RESULT_OF_MODULE)] if is_used else [])]

    def _own_programs(self, node: Node) -> list[pod_files.Artifact]:
        programs = [pod_files.Artifact("run", _PROGRAM)] if self._needs_program(node) else []
        return programs + ([pod_files.Artifact("call", _CALLER)] if node.tasks[0].function is not None else [])

    def _description(self, node: Node) -> list[RawArtifact]:
        """Return the description of a task for its program."""
        if not self._needs_program(node):
            return []
        task = node.tasks[0]
        values, of_tasks = self._values[node.name]
        data: dict[str, Any] = {
            "module": task.module,
            "function": task.function,
            "use_underscores": task.use_underscores,
            "values": _MARK if node.is_loop else of_tasks[0],
            "inputs": dict.fromkeys(values.inputs.values(), _MARK),
            "arguments": {name: _variable(name) for name in sorted(values.arguments)},
            "result_file": _RESULT if node.name in self._used else None,
            "mapped_over": [
                {"task": user, "file": _items_file(user), "path": list(result.key_path), "name": repr(result)}
                for user, result in self._counts(node).items()
            ],
        }
        texts = [_ITEM] * node.is_loop + [f"{{{{inputs.parameters.{name}}}}}" for name in values.inputs.values()]
        if node.mapped_over is not None:
            data["mapped"] = {"key": node.mapped_key, "values": values.encoded(node.mapped_over), "index": _MARK}
            texts.append(_ITEM)
        parts = to_json_without_names(data).split('"\\u0000"')
        return [RawArtifact(name="task", path=_TASK, data="".join(map("".join, zip(parts, [*texts, ""], strict=True))))]

    def _counts(self, node: Node) -> dict[str, Result]:
        """Return the results over which other nodes are mapped and that this node has, by those nodes."""
        counts = {}
        for user in self._nodes.all.values():
            if user.mapped_over is not None:
                producer, result = self._nodes.items(user, user.mapped_over)
                counts.update({user.name: result} if producer is node else {})
        return counts

    def _step(self, node: Node, template: Container) -> None:
        values, of_tasks = self._values[node.name]
        files_of = self._artifacts.get(node.tasks[0].name, pod_files.Artifacts())
        repeated: dict[str, Any] = {}
        if node.is_loop:
            repeated["with_items"] = of_tasks
        elif node.mapped_over is not None:
            producer, _ = self._nodes.items(node, node.mapped_over)
            repeated["with_param"] = f"{{{{tasks.{producer.name}.outputs.parameters.items-of-{node.name}}}}}"
        Step(
            name=node.name,
            template=template,
            depends=" && ".join(node.upstream) or None,
            arguments=[
                *(
                    Parameter(name=name, value=f"{{{{tasks.{up}.outputs.parameters.result}}}}")
                    for up, name in values.inputs.items()
                ),
                *([Parameter(name="item", value="{{item}}")] if repeated else []),
                *(
                    Artifact(name=program.name, from_=f"{{{{inputs.artifacts.{program.name}}}}}")
                    for program in self._own_programs(node)
                ),
                *(
                    Artifact(
                        name=each.name,
                        from_=f"{{{{tasks.{self._node_name(each.producer)}.outputs.artifacts.{each.product}}}}}",
                    )
                    for each in files_of.inputs
                ),
            ]
            or None,
            **repeated,
        )

    def _node_name(self, task: str) -> str:
        return next(node.name for node in self._nodes.all.values() if any(each.name == task for each in node.tasks))


def _volumes(volume: pod_files.Volume | None) -> list[argo.Volume] | None:
    if volume is None:
        return None
    claim = argo.PersistentVolumeClaimVolumeSource(claim_name=volume.claim)
    return [argo.Volume(name=_VOLUME, persistent_volume_claim=claim)]


def _is_repeated(node: Node) -> bool:
    return node.is_loop or node.mapped_over is not None


def _output(name: str, file: str) -> Parameter:
    return Parameter(name=name, value_from=argo.ValueFrom(path=file))


def _items_file(user: str) -> str:
    return f"/tmp/sewer-items-of-{user}.json"  # noqa: S108 - in a pod


def _variable(argument: str) -> str:
    return f"SEWER_ARGUMENT_{argument}"


def _json_value(name: str, value: Any) -> str:
    try:
        return to_json_without_names(value)
    except (TypeError, ValueError) as error:
        raise SewerError(
            f"argument {name!r} must be JSON to be a parameter of Argo: {error}; pass it with --arg"
        ) from None
