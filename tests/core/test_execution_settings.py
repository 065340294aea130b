"""Settings of a task's process can be given in several places, and the nearest one wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.execution_settings import ExecutionSettings, resolve_relative


def test_with_fallback_settings_precedence():
    """Each setting is taken from the nearest place that gives it; environments are merged by variable."""
    near = ExecutionSettings(python="near", env={"A": "near"}, inherit_env=False)
    far = ExecutionSettings(python="far", env={"A": "far", "B": "far"}, inherit_env=True, workdir="/far")

    assert near.with_fallback(far) == ExecutionSettings(
        python="near", env={"A": "near", "B": "far"}, inherit_env=False, workdir="/far"
    )


def test_with_fallback_of_unset_settings_returns_other():
    """Empty settings change nothing, on either side."""
    given = ExecutionSettings(python="p", env={"A": "1"}, inherit_env=("B",), workdir="/w")

    assert ExecutionSettings().with_fallback(given) == given
    assert given.with_fallback(ExecutionSettings()) == given


def test_checked_resolves_relative_paths_against_folder():
    """An interpreter with a slash in it, and a working directory, are relative to where they were written."""
    settings = ExecutionSettings.checked(python="../env/bin/python", workdir="data", folder="/flows")

    assert settings.python == "/flows/../env/bin/python"
    assert settings.workdir == "/flows/data"


def test_checked_keeps_bare_interpreter_name():
    """``python3.12`` is looked up on PATH, and never taken for a file in the folder."""
    assert ExecutionSettings.checked(python="python3.12", folder="/flows").python == "python3.12"
    assert ExecutionSettings.checked(python=Path("python"), folder="/flows").python == "python"


@pytest.mark.parametrize("path", ["/absolute", "~/mine", "~", "{{ params.dir }}", "{% if a %}/x{% endif %}"])
def test_checked_keeps_absolute_home_and_template_paths(path):
    """Only a relative path starts in the folder."""
    assert resolve_relative("/flows", path) == path


def test_checked_without_folder_keeps_relative_path():
    """The caller decides later on the folder that it starts at."""
    assert ExecutionSettings.checked(workdir="data").workdir == "data"


@pytest.mark.parametrize("field", ["python", "workdir"])
@pytest.mark.parametrize("path", ["", 5, b"/bytes", ["/a"], True, "NUL\0", "\ud800"])
def test_checked_names_field_of_invalid_path(field, path):
    """The message names the field and shows the value."""
    with pytest.raises(InvalidTask, match=f"^{field} must be a path, got "):
        ExecutionSettings.checked(**{field: path})


def test_map_paths_changes_all_paths():
    """A bare interpreter name is no path, and a missing setting stays missing."""
    change = str.upper

    assert ExecutionSettings(python="env/python", workdir="w").map_paths(change) == ExecutionSettings(
        python="ENV/PYTHON", workdir="W"
    )
    assert ExecutionSettings(python="python").map_paths(change) == ExecutionSettings(python="python")
