// The best (lambda, threshold) for a need, by the rules of search.py and tuning.py, on the counts of the page.
//
// A need is {objective: name, cost: {fn, fp} or null, constraints: [{metric, relation, bound, every}], prior}, with
// prior null for the cases' own share of positives, and `every` the column within whose values a constraint holds.

import { atPrior, metricOf, needsNegatives, needsPositives, noCounts } from "./metrics.mjs";

const ROUNDING = 1e-12;

export function solve(grid, need, { simplest = true } = {}) {
  const judged = bestOf(grid, need);
  if (!judged.some(meets)) return { feasible: false, reaches: reaches(taskOf(grid, need)) };
  const first = firstOf(judged);
  let chosen = first;
  const reach = simplest && grid.size > 1 ? standardError(taskOf(grid, need), judged[first].counts) : 0;
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

// Whether the best threshold of a lambda meets all constraints.
export const meets = (c) => c.allowed && Number.isFinite(c.merit);
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

// The best threshold of every lambda: {allowed, merit, bin, counts}, where more merit is better.
export function bestOf(grid, need) {
  judgeSome(grid, need, grid.size);
  return last.judged;
}

// The objective of every lambda at its own best threshold; NaN where none meets the constraints. For heat maps.
export function meritsOf(grid, need) {
  const { higher } = metricOf(need.objective, need.cost);
  return bestOf(grid, need).map((c) => (c.allowed ? (higher ? c.merit : -c.merit) : NaN));
}

function taskOf(grid, need) {
  const column = need.constraints.find((c) => c.every)?.every ?? null;
  const constraints = need.constraints.map((c) => ({ ...c, of: metricOf(c.metric) }));
  return {
    grid,
    prior: need.prior,
    objective: metricOf(need.objective, need.cost),
    constraints,
    // Where every constraint is a floor on what should be high or a ceiling on what should be low, a bin without
    // positives is never worth stopping at.
    everyBin: !constraints.every((c) => (c.relation === ">=") === c.of.higher),
    subgroups: column === null ? null : grid.subgroups.find((s) => s.column === column),
    missed: new Float64Array(constraints.length),
  };
}

// A grid has a hundred thousand thresholds: counts are written into the same few objects.
const [ALL, GROUP, SHARES] = [noCounts(), noCounts(), noCounts()];

// Calls `visit` with the counts and the bin of each threshold of a lambda that is worth a look, from nobody down to
// everybody, having written into `task.missed` by how much it misses each constraint.
function eachThreshold(task, i, visit) {
  const cut = task.subgroups?.cuts[i] ?? null;
  const { tp, fp, positives, negatives } = cut ?? task.grid.curves[i];
  const c = Object.assign(ALL, { tp: 0, fp: 0, positives, negatives });
  for (let k = -1; k < tp.length; k++) {
    if (k >= 0) {
      const found = tp[k] > (k > 0 ? tp[k - 1] : 0);
      const more = fp[k] > (k > 0 ? fp[k - 1] : 0);
      const lowest = tp[k] === positives && fp[k] === negatives;
      if (!found && !(more && (task.everyBin || lowest))) continue;
      c.tp = tp[k];
      c.fp = fp[k];
    }
    for (let j = 0; j < task.constraints.length; j++) task.missed[j] = shortfall(task, task.constraints[j], c, cut, k);
    visit(c, k < 0 || cut === null ? k : cut.ends[k]);
  }
}

function merit(task, c) {
  const value = task.objective.values(atPrior(c, task.prior, c, SHARES));
  return task.objective.higher ? value : -value;
}

// By how much a constraint is missed, in the worst subgroup; negative where it is exceeded.
function shortfall(task, constraint, c, cut, k) {
  if (!constraint.every) return short(task, constraint, c, c);
  let worst = -Infinity;
  for (const group of cut.curves) {
    if (needsPositives(constraint.metric) && !(group.positives > 0)) continue;
    if (needsNegatives(constraint.metric) && !(group.negatives > 0)) continue;
    GROUP.tp = k < 0 ? 0 : group.tp[k];
    GROUP.fp = k < 0 ? 0 : group.fp[k];
    GROUP.positives = group.positives;
    GROUP.negatives = group.negatives;
    worst = Math.max(worst, short(task, constraint, GROUP, c));
  }
  return worst;
}

function short(task, { of, relation, bound }, within, c) {
  const value = of.values(atPrior(within, task.prior, c, SHARES));
  return relation === ">=" ? bound - value : value - bound;
}

// The threshold of most merit among those that meet all constraints, or where none does, that misses them least; of equal
// ones the lowest.
function best(task, i) {
  const at = { allowed: false, merit: -Infinity, bin: -1, counts: noCounts() };
  eachThreshold(task, i, (c, bin) => {
    let met = true;
    let sum = 0;
    for (const m of task.missed) {
      if (!(m <= ROUNDING)) met = false;
      sum += Math.max(m, 0);
    }
    if (at.allowed && !met) return;
    const value = met ? merit(task, c) : -sum;
    if (at.allowed === met && !(value >= at.merit)) return;
    at.allowed = met;
    at.merit = value;
    at.bin = bin;
    Object.assign(at.counts, c);
  });
  return at;
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
      return merit(task, { ...at, [name]: moved });
    });
    const half = (up - down) / 2;
    sum += half * half;
  }
  return Math.sqrt(sum);
}

// For each constraint: how far its metric goes alone, and with the others met (null where these fail already).
function reaches(task) {
  const out = task.constraints.map(() => [Infinity, Infinity]);
  const { missed } = task;
  for (let i = 0; i < task.grid.size; i++) {
    eachThreshold(task, i, () => {
      missed.forEach((m, j) => {
        out[j][0] = Math.min(out[j][0], m);
        if (missed.every((other, l) => l === j || other <= ROUNDING)) out[j][1] = Math.min(out[j][1], m);
      });
    });
  }
  return out.map((of, j) => {
    const { relation, bound } = task.constraints[j];
    const value = (m) => (Number.isFinite(m) ? (relation === ">=" ? bound - m : bound + m) : null);
    return { alone: value(of[0]), together: value(of[1]) };
  });
}
