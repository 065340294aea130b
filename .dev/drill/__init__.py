"""Kill and stop processes of Airflow and Slurm at random while tasks run, then count the broken guarantees.

The drill uses the Airflow and the Slurm cluster of the tests, so the checkout is on the path.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))
