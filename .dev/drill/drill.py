"""One drill, from its beginning to its figures."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from typing import TYPE_CHECKING, NamedTuple

from drill.chaos import Action, Chaos
from drill.dossier import write_dossiers
from drill.evidence import is_settled, lost_by_slurm, tasks_seen
from drill.faults import Findings, find_faults
from drill.project import Project
from drill.stage import Stage
from tests.airflow.rest import Refused

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from pathlib import Path

#: Seconds between two checks whether all tasks have ended.
_CHECK_INTERVAL = 3.0
#: Maximum seconds until the first module runs.
_BEGINS_WITHIN = 120.0


class DrillFailed(Exception):
    """The drill itself failed."""


class Result(NamedTuple):
    """Result of a drill.

    :param findings: the faults and figures.
    :param signals: the number of signals, by kind of process and name of the signal.
    """

    findings: Findings
    signals: Counter[tuple[str, str]]

    def text(self) -> str:
        """Return the figures as two tables, and a line for each fault."""
        kinds = sorted({kind for kind, _ in self.signals})
        width = max(map(len, kinds), default=0)
        lines = [f"{'':<{width}}  SIGKILL  SIGSTOP"]
        lines += [
            f"{kind:<{width}}  {self.signals[kind, 'SIGKILL']:>7}  {self.signals[kind, 'SIGSTOP']:>7}" for kind in kinds
        ]
        lines += [
            f"{'all':<{width}}  {self._sum('SIGKILL'):>7}  {self._sum('SIGSTOP'):>7}",
            "",
            self.findings.table(),
            "",
        ]
        lines += [
            f"{fault.kind}: {fault.task}: {fault.text}" for fault in [*self.findings.faults, *self.findings.doubled]
        ]
        return "\n".join(lines)

    def _sum(self, how: str) -> int:
        return sum(count for (_, name), count in self.signals.items() if name == how)


def drill(folder: Path, tasks: int, seconds: float, settle: float, seed: int, notify: Callable[[str], None]) -> Result:
    """Run tasks, send signals meanwhile, wait until all tasks have ended, and return the findings.

    :param folder: for all files; it must not exist. ``faults`` in it has a file for each task instance with a fault.
    :param tasks: the number of tasks of one run; runs follow each other while signals are sent.
    :param seconds: how long signals are sent.
    :param settle: maximum seconds until all tasks have ended after that.
    :param seed: determines the signals, their times and the kinds of target processes.
    :param notify: called with progress lines.
    :raises DrillFailed: when no module has run.
    """
    folder.mkdir(parents=True)
    project = Project(folder)
    project.write_modules()
    actions: list[Action] = []
    with (folder / "signals.jsonl").open("a") as file, Stage(folder) as stage:

        def report(action: Action) -> None:
            actions.append(action)
            print(json.dumps(action._asdict()), file=file, flush=True)

        notify("Airflow and Slurm run")
        begin = datetime.now(UTC)
        project.write_dags(stage.airflow.home / "dags", tasks, begin + timedelta(seconds=seconds))
        chaos = Chaos(stage, seed, report)
        _wait_for_first_module(project, chaos)
        notify(f"the first module runs; sending signals for {seconds:g} s")
        chaos.run(seconds)
        notify(f"no more signals; waiting up to {settle:g} s for all tasks to end")
        chaos.calm()
        _settle(stage, chaos, settle, notify)
        stage.airflow.until(stage.airflow.log_in, "the API server to answer")
        seen = tasks_seen(stage, project)
        ledger = project.ledger()
        findings = find_faults(seen, ledger, lost_by_slurm(stage))
        findings.figures["jobs that Slurm shows as cancelled"] = sum(
            job.state == "CANCELLED" for job in stage.slurm.jobs()
        )
        write_dossiers(folder / "faults", findings, stage, ledger, actions)
    return Result(findings, chaos.signals)


def _wait_for_first_module(project: Project, chaos: Chaos) -> None:
    deadline = time.monotonic() + _BEGINS_WITHIN
    while not project.ledger():
        if time.monotonic() > deadline:
            raise DrillFailed(f"no module has run within {_BEGINS_WITHIN:g} s")
        chaos.tick()


def _settle(stage: Stage, chaos: Chaos, seconds: float, notify: Callable[[str], None]) -> None:
    """Wait until all task instances have ended, but at most ``seconds``."""
    deadline = time.monotonic() + seconds
    next_check = 0.0
    while time.monotonic() < deadline:
        chaos.tick()
        if time.monotonic() >= next_check:
            try:
                if is_settled(stage):
                    return
            except (OSError, HTTPException, Refused):
                pass  # the API server is starting again
            next_check = time.monotonic() + _CHECK_INTERVAL
    notify("timed out; not all tasks have ended")
