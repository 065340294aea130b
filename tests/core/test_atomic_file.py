"""Files are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airflow_provider_sewer.core.atomic_file import write_atomically


def test_write_atomically_replaces_the_file_and_leaves_no_other(tmp_path: Path) -> None:
    """The mode is private unless given."""
    path = tmp_path / "x"
    path.write_text("old")
    path.chmod(0o644)

    write_atomically(str(path), b"new", lasts=True)

    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o600)
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize(("modes", "found"), [({"mode": 0o666}, 0o640), ({"exact_mode": 0o664}, 0o664)])
def test_write_atomically_mode_is_masked_and_exact_mode_is_not(
    modes: dict[str, int], found: int, tmp_path: Path
) -> None:
    """As a file of a user, and as the file that it replaces."""
    before = os.umask(0o027)
    try:
        write_atomically(str(tmp_path / "x"), b"", **modes)
    finally:
        os.umask(before)

    assert (tmp_path / "x").stat().st_mode & 0o777 == found


def test_write_atomically_failure_keeps_the_former_file(tmp_path: Path) -> None:
    """Nothing is left beside it."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "y").touch()

    with pytest.raises(OSError, match="x"):
        write_atomically(str(tmp_path / "x"), b"new")

    assert os.listdir(tmp_path) == ["x"]
