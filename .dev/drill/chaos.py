"""Kill and stop processes at random, and restart ended ones, as systemd or a container engine would."""

from __future__ import annotations

import heapq
import itertools
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import psutil

from tests.airflow.deployment import still_running
from tests.slurm_cluster.fault_injection import SlurmTrouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drill.stage import Stage

#: Seconds between two signals, of a stop, and until an ended process is restarted.
_BETWEEN, _STOPPED, _ENDED = (3.0, 10.0), (5.0, 40.0), (1.0, 5.0)
_TICK = 0.1
#: Seconds to wait for a running sbatch before another kind of process is chosen.
_SBATCH_COMES_WITHIN = 5.0
_CONTROLLER = "slurmctld"
_WORKER_TITLE = "airflow worker -- LocalExecutor:"


class Action(NamedTuple):
    """One action on processes.

    :param time: seconds since the epoch.
    :param kind: the kind of process.
    :param how: ``SIGKILL``, ``SIGSTOP``, ``SIGCONT``, ``start``, or ``ended`` for a part that ended by itself.
    :param detail: the processes.
    """

    time: float
    kind: str
    how: str
    detail: str


class Target(NamedTuple):
    """Processes that receive the same signal together.

    :param kind: the kind of process.
    :param name: the part of Airflow they belong to, if it is one part or its main process.
    :param processes: the processes.
    :param signals: the signals that may be sent.
    """

    kind: str
    name: str
    processes: list[psutil.Process]
    signals: tuple[str, ...] = ("SIGKILL", "SIGSTOP")


class Chaos:
    """Sends signals to the processes of a stage.

    :param stage: the stage.
    :param seed: determines the order of kinds, signals and times, but not the processes to choose from.
    :param report: called with each action.
    """

    def __init__(self, stage: Stage, seed: int, report: Callable[[Action], None]) -> None:
        self._airflow, self._slurm, self._sbatch = stage.airflow, stage.slurm, str(stage.sbatch)
        self._random = random.Random(seed)
        self._report = report
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._stopped: dict[int, psutil.Process] = {}
        self._starting: set[str] = set()
        self._controller_runs = True
        self.signals: Counter[tuple[str, str]] = Counter()

    def run(self, seconds: float) -> None:
        """Send signals for some time."""
        end = time.monotonic() + seconds
        following = time.monotonic()
        while time.monotonic() < end:
            if time.monotonic() >= following:
                self._act()
                following = time.monotonic() + self._random.uniform(*_BETWEEN)
            self.tick()

    def tick(self) -> None:
        """Run due actions, report ended parts, and wait a moment."""
        for name in self._airflow.ended_parts():
            if name not in self._starting:
                self._report_action(name, "ended", "by itself")
                self._start_soon(name)
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()
        time.sleep(_TICK)

    def calm(self) -> None:
        """Continue all stopped processes and restart all ended ones at once."""
        while self._due:
            heapq.heappop(self._due)[2]()

    # Signals

    def _act(self) -> None:
        """Send one signal to an existing process."""
        self._end_orphaned_workers()
        kinds = [*self._choices(), _CONTROLLER, "sbatch"]
        self._random.shuffle(kinds)
        for kind in kinds:
            how = self._random.choice(("SIGKILL", "SIGSTOP"))
            if kind == _CONTROLLER:
                done = self._signal_controller(how)
            elif kind == "sbatch":
                done = self._signal(self._sbatch_in_flight(), how)
            else:
                done = self._signal(self._choices()[kind](), how)
            if done:
                return

    def _choices(self) -> dict[str, Callable[[], list[Target]]]:
        return {
            "scheduler": lambda: self._parts("scheduler"),
            "scheduler, all processes": lambda: self._whole_parts("scheduler"),
            "triggerer": lambda: self._parts("triggerer"),
            "triggerer's runner": self._runners,
            "triggerer, all processes": lambda: self._whole_parts("triggerer"),
            "API server": lambda: self._whole_parts("api-server"),
            "DAG processor": lambda: self._whole_parts("dag-processor"),
            "idle worker": lambda: self._workers("idle worker"),
            "task's supervisor": lambda: self._workers("task's supervisor"),
            "task": lambda: self._workers("task"),
            "task and supervisor": lambda: self._workers("task and supervisor"),
        }

    def _signal(self, targets: list[Target], how: str) -> bool:
        targets = [
            target
            for target in targets
            if how in target.signals and not any(process.pid in self._stopped for process in target.processes)
        ]
        if not targets:
            return False
        kind, name, processes, _ = self._random.choice(targets)
        self._report_action(kind, how, f"{name} {[process.pid for process in processes]}")
        self.signals[kind, how] += 1
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(getattr(signal, how))
        if how == "SIGSTOP":
            self._stopped |= {process.pid: process for process in processes}
            self._after(_STOPPED, lambda: self._continue(kind, name, processes))
        elif name in self._airflow.part_names():
            self._start_soon(name)
        return True

    def _continue(self, kind: str, name: str, processes: list[psutil.Process]) -> None:
        self._report_action(kind, "SIGCONT", f"{name} {[process.pid for process in processes]}")
        for process in processes:
            self._stopped.pop(process.pid, None)
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)

    def _signal_controller(self, how: str) -> bool:
        if not self._controller_runs:
            return False
        self._controller_runs = False
        self._report_action(_CONTROLLER, how, "")
        self.signals[_CONTROLLER, how] += 1
        if how == "SIGSTOP":
            self._slurm.freeze(_CONTROLLER)
            self._after(_STOPPED, self._thaw_controller)
        else:
            self._slurm.kill(_CONTROLLER)
            self._after(_ENDED, self._start_controller)
        return True

    def _thaw_controller(self) -> None:
        self._report_action(_CONTROLLER, "SIGCONT", "")
        self._slurm.thaw(_CONTROLLER)
        self._controller_runs = True

    def _start_controller(self) -> None:
        self._report_action(_CONTROLLER, "start", "")
        try:
            self._slurm.start_daemon(_CONTROLLER)
        except SlurmTrouble as error:
            # Its port may still be taken for a moment.
            self._report_action(_CONTROLLER, "ended", str(error).splitlines()[0])
            self._after(_ENDED, self._start_controller)
        else:
            self._controller_runs = True

    def _start_soon(self, name: str) -> None:
        self._starting.add(name)
        self._after(_ENDED, lambda: self._start(name))

    def _start(self, name: str) -> None:
        """Restart a part. Its former child processes continue: LocalExecutor's workers, a triggerer's runner."""
        self._report_action(name, "start", "")
        self._airflow.kill_part(name, workers=False)
        self._airflow.launch_part(name)
        self._starting.discard(name)

    def _after(self, span: tuple[float, float], call: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + self._random.uniform(*span), next(self._numbers), call))

    def _report_action(self, kind: str, how: str, detail: str) -> None:
        self._report(Action(time.time(), kind, how, detail))

    # Processes

    def _running_parts(self, command: str) -> Iterator[str]:
        ended = {*self._airflow.ended_parts(), *self._starting}
        for name in self._airflow.part_names():
            if name.startswith(command) and name not in ended:
                yield name

    def _parts(self, command: str) -> list[Target]:
        targets = []
        for name in self._running_parts(command):
            with suppress(psutil.NoSuchProcess):
                targets.append(Target(command, name, [psutil.Process(self._airflow.main_pid(name))]))
        return targets

    def _whole_parts(self, command: str) -> list[Target]:
        """Return parts with all their processes, as if their machine or container ended."""
        kinds = {"api-server": "API server", "dag-processor": "DAG processor"}
        kind = kinds.get(command, f"{command}, all processes")
        return [Target(kind, name, self._airflow.processes(name)) for name in self._running_parts(command)]

    def _runners(self) -> list[Target]:
        targets = []
        for name in self._running_parts("triggerer"):
            with suppress(psutil.NoSuchProcess):
                children = still_running(psutil.Process(self._airflow.main_pid(name)).children())
                targets += [Target("triggerer's runner", "", [child]) for child in children]
        return targets

    def _workers(self, kind: str) -> list[Target]:
        """Return LocalExecutor's workers or their children, including those of a killed scheduler.

        Idle workers are never killed. One of them may hold the lock of the task queue, a multiprocessing.SimpleQueue,
        and all others would then wait forever.
        """
        targets = []
        for worker in self._airflow.all_processes():
            with suppress(psutil.NoSuchProcess):
                title = " ".join(worker.cmdline())
                if not title.startswith(_WORKER_TITLE):
                    continue
                if "<idle>" in title:
                    if kind == "idle worker":
                        targets.append(Target(kind, "", [worker], ("SIGSTOP",)))
                    continue
                for task in still_running(worker.children()):
                    chosen = {"task's supervisor": [worker], "task": [task], "task and supervisor": [task, worker]}
                    if kind in chosen:
                        targets.append(Target(kind, title.removeprefix(_WORKER_TITLE).strip(), chosen[kind]))
        return targets

    def _end_orphaned_workers(self) -> None:
        """End the idle workers of killed schedulers, which would wait forever and use memory."""
        schedulers = {self._airflow.main_pid(name) for name in self._airflow.part_names()}
        for target in self._workers("idle worker"):
            with suppress(psutil.NoSuchProcess):
                if target.processes[0].ppid() not in schedulers:
                    target.processes[0].kill()

    def _sbatch_in_flight(self) -> list[Target]:
        deadline = time.monotonic() + _SBATCH_COMES_WITHIN
        while time.monotonic() < deadline:
            targets = []
            for process in psutil.process_iter():
                with suppress(psutil.Error):
                    if self._sbatch in process.cmdline():
                        targets.append(Target("sbatch", "", [process]))
            if targets:
                return targets
            self.tick()
        return []
