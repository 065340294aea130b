"""Job script: the text by submitit, the input of the module, and its protection from `setup`."""

from __future__ import annotations

import json
import os
import pwd
import re
import resource
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_sewer.core.call import function_call, module_call
from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.slurm import job_script
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.job_script import _BASH_OWN, ArrayScript, JobScript
from tests.slurm.script_jobs import wait_until

if TYPE_CHECKING:
    from tests.slurm.script_jobs import ScriptJobs
    from tests.slurm_cluster.cluster import SlurmCluster

PRINT_ARGUMENTS = "import json, sys; print(json.dumps(sys.argv[1:]))"
PRINT_ENVIRONMENT = "import json, os; print(json.dumps(dict(os.environ)))"

# --- text by submitit


def script_of(**fields: Any) -> JobScript:
    defaults = {
        "name": "a name", "call": module_call("some.module", ["--n", "1 2"]), "python": "/py", "workdir": "/w",
        "env": {}, "secret_env": {}, "resources": {}, "requeue": False, "grace": 4.0,
    }  # fmt: skip
    return JobScript(**{**defaults, **fields})


def written(folder: Path, **fields: Any) -> str:
    directory = JobDirectory(str(folder / "run"))
    directory.create()
    script_of(**fields).write(directory)
    return Path(directory.script).read_text()


def options_in(text: str) -> list[str]:
    return [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")]


def test_script_has_no_defaults_of_submitit(tmp_path: Path) -> None:
    """Without settings, none of submitit's own defaults is set: no time, no nodes, no key, no signal."""
    text = written(tmp_path)

    run = tmp_path / "run"
    assert options_in(text) == [
        f"chdir={run}",
        f"error={run}/stderr.log",
        "export=NONE",
        "job-name='a name'",
        "no-requeue",
        "open-mode=append",
        f"output={run}/stdout.log",
        "propagate=NONE",
    ]
    assert text.startswith("#!/bin/bash\n")
    assert text.endswith("\n# command\nsewer_run /py -u -m some.module --n '1 2'\n")
    assert "submitit" not in text.lower()


def test_resources_use_names_of_submitit(tmp_path: Path) -> None:
    """Resources have submitit's names, and reach sbatch by its own."""
    resources = {
        "partition": "gpu", "timeout_min": 90, "mem_gb": 0.5, "cpus_per_task": 2, "gpus_per_node": 1, "nodes": 2,
        "tasks_per_node": 3, "comment": "it's 5 %", "account": None, "setup": ["module load x"], "teardown": ["echo"],
        "additional_parameters": {"nice": 10, "hint": "nomultithread"},
    }  # fmt: skip

    text = written(tmp_path, resources=resources, requeue=True)

    options = set(options_in(text))
    assert options >= {
        "partition=gpu", "time=90", "mem=512MB", "cpus-per-task=2", "gpus-per-node=1", "nodes=2", "ntasks-per-node=3",
        r"comment='it\'s 5 %'", "nice=10", "hint=nomultithread", "requeue", "export=NONE",
    }  # fmt: skip
    assert not {name for name in options if name.startswith(("account", "signal", "wckey", "no-requeue"))}
    assert text.index("module load x") < text.index("sewer_run /py") < text.index("# teardown\necho")


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"signal_delay_s": 30}, "signal=B:USR2@30"),
        ({"signal_delay_s": 30, "use_srun": True}, "signal=USR2@30"),
        ({"additional_parameters": {"signal": "B:TERM@60"}}, "signal=B:TERM@60"),
    ],
)
def test_signal_option_requires_signal_delay_s(resources: dict[str, Any], expected: str, tmp_path) -> None:
    """A signal before the time limit is sent to those who want one."""
    assert expected in options_in(written(tmp_path, resources=resources))


def test_srun_requires_use_srun(tmp_path: Path) -> None:
    """With use_srun the module is started by srun, with its arguments."""
    text = written(tmp_path, resources={"use_srun": True, "srun_args": ["--mpi=none", "a b"]})

    assert "\nsewer_before=(srun --unbuffered --mpi=none 'a b')\n" in text
    assert "\nsewer_run /py -u -m some.module" in text


def test_use_srun_is_ignored_by_local_backend(local_jobs: ScriptJobs) -> None:
    """A module that is to be started by srun is started without it as a local job."""
    assert local_jobs.start(PRINT_ARGUMENTS, "a=b", resources={"use_srun": True}).output() == ["a=b"]


def test_propagate_requires_additional_parameter(tmp_path: Path) -> None:
    """The worker's resource limits reach the job only on request."""
    text = written(tmp_path, resources={"additional_parameters": {"propagate": "NOFILE"}})

    assert [option for option in options_in(text) if option.startswith("propagate")] == ["propagate=NOFILE"]


def test_resource_limits_of_worker_do_not_reach_job(cluster_jobs: ScriptJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that may open few files submits jobs that may open as many as the node lets them."""
    source = "import json, resource; print(json.dumps(resource.getrlimit(resource.RLIMIT_NOFILE)))"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 13, hard))
    try:
        job = cluster_jobs.start(source)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert job.output()[0] != soft - 13


def test_unknown_submitit_parameter_raises_invalid_task(tmp_path: Path) -> None:
    """A parameter that submitit rejects is an error of the task."""
    with pytest.raises(InvalidTask, match="no_such_thing"):
        written(tmp_path, resources={"no_such_thing": 1})


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


# --- input of the module


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


# --- secrets


def command_lines() -> str:
    lines = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                lines.append((folder / "cmdline").read_bytes().decode(errors="replace"))
            except OSError:
                continue
    return "\n".join(lines)


WAIT = """
    import os, time
    os.chdir(os.path.dirname(os.environ["SEWER_RESULT_FILE"]))
    print("here", os.environ.get("SLURM_RESTART_COUNT"), len(os.environ.get("API_TOKEN", "")), flush=True)
    while not os.path.exists("go"):
        time.sleep(0.05)
"""
SECRETS = {"env": {"API_TOKEN": "told-to-nobody"}, "secret_env": {"HARMLESS_NAME": "nor-this'\none"}}


def test_secrets_are_in_no_command_line_script_or_log(cluster_jobs: ScriptJobs, slurm: SlurmCluster) -> None:
    """A secret stands in no command line, in no job script and, once the job has read it, in no file."""
    directory = cluster_jobs.directory()
    script = cluster_jobs.script(WAIT, **SECRETS)
    script.write(directory)
    assert os.stat(directory.path).st_mode & 0o777 == 0o700
    assert os.stat(directory.secrets).st_mode & 0o777 == 0o600

    job = cluster_jobs.again(directory, script.name)
    job.expect_output("here None 14")

    seen = command_lines() + slurm.command("scontrol", "write", "batch_script", job.ref.id, "-")
    seen += slurm.command("scontrol", "show", "job", job.ref.id)
    seen += "".join(path.read_text() for path in Path(directory.path).iterdir() if path.is_file())
    assert script.call.target in seen
    assert "told-to-nobody" not in seen
    assert "nor-this" not in seen
    assert not os.path.exists(directory.secrets)
    Path(directory.path, "go").touch()
    record = job.end()
    assert record is not None and record.is_success


def test_secret_arguments_are_passed_as_variables(cluster_jobs: ScriptJobs) -> None:
    """The module gets them byte for byte; they are in no file when the job has begun, and in no variable of its own."""
    secret = 'told\'to "nobody" $HOME `id`\n\\'
    password = "told-to"
    arguments = ("--n", "3", "--password", secret, f"--url=redis://:{password}@host", "nor-this'\none too")
    script = cluster_jobs.script(
        """
        import json, os, sys
        print(json.dumps([sys.argv[1:], [name for name in os.environ if name.startswith("sewer_")]]))
        """,
        *arguments,
        **SECRETS,
    )
    job = cluster_jobs.submit(script)
    assert job.output() == [list(arguments), []]
    seen = Path(job.directory.script).read_text() + Path(job.directory.environment).read_text()
    assert "--n 3 --password" in seen
    assert "told" not in seen
    assert "nor-this" not in seen
    assert not os.path.exists(job.directory.secrets)


def test_url_password_variables_are_removed_from_disk(cluster_jobs: ScriptJobs) -> None:
    """They are as secret as those with a secret name."""
    job = cluster_jobs.start("print('{}')", env={"DB": "postgres://me:told-to-nobody@host", "DB_PASS": "nor-this"})
    job.output()
    files = [path.read_text() for path in Path(job.directory.path).iterdir() if path.is_file()]
    assert not [text for text in files if "told-to-nobody" in text or "nor-this" in text]


def test_requeued_job_keeps_claim_and_secrets(cluster_jobs: ScriptJobs, slurm: SlurmCluster) -> None:
    """A job that Slurm starts again keeps its claim, records the restart, has its secrets again, and forgets them."""
    job = cluster_jobs.start(WAIT, **SECRETS, requeue=True)
    job.expect_output("here None 14")
    first = job.directory.read_start()

    slurm.requeue(job.ref.id)  # which Slurm does after some seconds
    job.expect_output("here 1 14")

    again = job.directory.read_start()
    assert first is not None
    assert again is not None
    assert (first.restart, again.restart) == (0, 1)
    assert job.directory.read_exit() is None
    assert job.directory.read_claim() == job.ref.id
    job.create_file("go")
    record = job.record()
    assert record.is_success
    assert record.restart == 1
    assert not os.path.exists(job.directory.secrets)


def test_missing_secrets_prevent_start(cluster_jobs: ScriptJobs) -> None:
    """A module is not run without the secrets it was to be given."""
    directory = cluster_jobs.directory()
    script = cluster_jobs.script("print('it ran')", **SECRETS)
    script.write(directory)
    directory.forget_secrets()

    job = cluster_jobs.again(directory, script.name)

    record = job.end()
    assert record is not None
    assert (record.phase, record.exit_code) == ("setup", 74)
    assert "cannot read the variables" in job.stderr
    assert job.stdout == ""


# -- Without a login environment ---------------------------------------------------------------------------------------


def test_login_environment_false_exports_nil(tmp_path: Path) -> None:
    """Neither for a job nor for an array; other options do not change that default."""
    assert "export=NIL" in options_in(written(tmp_path / "without", resources={"login_environment": False}))
    assert "export=NONE" in options_in(written(tmp_path / "with", resources={"login_environment": True}))
    directory = JobDirectory(str(tmp_path / "array"))
    directory.create()
    ArrayScript("a", [0, 1], {"login_environment": False}, requeue=False).write(directory)
    assert "export=NIL" in options_in(Path(directory.script).read_text())


@pytest.mark.parametrize("use_srun", [False, True], ids=["plain", "under srun"])
def test_login_environment_false_sets_user_home_shell_and_path(cluster_jobs: ScriptJobs, use_srun) -> None:
    """The user, the home, the shell and a path, and the variables of the task."""
    source = """
        import json, os
        names = ("HOME", "USER", "LOGNAME", "SHELL", "PATH", "GIVEN")
        print(json.dumps({name: os.environ.get(name) for name in names}))
    """
    job = cluster_jobs.start(source, env={"GIVEN": "x"}, resources={"login_environment": False, "use_srun": use_srun})
    account = pwd.getpwuid(os.geteuid())
    seen = job.output()
    path = seen.pop("PATH").split(":")
    assert "/usr/bin" in path
    assert "." not in path
    assert seen == {
        "HOME": account.pw_dir,
        "USER": account.pw_name,
        "LOGNAME": account.pw_name,
        "SHELL": account.pw_shell,
        "GIVEN": "x",
    }


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
