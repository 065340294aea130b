"""Processes of commands: start, output and exit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from airflow_provider_sewer.execution.output import LineSplitter, Stream
from airflow_provider_sewer.execution.process import Exit
from tests.execution.commands import Collected, drop, holding, process

on_any_system = pytest.mark.usefixtures("on_any_system")

# --- its output


@on_any_system
def test_follow_separates_stdout_and_stderr() -> None:
    """Lines of both streams arrive, in order per stream, each with its stream."""
    sink = Collected()
    source = """
        import sys
        for i in range(1000):
            print("out", i)
            print("err", i, file=sys.stderr)
    """

    exit_ = process(source).follow(sink)

    assert exit_ == Exit(0, None, stopped=False, leftovers=False)
    assert sink.of(Stream.STDOUT) == [f"out {i}\n" for i in range(1000)]
    assert sink.of(Stream.STDERR) == [f"err {i}\n" for i in range(1000)]


def test_follow_forwards_lines_while_command_runs(lifeline, background) -> None:
    """A line is handed on while the command still runs, not at its end."""
    sink = Collected()
    running = holding("print('first'); signal.pause()", lifeline, grace=0)

    follow = background(lambda: running.follow(sink))
    sink.expect("first\n")
    running.stop()

    assert follow.result().stopped


@on_any_system
@pytest.mark.parametrize(("text", "stream"), [("\repoch 1", "stderr"), ("...", "stderr"), ("Continue? ", "stdout")])
def test_follow_forwards_partial_line_in_pause(text: str, stream: str, lifeline, background, monkeypatch) -> None:
    """The process writes nothing more until its partial line has been forwarded."""
    monkeypatch.setattr("airflow_provider_sewer.execution.process.LineSplitter", partial(LineSplitter, patience=0.6))
    sink = Collected()
    running = holding(f"sys.{stream}.write({text!r}); sys.{stream}.flush(); signal.pause()", lifeline, grace=0)

    follow = background(lambda: running.follow(sink))
    sink.expect(text)
    running.stop()

    assert follow.result().stopped
    assert sink.pieces == [(Stream(stream), text)]


def test_follow_batches_redrawn_line(monkeypatch) -> None:
    """It is redrawn some thousand times; all of it arrives, in few pieces."""
    monkeypatch.setattr("airflow_provider_sewer.execution.process.LineSplitter", partial(LineSplitter, patience=0.2))
    sink = Collected()
    source = """
        import sys, time
        end = time.monotonic() + 1
        drawn = 0
        while time.monotonic() < end:
            drawn += 1
            sys.stderr.write(f"\\rstep {drawn}")
            time.sleep(0.0005)
        print(drawn)
    """

    process(source).follow(sink)

    drawn = int(sink.of(Stream.STDOUT)[0])
    assert "".join(sink.of(Stream.STDERR)) == "".join(f"\rstep {number}" for number in range(1, drawn + 1))
    assert 2 <= len(sink.of(Stream.STDERR)) <= 6 < drawn


def test_follow_preserves_order_across_streams(tmp_path: Path, background) -> None:
    """A line of stdout that was read before one of stderr is written arrives before it."""
    sink = Collected()
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    source = """
        import sys
        print("one"); open(sys.argv[1]).read()
        print("two", file=sys.stderr); open(sys.argv[1]).read()
        print("three")
    """

    follow = background(lambda: process(source, str(gate)).follow(sink))
    for line in ("one\n", "two\n"):
        sink.expect(line)
        gate.write_text("go on", encoding="utf-8")
    follow.result()

    assert [piece for _, piece in sink.pieces] == ["one\n", "two\n", "three\n"]


def test_follow_preserves_any_bytes() -> None:
    """Bytes that are no text, brackets, NUL and a missing newline all arrive."""
    sink = Collected()
    source = r"import os; os.write(1, b'[red] \xff\xfe \x00 caf\xc3\xa9 \xe2\x82\r\n[/red]\nno newline')"

    process(source).follow(sink)

    assert sink.of(Stream.STDOUT) == ["[red] \\xff\\xfe \0 café \\xe2\\x82\r\n", "[/red]\n", "no newline"]


def test_process_stdin_is_empty() -> None:
    """Reading from stdin returns end-of-file at once."""
    sink = Collected()

    process("import sys; print(repr(sys.stdin.read()))").follow(sink)

    assert sink.of(Stream.STDOUT) == ["''\n"]


@on_any_system
def test_follow_waits_for_process_that_closed_stdout(lifeline, background) -> None:
    """A command that closes its output and runs on is followed to its real end."""
    source = """
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        os.close(1)
        os.close(2)
        put(f"{os.getpid()} closed")
        sys.exit(0 if signal.sigwait([signal.SIGUSR1]) else 1)
    """
    running = holding(source, lifeline)

    follow = background(lambda: running.follow(drop))
    lifeline.expect("closed")
    os.kill(int(lifeline.heard.split()[0]), signal.SIGUSR1)

    assert follow.result() == Exit(0, None, stopped=False, leftovers=False)


@on_any_system
def test_stop_ends_process_that_closed_its_output(lifeline, background) -> None:
    """A command that has closed its output and sleeps is ended like any other."""
    running = holding("os.close(1); os.close(2); put('closed'); signal.pause()", lifeline)

    follow = background(lambda: running.follow(drop))
    lifeline.expect("closed")
    running.stop()

    assert follow.result() == Exit(None, signal.SIGTERM, stopped=True, leftovers=False)


@pytest.mark.slow
def test_follow_bounds_memory_with_250_mb_of_output(script) -> None:
    """200 MB of lines and one line of 50 MB pass through in bounded memory, every byte of them."""
    measure = script(
        """
        import resource, sys
        from airflow_provider_sewer.core.command import Command
        from airflow_provider_sewer.execution.process import Process

        noisy = r'''
        import os
        block = (b"x" * 99 + b"\\n") * 10_000
        for _ in range(200): os.write(1, block)
        line = b"y" * 1_000_000
        for _ in range(50): os.write(2, line)
        '''
        count = 0
        def sink(stream, pieces):
            global count
            count += sum(map(len, pieces))
            assert sum(map(len, pieces)) < 1_000_000

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        exit_ = Process(Command((sys.executable, "-c", noisy), {}), mark="test/", grace=1.0).follow(sink)
        print(exit_.code, count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        """
    )

    code, count, grown_kib = map(int, measure.output().split())

    assert (code, count) == (0, 200 * 1_000_000 + 50_000_000)
    assert grown_kib < 20_000


# --- how it ends


@on_any_system
@pytest.mark.parametrize("code", [0, 1, 2, 127, 137, 255])
def test_process_exit_code_is_returned(code: int) -> None:
    """The exit code is that of the command."""
    assert process(f"import os; os._exit({code})").follow(drop) == Exit(code, None, stopped=False, leftovers=False)


@on_any_system
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM, signal.SIGRTMIN + 3])
def test_process_signal_is_returned(number: int) -> None:
    """A command ended by a signal has that signal and no exit code."""
    exit_ = process(f"import os; os.kill(os.getpid(), {int(number)})").follow(drop)

    assert exit_ == Exit(None, int(number), stopped=False, leftovers=False)


def test_unknown_exit_code_is_none_not_zero(script) -> None:
    """Where the system throws exit codes away (SIGCHLD ignored), none is reported instead of a 0."""
    unknowing = script(
        """
        import signal, sys
        from airflow_provider_sewer.core.command import Command
        from airflow_provider_sewer.execution.process import Process
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        command = Command((sys.executable, "-c", "import sys; sys.exit(3)"), {})
        print(Process(command, mark="test/", grace=1.0).follow(lambda *_: None))
        """
    )

    assert unknowing.output() == "Exit(code=None, signal=None, stopped=False, leftovers=False)\n"


@on_any_system
def test_follow_ends_background_process_holding_output(lifeline, background) -> None:
    """A grandchild that keeps the pipe open does not hang the task: it is ended, and that is reported."""
    source = """
        if os.fork() == 0:
            os.setsid()
            put("grandchild")
            signal.pause()
        os.read(os.open(sys.argv[2], os.O_RDONLY), 1)
    """
    gate = lifeline.path + ".gate"
    os.mkfifo(gate)

    follow = background(lambda: holding(source, lifeline, gate).follow(drop))
    lifeline.expect("grandchild")
    Path(gate).write_text("go on", encoding="utf-8")

    assert follow.result() == Exit(0, None, stopped=False, leftovers=True)
    lifeline.expect_end()


def test_follow_forwards_late_output_of_background_process() -> None:
    """Output of a grandchild shortly after the command's end belongs to the output."""
    sink = Collected()
    source = """
        import os, sys
        parent = os.getpid()
        if os.fork() == 0:
            while os.getppid() == parent: pass
            print("last word")
    """

    exit_ = process(source).follow(sink)

    assert exit_ == Exit(0, None, stopped=False, leftovers=False)
    assert sink.of(Stream.STDOUT) == ["last word\n"]


def test_follow_closes_output_held_by_unreachable_process(lifeline, background) -> None:
    """A process with another session, parent and environment cannot be found, but it does not delay the end."""
    source = """
        out_of_reach = "import os, signal, sys; os.write(int(sys.argv[1]), b'%d out' % os.getpid()); signal.pause()"
        os.set_inheritable(life, True)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execve(sys.executable, [sys.executable, "-c", out_of_reach, str(life)], {})
            os._exit(0)
        os.wait()
    """

    follow = background(lambda: holding(source, lifeline).follow(drop))

    lifeline.expect("out")
    assert follow.result() == Exit(0, None, stopped=False, leftovers=True)
    os.kill(int(lifeline.heard.split()[0]), signal.SIGKILL)
    lifeline.expect_end()


def test_process_is_stopped_when_supervisor_ends(lifeline, background) -> None:
    """A command that is run for another process is stopped when that process ends."""
    supervisor = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    running = holding("put('here'); signal.pause()", lifeline)
    running.supervisor = supervisor.pid

    follow = background(lambda: running.follow(drop))
    lifeline.expect("here")
    supervisor.communicate()

    assert follow.result() == Exit(None, signal.SIGTERM, stopped=True, leftovers=False)
