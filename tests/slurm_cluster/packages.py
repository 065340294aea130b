"""Which programs a cluster needs, where they are looked for, and which packages have them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from tests.slurm_cluster.fault_injection import SlurmTrouble

# Each program, and its Debian package.
PROGRAMS = {"slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client", "munged": "munge"}
ACCOUNTING_PROGRAMS = {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server", "mariadb-install-db": "mariadb-server"}

LIBRARIES = Path("/usr/lib")
_WAYS_TO_SBIN = ("/usr/sbin", "/sbin")


def missing_packages(*, accounting: bool = False) -> list[str]:
    """Return the Debian packages that a cluster needs and this machine lacks."""
    programs = PROGRAMS | (ACCOUNTING_PROGRAMS if accounting else {})
    missing = {package for name, package in programs.items() if not shutil.which(name, path=path_with_sbin())}
    if accounting and not list(LIBRARIES.glob("*/slurm*/accounting_storage_mysql.so")):
        missing.add("slurm-wlm-mysql-plugin")
    return sorted(missing)


@cache
def slurm_version() -> tuple[int, int]:
    """Return the version of the installed Slurm, such as ``(22, 5)``."""
    text = subprocess.check_output(["slurmctld", "-V"], env={"PATH": path_with_sbin()}, text=True)
    found = re.search(r" (\d+)\.(\d+)", text)
    if found is None:
        raise SlurmTrouble(f"slurmctld -V must print a version, got {text!r}")
    return int(found[1]), int(found[2])


def path_with_sbin() -> str:
    """Return PATH with the folders of daemons, which the one of an ordinary user lacks."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *_WAYS_TO_SBIN])
