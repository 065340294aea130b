"""What Airflow reads of this package: its connection type, its operators, and the connection's form."""

from __future__ import annotations

from typing import Any

_TEXT = ["string", "null"]


def get_provider_info() -> dict[str, Any]:
    """Describe the provider to Airflow's providers manager."""
    return {
        "package-name": "airflow-provider-sewer",
        "name": "Sewer",
        "description": "Workflows of Python modules, run on external interpreters.",
        "integrations": [
            {
                "integration-name": "Sewer",
                "external-doc-url": "https://pypi.org/project/airflow-provider-sewer/",
                "tags": ["software"],
            }
        ],
        "operators": [
            {"integration-name": "Sewer", "python-modules": ["airflow_provider_sewer.operators.module"]},
        ],
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
                },
            }
        ],
    }
