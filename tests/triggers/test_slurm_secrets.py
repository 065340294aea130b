"""Secrets of SlurmJobTrigger: encrypted in its arguments, and masked in logs and events."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_sewer.core.errors import SlurmUnavailable
from airflow_provider_sewer.triggers.encrypted_fields import encrypt_secrets
from tests.triggers.trigger_runs import first_event, recreated, run_until


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
