"""Kubernetes and its companions, built from their Go modules once per machine."""

import json
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .paths import BIN, RIG, cache_dir
from .shell import RigError, fingerprint, link, locked, published, run, say

KUBERNETES_VERSION = "1.36.3"


@dataclass(frozen=True)
class Tool:
    """One Go module under go/, so that one tool's versions never move another's."""

    name: str
    package: str = "."
    ldflags: str = "-s -w"
    called: tuple[str, ...] = ()  # the names it is linked under; its own if empty
    patience: str = "a minute or two"

    @property
    def module(self) -> Path:
        return RIG / "go" / self.name

    @property
    def names(self) -> tuple[str, ...]:
        return self.called or (self.name,)

    def inputs(self) -> list[Path]:
        return [path for path in sorted(self.module.iterdir()) if path.name in ("go.mod", "go.sum", "main.go")]

    def binary(self) -> Path:
        key = fingerprint(go_version(), self.package, self.ldflags, *self.inputs())
        return cache_dir() / "bin" / f"{self.name}-{key}"


def kubernetes_ldflags() -> str:
    major, minor, _ = KUBERNETES_VERSION.split(".")
    facts = {"gitVersion": f"v{KUBERNETES_VERSION}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    stamps = [f"-X {package}.{name}={value}" for package in packages for name, value in facts.items()]
    return " ".join(["-s -w", *stamps])


KUBERNETES = Tool(
    "kubernetes",
    ldflags=kubernetes_ldflags(),
    called=("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"),
    patience="seven minutes or more",
)
ETCD = Tool("etcd")
COREDNS = Tool("coredns", package="github.com/coredns/coredns", patience="two minutes or more")
KWOK = Tool("kwok", package="sigs.k8s.io/kwok/cmd/kwok")
HELM = Tool("helm", package="helm.sh/helm/v4/cmd/helm")
ENVOY_GATEWAY = Tool(
    "envoy-gateway", package="github.com/envoyproxy/gateway/cmd/envoy-gateway", patience="four minutes or more"
)


@cache
def go_version() -> str:
    if not shutil.which("go"):
        raise RigError("go is not on PATH; install Go 1.26 or newer (the rig builds Kubernetes with it)")
    return run(["go", "env", "GOVERSION"]).strip()


def ensure(*tools: Tool) -> None:
    """Builds what the cache lacks, one at a time: the linker alone wants 2.5 GB."""
    for tool in tools:
        binary = tool.binary()
        if not binary.exists():
            with locked(cache_dir() / "build.lock"):
                if not binary.exists():
                    build(tool, binary)
        for name in tool.names:
            link(BIN / name, binary)


def source(tool: Tool, module: str) -> Path:
    """The folder of a module that a tool is built from, checked against the tool's go.sum: charts and manifests."""
    downloaded = run(["go", "mod", "download", "-json", module], cwd=tool.module, env={"GOWORK": "off"})
    return Path(json.loads(downloaded)["Dir"])


def build(tool: Tool, binary: Path) -> None:
    log = cache_dir() / "logs" / f"build-{tool.name}.log"
    say(f"building {tool.name} from source: {tool.patience}, once per machine (log: {log})")
    with published(binary) as output:
        flags = ["-buildvcs=false", "-trimpath", "-ldflags", tool.ldflags, "-o", output]
        environment = {"CGO_ENABLED": "0", "GOWORK": "off"}
        run(["nice", "go", "build", *flags, tool.package], cwd=tool.module, env=environment, log=log)
    say(f"built {tool.name}")
