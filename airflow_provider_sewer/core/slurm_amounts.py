"""Amounts of memory, time, CPUs, nodes and GPUs: read from Slurm parameters, and written as these."""

from __future__ import annotations

import math
import re
from typing import Any, Callable, Optional

#: Slurm's units of memory in megabytes; without one it counts megabytes (sbatch, --mem).
_UNITS = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}
_MEMORY = re.compile(r"([0-9]{1,18})([KMGT]?)B?")
_TIME = re.compile(r"(?:([0-9]{1,18})-)?([0-9]{1,18})(?::([0-9]{1,18}))?(?::([0-9]{1,18}))?")

#: Parameters with an amount of memory as text.
_MEMORY_TEXTS = ("mem", "mem_per_cpu", "mem_per_gpu")
_GPUS = ("gpus_per_node", "gpus_per_task")

#: Parameters that are, or contain, an amount.
AMOUNTS = (
    "timeout_min", "time", "nodes", "tasks_per_node", "ntasks_per_node", "cpus_per_task", "cpus_per_gpu", *_GPUS,
    "mem_gb", *_MEMORY_TEXTS,
)  # fmt: skip


def amount_of(name: str, value: Any) -> Optional[float]:
    """Return the amount of a parameter: memory in megabytes, time in minutes, or a count; ``None`` for no limit.

    For Slurm, memory of 0 is all memory of a node, and a time of 0 is no limit.

    :param name: one of :data:`AMOUNTS`.
    :param value: its checked value.
    """
    if name == "mem_gb":
        return float(value) * 1024
    if name in _MEMORY_TEXTS:
        return megabytes(value) or None
    if name == "time":
        return minutes(value) or None
    if name in _GPUS:
        return float(sum(_count(part) for part in str(value).split(",")))
    return float(value)


def multiplied(name: str, value: Any, factor: float) -> Any:
    """Return the value of a parameter times a factor, in the form of the value; Slurm's integers are rounded up."""
    if name == "mem_gb":
        return _gigabytes_number(math.ceil(round(float(value) * 1024 * factor, 6)))
    if name in _MEMORY_TEXTS:
        return _memory_text(math.ceil(round(megabytes(value) * factor, 6)))
    if name == "time":
        is_plain = str(value).isdecimal()
        return _time_text((minutes(value) or 0.0) * factor, is_plain=is_plain)
    if name in _GPUS and not isinstance(value, int):
        return _with_counts(value, lambda count: math.ceil(round(count * factor, 6)))
    return math.ceil(round(float(value) * factor, 6))


def with_amount(name: str, value: Any, amount: float) -> Any:
    """Return the value of a parameter with another amount, in the form of the value.

    :param amount: as :func:`amount_of` returns it.
    """
    if name == "mem_gb":
        return _gigabytes_number(math.floor(amount))
    if name in _MEMORY_TEXTS:
        return _memory_text(math.floor(amount))
    if name == "time":
        return _time_text(amount, is_plain=str(value).isdecimal() and amount == int(amount))
    if name in _GPUS and not isinstance(value, int):
        factor = amount / (amount_of(name, value) or 1.0)
        return _with_counts(value, lambda count: math.floor(round(count * factor, 6)))
    return int(amount)


def megabytes(text: Any) -> float:
    """Return the megabytes of an amount of memory as sbatch takes it, such as ``4G``.

    :raises ValueError: for any other text.
    """
    found = _MEMORY.fullmatch(str(text).upper())
    if found is None:
        raise ValueError(f"memory must be an amount such as '4G', got {text!r:.200}")
    return int(found[1]) * _UNITS[found[2] or "M"]


def minutes(time: Any) -> Optional[float]:
    """Return minutes from sbatch's M, M:S, H:M:S, D-H, D-H:M or D-H:M:S; ``None`` for no limit."""
    found = _TIME.fullmatch(str(time))
    if found is None:
        return None
    days, *fields = found.groups()
    numbers = [int(field) for field in fields if field is not None]
    if days is None and fields[-1] is None:  # minutes come first
        numbers = [0, *numbers]
    hours, mins, seconds = (*numbers, 0, 0)[:3]
    return (int(days or 0) * 24 + hours) * 60 + mins + seconds / 60


def _gigabytes_number(amount: int) -> Any:
    return amount // 1024 if amount % 1024 == 0 else amount / 1024


def _memory_text(amount: int) -> str:
    return f"{amount // 1024}G" if amount % 1024 == 0 and amount else f"{amount}M"


def _time_text(amount: float, *, is_plain: bool) -> str:
    """Return minutes as sbatch takes them: a plain number, or D-HH:MM:SS."""
    if is_plain:
        return str(math.ceil(round(amount, 6)))
    whole, seconds = divmod(math.ceil(round(amount * 60, 6)), 60)
    hours, mins = divmod(whole, 60)
    days, hours = divmod(hours, 24)
    return f"{days}-{hours:02}:{mins:02}:{seconds:02}"


def _with_counts(gpus: str, change: Callable[[int], int]) -> str:
    """Return numbers of GPUs by type, each of them changed."""
    parts = [part.rpartition(":") for part in gpus.split(",")]
    return ",".join(f"{kind}{colon}{change(int(number))}" for kind, colon, number in parts)


def _count(gpus: Any) -> int:
    return int(str(gpus).rpartition(":")[2])
