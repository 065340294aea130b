"""What stands where in a file with stages: one workflow in the short or in the long form, or several.

In the short form, each key of the file is a stage. A file whose key ``stages`` holds a mapping has the long form: the
stages stand in there, and beside them what holds for all. A file whose key ``workflows`` holds mappings with such
``stages`` has several workflows. So no stage of the short form is ever taken for something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import yaml

from airflow_provider_sewer.core.errors import InvalidTask, unknown_name
from airflow_provider_sewer.core.source import SourceLine
from airflow_provider_sewer.core.task import FIELDS
from airflow_provider_sewer.core.workflow import DEFAULT_WORKFLOW
from airflow_provider_sewer.loaders.stages.yaml_file import is_null

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_sewer.loaders.stages.yaml_file import Entry, YamlFile

#: What can stand at the top of the long form, and of a file with several workflows.
TOP_FIELDS = ("name", "doc", "jobs", "defaults", "stages")
TOP_FIELDS_OF_SEVERAL = ("jobs", "defaults", "workflows")

#: What each of several workflows can say: all that a file with one can, but for the name, which is its key.
WORKFLOW_FIELDS = tuple(field for field in TOP_FIELDS if field != "name")

#: How a stage is mapped: the fields that are methods of a task.
LOOPS = ("map", "map_product")

#: What a stage can say: all that a task can, but for its name, which is its key; and over what it is mapped.
STAGE_FIELDS = (*(field for field in FIELDS if field != "name"), *LOOPS)

#: What can be said for all stages: where, when and how they run, not what.
DEFAULT_FIELDS = (
    "use_underscores", "python", "env", "inherit_env", "workdir", "run_when", "compare", "stale_with", "resources",
    "operator_kwargs", "run_on", "slurm",
)  # fmt: skip


class Layout(NamedTuple):
    """What stands where of one workflow.

    :param name: the workflow's name.
    :param source: where it begins.
    :param stages: the stages by name.
    :param doc: what it is for.
    :param jobs: where the jobs module is named, if it is.
    :param defaults: what holds for all stages: first that of the file, then its own.
    """

    name: str
    source: SourceLine
    stages: Mapping[str, Entry]
    doc: str = ""
    functions_module: yaml.Node | None = None
    defaults: tuple[Mapping[str, Entry], ...] = ()


def layouts(file: YamlFile) -> dict[str, Layout]:
    """Return what stands where of each workflow of a file, by its name.

    :raises SewerError: for what cannot stand there; with line and column.
    """
    top = file.entries(file.root, "the file")
    whole = SourceLine(file.path, 0)
    if _holds_mapping(top, "stages"):
        if "workflows" in top:
            said = "beside stages there are no workflows; give each workflow stages of its own"
            raise file.wrong(top["workflows"].key, said, InvalidTask)
        refuse_unknown(file, top, TOP_FIELDS, "field of the file")
        name = file.text(top["name"].value, "name") if is_set(top, "name") else DEFAULT_WORKFLOW
        return {name: _long(file, top, Layout(name, whole, {}))}
    if _has_several(file, top):
        return _several(file, top)
    return {DEFAULT_WORKFLOW: Layout(DEFAULT_WORKFLOW, whole, _some(file, file.root, "the file has"))}


def refuse_unknown(file: YamlFile, entries: Mapping[str, Entry], known: tuple[str, ...], what: str) -> None:
    """Make sure that a mapping has no other keys than these.

    :param what: what the keys are, for the message.
    :raises InvalidTask: naming the first one that is unknown.
    """
    for name, entry in entries.items():
        if name not in known:
            raise file.wrong(entry.key, unknown_name(what, name, known), InvalidTask)


def is_set(entries: Mapping[str, Entry], name: str) -> bool:
    """Tell whether a mapping says something of this; ``null`` says nothing."""
    return name in entries and not is_null(entries[name].value)


def _several(file: YamlFile, top: Mapping[str, Entry]) -> dict[str, Layout]:
    refuse_unknown(file, top, TOP_FIELDS_OF_SEVERAL, "field of the file")
    around = Layout("", SourceLine(file.path, 0), {}, "", *_common_fields(file, top))
    found = {}
    for name, entry in file.entries(top["workflows"].value, "workflows").items():
        own = file.entries(entry.value, f"workflow {name!r}")
        refuse_unknown(file, own, WORKFLOW_FIELDS, "field of a workflow")
        if "stages" not in own:
            raise file.wrong(entry.key, f"workflow {name!r} has no stages; give it some", InvalidTask)
        found[name] = _long(file, own, around._replace(name=name, source=file.at(entry.key)))
    return found


def _long(file: YamlFile, entries: Mapping[str, Entry], around: Layout) -> Layout:
    """Return the layout of a workflow in the long form.

    :param around: its name and place, and what the file says for all workflows.
    """
    jobs, defaults = _common_fields(file, entries)
    return around._replace(
        stages=_some(file, entries["stages"].value, "there are"),
        doc=file.text(entries["doc"].value, "doc") if is_set(entries, "doc") else "",
        functions_module=jobs or around.functions_module,
        defaults=(*around.defaults, *defaults),
    )


def _common_fields(
    file: YamlFile, entries: Mapping[str, Entry]
) -> tuple[yaml.Node | None, tuple[Mapping[str, Entry], ...]]:
    """Return where a jobs module is named, and defaults."""
    jobs = entries["jobs"].value if is_set(entries, "jobs") else None
    if not is_set(entries, "defaults"):
        return jobs, ()
    defaults = file.entries(entries["defaults"].value, "defaults")
    refuse_unknown(file, defaults, DEFAULT_FIELDS, "field in defaults")
    return jobs, (defaults,)


def _some(file: YamlFile, node: yaml.Node, there: str) -> Mapping[str, Entry]:
    stages = file.entries(node, "stages")
    if not stages:
        raise file.wrong(node, f"{there} no stages; write at least one, such as 'Lint: []'")
    return stages


def _has_several(file: YamlFile, top: Mapping[str, Entry]) -> bool:
    if not _holds_mapping(top, "workflows"):
        return False
    values = [entry.value for entry in file.entries(top["workflows"].value, "workflows").values()]
    return any(isinstance(each, yaml.MappingNode) and "stages" in file.entries(each, "a workflow") for each in values)


def _holds_mapping(entries: Mapping[str, Entry], name: str) -> bool:
    return name in entries and isinstance(entries[name].value, yaml.MappingNode)
