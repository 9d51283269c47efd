// What is asked for: the need, where it will be used, and the point by hand.

import { metricOf } from "./metrics.mjs";
import { shareOf, stopsOf } from "./curves.mjs";
import { asPercent, explained, nameOf, number, percent, termOf } from "./words.mjs";
import { $, element } from "./dom.mjs";
import {
  answer,
  called,
  curve,
  grid,
  lamOf,
  moved,
  nearestLambda,
  pick,
  toldAlerts,
  toldThreshold,
  view,
} from "./state.mjs";
import { questionOf } from "./terms.mjs";

// What the form asks for.
function find() {
  if (readNeed()) answer();
}

export const OBJECTIVES = [
  "precision",
  "recall",
  "specificity",
  "npv",
  "f1",
  "f2",
  "mcc",
  "balanced_accuracy",
  "gmean",
  "accuracy",
  "alert_rate",
  "fpr",
  "cost",
  "net_benefit",
];
export const CONSTRAINED = [
  "recall",
  "precision",
  "specificity",
  "fpr",
  "npv",
  "alert_rate",
  "accuracy",
  "balanced_accuracy",
  "gmean",
  "f1",
  "f2",
  "mcc",
];
const PRESETS = [
  [
    "Miss few",
    "recall at least 95%, then the highest precision",
    { objective: "precision", constraints: [["recall", ">=", 0.95]] },
  ],
  [
    "Few alerts",
    "at most 50 alerts in 1,000 cases, then the highest recall",
    { objective: "recall", constraints: [["alert_rate", "<=", 0.05]] },
  ],
  ["Lowest cost", "the lowest expected cost", { objective: "cost", constraints: [] }],
];

export function buildForm() {
  for (const name of OBJECTIVES) {
    const best = name === "net_benefit" || metricOf(name, { fn: 1 }).higher ? "highest" : "lowest";
    $("objective").append(element("option", { value: name }, `${best} ${termOf(name)}`));
  }
  $("objective").addEventListener("change", askBenefit);
  for (const [name, says, need] of PRESETS) {
    const button = element("button", { type: "button" }, element("strong", {}, name), ": ", says);
    button.addEventListener("click", () => {
      view.need = {
        ...need,
        constraints: need.constraints.map(([metric, relation, bound]) => ({ metric, relation, bound, every: null })),
      };
      writeNeed();
      find();
    });
    $("presets").append(button);
  }
  $("add").addEventListener("click", () =>
    addConstraint({ metric: "recall", relation: ">=", bound: 0.9, every: null }).querySelector("select").focus(),
  );
  $("need").addEventListener("submit", (event) => {
    event.preventDefault();
    find();
  });
  $("simplest").addEventListener("change", () => {
    view.simplest = $("simplest").checked;
    if (view.asked) answer();
  });
}

// Net benefit is at a threshold probability.
function askBenefit() {
  $("benefit-field").hidden = $("objective").value !== "net_benefit";
  $("benefit-at").disabled = $("benefit-field").hidden;
}

function addConstraint({ metric, relation, bound, every }) {
  const metrics = element("select", { "aria-label": "figure" });
  for (const name of CONSTRAINED) metrics.append(element("option", { value: name }, termOf(name)));
  metrics.value = metric;
  const relations = element("select", { "aria-label": "at least or at most" });
  relations.append(element("option", { value: ">=" }, "at least"), element("option", { value: "<=" }, "at most"));
  relations.value = relation;
  const value = element("input", {
    type: "number",
    step: "any",
    "aria-label": "bound",
    required: "",
    inputmode: "decimal",
  });
  const sign = element("span", { "aria-hidden": "true" });
  const scaled = () => {
    sign.textContent = asPercent(metrics.value) ? "%" : "";
    value.min = metrics.value === "mcc" ? -1 : 0;
    value.max = asPercent(metrics.value) ? 100 : 1;
  };
  scaled();
  value.value = String(Number((asPercent(metric) ? bound * 100 : bound).toPrecision(8)));
  metrics.addEventListener("change", scaled);
  const row = element(
    "div",
    { class: "constraint", role: "group", "aria-label": "condition" },
    metrics,
    relations,
    value,
    sign,
  );
  const remove = element("button", { type: "button", "aria-label": "Remove this condition" }, "×");
  remove.addEventListener("click", () => {
    row.remove();
    $("add").focus();
  });
  row.append(remove);
  if (grid.subgroups.length) {
    const within = element("select", { "aria-label": "among whom", class: "every" });
    within.append(element("option", { value: "" }, "among all cases"));
    for (const s of grid.subgroups) within.append(element("option", { value: s.column }, `in every ${s.called}`));
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
    $("verdict").textContent =
      `Conditions in every value are for one column at a time, got ${[...columns].map(called).join(" and ")}: remove one. Shown is still what was.`;
    return false;
  }
  let objective = $("objective").value;
  if (objective === "net_benefit")
    objective = `net_benefit@${Number((Number($("benefit-at").value) / 100).toPrecision(6))}`;
  view.need = { objective, constraints };
  return true;
}

export function writeNeed() {
  const [objective, at] = view.need.objective.split("@");
  $("objective").value = objective;
  askBenefit();
  if (at) $("benefit-at").value = String(Number((Number(at) * 100).toPrecision(8)));
  $("constraints").replaceChildren();
  view.need.constraints.forEach(addConstraint);
  $("simplest").checked = view.simplest;
}

// What a field may hold; NaN is what is no number. One in a billion, and a trillion, are as far as sums stay exact enough.
const [LEAST, MOST] = [1e-9, 1e12];
const COST = {
  rule: "0 or more, and above 0 where the other cost is 0; a trillion at most",
  sound: (v, { fn, fp }) => v >= 0 && v <= MOST && !(fn === 0 && fp === 0),
};
export const FIELDS = {
  prior: {
    rule: "above 0 and below 100 by a ten-millionth or more, or empty",
    scale: 100,
    sound: (v) => v === null || (v >= LEAST && v <= 1 - LEAST),
  },
  volume: { rule: "a number above 0, at most a trillion", sound: (v) => v > 0 && v <= MOST },
  fn: COST,
  fp: COST,
};

export function buildFields() {
  const own = shareOf(grid, null);
  $("prior-hint").textContent = `empty: ${percent(own)}, as here`;
  $("prior").placeholder = String(Number((own * 100).toPrecision(3)));
  for (const id of Object.keys(FIELDS)) {
    $(id).addEventListener("input", () => {
      readFields();
      // At another prior or cost the need is met elsewhere: what was found for it is found again.
      if (view.asked) answer();
      else moved();
    });
  }
}

// What is sound in the fields counts; beside what is not stands what it should be, and what counts instead.
function readFields() {
  const read = {};
  for (const [id, { scale = 1 }] of Object.entries(FIELDS)) {
    const { value, validity } = $(id);
    if (id === "prior" && value === "" && !validity.badInput) read[id] = null;
    else read[id] = value === "" || validity.badInput ? NaN : Number(value) / scale;
  }
  for (const [id, { sound }] of Object.entries(FIELDS)) {
    const fits = sound(read[id], read);
    if (fits) view[id] = read[id];
    writeProblem(id, !fits);
  }
}

function writeProblem(id, wrong) {
  const counts = id === "prior" ? percent(shareOf(grid, view.prior)) : number(view[id]);
  const problem = wrong ? `Must be ${FIELDS[id].rule}. Figures are still for ${counts}.` : "";
  if ($(`${id}-problem`).textContent !== problem) $(`${id}-problem`).textContent = problem;
  $(id).setCustomValidity(problem);
  $(id).setAttribute("aria-invalid", String(wrong));
}

export function writeFields() {
  $("prior").value = view.prior === null ? "" : String(Number((view.prior * 100).toPrecision(8)));
  for (const id of ["volume", "fn", "fp"]) $(id).value = String(view[id]);
  for (const id of Object.keys(FIELDS)) writeProblem(id, false);
}

const sliders = {};
export function buildSliders() {
  const add = (id, name, max, onInput) => {
    const input = element("input", { type: "range", id: `slider-${id}`, min: 0, max, step: 1 });
    const output = element("output", { for: `slider-${id}` });
    const label = element("label", { for: `slider-${id}` }, name);
    const top = element("div", { class: "slider-top" }, label, ...(explained(id) ? [questionOf(id)] : []), output);
    $("sliders").append(element("div", { class: "slider" }, top, input));
    input.addEventListener("input", () => onInput(Number(input.value)));
    sliders[id] = { input, output };
  };
  for (const name of grid.names) {
    const values = view.axes[name];
    if (values.length < 2) continue;
    add(name, nameOf(name), values.length - 1, (i) => {
      pick({ lambda: nearestLambda({ ...lamOf(view.lambda), [name]: values[i] }, name) });
    });
  }
  add("threshold", "threshold: alert from probability", 1, (k) => pick({ bin: stopsHere()[k] }));
  $("to-default").addEventListener("click", () => pick({ lambda: grid.default }));
  $("to-default").hidden = grid.size < 2;
}

// From everybody up to nobody, with the threshold that was found or clicked on.
function stopsHere() {
  return [...new Set([...stopsOf(curve()), view.bin])].sort((a, b) => b - a);
}

export function writeSliders() {
  for (const name of grid.names) {
    const slider = sliders[name];
    if (!slider) continue;
    slider.input.value = view.places[name][view.lambda];
    const text = number(grid.lambdas[name][view.lambda]);
    slider.output.textContent = text;
    slider.input.setAttribute("aria-valuetext", text);
  }
  const { input, output } = sliders.threshold;
  const stops = stopsHere();
  input.max = stops.length - 1;
  input.value = stops.indexOf(view.bin);
  output.textContent = toldThreshold(view.lambda, view.bin);
  input.setAttribute("aria-valuetext", toldAlerts(view.lambda, view.bin));
}
