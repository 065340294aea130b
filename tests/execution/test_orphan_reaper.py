"""Cleanup by the reaper after the runner has died."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

from airflow_provider_sewer.core.command import Command
from airflow_provider_sewer.core.errors import ModuleFailed
from airflow_provider_sewer.execution.orphan_reaper import OrphanReaper, roots_of
from airflow_provider_sewer.execution.process import Process
from tests.waiting import wait_until

RUN_A_MODULE = """
    import sys
    from airflow_provider_sewer.core.execution_settings import ExecutionSettings
    from airflow_provider_sewer.core.call import module_call
    from airflow_provider_sewer.execution.module_runner import ModuleRunner, RunEnvironment
    folder, module, lifeline = sys.argv[1:]
    settings = ExecutionSettings(python=sys.executable, env={"PYTHONPATH": folder})
    ModuleRunner(module_call(module, [lifeline]), settings, RunEnvironment(0.5)).run(lambda *_: None)
"""
RUN_A_WORKFLOW = """
    import sys
    from airflow_provider_sewer.core.execution_settings import ExecutionSettings
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.execution.workflow_runner import WorkflowRunner
    folder, module, lifeline = sys.argv[1:]
    settings = ExecutionSettings(python=sys.executable, env={"PYTHONPATH": folder})
    tasks = [Task(str(number), module, args=[lifeline]) for number in range(3)]
    WorkflowRunner(Workflow("all", tasks), settings, jobs=3, grace=0.5).run()
"""
FAMILY = """
    import os, signal, sys
    life = os.open(sys.argv[1], os.O_WRONLY)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        os.setsid()
        os.fork()
    os.write(life, b"member\\n")
    signal.pause()
"""
FORGETFUL = """
    import os, signal, sys
    pause = "import os, signal, sys; os.write(os.open(sys.argv[1], os.O_WRONLY), b'member\\\\n'); signal.pause()"
    os.execve(sys.executable, [sys.executable, "-c", pause, sys.argv[1]], {})
"""


@pytest.mark.parametrize(("runner", "members"), [(RUN_A_MODULE, 3), (RUN_A_WORKFLOW, 9)], ids=["module", "workflow"])
def test_reaper_ends_process_trees_of_killed_runner(runner: str, members: int, modules, lifeline, script) -> None:
    """A runner that is killed by SIGKILL leaves nothing running, neither detached nor stubborn descendants."""
    running = script(runner, str(modules.folder), modules.write(FAMILY), lifeline.path)
    lifeline.expect("member", times=members)

    running.send(signal.SIGKILL)

    lifeline.expect_end()


@pytest.mark.parametrize(("runner", "members"), [(RUN_A_MODULE, 1), (RUN_A_WORKFLOW, 3)], ids=["module", "workflow"])
def test_reaper_ends_processes_without_tag(runner, members, modules, lifeline, script) -> None:
    """The reaper knows the pids of the modules, so that it also ends those that have lost their mark."""
    running = script(runner, str(modules.folder), modules.write(FORGETFUL), lifeline.path)
    lifeline.expect("member", times=members)

    running.send(signal.SIGKILL)

    lifeline.expect_end()


def test_reaper_survives_signal_to_process_group_of_runner(modules, lifeline, script) -> None:
    """A runner whose whole process group is killed leaves nothing running: the reaper is not part of it."""
    running = script(RUN_A_MODULE, str(modules.folder), modules.write(FAMILY), lifeline.path, process_group=0)
    lifeline.expect("member", times=3)

    subprocess.run(["kill", "-KILL", "--", f"-{running.process.pid}"], check=True)

    lifeline.expect_end()


def test_reaper_removes_temporary_files_of_killed_runner(modules, lifeline, script, tmp_path) -> None:
    """The arguments of a function may be secret, so their file must not outlive the run."""
    (temporary := tmp_path / "temporary").mkdir()
    name = modules.write(
        "import os, signal\ndef f(life):\n    os.write(os.open(life, os.O_WRONLY), b'here'); signal.pause()"
    )
    running = script(
        """
        import os, sys
        from airflow_provider_sewer.core.call import function_call
        from airflow_provider_sewer.core.execution_settings import ExecutionSettings
        from airflow_provider_sewer.execution.module_runner import ModuleRunner, RunEnvironment
        folder, target, lifeline = sys.argv[1:]
        settings = ExecutionSettings(python=sys.executable, env={"PYTHONPATH": folder})
        ModuleRunner(function_call(target, {"life": lifeline}), settings, RunEnvironment(0.5)).run(lambda *_: None)
        """,
        str(modules.folder),
        f"{name}:f",
        lifeline.path,
        env={"TMPDIR": str(temporary)},
    )
    lifeline.expect("here")
    assert list(temporary.rglob("*-arguments.json"))

    running.send(signal.SIGKILL)

    wait_until(lambda: not list(temporary.iterdir()))


def assert_gone(pids: list[int]) -> None:
    """Wait until all of some processes have ended, collected or not."""
    wait_until(lambda: not any(map(lives, pids)))


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


KILLED_AT = {
    "guard": "OrphanReaper.child_tag = lambda self: die(self._process.pid)",
    "start": "OrphanReaper.register = lambda self, root: die(self._process.pid, root)",
    "end": "OrphanReaper.unregister = lambda self, root: die(self._process.pid, root)",
}


@pytest.mark.parametrize("moment", KILLED_AT.values(), ids=KILLED_AT)
def test_reaper_ends_processes_of_runner_killed_at_any_step(moment: str, modules, script) -> None:
    """Killed after the reaper has started, after the module has, or after it has ended: nothing stays."""
    dies = script(
        f"""
        import os, signal, sys
        from airflow_provider_sewer.core.execution_settings import ExecutionSettings
        from airflow_provider_sewer.core.call import module_call
        from airflow_provider_sewer.execution.module_runner import ModuleRunner, OrphanReaper, RunEnvironment
        def die(*pids):
            print(*pids, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        {moment}
        settings = ExecutionSettings(python=sys.executable, env={{"PYTHONPATH": sys.argv[1]}})
        ModuleRunner(module_call(sys.argv[2], []), settings, RunEnvironment(0.2)).run(lambda *_: None)
        """,
        str(modules.folder),
        modules.write("pass" if "unregister" in moment else "import signal; signal.pause()"),
    )
    pids = [int(pid) for pid in dies.process.stdout.read().split()]

    assert pids
    assert_gone(pids)


def test_reaper_ends_trees_after_external_error(lifeline) -> None:
    """When an interrupt leaves the block, the reaper ends all remaining processes before it exits."""
    source = "import os, signal, sys; os.write(os.open(sys.argv[1], os.O_WRONLY), b'ready\\n'); signal.pause()"

    with pytest.raises(KeyboardInterrupt), OrphanReaper(grace=5.0) as reaper:
        mark = {"SEWER_ATTEMPT_ID": reaper.child_tag()}
        left = subprocess.Popen([sys.executable, "-c", source, lifeline.path], env=mark, start_new_session=True)
        lifeline.expect("ready")
        raise KeyboardInterrupt

    assert left.wait(timeout=60) == -signal.SIGTERM


@pytest.mark.parametrize("error", [None, ModuleFailed("it failed")], ids=["none", "a failed module"])
def test_reaper_exits_without_action_after_normal_end(error: Exception | None) -> None:
    """When all has ended well, or in a known way, the reaper goes without doing anything."""
    reaper = OrphanReaper(grace=5.0)
    try:
        with reaper:
            if error:
                raise error
    except ModuleFailed:
        pass

    assert reaper._process.returncode == 0


def test_killed_reaper_does_not_fail_the_run(modules) -> None:
    """A run whose reaper has gone comes to its end all the same."""
    reaper = OrphanReaper(grace=5.0)
    with reaper:
        reaper._process.kill()
        reaper._process.wait()
        command = Command((sys.executable, "-c", "pass"), {})
        exit_ = Process(command, mark=reaper.child_tag(), grace=5.0, guardian=reaper).follow(lambda *_: None)

    assert exit_.code == 0


def test_reaper_forgets_ended_roots() -> None:
    """Roots that have ended are forgotten; a pid can come again."""
    assert roots_of("+12 +112 +1 -12 -1 +2 -2 +12 ") == {12, 112}
    assert roots_of("") == set()


def test_nested_run_ends_with_its_module(modules, lifeline, background) -> None:
    """A module that runs modules itself ends with all of theirs, detached ones included."""
    detached = """
        import os, signal, sys
        life = os.open(sys.argv[1], os.O_WRONLY)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.close(1), os.close(2)
                os.write(life, b"detached\\n")
                signal.pause()
            os._exit(0)
        os.wait()
        signal.pause()
    """
    path = [str(modules.folder), *filter(None, sys.path)]
    outer = modules.module_run(
        RUN_A_MODULE,
        str(modules.folder),
        modules.write(detached),
        lifeline.path,
        settings=modules.settings(env={"PYTHONPATH": ":".join(path)}),
        grace=1.0,
    )

    follow = background(lambda: outer.run(lambda *_: None))
    lifeline.expect("detached")
    outer.stop(at_once=True)

    with pytest.raises(Exception, match="was stopped on request"):
        follow.result()
    lifeline.expect_end()
