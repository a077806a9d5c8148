"""MLflow in the cluster, and the models of the tests and the demo in its registry."""

import json
import os
from pathlib import Path

from . import containers, images
from .kube import kubectl, target_kubeconfig
from .paths import RIG
from .shell import RigError, say, wait_until
from .tier import FULL

NAMESPACE = "mlops"
MANIFESTS = RIG / "mlflow"
TRAINING = RIG / "models" / "train.py"

IMAGE = "localhost/laurel/mlflow:3.17.2"  # as the manifests say; MLFLOW_IMAGE takes its place in other clusters


def up() -> None:
    provide_image()
    apply("namespace.yaml")
    apply("mlflow.yaml")
    wait_until("MLflow is ready", 180, is_up, every=0.5, hint=f"see kubectl describe pods --namespace={NAMESPACE}")
    say("MLflow answers in the cluster at http://mlflow.mlops.svc:5000")


def is_up() -> bool:
    """Also after a change of the Deployment: the pod of the old one does not count."""
    deployment = json.loads(kubectl("get", "deployment/mlflow", f"--namespace={NAMESPACE}", "--output=json"))
    status = deployment["status"]
    is_current = status.get("observedGeneration") == deployment["metadata"]["generation"]
    return is_current and status.get("updatedReplicas") == 1 and status.get("availableReplicas") == 1


def train_models() -> None:
    """Runs models/train.py as a Job beside MLflow and prints what it said."""
    up()
    job = f"--namespace={NAMESPACE}", "job/train-models"
    kubectl("delete", *job, "--ignore-not-found", "--wait")
    script = kubectl(
        "create", "configmap", "train-models", f"--namespace={NAMESPACE}", f"--from-file={TRAINING}",
        "--dry-run=client", "--output=yaml",
    )  # fmt: skip
    kubectl("apply", "-f", "-", stdin=script)
    apply("train-models.yaml")
    say("training: a Job in the cluster")
    wait_until("the training Job ends", 600, lambda: ending() != "", every=0.5, hint=f"kubectl logs {' '.join(job)}")
    print(kubectl("logs", *job))
    if ending() != "Complete":
        raise RigError("the training Job failed; its last lines are above")
    say("the models are registered")


def ending() -> str:
    """`Complete` or `Failed`, and nothing while the Job runs."""
    ended = '{range .status.conditions[?(@.status=="True")]}{.type}{"\\n"}{end}'
    conditions = kubectl("get", "job/train-models", f"--namespace={NAMESPACE}", f"--output=jsonpath={ended}").split()
    return next((condition for condition in conditions if condition in ("Complete", "Failed")), "")


def provide_image() -> None:
    """Other clusters pull theirs."""
    if "MLFLOW_IMAGE" not in os.environ and is_the_full_tier(target_kubeconfig()):
        containers.import_if_up(images.mlflow())


def is_the_full_tier(kubeconfig: str) -> bool:
    return Path(kubeconfig).absolute() == FULL.kubeconfig


def apply(manifest: str) -> None:
    text = (MANIFESTS / manifest).read_text()
    kubectl("apply", "-f", "-", stdin=text.replace(IMAGE, os.environ.get("MLFLOW_IMAGE", IMAGE)))
