"""PostgreSQL for one server, from Debian's package, in a folder of its own."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from . import debian
from .children import await_up, child
from .shell import run

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
PACKAGES = {"postgresql-15": str(PROGRAMS / "postgres")}
USER = "postgres"


@contextlib.contextmanager
def running() -> Iterator[str]:
    """An empty database, by its URL for MLflow, until the block ends."""
    debian.ensure(PACKAGES)
    folder = Path(tempfile.mkdtemp(prefix="laurel-postgresql-"))
    try:
        give(folder)
        data, log = folder / "data", folder / "log"
        create = [PROGRAMS / "initdb", "--auth=trust", "--no-sync", f"--username={USER}", "-D", data]
        run([*as_user(), *create], cwd=folder)
        # Reached through a socket in the folder alone, so it needs no port.
        command = [*as_user(), PROGRAMS / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", "-F"]
        with child(command, log) as process:
            await_up("PostgreSQL", process, log, 60, lambda: is_ready(folder))
            yield f"postgresql+psycopg2://{USER}@/{USER}?host={folder}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def give(folder: Path) -> None:
    """PostgreSQL does not run as root."""
    if os.geteuid() == 0:
        entry = pwd.getpwnam(USER)
        os.chown(folder, entry.pw_uid, entry.pw_gid)


def as_user() -> list[str]:
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups"]


def is_ready(folder: Path) -> bool:
    return subprocess.run([PROGRAMS / "pg_isready", "-q", "-h", folder]).returncode == 0
