"""Rules, alerts and the dashboard, against a real Prometheus that scrapes a real gateway which devices post to."""

import http.client
import json
import re
import urllib.error

import pytest
import yaml
from conftest import DEPLOY, ROOT, Gateway, eventually, run, tool
from processes import RULES, Prometheus

DASHBOARD = DEPLOY / "grafana/dashboards/forebay.json"

# What has no sample where no spool fills.
EMPTY = re.compile(r"spool_full:seconds|spool_fill|deriv|clamp")


def panels():
    dashboard = json.loads(DASHBOARD.read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries():
    """Every expression that somebody would ask for, and whether it must have samples."""
    for panel in panels():
        for target in panel["targets"]:
            expr = target["expr"].replace("$__rate_interval", "1m").replace("$job", ".+").replace("$instance", ".+")
            yield panel["title"], expr, True
    for file in RULES:
        for rule in [rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]:
            name = rule.get("record") or rule["alert"]
            # One or six hours of samples are not to be had here: a rate over them needs two samples, no more.
            yield name, rule["expr"], "record" in rule


@pytest.fixture(scope="module")
def observed(folder):
    """A gateway with good, refused and limited devices, and a Prometheus that has seen them."""
    home = folder / "observed"
    home.mkdir()
    gateway = Gateway(home, FOREBAY_DEVICE_RATE="20", FOREBAY_DEVICE_BURST="20", FOREBAY_SPOOL_DIR=str(home / "spool"))
    prometheus = Prometheus(home, gateway)
    try:
        seen = set()

        def enough():
            seen.update(post(gateway, 30))
            delivered = prometheus.ask('sum(rate(forebay_http_requests_total{status="204"}[1m])) > 0')
            rates = ("job:forebay_http_request_duration_seconds:p99_5m", "job:forebay_tls_handshakes_refused:ratio_rate5m")
            return delivered and all(prometheus.ask(f"{rate} >= 0") for rate in rates)

        eventually("rates of what was posted", enough)
        assert seen == {204, 429}, "devices were served, and limited"
        yield gateway, prometheus
    finally:
        prometheus.stop()
        gateway.stop()


@pytest.fixture(scope="module")
def prometheus(observed):
    return observed[1].ask


def post(gateway, count, device="plc-7", body=b'{"n": 1}'):
    """The statuses of so many readings, over one connection."""
    connection = http.client.HTTPSConnection("127.0.0.1", gateway.port, context=gateway.tls(device))
    for _ in range(count):
        connection.request("POST", "/v1/telemetry", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        yield answer.status


def test_rules_fire_when_they_should():
    run(tool("promtool"), "check", "config", DEPLOY / "prometheus/prometheus.yml")
    run(tool("promtool"), "test", "rules", *sorted((DEPLOY / "prometheus/tests").glob("*.yml")))


def test_every_alert_has_a_test_and_a_section_in_the_runbook():
    tests = "".join(file.read_text() for file in (DEPLOY / "prometheus/tests").glob("*.yml"))
    page = (ROOT / "docs/operations.md").read_text()
    anchors = {re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
               for line in page.splitlines() if line.startswith("#")}
    for rule in [rule for group in yaml.safe_load(RULES[1].read_text())["groups"] for rule in group["rules"]]:
        assert f"alertname: {rule['alert']}" in tests and "exp_labels" in tests, f"{rule['alert']} has no test"
        page, anchor = rule["annotations"]["runbook_url"].split("#")
        assert page == "https://docs.example.com/forebay/operations.html" and anchor in anchors, f"{rule['alert']}: no section #{anchor}"


def test_every_query_parses_and_finds_what_it_asks_for(prometheus):
    faults, asked = [], 0
    for name, expr, has_samples in queries():
        asked += 1
        try:
            result = prometheus(expr)
        except urllib.error.HTTPError as error:
            faults.append(f"{name}: {expr}: {error.read().decode()}")
            continue
        if has_samples and not result and not EMPTY.search(expr):
            faults.append(f"{name}: {expr}: no samples")
    assert asked > 50 and not faults, "\n".join(faults)


def test_queries_name_only_metrics_that_the_gateway_has(observed):
    """Also those that are empty here: an alert on a metric that nobody writes would never fire."""
    exposed = {line.split()[2] for line in observed[0].ask_admin("/metrics").splitlines()
               if line.startswith("# TYPE")}
    for name, expr, _ in queries():
        for metric in re.findall(r"(?<![:\w])forebay_\w+", expr):
            base = re.sub(r"_(bucket|sum|count)$", "", metric)
            assert metric in exposed or base in exposed, f"{name}: {metric}"


def test_an_alert_is_firing_only_where_it_should(prometheus):
    """This fleet has a device over its limit, and nothing else is wrong."""
    pending = {sample["metric"]["alertname"] for sample in prometheus("ALERTS")}
    assert pending <= {"ForebayDeviceHot", "ForebaySlow"}, pending


def crl_that_ends_at_once(pki):
    """The authority's next list, by OpenSSL, which is due a second after it is made."""
    (pki / "index.txt").touch()
    (pki / "number").write_text("7FFFFFFF\n")
    (pki / "ca.cnf").write_text(
        "[ca]\ndefault_ca = crl\n[crl]\ndatabase = index.txt\ncrlnumber = number\ndefault_md = sha256\ncrl_extensions = crl_extensions\n"
        "[crl_extensions]\nauthorityKeyIdentifier = keyid\n")
    run("openssl", "ca", "-config", "ca.cnf", "-gencrl", "-crlsec", "1", "-keyfile", "ca.key", "-cert", "ca.pem", "-out", "ended.pem", cwd=pki)
    (pki / "ended.pem").rename(pki / "crl.pem")


def test_panels_have_places_and_descriptions():
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    assert len(places) == len(set(places)) > 20
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
