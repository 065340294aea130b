"""Tasks are merged into a launch.json, and nothing else in it is touched."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.exporters.jsonc import parse, tokens
from airflow_provider_sewer.exporters.vscode import launch_configuration, launch_json, merged_launch_json

from .launch_file import HANDWRITTEN


def names(text):
    return [configuration["name"] for configuration in parse(text).data["configurations"]]


def test_merged_launch_json_changes_only_configuration_of_task(train):
    """Comments, order, odd spacing, trailing commas and other configurations are unchanged."""
    before, _, rest = HANDWRITTEN.partition('{\n            "name": "train"')
    after = rest[rest.index("}") + 1 :]
    merged = merged_launch_json(HANDWRITTEN, [train])
    assert merged.startswith(before)
    assert merged.endswith(after)
    replacement = merged.removeprefix(before).removesuffix(after)
    assert json.loads(replacement) == launch_configuration(train)
    assert replacement.splitlines()[1] == '            "name": "train",'
    assert replacement.splitlines()[-1] == "        }"


def test_merged_launch_json_appends_new_task_after_comments(train):
    """The comments stay with the configurations they stand behind; the trailing comma stays a habit."""
    new = Task("evaluate", "digits.evaluate")
    merged = merged_launch_json(HANDWRITTEN, [new])
    head, _, tail = HANDWRITTEN.partition('"switched off" },\n')
    assert merged.startswith(head + '"switched off" },\n        {\n            "name": "evaluate",\n')
    assert merged.endswith('"console": "integratedTerminal"\n        },\n' + tail)


def test_merged_launch_json_adds_no_trailing_comma(train):
    """A comment at the end of the line stays at the end of its line."""
    existing = '{"version": "1", "configurations": [\n  {"name": "mine"} // note\n]}'
    merged = merged_launch_json(existing, [Task("a", "m")])
    assert merged.startswith('{"version": "1", "configurations": [\n  {"name": "mine"}, // note\n  {\n')
    assert merged.endswith("\n  }\n]}")
    assert names(merged) == ["mine", "a"]


def test_merged_launch_json_keeps_equal_configuration(train):
    """A comment inside it, or another order of its keys, is no difference."""
    configuration = launch_configuration(train)
    pairs = [f"{json.dumps(key)}:{json.dumps(value)}, // {key}\n" for key, value in reversed(configuration.items())]
    existing = '{"version":"0.2.0","configurations":[{' + "".join(pairs) + "}]}"
    assert merged_launch_json(existing, [train]) == existing


def test_merged_launch_json_is_idempotent(train):
    """The second run finds everything in place."""
    tasks = [Task("new", "m"), train]
    once = merged_launch_json(HANDWRITTEN, tasks)
    assert once != HANDWRITTEN
    assert merged_launch_json(once, tasks) == once


def test_merged_launch_json_into_own_file_equals_new_file(train):
    """Merging tasks into an empty list, or one after the other, gives the text of a fresh file."""
    new = Task("new", "m")
    assert merged_launch_json(launch_json([]), [train, new]) == launch_json([train, new])
    assert merged_launch_json(launch_json([train]), [train, new]) == launch_json([train, new])


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_merged_launch_json_keeps_line_ends_and_byte_order_mark(train, newline, mark):
    """Added lines have the line ends of the file."""
    existing = mark + HANDWRITTEN.replace("\n", newline)
    merged = merged_launch_json(existing, [train, Task("new", "m")])
    assert merged == mark + merged_launch_json(HANDWRITTEN, [train, Task("new", "m")]).replace("\n", newline)


def test_merged_launch_json_keeps_white_space(train):
    """Blanks before a closing bracket are the user's own layout."""
    merged = merged_launch_json('{"version": "1", "configurations": [\n  {"name": "mine"}\n\n   ]\n\n}', [train])
    assert merged.startswith('{"version": "1", "configurations": [\n  {"name": "mine"},\n  {\n')
    assert merged.endswith("\n  }\n\n   ]\n\n}")


def test_merged_launch_json_adds_lines_to_file_on_one_line(train):
    """Existing text stays on its line."""
    merged = merged_launch_json('{"version": "1", "configurations": [{"name": "mine"}]}', [train])
    assert merged.startswith('{"version": "1", "configurations": [{"name": "mine"},\n    {\n        "name": "train",\n')
    assert merged.endswith("\n    }\n]}")


def test_merged_launch_json_indents_with_tabs_of_file(train):
    """A file that is indented with tabs goes on with tabs."""
    existing = '{\n\t"version": "0.2.0",\n\t"configurations": [\n\t\t{\n\t\t\t"name": "mine"\n\t\t}\n\t]\n}\n'
    merged = merged_launch_json(existing, [train])
    assert '\n\t\t{\n\t\t\t"name": "train",' in merged
    assert '\n\t\t\t"args": [\n\t\t\t\t"--epochs",' in merged
    assert "  " not in merged


def test_merged_launch_json_keeps_version_or_adds_it(train):
    """The one in the file wins, even over the one asked for."""
    assert parse(merged_launch_json(HANDWRITTEN, [train], version="9")).data["version"] == "0.1.0"
    assert parse(merged_launch_json('{"configurations": []}', [train], version="9")).data["version"] == "9"


def test_merged_launch_json_adds_configurations_array(train):
    """A file may so far hold nothing but other things."""
    existing = '{\n  "inputs": [], // none\n}\n'
    merged = merged_launch_json(existing, [train])
    assert merged.startswith('{\n  "inputs": [], // none\n  "version": "0.2.0",\n  "configurations": [\n    {\n')
    assert parse(merged).data["configurations"] == [launch_configuration(train)]


@pytest.mark.parametrize("blank", ["", " \n\t\r\n", "\ufeff", "\ufeff\n"])
def test_merged_launch_json_of_blank_file_equals_new_file(train, blank):
    """It may come from `touch`; it has no content to lose."""
    assert merged_launch_json(blank, [train]).removeprefix("\ufeff") == launch_json([train])


def test_merged_launch_json_keeps_elements_without_name(train):
    """VS Code would complain about them; they are preserved."""
    existing = '{"version": "1", "configurations": [1, {}, {"name": 7}, null, {"name": ["train"]}]}'
    merged = merged_launch_json(existing, [train])
    assert parse(merged).data["configurations"][:-1] == [1, {}, {"name": 7}, None, {"name": ["train"]}]
    assert parse(merged).data["configurations"][-1] == launch_configuration(train)


def test_merged_launch_json_rejects_duplicate_configuration_of_task(train):
    """Which one is the task's would be a guess; two of another program stay two."""
    existing = '{"configurations": [\n  {"name": "train"},\n  {"name": "train"}\n]}'
    with pytest.raises(
        SewerError, match=r"^3:3: second configuration with the name of task 'train'.*; the file is unchanged$"
    ):
        merged_launch_json(existing, [train])
    assert names(merged_launch_json(existing, [Task("other", "m")])) == ["train", "train", "other"]


@pytest.mark.parametrize(
    ("existing", "message"),
    [
        ("configurations: []", "1:1: unexpected character 'c'"),
        ("// a list\n[]", "2:1: the top level of launch.json must be an object"),
        ('{\n"configurations": {}}', '2:19: "configurations" must be an array'),
        ('{"configurations": null}', '1:20: "configurations" must be an array'),
        ('{"configurations": [],\n"configurations": []}', '2:1: duplicate name "configurations"'),
        ('{"configurations": [}', "1:21: expected a value, got }"),
    ],
)
def test_merged_launch_json_rejects_invalid_file_with_line_and_column(train, existing, message):
    """The message has the fault and its position, and that the file is unchanged."""
    with pytest.raises(SewerError) as refused:
        merged_launch_json(existing, [train])
    assert str(refused.value).startswith(message)
    assert str(refused.value).endswith("; the file is unchanged")


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
def test_merged_launch_json_keeps_other_content_of_any_file(strewn, configurations, rest, position, random):
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


def test_merged_launch_json_keeps_user_keys_of_configuration():
    """`justMyCode` is theirs; a working directory that the task no longer has was ours."""
    existing = (
        '{"version": "0.2.0", "configurations": [{"name": "t", "module": "old", "cwd": "/x", "justMyCode": false}]}'
    )
    (configuration,) = json.loads(merged_launch_json(existing, [Task("t", "new")]))["configurations"]
    assert configuration["module"] == "new"
    assert configuration["justMyCode"] is False
    assert "cwd" not in configuration


def test_merged_launch_json_rejects_task_name_of_other_debugger():
    """A Node debugger that happens to be named like a task is not made a Python one."""
    existing = '{"configurations": [\n  {"name": "t", "type": "node", "request": "attach"}]}'
    with pytest.raises(SewerError, match="2:3: configuration of type 'node' has the name of task 't'"):
        merged_launch_json(existing, [Task("t", "new")])
