"""Files that are written whole or not at all, and whose absence is said in one line."""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Digits(NamedTuple):
    """Images of digits, 8 x 8 pixels from 0 (paper) to 16 (ink), and which digit each of them shows."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def write_whole(path: str, content: bytes) -> None:
    """Write a file that gets its name only when it is complete."""
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(target)
    except OSError as error:
        sys.exit(f"cannot write {target.absolute()}: {error.strerror}")
    finally:
        with suppress(OSError):
            part.unlink()


def write_digits(path: str, digits: Digits) -> None:
    """Write images and labels as an .npz file."""
    content = io.BytesIO()
    np.savez(content, **digits._asdict())
    write_whole(path, content.getvalue())


def read_digits(path: str) -> Digits:
    """Read what :func:`write_digits` wrote."""
    try:
        with np.load(path) as arrays:
            return Digits(**arrays)
    except OSError as error:
        sys.exit(f"cannot read {Path(path).absolute()}: {error.strerror}")
    except (EOFError, TypeError, ValueError, zipfile.BadZipFile):
        sys.exit(f"cannot read {Path(path).absolute()}: it holds no digits written by this project")


def write_json(path: str, values: dict[str, Any]) -> None:
    """Write values as JSON, one line for each, so that long lists do not hide the short values."""
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in values.items())
    write_whole(path, f"{{\n{lines}\n}}\n".encode())


def read_json(path: str, names: set[str]) -> dict[str, Any]:
    """Read JSON that has at least these values."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        sys.exit(f"cannot read {Path(path).absolute()}: {error.strerror}")
    except ValueError:
        sys.exit(f"cannot read {Path(path).absolute()}: it is no JSON")
    if not isinstance(values, dict) or not names <= values.keys():
        sys.exit(f"cannot read {Path(path).absolute()}: it lacks some of {', '.join(sorted(names))}")
    return values
