"""The contract, docs/openapi.json, and those of the front doors: that each is valid, and that the gateway keeps it: against
whatever schemathesis makes of it, and against docs/postman, which newman runs as a device."""

import json
import os
import re
import urllib.request
from collections import Counter

import jsonschema
import pytest
from conftest import FOREBAY, ROOT, Gateway, run, tool

CONTRACT = json.loads((ROOT / "docs/openapi.json").read_text())
COLLECTION = ROOT / "docs/postman/forebay.postman_collection.json"
DOORS = ROOT / "docs/postman/front-doors.postman_collection.json"
DOOR_CONTRACTS = {door: ROOT / f"docs/openapi-{door}.json" for door in ("iot-core", "iot-hub", "otlp")}
# Requests by the certificate that they need; each is named after its answer: status and, where there is one, the code.
FOLDERS = {folder["name"]: [request["name"] for request in folder["item"]]
           for folder in json.loads(COLLECTION.read_text())["item"]}

# What no device brings about by itself: its certificate is revoked or expires after the handshake (before, there is no
# answer), the operator denies it, other devices or the stream are at fault, the gateway stops.
BEYOND_A_CLIENT = {
    "certificate-revoked", "device-denied", "certificate-expired", "sink-refused", "overloaded", "device-overloaded", "sink-unavailable",
    "draining", "device-table-full", "gateway-rate-limited", "ack-timeout",
}


def answers():
    """Each status that is a problem, and its answer."""
    return CONTRACT["components"]["responses"].items()


def examples(answer):
    return {code: example["value"] for code, example in answer["content"]["application/problem+json"]["examples"].items()}


def headers(answer):
    fields = answer.get("headers", {})
    return {name: CONTRACT["components"]["headers"][name] if "$ref" in field else field for name, field in fields.items()}


def test_the_contract_is_valid():
    run(tool("openapi-spec-validator"), "--errors", "all", ROOT / "docs/openapi.json")
    assert CONTRACT["openapi"].startswith("3.1.")


@pytest.mark.parametrize("door", DOOR_CONTRACTS)
def test_the_contract_of_a_door_is_valid(door):
    run(tool("openapi-spec-validator"), "--errors", "all", DOOR_CONTRACTS[door])
    assert json.loads(DOOR_CONTRACTS[door].read_text())["openapi"].startswith("3.1.")


def test_the_admin_address_serves_it(gateway):
    with urllib.request.urlopen(f"http://{gateway.admin}/openapi.json", timeout=10) as answer:
        assert answer.headers["content-type"] == "application/json" and json.load(answer) == CONTRACT


def test_every_path_wants_a_certificate_and_has_every_answer():
    (scheme,) = CONTRACT["security"]
    assert CONTRACT["components"]["securitySchemes"][next(iter(scheme))]["type"] == "mutualTLS"
    for name, path in CONTRACT["paths"].items():
        operation = path["post"]
        assert "security" not in operation, "it would stand in the place of the certificate"
        assert set(operation["responses"]) == {"204", *(status for status, _ in answers())}
        named = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "header"}
        of_many = {"forebay-record-type"} if name.endswith("/records") else set()
        assert named == {"idempotency-key", "traceparent", "content-encoding"} | of_many


def test_examples_are_what_the_contract_says():
    """Also that each status has only its own codes, and each code its example."""
    seen = set()
    for status, answer in answers():
        schema = answer["content"]["application/problem+json"]["schema"] | {"components": CONTRACT["components"]}
        for code, problem in examples(answer).items():
            jsonschema.validate(problem, schema, cls=jsonschema.Draft202012Validator)
            assert (problem["code"], str(problem["status"])) == (code, status)
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(problem | {"status": 418}, schema)
            seen.add(code)
    assert seen == set(CONTRACT["components"]["schemas"]["Problem"]["properties"]["code"]["enum"])


def test_fields_are_described_and_their_examples_fit():
    accepted = CONTRACT["paths"]["/v1/telemetry"]["post"]["responses"]["204"]
    for status, answer in [("204", accepted), *answers()]:
        assert "alt-svc" in headers(answer), status
        for name, field in headers(answer).items():
            assert field["description"], f"{status}: nobody says what {name} means"
            jsonschema.validate(field["example"], field["schema"])
    required = {status: {name for name, field in headers(answer).items() if field.get("required")} for status, answer in answers()}
    assert {status: names for status, names in required.items() if names} == {
        "405": {"allow"}, "429": {"retry-after", "ratelimit", "ratelimit-policy"}, "503": {"retry-after"}}


def counts(gateway):
    """Answers by status, as the gateway has counted them."""
    lines = re.findall(r'^forebay_http_requests_total\{.*status="(\d+)"\} (\d+)$', gateway.ask_admin("/metrics"), flags=re.M)
    return sum((Counter({status: int(count)}) for status, count in lines), Counter())


def pose(gateway, contract, hooks, folder):
    """Has schemathesis ask whatever a contract allows or forbids, and counts the answers by status. Deterministic: what fails
    once fails again."""
    before = counts(gateway)
    ca, certificate, key = gateway.files()
    run(tool("schemathesis"), "run", contract, "--url", f"https://localhost:{gateway.port}",
        "--tls-verify", ca, "--request-cert", certificate, "--request-cert-key", key, "--checks", "all",
        "--max-examples", "50", "--generation-deterministic", "--no-color", cwd=folder,
        env=os.environ | {"SCHEMATHESIS_HOOKS": hooks, "PYTHONPATH": str(ROOT / "tests/deploy")})
    return counts(gateway) - before


def test_the_gateway_keeps_the_contract(gateway, folder):
    posed = pose(gateway, f"http://{gateway.admin}/openapi.json", "many_readings", folder)
    assert posed.total() > 100 and set(posed) == {"204", "400", "403", "404", "405", "415"}, posed


@pytest.fixture(scope="module")
def with_doors(folder):
    home = folder / "posed"
    home.mkdir()
    gateway = Gateway(home, FOREBAY_FRONT_DOORS="iot-core,iot-hub,otlp", FOREBAY_TOPICS="#=telemetry",
                      FOREBAY_OTLP_STREAMS="logs=telemetry,metrics=telemetry,traces=telemetry", FOREBAY_DEVICE_RATE="0")
    yield gateway
    assert gateway.stop() == 0, "".join(gateway.log)


@pytest.mark.parametrize("door", DOOR_CONTRACTS)
def test_the_gateway_keeps_the_contract_of_a_door(with_doors, folder, door):
    posed = pose(with_doors, DOOR_CONTRACTS[door], "front_doors", folder)
    assert posed.total() > 50 and {"204" if door == "iot-hub" else "200", "400", "405"} <= set(posed), posed


def test_the_collection_has_every_answer_that_a_client_can_bring_about():
    every = {(status, code) for status, answer in answers() for code in examples(answer)}
    beyond = {(status, code) for status, code in every if code in BEYOND_A_CLIENT}
    assert len(beyond) == len(BEYOND_A_CLIENT), "one of them is no code"
    asked = {tuple(name.split()[:2]) for names in FOLDERS.values() for name in names if not name.startswith("204 ")}
    assert asked == every - beyond


@pytest.fixture(scope="module")
def limited(folder):
    """A device that has sent 40 readings waits for minutes, a body that dawdles for a second."""
    home = folder / "contract"
    home.mkdir()
    (home / "judged.toml").write_text("schema = 'judged.json'\ndevice_field = '/device'\n")
    (home / "judged.json").write_text('{"properties": {"temperature": {"type": "number"}}}')
    gateway = Gateway(home, FOREBAY_BODY_TIMEOUT="1s", FOREBAY_DEVICE_RATE="0.01", FOREBAY_DEVICE_BURST="40",
                      FOREBAY_STREAMS="telemetry,judged", FOREBAY_STREAM_RULES=f"judged={home / 'judged.toml'}")
    run(FOREBAY, "pki", "device", "--dir", home / "pki", "--days", "1", "expiring")
    make_nameless(home / "pki")
    yield gateway
    assert gateway.stop() == 0, "".join(gateway.log)


def make_nameless(pki):
    """A certificate in which there is no device id: `forebay pki` makes none."""
    key, request, extensions = (pki / f"devices/nameless.{kind}" for kind in ("key", "csr", "ext"))
    extensions.write_text("extendedKeyUsage=clientAuth\n")
    run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key,
        "-subj", "/O=Devices", "-out", request)
    run("openssl", "x509", "-req", "-in", request, "-CA", pki / "ca.pem", "-CAkey", pki / "ca.key", "-set_serial", "7",
        "-days", "1", "-extfile", extensions, "-out", pki / "devices/nameless.pem")


def newman(gateway, device, collection, *options):
    """Runs a collection as a device, and returns the names of the requests whose assertions held; each has some."""
    ca, certificate, key = gateway.files(device)
    report = gateway.folder / f"{device}.json"
    run(tool("newman"), "run", collection, *options, "--env-var", f"port={gateway.port}", "--env-var", "host=127.0.0.1",
        "--ssl-client-cert", certificate, "--ssl-client-key", key, "--ssl-extra-ca-certs", ca,
        "--timeout-request", "30000", "--reporters", "cli,json", "--reporter-json-export", report)
    result = json.loads(report.read_text())["run"]
    assert result["failures"] == []
    return {done["item"]["name"] for done in result["executions"] if done.get("assertions")}


@pytest.mark.parametrize("kind, device", list(zip(FOLDERS, ["plc-7", "expiring", "nameless"], strict=True)))
def test_the_collection_finds_what_it_expects(limited, kind, device):
    asserted = newman(limited, device, COLLECTION, "--folder", kind)
    assert asserted == set(FOLDERS[kind]), "a request without an assertion"


def test_the_collection_of_front_doors_finds_what_it_expects(folder):
    home = folder / "doors"
    home.mkdir()
    gateway = Gateway(home, FOREBAY_FRONT_DOORS="iot-core,iot-hub,otlp", FOREBAY_TOPICS="dt/+/telemetry=telemetry",
                      FOREBAY_OTLP_STREAMS="logs=telemetry")
    asserted = newman(gateway, "plc-7", DOORS, "--env-var", "device=plc-7")
    assert gateway.stop() == 0, "".join(gateway.log)
    doors = json.loads(DOORS.read_text())["item"]
    assert asserted == {request["name"] for door in doors for request in door["item"]}
