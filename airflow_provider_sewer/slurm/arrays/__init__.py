"""Job arrays: mapped instances of one Airflow task that share a submission, and nothing else.

Airflow starts each mapped instance by itself, on some worker at some time, and perhaps only a few at once. So an
instance that is to share an array does what every other does up to the submission: it makes its run directory, with a
script of its own and everything the script needs. Then it registers, and waits: in the triggerer if it is deferrable,
where a thousand can wait with four worker slots; on its worker if not, where as many are gathered as run at once.

Whoever waits also looks: one thread of each process for each mapped task of a run. When all instances that there are
have registered, or nobody new has come for ``array_wait`` seconds, the one that takes the lease forms the arrays: of
all that wait, those that ask Slurm for the same, cut where the cluster's limits want that. The members are written down
first, then one ``sbatch --array`` is sent. Each element runs the script of the run directory that its number leads to.
From there on, an instance follows its own element, by the id ``<array>_<number>``, and it is a job like any other:
its state, log, exit record, products, cancelling, requeueing, and being taken up are its own.

The files, beside the run directories of the instances::

    <run_dir>/<dag>/<run>/<task>/
    ├── map-0/1/                the first attempt of an instance
    └── arrays/
        ├── waiting/0-1.json    it has registered
        ├── holder-1            the lease of who forms arrays now
        └── 1/                  the first array: its script, its name, its members, in the end its id
            └── 0 -> …/map-0/1  where its element 0 runs, and where Slurm writes its output

What holds when something dies:

- An array is an attempt as a single job is (:mod:`~airflow_provider_sewer.slurm.submission`): it has a name, which
  is noted before it is sent, and looked up before each ``sbatch`` and after each that went wrong. Its members cannot
  change once it may have been sent. ``job.json`` in its folder is all there is to know of it, for all its members.
- Who registers has written everything else first. One that is killed before has an attempt of which nothing comes, and
  the next try leaves it; one that is killed later is taken up, whether its array has been sent or not.
- The lease ends by itself, ``slowest_submission`` after its holder has last touched it: by then an ``sbatch`` of a dead
  process has had its effect. The next holder goes on with the arrays that are not known to be sent, name first. A
  holder that was only frozen finds its file gone before it sends anything.
- Should Slurm have two arrays of one folder nevertheless, the elements of only one go on: the first of all links the
  folder's ``claim`` to its array, and in each run directory the script does the same with its element.
- An instance that is cancelled while it waits is left out; if its array is sent at that moment, its element is
  cancelled, and would not begin anyway: it finds ``cancelled`` in its run directory.
- What Slurm refuses is noted in the array's folder, and is the error of each of its members.
"""
