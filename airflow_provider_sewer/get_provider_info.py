"""What Airflow reads of this package: its connection type, its operators, and the connection's form."""

from __future__ import annotations

from typing import Any

_TEXT = ["string", "null"]
_NUMBER = ["number", "null"]

#: Airflow's form shows a boolean as a switch, which has no way to say nothing.
_YES_OR_NO = {"type": _TEXT, "enum": ["true", "false"]}

#: The fields of Slurm jobs: label, what it is, and what the form lets people write.
_SLURM_FIELDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "slurm": (
        "Slurm parameters",
        "Defaults of every job as a JSON object: partition, account, mem_gb, timeout_min, …",
        {"type": ["object", "null"]},
    ),
    "run_dir": ("Run directory", "Folder for the files of each attempt; all nodes have to see it.", {"type": _TEXT}),
    "cluster": (
        "Cluster",
        "slurm, local (this machine), or auto, the default: Slurm where there is an sbatch.",
        {"type": _TEXT, "enum": ["auto", "slurm", "local"]},
    ),
    "deferrable": ("Deferrable", "Wait for jobs in the triggerer instead of on a worker.", _YES_OR_NO),
    "poll_interval": ("Poll interval", "Seconds between two looks at the jobs; 5 by default.", {"type": _NUMBER}),
    "max_poll_interval": (
        "Longest poll interval",
        "Seconds that the interval may grow to; 60 by default.",
        {"type": _NUMBER},
    ),
    "durable": ("Durable", "Whether a retry takes up an earlier attempt's job; true by default.", _YES_OR_NO),
    "on_kill_action": (
        "When the task is killed",
        "What becomes of its job; cancel_job by default.",
        {"type": _TEXT, "enum": ["cancel_job", "keep_job"]},
    ),
    "requeue": ("Requeue", "Whether Slurm may start a job anew; false by default.", _YES_OR_NO),
    "max_pending_time": ("Longest wait", "Seconds that a job may wait for its start.", {"type": _NUMBER}),
    "fail_on_pending_reason": (
        "Hopeless reasons",
        "Reasons of Slurm's for which a waiting job is given up at once, instead of the built-in ones.",
        {"type": ["array", "null"], "items": {"type": "string"}},
    ),
    "lost_after": (
        "Lost after",
        "Seconds after which a job that nobody knows any more is a failure; 300 by default.",
        {"type": _NUMBER},
    ),
    "wait_for_completion": (
        "Wait for completion",
        "Whether the task lasts as long as its job; true by default.",
        _YES_OR_NO,
    ),
    "job_url": (
        "Link to a job",
        "https://…/{job_id}, and {job_name} or {user} if need be.",
        {"type": _TEXT},
    ),
}


def get_provider_info() -> dict[str, Any]:
    """Describe the provider to Airflow's providers manager."""
    return {
        "package-name": "airflow-provider-sewer",
        "name": "Sewer",
        "description": "Workflows of Python modules, run on external interpreters and on Slurm clusters.",
        "integrations": [
            {
                "integration-name": "Sewer",
                "external-doc-url": "https://pypi.org/project/airflow-provider-sewer/",
                "tags": ["software"],
            }
        ],
        "operators": [
            {
                "integration-name": "Sewer",
                "python-modules": ["airflow_provider_sewer.operators.module", "airflow_provider_sewer.operators.slurm"],
            },
        ],
        "triggers": [
            {"integration-name": "Sewer", "python-modules": ["airflow_provider_sewer.triggers.slurm"]},
        ],
        "extra-links": ["airflow_provider_sewer.links.slurm.SlurmJobLink"],
        "hooks": [
            {"integration-name": "Sewer", "python-modules": ["airflow_provider_sewer.hooks.sewer"]},
        ],
        "connection-types": [
            {
                "connection-type": "sewer",
                "hook-class-name": "airflow_provider_sewer.hooks.sewer.SewerHook",
                "hook-name": "Sewer",
                "ui-field-behaviour": {
                    "hidden-fields": ["host", "schema", "login", "password", "port"],
                    "relabeling": {},
                    "placeholders": {},
                },
                "conn-fields": {
                    "python": {
                        "label": "Interpreter",
                        "description": "Path of a python executable, or a name to look up on the worker's PATH.",
                        "schema": {"type": _TEXT},
                    },
                    "workdir": {
                        "label": "Working directory",
                        "description": "Absolute path on the worker.",
                        "schema": {"type": _TEXT},
                    },
                    "env": {
                        "label": "Environment",
                        "description": "Variables to give, as a JSON object.",
                        "schema": {"type": ["object", "null"]},
                    },
                    "secret_env": {
                        "label": "Secret environment",
                        "description": "More variables, as the text of a JSON object; masked where Airflow shows them.",
                        "schema": {"type": _TEXT, "format": "password"},
                    },
                    "inherit_env": {
                        "label": "Inherited variables",
                        "description": "Names to inherit from the worker, beyond PATH, HOME, LANG and the like.",
                        "schema": {"type": ["array", "null"], "items": {"type": "string"}},
                    },
                    **{
                        name: {"label": label, "description": description, "schema": schema}
                        for name, (label, description, schema) in _SLURM_FIELDS.items()
                    },
                },
            }
        ],
    }
