"""The programs of docs/devices/ do what docs/protocol.md asks of a device: each against the real gateway, and against a server that
answers as a script says."""

import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from conftest import FOREBAY, PATIENCE, Gateway, eventually, run
from device_programs import LANGUAGES, arguments, compiled, must_be_there
from scripted_server import LOST, ScriptedServer
from silent_relay import SilentRelay

READINGS = [json.dumps({"celsius": number, "text": 'a "quoted" \\ text'}) for number in range(5)]
# What is answered first, by reading; after that, and to all others, 204.
SCRIPT = {
    "kept 1": [], "kept 2": [], "kept 3": [],
    "lost": [LOST], "504": [504], "told to wait": [(503, 2)],
    "thrice": [408, 429, 503],
    "400": [400], "413": [413], "415": [415], "431": [431], "502": [502],
    "last": [],
}
REFUSED = ["400", "413", "415", "431", "502"]
STOPS = [403, 404, 405, 421]


@pytest.fixture(scope="module")
def home(folder):
    """Two authorities: `pki`, whose server is localhost, and `other`, whose server is elsewhere."""
    home = folder / "devices"
    for pki, name in (("pki", "localhost"), ("other", "elsewhere.example")):
        run(FOREBAY, "pki", "init", "--dir", home / pki)
        run(FOREBAY, "pki", "server", "--dir", home / pki, "--name", name)
        run(FOREBAY, "pki", "device", "--dir", home / pki, *LANGUAGES)
    return home


@pytest.fixture(scope="module")
def commands(home):
    return compiled("device", home)


@pytest.fixture(params=LANGUAGES)
def language(request, commands):
    must_be_there(request.param, commands)
    return request.param


class Devices:
    """Starts the programs."""

    def __init__(self, home, commands):
        self.home, self.commands = home, commands

    def start(self, language, port, pki="pki", ca="pki/ca.pem", boot="boot-7"):
        command = [*map(str, self.commands[language]), *arguments(language, port, self.home / pki, self.home / ca, boot)]
        # What a reading holds is no concern of a device: text of any encoding.
        return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="latin-1")

    def misused(self, language, *arguments):
        """The exit code and what was said, of a start with these arguments alone."""
        command = [str(part) for part in [*self.commands[language], *arguments]]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
        return done.returncode, done.stderr

    def post(self, language, port, readings, **options):
        """The exit code, and what was said on stderr."""
        process = self.start(language, port, **options)
        try:
            _, said = process.communicate("".join(f"{reading}\n" for reading in readings), timeout=PATIENCE)
            return process.returncode, said
        finally:
            process.kill()

    def meet(self, language, script):
        """The same, and the requests that the scripted server has seen."""
        with ScriptedServer(self.home / "pki", script) as server:
            code, said = self.post(language, server.server_port, script)
            return code, said, server.requests


@pytest.fixture(scope="module")
def devices(home, commands):
    return Devices(home, commands)


@pytest.fixture(scope="module")
def gateway(home):
    """It takes one reading of a device a second."""
    gateway = Gateway(home, FOREBAY_DEVICE_RATE="1", FOREBAY_DEVICE_BURST="1")
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def met(devices, commands):
    """What each program does with SCRIPT: all at once, since they mostly wait."""
    with ThreadPoolExecutor(len(LANGUAGES)) as pool:
        return dict(zip(commands, pool.map(lambda language: devices.meet(language, SCRIPT), commands)))


def test_every_reading_arrives_once_and_in_order(devices, gateway, language):
    code, said = devices.post(language, gateway.port, READINGS)
    assert code == 0 and "429" in said, f"all are safe, after the limit was met: {said}"
    records = [record for record in gateway.records() if record["device"] == language]
    assert [record["payload"] for record in records] == [json.loads(reading) for reading in READINGS]
    assert [record["record_id"] for record in records] == [f"boot-7-{number:06}" for number in range(1, 6)]
    assert {record["content_type"] for record in records} == {"application/json"}


def test_a_reading_has_one_key_through_all_attempts(met, language):
    _, said, requests = met[language]
    keys = [(request.reading, request.key) for request in requests]
    assert set(keys) == {(reading, f"boot-7-{number:06}") for number, reading in enumerate(SCRIPT, 1)}, said


def test_what_may_yet_succeed_is_sent_again_and_nothing_else(met, language):
    code, said, requests = met[language]
    expected = [answer for reading, answers in SCRIPT.items()
                for answer in (answers if reading in REFUSED else [*answers, 204])]
    assert [request.answer for request in requests] == expected, said
    assert code == 1, "some are not safe"


def test_pauses_grow_and_heed_retry_after(met, language):
    """Least pauses only: how much longer one is depends on the machine."""
    at = {reading: [request.at for request in met[language][2] if request.reading == reading] for reading in SCRIPT}
    pauses = {reading: [after - before for before, after in pairwise(times)] for reading, times in at.items()}
    assert pauses["told to wait"][0] >= 2, "more than a first pause can be by itself"
    assert all(pause >= least for pause, least in zip(pauses["thrice"], (0.5, 1, 2), strict=True)), pauses["thrice"]


def test_the_connection_is_kept(met, language):
    used = {request.connection for request in met[language][2] if request.reading.startswith("kept")}
    assert used == {1}


@pytest.mark.parametrize("status", STOPS)
def test_a_device_that_is_refused_as_such_stops(devices, language, status):
    code, said, requests = devices.meet(language, {"good": [], "refused": [status], "not sent": []})
    assert [request.reading for request in requests] == ["good", "refused"] and code == 1, said


@pytest.mark.parametrize("fault", ["authority", "name"])
def test_a_server_is_believed_only_with_its_certificate(devices, language, fault):
    """`authority`: the right name, signed by an authority that the device does not know. `name`: the other way round."""
    pki = "pki" if fault == "authority" else "other"
    with ScriptedServer(devices.home / pki, {}) as server:
        process = devices.start(language, server.server_port, pki, "other/ca.pem")
        process.stdin.write("secret\n")
        process.stdin.close()
        try:
            assert any("again in" in line for line in process.stderr), "it tries again: its clock may be wrong"
        finally:
            process.kill()
            process.wait(PATIENCE)
        assert not server.requests


@pytest.fixture(scope="module")
def forgotten(devices, commands, gateway):
    """What arrives of two readings between which a NAT forgets the connection, and swallows the next one's handshake as well; and
    the number of connections. All programs at once, since they mostly wait."""
    with ThreadPoolExecutor(len(LANGUAGES)) as pool:
        return {language: pool.submit(forget, devices, gateway, language) for language in commands}


def forget(devices, gateway, language):
    def arrived():
        return [record["payload"] for record in gateway.records() if record["device"] == language and record["record_id"].startswith("nat-")]

    relay = SilentRelay(gateway.port)
    process = devices.start(language, relay.port, boot="nat")
    try:
        process.stdin.write('"first"\n')
        process.stdin.flush()
        eventually(f"the first reading of {language}, before the end of its input", arrived)
        relay.swallow(more=1)
        process.stdin.write('"second"\n')
        process.stdin.close()
        eventually(f"the second reading of {language}", lambda: "second" in arrived())
        return process.wait(PATIENCE), arrived(), len(relay.connections)
    finally:
        process.kill()
        relay.stop()


def test_a_connection_that_a_nat_has_forgotten_is_given_up(forgotten, language):
    code, arrived, connections = forgotten[language].result()
    assert code == 0 and connections >= 3
    # The first answer may have been swallowed: then that reading is sent again under its key.
    assert arrived[0] == "first" and arrived[-1] == "second" and set(arrived) == {"first", "second"}


def test_no_reading_is_too_long_or_of_a_wrong_encoding(devices, language):
    """More than 64 KiB, and more than a gateway takes by default, which is for the gateway to say."""
    script = {"x" * 100_000: [], "y" * 300_000: [413], "k\xf6lsch": [], "last": []}
    code, said, requests = devices.meet(language, script)
    assert [request.reading for request in requests] == list(script) and code == 1, said[:1000]


def test_every_authority_of_the_bundle_is_trusted(devices, language):
    bundle = devices.home / "bundle.pem"
    bundle.write_text("".join((devices.home / pki / "ca.pem").read_text() for pki in ("other", "pki")))
    with ScriptedServer(devices.home / "pki", {}) as server:
        code, said = devices.post(language, server.server_port, ["a reading"], ca="bundle.pem")
    assert code == 0, said


def test_no_two_readings_have_one_key_however_long_the_boot_id(devices, language):
    with ScriptedServer(devices.home / "pki", {}) as server:
        code, said = devices.post(language, server.server_port, ["a", "b"], boot="b" * 50)
        assert [request.key for request in server.requests] == [f"{'b' * 50}-00000{number}" for number in (1, 2)] and code == 0, said
        code, said = devices.post(language, server.server_port, ["a", "b"], boot="b" * 51)
        assert code == 2 and "BOOT has 50 characters at most" in said and len(server.requests) == 2


def test_a_program_says_how_it_is_used(devices, language):
    code, said = devices.misused(language)
    assert code == 2 and re.fullmatch(r"usage: .+ CA CERTIFICATE KEY BOOT <readings.*\n", said), said
    where = ["localhost", "1"] if language == "c" else ["https://localhost:1"]
    code, said = devices.misused(language, *where, "missing.pem", "missing.pem", "missing.key", "boot-7")
    assert code == 2 and "missing" in said and "Traceback" not in said, said
