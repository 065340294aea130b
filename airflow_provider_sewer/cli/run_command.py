"""``sppe run``, from the first check to the summary."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.cli.messages import write_message
from airflow_provider_sewer.cli.signals import stop_on_signals
from airflow_provider_sewer.core.environment import OFTEN_EXPECTED, PART_OF_MACHINE, build_environment, inherited
from airflow_provider_sewer.core.errors import SewerError, StateError, UntrustedPath
from airflow_provider_sewer.core.resources import check_limits
from airflow_provider_sewer.core.trusted_files import make_private_folders
from airflow_provider_sewer.execution.durations import duration_text
from airflow_provider_sewer.execution.interpreter import locate_interpreter
from airflow_provider_sewer.execution.job_order import RunIdentity
from airflow_provider_sewer.execution.log_files import LogFiles, file_names
from airflow_provider_sewer.execution.outcome_recorder import RecordedOutcomes
from airflow_provider_sewer.execution.plan import Plan, Selection, make_plan, require_results, select_tasks
from airflow_provider_sewer.execution.prefixed_lines import PrefixedLines
from airflow_provider_sewer.execution.preflight import resolve_settings
from airflow_provider_sewer.execution.run_record import RunRecorder
from airflow_provider_sewer.execution.state_file import FinishedTask, StateFile, read_state, records_since, state_path
from airflow_provider_sewer.execution.task_states import Outcome, TaskState
from airflow_provider_sewer.execution.workflow_runner import WorkflowRunner

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from airflow_provider_sewer.core.execution_settings import ExecutionSettings
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.execution.observer import Observer
    from airflow_provider_sewer.slurm.workflow_backend import WorkflowJobs


#: Colours of the final states.
COLORS = {
    TaskState.SUCCEEDED: "green", TaskState.UP_TO_DATE: "green", TaskState.RESUMED: "green", TaskState.FAILED: "red",
    TaskState.UPSTREAM_FAILED: "yellow", TaskState.STOPPED: "yellow",
}  # fmt: skip

#: Folder of state files.
STATES = os.path.join(".sewer", "state")
#: Folder of log folders.
LOGS = os.path.join(".sewer", "logs")


class RunOptions(NamedTuple):
    """Options of a run.

    :param selection: selected and forced tasks.
    :param resume: skip tasks that succeeded in the previous run.
    :param state: state file; default: one below ``.sewer/state``. A ``.yml`` or ``.yaml`` file is a state of
        python-dag-pipeline and is only read.
    :param jobs: maximum number of concurrent tasks; default: number of processors.
    :param limits: available amount of each resource.
    :param log_dir: folder for the log files; default: a new one below ``.sewer/logs``.
    :param slurm: backend for Slurm jobs; default: all tasks run on this machine.
    :param retries: how often a failed task is run again.
    :param verbosity: -1 to print only warnings and failures, 1 to print all lines instead of a live table.
    """

    selection: Selection
    resume: bool
    state: str | None
    jobs: int | None
    limits: Mapping[str, int]
    log_dir: str | None
    slurm: WorkflowJobs | None = None
    verbosity: int = 0
    retries: int = 0

    def settings_here(self, settings: ExecutionSettings) -> ExecutionSettings:
        """Return the settings of the command line; with Slurm, a bare name given to ``-i`` is located on this machine.

        :raises InterpreterError: when no such interpreter is found.
        """
        if self.slurm is None or settings.python is None or os.sep in settings.python:
            return settings
        return settings._replace(python=locate_interpreter(settings.python))


class PreparedRun(NamedTuple):
    """Run that has passed all checks and has not started.

    :param selected: the selected tasks, their settings resolved.
    :param forced: names of tasks that run even if they are up to date.
    :param is_part: whether some tasks are not selected.
    :param engine: runs the tasks.
    :param observers: receivers of its events, to be completed.
    :param start: its initial state.
    """

    selected: Workflow
    forced: tuple[str, ...]
    is_part: bool
    engine: WorkflowRunner
    observers: list[Observer]
    start: RunStart

    def plan(self, *, resumes: bool) -> Plan:
        """Return which tasks would run, and why.

        :raises SewerError: when this cannot be found out.
        """
        return make_plan(self.selected, self.start.known(self.selected), self.forced, resumes=resumes)


def prepare(workflow: Workflow, settings: ExecutionSettings, options: RunOptions) -> PreparedRun:
    """Make all checks of a run, and report everything that the user should know before it.

    :raises SewerError: when the workflow cannot run.
    """
    resolved = resolve_settings(workflow, settings)
    check_limits(options.limits, resolved.tasks)
    selected, forced = select_tasks(resolved, options.selection)
    used = {resource for task in selected.tasks.values() for resource in task.resources}
    limits = {resource: limit for resource, limit in options.limits.items() if resource in used}
    observers: list[Observer] = []
    engine = WorkflowRunner(
        selected,
        settings,
        jobs=options.jobs,
        limits=limits,
        forced=forced,
        observers=observers,
        slurm=options.slurm,
        retries=options.retries,
    )
    for warning in engine.check():
        write_message(f"sppe: {warning}; continuing, because an earlier task may create it")
    for note in engine.reduced_concurrency:
        write_message(f"sppe: {note}")
    for name, reason in engine.not_ahead.items():
        write_message(f"sppe: task {name!r} is not submitted ahead, but after its upstream tasks: {reason}")
    is_part = len(selected.tasks) < len(resolved.tasks)
    start = _start(options.state, workflow, resume=options.resume, is_part=is_part)
    require_results(selected, start.known(workflow), forced)
    return PreparedRun(selected, forced, is_part, engine, observers, start)


def _unseen_variables(tasks: Iterable[Task], options: RunOptions) -> list[str]:
    """Return the well-known variables of this process that some task does not get."""
    unseen: set[str] = set()
    candidates = {name for name in OFTEN_EXPECTED if name in os.environ}
    if "SLURM_JOB_ID" in os.environ:  # they belong to the allocation that sppe runs in
        candidates -= PART_OF_MACHINE
    for task in tasks if candidates else ():
        env, inherit = task.settings.env, task.settings.inherit_env or False
        is_job = options.slurm is not None and options.slurm.runs_on_slurm(task)
        unseen |= candidates - ({*inherited(inherit), *env} if is_job else build_environment(env, inherit).keys())
    return [name for name in OFTEN_EXPECTED if name in unseen]


def run_in_terminal(workflow: Workflow, settings: ExecutionSettings, options: RunOptions) -> int:
    """Run a workflow, show its progress, and return the exit code.

    :raises SewerError: when the workflow cannot run; no task has started then.
    """
    prepared = prepare(workflow, settings, options)
    engine, start = prepared.engine, prepared.start
    logs = _log_files(options.log_dir or _new_log_dir(workflow.name), prepared.selected, goes_on=options.resume)
    prepared.observers.append(logs)
    if options.verbosity >= 0 and (unseen := _unseen_variables(prepared.selected.tasks.values(), options)):
        write_message(f"sppe: tasks do not see {', '.join(unseen)} of this shell; to pass one: --inherit-env NAME")
    with ExitStack() as stack:
        recorder = stack.enter_context(RunRecorder(logs.folder, prepared.selected, logs.paths))
        prepared.observers.append(recorder)
        state = stack.enter_context(
            StateFile(
                start.path,
                workflow.name,
                keep=start.keep,
                start=start.done,
                resumes=options.resume,
                run_dir=options.slurm.run_dir if options.slurm else None,
                log_dir=logs.folder,
                tasks=prepared.selected.tasks,
            )
        )
        if options.slurm:
            options.slurm.origin = RunIdentity(workflow.name, state.series, state.run)
        for folder in (logs.folder, *([options.slurm.run_dir] if options.slurm else [])):
            stack.enter_context(folder_in_use(folder))
        prepared.observers.append(RecordedOutcomes(state))
        if start.message:
            write_message(f"sppe: {start.message}")
        if options.verbosity >= 0:
            display = _display(prepared.selected, has_table=not options.verbosity)
            prepared.observers.append(stack.enter_context(display))
        received = stack.enter_context(stop_on_signals(engine, asks=sys.stdin.isatty() and sys.stderr.isatty()))
        began = time.monotonic()
        outcomes = engine.run(state, resume=options.resume)
        with suppress(StateError):  # then the next run checks for jobs of this one
            state.record_end(is_part=prepared.is_part)
    _summarize(outcomes, logs, time.monotonic() - began, is_quiet=options.verbosity < 0)
    for warning in [*engine.warnings, *filter(None, [recorder.warning])]:
        write_message(f"sppe: {warning}")
    if received:
        return 128 + received[0]
    return 0 if all(outcome.state.is_success for outcome in outcomes.values()) else 1


@contextmanager
def folder_in_use(folder: str) -> Iterator[None]:
    """Keep ``sppe clean`` away from a folder; it is created if it is missing."""
    with suppress(OSError):  # then its first use reports it
        make_private_folders(folder)
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):  # without file locks, its age protects it
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(held)


class RunStart(NamedTuple):
    """Initial state of a run.

    :param path: state file of the run.
    :param keep: keep the records that the file has.
    :param done: further tasks that count as finished.
    :param message: notice for the user.
    """

    path: str
    keep: bool
    done: Mapping[str, FinishedTask] = {}
    message: str = ""

    def known(self, workflow: Workflow) -> Mapping[str, FinishedTask]:
        """Return the tasks that count as finished.

        :raises StateError: when the state file cannot be read.
        """
        return {**self.done, **read_state(self.path, workflow.name)} if self.keep else self.done


def _start(state: str | None, workflow: Workflow, *, resume: bool, is_part: bool) -> RunStart:
    """Return the initial state of a run.

    :param is_part: some tasks are not selected; their records are kept.
    :raises StateError: when a given state file is missing or unreadable, or has the format of python-dag-pipeline and
        would be written.
    """
    if state is not None and os.path.splitext(state)[1].lower() in (".yml", ".yaml"):
        return _start_after(state, workflow, resume=resume)
    path = _state_path(state, workflow)
    message = ""
    if resume and not os.path.exists(path):
        if state is not None:
            raise StateError(f"{state}: state file not found; correct the path, or leave out --resume")
        message = f"no state file at {os.path.abspath(path)}: no task has succeeded yet"
    return RunStart(path, keep=resume or is_part, message=message)


def _start_after(state: str, workflow: Workflow, *, resume: bool) -> RunStart:
    """Return the initial state of a run that resumes from a state of python-dag-pipeline."""
    if not resume:
        raise StateError(
            f"{state}: a state file in YAML is one of python-dag-pipeline and is only read; resume from it with "
            "--resume, or leave out --state"
        )
    from airflow_provider_sewer.loaders.stages.pipeline_state import succeeded_stages

    succeeded = succeeded_stages(state)
    own = _state_path(None, workflow)
    known = read_state(own, workflow.name)
    ours = known.keys() | records_since(own, os.stat(state).st_mtime)
    done = {name: FinishedTask(None, None) for name in succeeded if name not in ours}
    message = f"resuming from {state}, which is only read; the state of this run is saved in {own}"
    return RunStart(
        own, keep=True, done=done, message=f"{message}, and tasks that succeeded in it count too" if known else message
    )


def _state_path(state: str | None, workflow: Workflow) -> str:
    file = workflow.source.file if workflow.source else ""
    return state or state_path(file_names([workflow.name])[workflow.name], file, STATES)


def _new_log_dir(name: str) -> str:
    moment = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder = file_names([name])[name]
    return os.path.join(LOGS, f"{folder}-{moment}-{os.getpid()}")


def _log_files(folder: str, workflow: Workflow, *, goes_on: bool) -> LogFiles:
    try:
        return LogFiles(folder, workflow.tasks, goes_on=goes_on)
    except (OSError, UntrustedPath) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SewerError(f"cannot create the log folder {folder}: {reason}; choose another with --log-dir") from None


def _display(workflow: Workflow, *, has_table: bool) -> AbstractContextManager[Observer]:
    if has_table and sys.stdout.isatty():
        from airflow_provider_sewer.cli.live_table import LiveTable, live_console

        if console := live_console():
            return LiveTable(workflow, console)
    return nullcontext(PrefixedLines(has_workdirs=not has_table))


def _summarize(outcomes: dict[str, Outcome], logs: LogFiles, seconds: float, *, is_quiet: bool) -> None:
    is_success = all(outcome.state.is_success for outcome in outcomes.values())
    if not is_quiet:
        write_message("")
        width = max(map(len, outcomes))
        for name, outcome in outcomes.items():
            duration = duration_text(outcome.seconds)
            tries = f"  try {outcome.tries}" if outcome.tries > 1 else ""
            text = f"  {name:<{width}}  {outcome.state.value:<15}  {duration:>9}{tries}"
            write_message(text.rstrip(), COLORS[outcome.state])
    for name, outcome in outcomes.items():
        if outcome.state is TaskState.FAILED:
            write_message(f"\n{name}: {outcome.reason}\nLog file: {logs.paths[name]}")
    if is_quiet and is_success:
        return
    count = sum(outcome.state.is_success for outcome in outcomes.values())
    skipped = sum(outcome.state in (TaskState.UP_TO_DATE, TaskState.RESUMED) for outcome in outcomes.values())
    of_these = f", {skipped} of them without running" if skipped else ""
    total = (
        f"{count} of {len(outcomes)} tasks succeeded{of_these}, in {duration_text(seconds)}; logs are in {logs.folder}"
    )
    write_message("")
    write_message(total, "green" if is_success else "red")
