// What is wrong, if anything: one word for the whole gateway, and the reasons for it, the worst first.

import { bytes, count, duration, failed, greeted, number, refused, turnedAway } from "./figures.js";

const DAY = 86400;
const WINDOW = 10; // seconds that rates are looked at for
const FULL = 0.8; // the part of a bound from which it is told

export const WORDS = {
  connecting: "Connecting",
  healthy: "Healthy",
  attention: "Attention",
  down: "Down",
  draining: "Draining",
  gone: "No answer",
};

export const SPOOL_WINDOW = 30; // seconds that the spool's growth is looked at for

// How many bytes a second the spool grows; null where that is not known yet.
export function growth(frames) {
  const before = frames.before(SPOOL_WINDOW);
  if (!before) return null;
  const bytes = (scrape) => scrape.sum("forebay_spool_bytes");
  return (bytes(frames.last) - bytes(before)) / (frames.last.at - before.at);
}

// Certificates and lists, and when they end, in seconds since 1970; 0 where there is none.
export function ends(scrape) {
  return [
    ["Server certificate", scrape.sum("forebay_tls_certificate_expiry_timestamp_seconds")],
    ["Authority of devices", scrape.sum("forebay_tls_client_ca_expiry_timestamp_seconds")],
    ["Revocation list", scrape.sum("forebay_tls_crl_next_update_timestamp_seconds")],
  ];
}

// The state of the gateway and its reasons, each with the panel that shows more of it.
export function judge(frames) {
  const reasons = [...gateway(frames), ...answers(frames), ...bounds(frames), ...spool(frames), ...files(frames)];
  const isBad = reasons.some(({ isBad }) => isBad);
  reasons.sort((one, other) => other.isBad - one.isBad);
  if (frames.last.frame.state.draining) return { state: "draining", reasons };
  if (isBad) return { state: "down", reasons };
  return { state: reasons.length ? "attention" : "healthy", reasons };
}

const bad = (panel, text) => ({ panel, text, isBad: true });
const warning = (panel, text) => ({ panel, text, isBad: false });

function gateway({ last }) {
  const { draining, ready, reason } = last.frame.state;
  if (draining) return [warning("connections", "The gateway is leaving: devices are told to go elsewhere")];
  if (!ready) return [bad("sink", `No reading can be made safe: ${reason}`)];
  return reason ? [warning("sink", reason)] : [];
}

function answers(frames) {
  const reasons = [];
  const requests = "forebay_http_requests_total";
  const all = frames.rate(requests, {}, WINDOW) ?? 0;
  const failing = frames.rate(requests, { status: failed }, WINDOW) ?? 0;
  if (failing > 0) reasons.push(warning("readings", `${number(failing)} readings a second fail (5xx): ${codes(frames)}`));
  const refusing = frames.rate(requests, { status: refused }, WINDOW) ?? 0;
  if (refusing > 1 && refusing > all / 10)
    reasons.push(warning("readings", `${number(refusing)} of ${number(all)} readings a second are refused: ${codes(frames)}`));
  const handshakes = "forebay_tls_handshakes_total";
  const lost = frames.rate(handshakes, { result: turnedAway }, WINDOW) ?? 0;
  const kept = frames.rate(handshakes, { result: greeted }, WINDOW) ?? 0;
  if (lost > 0.5 && lost > kept / 4)
    reasons.push(warning("connections", `${number(lost)} handshakes a second come to nothing: ${why(frames)}`));
  return reasons;
}

export function codes(frames) {
  return list(frames.rates("forebay_http_refusals_total", "code", WINDOW));
}

export function why(frames) {
  return list(frames.rates("forebay_tls_handshakes_total", "result", WINDOW).filter(({ value }) => turnedAway(value)));
}

export function list(rates) {
  return rates.slice(0, 3).map(({ value, rate }) => `${value} ${number(rate)}/s`).join(", ");
}

function bounds({ last }) {
  const bounds = [
    ["memory", "memory for readings", "forebay_admission_bytes", "forebay_admission_bytes_max"],
    ["connections", "all connections", "forebay_http_connections", "forebay_http_connections_max"],
    ["memory", "the table of devices", "forebay_limits_devices", "forebay_limits_devices_max"],
  ];
  const reasons = [];
  for (const [panel, what, taken, max] of bounds) {
    const part = last.sum(taken) / (last.sum(max) || Infinity);
    if (part > FULL) reasons.push(warning(panel, `${Math.floor(part * 100)} % of ${what} is taken`));
  }
  return reasons;
}

function spool(frames) {
  const { last } = frames;
  const [taken, max] = [last.sum("forebay_spool_bytes"), last.sum("forebay_spool_bytes_max")];
  const reasons = [];
  const dead = last.sum("forebay_spool_dead_letter_records");
  if (dead > 0) reasons.push(warning("spool", `${count(dead)} dead letters wait for forebay spool replay`));
  if (max === 0) return reasons;
  if (last.sum("forebay_spool_up") === 0) reasons.push(bad("spool", "The spool takes nothing: it is full, or its disk fails"));
  const grows = growth(frames) ?? 0;
  if (taken > max * FULL) reasons.push(warning("spool", `The spool has taken ${bytes(taken)} of ${bytes(max)}`));
  else if (grows > 0 && (max - taken) / grows < DAY)
    reasons.push(warning("spool", `The spool grows, and is full in ${duration((max - taken) / grows)}`));
  return reasons;
}

function files({ last }) {
  const reasons = [];
  for (const [what, end] of ends(last)) {
    const left = end - last.at;
    if (end > 0 && left <= 0) reasons.push(bad("certificates", `${what}: past its end for ${duration(-left)}`));
    else if (end > 0 && left < 7 * DAY) reasons.push(warning("certificates", `${what}: ends in ${duration(left)}`));
  }
  for (const { labels, value } of last.samples("forebay_tls_reload_ok"))
    if (value === 0) reasons.push(warning("certificates", `The changed file of ${labels.what} cannot be used: the last good one is in force`));
  return reasons;
}
