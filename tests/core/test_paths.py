"""Products and dependencies stand for their paths; two ways of writing one path are one path."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_sewer import Dependency, External, Product, Task
from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.paths import absolute_path, path_for_module, path_key


@pytest.mark.parametrize("kind", [Product, Dependency, External])
def test_path_marker_is_path_like(kind) -> None:
    """On the command line it is its path; as text, or as a path object."""
    assert Task("t", "m", {"x": kind("a/b.txt")}).arguments() == ["--x", "a/b.txt"]
    assert Task("t", "m", {"x": [kind(Path("a")), "b"]}, args=[kind("c/")]).arguments() == [
        "c/",
        "--x",
        "a",
        "--x",
        "b",
    ]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", "must be a path, got ''"),
        (" ", "must be a path, got ' '"),
        (7, "must be a path, got 7"),
        (b"x", "must be a path, got b'x'"),
        ("a\0b", "the path"),
        ("/", " must name a file or directory, got '/'"),
        ("a/..", " must name a file or directory, got 'a/..'"),
        ("./", " must name a file or directory, got './'"),
        ("a/" + "ü" * 128 + "/b", " must have at most 255 bytes in each name, got 'a/ü"),
        ("~", " must name a file or directory, got '~'"),
        ("a/.sewer/b", " must not be in .sewer, which is reserved"),
    ],
)
def test_task_rejects_invalid_paths(path, expected) -> None:
    """Of products as of dependencies, in parameters as in lists."""
    for fields in ({"products": [path]}, {"dependencies": [path]}):
        with pytest.raises(InvalidTask) as caught:
            Task("t", "m", **fields)
        assert "task 't': " in str(caught.value)
        assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Product("x", atomic="yes"), "atomic must be a bool, got 'yes'"),
        (lambda: Product("x", temporary=1), "temporary must be a bool, got 1"),
        (lambda: Product("x", on_failure="burn"), "on_failure must be 'keep' or 'remove', got 'burn'"),
        (lambda: External("x", timeout=0), "timeout must be seconds more than 0, got 0"),
        (lambda: External("x", timeout=True), "timeout must be seconds more than 0, got True"),
        (lambda: External("x", timeout=math.nan), "timeout must be seconds more than 0, got nan"),
        (lambda: External("x", timeout=math.inf), "got inf; at most 1,000,000,000 s"),
        (lambda: External("x", timeout=10**400), "timeout must be seconds more than 0, got 1000"),
    ],
)
def test_path_markers_reject_invalid_options(make, expected) -> None:
    """The message names the marker and the field."""
    with pytest.raises(InvalidTask) as caught:
        make()
    assert expected in str(caught.value)
    assert "('x')" in str(caught.value)


def test_listed_product_is_not_atomic() -> None:
    """The module gets no other path, so it could not write to one."""
    task = Task("t", "m", products=["x", Product("y", temporary=True)])

    assert [(product.path, product.atomic, product.temporary) for product in task.products] == [
        ("x", False, False),
        ("y", False, True),
    ]


def test_dependencies_reject_product() -> None:
    """Nor the other way round."""
    with pytest.raises(InvalidTask, match=r"dependencies must not contain Product\('x'\)"):
        Task("t", "m", dependencies=[Product("x")])


@pytest.mark.parametrize(
    "written", ["a/b", "./a/b", "a//b", "a/b/", "c/../a/b", "/w/a/b", "//w/a/b", "/w/./a/b/", "~/a/b", "/w/x/../a/b"]
)
def test_path_key_is_equal_for_spellings_of_a_path(written, monkeypatch) -> None:
    """A trailing slash, a dot, a detour, the home directory, the whole path."""
    monkeypatch.setenv("HOME", "/w")

    assert path_key(written, "/w") == "/w/a/b"
    assert absolute_path(written, "/w") == "/w/a/b"


@pytest.mark.parametrize(
    ("written", "opened"),
    [("a/b", "a/b"), ("./a//b/", "./a//b/"), ("c/../a/b/", "a/b/"), ("~/a/", "/w/a/"), ("a/..b", "a/..b")],
)
def test_path_for_module_resolves_home_and_parents(written, opened, monkeypatch) -> None:
    """A part that programs do not expand, or look up otherwise, is resolved; the rest stays as it is written."""
    monkeypatch.setenv("HOME", "/w")

    assert path_for_module(written) == opened


_PARTS = st.lists(st.sampled_from(["a", "b", "..", ".", "x y", "é"]), min_size=1, max_size=6)


@given(_PARTS, st.booleans(), st.booleans())
def test_path_for_module_matches_absolute_path(parts, is_absolute, is_folder) -> None:
    """In any spelling, the module opens the same file from its working directory."""
    path = "/" * is_absolute + "/".join([*parts, "name"]) + "/" * is_folder

    assert os.path.normpath(os.path.join("/w/d", path_for_module(path))) == absolute_path(path, "/w/d")
    assert path_key(absolute_path(path, "/w/d"), "/elsewhere") == absolute_path(path, "/w/d")
