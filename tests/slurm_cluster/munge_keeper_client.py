"""What talks to the keeper, the process apart that holds all that runs in a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.slurm_cluster.fault_injection import SlurmTrouble

_KEEPER = Path(__file__).with_name("munge_keeper.py")


class KeeperClient:
    """Talks to the keeper of one cluster, from any thread."""

    def __init__(self, run_folder: Path, cgroups: list[Path], log: Path) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._owner = os.getpid()
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_KEEPER), str(self._owner), str(run_folder), *map(str, cgroups)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd="/",
                start_new_session=True,
            )
        # The process that was started only makes the keeper, which is then nobody's child.
        self._process.wait()

    def ask(self, ask: str, **details: Any) -> Any:
        """Send a request and return the answer."""
        with self._lock:
            answer = self._exchange({"ask": ask, **details})
        if "error" in answer:
            raise SlurmTrouble(f"{ask} {details}: {answer['error']}")
        return answer["answer"]

    def end(self) -> None:
        """End all processes of the cluster, and the keeper."""
        if os.getpid() != self._owner:
            return  # a fork of the process whose cluster this is
        with self._lock:
            left = self._exchange({"ask": "end"})["left"]
            self._process.stdout.read()  # its end is that of the keeper
            for pipe in (self._process.stdin, self._process.stdout):
                pipe.close()
        if left:
            raise SlurmTrouble(f"processes {left} cannot be killed")

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SlurmTrouble(f"the keeper of the cluster has died, see {self._log}")
        return json.loads(line)
