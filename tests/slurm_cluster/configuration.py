"""The configuration files of the daemons of a cluster."""

from __future__ import annotations

import os
import pwd
import shlex
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from tests.slurm_cluster.packages import path_with_sbin, slurm_version

# The login environment of jobs is the one that is written here, and not the one of the user's profile. A profile may be
# slow, and waits for ever on a lock whose holder was killed with its node (pyenv's does). Before 25.05, GetEnvTimeout=0
# makes slurmd read a file. Later versions always call /bin/su, so a slurmd of a test sees another program there.
SU_ALWAYS = (25, 5)


@dataclass(frozen=True)
class Configuration:
    """Configuration of the daemons of a cluster; most of it comes from the arguments of SlurmCluster.

    :param run_folder: where all that they need lies, by a short path.
    :param node_ports: the port of each node, by its name.
    """

    run_folder: Path
    node_ports: dict[str, int]
    ctld_port: int
    dbd_port: int
    mariadb_port: int
    cpus: int
    memory_mb: int
    accounting: bool
    cgroup: bool
    proctrack: str
    min_job_age: int
    memory_poll: int
    extra_conf: str

    def write(self) -> None:
        """Write all files, and make the devices that they name."""
        etc = self.run_folder / "etc"
        for number in range(2):
            # Slurm wants a character device; whose, it does not care.
            (self.run_folder / "dev" / f"gpu{number}").symlink_to("/dev/null")
        nodes = ",".join(self.node_ports)
        _write(etc / "munge.key", os.urandom(128), secret=True)
        _write(etc / "slurm.conf", self._slurm_conf())
        login = _login_environment()
        _write(self.run_folder / "state" / "env_cache" / user(), "".join(f"{line}\n" for line in login))
        _write(etc / "su", _su(login))
        (etc / "su").chmod(0o755)
        _write(etc / "gres.conf", f"NodeName={nodes} Name=gpu File={self.run_folder}/dev/gpu[0-1]\n")
        _write(etc / "plugstack.conf", "")
        _write(etc / "cgroup.conf", self._cgroup_conf())
        if self.accounting:
            _write(etc / "slurmdbd.conf", self._slurmdbd_conf(), secret=True)
            _write(etc / "mariadb.cnf", self._mariadb_conf())

    def _slurm_conf(self) -> str:
        run, me, host = self.run_folder, user(), socket.gethostname().partition(".")[0]
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={self.cpus} "
            f"RealMemory={self.memory_mb} Gres=gpu:2 State=UNKNOWN"
            for node, port in self.node_ports.items()
        )
        text = f"""
ClusterName=sewer
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={self.ctld_port}
SlurmUser={me}
SlurmdUser={me}
AuthType=auth/munge
CredType=cred/munge
# A job that was put back waits for as long as its last credential is good before it starts again.
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

ProctrackType=proctrack/{self.proctrack}
TaskPlugin=task/{"cgroup" if self.cgroup else "none"}
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/{"linux" if self.memory_poll else "none"}
JobAcctGatherFrequency=task={self.memory_poll}
{"JobAcctGatherParams=OverMemoryKill" if self.memory_poll else ""}

# The nodes are those written here, on any machine.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
GresTypes=gpu

SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
SlurmctldTimeout=30
SlurmdTimeout=10
MessageTimeout=30
KillWait=2
InactiveLimit=0
BatchStartTimeout=10
{"GetEnvTimeout=0" if slurm_version() < SU_ALWAYS else ""}
CompleteWait=0
# A node that a test has taken down stays down; one whose daemon comes back does not.
ReturnToService=1
MinJobAge={self.min_job_age}
MaxJobCount=50000
MaxArraySize=10001
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE

{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 PriorityTier=10 PreemptMode=OFF
PartitionName=scavenge Nodes=ALL MaxTime=INFINITE DefaultTime=60 PriorityTier=1 PreemptMode=REQUEUE
PartitionName=graced Nodes=ALL MaxTime=INFINITE DefaultTime=60 PriorityTier=1 PreemptMode=CANCEL GraceTime=60
PartitionName=tiny Nodes=ALL MaxNodes=1 MaxTime=10 DefaultTime=5 PriorityTier=10 PreemptMode=OFF
"""
        if self.accounting:
            # With munge, the "password" is the socket: AuthInfo does not hold for slurmdbd.
            text += f"""
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={self.dbd_port}
AccountingStoragePass={run}/munge.socket
AccountingStoreFlags=job_comment
AccountingStorageTRES=gres/gpu
"""
        return f"{text}\n{self.extra_conf}\n"

    def _slurmdbd_conf(self) -> str:
        run = self.run_folder
        return f"""
DbdHost={socket.gethostname().partition(".")[0]}
DbdAddr=127.0.0.1
DbdPort={self.dbd_port}
SlurmUser={user()}
AuthType=auth/munge
AuthInfo=socket={run}/munge.socket
LogFile={run}/log/slurmdbd.log
PidFile={run}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={self.mariadb_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
CommitDelay=1
"""

    def _mariadb_conf(self) -> str:
        run = self.run_folder
        return f"""[mariadbd]
datadir={run}/mariadb
socket={run}/mariadb.socket
pid-file={run}/mariadb.pid
log-error={run}/log/mariadbd.log
bind-address=127.0.0.1
port={self.mariadb_port}
user={user()}
skip-name-resolve
performance_schema=OFF
innodb_buffer_pool_size=64M
innodb_log_file_size=16M
innodb_lock_wait_timeout=900
max_allowed_packet=16M
# Data that a crash of the machine would lose has no value.
innodb_flush_log_at_trx_commit=0
innodb_doublewrite=0
"""

    def _cgroup_conf(self) -> str:
        if not self.cgroup and self.proctrack != "cgroup":
            return "ConstrainRAMSpace=no\n"
        return f"""
CgroupPlugin=cgroup/v1
CgroupMountpoint={self.run_folder}/cgroup
CgroupAutomount=no
ConstrainRAMSpace={"yes" if self.cgroup else "no"}
ConstrainCores=no
ConstrainDevices=no
"""


def user() -> str:
    """Return the name of the user that runs the tests, and so the cluster."""
    return pwd.getpwuid(os.geteuid()).pw_name


def _login_environment() -> list[str]:
    user = pwd.getpwuid(os.geteuid())
    values = {"HOME": user.pw_dir, "LOGNAME": user.pw_name, "USER": user.pw_name, "SHELL": user.pw_shell}
    return [f"{name}={value}" for name, value in {**values, "PATH": path_with_sbin()}.items()]


def _su(login: list[str]) -> str:
    """Return a program that slurmd calls as ``su - USER -c COMMAND``: it runs the command without any profile."""
    return f'#!/bin/sh\nexec env -i {shlex.join(login)} /bin/sh -c "$4"\n'


def _write(path: Path, content: str | bytes, *, secret: bool = False) -> None:
    path.touch(mode=stat.S_IRUSR | stat.S_IWUSR)
    path.chmod(0o600 if secret else 0o644)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
