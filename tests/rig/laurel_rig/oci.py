"""OCI image archives, written without Docker: the same inputs give the same bytes."""

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .shell import published

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
CHUNK = 1 << 20


@dataclass(frozen=True)
class Layer:
    """A plain tar, which an archive keeps under its digest."""

    path: Path
    digest: str

    def descriptor(self) -> dict:
        return {"mediaType": LAYER_TYPE, "digest": f"sha256:{self.digest}", "size": self.path.stat().st_size}


@dataclass(frozen=True)
class Image:
    name: str
    layers: Sequence[Path]  # plain tars, lowest first
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)
    user: str = ""

    def config(self, layers: Sequence[Layer]) -> dict:
        settings = {
            "User": self.user,
            "Env": [f"{name}={value}" for name, value in self.environment.items()],
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.command),
        }
        return {
            "architecture": "amd64",
            "os": "linux",
            "config": {name: value for name, value in settings.items() if value},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.digest}" for layer in layers]},
        }


def write_layer(folder: Path, layer: Path) -> None:
    """A tar of everything in `folder`, owned by root and without times."""
    with published(layer) as output, tarfile.open(output, "w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            tar.add(path, arcname=path.relative_to(folder), recursive=False, filter=without_owner_and_time)


def without_owner_and_time(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def write_archive(image: Image, archive: Path) -> str:
    """Writes the archive and returns the manifest's digest, by which a container runtime knows the image."""
    layers = [Layer(path, sha256_of(path)) for path in image.layers]
    with published(archive) as output, tarfile.open(output, "w", format=tarfile.GNU_FORMAT) as tar:
        config = add_json(tar, CONFIG_TYPE, image.config(layers))
        for layer in layers:
            add_file(tar, f"blobs/sha256/{layer.digest}", layer.path)
        content = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config,
            "layers": [layer.descriptor() for layer in layers],
        }
        manifest = add_json(tar, MANIFEST_TYPE, content)
        manifest["annotations"] = {"io.containerd.image.name": image.name}
        add_bytes(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode())
        add_bytes(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
    return manifest["digest"]


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def add_json(tar: tarfile.TarFile, media_type: str, content: dict) -> dict:
    """Adds a JSON document as a blob and returns its descriptor."""
    encoded = json.dumps(content, sort_keys=True).encode()
    digest = hashlib.sha256(encoded).hexdigest()
    add_bytes(tar, f"blobs/sha256/{digest}", encoded)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(encoded)}


def add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def add_file(tar: tarfile.TarFile, name: str, path: Path) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = path.stat().st_size
    with open(path, "rb") as content:
        tar.addfile(entry, content)
