"""SlurmJobTrigger of an instance that waits for its job array."""

from __future__ import annotations

import asyncio
import logging

from airflow_provider_sewer.slurm.job_directory import JobDirectory
from tests.triggers.trigger_runs import first_event, recreated, run_until


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
