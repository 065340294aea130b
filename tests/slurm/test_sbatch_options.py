"""Options of sbatch in the script that submitit writes."""

from __future__ import annotations

import os
import pwd
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_sewer.core.call import module_call
from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.job_script import ArrayScript, JobScript
from tests.slurm.script_jobs import PRINT_ARGUMENTS

if TYPE_CHECKING:
    from tests.slurm.script_jobs import ScriptJobs


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
