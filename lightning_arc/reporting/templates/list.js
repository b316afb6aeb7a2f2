// The list of test inputs: options of drawing, search, filters, order, keyboard; each is drawn when it comes in sight.
"use strict";

const options = { numbers: false, reference: "right", keys: true };
const control = (id) => document.getElementById(id);

/**
 * Show test inputs.
 *
 * tests: each with `name`, and `anchor`; head: gives the nodes of a heading line; body: gives what is below it;
 * chip: gives the text and the class of its link in the overview; keeps: by id of a select, whether a test input is
 * kept at the select's value; orders: by value of the select `order`, what is compared, smallest first.
 */
function showList({ tests, head, body, chip, keeps, orders }) {
  const [list, overview] = [control("list"), control("overview")];
  let shown = tests;
  const drawn = new Set();
  const seen = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => draw(entry.target)),
    { rootMargin: "800px" },
  );
  const byElement = new Map();
  for (const test of tests) {
    test.article = make("article", { id: test.anchor, tabindex: "-1", "aria-labelledby": `${test.anchor}-name` });
    test.head = make("div", { class: "head" });
    test.article.append(test.head);
    byElement.set(test.article, test);
    seen.observe(test.article);
  }

  function headOf(test) {
    test.head.replaceChildren(make("h3", { id: `${test.anchor}-name` }, test.name), ...head(test));
    const [text, kind] = chip(test);
    test.link = make("li", {}, make("a", { class: `chip ${kind}`, href: `#${test.anchor}` }, text));
  }

  function draw(article) {
    if (drawn.has(article)) return;
    drawn.add(article);
    while (article.children.length > 1) article.lastChild.remove();
    article.append(...body(byElement.get(article)));
  }

  /** Draw what is in sight again, after an option has changed. */
  function redraw() {
    drawn.clear();
    tests.forEach(headOf);
    tests.forEach((test) => {
      while (test.article.children.length > 1) test.article.lastChild.remove();
      seen.unobserve(test.article);
      seen.observe(test.article);
    });
    arrange();
  }

  function arrange() {
    const wanted = control("search").value.trim().toLowerCase();
    shown = tests.filter(
      (test) => test.name.toLowerCase().includes(wanted) && Object.entries(keeps).every(([id, keep]) => keep(test, control(id).value)),
    );
    const key = orders[control("order").value];
    const missing = (value) => value === null || Number.isNaN(value);
    if (key) {
      shown = shown.map((test, n) => [key(test), n, test]);
      shown.sort(([a, n], [b, m]) => missing(a) - missing(b) || (a < b ? -1 : a > b ? 1 : n - m));
      shown = shown.map(([, , test]) => test);
    }
    if (control("reverse").checked) shown = [...shown].reverse();
    list.replaceChildren(...shown.map((test) => test.article));
    overview.replaceChildren(...shown.map((test) => test.link));
    control("count").textContent = `${shown.length} of ${plural(tests.length, "test input")} shown`;
  }

  /** Go a step forth or back from the test input that is at the top. */
  function move(step) {
    const edge = control("bar").getBoundingClientRect().bottom;
    const at = shown.findIndex((test) => test.article.getBoundingClientRect().bottom > Math.max(edge, 0) + 60);
    const current = document.activeElement.closest?.("article");
    const place = current === null ? at + (step > 0 && window.scrollY < list.offsetTop - 200 ? -1 : 0) : shown.findIndex((test) => test.article === current);
    const next = shown[Math.min(Math.max(place + step, 0), shown.length - 1)];
    if (!next) return;
    draw(next.article);
    next.article.scrollIntoView();
    next.article.focus({ preventScroll: true });
  }

  function top() {
    window.scrollTo(0, 0);
    document.querySelector("h1").focus({ preventScroll: true });
  }

  const keys = { j: () => move(1), k: () => move(-1), t: top, "/": () => control("search").focus() };
  document.addEventListener("keydown", (event) => {
    const busy = event.target.matches("input[type=search], select, textarea") || viewer.dialog.open;
    if (busy || !options.keys || event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });
  control("next").addEventListener("click", () => move(1));
  control("previous").addEventListener("click", () => move(-1));
  control("top").addEventListener("click", top);
  for (const id of ["search", "order", "reverse", ...Object.keys(keeps)]) control(id).addEventListener("input", arrange);
  control("palette").addEventListener("input", (event) => usePalette(event.target.value));
  control("numbers").addEventListener("input", (event) => { options.numbers = event.target.checked; redraw(); });
  control("reference").addEventListener("input", (event) => { options.reference = event.target.value; redraw(); });
  control("keys").addEventListener("input", (event) => { options.keys = event.target.checked; });
  usePalette(control("palette").value);
  options.numbers = control("numbers").checked;
  options.reference = control("reference").value;
  options.keys = control("keys").checked;
  redraw();
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
  return redraw;
}

/** Return a name and an anchor of a test input. */
function named(test) {
  const leftOut = test.split === "test" ? ["", ""] : [" demonstration", "-demonstration"];
  test.name = `${test.task}${leftOut[0]} [${test.index}]`;
  test.anchor = `test-${test.task}${leftOut[1]}-${test.index}`.replaceAll(/\s/g, "_");
  return test;
}
