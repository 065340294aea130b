"""Plans: which tasks have to run, and the reasons."""

from __future__ import annotations

import os
import re

import pytest

from airflow_provider_sewer import Dependency, External, Ignored, Product, Task, Workflow
from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.core.fingerprints import fingerprint_of
from airflow_provider_sewer.execution.plan import Selection, select_tasks
from airflow_provider_sewer.execution.product_records import read_record
from airflow_provider_sewer.execution.task_states import TaskState
from airflow_provider_sewer.execution.workflow_runner import WorkflowRunner
from tests.execution.product_workspace import Lab, lab, writer

__all__ = ["lab"]


def stale(
    lab: Lab, name: str, inputs: object = (), outputs: object = (), content: object = "", **fields: object
) -> Task:
    """Return a step that runs when it has to."""
    return lab.step(name, inputs, outputs, content, run_when="stale", **fields)


def chain(lab: Lab, **fields: object) -> list[Task]:
    """Return three steps, each of which reads the product of the one before; the first reads in.txt."""
    return [
        stale(lab, "a", "in.txt", "a.txt", **fields),
        stale(lab, "b", "a.txt", "b.txt", **fields),
        stale(lab, "c", "b.txt", "c.txt", **fields),
    ]


def test_second_run_is_up_to_date(lab) -> None:
    """Each task succeeds without running, with the reason."""
    lab.write("in.txt", "1")
    assert lab.ran(*chain(lab)) == ["a", "b", "c"]

    outcomes = lab.run(*chain(lab))

    assert {outcome.state for outcome in outcomes.values()} == {TaskState.UP_TO_DATE}
    assert re.fullmatch("b.txt is unchanged since [0-9-]{10} [0-9:]{8}, and so is a.txt", outcomes["b"].reason)
    assert lab.diary == ["a", "b", "c"]


def test_changed_input_reruns_downstream_tasks(lab) -> None:
    """The first reason names the changed input, the others the upstream task."""
    lab.write("in.txt", "1")
    lab.run(*chain(lab))
    lab.write("in.txt", "22")

    assert lab.ran(*chain(lab)) == ["a", "b", "c"]
    assert lab.observer.reasons == {"a": "in.txt has changed", "b": "'a' was re-run", "c": "'b' was re-run"}


def test_compare_content_unchanged_rerun_leaves_downstream_up_to_date(lab) -> None:
    """The downstream step is up to date, because its input is unchanged."""
    lab.write("in.txt", "1")
    same = stale(lab, "a", (), "a.txt", compare="content", dependencies="in.txt")
    after = stale(lab, "b", "a.txt", "b.txt", compare="content")
    lab.run(same, after)
    lab.write("in.txt", "2")

    assert lab.explained(same, after) == {
        "a": "in.txt has changed",
        "b": "'a' runs before it and may produce the same files",
    }
    assert lab.ran(same, after) == ["a"]
    assert lab.ran(same, after) == []


def test_compare_content_plan_of_rebuilt_dependency_is_not_sure(lab) -> None:
    """A manual change of the file is irrelevant, as it will be rebuilt."""
    tasks = [stale(lab, "a", (), "a.txt", compare="content"), stale(lab, "b", "a.txt", "b.txt", compare="content")]
    lab.run(*tasks)
    lab.write("a.txt", "by hand")

    assert lab.explained(*tasks) == {
        "a": "a.txt was changed after it was created",
        "b": "'a' runs before it and may produce the same files",
    }
    assert lab.ran(*tasks) == ["a"]


def test_compare_content_ignores_touched_file(lab) -> None:
    """By time it is another one."""
    lab.write("in.txt", "1")
    for compare, ran in (("content", []), ("mtime", ["a"])):
        task = stale(lab, "a", "in.txt", f"{compare}.txt", compare=compare)
        lab.run(task)
        lab.touch("in.txt")
        assert lab.ran(task) == ran


def test_failed_task_after_upstream_rerun_is_stale_in_next_run(lab) -> None:
    """The rerun of its upstream task is recorded, though there is no path between the two."""
    lab.write("in.txt", "1")
    tasks = stale(lab, "a", "in.txt", "a.txt"), stale(lab, "b", (), "b.txt")
    edges = [tasks]
    lab.run(*tasks, edges=edges)
    lab.write("in.txt", "2")
    lab.write("fail-b")
    assert lab.run(*tasks, edges=edges)["b"].state is TaskState.FAILED
    (lab.folder / "fail-b").unlink()

    assert lab.ran(*tasks, edges=edges) == ["b"]
    assert lab.observer.reasons == {"b": "'a' was re-run since b.txt was created"}
    assert lab.ran(*tasks, edges=edges) == []


def test_changed_parameters_are_stale_except_ignored(lab) -> None:
    """The reason names the parameters."""
    lab.run(stale(lab, "a", (), "a.txt", content=1, args=["--content", Ignored(1)]))

    assert lab.ran(stale(lab, "a", (), "a.txt", content=1, args=["--content", Ignored(2)])) == []
    assert lab.ran(stale(lab, "a", (), "a.txt", content=2, args=["--content", Ignored(2)])) == ["a"]
    assert lab.observer.reasons == {"a": "a.txt was created with other parameters"}


def test_modified_product_is_stale(lab) -> None:
    """The file differs from its record."""
    task = stale(lab, "a", (), "a.txt")
    lab.run(task)
    lab.write("a.txt", "by hand")

    assert lab.ran(task) == ["a"]
    assert lab.observer.reasons == {"a": "a.txt was changed after it was created"}


def test_run_when_missing_checks_existence_only(lab) -> None:
    """Changed inputs do not count, a missing product does."""
    lab.write("in.txt", "1")
    task = lab.step("a", "in.txt", "a.txt", run_when="missing")
    assert lab.ran(task) == ["a"]
    lab.write("in.txt", "2")
    assert lab.ran(task) == []
    (lab.folder / "a.txt").unlink()

    assert lab.ran(task) == ["a"]
    assert lab.observer.reasons == {"a": "a.txt is missing"}


def test_fingerprint_of_directory_includes_link_targets(lab) -> None:
    """The fingerprint of a directory includes the targets of its links."""
    (lab.folder / "data").mkdir()
    for name in ("one", "two"):
        lab.write(f"{name}/x.txt", name)
    (lab.folder / "data/link").symlink_to("../one")
    task = stale(lab, "a", (), "a.txt", dependencies="data")
    lab.run(task)
    assert lab.ran(task) == []
    (lab.folder / "data/link").unlink()
    (lab.folder / "data/link").symlink_to("../two")

    assert lab.ran(task) == ["a"]


@pytest.mark.parametrize("outputs", ["a.txt", "a/"])
def test_compare_content_records_identity_of_files_in_place(lab, outputs) -> None:
    """While device, inode and ctime are those of the record, nothing is read again."""
    lab.write("in/x", "x")
    source = "(paths[0] / 'y' if paths[0].is_dir() else paths[0]).write_text('x')"
    fields = {"dependencies": ["in", "in/x"], "run_when": "stale", "compare": "content"}
    task = writer(lab, source, Product(outputs), **fields)
    lab.run(task)
    record = read_record(str(lab.folder / outputs.rstrip("/")))

    assert record.product == fingerprint_of(str(lab.folder / outputs), read=True)
    assert record.dependencies == {path: fingerprint_of(str(lab.folder / path), read=True) for path in ("in", "in/x")}


def test_compare_content_does_not_read_named_pipe(lab) -> None:
    """A named pipe has no content to compare; a read would wait for a writer."""
    os.mkfifo(lab.folder / "pipe")
    task = stale(lab, "a", (), "a.txt", dependencies="pipe", compare="content")

    assert lab.ran(task) == ["a"]
    assert lab.ran(task) == []


def test_temporary_product_is_removed_after_its_last_consumer(lab) -> None:
    """Not while one of them is still to come, nor when one failed; a later run needs it no more."""
    tasks = [
        stale(lab, "a", (), Product("t.txt", temporary=True)),
        stale(lab, "b", "t.txt", "b.txt"),
        stale(lab, "c", ["t.txt", "b.txt"], "c.txt"),
    ]
    lab.write("fail-c")
    assert lab.run(*tasks)["c"].state is TaskState.FAILED
    assert lab.has("t.txt")
    (lab.folder / "fail-c").unlink()

    assert lab.ran(*tasks) == ["c"]
    assert not lab.has("t.txt")
    assert lab.ran(*tasks) == []


def test_removed_temporary_product_is_rebuilt_when_required(lab) -> None:
    """The reason names the consumer; a whole chain is rebuilt."""
    tasks = [
        stale(lab, "a", (), Product("a.txt", temporary=True)),
        stale(lab, "b", "a.txt", Product("b.txt", temporary=True)),
        stale(lab, "c", "b.txt", "c.txt"),
    ]
    lab.run(*tasks)
    (lab.folder / "c.txt").unlink()

    assert lab.explained(*tasks)["a"] == "a.txt was removed after use, and 'b' needs it again"
    assert lab.ran(*tasks) == ["a", "b", "c"]
    assert not lab.has("a.txt")
    assert not lab.has("b.txt")


def test_temporary_product_is_rebuilt_for_unsure_consumer(lab) -> None:
    """By content, the decision follows only during the run; its inputs are produced before."""
    lab.write("in.txt", "1")
    tasks = [
        stale(lab, "t", (), Product("t.txt", temporary=True), compare="content"),
        stale(lab, "v", "in.txt", "v.txt", compare="content"),
        stale(lab, "u", ["t.txt", "v.txt"], "u.txt", compare="content"),
    ]
    lab.run(*tasks)
    lab.write("in.txt", "2")

    assert sorted(lab.ran(*tasks)) == ["t", "u", "v"]
    assert not lab.has("t.txt")


def test_removed_product_no_longer_temporary_is_rebuilt(lab) -> None:
    """That it was removed after use is no excuse any more."""
    after = stale(lab, "b", "t.txt", "b.txt")
    lab.run(stale(lab, "a", (), Product("t.txt", temporary=True)), after)

    lab.ran(stale(lab, "a", (), Product("t.txt")), after)

    assert lab.has("t.txt")


def test_temporary_product_of_excluded_consumer_is_not_removed(lab) -> None:
    """A part of the workflow does not decide for the rest of it."""
    tasks = [
        stale(lab, "a", (), Product("t.txt", temporary=True)),
        stale(lab, "b", "t.txt", "b.txt"),
        stale(lab, "c", "t.txt", "c.txt"),
    ]

    assert lab.ran(*tasks, select=["a", "b"]) == ["a", "b"]
    assert lab.has("t.txt")
    assert lab.ran(*tasks) == ["c"]
    assert not lab.has("t.txt")


def test_select_runs_subset_on_existing_products(lab) -> None:
    """The order by excluded tasks stays; the downstream tasks of forced ones run."""
    lab.write("in.txt", "1")
    tasks = [lab.step("a", "in.txt", "a.txt"), lab.step("b", "a.txt", "b.txt"), lab.step("c", "b.txt", "c.txt")]
    lab.run(*tasks)

    assert lab.ran(*tasks, select=["c"]) == ["c"]
    assert lab.ran(*tasks, select=["b+"]) == ["b", "c"]
    assert lab.ran(*tasks, select=["c", "a"]) == ["a", "c"]


def test_missing_product_of_excluded_task_names_its_producer(lab) -> None:
    """No task runs, and the message names the producer."""
    tasks = [lab.step("a", (), "a.txt"), lab.step("b", "a.txt", "b.txt")]

    with pytest.raises(SewerError) as caught:
        lab.run(*tasks, select=["b"])

    assert "task 'b' needs 'a.txt', a product of task 'a', which is not selected" in str(caught.value)
    assert lab.diary == []


def test_incomplete_product_of_excluded_task_raises(lab) -> None:
    """Its record is that of an interrupted run; no task runs on it."""
    tasks = [
        lab.step("a", (), Product("a.txt", atomic=False)),
        lab.step("b", "a.txt", "b.txt"),
    ]
    lab.run(*tasks)
    record = lab.read(".sewer/a.txt.json").replace('"is_complete": true', '"is_complete": false')
    lab.write(".sewer/a.txt.json", record)

    with pytest.raises(SewerError, match=r"'a.txt'.*when an earlier run was killed"):
        lab.run(*tasks, select=["b"])


def test_missing_external_input_raises_before_start(lab) -> None:
    """So is any dependency without a producer; the message identifies a dangling link."""
    first = lab.step("first")
    (lab.folder / "link").symlink_to("nowhere")
    for dependency, message in (
        (External("from/elsewhere.csv"), "which is external and does not exist"),
        (Dependency("missing.csv"), "which is not a product of any task and does not exist"),
        (Dependency("link"), "which is not a product of any task and is a broken link"),
    ):
        with pytest.raises(SewerError) as caught:
            lab.run(first, lab.step("later", dependencies=[dependency]))
        assert f"task 'later' needs {dependency.path!r}, {message}: {lab.folder / dependency.path}" in str(caught.value)
    assert lab.diary == []


def test_run_when_never_ignores_missing_dependencies(lab) -> None:
    """Its product is enough."""
    lab.write("a.txt", "there")
    tasks = [lab.step("a", "gone.txt", "a.txt", run_when="never"), lab.step("b", "a.txt", "b.txt")]

    assert lab.ran(*tasks) == ["b"]
    with pytest.raises(SewerError, match=r"'gone\.txt'"):
        lab.run(*tasks, forced=["a"])


def test_relative_and_absolute_path_are_one_edge(lab, monkeypatch) -> None:
    """Edges are found between the two forms of a path, though no workdir is set."""
    monkeypatch.chdir(lab.folder)
    tasks = [lab.step("b", str(lab.folder / "a.txt"), "b.txt"), lab.step("a", (), "a.txt")]

    outcomes = WorkflowRunner(Workflow("w", tasks), lab.settings._replace(workdir=None)).run()

    assert {outcome.state for outcome in outcomes.values()} == {TaskState.SUCCEEDED}
    assert lab.diary == ["a", "b"]


def test_changed_upstream_result_is_stale(lab) -> None:
    """A result is a parameter like others; an equal result changes nothing in a later run."""
    lab.write("seed", "1")
    generate = lab.module(
        "gen",
        "import sys; print(open('seed').read()); open(sys.argv[1], 'w')",
        args=[Product("g")],
        run_when="stale",
        dependencies="seed",
    )
    train = stale(lab, "train", (), "t.txt", content=generate.result)
    lab.run(generate, train)
    assert lab.read("t.txt") == "train 1\n"
    assert lab.ran(generate, train) == []
    lab.write("seed", "22")

    assert lab.ran(generate, train) == ["train"]
    assert lab.read("t.txt") == "train 22\n"


def test_stale_with_code_reruns_after_code_change(lab) -> None:
    """That of any .py file of the package; of a module that is a file, of that file."""
    lab.write("pkg/__init__.py")
    lab.write("pkg/sub/helper.py", "VALUE = 1")
    os.mkfifo(lab.folder / "pkg" / "pipe.py")  # no code, and not to be waited for
    source = "import sys\nfrom pkg.sub.helper import VALUE\nopen(sys.argv[1], 'w').write(str(VALUE))\n"
    lab.write("pkg/run.py", source)
    lab.write("alone.py", source)

    def task(module: str, *stale_with: str) -> Task:
        return Task(module, module, args=[Product(f"{module}.txt")], run_when="stale", stale_with=stale_with)

    tasks = [task("pkg.run", "code"), task("alone", "code")]
    lab.run(*tasks, task("pkg.sub.helper"))
    lab.write("pkg/sub/helper.py", "VALUE = 22")

    outcomes = lab.run(*tasks)

    assert outcomes["pkg.run"].state is TaskState.SUCCEEDED
    assert outcomes["alone"].state is TaskState.UP_TO_DATE
    assert lab.observer.reasons == {"pkg.run": "its code has changed"}
    lab.write("alone.py", source + "# another line\n")
    reasons = lab.explained(*tasks)
    assert reasons["alone"] == "its code has changed"
    assert re.fullmatch("pkg.run.txt is unchanged since .*, and so are its parameters", reasons["pkg.run"])


def test_stale_with_code_does_not_import_package(lab) -> None:
    """A package whose import has effects is only looked for."""
    lab.write("pkg/__init__.py", "open('imported', 'a').write('x')")
    lab.write("pkg/run.py", "import sys; open(sys.argv[1], 'w')")
    task = Task("t", "pkg.run", args=[Product("t.txt")], run_when="stale", stale_with="code")
    lab.run(task)
    before = lab.read("imported")

    assert lab.run(task)["t"].state is TaskState.UP_TO_DATE
    assert lab.read("imported") == before


def test_stale_with_code_of_missing_package_raises(lab) -> None:
    """A module that is part of the interpreter has no file that could be compared."""
    task = Task("t", function="time:time", products="x", run_when="stale", stale_with="code")

    assert "has no file" in lab.run(task)["t"].reason


def test_stale_with_environment_reruns_after_env_change(lab) -> None:
    """A given variable, and the version of an installed package; not otherwise."""

    def task(*stale_with: str, **env: str) -> Task:
        return stale(lab, "a", (), "a.txt", stale_with=stale_with, env=env)

    lab.run(task("environment", SEED="1"))
    assert lab.ran(task("environment", SEED="1")) == []
    assert lab.ran(task("environment", SEED="2")) == ["a"]
    assert lab.observer.reasons == {"a": "its environment has changed"}

    lab.write("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
    assert lab.ran(task("environment", SEED="2")) == ["a"]
    assert lab.ran(task("environment", SEED="2")) == []


def test_stale_with_code_added_later_is_stale(lab) -> None:
    """Nothing is known of the code that the product was made with."""
    lab.run(stale(lab, "a", (), "a.txt"))

    assert lab.ran(stale(lab, "a", (), "a.txt", stale_with="code")) == ["a"]
    assert lab.ran(stale(lab, "a", (), "a.txt", stale_with="code")) == []


def test_select_matches_merged_task_by_either_name(lab) -> None:
    """Both names refer to the task."""
    one, other = (Task(name, "step", {"out": Product("x.txt")}) for name in ("one", "other"))
    part, forced = select_tasks(Workflow("w", [one, other]), Selection(select=("other",), forced=("other",)))

    assert (list(part.tasks), forced) == (["one"], ("one",))


def test_forced_mapped_task_runs_all_its_instances(lab) -> None:
    """All its instances run; instances outside of the selection raise an error."""
    mapped = lab.step("looped").map(content=[1, 2])  # a name of this test alone: names are those of the process

    assert sorted(lab.ran(*mapped, lab.step("b"), resume=False)) == ["b", "looped", "looped"]
    assert lab.ran(*mapped, lab.step("b"), resume=True) == []
    assert lab.ran(*mapped, lab.step("b"), resume=True, forced=["looped"]) == ["looped", "looped"]
    with pytest.raises(SewerError, match=r"task 'looped\[content=2\]' is forced, but it is not selected"):
        lab.ran(*mapped, resume=True, forced=["looped"], select=["looped[content=1]"])
