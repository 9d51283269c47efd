// Metrics of a threshold from confusion counts, or from shares: the formulas of metrics.py, in the same order of steps,
// so that the same numbers come out to the last bit.

// Counts to be written into.
export const noCounts = () => ({ tp: NaN, fp: NaN, positives: NaN, negatives: NaN });

const ratio = (a, b) => (b > 0 ? a / b : 0);
const recall = (c) => ratio(c.tp, c.positives);
const specificity = (c) => ratio(c.negatives - c.fp, c.negatives);
const fBeta = (beta) => (c) => {
  const b2 = beta * beta;
  return ratio((1 + b2) * c.tp, (1 + b2) * c.tp + b2 * (c.positives - c.tp) + c.fp);
};

// Some can only rise, or only fall, with each alert more.
const METRICS = {
  recall: { values: recall, higher: true, rises: true },
  precision: { values: (c) => ratio(c.tp, c.tp + c.fp), higher: true },
  specificity: { values: specificity, higher: true, rises: false },
  fpr: { values: (c) => ratio(c.fp, c.negatives), higher: false, rises: true },
  npv: { values: (c) => ratio(c.negatives - c.fp, c.negatives - c.fp + (c.positives - c.tp)), higher: true },
  accuracy: { values: (c) => (c.tp + (c.negatives - c.fp)) / (c.positives + c.negatives), higher: true },
  balanced_accuracy: { values: (c) => (recall(c) + specificity(c)) / 2, higher: true },
  gmean: { values: (c) => Math.sqrt(recall(c) * specificity(c)), higher: true },
  mcc: {
    values: (c) => {
      const fn = c.positives - c.tp;
      const tn = c.negatives - c.fp;
      return ratio(c.tp * tn - c.fp * fn, Math.sqrt(c.positives * c.negatives * (c.tp + c.fp) * (tn + fn)));
    },
    higher: true,
  },
  alert_rate: { values: (c) => (c.tp + c.fp) / (c.positives + c.negatives), higher: false, rises: true },
  f1: { values: fBeta(1), higher: true },
  f2: { values: fBeta(2), higher: true },
};

export function metricOf(name, cost = null) {
  if (name === "cost") return { name, values: costOf(cost), higher: false };
  if (name.startsWith("net_benefit@")) return { name, values: netBenefit(Number(name.slice(12))), higher: true };
  return { name, ...METRICS[name] };
}

export function costOf({ fn = 0, fp = 0, tp = 0, tn = 0 }) {
  return (c) =>
    (fn * (c.positives - c.tp) + fp * c.fp + tp * c.tp + tn * (c.negatives - c.fp)) / (c.positives + c.negatives);
}

export function netBenefit(r) {
  const worth = r / (1 - r);
  return (c) => (c.tp - worth * c.fp) / (c.positives + c.negatives);
}

// Whether a metric is a share of something: 0 stands for what it is of nobody.
export function isDefined(name, c) {
  if (name === "precision") return c.tp + c.fp > 0;
  return name !== "npv" || c.positives + c.negatives > c.tp + c.fp;
}

// Whether more is better, of metrics of a whole lambda too.
const WHOLE_HIGHER = { auc: true, average_precision: true, brier: false, log_loss: false };
export const higherIsBetter = (name) => WHOLE_HIGHER[name] ?? metricOf(name, { fn: 1 }).higher;

// Counts as they are, or as shares of a population in which a share `prior` is positive. Those of a subgroup are shares
// of the whole population, whose totals are `of`. The shares are written into `out`.
export function atPrior(c, prior, of = c, out = noCounts()) {
  if (prior === null) return c;
  out.tp = ratio(c.tp, of.positives) * prior;
  out.positives = ratio(c.positives, of.positives) * prior;
  out.fp = ratio(c.fp, of.negatives) * (1 - prior);
  out.negatives = ratio(c.negatives, of.negatives) * (1 - prior);
  return out;
}

const OF_POSITIVES = ["recall", "precision", "balanced_accuracy", "gmean", "mcc"];
const OF_NEGATIVES = ["specificity", "fpr", "npv", "balanced_accuracy", "gmean", "mcc"];
export const needsPositives = (name) => OF_POSITIVES.includes(name) || /^f[\d.]+$/.test(name);
export const needsNegatives = (name) => OF_NEGATIVES.includes(name);
