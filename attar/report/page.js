"use strict";
for (const tools of document.querySelectorAll(".tools")) tools.hidden = false;

// Tables: a press on a heading sorts by it, another one the other way round.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    if (heading.className === "unsorted") return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = row => row.cells[column].dataset.key;
      const rows = [...table.tBodies[0].rows];
      const numbers = rows.every(row => key(row) !== "" && !Number.isNaN(Number(key(row))));
      rows.sort((a, b) => (numbers ? key(a) - key(b) : key(a).localeCompare(key(b))) * (down ? -1 : 1));
      table.tBodies[0].append(...rows);
    });
  });
}

const wanted = document.getElementById("rows-with");
if (wanted) {
  const rows = [...document.querySelectorAll("table.sortable tbody tr")];
  wanted.addEventListener("input", () => {
    const words = wanted.value.toLowerCase().split(/\s+/);
    for (const row of rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
    document.getElementById("rows-shown").textContent =
      `${rows.filter(row => !row.hidden).length} of ${rows.length} rows`;
  });
}

const chosen = document.getElementById("class-shown");
if (chosen) {
  chosen.addEventListener("change", () => {
    for (const part of document.querySelectorAll("[data-class]")) {
      part.hidden = chosen.value !== "" && part.dataset.class !== chosen.value;
    }
  });
}

// Images: pressed, they are shown large, beside the nearest real one; the arrow keys go on to others of the class.
const large = document.getElementById("large");
const columns = 10;
let strip = null;
let place = 0;

function draw(svg, id, cell, step) {
  svg.setAttribute("viewBox", `${(place % columns) * step} ${Math.floor(place / columns) * step} ${cell} ${cell}`);
  svg.firstElementChild.setAttribute("href", `#${id}`);
}

function show() {
  const { cell, step, shown, title, real, realCell, realStep } = strip.dataset;
  const [own, beside] = large.querySelectorAll("figure");
  draw(own.firstElementChild, strip.querySelector("use").getAttribute("href").slice(1), cell, step);
  beside.hidden = real === undefined;
  if (real !== undefined) draw(beside.firstElementChild, real, realCell, realStep);
  document.getElementById("large-title").textContent = `${title}: image ${place + 1} of ${shown}`;
}

function go(steps) {
  const shown = Number(strip.dataset.shown);
  place = (place + steps + shown) % shown;
  show();
}

for (const button of document.querySelectorAll("button.zoom")) {
  button.addEventListener("click", event => {
    const svg = button.querySelector("svg");
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    const at = length => Math.max(0, Math.floor((length * scale) / button.dataset.step));
    const pressed = event.detail > 0 ? at(event.clientY - box.top) * columns + at(event.clientX - box.left) : 0;
    strip = button;
    place = Math.min(pressed, button.dataset.shown - 1);
    show();
    large.showModal();
  });
}
document.getElementById("large-before").addEventListener("click", () => go(-1));
document.getElementById("large-next").addEventListener("click", () => go(1));
document.getElementById("large-close").addEventListener("click", () => large.close());
large.addEventListener("click", event => event.target === large && large.close());
large.addEventListener("keydown", event => {
  if (event.key === "ArrowLeft") go(-1);
  if (event.key === "ArrowRight") go(1);
});
