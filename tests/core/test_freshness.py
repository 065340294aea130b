"""A task runs when its build mode says so, and the reason is the first thing that is not as it was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_sewer import Task
from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.freshness import Freshness, Made, Question, Record, judge, stamp

PRODUCT, NEEDED = "out", ("one", "two")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"run_when": "sometimes"}, "run_when: 'always', 'missing', 'stale', 'never' are possible, not 'sometimes'"),
        ({"run_when": None}, "run_when: 'always', 'missing', 'stale', 'never' are possible, not None"),
        ({"run_when": "stale", "compare": "size"}, "compare: 'mtime', 'content' are possible, not 'size'"),
        (
            {"run_when": "stale", "stale_with": "weather"},
            "stale_with: 'code', 'environment' are possible, not 'weather'",
        ),
        ({"run_when": "stale", "stale_with": 7}, "stale_with: a list of 'code' and 'environment' is needed, not 7"),
        ({"run_when": "missing", "compare": "content"}, "compare: this says what makes a product stale"),
        ({"stale_with": ["code"]}, "stale_with: this says what makes a product stale; it takes run_when='stale'"),
    ],
)
def test_what_is_no_build_mode_is_refused(fields, said) -> None:
    """The message has the field and what is possible."""
    with pytest.raises(InvalidTask) as caught:
        Task("t", "m", products="x", **fields)
    assert said in str(caught.value)


@pytest.mark.parametrize("mode", ["missing", "stale"])
def test_a_mode_that_looks_at_products_needs_one(mode) -> None:
    """Else the task would never be up to date, or always."""
    with pytest.raises(InvalidTask, match="there is no product to look at; name one with"):
        Task("t", "m", run_when=mode)
    assert Task("t", "m", run_when="never").freshness == Freshness("never")


def test_a_directory_is_like_what_is_in_it(tmp_path) -> None:
    """Names, times, sizes, links, empty folders; not what this package keeps there."""
    folder = tmp_path / "d"
    (folder / "sub").mkdir(parents=True)
    (folder / "x").write_text("1")
    seen = {stamp(str(folder)).seen}

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
        now = stamp(str(folder)).seen
        assert now not in seen
        seen.add(now)

    (folder / ".sewer").mkdir()
    (folder / ".sewer" / "x.json").write_text("{}")
    assert stamp(str(folder)).seen in seen
    moved = folder.rename(tmp_path / "elsewhere")
    assert stamp(str(moved)).seen in seen


def test_what_is_not_there_has_no_stamp(tmp_path) -> None:
    """Nor has what lies below a file, or a link that leads nowhere."""
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")

    assert [stamp(str(tmp_path / name)) for name in ("gone", "file/below", "link")] == [None, None, None]


class World:
    """Files with their times, and the record of how a product was made of two of them; and what should come of it."""

    def __init__(self, folder: Path, freshness: Freshness) -> None:
        self.folder = folder
        self.freshness = freshness
        self.command = "first"
        self.code = "first"
        self.environment = "first"
        self.needs: tuple[str, ...] = NEEDED
        self.clock = 1_000_000_000
        self.record: Record | None = None
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

    def remove(self, name: str) -> None:
        Path(self.path(name)).unlink(missing_ok=True)
        self.content[name] = None

    def use_up(self) -> None:
        """Have the product removed after use, as a temporary one is."""
        if self.record is not None and self.record.is_whole and self.content[PRODUCT] is not None:
            self.remove(PRODUCT)
            self.record = self.record._replace(is_removed=True)

    def make(self) -> None:
        """Have the task run."""
        self.write(PRODUCT, "made")
        for name in self.needs:
            if self.content[name] is None:
                self.write(name, "first")
        read = self.freshness.compare == "content"
        stamps = {name: stamp(self.path(name), read=read) for name in (PRODUCT, *self.needs)}
        product = stamps.pop(PRODUCT)
        self.record = Record("t", self.command, product, stamps, code=self.code, environment=self.environment)
        self.made_of = self.state()

    def state(self) -> dict[str, Any]:
        """Return what counts."""
        by = self.content if self.freshness.compare == "content" else self.time
        files = {name: by[name] for name in (PRODUCT, *self.needs)}
        asked = {name: getattr(self, name) for name in self.freshness.stale_with}
        return {"command": self.command, **asked, **files}

    def should_run(self) -> bool:
        mode = self.freshness.run_when
        if mode in ("always", "never"):
            return mode == "always"
        is_used_up = self.record is not None and self.record.is_removed
        if (self.content[PRODUCT] is None and not is_used_up) or (self.record and not self.record.is_whole):
            return True
        if mode == "missing":
            return False
        now = self.state()
        unseen = {name for name in self.needs if self.content[name] is None}  # the run itself says so
        unseen |= {PRODUCT} if is_used_up else set()
        is_other = any(now[key] != self.made_of[key] for key in now.keys() & self.made_of if key not in unseen)
        return self.record is None or is_other or now.keys() != self.made_of.keys()

    def verdict(self) -> Any:
        made = [Made(PRODUCT, self.path(PRODUCT), self.record)]
        needed = {name: self.path(name) for name in self.needs}
        now = {"code": self.code, "environment": self.environment}
        return judge(Question(self.freshness, made, needed, self.command, **now))


_DEEDS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from([PRODUCT, *NEEDED]), st.sampled_from(["first", "made", "second"])),
    st.tuples(st.sampled_from(["touch", "remove"]), st.sampled_from([PRODUCT, *NEEDED])),
    st.tuples(st.sampled_from(["command", "code", "environment"]), st.sampled_from(["first", "second"])),
    st.tuples(st.just("needs"), st.sampled_from([NEEDED, NEEDED[:1], ()])),
    st.tuples(st.sampled_from(["make", "forget", "break", "use_up"])),
)
_MODES = st.sampled_from(
    [Freshness("always"), Freshness("missing"), Freshness("never"), Freshness("stale"), Freshness("stale", "content"),
     Freshness("stale", "mtime", ("code",)), Freshness("stale", "content", ("environment", "code"))]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(_MODES, st.lists(_DEEDS, max_size=6))
def test_whatever_was_done_the_verdict_is_what_the_build_mode_says(tmp_path_factory, freshness, deeds) -> None:
    """Files written, touched, removed, used up, all else changed, records lost: a model says what comes of it."""
    world = World(tmp_path_factory.mktemp("world"), freshness)

    for what, *how in deeds:
        if what in ("command", "code", "environment", "needs"):
            setattr(world, what, how[0])
        elif what == "forget":
            world.record = None
        elif what == "break":
            world.record = world.record and world.record._replace(is_whole=False)
        else:
            getattr(world, what)(*how)

    assert world.verdict().must_run is world.should_run(), world.verdict().why
    world.make()
    assert world.verdict().must_run is (freshness.run_when == "always")
