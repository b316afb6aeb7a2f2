// The report of a comparison: two ways to rank, A and B, beside each other.
"use strict";

const page = JSON.parse(control("data").textContent);
const MARKS = { first: "A", second: "B", both: "✓", neither: "✗", absent: "–" };
const KINDS = { first: "status-right", second: "status-later", both: "", neither: "", absent: "" };
const sides = () => ["first", "second"].map((id) => Number(control(id).value));

function outcomeOf(test) {
  const [one, other] = sides().map((way) => test.ranks[way]);
  if (one === null || other === null) return "absent";
  const wins = [one, other].map((rank) => rank <= page.attempts);
  return wins[0] ? (wins[1] ? "both" : "first") : wins[1] ? "second" : "neither";
}

const chosen = (test, way) => test.orders[way].slice(0, page.attempts);

function tally() {
  control("tally").replaceChildren(
    ...Object.entries(OUTCOMES).flatMap(([outcome, text]) => {
      const found = page.tests.filter((test) => outcomeOf(test) === outcome);
      const names = ["first", "second"].includes(outcome) ? found.map((test) => test.name).join(", ") : "";
      return [make("dt", {}, `${found.length}`), make("dd", {}, text, names ? make("small", { class: "mono" }, ` ${names}`) : "")];
    }),
  );
}

function items(test, way) {
  return test.orders[way].map((place, n) => ({
    title: `${test.name}, ${page.ways[way]}: candidate ${n + 1} of ${test.grids.length}`,
    grid: test.grids[place],
    beside: test.output !== null && place !== test.right ? [["right output", test.output]] : [],
    facts: [
      ["rank in A, in B", sides().map((side) => test.orders[side].indexOf(place) + 1).join(", ")],
      ["correct", test.output === null ? "unknown" : place === test.right ? "✓ yes" : `✗ no: ${difference(test.grids[place], test.output)}`],
      ["votes", `${test.votes[place]}`],
      ["place in the file", `${place + 1}`],
    ],
  }));
}

function candidate(test, way, n) {
  const place = test.orders[way][n];
  const [grid, isRight] = [test.grids[place], place === test.right];
  const reference = options.reference === "right" && !isRight ? test.output : null;
  return make(
    "li",
    { class: `cell${n < page.attempts ? " sent" : ""}${isRight ? " is-right" : ""}` },
    make("div", { class: "top" }, make("b", {}, `${n + 1}`), isRight ? make("span", { class: "badge status-right" }, "✓ right") : ""),
    zoomable(grid, { name: `candidate ${n + 1}`, side: 112, reference, items: () => items(test, way), place: n }),
    make("p", {}, `${plural(test.votes[place], "vote")} · ${sizeName(grid)}`),
    reference === null ? "" : make("p", {}, difference(grid, reference)),
  );
}

function side(test, way, letter) {
  const n = test.grids.length;
  const row = make("ul", { class: "row" }, ...chosen(test, way).map((_, i) => candidate(test, way, i)));
  const more = make("button", { type: "button", click: () => {
    for (let i = page.attempts; i < n; i++) row.append(candidate(test, way, i));
    more.remove();
    row.children[page.attempts].querySelector("button").focus();
  } }, `Show ${plural(n - page.attempts, "more candidate")}`);
  return make("div", { class: "side" }, make("h4", {}, `${letter}: ${page.ways[way]}`), row, n > page.attempts ? more : "");
}

function body(test) {
  const { examples, cells } = drawQuery(test, "test input", true);
  return [examples, make("div", { class: "sides" }, make("ul", { class: "row" }, ...cells), ...sides().map((way, n) => side(test, way, "AB"[n])))];
}

function head(test) {
  const outcome = outcomeOf(test);
  const text = { first: "A wins", second: "B wins", both: "✓ both right", neither: "✗ neither right", absent: "– absent or unknown" }[outcome];
  const ranks = sides().map((way, n) => `${"AB"[n]} ${test.ranks[way]}`).join(", ");
  const count = plural(test.grids.length, "candidate");
  return [make("span", { class: `badge ${KINDS[outcome]}` }, text), make("span", { class: "soft" }, test.right < 0 ? count : `its rank: ${ranks} · ${count}`)];
}

const gap = (test) => {
  const [one, other] = sides().map((way) => test.ranks[way]);
  return one === null || other === null ? null : -Math.abs(one - other);
};

const redraw = showList({
  tests: page.tests.map(named),
  head,
  body,
  chip: (test) => [`${MARKS[outcomeOf(test)]} ${test.name}`, KINDS[outcomeOf(test)]],
  keeps: {
    outcome: (test, value) => {
      if (value === "all") return true;
      const [one, other] = sides().map((way) => [...chosen(test, way)].sort().join());
      return value === "differs" ? one !== other : outcomeOf(test) === value;
    },
  },
  orders: {
    file: null,
    id: (test) => test.name,
    gap,
    candidates: (test) => test.grids.length,
    size: (test) => sizeOf(test.input)[0] * sizeOf(test.input)[1],
  },
});
for (const id of ["first", "second"]) control(id).addEventListener("input", () => { tally(); redraw(); });
tally();
