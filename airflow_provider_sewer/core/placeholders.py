"""Placeholders of values that are known only at run time, and of their parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import InvalidTask

if TYPE_CHECKING:
    from typing import Self


class Placeholder:
    """Value that is known only at run time, or a part of it, such as ``value["seed"]``.

    :param key_path: keys of objects and positions in lists that lead to the part.
    """

    #: Description of the value ``None`` in messages.
    _if_none = "it is None"

    def __init__(self, key_path: tuple[str | int, ...]) -> None:
        self.key_path = key_path

    def _by(self, key_path: tuple[str | int, ...]) -> Self:
        raise NotImplementedError

    def __getitem__(self, key: str | int) -> Self:
        """Return a part of it.

        :raises InvalidTask: for anything but a key or a position.
        """
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            raise InvalidTask(f"{self!r}: select a part by a key or a position, got {key!r:.200}")
        return self._by((*self.key_path, key))

    def resolve(self, value: Any) -> Any:
        """Return this part of the value.

        :raises InvalidTask: when there is no such part.
        """
        part = value
        for index, key in enumerate(self.key_path):
            try:
                if isinstance(part, str):
                    raise TypeError("text has no parts")
                part = part[key]
            except (LookupError, TypeError):
                missing = self._by(self.key_path[: index + 1])
                raise InvalidTask(f"there is no {missing!r}: {self._describe(part)}") from None
        return part

    def _describe(self, value: Any) -> str:
        if isinstance(value, Mapping):
            return f"the object has the keys {', '.join(map(repr, list(value)[:10])) or 'none'}"
        if isinstance(value, list):
            return f"the list has {len(value)} items"
        return self._if_none if value is None else f"it is {value!r:.80}, which has no parts"
