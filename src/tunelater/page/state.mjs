// What is chosen, and under what: the page's state, and how it changes.

import { readGrid, sigmoid } from "./grid.mjs";
import { atPrior, isDefined, metricOf } from "./metrics.mjs";
import { bestOf, firstOf, meritsOf, needKey, solve, standardError } from "./solve.mjs";
import { WHOLE, binFrom, cellsAt, shiftOf } from "./curves.mjs";
import { constraintAsPhrase, nameOf, needAsPhrase, number, percent, shown, termOf } from "./words.mjs";
import { $ } from "./dom.mjs";

// What follows a move.
const followers = [];
export const whenMoved = (follow) => followers.push(follow);
export const moved = () => followers.forEach((follow) => follow());

const BEYOND = 1e6;
export const told = JSON.parse(document.getElementById("data").textContent);
export const grid = readGrid(told.grid);
const distinct = (values) => [...new Set(values)].sort((a, b) => a - b);
export const view = {
  grid,
  axes: Object.fromEntries(grid.names.map((name) => [name, distinct(grid.lambdas[name])])),
  lambda: grid.default,
  bin: -1,
  // The threshold that was asked for, in log-odds at the scores' own prior: each lambda has its own nearest one.
  wanted: Infinity,
  prior: null,
  fn: 50,
  fp: 1,
  volume: 1000,
  need: { objective: "precision", constraints: [{ metric: "recall", relation: ">=", bound: 0.95, every: null }] },
  simplest: true,
  // Whether the need is what put the point where it is, and what was found for it.
  asked: false,
  solved: null,
  heatMetric: "need",
  column: grid.subgroups[0]?.column ?? null,
};
view.places = Object.fromEntries(
  grid.names.map((name) => [name, grid.lambdas[name].map((v) => view.axes[name].indexOf(v))]),
);
export const curve = () => grid.curves[view.lambda];
export const cells = () => cellsAt(curve(), view.bin);
export const costs = () => ({ fn: view.fn, fp: view.fp });
export const wholeNeed = () => ({ ...view.need, cost: costs(), prior: view.prior });
export const lamOf = (i) => Object.fromEntries(grid.names.map((name) => [name, grid.lambdas[name][i]]));
export const logOddsThreshold = (i, k) => {
  if (k < 0) return BEYOND;
  return k === grid.curves[i].edge.length - 1 ? -BEYOND : grid.curves[i].edge[k] + shiftOf(grid, view.prior);
};
export const toldThreshold = (i, k) =>
  k < 0 ? "nobody" : k === grid.curves[i].edge.length - 1 ? "everybody" : percent(sigmoid(logOddsThreshold(i, k)));
export const toldAlerts = (i, k) =>
  `alert ${k < 0 || k === grid.curves[i].edge.length - 1 ? "on" : "from probability"} ${toldThreshold(i, k)}`;
export const toldLambda = (i) =>
  grid.names.map((name) => `${nameOf(name)} ${number(grid.lambdas[name][i])}`).join(", ");

// The lambda nearest to some values, in units of each hyperparameter's range; with a name, of those that have its value.
export function nearestLambda(lam, fixed = null) {
  let [best, least] = [0, Infinity];
  for (let i = 0; i < grid.size; i++) {
    if (fixed !== null && grid.lambdas[fixed][i] !== lam[fixed]) continue;
    let d = 0;
    for (const name of grid.names) {
      const range = view.axes[name].at(-1) - view.axes[name][0] || 1;
      d += ((grid.lambdas[name][i] - lam[name]) / range) ** 2;
    }
    if (d < least) [best, least] = [i, d];
  }
  return best;
}

// The map's figure: "need", one of WHOLE, or "at:" and a metric of the threshold.
view.heatFigure = () => {
  if (view.heatMetric === "need") return view.need.objective;
  const name = view.heatMetric.replace("at:", "");
  return name === "net_benefit" ? `net_benefit@${sigmoid(view.wanted + shiftOf(grid, view.prior))}` : name;
};
view.heatKey = () => {
  if (view.heatMetric === "need") return needKey(wholeNeed());
  const at = view.heatMetric.startsWith("at:") ? view.wanted : "";
  return [view.heatMetric, view.prior, view.heatMetric === "at:cost" ? [view.fn, view.fp] : "", at].join();
};
view.heatValues = () => {
  if (view.heatMetric === "need") return meritsOf(grid, wholeNeed());
  const name = view.heatFigure();
  const metric = metricOf(name, costs());
  return grid.curves.map((of) => {
    const c = cellsAt(of, nearestBin(of, view.wanted));
    return isDefined(name, c) ? metric.values(atPrior(c, view.prior)) : NaN;
  });
};

// Of the map's values, which lie within one standard error of the best, as choosing counts it; null for metrics of whole
// lambdas, of which it counts none.
view.heatNear = (values) => {
  if (WHOLE.includes(view.heatMetric)) return null;
  const objective = metricOf(view.heatFigure(), costs());
  const worth = values.map((v) => (Number.isFinite(v) ? (objective.higher ? v : -v) : -Infinity));
  const ofNeed = view.heatMetric === "need" ? bestOf(grid, wholeNeed()) : null;
  const first = ofNeed ? firstOf(ofNeed) : worth.indexOf(Math.max(...worth));
  if (first === null || worth[first] === -Infinity) return values.map(() => false);
  const counts = ofNeed?.[first].counts ?? cellsAt(grid.curves[first], nearestBin(grid.curves[first], view.wanted));
  const reach = standardError({ grid, objective, prior: view.prior }, counts);
  return worth.map((v) => v > -Infinity && v >= worth[first] - reach);
};

export function pick({ lambda = view.lambda, bin = null }) {
  view.lambda = lambda;
  goTo(bin ?? nearestBin(curve(), view.wanted), bin === null);
  [view.asked, view.solved] = [false, null];
  $("verdict").textContent = "";
  moved();
}

// Another lambda keeps the threshold that was asked for, as near as its own thresholds come.
function goTo(bin, keep = false) {
  view.bin = bin;
  if (!keep) view.wanted = bin < 0 ? Infinity : curve().edge[bin];
}

export function nearestBin({ edge }, limit) {
  if (!Number.isFinite(limit)) return limit > 0 ? -1 : edge.length - 1;
  const k = binFrom({ edge }, limit);
  if (k + 1 >= edge.length - 1) return Math.max(k, 0);
  const [above, below] = [k < 0 ? Infinity : edge[k] - limit, limit - edge[k + 1]];
  return above <= below ? k : k + 1;
}

// Subgroups have fewer thresholds than all cases, and conditions within them fewer to be met at.
function judgedAt(lambdas) {
  const column = view.need.constraints.find((c) => c.every)?.every;
  if (!column) return "";
  const { cuts } = grid.subgroups.find((s) => s.column === column);
  const n = [...lambdas].map((i) => cuts[i].ends.length);
  const [least, most] = [Math.min(...n), Math.max(...n)];
  return ` So that single cases stay hidden, conditions in every ${called(column)} are judged at no more than ${least === most ? most : `${least} to ${most}`} thresholds of ${n.length > 1 ? "a" : "this"} lambda here: tunelater tune judges at all of them, and may find a better point.`;
}
// A need with its columns as they are told.
function withNames(need) {
  return { ...need, constraints: need.constraints.map((c) => ({ ...c, every: c.every && called(c.every) })) };
}
export const called = (column) => grid.subgroups.find((s) => s.column === column).called;

// The best point for the need, under the prior and the costs that are stated now.
export function answer() {
  const found = solve(grid, wholeNeed(), { simplest: view.simplest });
  view.asked = true;
  view.solved = found.feasible ? { best: found.best } : null;
  if (found.feasible) {
    view.lambda = found.lambda;
    goTo(found.bin);
  }
  $("verdict").textContent = found.feasible ? whatWasFound(found) : whatIsReached(found);
  moved();
}

function whatWasFound({ lambda, bin, best }) {
  const { higher } = metricOf(view.need.objective, costs());
  const plain =
    best === lambda ? "" : ` The best on these cases is ${toldLambda(best)}, by less than a standard error.`;
  const stays = grid.size > 1 && view.simplest && lambda === grid.default;
  const kept = stays ? " It is the default lambda: no other is better by more than a standard error." : "";
  const point = `${grid.size > 1 ? `lambda ${toldLambda(lambda)}; ` : ""}${toldAlerts(lambda, bin)}`;
  const wanted = needAsPhrase(withNames(view.need), higher);
  return `Found: ${point}. Wanted is the ${wanted}.${kept}${plain}${judgedAt([lambda])}`;
}

function whatIsReached({ reaches }) {
  const { constraints } = withNames(view.need);
  if (constraints.length === 0) return "No lambda and threshold has that on these cases.";
  const reached = reaches.map(({ alone, together }, j) => {
    const c = constraints[j];
    const others =
      together === null ? "; the others already fail" : `, and ${shown(c.metric, together)} with the others`;
    const within = c.every ? ` in every ${c.every}` : "";
    return `${termOf(c.metric)}${within} reaches ${shown(c.metric, alone)} alone${constraints.length === 1 ? "" : others}`;
  });
  const wanted = constraints.map(constraintAsPhrase).join(" and ");
  const stays = `The point stays where it was.${judgedAt(grid.curves.keys())}`;
  return `No lambda and threshold has ${wanted} on these cases: ${reached.join("; ")}. ${stays}`;
}
