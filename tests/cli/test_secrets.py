"""Secrets of a workflow that runs from the shell: shown and kept nowhere, and named where others could read them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from .slurm_runs import on_slurm

__all__ = ["on_slurm"]

SECRET = 'sesame"4711'


def kept(folder) -> str:
    """Return all files below a folder, but for a job's own output."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    return "".join(path.read_text(errors="replace") for path in paths if path.name not in ("stdout.log", "stderr.log"))


def test_run_masks_secrets_in_output_and_state(sppe):
    """Neither its variables, inherited ones, a URL's password or a parameter; not in logs, errors or the state file."""
    sppe.write(
        "shows.py",
        """
        import json, os, sys
        given = [os.environ.get(name) for name in ("MY_PASS", "DB", "OF_MINE_TOKEN")]
        print("seen", given, sys.argv, file=sys.stderr)
        print("last", json.dumps([*given, *sys.argv[1:]]))
        """,
    )
    sppe.write(
        "flow.py",
        f"""
        from airflow_provider_sewer import Task
        env = {{"MY_PASS": {SECRET!r}, "DB": "x://me:url-sesame@host"}}
        a = Task("a", "shows", {{"password": "parameter-sesame"}}, env=env, inherit_env=["OF_MINE_TOKEN"])
        b = Task("b", "not_there", {{"token": "parameter-sesame"}}, depends_on=a)
        """,
    )
    run = sppe.run("run", "--log-dir", "logs", env={"OF_MINE_TOKEN": "inherited-sesame"})
    assert run.returncode == 1
    assert run.stdout == '[a] last ["***", "x://me:***@host", "***", "--password", "***"]\n'
    assert "seen ['***', 'x://me:***@host', '***']" in run.stderr
    assert "sesame" not in run.stderr + kept(sppe.folder)


@pytest.mark.parametrize(
    "command",
    [["show"], ["show", "--format", "json"], ["show", "--format", "mermaid"], ["explain"],
     ["convert", "--to", "vscode"], ["convert", "--to", "vscode", "--print-only"]],
    ids=" ".join,
)  # fmt: skip
def test_commands_warn_of_exposed_secrets(sppe, command):
    """With file and line, on stderr, so that other programs can read stdout."""
    sppe.write("m.py", "")
    sppe.write(
        "flow.py",
        """
        from airflow_provider_sewer import Task
        env = {"DB_PASS": "a-sesame", "DB": "x://me:a-sesame@host"}
        a = Task("a", "m", {"api_key": "a-sesame", "to": "x-a-sesame"}, env=env)
        b = Task("b", "m").map(url=["x://me:a-sesame@host", "x://me:other-sesame@host"])
        """,
    )
    ended = sppe.run(*command, "-p", "flow.py")
    assert ended.returncode == 0, ended.stderr
    assert "flow.py:4: task 'a': parameter 'api_key' looks like a secret" in ended.stderr
    assert "flow.py:5: task 'b[url=#0]': parameter 'url' looks like a secret" in ended.stderr
    assert "sesame" not in ended.stdout + ended.stderr + kept(sppe.folder)


def test_convert_lists_variables_of_secrets(sppe):
    """They have to be set where VS Code is started."""
    sppe.write("flow.py", "from airflow_provider_sewer import Task\na = Task('a', 'm', env={'HF_TOKEN': 'sesame'})\n")
    ended = sppe.run("convert", "-p", "flow.py", "--to", "vscode")
    assert "VS Code takes HF_TOKEN from the environment it is started in" in ended.stderr
    written = json.loads((sppe.folder / ".vscode" / "launch.json").read_text())
    assert written["configurations"][0]["env"] == {"HF_TOKEN": "${env:HF_TOKEN}"}


def test_run_on_slurm_masks_secrets(on_slurm):
    """The last line of a job is the result that is in the state file; its output is in the job directory alone."""
    on_slurm.flow(
        show="""# env={'MY_PASS': 'a-sesame', 'DB': 'x://me:url-sesame@host'}
        import json
        print("last", json.dumps([os.environ["MY_PASS"], os.environ["DB"]]))
        """,
    )
    run = on_slurm.run("--log-dir", "logs")
    assert run.code == 0, run.stderr
    assert run.stdout == '[show] last ["***", "x://me:***@host"]\n'
    assert "sesame" not in run.stderr + kept(on_slurm.sppe.folder)


ARGUMENTS_FLOW = """
from airflow_provider_sewer import Task, workflow

@workflow
def send(password, pin_token, login):
    Task("a", "shows", {"text": password, "n": pin_token, "who": login["credentials"]}).run()
"""
ARGUMENTS = [
    "--arg", "password=an-arg-sesame", "--arg", "pin_token=47114711",
    "--arg", 'login={"credentials": ["one-sesame", "two-sesame"]}',
]  # fmt: skip


@pytest.mark.parametrize("is_dry", [False, True], ids=["run", "dry run"])
def test_run_masks_secret_arguments_under_other_names(sppe, is_dry):
    """The workflow uses them as parameters whose names do not look secret."""
    sppe.write("shows.py", "import sys; print('seen', *sys.argv, file=sys.stderr); print('last', *sys.argv[1:])")
    sppe.write("flow.py", ARGUMENTS_FLOW)

    run = sppe.run("run", "-v", "--log-dir", "logs", *ARGUMENTS, *(["-n"] if is_dry else []))

    assert run.returncode == 0, run.stderr
    shown = run.stdout + run.stderr + kept(sppe.folder)
    assert "--text '***'" in shown or "--text ***" in shown
    assert "sesame" not in shown
    assert "4711" not in shown


def test_run_on_slurm_masks_secret_arguments_under_other_names(on_slurm):
    """Nor are they in the job script."""
    on_slurm.sppe.write("shows.py", "import sys; print('last', *sys.argv[1:])")
    on_slurm.sppe.write("flow.py", ARGUMENTS_FLOW)

    run = on_slurm.run("-v", "--log-dir", "logs", *ARGUMENTS)

    assert run.code == 0, run.stderr
    assert "last --text *** --n *** --who *** --who ***" in run.stdout
    assert "sesame" not in run.stdout + run.stderr + kept(on_slurm.sppe.folder)


CALLED = """
import os
from airflow_provider_sewer import Task, workflow

@workflow
def inner(my_token):
    Task("inner", "shows", {"n": my_token}).run()

@workflow
def send(password, pin_token, login, own_token=os.environ["OF_THE_SHELL"]):
    a = Task("a", "shows", {"text": password, "n": [pin_token]}, env={"HERE": password}, doc="as " + password)
    b = Task("b", function="shows:show", kwargs={"n": pin_token, "of": ["--who", login["credentials"][0]]})
    c = Task("c", "shows").map(n=[login["credentials"][1], "other"])
    d = Task("d", "shows", args=[own_token], slurm={"comment": own_token}, operator_kwargs={"note": own_token})
    (a >> b >> c >> d).run()
    inner("one-more-sesame")
"""
SHOWN = {
    "json": ["show", "--format", "json"],
    "tree": ["show"],
    "html": ["show", "--format", "html"],
    "vscode": ["convert", "--to", "vscode", "--print-only"],
    "explain": ["explain"],
}


@pytest.mark.parametrize("how", [[], ["--read-with-interpreter"]], ids=["here", "elsewhere"])
@pytest.mark.parametrize("form", SHOWN)
def test_secret_arguments_under_other_names_are_not_shown(sppe, monkeypatch, form, how):
    """Neither those of the command line, nor defaults, nor those of a called workflow; also in no cache."""
    monkeypatch.setenv("OF_THE_SHELL", "default-sesame")
    monkeypatch.setenv("XDG_CACHE_HOME", str(sppe.folder / "cache"))
    python = ["-i", sys.executable] if how else []
    sppe.write("shows.py", "def show(**given): pass")
    sppe.write("flow.py", CALLED)
    command, *more = SHOWN[form]
    env = ["--env", "OF_THE_SHELL"] if how else []

    run = sppe.run(command, "-p", "flow.py", "-w", "send", *more, *ARGUMENTS, *how, *python, *env)

    assert run.returncode == 0, run.stderr
    shown = run.stdout + run.stderr + kept(sppe.folder)
    assert "sesame" not in shown
    assert "4711" not in shown
    if form in ("json", "vscode"):
        for name in ("PASSWORD", "PIN_TOKEN", "CREDENTIALS", "OWN_TOKEN", "MY_TOKEN"):
            assert f"${{env:{name}}}" in run.stdout


def test_secret_argument_in_names_warns(sppe):
    """Names, tags and paths are shown and stored; the warning shows none of them."""
    sppe.write(
        "flow.py",
        """
from airflow_provider_sewer import Product, Task, workflow

@workflow
def send(token):
    Task("a" + token, "steps", {"out": Product("build/" + token)}, tags=[token], group="g" + token).run()
""",
    )
    run = sppe.run("explain", "--arg", "token=an-arg-sesame", "flow.py")
    for field in ("name", "group", "tags", "path"):
        assert f"flow.py:6: task 'a***': the secret TOKEN is in its {field}, which others can see" in run.stderr


def test_plain_python_run_masks_secret_arguments_under_other_names(sppe):
    """The file runs itself, without sppe."""
    sppe.write("shows.py", "import sys; print('last', *sys.argv[1:])")
    sppe.write("flow.py", ARGUMENTS_FLOW + "\nsend('an-arg-sesame', 47114711, {'credentials': ['one-sesame']})\n")
    run = subprocess.run([sys.executable, "flow.py"], cwd=sppe.folder, capture_output=True, text=True, check=False)
    assert "last --text *** --n *** --who ***" in run.stdout
    assert "sesame" not in run.stdout + run.stderr


IN_ERRORS = {
    "field": 'Task("a", token)',
    "exception": 'raise ValueError("bad " + token)',
    "workflow": 'Task("a", "m", depends_on=token).run()',
    "check before the run": 'Task("a", "m", workdir="/" + token).run()',
    "end of a task": 'Task("a", "exits").run()',
}


@pytest.mark.parametrize("line", IN_ERRORS.values(), ids=IN_ERRORS)
def test_errors_mask_secret_arguments(sppe, line):
    """Of all stages: while the file is read, before the run, and in it."""
    sppe.write("m.py", "")
    sppe.write("exits.py", "raise SystemExit('an-arg-' + 'sesame')")
    sppe.write("flow.py", f"from airflow_provider_sewer import *\n\n@workflow\ndef send(token):\n    {line}\n")
    run = sppe.run("run", "--arg", "token=an-arg-sesame")
    assert run.returncode
    assert "***" in run.stderr
    assert "sesame" not in run.stdout + run.stderr + kept(sppe.folder)


def test_missing_argument_error_masks_secret_default(sppe):
    """The error shows the signature."""
    sppe.write("flow.py", "from airflow_provider_sewer import *\n\n@workflow\ndef send(n, token='open-sesame'): pass\n")
    run = sppe.run("show", "flow.py")
    assert "Signature: (n, token='***')" in run.stderr


@pytest.mark.parametrize(
    "line",
    [
        "Task('a', 'm', args='--token=open-sesame')",
        "Task('a', 'm', slurm={'comment': ['token=open-sesame']})",
        "Task('a', 'm', env={'A_TOKEN=open-sesame': 'x'})",
        "Task('a', 'm', inherit_env='A_TOKEN=open-sesame')",
        "Task('x://me:open-sesame@host', 5)",
    ],
)
def test_errors_mask_secrets_in_values(sppe, line):
    """They quote a value that is not valid."""
    sppe.write("flow.py", f"from airflow_provider_sewer import *\n{line}\n")
    run = sppe.run("show", "flow.py")
    assert run.returncode == 2
    assert "***" in run.stderr
    assert "sesame" not in run.stderr


@pytest.mark.parametrize("command", [["show", "--format", "json"], ["convert", "--to", "vscode", "--print-only"]])
def test_value_that_is_secret_under_one_name_is_not_shown_under_another(sppe, command):
    """Also in YAML."""
    sppe.write("flow.yaml", "a:\n  module: m\n  parameters_and_flags: {token: open-sesame, n: open-sesame}\n")
    run = sppe.run(*command, "flow.yaml")
    assert run.stdout.count("${env:TOKEN}") == 2
    assert "sesame" not in run.stdout + run.stderr
