"""Whose tier is up. A tier's network and addresses exist once on a machine; checkouts may be many."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .paths import CHECKOUT
from .shell import RigError
from .tier import Tier

MODULE = "laurel_rig.node"
DELETED = " (deleted)"  # what the kernel appends to the path of a folder that is gone


@dataclass(frozen=True)
class Node:
    """A process that runs a tier, and the checkout that started it."""

    pid: int
    tier: str
    checkout: Path


def running(proc: Path = Path("/proc")) -> list[Node]:
    """Every node on this machine, by the command lines of its processes: that needs no file that could be stale."""
    found = (node_of(folder) for folder in proc.iterdir() if folder.name.isdigit())
    return sorted((node for node in found if node), key=lambda node: node.pid)


def node_of(folder: Path) -> Node | None:
    """A node works in `tests/rig` of its checkout. Processes end while they are looked at."""
    try:
        words = (folder / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
        if MODULE not in words:
            return None
        rig = Path(str((folder / "cwd").readlink()).removesuffix(DELETED))
    except OSError:
        return None
    tier = words[words.index(MODULE) + 1 :][:1]
    return Node(int(folder.name), tier[0], rig.parent.parent) if tier else None


def ours(tier: Tier, nodes: Sequence[Node], checkout: Path = CHECKOUT) -> list[Node]:
    return [node for node in nodes if node.tier == tier.name and node.checkout == checkout]


def theirs(tier: Tier, nodes: Sequence[Node], checkout: Path = CHECKOUT) -> Node | None:
    """The node of another checkout that has this tier."""
    return next((node for node in nodes if node.tier == tier.name and node.checkout != checkout), None)


def require_free(tier: Tier, nodes: Sequence[Node], checkout: Path = CHECKOUT) -> None:
    if node := theirs(tier, nodes, checkout):
        raise RigError(
            f"the {tier.name} tier of another checkout is up on this machine: {node.checkout} (process {node.pid}). "
            f"Take it down first: {way_down(node)}"
        )


def way_down(node: Node) -> str:
    rig = node.checkout / "tests" / "rig" / "rig"
    return f"{rig} down {node.tier}" if rig.exists() else f"kill -KILL {node.pid}  (its checkout is gone)"
