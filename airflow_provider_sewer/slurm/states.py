"""Slurm's job states: which of them are terminal, and the error and advice for each.

The table follows the section "JOB STATE CODES" of squeue's manual, up to Slurm 24.11, and the observed behaviour of
22.05.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from airflow_provider_sewer.core import errors

#: The job waits, or waits again.
WAITING = frozenset(
    {
        "PENDING",
        "CONFIGURING",
        "POWER_UP_NODE",
        "REQUEUED",
        "REQUEUE_HOLD",
        "REQUEUE_FED",
        "RESV_DEL_HOLD",
        "SPECIAL_EXIT",
    }
)
#: The job runs, or is about to stop; a suspended job has not ended. REVOKED: a sibling runs on another cluster of the
#: federation. EXPEDITING (25.11): a requeued job is about to run again.
RUNNING = frozenset(
    {
        "RUNNING",
        "COMPLETING",
        "SUSPENDED",
        "STOPPED",
        "SIGNALING",
        "STAGE_OUT",
        "RESIZING",
        "UPDATE_DB",
        "REVOKED",
        "EXPEDITING",
    }
)


class TerminalState(NamedTuple):
    """Terminal state of a job without success.

    :param error: the class of the error.
    :param description: the event, as the second half of a sentence.
    :param advice: the fix.
    """

    error: type[errors.SlurmError]
    description: str
    advice: str


#: The terminal states without success. COMPLETED alone is not a success: that takes the exit record.
TERMINAL_STATES = {
    "FAILED": TerminalState(
        errors.SlurmJobFailed,
        "failed",
        "see its output",
    ),
    "OUT_OF_MEMORY": TerminalState(
        errors.SlurmOutOfMemory,
        "ran out of memory",
        "request more with slurm={'mem_gb': …}, or reduce its use",
    ),
    "TIMEOUT": TerminalState(
        errors.SlurmTimeout,
        "reached its time limit",
        "request more with slurm={'timeout_min': …}, or have the module save its progress",
    ),
    "NODE_FAIL": TerminalState(
        errors.SlurmNodeFailure,
        "lost its node",
        "run it again: with retries, or with requeue=True by Slurm itself",
    ),
    "PREEMPTED": TerminalState(
        errors.SlurmPreempted,
        "was preempted by another job",
        "use retries, requeue=True, or a partition or QOS that is not preempted",
    ),
    "CANCELLED": TerminalState(
        errors.SlurmCancelled,
        "was cancelled",
        "a user called scancel, or Slurm ended it; clear the task to run it again",
    ),
    "DEADLINE": TerminalState(
        errors.SlurmDeadline,
        "could not end before its deadline",
        "set a later deadline, or none",
    ),
    "BOOT_FAIL": TerminalState(
        errors.SlurmBootFailure,
        "had a node that did not boot",
        "try again, or exclude the node",
    ),
    "RECONFIG_FAIL": TerminalState(
        errors.SlurmBootFailure,
        "had a node that could not be set up",
        "try again, or exclude the node",
    ),
    "LAUNCH_FAILED": TerminalState(
        errors.SlurmLaunchFailure,
        "could not be started on its node",
        "check its output, and whether the node can access the job directory",
    ),
}

#: A job with these may be requeued, if requeue is set: Slurm shows them for a second or two.
REQUEUEABLE = frozenset({"NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "LAUNCH_FAILED", "RECONFIG_FAIL", "FAILED"})

#: All terminal states: the above, and COMPLETED.
ENDED = frozenset({*TERMINAL_STATES, "COMPLETED"})

#: All known states. A job in an unknown one is treated as still running.
KNOWN = WAITING | RUNNING | ENDED

#: Pending reasons that never pass, each with the fix. The names are those of src/common/job_state_reason.c and of the
#: descriptions that slurmctld shows instead, from 22.05 to 26.05. JobHeldUser and JobHeldAdmin are left out: a user or
#: an administrator who holds a job may release it.
UNSATISFIABLE_REASONS = {
    "DependencyNeverSatisfied": "the job it depends on did not end as `dependency` requires",
    "PartitionNodeLimit": "it requests more nodes than the partition has or allows",
    "PartitionTimeLimit": "it requests more time (timeout_min) than the partition allows",
    "PartitionConfig": "it requests more nodes than the partition has or allows, or more of a node than its nodes "
    "have; or the partition does not admit it",
    "MaxMemPerLimit": "it requests more memory than the partition allows",
    "BadConstraints": "no node satisfies its request",
    "InvalidAccount": "the account does not exist, or is not yours",
    "InvalidQOS": "the QOS does not exist",
    "AccountNotAllowed": "the account may not use this partition",
    "QOSNotAllowed": "the QOS may not be used here",
    "ReservationDeleted": "its reservation was deleted",
    "ReservationInvalid": "its reservation is invalid",
    "BurstBufferOperation": "an operation of its burst buffer failed, and it is held",
    "JobHoldMaxRequeue": "Slurm has requeued it as often as its limit allows",
    "launch failed requeued held": "it could not be started on a node and is held; look at the prolog and the node",
    "launch failure limit exceeded requeued held": "it could not be started on several nodes and is held; look at the "
    "prolog and the nodes",
    "job requeued in held state": "it was requeued and is held; release it, or clear the task",
    "job requeued in special exit state": "it was requeued after an exit code that the site holds jobs for",
    "user env retrieval failed requeued held": "the node could not create the user's login environment; a login shell "
    "such as nologin, or a profile that fails, is the usual cause: set slurm={'login_environment': False}",
}
#: Reasons that concern one partition. For a job that may run in several, Slurm shows the reason of the partition that
#: it tried last, while the job waits for another one.
_OF_ONE_PARTITION = re.compile(r"Partition|MaxMemPerLimit|AccountNotAllowed|QOSNotAllowed|uid \d+ not in group")
_OF_ONE_JOB = re.compile(r"(Assoc|QOS)(Max\w*(PerJob|PerNode)(Limit)?|Min\w+)$")
# Descriptions with names or numbers in them, and reasons that a later Slurm phrases differently.
_DESCRIBED = (
    (re.compile(r"\bconstraints can ?not be satisfied", re.IGNORECASE), UNSATISFIABLE_REASONS["BadConstraints"]),
    (re.compile(r"Reservation \S+ was deleted"), UNSATISFIABLE_REASONS["ReservationDeleted"]),
    (re.compile(r"Reservation \S+ is invalid"), UNSATISFIABLE_REASONS["ReservationInvalid"]),
    (re.compile(r"uid \d+ not in group permitted to use this partition"), "you may not use this partition"),
    # No reason that a user or an administrator causes ends like this.
    (re.compile(r"requeued held$"), "Slurm has requeued it and holds it; release it, or clear the task"),
)


def unsatisfiable_reason(reason: str, also: tuple[str, ...] | None, partition: str = "") -> str | None:
    """Return why a job with this pending reason never starts; ``None`` if it may start.

    :param reason: the reason that Slurm shows.
    :param also: reasons that count as unsatisfiable instead of the built-in ones, if given.
    :param partition: the partitions that the job may run in, separated by commas.
    """
    known = reason.strip("()").replace("_", " ") if " " not in reason else reason
    if also is not None:
        return "fail_on_pending_reason names it" if {reason, known} & set(also) else None
    if "," in partition and _OF_ONE_PARTITION.match(known):
        return None
    if _OF_ONE_JOB.match(reason):
        return "it requests more than the account or the QOS allows a single job"
    described = (advice for pattern, advice in _DESCRIBED if pattern.search(known))
    return UNSATISFIABLE_REASONS.get(reason) or UNSATISFIABLE_REASONS.get(known) or next(described, None)
