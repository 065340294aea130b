"""Files as stdin and stdout of a job: redirected on the node, committed after its end."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_sewer import Product
from airflow_provider_sewer.core.call import module_call
from airflow_provider_sewer.core.errors import InvalidTask, SlurmJobFailed
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.job_script import JobScript
from tests.slurm.conftest import until

if TYPE_CHECKING:
    from airflow_provider_sewer.slurm.job_spec import JobSpec
    from tests.slurm.conftest import Followed, Jobs
    from tests.slurm.script_jobs import ScriptJobs
    from tests.slurm_cluster.cluster import SlurmCluster

#: Besides the lines of each module in these tests, which are on stdout.
COPY = "shutil = __import__('shutil'); shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"
DATA = (bytes(range(256)) + b"\r\n\n\r") * 8_000


def planned(jobs: Jobs, source: str, slurm: dict[str, Any] | None = None, **streams: Any) -> JobSpec:
    """Plan a module that runs in the folder of its streams."""
    spec = jobs.plan(source, workdir=str(jobs.folder), slurm=slurm or {})
    task = Task(spec.task.name, spec.task.module, **streams).with_settings(spec.task.settings)
    return spec._replace(task=task)


def lines_before(data: bytes) -> bytes:
    """Remove the lines that each module of these tests prints first."""
    return re.sub(rb"\A(line \d+\n)+", b"", data)


@pytest.mark.parametrize("options", [{}, {"use_srun": True}], ids=["batch", "srun"])
def test_bytes_pass_unchanged_on_node(any_jobs: Jobs, options: dict[str, Any]) -> None:
    """With srun, too, which otherwise gives the module a terminal; stderr is logged."""
    (any_jobs.folder / "in $x\n'é").write_bytes(DATA)
    spec = planned(any_jobs, COPY, options, stdin="in $x\n'é", stdout=Product("out/-n &1 >\n✓"))

    job = any_jobs.follow(spec)
    job.end()

    assert job.error is None
    assert job.value is None
    assert lines_before((any_jobs.folder / "out" / "-n &1 >\n✓").read_bytes()) == DATA
    assert job.stdout == ""
    assert "a warning" in job.stderr


def test_stderr_to_stdout_is_not_the_result(jobs: Jobs) -> None:
    """Only stderr is in that log."""
    spec = planned(jobs, 'print("[1]", file=sys.stderr)', {"stderr_to_stdout": True}, stdout="out")

    job = jobs.follow(spec)
    job.end()

    assert (job.error, job.value) == (None, None)
    assert "[1]" in job.stdout


def test_failed_job_moves_stdout_aside(jobs: Jobs) -> None:
    """No part of it is at its path."""
    job = jobs.follow(planned(jobs, "print('half', flush=True); sys.exit(3)", stdout="out"))
    job.end()

    assert isinstance(job.error, SlurmJobFailed)
    assert not (jobs.folder / "out").exists()
    assert (jobs.folder / "out.failed").read_text().endswith("half\n")


def test_cancelled_job_leaves_no_part_of_stdout(jobs: Jobs) -> None:
    """The staged part is set aside."""
    job = jobs.follow(planned(jobs, "wait_for('never')", stdout="out"))
    wait_until_running(job)

    job.run.stop()
    job.end()

    assert not (jobs.folder / "out").exists()


def wait_until_running(job: Followed) -> None:
    deadline = time.monotonic() + 60
    while job.directory.read_start() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_requeued_element_of_array_writes_stdout_again(jobs: Jobs, slurm: SlurmCluster) -> None:
    """Each element has its own file, which has the output of its last run only."""
    spec = planned(jobs, "print('end', flush=True); wait_for('go')", stdout="out")
    array = spec.slurm._replace(array=True, array_wait=60.0, requeue=True)
    runs = []
    for index in range(2):
        task = Task(spec.task.name, spec.task.module, stdout=f"out-{index}").with_settings(spec.task.settings)
        instance = spec.instance._replace(map_index=index)
        runs.append(jobs.follow(spec._replace(instance=instance, task=task, slurm=array, expected=2)))
    staged = [lambda run=run: list(jobs.folder.glob(f".sewer/*/new/{out_of(run)}")) for run in runs]
    for each in staged:
        until(lambda each=each: each() and each()[0].read_text().endswith("end\n"), lambda: "the first run")

    former = staged[0]()[0].stat().st_ino
    slurm.requeue(runs[0].id)
    until(lambda: staged[0]() and staged[0]()[0].stat().st_ino != former, lambda: "the second run")
    for run in runs:
        run.create_file("go")
        run._thread.join(120)

    assert [run.error for run in runs] == [None, None]
    assert [(jobs.folder / out_of(run)).read_text().count("end\n") for run in runs] == [1, 1]


def out_of(run: Followed) -> str:
    return run.run.spec.task.products[0].path


def test_stdin_that_is_removed_before_the_start_fails_the_job(local_jobs: ScriptJobs) -> None:
    """The reason is in its log, and the module has not been run."""
    call = module_call("os", ())._replace(stdin=f"{local_jobs.folder}/gone")

    job = local_jobs.submit(local_jobs.script("", call=call))
    record = job.record()

    assert (record.phase, record.exit_code) == ("setup", 66)
    assert f"sewer: cannot open the file of stdin: {local_jobs.folder}/gone" in job.stderr


def test_named_pipe_as_stdin_fails_the_job_at_once(local_jobs: ScriptJobs) -> None:
    """It would wait for a process that writes to the pipe."""
    os.mkfifo(local_jobs.folder / "pipe")
    call = module_call("os", ())._replace(stdin=f"{local_jobs.folder}/pipe")

    assert local_jobs.submit(local_jobs.script("", call=call)).record().exit_code == 66


@pytest.mark.parametrize("folder", ["", ".sewer/making-1/new"], ids=["in place", "staged"])
def test_staged_stdout_is_created_again(local_jobs: ScriptJobs, folder: str) -> None:
    """An earlier run of a requeued job, on a node that was given up, may still write to the former file."""
    out = local_jobs.folder / folder / "out.txt"
    out.parent.mkdir(parents=True, exist_ok=True)
    script = local_jobs.script("print('now', end='')")
    with out.open("wb", buffering=0) as former:
        former.write(b"of before")
        job = local_jobs.submit(script._replace(call=script.call._replace(stdout=str(out))))
        assert job.record().is_success
        former.write(b"later")

    later = "now" if folder else "now" + "\0" * 6 + "later"
    assert out.read_text() == later


def test_setup_cannot_change_the_files(local_jobs: ScriptJobs) -> None:
    """Neither by options of the shell, nor by closing all descriptors."""
    setup = ["export PYTHONUNBUFFERED=1", "set -ufCk", "exec 0<&- 1>&- 10>&- 11>&-"]
    source = "import os, sys; print(sys.stdin.read() + os.environ.get('PYTHONUNBUFFERED', 'buffered'), end='')"
    (local_jobs.folder / "in").write_text("text ")
    (local_jobs.folder / "out").write_text("of before")
    script = local_jobs.script(source, resources={"setup": setup})
    call = script.call._replace(stdin=f"{local_jobs.folder}/in", stdout=f"{local_jobs.folder}/out")

    job = local_jobs.submit(script._replace(call=call))

    assert job.record().is_success, job.stderr
    assert (local_jobs.folder / "out").read_text() == "text buffered"


def test_streams_that_setup_has_closed_are_empty(local_jobs: ScriptJobs) -> None:
    """A module without files runs nevertheless."""
    source = "import os, sys; print(1); print(repr(sys.stdin.read()), file=sys.stderr)"

    job = local_jobs.start(source, resources={"setup": ["exec 0<&- 1>&-"]})

    assert job.record().is_success, job.stderr
    assert (job.stdout, job.stderr) == ("", "''\n")


def test_module_inherits_no_other_descriptor(local_jobs: ScriptJobs) -> None:
    """Neither of the files twice, nor those of the job script."""
    (local_jobs.folder / "in").touch()
    script = local_jobs.script("import os; print(sorted(os.listdir('/proc/self/fd'))[:-1])")
    call = script.call._replace(stdin=f"{local_jobs.folder}/in", stdout=f"{local_jobs.folder}/out")

    assert local_jobs.submit(script._replace(call=call)).record().is_success

    assert (local_jobs.folder / "out").read_text() == "['0', '1', '2']\n"


def script_text(folder: Path, **fields: Any) -> str:
    directory = JobDirectory(str(folder / "run"))
    directory.create()
    call = module_call("m", [])._replace(stdin=fields.pop("stdin", None), stdout=fields.pop("stdout", None))
    given: dict[str, Any] = {"env": {}, "secret_env": {}, "resources": {}, **fields}
    JobScript("a", call, "/py", "/w", requeue=False, grace=1.0, **given).write(directory)
    return Path(directory.script).read_text()


def test_script_names_the_files(tmp_path: Path) -> None:
    """Without srun's terminal, and without Python's option for unbuffered output."""
    text = script_text(tmp_path, stdin="a b", stdout="c", resources={"use_srun": True})

    assert text.endswith("\nsewer_stdin='a b' sewer_stdout=c sewer_run /py -m m\n")
    assert "\nsewer_before=(srun)\n" in text


def test_script_hides_secret_in_path(tmp_path: Path) -> None:
    """As in an argument."""
    text = script_text(tmp_path, stdout="runs/hidden-value/out", secret_env={"KEY": "hidden-value"})

    assert "hidden-value" not in text


@pytest.mark.parametrize("option", ["--output=x", "-o", "--label", "-l", "--pty", "--unbuffered"])
def test_option_of_srun_for_stdout_is_rejected(tmp_path: Path, option: str) -> None:
    """The product would be empty, or other bytes."""
    with pytest.raises(InvalidTask, match=rf"srun_args must not contain '{option}' in a task with stdout"):
        script_text(tmp_path, stdout="x", resources={"use_srun": True, "srun_args": [option]})


@pytest.mark.parametrize("option", ["--input=none", "-i0", "--pty"])
def test_option_of_srun_for_stdin_is_rejected(tmp_path: Path, option: str) -> None:
    """The module would not read the file."""
    with pytest.raises(InvalidTask, match=rf"srun_args must not contain '{option}' in a task with stdin"):
        script_text(tmp_path, stdin="x", resources={"use_srun": True, "srun_args": [option]})
