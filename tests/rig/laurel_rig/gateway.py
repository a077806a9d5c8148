"""The Gateway API in a cluster: its CRDs, and Envoy Gateway with the Envoy that it was made for."""

import json
import shutil
import tempfile
from pathlib import Path

from . import containers, gobuild, images
from .kube import is_true, kubectl, target_kubeconfig
from .mlflow import is_the_full_tier
from .paths import BIN, RIG
from .shell import run, say, wait_until
from .tier import Tier

NAMESPACE = "envoy-gateway-system"
MANIFEST = RIG / "gateway" / "gateway.yaml"


def install_crds(tier: Tier | None = None) -> None:
    """The standard channel, as most clusters have it, with the policy that refuses experimental CRDs over it."""
    folder = gobuild.source(gobuild.ENVOY_GATEWAY, "sigs.k8s.io/gateway-api") / "config" / "crd" / "standard"
    apply_folder(folder, tier)
    kubectl("wait", "--for=condition=Established", "crd/httproutes.gateway.networking.k8s.io", "--timeout=60s", tier=tier)
    say("the CRDs of the Gateway API are there")


def up() -> None:
    """Acts on KUBECONFIG's cluster, or else on the full tier."""
    gobuild.ensure(gobuild.ENVOY_GATEWAY, gobuild.HELM)
    controller, proxy = images.envoy_gateway(), images.envoy()
    if is_the_full_tier(target_kubeconfig()):
        for image in (controller, proxy):
            containers.import_if_up(image)
    install_crds()
    chart = gobuild.source(gobuild.ENVOY_GATEWAY, "github.com/envoyproxy/gateway") / "charts" / "gateway-helm"
    apply_folder(chart / "charts" / "crds" / "crds" / "generated", None)
    install(chart, controller.name, proxy.name)
    kubectl("apply", "--server-side", "-f", MANIFEST)
    hint = f"see kubectl describe gateway/public --namespace=infra, and the pods of {NAMESPACE}"
    wait_until("the Gateway has a proxy", 180, is_programmed, every=0.5, hint=hint)
    say("the Gateway is there: gateway/public in the namespace infra")


def apply_folder(folder: Path, tier: Tier | None) -> None:
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(folder), tier=tier)


def install(chart: Path, controller: str, proxy: str) -> None:
    """The module has a template in place of the chart's values."""
    with tempfile.TemporaryDirectory(prefix="laurel-chart-") as scratch:
        copy = Path(scratch) / "gateway-helm"
        shutil.copytree(chart, copy, copy_function=shutil.copyfile)
        template = (copy / "values.tmpl.yaml").read_text()
        values = template.replace("${GatewayImage}", controller).replace("${GatewayImagePullPolicy}", "IfNotPresent")
        (copy / "values.yaml").write_text(values)
        settings = {
            "crds.enabled": "false",
            "topologyInjector.enabled": "false",
            "global.images.envoyProxy.image": proxy,
            "global.images.envoyProxy.pullPolicy": "IfNotPresent",
        }
        flags = [f"--set={name}={value}" for name, value in settings.items()]
        run([BIN / "helm", "upgrade", "--install", "eg", copy, f"--namespace={NAMESPACE}", "--create-namespace",
             "--skip-crds", "--wait", "--timeout=5m", *flags], env={"KUBECONFIG": target_kubeconfig()})  # fmt: skip


def is_programmed() -> bool:
    """Whether a proxy serves the Gateway. Its address stands in its status then."""
    gateway = json.loads(kubectl("get", "gateway/public", "--namespace=infra", "--output=json"))
    current = gateway["metadata"]["generation"]
    conditions = gateway.get("status", {}).get("conditions", [])
    seen = [each for each in conditions if each.get("observedGeneration") == current]
    return is_true({"status": {"conditions": seen}}, "Programmed")
