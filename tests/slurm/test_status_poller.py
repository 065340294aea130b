"""However many jobs are watched, the cluster is asked once an interval, and nothing keeps the watcher from it."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from itertools import pairwise

import pytest

from airflow_provider_sewer.slurm.backend import UNKNOWN_JOB, JobRef, JobStatus, SlurmUnreachable
from airflow_provider_sewer.slurm.client import SlurmClient
from airflow_provider_sewer.slurm.status_poller import StatusPoller
from tests.slurm.conftest import PATIENCE, until


class Cluster:
    """Returns the given answers, and records the time and the number of jobs of each query."""

    kind = "slurm"

    def __init__(self, answer=lambda: JobStatus("RUNNING"), key: str = "a cluster") -> None:
        self.key = (key, str(id(self)))
        self.answer = answer
        self.asked: list[tuple[float, int]] = []

    def poll(self, jobs):
        self.asked.append((time.monotonic(), len(jobs)))
        return {job: self.answer() for job in jobs}

    @property
    def pauses(self) -> list[float]:
        times = [when for when, _ in self.asked]
        return [later - earlier for earlier, later in pairwise(times)]


def ref(number: object = 1) -> JobRef:
    return JobRef(str(number), f"job {number}", "/nowhere")


@pytest.fixture
def watch():
    """Return a function that subscribes to a job, until the test is over."""
    watches = []

    def begin(cluster, job=None, on_update=lambda view: None, shortest=0.1, longest=0.1):
        watches.append(StatusPoller.of(cluster).subscribe(job or ref(), on_update, shortest=shortest, longest=longest))
        return watches[-1]

    yield begin
    for one in watches:
        one.close()


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sewer-status-poller"]


def test_poller_uses_one_squeue_for_300_jobs(slurm, talk_to, watch) -> None:
    """Of 300 real jobs each is seen at every look, by one squeue each."""
    talk_to(slurm)
    submit = "for n in $(seq 300); do sbatch --parsable --hold --job-name=many --output=/dev/null --wrap=true; done"
    lines = slurm.command("bash", "-c", submit).split()
    slurm.put_in_front("squeue")
    views = defaultdict(list)
    cluster = SlurmClient()
    begin = time.monotonic()
    for job_id in lines:
        job = JobRef(job_id, "many", "/nowhere")
        watch(cluster, job, lambda view, job=job: views[job].append(view), shortest=1.0, longest=1.0)
    until(lambda: len(views) == 300 and min(map(len, views.values())) >= 4, lambda: str(len(views)))
    assert {view.status.state for seen in views.values() for view in seen} == {"PENDING"}
    assert slurm.counted("squeue") <= (time.monotonic() - begin) / 1.0 + 2


def test_poll_interval_grows_until_a_status_changes(watch) -> None:
    """From the shortest to the longest, and back."""
    state = ["PENDING"]
    cluster = Cluster(lambda: JobStatus(state[0]))
    watch(cluster, shortest=0.1, longest=0.8)
    until(lambda: any(pause > 0.75 for pause in cluster.pauses), lambda: str(cluster.pauses))
    grown = cluster.pauses[1:]
    assert grown == sorted(grown)
    state[0] = "RUNNING"
    looks = len(cluster.asked)
    until(lambda: len(cluster.asked) >= looks + 2, lambda: str(cluster.pauses))
    assert min(cluster.pauses[looks - 1 :]) < 0.5


def test_poll_now_respects_shortest_interval(watch) -> None:
    """Frequent requests get the shortest interval."""
    cluster = Cluster()
    one = watch(cluster, shortest=0.2, longest=1000.0)
    until(lambda: len(cluster.asked) == 1, lambda: "a first look")
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        one.poll_now()
        time.sleep(0.001)
    assert 3 <= len(cluster.asked) <= 12
    assert min(cluster.pauses) >= 0.2


def test_new_subscription_respects_interval_of_last_poll(watch) -> None:
    """One job after the other is no more for the controller than one job all the time."""
    cluster = Cluster()
    for number in range(10):
        views = []
        one = watch(cluster, ref(number), views.append, shortest=0.1, longest=0.1)
        until(lambda views=views: views, lambda: "a view")
        one.close()
    assert min(cluster.pauses) >= 0.1


def test_slow_poll_is_followed_by_pause(watch) -> None:
    """Looks do not pile up, and do not follow each other without a break."""
    ended = []

    def answer() -> JobStatus:
        time.sleep(0.5)
        ended.append(time.monotonic())
        return JobStatus("RUNNING")

    cluster = Cluster(answer)
    one = watch(cluster, shortest=0.2, longest=0.2)
    for _ in range(30):
        one.poll_now()
        time.sleep(0.05)
    until(lambda: len(ended) >= 3, lambda: str(ended))
    begun = [when for when, _ in cluster.asked]
    assert all(later - earlier >= 0.2 for earlier, later in zip(ended, begun[1:], strict=False))
    assert len(watchers()) == 1


def test_failing_observer_does_not_block_others(watch) -> None:
    """Neither a listener that raises nor a cluster that does ends the watcher."""
    answers = iter([ValueError("what is this?"), SlurmUnreachable("it is away")])
    both = threading.Event()

    def answer() -> JobStatus:
        for error in answers if both.is_set() else ():
            raise error
        both.wait(PATIENCE)
        return JobStatus("RUNNING")

    def raise_(view) -> None:
        raise RuntimeError("there is nobody")

    views = []
    cluster = Cluster(answer)
    watch(cluster, ref(1), raise_)
    watch(cluster, ref(2), views.append)
    both.set()
    until(lambda: len(views) >= 4, lambda: str(views))
    assert [view.silence for view in views if view.silence] == ["ValueError: what is this?", "it is away"]
    assert views[-1].status == JobStatus("RUNNING")


def test_poll_now_restarts_ended_poller_thread(watch, monkeypatch) -> None:
    """Should its thread end in spite of all, a request restarts it."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    is_deadly = [True]

    def answer() -> JobStatus:
        if is_deadly.pop() if is_deadly else False:
            raise SystemExit
        return JobStatus("RUNNING")

    views = []
    one = watch(Cluster(answer), ref(), views.append)
    until(lambda: not watchers(), lambda: "the end of the thread")
    assert views == []
    one.poll_now()
    until(lambda: views, lambda: "a view")


def test_subscribe_and_close_are_thread_safe(watch) -> None:
    """Each gets its views, and the thread ends with the last one."""
    cluster = Cluster()
    missing = []

    def come_and_go(number: int) -> None:
        for turn in range(5):
            seen = threading.Event()
            one = watch(cluster, ref((number, turn)), lambda _, seen=seen: seen.set(), shortest=0.02, longest=0.02)
            if not seen.wait(PATIENCE):
                missing.append((number, turn))
            one.close()

    threads = [threading.Thread(target=come_and_go, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert missing == []
    until(lambda: not watchers(), lambda: "the end of the watcher's thread")


def test_pollers_of_several_clusters_are_independent(watch) -> None:
    """One that hangs has a thread of its own."""
    is_open = threading.Event()
    views = []
    watch(Cluster(lambda: is_open.wait(PATIENCE) and JobStatus("RUNNING")), ref())
    watch(Cluster(), ref(), views.append)
    until(lambda: len(views) >= 3, lambda: str(views))
    is_open.set()


def test_forked_process_starts_its_own_poller(watch) -> None:
    """It has no thread of its parent, may close inherited files, and starts again; also during a poll."""
    is_open = threading.Event()
    cluster = Cluster(lambda: is_open.is_set() and JobStatus("RUNNING"))
    inherited = watch(cluster, ref(1))
    watcher = StatusPoller.of(cluster)
    with watcher._changed, StatusPoller._lock:  # as if another thread had been about to do something
        child = os.fork()
        if child == 0:
            status = 1
            try:
                is_open.set()
                inherited.close()
                seen = threading.Event()
                StatusPoller.of(cluster).subscribe(ref(2), lambda _: seen.set(), shortest=0.01, longest=0.01)
                status = 0 if seen.wait(PATIENCE) else 2
            finally:
                os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_sacct_queries_for_unknown_jobs_become_rarer(slurm_accounting, talk_to, watch) -> None:
    """One sacct for all jobs that are forgotten, and then ever fewer."""
    talk_to(slurm_accounting)
    slurm_accounting.put_in_front("squeue")
    slurm_accounting.put_in_front("sacct")
    cluster = SlurmClient()
    views = defaultdict(list)
    for number in range(5):
        job = ref(900000 + number)
        watch(cluster, job, lambda view, job=job: views[job].append(view), shortest=0.2, longest=0.2)
    until(lambda: len(views) == 5 and min(map(len, views.values())) >= 15, lambda: str(len(views)))
    assert {view.status for seen in views.values() for view in seen} == {UNKNOWN_JOB}
    assert slurm_accounting.counted("sacct") <= slurm_accounting.counted("squeue") / 2
