"""Directory of one attempt: the names of all its files, which it reads and writes."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.atomic_file import write_atomically
from airflow_provider_sewer.core.errors import InvalidTask, SlurmUnavailable, UnreadableRecord
from airflow_provider_sewer.core.formats import (
    ASKED,
    ATTEMPT,
    CANCELLED,
    ENDED,
    EXIT,
    FAILURE,
    JOB,
    LOG_OFFSETS,
    MONITOR,
    PRODUCTS,
    START,
    TASK,
    UNKNOWN,
    USAGE,
    Format,
)
from airflow_provider_sewer.core.retry_requests import Failure, Request
from airflow_provider_sewer.core.trusted_files import (
    LARGEST_RECORD,
    PRIVATE,
    InvalidRecord,
    check_own_folder,
    has_types,
    make_private_folders,
    modified,
    open_own,
    parse_json,
    read_own,
)
from airflow_provider_sewer.slurm.job_records import ExitRecord, JobUsage, Monitor, StartRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: Bytes that a record of a worker may have, such as the parameters of a task or the members of an array.
LARGEST_SAVED = 64 * 1024 * 1024

#: Linux has fewer process ids.
_MOST_PIDS = 2**31


class JobDirectory:
    """Directory of one attempt, which only its owner can enter.

    The worker, the triggerer and the job share it. Each file has one writer, and is written atomically. The records are
    those of :mod:`~airflow_provider_sewer.core.formats`. An unreadable record that decides the job's outcome is an
    error; one that only helps, such as that of the log, counts as missing.

    :param path: its absolute path.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.script = self._file("job.sh")  # for sbatch
        self.environment = self._file("environment.sh")  # variables of the job
        self.secrets = self._file("secrets.sh")  # secret variables; gone when the job has read them
        self.arguments = self._file("arguments.json")  # of a function
        self.stdout = self._file("stdout.log")
        self.stderr = self._file("stderr.log")
        self.result = self._file("result.json")
        self.claim = self._file("claim")  # a link that names the one job which may run
        self.start = self._file("start.json")
        self.exit = self._file("exit.json")
        self.alive = self._file("alive")  # a local job touches it every few seconds
        self.cpu_times = self._file("times.txt")
        self.usage_samples = self._file("usage.txt")
        self._steps = self._file("steps")  # the job script has seen an srun of the module's own
        self._attempt = self._file("attempt.json")
        self._job = self._file("job.json")
        self._log_state = self._file("log-offsets.json")
        self._cancelled = self._file("cancelled")  # the job script checks for it
        self.monitor = self._file("monitor.json")  # the process that monitors the job; it touches the file
        self._orphaned = self._file("orphaned")  # the job script has ended the job, as no process monitored it
        self._unknown = self._file("unknown.json")  # for how long Slurm has not known the job
        self._asked = self._file("asked.json")
        self._failure = self._file("failure.json")
        self._ended = self._file("ended.json")
        self.products = self._file("products.json")
        self.task = self._file("task.json")
        self._usage = self._file("usage.json")
        self._key = self._file("trigger.key")  # to the secrets in the arguments of the trigger

    def create(self) -> None:
        """Create the directory and its missing parents, each for its owner alone.

        :raises FileExistsError: when it exists.
        """
        make_private_folders(os.path.dirname(self.path))
        os.mkdir(self.path, PRIVATE)

    def check_own(self) -> None:
        """Reject the directory if another user could have written into it.

        :raises UntrustedPath: with its owner.
        """
        check_own_folder(self.path, "run_dir")

    @property
    def is_empty(self) -> bool:
        """Return whether the directory is empty; an unreadable one does not count as empty."""
        try:
            return not os.listdir(self.path)
        except OSError:
            return False

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Name the directory in errors of the file system in the block.

        :raises SlurmUnavailable: for such an error.
        """
        try:
            yield
        except OSError as error:
            raise SlurmUnavailable(
                f"run_dir: cannot write into {self.path!r}: {error.strerror}", run_directory=self.path
            ) from None

    def write(self, path: str, text: str, *, lasts: bool = True) -> None:
        """Write one of its files atomically, for the owner alone.

        :param lasts: whether it must survive a crash of the machine right after.
        """
        write_atomically(path, text.encode("utf-8", "surrogateescape"), lasts=lasts)

    # -- Attempt and its end: written by workers -----------------------------------------------------------------------

    def write_attempt(self, attempt: Mapping[str, Any]) -> None:
        """Record an attempt before its submission."""
        self._write_record(ATTEMPT, self._attempt, attempt)

    def read_attempt(self) -> dict[str, Any] | None:
        """Return the record from before the submission; ``None`` if it was not completed.

        :raises UnreadableRecord: when another version has written it, or it is damaged.
        """
        return self._read_record(ATTEMPT, self._attempt)

    def write_job(self, job: Mapping[str, Any], *, lasts: bool = True) -> None:
        """Record the submitted job.

        :param lasts: whether this is its only record.
        """
        self.write(self._job, json.dumps(job), lasts=lasts)

    def read_job(self) -> dict[str, Any] | None:
        """Return the submitted job, if it is known.

        :raises UnreadableRecord: as for :meth:`read_attempt`.
        """
        job = self._read_record(JOB, self._job)
        if job is not None and not has_types(job, {"id": str, "submitted": float}):
            raise JOB.damaged(self._job, "it is not the record of a submitted job")
        return job

    def write_task(self, task: Mapping[str, Any]) -> None:
        """Record the task to run."""
        self.write(self.task, json.dumps(task))

    def read_task(self) -> Any:
        """Return the recorded task; ``None`` if there is none.

        :raises UnreadableRecord: as for :meth:`read_attempt`.
        """
        return self._read_record(TASK, self.task, largest=LARGEST_SAVED)

    def write_products(self, fields: Mapping[str, Any]) -> None:
        """Record the state of the products before the submission, and their inputs."""
        self._write_record(PRODUCTS, self.products, fields)

    def read_products(self) -> dict[str, Any] | None:
        """Return the record of the products; ``None`` if it was not completed.

        :raises UnreadableRecord: as for :meth:`read_attempt`.
        """
        return self._read_record(PRODUCTS, self.products, largest=LARGEST_SAVED)

    def write_request(self, request: Request) -> None:
        """Record the request of the attempt, for the retry after it."""
        self._write_record(ASKED, self._asked, request._asdict())

    def read_request(self) -> Request | None:
        """Return the request of the attempt; ``None`` if it was not recorded.

        :raises UnreadableRecord: as for :meth:`read_attempt`.
        """
        record = self._read_record(ASKED, self._asked)
        if record is None:
            return None
        try:
            return Request.checked(*ASKED.values(record))
        except InvalidTask as error:
            raise ASKED.damaged(self._asked, error) from None

    def write_failure(self, failure: Failure) -> None:
        """Record how the attempt has failed, for the retry after it."""
        self._write_record(FAILURE, self._failure, failure._asdict())

    def read_failure(self) -> Failure | None:
        """Return how the attempt has failed; ``None`` if that was not recorded.

        :raises UnreadableRecord: as for :meth:`read_attempt`.
        """
        record = self._read_record(FAILURE, self._failure)
        if record is not None and not record["node"].isprintable():
            raise FAILURE.damaged(self._failure, "'node' has a control character")
        return None if record is None else Failure(*FAILURE.values(record))

    def write_ended(self, how: str, try_number: int = 0) -> None:
        """Record that this attempt is closed: ``collected``, ``failed`` or ``abandoned``.

        :param try_number: Airflow's number of the try that has ended it; 0 where there is none.
        """
        self._write_record(ENDED, self._ended, {"how": how, "try_number": try_number})

    def read_ended(self) -> str | None:
        """Return how this attempt was closed, if that was recorded.

        :raises UnreadableRecord: as for :meth:`read_attempt`.
        """
        ended = self._read_record(ENDED, self._ended)
        return None if ended is None else str(ended["how"])

    def read_ended_try(self) -> int:
        """Return the number of the try that has closed this attempt; 0 if that was not recorded.

        :raises UnreadableRecord: as for :meth:`read_attempt`.
        """
        ended = self._read_record(ENDED, self._ended)
        return 0 if ended is None else int(ended["try_number"])

    @property
    def has_end(self) -> bool:
        """Return whether this attempt was closed."""
        return os.path.exists(self._ended)

    def write_cancelled(self, *, is_cleared: bool = False) -> None:
        """Have the job script end, or not begin; it checks every few seconds.

        :param is_cleared: whether a user has cleared the task, so that a recorded success does not count either.
        """
        if is_cleared or not self.is_cleared:
            self._write_record(CANCELLED, self._cancelled, {"is_cleared": is_cleared})
        self.forget_secrets()

    @property
    def is_cancelled(self) -> bool:
        """Return whether the attempt was cancelled."""
        return os.path.exists(self._cancelled)

    @property
    def is_cleared(self) -> bool:
        """Return whether a user has cleared the task while a worker ran it."""
        cancelled = self._readable(CANCELLED, self._cancelled)
        return cancelled is not None and bool(cancelled["is_cleared"])

    def read_orphaned(self) -> int | None:
        """Return the seconds for which no process had monitored a job that ended itself for that; else ``None``."""
        with suppress(OSError, ValueError):
            return int(read_own(self._orphaned, largest=20))
        return None

    def write_usage(self, usage: JobUsage) -> None:
        """Record the request of the job before its submission, and its usage after its end."""
        usage = usage._replace(requested=dict(usage.requested), used=dict(usage.used))
        self.write(self._usage, json.dumps(USAGE.packed(usage)), lasts=False)

    def read_usage(self) -> JobUsage | None:
        """Return the record of the request and the usage; ``None`` if it cannot be read."""
        usage = self._readable(USAGE, self._usage)
        return None if usage is None else JobUsage.of_values(USAGE.values(usage))

    # -- Monitor of the job --------------------------------------------------------------------------------------------

    def write_monitor(self, follower: Monitor) -> None:
        """Record the process that monitors the job from now on."""
        self.write(self.monitor, json.dumps(MONITOR.packed(follower)), lasts=False)

    def read_monitor(self) -> Monitor | None:
        """Return the process that monitors the job; ``None`` if there is none."""
        follower = self._readable(MONITOR, self.monitor)
        return None if follower is None else Monitor(*MONITOR.values(follower))

    def write_unknown_seconds(self, seconds: float) -> None:
        """Record for how long Slurm has not known the job; a later monitor continues from there."""
        with suppress(OSError):  # the next monitor then counts from zero
            self._write_record(UNKNOWN, self._unknown, {"seconds": seconds}, lasts=False)

    def read_unknown_seconds(self) -> float:
        """Return for how long earlier monitors have seen that Slurm does not know the job."""
        unknown = self._readable(UNKNOWN, self._unknown)
        return 0.0 if unknown is None else float(unknown["seconds"])

    # -- Input of the job ----------------------------------------------------------------------------------------------

    def write_variables(self, public: str, secret: str) -> None:
        """Write the shell text that sets the variables, and the text that sets the secret ones."""
        self.write(self.environment, public)
        if secret:
            self.write(self.secrets, secret)

    def forget_secrets(self) -> None:
        """Remove the secret variables, and the key to the secrets in a trigger's arguments, if they still exist."""
        for file in (self.secrets, self._key):
            with suppress(FileNotFoundError):
                os.unlink(file)

    def mask_arguments(self, mask: Callable[[str], str]) -> None:
        """Mask the secrets among the arguments of an attempt that runs no more."""
        for path in (self.task, self.arguments):
            with suppress(FileNotFoundError), open_own(path) as file:
                text = file.read().decode("utf-8", "surrogateescape")
                if (masked := mask(text)) != text:
                    self.write(path, masked)

    def write_key(self, key: bytes) -> None:
        """Write the key to the secrets in the arguments of a trigger."""
        self.write(self._key, key.decode("ascii"))

    def read_key(self) -> bytes:
        """Return the key to the secrets in the arguments of a trigger.

        :raises OSError: when it cannot be read.
        """
        return read_own(self._key)

    # -- Records of the job --------------------------------------------------------------------------------------------

    def read_claim(self) -> str | None:
        """Return the id of the one job that may run here, if it has begun."""
        try:
            return os.readlink(self.claim)
        except OSError:
            return None

    def read_start(self) -> StartRecord | None:
        """Return the job's record of its (last) start; ``None`` if it cannot be read."""
        start = self._readable(START, self.start)
        if start is None or not 0 < start["pid"] < _MOST_PIDS:
            return None
        _, *values = START.values(start)
        return StartRecord(*values)

    def read_exit(self) -> ExitRecord | None:
        """Return the job's record of its end; ``None`` if it has not ended, and during `teardown`.

        :raises UnreadableRecord: as for :meth:`read_module_end`.
        """
        record = self.read_module_end()
        return record if record is not None and record.is_torn_down else None

    @property
    def has_final_record(self) -> bool:
        """Return whether the final record of the job's end exists."""
        try:
            record = self.read_exit()
        except (OSError, ValueError):
            return False
        return record is not None and record.is_final

    def read_module_end(self) -> ExitRecord | None:
        """Return the job's record of its module's end; ``None`` if there is none, or it is from before a restart.

        :raises UnreadableRecord: when it exists and cannot be read.
        """
        fields = self._read_record(EXIT, self.exit)
        if fields is None:
            return None
        job_id, *values = EXIT.values(fields)
        if not _is_of_a_job(fields["asked"], fields["module_stdout"]):
            raise EXIT.damaged(self.exit, "'asked' or 'module_stdout' has another form")
        record = ExitRecord(*values)
        start = self.read_start()
        is_stale = job_id != self.read_claim() or (start is not None and start.restart > record.restart)
        return None if is_stale else record

    def read_success(self) -> bool:
        """Return whether the job has recorded that its module exited with 0, and not for a signal of Slurm.

        It may still be in its `teardown`.

        :raises UnreadableRecord: when the record cannot be read.
        """
        record = self.read_module_end()
        return record is not None and record.is_sure_success

    @property
    def has_success(self) -> bool:
        """Return the same; a record that cannot be read is not a success."""
        try:
            return self.read_success()
        except UnreadableRecord:
            return False

    @property
    def has_own_steps(self) -> bool:
        """Return whether the module has started an srun of its own."""
        return os.path.exists(self._steps)

    def is_alive(self, within: float) -> bool:
        """Return whether a local job on any host has given a sign of life in the last seconds."""
        try:
            return time.time() - modified(self.alive) / 1e9 < within
        except OSError:
            return False

    # -- Log offsets ---------------------------------------------------------------------------------------------------

    def write_log_state(self, state: dict[str, Any]) -> None:
        """Record how far the output has been logged."""
        self._write_record(LOG_OFFSETS, self._log_state, state, lasts=False)

    def read_log_state(self) -> dict[str, Any]:
        """Return the record of how far the output has been logged; empty if there is none, or it is not a record.

        :raises OSError: when it exists and cannot be read.
        """
        return self._readable(LOG_OFFSETS, self._log_state, may_be_away=True) or {}

    # -- Files ---------------------------------------------------------------------------------------------------------

    def _file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def _write_record(self, kind: Format, path: str, fields: Mapping[str, Any], *, lasts: bool = True) -> None:
        self.write(path, json.dumps(kind.written(fields)), lasts=lasts)

    @staticmethod
    def _read_record(kind: Format, path: str, *, largest: int = LARGEST_RECORD) -> dict[str, Any] | None:
        """Return a record; ``None`` if there is none.

        :raises UnreadableRecord: when it cannot be read.
        """
        try:
            return kind.read(path, parse_json(read_own(path, largest=largest)))
        except FileNotFoundError:
            return None
        except UnreadableRecord:
            raise
        except (OSError, ValueError) as error:
            raise kind.damaged(path, error) from error

    def _readable(self, kind: Format, path: str, *, may_be_away: bool = False) -> dict[str, Any] | None:
        """Return a record that only helps; ``None`` if no readable one exists.

        :param may_be_away: raise the :class:`OSError` of a file that exists, and cannot be read now.
        """
        try:
            return self._read_record(kind, path)
        except UnreadableRecord as error:
            cause = error.__cause__
            if may_be_away and isinstance(cause, OSError) and not isinstance(cause, InvalidRecord):
                raise cause from None
            return None


def _is_of_a_job(asked: Any, module_stdout: Any) -> bool:
    match asked, module_stdout:
        case None | str(), [int(begin), int(end)]:
            # -1 stands for a log that the module has removed.
            return -1 <= begin < 2**63 and -1 <= end < 2**63
    return False
