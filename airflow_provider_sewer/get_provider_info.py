"""What Airflow reads of this package: its connection type, operators and decorators, and the connection's form."""

from __future__ import annotations

from typing import Any

_TEXT = ["string", "null"]
_NUMBER = ["number", "null"]
_TEXTS = {"type": ["array", "null"], "items": {"type": "string"}}
#: With text among its types it is a plain field: Airflow's editor of JSON lays out anew what is being typed, and the
#: cursor is then somewhere else.
_OBJECT = {"type": ["object", "string", "null"]}

#: Airflow's form shows a boolean as a switch, which has no way to say nothing.
_YES_OR_NO = {"type": _TEXT, "enum": ["true", "false"]}

#: The connection's form: its sections, and of each field the label, what it is, and what people can write.
_FORM: dict[str, dict[str, tuple[str, str, dict[str, Any]]]] = {
    "Where modules run": {
        "python": (
            "Interpreter",
            "Path of a python executable, or a name to look up on the worker's PATH.",
            {"type": _TEXT},
        ),
        "workdir": ("Working directory", "Absolute path on the worker.", {"type": _TEXT}),
        "env": (
            "Environment",
            'Variables to give, as a JSON object: {"OMP_NUM_THREADS": "4"}',
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
            "slurm, local (this machine), or auto, the default: Slurm where there is an sbatch.",
            {"type": _TEXT, "enum": ["auto", "slurm", "local"]},
        ),
        "slurm": (
            "Slurm parameters",
            'What jobs ask for, as a JSON object: {"partition": "gpu", "timeout_min": 60}',
            _OBJECT,
        ),
        "run_dir": (
            "Run directory",
            "Folder for the files of each attempt; all nodes have to see it. ~/.sewer/runs by default.",
            {"type": _TEXT},
        ),
        "job_url": (
            "Link to a job",
            "https://…/{job_id}, where your site shows its jobs; also {job_name} and {user}.",
            {"type": _TEXT},
        ),
        "requeue": ("Requeue", "Whether Slurm may start a job anew; false by default.", _YES_OR_NO),
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
            "Whether to wait in the triggerer, not on a worker; as Airflow's default_deferrable says.",
            _YES_OR_NO,
        ),
        "wait_for_completion": (
            "Wait for completion",
            "Whether the task lasts as long as its job; true by default.",
            _YES_OR_NO,
        ),
        "poll_interval": ("Poll interval", "Seconds between two looks at the jobs; 5 by default.", {"type": _NUMBER}),
        "max_poll_interval": (
            "Longest poll interval",
            "Seconds that the interval may grow to; 60 by default.",
            {"type": _NUMBER},
        ),
        "max_pending_time": (
            "Longest wait",
            "Seconds that a job may wait for its start; no limit by default.",
            {"type": _NUMBER},
        ),
        "fail_on_pending_reason": (
            "Hopeless reasons",
            "Slurm's reasons for which a waiting job is given up at once, instead of the built-in ones.",
            _TEXTS,
        ),
        "lost_after": (
            "Lost after",
            "Seconds after which a job that nobody knows any more is a failure; 300 by default.",
            {"type": _NUMBER},
        ),
        "orphan_timeout": (
            "Orphan timeout",
            "Seconds after which a running job that no process follows ends itself; 86400 by default, 0 for never.",
            {"type": _NUMBER},
        ),
        "durable": ("Durable", "Whether a retry takes up an earlier attempt's job; true by default.", _YES_OR_NO),
        "on_kill_action": (
            "When the task is killed",
            "What becomes of its job; cancel_job by default.",
            {"type": _TEXT, "enum": ["cancel_job", "keep_job"]},
        ),
    },
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
