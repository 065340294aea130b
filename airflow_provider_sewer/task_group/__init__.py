"""TaskGroups and single Airflow tasks from workflow files."""

from airflow_provider_sewer.task_group.group import SewerTaskGroup
from airflow_provider_sewer.task_group.sewer_task_group import sewer_task_group
from airflow_provider_sewer.task_group.single_task import create_airflow_task, create_airflow_tasks

__all__ = ["SewerTaskGroup", "create_airflow_task", "create_airflow_tasks", "sewer_task_group"]
