"""Damaged files in a job directory: they block neither the job script nor the record of its end."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_sewer.slurm import job_script
from tests.slurm.script_jobs import wait_until

if TYPE_CHECKING:
    from tests.slurm.script_jobs import ScriptJobs


BECOMES_A_PIPE = """
    import os, signal, sys
    name = sys.argv[1].replace("ID", os.environ.get("SLURM_JOB_ID", ""))
    path = os.environ["SEWER_RESULT_FILE"].replace("result.json", name)
    if os.path.lexists(path):
        os.unlink(path)
    os.mkfifo(path)
    memory = bytearray(100_000_000)  # for the next sample
    print("here", flush=True)
"""


@pytest.mark.parametrize("name", ["alive", "usage.txt"])
def test_pipe_in_job_directory_does_not_block_watcher(local_jobs: ScriptJobs, name: str) -> None:
    """It still looks whether the job is to end."""
    job = local_jobs.start(BECOMES_A_PIPE + "    signal.pause()\n", name)
    job.expect_output("here")

    job.directory.write_cancelled()

    assert job.record().asked == "TERM"


@pytest.mark.parametrize("name", ["stderr.log", "times.txt", "exit.json.ID"])
def test_pipe_in_job_directory_does_not_block_exit_record(cluster_jobs: ScriptJobs, name: str) -> None:
    """The job comes to an end, and its end is recorded."""
    job = cluster_jobs.start(BECOMES_A_PIPE, name)

    assert job.record().exit_code == 0


def test_pipe_created_during_sample_does_not_block_watcher(tmp_path: Path) -> None:
    """The sample waits for this test twice, where it reads from /proc: the pipe appears in between."""
    for name in ("status", "stat"):
        os.mkfifo(tmp_path / name)
    scripts = Path(job_script.__file__).parent
    script = f"""
        . {scripts}/usage.bash
        . <(sed -n '/^sewer_into/,/^}}/p' {scripts}/job.bash)
        sewer_dir=$1 sewer_others=("..$1")
        sewer_sample_usage
        echo "$sewer_most_memory"
    """
    with subprocess.Popen(["/bin/bash", "-c", script, "bash", tmp_path], stdout=subprocess.PIPE, text=True) as sample:
        with open(tmp_path / "status", "w") as status:
            os.mkfifo(tmp_path / "usage.txt")
            status.write("VmRSS: 100 kB\n")
        (tmp_path / "stat").write_text("1 (x) S" + " 1" * 20 + "\n")
        try:
            assert sample.communicate(timeout=60)[0] == "100\n"
        finally:
            sample.kill()


def test_pipe_created_during_write_does_not_block_exit_record(local_jobs: ScriptJobs) -> None:
    """A process that outlives the module puts the pipe there again as soon as the script has removed it."""
    source = """
        import os, sys, time
        folder = os.path.dirname(os.environ["SEWER_RESULT_FILE"])
        path = os.path.join(folder, "exit.json." + os.readlink(os.path.join(folder, "claim")))
        if os.fork():
            sys.exit()
        end = time.monotonic() + 300
        while time.monotonic() < end:
            try:
                os.mkfifo(path)
            except FileExistsError:
                pass
    """

    job = local_jobs.start(source)

    assert job.record().exit_code == 0


@pytest.mark.parametrize("name", ["environment.sh", "secrets.sh"])
def test_pipe_instead_of_variables_file_is_named(local_jobs: ScriptJobs, name: str) -> None:
    """The job does not wait for a process that writes to it."""
    directory = local_jobs.directory()
    script = local_jobs.script("", secret_env={"HIDDEN": "0815"})
    script.write(directory)
    path = Path(directory.path, name)
    path.unlink()
    os.mkfifo(path)

    job = local_jobs.again(directory, script.name)

    assert (job.record().phase, job.record().exit_code) == ("setup", 74)
    assert f"cannot read the variables in {path}" in job.stderr


def test_folder_instead_of_exit_record_is_named(local_jobs: ScriptJobs) -> None:
    """The record is not put into it."""
    job = local_jobs.start("import os; os.mkdir(os.environ['SEWER_RESULT_FILE'].replace('result', 'exit'))")

    wait_until(lambda: job.state == "FAILED", "the end")

    assert f"cannot write {job.directory.exit}" in job.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")
def test_exit_record_replaces_usage_files_on_full_disk(local_jobs: ScriptJobs) -> None:
    """A module that fills the file system of its job directory still has its exit code recorded."""
    source = """
        import os
        while not os.path.exists("usage.txt") or not os.path.getsize("usage.txt"):
            pass
        try:
            with open("filler", "wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(512))
        except OSError:
            os._exit(3)
    """
    directory = local_jobs.directory()
    local_jobs.script(source).write(directory)
    small = """
        cp -r "$1" "$1.copy" && mount -t tmpfs -o size=256k,mode=700 tmpfs "$1" || exit
        cp -r "$1.copy/." "$1" && cd "$1" || exit
        SEWER_LOCAL_ID=1 SEWER_ATTEMPT_ID=1 /bin/bash job.sh >&2
        cat exit.json
    """

    command = ["unshare", "--mount", "/bin/bash", "-c", small, "bash", directory.path]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)

    assert json.loads(ran.stdout)["exit_code"] == 3, ran.stderr
