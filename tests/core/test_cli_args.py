"""A dictionary of parameters and flags becomes the arguments that a module reads back."""

from __future__ import annotations

import argparse
import contextlib
import enum
import io
import json
import math
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from types import MappingProxyType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_sewer import Task
from airflow_provider_sewer.core.cli_args import to_arguments
from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.secret_detection import looks_secret


def test_to_arguments_puts_flags_after_parameters():
    """Flags stand last, wherever they stand in the dictionary."""
    given_ = {"verbose": True, "name": "My momma", "quick": True, "count": 3}

    assert to_arguments(given_) == ["--name", "My momma", "--count", "3", "--verbose", "--quick"]


def test_to_arguments_puts_args_first():
    """A module with subcommands can be given one."""
    assert to_arguments({"epochs": 3}, args=["train", "-v", 7]) == ["train", "-v", "7", "--epochs", "3"]


def test_to_arguments_replaces_underscores_in_keys_only():
    """A value keeps its underscores."""
    assert to_arguments({"batch_size": "a_b"}) == ["--batch-size", "a_b"]


def test_use_underscores_keeps_underscores():
    """Modules that read ``--batch_size`` can be called too."""
    assert to_arguments({"batch_size": 5, "dry_run": True}, use_underscores=True) == ["--batch_size", "5", "--dry_run"]


@pytest.mark.parametrize("nothing", [False, None, [], ()])
def test_to_arguments_omits_false_none_and_empty_list(nothing):
    """A value that was not given is not on the command line."""
    assert to_arguments({"key": nothing}) == []


def test_to_arguments_passes_empty_text():
    """An empty text is given as one, and not left out."""
    assert to_arguments({"key": ""}) == ["--key", ""]


def test_to_arguments_repeats_option_for_list():
    """A list is not written as its ``repr``."""
    assert to_arguments({"in": ["a", 2, Path("c")]}) == ["--in", "a", "--in", "2", "--in", "c"]


class Color(enum.Enum):
    """An enumeration with a text form of its own."""

    RED = 1

    def __str__(self) -> str:
        return "red"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1, "1"),
        (-5, "-5"),
        (0.1, "0.1"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (Path("/a b"), "/a b"),
        (PurePosixPath("c"), "c"),
        (Decimal("1.10"), "1.10"),
        (Fraction(1, 3), "1/3"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "2026-01-02 03:04:00+00:00"),
        (timedelta(minutes=90), "1:30:00"),
        (Color.RED, "red"),
        ("ümläut 🚰", "ümläut 🚰"),
        ("two\nlines", "two\nlines"),
        ("\udcff", "\udcff"),
    ],
)
def test_to_arguments_passes_plain_text_forms(value, text):
    """Numbers, paths, dates and the like are written as ``str`` writes them."""
    assert to_arguments({"key": value}) == ["--key", text]


@pytest.mark.parametrize("mapping", [{"b": [1, None, True], "a": "ü"}, MappingProxyType({"a": 1}), {}])
def test_to_arguments_writes_mapping_as_json(mapping):
    """A mapping of any class is read back with ``json.loads``."""
    (option, text) = to_arguments({"config": mapping})

    assert option == "--config"
    assert json.loads(text) == dict(mapping)


def test_to_arguments_writes_mapping_in_list_as_json():
    """Each item of a list is written by the same rules."""
    assert to_arguments({"step": [{"a": 1}, "b"]}) == ["--step", '{"a": 1}', "--step", "b"]


class Stubborn:
    """Something that fails when its text is asked for."""

    def __str__(self) -> str:
        raise RuntimeError("no text today")


_CIRCLE: dict[str, object] = {}
_CIRCLE["again"] = _CIRCLE


@pytest.mark.parametrize(
    "value",
    [
        b"bytes",
        bytearray(b"bytes"),
        {1, 2},
        frozenset({1}),
        range(3),
        (number for number in (1, 2)),
        iter([1]),
        object(),
        SimpleNamespace(a=1),
        int,
        len,
        math,
        1j,
        ...,
        Task("another", "a.task"),
        [[1, 2]],
        [True],
        [None],
        {"inner": object()},
        {"inner": {1}},
        {"inner": math.nan},
        {("a", "tuple"): 1},
        _CIRCLE,
        [_CIRCLE],
        10**5000,
        Stubborn(),
        "NUL\0byte",
        Path("NUL\0byte"),
        "\ud800",
        {"a": "\ud800"},
        "x" * 131_072,
        ["x" * 131_072],
    ],
    ids=lambda value: type(value).__name__,
)
def test_to_arguments_names_key_of_invalid_value(value):
    """A value without a plain text form is an error, never a ``repr`` on a command line."""
    with pytest.raises(InvalidTask, match=r"^parameter 'key(\[0\])?': "):
        to_arguments({"key": value})


def test_to_arguments_suggests_types_for_invalid_value():
    """The message names the type that it got, and those that it takes."""
    with pytest.raises(InvalidTask) as caught:
        to_arguments({"ids": {1, 2}})

    assert str(caught.value) == (
        "parameter 'ids': a value of type set has no plain text form; "
        "give text, a number, a path, a list of these, or a mapping"
    )


def test_to_arguments_accepts_longest_argument_of_a_process():
    """The limit that a longer text is refused for is that of the operating system."""
    longest = to_arguments({"key": "x" * 131_071})

    assert _in_a_child(longest, "len(sys.argv[2])") == 131_071


@pytest.mark.parametrize("key", [1, None, b"key", ("a",)])
def test_to_arguments_rejects_key_that_is_not_text(key):
    """The message shows the key and its type."""
    with pytest.raises(InvalidTask, match=rf"^parameter .*: the name must be text, got {type(key).__name__}$"):
        to_arguments({key: 1})


@pytest.mark.parametrize("key", ["", "--name", "-n", "my name", "a=b", "a\0b", "a\nb", "a\tb", "a\ud800", "a\x1b[31m"])
def test_to_arguments_rejects_key_that_is_not_an_option(key):
    """Empty names, leading dashes, spaces and unprintable characters are refused, even for a flag left out."""
    with pytest.raises(InvalidTask, match="write the bare name, such as 'batch_size'"):
        to_arguments({key: False})


@pytest.mark.parametrize("value", [None, True, [1], b"x", "NUL\0"])
def test_to_arguments_names_index_of_invalid_arg(value):
    """Verbatim means text, numbers and paths; the message names the index of another value."""
    with pytest.raises(InvalidTask, match=r"^args\[1\]: "):
        to_arguments({}, args=["fine", value])


# Without "-" at the start of a value: argparse takes such a value for an option, even -1e+16 (but not -5).
# `args=["--key=-x"]` is the way to give one.
_values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])).filter(lambda t: t[:1] != "-")
_keys = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda key: key not in {"h", "help"})


@given(
    options=st.dictionaries(
        _keys,
        st.one_of(
            _values,
            st.integers(),
            st.floats(min_value=0),
            st.booleans(),
            st.none(),
            st.lists(_values, min_size=1),
            st.dictionaries(st.text(), st.one_of(st.integers(), st.none(), _values)),
        ),
    ),
    use_underscores=st.booleans(),
)
def test_argparse_reads_arguments_back(options, use_underscores):
    """For any values, a parser that declares the options gets them, one by one and in order."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for key, value in options.items():
        _declare(parser, key, value, use_underscores)

    read = _quietly(parser, to_arguments(options, use_underscores=use_underscores))

    assert read == {key: False if value is None else value for key, value in options.items()}


@given(
    options=st.dictionaries(
        _keys, st.one_of(_values, st.booleans(), st.none(), st.lists(_values, max_size=3)), max_size=5
    ),
    args=st.lists(_values | st.integers() | st.just("--verbatim"), max_size=3),
)
def test_to_arguments_has_one_order_for_any_input(options, args):
    """Verbatim arguments, then parameters as they are written, then flags; nothing else, and nothing twice."""
    parameters = {key: value for key, value in options.items() if value is not None and not isinstance(value, bool)}
    listed = {key: value if isinstance(value, list) else [value] for key, value in parameters.items()}
    flags = [key for key, value in options.items() if value is True]

    assert to_arguments(options, use_underscores=True, args=args) == [
        *map(str, args),
        *(word for key, values in listed.items() for value in values for word in (f"--{key}", value)),
        *(f"--{key}" for key in flags),
    ]


def _declare(parser: argparse.ArgumentParser, key: str, value: object, use_underscores: bool) -> None:
    option = "--" + (key if use_underscores else key.replace("_", "-"))
    if value is None or isinstance(value, bool):
        parser.add_argument(option, dest=key, action="store_true")
    elif isinstance(value, list):
        parser.add_argument(option, dest=key, action="append")
    else:
        parser.add_argument(option, dest=key, type=json.loads if isinstance(value, dict) else type(value))


def _quietly(parser: argparse.ArgumentParser, arguments: list[str]) -> dict[str, object]:
    with contextlib.redirect_stderr(io.StringIO()):
        return vars(parser.parse_args(arguments))


def test_child_process_reads_arguments_back():
    """Between a dictionary and the argparse of a module lies a real command line, and nothing is lost on it."""
    given_ = {"text": "a 'b' \"c\" $HOME\n*\\ ü🚰\udcff", "empty": "", "size": -3, "in": ["x", "y"], "flag": True}
    code = """
parser = argparse.ArgumentParser()
for name, kind in ("--text", str), ("--empty", str), ("--size", int):
    parser.add_argument(name, type=kind)
parser.add_argument("--in", action="append")
parser.add_argument("--flag", action="store_true")
"""
    assert _in_a_child(to_arguments(given_), "vars(parser.parse_args())", code) == given_


def test_args_pass_value_with_leading_dash():
    """argparse takes ``--key -x`` for two options; ``args`` is the way round."""
    code = "parser = argparse.ArgumentParser(); parser.add_argument('--key')"

    assert _in_a_child(to_arguments({}, args=["--key=-x"]), "vars(parser.parse_args())", code) == {"key": "-x"}


def _in_a_child(arguments: list[str], expression: str, before: str = "") -> object:
    code = f"import argparse, json, sys\n{before}\nprint(json.dumps({expression}))"
    child = subprocess.run([sys.executable, "-I", "-c", code, *arguments], capture_output=True, check=True)
    return json.loads(child.stdout)


@pytest.mark.parametrize(
    "key", ["password", "DB_PASSWORD", "apiKey", "api-key", "--token", "hfToken", "client_secret", "aws.access.key"]
)
def test_looks_secret_recognizes_secret_names(key):
    """In any spelling of a secret's name."""
    assert looks_secret(key)


@pytest.mark.parametrize(
    "key", ["tokens_per_second", "tokenizer", "key", "keyboard", "secretary", "name", "max-tokens"]
)
def test_looks_secret_ignores_similar_names(key):
    """A number of tokens is no token."""
    assert not looks_secret(key)
