"""Effects of a site's plugins on jobs: they reject them, warn about them, and rename them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_sewer.core.errors import SlurmCancelled, SlurmSubmissionRejected
from airflow_provider_sewer.execution.job_messages import WarningLine
from airflow_provider_sewer.slurm.backend import JobRef
from airflow_provider_sewer.slurm.client import SlurmClient
from tests.slurm.conftest import Jobs
from tests.slurm.test_arrays import UNTIL_GO, ends, go, instances
from tests.slurm.worker import real
from tests.slurm_cluster.cluster import SlurmCluster
from tests.slurm_cluster.packages import missing_packages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Does the action in the comment of a job.
JOB_SUBMIT = """
function slurm_job_submit(job_desc, part_list, submit_uid)
  local wish = job_desc.comment or ""
  if wish == "refuse" then
    slurm.log_user("Name a project with --account")
    slurm.log_user("The munge of the scratch system is temporarily closed, its queue timed out")
    return slurm.ERROR
  end
  if wish == "warn" then slurm.log_user("This partition goes away soon") end
  if wish == "prefix" then job_desc.name = "site-" .. job_desc.name end
  if wish == "rename" then job_desc.name = "project 7" end
  return slurm.SUCCESS
end
function slurm_job_modify() return slurm.SUCCESS end
return slurm.SUCCESS
"""
CLI_FILTER = """
function slurm_cli_setup_defaults() return slurm.SUCCESS end
function slurm_cli_pre_submit(options, offset)
  if options["comment"] ~= "filter" then return slurm.SUCCESS end
  slurm.log_error("The filter is temporarily closed")
  return slurm.ERROR
end
function slurm_cli_post_submit() return slurm.SUCCESS end
return slurm.SUCCESS
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """Return a cluster with these plugins."""
    if missing := missing_packages():
        pytest.skip(f"Slurm is not installed; apt-get install {' '.join(missing)}")
    folder = tmp_path_factory.mktemp("site")
    (folder / "etc").mkdir()
    (folder / "etc" / "job_submit.lua").write_text(JOB_SUBMIT)
    (folder / "etc" / "cli_filter.lua").write_text(CLI_FILTER)
    with SlurmCluster(folder, nodes=1, extra_conf="JobSubmitPlugins=lua\nCliFilterPlugins=lua") as slurm:
        yield slurm


@pytest.fixture
def site_jobs(site: SlurmCluster, talk_to: Callable[..., Any], tmp_path: Path) -> Iterator[Jobs]:
    """Return a starter of jobs at this site."""
    yield Jobs(tmp_path / "jobs", talk_to(site))
    site.restore()


def asking(wish: str, **slurm: Any) -> dict[str, Any]:
    return {"slurm": {"comment": wish, **slurm}}


# -- Refusals and warnings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ("refuse", "Name a project with --account; The munge of the scratch system is temporarily closed"),
        ("filter", "The filter is temporarily closed"),
    ],
)
def test_site_rejection_raises_submission_rejected_with_its_message(site_jobs, wish, words) -> None:
    """After one sbatch, though its wording is that of a temporary error."""
    site_jobs.slurm.put_in_front("sbatch")
    job = site_jobs.start("say('done')", **asking(wish))
    job._thread.join(60)
    assert isinstance(job.error, SlurmSubmissionRejected), (job.error, job.logged)
    assert words in str(job.error)
    assert site_jobs.slurm.counted("sbatch") == 1


def test_site_rejection_fails_each_array_element(site_jobs) -> None:
    """For each of its elements."""
    planned = instances(site_jobs.plan(f"{UNTIL_GO}", **asking("refuse")), 2)
    site_jobs.slurm.put_in_front("sbatch")
    runs = [site_jobs.follow(each) for each in planned]
    for run in runs:
        run._thread.join(60)
        assert isinstance(run.error, SlurmSubmissionRejected), (run.error, run.logged)
        assert "Name a project" in str(run.error)
    assert site_jobs.slurm.counted("sbatch") == 1


def test_site_message_about_accepted_job_is_logged_as_warning(site_jobs) -> None:
    """The job runs; one that the site does not speak of has no such line."""
    warned, other = site_jobs.start("say('done')", **asking("warn")), site_jobs.start("say('done')")
    assert warned.succeeds() == other.succeeds() == "done"
    warnings = [line for line in warned.logged if isinstance(line, WarningLine)]
    assert warnings == [f"Slurm accepted job {warned.id}, and sbatch printed: This partition goes away soon"]
    assert not [line for line in other.logged if isinstance(line, WarningLine)]


# -- Other names -------------------------------------------------------------------------------------------------------


def end_of(job: Any) -> Any:
    """Wait for the end of a job that has another name by now, and return its result or raise its error."""
    job._thread.join(120)
    assert not job._thread.is_alive(), job.logged
    if job.error is not None:
        raise job.error
    job.has_whole_log()
    return job.value


@pytest.mark.parametrize("wish", ["prefix", "rename"])
def test_job_renamed_by_site_is_monitored_and_found(site_jobs, wish) -> None:
    """A retry after a crash finds it in the queue by its script, as a new process would that knows no id."""
    job = site_jobs.start("wait_for('go'); say('done')", lost_after=2.0, **asking(wish))
    job.expect_start()
    job.expect_logged("is RUNNING")
    client, ref = SlurmClient(), job.job.ref
    assert client.find(ref.name, ref.directory) == job.id
    assert client.find("another-0123456789abcdef01", f"{ref.directory}0") is None
    job.create_file("go")
    assert end_of(job) == "done"
    assert not any("no longer known" in line for line in job.logged)


@pytest.mark.parametrize("wish", ["prefix", "rename"])
def test_job_renamed_by_site_is_cancelled(site_jobs, wish) -> None:
    """By its id, which is still its own; another job of that name goes on."""
    job = site_jobs.start("wait_for('the end of days')", **asking(wish))
    job.expect_start()
    other = site_jobs.slurm.submit("sleep 600", "--job-name=project 7")
    SlurmClient().cancel([job.job.ref], timeout=30)
    with pytest.raises(SlurmCancelled):
        end_of(job)
    assert site_jobs.slurm.state(other) in {"PENDING", "RUNNING"}
    SlurmClient().cancel([JobRef(other, "ours-0123456789abcdef01", job.directory.path)], timeout=30)
    assert site_jobs.slurm.state(other) in {"PENDING", "RUNNING"}


def test_job_renamed_by_user_is_monitored_to_its_end(site_jobs) -> None:
    """While it runs."""
    job = site_jobs.start("wait_for('go'); say('done')", lost_after=2.0)
    job.expect_start()
    site_jobs.slurm.command("scontrol", "update", f"JobId={job.id}", "JobName=mine")
    job.create_file("go")
    assert end_of(job) == "done"
    assert not any("no longer known" in line for line in job.logged)


def test_array_renamed_by_site_is_monitored_and_cancelled(site_jobs) -> None:
    """Element by element; one is renamed once more by its user."""
    planned = instances(site_jobs.plan(UNTIL_GO, **asking("rename")), 3)
    runs = [site_jobs.follow(each) for each in planned]
    for run in runs:
        run.expect_start()
    site_jobs.slurm.command("scontrol", "update", f"JobId={runs[1].id}", "JobName=mine")
    client, refs = SlurmClient(), [run.job.ref for run in runs]
    array = str(Path(planned[0].slurm.run_dir or "").glob("*/*/*/arrays/1").__next__())
    assert client.find(refs[0].name, array) == refs[0].array_id
    assert [client.poll(refs)[ref].state for ref in refs] == ["RUNNING"] * 3
    client.cancel([refs[2]], timeout=30)
    with pytest.raises(SlurmCancelled):
        ends(runs[2])
    go(*runs[:2])
    assert [ends(run) for run in runs[:2]] == ["0", "1"]


# -- After a crash -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wish", ["prefix", "rename"])
def test_retry_reattaches_to_renamed_job_after_worker_killed(site_jobs, worker, wish) -> None:
    """Its id is recorded nowhere, and it has not begun: only its script identifies it."""
    slurm, planned = site_jobs.slurm, site_jobs.plan("say('done')", **asking(wish))
    blocking = slurm.submit("sleep 600", "--exclusive")
    slurm.wait_for(blocking, "RUNNING")
    taken = slurm.folder / f"taken-{wish}"
    slurm.put_in_front("sbatch", f'{real(slurm, "sbatch")} "$@" >{taken}; exec sleep 600')
    first = worker(planned)
    job_id = slurm.until(lambda: taken.exists() and taken.read_text().strip(), "a job")
    first.kill()
    slurm.take_away("sbatch")
    run = site_jobs.follow(planned, patience=2)
    run.expect_logged(f"Reattaching to Slurm job {job_id}")
    slurm.command("scancel", blocking)
    assert end_of(run) == "done"
