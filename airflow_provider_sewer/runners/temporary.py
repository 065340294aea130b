"""Remove temporary products when all their users have succeeded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.runners.products import remove_temporary

if TYPE_CHECKING:
    from airflow_provider_sewer.core.paths import Product
    from airflow_provider_sewer.core.workflow import Workflow


class TemporaryProducts:
    """The temporary products of a run, and which tasks are still to use them.

    :param workflow: the tasks, their settings settled.
    """

    def __init__(self, workflow: Workflow) -> None:
        self._tasks = workflow.tasks
        self._of_user: dict[str, list[tuple[str, Product]]] = {}
        self._users_left: dict[tuple[str, str], int] = {}
        for name, task in workflow.tasks.items():
            for product in task.products:
                users = set(workflow.why.users.get((name, product.path), ())) if product.temporary else set()
                elsewhere = workflow.elsewhere.users.get((name, product.path), ())
                self._users_left[name, product.path] = len(users) + len(elsewhere)
                for user in users:
                    self._of_user.setdefault(user, []).append((name, product))

    def note_success(self, user: str) -> list[str]:
        """Note that a task has succeeded, and remove what was left only for it.

        :returns: what could not be removed, and why: the work is done, so it fails nobody.
        """
        warnings = []
        for maker, product in self._of_user.get(user, ()):
            self._users_left[maker, product.path] -= 1
            if self._users_left[maker, product.path] == 0:
                try:
                    remove_temporary(product, self._tasks[maker].settings.workdir)
                except SewerError as error:
                    warnings.append(str(error))
        return warnings
