"""Program of a task in an Argo pod: it fills in results and arguments, runs the command and saves the result.

The manifest holds the text of this file and passes a description of the task as JSON
(see :mod:`airflow_provider_sewer.exporters.argo.task_values`). An image needs Python 3.9 and nothing of this package.
Argo replaces names in double braces everywhere in a manifest. Therefore this text has none, and the files that it
writes have none either: they can become part of the next pod's manifest.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: The program that calls a function; an input artifact of the pod.
CALL_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "call.py")

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(task_file: str) -> int:
    """Run a task and return the exit code of its process.

    :param task_file: description of the task, as JSON.
    """
    with open(task_file, encoding="utf-8") as file:
        task = json.load(file)
    values = Values(task)
    if "mapped" in task:
        values.row = row_of(task["mapped"], values)
    create_folders(values.filled(task["values"]["products"]))
    with tempfile.TemporaryDirectory() as folder:
        code = run(command(task, values, folder), *values.filled([task["values"]["stdin"], task["values"]["stdout"]]))
    if code:
        values.staged.discard()
        return code
    values.staged.commit()
    if task["result_file"] or task["mapped_over"]:
        save(task, read_result(os.environ["SEWER_RESULT_FILE"]))
    return 0


class StagedProducts:
    """Staging folders beside products: a product appears at its path when it is complete.

    Files that a module writes beside the path that it was given belong to the product.
    """

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}  # the folder of a product, by its staging folder

    def path(self, path: str) -> str:
        """Return the path that the module writes instead of the path of a product."""
        folder, name = os.path.split(path.rstrip("/"))
        staging = os.path.join(folder, f".sewer-{os.environ.get('HOSTNAME', '')}-{os.getpid()}")
        self._folders[staging] = folder or "."
        os.makedirs(staging, exist_ok=True)
        staged = os.path.join(staging, name)
        if path.endswith("/"):
            os.makedirs(staged, exist_ok=True)
            staged += "/"
        return staged

    def commit(self) -> None:
        """Move all files to their paths."""
        for staging, folder in self._folders.items():
            for name in sorted(os.listdir(staging)):
                replace(os.path.join(staging, name), os.path.join(folder, name))
        self.discard()

    def discard(self) -> None:
        """Remove the staging folders."""
        for staging in self._folders:
            shutil.rmtree(staging, ignore_errors=True)


def replace(source: str, target: str) -> None:
    """Move a file or a folder, and remove the former one."""
    if os.path.isdir(target) and not os.path.islink(target):
        shutil.rmtree(target)
    os.replace(source, target)


def create_folders(products: list[str]) -> None:
    """Create the folders of products."""
    for path in products:
        os.makedirs(os.path.dirname(path.rstrip("/")) or ".", exist_ok=True)


class Values:
    """Values of the placeholders of a task.

    :param task: its description.
    """

    def __init__(self, task: dict[str, Any]) -> None:
        self._inputs = task["inputs"]
        self._arguments = task["arguments"]
        self.row: dict[str, Any] = {}
        self.staged = StagedProducts()

    def filled(self, value: Any) -> Any:
        """Return a value with its placeholders replaced, however deep."""
        if isinstance(value, list):
            return [self.filled(item) for item in value]
        if not isinstance(value, dict):
            return value
        kind, inner = next(iter(value.items()), ("", None))
        if not kind.startswith("$"):
            return {key: self.filled(item) for key, item in value.items()}
        return getattr(self, f"_{kind[1:]}")(inner)

    def _object(self, value: dict[str, Any]) -> Any:
        return {key: self.filled(item) for key, item in value.items()}

    def _result(self, result: dict[str, Any]) -> Any:
        value = self._inputs[result["input"]]
        if result["is_loop"]:
            # Argo joins the results of a loop as texts, or as values if all of them are lists or objects.
            value = [json.loads(item) if isinstance(item, str) else item for item in value]
        return part(value, result["path"], result["name"])

    def _argument(self, argument: dict[str, Any]) -> Any:
        text = os.environ[self._arguments[argument["name"]]]
        return part(text if argument["is_text"] else json.loads(text), argument["path"], argument["name"])

    def _text(self, parts: list[Any]) -> str:
        return "".join(str(self.filled(each)) for each in parts)

    def _path(self, path: Any) -> str:
        pattern = r"(?<!\x7b)\x7b(" + "|".join(map(re.escape, self.row)) + r")\x7d(?!\x7d)"
        return re.sub(pattern, lambda found: str(self.row[found[1]]), self.filled(path))

    def _product(self, path: Any) -> str:
        return self.staged.path(self.filled(path))

    def _row(self, key: str) -> Any:
        return self.row[key]


def part(value: Any, path: list[Any], name: str) -> Any:
    """Return a part of a value by keys and positions; exit if there is none."""
    for key in path:
        try:
            value = None if isinstance(value, str) else value[key]
        except (LookupError, TypeError):
            sys.exit(f"{name} has no part {key!r}: it is {value!r:.80}")
    return value


def row_of(mapped: dict[str, Any], values: Values) -> dict[str, Any]:
    """Return the value of one instance of a task that is mapped over a result."""
    return {mapped["key"]: values.filled(mapped["values"])[mapped["index"]]}


def command(task: dict[str, Any], values: Values, folder: str) -> list[str]:
    """Return the command of a task.

    :param folder: folder for the arguments of a function, which may be longer than a command line.
    """
    given = task["values"]
    # Unbuffered, Python would drop output to a file without an error if the disk is full.
    start = [sys.executable] if given["stdout"] else [sys.executable, "-u"]
    if task["module"]:
        options = arguments(values.filled(given["parameters"]), values.filled(given["args"]), task["use_underscores"])
        return [*start, "-m", task["module"], *options]
    kwargs = os.path.join(folder, "kwargs.json")
    with open(kwargs, "w", encoding="utf-8", errors="surrogateescape") as file:
        json.dump(values.filled(given["kwargs"]), file, ensure_ascii=False)
    return [*start, CALL_FILE, task["function"], kwargs]


def arguments(parameters: dict[str, Any], args: list[Any], use_underscores: bool) -> list[str]:
    """Return the arguments of a module: verbatim ones, parameters, flags."""
    options: list[str] = []
    flags: list[str] = []
    for key, value in parameters.items():
        option = "--" + (key if use_underscores else key.replace("_", "-"))
        if value is True:
            flags.append(option)
        elif isinstance(value, list):
            for item in value:
                options += [option, as_text(item, key)]
        elif value is not False and value is not None:
            options += [option, as_text(value, key)]
    return [*(as_text(value, "args") for value in args), *options, *flags]


def as_text(value: Any, name: str) -> str:
    """Return the text of a value on a command line; exit if it has none."""
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    if value is None or isinstance(value, (bool, list)):
        sys.exit(f"{name} must be text, a number, a list of these or an object, got {value!r:.200}")
    return str(value)


def run(argv: list[str], stdin: str | None, stdout: str | None) -> int:
    """Run a process, pass signals on to it and return its exit code.

    :param stdin: the file that it reads; its own stdin if omitted.
    :param stdout: the file that it writes; its own stdout if omitted.
    """
    received: list[int] = []
    for number in _SIGNALS:
        signal.signal(number, lambda each, _: received.append(each))
    env = {name: value for name, value in os.environ.items() if not stdout or name != "PYTHONUNBUFFERED"}
    with open(stdin or os.devnull, "rb") as source, open(stdout or os.devnull, "wb") as target:
        process = subprocess.Popen(argv, stdin=source if stdin else None, stdout=target if stdout else None, env=env)
    for number in _SIGNALS:
        signal.signal(number, lambda each, _: process.send_signal(each))
    for missed in received:
        process.send_signal(missed)
    code = process.wait()
    return code if code >= 0 else 128 - code


def read_result(path: str) -> Any:
    """Return the result that a module has written; exit if it is not JSON."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return None
    try:
        return json.loads(text) if text else None
    except ValueError as error:
        sys.exit(f"the result in $SEWER_RESULT_FILE must be JSON: {error}")


def save(task: dict[str, Any], result: Any) -> None:
    """Write the output parameters: the result, and for each task that is mapped over it the positions of its values."""
    if task["result_file"]:
        write(task["result_file"], result)
    for each in task["mapped_over"]:
        values = part(result, each["path"], each["name"])
        if not isinstance(values, list):
            sys.exit(f"{each['task']} must be mapped over a list, got {values!r:.80} from {each['name']}")
        write(each["file"], list(range(len(values))))


def write(path: str, value: Any) -> None:
    """Write a value as JSON in which Argo finds no names to replace."""
    text = json.dumps(value)
    quoted = re.compile(r'"(?:[^"\\]|\\.)*"')
    with open(path, "w", encoding="utf-8") as file:
        file.write(quoted.sub(lambda found: found[0].replace("\x7b", "\\u007b"), text))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
