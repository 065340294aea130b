"""Job script: submitit writes it, with a frame around the module that records its end."""

from __future__ import annotations

import importlib.resources
import math
import os
import re
import shlex
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.command import interpreter_options
from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.masking import Secrets
from airflow_provider_sewer.core.paths import OWN_FOLDER
from airflow_provider_sewer.core.secret_detection import is_secret, masked_words, secret_texts
from airflow_provider_sewer.core.trusted_files import read_own
from airflow_provider_sewer.slurm.job_directory import LARGEST_SAVED, JobDirectory
from airflow_provider_sewer.slurm.sbatch_options import (
    escaped_pattern,
    number_ranges,
    requeue_option,
    sbatch_script,
    with_warning_signal,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from airflow_provider_sewer.core.call import Call

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# bash reserves these: it refuses to set them, or forgets their value.
_BASH_OWN = frozenset(
    {
        "BASHOPTS", "BASHPID", "BASH_COMMAND", "BASH_SUBSHELL", "BASH_VERSINFO", "DIRSTACK",
        "EPOCHREALTIME", "EPOCHSECONDS", "EUID", "FUNCNAME", "GROUPS", "HISTCMD", "LINENO", "PPID", "RANDOM",
        "SECONDS", "SHELLOPTS", "SRANDOM", "UID",
    }
)  # fmt: skip
# Each process has its own; another process's value is useless to the module.
_OF_EACH_PROCESS = frozenset({"_", "OLDPWD", "PWD", "SHLVL"})
# The variables of the frame around the module.
_FRAME = "sewer_"
# Arguments that hold a secret; they are not exported.
_WORD = f"{_FRAME}word_"
# The line of the frame that holds the prefix of the command.
_BEFORE = "sewer_before=("
# Slurm from 23.02.3 on sets nothing of a login with --export=NIL. bash then has its own PATH, which may end in "."
# and is not exported; and a tilde is the home of the user where there is no HOME.
_WITHOUT_LOGIN = '''\
[[ $(declare -p PATH) == "declare -x"* ]] || PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
[[ -n $HOME ]] || { unset -v HOME; HOME=~; }
export PATH SHELL HOME USER="${USER:-$(command -p id -un)}"
export LOGNAME="${LOGNAME:-$USER}"'''
# Options of srun that redirect a stream, or change its bytes.
_OF_STREAM = {
    "stdin": re.compile(r"-i|--inp|--pty"),
    "stdout": re.compile(r"-o|-l|-u|--outp|--lab|--unb|--pty"),
}
#: Resources that take effect inside a job script, and so do not concern an array.
INSIDE = frozenset({"setup", "teardown", "use_srun", "srun_args", "stderr_to_stdout"})


class JobScript(NamedTuple):
    """Command of a job, with its resources.

    :param name: the job's name.
    :param call: the interpreter's command.
    :param python: path of the interpreter, or a name to look up on the node's PATH; if not set, ``python`` there, else
        ``python3``.
    :param workdir: the working directory on the node; the job directory if not set.
    :param env: variables of the job.
    :param secret_env: variables that are secret regardless of their names. The job removes these and all detected
        secrets from the disk as soon as it has read them.
    :param resources: Slurm parameters by submitit's names.
    :param requeue: whether Slurm may start the job again.
    :param grace: seconds between SIGTERM and SIGKILL when the attempt is cancelled through the job directory.
    :param in_array: whether it is run by an array task, and not submitted itself.
    :param orphan_timeout: seconds after which it ends itself if no process monitors it; 0 for never.
    :param active: the variables that describe the interpreter's environment, before ``setup`` is run.
    :param other_secrets: values that are secret wherever they occur in the call.
    """

    name: str
    call: Call
    python: str | None
    workdir: str | None
    env: Mapping[str, str]
    secret_env: Mapping[str, str]
    resources: Mapping[str, Any]
    requeue: bool
    grace: float
    in_array: bool = False
    orphan_timeout: float = 0.0
    active: Sequence[str] = ()
    other_secrets: Sequence[str] = ()

    def write(self, directory: JobDirectory) -> None:
        """Write script, variables and a function's arguments into the job directory.

        :raises InvalidTask: when submitit rejects a parameter, or bash a variable.
        """
        secret = {name: value for name, value in self.env.items() if is_secret(name, value)} | {**self.secret_env}
        secret = {name: value for name, value in secret.items() if name not in _OF_EACH_PROCESS}
        plain = {name: value for name, value in self.env.items() if name not in secret}
        argv = self.call.argv
        if self.call.kwargs is not None:
            argv = self.call.reading(directory.arguments).argv
            directory.write(directory.arguments, self.call.kwargs)
        streams = {name: path for name, path in (("stdin", self.call.stdin), ("stdout", self.call.stdout)) if path}
        given = [*interpreter_options(self.call), *argv, *streams.values()]
        secrets = Secrets([*secret_texts(secret), *self.secret_env.values(), *self.other_secrets])
        shown = masked_words(given, secrets)
        # The script takes arguments that hold a secret from variables.
        words = {index: word for index, word in enumerate(given) if word != shown[index]}
        python = _quoted(self.python) if self.python else '"$(command -v python || echo python3)"'
        quoted = [f'"${_WORD}{index}"' if index in words else _quoted(word) for index, word in enumerate(given)]
        end = len(given) - len(streams)
        files = [f"{_FRAME}{name}={path}" for name, path in zip(streams, quoted[end:], strict=True)]
        command = " ".join([*files, "sewer_run", python, *quoted[:end]])
        resources = {name: value for name, value in with_warning_signal(self.resources).items() if name not in INSIDE}
        resources.pop("array_parallelism", None)
        if "teardown" in self.resources:
            resources["teardown"] = _unix_lines(self.resources["teardown"])
        output, options = JobDirectory(escaped_pattern(directory.path)), requeue_option(self.requeue)
        setup = self._setup(directory, has_secrets=bool(secret or words))
        text = sbatch_script(directory, output, command, self.name, setup, resources, options)
        directory.write(directory.script, text)
        hidden = "".join(f"{_WORD}{index}={shlex.quote(word)}\n" for index, word in words.items())
        directory.write_variables(_exports(plain), _exports(secret) + hidden)

    def _setup(self, directory: JobDirectory, *, has_secrets: bool) -> list[str]:
        """Return the lines before the command."""
        given = self.resources
        srun = ["srun", *self._srun_options(), *given.get("srun_args", ())] if given.get("use_srun") else []
        _reject_redirected_srun(self.call, srun)
        settings = {
            "sewer_dir": directory.path,
            "sewer_owned": _owned(directory),
            "sewer_attempt": self.name,
            "sewer_workdir": self.workdir or directory.path,
            "sewer_grace": str(math.ceil(self.grace)),
            "sewer_requeue": str(int(self.requeue)),
            "sewer_has_secrets": str(int(has_secrets)),
            "sewer_in_array": str(int(self.in_array)),
            "sewer_is_staged": str(int(OWN_FOLDER in (self.call.stdout or "").split(os.sep))),
            "sewer_orphan_timeout": str(math.ceil(self.orphan_timeout)),
        }
        frame = _frame(settings, srun) + _activation(self.python, self.active)
        # With `set -k` in `setup`, bash would take an argument such as a=b for a variable. The empty line is for a
        # `setup` that ends in "\\".
        setup = [frame, *_unix_lines(given.get("setup", ())), "", "builtin set +k"]
        if given.get("login_environment") is False:
            setup.insert(0, _WITHOUT_LOGIN)
        if given.get("stderr_to_stdout"):
            setup.insert(1, "exec 2>&1")
        return setup

    def _srun_options(self) -> tuple[str, ...]:
        """Return the options of srun; unbuffered, it gives the module a terminal, which is not for a file."""
        return ("--unbuffered",) if self.call.stdout is None else ()


class ArrayScript(NamedTuple):
    """Script of an array for sbatch: each element runs the job script that its number leads to.

    :param name: the array's name.
    :param numbers: the numbers of its elements. In the array's folder, each is the name of a link to the job directory
        with the element's script.
    :param resources: Slurm parameters by submitit's names; those that concern a job script are left to it.
    :param requeue: whether Slurm may start an element again.
    """

    name: str
    numbers: Sequence[int]
    resources: Mapping[str, Any]
    requeue: bool

    def write(self, directory: JobDirectory) -> None:
        """Write it into the array's folder.

        :raises InvalidTask: when submitit rejects a parameter.
        """
        resources = {name: value for name, value in self.resources.items() if name not in INSIDE}
        most = resources.pop("array_parallelism", None)
        text = sbatch_script(
            directory,
            JobDirectory(f"{escaped_pattern(directory.path)}/%a"),
            'exec /bin/bash "$sewer_dir/job.sh"',
            self.name,
            [
                f"sewer_array={_quoted(directory.path)}",
                f"sewer_owned={_quoted(_owned(directory))}",
                _shell_text("tools.bash"),
                _shell_text("own.bash"),
                _shell_text("array.bash"),
            ],
            resources,
            {"array": number_ranges(self.numbers) + (f"%{most}" if most else ""), **requeue_option(self.requeue)},
        )
        directory.write(directory.script, text)


def runs_srun(directory: JobDirectory) -> bool:
    """Return whether the job script in a job directory runs its command under srun."""
    try:
        script = read_own(directory.script, largest=LARGEST_SAVED)
    except OSError:
        return False
    return f"\n{_BEFORE}srun".encode() in script


def can_set(name: str) -> bool:
    """Return whether bash can set a variable of this name."""
    return bool(_IDENTIFIER.fullmatch(name)) and name not in _BASH_OWN and not name.startswith(_FRAME)


def checked_variables(names: Collection[str]) -> None:
    """Check that bash can set variables of these names.

    :raises InvalidTask: with the invalid name.
    """
    for name in names:
        if not can_set(name):
            raise InvalidTask(
                f"env: {name!r} is not a valid variable name for a job script; use letters, digits and underscores, no "
                "leading digit, and no name that bash or sewer reserves"
            )


def _reject_redirected_srun(call: Call, srun: Sequence[str]) -> None:
    """Reject options by which srun would redirect or change a stream that is a file.

    :raises InvalidTask: naming the option.
    """
    for stream, path in (("stdin", call.stdin), ("stdout", call.stdout)):
        found = next((word for word in srun if _OF_STREAM[stream].match(word)), None) if path else None
        if found is not None:
            raise InvalidTask(f"srun_args must not contain {found!r} in a task with {stream}; remove one")


def _frame(settings: Mapping[str, str], before: Sequence[str]) -> str:
    """Return the lines around the module.

    :param settings: the variables of the frame.
    :param before: the prefix of the command.
    """
    values = "\n".join(f"{name}={_quoted(value)}" for name, value in settings.items())
    return f"{values}\n{_BEFORE}{_joined(before)})\n" + "\n".join(
        map(_shell_text, ("tools.bash", "own.bash", "usage.bash", "job.bash"))
    )


def _activation(python: str | None, active: Sequence[str]) -> str:
    """Return the lines that put the interpreter's folder on PATH; a bare name is looked up after ``setup``."""
    if not python or os.sep not in python or not active:
        return ""
    return f"\nsewer_python={_quoted(python)}\nsewer_active=({_joined(active)})\n{_shell_text('activate.bash')}"


def _owned(directory: JobDirectory) -> str:
    """Return the owner and the mode of a folder that was checked to be this user's own."""
    status = os.lstat(directory.path)
    return f"{status.st_uid} {stat.S_IMODE(status.st_mode):o}"


def _exports(env: Mapping[str, str]) -> str:
    checked_variables(env)
    return "".join(
        f"export {name}={shlex.quote(value)}\n" for name, value in env.items() if name not in _OF_EACH_PROCESS
    )


def _quoted(word: str) -> str:
    """Quote a word for bash; sbatch rejects a script with a carriage return before a newline."""
    return "$'\\r'".join(map(shlex.quote, word.split("\r")))


def _joined(words: Iterable[str]) -> str:
    return " ".join(map(_quoted, words))


def _unix_lines(lines: Iterable[str]) -> list[str]:
    return [line.replace("\r\n", "\n") for line in lines]


def _shell_text(name: str) -> str:
    return importlib.resources.files("airflow_provider_sewer.slurm").joinpath(name).read_text(encoding="utf-8")
