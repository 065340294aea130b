"""Airflow's UI in a browser: the connection's form, a task group, a task's log, its job, and the buttons.

Screenshots are saved in build/screenshots.
"""

from __future__ import annotations

import json

import pytest

from airflow_provider_sewer.get_provider_info import get_provider_info
from tests.airflow.slurm_cases import JOB_URL, SECRET, succeeded

from .browser import Browser, Field, lacking
from .stack import LOGIN, PYTHON

pytestmark = pytest.mark.skipif(bool(lacking()), reason=f"no browser: {lacking()}")

[CONNECTION_TYPE] = get_provider_info()["connection-types"]

#: Prints the settings that the hook reads from a connection in the database.
READ = """
import json, sys
from airflow_provider_sewer.hooks.sewer import SewerHook
hook = SewerHook(sys.argv[1])
found = {**hook.settings._asdict(), **hook.slurm_settings._asdict(), "secret_env": hook.secret_env, "url": hook.job_url}
print(json.dumps({name: value for name, value in found.items() if value not in (None, {}, [])}, default=dict))
"""


@pytest.fixture(scope="module")
def cluster_run(stack):
    """Start the example whose heavy tasks are Slurm jobs; it comes to its end while other pages are looked at."""
    return stack.trigger("sewer_cluster")


@pytest.fixture(scope="module")
def browser(stack, cluster_run):
    """Return a browser in which the administrator is logged in."""
    with Browser(stack.url) as browser:
        browser.log_in("admin", stack.secrets["SEWER_AIRFLOW_PASSWORD"])
        yield browser


@pytest.fixture
def understood(stack):
    """Return a function that returns the settings that the hook reads from a connection."""

    def read(conn_id):
        argv = ("env", "_AIRFLOW_PROCESS_CONTEXT=server", "python", "-c", READ, conn_id)
        return json.loads(stack.run_in(LOGIN, *argv).splitlines()[-1])

    return read


def sections() -> dict[str, list[Field]]:
    """Return the expected fields of the form by section."""
    found: dict[str, list[Field]] = {}
    for field in CONNECTION_TYPE["conn-fields"].values():
        found.setdefault(field["schema"]["section"], []).append(Field(field["label"], field["description"]))
    return found


# The connection's form ------------------------------------------------------------------------------------------------


def test_connection_form_has_every_field_in_its_section(browser):
    """With label and description, in the order of the provider; host, login and the like are not there."""
    form = browser.add_connection("looked_at", "Sewer")
    assert form.sections() == ["Standard Fields", *sections(), "Extra Fields JSON"]
    form.open_section("Standard Fields")
    assert [field.label for field in form.fields()] == ["Description"]
    for title, fields in sections().items():
        form.open_section(title)
        assert form.fields() == fields
        form.picture(f"form {title}")


def test_hook_reads_connection_saved_by_the_form(browser, stack, understood):
    """Texts, objects, lists, choices and numbers; empty fields are omitted, and secrets are never shown."""
    form = browser.add_connection("filled_in", "Sewer")
    form.open_section("Execution")
    form.write("Interpreter", PYTHON)
    form.write("Environment", '{"OMP_NUM_THREADS": "4"}')
    form.write("Secret environment", '{"TOKEN": "sesame-of-the-form"}')
    form.write("Inherited variables", "CUDA_VISIBLE_DEVICES\nLD_LIBRARY_PATH\n")
    form.open_section("Slurm jobs")
    form.choose("Cluster", "slurm")
    form.write("Slurm parameters", '{"mem_gb": 1}')
    form.write("Link to a job", "https://slurm.example/{job_id}")
    form.open_section("Waiting for Slurm jobs")
    form.choose("Deferrable", "false")
    form.write("Poll interval", "2.5")
    form.write("Longest wait", "3600")
    form.write("Unsatisfiable reasons", "Licenses")
    form.save()

    assert understood("filled_in") == {
        "python": PYTHON,
        "env": {"OMP_NUM_THREADS": "4", "TOKEN": "sesame-of-the-form"},
        "secret_env": {"TOKEN": "sesame-of-the-form"},
        "inherit_env": ["CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"],
        "cluster": "slurm",
        "slurm": {"mem_gb": 1},
        "url": "https://slurm.example/{job_id}",
        "deferrable": False,
        "poll_interval": 2.5,
        "max_pending_time": 3600,
        "fail_on_pending_reason": ["Licenses"],
    }
    assert json.loads(stack.get("/connections/filled_in")["extra"])["secret_env"] == "***"


def test_connection_can_be_edited_without_its_secret(browser, understood):
    """The form shows asterisks for the stored secret; any other text replaces it."""
    form = browser.add_connection("edited", "Sewer")
    form.open_section("Execution")
    form.write("Secret environment", '{"TOKEN": "sesame-the-first"}')
    form.save()

    form = browser.edit_connection("edited")
    form.open_section("Execution")
    assert form.value("Secret environment") == "***"
    form.write("Working directory", "/shared/digits")
    form.save()
    now = understood("edited")
    assert (now["workdir"], now["secret_env"]) == ("/shared/digits", {"TOKEN": "sesame-the-first"})

    form = browser.edit_connection("edited")
    form.open_section("Execution")
    form.write("Secret environment", '{"TOKEN": "sesame-the-second"}')
    form.save()
    now = understood("edited")
    assert (now["workdir"], now["secret_env"]) == ("/shared/digits", {"TOKEN": "sesame-the-second"})


def test_sewer_digits_connection_shows_its_values(browser):
    """Empty fields are shown as well, so that they can be filled in."""
    form = browser.edit_connection("sewer_digits")
    assert form.sections() == ["Standard Fields", *sections(), "Extra Fields JSON"]
    form.open_section("Execution")
    assert form.fields() == sections()["Execution"]
    assert form.value("Interpreter") == PYTHON
    assert json.loads(form.value("Environment")) == {"MPLCONFIGDIR": "/tmp/matplotlib"}
    assert form.value("Secret environment") == ""
    form.picture("form of the ready connection")
    form.open_section("Slurm jobs")
    assert form.value("Cluster") == "slurm"
    assert json.loads(form.value("Slurm parameters")) == {"timeout_min": 60}


def test_test_button_reports_the_interpreter(browser, stack):
    """The message has the version and the Slurm backend."""
    version = stack.run_in(LOGIN, PYTHON, "-c", "import platform; print(platform.python_version())").strip()
    kind, message = browser.test_connection("sewer_digits")
    browser.save("a connection that works")
    assert kind == "success"
    assert f"Python {version} at {PYTHON}" in message
    assert "Slurm tasks run by /usr/bin/sbatch, with job directories in /shared/sewer-runs" in message


def test_test_button_reports_errors(browser):
    """The message is red and names the invalid field."""
    form = browser.edit_connection("sewer_digits")
    form.open_section("Execution")
    form.write("Interpreter", "/nowhere/python")
    form.save()
    try:
        kind, message = browser.test_connection("sewer_digits")
        browser.save("a connection that does not work")
    finally:
        form = browser.edit_connection("sewer_digits")
        form.open_section("Execution")
        form.write("Interpreter", PYTHON)
        form.save()
    assert kind == "error"
    assert "the interpreter /nowhere/python does not exist" in message


# The task group -------------------------------------------------------------------------------------------------------


def test_task_group_page_shows_task_names(browser, stack, cluster_run):
    """In the order of the workflow, the two that run side by side one above the other, and all of them green."""
    states = ("success", "failed")
    stack.until(lambda: stack.run_state("sewer_cluster", cluster_run) in states, "the example to end", 180)
    browser.open_graph("sewer_cluster", cluster_run)
    ids = [f"digits.{name}" for name in ("generate", "add_noise", "train_svc", "train_forest", "compare")]
    nodes = browser.until(lambda: nodes if set(nodes := browser.nodes()) == {"digits", *ids} else None, "all tasks")
    browser.save("task group")

    nodes = browser.nodes()
    local, slurm = "PythonModuleOperator", "SlurmModuleOperator"
    assert [nodes[task_id].words for task_id in ids] == [
        ["generate", local, "success"],
        ["add noise", local, "success"],
        ["train svc", slurm, "success"],
        ["train forest", slurm, "success"],
        ["compare", local, "success"],
    ]
    assert nodes["digits"].words[0] == "digits"

    generate, noise, svc, forest, compare = (nodes[task_id].box for task_id in ids)
    assert generate.is_left_of(noise)
    assert noise.is_left_of(svc)
    assert svc.is_beside(forest)
    assert svc.is_left_of(compare)
    assert all(nodes[task_id].box.is_within(nodes["digits"].box) for task_id in ids)
    edges = [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4)]
    assert browser.edges() == {f"{ids[up]}-{ids[down]}" for up, down in edges}


# A task's log ---------------------------------------------------------------------------------------------------------


def test_log_page_shows_job_output(browser, start):
    """Each line once and in order, without any markup, stdout and stderr separate, and no secret."""
    case = start("defers")
    case.enough()  # at once: a log that is longer than the window is not all there to be read
    succeeded(case)
    written = {stream: next(iter(case.written(stream).values())) for stream in ("stdout", "stderr")}
    assert written["stdout"][0] == f"the token is {SECRET}"
    written["stdout"][0] = "the token is ***"

    browser.open_task(case.key)
    browser.wait_for_text(written["stdout"][-1])
    browser.save("log")
    assert set(written["stdout"] + written["stderr"]) <= {event_of(line) for line in browser.log_lines()}
    seen = browser.driver.page_source
    assert SECRET not in seen
    assert "::group::" not in seen
    for stream, lines in written.items():
        browser.open_task(case.key)
        browser.filter_log(f"airflow.task.module.{stream}")
        browser.until(lambda lines=lines: len(browser.log_lines()) == len(lines), f"no lines but those of {stream}")
        assert [event_of(line) for line in browser.log_lines()] == lines
        browser.save(f"log of {stream}")


def event_of(line: str) -> str:
    """Return a line of the log without its number, time and level."""
    return line.partition(" - ")[2]


# The job --------------------------------------------------------------------------------------------------------------


def test_slurm_job_link_opens_the_job_page(browser, start):
    """To the page that the connection names, as soon as there is a job and as long as there is the task."""
    case = start("defers")
    case.runs()
    case.is_deferred()
    job = next(iter(case.written().values()))[-1].split()[0]
    link = {"Slurm job": JOB_URL.format(job_id=job)}
    browser.open_task(case.key, "details")
    browser.until(browser.links, "a link")
    browser.save("job link")
    assert browser.links() == link

    case.enough()
    succeeded(case)
    browser.open_task(case.key, "details")
    browser.until(browser.links, "a link")
    assert browser.links() == link


def test_mark_failed_and_clear_buttons_apply_to_the_task(browser, start, stack):
    """Its job is cancelled, the queue is empty, and the run after that succeeds."""
    case = start("defers")
    case.runs()
    case.is_deferred()
    assert stack.command("squeue", "--noheader")

    browser.open_task(case.key)
    browser.mark_task("Failed")
    case.is_over()
    case.has_seen("CANCELLED")
    assert case.state() == "failed"
    assert stack.command("squeue", "--noheader") == ""
    browser.open_task(case.key)
    # "Cancelled Slurm job …", or "Cancelling …" where Airflow stops waiting for its API server before that.
    browser.wait_for_text("Cancell")
    browser.save("marked failed")

    browser.clear_task()
    case.runs(2)
    case.enough()
    succeeded(case, earlier=("CANCELLED",))


def test_clear_button_clears_a_deferred_task(browser, start):
    """The job that ran is cancelled, and the one after that succeeds."""
    case = start("defers")
    case.runs()
    case.is_deferred()

    browser.open_task(case.key)
    browser.clear_task()
    case.runs(2)
    case.has_seen("CANCELLED", "RUNNING")
    case.enough()
    succeeded(case, earlier=("CANCELLED",))
