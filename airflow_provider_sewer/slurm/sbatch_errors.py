"""Meaning of the errors of sbatch for a submission."""

from __future__ import annotations

import enum
import re
from typing import NamedTuple

from airflow_provider_sewer.slurm.parsing import JOB_ID, one_line, text_lines


class AnswerKind(enum.Enum):
    """Meaning of sbatch's answer for a submission."""

    ACCEPTED = "taken"
    REJECTED = "refused"  #: permanently: the same submission is rejected again
    FULL = "full"  #: a limit on the number of jobs is reached
    UNREACHABLE = "away"  #: the controller, or a service it depends on, is unreachable or too busy
    UNCLASSIFIED = "strange"  #: an answer that is in no table


class Answer(NamedTuple):
    """Answer of sbatch.

    :param kind: its meaning.
    :param words: the text on its standard error, on one line.
    :param job_id: the id of the job if it was accepted.
    """

    kind: AnswerKind
    words: str
    job_id: str = ""


# The last line after a query of the controller: the text of the error code in its answer, or of a network error. Where
# the site's job_submit plugin rejects a job, that is the text of any code it returns, "Unspecified error" for
# slurm.ERROR, and the plugin's message for the user is on the lines before it (22.05, 24.11, 25.11).
_ANSWERED = re.compile(r"^Batch job submission failed: (.*)")


# The last line where the site's cli_filter plugin has rejected the job, so that the controller was not queried.
_FILTER_REFUSED = "cli_filter plugin terminated with error"


# Exit code of sbatch for invalid options.
_BAD_OPTION = 255


# Messages of versions from 22.05 to 25.11 about a script that they cannot read, or an option that they reject; they
# reject the same script the next time too.
_BAD_SCRIPT = re.compile(
    r"line \d+: (Unmatched|Unexpected) |Failed to validate job spec|This does not look like a batch script|"
    r"Batch script (contains DOS line breaks|is empty)|^Invalid (generic resource|numeric value|--)|"
    r"^invalid number of nodes|^unrecognized --|but did not request any GPU|error opening file|^Bad rlimit name|"
    r"are mutually exclusive\.?$"
)


# Permanent error codes in src/common/slurm_errno.c (22.05 to 26.05).
_REFUSED = re.compile(
    r"Invalid (?!user id|job credential|authentication)|No partition specified|User's group not permitted|"
    r"Requested (nodes not in|node configuration is not|time limit is invalid|more tasks|operation not supported|GRES)|"
    r"More processors requested|Node count|CPU count|Task (count|distribution)|Job size|Job script|Job --batch|"
    r"Pathname of|(Job|Circular job) dependency|Memory (required|specification)|Job violates accounting/QOS policy|"
    r"Time limit specification|(Access denied to requested|Requested) reservation( is invalid|$)|Duplicate generic|"
    r"Burst Buffer (permission|request)|X11 forwarding|Multiple (KNL|partition)|Cannot request more threads"
)


# The error code of a limit of an account or a QOS; a line before it names the limit, these being limits on jobs.
_POLICY = "Job violates accounting/QOS policy"


_SUBMIT_LIMIT = re.compile(r"(Assoc|QOS)(Max|Grp)Submit\w*")


# The error codes of a full queue: up to 25.11 EAGAIN, since 26.05 "MaxJobCount limit reached"; or ids have run out.
_FULL = re.compile(
    r"Resource temporarily unavailable|MaxJobCount limit reached|Slurm job queue full|"
    r"Unable to create job record"
)


# Message of sbatch about a full queue before it tries again by itself, which takes longer than its timeout here. The
# first up to 25.11, the second in 26.05. It is its own line: a site's message may contain it.
_TRIES_AGAIN = re.compile(r"(Slurm temporarily unable to accept job|Slurm job queue full), sleeping and retrying\.?")


# Messages about a controller or a network that is unreachable or too busy.
_AWAY = re.compile(
    r"Unable to (contact|resolve|establish control|process configuration)|Unexpected message|"
    r"Message (send|receive) failure|Communication|Protocol authentication|"
    r"zero (bytes|length)|Received message length|Failed to send|timed out|standby mode|Connection (refused|reset)|"
    r"No route to host|Network is unreachable|Transport endpoint|Broken pipe|temporarily|rate limit|munge|credential|"
    r"authentication agent|configuration source|fetch config|Can't find an address|Requested nodes are busy|try again",
    re.IGNORECASE,
)


# The error text where sbatch did not even get an error code, after lines about the network.
_NO_ERROR = "No error"


# Error codes of partitions, nodes and reservations that are not available now.
_MAY_PASS = re.compile(
    r"\bnow\b|not available|busy|I/O error|No space left|Cannot allocate memory|shutting down|state save failed|"
    r"Resource temporarily|Too many open files|Input/output error|quota exceeded",
    re.IGNORECASE,
)


def read_answer(exit_code: int, stdout: str, stderr: str) -> Answer:
    """Classify an answer of sbatch: by its structure where that is enough, else by its wording."""
    lines, words = list(text_lines(stderr)), one_line(stderr)
    if exit_code == 0:
        found = JOB_ID.fullmatch(stdout.rstrip().rpartition("\n")[2])
        return Answer(AnswerKind.ACCEPTED, words, found.group(1)) if found else Answer(AnswerKind.UNCLASSIFIED, words)
    answered = _ANSWERED.match(lines[-1]) if lines else None
    if answered is None:
        return Answer(_unasked(exit_code, lines, words), words)
    return Answer(_answered(answered.group(1), lines[:-1]), words)


def is_full_queue(stderr: str) -> bool:
    """Return whether sbatch, which was ended before its last try, was waiting for room in the queue."""
    return any(_TRIES_AGAIN.fullmatch(line) for line in text_lines(stderr))


def _unasked(exit_code: int, lines: list[str], words: str) -> AnswerKind:
    """Classify the end of an sbatch that did not reach a submission."""
    if exit_code == _BAD_OPTION or lines[-1:] == [_FILTER_REFUSED] or any(map(_BAD_SCRIPT.search, lines)):
        return AnswerKind.REJECTED
    return AnswerKind.UNREACHABLE if _AWAY.search(words) else AnswerKind.UNCLASSIFIED


def _answered(error: str, before: list[str]) -> AnswerKind:
    """Classify the text of an error code.

    :param before: the lines before it: a site's message, the name of a limit, or sbatch's own network errors.
    """
    before = [line for line in before if not _TRIES_AGAIN.fullmatch(line)]
    is_limit = error.startswith(_POLICY) and any(map(_SUBMIT_LIMIT.fullmatch, before))
    if is_limit or _FULL.search(error):
        return AnswerKind.FULL
    if _REFUSED.match(error):
        return AnswerKind.REJECTED
    is_silent = error == _NO_ERROR and any(map(_AWAY.search, before))
    if is_silent or _AWAY.search(error):
        return AnswerKind.UNREACHABLE
    # A plugin may reject with any code, and so with any text; its message for the user precedes that.
    is_refusal = bool(before) and error != _NO_ERROR and not _MAY_PASS.search(error)
    return AnswerKind.REJECTED if is_refusal else AnswerKind.UNCLASSIFIED
