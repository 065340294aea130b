"""Garbage collection is paused for a while, and never for good."""

from __future__ import annotations

import gc

import pytest

from airflow_provider_sewer.task_group.sewer_task_group import gc_paused


def test_gc_paused_enables_collection_afterwards() -> None:
    """After an error as well."""
    with pytest.raises(ZeroDivisionError), gc_paused():
        assert not gc.isenabled()
        with gc_paused():
            pass
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled()


def test_gc_paused_keeps_disabled_collection() -> None:
    """It is not ours to turn on."""
    gc.disable()
    try:
        with gc_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
