"""Requests of jobs as numbers, compared with the rules of sbatch's manual page."""

from __future__ import annotations

import pytest

from airflow_provider_sewer.slurm.requested_resources import request_of


@pytest.mark.parametrize(
    ("parameters", "request_"),
    [
        ({}, {}),
        ({"mem_gb": 2.5}, {"mem_gb": 2.5}),
        ({"mem": "500M"}, {"mem_gb": 500 / 1024}),
        ({"mem": 2048}, {"mem_gb": 2.0}),
        ({"mem": "1t"}, {"mem_gb": 1024.0}),
        ({"mem_per_cpu": "2G", "cpus_per_task": 4}, {"cpus": 4.0, "mem_gb": 8.0}),
        ({"mem_per_cpu": "2G"}, {}),
        ({"mem_per_gpu": "40G", "gpus_per_node": 2}, {"mem_gb": 80.0, "gpus": 2.0}),
        ({"mem_per_gpu": "40G"}, {}),
        ({"mem": "0"}, {}),
        ({"cpus_per_task": 4, "tasks_per_node": 2}, {"cpus": 8.0, "tasks": 2.0}),
        ({"cpus_per_task": 4, "nodes": 2}, {"cpus": 4.0, "nodes": 2.0}),
        ({"cpus_per_gpu": 6, "gpus_per_node": 2}, {"cpus": 12.0, "gpus": 2.0, "cpus_per_gpu": 6.0}),
        ({"timeout_min": 90}, {"timeout_min": 90.0}),
        ({"time": 90}, {"timeout_min": 90.0}),
        ({"time": "90:30"}, {"timeout_min": 90.5}),
        ({"time": "1:30:00"}, {"timeout_min": 90.0}),
        ({"time": "2-12"}, {"timeout_min": 3600.0}),
        ({"time": "2-12:30"}, {"timeout_min": 3630.0}),
        ({"time": "1-0:0:30"}, {"timeout_min": 1440.5}),
        ({"time": "UNLIMITED"}, {}),
        ({"gpus_per_node": "a100:2"}, {"gpus": 2.0}),
        ({"gpus_per_node": "a100:2,v100:1"}, {"gpus": 3.0}),
        ({"gpus_per_task": 2, "ntasks_per_node": 3}, {"gpus": 6.0, "tasks": 3.0}),
        ({"gres": "gpu:2"}, {"gpus": 2.0}),
        ({"gres": "gpu"}, {"gpus": 1.0}),
        ({"gres": "gpu:a100:2,shard:4,gpu:v100:1"}, {"gpus": 3.0}),
        ({"gres": "gpu_mem:80,tmpdisk:5"}, {}),
        ({"nodes": 2, "additional_parameters": {"gpus": "a100:4"}}, {"gpus": 2.0, "nodes": 2.0}),
        (
            {"nodes": 2, "cpus_per_task": 2, "additional_parameters": {"ntasks": 7}},
            {"cpus": 8.0, "nodes": 2.0, "tasks": 4.0},
        ),
        ({"additional_parameters": {"mem-per-cpu": "2G", "cpus-per-task": "3"}}, {"cpus": 3.0, "mem_gb": 6.0}),
        ({"additional_parameters": {"mem": "much", "nodes": "2-4", "exclusive": True}}, {}),
    ],
)
def test_request_of_parameters_is_numeric(parameters, request_) -> None:
    assert request_of(parameters) == request_
