"""Runs of a trigger, as a triggerer drives it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from airflow.models.trigger import Trigger
from airflow.sdk.module_loading import import_string

from airflow_provider_sewer.triggers.slurm import SlurmJobTrigger
from tests.airflow_supervisor import task_instance

PATIENCE = 60.0


def recreated(trigger: SlurmJobTrigger) -> SlurmJobTrigger:
    """Return the trigger as another triggerer creates it from the database."""
    path, kwargs = trigger.serialize()
    stored = Trigger._decrypt_kwargs(Trigger.encrypt_kwargs(kwargs))
    again = import_string(path)(**stored)
    again.trigger_id, again.task_instance = 1, task_instance()  # as a triggerer sets them
    return again


def wait_until(condition) -> None:
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


async def killed_as_airflow_does(triggers, until_cancelled_again: float) -> None:
    """Call on_kill of all triggers, and cancel the calls later, as the triggerer does."""
    kills = [asyncio.create_task(trigger.on_kill()) for trigger in triggers]
    await asyncio.wait(kills, timeout=until_cancelled_again)
    for kill in kills:
        kill.cancel()
    await asyncio.gather(*kills, return_exceptions=True)
