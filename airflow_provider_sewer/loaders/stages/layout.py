"""Layout of a file with stages: one workflow in the short or the long form, or several workflows.

In the short form, each key of the file is a stage. In the long form, the key ``stages`` is a mapping of stages, next to
settings for all of them. A file with several workflows has a key ``workflows`` with mappings that have such ``stages``.
So a stage of the short form is never misread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import yaml

from airflow_provider_sewer.core.errors import InvalidTask, unknown_name
from airflow_provider_sewer.core.source import SourceLine
from airflow_provider_sewer.core.task_fields import FIELDS
from airflow_provider_sewer.core.workflow import DEFAULT_WORKFLOW
from airflow_provider_sewer.loaders.stages.yaml_file import is_null

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_sewer.loaders.stages.yaml_file import Entry, YamlFile

#: Top-level fields of the long form, and of a file with several workflows.
TOP_FIELDS = ("name", "doc", "jobs", "defaults", "stages")
TOP_FIELDS_OF_SEVERAL = ("jobs", "defaults", "workflows")

#: Fields of each of several workflows: those of a file with one workflow, except the name, which is the key.
WORKFLOW_FIELDS = tuple(field for field in TOP_FIELDS if field != "name")

#: Fields that map a stage; each is also a method of a task.
LOOPS = ("map", "map_product")

#: Fields of a stage: those of a task, except the name, which is the key; and the fields that map it.
STAGE_FIELDS = (*(field for field in FIELDS if field != "name"), *LOOPS)

#: Fields of ``defaults``: where, when and how stages run, but not the code that they run.
DEFAULT_FIELDS = (
    "use_underscores", "python", "env", "inherit_env", "workdir", "run_when", "compare", "stale_with", "resources",
    "operator_kwargs", "run_on", "slurm", "retry_with",
)  # fmt: skip


class Layout(NamedTuple):
    """Layout of one workflow.

    :param name: name of the workflow.
    :param source: position of the workflow.
    :param stages: entries of the stages by name.
    :param doc: description of the workflow.
    :param functions_module: node of the jobs module, if set.
    :param defaults: defaults of the file, then of the workflow.
    """

    name: str
    source: SourceLine
    stages: Mapping[str, Entry]
    doc: str = ""
    functions_module: yaml.Node | None = None
    defaults: tuple[Mapping[str, Entry], ...] = ()


def layouts(file: YamlFile) -> dict[str, Layout]:
    """Return the layout of each workflow of a file by its name.

    :raises SewerError: when a key or value is not allowed there; with line and column.
    """
    top = file.entries(file.root, "the file")
    source = SourceLine(file.path, 0)
    if _holds_mapping(top, "stages"):
        if "workflows" in top:
            message = "'workflows' is not allowed next to 'stages'; give each workflow its own stages"
            raise file.error_at(top["workflows"].key, message, InvalidTask)
        reject_unknown_keys(file, top, TOP_FIELDS, "field of the file")
        name = file.text(top["name"].value, "name") if is_set(top, "name") else DEFAULT_WORKFLOW
        return {name: _long(file, top, Layout(name, source, {}))}
    if _has_several(file, top):
        return _several(file, top)
    return {DEFAULT_WORKFLOW: Layout(DEFAULT_WORKFLOW, source, _some(file, file.root, "the file has"))}


def reject_unknown_keys(file: YamlFile, entries: Mapping[str, Entry], known: tuple[str, ...], label: str) -> None:
    """Reject unknown keys of a mapping.

    :param label: name of the keys in messages.
    :raises InvalidTask: for the first unknown key.
    """
    for name, entry in entries.items():
        if name not in known:
            raise file.error_at(entry.key, unknown_name(label, name, known), InvalidTask)


def is_set(entries: Mapping[str, Entry], name: str) -> bool:
    """Return whether a mapping has a value of this name that is not ``null``."""
    return name in entries and not is_null(entries[name].value)


def _several(file: YamlFile, top: Mapping[str, Entry]) -> dict[str, Layout]:
    reject_unknown_keys(file, top, TOP_FIELDS_OF_SEVERAL, "field of the file")
    common = Layout("", SourceLine(file.path, 0), {}, "", *_common_fields(file, top))
    found = {}
    for name, entry in file.entries(top["workflows"].value, "workflows").items():
        own = file.entries(entry.value, f"workflow {name!r}")
        reject_unknown_keys(file, own, WORKFLOW_FIELDS, "field of a workflow")
        if "stages" not in own:
            raise file.error_at(entry.key, f"workflow {name!r} has no stages; add some", InvalidTask)
        found[name] = _long(file, own, common._replace(name=name, source=file.at(entry.key)))
    return found


def _long(file: YamlFile, entries: Mapping[str, Entry], common: Layout) -> Layout:
    """Return the layout of a workflow in the long form.

    :param common: its name and position, and the file's settings for all workflows.
    """
    jobs, defaults = _common_fields(file, entries)
    return common._replace(
        stages=_some(file, entries["stages"].value, "there are"),
        doc=file.text(entries["doc"].value, "doc") if is_set(entries, "doc") else "",
        functions_module=jobs or common.functions_module,
        defaults=(*common.defaults, *defaults),
    )


def _common_fields(
    file: YamlFile, entries: Mapping[str, Entry]
) -> tuple[yaml.Node | None, tuple[Mapping[str, Entry], ...]]:
    """Return the node of the jobs module, and the defaults."""
    jobs = entries["jobs"].value if is_set(entries, "jobs") else None
    if not is_set(entries, "defaults"):
        return jobs, ()
    defaults = file.entries(entries["defaults"].value, "defaults")
    reject_unknown_keys(file, defaults, DEFAULT_FIELDS, "field in defaults")
    return jobs, (defaults,)


def _some(file: YamlFile, node: yaml.Node, subject: str) -> Mapping[str, Entry]:
    stages = file.entries(node, "stages")
    if not stages:
        raise file.error_at(node, f"{subject} no stages; add at least one, e.g. 'Lint: []'")
    return stages


def _has_several(file: YamlFile, top: Mapping[str, Entry]) -> bool:
    if not _holds_mapping(top, "workflows"):
        return False
    values = [entry.value for entry in file.entries(top["workflows"].value, "workflows").values()]
    return any(isinstance(each, yaml.MappingNode) and "stages" in file.entries(each, "a workflow") for each in values)


def _holds_mapping(entries: Mapping[str, Entry], name: str) -> bool:
    return name in entries and isinstance(entries[name].value, yaml.MappingNode)
