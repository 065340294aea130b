"""Build modes, parts of a workflow, and resuming after an interrupted run, as a user sees them."""

from __future__ import annotations

import os
import re
import signal
from time import strftime

import pytest

FLOW = """
from airflow_provider_sewer import Dependency, External, Product, Task

raw = Task("raw", "copy_module", args=[External("in.csv"), Product("build/raw.txt")], run_when="stale")
model = Task(
    "model", "copy_module", args=[Dependency("build/raw.txt"), Product("build/model")], run_when="stale",
    compare="content", resources={"gpu": 1},
)
plot = Task("plot", "copy_module", args=[Dependency("build/model"), Product("build/plot")], run_when="stale")
note = Task("note", "note_module", depends_on=plot)
"""

COPY = """
import os, sys
source, target = sys.argv[1:]
if os.path.exists("broken-" + os.path.basename(target)):
    sys.exit("no luck")
with open("diary", "a") as diary:
    diary.write(os.path.basename(target) + "\\n")
open(target, "w").write(open(source).read()[:1])
"""


@pytest.fixture
def flow(sppe):
    """Return `sppe` with a workflow of products: raw, then model, then plot, and a note at the end."""
    sppe.write("flow.py", FLOW)
    sppe.write("copy_module.py", COPY)
    sppe.write("note_module.py", "print('noted')")
    sppe.write("in.csv", "1st")
    return sppe


def diary(sppe) -> list[str]:
    path = sppe.folder / "diary"
    return path.read_text().split() if path.exists() else []


def explained(sppe, *options: str) -> list[str]:
    """Return the lines of `sppe explain`, which has to succeed."""
    done = sppe.run("explain", "-p", "flow.py", *options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_explain_prints_decision_and_reason(flow) -> None:
    """It prints a decision and its reason for each task, and runs none."""
    assert explained(flow) == [
        "raw    runs          build/raw.txt is missing",
        "model  runs          build/model is missing",
        "plot   runs          build/plot is missing",
        "note   runs          it always runs",
    ]
    assert not (flow.folder / "build").exists()

    flow.run("run")
    time = re.escape(strftime("%Y-%m-%d ")) + "[0-9:]{8}"
    for line, expected in zip(
        explained(flow),
        [
            f"raw    does not run  build/raw.txt is unchanged since {time}, and so is in.csv",
            f"model  does not run  build/model is unchanged since {time}, and so is build/raw.txt",
            f"plot   does not run  build/plot is unchanged since {time}, and so is build/model",
        ],
        strict=False,
    ):
        assert re.fullmatch(expected, line)

    flow.write("in.csv", "11th")
    assert explained(flow, "--force", "plot") == [
        "raw    runs          in.csv has changed",
        "model  may run       'raw' runs before it and may produce the same files",
        "plot   runs          it is forced",
        "note   runs          it always runs",
    ]


def test_run_follows_explain_and_logs_reasons(flow) -> None:
    """Each task has a line with the reason why it runs or is up to date, in the log as well."""
    flow.run("run")
    flow.write("in.csv", "11th")

    done = flow.run("run", "--log-dir", "logs")

    assert done.returncode == 0
    assert "[raw] running: in.csv has changed\n" in done.stderr
    assert "[model] up to date: build/model is unchanged since " in done.stderr
    assert diary(flow) == ["raw.txt", "model", "plot", "raw.txt"]
    assert "\n4 of 4 tasks succeeded, 2 of them without running, in " in done.stderr
    assert "sewer| running: in.csv has changed\n" in (flow.folder / "logs/raw.log").read_text()
    assert "sewer| build/model is unchanged since " in (flow.folder / "logs/model.log").read_text()


@pytest.mark.parametrize("command", ["run", "explain"])
def test_missing_external_input_exits_with_2(flow, command) -> None:
    """Both by the run and by its explanation; nothing was run."""
    (flow.folder / "in.csv").unlink()

    done = flow.run(command, *(["-p", "flow.py"] if command == "explain" else []))

    assert done.returncode == 2
    assert done.stderr == (
        f"sppe: {flow.folder}/flow.py:4: task 'raw' needs 'in.csv', which is external and does not exist: "
        f"{flow.folder}/in.csv; create it, or correct the path\n"
    )
    assert diary(flow) == []


def test_resume_runs_failed_tasks_and_downstream(flow) -> None:
    """--resume runs the tasks without success and those after them; the rest counts as done."""
    flow.write("broken-plot", "")
    assert flow.run("run").returncode == 1
    (flow.folder / "broken-plot").unlink()

    assert explained(flow, "--resume")[:3] == [
        "raw    does not run  it succeeded in the resumed run",
        "model  does not run  it succeeded in the resumed run",
        "plot   runs          build/plot is missing",
    ]
    done = flow.run("run", "--resume")

    assert done.returncode == 0
    assert "[raw] skipped: it succeeded in the resumed run\n" in done.stderr
    assert diary(flow) == ["raw.txt", "model", "plot"]


def test_resume_without_state_runs_all_with_notice(flow) -> None:
    """In another folder than the time before, everything runs, with a notice."""
    for done in (flow.run("explain", "-p", "flow.py", "--resume"), flow.run("run", "--resume")):
        assert done.returncode == 0
        path = rf"{flow.folder}/\.sewer/state/workflow-\w+\.jsonl"
        assert re.search(rf"^sppe: no state file at {path}: no task ", done.stderr, re.MULTILINE)
    assert diary(flow) == ["raw.txt", "model", "plot"]


@pytest.mark.parametrize("command", ["run", "explain"])
def test_resume_with_missing_state_option_exits_with_2(flow, command) -> None:
    """A name with a typo does not run everything again."""
    done = flow.run(command, *(["-p", "flow.py"] if command == "explain" else []), "--resume", "--state", "sate.jsonl")

    assert (done.returncode, diary(flow)) == (2, [])
    assert done.stderr == ("sppe: sate.jsonl: state file not found; correct the path, or leave out --resume\n")


def test_explain_resume_matches_run(flow) -> None:
    """The reasons for each task are the same as those of the run itself."""
    flow.write(
        "flow.py",
        """
        from airflow_provider_sewer import Task
        first = Task("first", "note_module", args=["%s"])
        second = Task("second", "note_module", depends_on=first)
        other = Task("other", "note_module")
        last = Task("last", "broken_module", depends_on=other)
        """,
    )
    flow.write("broken_module.py", "raise SystemExit('no luck')")
    assert flow.run("run").returncode == 1
    flow.write("flow.py", (flow.folder / "flow.py").read_text().replace("%s", "anew"))

    assert sorted(explained(flow, "--resume")) == [
        "first   runs          it succeeded with other parameters",
        "last    runs          it has not succeeded yet",
        "other   does not run  it succeeded in the resumed run",
        "second  runs          'first' runs before it",
    ]
    stderr = flow.run("run", "--resume").stderr
    assert "[first] running: it succeeded with other parameters\n" in stderr
    assert "[second] running: 'first' runs before it\n" in stderr
    assert "[last] running: it has not succeeded yet\n" in stderr


RESULTS = """
from airflow_provider_sewer import Task

made = Task("made", function="functions:made")
taken = Task("taken", function="functions:taken", kwargs={"seed": made.result["seed"]})
"""


@pytest.mark.parametrize("command", ["run", "explain"])
def test_resume_with_missing_result_exits_with_2(flow, command) -> None:
    """A missing part of a result too; the message names its task."""
    flow.write("flow.py", RESULTS)
    flow.write("functions.py", "def made(): return {'seed': 7}\ndef taken(seed): print('taken', seed)")
    place = ["-p", "flow.py"] if command == "explain" else []

    def refused(*options: str) -> str:
        done = flow.run(command, *place, *options)
        assert done.returncode == 2
        return done.stderr

    assert refused("--select", "taken") == (
        f"sppe: {flow.folder}/flow.py:5: task 'taken' takes made.result['seed']; task 'made' is not selected, and no "
        "earlier run saved its result; run 'made' as well\n"
    )

    assert flow.run("run").returncode == 0
    assert flow.run(command, *place, "--select", "taken").returncode == 0
    flow.write("flow.py", RESULTS.replace('["seed"]', '["sead"]'))
    assert refused("--select", "taken+") == (
        f"sppe: {flow.folder}/flow.py:5: task 'taken': there is no made.result['sead']: the object has the keys "
        "'seed'\n"
    )


def test_resume_after_sigkill_keeps_succeeded_tasks(flow, gate, lifeline) -> None:
    """SIGKILL loses no success; running tasks run again, and the file is free at once."""
    wait = f"import fcntl, os; life = os.open({lifeline.path!r}, os.O_WRONLY); os.write(life, b'waits')\n"
    flow.write("note_module.py", f"{wait}fcntl.flock(open({gate.path!r}), fcntl.LOCK_SH)")
    process = flow.start("run")
    lifeline.expect("waits")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    gate.open()

    done = flow.run("run", "--resume")

    assert done.returncode == 0
    assert diary(flow) == ["raw.txt", "model", "plot"]
    lifeline.expect("waits", times=2)
    lifeline.expect_end()


def test_second_run_with_same_state_exits_with_2(flow, gate, lifeline) -> None:
    """It names the process that is at it, and exits with 2."""
    wait = f"import fcntl, os; life = os.open({lifeline.path!r}, os.O_WRONLY); os.write(life, b'waits')\n"
    flow.write("note_module.py", f"{wait}fcntl.flock(open({gate.path!r}), fcntl.LOCK_SH)")
    first = flow.start("run")
    lifeline.expect("waits")

    second = flow.run("run")
    elsewhere = flow.run("run", "--state", "other", "--select", "plot")
    gate.open()
    first.communicate()

    assert second.returncode == 2
    assert f"sppe: another run (process {first.pid} on " in second.stderr
    assert "wait for it, or name another with --state" in second.stderr
    assert (first.returncode, elsewhere.returncode) == (0, 0)


def test_selected_tasks_use_products_and_results_of_others(flow) -> None:
    """A limit may be of a resource that no selected task needs, but not of one that no task needs."""
    flow.run("run")
    flow.write("in.csv", "2nd")

    assert flow.run("run", "--select", "raw", "--limit", "gpu=1").returncode == 0
    assert diary(flow)[3:] == ["raw.txt"]
    assert flow.run("run", "--select", "model+").returncode == 0
    assert diary(flow)[4:] == ["model", "plot"]
    unknown = flow.run("run", "--select", "raw", "--limit", "gpus=1")
    assert (unknown.returncode, unknown.stderr) == (
        2,
        "sppe: unknown resource 'gpus'; did you mean 'gpu'? Known: 'gpu'.\n",
    )


def test_selected_tasks_without_required_products_exit_with_2(flow) -> None:
    """Nothing runs; the message has the task that would make it."""
    done = flow.run("run", "--select", "plot")

    assert done.returncode == 2
    assert "task 'plot' needs 'build/model', a product of task 'model', which is not selected" in done.stderr


def test_show_and_explain_use_selection_of_run(flow) -> None:
    """Tasks before and after are drawn as they would run, without the excluded ones."""
    flow.run("run")
    options = ("--select", "raw,+plot", "--select", "plot+", "--exclude", "note")

    shown = flow.run("show", "-p", "flow.py", *options)
    assert shown.stdout.splitlines() == ["workflow", "", "raw       copy_module", "└── plot  copy_module"]
    assert [line.partition(" is unchanged")[0] for line in explained(flow, *options)] == [
        "raw   does not run  build/raw.txt",
        "plot  does not run  build/plot",
    ]


def test_only_and_from_options_select_tasks(flow) -> None:
    """--only takes the task alone, --from the tasks after it as well."""
    flow.run("run")

    only = explained(flow, "--only", "raw", "--only", "note")
    assert only == explained(flow, "--select", "raw", "--select", "note")
    assert [line.split()[0] for line in only] == ["raw", "note"]
    assert [line.split()[0] for line in explained(flow, "--from", "plot")] == ["plot", "note"]
    assert "2 of 2 tasks succeeded" in flow.run("run", "--from", "plot").stderr


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        (["--from", "a"], ["a", "b", "a+"]),
        (["--from", "a+"], ["a+"]),
        (["--from", "x,y"], ["x,y", "last"]),
        (["--only", "x,y", "--from", "b"], ["b", "x,y"]),
        (["--select", "x,y+"], ["x,y", "last"]),
        (["--select", "+x,y,+last"], ["x,y"]),
    ],
)
def test_only_and_from_options_take_names_with_operators(sppe, options, meant) -> None:
    """Commas and operators are part of names if there are such names; text after a name is no name."""
    sppe.write(
        "flow.py",
        """
        from airflow_provider_sewer import Task
        a, b, c, x, last = (Task(name, "steps") for name in ("a", "b", "a+", "x,y", "last"))
        a >> [b, c]
        x >> last
        """,
    )
    sppe.write("steps.py", "")
    done = sppe.run("explain", "-p", "flow.py", *options)

    assert [line.split()[0] for line in done.stdout.splitlines()] == meant, done.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--select", "modle"], "select 'modle': unknown task 'modle'; did you mean 'model'?"),
        (["--exclude", "+modle"], "exclude '+modle': unknown task 'modle'; did you mean 'model'?"),
        (
            ["--select", "raw", "--force", "plot"],
            "task 'plot' is forced, but it is not selected",
        ),
        (["--limit", "gpu=0"], "write NAME=NUMBER, such as gpu=2"),
        (["--state", "."], "cannot open the state file .: Is a directory; name another with --state"),
    ],
)
def test_invalid_selection_exits_with_2(flow, options, expected) -> None:
    """With exit code 2 and nothing run."""
    done = flow.run("run", *options)

    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert diary(flow) == []


def test_read_only_folder_is_reported(flow) -> None:
    """That of the state and the logs, and that beside the products."""
    flow.write(".sewer", "a file")
    done = flow.run("run")
    assert done.returncode == 2
    assert "cannot create the log folder .sewer/logs/" in done.stderr
    assert "choose another with --log-dir" in done.stderr

    (flow.folder / ".sewer").unlink()
    (flow.folder / "build").mkdir()
    flow.write("build/.sewer", "a file")
    done = flow.run("run")
    assert done.returncode == 2
    assert "build/.sewer is not a directory; move it away" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_discards_partial_products(flow, gate, lifeline) -> None:
    """No real name appears; the next run makes it."""
    flow.write(
        "copy_module.py",
        f"""
        import fcntl, os, sys
        open(sys.argv[2], "w").write("half")
        life = os.open({lifeline.path!r}, os.O_WRONLY)
        os.write(life, b"waits")
        fcntl.flock(open({gate.path!r}), fcntl.LOCK_SH)
        """,
    )
    process = flow.start("run")
    lifeline.expect("waits")
    process.send_signal(signal.SIGINT)
    process.communicate()
    lifeline.expect_end()

    assert process.returncode == 130
    assert sorted(os.listdir(flow.folder / "build")) == [".sewer", "raw.txt.failed"]
    assert sorted(os.listdir(flow.folder / "build/.sewer")) == [
        ".gitignore",
        "raw.txt.failed",
    ]  # the note that it is ours to remove
    flow.write("copy_module.py", COPY)
    assert flow.run("run", "--resume").returncode == 0
    assert sorted(os.listdir(flow.folder / "build")) == [".sewer", "model", "plot", "raw.txt"]


def test_resume_reruns_tasks_with_changed_inputs(flow) -> None:
    """A task that succeeded with another file runs again, as do all tasks after it."""
    assert flow.run("run").returncode == 0
    assert flow.run("run", "--resume").stderr.count("skipped:") == 4
    flow.write("in.csv", "another")
    assert flow.run("run", "--resume").returncode == 0

    assert (flow.folder / "build/raw.txt").read_text() == "a"
    assert (flow.folder / "build/plot").read_text() == "a"
