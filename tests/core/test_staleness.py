"""A task runs as its run policy requires; the reason is the first change."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_sewer import Task
from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.fingerprints import Fingerprint, fingerprint_of
from airflow_provider_sewer.core.staleness import ProductRecord, ProductState, RunPolicy, StalenessInputs, decide

if TYPE_CHECKING:
    from collections.abc import Callable

PRODUCT, NEEDED = "out", ("one", "two")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"run_when": "sometimes"}, "run_when must be one of 'always', 'missing', 'stale', 'never'; got 'sometimes'"),
        ({"run_when": None}, "run_when must be one of 'always', 'missing', 'stale', 'never'; got None"),
        ({"run_when": "stale", "compare": "size"}, "compare must be one of 'mtime', 'content'; got 'size'"),
        (
            {"run_when": "stale", "stale_with": "weather"},
            "stale_with must be one of 'code', 'environment'; got 'weather'",
        ),
        ({"run_when": "stale", "stale_with": 7}, "stale_with must be a list of 'code' and 'environment', got 7"),
        ({"run_when": "missing", "compare": "content"}, "compare requires run_when='stale'"),
        ({"stale_with": ["code"]}, "stale_with requires run_when='stale'"),
    ],
)
def test_run_policy_rejects_invalid_arguments(fields, message) -> None:
    """The message has the field and its possible values."""
    with pytest.raises(InvalidTask) as caught:
        Task("t", "m", products="x", **fields)
    assert message in str(caught.value)


@pytest.mark.parametrize("mode", ["missing", "stale"])
def test_run_when_requires_a_product(mode) -> None:
    """Else the task would never be up to date, or always."""
    with pytest.raises(InvalidTask, match="requires a product; declare one with"):
        Task("t", "m", run_when=mode)
    assert Task("t", "m", run_when="never").run_policy == RunPolicy("never")


def test_fingerprint_of_directory_covers_its_files(tmp_path) -> None:
    """Names, times, sizes, links, empty folders; not the files of this package."""
    folder = tmp_path / "d"
    (folder / "sub").mkdir(parents=True)
    (folder / "x").write_text("1")
    seen = {fingerprint_of(str(folder)).seen}

    for change in (
        lambda: (folder / "x").write_text("22"),
        lambda: os.utime(folder / "x", ns=(1, 1)),
        lambda: (folder / "x").rename(folder / "y"),
        lambda: (folder / "sub" / "z").write_text(""),
        lambda: (folder / "link").symlink_to("sub"),
        lambda: (folder / "broken").symlink_to("nowhere"),
        (folder / "empty").mkdir,
    ):
        change()
        now = fingerprint_of(str(folder)).seen
        assert now not in seen
        seen.add(now)

    (folder / ".sewer").mkdir()
    (folder / ".sewer" / "x.json").write_text("{}")
    assert fingerprint_of(str(folder)).seen in seen
    moved = folder.rename(tmp_path / "elsewhere")
    assert fingerprint_of(str(moved)).seen in seen


def test_fingerprint_of_missing_file_is_none(tmp_path) -> None:
    """Nor have a path below a file and a dangling link."""
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")

    assert [fingerprint_of(str(tmp_path / name)) for name in ("gone", "file/below", "link")] == [None, None, None]


#: Ways to give a path other content of the same size and time.
SAME_TIME = {
    "a file is overwritten": lambda path, other: path.write_bytes(other.read_bytes()),
    "a file is replaced": lambda path, other: other.rename(path),
    "a link is set to another file": lambda path, other: (path.unlink(), path.symlink_to(other)),
}


@pytest.mark.parametrize("how", SAME_TIME)
@pytest.mark.parametrize("inside", ["", "sub/x"])
@pytest.mark.parametrize("place", ["product", "dependency"])
def test_compare_content_reads_content_of_same_size_and_mtime(tmp_path, how, inside, place) -> None:
    """Of a product as of a dependency, of a directory as of a file; by mtime that is not noticed."""
    path, other = tmp_path / "path" / inside, tmp_path / "other"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not inside:
        path = tmp_path / "file"
    for file, text in ((path, "AAAA"), (other, "BBBB")):
        file.write_text(text)
        os.utime(file, ns=(1, 1))
    whole = str(tmp_path / "path" if inside else path)
    known = {compare: fingerprint_of(whole, read=compare == "content") for compare in ("mtime", "content")}

    SAME_TIME[how](path, other)
    os.utime(path, ns=(1, 1))

    for compare, is_noticed in (("mtime", False), ("content", True)):
        product, needed = (
            (known[compare], {}) if place == "product" else (fingerprint_of(__file__, read=True), {"d": whole})
        )
        made = ProductState(
            "p", whole if place == "product" else __file__, ProductRecord("t", "c", product, {"d": known[compare]})
        )
        made = made._replace(record=made.record._replace(dependencies={"d": known[compare]} if needed else {}))
        decision = decide(StalenessInputs(RunPolicy("stale", compare), [made], needed, "c"))
        assert decision.must_run is is_noticed, decision.reason


def test_compare_content_runs_without_recorded_content(tmp_path) -> None:
    """The task was compared by mtime until now, so nothing is known of the content."""
    (tmp_path / "x").write_text("x")
    file = str(tmp_path / "x")
    made = ProductState("x", file, ProductRecord("t", "c", fingerprint_of(file), {}))

    decision = decide(StalenessInputs(RunPolicy("stale", "content"), [made], {}, "c"))

    assert decision.reason == "the record of x has no content fingerprint"


UP_TO_DATE = {
    "one input": (["out"], ["in.csv"], "out is unchanged since TIME, and so is in.csv"),
    "no input": (["out"], [], "out is unchanged since TIME, and so are its parameters"),
    "two of each": (["a", "b"], ["c", "d"], "a and b are unchanged since TIME, and so are c and d"),
    "many": (["a", "b", "c"], ["d", "e", "f", "g"], "a and 2 more are unchanged since TIME, and so are d and 3 more"),
}


@pytest.mark.parametrize(("products", "inputs", "reason"), UP_TO_DATE.values(), ids=UP_TO_DATE)
def test_up_to_date_reason_names_products_time_and_inputs(products, inputs, reason, tmp_path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    known = fingerprint_of(str(file))
    record = ProductRecord("t", "c", known, dict.fromkeys(inputs, known))
    states = [ProductState(path, str(file), record) for path in products]

    decision = decide(StalenessInputs(RunPolicy("stale"), states, dict.fromkeys(inputs, str(file)), "c"))

    changed = datetime.fromtimestamp(file.stat().st_mtime)
    assert decision.reason == reason.replace("TIME", f"{changed:%Y-%m-%d %H:%M:%S}")


def test_up_to_date_reason_omits_time_outside_of_calendar() -> None:
    """In memory, as a file system on a disk may not have such a time."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        os.utime(file.name, (1 << 43, 1 << 43))
        state = ProductState("out", file.name, ProductRecord("t", "c", fingerprint_of(file.name), {}))

        decision = decide(StalenessInputs(RunPolicy("stale"), [state], {}, "c"))

    assert decision.reason == "out is unchanged, and so are its parameters"


def test_up_to_date_reason_of_removed_product_has_no_time(tmp_path) -> None:
    state = ProductState("out", str(tmp_path / "gone"), ProductRecord("t", "c", None, {}, is_removed=True))

    decision = decide(StalenessInputs(RunPolicy("stale"), [state], {}, "c"))

    assert decision.reason == "out was removed after use, and its parameters are unchanged"


@pytest.mark.parametrize(("paths", "reason"), [(["a"], "a exists"), (["a", "b", "c"], "a and 2 more exist")])
def test_present_reason_names_products(paths, reason) -> None:
    states = [ProductState(path, __file__, None) for path in paths]

    assert decide(StalenessInputs(RunPolicy("missing"), states, {}, "c")).reason == reason


@pytest.fixture
def tree(tmp_path) -> Path:
    """Return a directory with a link to another one beside it."""
    (tmp_path / "shared" / "deep").mkdir(parents=True)
    (tmp_path / "shared" / "deep" / "b").write_text("1")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a").write_text("a")
    (tmp_path / "src" / "link").symlink_to("../shared")
    return tmp_path


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("whole", ["src", "src/link", "to_src"])
def test_fingerprint_of_follows_links_to_directories(tree, whole, read) -> None:
    """Also where the dependency itself is a link."""
    (tree / "to_src").symlink_to("src")
    before = fingerprint_of(str(tree / whole), read=read)

    (tree / "shared" / "deep" / "b").write_text("2, changed")

    after = fingerprint_of(str(tree / whole), read=read)
    assert after.seen != before.seen
    assert not read or after.content != before.content


def test_fingerprint_of_changes_with_target_of_dangling_link(tree) -> None:
    """There is nothing else that could change of it."""
    seen = set()
    for target in ("nowhere", "elsewhere"):
        (tree / "src" / "dangling").unlink(missing_ok=True)
        (tree / "src" / "dangling").symlink_to(target)
        seen.add(fingerprint_of(str(tree / "src"), read=True))

    assert len(seen) == 2


@pytest.mark.parametrize("target", [".", "/", "loop", "../shared/back"])
def test_fingerprint_of_ends_at_cyclic_links(tree, target) -> None:
    """The target of such a link does not count; the files of the folder count as before."""
    (tree / "src" / "loop").symlink_to(target)
    (tree / "shared" / "back").symlink_to("../src")
    before = fingerprint_of(str(tree / "src"), read=True)
    (tree / "beside").write_text("x")
    assert fingerprint_of(str(tree / "src"), read=True) == before

    (tree / "shared" / "deep" / "b").write_text("2, changed")

    assert fingerprint_of(str(tree / "src"), read=True).content != before.content


@pytest.mark.parametrize("changed", ["beside", "other/file", "a/src/own", "a/beside"])
@pytest.mark.parametrize("target", ["../..", "{tree}", "../../to_tree"])
def test_fingerprint_of_follows_links_to_parent_directories(tmp_path, target, changed) -> None:
    """All that lies there counts, and so does the directory itself, once."""
    tree = tmp_path / "tree"
    for name in ("beside", "other/file", "a/src/own", "a/beside"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("first")
    (tree / "to_tree").symlink_to(".")
    (tree / "a" / "src" / "up").symlink_to(target.format(tree=tree))
    before = fingerprint_of(str(tree / "a" / "src"), read=True)

    (tree / changed).write_text("other text")

    after = fingerprint_of(str(tree / "a" / "src"), read=True)
    assert after.content != before.content
    assert after.seen != before.seen


def test_fingerprint_of_unreadable_file_uses_mtime(tmp_path, monkeypatch) -> None:
    """A module may not need each file of a directory; another user's file, or one without rights, is no error."""
    (tmp_path / "whole").mkdir()
    secret = tmp_path / "whole" / "secret"
    secret.write_text("1")
    secret.chmod(0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    before = as_other_user(lambda: fingerprint_of("whole", read=True))

    os.utime(secret, ns=(1, 1))

    after = as_other_user(lambda: fingerprint_of("whole", read=True))
    assert before.content
    assert after.content != before.content


def as_other_user(look: Callable[[], Fingerprint | None]) -> Fingerprint:
    """Call a function as a user with restricted permissions."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with suppress(BaseException):
            if os.geteuid() == 0:
                os.setresuid(65534, 65534, 65534)
            os.write(writing, json.dumps(look()).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading) as file:
        return Fingerprint(*json.loads(file.read() or "[null]"))


def test_fingerprint_of_enters_each_directory_once(tmp_path) -> None:
    """Twelve directories that all lead to each other have more ways than could ever be walked."""
    names = [f"d{number}" for number in range(12)]
    for name in names:
        (tmp_path / "whole" / name).mkdir(parents=True)
        for other in names:
            (tmp_path / "whole" / name / f"to-{other}").symlink_to(f"../{other}")
    (tmp_path / "whole" / "d7" / "x").write_text("1")
    before = fingerprint_of(str(tmp_path / "whole"))

    (tmp_path / "whole" / "d7" / "x").write_text("22")

    assert fingerprint_of(str(tmp_path / "whole")).seen != before.seen


class World:
    """Files with their times, the record of a product made of two of them, and the expected decision."""

    def __init__(self, folder: Path, freshness: RunPolicy) -> None:
        self.folder = folder
        self.freshness = freshness
        self.command = "first"
        self.code = "first"
        self.environment = "first"
        self.needs: tuple[str, ...] = NEEDED
        self.clock = 1_000_000_000
        self.record: ProductRecord | None = None
        self.content: dict[str, str | None] = {}
        self.time: dict[str, int] = {}
        self.made_of: dict[str, Any] = {}
        for name in (PRODUCT, *NEEDED):
            self.write(name, "first")
        self.make()

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def write(self, name: str, content: str) -> None:
        """Write a file at a time of its own."""
        self.clock += 1
        Path(self.path(name)).write_text(content)
        os.utime(self.path(name), ns=(self.clock, self.clock))
        self.content[name], self.time[name] = content, self.clock

    def touch(self, name: str) -> None:
        if self.content[name] is not None:
            self.write(name, self.content[name])

    def copy_over(self, name: str) -> None:
        """Write other content of the same size, and keep the time, as ``cp -p`` may."""
        content, time = self.content[name], self.time[name]
        if content is not None:
            self.write(name, content.swapcase())
            os.utime(self.path(name), ns=(time, time))
            self.time[name] = time

    def remove(self, name: str) -> None:
        Path(self.path(name)).unlink(missing_ok=True)
        self.content[name] = None

    def use_up(self) -> None:
        """Have the product removed after use, as a temporary one is."""
        if self.record is not None and self.record.is_complete and self.content[PRODUCT] is not None:
            self.remove(PRODUCT)
            self.record = self.record._replace(is_removed=True)

    def make(self) -> None:
        """Have the task run."""
        self.write(PRODUCT, "made")
        for name in self.needs:
            if self.content[name] is None:
                self.write(name, "first")
        read = self.freshness.compare == "content"
        stamps = {name: fingerprint_of(self.path(name), read=read) for name in (PRODUCT, *self.needs)}
        product = stamps.pop(PRODUCT)
        self.record = ProductRecord("t", self.command, product, stamps, code=self.code, environment=self.environment)
        self.made_of = self.state()

    def state(self) -> dict[str, Any]:
        """Return the state that counts."""
        by = self.content if self.freshness.compare == "content" else self.time
        files = {name: by[name] for name in (PRODUCT, *self.needs)}
        asked = {name: getattr(self, name) for name in self.freshness.stale_with}
        return {"command": self.command, **asked, **files}

    def should_run(self) -> bool:
        mode = self.freshness.run_when
        if mode in ("always", "never"):
            return mode == "always"
        is_used_up = self.record is not None and self.record.is_removed
        if (self.content[PRODUCT] is None and not is_used_up) or (self.record and not self.record.is_complete):
            return True
        if mode == "missing":
            return False
        now = self.state()
        unseen = {name for name in self.needs if self.content[name] is None}  # the run itself reports these
        unseen |= {PRODUCT} if is_used_up else set()
        is_other = any(now[key] != self.made_of[key] for key in now.keys() & self.made_of if key not in unseen)
        return self.record is None or is_other or now.keys() != self.made_of.keys()

    def decision(self) -> Any:
        made = [ProductState(PRODUCT, self.path(PRODUCT), self.record)]
        needed = {name: self.path(name) for name in self.needs}
        now = {"code": self.code, "environment": self.environment}
        return decide(StalenessInputs(self.freshness, made, needed, self.command, **now))


_DEEDS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from([PRODUCT, *NEEDED]), st.sampled_from(["first", "made", "second"])),
    st.tuples(st.sampled_from(["touch", "remove", "copy_over"]), st.sampled_from([PRODUCT, *NEEDED])),
    st.tuples(st.sampled_from(["command", "code", "environment"]), st.sampled_from(["first", "second"])),
    st.tuples(st.just("needs"), st.sampled_from([NEEDED, NEEDED[:1], ()])),
    st.tuples(st.sampled_from(["make", "forget", "break", "use_up"])),
)
_MODES = st.sampled_from(
    [RunPolicy("always"), RunPolicy("missing"), RunPolicy("never"), RunPolicy("stale"), RunPolicy("stale", "content"),
     RunPolicy("stale", "mtime", ("code",)), RunPolicy("stale", "content", ("environment", "code"))]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(_MODES, st.lists(_DEEDS, max_size=6))
def test_decide_matches_run_policy_after_any_changes(tmp_path_factory, freshness, deeds) -> None:
    """Files written, touched, removed, used up, all else changed, records lost: decisions equal those of a model."""
    world = World(tmp_path_factory.mktemp("world"), freshness)

    for change, *how in deeds:
        if change in ("command", "code", "environment", "needs"):
            setattr(world, change, how[0])
        elif change == "forget":
            world.record = None
        elif change == "break":
            world.record = world.record and world.record._replace(is_complete=False)
        else:
            getattr(world, change)(*how)

    assert world.decision().must_run is world.should_run(), world.decision().reason
    world.make()
    assert world.decision().must_run is (freshness.run_when == "always")
