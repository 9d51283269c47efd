// The page: its state, what is told of it, and what the reader may do.

import { WHOLE, binFrom, cellsAt, makeCharts, shareOf, shiftOf } from "./charts.mjs";
import { readGrid, sigmoid } from "./grid.mjs";
import { estimate, ofShare, posterior } from "./intervals.mjs";
import { atPrior, metricOf } from "./metrics.mjs";
import { meritsOf, solve } from "./solve.mjs";
import { TERMS, apportioned, asPercent, constraintText, nameOf, needInWords, number, percent, readConstraint, shown, termOf } from "./words.mjs";

const BEYOND = 1e6;
const told = JSON.parse(document.getElementById("data").textContent);
const grid = readGrid(told.grid);
const $ = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const out = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) out.setAttribute(name, value);
  out.append(...children);
  return out;
}

// ---------------------------------------------------------------------------------------------------- state

const distinct = (values) => [...new Set(values)].sort((a, b) => a - b);
const view = {
  grid,
  axes: Object.fromEntries(grid.names.map((name) => [name, distinct(grid.lambdas[name])])),
  lambda: grid.default,
  bin: -1,
  prior: null,
  fn: 50,
  fp: 1,
  volume: 1000,
  need: { objective: "precision", constraints: [{ metric: "recall", relation: ">=", bound: 0.95, every: null }] },
  simplest: true,
  solved: null,
  heatMetric: "need",
  column: grid.subgroups[0]?.column ?? null,
  resting: false,
};
view.places = Object.fromEntries(
  grid.names.map((name) => [name, grid.lambdas[name].map((v) => view.axes[name].indexOf(v))]),
);
const curve = () => grid.curves[view.lambda];
const cells = () => cellsAt(curve(), view.bin);
const wholeNeed = () => ({ ...view.need, cost: { fn: view.fn, fp: view.fp }, prior: view.prior });
const lamOf = (i) => Object.fromEntries(grid.names.map((name) => [name, grid.lambdas[name][i]]));
const logOddsThreshold = (i, k) => {
  if (k < 0) return BEYOND;
  return k === grid.curves[i].edge.length - 1 ? -BEYOND : grid.curves[i].edge[k] + shiftOf(grid, view.prior);
};
const toldLambda = (i) => grid.names.map((name) => `${nameOf(name)} ${number(grid.lambdas[name][i])}`).join(", ") || "one";

// The lambda nearest to some values, in units of each hyperparameter's range.
function nearestLambda(lam) {
  let [best, least] = [0, Infinity];
  for (let i = 0; i < grid.size; i++) {
    let d = 0;
    for (const name of grid.names) {
      const range = view.axes[name].at(-1) - view.axes[name][0] || 1;
      d += ((grid.lambdas[name][i] - lam[name]) / range) ** 2;
    }
    if (d < least) [best, least] = [i, d];
  }
  return best;
}

view.heatKey = () =>
  [view.heatMetric, view.prior, view.fn, view.fp, view.heatMetric === "need" ? JSON.stringify(view.need) : "",
    view.heatMetric.startsWith("at:") ? logOddsThreshold(view.lambda, view.bin) : ""].join(" ");
view.heatValues = () => {
  if (view.heatMetric === "need") return meritsOf(grid, wholeNeed());
  const metric = metricOf(view.heatMetric.slice(3), { fn: view.fn, fp: view.fp });
  const limit = view.bin < 0 ? Infinity : curve().edge[view.bin];
  return grid.curves.map((c) => metric.values(atPrior(cellsAt(c, binFrom(c, limit)), view.prior)));
};

// ---------------------------------------------------------------------------------------------------- choosing

function pick({ lambda = view.lambda, bin = null }) {
  const limit = view.bin < 0 ? Infinity : curve().edge[view.bin];
  const same = lambda === view.lambda;
  view.lambda = lambda;
  // Another lambda keeps the threshold, as near as its own thresholds come.
  view.bin = bin ?? (same ? view.bin : nearestBin(limit));
  view.solved = null;
  $("verdict").textContent = "";
  update();
}

function nearestBin(limit) {
  if (!Number.isFinite(limit)) return limit > 0 ? -1 : curve().edge.length - 1;
  const k = binFrom(curve(), limit);
  if (k + 1 >= curve().edge.length - 1) return Math.max(k, 0);
  const [above, below] = [k < 0 ? Infinity : curve().edge[k] - limit, limit - curve().edge[k + 1]];
  return above <= below ? k : k + 1;
}

function find() {
  if (!readNeed()) return;
  const answer = solve(grid, wholeNeed(), { simplest: view.simplest });
  if (!answer.feasible) {
    const reached = answer.reaches.map(({ alone, together }, j) => {
      const c = view.need.constraints[j];
      const [most, within] = [shown(c.metric, alone), c.every ? ` in every ${c.every}` : ""];
      const rest = view.need.constraints.length === 1 ? "" : together === null ? "; the others already fail" : `, and ${shown(c.metric, together)} with the others`;
      return `${termOf(c.metric)}${within} reaches ${most} alone${rest}`;
    });
    view.solved = null;
    $("verdict").textContent = view.need.constraints.length
      ? `No lambda and threshold does that on these cases: ${reached.join("; ")}.`
      : "No lambda and threshold does that on these cases.";
    update();
    return;
  }
  [view.lambda, view.bin] = [answer.lambda, answer.bin];
  view.solved = { best: answer.best };
  const plain = answer.best === answer.lambda ? "" : ` The best on these cases is ${toldLambda(answer.best)}, by less than a standard error.`;
  const kept = view.lambda === grid.default && view.simplest ? " It is the default lambda: no other is better by more than a standard error." : "";
  $("verdict").textContent = `Found: lambda ${toldLambda(view.lambda)}; alert from probability ${percent(sigmoid(logOddsThreshold(view.lambda, view.bin)))}.${grid.size > 1 ? kept : ""}${plain}`;
  update();
}

// ---------------------------------------------------------------------------------------------------- the form

const OBJECTIVES = ["precision", "recall", "specificity", "npv", "f1", "f2", "mcc", "balanced_accuracy", "gmean", "accuracy", "alert_rate", "fpr", "cost", "net_benefit"];
const CONSTRAINED = ["recall", "precision", "specificity", "fpr", "npv", "alert_rate", "accuracy", "balanced_accuracy", "gmean", "f1", "f2", "mcc"];
const PRESETS = [
  ["Miss few", "recall at least 95%, then the highest precision", { objective: "precision", constraints: [["recall", ">=", 0.95]] }],
  ["Few alerts", "at most 50 alerts in 1,000 cases, then the highest recall", { objective: "recall", constraints: [["alert_rate", "<=", 0.05]] }],
  ["Lowest cost", "the lowest expected cost", { objective: "cost", constraints: [] }],
];

function buildForm() {
  for (const name of OBJECTIVES) {
    const best = name === "net_benefit" || metricOf(name, { fn: 1 }).higher ? "highest" : "lowest";
    $("objective").append(element("option", { value: name }, `${best} ${termOf(name)}`));
  }
  $("objective").addEventListener("change", () => ($("benefit-field").hidden = $("objective").value !== "net_benefit"));
  for (const [name, says, need] of PRESETS) {
    const button = element("button", { type: "button" }, name, element("span", { class: "hidden" }, `: ${says}`));
    button.addEventListener("click", () => {
      view.need = { ...need, constraints: need.constraints.map(([metric, relation, bound]) => ({ metric, relation, bound, every: null })) };
      writeNeed();
      find();
    });
    $("presets").append(button);
  }
  $("add").addEventListener("click", () => addConstraint({ metric: "recall", relation: ">=", bound: 0.9, every: null }).querySelector("select").focus());
  $("need").addEventListener("submit", (event) => {
    event.preventDefault();
    find();
  });
  $("simplest").addEventListener("change", () => (view.simplest = $("simplest").checked));
}

function addConstraint({ metric, relation, bound, every }) {
  const metrics = element("select", { "aria-label": "figure" });
  for (const name of CONSTRAINED) metrics.append(element("option", { value: name }, termOf(name)));
  metrics.value = metric;
  const relations = element("select", { "aria-label": "at least or at most" });
  relations.append(element("option", { value: ">=" }, "at least"), element("option", { value: "<=" }, "at most"));
  relations.value = relation;
  const value = element("input", { type: "number", step: "any", "aria-label": "bound", required: "", inputmode: "decimal" });
  const sign = element("span", { "aria-hidden": "true" });
  const scaled = () => {
    sign.textContent = asPercent(metrics.value) ? "%" : "";
    value.min = metrics.value === "mcc" ? -1 : 0;
    value.max = asPercent(metrics.value) ? 100 : 1;
  };
  scaled();
  value.value = String(Number((asPercent(metric) ? bound * 100 : bound).toPrecision(8)));
  metrics.addEventListener("change", scaled);
  const row = element("div", { class: "constraint", role: "group", "aria-label": "condition" }, metrics, relations, value, sign);
  const remove = element("button", { type: "button", "aria-label": "Remove this condition" }, "×");
  remove.addEventListener("click", () => {
    row.remove();
    $("add").focus();
  });
  row.append(remove);
  if (grid.subgroups.length) {
    const within = element("select", { "aria-label": "among whom", class: "every" });
    within.append(element("option", { value: "" }, "among all cases"));
    for (const s of grid.subgroups) within.append(element("option", { value: s.column }, `in every ${s.column}`));
    within.value = every ?? "";
    row.append(within);
  }
  $("constraints").append(row);
  return row;
}

function readNeed() {
  if (!$("need").reportValidity()) return false;
  const constraints = [...$("constraints").children].map((row) => {
    const [metric, relation, within] = row.querySelectorAll("select");
    const value = Number(row.querySelector("input").value);
    const bound = asPercent(metric.value) ? Number((value / 100).toPrecision(6)) : value;
    return { metric: metric.value, relation: relation.value, bound, every: within?.value || null };
  });
  const columns = new Set(constraints.map((c) => c.every).filter(Boolean));
  if (columns.size > 1) {
    $("verdict").textContent = "Conditions in every value are for one column at a time.";
    return false;
  }
  let objective = $("objective").value;
  if (objective === "net_benefit") objective = `net_benefit@${Number((Number($("benefit-at").value) / 100).toPrecision(6))}`;
  view.need = { objective, constraints };
  return true;
}

function writeNeed() {
  const [objective, at] = view.need.objective.split("@");
  $("objective").value = objective;
  $("benefit-field").hidden = objective !== "net_benefit";
  if (at) $("benefit-at").value = String(Number((Number(at) * 100).toPrecision(8)));
  $("constraints").replaceChildren();
  view.need.constraints.forEach(addConstraint);
  $("simplest").checked = view.simplest;
}

function buildFields() {
  const own = shareOf(grid, null);
  $("prior-hint").textContent = `empty: ${percent(own)}, as here`;
  $("prior").placeholder = String(Number((own * 100).toPrecision(3)));
  const read = (id, name, sound, scale = 1) =>
    $(id).addEventListener("input", () => {
      const text = $(id).value;
      const value = Number(text) / scale;
      if (id === "prior" && text === "" && $(id).validity.valid) view.prior = null;
      else if (text !== "" && sound(value)) view[name] = value;
      else return;
      moved();
    });
  // At another prior or cost the need is met elsewhere: what was found for it is found again.
  const moved = () => (view.solved ? find() : update());
  read("prior", "prior", (v) => v > 0 && v < 1, 100);
  read("volume", "volume", (v) => v > 0);
  read("fn", "fn", (v) => v >= 0);
  read("fp", "fp", (v) => v >= 0);
}

function writeFields() {
  $("prior").value = view.prior === null ? "" : String(Number((view.prior * 100).toPrecision(8)));
  for (const id of ["volume", "fn", "fp"]) $(id).value = String(view[id]);
}

const sliders = {};
function buildSliders() {
  const add = (id, name, max, onInput) => {
    const input = element("input", { type: "range", id: `slider-${id}`, min: 0, max, step: 1 });
    const output = element("output", { for: `slider-${id}` });
    const label = element("label", { for: `slider-${id}` }, name);
    $("sliders").append(element("div", { class: "slider" }, element("div", { class: "slider-top" }, label, output), input));
    input.addEventListener("input", () => onInput(Number(input.value)));
    sliders[id] = { input, output };
  };
  for (const name of grid.names) {
    const values = view.axes[name];
    if (values.length < 2) continue;
    add(name, nameOf(name), values.length - 1, (i) => {
      pick({ lambda: nearestLambda({ ...lamOf(view.lambda), [name]: values[i] }) });
    });
  }
  add("threshold", "threshold: alert from probability", 1, (k) => pick({ bin: curve().edge.length - 1 - k }));
  $("to-default").addEventListener("click", () => pick({ lambda: grid.default }));
  $("to-default").hidden = grid.size < 2;
}

function writeSliders() {
  for (const name of grid.names) {
    const slider = sliders[name];
    if (!slider) continue;
    slider.input.value = view.places[name][view.lambda];
    const text = number(grid.lambdas[name][view.lambda]);
    slider.output.textContent = text;
    slider.input.setAttribute("aria-valuetext", text);
  }
  const { input, output } = sliders.threshold;
  input.max = curve().edge.length;
  input.value = curve().edge.length - 1 - view.bin;
  const text = view.bin < 0 ? "nobody" : view.bin === curve().edge.length - 1 ? "everybody" : percent(sigmoid(logOddsThreshold(view.lambda, view.bin)));
  output.textContent = text;
  input.setAttribute("aria-valuetext", `alert from probability ${text}`);
}

// ---------------------------------------------------------------------------------------------------- what it means

const FIGURES = ["recall", "precision", "specificity", "alerts", "cost", "npv", "f1", "alert_rate"];

const PER_THOUSAND = {
  hit: (c) => c.tp,
  missed: (c) => c.positives - c.tp,
  alarm: (c) => c.fp,
  alone: (c) => c.negatives - c.fp,
};

function estimatesOf(i, k, names) {
  const c = cellsAt(grid.curves[i], k);
  const points = posterior(c, grid.sizes, view.prior);
  const observed = atPrior(c, view.prior);
  return Object.fromEntries(
    names.map((name) => {
      if (name in PER_THOUSAND) return [name, estimate((at) => (1000 * PER_THOUSAND[name](at)) / (at.positives + at.negatives), observed, points)];
      if (name === "alerts") {
        const daily = (at) => (view.volume * (at.tp + at.fp)) / (at.positives + at.negatives);
        return [name, estimate(daily, observed, points)];
      }
      return [name, estimate(metricOf(name, { fn: view.fn, fp: view.fp }).values, observed, points)];
    }),
  );
}

const MARKS = {
  hit: (x, y, r) => `M${x - r},${y}a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0z`,
  missed: (x, y, r) => `M${x - r},${y}a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0z`,
  alarm: (x, y, r) => `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
  alone: (x, y, r) => `M${x - r / 3},${y - r / 3}h${(2 * r) / 3}v${(2 * r) / 3}h${(-2 * r) / 3}z`,
};
const KINDS = [
  ["hit", "positive, alerted on: found"],
  ["missed", "positive, left alone: missed"],
  ["alarm", "negative, alerted on: false alarm"],
  ["alone", "negative, left alone"],
];
const svg = (tag, attributes) => {
  const out = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) out.setAttribute(name, value);
  return out;
};

function buildOutcome() {
  for (const [kind] of KINDS) $("icons").append(svg("path", { class: kind }));
  for (const [kind, says] of KINDS) {
    const mark = svg("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" });
    mark.append(svg("path", { class: kind, d: MARKS[kind](5, 5, 3.5) }));
    $("legend").append(element("li", {}, mark, element("b", { id: `n-${kind}` }), element("span", {}, says, element("small", { id: `range-${kind}` }))));
  }
  for (const name of FIGURES) {
    const label = name === "alerts" ? "alerts a day" : name === "cost" ? null : null;
    const head = element("th", { scope: "row" }, label ?? termButton(name));
    if (name === "cost") head.append(" of a case");
    $("figures").tBodies[0].append(element("tr", { id: `row-${name}` }, head, element("td"), element("td")));
  }
}

function writeOutcome() {
  const at = atPrior(cells(), view.prior);
  const all = at.positives + at.negatives;
  const [positive, negative] = [at.positives / all, at.negatives / all];
  const counts = apportioned([at.tp / all, positive - at.tp / all, at.fp / all, negative - at.fp / all].map((s) => Math.max(s, 0)), 1000);
  let n = 0;
  KINDS.forEach(([kind], j) => {
    let d = "";
    for (let i = 0; i < counts[j]; i++, n++) d += MARKS[kind](10 * (n % 40) + 5, 10 * Math.floor(n / 40) + 5, 3.5);
    $("icons").children[j].setAttribute("d", d);
    $(`n-${kind}`).textContent = String(counts[j]);
  });
  const [hit, missed, alarm] = counts;
  $("summary").textContent = `Of 1,000 cases ${hit + missed} are positive: ${hit} ${hit === 1 ? "is" : "are"} found and ${missed} missed. There are ${hit + alarm} alerts, ${alarm} of them false.`;
  const estimates = estimatesOf(view.lambda, view.bin, [...FIGURES, ...Object.keys(PER_THOUSAND)]);
  for (const [kind] of KINDS) {
    const [, low, high] = estimates[kind];
    $(`range-${kind}`).textContent = `${number(Math.floor(low))} to ${number(Math.ceil(high))}`;
  }
  for (const name of FIGURES) {
    const [value, low, high] = estimates[name];
    const write = (v) => (name === "alerts" ? number(v) : shown(name, v));
    const cellsOf = $(`row-${name}`).cells;
    cellsOf[1].textContent = write(value);
    cellsOf[2].textContent = `${write(low)} to ${write(high)}`;
  }
}

// ---------------------------------------------------------------------------------------------------- comparison, groups

function writeTable(table, head, rows) {
  table.tHead.replaceChildren(element("tr", {}, ...head.map((h) => element("th", { scope: "col" }, h))));
  table.tBodies[0].replaceChildren(
    ...rows.map(([first, ...rest]) =>
      element("tr", {}, element("th", { scope: "row" }, first), ...rest.map((cell) => {
        if (!Array.isArray(cell)) return element("td", {}, cell);
        return element("td", {}, cell[0], element("small", {}, cell[1]));
      })),
    ),
  );
}

const withInterval = (name, [value, low, high]) => [shown(name, value), `${shown(name, low)} to ${shown(name, high)}`];

function writeComparison() {
  const c = cells();
  const other = grid.curves[grid.default];
  // The fewest alerts of the default lambda that find as many positives.
  const wanted = c.tp / c.positives;
  let k = -1;
  while (k < other.edge.length - 1 && !(cellsAt(other, k).tp / other.positives >= wanted - 1e-12)) k++;
  const columns = [["chosen", view.lambda, view.bin], ["default, same recall", grid.default, k]];
  if (view.solved && view.lambda !== grid.default) {
    const answer = solve(grid, wholeNeed(), { simplest: false, only: grid.default });
    if (answer.feasible) columns.push(["default, same need", grid.default, answer.bin]);
  }
  const names = ["recall", "precision", "specificity", "alert_rate", "cost"];
  const of = columns.map(([, i, bin]) => estimatesOf(i, bin, names));
  const rows = [
    ["lambda", ...columns.map(([, i]) => toldLambda(i))],
    ["alert from probability", ...columns.map(([, i, bin]) => percent(sigmoid(logOddsThreshold(i, bin))))],
    ...names.map((name) => [termButton(name), ...of.map((e) => withInterval(name, e[name]))]),
  ];
  writeTable($("comparison"), ["figure", ...columns.map(([name]) => name)], rows);
}

function writeGroups() {
  const s = grid.subgroups.find((of) => of.column === view.column);
  if (!s) return;
  const cut = s.cuts[view.lambda];
  let j = -1;
  cut.ends.forEach((end, at) => {
    const now = j < 0 ? -1 : cut.ends[j];
    if (Math.abs(end - view.bin) < Math.abs(now - view.bin)) j = at;
  });
  const all = grid.curves[view.lambda];
  const bin = j < 0 ? -1 : cut.ends[j];
  const groups = [["all cases", grid.rows, cellsAt(all, bin)]];
  s.values.forEach((value, g) => groups.push([value, s.rows[g], cellsAt(cut.curves[g], j)]));
  const rows = groups.map(([value, counts, within]) => {
    // Kish's effective numbers in proportion to the cases.
    const sizes = [0, 1].map((y) => counts[y] * (grid.sizes[y] / grid.rows[y]));
    const at = atPrior(within, view.prior, all);
    const prior = view.prior === null ? null : at.positives / (at.positives + at.negatives);
    const label = [value, number(counts[0] + counts[1]), number(counts[1])];
    if (!(within.positives > 0 && within.negatives > 0)) return [...label, "–", "–", "–", "–"];
    const points = posterior(within, [...sizes, sizes[0] + sizes[1]], prior);
    const observed = atPrior(within, prior);
    return [...label, ...["recall", "precision", "specificity", "alert_rate"].map((name) => withInterval(name, estimate(metricOf(name).values, observed, points)))];
  });
  writeTable($("subgroups"), [view.column, "cases", "positive", "recall", "precision", "specificity", "alert rate"], rows);
  const edge = bin < 0 ? "nobody" : percent(sigmoid(logOddsThreshold(view.lambda, bin)));
  $("groups-says").textContent = bin === view.bin
    ? `At the chosen threshold, ${edge}.`
    : `Not at the chosen threshold, but at the nearest that has ${grid.smallest} cases of each subgroup between it and the next: ${edge}.`;
}

// ---------------------------------------------------------------------------------------------------- everything

const charts = makeCharts(view, Object.fromEntries(["roc", "pr", "heat", "cost", "decision", "reliability", "scores"].map((id) => [id, $(id)])), pick);

function drawCharts() {
  charts.all.forEach((chart) => chart.draw());
  for (const [id, text] of Object.entries(charts.says())) $(id).setAttribute("aria-label", text);
  if (!charts.heat) return;
  const [low, high] = charts.heat.range();
  const name = view.heatMetric === "need" ? view.need.objective : view.heatMetric.replace("at:", "");
  $("heat-low").textContent = shown(name, low);
  $("heat-high").textContent = shown(name, high);
  const value = charts.heat.value();
  $("heat").setAttribute("aria-label", `Map of every lambda, coloured by ${termOf(name)}`);
  $("heat-says").textContent = `${termOf(name)} of the chosen lambda (framed): ${value}; the default has a dashed frame. Empty: the need cannot be met. By keyboard, the sliders pick a lambda.`;
}

let lastFragment = null;
let resting = null;
// What takes long, of all lambdas at another prior or need, follows when the reader's hand rests.
function rest() {
  view.resting = true;
  drawCharts();
}

function update() {
  const started = performance.now();
  view.resting = false;
  clearTimeout(resting);
  resting = setTimeout(rest, 120);
  writeSliders();
  writeOutcome();
  writeComparison();
  writeGroups();
  drawCharts();
  writeFragment();
  performance.measure("move", { start: started, end: performance.now() });
}

// ---------------------------------------------------------------------------------------------------- link and point

function writeFragment() {
  const out = new URLSearchParams();
  for (const name of grid.names) out.set(`l.${name}`, String(grid.lambdas[name][view.lambda]));
  out.set("t", String(view.bin < 0 ? "nobody" : view.bin === curve().edge.length - 1 ? "everybody" : curve().edge[view.bin]));
  if (view.prior !== null) out.set("p", String(view.prior));
  for (const name of ["fn", "fp", "volume"]) out.set(name, String(view[name]));
  out.set("o", view.need.objective);
  view.need.constraints.forEach((c) => out.append("s", constraintText(c)));
  if (!view.simplest) out.set("best", "1");
  if (view.solved) out.set("found", "1");
  out.set("map", view.heatMetric);
  lastFragment = `#${out}`;
  // Browsers allow so many changes of the address in a time, and a slider makes more.
  clearTimeout(writeFragment.waiting);
  writeFragment.waiting = setTimeout(() => {
    try {
      history.replaceState(null, "", lastFragment);
    } catch {
      // In a frame without a history of its own, such as a mail reader's: the link is still to be copied.
    }
  }, 200);
}

// From a fragment; what is absent or makes no sense stays as it is.
function readFragment(text) {
  const from = new URLSearchParams(text.replace(/^#/, ""));
  if (!from.has("t")) return false;
  const positive = (name) => {
    const value = Number(from.get(name));
    if (from.has(name) && Number.isFinite(value) && value >= 0) view[name] = value;
  };
  ["fn", "fp", "volume"].forEach(positive);
  const p = Number(from.get("p"));
  view.prior = from.has("p") && p > 0 && p < 1 ? p : null;
  const objective = from.get("o");
  if (objective && OBJECTIVES.includes(objective.split("@")[0])) {
    const known = grid.subgroups.map((s) => s.column);
    const constraints = from.getAll("s").map(readConstraint);
    const sound = (c) => c && CONSTRAINED.includes(c.metric) && Number.isFinite(c.bound) && (c.every === null || known.includes(c.every));
    view.need = { objective, constraints: constraints.filter(sound) };
  }
  view.simplest = !from.has("best");
  const maps = [...$("heat-metric").options].map((o) => o.value);
  if (maps.includes(from.get("map"))) view.heatMetric = from.get("map");
  const lam = Object.fromEntries(grid.names.map((name) => [name, Number(from.get(`l.${name}`))]));
  if (grid.names.every((name) => Number.isFinite(lam[name]))) view.lambda = nearestLambda(lam);
  const t = from.get("t");
  view.bin = t === "nobody" ? -1 : t === "everybody" ? curve().edge.length - 1 : nearestBin(Number(t) || 0);
  view.solved = null;
  writeNeed();
  writeFields();
  $("heat-metric").value = view.heatMetric;
  if (from.has("found")) {
    const before = [view.lambda, view.bin];
    find();
    if (before[0] !== view.lambda || before[1] !== view.bin) {
      [view.lambda, view.bin] = before;
      pick({});
    }
  } else update();
  return true;
}

const POINT_METRICS = ["recall", "precision", "specificity", "fpr", "npv", "accuracy", "balanced_accuracy", "gmean", "mcc", "alert_rate", "f1", "f2"];

export function pointOf() {
  const threshold = logOddsThreshold(view.lambda, view.bin);
  const need = wholeNeed();
  const objective = metricOf(need.objective, need.cost);
  const names = [...POINT_METRICS, ...(view.solved && !POINT_METRICS.includes(need.objective) ? [need.objective] : [])];
  return {
    format: "tunelater.operating_point/2",
    lam: lamOf(view.lambda),
    threshold: sigmoid(threshold),
    log_odds_threshold: threshold,
    prior: shareOf(grid, view.prior) === view.prior ? view.prior : curve().positives / (curve().positives + curve().negatives),
    metrics: estimatesOf(view.lambda, view.bin, names),
    needs: view.solved ? needInWords(need, !objective.higher) : view.prior === null ? {} : { prior: view.prior },
    split: grid.split,
    n: grid.rows[0] + grid.rows[1],
    n_positive: grid.rows[1],
    model: grid.model,
    extrapolated: grid.extrapolated.includes(view.lambda),
    honest: {},
    against_default: null,
    simpler_than: view.solved && view.solved.best !== view.lambda ? lamOf(view.solved.best) : null,
    off_by: {},
    certificate: null,
    calibration: null,
  };
}

async function copied(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = element("textarea", { "aria-hidden": "true" }, text);
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  $("taken").textContent = `${what} copied.`;
}

function buildTake() {
  $("command").textContent = told.command;
  $("use").addEventListener("click", async () => {
    const blob = new Blob([`${JSON.stringify(pointOf(), null, 2)}\n`], { type: "application/json" });
    const url = URL.createObjectURL(blob);
    const anchor = element("a", { href: url, download: "point.json" });
    document.body.append(anchor);
    anchor.click();
    anchor.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
    await copied(told.command, "point.json saved; the command is");
  });
  $("copy").addEventListener("click", () => copied(told.command, "The command is"));
  $("link").addEventListener("click", () => copied(location.href.split("#")[0] + lastFragment, "A link to this choice is"));
  $("print").addEventListener("click", () => window.print());
}

// ---------------------------------------------------------------------------------------------------- terms

function termButton(key) {
  const button = element("button", { type: "button", class: "term", "data-explains": key }, termOf(key));
  const show = () => {
    const tip = $("tip");
    tip.textContent = TERMS[key][1];
    tip.hidden = false;
    const [box, width] = [button.getBoundingClientRect(), tip.offsetWidth];
    const left = Math.max(8, Math.min(box.left, document.documentElement.clientWidth - width - 8));
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${box.bottom + scrollY + 6}px`;
    button.setAttribute("aria-describedby", "tip");
  };
  const hide = () => {
    $("tip").hidden = true;
    button.removeAttribute("aria-describedby");
  };
  for (const event of ["mouseenter", "focus", "click"]) button.addEventListener(event, show);
  for (const event of ["mouseleave", "blur"]) button.addEventListener(event, hide);
  button.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  return button;
}

function buildWords() {
  const noun = `${told.noun}s`;
  $("run").textContent = told.run;
  $("about").textContent = `${number(grid.rows[0] + grid.rows[1])} ${grid.split} ${noun} of ${told.data}, ${number(grid.rows[1])} of them ${told.labels[1]} (positive). ${number(grid.size)} lambdas of one model; nothing is trained again.`;
  document.querySelectorAll("[data-term]").forEach((place) => place.append(termButton(place.dataset.term)));
  for (const [key, [name, says]] of Object.entries(TERMS)) $("terms").append(element("dt", { id: `term-${key}` }, name), element("dd", {}, says));
  $("made-of").textContent = `Counts of ${noun}, and nothing of any single one: no features, no scores. Between any two thresholds of a lambda lie ${grid.smallest} ${noun} at the least${grid.subgroups.length ? " (of each subgroup, where these are told apart)" : ""}; rare and missing values of a column are joined. The file fetches nothing and sends nothing. The same ${noun} that a point is chosen on flatter it: tunelater evaluate tells what it achieves on others. Model ${grid.model}.`;
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    $("choose").focus();
  });
}

function buildHeat() {
  $("heat-figure").hidden = charts.heat === null;
  const options = [["need", "what is wanted, at each lambda's best threshold"], ...WHOLE.map((m) => [m, termOf(m)]),
    ...["recall", "precision", "specificity", "f1", "alert_rate", "cost"].map((m) => [`at:${m}`, `${termOf(m)}, at this threshold`])];
  for (const [value, name] of options) $("heat-metric").append(element("option", { value }, name));
  $("heat-metric").addEventListener("change", () => {
    view.heatMetric = $("heat-metric").value;
    update();
  });
}

function buildGroups() {
  $("groups").hidden = grid.subgroups.length === 0;
  for (const s of grid.subgroups) $("column").append(element("option", { value: s.column }, s.column));
  $("column").addEventListener("change", () => {
    view.column = $("column").value;
    writeGroups();
  });
}

function start() {
  buildWords();
  buildForm();
  buildFields();
  buildSliders();
  buildOutcome();
  buildTake();
  buildHeat();
  buildGroups();
  if (!readFragment(location.hash)) {
    if (told.start) startAt(told.start);
    else begin();
  }
  // The faint family takes longest, and can come after the first look.
  const settle = () => {
    rest();
    document.documentElement.dataset.ready = "yes";
  };
  requestAnimationFrame(() => setTimeout(settle, 0));
  let waiting = null;
  const redraw = () => {
    clearTimeout(waiting);
    waiting = setTimeout(drawCharts, 60);
  };
  addEventListener("resize", redraw);
  for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", drawCharts);
  addEventListener("beforeprint", drawCharts);
  addEventListener("afterprint", redraw);
  addEventListener("hashchange", () => location.hash !== lastFragment && readFragment(location.hash));
}

function begin() {
  writeNeed();
  writeFields();
  find();
  if (view.solved) return;
  // Where that cannot be had: the best F1.
  const said = $("verdict").textContent;
  view.need = { objective: "f1", constraints: [] };
  writeNeed();
  find();
  $("verdict").textContent = `${said} Shown instead is the highest F1 score.`;
}

function startAt({ lam, log_odds_threshold, prior, needs }) {
  view.prior = typeof needs.prior === "number" || Array.isArray(needs.prior) ? prior : null;
  const objective = needs.cost ? "cost" : (needs.maximize ?? needs.minimize ?? "");
  if (OBJECTIVES.includes(objective.split("@")[0])) {
    const known = grid.subgroups.map((s) => s.column);
    const constraints = (needs.subject_to ?? []).map(readConstraint);
    view.need = { objective, constraints: constraints.filter((c) => c && CONSTRAINED.includes(c.metric) && (c.every === null || known.includes(c.every))) };
    if (needs.cost && Number.isFinite(Number(needs.cost.fn))) [view.fn, view.fp] = [Number(needs.cost.fn), Number(needs.cost.fp)];
  }
  writeNeed();
  writeFields();
  view.lambda = nearestLambda(lam);
  view.bin = nearestBin(log_odds_threshold - shiftOf(grid, view.prior));
  pick({});
  $("verdict").textContent = "This is the point that the report was made for, at the nearest threshold there is here.";
}

start();
