"""``@task.python_module`` and ``@task.slurm_module``: a function that returns what a module is called with."""
