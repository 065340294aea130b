"""Values that a few characters stand for have bounds, which are checked before so much is built."""

from __future__ import annotations

import itertools
import re
import time
from typing import Any

import pytest

from airflow_provider_sewer import Task, Workflow
from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow, SewerError
from airflow_provider_sewer.core.selection import selected
from airflow_provider_sewer.core.size_limits import MAX_ITEMS, joined_pattern
from airflow_provider_sewer.core.slurm_settings import SlurmSettings

TEN = list(range(10))


def workflow(*names: str) -> Workflow:
    return Workflow("w", [Task(name, "m") for name in names])


def test_map_product_refuses_more_tasks_than_it_could_build() -> None:
    """Nine lists of ten values are a billion tasks."""
    lists = {f"n{number}": TEN for number in range(9)}
    with pytest.raises(InvalidTask, match="map_product must make at most 100,000 tasks, got 1,000,000,000"):
        Task("billion", "m").map_product(**lists)


FIELDS: dict[str, Any] = {
    "map": lambda endless: Task("endless", "m").map(n=endless),
    "map_product": lambda endless: Task("endless", "m").map_product(n=endless),
    "args": lambda endless: Task("a", "m", args=endless),
    "depends_on": lambda endless: Task("a", "m", depends_on=map(str, endless)),
    "products": lambda endless: Task("a", "m", products=map(str, endless)),
    "tags": lambda endless: Task("a", "m", tags=map(str, endless)),
    "stale_with": lambda endless: Task("a", "m", stale_with=map(str, endless)),
    "inherit_env": lambda endless: Task("a", "m", inherit_env=map(str, endless)),
    "srun_args": lambda endless: SlurmSettings.checked(slurm={"srun_args": map(str, endless)}),
    "select": lambda endless: selected(workflow("a"), map(str, endless)),
}


@pytest.mark.parametrize("given", FIELDS.values(), ids=FIELDS)
def test_fields_refuse_iterators_without_an_end(given: Any) -> None:
    """By name, after as many values as a list may have."""
    with pytest.raises(SewerError, match=r"must have at most 100,000 values, got more"):
        given(itertools.count())


def test_chains_refuse_more_edges_than_they_could_build() -> None:
    """Each task of many before each of many others."""
    before, after = (Task(name, "m").map(n=range(2000)) for name in ("wide", "wider"))
    with pytest.raises(InvalidWorkflow, match=">> must make at most 1,000,000 edges, got 2,000 tasks before 2,000"):
        before >> after


def test_depends_on_refuses_more_edges_than_it_could_build() -> None:
    """Likewise by name."""
    before = Task("thousands", "m").map(n=range(2000))
    after = Task("thousands_more", "m", depends_on="thousands").map(n=range(2000))
    with pytest.raises(InvalidWorkflow, match="a workflow must have at most 1,000,000 edges"):
        Workflow("w", [*before, *after])


def test_results_are_mapped_over_within_bounds() -> None:
    """A module may leave a long list."""
    mapped = Task("over_result", "m").map(n=Task("of_result", "m").result)
    with pytest.raises(InvalidTask, match="must be mapped over at most 100,000 values, got a result of 100,001"):
        mapped.check_values([1] * (MAX_ITEMS + 1))


@pytest.mark.parametrize(
    "text", ["*a" * 40 + "b", "*?" * 60 + "b", "*" * 100_000 + "b", "*a,*a" * 20_000, ",".join("a" * 60_000)]
)
def test_select_ends_soon_for_any_pattern(text: str) -> None:
    """A pattern with many stars is tried once at each place, and a part that is repeated is looked for once."""
    began = time.process_time()
    try:
        selected(workflow("a" * 120, *(f"{'a' * 100}{number}" for number in range(20))), text)
    except InvalidWorkflow as error:
        assert "means" in str(error) or "unknown" in str(error)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("glob", "fits", "others"),
    [
        ("a*", ["a", "ab", "a\nb"], ["ba", ""]),
        ("*a", ["a", "ba"], ["ab"]),
        ("*a*b*", ["ab", "xaxbx", "aab"], ["ba", "a"]),
        ("a*a", ["aa", "aba"], ["a"]),
        ("?*?", ["ab", "abc"], ["a"]),
        ("a?b*c.d", ["axbxc.d"], ["axbxcxd"]),
        ("*ab*ab", ["abab", "xabxab"], ["ab", "aba"]),
    ],
)
def test_globs_fit_as_before(glob: str, fits: list[str], others: list[str]) -> None:
    """``*`` stands for any text, ``?`` for one character."""
    pattern = joined_pattern([".".join(map(re.escape, part.split("?"))) for part in glob.split("*")], ".*")
    assert [text for text in (*fits, *others) if pattern.fullmatch(text)] == fits


def test_globs_match_same_names_as_expressions() -> None:
    """All short texts, against all short patterns."""
    words = ["".join(word) for length in range(5) for word in itertools.product("ab", repeat=length)]
    for glob in ("".join(word) for length in range(5) for word in itertools.product("a*?", repeat=length)):
        plain = re.compile("".join({"*": ".*", "?": "."}.get(each, each) for each in glob))
        ours = joined_pattern([part.replace("?", ".") for part in glob.split("*")], ".*")
        assert [bool(plain.fullmatch(word)) for word in words] == [bool(ours.fullmatch(word)) for word in words], glob


@pytest.mark.parametrize(
    "value", ["x" * 10_000, "it's \\ " * 2000, '"' * 5000, list(range(10_000)), {"a": "b" * 10_000}]
)
def test_errors_show_little_of_a_value(value: Any) -> None:
    """With any content of a file."""
    with pytest.raises(SewerError) as caught:
        Task("a", "m", run_on=value)
    assert "run_on must " in str(caught.value)
    assert len(str(caught.value)) < 500


def test_errors_show_whole_messages() -> None:
    """An apostrophe begins no value."""
    message = f"a task's {'long ' * 100} message, and 'a value' of a person's {'long ' * 100} file"
    assert str(SewerError(message)) == message
