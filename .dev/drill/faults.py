"""Compare the states in Airflow with the ledger written by the modules, and count the broken guarantees."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

FALSE_GREENS = "false greens"
SECOND_JOBS = "second jobs"
COMPUTED_AGAIN = "successes computed again"
HANGS = "hangs"
LOST_LINES = "lost lines"
FAILED = "failed tasks"
#: The figures that have to be 0, in the order of the table.
FAULTS = (FALSE_GREENS, SECOND_JOBS, COMPUTED_AGAIN, HANGS, LOST_LINES, FAILED)

#: Shown, but not counted as a fault: a process may be killed between logging lines and saving the offset.
DOUBLED_LINES = "doubled lines"

#: A task that LocalExecutor has taken and lost with a killed worker stays so: the executor cannot give it back
#: (`_handle_tasks_stuck_in_queued` in scheduler_job_runner.py, Airflow 3.3.2). No process of the package runs then.
LEFT_QUEUED = "queued"
FINAL = {"success", "failed", "upstream_failed", "skipped", "removed"}
STREAMS = ("stdout", "stderr")


class Entry(NamedTuple):
    """One line of the ledger, written by a running module.

    :param task: the task instance, see :attr:`TaskSeen.key`.
    :param job: the Slurm job's id.
    :param attempt: the name of the job directory's last folder.
    :param event: ``start``, ``end``, or ``signal`` for a SIGTERM that the module received.
    :param time: seconds since the epoch.
    :param lines: with ``end``, the number of lines written to each stream.
    """

    task: str
    job: str
    attempt: str
    event: str
    time: float
    lines: Mapping[str, int] = {}


@dataclass
class TaskSeen:
    """A task instance after the drill.

    :param key: ``<DAG>/<run>/<task>/<map index>``.
    :param state: its state.
    :param tries: the number of its last try.
    :param result: its XCom.
    :param logged: all lines of the module in the logs of all tries, by stream.
    :param has_product: whether its product exists; ``None`` for a task without one.
    """

    key: str
    state: str | None
    tries: int = 1
    result: Any = None
    logged: Mapping[str, list[str]] = field(default_factory=dict)
    has_product: bool | None = None


class Fault(NamedTuple):
    """Broken guarantee.

    :param kind: one of :data:`FAULTS`.
    :param task: the task instance.
    :param text: the evidence.
    :param count: the amount; 1 except for lost lines.
    """

    kind: str
    task: str
    text: str
    count: int = 1


@dataclass
class Findings:
    """Faults and figures of a drill.

    :param faults: the broken guarantees.
    :param doubled: the tasks with lines that were logged more than once.
    :param figures: further figures, by name.
    """

    faults: list[Fault]
    doubled: list[Fault]
    figures: dict[str, int]

    @property
    def counts(self) -> dict[str, int]:
        """Return the amount of each kind of fault, including 0."""
        counts = dict.fromkeys(FAULTS, 0)
        for fault in self.faults:
            counts[fault.kind] += fault.count
        return counts

    def table(self) -> str:
        """Return all figures as text."""
        rows = [(name, str(figure), "") for name, figure in self.figures.items()]
        rows += [(name, str(count), "has to be 0" + ", FAULT" * (count > 0)) for name, count in self.counts.items()]
        width = max(len(name) for name, _, _ in rows)
        return "\n".join(f"{name:<{width}}  {figure:>7}  {remark}".rstrip() for name, figure, remark in rows)


def find_faults(tasks: Iterable[TaskSeen], ledger: Iterable[Entry], lost_by_slurm: Iterable[str] = ()) -> Findings:
    """Return the faults and figures of all task instances.

    :param tasks: the task instances.
    :param ledger: all entries, in the order in which they were written.
    :param lost_by_slurm: ids of jobs that a restarted slurmctld had lost, and so ended; a further job after one of
        these is not a fault of the package.
    """
    entries: dict[str, list[Entry]] = {}
    for entry in ledger:
        entries.setdefault(entry.task, []).append(entry)
    tasks, lost = list(tasks), set(lost_by_slurm)
    faults = [fault for task in tasks for fault in _faults(task, entries.get(task.key, []), lost)]
    of_no_task = sorted(entries.keys() - {task.key for task in tasks})
    faults += [Fault(HANGS, key, "its module ran, but Airflow lists no such task instance") for key in of_no_task]
    doubled = [fault for task in tasks for fault in _doubled(task)]
    figures = {
        **_figures(tasks, [entry for some in entries.values() for entry in some], lost),
        DOUBLED_LINES: sum(fault.count for fault in doubled),
        "tasks with doubled lines": len(doubled),
    }
    return Findings(faults, doubled, figures)


def _faults(task: TaskSeen, entries: list[Entry], lost: set[str]) -> Iterator[Fault]:
    if task.state == "success":
        yield from _false_green(task, entries)
    elif task.state == LEFT_QUEUED:
        pass  # see the figures
    elif task.state not in FINAL:
        yield Fault(HANGS, task.key, f"still {task.state} in try {task.tries}")
    else:
        yield Fault(FAILED, task.key, f"{task.state} in try {task.tries}; {_story(entries)}")
    yield from _further_jobs(task, entries, lost)
    if task.state in FINAL:
        yield from _lost_lines(task, entries)


def _false_green(task: TaskSeen, entries: list[Entry]) -> Iterator[Fault]:
    """Find a success without a module that ran to its end, or without its result or product."""
    ended = {entry.job for entry in entries if entry.event == "end"}
    if not ended:
        yield Fault(FALSE_GREENS, task.key, f"success, but no module has come to its end; {_story(entries)}")
    elif _job_of(task) not in ended:
        yield Fault(FALSE_GREENS, task.key, f"the result {task.result!r} is of no job that has ended: {sorted(ended)}")
    elif task.has_product is False:
        yield Fault(FALSE_GREENS, task.key, "success, but its product is missing")


def _further_jobs(task: TaskSeen, entries: list[Entry], lost: set[str]) -> Iterator[Fault]:
    """Find each start after the first one; no task was cleared, so one job suffices."""
    started: list[Entry] = []
    ended: list[Entry] = []
    for entry in entries:
        if entry.event == "end":
            ended.append(entry)
        elif entry.event == "start":
            earlier = [one for one in started if one.job not in lost]
            if entry.job in lost and any(one.job == entry.job for one in started):
                pass  # slurmctld itself has restarted the job
            elif ended:
                text = f"{_name(entry)} started though {_name(ended[-1])} had ended well; {_story(entries)}"
                yield Fault(COMPUTED_AGAIN, task.key, text)
            elif earlier:
                text = f"{_name(entry)} started after {_name(earlier[-1])}; {_story(entries)}"
                yield Fault(SECOND_JOBS, task.key, text)
            started.append(entry)


def _lost_lines(task: TaskSeen, entries: list[Entry]) -> Iterator[Fault]:
    ended = {entry.job: entry for entry in entries if entry.event == "end"}
    if not ended:
        return
    entry = ended.get(_job_of(task)) or list(ended.values())[-1]
    for stream in STREAMS:
        logged = set(task.logged.get(stream, ()))
        numbers = [
            number for number in range(entry.lines.get(stream, 0)) if line_of(task.key, entry.job, number) not in logged
        ]
        if numbers:
            text = f"{len(numbers)} of {entry.lines[stream]} lines of {stream} of {_name(entry)}, {_ranges(numbers)}"
            yield Fault(LOST_LINES, task.key, text, len(numbers))


def line_of(task: str, job: str, number: int) -> str:
    """Return a line as the module writes it."""
    return f"{task} {job} {number}"


def _figures(tasks: list[TaskSeen], entries: list[Entry], lost: set[str]) -> dict[str, int]:
    return {
        "task instances": len(tasks),
        "green": sum(task.state == "success" for task in tasks),
        "tries": sum(task.tries for task in tasks),
        "modules started": sum(entry.event == "start" for entry in entries),
        "modules that received SIGTERM": sum(entry.event == "signal" for entry in entries),
        "jobs that slurmctld lost": len(lost),
        "tasks that LocalExecutor left queued": sum(task.state == LEFT_QUEUED for task in tasks),
        "lines logged": sum(len(lines) for task in tasks for lines in task.logged.values()),
    }


def _doubled(task: TaskSeen) -> Iterator[Fault]:
    again = [line for lines in task.logged.values() for line, count in Counter(lines).items() for _ in range(count - 1)]
    if again:
        size = sum(len(line.encode()) + 1 for line in again)
        yield Fault(DOUBLED_LINES, task.key, f"{len(again)} lines of {size} bytes, in {task.tries} tries", len(again))


def _job_of(task: TaskSeen) -> str:
    return str(task.result.get("job")) if isinstance(task.result, dict) else ""


def _name(entry: Entry) -> str:
    return f"job {entry.job} of attempt {entry.attempt}"


def _story(entries: list[Entry]) -> str:
    return ", ".join(f"{_name(entry)}: {entry.event}" for entry in entries) or "no module has started"


def _ranges(numbers: list[int]) -> str:
    """Return numbers in the shortest form: ``3-17, 20``."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    return ", ".join("-".join(map(str, one)) for one in ranges)
