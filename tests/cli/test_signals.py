"""However `sppe` is ended, nothing that it has started stays."""

from __future__ import annotations

import os
import signal

import pytest

HOLD = """
    import os, signal, sys
    life = os.open({lifeline!r}, os.O_WRONLY)
    def say(word): os.write(life, word.encode() + b"\\n")
"""
FAMILY = HOLD + "    os.fork() or os.setsid(); say('here'); signal.pause()"
STUBBORN = (
    HOLD + "    signal.signal(signal.SIGTERM, lambda *_: say('told')); say('here')\n    while True: signal.pause()"
)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["INT", "TERM", "HUP"]
)
def test_signal_stops_all_tasks(number: int, code: int, sppe, lifeline) -> None:
    """A signal ends all tasks with all their processes; the summary is printed, and the exit code is the signal's."""
    sppe.tasks(**dict.fromkeys(("one", "two", "three"), FAMILY.format(lifeline=lifeline.path)))
    run = sppe.start("run", "-j", "2")
    lifeline.expect("here", times=4)

    run.send_signal(number)

    stderr = run.communicate(timeout=60)[1]
    assert run.returncode == code
    assert "[one] stopped after " in stderr
    assert "[three] stopped: the run was stopped before it started" in stderr
    assert "\n0 of 3 tasks succeeded, in " in stderr
    assert "Traceback" not in stderr
    lifeline.expect_end()


def test_signal_to_process_group_counts_once(sppe, lifeline) -> None:
    """Ctrl-C, which goes to the whole process group, ends tasks with SIGTERM and the time to end cleanly."""
    source = (
        HOLD
        + """
    def told(*_):
        say("cleans up")
        sys.exit()
    signal.signal(signal.SIGTERM, told)
    signal.signal(signal.SIGINT, lambda *_: say("interrupted"))
    say("here")
    signal.pause()
    """
    )
    sppe.tasks(one=source.format(lifeline=lifeline.path))
    run = sppe.start("run", process_group=0)
    lifeline.expect("here")

    os.killpg(run.pid, signal.SIGINT)

    run.communicate(timeout=60)
    assert run.returncode == 130
    lifeline.expect_end()
    assert lifeline.heard.split("\n") == ["here", "cleans up", ""]


def test_second_signal_kills_tasks(sppe, lifeline) -> None:
    """Who presses Ctrl-C again does not wait for tasks that do not want to end."""
    sppe.tasks(stubborn=STUBBORN.format(lifeline=lifeline.path))
    run = sppe.start("run")
    lifeline.expect("here")

    run.send_signal(signal.SIGINT)
    lifeline.expect("told")
    run.send_signal(signal.SIGINT)

    run.communicate(timeout=60)
    assert run.returncode == 130
    lifeline.expect_end()
    assert lifeline.heard.count("told") == 1


def test_third_signal_ends_sppe_with_stalled_reader(sppe, lifeline) -> None:
    """Tasks are ended even while no process reads the output; the third signal ends `sppe` itself."""
    sppe.tasks(talks=HOLD.format(lifeline=lifeline.path) + "    say('here')\n    while True: print('x' * 1000)")
    run = sppe.start("run")
    lifeline.expect("here")

    run.send_signal(signal.SIGINT)
    run.send_signal(signal.SIGHUP)
    lifeline.expect_end()
    run.send_signal(signal.SIGTERM)

    assert run.wait(timeout=60) == -signal.SIGTERM


def test_sigkill_of_sppe_stops_tasks(sppe, lifeline) -> None:
    """`kill -9` leaves nothing running either."""
    sppe.tasks(**dict.fromkeys(("one", "two"), FAMILY.format(lifeline=lifeline.path)))
    run = sppe.start("run", "-j", "2")
    lifeline.expect("here", times=4)

    run.kill()

    lifeline.expect_end()


def test_nohup_ignores_sighup(sppe, lifeline) -> None:
    """Under `nohup`, SIGHUP stays ignored: the run goes on to its end."""
    sppe.tasks(one=HOLD.format(lifeline=lifeline.path) + "    say(str(os.getpid())); signal.sigwait([signal.SIGUSR1])")
    sppe.write(
        "one_module.py",
        HOLD.format(lifeline=lifeline.path)
        + """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    say(f"{os.getpid()} here")
    signal.sigwait([signal.SIGUSR1])
    """,
    )
    run = sppe.start("run", through=["nohup"])
    lifeline.expect("here")

    run.send_signal(signal.SIGHUP)
    os.kill(int(lifeline.heard.split()[0]), signal.SIGUSR1)

    run.communicate(timeout=60)
    assert run.returncode == 0


HANG = "#!/bin/sh\nexec 3>{lifeline}\necho here >&3\nsleep 1000 &\nwait\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"])
def test_signal_during_interpreter_check_stops_interpreter(number: int, code: int, sppe, lifeline) -> None:
    """A signal that comes during the first checks ends an interpreter that hangs, with all it has started."""
    sppe.tasks(one="")
    sppe.write("python", HANG.format(lifeline=lifeline.path))
    (sppe.folder / "python").chmod(0o755)
    run = sppe.start("run", "-i", "./python")
    lifeline.expect("here")

    run.send_signal(number)

    stderr = run.communicate(timeout=60)[1]
    assert run.returncode == code
    assert stderr == ""
    lifeline.expect_end()


def test_signal_during_load_exits_with_signal_code(sppe, lifeline) -> None:
    """A signal that comes while the workflow file is being read ends `sppe` with the code of the signal."""
    sppe.tasks(one="")
    sppe.write("flow.py", HOLD.format(lifeline=lifeline.path) + "    say('here')\n    signal.pause()")
    run = sppe.start("run")
    lifeline.expect("here")

    run.send_signal(signal.SIGTERM)

    assert run.communicate(timeout=60)[1] == ""
    assert run.returncode == 143


def test_sigkill_during_interpreter_check_stops_interpreter(sppe, lifeline) -> None:
    """Before anything runs, interpreters are asked who they are; one that hangs ends with `sppe`."""
    sppe.write("hangs", f"#!/bin/sh\nexec 3>'{lifeline.path}'\necho here >&3\nsleep 600\n")
    (sppe.folder / "hangs").chmod(0o755)
    sppe.write("flow.py", "from airflow_provider_sewer import Task\na = Task('a', 'this', python='./hangs')\n")
    run = sppe.start("run")
    lifeline.expect("here")

    run.kill()

    lifeline.expect_end()
