"""Run an empty module many times with depio, two at a time: ``run_depio.py PYTHON COUNT``.

depio fails without a terminal, so it runs in a pseudo-terminal.
"""

import json
import os
import pty
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

#: Argument of the process that runs in the pseudo-terminal.
INSIDE = "inside"


def main(python: str, count: str) -> None:
    output = []

    def read(number: int) -> bytes:
        output.append(os.read(number, 1 << 16))
        return output[-1]

    quiet = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    status = pty.spawn([sys.executable, __file__, python, count, INSIDE], read, lambda _: b"")
    os.dup2(quiet, 1)
    if status:
        raise SystemExit(b"".join(output).decode(errors="replace")[-500:])
    print(json.dumps({}))


def run(python: str, count: int) -> None:
    from depio.BuildMode import BuildMode
    from depio.Executors import ParallelExecutor
    from depio.Pipeline import Pipeline
    from depio.Task import Task

    def empty(number: int) -> None:
        subprocess.run([python, "-m", "empty", "--number", str(number)], check=True)

    pipeline = Pipeline(depioExecutor=ParallelExecutor(ThreadPoolExecutor(2)))
    for number in range(count):
        pipeline.add_task(Task(f"task {number}", empty, [number], buildmode=BuildMode.ALWAYS))
    pipeline.run()


if __name__ == "__main__":
    if sys.argv[-1] == INSIDE:
        run(sys.argv[1], int(sys.argv[2]))
    else:
        main(*sys.argv[1:])
