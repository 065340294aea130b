"""Report on a faulty task instance: ledger, signals and log in one file, ordered by time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from drill.evidence import log_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from drill.chaos import Action
    from drill.faults import Entry, Fault, Findings
    from drill.stage import Stage


class _Event(NamedTuple):
    time: float
    source: str
    text: str

    def __str__(self) -> str:
        return f"{datetime.fromtimestamp(self.time, UTC):%H:%M:%S.%f} {self.source:<28} {self.text}"


def write_dossiers(folder: Path, findings: Findings, stage: Stage, ledger: list[Entry], actions: list[Action]) -> None:
    """Write a file for each task instance with a fault or with doubled lines.

    :param folder: the folder for the files.
    """
    folder.mkdir()
    by_task: dict[str, list[Fault]] = {}
    for fault in [*findings.faults, *findings.doubled]:
        by_task.setdefault(fault.task, []).append(fault)
    for task, faults in by_task.items():
        kinds = "+".join(dict.fromkeys(fault.kind.replace(" ", "-") for fault in faults))
        file = folder / f"{kinds}--{task.replace('/', '--')}.txt"
        with file.open("w") as out:
            for fault in faults:
                print(f"{fault.kind}: {fault.text}", file=out)
            print(file=out)
            for event in sorted(_events(stage, task, ledger, actions)):
                print(event, file=out)


def _events(stage: Stage, task: str, ledger: list[Entry], actions: list[Action]) -> Iterable[_Event]:
    own = [
        _Event(entry.time, "LEDGER", f"job {entry.job} of attempt {entry.attempt}: {entry.event}")
        for entry in ledger
        if entry.task == task
    ]
    lines: dict[tuple[str, str], list[float]] = {}
    for line in log_of(stage, task):
        if line.stream:
            # Only the times and the number of the module's lines.
            lines.setdefault((line.file, line.stream), []).append(line.time)
        else:
            entry = line.entry
            text = f"{entry.get('level', '')}: {entry.get('event')}"
            # The message of the error, which the log line does not contain.
            for error in entry.get("error_detail") or ():
                text += f"\n    {error.get('exc_type')}: {error.get('exc_value')}"
            own.append(_Event(line.time, line.file, text))
    for (file, stream), times in lines.items():
        own.append(_Event(min(times), file, f"the first of {len(times)} lines of {stream}"))
        own.append(_Event(max(times), file, f"the last of {len(times)} lines of {stream}"))
    if known := [event.time for event in own if event.time]:
        first, last = min(known), max(known)
        own += [
            _Event(action.time, "SIGNAL", f"{action.how} {action.kind} {action.detail}")
            for action in actions
            if first - 60 <= action.time <= last + 60
        ]
    return own
