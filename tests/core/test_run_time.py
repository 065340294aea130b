"""Stand-ins for values that are known only when a task runs: what can be done with them, and what cannot."""

from __future__ import annotations

import pytest

from airflow_provider_sewer import Dependency, Product, SewerError, Task
from airflow_provider_sewer.core.run_time import RunTimeValue, as_text, names_in, readable
from airflow_provider_sewer.core.templates import find_template
from airflow_provider_sewer.core.values import markers

N = RunTimeValue("n")


@pytest.mark.parametrize(
    "text",
    [str(N), f"{N}", "" + N, N + "", Product(N).path, Task("t", "m", env={"A": N}).settings.env["A"]],
)
def test_in_a_text_it_is_a_template(text) -> None:
    """Which names it, so that it can be filled in."""
    assert text == "{{ task.arguments['n'] }}"
    assert names_in(text) == ["n"]


def test_a_part_of_it_is_named_by_keys_and_positions() -> None:
    """As deep as one likes, whole and in a text."""
    part = RunTimeValue("config.a")["runs"][0]

    assert part.of({"runs": [7]}) == 7
    assert str(part) == "{{ task.arguments['config.a']['runs'][0] }}"
    assert names_in(f"a {part} b {N}") == ["config.a", "n"]
    assert readable(f"a/{part}/{N}.txt") == "a/config.a['runs'][0]/n.txt"


def test_it_stands_wherever_a_value_can() -> None:
    """A task that has one is a task, whose values are not all known."""
    job = Task("t", N, {"n": [N], "out": Product(f"{N}.txt")}, args=[N], python=N, workdir=N, slurm={"comment": N})
    call = Task("c", function=N, kwargs={"n": {"deep": N}, "in": Dependency(N)}, products=N)

    assert N in markers(job.parameters_and_flags)
    assert find_template(job.settings.workdir)
    assert call.products == (Product(N, atomic=False),)
    assert call.is_same(
        Task("c", function=N, kwargs={"n": {"deep": RunTimeValue("n")}, "in": Dependency(N)}, products=N)
    )


@pytest.mark.parametrize(
    "use",
    [
        bool,
        list,
        len,
        int,
        float,
        lambda n: n + 1,
        lambda n: 2 * n,
        lambda n: n > 1,
        lambda n: f"{n:3}",
        lambda n: n == 1,
    ],
)
def test_it_cannot_be_reckoned_with_or_decided_by(use) -> None:
    """What would silently take its name for its value is an error."""
    with pytest.raises((TypeError, SewerError)):
        use(N)


def test_two_are_equal_that_stand_for_the_same() -> None:
    """By name and part."""
    assert RunTimeValue("n") == N
    assert N["a"] != RunTimeValue("n")
    assert len({N, RunTimeValue("n"), N["a"]}) == 2
    assert as_text(["x", {"n": (N,)}]) == ["x", {"n": ("{{ task.arguments['n'] }}",)}]
