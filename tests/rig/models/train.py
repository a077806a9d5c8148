"""Trains fraud models and registers them with MLflow, for Laurel's tests and demo.

Two registered models of three versions each, and a rule without any training, whose
code the tests replace. Every version has its own hyper-parameters, so that predictions and metrics differ: the second is better
than the first, and the third of `fraud-xgboost` is a bad one, for the gates to
find. What is already registered is left alone.

Run by `rig models` as a Job, or anywhere with MLFLOW_TRACKING_URI set.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import sklearn
import skops
import xgboost
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import infer_signature
from mlflow.models.model import ModelInfo
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import average_precision_score, recall_score, roc_auc_score
from sklearn.model_selection import train_test_split

SEED = 20260801
PAYMENTS = 12_000
THRESHOLD = 0.2  # from this probability on a payment is stopped
COST_OF_A_STOPPED_CUSTOMER = 8.0

Predict = Callable[[pd.DataFrame], np.ndarray]  # the probability of fraud, by payment


@dataclass(frozen=True)
class Split:
    """Payments to learn from and payments to judge by."""

    train: pd.DataFrame
    train_fraud: pd.Series
    test: pd.DataFrame
    test_fraud: pd.Series


@dataclass(frozen=True)
class Trained:
    predict: Predict
    log: Callable[[], ModelInfo]  # writes the model to MLflow


@dataclass(frozen=True)
class Recipe:
    """One version to be."""

    description: str
    parameters: dict[str, float]


@dataclass(frozen=True)
class Family:
    """One registered model."""

    name: str
    description: str
    train: Callable[[Split, dict[str, float]], Trained]
    recipes: tuple[Recipe, ...]


def payments() -> Split:
    """Invented payments, of which about one in a hundred is fraud."""
    random = np.random.default_rng(SEED)
    data = pd.DataFrame(
        {
            "amount": random.lognormal(3.5, 1.0, PAYMENTS).round(2),
            "hour": random.integers(0, 24, PAYMENTS).astype(float),
            "merchant_risk": random.beta(2, 8, PAYMENTS).round(4),
            "distance_km": random.exponential(30, PAYMENTS).round(1),
            "payments_last_day": random.poisson(3, PAYMENTS).astype(float),
            "card_age_days": random.integers(1, 3000, PAYMENTS).astype(float),
        }
    )
    at_night = (data.hour < 6).astype(float)
    suspicion = (
        0.9 * np.log(data.amount / 33)
        + 6.0 * data.merchant_risk
        + 0.02 * data.distance_km
        + 1.2 * at_night * (data.distance_km > 40)
        + 0.25 * data.payments_last_day
        - 0.0006 * data.card_age_days
    )
    chance = 1 / (1 + np.exp(-(1.6 * suspicion - 10.2)))
    fraud = pd.Series(random.random(PAYMENTS) < chance, name="fraud").astype(int)
    train, test, train_fraud, test_fraud = train_test_split(
        data, fraud, test_size=0.3, random_state=SEED, stratify=fraud
    )
    return Split(train, train_fraud, test, test_fraud)


def train_forest(split: Split, parameters: dict[str, float]) -> Trained:
    forest = RandomForestClassifier(random_state=SEED, **parameters).fit(split.train, split.train_fraud)

    def log() -> ModelInfo:
        return mlflow.sklearn.log_model(
            forest,
            name="model",
            pyfunc_predict_fn="predict_proba",
            skops_trusted_types=["sklearn.tree._tree.Tree"],  # skops asks, since a forged tree can crash its reader
            signature=infer_signature(split.train, forest.predict_proba(split.train)),
            input_example=split.test.head(3),
            pip_requirements=[f"scikit-learn=={sklearn.__version__}", f"skops=={skops.__version__}"],
        )

    return Trained(lambda data: forest.predict_proba(data)[:, 1], log)


def train_boosted_trees(split: Split, parameters: dict[str, float]) -> Trained:
    parameters = dict(parameters)
    rounds = int(parameters.pop("rounds"))
    settings = {"objective": "binary:logistic", "seed": SEED, "nthread": 1, **parameters}
    booster = xgboost.train(settings, xgboost.DMatrix(split.train, split.train_fraud), num_boost_round=rounds)

    def predict(data: pd.DataFrame) -> np.ndarray:
        return booster.predict(xgboost.DMatrix(data))

    def log() -> ModelInfo:
        return mlflow.xgboost.log_model(
            booster,
            name="model",
            signature=infer_signature(split.train, predict(split.train)),
            input_example=split.test.head(3),
            pip_requirements=[f"xgboost=={xgboost.__version__}"],
        )

    return Trained(predict, log)


RULE = """from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class Rule(PythonModel):
    def predict(self, context, model_input):
        if (model_input["amount"] < 0).any():
            raise ValueError("an amount is never negative")
        return (model_input["amount"] > 200).astype(float)


set_model(Rule())
"""


def write_rule(split: Split, _: dict[str, float]) -> Trained:
    def predict(data: pd.DataFrame) -> np.ndarray:
        return (data.amount > 200).astype(float).to_numpy()

    def log() -> ModelInfo:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rule.py"
            path.write_text(RULE)
            return mlflow.pyfunc.log_model(
                name="model",
                python_model=str(path),
                signature=infer_signature(split.train, predict(split.train)),
                input_example=split.test.head(3),
                pip_requirements=[],
            )

    return Trained(predict, log)


FAMILIES = (
    Family(
        "fraud-sklearn",
        "Tells fraudulent payments: a random forest.",
        train_forest,
        (
            Recipe("A first, small forest.", {"n_estimators": 10, "max_depth": 3}),
            Recipe("Deeper trees, and more of them.", {"n_estimators": 60, "max_depth": 7}),
            Recipe(
                "More trees, kept from learning single payments.",
                {"n_estimators": 120, "max_depth": 9, "min_samples_leaf": 5},
            ),
        ),
    ),
    Family(
        "fraud-xgboost",
        "Tells fraudulent payments: gradient-boosted trees.",
        train_boosted_trees,
        (
            Recipe("A first, short run.", {"rounds": 15, "max_depth": 3, "eta": 0.3}),
            Recipe("Longer and slower.", {"rounds": 150, "max_depth": 3, "eta": 0.06, "subsample": 0.8}),
            Recipe(
                "In a hurry: it learned single payments by heart.",
                {"rounds": 40, "max_depth": 14, "eta": 1.0, "min_child_weight": 0},
            ),
        ),
    ),
    Family(
        "fraud-rule",
        "Tells fraudulent payments: a rule, as code.",
        write_rule,
        (Recipe("Large amounts.", {}),),
    ),
)


def judge(predict: Predict, split: Split) -> dict[str, float]:
    chance = predict(split.test)
    stopped = chance >= THRESHOLD
    missed = split.test.amount[~stopped & (split.test_fraud == 1)].sum()
    bothered = (stopped & (split.test_fraud == 0)).sum() * COST_OF_A_STOPPED_CUSTOMER
    return {
        "auc": roc_auc_score(split.test_fraud, chance),
        "average_precision": average_precision_score(split.test_fraud, chance),
        "recall": recall_score(split.test_fraud, stopped),
        "cost": missed + bothered,
        "latency_p99_ms": latency_p99_ms(predict, split.test),
    }


def latency_p99_ms(predict: Predict, data: pd.DataFrame, requests: int = 100) -> float:
    """Of one payment at a time, as they come."""
    taken = []
    for row in range(requests):
        began = time.perf_counter()
        predict(data.iloc[[row]])
        taken.append((time.perf_counter() - began) * 1000)
    return float(np.percentile(taken, 99))


def register_missing(client: MlflowClient, family: Family, split: Split) -> None:
    if not client.search_registered_models(filter_string=f"name = '{family.name}'"):
        client.create_registered_model(family.name, tags={"team": "payments"}, description=family.description)
    have = len(versions_of(client, family.name))
    if have >= len(family.recipes):
        print(f"{family.name} already has {have} versions; nothing to do")
    for recipe in family.recipes[have:]:
        version = register(client, family, recipe, split)
        print(f"registered {family.name} version {version.version}", flush=True)


def register(client: MlflowClient, family: Family, recipe: Recipe, split: Split) -> ModelVersion:
    trained = family.train(split, recipe.parameters)
    with mlflow.start_run(run_name=f"{family.name}: {recipe.description}"):
        mlflow.log_params(recipe.parameters)
        mlflow.log_metrics(judge(trained.predict, split))
        mlflow.set_tag("threshold", THRESHOLD)
        model = trained.log()
    return client.create_model_version(
        family.name,
        source=model.model_uri,
        run_id=model.run_id,
        model_id=model.model_id,
        tags={"data": f"payments-{SEED}"},
        description=recipe.description,
    )


def versions_of(client: MlflowClient, name: str) -> list[ModelVersion]:
    return sorted(client.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version))


def print_table(client: MlflowClient) -> None:
    columns = ("auc", "average_precision", "recall", "cost", "latency_p99_ms")
    print(f"\n{'model':14} {'version':7}", *(f"{column:>17}" for column in columns))
    for family in FAMILIES:
        for version in versions_of(client, family.name):
            metrics = client.get_run(version.run_id).data.metrics
            print(f"{version.name:14} {version.version:7}", *(f"{metrics[column]:17.3f}" for column in columns))


def main() -> None:
    client = MlflowClient()
    mlflow.set_experiment("fraud")
    split = payments()
    print(f"{PAYMENTS} payments, {split.train_fraud.mean():.1%} of them fraud")
    for family in FAMILIES:
        register_missing(client, family, split)
    print_table(client)


if __name__ == "__main__":
    main()
