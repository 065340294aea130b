"""SlurmModuleOperator, run by a real Airflow on a real cluster: the worker waits, or the triggerer does."""

from __future__ import annotations

import logging
import subprocess
import sys
import venv

import pytest
from airflow.sdk import DAG, task

from airflow_provider_sewer.operators.slurm import SlurmModuleOperator
from airflow_provider_sewer.slurm.job_runner import JobRunner

PRINTS_ARGUMENTS = "import sys; print(*sys.argv[1:])"
# Waits until the script has taken a sample.
IS_MEASURED = """
import os, time
while not os.path.exists(os.environ["SEWER_RESULT_FILE"].replace("result.json", "usage.txt")): time.sleep(0.05)
"""


def test_result_file_becomes_the_xcom(module, on_slurm, run_job, deferrable, xcom):
    """The JSON value in $SEWER_RESULT_FILE on the node becomes the XCom, next to the job id."""
    job = module("""
        import json, os
        print("not this")
        with open(os.environ["SEWER_RESULT_FILE"], "w") as file:
            json.dump({"accuracy": 0.97, "job": os.environ["SLURM_JOB_ID"]}, file)
    """)
    result = run_job(deferrable=deferrable, **job).results["job"]
    assert result["accuracy"] == 0.97
    assert on_slurm.job(result["job"]).state == "COMPLETED"
    assert xcom("slurm_job_id") == result["job"]


@pytest.mark.parametrize("inherit_env", [None, True])
@pytest.mark.usefixtures("on_slurm")
def test_job_path_starts_with_bin_of_its_interpreter(module, run_job, tmp_path, inherit_env):
    """Also where it inherits the worker's PATH, which begins with Airflow's own environment."""
    venv.create(tmp_path / "own", symlinks=True, with_pip=False)
    job = module("import os, shutil; print(shutil.which('python'), os.environ['VIRTUAL_ENV'])")
    own = tmp_path / "own"

    result = run_job(**{**job, "python": f"{own}/bin/python", "inherit_env": inherit_env}).results["job"]

    assert result == f"{own}/bin/python {own}"


def test_finished_job_is_collected_without_deferral(module, on_slurm, run_job, monkeypatch):
    """Its result is collected at once, without a second worker."""

    def submit_and_dawdle(run):
        job = submit(run)
        on_slurm.until(job.directory.read_exit, "its record")
        return job

    def defer(*_):
        raise AssertionError("it was deferred")

    submit = JobRunner.submit_or_reattach
    monkeypatch.setattr(JobRunner, "submit_or_reattach", submit_and_dawdle)
    monkeypatch.setattr(SlurmModuleOperator, "_wait_in_triggerer", defer)
    assert run_job(deferrable=True, **module("print('done')")).results["job"] == "done"


def test_output_lines_are_logged_once_in_order_per_stream(module, on_slurm, run_job, deferrable, caplog):
    """Both streams come out of the job's files as they went in: brackets, percent signs, odd bytes."""
    job = module(r"""
        import os
        for number in range(500):
            os.write(1, b"out [bold]%d %s\n" % (number, b"\xff"))
            os.write(2, b"err 100%% %d\n" % number)
        os.write(1, b"no newline")
    """)
    with caplog.at_level(logging.INFO):
        run_job(deferrable=deferrable, **job)

    def logged(stream: str) -> list[str]:
        return [r.getMessage() for r in caplog.records if r.name == f"airflow.task.module.{stream}"]

    assert logged("stdout") == [*(rf"out [bold]{n} \xff" for n in range(500)), "no newline"]
    assert logged("stderr") == [f"err 100% {n}" for n in range(500)]


def test_log_contains_job_id_and_job_directory(module, on_slurm, run_job, xcom, logged_text, run_directories):
    """Readers of the log can open the job directory, and a shell in the running job."""
    run_job(**module("pass"))
    text = logged_text()
    (directory,) = run_directories()
    job_id = xcom("slurm_job_id")
    assert f"Slurm job {job_id} (" in text
    assert f"job directory: {directory}" in text
    assert f"srun --jobid {job_id} --overlap --pty bash" in text


def test_job_link_is_rendered_from_job_url_of_the_connection(module, on_slurm, run_job, deferrable, connection, xcom):
    """The link is there after the run, filled in with the job's id."""
    link = connection(job_url="https://slurm.example/jobs/{job_id}?user={user}")
    run_job(deferrable=deferrable, **module("print(1)"), **link)
    assert xcom("slurm_job_link").startswith(f"https://slurm.example/jobs/{xcom('slurm_job_id')}?user=")


def test_slurm_usage_is_measured_by_the_job_script(module, on_slurm, run_job, deferrable, xcom):
    """A job that computes half of the time has used about half of its one CPU."""
    run_job(
        deferrable=deferrable,
        slurm={"cpus_per_task": 1},
        **module(f"{IS_MEASURED}\nwhile time.process_time() < 1: pass"),
    )
    usage = xcom("slurm_usage")
    assert set(usage) == {
        "elapsed", "cpu", "cpu_efficiency", "max_rss", "waited", "node", "exit_class", "requested",
    }  # fmt: skip
    assert (usage["exit_class"], usage["node"][0], usage["requested"]) == ("success", "n", {"cpus": 1.0})
    assert 0 <= usage["waited"] < 120
    assert 1 <= usage["cpu"] <= usage["elapsed"]
    assert usage["cpu_efficiency"] == pytest.approx(usage["cpu"] / usage["elapsed"], abs=0.001)


@pytest.mark.parametrize("inherit_env", [False, True])
def test_module_sees_the_gpu_of_its_job(module, on_slurm, monkeypatch, run_job, deferrable, inherit_env, xcom):
    """And not those of the worker."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    job = module("import os; print(os.environ['CUDA_VISIBLE_DEVICES'])")
    gpu = {"slurm": {"gpus_per_node": 1}, "inherit_env": inherit_env}
    assert run_job(deferrable=deferrable, **gpu, **job).results["job"] == "0"
    assert xcom("slurm_usage")["requested"] == {"gpus": 1.0}


def test_template_fields_are_rendered(module, on_slurm, run_dag, defaults, tmp_path, xcom):
    """``slurm`` and ``run_dir`` are templated, as the parameters are."""
    job = module(PRINTS_ARGUMENTS)
    asked = {"partition": "{{ params.where }}", "timeout_min": "{{ params.minutes }}", "comment": "{{ dag.dag_id }}"}
    with DAG("one_job", schedule=None, params={"where": "tiny", "minutes": 7}) as dag:
        SlurmModuleOperator(
            task_id="job",
            slurm=asked,
            parameters_and_flags={"n": "{{ params.minutes }}"},
            **job | defaults | {"run_dir": f"{tmp_path}/{{{{ task.task_id }}}}s"},
        )
    assert run_dag(dag).results["job"] == "--n 7"
    shown = on_slurm.command("scontrol", "show", "job", xcom("slurm_job_id"))
    assert "Partition=tiny" in shown
    assert "TimeLimit=00:07:00" in shown
    assert "Comment=one_job" in shown
    assert list((tmp_path / "jobs").glob("one_job/*/job/1/job.sh"))


def test_expand_over_slurm_submits_one_job_per_instance(module, on_slurm, run_dag, defaults):
    """partial().expand() submits one job for each set of resources."""
    job = module("import os; print(os.environ['SLURM_CPUS_PER_TASK'], os.environ['SLURM_JOB_PARTITION'])")
    with DAG("mapped", schedule=None, default_args={"slurm": {"partition": "tiny"}}) as dag:
        SlurmModuleOperator.partial(task_id="job", **job, **defaults).expand(
            slurm=[{"cpus_per_task": 1}, {"cpus_per_task": 2, "partition": "main"}]
        )
    assert run_dag(dag).results == {"job[0]": "1 tiny", "job[1]": "2 main"}


def test_xcom_can_be_a_parameter_and_a_slurm_option(module, on_slurm, run_dag, defaults):
    """A task upstream decides how large the job is, and its result makes the edge."""
    job = module("import os, sys; print(*sys.argv[1:], os.environ['SLURM_CPUS_PER_TASK'])")

    @task
    def measure():
        return {"cpus_per_task": 2}

    with DAG("asks", schedule=None) as dag:
        size = measure()
        SlurmModuleOperator(task_id="job", slurm=size, parameters_and_flags={"size": [size]}, **job, **defaults)
    assert dag.get_task("job").upstream_task_ids == {"measure"}
    assert run_dag(dag).results["job"] == '--size {"cpus_per_task": 2} 2'


def test_equal_task_ids_in_two_dags_get_separate_jobs(module, on_slurm, run_job):
    """Neither takes the other's result, though both are called job and share the folder of job directories."""
    job = module(PRINTS_ARGUMENTS)
    results = [run_job(dag_id, parameters_and_flags={"for": dag_id}, **job).results["job"] for dag_id in ("a", "b")]
    assert results == ["--for a", "--for b"]
    names = [seen.name for seen in on_slurm.jobs() if seen.name.startswith(("a.job-", "b.job-"))]
    assert len(set(names)) == 2


def test_task_id_with_special_characters_becomes_a_valid_job_name(module, on_slurm, run_job, deferrable):
    """Spaces and letters of any script stand in the job's name; characters that Slurm rejects become an underscore."""
    job = module("import os; print(os.environ['SLURM_JOB_NAME'])")
    name = run_job(deferrable=deferrable, slurm={"name": "Über alles, ja 数字"}, **job).results["job"]
    assert name.startswith("Über alles_ ja 数字-")


def test_slurm_options_precedence_task_default_args_connection(
    module, on_slurm, run_dag, defaults, connection, tmp_path
):
    """The task overrides default_args, which override the connection; None removes an inherited option."""
    job = module("import os; print(os.environ['SLURM_JOB_PARTITION'], os.environ.get('SLURM_CPUS_PER_TASK'))")
    given = connection(
        slurm={"partition": "scavenge", "cpus_per_task": 3, "comment": "connection"},
        run_dir=str(tmp_path / "runs" / "of-the-connection"),
        poll_interval=0.5,
    )
    others = {"slurm": {"partition": "tiny", "cpus_per_task": 2}, **given}
    with DAG("places", schedule=None, default_args=others) as dag:
        for task_id, slurm in {
            "default_args": None,
            "task": {"cpus_per_task": 1},
            "drops": {"cpus_per_task": None, "partition": None},
        }.items():
            SlurmModuleOperator(task_id=task_id, **({"slurm": slurm} if slurm else {}), **job)
    assert run_dag(dag).results == {"default_args": "tiny 2", "task": "tiny 1", "drops": "main None"}
    assert len(list((tmp_path / "runs" / "of-the-connection").glob("places/*/*"))) == 3


def test_deferrable_defaults_to_default_deferrable(module, on_slurm, run_job, monkeypatch, logged_text):
    """operators.default_deferrable holds for this operator as for all others."""
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    assert run_job(**module("pass")).state == "success"
    assert "running trigger in line" in logged_text()


def test_wait_for_completion_false_returns_the_job_id(module, on_slurm, run_job, tmp_path):
    """The result is the job's id, and the job goes on by itself."""
    go = tmp_path / "go"
    job = module(f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.05)")
    result = run_job(wait_for_completion=False, **job)
    assert result.state == "success"
    on_slurm.wait_for(result.results["job"], "RUNNING")
    go.touch()
    on_slurm.wait_for(result.results["job"], "COMPLETED")


def test_dags_test_submits_mapped_instances_without_array(module, on_slurm, run_dag, defaults):
    """Instances run one after the other there, so an array could never be complete."""
    on_slurm.put_in_front("sbatch")
    job = module("import os; print(os.environ.get('SLURM_ARRAY_TASK_ID', 'no array'))")
    with DAG("no_array", schedule=None) as dag:
        SlurmModuleOperator.partial(task_id="job", array=True, **defaults, **job).expand(args=[["1"], ["2"]])
    assert run_dag(dag).state == "success"
    assert on_slurm.counted("sbatch") == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"slurm": {"gpus": 1}}, "unknown Slurm parameter 'gpus'"),
        ({"slurm": {"partitoin": "gpu"}}, "did you mean 'partition'? Known: 'name', "),
        ({"slurm": {"timeout_min": 0}}, "slurm: timeout_min must be a whole number of at least 1, got 0"),
        ({"slurm": {"mem_gb": 1, "mem": "1G"}}, "'mem_gb' and 'mem' exclude each other"),
        ({"slurm": ["main"]}, "slurm must be a mapping of parameters"),
        ({"run_dir": 7}, "run_dir must be a path"),
        ({"cluster": "cloud"}, "cluster must be 'auto' or 'slurm' or 'local', got 'cloud'"),
        ({"deferrable": "yes"}, "deferrable"),
        ({"poll_interval": 0}, "poll_interval"),
        (
            {"poll_interval": 9, "max_poll_interval": 3},
            "max_poll_interval must be at least poll_interval",
        ),
        ({"durable": 1}, "durable"),
        ({"array": "yes"}, "array must be a bool, got 'yes'"),
        ({"array_wait": -1}, "array_wait must be seconds or a timedelta, got -1"),
        ({"slurm": {"array_parallelism": 0}}, "slurm: array_parallelism must be a whole number of at least 1, got 0"),
        ({"on_kill_action": "keep"}, "on_kill_action must be 'cancel_job' or 'keep_job', got 'keep'"),
        ({"requeue": "no"}, "requeue"),
        ({"max_pending_time": -1}, "max_pending_time"),
        ({"fail_on_pending_reason": "Licenses"}, "fail_on_pending_reason"),
        ({"lost_after": "5m"}, "lost_after"),
        ({"wait_for_completion": None, "module": "no module"}, "got 'no module'"),
    ],
)
def test_invalid_arguments_raise_at_parse_time(arguments, expected):
    """Invalid input fails before a worker or a job starts."""
    with pytest.raises(Exception, match="task 'job': ") as raised:
        SlurmModuleOperator(task_id="job", **{"module": "job", **arguments})
    assert expected in str(raised.value)


def test_slurm_usage_does_not_query_sacct(module, slurm_accounting, monkeypatch, run_job, deferrable, xcom):
    """A slurmdbd that hangs or lags does not delay a task, as it is not queried."""
    for name, value in slurm_accounting.env.items():
        monkeypatch.setenv(name, value)
    slurm_accounting.put_in_front("sacct", "exec sleep 600")
    job = module(IS_MEASURED)
    assert run_job(**job, deferrable=deferrable).state == "success"
    assert xcom("slurm_usage")["max_rss"] > 0
    assert slurm_accounting.counted("sacct") == 0


def test_operator_import_does_not_load_worker_modules():
    """Importing the operator loads no submitit, nor starts anything."""
    code = "import sys, threading, airflow_provider_sewer.operators.slurm; print('submitit' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"


@pytest.mark.parametrize("place", ["default_args", "connection"])
def test_slurm_mem_is_passed_to_sbatch(place, module, on_slurm, run_job, connection, xcom):
    """As Slurm spells it, from wherever it is given; tests/slurm has a test of each parameter."""
    given = {"slurm": {"mem": "700M"}}
    more = connection(**given) if place == "connection" else {"default_args": given}
    assert run_job(**module("print('done')"), **more).results["job"] == "done"
    assert "MinMemoryNode=700M" in on_slurm.command("scontrol", "show", "job", xcom("slurm_job_id"))


def test_slurm_mem_is_ignored_by_local_cluster(module, run_job):
    """The same parameters pass there."""
    assert run_job(cluster="local", slurm={"mem": "1G"}, **module("print('done')")).results["job"] == "done"


def test_python_is_resolved_after_setup(module, on_slurm, run_job, tmp_path):
    """As with `sppe --on slurm`: no python, or a bare name, is looked up on the node after setup."""
    venv.create(tmp_path / "env", symlinks=True, with_pip=False)
    job = {**module("import sys; print(sys.prefix)"), "slurm": {"setup": [f". {tmp_path}/env/bin/activate"]}}
    for python in (None, "python"):
        assert run_job(**{**job, "python": python}).results["job"] == str(tmp_path / "env")


def test_sbatch_variables_of_the_worker_are_ignored(module, on_slurm, run_job, xcom, monkeypatch):
    """They are the defaults of the user who started the worker, and not of the DAG."""
    for name, value in {"SBATCH_PARTITION": "scavenge", "SBATCH_ACCOUNT": "physics", "SLURM_CLUSTERS": "x"}.items():
        monkeypatch.setenv(name, value)
    assert run_job(**module("print('done')")).results["job"] == "done"
    record = on_slurm.command("scontrol", "show", "job", xcom("slurm_job_id"))
    assert "Partition=main" in record
    assert "Account=(null)" in record
