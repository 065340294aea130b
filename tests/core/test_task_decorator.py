"""``@task`` makes a task of each call of a plain function, and reads paths from its annotations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, List, Optional  # noqa: UP035 - as people write them

import pytest

from airflow_provider_sewer import Dependency, External, Ignored, Product, Task, Workflow, load_workflow, task
from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.recording import recording
from airflow_provider_sewer.core.task_decorator import TaskFunction

if TYPE_CHECKING:
    import numpy as np

    from airflow_provider_sewer import Product as Made

HERE = __name__
Out = Annotated[Path, Product]


@task
def train(out: Annotated[Path, Product], data: Annotated[Path | None, Dependency] = None, n: int = 3, model="linear"):
    """Train a model.

    On data.
    """
    return {"out": str(out), "n": n, "model": model, "data": data}


@task
def many(
    parts: Annotated[list[Path], Dependency],
    named: Annotated[dict[str, Path], Dependency],
    whole: Optional[Annotated[Path, Dependency]],  # noqa: UP045
    weights: np.ndarray | Path | None = None,
    kept: Annotated[np.ndarray | Path, Product(temporary=True, atomic=False)] = Path("build/kept"),
    raw: "Annotated[Path | None, External(timeout=60)]" = None,  # noqa: UP037
    jobs: Annotated[int, Ignored] = 4,
    out: Out = Path("build/out"),
    deep: List["Annotated[Path, Dependency]"] = (),  # noqa: UP006, UP037
): ...


@task("a name", python="envs/x/bin/python", workdir="data", run_when="missing", products=["log.txt"], doc="Its own.")
def described(): ...


@pytest.fixture(autouse=True)
def recorded():
    """Have each test count names by itself, as each file does."""
    with recording() as recorder:
        yield recorder


# --- what a call says


def test_task_function_call_returns_task():
    """Positional or by name, the arguments are those of the signature, with its defaults."""
    made = train("build/model", n=5)

    assert isinstance(made, Task)
    assert (made.name, made.function) == ("train", f"{HERE}:train")
    assert made.kwargs == {"out": Product("build/model"), "data": None, "n": 5, "model": "linear"}
    assert made.doc == "Train a model.\n\nOn data."
    assert Path(__file__).read_text().splitlines()[made.source.line - 1].strip() == 'made = train("build/model", n=5)'


def test_task_function_keeps_plain_function():
    """By an attribute; it looks like the function, and its callers find it."""
    assert train.function("x", n=1) == {"out": "x", "n": 1, "model": "linear", "data": None}
    assert (train.__name__, train.__doc__.splitlines()[0], train.__module__) == ("train", "Train a model.", HERE)
    assert train.__wrapped__ is train.function
    assert repr(train) == f"<task {HERE}:train>"


def test_annotations_mark_products_and_dependencies():
    """As text of the future; with None there is no dependency."""
    without, given = train("a"), train("b", data=Path("in.csv"))

    assert (without.products, without.dependencies) == ((Product("a"),), ())
    assert given.dependencies == (Dependency("in.csv"),)


def test_annotations_are_read_in_all_forms():
    """In lists, mappings, unions and aliases, with options, and beside types that only type checkers import."""
    made = many(["a", Path("b")], {"x": "c"}, "d", raw="e", deep=["f"])

    assert made.dependencies == (*map(Dependency, "abcd"), External("e", timeout=60), Dependency("f"))
    assert made.products == (
        Product("build/kept", temporary=True, atomic=False),
        Product("build/out"),
    )
    assert "weights" in made.kwargs
    assert made.is_same(many(["a", "b"], {"x": "c"}, "d", raw="e", deep=["f"], jobs=8))


def test_annotated_keeps_options_of_given_marker():
    """A product of another task can be given as a path."""
    first = train(Product("a", temporary=True))
    second = train("b", data=first.products[0])

    assert first.products == (Product("a", temporary=True),)
    assert second.dependencies == (Dependency("a"),)
    assert Workflow("w", [first, second]).edges == [("train", "train_2")]


def test_task_function_accepts_result():
    """The edge follows from it, also where a dependency is expected."""
    first = train("a")
    second = train("b", data=first.result["out"], n=first.result["n"])

    assert second.kwargs["data"] == first.result["out"]
    assert Workflow("w", [first, second]).edges == [("train", "train_2")]


def test_decorator_fields_apply_to_each_task():
    """Relative paths are taken from the file that the function is in."""
    made = described()

    folder = Path(__file__).parent
    assert (made.name, made.doc) == ("a name", "Its own.")
    assert made.settings.python == str(folder / "envs/x/bin/python")
    assert made.settings.workdir == str(folder / "data")
    assert (made.run_policy.run_when, made.products) == ("missing", (Product("log.txt", atomic=False),))


class Steps:
    @task()
    def clean(n):  # noqa: N805 - no method
        return n


def test_task_function_accepts_static_method():
    """Its qualified name has its class."""
    assert Steps.clean(1).function == f"{HERE}:Steps.clean"


@task
def defaults(sizes=(1, 2), start=Path("a"), rate=float("nan"), names=("a",), options={"k": [1]}, log=print): ...  # noqa: B006


def test_default_changed_by_json_is_not_passed():
    """A tuple would arrive as a list, and a value without a JSON form not at all."""
    assert defaults().kwargs == {"options": {"k": [1]}}


@task
def marked_by_default(source=Dependency("in.txt"), out=Product("out.txt")): ...  # noqa: B008


def test_default_can_be_a_marker():
    """It is passed on, and so the function gets a path in every Python."""
    made = marked_by_default()

    assert made.kwargs == {"source": Dependency("in.txt"), "out": Product("out.txt")}
    assert [product.path for product in made.products] == ["out.txt"]


@task
def loose(n, **more): ...


@task
def joined(out: Out, **parts: Annotated[Path, Dependency] | None): ...


def test_marker_of_var_keyword_applies_to_all():
    """Each is a dependency of its own, in a loop as well."""
    assert joined("x", a="a", b="b", c=None).dependencies == (Dependency("a"), Dependency("b"))
    looped = joined.partial(b="b").map(out=["x", "y"], a=["a", "c"])
    assert [each.dependencies for each in looped] == [(Dependency("b"), Dependency(name)) for name in "ac"]


def test_var_keyword_arguments_are_passed():
    """By their own names."""
    assert loose(1, a=2, b=[3]).kwargs == {"n": 1, "a": 2, "b": [3]}


def test_partial_sets_arguments():
    """Later ones win."""
    small = train.partial(n=1, model="small")

    assert isinstance(small, TaskFunction)
    assert small("a").kwargs == {"out": Product("a"), "data": None, "n": 1, "model": "small"}
    assert small("a", n=2).kwargs["n"] == 2


# --- names


def test_different_calls_are_numbered_and_equal_calls_merged():
    """In the order of their first call."""
    tasks = [train("a"), train("b"), train("a", n=3), train("c"), train("b")]

    assert [each.name for each in tasks] == ["train", "train_2", "train", "train_3", "train_2"]
    assert list(Workflow("w", tasks).tasks) == ["train", "train_2", "train_3"]


def test_ignored_argument_makes_no_other_task():
    """An ignored argument may differ."""
    a, b = many([], {}, None, jobs=1), many([], {}, None, jobs=2)

    assert a.name == b.name == "many"
    assert list(Workflow("w", [a, b]).tasks) == ["many"]


FILE = """
from airflow_provider_sewer import workflow
from steps import make

first = make(1)

@workflow
def one():
    (first >> make(2) >> make(1)).run()

@workflow
def two():
    for n in (3, 2):
        make(n).run()
"""
STEPS = "from airflow_provider_sewer import task\n@task\ndef make(n): return n\n"


def test_recording_twice_gives_same_names(tmp_path):
    """Also after other files were loaded or recorded; tasks of the file itself keep their names."""
    (tmp_path / "steps.py").write_text(STEPS)
    file = tmp_path / "flow.py"
    file.write_text(FILE.replace(" >> make(1)", ""))

    loaded = [load_workflow(file, name) for name in ("one", "two", "one", "two")]

    assert [list(each.tasks) for each in loaded] == [["make", "make_2"], ["make_2", "make_3"]] * 2
    assert [[each.kwargs["n"] for each in flow.tasks.values()] for flow in loaded[:2]] == [[1, 2], [3, 2]]


def test_plain_run_has_recorded_names(script_of):
    """Also when it calls its workflow twice."""
    script_of(STEPS)
    code = (
        "from steps import make\nfirst = make(1)\ndef flow(): return [make(n).name for n in (2, 1, 3)]\n"
        "print(first.name, *flow(), *flow())"
    )

    assert script_of(code, "flow.py").stdout == "make make_2 make make_3 make_2 make make_3\n"


def test_equal_calls_in_a_cycle_raise(tmp_path):
    """The same task before and after another depends on itself."""
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "flow.py").write_text(FILE)

    with pytest.raises(Exception, match="Cyclic dependency"):
        load_workflow(tmp_path / "flow.py", "one")


# --- what cannot be


def refused(call) -> str:
    """Return the error of an invalid call, which names this file and a line."""
    with pytest.raises(InvalidTask) as caught:
        call()
    place, _, message = str(caught.value).partition(": ")
    assert place.rpartition(":")[0] == __file__
    return message


@task
def only_by_place(n, /): ...


@task
def any_number(*paths): ...


@task
def for_checkers(out: Annotated[Path, Made]): ...


@task
def unreadable(out: Annotated[1 / 0, Product]): ...


@task
def with_path(out: Annotated[Path, Product("build/x")]): ...


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            train,
            "train(…): missing a required argument: 'out'; it takes (out, data=None, n=3, model='linear')",
        ),
        (lambda: train("a", sec=2), "train(…): got an unexpected keyword argument 'sec'; it takes (out, data=None, "),
        (lambda: train(*"abcdef"), "train(…): too many positional arguments; it takes (out, "),
        (lambda: train(3), "train(…): 'out': Product must be a path, got 3"),
        (lambda: train("a", data=[3]), "train(…): 'data': Dependency must be a path, got 3"),
        (lambda: train(Dependency("a")), "train(…): 'out' must be a Product, got Dependency('a')"),
        (lambda: train(train("a").result), "train(…): 'out' must be a Product, got train.result"),
        (lambda: train("b", n=train("a")), "train(…): 'n' must not be a task; pass its result as train.result"),
        (lambda: train("a", n={1}), "task 'train': kwargs 'n': arguments are passed as JSON, and "),
        (lambda: only_by_place(1), "only_by_place(…): arguments are passed by name, and 'n' has none"),
        (lambda: any_number("a"), "any_number(…): arguments are passed by name, and 'paths' has none"),
        (lambda: with_path("a"), "parameter 'out' of with_path: Product('build/x') must have no path here; the call"),
        (
            lambda: unreadable("a"),
            "parameter 'out' of unreadable: cannot evaluate its annotation 'Annotated[1 / 0, Product]'",
        ),
        (lambda: task(len), "@task must decorate a function, got <built-in function len>"),
        (lambda: task("a")(TaskFunction), "@task must decorate a function, got <class "),
        (lambda: task("a", name="b"), "@task must have at most one name, got 'a' and 'b'"),
        (lambda: task(pyton="x"), "@task: unknown field 'pyton'; did you mean 'python'? Known: 'name', "),
        (lambda: task(kwargs={}), "@task: unknown field 'kwargs'"),
        (lambda: task(python=3), "@task: python must be a path, got 3"),
        (
            lambda: task("")(train.function)("a"),
            "task '': name must be non-empty text, got ''".replace("task '': ", "Task(…): "),
        ),
        (
            lambda: Task("t", "m", {"out": Product(temporary=True)}),
            "task 't': Product() must have a path; only in an annotation ",
        ),
    ],
)
def test_task_function_rejects_invalid_calls_with_line(call, message):
    """The message has the parameter, the fault and the type."""
    assert refused(call).startswith(message)


def test_marker_imported_for_type_checkers_raises():
    """A product that is not known would not be checked."""
    from tests.core import annotated_for_checkers

    with pytest.raises(InvalidTask, match="Product is imported only for type checkers; import it at run time"):
        annotated_for_checkers.f("a")


def test_task_rejects_function_that_cannot_be_imported(tmp_path):
    """In another function, a lambda, or in the workflow file itself; the message names a place for it."""

    @task
    def inner(): ...

    line = inner.function.__code__.co_firstlineno
    assert refused(inner) == (
        f"inner(…): the function is defined in another function ({__file__}:{line}), where no interpreter can import "
        "it; move it to the top level of a module beside, such as steps.py, and write here: from steps import inner"
    )
    assert refused(task(lambda: 3)).startswith("<lambda>(…): the function is a lambda")
    file = tmp_path / "flow.py"
    file.write_text("from airflow_provider_sewer import task\n\n@task\ndef f(): ...\n\nf()\n")
    with pytest.raises(InvalidTask) as caught:
        load_workflow(file)
    assert str(caught.value) == (
        f"{file}:6: f(…): the function is defined in the file that is being run or read as a workflow ({file}:3), "
        "where no interpreter can import it; move it to the top level of a module beside, such as steps.py, and write "
        "here: from steps import f"
    )


def test_module_of_task_functions_runs_as_main(tmp_path, script_of):
    """To try them out: only a task cannot be made of them there."""
    out = script_of(
        "from airflow_provider_sewer import task\n@task\ndef f(n): return n + 1\nprint(f.function(1))\nf(1)"
    )

    assert out.stdout == "2\n"
    assert "f(…): the function is defined in the file that is being run" in out.stderr


@pytest.fixture
def script_of(tmp_path):
    """Return a function that runs a file as a program."""
    root = str(Path(__file__).parent.parent.parent)

    def run(source: str, name: str = "steps.py"):
        file = tmp_path / name
        file.write_text(source)
        env = {"PYTHONPATH": root}
        return subprocess.run([sys.executable, file], env=env, capture_output=True, text=True, check=False, timeout=60)

    return run
