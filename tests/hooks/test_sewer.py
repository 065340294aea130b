"""The `sewer` connection, as operators and the connection form's test button see it."""

from __future__ import annotations

import json
import sys

import pytest

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.hooks.sewer import SewerHook


@pytest.fixture
def hook(monkeypatch, airflow_home):
    """Make a hook on a connection with these fields in its extra."""

    def make(**fields) -> SewerHook:
        monkeypatch.setenv("AIRFLOW_CONN_S", json.dumps({"conn_type": "sewer", "extra": fields}))
        return SewerHook("s")

    return make


def test_it_reads_where_modules_run(hook, tmp_path):
    """Interpreter, directory, environment and inherited names come as they were written."""
    settings = hook(
        python=sys.executable, workdir=str(tmp_path), env={"A": "1", "N": 2}, inherit_env=["LD_LIBRARY_PATH"]
    ).settings
    assert settings.python == sys.executable
    assert settings.workdir == str(tmp_path)
    assert settings.env == {"A": "1", "N": "2"}
    assert settings.inherit_env == ("LD_LIBRARY_PATH",)


def test_secret_variables_are_given_like_the_others_and_win(hook):
    """The form sends the secret environment as text; a file may hold an object."""
    assert hook(env={"K": "open"}, secret_env='{"K": "hidden-value"}').settings.env == {"K": "hidden-value"}
    assert hook(secret_env={"K": "hidden-value"}).settings.env == {"K": "hidden-value"}


def test_every_secret_value_is_masked_from_then_on(hook):
    """Each line of a secret with several is a secret, because logs are masked line by line."""
    from airflow.sdk._shared.secrets_masker import redact

    assert hook(secret_env={"KEY": "-----BEGIN-----\nline-of-a-key", "TOKEN": "tok-12345"}).secret_env
    assert redact("a tok-12345 b line-of-a-key c") == "a *** b *** c"


def test_empty_fields_of_the_form_say_nothing(hook):
    """A form that is sent with empty fields is a connection without these fields."""
    settings = hook(python="", workdir=None, env={}, secret_env="", inherit_env=[]).settings
    assert settings == SewerHook("s").settings
    assert settings.python is None
    assert settings.env == {}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pythn": "x"}, "unknown field 'pythn'; did you mean 'python'?"),
        ({"env": "{not json"}, "env: no JSON (at character 1)"),
        ({"env": ["A"]}, "env: a JSON object"),
        ({"env": {"A": ["b"]}}, "the value of 'A'"),
        ({"workdir": "relative/path"}, "'relative/path' is relative"),
        ({"python": "envs/bin/python"}, "'envs/bin/python' is relative"),
        ({"inherit_env": "PATH"}, "inherit_env"),
    ],
)
def test_a_field_that_cannot_be_used_is_named_with_its_connection(hook, fields, said):
    """The error says which connection and which field."""
    with pytest.raises(InvalidTask, match="connection 's'") as raised:
        _ = hook(**fields).settings
    assert said in str(raised.value)


def test_an_error_about_secrets_does_not_show_them(hook):
    """Text that is no JSON may still be a secret."""
    with pytest.raises(InvalidTask) as raised:
        _ = hook(secret_env="hunter2-is-no-json").settings
    assert "hunter2" not in str(raised.value)


def test_the_test_button_starts_the_interpreter(hook):
    """It reports version and path."""
    ok, said = hook(python=sys.executable).test_connection()
    assert ok
    assert said.startswith(f"Python {'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}")


def test_the_test_button_gives_the_interpreter_what_a_run_gives_it(hook, tmp_path):
    """An interpreter that needs a variable of the connection is a good one."""
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\n[ -n "$LICENCE" ] || exit 3\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    assert hook(python=str(wrapper), env={"LICENCE": "x"}).test_connection()[0]
    assert not hook(python=str(wrapper) + "x", env={}).test_connection()[0]


def test_a_list_in_a_connection_written_as_a_uri_is_text(hook):
    """A URI can hold nothing else."""
    assert hook(inherit_env='["A", "B"]').settings.inherit_env == ("A", "B")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"python": "/nowhere/python"}, "does not exist"),
        ({"python": "/bin/ls"}, "no Python"),
        ({"workdir": "/nowhere"}, "/nowhere does not exist"),
        ({"env": "{"}, "no JSON"),
    ],
)
def test_the_test_button_says_what_is_wrong(hook, fields, said):
    """A connection that cannot work is not green."""
    ok, message = hook(**fields).test_connection()
    assert not ok
    assert said in message
