"""Run the chain of a file with sewerpipe: ``run_sewerpipe.py FILE PYTHON``."""

import json
import runpy
import sys
from pathlib import Path


def main(file: str, python: str) -> None:
    runpy.run_path(file)["chain"].run(path_to_python=Path(python))
    print("\n" + json.dumps({}))


if __name__ == "__main__":
    main(*sys.argv[1:])
