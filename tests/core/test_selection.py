"""Selecting tasks of a workflow by selectors."""

from __future__ import annotations

from itertools import pairwise, product
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_sewer import Dependency, Product, Task
from airflow_provider_sewer.core.errors import InvalidWorkflow
from airflow_provider_sewer.core.recording import recording
from airflow_provider_sewer.core.selection import From, selected
from airflow_provider_sewer.core.workflow import Workflow


def chain(*names: str) -> Workflow:
    """Return a workflow of tasks one after the other."""
    tasks = [Task(name, "m") for name in names]
    return Workflow("chain", tasks, pairwise(tasks))


def names(workflow: Workflow, select=None, exclude=None) -> list[str]:
    return list(selected(workflow, select, exclude).tasks)


class NotToBeGoneThrough:
    """A value with ``__iter__`` that raises, like values that Airflow knows only in a run."""

    def __iter__(self):
        raise TypeError

    def __repr__(self) -> str:
        return "what only a run knows"


DIAMOND = Workflow(
    "diamond",
    [
        Task("raw", "m"),
        Task("train_svc", "m", depends_on="raw", tags=["train", "gpu"]),
        Task("train_tree", "m", depends_on="raw", tags="train"),
        Task("compare", "m", depends_on=["train_svc", "train_tree"], tags="nightly"),
        Task("publish", "m", depends_on="compare"),
        Task("lint", "m"),
    ],
)


@pytest.mark.parametrize(
    ("select", "meant"),
    [
        ("compare", ["compare"]),
        ("train_*", ["train_svc", "train_tree"]),
        ("*", list(DIAMOND.tasks)),
        ("l?nt", ["lint"]),
        ("tag:train", ["train_svc", "train_tree"]),
        ("tag:n*", ["compare"]),
        ("+compare", ["raw", "train_svc", "train_tree", "compare"]),
        ("compare+", ["compare", "publish"]),
        ("1+compare", ["train_svc", "train_tree", "compare"]),
        ("0+compare", ["compare"]),
        ("raw+1", ["raw", "train_svc", "train_tree"]),
        ("1+train_svc+1", ["raw", "train_svc", "compare"]),
        ("@train_svc", ["raw", "train_svc", "train_tree", "compare", "publish"]),
        ("+tag:gpu", ["raw", "train_svc"]),
        ("tag:train,tag:gpu", ["train_svc"]),
        ("+compare, tag:train", ["train_svc", "train_tree"]),
        (["lint", "publish"], ["publish", "lint"]),
        (("tag:gpu", "lint"), ["train_svc", "lint"]),
        (From("compare"), ["compare", "publish"]),
        ([From("train_*"), "lint"], ["train_svc", "train_tree", "compare", "publish", "lint"]),
        (From("+tag:gpu"), ["raw", "train_svc", "train_tree", "compare", "publish"]),
        (f"{'9' * 5000}+compare", ["raw", "train_svc", "train_tree", "compare"]),
        (f"compare+{'0' * 5000}", ["compare"]),
        (None, list(DIAMOND.tasks)),
    ],
)
def test_select_keeps_order_of_workflow(select, meant) -> None:
    """Names, globs, tags; + and @ for the tasks around them; a comma is and, a list is or."""
    assert names(DIAMOND, select) == meant


def test_exclude_removes_selected_tasks() -> None:
    """Also without any other selection."""
    assert names(DIAMOND, "+compare", "tag:gpu") == ["raw", "train_tree", "compare"]
    assert names(DIAMOND, exclude=["train_*", "lint"]) == ["raw", "compare", "publish"]


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ("comapre", r"^select 'comapre': unknown task 'comapre'; did you mean 'compare'\? Known: 'raw', "),
        ("+comapre", r"^select '\+comapre': unknown task 'comapre'; did you mean 'compare'\?"),
        ("tag:trian", r"^select 'tag:trian': unknown tag 'trian'; did you mean 'train'\? Known: "),
        ("trian_*", r"^select 'trian_\*': unknown task 'trian_\*'; did you mean 'train_svc'\?"),
        (["raw", "raw,x"], r"^select 'raw,x': unknown task 'x'"),
        ("", "^select '': the name of a task is missing"),
        ("+", r"^select '\+': the name of a task is missing"),
        ("raw,", "^select 'raw,': the name of a task is missing"),
        ("@raw+", r"^select '@raw\+': @ already includes all downstream tasks; write '@raw'"),
        ("raw,lint", "^select 'raw,lint': no task matches all parts"),
        (7, r"^select must be a text such as 'train\+', or a list of texts, got 7"),
        (["raw", 7], "^select must be a text"),
        (NotToBeGoneThrough(), "^select must be a text such as .*, or a list of texts, got what only a run knows$"),
        (From("comapre"), r"^from 'comapre': unknown task 'comapre'; did you mean 'compare'"),
    ],
)
def test_select_without_match_raises_with_suggestion(select, expected) -> None:
    """A slip of the pen never selects less than was meant."""
    with pytest.raises(InvalidWorkflow, match=expected):
        selected(DIAMOND, select)
    with pytest.raises(InvalidWorkflow, match=expected.replace("select", "exclude")):
        selected(DIAMOND, exclude=select)


def test_select_and_exclude_of_all_tasks_raises() -> None:
    """A run of nothing would be green."""
    with pytest.raises(InvalidWorkflow, match=r"^exclude 'ra[*]', 'lint' leaves no task to run$"):
        selected(DIAMOND, ["raw", "lint"], ["ra*", "lint"])


def test_select_rejects_empty_list() -> None:
    """It selects no task; code that computes it should not run everything."""
    for empty in ([], (), iter(())):
        with pytest.raises(InvalidWorkflow, match=r"^select must not be an empty list, which matches no task"):
            selected(DIAMOND, empty)
    assert names(DIAMOND, exclude=[]) == list(DIAMOND.tasks)


NAMES = ["a+b", "2+2", "c++", "@home", "a, b", "a,+b", "tag:x", "what?", "x[lr=0.1,n=2]", "a[b,c", " a ,", ","]


@pytest.mark.parametrize("name", NAMES)
def test_select_matches_names_with_operators(name) -> None:
    """Names are any text, and the mapped ones hold commas; an operator beside a name is still an operator."""
    workflow = chain("first", name, "last")

    assert names(workflow, name) == [name]
    assert names(workflow, f"+{name}") == ["first", name]
    assert names(workflow, f"{name}+") == [name, "last"]
    assert names(workflow, f"@{name},{name}+1") == [name, "last"]
    assert names(workflow, f"*,1+{name}+1,last") == ["last"]
    assert names(workflow, From(name)) == [name, "last"]


def test_select_prefers_longest_name() -> None:
    """A comma separates texts that together are no name."""
    workflow = chain("a", "b", "a,b", "c", "b,c")

    assert names(workflow, "a,b") == ["a,b"]
    assert names(workflow, "+a,b") == ["a", "b", "a,b"]
    with pytest.raises(InvalidWorkflow, match="no task matches all parts"):
        names(workflow, "a,b,c")
    assert names(workflow, "b, +c") == ["b"]


def test_from_selects_downstream_tasks_of_text() -> None:
    """A file may have both."""
    a, b, other = (Task(name, "m") for name in ("a", "b", "a+"))
    workflow = Workflow("w", [a, b, other], [(a, b), (a, other)])

    assert names(workflow, "a+") == ["a+"]
    assert names(workflow, From("a")) == ["a", "b", "a+"]


def test_select_matches_mapped_task_and_its_tasks() -> None:
    """Its tasks are named after their values."""
    with recording():  # outside of a file, names are numbered for as long as Python runs
        mapped = Task("train", "m").map(n=[1, 2])
    workflow = Workflow("w", [*mapped, Task("after", "m", depends_on=mapped)])

    assert names(workflow, "train") == ["train[n=1]", "train[n=2]"]
    assert names(workflow, "train[n=2]+") == ["train[n=2]", "after"]


def test_select_matches_merged_task_by_all_names_and_tags() -> None:
    """The file has both names."""
    one, other = (Task(name, "m", {"out": Product("x")}, tags=f"of_{name}") for name in ("one", "other"))
    workflow = Workflow("w", [one, other, Task("third", "m")])

    for text in ("one", "other", "tag:of_one", "tag:of_other"):
        assert names(workflow, text) == ["one"]


def test_selected_keeps_order_through_excluded_tasks() -> None:
    """Paths and stated edges alike."""
    a = Task("a", "m", {"out": Product("a")})
    b = Task("b", "m", {"in": Dependency("a"), "out": Product("b")})
    c = Task("c", "m", {"in": Dependency("b")})
    d = Task("d", "m", depends_on=c)

    assert selected(Workflow("w", [a, b, c, d]), exclude=["b", "c"]).edges == [("a", "d")]


class Item(NamedTuple):
    """The part between two commas, before it is written down."""

    core: str
    before: int | None
    after: int | None
    is_at: bool

    def __str__(self) -> str:
        if self.is_at:
            return f"@{self.core}"
        before, after = (
            "" if steps == 0 else "+" if steps is None else (f"{steps}+", f"+{steps}")[side]
            for side, steps in enumerate((self.before, self.after))
        )
        return f"{before}{self.core}{after}"


@st.composite
def graphs(draw) -> Workflow:
    """Draw a few tasks with some tags, and edges between them."""
    count = draw(st.integers(1, 7))
    tags = [draw(st.sets(st.sampled_from(["x", "y", "xy"]))) for _ in range(count)]
    pairs = [(up, down) for up, down in product(range(count), repeat=2) if up < down]
    edges = draw(st.sets(st.sampled_from(pairs))) if pairs else set()
    tasks = [Task(f"t{number}", "m", tags=sorted(tags[number])) for number in range(count)]
    return Workflow("graph", tasks, [(tasks[up], tasks[down]) for up, down in sorted(edges)])


STEPS = st.sampled_from([0, 1, 2, 3, None])
CORES = st.sampled_from(["t0", "t1", "t2", "t*", "t?", "?5", "*3", "tag:x", "tag:y", "tag:x*"])
ITEMS = st.builds(Item, CORES, STEPS, STEPS, st.booleans())
TEXTS = st.lists(st.lists(ITEMS, min_size=1, max_size=3), max_size=3)


def distance(workflow: Workflow, up: str, down: str) -> float:
    """Return the number of edges on the shortest way down from one task to another."""
    ways = [distance(workflow, up, other) + 1 for other in workflow.upstream[down]]
    return 0 if up == down else min(ways, default=float("inf"))


def model(workflow: Workflow, item: Item) -> set[str]:
    """Return the selection of an item, task by task, from the definitions of its parts."""

    def is_core(name: str) -> bool:
        if item.core.startswith("tag:"):
            tags = workflow.tasks[name].tags
            return any(tag.startswith("x") for tag in tags) if item.core == "tag:x*" else item.core[4:] in tags
        return {"t*": True, "t?": True, "?5": name == "t5", "*3": name == "t3"}.get(item.core, name == item.core)

    def lies_near(up: str, down: str, steps: int | None) -> bool:
        return distance(workflow, up, down) <= (10**6 if steps is None else steps)

    cores = {name for name in workflow.tasks if is_core(name)}
    if item.is_at:
        after = {name for name in workflow.tasks if any(lies_near(core, name, None) for core in cores)}
        return {name for name in workflow.tasks if any(lies_near(name, other, None) for other in after)}
    return {
        name
        for name in workflow.tasks
        if any(lies_near(name, core, item.before) or lies_near(core, name, item.after) for core in cores)
    }


@given(graphs(), TEXTS, TEXTS)
def test_select_satisfies_set_operations(workflow, select, exclude) -> None:
    """Any selector selects the tasks that satisfy it, or is an error where one of its texts matches none."""
    meant = [[set.intersection(*(model(workflow, item) for item in items)) for items in texts]
             for texts in (select, exclude)]  # fmt: skip
    wanted = set().union(*meant[0]) if select else set(workflow.tasks)
    left = wanted - set().union(*meant[1])
    written = [[",".join(map(str, items)) for items in texts] for texts in (select, exclude)]

    if all(meant[0]) and all(meant[1]) and left:
        assert names(workflow, written[0] or None, written[1]) == [name for name in workflow.tasks if name in left]
    else:
        with pytest.raises(InvalidWorkflow):
            selected(workflow, written[0] or None, written[1])


@given(graphs(), st.data())
def test_selected_subset_has_order_of_workflow(workflow, data) -> None:
    """One task of the part comes after another just if it does so in the whole."""
    part = workflow.subset(data.draw(st.sets(st.sampled_from(list(workflow.tasks)), min_size=1)))

    for up, down in product(part.tasks, repeat=2):
        assert (distance(part, up, down) < 99) == (distance(workflow, up, down) < 99)
