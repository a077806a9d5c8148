"""What a node changes outside its namespaces, written down so that `down` can put it back."""

import json
import os
import signal
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .shell import RigError, say, wait_until
from .tier import FULL, Tier

CGROUPS = Path("/sys/fs/cgroup")

# A node covers these with its own; the machine may have none.
NODE_FOLDERS = (Path("/var/lib/kubelet"), Path("/var/lib/cni"))

# The kubelet sets these for the whole machine.
KUBELET_SYSCTLS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


@dataclass
class Record:
    """A process is known by its number and its start: numbers are used again."""

    sysctls: dict[str, str] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)
    pid: int = 0
    started: str = ""

    def save(self, tier: Tier) -> None:
        record_file(tier).write_text(json.dumps(asdict(self), indent=2))

    def is_running(self) -> bool:
        return self.pid != 0 and start_of(self.pid) == self.started


def record_file(tier: Tier) -> Path:
    return tier.state / "machine.json"


def recorded(tier: Tier) -> Record:
    try:
        return Record(**json.loads(record_file(tier).read_text()))
    except FileNotFoundError:
        return Record()


def remember(tier: Tier) -> Record:
    """Before anything is changed. Only a tier with a kubelet changes the machine."""
    record = Record()
    if tier == FULL:
        record.sysctls = {name: sysctl(name).read_text().strip() for name in KUBELET_SYSCTLS}
        record.created = [str(folder) for folder in NODE_FOLDERS if not folder.exists()]
    record.save(tier)
    for folder in record.created:
        Path(folder).mkdir(parents=True)
    return record


def restore(record: Record) -> None:
    for name, value in record.sysctls.items():
        if sysctl(name).read_text().strip() != value:
            sysctl(name).write_text(value)
    for folder in map(Path, record.created):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def sysctl(name: str) -> Path:
    return Path("/proc/sys") / name


def start_of(pid: int) -> str:
    """When the process started, in the kernel's ticks; empty if it is gone or only waits to be buried."""
    try:
        # The second field is the program's name and may hold anything, hence the split at its end.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    state, started = fields[0], fields[19]
    return "" if state == "Z" else started


def end_node(record: Record) -> None:
    """One kill ends the pid namespace, and with it every process and mount of the node."""
    if not record.is_running():
        return
    first_of_namespace = children_of(record.pid)
    os.kill(record.pid, signal.SIGKILL)
    wait_until(
        "the end of the node's processes",
        30,
        lambda: not any(start_of(pid) for pid in [record.pid, *first_of_namespace]),
    )


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def remove_cgroups() -> None:
    """Empty folders of the dead pods, in every hierarchy that this machine has."""
    hierarchies = [CGROUPS, *(path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink())]
    try:
        wait_until("the removal of the pods' cgroups", 10, lambda: all([remove_cgroup(h) for h in hierarchies]))
    except RigError as stubborn:
        say(f"left behind: {stubborn}")


def remove_cgroup(hierarchy: Path) -> bool:
    """A cgroup goes by rmdir, children first; it is busy while a process is still dying in it."""
    gone = True
    for name in ("kubepods", "k8s.io"):
        for folder, _, _ in os.walk(hierarchy / name, topdown=False):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                pass
            except OSError:
                gone = False
    return gone
