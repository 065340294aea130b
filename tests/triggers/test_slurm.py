"""SlurmJobTrigger, driven with real jobs as a triggerer drives it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from contextlib import suppress

import pytest

from airflow_provider_sewer.core.errors import SlurmUnavailable
from airflow_provider_sewer.execution.task_log import log_output
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.log_tailer import JobLogs
from airflow_provider_sewer.triggers.slurm import SlurmJobTrigger, _News
from tests.triggers.trigger_runs import PATIENCE, first_event, recreated, run_until, wait_until


def test_trigger_serialization_round_trip(on_slurm, submit):
    """Its arguments survive Airflow's serializer, the ones that are None or several included."""
    _, trigger = submit("pass", fail_on_pending_reason=("Licenses", "Resources"))
    assert recreated(trigger).serialize()[0] == trigger.serialize()[0]
    assert json.dumps(recreated(trigger).serialize()[1]) == json.dumps(trigger.serialize()[1])


def test_run_fires_once_with_the_job_and_its_result(on_slurm, submit):
    """The event contains everything the worker needs, as JSON values."""
    job, trigger = submit("print('done')")
    event = asyncio.run(first_event(recreated(trigger)))
    assert json.loads(json.dumps(event)) == event
    assert event["job"] == trigger.serialize()[1]["job"]
    ending = event["ending"]
    assert ending["node"] in on_slurm.nodes
    del ending["node"]
    assert ending == {
        "error": None,
        "message": "",
        "job_id": job.ref.id,
        "state": "COMPLETED",
        "exit_code": 0,
        "run_directory": job.directory.path,
    }


def test_run_delays_the_event_until_the_scheduler_has_noticed(submit, busy_scheduler, monkeypatch):
    """The scheduler takes a task that is queued again earlier for killed, although its job succeeded."""
    asked = []

    async def sleep(seconds: float) -> None:
        asked.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    job, trigger = submit("pass", "local")
    wait_until(job.directory.read_exit)
    assert asyncio.run(first_event(recreated(trigger)))["ending"]["error"] is None
    assert sum(asked) > 950
    asked.clear()
    assert asyncio.run(first_event(trigger))["ending"]["error"] is None, "there is no scheduler under dag.test()"
    assert sum(asked) < 3
    _, kwargs = trigger.serialize()
    timely = recreated(SlurmJobTrigger(**kwargs | {"deadline": time.time() + 100}))
    asyncio.run(first_event(timely))
    assert 50 < sum(asked) < 100, "nor later than Airflow waits"


def test_run_delays_errors_until_the_scheduler_has_noticed(submit, busy_scheduler, monkeypatch):
    """A triggerer that cannot follow the job gives up at once, and the worker is to follow it."""
    asked = []

    async def sleep(seconds: float) -> None:
        asked.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    job, trigger = submit("pass", secrets=("open-sesame",), cluster="local")
    job.directory.forget_secrets()
    with pytest.raises(SlurmUnavailable, match="the key to the task's secrets"):
        asyncio.run(first_event(recreated(trigger)))
    assert sum(asked) > 950


@pytest.mark.parametrize("cluster", ["slurm", "local"])
def test_run_in_another_triggerer_resumes_the_log(on_slurm, submit, logged, tmp_path, cluster):
    """No line is logged twice and none is lost, and the job knows nothing of it."""
    go = tmp_path / "go"
    _, trigger = submit(
        f"""
        import os, time
        for number in range(1000):
            print(number)
            if number == 500:
                print("half", end="", flush=True)
                while not os.path.exists({str(go)!r}): time.sleep(0.02)
                print(" way")
        """,
        cluster,
    )
    asyncio.run(run_until(recreated(trigger), lambda: "500" in logged()))
    go.touch()
    event = asyncio.run(first_event(recreated(trigger)))
    assert event["ending"]["error"] is None
    JobLogs(JobDirectory(event["job"]["directory"]), log_output).finish()  # as the worker does that goes on
    assert logged() == [*map(str, range(501)), "half way", *map(str, range(501, 1000))]


def test_stopped_triggerer_does_not_cancel_the_job(on_slurm, submit):
    """Another one goes on with it."""
    job, trigger = submit("import time; time.sleep(600)")
    asyncio.run(run_until(recreated(trigger), lambda: on_slurm.state(job.ref.id) == "RUNNING"))
    assert on_slurm.state(job.ref.id) == "RUNNING"
    assert not job.directory.is_cancelled


def test_run_cancelled_without_triggerer_cancels_the_job(on_slurm, submit):
    """Ctrl-C under `airflow dags test` leaves nothing behind."""
    job, trigger = submit("import time; time.sleep(600)")
    asyncio.run(run_until(trigger, lambda: on_slurm.state(job.ref.id) == "RUNNING"))
    on_slurm.wait_for(job.ref.id, "CANCELLED")


@pytest.mark.parametrize("turns", range(4))
def test_inbox_get_can_be_cancelled_while_an_update_arrives(turns):
    """A trigger that is cancelled when it has just heard of its job ends all the same."""

    async def cancelled_with_update() -> None:
        news = _News()
        task = asyncio.create_task(news.get(PATIENCE))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        news.put("update")
        for _ in range(turns):
            await asyncio.sleep(0)
        was_done = task.done()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert was_done or task.cancelled()

    asyncio.run(cancelled_with_update())


def test_run_paused_triggerer_logs_nothing_once_another_monitors(on_slurm, submit, tmp_path):
    """Each line is in one of the two logs."""
    lines: dict[str, list[str]] = {"paused": [], "other": []}

    class Logged(SlurmJobTrigger):
        log_of = "paused"

        def _log_output(self, stream, pieces):
            lines[self.log_of] += pieces

    job, trigger = submit(f"""
        import os, time
        for number in range(20): print(number, flush=True)
        while not os.path.exists({str(tmp_path / "go")!r}): time.sleep(0.05)
        for number in range(20, 40): print(number, flush=True)
    """)
    paused, other = (Logged(**trigger.serialize()[1]) for _ in range(2))
    other.log_of = "other"

    async def both():
        first = asyncio.create_task(first_event(paused))
        await asyncio.to_thread(wait_until, lambda: "".join(lines["paused"]).count("\n") == 20)
        token = job.directory.read_monitor()
        second = asyncio.create_task(first_event(other))
        await asyncio.to_thread(wait_until, lambda: job.directory.read_monitor() != token)
        (tmp_path / "go").touch()
        await second
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first

    asyncio.run(both())
    logged = "".join(lines["paused"] + lines["other"]).split()
    assert logged[:20] == [str(number) for number in range(20)]
    assert len(logged) == len(set(logged))


def test_run_without_slurm_commands_raises_at_once(on_slurm, submit, tmp_path, monkeypatch):
    """It could not distinguish a lost job from a running one."""
    _, trigger = submit("pass")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmUnavailable, match="sbatch, squeue, scancel not found"):
        asyncio.run(first_event(recreated(trigger)))


def test_run_does_not_block_the_event_loop(on_slurm, submit, monkeypatch):
    """No file is opened, no folder searched and no process started in the loop's own thread."""
    done_in_the_loop = []

    def watch(event: str, args: tuple) -> None:
        if watching and event in blocking and threading.current_thread() is loop_thread:
            done_in_the_loop.append((event, args[0]))

    loop_thread = threading.current_thread()
    watching = []
    blocking = {"open", "os.listdir", "os.rename", "os.remove", "subprocess.Popen"}
    sys.addaudithook(watch)
    _, trigger = submit("print('done')")

    async def follow():
        changed = recreated(trigger)
        watching.append(True)
        try:
            await first_event(changed)
            await changed.on_kill()
        finally:
            watching.clear()

    asyncio.run(follow())
    assert done_in_the_loop == []


def test_run_on_hanging_file_system_does_not_block_other_triggers(submit, tmp_path):
    """Forty triggers wait for a hanging file server, and the one with a healthy job still fires."""
    stuck = []
    for number in range(40):
        directory = tmp_path / f"stuck-{number}"
        directory.mkdir()
        os.mkfifo(directory / "stdout.log")
        stuck.append(directory / "stdout.log")
    _, healthy = submit("print('done')", "local")

    def hanging(log) -> SlurmJobTrigger:
        _, kwargs = healthy.serialize()
        return recreated(SlurmJobTrigger(**kwargs | {"job": kwargs["job"] | {"directory": str(log.parent)}}))

    async def follow_all():
        tasks = [asyncio.create_task(first_event(hanging(log))) for log in stuck]
        try:
            await asyncio.sleep(0.2)
            return await first_event(recreated(healthy))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    try:
        assert asyncio.run(follow_all())["ending"]["error"] is None
    finally:
        for log in stuck:
            with suppress(OSError):  # no reader
                os.close(os.open(log, os.O_WRONLY | os.O_NONBLOCK))
