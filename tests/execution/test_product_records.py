"""Records of products, including those of killed attempts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from airflow_provider_sewer import Product
from airflow_provider_sewer.core.errors import ProductError
from airflow_provider_sewer.core.paths import located
from airflow_provider_sewer.execution.product_records import existing_products, read_record, write_record
from airflow_provider_sewer.execution.staged_products import StagedProducts
from airflow_provider_sewer.execution.temporary_products import remove_temporary
from tests.execution.product_workspace import RECORD, lab, writer

__all__ = ["lab"]


def test_unwritable_record_fails_task_and_discards_product(lab) -> None:
    """The task fails with the product's name; the staged product is saved aside."""
    making = StagedProducts("t", located([Product("x.txt")], str(lab.folder)))
    making.begin()
    Path(lab.folder, making.paths[Product("x.txt")]).write_text("made")
    (lab.folder / ".sewer/x.txt.json").mkdir()

    with pytest.raises(ProductError, match=r"task 't': product 'x.txt': .*x.txt.json"):
        making.commit(RECORD)
    making.discard()

    assert not lab.has("x.txt")
    assert lab.read("x.txt.failed") == "made"


def test_unwritable_record_discards_all_products_of_task(lab) -> None:
    """The records of all are written before the first is put in place."""
    products = [Product("x.txt"), Product("y.txt")]
    making = StagedProducts("t", located(products, str(lab.folder)))
    making.begin()
    for product in products:
        Path(lab.folder, making.paths[product]).write_text("made")
    (lab.folder / ".sewer/y.txt.json").mkdir()

    with pytest.raises(ProductError, match=r"product 'y.txt': .*y.txt.json"):
        making.commit(RECORD)
    making.discard()

    assert [name for name in lab.names() if not name.startswith(".sewer")] == ["x.txt.failed", "y.txt.failed"]


def test_begin_removes_staging_directory_of_killed_attempt(lab) -> None:
    """Also that of several products in one folder; staging directories of other tasks are left alone."""
    killed, other = ([Product("a"), Product("b")], [Product("c")])
    making = StagedProducts("t", located(killed, str(lab.folder)))
    making.begin()
    Path(lab.folder, making.paths[killed[0]]).write_text("half")
    Path(lab.folder, making.paths[killed[1]]).write_text("half")
    for lock in making._locks:
        os.close(lock)  # as the system does when a process is killed
    living = StagedProducts("u", located(other, str(lab.folder)))
    living.begin()

    again = StagedProducts("t", located(killed, str(lab.folder)))
    again.begin()

    left = [name for name in os.listdir(lab.folder / ".sewer") if name.startswith("making-")]
    assert len(left) == 2
    Path(lab.folder, living.paths[other[0]]).write_text("whole")
    living.commit(RECORD)
    again.discard()
    assert lab.read("c") == "whole"


def test_unfinished_record_of_killed_attempt_is_removed(lab) -> None:
    """Not while it may be of an attempt that is writing it, and not one of another product."""
    making = StagedProducts("t", located([Product("a")], str(lab.folder)))
    making.begin()
    making.discard()
    names = ["a.json.0123abcd", "a.json.89abcdef", "b.json.01234567", "a.json"]
    for name in names:
        lab.write(f".sewer/{name}")
        os.utime(lab.folder / ".sewer" / name, (1, 1))
    lab.write(".sewer/a.json.89abcdef")

    StagedProducts("t", located([Product("a")], str(lab.folder))).begin()

    assert [name for name in names if lab.has(f".sewer/{name}")] == names[1:]


def test_concurrent_attempts_commit_one_complete_product(lab) -> None:
    """Each makes its own; the last one counts, and the record of one is never taken for that of the other."""
    product = Product("x")
    one, two = (StagedProducts(name, located([product], str(lab.folder))) for name in ("one", "two"))
    one.begin()
    two.begin()
    for making, text in ((one, "1"), (two, "two")):
        Path(lab.folder, making.paths[product]).write_text(text)
    one.commit(RECORD._replace(task="one"))
    two.commit(RECORD._replace(task="two"))

    assert lab.read("x") == "two"
    assert read_record(str(lab.folder / "x")).task == "two"
    assert lab.names(".sewer") == ["x.json"]


def test_record_fingerprint_is_of_staged_product(lab, monkeypatch) -> None:
    """Should another attempt replace a product just before its record is written, the record does not fit it."""
    product = Product("x")
    making = StagedProducts("one", located([product], str(lab.folder)))
    making.begin()
    Path(lab.folder, making.paths[product]).write_text("mine")
    really = os.replace

    def replaced_at_once(source: str, target: str) -> None:
        really(source, target)
        if target.endswith("/x"):
            Path(target).write_text("of another attempt")

    monkeypatch.setattr(os, "replace", replaced_at_once)
    making.commit(RECORD)

    made = existing_products(located([product], str(lab.folder)))[0]
    assert made.record.product.seen.endswith("-4")


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", '"x"', '{"task": "t"}', '{"dependencies": 1}', "\x00", '{"product": [1, 2, 3]}']
)
def test_unreadable_record_is_none(lab, text) -> None:
    """For any content; the state of the product is unknown then."""
    lab.write(".sewer/x.json", text)

    assert read_record(str(lab.folder / "x")) is None


def test_truncated_record_is_none(lab) -> None:
    """It is written at once, but a disk may lose its end."""
    lab.run(writer(lab, "paths[0].write_text('x')", Product("x")))
    whole = lab.read(".sewer/x.json")

    for length in range(len(whole)):
        lab.write(".sewer/x.json", whole[:length])
        assert read_record(str(lab.folder / "x")) is None


def test_record_of_other_version_is_none(lab) -> None:
    """A missing or an unknown field."""
    lab.run(writer(lab, "paths[0].write_text('x')", Product("x")))
    record = json.loads(lab.read(".sewer/x.json"))
    del record["is_complete"]
    lab.write(".sewer/x.json", json.dumps(record))

    assert read_record(str(lab.folder / "x")) is None


def test_remove_temporary_resumes_after_kill(lab) -> None:
    """A process killed between the record and the removal leaves the removal to the next; a new file there stays."""
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


def test_remove_temporary_preserves_incomplete_product(lab) -> None:
    """It may belong to another user by now; only products of known origin are removed."""
    lab.write("x", "by hand")

    remove_temporary(Product("x", temporary=True), str(lab.folder))

    assert lab.read("x") == "by hand"
