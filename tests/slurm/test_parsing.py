"""Output of Slurm's commands as each version prints it, and the meaning that is read from it.

The texts were recorded on Slurm 22.05.8, 24.11.5 and 25.11.2, or stand in Slurm's source, as those of 26.05 do.
"""

from __future__ import annotations

import pytest

from airflow_provider_sewer.slurm import parsing
from airflow_provider_sewer.slurm.backend import UNKNOWN_JOB, JobRef, tag_of
from airflow_provider_sewer.slurm.sbatch_errors import AnswerKind, is_full_queue, read_answer
from airflow_provider_sewer.slurm.states import ENDED, KNOWN, RUNNING, TERMINAL_STATES, WAITING, unsatisfiable_reason

# -- Exit codes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0           ", (0, None)),  # 22.05: a raw wait status
        ("768", (3, None)),
        ("9", (0, 9)),
        ("19200", (75, None)),
        ("35072", (137, None)),
        ("4021", (0, 53)),  # a job that could not be started
        ("0:0", (0, None)),  # 23.02 and later, and sacct
        ("3:0         ", (3, None)),
        ("75:0", (75, None)),
        ("0:9", (0, 9)),
        ("0:53", (0, 53)),
        ("137:0", (137, None)),
    ],
)
def test_exit_status_parses_format_of_each_version(text, expected):
    """Slurm 22.05 prints one number, and later versions two."""
    assert parsing.exit_status(text) == expected


@pytest.mark.parametrize("text", ["", "N/A", "?", "3:", ":9", "3:0:0", "-1", "None", "0x300", "²"])
def test_exit_status_of_unreadable_text_is_none(text):
    """Never 0, which would be a success."""
    assert parsing.exit_status(text) == (None, None)


# -- Answers of sbatch -------------------------------------------------------------------------------------------------


def printed(*lines: str, level: str = "error: ") -> str:
    """Return the output of sbatch."""
    return "".join(f"sbatch: {level}{line}\n" for line in lines)


def failed(error: str, *before: str) -> str:
    """Return the output of sbatch for an error code, with the lines before it."""
    return printed(*before, f"Batch job submission failed: {error}")


def refused(*words: str) -> str:
    """Return the output of sbatch where the site's job_submit plugin returns slurm.ERROR."""
    return failed("Unspecified error", *words)


FILTERED = "cli_filter plugin terminated with error"
POLICY = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
TRIES_AGAIN = "Slurm temporarily unable to accept job, sleeping and retrying"
TRIES_AGAIN_SINCE_26_05 = "Slurm job queue full, sleeping and retrying"
REFUSALS = [
    refused("Please name your project with --account"),
    refused("The scratch file system is temporarily read-only"),
    refused("Your munge credential timed out, try again"),
    refused("You have reached AssocMaxSubmitJobLimit"),
    refused(f"{TRIES_AGAIN_SINCE_26_05} is of no use"),
    refused("one line", "and another: connection refused"),
    failed("No such file or directory", "a plugin that returns 2"),
    failed("Requested time limit is invalid (missing or exceeds some limit)", "a plugin that returns 2051"),
    printed("lua: The filter says no: temporarily closed", FILTERED),
    printed(FILTERED),
    printed('job.sh: line 2: Unmatched `"` in [--comment="a]', level="fatal: "),
    printed(
        "This does not look like a batch script.  The first",
        "line must start with #! followed by the path to an interpreter.",
        "For instance: #!/bin/sh",
    ),
    printed("Invalid generic resource (gres) specification"),
    printed(
        "Requested mem_per_tres=gres:gpu:1024 but did not request any GPU.",
        "Invalid generic resource (gres) specification",
    ),
    printed("--mem, --mem-per-cpu, and --mem-per-gpu are mutually exclusive.", level="fatal: "),
    printed('Invalid numeric value "zz" for --ntasks.'),
    printed("Invalid --bbf specification"),
    printed("invalid number of nodes (-N 2-1)"),
    printed('unrecognized --hint argument "munge", see --hint=help'),
    printed("slurm_allocate_resources error opening file /credentials/nodes, No such file or directory"),
    printed("Bad rlimit name: ZZ", "--propagate=ZZ is not valid."),
    failed("Invalid partition name specified"),
    # 24.11; 22.05 and 25.11 take the job, which then waits for PartitionConfig.
    failed("Requested node configuration is not available", "CPU count per node can not be satisfied"),
    failed(POLICY, "QOSMaxWallDurationPerJobLimit"),
]
FULL = [
    failed(POLICY, "AssocMaxSubmitJobLimit"),
    failed(POLICY, "QOSMaxSubmitJobPerUserLimit"),
    failed(POLICY, "QOSGrpSubmitJobsLimit"),
    failed(POLICY, "words of the site", "AssocMaxSubmitJobLimit"),
    failed("Resource temporarily unavailable", TRIES_AGAIN),
    failed("MaxJobCount limit reached", TRIES_AGAIN_SINCE_26_05),
]
AWAY = [
    failed("Unable to contact slurm controller (connect failure)"),
    failed("Socket timed out on send/recv operation"),
    failed("Requested nodes are busy"),
    failed("Invalid authentication credential"),
    failed("Invalid job credential"),
    failed("Connection refused"),
    failed(
        "Protocol authentication error",
        "If munged is up, restart with --num-threads=10",
        'Munge encode failed: Failed to access "/run/munge.socket": No such file or directory (Did you start munged?)',
        "slurm_buffers_pack_msg: auth_g_create: REQUEST_SUBMIT_BATCH_JOB has authentication error",
    ),
    failed("No error", 'slurm_set_addr: Unable to resolve "slurmctld"'),
    printed("s_p_parse_file: cannot stat file /nope: No such file or directory, retrying in 1sec up to 60sec")
    + printed("ClusterName needs to be specified")
    + printed("Unable to process configuration file", level="fatal: "),
    printed("resolve_ctls_from_dns_srv: res_nsearch error: Unknown host")
    + printed("_establish_config_source: failed to fetch config")
    + printed("Could not establish a configuration source", level="fatal: "),
]
STRANGE = [
    "",
    refused(),  # a plugin without a message may be broken for a moment
    failed("A gremlin sits in the machine"),
    failed("Requested reservation not usable now"),
    failed("Requested partition configuration not available now"),
    failed("Required partition not available (inactive or drain)", "some detail"),
]
ANSWERS = [
    (
        255,
        "sbatch: unrecognized option '--no-such=1'\nTry \"sbatch --help\" for more information\n",
        AnswerKind.REJECTED,
    ),
    *((1, stderr, AnswerKind.REJECTED) for stderr in REFUSALS),
    *((1, stderr, AnswerKind.FULL) for stderr in FULL),
    *((1, stderr, AnswerKind.UNREACHABLE) for stderr in AWAY),
    *((1, stderr, AnswerKind.UNCLASSIFIED) for stderr in STRANGE),
    (0, "", AnswerKind.UNCLASSIFIED),
]


@pytest.mark.parametrize(("exit_code", "stderr", "kind"), ANSWERS)
def test_read_answer_classifies_sbatch_output(exit_code, stderr, kind):
    """Only a permanent error is a rejection, with any wording of a site."""
    answer = read_answer(exit_code, "", stderr)
    assert (answer.kind, answer.job_id) == (kind, "")


def test_read_answer_of_accepted_job_has_id_and_site_message():
    """The id is on the last line; the words are the output of job_submit and cli_filter."""
    stderr = "sbatch: This partition goes away soon\nsbatch: second line\n"
    answer = read_answer(0, "2000 cores are free today\n4711;cluster\n", stderr)
    assert answer == (AnswerKind.ACCEPTED, "This partition goes away soon; second line", "4711")


@pytest.mark.parametrize(
    ("line", "is_full"),
    [
        (TRIES_AGAIN, True),
        (TRIES_AGAIN_SINCE_26_05, True),
        (f"{TRIES_AGAIN_SINCE_26_05}.", True),
        ("Job creation temporarily disabled, retrying", False),
        (f"{TRIES_AGAIN} is of no use", False),
    ],
)
def test_is_full_queue_recognizes_waiting_sbatch(line, is_full):
    """Slurm prints it at once, and would try for two minutes."""
    assert is_full_queue(printed(line)) is is_full


# -- Tables ------------------------------------------------------------------------------------------------------------

RUN = "/shared/runs/dag/run/task/1"
NAME = "dag.task-0123456789abcdef01"
JOB = JobRef("4", NAME, RUN)


def queue_line(**columns: str) -> str:
    """Return a line of squeue, with its padding."""
    row = {"id": "4", "state": "RUNNING", "exit": "0:0", "restarts": "0", "start": "1764467105", "preempt": "N/A",
           "nodes": "n1", "partition": "main", "reason": "None",
           "command": f"{RUN}/job.sh", "name": NAME, **columns}  # fmt: skip
    widths = {"id": 30, "state": 30, "exit": 12, "restarts": 8, "start": 30, "preempt": 30, "reason": 100}
    return "|".join(text.ljust(widths.get(column, 0)) for column, text in row.items())


def seen(*lines: str, job: JobRef = JOB):
    return parsing.matching(job, parsing.queue_rows("\n".join(lines)))


def test_queue_rows_parses_all_fields():
    """All that squeue is asked for."""
    sighting = seen(queue_line(exit="768", restarts="2", reason="NonZeroExitCode", state="FAILED"))
    assert sighting == ("FAILED", "NonZeroExitCode", "n1", 3, None, 2, 1764467105.0, "main", False)


def test_queue_rows_with_unreadable_values_has_none():
    """Nothing that cannot be read becomes 0."""
    sighting = seen(queue_line(exit="?", restarts="?", start="N/A", nodes="(null)", reason="None"))
    assert sighting == ("RUNNING", "", "", None, None, None, None, "main", False)


def test_queue_rows_with_preempt_time_is_preempted():
    """Slurm prints it with the state COMPLETED as well, where a job ends within its GraceTime (22.05)."""
    assert seen(queue_line(state="COMPLETED", preempt="1764467105")).is_preempted


def test_queue_rows_without_readable_row_raises():
    """It would make all jobs unknown."""
    with pytest.raises(ValueError, match="cannot read the table: 'oops'"):
        parsing.queue_rows("oops\n")
    assert parsing.queue_rows("") == {}


@pytest.mark.parametrize("order", [1, -1])
def test_queue_rows_prefers_sibling_over_revoked_job(order):
    """Both clusters of a federation list the job."""
    rows = [queue_line(state="REVOKED", nodes=""), queue_line()][::order]
    assert seen(*rows).state == "RUNNING"
    assert seen(queue_line(state="REVOKED")).state == "REVOKED"


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"name": f"site-{NAME}"},
        {"name": f"{NAME}-of-lab"},
        {"name": "something else"},
        {"name": "a|b  c|d"},
        {"command": "(null)"},
        {"command": "/tmp/wrapper.XYZ", "name": f"site-{NAME}"},
    ],
)
def test_is_of_matches_renamed_job_by_script_or_name(columns):
    """A site's plugin, the user and a wrapper around sbatch change one of them."""
    assert seen(queue_line(**columns)).state == "RUNNING"


@pytest.mark.parametrize(
    "columns",
    [
        {"command": "/shared/runs/dag/run/task/11/job.sh", "name": "other"},
        {"command": "(null)", "name": "other"},
        {"command": "(null)", "name": ""},
        {"command": f"{RUN}/job.sh.bak", "name": "other"},
        {"command": "(null)", "name": f"{NAME}2"},
        {"command": "(null)", "name": f"other{NAME}"},
        {"id": "5"},
    ],
)
def test_is_of_rejects_reused_job_id(columns):
    """A controller that has lost its state gives ids away again."""
    assert seen(queue_line(**columns)) is UNKNOWN_JOB


def test_is_of_matches_renamed_element_by_array_script():
    """Of another array of the same mapped task with the same id, it is not."""
    array, other = "/shared/runs/dag/run/task/arrays/1", "/shared/runs/dag/run/task/arrays/2"
    element = JobRef("4_7", f"dag.task-{tag_of(array)}", "/shared/runs/dag/run/task/map-7/1")
    line = queue_line(id="4_7", command=f"{array}/job.sh", name="renamed")
    assert seen(line, job=element).state == "RUNNING"
    assert seen(line.replace(array, other), job=element) is UNKNOWN_JOB


def test_found_rows_returns_array_ids():
    """As squeue -o prints them, without padding."""
    rows = parsing.found_rows(f"4|{RUN}/job.sh|site-named\n5|(null)|wrap\n")
    assert [job_id for job_id, row in rows if row.is_of(JOB)] == ["4"]


def test_accounting_rows_match_renamed_job_by_workdir():
    """For sacct has no column with the script."""
    rows = parsing.accounting_rows(["4|CANCELLED by 1000|0:15|None assigned|/shared/runs/dag/run/task/1|renamed"])
    assert parsing.matching(JOB, rows) == ("CANCELLED", "by 1000", "", 0, 15, 0, None, "", False)


def test_accounting_rows_with_unreadable_exit_code_has_none():
    """As squeue."""
    rows = parsing.accounting_rows([f"4|FAILED||n1|{RUN}|{NAME}"])
    assert parsing.matching(JOB, rows) == ("FAILED", "", "n1", None, None, 0, None, "", False)


@pytest.mark.parametrize(
    ("text", "version"), [("slurm-wlm 25.11.2\n", (25, 11)), ("slurm 23.02.7\n", (23, 2)), ("oops", None), ("", None)]
)
def test_read_version_parses_major_and_minor(text, version):
    """Debian calls the package slurm-wlm."""
    assert parsing.read_version(text) == version


# -- States and reasons ------------------------------------------------------------------------------------------------


def test_known_states_include_states_of_squeue_manual():
    """Those of squeue(1) and of job_state_string() in Slurm's source, from 22.05 to 26.05."""
    states = {
        "BOOT_FAIL", "CANCELLED", "COMPLETED", "CONFIGURING", "COMPLETING", "DEADLINE", "EXPEDITING", "FAILED",
        "NODE_FAIL", "OUT_OF_MEMORY", "PENDING", "PREEMPTED", "RUNNING", "RESV_DEL_HOLD", "REQUEUE_FED",
        "REQUEUE_HOLD", "REQUEUED", "RESIZING", "REVOKED", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED",
        "SUSPENDED", "TIMEOUT",
    }  # fmt: skip
    assert states <= KNOWN
    assert not (WAITING & RUNNING or WAITING & ENDED or RUNNING & ENDED)


@pytest.mark.parametrize("state", ["REVOKED", "EXPEDITING", "SUSPENDED"])
def test_ended_states_exclude_states_of_running_jobs(state):
    """Another cluster of the federation runs it, or it is about to run again."""
    assert state in RUNNING
    assert state not in TERMINAL_STATES


@pytest.mark.parametrize(
    "reason",
    [
        "launch failed requeued held",
        "launch_failed_requeued_held",
        "launch failure limit exceeded requeued held",  # 23.02
        "launch_failure_limit_exceeded_requeued_held",
        "user env retrieval failed requeued held",  # 25.05
        "something that a later Slurm words anew requeued held",
        "job requeued in held state",
        "job requeued in special exit state",
        "(BadConstraints)",
        "The job's constraints can not be satisfied.",
        "PartitionConfig",
        "Reservation maint_7 was deleted",
        "uid 1000 not in group permitted to use this partition (gpu). groups allowed: lab",
        "QOSMaxCpuPerJobLimit",
    ],
)
def test_unsatisfiable_reason_matches_permanent_reasons(reason):
    """In the words of each version."""
    assert unsatisfiable_reason(reason, None)
    assert unsatisfiable_reason(reason, ()) is None
    assert unsatisfiable_reason(reason, (reason,)) == "fail_on_pending_reason names it"


@pytest.mark.parametrize(
    "reason",
    [
        "JobHeldUser",
        "JobHeldAdmin",
        "Priority",
        "Resources",
        "Licenses",
        "ReqNodeNotAvail, UnavailableNodes:n[1-2]",
        "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
        "QOSMaxJobsPerUserLimit",
        "",
    ],
)
def test_unsatisfiable_reason_ignores_temporary_reasons(reason):
    """The holder of a job may release it."""
    assert unsatisfiable_reason(reason, None) is None


@pytest.mark.parametrize("reason", ["PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit", "AccountNotAllowed"])
def test_unsatisfiable_reason_ignores_one_of_several_partitions(reason):
    """Slurm shows that of the partition which it has tried last."""
    assert unsatisfiable_reason(reason, None, "tiny")
    assert unsatisfiable_reason(reason, None, "tiny,main") is None
    assert unsatisfiable_reason("DependencyNeverSatisfied", None, "tiny,main")
