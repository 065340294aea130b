"""SlurmModuleOperator, run by a real Airflow on a real cluster: the worker waits, or the triggerer does."""

from __future__ import annotations

import json


def test_the_result_file_becomes_the_xcom(module, on_slurm, run_job, deferrable, xcom):
    """What a module writes to $SEWER_RESULT_FILE on the node is what later tasks pull."""
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


def test_the_link_to_the_job_is_made_of_the_connections_url(module, on_slurm, run_job, deferrable, connection, xcom):
    """The link is there after the run, filled in with the job's id."""
    said = connection(job_url="https://slurm.example/jobs/{job_id}?user={user}")
    run_job(deferrable=deferrable, **module("print(1)"), **said)
    assert xcom("slurm_job_link").startswith(f"https://slurm.example/jobs/{xcom('slurm_job_id')}?user=")
