"""The job script: submitit writes it, with a frame around the module that records its end."""

from __future__ import annotations

import importlib.resources
import re
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.secrecy import looks_secret

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from airflow_provider_sewer.runners.slurm.run_directory import RunDirectory

# What submitit says where nobody has said anything: five minutes, one node, its own name as the key for accounts.
_NO_DEFAULTS = {"time": None, "nodes": None, "wckey": None, "use_srun": False}
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# bash keeps these for itself and refuses to set them.
_BASH_OWN = frozenset({"BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID"})


class JobScript(NamedTuple):
    """What a job runs, and what it asks Slurm for.

    :param name: the job's name.
    :param module: dotted name of the module.
    :param arguments: its arguments.
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
    module: str
    arguments: Sequence[str]
    python: str | None
    workdir: str | None
    env: Mapping[str, str]
    secret_env: Mapping[str, str]
    resources: Mapping[str, Any]
    requeue: bool
    grace: float

    def write(self, directory: RunDirectory) -> None:
        """Write script and variables into the run directory.

        :raises InvalidTask: when submitit refuses a parameter, or bash a variable.
        """
        secret = {**{key: value for key, value in self.env.items() if looks_secret(key)}, **self.secret_env}
        plain = {key: value for key, value in self.env.items() if key not in secret}
        directory.write_script(self._text(directory))
        directory.write_variables(_exports(plain), _exports(secret))

    def _text(self, directory: RunDirectory) -> str:
        resources = {name: value for name, value in self.resources.items() if value is not None}
        setup = [self._frame(directory), *resources.pop("setup", ())]
        additional = {
            **resources.pop("additional_parameters", {}),
            "output": _no_pattern(directory.stdout),
            "error": _no_pattern(directory.stderr),
            "chdir": directory.path,
            "export": "NONE",
            "requeue" if self.requeue else "no-requeue": True,
        }
        uses_srun = resources.pop("use_srun", False)
        srun = shlex.join(["srun", "--unbuffered", *resources.pop("srun_args", ())]) if uses_srun else ""
        text = _sbatch_text(
            directory.path,
            f"sewer_run {srun} {self._command()}",
            {**resources, "name": self.name, "setup": setup, "additional_parameters": additional},
        )
        return _without_submitits_own(text, keeps_signal="signal_delay_s" in resources or "signal" in additional)

    def _frame(self, directory: RunDirectory) -> str:
        said = {
            "sewer_dir": directory.path,
            "sewer_attempt": self.name,
            "sewer_workdir": self.workdir or directory.path,
            "sewer_grace": f"{self.grace:g}",
            "sewer_requeue": str(int(self.requeue)),
        }
        values = "\n".join(f"{name}={shlex.quote(value)}" for name, value in said.items())
        package = importlib.resources.files("airflow_provider_sewer.runners.slurm")
        return f"{values}\n{package.joinpath('job.bash').read_text(encoding='utf-8')}"

    def _command(self) -> str:
        python = shlex.quote(self.python) if self.python else '"$(command -v python || echo python3)"'
        return f"{python} {shlex.join(['-u', '-m', self.module, *self.arguments])}"


def checked_variables(names: Collection[str]) -> None:
    """Say which of these names bash cannot set.

    :raises InvalidTask: naming it.
    """
    for name in names:
        if not _IDENTIFIER.fullmatch(name) or name in _BASH_OWN:
            raise InvalidTask(
                f"env: {name!r} cannot be set in a job script; bash takes letters, digits and underscores"
            )


def _exports(env: Mapping[str, str]) -> str:
    checked_variables(env)
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in env.items())


def _sbatch_text(folder: str, command: str, parameters: Mapping[str, Any]) -> str:
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
    return executor._make_submission_file_text(executor._submitit_command_str, "")


def _without_submitits_own(text: str, *, keeps_signal: bool) -> str:
    """Drop what submitit writes for its own jobs: a warning signal that a plain module dies of, and its mark."""
    unwanted = (
        ("export SUBMITIT_EXECUTOR=slurm",) if keeps_signal else ("export SUBMITIT_EXECUTOR=slurm", "#SBATCH --signal=")
    )
    return "\n".join(line for line in text.split("\n") if not line.startswith(unwanted)) + "\n"


def _no_pattern(path: str) -> str:
    """Write a path so that sbatch does not take a percent sign in it for a placeholder."""
    return path.replace("%", "%%")
