"""Limits of job arrays in the configuration of a cluster."""

from __future__ import annotations

import pytest

from airflow_provider_sewer.slurm.arrays.array_limits import read_array_limits


@pytest.mark.parametrize(
    ("config", "limits"),
    [
        ("MaxArraySize            = 1001\nSchedulerParameters     = bf_interval=1,max_array_tasks=50\n", (1001, 50)),
        ("MaxArraySize            = 0\n", (0, 0)),
    ],
)
def test_array_limits_are_read_from_config(config: str, limits: tuple[int, int]) -> None:
    """One that is not given is 0."""
    assert read_array_limits(config) == limits


def test_array_limits_missing_in_config_raises() -> None:
    """They would mean that there are no arrays."""
    with pytest.raises(ValueError, match="does not show MaxArraySize"):
        read_array_limits("SLURM_VERSION = 25.11.2\n")
