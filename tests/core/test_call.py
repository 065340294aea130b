"""Call of a function: its name, its arguments in JSON, and the lines that call it."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_sewer import Task
from airflow_provider_sewer.core.call import CALLER, function_call, module_call
from airflow_provider_sewer.core.errors import InvalidTask


def test_function_call_passes_name_and_json():
    """The interpreter needs nothing but its standard library: the lines that call come along."""
    call = function_call("pkg.mod:func", {"n": 3, "path": Path("a/b"), "text": "é"})

    assert call.argv == ("-c", CALLER, "pkg.mod:func", '{"n": 3, "path": "a/b", "text": "é"}')
    assert (call.target, call.module, call.is_function) == ("pkg.mod:func", "pkg.mod", True)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.dictionaries(st.text(min_size=1, max_size=5).filter(str.isidentifier), _JSON, max_size=4))
def test_function_call_passes_any_json_value(kwargs):
    """With its type: the function gets the given value, through a text that a process can be given."""
    *_, text = Task("t", function="m:f", kwargs=kwargs).call().argv

    assert "\0" not in text
    assert repr(json.loads(text)) == repr(kwargs)


def test_call_reading_passes_kwargs_in_file():
    """Then they stand on no command line, and may be of any length; a module's arguments stay where they are."""
    call = function_call("pkg.mod:func", {"text": "ü" * 1_000_000})

    assert call.reading("/a/file").argv == ("-c", CALLER, "pkg.mod:func", "/a/file")
    assert call.kwargs == call.argv[-1] == f'{{"text": "{"ü" * 1_000_000}"}}'
    assert module_call("pkg.mod", ["--n", "1"]).reading("/a/file").argv == ("-m", "pkg.mod", "--n", "1")
    assert module_call("pkg.mod", ["--n", "1"]).kwargs is None


def test_caller_ignores_user_files_named_like_standard_modules():
    """The working directory comes first where Python looks; os and sys alone are loaded before it counts."""
    run = [node for node in ast.parse(CALLER).body if not isinstance(node, ast.If)]

    imported = [name.name for node in run if isinstance(node, ast.Import) for name in node.names]
    imported_from = [node.module for node in run if isinstance(node, ast.ImportFrom)]
    assert imported == ["os", "sys"]
    assert imported_from == ["__future__"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"function": "pkg.mod"}, "function must be a name such as 'package.module:function', got 'pkg.mod'"),
        ({"function": "pkg/mod.py:f"}, "function must be a name such as 'package.module:function', got 'pkg/mod.py:f'"),
        ({"function": "pkg:f:g"}, "function must be a name such as 'package.module:function', got 'pkg:f:g'"),
        ({"function": print}, "; decorate the function with @task instead"),
        ({"function": "m:f", "module": "m"}, "a task must have either a module or a function, got both"),
        ({}, "a task must have either a module or a function, got neither"),
        ({"function": "m:f", "args": ["x"]}, "parameters_and_flags and args require a module"),
        ({"module": "m", "kwargs": {"n": 1}}, "kwargs require a function"),
        ({"function": "m:f", "kwargs": {"a b": 1}}, "kwargs: 'a b' is not a valid name of an argument"),
        ({"function": "m:f", "kwargs": {"n": float("nan")}}, "kwargs 'n': arguments are passed as JSON, and "),
        ({"function": "m:f", "kwargs": {"n": [{1, 2}]}}, "kwargs 'n': arguments are passed as JSON, and a value of "),
        (
            {"function": "m:f", "kwargs": {"n": "\ud800"}},
            "kwargs: their text contains '\\ud800', which cannot be",
        ),
    ],
)
def test_task_rejects_invalid_function_and_kwargs(fields, expected):
    """Before anything runs, and naming the field."""
    with pytest.raises(InvalidTask) as caught:
        Task("train", **fields)

    place, _, message = str(caught.value).partition(": task 'train': ")
    assert place.startswith(__file__)
    assert expected in message
