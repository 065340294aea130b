"""``retry_with``: checks, and the request of the attempt after a failed one."""

from __future__ import annotations

import re

import pytest

from airflow_provider_sewer.core.errors import InvalidTask, SlurmRequestLimit
from airflow_provider_sewer.core.retry_requests import (
    Failure,
    Request,
    checked_retry_with,
    merged_rules,
    next_request,
    reject_missing_amounts,
    tries_of,
    without_missing_amounts,
)

MEMORY = {"SlurmOutOfMemory": {"mem_gb": 2.0}, "max": {"mem_gb": 40}}
OUT_OF_MEMORY = Failure("out_of_memory", "n1")


@pytest.mark.parametrize(
    ("parameter", "value", "factor", "after"),
    [
        ("mem_gb", 16, 2.0, 32),
        ("mem_gb", 0.25, 1.5, 0.375),
        ("mem_gb", 0.1, 1.1, 113 / 1024),
        ("mem", "4G", 2, "8G"),
        ("mem", "3G", 1.5, "4608M"),
        ("mem", "800", 2, "1600M"),
        ("mem_per_cpu", "300M", 1.5, "450M"),
        ("mem_per_gpu", "1T", 2, "2048G"),
        ("timeout_min", 5, 1.5, 8),
        ("time", "90", 1.5, "135"),
        ("time", "1:30:00", 2, "0-03:00:00"),
        ("time", "1-02:00:00", 1.5, "1-15:00:00"),
        ("time", "2-12", 2, "5-00:00:00"),
        ("cpus_per_task", 3, 1.5, 5),
        ("nodes", 1, 1.1, 2),
        ("gpus_per_node", 1, 2, 2),
        ("gpus_per_node", "a100:2", 1.5, "a100:3"),
        ("gpus_per_task", "a100:2,v100:1", 2, "a100:4,v100:2"),
    ],
)
def test_factor_multiplies_the_asked_value_in_its_own_form(parameter, value, factor, after):
    """Slurm's integers are rounded up."""
    rules = checked_retry_with({"SlurmTimeout": {parameter: factor}})
    request, changes = next_request({parameter: value}, rules, Failure("timeout"))
    assert request == {parameter: after}
    assert changes == [f"{parameter}={after} (was {value})"]


@pytest.mark.parametrize(
    ("named", "requested"),
    [("mem_gb", {"mem": "4G"}), ("mem", {"mem_gb": 4}), ("timeout_min", {"time": "1:00:00"}),
     ("ntasks_per_node", {"tasks_per_node": 2})],
)  # fmt: skip
def test_factor_reaches_the_synonym_that_is_requested(named, requested):
    """A group can name mem_gb for tasks that write mem."""
    request, _ = next_request(requested, {"SlurmTimeout": {named: 2}}, Failure("timeout"))
    assert request.keys() == requested.keys()
    assert request != requested


def test_text_replaces_the_value_and_other_names_of_it():
    """A partition is replaced, and so is an amount."""
    rules = checked_retry_with({"SlurmPreempted": {"partition": "main", "mem_gb": "64"}})
    request, changes = next_request({"partition": "scavenge", "mem_per_cpu": "1G"}, rules, Failure("preempted"))
    assert request == {"partition": "main", "mem_gb": 64}
    assert changes == ["partition=main (was scavenge)", "mem_gb=64 (was mem_per_cpu=1G)"]


def test_exclude_node_adds_each_node_once():
    """Nodes that the task excludes itself stay excluded."""
    rules = checked_retry_with({"SlurmNodeFailure": {"exclude_node": True}})
    first, _ = next_request({"exclude": "n9"}, rules, Failure("node_failure", "n1"))
    second, changes = next_request(first, rules, Failure("node_failure", "n1"))
    assert first == second == {"exclude": "n9,n1"}
    assert changes == []
    assert next_request({}, rules, Failure("node_failure", ""))[0] == {}


def test_other_errors_change_nothing():
    """Only the rule of the error counts."""
    assert next_request({"mem_gb": 16}, MEMORY, Failure("job_failed")) == ({"mem_gb": 16}, [])


def test_limit_between_two_megabytes_is_requested_once():
    """Slurm counts megabytes: 0.3 GB are 307 of them."""
    rules = {"SlurmOutOfMemory": {"mem_gb": 2.0}, "max": {"mem_gb": 0.3}}
    request, _ = next_request({"mem_gb": 0.25}, rules, OUT_OF_MEMORY)
    assert request == {"mem_gb": 307 / 1024}
    with pytest.raises(SlurmRequestLimit):
        next_request(request, rules, OUT_OF_MEMORY)


@pytest.mark.parametrize("unit", [{"mem_gb": 40}, {"mem": "40G"}])
def test_limit_is_requested_once_and_then_raises(unit):
    """From 16 over 32 to 40, then no further."""
    rules = checked_retry_with({**MEMORY, "max": unit})
    request: dict = {"mem_gb": 16}
    for expected in (32, 40):
        request, _ = next_request(request, rules, OUT_OF_MEMORY)
        assert request == {"mem_gb": expected}
    with pytest.raises(SlurmRequestLimit, match=r"mem_gb would exceed max 40 \(asked: 40, next: 80\); raise max"):
        next_request(request, rules, OUT_OF_MEMORY)


def test_limit_of_one_amount_does_not_stop_the_other():
    """A rule with two amounts ends when neither can grow."""
    rules = {"SlurmOutOfMemory": {"mem_gb": 2, "cpus_per_task": 2}, "max": {"cpus_per_task": 4, "mem_gb": 64}}
    request: dict = {"mem_gb": 16, "cpus_per_task": 4}
    request, changes = next_request(request, rules, OUT_OF_MEMORY)
    assert (request, len(changes)) == ({"mem_gb": 32, "cpus_per_task": 4}, 1)
    request, _ = next_request(request, rules, OUT_OF_MEMORY)
    with pytest.raises(SlurmRequestLimit, match="cpus_per_task would exceed max 4"):
        next_request(request, rules, OUT_OF_MEMORY)


def test_text_from_another_place_is_lowered_to_the_limit():
    """The connection's limit holds for the texts of a task, too."""
    rules = merged_rules({"SlurmPreempted": {"mem_gb": "64", "time": "UNLIMITED"}}, {"max": {"mem": "32G", "time": 60}})
    request, _ = next_request({"mem_per_cpu": "1G", "time": "30"}, rules, Failure("preempted"))
    assert request == {"mem_gb": 32, "time": "0-01:00:00"}
    assert next_request(request, rules, Failure("preempted")) == (request, [])


def test_limit_of_typed_gpus_keeps_the_type():
    """The limit is a number, the request has a type."""
    rules = {"SlurmOutOfMemory": {"gpus_per_node": 2}, "max": {"gpus_per_node": 3}}
    assert next_request({"gpus_per_node": "a100:2"}, rules, OUT_OF_MEMORY)[0] == {"gpus_per_node": "a100:3"}


# -- Series of attempts ------------------------------------------------------------------------------------------------


def test_failures_of_different_errors_accumulate():
    """Memory after the first, time after the second."""
    rules = {**MEMORY, "SlurmTimeout": {"timeout_min": 1.5}}
    own = Request.of({"mem_gb": 16, "timeout_min": 10, "setup": ["x"]})
    second, _ = own.after(own, rules, OUT_OF_MEMORY)
    third, changes = own.after(second, rules, Failure("timeout"))
    assert third.asked == {"mem_gb": 32, "timeout_min": 15}
    assert changes == ["timeout_min=15 (was 10)"]
    assert third.applied_to({"mem_gb": 16, "timeout_min": 10, "setup": ["x"]})["setup"] == ["x"]


def test_attempt_without_failure_keeps_its_request():
    """A worker that was killed in between neither loses nor doubles the growth."""
    own = Request.of({"mem_gb": 16})
    second, _ = own.after(own, MEMORY, OUT_OF_MEMORY)
    assert own.after(second, MEMORY, None) == (second, [])


def test_value_that_the_user_changes_in_between_counts():
    """It is not multiplied: the user has reacted to the failure."""
    rules = {"SlurmOutOfMemory": {"mem_gb": 2.0, "timeout_min": 2}}
    before = Request.of({"mem_gb": 16, "timeout_min": 10})
    now, _ = Request.of({"mem_gb": 100, "timeout_min": 10}).after(before, rules, OUT_OF_MEMORY)
    assert now.asked == {"mem_gb": 100, "timeout_min": 20}


def test_value_that_the_user_changes_in_between_replaces_those_that_exclude_it():
    """The job would request memory twice."""
    rules = {"SlurmOutOfMemory": {"mem_per_cpu": "8G"}}
    before, _ = Request.of({"mem_gb": 16}).after(Request.of({"mem_gb": 16}), rules, OUT_OF_MEMORY)
    assert before.asked == {"mem_per_cpu": "8G"}
    assert Request.of({"mem_gb": 100}).after(before, rules, OUT_OF_MEMORY)[0].asked == {"mem_gb": 100}


# -- Checks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1], r"retry_with must be a mapping of error names to changes, got \[1\]"),
        ({"SlurmOutOfMemry": {}}, "unknown error 'SlurmOutOfMemry'; did you mean 'SlurmOutOfMemory'"),
        ({"SlurmUnsatisfiable": {}}, "unknown error 'SlurmUnsatisfiable'"),
        ({"SlurmTimeout": 2}, "SlurmTimeout: must be a mapping of Slurm parameters to factors or texts, got 2"),
        ({"SlurmTimeout": {"timeout": 2}}, "unknown parameter 'timeout'; did you mean 'timeout_min'"),
        ({"SlurmTimeout": {"setup": "x"}}, "unknown parameter 'setup'"),
        ({"SlurmTimeout": {"timeout_min": 1}}, "timeout_min must be a factor more than 1 and at most 1000, or text"),
        ({"SlurmTimeout": {"timeout_min": True}}, "timeout_min must be a factor"),
        ({"SlurmTimeout": {"timeout_min": float("nan")}}, "timeout_min must be a factor"),
        ({"SlurmTimeout": {"timeout_min": "long"}}, "timeout_min must be a number, got 'long'"),
        ({"SlurmTimeout": {"partition": 2}}, "partition must be text, which replaces the value, got 2"),
        ({"SlurmTimeout": {"partition": "{{ x }}"}}, "partition must not be a template"),
        ({"SlurmTimeout": {"partition": "a\nb"}}, "partition must not contain a line break"),
        ({"SlurmTimeout": {"tries": 2}}, "tries are only for SlurmPreempted, SlurmNodeFailure, SlurmBootFailure"),
        ({"SlurmPreempted": {"tries": 0}}, "tries must be an integer from 1 to 100, got 0"),
        ({"SlurmNodeFailure": {"exclude_node": "n1"}}, "exclude_node must be a bool, got 'n1'"),
        ({"SlurmTimeout": {"time": "2-0"}, "max": {"timeout_min": 60}}, "SlurmTimeout: time='2-0' is above max"),
        ({"max": 3}, "max: must be a mapping of Slurm parameters to limits, got 3"),
        ({"max": {"partition": 3}}, "unknown amount 'partition'"),
        ({"max": {"mem_gb": "{{ x }}"}}, "max: mem_gb must not be a template"),
        ({"max": {"mem": "much"}}, "max: mem must have a form that Slurm reads"),
        ({"SlurmTimeout": {"mem_gb": 2, "mem": 3}}, "SlurmTimeout: 'mem_gb' and 'mem' exclude each other"),
        ({"SlurmTimeout": {"mem_gb": "8", "mem_per_cpu": 2}}, "'mem_gb' and 'mem_per_cpu' exclude each other"),
        ({"SlurmTimeout": {"exclude_node": True, "exclude": "n1"}}, "exclude would replace the nodes of exclude_node"),
        ({"SlurmTimeout": {"mem": "9" * 400}}, "mem must have a form that Slurm reads"),
        ({"max": {"time": "9" * 400}}, "max: time must have a form that Slurm reads"),
        ({"max": {"mem": "0"}}, "max: mem must be an amount, got '0'"),
        ({"max": {"mem_gb": 4, "mem": "5G"}}, "max: 'mem_gb' and 'mem' exclude each other"),
        ({"max": {"time": "UNLIMITED"}}, "max: time must be an amount, got 'UNLIMITED'; leave it out for no limit"),
    ],
)
def test_invalid_rules_raise(value, message):
    """The message has the error, the parameter and the fix."""
    with pytest.raises(InvalidTask, match=message):
        checked_retry_with(value)


@pytest.mark.parametrize(
    ("rules", "asked", "message"),
    [
        (MEMORY, {}, "mem_gb cannot be multiplied, as the task does not request it; add mem_gb to slurm, or leave it"),
        (MEMORY, {"mem_per_cpu": "1G"}, "the task does not request it; it requests 'mem_per_cpu': name that"),
        ({"SlurmTimeout": {"time": 2}}, {"time": "UNLIMITED"}, "time='UNLIMITED' cannot be multiplied"),
        (MEMORY, {"mem_gb": 16, "additional_parameters": {"mem-per-cpu": "1G"}},
         "SlurmOutOfMemory: mem_gb would have no effect, as additional_parameters has 'mem-per-cpu'; request that in"),
        ({"SlurmPreempted": {"partition": "main"}}, {"additional_parameters": {"partition": "low"}},
         "partition would have no effect, as additional_parameters has 'partition'"),
        ({"SlurmNodeFailure": {"exclude_node": True}}, {"additional_parameters": {"exclude": "n2"}},
         "exclude_node would have no effect, as additional_parameters has 'exclude'"),
        ({"SlurmTimeout": {"time": 2}}, {"time": "0"}, "time='0' cannot be multiplied; request a number"),
        (MEMORY, {"mem": "0"}, "mem='0' cannot be multiplied; request a number"),
        (MEMORY, {"mem_gb": 41}, "max: mem_gb must be at least the task's own mem_gb=41, got 40"),
        ({"SlurmOutOfMemory": {"mem_per_cpu": 2}, "max": {"mem_gb": 40}}, {"mem_per_cpu": "1G"},
         "max: mem_gb does not limit 'mem_per_cpu', which the task requests; name 'mem_per_cpu'"),
    ],
)  # fmt: skip
def test_amounts_that_are_not_requested_raise(rules, asked, message):
    """Nothing multiplied by two would be nothing."""
    with pytest.raises(InvalidTask, match=re.escape(message)):
        reject_missing_amounts(checked_retry_with(rules), asked)


@pytest.mark.parametrize("asked", [{"mem_gb": 16}, {"mem": "40G"}, {"mem_gb": "{{ x }}"}])
def test_requested_amounts_are_accepted(asked):
    """Also under another name, or by a template."""
    reject_missing_amounts(checked_retry_with(MEMORY), asked)


def test_shared_rules_leave_out_amounts_that_a_task_does_not_request():
    """A connection can have rules for tasks that leave the memory to the cluster's default."""
    rules = {"SlurmOutOfMemory": {"mem_gb": 2.0, "partition": "big"}, "max": {"mem_gb": 40}}
    assert without_missing_amounts(rules, {"nodes": 2})["SlurmOutOfMemory"] == {"partition": "big"}
    assert without_missing_amounts(rules, {"mem": "4G"}) == rules


def test_shared_rules_leave_out_changes_that_have_no_effect():
    """sbatch takes the options of additional_parameters, so a log line about the change would be false."""
    rules = {"SlurmPreempted": {"partition": "main", "tries": 2, "exclude_node": True}}
    asked = {"additional_parameters": {"partition": "low", "gres": "gpu:1", "exclusive": True}}
    assert without_missing_amounts(rules, asked) == {"SlurmPreempted": {"tries": 2, "exclude_node": True}}


def test_rules_are_merged_error_by_error_and_limits_by_parameter():
    """None removes a rule or a limit of a farther place."""
    near = checked_retry_with({"SlurmTimeout": {"time": 2}, "SlurmPreempted": None, "max": {"time": None}})
    far = checked_retry_with(
        {"SlurmTimeout": {"time": 3}, "SlurmPreempted": {"tries": 2}, "max": {"time": 9, "mem": 5}}
    )
    both = merged_rules(near, far)
    assert both == {"SlurmTimeout": {"time": 2}, "SlurmPreempted": None, "max": {"time": None, "mem": "5"}}
    assert tries_of(both, "preempted") == 0
    assert tries_of(far, "preempted") == 2


def test_nearer_limit_replaces_that_of_a_synonym():
    """Otherwise the connection's limit would count for a task that has its own."""
    assert merged_rules({"max": {"mem": "64G"}}, {"max": {"mem_gb": 32, "time": 9}}) == {
        "max": {"time": 9, "mem": "64G"}
    }
