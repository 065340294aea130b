"""Products of jobs: whole, checked, and not made again without need; and functions as jobs."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import pytest

from airflow_provider_sewer import Dependency, Product
from airflow_provider_sewer.core.errors import FileSystemRefused, UnreadableRecord
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.execution.task_runner import TaskRunner
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.job_products import JobProducts
from airflow_provider_sewer.slurm.job_runner import JobRunner

WRITES = """
import sys
place = sys.argv[sys.argv.index("--out") + 1]
with open(place, "w") as file:
    file.write("whole")
print(place.split("/")[-3])
"""


def test_product_of_job_is_written_atomically(module, on_slurm, run_job, deferrable, tmp_path):
    """Under a name that only this attempt has, put in place when the job has succeeded."""
    out = Product(tmp_path / "made" / "out.txt")
    result = run_job(**module(WRITES), parameters_and_flags={"out": out}, workdir=str(tmp_path), deferrable=deferrable)

    assert result.state == "success"
    assert (tmp_path / "made" / "out.txt").read_text() == "whole"
    assert result.results["job"].startswith("making-")
    assert "-one_job.job-" in result.results["job"]
    assert sorted(os.listdir(tmp_path / "made" / ".sewer")) == [".gitignore", "out.txt.json"]


def test_retry_reattaching_uses_recorded_product_paths(module, run_job, tmp_path, monkeypatch):
    """A template may render to another path by then."""
    follow = JobRunner.follow
    crashes = iter([RuntimeError("a crash")])

    def crash_once(self, job):
        for crash in crashes:
            raise crash
        return follow(self, job)

    monkeypatch.setattr(JobRunner, "follow", crash_once)
    result = run_job(
        **module(WRITES), parameters_and_flags={"out": Product(str(tmp_path / "try-{{ ti.try_number }}.txt"))},
        workdir=str(tmp_path), cluster="local", retries=1, retry_delay=timedelta(0),
    )  # fmt: skip

    assert result.state == "success"
    assert [path.name for path in tmp_path.glob("try-*")] == ["try-1.txt"]


def test_missing_product_fails_the_task(module, on_slurm, run_job, deferrable, tmp_path, capsys):
    """Exit code 0 is not sufficient."""
    out = Product(tmp_path / "out.txt")
    result = run_job(**module(""), parameters_and_flags={"out": out}, workdir=str(tmp_path), deferrable=deferrable)

    assert result.state == "failed"
    assert not (tmp_path / "out.txt").exists()


def test_failed_job_moves_its_product_aside(module, on_slurm, run_job, tmp_path):
    """It stays for inspection; the final path never appears."""
    out = Product(tmp_path / "out.txt")
    source = WRITES + "sys.exit(3)"
    result = run_job(**module(source), parameters_and_flags={"out": out}, workdir=str(tmp_path))

    assert result.state == "failed"
    assert not (tmp_path / "out.txt").exists()
    assert (tmp_path / "out.txt.failed").read_text() == "whole"


def test_up_to_date_products_submit_no_job(module, on_slurm, run_job, tmp_path):
    """The task succeeds with the result of the run that has made it."""
    arguments = {
        **module(WRITES),
        "parameters_and_flags": {"in": Dependency(tmp_path / "in.txt"), "out": Product(tmp_path / "out.txt")},
        "workdir": str(tmp_path),
        "run_when": "stale",
    }
    (tmp_path / "in.txt").write_text("1")
    first = run_job("rests", **arguments)
    second = run_job("rests", **arguments)
    assert (second.state, second.results) == ("success", first.results)
    assert len(on_slurm.jobs("rests.")) == 1

    (tmp_path / "in.txt").write_text("other")
    run_job("rests", **arguments)
    assert len(on_slurm.jobs("rests.")) == 2


def test_relative_product_without_workdir_fails(module, on_slurm, run_job, capsys):
    """It would be written to the job directory, where no task looks for it."""
    result = run_job("nowhere", **module(WRITES), parameters_and_flags={"out": Product("out.txt")})

    assert result.state == "failed"
    assert "Product('out.txt') is relative, but a job without workdir runs in its job" in capsys.readouterr().out
    assert on_slurm.jobs("nowhere.") == []


def test_function_runs_as_a_job(module, on_slurm, run_job, deferrable):
    """Arguments and result are passed as JSON."""
    fields = module("async def add(a, b=1): return {'sum': a + b, 'quoted': \"it's $HOME\"}")
    fields.pop("module")
    result = run_job(**fields, function="job:add", op_kwargs={"a": 41}, deferrable=deferrable)

    assert result.results["job"] == {"sum": 42, "quoted": "it's $HOME"}


def test_function_that_exits_before_returning_fails(module, on_slurm, run_job, capsys):
    """Exit code 0 is not sufficient, and its last output line is not a result."""
    fields = module("import os\ndef add(a):\n    print('last line')\n    os._exit(0)")
    fields.pop("module")
    result = run_job(**fields, function="job:add", op_kwargs={"a": 41})

    assert result.state == "failed"
    assert "job:add ended its process with exit code 0 and did not return" in capsys.readouterr().out


DATA_SET = """
import sys
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
suffixes = Path(sys.argv[sys.argv.index("--suffixes") + 1]).read_text().split()
for suffix in suffixes:
    out.with_suffix(suffix).write_text(suffix)
sys.exit(3 if "fails" in suffixes[-1] else 0)
"""


def test_files_beside_product_are_committed_with_it(module, on_slurm, run_job, deferrable, tmp_path):
    """They are put in place with it, kept as ….failed with it, and a later job that writes fewer removes the others."""
    out, suffixes = Product(tmp_path / "made" / "a.shp"), tmp_path / "suffixes"
    arguments = {
        **module(DATA_SET),
        "parameters_and_flags": {"out": out, "suffixes": suffixes},
        "workdir": str(tmp_path),
        "deferrable": deferrable,
    }

    def made(text: str) -> list[str]:
        suffixes.write_text(text)
        assert run_job("shapes", **arguments).state == ("failed" if "fails" in text else "success")
        return sorted(path.name for path in (tmp_path / "made").glob("a.*"))

    assert made(".shp .dbf .prj") == ["a.dbf", "a.prj", "a.shp"]
    assert made(".shx .fails") == ["a.dbf", "a.fails.failed", "a.prj", "a.shp", "a.shx.failed"]
    assert made(".shp .dbf") == ["a.dbf", "a.shp"]
    assert sorted(os.listdir(tmp_path / "made" / ".sewer")) == [".gitignore", "a.shp.json"]


#: Makes a product, and leaves a file system to which nothing can be written.
REFUSED = """
import os, subprocess, sys
out, disk = (sys.argv[sys.argv.index(flag) + 1] for flag in ("--out", "--disk"))
with open(out, "w") as file:
    file.write("whole")
{command}
print("done")
"""
FILL = """
with open(disk + "/filler", "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
"""
REMOUNT = "subprocess.run(['mount', '-o', 'remount,ro', disk], check=True)"


@pytest.mark.parametrize("cluster", ["slurm", "local"])
@pytest.mark.parametrize(
    ("command", "reason"),
    [(FILL, "No space left on device"), (REMOUNT, "Read-only file system")],
    ids=["full", "read-only"],
)
def test_collect_file_system_error_is_left_to_the_next_try(
    module, on_slurm, run_job, deferrable, small_disk, tmp_path, logged_text, run_directories, cluster, command, reason
):
    """The job has succeeded, so it does not run once more. The error names the path and the reason."""

    def mend(_):
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
        (small_disk / "filler").unlink(missing_ok=True)

    result = run_job(
        "refused", **module(REFUSED.format(command=command)), cluster=cluster, deferrable=deferrable,
        parameters_and_flags={"out": Product(small_disk / "out.txt"), "disk": str(small_disk)},
        workdir=str(tmp_path), retries=1, retry_delay=timedelta(0), on_retry_callback=mend,
    )  # fmt: skip

    assert (result.state, result.results) == ("success", {"job": "done"})
    assert (small_disk / "out.txt").read_text() == "whole"
    assert sorted(os.listdir(small_disk / ".sewer")) == [".gitignore", "out.txt.json"]
    assert len(run_directories()) == 1
    text = logged_text()
    assert f"product '{small_disk}/out.txt': it was produced, but" in text
    assert f"{small_disk}/.sewer/" in text
    assert reason in text


@pytest.mark.parametrize("name", ["result", "stdout", "exit", "products"])
def test_collect_unreadable_record_is_left_to_the_next_try(
    module, on_slurm, run_job, tmp_path, run_directories, monkeypatch, name
):
    """An error of the file system, such as a stale file handle, is no evidence about the job.

    Only a process other than the one that has staged the products reads their record.
    """
    opened, refused = os.open, []

    def refuse_once(path, *arguments, **named):
        is_wanted = {"result": "result.json", "products": "products.json"}.get(name, name)
        if not refused and os.path.basename(os.fspath(path)).startswith(is_wanted):
            refused.append(path)
            raise OSError(errno.ESTALE, "Stale file handle", path)
        return opened(path, *arguments, **named)

    collect = JobRunner.collect

    def collected(self, ending):
        monkeypatch.setattr(os, "open", refuse_once)
        try:
            return collect(self, ending)
        finally:
            monkeypatch.setattr(os, "open", opened)

    monkeypatch.setattr(JobRunner, "collect", collected)
    result = run_job(
        "stale", **module(WRITES), parameters_and_flags={"out": Product(tmp_path / "out.txt")},
        workdir=str(tmp_path), cluster="local", deferrable=name == "products", retries=1, retry_delay=timedelta(0),
    )  # fmt: skip

    assert refused
    assert result.state == "success"
    assert result.results["job"].startswith("making-")
    assert len(run_directories()) == 1


@pytest.fixture
def attempt(tmp_path):
    """Begin an attempt at a task of two products, and make them; return the task and its job directory."""
    directory = JobDirectory(str(tmp_path / "run"))
    directory.create()
    task = Task("t", "job", {"a": Product(tmp_path / "a.txt"), "b": Product(tmp_path / "b.txt")})
    call = JobProducts(TaskRunner(task, {}), directory).begin("t-1")
    for place in call.argv[3::2]:
        Path(place).write_text("whole")
    return task, directory


def test_commit_is_resumed_by_the_next_process(attempt, tmp_path, monkeypatch):
    """A process that is ended between two of them is followed by another, which has only the job directory."""
    task, directory = attempt
    replace = os.replace

    def dies(source: str, target: str) -> None:
        if str(target).endswith("b.txt"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        JobProducts(TaskRunner(task, {}), directory).commit(None)
    monkeypatch.undo()
    assert [path.exists() for path in (tmp_path / "a.txt", tmp_path / "b.txt")] == [True, False]

    JobProducts(TaskRunner(task, {}), directory).commit({"result": 1})

    assert [(tmp_path / name).read_text() for name in ("a.txt", "b.txt")] == ["whole", "whole"]
    JobProducts(TaskRunner(task, {}), directory).commit(
        {"result": 1}
    )  # and by one more, if the end had not been recorded

    record = json.loads((tmp_path / ".sewer" / "a.txt.json").read_text())
    assert (record["is_complete"], record["result"]) == (True, {"result": 1})


@pytest.mark.parametrize("how", ["publish", "fail"])
def test_commit_of_files_beside_product_is_resumed(tmp_path, how):
    """Whichever move a process dies at, the next one finishes, with the files of this attempt only.

    Also where a user has cleared the task meanwhile, so that the attempt counts for nothing: the files are whole.
    """
    steps = 0
    for at in range(1, 20):
        folder = tmp_path / str(at)
        task = Task("t", "job", {"out": Product(folder / "a.shp")})
        for attempt, suffixes in (("t-1", [".shp", ".dbf", ".prj"]), ("t-2", [".shp", ".dbf", ".shx"])):
            directory = JobDirectory(str(folder / attempt))
            directory.create()
            place = Path(JobProducts(TaskRunner(task, {}), directory).begin(attempt).argv[3])
            for suffix in suffixes:
                place.with_suffix(suffix).write_text(attempt)
            if attempt == "t-1":
                JobProducts(TaskRunner(task, {}), directory).commit(None)
        if (pid := os.fork()) == 0:
            left = at
            rename = os.rename

            def dies(*paths: str) -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                rename(*paths)  # noqa: B023 - the process ends here

            os.rename = dies
            JobProducts(TaskRunner(task, {}), directory).commit(None)
            os._exit(0)
        was_killed = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        steps += was_killed

        products = JobProducts(TaskRunner(task, {}), directory)
        products.commit(None) if how == "publish" else products.discard()

        assert {path.name: path.read_text() for path in folder.glob("a.*")} == dict.fromkeys(
            ("a.dbf", "a.shp", "a.shx"), "t-2"
        )
        assert sorted(path.name for path in (folder / ".sewer").iterdir()) == [".gitignore", "a.shp.json"]
        if not was_killed:
            break
    assert steps == 6


SETS = (("a.shp", "a.dbf", "a.prj", "b.txt"), ("a.shp", "a.dbf", "a.shx", "b.txt"))


@pytest.fixture
def killed_at(tmp_path):
    """Return a function that has a process killed at a step of putting two products in place, of which one is a set.

    It returns the task, its folder and the job directory, and whether the process came as far as that step.
    """

    def kill(at: int) -> tuple:
        folder = tmp_path / str(at)
        task = Task("t", "job", {"a": Product(folder / "a.shp"), "b": Product(folder / "b.txt")})
        for attempt, names in zip(("t-1", "t-2"), SETS, strict=True):
            directory = JobDirectory(str(folder / attempt))
            directory.create()
            place = os.path.dirname(JobProducts(TaskRunner(task, {}), directory).begin(attempt).argv[3])
            for name in names:
                Path(place, name).write_text(attempt)
            if attempt == "t-1":
                JobProducts(TaskRunner(task, {}), directory).commit(None)
        if (pid := os.fork()) == 0:
            left = [at]

            def dies_at(do):
                def step(*arguments, **named):
                    left[0] -= 1
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return do(*arguments, **named)

                return step

            for name in ("rename", "replace", "unlink"):
                setattr(os, name, dies_at(getattr(os, name)))
            JobProducts(TaskRunner(task, {}), directory).commit(None)
            os._exit(0)
        return task, folder, directory, os.WIFSIGNALED(os.waitpid(pid, 0)[1])

    return kill


def made(folder: Path) -> dict[str, str]:
    """Return the files of the products in a folder, with their contents."""
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_begin_of_another_run_finishes_commit_of_a_killed_process(killed_at):
    """Whichever step it dies at, all products are those of one attempt, and its next process still has its success."""
    seen = []
    for at in range(1, 40):
        task, folder, directory, was_killed = killed_at(at)
        other = JobDirectory(str(folder / "other"))
        other.create()

        JobProducts(TaskRunner(task, {}), other).begin("other-1")

        files = made(folder)
        assert files in [dict.fromkeys(names, attempt) for attempt, names in zip(("t-1", "t-2"), SETS, strict=True)], at
        seen.append(files["b.txt"])
        JobProducts(TaskRunner(task, {}), other).discard()
        assert made(folder) == files, at
        JobProducts(TaskRunner(task, {}), directory).commit(None)
        assert made(folder) == dict.fromkeys(SETS[1], "t-2"), at
        assert [json.loads((folder / f".sewer/{name}.json").read_text())["is_complete"] for name in ("a.shp", "b.txt")]
        assert not [*(folder / ".sewer").glob("making-*")], at
        if not was_killed:
            break
    assert not was_killed
    assert sorted(seen) == seen  # first those that have moved nothing
    assert set(seen) == {"t-1", "t-2"}


def test_discard_after_a_kill_leaves_products_of_one_attempt(killed_at):
    """A user has cleared the task: products whose commit has not begun are all moved aside."""
    for at in range(1, 40):
        task, folder, directory, was_killed = killed_at(at)

        JobProducts(TaskRunner(task, {}), directory).discard()

        files = {name: text for name, text in made(folder).items() if not name.endswith(".failed")}
        assert files in [dict.fromkeys(names, attempt) for attempt, names in zip(("t-1", "t-2"), SETS, strict=True)], at
        assert not [*(folder / ".sewer").glob("making-*")], at
        if not was_killed:
            break
    assert not was_killed


def test_begin_of_another_run_does_not_disturb_a_committing_process(attempt, tmp_path, monkeypatch):
    """It holds a lock until it is done. One that was refused by the file system holds none, and is not abandoned."""
    task, directory = attempt
    replace, begun = os.replace, []

    def begins_another(source, target):
        if os.path.basename(target) == "b.txt":
            monkeypatch.setattr(os, "replace", replace)
            other = JobDirectory(str(tmp_path / f"other-{len(begun)}"))
            other.create()
            begun.append(JobProducts(TaskRunner(task, {}), other).begin("other-1"))
            if len(begun) == 1:
                raise OSError(errno.EIO, "Input/output error", target)
        replace(source, target)

    for expected in (pytest.raises(FileSystemRefused, match=r"b\.txt: Input/output error"), nullcontext()):
        monkeypatch.setattr(os, "replace", begins_another)
        with expected:
            JobProducts(TaskRunner(task, {}), directory).commit(None)
    assert len(begun) == 2
    assert made(tmp_path) == {"a.txt": "whole", "b.txt": "whole"}


def test_unreadable_product_record_raises(attempt):
    """The error contains the fix."""
    task, directory = attempt
    Path(directory.path, "products.json").write_text("{}")

    with pytest.raises(UnreadableRecord, match=r"products\.json cannot be read as format 1: "):
        JobProducts(TaskRunner(task, {}), directory).commit(None)
