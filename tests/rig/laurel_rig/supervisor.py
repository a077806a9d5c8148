"""Process 1 of a node's pid namespace: starts everything, starts again what ends, buries the dead."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

RESTART_DELAY = 0.5
LOOK_EVERY = 0.1


def at_once() -> bool:
    return True


@dataclass(frozen=True)
class Process:
    name: str
    command: Sequence[str]
    may_start: Callable[[], bool] = at_once


class Supervisor:
    def __init__(self, processes: Sequence[Process], logs: Path):
        self.processes = processes
        self.logs = logs
        self.running: dict[int, Process] = {}  # by process number
        self.not_before: dict[str, float] = {}  # by name, of those that have ended

    def run_forever(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        while True:
            self.start_what_may()
            signal.sigtimedwait({signal.SIGCHLD}, LOOK_EVERY)
            self.bury_the_dead()

    def start_what_may(self) -> None:
        for process in self.processes:
            if process not in self.running.values() and self.has_rested(process) and process.may_start():
                self.start(process)

    def has_rested(self, process: Process) -> bool:
        return time.monotonic() >= self.not_before.get(process.name, 0.0)

    def start(self, process: Process) -> None:
        pid = os.fork()
        if pid == 0:
            self.become(process)
        self.running[pid] = process
        report(f"{process.name} started as {pid}")

    def become(self, process: Process) -> None:
        """In the child: never returns."""
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            log = os.open(self.logs / f"{process.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.setsid()
            os.execv(process.command[0], list(process.command))
        except OSError as error:
            report(f"{process.name} cannot run {process.command[0]}: {error}")
        finally:
            os._exit(127)

    def bury_the_dead(self) -> None:
        """Orphans of the containers end here too; nobody asks for their exit codes."""
        while self.running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if process := self.running.pop(pid, None):
                self.not_before[process.name] = time.monotonic() + RESTART_DELAY
                report(f"{process.name} ended with {os.waitstatus_to_exitcode(status)}; starting it again")


def report(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", flush=True)
