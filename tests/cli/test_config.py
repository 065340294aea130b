"""Settings in ``sewer.toml``, ``pyproject.toml`` and ``SEWER_…`` variables, and ``sppe config``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PRINT_ENVIRONMENT = "import json, os; json.dump(dict(os.environ), open('environment', 'w'))"


@pytest.fixture
def shows(sppe):
    """A task that writes its environment into a file."""
    sppe.tasks(shows=PRINT_ENVIRONMENT)
    return sppe


def environment_of_task(sppe, *options: str, **variables: str) -> dict[str, str]:
    done = sppe.run("run", "--workdir", ".", *options, env=variables)
    assert done.returncode == 0, done.stderr
    return json.loads((sppe.folder / "environment").read_text())


@pytest.mark.parametrize(
    ("file", "text"), [("sewer.toml", "env = {A = '1'}"), ("pyproject.toml", "[tool.sewer]\nenv = {A = '1'}")]
)
def test_settings_of_file_apply(file: str, text: str, shows) -> None:
    shows.write(file, text)

    assert environment_of_task(shows)["A"] == "1"


def test_settings_are_found_above_the_workflow_file(shows) -> None:
    """A file without settings does not end the search."""
    (shows.folder / "flows").mkdir()
    (shows.folder / "flow.py").rename(shows.folder / "flows/other.py")
    shows.write("sewer.toml", "env = {A = '1'}")
    shows.write("flows/pyproject.toml", "[project]\nname = 'x'")

    assert environment_of_task(shows, "-p", "flows/other.py")["A"] == "1"


@pytest.mark.parametrize(
    ("options", "variables", "values"),
    [
        ([], {}, {"A": "file", "B": "file"}),
        ([], {"SEWER_ENV": "A=variable"}, {"A": "variable", "B": "file"}),
        (["--env", "A=option"], {"SEWER_ENV": "A=variable B=variable"}, {"A": "option", "B": "variable"}),
    ],
)
def test_command_line_precedes_variables_and_these_the_file(options, variables, values, shows) -> None:
    shows.write("sewer.toml", "env = {A = 'file', B = 'file'}")

    env = environment_of_task(shows, *options, **variables)

    assert {name: env[name] for name in values} == values


def test_paths_of_file_are_relative_to_it(shows) -> None:
    (shows.folder / "flows").mkdir()
    (shows.folder / "flow.py").rename(shows.folder / "flows/other.py")
    shows.write("sewer.toml", "log_dir = 'my logs'\nconcurrent_tasks = 1")

    done = shows.run("run", "-p", "other.py", "--workdir", "..", cwd=shows.folder / "flows")

    assert done.returncode == 0, done.stderr
    assert (shows.folder / "my logs/shows.log").exists()


BAD = {
    "unknown key": ("pyton = 'x'", "unknown setting 'pyton'; did you mean 'python'?"),
    "type": ("concurrent_tasks = '4'", "concurrent_tasks must be a whole number above 0, got '4'"),
    "color": ("color = true", "color must be 'auto' or 'always' or 'never', got True"),
    "choice": ("run_on = 'cloud'", "run_on must be 'local' or 'slurm', got 'cloud'"),
    "table": ("env = ['A=1']", "env must be a table, got ['A=1']"),
    "syntax": ("python =", "Invalid value (at end of document)"),
}


@pytest.mark.parametrize("command", [["run"], ["config"]], ids=["run", "config"])
@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_invalid_setting_names_file_and_runs_nothing(text: str, message: str, command: list[str], shows) -> None:
    shows.write("sewer.toml", text)

    done = shows.run(*command)

    assert done.returncode == 2
    assert f"sppe: {shows.folder}/sewer.toml: {message}" in done.stderr
    assert not (shows.folder / "environment").exists()


@pytest.mark.parametrize("file", ["sewer.toml", "pyproject.toml"])
@pytest.mark.parametrize("foreign", ["writable by all", "symbolic link", "another owner"])
def test_file_that_another_user_could_have_written_is_ignored(file: str, foreign: str, shows) -> None:
    """Its settings decide which program runs."""
    path = shows.folder / shows.write(file, "[tool.sewer]\nenv = {A = '1'}" if file[0] == "p" else "env = {A = '1'}")
    if foreign == "writable by all":
        path.chmod(0o666)
    elif foreign == "symbolic link":
        path.rename(shows.folder / "elsewhere")
        path.symlink_to("elsewhere")
    elif os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    else:
        pytest.skip("only root can give a file away")

    assert "A" not in environment_of_task(shows)
    assert f"sppe: {path} is ignored: " in shows.run("config").stderr


def test_foreign_project_file_without_settings_is_passed_silently(shows) -> None:
    (shows.folder / shows.write("pyproject.toml", "[project]\nname = 'x'")).chmod(0o666)

    assert shows.run("config").stderr == ""


def test_config_shows_values_and_places(shows) -> None:
    shows.write("sewer.toml", "env = {A = '1', API_TOKEN = 'hunter2'}\nslurm = {mem_gb = 8}\nrun_dir = 'runs'")

    done = shows.run("config", "flow.py", env={"SEWER_RUN_DIR": "/scratch/runs", "SEWER_ENV": "B=2"})

    assert done.returncode == 0, done.stderr
    rows = [re.split(r" {2,}", line) for line in done.stdout.splitlines()]
    file = f"{shows.folder}/sewer.toml"
    for row in (
        ["env", "A=1", file], ["env", "API_TOKEN=***", file], ["env", "B=2", "$SEWER_ENV"], ["slurm", "mem_gb=8", file],
        ["run_dir", "/scratch/runs", "$SEWER_RUN_DIR"], ["python", "python", "default"],
    ):  # fmt: skip
        assert row in rows
    assert "hunter2" not in done.stdout


def test_settings_of_slurm_need_no_slurm(shows) -> None:
    """They are for runs on Slurm; another run does not use them."""
    shows.write("sewer.toml", "slurm = {partition = 'gpu'}\nrun_dir = 'runs'")

    assert shows.run("run").returncode == 0
    assert "requires --on slurm" in shows.run("run", "--slurm", "partition=gpu").stderr
    assert not Path(shows.folder, "runs").exists()


INHERIT = {
    "names": (["--inherit-env", "MINE", "OTHER"], "", {"MINE", "OTHER"}),
    "one": (["--inherit-env", "MINE"], "", {"MINE"}),
    "all": (["--inherit-env"], "", {"MINE", "OTHER"}),
    "all before another option": (["--inherit-env", "-q"], "", {"MINE", "OTHER"}),
    "file": ([], "inherit_env = ['MINE']", {"MINE"}),
    "file, all": ([], "inherit_env = true", {"MINE", "OTHER"}),
    "option over file": (["--inherit-env", "OTHER"], "inherit_env = ['MINE']", {"OTHER"}),
    "none": ([], "", set()),
}


@pytest.mark.parametrize(("options", "text", "passed"), INHERIT.values(), ids=INHERIT)
def test_inherit_env_option_passes_variables(options: list[str], text: str, passed: set[str], shows) -> None:
    shows.write("sewer.toml", text)

    env = environment_of_task(shows, *options, MINE="1", OTHER="2")

    assert {"MINE", "OTHER"} & {*env} == passed


def test_inherit_env_option_leaves_the_file_alone(shows) -> None:
    done = shows.run("--", "run", "--inherit-env", "flow.py", env={"MINE": "1"})

    assert done.returncode == 0, done.stderr
    assert json.loads((shows.folder / "environment").read_text())["MINE"] == "1"


@pytest.mark.parametrize(
    ("options", "variables", "unseen"),
    [
        ([], {"LD_LIBRARY_PATH": "/lib", "http_proxy": "http://p"}, "LD_LIBRARY_PATH, http_proxy"),
        (["--inherit-env", "http_proxy"], {"LD_LIBRARY_PATH": "/lib", "http_proxy": "http://p"}, "LD_LIBRARY_PATH"),
        (["--env", "LD_LIBRARY_PATH=/x"], {"LD_LIBRARY_PATH": "/lib"}, ""),
        (["--inherit-env"], {"LD_LIBRARY_PATH": "/lib"}, ""),
        ([], {"OMP_NUM_THREADS": "2"}, ""),
        (["-q"], {"LD_LIBRARY_PATH": "/lib"}, ""),
    ],
)
def test_run_names_variables_that_tasks_do_not_see(options, variables, unseen, shows) -> None:
    env = {**shows.environment(), "PYTHONPATH": "", **variables}
    program = [os.path.join(os.path.dirname(sys.executable), "sppe"), "run", "flow.py", "--workdir", "."]
    for name in ("PYTHONPATH", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        if name not in variables:
            env.pop(name, None)

    done = subprocess.run([*program, *options], cwd=shows.folder, env=env, capture_output=True, text=True, check=True)

    line = f"sppe: tasks do not see {unseen} of this shell; to pass one: --inherit-env NAME\n"
    assert (line in done.stderr) if unseen else ("do not see" not in done.stderr)


@pytest.mark.parametrize("command", ["run", "explain"])
def test_limits_of_file_are_checked_before_a_run(command: str, shows) -> None:
    shows.write("flow.py", "from airflow_provider_sewer import Task\nTask('a', 'json.tool', resources={'gpu': 2})")
    shows.write("sewer.toml", "limits = {gpu = 1}")

    done = shows.run("--", command, "flow.py")

    assert done.returncode == 2
    assert "task 'a' needs 2 of 'gpu', but the limit is 1" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("flow.py",)], ids=str)
def test_report_finds_run_in_log_dir_of_settings(arguments: tuple[str, ...], shows) -> None:
    shows.write("sewer.toml", "log_dir = 'my logs'")
    environment_of_task(shows)

    done = shows.run("report", "--format", "tsv", *arguments)

    assert "shows\tsucceeded" in done.stdout, done.stderr


def test_invalid_value_of_a_variable_names_the_variable(shows) -> None:
    done = shows.run("run", env={"SEWER_RETRIES": "many"})
    assert done.returncode == 2
    assert "Invalid value for SEWER_RETRIES: 'many'" in done.stderr
