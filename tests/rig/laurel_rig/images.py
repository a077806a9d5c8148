"""The images of the tests and the demo, built without Docker and kept in the cache."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import debian, oci
from .components import PAUSE_IMAGE
from .paths import RIG, cache_dir
from .shell import fingerprint, locked, run, say

IMAGES = RIG / "images"


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


def cached_layer(name: str, key: str, fill: Callable[[Path], None]) -> Path:
    """The tar of what `fill` puts into an empty folder."""
    layer = cache_dir() / "layers" / f"{name}-{key}.tar"
    if not layer.exists():
        with locked(cache_dir() / "layers.lock"), tempfile.TemporaryDirectory(prefix="laurel-layer-") as scratch:
            root = Path(scratch) / "root"
            root.mkdir()
            fill(root)
            oci.write_layer(root, layer)
    return layer


def cached_image(image: oci.Image) -> Built:
    """Keyed by the image's description and by the layers' names, which carry their inputs' fingerprints."""
    key = fingerprint(repr(image), Path(oci.__file__))
    base = image.name.rpartition("/")[2].replace(":", "-")
    archive = cache_dir() / "images" / f"{base}-{key}.tar"
    note = archive.with_suffix(".json")
    if not archive.exists() or not note.exists():
        say(f"writing {archive}")
        digest = oci.write_archive(image, archive)
        note.write_text(json.dumps({"name": image.name, "digest": digest}))
    return Built(image.name, archive, json.loads(note.read_text())["digest"])
