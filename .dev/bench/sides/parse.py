"""Execute a DAG file and print CPU seconds and the number of its tasks.

``parse.py DAG_FILE WARM_UP_FILE``: the second file, a small one of the same kind, is executed first and not
measured, so that all imports are done.
"""

import json
import os
import sys
import time


def main(dag_file: str, warm_up_file: str) -> None:
    execute(warm_up_file)
    seconds, tasks = execute(dag_file)
    print(json.dumps({"seconds": seconds, "tasks": tasks}))


def execute(dag_file: str) -> "tuple[float, int]":
    from airflow.sdk import DAG

    os.chdir(os.path.dirname(dag_file))
    with open(dag_file, encoding="utf-8") as file:
        code = compile(file.read(), dag_file, "exec")
    names = {"__name__": "dag", "__file__": dag_file}
    start = time.process_time()
    exec(code, names)
    seconds = time.process_time() - start
    (dag,) = [value for value in names.values() if isinstance(value, DAG)]
    return seconds, len(dag.task_dict)


if __name__ == "__main__":
    main(*sys.argv[1:])
