// The choice to take along: as a link or a text, as a file, as a command.

import { sigmoid } from "./grid.mjs";
import { metricOf } from "./metrics.mjs";
import { shareOf } from "./curves.mjs";
import { constraintText, counted, needInWords, readConstraint, readObjective } from "./words.mjs";
import { $, element } from "./dom.mjs";
import {
  answer,
  costs,
  curve,
  grid,
  lamOf,
  logOddsThreshold,
  nearestBin,
  nearestLambda,
  pick,
  told,
  view,
  wholeNeed,
} from "./state.mjs";
import { CONSTRAINED, FIELDS, OBJECTIVES, writeFields, writeNeed } from "./form.mjs";
import { estimatesOf } from "./outcome.mjs";

export let lastFragment = null;
export function writeFragment() {
  const out = new URLSearchParams();
  for (const name of grid.names) out.set(`l.${name}`, String(grid.lambdas[name][view.lambda]));
  out.set("t", Number.isFinite(view.wanted) ? String(view.wanted) : view.wanted > 0 ? "nobody" : "everybody");
  if (view.prior !== null) out.set("p", String(view.prior));
  for (const name of ["fn", "fp", "volume"]) out.set(name, String(view[name]));
  out.set("o", view.need.objective);
  view.need.constraints.forEach((c) => out.append("s", constraintText(c)));
  if (!view.simplest) out.set("best", "1");
  if (view.solved) out.set("found", "1");
  out.set("map", view.heatMetric);
  if (view.column !== null) out.set("groups", view.column);
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

// From a fragment; what is absent or makes no sense stays as it is, and of the latter is told what it was. False where there
// is no choice in it.
export function readFragment(text) {
  const from = new URLSearchParams(text.replace(/^#/, ""));
  if (!from.has("t")) return false;
  const leftOut = [...fieldsFrom(from), ...needFrom(from), ...shownFrom(from), ...pointFrom(from)];
  [view.asked, view.solved] = [false, null];
  writeNeed();
  writeFields();
  $("heat-metric").value = view.heatMetric;
  if (view.column !== null) $("column").value = view.column;
  const { lambda, bin, wanted } = view;
  if (from.has("found")) answer();
  if (!from.has("found") || lambda !== view.lambda || bin !== view.bin) {
    view.wanted = wanted;
    pick({ lambda });
  }
  if (leftOut.length) alsoTell(`Left out of what was given, as it makes no sense here: ${leftOut.join(", ")}.`);
  return true;
}

const alsoTell = (text) => ($("verdict").textContent = `${$("verdict").textContent} ${text}`.trim());

// Of an address that holds no choice, unless it leads to a part of the page.
export function tellStray(text) {
  if (text.length > 1 && !$(text.slice(1)))
    alsoTell("What the address has after its # is no choice of this page, and was left out.");
}

const numberIn = (from, name) => (from.get(name)?.trim() ? Number(from.get(name)) : NaN);

// What follows writes into `view` what is sound, and returns the names of what is not.
function fieldsFrom(from) {
  const names = { fn: "cost of a miss", fp: "cost of a false alarm", volume: "cases a day" };
  const read = { fn: view.fn, fp: view.fp };
  for (const name of ["fn", "fp"]) if (from.has(name)) read[name] = numberIn(from, name);
  const leftOut = [];
  for (const [name, called] of Object.entries(names)) {
    if (!from.has(name)) continue;
    const value = numberIn(from, name);
    if (FIELDS[name].sound(value, read)) view[name] = value;
    else leftOut.push(called);
  }
  const prior = from.has("p") ? numberIn(from, "p") : null;
  const sound = FIELDS.prior.sound(prior);
  view.prior = sound ? prior : null;
  return sound ? leftOut : [...leftOut, "share of positives"];
}

const MOST_CONSTRAINTS = 12;
function needFrom(from) {
  const texts = from.getAll("s");
  const objective = from.has("o") ? readObjective(from.get("o"), OBJECTIVES) : null;
  view.simplest = !from.has("best");
  if (objective === null) return from.has("o") || texts.length ? ["what is wanted"] : [];
  const constraints = [];
  for (const c of texts.map(readConstraint)) {
    if (!c || !CONSTRAINED.includes(c.metric) || constraints.length === MOST_CONSTRAINTS) continue;
    // Within the values of one column at a time.
    const column = constraints.find((of) => of.every)?.every ?? c.every;
    const known = grid.subgroups.some((s) => s.column === c.every) && c.every === column;
    if (c.every === null || known) constraints.push(c);
  }
  view.need = { objective, constraints };
  const n = texts.length - constraints.length;
  return n ? [counted(n, "condition")] : [];
}

function shownFrom(from) {
  const kept = (id, name) => [...$(id).options].find((option) => option.value === from.get(name))?.value;
  const [map, column] = [kept("heat-metric", "map"), kept("column", "groups")];
  view.heatMetric = map ?? view.heatMetric;
  view.column = column ?? view.column;
  return [
    ...(from.has("map") && map === undefined ? ["figure in the map"] : []),
    ...(from.has("groups") && column === undefined ? ["column of subgroups"] : []),
  ];
}

function pointFrom(from) {
  const leftOut = [];
  const lam = Object.fromEntries(grid.names.map((name) => [name, numberIn(from, `l.${name}`)]));
  if (grid.names.every((name) => Number.isFinite(lam[name]))) {
    view.lambda = nearestLambda(lam);
    if (grid.names.some((name) => grid.lambdas[name][view.lambda] !== lam[name]))
      leftOut.push("lambda (the nearest is shown)");
  } else if ([...from.keys()].some((key) => key.startsWith("l."))) leftOut.push("lambda");
  const t = from.get("t");
  const wanted = t === "nobody" ? Infinity : t === "everybody" ? -Infinity : numberIn(from, "t");
  if (Number.isNaN(wanted)) leftOut.push("threshold");
  else view.wanted = wanted;
  view.bin = nearestBin(curve(), view.wanted);
  return leftOut;
}

const POINT_METRICS = [
  "recall",
  "precision",
  "specificity",
  "fpr",
  "npv",
  "accuracy",
  "balanced_accuracy",
  "gmean",
  "mcc",
  "alert_rate",
  "f1",
  "f2",
];

function pointOf() {
  const threshold = logOddsThreshold(view.lambda, view.bin);
  const need = wholeNeed();
  const objective = metricOf(need.objective, need.cost);
  const names = [...POINT_METRICS, ...(view.solved && !POINT_METRICS.includes(need.objective) ? [need.objective] : [])];
  const estimates = Object.entries(estimatesOf(view.lambda, view.bin, names));
  return {
    format: "tunelater.operating_point/2",
    lam: lamOf(view.lambda),
    threshold: sigmoid(threshold),
    log_odds_threshold: threshold,
    prior:
      shareOf(grid, view.prior) === view.prior
        ? view.prior
        : curve().positives / (curve().positives + curve().negatives),
    metrics: Object.fromEntries(estimates.filter(([, interval]) => interval.every(Number.isFinite))),
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

// Files of different choices have different names, so that a browser that saved one before saves the other beside it
// without making up a name that the command does not have.
function fileOfPoint() {
  const needs = view.solved ? [view.need, costs(), view.solved.best] : null;
  const point = [lamOf(view.lambda), logOddsThreshold(view.lambda, view.bin), view.prior, needs];
  const choice = [grid.model, grid.split, grid.rows, point];
  return `point-${digest(JSON.stringify(choice))}.json`;
}

// FNV-1a's 32 bits.
function digest(text) {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash.toString(16).padStart(8, "0");
}

export function writeTake() {
  const file = fileOfPoint();
  const at = told.command.lastIndexOf("point.json");
  $("file").textContent = file;
  $("command").textContent = `${told.command.slice(0, at)}${file}${told.command.slice(at + "point.json".length)}`;
}

// Whether the text is on the clipboard, as far as the browser says.
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const focused = document.activeElement;
    const area = element("textarea", { "aria-hidden": "true" }, text);
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return done;
  }
}

// The address of a page on a server; a file's would tell where it lies, and lead nobody else there.
const served = /^https?:$/.test(location.protocol);
const stateAsText = () => (served ? location.href.split("#")[0] : "") + lastFragment;

export function buildTake() {
  const say = (text) => ($("taken").textContent = text);
  const copy = async (text, what, place) =>
    (await copied(text))
      ? `${what} is copied.`
      : `Your browser does not let ${what.toLowerCase()} be copied: mark it ${place} and copy it by hand.`;
  $("use").addEventListener("click", async () => {
    const blob = new Blob([`${JSON.stringify(pointOf(), null, 2)}\n`], { type: "application/json" });
    const url = URL.createObjectURL(blob);
    const file = fileOfPoint();
    const anchor = element("a", { href: url, download: file });
    document.body.append(anchor);
    anchor.click();
    anchor.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
    say(`Your browser was given ${file} to save. ${await copy($("command").textContent, "The command", "above")}`);
  });
  $("copy").addEventListener("click", async () => say(await copy($("command").textContent, "The command", "above")));
  $("link").textContent = served ? "Copy a link to this choice" : "Copy this choice as text";
  $("link").addEventListener("click", async () => {
    $("state").value = stateAsText();
    say(`${await copy(stateAsText(), served ? "The link" : "The text", "below")} Who has this page pastes it there.`);
  });
  $("paste").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("state").value.trim();
    const read = readFragment(text.slice(text.indexOf("#") + 1));
    say(read ? "The pasted choice is shown." : "That is no choice of this page: paste what was copied, from its # on.");
  });
  $("print").addEventListener("click", () => window.print());
}
