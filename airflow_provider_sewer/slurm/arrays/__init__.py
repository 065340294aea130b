"""Job arrays: mapped instances of one Airflow task that share a submission, and nothing else.

Airflow starts each mapped instance separately, on some worker at some time, and perhaps only a few at once. So an
instance of an array works like any other up to the submission: it creates its job directory, with its own script and
everything the script needs. Then it registers, and waits: in the triggerer if it is deferrable, where a thousand can
wait with four worker slots; on its worker if not, where as many are gathered as run at once.

Each process with waiting instances polls: one thread for each mapped task of a run. When all instances have registered,
or no new one has registered for ``array_wait`` seconds, the process that takes the lease forms the arrays. Instances
with the same options of Slurm share an array, split at the cluster's limits. The members are recorded first, then one
``sbatch --array`` is run. Each element runs the script of the job directory that its number leads to. From there on, an
instance monitors its own element, by the id ``<array>_<number>``, and it is a job like any other: it has its own state,
log, exit record and products, and is cancelled, requeued and reattached by itself.

The files, beside the job directories of the instances::

    <run_dir>/<dag>/<run>/<task>/
    ├── map-0/1/                the first attempt of an instance
    └── arrays/
        ├── waiting/0-1.json    its registration
        ├── holder-1            the lease of the process that forms arrays now
        └── 1/                  the first array: its script, its name, its members, in the end its id
            └── 0 -> …/map-0/1  the job directory of its element 0, with the output that Slurm writes

Guarantees when a process dies:

- An array is an attempt as a single job is (:mod:`~airflow_provider_sewer.slurm.submission`). Its name is recorded
  before it is submitted, and looked up before each ``sbatch`` and after each failed one. Its members cannot change once
  it may have been submitted. ``job.json`` in its folder is the only record of its job, for all its members.
- An instance registers after it has written everything else. One that is killed before has an attempt without a job,
  and the next try abandons it; one that is killed later is reattached, whether its array has been submitted or not.
- The lease ends by itself, ``slowest_submission`` after its holder has last touched it: by then an ``sbatch`` of a dead
  process has taken effect. The next holder continues with the arrays that are not known to be submitted, and looks up
  their names first. A holder that was only frozen finds its file gone before it submits anything.
- Should Slurm have two arrays of one folder nevertheless, the elements of only one go on: the first of all links the
  folder's ``claim`` to its array, and in each job directory the script does the same with its element.
- An instance that is cancelled while it waits is left out. If its array is submitted at that moment, its element is
  cancelled, and would not begin anyway: it finds ``cancelled`` in its job directory.
- A rejection by Slurm is recorded in the array's folder, and is the error of each of its members.
"""
