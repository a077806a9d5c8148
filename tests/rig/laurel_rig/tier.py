"""The two tiers: their names, addresses and folders. Nothing they own overlaps, so they run side by side."""

from dataclasses import dataclass
from pathlib import Path

from .paths import STATE, cache_dir

API_PORT = 6443


@dataclass(frozen=True)
class Tier:
    name: str
    link_prefix: str  # the first three numbers of the /24 between the host and the node
    service_prefix: str  # the first two numbers of the /16 of Services
    pod_prefix: str  # the first two numbers of the /16 of pods

    @property
    def state(self) -> Path:
        return STATE / self.name

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def config(self) -> Path:
        return self.state / "config"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def containerd_socket(self) -> Path:
        return self.state / "containerd.sock"

    @property
    def containerd_root(self) -> Path:
        """Kept between runs: importing the images is the slow part of a start."""
        return cache_dir() / "containerd"

    @property
    def network(self) -> str:
        """The network namespace, and the host's end of the veth pair into it."""
        return f"laurel-{self.name}"

    @property
    def host_ip(self) -> str:
        return f"{self.link_prefix}.1"

    @property
    def node_ip(self) -> str:
        return f"{self.link_prefix}.2"

    @property
    def server(self) -> str:
        return f"https://{self.node_ip}:{API_PORT}"

    @property
    def service_cidr(self) -> str:
        return f"{self.service_prefix}.0.0/16"

    @property
    def pod_cidr(self) -> str:
        return f"{self.pod_prefix}.0.0/16"

    @property
    def api_service_ip(self) -> str:
        return f"{self.service_prefix}.0.1"


FULL = Tier("full", link_prefix="10.123.0", service_prefix="10.96", pod_prefix="10.244")
API = Tier("api", link_prefix="10.123.1", service_prefix="10.97", pod_prefix="10.245")
TIERS = {tier.name: tier for tier in (FULL, API)}
