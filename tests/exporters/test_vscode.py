"""Tasks are written into launch.json, and nothing else in it is touched."""

from __future__ import annotations

import json
import os
import stat
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.exporters.jsonc import parse, tokens
from airflow_provider_sewer.exporters.vscode import (
    launch_configuration,
    launch_json,
    merged_launch_json,
    write_launch_json,
)

NOBODY = 65534
WRITTEN_BY_A_PERSON = """\
{
    // Use IntelliSense to learn about possible attributes.
    "version": "0.1.0", /* old, but mine */
    "inputs": [{"id": "gpu", "type": "promptString"},],
    "configurations": [
        {
            "name": "Attach", "type": "debugpy",   // keep the odd spacing
            "request": "attach",
        },
        {
            "name": "train",
            "type": "debugpy",
            "request": "launch",
            "module": "digits.old"
        }, // the one above is made by sewer
        // { "name": "switched off" },
    ],
    "compounds": []
}
"""


@pytest.fixture
def train():
    """Make a task with nothing but a module and parameters."""
    return Task("train", "digits.train", {"epochs": 3, "verbose": True})


@pytest.fixture
def as_an_ordinary_user():
    """Give up root, if that is who runs the tests, for as long as a block lasts: root may write everywhere."""

    @contextmanager
    def lowered(folder):
        if os.geteuid() != 0:
            yield
            return
        closed = {path: mode(path) for path in (folder, *folder.parents) if not mode(path) & 0o001}
        for path, before in closed.items():
            path.chmod(before | 0o011)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)
            for path, before in closed.items():
                path.chmod(before)

    return lowered


def names(text):
    return [configuration["name"] for configuration in parse(text).data["configurations"]]


# What a configuration says


def test_a_task_becomes_a_debugpy_configuration(train):
    """The debugger starts the same module with the same arguments as a run does."""
    assert launch_configuration(train) == {
        "name": "train",
        "type": "debugpy",
        "request": "launch",
        "module": "digits.train",
        "args": ["--epochs", "3", "--verbose"],
        "console": "integratedTerminal",
    }


def test_interpreter_folder_and_environment_appear_where_the_task_has_them(tmp_path):
    """They are the task's own settings, under the names that VS Code has for them."""
    task = Task("a", "m", python=tmp_path / "bin/python", workdir=tmp_path, env={"GPU": 1})
    configuration = launch_configuration(task)
    assert configuration["python"] == str(tmp_path / "bin/python")
    assert configuration["cwd"] == str(tmp_path)
    assert configuration["env"] == {"GPU": "1"}


def test_the_home_folder_is_written_out(monkeypatch):
    """VS Code would take ~ for the name of a folder."""
    monkeypatch.setenv("HOME", "/home/ada")
    configuration = launch_configuration(Task("a", "m", python="~/env/bin/python", workdir="~"))
    assert configuration["python"] == "/home/ada/env/bin/python"
    assert configuration["cwd"] == "/home/ada"


def test_a_bare_interpreter_name_stays_bare():
    """It is looked up on PATH by whoever starts it."""
    assert launch_configuration(Task("a", "m", python="python3.12"))["python"] == "python3.12"


# A fresh file


def test_a_fresh_file_is_plain_json(train):
    """Four spaces, letters as they are, a line break at the end."""
    text = launch_json([train, Task("Größe", "digits.size")])
    assert text.startswith(
        '{\n    "version": "0.2.0",\n    "configurations": [\n        {\n            "name": "train",'
    )
    assert '"name": "Größe"' in text
    assert text.endswith("\n}\n")
    assert json.loads(text)["configurations"][0] == launch_configuration(train)


def test_the_version_can_be_chosen(train):
    """It is the version of the format, not of the workflow."""
    assert json.loads(launch_json([train], version="0.3.0"))["version"] == "0.3.0"


def test_two_tasks_of_one_name_are_refused(train):
    """VS Code could not tell them apart; the message has the lines of both."""
    other = Task("train", "digits.other")
    with pytest.raises(SewerError, match="two tasks are named 'train'") as refused:
        launch_json([train, other])
    assert str(train.source) in str(refused.value)
    assert refused.value.where == other.source


def test_bytes_that_are_no_text_survive_as_escapes(tmp_path):
    """An argument may hold a file name that is no UTF-8; the file is valid UTF-8 all the same."""
    task = Task("a", "m", {"file": os.fsdecode(b"\xff.npz")})
    write_launch_json(tmp_path / "launch.json", [task])
    written = json.loads((tmp_path / "launch.json").read_text(encoding="utf-8"))
    assert os.fsencode(written["configurations"][0]["args"][1]) == b"\xff.npz"


# Merging


def test_a_persons_file_changes_only_where_the_task_stands(train):
    """Comments, order, odd spacing, trailing commas and other configurations are what they were."""
    before, _, rest = WRITTEN_BY_A_PERSON.partition('{\n            "name": "train"')
    after = rest[rest.index("}") + 1 :]
    merged = merged_launch_json(WRITTEN_BY_A_PERSON, [train])
    assert merged.startswith(before)
    assert merged.endswith(after)
    replacement = merged.removeprefix(before).removesuffix(after)
    assert json.loads(replacement) == launch_configuration(train)
    assert replacement.splitlines()[1] == '            "name": "train",'
    assert replacement.splitlines()[-1] == "        }"


def test_a_new_task_goes_to_the_end_behind_the_comments(train):
    """The comments stay with the configurations they stand behind; the trailing comma stays a habit."""
    new = Task("evaluate", "digits.evaluate")
    merged = merged_launch_json(WRITTEN_BY_A_PERSON, [new])
    head, _, tail = WRITTEN_BY_A_PERSON.partition('"switched off" },\n')
    assert merged.startswith(head + '"switched off" },\n        {\n            "name": "evaluate",\n')
    assert merged.endswith('"console": "integratedTerminal"\n        },\n' + tail)


def test_without_a_trailing_comma_none_is_left_behind(train):
    """A comment at the end of the line stays at the end of its line."""
    existing = '{"version": "1", "configurations": [\n  {"name": "mine"} // note\n]}'
    merged = merged_launch_json(existing, [Task("a", "m")])
    assert merged.startswith('{"version": "1", "configurations": [\n  {"name": "mine"}, // note\n  {\n')
    assert merged.endswith("\n  }\n]}")
    assert names(merged) == ["mine", "a"]


def test_a_configuration_that_says_the_same_is_not_rewritten(train):
    """A comment inside it, or another order of its keys, is no difference."""
    configuration = launch_configuration(train)
    pairs = [f"{json.dumps(key)}:{json.dumps(value)}, // {key}\n" for key, value in reversed(configuration.items())]
    existing = '{"version":"0.2.0","configurations":[{' + "".join(pairs) + "}]}"
    assert merged_launch_json(existing, [train]) == existing


def test_merging_twice_is_merging_once(train):
    """The second run finds everything in place."""
    tasks = [Task("new", "m"), train]
    once = merged_launch_json(WRITTEN_BY_A_PERSON, tasks)
    assert once != WRITTEN_BY_A_PERSON
    assert merged_launch_json(once, tasks) == once


def test_a_file_of_our_own_grows_as_if_it_were_written_afresh(train):
    """Merging tasks into an empty list, or one after the other, gives the text of a fresh file."""
    new = Task("new", "m")
    assert merged_launch_json(launch_json([]), [train, new]) == launch_json([train, new])
    assert merged_launch_json(launch_json([train]), [train, new]) == launch_json([train, new])


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_byte_order_mark_are_kept(train, newline, mark):
    """What is added has the line ends of the file."""
    existing = mark + WRITTEN_BY_A_PERSON.replace("\n", newline)
    merged = merged_launch_json(existing, [train, Task("new", "m")])
    assert merged == mark + merged_launch_json(WRITTEN_BY_A_PERSON, [train, Task("new", "m")]).replace("\n", newline)


def test_odd_white_space_is_kept(train):
    """What stands before a closing bracket is layout of the person's own."""
    merged = merged_launch_json('{"version": "1", "configurations": [\n  {"name": "mine"}\n\n   ]\n\n}', [train])
    assert merged.startswith('{"version": "1", "configurations": [\n  {"name": "mine"},\n  {\n')
    assert merged.endswith("\n  }\n\n   ]\n\n}")


def test_a_file_on_one_line_gets_lines_for_what_is_added(train):
    """What was there stays on its line."""
    merged = merged_launch_json('{"version": "1", "configurations": [{"name": "mine"}]}', [train])
    assert merged.startswith('{"version": "1", "configurations": [{"name": "mine"},\n    {\n        "name": "train",\n')
    assert merged.endswith("\n    }\n]}")


def test_tabs_are_kept(train):
    """A file that is indented with tabs goes on with tabs."""
    existing = '{\n\t"version": "0.2.0",\n\t"configurations": [\n\t\t{\n\t\t\t"name": "mine"\n\t\t}\n\t]\n}\n'
    merged = merged_launch_json(existing, [train])
    assert '\n\t\t{\n\t\t\t"name": "train",' in merged
    assert '\n\t\t\t"args": [\n\t\t\t\t"--epochs",' in merged
    assert "  " not in merged


def test_an_existing_version_is_kept_and_a_missing_one_added(train):
    """The one in the file wins, even over the one asked for."""
    assert parse(merged_launch_json(WRITTEN_BY_A_PERSON, [train], version="9")).data["version"] == "0.1.0"
    assert parse(merged_launch_json('{"configurations": []}', [train], version="9")).data["version"] == "9"


def test_a_missing_list_of_configurations_is_added(train):
    """A file may so far hold nothing but other things."""
    existing = '{\n  "inputs": [], // none\n}\n'
    merged = merged_launch_json(existing, [train])
    assert merged.startswith('{\n  "inputs": [], // none\n  "version": "0.2.0",\n  "configurations": [\n    {\n')
    assert parse(merged).data["configurations"] == [launch_configuration(train)]


@pytest.mark.parametrize("blank", ["", " \n\t\r\n", "\ufeff", "\ufeff\n"])
def test_a_blank_file_is_like_none(train, blank):
    """Somebody may have touched it; there is nothing in it to lose."""
    assert merged_launch_json(blank, [train]).removeprefix("\ufeff") == launch_json([train])


def test_elements_without_a_name_are_none_of_our_business(train):
    """VS Code would complain about them; they are kept."""
    existing = '{"version": "1", "configurations": [1, {}, {"name": 7}, null, {"name": ["train"]}]}'
    merged = merged_launch_json(existing, [train])
    assert parse(merged).data["configurations"][:-1] == [1, {}, {"name": 7}, None, {"name": ["train"]}]
    assert parse(merged).data["configurations"][-1] == launch_configuration(train)


def test_two_configurations_of_one_name_matter_only_if_it_is_a_tasks(train):
    """Which one would be the task's is a guess; two of somebody else's stay two."""
    existing = '{"configurations": [\n  {"name": "train"},\n  {"name": "train"}\n]}'
    with pytest.raises(SewerError, match=r"^3:3: a second configuration is named 'train'.*; the file was left alone$"):
        merged_launch_json(existing, [train])
    assert names(merged_launch_json(existing, [Task("other", "m")])) == ["train", "train", "other"]


@pytest.mark.parametrize(
    ("existing", "said"),
    [
        ("configurations: []", "1:1: 'c' does not belong here"),
        ("// a list\n[]", "2:1: the top level of a launch.json is an object"),
        ('{\n"configurations": {}}', '2:19: "configurations" is an array'),
        ('{"configurations": null}', '1:20: "configurations" is an array'),
        ('{"configurations": [],\n"configurations": []}', '2:1: "configurations" stands twice'),
        ('{"configurations": [}', "1:21: a value is expected here, not }"),
    ],
)
def test_what_is_no_launch_json_is_refused_with_line_and_column(train, existing, said):
    """The message says what is wrong, where, and that nothing happened."""
    with pytest.raises(SewerError) as refused:
        merged_launch_json(existing, [train])
    assert str(refused.value).startswith(said)
    assert str(refused.value).endswith("; the file was left alone")


TASK_NAMES = ("train", "Größe", "a b")
CONFIGURATIONS = st.lists(
    st.fixed_dictionaries({"name": st.text()}, optional={"module": st.text(), "args": st.lists(st.text(), max_size=2)})
    | st.sampled_from([{"name": name} for name in TASK_NAMES])
    | st.integers(),
    max_size=5,
    unique_by=lambda element: element["name"] if isinstance(element, dict) else f"\0{element}",
)


@settings(deadline=None)
@given(
    configurations=CONFIGURATIONS,
    rest=st.dictionaries(st.text().filter(lambda key: key != "configurations"), st.text(), max_size=3),
    position=st.integers(0, 3),
    random=st.randoms(use_true_random=False),
)
def test_any_file_keeps_all_that_is_not_ours(strewn, configurations, rest, position, random):
    """However a file is laid out: its data, its comments and their order survive, and merging again is a no-op."""
    pairs = list(rest.items())
    pairs.insert(position, ("configurations", configurations))
    existing = strewn(dict(pairs), random)
    tasks = [Task(name, "digits.train", {"epochs": 3}) for name in TASK_NAMES]

    merged = merged_launch_json(existing, tasks)

    ours = {task.name: launch_configuration(task) for task in tasks}
    old = [ours.get(named(element), element) for element in configurations]
    new = [ours[name] for name in TASK_NAMES if name not in map(named, configurations)]
    assert parse(merged).data == {"version": "0.2.0", **rest, "configurations": old + new}
    assert comments(merged) == comments(without_ours(existing))
    assert merged_launch_json(merged, tasks) == merged


def named(element):
    return element["name"] if isinstance(element, dict) else None


def comments(text):
    return [token.text for token in tokens(text) if token.kind == "comment"]


def without_ours(text):
    """Return the text with the configurations of our tasks blanked out: those may lose their comments."""
    for element in reversed(parse(text).members["configurations"].elements):
        if named(element.data) in TASK_NAMES:
            text = text[: element.start] + "0" + text[element.end :]
    return text


# Writing


def test_the_file_and_its_folder_are_made(tmp_path, train):
    """The first time, there is no .vscode folder."""
    file = tmp_path / "project" / ".vscode" / "launch.json"
    write_launch_json(file, [train])
    assert file.read_text(encoding="utf-8") == launch_json([train])
    assert os.listdir(file.parent) == ["launch.json"]


def test_a_new_file_has_the_mode_of_any_new_file(tmp_path, train):
    """It is not private just because it was written under a temporary name first."""
    (tmp_path / "ordinary").touch()
    write_launch_json(tmp_path / "launch.json", [train])
    assert mode(tmp_path / "launch.json") == mode(tmp_path / "ordinary")


def test_an_existing_file_keeps_its_mode_and_its_bytes(tmp_path, train):
    """Byte order mark and line ends pass through the file system as well."""
    file = tmp_path / "launch.json"
    existing = "\ufeff" + WRITTEN_BY_A_PERSON.replace("\n", "\r\n")
    file.write_bytes(existing.encode("utf-8"))
    file.chmod(0o640)
    write_launch_json(file, [train])
    assert file.read_bytes().decode("utf-8") == merged_launch_json(existing, [train])
    assert mode(file) == 0o640


def test_a_symbolic_link_stays_one(tmp_path, train):
    """Who keeps launch.json in a folder of dotfiles finds the change there."""
    target = tmp_path / "dotfiles" / "launch.json"
    target.parent.mkdir()
    target.write_text(WRITTEN_BY_A_PERSON, encoding="utf-8")
    link = tmp_path / "launch.json"
    link.symlink_to("dotfiles/launch.json")
    write_launch_json(link, [train])
    assert link.is_symlink()
    assert target.read_text(encoding="utf-8") == merged_launch_json(WRITTEN_BY_A_PERSON, [train])
    assert sorted(os.listdir(tmp_path)) == ["dotfiles", "launch.json"]


def test_a_link_to_nothing_makes_what_it_points_at(tmp_path, train):
    """The folder of the target is made too."""
    link = tmp_path / "launch.json"
    link.symlink_to(tmp_path / "later" / "real.json")
    write_launch_json(link, [train])
    assert link.is_symlink()
    assert (tmp_path / "later" / "real.json").read_text(encoding="utf-8") == launch_json([train])


def test_a_file_with_nothing_to_change_is_not_written(tmp_path, train):
    """Its time stamp stays, and no editor asks whether to load it again."""
    file = tmp_path / "launch.json"
    write_launch_json(file, [train])
    before = os.stat(file)
    write_launch_json(file, [train])
    assert (os.stat(file).st_ino, os.stat(file).st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_file_that_is_not_understood_is_left_alone(tmp_path, train):
    """The message starts with the place, so that a terminal makes it a link."""
    file = tmp_path / "launch.json"
    file.write_bytes(b'{\r\n  "configurations": [\r\n')
    with pytest.raises(SewerError) as refused:
        write_launch_json(file, [train])
    assert str(refused.value).startswith(f"{file}:3:1: ")
    assert str(refused.value).endswith("; the file was left alone")
    assert file.read_bytes() == b'{\r\n  "configurations": [\r\n'
    assert os.listdir(tmp_path) == ["launch.json"]


def test_a_file_that_is_no_utf_8_is_left_alone(tmp_path, train):
    """Its bytes would not survive being read as anything else."""
    file = tmp_path / "launch.json"
    file.write_bytes(b'{"configurations": [] /* \xe4 */}')
    with pytest.raises(SewerError, match=r"launch\.json: byte 25 is no UTF-8 text; the file was left alone"):
        write_launch_json(file, [train])
    assert file.read_bytes() == b'{"configurations": [] /* \xe4 */}'


def test_a_directory_in_the_place_of_the_file_is_an_error(tmp_path, train):
    """It is named as what it is."""
    with pytest.raises(SewerError, match="this is a directory"):
        write_launch_json(tmp_path, [train])


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path, train):
    """Nothing is made beside it."""
    (tmp_path / ".vscode").write_text("mine")
    with pytest.raises(SewerError, match="Not a directory"):
        write_launch_json(tmp_path / ".vscode" / "launch.json", [train])
    assert (tmp_path / ".vscode").read_text() == "mine"


def test_what_is_no_ordinary_file_is_not_read(tmp_path, train):
    """Reading a pipe would wait for ever."""
    os.mkfifo(tmp_path / "launch.json")
    with pytest.raises(SewerError, match="no ordinary file"):
        write_launch_json(tmp_path / "launch.json", [train])


def test_links_in_a_circle_are_an_error(tmp_path, train):
    """Neither followed for ever nor replaced."""
    (tmp_path / "launch.json").symlink_to("launch.json")
    with pytest.raises(SewerError, match="symbolic links"):
        write_launch_json(tmp_path / "launch.json", [train])
    assert (tmp_path / "launch.json").is_symlink()


def test_a_read_only_file_is_left_alone(tmp_path, train, as_an_ordinary_user):
    """A folder that can be written to would let it be replaced; its owner said no."""
    file = tmp_path / "launch.json"
    file.write_text("{}")
    file.chmod(0o444)
    with as_an_ordinary_user(tmp_path), pytest.raises(SewerError, match="cannot be read and written: Permission"):
        write_launch_json(file, [train])
    assert file.read_text() == "{}"


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path, train, as_an_ordinary_user):
    """No half-written draft can be left there, and none is."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "launch.json").write_text("{}")
    with as_an_ordinary_user(tmp_path):
        folder.chmod(0o555)
        with pytest.raises(SewerError, match="cannot be written: Permission"):
            write_launch_json(folder / "launch.json", [train])
    assert (folder / "launch.json").read_text() == "{}"
    assert os.listdir(folder) == ["launch.json"]


def test_the_text_is_on_the_disk_before_the_old_file_goes(tmp_path, train, monkeypatch):
    """A power cut leaves either the old or the new text, never an empty file."""
    file = tmp_path / "launch.json"
    file.write_text(WRITTEN_BY_A_PERSON, encoding="utf-8")
    merged = merged_launch_json(WRITTEN_BY_A_PERSON, [train])
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append((os.fstat(descriptor).st_size, file.read_text())))
    write_launch_json(file, [train])
    assert synced == [(len(merged.encode()), WRITTEN_BY_A_PERSON)]
    assert file.read_text(encoding="utf-8") == merged


def test_a_full_disk_leaves_the_old_file_and_no_draft(tmp_path, train, monkeypatch):
    """The draft is removed; the file is as it was."""
    file = tmp_path / "launch.json"
    file.write_text(WRITTEN_BY_A_PERSON, encoding="utf-8")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SewerError, match="cannot be written: No space left on device; it was left alone"):
        write_launch_json(file, [train])
    assert file.read_text(encoding="utf-8") == WRITTEN_BY_A_PERSON
    assert os.listdir(tmp_path) == ["launch.json"]


def mode(file):
    return stat.S_IMODE(os.stat(file).st_mode)


def test_what_a_person_added_to_a_configuration_stays_when_it_is_brought_up_to_date():
    """`justMyCode` is theirs; a working directory that the task no longer has was ours."""
    existing = (
        '{"version": "0.2.0", "configurations": [{"name": "t", "module": "old", "cwd": "/x", "justMyCode": false}]}'
    )
    (configuration,) = json.loads(merged_launch_json(existing, [Task("t", "new")]))["configurations"]
    assert configuration["module"] == "new"
    assert configuration["justMyCode"] is False
    assert "cwd" not in configuration


def test_a_configuration_of_another_kind_with_a_tasks_name_is_left_alone():
    """A Node debugger that happens to be named like a task is not made a Python one."""
    existing = '{"configurations": [\n  {"name": "t", "type": "node", "request": "attach"}]}'
    with pytest.raises(SewerError, match="2:3: a configuration of type 'node' is named 't'"):
        merged_launch_json(existing, [Task("t", "new")])
