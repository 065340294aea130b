"""Environment of a module: a short list of variables, and those that it is given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_sewer.core.environment import (
    INHERITED,
    build_environment,
    checked_env,
    checked_inherit,
    inherited,
)
from airflow_provider_sewer.core.errors import InvalidTask

WORKER = {
    "PATH": "/bin",
    "HOME": "/home/me",
    "LANG": "C.UTF-8",
    "MINE": "1",
    "PYTHONPATH": "/elsewhere",
    "AIRFLOW_HOME": "/airflow",
    "AIRFLOW__CORE__FERNET_KEY": "secret",
    "_AIRFLOW_PROCESS_CONTEXT": "server",
    "SLURM_JOB_ID": "1",
    "SBATCH_ACCOUNT": "us",
    "SRUN_DEBUG": "3",
    "SEWER_RESULT_FILE": "/somebody/elses",
}


def test_build_environment_inherits_short_list_only():
    """A variable that is not on the list does not reach the module."""
    assert build_environment({}, source=WORKER) == {"PATH": "/bin", "HOME": "/home/me", "LANG": "C.UTF-8"}


def test_build_environment_inherits_named_variables():
    """Named variables pass where they are set; names that are not set are no error."""
    env = build_environment({}, ["MINE", "NOT_SET"], source=WORKER)

    assert env == {"PATH": "/bin", "HOME": "/home/me", "LANG": "C.UTF-8", "MINE": "1"}


def test_inherit_true_excludes_airflow_and_slurm_variables():
    """``True`` passes everything but variables that can hold connections or belong to the worker's own job."""
    assert set(build_environment({}, True, source=WORKER)) == {"PATH", "HOME", "LANG", "MINE", "PYTHONPATH"}


def test_inherit_passes_private_variable_by_name():
    """Who names a variable means it."""
    assert build_environment({}, ["AIRFLOW_HOME"], source=WORKER)["AIRFLOW_HOME"] == "/airflow"


def test_build_environment_keeps_the_devices_of_the_allocation():
    """Without them a module would take GPU 0, which may be another job's."""
    allocation = {"CUDA_VISIBLE_DEVICES": "1", "ROCR_VISIBLE_DEVICES": "1", "ZE_AFFINITY_MASK": "1",
                  "GPU_DEVICE_ORDINAL": "1", "OMP_NUM_THREADS": "4"}  # fmt: skip

    for inherit in (False, True, ["MINE"]):
        assert build_environment({}, inherit, source={**WORKER, **allocation}).items() >= allocation.items()


def test_inherited_leaves_devices_to_the_machine_that_a_job_runs_on():
    """With all that is inherited, a job on another machine still has its own GPUs; a name is meant."""
    worker = {"CUDA_VISIBLE_DEVICES": "1", "OMP_NUM_THREADS": "4", "MINE": "1"}

    assert inherited(True, source=worker) == {"MINE": "1"}
    assert inherited(["CUDA_VISIBLE_DEVICES"], source=worker) == {"CUDA_VISIBLE_DEVICES": "1"}


def test_given_variables_override_inherited_ones():
    """A task can put another PATH in the place of the worker's."""
    assert build_environment({"PATH": "/mine"}, True, source=WORKER)["PATH"] == "/mine"


def test_build_environment_inherits_from_process_by_default(monkeypatch):
    """The default source is the environment of the process."""
    for name in INHERITED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", "UTC")

    assert build_environment({}) == {"TZ": "UTC"}


def test_checked_env_converts_numbers_and_paths():
    """A user may write ``{"OMP_NUM_THREADS": 4}``."""
    assert checked_env({"N": 4, "F": 0.5, "P": Path("/a"), "T": "t", "E": ""}) == {
        "N": "4", "F": "0.5", "P": "/a", "T": "t", "E": "",
    }  # fmt: skip


def test_checked_env_of_none_is_empty():
    """``None`` means that no variable is given."""
    assert checked_env(None) == {}


@pytest.mark.parametrize("env", ["A=1", ["A=1"], 5, [("A", "1")]])
def test_checked_env_rejects_other_types(env):
    """The message names the type that is needed and the value."""
    with pytest.raises(InvalidTask, match=rf"^env must be a mapping of names to values, got {type(env).__name__}$"):
        checked_env(env)


@pytest.mark.parametrize("name", ["", "A=B", "A\0B", "\ud800", 5, None, b"A"])
def test_checked_env_rejects_invalid_name(name):
    """A name is text without "=" and NUL."""
    with pytest.raises(InvalidTask, match="is not a valid name of an environment variable"):
        checked_env({name: "1"})


@pytest.mark.parametrize(
    "value",
    [None, True, False, ["a"], {"a": 1}, b"bytes", object(), "NUL\0", "\ud800", pytest.param(10**5000, id="huge")],
)
def test_checked_env_names_invalid_value(value):
    """The message names the variable, and never shows its value."""
    with pytest.raises(InvalidTask, match=r"^env: the value of 'A' "):
        checked_env({"A": value})


@pytest.mark.parametrize("env", [{"A": "x" * 131_069}, {"BYTES": "\udcff"}, {"ü": "🚰"}])
def test_checked_env_is_accepted_by_process(env):
    """The longest value, and odd bytes, reach a real child."""
    code = "import os, sys; sys.stdout.buffer.write(b'\\0'.join(os.environb.items().__iter__().__next__()))"
    child = subprocess.run([sys.executable, "-I", "-c", code], env=checked_env(env), capture_output=True, check=True)

    ((name, value),) = env.items()
    assert child.stdout == name.encode() + b"\0" + value.encode("utf-8", "surrogateescape")


def test_checked_env_rejects_too_long_value():
    """Name, "=" and value share the limit of an argument."""
    with pytest.raises(InvalidTask, match=r"^env: the value of 'A' must have at most 131,071 bytes, got 131,072"):
        checked_env({"A": "x" * 131_070})


def test_checked_inherit_accepts_bool_and_names():
    """Every form of it is kept, a generator's names included."""
    assert checked_inherit(None) is None
    assert checked_inherit(True) is True
    assert checked_inherit(False) is False
    assert checked_inherit(["A", "B"]) == ("A", "B")
    assert checked_inherit(name for name in ("A", "B")) == ("A", "B")


@pytest.mark.parametrize("inherit", ["PATH", 5, [""], [1], b"PATH", {"A": "1"}, object()])
def test_checked_inherit_rejects_other_values(inherit):
    """A single name is no list of names: it would be taken letter by letter."""
    with pytest.raises(InvalidTask, match=r"^inherit_env must be True, False or a list of names"):
        checked_inherit(inherit)
