"""One throw-away certificate authority per start, and what it signs."""

import base64
from collections.abc import Iterable
from pathlib import Path

from .shell import run
from .tier import Tier

EC_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "365")

# Who calls the API server: file name, then user and groups as X.509 writes them.
# CoreDNS and KWOK are administrators here: the rig has no secrets to keep from them.
CLIENTS = {
    "admin": "/O=system:masters/CN=laurel-rig-admin",
    "kube-controller-manager": "/CN=system:kube-controller-manager",
    "kube-scheduler": "/CN=system:kube-scheduler",
    "kube-proxy": "/CN=system:kube-proxy",
    "kubelet": "/O=system:nodes/CN=system:node:laurel",
    "coredns": "/O=system:masters/CN=coredns",
    "kwok": "/O=system:masters/CN=kwok",
    "apiserver-kubelet-client": "/O=system:masters/CN=kube-apiserver-kubelet-client",
}


def make_all(tier: Tier) -> None:
    tier.pki.mkdir(parents=True)
    tier.pki.chmod(0o700)
    make_authority(tier.pki, "ca")
    make_authority(tier.pki, "front-proxy-ca")
    issue(tier.pki, "apiserver", "/CN=kube-apiserver", usage="serverAuth", names=api_server_names(tier))
    issue(tier.pki, "front-proxy-client", "/CN=front-proxy-client", authority="front-proxy-ca")
    for name, subject in CLIENTS.items():
        issue(tier.pki, name, subject)
    run(["openssl", "genrsa", "-out", tier.pki / "service-accounts.key", "2048"])


def make_authority(pki: Path, name: str) -> None:
    run(["openssl", "req", "-x509", *EC_KEY, "-subj", f"/CN=laurel-rig-{name}",
         "-addext", "keyUsage=critical,keyCertSign,cRLSign",
         "-keyout", pki / f"{name}.key", "-out", pki / f"{name}.crt"])  # fmt: skip


def issue(
    pki: Path, name: str, subject: str, *, authority: str = "ca", usage: str = "clientAuth", names: Iterable[str] = ()
) -> None:
    extensions = ["basicConstraints=CA:FALSE", f"extendedKeyUsage={usage}"]
    if names:
        extensions.append(f"subjectAltName={','.join(names)}")
    run(["openssl", "req", "-x509", *EC_KEY, "-subj", subject,
         "-CA", pki / f"{authority}.crt", "-CAkey", pki / f"{authority}.key",
         *(word for extension in extensions for word in ("-addext", extension)),
         "-keyout", pki / f"{name}.key", "-out", pki / f"{name}.crt"])  # fmt: skip


def api_server_names(tier: Tier) -> list[str]:
    inside = "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"
    addresses = "127.0.0.1", tier.node_ip, tier.api_service_ip
    return [f"DNS:{name}" for name in ("localhost", *inside)] + [f"IP:{address}" for address in addresses]


def kubeconfig(tier: Tier, client: str) -> str:
    """Everything embedded, so that the file works from anywhere on the host."""

    def embedded(file: str) -> str:
        return base64.b64encode((tier.pki / file).read_bytes()).decode()

    context = f"laurel-{tier.name}"
    return f"""\
apiVersion: v1
kind: Config
current-context: {context}
clusters:
- name: {context}
  cluster: {{server: "{tier.server}", certificate-authority-data: {embedded("ca.crt")}}}
contexts:
- name: {context}
  context: {{cluster: {context}, user: {client}}}
users:
- name: {client}
  user: {{client-certificate-data: {embedded(f"{client}.crt")}, client-key-data: {embedded(f"{client}.key")}}}
"""


def write_kubeconfigs(tier: Tier) -> None:
    for client in CLIENTS:
        write_private(tier.config / f"{client}.kubeconfig", kubeconfig(tier, client))
    write_private(tier.kubeconfig, kubeconfig(tier, "admin"))


def write_private(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(content)
