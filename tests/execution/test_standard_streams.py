"""Files as stdin and stdout of a task: byte for byte, atomic, and with all else in the log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from airflow_provider_sewer import Dependency, Product, Workflow
from airflow_provider_sewer.core.errors import ProductError
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.execution.task_states import TaskState
from tests.execution.product_workspace import Lab, lab, outcome_of

__all__ = ["lab"]

COPY = "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"


@pytest.fixture
def unbuffered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variable of Python that many images of containers have."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")


def test_bytes_pass_unchanged_from_stdin_to_stdout(lab: Lab) -> None:
    """Every byte, carriage returns and a missing newline at the end; and 20 MB of them."""
    data = (bytes(range(256)) + b"\r\n\n\r") * 80_000
    (lab.folder / "in $x\n'é").write_bytes(data)

    lab.run(lab.module("copy", COPY, stdin="in $x\n'é", stdout="out/-n &1 >\n✓"))

    assert (lab.folder / "out" / "-n &1 >\n✓").read_bytes() == data


def test_stderr_is_logged_and_stdout_is_not_the_result(lab: Lab) -> None:
    """The content of the product is not logged, and its last line is not the result."""
    task = lab.module("prints", 'import sys; print(\'{"a": 1}\'); print("note", file=sys.stderr)', stdout="out.json")

    outcome = lab.run(task)["prints"]

    assert (outcome.state, outcome.result) == (TaskState.SUCCEEDED, None)
    assert lab.observer.text == {"prints": "note\n"}
    assert lab.read("out.json") == '{"a": 1}\n'


def test_result_file_is_the_result_beside_stdout(lab: Lab) -> None:
    """A module can have both."""
    source = 'import os; print("x"); open(os.environ["SEWER_RESULT_FILE"], "w").write("[1]")'

    assert lab.run(lab.module("both", source, stdout="out.txt"))["both"].result == [1]


def test_function_prints_to_stdout_and_returns_result(lab: Lab) -> None:
    """As for a module."""
    lab.write("steps.py", "def step(n):\n    print(input(), n)\n    return n + 1\n")
    lab.write("in.txt", "read")
    task = Task("step", function="steps:step", kwargs={"n": 1}, stdin="in.txt", stdout="out.txt")

    assert lab.run(task)["step"].result == 2
    assert lab.read("out.txt") == "read 1\n"


def test_stdin_is_empty_without_file(lab: Lab) -> None:
    """Not that of the terminal."""
    task = lab.module("reads", "import sys; print(repr(sys.stdin.read()))", stdout="out.txt")

    lab.run(task)

    assert lab.read("out.txt") == "''\n"


def test_failed_task_moves_stdout_aside(lab: Lab) -> None:
    """The path itself never has a part of it, and the reason refers to stderr only."""
    source = "import os, signal; print('half', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    state, reason = outcome_of(lab, lab.module("dies", source, stdout="out.txt"))

    assert state is TaskState.FAILED
    assert "was ended by SIGKILL" in reason
    assert reason.endswith("It wrote nothing to stderr.")
    assert not lab.has("out.txt")
    assert lab.read("out.txt.failed") == "half\n"


def test_product_without_output_is_empty_file(lab: Lab) -> None:
    """Also where the module closes its stdout."""
    lab.run(lab.module("silent", "import os; os.close(1)", stdout="out.txt"))

    assert lab.read("out.txt") == ""


@pytest.mark.usefixtures("unbuffered")
@pytest.mark.parametrize("inherit_env", [False, True])
def test_full_disk_fails_the_task(lab: Lab, small_disk: Path, inherit_env: bool) -> None:
    """Python writes unbuffered output without an error up to the last free byte, and so it must be buffered."""
    source = 'import sys; sys.stdout.write("x" * 1_000_000)'
    task = lab.module("fills", source, stdout=f"{small_disk}/out.txt", inherit_env=inherit_env)

    state, reason = outcome_of(lab, task)

    assert state is TaskState.FAILED
    assert "No space left on device" in reason
    assert "which means" not in reason
    assert not (small_disk / "out.txt").exists()


def test_background_process_that_writes_to_stdout_is_waited_for(lab: Lab) -> None:
    """The product is committed when it is complete."""
    source = """
        import subprocess, sys
        child = "import time; time.sleep(0.3); print('late')"
        print("early", flush=True)
        subprocess.Popen([sys.executable, "-c", child], stderr=subprocess.DEVNULL, start_new_session=True)
    """
    lab.run(lab.module("leaves", source, stdout="out.txt"))

    assert lab.read("out.txt") == "early\nlate\n"


def test_background_process_that_keeps_stdout_open_is_ended(lab: Lab) -> None:
    """Nothing can write to a committed product."""
    source = """
        import os, subprocess, sys
        child = subprocess.Popen(["sleep", "4711"], stderr=subprocess.DEVNULL, start_new_session=True)
        print(child.pid)
    """
    lab.run(lab.module("leaves", source, stdout="out.txt"))

    assert "left processes behind that kept its output open" in lab.observer.text["leaves"]
    assert not Path(f"/proc/{lab.read('out.txt').strip()}/exe").exists()  # an ended process has none


def test_background_process_with_other_output_stays(lab: Lab) -> None:
    """As without stdout: only the product's file counts."""
    source = """
        import os, subprocess, sys
        child = subprocess.Popen(["sleep", "4711"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(child.pid)
    """
    lab.run(lab.module("leaves", source, stdout="out.txt"))

    assert "leaves" not in lab.observer.text
    os.kill(int(lab.read("out.txt")), signal.SIGKILL)


def test_killed_runner_leaves_no_part_of_stdout(lab: Lab) -> None:
    """The next run removes the staged part."""
    source = """
        import os, sys, time
        print("half", flush=True)
        if os.path.exists("gate"):
            print("runs", file=sys.stderr, flush=True)
            time.sleep(4711)
    """
    lab.write("slow.py", source)
    lab.write("gate")
    lab.write("flow.py", 'from airflow_provider_sewer import Task\nTask("slow", "slow", stdout="out.txt").run()\n')
    run = subprocess.Popen([sys.executable, "flow.py"], cwd=lab.folder, stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    assert any("runs" in line for line in run.stderr)
    run.kill()
    run.communicate()

    assert not lab.has("out.txt")
    (lab.folder / "gate").unlink()
    lab.run(Task("slow", "slow", stdout="out.txt"))
    assert lab.read("out.txt") == "half\n"
    assert lab.names(".sewer") == ["out.txt.json"]


@pytest.mark.parametrize("kind", ["a named pipe", "a directory", "a device"])
def test_stdin_that_is_no_regular_file_is_rejected(lab: Lab, kind: str) -> None:
    """Opening a pipe would wait for a process that writes to it."""
    path = lab.folder / "in"
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")

    with pytest.raises(ProductError, match=rf"task 'copy': stdin must be a regular file, got {kind}: .*/in"):
        lab.run(lab.module("copy", COPY, stdin="in", stdout="out"))


def test_pipe_from_upstream_task_fails_as_stdin(lab: Lab) -> None:
    """It is found when the task begins, and not waited for."""
    makes = lab.module("makes", "import os; os.mkfifo('in')", products="in")
    reads = lab.module("reads", COPY, stdin="in", stdout="out")

    outcome = lab.run(makes, reads)["reads"]

    assert outcome.state is TaskState.FAILED
    assert "stdin must be a regular file, got a named pipe" in outcome.reason


def test_missing_stdin_is_reported_as_any_dependency(lab: Lab) -> None:
    """Before a task starts."""
    with pytest.raises(ProductError, match=r"task 'copy' needs 'in', which is not a product of any task and does not"):
        lab.run(lab.module("copy", COPY, stdin="in", stdout="out"))


@pytest.mark.parametrize("run_when", ["stale", "missing"])
def test_task_is_stale_with_its_streams(lab: Lab, run_when: str) -> None:
    """With a changed stdin, another path of a stream, and a product that is missing."""
    lab.write("in", "1")
    lab.module("copy", COPY)
    is_compared = run_when == "stale"

    def runs(**streams: str) -> bool:
        task = Task("copy", "copy", **{"stdin": "in", "stdout": "out", "run_when": run_when, **streams})
        return lab.run(task)["copy"].state is TaskState.SUCCEEDED

    assert runs()
    assert not runs()
    assert runs(stdout="out 2")
    assert runs(stdin="./in") is is_compared
    lab.write("in", "22")
    assert runs(stdin="./in") is is_compared


def test_stdout_that_is_not_atomic_is_written_in_place(lab: Lab) -> None:
    """Such as a file that is followed; the file stays the same one."""
    lab.write("out.txt", "a longer text of before")
    inode = (lab.folder / "out.txt").stat().st_ino

    lab.run(lab.module("prints", "print(1)", stdout=Product("out.txt", atomic=False)))

    assert lab.read("out.txt") == "1\n"
    assert (lab.folder / "out.txt").stat().st_ino == inode


def test_stdout_that_is_not_atomic_rejects_pipe(lab: Lab) -> None:
    """It would block."""
    os.mkfifo(lab.folder / "out")
    reads = threading.Thread(target=(lab.folder / "out").read_bytes)
    reads.start()

    outcome = lab.run(lab.module("prints", "print(1)", stdout=Product("out", atomic=False)))["prints"]

    assert "stdout must be a regular file, got a named pipe" in outcome.reason
    reads.join()


def test_temporary_stdout_is_removed_after_use(lab: Lab) -> None:
    """By the task that reads it as its stdin, too."""
    makes = lab.module("makes", "print(1)", stdout=Product("part", temporary=True))
    reads = lab.module("reads", COPY, stdin=Dependency("part"), stdout="out")

    lab.run(makes, reads)

    assert lab.read("out") == "1\n"
    assert not lab.has("part")


def test_stdin_may_be_given_as_argument_as_well(lab: Lab) -> None:
    """A file that is only read can be read twice."""
    lab.write("in", "text")
    source = "import sys; print(sys.stdin.read() + open(sys.argv[1]).read())"

    lab.run(lab.module("reads", source, args=[Dependency("in")], stdin="in", stdout="out"))

    assert lab.read("out") == "texttext\n"
    assert Workflow("w", [lab.module("b", "", stdin="in")]).tasks["b"].dependencies == (Dependency("in"),)
