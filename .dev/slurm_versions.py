"""Run a command with another Slurm version than the machine's: ``slurm_versions.py 24.11 COMMAND...``, as root.

The Slurm is the one of a Linux distribution that has this version. mmdebstrap makes a small root folder of that
distribution in ``build/slurm/VERSION`` once, and the command runs in it by chroot, with mounts that no other process
sees. The checkout and the Python installation of this tool are there under their own paths.

The distribution's archive is the one that apt on this machine uses. For another distribution than the machine's, its
address has to be in SEWER_DEBIAN_MIRROR or SEWER_UBUNTU_MIRROR.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

# Also for a Python that omits the script's folder (PYTHONSAFEPATH).
sys.path.insert(0, str(Path(__file__).resolve().parent))

from environments import BUILD, ROOT, Trouble

ROOTS = BUILD / "slurm"
#: Distribution and suite for each version. Both distributions keep a Slurm version for the life of a suite, except sid.
SUITES = {
    "22.05": ("Debian", "bookworm"),
    "23.11": ("Ubuntu", "noble"),
    "24.11": ("Debian", "trixie"),
    "25.11": ("Ubuntu", "resolute"),
    "26.05": ("Debian", "sid"),
}
PACKAGES = [
    *("slurmctld", "slurmd", "slurm-client", "munge", "slurmdbd", "slurm-wlm-mysql-plugin", "mariadb-server"),
    *("python3", "procps", "mount"),
]
#: Debian has the keys of Ubuntu's archive as a package from 13 on, so this root serves a machine without them.
UBUNTU_KEYS = Path("usr/share/keyrings/ubuntu-archive-keyring.gpg")
UBUNTU_KEYS_FROM = "24.11"
#: Documentation and translations, which no test reads.
LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")
PASSED_ON = ("SEWER_TEST_", "PYTEST_")
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
STAMP = Path("etc/sewer-suite")

# Arguments: the root, the folder to start in, paths to share, --, the command. All mounts end with the command.
ENTER = """
set -eu
root=$1 folder=$2
shift 2
mount --rbind "$root" "$root"
# For the tests: a slurmd with mounts of its own sees theirs, too.
mount --make-rshared "$root"
for shared in /proc /sys /dev; do mount --rbind "$shared" "$root$shared"; done
while [ "$1" != -- ]; do
    if [ -d "$1" ]; then mkdir -p "$root$1"; else touch "$root$1"; fi
    mount --rbind "$1" "$root$1"
    shift
done
shift
for file in /etc/hosts /etc/resolv.conf; do
    if [ -e "$file" ]; then cp "$file" "$root$file"; fi
done
exec chroot "$root" env --chdir="$folder" "$@"
"""


def main(arguments: list[str]) -> int:
    """Create the root if it is missing, and exec the command in it."""
    version, *command = arguments or [""]
    if version not in SUITES or not command:
        print(f"usage: slurm_versions.py {'|'.join(SUITES)} COMMAND...", file=sys.stderr)
        return 2
    try:
        enter(make(version), command)
    except (Trouble, OSError) as error:
        print(f"Slurm {version}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def make(version: str) -> Path:
    """Create the root folder with that Slurm, unless it exists, and return it."""
    distribution, suite = SUITES[version]
    root = ROOTS / version
    ROOTS.mkdir(parents=True, exist_ok=True)
    with open(ROOTS / f"{version}.lock", "w") as lock:
        # Another call may be creating it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        packages = [*PACKAGES, "ubuntu-keyring"] if version == UBUNTU_KEYS_FROM else PACKAGES
        wanted = " ".join([distribution, suite, *packages])
        if (root / STAMP).exists() and (root / STAMP).read_text() == wanted:
            return root
        require_tools("mmdebstrap")
        mirror, options = mirror_of(distribution), keys_of(distribution)
        print(f"Slurm {version}: making {root.relative_to(ROOT)} from {distribution} {suite}", flush=True)
        # Never beyond a leftover mount.
        subprocess.run(["rm", "-rf", "--one-file-system", root], check=True)
        bootstrap(root, suite, mirror, packages, options)
        (root / STAMP).write_text(wanted)
        found = subprocess.check_output(["chroot", root, "/usr/sbin/slurmctld", "-V"], text=True)
        print(f"Slurm {version}: ready: {found.strip()}", flush=True)
    return root


def require_tools(*more: str) -> None:
    """Raise Trouble where this process cannot enter a root, or lacks more tools."""
    if os.geteuid():
        raise Trouble("chroot and mount take root; run this as root, or run the tests on a machine with that Slurm")
    if missing := [name for name in ("unshare", "chroot", *more) if not shutil.which(name)]:
        raise Trouble(f"missing: {' '.join(missing)}. On Debian: apt-get install mmdebstrap util-linux coreutils")


def bootstrap(root: Path, suite: str, mirror: str, packages: list[str], options: list[str]) -> None:
    """Create a root with these packages by mmdebstrap."""
    command = ["mmdebstrap", "--mode=root", "--variant=apt", f"--include={','.join(packages)}", *options]
    # The index of a rolling suite may be older than its date allows, where the archive is a snapshot.
    command += ["--aptopt=Acquire::Check-Valid-Until false", "--aptopt=APT::Install-Recommends false"]
    command += (f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT)
    command += [suite, str(root), mirror]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Trouble(f"mmdebstrap exited with {done.returncode}:\n{done.stderr[-2000:]}")


def mirror_of(distribution: str) -> str:
    """Return the address of an archive of the distribution."""
    variable = f"SEWER_{distribution.upper()}_MIRROR"
    if given := os.environ.get(variable):
        return given
    # "Label" leaves out archives of the same origin for security updates and backports.
    filters = [f"Origin: {distribution}", f"Label: {distribution}"]
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)", *filters], capture_output=True, text=True, check=False
    )
    if not listed.stdout.strip():
        raise Trouble(
            f"apt knows no archive of {distribution}; run apt-get update, or set {variable} to the address of one"
        )
    return listed.stdout.split()[0]


def keys_of(distribution: str) -> list[str]:
    """Return mmdebstrap's options for the components and the keys of a distribution's archive."""
    if distribution == "Debian":
        return []
    keys = Path("/", UBUNTU_KEYS)
    if not keys.exists():
        keys = make(UBUNTU_KEYS_FROM) / UBUNTU_KEYS
    return [f"--keyring={keys}", "--components=main,universe"]


def enter(root: Path, command: list[str]) -> None:
    """Exec the command, in the root and in the folder of this process."""
    require_tools()
    passed_on = [f"{name}={value}" for name, value in os.environ.items() if name.startswith(PASSED_ON)]
    env = ["-i", "HOME=/root", "LC_ALL=C.UTF-8", f"PATH={PATH}", *passed_on]
    shell = ["sh", "-c", ENTER, "enter", str(root), os.getcwd(), str(ROOT), *python_paths(), "--"]
    unshare = ["unshare", "--mount", "--propagation=private"]
    os.execvp(unshare[0], [*unshare, *shell, *env, *command])


def python_paths() -> list[str]:
    """Return the paths of the Python that runs this, on which the environments in ``build/venv`` are based."""
    if Path(sys.base_prefix) == Path("/usr"):
        # Only its own files, because the root has its own libraries in /usr. Environments link to one of these names.
        return ["/usr/bin/python3", os.path.realpath(sys.executable), sysconfig.get_path("stdlib")]
    return [sys.base_prefix]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
