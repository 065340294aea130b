"""Run a module as a job of a Slurm cluster, or as a detached process of this machine in the same manner."""
