"""A command is an argv list, and can be shown without giving secrets away."""

from __future__ import annotations

import shlex
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_sewer.core.call import CALLER_FILE, Call, function_call, module_call
from airflow_provider_sewer.core.command import interpreter_command, shown, shown_call


def test_interpreter_command_runs_module_unbuffered():
    """Its output can be followed line by line."""
    command = interpreter_command("/env/python", module_call("pkg.mod", ["--n", "1"]), {"A": "b"}, "/data")

    assert command == (("/env/python", "-u", "-m", "pkg.mod", "--n", "1"), {"A": "b"}, "/data", None, None)


def test_interpreter_command_buffers_stdout_in_file():
    """Unbuffered, Python would drop data without an error where the disk is full."""
    call = module_call("pkg.mod", [])._replace(stdout="out.csv")

    command = interpreter_command("/env/python", call, {}, "/data")

    assert command == (("/env/python", "-m", "pkg.mod"), {}, "/data", None, "out.csv")


def test_shown_call_redirects_in_shell(tmp_path):
    """A shell reads and writes the same files, also with signs of a shell in their names."""
    (tmp_path / "in $x\n'").write_text("a\n")
    call = Call("m", ("-c", "import sys; print(sys.stdin.read().upper())"), stdin="in $x\n'", stdout="&1 > é\n")

    subprocess.run(["sh", "-c", shown_call([sys.executable], call)], cwd=tmp_path, check=True)

    assert (tmp_path / "&1 > é\n").read_text() == "A\n\n"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda word: "token" not in word)))
def test_shown_quotes_for_shell(words):
    """A shell takes it apart into the same words."""
    argv = ["python", "-m", "mod", *words]

    assert shlex.split(shown(argv)) == argv


def test_shell_reads_shown_command_back():
    """Dollar signs, quotes and line breaks mean nothing to it."""
    argv = [sys.executable, "-I", "-c", "import sys; print(sys.argv[1:])", "$HOME", "a'b", '"', "x\ny", "*"]

    printed = subprocess.run(["sh", "-c", shown(argv)], capture_output=True, text=True, check=True).stdout

    assert printed == f"{argv[4:]}\n"


def test_shown_names_file_of_caller():
    """A reader looks for the name of the function."""
    argv = ["python", *function_call("pkg.mod:func", {"n": 3}).argv]

    assert shown(argv) == f"""python {CALLER_FILE} pkg.mod:func '{{"n": 3}}'"""


def test_shown_shortens_long_kwargs():
    """A log is no place for a result of megabytes; secrets stay masked."""
    argv = ["python", *function_call("pkg.mod:func", {"password": "hunter2", "text": "it's " * 100_000}).argv]

    line = shown(argv)

    assert line.startswith(f"""python {CALLER_FILE} pkg.mod:func '{{"password": "***", "text": "it'""")
    assert line.endswith("'…")
    assert len(line) < 5_000


def test_shown_masks_values_of_secret_options():
    """With a space or with "=": the value of a password is not shown."""
    argv = ["--user", "me", "--db-password", "hunter2", "--api-key=abc", "--token", "-t0ken", "--verbose"]

    assert shown(argv) == "--user me --db-password *** '--api-key=***' --token *** --verbose"


def test_shown_masks_known_secrets_anywhere():
    """A secret value inside another argument is masked as well; an empty one masks nothing."""
    assert shown(["--url", "https://me:s3cret@host"], ["s3cret", ""]) == "--url 'https://me:***@host'"


def test_shown_masks_secrets_in_json():
    """A mapping is passed as JSON, and may hold a password."""
    assert shown(["--db", '{"user": "me", "password": "hunter2"}']) == """--db '{"user": "me", "password": "***"}'"""


def test_shown_masks_overlapping_secrets_completely():
    """The longer one is masked first."""
    assert shown(["abcdef"], ["abc", "abcdef"]) == "***"
