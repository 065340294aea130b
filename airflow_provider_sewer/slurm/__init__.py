"""Jobs that run a module on a Slurm cluster, or as a detached process of this machine in the same way."""
