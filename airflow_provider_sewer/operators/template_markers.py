"""Markers in operator fields, kept out of the text that Airflow renders, stores and shows.

A DAG file can contain ``Product("{{ ds }}/raw.npz")`` in place of any value. The operator's field holds only the path.
The marker is stored by its position and restored after rendering.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_sewer.core.paths import PathMarker, Product, checked_text
from airflow_provider_sewer.core.placeholders import PLAIN, Ignored
from airflow_provider_sewer.operators.secret_fields import SecretField
from airflow_provider_sewer.operators.xcom_references import FromXCom

#: Fields of an operator that can contain markers.
MARKED = ("parameters_and_flags", "args", "op_kwargs", "products", "dependencies", "stdin", "stdout")


class TemplateMarkers:
    """Markers in operator fields, by their positions."""

    def __init__(self) -> None:
        self._marks: dict[tuple[Any, ...], Any] = {}
        #: Whether a value may contain an object that Airflow would resolve.
        self.has_objects = False

    def extract(self, value: Any, *position: Any) -> Any:
        """Return a value without its markers, and store these.

        :param position: the name of the field.
        """
        if type(value) in PLAIN:
            return value
        if type(value) is dict:
            return {
                key: item if type(item) in PLAIN else self.extract(item, *position, key) for key, item in value.items()
            }
        if isinstance(value, Ignored):
            self._marks[position] = value
            return self.extract(value.value, *position, None)
        if isinstance(value, PathMarker):
            self._marks[position] = value
            return value.path
        if isinstance(value, os.PathLike):
            return os.fspath(value)  # Airflow renders templates only in text
        if isinstance(value, dict):
            return {key: self.extract(item, *position, key) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self.extract(item, *position, at) for at, item in enumerate(value))
        self.has_objects = self.has_objects or not isinstance(value, (FromXCom, SecretField))
        return value

    def paths(self) -> list[str]:
        """Return the paths of the marked products and dependencies."""
        return [stored.path for stored in self._marks.values() if isinstance(stored, PathMarker)]

    def outside(self, field: str) -> list[PathMarker]:
        """Return the products and dependencies that are marked in other fields."""
        return [each for at, each in self._marks.items() if at[0] != field and isinstance(each, PathMarker)]

    def products(self) -> list[Product]:
        """Return the marked products."""
        return [stored for stored in self._marks.values() if isinstance(stored, Product)]

    def restore(self, value: Any, *position: Any) -> Any:
        """Return a rendered value with its markers restored; lazy sequences of XComs become lists, at any depth."""
        if isinstance(value, SecretField):
            value = value.value
        stored = self._marks.get(position)
        if isinstance(stored, Ignored):
            return Ignored(self.restore(value, *position, None))
        if isinstance(stored, PathMarker):
            marker = copy.copy(stored)
            marker.path = checked_text(type(stored).__name__, value)
            return marker
        if isinstance(value, Mapping):
            return {key: self.restore(item, *position, key) for key, item in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, range)):
            return [self.restore(item, *position, at) for at, item in enumerate(value)]
        return value
