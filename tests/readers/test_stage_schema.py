"""The JSON Schema of stages: by it editors take and refuse what the reader takes and refuses."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml

from airflow_provider_sewer import Dependency, External, Product, SewerError, load_workflow
from airflow_provider_sewer.core.task import FIELDS
from airflow_provider_sewer.readers.files import SCHEMA
from airflow_provider_sewer.readers.stage_layout import (
    DEFAULT_FIELDS,
    LOOPS,
    STAGE_FIELDS,
    TOP_FIELDS,
    TOP_FIELDS_OF_SEVERAL,
    WORKFLOW_FIELDS,
)

from .stage_cases import EVERYTHING


class _AsEditorsSeeIt(yaml.SafeLoader):
    """Reads values with a tag as if they had none."""


_AsEditorsSeeIt.add_multi_constructor(
    "!",
    lambda loader, _, node: (
        loader.construct_mapping(node, deep=True) if isinstance(node, yaml.MappingNode) else str(node.value)
    ),
)
_AsEditorsSeeIt.add_constructor(
    "tag:yaml.org,2002:int", lambda _, node: int(node.value) if node.value.isdecimal() else node.value
)


@pytest.fixture(scope="module")
def why_invalid():
    """Return a function that says why editors do not like a file."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
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
        "workflows: [a]\na:",
    ],
)  # fmt: skip
def test_the_schema_takes_what_the_reader_takes(text, why_invalid):
    """Short, long, and with fields."""
    assert why_invalid(text) is None


@pytest.mark.parametrize(
    "text",
    ["- Lint", "{}", "Lint: {modul: m}", "Lint: {module: m, function: 'm:f'}", "stages: {Lint: []}\njob: jobs",
     "Lint: {run_when: sometimes}", "Lint: {resources: {gpu: 0}}", "Lint: [[Test]]",
     "stages: {Lint: []}\ndefaults: {module: m}", "Lint: {products: [{atomic: true}]}", "Lint: {tags: [two words]}",
     "Lint: {map: [1]}",
     "Lint: {map: {}}", "Lint: {map: {n: []}}", "Lint: {map: {n: 5}}", "Lint: {map: {n: [1]}, map_product: {n: [1]}}",
     "workflows: {a: {stages: {Lint: []}, name: x}}", "workflows: {a: {stages: {Lint: []}}, b: {doc: x}}",
     "workflows: {a: {stages: {Lint: []}}}\nname: x"],
)  # fmt: skip
def test_the_schema_refuses_what_the_reader_refuses(text, why_invalid, stages):
    """Editors underline it before anybody runs it."""
    assert why_invalid(text) is not None
    with pytest.raises(SewerError):
        load_workflow(stages(text), jobs="jobs")


def test_the_schema_has_all_fields():
    """None of a task's is forgotten, nor of what stands at the top."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))

    known = {name: set(part["properties"]) for name, part in schema["definitions"].items() if "properties" in part}
    assert known["fields"] == set(STAGE_FIELDS) == set(FIELDS) - {"name"} | set(LOOPS)
    assert known["defaults"] == set(DEFAULT_FIELDS)
    assert known["workflow"] == set(WORKFLOW_FIELDS)
    assert set(schema["then"]["properties"]) == set(TOP_FIELDS)
    assert set(schema["else"]["then"]["properties"]) == set(TOP_FIELDS_OF_SEVERAL)
    options = set(vars(Product("a"))) | set(vars(External("a"))) | set(vars(Dependency("a"))) | {"ignored"}
    assert set(schema["definitions"]["path"]["anyOf"][1]["properties"]) == options
