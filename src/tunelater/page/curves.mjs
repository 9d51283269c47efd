// What the pictures show, as numbers: functions of a grid, one of its curves, and a prior (null for the cases' own).

import { logit, sigmoid } from "./grid.mjs";
import { ofShare } from "./intervals.mjs";
import { atPrior, costOf, netBenefit } from "./metrics.mjs";

// Counts of a lambda at a bin, -1 for nobody.
export const cellsAt = (curve, k) => ({
  tp: k < 0 ? 0 : curve.tp[k],
  fp: k < 0 ? 0 : curve.fp[k],
  positives: curve.positives,
  negatives: curve.negatives,
});

// The prior of probabilities: the one stated, or the cases' own share of positives.
export const shareOf = (grid, prior) => {
  const { positives, negatives } = grid.curves[0];
  return prior ?? positives / (positives + negatives);
};
export const shiftOf = (grid, prior) => logit(shareOf(grid, prior)) - logit(grid.prior);

// The bin that is alerted on down to, where scores from these log-odds on are, at the scores' own prior.
export function binFrom(curve, logOdds) {
  let [from, to] = [-1, curve.edge.length - 1];
  while (from < to) {
    const middle = Math.floor((from + to + 1) / 2);
    if (curve.edge[middle] >= logOdds) from = middle;
    else to = middle - 1;
  }
  return from;
}

// The bins that a slider stops at, from nobody on: wherever a positive is found, and where none is, at a quarter more alerts.
export function stopsOf({ p, tp, fp }) {
  const stops = [-1];
  let alerts = 0;
  for (let k = 0; k < p.length; k++) {
    if (!(p[k] > 0 || tp[k] + fp[k] >= 1.25 * alerts || k === p.length - 1)) continue;
    stops.push(k);
    alerts = tp[k] + fp[k];
  }
  return stops;
}

export const alertRateAt = (curve, k, prior) => {
  const at = atPrior(cellsAt(curve, k), prior);
  return (at.tp + at.fp) / (at.positives + at.negatives);
};

// Of the thresholds of subgroups, by number, the one whose alert rate among all cases is nearest to that of a bin. Alerting
// on nobody (-1) stands for no other threshold.
export function nearestCut({ ends }, curve, k, prior) {
  if (k < 0) return -1;
  const wanted = alertRateAt(curve, k, prior);
  const away = ends.map((end) => Math.abs(alertRateAt(curve, end, prior) - wanted));
  return away.indexOf(Math.min(...away));
}

export const WHOLE = ["auc", "average_precision", "brier", "log_loss"];

// ln(1 + e^t), for any t.
const softPlus = (t) => Math.max(t, 0) + Math.log1p(Math.exp(-Math.abs(t)));

// Metrics of a whole lambda: those of its scores, where the file has them, else about, from its counts.
export const figuresOf = (grid, i, prior) =>
  Object.fromEntries(
    Object.entries(wholeOf(grid.curves[i], grid, prior)).map(([name, value]) => [
      name,
      isAbout(grid, name, prior) ? value : grid.whole[name][i],
    ]),
  );
// The area under the ROC curve is the same at any prior.
export const isAbout = (grid, name, prior) =>
  WHOLE.includes(name) && (grid.whole === null || (prior !== null && name !== "auc"));

// From counts at a prior, scores of a bin taken as equal to their mean.
export function wholeOf(curve, grid, prior) {
  const [p, shift] = [shareOf(grid, prior), shiftOf(grid, prior)];
  let [auc, ap, brier, logLoss] = [0, 0, 0, 0];
  let [tp, fp] = [0, 0];
  for (let k = 0; k < curve.edge.length; k++) {
    const [of, nf] = [curve.p[k] / curve.positives, curve.n[k] / curve.negatives];
    auc += of * (1 - fp - nf / 2);
    [tp, fp] = [tp + of, fp + nf];
    const alerts = p * tp + (1 - p) * fp;
    if (alerts > 0) ap += (of * p * tp) / alerts;
    const t = curve.middle[k] + shift;
    const [yes, no] = [sigmoid(t), sigmoid(-t)];
    brier += p * of * no * no + (1 - p) * nf * yes * yes;
    logLoss += p * of * softPlus(-t) + (1 - p) * nf * softPlus(t);
  }
  return { auc, average_precision: ap, brier, log_loss: logLoss };
}

export const costOfThousand = (curve, k, costs, prior) => 1000 * costOf(costs)(atPrior(cellsAt(curve, k), prior));

// Net benefit of alerting on what is at least as probable as the probability of these log-odds, among 1,000 cases.
export function benefitOfThousand(curve, grid, logOdds, prior) {
  const c = cellsAt(curve, binFrom(curve, logOdds - shiftOf(grid, prior)));
  return 1000 * netBenefit(sigmoid(logOdds))(atPrior(c, prior));
}

// Predicted and observed shares of positives in up to ten groups of bins, of equal share of both classes, so that the few
// positives have theirs: {end, predicted, observed, low, high}, with the group's last bin.
export function reliabilityOf(curve, grid, prior) {
  const [p, shift] = [shareOf(grid, prior), shiftOf(grid, prior)];
  const out = [];
  let g = { yes: 0, no: 0, sum: 0 };
  for (let k = 0; k < curve.edge.length; k++) {
    const [of, nf] = [curve.p[k] / curve.positives, curve.n[k] / curve.negatives];
    g.yes += of;
    g.no += nf;
    g.sum += (p * of + (1 - p) * nf) * sigmoid(curve.middle[k] + shift);
    if ((g.yes + g.no) / 2 >= 0.1 - 1e-12 || k === curve.edge.length - 1) {
      const [yes, all] = [p * g.yes, p * g.yes + (1 - p) * g.no];
      // Kish: of so many equally weighted cases, where the prior weighs the classes differently.
      const squares =
        (yes * yes) / (g.yes * grid.sizes[1] || 1) + ((all - yes) * (all - yes)) / (g.no * grid.sizes[0] || 1);
      const [observed, low, high] = ofShare(yes, all, (all * all) / squares);
      out.push({ end: k, predicted: g.sum / all, observed, low, high });
      g = { yes: 0, no: 0, sum: 0 };
    }
  }
  return out;
}

// Shares of a class in equal steps from `low` to `high` of log-odds, at the scores' own prior; what lies in a bin is spread
// over it evenly. The outermost bins are as wide as is needed for their means to be in the middle.
export function spreadOf(curve, counts, [low, high], steps) {
  const out = new Array(steps).fill(0);
  const width = (high - low) / steps;
  const last = curve.edge.length - 1;
  const total = counts.reduce((sum, n) => sum + n, 0);
  for (let k = 0; k <= last; k++) {
    if (!counts[k]) continue;
    const upper = k > 0 ? curve.edge[k - 1] : last > 0 ? 2 * curve.middle[0] - curve.edge[0] : curve.middle[0] + 0.5;
    const lower = k < last ? curve.edge[k] : 2 * curve.middle[last] - upper;
    const [from, to] = [(lower - low) / width, (upper - low) / width];
    for (let j = Math.max(0, Math.floor(from)); j <= Math.min(steps - 1, Math.floor(to)); j++) {
      const part = Math.min(to, j + 1) - Math.max(from, j);
      out[j] += ((counts[k] / total) * Math.max(part, 0)) / Math.max(to - from, 1e-9);
    }
  }
  return out;
}

// The values of a hyperparameter that several lambdas have; all, where there are no two such values.
export function gridAxis(values) {
  const times = new Map();
  for (const v of values) times.set(v, (times.get(v) ?? 0) + 1);
  const sorted = [...times.keys()].sort((a, b) => a - b);
  const several = sorted.filter((v) => times.get(v) > 1);
  return several.length > 1 ? several : sorted;
}

// Where a value lies on an axis of rising values, counted in these: between two of them a fraction, beyond them half a step.
export function placeOn(axis, value) {
  const above = axis.findIndex((v) => v >= value);
  if (above < 0) return axis.length - 0.5;
  if (axis[above] === value) return above;
  return above === 0 ? -0.5 : above - 1 + (value - axis[above - 1]) / (axis[above] - axis[above - 1]);
}
