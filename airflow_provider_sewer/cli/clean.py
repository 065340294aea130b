"""``sppe clean``: removal of old log folders, state files and job directories."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.cli.messages import write_message
from airflow_provider_sewer.cli.run_command import LOGS, STATES
from airflow_provider_sewer.core.errors import SewerError, StateError, UntrustedPath
from airflow_provider_sewer.core.trusted_files import check_own_folders, own_part
from airflow_provider_sewer.execution.state_file import may_have_jobs
from airflow_provider_sewer.slurm.job_directory import JobDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator

_DAY = 24 * 3600


class Leftover(NamedTuple):
    """File or folder that can be removed.

    :param kind: its kind, for the preview.
    :param path: its path.
    :param days: days since its last change.
    :param size: its bytes.
    """

    kind: str
    path: str
    days: int
    size: int

    def __str__(self) -> str:
        return f"{self.kind:<13}  {self.days:>4} days  {size_text(self.size):>9}  {self.path}"


def leftovers(run_dir: str, days: int) -> list[Leftover]:
    """Return the logs, states and job directories without a change for some days that no run and no job uses.

    :param run_dir: folder of job directories.
    :raises UntrustedPath: when another user could have written one of the folders.
    """
    found = [*_old_logs(), *_old_states(), *_old_job_directories(run_dir)]
    return [each for each in found if each.days >= days]


def remove(found: list[Leftover], run_dir: str) -> None:
    """Remove files and folders, and the folders of ``run_dir`` that are empty then.

    :raises SewerError: when one cannot be removed.
    """
    for each in found:
        try:
            if os.path.isdir(each.path):
                shutil.rmtree(each.path)
            else:
                os.unlink(each.path)
        except OSError as error:
            raise SewerError(f"cannot remove {each.path}: {error.strerror}") from None
        parent = os.path.dirname(each.path)
        while parent.startswith(run_dir + os.sep):
            try:
                os.rmdir(parent)
            except OSError:
                break
            parent = os.path.dirname(parent)


def size_text(size: float) -> str:
    """Return a number of bytes for a reader, such as ``1.5 MB``."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:  # noqa: PLR2004
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _old_logs() -> Iterator[Leftover]:
    check_own_folders(*own_part(LOGS))
    for entry in _entries(LOGS):
        if entry.is_dir(follow_symlinks=False) and not _is_in_use(entry.path):
            yield _leftover("logs", entry.path)


def _old_states() -> Iterator[Leftover]:
    check_own_folders(*own_part(STATES))
    for entry in _entries(STATES):
        if entry.name.endswith(".jsonl") and entry.is_file(follow_symlinks=False) and not _is_in_use(entry.path):
            with suppress(StateError):  # it is not a state file
                if may_have_jobs(entry.path):
                    write_message(f"sppe: {entry.path} is kept: the jobs of its last run may still run")
                else:
                    yield _leftover("state", entry.path)


def _old_job_directories(run_dir: str) -> Iterator[Leftover]:
    """Yield the closed attempts; a job that is submitted and not closed may still run."""
    if not os.path.isdir(run_dir):
        return
    if _is_in_use(run_dir):
        write_message(f"sppe: job directories are kept: a running sppe uses {run_dir}")
        return
    for folder, _, files in os.walk(run_dir):
        if "attempt.json" in files and JobDirectory(folder).has_end:
            with suppress(UntrustedPath):  # it is not this user's to remove
                check_own_folders(run_dir, folder)
                yield _leftover("job directory", folder)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []


def _is_in_use(path: str) -> bool:
    """Return whether another process holds a lock on a file or folder."""
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # without file locks, its age decides
    finally:
        os.close(opened)
    return False


def _leftover(kind: str, path: str) -> Leftover:
    statuses = [os.lstat(each) for each in _all_in(path)]
    newest = max(status.st_mtime for status in statuses)
    size = sum(status.st_size for status in statuses if stat.S_ISREG(status.st_mode))
    return Leftover(kind, path, max(0, int((time.time() - newest) // _DAY)), size)


def _all_in(path: str) -> Iterator[str]:
    yield path
    for folder, folders, files in os.walk(path):
        yield from (os.path.join(folder, name) for name in (*folders, *files))
