"""Faults of a cluster of the tests."""

from __future__ import annotations


class SlurmTrouble(AssertionError):
    """The cluster, or a job in it, does not reach the state that a test waits for."""
