"""Options of sbatch in the head of a script, which submitit writes."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import InvalidTask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_sewer.slurm.job_directory import JobDirectory

# submitit's defaults where a field is not set: five minutes, one node, its own name as the key for accounts.
_NO_DEFAULTS = {"time": None, "nodes": None, "wckey": None, "use_srun": False}
# submitit's text for its own jobs: its mark before the command, and in the head of the script the request for a signal
# before the time limit, of which a plain module dies.
_MARK = "export SUBMITIT_EXECUTOR=slurm\n"
_WARNING = re.compile(r"^#SBATCH --signal=.*\n", re.MULTILINE)
# submitit's prefix of each option in the head of the script, and the end of that head.
_OPTION = "#SBATCH "
_SETUP = "\n\n# setup\n"
# Options that sbatch reads as they are.
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")


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


def number_ranges(numbers: Sequence[int]) -> str:
    """Format sorted numbers for sbatch: ``0-4,7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)


def requeue_option(requeue: bool) -> dict[str, Any]:
    """Return the option that allows Slurm to start a job again, or forbids it."""
    return {"requeue" if requeue else "no-requeue": True}


def sbatch_script(
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


def escaped_pattern(path: str) -> str:
    """Return a path in which sbatch does not expand a percent sign."""
    return path.replace("%", "%%")
