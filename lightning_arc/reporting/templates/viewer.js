// Shows one grid of several, large, with what is known of it.
"use strict";

const viewer = {
  dialog: document.getElementById("viewer"),
  items: [],
  place: 0,

  /** Open items, each {title, grid, beside: [[title, grid], …], facts: [[name, text], …], json}, at one of them. */
  open(items, place) {
    Object.assign(this, { items, place });
    this.show();
    this.dialog.showModal();
  },

  show() {
    const { title, grid, beside = [], facts = [], json } = this.items[this.place];
    const part = (id) => this.dialog.querySelector(id);
    const reference = beside.length ? beside[0][1] : null;
    const large = (name, text, against) =>
      make(
        "figure",
        {},
        make("figcaption", {}, `${name}, ${sizeName(text)}`),
        drawGrid(text, {
          side: beside.length ? 380 : 560,
          cell: [8, 44],
          numbers: options.numbers,
          reference: against,
          label: `${name}, rows: ${rowsOf(text).join(", ")}`,
        }),
      );
    part("h2").textContent = title;
    part(".body").replaceChildren(
      large("this grid", grid, options.reference === "nothing" ? null : reference),
      ...beside.map(([name, text]) => large(name, text, null)),
      facts.length
        ? make("dl", { class: "facts" }, ...facts.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]))
        : "",
    );
    part(".copied").textContent = "";
    part(".copy").onclick = () => copy(JSON.stringify(json ?? rowsOf(grid).map((row) => [...row].map(Number))), part(".copied"));
    part(".before").disabled = this.place === 0;
    part(".after").disabled = this.place === this.items.length - 1;
  },

  move(step) {
    const place = this.place + step;
    if (place < 0 || place >= this.items.length) return;
    this.place = place;
    this.show();
  },
};

viewer.dialog.querySelector(".before").addEventListener("click", () => viewer.move(-1));
viewer.dialog.querySelector(".after").addEventListener("click", () => viewer.move(1));
viewer.dialog.querySelector(".close").addEventListener("click", () => viewer.dialog.close());
viewer.dialog.addEventListener("click", (event) => event.target === viewer.dialog && viewer.dialog.close());
viewer.dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    viewer.move(event.key === "ArrowLeft" ? -1 : 1);
    event.preventDefault();
  }
});

/** Return a small grid that opens in the viewer. */
function zoomable(text, { name, side, reference = null, items, place }) {
  const against = reference === null ? "" : `; ${difference(text, reference)}`;
  return make(
    "button",
    { class: "zoom", type: "button", "aria-label": `Enlarge ${name}, ${sizeName(text)}${against}`, click: () => viewer.open(items(), place) },
    drawGrid(text, { side, numbers: options.numbers, reference }),
  );
}

/** Return demonstrations beside each other, and input (and output) of the test. */
function drawQuery(test, asked, withOutput) {
  const grids = test.demos.flatMap(([input, output], n) => [[`example ${n + 1} input`, input], [`example ${n + 1} output`, output]]);
  const rest = [[asked, test.input], ...(withOutput && test.output !== null ? [["right output", test.output]] : [])];
  const items = () => [...grids, ...rest].map(([title, grid]) => ({ title: `${test.name}, ${title}`, grid }));
  const small = (place, side) => {
    const [name, grid] = [...grids, ...rest][place];
    return zoomable(grid, { name, side, items, place });
  };
  const pairs = test.demos.map((_, n) => make("li", { class: "pair" }, small(2 * n, 84), make("span", { "aria-label": "becomes", role: "img" }, "→"), small(2 * n + 1, 84)));
  return {
    examples: make("details", { open: true }, make("summary", {}, plural(test.demos.length, "example")), make("ul", { class: "row" }, ...pairs)),
    cells: rest.map(([name, grid], n) =>
      make("li", { class: "cell" }, make("div", { class: "top" }, name), make("div", { class: "p-bar", style: "visibility:hidden" }), small(grids.length + n, 112), make("p", {}, sizeName(grid))),
    ),
  };
}
