"""The README of python-dag-pipeline, word for word, and the faults of its program, fixed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from textwrap import dedent

import pytest

#: The document's ``stages.yaml``, as it stands there.
STAGES = """\
# Define the stages and their dependencies of a data pipeline in a human-friendly way
Lint: []
Test: []
Coverage:
  - Test
Docs:
  - Coverage
  - Lint
Benchmark:
  - Coverage 
"""  # noqa: W291 - the space at the end is the document's

#: The document's ``state.yml``.
STATE = """\
Benchmark: null
Coverage: FAILED
Docs: null
Lint: SUCCESS
Test: SUCCESS
"""

#: A jobs module: a function for each stage, named as the stage is, and called without arguments.
JOBS = "".join(
    f"""
def {stage}():
    print("{stage}: starting")
    print("{stage}: finishing")
"""
    for stage in ("Test", "Lint", "Coverage", "Docs", "Benchmark")
)

#: The beginning of a jobs module whose functions write their progress into a pipe.
TELLING = """
import os, signal
life = os.open({lifeline!r}, os.O_WRONLY)
def put(word): os.write(life, word.encode() + b"\\n")
"""


@pytest.fixture
def pipeline(sppe):
    """Return `sppe` in a folder with the document's files; ``run`` runs its stages."""

    class Pipeline:
        folder = sppe.folder

        def jobs(self, source: str) -> None:
            sppe.write("foo_jobs.py", source)

        def stages(self, text: str) -> None:
            sppe.write("stages.yaml", text)

        def state(self, text: str):
            sppe.write("state.yml", text)
            return self.folder / "state.yml"

        def start(self, *arguments: str, command: str = "run", **options):
            of_it = ("-p", "stages.yaml", "--jobs", "foo_jobs", "-i", sys.executable)
            return sppe.start("--", command, *of_it, *arguments, **options)

        def run(self, *arguments: str, **options):
            process = self.start(*arguments, **options)
            process.out, process.err = process.communicate(timeout=60)
            return process

    sppe.write("stages.yaml", STAGES)
    sppe.write("foo_jobs.py", JOBS)
    return Pipeline()


@pytest.fixture
def fifo(tmp_path):
    """Return a function that makes a pipe by which two stages meet: each waits until the other one opens it too."""

    def fifo(name: str) -> str:
        os.mkfifo(tmp_path / name)
        return str(tmp_path / name)

    return fifo


def ran(process) -> list[str]:
    """Return the stages that printed their start, in that order."""
    return re.findall(r"^\[(\w+)\] \1: starting$", process.out, re.MULTILINE)


def test_documented_stages_run_unchanged(pipeline) -> None:
    """Five stages, each after those it depends on, and each prints its end."""
    done = pipeline.run()

    assert done.returncode == 0, done.err
    order = ran(done)
    assert sorted(order) == ["Benchmark", "Coverage", "Docs", "Lint", "Test"]
    assert order.index("Test") < order.index("Coverage") < min(order.index("Docs"), order.index("Benchmark"))
    assert order.index("Lint") < order.index("Docs")
    assert done.out.count(": finishing\n") == 5
    assert "\n5 of 5 tasks succeeded, in " in done.err


def test_documented_stages_run_from_other_folder(sppe, pipeline, tmp_path) -> None:
    """The jobs module is found beside them, wherever the run is started."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    stages = str(pipeline.folder / "stages.yaml")
    done = sppe.run("--", "run", "-p", stages, "--jobs", "foo_jobs", "-i", sys.executable, cwd=elsewhere)

    assert done.returncode == 0, done.stderr


def test_run_finds_installed_jobs_module(pipeline, tmp_path) -> None:
    """It need not lie beside the stages, if the interpreter finds it elsewhere."""
    installed = tmp_path / "installed"
    installed.mkdir()
    shutil.move(pipeline.folder / "foo_jobs.py", installed)

    assert pipeline.run("--env", f"PYTHONPATH={installed}").returncode == 0
    without = pipeline.run()

    assert without.returncode == 2
    assert "stages.yaml:2:1: task 'Lint': " in without.err
    assert "has no module 'foo_jobs'; install it there" in without.err


def test_stage_starts_when_upstream_succeeded(pipeline, fifo) -> None:
    """The original waits for a whole level, and Benchmark for the end of Lint; here, Lint waits for Benchmark."""
    here = fifo("here")
    jobs = JOBS.replace('print("Lint: finishing")', f"open({here!r}).close()")
    pipeline.jobs(jobs.replace('print("Benchmark: finishing")', f"open({here!r}, 'w').close()"))

    done = pipeline.run("-j", "2")

    assert done.returncode == 0
    assert ran(done)[-1] == "Docs"


def test_stages_run_concurrently(pipeline, fifo) -> None:
    """Lint and Test wait for each other to have begun."""
    one, two = fifo("one"), fifo("two")
    pipeline.stages("Lint: []\nTest: []")
    pipeline.jobs(f"""
def Lint(): open({one!r}, "w").close(); open({two!r}).close()
def Test(): open({one!r}).close(); open({two!r}, "w").close()
""")

    assert pipeline.run("-j", "2").returncode == 0


def test_failed_stage_exits_with_1(pipeline) -> None:
    """The original logs it and exits with 0. Here only its downstream stages do not run, and the code is 1."""
    pipeline.jobs(JOBS.replace('print("Coverage: finishing")', 'raise Exception("Sorry, an error here")'))

    done = pipeline.run()

    assert done.returncode == 1
    assert sorted(ran(done)) == ["Coverage", "Lint", "Test"]
    assert "\nCoverage: foo_jobs:Coverage failed with exit code 1; command: " in done.err
    assert "Exception: Sorry, an error here" in done.err
    assert "[Docs] upstream failed: 'Coverage' failed\n" in done.err
    assert "Traceback" not in done.err.partition("Exception: Sorry")[0].partition("[Coverage]")[0]


def test_resume_skips_succeeded_stages(pipeline) -> None:
    """The key use case of the document: after a failure, only stages that have not succeeded yet run."""
    pipeline.jobs(JOBS.replace('print("Coverage: finishing")', 'raise Exception("Sorry, an error here")'))
    pipeline.run()
    pipeline.jobs(JOBS)

    done = pipeline.run("--resume")

    assert done.returncode == 0
    assert sorted(ran(done)) == ["Benchmark", "Coverage", "Docs"]


def test_ctrl_c_keeps_state(pipeline, lifeline) -> None:
    """The original writes its state at the end, and so not at all when it is interrupted."""
    slow = dedent("""
        def Lint(): print("Lint: starting")
        def Test(): print("Test: starting")
        def Coverage(): print("Coverage: starting"); put("here"); signal.pause()
        def Docs(): print("Docs: starting")
        def Benchmark(): print("Benchmark: starting")
    """)
    pipeline.jobs(TELLING.format(lifeline=lifeline.path) + slow)
    run = pipeline.start("-j", "1")
    lifeline.expect("here")
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=60)
    assert run.returncode == 130
    lifeline.expect_end()
    pipeline.jobs(JOBS)

    done = pipeline.run("--resume")

    assert done.returncode == 0
    assert sorted(ran(done)) == ["Benchmark", "Coverage", "Docs"]


def test_unknown_dependency_is_reported(pipeline) -> None:
    """The original skips all that lies below it, and exits with 0."""
    pipeline.stages(STAGES.replace("  - Lint", "  - Lnt"))

    done = pipeline.run()

    assert done.returncode == 2
    assert done.out == ""
    assert done.err == (
        f"sppe: {pipeline.folder}/stages.yaml:8:5: stage 'Docs' depends on an unknown stage 'Lnt'; did you mean "
        "'Lint'? Known: 'Lint', 'Test', 'Coverage', 'Docs', 'Benchmark'.\n"
    )


def test_missing_function_is_reported_before_run(pipeline) -> None:
    """The original finds out when it is that stage's turn."""
    pipeline.jobs(JOBS.replace("def Benchmark", "def benchmark"))

    done = pipeline.run()

    assert (done.returncode, done.out) == (2, "")
    assert (
        f"stages.yaml:9:1: stage 'Benchmark' has no function in {pipeline.folder}/foo_jobs.py: unknown function "
        "'Benchmark'; did you mean 'benchmark'?" in done.err
    )


def test_resume_from_pipeline_state_skips_succeeded_stages(pipeline) -> None:
    """A stage with SUCCESS in it is done, with any command; the file is unchanged, and the message names it."""
    state = pipeline.state(STATE)

    done = pipeline.run("--state", "state.yml", "--resume")

    assert done.returncode == 0
    assert sorted(ran(done)) == ["Benchmark", "Coverage", "Docs"]
    assert re.search(
        r"^sppe: resuming from state\.yml, which is only read; the state of this run is saved in "
        r"\.sewer/state/workflow-\w+\.jsonl$",
        done.err,
        re.MULTILINE,
    )
    assert state.read_text() == STATE


def test_resume_from_pipeline_state_counts_later_successes(pipeline) -> None:
    """The same command again resumes at the end of the last run as well."""
    pipeline.state(STATE)
    pipeline.jobs(JOBS.replace('print("Docs: finishing")', "raise Exception"))
    assert pipeline.run("--state", "state.yml", "--resume").returncode == 1

    pipeline.jobs(JOBS)
    done = pipeline.run("--state", "state.yml", "--resume")

    assert ran(done) == ["Docs"]
    assert re.search(
        r"^sppe: resuming from state\.yml, which is only read; the state of this run is saved in \.sewer/state/\S+, "
        r"and tasks that succeeded in it count too$",
        done.err,
        re.MULTILINE,
    )


def test_resume_from_pipeline_state_survives_kill(pipeline, lifeline) -> None:
    """Killed in Coverage, and the document's state lost since: its successes are in the state of the run."""
    state = pipeline.state(STATE)
    waiting = JOBS.replace('print("Coverage: finishing")', 'put("here"); signal.pause()')
    pipeline.jobs(TELLING.format(lifeline=lifeline.path) + waiting)
    run = pipeline.start("--state", "state.yml", "--resume")
    lifeline.expect("here")
    run.kill()
    run.communicate(timeout=60)
    lifeline.expect_end()
    state.unlink()
    pipeline.jobs(JOBS)

    assert sorted(ran(pipeline.run("--resume"))) == ["Benchmark", "Coverage", "Docs"]


def later(pipeline, state) -> None:
    """Make a state the newest file there is."""
    moment = os.stat(next((pipeline.folder / ".sewer" / "state").iterdir())).st_mtime_ns + 1_000_000_000
    os.utime(state, ns=(moment, moment))


def test_resume_from_touched_pipeline_state_skips_succeeded_stages(pipeline) -> None:
    """A stage with SUCCESS in either of the two is done."""
    state = pipeline.state(STATE)
    assert pipeline.run("--state", "state.yml", "--resume").returncode == 0
    later(pipeline, state)

    assert ran(pipeline.run("--state", "state.yml", "--resume")) == []


def test_resume_from_pipeline_state_reruns_later_failures_until_newer(pipeline) -> None:
    """It is newer after a run of the original in between, in which the stage succeeded."""
    state = pipeline.state(STATE)
    pipeline.jobs(JOBS.replace('print("Lint: finishing")', "raise Exception"))
    assert pipeline.run("--state", "state.yml", "--resume", "--force", "Lint").returncode == 1

    explained = pipeline.run("--state", "state.yml", "--resume", command="explain").out
    assert re.search("^Lint +runs ", explained, re.MULTILINE)
    later(pipeline, state)
    explained = pipeline.run("--state", "state.yml", "--resume", command="explain").out
    assert re.search("^Lint +does not run ", explained, re.MULTILINE)


def test_explain_resume_from_pipeline_state(pipeline) -> None:
    """`sppe explain` shows the decisions of a run beforehand."""
    pipeline.state(STATE)

    explained = pipeline.run("--state", "state.yml", "--resume", command="explain").out.splitlines()

    assert [" ".join(line.split()) for line in explained[:3]] == [
        "Lint does not run it succeeded in the resumed run",
        "Test does not run it succeeded in the resumed run",
        "Coverage runs it has not succeeded yet",
    ]


def test_resume_from_pipeline_state_reruns_downstream_stages(pipeline) -> None:
    """The original would leave Docs as it is, made from an older Coverage."""
    pipeline.state(STATE.replace("Docs: null", "Docs: SUCCESS"))

    assert sorted(ran(pipeline.run("--state", "state.yml", "--resume"))) == ["Benchmark", "Coverage", "Docs"]


BAD_STATES = {
    "another word": (
        "Lint: DONE",
        ":1:7: state of stage 'Lint' must be one of SUCCESS, FAILED, RUNNING, null; got 'DONE'",
    ),
    "no state": ("Lint: [SUCCESS]", ":1:7: state of stage 'Lint' must be a string, got a list"),
    "no YAML": ("Lint: {", ":1:8: invalid YAML: "),
    "no mapping": ("- Lint", ":1:1: the state file must be a mapping, got a list"),
}


@pytest.mark.parametrize(("text", "message"), BAD_STATES.values(), ids=BAD_STATES)
def test_invalid_pipeline_state_is_rejected(text, message, pipeline) -> None:
    """Nothing runs on the word of a file that is not understood."""
    pipeline.state(text)

    done = pipeline.run("--state", "state.yml", "--resume")

    assert (done.returncode, done.out) == (2, "")
    assert f"sppe: {pipeline.folder}/state.yml{message}" in done.err


def test_missing_pipeline_state_is_rejected(pipeline) -> None:
    """A name with a typo does not run everything again."""
    done = pipeline.run("--state", "sate.yml", "--resume")

    assert (done.returncode, done.out) == (2, "")
    assert "sate.yml: cannot read the workflow file: No such file or directory" in done.err


def test_pipeline_state_is_never_written(pipeline) -> None:
    """Without --resume, a run would begin a new state file."""
    state = pipeline.state(STATE)

    done = pipeline.run("--state", "state.yml")

    assert (done.returncode, done.out) == (2, "")
    assert (
        "state.yml: a state file in YAML is one of python-dag-pipeline and is only read; resume from it with "
        in done.err
    )
    assert state.read_text() == STATE


def test_documented_stages_run_in_airflow(pipeline, run_dag, monkeypatch) -> None:
    """As a TaskGroup, with the jobs module beside them, unchanged as well."""
    from airflow.sdk import DAG

    from airflow_provider_sewer.task_group import sewer_task_group

    with DAG("pipeline", schedule=None) as dag:
        group = sewer_task_group(pipeline.folder / "stages.yaml", jobs="foo_jobs", python=sys.executable)

    result = run_dag(dag)

    assert group.group_id == "workflow"
    stages = ("Lint", "Test", "Coverage", "Docs", "Benchmark")
    assert result.states == {f"workflow.{stage}": "success" for stage in stages}
    assert not os.path.isabs(dag.get_task("workflow.Docs").workdir)
    assert dag.get_task("workflow.Docs").upstream_task_ids == {"workflow.Coverage", "workflow.Lint"}
