// Draws grids that are written as strings of digits, rows parted by slashes: "012/345".
"use strict";

const SVG = "http://www.w3.org/2000/svg";

/** Make an element; children are nodes or texts, attributes that are null or false are left out. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

const rowsOf = (text) => text.split("/");
const sizeOf = (text) => [rowsOf(text).length, rowsOf(text)[0].length];
const sizeName = (text) => sizeOf(text).join("×");
const plural = (n, thing) => `${n} ${thing}${n === 1 ? "" : "s"}`;

/** Return the places [row, column] of cells that differ, null where the sizes do. */
function differing(text, reference) {
  if (sizeName(text) !== sizeName(reference)) return null;
  const [one, other] = [rowsOf(text), rowsOf(reference)];
  return one.flatMap((row, y) => [...row].flatMap((cell, x) => (cell === other[y][x] ? [] : [[y, x]])));
}

/** Say how a grid differs from another one, such as "3 cells differ". */
function difference(text, reference) {
  const cells = differing(text, reference);
  if (cells === null) return `other size, ${sizeName(reference)} expected`;
  return cells.length ? `${plural(cells.length, "cell")} differ${cells.length === 1 ? "s" : ""}` : "the same";
}

/** Return path data of strokes of width 1 over the cells of a colour, one for every run in a row. */
function runs(rows, colour) {
  let path = "";
  rows.forEach((row, y) => {
    for (let x = 0; x < row.length; x++) {
      if (row[x] !== colour) continue;
      const start = x;
      while (row[x + 1] === colour) x++;
      path += `M${start} ${y}.5h${x + 1 - start}`;
    }
  });
  return path;
}

/** Draw squares within cells, `inset` from their sides. */
const squares = (cells, inset) =>
  cells.map(([y, x]) => `M${x + inset} ${y + inset}h${1 - 2 * inset}v${1 - 2 * inset}h${2 * inset - 1}z`).join("");

/**
 * Draw a grid.
 *
 * side: pixels of its longer side; cell: least and most pixels of a cell; numbers: whether cells show theirs;
 * reference: a grid from which cells that differ are marked, or null; label: for screen readers, null to hide it.
 */
function drawGrid(text, { side, cell = [0, 30], numbers = false, reference = null, label = null }) {
  const rows = rowsOf(text);
  const [height, width] = sizeOf(text);
  const scale = Math.max(numbers ? 12 : cell[0], Math.min(cell[1], side / Math.max(height, width)));
  const colours = [...new Set(text.replaceAll("/", ""))];
  const count = (colour) => text.split(colour).length;
  const ground = colours.reduce((most, colour) => (count(colour) > count(most) ? colour : most));
  let inside = `<path fill="var(--c${ground})" d="M0 0h${width}v${height}H0z"/>`;
  for (const colour of colours) {
    if (colour !== ground) inside += `<path stroke="var(--c${colour})" d="${runs(rows, colour)}"/>`;
  }
  let lines = "";
  for (let x = 1; x < width; x++) lines += `M${x} 0v${height}`;
  for (let y = 1; y < height; y++) lines += `M0 ${y}h${width}`;
  inside += `<path class="lines" stroke-width="${(0.6 / scale).toFixed(3)}" d="${lines}"/>`;
  if (numbers) {
    for (const colour of colours) {
      const places = rows.flatMap((row, y) => [...row].flatMap((other, x) => (other === colour ? [[x + 0.5, y + 0.72]] : [])));
      const [xs, ys] = [0, 1].map((axis) => places.map((place) => place[axis]).join(" "));
      inside += `<text x="${xs}" y="${ys}" fill="var(--n${colour})">${colour.repeat(places.length)}</text>`;
    }
  }
  const marked = reference === null ? null : differing(text, reference);
  if (marked !== null && marked.length) {
    const stroke = Math.min(0.2, Math.max(0.07, 1 / scale)); // one of both colours is seen on any cell
    inside += `<path class="dark" stroke-width="${stroke}" d="${squares(marked, 0.14)}"/>`;
    inside += `<path class="light" stroke-width="${stroke}" d="${squares(marked, 0.14 + stroke)}"/>`;
  }
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "grid");
  svg.setAttribute("width", Math.round(width * scale));
  svg.setAttribute("height", Math.round(height * scale));
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  if (!numbers) svg.setAttribute("shape-rendering", "crispEdges");
  if (label === null) svg.setAttribute("aria-hidden", "true");
  else {
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
  }
  svg.innerHTML = inside;
  return svg;
}

/** Let every grid of the page be drawn in a palette; grids that are drawn already follow. */
function usePalette(name) {
  const { palettes, inks } = JSON.parse(document.getElementById("palettes").textContent);
  palettes[name].forEach((colour, i) => document.documentElement.style.setProperty(`--c${i}`, colour));
  inks[name].forEach((colour, i) => document.documentElement.style.setProperty(`--n${i}`, colour));
}

/** Copy a text, and say in an element whether that worked. */
async function copy(text, said) {
  try {
    await navigator.clipboard.writeText(text);
    said.textContent = "copied";
  } catch {
    const area = make("textarea", { "aria-hidden": "true" });
    area.value = text;
    said.after(area);
    area.select();
    said.textContent = document.execCommand("copy") ? "copied" : "could not be copied";
    area.remove();
  }
}
