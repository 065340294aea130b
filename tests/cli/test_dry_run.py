"""``sppe run --dry-run`` and ``sppe explain``: the checks and commands of a run."""

from __future__ import annotations

import subprocess

import pytest

UNRUNNABLE = {
    "interpreter": ("Task('a', 'json.tool', python='nope/bin/python')", "nope/bin/python does not exist"),
    "module": ("Task('a', 'no_such_module')", "has no module 'no_such_module'"),
    "external input": ("Task('a', 'json.tool', [External('missing.json')])", "needs 'missing.json'"),
    "working directory": ("Task('a', 'json.tool', workdir='nowhere')", "nowhere does not exist"),
    "template": ("Task('a', 'json.tool', ['{{ ds }}'])", "rendered only by Airflow"),
}


@pytest.mark.parametrize("command", [["run"], ["run", "-n"], ["explain", "-p", "flow.py"]], ids=" ".join)
@pytest.mark.parametrize(("task", "message"), UNRUNNABLE.values(), ids=UNRUNNABLE)
def test_explain_and_dry_run_reject_same_files_as_run(task: str, message: str, command: list[str], sppe) -> None:
    sppe.write("flow.py", f"from airflow_provider_sewer import External, Task\n{task.replace('[', 'args=[')}")

    done = sppe.run(*command)

    assert done.returncode == 2
    assert message in done.stderr


def test_dry_run_prints_commands_and_runs_nothing(sppe) -> None:
    sppe.tasks(first="open('trace', 'w').close()")

    done = sppe.run("run", "-n")

    assert done.returncode == 0
    assert "first  runs          it always runs" in done.stdout
    assert [path.name for path in sppe.folder.iterdir() if path.name != "__pycache__"] == ["first_module.py", "flow.py"]


STREAMS = """
    from airflow_provider_sewer import Task
    Task("upper", "upper", stdin="in $x.txt", stdout="out file.txt")
"""


@pytest.mark.parametrize("source", ["dry run", "log"])
def test_printed_command_redirects_streams(source: str, sppe) -> None:
    """A user who repeats it gets the same file."""
    sppe.write("flow.py", STREAMS)
    sppe.write("upper.py", "import sys\nprint(sys.stdin.read().upper())")
    (sppe.folder / "in $x.txt").write_text("text")
    if source == "log":
        command = next(line for line in sppe.run("run").stderr.splitlines() if "$ " in line).partition("$ ")[2]
        (sppe.folder / "out file.txt").unlink()
    else:
        command = sppe.run("run", "-n").stdout.splitlines()[1].strip()

    subprocess.run(["sh", "-c", command], cwd=sppe.folder, check=True)

    assert command.endswith(" -m upper < 'in $x.txt' > 'out file.txt'")
    assert (sppe.folder / "out file.txt").read_text() == "TEXT\n"


PRODUCT = """
    from airflow_provider_sewer import Product, Task
    Task("write", function="steps:write", kwargs={"path": Product("build/out.txt"), "text": "it's $HOME"},
         env={"A": "1 2"})
"""
WRITE = """
    import os

    def write(path, text):
        open(path, "w").write(text + os.environ["A"])
"""


@pytest.mark.parametrize("source", ["dry run", "log"])
def test_printed_command_can_be_repeated(source: str, sppe) -> None:
    """It has the real path of the product, and the program that calls a function as a file."""
    sppe.write("flow.py", PRODUCT)
    sppe.write("steps.py", WRITE)
    out = sppe.folder / "build/out.txt"
    if source == "log":
        printed = next(line for line in sppe.run("run").stderr.splitlines() if "$ " in line)
        command = "A='1 2' " + printed.partition("$ ")[2]
        out.unlink()
    else:
        command = sppe.run("run", "-n").stdout.splitlines()[1]

    subprocess.run(["/bin/sh", "-c", command], cwd=sppe.folder, check=True, env=sppe.environment())

    assert out.read_text() == "it's $HOME1 2"


def test_dry_run_hides_secret_variables(sppe) -> None:
    sppe.tasks(first="pass")

    done = sppe.run("run", "-n", "--env", "API_TOKEN=hunter2")

    assert 'API_TOKEN="$API_TOKEN"' in done.stdout
    assert "hunter2" not in done.stdout


def test_dry_run_shows_saved_results_and_names_unknown_ones(sppe) -> None:
    sppe.write(
        "flow.py",
        """
        from airflow_provider_sewer import Task
        first = Task("first", function="steps:first")
        Task("second", function="steps:second", kwargs={"n": first.result})
        """,
    )
    sppe.write("steps.py", "def first(): return 7\ndef second(n): pass")

    assert "<first.result>" in sppe.run("run", "-n").stdout

    sppe.run("run")

    assert """'{"n": 7}'""" in sppe.run("run", "-n", "--only", "second").stdout


FRESH = """
    from airflow_provider_sewer import Dependency, Product, Task, workflow
    raw = Task("raw", function="steps:write", kwargs={"path": Product("build/it's raw/raw.txt"), "text": "a"})
    deep = Task("deep", module="copy_steps", args=["-v", Dependency("build/it's raw/raw.txt"), Product("-x/deep.txt")],
                env={"NOT-A-NAME": "1"})
    folder = Task("folder", function="steps:write_into", kwargs={"folder": Product("made/folder/"), "n": 3})
    other = Task("other", function="steps:write", workdir="sub", kwargs={"path": Product("../up/b.txt"), "text": ""})

    printed = Task("printed", module="this", stdout=Product("printed by/this.txt"))

    @workflow
    def flow():
        (raw >> deep >> folder >> other >> printed).run()
"""
STEPS = """
    import os

    def write(path, text):
        open(path, "w").write(text)

    def write_into(folder, n):
        open(os.path.join(folder, "n"), "w").write(str(n))
"""
COPY_STEPS = """
    import os, sys
    assert os.environ["NOT-A-NAME"] == "1"
    open(sys.argv[3], "w").write(open(sys.argv[2]).read())
"""


def test_every_printed_command_runs_in_a_fresh_copy(sppe) -> None:
    """It creates the folders of products, which a run creates."""
    sppe.write("flow.py", FRESH)
    sppe.write("steps.py", STEPS)
    sppe.write("copy_steps.py", COPY_STEPS)
    (sppe.folder / "sub").mkdir()
    env = sppe.environment()
    env["PYTHONPATH"] += f":{sppe.folder}"

    printed = sppe.run("run", "-n", env=env).stdout.splitlines()

    for command in printed[1::2]:
        subprocess.run(["/bin/sh", "-c", command], cwd="/", check=True, env=env)
    for product in ("build/it's raw/raw.txt", "-x/deep.txt", "made/folder/n", "up/b.txt", "printed by/this.txt"):
        assert (sppe.folder / product).exists()
