"""A tier's own network: a namespace, one veth pair, and the host's routes into it."""

import json
from pathlib import Path

from .shell import run
from .tier import Tier

NAMESPACES = Path("/run/netns")


def create(tier: Tier) -> None:
    run(["ip", "netns", "add", tier.network])
    run(["ip", "link", "add", tier.network, "type", "veth", "peer", "name", "eth0", "netns", tier.network])
    run(["ip", "address", "add", f"{tier.host_ip}/24", "dev", tier.network])
    run(["ip", "link", "set", tier.network, "up"])
    # Whatever the host forwards for others, nothing from the rig leaves the machine.
    Path(f"/proc/sys/net/ipv4/conf/{tier.network}/forwarding").write_text("0")

    inside = ["ip", "-n", tier.network]
    run([*inside, "link", "set", "lo", "up"])
    run([*inside, "address", "add", f"{tier.node_ip}/24", "dev", "eth0"])
    run([*inside, "link", "set", "eth0", "up"])
    # A packet to a ClusterIP needs some route before kube-proxy's rules rewrite it.
    run([*inside, "route", "add", "default", "via", tier.host_ip])

    for cidr in (tier.service_cidr, tier.pod_cidr):
        run(["ip", "route", "add", cidr, "via", tier.node_ip, "dev", tier.network])


def refuse_simulated_addresses(tier: Tier) -> None:
    """Nobody answers at simulated pods and Services: say so at once instead of by a time-out."""
    for cidr in (tier.service_cidr, tier.pod_cidr):
        run(["ip", "-n", tier.network, "route", "add", "unreachable", cidr])


def remove(tier: Tier) -> None:
    """The routes and the veth pair go with the link."""
    links = json.loads(run(["ip", "-json", "link", "show"]))
    if any(link["ifname"] == tier.network for link in links):
        run(["ip", "link", "delete", tier.network])
    if exists(tier):
        run(["ip", "netns", "delete", tier.network])


def exists(tier: Tier) -> bool:
    return (NAMESPACES / tier.network).exists()
