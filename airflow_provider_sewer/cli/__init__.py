"""The command ``sppe``: parse, call, print."""

import gc

# What is imported stays to the end. To look for garbage in it, now and whenever there is much else, takes a tenth of
# the time in which a short command is done.
gc.disable()

from airflow_provider_sewer.cli.main import main  # noqa: E402

gc.freeze()
gc.enable()

__all__ = ["main"]
