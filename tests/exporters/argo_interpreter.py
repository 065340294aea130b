"""Interpreter of Argo manifests: it runs the DAG of a manifest with a process on this machine for each pod.

It covers the parts of Argo that the exporter uses, by the rules of Argo's documentation and its ``util/template``:
names in double braces are replaced in the JSON of a template, values are quoted into it, and an unknown name is an
error. Folders of a pod are folders below a temporary one; the volume is shared.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from hera.workflows import models as argo

_NAME = re.compile(r"\{\{(.*?)\}\}")


class PodFailed(Exception):
    """A pod has exited with an error."""


def check(manifest: dict[str, Any]) -> None:
    """Check the structure of a manifest: keys, templates, tasks, parameters and artifacts.

    :raises AssertionError: naming the fault.
    """
    model = argo.Workflow.model_validate(manifest)
    known = json.loads(model.model_dump_json(by_alias=True, exclude_none=True))
    assert_same_keys(manifest, known, "manifest")
    spec = manifest["spec"]
    templates = {template["name"]: template for template in spec["templates"]}
    dag = templates[spec["entrypoint"]]
    assert names(spec.get("arguments", {}).get("artifacts")) == names(dag.get("inputs", {}).get("artifacts"))
    tasks = {task["name"]: task for task in dag["dag"]["tasks"]}
    for name, task in tasks.items():
        assert task["template"] in templates, f"{name}: unknown template {task['template']}"
        template = templates[task["template"]]
        assert set(re.split(r" && ", task.get("depends", ""))) - {""} <= set(tasks), f"{name}: depends"
        given, wanted = task.get("arguments", {}), template.get("inputs", {})
        assert names(given.get("parameters")) == names(wanted.get("parameters")), f"{name}: parameters"
        located = [each for each in wanted.get("artifacts", []) if "raw" not in each]
        assert names(given.get("artifacts")) == names(located), f"{name}: artifacts"
        for tag in _NAME.findall(json.dumps(task)):
            check_tag(tag, task, tasks, templates, dag)
        for tag in _NAME.findall(json.dumps(template)):
            kind, _, parameter = tag.rpartition(".")
            known_names = names(wanted.get("parameters")) if kind == "inputs.parameters" else set()
            known_names |= (
                names(spec.get("arguments", {}).get("parameters")) if kind == "workflow.parameters" else set()
            )
            assert parameter in known_names, f"{name}: unknown name {tag}"


def check_tag(tag: str, task: dict[str, Any], tasks: Any, templates: Any, dag: dict[str, Any]) -> None:
    """Check a name in the arguments of a task."""
    if tag == "item":
        assert "withItems" in task or "withParam" in task, f"{task['name']}: item without a loop"
    elif tag.startswith("inputs.artifacts."):
        assert tag.rpartition(".")[2] in names(dag["inputs"]["artifacts"]), f"{task['name']}: {tag}"
    else:
        _, up, _, kind, name = tag.split(".", 4)
        assert up in ancestors(task, tasks), f"{task['name']}: {tag} of a task that is not upstream"
        outputs = templates[tasks[up]["template"]]["outputs"]
        assert name in names(outputs.get(kind)), f"{task['name']}: unknown output {tag}"


def ancestors(task: dict[str, Any], tasks: Any) -> set[str]:
    """Return the names of all tasks before a task."""
    before = set(task["depends"].split(" && ")) if "depends" in task else set()
    return before.union(*(ancestors(tasks[name], tasks) for name in before))


def assert_same_keys(given: Any, known: Any, where: str) -> None:
    """Check that a model has taken every key: it ignores a misspelt one."""
    if isinstance(given, dict) and isinstance(known, dict):
        assert set(given) <= set(known), f"{where}: unknown keys {set(given) - set(known)}"
        for key, value in given.items():
            assert_same_keys(value, known[key], f"{where}.{key}")
    elif isinstance(given, list) and isinstance(known, list):
        for index, (one, other) in enumerate(zip(given, known, strict=True)):
            assert_same_keys(one, other, f"{where}[{index}]")


def names(items: list[dict[str, Any]] | None) -> set[str]:
    """Return the names of parameters or artifacts."""
    return {item["name"] for item in items or ()}


class Interpreter:
    """Run of a manifest.

    :param manifest: the manifest, as data.
    :param folder: folder for the folders of pods, and for the volume.
    :param modules: folder whose files each pod has in its working directory, as an image would.
    :param parameters: values of the workflow's parameters.
    :param secrets: values of the Kubernetes Secret.
    """

    def __init__(
        self,
        manifest: dict[str, Any],
        folder: Path,
        modules: Path,
        parameters: dict[str, str] | None = None,
        secrets: dict[str, str] | None = None,
    ) -> None:
        self.spec = manifest["spec"]
        self.folder = folder
        self.modules = modules
        self.secrets = secrets or {}
        given = self.spec.get("arguments", {}).get("parameters", [])
        self.parameters = {each["name"]: each.get("value") for each in given} | (parameters or {})
        self.outputs: dict[str, Any] = {}
        self.order: list[str] = []
        self.output: dict[str, str] = {}

    def run(self) -> None:
        """Run all tasks in their order.

        :raises PodFailed: when a pod exits with an error.
        """
        templates = {template["name"]: template for template in self.spec["templates"]}
        tasks = {task["name"]: task for task in templates[self.spec["entrypoint"]]["dag"]["tasks"]}
        upstream = {
            name: re.split(" && ", task["depends"]) if "depends" in task else [] for name, task in tasks.items()
        }
        for name in TopologicalSorter(upstream).static_order():
            self.order.append(name)
            self.outputs[name] = self.run_task(tasks[name], templates[tasks[name]["template"]])

    def run_task(self, task: dict[str, Any], template: dict[str, Any]) -> dict[str, Any]:
        """Run the pods of a task and return its outputs."""
        if "withItems" not in task and "withParam" not in task:
            return self.run_pod(task["name"], task, template, {})
        items = task.get("withItems")
        if items is None:
            items = json.loads(self.replaced(task["withParam"], self.scope()))
        pods = [
            self.run_pod(f"{task['name']}({index})", task, template, {"item": json.dumps(item)})
            for index, item in enumerate(items)
        ]
        results = {name: [pod["parameters"][name] for pod in pods] for pod in pods for name in pod["parameters"]}
        return {"parameters": {name: json.dumps(joined(texts)) for name, texts in results.items()}, "artifacts": {}}

    def run_pod(
        self, name: str, task: dict[str, Any], template: dict[str, Any], item: dict[str, str]
    ) -> dict[str, Any]:
        """Run one pod and return its outputs."""
        arguments = task.get("arguments", {})
        scope = self.scope() | item
        inputs = {
            f"inputs.parameters.{each['name']}": self.replaced(each["value"], scope)
            for each in arguments.get("parameters", [])
        }
        text = self.replaced(json.dumps(template), inputs | self.workflow_scope(), is_json=True)
        pod = self.folder / re.sub(r"\W", "-", name)
        pod.mkdir()
        filled = json.loads(self.moved(text, pod))
        container = filled["container"]
        workdir = Path(container["workingDir"])
        workdir.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.modules, workdir, dirs_exist_ok=True)
        self.put_artifacts(filled, arguments.get("artifacts", []), pod)
        (pod / "tmp").mkdir()
        command = [sys.executable, *container["command"][1:], *container["args"]]
        env = {"PATH": os.environ["PATH"], "TMPDIR": str(pod), "HOSTNAME": pod.name, **self.variables(container)}
        done = subprocess.run(command, cwd=workdir, env=env, capture_output=True, text=True, check=False)
        self.output[name] = done.stdout
        if done.returncode:
            raise PodFailed(f"{name}: exit code {done.returncode}: {done.stderr[-800:]}")
        outputs = filled.get("outputs", {})
        return {
            "parameters": {
                each["name"]: Path(each["valueFrom"]["path"]).read_text().rstrip("\n")
                for each in outputs.get("parameters", [])
            },
            "artifacts": {each["name"]: Path(each["path"]) for each in outputs.get("artifacts", [])},
        }

    def variables(self, container: dict[str, Any]) -> dict[str, str]:
        """Return the variables of a container."""
        return {
            each["name"]: each["value"] if "value" in each else self.secrets[each["valueFrom"]["secretKeyRef"]["key"]]
            for each in container.get("env", [])
        }

    def put_artifacts(self, template: dict[str, Any], arguments: list[dict[str, Any]], pod: Path) -> None:
        """Write the input artifacts of a pod."""
        sources = {each["name"]: _NAME.findall(each["from"])[0] for each in arguments}
        programs = {each["name"]: each["raw"]["data"] for each in self.spec.get("arguments", {}).get("artifacts", [])}
        for each in template.get("inputs", {}).get("artifacts", []):
            path = Path(each["path"])
            path.parent.mkdir(parents=True, exist_ok=True)
            if "raw" in each:
                path.write_text(each["raw"]["data"])
            elif (source := sources[each["name"]]).startswith("inputs.artifacts."):
                path.write_text(programs[source.rpartition(".")[2]])
            else:
                _, up, _, _, name = source.split(".", 4)
                produced = self.outputs[up]["artifacts"][name]
                (shutil.copytree if produced.is_dir() else shutil.copy)(produced, path)

    def moved(self, text: str, pod: Path) -> str:
        """Return the JSON of a template with the folders of its pod; the volume is shared."""
        work = self.folder / "volume" if "volumes" in self.spec else pod / "work"
        places = {"/workspace": str(work), "/sewer/": f"{pod}/sewer/", "/tmp/": f"{pod}/tmp/"}
        return re.sub(f'(?<=")({"|".join(places)})', lambda found: places[found[1]], text)

    def scope(self) -> dict[str, str]:
        """Return the names that the arguments of a task can use."""
        found = {
            f"tasks.{task}.outputs.parameters.{name}": text
            for task, outputs in self.outputs.items()
            for name, text in outputs["parameters"].items()
        }
        return found | self.workflow_scope()

    def workflow_scope(self) -> dict[str, str]:
        """Return the parameters of the workflow by their names in a manifest."""
        return {f"workflow.parameters.{name}": value for name, value in self.parameters.items()}

    def replaced(self, text: str, scope: dict[str, str], *, is_json: bool = False) -> str:
        """Return a text with its names replaced; in JSON, the values are quoted.

        :raises KeyError: for an unknown name.
        """
        return _NAME.sub(lambda found: json.dumps(scope[found[1]])[1:-1] if is_json else scope[found[1]], text)


def joined(texts: list[str]) -> list[Any]:
    """Return the outputs of a loop as Argo joins them: values if all are lists or objects, else texts."""
    values = []
    for text in texts:
        try:
            values.append(json.loads(text))
        except ValueError:
            return list(texts)
    return values if values and all(isinstance(value, (list, dict)) for value in values) else list(texts)
