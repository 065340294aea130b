"""Parameters of Slurm jobs, as ``slurm={…}`` gives them to sbatch by submitit's names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Callable

from airflow_provider_sewer.core.errors import InvalidTask, Key, unknown_name
from airflow_provider_sewer.core.placeholders import as_text
from airflow_provider_sewer.core.size_limits import MAX_NUMBER, bounded_list, invalid_reason
from airflow_provider_sewer.core.templates import is_template

#: Groups of parameters that exclude each other, as synonyms or because sbatch rejects both. Within a group, the
#: parameter of the highest precedence counts.
_ONE_OF = (
    ("name", "job_name"),
    ("timeout_min", "time"),
    ("tasks_per_node", "ntasks_per_node"),
    ("mem_gb", "mem", "mem_per_cpu", "mem_per_gpu"),
    ("cpus_per_task", "cpus_per_gpu"),
)

#: Pairs of these that mean the same, in other units.
_SYNONYMS = (("timeout_min", "time"), ("tasks_per_node", "ntasks_per_node"), ("mem_gb", "mem"))

#: The same groups by sbatch's long names, and further ones.
_SAME_OPTIONS = (
    *(tuple(name.replace("_", "-") for name in group) for group in _ONE_OF),
    ("gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket", "gres"),
    ("signal", "signal-delay-s"),
)

#: Options of sbatch that this package sets itself, or that would keep it from finding the job again.
RESERVED = (
    "output", "error", "open-mode", "export", "export-file", "job-name", "array", "requeue", "no-requeue", "chdir",
    "wait", "parsable", "quiet", "test-only", "wrap", "clusters", "help", "usage", "version",
)  # fmt: skip

#: Digits of a number in a text; 64 bits hold each of these.
_DIGITS = "[0-9]{1,18}"
_MEMORY = re.compile(rf"{_DIGITS}([KMGT]B?)?", re.IGNORECASE | re.ASCII)
_TIME = re.compile(rf"({_DIGITS}-)?{_DIGITS}(:{_DIGITS}){{0,2}}|UNLIMITED|INFINITE", re.IGNORECASE | re.ASCII)
_GPUS = re.compile(rf"([A-Za-z][\w.-]*:)?{_DIGITS}")
_OPTION = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_LINE_BREAKS = "\n\r\x85\u2028\u2029"
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
#: Limit of Slurm's controller for most texts, in bytes (``_test_strlen()`` in its ``job_mgr.c``, 22.05 to 26.05).
_LONGEST_TEXT = 1024

#: Output options of srun in all their forms (manual page of srun): -o, --output, -e, --error, also behind options
#: without a value, as in -le.
_REDIRECTS = re.compile(r"-[EHlOQsuvXZ]*[oe]|--(ou|er)")

#: Minimum of ``mem_gb``: Slurm counts in megabytes, and 0 means all memory of a node.
_ONE_MEGABYTE = 1 / 1024


def checked_slurm(slurm: Any) -> dict[str, Any]:
    """Return a checked copy of the parameters of a job.

    Numbers may be texts, as rendered templates are; templates pass.

    :raises InvalidTask: for an unknown name, a value that Slurm rejects, or two that exclude each other.
    """
    if slurm is None:
        return {}
    if not isinstance(slurm, Mapping):
        raise InvalidTask(f"slurm must be a mapping of parameters, got {type(slurm).__name__}", at=("slurm",))
    checked = {name: _parameter(name, as_text(value)) for name, value in slurm.items()}
    for group in _ONE_OF:
        given = [name for name in group if checked.get(name) is not None]
        if len(given) > 1:
            message = f"slurm: {' and '.join(map(repr, given))} exclude each other; keep one of them"
            raise InvalidTask(message, at=("slurm", Key(given[1])))
    return checked


def merged(high: Mapping[str, Any], low: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of ``high``, completed by those of ``low`` that they do not exclude.

    A ``None`` stays, so that it also removes the values of places that are merged later.
    """
    given = set(high).union(*(group for group in _ONE_OF if not high.keys().isdisjoint(group)))
    return {**{name: value for name, value in low.items() if name not in given}, **high}


def with_options(slurm: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters, completed by options of sbatch of the lowest precedence.

    :param options: values by sbatch's long names; ``True`` for an option without a value.
    :raises InvalidTask: when an option is not valid.
    """
    parameters = dict(slurm)
    more = dict(parameters.get("additional_parameters") or {})
    given = {name.replace("_", "-") for name in (*parameters, *more)}
    for name, value in options.items():
        group = next((set(group) for group in _SAME_OPTIONS if name in group), {name})
        if not group.isdisjoint(given):
            continue
        parameter = name.replace("-", "_")
        if parameter in _CHECKS:
            parameters[parameter] = _parameter(parameter, value)
        else:
            more |= _parameter("additional_parameters", {name: value})
    return {**parameters, "additional_parameters": more} if more else parameters


def same_meaning(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of a parameter with the same meaning, its own included, and other names that exclude it."""
    synonyms = next((pair for pair in _SYNONYMS if name in pair), (name,))
    group = next((group for group in _ONE_OF if name in group), ())
    return synonyms, tuple(other for other in group if other not in synonyms)


def checked_parameter(name: str, value: Any) -> Any:
    """Return the checked value of a parameter.

    :raises InvalidTask: naming the parameter.
    """
    return _parameter(name, as_text(value))


def _parameter(name: Any, value: Any) -> Any:
    if name not in _CHECKS:
        message = f"slurm: {unknown_name('Slurm parameter', name, RESOURCES, most=len(RESOURCES))}"
        raise InvalidTask(message, at=("slurm", Key(name)))
    if value is None:
        return None
    try:
        return _CHECKS[name](value)
    except InvalidTask as error:
        raise InvalidTask(with_subject(f"slurm: {name}", error), at=("slurm", name, *error.at)) from None


def with_subject(name: str, error: InvalidTask) -> str:
    """Return the message of an error, with the name of the value in front."""
    message = str(error)
    return f"{name} {message}" if message.startswith("must ") else f"{name}: {message}"


def _line(value: Any) -> str:
    """Check text for a line of the job script: a line break in it would start another line."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidTask(f"must be text, got {value!r:.200}")
    if reason := invalid_reason(value):
        raise InvalidTask(f"the text {reason}")
    if character := unprintable(value):
        raise InvalidTask(f"must not contain {character}, got {value!r}; remove it")
    return value


def unprintable(text: str) -> str | None:
    """Return a description of the first character that sbatch options and Slurm's output cannot contain, if any."""
    if not (found := _UNPRINTABLE.search(text)):
        return None
    return "a line break" if found[0] in _LINE_BREAKS else f"the control character {found[0]!r}"


def _text(value: Any) -> str:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return _line(str(value) if is_number else value)  # an account may be written as a number


def _short(value: Any) -> str:
    """Check text of at most 1,024 bytes, the limit of Slurm's controller."""
    text = _text(value)
    if not is_template(text) and (size := len(os.fsencode(text))) > _LONGEST_TEXT:
        raise InvalidTask(f"must have at most {_LONGEST_TEXT:,} bytes, got {size:,}; shorten it")
    return text


def _number(value: Any) -> int | float:
    number = value
    if isinstance(value, str):
        try:
            number = float(value) if not value.strip().isdecimal() else int(value)
        except ValueError:
            number = None
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not abs(number) <= MAX_NUMBER:
        raise InvalidTask(f"must be a number, got {value!r:.200}")
    return number


def _count(least: int) -> Callable[[Any], int | str]:
    def check(value: Any) -> int | str:
        if is_template(value):
            return _line(value)
        number = _number(value)
        if number != int(number) or number < least:
            raise InvalidTask(f"must be a whole number of at least {least}, got {value!r:.200}")
        return int(number)

    return check


def _gigabytes(value: Any) -> int | float | str:
    if is_template(value):
        return _line(value)
    number = _number(value)
    if number < _ONE_MEGABYTE:
        raise InvalidTask(f"must be at least one megabyte, in gigabytes, got {value!r:.200}")
    return number


def _formed(form: re.Pattern[str], example: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        text = _text(value)
        if not is_template(text) and not form.fullmatch(text):
            raise InvalidTask(f"must have a form that Slurm reads, such as {example}; got {value!r:.200}")
        return text

    return check


def _gpus(value: Any) -> int | str:
    """Check a number of GPUs, or numbers by type: ``"a100:2,v100:1"``."""
    text = _text(value)
    if re.fullmatch(_DIGITS, text):
        return int(text)
    if not is_template(text) and not all(_GPUS.fullmatch(part) for part in text.split(",")):
        raise InvalidTask(f"must be a number of at least 0, or 'type:number', got {value!r:.200}")
    return text


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidTask(f"must be a bool, got {value!r:.200}")
    return value


def _exclusive(value: Any) -> bool | str | None:
    """Check ``True`` or a kind such as ``"user"``; ``False`` omits the option, as sbatch has no value for it."""
    return _text(value) if isinstance(value, str) else True if _flag(value) else None


def _list(value: Any) -> list[Any]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        found = "a single text; put it into brackets" if isinstance(value, str) else repr(value)
        raise InvalidTask(f"must be a list of texts, got {found}")
    return bounded_list("a list", value)


def checked_texts(value: Any) -> list[str]:
    """Return a list of texts without line breaks.

    :raises InvalidTask: for anything else.
    """
    return [_at(index, _line, word) for index, word in enumerate(_list(value))]


def _srun_arguments(value: Any) -> list[str]:
    """Check options of srun; the output of the step must stay in the files of the job, which hold its exit record."""
    texts = checked_texts(value)
    for index, text in enumerate(texts):
        if _REDIRECTS.match(text):
            raise InvalidTask(
                f"must not redirect the output, got {text!r:.200}; leave it out: the output is in the task's log",
                at=(index,),
            )
    return texts


def _at(key: Any, check: Callable[[Any], Any], value: Any) -> Any:
    """Check an element of a parameter, and add its key to the location of an error."""
    try:
        return check(value)
    except InvalidTask as error:
        raise InvalidTask(str(error), at=(key, *error.at)) from None


def _script(value: Any) -> list[str]:
    """Check lines of shell script."""
    return [_at(index, _command, line) for index, line in enumerate(_list(value))]


def _command(line: Any) -> str:
    if not isinstance(line, str):
        raise InvalidTask(f"must be a list of texts, got one with {line!r}")
    if "\0" in line:
        raise InvalidTask(f"must not contain a NUL byte, got {line!r}; remove it")
    if any(part.lstrip().startswith("#SBATCH") for part in line.splitlines()):
        raise InvalidTask(f"must be commands, got {line!r}; options of sbatch belong into additional_parameters")
    return line


def _options(value: Any) -> dict[str, Any]:
    """Check further options of sbatch."""
    if not isinstance(value, Mapping):
        raise InvalidTask(f"must be a mapping of sbatch options, got {type(value).__name__}")
    return {_at(Key(name), _option, name): _option_value(name, setting) for name, setting in value.items()}


def _option(name: Any) -> str:
    if not isinstance(name, str) or not _OPTION.fullmatch(name):
        raise InvalidTask(f"{name!r} is not a valid name of an sbatch option; write it without leading dashes")
    # sbatch accepts abbreviated options.
    matches = [option for option in RESERVED if option.startswith(name.replace("_", "-").lower())]
    if matches:
        raise InvalidTask(f"must not contain {name!r}; sbatch's option --{matches[0]} is set by this package")
    return name


def _option_value(name: str, value: Any) -> Any:
    if value is True or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return value
    try:
        return _line(value)
    except InvalidTask as error:
        message = f"{with_subject(name, error)}; give text, a number, or True for an option without a value"
        raise InvalidTask(message, at=(name,)) from None


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "name": _text,
    "job_name": _text,
    "partition": _short,
    "account": _short,
    "qos": _short,
    "timeout_min": _count(1),
    "time": _formed(_TIME, "90 (minutes), '1:30:00' or '2-12'"),
    "nodes": _count(1),
    "tasks_per_node": _count(1),
    "ntasks_per_node": _count(1),
    "cpus_per_task": _count(1),
    "cpus_per_gpu": _count(1),
    "gpus_per_node": _gpus,
    "gpus_per_task": _gpus,
    "mem_gb": _gigabytes,
    "mem": _formed(_MEMORY, "'4G' or '500M'"),
    "mem_per_cpu": _formed(_MEMORY, "'4G' or '500M'"),
    "mem_per_gpu": _formed(_MEMORY, "'4G' or '500M'"),
    "gres": _text,
    "constraint": _short,
    "nodelist": _text,
    "exclude": _text,
    "exclusive": _exclusive,
    "dependency": _text,
    "comment": _short,
    "wckey": _short,
    "mail_type": _text,
    "mail_user": _short,
    "setup": _script,
    "teardown": _script,
    "use_srun": _flag,
    "srun_args": _srun_arguments,
    "stderr_to_stdout": _flag,
    "login_environment": _flag,
    "signal_delay_s": _count(0),
    "array_parallelism": _count(1),
    "additional_parameters": _options,
}

#: The names that ``slurm={…}`` takes: submitit's, and ``login_environment``, which chooses between sbatch's
#: ``--export=NONE`` and ``--export=NIL``.
RESOURCES: tuple[str, ...] = tuple(_CHECKS)
