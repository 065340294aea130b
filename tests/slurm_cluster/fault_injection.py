"""What goes wrong with a cluster of the tests."""

from __future__ import annotations


class SlurmTrouble(AssertionError):
    """The cluster, or a job in it, does not do what a test waits for."""
