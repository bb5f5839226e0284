"""The programs of docs/devices/ that buffer readings and post many in one request: against the real gateway, and against a server
that answers by a script."""

import gzip
import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler

import pytest
from conftest import FOREBAY, PATIENCE, ROOT, Gateway, run
from scripted_server import ScriptedServer

DEVICES = ROOT / "docs/devices"
COMMANDS = {"curl": ["bash", DEVICES / "buffer.sh"], "python": [sys.executable, DEVICES / "buffer.py"]}


@pytest.fixture(scope="module")
def home(folder):
    home = folder / "buffers"
    run(FOREBAY, "pki", "init", "--dir", home / "pki")
    run(FOREBAY, "pki", "server", "--dir", home / "pki", "--name", "localhost")
    run(FOREBAY, "pki", "device", "--dir", home / "pki", *COMMANDS)
    return home


@pytest.fixture(params=COMMANDS)
def language(request):
    return request.param


def post(home, language, port, readings):
    """The exit code, and what was said on stderr."""
    pki = home / "pki"
    identity = [pki / "ca.pem", pki / f"devices/{language}.pem", pki / f"devices/{language}.key", "boot-7"]
    command = [str(part) for part in [*COMMANDS[language], f"https://localhost:{port}", *identity]]
    text = "".join(f"{reading}\n" for reading in readings)
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=PATIENCE)
    return done.returncode, done.stderr


def test_all_readings_arrive_once_and_in_order(home, language):
    """The bucket is smaller than what waits: requests become smaller, and then wait."""
    gateway = Gateway(home, FOREBAY_DEVICE_RATE="20", FOREBAY_DEVICE_BURST="30", FOREBAY_BODY_BYTES_MAX="1KiB")
    try:
        readings = [json.dumps({"celsius": number, "text": 'a "quoted" \\ text'}) for number in range(70)]
        readings[7] = json.dumps("x" * 2000)
        code, said = post(home, language, gateway.port, readings)
        assert code == 1 and "refused, record-too-large" in said, said
        stored = [record["payload"] for record in gateway.records() if record["device"] == language]
        assert stored == [json.loads(reading) for reading in readings if "xx" not in reading], said
    finally:
        gateway.stop()


class Handler(BaseHTTPRequestHandler):
    """Answers by the server's list, then 204."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        assert self.path == "/v1/telemetry/records" and self.headers["content-type"] == "application/x-ndjson"
        body = gzip.decompress(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append((self.headers["idempotency-key"], body.decode().splitlines()))
        status, problem = self.server.answers.pop(0) if self.server.answers else (204, None)
        body = json.dumps(problem, separators=(",", ":"), sort_keys=True).encode() if problem else b""
        self.send_response(status)
        if body:
            self.send_header("content-type", "application/problem+json")
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def meet(home, language, answers, readings):
    with ScriptedServer(home / "pki", {}) as server:
        server.RequestHandlerClass, server.answers = Handler, list(answers)
        code, said = post(home, language, server.server_port, readings)
        return code, said, server.requests


def verdicts(accepted, retry, rejected):
    return {"accepted": accepted, "retry": retry, "rejected": [{"index": index, "code": code} for index, code in rejected]}


def test_the_verdicts_decide(home, language):
    """What may be sent again is, under another key; what is refused is told; the rest is forgotten."""
    answers = [
        (503, {"code": "sink-unavailable", "records": verdicts(1, [1, 3], [(2, "sink-refused")])}),
        (504, {"code": "ack-timeout", "records": verdicts(0, [0, 1], [])}),
    ]
    code, said, requests = meet(home, language, answers, ["1", "2", "3", "4"])
    assert code == 1 and said.count(": refused, ") == 1 and "refused, sink-refused" in said, said
    assert [readings for _, readings in requests] == [["1", "2", "3", "4"], ["2", "4"], ["2", "4"]]
    keys = [key for key, _ in requests]
    assert keys[0] != keys[1] == keys[2], "another place has another name, and the same the same"


def test_a_refusal_of_the_whole_request_is_one(home, language):
    answers = [(503, {"code": "overloaded"}), (400, {"code": "malformed-records"})]
    code, said, requests = meet(home, language, answers, ["1", "2"])
    assert code == 1 and said.count(": refused, ") == 2, said
    assert [readings for _, readings in requests] == [["1", "2"], ["1", "2"]] and requests[0][0] == requests[1][0]


@pytest.mark.parametrize("status", [403, 404, 405, 421])
def test_a_device_that_is_refused_as_such_stops(home, language, status):
    code, said, requests = meet(home, language, [(status, {"code": "x"})], [str(number) for number in range(300)])
    assert code == 1 and len(requests) == 1, said


def test_a_program_says_how_it_is_used(language):
    done = subprocess.run([str(part) for part in COMMANDS[language]], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2 and done.stderr.startswith("usage: "), done.stderr
