"""Mapped instances that share job arrays: one submission, and for all else a job of its own for each."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_sewer import Product
from airflow_provider_sewer.core.errors import FileSystemRefused, SlurmCancelled, SlurmSubmissionRejected
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.slurm.arrays.job_array import JobArray
from airflow_provider_sewer.slurm.job_runner import JobRunner
from tests.slurm.conftest import Followed, Jobs, until
from tests.slurm.worker import real

if TYPE_CHECKING:
    from airflow_provider_sewer.slurm.job_spec import JobSpec
    from tests.slurm_cluster.cluster import SlurmCluster

#: Prints its instance, and whether it has a secret.
PRINTS_ID = """
    import re
    say("token " + os.environ.get("TOKEN", "none"))
    say(re.search("map-([0-9]+)", run_dir).group(1))
"""
UNTIL_GO = f"\n    wait_for('go'){PRINTS_ID}"


def instances(planned: JobSpec, count: int, *, expected: int | None = None, **slurm: Any) -> list[JobSpec]:
    """Return so many instances of a mapped task, which share arrays."""
    settings = planned.slurm._replace(array=True, **{"array_wait": 60.0, **slurm})
    expected = count if expected is None else expected
    return [
        planned._replace(instance=planned.instance._replace(map_index=index), slurm=settings, expected=expected)
        for index in range(count)
    ]


def arrays(planned: JobSpec) -> dict[int, list[int]]:
    """Return which arrays there are: the numbers of their elements."""
    folder = Path(planned.slurm.run_dir or "")
    found = folder.glob(f"{planned.instance.dag_id}/*/{planned.instance.task_id}/arrays/*/members.json")
    return {int(each.parent.name): sorted(JobArray(str(each.parent)).elements) for each in found}


def elements(slurm: SlurmCluster, planned: list[JobSpec]) -> dict[str, str]:
    """Return all elements that Slurm knows of a mapped task, with their states."""
    columns = "JobArrayID:30|,State:30|,Name:200"
    lines = slurm.command("squeue", "-h", "-a", "-r", "-t", "all", "-O", columns).splitlines()
    rows = [[word.strip() for word in line.split("|", 2)] for line in lines]
    return {number: state for number, state, name in sorted(rows) if name.startswith(planned[0].instance.dag_id)}


def register(planned: list[JobSpec]) -> None:
    """Have instances wait for their array and look after nothing, as those do that are deferred."""
    for each in planned:
        JobRunner(each, lambda *_: None, print).submit_or_reattach()


def go(*runs: Followed) -> None:
    """Let modules go on that wait for it."""
    for run in runs:
        run.create_file("go")


def ends(run: Followed) -> Any:
    """Wait until an element is at its end, with a complete log; return its result or raise its error."""
    run._thread.join(120)
    assert not run._thread.is_alive(), run.logged
    if run.error is not None:
        raise run.error
    run.has_whole_log()
    return run.value


# -- Together ----------------------------------------------------------------------------------------------------------


def test_array_submits_all_instances_with_one_sbatch(plan, jobs, slurm):
    """Each has its own element, job directory, log, secret and result."""
    slurm.put_in_front("sbatch")
    slurm.put_in_front("squeue")
    planned = plan(PRINTS_ID)
    runs = []
    for each in instances(planned, 5):
        settings = each.task.settings
        secret = {"TOKEN": f"secret-{each.instance.map_index}"}
        task = each.task.with_settings(ExecutionSettings(settings.python, {**settings.env, **secret}))
        runs.append(jobs.follow(each._replace(task=task, secret_env=secret)))
    assert [ends(run) for run in runs] == [str(index) for index in range(5)]
    assert slurm.counted("sbatch") == 1
    array = runs[0].id.partition("_")[0]
    assert [run.id for run in runs] == [f"{array}_{index}" for index in range(5)]
    for index, run in enumerate(runs):
        assert f"token secret-{index}" in run.stdout or "token ***" in run.stdout
        assert run.directory.read_exit()
        assert run.directory.read_claim() == run.id
        assert not Path(run.directory.secrets).exists()
    assert "secret" not in Path(runs[0].directory.path, "../../arrays/1/job.sh").read_text()


def test_elements_have_usage_records_of_their_own(plan, jobs):
    runs = [jobs.follow(each) for each in instances(plan("pass", slurm={"mem_gb": 0.25}), 2)]
    for run in runs:
        ends(run)
    for index, run in enumerate(runs):
        usage = run.directory.read_usage()
        assert (usage.job_id, usage.map_index, usage.exit_class) == (run.id, index, "success")
        assert usage.requested == {"mem_gb": 0.25}
        assert usage.used["elapsed"] > 0
        assert usage.waited >= 0


def test_collect_element_on_full_disk_is_left_to_next_try(jobs, slurm, small_disk):
    """Its product is put in place as soon as there is room again, and the element does not run once more."""
    slurm.put_in_front("sbatch")
    fills = f"""
        from pathlib import Path
        out = Path(sys.argv[1])
        out.write_text("whole")
        with open({str(small_disk / "filler")!r}, "wb", buffering=0) as file:
            try:
                while True: file.write(bytes(4096))
            except OSError: pass
        say(out.name)
    """
    planned = instances(jobs.plan(fills, Product(small_disk / "out.txt")), 1)[0]
    first = jobs.follow(planned)
    with pytest.raises(FileSystemRefused, match=rf"{small_disk}/\.sewer/.*: No space left on device"):
        ends(first)
    (small_disk / "filler").unlink()

    second = jobs.follow(planned)
    second._thread.join(120)
    assert (second.error, second.value) == (None, "out.txt")
    assert (small_disk / "out.txt").read_text() == "whole"
    assert slurm.counted("sbatch") == 1


def test_array_options_that_differ_form_separate_arrays(plan, jobs, slurm):
    """An array has one set of parameters; parameters inside the scripts of the elements may differ."""
    slurm.put_in_front("sbatch")
    planned = instances(plan(PRINTS_ID), 4)
    asks = [{"cpus_per_task": 1}, {"cpus_per_task": 2}, {"cpus_per_task": 1, "setup": ["echo set up"]}, {}]
    runs = [
        jobs.follow(each._replace(slurm=each.slurm._replace(slurm=slurm)))
        for each, slurm in zip(planned, asks, strict=True)
    ]
    assert [ends(run) for run in runs] == ["0", "1", "2", "3"]
    assert slurm.counted("sbatch") == 3
    assert sorted(arrays(planned[0]).values()) == [[0, 2], [1], [3]]


def test_array_wait_elapsed_submits_registered_members(plan, jobs, slurm):
    """When no new member has registered for array_wait, the registered ones are submitted; the rest follows."""
    slurm.put_in_front("sbatch")
    planned = instances(plan(PRINTS_ID), 3, array_wait=1.0)
    early = [jobs.follow(each) for each in planned[:2]]
    assert [ends(run) for run in early] == ["0", "1"]
    assert ends(jobs.follow(planned[2])) == "2"
    assert slurm.counted("sbatch") == 2
    assert arrays(planned[0]) == {1: [0, 1], 2: [2]}


def test_array_on_local_backend_runs_separate_jobs(plan, tmp_path):
    """There are no arrays on this machine alone."""
    planned = Jobs(tmp_path / "here", None).plan(PRINTS_ID, cluster="local")
    runs = [Followed(None, each) for each in instances(planned, 2)]
    assert [run.succeeds() for run in runs] == ["0", "1"]
    assert arrays(planned) == {}


def test_array_rejected_by_slurm_fails_each_member(plan, jobs, slurm):
    """One sbatch is enough to know it."""
    slurm.put_in_front("sbatch")
    runs = [jobs.follow(each) for each in instances(plan(PRINTS_ID), 2, slurm={"partition": "nowhere"})]
    for run in runs:
        with pytest.raises(SlurmSubmissionRejected, match="invalid partition"):
            ends(run)
    assert slurm.counted("sbatch") == 1


# -- Limits ------------------------------------------------------------------------------------------------------------


def test_array_is_split_by_max_array_size_and_submit_limits(make_slurm, talk_to, tmp_path, monkeypatch):
    """No element's number reaches MaxArraySize, and an array for which there is no room is halved."""
    for name, seconds in (("_SHOWS_UP", 0.1), ("_LONGEST_PAUSE", 1.0)):
        monkeypatch.setattr(f"airflow_provider_sewer.slurm.submission.{name}", seconds)
    slurm = talk_to(make_slurm(nodes=1, accounting=True, extra_conf="MaxArraySize=6\nAccountingStorageEnforce=limits"))
    slurm.command("sacctmgr", "-i", "add", "account", "lab")
    slurm.command("sacctmgr", "-i", "add", "user", os.environ.get("USER", "root"), "account=lab", "MaxSubmitJobs=3")
    jobs = Jobs(tmp_path / "jobs", slurm)
    planned = instances(jobs.plan(PRINTS_ID), 8, slurm={"account": "lab"})
    runs = [jobs.follow(each, 10) for each in planned]
    assert [ends(run) for run in runs] == [str(index) for index in range(8)]
    numbers = [int(run.id.partition("_")[2]) for run in runs]
    assert numbers == [0, 1, 2, 3, 4, 5, 0, 1]
    sizes = [len(each) for _, each in sorted(arrays(planned[0]).items())]
    assert sizes[0] == 3
    assert sum(sizes) == 8


# -- One of many -------------------------------------------------------------------------------------------------------


def test_scancel_of_one_element_keeps_the_others(plan, jobs, slurm, monkeypatch):
    """Running or pending, by any canceller; Slurm keeps no trace of one cancelled before it began."""
    monkeypatch.setattr("airflow_provider_sewer.slurm.monitor._FILES_GRACE", 1.0)
    held = {"additional_parameters": {"hold": True}}
    planned = instances(plan(UNTIL_GO), 5, slurm=held)
    runs = [jobs.follow(each) for each in planned]
    array = runs[0].id.partition("_")[0]
    runs[1].run.cancel()
    slurm.command("scancel", runs[2].id)
    until(lambda: len(elements(slurm, planned)) == 3, lambda: f"three left of {elements(slurm, planned)}")
    assert set(elements(slurm, planned)) == {f"{array}_0", f"{array}_3", f"{array}_4"}
    slurm.release(array)
    runs[0].expect_start()
    runs[0].run.cancel()
    go(*runs[3:])
    assert [ends(run) for run in runs[3:]] == ["3", "4"]
    for run in runs[:3]:
        with pytest.raises(SlurmCancelled, match="was cancelled"):
            ends(run)


def test_member_cancelled_while_waiting_is_left_out_of_array(plan, jobs, slurm):
    """The others are submitted without it."""
    planned = instances(plan(PRINTS_ID), 3, expected=9, array_wait=3.0)
    runs = [jobs.follow(each) for each in planned]
    runs[1].expect_logged("waiting for its array")
    runs[1].run.cancel()
    with pytest.raises(SlurmCancelled):
        ends(runs[1])
    assert [ends(run) for run in (runs[0], runs[2])] == ["0", "2"]
    assert arrays(planned[0]) == {1: [0, 2]}


def test_element_requeued_by_slurm_is_monitored_to_its_second_end(plan, jobs, slurm):
    """It is followed to its second end; the others know nothing of it."""
    runs = [jobs.follow(each) for each in instances(plan(UNTIL_GO), 2, requeue=True)]
    runs[0].expect_start()
    slurm.requeue(runs[0].id)
    runs[0].expect_logged("restarted once")
    go(*runs)
    assert ends(runs[1]) == "1"
    runs[0]._thread.join(120)
    assert (runs[0].value, runs[0].error) == ("0", None)
    runs[0].has_whole_log(runs=2)
    runs[1].has_whole_log()


def test_failed_element_is_retried_alone(plan, jobs, slurm):
    """Its next attempt is in an array of its own, and the results of the others stay."""
    slurm.put_in_front("sbatch")
    source = f"{PRINTS_ID}\n    sys.exit('map-1/1' in run_dir)"
    planned = instances(plan(source), 3)
    runs = [jobs.follow(each) for each in planned]
    assert [ends(run) for run in (runs[0], runs[2])] == ["0", "2"]
    runs[1]._thread.join(60)
    assert f"Slurm job {runs[1].id} (" in str(runs[1].error)
    again = jobs.follow(planned[1]._replace(slurm=planned[1].slurm._replace(array_wait=0.0)))
    assert ends(again) == "1"
    assert again.id.endswith("_1")
    assert arrays(planned[0]) == {1: [0, 1, 2], 2: [1]}
    assert slurm.counted("sbatch") == 2


# -- Processes that are killed -----------------------------------------------------------------------------------------


def test_retry_reattaches_to_element_after_worker_killed(plan, jobs, slurm, worker):
    """Running or waiting in the queue, the next try follows it from its first line."""
    planned = instances(plan(UNTIL_GO), 2)
    workers = [worker(each) for each in planned]
    ids = [each.expect("begun").split()[1] for each in workers]
    for each in workers:
        each.kill()
    runs = [jobs.follow(each) for each in planned]
    assert [run.id for run in runs] == ids
    runs[0].expect_logged("Reattaching to", ids[0])
    go(*runs)
    for run in runs:
        run._thread.join(120)
    assert [run.value for run in runs] == ["0", "1"]
    assert len(slurm.jobs(planned[0].instance.dag_id)) == 2


def test_retry_reattaches_to_registration_after_worker_killed(plan, jobs, slurm, worker):
    """Its registration stays, and the next try waits with it."""
    slurm.put_in_front("sbatch")
    planned = instances(plan(PRINTS_ID), 2)
    first = worker(planned[0])
    first.expect("waiting for its array")
    first.kill()
    runs = [jobs.follow(each) for each in planned]
    assert [ends(run) for run in runs] == ["0", "1"]
    assert slurm.counted("sbatch") == 1
    assert runs[0].directory.path.endswith("map-0/1")


def test_coordinator_failover_submits_one_array(plan, jobs, slurm, worker):
    """Killed before the array is sent or after, or frozen: once nothing can come of it any more, there is one array."""
    killed_before, killed_after, frozen = (instances(plan(PRINTS_ID), 2) for _ in range(3))
    for planned in (killed_before, killed_after, frozen):
        register(planned[1:])
    slurm.put_in_front("squeue", "sleep 2")
    submitter = worker(frozen[0])
    slurm.until(lambda: slurm.counted("squeue"), "the look-up before the submission")
    os.kill(submitter._process.pid, signal.SIGSTOP)
    slurm.take_away("squeue")
    send = real(slurm, "sbatch")
    for planned, command in ((killed_before, "sleep 30; exit 1"), (killed_after, f'{send} "$@"; sleep 30')):
        slurm.put_in_front("sbatch", command)
        one = worker(planned[0])
        slurm.until(lambda: slurm.counted("sbatch"), "sbatch")
        if planned is killed_after:
            slurm.until(lambda: elements(slurm, killed_after), "its effect")
        one.kill()
        slurm.take_away("sbatch")
    slurm.put_in_front("sbatch")
    runs = [[jobs.follow(each) for each in planned] for planned in (killed_before, killed_after, frozen)]
    assert [[ends(run) for run in each] for each in runs] == [["0", "1"]] * 3
    for planned, (first, second) in zip((killed_before, killed_after, frozen), runs, strict=True):
        assert list(elements(slurm, planned)) == [first.id, second.id]
    os.kill(submitter._process.pid, signal.SIGCONT)
    submitter.expect(f"begun {runs[2][0].id}")  # it finds that it was relieved, and sends nothing
    assert slurm.counted("sbatch") == 2


def test_sbatch_timeout_with_accepted_array_is_not_repeated(plan, jobs, slurm):
    """It is found by its name."""
    send = real(slurm, "sbatch")
    slurm.put_in_front("sbatch", f'{send} "$@"; sleep 30; exit 1')
    runs = [jobs.follow(each, 2) for each in instances(plan(PRINTS_ID), 2)]
    assert [ends(run) for run in runs] == ["0", "1"]
    assert slurm.counted("sbatch") == 1


def test_claim_lets_one_of_two_arrays_run(plan, jobs, slurm):
    """Should Slurm have two nevertheless: the elements of the second end without having run the modules."""
    runs = [jobs.follow(each) for each in instances(plan(UNTIL_GO), 2)]
    for run in runs:
        run.expect_start()
    folder = Path(runs[0].directory.path, "../../arrays/1").resolve()
    second = slurm.command("sbatch", "--parsable", str(folder / "job.sh"))
    until(lambda: not slurm.command("squeue", "-h", "-j", second), lambda: f"the end of {second}")
    go(*runs)
    assert [ends(run) for run in runs] == ["0", "1"]
    assert "ends without running anything" in runs[0].stderr
    for run in runs:
        assert sorted(os.listdir(run.directory.path)).count("1") == 0
