"""Markers in the fields of an operator, parted from the text that Airflow fills in, stores and shows.

A DAG file can say ``Product("{{ ds }}/raw.npz")`` wherever a value can stand. The operator's field keeps the path
alone; what it stands for is kept aside by its place, and put back once the templates are filled in.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import Any

from airflow_provider_sewer.core.paths import PathMarker, Product, checked_text
from airflow_provider_sewer.core.values import PLAIN, Ignored


class TemplateMarkers:
    """What stands where in the fields of an operator."""

    def __init__(self) -> None:
        self._marks: dict[tuple[Any, ...], Any] = {}

    def __bool__(self) -> bool:
        """Tell whether there is anything."""
        return bool(self._marks)

    def extract(self, value: Any, *place: Any) -> Any:
        """Return a value as Airflow takes it, and note what was marked in it.

        :param place: the name of the field.
        """
        if type(value) in PLAIN:
            return value
        if type(value) is dict:
            return {
                key: item if type(item) in PLAIN else self.extract(item, *place, key) for key, item in value.items()
            }
        if isinstance(value, Ignored):
            self._marks[place] = value
            return self.extract(value.value, *place, None)
        if isinstance(value, PathMarker):
            self._marks[place] = value
            return value.path
        if isinstance(value, os.PathLike):
            return os.fspath(value)  # Airflow fills in templates only in text
        if isinstance(value, dict):
            return {key: self.extract(item, *place, key) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self.extract(item, *place, at) for at, item in enumerate(value))
        return value

    def paths(self) -> list[str]:
        """Return the paths of the products and dependencies that are marked."""
        return [mark.path for mark in self._marks.values() if isinstance(mark, PathMarker)]

    def products(self) -> list[Product]:
        """Return the products that are marked."""
        return [mark for mark in self._marks.values() if isinstance(mark, Product)]

    def restore(self, value: Any, *place: Any) -> Any:
        """Return a value with its markers, now that its templates are filled in."""
        mark = self._marks.get(place)
        if isinstance(mark, Ignored):
            return Ignored(self.restore(value, *place, None))
        if isinstance(mark, PathMarker):
            marker = copy.copy(mark)
            marker.path = checked_text(type(mark).__name__, value)
            return marker
        if isinstance(value, Mapping):
            return {key: self.restore(item, *place, key) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.restore(item, *place, at) for at, item in enumerate(value)]
        return value
