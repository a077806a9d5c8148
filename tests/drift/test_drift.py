"""The job that looks for drift, as it is in config/samples, with real Evidently and real MLflow servers.

`make test-drift` installs both and runs this, or, once they are installed, `.cluster/bin/python-drift -m unittest discover
tests/drift`.
"""

import base64
import contextlib
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import urllib.parse
import urllib.request
import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy
import pandas

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPLE = ROOT / "config" / "samples" / "drift"
sys.path[:0] = [str(ROOT / "tests" / "rig"), str(SAMPLE)]

import drift  # noqa: E402
from laurel_rig.children import await_up, child  # noqa: E402
from laurel_rig.servers import ADMIN, free_port  # noqa: E402

NOW = datetime(2026, 11, 28, 2, 17, tzinfo=timezone.utc)
TAGS = "laurel.drift."


class Server:
    """A running MLflow, and what the training does there."""

    def __init__(self, name: str, stack: contextlib.ExitStack):
        log = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="laurel-drift-"))) / "log"
        # By the rig's own interpreter: another one would install MLflow anew.
        command = [ROOT / "tests" / "rig" / "rig", "mlflow-serve", name, str(free_port())]
        process = stack.enter_context(child(command, log))
        await_up(f"MLflow {name}", process, log, 300, lambda: described(log) is not None)
        running = described(log)
        self.url = running["LAUREL_TEST_MLFLOW_URL"] + running.get("LAUREL_TEST_MLFLOW_PREFIX", "")
        self.password = running.get("LAUREL_TEST_MLFLOW_PASSWORD")
        self.workspace = running.get("LAUREL_TEST_MLFLOW_WORKSPACE")
        self.environment = {"MLFLOW_TRACKING_URI": self.url}
        if self.password:
            self.environment |= {"MLFLOW_TRACKING_USERNAME": ADMIN, "MLFLOW_TRACKING_PASSWORD": self.password}
        if self.workspace:
            self.environment["MLFLOW_WORKSPACE"] = self.workspace

    def call(self, method: str, path: str, body: dict | bytes | None = None, **query: str) -> dict:
        login = base64.b64encode(f"{ADMIN}:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {login}"}
        if self.workspace:
            headers["X-MLFLOW-WORKSPACE"] = self.workspace
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers["Content-Type"] = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        url = f"{self.url}/api/2.0/{path}?{urllib.parse.urlencode(query)}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(url, data, headers, method=method), timeout=30) as response:
            return json.loads(response.read() or b"{}")

    def register(self, *references: pandas.DataFrame | bytes | None) -> "Model":
        """A new model with a version for each reference; the newest is the champion."""
        name = f"fraud-{uuid.uuid4().hex[:8]}"
        self.call("POST", "mlflow/registered-models/create", {"name": name})
        for number, reference in enumerate(references, start=1):
            run = self.log(reference)
            body = {"name": name, "source": run["info"]["artifact_uri"] + "/model", "run_id": run["info"]["run_id"]}
            self.call("POST", "mlflow/model-versions/create", body)
            alias = {"name": name, "alias": "champion", "version": str(number)}
            self.call("POST", "mlflow/registered-models/alias", alias)
        return Model(self, name)

    def log(self, reference: pandas.DataFrame | bytes | None) -> dict:
        experiment = self.call("POST", "mlflow/experiments/create", {"name": uuid.uuid4().hex})["experiment_id"]
        run = self.call("POST", "mlflow/runs/create", {"experiment_id": experiment})["run"]
        if reference is not None:
            content = reference if isinstance(reference, bytes) else reference.to_parquet()
            folder = run["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/").lstrip("/")
            self.call("PUT", f"mlflow-artifacts/artifacts/{folder}/drift/reference.parquet", content)
        return run


def described(log: Path) -> dict[str, str] | None:
    """What the rig prints of a server once it is up."""
    lines = (line for line in log.read_text().splitlines() if line.startswith("{"))
    return next(map(json.loads, lines), None)


class Model:
    def __init__(self, server: Server, name: str):
        self.server, self.name = server, name

    def tags(self, version: int = 1) -> dict[str, str]:
        query = {"name": self.name, "version": str(version)}
        found = self.server.call("GET", "mlflow/model-versions/get", **query)["model_version"].get("tags", [])
        return {tag["key"].removeprefix(TAGS): tag["value"] for tag in found if tag["key"].startswith(TAGS)}


def payments(rows: int, seed: int = 1) -> pandas.DataFrame:
    random = numpy.random.default_rng(seed)
    return pandas.DataFrame(
        {
            "amount": random.lognormal(3.5, 1.0, rows),
            "hour": random.integers(0, 24, rows),
            "country": random.choice(["AT", "DE", "CH"], rows),
            "is_new": random.random(rows) < 0.3,
            "risk": random.beta(2, 8, rows),
        }
    )


def drifted(rows: int) -> pandas.DataFrame:
    """The amounts have grown, and a country has come."""
    frame = payments(rows, seed=2)
    return frame.assign(amount=frame.amount * 3, country=frame.country.replace("AT", "FR"))


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        cls.server = Server("newest", stack)

    def setUp(self):
        self.inputs = Path(tempfile.mkdtemp(prefix="laurel-inputs-"))
        self.addCleanup(shutil.rmtree, self.inputs)
        self.at = NOW

    def log(self, frame: pandas.DataFrame, name: str = "requests.parquet", age: timedelta = timedelta(0)):
        """Writes a file of the request log that was last changed so long ago."""
        file = self.inputs / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".parquet":
            frame.to_parquet(file)
        else:
            frame.to_csv(file, index=False)
        time = (NOW - age).timestamp()
        os.utime(file, (time, time))

    def settings(self, model: Model, **more: str) -> dict[str, str]:
        return {**model.server.environment, "MODEL": model.name, "INPUTS": str(self.inputs), **more}

    def look(self, model: Model, **more: str) -> str:
        """Runs the job, and returns what it printed."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            drift.run(self.settings(model, **more), self.at)
        return printed.getvalue()

    def fails(self, model: Model, *parts: str, **more: str):
        """Asserts that the job ends with an error that has all these parts."""
        with self.assertRaises(drift.DriftError) as caught, contextlib.redirect_stdout(io.StringIO()):
            drift.run(self.settings(model, **more), self.at)
        for part in parts:
            self.assertIn(part, str(caught.exception))


class Results(Case):
    def test_inputs_as_in_the_training_have_no_drift(self):
        model = self.server.register(payments(5000))
        self.log(payments(3000, seed=2))
        self.look(model)
        self.assertEqual(model.tags(), {"share": "0", "rows": "3000", "at": "2026-11-28T02:17:00Z"})

    def test_columns_that_drifted_are_named(self):
        model = self.server.register(payments(5000))
        self.log(drifted(3000))
        printed = self.look(model)
        expected = {"share": "0.4", "rows": "3000", "columns": "amount,country", "at": "2026-11-28T02:17:00Z"}
        self.assertEqual(model.tags(), expected)
        self.assertIn("version 1: 3000 rows, 2 of 5 columns drifted: amount, country", printed)

    def test_an_older_release_of_mlflow_has_all_that_the_job_uses(self):
        with contextlib.ExitStack() as stack:
            model = Server("2.9", stack).register(payments(5000))
            self.log(drifted(3000))
            self.look(model)
            self.assertEqual(model.tags()["columns"], "amount,country")

    def test_few_rows_are_counted_and_left_to_the_reader(self):
        """Of so few, most columns seem to have drifted, though they have not: the rule has minRows."""
        model = self.server.register(payments(5000))
        self.log(payments(30, seed=2))
        self.look(model)
        self.assertEqual(model.tags()["rows"], "30")
        self.assertGreater(float(model.tags()["share"]), 0.3)

    def test_without_rows_there_is_no_share(self):
        model = self.server.register(payments(5000))
        self.log(drifted(3000))
        self.look(model)
        self.at = NOW + timedelta(days=2)
        self.look(model)
        self.assertEqual(model.tags(), {"rows": "0", "at": "2026-11-30T02:17:00Z"})

    def test_a_new_result_takes_the_place_of_all_of_the_old_one(self):
        model = self.server.register(payments(5000))
        self.log(drifted(3000))
        self.look(model)
        self.log(payments(2000, seed=3))
        self.at = NOW + timedelta(hours=1)
        self.look(model)
        self.assertEqual(model.tags(), {"share": "0", "rows": "2000", "at": "2026-11-28T03:17:00Z"})

    def test_who_reads_while_it_writes_sees_one_of_both_results(self):
        class Version(drift.Registry):
            def __init__(self, tags):
                self.tags, self.seen = dict(tags), []

            def call(self, method, path, body=None, **query):
                if method == "DELETE":
                    del self.tags[body["key"]]
                else:
                    self.tags[body["key"]] = body["value"]
                self.seen.append(verdict(self.tags))

        def verdict(tags):
            if "laurel.drift.at" not in tags or int(tags.get("laurel.drift.rows", 0)) < 1000:
                return "unknown"
            return "drifted" if float(tags["laurel.drift.share"]) > 0.3 else "fine"

        settings = drift.Settings.of(self.settings(self.server.register(None)))
        results = [(0, None), (30, 0.9), (1500, 0.1), (1500, 0.6), (5000, 0.2), (5000, 0.5)]
        for old, new in itertools.product([None, *results], results):
            version = Version({})
            known = {"version": "1"}
            if old:
                drift.write(version, settings, known, drift.Result(old[0], 5, old[1], []), NOW)
                known["tags"] = [{"key": key, "value": value} for key, value in version.tags.items()]
            allowed = {verdict(version.tags)}
            version.seen.clear()
            drift.write(version, settings, known, drift.Result(new[0], 5, new[1], ["risk"]), NOW + timedelta(days=1))
            allowed.add(version.seen[-1])
            self.assertLessEqual(set(version.seen), allowed, (old, new))
            self.assertEqual(version.tags["laurel.drift.at"], "2026-11-29T02:17:00Z")

    def test_a_column_that_is_never_there_has_drifted(self):
        model = self.server.register(payments(5000))
        self.log(payments(3000, seed=2).drop(columns="risk").assign(hour=None))
        printed = self.look(model)
        self.assertEqual((model.tags()["columns"], model.tags()["share"]), ("hour,risk", "0.4"))
        self.assertIn("without a value in all inputs, so taken for drifted: hour, risk", printed)

    def test_a_column_that_the_reference_lacks_does_not_count(self):
        model = self.server.register(payments(5000))
        self.log(payments(3000, seed=2).assign(request="r", answer=1.0))
        self.look(model)
        self.assertEqual(model.tags()["share"], "0")

    def test_times_and_lists_in_the_reference_are_not_compared(self):
        reference = payments(5000).assign(paid_at=pandas.Timestamp(NOW), basket=[["a"]] * 5000, nothing=None)
        model = self.server.register(reference)
        self.log(payments(3000, seed=2))
        printed = self.look(model)
        self.assertEqual(model.tags()["share"], "0")
        self.assertIn("not compared, as they are empty, times or lists in the reference: paid_at, basket, nothing", printed)

    def test_a_log_in_csv_is_the_same(self):
        model = self.server.register(payments(5000))
        self.log(payments(1500, seed=2), "a/first.csv")
        self.log(payments(1500, seed=3), "b/second.csv.gz")
        self.look(model)
        self.assertEqual((model.tags()["share"], model.tags()["rows"]), ("0", "3000"))

    def test_only_the_window_counts(self):
        model = self.server.register(payments(5000))
        self.log(payments(2000, seed=2), "new.parquet", timedelta(hours=23))
        self.log(drifted(2000), "old.parquet", timedelta(hours=25))
        self.log(drifted(2000), ".new.parquet.part.parquet")
        self.look(model)
        self.assertEqual((model.tags()["share"], model.tags()["rows"]), ("0", "2000"))

    def test_a_column_with_times_says_which_rows_count(self):
        model = self.server.register(payments(5000))
        old, new = drifted(2000), payments(1500, seed=2)
        for suffix, text in [(".parquet", lambda time: time), (".csv", lambda time: f"{time:%Y-%m-%dT%H:%M:%SZ}")]:
            frames = [
                old.assign(requested_at=text(NOW - timedelta(hours=30))),
                new.assign(requested_at=text(NOW - timedelta(hours=3))),
            ]
            self.log(pandas.concat(frames), f"requests{suffix}")
        self.look(model, TIMESTAMP_COLUMN="requested_at")
        self.assertEqual((model.tags()["share"], model.tags()["rows"]), ("0", "3000"))

    def test_of_many_rows_a_fair_sample_is_compared(self):
        model = self.server.register(payments(5000))
        for number in range(6):
            self.log(payments(drift.SAMPLE, seed=number + 2), f"{number}.parquet")
        self.log(drifted(drift.SAMPLE * 6), "late.parquet")
        self.look(model)
        self.assertEqual(model.tags()["rows"], str(drift.SAMPLE * 12))
        self.assertEqual(model.tags()["columns"], "amount,country", "half of the rows, so half of the sample")

    def test_each_version_is_compared_with_its_own_reference(self):
        model = self.server.register(payments(5000), drifted(5000))
        self.log(drifted(3000))
        self.look(model, VERSIONS="champion, 1,latest")
        self.assertEqual((model.tags(1)["share"], model.tags(2)["share"]), ("0.4", "0"))

    def test_long_lists_of_columns_end_at_a_whole_name(self):
        columns = [f"a column, number {number:03}" for number in range(100)]
        cut = drift.listed(columns)
        self.assertLessEqual(len(cut), drift.COLUMNS_LENGTH)
        self.assertTrue(cut.startswith("a column number 000,a column number 001,"), cut)
        self.assertRegex(cut, r",a column number \d{3},…$")


class Errors(Case):
    def test_a_reference_that_nobody_logged(self):
        model = self.server.register(None)
        self.log(payments(3000))
        self.fails(model, f"version 1 of model '{model.name}' has no reference 'drift/reference.parquet'", "mlflow.log_artifact")
        self.assertEqual(model.tags(), {})

    def test_a_reference_that_is_none(self):
        for content, cause in [(b"no parquet", "is not a Parquet file"), (payments(0), "has no rows")]:
            model = self.server.register(content)
            self.fails(model, cause)

    def test_a_small_reference_is_said(self):
        model = self.server.register(payments(500))
        self.log(payments(3000, seed=2))
        self.assertIn("the reference of version 1 has only 500 rows", self.look(model))

    def test_inputs_that_are_not_mounted(self):
        model = self.server.register(payments(5000))
        self.fails(model, "the folder of the inputs, /nowhere, does not exist: mount", INPUTS="/nowhere")
        self.assertEqual(model.tags(), {})

    def test_inputs_of_something_else(self):
        model = self.server.register(payments(5000))
        self.log(pandas.DataFrame({"x": [1, 2, 3]}))
        self.fails(model, "have no value in any column of the reference (amount, hour")

    def test_a_file_that_is_not_complete(self):
        model = self.server.register(payments(5000))
        self.log(payments(100))
        whole = (self.inputs / "requests.parquet").read_bytes()
        (self.inputs / "requests.parquet").write_bytes(whole[: len(whole) // 2])
        self.fails(model, "requests.parquet cannot be read", "only when it is complete")

    def test_times_that_are_none(self):
        model = self.server.register(payments(5000))
        self.log(payments(100))
        self.fails(model, "has no column 'when'", TIMESTAMP_COLUMN="when")
        self.fails(model, "has numbers", TIMESTAMP_COLUMN="hour")
        self.fails(model, "has a value that is not a time", TIMESTAMP_COLUMN="country")

    def test_models_and_versions_that_are_not_there(self):
        model = self.server.register(payments(5000))
        for name in ("challenger", "7"):
            self.fails(model, f"there is no version '{name}' of model '{model.name}'", "correct MODEL or VERSIONS", VERSIONS=name)
        self.fails(Model(self.server, "o'neil"), "model \"o'neil\" has no version", VERSIONS="latest")

    def test_one_version_in_error_does_not_stop_the_others(self):
        model = self.server.register(payments(5000))
        self.log(payments(3000, seed=2))
        self.fails(model, "there is no version 'challenger'", VERSIONS="challenger,champion")
        self.assertEqual(model.tags()["rows"], "3000")

    def test_mlflow_that_is_away(self):
        model = self.server.register(payments(5000))
        url = f"http://127.0.0.1:{free_port()}"
        self.fails(model, f"MLflow at {url} does not answer", "Connection refused", MLFLOW_TRACKING_URI=url)

    def test_settings_that_are_wrong(self):
        model = self.server.register(payments(5000))
        self.fails(model, "MODEL is not set", MODEL="")
        self.fails(model, "MLFLOW_TRACKING_URI is 'mlflow:5000'", MLFLOW_TRACKING_URI="mlflow:5000")
        self.fails(model, "WINDOW_HOURS is not a number of hours, but 'day'", WINDOW_HOURS="day")


class Logins(Case):
    @classmethod
    def setUpClass(cls):
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        cls.server = Server("newest-auth", stack)

    def test_a_login_and_a_workspace(self):
        model = self.server.register(payments(5000))
        self.log(drifted(3000))
        self.look(model)
        self.assertEqual(model.tags()["columns"], "amount,country")
        self.fails(model, "HTTP 401", "check the user name and the password", MLFLOW_TRACKING_PASSWORD="wrong")

    def test_a_login_that_may_only_read(self):
        model = self.server.register(payments(5000))
        self.log(drifted(3000))
        reader = {"username": "reader", "password": "a long password"}
        self.server.call("POST", "mlflow/users/create", reader)
        login = {"MLFLOW_TRACKING_USERNAME": "reader", "MLFLOW_TRACKING_PASSWORD": "a long password"}
        self.fails(model, "HTTP 403", "to edit the model's tags", **login)
        self.assertEqual(model.tags(), {})


class Process(Case):
    """The program as the image starts it."""

    def start(self, **environment: str) -> subprocess.CompletedProcess:
        command = [sys.executable, SAMPLE / "drift.py"]
        variables = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "DO_NOT_TRACK": "1", **environment}
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)

    def test_it_needs_no_file_of_its_own(self):
        """So a read-only root is enough."""
        model = self.server.register(payments(5000))
        drifted(3000).to_parquet(self.inputs / "requests.parquet")
        with tempfile.TemporaryDirectory() as home:
            ended = self.start(**self.settings(model), HOME=home, TMPDIR=home)
            self.assertEqual((ended.returncode, ended.stderr), (0, ""))
            self.assertEqual(list(Path(home).rglob("*")), [])
        self.assertEqual(model.tags()["columns"], "amount,country")

    def test_an_error_is_one_line(self):
        ended = self.start(MODEL="fraud")
        self.assertEqual(ended.returncode, 1)
        example = "set it in the environment, for instance to http://mlflow.mlops.svc:5000"
        self.assertEqual(ended.stderr, f"drift: MLFLOW_TRACKING_URI is not set: {example}\n")


class Image(unittest.TestCase):
    def test_everything_is_pinned(self):
        lines = [line for line in (SAMPLE / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
        self.assertEqual([line for line in lines if line.count("==") != 1], [])
        version = next(line for line in lines if line.startswith("evidently==")).removeprefix("evidently==")
        for file in ("Containerfile", "cronjob.yaml"):
            self.assertIn(f"drift:{version}", (SAMPLE / file).read_text())

    def test_the_cronjob_sets_nothing_that_the_job_does_not_know(self):
        names = re.findall(r"^                - name: ([A-Z_]+)$", (SAMPLE / "cronjob.yaml").read_text(), re.MULTILINE)
        self.assertIn("INPUTS", names)
        self.assertEqual([name for name in names if name not in drift.__doc__], [])


if __name__ == "__main__":
    unittest.main()
