"""A command is an argv list, and can be shown without giving secrets away."""

from __future__ import annotations

import shlex
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_sewer.core.call import function_call, module_call
from airflow_provider_sewer.core.command import interpreter_command, shown


def test_a_module_is_run_unbuffered_with_dash_m():
    """Its output can be followed line by line."""
    command = interpreter_command("/env/python", module_call("pkg.mod", ["--n", "1"]).argv, {"A": "b"}, "/data")

    assert command == (("/env/python", "-u", "-m", "pkg.mod", "--n", "1"), {"A": "b"}, "/data")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda word: "token" not in word)))
def test_a_shown_command_can_be_pasted(words):
    """A shell takes it apart into the same words."""
    argv = ["python", "-m", "mod", *words]

    assert shlex.split(shown(argv)) == argv


def test_a_real_shell_reads_a_shown_command_as_it_was():
    """Dollar signs, quotes and line breaks mean nothing to it."""
    argv = [sys.executable, "-I", "-c", "import sys; print(sys.argv[1:])", "$HOME", "a'b", '"', "x\ny", "*"]

    said = subprocess.run(["sh", "-c", shown(argv)], capture_output=True, text=True, check=True).stdout

    assert said == f"{argv[4:]}\n"


def test_a_function_is_shown_without_the_lines_that_call_it():
    """What it is called with is what people look for."""
    argv = ["python", *function_call("pkg.mod:func", {"n": 3}).argv]

    assert shown(argv) == """python -c … pkg.mod:func '{"n": 3}'"""


def test_long_arguments_of_a_function_are_shown_in_part():
    """A log is no place for a result of megabytes; what is secret stays masked."""
    argv = ["python", *function_call("pkg.mod:func", {"password": "hunter2", "text": "it's " * 100_000}).argv]

    line = shown(argv)

    assert line.startswith("""python -c … pkg.mod:func '{"password": "***", "text": "it'""")
    assert line.endswith("'…")
    assert len(line) < 5_000


def test_the_values_of_secret_options_are_masked():
    """With a space or with "=": the value of a password is not shown."""
    argv = ["--user", "me", "--db-password", "hunter2", "--api-key=abc", "--token", "-t0ken", "--verbose"]

    assert shown(argv) == "--user me --db-password *** '--api-key=***' --token *** --verbose"


def test_known_secrets_are_masked_wherever_they_stand():
    """A secret value inside another argument is masked as well; an empty one masks nothing."""
    assert shown(["--url", "https://me:s3cret@host"], ["s3cret", ""]) == "--url 'https://me:***@host'"


def test_secrets_inside_json_are_masked():
    """A mapping is passed as JSON, and may hold a password."""
    assert shown(["--db", '{"user": "me", "password": "hunter2"}']) == """--db '{"user": "me", "password": "***"}'"""


def test_a_secret_that_is_part_of_another_leaves_nothing_of_it():
    """The longer one is masked first."""
    assert shown(["abcdef"], ["abc", "abcdef"]) == "***"
