"""Debian's packages: installed when missing, without starting their services."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from .paths import STATE
from .shell import RigError, run, say

# A package, and a file that shows it is there: asking dpkg would refuse
# a containerd that somebody installed in another way.
NETWORK = {"iproute2": "ip", "util-linux": "nsenter", "openssl": "openssl"}
NODE = {
    "containerd": "containerd",
    "runc": "runc",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "nftables": "nft",
    "conntrack": "conntrack",
    "gcc": "gcc",
    "libc6-dev": "/usr/include/stdlib.h",
}
ROOTFS = {"debootstrap": "debootstrap"}

POLICY = Path("/usr/sbin/policy-rc.d")


def ensure(*groups: dict[str, str]) -> None:
    wanted = {package: proof for group in groups for package, proof in group.items()}
    missing = [package for package, proof in wanted.items() if not is_there(proof)]
    if not missing:
        return
    by_hand = f"apt-get install --no-install-recommends {' '.join(missing)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise RigError(f"missing on this machine: {' '.join(missing)}. On Debian, as root: {by_hand}")
    say(f"installing {' '.join(missing)}")
    install(missing)


def is_there(proof: str) -> bool:
    return Path(proof).exists() if proof.startswith("/") else shutil.which(proof) is not None


def install(packages: Iterable[str]) -> None:
    log = STATE / "logs" / "apt.log"
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update"], log=log, env=quiet)
    with no_services_started():
        run(["apt-get", "install", "-y", "--no-install-recommends", *packages], log=log, env=quiet)


@contextlib.contextmanager
def no_services_started() -> Iterator[None]:
    """Debian asks policy-rc.d before it starts a service it has installed; 101 means no."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()
