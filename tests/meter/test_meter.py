"""The meter: in this process, and inside real model servers.

Needs a Python with mlflow, scikit-learn, fastapi and uvicorn: `python -m unittest discover tests/meter`.
With mlserver and mlserver-mlflow it tests that server, too.
"""

import asyncio
import concurrent.futures
import contextlib
import functools
import hashlib
import http.client
import importlib.util
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
import warnings
from pathlib import Path
from unittest import mock

import numpy
import pandas

RUNTIME = Path(__file__).resolve().parent.parent.parent / "src" / "render" / "runtime"
METER = (RUNTIME / "meter.py").read_text()
PATIENCE = 120

REQUESTS = "http_server_request_duration_seconds"
ACTIVE = "http_server_active_requests"
CALLS = "laurel_model_predictions_total"
CLASS = "laurel_model_predicted_class_total"
ERRORS = "laurel_meter_errors_total"

folder = None


def setUpModule():
    global folder
    import mlflow.pyfunc  # Its first import sets the level.

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    folder = Path(tempfile.mkdtemp(prefix="meter-"))
    unittest.addModuleCleanup(shutil.rmtree, folder)


def await_that(condition, what):
    """Returns what the condition returns, once that is true."""
    deadline = time.monotonic() + PATIENCE
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE} s: {what}")
        time.sleep(0.02)
    return result


def samples(page):
    """The samples of a page by name and labels. Fails for what Prometheus would reject."""
    found, types = {}, {}
    family = None
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            _, _, family, types[family] = line.split(" ")
        elif not line.startswith("# HELP "):
            name, value = re.fullmatch(r'(\w+(?:{(?:\w+="(?:[^"\\]|\\.)*",?)+})?) (\S+)', line).groups()
            stem = name.split("{")[0]
            if types[family] == "histogram":
                stem = re.sub(r"_(bucket|sum|count)$", "", stem)
            assert stem == family, line
            assert name not in found, f"twice: {name}"
            found[name] = float(value)
    return found


def requests(status, suffix="count", route="/invocations", method="POST", more=""):
    labels = f'http_request_method="{method}",http_route="{route}",http_response_status_code="{status}"'
    return f"{REQUESTS}_{suffix}{{{labels}{more}}}"


def calls(outcome):
    return f'{CALLS}{{outcome="{outcome}"}}'


def predicted(name):
    return f'{CLASS}{{class="{name}"}}'


def module(**environment):
    """The meter, as nobody has used it yet."""
    specification = importlib.util.spec_from_file_location("laurel_meter", RUNTIME / "meter.py")
    loaded = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(loaded)
    with mock.patch.dict(os.environ, environment):
        loaded.meter = loaded.Meter()
    return loaded


class Predictions(unittest.TestCase):
    def count(self, answer, mode="Classes"):
        """What one call of a model that answers this adds to the counts."""
        meter = module(LAUREL_PREDICTIONS=mode)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.assertIs(meter.counted(lambda: answer, meter.meter)(), answer)
        counted = samples(meter.meter.page().decode())
        self.assertEqual(counted[ERRORS], 0)
        self.assertEqual(sum(counted[calls(outcome)] for outcome in ("Returned", "Failed", "Missing")), 1)
        return counted

    def outcome(self, answer, mode="Classes"):
        counted = self.count(answer, mode)
        return next(outcome for outcome in ("Returned", "Failed", "Missing") if counted[calls(outcome)])

    def classes(self, answer):
        counted = self.count(answer).items()
        return {
            name[len(CLASS) + 8 : -2]: count for name, count in counted if name.startswith(CLASS) and count
        }

    def numbers(self, answer):
        counted = self.count(answer, "Numbers")
        return tuple(
            counted[f"laurel_model_prediction_{name}"] for name in ("values_total", "sum", "sum_of_squares")
        )

    def test_what_is_null_or_not_finite_is_missing(self):
        nan, infinity = float("nan"), float("inf")
        for answer in [
            None,
            nan,
            -infinity,
            numpy.float32(nan),
            [1, None],
            [[0.5, nan]],
            (1.0, infinity),
            {"prediction": None},
            {"mean": [1.0], "deviation": [nan]},
            [{"label": "a"}, {"label": None}],
            numpy.array([1, nan]),
            numpy.array([[1, 2], [3, infinity]], "float16"),
            numpy.array(["a", None], object),
            numpy.array([1 + 1j, complex(nan, 0)]),
            numpy.array(["2026-11-28", "NaT"], "datetime64[ns]"),
            pandas.Series([1, None]),
            pandas.Series([1, None], dtype="Int64"),
            pandas.Series(["a", None]),
            pandas.Series(["a", None], dtype="category"),
            pandas.Series(pandas.to_datetime(["2026-11-28", None])),
            pandas.Series(pandas.to_datetime(["2026-11-28", None])).dt.tz_localize("UTC").tolist(),
            pandas.DataFrame({"prediction": [1.0, nan], "id": [1, 2]}),
            pandas.DataFrame({"a": [1.0, nan], "b": [1, 2]}),
        ]:
            for mode in "Classes", "Numbers", "Off":
                with self.subTest(answer=answer, mode=mode):
                    self.assertEqual(self.outcome(answer, mode), "Missing")

    def test_everything_else_is_returned(self):
        for answer in [
            1,
            0.5,
            10**400,
            "text",
            b"bytes",
            object(),
            [],
            {},
            [[]],
            [object()],
            {"choices": [{"text": "a", "logprobs": None}], "error": None},
            numpy.array(1.5),
            numpy.array([]),
            numpy.array(["a", "b"]),
            numpy.array([True, False]),
            numpy.arange(8).reshape(2, 2, 2),
            numpy.zeros(2, [("a", "f8"), ("b", "i4")]),
            numpy.array(["2026-11-28"], "datetime64[D]"),
            pandas.DataFrame(),
            pandas.DataFrame([[1, 2]], columns=["prediction", "prediction"]),
            pandas.DataFrame({"label": ["a", "b"], "reason": ["c", None]}),
            pandas.Series([1, 2], dtype="Int64"),
        ]:
            for mode in "Classes", "Numbers", "Off":
                with self.subTest(answer=answer, mode=mode):
                    self.assertEqual(self.outcome(answer, mode), "Returned")

    def test_whole_numbers_booleans_and_texts_are_classes(self):
        for answer, expected in [
            (numpy.array([1, 0, 1]), {"1": 2, "0": 1}),
            (numpy.array([1.0, -0.0, 1.0], "float32"), {"1": 2, "0": 1}),
            (numpy.array([[2], [3]]), {"2": 1, "3": 1}),
            (numpy.array(["cat", "dog", "cat"]), {"cat": 2, "dog": 1}),
            (numpy.array(["cat", 7], object), {"cat": 1, "7": 1}),
            (numpy.array([True, False, True]), {"true": 2, "false": 1}),
            (numpy.int64(3), {"3": 1}),
            ([numpy.int64(3), numpy.bool_(True), numpy.str_("x")], {"3": 1, "true": 1, "x": 1}),
            ([1.0, float("nan")], {"1": 1}),
            (numpy.array([1.0, float("nan")]), {"1": 1}),
            (True, {"true": 1}),
            ("cat", {"cat": 1}),
            ([["cat"], ["dog"]], {"cat": 1, "dog": 1}),
            (pandas.Series(["cat", "dog"], dtype="category"), {"cat": 1, "dog": 1}),
            (pandas.DataFrame({"anything": [4, 4]}), {"4": 2}),
            ({"predictions": [1, 2]}, {"1": 1, "2": 1}),
            ([{"label": "cat", "score": 0.5}, {"label": "cat", "score": 0.25}], {"cat": 2}),
        ]:
            with self.subTest(answer=answer):
                self.assertEqual(self.classes(answer), expected)

    def test_fractions_and_objects_are_not_classes(self):
        for answer in [
            0.5,
            [1.0, 0.5],
            numpy.array([1.0, 0.5]),
            numpy.array([[0.0, 1.0], [0.25, 0.75]]),
            [[0.0, 1.0], [0.25, 0.75]],
            [1, float("inf")],
            b"bytes",
            numpy.array([1 + 0j]),
            numpy.array(["2026-11-28"], "datetime64[D]"),
            numpy.array(["2026-11-28"], "datetime64[ns]"),
            [object()],
        ]:
            with self.subTest(answer=answer):
                self.assertEqual(self.classes(answer), {})

    def test_of_several_columns_only_a_prediction_is_counted(self):
        table = {"customer": [123, 456], "Label": ["a", "b"]}
        for answer in table, pandas.DataFrame(table):
            with self.subTest(answer=answer):
                self.assertEqual(self.classes(answer), {"a": 1, "b": 1})
        table = {"customer": [123, 456], "decision": ["a", "b"]}
        for answer in table, pandas.DataFrame(table):
            with self.subTest(answer=answer):
                self.assertEqual(self.classes(answer), {})
                self.assertEqual(self.numbers(answer), (0, 0, 0))

    def test_there_are_at_most_twenty_classes_and_the_others(self):
        meter = module()
        predict = meter.counted(lambda answer: answer, meter.meter)
        for answer in [list(range(15)), ["a"] * 3 + ["b"] * 2 + list("cdefghi"), list(range(20)), ["a"]]:
            predict(answer)
        counted = samples(meter.meter.page().decode())
        classes = {name for name in counted if name.startswith(CLASS)}
        self.assertEqual(len(classes), 21)
        self.assertEqual(counted[predicted("0")], 2)
        self.assertEqual(counted[predicted("a")], 4)
        self.assertEqual(counted[predicted("b")], 2)
        self.assertEqual(sum(counted[name] for name in classes), 15 + 12 + 20 + 1)

    def test_a_great_many_classes_are_counted_as_others(self):
        counted = self.classes(numpy.arange(9000))
        self.assertEqual(len(counted), 21)
        self.assertEqual(sum(counted.values()), 9000)

    def test_texts_are_cut_and_escaped(self):
        self.assertEqual(self.classes("x" * 65), {"other": 1})
        self.assertEqual(self.classes('a"b\\c\nd'), {r"a\"b\\c\nd": 1})
        self.assertEqual(self.classes(["\ud800", "\ud801"]), {"?": 2})

    def test_numbers_are_summed(self):
        huge, nan = 1e200, float("nan")
        for answer, expected in [
            (numpy.array([1.5, -2.5]), (2, -1, 8.5)),
            (numpy.array([3, 4], "int8"), (2, 7, 25)),
            (numpy.array([1.5, nan, huge], "float64"), (1, 1.5, 2.25)),
            ([2, 0.5, None, "text", 10**400], (2, 2.5, 4.25)),
            (2.0, (1, 2, 4)),
            (pandas.DataFrame({"prediction": [1.5]}), (1, 1.5, 2.25)),
            ("text", (0, 0, 0)),
            (numpy.array(["text"]), (0, 0, 0)),
            (numpy.array(["2026-11-28"], "datetime64[D]"), (0, 0, 0)),
        ]:
            with self.subTest(answer=answer):
                self.assertEqual(self.numbers(answer), expected)

    def test_each_mode_has_its_series(self):
        classes, numbers = predicted("other"), "laurel_model_prediction_sum"
        for mode, expected in ("Classes", [classes]), ("Numbers", [numbers]), ("Off", []), ("", [classes]):
            with self.subTest(mode=mode):
                counted = self.count(1, mode)
                self.assertEqual([name for name in (classes, numbers) if name in counted], expected)

    def test_only_the_first_ten_thousand_values_are_looked_at(self):
        values = numpy.zeros(20_000)
        values[10_000] = float("nan")
        table = pandas.DataFrame({"a": values[:15_000], "b": values[:15_000]})
        for answer in values, values.tolist(), pandas.Series(values), [[value] for value in values], table:
            with self.subTest(type(answer)):
                self.assertEqual(self.outcome(answer), "Returned")
        self.assertEqual(self.classes(values), {"0": 10_000})

    def test_a_generator_is_left_alone(self):
        for answer in (x for x in [1, None]), iter([1, None]), map(str, [1]):
            self.assertEqual(self.outcome(answer), "Returned")
            self.assertTrue(list(answer))

    def test_a_failure_is_counted_and_passed_on(self):
        meter = module()
        for error in ValueError("as asked"), SystemExit(3), KeyboardInterrupt():
            predict = meter.counted(mock.Mock(side_effect=error, __name__="predict"), meter.meter)
            with self.assertRaises(type(error)) as raised:
                predict()
            self.assertIs(raised.exception, error)
        self.assertEqual(samples(meter.meter.page().decode())[calls("Failed")], 3)

    def test_a_model_made_of_models_is_called_once(self):
        meter = module()
        predict = meter.counted(lambda outer: predict(False) or 1 if outer else None, meter.meter)
        self.assertEqual(predict(True), 1)
        counted = samples(meter.meter.page().decode())
        self.assertEqual((counted[calls("Returned")], counted[calls("Missing")]), (1, 0))

    def test_an_error_of_the_meter_is_counted_and_changes_nothing(self):
        class Hostile(list):
            def __getitem__(self, _):
                raise RuntimeError("do not look")

        meter = module()
        answer = Hostile([1])
        self.assertIs(meter.counted(lambda: answer, meter.meter)(), answer)
        counted = samples(meter.meter.page().decode())
        self.assertEqual((counted[calls("Returned")], counted[ERRORS]), (1, 1))

    def test_the_signature_is_kept(self):
        import inspect

        from mlflow.pyfunc import PyFuncModel

        meter = module()
        wrapped = meter.counted(PyFuncModel.predict, meter.meter)
        self.assertEqual(inspect.signature(wrapped), inspect.signature(PyFuncModel.predict))

    @unittest.skipUnless(importlib.util.find_spec("polars"), "needs polars")
    def test_polars(self):
        import polars

        table = polars.DataFrame({"prediction": ["a", "b"], "id": [1, 2]})
        self.assertEqual(self.classes(table), {"a": 1, "b": 1})
        self.assertEqual(self.classes(table["prediction"]), {"a": 1, "b": 1})
        self.assertEqual(self.outcome(polars.DataFrame({"prediction": [1, None]})), "Missing")
        self.assertEqual(self.outcome(polars.Series([1.5, None])), "Missing")
        self.assertEqual(self.outcome(table.lazy()), "Returned")

    def test_threads_are_counted_exactly(self):
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-6)
        meter = module()
        predict = meter.counted(lambda answer: answer, meter.meter)
        threads, rounds = 16, 300
        done = threading.Event()
        pages = []

        def work(number):
            for _ in range(rounds):
                predict([number % 4])
                request = meter.Request(meter.meter, "POST", "/invocations", None)
                request.see({"type": "http.response.start", "status": 200})
                request.end(True)

        def scrape():
            while not done.is_set():
                pages.append(meter.meter.page().decode())

        with concurrent.futures.ThreadPoolExecutor(threads + 1) as pool:
            scraping = pool.submit(scrape)
            for future in [pool.submit(work, number) for number in range(threads)]:
                future.result()
            done.set()
            scraping.result()
        pages.append(meter.meter.page().decode())
        for page in pages:
            counted = samples(page)
            # Both are counted in one step, so no page may show one without the other.
            self.assertEqual(
                sum(count for name, count in counted.items() if name.startswith(CLASS)),
                counted[calls("Returned")],
            )
            self.assertEqual(counted[requests("200")], counted[requests("200", "bucket", more=',le="+Inf"')])
        self.assertEqual(counted[calls("Returned")], threads * rounds)
        self.assertEqual(counted[predicted("3")], threads * rounds / 4)
        self.assertEqual(counted[requests("200")], threads * rounds)
        self.assertEqual(counted[ACTIVE], 0)


class Page(unittest.TestCase):
    def test_everything_has_a_zero_before_it_happens(self):
        counted = samples(module().meter.page().decode())
        for status in 200, 400, 422, 499, 500, 503, 504:
            for name in (
                requests(status),
                requests(status, "sum"),
                requests(status, "bucket", more=',le="0.005"'),
            ):
                self.assertEqual(counted.pop(name), 0)
        for name in [ACTIVE, ERRORS, predicted("other"), *map(calls, ("Returned", "Failed", "Missing"))]:
            self.assertEqual(counted.pop(name), 0)
        self.assertNotIn("/v2/", "".join(counted))

    def test_mlserver_has_a_route_of_its_own(self):
        with mock.patch.dict(sys.modules, mlserver=mock.Mock()):
            counted = samples(module().meter.page().decode())
        self.assertEqual(counted[requests(422, route="/v2/models/{model}/infer")], 0)
        self.assertEqual(counted[requests(400)], 0)

    def test_the_model_is_named(self):
        name = {"MODEL_NAME": 'fraud "v\\2"\n', "MODEL_VERSION": "7", "MODEL_ALIAS": "champion"}
        meter = module().meter
        with mock.patch.dict(os.environ, name):
            page = meter.page().decode()
        expected = r'{model_name="fraud \"v\\2\"\n",model_version="7",model_alias="champion"}'
        self.assertEqual(samples(page)["laurel_model_info" + expected], 1)
        self.assertAlmostEqual(samples(page)["process_start_time_seconds"], time.time(), delta=PATIENCE)


class Requests(unittest.TestCase):
    def setUp(self):
        self.module = module()

    def counted(self):
        return samples(self.module.meter.page().decode())

    def serve(self, application, method="POST", path="/invocations", messages=(), connection=None, **scope):
        """Serves one request. `connection` is uvicorn's side of it."""
        sent, messages = [], iter([*messages, {"type": "http.request", "body": b""}])

        class Connection:
            disconnected = False

            async def receive(self):
                return next(messages, {"type": "http.disconnect"})

            async def send(self, message):
                sent.append(message)

        connection = connection or Connection()
        scope = {"type": "http", "method": method, "path": path, **scope}
        served = self.module.metered(application, self.module.meter)
        asyncio.run(served(scope, connection.receive, connection.send))
        return sent

    @staticmethod
    def answer(status, *chunks):
        async def application(scope, receive, send):
            await receive()
            await send({"type": "http.response.start", "status": status, "headers": []})
            for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        return application

    def test_requests_are_counted_by_status_and_route(self):
        for path, route in [
            ("/invocations", "/invocations"),
            ("/v2/models/fraud/infer", "/v2/models/{model}/infer"),
            ("/v2/models/fraud/versions/7/infer", "/v2/models/{model}/versions/{version}/infer"),
        ]:
            for status in 200, 400, 418:
                sent = self.serve(self.answer(status, b"some", b"body"), path=path)
                self.assertEqual([message.get("body") for message in sent], [None, b"some", b"body", b""])
                self.assertEqual(self.counted()[requests(status, route=route)], 1)
        self.assertEqual(self.counted()[ACTIVE], 0)

    def test_a_prefix_is_not_part_of_the_route(self):
        self.serve(self.answer(200), path="/prefix/invocations", root_path="/prefix")
        self.serve(self.answer(200), path="/invocations", root_path="/prefix")
        self.assertEqual(self.counted()[requests(200)], 2)

    def test_other_paths_are_not_counted(self):
        before = self.counted()
        for path in (
            "/ping",
            "/health",
            "/metrics",
            "/",
            "/invocations/",
            "/x/invocations",
            "/v2/models/a/ready",
        ):
            self.serve(self.answer(200), method="GET", path=path)
        for kind in "lifespan", "websocket":
            self.serve(self.answer(200), type=kind)
        self.assertEqual(self.counted(), before)

    def test_methods_that_nobody_has_heard_of_are_one(self):
        for method in "GET", "MAKE", "BREW":
            self.serve(self.answer(405), method=method)
        counted = self.counted()
        self.assertEqual(counted[requests(405, method="GET")], 1)
        self.assertEqual(counted[requests(405, method="_OTHER")], 2)

    def test_a_request_is_active_until_its_last_byte(self):
        counted = []

        async def application(scope, receive, send):
            counted.append(self.counted())
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"some", "more_body": True})
            counted.append(self.counted())
            await send({"type": "http.response.body", "body": b"more"})
            counted.append(self.counted())
            raise RuntimeError("a task after the answer")

        with self.assertRaises(RuntimeError):
            self.serve(application)
        counted.append(self.counted())
        self.assertEqual([page[ACTIVE] for page in counted], [1, 1, 0, 0])
        self.assertEqual([page[requests(200)] for page in counted], [0, 0, 1, 1])
        self.assertEqual(counted[-1][requests(500)], 0)

    def test_an_application_that_raises_or_returns_early_counts_as_500(self):
        async def raises(scope, receive, send):
            raise ValueError("as asked")

        async def breaks_off(scope, receive, send):
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"some", "more_body": True})

        async def is_cancelled(scope, receive, send):
            raise asyncio.CancelledError

        for application, error in (
            (raises, ValueError),
            (breaks_off, None),
            (is_cancelled, asyncio.CancelledError),
        ):
            with self.assertRaises(error) if error else contextlib.nullcontext():
                self.serve(application)
        counted = self.counted()
        self.assertEqual((counted[requests(500)], counted[requests(200)], counted[ACTIVE]), (3, 0, 0))

    def test_a_client_that_the_application_saw_leave_counts_as_499(self):
        async def application(scope, receive, send):
            if (await receive())["type"] == "http.disconnect":
                raise ConnectionError("the client is gone")

        with self.assertRaises(ConnectionError):
            self.serve(application, messages=[{"type": "http.disconnect"}])
        self.assertEqual(self.counted()[requests(499)], 1)

    def test_a_client_that_only_the_server_saw_leave_counts_as_499(self):
        class Gone:
            disconnected = False

            async def receive(self):
                return {"type": "http.request", "body": b""}

            async def send(self, message):
                self.disconnected = True

        self.serve(self.answer(200), connection=Gone())
        counted = self.counted()
        self.assertEqual((counted[requests(499)], counted[requests(200)], counted[ACTIVE]), (1, 0, 0))

    def test_a_client_that_leaves_after_the_answer_does_not_count(self):
        async def application(scope, receive, send):
            await receive()
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"all"})
            assert (await receive())["type"] == "http.disconnect"

        self.serve(application)
        self.assertEqual((self.counted()[requests(499)], self.counted()[requests(200)]), (0, 1))

    def test_durations_are_in_their_buckets(self):
        for seconds in 0.005, 0.0051, 0.3, 11:
            with mock.patch.object(self.module.time, "perf_counter", side_effect=[0, seconds]):
                request = self.module.Request(self.module.meter, "POST", "/invocations", None)
                request.see({"type": "http.response.start", "status": 200})
                request.end(True)
        counted = self.counted()
        bounds = "0.005 0.01 0.025 0.05 0.075 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10 +Inf".split()
        self.assertEqual(
            [counted[requests(200, "bucket", more=f',le="{bound}"')] for bound in bounds],
            [1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 4],
        )
        self.assertEqual(counted[requests(200)], 4)
        self.assertAlmostEqual(counted[requests(200, "sum")], 11.3101)

    def test_errors_of_the_meter_do_not_reach_the_server(self):
        for broken in "see", "end":
            with mock.patch.object(self.module.Request, broken, side_effect=RuntimeError):
                self.assertEqual(len(self.serve(self.answer(200))), 2)
        with mock.patch.object(self.module, "Request", side_effect=RuntimeError):
            self.assertEqual(len(self.serve(self.answer(200))), 2)
        self.assertGreaterEqual(self.counted()[ERRORS], 3)


class Scrapes(unittest.TestCase):
    def setUp(self):
        self.module = module()
        listener = self.module.listen(0)
        self.addCleanup(listener.close)
        self.port = listener.getsockname()[1]
        arguments = (listener, self.module.meter)
        threading.Thread(target=self.module.reply_forever, args=arguments, daemon=True).start()

    def get(self, path="/metrics", method="GET", host="127.0.0.1"):
        return fetch(self.port, path, method=method, host=host)

    def test_only_the_page_is_served(self):
        status, kind, body = self.get()
        self.assertEqual((status, kind), (200, "text/plain; version=0.0.4; charset=utf-8"))
        self.assertIn(ACTIVE, samples(body))
        self.assertEqual(self.get("/metrics?name=x")[0], 200)
        for path, method in ("/", "GET"), ("/metricsx", "GET"), ("/metrics", "POST"), ("/metrics", "HEAD"):
            self.assertEqual(self.get(path, method)[0], 404)

    @unittest.skipUnless(socket.has_dualstack_ipv6(), "needs IPv6")
    def test_both_families_of_addresses_are_served(self):
        self.assertEqual(self.get(host="::1")[0], 200)

    def test_without_ipv6_the_other_family_is_served(self):
        create = socket.create_server

        def create_without(address, **options):
            if "family" in options:
                raise OSError("Address family not supported by protocol")
            return create(address, **options)

        patched = mock.patch.object(self.module.socket, "create_server", create_without)
        with patched, self.module.listen(0) as listener:
            self.assertEqual(listener.family, socket.AF_INET)

    def test_a_request_in_pieces_is_put_together(self):
        client = mock.MagicMock()
        client.recv.side_effect = [b"GET /met", b"rics HTTP/1.1\r\n\r", b"\n"]
        self.module.reply(client, self.module.meter)
        self.assertIn(ACTIVE.encode(), client.sendall.call_args[0][0])

    def test_bad_clients_do_not_stop_it(self):
        with contextlib.ExitStack() as clients:
            silent, slow, leaving, huge = (
                clients.enter_context(socket.create_connection(("127.0.0.1", self.port))) for _ in range(4)
            )
            slow.sendall(b"GET /metr")
            leaving.close()
            with contextlib.suppress(OSError):
                huge.sendall(b"x" * 1_000_000)
            self.assertEqual(self.get()[0], 200)
            self.assertEqual(silent.recv(1), b"")
        self.assertEqual(samples(self.get()[2])[ERRORS], 0)


def fetch(port, path, body=None, method=None, host="127.0.0.1", kind="application/json"):
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method or ("POST" if body else "GET"), path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read().decode()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@functools.lru_cache(maxsize=None)
def as_first_process():
    """What starts a command as process 1 of its own, like in a container. Empty where that is not allowed."""
    for prefix in ["unshare"], ["unshare", "--user", "--map-root-user"]:
        command = [*prefix, "--pid", "--fork", "--kill-child"]
        with contextlib.suppress(OSError):
            if subprocess.run([*command, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
                return command
    return []


def bootstrap(file, place):
    """The program of a pod's command, and its first argument, with the meter's folder elsewhere."""
    source = (RUNTIME / "start_meter.py").read_text()
    assert source.count("/etc/laurel/meter/") == 1
    meter = place / "laurel_meter.py"
    digest = hashlib.sha256(meter.read_bytes()).hexdigest() if meter.exists() else "none"
    return [source.replace("/etc/laurel/meter", str(place)) + (RUNTIME / file).read_text(), digest]


class Server:
    """A model server, started as in a pod, with the meter's folder elsewhere."""

    def __init__(self, name, model, meter=METER, prefix=(), port=None, **environment):
        self.folder = folder / name
        self.folder.mkdir()
        if meter is not None:
            (self.folder / "laurel_meter.py").write_text(meter)
        self.port, self.metrics_port = free_port(), port or free_port()
        self.log = self.folder / "log"
        environment = {
            **os.environ,
            "LAUREL_METRICS_PORT": str(self.metrics_port),
            "__pyfunc_model_path__": str(model),
            "MODEL_NAME": "fraud",
            "PYTHONDONTWRITEBYTECODE": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "OMP_NUM_THREADS": "1",
            **environment,
        }
        with self.log.open("w") as log:
            command = [*prefix, sys.executable, *self.command()]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=self.folder)

    def command(self):
        options = [f"--port={self.port}", "--host=127.0.0.1", "--workers=1", "--timeout-graceful-shutdown=60"]
        application = "mlflow.pyfunc.scoring_server.app:app"
        return ["-c", *bootstrap("mlflow.py", self.folder), *options, "--header=laurel-version:7", application]

    def stop(self):
        self.process.kill()
        self.process.wait()

    def await_ready(self, path="/ping"):
        def is_ready():
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError):
                return fetch(self.port, path)[0] == 200

        await_that(is_ready, f"{path} of a server:\n{self.log.read_text()}")
        return self

    def counted(self):
        return samples(fetch(self.metrics_port, "/metrics")[2])

    def await_count(self, name, count):
        """An answer is counted a moment after its client has it."""
        await_that(lambda: self.counted().get(name) == count, f"{name} {count}")
        return self.counted()

    @staticmethod
    def split(**columns):
        """Body and headers of a request with one row."""
        split = {"columns": list(columns), "data": [list(columns.values())]}
        return json.dumps({"dataframe_split": split}), {"Content-Type": "application/json"}

    def invoke(self, **columns):
        return fetch(self.port, "/invocations", self.split(**columns)[0])


MODEL = """
    import pathlib, time
    import mlflow, pandas

    class Obedient(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input: pandas.DataFrame, params=None):
            order, file = model_input["order"][0], pathlib.Path(model_input["file"][0])
            if order == "raise":
                raise ValueError("as asked")
            if order == "wait":
                while not file.exists():
                    time.sleep(0.01)
            return [float("nan")] if order == "nan" else ["done"]

    mlflow.models.set_model(Obedient())
"""


class Servers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        import mlflow
        from sklearn.linear_model import LogisticRegression

        source = folder / "obedient.py"
        source.write_text(textwrap.dedent(MODEL))
        mlflow.pyfunc.save_model(
            folder / "models" / "obedient", python_model=str(source), pip_requirements=[]
        )
        classifier = LogisticRegression().fit(pandas.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]}), [0, 0, 1, 1])
        options = {"serialization_format": "cloudpickle", "pip_requirements": []}
        mlflow.sklearn.save_model(classifier, folder / "models" / "classifier", **options)

        occupant = socket.create_server(("", 0))
        cls.addClassCleanup(occupant.close)
        cls.servers = {}
        for name, model, options in [
            ("obedient", "obedient", {"prefix": as_first_process()}),
            ("classifier", "classifier", {}),
            ("without", "classifier", {"meter": None}),
            ("broken", "classifier", {"meter": "def install(:\n"}),
            ("occupied", "classifier", {"port": occupant.getsockname()[1]}),
            ("unloadable", "nowhere", {}),
        ]:
            server = cls.servers[name] = Server(name, folder / "models" / model, **options)
            cls.addClassCleanup(server.stop)

    def test_answers_are_counted(self):
        server = self.servers["classifier"].await_ready()
        counted = server.counted()
        for status in 200, 400, 422, 499, 500, 503:
            self.assertEqual(counted[requests(status)], 0)
        for outcome in "Returned", "Failed", "Missing":
            self.assertEqual(counted[calls(outcome)], 0)
        self.assertEqual(counted['laurel_model_info{model_name="fraud",model_version="",model_alias=""}'], 1)

        for x in 0.0, 0.0, 3.0:
            self.assertEqual(server.invoke(x=x)[0], 200)
        self.assertEqual(fetch(server.port, "/invocations", "no JSON")[0], 400)
        self.assertEqual(fetch(server.port, "/invocations", "a", kind="text/plain")[0], 415)
        server.await_count(requests(415), 1)
        counted = server.counted()
        self.assertEqual(counted[requests(200)], 3)
        self.assertEqual(counted[requests(400)], 1)
        self.assertEqual(counted[calls("Returned")], 3)
        self.assertEqual((counted[predicted("0")], counted[predicted("1")]), (2, 1))
        self.assertEqual(counted[requests(200, "bucket", more=',le="+Inf"')], 3)
        self.assertGreater(counted[requests(200, "sum")], 0)
        self.assertEqual(counted[ACTIVE], 0)
        self.assertEqual(counted[ERRORS], 0)
        self.assertNotIn("/ping", fetch(server.metrics_port, "/metrics")[2])

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: server.invoke(x=3.0)[0], range(100)))
        self.assertEqual(set(answers), {200})
        counted = server.await_count(requests(200), 103)
        self.assertEqual(
            (counted[calls("Returned")], counted[predicted("1")], counted[ACTIVE]), (103, 101, 0)
        )
        self.assertNotIn("laurel:", server.log.read_text())

    def test_failures_are_counted_and_a_request_in_flight_is_drained(self):
        server = self.servers["obedient"].await_ready()
        with self.subTest("a prediction that is NaN"):
            self.assertEqual(server.invoke(order="nan", file="")[0], 200)
            server.await_count(requests(200), 1)
            self.assertEqual(server.counted()[calls("Missing")], 1)
        with self.subTest("a model that raises"):
            status, _, body = server.invoke(order="raise", file="")
            self.assertEqual((status, json.loads(body)["error_code"]), (400, "BAD_REQUEST"))
            self.assertIn("ValueError: as asked", json.loads(body)["stack_trace"])
            server.await_count(requests(400), 1)
            self.assertEqual(server.counted()[calls("Failed")], 1)
        with self.subTest("a client that does not wait"):
            go = folder / "go-for-nobody"
            connection = http.client.HTTPConnection("127.0.0.1", server.port)
            with contextlib.closing(connection):
                connection.request("POST", "/invocations", *server.split(order="wait", file=str(go)))
                server.await_count(ACTIVE, 1)
            # What the server reads after this connection has ended, it reads after it knows that.
            self.assertEqual(fetch(server.port, "/ping")[0], 200)
            go.touch()
            counted = server.await_count(ACTIVE, 0)
            self.assertEqual((counted[requests(499)], counted[requests(200)]), (1, 1))
            self.assertEqual(counted[calls("Returned")], 1)
        with self.subTest("SIGTERM"):
            go = folder / "go"
            pid, ended = server.process.pid, -signal.SIGTERM
            if as_first_process():
                pid, ended = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]), 0
            with concurrent.futures.ThreadPoolExecutor() as pool:
                waiting = pool.submit(server.invoke, order="wait", file=str(go))
                server.await_count(ACTIVE, 1)
                os.kill(pid, signal.SIGTERM)
                await_that(lambda: refuses(server.port), "a server that ends accepts no connection")
                self.assertFalse(waiting.done())
                self.assertEqual(server.counted()[ACTIVE], 1)
                go.touch()
                self.assertEqual(waiting.result()[0], 200)
            self.assertEqual(server.process.wait(PATIENCE), ended)

    def test_without_the_meter_the_server_serves(self):
        server = self.servers["without"].await_ready()
        self.assertEqual(server.invoke(x=1.0)[0], 200)
        self.assertTrue(refuses(server.metrics_port))
        self.assertNotIn("laurel", server.log.read_text())

    def test_with_a_broken_meter_the_server_serves_and_says_so(self):
        server = self.servers["broken"].await_ready()
        self.assertEqual(server.invoke(x=1.0)[0], 200)
        self.assertRegex(server.log.read_text(), r"(?m)^laurel: requests are not counted: SyntaxError\(")

    def test_with_its_port_taken_the_server_serves_and_says_so(self):
        server = self.servers["occupied"].await_ready()
        self.assertEqual(server.invoke(x=1.0)[0], 200)
        lines = [line for line in server.log.read_text().splitlines() if "laurel" in line]
        self.assertEqual(len(lines), 1)
        self.assertRegex(lines[0], "laurel: requests are not counted: .*Address already in use")

    def test_a_model_that_cannot_be_loaded_ends_the_process_with_the_reason(self):
        server = self.servers["unloadable"]
        self.assertGreater(server.process.wait(PATIENCE), 0)
        log = server.log.read_text()
        self.assertIn("nowhere", log.splitlines()[-1])
        self.assertNotIn("laurel:", log)


def refuses(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


class Bootstrap(unittest.TestCase):
    def test_a_python_without_uvicorn_runs_the_command(self):
        command = folder / "bin" / "uvicorn"
        command.parent.mkdir()
        command.write_text('#!/bin/sh\necho "command $*"\n')
        command.chmod(0o755)
        start = bootstrap("mlflow.py", command.parent)
        # -S: without the packages of this Python.
        arguments = [sys.executable, "-S", "-c", *start, "--workers=1", "a:b"]
        environment = {"PATH": f"{command.parent}:{os.environ['PATH']}"}
        ran = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
        self.assertEqual((ran.returncode, ran.stdout), (0, "command --workers=1 a:b\n"), ran.stderr)

    def test_it_is_the_command_uvicorn_even_with_a_meter_that_cannot_begin(self):
        place = folder / "no-port"
        place.mkdir()
        shutil.copy(RUNTIME / "meter.py", place / "laurel_meter.py")
        environment = {name: value for name, value in os.environ.items() if name != "LAUREL_METRICS_PORT"}
        arguments = [sys.executable, "-c", *bootstrap("mlflow.py", place), "--help"]
        ran = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
        self.assertEqual((ran.returncode, ran.stdout.split()[:2]), (0, ["Usage:", "uvicorn"]))
        self.assertEqual(ran.stderr, "laurel: requests are not counted: KeyError('LAUREL_METRICS_PORT')\n")

    def test_a_meter_that_somebody_else_wrote_does_not_run(self):
        place = folder / "foreign"
        place.mkdir()
        shutil.copy(RUNTIME / "meter.py", place / "laurel_meter.py")
        arguments = [sys.executable, "-c", *bootstrap("mlflow.py", place), "--help"]
        (place / "laurel_meter.py").write_text("print('taken over')\n")
        ran = subprocess.run(arguments, capture_output=True, text=True, check=False)
        self.assertEqual((ran.returncode, ran.stdout.split()[:2]), (0, ["Usage:", "uvicorn"]))
        self.assertIn("the meter is not the one that Laurel wrote", ran.stderr)

    def test_every_configuration_of_uvicorn_is_metered_once(self):
        script = """
            import functools, os, sys, uvicorn
            before = functools.partial(uvicorn.Config, headers=[])
            sys.path.append(sys.argv[1])
            import laurel_meter
            laurel_meter.install()
            assert "mlflow" not in sys.modules
            async def application(scope, receive, send): pass
            for create in before, functools.partial(uvicorn.Config, headers=[]), uvicorn.Config:
                config = create(application, proxy_headers=False)
                config.load()
                closure = [cell.cell_contents for cell in config.loaded_app.__closure__]
                assert application in closure
            predict = __import__("mlflow").pyfunc.PyFuncModel.predict
            assert hasattr(predict, "__wrapped__") and not hasattr(predict.__wrapped__, "__wrapped__")

            # A process that is forked in the middle of counting can count.
            meter = next(value for value in closure if isinstance(value, laurel_meter.Meter))
            with meter.lock:
                child = os.fork()
                if child == 0:
                    os._exit(0 if meter.lock.acquire(timeout=1) else 1)
            os._exit(1 if os.waitpid(child, 0)[1] else 0)
        """
        place = folder / "hooks"
        place.mkdir()
        shutil.copy(RUNTIME / "meter.py", place / "laurel_meter.py")
        environment = {**os.environ, "LAUREL_METRICS_PORT": str(free_port())}
        arguments = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script), str(place)]
        ran = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))


@unittest.skipUnless(importlib.util.find_spec("mlserver_mlflow"), "needs mlserver and mlserver-mlflow")
class MLServer(unittest.TestCase):
    class Server(Server):
        def command(self):
            return ["-c", *bootstrap("mlserver.py", self.folder), "60", "5", "laurel-version:7"]

    def setUp(self):
        import mlflow
        from sklearn.linear_model import LogisticRegression

        path = folder / "classifier-of-mlserver"
        classifier = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
        mlflow.sklearn.save_model(classifier, path, serialization_format="cloudpickle", pip_requirements=[])
        ports = {f"MLSERVER_{name}_PORT": str(free_port()) for name in ("GRPC", "METRICS")}
        port = free_port()
        self.server = self.Server(
            "mlserver",
            path,
            prefix=as_first_process(),
            MLSERVER_HTTP_PORT=str(port),
            MLSERVER_MODEL_NAME="model",
            MLSERVER_MODEL_URI=str(path),
            MLSERVER_MODEL_VERSION="7",
            MLSERVER_MODEL_IMPLEMENTATION="mlserver_mlflow.MLflowRuntime",
            MLSERVER_DEBUG="false",
            MLSERVER_PARALLEL_WORKERS="0",
            **ports,
        )
        self.server.port = port
        self.addCleanup(self.server.stop)

    def test_answers_are_counted(self):
        server = self.server.await_ready("/v2/models/model/ready")
        route = "/v2/models/{model}/infer"
        counted = server.counted()
        self.assertEqual((counted[requests(200, route=route)], counted[requests(422, route=route)]), (0, 0))
        column = {"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [3.0]}
        body = json.dumps({"parameters": {"content_type": "pd"}, "inputs": [column]})
        self.assertEqual(fetch(server.port, "/v2/models/model/infer", body)[0], 200)
        self.assertEqual(fetch(server.port, "/v2/models/model/versions/7/infer", body)[0], 200)
        self.assertEqual(fetch(server.port, "/v2/models/model/infer", "{}")[0], 422)
        counted = server.await_count(requests(422, route=route), 1)
        self.assertEqual(counted[requests(200, route=route)], 1)
        self.assertEqual(counted[requests(200, route="/v2/models/{model}/versions/{version}/infer")], 1)
        self.assertEqual((counted[calls("Returned")], counted[predicted("1")]), (2, 2))
        self.assertEqual((counted[ACTIVE], counted[ERRORS]), (0, 0))
        if as_first_process():
            pid = self.server.process.pid
            child = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
            os.kill(child, signal.SIGTERM)
            self.assertEqual(self.server.process.wait(PATIENCE), 0)


if __name__ == "__main__":
    unittest.main()
