"""The job script: submitit writes it, with a frame around the module that records its end."""

from __future__ import annotations

import importlib.resources
import math
import re
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.secrecy import looks_secret

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from airflow_provider_sewer.core.function import Call
    from airflow_provider_sewer.runners.slurm.run_directory import RunDirectory

# What submitit says where nobody has said anything: five minutes, one node, its own name as the key for accounts.
_NO_DEFAULTS = {"time": None, "nodes": None, "wckey": None, "use_srun": False}
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What submitit writes for its own jobs: its mark before the command, and in the head of the script the
# wish for a signal before the time limit, of which a plain module dies.
_MARK = "export SUBMITIT_EXECUTOR=slurm\n"
_WARNING = re.compile(r"^#SBATCH --signal=.*\n", re.MULTILINE)
# bash keeps these for itself: it refuses to set them, or forgets what they were set to.
_BASH_OWN = frozenset(
    {
        "BASHOPTS", "BASHPID", "BASH_COMMAND", "BASH_SUBSHELL", "BASH_VERSINFO", "DIRSTACK",
        "EPOCHREALTIME", "EPOCHSECONDS", "EUID", "FUNCNAME", "GROUPS", "HISTCMD", "LINENO", "PPID", "RANDOM",
        "SECONDS", "SHELLOPTS", "SRANDOM", "UID",
    }
)  # fmt: skip
# Each process has its own; a value of somebody else's is of no use to the module.
_OF_EACH_PROCESS = frozenset({"_", "OLDPWD", "PWD", "SHLVL"})
# The variables of the frame around the module.
_FRAME = "sewer_"


class JobScript(NamedTuple):
    """What a job runs, and what it asks Slurm for.

    :param name: the job's name.
    :param call: what the interpreter is asked to run.
    :param python: path of the interpreter, or a name to look up on the node's PATH; ``python``, else
        ``python3`` there if not said.
    :param workdir: the working directory on the node; the run directory if not said.
    :param env: variables to give.
    :param secret_env: more variables, which the job forgets on disk as soon as it has read them.
    :param resources: Slurm parameters by submitit's names.
    :param requeue: whether Slurm may start the job once more.
    :param grace: seconds between SIGTERM and SIGKILL when the run directory says that the job is to end.
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

    def write(self, directory: RunDirectory) -> None:
        """Write script, variables and a function's arguments into the run directory.

        :raises InvalidTask: when submitit refuses a parameter, or bash a variable.
        """
        secret = self._secret()
        plain = {name: value for name, value in self.env.items() if name not in secret}
        directory.write_script(self._text(directory))
        directory.write_variables(_exports(plain), _exports(secret))
        if self.call.kwargs is not None:
            directory.write_arguments(self.call.kwargs)

    def _text(self, directory: RunDirectory) -> str:
        resources = {name: value for name, value in self.resources.items() if value is not None}
        srun_args, uses_srun = resources.pop("srun_args", ()), resources.pop("use_srun", False)
        srun = ["srun", "--unbuffered", *srun_args] if uses_srun else []
        # With `set -k` in `setup`, an argument such as a=b would be none; the empty line is for one that ends in "\\".
        setup = [self._frame(directory, srun), *_unix_lines(resources.pop("setup", ())), "", "builtin set +k"]
        if resources.pop("stderr_to_stdout", False):
            setup.insert(1, "exec 2>&1")
        if "teardown" in resources:
            resources["teardown"] = _unix_lines(resources["teardown"])
        additional = {
            "propagate": "NONE",  # the worker's own resource limits are nothing to the job
            **resources.pop("additional_parameters", {}),
            "output": _no_pattern(directory.stdout),
            "error": _no_pattern(directory.stderr),
            "chdir": directory.path,
            "export": "NONE",
            "requeue" if self.requeue else "no-requeue": True,
        }
        return _sbatch_text(
            directory.path,
            f"sewer_run {self._command(directory)}",
            {**resources, "name": self.name, "setup": setup, "additional_parameters": additional},
            keeps_signal="signal_delay_s" in resources or "signal" in additional,
        )

    def _frame(self, directory: RunDirectory, before: Sequence[str]) -> str:
        said = {
            "sewer_dir": directory.path,
            "sewer_attempt": self.name,
            "sewer_workdir": self.workdir or directory.path,
            "sewer_grace": str(math.ceil(self.grace)),
            "sewer_requeue": str(int(self.requeue)),
            "sewer_has_secrets": str(int(bool(self._secret()))),
        }
        values = "\n".join(f"{name}={_quoted(value)}" for name, value in said.items())
        package = importlib.resources.files("airflow_provider_sewer.runners.slurm")
        values += f"\nsewer_before=({_joined(before)})"
        return f"{values}\n{package.joinpath('job.bash').read_text(encoding='utf-8')}"

    def _command(self, directory: RunDirectory) -> str:
        python = _quoted(self.python) if self.python else '"$(command -v python || echo python3)"'
        return f"{python} {_joined(['-u', *self.call.reading(directory.arguments).argv])}"

    def _secret(self) -> dict[str, str]:
        """Return the variables that are secret: those that somebody called so, and those whose name does."""
        secret = {**{name: value for name, value in self.env.items() if looks_secret(name)}, **self.secret_env}
        return {name: value for name, value in secret.items() if name not in _OF_EACH_PROCESS}


def can_set(name: str) -> bool:
    """Tell whether bash can set a variable of this name."""
    return bool(_IDENTIFIER.fullmatch(name)) and name not in _BASH_OWN and not name.startswith(_FRAME)


def checked_variables(names: Collection[str]) -> None:
    """Say which of these names bash cannot set.

    :raises InvalidTask: naming it.
    """
    for name in names:
        if not can_set(name):
            raise InvalidTask(
                f"env: {name!r} cannot be set in a job script; bash takes letters, digits and underscores"
            )


def _exports(env: Mapping[str, str]) -> str:
    checked_variables(env)
    return "".join(
        f"export {name}={shlex.quote(value)}\n" for name, value in env.items() if name not in _OF_EACH_PROCESS
    )


def _quoted(word: str) -> str:
    """Quote a word for bash; sbatch refuses a script that holds a carriage return before a newline."""
    return "$'\\r'".join(map(shlex.quote, word.split("\r")))


def _joined(words: Iterable[str]) -> str:
    return " ".join(map(_quoted, words))


def _unix_lines(lines: Iterable[str]) -> list[str]:
    return [line.replace("\r\n", "\n") for line in lines]


def _sbatch_text(folder: str, command: str, parameters: Mapping[str, Any], *, keeps_signal: bool) -> str:
    from submitit.slurm.slurm import SlurmExecutor

    class Executor(SlurmExecutor):
        """Writes a script around a command of ours: nothing of submitit is needed on the node."""

        @classmethod
        def affinity(cls) -> int:
            return 2  # srun is not needed where the script is only written

        @property
        def _submitit_command_str(self) -> str:
            return command

    executor = Executor(folder)
    try:
        executor.update_parameters(**{**_NO_DEFAULTS, **executor._convert_parameters(dict(parameters))})
    except (TypeError, ValueError) as error:
        raise InvalidTask(f"slurm: {error}") from None
    text = executor._make_submission_file_text(executor._submitit_command_str, "").replace(_MARK + command, command)
    return text if keeps_signal else _WARNING.sub("", text, count=1)


def _no_pattern(path: str) -> str:
    """Write a path so that sbatch does not take a percent sign in it for a placeholder."""
    return path.replace("%", "%%")
