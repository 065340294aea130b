"""Chains of ``>>``: tasks and the edges between them, before they are part of a workflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List, Tuple, Union

from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.recording import record_edges, run_chain
from airflow_provider_sewer.core.size_limits import MAX_EDGES
from airflow_provider_sewer.core.source import calling_line

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from airflow_provider_sewer.core.task import Task

#: Operands of ``>>``.
Operand = Union["Task", "Chain", List[Any], Tuple[Any, ...]]


class Chain:
    """Tasks in parallel and in sequence, with the two ends to which other chains are connected.

    A chain keeps its pieces and is flattened only when it is run, so that a chain that grows task by task stays linear
    in time and memory.
    """

    __slots__ = ("_between", "_pieces", "heads", "tails")

    def __init__(
        self,
        pieces: tuple[Task | Chain, ...],
        heads: tuple[Task, ...],
        tails: tuple[Task, ...],
        between: tuple[tuple[Task, Task], ...] = (),
    ) -> None:
        self._pieces = pieces
        self._between = between
        self.heads = heads
        self.tails = tails

    @classmethod
    def of(cls, operand: Operand) -> Chain:
        """Return a chain of a task, a chain, or a list of these in parallel.

        :raises InvalidWorkflow: for anything else, and for an empty list.
        """
        from airflow_provider_sewer.core.task import Task

        if isinstance(operand, Chain):
            return operand
        if isinstance(operand, Task):
            return cls((operand,), (operand,), (operand,))
        if not isinstance(operand, (list, tuple)) or not operand:
            found = "an empty list" if operand in ([], ()) else f"{operand!r} ({type(operand).__name__})"
            raise InvalidWorkflow(f">> takes tasks, chains and lists of them, got {found}", calling_line())
        if all(type(part) is Task for part in operand):  # a fast path for the layers of a wide workflow
            tasks = tuple(dict.fromkeys(operand))
            return cls(tasks, tasks, tasks)
        parts = [cls.of(part) for part in operand]
        heads = dict.fromkeys(task for part in parts for task in part.heads)
        tails = dict.fromkeys(task for part in parts for task in part.tails)
        return cls(tuple(parts), tuple(heads), tuple(tails))

    def tasks(self) -> list[Task]:
        """Return each task once, in the order of the chain."""
        return list(dict.fromkeys(piece for piece in self._walk() if not isinstance(piece, Chain)))

    def edges(self) -> list[tuple[Task, Task]]:
        """Return pairs of (task, downstream task), each once."""
        return list(
            dict.fromkeys(edge for piece in self._walk() if isinstance(piece, Chain) for edge in piece._between)
        )

    def _walk(self) -> Iterator[Task | Chain]:
        pending: list[Task | Chain] = [self]
        while pending:
            piece = pending.pop()
            yield piece
            if isinstance(piece, Chain):
                pending.extend(reversed(piece._pieces))

    def __rshift__(self, other: Operand) -> Chain:
        """``self >> other``: other runs after self."""
        return _connect(self, Chain.of(other))

    def __lshift__(self, other: Operand) -> Chain:
        """``self << other``: self runs after other; a further ``<<`` adds tasks before that."""
        return _connect(Chain.of(other), self)

    def __rrshift__(self, other: Operand) -> Chain:
        """``[a, b] >> self``."""
        return Chain.of(other) >> self

    def __rlshift__(self, other: Operand) -> Chain:
        """``[a, b] << self``."""
        return Chain.of(other) << self

    def run(
        self,
        path_to_python: str | os.PathLike[str] | None = None,
        env: Mapping[str, Any] | None = None,
        workdir: str | os.PathLike[str] | None = None,
    ) -> None:
        """Run the tasks in the order of their edges, or add them to the workflow that is being recorded.

        :param path_to_python: interpreter of the tasks without one of their own.
        :param env: environment variables; those of the tasks override them.
        :param workdir: working directory of the tasks without one of their own.
        :raises WorkflowFailed: when a task failed.
        """
        source = calling_line()
        try:
            settings = ExecutionSettings.checked(python=path_to_python, env=env, workdir=workdir, folder=source.folder)
        except InvalidTask as error:
            raise InvalidTask(str(error), source) from None
        run_chain(self, settings, source)


def run(
    *operands: Operand,
    path_to_python: str | os.PathLike[str] | None = None,
    env: Mapping[str, Any] | None = None,
    workdir: str | os.PathLike[str] | None = None,
) -> None:
    """Run tasks, chains and lists of them side by side, or add them to the workflow that is being recorded.

    :param operands: independent of each other, as far as no path, result or ``depends_on`` connects them.
    :param path_to_python: as for :meth:`Chain.run`.
    :param env: likewise.
    :param workdir: likewise.
    :raises InvalidWorkflow: when there is no operand, or one is neither a task, a chain nor a list.
    :raises WorkflowFailed: when a task failed.
    """
    if not operands:
        raise InvalidWorkflow("run() requires at least one task, such as run(a, b)", calling_line())
    Chain.of(operands).run(path_to_python, env, workdir)


def _connect(before: Chain, after: Chain) -> Chain:
    if len(before.tails) * len(after.heads) > MAX_EDGES:
        raise InvalidWorkflow(
            f">> must make at most {MAX_EDGES:,} edges, got {len(before.tails):,} tasks before {len(after.heads):,}; "
            "put a task between them",
            calling_line(),
        )
    between = tuple((up, down) for up in before.tails for down in after.heads)
    record_edges(between)
    return Chain((before, after), before.heads, after.tails, between)
