"""Staleness decision of a task, from its run policy and the records of its products.

``always`` runs. ``missing`` runs when a product does not exist. ``stale`` also runs when a product differs from its
record, or when its inputs changed: the version of a dependency, the parameters, or an upstream task that was re-run.
``never`` does not run.

A dependency is compared by ``mtime`` (time of change and size) or by ``content``. With ``content``, a re-run upstream
task counts only if the task takes something other than files from it. Content is not read again while device, inode,
ctime, mtime and size are unchanged.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple, Optional

from airflow_provider_sewer.core.errors import InvalidTask, Key
from airflow_provider_sewer.core.fingerprints import Fingerprint, fingerprint_of
from airflow_provider_sewer.core.size_limits import bounded_list

RUN_WHEN = ("always", "missing", "stale", "never")
COMPARE = ("mtime", "content")
STALE_WITH = ("code", "environment")


class RunPolicy(NamedTuple):
    """Policy that decides whether a task runs.

    :param run_when: one of :data:`RUN_WHEN`.
    :param compare: one of :data:`COMPARE`.
    :param stale_with: some of :data:`STALE_WITH`.
    """

    run_when: str = "always"
    compare: str = "mtime"
    stale_with: tuple[str, ...] = ()

    @classmethod
    def checked(cls, run_when: Any, compare: Any, stale_with: Any, *, has_products: bool) -> RunPolicy:
        """Return the policy for the given arguments.

        :raises InvalidTask: when a value is not valid, or the mode requires a product and there is none.
        """
        if run_when == "always" and compare == "mtime" and stale_with == ():
            return cls()
        names = (stale_with,) if isinstance(stale_with, str) else stale_with
        if not isinstance(names, Iterable) or isinstance(names, Mapping):
            message = f"stale_with must be a list of {' and '.join(map(repr, STALE_WITH))}, got {names!r:.200}"
            raise InvalidTask(message, at=("stale_with",))
        several = tuple(bounded_list("stale_with", names))
        at: tuple[Any, ...]
        for at, value, known in (
            (("run_when",), run_when, RUN_WHEN),
            (("compare",), compare, COMPARE),
            *((("stale_with", index), each, STALE_WITH) for index, each in enumerate(several)),
        ):
            if value not in known:
                raise InvalidTask(f"{at[0]} must be one of {', '.join(map(repr, known))}; got {value!r:.200}", at=at)
        if run_when in ("missing", "stale") and not has_products:
            message = f"run_when={run_when!r} requires a product; declare one with Product(path)"
            raise InvalidTask(message, at=("run_when",))
        if run_when != "stale" and (several or compare != "mtime"):
            field = "stale_with" if several else "compare"
            raise InvalidTask(f"{field} requires run_when='stale'", at=(Key(field),))
        return cls(run_when, compare, several)


class Inputs(NamedTuple):
    """Inputs of a task at start time.

    :param dependencies: fingerprints of its dependencies, by path.
    :param upstream: last known run of each upstream task from which it takes something other than files, by name.
    :param code: digest of its code, if the policy includes it.
    :param environment: digest of its environment, if the policy includes it.
    """

    dependencies: Mapping[str, Fingerprint]
    upstream: Mapping[str, str] = MappingProxyType({})
    code: Optional[str] = None
    environment: Optional[str] = None

    def to_data(self) -> dict[str, Any]:
        """Return the inputs as JSON data."""
        dependencies, upstream, code, environment = self
        return {
            "dependencies": dict(dependencies),
            "upstream": dict(upstream),
            "code": code,
            "environment": environment,
        }

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> Inputs:
        """Return the inputs that :meth:`to_data` has written.

        :raises LookupError: when a key is missing.
        """
        fingerprints = {path: Fingerprint(*each) for path, each in data["dependencies"].items()}
        return cls(fingerprints, data["upstream"], data["code"], data["environment"])


class ProductRecord(NamedTuple):
    """Stored record of a product: its inputs and its fingerprint.

    :param task: the task's name.
    :param command: digest of the task's command.
    :param product: fingerprint of the product.
    :param dependencies: as in :class:`Inputs`, like the next three.
    :param result: the result of the task.
    :param is_complete: whether all products of the task were in place; ``False`` while they are committed.
    :param is_removed: whether it was a temporary product that was removed after use.
    :param attempt: the attempt that committed it, or was about to.
    :param was_complete: ``is_complete`` when that attempt began; ``None`` if there was no record then.
    :param beside: fingerprints of the files that the module wrote beside the product, by name; they belong to it. A
        dangling link has none.
    :param leaving: while the attempt commits the product and these files: names of the files that belonged to it
        before and are to be removed; ``None`` at any other time.
    :param dag_run: DAG and DAG run that created it, if any.
    """

    task: str
    command: str
    product: Optional[Fingerprint]
    dependencies: Mapping[str, Fingerprint]
    upstream: Mapping[str, str] = MappingProxyType({})
    code: Optional[str] = None
    environment: Optional[str] = None
    result: Any = None
    is_complete: bool = True
    is_removed: bool = False
    attempt: str = ""
    was_complete: Optional[bool] = None
    beside: Mapping[str, Optional[Fingerprint]] = MappingProxyType({})
    leaving: Optional[Sequence[str]] = None
    dag_run: Optional[Sequence[str]] = None


class ProductState(NamedTuple):
    """Current state of a product and its stored record.

    :param path: its path as written in the task.
    """

    path: str
    file: str
    record: Optional[ProductRecord]

    def files_beside(self) -> dict[str, str]:
        """Return the absolute paths of the files that belong to it, by name."""
        names = self.record.beside if self.record is not None else ()
        return {name: os.path.join(os.path.dirname(self.file), name) for name in names}


class Decision(NamedTuple):
    """Decision to run or skip a task, with the reason as half a sentence.

    :param is_sure: whether the decision is final.
    """

    must_run: bool
    reason: str
    is_sure: bool = True

    @classmethod
    def run(cls, reason: str) -> Decision:
        """Return the decision to run."""
        return cls(must_run=True, reason=reason)

    @classmethod
    def skip(cls, reason: str) -> Decision:
        """Return the decision to skip."""
        return cls(must_run=False, reason=reason)


class StalenessInputs(NamedTuple):
    """Inputs of the staleness decision on a task.

    :param policy: its run policy.
    :param products: its products.
    :param dependencies: absolute paths of its dependencies, by path as written in the task.
    :param command: digest of its current command.
    :param after: current runs of upstream tasks, as in :attr:`Inputs.upstream`.
    :param code: digest of its current code, if the policy includes it.
    :param environment: digest of its current environment, if the policy includes it.
    :param rerun_upstream: names of re-run upstream tasks from which it takes files.
    :param rerun_upstream_elsewhere: names of re-run upstream tasks from which it takes something else.
    :param is_beforehand: whether these upstream tasks are still to run.
    :param left_open: dependencies that are created again before the task runs, so that their state is not known yet.
    :param beside: absolute paths of the files that belong to a dependency, by its path.
    """

    policy: RunPolicy
    products: Sequence[ProductState]
    dependencies: Mapping[str, str]
    command: str
    upstream: Mapping[str, str] = MappingProxyType({})
    code: Optional[str] = None
    environment: Optional[str] = None
    rerun_upstream: Sequence[str] = ()
    rerun_upstream_elsewhere: Sequence[str] = ()
    is_beforehand: bool = False
    left_open: Collection[str] = ()
    beside: Mapping[str, Sequence[str]] = MappingProxyType({})


def decide(inputs: StalenessInputs) -> Decision:
    """Return whether a task has to run."""
    mode = inputs.policy.run_when
    if mode == "always":
        return Decision.run("it always runs")
    if mode == "never":
        return Decision.skip("it never runs")
    reason = missing_reason(inputs.products) or (_stale_reason(inputs) if mode == "stale" else None)
    if reason:
        return Decision.run(reason)
    return Decision.skip(_present_reason(inputs) if mode == "missing" else _up_to_date_reason(inputs))


def _present_reason(inputs: StalenessInputs) -> str:
    names = [product.path for product in inputs.products]
    return f"{_listed(names)} exist{'s' if len(names) == 1 else ''}"


def _up_to_date_reason(inputs: StalenessInputs) -> str:
    """Return which products are up to date, since when, and with which inputs, as half a sentence."""
    names = [product.path for product in inputs.products]
    others = [*inputs.dependencies] or ["its parameters"]
    is_other_one = others[1:] == [] and bool(inputs.dependencies)
    product = inputs.products[0]
    if product.record is not None and product.record.is_removed:
        which = f"{_listed(names)} {'was' if len(names) == 1 else 'were'} removed after use"
        return f"{which}, and {_listed(others)} {'is' if is_other_one else 'are'} unchanged"
    which = f"{_listed(names)} {'is' if len(names) == 1 else 'are'} unchanged{_since(product.file)}"
    return f"{which}, and so {'is' if is_other_one else 'are'} {_listed(others)}"


def _since(file: str) -> str:
    """Return the time of change of a file, as the end of a clause; empty if no calendar has it."""
    try:
        changed = datetime.fromtimestamp(os.stat(file).st_mtime).astimezone()
    except (OSError, OverflowError, ValueError):
        return ""
    return f" since {changed:%Y-%m-%d %H:%M:%S}"


def _listed(names: Sequence[str]) -> str:
    """Return one or two names, or the first and the number of the others."""
    return " and ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} more"  # noqa: PLR2004


def missing_reason(products: Iterable[ProductState]) -> str | None:
    """Return the first missing or incomplete product, as half a sentence; ``None`` if all are complete."""
    for product in products:
        is_removed = product.record is not None and product.record.is_removed
        if not is_removed and not os.path.exists(product.file):
            return f"{product.path} is missing"
        if product.record is not None and not product.record.is_complete:
            return f"{product.path} is incomplete: an earlier run ended while creating it"
        for name, file in ({} if is_removed else product.files_beside()).items():
            if not os.path.lexists(file):
                return f"{name}, created beside {product.path}, is missing"
    return None


def _stale_reason(inputs: StalenessInputs) -> str | None:
    by_content = inputs.policy.compare == "content"
    rerun = [*inputs.rerun_upstream_elsewhere, *(() if by_content else inputs.rerun_upstream)]
    if rerun:
        return f"{rerun[0]!r} runs before it" if inputs.is_beforehand else f"{rerun[0]!r} was re-run"
    for product in inputs.products:
        record = product.record
        if record is None:
            return f"{product.path} has no record"
        reason = _change_reason(product, record, inputs, by_content=by_content)
        if reason:
            return reason
    return None


def _change_reason(
    product: ProductState, record: ProductRecord, inputs: StalenessInputs, *, by_content: bool
) -> str | None:
    if record.command != inputs.command:
        return f"{product.path} was created with other parameters"
    for name, run in inputs.upstream.items():
        if record.upstream.get(name, run) != run:
            return f"{name!r} was re-run since {product.path} was created"
    if by_content and record.product is not None and record.product.content is None:
        return f"the record of {product.path} has no content fingerprint"
    if not record.is_removed and _differs(record.product, product.file, by_content=by_content):
        return f"{product.path} was changed after it was created"
    for name, file in ({} if record.is_removed else product.files_beside()).items():
        if record.beside[name] is not None and _differs(record.beside[name], file, by_content=by_content):
            return f"{name}, created beside {product.path}, was changed after it was created"
    for path, file in inputs.dependencies.items():
        if path not in record.dependencies:
            return f"{product.path} was created without {path}"
        is_known = path not in inputs.left_open and os.path.exists(file)
        beside = inputs.beside.get(path, ())
        if is_known and _differs(record.dependencies[path], file, beside, by_content=by_content):
            return f"{path} has changed"
    for path in record.dependencies:
        if path not in inputs.dependencies:
            return f"{product.path} was also created from {path}"
    if inputs.code != record.code and "code" in inputs.policy.stale_with:
        return "its code has changed"
    if inputs.environment != record.environment and "environment" in inputs.policy.stale_with:
        return "its environment has changed"
    return None


def _differs(known: Fingerprint | None, file: str, beside: Sequence[str] = (), *, by_content: bool) -> bool:
    now = fingerprint_of(file, beside)
    if known is None or now is None:
        return True
    if not by_content:
        return now.seen != known.seen
    if now.identity == known.identity:
        return False
    read = fingerprint_of(file, beside, read=True)
    return read is None or read.content != known.content
