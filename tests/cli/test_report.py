"""`sppe report` and the pictures of `sppe show`, on real runs, and on a real page in a browser."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest

from .slurm_runs import OnSlurm, on_slurm

__all__ = ["on_slurm"]


def test_report_of_local_run_has_states_and_measured_usage(sppe) -> None:
    sppe.tasks(
        good="held = bytearray(64 * 1024**2)\nsum(range(5_000_000))", bad="import sys; sys.exit('no such thing')"
    )
    assert sppe.run("run").returncode == 1

    table = list(csv.DictReader(sppe.run("report", "--format", "tsv").stdout.splitlines(), delimiter="\t"))

    good, bad = ({row["task"]: row for row in table}[name] for name in ("good", "bad"))
    assert (good["state"], bad["state"]) == ("succeeded", "failed")
    assert 0.0625 < float(good["mem_used_gb"]) < 0.2
    assert 0 < float(good["cpu_s"]) <= float(good["ran_s"]) + 0.5
    assert "no such thing" in bad["reason"]


def test_report_output_decides_the_format(sppe) -> None:
    sppe.tasks(a="print('hello')")
    sppe.run("run")
    for name, start in (("r.html", "<!doctype html>"), ("r.json", "{"), ("r.tsv", "task\t")):
        assert sppe.run("report", "-o", name).stderr == f"Wrote {name}\n"
        assert (sppe.folder / name).read_text().startswith(start)
    run = sppe.run("report", "-o", "r.pdf")
    assert (run.returncode, "--format must be html, json or tsv, got 'pdf'" in run.stderr) == (2, True)


def test_report_of_workflow_file_is_its_latest_run(sppe) -> None:
    sppe.tasks(a="pass")
    sppe.run("run")
    sppe.write("other.py", "from airflow_provider_sewer import Task\nb = Task('b', 'a_module')")
    sppe.run("run", "-p", "other.py")
    for argument, task in ((["flow.py"], "a"), (["other.py"], "b"), ([], "b")):
        report = json.loads(sppe.run("report", *argument, "--format", "json").stdout)
        assert [row["task"] for row in report["tasks"]] == [task]


def test_report_of_log_folder_is_that_run(sppe) -> None:
    sppe.tasks(a="pass")
    sppe.run("run", "--log-dir", "first")
    sppe.run("run")
    assert json.loads(sppe.run("report", "first", "--format", "json").stdout)["tasks"][0]["log"] == "first/a.log"


def test_report_without_recorded_run_exits_with_2(sppe) -> None:
    run = sppe.run("report")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("sppe: no recorded run below ")
    assert sppe.run("report", "flow.py").stderr.startswith("sppe: no recorded run of flow.py below ")


@pytest.mark.slurm
def test_report_of_slurm_run_has_requests_usage_and_queue(on_slurm) -> None:
    on_slurm.flow(
        use="""# slurm={'mem_gb': 2, 'cpus_per_task': 1, 'timeout_min': 60}
        held = bytearray(64 * 1024**2)
        """
    )
    assert on_slurm.run().code == 0
    (row,) = json.loads(on_slurm.sppe.run("report", "--format", "json").stdout)["tasks"]
    job = on_slurm.one_job("use")
    assert (row["job_id"], row["mem_requested_gb"], row["time_requested_min"]) == (job.id, 2.0, 60.0)
    assert row["ran_s"] > 0
    assert row["waited_s"] >= 0
    assert json.loads(row["suggestion"])["timeout_min"] == 5
    assert (row["exit_class"], row["runs_jobs"]) == ("success", 1)
    assert row["node"] in on_slurm.slurm.nodes


@pytest.mark.parametrize("form", ["svg", "html"])
def test_show_picture_has_a_box_for_each_task(sppe, form) -> None:
    sppe.write("flow.py", "from airflow_provider_sewer import Task\nTask('a', 'pkg.a') >> Task('b', 'pkg.b')")
    picture = sppe.run("show", "-p", "flow.py", "--format", form).stdout
    svg = ET.fromstring(re.search(r"<svg.*</svg>", picture, re.DOTALL)[0])
    names = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert sorted(names) == ["a", "b"]


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium on PATH; apt-get install chromium")
@pytest.mark.browser
def test_report_page_is_drawn_by_a_browser_without_errors(sppe) -> None:
    sppe.tasks(a="pass", b="import sys; sys.exit(3)")
    sppe.run("run")
    sppe.run("report", "-o", "r.html")
    drawn = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{sppe.folder}/r.html"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert drawn.stdout.count('class="bar ') == 2
    assert "ERROR:CONSOLE" not in drawn.stderr


@pytest.mark.slurm
def test_usage_of_slurm_jobs_suggests_smaller_requests(on_slurm) -> None:
    on_slurm.flow(use="# slurm={'mem_gb': 2, 'timeout_min': 60}\npass")
    assert on_slurm.run().code == 0
    assert on_slurm.run().code == 0
    text = on_slurm.sppe.run("usage", "-p", "flow.py", "--since", "1d").stdout
    assert re.search(r"^use +2 ", text, re.MULTILINE)
    assert "'timeout_min': 5" in text
    below_runs = on_slurm.sppe.run("usage", "runs").stdout
    assert re.search(r"^use +2 ", below_runs, re.MULTILINE)
    assert below_runs.splitlines()[1] == text.splitlines()[1]
    assert on_slurm.sppe.run("usage", "-p", "flow.py", "--since", "2999-01-01").returncode == 2


@pytest.mark.slurm
def test_report_usage_of_jobs_is_that_of_one_sacct_call(sppe, slurm_accounting, lifeline) -> None:
    runs = OnSlurm(sppe, slurm_accounting, lifeline)
    runs.flow(**dict.fromkeys(("one", "two", "three"), "# slurm={'mem_gb': 1}\ntime.sleep(2)"))
    assert runs.run().code == 0
    calls = sppe.folder / "calls"
    (sppe.folder / "bin").mkdir()
    sacct = sppe.folder / "bin" / "sacct"
    real = shutil.which("sacct", path=slurm_accounting.env["PATH"])
    sacct.write_text(f'#!/bin/sh\necho call >>{calls}\nexec {real} "$@"\n')
    sacct.chmod(0o755)
    env = {**slurm_accounting.env, "PATH": f"{sacct.parent}:{slurm_accounting.env['PATH']}"}

    def accounts(fields: str, *ids: str) -> list[str]:
        """Return the rows of jobs in accounting."""
        done = subprocess.run(
            ["sacct", "-nPX", f"--format={fields}", "-j", ",".join(ids)],
            env=slurm_accounting.env, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.splitlines()

    jobs = [runs.one_job(name) for name in ("one", "two", "three")]
    # It is a few seconds behind, and may have the end of a job before its name.
    ended = sorted(f"COMPLETED|{job.name}" for job in jobs)
    slurm_accounting.until(
        lambda: sorted(accounts("State,JobName", *(job.id for job in jobs))) == ended, "the jobs in accounting"
    )
    rows = json.loads(sppe.run("report", "--format", "json", env=env).stdout)["tasks"]
    assert sppe.run("usage", "flow.py", env=env).returncode == 0  # with the figures that are saved by then

    assert calls.read_text() == "call\n"
    for row in rows:
        (elapsed,) = map(float, accounts("ElapsedRaw", row["job_id"]))
        assert row["ran_s"] == elapsed
        assert row["runs_wasted_core_hours"] == pytest.approx((elapsed - row["cpu_s"]) / 3600)
        assert row["runs_wasted_gb_hours"] == pytest.approx((1 - row["mem_used_gb"]) * elapsed / 3600, rel=0.01)


def test_report_of_1000_jobs_is_one_sacct_call(sppe) -> None:
    """Accounting is a program that answers about each job that it is asked for, in the words of sacct."""
    names = [f"task_{number}" for number in range(1000)]
    lines: list[dict[str, object]] = [
        {
            "sewer_run": 1, "workflow": "w", "file": str(sppe.folder / "flow.py"), "at": 1.0,
            "tasks": {name: {"target": "m", "upstream": [], "log": f"{name}.log"} for name in names},
        }
    ]  # fmt: skip
    for number, name in enumerate(names):
        job = {"job_id": f"123456789_{number}", "job_name": f"w.{name}-1", "directory": "", "started": 2.0}
        end = {"event": "ended", "task": name, "at": 3.0, "state": "succeeded", "seconds": 1.0, "reason": ""}
        lines.append({**end, **job, "used": {"elapsed": 1.0}, "requested": {"mem_gb": 2.0}, "exit_class": "success"})
    record = "".join(f"{json.dumps(line)}\n" for line in lines)
    for folder in ("run", "bin"):
        (sppe.folder / folder).mkdir()
    sppe.write("run/run.jsonl", record)
    sppe.write(
        "bin/sacct",
        f"""#!{sys.executable}
import sys
open({str(sppe.folder / "calls")!r}, "a").write("call\\n")
for job_id in sys.argv[sys.argv.index("-j") + 1].split(","):
    name = f"w.task_{{job_id.partition('_')[2]}}-1"
    print(f"{{job_id}}|COMPLETED|3600|30:00|||1|cpu=1,mem=2G,node=1||60|1|2|3602|n1|/|{{name}}")
    print(f"{{job_id}}.batch|COMPLETED|3600|30:00|1048576K|1|1|cpu=1|mem=1048576K||2|2|3602|n1||batch")
""",
    )
    (sppe.folder / "bin" / "sacct").chmod(0o755)
    env = {"PATH": f"{sppe.folder}/bin:{os.environ['PATH']}"}

    done = sppe.run("report", "run", "--format", "tsv", env=env)

    rows = list(csv.DictReader(done.stdout.splitlines(), delimiter="\t"))
    assert (sppe.folder / "calls").read_text() == "call\n"
    assert len(rows) == 1000
    assert {row["mem_used_gb"] for row in rows} == {"1"}
    assert {row["runs_wasted_gb_hours"] for row in rows} == {"1"}


@pytest.mark.parametrize("since", ["soon", "", "d", "-1", "99999999999d", f"{'9' * 30}h"])
def test_usage_since_no_time_exits_with_2(sppe, since) -> None:
    sppe.tasks(a="pass")
    run = sppe.run("usage", "-p", "flow.py", "--since", since)
    assert (run.returncode, "Traceback" in run.stderr) == (2, False)
