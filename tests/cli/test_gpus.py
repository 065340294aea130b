"""Tasks of one `sppe run` that need GPUs: each sees its own devices only."""

from __future__ import annotations

import re

SHOW = """
import os, time
path = "held"
os.makedirs(path, exist_ok=True)
devices = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
for device in devices:
    os.mkdir(f"{path}/{device}")  # fails if another task holds it
time.sleep(0.2)
for device in devices:
    os.rmdir(f"{path}/{device}")
print(*devices)
"""


def flow(sppe, **tasks: str) -> None:
    sppe.write("show.py", SHOW)
    lines = [f"Task({name!r}, 'show', {options})" for name, options in tasks.items()]
    sppe.write("flow.py", "\n".join(["from airflow_provider_sewer import Task", *lines]))


def test_run_tasks_with_gpu_resource_never_share_a_device(sppe) -> None:
    needs = {f"t{number}": f"resources={{'gpu': {1 + number % 2}}}" for number in range(8)}
    flow(sppe, **needs)
    run = sppe.run("run", "-j", "8", "--log-dir", "logs", env={"CUDA_VISIBLE_DEVICES": "3,5,7"})
    assert run.returncode == 0, run.stderr
    shown = dict(re.findall(r"^\[(\w+)\] (.*)$", run.stdout, re.MULTILINE))
    assert {name: len(devices.split()) for name, devices in shown.items()} == {
        f"t{number}": 1 + number % 2 for number in range(8)
    }
    assert set(" ".join(shown.values()).split()) <= {"3", "5", "7"}
    assert f"sewer| CUDA_VISIBLE_DEVICES={shown['t1'].replace(' ', ',')}\n" in (sppe.folder / "logs/t1.log").read_text()


def test_run_device_set_by_the_task_is_kept(sppe) -> None:
    flow(sppe, a="resources={'gpu': 1}, env={'CUDA_VISIBLE_DEVICES': '9'}")
    assert sppe.run("run", env={"CUDA_VISIBLE_DEVICES": "3"}).stdout == "[a] 9\n"


def test_run_limit_without_known_devices_numbers_them_from_0(sppe, monkeypatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    flow(sppe, a="resources={'gpu': 2}")
    run = sppe.run("run", "--limit", "gpu=2")
    assert run.stdout == "[a] 0 1\n"


def test_run_task_that_needs_more_gpus_than_visible_exits_with_2(sppe) -> None:
    flow(sppe, a="resources={'gpu': 2}")
    run = sppe.run("run", env={"CUDA_VISIBLE_DEVICES": ""})
    assert run.returncode == 2
    assert "task 'a' needs 2 of 'gpu', and 0 are visible" in run.stderr


def test_run_device_does_not_make_a_product_stale(sppe) -> None:
    sppe.write("make.py", "import sys; open(sys.argv[1], 'w').close()")
    sppe.write(
        "flow.py",
        "from airflow_provider_sewer import Product, Task\n"
        "Task('a', 'make', args=[Product('x')], resources={'gpu': 1}, run_when='stale')",
    )
    for device in "35":
        run = sppe.run("run", env={"CUDA_VISIBLE_DEVICES": device})
        assert run.returncode == 0, run.stderr
    assert "up to date" in run.stderr
