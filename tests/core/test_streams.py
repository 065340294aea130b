"""Files as stdin and stdout of a task: products and dependencies like others."""

from __future__ import annotations

import re
from typing import Any

import pytest

from airflow_provider_sewer import Dependency, External, Ignored, Product, Task, Workflow
from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow


def test_stdout_is_product_and_stdin_is_dependency() -> None:
    """A path is enough, and options of the markers count."""
    task = Task("a", "m", stdin=External("in.csv", timeout=3), stdout=Product("out.csv", temporary=True))
    plain = Task("b", "m", stdin="in.csv", stdout="out.csv")

    assert (task.products, task.dependencies) == (
        (Product("out.csv", temporary=True),),
        (External("in.csv", timeout=3),),
    )
    assert (plain.products, plain.dependencies) == ((Product("out.csv"),), (Dependency("in.csv"),))
    assert task.call().stdin == "in.csv"
    assert task.call().stdout == "out.csv"
    assert task.call().argv == ("-m", "m")


def test_edge_leads_from_stdout_to_stdin() -> None:
    """Neither task names the other."""
    reads = Task("reads", "m", stdin="./x.csv", stdout="y.csv")
    writes = Task("writes", "m", stdout=Product("x.csv"))

    assert Workflow("w", [reads, writes]).edges == [("writes", "reads")]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stdout": Dependency("x")}, "stdout must be a Product, got Dependency('x')"),
        ({"stdin": Product("x")}, "stdin must be a Dependency, got Product('x')"),
        ({"stdout": "x/"}, "stdout must be a file, got the directory 'x/'"),
        ({"stdin": "x/"}, "stdin must be a file, got the directory 'x/'"),
        ({"stdout": ["x"]}, "stdout: Product must be a path, got ['x']"),
        ({"stdout": Ignored("x")}, "stdout: Product must be a path, got Ignored('x')"),
        ({"stdout": Product()}, "Product() must have a path"),
        ({"stdout": "a/../x", "products": "x"}, "stdout must be a file of its own, but 'x' is also a product"),
        ({"stdout": "x", "args": [Product("x")]}, "stdout must be a file of its own, but 'x' is also a product"),
        ({"stdout": "x", "stdin": "x"}, "stdout must be a file of its own, but 'x' is also a dependency"),
        ({"stdout": "x", "dependencies": ["./x"]}, "stdout must be a file of its own, but './x' is also a dependency"),
    ],
)
def test_invalid_stream_is_rejected_by_name(fields: dict[str, Any], message: str) -> None:
    """Before anything runs."""
    with pytest.raises(InvalidTask, match=re.escape(message)):
        Task("a", "m", **fields)


def test_product_that_is_both_stdout_and_argument_is_rejected() -> None:
    """Even if it is one object."""
    out = Product("x")

    with pytest.raises(InvalidTask, match="'x' is also a product of the task; remove one"):
        Task("a", "m", {"out": out}, stdout=out)


def test_two_tasks_with_the_same_stdout_are_rejected() -> None:
    """As for all products."""
    with pytest.raises(InvalidWorkflow, match=r"two tasks produce 'x': 'a' .* and 'b'"):
        Workflow("w", [Task("a", "m", stdout="x"), Task("b", "n", stdout="x")])


def test_mapped_task_has_streams_of_its_own() -> None:
    """Their paths name the values."""
    mapped = Task("a", "m", stdin="in/{n}.csv", stdout="out/{n}.csv").map(n=[1, 2])

    assert [(task.call().stdin, task.call().stdout) for task in mapped] == [
        ("in/1.csv", "out/1.csv"),
        ("in/2.csv", "out/2.csv"),
    ]


def test_mapped_tasks_that_share_stdout_are_rejected() -> None:
    """The message has a path that differs."""
    with pytest.raises(InvalidTask, match=r"would both create 'out.csv'; name the values .* '{n}/out.csv'"):
        Task("a", "m", stdout="out.csv").map(n=[1, 2])


def test_signature_differs_with_streams() -> None:
    """So that products are stale, and two tasks are not one."""
    tasks = [
        Task("a", "m", products="x", dependencies="y"),
        Task("a", "m", stdout="x", dependencies="y"),
        Task("a", "m", products="x", stdin="y"),
        Task("a", "m", stdout="x", stdin="y"),
    ]

    assert len({str(task.signature()) for task in tasks}) == len(tasks)
