"""Python's search for garbage is left out for a while, and never for good."""

from __future__ import annotations

import gc

import pytest

from airflow_provider_sewer.task_group.factory import gc_paused


def test_what_is_left_out_goes_on_afterwards() -> None:
    """Whatever happens in between."""
    with pytest.raises(ZeroDivisionError), gc_paused():
        assert not gc.isenabled()
        with gc_paused():
            pass
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled()


def test_who_has_turned_it_off_finds_it_off() -> None:
    """It is not ours to turn on."""
    gc.disable()
    try:
        with gc_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
