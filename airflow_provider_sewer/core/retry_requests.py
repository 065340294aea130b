"""Requests of retries: which Slurm parameters the next attempt asks for, by the failure of the one before.

``retry_with`` maps the name of an error to changes of parameters: a number multiplies the requested amount, a text
replaces the value. ``exclude_node`` excludes the node of the failed job, ``tries`` gives tries that do not count as
Airflow's retries, and ``max`` limits the amounts::

    {"SlurmOutOfMemory": {"mem_gb": 2.0}, "SlurmNodeFailure": {"exclude_node": True}, "max": {"mem_gb": 256}}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from airflow_provider_sewer.core import errors
from airflow_provider_sewer.core.errors import InvalidTask, Key, SlurmRequestLimit, key_of, unknown_name
from airflow_provider_sewer.core.slurm_amounts import AMOUNTS, amount_of, multiplied, with_amount
from airflow_provider_sewer.core.slurm_parameters import checked_parameter, checked_slurm, same_meaning
from airflow_provider_sewer.core.templates import is_template

#: Parameters that a text can replace, besides :data:`~airflow_provider_sewer.core.slurm_amounts.AMOUNTS`.
_TEXTS = ("partition", "account", "qos", "constraint", "gres", "nodelist", "exclude")
#: Parameters that a retry can change.
CHANGEABLE = (*AMOUNTS, *_TEXTS)

#: Errors after which there can be a retry with another request, by their names.
_ERRORS = {
    kind.__name__: key_of(kind)
    for kind in (
        errors.SlurmOutOfMemory,
        errors.SlurmTimeout,
        errors.SlurmDeadline,
        errors.SlurmNodeFailure,
        errors.SlurmBootFailure,
        errors.SlurmLaunchFailure,
        errors.SlurmPreempted,
        errors.SlurmCancelled,
        errors.SlurmPendingTooLong,
        errors.SlurmJobFailed,
        errors.SlurmJobLost,
    )
}
#: Those for which the task is not to blame, which can have tries of their own.
_EXTERNAL = ("SlurmPreempted", "SlurmNodeFailure", "SlurmBootFailure")
_NAME_OF = {key: name for name, key in _ERRORS.items()}
_REASONS = {"timeout": "time limit", "preempted": "preemption", "cancelled": "cancellation"}

_MAX, _TRIES, _EXCLUDE_NODE = "max", "tries", "exclude_node"
#: Limits of a factor and of the tries of an error.
_LARGEST_FACTOR, _MOST_TRIES = 1000.0, 100


class Failure(NamedTuple):
    """End of an attempt that has failed.

    :param error: key of the error, see :data:`~airflow_provider_sewer.core.errors.KEYS`.
    :param node: the node or nodes of its job, as Slurm writes them; empty if it had none.
    """

    error: str
    node: str = ""

    @property
    def reason(self) -> str:
        """Return the reason for a log."""
        return _REASONS.get(self.error, self.error.replace("_", " "))


def checked_retry_with(value: Any) -> Optional[dict[str, Any]]:
    """Return a checked copy of ``retry_with``; ``None`` stays.

    An error that is ``None`` removes the changes of places of lower precedence, a limit that is ``None`` their limit.

    :raises InvalidTask: naming the invalid key and value.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidTask(
            f"retry_with must be a mapping of error names to changes, got {value!r:.200}", at=("retry_with",)
        )
    checked: dict[str, Any] = {}
    for name, changes in value.items():
        if name != _MAX and name not in _ERRORS:
            message = f"retry_with: {unknown_name('error', name, [*_ERRORS, _MAX])}"
            raise InvalidTask(message, at=("retry_with", Key(name)))
        try:
            checked[name] = _checked_max(changes) if name == _MAX else _rule(name, changes)
        except InvalidTask as error:
            raise InvalidTask(f"retry_with: {name}: {error}", at=("retry_with", name, *error.at)) from None
    _reject_texts_above_limits(checked)
    return checked


def merged_rules(high: Optional[Mapping[str, Any]], low: Optional[Mapping[str, Any]]) -> Optional[Mapping[str, Any]]:
    """Return rules, completed error by error by those of lower precedence; ``max`` is merged by parameter."""
    if high is None or low is None:
        return low if high is None else high
    nearer = high.get(_MAX, {})
    farther = {
        name: limit for name, limit in low.get(_MAX, {}).items() if nearer.keys().isdisjoint(same_meaning(name)[0])
    }
    limits = {**farther, **nearer}
    return {**low, **high, **({_MAX: limits} if limits else {})}


def reject_missing_amounts(rules: Optional[Mapping[str, Any]], request: Mapping[str, Any]) -> None:
    """Check that the parameters that are multiplied or limited are requested, and that each change has an effect.

    :param request: all parameters of the task, with templates as they are.
    :raises InvalidTask: naming the parameter and the fix.
    """
    for name, rule in (rules or {}).items():
        for parameter, change in (rule or {}).items():
            if name != _MAX and (option := _option_instead(parameter, request)):
                raise InvalidTask(
                    f"retry_with: {name}: {parameter} would have no effect, as additional_parameters has {option!r}; "
                    "request that in slurm itself",
                    at=("retry_with", name, Key(parameter)),
                )
            if parameter not in AMOUNTS or isinstance(change, str):
                continue
            requested = _requested(parameter, request)
            if name == _MAX:
                _check_limit(parameter, change, requested, request)
            elif requested is None:
                raise InvalidTask(
                    f"retry_with: {name}: {parameter} cannot be multiplied, as the task does not request it; "
                    f"{_advice(parameter, request)}",
                    at=("retry_with", name, Key(parameter)),
                )
            elif not is_template(request[requested]) and amount_of(requested, request[requested]) is None:
                raise InvalidTask(
                    f"retry_with: {name}: {requested}={request[requested]!r} cannot be multiplied; request a number",
                    at=("retry_with", name, Key(parameter)),
                )


def without_missing_amounts(
    rules: Optional[Mapping[str, Any]], request: Mapping[str, Any]
) -> Optional[Mapping[str, Any]]:
    """Return rules without factors of parameters that are not requested, for rules that many tasks share.

    Likewise without changes that have no effect, as ``additional_parameters`` have an option of the same meaning.
    """
    if not rules:
        return rules

    def applies(parameter: str, change: Any) -> bool:
        if _option_instead(parameter, request):
            return False
        return parameter not in AMOUNTS or isinstance(change, str) or _can_multiply(parameter, request)

    return {
        name: rule if rule is None or name == _MAX else {key: each for key, each in rule.items() if applies(key, each)}
        for name, rule in rules.items()
    }


def tries_of(rules: Optional[Mapping[str, Any]], error: str) -> int:
    """Return how many extra tries an error has.

    :param error: key of the error.
    """
    return int(_rule_of(rules, error).get(_TRIES, 0))


class Request(NamedTuple):
    """Request of one attempt: the changeable parameters.

    :param own: those of the task itself.
    :param asked: those that were submitted.
    :param extra_tries: how many extra tries each error has had in the series, by its key.
    """

    own: Mapping[str, Any]
    asked: Mapping[str, Any]
    extra_tries: Mapping[str, int] = {}

    @classmethod
    def of(cls, slurm: Mapping[str, Any]) -> Request:
        """Return the request of a task without an earlier attempt.

        :param slurm: all its parameters.
        """
        own = {name: value for name, value in slurm.items() if name in CHANGEABLE and value is not None}
        return cls(own, own)

    @classmethod
    def checked(cls, own: Mapping[str, Any], asked: Mapping[str, Any], extra_tries: Mapping[str, Any]) -> Request:
        """Return a stored request.

        :raises InvalidTask: when a value cannot be that of a request.
        """
        for error, number in extra_tries.items():
            if isinstance(number, bool) or not isinstance(number, int):
                raise InvalidTask(f"extra_tries: {error} must be an integer, got {number!r:.200}")
        return cls(checked_slurm(own), checked_slurm(asked), extra_tries)

    def applied_to(self, slurm: Mapping[str, Any]) -> dict[str, Any]:
        """Return all parameters of a task, with those of this request."""
        return {**{name: value for name, value in slurm.items() if name not in CHANGEABLE}, **self.asked}

    def after(
        self, before: Request, rules: Optional[Mapping[str, Any]], failure: Optional[Failure]
    ) -> tuple[Request, list[str]]:
        """Return this request of a task as it follows an attempt, and the changes since that attempt as text.

        A parameter that the task itself requests otherwise than before keeps that value.

        :param before: the request of that attempt.
        :param failure: its end; ``None`` if it has not failed.
        :raises SlurmRequestLimit: as :func:`next_request` does.
        """
        edited = {name for name in CHANGEABLE if self.own.get(name) != before.own.get(name)}
        replaced = {other for name in edited for names in same_meaning(name) for other in names}
        asked = {name: value for name, value in before.asked.items() if name not in replaced}
        asked.update({name: value for name, value in self.own.items() if name in edited})
        changes: list[str] = []
        if failure is not None:
            rule = _rule_of(rules, failure.error)
            kept = {name: each for name, each in rule.items() if name not in replaced}
            asked, changes = next_request(asked, {**(rules or {}), _NAME_OF.get(failure.error, ""): kept}, failure)
        return Request(self.own, asked, before.extra_tries), changes


def has_extra_tries(rules: Optional[Mapping[str, Any]]) -> bool:
    """Return whether an error has extra tries, so that a job can be followed by another one."""
    return any(tries_of(rules, _ERRORS[name]) for name in _EXTERNAL)


def next_request(
    request: Mapping[str, Any], rules: Optional[Mapping[str, Any]], failure: Failure
) -> tuple[dict[str, Any], list[str]]:
    """Return the request of the attempt after a failed one, and the changes as text, such as ``mem_gb=32 (was 16)``.

    :param request: the parameters that the failed attempt asked for.
    :param rules: ``retry_with``.
    :param failure: its end.
    :raises SlurmRequestLimit: when only a request above ``max`` would differ.
    """
    asked, changes, exceeded = dict(request), [], []
    for parameter, change in _rule_of(rules, failure.error).items():
        if parameter == _TRIES:
            continue
        name, value = _changed(asked, parameter, change, failure)
        most = None if name not in AMOUNTS or value is None else _most(rules, name)
        if most is not None and (amount_of(name, value) or math.inf) > most:
            limit = with_amount(name, value, most)
            if not isinstance(change, str) and (amount_of(name, asked[name]) or 0) >= (amount_of(name, limit) or 0):
                exceeded.append(f"{name} would exceed max {limit} (asked: {asked[name]}, next: {value})")
                continue
            value = limit
        if value is not None and value != asked.get(name):
            changes.append(f"{name}={value} (was {_shown(name, asked)})")
            synonyms, exclusive = same_meaning(name)
            asked = {key: each for key, each in asked.items() if key not in (*synonyms, *exclusive)}
            asked[name] = value
    if exceeded and not changes:
        raise SlurmRequestLimit(f"{'; '.join(exceeded)}; raise max in retry_with, or make the task need less")
    return asked, changes


# -- Checks ------------------------------------------------------------------------------------------------------------


def _rule(error: str, changes: Any) -> Optional[dict[str, Any]]:
    if changes is None:
        return None
    if not isinstance(changes, Mapping):
        raise InvalidTask(f"must be a mapping of Slurm parameters to factors or texts, got {changes!r:.200}")
    rule = {name: _change(error, name, change) for name, change in changes.items()}
    _reject_several_of_one_meaning(rule, texts_replace=True)
    if rule.get(_EXCLUDE_NODE) and "exclude" in rule:
        raise InvalidTask(f"exclude would replace the nodes of {_EXCLUDE_NODE}; keep one of them", at=("exclude",))
    return rule


def _reject_several_of_one_meaning(changes: Mapping[str, Any], *, texts_replace: bool) -> None:
    """Check that no two keys change or limit the same parameter.

    :param texts_replace: whether a text replaces the value of each task. Other values of parameters that exclude each
        other are for different tasks.
    """
    names = [name for name in changes if name in CHANGEABLE]
    for position, second in enumerate(names):
        synonyms, exclusive = same_meaning(second)
        for first in names[:position]:
            replaces = texts_replace and (isinstance(changes[first], str) or isinstance(changes[second], str))
            if first in synonyms or (replaces and first in exclusive):
                raise InvalidTask(f"{first!r} and {second!r} exclude each other; keep one of them", at=(Key(second),))


def _change(error: str, name: Any, change: Any) -> Any:
    if name == _EXCLUDE_NODE:
        if not isinstance(change, bool):
            raise InvalidTask(f"{name} must be a bool, got {change!r:.200}", at=(name,))
        return change
    if name == _TRIES:
        return _tries(error, change)
    if name not in CHANGEABLE:
        known = (*CHANGEABLE, _EXCLUDE_NODE, _TRIES)
        raise InvalidTask(unknown_name("parameter", name, known, most=len(known)), at=(Key(name),))
    if isinstance(change, str):
        return _text(name, change)
    if name not in AMOUNTS:
        raise InvalidTask(f"{name} must be text, which replaces the value, got {change!r:.200}", at=(name,))
    if isinstance(change, bool) or not isinstance(change, (int, float)) or not 1 < change <= _LARGEST_FACTOR:
        raise InvalidTask(
            f"{name} must be a factor more than 1 and at most {_LARGEST_FACTOR:g}, or text, which replaces the value; "
            f"got {change!r:.200}",
            at=(name,),
        )
    return change


def _text(name: str, text: str) -> str:
    if is_template(text):
        raise InvalidTask(f"{name} must not be a template, got {text!r:.200}; give a factor or plain text", at=(name,))
    try:
        checked_parameter(name, text)
    except InvalidTask as error:
        raise InvalidTask(str(error).partition("slurm: ")[2] or str(error), at=(name,)) from None
    return text


def _tries(error: str, tries: Any) -> int:
    if error not in _EXTERNAL:
        raise InvalidTask(
            f"tries are only for {', '.join(_EXTERNAL)}; use Airflow's retries, or --retries of sppe", at=(Key(_TRIES),)
        )
    if isinstance(tries, bool) or not isinstance(tries, int) or not 1 <= tries <= _MOST_TRIES:
        raise InvalidTask(f"tries must be an integer from 1 to {_MOST_TRIES}, got {tries!r:.200}", at=(_TRIES,))
    return tries


def _checked_max(limits: Any) -> dict[str, Any]:
    if not isinstance(limits, Mapping):
        raise InvalidTask(f"must be a mapping of Slurm parameters to limits, got {limits!r:.200}")
    checked: dict[str, Any] = {}
    for name, limit in limits.items():
        if name not in AMOUNTS:
            raise InvalidTask(unknown_name("amount", name, AMOUNTS, most=len(AMOUNTS)), at=(Key(name),))
        if limit is None:
            checked[name] = None
            continue
        if isinstance(limit, str) and is_template(limit):
            raise InvalidTask(f"{name} must not be a template, got {limit!r:.200}", at=(name,))
        try:
            checked[name] = checked_parameter(name, limit)
        except InvalidTask as error:
            raise InvalidTask(str(error).partition("slurm: ")[2] or str(error), at=(name,)) from None
        if amount_of(name, checked[name]) is None:
            raise InvalidTask(f"{name} must be an amount, got {limit!r:.200}; leave it out for no limit", at=(name,))
    _reject_several_of_one_meaning(checked, texts_replace=False)
    return checked


def _reject_texts_above_limits(rules: Mapping[str, Any]) -> None:
    for name, rule in rules.items():
        for parameter, change in (rule or {}).items() if name != _MAX else ():
            most = _most(rules, parameter) if parameter in AMOUNTS and isinstance(change, str) else None
            if most is not None and (amount_of(parameter, checked_parameter(parameter, change)) or math.inf) > most:
                raise InvalidTask(
                    f"retry_with: {name}: {parameter}={change!r} is above max; raise max, or request less",
                    at=("retry_with", name, parameter),
                )


def _check_limit(parameter: str, limit: Any, requested: Optional[str], request: Mapping[str, Any]) -> None:
    """Check that a limit concerns the parameter that is requested, and is not below it."""
    if limit is None:
        return
    if requested is None:
        if instead := _instead(parameter, request):
            raise InvalidTask(
                f"retry_with: max: {parameter} does not limit {instead!r}, which the task requests; name {instead!r}",
                at=("retry_with", _MAX, Key(parameter)),
            )
        return
    value = request[requested]
    amount = None if is_template(value) else amount_of(requested, value)
    if amount is not None and amount > (amount_of(parameter, limit) or 0):
        raise InvalidTask(
            f"retry_with: max: {parameter} must be at least the task's own {requested}={value}, got {limit}",
            at=("retry_with", _MAX, parameter),
        )


def _advice(parameter: str, request: Mapping[str, Any]) -> str:
    if instead := _instead(parameter, request):
        return f"it requests {instead!r}: name that"
    return f"add {parameter} to slurm, or leave it out here"


def _option_instead(parameter: str, request: Mapping[str, Any]) -> Optional[str]:
    """Return the option among ``additional_parameters`` that takes precedence over a parameter, or excludes it.

    sbatch accepts abbreviated options.
    """
    options = request.get("additional_parameters")
    name = "exclude" if parameter == _EXCLUDE_NODE else parameter
    if name not in CHANGEABLE or not isinstance(options, Mapping):
        return None
    names = [other.replace("_", "-") for group in same_meaning(name) for other in group]
    return next((each for each in options if any(other.startswith(each.replace("_", "-")) for other in names)), None)


def _instead(parameter: str, request: Mapping[str, Any]) -> Optional[str]:
    """Return the requested parameter that excludes another one."""
    _, exclusive = same_meaning(parameter)
    return next((name for name in exclusive if request.get(name) is not None), None)


# -- Changes -----------------------------------------------------------------------------------------------------------


def _rule_of(rules: Optional[Mapping[str, Any]], error: str) -> Mapping[str, Any]:
    return (rules or {}).get(_NAME_OF.get(error, "")) or {}


def _changed(asked: Mapping[str, Any], parameter: str, change: Any, failure: Failure) -> tuple[str, Any]:
    """Return the parameter to set, and its value; ``None`` to leave it."""
    if parameter == _EXCLUDE_NODE:
        return "exclude", _with_node(asked.get("exclude"), failure.node) if change else None
    if isinstance(change, str):
        return parameter, checked_parameter(parameter, change)
    name = _requested(parameter, asked)
    if name is None or not _can_multiply(parameter, asked):
        return parameter, None
    return name, multiplied(name, asked[name], change)


def _can_multiply(parameter: str, request: Mapping[str, Any]) -> bool:
    name = _requested(parameter, request)
    return name is not None and (is_template(request[name]) or amount_of(name, request[name]) is not None)


def _requested(parameter: str, request: Mapping[str, Any]) -> Optional[str]:
    """Return the name by which a parameter is requested; ``None`` if it is not."""
    synonyms, _ = same_meaning(parameter)
    return next((name for name in synonyms if request.get(name) is not None), None)


def _most(rules: Optional[Mapping[str, Any]], name: str) -> Optional[float]:
    limits = (rules or {}).get(_MAX) or {}
    synonyms, _ = same_meaning(name)
    return next((amount_of(each, limits[each]) for each in synonyms if limits.get(each) is not None), None)


def _shown(name: str, asked: Mapping[str, Any]) -> str:
    """Return the present value of a parameter, also under another name, for a log."""
    synonyms, exclusive = same_meaning(name)
    if asked.get(name) is not None:
        return str(asked[name])
    others = [f"{other}={asked[other]}" for other in (*synonyms, *exclusive) if asked.get(other) is not None]
    return next(iter(others), "not set")


def _with_node(exclude: Optional[str], node: str) -> Optional[str]:
    if not node or (exclude and node in exclude.split(",")):
        return None
    return f"{exclude},{node}" if exclude else node
