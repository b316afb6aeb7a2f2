// The report of one ranking.
"use strict";

const page = JSON.parse(control("data").textContent);
const FIRST = 10; // candidates that are drawn before a reader asks for all
const BADGES = {
  right: ["✓", "right output among the first two"],
  later: ["↓", "right output comes later"],
  absent: ["✗", "right output absent"],
  unknown: ["?", "right output unknown"],
};

const fixed = (value, digits) => value.toFixed(digits).replace("-", "−");

function probability(test, i) {
  const p = test.p[i];
  if (p === null) return null;
  return p < page.least ? `<${page.least}` : p.toFixed(test.pDigits[i]);
}

function score(test, i) {
  if (test.score[i] === null) return "not judged";
  const digits = test.scoreDigits[i];
  const error = test.stderr[i] === null ? (test.views[i] === 1 ? " (1 view)" : "") : ` ± ${fixed(test.stderr[i], digits)}`;
  return fixed(test.score[i], digits) + error;
}

const isSent = (test, i) => test.split === "test" && i < page.attempts;
const rightOf = (test) => test.output ?? null;

/** Return the grid that candidate i is compared with, null for none. */
function referenceOf(test, i) {
  if (options.reference === "right") return rightOf(test);
  return options.reference === "first" && i > 0 ? test.grids[0] : null;
}

function facts(test, i) {
  const given = (values, digits, unit) => (values[i] === null ? null : `${fixed(values[i], digits)} ${unit}`);
  const right = rightOf(test);
  return [
    ["rank", `${i + 1} of ${test.grids.length}${isSent(test, i) ? `, attempt ${i + 1} of the submission` : ""}`],
    ["correct", right === null ? "unknown" : i === test.right ? "✓ yes" : `✗ no: ${difference(test.grids[i], right)}`],
    ["p", probability(test, i)],
    ["score", `${score(test, i)} ${test.score[i] === null ? "" : page.unit}`],
    ["views", `${test.views[i]}`],
    ["verdict", given(test.logOdds, 3, "log-odds")],
    ["log-likelihood", given(test.logLikelihood, 3, "nats a grid")],
    ["mismatches", given(test.mismatches, 2, "tokens")],
    ["votes", `${test.votes[i]}`],
    ["place in the file", `${test.places[i]}`],
  ].filter(([, text]) => text !== null);
}

function items(test) {
  const right = rightOf(test);
  return test.grids.map((grid, i) => ({
    title: `${test.name}, candidate ${i + 1} of ${test.grids.length}`,
    grid,
    beside: [
      ...(right !== null && i !== test.right ? [["right output", right]] : []),
      ...(i > 0 ? [["candidate 1", test.grids[0]]] : []),
    ].sort((a, b) => (options.reference === "first") * ((b[0] === "candidate 1") - (a[0] === "candidate 1"))),
    facts: facts(test, i),
    json: {
      task_id: test.task, test_index: test.index, rank: i + 1, grid: rowsOf(grid).map((row) => [...row].map(Number)),
      votes: test.votes[i], score: test.score[i], stderr: test.stderr[i], p_correct: test.p[i], views: test.views[i],
      log_likelihood: test.logLikelihood[i], correct: right === null ? null : i === test.right,
    },
  }));
}

function candidate(test, i) {
  const [isRight, reference, p] = [i === test.right, referenceOf(test, i), test.p[i]];
  const badge = isSent(test, i) ? make("span", { class: "badge" }, `attempt ${i + 1}`) : "";
  return make(
    "li",
    { class: `cell${isSent(test, i) ? " sent" : ""}${isRight ? " is-right" : ""}` },
    make("div", { class: "top" }, make("b", {}, `${i + 1}`), isRight ? make("span", { class: "badge status-right" }, "✓ right") : "", badge),
    make("p", {}, p === null ? "no p" : `p ${probability(test, i)}`),
    make("div", { class: "p-bar", "aria-hidden": "true" }, make("i", { style: `width:${100 * (p ?? 0)}%` })),
    zoomable(test.grids[i], { name: `candidate ${i + 1}`, side: 112, reference: isRight ? null : reference, items: () => items(test), place: i }),
    make("p", {}, score(test, i)),
    make("p", {}, `${plural(test.votes[i], "vote")} · ${sizeName(test.grids[i])}`),
    reference === null || isRight ? "" : make("p", {}, difference(test.grids[i], reference)),
  );
}

function body(test) {
  const { examples, cells } = drawQuery(test, test.split === "test" ? "test input" : "left-out input", test.right < 0);
  const first = test.grids.map((_, i) => i).filter((i) => i < FIRST || i === test.right);
  const row = make("ul", { class: "row" }, ...cells, ...first.map((i) => candidate(test, i)));
  const hidden = test.grids.length - first.length;
  const more = make("button", { type: "button", click: () => {
    row.replaceChildren(...cells, ...test.grids.map((_, i) => candidate(test, i)));
    more.remove();
    row.children[cells.length + FIRST].querySelector("button").focus();
  } }, `Show ${plural(hidden, "more candidate")}`);
  return [examples, row, hidden ? more : ""];
}

function head(test) {
  const [mark, text] = BADGES[test.status];
  const ranks = test.ranks.map((rank, m) => `${page.methods[m]} ${rank}`).join(", ");
  const count = test.grids.length ? plural(test.grids.length, "candidate") : "no candidates";
  return [
    make("span", { class: `badge status-${test.status}` }, `${mark} ${text}`),
    make("span", { class: "soft" }, test.right < 0 ? count : `its rank: ${ranks} · ${count}`),
    test.note ? make("span", { class: "badge status-later" }, test.note) : "",
  ];
}

const rank = (test, method) => test.ranks[page.methods.indexOf(method)];
const sum = (values) => values.reduce((total, value) => total + value, 0);
const cells = (text) => sizeOf(text)[0] * sizeOf(text)[1];
const within = (rank) => rank !== null && rank <= page.attempts;

showList({
  tests: page.tests.map(named),
  head,
  body,
  chip: (test) => [`${BADGES[test.status][0]} ${test.name}`, `status-${test.status}`],
  keeps: {
    status: (test, value) => value === "all" || test.status === value,
    which: (test, value) =>
      ({
        all: true,
        unjudged: test.note.startsWith("not judged"),
        part: test.note.startsWith("judged in part"),
        differs: test.differs,
        gain: test.status === "right" && !within(rank(test, "vote")),
        loss: test.status === "later" && within(rank(test, "vote")),
      })[value],
  },
  orders: {
    file: null,
    id: (test) => test.name,
    margin: (test) => test.margin,
    rank: (test) => (test.right < 0 ? null : -test.right),
    votes: (test) => (test.votes.length ? sum(test.votes) : null),
    candidates: (test) => test.grids.length,
    size: (test) => cells(test.input),
  },
});
