// Drawing: rows that stay where they are, bars, and sparklines. Texts are set as text, never as markup.

import * as f from "./figures.js";

const SVG = "http://www.w3.org/2000/svg";

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// As many children as there are items, each filled; they stay where they are.
export function rows(parent, items, tag, fill) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  while (parent.children.length < items.length) parent.append(document.createElement(tag));
  items.forEach((item, place) => fill(parent.children[place], item));
}

// The first cell of a row names it. Null leaves a cell to somebody else.
export function cells(row, texts) {
  texts.forEach((text, place) => {
    if (!row.cells[place]) {
      const cell = document.createElement(place === 0 ? "th" : "td");
      if (place === 0) cell.scope = "row";
      row.append(cell);
    }
    if (text !== null && text !== "") setText(row.cells[place], text);
    else if (text === "" && place > 0) setText(row.cells[place], "");
  });
}

export function span(className) {
  const element = document.createElement("span");
  element.className = className;
  return element;
}

// An empty sparkline, which the next drawing fills.
export function emptySpark(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "spark small");
  svg.dataset.spark = name;
  return svg;
}

export function bar(name, taken, max) {
  const element = document.querySelector(`[data-bar=${name}]`);
  const percent = max ? Math.min(100, (100 * taken) / max) : 0;
  if (!element.firstChild) element.append(document.createElement("i"));
  element.firstChild.style.width = `${percent}%`;
  element.setAttribute("aria-valuenow", percent.toFixed(0));
  element.className = `bar ${percent > 95 ? "bad" : percent > 80 ? "warn" : ""}`;
}

// The last two minutes, the newest at the right; gaps where nothing is known.
export function spark(svg, history) {
  const [width, height] = [f.Frames.SECONDS, 30];
  const most = Math.max(...history, 0) || 1;
  const start = width - history.length;
  let line = "";
  let area = "";
  let from = null;
  history.forEach((value, place) => {
    const isLast = place === history.length - 1;
    if (value !== null) {
      const at = `${start + place + 1} ${(height - 1 - (value / most) * (height - 3)).toFixed(1)}`;
      line += `${from === null ? "M" : "L"}${at}`;
      area += from === null ? `M${start + place + 1} ${height}L${at}` : `L${at}`;
      from ??= place;
    }
    if (from !== null && (value === null || isLast)) {
      area += `L${start + place + (value === null ? 0 : 1)} ${height}Z`;
      from = null;
    }
  });
  if (!svg.firstChild) {
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    for (const name of ["area", "line"]) {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", name);
      svg.append(path);
    }
  }
  peak(svg, Math.max(...history, 0));
  svg.firstChild.setAttribute("d", area);
  svg.lastChild.setAttribute("d", line);
}

// Says how high a large sparkline is.
function peak(svg, most) {
  const { spell } = svg.dataset;
  if (!spell) return;
  if (!svg.nextElementSibling?.classList.contains("peak")) {
    const caption = document.createElement("p");
    caption.className = "peak";
    svg.after(caption);
  }
  setText(svg.nextElementSibling, `peak ${f[spell](most)} in 2 min`);
}
