"""`.dev/environments.py`: makes environments once, with pip's configuration, and names missing parts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".dev"))

import environments  # noqa: E402

sys.path.remove(str(ROOT / ".dev"))

PROJECT = """
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "airflow-provider-sewer"
dynamic = ["version"]
{more}
[tool.hatch.version]
path = "airflow_provider_sewer/__init__.py"
"""
BASE = Path(sys.base_prefix, "bin", f"python{sysconfig.get_python_version()}")


@pytest.fixture
def checkout(tmp_path):
    """Return a checkout of a package without dependencies, which is quickly installed."""
    shutil.copytree(ROOT / ".dev", tmp_path / ".dev", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pyproject.toml").write_text(PROJECT.format(more=""))
    (tmp_path / "airflow_provider_sewer").mkdir()
    (tmp_path / "airflow_provider_sewer" / "__init__.py").write_text('__version__ = "1.0"\n')
    return tmp_path


def start(checkout, *arguments, python=BASE, **environment):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    tool = [python, checkout / ".dev" / "environments.py", *arguments]
    return subprocess.Popen(
        tool, env={**os.environ, "PIP_RETRIES": "0", "UV_HTTP_RETRIES": "0", **environment}, **pipes
    )


def call(checkout, *arguments, **options):
    process = start(checkout, *arguments, **options)
    stdout, stderr = process.communicate()
    return process.returncode, stdout, stderr


@pytest.mark.slow
def test_environments_concurrent_calls_install_once_and_later_calls_end_at_once(checkout):
    both = [start(checkout, "airflow") for _ in range(2)]
    printed = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert sorted("airflow: making build/venv/airflow" in stdout for stdout, _ in printed) == [False, True]
    python = checkout / "build/venv/airflow/bin/python"
    found = [python, "-Ic", "import airflow_provider_sewer as package; print(package.__file__)"]
    assert subprocess.check_output(found, text=True).strip() == f"{checkout}/airflow_provider_sewer/__init__.py"
    assert call(checkout, "airflow") == (0, "", "")

    # A project that cannot be resolved leaves no environment that counts as made.
    (checkout / "pyproject.toml").write_text(PROJECT.format(more='dependencies = ["airflow-provider-sewer==0"]'))
    code, _, stderr = call(checkout, "airflow")
    assert (code, stderr) == (1, "\nuv failed; its output is above.\n")
    assert call(checkout, "airflow")[0] == 1

    # An index out of reach, now that uv is installed.
    code, stdout, stderr = call(checkout, "depio", PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_NO_CACHE_DIR="1")
    assert code == 1
    assert "http://127.0.0.1:9/simple" in stdout
    assert stderr.startswith("\nNo network: the package index cannot be reached.")


@pytest.mark.slow
def test_environments_unreachable_index_is_named_when_uv_is_installed(checkout):
    code, _, stderr = call(checkout, "airflow", PIP_CONFIG_FILE=os.devnull, PIP_INDEX_URL="http://127.0.0.1:9/simple")
    assert code == 1
    assert stderr.startswith("\nNo network: the package index cannot be reached.")
    assert not (checkout / "build/venv/uv" / environments.STAMP).exists()


def test_environments_python_without_venv_names_the_debian_package(checkout, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}/shadowed exec {BASE} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "shadowed").mkdir()
    (tmp_path / "shadowed" / "venv.py").write_text("raise ModuleNotFoundError(\"No module named 'venv'\")\n")
    code = f"import sys, runpy; sys.argv[1:] = ['airflow']; sys.executable = {str(python)!r}; "
    tool = [BASE, "-c", f"{code}runpy.run_path('{checkout}/.dev/environments.py', run_name='__main__')"]
    done = subprocess.run(tool, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("no module venv, or no ensurepip. On Debian: apt-get install python3-venv\n")


def test_environments_unsupported_python_is_named(checkout, any_python):
    version = subprocess.check_output([any_python, "-c", "import sys; print(*sys.version_info[:2])"], text=True)
    if tuple(map(int, version.split())) >= environments.OLDEST:
        return
    code, _, stderr = call(checkout, "airflow", python=any_python, PATH=os.devnull)
    assert code == 1
    assert f"Python 3.11 to 3.14 is needed; {any_python} is 3." in stderr


def test_environments_unknown_name_prints_usage(checkout):
    code, _, stderr = call(checkout, "air")
    assert (code, stderr) == (
        2,
        "usage: environments.py " + "|".join(environments.ENVIRONMENTS) + "|peers|constraints ...\n",
    )


def test_pip_configuration_becomes_variables_of_uv(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    # The [global] of the machine's own pip.conf overrides the one of PIP_CONFIG_FILE. Nothing overrides [install].
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = http://user:secret@127.0.0.1/simple\n"
        "[install]\nindex-url = http://127.0.0.1/install\nextra-index-url =\n  file:///a\n  file:///b\n"
        "trusted-host = one two\ncert = /with a blank\nproxy = http://127.0.0.1:1\nfind-links = /wheels /more\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_TIMEOUT", "7")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_INSECURE_HOST", "three")
    configured = environments.pip_configuration(sys.executable)
    assert configured["no-index"] == "1"
    assert (
        environments.uv_variables(configured).items()
        >= {
            "UV_DEFAULT_INDEX": "http://127.0.0.1/install",
            "UV_INDEX": "file:///a file:///b",
            "UV_FIND_LINKS": "/wheels,/more",
            "UV_INSECURE_HOST": "three",
            "SSL_CERT_FILE": "/with a blank",
            "HTTPS_PROXY": "http://127.0.0.1:1",
            "HTTP_PROXY": "http://127.0.0.1:1",
            "UV_HTTP_TIMEOUT": "7",
            "UV_PYTHON_DOWNLOADS": "never",
        }.items()
    )
