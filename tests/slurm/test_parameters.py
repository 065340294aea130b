"""Slurm parameters: each one is submitted to a real cluster, and Slurm's own record of the job is compared."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.slurm_parameters import RESOURCES
from airflow_provider_sewer.core.slurm_settings import SlurmSettings
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.run_dir import checked_run_dir

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_sewer.slurm.job_script import JobScript
    from tests.slurm.script_jobs import ScriptJobs
    from tests.slurm_cluster.cluster import SlurmCluster

NEVER = {"begin": "now+1hour"}
#: Parameters that act inside of the job script, or that Slurm shows only with accounting; each with the line that
#: holds it.
IN_THE_SCRIPT = {
    "setup": (["module() { :; }"], "module() { :; }"),
    "teardown": (["echo over"], "# teardown\necho over"),
    "use_srun": (True, "sewer_before=(srun --unbuffered)"),
    "srun_args": (["--mpi=none", "a b"], "sewer_before=(srun --unbuffered --mpi=none 'a b')"),
    "stderr_to_stdout": (True, "exec 2>&1"),
    "signal_delay_s": (30, "#SBATCH --signal=B:USR2@30"),
    "qos": ("long", "#SBATCH --qos=long"),
    "wckey": ("k", "#SBATCH --wckey=k"),
}
#: Parameters that `scontrol show job` shows, each with its value and the field that shows it.
IN_SLURM: list[tuple[str, Any, str]] = [
    ("partition", "scavenge", "Partition=scavenge"),
    ("account", "lab", "Account=lab"),
    ("account", 1234, "Account=1234"),
    ("timeout_min", 90, "TimeLimit=01:30:00"),
    ("timeout_min", "90", "TimeLimit=01:30:00"),
    ("time", "2-12", "TimeLimit=2-12:00:00"),
    ("time", 90, "TimeLimit=01:30:00"),
    ("nodes", 2, "NumNodes=2-2"),
    ("nodes", "2", "NumNodes=2-2"),
    ("tasks_per_node", 3, "NumTasks=3"),
    ("ntasks_per_node", "3", "NumTasks=3"),
    ("cpus_per_task", 3, "CPUs/Task=3"),
    ("cpus_per_task", "3", "CPUs/Task=3"),
    ("gpus_per_node", 2, "TresPerNode=(gres[:/])?gpu:2"),
    ("gpus_per_node", "2", "TresPerNode=(gres[:/])?gpu:2"),
    ("gpus_per_task", 1, "TresPer(Task|Node)=.*gpu[:=]1"),
    ("cpus_per_gpu", 2, "CpusPerTres=(gres[:/])?gpu:2"),
    ("mem_per_gpu", "100M", "MemPerTres=(gres[:/])?gpu:100"),
    ("mem_gb", 1, "MinMemoryNode=1G"),
    ("mem_gb", 0.5, "MinMemoryNode=512M"),
    ("mem_gb", "0.5", "MinMemoryNode=512M"),
    ("mem", "1G", "MinMemoryNode=1G"),
    ("mem", "1GB", "MinMemoryNode=1G"),
    ("mem", "500M", "MinMemoryNode=500M"),
    ("mem", "500", "MinMemoryNode=500M"),
    ("mem", 800, "MinMemoryNode=800M"),
    ("mem_per_cpu", "300M", "MinMemoryCPU=300M"),
    ("mem_per_cpu", 300, "MinMemoryCPU=300M"),
    ("gres", "gpu:1", "TresPerNode=(gres[:/])?gpu:1"),
    ("constraint", "[a|b]&c", r"Features=\[a\|b\]&c"),
    ("nodelist", "n[1-2]", r"ReqNodeList=n\[1-2\]"),
    ("exclude", "n3", "ExcNodeList=n3"),
    ("exclusive", True, "OverSubscribe=NO"),
    ("exclusive", "user", "OverSubscribe=USER"),
    ("mail_type", "END,FAIL", "MailType=END,FAIL"),
    ("mail_user", "me@lab", "MailUser=me@lab"),
    ("comment", "night's run", "Comment=night's run"),
    ("comment", 12, "Comment=12"),
]

#: Some parameters are about others, and mean nothing without these.
WITH = {
    "gpus_per_task": {"additional_parameters": {"ntasks": 2}},
    "cpus_per_gpu": {"gpus_per_node": 1},
    "mem_per_gpu": {"gpus_per_node": 1},
    "srun_args": {"use_srun": True},
    "mail_user": {"mail_type": "END"},
}
#: Those that have tests of their own below, or elsewhere.
ELSEWHERE = {"name", "job_name", "dependency", "array_parallelism", "additional_parameters", "login_environment"}


def script(jobs: ScriptJobs, **slurm: Any) -> JobScript:
    """Return the script of a job that does not begin."""
    more = {**NEVER, **slurm.pop("additional_parameters", {})}
    resources = SlurmSettings.checked(slurm={**slurm, "additional_parameters": more}).slurm
    return jobs.script("", resources=dict(resources))


@pytest.fixture
def features(slurm: SlurmCluster) -> Iterator[None]:
    """Let the nodes have features."""
    for node in slurm.nodes:
        slurm.command("scontrol", "update", f"NodeName={node}", "AvailableFeatures=a,b,c")
    yield
    for node in slurm.nodes:
        slurm.command("scontrol", "update", f"NodeName={node}", "ActiveFeatures=")
        slurm.command("scontrol", "update", f"NodeName={node}", "AvailableFeatures=")


def test_documented_parameters_have_test_cases() -> None:
    """A parameter that is added needs a line in one of the tables."""
    assert {name for name, *_ in IN_SLURM} | set(IN_THE_SCRIPT) | ELSEWHERE == set(RESOURCES)


@pytest.mark.usefixtures("features")
def test_slurm_parameters_match_scontrol(cluster_jobs: ScriptJobs, slurm: SlurmCluster) -> None:
    """Numbers and strings, submitit's spelling and Slurm's."""
    wrong = []
    for name, value, field in IN_SLURM:
        job = cluster_jobs.submit(script(cluster_jobs, **{**WITH.get(name, {}), name: value}))
        record = slurm.command("scontrol", "show", "job", job.ref.id)
        if not re.search(rf"(?m)(^|\s){field}( |$)", record):
            wrong.append((name, value, field, record))

    assert not wrong


@pytest.mark.parametrize("name", IN_THE_SCRIPT)
def test_slurm_parameters_unseen_by_scontrol_are_in_script(name: str, cluster_jobs: ScriptJobs, tmp_path: Path) -> None:
    """A parameter that acts on the node is a line of the script there."""
    value, line = IN_THE_SCRIPT[name]
    directory = JobDirectory(str(tmp_path / "run"))
    directory.create()

    script(cluster_jobs, **{**WITH.get(name, {}), name: value}).write(directory)

    assert f"\n{line}" in Path(directory.script).read_text()


def test_dependency_matches_scontrol(cluster_jobs: ScriptJobs, slurm: SlurmCluster) -> None:
    """A job that is held keeps it from being fulfilled."""
    first = slurm.submit("exit 0", "--hold")
    job = cluster_jobs.submit(script(cluster_jobs, dependency=f"afterany:{first}"))

    record = slurm.command("scontrol", "show", "job", job.ref.id)
    assert f" Dependency=afterany:{first}(" in record


def test_additional_parameters_reach_sbatch(cluster_jobs: ScriptJobs, slurm: SlurmCluster) -> None:
    """With dashes or underscores; True is an option without a value."""
    more = {"hold": True, "nice": 10, "nodes": "1-2", "time_min": 5}
    job = cluster_jobs.submit(script(cluster_jobs, additional_parameters=more))

    record = slurm.command("scontrol", "show", "job", job.ref.id)
    assert "Reason=JobHeldUser" in record
    assert "Nice=10" in record
    assert "NumNodes=1-2" in record
    assert "TimeMin=00:05:00" in record


# -- Any text ----------------------------------------------------------------------------------------------------------

ANY_TEXT = some.text(
    some.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")) | some.sampled_from("\\'\"# %$`-=:"),
    min_size=1,
    max_size=200,
).filter(lambda text: text.strip() and len(text.encode()) <= 1024)
NASTY = [
    "a\\b", "C:\\data\\", "\\", "\\'", "'", '"', "it's \"so\" \\'", "\\'\" --array=1-3 --comment=x\\",
    "x' --output=/tmp/owned '", "a # b", "#SBATCH --array=1-2", "%j %% %", " spaces ", "größe ✓ 日本", "-x", "hetjob",
    "$(id) `id` $HOME", ":", "\\ ", "a\\\\b",
]  # fmt: skip


def shown_comment(slurm: SlurmCluster, job_id: str) -> str:
    """Return the comment of a job; up to 24.11, scontrol prints a space after it."""
    record = slurm.command("scontrol", "show", "job", job_id)
    return next(line for line in record.splitlines() if line.startswith("   Comment=")).removeprefix("   Comment=")


def test_slurm_parameter_text_reaches_slurm_unchanged(cluster_jobs: ScriptJobs, slurm: SlurmCluster) -> None:
    """Sbatch's parser of #SBATCH lines takes nothing away, and makes one option of each."""

    @given(ANY_TEXT)
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    def arrives(text: str) -> None:
        job = cluster_jobs.submit(script(cluster_jobs, comment=text, mail_user=text, mail_type="END"))
        try:
            assert shown_comment(slurm, job.ref.id) in {text, f"{text} "}
            record = slurm.command("scontrol", "show", "job", job.ref.id)
            assert f"\n   MailUser={text} MailType=" in record
            assert "ArrayTaskId" not in record
            assert f"\n   StdOut={job.directory.stdout}" in record
        finally:
            slurm.command("scancel", job.ref.id)

    for text in NASTY:
        arrives = example(text)(arrives)
    arrives()


def test_additional_parameter_text_reaches_slurm_unchanged(cluster_jobs: ScriptJobs, slurm: SlurmCluster) -> None:
    """They stand in the same lines."""
    for text in NASTY:
        job = cluster_jobs.submit(script(cluster_jobs, additional_parameters={"comment": text}))
        assert shown_comment(slurm, job.ref.id) in {text, f"{text} "}


@pytest.mark.parametrize("path", ["/runs/a\nb", "/runs/a\rb", "/runs/a\tb", "/runs/a\\b"])
def test_checked_run_dir_rejects_backslash_on_slurm(path: str) -> None:
    """Slurm has no way to write it in the path of a log."""
    with pytest.raises(InvalidTask, match=r"^run_dir"):
        checked_run_dir(path, kind="slurm")


def test_checked_run_dir_accepts_backslash_on_local() -> None:
    """Home folders of some directory services have one."""
    assert checked_run_dir("/home/LAB\\me", kind="local") == "/home/LAB\\me"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("comment", "a\tb", "slurm: comment must not contain the control character '\\t', got 'a\\tb'; remove it"),
        ("account", "a\x1b[31m", "must not contain the control character '\\x1b'"),
        ("partition", "a\u2028b", "must not contain a line break"),
        ("comment", "é" * 513, "slurm: comment must have at most 1,024 bytes, got 1,026; shorten it"),
    ],
)
def test_slurm_parameters_reject_unprintable_text(name: str, text: str, expected: str) -> None:
    """By name, and before anything is submitted."""
    with pytest.raises(InvalidTask) as raised:
        SlurmSettings.checked(slurm={name: text})
    assert expected in str(raised.value)


def test_longest_accepted_text_is_accepted_by_slurm(cluster_jobs: ScriptJobs, slurm: SlurmCluster) -> None:
    """Slurm counts bytes."""
    text = "é" * 512
    job = cluster_jobs.submit(script(cluster_jobs, comment=text))

    assert shown_comment(slurm, job.ref.id) in {text, f"{text} "}
