"""Settings of a Slurm job can be given in several places, and every mistake in them is named at once."""

from __future__ import annotations

import copy
import math
import pickle
import re
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some
from submitit.slurm.slurm import SlurmExecutor, _get_default_parameters

from airflow_provider_sewer.core.errors import InvalidTask, SlurmError, SlurmOutOfMemory
from airflow_provider_sewer.core.slurm_parameters import RESERVED, RESOURCES
from airflow_provider_sewer.core.slurm_settings import DEFAULTS, SlurmSettings

#: What submitit takes only for old scripts.
FOR_OLD_SCRIPTS = {"num_gpus"}


def parameters(**slurm: object) -> dict:
    return dict(SlurmSettings.checked(slurm=slurm).slurm)


def fails(message: str, **fields: object) -> None:
    """Check that these settings make an error that starts with this text."""
    with pytest.raises(InvalidTask, match=f"^{re.escape(message)}"):
        SlurmSettings.checked(**fields)


def test_resources_match_submitit_parameters():
    """Both spellings, submitit's own and Slurm's; a parameter of a new version shows up here."""
    of_submitit = {*_get_default_parameters(), *SlurmExecutor._equivalence_dict()}

    assert set(RESOURCES) - {"login_environment"} == of_submitit - FOR_OLD_SCRIPTS


def test_checked_slurm_keeps_values_and_order():
    """Every parameter has a value that passes, and the order stays."""
    given = {
        "job_name": "größe 1", "partition": "gpu,main", "account": "lab", "qos": "long", "timeout_min": 60, "nodes": 2,
        "tasks_per_node": 1, "cpus_per_task": 8, "gpus_per_node": 0, "gpus_per_task": 1,
        "mem_gb": 1.5, "gres": "gpu:a100:1", "constraint": "a100&nvme", "nodelist": "n[1-3]", "exclude": "n4",
        "exclusive": "user", "dependency": "afterok:1", "comment": "night's run", "wckey": "k", "mail_type": "END,FAIL",
        "mail_user": "me@lab", "setup": ["module load cuda", "set -x\nulimit -n 9"], "teardown": [], "use_srun": True,
        "srun_args": ["--mpi=pmix"], "stderr_to_stdout": False, "signal_delay_s": 0, "array_parallelism": 9,
        "login_environment": False,
        "additional_parameters": {"hold": True, "nice": 10, "begin": "now+1hour", "wait-all-nodes": 1},
    }  # fmt: skip

    assert list(parameters(**given).items()) == list(given.items())


def test_checked_slurm_accepts_numbers_as_text():
    """Airflow fills templates in as text; numbers of GPUs are text anyhow where they name a type."""
    checked = parameters(nodes="2", mem_gb="1.5", timeout_min=" 60 ", gpus_per_node="a100:2,v100:1", gpus_per_task="1")

    assert checked == {
        "nodes": 2,
        "mem_gb": 1.5,
        "timeout_min": 60,
        "gpus_per_node": "a100:2,v100:1",
        "gpus_per_task": 1,
    }


@pytest.mark.parametrize("name", sorted(set(RESOURCES) - {"setup", "teardown", "srun_args", "additional_parameters",
                                                          "use_srun", "stderr_to_stdout",
                                                          "login_environment"}))  # fmt: skip
def test_checked_slurm_accepts_templates(name):
    """Their values are checked when they are known; a line break is one line too many even there."""
    assert parameters(**{name: "{{ params.x }}"}) == {name: "{{ params.x }}"}
    fails(f"slurm: {name} must not contain a line break, got '{{{{ a\\n}}}}'", slurm={name: "{{ a\n}}"})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("time", [90, "90", "1:30", "1:30:00", "2-0", "2-12:30", "2-12:30:00", "UNLIMITED"]),
        ("mem", [500, "0", "4G", "500M", "4GB", "1t", "100k"]),
        ("mem_per_cpu", ["2G"]),
        ("mem_per_gpu", ["2G"]),
        ("account", ["lab", 1234]),
    ],
)
def test_checked_slurm_accepts_slurm_formats(name, values):
    """A time, an amount of memory, an account that is a number."""
    assert [parameters(**{name: value})[name] for value in values] == list(map(str, values))


def test_exclusive_false_omits_option():
    """Sbatch has no such option, and submitit would write one that sbatch rejects."""
    assert parameters(exclusive=True) == {"exclusive": True}
    assert parameters(exclusive=False) == {"exclusive": None}


def test_checked_slurm_lists_names_for_unknown_parameter():
    """Not only the first thirty."""
    fails("slurm: unknown Slurm parameter 'partiton'; did you mean 'partition'? Known: "
          f"{', '.join(map(repr, RESOURCES))}.", slurm={"partiton": "x"})  # fmt: skip
    fails("slurm: unknown Slurm parameter 5.", slurm={5: "x"})


@pytest.mark.parametrize("given", ["partition=x", ["partition"], 5, True])
def test_checked_slurm_rejects_other_types(given):
    """The message shows the value."""
    fails(f"slurm must be a mapping of parameters, got {type(given).__name__}", slurm=given)


@pytest.mark.parametrize(
    "both",
    [
        {"mem": "4G", "mem_gb": 4},
        {"mem_gb": 4, "mem_per_cpu": "1G"},
        {"time": 5, "timeout_min": 5},
        {"cpus_per_task": 1, "cpus_per_gpu": 1},
        {"name": "a", "job_name": "a"},
        {"tasks_per_node": 1, "ntasks_per_node": 1},
    ],
)
def test_checked_slurm_rejects_exclusive_parameters(both):
    """Which one is meant is not known, and sbatch rejects some of them."""
    with pytest.raises(InvalidTask, match="exclude each other; keep one of them") as raised:
        SlurmSettings.checked(slurm=both)
    assert all(repr(name) in str(raised.value) for name in both)


def test_checked_slurm_accepts_none_beside_synonym():
    """None is no second value."""
    assert parameters(mem=None, mem_gb=4) == {"mem": None, "mem_gb": 4}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("timeout_min", 0, "must be a whole number of at least 1, got 0"),
        ("timeout_min", 1.5, "must be a whole number of at least 1, got 1.5"),
        ("timeout_min", "1:30:00", "must be a number, got '1:30:00'"),
        ("timeout_min", math.inf, "must be a number"),
        ("timeout_min", 10**400, "must be a number"),
        ("nodes", 0, "must be a whole number of at least 1"),
        ("nodes", True, "must be a number, got True"),
        ("nodes", [2], "must be a number, got [2]"),
        ("cpus_per_task", "", "must be a number"),
        ("cpus_per_task", -1, "must be a whole number of at least 1"),
        ("signal_delay_s", -1, "must be a whole number of at least 0"),
        ("mem_gb", 0, "must be at least one megabyte, in gigabytes, got 0"),
        ("mem_gb", 0.0005, "must be at least one megabyte"),
        ("mem_gb", "4G", "must be a number, got '4G'"),
        ("mem", "4 G", "must have a form that Slurm reads, such as '4G' or '500M'; got '4 G'"),
        ("mem", 1.5, "must be text, got 1.5"),
        ("time", "tomorrow", "must have a form that Slurm reads"),
        ("gpus_per_node", -1, "must be a number of at least 0, or 'type:number', got -1"),
        ("gpus_per_node", "a100", "must be a number of at least 0"),
        ("gpus_per_node", True, "must be text, got True"),
        ("partition", "", "must be text, got ''"),
        ("partition", ["a", "b"], "must be text"),
        ("account", True, "must be text, got True"),
        ("qos", "a\0b", "the text contains a NUL byte"),
        ("exclusive", 1, "must be a bool, got 1"),
        ("use_srun", "yes", "must be a bool, got 'yes'"),
        ("setup", "module load cuda", "must be a list of texts, got a single text; put it into brackets"),
        ("teardown", {"a": 1}, "must be a list of texts, got {'a': 1}"),
        ("setup", [5], "must be a list of texts, got one with 5"),
        ("setup", ["a\0"], "must not contain a NUL byte, got 'a\\x00'"),
        ("setup", ["true\n  #SBATCH --requeue"], "must be commands, got 'true\\n  #SBATCH --requeue'; options"),
        ("srun_args", "--mpi=pmix", "must be a list of texts, got a single text"),
        ("srun_args", ["a\nb"], "must not contain a line break, got 'a\\nb'"),
        ("additional_parameters", ["hold"], "must be a mapping of sbatch options, got list"),
        ("additional_parameters", {"--hold": True}, "'--hold' is not a valid name of an sbatch option; write"),
        ("additional_parameters", {"hold\n#SBATCH --x": True}, "'hold\\n#SBATCH --x' is not a valid name"),
        ("additional_parameters", {"hold": False}, "hold must be text, got False; give text, a number, or True"),
        ("additional_parameters", {"begin": None}, "begin must be text, got None"),
        ("additional_parameters", {"nice": "1\n#SBATCH --requeue"}, "nice must not contain a line break, got '1"),
    ],
)  # fmt: skip
def test_checked_slurm_rejects_invalid_values(name, value, expected):
    """The message has the parameter, its type and the value."""
    fails(f"slurm: {name}{' ' if expected.startswith('must ') else ': '}{expected}", slurm={name: value})


@pytest.mark.parametrize("name", [name for name in RESOURCES if name not in {"setup", "teardown"}])
@pytest.mark.parametrize("value", ["1\n#SBATCH --uid=0", "a\rb", ["a\nb"], {"nice": "a\nb"}])
def test_checked_slurm_rejects_line_breaks(name, value):
    """A line break would make one option two."""
    with pytest.raises(InvalidTask, match=f"^slurm: {name}:? "):
        SlurmSettings.checked(slurm={name: value})


@pytest.mark.parametrize("option", [*RESERVED, "open_mode", "Export", "job_name", "exp", "expor", "o"])
def test_additional_parameters_reject_reserved_options(option):
    """Nor begun: sbatch takes the beginning of an option for the option."""
    fails(f"slurm: additional_parameters must not contain {option!r}; sbatch's option --",
          slurm={"additional_parameters": {option: "x"}})  # fmt: skip


def test_checked_slurm_copies_values():
    """One dict may serve several tasks."""
    setup, options = ["a"], {"hold": True}
    slurm = {"setup": setup, "additional_parameters": options}
    settings = SlurmSettings.checked(slurm=slurm)

    setup.append("b")
    options["nice"] = 1
    slurm["nodes"] = 2

    assert settings.slurm == {"setup": ["a"], "additional_parameters": {"hold": True}}


def test_checked_accepts_seconds_and_timedeltas():
    """They come out as seconds."""
    settings = SlurmSettings.checked(
        poll_interval=2, max_poll_interval=timedelta(minutes=1), max_pending_time=timedelta(hours=2), lost_after=0
    )

    assert settings == SlurmSettings({}, poll_interval=2, max_poll_interval=60, max_pending_time=7200, lost_after=0)


@pytest.mark.parametrize(
    ("field", "values", "expected"),
    [
        ("run_dir", ["", 5, "NUL\0"], "must be a path, got "),
        ("cluster", ["Slurm", "", True, ["slurm"]], "must be 'auto' or 'slurm' or 'local', got "),
        ("on_kill_action", ["cancel", None.__class__], "must be 'cancel_job' or 'keep_job', got "),
        ("deferrable", ["yes", 1], "must be a bool, got "),
        ("durable", [0], "must be a bool, got "),
        ("requeue", ["true"], "must be a bool, got "),
        ("wait_for_completion", [1.0], "must be a bool, got "),
        ("poll_interval", [0, -1, "5", True, math.nan, math.inf], "must be seconds or a timedelta more than 0"),
        ("poll_interval", [1e300, 10**400], "must be seconds or a timedelta more than 0"),
        ("max_poll_interval", [0, timedelta(0)], "must be seconds or a timedelta more than 0"),
        ("max_pending_time", [0, "1h"], "must be seconds or a timedelta more than 0"),
        ("lost_after", [-1, "5"], "must be seconds or a timedelta, got "),
        ("fail_on_pending_reason", ["Licenses", [5], [""], {"a": 1}, True], ""),
    ],
)
def test_checked_rejects_invalid_settings(field, values, expected):
    """The message starts with the setting's name."""
    for value in values:
        fails(f"{field} {expected}", **{field: value})


def test_max_poll_interval_below_poll_interval_raises():
    """The longest interval cannot be shorter than the shortest."""
    fails("max_poll_interval must be at least poll_interval (10 s), got 5 s", poll_interval=10, max_poll_interval=5)


def test_fail_on_pending_reason_accepts_empty_list():
    """An empty list is a setting; a missing one is not."""
    assert SlurmSettings.checked(fail_on_pending_reason=[]).fail_on_pending_reason == ()
    assert SlurmSettings.checked(fail_on_pending_reason=["Licenses"]).fail_on_pending_reason == ("Licenses",)
    assert SlurmSettings.checked().fail_on_pending_reason is None


def test_run_dir_is_relative_to_folder():
    """As it is for every path; home folders and templates are left alone."""
    assert SlurmSettings.checked(run_dir=Path("runs"), folder="/flows").run_dir == "/flows/runs"
    assert SlurmSettings.checked(run_dir="~/runs", folder="/flows").run_dir == "~/runs"


def test_map_paths_changes_run_dir():
    """A missing setting stays missing."""
    assert SlurmSettings(run_dir="runs").map_paths(str.upper) == SlurmSettings(run_dir="RUNS")
    assert SlurmSettings().map_paths(str.upper) == SlurmSettings()


def test_with_fallback_settings_precedence():
    """Also where the nearer one is False or empty: that is a setting too."""
    near = SlurmSettings.checked(durable=False, fail_on_pending_reason=[], lost_after=0, slurm={"qos": "long"})
    far = SlurmSettings.checked(durable=True, fail_on_pending_reason=["x"], lost_after=9, requeue=True,
                                slurm={"qos": "short", "nodes": 2})  # fmt: skip

    assert near.with_fallback(far) == SlurmSettings(
        {"qos": "long", "nodes": 2}, durable=False, fail_on_pending_reason=(), lost_after=0, requeue=True
    )


@pytest.mark.parametrize(
    ("near", "far", "both"),
    [
        ({"mem_gb": 8}, {"mem": "4G"}, {"mem_gb": 8}),
        ({"mem": "4G"}, {"mem_gb": 8, "nodes": 2}, {"nodes": 2, "mem": "4G"}),
        ({"mem_per_cpu": "1G"}, {"mem_gb": 8}, {"mem_per_cpu": "1G"}),
        ({"time": "1-0"}, {"timeout_min": 5}, {"time": "1-0"}),
        ({"cpus_per_gpu": 4}, {"cpus_per_task": 8}, {"cpus_per_gpu": 4}),
        ({"name": "a"}, {"job_name": "b"}, {"name": "a"}),
        ({"ntasks_per_node": 1}, {"tasks_per_node": 2}, {"ntasks_per_node": 1}),
        ({"mem": None}, {"mem_gb": 8}, {"mem": None}),
        ({"qos": None}, {"qos": "long"}, {"qos": None}),
    ],
)
def test_with_fallback_replaces_synonyms(near, far, both):
    """A task that asks for mem_gb does not also get the connection's mem."""
    assert SlurmSettings(near).with_fallback(SlurmSettings(far)).slurm == both


def test_none_parameter_survives_merging():
    """A None is passed on."""
    dropped = SlurmSettings({"account": None}).with_fallback(SlurmSettings({"nodes": 1}))

    assert dropped.with_fallback(SlurmSettings({"account": "lab"})).slurm == {"account": None, "nodes": 1}


_ANYWHERE = some.builds(
    SlurmSettings,
    some.dictionaries(some.sampled_from(["mem", "mem_gb", "mem_per_cpu", "time", "timeout_min", "qos"]),
                      some.sampled_from([None, 1, 2])),
    deferrable=some.sampled_from([None, True, False]),
    lost_after=some.sampled_from([None, 0.0, 1.0]),
    retry_with=some.sampled_from([
        None, {}, {"SlurmTimeout": None}, {"SlurmTimeout": {"time": 2}, "max": {"mem": "4G"}},
        {"max": {"mem": None, "time": 5}}, {"SlurmTimeout": {"time": 3}},
    ]),
)  # fmt: skip


@given(_ANYWHERE, _ANYWHERE, _ANYWHERE)
def test_with_fallback_is_associative(near, middle, far):
    """Task, group and connection can be put together in either order."""
    assert near.with_fallback(middle).with_fallback(far) == near.with_fallback(middle.with_fallback(far))


def test_defaults_are_valid():
    """They could stand in a connection."""
    assert SlurmSettings.checked(**DEFAULTS._asdict()) == DEFAULTS


def test_settings_and_errors_can_be_pickled():
    """By pickle and by copy, with all that they know."""
    settings = SlurmSettings.checked(slurm={"setup": ["a"]}, fail_on_pending_reason=["x"])
    error = SlurmOutOfMemory("too much", job_id="7", state="OUT_OF_MEMORY", node="n1", run_directory="/r")
    received = pickle.loads(pickle.dumps(error))

    assert pickle.loads(pickle.dumps(settings)) == copy.deepcopy(settings) == settings
    assert isinstance(received, SlurmError)
    assert (str(received), vars(received)) == ("too much", vars(error))
