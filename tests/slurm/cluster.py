"""A real Slurm of several nodes for tests: private, quick to start, and gone without a trace.

All daemons run on this machine, for whoever runs the tests, root or not; no systemd is asked and nothing
under /etc or /var is touched. ::

    with SlurmCluster(tmp_path) as slurm:
        job = slurm.submit("exit 3")
        slurm.wait_for(job, "FAILED")

A process apart, the keeper, holds everything that runs in the cluster and ends it when the cluster is
stopped, or when the process that started it is gone, however that came about.
"""

from __future__ import annotations

import json
import os
import pwd
import random
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

Value = TypeVar("Value")

PATIENCE = float(os.environ.get("SEWER_TEST_PATIENCE", "60"))

# What is asked for, and the Debian package that has it.
PROGRAMS = {"slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client", "munged": "munge"}
ACCOUNTING_PROGRAMS = {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server", "mariadb-install-db": "mariadb-server"}

_AT_WORK = {"idle", "mix", "alloc", "comp"}
_PAUSE = 0.03
_TAIL = 15
_KEEPER = Path(__file__).with_name("keeper.py")
# Below the ports that the kernel hands out by itself: one that a daemon had must still be free for its restart.
_PORTS = range(20000, 32000)
_PORTS_APART = 100
_CGROUP_V1 = Path("/sys/fs/cgroup/memory")
_LIBRARIES = Path("/usr/lib")
_SIG_OOM = 253
_WAYS_TO_SBIN = ("/usr/sbin", "/sbin")
_SLURM_VARIABLES = ("SLURM", "SBATCH_", "SQUEUE_", "SACCT_", "SALLOC_", "SCANCEL_", "SINFO_", "SCONTROL_")
_JOB_LINE = re.compile(
    r"JobId=(?P<id>\d+) .*?\bName=(?P<name>.*) JobState=(?P<state>\S+) Partition=.* ExitCode=(?P<exit_code>\S+)"
)
_QUEUE_FIELDS = "JobID:20|,State:30|,exit_code:12|,restartcnt:8|,Name:1024"


class SlurmTrouble(AssertionError):
    """The cluster, or a job in it, does not do what a test waits for."""


@dataclass(frozen=True)
class Job:
    """A job as Slurm has told of it last.

    :param exit_code: exit code and signal as Slurm writes them, such as ``3:0``.
    :param restarts: how often it was put back into the queue.
    """

    id: str
    name: str
    state: str
    exit_code: str
    restarts: int


@dataclass(frozen=True)
class _Daemon:
    """A daemon: how it is started, where it logs, and how to find out that it answers."""

    argv: list[str]
    answers: Callable[[], bool]
    log: Path
    output: Path


@dataclass
class _Ports:
    """Ports that no other cluster of any test run on this machine takes, as long as this object is held."""

    numbers: Iterator[int]
    lock: socket.socket = field(repr=False)

    def release(self) -> None:
        """Leave the ports to others."""
        self.lock.close()

    @classmethod
    def reserve(cls, how_many: int) -> Self:
        """Look for so many free ports in a row."""
        starts = list(range(_PORTS.start, _PORTS.stop - how_many, _PORTS_APART * (1 + how_many // _PORTS_APART)))
        random.shuffle(starts)
        for start in starts:
            # A name that the kernel forgets together with us, unlike a file.
            lock = socket.socket(socket.AF_UNIX)
            try:
                lock.bind(f"\0sewer-test-slurm-{start}")
            except OSError:
                lock.close()
                continue
            numbers = range(start, start + how_many)
            if all(map(_is_free, numbers)):
                return cls(iter(numbers), lock)
            lock.close()
        raise SlurmTrouble(f"no {how_many} free ports in a row in {_PORTS}")


class SlurmCluster:
    """A private Slurm cluster; as a context manager, it is started and stopped.

    The daemons are ``munged``, ``slurmctld``, ``n1``, ``n2``… and with accounting ``mariadbd`` and ``slurmdbd``.
    The partitions are ``main`` (the default one), ``scavenge``, whose jobs make way for those in main, and
    ``tiny``, of one node and ten minutes a job. Each node has two pretended GPUs.

    :param folder: for configuration and logs, which stay there to be looked at.
    :param nodes: how many nodes there are.
    :param cpus: how many CPUs each pretends to have.
    :param memory_mb: how much memory each pretends to have.
    :param accounting: run slurmdbd with a database, so that there is a ``sacct``.
    :param cgroup: let the kernel end jobs that take more memory than they asked for, as OUT_OF_MEMORY; only
        where ``can_cgroup``. Everywhere, ``out_of_memory`` lets a job end so without any memory being used.
    :param min_job_age: seconds until a job that has ended is forgotten by squeue.
    :param memory_poll: seconds between looks at the memory of jobs, which end as FAILED when they take more than
        they asked for; 0 does not look. Each look of each job walks through all processes of the machine.
    :param extra_conf: further lines for slurm.conf.
    """

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = 3,
        cpus: int = 8,
        memory_mb: int = 4000,
        accounting: bool = False,
        cgroup: bool = False,
        min_job_age: int = 300,
        memory_poll: int = 0,
        extra_conf: str = "",
    ) -> None:
        self.folder = Path(folder)
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.accounting = accounting
        self.cgroup = cgroup
        self._cpus = cpus
        self._memory_mb = memory_mb
        self._min_job_age = min_job_age
        self._memory_poll = memory_poll
        self._extra_conf = extra_conf
        self._keeper: _KeeperClient | None = None
        self._daemons: dict[str, _Daemon] = {}
        self._frozen: set[str] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def can_cgroup(self) -> bool:
        """Tell whether Slurm can limit memory by cgroups here: as root, with cgroups of version 1."""
        return os.geteuid() == 0 and os.access(_CGROUP_V1 / "cgroup.procs", os.W_OK)

    # Starting and stopping

    def start(self) -> None:
        """Start all daemons, and wait until all nodes take jobs."""
        missing = missing_packages(accounting=self.accounting)
        if missing:
            raise SlurmTrouble(f"Slurm is not installed here: apt-get install {' '.join(missing)}")
        if self.cgroup and not self.can_cgroup:
            raise SlurmTrouble("no cgroups of version 1 that we may change; out_of_memory() does without")
        with ExitStack() as undo:
            undo.callback(self.stop)
            self._prepare()
            self.start_daemon("munged")
            if self.accounting:
                self._start_accounting()
            self.start_daemon("slurmctld")
            for node in self.nodes:
                self._launch(node)
            self.until(self._all_nodes_idle, "nodes that take jobs")
            undo.pop_all()

    def stop(self) -> None:
        """End all that runs in this cluster, and remove its folder of sockets; a second time does nothing."""
        if self._keeper is not None:
            keeper, self._keeper = self._keeper, None
            keeper.end()
            self._ports.release()
        self._frozen.clear()

    def processes(self) -> list[int]:
        """Return the pids of all that runs in this cluster: daemons, step daemons and the processes of jobs."""
        return self._ask("pids") if self._keeper else []

    def restore(self) -> None:
        """Undo what a test may have done: no wrapper, no job, and all daemons and nodes at work."""
        self.take_away()
        for name in list(self._frozen):
            self.thaw(name)
        for name in self._daemons:
            if not self._runs(name):
                self.start_daemon(name)
        self.until(self._has_no_jobs, "the end of all cancelled jobs")
        for node in self.nodes:
            self.node_up(node)

    # Daemons

    def start_daemon(self, name: str, timeout: float = PATIENCE) -> None:
        """Start a daemon that does not run, and wait until it answers."""
        if self._runs(name):
            raise SlurmTrouble(f"{name} runs already")
        self._launch(name)
        daemon = self._daemons[name]

        def answers() -> bool:
            if not self._runs(name):
                raise SlurmTrouble(f"{name} ended at once\n{self._tails([daemon.output, daemon.log])}")
            return daemon.answers()

        self.until(answers, f"an answer of {name}", timeout)

    def stop_daemon(self, name: str, timeout: float = PATIENCE) -> None:
        """Ask a daemon to end (SIGTERM), and wait until it is gone."""
        self.kill(name, signal.SIGTERM, timeout)

    def kill(self, name: str, signal: int = signal.SIGKILL, timeout: float = PATIENCE) -> None:
        """End a daemon by a signal, and wait until it is really gone."""
        self._ask("signal", name=name, number=int(signal))
        self._frozen.discard(name)
        self.until(lambda: not self._runs(name), f"the end of {name}", timeout)

    def freeze(self, name: str) -> None:
        """Let a daemon hang: connections are taken, and nobody answers."""
        self._ask("signal", name=name, number=int(signal.SIGSTOP))
        self._frozen.add(name)

    def thaw(self, name: str) -> None:
        """Let a frozen daemon go on."""
        self._ask("signal", name=name, number=int(signal.SIGCONT))
        self._frozen.discard(name)

    # Commands

    @property
    def env(self) -> dict[str, str]:
        """Return the variables that let a process talk to this cluster; what is put in front comes first on PATH."""
        return {"SLURM_CONF": str(self.conf), "PATH": os.pathsep.join([str(self.wrapper_folder), _path_with_sbin()])}

    @property
    def conf(self) -> Path:
        """Return the path of slurm.conf."""
        return self._run_folder / "etc" / "slurm.conf"

    @property
    def wrapper_folder(self) -> Path:
        """Return the folder whose commands come before Slurm's own."""
        return self.folder / "in-front"

    def put_in_front(self, name: str, script: str = "") -> None:
        """Let a shell script run before each call of a command, and count the calls.

        The script may ``exit``, so that the real command is not run; ``$count`` is the number of this call.
        """
        real = shutil.which(name, path=_path_with_sbin())
        if real is None:
            raise SlurmTrouble(f"there is no {name} to put anything in front of")
        calls = self.wrapper_folder / f".{name}.calls"
        wrapper = self.wrapper_folder / name
        lines = [
            "#!/bin/sh",
            # One byte, appended: no two calls that come at once get lost.
            f"printf . >> {shlex.quote(str(calls))}",
            f"count=$(wc -c < {shlex.quote(str(calls))})",
            script,
            f'exec {shlex.quote(real)} "$@"',
        ]
        calls.write_bytes(b"")
        fresh = wrapper.with_name(f".{name}.new")
        fresh.write_text("\n".join(lines) + "\n")
        fresh.chmod(0o755)
        # In one go, for a process that calls it right now.
        fresh.rename(wrapper)

    def take_away(self, name: str | None = None) -> None:
        """Take away what was put in front of one command, or of all."""
        for wrapper in self.wrapper_folder.glob(name or "[!.]*"):
            wrapper.unlink()

    def counted(self, name: str) -> int:
        """Return how often a command has been called since something was put in front of it."""
        return (self.wrapper_folder / f".{name}.calls").stat().st_size

    def command(self, *argv: str, check: bool = True, timeout: float = 2 * PATIENCE) -> str:
        """Run a command against this cluster, past all that is put in front, and return its stripped output."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(_SLURM_VARIABLES)}
        # A test may have put on its own PATH what is put in front.
        path = [folder for folder in _path_with_sbin().split(os.pathsep) if folder != str(self.wrapper_folder)]
        env |= {"SLURM_CONF": str(self.conf), "PATH": os.pathsep.join(path)}
        done = subprocess.run(
            argv,
            env=env,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if check and done.returncode:
            raise SlurmTrouble(
                f"{shlex.join(argv)} exited with {done.returncode}: {done.stderr.strip()}\n{self._tails()}"
            )
        return done.stdout.strip()

    # Jobs

    def submit(self, script: str, *options: str) -> str:
        """Submit a line of shell as a job, and return its id; ``output`` tells what it writes."""
        where = self.folder / "jobs"
        where.mkdir(exist_ok=True)
        return self.command("sbatch", "--parsable", f"--output={where}/%j.out", *options, f"--wrap={script}")

    def output(self, job_id: str | int) -> str:
        """Return what a job submitted here has written so far; nothing before its start."""
        with suppress(FileNotFoundError):
            return (self.folder / "jobs" / f"{job_id}.out").read_text()
        return ""

    def jobs(self, name_contains: str = "") -> list[Job]:
        """Return all jobs that this cluster has seen since its start, also those that squeue has forgotten."""
        # First the queue: a job that is no longer there has been written down before.
        queued = self._queued()
        jobs: dict[tuple[str, str], Job] = self._written_down() | queued
        return [job for job in sorted(jobs.values(), key=lambda job: int(job.id)) if name_contains in job.name]

    def job(self, job_id: str | int) -> Job:
        """Return one job as it is now."""
        for jobs in (self._queued(str(job_id)), self._written_down()):
            for job in jobs.values():
                if job.id == str(job_id):
                    return job
        raise SlurmTrouble(f"there never was a job {job_id}\n{self._tails()}")

    def state(self, job_id: str | int) -> str:
        """Return the state of a job, such as RUNNING."""
        return self.job(job_id).state

    def wait_for(self, job_id: str | int, *states: str, timeout: float = PATIENCE) -> Job:
        """Wait until a job is in one of some states, and return it.

        A job that is cancelled ends its script by itself, and Slurm may note that end, FAILED, instead of CANCELLED.
        """
        if "CANCELLED" in states:
            states = (*states, "FAILED")
        seen: list[str] = []

        def is_there() -> Job | None:
            job = self.job(job_id)
            if seen[-1:] != [job.state]:
                seen.append(job.state)
            return job if job.state in states else None

        return self.until(is_there, lambda: f"job {job_id} to be {' or '.join(states)}; it was {seen}", timeout)

    def until(self, condition: Callable[[], Value], what: str | Callable[[], str], timeout: float = PATIENCE) -> Value:
        """Wait until a condition gives something true, and return that."""
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            if time.monotonic() > deadline:
                text = what if isinstance(what, str) else what()
                raise SlurmTrouble(f"waited for {text} in vain for {timeout:g} s\n{self._tails()}")
            time.sleep(_PAUSE)
        return value

    # States that do not come about by themselves

    def node_down(self, node: str) -> None:
        """Declare a node dead: its jobs end as NODE_FAIL, or go back into the queue."""
        self.command("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=a test")

    def node_up(self, node: str) -> None:
        """Take a node back to work, and wait until it takes jobs."""

        def is_up() -> bool:
            state = self._node_states()[node]
            # A node that has not yet reported to a new controller cannot be resumed, and need not.
            if re.match("down|drain|drng|fail", state):
                self.command("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
            return state in _AT_WORK

        self.until(is_up, f"{node} back at work")

    def time_out(self, job_id: str | int) -> None:
        """Move the time limit of a running job to now; Slurm looks at the limits every 30 s."""
        self.command("scontrol", "update", f"JobId={job_id}", "EndTime=now+1")

    def out_of_memory(self, job_id: str | int) -> None:
        """Tell the controller of a running job what a node tells it when the kernel has killed the job for its memory.

        No command does that, but Slurm's own library: it is the end of a job with a signal that stands for it.
        """
        library = next(_LIBRARIES.glob("*/slurm*/libslurmfull.so"))
        code = (
            f"import ctypes, sys; slurm = ctypes.CDLL({str(library)!r}, ctypes.RTLD_GLOBAL); slurm.slurm_init(None); "
            f"sys.exit(slurm.slurm_complete_job({int(job_id)}, {_SIG_OOM}))"
        )
        # In a process of its own, because the library keeps the configuration that it has read first.
        self.command(sys.executable, "-I", "-c", code)

    def requeue(self, job_id: str | int) -> None:
        """Put a job back into the queue."""
        self.command("scontrol", "requeue", str(job_id))

    def hold(self, job_id: str | int) -> None:
        """Keep a waiting job from starting."""
        self.command("scontrol", "hold", str(job_id))

    def release(self, job_id: str | int) -> None:
        """Let a held job start."""
        self.command("scontrol", "release", str(job_id))

    def suspend(self, job_id: str | int) -> None:
        """Stop a running job for a while."""
        self.command("scontrol", "suspend", str(job_id))

    def resume(self, job_id: str | int) -> None:
        """Let a suspended job go on."""
        self.command("scontrol", "resume", str(job_id))

    # How all that is done

    def _prepare(self) -> None:
        """Make the folders and the configuration, and start the keeper."""
        for name in ("etc", "log", "in-front"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._logs = self.folder / "log"
        # Unix sockets have short paths, which the folders of tests are not; and what is here needs no quoting in
        # Slurm's files. munged wants everybody to reach its socket.
        self._run_folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp" if os.access("/tmp", os.W_OK) else None))
        self._ports = _Ports.reserve(3 + len(self.nodes))
        memory = _CGROUP_V1 / f"sewer-{self._run_folder.name}" if self.cgroup else None
        self._keeper = _KeeperClient(self._run_folder, memory, self._logs / "keeper.log")
        if memory:
            # Slurm names its cgroups after nodes, which all clusters name alike: so each has a tree of its own.
            memory.mkdir()
            (self._run_folder / "cgroup").mkdir()
            (self._run_folder / "cgroup" / "memory").symlink_to(memory)
        self._run_folder.chmod(0o755)
        for name in ("etc", "log"):
            (self._run_folder / name).symlink_to(self.folder.resolve() / name)
        for name in ("state/env_cache", "dev", *(f"spool/{node}" for node in self.nodes)):
            (self._run_folder / name).mkdir(parents=True)
        self._ctld_port, self._dbd_port, self._mariadb_port = (next(self._ports.numbers) for _ in range(3))
        self._node_ports = dict(zip(self.nodes, self._ports.numbers, strict=True))
        self._write_configuration()
        self._name_daemons()

    def _write_configuration(self) -> None:
        etc = self._run_folder / "etc"
        for number in range(2):
            # Slurm wants a character device; whose, it does not care.
            (self._run_folder / "dev" / f"gpu{number}").symlink_to("/dev/null")
        nodes = ",".join(self.nodes)
        _write(etc / "munge.key", os.urandom(128), secret=True)
        _write(etc / "slurm.conf", self._slurm_conf())
        _write(self._run_folder / "state" / "env_cache" / _user(), _login_environment())
        _write(etc / "gres.conf", f"NodeName={nodes} Name=gpu File={self._run_folder}/dev/gpu[0-1]\n")
        _write(etc / "plugstack.conf", "")
        _write(etc / "cgroup.conf", self._cgroup_conf())
        if self.accounting:
            _write(etc / "slurmdbd.conf", self._slurmdbd_conf(), secret=True)
            _write(etc / "mariadb.cnf", self._mariadb_conf())

    def _slurm_conf(self) -> str:
        run, me, host = self._run_folder, _user(), socket.gethostname().partition(".")[0]
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={self._cpus} "
            f"RealMemory={self._memory_mb} Gres=gpu:2 State=UNKNOWN"
            for node, port in self._node_ports.items()
        )
        text = f"""
ClusterName=sewer
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={self._ctld_port}
SlurmUser={me}
SlurmdUser={me}
AuthType=auth/munge
CredType=cred/munge
# A job that was put back waits for as long as its last credential is good before it starts anew.
AuthInfo=socket={run}/munge.socket,cred_expire=5
StateSaveLocation={run}/state
SlurmdSpoolDir={run}/spool/%n
SlurmctldPidFile={run}/slurmctld.pid
SlurmdPidFile={run}/%n.pid
SlurmctldLogFile={run}/log/slurmctld.log
SlurmdLogFile={run}/log/%n.log
PlugStackConfig={run}/etc/plugstack.conf
JobCompType=jobcomp/filetxt
JobCompLoc={run}/log/jobcomp.txt

ProctrackType=proctrack/linuxproc
TaskPlugin=task/{"cgroup" if self.cgroup else "none"}
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/{"linux" if self._memory_poll else "none"}
JobAcctGatherFrequency=task={self._memory_poll}
{"JobAcctGatherParams=OverMemoryKill" if self._memory_poll else ""}

# The nodes are what is written here, whatever the machine is.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
GresTypes=gpu

SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
SlurmctldTimeout=30
SlurmdTimeout=10
MessageTimeout=10
KillWait=2
InactiveLimit=0
BatchStartTimeout=10
# The login environment is what is written below, not what the profile of whoever runs the tests makes of it: that one
# may be slow, and waits for ever on a lock whose holder was killed with its node (pyenv's does).
GetEnvTimeout=0
CompleteWait=0
# A node that a test has taken down stays down; one whose daemon comes back does not.
ReturnToService=1
MinJobAge={self._min_job_age}
MaxJobCount=50000
MaxArraySize=10001
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE

{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 PriorityTier=10 PreemptMode=OFF
PartitionName=scavenge Nodes=ALL MaxTime=INFINITE DefaultTime=60 PriorityTier=1 PreemptMode=REQUEUE
PartitionName=tiny Nodes=ALL MaxNodes=1 MaxTime=10 DefaultTime=5 PriorityTier=10 PreemptMode=OFF
"""
        if self.accounting:
            # With munge, the "password" is the socket: AuthInfo does not hold for slurmdbd.
            text += f"""
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={self._dbd_port}
AccountingStoragePass={run}/munge.socket
AccountingStoreFlags=job_comment
AccountingStorageTRES=gres/gpu
"""
        return f"{text}\n{self._extra_conf}\n"

    def _slurmdbd_conf(self) -> str:
        run = self._run_folder
        return f"""
DbdHost={socket.gethostname().partition(".")[0]}
DbdAddr=127.0.0.1
DbdPort={self._dbd_port}
SlurmUser={_user()}
AuthType=auth/munge
AuthInfo=socket={run}/munge.socket
LogFile={run}/log/slurmdbd.log
PidFile={run}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={self._mariadb_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
CommitDelay=1
"""

    def _mariadb_conf(self) -> str:
        run = self._run_folder
        return f"""[mariadbd]
datadir={run}/mariadb
socket={run}/mariadb.socket
pid-file={run}/mariadb.pid
log-error={run}/log/mariadbd.log
bind-address=127.0.0.1
port={self._mariadb_port}
user={_user()}
skip-name-resolve
performance_schema=OFF
innodb_buffer_pool_size=64M
innodb_log_file_size=16M
innodb_lock_wait_timeout=900
max_allowed_packet=16M
# What a crash of the machine would lose is of no value.
innodb_flush_log_at_trx_commit=0
innodb_doublewrite=0
"""

    def _cgroup_conf(self) -> str:
        if not self.cgroup:
            return "ConstrainRAMSpace=no\n"
        return f"""
CgroupPlugin=cgroup/v1
CgroupMountpoint={self._run_folder}/cgroup
CgroupAutomount=no
ConstrainRAMSpace=yes
ConstrainCores=no
ConstrainDevices=no
"""

    def _name_daemons(self) -> None:
        run, etc = self._run_folder, self._run_folder / "etc"
        munge = ["munged", "--foreground", f"--key-file={etc}/munge.key", f"--socket={run}/munge.socket"]
        munge += [f"--pid-file={run}/munge.pid", f"--seed-file={run}/munge.seed", "--origin=127.0.0.1"]
        admin = ["mariadb-admin", "--no-defaults", "--user=root", f"--socket={run}/mariadb.socket", "ping"]
        self._daemons = {
            "munged": self._daemon("munged", munge, partial(self._succeeds, "munge", f"-S{run}/munge.socket", "-n")),
        }
        if self.accounting:
            self._daemons |= {
                "mariadbd": self._daemon(
                    "mariadbd", ["mariadbd", f"--defaults-file={etc}/mariadb.cnf"], partial(self._succeeds, *admin)
                ),
                "slurmdbd": self._daemon("slurmdbd", ["slurmdbd", "-D"], self._slurmdbd_answers),
            }
        self._daemons["slurmctld"] = self._daemon("slurmctld", ["slurmctld", "-D"], self._slurmctld_answers)
        for node, port in self._node_ports.items():
            self._daemons[node] = self._daemon(node, ["slurmd", "-D", "-N", node], partial(_listens, port))

    def _daemon(self, name: str, argv: list[str], answers: Callable[[], bool]) -> _Daemon:
        # Slurm's daemons write to their log all that they write to their output; only what goes wrong before
        # they know their log is nowhere else.
        return _Daemon(argv, answers, self._logs / f"{name}.log", self._logs / f"{name}.output")

    def _runs(self, name: str) -> bool:
        return self._ask("runs", name=name)

    def _launch(self, name: str) -> None:
        daemon = self._daemons[name]
        env = {"SLURM_CONF": str(self.conf), "PATH": _path_with_sbin(), "LC_ALL": "C.UTF-8"}
        self._ask("start", name=name, argv=daemon.argv, env=env, output=str(daemon.output))

    def _start_accounting(self) -> None:
        data = self._run_folder / "mariadb"
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", f"--user={_user()}", "--skip-test-db"]
        self.command(*install, "--auth-root-authentication-method=normal")
        self.start_daemon("mariadbd")
        sql = "CREATE DATABASE slurm; GRANT ALL ON slurm.* TO slurm@'127.0.0.1' IDENTIFIED BY 'slurm'"
        self.command(
            "mariadb", "--no-defaults", "--user=root", f"--socket={self._run_folder}/mariadb.socket", f"-e{sql}"
        )
        self.start_daemon("slurmdbd")
        self.command("sacctmgr", "-i", "-Q", "add", "cluster", "sewer")

    def _succeeds(self, *argv: str) -> bool:
        try:
            self.command(*argv)
        except SlurmTrouble:
            return False
        return True

    def _slurmctld_answers(self) -> bool:
        return _listens(self._ctld_port) and self._succeeds("scontrol", "ping")

    def _slurmdbd_answers(self) -> bool:
        return _listens(self._dbd_port) and self._succeeds("sacctmgr", "-n", "show", "cluster")

    def _has_no_jobs(self) -> bool:
        states = set(self.command("squeue", "-h", "-o", "%T").split())
        # Again for each look, because what a test has left running may still submit jobs.
        if states - {"COMPLETING"}:
            self.command("scancel", "--user", _user(), check=False)
        return not states

    def _node_states(self) -> dict[str, str]:
        lines = self.command("sinfo", "-h", "-N", "-p", "main", "-o", "%N %t").splitlines()
        return dict(line.split() for line in lines)

    def _all_nodes_idle(self) -> bool:
        for node in self.nodes:
            if not self._runs(node):
                daemon = self._daemons[node]
                raise SlurmTrouble(f"slurmd of {node} ended at once\n{self._tails([daemon.output, daemon.log])}")
        return set(self._node_states().values()) <= _AT_WORK

    def _queued(self, job_id: str | None = None) -> dict[tuple[str, str], Job]:
        which = [] if job_id is None else ["-j", job_id]
        text = self.command("squeue", "-h", "-r", "-t", "all", *which, "-O", _QUEUE_FIELDS, check=job_id is None)
        jobs = {}
        for line in text.splitlines():
            id_, state, status, restarts, name = (part.strip() for part in line.split("|", 4))
            exit_code = f"{int(status) >> 8}:{int(status) & 127}"
            jobs[id_, name] = Job(id_, name, state, exit_code, int(restarts))
        return jobs

    def _written_down(self) -> dict[tuple[str, str], Job]:
        """Return the jobs that have ended: Slurm writes a line at the end of each run of each job.

        A controller that dies forgets its last jobs and may give their ids to others: so a job is an id and a name.
        """
        runs: dict[tuple[str, str], list[re.Match[str]]] = defaultdict(list)
        with suppress(FileNotFoundError):
            for line in (self._logs / "jobcomp.txt").read_text(errors="replace").splitlines():
                if found := _JOB_LINE.match(line):
                    runs[found["id"], found["name"]].append(found)
        return {key: Job(*key, of[-1]["state"], of[-1]["exit_code"], len(of) - 1) for key, of in runs.items()}

    def _ask(self, ask: str, **details: Any) -> Any:
        if self._keeper is None:
            raise SlurmTrouble("this cluster does not run")
        return self._keeper.ask(ask, **details)

    def _tails(self, paths: list[Path] | None = None) -> str:
        """Return the last lines of the logs, each under its path."""
        if paths is None:
            paths = sorted(self._logs.glob("*.log"))
        texts = [(path, path.read_text(errors="replace").splitlines()) for path in paths if path.exists()]
        # Debian's Slurm complains on each occasion of a library that nobody here has use for.
        texts = [(path, [line for line in lines if "pmix" not in line]) for path, lines in texts]
        return "\n".join("\n".join([f"--- {path}", *lines[-_TAIL:]]) for path, lines in texts if lines)


class _KeeperClient:
    """Talks to the keeper of one cluster, from any thread."""

    def __init__(self, run_folder: Path, memory_cgroup: Path | None, log: Path) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._owner = os.getpid()
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_KEEPER), str(self._owner), str(run_folder), str(memory_cgroup or "")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd="/",
                start_new_session=True,
            )
        # The process that was started only makes the keeper, which is then nobody's child.
        self._process.wait()

    def ask(self, ask: str, **details: Any) -> Any:
        """Send a request and return the answer."""
        with self._lock:
            answer = self._exchange({"ask": ask, **details})
        if "error" in answer:
            raise SlurmTrouble(f"{ask} {details}: {answer['error']}")
        return answer["answer"]

    def end(self) -> None:
        """End all processes of the cluster, and the keeper."""
        if os.getpid() != self._owner:
            return  # a fork of the process whose cluster this is
        with self._lock:
            left = self._exchange({"ask": "end"})["left"]
            self._process.stdout.read()  # its end is that of the keeper
            for pipe in (self._process.stdin, self._process.stdout):
                pipe.close()
        if left:
            raise SlurmTrouble(f"processes {left} cannot be killed")

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SlurmTrouble(f"the keeper of the cluster has died, see {self._log}")
        return json.loads(line)


def missing_packages(*, accounting: bool = False) -> list[str]:
    """Return the Debian packages that a cluster needs and this machine lacks."""
    programs = PROGRAMS | (ACCOUNTING_PROGRAMS if accounting else {})
    missing = {package for name, package in programs.items() if not shutil.which(name, path=_path_with_sbin())}
    if accounting and not list(_LIBRARIES.glob("*/slurm*/accounting_storage_mysql.so")):
        missing.add("slurm-wlm-mysql-plugin")
    return sorted(missing)


def _path_with_sbin() -> str:
    """Return PATH with the folders of daemons, which the one of an ordinary user lacks."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *_WAYS_TO_SBIN])


def _user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def _login_environment() -> str:
    person = pwd.getpwuid(os.geteuid())
    values = {"HOME": person.pw_dir, "LOGNAME": person.pw_name, "USER": person.pw_name, "SHELL": person.pw_shell}
    return "".join(f"{name}={value}\n" for name, value in {**values, "PATH": _path_with_sbin()}.items())


def _write(path: Path, content: str | bytes, *, secret: bool = False) -> None:
    path.touch(mode=stat.S_IRUSR | stat.S_IWUSR)
    path.chmod(0o600 if secret else 0o644)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _listens(port: int) -> bool:
    """Tell whether somebody listens on a port, without bothering them with a connection."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        if state == "0A" and local.endswith(f":{port:04X}"):
            return True
    return False
