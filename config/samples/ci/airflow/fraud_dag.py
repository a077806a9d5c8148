"""A DAG of Airflow 3 that trains the model `fraud-nightly` every night. Put it into the dags folder beside `fraud_training.py`.

    train -> register (if good enough) -> validate (tags the version) ... and the ModelAlias in modelalias-follower.yaml follows.

The workers need `mlflow` and `scikit-learn`, and MLFLOW_TRACKING_URI in their environment.
"""

import pendulum
from airflow.sdk import dag, task

import fraud_training


@dag(schedule="@daily", start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False, max_active_runs=1)
def fraud():
    validate = task(fraud_training.validate)
    validate(task(fraud_training.register)(task(fraud_training.train)()))


fraud()
