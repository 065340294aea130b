"""What ``>>`` makes: tasks and the edges between them, before they are part of a workflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List, Tuple, Union

from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.recording import note_edges, run_chain
from airflow_provider_sewer.core.size_limits import MAX_EDGES
from airflow_provider_sewer.core.source import calling_line

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from airflow_provider_sewer.core.task import Task

#: What may stand on either side of ``>>``.
Operand = Union["Task", "Chain", List[Any], Tuple[Any, ...]]


class Chain:
    """Tasks side by side and one after the other, with the two ends that another chain is tied to.

    A chain keeps the pieces it was made of and is taken apart only when it is run, so that a chain
    grown task by task stays linear in time and memory.
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
        """Make a chain of a task, a chain, or a list of these side by side.

        :raises InvalidWorkflow: for anything else, and for an empty list.
        """
        from airflow_provider_sewer.core.task import Task

        if isinstance(operand, Chain):
            return operand
        if isinstance(operand, Task):
            return cls((operand,), (operand,), (operand,))
        if not isinstance(operand, (list, tuple)) or not operand:
            what = "an empty list" if operand in ([], ()) else f"{operand!r} ({type(operand).__name__})"
            raise InvalidWorkflow(f">> ties tasks, chains and lists of them; {what} is none of these", calling_line())
        if all(type(part) is Task for part in operand):  # the layers of a wide workflow, tied task by task
            tasks = tuple(dict.fromkeys(operand))
            return cls(tasks, tasks, tasks)
        parts = [cls.of(part) for part in operand]
        heads = dict.fromkeys(task for part in parts for task in part.heads)
        tails = dict.fromkeys(task for part in parts for task in part.tails)
        return cls(tuple(parts), tuple(heads), tuple(tails))

    def tasks(self) -> list[Task]:
        """Return each task once, in the order they were named."""
        return list(dict.fromkeys(piece for piece in self._walk() if not isinstance(piece, Chain)))

    def edges(self) -> list[tuple[Task, Task]]:
        """Return pairs of (task, task that runs after it), each once."""
        return list(
            dict.fromkeys(edge for piece in self._walk() if isinstance(piece, Chain) for edge in piece._between)
        )

    def _walk(self) -> Iterator[Task | Chain]:
        waiting: list[Task | Chain] = [self]
        while waiting:
            piece = waiting.pop()
            yield piece
            if isinstance(piece, Chain):
                waiting.extend(reversed(piece._pieces))

    def __rshift__(self, other: Operand) -> Chain:
        """``self >> other``: other runs after self."""
        return _tied(self, Chain.of(other))

    def __lshift__(self, other: Operand) -> Chain:
        """``self << other``: self runs after other; a further ``<<`` goes before that."""
        return _tied(Chain.of(other), self)

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
        """Run the tasks in the order of their edges, or add them to the workflow being recorded.

        :param path_to_python: interpreter of the tasks that name none themselves.
        :param env: environment variables, under those of the tasks.
        :param workdir: working directory of the tasks that name none themselves.
        :raises WorkflowFailed: when they ran and not all succeeded.
        """
        source = calling_line()
        try:
            settings = ExecutionSettings.checked(python=path_to_python, env=env, workdir=workdir, folder=source.folder)
        except InvalidTask as error:
            raise InvalidTask(str(error), source) from None
        run_chain(self, settings, source)


def _tied(before: Chain, after: Chain) -> Chain:
    if len(before.tails) * len(after.heads) > MAX_EDGES:
        raise InvalidWorkflow(
            f">> must make at most {MAX_EDGES:,} edges, got {len(before.tails):,} tasks before {len(after.heads):,}; "
            "put a task between them",
            calling_line(),
        )
    between = tuple((up, down) for up in before.tails for down in after.heads)
    note_edges(between)
    return Chain((before, after), before.heads, after.tails, between)
