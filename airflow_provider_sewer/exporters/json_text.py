"""How this package writes JSON: readable, and always valid UTF-8."""

from __future__ import annotations

import json
import re
from typing import Any

_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")


def to_json_text(data: Any, indent: str = "    ") -> str:
    """Write plain data as JSON, without a line break at the end.

    Letters stay what they are. Only the bytes of an argument that is no UTF-8, which Python keeps as lone
    surrogates, are escaped: they could not be written to a file.

    :raises ValueError: for NaN and the infinities, which JSON does not know.
    """
    text = json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=False)
    return _LONE_SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
