"""Provider metadata for Airflow: connection type and form, operators, triggers and decorators."""

from __future__ import annotations

from typing import Any

_TEXT = ["string", "null"]
_NUMBER = ["number", "null"]
_TEXTS = {"type": ["array", "null"], "items": {"type": "string"}}
#: With ``string`` among its types it is a plain field: Airflow's JSON editor reformats the text during typing, which
#: moves the cursor.
_OBJECT = {"type": ["object", "string", "null"]}

#: Airflow's form shows a boolean as a switch, which has no unset state.
_YES_OR_NO = {"type": _TEXT, "enum": ["true", "false"]}

#: The connection's form: sections, and for each field its label, description and schema.
_FORM: dict[str, dict[str, tuple[str, str, dict[str, Any]]]] = {
    "Execution": {
        "python": (
            "Interpreter",
            "Path of a python executable, or a name to look up on the worker's PATH.",
            {"type": _TEXT},
        ),
        "workdir": ("Working directory", "Absolute path on the worker.", {"type": _TEXT}),
        "env": (
            "Environment",
            'Variables to set, as a JSON object: {"OMP_NUM_THREADS": "4"}',
            _OBJECT,
        ),
        "secret_env": (
            "Secret environment",
            'More variables, as JSON on one line: {"TOKEN": "…"}. Masked where Airflow shows them.',
            {"type": _TEXT, "format": "password"},
        ),
        "inherit_env": (
            "Inherited variables",
            "Names to inherit from the worker, beyond PATH, HOME, LANG and the like.",
            _TEXTS,
        ),
    },
    "Slurm jobs": {
        "cluster": (
            "Cluster",
            "slurm, local (this machine), or auto (the default): Slurm if sbatch is found.",
            {"type": _TEXT, "enum": ["auto", "slurm", "local"]},
        ),
        "slurm": (
            "Slurm parameters",
            'sbatch options of the jobs, as a JSON object: {"partition": "gpu", "timeout_min": 60}',
            _OBJECT,
        ),
        "run_dir": (
            "Job directories",
            "Base folder of the job directories, visible to all nodes; ~/.sewer/runs by default.",
            {"type": _TEXT},
        ),
        "job_url": (
            "Link to a job",
            "https://…/{job_id}: your site's page of a job; also {job_name} and {user}.",
            {"type": _TEXT},
        ),
        "requeue": ("Requeue", "Whether Slurm may requeue a job; false by default.", _YES_OR_NO),
        "retry_with": (
            "Requests of retries",
            'Changes by error, as a JSON object: {"SlurmOutOfMemory": {"mem_gb": 2.0}, "max": {"mem_gb": 256}}',
            _OBJECT,
        ),
        "array": (
            "Job arrays",
            "Whether the instances of a mapped task share job arrays; false by default.",
            _YES_OR_NO,
        ),
        "array_wait": (
            "Wait for instances",
            "Seconds without another instance after which an array is submitted; 30 by default.",
            {"type": _NUMBER},
        ),
    },
    "Waiting for Slurm jobs": {
        "deferrable": (
            "Deferrable",
            "Whether to wait in the triggerer, not on a worker; Airflow's default_deferrable by default.",
            _YES_OR_NO,
        ),
        "wait_for_completion": (
            "Wait for completion",
            "Whether the task waits for the end of its job; true by default.",
            _YES_OR_NO,
        ),
        "poll_interval": ("Poll interval", "Seconds between two polls of the jobs; 5 by default.", {"type": _NUMBER}),
        "max_poll_interval": (
            "Longest poll interval",
            "Upper limit of the growing interval in seconds; 60 by default.",
            {"type": _NUMBER},
        ),
        "max_pending_time": (
            "Longest wait",
            "Seconds that a job may be pending; no limit by default.",
            {"type": _NUMBER},
        ),
        "fail_on_pending_reason": (
            "Unsatisfiable reasons",
            "Slurm's pending reasons that fail the task at once, instead of the built-in ones.",
            _TEXTS,
        ),
        "lost_after": (
            "Lost after",
            "Seconds after which a job unknown to Slurm fails; 300 by default.",
            {"type": _NUMBER},
        ),
        "orphan_timeout": (
            "Orphan timeout",
            "Seconds after which a running job that no process monitors ends itself; 86400 by default, 0 for never.",
            {"type": _NUMBER},
        ),
        "durable": ("Durable", "Whether a retry reattaches to the job of a previous try; true by default.", _YES_OR_NO),
        "on_kill_action": (
            "When the task is killed",
            "Whether to cancel or keep its job; cancel_job by default.",
            {"type": _TEXT, "enum": ["cancel_job", "keep_job"]},
        ),
    },
}


def get_provider_info() -> dict[str, Any]:
    """Return the provider metadata for Airflow's providers manager."""
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
                "python-modules": [
                    "airflow_provider_sewer.operators.module",
                    "airflow_provider_sewer.operators.paths",
                    "airflow_provider_sewer.operators.slurm",
                ],
            },
        ],
        "triggers": [
            {
                "integration-name": "Sewer",
                "python-modules": ["airflow_provider_sewer.triggers.path", "airflow_provider_sewer.triggers.slurm"],
            },
        ],
        "task-decorators": [
            {"name": "python_module", "class-name": "airflow_provider_sewer.decorators.module.python_module_task"},
            {"name": "slurm_module", "class-name": "airflow_provider_sewer.decorators.slurm.slurm_module_task"},
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
                    name: {"label": label, "description": description, "schema": {**schema, "section": section}}
                    for section, fields in _FORM.items()
                    for name, (label, description, schema) in fields.items()
                },
            }
        ],
    }
