"""Function tasks in other interpreters: arguments, results and errors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_sewer.core.call import function_call
from airflow_provider_sewer.core.errors import ModuleFailed, ModuleNotFound
from airflow_provider_sewer.execution.module_runner import ModuleRunner
from tests.execution.conftest import Modules, Ran, followed


class Functions:
    """Functions of modules that are written on the spot, and one interpreter to call them."""

    def __init__(self, modules: Modules, python: str) -> None:
        self.modules = modules
        self.python = python

    def call(self, source: str, function: str = "f", *, name: str = "steps", workdir: Any = None, **kwargs: Any) -> Ran:
        """Write a module, call a function of it, and return the result."""
        self.modules.write(source, name)
        return self.call_there(f"{name}:{function}", workdir=workdir, **kwargs)

    def call_there(self, target: str, workdir: Any = None, **kwargs: Any) -> Ran:
        """Call a function of a module that is there already, or is not."""
        settings = self.modules.settings(python=self.python, workdir=workdir or self.modules.folder)
        return followed(ModuleRunner(function_call(target, kwargs), settings))


@pytest.fixture
def anywhere(modules, any_python) -> Functions:
    """Return a caller of functions in each interpreter without this package."""
    return Functions(modules, str(any_python))


@pytest.fixture
def here(modules) -> Functions:
    """Return a caller of functions in the interpreter of the tests."""
    return Functions(modules, sys.executable)


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory) -> str:
    """Return an interpreter without this package."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    return str(folder / "bin" / "python")


# --- in every Python from 3.9 on


def test_function_arguments_and_result_are_json(anywhere) -> None:
    """Arguments and result are JSON values; printed lines are not part of the result."""
    source = """
        def f(number, text, items, nothing=None, *, flag):
            print("printed")
            return {"given": [number, text, items, nothing, flag], "more": (1.5, "ü")}
    """

    ran = anywhere.call(source, number=3, text="a 'b'\n", items=[{"k": [1]}], flag=True)

    assert ran.error is None, ran.stderr
    assert ran.value == {"given": [3, "a 'b'\n", [{"k": [1]}], None, True], "more": [1.5, "ü"]}
    assert ran.stdout == "printed\n"


def test_function_arguments_are_passed_by_file(anywhere) -> None:
    """It is in a private file, so that no secret is visible in the process list."""
    source = """
        import os
        def f(password, text):
            with open("/proc/self/cmdline", "rb") as file:
                line = os.fsdecode(file.read())
            file = line.split("\\0")[-2]
            return [len(text), ascii(text[:2]), password in line, oct(os.stat(file).st_mode), os.path.dirname(file)]
    """

    ran = anywhere.call(source, password="geheim", text="ü\udcff" + "x" * 1_000_000)

    assert ran.error is None, ran.stderr
    *seen, folder = ran.value
    assert seen == [1_000_002, ascii("ü\udcff"), False, "0o100600"]
    assert not Path(folder).exists()


def test_async_function_is_awaited(anywhere) -> None:
    """It needs no event loop of its own."""
    source = "import asyncio\nasync def f(n):\n    await asyncio.sleep(0)\n    return n + 1"

    assert anywhere.call(source, n=1).value == 2


def test_function_path_annotation_converts_argument(anywhere) -> None:
    """However deep, as text of the future or not, and where only type checkers import Path; other text stays text."""
    source = """
        from __future__ import annotations
        from typing import TYPE_CHECKING, Annotated, Dict, List, Optional, Union
        if TYPE_CHECKING:
            from pathlib import Path
        from airflow_provider_sewer import Dependency, Product

        def f(out: Annotated[Path, Product(atomic=False)], some: Annotated[List[Path], Dependency],
              maybe: Optional[Path] = None, named: Dict[str, Path] = None, either: Union[str, Path] = "",
              text: str = "", unknown: Nowhere = ""):
            return [type(each).__name__.replace("Posix", "") for each in
                    (out, some[0], maybe, named["x"], either, text, unknown)]
    """
    given = {"out": "a", "some": ["b"], "maybe": "c", "named": {"x": "d"}, "either": "e", "text": "f", "unknown": "g"}

    ran = anywhere.call(source, **given)

    assert ran.value == ["Path", "Path", "Path", "Path", "str", "str", "str"], ran.stderr


def test_function_optional_path_annotation_converts_argument(anywhere) -> None:
    """Written with a bar, also before Python 3.10; in text within text; and where further arguments are."""
    source = """
        from __future__ import annotations
        from typing import TYPE_CHECKING, Annotated, Dict, List
        from pathlib import Path
        if TYPE_CHECKING:
            import numpy
        from airflow_provider_sewer import Dependency

        def f(a: Annotated[Path, Dependency] | None, b: list[Path] | None, c: Annotated[Path | None, Dependency],
              d: Dict[str, "Path | None"] | List["Path"], e: None | dict[str, Path], f: str | Path, g: Path | "str",
              h: int | Path | None = None, **more: Path | None):
            return [type(each).__name__.replace("Posix", "") for each in
                    (a, b[0], c, d[0], e["x"], f, g, h, more["y"])]
    """
    given = {"a": "a", "b": ["b"], "c": "c", "d": ["d"], "e": {"x": "e"}, "f": "f", "g": "g", "h": "h", "y": "y"}

    ran = anywhere.call(source, **given)

    assert ran.value == ["Path", "Path", "Path", "Path", "Path", "str", "str", "Path", "Path"], ran.stderr


def test_function_module_imports_package_stub_without_package(anywhere) -> None:
    """``task`` and the names in annotations are found, with parentheses or without; the function is unchanged."""
    source = """
        from pathlib import Path
        from typing import Annotated
        from airflow_provider_sewer import Dependency, External, Ignored, Product, task

        @task
        def f(out: Annotated[Path, Product] = Path("a"), n: Annotated[int, Ignored] = 1):
            return [str(out), g.function(), h(data="b"), f.__name__]

        @task("a name")
        def g():
            return "g"

        @task(name="other", run_when="missing")
        def h(data: Annotated[Path, External(timeout=5), Product(temporary=True)]):
            return data
    """

    assert anywhere.call(source, out="x").value == ["x", "g", "b", "f"]


def test_function_can_spawn_processes(anywhere) -> None:
    """They import its module by its name, with the same names in it."""
    source = """
        import multiprocessing
        from airflow_provider_sewer import task

        def square(n):
            return n * n

        @task
        def f(numbers, method):
            with multiprocessing.get_context(method).Pool(2) as pool:
                return pool.map(square, numbers)
    """

    for method in ("spawn", "fork", "forkserver"):
        ran = anywhere.call(source, numbers=[1, 2, 3], method=method)
        assert ran.value == [1, 4, 9], ran.stderr


def test_function_traceback_hides_bootstrap_frames(anywhere) -> None:
    """The trace begins with the function; that of an async one as well."""
    source = """
        def f(n):
            return g(n)

        async def later(n):
            return g(n)

        def g(n):
            raise ValueError(f"no {n}")
    """

    for function in ("f", "later"):
        ran = anywhere.call(source, function, n=1)
        assert type(ran.error) is ModuleFailed
        places = [line.split(", in ")[1] for line in ran.stderr.splitlines() if line.startswith("  File")]
        assert places == [function, "g"]
        assert ran.stderr.endswith("\nValueError: no 1\n")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(): return float('nan')", "steps:f must return a JSON value, got a float (it contains a NaN or an inf"),
        ("def f(): return [1e999]", "steps:f must return a JSON value, got a list (it contains a NaN or an infinity"),
        ("def f(): return [float('inf')]", "steps:f must return a JSON value, got a list (it contains a NaN or an inf"),
        ("def f(): return object()", "steps:f must return a JSON value, got a object; return text, finite numbers"),
        ("def f(): return {'a': {1, 2}}", "steps:f must return a JSON value, got a dict (it contains a set); "),
        ("def f(): return {(1, 2): 3}", "steps:f must return a JSON value, got a dict (keys must be str, int, "),
        ("def f(): return b''", "steps:f must return a JSON value, got a bytes; "),
        ("def f():\n x = []\n x.append(x)\n return x", "steps:f must return a JSON value, got a list (it contains its"),
        ("async def f(): yield 1", "steps:f must return a JSON value, got a async_generator; "),
        ("f = 3", "steps:f must be a function, got int\n"),
        ("def f(out, n=1, *, deep=None): ...", "steps:f cannot be called with (): missing a required argument: 'out'"),
        ("import sys; sys.exit(0)", "steps exits with 0 while it is imported; put that code under"),
    ],
)
def test_invalid_function_prints_one_error_line(source: str, message: str, anywhere) -> None:
    """It names the function, the type and the fix; there is no traceback of generated code."""
    ran = anywhere.call(source)

    assert type(ran.error) is ModuleFailed
    assert ran.stderr.startswith(message)
    assert ran.stderr.count("\n") == 1


def test_function_result_with_too_many_digits_raises(here) -> None:
    """JSON allows it; Python refuses to write it."""
    assert here.call("def f(): return 10 ** 5000").stderr.startswith(
        "steps:f must return a JSON value, got a int (it contains a whole number with too many digits); "
    )


# --- missing functions and arguments


def test_missing_function_error_lists_functions_of_its_module(here) -> None:
    """With the file that was looked in, for it may be another one than was meant."""
    source = "from os.path import join\ndef train(): ...\ndef test(): ...\nclass Model:\n    def fit(self): ..."

    assert here.call(source, "trian").stderr == (
        f"steps ({here.modules.folder}/steps.py) has no function 'trian'; did you mean 'train'? "
        "Known: 'train', 'test', 'Model'.\n"
    )
    assert here.call_there("steps:Model.fitt").stderr == (
        f"steps ({here.modules.folder}/steps.py) has no function 'Model.fitt'; did you mean 'fit'? Known: 'fit'.\n"
    )


def test_function_of_missing_module_raises_module_not_found(here) -> None:
    """The error is that of a missing module, not that of a failing import inside it."""
    ran = here.call_there("nowhere.at_all:f")
    assert type(ran.error) is ModuleNotFound
    assert f"{sys.executable} has no module to run as 'nowhere.at_all:f' (No module named nowhere.at_all)" in str(
        ran.error
    )

    ran = here.call("import nowhere\ndef f(): ...")
    assert type(ran.error) is ModuleFailed
    assert ran.stderr.endswith("\nModuleNotFoundError: No module named 'nowhere'\n")


def test_function_unknown_argument_error_lists_parameters(here) -> None:
    """Before the function begins."""
    ran = here.call("def f(out, n=1, *, deep: bool = False): print('begun')", out="x", m=2)

    assert ran.stdout == ""
    assert ran.stderr == (
        "steps:f cannot be called with (out, m): got an unexpected keyword argument 'm'; "
        "it takes (out, n=1, deep=False)\n"
    )


# --- its surroundings


@pytest.mark.parametrize(("code", "kind"), [("0", None), ("", None), ("3", ModuleFailed), ("'no data'", ModuleFailed)])
def test_function_calling_sys_exit_ends_with_its_code(code: str, kind: type | None, here) -> None:
    """With code 0 it has succeeded without a result, independent of its output; any other code is a failure."""
    ran = here.call(f"import sys\ndef f():\n    print('last line')\n    sys.exit({code})")

    assert ran.value is None
    assert (type(ran.error) if ran.error else None) is kind


def test_function_process_exit_before_return_raises_module_failed(here) -> None:
    """Success requires evidence: an exit code of 0 is not enough."""
    ran = here.call("import os\ndef f():\n    print('last line')\n    os._exit(0)")

    assert type(ran.error) is ModuleFailed
    assert str(ran.error) == ("steps:f ended its process with exit code 0 and did not return; let it return, or raise")


def test_function_sys_argv_has_no_arguments(here) -> None:
    """``sys.argv`` has no arguments."""
    source = "import argparse, sys\ndef f(n):\n    argparse.ArgumentParser().parse_args()\n    return sys.argv[1:]"

    ran = here.call(source, n=1)

    assert ran.value == []


def test_function_bootstrap_ignores_files_that_shadow_stdlib(modules, bare_python, tmp_path) -> None:
    """Files in the working directory do not replace the modules of the bootstrap."""
    there = Functions(modules, bare_python)
    names = ("json", "inspect", "typing", "pathlib", "asyncio", "difflib", "tempfile", "importlib", "types", "re")
    for name in names:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    source = "from airflow_provider_sewer import task\nasync def f(p: 'Path'): return str(p.parent)"

    assert there.call(source, workdir=tmp_path, p="a/b").value == "a"
    assert "has no function 'g'" in there.call(source, "g", workdir=tmp_path).stderr


def test_function_of_module_shadowed_by_stdlib_error_names_file(here) -> None:
    """``json`` is loaded already; the message shows that it is another one than was meant."""
    ran = here.call("def f(): return 1", name="json")

    assert "/json/__init__.py) has no function 'f'" in ran.stderr


def test_function_imports_from_workdir_after_chdir(here, tmp_path) -> None:
    """Modules of its working directory are found wherever it has gone."""
    (tmp_path / "helper.py").write_text("N = 5")

    ran = here.call("import os\ndef f():\n    os.chdir('/')\n    import helper\n    return helper.N", workdir=tmp_path)

    assert ran.value == 5


def test_function_result_converts_numpy_scalars_and_paths(digits_python, modules) -> None:
    """A NumPy scalar is a number; an array is rejected with its name."""
    source = """
        import numpy as np
        from pathlib import Path
        def f():
            return [np.float32(0.5), np.int64(3), np.bool_(True), np.float64(2.5), np.array(7), Path("a/b")]
        def nan(): return {"loss": np.float32("nan")}
        def array(): return np.zeros(3)
    """
    there = Functions(modules, str(digits_python))

    assert there.call(source).value == [0.5, 3, True, 2.5, 7, "a/b"]
    assert there.call(source, "nan").stderr.startswith(
        "steps:nan must return a JSON value, got a dict (it contains a NaN"
    )
    assert there.call(source, "array").stderr.startswith("steps:array must return a JSON value, got a ndarray; ")


def test_function_bootstrap_removes_package_stub(modules, bare_python, tmp_path) -> None:
    """It lies beside the result, whose folder is removed; called by hand, it is removed at the end."""
    source = "import sys\nfrom airflow_provider_sewer import task\n@task\ndef f(): return sys.path[-1]"
    folder = Functions(modules, bare_python).call(source).value
    assert "sewer-" in folder
    assert not Path(folder).exists()

    argv = [bare_python, *function_call("steps:f", {}).argv]
    subprocess.run(
        argv, cwd=tmp_path, env={"PYTHONPATH": str(modules.folder), "TMPDIR": str(tmp_path)}, check=True, timeout=60
    )
    assert not list(tmp_path.glob("stub-*"))


@pytest.fixture(params=["this package", "nothing of it"])
def with_or_without(request, modules, bare_python) -> Callable[..., Ran]:
    """Return functions that call a function in an interpreter with this package, and in one without it."""
    root = str(Path(__file__).parent.parent.parent)
    path = os.pathsep.join([str(modules.folder), *([root] if request.param == "this package" else [])])
    settings = modules.settings(python=bare_python, env={"PYTHONPATH": path})

    def call(target: str, **kwargs: Any) -> Ran:
        return followed(ModuleRunner(function_call(target, kwargs), settings))

    return call


DECORATED = """
    import multiprocessing
    from airflow_provider_sewer import Task, task

    @task("a name")
    def double(n, plus=0):
        return n * 2 + plus

    more = double.partial(plus=1)

    def by_way_of_another(n):
        return double(n)

    @task
    def call(n):
        return [type(call).__name__, double(n), double.function(n), more(n)]

    @task
    def spread(numbers, method):
        with multiprocessing.get_context(method).Pool(2) as pool:
            return [pool.map(double, numbers), pool.map(by_way_of_another, numbers)]
"""


def test_task_decorator_returns_function_in_task_process(modules, with_or_without) -> None:
    """Functions call each other plainly, whether this package is installed there or not."""
    modules.write(DECORATED, "steps")

    assert with_or_without("steps:call", n=2).value == ["function", 4, 4, 5]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_task_decorator_returns_function_in_child_process(method, modules, with_or_without) -> None:
    """It is found by its name there and called; the call creates no task."""
    modules.write(DECORATED, "steps")

    ran = with_or_without("steps:spread", numbers=[1, 2], method=method)

    assert ran.value == [[2, 4], [2, 4]], ran.stderr


def test_task_decorator_returns_function_in_module_run_as_main(modules) -> None:
    """And a workflow file that is read there has its tasks all the same."""
    modules.write(DECORATED, "steps")
    flow = modules.folder / "flow.py"
    flow.write_text("from steps import double\ndouble(1)")
    root = str(Path(__file__).parent.parent.parent)
    settings = modules.settings(env={"PYTHONPATH": os.pathsep.join([str(modules.folder), root])})

    plain = modules.run("import steps\nprint(steps.double(1))", settings=settings)
    read = modules.run(
        f"import airflow_provider_sewer as a\nprint(*a.load_workflow({str(flow)!r}).tasks)", settings=settings
    )

    assert (plain.stdout, read.stdout) == ("2\n", "a name\n")
