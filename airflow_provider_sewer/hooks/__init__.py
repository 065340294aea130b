"""Hooks: the ``sewer`` connection, and queries for Airflow's state."""
