"""Call a function in whatever interpreter from 3.9 up, which need not have this package.

The text of this file is what ``python -c`` is given (see :mod:`airflow_provider_sewer.core.call`), with the
function's name and its keyword arguments: as JSON, or the path of a file that holds them so. A module that imports this
package, for ``@task`` and what stands in annotations, finds a stub where the package is not installed, and so do the
processes that the function spawns.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # while this runs, nothing may be imported here that a file of the same name could stand in for
    from typing import Any

STUB = """
from functools import partial


def task(function=None, **_):
    if not callable(function):
        return task
    function.function = function
    function.partial = partial(partial, function)
    return function


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    globals()[name] = type(name, (), {"__init__": lambda self, *_, **__: None})
    return globals()[name]
"""

_RESULT_FILE = os.environ.get("SEWER_RESULT_FILE")
_MOST_NAMES = 30
#: What there is to say of a value, by what Python's errors say.
_NO_JSON = {
    "ircular": "it holds itself",
    "float": "there is a NaN or an infinity in it",
    "digits": "there is a whole number in it with too many digits",
}


def _standard(name: str) -> Any:
    """Import a module of Python itself, whatever lies beside the function's module."""
    own = (os.path.dirname(os.__file__), os.path.join(sys.base_exec_prefix, "lib"))
    path, sys.path = sys.path, [entry for entry in sys.path if entry.startswith(own)]
    try:
        __import__(name)
    finally:
        sys.path = path
    return sys.modules[name]


def evaluated(annotation: str, names: dict[str, Any]) -> Any:
    """Return what an annotation says that is written as text, with ``X | Y`` in every Python.

    :param annotation: the text.
    :param names: the names that it can use; one of our own is added.
    :raises Exception: whatever comes of evaluating it.
    """
    ast = _standard("ast")

    class Unions(ast.NodeTransformer):  # type: ignore[misc, name-defined]
        def visit_BinOp(self, node: Any) -> Any:  # noqa: N802 - as ast has it
            self.generic_visit(node)
            if not isinstance(node.op, ast.BitOr):
                return node
            return ast.Call(ast.Name("__either__", ast.Load()), [node.left, node.right], [])

    tree = ast.fix_missing_locations(Unions().visit(ast.parse(annotation.strip(), mode="eval")))
    names["__either__"] = _either
    return eval(compile(tree, "<annotation>", "eval"), {}, names)  # noqa: S307 - the function's own text


def _either(one: Any, other: Any) -> Any:
    try:
        return one | other
    except TypeError:  # types before Python 3.10, and text or None beside what knows nothing of it
        return _standard("typing").Union[one, other]


def call(target: str, kwargs: str) -> None:
    """Call a function and leave its result.

    :param target: ``module:function``.
    :param kwargs: its keyword arguments as JSON, or the absolute path of a file with them.
    """
    for name in ("ast", "inspect", "json", "pathlib", "typing"):  # before a file of the same name is
        _standard(name)
    function = _found(target)
    given = _arguments(target, function, _standard("json").loads(_read(kwargs)))
    try:
        result = function(**given)
        if hasattr(type(result), "__await__"):
            result = _awaited(result)
    except SystemExit as error:
        if error.code not in (None, 0):
            raise
        result = None
    text = _as_json(target, result)
    if _RESULT_FILE:
        with open(_RESULT_FILE, "w", encoding="utf-8") as file:
            file.write(text)


def _read(kwargs: str) -> str:
    if kwargs.startswith("{"):
        return kwargs
    with open(kwargs, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _found(target: str) -> Any:
    module, _, names = target.partition(":")
    try:
        __import__(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            sys.exit(f"{sys.executable}: No module named {module}")  # as python -m says it
        raise
    except SystemExit as error:
        sys.exit(f"{module} ends the program (exit {error.code!r}) while it is imported; put that under if __name__ …")
    function: Any = sys.modules[module]
    for name in names.split("."):
        if not hasattr(function, name):
            place = getattr(sys.modules[module], "__file__", None) or "a part of Python"
            sys.exit(f"{module} ({place}) has no function {names!r}{_known(function, name, module)}")
        function = getattr(function, name)
    return function if callable(function) else sys.exit(f"{target} is no function but {type(function).__name__}")


def _known(owner: Any, wanted: str, module: str) -> str:
    names = [name for name, value in vars(owner).items() if callable(value) and not name.startswith("_")]
    own = [name for name in names if getattr(getattr(owner, name), "__module__", None) == module]
    close = _standard("difflib").get_close_matches(wanted, names, 1)
    guess = f"; did you mean {close[0]!r}?" if close else "."
    more = f" and {len(own) - _MOST_NAMES} more" if len(own) > _MOST_NAMES else ""
    return f"{guess} Known: {', '.join(map(repr, own[:_MOST_NAMES])) or 'none'}{more}."


def _arguments(target: str, function: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments, with paths where the function's annotations say so."""
    inspect = _standard("inspect")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError, NameError):  # of what is not written in Python, or names what only checkers import
        return kwargs
    try:
        signature.bind(**kwargs)
    except TypeError as error:
        takes = [str(each.replace(annotation=each.empty)) for each in signature.parameters.values()]
        sys.exit(f"{target} cannot be called with ({', '.join(kwargs)}): {error}; it takes ({', '.join(takes)})")
    names = {"Path": _standard("pathlib").Path, **getattr(inspect.unwrap(function), "__globals__", {})}
    hints = {name: each.annotation for name, each in signature.parameters.items()}
    more = next((name for name, each in signature.parameters.items() if each.kind is each.VAR_KEYWORD), None)
    return {name: _with_paths(value, hints.get(name, hints.get(more)), names) for name, value in kwargs.items()}


def _type(hint: Any, names: dict[str, Any]) -> Any:
    hint = getattr(hint, "__forward_arg__", hint)
    try:
        return evaluated(hint, names) if isinstance(hint, str) else hint
    except Exception:  # such as a name that only type checkers import
        return None


def _with_paths(value: Any, hint: Any, names: dict[str, Any]) -> Any:
    """Make paths of the text in a value, however deep, where its annotation says that they are."""
    typing = _standard("typing")
    while isinstance(hint, str) or hasattr(hint, "__forward_arg__"):
        hint = _type(hint, names)
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if kind is typing.Annotated:
        return _with_paths(value, inner[0], names)
    if kind is typing.Union or type(hint).__name__ == "UnionType":
        each_of = [_type(each, names) for each in inner]
        others = (_with_paths(value, each, names) for each in each_of)
        return value if str in each_of else next((other for other in others if other != value), value)
    if isinstance(value, str) and isinstance(hint, type) and issubclass(hint, _standard("pathlib").PurePath):
        return hint(value)
    if isinstance(value, list) and inner:
        hints = inner if kind is tuple and len(inner) == len(value) else inner[:1] * len(value)
        return [_with_paths(*pair, names) for pair in zip(value, hints)]
    if isinstance(value, dict) and len(inner) == len(("key", "value")):
        return {key: _with_paths(item, inner[1], names) for key, item in value.items()}
    return value


def _awaited(result: Any) -> Any:
    async def wait() -> Any:
        return await result

    return _standard("asyncio").run(wait())


def _as_json(target: str, result: Any) -> str:
    def plain(value: Any) -> Any:
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if type(value).__module__ == "numpy" and not getattr(value, "ndim", 1):
            return value.item()
        raise TypeError("" if value is result else f"there is a {type(value).__name__} in it")

    try:
        return str(_standard("json").dumps(result, default=plain, allow_nan=False))
    except TypeError as error:
        why = str(error)
    except ValueError as error:
        why = next((said for part, said in _NO_JSON.items() if part in str(error)), str(error))
    except RecursionError:
        why = "it is nested too deeply"
    sys.exit(
        f"{target} returned a {type(result).__name__}, which JSON cannot say{why and f' ({why})'}; return text, finite "
        "numbers, lists and dicts of these, or write the value to a product"
    )


class _Stub:
    """Finds the stub last of all, and so only where the package is not installed."""

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> Any:
        if name != "airflow_provider_sewer":
            return None
        beside = os.path.dirname(_RESULT_FILE) if _RESULT_FILE else None
        folder = _standard("tempfile").mkdtemp(prefix="stub-", dir=beside)
        if beside is None:
            _standard("atexit").register(_standard("shutil").rmtree, folder, ignore_errors=True)
        with open(os.path.join(folder, f"{name}.py"), "w", encoding="utf-8") as file:
            file.write(STUB)
        sys.path.append(folder)  # which the processes that it spawns are told as well
        return _standard("importlib.machinery").PathFinder.find_spec(name, [folder])


def _report_without_own_lines(then: Any) -> Any:
    def report(kind: Any, error: Any, trace: Any) -> None:
        asyncio = getattr(sys.modules.get("asyncio"), "__file__", None)
        own = ("<string>", os.path.dirname(asyncio) if asyncio else "<string>")
        while trace and trace.tb_frame.f_code.co_filename.startswith(own):
            trace = trace.tb_next
        then(kind, error.with_traceback(trace), trace)

    return report


if __name__ == "__main__":
    os.environ.setdefault("SEWER_ATTEMPT_ID", "")  # told by it, decorated functions stay what they are
    if sys.path[:1] == [""]:  # as with -m: what is imported later is found wherever the function has gone
        sys.path[0] = os.getcwd()
    sys.excepthook = _report_without_own_lines(sys.excepthook)
    sys.meta_path.append(_Stub())
    _arguments_of_process = sys.argv[1:]
    del sys.argv[1:]
    call(*_arguments_of_process)
