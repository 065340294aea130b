"""Overrides of task settings in a DAG file, and lookup of Airflow tasks by task name."""

from __future__ import annotations

import copy

import pytest
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, TaskGroup
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_sewer import SewerError
from airflow_provider_sewer.operators.module import PythonModuleOperator
from airflow_provider_sewer.task_group import SewerTaskGroup, sewer_task_group

FLOW = """
first = Task("first", "job")
svc = Task(
    "train svc", "job", tags="gpu", env={"COLOUR": "red", "SHAPE": "round"}, depends_on=first,
    operator_kwargs={"retries": 2, "queue": "file"}, slurm={"mem_gb": 8, "nodes": 1},
)
tree = Task("train tree", "job", depends_on=first, run_on="slurm", operator_kwargs={"poll_interval": 9})
each = Task("each", "job", {"exit": 0}).map(exit=[0, 0, 0])
"""


def test_overrides_take_precedence_over_workflow_file(expand):
    """They also take precedence over the group's arguments, and later entries over earlier ones."""
    group = expand(
        FLOW,
        operator_kwargs={"queue": "group", "retries": 1, "pool": "group"},
        overrides={"train*": {"queue": "trains", "retries": 5}, "tag:gpu": {"retries": 7}, "each": {"retries": 3}},
    )

    def settings_of(name: str) -> tuple:
        return group[name].queue, group[name].retries, group[name].pool

    assert settings_of("first") == ("group", 1, "group")
    assert settings_of("train svc") == ("trains", 7, "group")
    assert settings_of("train tree") == ("trains", 5, "group")
    assert settings_of("each") == ("group", 3, "group")


def test_overrides_change_run_on_and_execution_settings(expand):
    """Variable by variable and parameter by parameter, as between all other places; paths are from the DAG file."""
    group = expand(
        FLOW,
        overrides={
            "train*": {"env": {"COLOUR": "blue"}, "workdir": "data", "python": "own/python", "inherit_env": True},
            "train svc": {"env": {"SIZE": "1"}, "run_on": "slurm", "slurm": {"mem": "1G"}, "run_dir": "/runs"},
            "+train tree": {"run_on": "local"},
        },
    )
    svc, tree = group["train svc"], group["train tree"]

    assert (svc.env, svc.workdir, svc.python) == (
        {"COLOUR": "blue", "SHAPE": "round", "SIZE": "1"},
        "data",
        "own/python",
    )
    assert (type(svc).__name__, svc.slurm, svc.run_dir) == ("SlurmModuleOperator", {"mem": "1G", "nodes": 1}, "/runs")
    assert (type(tree).__name__, tree.env, tree.inherit_env) == ("PythonModuleOperator", {"COLOUR": "blue"}, True)


def test_overrides_workdir_changes_paths_and_edges(expand):
    """So no edge comes of a path that is not the same any more."""
    source = """
    raw = Task("raw", "job", {"out": Product("raw.txt")})
    Task("clean", "job", {"in": Dependency("raw.txt")})
    """

    assert expand(source)["clean"].upstream_task_ids == {"g.raw"}
    assert expand(source, overrides={"raw": {"workdir": "/elsewhere"}})["clean"].upstream_task_ids == set()


def test_overrides_of_excluded_tasks_are_ignored(expand):
    """One DAG file can make several parts of one workflow."""
    assert [operator.label for operator in expand(FLOW, select="first", overrides={"train*": {"retries": 1}})] == [
        "first"
    ]


@pytest.mark.parametrize("part", [{"select": "each[exit=1]"}, {"exclude": "each[exit=0]"}])
def test_overrides_match_one_mapped_task_selected_as_single_task(expand, part):
    """As in a part of the loop; all of them, by the name of the loop as well."""
    source = FLOW.replace("[0, 0, 0]", "[0, 1]")

    assert expand(source, **part, overrides={"each[exit=1]": {"retries": 3}})["each[exit=1]"].retries == 3
    assert expand(source, **part, overrides={"each": {"retries": 4}})["each[exit=1]"].retries == 4


def test_overrides_match_one_mapped_task_in_mapped_group(tmp_path):
    """There loops are tasks of their own."""
    path = tmp_path / "flow.py"
    path.write_text("""if True:
        from airflow_provider_sewer import Task, workflow

        @workflow
        def loop(n):
            Task("each", "job", {"exit": 0, "n": n}).map(exit=[0, 1]).run()
    """)
    with DAG("dag", schedule=None):
        group = sewer_task_group.partial(path, overrides={"each[exit=1]": {"retries": 3}}).expand(n=[1, 2])

    assert [group[f"each[exit={code}]"].retries for code in (0, 1)] == [0, 3]


@pytest.mark.parametrize(
    "overrides",
    [
        {"first": {"slurm": {"mem_gb": 1}}},
        {"first": {"deferrable": True}},
        {"first": {"run_on": "slurm"}, "*": {"slurm": {"mem_gb": 1}, "poll_interval": 3}},
        {"tr*": {"poll_interval": 3}},
    ],
)
def test_overrides_slurm_fields_apply_to_slurm_tasks_only(expand, overrides):
    """A group-wide run_on may change between Slurm and the worker."""
    for place in ("slurm", "local"):
        expand(FLOW, run_on=place, overrides=overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"tarin*": {}}, r"^overrides 'tarin\*': unknown task 'tarin\*'"),
        ({"frist": {}}, "^overrides 'frist': unknown task 'frist'; did you mean 'first'"),
        ({"first": {"module": "x", "products": []}}, "^overrides 'first': 'module', 'products' cannot be overridden; "),
        ({"first": {"env": {"A": 1}, "python": ""}}, "^overrides 'first': python must be a path"),
        ({"first": {"run_on": "moon"}}, "^overrides 'first': run_on must be 'local' or 'slurm'"),
        ({"first": {"slurm": {"memgb": 1}}}, "^overrides 'first': slurm: unknown Slurm parameter 'memgb'"),
        ({"first": {"retires": 1}}, r"flow\.py:3: task 'first' \(overridden: 'retires'\): .*{'retires': 1}"),
        ({"each": {"pool_slots": 0}}, r"flow\.py:9: task 'each' \(overridden: 'pool_slots'\): .*pool slots"),
        (
            {"first": {"resources": {"gpu": 1}}},
            "^overrides 'first': 'resources' cannot be overridden; override 'pool'",
        ),
        ({"first": {"tags": ["x"], "group": "g"}}, "^overrides 'first': 'group', 'tags' cannot be overridden; "),
        ({"first": 3}, "^overrides 'first': the value must be a mapping of operator arguments, got 3"),
        (["first"], r"^overrides must be a mapping of task names to operator arguments, got \['first'\]"),
        ({"each[exit=0]": {"retries": 1}}, r"is one mapped task in Airflow; override 'each'"),
        (
            {"first": {"slurm": {"mem_gb": 1}}},
            "^overrides 'first': 'slurm' can only be set for tasks on Slurm, but the matching tasks run on",
        ),
        ({"tag:gpu": {"deferrable": True, "requeue": False}}, "^overrides 'tag:gpu': 'deferrable', 'requeue' can only"),
    ],
)
def test_overrides_invalid_value_raises(expand, overrides, message):
    """It names the key, and the file where that has the task."""
    source = FLOW.replace("[0, 0, 0]", "[0, 1]")
    with pytest.raises(SewerError, match=rf"(?s){message}"):
        expand(source, overrides=overrides)


def test_group_getitem_returns_airflow_task_by_task_name(expand):
    """A mapped one by its own name and by those of its tasks; a name that there is not is an error."""
    group = expand(FLOW.replace("[0, 0, 0]", "[0, 1]"))

    assert isinstance(group, SewerTaskGroup)
    assert group["train svc"] is group.dag.get_task("g.train_svc")
    assert group["each"] is group["each[exit=1]"]
    assert list(group.tasks_map) == ["first", "train svc", "train tree", "each", "each[exit=0]", "each[exit=1]"]
    with pytest.raises(SewerError, match="unknown task 'train_svc'; did you mean 'train svc'"):
        group["train_svc"]


def test_group_tasks_map_and_contains_list_its_tasks(expand):
    """By their names, as ``group["train"]`` knows them; and, as any TaskGroup does, by the Airflow tasks themselves."""
    group = expand(FLOW, exclude="train tree")
    with group.dag:
        outside = BashOperator(task_id="outside", bash_command="true")

    assert [name in group for name in ("train svc", "each", "each[exit=0]")] == [True, True, True]
    assert [name in group for name in ("train tree", "g.train_svc", "", 5, None)] == [False] * 5
    assert group["train svc"] in group
    assert outside not in group


def test_group_getitem_task_can_be_connected_and_changed(expand):
    """As any other Airflow task."""
    group = expand(FLOW)
    with group.dag:
        group["train svc"] >> BashOperator(task_id="after", bash_command="true")
    group["first"].doc_md = "changed"

    assert group.dag.get_task("after").upstream_task_ids == {"g.train_svc"}


def test_group_copy_returns_its_own_tasks(expand):
    """Airflow copies DAGs when a part of one is tested or shown."""
    group = expand(FLOW)
    whole = copy.deepcopy(group.dag)
    part = group.dag.partial_subset("train_svc")

    for dag, names in ((whole, list(group.tasks_map)), (part, ["first", "train svc"])):
        copied = dag.task_group.children["g"]
        assert list(copied.tasks_map) == names
        for name in names:
            assert copied[name] is dag.get_task(group[name].task_id)
            assert copied[name] is not group[name]


def test_sewer_task_group_is_an_airflow_task_group(expand):
    """It is written and read as one, and the same from parse to parse."""
    group, again = expand(FLOW), expand(FLOW)
    data = DagSerialization.to_dict(group.dag)

    assert data == DagSerialization.to_dict(again.dag)
    assert list(DagSerialization.from_dict(data).task_group.children["g"].children) == sorted(
        operator.task_id for operator in group
    )
    assert issubclass(SewerTaskGroup, TaskGroup)


class Own(PythonModuleOperator):
    """A custom operator."""


def test_task_converter_changes_arguments(expand):
    """It is given the task and all arguments of its operator, of a mapped task as well."""
    seen = []

    def converter(task, arguments):
        seen.append((task.name, task.tags, arguments["retries"], arguments["queue"]))
        return {**arguments, "retries": 9, "parameters_and_flags": {"exit": 3}} if "gpu" in task.tags else arguments

    group = expand(FLOW, task_converter=converter, overrides={"*": {"retries": 1, "queue": "q"}})

    assert seen == [
        ("first", (), 1, "q"),
        ("train svc", ("gpu",), 1, "q"),
        ("train tree", (), 1, "q"),
        ("each", (), 1, "q"),
    ]
    assert (group["train svc"].retries, group["train svc"].parameters_and_flags) == (9, {"exit": 3})
    assert group["first"].retries == group["each"].retries == 1


def test_task_converter_returns_operator(expand):
    """A custom class or another operator; for a mapped task, a partial operator."""

    def converter(task, arguments):
        if task.name == "first":
            return BashOperator(task_id=arguments["task_id"], bash_command="true")
        return Own.partial(**arguments) if task.name == "each" else Own(**arguments)

    group = expand(FLOW.replace('run_on="slurm", operator_kwargs={"poll_interval": 9}', ""), task_converter=converter)

    assert [type(group[name]).__name__ for name in ("first", "train svc", "each")] == [
        "BashOperator",
        "Own",
        "MappedOperator",
    ]
    assert group["each"].operator_class is Own
    assert group["first"].downstream_task_ids == {"g.train_svc", "g.train_tree"}


DEEP = """
t = Task(
    "t", "job", {"layers": [1, {"deep": [2]}]}, args=["a"], env={"A": "1"}, tags=["x"], run_on="slurm",
    slurm={"setup": ["true"]}, operator_kwargs={"params": {"p": [1]}, "executor_config": {"deep": {"a": [1]}}},
)
same = Task("same", "job", operator_kwargs={"params": {"p": [1]}})
each = Task("each", "job", {"n": 0, "deep": [1]}, operator_kwargs={"params": {"p": [1]}}).map(n=[1, 2])
"""


def test_task_converter_changes_affect_one_airflow_task(expand):
    """Several groups share one loaded workflow file; changes of tasks affect only their own group."""

    def spoil(value) -> None:
        for item in list(value.values()) if isinstance(value, dict) else list(value):
            if isinstance(item, (dict, list)):
                spoil(item)
        value.update(spoilt=1) if isinstance(value, dict) else value.append("spoilt")

    def converter(task, arguments):
        for value in (*arguments.values(), *vars(task).values(), task.settings.env, task.slurm.slurm):
            if isinstance(value, (dict, list)):
                spoil(value)
        task.tags = ()
        return {name: value for name, value in arguments.items() if name in ("task_id", "module", "python")}

    config = {"params": {"q": [1]}}
    arguments = {"operator_kwargs": {"executor_config": config}, "slurm": {"teardown": ["true"]}}
    before = DagSerialization.to_dict(expand(DEEP, **arguments).dag)
    for _ in range(2):
        expand(DEEP, task_converter=converter, **arguments)
        assert DagSerialization.to_dict(expand(DEEP, **arguments).dag) == before


def test_changes_of_airflow_task_affect_no_other(expand):
    """Not for that of the same task in another DAG."""
    for _ in range(2):
        task = expand(DEEP)["t"]
        assert task.executor_config == {"deep": {"a": [1]}}
        assert task.slurm == {"setup": ["true"]}
        task.executor_config["deep"]["a"].append(2)
        task.slurm["setup"].append("false")


@pytest.mark.parametrize(
    ("converter", "message"),
    [
        (
            lambda task, arguments: None,
            r"flow\.py:3: task 'first': task_converter must return operator arguments or an",
        ),
        (lambda task, arguments: 1 / 0, r"task 'first': task_converter: ZeroDivisionError: division by zero"),
        (
            lambda task, arguments: {**arguments, "task_id": "x"},
            r"must keep task_id 'g\.first', got 'g\.x'",
        ),
        ("a name", "^task_converter must be a function, got 'a name'"),
    ],
)
def test_task_converter_invalid_result_raises_with_task_and_line(expand, converter, message):
    """With the task and its line."""
    with pytest.raises(SewerError, match=message):
        expand(FLOW, task_converter=converter)


def test_task_converter_operator_for_mapped_task_raises(expand):
    """It can only return a partial operator."""

    def converter(task, arguments):
        return BashOperator(task_id=arguments["task_id"], bash_command="true") if task.name == "each" else arguments

    with pytest.raises(SewerError, match=r"must return operator arguments or Operator\.partial\(…\) for a mapped task"):
        expand(FLOW, task_converter=converter)


def test_overrides_apply_at_run_time(expand, run_dag):
    """In a real run, whichever way they were given."""

    def converter(task, arguments):
        return {**arguments, "env": {**arguments["env"], "COLOUR": "green"}} if task.name == "each" else arguments

    source = FLOW.replace('run_on="slurm", operator_kwargs={"poll_interval": 9}', "").replace('"queue": "file"', "")
    overrides = {"*": {"env": {"COLOUR": "blue"}}, "tag:gpu": {"env": {"COLOUR": "white"}}}
    result = run_dag(expand(source, overrides=overrides, task_converter=converter).dag)

    assert result.results["g.first"] == "blue"
    assert result.results["g.train_svc"] == "white"
    assert result.results["g.each[0]"] == "green"


RETRIED = """
from airflow_provider_sewer import Task
Task("grows", "job", slurm={"mem_gb": 8}, retry_with={"SlurmOutOfMemory": {"mem_gb": 2}, "max": {"mem_gb": 64}})
each = Task("each", "job", {"exit": 0}, slurm={"mem_gb": 1}).map(exit=[0, 1])
"""


def test_retry_with_is_merged_error_by_error(expand):
    """Of the task, the group and the overrides; also for a mapped task."""
    group = expand(
        RETRIED,
        run_on="slurm",
        slurm={"timeout_min": 5},
        retry_with={"SlurmTimeout": {"timeout_min": 1.5}, "max": {"timeout_min": 60}},
        overrides={"grows": {"retry_with": {"SlurmOutOfMemory": {"mem_gb": 3}}}},
    )
    assert group["grows"].retry_with == {
        "SlurmOutOfMemory": {"mem_gb": 3},
        "SlurmTimeout": {"timeout_min": 1.5},
        "max": {"mem_gb": 64, "timeout_min": 60},
    }
    assert group["each"].partial_kwargs["retry_with"] == {
        "SlurmTimeout": {"timeout_min": 1.5},
        "max": {"timeout_min": 60},
    }


def test_retry_with_is_accepted_on_tasks_that_run_locally(expand):
    """One workflow file runs everywhere."""
    assert type(expand(RETRIED, run_on="local")["grows"]) is PythonModuleOperator


@pytest.mark.parametrize("task", ["Task('a', 'job')", "Task('a', 'job', {'exit': 0}).map(exit=[0, 1])"])
def test_retry_with_for_an_amount_that_is_not_requested_raises(expand, task):
    """The error has the line of the task, also where it is mapped."""
    with pytest.raises(SewerError, match=r"flow\.py.*mem_gb cannot be multiplied.*add mem_gb to slurm"):
        expand(task, run_on="slurm", retry_with={"SlurmOutOfMemory": {"mem_gb": 2}})
