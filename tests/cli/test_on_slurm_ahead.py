"""Jobs are submitted ahead of their turn if they need only the success of the tasks before them."""

from __future__ import annotations

from .slurm_runs import Ended, killed, on_slurm

__all__ = ["on_slurm"]

CHAIN = {
    "a": "say('here')\nprint('one', flush=True)\nwait()",
    "b": "# depends_on=a\nprint('b')",
    "c": "# depends_on=b\nprint('c')",
}


def test_ahead_submits_downstream_jobs_with_afterok(on_slurm) -> None:
    """While the first job runs, the others wait in Slurm's queue, each for the one before it."""
    on_slurm.flow(**CHAIN)
    run = on_slurm.start("--ahead")
    on_slurm.slurm.until(lambda: len(on_slurm.jobs()) == 3, "three jobs")
    a, b, c = (on_slurm.one_job(name) for name in "abc")
    assert on_slurm.dependency(b) == f"afterok:{a.id}(unfulfilled)"
    assert on_slurm.dependency(c) == f"afterok:{b.id}(unfulfilled)"
    on_slurm.open("go")
    ended = Ended(run)
    assert ended.code == 0, ended.stderr
    assert ended.stdout == "[a] one\n[b] b\n[c] c\n"
    assert len(on_slurm.jobs()) == 3
    assert f"[b] Submitted ahead; starts when job {a.id} has succeeded" in ended.stderr


def test_ahead_cancels_downstream_jobs_after_failure(on_slurm) -> None:
    """Nothing of it runs, or stays in the queue for ever."""
    on_slurm.flow(**{**CHAIN, "a": CHAIN["a"] + "\nsys.exit(3)"})
    run = on_slurm.start("--ahead")
    on_slurm.slurm.until(lambda: len(on_slurm.jobs()) == 3, "three jobs")
    on_slurm.open("go")
    ended = Ended(run)
    assert ended.code == 1
    assert "[b] upstream failed: 'a' failed" in ended.stderr
    assert "[c] upstream failed: 'b' upstream failed" in ended.stderr
    assert {on_slurm.one_job(name).state for name in "bc"} == {"CANCELLED"}
    assert on_slurm.queue_is_empty()


def test_ahead_excludes_tasks_with_products_or_results(on_slurm) -> None:
    """Products are whole only when sppe has put them in place, and results only known then: such tasks wait."""
    on_slurm.flow(
        maker="# {'out': Product('made.txt')}\nsay('here')\nwait()\nopen(sys.argv[2], 'w').write('all of it')",
        taker="# {'in': Dependency('made.txt')}\nprint(open(sys.argv[2]).read())",
        after="# depends_on=maker\nprint('after')",
        plain="print('42')",
        given="# {'n': plain.result}\nprint('given', sys.argv[2])",
        later="# depends_on=plain, run_when='missing', products=['later.txt']\nopen('later.txt', 'w')",
    )
    run = on_slurm.start("--ahead")
    on_slurm.lifeline.expect("here")
    on_slurm.slurm.until(lambda: on_slurm.jobs("given") and on_slurm.jobs("later"), "what comes after the plain one")
    assert on_slurm.jobs("taker") == on_slurm.jobs("after") == []
    on_slurm.open("go")
    ended = Ended(run)
    assert ended.code == 0, ended.stderr
    assert {"[taker] all of it", "[after] after", "[given] given 42"} < set(ended.stdout.splitlines())
    assert "Submitted ahead" not in ended.stderr
    for name, why in {
        "taker": "the products of 'maker' are committed only after its job has ended",
        "after": "the products of 'maker' are committed only after its job has ended",
        "given": "plain.result is known only then",
        "later": "whether it has to run (run_when='missing') is known only then",
    }.items():
        assert f"sppe: task {name!r} is not submitted ahead, but after its upstream tasks: {why}\n" in ended.stderr


def test_resume_reattaches_to_jobs_submitted_ahead(on_slurm) -> None:
    """Each task still has one job, whether the resumed run submits ahead or not."""
    killed(on_slurm, "--ahead", **CHAIN)
    assert [len(on_slurm.jobs(name)) for name in "abc"] == [1, 1, 1]
    again = on_slurm.start("--resume")
    on_slurm.open("go")
    ended = Ended(again)
    assert ended.code == 0, ended.stderr
    assert ended.stdout == "[b] b\n[c] c\n"
    assert [len(on_slurm.jobs(name)) for name in "abc"] == [1, 1, 1]


def test_resume_resubmits_jobs_ahead_of_failed_job(on_slurm) -> None:
    """The job it was to follow has failed while there was no sppe: the resumed run has new ones of both."""
    killed(on_slurm, "--ahead", **{**CHAIN, "a": CHAIN["a"] + "\nsys.exit(os.path.exists('go2') - 1)"})
    on_slurm.open("go")
    on_slurm.slurm.wait_for(on_slurm.one_job("a").id, "FAILED")
    on_slurm.open("go2")
    ended = on_slurm.run("--resume", "--ahead")
    assert ended.code == 0, ended.stderr
    assert [len(on_slurm.jobs(name)) for name in "abc"] == [2, 2, 2]
    assert [on_slurm.jobs(name)[1].state for name in "abc"] == ["COMPLETED"] * 3
    assert on_slurm.queue_is_empty()
