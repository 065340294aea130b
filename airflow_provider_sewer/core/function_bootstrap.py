"""Script that calls a function in any interpreter from 3.9 on, which need not have this package.

``python -c`` is given the text of this file (see :mod:`airflow_provider_sewer.core.call`), the function's name, and
its keyword arguments as JSON or as the path of a JSON file. A user or a debugger starts the file itself. A module may
import this package, for ``@task`` and annotations. Where the package is not installed, the module and the processes
that it spawns import a stub.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # at run time, an import here could find a file of the same name in the working directory
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

_FILE = globals().get("__file__", "")
_RESULT_FILE = os.environ.get("SEWER_RESULT_FILE")
_MOST_NAMES = 30
#: Explanations by parts of the messages of Python's errors.
_NO_JSON = {
    "ircular": "it contains itself",
    "float": "it contains a NaN or an infinity",
    "digits": "it contains a whole number with too many digits",
}


def _standard(name: str) -> Any:
    """Import a module of the standard library, even if a file of the same name lies beside the function's module."""
    own = (os.path.dirname(os.__file__), os.path.join(sys.base_exec_prefix, "lib"))
    path, sys.path = sys.path, [entry for entry in sys.path if entry.startswith(own)]
    try:
        __import__(name)
    finally:
        sys.path = path
    return sys.modules[name]


def evaluated(annotation: str, names: dict[str, Any]) -> Any:
    """Return the value of an annotation that is text, with ``X | Y`` in every Python.

    :param annotation: the text.
    :param names: the names that it can use; one is added.
    :raises Exception: any error of evaluating it.
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
    except TypeError:  # types before Python 3.10, and text or None beside a type without |
        return _standard("typing").Union[one, other]


def call(target: str, kwargs: str) -> None:
    """Call a function and write its result.

    :param target: ``module:function``.
    :param kwargs: its keyword arguments as JSON, or the absolute path of a file with them.
    """
    for name in ("ast", "inspect", "json", "pathlib", "typing"):  # before a file of the same name is imported
        _standard(name)
    function = _found(target)
    arguments = _arguments(target, function, _standard("json").loads(_read(kwargs)))
    try:
        result = function(**arguments)
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
            sys.exit(f"{sys.executable}: No module named {module}")  # the message of python -m
        raise
    except SystemExit as error:
        sys.exit(f"{module} exits with {error.code!r} while it is imported; put that code under if __name__ …")
    function: Any = sys.modules[module]
    for name in names.split("."):
        if not hasattr(function, name):
            file = getattr(sys.modules[module], "__file__", None) or "a part of Python"
            sys.exit(f"{module} ({file}) has no function {names!r}{_known(function, name, module)}")
        function = getattr(function, name)
    return function if callable(function) else sys.exit(f"{target} must be a function, got {type(function).__name__}")


def _known(owner: Any, name: str, module: str) -> str:
    names = [key for key, value in vars(owner).items() if callable(value) and not key.startswith("_")]
    own = [key for key in names if getattr(getattr(owner, key), "__module__", None) == module]
    close = _standard("difflib").get_close_matches(name, names, 1)
    guess = f"; did you mean {close[0]!r}?" if close else "."
    more = f" and {len(own) - _MOST_NAMES} more" if len(own) > _MOST_NAMES else ""
    return f"{guess} Known: {', '.join(map(repr, own[:_MOST_NAMES])) or 'none'}{more}."


def _arguments(target: str, function: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments, as paths where the function's annotations ask for them."""
    inspect = _standard("inspect")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError, NameError):  # of a function that is not Python, or names imported by checkers only
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
    """Convert the texts in a value, however deep, to paths where its annotation asks for them."""
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
        raise TypeError("" if value is result else f"it contains a {type(value).__name__}")

    try:
        return str(_standard("json").dumps(result, default=plain, allow_nan=False))
    except TypeError as error:
        reason = str(error)
    except ValueError as error:
        reason = next((text for part, text in _NO_JSON.items() if part in str(error)), str(error))
    except RecursionError:
        reason = "it is nested too deeply"
    sys.exit(
        f"{target} must return a JSON value, got a {type(result).__name__}{reason and f' ({reason})'}; return text, "
        "finite numbers, lists and dicts of these, or write the value to a product"
    )


class _Stub:
    """Finder of the stub; it comes last, so that an installed package is preferred."""

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> Any:
        if name != "airflow_provider_sewer":
            return None
        beside = os.path.dirname(_RESULT_FILE) if _RESULT_FILE else None
        folder = _standard("tempfile").mkdtemp(prefix="stub-", dir=beside)
        if beside is None:
            _standard("atexit").register(_standard("shutil").rmtree, folder, ignore_errors=True)
        with open(os.path.join(folder, f"{name}.py"), "w", encoding="utf-8") as file:
            file.write(STUB)
        sys.path.append(folder)  # inherited by the processes that it spawns
        return _standard("importlib.machinery").PathFinder.find_spec(name, [folder])


def _report_without_own_lines(then: Any) -> Any:
    def report(kind: Any, error: Any, trace: Any) -> None:
        asyncio = getattr(sys.modules.get("asyncio"), "__file__", None)
        own = (_FILE or "<string>", os.path.dirname(asyncio) if asyncio else "<string>")
        while trace and trace.tb_frame.f_code.co_filename.startswith(own):
            trace = trace.tb_next
        then(kind, error.with_traceback(trace), trace)

    return report


if __name__ == "__main__":
    os.environ.setdefault("SEWER_ATTEMPT_ID", "")  # with it, decorated functions stay plain functions
    # As with -m: later imports depend neither on the function's working directory nor on the folder of this file.
    if sys.path[:1] == [""] or (_FILE and os.path.realpath(sys.path[0]) == os.path.dirname(os.path.realpath(_FILE))):
        sys.path[0] = os.getcwd()
    sys.excepthook = _report_without_own_lines(sys.excepthook)
    sys.meta_path.append(_Stub())
    _arguments_of_process = sys.argv[1:]
    del sys.argv[1:]
    call(*_arguments_of_process)
