"""Run a module as a job: take up what an earlier try has left, or submit; follow it; collect its result."""

from __future__ import annotations

import os
import shutil
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.errors import ModuleFailed, SewerError, SlurmCancelled, SlurmError, SlurmUnavailable
from airflow_provider_sewer.runners.module import read_result, refuse_unreturned
from airflow_provider_sewer.runners.slurm.attempts import Attempts
from airflow_provider_sewer.runners.slurm.cluster import Cluster, JobRef, NoAnswer, NoCommand
from airflow_provider_sewer.runners.slurm.commands import SlurmCluster, require_slurm
from airflow_provider_sewer.runners.slurm.following import Ending, Job, JobFollower, Patience
from airflow_provider_sewer.runners.slurm.local import LocalCluster
from airflow_provider_sewer.runners.slurm.logs import JobLogs, last_line_between
from airflow_provider_sewer.runners.slurm.noted_task import note_task, noted_task
from airflow_provider_sewer.runners.slurm.products import JobProducts
from airflow_provider_sewer.runners.slurm.run_directory import RunDirectory
from airflow_provider_sewer.runners.slurm.script import JobScript, checked_variables
from airflow_provider_sewer.runners.slurm.states import ENDED, MAY_COME_BACK
from airflow_provider_sewer.runners.slurm.submit import NameTaken, Submission
from airflow_provider_sewer.runners.slurm.watcher import Watch, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_sewer.core.function import Call
    from airflow_provider_sewer.core.slurm import SlurmSettings
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.runners.output import Sink
    from airflow_provider_sewer.runners.slurm.attempts import Attempt, TaskInstance
    from airflow_provider_sewer.runners.slurm.watcher import View
    from airflow_provider_sewer.runners.task_run import TaskRun

#: Seconds between two looks at the files of a job: at first, and the factor by which that grows up to `poll_interval`.
_FIRST_LOOK, _LOOKS_GROWTH = 0.2, 1.5
#: Seconds between two looks at the processes of this machine, which cost little.
_LOCAL_INTERVAL = 1.0
#: Seconds after which a job that was cancelled is cancelled again; that grows.
_CANCEL_AGAIN = 30.0
#: Seconds in which a job of another machine ends by itself, once it is told to and besides its grace.
_LOCAL_ENDS_WITHIN = 30.0
#: Seconds for which what accounting says of a job that has ended is waited for.
_ACCOUNTED_WITHIN = 5.0
_CANCEL_TIMEOUT = 15.0
#: So many jobs of this process are cancelled at once, when all of them are.
_FEW_AT_ONCE = threading.BoundedSemaphore(4)


class ModuleJob(NamedTuple):
    """A task whose module or function is to run as a job.

    :param instance: the task instance it is for.
    :param task: what is run and where, and what it makes.
    :param slurm: how it runs on Slurm; every setting said.
    :param secret_env: variables of the task's environment that are secret.
    :param grace: seconds between SIGTERM and SIGKILL when the job ends itself.
    :param runs_before: which runs of the tasks before it this one follows, where they tell so themselves.
    """

    instance: TaskInstance
    task: Task
    slurm: SlurmSettings
    secret_env: Mapping[str, str]
    grace: float
    runs_before: Mapping[str, str] | None = None


class JobRun:
    """One try at a module that runs as a job.

    :param planned: what is to run.
    :param sink: takes its output as it comes.
    :param say: told what becomes of it, a line each.
    :param supervisor: pid of the parent that this process works for; without it, nobody keeps what is logged, and
        there is perhaps another try already.
    :param clusters: returns the cluster of a kind, ``slurm`` or ``local``.
    :param task_run: see :class:`~airflow_provider_sewer.runners.slurm.products.JobProducts`.
    """

    def __init__(
        self,
        planned: ModuleJob,
        sink: Sink,
        say: Callable[[str], None],
        supervisor: int | None = None,
        *,
        clusters: Callable[[str], Cluster] | None = None,
        task_run: TaskRun | None = None,
    ) -> None:
        self.planned = planned
        self.has_taken_up = False
        self._sink = sink
        self._say = say
        self._supervisor = supervisor
        self._clusters = clusters or cluster_of
        self._task_run = task_run
        label = planned.slurm.slurm.get("name") or planned.slurm.slurm.get("job_name")
        run_dir = os.path.abspath(os.path.expanduser(planned.slurm.run_dir or ""))
        self._attempts = Attempts(run_dir, planned.instance, label)
        self._current: RunDirectory | None = None
        self._job: Job | None = None
        self._is_cancelled = False
        self._is_stopped = False
        self._is_let_go = False
        self._news: SimpleQueue[View | None] = SimpleQueue()

    def take_up(self) -> Job | None:
        """Take up the job that an earlier try has left, if it still counts; otherwise see to it that it is over.

        Until :meth:`begin`, what is planned may still be changed if there is none.

        :raises SlurmUnavailable: when it cannot be told.
        """
        self._job = self._take_up()
        return self._job

    def begin(self) -> Job:
        """Take up the job that an earlier try has left, if it still counts, or submit a new one.

        :raises SlurmUnavailable: when Slurm is wanted and its commands are not here.
        :raises SlurmSubmitRefused: when Slurm refuses the job for good.
        :raises InvalidTask: when the job cannot be described.
        """
        checked_variables(self.planned.task.settings.env)
        self._job = self._job or self._take_up() or self._submit()
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
        if attempt is None:
            return None
        self._job = self._submission(attempt).look_up()
        return self._job

    def follow(self, job: Job) -> Ending:
        """Follow a job to its end."""
        planned = self.planned
        follower = JobFollower(
            job,
            planned.task.target,
            patience_of(planned.slurm),
            self._sink,
            self._say,
            tuple(planned.secret_env.values()),
        )
        watch = watched(job, self._news.put, planned.slurm)
        pauses = Pauses(planned.slurm.poll_interval or 0.0)
        view = None
        try:
            while (ending := follower.look(view)) is None:
                self._end_if_stopped(job)
                if follower.wants_news or self._is_stopped:
                    watch.hurry()
                view = _latest(self._news, pauses.next(has_news=view is not None))
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
        products = self._products(directory)
        try:
            if ending.error:
                raise ending.as_error()
            value = self._result(directory)
            value = products.publish(value)
        except SewerError:
            self._close(directory, "failed")
            products.fail()
            raise
        self._close(directory, "collected")
        return value

    def begun_with(self, directory: RunDirectory) -> Task:
        """Return what an attempt was begun with."""
        return self.planned.task if self._task_run else noted_task(directory, self.planned.task)

    def _result(self, directory: RunDirectory) -> Any:
        try:
            record = directory.read_exit()
        except (OSError, ValueError) as error:
            raise ModuleFailed(f"its exit record in {directory.path} cannot be read again: {error}") from None
        begin, end = record.module_stdout if record else (0, 0)
        if self.planned.task.function is not None:
            return read_result(directory.result, lambda: refuse_unreturned(self.planned.task.target))
        return read_result(directory.result, lambda: last_line_between(directory.stdout, begin, end))

    def log_rest(self, ending: Ending) -> None:
        """Hand on what the job has written and nobody has handed on yet."""
        directory = RunDirectory(ending.run_directory or "")
        JobLogs(directory, self._sink, tuple(self.planned.secret_env.values())).finish()

    def _close(self, directory: RunDirectory, how: str) -> None:
        """Note that nothing more is wanted of an attempt, and see to it that nothing more comes of it.

        A node that was given up may still run the job, and a job that Slurm has requeued may begin once more. Both
        look for the mark.
        """
        try:
            if how == "failed":
                directory.cancel()
            directory.forget_secrets()
            directory.write_ended(how)
            if self.planned.slurm.requeue:
                directory.cancel()
        except OSError as error:  # the next try will see for itself that it has ended
            self._say(f"The end of this attempt cannot be noted in its run directory: {error}")

    def cancel(self, *, timeout: float = _CANCEL_TIMEOUT) -> None:
        """Have the job ended, or its submission; also from a signal handler.

        :param timeout: seconds that this may take.
        """
        self._is_cancelled = True
        if self._job is not None:
            cancel(self._job, self._say, timeout=timeout)
        elif self._current is not None:
            try:
                self._current.cancel()
            except OSError as error:
                self._say(f"The submission goes on, for its run directory cannot be told: {error}")

    def stop(self, *, at_once: bool = False) -> None:
        """Have the job cancelled by the thread that submits or follows it; also from a signal handler.

        :param at_once: have its end waited for no longer.
        """
        self._is_stopped = True
        self._is_let_go = self._is_let_go or at_once
        if self._job is None:
            self.cancel()
        self._news.put(None)

    def leave_earlier(self) -> None:
        """See to it that nothing runs of the job that an earlier try has left, and that it is not taken up."""
        if (attempt := self._attempts.latest()) is not None:
            self._leave(attempt, None)

    def cancel_left(self, *, timeout: float) -> None:
        """Have the latest attempt ended, if nobody has noted its end; where its job is not known, it ends itself.

        :param timeout: seconds that this may take.
        """
        attempt = self._attempts.latest()
        if attempt is None:
            return
        _mark(attempt.directory, cancel=True)
        if attempt.directory.read_job() and (job := self.latest()):
            cancel(job, self._say, timeout=timeout)

    def _end_if_stopped(self, job: Job) -> None:
        if self._is_stopped and not self._is_cancelled:
            with _FEW_AT_ONCE:
                self.cancel()
        if self._is_let_go:
            raise SlurmCancelled(f"{job} was told to end, and its end was not waited for", job_id=job.ref.id)

    def _check(self) -> None:
        """See whether this try is still wanted."""
        if self._is_cancelled:
            raise SlurmCancelled("cancelled before it was submitted")
        self._check_supervised()

    def _check_supervised(self) -> None:
        if self._supervisor is not None and os.getppid() != self._supervisor:
            raise SlurmError("the process that supervises this try has ended; the job is left to the next try")

    # -- An earlier try's job ------------------------------------------------------------------------------------------

    def _take_up(self) -> Job | None:
        attempt = self._attempts.latest()
        if attempt is None:
            return None
        self._current = attempt.directory
        job = None
        if self._counts(attempt):
            job = self._submission(attempt).take_up()
            if job is not None and not self._has_failed(job):
                where = job.directory.path
                self.has_taken_up = True
                self._say(f"Taking up {job}, which an earlier try has submitted; its run directory is {where}")
                return job
        self._leave(attempt, job)
        return None

    def _counts(self, attempt: Attempt) -> bool:
        """Tell whether an earlier attempt is one to go on with."""
        is_wanted = self.planned.instance.continues(attempt) and not attempt.directory.is_cancelled
        return is_wanted and bool(self.planned.slurm.durable)

    def _has_failed(self, job: Job) -> bool:
        """Tell whether a job has ended without success; one that nobody can say anything of has not."""
        try:
            record = job.directory.read_exit()
            if record is not None and (record.is_success or not record.asked):
                return not record.is_success
            state = job.cluster.look([job.ref]).get(job.ref)
        except (OSError, ValueError, NoAnswer):
            return False
        if state is None or (self.planned.slurm.requeue and state.state in MAY_COME_BACK):
            return False
        return state.state in ENDED and state.state != "COMPLETED"

    def _leave(self, attempt: Attempt, job: Job | None) -> None:
        """See to it that an earlier attempt is over: nothing of it runs, and nothing will."""
        if self.planned.slurm.on_kill_action != "keep_job" or attempt.directory.is_cancelled:
            _mark(attempt.directory, cancel=True)  # first, so that a job which is still on its way does not begin
            job = job or self._submission(attempt, is_left=True).look_up()
            if job is not None and not has_ended(job):
                self._end(job)
        self._products(attempt.directory).fail()
        _mark(attempt.directory, ended="abandoned")

    def _end(self, job: Job) -> None:
        """Cancel a job and wait for its end, however long that takes: another one is not to run beside it."""
        self._say(f"{job} of an earlier attempt is cancelled first")
        began = time.monotonic()
        next_cancel, pause = began, _CANCEL_AGAIN
        looks = Pauses(self.planned.slurm.max_poll_interval or 0.0)
        while not has_ended(job) and not self._is_out_of_reach(job, began):
            if time.monotonic() >= next_cancel:
                cancel(job, self._say, timeout=_CANCEL_TIMEOUT)
                next_cancel, pause = time.monotonic() + pause, pause * 2
            self._check()
            time.sleep(looks.next(has_news=False))

    def _is_out_of_reach(self, job: Job, began: float) -> bool:
        """Tell whether a job of another machine would have ended by itself by now, if that machine still runs."""
        return job.cluster.kind == "local" and time.monotonic() - began > self.planned.grace + _LOCAL_ENDS_WITHIN

    # -- A new one -----------------------------------------------------------------------------------------------------

    def _submit(self) -> Job:
        cluster = chosen_cluster(self.planned.slurm.cluster or "auto", self._say, self._clusters)
        while True:
            attempt = self._attempts.begin()
            self._current = attempt.directory
            submission = Submission(cluster, attempt, self._say, self._check, self.planned.slurm.max_pending_time)
            try:
                if self._task_run is None:
                    note_task(attempt.directory, self.planned.task)
                products = self._products(attempt.directory)
                return submission.submit(self._script(attempt, products.begin(attempt.name)))
            except NameTaken as taken:
                self._say(f"{taken.job} has lost its run directory, which somebody has removed")
                self._leave(attempt, taken.job)
            except SlurmCancelled:
                raise
            except SewerError:
                self._give_up(cluster, attempt)
                products.fail()
                raise

    def _products(self, directory: RunDirectory) -> JobProducts:
        return JobProducts(self.begun_with(directory), directory, self._task_run, self.planned.runs_before)

    def _give_up(self, cluster: Cluster, attempt: Attempt) -> None:
        """See to it that nothing comes of an attempt that could not be submitted."""
        with suppress(SlurmUnavailable):
            _mark(attempt.directory, cancel=True)
        with suppress(NoAnswer):
            if (found := cluster.find(attempt.name)) is not None:
                cluster.cancel(JobRef(found, attempt.name, attempt.directory.path), timeout=_CANCEL_TIMEOUT)
        with suppress(SlurmUnavailable):
            _mark(attempt.directory, ended="failed")

    def _submission(self, attempt: Attempt, *, is_left: bool = False) -> Submission:
        """Return the way of an earlier attempt; one whose record is damaged was begun where this one would be."""
        cluster = (
            self._clusters(attempt.cluster)
            if attempt.cluster
            else chosen_cluster(self.planned.slurm.cluster or "auto", self._say, self._clusters)
        )
        return Submission(cluster, attempt, self._say, self._check, is_left=is_left)

    def _script(self, attempt: Attempt, call: Call) -> JobScript:
        planned = self.planned
        resources = {name: value for name, value in planned.slurm.slurm.items() if name not in {"name", "job_name"}}
        return JobScript(
            name=attempt.name,
            call=call,
            python=planned.task.settings.python,
            workdir=planned.task.settings.workdir,
            env=planned.task.settings.env,
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


def cluster_of(kind: str) -> Cluster:
    """Return the cluster of this kind, ``slurm`` or ``local``."""
    return LocalCluster() if kind == "local" else SlurmCluster()


def chosen_cluster(wanted: str, say: Callable[[str], None], clusters: Callable[[str], Cluster] = cluster_of) -> Cluster:
    """Return the cluster that is wanted; ``auto`` is Slurm where its commands are, else this machine.

    :raises SlurmUnavailable: when Slurm is wanted and its commands are not here.
    """
    if wanted == "auto":
        wanted = "slurm" if shutil.which("sbatch") else "local"
        if wanted == "local":
            say("There is no sbatch here, so the job runs on this machine (cluster='auto')")
    if wanted == "slurm":
        require_slurm()
    return clusters(wanted)


def _accounted(job_id: str) -> dict[str, float]:
    """Return what accounting has measured of a job, which it learns some moments after the job's end."""
    cluster = SlurmCluster()
    until = time.monotonic() + _ACCOUNTED_WITHIN
    with suppress(NoAnswer):
        while (usage := cluster.usage(job_id)) is None and time.monotonic() < until:
            time.sleep(_FIRST_LOOK)
        return usage or {}
    return {}


def _mark(directory: RunDirectory, *, cancel: bool = False, ended: str = "") -> None:
    try:
        if cancel:
            directory.cancel()
        if ended:
            directory.write_ended(ended)
    except FileNotFoundError:
        if os.path.isdir(directory.path):  # otherwise somebody has removed it, and with it all that could begin
            raise
    except OSError as error:
        raise SlurmUnavailable(
            f"run_dir: cannot write into {directory.path!r}: {error.strerror}", run_directory=directory.path
        ) from None


def has_ended(job: Job) -> bool:
    """Tell whether a job has ended, or is known to nobody."""
    try:
        sighting = job.cluster.look([job.ref]).get(job.ref)
        if sighting is None:  # no answer of accounting
            return job.directory.read_exit() is not None
    except NoCommand as error:
        raise SlurmUnavailable(f"{job} cannot be looked for: {error}", job_id=job.ref.id) from None
    except (OSError, ValueError, NoAnswer):
        return False
    return sighting.state in ENDED or not sighting.state


def _latest(news: SimpleQueue[View | None], timeout: float) -> View | None:
    """Wait for a view, or for ``None``, which only ends the waiting, and return the newest view."""
    try:
        view = news.get(timeout=timeout)
        while True:
            view = (news.get_nowait() or view) if not news.empty() else view
            if news.empty():
                return view
    except Empty:
        return None
