"""Shared by the tests of stages: a file with every field, and a way to assert on mistakes in one."""

from __future__ import annotations

import pytest

from airflow_provider_sewer import SewerError, load_workflow
from airflow_provider_sewer.core.errors import WorkflowFileError

#: Each field, in a form that has a place for all of them.
EVERYTHING = """\
name: digits
doc: From noise to numbers.
jobs: jobs
defaults:
  python: ../venv/bin/python
  env: {LEVEL: 1, SHARED: "yes"}
  slurm: {partition: gpu, mem_gb: 8}
stages:
  generate:
    module: digits.generate
    args: [fast]
    parameters_and_flags:
      out: !product build/raw.npz
      n: 500
      verbose: true
      threads: !ignored 4
    use_underscores: true
    doc: Makes noise.
    resources: {gpu: 1}
    tags: [first, nightly]
    group: data.raw
  noise model:
    function: noise
    kwargs:
      src: !dependency build/raw.npz
      dst: !product {path: build/noisy.npz, atomic: false, temporary: true, on_failure: remove}
      seed: !result generate.seed
      first: !result {stage: generate, keys: [rows, 0]}
      last: !result {stage: generate, keys: [rows, -1], ignored: true}
    env: {LEVEL: 2}
    workdir: data
    inherit_env: [CUDA_HOME]
  train:
    depends_on: [noise model]
    dependencies: [!external {path: /data/labels.csv, timeout: 60}, build/noisy.npz]
    products: model.bin
    stdin: !external {path: rows.csv, timeout: 5}
    stdout: !product {path: log.txt, atomic: false}
    run_when: stale
    compare: content
    stale_with: [code]
    operator_kwargs: {retries: 2, execution_timeout: !timedelta {hours: 1, minutes: 30}}
    run_on: slurm
    slurm: {mem_gb: 16, time: 1:30:00}
"""


def fails(path, message: str, kind: type[SewerError] = WorkflowFileError, jobs: str | None = "jobs") -> None:
    """Check that loading fails with this, and nothing but this, message (``{f}`` is the file)."""
    with pytest.raises(SewerError) as caught:
        load_workflow(path, jobs=jobs)
    assert str(caught.value) == message.replace("{f}", str(path)).replace("{d}", str(path.parent))
    assert type(caught.value) is kind
