"""The live page as a person sees it: in a real Chromium without a screen, beside a real gateway and a real broker. Pictures of it are
left in target/page."""

import json
import re
import ssl
import threading
import urllib.request
from contextlib import contextmanager, suppress
from http.client import HTTPSConnection

import pytest
from conftest import FOREBAY, PATIENCE, ROOT, TOOLS, Gateway, eventually, free_port, run
from playwright.sync_api import expect
from processes import Broker

PICTURES = ROOT / "target/page"
SIZES = {375: 812, 1280: 800, 3840: 2160}
THEMES = ("light", "dark")
AXE = TOOLS / "axe/node_modules/axe-core/axe.min.js"
HOSTILE = "<img src=x onerror=alert(1)>"

# Changes what the page is told, on its way: window.change is called with each object.
CHANGE = """
window.EventSource = class extends window.EventSource {
  set onmessage(hear) {
    super.onmessage = event => {
      const frame = JSON.parse(event.data);
      window.change(frame);
      hear({data: JSON.stringify(frame)});
    };
  }
};
"""


@pytest.fixture(scope="module")
def broker(folder):
    home = folder / "page-broker"
    home.mkdir()
    broker = Broker(home)
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def home(folder):
    home = folder / "page"
    home.mkdir()
    return home


@pytest.fixture(scope="module")
def served(home, broker):
    """A gateway before the broker; it notices within seconds that nobody answers there."""
    gateway = Gateway(
        home, FOREBAY_SINK="kafka", FOREBAY_FILE_DIR=None, FOREBAY_KAFKA_BOOTSTRAP_SERVERS=broker.address,
        FOREBAY_ACK_TIMEOUT="1s", FOREBAY_KAFKA_SOCKET_TIMEOUT_MS="2000", FOREBAY_DEVICE_RATE="1000", FOREBAY_DEVICE_BURST="1000")
    yield gateway
    gateway.stop()


@contextmanager
def opened(browser, gateway, script=None, silent=True, **options):
    """A page that has heard of its gateway. It must have had nothing to say on the console, unless it may."""
    context = browser.new_context(**options)
    page = context.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
    if script:
        page.add_init_script(CHANGE + script)
    page.goto(f"http://{gateway.admin}/")
    expect(page.locator("#state:not([data-state=connecting]), #why li").first).to_be_visible()
    try:
        yield page
    finally:
        context.close()
    assert not said or not silent, said


def shows(page, text):
    """Waits until the band has this word."""
    expect(page.locator("#word")).to_have_text(text, timeout=60_000)


def post(gateway, readings=1, body=b'{"temperature":21.5}', **device):
    """The statuses that they were answered with."""
    connection = HTTPSConnection("127.0.0.1", gateway.port, context=gateway.tls(**device), timeout=20)
    try:
        return [answer(connection, body) for _ in range(readings)]
    finally:
        connection.close()


def answer(connection, body):
    connection.request("POST", "/v1/telemetry", body, {"content-type": "application/json"})
    response = connection.getresponse()
    response.read()
    return response.status


def metrics(gateway):
    """The sum of all series of each name whose labels have been chosen."""
    def total(name, labels=""):
        lines = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", gateway.ask_admin("/metrics"), flags=re.M)
        return sum(float(value) for found, value in lines if re.search(labels, found))
    return {
        "accepted_total": total("forebay_http_requests_total", 'status="2'),
        "refused_total": total("forebay_http_requests_total", 'status="[4o]'),
        "failed_total": total("forebay_http_requests_total", 'status="5'),
        "connections": total("forebay_http_connections"),
        "h1": total("forebay_http_connections", 'protocol="h1"'),
        "connections_max": total("forebay_http_connections_max"),
        "reserved": total("forebay_admission_bytes"),
        "reserved_max": total("forebay_admission_bytes_max"),
        "devices": total("forebay_limits_devices"),
        "in_flight": total("forebay_sink_in_flight_batches"),
        "queued": total("forebay_batcher_queued_batches"),
        "spool_records": total("forebay_spool_records"),
        "dead_letters": total("forebay_spool_dead_letter_records"),
        "expiring": total("forebay_identity_certificates_expiring_total"),
    }


def figures(page):
    """What the page has, exact: each figure is spelled for people and has its value for programs."""
    values = page.evaluate("Object.fromEntries([...document.querySelectorAll('[data-v]')].map(e => [e.dataset.v, e.value]))")
    return {name: float(value) for name, value in values.items() if value != ""}


def faults(page):
    """What axe-core finds that is serious."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")["violations"]
    return [(fault["id"], fault["nodes"][0]["html"]) for fault in found if fault["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("theme", THEMES)
def test_it_is_drawn_at_every_width(browser, served, theme):
    PICTURES.mkdir(parents=True, exist_ok=True)
    assert set(post(served, 30)) == {204}
    for width, height in SIZES.items():
        size = {"width": width, "height": height}
        with opened(browser, served, viewport=size, color_scheme=theme) as page:
            shows(page, "Healthy")
            expect(page.locator("#set tr").nth(40)).to_be_attached()
            page.screenshot(path=PICTURES / f"{theme}-{width}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, "it runs out of the window"
            background = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (background == "rgb(17, 21, 26)") == (theme == "dark"), background
            assert width == 3840 or faults(page) == []


def test_figures_are_those_of_metrics(browser, served):
    with opened(browser, served) as page:
        assert set(post(served, 20)) == {204}
        assert post(served, body=b"") == [400]
        told = eventually("the same figures at the same time", lambda: same(page, served))
        assert told["accepted_total"] >= 20 and told["refused_total"] >= 1 and told["connections"] == 0
        ended = page.locator("#busiest tr").first
        assert ended.locator("th").text_content() == "plc-7"
        assert page.locator("#streams tr").first.text_content().startswith("✓ uptelemetry")


def same(page, gateway):
    """What page and gateway agree on, if they agree on everything."""
    shown, told = figures(page), metrics(gateway)
    return told if {name: shown.get(name) for name in told} == told else None


def test_rates_are_those_of_the_last_second(browser, served):
    """A device posts without a pause: what the page shows a second is by how much its total has grown since the last frame."""
    ends = threading.Event()

    def go_on():
        while not ends.is_set():
            post(served, 20)

    device = threading.Thread(target=go_on)
    device.start()
    try:
        with opened(browser, served) as page:
            seen = page.evaluate("""() => new Promise(resolve => {
                const value = name => Number(document.querySelector(`[data-v=${name}]`).value);
                const seen = [];
                new MutationObserver(() => {
                  seen.push([value("accepted_total"), value("accepted")]);
                  if (seen.length === 4) resolve(seen);
                }).observe(document.getElementById("heard"), {characterData: true, childList: true, subtree: true});
            })""")
    finally:
        ends.set()
        device.join()
    for (before, _), (after, rate) in zip(seen[1:], seen[2:]):
        # Mutations are told after the whole frame has been drawn; a second is not exact.
        assert rate > 0 and (after - before) / 2 <= rate <= (after - before) * 2, seen


def test_devices_whose_certificates_end_are_told_until_they_have_others(browser, served, home):
    def visits(days):
        for kind in ("pem", "key"):
            (home / f"pki/devices/press-9.{kind}").unlink(missing_ok=True)
        run(FOREBAY, "pki", "device", "--dir", home / "pki", "--days", str(days), "press-9")
        assert set(post(served, device="press-9")) == {204}

    rows = "#expiring tr"
    with opened(browser, served) as page:
        expect(page.locator(rows)).to_have_text(re.compile("of no device"))
        visits(days=1)
        expect(page.locator(rows)).to_have_count(1)
        expect(page.locator(rows).locator("th")).to_have_text("press-9")
        assert re.fullmatch(r"23 h \d+ min|1 d 0 h", page.text_content(f"{rows} td"))
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", page.text_content(f"{rows} td:last-child"))
        assert page.get_attribute(rows, "class") == "warn"
        page.screenshot(path=PICTURES / "expiring.png", full_page=True)
        assert faults(page) == []
        visits(days=90)
        expect(page.locator(rows)).to_have_text(re.compile("of no device"))


def test_of_many_certificates_that_end_the_first_are_told(browser, served):
    soon = [{"device": f"press-{number}" * 12, "not_after_ms": 1000 + number} for number in range(10)]
    change = f"window.change = frame => {{ frame.expiring = {{devices: 1024, next: {json.dumps(soon)}}}; }};"
    with opened(browser, served, change, viewport={"width": 375, "height": 812}) as page:
        expect(page.locator("#expiring tr")).to_have_count(10)
        assert page.locator("#expiring tr").first.text_content().endswith("ended1970-01-01")
        assert page.get_attribute("#expiring tr", "class") == "bad"
        assert page.text_content("#expiring-more") == "The first 10 of 1024 that have connected."
        page.screenshot(path=PICTURES / "expiring-375.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 375, "it runs out of the window"


def test_what_others_send_is_text(browser, served, home):
    """The names in a certificate that nobody has signed, and ids as no certificate could have them."""
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
        "-subj", f"/CN={HOSTILE}", "-keyout", home / "hostile.key", "-out", home / "hostile.pem")
    context = ssl.create_default_context(cafile=home / "pki/ca.pem")
    context.load_cert_chain(home / "hostile.pem", home / "hostile.key")
    with suppress(OSError):
        answer(HTTPSConnection("127.0.0.1", served.port, context=context, timeout=20), b"{}")
    row = json.dumps({"device": HOSTILE, "requests_min": 1, "requests_max": 2})
    change = f"""window.change = frame => {{
        frame.top.busiest.unshift({row});
        frame.expiring.next = [{{device: {json.dumps(HOSTILE)}, not_after_ms: 0}}];
        frame.state.reason = `the sink says ${{{json.dumps(HOSTILE)}}}`;
    }};"""
    with opened(browser, served, change) as page:
        shows(page, "Attention")
        expect(page.locator("#happened")).to_contain_text(HOSTILE)
        assert page.locator("#busiest th").first.text_content() == HOSTILE
        assert page.locator("#expiring th").first.text_content() == HOSTILE
        assert HOSTILE in page.text_content("#why")
        assert page.locator("body img").count() == 0


def test_it_can_be_used_by_keyboard(browser, served):
    with opened(browser, served) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "pause"
        page.keyboard.press("Enter")
        held = page.text_content("#heard")
        assert page.get_attribute("#pause", "aria-pressed") == "true"
        assert set(post(served, 3)) == {204}
        total = metrics(served)["accepted_total"]
        page.keyboard.press("Enter")
        expect(page.locator("#heard")).not_to_have_text(held)
        eventually("the figures go on", lambda: figures(page)["accepted_total"] == total)
        reached = set()
        for _ in range(20):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.getAttribute('href')"))
        assert {"find", "/metrics"} <= reached, reached
        page.fill("#find", "listen")
        assert page.text_content("#found") == "2 of " + str(page.locator("#set tr").count())


def test_one_page_too_many_is_told_so(browser, served):
    # The page of the test before may not have been missed yet.
    eventually("nobody who watches", lambda: "\nforebay_admin_watchers 0\n" in served.ask_admin("/metrics"))
    watchers = [urllib.request.urlopen(f"http://{served.admin}/live", timeout=PATIENCE) for _ in range(16)]
    try:
        # The browser itself says on the console that the answer is no stream.
        with opened(browser, served, silent=False) as page:
            shows(page, "Connecting")
            expect(page.locator("#why")).to_contain_text("16 watch the live page already")
            for watcher in watchers:
                watcher.close()
            shows(page, "Healthy")
    finally:
        for watcher in watchers:
            watcher.close()


def test_a_sink_that_is_away_is_seen_and_seen_to_be_back(browser, served, broker):
    with opened(browser, served) as page:
        shows(page, "Healthy")
        broker.pause()
        try:
            with suppress(OSError):
                post(served)
            shows(page, "Down")
            assert "telemetry" in page.text_content("#why a")
            assert page.locator("#streams tr").first.text_content().startswith("✕ away")
            assert "bad" in page.get_attribute("#sink", "class")
            page.screenshot(path=PICTURES / "away.png")
            assert faults(page) == []
        finally:
            broker.resume()
        shows(page, "Healthy")
        assert page.locator("#streams tr").first.text_content().startswith("✓ up")


def test_a_gateway_that_is_gone_is_seen_and_seen_to_be_back(browser, folder):
    home = folder / "page-gone"
    home.mkdir()
    admin = f"127.0.0.1:{free_port()}"
    first = Gateway(home, FOREBAY_ADMIN_LISTEN=admin)
    # The browser itself says on the console that nobody is there.
    with opened(browser, first, silent=False) as page:
        shows(page, "Healthy")
        first.process.kill()
        first.process.wait()
        shows(page, "No answer")
        assert re.search(r"does not answer since \d\d:\d\d:\d\d;", page.text_content("#why"))
        page.screenshot(path=PICTURES / "gone.png")
        assert faults(page) == []
        second = Gateway(home, FOREBAY_ADMIN_LISTEN=admin)
        try:
            shows(page, "Healthy")
            assert page.text_content("#why") == ""
        finally:
            second.stop()
