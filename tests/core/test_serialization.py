"""A workflow becomes JSON, and the same workflow again, without a loss."""

from __future__ import annotations

import enum
import json
import math
from datetime import timedelta
from decimal import Decimal
from pathlib import Path, PurePath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_sewer import Dependency, External, Ignored, Product, SewerError, Task, Workflow
from airflow_provider_sewer.core import errors
from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow, SlurmError, UnreadableRecord
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.mapping import MappedTask
from airflow_provider_sewer.core.paths import PathMarker
from airflow_provider_sewer.core.placeholders import Result
from airflow_provider_sewer.core.serialization import (
    error_of_data,
    error_to_data,
    tasks_of_data,
    tasks_to_data,
    workflow_of_data,
    workflow_to_data,
)
from airflow_provider_sewer.core.source import SourceLine


def after_the_trip(workflow: Workflow) -> Workflow:
    """Return a workflow that was written and read."""
    return workflow_of_data(json.loads(json.dumps(workflow_to_data(workflow))))


def content_of(value):
    """Return the content of a value, in a form in which equal contents are equal."""
    if isinstance(value, Task):
        return ("Task", value.name, str(value.source))
    if isinstance(value, (PathMarker, Ignored, Result)):
        return (type(value).__name__, content_of(vars(value)))
    if isinstance(value, MappedTask):
        name = (value.name, value.template.name, value.each_with_each, str(value.source))
        return ("MappedTask", name, content_of(value.values), [each.name for each in value])
    if isinstance(value, dict) or hasattr(value, "keys"):
        return [(content_of(key), content_of(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, [content_of(item) for item in value])
    return (type(value).__name__, repr(value))


def all_of(workflow: Workflow):
    """Return the content of a workflow, with its edges."""
    return {
        "name": (workflow.name, workflow.doc, workflow.source, workflow.is_subset),
        "tasks": [
            {name: content_of(value) for name, value in vars(task).items() if name != "identity"}
            for task in workflow.given
        ],
        "commands": {name: task.call().argv for name, task in workflow.tasks.items()},
        "edges": (
            workflow.edge_reasons.reasons,
            workflow.order,
            [(content_of(up), content_of(down)) for up, down in workflow.explicit_edges],
        ),
    }


NAMES = st.from_regex(r"[a-z][a-z_]{0,5}", fullmatch=True)
TEXTS = st.just("\udcff{{ ds }}") | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8
)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
PATHS = NAMES.map("in/{}".format)
MARKERS = st.one_of(
    PATHS.map(Dependency),
    st.builds(External, PATHS.map("from/{}".format), timeout=st.none() | st.floats(1, 99)),
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | MARKERS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.just("$"), inner, max_size=3),
    max_leaves=5,
)
WORDS = TEXTS | NUMBERS | st.just(math.inf) | NAMES.map(Path) | MARKERS | st.builds(Ignored, TEXTS | NUMBERS)
PARAMETERS = st.dictionaries(
    NAMES, WORDS | st.none() | st.booleans() | st.lists(WORDS, max_size=3) | st.dictionaries(NAMES, JSON), max_size=4
)
ENVIRONMENTS = st.dictionaries(NAMES, TEXTS, max_size=2)
OPERATOR_VALUES = JSON | st.tuples(JSON, NAMES) | st.timedeltas() | st.dictionaries(st.integers(), TEXTS, max_size=2)
OPERATOR_KWARGS = st.dictionaries(NAMES, OPERATOR_VALUES, max_size=3)


@st.composite
def workflows(draw) -> Workflow:
    """Make a workflow in which each task may take something from those before it."""
    tasks: list[Task] = []
    edges: list[tuple[Task, Task]] = []
    for number in range(draw(st.integers(1, 4))):
        products = [
            Product(
                f"out/{number}-{at}", atomic=draw(st.booleans()), temporary=draw(st.booleans()),
                on_failure=draw(st.sampled_from(["keep", "remove"])),
            )
            for at in range(draw(st.integers(0, 2)))
        ]  # fmt: skip
        parameters = draw(PARAMETERS)
        taken = {}
        if tasks and draw(st.booleans()):
            other = draw(st.sampled_from(tasks))
            taken = {"taken": other.result["seed"][0], "made": [Dependency(product) for product in other.products]}
        if draw(st.booleans()):
            runs = {
                "module": "pkg.mod", "use_underscores": draw(st.booleans()), "args": draw(st.lists(WORDS, max_size=2)),
                "parameters_and_flags": {**parameters, **taken, "of_it": [*products]},
            }  # fmt: skip
        else:
            kwargs = draw(st.dictionaries(NAMES.filter(str.isidentifier), JSON, max_size=3))
            runs = {"function": "pkg.mod:func", "kwargs": {**kwargs, **taken}, "products": products}
        task = Task(
            draw(st.sampled_from(["a", "größe {}", "#"])) + str(number),
            **runs,
            python=draw(st.none() | st.just("env/bin/python")),
            env=draw(ENVIRONMENTS),
            inherit_env=draw(st.none() | st.booleans() | st.lists(NAMES, max_size=2)),
            workdir=draw(st.none() | st.just("work")),
            depends_on=draw(st.lists(st.sampled_from(tasks), max_size=2)) if tasks else (),
            dependencies=draw(st.lists(MARKERS, max_size=2)),
            **(draw(st.sampled_from([{}, {"run_when": "stale", "stale_with": ["code"]}])) if products else {}),
            resources=draw(st.dictionaries(NAMES, st.integers(1, 9), max_size=2)),
            tags=draw(st.lists(NAMES, max_size=2)),
            group=draw(st.none() | NAMES),
            doc=draw(TEXTS),
            operator_kwargs=draw(OPERATOR_KWARGS),
            run_on=draw(st.sampled_from([None, "local", "slurm"])),
            slurm=draw(st.sampled_from([{}, {"mem_gb": 8, "setup": ["module load x"], "gpus_per_node": None}])),
        )
        edges += [(up, task) for up in tasks if draw(st.booleans())]
        tasks.append(task)
    return Workflow("w", tasks, edges, doc=draw(TEXTS), source=draw(st.none() | st.just(SourceLine("f.py", 3))))


@settings(max_examples=50, deadline=None)
@given(workflows())
def test_workflow_round_trip_is_equal(workflow):
    """Tasks with all their fields, types included, their lines, their commands, the edges and the reasons for these."""
    assert all_of(after_the_trip(workflow)) == all_of(workflow)


@settings(max_examples=50, deadline=None)
@given(workflows())
def test_workflow_of_data_is_usable(workflow):
    """Settings completed, a part taken out: the same comes of both."""
    around = ExecutionSettings(python="python3", env={"X": "1"})
    names = list(workflow.tasks)[1:]

    arrived = after_the_trip(workflow)

    assert all_of(arrived.with_defaults(around)) == all_of(workflow.with_defaults(around))
    assert all_of(arrived.subset(names)) == all_of(workflow.subset(names))


def test_round_trip_keeps_merged_tasks():
    """Two equal tasks, of which each has been named somewhere."""
    first, second = (Task(name, "m", {"out": Product("x")}) for name in ("first", "second"))
    user = Task("user", "m", {"seed": second.result})

    arrived = after_the_trip(Workflow("w", [first, second, user], [(second, user)]))

    assert list(arrived.tasks) == ["first", "user"]
    assert arrived.edges == [("first", "user")]


def test_round_trip_keeps_mapped_tasks():
    """Over lists, side by side and each with each, and over results; in Airflow each is one task."""
    make = Task("make", "m", {"out": Product("raw/{n}-{x}"), "k": Ignored(1)})
    made = make.map_product(n=[10, 20], x=[Path("a"), Decimal("1.5")])
    called = Task("call", function="m:f", kwargs={"a": 1}).map(b=[{"c": 1}, None], d=[made[0].result, [2]])
    later = Task("later", "m", depends_on=made).map(n=called[0].result["list"])
    workflow = Workflow("w", [*made, *called, *later, Task("end", "m", {"of": called.result})])

    arrived = after_the_trip(workflow)

    assert list(arrived.mapped) == ["make", "call", "later"]
    assert content_of([*arrived.mapped["call"].values.values()]) == content_of(
        [*workflow.mapped["call"].values.values()]
    )
    assert [str(value) for value in arrived.mapped["make"].values["x"]] == ["a", "1.5"]
    assert not arrived.mapped["later"].is_known_beforehand
    assert {name: task.call() for name, task in arrived.tasks.items()} == {
        name: task.call() for name, task in workflow.tasks.items()
    }
    assert (arrived.edges, arrived.mapped["make"].source) == (workflow.edges, made.source)
    assert all(arrived.tasks[task.name] is task for mapped in arrived.mapped.values() for task in mapped)


def test_round_trip_of_subset_keeps_outside_dependencies():
    """The tasks that a task refers to arrive with it."""
    outside = Task("outside", "m")
    part = Workflow("w", [Task("inside", "m", {"x": outside.result["x"]}, depends_on=outside)], is_subset=True)

    inside = after_the_trip(part).tasks["inside"]

    assert inside.depends_on[0] is inside.results[0].task
    assert str(inside.depends_on[0].source) == str(outside.source)


def test_round_trip_keeps_identity_of_copies():
    """Edges of the task itself count for its copy in a workflow."""
    up, down = Task("up", "m"), Task("down", "m")
    run = Workflow("w", [up.with_defaults(ExecutionSettings(python="a")), down], [(up, down)])

    assert after_the_trip(run).edges == [("up", "down")]


def test_round_trip_exceeds_recursion_limit():
    """However long the way from one to the first is."""
    tasks = [Task("0", "m")]
    for number in range(1, 1500):
        tasks.append(Task(str(number), "m", {"x": tasks[-1].result}, depends_on=tasks[-1]))

    assert len(after_the_trip(Workflow("w", tasks[-1:], is_subset=True)).given[0].depends_on) == 1
    assert after_the_trip(Workflow("w", tasks)).edges == [(str(i), str(i + 1)) for i in range(1499)]


def test_tasks_round_trip_without_workflow():
    """In their order, with the tasks that they refer to."""
    a = Task("a", "m")

    b, again = tasks_of_data(json.loads(json.dumps(tasks_to_data([Task("b", "m", depends_on=a), a]))))

    assert (b.name, b.depends_on) == ("b", (again,))


class Colour(str, enum.Enum):  # noqa: UP042 - as it is written in files that Python 3.9 runs
    """A text with a name."""

    RED = "red"


class Number(enum.IntEnum):
    """A number with a name."""

    ONE = 1


@pytest.mark.parametrize("value", [Colour.RED, Number.ONE, Decimal("1.10"), PurePath("a/b"), math.nan, [Decimal(2)]])
def test_round_trip_keeps_command_line_text(value):
    """A value without a JSON form is there as the text that the module gets."""
    task = Task("a", "m", {"x": value, "y": Ignored(value), "z": {"k": 1, "l": [Colour.RED, Number.ONE]}}, args=[1.50])

    assert after_the_trip(Workflow("w", [task])).tasks["a"].call() == task.call()


def test_round_trip_keeps_kwargs():
    """Texts and numbers with names, paths, and tuples, as JSON has them."""
    task = Task("a", function="m:f", kwargs={"c": Colour.RED, "n": Number.ONE, "p": [Path("x")], "t": (1, 2)})

    assert after_the_trip(Workflow("w", [task])).tasks["a"].call() == task.call()


@pytest.mark.parametrize(
    ("value", "where", "kind"),
    [
        ({"on_failure_callback": print}, "operator_kwargs['on_failure_callback']", "builtin_function_or_method"),
        ({"a": [1, {"b": {1, 2}}]}, "operator_kwargs['a'][1]['b']", "set"),
        ({"a": {"k": object}}, "operator_kwargs['a']['k']", "type"),
        ({"a": type("Mine", (Product,), {})("x")}, "operator_kwargs['a']", "Mine"),
    ],
)
def test_workflow_to_data_names_field_of_invalid_value(value, where, kind):
    """The line of the task, the field, the way to the value in it, and its type."""
    task = Task("Example 1", "m", operator_kwargs=value)

    with pytest.raises(InvalidTask) as caught:
        workflow_to_data(Workflow("w", [task]))

    assert str(caught.value).startswith(f"{task.source}: task 'Example 1': {where} must be a JSON value")
    assert f"got a value of type {kind}; give text, a number" in str(caught.value)
    assert caught.value.where == task.source


def test_workflow_to_data_rejects_cyclic_value():
    """Without end, it can be written nowhere."""
    endless: list = []
    endless.append(endless)

    with pytest.raises(InvalidTask, match="task 'a': operator_kwargs contains itself, or is nested too deeply"):
        workflow_to_data(Workflow("w", [Task("a", "m", operator_kwargs={"x": endless})]))


def test_workflow_to_data_rejects_subclass_of_task():
    """Its own behaviour would be lost."""
    mine = type("MyTask", (Task,), {})("a", "m")

    with pytest.raises(InvalidTask, match="task 'a' must be a Task to be read by another interpreter, got a MyTask"):
        workflow_to_data(Workflow("w", [mine]))


def test_round_trip_keeps_timedelta():
    """The value of another type that operators are most often given."""
    task = Task("a", "m", operator_kwargs={"retry_delay": timedelta(minutes=5, microseconds=1)})

    assert after_the_trip(Workflow("w", [task])).tasks["a"].operator_kwargs == task.operator_kwargs


def test_workflow_of_data_rejects_other_format():
    """Data of another version of this package may mean something else."""
    data = workflow_to_data(Workflow("w", [Task("a", "m")])) | {"format": 0}

    with pytest.raises(UnreadableRecord, match=r"has format 0, and this version of .* reads format 1; "):
        workflow_of_data(data)


ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SewerError)]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_error_round_trip_keeps_class(kind):
    """With its message, letter by letter."""
    error = error_of_data(json.loads(json.dumps(error_to_data(kind("größe \udcff\nand more")))))

    assert (type(error), str(error)) == (kind, "größe \udcff\nand more")


def test_error_round_trip_keeps_line():
    """Once in the message, once to ask for."""
    error = error_of_data(error_to_data(InvalidWorkflow("a circle", SourceLine("f.py", 3))))

    assert (str(error), error.where) == ("f.py:3: a circle", SourceLine("f.py", 3))


def test_error_round_trip_of_foreign_class_uses_base():
    """The other side does not have that class."""
    assert type(error_of_data(error_to_data(type("Mine", (SlurmError,), {})("x")))) is SlurmError


def test_round_trip_keeps_types_of_mapped_values():
    """With its template, its values, and its own tasks, which know it; also over a result."""
    first = Task("first", "m")
    over_values = Task("train", "m", {"out": Product("{n}")}).map_product(n=[1, 2], path=[Path("a")])
    over_result = Task("test", "m").map(n=first.result["sizes"])
    flow = Workflow("w", [first, *over_values, *over_result])

    arrived = after_the_trip(flow)

    assert list(arrived.mapped) == ["train", "test"]
    for name, mapped in flow.mapped.items():
        other = arrived.mapped[name]
        assert content_of(other.template) == content_of(mapped.template)
        assert content_of(other.values) == content_of(mapped.values)
        assert (other.each_with_each, other.source) == (mapped.each_with_each, mapped.source)
        assert [task.name for task in other] == [task.name for task in mapped]
        assert all(arrived.tasks[task.name] is task for task in other)
    assert over_result.values["n"].task is first
    assert arrived.mapped["test"].values["n"].task is arrived.tasks["first"]
