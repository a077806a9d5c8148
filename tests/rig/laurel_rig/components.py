"""The command lines and configuration files of everything that runs in a tier."""

import json
import shutil
from pathlib import Path

from .paths import BIN
from .supervisor import Process
from .tier import API, API_PORT, FULL, Tier

RUNTIME = Path("/run/laurel")  # in the node's own tmpfs
PAUSE_IMAGE = "localhost/laurel/pause:1"
NODE_NAME = "laurel"


def write_configuration(tier: Tier) -> None:
    for name, content in configuration(tier).items():
        file = tier.config / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)


def configuration(tier: Tier) -> dict[str, str]:
    """The files that the components read, under the tier's config folder."""
    if tier == API:
        return {"audit.json": json.dumps(AUDIT_POLICY, indent=2)}
    return {
        "containerd.toml": containerd_config(tier),
        "kubelet.json": json.dumps(kubelet_config(tier), indent=2),
        "Corefile": corefile(tier),
        "cni/10-bridge.conflist": json.dumps(cni_config(tier), indent=2),
    }


# Control plane


def etcd() -> Process:
    """Its data lives and dies with the tier, so it need not wait for the disk."""
    return process("etcd", [
        f"--data-dir={RUNTIME}/etcd", "--unsafe-no-fsync",
        "--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380", "--log-level=warn",
    ])  # fmt: skip


def api_server(tier: Tier) -> Process:
    pki = tier.pki
    flags = [
        "--etcd-servers=http://127.0.0.1:2379",
        f"--secure-port={API_PORT}", "--bind-address=0.0.0.0", f"--advertise-address={tier.node_ip}",
        f"--service-cluster-ip-range={tier.service_cidr}", "--allow-privileged=true",
        "--authorization-mode=Node,RBAC", f"--enable-admission-plugins={','.join(admission_plugins(tier))}",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki}/service-accounts.key",
        f"--service-account-signing-key-file={pki}/service-accounts.key",
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki}/front-proxy-client.crt",
        f"--proxy-client-key-file={pki}/front-proxy-client.key",
    ]  # fmt: skip
    if tier == API:
        flags += [f"--audit-policy-file={tier.config}/audit.json", f"--audit-log-path={tier.logs}/audit.log"]
    return process("kube-apiserver", flags)


def admission_plugins(tier: Tier) -> list[str]:
    """OpenShift has the second one too: who makes something that blocks its owner's deletion needs a right for it."""
    return ["NodeRestriction", *(["OwnerReferencesPermissionEnforcement"] if tier == API else [])]


# Tests read from the audit log what a service account asked for. Everybody else's requests would only fill it.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}


def controller_manager(tier: Tier) -> Process:
    """With its default client limits it takes twice as long to get going."""
    return process("kube-controller-manager", [
        *clients_of_the_api_server(tier, "kube-controller-manager"),
        "--leader-elect=false", "--kube-api-qps=200", "--kube-api-burst=400", "--use-service-account-credentials",
        f"--root-ca-file={tier.pki}/ca.crt",
        f"--service-account-private-key-file={tier.pki}/service-accounts.key",
        f"--cluster-signing-cert-file={tier.pki}/ca.crt", f"--cluster-signing-key-file={tier.pki}/ca.key",
        f"--cluster-cidr={tier.pod_cidr}", "--allocate-node-cidrs=false",
    ])  # fmt: skip


def scheduler(tier: Tier) -> Process:
    return process("kube-scheduler", [
        *clients_of_the_api_server(tier, "kube-scheduler"),
        "--leader-elect=false", "--kube-api-qps=1000", "--kube-api-burst=2000",
    ])  # fmt: skip


def clients_of_the_api_server(tier: Tier, client: str) -> list[str]:
    config = tier.config / f"{client}.kubeconfig"
    return [f"--{flag}={config}" for flag in ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")]


# Simulated pods


def kwok(tier: Tier) -> Process:
    stages = Path(__file__).resolve().parent.parent / "kwok" / "stages.yaml"
    return process("kwok", [
        f"--kubeconfig={tier.config}/kwok.kubeconfig", f"--config={stages}",
        "--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
        f"--cidr={tier.pod_cidr}", f"--node-ip={tier.node_ip}", "--node-lease-duration-seconds=40",
    ])  # fmt: skip


# A real node


def containerd(tier: Tier) -> Process:
    return Process("containerd", [on_path("containerd"), f"--config={tier.config}/containerd.toml"])


def containerd_config(tier: Tier) -> str:
    """The OOM score is restricted because a machine without CAP_SYS_RESOURCE starts no sandbox otherwise."""
    disabled = [
        "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
        "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs",
        "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
    ]  # fmt: skip
    return f"""\
version = 2
root = "{tier.containerd_root}"
state = "/run/containerd"
disabled_plugins = {json.dumps(disabled)}

[grpc]
  address = "{tier.containerd_socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{tier.config}/cni"
"""


def cni_config(tier: Tier) -> dict:
    """Without masquerading no iptables is ever called, and pods keep their addresses towards the host."""
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": f"{RUNTIME}/cni",
            "ranges": [[{"subnet": tier.pod_cidr}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return {"cniVersion": "0.4.0", "name": "laurel", "plugins": [bridge]}


def kubelet(tier: Tier) -> Process:
    return process("kubelet", [
        f"--kubeconfig={tier.config}/kubelet.kubeconfig", f"--config={tier.config}/kubelet.json",
        f"--hostname-override={NODE_NAME}", f"--node-ip={tier.node_ip}",
    ])  # fmt: skip


def kubelet_config(tier: Tier) -> dict:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{tier.containerd_socket}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{tier.pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDomain": "cluster.local",
        "clusterDNS": [tier.node_ip],
        "resolvConf": "",
        # Machines for tests: hybrid or old cgroups, some swap, a nearly full disk.
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "maxPods": 250,
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        # Faster than the defaults, because tests wait for both.
        "nodeStatusUpdateFrequency": "5s",
        "syncFrequency": "10s",
    }


def kube_proxy(tier: Tier) -> Process:
    """The zeros leave the machine's conntrack settings alone."""
    return process("kube-proxy", [
        f"--kubeconfig={tier.config}/kube-proxy.kubeconfig", f"--hostname-override={NODE_NAME}",
        "--proxy-mode=nftables", f"--cluster-cidr={tier.pod_cidr}",
        "--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
    ])  # fmt: skip


def coredns(tier: Tier) -> Process:
    return process("coredns", [f"-conf={tier.config}/Corefile"])


def corefile(tier: Tier) -> str:
    """Names outside the cluster do not exist: there is nobody to forward them to."""
    return f"""\
cluster.local in-addr.arpa {{
    bind {tier.node_ip}
    errors
    kubernetes {{
        kubeconfig {tier.config}/coredns.kubeconfig
    }}
}}
. {{
    bind {tier.node_ip}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def process(name: str, flags: list[str]) -> Process:
    return Process(name, [str(BIN / name), *flags])


def on_path(name: str) -> str:
    return shutil.which(name) or name
