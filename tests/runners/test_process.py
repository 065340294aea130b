"""A command is started, followed, and seen to its end: itself and all it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from airflow_provider_sewer.core.command import Command
from airflow_provider_sewer.core.errors import InterpreterError, InvalidTask, WorkdirError
from airflow_provider_sewer.runners import process as process_module
from airflow_provider_sewer.runners.follower import Exit
from airflow_provider_sewer.runners.guardian import new_mark
from airflow_provider_sewer.runners.output import Stream
from airflow_provider_sewer.runners.process import Process

if TYPE_CHECKING:
    from collections.abc import Sequence

on_any_system = pytest.mark.usefixtures("on_any_system")

HOLD = """
    import os, signal, subprocess, sys, time
    life = os.open(sys.argv[1], os.O_WRONLY)
    def say(word): os.write(life, f"{word}\\n".encode())
"""


def process(source: str, *arguments: str, grace: float = 5.0) -> Process:
    """Return a process of a Python program."""
    argv = (sys.executable, "-u", "-c", textwrap.dedent(source), *map(str, arguments))
    return Process(Command(argv, {"PATH": os.environ["PATH"]}), mark=new_mark(), grace=grace)


def holding(source: str, lifeline, *arguments: str, grace: float = 5.0) -> Process:
    """Return a process of a Python program that holds the lifeline."""
    return process(textwrap.dedent(HOLD) + textwrap.dedent(source), lifeline.path, *arguments, grace=grace)


class Collected:
    """A sink that remembers what it was given."""

    def __init__(self) -> None:
        self.pieces: list[tuple[Stream, str]] = []
        self._come = threading.Condition()

    def __call__(self, stream: Stream, pieces: Sequence[str]) -> None:
        with self._come:
            self.pieces += [(stream, piece) for piece in pieces]
            self._come.notify_all()

    def of(self, stream: Stream) -> list[str]:
        return [piece for its, piece in self.pieces if its is stream]

    def expect(self, piece: str) -> None:
        """Wait until a piece has come."""
        with self._come:
            assert self._come.wait_for(lambda: any(piece == come for _, come in self.pieces), 60)


def drop(stream: Stream, pieces: Sequence[str]) -> None:
    """Take pieces and forget them."""


# --- its output


@on_any_system
def test_both_streams_are_followed_and_told_apart() -> None:
    """Lines of both streams arrive, each stream in order and told apart from the other."""
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


def test_lines_come_while_the_command_runs(lifeline, background) -> None:
    """A line is handed on while the command still runs, not at its end."""
    sink = Collected()
    running = holding("print('first'); signal.pause()", lifeline, grace=0)

    follow = background(lambda: running.follow(sink))
    sink.expect("first\n")
    running.stop()

    assert follow.result().stopped


def test_streams_take_turns_as_the_command_does(tmp_path: Path, background) -> None:
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


def test_any_bytes_survive_as_text() -> None:
    """Bytes that are no text, brackets, NUL and a missing newline all arrive."""
    sink = Collected()
    source = r"import os; os.write(1, b'[red] \xff\xfe \x00 caf\xc3\xa9 \xe2\x82\r\n[/red]\nno newline')"

    process(source).follow(sink)

    assert sink.of(Stream.STDOUT) == ["[red] \\xff\\xfe \0 café \\xe2\\x82\r\n", "[/red]\n", "no newline"]


def test_stdin_is_empty() -> None:
    """Whoever reads from stdin finds its end at once."""
    sink = Collected()

    process("import sys; print(repr(sys.stdin.read()))").follow(sink)

    assert sink.of(Stream.STDOUT) == ["''\n"]


@on_any_system
def test_closing_stdout_is_not_the_end(lifeline, background) -> None:
    """A command that closes its output and runs on is followed to its real end."""
    source = """
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        os.close(1)
        os.close(2)
        say(f"{os.getpid()} closed")
        sys.exit(0 if signal.sigwait([signal.SIGUSR1]) else 1)
    """
    running = holding(source, lifeline)

    follow = background(lambda: running.follow(drop))
    lifeline.expect("closed")
    os.kill(int(lifeline.heard.split()[0]), signal.SIGUSR1)

    assert follow.result() == Exit(0, None, stopped=False, leftovers=False)


@on_any_system
def test_a_command_that_closed_its_output_can_be_stopped(lifeline, background) -> None:
    """A command that has closed its output and sleeps is ended like any other."""
    running = holding("os.close(1); os.close(2); say('closed'); signal.pause()", lifeline)

    follow = background(lambda: running.follow(drop))
    lifeline.expect("closed")
    running.stop()

    assert follow.result() == Exit(None, signal.SIGTERM, stopped=True, leftovers=False)


def test_200_mb_of_output_and_a_50_mb_line_need_little_memory(script) -> None:
    """200 MB of lines and one line of 50 MB pass through in bounded memory, every byte of them."""
    measure = script(
        """
        import resource, sys
        from airflow_provider_sewer.core.command import Command
        from airflow_provider_sewer.runners.process import Process

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
def test_the_exit_code_is_reported(code: int) -> None:
    """The exit code is what the command exited with."""
    assert process(f"import os; os._exit({code})").follow(drop) == Exit(code, None, stopped=False, leftovers=False)


@on_any_system
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM, signal.SIGRTMIN + 3])
def test_the_signal_is_reported(number: int) -> None:
    """A command ended by a signal has that signal and no exit code."""
    exit_ = process(f"import os; os.kill(os.getpid(), {int(number)})").follow(drop)

    assert exit_ == Exit(None, int(number), stopped=False, leftovers=False)


def test_an_exit_code_that_cannot_be_known_is_never_zero(script) -> None:
    """Where the system throws exit codes away (SIGCHLD ignored), none is reported instead of a 0."""
    unknowing = script(
        """
        import signal, sys
        from airflow_provider_sewer.core.command import Command
        from airflow_provider_sewer.runners.process import Process
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        command = Command((sys.executable, "-c", "import sys; sys.exit(3)"), {})
        print(Process(command, mark="test/", grace=1.0).follow(lambda *_: None))
        """
    )

    assert unknowing.output() == "Exit(code=None, signal=None, stopped=False, leftovers=False)\n"


@on_any_system
def test_a_grandchild_that_holds_the_output_is_ended_after_a_while(lifeline, background) -> None:
    """A grandchild that keeps the pipe open does not hang the task: it is ended, and that is reported."""
    source = """
        if os.fork() == 0:
            os.setsid()
            say("grandchild")
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


def test_a_last_word_of_a_grandchild_still_arrives() -> None:
    """What a grandchild writes shortly after the command has ended belongs to its output."""
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


def test_output_that_somebody_out_of_reach_holds_is_let_go(lifeline, background) -> None:
    """What has left its session, its parent and its environment cannot be found; but it holds up nobody."""
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


def test_a_command_ends_with_whom_it_is_run_for(lifeline, background) -> None:
    """A command that is run for another process is stopped when that process ends."""
    supervisor = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    running = holding("say('here'); signal.pause()", lifeline)
    running.supervisor = supervisor.pid

    follow = background(lambda: running.follow(drop))
    lifeline.expect("here")
    supervisor.communicate()

    assert follow.result() == Exit(None, signal.SIGTERM, stopped=True, leftovers=False)


# --- ending it: every kind of descendant

DESCENDANTS = {
    "a child": "signal.pause()",
    "a child in a session of its own": "os.setsid(); signal.pause()",
    "a child of a child": "os.fork() == 0 and os.setsid(); signal.pause()",
    "one that was left by its parent": "os.setsid(); os.fork() and os._exit(0); say('member'); signal.pause()",
    "one that closed the output": "os.setsid(); os.close(1); os.close(2); signal.pause()",
    "one that ignores SIGTERM": "ignore_sigterm(); say('member'); signal.pause()",
    "one that forgot its environment": "forget()",
    "one that left and forgot": "os.setsid(); forget()",
    "one that forgot and was left": "os.fork() and os._exit(0); forget()",
    "one that left, forgot and is left when its parent ends": "os.setsid(); ignore_sigterm(); forget()",
}
BREED = """
    def ignore_sigterm():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def forget():
        pause = "import os, signal, sys; os.write(os.open(sys.argv[1], os.O_WRONLY), b'member\\\\n'); signal.pause()"
        os.execve(sys.executable, [sys.executable, "-c", pause, sys.argv[1]], {{}})

    if os.fork() == 0:
        say("member")
        {descendant}
    say("member")
    signal.pause()
"""


@on_any_system
@pytest.mark.parametrize("descendant", DESCENDANTS.values(), ids=DESCENDANTS)
def test_stopping_ends_every_descendant(descendant: str, lifeline, background) -> None:
    """A stop ends the command and every descendant, however it has detached itself."""
    running = holding(BREED.format(descendant=descendant), lifeline, grace=0.5)
    members = 2 + descendant.count("member") + descendant.count("forget()")

    follow = background(lambda: running.follow(drop))
    lifeline.expect("member", times=members)
    running.stop()

    assert follow.result().stopped
    lifeline.expect_end()


@on_any_system
def test_a_command_that_forgot_its_environment_is_ended(lifeline, background) -> None:
    """A command that overwrites its environment, as setproctitle does, is stopped all the same."""
    pause = "import os, signal; os.write({life}, b'ready\\n'); signal.pause()"
    source = f"""
        os.set_inheritable(life, True)
        os.execve(sys.executable, [sys.executable, "-c", {pause!r}.replace("{{life}}", str(life))], {{}})
    """
    running = holding(source, lifeline)

    follow = background(lambda: running.follow(drop))
    lifeline.expect("ready")
    running.stop()

    assert follow.result() == Exit(None, signal.SIGTERM, stopped=True, leftovers=False)
    lifeline.expect_end()


def test_children_forked_while_being_ended_are_ended(lifeline, background) -> None:
    """A tree that keeps forking while it is being ended is ended to the last process."""
    source = """
        def breed(*_):
            while True:
                if os.fork():
                    os._exit(0)
        signal.signal(signal.SIGTERM, breed)
        say("ready")
        signal.pause()
    """
    running = holding(source, lifeline, grace=0.3)

    follow = background(lambda: running.follow(drop))
    lifeline.expect("ready")
    running.stop()

    assert follow.result().stopped
    lifeline.expect_end()


def test_what_is_written_while_ending_still_arrives(lifeline, background) -> None:
    """What a command writes when it is asked to end is part of its output."""
    sink = Collected()
    running = holding(
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved'), sys.exit(0))); say('ready'); signal.pause()",
        lifeline,
    )

    follow = background(lambda: running.follow(sink))
    lifeline.expect("ready")
    running.stop()

    assert follow.result() == Exit(0, None, stopped=True, leftovers=False)
    assert sink.of(Stream.STDOUT) == ["saved\n"]


def test_a_command_that_is_stopped_before_it_starts_never_starts(tmp_path: Path) -> None:
    """A stop that comes first is obeyed: nothing starts."""
    trace = tmp_path / "trace"
    running = process("import sys; open(sys.argv[1], 'w')", str(trace))
    running.stop()

    assert running.follow(drop) == Exit(None, None, stopped=True, leftovers=False)
    assert not trace.exists()


STUBBORN = """
    signal.signal(signal.SIGTERM, lambda *_: say("told"))
    say("ready")
    while True: signal.pause()
"""


def test_sigterm_is_sent_once_to_each_process(lifeline, background) -> None:
    """Each process is asked once: a second SIGTERM would cut short what it does to end cleanly."""
    running = holding(STUBBORN, lifeline, grace=1.0)

    follow = background(lambda: running.follow(drop))
    lifeline.expect("ready")
    running.stop()
    running.stop()

    assert follow.result() == Exit(None, signal.SIGKILL, stopped=True, leftovers=False)
    lifeline.expect_end()
    assert Counter(lifeline.heard.split()) == {"ready": 1, "told": 1}


def test_stopping_at_once_does_not_ask(lifeline, background) -> None:
    """A stop at once kills without SIGTERM and without waiting."""
    running = holding(STUBBORN, lifeline, grace=3600)

    follow = background(lambda: running.follow(drop))
    lifeline.expect("ready")
    running.stop(at_once=True)

    assert follow.result() == Exit(None, signal.SIGKILL, stopped=True, leftovers=False)
    lifeline.expect_end()
    assert "told" not in lifeline.heard


@on_any_system
def test_a_second_stop_at_once_cuts_the_grace_short(lifeline, background) -> None:
    """Whoever does not want to wait for the grace stops once more, at once."""
    running = holding(STUBBORN, lifeline, grace=3600)

    follow = background(lambda: running.follow(drop))
    lifeline.expect("ready")
    running.stop()
    lifeline.expect("told")
    running.stop(at_once=True)

    assert follow.result() == Exit(None, signal.SIGKILL, stopped=True, leftovers=False)


def test_the_grace_of_a_detached_descendant_can_be_cut_short(lifeline, background) -> None:
    """A stop at once also ends a stubborn descendant that holds none of the output."""
    source = """
        if os.fork() == 0:
            os.setsid(); os.close(1); os.close(2)
            signal.signal(signal.SIGTERM, lambda *_: say("told"))
            say("ready")
            while True: signal.pause()
        signal.pause()
    """
    running = holding(source, lifeline, grace=3600)

    follow = background(lambda: running.follow(drop))
    lifeline.expect("ready")
    running.stop()
    lifeline.expect("told")
    running.stop(at_once=True)

    assert follow.result().stopped
    lifeline.expect_end()


def test_a_stop_after_the_end_touches_nothing(tmp_path: Path) -> None:
    """A stop that comes too late does not write into whatever has been opened since."""
    running = process("pass")
    running.follow(drop)

    with ExitStack() as stack:
        files = [stack.enter_context((tmp_path / f"file {number}").open("w")) for number in range(20)]
        running.stop()

    assert [Path(file.name).stat().st_size for file in files] == [0] * 20


# --- what interrupts the following


@on_any_system
def test_a_failing_sink_ends_the_tree(lifeline, background) -> None:
    """When the output cannot be taken, as on a full disk, the tree is ended and the error raised."""

    def full(stream: Stream, pieces: Sequence[str]) -> None:
        raise OSError(28, "No space left on device")

    running = holding("os.fork(); say('here'); print('hello'); signal.pause()", lifeline)
    follow = background(lambda: running.follow(full))

    with pytest.raises(OSError, match="No space left"):
        follow.result()
    lifeline.expect_end()


def test_a_command_can_still_end_cleanly_when_the_sink_has_failed(lifeline, background) -> None:
    """A command whose output nobody takes any more is not kept from ending cleanly by a full pipe."""

    def full(stream: Stream, pieces: Sequence[str]) -> None:
        raise OSError(28, "No space left on device")

    source = """
        def end(*_):
            print("x" * 1_000_000)
            say("ended cleanly")
            sys.exit()
        signal.signal(signal.SIGTERM, end)
        print("hello")
        signal.pause()
    """
    running = holding(source, lifeline, grace=50.0)
    follow = background(lambda: running.follow(full))

    with pytest.raises(OSError, match="No space left"):
        follow.result()
    lifeline.expect_end()
    assert "ended cleanly" in lifeline.heard


class TimeIsUp(BaseException):
    """What a signal handler raises in the middle of something."""


@on_any_system
def test_an_error_raised_by_a_signal_handler_ends_the_tree(lifeline) -> None:
    """A timeout raised in the middle, as Airflow's execution_timeout is, ends the whole tree."""

    def raise_it(*_: object) -> None:
        raise TimeIsUp

    source = """
        if os.fork() == 0:
            os.setsid()
            say("here")
            signal.pause()
        say("here")
        os.kill(os.getppid(), signal.SIGUSR1)
        signal.pause()
    """
    running = holding(source, lifeline)
    previous = signal.signal(signal.SIGUSR1, raise_it)
    try:
        with pytest.raises(TimeIsUp):
            running.follow(drop)
    finally:
        signal.signal(signal.SIGUSR1, previous)

    lifeline.expect_end()
    assert lifeline.heard.count("here") >= 1


def test_an_error_raised_right_after_the_start_ends_the_tree(lifeline, monkeypatch) -> None:
    """An error raised by a signal handler before the output is followed ends the tree as well."""
    real = process_module.started
    started = []

    def interrupted(*arguments: object) -> None:
        started.append(real(*arguments))
        lifeline.expect("here", times=2)
        raise TimeIsUp

    monkeypatch.setattr(process_module, "started", interrupted)

    with pytest.raises(TimeIsUp):
        holding("os.fork() or os.setsid(); say('here'); signal.pause()", lifeline).follow(drop)

    lifeline.expect_end()
    started[0].communicate()


def test_a_stop_from_a_signal_handler_ends_the_tree(lifeline) -> None:
    """A stop that comes from a signal handler in the very thread that follows is obeyed."""
    running = holding("say('here'); os.kill(os.getppid(), signal.SIGUSR1); signal.pause()", lifeline)
    previous = signal.signal(signal.SIGUSR1, lambda *_: running.stop())
    try:
        exit_ = running.follow(drop)
    finally:
        signal.signal(signal.SIGUSR1, previous)

    assert exit_ == Exit(None, signal.SIGTERM, stopped=True, leftovers=False)
    lifeline.expect_end()


def test_a_signal_that_comes_just_before_a_wait_is_obeyed(lifeline, signal_unnoticed) -> None:
    """A stop from a signal handler is obeyed even if the signal did not interrupt the wait for output."""
    running = holding("say('here'); signal.pause()", lifeline)
    signal_unnoticed(running.stop, lambda: lifeline.expect("here"))

    assert running.follow(drop).stopped


@pytest.mark.parametrize("executable", [sys.executable, "/nowhere"])
def test_no_descriptor_stays_open(executable: str, tmp_path: Path) -> None:
    """However often commands are run, fail, cannot start or lose their reader, no descriptor stays open."""

    def full(stream: Stream, pieces: Sequence[str]) -> None:
        raise OSError(28, "No space left on device")

    before = psutil.Process().num_fds()
    for code, sink in [("pass", drop), ("1 / 0", drop), ("print(1)", full)] * 3:
        with suppress(OSError, InterpreterError):
            Process(Command((executable, "-c", code), {}), mark=new_mark(), grace=0.0).follow(sink)

    assert psutil.Process().num_fds() == before


# --- what cannot be started


def refused(*argv: str, env: dict[str, str] | None = None, workdir: str | None = None) -> Exception:
    with pytest.raises((InterpreterError, WorkdirError, InvalidTask)) as caught:
        Process(Command(argv, env or {}, workdir), mark=new_mark(), grace=0).follow(drop)
    return caught.value


def test_a_missing_executable_is_named(tmp_path: Path) -> None:
    """An executable that has gone is an interpreter error."""
    error = refused(str(tmp_path / "python"))

    assert isinstance(error, InterpreterError)
    assert str(error) == f"cannot start {tmp_path}/python: No such file or directory"


def test_an_executable_whose_own_interpreter_is_missing_says_so(tmp_path: Path) -> None:
    """A script whose first line names something missing is told apart from a missing script."""
    script = tmp_path / "python"
    script.write_text("#!/nowhere/python3\n", encoding="utf-8")
    script.chmod(0o755)

    error = refused(str(script))

    assert isinstance(error, InterpreterError)
    assert str(error).startswith(f"cannot start {script}: it exists, but what it needs to run does not")


def test_a_text_file_is_not_run_by_a_shell(tmp_path: Path) -> None:
    """An executable text file without a first line for the kernel is refused, never given to a shell."""
    script = tmp_path / "python"
    script.write_text(f"touch {tmp_path}/trace\n", encoding="utf-8")
    script.chmod(0o755)

    error = refused(str(script))

    assert isinstance(error, InterpreterError)
    assert str(error) == f"cannot start {script}: Exec format error"
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("kind", ["missing", "a file"])
def test_a_working_directory_that_cannot_be_entered_is_named(kind: str, tmp_path: Path) -> None:
    """A working directory that has gone meanwhile is told apart from a missing interpreter."""
    workdir = tmp_path / "work"
    if kind == "a file":
        workdir.touch()

    error = refused(sys.executable, workdir=str(workdir))

    assert isinstance(error, WorkdirError)
    assert str(error).startswith(f"cannot enter the working directory {workdir}: No")


def test_a_working_directory_without_permission_is_named(closed_folder: Path, script) -> None:
    """A working directory that this user may not enter is named."""
    unprivileged = script(
        """
        import os, sys
        from airflow_provider_sewer.core.command import Command
        from airflow_provider_sewer.core.errors import WorkdirError
        from airflow_provider_sewer.runners.process import Process
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            Process(Command(("/bin/true",), {}, sys.argv[1]), mark="test/", grace=0).follow(lambda *_: None)
        except WorkdirError as error:
            print(error)
        """,
        str(closed_folder),
    )

    assert unprivileged.output() == f"cannot enter the working directory {closed_folder}: Permission denied\n"


def test_an_argument_that_is_too_long_is_named() -> None:
    """An argument too long for the system is named with its size."""
    error = refused(sys.executable, "-c", "pass", "--text", "é" * 100_000)

    assert isinstance(error, InvalidTask)
    assert "the one after --text alone is 200,001 bytes" in str(error)
    assert "é" not in str(error)


def test_too_many_arguments_are_counted() -> None:
    """Arguments that are too long together are named with their size."""
    error = refused(sys.executable, "-c", "pass", *["x" * 100_000] * 50)

    assert isinstance(error, InvalidTask)
    assert "arguments and environment are 5,000," in str(error)


def test_a_variable_that_is_too_long_is_named() -> None:
    """A variable too long for the system is named, and its value is not shown."""
    error = refused(sys.executable, "-c", "pass", env={"SMALL": "1", "BIG": "secret" * 50_000})

    assert isinstance(error, InvalidTask)
    assert "the variable 'BIG' alone is 300,005 bytes" in str(error)
    assert "secret" not in str(error)
