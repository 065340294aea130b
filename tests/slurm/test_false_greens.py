"""Jobs that Slurm ends, whose modules save their work and exit with 0: none of them is a success.

``SEWER_TEST_ENDED_JOBS`` is their number for each kind of process tracking and number of children; 200 is thorough.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from airflow_provider_sewer.core import errors

if TYPE_CHECKING:
    from tests.slurm.conftest import Followed

JOBS = int(os.environ.get("SEWER_TEST_ENDED_JOBS", "12"))
AT_ONCE = 24

# Its children are like those of a data loader: they do nothing about signals.
SAVES = """
    for _ in range({children}):
        if os.fork() == 0:
            signal.pause()
    signal.signal(signal.SIGTERM, lambda *_: (say("saved"), os._exit(0)))
    say("trains")
    while True:
        signal.pause()
"""


@pytest.mark.parametrize("children", [0, 48])
def test_exit_0_after_slurm_signal_is_never_success(tracked_jobs, children, capsys) -> None:
    """By scancel, at the time limit and by preemption, each job fails with the matching error."""
    began = time.monotonic()
    verdicts: Counter[tuple[str, str, bool]] = Counter()
    left = JOBS
    while left > 0:
        count = min(left, AT_ONCE)
        verdicts += ended(tracked_jobs, children, count)
        left -= count
    with capsys.disabled():
        print(f"\n{tracked_jobs.slurm.proctrack}, {children} children, {time.monotonic() - began:.0f} s:")
        for (how, outcome, has_saved), number in sorted(verdicts.items()):
            print(f"  {number:4} {how}: {outcome}{', saved' if has_saved else ''}")

    assert {(how, outcome) for how, outcome, _ in verdicts} == {
        ("scancel", errors.SlurmCancelled.__name__),
        ("time limit", errors.SlurmTimeout.__name__),
        ("preemption", errors.SlurmPreempted.__name__),
    }
    assert sum(verdicts.values()) == JOBS


def ended(jobs, children: int, count: int) -> Counter[tuple[str, str, bool]]:
    """Start so many jobs, have a third of them ended in each way, and count the outcomes."""
    ways = {"scancel": {"nodelist": "n1"}, "time limit": {"nodelist": "n2"}}
    ways["preemption"] = {"nodelist": "n3", "partition": "scavenge"}
    source = SAVES.format(children=children)
    started: dict[str, list[Followed]] = {how: [] for how in ways}
    for number in range(count):
        how = list(ways)[number % len(ways)]
        started[how].append(jobs.start(source, slurm=ways[how]))
    for followed in started.values():
        for job in followed:
            job.expect_line("trains")
    for job in started["time limit"]:
        jobs.slurm.time_out(job.id)
    jobs.slurm.command("scancel", *[job.id for job in started["scancel"]])
    in_the_way = jobs.slurm.submit("true", "--exclusive", "--nodelist=n3")
    verdicts: Counter[tuple[str, str, bool]] = Counter()
    for how, followed in started.items():
        for job in followed:
            job.end()
            verdicts[how, type(job.error).__name__ if job.error else "success", "saved" in job.stdout] += 1
    jobs.slurm.wait_for(in_the_way, "COMPLETED")
    return verdicts
