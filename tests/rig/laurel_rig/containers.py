"""The full tier's containerd: which images it has, and giving it more."""

from pathlib import Path

from . import images
from .shell import RigError, run, say
from .tier import FULL, Tier


def ctr(tier: Tier, *words: str | Path) -> str:
    return run(["ctr", "--address", tier.containerd_socket, "--namespace", "k8s.io", *words])


def answers(tier: Tier) -> bool:
    try:
        ctr(tier, "version")
    except RigError:
        return False
    return True


def digest_of(tier: Tier, name: str) -> str | None:
    """What containerd has under this name: the manifest's digest, or nothing."""
    for line in ctr(tier, "images", "list", f"name=={name}").splitlines()[1:]:
        return line.split()[2]
    return None


def ensure_image(tier: Tier, image: images.Built) -> None:
    if digest_of(tier, image.name) == image.digest:
        return
    say(f"importing {image.name}")
    ctr(tier, "images", "import", image.archive)


def ensure_pause_image(tier: Tier) -> None:
    ensure_image(tier, images.pause())


def import_if_up(image: images.Built) -> None:
    if FULL.containerd_socket.exists() and answers(FULL):
        ensure_image(FULL, image)
    else:
        say(f"the full tier is not up; {image.name} waits in {image.archive}")
