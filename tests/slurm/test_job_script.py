"""Job script: the input of the module, and its protection from variables and `setup`."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_sewer.core.call import function_call
from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.slurm.job_script import _BASH_OWN
from tests.slurm.script_jobs import PRINT_ARGUMENTS, PRINT_ENVIRONMENT
from tests.slurm.test_sbatch_options import written

if TYPE_CHECKING:
    from tests.slurm.script_jobs import ScriptJobs
    from tests.slurm_cluster.cluster import SlurmCluster


@pytest.mark.parametrize("name", ["a-b", "1st", "with space", "BASH_FUNC_module%%", "größe", "sewer_dir", ""])
def test_invalid_variable_name_raises_invalid_task(name: str, tmp_path: Path) -> None:
    """A name that bash cannot set, or that the script needs itself, is an error before anything is submitted."""
    with pytest.raises(InvalidTask, match="is not a valid variable name for a job script"):
        written(tmp_path, env={name: "x"})


@pytest.mark.parametrize("name", sorted(_BASH_OWN))
def test_can_set_rejects_only_variables_reserved_by_bash(name: str) -> None:
    """Each of the variables that are refused would not reach the module with its value."""
    line = f"export {name}=kept 2>/dev/null; exec /usr/bin/env"
    output = subprocess.run(["/bin/bash", "-c", line], capture_output=True, text=True, check=False, env={}).stdout

    assert f"{name}=kept" not in output.splitlines()


ARGUMENTS = [
    "", " ", "two words", "new\nline", "dos\r\nline", "größe ✓ 日本", "'single'", '"double"', "it's", "$(touch trace)",
    "`id`; id | id > x &", "$HOME ${PATH}", "*", "\\", "\\n", "%j %%", "--leading", "-", "--", "!history", "#comment",
    "a\n#SBATCH --signal=USR1@9\nb", "export SUBMITIT_EXECUTOR=slurm", "line\nexport SUBMITIT_EXECUTOR=slurm\n",
    "x" * 100_000,
]  # fmt: skip


def test_arguments_reach_module_unchanged(cluster_jobs: ScriptJobs) -> None:
    """Arguments of any content arrive on the node byte for byte."""
    assert cluster_jobs.start(PRINT_ARGUMENTS, *ARGUMENTS).output() == ARGUMENTS


FOLDERS = ["with spaces", "it's", 'a "quote"', "100%j %% %", "größe ✓", "$HOME `id`", "#hash", "a;b&c", "-dash", " x "]


def test_short_job_starts_few_processes(cluster_jobs: ScriptJobs, tmp_path: Path) -> None:
    """A trace of both shells names each process that the script starts, the module's included."""
    script, directory = cluster_jobs.script(""), cluster_jobs.directory()
    script.write(directory)
    text = Path(directory.script).read_text()
    trace = f"exec {{BASH_XTRACEFD}}>>{tmp_path}/trace\nPS4='+$BASHPID '\nset -x\n"
    Path(directory.script).write_text(text.replace("sewer_dir=", f"{trace}sewer_dir=", 1))

    assert cluster_jobs.again(directory, script.name).record().is_success

    processes = set(re.findall(r"^\++(\d+) ", (tmp_path / "trace").read_text(), re.MULTILINE))
    assert len(processes) <= 20, processes


def test_job_directory_and_workdir_accept_any_name(cluster_jobs: ScriptJobs) -> None:
    """Job directory and working directory may have spaces, quotes, percent signs and the like in their names."""
    started = []
    for name in FOLDERS:
        directory = cluster_jobs.directory(name)
        script = cluster_jobs.script("import json, os; print(json.dumps(os.getcwd()))", env={"TOKEN": "of-mine"})
        started.append(cluster_jobs.submit(script, directory))

    assert [Path(job.output()).name for job in started] == FOLDERS


def test_job_needs_only_an_interpreter_on_node(cluster_jobs: ScriptJobs) -> None:
    """The interpreter on the node needs neither submitit nor Airflow nor this package."""
    source = """
        import importlib.util, json, os
        names = ["submitit", "cloudpickle", "airflow", "airflow_provider_sewer"]
        found = [name for name in names if importlib.util.find_spec(name)]
        json.dump({"found": found}, open(os.environ["SEWER_RESULT_FILE"], "w"))
        print("[]")
    """
    job = cluster_jobs.start(source)

    assert job.output() == []
    assert json.loads(Path(job.directory.result).read_text()) == {"found": []}


GIVEN = {
    "PATH": "/nowhere", "IFS": "0123456789 /", "BASH_ENV": "/no/file", "LD_LIBRARY_PATH": "/no/folder", "HOME": "/none",
    "LINES_OF_TEXT": "one\n  two\r\n'three' $four `five`\\\n", "EMPTY": "", "SIZE": "größe ✓", "POSIXLY_CORRECT": "1",
    "FUNCNEST": "1", "EXECIGNORE": "*",
    "LC_ALL": "C", "TMPDIR": "/none", "CDPATH": "/usr", "GLOBIGNORE": "*", "ENV": "/no/file", "PS4": "$(id)",
}  # fmt: skip


def test_variables_reach_module_unchanged(cluster_jobs: ScriptJobs) -> None:
    """The module sees the variables it is given, also those that steer shells and loaders."""
    seen = cluster_jobs.start(PRINT_ENVIRONMENT, env=GIVEN).output()

    assert {name: seen.get(name) for name in GIVEN} == GIVEN
    assert not {name for name in seen if name.startswith("sewer_")}


@pytest.mark.parametrize("name", ["POSIXLY_CORRECT", "FUNCNEST"])
def test_bash_variables_do_not_break_exit_record(name: str, local_jobs: ScriptJobs) -> None:
    """Where a variable for the module would change how bash works, traps of setup still leave the record alone."""
    resources = {"setup": ["trap 'echo cleaned up' EXIT"], "teardown": ["trap 'echo in the end' EXIT"]}

    job = local_jobs.start(f"import os; print(os.environ[{name!r}])", env={name: "1"}, resources=resources)

    assert job.record().is_success
    assert job.stdout == "1\nin the end\n"


def test_too_many_variables_fail_with_exit_record(local_jobs: ScriptJobs) -> None:
    """Variables that are too long in sum keep the module from being started, but not the record from being written."""
    job = local_jobs.start("print('it ran')", env={f"LONG_{number}": "x" * 120_000 for number in range(100)})

    record = job.record()
    assert (record.phase, record.exit_code, job.stdout) == ("teardown", 126, "")
    assert "Argument list too long" in job.stderr


def test_broken_ld_library_path_does_not_break_exit_record(cluster_jobs: ScriptJobs) -> None:
    """With an LD_LIBRARY_PATH under which nothing can be started, the module's failure is still recorded."""
    (cluster_jobs.folder / "libc.so.6").write_text("no library")

    record = cluster_jobs.start("", env={"LD_LIBRARY_PATH": str(cluster_jobs.folder)}).end()

    assert record is not None
    assert (record.phase, record.exit_code) == ("teardown", 127)


def test_slurm_variables_of_worker_do_not_reach_job(
    cluster_jobs: ScriptJobs, slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's variables for sbatch have no effect, and no variable of the worker reaches the job."""
    hidden = {
        "SLURM_JOB_ID": "4711", "SLURM_JOBID": "4711", "SLURM_MEM_PER_NODE": "1", "SLURM_NTASKS": "99",
        "SBATCH_PARTITION": "no-such", "SBATCH_EXPORT": "ALL", "SBATCH_ARRAY_INX": "1-9", "SLURM_HINT": "hidden",
        "AIRFLOW__CORE__FERNET_KEY": "hidden", "AIRFLOW_CONN_DB": "hidden", "OF_THE_WORKER": "hidden",
    }  # fmt: skip
    for name, value in hidden.items():
        monkeypatch.setenv(name, value)
    again = type(cluster_jobs)(cluster_jobs.folder / "again", Path("python3"), type(cluster_jobs.cluster)())
    again.folder.mkdir()

    job = again.start(PRINT_ENVIRONMENT)

    seen = job.output()
    assert seen["SLURM_JOB_ID"] == seen["SLURM_JOBID"] == job.ref.id
    assert seen["SLURM_JOB_PARTITION"] == "main"
    left = {name for name, value in hidden.items() if seen.get(name) == value}
    assert not left
    assert not {name for name in seen if name.startswith(("AIRFLOW", "_AIRFLOW"))}


def test_srun_passes_variables_to_each_task(cluster_jobs: ScriptJobs) -> None:
    """Under srun, with two tasks, each of them sees its variables, although the job itself inherits nothing."""
    source = """
        import os, sys
        words = ["task", os.environ["SLURM_PROCID"], os.environ["GIVEN"], os.environ["SEWER_ATTEMPT_ID"][:8]]
        sys.stdout.write(" ".join(words) + "\\n")  # in one go, for both write into one file
    """
    resources = {"use_srun": True, "tasks_per_node": 2, "cpus_per_task": 1}

    job = cluster_jobs.start(source, env={"GIVEN": "yes and no", "PATH": "/nowhere"}, resources=resources)

    record = job.end()
    assert record is not None and record.is_success, job.stderr
    assert sorted(job.stdout.splitlines()) == [f"task {number} yes and no a job of" for number in (0, 1)]


def test_srun_task_failure_fails_job(cluster_jobs: ScriptJobs) -> None:
    """One task of two that fails under srun fails the job."""
    source = "import os, sys; sys.exit(3 if os.environ['SLURM_PROCID'] == '1' else 0)"

    record = cluster_jobs.start(source, resources={"use_srun": True, "tasks_per_node": 2}).end()

    assert record is not None
    assert (record.phase, record.exit_code) == ("teardown", 3)


STATE = """
    import json, os, signal, resource
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print(json.dumps({
        "umask": status["Umask"], "signals": [status[name] for name in ("SigBlk", "SigIgn", "ShdPnd")],
        "stdin": os.readlink("/proc/self/fd/0"), "files": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
        "limits": [resource.getrlimit(number) for number in range(16)], "nice": os.nice(0),
        "leads": [os.getpid() == os.getpgid(0), os.getpid() == os.getsid(0)],
    }))
"""


def test_frame_does_not_change_module_environment(cluster_jobs: ScriptJobs, slurm: SlurmCluster) -> None:
    """Umask, signals, open files, limits, stdin: all is as in a plain job."""
    ours = cluster_jobs.start(STATE)
    (folder := cluster_jobs.folder / "plain").mkdir()
    (folder / "plain.py").write_text((cluster_jobs.folder / "modules" / f"{module_of(ours)}.py").read_text())
    plain = slurm.submit(f"cd '{folder}'; {cluster_jobs.python} -u -m plain; true", "--export=NONE", "--propagate=NONE")

    slurm.wait_for(plain, "COMPLETED")
    assert ours.output() == json.loads(slurm.output(plain))


def module_of(job: Any) -> str:
    return job.ref.name.split("-")[0].removeprefix("a job of ")


def test_function_arguments_are_read_from_job_directory(local_jobs: ScriptJobs, tmp_path: Path) -> None:
    """They may be of any length, and are in no script; the command can be run again by hand."""
    script = local_jobs.script("def f(text, password): return [len(text), text[0], password]")
    call = function_call(f"{script.call.module}:f", {"text": "ü" * 500_000, "password": "geheim"})

    job = local_jobs.submit(script._replace(call=call))

    assert job.record().is_success, job.stderr
    assert json.loads(Path(job.directory.result).read_text()) == [500_000, "ü", "geheim"]
    text = Path(job.directory.script).read_text()
    assert "geheim" not in text
    assert len(text) < 100_000
    assert os.stat(job.directory.arguments).st_mode & 0o777 == 0o600

    env = {**script.env, "SEWER_RESULT_FILE": str(tmp_path / "again.json")}
    subprocess.run(["bash", "-c", text.rpartition("\nsewer_run ")[2]], env=env, check=True, timeout=60)
    assert json.loads((tmp_path / "again.json").read_text()) == [500_000, "ü", "geheim"]
