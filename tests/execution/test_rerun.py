"""In random graphs of files, a second run runs no task, and a change reruns exactly its downstream tasks."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_sewer import Task
from tests.execution.product_workspace import Lab

_NUMBERS = itertools.count()

#: For each task, which of the inputs and of the products of the tasks before it it needs.
_GRAPHS = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True), min_size=1, max_size=5)


def tasks_of(lab: Lab, graph: list[list[int]], compare: str) -> tuple[list[Task], dict[str, set[str]]]:
    """Return a task for each entry, and for each file the tasks that are made of it, however far off."""
    tasks, made_of = [], {}
    for number, needs in enumerate(graph):
        inputs = [f"{need}.txt" if need < number else f"in{need % 3}.txt" for need in needs]
        tasks.append(lab.step(f"t{number}", inputs, f"{number}.txt", run_when="stale", compare=compare))
        sources = {each for path in inputs for each in made_of.get(path, {path})}
        made_of[f"{number}.txt"] = sources
    users: dict[str, set[str]] = {}
    for path, sources in made_of.items():
        for source in sources:
            users.setdefault(source, set()).add(f"t{path.partition('.')[0]}")
    return tasks, users


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(graph=_GRAPHS, compare=st.sampled_from(["mtime", "content"]), data=st.data())
def test_change_reruns_exactly_its_downstream_tasks(tmp_path, graph, compare, data) -> None:
    """A touched file is changed by time, and unchanged by content."""
    lab = Lab(tmp_path / str(next(_NUMBERS)))
    for number in range(3):
        lab.write(f"in{number}.txt", str(number))
    tasks, users = tasks_of(lab, graph, compare)

    assert sorted(lab.ran(*tasks)) == sorted(task.name for task in tasks)
    assert lab.ran(*tasks) == []

    changed = data.draw(st.sampled_from(sorted(users)))
    lab.touch(changed)
    assert set(lab.ran(*tasks)) == (users[changed] if compare == "mtime" else set())

    lab.write(changed, "something else")
    foretold = {name for name, why in lab.explained(*tasks).items() if " unchanged since " not in why}
    ran = lab.ran(*tasks)
    assert set(ran) == foretold == users[changed]
    assert len(ran) == len(set(ran))
    assert lab.ran(*tasks) == []
