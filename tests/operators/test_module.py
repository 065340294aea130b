"""PythonModuleOperator, run by a real Airflow: each test is a DAG with a module written for it."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import sys
import threading
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from airflow.sdk import DAG, task

from airflow_provider_sewer.core.errors import InvalidTask, ModuleTerminated
from airflow_provider_sewer.operators.assets import product_asset
from airflow_provider_sewer.operators.module import PythonModuleOperator
from airflow_provider_sewer.operators.paths import ExternalPathSensor, RemoveProductsOperator

CONNECTION = "AIRFLOW_CONN_SEWER_TEST"


@pytest.fixture
def run_operator(run_dag):
    """Run one operator as the only task of a DAG."""

    def run(**arguments):
        with DAG("one_task", schedule=None) as dag:
            PythonModuleOperator(task_id="job", **arguments)
        return run_dag(dag)

    return run


def test_result_file_becomes_the_xcom(module, run_operator):
    """The JSON value in $SEWER_RESULT_FILE is the XCom that downstream tasks pull."""
    job = module("""
        import json, os
        print("not this")
        with open(os.environ["SEWER_RESULT_FILE"], "w") as file:
            json.dump({"accuracy": 0.97, "labels": ["a", None]}, file)
    """)
    assert run_operator(**job).results["job"] == {"accuracy": 0.97, "labels": ["a", None]}


def test_xcom_without_result_file_is_the_last_stdout_line(module, run_operator):
    """As with BashOperator, the last line of stdout is the result; stderr is ignored."""
    job = module("""
        import sys
        print("first")
        print("last [of] all")
        print("noise", file=sys.stderr)
    """)
    assert run_operator(**job).results["job"] == "last [of] all"


def test_xcom_of_module_without_output_is_missing(module, run_operator):
    """No output, no result."""
    result = run_operator(**module("pass"))
    assert result.state == "success"
    assert result.results == {}


def test_template_fields_are_rendered(module, run_dag, tmp_path):
    """Module, parameters, arguments, interpreter, environment and working directory take templates."""
    job = module("import os, sys; print(sys.argv[1:], os.environ['WHEN'], os.getcwd())")
    (tmp_path / "one_task").mkdir()
    with DAG("one_task", schedule=None, params={"n": 3}) as dag:
        PythonModuleOperator(
            task_id="job",
            module="{{ task.task_id }}",
            parameters_and_flags={"n": "{{ params.n }}", "nested": ["{{ dag.dag_id }}"], "verbose": True},
            args=["{{ task.task_id }}!"],
            python="{{ '" + sys.executable + "' }}",
            env={**job["env"], "WHEN": "{{ run_id[:6] }}"},
            workdir=f"{tmp_path}/{{{{ dag.dag_id }}}}",
        )
    arguments = ["job!", "--n", "3", "--nested", "one_task", "--verbose"]
    assert run_dag(dag).results["job"] == f"{arguments} manual {tmp_path}/one_task"


def test_xcom_parameter_is_resolved_and_sets_upstream(module, run_dag):
    """The result of a TaskFlow task stands in parameters_and_flags like any other value."""
    job = module("import sys; print(*sys.argv[1:])")

    @task
    def seed():
        return 42

    with DAG("xcom", schedule=None) as dag:
        PythonModuleOperator(task_id="job", parameters_and_flags={"seed": seed(), "n": 1}, **job)
    assert dag.get_task("job").upstream_task_ids == {"seed"}
    assert run_dag(dag).results["job"] == "--seed 42 --n 1"


def test_parameters_and_flags_can_be_a_single_xcom(module, run_dag):
    """A task upstream can decide the whole dictionary."""
    job = module("import sys; print(*sys.argv[1:])")

    @task
    def decide():
        return {"depth": 3, "fast": True}

    with DAG("xcom_dict", schedule=None) as dag:
        PythonModuleOperator(task_id="job", parameters_and_flags=decide(), **job)
    assert run_dag(dag).results["job"] == "--depth 3 --fast"


def test_operator_expand_runs_one_module_per_instance(module, run_dag):
    """partial().expand() runs the module once for each set of parameters."""
    job = module("import sys; print(*sys.argv[1:])")
    with DAG("mapped", schedule=None) as dag:
        PythonModuleOperator.partial(task_id="job", **job).expand(parameters_and_flags=[{"n": 10}, {"n": 20}])
    assert run_dag(dag).results == {"job[0]": "--n 10", "job[1]": "--n 20"}


@pytest.mark.parametrize("field", ["args", "products", "dependencies", "stale_after"])
def test_python_module_operator_with_endless_iterator_raises(field):
    """As of a task in a workflow file; without a bound, the DAG processor would run out of memory."""
    with pytest.raises(InvalidTask, match=f"^{field} must have at most 100,000 values, got more"):
        PythonModuleOperator(task_id="job", module="job", **{field: itertools.repeat("x")})


def test_remove_products_operator_with_endless_iterator_raises():
    with pytest.raises(InvalidTask, match=r"^products must have at most 100,000 values, got more"):
        RemoveProductsOperator(task_id="job", products=itertools.repeat("x"))


def test_args_from_a_generator_are_not_consumed_by_parsing(module, run_operator):
    """Looking at them while the DAG is parsed does not use them up."""
    job = module("import sys; print(*sys.argv[1:])")
    assert run_operator(args=(str(number) for number in range(3)), **job).results["job"] == "0 1 2"


@pytest.mark.parametrize("field", ["args", "parameters_and_flags", "env"])
def test_template_rendering_to_text_fails_for_list_fields(field, module, run_dag, capsys):
    """A template that gives text is not a list of letters."""
    job = module("print('it ran')") | {field: "{{ 'fit' }}"}
    with DAG("text", schedule=None) as dag:
        PythonModuleOperator(task_id="job", retries=3, retry_delay=timedelta(0), **job)
    assert run_dag(dag).states["job"] == "failed"
    output = capsys.readouterr().out
    assert f"{field}: " in output or f"{field} must " in output
    assert "it ran" not in output


def test_native_template_can_render_to_all_parameters(module, run_dag):
    """With native rendering, a parameter of the DAG can be all the parameters."""
    job = module("import sys; print(*sys.argv[1:])")
    with DAG("native", schedule=None, params={"p": {"n": 3}}, render_template_as_native_obj=True) as dag:
        PythonModuleOperator(task_id="job", parameters_and_flags="{{ params.p }}", **job)
    assert run_dag(dag).results["job"] == "--n 3"


def test_xcoms_of_mapped_task_repeat_the_option(module, run_dag):
    """Fan out, then hand all results to one task."""
    job = module("import sys; print(*sys.argv[1:])")
    with DAG("fan_in", schedule=None) as dag:
        each = PythonModuleOperator.partial(task_id="each", **job).expand(parameters_and_flags=[{"n": 1}, {"n": 2}])
        PythonModuleOperator(task_id="all", parameters_and_flags={"got": each.output}, **job)
    assert run_dag(dag).results["all"] == "--got --n 1 --got --n 2"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2**70", "Airflow cannot store its result"),
        ("{'__classname__': 'x'}", "Airflow cannot store its result"),
        ("[{'deep': " * 60 + "1" + "}]" * 60, "it is nested too deeply; lists and objects can be nested 100 times"),
    ],
    ids=["number", "key", "deep"],
)
def test_result_invalid_as_xcom_fails_with_the_reason(value, expected, module, run_operator, capsys):
    """Airflow's own error would come later and without the reason."""
    job = module(f"import json, os; json.dump({value}, open(os.environ['SEWER_RESULT_FILE'], 'w'))")
    assert run_operator(**job).states["job"] == "failed"
    assert expected in capsys.readouterr().out


def test_result_with_nul_fails_and_names_its_position(module, run_operator, capsys):
    """PostgreSQL would refuse it, and only there."""
    job = module("import json, os; json.dump(['b\\0'], open(os.environ['SEWER_RESULT_FILE'], 'w'))")
    assert run_operator(**job).states["job"] == "failed"
    assert "its result cannot be stored: result[0] contains a NUL character" in capsys.readouterr().out


def test_secret_across_a_split_log_line_is_masked(module, run_operator, monkeypatch, caplog):
    """A line comes in pieces of 64 KiB; a secret that lies across the cut is still one."""
    secret = "open-sesame-4711"
    extra = {"secret_env": json.dumps({"KEY": secret})}
    monkeypatch.setenv(CONNECTION, json.dumps({"conn_type": "sewer", "extra": extra}))
    job = module("import os; print('x' * (64 * 1024 - 6) + os.environ['KEY'] + '!')")
    with caplog.at_level(logging.INFO):
        run_operator(sewer_conn_id="sewer_test", **job)
    logged = "".join(r.getMessage() for r in caplog.records if r.name == "airflow.task.module.stdout")
    assert logged == "x" * (64 * 1024 - 6) + "***!"


def test_failing_module_fails_the_task_and_logs_stderr(module, run_operator, capsys):
    """Exit code, command and the last lines of stderr are in the log."""
    job = module("""
        import sys
        print("epoch 1", flush=True)
        sys.exit("no such [file]: data.npz")
    """)
    assert run_operator(parameters_and_flags={"token": "tell-nobody"}, **job).states["job"] == "failed"
    output = capsys.readouterr().out
    assert "failed with exit code 1" in output
    assert "no such [file]: data.npz" in output
    assert "-m job --token ***" in output
    assert "--token tell-nobody" not in output


def test_skip_on_exit_code_skips_the_task(module, run_operator):
    """With skip_on_exit_code the task is skipped, not failed."""
    assert run_operator(skip_on_exit_code=[3, 99], **module("raise SystemExit(99)")).states["job"] == "skipped"


def test_skip_on_exit_code_does_not_skip_other_exit_codes(module, run_operator):
    """skip_on_exit_code is about the named codes only."""
    assert run_operator(skip_on_exit_code=99, **module("raise SystemExit(98)")).states["job"] == "failed"


def test_output_lines_are_logged_once_in_order_per_stream(module, run_operator, caplog):
    """stdout and stderr have loggers of their own; brackets, percent signs and odd bytes survive."""
    job = module(r"""
        import os
        for number in range(500):
            os.write(1, b"out [bold]%d %s\n" % (number, b"\xff"))
            os.write(2, b"err 100%% %d\n" % number)
        os.write(1, b"no newline")
    """)
    with caplog.at_level(logging.INFO):
        run_operator(**job)

    def logged(stream: str) -> list[str]:
        return [r.getMessage() for r in caplog.records if r.name == f"airflow.task.module.{stream}"]

    assert logged("stdout") == [*(rf"out [bold]{n} \xff" for n in range(500)), "no newline"]
    assert logged("stderr") == [f"err 100% {n}" for n in range(500)]


def test_module_environment_excludes_variables_of_the_worker(module, run_operator, monkeypatch):
    """Nothing of Airflow, of the worker's Slurm job or of the worker's secrets gets through."""
    for name in ("SLURM_JOB_ID", "AWS_SECRET_ACCESS_KEY", "AIRFLOW_CONN_PRODUCTION", "PYTHONSTARTUP"):
        monkeypatch.setenv(name, "leak")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    job = module("import json, os; print(json.dumps(dict(os.environ)))")
    seen = json.loads(run_operator(**job).results["job"])
    assert "leak" not in seen.values()
    assert not [name for name in seen if "AIRFLOW" in name]
    assert seen["TZ"] == "Europe/Berlin"


def test_inherit_env_passes_named_variables(module, run_operator, monkeypatch):
    """A named variable passes, even one of Airflow's."""
    monkeypatch.setenv("AIRFLOW_CTX_OF_MINE", "wanted")
    job = module("import os; print(os.environ.get('AIRFLOW_CTX_OF_MINE'))")
    assert run_operator(inherit_env=["AIRFLOW_CTX_OF_MINE"], **job).results["job"] == "wanted"


def test_connection_provides_defaults_of_task_fields(module, run_operator, monkeypatch, tmp_path):
    """The task's own field wins; environments are merged; the secret ones come along."""
    job = module("import os; print(os.environ['A'], os.environ['B'], os.environ['KEY'], os.getcwd())")
    extra = {
        "python": sys.executable,
        "workdir": str(tmp_path),
        "env": {"A": "connection", "B": "connection"},
        "secret_env": json.dumps({"KEY": "open-sesame"}),
    }
    monkeypatch.setenv(CONNECTION, json.dumps({"conn_type": "sewer", "extra": extra}))
    result = run_operator(module="job", env={**job["env"], "A": "task"}, sewer_conn_id="sewer_test")
    assert result.results["job"].startswith("task connection")
    assert result.results["job"].endswith(str(tmp_path))


def test_relative_python_and_workdir_start_at_the_dag_file(module, run_operator):
    """A DAG can be moved together with the files next to it."""
    job = module("import os; print(os.getcwd())")
    assert run_operator(workdir="../operators", **job).results["job"] == str(Path(__file__).parent)


def test_relative_paths_start_at_the_file_that_creates_the_dag(module, run_dag):
    """Airflow calls the DAG by the file it has parsed, even if a helper beside the workflow file made it."""
    job = module("import os; print(os.getcwd())")
    with DAG("helped", schedule=None) as dag:
        PythonModuleOperator(task_id="job", workdir=".", **job)
    dag.fileloc = "/somewhere/else.py"
    assert run_dag(dag).results["job"] == str(Path(__file__).parent)


def test_missing_interpreter_fails_and_is_named(module, run_operator, capsys):
    """The error contains the path and the fix."""
    job = module("print('it ran')") | {"python": "/nowhere/bin/python"}
    assert run_operator(**job).states["job"] == "failed"
    output = capsys.readouterr().out
    assert "/nowhere/bin/python does not exist" in output
    assert "it ran" not in output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"module": "train.py"}, "got 'train.py'"),
        ({"parameters_and_flags": {"x": object()}}, "parameter 'x'"),
        ({"parameters_and_flags": {1: 2}}, "parameter 1"),
        ({"parameters_and_flags": {"x": "a\0b"}}, "NUL"),
        ({"env": {"A=B": "c"}}, "'A=B'"),
        ({"inherit_env": "PATH"}, "inherit_env"),
        ({"workdir": 7}, "workdir"),
        ({"args": "fit"}, "args must be a list, got 'fit'"),
        ({"parameters_and_flags": ["x"]}, "parameters_and_flags must be a mapping, got list"),
        ({"termination_grace_period": "2"}, "termination_grace_period"),
        ({"termination_grace_period": None}, "termination_grace_period"),
        ({"termination_grace_period": -1}, "termination_grace_period"),
        ({"termination_grace_period": float("nan")}, "termination_grace_period"),
        ({"skip_on_exit_code": "99"}, "skip_on_exit_code"),
        ({"skip_on_exit_code": [3.5]}, "skip_on_exit_code"),
    ],
)
def test_invalid_arguments_raise_at_parse_time(arguments, expected):
    """Invalid input fails before a worker starts."""
    with pytest.raises(InvalidTask, match="task 'job': ") as raised:
        PythonModuleOperator(task_id="job", **{"module": "job", **arguments})
    assert expected in str(raised.value)


def test_invalid_rendered_value_fails_without_retry(module, run_dag):
    """A retry would get the same invalid value."""
    job = module("pass") | {"module": "{{ 'not a module' }}"}
    with DAG("late", schedule=None) as dag:
        PythonModuleOperator(task_id="job", retries=3, retry_delay=timedelta(0), **job)
    assert run_dag(dag).states["job"] == "failed"


def test_execution_timeout_terminates_the_process_tree(module, run_operator, tmp_path):
    """A grandchild in a session of its own does not survive the task."""
    job = module("""
        import os, subprocess, sys, time
        sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
        child = subprocess.Popen(sleeper, start_new_session=True)
        with open(os.environ["PIDS"], "w") as file:
            file.write(f"{os.getpid()} {child.pid}")
        time.sleep(600)
    """)
    pids = tmp_path / "pids"
    job["env"]["PIDS"] = str(pids)
    result = run_operator(execution_timeout=timedelta(seconds=3), termination_grace_period=timedelta(seconds=1), **job)
    assert result.states["job"] == "failed"
    started = [int(pid) for pid in pids.read_text().split()]
    assert len(started) == 2
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in started if psutil.pid_exists(pid)], timeout=30)
    assert not alive


def test_on_kill_terminates_the_module_and_raises_module_terminated(module, tmp_path):
    """A module that exits with 0 after a stop request has not succeeded."""
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    job = module("""
        import os, signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        open(os.environ["READY"], "w").close()
        time.sleep(600)
    """)
    job["env"]["READY"] = str(ready)
    with DAG("one_task", schedule=None) as dag:
        operator = PythonModuleOperator(task_id="job", **job)

    def kill_when_ready() -> None:
        ready.open().close()
        operator.on_kill()

    killer = threading.Thread(target=kill_when_ready)
    killer.start()
    try:
        with pytest.raises(ModuleTerminated, match="was stopped on request"):
            operator.execute({"dag": dag, "ti": SimpleNamespace(map_index=-1)})
    finally:
        killer.join()


LONG_NAME, LONG_PATH = "x" * 300, "/".join(["y" * 100] * 60)


@pytest.mark.parametrize("path", [LONG_NAME, LONG_PATH, f"/{LONG_PATH}", "", "."])
@pytest.mark.parametrize("field", ["products", "dependencies", "path", "removed"])
def test_invalid_path_raises_at_parse_time(field, path):
    """With the field, and no more of the value than helps."""
    with DAG("long_path", schedule=None), pytest.raises(InvalidTask) as raised:
        if field == "path":
            ExternalPathSensor(task_id="job", path=path)
        elif field == "removed":
            RemoveProductsOperator(task_id="job", products=[path])
        else:
            PythonModuleOperator(task_id="job", module="m", **{field: [path]})
    assert {"removed": "products"}.get(field, field) + " must " in str(raised.value)
    assert len(str(raised.value)) < 400


def test_too_long_asset_name_raises_and_names_the_product():
    """Airflow's own error contains neither the task nor the product nor a fix."""
    path = "/" + LONG_PATH[:1600]
    with DAG("long_asset", schedule=None), pytest.raises(InvalidTask) as raised:
        PythonModuleOperator(task_id="job", module="m", products=[path])
    assert re.match(
        r"task 'job': product '/y+.*' must have an asset name of at most 1,500 characters", str(raised.value)
    )
    with pytest.raises(InvalidTask, match=r"product_asset: product .* use a shorter path"):
        product_asset(path)
