"""A product's real name never appears half-written, and success without its products is a failure."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from airflow_provider_sewer import Dependency, Product, Task
from airflow_provider_sewer.core.errors import ProductError
from airflow_provider_sewer.core.freshness import Record
from airflow_provider_sewer.runners.engine import Engine
from airflow_provider_sewer.runners.outcome import State
from airflow_provider_sewer.runners.products import Making, made_before, read_record, remove_temporary, write_record
from tests.runners.lab import Lab, lab

__all__ = ["lab"]

RECORD = Record("t", "digest", None, {})


def writer(lab: Lab, source: str, *products: Product, name: str = "made", **fields: object) -> Task:
    """Return a task whose module is given the paths of its products, and Path to write them with."""
    text = f"import os, sys, shutil\nfrom pathlib import Path\npaths = [Path(p) for p in sys.argv[1:]]\n{source}"
    return lab.module(name, text, args=list(products), **fields)


def outcome_of(lab: Lab, task: Task) -> tuple[State, str]:
    outcome = lab.run(task)[task.name]
    return outcome.state, outcome.reason


def test_a_product_appears_under_its_real_name_when_its_task_has_succeeded(lab) -> None:
    """While the module runs there is nothing under the real name; then it is there, and nothing else is left."""
    task = writer(
        lab, "paths[0].write_text('all'); assert not Path('build/raw.txt').exists()", Product("build/raw.txt")
    )

    assert outcome_of(lab, task) == (State.SUCCEEDED, "")
    assert lab.read("build/raw.txt") == "all"
    assert lab.names("build") == [".sewer", ".sewer/raw.txt.json", "raw.txt"]


def test_the_module_sees_the_name_that_the_product_will_have(lab) -> None:
    """The last part of the path that it is given is the same, so that what goes by the ending still does."""
    task = writer(lab, "paths[0].write_text(paths[0].name)", Product("build/a.tar.gz"))

    lab.run(task)

    assert lab.read("build/a.tar.gz") == "a.tar.gz"


def test_what_a_failed_task_has_made_is_kept_under_another_name(lab) -> None:
    """The real name stays what it was; the new one lies beside it as ….failed until the task succeeds."""
    good = writer(lab, "paths[0].write_text('good')", Product("x.txt"))
    bad = writer(lab, "paths[0].write_text('half'); sys.exit(3)", Product("x.txt"), name="bad", task="made")
    lab.run(good)

    assert outcome_of(lab, bad)[0] is State.FAILED
    assert (lab.read("x.txt"), lab.read("x.txt.failed")) == ("good", "half")
    assert outcome_of(lab, good)[0] is State.SUCCEEDED
    assert not lab.has("x.txt.failed")


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "x" * 250 + ".txt"])
@pytest.mark.parametrize("atomic", [True, False])
def test_a_product_can_have_the_longest_name_there_is(name, atomic, lab) -> None:
    """What lies beside it, its record and what a failed task has made of it, has a shorter one."""
    product = Product(name, atomic=atomic)
    good = writer(lab, "paths[0].write_text('good')", product)
    bad = writer(lab, "paths[0].write_text('half'); sys.exit(3)", product, name="bad", task="made")

    assert outcome_of(lab, bad)[0] is State.FAILED
    assert [lab.read(each) for each in lab.names() if each.endswith(".failed") and "/" not in each] == ["half"]
    assert outcome_of(lab, good) == (State.SUCCEEDED, "")
    assert lab.read(name) == "good"
    assert read_record(str(lab.folder / name)).is_whole
    assert not [each for each in lab.names() if each.endswith(".failed")]


def test_what_a_failed_task_has_made_is_removed_on_request(lab) -> None:
    """With on_failure='remove' nothing is left, neither of an atomic product nor of another."""
    products = Product("x", on_failure="remove"), Product("y/", on_failure="remove", atomic=False)
    task = writer(lab, "paths[0].write_text('half'); (paths[1] / 'z').write_text('half'); sys.exit(3)", *products)

    assert outcome_of(lab, task)[0] is State.FAILED
    assert [name for name in lab.names() if "x" in name or "y/" in name] == []
    assert not lab.has("y")


def test_success_without_the_product_is_a_failure_that_names_it(lab) -> None:
    """The message says which product, and where it was expected."""
    state, reason = outcome_of(lab, writer(lab, "", Product("build/raw.txt")))

    assert state is State.FAILED
    assert reason.startswith("it exited with 0, but did not make build/raw.txt: it was to write it to the path it was")


def test_success_with_one_of_two_products_puts_none_in_place(lab) -> None:
    """What was made of them is kept as ….failed."""
    task = writer(lab, "paths[0].write_text('one')", Product("one.txt"), Product("two.txt"))

    assert outcome_of(lab, task)[0] is State.FAILED
    assert not lab.has("one.txt")
    assert lab.read("one.txt.failed") == "one"


def test_a_module_that_writes_the_real_name_itself_is_told_how_to_say_so(lab) -> None:
    """It is a failure, for the path could have been seen half-written; the message has the two ways out."""
    state, reason = outcome_of(lab, writer(lab, "Path('x.txt').write_text('mine')", Product("x.txt")))

    assert state is State.FAILED
    assert "it wrote to x.txt itself" in reason
    assert "Product('x.txt', atomic=False)" in reason


def test_a_product_named_lock_is_not_there_before_it_is_made(lab) -> None:
    """No name that a product may have is one that this package uses beside it."""
    for name in ("lock", "new", "old", "old-lock", "making-x"):
        assert outcome_of(lab, writer(lab, "", Product(name)))[0] is State.FAILED, name
        task = writer(lab, "assert not paths[0].exists(); paths[0].write_text('mine')", Product(name))
        assert outcome_of(lab, task) == (State.SUCCEEDED, ""), name
        assert lab.read(name) == "mine"


@pytest.mark.parametrize("path", ["build/", "build"])
def test_a_directory_can_be_a_product(lab, path) -> None:
    """It is made under another name as a whole, and takes the place of the one before as a whole."""
    make = "paths[0].mkdir(exist_ok=True); (paths[0] / sys.argv[2]).write_text('x')"
    tasks = [
        lab.module(
            "made",
            f"import sys; from pathlib import Path; paths = [Path(sys.argv[1])]\n{make}",
            args=[Product(path), name],
        )
        for name in ("one", "two")
    ]

    lab.run(tasks[0])
    lab.run(tasks[1])

    assert lab.names("build") == ["two"]
    assert lab.names(".sewer") == ["build.json"]


@pytest.mark.parametrize("atomic", [True, False])
def test_a_directory_that_was_made_for_the_module_and_stays_empty_was_not_made(lab, atomic) -> None:
    """A trailing slash has it made for the module; that alone is no product."""
    state, reason = outcome_of(lab, writer(lab, "", Product("build/", atomic=atomic)))

    assert state is State.FAILED
    assert "did not make build/" in reason


def test_a_directory_takes_the_place_of_a_file_and_a_file_that_of_a_directory(lab) -> None:
    """What was there before is gone, of whatever kind it was."""
    lab.run(writer(lab, "paths[0].write_text('file')", Product("x")))
    lab.run(writer(lab, "paths[0].mkdir(); (paths[0] / 'in').write_text('dir')", Product("x")))
    assert lab.read("x/in") == "dir"

    lab.run(writer(lab, "paths[0].write_text('file')", Product("x")))
    assert lab.read("x") == "file"
    assert lab.names(".sewer") == ["x.json"]


def test_a_directory_that_cannot_be_put_in_place_leaves_the_former_one(lab, monkeypatch) -> None:
    """Between the two steps that replacing a directory takes, an error gives the old one its name back."""
    lab.write("x/old")
    write_record(str(lab.folder / "x"), RECORD)
    making = Making("t", [Product("x")], str(lab.folder))
    making.begin()
    Path(lab.folder, making.place(Product("x"))).mkdir()
    really = os.replace

    def refuse(source: str, target: str) -> None:
        if target.endswith("/x"):
            raise OSError(5, "Input/output error", target)
        really(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ProductError, match=r"cannot be put in place: .*/x: Input/output error"):
        making.publish(RECORD)
    monkeypatch.undo()
    making.fail()

    assert lab.names("x") == ["old"]


def test_a_product_under_its_real_name_has_to_be_made_anew(lab) -> None:
    """atomic=False gives the module the real path; what was there before and is unchanged was not made."""
    product = Product("x.txt", atomic=False)
    assert outcome_of(lab, writer(lab, "assert sys.argv[1] == 'x.txt'; paths[0].write_text('1')", product))[
        0
    ].is_success

    state, reason = outcome_of(lab, writer(lab, "", product))

    assert state is State.FAILED
    assert "did not make x.txt anew" in reason
    assert lab.read("x.txt") == "1"
    assert read_record(str(lab.folder / "x.txt")).is_whole


def test_a_failed_task_that_never_touched_its_product_leaves_no_trace_of_it(lab) -> None:
    """Neither a file nor a record that says that something was begun."""
    lab.run(writer(lab, "sys.exit(3)", Product("x.txt", atomic=False)))

    assert [name for name in lab.names() if "x.txt" in name] == []


def test_a_path_is_taken_the_same_way_by_the_module_and_by_the_check(lab, monkeypatch) -> None:
    """~, a detour by a folder that is not there, a trailing slash: the module gets a path that it can use as it is."""
    monkeypatch.setenv("HOME", str(lab.folder / "home"))
    lab.write("home/in.txt", "from home")
    products = Product("~/out.txt"), Product("~/plain.txt", atomic=False), Product("nowhere/../out.txt")
    task = writer(
        lab,
        "text = paths.pop().read_text()\nfor path in paths: path.write_text(text)",
        *products,
        Dependency("~/in.txt"),
        task="home",
    )

    assert outcome_of(lab, task) == (State.SUCCEEDED, "")
    assert {lab.read(name) for name in ("home/out.txt", "home/plain.txt", "out.txt")} == {"from home"}
    assert not lab.has("nowhere")
    assert not lab.has("~")


def test_products_may_lie_on_another_file_system(lab, tmp_path) -> None:
    """They are made beside their real name, so that they are put in place there, too, in one step."""
    if not os.access("/dev/shm", os.W_OK) or os.stat("/dev/shm").st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system here to write to")
    elsewhere = Path("/dev/shm", f"sewer-test-{os.getpid()}")
    try:
        products = Product("here.txt"), Product(elsewhere / "there.txt"), Product(f"{elsewhere}/folder/")
        task = writer(
            lab,
            "paths[0].write_text('1'); paths[1].write_text('2'); (paths[2] / 'x').write_text('3')",
            *products,
        )
        assert outcome_of(lab, task) == (State.SUCCEEDED, "")
        assert (elsewhere / "there.txt").read_text() == "2"
        assert (elsewhere / "folder/x").read_text() == "3"
    finally:
        shutil.rmtree(elsewhere, ignore_errors=True)


def test_a_folder_of_products_may_be_a_link(lab, tmp_path) -> None:
    """A link on the way is followed; one that stands where the product belongs is replaced, its target untouched."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "old.txt").write_text("old")
    (lab.folder / "build").symlink_to(tmp_path / "scratch")
    (lab.folder / "build/x.txt").symlink_to(tmp_path / "old.txt")

    assert outcome_of(lab, writer(lab, "paths[0].write_text('new')", Product("build/x.txt")))[0].is_success

    assert (lab.folder / "build").is_symlink()
    assert (tmp_path / "scratch/x.txt").read_text() == "new"
    assert (tmp_path / "old.txt").read_text() == "old"


def test_a_link_can_be_a_product_if_it_leads_somewhere_from_its_real_place(lab) -> None:
    """One that would lead nowhere once it is in place was not made."""
    lab.write("target.txt", "target")
    good = writer(lab, "paths[0].symlink_to(Path('target.txt').resolve())", Product("link"))
    bad = writer(lab, "paths[0].symlink_to('nowhere.txt')", Product("broken"), name="bad")

    assert outcome_of(lab, good)[0].is_success
    assert lab.read("link") == "target"
    state, reason = outcome_of(lab, bad)
    assert state is State.FAILED
    assert "a link that leads nowhere" in reason


@pytest.mark.parametrize("atomic", [True, False])
def test_where_its_own_folder_cannot_be_made_the_product_is_named(lab, atomic) -> None:
    """What stands in the way is named as well, and nothing runs."""
    lab.write("build/.sewer", "a file")

    state, reason = outcome_of(
        lab, writer(lab, "open('ran', 'w')", Product("x.txt"), Product("build/x.txt", atomic=atomic))
    )

    assert state is State.FAILED
    assert "task 'made': product 'build/x.txt': " in reason
    assert "build/.sewer" in reason
    assert not lab.has("ran")
    assert lab.names(".sewer") == []


def test_a_record_that_cannot_be_written_is_named_and_leaves_no_real_name(lab) -> None:
    """The task fails with the product's name; what was made is kept aside."""
    making = Making("t", [Product("x.txt")], str(lab.folder))
    making.begin()
    Path(lab.folder, making.place(Product("x.txt"))).write_text("made")
    (lab.folder / ".sewer/x.txt.json").mkdir()

    with pytest.raises(ProductError, match=r"task 't': product 'x.txt': .*x.txt.json"):
        making.publish(RECORD)
    making.fail()

    assert not lab.has("x.txt")
    assert lab.read("x.txt.failed") == "made"


def test_what_a_killed_attempt_leaves_is_removed_by_the_next_one(lab) -> None:
    """Also that of several products in one folder; what other tasks make there meanwhile is left alone."""
    killed, other = ([Product("a"), Product("b")], [Product("c")])
    making = Making("t", killed, str(lab.folder))
    making.begin()
    Path(lab.folder, making.place(killed[0])).write_text("half")
    Path(lab.folder, making.place(killed[1])).write_text("half")
    for lock in making._locks:
        os.close(lock)  # as the system does when a process is killed
    living = Making("u", other, str(lab.folder))
    living.begin()

    again = Making("t", killed, str(lab.folder))
    again.begin()

    left = [name for name in os.listdir(lab.folder / ".sewer") if name.startswith("making-")]
    assert len(left) == 2
    Path(lab.folder, living.place(other[0])).write_text("whole")
    living.publish(RECORD)
    again.fail()
    assert lab.read("c") == "whole"


def test_two_attempts_at_one_path_leave_one_of_the_two_whole(lab) -> None:
    """Each makes its own; the last one counts, and the record of one is never taken for that of the other."""
    product = Product("x")
    one, two = (Making(name, [product], str(lab.folder)) for name in ("one", "two"))
    one.begin()
    two.begin()
    for making, text in ((one, "1"), (two, "two")):
        Path(lab.folder, making.place(product)).write_text(text)
    one.publish(RECORD._replace(task="one"))
    two.publish(RECORD._replace(task="two"))

    assert lab.read("x") == "two"
    assert read_record(str(lab.folder / "x")).task == "two"
    assert lab.names(".sewer") == ["x.json"]


def test_a_stamp_is_of_what_the_attempt_made_not_of_what_lies_there_later(lab, monkeypatch) -> None:
    """Should another attempt replace a product just before its record is written, the record does not fit it."""
    product = Product("x")
    making = Making("one", [product], str(lab.folder))
    making.begin()
    Path(lab.folder, making.place(product)).write_text("mine")
    really = os.replace

    def replaced_at_once(source: str, target: str) -> None:
        really(source, target)
        if target.endswith("/x"):
            Path(target).write_text("somebody else's")

    monkeypatch.setattr(os, "replace", replaced_at_once)
    making.publish(RECORD)

    made = made_before([product], str(lab.folder))[0]
    assert made.record.product.seen.endswith("-4")


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", '"x"', '{"task": "t"}', '{"dependencies": 1}', "\x00", '{"product": [1, 2, 3]}']
)
def test_a_record_that_cannot_be_read_is_none(lab, text) -> None:
    """Whatever is in it; the product counts as one of which nothing is known."""
    lab.write(".sewer/x.json", text)

    assert read_record(str(lab.folder / "x")) is None


def test_a_record_cut_at_any_byte_is_none(lab) -> None:
    """It is written at once, but a disk may lose its end."""
    lab.run(writer(lab, "paths[0].write_text('x')", Product("x")))
    whole = lab.read(".sewer/x.json")

    for length in range(len(whole)):
        lab.write(".sewer/x.json", whole[:length])
        assert read_record(str(lab.folder / "x")) is None


def test_a_record_of_an_older_version_is_none(lab) -> None:
    """A field that is missing, or one that nobody knows."""
    lab.run(writer(lab, "paths[0].write_text('x')", Product("x")))
    said = json.loads(lab.read(".sewer/x.json"))
    del said["is_whole"]
    lab.write(".sewer/x.json", json.dumps(said))

    assert read_record(str(lab.folder / "x")) is None


def test_a_run_that_is_stopped_while_products_are_put_in_place_puts_all_of_them_there(lab, monkeypatch) -> None:
    """The work is done; its task has succeeded, and only what comes after it is not started."""
    task = writer(lab, "for path in paths: path.write_text('x')", Product("one"), Product("two"))
    engine = Engine(lab.workflow(task, lab.step("after", depends_on="made")))
    really = os.replace

    def interrupted(source: str, target: str) -> None:
        engine.stop(at_once=True)
        really(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    outcomes = engine.run()

    assert [outcome.state for outcome in outcomes.values()] == [State.SUCCEEDED, State.STOPPED]
    assert (lab.read("one"), lab.read("two")) == ("x", "x")


def test_removing_a_temporary_product_is_taken_up_where_it_was_left(lab) -> None:
    """A process that was ended between noting and doing it leaves it to the next one; what lies there since is kept."""
    product = Product("x", temporary=True)
    lab.run(writer(lab, "paths[0].write_text('x')", product))
    file = str(lab.folder / "x")
    write_record(file, read_record(file)._replace(is_removed=True))

    assert remove_temporary(product, str(lab.folder))
    assert lab.names(".sewer") == ["x.json"]
    assert not remove_temporary(product, str(lab.folder))
    lab.write("x", "by hand")
    assert not remove_temporary(product, str(lab.folder))
    assert lab.read("x") == "by hand"


def test_a_temporary_product_that_is_not_whole_is_not_removed(lab) -> None:
    """It may be somebody else's by now; nothing is removed of which it is not known that it was made here."""
    lab.write("x", "by hand")

    remove_temporary(Product("x", temporary=True), str(lab.folder))

    assert lab.read("x") == "by hand"


@pytest.mark.parametrize(
    ("there", "product"), [("data/thesis/chapter", "data"), ("data/thesis/chapter", "data/"), ("data", "data/")]
)
def test_what_no_task_has_made_is_not_replaced(there, product, lab) -> None:
    """A directory with something in it, or a file where a directory is to be: it is said before anything runs."""
    lab.write(there, "precious")
    with pytest.raises(ProductError, match="that no task has made; move it away, or give the product another path"):
        Making("t", [Product(product)], str(lab.folder)).begin()

    assert (lab.folder / there).read_text() == "precious"


def test_a_directory_does_not_replace_a_file_that_no_task_has_made(lab) -> None:
    """Of which nobody could know beforehand; the file stays."""
    lab.write("data", "precious")
    making = Making("t", [Product("data")], str(lab.folder))
    making.begin()
    Path(lab.folder, making.place(Product("data"))).mkdir()
    with pytest.raises(ProductError, match="is a file that no task has made"):
        making.publish(RECORD)
    making.fail()

    assert (lab.folder / "data").read_text() == "precious"


def test_what_only_looks_like_the_rest_of_a_failure_stays(lab) -> None:
    """What is kept of a failed attempt takes no other file's place, and the next success removes but its own."""
    lab.write("x.txt.failed", "mine")
    product = Product("x.txt")
    for succeeds in (False, True):
        making = Making("t", [product], str(lab.folder))
        making.begin()
        Path(lab.folder, making.place(product)).write_text("made")
        if succeeds:
            making.publish(RECORD)
        else:
            making.fail()

    assert (lab.folder / "x.txt.failed").read_text() == "mine"
    assert (lab.folder / "x.txt").read_text() == "made"


def test_a_result_names_products_by_their_real_names(lab) -> None:
    """Whether a module tells the path that it was given, or the whole one."""
    product = Product("x.txt")
    making = Making("t", [product], str(lab.folder))
    place = making.place(product)

    told = making.real_names_in({"path": place, "whole": [f"in {lab.folder}/{place}"], "number": 3})
    assert told == {"path": "x.txt", "whole": [f"in {lab.folder}/x.txt"], "number": 3}
