"""Job script: submitit writes it, with a frame around the module that records its end."""

from __future__ import annotations

import importlib.resources
import math
import os
import re
import shlex
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.masking import Secrets
from airflow_provider_sewer.core.secret_detection import is_secret, masked_words, secret_texts
from airflow_provider_sewer.core.trusted_files import read_own
from airflow_provider_sewer.slurm.job_directory import LARGEST_SAVED, JobDirectory

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from airflow_provider_sewer.core.call import Call

# submitit's defaults where a field is not set: five minutes, one node, its own name as the key for accounts.
_NO_DEFAULTS = {"time": None, "nodes": None, "wckey": None, "use_srun": False}
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# submitit's text for its own jobs: its mark before the command, and in the head of the script the request for a signal
# before the time limit, of which a plain module dies.
_MARK = "export SUBMITIT_EXECUTOR=slurm\n"
_WARNING = re.compile(r"^#SBATCH --signal=.*\n", re.MULTILINE)
# submitit's prefix of each option in the head of the script, and the end of that head.
_OPTION = "#SBATCH "
_SETUP = "\n\n# setup\n"
# Options that sbatch reads as they are.
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
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
        argv = self.call.reading(directory.arguments).argv
        words = _secret_words(argv, Secrets([*secret_texts(secret), *self.secret_env.values(), *self.other_secrets]))
        python = _quoted(self.python) if self.python else '"$(command -v python || echo python3)"'
        quoted = [f'"${_WORD}{index}"' if index in words else _quoted(word) for index, word in enumerate(argv)]
        command = " ".join(["sewer_run", python, "-u", *quoted])
        directory.write_script(self._text(directory, command, has_secrets=bool(secret or words)))
        hidden = "".join(f"{_WORD}{index}={shlex.quote(word)}\n" for index, word in words.items())
        directory.write_variables(_exports(plain), _exports(secret) + hidden)
        if self.call.kwargs is not None:
            directory.write_arguments(self.call.kwargs)

    def _text(self, directory: JobDirectory, command: str, *, has_secrets: bool) -> str:
        resources = with_warning_signal(self.resources)
        srun_args, uses_srun = resources.pop("srun_args", ()), resources.pop("use_srun", False)
        srun = ["srun", "--unbuffered", *srun_args] if uses_srun else []
        settings = {
            "sewer_dir": directory.path,
            "sewer_owned": _owned(directory),
            "sewer_attempt": self.name,
            "sewer_workdir": self.workdir or directory.path,
            "sewer_grace": str(math.ceil(self.grace)),
            "sewer_requeue": str(int(self.requeue)),
            "sewer_has_secrets": str(int(has_secrets)),
            "sewer_in_array": str(int(self.in_array)),
            "sewer_orphan_timeout": str(math.ceil(self.orphan_timeout)),
        }
        frame = _frame(settings, srun) + _activation(self.python, self.active)
        # With `set -k` in `setup`, bash would take an argument such as a=b for a variable. The empty line is for a
        # `setup` that ends in "\\".
        setup = [frame, *_unix_lines(resources.pop("setup", ())), "", "builtin set +k"]
        if resources.get("login_environment") is False:
            setup.insert(0, _WITHOUT_LOGIN)
        if resources.pop("stderr_to_stdout", False):
            setup.insert(1, "exec 2>&1")
        if "teardown" in resources:
            resources["teardown"] = _unix_lines(resources["teardown"])
        resources.pop("array_parallelism", None)
        output = JobDirectory(_no_pattern(directory.path))
        return _sbatch_text(directory, output, command, self.name, setup, resources, _requeued(self.requeue))


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
        text = _sbatch_text(
            directory,
            JobDirectory(f"{_no_pattern(directory.path)}/%a"),
            'exec /bin/bash "$sewer_dir/job.sh"',
            self.name,
            [
                f"sewer_array={_quoted(directory.path)}",
                f"sewer_owned={_quoted(_owned(directory))}",
                _shell_text("own.bash"),
                _shell_text("array.bash"),
            ],
            resources,
            {"array": _ranges(self.numbers) + (f"%{most}" if most else ""), **_requeued(self.requeue)},
        )
        directory.write_script(text)


def with_warning_signal(resources: Mapping[str, Any]) -> dict[str, Any]:
    """Return resources with `signal_delay_s` as an option of sbatch, so that the signal reaches the module.

    Slurm sends the signal of ``--signal`` to job steps only, or with ``B:`` to the batch shell only (manual page of
    sbatch). Without srun there are no steps; the job script passes the signal on.

    :param resources: parameters by submitit's names, including `use_srun`.
    """
    resources = dict(resources)
    delay = resources.pop("signal_delay_s", None)
    if delay is not None:
        prefix = "" if resources.get("use_srun") else "B:"
        signal = {"signal": f"{prefix}USR2@{delay}"}
        resources["additional_parameters"] = {**signal, **(resources.get("additional_parameters") or {})}
    return resources


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


def _secret_words(argv: Sequence[str], secrets: Secrets) -> dict[int, str]:
    """Return the arguments that hold a secret, by their indices; the script takes them from variables."""
    shown = masked_words(argv, secrets)
    return {index: word for index, (word, masked) in enumerate(zip(argv, shown, strict=True)) if word != masked}


def _frame(settings: Mapping[str, str], before: Sequence[str]) -> str:
    """Return the lines around the module.

    :param settings: the variables of the frame.
    :param before: the prefix of the command.
    """
    values = "\n".join(f"{name}={_quoted(value)}" for name, value in settings.items())
    return f"{values}\n{_BEFORE}{_joined(before)})\n" + "\n".join(
        map(_shell_text, ("own.bash", "usage.bash", "job.bash"))
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


def _ranges(numbers: Sequence[int]) -> str:
    """Format sorted numbers for sbatch: ``0-4,7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)


def _requeued(requeue: bool) -> dict[str, Any]:
    return {"requeue" if requeue else "no-requeue": True}


def _shell_text(name: str) -> str:
    return importlib.resources.files("airflow_provider_sewer.slurm").joinpath(name).read_text(encoding="utf-8")


def _sbatch_text(
    directory: JobDirectory,
    output: JobDirectory,
    command: str,
    name: str,
    setup: Sequence[str],
    resources: Mapping[str, Any],
    more: Mapping[str, Any],
) -> str:
    """Return a script that submitit has written.

    :param directory: the working directory of the script.
    :param output: the folder of its output, in which sbatch fills in placeholders.
    :param resources: parameters by submitit's names.
    :param more: options of sbatch that precede all others.
    """
    from submitit.slurm.slurm import SlurmExecutor

    class Executor(SlurmExecutor):
        """Writes a script around a command without submitit: the node does not need it."""

        @classmethod
        def affinity(cls) -> int:
            return 2  # srun need not exist where the script is only written

        @property
        def _submitit_command_str(self) -> str:
            return command

    parameters = dict(resources)
    has_login = parameters.pop("login_environment", True)
    # submitit takes both spellings of an amount of memory for gigabytes; as one of its additional parameters, Slurm's
    # own stays unchanged (facebookincubator/submitit#1761).
    memory = {"mem": parameters.pop("mem")} if parameters.get("mem") is not None else {}
    additional = {
        "propagate": "NONE",  # the worker's resource limits do not apply to the job
        **memory,
        **parameters.pop("additional_parameters", {}),
        "output": output.stdout,
        "error": output.stderr,
        "chdir": directory.path,
        "export": "NONE" if has_login else "NIL",
        **more,
    }
    parameters |= {"name": name, "setup": setup, "additional_parameters": additional}
    executor = Executor(directory.path)
    try:
        executor.update_parameters(**{**_NO_DEFAULTS, **executor._convert_parameters(parameters)})
    except (TypeError, ValueError) as error:
        raise InvalidTask(f"slurm: {error}") from None
    text = executor._make_submission_file_text(executor._submitit_command_str, "").replace(_MARK + command, command)
    if "signal" not in additional:
        text = _WARNING.sub("", text, count=1)
    head, begin, body = text.partition(_SETUP)
    return "\n".join(map(_quoted_for_sbatch, head.split("\n"))) + begin + body


def _quoted_for_sbatch(line: str) -> str:
    """Return a line of the script's head in sbatch's syntax.

    submitit quotes an option for a shell. sbatch has its own parser (``get_argument()`` in its ``opt.c``, the same from
    22.05 to 26.05), in which a backslash escapes the next character within quotes too.
    """
    if not line.startswith(_OPTION):
        return line
    (option,) = shlex.split(line.removeprefix(_OPTION))
    if _PLAIN.fullmatch(option):
        return _OPTION + option
    name, equals, value = option.partition("=")
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{_OPTION}{name}{equals}'{escaped}'"


def _no_pattern(path: str) -> str:
    """Return a path in which sbatch does not expand a percent sign."""
    return path.replace("%", "%%")
