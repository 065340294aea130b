"""The JSON Schema of stages: editors accept and reject the same files as the reader."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml

from airflow_provider_sewer import Dependency, External, Product, SewerError, load_workflow
from airflow_provider_sewer.core.slurm_parameters import RESOURCES
from airflow_provider_sewer.core.task_fields import FIELDS
from airflow_provider_sewer.loaders.stages.layout import (
    DEFAULT_FIELDS,
    LOOPS,
    STAGE_FIELDS,
    TOP_FIELDS,
    TOP_FIELDS_OF_SEVERAL,
    WORKFLOW_FIELDS,
)
from airflow_provider_sewer.loaders.stages.yaml_file import _Loader
from airflow_provider_sewer.loaders.workflow_files import schema_of_stages

from .stage_cases import EVERYTHING


class _AsEditorsSeeIt(_Loader):
    """Reads YAML 1.2, in which ``yes`` is text, and values with a tag as if they had none."""


_AsEditorsSeeIt.add_multi_constructor(
    "!",
    lambda loader, _, node: (
        loader.construct_mapping(node, deep=True) if isinstance(node, yaml.MappingNode) else str(node.value)
    ),
)


@pytest.fixture(scope="module")
def why_invalid():
    """Return a function that returns the schema's errors of a file."""
    schema = json.loads(schema_of_stages())
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)

    def why_invalid(text: str) -> str | None:
        error = jsonschema.exceptions.best_match(validator.iter_errors(yaml.load(text, _AsEditorsSeeIt)))
        return None if error is None else error.message

    return why_invalid


@pytest.mark.parametrize(
    "text",
    [
        EVERYTHING, "Lint: []\nTest:\n  - Lint", "Lint:\nTest: Lint", "stages: []", "a: {module: m, depends_on: b}\nb:",
        "a: {map: {n: [1, 2], m: !result b, o: !result {stage: b}}}\nb: []", "a: {map_product: {n: [1], m: [a]}}",
        "jobs: x\ndefaults: {env: {A: 1}}\nworkflows: {a: {doc: x, jobs: y, defaults: {}, stages: {b: []}}}",
        "workflows: [a]\na:", "stages: {Lint: []}\nname: 5\ndoc: 5",
        "stages: {Lint: []}\nname:\ndoc:\njobs:\ndefaults:",
        "Lint: {module: m, function: null, kwargs: {}}", "Lint: {module:, parameters_and_flags: {}, kwargs: {n: 1}}",
    ],
)  # fmt: skip
def test_stages_schema_accepts_valid_files(text, why_invalid):
    """Short, long, and with fields."""
    assert why_invalid(text) is None


REFUSED = (
    "- Lint", "{}", "Lint: {modul: m}", "Lint: {module: m, function: 'm:f'}", "stages: {Lint: []}\njob: jobs",
    "Lint: {run_when: sometimes}", "Lint: {resources: {gpu: 0}}", "Lint: [[Test]]",
    "stages: {Lint: []}\ndefaults: {module: m}", "Lint: {products: [{atomic: true}]}", "Lint: {map: [1]}",
    "Lint: {map: {}}", "Lint: {map: {n: []}}", "Lint: {map: {n: 5}}", "Lint: {map: {n: [1]}, map_product: {n: [1]}}",
    "workflows: {a: {stages: {Lint: []}, name: x}}", "workflows: {a: {stages: {Lint: []}}, b: {doc: x}}",
    "workflows: {a: {stages: {Lint: []}}}\nname: x", "Lint: {use_underscores: yes}",
    "Lint: {parameters_and_flags: {n: 1}}", "Lint: {args: [a]}", "Lint: {module: m, kwargs: {n: 1}}",
    "Lint: {products: ''}", "stages: {Lint: []}\njobs: ''", "Lint: {map: null}",
)  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_stages_schema_rejects_invalid_files(text, why_invalid, stages):
    """Editors underline it before a run."""
    assert why_invalid(text) is not None
    with pytest.raises(SewerError):
        load_workflow(stages(text), jobs="jobs")


VALUES = (
    "null",
    "7",
    "0",
    "-1",
    "1.5",
    "true",
    "yes",
    "x",
    "''",
    "[]",
    "[x]",
    "[7]",
    "{}",
    "{x: 1}",
    "'{{ ds }}'",
    "8G",
)


@pytest.mark.parametrize("field", [*(f"slurm: {{{name}: %s}}" for name in (*RESOURCES, "mem_gbs")), *(
    f"{name}: %s" for name in STAGE_FIELDS if name not in {"depends_on", "function", *LOOPS})])  # fmt: skip
def test_stages_schema_agrees_with_loader_on_values(field, why_invalid, stages):
    """The schema accepts the files that the reader accepts; ``null`` is an unset field."""
    beside = "" if "args" not in field and "parameters" not in field else "module: m, "
    for value in VALUES:
        text = f"Lint: {{{beside}{field % value}}}"
        try:
            load_workflow(stages(text), jobs="jobs")
            refused = None
        except SewerError as error:
            refused = str(error)
        assert (why_invalid(text) is None) is (refused is None), f"{text}: {why_invalid(text)} | {refused}"


def test_stages_schema_has_all_fields():
    """No field of a task is missing, nor one of the top level."""
    schema = json.loads(schema_of_stages())

    known = {name: set(part["properties"]) for name, part in schema["definitions"].items() if "properties" in part}
    assert known["fields"] == set(STAGE_FIELDS) == set(FIELDS) - {"name"} | set(LOOPS)
    assert known["slurm"] == set(RESOURCES)
    assert known["defaults"] == set(DEFAULT_FIELDS)
    assert known["workflow"] == set(WORKFLOW_FIELDS)
    assert set(schema["then"]["properties"]) == set(TOP_FIELDS)
    assert set(schema["else"]["then"]["properties"]) == set(TOP_FIELDS_OF_SEVERAL)
    options = set(vars(Product("a"))) | set(vars(External("a"))) | set(vars(Dependency("a"))) | {"ignored"}
    assert set(schema["definitions"]["path"]["anyOf"][1]["properties"]) == options
