"""Durations, as text for a reader."""

from __future__ import annotations

_MINUTE = 60


def duration_text(seconds: float) -> str:
    """Return a duration for a reader, such as ``12.3 s``, ``5 min 3 s`` or ``2 h 5 min``; empty for 0."""
    if not seconds:
        return ""
    if round(seconds, 1) < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _MINUTE)
    return f"{minutes} min {rest} s" if minutes < _MINUTE else f"{minutes // _MINUTE} h {minutes % _MINUTE} min"
