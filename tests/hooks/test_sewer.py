"""The `sewer` connection, as operators and the connection form's test button see it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from urllib.parse import quote

import pytest

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.slurm_settings import DEFAULTS, SlurmSettings
from airflow_provider_sewer.get_provider_info import get_provider_info
from airflow_provider_sewer.hooks.sewer import SewerHook

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def hook(monkeypatch, airflow_home):
    """Make a hook on a connection with these fields in its extra."""

    def make(**fields) -> SewerHook:
        monkeypatch.setenv("AIRFLOW_CONN_S", json.dumps({"conn_type": "sewer", "extra": fields}))
        return SewerHook("s")

    return make


def test_settings_are_read_from_the_connection(hook, tmp_path):
    """Interpreter, directory, environment and inherited names come as they were written."""
    settings = hook(
        python=sys.executable, workdir=str(tmp_path), env={"A": "1", "N": 2}, inherit_env=["LD_LIBRARY_PATH"]
    ).settings
    assert settings.python == sys.executable
    assert settings.workdir == str(tmp_path)
    assert settings.env == {"A": "1", "N": "2"}
    assert settings.inherit_env == ("LD_LIBRARY_PATH",)


def test_secret_env_overrides_env(hook):
    """The form sends the secret environment as text; a file may hold an object."""
    assert hook(env={"K": "open"}, secret_env='{"K": "hidden-value"}').settings.env == {"K": "hidden-value"}
    assert hook(secret_env={"K": "hidden-value"}).settings.env == {"K": "hidden-value"}


def test_secret_env_is_masked_once_read(hook):
    """Each line of a secret with several is a secret, because logs are masked line by line."""
    from airflow.sdk._shared.secrets_masker import redact

    assert hook(secret_env={"KEY": "-----BEGIN-----\nline-of-a-key", "TOKEN": "tok-12345"}).secret_env
    assert redact("a tok-12345 b line-of-a-key c") == "a *** b *** c"


def test_secret_env_is_masked_in_escaped_forms(hook):
    """Airflow itself masks only the value as it is."""
    from airflow.sdk._shared.secrets_masker import redact

    secret = 'q"uo\\te/ö'
    assert hook(secret_env={"PW": secret}).secret_env
    assert redact(f"{json.dumps(secret)} {secret!r} {quote(secret, safe='')}") == "\"***\" '***' ***"


def test_connection_form_ignores_empty_fields(hook):
    """A form that is sent with empty fields is a connection without these fields."""
    settings = hook(python="", workdir=None, env={}, secret_env="", inherit_env=[]).settings
    assert settings == SewerHook("s").settings
    assert settings.python is None
    assert settings.env == {}


def test_connection_form_ignores_blank_fields(hook):
    """The form sends every line of a list, also the empty one after the last name, and pasted text unchanged."""
    made = hook(python=" /opt/python ", inherit_env=["A", " B ", ""], fail_on_pending_reason=[""], run_dir=" ")
    assert (made.settings.python, made.settings.inherit_env) == ("/opt/python", ("A", "B"))
    assert made.slurm_settings == SlurmSettings()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"pythn": "x"}, "unknown field 'pythn'; did you mean 'python'?"),
        ({"env": "{not json"}, "env must be valid JSON (error at character 1)"),
        ({"env": ["A"]}, "env must be a JSON object"),
        ({"env": {"A": ["b"]}}, "the value of 'A'"),
        ({"workdir": "relative/path"}, "'relative/path' is relative"),
        ({"python": "envs/bin/python"}, "'envs/bin/python' is relative"),
        ({"inherit_env": "PATH"}, "inherit_env"),
        ({"pol_interval": 5}, "unknown field 'pol_interval'; did you mean 'poll_interval'?"),
    ],
)
def test_settings_with_invalid_field_raise_naming_the_connection(hook, fields, expected):
    """The error names the connection and the field."""
    with pytest.raises(InvalidTask, match="connection 's'") as raised:
        _ = hook(**fields).settings
    assert expected in str(raised.value)


def test_secret_env_error_does_not_show_values(hook):
    """Text that is no JSON may still be a secret."""
    with pytest.raises(InvalidTask) as raised:
        _ = hook(secret_env="hunter2-is-no-json").settings
    assert "hunter2" not in str(raised.value)


def test_test_connection_starts_the_interpreter(hook):
    """It reports version and path."""
    ok, output = hook(python=sys.executable).test_connection()
    assert ok
    assert output.startswith(f"Python {'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}")


@pytest.fixture
def ran(tmp_path):
    """Return the path of a file that code in the next test leaves if it is run."""
    return tmp_path / "ran"


@pytest.mark.parametrize("name", ["python", "python3.11", "pypy3", "ls"])
def test_test_connection_starts_no_script_of_any_name(hook, tmp_path, ran, name):
    """Only a binary that has the name of one is taken for a Python."""
    script = tmp_path / name
    script.write_text(f'#!/bin/sh\ntouch {ran}\necho \'{{"version": "3.11.0"}}\'\n')
    script.chmod(0o755)
    good, answer = hook(python=str(script)).test_connection()
    assert not good
    assert f"{script} is not a Python binary" in answer
    assert not ran.exists()


def test_test_connection_starts_no_program_by_the_name_of_a_python(hook, tmp_path, ran):
    """A symlink named python is resolved to its target."""
    link = tmp_path / "python3"
    link.symlink_to("/bin/bash")
    good, answer = hook(python=str(link), env={"BASH_ENV": f"{tmp_path}/code"}).test_connection()
    assert not good
    assert "is not a Python binary" in answer


@pytest.mark.parametrize("variable", ["PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "LD_PRELOAD", "LD_LIBRARY_PATH"])
def test_test_connection_gives_the_interpreter_no_variable(hook, tmp_path, ran, variable):
    """Each of them has a Python run other code, or not start at all."""
    (tmp_path / "sitecustomize.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    assert hook(python=sys.executable, env={variable: str(tmp_path)}).test_connection()[0]
    assert not ran.exists()


def test_test_connection_runs_nothing_of_a_virtual_environment(hook, tmp_path, ran):
    """Another user may have made it: the Python that it was made from is started."""
    root = tmp_path / "venv"
    venv.create(root, symlinks=True, with_pip=False)
    (site,) = root.glob("lib/python3*/site-packages")
    (site / "planted.pth").write_text(f"import os; open({str(ran)!r}, 'w').close()\n")
    assert subprocess.run([root / "bin" / "python", "-c", ""], check=True).returncode == 0
    assert ran.exists()
    ran.unlink()
    good, answer = hook(python=str(root / "bin" / "python")).test_connection()
    assert good
    assert f"(environment {root})" in answer
    assert not ran.exists()


def test_test_connection_shows_no_output_of_a_program(hook, tmp_path):
    """A binary that is named python and is not one gets an answer without a word of its own."""
    echo = tmp_path / "python3"
    shutil.copy("/bin/echo", echo)
    good, answer = hook(python=str(echo)).test_connection()
    assert (good, answer) == (False, f"{echo} is not a Python 3 interpreter: it did not report its version")


def test_test_connection_masks_passwords_in_errors(hook):
    """The form may hold it in a field that is shown otherwise."""
    good, answer = hook(job_url="ftp://me:hunter2@jobs/{job_id}").test_connection()
    assert not good
    assert "ftp://me:***@jobs" in answer


def test_connection_uri_parses_json_lists(hook):
    """A URI can hold nothing else."""
    assert hook(inherit_env='["A", "B"]').settings.inherit_env == ("A", "B")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"cluster": "slurn"}, "cluster must be 'auto' or 'slurm' or 'local'"),
        ({"job_url": "https://jobs"}, "{job_id} is missing"),
        ({"python": "/nowhere/python"}, "does not exist"),
        ({"python": "/bin/ls"}, "not a Python"),
        ({"workdir": "/nowhere"}, "/nowhere does not exist"),
        ({"env": "{"}, "env must be valid JSON"),
    ],
)
def test_test_connection_reports_errors(hook, fields, expected):
    """A connection that cannot work is not green."""
    ok, message = hook(**fields).test_connection()
    assert not ok
    assert expected in message


@pytest.fixture
def without_slurm(monkeypatch, tmp_path):
    """Leave a folder on PATH that holds no sbatch, and return it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_slurm_settings_are_read_from_the_connection(hook):
    """A connection can contain every setting; missing ones are ``None``."""
    fields = {
        "slurm": {"partition": "gpu", "mem_gb": 8, "account": None},
        "run_dir": "/shared/runs",
        "cluster": "slurm",
        "deferrable": True,
        "poll_interval": 2,
        "max_poll_interval": 30.5,
        "durable": False,
        "on_kill_action": "keep_job",
        "requeue": True,
        "max_pending_time": 3600,
        "fail_on_pending_reason": ["Licenses"],
        "lost_after": 0,
        "wait_for_completion": False,
    }
    assert hook(**fields).slurm_settings == SlurmSettings(**{**fields, "fail_on_pending_reason": ("Licenses",)})
    assert hook(python="python3").slurm_settings == SlurmSettings()


def test_connection_uri_gives_the_same_settings(monkeypatch, airflow_home):
    """It holds numbers, booleans, lists and objects as text."""
    fields = {"slurm": '{"nodes": 2}', "deferrable": "True", "durable": "false", "poll_interval": "2.5",
              "lost_after": "0", "fail_on_pending_reason": "[]", "run_dir": "/r", "cluster": "local"}  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_S", "sewer://?" + "&".join(f"{k}={quote(v, safe='')}" for k, v in fields.items()))
    assert SewerHook("s").slurm_settings == SlurmSettings(
        {"nodes": 2}, "/r", "local", True, 2.5, None, False, lost_after=0, fail_on_pending_reason=()
    )


def test_connection_form_has_every_slurm_setting():
    """And the form has no field that the hook would call unknown."""
    [connection_type] = get_provider_info()["connection-types"]
    without_slurm = {"python", "workdir", "env", "secret_env", "inherit_env", "job_url"}
    assert set(connection_type["conn-fields"]) == without_slurm.union(SlurmSettings._fields)


def test_sewer_digits_connection_has_every_form_field():
    """Airflow's form for editing shows only those fields that a connection has, if with nothing in them."""
    [connection_type] = get_provider_info()["connection-types"]
    ready = json.loads((ROOT / ".docker" / "connections.json").read_text())["sewer_digits"]
    assert list(ready["extra"]) == list(connection_type["conn-fields"])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"slurm": "{not json"}, "slurm must be valid JSON (error at character 1)"),
        ({"slurm": ["nodes"]}, "slurm must be a JSON object"),
        ({"slurm": {"partiton": "x"}}, "slurm: unknown Slurm parameter 'partiton'; did you mean 'partition'?"),
        ({"run_dir": "runs"}, "'runs' is relative"),
        ({"poll_interval": "soon"}, "poll_interval must be seconds or a timedelta more than 0, got 'soon'"),
        ({"poll_interval": 10**400}, "got 1000"),
        ({"deferrable": "yes"}, "deferrable must be a bool, got 'yes'"),
    ],
)
def test_slurm_settings_with_invalid_field_raise_naming_the_connection(hook, fields, expected):
    """The error names the connection and the field."""
    with pytest.raises(InvalidTask, match=r"^connection 's': ") as raised:
        _ = hook(**fields).slurm_settings
    assert expected in str(raised.value)


def test_run_dir_expands_tilde_on_the_worker(hook, monkeypatch):
    """A tilde is that of the worker."""
    monkeypatch.setenv("HOME", "/home/me")
    assert hook(run_dir="~/runs").slurm_settings.run_dir == "/home/me/runs"


@pytest.mark.parametrize(
    "url", ["https://jobs/{job_id}", "http://jobs?id={job_id}&name={job_name}&user={user}", "https://j/{{x}}/{job_id}"]
)
def test_job_url_accepts_templates_with_job_id(hook, url):
    """Name and user may stand in it; doubled braces are braces."""
    assert hook(job_url=url).job_url == url
    assert hook().job_url is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("jobs/{job_id}", "job_url must be a URL that begins with https:// or http://, got 'jobs/{job_id}'"),
        ("javascript:alert({job_id})", "a URL that begins with https:// or http://"),
        ("https://jobs/\n{job_id}", "a URL that begins with"),
        (5, "a URL that begins with"),
        ("https://jobs", "{job_id} is missing"),
        ("https://jobs/{job_id", "job_url must be a valid template"),
        ("https://jobs/{job}", "unknown field 'job'; did you mean 'job_id'?"),
        ("https://jobs/{job_id.__class__}", "unknown field 'job_id.__class__'"),
        ("https://jobs/{job_id!r}", "Use it without a format."),
        ("https://jobs/{job_id:>99999999}", "Use it without a format."),
        ("https://jobs/{}", "unknown field ''"),
    ],
)
def test_invalid_job_url_raises(hook, url, expected):
    """Otherwise the error would appear only on a click."""
    with pytest.raises(InvalidTask, match=r"^connection 's': job_url") as raised:
        _ = hook(job_url=url).job_url
    assert expected in str(raised.value)


def test_test_connection_reports_the_slurm_backend(hook, without_slurm):
    """With and without an sbatch, and where their files lie."""
    there = f"with job directories in {DEFAULTS.run_dir}"
    assert (
        hook(python=sys.executable)
        .test_connection()[1]
        .endswith(f"; Slurm tasks run on this machine (no sbatch on PATH), {there}")
    )
    sbatch = without_slurm / "sbatch"
    sbatch.touch(mode=0o755)
    assert hook(python=sys.executable).test_connection()[1].endswith(f"; Slurm tasks run by {sbatch}, {there}")
    output = hook(python=sys.executable, cluster="local", run_dir="/r").test_connection()[1]
    assert output.endswith("; Slurm tasks run on this machine, with job directories in /r")


def test_test_connection_requires_sbatch_only_for_cluster_slurm(hook, without_slurm):
    """A laptop's connection is fine without."""
    assert hook(python=sys.executable).test_connection()[0]
    assert hook(python=sys.executable, cluster="slurm").test_connection() == (
        False,
        "cluster='slurm' requires sbatch, which is not on PATH here",
    )
