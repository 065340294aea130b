"""JSON that this package writes can be read by every program."""

from __future__ import annotations

import json
import math

import pytest

from airflow_provider_sewer.exporters.json_text import to_json_text


def test_to_json_text_escapes_only_lone_surrogates():
    """The text is valid UTF-8 and reads as the same data."""
    text = to_json_text({"größe": "数\udcff\u2028"})
    assert text == '{\n    "größe": "数\\udcff\u2028"\n}'
    assert text.encode("utf-8")
    assert json.loads(text) == {"größe": "数\udcff\u2028"}


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_to_json_text_rejects_nan_and_infinity(number):
    """Python would write a word for them that other programs stumble over."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json_text([number])
