"""Airflow operators: thin adapters from a DAG to the execution backends."""
