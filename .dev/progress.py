"""What is going on, shown while it goes on."""

from __future__ import annotations

import os
import shutil
import sys
import time

#: Seconds between two lines of progress where no terminal shows them.
REPORT = 10.0
#: Has a terminal forget the line it shows.
CLEAR = "\r\033[K"


class Progress:
    """What is going on: a line that changes on a terminal, now and then a new one elsewhere."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._start = time.monotonic()
        self._live = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._doing = ""
        self._reported = 0.0

    def tell(self, doing: str) -> None:
        """Say what is being done now."""
        self._doing = doing
        self.tick()

    def tick(self) -> None:
        """Show that time passes."""
        now = time.monotonic()
        if self._live:
            print(f"{CLEAR}{self._line(now)[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)
        elif now - self._reported >= REPORT:
            self._reported = now
            print(self._line(now), flush=True)

    def end(self, result: str) -> None:
        """Say how it ended."""
        self._doing = result
        print(f"{CLEAR if self._live else ''}{self._line(time.monotonic())}", flush=True)

    def _line(self, now: float) -> str:
        return f"{self._name}: {self._doing}, {now - self._start:.0f} s"
