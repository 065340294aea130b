"""Placeholders for values that are known only when a task runs: their permitted uses, and the others."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import pytest
from jinja2 import Environment

from airflow_provider_sewer import Dependency, Product, SewerError, Task
from airflow_provider_sewer.core.placeholders import RuntimeValue, as_text, markers, named, names_in, readable
from airflow_provider_sewer.core.templates import find_template

N = RuntimeValue("n")


@pytest.mark.parametrize(
    "text",
    [str(N), f"{N}", "" + N, N + "", Product(N).path, Task("t", "m", env={"A": N}).settings.env["A"]],
)
def test_runtime_value_in_text_is_a_template(text) -> None:
    """Which names it, so that it can be filled in."""
    assert text == "{{ task.arguments['n'] }}"
    assert names_in(text) == ["n"]


def test_runtime_value_part_is_named_by_keys_and_positions() -> None:
    """As deep as one likes, whole and in a text."""
    part = RuntimeValue("config.a")["runs"][0]

    assert part.resolve({"runs": [7]}) == 7
    assert str(part) == """{{ task.arguments["config.a['runs'][0]"] }}"""
    assert names_in(f"a {part} b {N}") == ["config.a['runs'][0]", "n"]
    assert readable(f"a/{part}/{N}.txt") == "a/config.a['runs'][0]/n.txt"


@pytest.mark.parametrize(
    "key", ["lr", "it's", 'a "b"', """it's "b" """, "a}} b", "a]['b", "\\", "line\nbreak", "ä", 0, -1]
)
def test_names_in_text_round_trip_for_any_key(key) -> None:
    """Quotes, brackets, braces and line breaks in it as well."""
    part = N["x"][key]

    assert [named(name) for name in names_in(f"a {part} b {part}")] == [part, part]
    assert (
        Environment(autoescape=False)
        .from_string(f"{part}")
        .render(task=SimpleNamespace(arguments={"n" + "".join(f"[{each!r}]" for each in ("x", key)): "filled"}))
        == "filled"
    )


@pytest.mark.parametrize("change", [str.upper, str.title, str.swapcase, lambda text: text.replace(".", "_")])
def test_names_in_rejects_changed_template(change) -> None:
    """Its template would be no template any more, or that of something else."""
    for text in (str(N), f"a/{N}.txt", str(N["lr"])):
        with pytest.raises(SewerError, match="was changed after a run-time value had been put into it"):
            names_in(change(text))


def test_task_accepts_runtime_value_in_any_field() -> None:
    """A task that has one is a task, whose values are not all known."""
    job = Task("t", N, {"n": [N], "out": Product(f"{N}.txt")}, args=[N], python=N, workdir=N, slurm={"comment": N})
    call = Task("c", function=N, kwargs={"n": {"deep": N}, "in": Dependency(N)}, products=N)

    assert N in markers(job.parameters_and_flags)
    assert find_template(job.settings.workdir)
    assert call.products == (Product(N, atomic=False),)
    assert call.is_same(
        Task("c", function=N, kwargs={"n": {"deep": RuntimeValue("n")}, "in": Dependency(N)}, products=N)
    )


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        *((use, "be used in conditions, comparisons or loops") for use in (
            bool, list, len, dict, lambda n: {**n}, lambda n: 1 in n, lambda n: n > 1, lambda n: n <= 1,
            lambda n: n == 1, lambda n: n != 1, lambda n: sorted([n, n]),
        )),
        *((use, "be used in arithmetic") for use in (
            int, float, range, round, abs, math.ceil, lambda n: n + 1, lambda n: 1 + n, lambda n: 2 * n,
            lambda n: n // 2, lambda n: n - n, lambda n: -n, lambda n: [1][n], lambda n: n / "x",
        )),
        (lambda n: f"{n:>3}", "be formatted with '>3'"),
    ],
)  # fmt: skip
def test_runtime_value_rejects_arithmetic_and_conditions(use, expected) -> None:
    """A use that would silently take its name for its value is an error, which names the fix."""
    with pytest.raises(SewerError) as caught:
        use(N["a"])
    assert caught.value.message.startswith(
        f"<n['a']> is known only when a task runs, and cannot {expected}; pass it on to"
    )
    assert caught.value.where.file == __file__


def test_runtime_value_rejects_attributes() -> None:
    """Nor does it have methods, which would take a part of its name for its value."""
    for name in ("lr", "get", "name", "real", "upper"):
        with pytest.raises(SewerError, match=rf"<n> .* has no attribute '{name}'; .* by its key, \['{name}'\]"):
            getattr(N, name)
    assert not hasattr(N, "read")
    assert copy.deepcopy({"n": N}) == {"n": N}


def test_runtime_values_of_same_name_are_equal() -> None:
    """By name and part."""
    assert RuntimeValue("n") == N
    assert N["a"] != RuntimeValue("n")
    assert len({N, RuntimeValue("n"), N["a"]}) == 2
    assert as_text(["x", {"n": (N,)}]) == ["x", {"n": ("{{ task.arguments['n'] }}",)}]
