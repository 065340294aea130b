"""Placeholders in parameters: ignored values, and results of other tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_sewer import Dependency, Ignored, Task
from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.placeholders import deep_copy, markers, replace_placeholders

GENERATE = Task("generate", "m")


def test_result_resolve_follows_keys_and_positions() -> None:
    """As deep as one likes."""
    part = GENERATE.result["runs"][-1]["seed"]

    assert part.resolve({"runs": [{"seed": 1}, {"seed": 17}]}) == 17
    assert repr(part) == "generate.result['runs'][-1]['seed']"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": 1}, "there is no generate.result['seed']: the object has the keys 'a'"),
        ({}, "there is no generate.result['seed']: the object has the keys none"),
        ([1], "there is no generate.result['seed']: the list has 1 items"),
        ("text", "there is no generate.result['seed']: it is 'text', which has no parts"),
        (None, "the task has no result; have the module write JSON to the file that $SEWER_RESULT_FILE names"),
    ],
)
def test_result_resolve_names_missing_part(value, expected) -> None:
    """The message names the part that it reached."""
    with pytest.raises(InvalidTask) as caught:
        GENERATE.result["seed"].resolve(value)
    assert expected in str(caught.value)


def test_result_resolve_rejects_index_into_text() -> None:
    """A module whose result is a line of text has no list to take the first of."""
    with pytest.raises(InvalidTask, match="which has no parts"):
        GENERATE.result[0].resolve("17, 18")


@pytest.mark.parametrize(
    "use",
    [
        lambda result: f"seed-{result['seed']}",
        lambda result: "seed-{}".format(result["seed"]),
        lambda result: 1 if result["ok"] else 2,
        list,
        lambda result: int(result["seed"]),
        lambda result: result["seed"] + 1,
    ],
)
def test_result_rejects_use_before_run(use) -> None:
    """A use that would silently take its name for its value is an error."""
    with pytest.raises(TypeError):
        use(GENERATE.result)


def test_result_getitem_rejects_other_types() -> None:
    """A slice or a truth value is neither."""
    for key in (True, 1.5, slice(1), None):
        with pytest.raises(InvalidTask, match="select a part by a key or a position"):
            GENERATE.result[key]


def test_markers_finds_nested_markers() -> None:
    """In lists, in mappings, in ignored values."""
    value = {"a": [Dependency("x"), {"b": Ignored([GENERATE.result])}]}

    assert [type(marker).__name__ for marker in markers(value)] == ["Dependency", "Ignored", "Result"]
    assert replace_placeholders(value, lambda _: "!") == {"a": ["!", {"b": ["!"]}]}


def test_ignored_values_are_equal() -> None:
    """They are passed on, and do not count."""
    one, two = (Task("t", "m", {"n": 1, "threads": Ignored(threads)}) for threads in (1, 8))

    assert two.arguments() == ["--n", "1", "--threads", "8"]
    assert one.signature() == two.signature()
    assert one.is_same(two)


def test_deep_copy_is_independent_of_original():
    """Containers are copied at every depth; their other values are kept as they are."""
    path = Path("x")
    value = {"list": [1, {"deep": [path]}], "tuple": (1,)}

    copy = deep_copy(value)
    value["list"][1]["deep"].append("later")

    assert copy == {"list": [1, {"deep": [path]}], "tuple": [1]}
    assert copy["list"][1]["deep"][0] is path


def test_deep_copy_keeps_markers():
    """Also the ignored ones, with a copy of their values."""
    values = [1]
    ignored, path = deep_copy([Ignored(values), Dependency("x")])
    values.append(2)
    assert (ignored.value, path) == ([1], Dependency("x"))
