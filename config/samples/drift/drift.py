"""Compares the inputs that a model gets with those that it was trained on, and writes the result to its version in MLflow.

    request log of the last day ─┐
                                 ├─► Evidently ─► tags laurel.drift.* of the version ─► the rule live.drift of Laurel
    drift/reference.parquet ─────┘

The request log is the application's own: Parquet or CSV files, a column for each input. The reference is a sample of the
training data, which the training logs beside the model: `mlflow.log_artifact("reference.parquet", "drift")`.

Settings are environment variables:

    MLFLOW_TRACKING_URI    as for MLflow's own client, as are MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD,
                           MLFLOW_TRACKING_TOKEN and MLFLOW_WORKSPACE; SSL_CERT_FILE names a certificate authority
    MODEL                  name of the registered model
    VERSIONS               which versions: aliases, numbers or `latest`, separated by commas; default: champion
    INPUTS                 folder of the request log, with all folders below it
    TIMESTAMP_COLUMN       when a request was made; without it, the time of the last change of a file counts for its rows
    WINDOW_HOURS           how far back; default: 24
    REFERENCE              path of the reference among the artifacts; default: drift/reference.parquet
"""

import base64
import http.client
import io
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy
import pandas
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset
from pyarrow import parquet

# Evidently compares a sample of so many rows: more would take memory, and change nothing.
SAMPLE = 20_000
# Up to here, Evidently asks whether a difference is significant, and above it, whether it is large.
SMALL_REFERENCE = 1_000
REFERENCE_BYTES = 256 << 20
# MLflow accepts more, but this is read by people.
COLUMNS_LENGTH = 500
TIMEOUT = 60
# A column of our own while files are read.
ORDER = "laurel.drift.order"


class DriftError(Exception):
    """What a person has to know: the object, the cause, and the next step."""


@dataclass(frozen=True)
class Settings:
    url: str
    headers: dict[str, str]
    model: str
    versions: list[str]
    inputs: Path
    timestamp: str | None
    window: timedelta
    reference: str

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Settings":
        def required(name: str, example: str) -> str:
            if value := environment.get(name, "").strip():
                return value
            raise DriftError(f"{name} is not set: set it in the environment, for instance to {example}")

        hours = environment.get("WINDOW_HOURS") or "24"
        if not hours.isdecimal() or not 0 < int(hours) <= 24 * 365:
            raise DriftError(f"WINDOW_HOURS is not a number of hours, but {hours!r}: set it to 24, for instance")
        url = required("MLFLOW_TRACKING_URI", "http://mlflow.mlops.svc:5000").rstrip("/")
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise DriftError(f"MLFLOW_TRACKING_URI is {url!r}: it has to begin with http:// or https://")
        names = (name.strip() for name in environment.get("VERSIONS", "champion").split(","))
        return cls(
            url=url,
            headers=headers(environment),
            model=required("MODEL", "fraud"),
            versions=[name for name in names if name],
            inputs=Path(required("INPUTS", "/inputs")),
            timestamp=environment.get("TIMESTAMP_COLUMN") or None,
            window=timedelta(hours=int(hours)),
            reference=environment.get("REFERENCE") or "drift/reference.parquet",
        )


def headers(environment: Mapping[str, str]) -> dict[str, str]:
    """What MLflow's own client would send."""
    sent = {}
    if token := environment.get("MLFLOW_TRACKING_TOKEN"):
        sent["Authorization"] = f"Bearer {token}"
    if user := environment.get("MLFLOW_TRACKING_USERNAME"):
        login = f"{user}:{environment.get('MLFLOW_TRACKING_PASSWORD', '')}"
        sent["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    if workspace := environment.get("MLFLOW_WORKSPACE"):
        sent["X-MLFLOW-WORKSPACE"] = workspace
    return sent


class Registry:
    """The few requests to MLflow that this takes; its client would triple the size of the image."""

    def __init__(self, settings: Settings):
        self.url, self.headers = settings.url, settings.headers

    def call(self, method: str, path: str, body: dict | None = None, **query: str) -> dict:
        return json.loads(self.request(method, f"api/2.0/mlflow/{path}", body, query))

    def request(self, method: str, path: str, body: dict | None, query: dict[str, str], limit: int = 1 << 20) -> bytes:
        url = f"{self.url}/{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
        for name, value in self.headers.items():
            # A redirect to another host must not get the password.
            request.add_unredirected_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                content = response.read(limit + 1)
        except urllib.error.HTTPError as error:
            raise Refused(self.url, method, path, error.code, message(error)) from error
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", None) or error
            raise DriftError(
                f"MLflow at {self.url} does not answer: {cause}; check MLFLOW_TRACKING_URI, and that a NetworkPolicy lets "
                "this pod reach it"
            ) from error
        if len(content) > limit:
            raise DriftError(f"{path} at {self.url} is larger than {limit >> 20} MiB: log a smaller sample")
        return content


class Refused(DriftError):
    """An answer that is an error."""

    def __init__(self, server: str, method: str, path: str, status: int, detail: str):
        self.status = status
        steps = {401: "; check the user name and the password", 403: "; this login may not: it has to read the model and its "
                 "artifacts, and to edit the model's tags"}  # fmt: skip
        super().__init__(f"{method} {path} at {server}: HTTP {status}: {detail}{steps.get(status, '')}")


def message(error: urllib.error.HTTPError) -> str:
    text = error.read(10_000).decode(errors="replace")
    try:
        return str(json.loads(text)["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return " ".join(text.split())[:200] or str(error.reason)


def resolve(registry: Registry, model: str, name: str) -> dict:
    """The version with this number, or that an alias or `latest` names."""
    try:
        if name.isdecimal():
            return registry.call("GET", "model-versions/get", name=model, version=name)["model_version"]
        if name != "latest":
            return registry.call("GET", "registered-models/alias", name=model, alias=name)["model_version"]
        quoted = model.replace("'", "''")
        found = registry.call("GET", "model-versions/search", filter=f"name='{quoted}'", max_results="1",
                              order_by="version_number DESC")  # fmt: skip
    except Refused as error:
        if error.status in (400, 404):
            raise DriftError(f"there is no version {name!r} of model {model!r}: {error}; correct MODEL or VERSIONS") from error
        raise
    if not found.get("model_versions"):
        raise DriftError(f"model {model!r} has no version: register one, or correct MODEL")
    return found["model_versions"][0]


def read_reference(registry: Registry, settings: Settings, version: dict) -> pandas.DataFrame:
    """From the artifacts of the version's run, or else from those of the version itself."""
    path, name = settings.reference, f"version {version['version']} of model {settings.model!r}"
    places = [("model-versions/get-artifact", {"name": settings.model, "version": version["version"]})]
    if run := version.get("run_id"):
        places.insert(0, ("get-artifact", {"run_id": run}))
    missing = []
    for place, which in places:
        try:
            content = registry.request("GET", place, None, {**which, "path": path}, REFERENCE_BYTES)
            break
        except Refused as error:
            # Releases differ in what they answer for an artifact that is not there.
            if error.status not in (404, 500):
                raise
            missing.append(str(error))
    else:
        raise DriftError(
            f"{name} has no reference {path!r} ({'; '.join(missing)}): log a sample of its training data with "
            "mlflow.log_artifact, in the run that logs the model"
        )
    try:
        frame = pandas.read_parquet(io.BytesIO(content))
    except Exception as error:
        raise DriftError(f"the reference {path!r} of {name} is not a Parquet file: {error}; log it again") from error
    if frame.empty:
        raise DriftError(f"the reference {path!r} of {name} has no rows: log a sample of its training data")
    return frame


@dataclass
class Inputs:
    """A sample of what was logged, and how many rows there were."""

    frame: pandas.DataFrame
    rows: int


def read_inputs(settings: Settings, columns: list[str], now: datetime) -> Inputs:
    """Files are read one after the other, so memory is needed for the largest one."""
    begin = now - settings.window
    # A fixed seed: the same inputs have the same result.
    random = numpy.random.default_rng(0)
    sample, rows, files = pandas.DataFrame(), 0, 0
    for file in changed_since(settings.inputs, begin):
        frame = read_file(file, columns, settings.timestamp)
        if settings.timestamp:
            frame = frame[times(frame, settings.timestamp, file) >= begin].drop(columns=settings.timestamp, errors="ignore")
        rows, files = rows + len(frame), files + 1
        # Of rows that are numbered at random, the smallest are a fair sample.
        sample = pandas.concat([sample, frame.assign(**{ORDER: random.random(len(frame))})], ignore_index=True)
        sample = sample.nsmallest(SAMPLE, ORDER)
    print(f"drift: {rows} rows since {begin:%Y-%m-%dT%H:%M:%SZ} in {files} files below {settings.inputs}")
    return Inputs(sample.drop(columns=ORDER, errors="ignore"), rows)


def changed_since(folder: Path, begin: datetime) -> Iterator[Path]:
    if not folder.is_dir():
        raise DriftError(f"the folder of the inputs, {folder}, does not exist: mount the request log there, or correct INPUTS")
    for file in sorted(folder.rglob("*")):
        # As elsewhere, a file is still being written while its name begins so.
        is_log = file.name.endswith((".parquet", ".csv", ".csv.gz")) and not file.name.startswith((".", "_"))
        if is_log and file.is_file() and file.stat().st_mtime >= begin.timestamp():
            yield file


def read_file(file: Path, columns: list[str], timestamp: str | None) -> pandas.DataFrame:
    """Only the columns that are compared: a log may have a hundred others."""
    wanted = {*columns, timestamp}
    try:
        if file.suffix != ".parquet":
            return pandas.read_csv(file, usecols=wanted.__contains__)
        there = parquet.read_schema(file).names
        return pandas.read_parquet(file, columns=[column for column in there if column in wanted])
    except Exception as error:
        raise DriftError(
            f"{file} cannot be read: {error}; give a file its final name only when it is complete, or remove it"
        ) from error


def times(frame: pandas.DataFrame, column: str, file: Path) -> pandas.Series:
    if column not in frame.columns:
        raise DriftError(f"{file} has no column {column!r}: correct TIMESTAMP_COLUMN, or unset it")
    if pandas.api.types.is_numeric_dtype(frame[column]) and len(frame):
        raise DriftError(f"column {column!r} of {file} has numbers: write times as 2026-01-31T12:00:00Z, which has a unit")
    try:
        return pandas.to_datetime(frame[column], utc=True, format="ISO8601")
    except (ValueError, TypeError) as error:
        raise DriftError(f"column {column!r} of {file} has a value that is not a time: {error}") from error


@dataclass
class Result:
    """What is written to the version. The share is absent if there were no rows."""

    rows: int
    compared: int
    share: float | None
    drifted: list[str]


def compare(reference: pandas.DataFrame, inputs: Inputs) -> Result:
    numbers, categories, skipped = kinds(reference)
    if skipped:
        print(f"drift: not compared, as they are empty, times or lists in the reference: {', '.join(skipped)}")
    compared = [*numbers, *categories]
    if not compared:
        raise DriftError("the reference has no column with numbers, words or booleans: log a sample of the model's inputs")
    if not inputs.rows:
        return Result(0, len(compared), None, [])
    current = inputs.frame.reindex(columns=compared)
    current[numbers] = current[numbers].apply(pandas.to_numeric, errors="coerce")
    # What never has a value is as different as can be, and Evidently does not compare it.
    empty = [column for column in compared if current[column].isna().all()]
    if len(empty) == len(compared):
        raise DriftError(
            f"the inputs have no value in any column of the reference ({', '.join(compared)[:200]}): the request log has to "
            "use the same names, and numbers where it has numbers"
        )
    if empty:
        print(f"drift: without a value in all inputs, so taken for drifted: {', '.join(empty)}")
    numbers, categories = ([column for column in kind if column not in empty] for kind in (numbers, categories))
    drifted = {*empty, *evidently(reference, current, numbers, categories)}
    in_order = [column for column in reference.columns if column in drifted]
    return Result(inputs.rows, len(compared), len(drifted) / len(compared), in_order)


def kinds(reference: pandas.DataFrame) -> tuple[list[str], list[str], list[str]]:
    """The columns with numbers, those with categories, and those that cannot be compared."""
    numbers, categories, skipped = [], [], []
    types = pandas.api.types
    for column in reference.columns:
        values = reference[column].dropna()
        if values.empty or not is_plain(values):
            skipped.append(column)
        elif types.is_numeric_dtype(values) and not types.is_bool_dtype(values):
            numbers.append(column)
        else:
            categories.append(column)
    return numbers, categories, skipped


def is_plain(values: pandas.Series) -> bool:
    if pandas.api.types.is_datetime64_any_dtype(values) or pandas.api.types.is_timedelta64_dtype(values):
        return False
    return values.map(lambda value: isinstance(value, (str, bool, int, float, numpy.generic))).all()


def evidently(reference: pandas.DataFrame, current: pandas.DataFrame, numbers: list[str], categories: list[str]) -> set[str]:
    """The columns that Evidently calls drifted, with its own choice of method and limit for each."""
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=categories)

    def dataset(frame: pandas.DataFrame) -> Dataset:
        # A log may have the words of what a reference has as numbers or booleans.
        frame = frame[[*numbers, *categories]].copy()
        for column in categories:
            frame[column] = frame[column].map(str, na_action="ignore").astype(object)
        return Dataset.from_pandas(frame, data_definition=definition)

    with warnings.catch_warnings(), numpy.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        report = Report([DataDriftPreset()], include_tests=True)
        sample = reference.sample(min(len(reference), SAMPLE), random_state=0)
        tests = report.run(dataset(current), dataset(sample)).dict()["tests"]
    found = {}
    for test in tests:
        if column := test["metric_config"]["params"].get("column"):
            found[column] = str(getattr(test["status"], "value", test["status"])) == "FAIL"
    if found.keys() != {*numbers, *categories}:
        raise DriftError(f"bug: Evidently judged {sorted(found)} of {sorted([*numbers, *categories])}; please report it")
    return {column for column, has_drifted in found.items() if has_drifted}


def write(registry: Registry, settings: Settings, version: dict, result: Result, now: datetime) -> None:
    """Each tag is a write of its own, and somebody may read in between: in this order, that reader finds the result of
    before or the new one, and never the share of few rows beside the number of many.
    """
    where = {"name": settings.model, "version": version["version"]}
    known = {tag["key"]: tag["value"] for tag in version.get("tags", [])}
    rows = {"laurel.drift.rows": str(result.rows)}
    found = {
        "laurel.drift.share": None if result.share is None else f"{result.share:.4g}",
        "laurel.drift.columns": listed(result.drifted),
    }
    before = known.get("laurel.drift.rows", "")
    has_fewer = before.isdecimal() and result.rows < int(before)
    in_order = {**rows, **found} if has_fewer else {**found, **rows}
    for key, value in {**in_order, "laurel.drift.at": f"{now:%Y-%m-%dT%H:%M:%SZ}"}.items():
        if value:
            registry.call("POST", "model-versions/set-tag", {**where, "key": key, "value": value})
        elif key in known:
            registry.call("DELETE", "model-versions/delete-tag", {**where, "key": key})


def listed(columns: list[str]) -> str:
    """As many names as fit, without what would break the list."""
    names = [" ".join(column.replace(",", " ").split()) for column in map(str, columns)]
    whole = ",".join(names)
    if len(whole) <= COLUMNS_LENGTH:
        return whole
    return whole[: COLUMNS_LENGTH - 2].rpartition(",")[0] + ",…"


def judge(registry: Registry, settings: Settings, version: dict, now: datetime) -> None:
    number = version["version"]
    reference = read_reference(registry, settings, version)
    reference.columns = [str(column) for column in reference.columns]
    if len(reference) <= SMALL_REFERENCE:
        print(
            f"drift: the reference of version {number} has only {len(reference)} rows, so small differences count as drift: "
            f"log more than {SMALL_REFERENCE}"
        )
    result = compare(reference, read_inputs(settings, list(reference.columns), now))
    write(registry, settings, version, result, now)
    share = "nothing to compare" if result.share is None else f"{len(result.drifted)} of {result.compared} columns drifted"
    names = f": {', '.join(result.drifted)}" if result.drifted else ""
    print(f"drift: model {settings.model!r}, version {number}: {result.rows} rows, {share}{names}")


def run(environment: Mapping[str, str], now: datetime) -> None:
    settings = Settings.of(environment)
    registry = Registry(settings)
    errors, judged = [], set()
    for name in settings.versions:
        try:
            version = resolve(registry, settings.model, name)
            if version["version"] not in judged:
                judged.add(version["version"])
                judge(registry, settings, version, now)
        except DriftError as error:
            # The other versions have their result all the same.
            errors.append(str(error))
    if errors:
        raise DriftError("\n       ".join(errors))


def main() -> int:
    try:
        run(os.environ, datetime.now(timezone.utc))
    except DriftError as error:
        print(f"drift: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
