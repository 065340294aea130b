"""`sppe run` runs a graph, shows how it goes, keeps a log of each task, and exits 0 only if all succeeded."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest


@pytest.fixture
def nightly(sppe):
    """Return `sppe` with a workflow: load, then train, then report; and something else beside it."""
    sppe.write(
        "flow.py",
        """
        from airflow_provider_sewer import Task

        load = Task("load", "load_module")
        train = Task("train", "train_module", depends_on=load)
        report = Task("report", "report_module", depends_on=train)
        other = Task("Something Else", "other_module")
        """,
    )
    for name in ("load", "train", "report", "other"):
        sppe.write(f"{name}_module.py", f"print('{name} is done')")
    return sppe


def test_successful_run_exits_with_0_and_names_logs(nightly) -> None:
    """When all succeeded, the exit code is 0; lines carry their task, the summary names all and the logs."""
    done = nightly.run("run")

    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == [
        "[Something Else] other is done",
        "[load] load is done",
        "[report] report is done",
        "[train] train is done",
    ]
    *_, summary = done.stderr.split("\n\n")
    found = re.fullmatch(
        r"4 of 4 tasks succeeded, in [\d.]+ s; logs are in (\.sewer/logs/workflow-\d{8}-\d{6}-\d+)\n", summary
    )
    logs = sorted(path.name for path in (nightly.folder / found.group(1)).iterdir())
    assert logs == ["Something_Else.log", "load.log", "report.log", "run.jsonl", "train.log"]
    assert re.search(r"^  Something Else  succeeded +\d+\.\d s$", done.stderr, re.MULTILINE)


def test_failed_run_exits_with_1_and_finishes_other_tasks(nightly) -> None:
    """Tasks after a failed one do not run, the others do; the summary has the reason and the log."""
    nightly.write("train_module.py", "import sys; print('no data', file=sys.stderr); sys.exit(3)")

    done = nightly.run("run", "--log-dir", "logs")

    assert done.returncode == 1
    assert "[Something Else] other is done" in done.stdout
    assert "report is done" not in done.stdout
    assert "[report] upstream failed: 'train' failed\n" in done.stderr
    summary = done.stderr.rpartition("\n\n  load")[2]
    assert re.search(r"\n\ntrain: train_module failed with exit code 3; command: .* -u -m train_module\n", summary)
    assert "The last lines of stderr:\n  no data\nLog file: logs/train.log\n" in summary
    assert re.search(r"\n2 of 4 tasks succeeded, in [\d.]+ s; logs are in logs\n$", summary)
    assert re.search(r"\n  report          upstream failed\n", done.stderr)


def test_log_dir_option_overwrites_previous_logs(nightly) -> None:
    """A second run into the same folder leaves the logs of the second run."""
    nightly.run("run", "--log-dir", "logs")
    nightly.write("load_module.py", "print('loaded anew')")

    nightly.run("run", "--log-dir", "logs")

    log = (nightly.folder / "logs/load.log").read_text(encoding="utf-8")
    assert "loaded anew" in log
    assert "load is done" not in log


def test_missing_module_of_downstream_task_is_warning(nightly) -> None:
    """A module that an earlier task may yet make is a warning, and the run goes on."""
    nightly.write("load_module.py", "open('report_module.py', 'w').write('print(1)')")
    (nightly.folder / "report_module.py").unlink()

    done = nightly.run("run")

    assert done.returncode == 0
    assert "task 'report': " in done.stderr.splitlines()[0]
    assert done.stderr.splitlines()[0].endswith("; continuing, because an earlier task may create it")


def test_run_prints_each_line_once_in_order(sppe) -> None:
    """Many lines of two tasks at once arrive each once and in order, in the output and in the logs."""
    talk = "import sys\nfor i in range(20_000): print('line', i); print('note', i, file=sys.stderr)"
    sppe.tasks(one=talk, two=talk)

    done = sppe.run("run", "-j", "2", "--log-dir", "logs")

    assert done.returncode == 0
    for name in ("one", "two"):
        log = (sppe.folder / f"logs/{name}.log").read_text(encoding="utf-8").splitlines()
        for word, stream, text in (("line", "stdout", done.stdout), ("note", "stderr", done.stderr)):
            wanted = [f"{word} {number}" for number in range(20_000)]
            assert re.findall(rf"^\[{name}\] ({word} \d+)$", text, re.MULTILINE) == wanted
            assert [line.partition(f" {stream}| ")[2] for line in log if f" {stream}| " in line] == wanted


def test_run_keeps_binary_output_and_markup(sppe) -> None:
    """Brackets, escapes, bytes that are no text and a missing newline reach pipe and log as they are."""
    sppe.tasks(odd=r"import os; os.write(1, b'[red]x[/red] \x1b[31m\xff\xfe\n[/]no newline')")

    done = sppe.run("run", "--log-dir", "logs")

    lines = ["[red]x[/red] \x1b[31m\\xff\\xfe", "[/]no newline"]
    assert done.stdout == "".join(f"[odd] {line}\n" for line in lines)
    log = (sppe.folder / "logs/odd.log").read_text(encoding="utf-8")
    assert all(f"stdout| {line}\n" in log for line in lines)


def test_run_escapes_output_for_ascii_stdout(sppe) -> None:
    """Where stdout cannot show a character, it is written out, and the log has it as it was."""
    sppe.tasks(coffee="import sys; sys.stdout.reconfigure(encoding='utf-8'); print('café')")

    done = sppe.run("run", "--log-dir", "logs", env={"PYTHONIOENCODING": "ascii"})

    assert done.returncode == 0
    assert done.stdout == "[coffee] caf\\xe9\n"
    assert "stdout| café\n" in (sppe.folder / "logs/coffee.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", [0, 3])
def test_run_with_ignored_sigchld_gets_exit_codes(code: int, sppe) -> None:
    """Started where SIGCHLD is ignored, `sppe` still learns how its tasks end."""
    sppe.tasks(ends=f"raise SystemExit({code})")

    done = sppe.run("run", preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))

    assert done.returncode == (1 if code else 0)
    assert ("failed with exit code 3" in done.stderr) is bool(code)


HOLD = """
    import os, signal, sys, time
    life = os.open({lifeline!r}, os.O_WRONLY)
    os.fork() or os.setsid()
    os.write(life, b"here\\n")
"""


@pytest.mark.parametrize("both", [False, True], ids=["stdout", "both"])
def test_run_into_closed_pipe_stops_tasks(both: bool, sppe, lifeline) -> None:
    """`sppe run | head -1` neither hangs nor leaves anything running; nor does it with stderr in the pipe."""
    sppe.tasks(
        talks=HOLD.format(lifeline=lifeline.path) + "    while True: print('x' * 1000)",
        sleeps=HOLD.format(lifeline=lifeline.path) + "    signal.pause()",
    )
    read, write = os.pipe()
    run = sppe.start("run", "-j", "2", stdout=write, **({"stderr": write} if both else {}))
    os.close(write)

    lifeline.expect("here", times=4)
    os.read(read, 1)
    os.close(read)

    stderr = run.communicate(timeout=60)[1] or ""
    assert run.returncode == 1
    assert "Traceback" not in stderr
    assert "Exception ignored" not in stderr
    lifeline.expect_end()
    if not both:
        assert "the reader of the run's output has closed it" in stderr


def test_unwritable_log_fails_task(sppe) -> None:
    """A task whose log cannot be opened does not run, and the file is named; the others do."""
    sppe.tasks(one="open('trace', 'w')", two="print('two')")
    (sppe.folder / "logs/one.log").mkdir(parents=True)

    done = sppe.run("run", "--log-dir", "logs")

    assert done.returncode == 1
    assert "one: cannot write the log file logs/one.log: Is a directory" in done.stderr
    assert "[two] two\n" in done.stdout
    assert not (sppe.folder / "trace").exists()


def test_log_files_of_any_name_stay_in_log_dir(sppe) -> None:
    """Each task has one log in the log folder, with any name."""
    names = ["../x", "a/b", "A", "a", "語" * 200, "..", "[red]"]
    sppe.tasks(one="print('hello')")
    tasks = [f"Task({name!r}, 'one_module')" for name in names]
    sppe.write("flow.py", "\n".join(["from airflow_provider_sewer import Task", *tasks]))

    done = sppe.run("run", "--log-dir", "logs/deep")

    assert done.returncode == 0
    assert len(list((sppe.folder / "logs/deep").glob("*.log"))) == len(names)
    assert [path.name for path in (sppe.folder / "logs").iterdir()] == ["deep"]
    assert all(f"[{name}] hello\n" in done.stdout for name in names)


def test_default_log_dir_is_unique_per_run(sppe) -> None:
    """Two runs have two log folders, named after the workflow."""
    sppe.write(
        "flow.py",
        """
        from airflow_provider_sewer import Task, workflow

        @workflow
        def nightly():
            Task("one", "one_module").run()
        """,
    )
    sppe.write("one_module.py", "")

    sppe.run("run")
    sppe.run("run")

    folders = list(Path(sppe.folder, ".sewer/logs").iterdir())
    assert len(folders) == 2
    assert all(folder.name.startswith("nightly-") for folder in folders)
