"""A task is mapped over values: one task for each, with names and products of their own."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_sewer import Dependency, Ignored, Product, Task, Workflow, load_workflow, task
from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.mapping import MappedTask
from airflow_provider_sewer.core.recording import recording


@pytest.fixture(autouse=True)
def recorded():
    """Have each test count names by itself, as each file does."""
    with recording() as recorder:
        yield recorder


def train(**parameters) -> Task:
    return Task("train", "pkg.train", {"out": Product("build/{n}/model.npz"), **parameters})


def names(several) -> list[str]:
    return [each.name for each in several]


# --- what it is mapped to


def test_map_of_module_maps_parameters():
    """Each task has the value in its parameters, in its name and in the path of its product."""
    mapped = train(seed=1).map(n=[10, 20])

    assert isinstance(mapped, MappedTask)
    assert names(mapped) == ["train[n=10]", "train[n=20]"]
    assert [each.arguments() for each in mapped] == [
        ["--out", "build/10/model.npz", "--seed", "1", "--n", "10"],
        ["--out", "build/20/model.npz", "--seed", "1", "--n", "20"],
    ]
    assert [each.products for each in mapped] == [(Product("build/10/model.npz"),), (Product("build/20/model.npz"),)]


def test_map_of_function_maps_kwargs():
    """Values may be any JSON."""
    mapped = Task("train", function="pkg.steps:train", kwargs={"n": 1, "deep": True}).map(n=[[1, 2], [3]])

    assert [each.kwargs for each in mapped] == [{"n": [1, 2], "deep": True}, {"n": [3], "deep": True}]
    assert names(mapped) == ["train[n=#0]", "train[n=#1]"]


def test_map_zips_several_lists():
    """The first with the first, the second with the second."""
    mapped = train().map(n=range(2), model=("a", "b"))

    assert names(mapped) == ["train[n=0,model=a]", "train[n=1,model=b]"]


def test_map_product_makes_all_combinations():
    """The last list goes round fastest."""
    mapped = Task("train", "m").map_product(n=[1, 2], model=["a", "b"])

    assert names(mapped) == [f"train[n={n},model={model}]" for n, model in itertools.product([1, 2], "ab")]


def test_map_keeps_settings_and_fields():
    """And the line is that of the loop."""
    base = Task(
        "train",
        "m",
        env={"A": "1"},
        depends_on="other",
        resources={"gpu": 1},
        products=["log/{n}"],
        dependencies=["{n}.csv"],
    )

    (one,) = base.map(n=[7])

    assert (one.settings.env, one.depends_on, one.resources) == ({"A": "1"}, ("other",), {"gpu": 1})
    assert one.products == (Product("log/7", atomic=False),)
    assert one.dependencies == (Dependency("7.csv"),)
    assert Path(__file__).read_text().splitlines()[one.source.line - 1].strip() == "(one,) = base.map(n=[7])"


def test_map_accepts_path_markers():
    """They become dependencies and products of their task, in place of the template's."""
    base = Task("train", "m", {"in": Dependency("any.csv"), "out": Product("build/{in}.npz", temporary=True)})

    mapped = base.map(**{"in": [Dependency("a.csv"), Dependency("b.csv")]})

    assert [each.dependencies for each in mapped] == [(Dependency("a.csv"),), (Dependency("b.csv"),)]
    assert mapped[1].products == (Product("build/b.csv.npz", temporary=True),)
    assert names(mapped) == ["train[in=a.csv]", "train[in=b.csv]"]


def test_map_keeps_other_braces_in_paths():
    """Those of templates, of other names, and those in plain text, which is the module's own."""
    base = Task("t", "m", {"out": Product("{{ n }}/{other}/{n}"), "pattern": "img_{n}.png"})

    (one,) = base.map(n=[1])

    assert one.arguments() == ["--out", "{{ n }}/{other}/1", "--pattern", "img_{n}.png", "--n", "1"]


# --- names


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, "1"], ["t[n=1]", "t[n=1,#1]"]),
        (["a\nb", "", "x" * 41, None], ["t[n=#0]", "t[n=#1]", "t[n=#2]", "t[n=#3]"]),
        ([1.5, True, Path("a/b"), "ü"], ["t[n=1.5]", "t[n=True]", "t[n=a/b]", "t[n=ü]"]),
        ([Ignored(4)], ["t[n=4]"]),
        ([{"k": 1}, {"k": 2}], ["t[n=#0]", "t[n=#1]"]),
    ],
)
def test_map_names_are_unique_and_printable(values, expected):
    """A value that has no short text goes by its position."""
    assert names(Task("t", "m").map(n=values)) == expected


def test_map_names_contain_no_secret():
    """Names stand in logs, and in the names of files."""
    assert names(Task("t", "m").map(api_token=["s3cret"])) == ["t[api_token=#0]"]


def test_map_merges_equal_values():
    """As are equal tasks anywhere; in the results it stands twice."""
    mapped = Task("t", "m").map(n=[1, 1, 2])

    assert list(Workflow("w", mapped).tasks) == ["t[n=1]", "t[n=2]"]
    assert mapped.result == [mapped[0].result, mapped[0].result, mapped[2].result]


def test_map_called_twice_numbers_names():
    """Over other values; over equal ones it is the same."""
    base = Task("t", "m")

    assert [names(base.map(n=each)) for each in ([1], [2], [1])] == [["t[n=1]"], ["t_2[n=2]"], ["t[n=1]"]]


#: Values of which some look alike, and some cannot stand in a name.
_VALUES = st.sampled_from([0, 1, True, None, "0", "1", "True", "ü", "", "a\nb", "x" * 50, [0], [1]])
_KEYS = st.sampled_from(["n", "model", "api_token"])


@settings(max_examples=60)
@given(st.dictionaries(_KEYS, st.lists(_VALUES, min_size=1, max_size=4), min_size=1, max_size=2), st.booleans())
def test_map_of_any_lists_has_values_and_unique_names(values, is_product):
    """All combinations, the last list fastest, or the lists side by side as far as the shortest of them goes."""
    shortest = min(map(len, values.values()))
    base = Task("t", function="m:f", kwargs={"other": 1})
    if is_product:
        mapped, rows = base.map_product(**values), list(itertools.product(*values.values()))
    else:
        values = {key: some[:shortest] for key, some in values.items()}
        mapped, rows = base.map(**values), list(zip(*values.values(), strict=True))

    assert [repr(task.kwargs) for task in mapped] == [
        repr({"other": 1, **dict(zip(values, row, strict=True))}) for row in rows
    ]
    kwargs_by_name = {}
    for each in mapped:
        assert kwargs_by_name.setdefault(each.name, repr(each.kwargs)) == repr(each.kwargs)
        assert each.name.isprintable()
    assert list(Workflow("w", mapped).tasks) == list(kwargs_by_name)


# --- in a workflow


def test_mapped_task_is_used_like_a_list():
    """In chains, in ``depends_on``, and in a ``for``."""
    a, b, c = (Task(name, f"m.{name}") for name in "abc")
    mapped = Task("t", "m").map(n=[1, 2])
    after = Task("after", "m.after", depends_on=[mapped, "c"])
    alone = Task("alone", "m.alone", depends_on=mapped)

    flow = Workflow("w", [a, b, c, *mapped, after, alone], (a >> mapped >> [b]).edges())

    assert flow.edges == [
        ("t[n=1]", "b"), ("t[n=2]", "b"), ("a", "t[n=1]"), ("a", "t[n=2]"),
        ("t[n=1]", "after"), ("t[n=2]", "after"), ("c", "after"), ("t[n=1]", "alone"), ("t[n=2]", "alone"),
    ]  # fmt: skip


def test_mapped_task_result_is_a_list():
    """In the order of the values, and each with its parts."""
    mapped = Task("t", "m").map(n=[1, 2])
    best = Task(
        "best", function="m:best", kwargs={"all": mapped.result, "losses": [each["loss"] for each in mapped.result]}
    )

    assert [repr(each) for each in best.results] == [
        "t[n=1].result", "t[n=2].result", "t[n=1].result['loss']", "t[n=2].result['loss']"
    ]  # fmt: skip
    assert Workflow("w", [*mapped, best]).upstream["best"] == ("t[n=1]", "t[n=2]")


def test_depends_on_accepts_name_of_mapped_task():
    """As in Airflow, it is one task; each of its instances comes before."""
    mapped = train().map(n=[1, 2])
    last = Task("last", "m", depends_on="train")

    assert Workflow("w", [*mapped, last]).upstream["last"] == ("train[n=1]", "train[n=2]")
    with pytest.raises(InvalidWorkflow, match="unknown task 'trian'"):
        Workflow("w", [*mapped, Task("last", "m", depends_on="trian")])


def test_workflow_mapped_lists_mapped_tasks():
    """With the task, the values and the tasks; a part of them is no whole."""
    base = train()
    mapped = base.map(n=[1, 2])
    flow = Workflow("w", [*mapped]).with_defaults(ExecutionSettings.checked(workdir="/data"))

    assert flow.mapped == {"train": mapped}
    assert (mapped.template, mapped.values, mapped.each_with_each) == (base, {"n": [1, 2]}, False)
    assert flow.subset(["train[n=1]"]).mapped == {}
    assert Workflow("w", [base, *mapped]).mapped == {"train": mapped}


FILE = """
from airflow_provider_sewer import Task, workflow

train = Task("train", "pkg.train")
several = train.map(n=[1, 2])
"""


def test_mapped_template_is_not_a_task_of_the_file(tmp_path):
    """Unless it is named in a chain or a run."""
    for source, expected in [
        ("", ["train[n=1]", "train[n=2]"]),
        ("several >> Task('t', 'm')", ["train[n=1]", "train[n=2]", "t"]),
        ("several.run()", ["train[n=1]", "train[n=2]"]),
        ("train >> several", ["train", "train[n=1]", "train[n=2]"]),
        ("@workflow\ndef w():\n    (train >> train.map(n=[3])).run()", ["train", "train_2[n=3]"]),
    ]:
        file = tmp_path / "flow.py"
        file.write_text(FILE + source)
        assert list(load_workflow(file).tasks) == expected


# --- decorated functions


@task
def fit(n: int, data: Annotated[Path, Dependency], out: Annotated[Path, Product], depth=2): ...


@task
def best(models): ...


def test_map_of_decorated_function():
    """Equal arguments are given beforehand; paths follow the annotations."""
    mapped = fit.partial(out="build/{n}/{data}.npz").map(n=[1, 2], data=["a", "b"])

    assert names(mapped) == ["fit[n=1,data=a]", "fit[n=2,data=b]"]
    assert [each.products[0].path for each in mapped] == ["build/1/a.npz", "build/2/b.npz"]
    assert mapped[1].dependencies == (Dependency("b"),)
    assert mapped[1].kwargs == {"out": Product("build/2/b.npz"), "depth": 2, "n": 2, "data": Dependency("b")}
    assert names(fit.partial(out="{n}-{depth}", data="a").map_product(n=[1], depth=[3, 4])) == [
        "fit_2[n=1,depth=3]", "fit_2[n=1,depth=4]"
    ]  # fmt: skip


def test_calls_and_maps_of_one_function_have_unique_names():
    """The loop is numbered as a call would be."""
    one = fit(1, "a", "b")
    mapped = fit.partial(data="a", out="{n}").map(n=[1, 2])

    assert list(Workflow("w", [one, *mapped]).tasks) == ["fit", "fit_2[n=1]", "fit_2[n=2]"]


# --- what cannot be


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.map(), "task 'train': map needs at least one keyword argument, e.g. map(n=[10, 20])"),
        (lambda t: t.map(n=[]), "task 'train': map: n must not be an empty list"),
        (lambda t: t.map(n="abc"), "task 'train': map: n must be a list of values, got 'abc'"),
        (lambda t: t.map(n={1, 2}), "task 'train': map: n must be a list of values, got {1, 2}"),
        (lambda t: t.map(n=3), "task 'train': map: n must be a list of values, got 3"),
        (
            lambda t: t.map(n=[1, 2, 3], model=["a"]),
            "task 'train': map: lists must be of equal length, but n has 3, model has 1; for all combinations",
        ),
        (
            lambda t: t.map(m=[1, 2]),
            "task 'train': map: 'train[m=1]' and 'train[m=2]' would both create 'build/{n}/model.npz'; name",
        ),
        (
            lambda t: t.map(n=[[1]]),
            "task 'train': map: Product('build/{n}/model.npz'): n must have a text for a path",
        ),
        (
            lambda t: t.map(n=[object()]),
            "task 'train': map: Product('build/{n}/model.npz'): n must have a text",
        ),
        (lambda t: t.map(n=[1], o=[object()]), "task 'train': map: parameter 'o': a value of type object has no plain"),
        (lambda t: t.map(**{"a b": [1]}), "task 'train': map: parameter 'a b': write the bare name"),
        (lambda _: fit.map(n=[1]), "fit(…): missing a required argument: 'data'; it takes (n, data, out, depth=2)"),
        (lambda _: fit.map(m=[1]), "fit(…): missing a required argument: 'n'"),
        (lambda _: fit.partial(out="a").map(n=[1], data=[3]), "fit(…): 'data': Dependency must be a path, got 3"),
        (lambda t: best(t.map(n=[1])), "best(…): 'models' must not be a task; pass its result as train.result"),
    ],
)
def test_map_rejects_invalid_values_with_line(call, message):
    """The message has the line, the fault and the fix."""
    with pytest.raises(InvalidTask) as caught:
        call(train())

    place, _, text = str(caught.value).partition(": ")
    assert place.rpartition(":")[0] == __file__
    assert text.startswith(message)


def test_map_product_suggests_path_for_shared_product():
    """The message proposes a path."""
    with pytest.raises(InvalidTask, match=r"both create 'build/1/model.npz'; .*, such as 'build/1/{m}/model.npz'$"):
        train().map_product(n=[1], m=[1, 2])


def test_two_maps_with_one_product_raise():
    """As with any two tasks."""
    mapped = [*Task("a", "m.a", products=["{n}"]).map(n=[1]), *Task("b", "m.b", products=["{n}"]).map(n=[1])]

    with pytest.raises(InvalidWorkflow, match=r"two tasks produce '1': 'a\[n=1\]' \(.*\) and 'b\[n=1\]'"):
        Workflow("w", mapped)
