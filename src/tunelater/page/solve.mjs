// The best (lambda, threshold) for a need, by the rules of search.py and tuning.py, on the counts of the page.
//
// A need is {objective: name, cost: {fn, fp} or null, constraints: [{metric, relation, bound, every}], prior}, with
// prior null for the cases' own share of positives, and `every` the column within whose values a constraint holds.

import { atPrior, metricOf, needsNegatives, needsPositives } from "./metrics.mjs";

const ROUNDING = 1e-12;

export function solve(grid, need, { simplest = true, only = null } = {}) {
  const task = taskOf(grid, need);
  const judged = grid.curves.map((_, i) => (only === null || only === i ? best(task, i) : null));
  const met = (c) => c !== null && c.allowed && Number.isFinite(c.merit);
  if (!judged.some(met)) return { feasible: false, reaches: reaches(task) };
  let [top, first] = [-Infinity, -1];
  judged.forEach((c, i) => {
    if (!met(c)) return;
    if (c.merit > top || (c.merit === top && c.recall > judged[first].recall)) [top, first] = [c.merit, i];
  });
  let chosen = first;
  const reach = judged[first].error;
  if (simplest && grid.size > 1 && reach > 0) {
    let nearest = Infinity;
    judged.forEach((c, i) => {
      if (met(c) && c.merit >= top - reach && grid.distance[i] < nearest) [nearest, chosen] = [grid.distance[i], i];
    });
  }
  return { feasible: true, lambda: chosen, bin: judged[chosen].bin, best: first };
}

// The merit of every lambda at its own best threshold; NaN where none meets the constraints. For heat maps.
export function meritsOf(grid, need) {
  const task = taskOf(grid, need);
  return grid.curves.map((_, i) => {
    const c = best(task, i);
    if (!c.allowed) return NaN;
    return task.objective.higher ? c.merit : -c.merit;
  });
}

function taskOf(grid, need) {
  const column = need.constraints.find((c) => c.every)?.every ?? null;
  const constraints = need.constraints.map((c) => ({ ...c, values: metricOf(c.metric) }));
  return {
    grid,
    prior: need.prior,
    objective: metricOf(need.objective, need.cost),
    constraints,
    // Where every constraint is a floor on what should be high or a ceiling on what should be low, a bin without
    // positives is never worth stopping at.
    everyBin: !constraints.every((c) => (c.relation === ">=") === c.values.higher),
    subgroups: column === null ? null : grid.subgroups.find((s) => s.column === column),
  };
}

// The thresholds of a lambda that are worth a look, from nobody down to everybody, with counts.
function candidates(task, i) {
  const curve = task.grid.curves[i];
  const cut = task.subgroups?.cuts[i] ?? null;
  const n = cut === null ? curve.edge.length : cut.ends.length;
  const total = (name, k) => (k < 0 ? 0 : cut === null ? curve[name][k] : cut.curves.reduce((s, g) => s + g[name][k], 0));
  const positives = total("tp", n - 1);
  const negatives = total("fp", n - 1);
  const out = [{ bin: -1, tp: 0, fp: 0, positives, negatives, groups: groupsAt(cut, -1) }];
  let [lastTp, lastFp] = [0, 0];
  for (let k = 0; k < n; k++) {
    const [tp, fp] = [total("tp", k), total("fp", k)];
    const some = tp > lastTp || (task.everyBin && fp > lastFp);
    const lowest = tp === positives && fp === negatives && (tp > lastTp || fp > lastFp);
    if (some || lowest) {
      out.push({ bin: cut === null ? k : cut.ends[k], tp, fp, positives, negatives, groups: groupsAt(cut, k) });
    }
    [lastTp, lastFp] = [tp, fp];
  }
  return out;
}

function groupsAt(cut, k) {
  if (cut === null) return [];
  return cut.curves.map((g) => ({
    tp: k < 0 ? 0 : g.tp[k],
    fp: k < 0 ? 0 : g.fp[k],
    positives: g.positives,
    negatives: g.negatives,
  }));
}

function merit(task, c) {
  const value = task.objective.values(atPrior(c, task.prior));
  return task.objective.higher ? value : -value;
}

// By how much a constraint is missed, in the worst subgroup; negative where it is exceeded.
function shortfall(task, constraint, c) {
  const short = (within) => {
    const value = constraint.values.values(atPrior(within, task.prior, c));
    return constraint.relation === ">=" ? constraint.bound - value : value - constraint.bound;
  };
  if (!constraint.every) return short(c);
  let worst = -Infinity;
  for (const group of c.groups) {
    if (needsPositives(constraint.metric) && !(group.positives > 0)) continue;
    if (needsNegatives(constraint.metric) && !(group.negatives > 0)) continue;
    worst = Math.max(worst, short(group));
  }
  return worst;
}

function best(task, i) {
  const found = candidates(task, i);
  const missed = found.map((c) => task.constraints.map((constraint) => shortfall(task, constraint, c)));
  const allowed = missed.map((of) => of.every((m) => m <= ROUNDING));
  const any = allowed.includes(true);
  const merits = found.map((c, k) => {
    if (!any) return -missed[k].reduce((sum, m) => sum + Math.max(m, 0), 0);
    return allowed[k] ? merit(task, c) : -Infinity;
  });
  let k = found.length - 1;
  for (let j = k - 1; j >= 0; j--) if (merits[j] > merits[k]) k = j;
  const at = found[k];
  const same = found.findIndex((c) => c.tp >= at.tp && c.fp >= at.fp);
  return {
    allowed: any,
    merit: merits[same],
    bin: found[same].bin,
    recall: at.positives > 0 ? at.tp / at.positives : 0,
    error: standardError(task, at),
  };
}

// Of the merit, from those of both rates, with half an observation more of either kind.
function standardError(task, at) {
  let sum = 0;
  const channels = [["tp", at.positives, task.grid.sizes[1]], ["fp", at.negatives, task.grid.sizes[0]]];
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
  for (let i = 0; i < task.grid.size; i++) {
    for (const c of candidates(task, i)) {
      const missed = task.constraints.map((constraint) => shortfall(task, constraint, c));
      missed.forEach((m, j) => {
        out[j][0] = Math.min(out[j][0], m);
        if (missed.every((other, l) => l === j || other <= ROUNDING)) out[j][1] = Math.min(out[j][1], m);
      });
    }
  }
  return out.map((of, j) => {
    const { relation, bound } = task.constraints[j];
    const value = (m) => (Number.isFinite(m) ? (relation === ">=" ? bound - m : bound + m) : null);
    return { alone: value(of[0]), together: value(of[1]) };
  });
}
