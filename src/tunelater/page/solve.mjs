// The best (lambda, threshold) for a need, by the rules of search.py and tuning.py, on the counts of the page.
//
// A need is {objective: name, cost: {fn, fp} or null, constraints: [{metric, relation, bound, every}], prior}, with
// prior null for the cases' own share of positives, and `every` the column within whose values a constraint holds.

import { atPrior, metricOf, needsNegatives, needsPositives, noCounts } from "./metrics.mjs";

const ROUNDING = 1e-12;

export function solve(grid, need, { simplest = true } = {}) {
  const judged = bestOf(grid, need);
  if (!judged.some(meets)) return { feasible: false, reaches: reaches(last.task) };
  const first = firstOf(judged);
  let chosen = first;
  const reach = simplest && grid.size > 1 ? standardError(last.task, judged[first].counts) : 0;
  if (reach > 0) {
    let nearest = Infinity;
    judged.forEach((c, i) => {
      if (meets(c) && c.merit >= judged[first].merit - reach && grid.distance[i] < nearest)
        [nearest, chosen] = [grid.distance[i], i];
    });
  }
  return { feasible: true, lambda: chosen, bin: judged[chosen].bin, best: first };
}

// The best lambda, of equals the one with the higher recall, then the first; null where none meets all constraints.
export function firstOf(judged) {
  let first = null;
  judged.forEach((c, i) => {
    if (!meets(c)) return;
    if (
      first === null ||
      c.merit > judged[first].merit ||
      (c.merit === judged[first].merit && recallOf(c) > recallOf(judged[first]))
    )
      first = i;
  });
  return first;
}

// Whether some threshold of a lambda meets all constraints.
export const meets = (c) => c.counts !== null;
const recallOf = ({ counts }) => (counts.positives > 0 ? counts.tp / counts.positives : 0);

// What a need depends on.
export const needKey = (need) =>
  JSON.stringify([need.objective, need.objective === "cost" ? need.cost : null, need.constraints, need.prior]);

// What the last need came to, lambda by lambda: the choice, the map of all lambdas and the comparison ask for the same.
const last = { grid: null, key: "", task: null, judged: [] };

// Judges some more lambdas, so that not all have to be in one frame; true until all are.
export function judgeSome(grid, need, some) {
  const key = needKey(need);
  if (last.grid !== grid || last.key !== key) Object.assign(last, { grid, key, task: taskOf(grid, need), judged: [] });
  const end = Math.min(last.judged.length + some, grid.size);
  while (last.judged.length < end) last.judged.push(best(last.task, last.judged.length));
  return end < grid.size;
}

// The best threshold of every lambda that meets all constraints: {merit, bin, counts}, where more merit is better; where
// none does, the counts are null.
export function bestOf(grid, need) {
  judgeSome(grid, need, grid.size);
  return last.judged;
}

// The objective of every lambda at its own best threshold; NaN where none meets the constraints. For heat maps.
export function meritsOf(grid, need) {
  const { higher } = metricOf(need.objective, need.cost);
  return bestOf(grid, need).map((c) => (meets(c) ? (higher ? c.merit : -c.merit) : NaN));
}

function taskOf(grid, need) {
  const column = need.constraints.find((c) => c.every)?.every ?? null;
  const constraints = need.constraints.map((c) => ({
    of: metricOf(c.metric),
    floor: c.relation === ">=",
    bound: c.bound,
    every: c.every !== null,
    positives: needsPositives(c.metric),
    negatives: needsNegatives(c.metric),
  }));
  return {
    grid,
    prior: need.prior,
    objective: metricOf(need.objective, need.cost),
    constraints,
    // Where every constraint is a floor on what should be high or a ceiling on what should be low, a bin without
    // positives is never worth stopping at.
    everyBin: !constraints.every((c) => c.floor === c.of.higher),
    subgroups: column === null ? null : grid.subgroups.find((s) => s.column === column),
    // Those that are met from some threshold on, or down to one, and those that have to be looked at everywhere.
    ranges: constraints.filter((c) => c.of.rises !== undefined),
    others: constraints.filter((c) => c.of.rises === undefined),
  };
}

// A lambda's bins that are worth a look, from nobody down to everybody, found once.
const binsOf = { found: new WeakMap(), every: new WeakMap() };
function thresholdsOf({ grid, subgroups, everyBin, prior }, i) {
  const curve = subgroups?.cuts[i] ?? grid.curves[i];
  const known = everyBin ? binsOf.every : binsOf.found;
  if (!known.has(curve)) known.set(curve, Int32Array.from(binsWorthALook(curve, everyBin)));
  return { curve, bins: known.get(curve), prior };
}

function binsWorthALook({ tp, fp, positives, negatives }, everyBin) {
  const bins = [-1];
  for (let k = 0; k < tp.length; k++) {
    const found = tp[k] > (k > 0 ? tp[k - 1] : 0);
    const more = fp[k] > (k > 0 ? fp[k - 1] : 0);
    const lowest = tp[k] === positives && fp[k] === negatives;
    if (found || (more && (everyBin || lowest))) bins.push(k);
  }
  return bins;
}

// A grid has a hundred thousand thresholds: counts are written into the same few objects.
const [ALL, ALL_SHARES, GROUP, GROUP_SHARES] = [noCounts(), noCounts(), noCounts(), noCounts()];

function countsAt({ tp, fp, positives, negatives }, k, out) {
  out.tp = k < 0 ? 0 : tp[k];
  out.fp = k < 0 ? 0 : fp[k];
  out.positives = positives;
  out.negatives = negatives;
  return out;
}

// Of all cases at threshold number j, counts or shares.
const allAt = ({ curve, bins, prior }, j) => atPrior(countsAt(curve, bins[j], ALL), prior, ALL, ALL_SHARES);

// All metrics are called here: browsers compile a place that has seen two of them for any, and need not do so again.
const valueOf = (metric, at) => metric.values(at);

function meritAt(objective, at) {
  const value = valueOf(objective, at);
  return objective.higher ? value : -value;
}

const short = ({ of, floor, bound }, at) => (floor ? bound - valueOf(of, at) : valueOf(of, at) - bound);

// By how much a constraint is missed at threshold number j, where `all` are its counts or shares; negative where it is
// exceeded. Of subgroups the worst counts, and no more are looked at than show that it is missed by more than `enough`.
function shortfall({ curve, bins, prior }, c, j, all, enough) {
  if (!c.every) return short(c, all);
  let worst = -Infinity;
  for (let g = 0; g < curve.curves.length && worst <= enough; g++) {
    const group = curve.curves[g];
    if ((c.positives && !(group.positives > 0)) || (c.negatives && !(group.negatives > 0))) continue;
    worst = Math.max(worst, short(c, atPrior(countsAt(group, bins[j], GROUP), prior, ALL, GROUP_SHARES)));
  }
  return worst;
}

const isMet = (thresholds, c, j, all) => shortfall(thresholds, c, j, all, ROUNDING) <= ROUNDING;

// The first number from which on something holds.
function firstWhere(from, to, holds) {
  while (from < to) {
    const middle = (from + to) >> 1;
    if (holds(middle)) to = middle;
    else from = middle + 1;
  }
  return from;
}

// The threshold of most merit among those that meet all constraints; of equal ones the lowest.
function best(task, i) {
  const { objective, ranges, others } = task;
  const thresholds = thresholdsOf(task, i);
  const { curve, bins } = thresholds;
  let [from, to] = [0, bins.length];
  for (const c of ranges) {
    // What rises with each alert more keeps a floor from some threshold on, and a ceiling down to one.
    const later = c.floor === c.of.rises;
    const turn = firstWhere(from, to, (j) => isMet(thresholds, c, j, allAt(thresholds, j)) === later);
    if (later) from = turn;
    else to = turn;
  }
  let merit = -Infinity;
  let chosen = null;
  for (let j = to - 1; j >= from; j--) {
    const all = allAt(thresholds, j);
    let met = 0;
    while (met < others.length && isMet(thresholds, others[met], j, all)) met++;
    if (met < others.length) continue;
    const value = meritAt(objective, all);
    if (!(value > merit)) continue;
    merit = value;
    chosen = bins[j];
  }
  if (chosen === null) return { merit, bin: null, counts: null };
  const bin = task.subgroups && chosen >= 0 ? curve.ends[chosen] : chosen;
  return { merit, bin, counts: countsAt(curve, chosen, noCounts()) };
}

// Of the merit at some counts, from those of both rates, with half an observation more of either kind. Of a task it takes
// the grid, the objective and the prior.
export function standardError(task, at) {
  let sum = 0;
  const channels = [
    ["tp", at.positives, task.grid.sizes[1]],
    ["fp", at.negatives, task.grid.sizes[0]],
  ];
  for (const [name, total, size] of channels) {
    const rate = ((total > 0 ? at[name] / total : 0) * size + 0.5) / (size + 1);
    const step = Math.sqrt((rate * (1 - rate)) / (size + 1));
    const [up, down] = [1, -1].map((sign) => {
      const moved = Math.min(Math.max(rate + sign * step, 0), 1) * total;
      return meritAt(task.objective, atPrior({ ...at, [name]: moved }, task.prior));
    });
    const half = (up - down) / 2;
    sum += half * half;
  }
  return Math.sqrt(sum);
}

// For each constraint: how far its metric goes alone, and with the others met (null where these fail already).
function reaches(task) {
  const { constraints, grid } = task;
  const missed = new Float64Array(constraints.length);
  const alone = missed.map(() => Infinity);
  const together = missed.map(() => Infinity);
  for (let i = 0; i < grid.size; i++) {
    const thresholds = thresholdsOf(task, i);
    for (let j = 0; j < thresholds.bins.length; j++) {
      const all = allAt(thresholds, j);
      let fail = 0;
      for (let l = 0; l < missed.length; l++) {
        missed[l] = shortfall(thresholds, constraints[l], j, all, together[l]);
        if (!(missed[l] <= ROUNDING)) fail++;
      }
      for (let l = 0; l < missed.length; l++) {
        const others = missed[l] <= ROUNDING ? fail : fail - 1;
        if (missed[l] < alone[l]) alone[l] = missed[l];
        if (others === 0 && missed[l] < together[l]) together[l] = missed[l];
      }
    }
  }
  return constraints.map(({ floor, bound }, j) => {
    const value = (m) => (Number.isFinite(m) ? (floor ? bound - m : bound + m) : null);
    return { alone: value(alone[j]), together: value(together[j]) };
  });
}
