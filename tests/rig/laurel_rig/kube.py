"""Questions to a tier's API server, without kubectl: the answers are needed many times a second while it starts."""

import json
import os
import ssl
import urllib.error
import urllib.request

from .paths import BIN
from .shell import RigError, run
from .tier import FULL, Tier


class Api:
    def __init__(self, tier: Tier):
        self.server = tier.server
        self.tls = ssl.create_default_context(cafile=tier.pki / "ca.crt")
        self.tls.load_cert_chain(tier.pki / "admin.crt", tier.pki / "admin.key")

    def get(self, path: str) -> str | None:
        """The body of a successful answer, or None: an API server on its way up refuses in many ways."""
        try:
            with urllib.request.urlopen(self.server + path, context=self.tls, timeout=2) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, OSError):
            return None

    def is_ready(self) -> bool:
        return self.get("/readyz") == "ok"

    def ready_nodes(self) -> int:
        nodes = json.loads(self.get("/api/v1/nodes") or '{"items": []}')["items"]
        return sum(is_true(node, "Ready") for node in nodes)

    def admits_pods(self) -> bool:
        """Pods are refused until their namespace has its default service account."""
        return self.get("/api/v1/namespaces/default/serviceaccounts/default") is not None


def is_true(thing: dict, condition: str) -> bool:
    conditions = thing["status"].get("conditions", [])
    return any(each["type"] == condition and each["status"] == "True" for each in conditions)


def kubectl(*words: str, tier: Tier | None = None, stdin: str | None = None) -> str:
    """Against `tier`, or else against KUBECONFIG's cluster if set, or else against the full tier."""
    return run([BIN / "kubectl", *words], env={"KUBECONFIG": target_kubeconfig(tier)}, stdin=stdin)


def target_kubeconfig(tier: Tier | None = None) -> str:
    if tier is None and (given := os.environ.get("KUBECONFIG")):
        return given
    path = (tier or FULL).kubeconfig
    if not path.exists():
        raise RigError(f"no cluster: {path} is not there. Run `tests/rig/rig up full`, or set KUBECONFIG")
    return str(path)
