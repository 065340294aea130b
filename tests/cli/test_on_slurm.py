"""Run a workflow as Slurm jobs from the shell: one job for each task, whose output and products come back."""

from __future__ import annotations

import re

import pytest

from .slurm_runs import Ended, on_slurm

__all__ = ["on_slurm"]


def test_run_on_slurm_passes_logs_results_and_products(on_slurm) -> None:
    """Each task is one job; its output is shown and kept, its result and its products reach the next one."""
    on_slurm.flow(
        make="""# {'out': Product('made.txt')}
        open(sys.argv[2], "w").write("made on " + os.environ["SLURM_JOB_ID"])
        print("hello")
        open(os.environ["SEWER_RESULT_FILE"], "w").write('{"seed": 7}')
        """,
        use="""# {'in': Dependency('made.txt'), 'seed': make.result['seed']}
        print("given", sys.argv[4], "and", open(sys.argv[2]).read())
        """,
    )
    run = on_slurm.run("--log-dir", "logs")
    assert run.code == 0, run.stderr
    made, used = (on_slurm.slurm.wait_for(on_slurm.one_job(name).id, "COMPLETED") for name in ("make", "use"))
    assert run.stdout == f"[make] hello\n[use] given 7 and made on {made.id}\n"
    assert f"[make] Submitted Slurm job {made.id} ({made.name}); job directory: " in run.stderr
    log = (on_slurm.sppe.folder / "logs" / "use.log").read_text()
    assert log.count(f"stdout| given 7 and made on {made.id}\n") == 1
    assert f"sewer| Submitted Slurm job {used.id} ({used.name}); job directory: " in log
    assert "2 of 2 tasks succeeded" in run.stderr


def test_run_on_slurm_keeps_files_beside_product(on_slurm) -> None:
    """Also where the job fails after it has written them: then they are kept aside."""
    on_slurm.flow(
        shape="""# {'out': Product('build/a.shp')}
        for suffix in (".shp", ".dbf"):
            open(sys.argv[2][:-4] + suffix, "w").write(suffix)
        sys.exit(os.path.exists("fails") * 3)
        """
    )
    build = on_slurm.sppe.folder / "build"
    assert on_slurm.run().code == 0
    assert sorted(path.name for path in build.glob("a.*")) == ["a.dbf", "a.shp"]

    on_slurm.open("fails")
    assert on_slurm.run().code == 1
    assert sorted(path.name for path in build.glob("a.*")) == ["a.dbf", "a.dbf.failed", "a.shp", "a.shp.failed"]


def test_failed_job_prints_last_lines_and_stops_downstream(on_slurm) -> None:
    """The rest runs to its end; the summary has the last lines of stderr and where the files are."""
    on_slurm.flow(bad="sys.exit('no such thing')", after="# depends_on=bad\nsay('ran')", other="print('fine')")
    run = on_slurm.run()
    assert run.code == 1
    bad = on_slurm.one_job("bad")
    assert f"\nbad: Slurm job {bad.id} ({bad.name}) ran bad_module, which failed with exit code 1 on n" in run.stderr
    assert "The last lines of stderr:\n  no such thing\nIts files are in " in run.stderr
    assert "[after] upstream failed: 'bad' failed" in run.stderr
    assert run.stdout == "[other] fine\n"
    assert on_slurm.jobs("after") == []


def test_run_on_local_task_runs_on_this_machine(on_slurm) -> None:
    """A task with run_on='local' becomes no job, and a plain run has no jobs at all."""
    on_slurm.flow(
        here="# run_on='local'\nprint('job', os.environ.get('SLURM_JOB_ID'))",
        there="# run_on='slurm', depends_on=here\nprint('job', os.environ.get('SLURM_JOB_ID'))",
    )
    run = on_slurm.run()
    assert run.code == 0, run.stderr
    assert run.stdout == f"[here] job None\n[there] job {on_slurm.one_job('there').id}\n"
    assert on_slurm.jobs("here") == []
    plain = on_slurm.sppe.run("run", env=on_slurm.slurm.env)
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout == "[here] job None\n[there] job None\n"


def test_task_slurm_parameters_override_slurm_option(on_slurm) -> None:
    """A task's own parameters override --slurm, parameter by parameter."""
    show = "print(os.environ['SLURM_CPUS_PER_TASK'], os.environ.get('SAID'))"
    on_slurm.flow(
        plain=show, own=f"# slurm={{'cpus_per_task': 1, 'setup': ['export SAID=mine']}}, depends_on=plain\n{show}"
    )
    run = on_slurm.run("--slurm", "cpus_per_task=2", "--slurm", 'setup=["export SAID=all"]')
    assert run.code == 0, run.stderr
    assert run.stdout == "[plain] 2 all\n[own] 1 mine\n"


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        (("--slurm", "partitoin=gpu"), "unknown Slurm parameter 'partitoin'; did you mean 'partition'?"),
        (("--slurm", "mem_gb=much"), "--slurm: slurm: mem_gb must be a number, got 'much'"),
        (("--slurm", "gpu"), "--slurm 'gpu': write NAME=VALUE"),
        (("--slurm", "requeue=maybe"), "requeue must be a bool, got 'maybe'"),
    ],
)
def test_slurm_option_rejects_invalid_parameter(expected, answer, on_slurm) -> None:
    """Nothing is submitted then."""
    on_slurm.flow(one="say('ran')")
    run = on_slurm.run(*expected)
    assert run.code == 2
    assert answer in run.stderr
    assert on_slurm.jobs() == []


@pytest.mark.parametrize("how", ["task", "command line"])
def test_run_on_slurm_rejects_template_in_slurm_parameters(how, on_slurm) -> None:
    """Only Airflow fills it in; a parameter in which nothing is a template is passed on."""
    on_slurm.flow(one=f"# slurm={{'comment': {'{{ ds }}' if how == 'task' else '{#1}'!r}}}\nsay('ran')")
    run = on_slurm.run(*(() if how == "task" else ("--slurm", 'setup=["echo {{ ds }}"]')))
    assert run.code == 2
    text = "{{ ds }}" if how == "task" else "echo {{ ds }}"
    assert f"task 'one': {text!r} is rendered only by Airflow" in run.stderr
    assert on_slurm.jobs() == []


def test_slurm_option_requires_on_slurm(on_slurm) -> None:
    """Without --on slurm, they would mean nothing."""
    on_slurm.flow(one="say('ran')")
    run = on_slurm.sppe.run("run", "--slurm", "partition=gpu")
    assert run.returncode == 2
    assert "--slurm requires --on slurm" in run.stderr


def test_run_on_slurm_without_sbatch_exits_with_2(on_slurm) -> None:
    """Without sbatch on PATH nothing is run, and the message names the fix."""
    on_slurm.flow(one="say('ran')")
    run = on_slurm.run(env={"PATH": str(on_slurm.sppe.folder)})
    assert run.code == 2
    assert run.stderr == (
        "sppe: sbatch, squeue, scancel not found on this machine's PATH; install Slurm's client there, "
        "or leave out --on slurm to run on this machine\n"
    )


def test_j_option_limits_queued_jobs(on_slurm) -> None:
    """With -j 1, the second job is submitted when the first has ended; not before."""
    on_slurm.flow(**dict.fromkeys("ab", "say('here')\nwait()"))
    run = on_slurm.start("-j", "1")
    on_slurm.lifeline.expect("here")
    assert len(on_slurm.jobs()) == 1
    on_slurm.open("go")
    assert Ended(run).code == 0
    assert len(on_slurm.jobs()) == 2


def test_run_on_slurm_polls_all_jobs_with_one_squeue(on_slurm) -> None:
    """However many jobs are followed, each squeue is about all of them."""
    on_slurm.flow(**dict.fromkeys("abcd", "say('here')\nwait()"))
    run = on_slurm.start()
    on_slurm.slurm.until(lambda: [job.state for job in on_slurm.jobs()] == ["RUNNING"] * 4, "four jobs that run")
    ids = {job.id for job in on_slurm.jobs()}
    asked = on_slurm.sppe.folder / "asked"
    asked.touch()
    on_slurm.slurm.put_in_front("squeue", f'echo "$@" >> {asked}')

    def asked_about() -> list[set[str]]:
        return [set(expected.split(",")) for expected in re.findall(r"-j (\S+)", asked.read_text())]

    on_slurm.slurm.until(lambda: ids in asked_about(), "a look at all four")
    first = asked_about().index(ids)
    on_slurm.slurm.until(lambda: len(asked_about()) >= first + 4, "more looks")
    on_slurm.open("go")
    assert Ended(run).code == 0
    assert asked_about()[first : first + 4] == [ids] * 4
