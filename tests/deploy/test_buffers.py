"""The programs of docs/devices/ that buffer readings and post many in one request: against the real gateway, also one that goes
away for a while, and against a server that answers by a script."""

import gzip
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler

import pytest
from conftest import FOREBAY, PATIENCE, Gateway, eventually, run
from device_programs import LANGUAGES, arguments, compiled, must_be_there
from scripted_server import LOST, ScriptedServer
from silent_relay import SilentRelay

AGAIN = "again"
STATUS = {"sink-unavailable": 503, "device-mismatch": 403, "schema-violation": 400, "record-too-large": 413, "sink-refused": 502}


@pytest.fixture(scope="module")
def home(folder):
    home = folder / "buffers"
    run(FOREBAY, "pki", "init", "--dir", home / "pki")
    run(FOREBAY, "pki", "server", "--dir", home / "pki", "--name", "localhost")
    run(FOREBAY, "pki", "device", "--dir", home / "pki", *LANGUAGES)
    return home


@pytest.fixture(scope="module")
def commands(home):
    return compiled("buffer", home)


@pytest.fixture(params=LANGUAGES)
def language(request, commands):
    must_be_there(request.param, commands)
    return request.param


class Buffers:
    """Starts the programs."""

    def __init__(self, home, commands):
        self.home, self.pki, self.commands = home, home / "pki", commands

    def start(self, language, port, boot="boot-7"):
        command = [*map(str, self.commands[language]), *arguments(language, port, self.pki, self.pki / "ca.pem", boot)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="latin-1")

    def post(self, language, port, readings):
        """The exit code, and what was said on stderr."""
        process = self.start(language, port)
        try:
            _, said = process.communicate("".join(f"{reading}\n" for reading in readings), timeout=PATIENCE)
            return process.returncode, said
        finally:
            process.kill()

    def meet(self, language, script, readings, answers=()):
        """The same, and the requests that the scripted server has seen: their keys and readings."""
        with ScriptedServer(self.pki, script) as server:
            server.RequestHandlerClass, server.answers = Handler, list(answers)
            code, said = self.post(language, server.server_port, readings)
            return code, said, server.requests


@pytest.fixture(scope="module")
def buffers(home, commands):
    return Buffers(home, commands)


class Handler(BaseHTTPRequestHandler):
    """Answers by the server's list first, for whole requests. Then by its script: what each reading meets, one after the other,
    before it is safe: AGAIN, or the code of a rejection."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        assert self.path == "/v1/telemetry/records" and self.headers["content-type"] == "application/x-ndjson"
        body = gzip.decompress(self.rfile.read(int(self.headers["content-length"])))
        readings = body.decode().splitlines()
        self.server.requests.append((self.headers["idempotency-key"], readings))
        answer = self.server.answers.pop(0) if self.server.answers else self.judge(readings)
        if answer == LOST:
            self.close_connection = True
        else:
            self.reply(*answer)

    def judge(self, readings):
        """As a gateway judges: the status and the code are those of the worst."""
        verdicts = [script.pop(0) if (script := self.server.script.get(reading)) else None for reading in readings]
        rejected = [{"index": index, "code": code} for index, code in enumerate(verdicts) if code not in (None, AGAIN)]
        again = [index for index, verdict in enumerate(verdicts) if verdict == AGAIN]
        if not again and not rejected:
            return 204, None
        code = "sink-unavailable" if again else rejected[0]["code"]
        return STATUS[code], {"code": code, "records": {"accepted": verdicts.count(None), "retry": again, "rejected": rejected}}

    def reply(self, status, problem):
        body = json.dumps(problem, separators=(",", ":"), sort_keys=True).encode() if problem else b""
        self.send_response(status)
        if body:
            self.send_header("content-type", "application/problem+json")
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def named(requests):
    """What each reading was called, by reading; no name is given to two of them."""
    readings, names = {}, {}
    for key, sent in requests:
        for place, reading in enumerate(sent):
            name = f"{key}/{place}"
            assert readings.setdefault(name, reading) == reading, f"{name} names two readings"
            names.setdefault(reading, []).append(name)
    return names


def test_all_readings_arrive_once_and_in_order(buffers, language):
    """The bucket is smaller than what waits: requests become smaller, and then wait."""
    gateway = Gateway(buffers.home, FOREBAY_DEVICE_RATE="20", FOREBAY_DEVICE_BURST="30", FOREBAY_BODY_BYTES_MAX="1KiB")
    try:
        readings = [json.dumps({"celsius": number, "text": 'a "quoted" \\ text'}) for number in range(70)]
        readings[7] = json.dumps("x" * 2000)
        code, said = buffers.post(language, gateway.port, readings)
        assert code == 1 and "refused, record-too-large" in said, said
        stored = [record["payload"] for record in gateway.records() if record["device"] == language]
        assert stored == [json.loads(reading) for reading in readings if "xx" not in reading], said
    finally:
        gateway.stop()


@pytest.fixture(scope="module")
def bridged(buffers, commands):
    """The exit code of each program and what has arrived, where the gateway forgets a connection in silence, and later goes away and
    comes back. All programs at once, since they mostly wait."""
    gateways = [Gateway(buffers.home)]
    relays = {language: SilentRelay(gateways[0].port) for language in commands}
    processes = {language: buffers.start(language, relay.port, "away") for language, relay in relays.items()}

    def arrived(language):
        return [record["payload"] for record in gateways[-1].records()
                if record["device"] == language and record["record_id"].startswith("away-")]

    def tell(words):
        for process in processes.values():
            process.stdin.write("".join(f'"{word}"\n' for word in words))
            process.stdin.flush()

    def all_have(word):
        for language in commands:
            eventually(f"{word!r} of {language}", lambda: word in arrived(language))

    try:
        tell(["first"])
        all_have("first")
        for relay in relays.values():
            relay.swallow()
        tell(["into silence"])
        all_have("into silence")
        assert gateways[0].stop() == 0
        tell(["while it is away", "as well"])
        for process in processes.values():
            assert any("again in" in line for line in process.stderr)
        gateways.append(Gateway(buffers.home))
        for relay in relays.values():
            relay.upstream = gateways[1].port
        for process in processes.values():
            process.stdin.close()
        return {language: (process.wait(PATIENCE), arrived(language)) for language, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
        for relay in relays.values():
            relay.stop()
        gateways[-1].stop()


def test_a_gateway_that_is_away_for_a_while_loses_no_reading(bridged, language):
    code, arrived = bridged[language]
    once = list(dict.fromkeys(arrived))  # what was swallowed with its answer is sent again, under its key
    assert code == 0 and once == ["first", "into silence", "while it is away", "as well"]


def test_the_verdicts_decide(buffers, language):
    """What may be sent again is, what is refused is told, the rest is forgotten, and all in order, however many go together."""
    script = {"2": [AGAIN, AGAIN], "3": ["sink-refused"], "4": [AGAIN, AGAIN]}
    code, said, requests = buffers.meet(language, script, ["1", "2", "3", "4"])
    assert code == 1 and said.count(": refused, ") == 1 and "refused, sink-refused: " in said, said
    times = {reading: len(names) for reading, names in named(requests).items()}
    assert times == {"1": 1, "2": 3, "3": 1, "4": 3}, said
    assert all(sent == sorted(sent) for _, sent in requests)


def test_what_a_lost_answer_leaves_in_doubt_is_sent_again_under_its_key(buffers, language):
    code, said, requests = buffers.meet(language, {}, ["1", "2"], [LOST])
    assert code == 0, said
    assert all(len(set(names)) == 1 for names in named(requests).values()) and len(named(requests)["1"]) == 2


@pytest.mark.parametrize("reason", STATUS)
def test_a_reading_that_is_refused_alone_stops_no_other(buffers, language, reason):
    """The status is that of the first one that is refused, also where all others are safe."""
    readings = [str(number) for number in range(150)]
    script = {"0": [reason] if reason != "sink-unavailable" else [AGAIN, "sink-refused"], "7": ["record-too-large"]}
    code, said, requests = buffers.meet(language, script, readings)
    assert code == 1 and said.count(": refused, ") == 2, said
    assert set(named(requests)) == set(readings), said


def test_a_refusal_of_the_whole_request_is_one(buffers, language):
    code, said, requests = buffers.meet(language, {}, ["1"], [(503, {"code": "overloaded"}), (400, {"code": "malformed-records"})])
    assert code == 1 and said.count(": refused, ") == 1, said
    assert requests[0] == requests[1] and len(requests) == 2


@pytest.mark.parametrize("status", [403, 404, 405, 421])
def test_a_device_that_is_refused_as_such_stops(buffers, language, status):
    code, said, requests = buffers.meet(language, {}, [str(number) for number in range(300)], [(status, {"code": "x"})])
    assert code == 1 and len(requests) == 1, said


def test_a_program_says_how_it_is_used(commands, language):
    def misused(*given):
        command = [str(part) for part in [*commands[language], *given]]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
        return done.returncode, done.stderr

    code, said = misused()
    assert code == 2 and said.startswith("usage: "), said
    where = ["localhost", "1"] if language == "c" else ["https://localhost:1"]
    code, said = misused(*where, "missing.pem", "missing.pem", "missing.key", "boot-7")
    assert code == 2 and "missing" in said and "Traceback" not in said, said
    code, said = misused(*where, "ca.pem", "device.pem", "device.key", "b" * 51)
    assert code == 2 and "BOOT has 50 characters at most" in said, said
