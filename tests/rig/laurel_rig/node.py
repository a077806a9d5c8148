"""What runs inside a tier's namespaces. `python3 -m laurel_rig.node TIER` is their process 1."""

import dataclasses
import sys
from functools import cache
from pathlib import Path

from . import components, machine, network
from .kube import Api
from .shell import run
from .supervisor import Process, Supervisor
from .tier import FULL, TIERS, Tier


def main(tier: Tier) -> None:
    hide_the_hosts_folders(tier)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")  # this network namespace's own
    Supervisor(processes(tier), tier.logs).run_forever()


def hide_the_hosts_folders(tier: Tier) -> None:
    """Sockets, pods' logs and volumes, CNI's leases and etcd's data: all of it ends with the mount namespace."""
    folders = [Path("/run"), Path("/var/log")]
    if tier == FULL:
        folders += machine.NODE_FOLDERS
    for folder in folders:
        run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder])
    components.RUNTIME.mkdir()
    network.NAMESPACES.mkdir()  # where CNI keeps the pods' networks


def processes(tier: Tier) -> list[Process]:
    @cache
    def api() -> Api:
        return Api(tier)

    def when_the_api_answers(process: Process) -> Process:
        """Before its roles are there the API server refuses clients, and some of them exit."""
        return dataclasses.replace(process, may_start=lambda: api().is_ready())

    first = [components.etcd(), components.api_server(tier)]
    then = [components.controller_manager(tier), components.scheduler(tier)]
    if tier == FULL:
        first.append(components.containerd(tier))
        then += [components.kubelet(tier), components.kube_proxy(tier), components.coredns(tier)]
    else:
        then.append(components.kwok(tier))
    return first + [when_the_api_answers(process) for process in then]


if __name__ == "__main__":
    main(TIERS[sys.argv[1]])
