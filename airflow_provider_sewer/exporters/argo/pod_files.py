"""Products and dependencies in Argo: on a volume that all pods share, or as artifacts."""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.paths import path_key
from airflow_provider_sewer.core.placeholders import RuntimeValue, parts_of

if TYPE_CHECKING:
    from airflow_provider_sewer.core.paths import PathMarker
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow

#: Folder in pods that stands for the folder of the workflow file.
MOUNT = "/workspace"


class Volume(NamedTuple):
    """Volume claim that all pods mount.

    :param claim: its name.
    :param path: where pods mount it.
    """

    claim: str
    path: str = MOUNT


class Artifact(NamedTuple):
    """File or folder that Argo passes from one task to others.

    :param name: its name among the artifacts of a task.
    :param path: absolute path in the pod.
    :param producer: for a dependency, the task that produces it.
    :param product: and the name there.
    """

    name: str
    path: str
    producer: str = ""
    product: str = ""


class Artifacts(NamedTuple):
    """Artifacts of one task."""

    outputs: tuple[Artifact, ...] = ()
    inputs: tuple[Artifact, ...] = ()


def pod_folder(task: Task, folder: str, mount: str) -> str:
    """Return the working directory of a task in its pod.

    :param folder: folder of the workflow file on this machine, which ``mount`` stands for.
    :raises InvalidTask: when it is a folder of this machine that the pod does not have.
    """
    workdir = task.settings.workdir
    if workdir is None:
        return mount
    inside = os.path.relpath(workdir, folder)
    if workdir.startswith("~"):
        raise InvalidTask(
            f"task {task.name!r}: workdir must not begin with ~ for Argo, got {workdir!r}", task.source, at=("workdir",)
        )
    return workdir if inside.startswith("..") else posixpath.normpath(posixpath.join(mount, inside))


def artifacts(workflow: Workflow, folder: str) -> dict[str, Artifacts]:
    """Return the artifacts of each task.

    :raises InvalidTask: when a dependency is no product of the workflow, or Argo cannot pass a path.
    """
    produced = {
        path_key(product.path, task.settings.workdir): (task, f"product-{index}")
        for task in workflow.tasks.values()
        for index, product in enumerate(task.products)
    }
    return {name: _of(task, folder, produced) for name, task in workflow.tasks.items()}


def _of(task: Task, folder: str, produced: dict[str, tuple[Task, str]]) -> Artifacts:
    inputs = []
    for index, dependency in enumerate(task.dependencies):
        producer, product = produced.get(path_key(dependency.path, task.settings.workdir), (None, ""))
        if producer is None:
            raise InvalidTask(
                f"task {task.name!r}: dependencies must be products of the workflow, got {dependency.path!r}; put the "
                "file on a volume and pass --volume-claim",
                task.source,
                at=("dependencies",),
            )
        inputs.append(Artifact(f"dependency-{index}", _path(task, dependency, folder), producer.name, product))
    outputs = [
        Artifact(f"product-{index}", _path(task, product, folder)) for index, product in enumerate(task.products)
    ]
    return Artifacts(tuple(outputs), tuple(inputs))


def _path(task: Task, marker: PathMarker, folder: str) -> str:
    path = posixpath.normpath(posixpath.join(pod_folder(task, folder, MOUNT), marker.path))
    return "".join(_part(task, each) for each in parts_of(path))


def _part(task: Task, part: str | RuntimeValue) -> str:
    if isinstance(part, str):
        return part
    if part.key_path:
        raise InvalidTask(
            f"task {task.name!r}: products must name whole arguments of the workflow for Argo, got {part!r}; pass "
            "--volume-claim",
            task.source,
            at=("products",),
        )
    return f"{{{{workflow.parameters.{part.stands_for}}}}}"


def mapped_product(task: Task) -> str | None:
    """Return a path of a task that is mapped over a result, which Argo cannot pass as an artifact."""
    mapped = task.mapped_task
    if mapped is None or mapped.is_known_beforehand:
        return None
    return next((marker.path for marker in (*task.products, *task.dependencies)), None)
