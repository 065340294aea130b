"""Client of a debug adapter: it runs one debug configuration as VS Code does after F5."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any


class DebugAdapter:
    """Debug adapter of debugpy, and the program that it has a terminal start.

    :param workspace: the folder that VS Code opens.
    :param env: the environment of the terminal.
    """

    def __init__(self, workspace: str, env: dict[str, str]) -> None:
        self._workspace = workspace
        self._env = env
        self._number = 0
        self._program: subprocess.Popen[bytes] | None = None
        self._adapter = subprocess.Popen(
            [sys.executable, "-m", "debugpy.adapter"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
        )

    def stop_at(self, configuration: dict[str, Any], file: str, line: int) -> dict[str, Any]:
        """Start a configuration with a breakpoint, and return the variables in the frame where it stops.

        Then let the program go on to its end.
        """
        self._send("initialize", adapterID="debugpy", supportsRunInTerminalRequest=True, pathFormat="path")
        self._until("response", "initialize")
        self._send("launch", **self._substituted({"cwd": "${workspaceFolder}", **configuration}))
        self._until("event", "initialized")
        self._send("setBreakpoints", source={"path": file}, breakpoints=[{"line": line}])
        self._send("configurationDone")
        thread = self._until("event", "stopped")["body"]["threadId"]
        frame = self._ask("stackTrace", threadId=thread)["stackFrames"][0]
        assert (frame["source"]["path"], frame["line"]) == (file, line)
        (scope, *_) = self._ask("scopes", frameId=frame["id"])["scopes"]
        variables = self._ask("variables", variablesReference=scope["variablesReference"])["variables"]
        self._send("continue", threadId=thread)
        self._until("event", "terminated")
        return {each["name"]: each["value"] for each in variables}

    def close(self) -> None:
        """End both processes."""
        for process in filter(None, (self._program, self._adapter)):
            process.kill()
            process.wait()
        self._adapter.stdin.close()
        self._adapter.stdout.close()

    def _substituted(self, configuration: dict[str, Any]) -> dict[str, Any]:
        return json.loads(json.dumps(configuration).replace("${workspaceFolder}", self._workspace))

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        self._send(command, **arguments)
        return self._until("response", command)["body"]

    def _send(self, command: str, **arguments: Any) -> None:
        self._write({"type": "request", "command": command, "arguments": arguments})

    def _write(self, message: dict[str, Any]) -> None:
        self._number += 1
        data = json.dumps({"seq": self._number, **message}).encode()
        self._adapter.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(data), data))
        self._adapter.stdin.flush()

    def _until(self, kind: str, name: str) -> dict[str, Any]:
        while True:
            message = self._read()
            if message["type"] == "response":
                assert message["success"], message
            if message["type"] == "request":
                self._run_in_terminal(message)
            elif (message["type"], message.get("command", message.get("event"))) == (kind, name):
                return message

    def _read(self) -> dict[str, Any]:
        length = 0
        while (header := self._adapter.stdout.readline().strip()) != b"":
            length = int(header.partition(b":")[2])
        assert length, "the adapter has ended"
        return json.loads(self._adapter.stdout.read(length))

    def _run_in_terminal(self, request: dict[str, Any]) -> None:
        assert request["command"] == "runInTerminal"
        asked = request["arguments"]
        # VS Code types the command into a shell. It leaves "<" and ">" as they are, and escapes signs in other words.
        words = [
            word if word in ("<", ">") else re.sub(r"([\"'\\$!><#()\[\]*&^| ;{}?`])", r"\\\1", word) or '""'
            for word in asked["args"]
        ]
        self._program = subprocess.Popen(
            ["bash", "-c", "exec " + " ".join(words)],
            cwd=asked["cwd"],
            env={**self._env, **asked.get("env", {})},
            stdin=subprocess.DEVNULL,
        )
        body = {"processId": self._program.pid}
        answer = {"type": "response", "request_seq": request["seq"], "command": request["command"]}
        self._write({**answer, "success": True, "body": body})
