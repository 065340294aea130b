"""Tasks of one `sppe run` that need GPUs: each sees its own devices only."""

from __future__ import annotations

import re

import pytest

from tests.waiting import wait_until

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


@pytest.fixture(autouse=True)
def _own_locks(tmp_path, monkeypatch) -> None:
    """Let other tests use the same devices meanwhile."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))


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


WAITS = """
import os, sys, time
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
open("started-" + sys.argv[1], "w").close()
while not os.path.exists("go-" + sys.argv[1]): time.sleep(0.02)
"""


@pytest.fixture
def waiting_run(sppe):
    """Return a starter of runs with one task, which has a GPU until the test creates a file."""
    sppe.write("waits.py", WAITS)

    def start(name: str, devices: str, amount: int = 1):
        line = f"Task({name!r}, 'waits', args=[{name!r}], resources={{'gpu': {amount}}})"
        sppe.write(f"{name}.py", f"from airflow_provider_sewer import Task\n{line}")
        return sppe.start("run", "-p", f"{name}.py", "--log-dir", name, env={"CUDA_VISIBLE_DEVICES": devices})

    return start


def started(sppe, name: str) -> None:
    wait_until((sppe.folder / f"started-{name}").exists, f"the start of {name}")


def test_two_runs_at_once_never_share_a_device(sppe, waiting_run) -> None:
    one = waiting_run("one", "0,1")
    started(sppe, "one")
    two = waiting_run("two", "0,1")
    started(sppe, "two")
    for name in ("one", "two"):
        (sppe.folder / f"go-{name}").touch()
    assert [run.communicate(timeout=60)[0] for run in (one, two)] == ["[one] 0\n", "[two] 1\n"]


def test_run_waits_for_a_device_of_another_run(sppe, waiting_run) -> None:
    one = waiting_run("one", "0,1")
    started(sppe, "one")
    two = waiting_run("two", "0,1", amount=2)
    log = sppe.folder / "two" / "two.log"
    words = "Waiting for 2 of 'gpu': another run uses them"
    wait_until(lambda: log.exists() and words in log.read_text(), "a run that waits")
    (sppe.folder / "go-one").touch()
    started(sppe, "two")
    (sppe.folder / "go-two").touch()
    assert [run.wait(60) for run in (one, two)] == [0, 0]
    assert "CUDA_VISIBLE_DEVICES=0,1" in log.read_text()


def test_device_of_a_killed_run_is_free(sppe, waiting_run) -> None:
    one = waiting_run("one", "0")
    started(sppe, "one")
    two = waiting_run("two", "0")
    one.kill()
    one.wait()
    started(sppe, "two")
    (sppe.folder / "go-two").touch()
    assert two.wait(60) == 0


def test_run_that_waits_for_a_device_can_be_stopped(sppe, waiting_run) -> None:
    one = waiting_run("one", "0")
    started(sppe, "one")
    two = waiting_run("two", "0")
    log = sppe.folder / "two" / "two.log"
    wait_until(lambda: log.exists() and "Waiting for 1 of 'gpu'" in log.read_text(), "a run that waits")
    two.terminate()
    assert two.wait(60) != 0
    (sppe.folder / "go-one").touch()
    assert one.wait(60) == 0


def test_instances_of_a_mapped_task_have_devices_of_their_own(sppe) -> None:
    sppe.write("show.py", SHOW)
    sppe.write(
        "flow.py",
        "from airflow_provider_sewer import Task\nTask('a', 'show', resources={'gpu': 1}).map(n=[1, 2, 3, 4])",
    )
    run = sppe.run("run", "-j", "4", env={"CUDA_VISIBLE_DEVICES": "GPU-aa,GPU-bb"})
    assert run.returncode == 0, run.stderr
    assert set(re.findall(r"\] (.*)$", run.stdout, re.MULTILINE)) == {"GPU-aa", "GPU-bb"}
