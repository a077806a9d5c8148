"""Training of the model `fraud-nightly`: plain functions that Airflow, another scheduler or a person can call one after the other.

Nothing here knows of Kubernetes. A version that is good enough is registered; one that also passes on data that its training never
saw gets the tag `validated`. A ModelAlias that follows (`follow: {best: {metric: auc, tags: {validated: "true"}}}`) does the rest.
"""

import os

import mlflow
from mlflow import MlflowClient
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

MODEL = os.environ.get("MODEL", "fraud-nightly")
# What a version has to reach to be registered at all.
LEAST_AUC = float(os.environ.get("LEAST_AUC", "0.7"))
# How much of it may be lost on new data.
TOLERANCE = 0.1


def payments(is_new: bool):
    """Labelled payments. Read yours here; these are made up, and the new ones follow the same law."""
    features, labels = make_classification(n_samples=4000, n_features=12, n_informative=6, random_state=3)
    half = len(labels) // 2
    return (features[half:], labels[half:]) if is_new else (features[:half], labels[:half])


def train() -> dict:
    """Trains and evaluates, in a run of its own. Answers the run, the logged model and its AUC."""
    features, labels = payments(is_new=False)
    cut = len(labels) * 3 // 4
    with mlflow.start_run() as run:
        model = LogisticRegression(max_iter=1000).fit(features[:cut], labels[:cut])
        auc = roc_auc_score(labels[cut:], model.predict_proba(features[cut:])[:, 1])
        mlflow.log_metric("auc", auc)
        logged = mlflow.sklearn.log_model(
            model,
            name="model",
            # With an input example, Laurel sends each version one request before it gets traffic.
            input_example=features[:1],
            # What the serving image has; without it MLflow looks for it at length.
            pip_requirements=["mlflow", "scikit-learn"],
        )
    return {"run_id": run.info.run_id, "model_uri": logged.model_uri, "auc": float(auc)}


def register(trained: dict) -> str | None:
    """Registers what was trained, if it is good enough. Answers the version, or None."""
    if not trained["auc"] >= LEAST_AUC:
        return None
    return str(mlflow.register_model(trained["model_uri"], MODEL).version)


def validate(version: str | None) -> bool:
    """Looks at a version with data that its training never saw, and tags it for the follower if it holds."""
    if version is None:
        return False
    features, labels = payments(is_new=True)
    model = mlflow.sklearn.load_model(f"models:/{MODEL}/{version}")
    auc = roc_auc_score(labels, model.predict_proba(features)[:, 1])
    is_good = bool(auc >= LEAST_AUC - TOLERANCE)
    client = MlflowClient()
    client.set_model_version_tag(MODEL, version, "validation_auc", f"{auc:.4f}")
    client.set_model_version_tag(MODEL, version, "validated", "true" if is_good else "false")
    return is_good
