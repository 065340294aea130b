"""What tests ask of an Airflow over its REST API, wherever it runs: its runs, its tasks, their logs."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Self, TypeVar
from urllib.parse import quote

import psutil
import pytest

Answer = TypeVar("Answer")

PATIENCE = 120.0
SHORTEST_POLL = 0.2


class Refused(Exception):
    """The REST API answered with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class AirflowApi:
    """The REST API of an Airflow; as a context manager, that Airflow is started and stopped.

    :param url: where its API server is.
    :param login: user and password, if it wants any.
    """

    def __init__(self, url: str, login: dict[str, str] | None = None) -> None:
        self.url = url
        self._login = login
        self._token = ""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start this Airflow; return when it answers."""
        raise NotImplementedError

    def stop(self) -> None:
        """End all of it, also where it was not started to the end."""
        raise NotImplementedError

    def log_in(self) -> bool:
        """Get a token for all that is asked from now on."""
        body = None if self._login is None else json.dumps(self._login).encode()
        request = urllib.request.Request(f"{self.url}/auth/token", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            self._token = json.load(answer)["access_token"]
        return True

    def trouble(self) -> str:
        """Say what is wrong with this Airflow, if anything is that no waiting will mend."""
        return ""

    def tails(self, characters: int = 3000) -> str:
        """Return the last lines that each of its parts has written."""
        return ""

    def get(self, path: str) -> Any:
        return self._call("GET", path)

    def patch(self, path: str, body: dict) -> Any:
        return self._call("PATCH", path, body)

    def trigger(self, dag_id: str, conf: dict | None = None) -> str:
        """Start a run of a DAG, as soon as the DAG has been parsed; return the run's id."""
        self.until(lambda: self._parsed(dag_id), f"DAG {dag_id} to be parsed")
        return self.until(lambda: self._started(dag_id, conf or {}), f"a run of DAG {dag_id} to be taken")

    def mark_run(self, dag_id: str, run_id: str, state: str) -> None:
        """Mark a whole run "failed" or "success", as people do in the UI."""
        self._call("PATCH", f"/dags/{dag_id}/dagRuns/{quote(run_id)}", {"state": state})

    def run_state(self, dag_id: str, run_id: str) -> str:
        return self.get(f"/dags/{dag_id}/dagRuns/{quote(run_id)}")["state"]

    def task_instance(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict:
        return self.get(f"{_task(dag_id, run_id, task_id)}/{map_index}")

    def state(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str | None:
        return self.task_instance(dag_id, run_id, task_id, map_index)["state"]

    def try_number(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> int:
        return self.task_instance(dag_id, run_id, task_id, map_index)["try_number"]

    def wait_for_state(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        states: str | Iterable[str],
        timeout: float = PATIENCE,
        map_index: int = -1,
    ) -> str:
        """Wait until the task is in one of these states, and return it; a failed task is not waited for in vain."""
        wanted = {states} if isinstance(states, str) else set(states)
        final = {"success", "failed", "skipped", "upstream_failed", "removed"}

        def there() -> str | None:
            state = self.state(dag_id, run_id, task_id, map_index)
            if state in final - wanted:
                log = "\n".join(json.dumps(line) for line in self._last_log(dag_id, run_id, task_id, map_index))
                pytest.fail(f"{dag_id}.{task_id} is {state}, not {sorted(wanted)}\n{log}\n{self.tails()}")
            return state if state in wanted else None

        return self.until(there, f"{dag_id}.{task_id} to be {sorted(wanted)}", timeout)

    def mark(self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int = -1) -> None:
        """Mark a task "failed" or "success", as people do in the UI."""
        self._call("PATCH", f"{_task(dag_id, run_id, task_id)}/{map_index}", {"new_state": state})

    def clear(self, dag_id: str, run_id: str, task_ids: Iterable[str]) -> None:
        """Clear tasks, as people do in the UI, so that they run again."""
        body = {
            "dag_run_id": run_id,
            "task_ids": list(task_ids),
            "dry_run": False,
            "only_failed": False,
            "reset_dag_runs": True,
        }
        self._call("POST", f"/dags/{dag_id}/clearTaskInstances", body)

    def log(
        self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1
    ) -> list[dict[str, Any]]:
        """Return the whole log of one try, its trigger's included; each line is an event with a level, a logger, …"""
        path = f"{_task(dag_id, run_id, task_id)}/logs/{try_number}?full_content=true&map_index={map_index}"
        return self.get(path)["content"]

    def lines(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        try_number: int = 1,
        map_index: int = -1,
        streams: Iterable[str] = ("stdout", "stderr"),
    ) -> list[str]:
        """Return what the module has written, as the log of one try has it."""
        loggers = {f"airflow.task.module.{stream}" for stream in streams}
        content = self.log(dag_id, run_id, task_id, try_number, map_index)
        return [line["event"] for line in content if line.get("logger") in loggers]

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        path = f"{_task(dag_id, run_id, task_id)}/xcomEntries/{quote(key)}?map_index={map_index}&deserialize=false"
        value = self.get(path)["value"]
        # The API gives the value as the database has it, the text of a JSON document; but not always, if that is text.
        with suppress(ValueError):
            return json.loads(value) if isinstance(value, str) else value
        return value

    def links(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, str | None]:
        """Return the extra links of a task: name and URL."""
        return self.get(f"{_task(dag_id, run_id, task_id)}/links?map_index={map_index}")["extra_links"]

    def until(self, condition: Callable[[], Answer], what: str, timeout: float = PATIENCE) -> Answer:
        """Ask again and again, and return the first answer that is true; fail loudly when it takes too long.

        An API server that does not answer, or not now, is asked again.
        """
        deadline = time.monotonic() + timeout
        while True:
            last: object = None
            try:
                if last := condition():
                    return last
            except (OSError, http.client.HTTPException, psutil.NoSuchProcess) as error:
                last = error
            except Refused as error:
                if error.status < 500:
                    raise
                last = error
            if (trouble := self.trouble()) or time.monotonic() > deadline:
                pytest.fail(f"waited in vain for {what}; last: {last!r}; {trouble}\n{self.tails()}")
            time.sleep(SHORTEST_POLL)

    def _started(self, dag_id: str, conf: dict) -> str | None:
        try:
            return self._call("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})["dag_run_id"]
        except Refused as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None  # a DAG is listed a moment before it can be run
            raise

    def _parsed(self, dag_id: str) -> bool:
        if any(dag["dag_id"] == dag_id for dag in self.get("/dags?limit=100")["dags"]):
            return True
        if errors := self.get("/importErrors")["import_errors"]:
            pytest.fail("\n".join(error["stack_trace"] for error in errors))
        return False

    def _last_log(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> list[dict[str, Any]]:
        tries = max(1, self.try_number(dag_id, run_id, task_id, map_index))
        return self.log(dag_id, run_id, task_id, tries, map_index)

    def _call(self, method: str, path: str, body: dict | None = None) -> Any:
        headers = {
            "Authorization": f"Bearer {self._token}",
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/api/v2{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Refused(error.code, f"{method} {path}\n{error.read().decode(errors='replace')}") from None


def _task(dag_id: str, run_id: str, task_id: str) -> str:
    return f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{quote(task_id)}"
