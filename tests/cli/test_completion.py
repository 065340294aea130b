"""Completion of ``sppe`` in real shells, switched on by the lines in its help."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.cli.conftest import take_over_terminal

SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], ""),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -u; "),
    "fish": (["fish", "-i"], "set -g fish_autosuggestion_enabled 0; "),
}
#: Typed before the tabulator, and the line after it.
COMPLETED = {
    "sppe ru": "sppe run",
    "sppe run --dry": "sppe run --dry-run",
    "sppe run flo": "sppe run flow.py",
    "sppe run flow.py --on sl": "sppe run flow.py --on slurm",
    "sppe logs fir": "sppe logs first",
}
CLEAR_LINE = b"\x15"


@pytest.fixture(params=SHELLS)
def shell(request, sppe, terminal):
    """A shell in a terminal, with completion, in a folder with a run."""
    if not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed; apt-get install {request.param}")
    sppe.tasks(first="pass")
    sppe.run("run")
    command, first = SHELLS[request.param]
    (line,) = re.findall(rf"^ +{request.param} +(.*)$", sppe.run("--help").stdout, re.MULTILINE)
    window = terminal(24, 200)
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    env = sppe.environment(PATH=path, HOME=str(sppe.folder), TERM="xterm", PS1="$ ")
    on_terminal = {**dict.fromkeys(("stdin", "stdout", "stderr"), window.slave), "preexec_fn": take_over_terminal}
    process = subprocess.Popen(command, cwd=sppe.folder, env=env, **on_terminal)
    window.type(f"{first}{line}; echo rea''dy\r".encode())
    window.expect(lambda text: "\nready" in text)
    yield window
    process.kill()
    process.wait()


def test_shell_completes_commands_options_files_and_tasks(shell) -> None:
    for typed, completed in COMPLETED.items():
        shell.type(f"{typed}\t".encode())
        shell.expect(lambda text, completed=completed: re.search(f"{re.escape(completed)}$", text, re.MULTILINE))
        shell.type(CLEAR_LINE)


def test_completion_after_a_file_without_command_prints_nothing(sppe) -> None:
    sppe.tasks(first="pass")
    program = os.path.join(os.path.dirname(sys.executable), "sppe")
    env = sppe.environment(_SPPE_COMPLETE="bash_complete", COMP_WORDS="sppe flow.py ", COMP_CWORD="2")

    done = subprocess.run([program], cwd=sppe.folder, env=env, capture_output=True, text=True, check=False)

    assert done.stderr == ""
