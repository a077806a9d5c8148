"""Counts the requests and predictions of a model server, and serves the counts to Prometheus.

It runs inside the server, in an image that is not Laurel's: standard library only, Python 3.8 or newer.
It must never change an answer or fail a request, so what goes wrong in here is counted and goes no further.
"""

import bisect, contextlib, contextvars, functools, math, numbers, os, re, socket, sys, threading, time
from collections import Counter
from itertools import chain, islice

ROUTES = ("/invocations", "/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer")
PATTERNS = [(re.compile(re.sub("{.+?}", "[^/]+", route)), route) for route in ROUTES]
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, math.inf)
VALUES = 10_000  # Of one answer. The rest is not looked at.
COLUMNS = ("prediction", "predictions", "predict", "label", "class")  # One of several that is the prediction.


class Meter:
    def __init__(self):
        self.lock = threading.Lock()
        self.since = time.time()
        self.active = self.errors = 0
        # (method, route, status): requests in each bucket, then their seconds. They begin with 0, because
        # Prometheus does not see the increase of a series that was not there.
        self.requests = {
            ("POST", route, status): [0] * len(BUCKETS) + [0.0]
            for route in ROUTES[: 2 if "mlserver" in sys.modules else 1]
            for status in ("200", "400", "422", "499", "500", "503", "504")
        }
        self.calls = {"Returned": 0, "Failed": 0, "Missing": 0}
        self.mode = os.environ.get("LAUREL_PREDICTIONS") or "Classes"
        self.classes = {"other": 0}
        self.sums = [0, 0.0, 0.0]

    def safely(self, work, *arguments):
        try:
            return work(*arguments)
        except Exception:
            with self.lock:
                self.errors += 1

    def call(self, outcome, classes={}, sums=(0, 0, 0)):
        with self.lock:
            self.calls[outcome] += 1
            for name, count in classes.items():
                name = name if name in self.classes or len(self.classes) <= 20 else "other"
                self.classes[name] = self.classes.get(name, 0) + count
            self.sums = [old + new for old, new in zip(self.sums, sums)]

    def page(self):
        with self.lock:
            requests = sorted((key, list(counts)) for key, counts in self.requests.items())
            calls, classes, sums = list(self.calls.items()), list(self.classes.items()), self.sums
            active, errors = self.active, self.errors
        lines = []

        def family(name, kind, help, samples):
            lines.extend(["# HELP %s %s" % (name, help), "# TYPE %s %s" % (name, kind)])
            lines.extend("%s%s %r" % (name, labels, value) for labels, value in samples)

        durations = []
        for key, (*counts, seconds) in requests:
            labels = 'http_request_method="%s",http_route="%s",http_response_status_code="%s"' % key
            for i, bound in enumerate(BUCKETS):
                le = ("%g" % bound).replace("inf", "+Inf")
                durations.append(('_bucket{%s,le="%s"}' % (labels, le), sum(counts[: i + 1])))
            durations += [("_sum{%s}" % labels, seconds), ("_count{%s}" % labels, sum(counts))]
        family("http_server_request_duration_seconds", "histogram", "Time until the answer ends.", durations)
        family("http_server_active_requests", "gauge", "Requests that are being answered.", [("", active)])

        calls = [('{outcome="%s"}' % outcome, count) for outcome, count in calls]
        help = "Calls of the model. Missing: it returned a value that is null or not finite."
        family("laurel_model_predictions_total", "counter", help, calls)
        if self.mode == "Classes":
            classes = [('{class="%s"}' % escape(name), count) for name, count in classes]
            family("laurel_model_predicted_class_total", "counter", "Predicted values by class.", classes)
        if self.mode == "Numbers":
            name = "laurel_model_prediction_"
            family(name + "values_total", "counter", "Predicted numbers.", [("", sums[0])])
            family(name + "sum", "gauge", "Sum of the predicted numbers.", [("", sums[1])])
            family(name + "sum_of_squares", "gauge", "Sum of their squares.", [("", sums[2])])

        names = ("MODEL_NAME", "MODEL_VERSION", "MODEL_ALIAS")
        model = ",".join('%s="%s"' % (name.lower(), escape(os.environ.get(name, ""))) for name in names)
        family("laurel_model_info", "gauge", "The model that is served.", [("{%s}" % model, 1)])
        family("process_start_time_seconds", "gauge", "Unix time of the start.", [("", self.since)])
        family("laurel_meter_errors_total", "counter", "Errors of the code that counts.", [("", errors)])
        return "\n".join(lines + [""]).encode("utf-8", "replace")


def escape(text):
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class Request:
    """A request for a prediction, until the last byte of its answer."""

    def __init__(self, meter, method, route, connection):
        self.meter, self.connection, self.began = meter, connection, time.perf_counter()
        self.method, self.route = method if method in METHODS else "_OTHER", route
        self.status, self.gone, self.ended = "500", False, False
        with meter.lock:
            meter.active += 1

    def see(self, message):
        """Whether it ends the answer."""
        if message["type"] == "http.response.start":
            self.status = str(int(message["status"]))
        self.gone |= message["type"] == "http.disconnect"
        return message["type"] == "http.response.body" and not message.get("more_body")

    def end(self, complete):
        if self.ended:
            return
        self.ended, seconds = True, time.perf_counter() - self.began
        # uvicorn knows that a client is gone, but tells only an application that waits for it.
        gone = self.gone or getattr(self.connection, "disconnected", False) is True
        key = self.method, self.route, "499" if gone else self.status if complete else "500"
        with self.meter.lock:
            self.meter.active -= 1
            counts = self.meter.requests.setdefault(key, [0] * len(BUCKETS) + [0.0])
            counts[bisect.bisect_left(BUCKETS, seconds)] += 1
            counts[-1] += seconds


def metered(application, meter):
    """The ASGI application, with its requests counted."""

    def begin(scope, send):
        if scope["type"] == "http":
            path, root = scope["path"], scope.get("root_path", "")
            path = path[len(root) :] if path.startswith(root) else path
            route = next((route for pattern, route in PATTERNS if pattern.fullmatch(path)), None)
            return route and Request(meter, scope["method"], route, getattr(send, "__self__", None))

    async def serve(scope, receive, send):
        request = meter.safely(begin, scope, send)
        if request is None:
            return await application(scope, receive, send)

        async def receive_and_see():
            message = await receive()
            meter.safely(request.see, message)
            return message

        async def see_and_send(message):
            last = meter.safely(request.see, message)
            await send(message)
            if last:
                meter.safely(request.end, True)

        try:
            return await application(scope, receive_and_see, see_and_send)
        finally:
            meter.safely(request.end, False)

    return serve


def counted(predict, meter):
    """PyFuncModel.predict, counted, but not the calls within a call: a model can be made of models."""
    inside = contextvars.ContextVar("inside", default=False)

    @functools.wraps(predict)  # MLflow looks at the signature.
    def predict_and_count(*arguments, **keywords):
        if inside.get():
            return predict(*arguments, **keywords)
        token = inside.set(True)
        try:
            answer = predict(*arguments, **keywords)
        except BaseException:
            meter.safely(meter.call, "Failed")
            raise
        finally:
            meter.safely(inside.reset, token)
        meter.safely(meter.call, *(meter.safely(judge, answer, meter.mode) or ["Returned"]))
        return answer

    return predict_and_count


def judge(answer, mode):
    """The arguments for Meter.call. It looks at nothing that looking changes: generators, lazy tables."""
    columns = {str(name).lower(): values_of(column) for name, column in islice(columns_of(answer), 100)}
    names = list(columns) if len(columns) == 1 else [name for name in COLUMNS if name in columns]
    if not names:
        # The prediction is unknown, and other columns may be optional.
        some = [[v for v in c if v is not None] if isinstance(c, list) else c for c in columns.values()]
        return ["Missing" if any(map(missing, some)) else "Returned"]
    values = columns[names[0]]
    outcome = "Missing" if missing(values) else "Returned"
    if mode == "Numbers":
        return outcome, {}, sums_of(values)
    return outcome, classes_of(values) if mode == "Classes" else {}


def known(library, name):
    """A type of a library, or none where that is not imported."""
    return getattr(sys.modules.get(library), name, ())


def columns_of(answer):
    if isinstance(answer, (known("pandas", "DataFrame"), known("polars", "DataFrame"))):
        rows = max(1, VALUES // max(1, answer.shape[1]))
        answer = answer.head(rows) if len(answer) > rows else answer
        return ((name, answer[name]) for name in answer.columns)
    if isinstance(answer, (list, tuple)) and answer and all(isinstance(row, dict) for row in answer[:VALUES]):
        rows, answer = answer, {}
        for name, value in islice(chain.from_iterable(row.items() for row in rows), VALUES):
            answer.setdefault(name, []).append(value)
    return answer.items() if isinstance(answer, dict) else [("", answer)]


def values_of(column):
    """An array where numpy can compute with the values, or else a list."""
    array, scalar = known("numpy", "ndarray"), known("numpy", "generic")
    if isinstance(column, (known("pandas", "Series"), known("polars", "Series"))):
        column = (column.head(VALUES) if len(column) > VALUES else column).to_numpy()
    if isinstance(column, array):
        column = column.flat[:VALUES]
        return column if column.dtype.kind in "biufcmM" else column.tolist()
    values = list(column[:VALUES]) if isinstance(column, (list, tuple)) else [column]
    if all(isinstance(row, (list, tuple, array)) for row in values):
        values = list(islice(chain.from_iterable(values), VALUES))
    return [value.item() if isinstance(value, scalar) else value for value in values]


def missing(values):
    if not isinstance(values, list):
        return not sys.modules["numpy"].isfinite(values).all()
    return any(map(is_missing, values))


def is_missing(value):
    if isinstance(value, (int, str)):
        return False
    if isinstance(value, numbers.Number):
        return not math.isfinite(abs(value))
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def classes_of(values):
    """How often each whole number, boolean and text occurs. With one fraction, none of them is a class."""
    if not isinstance(values, list):
        with sys.modules["numpy"].errstate(all="ignore"):
            if values.dtype.kind in "cmM" or values.dtype.kind == "f" and (values % 1 > 0).any():
                return {}
        values = values.tolist()
    values = [value for value in values if isinstance(value, (str, int, float)) and value == value]
    if any(isinstance(value, float) and value % 1 != 0 for value in values):
        return {}
    counts = Counter(values)
    if len(counts) > 100:  # More are not worth the time with the lock.
        counts = dict(counts.most_common(100))
    classes = {"other": len(values) - sum(counts.values())}
    for value, count in counts.items():
        value = int(value) if isinstance(value, float) else value
        text = str(value).lower() if isinstance(value, bool) else str(value)
        text = text.encode("utf-8", "replace").decode()  # Not every text has an encoding.
        text = text if len(text) <= 64 else "other"
        classes[text] = classes.get(text, 0) + count
    return classes


def sums_of(values):
    """How many numbers, their sum, and the sum of their squares."""
    if not isinstance(values, list):
        values = values.tolist() if values.dtype.kind in "biuf" else []
    values = [value for value in values if isinstance(value, (int, float)) and abs(value) < 1e150]
    return len(values), sum(values), sum(value * value for value in values)


def listen(port):
    try:
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    except (OSError, ValueError):  # There may be no IPv6.
        return socket.create_server(("0.0.0.0", port))


def reply(client, meter):
    deadline, request = time.monotonic() + 1, b""
    with client, contextlib.suppress(OSError):  # Clients are slow, or leave.
        while b"\r\n\r\n" not in request:
            left = deadline - time.monotonic()
            if left <= 0 or len(request) > 65536:
                return
            client.settimeout(left)
            received = client.recv(4096)
            if not received:
                return
            request += received
        found = re.match(rb"GET /metrics[ ?]", request)
        status, body = (b"200 OK", meter.page()) if found else (b"404 Not Found", b"")
        kind = b"text/plain; version=0.0.4; charset=utf-8"
        head = b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        client.sendall(head % (status, kind, len(body)) + body)


def reply_forever(listener, meter):
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            time.sleep(0.1)  # No file descriptor is left, for example.
        else:
            meter.safely(reply, client, meter)


def install():
    """Begins once uvicorn has loaded its application, so a model that forks or wants the port while it loads
    finds the process as it would be without this.
    """
    port = int(os.environ["LAUREL_METRICS_PORT"])
    from uvicorn.config import Config

    meter, load = Meter(), Config.load

    @functools.lru_cache(maxsize=None)  # MLServer has two servers.
    def begin():
        try:
            listener = listen(port)
            from mlflow.pyfunc import PyFuncModel

            PyFuncModel.predict = counted(PyFuncModel.predict, meter)
            # In a process that is forked while another thread has the lock, nobody would release it.
            os.register_at_fork(after_in_child=lambda: setattr(meter, "lock", threading.Lock()))
            threading.Thread(target=reply_forever, args=(listener, meter), daemon=True).start()
            return True
        except Exception as error:
            print("laurel: requests are not counted:", error, file=sys.stderr, flush=True)

    @functools.wraps(load)
    def load_and_begin(config, *arguments, **keywords):
        load(config, *arguments, **keywords)
        if begin():
            config.loaded_app = metered(config.loaded_app, meter)

    Config.load = load_and_begin
