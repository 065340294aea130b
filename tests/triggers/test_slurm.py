"""SlurmJobTrigger, driven with real jobs as a triggerer drives it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
import time
from contextlib import suppress
from textwrap import dedent

import pytest
from airflow.models.trigger import Trigger
from airflow.sdk.module_loading import import_string

from airflow_provider_sewer.core.errors import SlurmUnavailable
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.serialization import slurm_to_data
from airflow_provider_sewer.core.slurm_settings import DEFAULTS
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.execution.task_log import log_output
from airflow_provider_sewer.slurm.attempts import TaskInstance
from airflow_provider_sewer.slurm.job import has_ended
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.job_runner import JobRunner
from airflow_provider_sewer.slurm.job_spec import JobSpec
from airflow_provider_sewer.slurm.log_tailer import JobLogs
from airflow_provider_sewer.triggers.encrypted_fields import encrypt_secrets
from airflow_provider_sewer.triggers.slurm import SlurmJobTrigger, _News
from tests.airflow_supervisor import task_instance

PATIENCE = 60.0
QUICK = DEFAULTS._replace(deferrable=True, poll_interval=0.3, max_poll_interval=0.6)


@pytest.fixture(autouse=True)
def notices_at_once(monkeypatch):
    """Have a scheduler that notices at once that a worker is done."""
    monkeypatch.setattr("airflow_provider_sewer.triggers.slurm._SCHEDULER_NOTICES", 0.0)


@pytest.fixture
def busy_scheduler(monkeypatch):
    """Have a scheduler that takes long to notice it."""
    monkeypatch.setattr("airflow_provider_sewer.triggers.slurm._SCHEDULER_NOTICES", 1000.0)


@pytest.fixture
def submit(tmp_path):
    """Submit a module as a job, and return it with a trigger as from the database."""

    def run(source: str, cluster: str = "slurm", secrets: tuple[str, ...] = (), **settings):
        (tmp_path / "job.py").write_text(dedent(source))
        slurm = QUICK._replace(run_dir=str(tmp_path / "runs"), cluster=cluster, **settings)
        planned = JobSpec(
            TaskInstance("dag", "run", "task", -1, "0"),
            Task("task", "job").with_settings(ExecutionSettings(sys.executable, {"PYTHONPATH": str(tmp_path)})),
            slurm,
            {},
            1.0,
        )
        job = JobRunner(planned, lambda *_: None, lambda _: None).submit_and_wait()
        encrypted = encrypt_secrets(secrets, job.directory)
        trigger = SlurmJobTrigger(job.to_dict(), "job", slurm_to_data(slurm._replace(slurm={})), encrypted)
        return job, trigger

    return run


@pytest.fixture
def register(tmp_path):
    """Register so many instances of a mapped task for an array, and return the trigger of each."""

    def run(source: str, count: int, **settings):
        (tmp_path / "job.py").write_text(dedent(source))
        given = {"run_dir": str(tmp_path / "runs"), "cluster": "slurm", "array": True, "array_wait": 600.0, **settings}
        slurm = QUICK._replace(**given)
        task = Task("task", "job").with_settings(ExecutionSettings(sys.executable, {"PYTHONPATH": str(tmp_path)}))
        for index in range(count):
            planned = JobSpec(TaskInstance("dag", "run", "task", index, "0"), task, slurm, {}, 1.0, expected=2)
            waiting = JobRunner(planned, lambda *_: None, lambda _: None).submit_or_reattach()
            yield SlurmJobTrigger(waiting.to_dict(), "job", slurm_to_data(slurm._replace(slurm={})))

    return lambda *arguments, **settings: list(run(*arguments, **settings))


@pytest.fixture
def logged(caplog):
    """Return a function that returns the lines of the module that have been logged, in order."""
    caplog.set_level(logging.INFO)
    return lambda: [r.getMessage() for r in caplog.records if r.name == "airflow.task.module.stdout"]


def recreated(trigger: SlurmJobTrigger) -> SlurmJobTrigger:
    """Return the trigger as another triggerer creates it from the database."""
    path, kwargs = trigger.serialize()
    stored = Trigger._decrypt_kwargs(Trigger.encrypt_kwargs(kwargs))
    again = import_string(path)(**stored)
    again.trigger_id, again.task_instance = 1, task_instance()  # as a triggerer sets them
    return again


def _until(condition) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "the condition has not come true"
        time.sleep(0.05)


async def first_event(trigger: SlurmJobTrigger):
    """Return the event of the trigger."""
    return (await asyncio.wait_for(anext(trigger.run()), PATIENCE)).payload


async def run_until(trigger: SlurmJobTrigger, condition) -> None:
    """Run the trigger until something is true, and stop it then as a triggerer that shuts down does."""
    task = asyncio.create_task(first_event(trigger))
    until = time.monotonic() + PATIENCE
    while not condition():
        assert not task.done(), task
        assert time.monotonic() < until, "the condition has not come true"
        await asyncio.sleep(0.05)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await trigger.cleanup()


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
    _until(job.directory.read_exit)
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


@pytest.mark.parametrize("state", ["failed", "success", ...])
@pytest.mark.parametrize("cluster", ["slurm", "local"])
def test_on_kill_user_request_cancels_the_job(on_slurm, submit, cluster, state, caplog, airflow_has_task_as):
    """A user has marked the task, or deleted its run."""
    caplog.set_level(logging.INFO)
    job, trigger = submit("import time; time.sleep(600)", cluster)
    _until(job.directory.read_start)
    airflow_has_task_as(state)
    asyncio.run(recreated(trigger).on_kill())
    assert f"Cancelled {job}" in caplog.text
    _until(lambda: has_ended(job))


@pytest.mark.parametrize("state", [None, "deferred", "scheduled", "queued", "running", OSError("no database")], ids=str)
def test_on_kill_bookkeeping_does_not_cancel_the_job(on_slurm, submit, state, caplog, airflow_has_task_as):
    """A triggerer that was paused finds its trigger assigned to another one."""
    caplog.set_level(logging.INFO)
    job, trigger = submit("import time; time.sleep(600)", "local")
    _until(job.directory.read_start)
    airflow_has_task_as(state)
    asyncio.run(recreated(trigger).on_kill())
    assert "Leaving" in caplog.text
    assert not job.directory.is_cancelled
    assert not has_ended(job)
    job.cluster.cancel([job.ref], timeout=PATIENCE)


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
        await asyncio.to_thread(_until, lambda: "".join(lines["paused"]).count("\n") == 20)
        token = job.directory.read_monitor()
        second = asyncio.create_task(first_event(other))
        await asyncio.to_thread(_until, lambda: job.directory.read_monitor() != token)
        (tmp_path / "go").touch()
        await second
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first

    asyncio.run(both())
    logged = "".join(lines["paused"] + lines["other"]).split()
    assert logged[:20] == [str(number) for number in range(20)]
    assert len(logged) == len(set(logged))


async def killed_as_airflow_does(triggers, until_cancelled_again: float) -> None:
    """Call on_kill of all triggers, and cancel the calls later, as the triggerer does."""
    kills = [asyncio.create_task(trigger.on_kill()) for trigger in triggers]
    await asyncio.wait(kills, timeout=until_cancelled_again)
    for kill in kills:
        kill.cancel()
    await asyncio.gather(*kills, return_exceptions=True)


@pytest.mark.parametrize("array", [True, False], ids=["array", "jobs"])
def test_on_kill_of_many_triggers_cancels_all_jobs(on_slurm, register, array, airflow_has_task_as):
    """Airflow cancels its on_kill calls before all jobs are cancelled."""
    airflow_has_task_as("failed")
    held = {"slurm": {"additional_parameters": {"hold": True}}}
    source = "import time; time.sleep(600)"
    triggers = [recreated(one) for one in register(source, 100 if array else 20, array=array, array_wait=0.0, **held)]

    async def until_there_and_killed():
        tasks = [asyncio.create_task(first_event(trigger)) for trigger in triggers]
        await asyncio.to_thread(_until, lambda: all(each.serialize()[1]["job"]["id"] for each in triggers))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for command in ("squeue", "scancel"):
            on_slurm.put_in_front(command, "sleep 0.5")
        await killed_as_airflow_does(triggers, 1.0)

    asyncio.run(until_there_and_killed())
    data = [trigger.serialize()[1]["job"] for trigger in triggers]
    assert all(JobDirectory(each["directory"]).is_cancelled for each in data)
    ids = ",".join(dict.fromkeys(each["id"].partition("_")[0] for each in data))
    on_slurm.until(lambda: not on_slurm.command("squeue", "-h", "-r", "-j", ids), "all of them to be gone")
    assert on_slurm.counted("scancel") <= 2  # those that have come first, and all others together


def test_on_kill_logs_the_cancellation(on_slurm, submit, caplog, airflow_has_task_as):
    """Also if Airflow stops waiting before the cancellation is confirmed."""
    airflow_has_task_as("failed")
    caplog.set_level(logging.INFO)
    job, trigger = submit("import time; time.sleep(600)")
    on_slurm.put_in_front("scancel", "sleep 3")
    asyncio.run(killed_as_airflow_does([recreated(trigger)], 1.0))
    assert f"Cancelling {job} in the background; Airflow has stopped waiting" in caplog.text
    on_slurm.wait_for(job.ref.id, "CANCELLED")


def test_on_kill_with_keep_job_does_not_cancel(on_slurm, submit):
    """With on_kill_action='keep_job' nothing is cancelled."""
    job, trigger = submit("import time; time.sleep(600)", on_kill_action="keep_job")
    on_slurm.wait_for(job.ref.id, "RUNNING")
    asyncio.run(recreated(trigger).on_kill())
    assert not job.directory.is_cancelled
    assert on_slurm.state(job.ref.id) == "RUNNING"


def test_trigger_masks_secrets_that_its_arguments_do_not_show(on_slurm, submit, logged):
    """Airflow keeps the arguments in its database."""
    source = "import time; print('the key is open-sesame', flush=True); time.sleep(600)"
    _, trigger = submit(source, secrets=("open-sesame",))
    assert "open-sesame" not in repr(trigger.serialize())
    asyncio.run(run_until(recreated(trigger), logged))
    assert logged() == ["the key is ***"]


def test_trigger_masks_secrets_in_its_event(submit):
    """Airflow keeps that in its database, with the last lines of stderr."""
    _, trigger = submit("import sys; sys.exit('bad key: open-sesame')", "local", secrets=("open-sesame",))
    event = asyncio.run(first_event(recreated(trigger)))
    assert "bad key: ***" in event["ending"]["message"]
    assert "open-sesame" not in repr(event)


def test_trigger_without_key_to_its_secrets_raises_and_logs_nothing(on_slurm, submit, logged):
    """The worker, which knows the secrets, follows the job then."""
    job, trigger = submit("print('the key is open-sesame')", secrets=("open-sesame",))
    job.directory.forget_secrets()
    with pytest.raises(SlurmUnavailable, match="the key to the task's secrets"):
        asyncio.run(first_event(recreated(trigger)))
    assert logged() == []


def test_trigger_with_the_key_of_another_raises(on_slurm, submit):
    """A later try has written its own."""
    job, trigger = submit("print('done')", secrets=("open-sesame",))
    encrypt_secrets(["another-secret"], job.directory)
    with pytest.raises(SlurmUnavailable, match="the key to the task's secrets"):
        asyncio.run(first_event(recreated(trigger)))


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


# -- Arrays ------------------------------------------------------------------------------------------------------------


def test_run_pending_member_resumes_in_another_triggerer(on_slurm, register, caplog):
    """When all are there, one submission makes elements of them, and each trigger fires with its own."""
    caplog.set_level(logging.INFO)
    on_slurm.put_in_front("sbatch")
    (one,) = register("print('done')", 1)
    asyncio.run(run_until(recreated(one), lambda: "(waiting for its array)" in caplog.text))
    _, other = register("print('done')", 2)

    async def both():
        return await asyncio.gather(*(first_event(recreated(trigger)) for trigger in (one, other)))

    events = asyncio.run(both())
    assert [event["ending"]["error"] for event in events] == [None, None]
    array = events[0]["job"]["id"].partition("_")[0]
    assert [event["job"]["id"] for event in events] == [f"{array}_0", f"{array}_1"]
    assert on_slurm.counted("sbatch") == 1


def test_on_kill_of_pending_member_excludes_it_from_the_array(on_slurm, register, airflow_has_task_as):
    """Nothing of it is submitted; the one that is left does not wait for it."""
    airflow_has_task_as("failed")
    cleared, other = map(recreated, register("print('done')", 2, array_wait=0.0))
    asyncio.run(cleared.on_kill())
    assert JobDirectory(cleared.serialize()[1]["job"]["directory"]).is_cancelled
    event = asyncio.run(first_event(other))
    assert (
        on_slurm.command("squeue", "-h", "-r", "-t", "all", "-n", event["job"]["name"], "-o", "%i")
        == (event["job"]["id"])
    )


def test_run_member_with_withdrawn_registration_ends(on_slurm, register, airflow_has_task_as):
    """Another triggerer, which was paused, has cancelled it meanwhile."""
    airflow_has_task_as("failed")
    (trigger,) = register("print('done')", 1)
    waiting, other = recreated(trigger), recreated(trigger)

    async def cancelled_elsewhere():
        event = asyncio.create_task(first_event(waiting))
        await asyncio.sleep(1)
        await other.on_kill()
        return await event

    assert asyncio.run(cancelled_elsewhere())["ending"]["error"] == "cancelled"


def test_run_array_submission_error_fails_all_members(on_slurm, register):
    """In Slurm's words, for the workers to fail of."""
    triggers = register("print('done')", 2, slurm={"partition": "nowhere"})

    async def both():
        return await asyncio.gather(*(first_event(recreated(trigger)) for trigger in triggers))

    for event in asyncio.run(both()):
        assert event["job"]["id"] is None
        assert event["ending"]["error"] == "submission_rejected"
        assert "invalid partition specified: nowhere" in event["ending"]["message"]
