"""Programs that run beside the rig's own process and end with it, even if that is killed."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from .shell import RigError, wait_until

# The end of the input, which comes when the rig's process ends in whatever way, kills the whole group.
LEASHED = 'exec 3<&0; "$@" </dev/null & child=$!; { read -r _ <&3; kill -KILL 0; } & wait "$child"'
GRACE = 10.0


@contextlib.contextmanager
def child(command: Sequence[str | Path], log: Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen]:
    """A program in a process group of its own, all of which ends with the block."""
    with open(log, "ab") as output:
        process = subprocess.Popen(
            ["sh", "-c", LEASHED, "sh", *map(str, command)], env={**os.environ, **(env or {})}, cwd=log.parent,
            stdin=subprocess.PIPE, stdout=output, stderr=output, process_group=0,
        )  # fmt: skip
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen) -> None:
    deadline = time.monotonic() + GRACE
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdin.close()


def await_up(name: str, process: subprocess.Popen, log: Path, seconds: float, is_up) -> None:
    """Waits until `is_up`, or fails with the last lines of the log."""

    def look() -> bool:
        if process.poll() is not None:
            raise RigError(f"{name} ended with {process.returncode}")
        return is_up()

    try:
        wait_until(f"{name} answers", seconds, look, every=0.2)
    except RigError as error:
        lines = log.read_text(errors="replace").splitlines()[-20:]
        raise RigError("\n".join([str(error), *lines])) from error


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that what it started ends in order."""

    def interrupt(*_) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
