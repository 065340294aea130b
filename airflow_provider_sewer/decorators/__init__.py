"""Task decorators ``@task.python_module`` and ``@task.slurm_module``."""
