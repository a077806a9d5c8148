"""Progress lines, kind errors, and running other programs."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

STARTED = time.monotonic()


class RigError(Exception):
    """Something is missing or failed; the message says what, and what to do next."""


def say(message: str) -> None:
    """A progress line. It goes to stderr: stdout is for answers that scripts read."""
    print(f"{time.monotonic() - STARTED:6.1f}s  {message}", file=sys.stderr, flush=True)


def run(
    command: Sequence[str | Path],
    *,
    log: Path | None = None,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    stdin: str | None = None,
) -> str:
    """Runs to the end and returns stdout; all output goes to `log` instead if there is one."""
    command = [str(word) for word in command]
    merged = {**os.environ, **env} if env else None
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(log, "ab") if log else contextlib.nullcontext(subprocess.PIPE) as output:
            done = subprocess.run(
                command,
                cwd=cwd,
                env=merged,
                input=stdin.encode() if stdin is not None else None,
                stdin=subprocess.DEVNULL if stdin is None else None,
                stdout=output,
                stderr=subprocess.STDOUT if log else subprocess.PIPE,
            )
    except FileNotFoundError as missing:
        raise RigError(f"{missing.filename} is not there; it is needed for: {' '.join(command)}") from missing
    if done.returncode != 0:
        shown = f"see {log}" if log else (done.stderr or done.stdout).decode(errors="replace").strip()
        raise RigError(f"`{' '.join(command)}` ended with {done.returncode}: {shown}")
    return "" if log else done.stdout.decode()


def wait_until(what: str, seconds: float, condition: Callable[[], bool], hint: str = "", every: float = 0.1) -> None:
    """Polls `condition` until it holds, or fails with what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RigError(f"waited {seconds:.0f} s in vain: {what}" + (f"; {hint}" if hint else ""))
        time.sleep(every)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One rig command at a time on the same thing; the others wait their turn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another rig command holds {path}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def published(target: Path) -> Iterator[Path]:
    """A scratch path that becomes `target` only if the block succeeds, so a cache entry is whole or absent."""
    scratch = target.with_name(f"{target.name}.unfinished")
    discard(scratch)
    target.parent.mkdir(parents=True, exist_ok=True)
    yield scratch
    discard(target)
    scratch.rename(target)


def discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def fingerprint(*inputs: str | Path) -> str:
    """Twelve hex digits that change with any of the inputs: files by content, strings as they are."""
    digest = hashlib.sha256()
    for item in inputs:
        content = item.read_bytes() if isinstance(item, Path) else item.encode()
        digest.update(len(content).to_bytes(8))
        digest.update(content)
    return digest.hexdigest()[:12]


def link(name: Path, target: Path) -> None:
    """Points the symlink `name` at `target`, whatever it was before."""
    name.parent.mkdir(parents=True, exist_ok=True)
    scratch = name.with_name(f".{name.name}.new")
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(target)
    scratch.rename(name)
