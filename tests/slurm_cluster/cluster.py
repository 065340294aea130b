"""A real Slurm of several nodes for tests: private, quick to start, and gone without a trace.

All daemons run on this machine, as the user that runs the tests, root or not; no systemd is asked and nothing
under /etc or /var is touched. ::

    with SlurmCluster(tmp_path) as slurm:
        job = slurm.submit("exit 3")
        slurm.wait_for(job, "FAILED")

A process apart, the keeper, holds everything that runs in the cluster and ends it when the cluster is
stopped, or when the process that started it is gone, however that came about.
"""

from __future__ import annotations

import os
import signal
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.slurm_cluster.client import AT_WORK, SlurmClient
from tests.slurm_cluster.configuration import SU_ALWAYS, Configuration, user
from tests.slurm_cluster.fault_injection import SlurmTrouble
from tests.slurm_cluster.munge_keeper_client import KeeperClient
from tests.slurm_cluster.packages import missing_packages, path_with_sbin, slurm_version
from tests.slurm_cluster.ports import Ports, listens
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

_CGROUPS = Path("/sys/fs/cgroup")
#: How Slurm finds the processes of a job, unless a test asks for another way.
PROCTRACK = os.environ.get("SEWER_TEST_PROCTRACK", "linuxproc")


@dataclass(frozen=True)
class _Daemon:
    """A daemon: how it is started, where it logs, and how to find out that it answers."""

    argv: list[str]
    answers: Callable[[], bool]
    log: Path
    output: Path


class SlurmCluster(SlurmClient):
    """A private Slurm cluster; as a context manager, it is started and stopped.

    The daemons are ``munged``, ``slurmctld``, ``n1``, ``n2``… and with accounting ``mariadbd`` and ``slurmdbd``.
    The partitions are ``main`` (the default one), ``scavenge``, whose jobs make way for those in main, ``graced``,
    whose jobs do so with a GraceTime of 60 s, and ``tiny``, of one node and ten minutes a job. Each node has two
    pretended GPUs.

    :param folder: for configuration and logs, which stay there to be looked at.
    :param nodes: how many nodes there are.
    :param cpus: how many CPUs each pretends to have.
    :param memory_mb: how much memory each pretends to have.
    :param accounting: run slurmdbd with a database, so that there is a ``sacct``.
    :param cgroup: let the kernel end jobs that take more memory than they asked for, as OUT_OF_MEMORY; only
        where ``can_cgroup``. Everywhere, ``out_of_memory`` lets a job end so without any memory being used.
    :param proctrack: plugin by which Slurm finds the processes of a job, ``linuxproc``, ``cgroup`` or ``pgid``. Under
        ``cgroup`` scancel and time limits signal only the batch script, under ``pgid`` only its process group.
        SEWER_TEST_PROCTRACK is the default.
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
        proctrack: str = PROCTRACK,
        min_job_age: int = 300,
        memory_poll: int = 0,
        extra_conf: str = "",
    ) -> None:
        super().__init__(folder)
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.accounting = accounting
        self.cgroup = cgroup
        self.proctrack = proctrack
        self._cpus = cpus
        self._memory_mb = memory_mb
        self._min_job_age = min_job_age
        self._memory_poll = memory_poll
        self._extra_conf = extra_conf
        self._keeper: KeeperClient | None = None
        self._daemons: dict[str, _Daemon] = {}
        self._frozen: set[str] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def can_cgroup(self) -> bool:
        """Return whether Slurm can limit memory by cgroups here: as root, with cgroups of version 1."""
        return os.geteuid() == 0 and os.access(_CGROUPS / "memory" / "cgroup.procs", os.W_OK)

    @property
    def can_track_by_cgroup(self) -> bool:
        """Return whether Slurm can track processes by cgroups here: as root, with cgroups of version 1."""
        return os.geteuid() == 0 and os.access(_CGROUPS / "freezer" / "cgroup.procs", os.W_OK)

    @property
    def _controllers(self) -> list[str]:
        """Return the controllers of which this cluster needs a tree of its own."""
        return ["memory"] * self.cgroup + ["freezer"] * (self.proctrack == "cgroup")

    # Starting and stopping

    def start(self) -> None:
        """Start all daemons, and wait until all nodes take jobs."""
        missing = missing_packages(accounting=self.accounting)
        if missing:
            raise SlurmTrouble(f"Slurm is not installed here: apt-get install {' '.join(missing)}")
        if self.cgroup and not self.can_cgroup:
            raise SlurmTrouble("no cgroups of version 1 that we may change; out_of_memory() does without")
        if self.proctrack not in {"linuxproc", "cgroup", "pgid"}:
            raise SlurmTrouble(f"proctrack must be 'linuxproc', 'cgroup' or 'pgid', got {self.proctrack!r}")
        if self.proctrack == "cgroup" and not self.can_track_by_cgroup:
            raise SlurmTrouble(f"proctrack/cgroup needs root and a writable {_CGROUPS}/freezer (cgroup version 1)")
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
        """Restore the state before a test: no wrapper, no job, and all daemons and nodes at work."""
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
        """Let a daemon hang: it accepts connections, and does not answer."""
        self._ask("signal", name=name, number=int(signal.SIGSTOP))
        self._frozen.add(name)

    def thaw(self, name: str) -> None:
        """Let a frozen daemon go on."""
        self._ask("signal", name=name, number=int(signal.SIGCONT))
        self._frozen.discard(name)

    # How all that is done

    def _prepare(self) -> None:
        """Make the folders and the configuration, and start the keeper."""
        for name in ("etc", "log", "in-front"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        # Unix sockets have short paths, unlike the folders of tests; and paths here need no quoting in
        # Slurm's files. munged wants everybody to reach its socket.
        self._run_folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp" if os.access("/tmp", os.W_OK) else None))
        self._ports = Ports.reserve(3 + len(self.nodes))
        # Slurm names its cgroups after nodes, which all clusters name alike: so each has trees of its own.
        trees = {name: _CGROUPS / name / f"sewer-{self._run_folder.name}" for name in self._controllers}
        self._keeper = KeeperClient(self._run_folder, list(trees.values()), self._logs / "keeper.log")
        (self._run_folder / "cgroup").mkdir()
        for name, tree in trees.items():
            tree.mkdir()
            (self._run_folder / "cgroup" / name).symlink_to(tree)
        self._run_folder.chmod(0o755)
        for name in ("etc", "log"):
            (self._run_folder / name).symlink_to(self.folder.resolve() / name)
        for name in ("state/env_cache", "dev", *(f"spool/{node}" for node in self.nodes)):
            (self._run_folder / name).mkdir(parents=True)
        self._ctld_port, self._dbd_port, mariadb_port = (next(self._ports.numbers) for _ in range(3))
        self._node_ports = dict(zip(self.nodes, self._ports.numbers, strict=True))
        Configuration(
            self._run_folder,
            self._node_ports,
            self._ctld_port,
            self._dbd_port,
            mariadb_port,
            cpus=self._cpus,
            memory_mb=self._memory_mb,
            accounting=self.accounting,
            cgroup=self.cgroup,
            proctrack=self.proctrack,
            min_job_age=self._min_job_age,
            memory_poll=self._memory_poll,
            extra_conf=self._extra_conf,
        ).write()
        self._name_daemons()

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
        # The mount ends with its slurmd, and no other process sees it; slurmd still sees later mounts of a test.
        own_mounts = ["unshare", "--mount", "--propagation=slave"]
        own_su = [*own_mounts, "sh", "-c", 'mount --bind "$0" /bin/su && exec "$@"', f"{etc}/su"]
        in_front = own_su if slurm_version() >= SU_ALWAYS and os.geteuid() == 0 else []
        for node, port in self._node_ports.items():
            self._daemons[node] = self._daemon(node, [*in_front, "slurmd", "-D", "-N", node], partial(listens, port))

    def _daemon(self, name: str, argv: list[str], answers: Callable[[], bool]) -> _Daemon:
        # Slurm's daemons write to their log all that they write to their output; only errors before
        # they know their log is nowhere else.
        return _Daemon(argv, answers, self._logs / f"{name}.log", self._logs / f"{name}.output")

    def _runs(self, name: str) -> bool:
        return self._ask("runs", name=name)

    def _launch(self, name: str) -> None:
        daemon = self._daemons[name]
        env = {"SLURM_CONF": str(self.conf), "PATH": path_with_sbin(), "LC_ALL": "C.UTF-8"}
        self._ask("start", name=name, argv=daemon.argv, env=env, output=str(daemon.output))

    def _start_accounting(self) -> None:
        data = self._run_folder / "mariadb"
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", f"--user={user()}", "--skip-test-db"]
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
        return listens(self._ctld_port) and self._succeeds("scontrol", "ping")

    def _slurmdbd_answers(self) -> bool:
        return listens(self._dbd_port) and self._succeeds("sacctmgr", "-n", "show", "cluster")

    def _has_no_jobs(self) -> bool:
        states = set(self.command("squeue", "-h", "-o", "%T").split())
        # Again for each poll, because processes that a test has left running may still submit jobs.
        if states - {"COMPLETING"}:
            self.command("scancel", "--user", user(), check=False)
        return not states

    def _all_nodes_idle(self) -> bool:
        for node in self.nodes:
            if not self._runs(node):
                daemon = self._daemons[node]
                raise SlurmTrouble(f"slurmd of {node} ended at once\n{self._tails([daemon.output, daemon.log])}")
        return set(self._node_states().values()) <= AT_WORK

    def _ask(self, ask: str, **details: Any) -> Any:
        if self._keeper is None:
            raise SlurmTrouble("this cluster does not run")
        return self._keeper.ask(ask, **details)
