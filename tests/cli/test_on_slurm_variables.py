"""The variables of a user's shell by which sbatch takes options: they hold for `sppe --on slurm`, or are named."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from airflow_provider_sewer.cli import slurm_options as ours
from airflow_provider_sewer.cli.slurm_options import SbatchVariables
from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.core.slurm_settings import SlurmSettings

from .slurm_runs import on_slurm

__all__ = ["on_slurm"]


def test_sbatch_variables_have_lowest_precedence(on_slurm) -> None:
    """As options below all others, GPUs and memory by any spelling included."""
    on_slurm.flow(
        plain="print('done')",
        own="# slurm={'partition': 'main', 'mem_gb': 1, 'additional_parameters': {'nice': 7}}\nprint('done')",
    )
    env = {
        "SBATCH_ACCOUNT": "physics", "SBATCH_PARTITION": "scavenge", "SBATCH_MEM_PER_NODE": "300M",
        "SBATCH_TIMELIMIT": "17", "SBATCH_THREADS_PER_CORE": "1", "SBATCH_OVERCOMMIT": "0",
    }  # fmt: skip

    run = on_slurm.run("--slurm", "timeout_min=9", env=env)

    assert run.code == 0, run.stderr
    plain, own = (
        on_slurm.slurm.command("scontrol", "show", "job", on_slurm.one_job(name).id) for name in ("plain", "own")
    )
    for record, partition, memory in ((plain, "scavenge", "300M"), (own, "main", "1G")):
        assert f"Partition={partition} " in record
        assert f"MinMemoryNode={memory}" in record
        assert "Account=physics" in record
        assert "TimeLimit=00:09:00" in record
    assert "Nice=7" in own
    assert "partition=scavenge (SBATCH_PARTITION)" in run.stderr
    assert "OVERCOMMIT" not in run.stderr


def test_sbatch_variables_set_by_sppe_are_ignored_with_notice(on_slurm) -> None:
    """At once, with the option to use; the job is not touched by them."""
    on_slurm.flow(one="print('done')")
    env = {
        "SBATCH_ARRAY_INX": "1-3", "SBATCH_EXPORT": "ALL", "SBATCH_JOB_NAME": "mine", "SBATCH_REQUEUE": "yes",
        "SBATCH_OUTPUT": "/nowhere/x", "SBATCH_WAIT": "1", "SLURM_CLUSTERS": "other", "SBATCH_NEW_THING": "1",
    }  # fmt: skip

    run = on_slurm.run(env=env)

    assert run.code == 0, run.stderr
    head = run.stderr[: run.stderr.index("[one]")]
    assert all(f"sppe: {name} is ignored: " in head for name in env)
    assert "SBATCH_REQUEUE is ignored: use --slurm requeue=true or requeue=false" in head
    record = on_slurm.slurm.command("scontrol", "show", "job", on_slurm.one_job("one").id)
    assert "ArrayTaskId" not in record
    assert "Requeue=0" in record


def test_sbatch_variables_with_invalid_values_are_rejected(on_slurm) -> None:
    """Before anything is submitted."""
    on_slurm.flow(one="print('done')")

    run = on_slurm.run(env={"SBATCH_MEM_PER_NODE": "4 gigabytes"})

    assert run.code == 2
    assert run.stderr.startswith("sppe: SBATCH_MEM_PER_NODE: slurm: mem must have a form")
    assert on_slurm.jobs() == []


def test_sbatch_variables_cover_installed_sbatch() -> None:
    """Each name in the program has a line in one of the tables."""
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        pytest.skip("Slurm is not installed")
    read = {name.decode() for name in re.findall(rb"(?<=\0)SBATCH_[A-Z0-9_]+(?=\0)", Path(sbatch).read_bytes())}

    assert len(read) > 40
    known = {*ours._OPTION_OF, *ours._IGNORED}
    assert {name for name in read - known if not name.startswith(ours._OF_SBATCH)} == set()


@pytest.mark.parametrize(
    ("variables", "options"),
    [
        ({"SBATCH_EXCLUSIVE": ""}, {"exclusive": True}),
        ({"SBATCH_EXCLUSIVE": "user"}, {"exclusive": "user"}),
        ({"SBATCH_OVERCOMMIT": ""}, {"overcommit": True}),
        ({"SBATCH_SPREAD_JOB": "yes"}, {"spread-job": True}),
        ({"SBATCH_SPREAD_JOB": "no"}, {}),
        ({"SBATCH_REQ_SWITCH": "1", "SBATCH_WAIT4SWITCH": "10:00"}, {"switches": "1@10:00"}),
        ({"SBATCH_ACCOUNT": ""}, {}),
        ({"SBATCH_CPU_FREQ_REQ": "low"}, {"cpu-freq": "low"}),
    ],
)
def test_sbatch_variables_are_parsed_like_sbatch(variables: dict, options: dict) -> None:
    """Flags by an empty text, `yes` or a number; an option whose value is optional by an empty text."""
    assert SbatchVariables.read(variables).options == options


def test_sbatch_variables_of_allocation_are_ignored_silently() -> None:
    """Slurm sets them in an allocation, and the user did not."""
    found = SbatchVariables.read({"SLURM_JOB_ID": "7", "SLURM_HINT": "nomultithread", "SBATCH_CPU_BIND": "quiet"})

    assert found == SbatchVariables({}, ())


@pytest.mark.parametrize(
    ("given", "options", "result"),
    [
        ({"gpus_per_node": 1}, {"gpus": "4"}, {"gpus_per_node": 1}),
        ({"timeout_min": 5}, {"time": "9"}, {"timeout_min": 5}),
        ({"account": None}, {"account": "lab"}, {"account": None}),
        ({"signal_delay_s": 9}, {"signal": "B:TERM@60"}, {"signal_delay_s": 9}),
        (
            {"additional_parameters": {"threads_per_core": 1}},
            {"threads-per-core": "2", "hint": "compute_bound"},
            {"additional_parameters": {"threads_per_core": 1, "hint": "compute_bound"}},
        ),
    ],
)
def test_with_options_adds_only_missing_options(given: dict, options: dict, result: dict) -> None:
    """By any spelling; a parameter that a task drops stays dropped."""
    assert SlurmSettings(given).with_options(options).slurm == result


def test_with_options_rejects_reserved_options() -> None:
    """As additional_parameters does."""
    with pytest.raises(SewerError, match="--array"):
        SlurmSettings().with_options({"array": "1-2"})
