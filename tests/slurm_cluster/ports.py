"""Ports for the daemons of one cluster: those that are free, and those with a listener."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.slurm_cluster.fault_injection import SlurmTrouble

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

# Below the ports that the kernel hands out by itself: one that a daemon had must still be free for its restart.
_PORTS = range(20000, 32000)
_PORTS_APART = 100


@dataclass
class Ports:
    """Ports that no other cluster of any test run on this machine takes, as long as this object is held."""

    numbers: Iterator[int]
    lock: socket.socket = field(repr=False)

    def release(self) -> None:
        """Leave the ports to others."""
        self.lock.close()

    @classmethod
    def reserve(cls, how_many: int) -> Self:
        """Look for so many free ports in a row."""
        starts = list(range(_PORTS.start, _PORTS.stop - how_many, _PORTS_APART * (1 + how_many // _PORTS_APART)))
        random.shuffle(starts)
        for start in starts:
            # A name that the kernel forgets together with us, unlike a file.
            lock = socket.socket(socket.AF_UNIX)
            try:
                lock.bind(f"\0sewer-test-slurm-{start}")
            except OSError:
                lock.close()
                continue
            numbers = range(start, start + how_many)
            if all(map(_is_free, numbers)):
                return cls(iter(numbers), lock)
            lock.close()
        raise SlurmTrouble(f"no {how_many} free ports in a row in {_PORTS}")


def listens(port: int) -> bool:
    """Return whether a process listens on a port, without a connection to it."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        if state == "0A" and local.endswith(f":{port:04X}"):
            return True
    return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
