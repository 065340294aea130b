"""Secrets of a job script: in no command line, script or log, and removed from the disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.slurm.script_jobs import ScriptJobs
    from tests.slurm_cluster.cluster import SlurmCluster


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
