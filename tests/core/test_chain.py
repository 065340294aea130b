"""``>>`` and ``<<`` tie tasks, chains and lists of them, on either side."""

from __future__ import annotations

from itertools import pairwise

import pytest

from airflow_provider_sewer import Task
from airflow_provider_sewer.core.chain import Chain
from airflow_provider_sewer.core.errors import InvalidWorkflow

a, b, c, d, e = (Task(name, f"modules.{name}") for name in "abcde")


def edges(chain: Chain) -> list[str]:
    """Write the edges of a chain as pairs of letters."""
    return [up.name + down.name for up, down in chain.edges()]


def names(chain: Chain) -> str:
    """Write the tasks of a chain as letters."""
    return "".join(task.name for task in chain.tasks())


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        (a >> b, ["ab"]),
        (a << b, ["ba"]),
        (a >> b >> c, ["ab", "bc"]),
        (a << b << c, ["ba", "cb"]),
        ((a >> b) >> (c >> d), ["ab", "bc", "cd"]),
        (a >> (b >> c), ["ab", "bc"]),
        (a >> (c << b), ["ab", "bc"]),
        (a >> [b, c] >> d, ["ab", "ac", "bd", "cd"]),
        ([a, b] >> c, ["ac", "bc"]),
        ([a, b] << c, ["ca", "cb"]),
        (a << [b, c], ["ba", "ca"]),
        ((a, b) >> c, ["ac", "bc"]),
        ([a, b] >> (c >> d), ["ac", "bc", "cd"]),
        ([a, b] << (c >> d), ["cd", "da", "db"]),
        ((a >> b) >> [c, d], ["ab", "bc", "bd"]),
        ((a >> b) << [c, d], ["ca", "da", "ab"]),
        (a >> [b >> c, d] >> e, ["ab", "ad", "bc", "ce", "de"]),
        (a >> [b, [c, (d,)]] >> e, ["ab", "ac", "ad", "be", "ce", "de"]),
        ([a] >> b, ["ab"]),
        ([a, a] >> b, ["ab"]),
        (a >> [b, b], ["ab"]),
    ],
)
def test_chain_edges_run_from_left_to_right(chain, expected):
    """Every task on one side waits for every task on the other; each edge is there once."""
    assert sorted(edges(chain)) == sorted(expected)


def test_chain_tasks_keep_written_order():
    """Lists and log files follow the file."""
    assert names(b >> [d, a] >> c) == "bdac"


def test_chain_is_reusable():
    """A chain only holds its edges; tying it again does not change it."""
    head = a >> b

    assert (names(head >> c), names(head >> d), names(head)) == ("abc", "abd", "ab")
    assert edges(head) == ["ab"]


def test_chain_of_5000_tasks_stays_linear():
    """One edge and one piece for each task; taken apart without recursion."""
    tasks = [Task(f"t{i}", "m") for i in range(5000)]
    chain = Chain.of(tasks[0])
    for task in tasks[1:]:
        chain = chain >> task

    assert chain.tasks() == tasks
    assert set(chain.edges()) == set(pairwise(tasks))
    assert sum(1 for _ in chain._walk()) < 4 * len(tasks)


@pytest.mark.parametrize("other", ["b", 5, None, {"b"}, {}, object(), Task])
@pytest.mark.parametrize(
    "tie",
    [
        lambda other: a >> other,
        lambda other: a << other,
        lambda other: other >> a,
        lambda other: other << a,
        lambda other: (a >> b) >> other,
        lambda other: (a >> b) << other,
        lambda other: other >> (a >> b),
        lambda other: other << (a >> b),
        lambda other: a >> [b, other],
    ],
)
def test_chain_rejects_other_operands_with_line(tie, other):
    """Tasks, chains and lists of these, and nothing else; the line is the one with the >>."""
    with pytest.raises(InvalidWorkflow, match=r"takes tasks, chains and lists of them, got .*") as caught:
        tie(other)

    assert caught.value.where.file == __file__
    assert caught.value.where.line == tie.__code__.co_firstlineno


@pytest.mark.parametrize("empty", [[], (), [[]], [b, []]])
def test_chain_rejects_empty_list(empty):
    """An edge to nothing would silently tear a chain in two."""
    with pytest.raises(InvalidWorkflow, match="got an empty list"):
        a >> empty


def test_two_lists_raise_type_error():
    """Between two lists there is nothing of ours to ask; in a file this gets a line and a hint."""
    with pytest.raises(TypeError, match="'list' and 'list'"):
        [a, b] >> [c, d]  # noqa: B018
