"""Parsers for the output of Slurm's commands: rows of tables, exit codes, and configuration.

The texts differ between Slurm versions, and each table names the versions that print a text. The tests hold output that
was recorded on real clusters. An unreadable value is ``None``, never 0.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.slurm.backend import UNKNOWN_JOB, JobStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from airflow_provider_sewer.slurm.backend import JobRef

#: Fields of ``squeue -O``, one job a line. Command and name can hold anything, so they come last. A width of 0
#: prints a field in full and without padding: ``_print_str`` in src/squeue/print.c does so from 22.05 to 26.05.
QUEUE_FIELDS = (
    "JobArrayID:30|,State:30|,exit_code:12|,restartcnt:8|,StartTime:30|,PreemptTime:30|,NodeList:0|,Partition:0|,Reason:100|,"
    "Command:0|,Name:0"
)
#: Fields of ``squeue -o`` to find a job: the id of the job or of its array, command and name.
FIND_FIELDS = "%F|%o|%j"
#: Fields of ``sacct --format``.
ACCOUNTING_FIELDS = "JobID,State,ExitCode,NodeList,WorkDir,JobName"
#: The same for the usage of jobs and their steps.
USAGE_FIELDS = (
    "JobID,State,ElapsedRaw,TotalCPU,MaxRSS,NTasks,NNodes,AllocTRES,TRESUsageInTot,TimelimitRaw,Submit,Start,End,"
    "NodeList,WorkDir,JobName"
)

# Message about each try to resolve a name.
_ONE_TRY = re.compile(r"getaddrinfo\(\) failed: .*, attempt number -?\d+$")

JOB_ID = re.compile(r"(\d+)(;\S+)?")
_SCRIPT = "/job.sh|"
_GIGABYTE = 1024.0**3
_EXIT_CODE = re.compile(r"(\d+):(\d+)")
# A job with a sibling on another cluster of the federation; both clusters list it.
_REVOKED = "REVOKED"


class Row(NamedTuple):
    """A job in a table.

    :param folder: the folder of the script that it was submitted with, or its working directory; empty if not known.
    :param name: its present name, which a site or a user may have changed.
    :param status: its status.
    """

    folder: str
    name: str
    status: JobStatus = UNKNOWN_JOB

    def is_of(self, job: JobRef) -> bool:
        """Return whether this is a job: by the folder of its script, or else by its name.

        The name of a job is unique. A prefix or suffix that a site adds keeps it recognizable.
        """
        if job.is_submitted_from(self.folder):
            return True
        return job.name in self.name and bool(re.search(rf"(?<!\w){re.escape(job.name)}(?!\w)", self.name))


# -- Answers of sbatch -------------------------------------------------------------------------------------------------


# -- Tables ------------------------------------------------------------------------------------------------------------


def queue_rows(output: str) -> dict[str, Row]:
    """Parse the output of ``squeue -O``, by the ids of the jobs.

    :raises ValueError: when no line of a non-empty output is a job.
    """
    rows: dict[str, Row] = {}
    for job_id, row in _rows(output, QUEUE_FIELDS.count("|") - 1, _queue_row):
        # For a job of a federation, the cluster that runs it knows more than the one that had it first.
        if job_id not in rows or row.status.state != _REVOKED:
            rows[job_id] = row
    return rows


def found_rows(output: str) -> list[tuple[str, Row]]:
    """Parse the output of ``squeue -o``: ids of jobs and arrays, and their commands and names."""
    lines = (line.partition("|") for line in output.splitlines())
    return [(job_id, Row(*_command_and_name(rest))) for job_id, bar, rest in lines if bar]


def accounting_rows(lines: Iterable[str]) -> dict[str, Row]:
    """Parse the output of ``sacct -P``, by the ids of the jobs."""
    return dict(_rows("\n".join(lines), ACCOUNTING_FIELDS.count(",") - 1, _accounting_row))


class AccountedUsage(NamedTuple):
    """Usage of a job in accounting.

    :param row: the job.
    :param used: ``elapsed`` and ``cpu`` in seconds, ``cpus`` of all nodes, ``max_rss`` in bytes on one node, as far as
        they are known.
    :param allocated: ``mem_gb`` and ``gpus`` of one node, ``nodes`` where there are several, and ``timeout_min``.
    :param submitted: when it was submitted, or requeued, in seconds since the epoch; ``None`` if that is not known.
    :param started: when it started.
    :param ended: when it ended.
    """

    row: Row
    used: Mapping[str, float]
    allocated: Mapping[str, float]
    submitted: float | None
    started: float | None
    ended: float | None


def usage_rows(lines: Iterable[str]) -> dict[str, AccountedUsage]:
    """Parse the output of ``sacct -P`` with :data:`USAGE_FIELDS`, by the ids of the jobs.

    Only steps have a memory. The working directory of a short job can be missing.
    """
    jobs: dict[str, AccountedUsage] = {}
    peaks: dict[str, float] = {}
    names = USAGE_FIELDS.split(",")
    for line in lines:
        values = line.split("|", len(names) - 1)
        if len(values) < len(names):
            continue  # of a name with a line break
        fields = dict(zip(names, values, strict=True))
        job_id, _, step = fields["JobID"].partition(".")
        if not step:
            jobs[job_id] = _accounted(fields)
        peaks[job_id] = max(peaks.get(job_id, 0.0), _peak_on_a_node(fields))
    return {
        job_id: job._replace(used={**job.used, "max_rss": peaks[job_id]}) if peaks[job_id] else job
        for job_id, job in jobs.items()
    }


def _accounted(fields: Mapping[str, str]) -> AccountedUsage:
    nodes = number(fields["NNodes"]) or 1.0
    allocated = _resources(fields["AllocTRES"])
    used = {
        "elapsed": number(fields["ElapsedRaw"]),
        "cpu": _seconds(fields["TotalCPU"]),
        "cpus": number(allocated.get("cpu", "")),
    }
    of_a_node = {
        "mem_gb": _bytes(allocated.get("mem", "")) / _GIGABYTE / nodes,
        "gpus": number(allocated.get("gres/gpu", "")) / nodes,
        "nodes": nodes if nodes > 1 else 0.0,
        "timeout_min": number(fields["TimelimitRaw"]),
    }
    node = "" if fields["NodeList"] == "None assigned" else fields["NodeList"]
    submitted, started, ended = (number(fields[name]) or None for name in ("Submit", "Start", "End"))
    return AccountedUsage(
        Row(fields["WorkDir"], fields["JobName"], JobStatus(fields["State"].partition(" ")[0], node=node)),
        {name: value for name, value in used.items() if value},
        {name: value for name, value in of_a_node.items() if value},
        submitted,
        started if node else None,  # for a job that was cancelled before its start, Slurm reports that of its end
        ended,
    )


def _peak_on_a_node(fields: Mapping[str, str]) -> float:
    """Return the memory of a step on one node: MaxRSS is that of one of its tasks.

    Tasks whose number is no multiple of the number of nodes can all but one of each other node be on one node. The
    memory of all tasks together bounds it, too.
    """
    tasks, nodes = number(fields["NTasks"]) or 1.0, number(fields["NNodes"]) or 1.0
    on_a_node = tasks - nodes + 1 if tasks % nodes else tasks / nodes
    most = _bytes(fields["MaxRSS"]) * on_a_node
    return min(most, _bytes(_resources(fields["TRESUsageInTot"]).get("mem", "")) or most)


def _resources(text: str) -> dict[str, str]:
    """Return the amounts of ``cpu=2,mem=4G,node=1``."""
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)


def _seconds(time: str) -> float:
    """Return the seconds of ``[days-][hours:]minutes:seconds``; 0 if it is unreadable."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)", time)
    if found is None:
        return 0.0
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _bytes(memory: str) -> float:
    """Return the bytes of an amount such as ``5268K``; 0 if it is unreadable."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)", memory)
    return float(found[1]) * 1024.0 ** " KMGTP".index(found[2] or " ") if found else 0.0


def matching(job: JobRef, rows: Mapping[str, Row]) -> JobStatus:
    """Return the status of a job in a table; ``UNKNOWN_JOB`` if its id is missing there, or is now another job's."""
    row = rows.get(job.id)
    return row.status if row is not None and row.is_of(job) else UNKNOWN_JOB


def _rows(output: str, bars: int, read: Callable[[list[str]], tuple[str, Row]]) -> Iterator[tuple[str, Row]]:
    # A line with fewer bars continues a name that holds a line break.
    cut = [fields for line in output.splitlines() if len(fields := line.split("|", bars)) > bars]
    if output.strip() and not cut:
        raise ValueError(f"cannot read the table: {output.strip().splitlines()[0]!r}")
    return map(read, cut)


def _queue_row(fields: list[str]) -> tuple[str, Row]:
    *columns, rest = fields
    job_id, state, exit_text, restarts, start, preempted, nodes, partition, reason = map(str.strip, columns)
    exit_code, signal = exit_status(exit_text)
    status = JobStatus(
        state=state,
        reason="" if reason == "None" else reason,
        node="" if nodes == "(null)" else nodes,
        exit_code=exit_code,
        signal=signal,
        restarts=int(restarts) if restarts.isdecimal() else None,
        start=number(start) or None,
        partition=partition,
        is_preempted=number(preempted) > 0,
    )
    return job_id, Row(*_command_and_name(rest), status)


def _command_and_name(text: str) -> tuple[str, str]:
    """Return the folder of a sewer job's script, and the name of any job; both may hold bars."""
    folder, script, name = text.partition(_SCRIPT)
    return (folder, name) if script else ("", text.partition("|")[2])


def _accounting_row(fields: list[str]) -> tuple[str, Row]:
    job_id, state, exit_text, nodes, rest = fields
    exit_code, signal = exit_status(exit_text)
    word, _, by = state.partition(" ")  # "CANCELLED by 1000"
    folder, _, name = rest.partition("|")
    status = JobStatus(word, by, "" if nodes == "None assigned" else nodes, exit_code, signal)
    return job_id, Row(folder, name, status)


def exit_status(text: str) -> tuple[int | None, int | None]:
    """Parse an exit code and a signal; both are ``None`` if unreadable, the signal also if there was none.

    sacct prints ``3:0``. ``squeue -O exit_code`` does since 23.02; before it printed a raw wait status, such as 768.
    """
    if found := _EXIT_CODE.fullmatch(text.strip()):
        return int(found.group(1)), int(found.group(2)) or None
    if not text.strip().isdecimal():
        return None, None
    raw = int(text)
    signal = raw & 0x7F
    return (0, signal) if signal else (raw >> 8, None)


# -- Single values -----------------------------------------------------------------------------------------------------

_VERSION = re.compile(r"\b(\d+)\.(\d+)")


def read_version(text: str) -> tuple[int, int] | None:
    """Parse ``slurm-wlm 25.11.2`` as (25, 11)."""
    found = _VERSION.search(text)
    return (int(found.group(1)), int(found.group(2))) if found else None


def one_line(text: str) -> str:
    """Return the output of a command on one line, without the prefix of each of its lines."""
    return "; ".join(text_lines(text))


def number(text: str) -> float:
    """Parse a number; 0 if the text is not one."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def text_lines(text: str) -> Iterator[str]:
    """Yield the lines of a message, without those about single tries to resolve a name."""
    for line in text.strip().splitlines():
        if line.strip() and not _ONE_TRY.search(line):
            yield re.sub(r"^\w+: ((error|fatal): )?", "", line).rstrip()
