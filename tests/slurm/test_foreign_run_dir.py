"""No folder below `run_dir` is used that another user could have written, and strange records end as named failures."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_sewer.core.errors import SewerError, SlurmJobFailed, SlurmJobLost, UnreadableRecord, UntrustedPath
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.slurm_settings import DEFAULTS, SlurmSettings
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.slurm.arrays.array_folder import ArrayFolder
from airflow_provider_sewer.slurm.arrays.job_array import ArrayOptions, JobArray
from airflow_provider_sewer.slurm.arrays.member_queue import ArrayMember, MemberQueue
from airflow_provider_sewer.slurm.attempts import TaskInstance
from airflow_provider_sewer.slurm.backend import JobRef, JobStatus
from airflow_provider_sewer.slurm.client import SlurmClient
from airflow_provider_sewer.slurm.job import Job
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.job_result import JobResultFactory
from airflow_provider_sewer.slurm.job_runner import JobRunner
from airflow_provider_sewer.slurm.job_script import ArrayScript, runs_srun
from airflow_provider_sewer.slurm.job_spec import JobSpec
from airflow_provider_sewer.slurm.job_usage import read_usage
from airflow_provider_sewer.slurm.last_lines import last_lines
from airflow_provider_sewer.slurm.local_backend import LocalBackend
from airflow_provider_sewer.slurm.log_tailer import JobLogs
from airflow_provider_sewer.slurm.monitor import JobMonitor, WaitPolicy
from airflow_provider_sewer.slurm.states import ENDED
from tests.slurm.script_jobs import WAIT, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.slurm.conftest import Jobs
    from tests.slurm.script_jobs import ScriptJobs

OTHER = 65533
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to act as two users")
WANTS = ArrayOptions("dag.task", {}, requeue=False, most_seconds=None)
#: An exit record of a success, as another user would forge it.
FORGED = {
    "format": 1, "job_id": "local-1", "restart": 0, "node": "n1", "phase": "teardown", "exit_code": 0, "asked": None,
    "unsignalled": True, "is_torn_down": True, "start": 1.0, "end": 2.0, "stdout": 0, "stderr": 0,
    "module_stdout": [0, 0], "result": -1, "cpus": 1,
}  # fmt: skip


def planned(folder: Path, source: str = "", map_index: int = -1, **slurm: Any) -> JobSpec:
    """Plan a module that runs as a local job, with its job directories in a folder that all users can write to."""
    runs = folder / "runs"
    if not runs.exists():
        runs.mkdir()
        runs.chmod(0o1777)
    (folder / "made.py").write_text(f"import os\nfolder = os.path.dirname(os.environ['SEWER_RESULT_FILE'])\n{source}")
    settings = {"cluster": "local", "poll_interval": 0.2, "max_poll_interval": 0.2, "lost_after": 2.0, **slurm}
    return JobSpec(
        instance=TaskInstance("dag", "run", "task", map_index, "0"),
        task=Task("task", "made").with_settings(
            ExecutionSettings.checked(python=sys.executable, env={"PYTHONPATH": str(folder)}, workdir=str(folder))
        ),
        slurm=SlurmSettings.checked(run_dir=str(runs), **settings).with_fallback(DEFAULTS),
        secret_env={},
        grace=1.0,
    )


def outcome(plan: JobSpec) -> Any:
    """Run a job to its end and return its result, or its error."""
    run = JobRunner(plan, lambda *_: None, lambda _: None)
    try:
        return run.collect(run.follow(run.submit_and_wait()))
    except SewerError as error:
        return error


# -- Folders -----------------------------------------------------------------------------------------------------------


def make_open(path: Path) -> None:
    """Create a folder as a user does whose umask is 0."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o777)


def make_foreign(path: Path) -> None:
    """Create a folder of another user."""
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, OTHER, OTHER)


def make_link(path: Path) -> None:
    """Create a link to a folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("/tmp")


MAKERS = [make_open, make_link, pytest.param(make_foreign, marks=needs_root)]


def test_shared_run_dir_with_own_folders_is_accepted(tmp_path: Path) -> None:
    """As long as all folders in it are this user's own."""
    assert outcome(planned(tmp_path, "print(1)")) == "1"
    assert outcome(planned(tmp_path, "print(1)", 0)) == "1"


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("level", ["dag", "dag/run", "dag/run/task", "dag/run/task/map-3", "dag/run/task/map-3/1"])
def test_job_runner_rejects_folders_of_other_users(make: Callable[[Path], None], level: str, tmp_path: Path) -> None:
    """The error names the folder, nothing is run, and nothing is written there."""
    plan = planned(tmp_path, "open('ran', 'w')", 3)
    make(tmp_path / "runs" / level)

    error = outcome(plan)

    assert isinstance(error, UntrustedPath)
    assert str(error).startswith(f"run_dir: {tmp_path}/runs/{level} ")
    assert not (tmp_path / "ran").exists()
    assert not list((tmp_path / "runs").rglob("job.sh"))


@needs_root
def test_job_runner_rejects_forged_attempts(tmp_path: Path) -> None:
    """A whole attempt of another user, with a success and a result."""
    folder = tmp_path / "runs" / "dag" / "run" / "task" / "1"
    plan = planned(tmp_path, "open('ran', 'w')")
    folder.mkdir(parents=True)
    noted = {"name": "x", "cluster": "local", "clears": "0", "run_clears": 0}
    for name, value in {"attempt": noted, "exit": FORGED, "job": {"id": "local-1"}, "result": "forged"}.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    (folder / "claim").symlink_to("local-1")
    for path in folder.iterdir():
        os.lchown(path, OTHER, OTHER)
    os.chown(folder, OTHER, OTHER)

    assert isinstance(outcome(plan), UntrustedPath)


@needs_root
def test_job_directory_ignores_records_of_other_users(tmp_path: Path) -> None:
    """A triggerer, which has only the job directory, treats it as missing."""
    directory = JobDirectory(str(tmp_path / "1"))
    directory.create()
    (tmp_path / "1" / "claim").symlink_to("local-1")
    Path(directory.exit).write_text(json.dumps(FORGED))
    assert directory.has_success
    os.chown(directory.exit, OTHER, OTHER)
    assert not directory.has_success
    assert read_usage(directory) == {}


@pytest.mark.parametrize("make", MAKERS)
def test_job_monitor_rejects_job_directories_of_other_users(make: Callable[[Path], None], tmp_path: Path) -> None:
    """As a triggerer creates one from the database."""
    make(tmp_path / "1")
    directory = JobDirectory(str(tmp_path / "1"))
    job = Job(JobRef("local-1", "x", directory.path), directory, LocalBackend(), 0.0)
    with pytest.raises(UntrustedPath, match=f"run_dir: {tmp_path}/1 "):
        JobMonitor(job, "made", WaitPolicy(None, (), 1.0, requeue=False, poll_every=1.0), lambda *_: None, print)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("level", ["arrays", "arrays/waiting"])
def test_member_queue_rejects_folders_of_other_users(make: Callable[[Path], None], level: str, tmp_path: Path) -> None:
    """The registrations there decide about the submission."""
    make(tmp_path / level)
    with pytest.raises(UntrustedPath, match=f"run_dir: {tmp_path}/{level} "):
        MemberQueue(str(tmp_path / "arrays")).register(ArrayMember(str(tmp_path / "map-1" / "1"), 1, 1, 1.0, WANTS))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("level", ["arrays", "arrays/7"])
def test_array_planner_rejects_folders_of_other_users(make: Callable[[Path], None], level: str, tmp_path: Path) -> None:
    """An array there would be taken for this user's own."""
    make(tmp_path / level)
    with pytest.raises(UntrustedPath, match=f"run_dir: {tmp_path}/{level} "):
        ArrayFolder(str(tmp_path / "arrays"), SlurmClient()).poll()


# -- The job's own look ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["local_jobs", "cluster_jobs"])
@pytest.mark.parametrize("make", [pytest.param(make_foreign, marks=needs_root), make_open])
def test_job_script_runs_nothing_in_folders_of_other_users(
    make: Callable[[Path], None], kind: str, request: pytest.FixtureRequest
) -> None:
    """As another user can swap the folder while the job waits in the queue."""
    jobs: ScriptJobs = request.getfixturevalue(kind)
    directory = jobs.directory()
    script = jobs.script("print('ran')")
    script.write(directory)
    make(Path(directory.path))

    job = jobs.again(directory, script.name)

    assert job.end() is None
    assert "ran" not in job.stdout
    assert "belongs to another user or is writable by others (owner and mode: " in job.stderr


# -- Strange records ---------------------------------------------------------------------------------------------------

DEEP = "[" * 200_000
TYPES = '{"job_id": [], "pid": "x", "start": "x", "stdout": {}, "time": null, "how": 1, "seconds": true, "options": []}'


def be_deep(path: str) -> None:
    """Leave a deeply nested record."""
    Path(path).write_text(DEEP)


def be_of_other_types(path: str) -> None:
    """Leave an object with other types of values."""
    Path(path).write_text(TYPES)


def be_huge(path: str) -> None:
    """Leave a record that does not fit into memory."""
    Path(path).touch()
    os.truncate(path, 4_000_000_000)


STRANGE: list[Callable[[str], None]] = [be_deep, be_of_other_types, be_huge, os.mkfifo, os.mkdir]


@pytest.mark.parametrize("strange", STRANGE)
def test_job_directory_rejects_malformed_records(strange: Callable[[str], None], tmp_path: Path) -> None:
    """Nothing waits. A record that decides of the job raises an error, one that only helps counts as missing."""
    directory = JobDirectory(str(tmp_path / "1"))
    directory.create()
    names = ("start", "exit", "attempt", "job", "task", "products", "ended", "cancelled", "follower", "unknown")
    for name in (*names, "log-offsets"):
        strange(f"{directory.path}/{name}{'' if name == 'cancelled' else '.json'}")
    for name in ("orphaned", "alive", "times.txt", "usage.txt", "claim", "stdout.log", "stderr.log", "job.sh"):
        strange(f"{directory.path}/{name}")

    assert directory.read_start() is None
    assert not directory.has_success
    assert directory.read_monitor() is None
    assert (directory.read_unknown_seconds(), directory.read_orphaned(), directory.is_cleared) == (0.0, None, False)
    assert directory.is_alive(within=60) == (strange in (be_deep, be_of_other_types, be_huge))
    assert read_usage(directory) == {}
    JobLogs(directory, lambda *_: None).pump()
    for read in ("exit", "attempt", "job", "task", "products", "ended"):
        with pytest.raises(UnreadableRecord, match=rf"/{read}\.json cannot be read as format 1: "):
            getattr(directory, f"read_{read}")()
    assert runs_srun(directory) is False
    assert last_lines(directory.stdout) in ([], [TYPES]) or strange in (be_deep, be_huge)


@pytest.mark.parametrize("umask", [0, 0o077])
def test_member_queue_reads_members_with_any_umask(umask: int, tmp_path: Path) -> None:
    """Its files are this user's own."""
    member = ArrayMember(str(tmp_path / "map-1" / "1"), 1, 1, 1.0, WANTS)
    before = os.umask(umask)
    try:
        MemberQueue(str(tmp_path / "arrays")).register(member)
    finally:
        os.umask(before)
    assert MemberQueue(str(tmp_path / "arrays")).members() == [member]


@pytest.mark.parametrize("umask", ["000", "077"])
def test_job_with_open_umask_leaves_readable_records(umask: str, tmp_path: Path) -> None:
    """`setup` and the module may set any umask; the folder keeps others out."""
    source = "import time; os.umask(0); open(folder + '/result.json', 'w').write('[1]'); time.sleep(0.3)"
    assert outcome(planned(tmp_path, source, slurm={"setup": [f"umask {umask}"]})) == [1]
    (folder,) = tmp_path.glob("runs/dag/run/task/1")
    assert read_usage(JobDirectory(str(folder)))["elapsed"] > 0
    assert JobDirectory(str(folder)).has_success


def test_member_queue_reports_malformed_registration_to_its_attempt(tmp_path: Path) -> None:
    """The elements of an intact array are outcomes all the same."""
    folder = tmp_path / "arrays"
    member = ArrayMember(str(tmp_path / "map-1" / "1"), 1, 1, 1.0, WANTS)
    MemberQueue(str(folder)).register(member)
    for number, strange in enumerate(STRANGE, 1):
        strange(str(folder / "waiting" / f"map-{number + 1}-1.json"))
    (folder / "9").mkdir(mode=0o700)
    JobArray(str(folder / "9")).form({1: member.path}, WANTS)

    arrays = ArrayFolder(str(folder), SlurmClient())
    arrays.poll()

    assert MemberQueue(str(folder)).members() == [member]
    assert arrays.is_awaited(member.path)
    assert JobArray(str(folder / "9")).is_formed
    outcomes = [arrays.outcome(str(tmp_path / f"map-{number + 1}" / "1")) for number in range(1, len(STRANGE) + 1)]
    assert [type(each) for each in outcomes] == [UnreadableRecord] * len(STRANGE)


@pytest.mark.parametrize("name", ["members", "job", "refused"])
@pytest.mark.parametrize("strange", STRANGE)
def test_array_with_malformed_records_raises(strange: Callable[[str], None], name: str, tmp_path: Path) -> None:
    """Its elements may run: no other array is made of them."""
    folder = tmp_path / "arrays"
    (folder / "1").mkdir(parents=True, mode=0o700)
    strange(str(folder / "1" / f"{name}.json"))

    with pytest.raises(UnreadableRecord, match=rf"/1/{name}\.json cannot be read as format 1: "):
        ArrayFolder(str(folder), SlurmClient()).poll()


@pytest.mark.parametrize("path", ["/etc/1", "map-2/1", "{folder}/../x/map-2/1", "{folder}/map-2/x", 1])
def test_member_queue_skips_members_of_other_folders(path: Any, tmp_path: Path) -> None:
    """A script that is read there is run."""
    folder = tmp_path / "arrays"
    (folder / "waiting").mkdir(parents=True, mode=0o700)
    path = path.format(folder=tmp_path) if isinstance(path, str) else path
    name = "-".join(str(path).split("/")[-2:])
    record = {"path": path, "map_index": 2, "expected": 1, "array_wait": 1.0, "options": WANTS.to_data(), "format": 1}
    (folder / "waiting" / f"{name}.json").write_text(json.dumps(record))
    assert MemberQueue(str(folder)).members() == []


@pytest.mark.parametrize("name", ["start.json", "exit.json", "monitor.json", "stdout.log", "log-offsets.json"])
@pytest.mark.parametrize("strange", [be_of_other_types, os.mkfifo])
def test_job_with_malformed_records_fails_with_unreadable_record(
    strange: Callable[[str], None], name: str, tmp_path: Path
) -> None:
    """It ends without a word, and its record is not one."""
    make = {os.mkfifo: "os.mkfifo(path)", be_of_other_types: f"open(path, 'w').write({TYPES!r})"}[strange]
    source = f"""
import signal, time
path = os.path.join(folder, {name!r})
if os.path.lexists(path): os.unlink(path)
{make}
os.kill(os.getppid(), signal.SIGKILL)
"""
    error = outcome(planned(tmp_path, source))
    assert isinstance(error, UnreadableRecord if name == "exit.json" else (SlurmJobFailed, SlurmJobLost)), error


def test_local_backend_polls_other_jobs_despite_malformed_record(local_jobs: ScriptJobs, tmp_path: Path) -> None:
    """A record that cannot be read is that job's own affair."""
    bad = JobDirectory(str(tmp_path / "bad"))
    bad.create()
    be_of_other_types(bad.start)
    good = local_jobs.start(WAIT)
    good.expect_output("here")

    seen = LocalBackend().poll([JobRef("local-0", "bad", bad.path), good.ref])

    assert seen[good.ref].state == "RUNNING"
    good.create_file("go")
    assert good.record().is_success


@pytest.mark.parametrize("foreign", ["array", "element"])
def test_array_script_runs_nothing_in_folders_of_other_users(foreign: str, cluster_jobs: ScriptJobs) -> None:
    """Neither follows a link in a folder that others can write, nor runs a script in one."""
    array, element = cluster_jobs.directory("array"), cluster_jobs.directory("element")
    script = cluster_jobs.script("print('ran')", in_array=True)
    script.write(element)
    (Path(array.path) / "1").symlink_to(element.path)
    ArrayScript(script.name, [1], {}, requeue=False).write(array)
    make_open(Path(array.path if foreign == "array" else element.path))

    submitted = cluster_jobs.again(array, script.name)
    ref = submitted.ref._replace(id=f"{submitted.ref.id}_1")
    wait_until(lambda: SlurmClient().poll([ref])[ref].state in ENDED, "the end of the element")

    assert "belongs to another user or is writable by others (owner and mode: " in Path(element.stderr).read_text()
    assert "ran" not in Path(element.stdout).read_text()
    assert not os.path.lexists(element.claim)


def test_job_result_names_job_directory_of_other_user(jobs: Jobs) -> None:
    """In the worker, though it checks first: another user may change it back."""
    job = jobs.start("say('ran')").job
    endings = JobResultFactory(job, "made", ())
    ending = endings.failure(JobStatus("FAILED", exit_code=77), None)
    assert ending.error == "launch_failure"
    assert f"found its job directory {job.directory.path} open to other users, and ran nothing" in ending.message
