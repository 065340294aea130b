"""Messages of errors: they show as much of a value as helps."""

from __future__ import annotations

import pytest

from airflow_provider_sewer.core.errors import SewerError, with_short_values

NAME, PATH = "x" * 300, "/" + "/".join(["y" * 100] * 60)


@pytest.mark.parametrize("value", [NAME, PATH, f"a{PATH}", *map(repr, (NAME, PATH, f"it's {NAME}")), f"({PATH}):3:"])
def test_error_shows_begin_of_long_value(value) -> None:
    """Quoted or not; and the words around it."""
    shown = str(SewerError(f"workdir: {value} does not exist; create it"))

    assert value[1:90] in shown
    assert "…" in shown
    assert shown.endswith("does not exist; create it")
    assert len(shown) < 260


@pytest.mark.parametrize("value", ["x" * 200, repr("x" * 200), f"/{'d' * 90}/{'e' * 90}/f.txt", "two words " * 100])
def test_error_shows_value_of_200_characters(value) -> None:
    """Also the shortened form of another error, which is part of a message."""
    assert with_short_values(value) == value
    once = with_short_values(f"{PATH} and {NAME!r}")
    assert with_short_values(once) == once


def test_error_keeps_long_lines_of_output() -> None:
    """Only the first line is a message."""
    assert with_short_values(f"failed:\n{PATH}") == f"failed:\n{PATH}"
