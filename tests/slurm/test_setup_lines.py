"""Effects of `setup` and `teardown` on the shell that they share with the frame around the module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from airflow_provider_sewer.slurm.states import ENDED
from tests.slurm.script_jobs import ScriptJob, ScriptJobs, wait_until

if TYPE_CHECKING:
    from airflow_provider_sewer.slurm.backend import JobStatus
    from tests.slurm_cluster.cluster import SlurmCluster


class Case(NamedTuple):
    """Lines of shell, and their expected effect."""

    setup: list[str]
    module: str = "import os; print('module', os.getcwd().rpartition('/')[2], os.environ.get('GIVEN'))"
    teardown: list[str] = []  # noqa: RUF012 - of a tuple
    ends: tuple[str, int] = ("teardown", 0)
    state: str = "COMPLETED"
    output: str = "module work None\n"


ARGUMENTS = ["a=b", "--c=d"]
CASES = {
    "exports a variable": Case(["export GIVEN=of-setup"], output="module work of-setup\n"),
    "fails": Case(["echo so; exit 7", "echo never"], ends=("setup", 7), state="FAILED", output="so\n"),
    "exits with 0": Case(["exit 0"], ends=("setup", 0), state="FAILED", output=""),
    "fails under set -e": Case(["set -e", "false"], ends=("setup", 1), state="FAILED", output=""),
    "is no shell": Case(["if true; then"], ends=("setup", 2), state="FAILED", output=""),
    "sets strict options": Case(
        ["set -euo pipefail", "shopt -s failglob nocasematch extglob", "shopt -s inherit_errexit || : before bash 4.4",
         "set -o posix", "set -f"],
        module="print('module'); raise SystemExit(3)",
        teardown=["echo torn down"],
        ends=("teardown", 3),
        state="FAILED",
        output="module\ntorn down\n",
    ),
    "sets a trap": Case(
        ["trap 'echo cleaned up; exit 9' EXIT INT TERM SIGHUP"], teardown=["echo torn down"],
        output="module work None\ntorn down\ncleaned up\n",
    ),
    "sets a trap and fails": Case(
        ["trap -- 'echo cleaned up' 0", "exit 4"], ends=("setup", 4), state="FAILED", output="cleaned up\n"
    ),
    "takes its trap back": Case(["trap 'echo cleaned up' EXIT", "trap - EXIT"]),
    "traps in a subshell": Case(["(trap 'echo apart' EXIT)"], output="apart\nmodule work None\n"),
    "takes PATH away": Case(["export PATH=/nowhere"]),
    "changes directory": Case(["cd /", "pushd /tmp >/dev/null"]),
    "has functions of its own": Case(["cd() { echo mine; }; kill() { :; }; mv() { :; }; export -f cd"]),
    "reads stdin": Case(["read -r line; echo \"read $? '$line'\""], output="read 1 ''\nmodule work None\n"),
    "sets IFS": Case(["IFS=0123456789/; readonly IFS"]),
    "lets nobody read": Case(["umask 777"]),
    "exports all": Case(
        ["set -a"],
        module="import os; print([name for name in os.environ if name.startswith('sewer_')])", output="[]\n",
    ),
    "takes a=b for a variable": Case(
        ["set -k", "trap 'echo cleaned up' EXIT"], module="import sys; print(sys.argv[1:])",
        output="['a=b', '--c=d']\ncleaned up\n",
    ),
    "ends in the middle of a line": Case(["set -k; echo so \\"], output="so\nmodule work None\n"),
    "makes names readonly": Case(
        ["readonly status=1 pid=1 others=1 tries=1 first=1 seconds=1 asked=1 stdout=1 stderr=1 record=1 now=1 name=1",
         "readonly handler=1 newest=1 PATH LD_PRELOAD='' LD_LIBRARY_PATH=''", "trap 'echo cleaned up' EXIT",
         "sleep 4711 &"],
        output="module work None\ncleaned up\n",
    ),
    "has no number of CPUs": Case(["export SLURM_CPUS_ON_NODE=1.5"], teardown=["SLURM_JOB_NUM_NODES=08"]),
    "lets nothing be overwritten": Case(["set -C"]),
    "nests no functions": Case(["FUNCNEST=1"]),
    "redirects": Case(["exec >/dev/null"], output=""),
    "closes descriptors": Case(
        ["exec " + " ".join(f"{number}>&-" for number in range(3, 20))], module="print('module'); raise SystemExit(3)",
        teardown=["echo torn down"], ends=("teardown", 3), state="FAILED", output="module\ntorn down\n",
    ),
    "opens files of its own": Case(
        ["log=${SEWER_RESULT_FILE%/*}/log", 'exec 10<>"$log" 11<>"$log" 12<>"$log" 13<>"$log"'],
        module="print('module'); raise SystemExit(3)", teardown=['cat "$log"'],
        ends=("teardown", 3), state="FAILED", output="module\n",
    ),
    "closes descriptors and fails": Case(
        ["exec " + " ".join(f"{number}>&-" for number in range(3, 20)), "exit 4"],
        ends=("setup", 4), state="FAILED", output="",
    ),
    "closes stderr": Case(["exec 2>&-"]),
    "makes REPLY readonly": Case(
        ["readonly REPLY"], module="print('module'); raise SystemExit(3)",
        ends=("teardown", 3), state="FAILED", output="module\n",
    ),
    "traps the end of each command": Case(["trap : CHLD"]),
    "is asked to end while it cleans up": Case(
        ["trap 'exit 9' TERM", "trap 'echo cleaned up; kill -TERM $$' EXIT"], output="module work None\ncleaned up\n"
    ),
    "gets a signal just before the module": Case(
        ["set -T", "trap '[[ $BASH_COMMAND != sewer_wait_for* ]] || kill -USR1 $$' DEBUG"],
        module="import time; time.sleep(10)", ends=("teardown", 138), state="FAILED", output="",
    ),
    "comes from Windows": Case(["echo one\r\necho two\r\n"], output="one\ntwo\nmodule work None\n"),
    "leaves something running": Case(["sleep 4711 &", "(trap '' TERM; while :; do sleep 4711; done) &"]),
    "teardown fails": Case([], teardown=["false", "exit 5"]),
    "teardown hides no failure": Case(
        [], module="raise SystemExit(3)", teardown=["echo down; exit 0"], ends=("teardown", 3), state="FAILED",
        output="down\n",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def ended(
    slurm: SlurmCluster, tmp_path_factory: pytest.TempPathFactory, bare_python: Any
) -> dict[str, tuple[ScriptJob, JobStatus]]:
    """Return all these jobs, which have ended, with Slurm's report of them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in slurm.env.items():
            patch.setenv(name, value)
        from airflow_provider_sewer.slurm.client import SlurmClient as OurSlurm

        jobs = ScriptJobs(tmp_path_factory.mktemp("setup"), bare_python, OurSlurm())
    (work := jobs.folder / "work").mkdir()
    started = {
        name: jobs.start(
            case.module,
            *ARGUMENTS,
            workdir=str(work),
            resources={"setup": case.setup, "teardown": case.teardown, "mem_gb": 0.05},
        )
        for name, case in CASES.items()
    }
    refs = [job.ref for job in started.values()]
    seen = wait_until(
        lambda: (seen := jobs.cluster.poll(refs)) and all(one.state in ENDED for one in seen.values()) and seen,
        "the end of all",
    )
    return {name: (job, seen[job.ref]) for name, job in started.items()}


@pytest.mark.parametrize("name", CASES)
def test_exit_record_is_written_after_any_setup(name: str, ended, slurm: SlurmCluster) -> None:
    """With any change by setup to its shell, the record and Slurm agree on the module's end."""
    case, (job, seen) = CASES[name], ended[name]

    record = job.directory.read_exit()

    assert record is not None, job.stderr
    assert (record.phase, record.exit_code, record.asked) == (*case.ends, None), job.stderr
    assert record.is_success == (case.ends == ("teardown", 0))
    assert job.stdout == case.output
    assert seen.state == case.state
    assert seen.exit_code == (case.ends[1] if case.ends[0] == "teardown" else case.ends[1] or 1)
    assert record.stdout == len(case.output)


def test_setup_with_exec_is_not_success(cluster_jobs: ScriptJobs) -> None:
    """With `exec` no shell is left to run the module: there is no record, and Slurm reports a failure."""
    job = cluster_jobs.start("print('it ran')", resources={"setup": ["exec true"]})

    assert job.end() is None
    assert (job.state, job.stdout) == ("FAILED", "")
    assert job.directory.read_start() is not None


def test_stderr_to_stdout_writes_one_file(cluster_jobs: ScriptJobs) -> None:
    """With stderr_to_stdout both streams go into one file."""
    source = "import sys; print('out', flush=True); print('err', file=sys.stderr)"

    job = cluster_jobs.start(source, resources={"stderr_to_stdout": True})

    assert job.record().is_success
    assert (job.stdout, job.stderr) == ("out\nerr\n", "")
