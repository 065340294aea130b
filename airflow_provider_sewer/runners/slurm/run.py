"""Run a module as a job: take up what an earlier try has left, or submit; follow it; collect its result."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.errors import SlurmCancelled, SlurmError, SlurmPendingTooLong, SlurmSubmitRefused
from airflow_provider_sewer.runners.module import read_result
from airflow_provider_sewer.runners.slurm.attempts import Attempts
from airflow_provider_sewer.runners.slurm.cluster import Cluster, JobRef, NoAnswer
from airflow_provider_sewer.runners.slurm.commands import SlurmCluster, require_slurm
from airflow_provider_sewer.runners.slurm.following import Ending, Job, JobFollower, Patience
from airflow_provider_sewer.runners.slurm.local import LocalCluster
from airflow_provider_sewer.runners.slurm.logs import last_line_between
from airflow_provider_sewer.runners.slurm.run_directory import RunDirectory
from airflow_provider_sewer.runners.slurm.script import JobScript, checked_variables
from airflow_provider_sewer.runners.slurm.states import ENDED
from airflow_provider_sewer.runners.slurm.submit import Submission
from airflow_provider_sewer.runners.slurm.watcher import Watch, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_sewer.core.settings import Settings
    from airflow_provider_sewer.core.slurm import SlurmSettings
    from airflow_provider_sewer.runners.output import Sink
    from airflow_provider_sewer.runners.slurm.attempts import Attempt, TaskInstance
    from airflow_provider_sewer.runners.slurm.watcher import View

#: Seconds between two looks at the files of a job: at first, and the factor by which that grows up to `poll_interval`.
_FIRST_LOOK, _LOOKS_GROWTH = 0.2, 1.5
#: Seconds between two looks at the processes of this machine, which cost little.
_LOCAL_INTERVAL = 1.0
#: Seconds that a cancelled job may take to end before another one is submitted.
_ENDS_WITHIN = 60.0
#: Seconds for which what accounting says of a job that has ended is waited for.
_ACCOUNTED_WITHIN = 5.0
_CANCEL_TIMEOUT = 15.0


class ModuleJob(NamedTuple):
    """A module that is to run as a job.

    :param instance: the task instance it is for.
    :param module: its dotted name.
    :param arguments: its arguments.
    :param settings: where it runs.
    :param slurm: how it runs on Slurm; every setting said.
    :param secret_env: variables of ``settings.env`` that are secret.
    :param grace: seconds between SIGTERM and SIGKILL when the job ends itself.
    """

    instance: TaskInstance
    module: str
    arguments: Sequence[str]
    settings: Settings
    slurm: SlurmSettings
    secret_env: Mapping[str, str]
    grace: float


class JobRun:
    """One try at a module that runs as a job.

    :param planned: what is to run.
    :param sink: takes its output as it comes.
    :param say: told what becomes of it, a line each.
    :param supervisor: pid of the parent that this process works for; without it, nobody keeps what is logged, and
        there is perhaps another try already.
    """

    def __init__(
        self, planned: ModuleJob, sink: Sink, say: Callable[[str], None], supervisor: int | None = None
    ) -> None:
        self.planned = planned
        self._sink = sink
        self._say = say
        self._supervisor = supervisor
        label = planned.slurm.slurm.get("name") or planned.slurm.slurm.get("job_name")
        run_dir = os.path.abspath(os.path.expanduser(planned.slurm.run_dir or ""))
        self._attempts = Attempts(run_dir, planned.instance, label)
        self._current: RunDirectory | None = None
        self._job: Job | None = None
        self._is_cancelled = False

    @property
    def is_open(self) -> bool:
        """Tell whether there is an attempt of which nobody has noted the end."""
        return self._attempts.latest() is not None

    def begin(self) -> Job:
        """Take up the job that an earlier try has left, if it still counts, or submit a new one.

        :raises SlurmUnavailable: when Slurm is wanted and its commands are not here.
        :raises SlurmSubmitRefused: when Slurm refuses the job for good.
        :raises InvalidTask: when the job cannot be described.
        """
        checked_variables(self.planned.settings.env)
        self._job = self._take_up() or self._submit()
        if self._job.directory.is_cancelled:  # meanwhile, by a signal handler or another process
            self.cancel()
            raise SlurmCancelled(f"{self._job} was cancelled while it was submitted", job_id=self._job.ref.id)
        return self._job

    def usage(self, ending: Ending) -> dict[str, float]:
        """Return what is known of what a job that has ended has used.

        ``elapsed`` and ``cpu`` in seconds, ``cpu_efficiency`` from 0 to 1, ``max_rss`` in bytes.
        """
        directory = RunDirectory(ending.run_directory or "")
        known = directory.read_usage()
        noted = directory.read_job() or {}
        if noted.get("cluster") == "slurm":
            known |= _accounted(noted["id"])
        if known.get("cpu") and known.get("cpus") and known.get("elapsed"):
            known["cpu_efficiency"] = round(known["cpu"] / (known["cpus"] * known["elapsed"]), 3)
        return {name: known[name] for name in ("elapsed", "cpu", "cpu_efficiency", "max_rss") if name in known}

    def latest(self) -> Job | None:
        """Return the job of the latest attempt, if it has one and nobody has noted its end."""
        attempt = self._attempts.latest()
        noted = attempt and attempt.directory.read_job()
        if not attempt or not noted:
            return None
        ref = JobRef(noted["id"], attempt.name, attempt.directory.path)
        self._job = Job(ref, attempt.directory, cluster_of(attempt.cluster), noted["submitted"])
        return self._job

    def follow(self, job: Job) -> Ending:
        """Follow a job to its end."""
        planned = self.planned
        follower = JobFollower(
            job, planned.module, patience_of(planned.slurm), self._sink, self._say, tuple(planned.secret_env.values())
        )
        news: SimpleQueue[View] = SimpleQueue()
        watch = watched(job, news.put, planned.slurm)
        pauses = Pauses(planned.slurm.poll_interval or 0.0)
        view = None
        try:
            while (ending := follower.look(view)) is None:
                if follower.wants_news:
                    watch.hurry()
                view = _latest(news, pauses.next(has_news=view is not None))
                self._check_supervised()
        finally:
            watch.close()
        return ending

    def collect(self, ending: Ending) -> Any:
        """Return the result of a job that succeeded.

        :raises SlurmError: when it did not succeed.
        :raises ModuleFailed: when its result cannot be read.
        """
        directory = RunDirectory(ending.run_directory or "")
        directory.forget_secrets()
        directory.write_ended("failed" if ending.error else "collected")
        if ending.error:
            raise ending.as_error()
        record = directory.read_exit()
        begin, end = record.module_stdout if record else (0, 0)
        return read_result(directory.result, lambda: last_line_between(directory.stdout, begin, end))

    def cancel(self, *, timeout: float = _CANCEL_TIMEOUT) -> None:
        """Have the job ended, or its submission; also from a signal handler.

        :param timeout: seconds that this may take.
        """
        self._is_cancelled = True
        if self._job is not None:
            cancel(self._job, self._say, timeout=timeout)
        elif self._current is not None:
            self._current.cancel()

    def _check_supervised(self) -> None:
        if self._supervisor is not None and os.getppid() != self._supervisor:
            raise SlurmError("the process that supervises this try has ended; the job is left to the next try")

    # -- An earlier try's job ------------------------------------------------------------------------------------------

    def _take_up(self) -> Job | None:
        attempt = self._attempts.latest()
        if attempt is None:
            return None
        self._current = attempt.directory
        is_of_this_run = self.planned.instance.continues(attempt) and not attempt.directory.is_cancelled
        job = (
            Submission(cluster_of(attempt.cluster), attempt, self._say, self._check_supervised).take_up()
            if is_of_this_run
            else self.latest()
        )
        if job is not None and is_of_this_run and self.planned.slurm.durable and not self._has_failed(job):
            self._say(f"Taking up {job}, which an earlier try has submitted; its run directory is {job.directory.path}")
            return job
        self._leave(attempt, job)
        return None

    def _has_failed(self, job: Job) -> bool:
        """Tell whether a job has ended without success; one that nobody can say anything of has not."""
        try:
            record = job.directory.read_exit()
            if record is not None and (record.is_success or not record.asked):
                return not record.is_success
            state = job.cluster.look([job.ref]).get(job.ref)
        except (OSError, ValueError, NoAnswer):
            return False
        return state is not None and state.state in ENDED and state.state != "COMPLETED"

    def _leave(self, attempt: Attempt, job: Job | None) -> None:
        """See to it that an earlier attempt is over."""
        attempt.directory.write_ended("abandoned")
        if self.planned.slurm.on_kill_action == "keep_job" and not attempt.directory.is_cancelled:
            return
        attempt.directory.cancel()
        if job is None or _has_ended(job):
            return
        self._say(f"{job} of an earlier attempt is cancelled first")
        cancel(job, self._say, timeout=_CANCEL_TIMEOUT)
        until = time.monotonic() + _ENDS_WITHIN
        while not _has_ended(job) and time.monotonic() < until:
            time.sleep(_LOCAL_INTERVAL)

    # -- A new one -----------------------------------------------------------------------------------------------------

    def _submit(self) -> Job:
        planned = self.planned
        cluster = chosen_cluster(planned.slurm.cluster or "auto", self._say)
        attempt = self._attempts.begin()
        self._current = attempt.directory
        if self._is_cancelled:  # by a signal handler, before there was anything to cancel
            attempt.directory.cancel()
        submission = Submission(cluster, attempt, self._say, self._check_supervised, planned.slurm.max_pending_time)
        try:
            return submission.submit(self._script(attempt))
        except (SlurmSubmitRefused, SlurmPendingTooLong):
            attempt.directory.write_ended("failed")
            attempt.directory.cancel()
            raise

    def _script(self, attempt: Attempt) -> JobScript:
        planned = self.planned
        resources = {name: value for name, value in planned.slurm.slurm.items() if name not in {"name", "job_name"}}
        return JobScript(
            name=attempt.name,
            module=planned.module,
            arguments=planned.arguments,
            python=planned.settings.python,
            workdir=planned.settings.workdir,
            env=planned.settings.env,
            secret_env=planned.secret_env,
            resources=resources,
            requeue=bool(planned.slurm.requeue),
            grace=planned.grace,
        )


def patience_of(slurm: SlurmSettings) -> Patience:
    """Return how long, and for what, a job is waited for."""
    return Patience(slurm.max_pending_time, slurm.fail_on_pending_reason, slurm.lost_after or 0.0, bool(slurm.requeue))


def job_to_data(job: Job) -> dict[str, Any]:
    """Write down a job, so that another process can go on with it."""
    return {**job.ref._asdict(), "cluster": job.cluster.kind, "submitted": job.submitted}


def job_from_data(data: Mapping[str, Any]) -> Job:
    """Return the job that :func:`job_to_data` has written down."""
    ref = JobRef(data["id"], data["name"], data["directory"])
    return Job(ref, RunDirectory(ref.directory), cluster_of(data["cluster"]), data["submitted"])


class Pauses:
    """How long to wait between two looks at the files of a job: shortly at first, then longer.

    :param longest: seconds.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._pause = _FIRST_LOOK

    def next(self, *, has_news: bool) -> float:
        """Return the seconds until the next look.

        :param has_news: whether the last one brought something new.
        """
        pause = self._pause = min(_FIRST_LOOK if has_news else self._pause * _LOOKS_GROWTH, self._longest)
        return pause


def watched(job: Job, on_view: Callable[[View], None], slurm: SlurmSettings) -> Watch:
    """Have a job watched by the watcher of its cluster, at the intervals that the settings say."""
    shortest, longest = slurm.poll_interval or 0.0, slurm.max_poll_interval or 0.0
    if job.cluster.kind == "local":
        shortest = longest = min(shortest, _LOCAL_INTERVAL)
    return Watcher.of(job.cluster).watch(job.ref, on_view, shortest=shortest, longest=longest)


def cancel(job: Job, say: Callable[[str], None], *, timeout: float) -> None:
    """Have a job ended, and say so."""
    try:
        job.cancel(timeout=timeout)
        say(f"Cancelled {job}")
    except NoAnswer as error:
        say(f"{job} is told to end by its run directory, within some seconds of running: {error}")


def chosen_cluster(wanted: str, say: Callable[[str], None]) -> Cluster:
    """Return the cluster that is wanted; ``auto`` is Slurm where its commands are, else this machine.

    :raises SlurmUnavailable: when Slurm is wanted and its commands are not here.
    """
    if wanted == "auto":
        wanted = "slurm" if shutil.which("sbatch") else "local"
        if wanted == "local":
            say("There is no sbatch here, so the job runs on this machine (cluster='auto')")
    if wanted == "slurm":
        require_slurm()
    return cluster_of(wanted)


def cluster_of(kind: str) -> Cluster:
    """Return the cluster of this kind, ``slurm`` or ``local``."""
    return LocalCluster() if kind == "local" else SlurmCluster()


def _accounted(job_id: str) -> dict[str, float]:
    """Return what accounting has measured of a job, which it learns some moments after the job's end."""
    cluster = SlurmCluster()
    until = time.monotonic() + _ACCOUNTED_WITHIN
    with suppress(NoAnswer):
        while (usage := cluster.usage(job_id)) is None and time.monotonic() < until:
            time.sleep(_FIRST_LOOK)
        return usage or {}
    return {}


def _has_ended(job: Job) -> bool:
    try:
        record = job.directory.read_exit()
        sighting = job.cluster.look([job.ref]).get(job.ref)
    except (OSError, ValueError, NoAnswer):
        return False
    if sighting is None:
        return record is not None
    return sighting.state in ENDED or not sighting.state


def _latest(news: SimpleQueue[View], timeout: float) -> View | None:
    """Wait for a view, and return the newest one."""
    try:
        view = news.get(timeout=timeout)
        while True:
            view = news.get_nowait() if not news.empty() else view
            if news.empty():
                return view
    except Empty:
        return None
