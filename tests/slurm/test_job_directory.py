"""Job directories: the records of a job, of which only a success looks like one."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from airflow_provider_sewer.core.environment import ATTEMPT_ID
from airflow_provider_sewer.core.errors import UnreadableRecord
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.job_usage import read_usage
from airflow_provider_sewer.slurm.run_dir import job_directories_of
from tests.slurm.script_jobs import DEAF_TREE, WAIT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.slurm.script_jobs import ScriptJobs
    from tests.slurm_cluster.cluster import SlurmCluster


def left_of(name: str) -> list[psutil.Process]:
    """Return all processes of a job of this name that are still there."""
    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(ATTEMPT_ID) == name:
                left.append(process)
    return left


# --- records


def test_exit_record_has_exit_code_node_times_and_usage(cluster_jobs: ScriptJobs) -> None:
    """A job records exit code, node, times, sizes, CPUs and usage."""
    source = """
        import os, time
        print("of the module")
        open(os.environ["SEWER_RESULT_FILE"], "w").write("[1]")
        until = time.monotonic() + 1
        while time.process_time() < 0.5 or time.monotonic() < until: pass
    """
    before = time.time()
    job = cluster_jobs.start(
        source, resources={"cpus_per_task": 2, "setup": ["echo before"], "teardown": ["echo after"]}
    )

    record = job.record()

    assert record.is_success
    assert job.directory.read_claim() == job.ref.id
    assert (record.restart, record.asked, record.exit_code) == (0, None, 0)
    assert record.node in {"n1", "n2", "n3"}
    assert before < record.start < record.end < time.time()
    assert (record.stdout, record.stderr, record.result, record.cpus) == (len(job.stdout), 0, 3, 2)
    begin, end = record.module_stdout
    assert job.stdout.encode()[begin:end] == b"of the module\n"
    start = job.directory.read_start()
    assert start is not None
    assert (start.restart, start.node, start.time) == (0, record.node, record.start)
    usage = read_usage(job.directory)
    assert usage["cpus"] == 2
    assert 1.0 <= usage["elapsed"] == pytest.approx(record.end - record.start, abs=0.01)
    assert 0.4 < usage["cpu"] < usage["elapsed"] + 1
    assert os.stat(job.directory.exit).st_mode & 0o777 == 0o600


def test_exit_record_of_cancelled_module_is_not_success(cluster_jobs: ScriptJobs, slurm: SlurmCluster) -> None:
    """A module that exits with 0 because it was cancelled has not come to its own end."""
    source = """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        print("here", flush=True)
        time.sleep(4711)
    """
    job = cluster_jobs.start(source)
    job.expect_output("here")

    slurm.command("scancel", job.ref.id)

    record = job.record()
    assert (record.phase, record.exit_code, record.asked) == ("teardown", 0, "TERM")
    assert not record.is_success


def test_exit_record_of_killed_module_has_128_plus_signal(cluster_jobs: ScriptJobs) -> None:
    """A module ended by SIGKILL is recorded as a shell has it, with 128 more than the signal's number."""
    record = cluster_jobs.start("import os; os.kill(os.getpid(), 9)").record()

    assert (record.phase, record.exit_code, record.asked, record.is_success) == ("teardown", 137, None, False)


def test_claim_lets_one_of_two_jobs_run_the_module(cluster_jobs: ScriptJobs) -> None:
    """Should Slurm have two jobs of one attempt, one runs the module, the other ends and touches no record."""
    job = cluster_jobs.start(WAIT)
    job.expect_output("here")
    claimed, started = job.directory.read_claim(), Path(job.directory.start).read_bytes()

    second = cluster_jobs.again(job.directory, job.ref.name)
    wait_until(lambda: second.state == "FAILED", "the end of the second job")

    assert f"job {claimed} runs this attempt; job {second.ref.id} ends" in job.stderr
    assert (job.directory.read_claim(), job.directory.read_exit()) == (job.ref.id, None)
    assert Path(job.directory.start).read_bytes() == started
    job.create_file("go")
    assert job.record().is_success
    assert job.stdout == "here\n"


def test_requeued_job_with_success_is_not_run_again(cluster_jobs: ScriptJobs, slurm: SlurmCluster) -> None:
    """A job that Slurm starts again although it had succeeded ends at once, and its success stands."""
    job = cluster_jobs.start("print('it ran')", requeue=True)
    record = job.record()

    slurm.requeue(job.ref.id)
    wait_until(lambda: "not run again" in job.stderr, "the second start")

    slurm.wait_for(job.ref.id, "COMPLETED")
    assert job.stdout == "it ran\n"
    assert job.directory.read_exit() == record
    assert record.is_success


# --- ends through the job directory


def test_job_cancelled_before_start_runs_nothing(cluster_jobs: ScriptJobs, slurm: SlurmCluster) -> None:
    """A pending job that is cancelled in its job directory forgets its secrets, and ends as soon as it is started."""
    options = {"additional_parameters": {"hold": True}}
    job = cluster_jobs.start("print('it ran')", secret_env={"TOKEN": "mine"}, resources=options)
    assert os.path.exists(job.directory.secrets)

    job.directory.write_cancelled()
    assert not os.path.exists(job.directory.secrets)
    slurm.release(job.ref.id)

    assert job.end() is None
    assert (job.state, job.stdout) == ("FAILED", "")
    assert "cancelled before it began" in job.stderr
    assert job.directory.read_start() is None


def test_job_directory_cancel_ends_job_without_slurm(cluster_jobs: ScriptJobs, slurm: SlurmCluster) -> None:
    """A running job sees that it is cancelled without Slurm, and ends all it has started, deaf as it may be."""
    job = cluster_jobs.start(DEAF_TREE)
    job.expect_output("all here")
    slurm.stop_daemon("slurmctld")
    assert len(left_of(job.ref.name)) == 3

    job.directory.write_cancelled()

    wait_until(lambda: not left_of(job.ref.name), "the end of all it has started")
    record = wait_until(job.directory.read_exit, "a record")
    assert (record.exit_code, record.asked, record.is_success) == (137, "TERM", False)


def test_outdated_run_of_requeued_job_records_nothing(cluster_jobs: ScriptJobs) -> None:
    """A node that Slurm gave up may still be alive; when the job has begun once more, its run there ends itself."""
    job = cluster_jobs.start(DEAF_TREE)
    job.expect_output("all here")
    begun = Path(job.directory.start)

    begun.write_text(begun.read_text().replace('"restart": 0', '"restart": 1'))

    wait_until(lambda: not left_of(job.ref.name), "the end of all it has started")
    assert job.end() is None
    assert "has begun again" in job.stderr


# --- a full disk


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a file system of its own, of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only an administrator can make a small disk; run this test as root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


FILL = """
import os
with open(os.path.join({folder!r}, "filler"), "wb", buffering=0) as file:
    for size in (65536, 1):
        try:
            while True:
                file.write(bytes(size))
        except OSError:
            pass
"""


def test_full_disk_at_exit_record_is_not_success(cluster_jobs: ScriptJobs, full_disk: Path) -> None:
    """A job that cannot write its record ends as one that could not write, and not as a success."""
    directory = JobDirectory(str(full_disk / "run"))
    directory.create()
    os.mkdir(directory.usage_samples)  # no sample, whose room the record would take

    job = cluster_jobs.submit(cluster_jobs.script(FILL.format(folder=str(full_disk))), directory)

    assert job.end() is None
    seen = job.cluster.poll([job.ref])[job.ref]
    assert (seen.state, seen.exit_code) == ("FAILED", 73)


def test_full_disk_at_start_record_runs_nothing(cluster_jobs: ScriptJobs, full_disk: Path) -> None:
    """A job that cannot write that it begins does not begin."""
    directory = JobDirectory(str(full_disk / "run"))
    directory.create()
    trace = cluster_jobs.folder / "trace"
    script = cluster_jobs.script(f"open({str(trace)!r}, 'w')")
    script.write(directory)
    exec(FILL.format(folder=str(full_disk)))

    job = cluster_jobs.again(directory, script.name)

    assert job.end() is None
    seen = job.cluster.poll([job.ref])[job.ref]
    assert (seen.state, seen.exit_code) == ("FAILED", 73)
    assert not trace.exists()


# --- result files of modules


@pytest.mark.parametrize(
    ("source", "size"),
    [
        ("os.mkfifo(path)", 0),
        ("os.symlink('/no/such/file', path)", -1),
        ("open(path, 'wb').truncate(1 << 40)", 1 << 40),
        ("os.mkdir(path)", None),
    ],
)
def test_unusual_result_file_does_not_block_exit_record(source: str, size: int | None, local_jobs) -> None:
    """A result that is a pipe, a link to nowhere, a terabyte or a folder is recorded as it is."""
    record = local_jobs.start(f"import os; path = os.environ['SEWER_RESULT_FILE']; {source}").record()

    assert record.is_success
    assert record.result == size if size is not None else record.result > 0


# --- reading and writing


@pytest.fixture
def directory(tmp_path: Path) -> JobDirectory:
    """Return a job directory in which nothing has happened yet."""
    directory = JobDirectory(str(tmp_path / "run"))
    directory.create()
    return directory


RECORD = {
    "format": 1, "job_id": "7", "restart": 1, "node": "n1", "phase": "teardown", "exit_code": 0, "asked": None,
    "start": 1.0, "end": 2.0, "stdout": 0, "stderr": 0, "module_stdout": [0, 0], "result": -1, "cpus": 1,
    "unsignalled": True, "is_torn_down": True,
}  # fmt: skip
START = {"format": 1, "job_id": "7", "restart": 1, "node": "n1", "pid": 1, "time": 1.0}


def given(directory: JobDirectory, *, claim: str = "7", start: Any = None, record: Any = None) -> None:
    os.symlink(claim, directory.claim)
    Path(directory.start).write_text(json.dumps({**START, **(start or {})}))
    Path(directory.exit).write_text(record if isinstance(record, str) else json.dumps({**RECORD, **(record or {})}))


def test_read_exit_returns_record_of_present_run(directory: JobDirectory) -> None:
    """The record of the job that has the claim, and of its last start, counts."""
    given(directory)

    record = directory.read_exit()

    assert record is not None
    assert {"format": 1, "job_id": "7", **record._asdict()} == RECORD


@pytest.mark.parametrize("change", [{"claim": "8"}, {"start": {"restart": 2}}])
def test_read_exit_ignores_record_of_other_job_or_earlier_start(change: Any, directory: JobDirectory) -> None:
    """Records of another job, or of this one before a requeue, do not count."""
    given(directory, **change)

    assert directory.read_exit() is None


def test_read_module_end_during_teardown_is_success(directory: JobDirectory) -> None:
    """The job still runs; but its success is not to be thrown away."""
    given(directory, record={"is_torn_down": False})

    assert directory.read_exit() is None
    assert directory.has_success


@pytest.mark.parametrize("text", ["", '{"job_id": "7", "exit_', "\x00" * 50, "{}", "[]", "null"])
def test_read_exit_of_truncated_record_raises(text: str, directory: JobDirectory) -> None:
    """A damaged record differs from a missing one, so that it is waited for."""
    given(directory, record=text)

    with pytest.raises(UnreadableRecord, match=r"exit\.json cannot be read as format 1: "):
        directory.read_exit()


@pytest.mark.parametrize("change", [{"exit_code": 1}, {"asked": "TERM"}, {"phase": "module"}, {"phase": "setup"}])
def test_is_success_requires_exit_0_without_signal(change: Any, directory: JobDirectory) -> None:
    """A success is an exit code 0, of a module that has run to its end and was not asked to."""
    given(directory, record=change)

    record = directory.read_exit()

    assert record is not None
    assert not record.is_success


def test_make_creates_private_folders(tmp_path: Path) -> None:
    """With any umask: the job directory and all its new parents."""
    previous = os.umask(0)
    try:
        JobDirectory(str(tmp_path / "runs" / "dag" / "run" / "task" / "1")).create()
    finally:
        os.umask(previous)

    made = [path for path in (tmp_path / "runs").rglob("*") if path.is_dir()]
    assert len(made) == 4
    assert {path.stat().st_mode & 0o7777 for path in [tmp_path / "runs", *made]} == {0o700}


def test_concurrent_writes_are_atomic(directory: JobDirectory) -> None:
    """Several threads write the same file: who reads it finds one of their texts, and nothing else is left."""
    rest = {"format": 1, "directory": "", "cluster": "slurm", "submitted": 1.0}
    values = [{**rest, "id": letter, "name": letter * 4000} for letter in "abcd"]
    writers = [threading.Thread(target=lambda v=v: [directory.write_job(v) for _ in range(30)]) for v in values]
    for writer in writers:
        writer.start()
    seen = []
    while any(writer.is_alive() for writer in writers):
        seen.append(directory.read_job())

    assert all(value is None or value in values for value in seen)
    assert directory.read_job() in values
    assert os.listdir(directory.path) == ["job.json"]
    assert os.stat(Path(directory.path, "job.json")).st_mode & 0o777 == 0o600


def test_job_directories_are_unique_per_task_instance() -> None:
    """Names that look the same once they are folders, or are too long for one, lead to folders of their own."""
    names = [
        "task.1",
        "task/map-1",
        "map-1",
        "1",
        "a b",
        "a_b",
        "a/b",
        "a\nb",
        "größe",
        "gröse",
        "..",
        ".",
        "x" * 300,
        "x" * 301,
        "A",
        "a",
    ]
    folders = {job_directories_of("/base", name, "run", "task", -1) for name in names}
    folders |= {job_directories_of("/base", "dag", "run", "task", number) for number in (-1, 0, 1)}

    folders |= {job_directories_of("/base", "dag", "run", "task.1", number) for number in (-1, 0, 1)}

    assert len(folders) == len(names) + 6
    assert not [
        folder for folder in folders if os.path.basename(folder).isdigit() and os.path.dirname(folder) in folders
    ]
    assert all(folder.startswith("/base/") and ".." not in folder.split("/") for folder in folders)
    assert max(len(part) for folder in folders for part in folder.split("/")) < 255
