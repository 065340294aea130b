"""Markers in the annotations of a function's parameters: products, dependencies, and ignored values."""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Callable, ForwardRef, Literal, Union, get_args, get_origin

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.function_bootstrap import evaluated
from airflow_provider_sewer.core.paths import Dependency, External, PathMarker, Product
from airflow_provider_sewer.core.placeholders import Ignored, Result

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FunctionType

    from airflow_provider_sewer.core.source import SourceLine

#: Marker beside the type in ``Annotated[Path, Product]``: a class, or a marker with options and without a path.
Annotation = Union[type, PathMarker]

_CLASSES = (Product, Dependency, External, Ignored)


def annotations_of(function: FunctionType, where: SourceLine) -> dict[str, Annotation]:
    """Return the markers of a function's parameters, by name.

    An annotation may be text, as under ``from __future__ import annotations``, and use names that only type checkers
    import.

    :param where: the function's line.
    :raises InvalidTask: when an annotation with a marker cannot be evaluated.
    """
    marks: dict[str, Annotation] = {}
    names = _Names(inspect.unwrap(function).__globals__)
    for parameter in inspect.signature(function).parameters.values():
        label = f"parameter {parameter.name!r} of {function.__name__}"
        for mark in _marks_in(parameter.annotation, lambda text: _evaluated(text, names, label, where)):  # noqa: B023
            if isinstance(mark, _Unknown):
                raise InvalidTask(
                    f"{label}: {mark.name} is imported only for type checkers; import it at run time", where
                )
            if isinstance(mark, PathMarker) and mark.path:
                raise InvalidTask(f"{label}: {mark!r} must have no path here; the call passes it", where)
            marks.setdefault(parameter.name, mark)
    return marks


def annotated(mark: Annotation, value: Any) -> Any:
    """Apply a marker to a value, or to each item of a list or mapping; ``None`` stays ``None``.

    :raises InvalidTask: when the value is not a path, or already has another marker.
    """
    if isinstance(value, (list, tuple)):
        return [annotated(mark, item) for item in value]
    if isinstance(value, Mapping):
        return {key: annotated(mark, item) for key, item in value.items()}
    kind = mark if isinstance(mark, type) else type(mark)
    if value is None or isinstance(value, kind):
        return value
    if kind is Ignored:
        return Ignored(value)
    if isinstance(value, Result) and kind is not Product:
        return value
    if isinstance(value, Result) or (isinstance(value, PathMarker) and kind is Product):
        raise InvalidTask(f"must be a Product, got {value!r:.200}; give it a path of its own")
    return mark(value) if isinstance(mark, type) else mark.at(value)


class _Unknown:
    """Placeholder of an undefined name in an annotation."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, name: str) -> _Unknown:
        if name.startswith("_"):
            raise AttributeError(name)
        return _Unknown(name)

    def __call__(self, *_: Any, **__: Any) -> _Unknown:
        return self

    def __getitem__(self, _: Any) -> _Unknown:
        return self


class _Names(dict[str, Any]):
    """Names that an annotation can use."""

    def __init__(self, globals_: Mapping[str, Any]) -> None:
        self._globals = globals_

    def __missing__(self, name: str) -> Any:
        return self._globals[name] if name in self._globals else getattr(builtins, name, _Unknown(name))


def _evaluated(annotation: str, names: _Names, label: str, where: SourceLine) -> Any:
    try:
        return evaluated(annotation, names)
    except Exception as error:
        if not any(each.__name__ in annotation for each in _CLASSES):
            return None
        raise InvalidTask(
            f"{label}: cannot evaluate its annotation {annotation!r}: {type(error).__name__}: {error}", where
        ) from None


def _marks_in(hint: Any, evaluated: Callable[[str], Any]) -> Iterator[Any]:
    """Return the markers in an annotation, however deep; an undefined name counts if it is that of a marker."""
    while isinstance(hint, (str, ForwardRef)):
        hint = evaluated(hint if isinstance(hint, str) else hint.__forward_arg__)
    if get_origin(hint) is Annotated:
        for each in hint.__metadata__:
            is_class = isinstance(each, type) and issubclass(each, (PathMarker, Ignored))
            is_unknown = isinstance(each, _Unknown) and each.name in {mark.__name__ for mark in _CLASSES}
            if is_class or is_unknown or isinstance(each, PathMarker):
                yield each
        yield from _marks_in(hint.__origin__, evaluated)
    elif get_origin(hint) is not Literal:
        for inner in get_args(hint):
            yield from _marks_in(inner, evaluated)
