"""Kill and stop processes of Airflow and Slurm at random while tasks run, then count the broken promises.

The tests' own Airflow and Slurm cluster serve here: the checkout is on the path for that.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))
