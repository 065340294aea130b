"""Values that are known later than the workflow, and the parts of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import InvalidTask

if TYPE_CHECKING:
    from typing import Self


class Placeholder:
    """A value that is known later, or a part of one, such as ``value["seed"]``.

    :param way: the way into it: keys of objects and positions in lists.
    """

    #: What it means that the value is ``None``.
    _if_none = "it is None"

    def __init__(self, key_path: tuple[str | int, ...]) -> None:
        self.key_path = key_path

    def _by(self, way: tuple[str | int, ...]) -> Self:
        raise NotImplementedError

    def __getitem__(self, key: str | int) -> Self:
        """Return a part of it.

        :raises InvalidTask: for anything but a key or a position.
        """
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            raise InvalidTask(f"{self!r}: a part of it is named by a key or a position, not {key!r:.200}")
        return self._by((*self.key_path, key))

    def resolve(self, value: Any) -> Any:
        """Return this part of the value.

        :raises InvalidTask: when there is no such part.
        """
        part = value
        for at, key in enumerate(self.key_path):
            try:
                if isinstance(part, str):
                    raise TypeError("a letter of a text is no part of it")
                part = part[key]
            except (LookupError, TypeError):
                asked = self._by(self.key_path[: at + 1])
                raise InvalidTask(f"there is no {asked!r}: {self._what(part)}") from None
        return part

    def _what(self, value: Any) -> str:
        if isinstance(value, Mapping):
            return f"the object has the keys {', '.join(map(repr, list(value)[:10])) or 'none'}"
        if isinstance(value, list):
            return f"the list has {len(value)} items"
        return self._if_none if value is None else f"it is {value!r:.80}, which has no parts"
