"""Fixtures of the exporters' tests."""

from __future__ import annotations

import json

import pytest

from airflow_provider_sewer.core.task import Task

GAPS = ("", "", " ", "\t", "\n", "\n    ", "\r\n", "\r", "/**/", '/* ] } , " // */', '// [ { : " /*\n', "/* ä\n * */")


@pytest.fixture(scope="session")
def strewn():
    """Write data as JSON with white space, comments and trailing commas wherever they may stand."""

    def write(data, random):
        def gap():
            return "".join(random.choices(GAPS, k=2))

        def written(value):
            if isinstance(value, dict):
                return (
                    "{"
                    + listed(f"{written(name)}{gap()}:{gap()}{written(inner)}" for name, inner in value.items())
                    + "}"
                )
            if isinstance(value, list):
                return "[" + listed(map(written, value)) + "]"
            return json.dumps(value, ensure_ascii=random.choice([True, False]))

        def listed(items):
            inside = ",".join(f"{gap()}{item}{gap()}" for item in items)
            return f"{inside},{gap()}" if inside and random.choice([True, False]) else inside or gap()

        return f"{gap()}{written(data)}{gap()}"

    return write


@pytest.fixture
def train():
    """Make a task with nothing but a module and parameters."""
    return Task("train", "digits.train", {"epochs": 3, "verbose": True})
