"""Bringing a tier up, taking it down, and telling how it is."""

import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from . import certs, checkouts, components, containers, debian, gobuild, machine, network, node
from .kube import Api, kubectl
from .machine import Record
from .paths import RIG, STATE
from .shell import RigError, fingerprint, locked, say, wait_until
from .tier import API, FULL, Tier

TOOLS = {
    FULL: (gobuild.KUBERNETES, gobuild.ETCD, gobuild.COREDNS, gobuild.HELM),
    API: (gobuild.KUBERNETES, gobuild.ETCD, gobuild.KWOK, gobuild.HELM),
}
PACKAGES = {
    FULL: (debian.NETWORK, debian.NODE),
    API: (debian.NETWORK,),
}

# Names and addresses of a tier belong to the machine, whichever checkout is at work.
MACHINE_LOCKS = Path("/run/lock")


def up(tier: Tier) -> None:
    with locked(STATE / f"{tier.name}.lock"):
        if is_healthy(tier):
            if has_todays_settings(tier):
                say(f"the {tier.name} tier is already up: {tier.kubeconfig}")
                return
            say(f"the {tier.name} tier is up with other settings; starting it anew")
        require_root()
        checkouts.require_free(tier, checkouts.running())
        debian.ensure(*PACKAGES[tier])
        gobuild.ensure(*TOOLS[tier])
        with locked(MACHINE_LOCKS / f"laurel-{tier.name}.lock"):
            checkouts.require_free(tier, checkouts.running())
            tear_down(tier)
            start(tier)
        wait_until_usable(tier)
        say(f"the {tier.name} tier is up: export KUBECONFIG={tier.kubeconfig}")


def down(tier: Tier) -> None:
    with locked(STATE / f"{tier.name}.lock"):
        if not tier.kubeconfig.exists() and not network.exists(tier):
            say(f"the {tier.name} tier is not up")
            return
        require_root()
        if node := checkouts.theirs(tier, checkouts.running()):
            say(f"the {tier.name} tier is not up here; the one of {node.checkout} is: {checkouts.way_down(node)}")
            return
        tear_down(tier)
        say(f"the {tier.name} tier is down; its logs stay in {tier.logs}")


def status(tier: Tier) -> str:
    if is_healthy(tier):
        return f"up, {tier.server}, KUBECONFIG={tier.kubeconfig}"
    if node := checkouts.theirs(tier, checkouts.running()):
        return f"down; the one of {node.checkout} is up: {checkouts.way_down(node)}"
    if machine.recorded(tier).is_running() or network.exists(tier):
        return f"not healthy; logs in {tier.logs}; `rig up {tier.name}` starts it anew"
    return "down"


def settings(tier: Tier) -> str:
    """Changes with whatever the tier's parts are told: their command lines, and the files that they read."""
    commands = [" ".join(process.command) for process in node.processes(tier)]
    simulated = sorted((RIG / "kwok").iterdir()) if tier == API else []
    return fingerprint(*commands, *components.configuration(tier).values(), *simulated)


def settings_file(tier: Tier) -> Path:
    return tier.state / "settings"


def has_todays_settings(tier: Tier) -> bool:
    return settings_file(tier).exists() and settings_file(tier).read_text() == settings(tier)


def require_root() -> None:
    if os.geteuid() != 0:
        raise RigError("namespaces, mounts and routes need root: run this as root")


def start(tier: Tier) -> None:
    shutil.rmtree(tier.state, ignore_errors=True)
    tier.logs.mkdir(parents=True)
    record = machine.remember(tier)
    certs.make_all(tier)
    certs.write_kubeconfigs(tier)
    components.write_configuration(tier)
    settings_file(tier).write_text(settings(tier))
    network.create(tier)
    if tier == API:
        network.refuse_simulated_addresses(tier)
    start_node(tier, record)
    say(f"node process {record.pid} started (logs: {tier.logs})")


def start_node(tier: Tier, record: Record) -> None:
    """Not through `ip netns exec`: that mounts another /sys, in which the kubelet finds no cgroups."""
    enter = ["nsenter", f"--net={network.NAMESPACES / tier.network}"]
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
    with open(tier.logs / "node.log", "ab") as log:
        node = subprocess.Popen(
            [*enter, *unshare, sys.executable, "-m", "laurel_rig.node", tier.name],
            cwd=RIG,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    record.pid, record.started = node.pid, machine.start_of(node.pid)
    record.save(tier)


def wait_until_usable(tier: Tier) -> None:
    record, api = machine.recorded(tier), Api(tier)

    def wait(what: str, condition: Callable[[], bool]) -> None:
        def still_possible() -> bool:
            if not record.is_running():
                raise RigError(f"the node ended while waiting: {what}; see {tier.logs}/node.log")
            return condition()

        wait_until(what, 90, still_possible, hint=f"logs: {tier.logs}")
        say(what)

    wait("the API server is ready", api.is_ready)
    if tier == API:
        kubectl("apply", "-f", str(RIG / "kwok" / "nodes.yaml"), tier=tier)
    if tier == FULL:
        wait("containerd answers", lambda: containers.answers(tier))
        containers.ensure_pause_image(tier)
        wait("cluster DNS answers", lambda: dns_answers(tier))
    wait("nodes are Ready", lambda: api.ready_nodes() > 0)
    wait("pods are admitted", api.admits_pods)


def tear_down(tier: Tier) -> None:
    """Of a half-dead or half-started tier too: every step finds out by itself whether there is something to do."""
    record = machine.recorded(tier)
    machine.end_node(record)
    for node in checkouts.ours(tier, checkouts.running()):
        # Of an `up` that was killed before it had written down what it started.
        machine.end_node(machine.Record(pid=node.pid, started=machine.start_of(node.pid)))
    network.remove(tier)
    if tier == FULL:
        machine.remove_cgroups()
    machine.restore(record)
    for leftover in tier.state.glob("*"):
        if leftover == tier.logs:
            continue
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def is_healthy(tier: Tier) -> bool:
    """With patience: a busy machine, or a component just starting again, is no reason to lose the tier."""
    if not machine.recorded(tier).is_running() or not tier.kubeconfig.exists():
        return False
    api = Api(tier)
    try:
        wait_until("health", 15, lambda: answers(tier, api))
    except RigError:
        return False
    return True


def answers(tier: Tier, api: Api) -> bool:
    return api.is_ready() and api.ready_nodes() > 0 and (tier != FULL or dns_answers(tier))


def dns_answers(tier: Tier) -> bool:
    """Asks for the API server's own Service, as a pod would."""
    name = b"".join(bytes([len(label)]) + label for label in b"kubernetes.default.svc.cluster.local".split(b"."))
    query = struct.pack(">6H", 1, 0x0100, 1, 0, 0, 0) + name + b"\0" + struct.pack(">2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(1)
        try:
            asking.connect((tier.node_ip, 53))
            asking.send(query)
            answer = asking.recv(512)
        except OSError:
            return False
    return socket.inet_aton(tier.api_service_ip) in answer
