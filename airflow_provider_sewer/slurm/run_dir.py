"""Folder of all job directories (``run_dir``), and the place of each attempt in it."""

from __future__ import annotations

import os
import re
from hashlib import sha256

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.slurm_parameters import unprintable

_INVALID = re.compile(r"[^A-Za-z0-9_.+-]")
_LONGEST_PART = 100


def checked_run_dir(path: str, *, kind: str = "") -> str:
    """Return the folder of all job directories, checked for the options of sbatch: each of these is a line.

    :param kind: the kind of the cluster, where it is known. Slurm 25.11 drops every backslash from ``--output``, and
        earlier versions read it as an escape.
    :raises InvalidTask: when sbatch could not read it.
    """
    if wrong := unprintable(path):
        raise InvalidTask(f"run_dir must not contain {wrong}, got {path!r}; sbatch reads its options line by line")
    if kind == "slurm" and "\\" in path:
        raise InvalidTask(f"run_dir must not contain a backslash, got {path!r:.200}; Slurm drops it from paths of logs")
    return path


def job_directories_of(base: str, dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """Return the folder of all attempts of a task instance; the directory of an attempt is named by its number.

    Instances of a mapped task have folders inside the task's, with names that are not numbers.
    """
    folder = os.path.join(base, *map(_part, (dag_id, run_id, task_id)))
    return folder if map_index < 0 else os.path.join(folder, f"map-{map_index}")


def _part(name: str) -> str:
    """Return a unique folder name for a name."""
    fit = _INVALID.sub("_", name)[:_LONGEST_PART].lstrip(".")
    return name if fit == name else f"{fit}-{sha256(name.encode()).hexdigest()[:8]}"
