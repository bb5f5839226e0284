// The live page: listens to the gateway's stream and draws what it says. Texts are set as text, never as markup.

import { bar, cells, emptySpark, rows, setText, span, spark } from "./draw.js";
import * as f from "./figures.js";
import { SPOOL_WINDOW, WORDS, codes, ends, growth, judge, list, why } from "./state.js";

const SILENCE_MS = 5000; // a frame comes each second: after so long the gateway does not answer
const RETRY_MS = 2000;
const PROTOCOLS = { h1: "HTTP/1.1", h2: "HTTP/2", h3: "HTTP/3" };
const RECENT = 10; // seconds that a mean or a quantile is made of

const byId = (id) => document.getElementById(id);
const values = new Map([...document.querySelectorAll("[data-v]")].map((element) => [element.dataset.v, element]));
const histories = new Map();
let frames = new f.Frames();
let paused = false;
let heardAt = Date.now();
let version;

// ---- the stream ----

async function listen() {
  for (;;) {
    await hear();
    lost(await whyNot());
    await new Promise((resume) => setTimeout(resume, RETRY_MS));
  }
}

// Takes frames until the stream breaks, or falls silent.
function hear() {
  return new Promise((end) => {
    const stream = new EventSource("/live");
    let timer;
    const stop = () => {
      clearTimeout(timer);
      stream.close();
      end();
    };
    const wait = () => {
      clearTimeout(timer);
      timer = setTimeout(stop, SILENCE_MS);
    };
    stream.onmessage = ({ data }) => {
      wait();
      take(JSON.parse(data));
    };
    stream.onerror = stop;
    wait();
  });
}

// What a gateway says that answers and tells no more watchers; nothing where it does not answer.
async function whyNot() {
  const question = new AbortController();
  const timer = setTimeout(() => question.abort(), SILENCE_MS);
  try {
    const answer = await fetch("/live", { signal: question.signal, cache: "no-store" });
    return answer.ok ? "" : (await answer.text()).trim();
  } catch {
    return "";
  } finally {
    clearTimeout(timer);
    question.abort();
  }
}

function take(frame) {
  if (version && version !== frame.state.version) return location.reload();
  if (!frames.last || document.body.dataset.stale) settings();
  version = frame.state.version;
  heardAt = Date.now();
  delete document.body.dataset.stale;
  const scrape = new f.Scrape(frame);
  frames.push(scrape);
  const verdict = judge(frames);
  band(verdict);
  remember(scrape);
  if (!paused) draw(scrape, verdict);
}

function lost(crowd) {
  const since = f.clock(new Date(heardAt));
  document.body.dataset.stale = "true";
  const text = crowd
    ? `This page is not told anything: ${crowd}`
    : `The gateway does not answer since ${since}; asking again every ${RETRY_MS / 1000} s. The figures are those of then.`;
  band({ state: crowd ? "connecting" : "gone", reasons: [{ panel: "", text }] });
}

// ---- the band at the top ----

function band({ state, reasons }) {
  const header = byId("state");
  if (header.dataset.state !== state) header.dataset.state = state;
  setText(byId("word"), WORDS[state]);
  document.title = `${WORDS[state]} · Forebay ${location.host}`;
  rows(byId("why"), reasons.slice(0, 6), "li", (item, { panel, text, isBad }) => {
    if (!item.firstChild) item.append(document.createElement("a"));
    const link = item.firstChild;
    if (panel) link.href = `#${panel}`;
    else link.removeAttribute("href");
    setText(link, text);
    item.className = isBad ? "bad" : "";
  });
  for (const section of document.querySelectorAll("main section")) {
    const own = reasons.filter(({ panel }) => panel === section.id);
    const level = own.length === 0 ? "" : own.some(({ isBad }) => isBad) ? "bad" : "warn";
    section.classList.toggle("bad", level === "bad");
    section.classList.toggle("warn", level === "warn");
  }
}

// ---- the panels ----

// Keeps what sparklines show, also while the page is paused.
function remember(scrape) {
  const requests = "forebay_http_requests_total";
  const handshakes = "forebay_tls_handshakes_total";
  const kept = {
    requests: frames.rate(requests),
    accepted: frames.rate(requests, { status: f.accepted }),
    refused: frames.rate(requests, { status: f.refused }),
    failed: frames.rate(requests, { status: f.failed }),
    p50: frames.quantile("forebay_http_request_duration_seconds", 0.5, RECENT),
    p99: frames.quantile("forebay_http_request_duration_seconds", 0.99, RECENT),
    connections: scrape.sum("forebay_http_connections"),
    handshakes: frames.rate(handshakes, { result: f.greeted }),
    handshakes_failed: frames.rate(handshakes, { result: f.turnedAway }),
    sealed: frames.rate("forebay_batcher_sealed_total"),
    spool_bytes: scrape.sum("forebay_spool_bytes"),
    resident: scrape.sum("process_resident_memory_bytes"),
    cores: frames.rate("process_cpu_seconds_total"),
  };
  for (const { name } of scrape.frame.state.streams)
    kept[`stream ${name}`] = frames.rate("forebay_sink_records_total", { stream: name, outcome: "delivered" });
  for (const [name, value] of Object.entries(kept)) {
    if (!histories.has(name)) histories.set(name, []);
    const history = histories.get(name);
    history.push(value);
    if (history.length > f.Frames.SECONDS) history.shift();
  }
}

const newest = (name) => histories.get(name)?.at(-1) ?? null;

function draw(scrape, verdict) {
  facts(scrape);
  readings(scrape, verdict);
  connections(scrape);
  sink(scrape);
  batches(scrape);
  spool(scrape);
  memory(scrape);
  certificates(scrape);
  devices(byId("busiest"), scrape.frame.top.busiest);
  devices(byId("refused"), scrape.frame.top.refused);
  happened(scrape.frame.events);
  for (const svg of document.querySelectorAll("[data-spark]")) spark(svg, histories.get(svg.dataset.spark) ?? []);
}

function facts(scrape) {
  setText(byId("version"), scrape.frame.state.version);
  setText(byId("uptime"), f.duration(scrape.at - scrape.sum("process_start_time_seconds")));
  setText(byId("heard"), f.clock(new Date(scrape.frame.state.at_ms)));
}

function readings(scrape) {
  const requests = "forebay_http_requests_total";
  show("requests", newest("requests"), f.number);
  for (const kind of ["accepted", "refused", "failed"]) {
    show(kind, newest(kind), f.number);
    show(`${kind}_total`, scrape.sum(requests, { status: f[kind] }), f.count);
  }
  rows(byId("protocols"), Object.entries(PROTOCOLS), "tr", (row, [protocol, name]) => {
    const rate = (status) => f.number(frames.rate(requests, { protocol, status }));
    cells(row, [name, rate(f.accepted), rate(f.refused), rate(f.failed)]);
  });
  const refusals = codes(frames);
  setText(byId("codes"), refusals ? `Refused and failed for: ${refusals}` : "");
  show("p50", newest("p50"), f.milliseconds);
  show("p99", newest("p99"), f.milliseconds);
}

function connections(scrape) {
  const open = scrape.sum("forebay_http_connections");
  const max = scrape.sum("forebay_http_connections_max");
  show("connections", open, f.count);
  show("connections_max", max, f.count);
  bar("connections", open, max);
  for (const protocol of Object.keys(PROTOCOLS))
    show(protocol, scrape.sum("forebay_http_connections", { protocol }), f.count);
  show("handshakes", newest("handshakes"), f.number);
  show("handshakes_failed", newest("handshakes_failed"), f.number);
  const reasons = why(frames);
  setText(byId("handshake-reasons"), reasons ? `Come to nothing for: ${reasons}` : "");
}

function sink(scrape) {
  const records = "forebay_sink_records_total";
  const failing = (outcome) => outcome !== "delivered";
  const { streams } = scrape.frame.state;
  const trouble = ({ name, reason }) => {
    const away = scrape.sum("forebay_sink_partitions_away", { stream: name });
    return reason ?? (away ? `${away} partitions are away` : "");
  };
  rows(byId("sink-notes"), streams.filter(trouble), "p", (note, stream) => {
    note.className = "note";
    setText(note, `${stream.name}: ${trouble(stream)}`);
  });
  rows(byId("streams"), streams, "tr", (row, stream) => {
    const { name } = stream;
    const isUp = scrape.sum("forebay_sink_up", { stream: name }) === 1;
    const state = isUp && !trouble(stream) ? "up" : isUp ? "in part" : "away";
    cells(row, ["", f.number(newest(`stream ${name}`)), null, f.number(frames.rate(records, { stream: name, outcome: failing }))]);
    const head = row.cells[0];
    if (!head.firstChild) head.append(...["mark", "name"].map(span));
    const [sign, label] = head.children;
    sign.className = `mark ${{ up: "good", "in part": "warn", away: "bad" }[state]}`;
    setText(sign, { up: "✓ up", "in part": "▲ in part", away: "✕ away" }[state]);
    setText(label, name);
    const cell = row.cells[2];
    if (!cell.firstChild) cell.append(emptySpark(`stream ${name}`));
  });
  show("sink_p99", frames.quantile("forebay_sink_duration_seconds", 0.99, RECENT), f.milliseconds);
  show("in_flight", scrape.sum("forebay_sink_in_flight_batches"), f.count);
}

function batches(scrape) {
  show("sealed", newest("sealed"), f.number);
  show("batch_records", frames.mean("forebay_batcher_batch_records", RECENT), f.number);
  show("batch_bytes", frames.mean("forebay_batcher_batch_bytes", RECENT), f.bytes);
  show("queued", scrape.sum("forebay_batcher_queued_batches"), f.count);
  const seals = list(frames.rates("forebay_batcher_sealed_total", "reason", RECENT));
  setText(byId("seals"), seals ? `Sealed for: ${seals}` : "");
}

function spool(scrape) {
  const max = scrape.sum("forebay_spool_bytes_max");
  const taken = scrape.sum("forebay_spool_bytes");
  const grows = max ? growth(frames) : null;
  show("spool_records", scrape.sum("forebay_spool_records"), f.count);
  show("spool_bytes", taken, f.bytes);
  show("spool_max", max || null, f.bytes);
  show("spool_growth", grows, f.bytes);
  bar("spool", taken, max);
  setText(byId("spool-end-name"), grows < 0 ? "empty in" : "full in");
  const end = grows > 0 ? (max - taken) / grows : grows < 0 ? taken / -grows : null;
  show("spool_end", end, f.duration);
  show("dead_letters", scrape.sum("forebay_spool_dead_letter_records"), f.count);
  const none = "There is no spool (FOREBAY_SPOOL_DIR): while the sink is away, devices are told to come again.";
  setText(byId("spool-note"), max ? `Growth and time are those of the last ${SPOOL_WINDOW} seconds.` : none);
}

function memory(scrape) {
  const [reserved, max] = [scrape.sum("forebay_admission_bytes"), scrape.sum("forebay_admission_bytes_max")];
  show("resident", scrape.sum("process_resident_memory_bytes"), f.bytes);
  show("reserved", reserved, f.bytes);
  show("reserved_max", max, f.bytes);
  bar("memory", reserved, max);
  show("cores", newest("cores"), (cores) => (cores === null ? "–" : cores.toFixed(2)));
  show("devices", scrape.sum("forebay_limits_devices"), f.count);
}

function certificates(scrape) {
  const until = (row, [name, end]) => {
    const left = end - scrape.at;
    cells(row, [name, end ? (left > 0 ? f.duration(left) : "ended") : "none", end ? f.day(new Date(end * 1000)) : "–"]);
    row.className = end && left < 7 * 86400 ? (left > 0 ? "warn" : "bad") : "";
  };
  rows(byId("ends"), ends(scrape), "tr", until);
  const { devices: expiring, next } = scrape.frame.expiring;
  const devices = next.map(({ device, not_after_ms }) => [device, not_after_ms / 1000]);
  rows(byId("expiring"), devices.length ? devices : [["of no device", 0]], "tr", until);
  setText(byId("expiring-more"), expiring > next.length ? `The first ${next.length} of ${f.count(expiring)} that have connected.` : "");
  show("expiring", scrape.sum("forebay_identity_certificates_expiring_total"), f.count);
  const failed = scrape.samples("forebay_tls_reload_ok").filter(({ value }) => value === 0);
  const what = failed.map(({ labels }) => labels.what).join(", ");
  setText(byId("reloads"), what ? `A changed file cannot be used: ${what}. The last good one is in force.` : "");
}

function devices(body, told) {
  const none = [{ device: "none", requests_min: null }];
  rows(body, told.length ? told : none, "tr", (row, { device, requests_min, requests_max }) => {
    const isExact = requests_min === requests_max;
    cells(row, [device, requests_min === null ? "–" : `${isExact ? "" : "≈ "}${f.count(requests_max)}`]);
  });
}

function happened(events) {
  rows(byId("happened"), events, "tr", (row, { at, event, device, address, subject, ...others }) => {
    const who = [device ?? subject, address].filter(Boolean).join(" · ");
    const details = Object.entries(others).map(([name, value]) => `${name} ${value}`);
    cells(row, [f.clock(new Date(at)), event, who || "–", details.join(", ")]);
  });
}

// ---- the settings ----

async function settings() {
  const answer = await fetch("/debug/settings", { cache: "no-store" }).catch(() => null);
  if (!answer?.ok) return;
  const lines = (await answer.text()).split("\n").filter(Boolean);
  rows(byId("set"), lines, "tr", (row, line) => {
    const [, name, value, from] = line.match(/^([^=]*)=(.*) # (.*)$/) ?? ["", line, "", ""];
    cells(row, [name, value, from]);
    row.className = /^(default|unset)/.test(from) ? "default" : "own";
  });
  find();
}

function find() {
  const sought = byId("find").value.trim().toLowerCase();
  let found = 0;
  for (const row of byId("set").rows) {
    row.hidden = !row.textContent.toLowerCase().includes(sought);
    found += row.hidden ? 0 : 1;
  }
  setText(byId("found"), `${found} of ${byId("set").rows.length}`);
}

// A figure, spelled for people and exact for programs.
function show(name, value, spell) {
  const element = values.get(name);
  setText(element, spell(value));
  element.value = value ?? "";
}

// ---- what people do ----

byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  setText(byId("pause"), paused ? "Go on" : "Pause");
});
byId("find").addEventListener("input", find);
setText(byId("place"), location.host);
listen();
