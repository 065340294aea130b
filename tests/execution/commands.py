"""Commands of Python programs, for the tests of how they are followed."""

from __future__ import annotations

import os
import sys
import textwrap
import threading
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.command import Command
from airflow_provider_sewer.execution.orphan_reaper import new_tag
from airflow_provider_sewer.execution.output import Stream
from airflow_provider_sewer.execution.process import Process

if TYPE_CHECKING:
    from collections.abc import Sequence

HOLD = """
    import os, signal, subprocess, sys, time
    life = os.open(sys.argv[1], os.O_WRONLY)
    def put(word): os.write(life, f"{word}\\n".encode())
"""


def process(source: str, *arguments: str, grace: float = 5.0) -> Process:
    """Return a process of a Python program."""
    argv = (sys.executable, "-u", "-c", textwrap.dedent(source), *map(str, arguments))
    return Process(Command(argv, {"PATH": os.environ["PATH"]}), mark=new_tag(), grace=grace)


def holding(source: str, lifeline, *arguments: str, grace: float = 5.0) -> Process:
    """Return a process of a Python program that holds the lifeline."""
    return process(textwrap.dedent(HOLD) + textwrap.dedent(source), lifeline.path, *arguments, grace=grace)


class Collected:
    """A sink that records its input."""

    def __init__(self) -> None:
        self.pieces: list[tuple[Stream, str]] = []
        self._come = threading.Condition()

    def __call__(self, stream: Stream, pieces: Sequence[str]) -> None:
        with self._come:
            self.pieces += [(stream, piece) for piece in pieces]
            self._come.notify_all()

    def of(self, stream: Stream) -> list[str]:
        return [piece for its, piece in self.pieces if its is stream]

    def expect(self, piece: str) -> None:
        """Wait until a piece has come."""
        with self._come:
            assert self._come.wait_for(lambda: any(piece == come for _, come in self.pieces), 60)


def drop(stream: Stream, pieces: Sequence[str]) -> None:
    """Take pieces and forget them."""
