"""Readable JSON output that is always valid UTF-8."""

from __future__ import annotations

import json
import re
from typing import Any

_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")


def to_json_text(data: Any, indent: str = "    ") -> str:
    """Return plain data as JSON, without a line break at the end.

    Only lone surrogates, with which Python represents arguments that are not UTF-8, are escaped: they could not be
    written to a file.

    :raises ValueError: for NaN and the infinities, which JSON does not have.
    """
    text = json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=False)
    return _LONE_SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
