"""Command line ``sppe``."""

import gc

# Imported modules live until the process ends. Garbage collection over them takes a tenth of the time of a short
# command.
gc.disable()

from airflow_provider_sewer.cli.main import main  # noqa: E402

gc.freeze()
gc.enable()

__all__ = ["main"]
