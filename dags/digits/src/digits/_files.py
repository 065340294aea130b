"""Files that are written atomically, with one-line errors."""

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
    """Images of digits, 8 x 8 pixels from 0 (paper) to 16 (ink), with their labels."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def write_atomically(path: str, content: bytes) -> None:
    """Write a file atomically."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(target)
    except OSError as error:
        sys.exit(f"cannot write {target.absolute()}: {error.strerror}")
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_digits(path: str, digits: Digits) -> None:
    """Write images and labels as an .npz file."""
    content = io.BytesIO()
    np.savez(content, **digits._asdict())
    write_atomically(path, content.getvalue())


def read_digits(path: str) -> Digits:
    """Read a file written by :func:`write_digits`."""
    try:
        with np.load(path) as arrays:
            return Digits(**arrays)
    except OSError as error:
        sys.exit(f"cannot read {Path(path).absolute()}: {error.strerror}")
    except (EOFError, TypeError, ValueError, zipfile.BadZipFile):
        sys.exit(f"cannot read {Path(path).absolute()}: it was not written by digits.generate or digits.noise")


def write_json(path: str, values: dict[str, Any]) -> None:
    """Write values as JSON, one line each, so that long lists do not hide short values."""
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in values.items())
    write_atomically(path, f"{{\n{lines}\n}}\n".encode())


def read_json(path: str, names: set[str]) -> dict[str, Any]:
    """Read a JSON object with at least these keys."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        sys.exit(f"cannot read {Path(path).absolute()}: {error.strerror}")
    except ValueError:
        sys.exit(f"cannot read {Path(path).absolute()}: it is not valid JSON")
    if not isinstance(values, dict) or not names <= values.keys():
        sys.exit(f"cannot read {Path(path).absolute()}: it lacks some of {', '.join(sorted(names))}")
    return values
