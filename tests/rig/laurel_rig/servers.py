"""The MLflow servers that Laurel is tested with: released versions, and the ways in which they are run."""

import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import postgres, python
from .children import await_up, child, ended_by_sigterm
from .images import MLFLOW_VERSION
from .paths import RIG
from .shell import RigError

REQUIREMENTS = RIG / "servers"
ADMIN = "admin"
WORKSPACE = "team-a"


@dataclass(frozen=True)
class Server:
    """A release of MLflow, and what differs from its defaults."""

    name: str
    release: str
    # Releases before 3.9 have their API outside of it.
    prefix: str = ""
    workers: int = 1
    postgresql: bool = False
    authentication: bool = False
    workspaces: bool = False


SERVERS = {
    server.name: server
    for server in (
        Server("2.9", "2.9.2"),
        Server("2.22", "2.22.1"),
        Server("3.1", "3.1.4"),
        Server("3.8", "3.8.1", prefix="/mlflow"),
        Server("newest", MLFLOW_VERSION),
        Server("newest-postgresql", MLFLOW_VERSION, workers=4, postgresql=True),
        Server("newest-auth", MLFLOW_VERSION, authentication=True, workspaces=True),
    )
}


@dataclass(frozen=True)
class Endpoint:
    """What a client has to know of a running server."""

    server: Server
    url: str
    password: str

    def environment(self) -> dict[str, str]:
        """For the tests."""
        server = self.server
        return {
            "LAUREL_TEST_MLFLOW_URL": self.url,
            "LAUREL_TEST_MLFLOW_RELEASE": server.release,
            **({"LAUREL_TEST_MLFLOW_PREFIX": server.prefix} if server.prefix else {}),
            **({"LAUREL_TEST_MLFLOW_PASSWORD": self.password} if server.authentication else {}),
            **({"LAUREL_TEST_MLFLOW_WORKSPACE": WORKSPACE} if server.workspaces else {}),
        }

    def answers(self) -> bool:
        with contextlib.suppress(OSError, urllib.error.URLError):
            self.request("GET", "api/2.0/mlflow/registered-models/search?max_results=1")
            return True
        return False

    def request(self, method: str, path: str, body: dict | None = None) -> None:
        login = base64.b64encode(f"{ADMIN}:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self.url}/{path}", data, headers, method=method)
        # No proxy: it is this machine.
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5).close()


def python_of(server: Server) -> Path:
    """The interpreter that has this release, installed if it is missing."""
    if server.release == MLFLOW_VERSION:
        return python.mlflow_python()
    requirements = REQUIREMENTS / f"mlflow-{server.release}.txt"
    return python.virtual_environment(f"mlflow-{server.release}", python.pinned(requirements))


@contextlib.contextmanager
def running(server: Server, port: int | None = None) -> Iterator[Endpoint]:
    """The server with an empty registry, until the block ends."""
    interpreter = python_of(server)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="laurel-mlflow-")))
        database = stack.enter_context(postgres.running()) if server.postgresql else f"sqlite:///{folder}/mlflow.db"
        endpoint = Endpoint(server, f"http://127.0.0.1:{port or free_port()}", secrets.token_urlsafe(16))
        log = folder / "log"
        command = [interpreter, "-m", "mlflow", *arguments(endpoint, folder, database)]
        process = stack.enter_context(child(command, log, environment(endpoint, folder)))
        await_up(f"MLflow {server.name}", process, log, 120, endpoint.answers)
        if server.workspaces:
            endpoint.request("POST", "api/3.0/mlflow/workspaces", {"name": WORKSPACE})
        yield endpoint


def arguments(endpoint: Endpoint, folder: Path, database: str) -> list[str]:
    server, port = endpoint.server, endpoint.url.rpartition(":")[2]
    words = ["server", "--host", "127.0.0.1", "--port", port, "--workers", str(server.workers)]
    words += ["--backend-store-uri", database]
    words += ["--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")]
    if server.prefix:
        words += ["--static-prefix", server.prefix]
    if server.authentication:
        words += ["--app-name", "basic-auth"]
    if server.workspaces:
        words.append("--enable-workspaces")
    return words


def environment(endpoint: Endpoint, folder: Path) -> dict[str, str]:
    """Releases ignore the variables that they do not know."""
    login = folder / "login.ini"
    # Without the cache the server spends half a second on the password of each request.
    login.write_text(
        "[mlflow]\ndefault_permission = READ\nauth_cache_ttl_seconds = 60\nadmin_username = admin\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        f"database_uri = sqlite:///{folder}/login.db\n"
    )
    return {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Webhooks to this machine, with a key that no other server has.
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        # By default a server caches its webhooks for a minute, and a new one would miss events.
        "MLFLOW_WEBHOOK_CACHE_TTL": "1",
        "MLFLOW_AUTH_CONFIG_PATH": str(login),
        "MLFLOW_AUTH_ADMIN_PASSWORD": endpoint.password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(32),
    }


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_with(server: Server, command: list[str]) -> int:
    """Runs a command beside the server, and returns its exit status."""
    if not command or not shutil.which(command[0]):
        raise RigError(f"no such command: {' '.join(command) or 'none is given'}")
    with ended_by_sigterm():
        began = time.monotonic()
        python_of(server)
        installed = time.monotonic()
        with running(server) as endpoint:
            started = time.monotonic()
            status = subprocess.run(command, env={**os.environ, **endpoint.environment()}).returncode
            ended = time.monotonic()
        print(
            f"MLflow {server.name} ({server.release}): installed in {installed - began:.0f} s, "
            f"up in {started - installed:.0f} s, the command took {ended - started:.0f} s",
            file=sys.stderr,
        )
    return status


def serve(server: Server, port: int) -> None:
    """Runs the server until a signal ends it. Prints what a client has to know, as JSON, once it is up."""
    with ended_by_sigterm(), running(server, port) as endpoint:
        print(json.dumps(endpoint.environment()), flush=True)
        signal.pause()
