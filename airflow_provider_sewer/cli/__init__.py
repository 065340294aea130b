"""The command ``sppe``: parse, call, print."""

from airflow_provider_sewer.cli.main import main

__all__ = ["main"]
