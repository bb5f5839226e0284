// What a frame says, as figures: series by name and labels, rates between two frames, quantiles of histograms.
// Nothing here touches the page.

const PARSED = new Map();

// A series' name and labels; names repeat each second, so each is read once.
function parse(series) {
  let parsed = PARSED.get(series);
  if (!parsed) {
    const [, name, inner = ""] = series.match(/^([^{]+)(?:\{(.*)\})?$/) ?? [null, series];
    const labels = {};
    for (const [, label, value] of inner.matchAll(/([^=,]+)="((?:[^"\\]|\\.)*)"/g)) labels[label] = value;
    parsed = { name, labels };
    PARSED.set(series, parsed);
  }
  return parsed;
}

// One frame: the state of the gateway, and all of its metrics.
export class Scrape {
  constructor(frame) {
    this.frame = frame;
    this.at = frame.state.at_ms / 1000;
    this.families = new Map();
    for (const [series, value] of Object.entries(frame.metrics)) {
      const { name, labels } = parse(series);
      if (!this.families.has(name)) this.families.set(name, []);
      this.families.get(name).push({ labels, value });
    }
  }

  samples(name) {
    return this.families.get(name) ?? [];
  }

  // The sum of a family's series that have these labels; one that takes a function is asked.
  sum(name, labels = {}) {
    let sum = 0;
    for (const sample of this.samples(name)) {
      const fits = ([label, wanted]) =>
        typeof wanted === "function" ? wanted(sample.labels[label]) : sample.labels[label] === wanted;
      if (Object.entries(labels).every(fits)) sum += sample.value;
    }
    return sum;
  }

  // The sums by the values of a label.
  by(name, label) {
    const sums = new Map();
    for (const sample of this.samples(name)) {
      const value = sample.labels[label];
      sums.set(value, (sums.get(value) ?? 0) + sample.value);
    }
    return sums;
  }
}

// The frames of the last two minutes, oldest first. A gateway that was started anew begins anew.
export class Frames {
  static SECONDS = 120;
  #scrapes = [];

  push(scrape) {
    const started = (one) => one.sum("process_start_time_seconds");
    const last = this.last;
    if (last && started(last) !== started(scrape)) this.#scrapes = [];
    this.#scrapes.push(scrape);
    if (this.#scrapes.length > Frames.SECONDS) this.#scrapes.shift();
  }

  get last() {
    return this.#scrapes.at(-1);
  }

  // The newest frame that is at least so old, or else the oldest; never the last one.
  before(seconds) {
    const until = this.last.at - seconds + 0.5;
    const older = this.#scrapes.slice(0, -1);
    return older.findLast((scrape) => scrape.at <= until) ?? older[0];
  }

  // How much of a counter came a second, in the last one or in so many; null where that is not known yet.
  rate(name, labels = {}, seconds = 1) {
    const before = this.before(seconds);
    if (!before) return null;
    return Math.max(0, this.last.sum(name, labels) - before.sum(name, labels)) / (this.last.at - before.at);
  }

  // The rates by the values of a label, the greatest first.
  rates(name, label, seconds) {
    const before = this.before(seconds);
    if (!before) return [];
    const earlier = before.by(name, label);
    const rates = [...this.last.by(name, label)].map(([value, count]) => ({
      value,
      rate: (count - (earlier.get(value) ?? 0)) / (this.last.at - before.at),
    }));
    return rates.filter(({ rate }) => rate > 0).sort((one, other) => other.rate - one.rate);
  }

  // The quantile of what a histogram observed in so many seconds, in its base unit; null where it saw nothing.
  quantile(name, part, seconds) {
    const before = this.before(seconds);
    if (!before) return null;
    const earlier = before.by(`${name}_bucket`, "le");
    const buckets = [...this.last.by(`${name}_bucket`, "le")]
      .map(([le, count]) => ({ le: le === "+Inf" ? Infinity : Number(le), count: count - (earlier.get(le) ?? 0) }))
      .sort((one, other) => one.le - other.le);
    const all = buckets.at(-1)?.count ?? 0;
    if (all === 0) return null;
    return within(buckets, part * all);
  }

  // The mean of what a histogram observed in so many seconds; null where it saw nothing.
  mean(name, seconds) {
    const before = this.before(seconds);
    if (!before) return null;
    const grown = (series) => this.last.sum(series) - before.sum(series);
    const count = grown(`${name}_count`);
    return count > 0 ? grown(`${name}_sum`) / count : null;
  }
}

// Where in cumulative buckets the observation of this rank lies, as if each bucket were evenly filled.
function within(buckets, rank) {
  let low = 0;
  let below = 0;
  for (const { le, count } of buckets) {
    if (count >= rank) {
      if (le === Infinity) return low;
      return count === below ? le : low + ((le - low) * (rank - below)) / (count - below);
    }
    low = le;
    below = count;
  }
  return low;
}

export const accepted = (status) => status?.startsWith("2");
export const failed = (status) => status?.startsWith("5");
export const refused = (status) => !accepted(status) && !failed(status);

// Whether a handshake's result is one that lets a device in.
export const greeted = (result) => result === "accepted" || result === "resumed";

// Whether a handshake's result is a device or a client that wanted in and was not let.
export const turnedAway = (result) => !greeted(result) && result !== "retry" && result !== "unused";

export function number(value) {
  if (value === null || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  if (value < 9.95) return value.toFixed(1);
  if (value < 9999.5) return value.toFixed(0);
  if (value < 999950) return `${(value / 1e3).toFixed(1)}k`;
  if (value < 999.95e6) return `${(value / 1e6).toFixed(1)}M`;
  return `${(value / 1e9).toFixed(1)}G`;
}

export function count(value) {
  return value !== null && value < 9999.5 ? value.toFixed(0) : number(value);
}

export function bytes(value) {
  if (value === null || !Number.isFinite(value)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let size = Math.abs(value);
  let unit = 0;
  while (size >= 1023.5 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || size >= 99.95 ? 0 : 1;
  return `${value < 0 ? "−" : ""}${size.toFixed(digits)} ${units[unit]}`;
}

export function milliseconds(seconds) {
  if (seconds === null) return "–";
  const value = seconds * 1000;
  return value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0);
}

export function duration(seconds) {
  if (seconds === null || !Number.isFinite(seconds)) return "–";
  const whole = Math.max(0, Math.floor(seconds));
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days >= 10) return `${days} d`;
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  if (minutes > 0) return `${minutes} min ${whole % 60} s`;
  return `${whole} s`;
}

export function clock(date) {
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
}

export function day(date) {
  return [date.getFullYear(), date.getMonth() + 1, date.getDate()].map((part) => String(part).padStart(2, "0")).join("-");
}
