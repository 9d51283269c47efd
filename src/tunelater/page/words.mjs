// Terms in plain words, numbers for reading, and needs as text: the same text that `tunelater tune` takes.

export const TERMS = {
  lambda: [
    "lambda",
    "The settings of the loss that the model was trained over. Each value makes the same model weigh the rare cases differently. It is chosen here, without training again.",
  ],
  threshold: [
    "threshold",
    "The probability from which a case is alerted on. Lower it, and more positives are found, with more false alarms.",
  ],
  alert: [
    "alert",
    "A case whose probability reaches the threshold, so that somebody looks at it or something is done. An alert is right or a false alarm.",
  ],
  volume: [
    "cases a day",
    "How many cases are decided on a day where the model will be used. The alerts a day come from it.",
  ],
  alerts: ["alerts a day", "How many of the cases of a day are alerted on, on average."],
  miss: ["miss", "A truly positive case that is not alerted on: a false negative."],
  false_alarm: ["false alarm", "A truly negative case that is alerted on: a false positive."],
  prior: [
    "share of positives",
    "How many of all cases are truly positive where the model will be used; also called prior or prevalence. It may differ from that in the data.",
  ],
  recall: [
    "recall",
    "Of all truly positive cases, the share that is alerted on; also called sensitivity. The rest are missed.",
  ],
  precision: [
    "precision",
    "Of all alerts, the share that is truly positive; also called positive predictive value. The rest are false alarms.",
  ],
  specificity: ["specificity", "Of all truly negative cases, the share that is left alone."],
  fpr: ["false positive rate", "Of all truly negative cases, the share that is alerted on: 1 - specificity."],
  npv: ["negative predictive value", "Of all cases left alone, the share that is truly negative."],
  accuracy: [
    "accuracy",
    "The share of right decisions. Where positives are rare, leaving everybody alone has a high one.",
  ],
  balanced_accuracy: ["balanced accuracy", "The mean of recall and specificity."],
  gmean: ["G-mean", "The geometric mean of recall and specificity."],
  mcc: ["correlation (MCC)", "Matthews correlation coefficient: 1 is perfect, 0 no better than chance."],
  alert_rate: ["alert rate", "The share of all cases that is alerted on."],
  f1: ["F1 score", "The harmonic mean of precision and recall."],
  f2: ["F2 score", "As F1, with recall counting twice as much."],
  cost: ["expected cost", "What a case costs on average, from the costs of a miss and of a false alarm."],
  cost_a_day: ["cost a day", "What misses and false alarms among the cases of a day cost, on average."],
  net_benefit: [
    "net benefit",
    "Positives found, less false alarms at their worth: what a threshold probability r says a false alarm costs, r / (1 - r) of a positive found (Vickers and Elkin 2006).",
  ],
  auc: [
    "area under the ROC curve",
    "The chance that a positive case has a higher score than a negative one; 0.5 is chance.",
  ],
  average_precision: [
    "average precision",
    "The area under the precision-recall curve: the mean precision over all recalls.",
  ],
  brier: ["Brier score", "The mean squared error of the probabilities; lower is better."],
  log_loss: ["log-loss", "The mean surprise at what happened, given the probabilities (nats); lower is better."],
  interval: [
    "95% interval",
    "Where the true value plausibly lies, given how few cases there are. It is of the average: numbers of one day, or of one thousand cases, vary more. Intervals are of one point looked at by itself: of a point that was picked as the best of many, the figures flatter.",
  ],
  standard_error: [
    "standard error",
    "How far a figure typically is from its true value because there are only so many cases. Differences within one standard error may well be chance.",
  ],
  roc: ["ROC curve", "Recall against false positive rate, at every threshold."],
  pr: ["precision-recall curve", "Precision against recall, at every threshold."],
  reliability: [
    "reliability diagram",
    "Of cases with similar predicted probability, the share that was positive. On the diagonal, probabilities are right.",
  ],
  default: [
    "default lambda",
    "The middle of what the model was trained over: where one stays if lambda is not chosen, and only the threshold is moved.",
  ],
  subgroup: ["subgroup", "The cases with one value of a column."],
  validation: [
    "validation",
    "Cases that the model was not trained on, kept back to choose on. Other cases, the test ones, are kept to report on what was chosen.",
  ],
};

// Parts of lambda, of the loss families of losses.py; a page explains those that it has.
export const HYPERPARAMETERS = {
  gamma: [
    "γ (gamma)",
    "A part of lambda: how much the rare class's scores were scaled down in training, which the model makes up for. At 0 they were not.",
  ],
  tau: [
    "τ (tau)",
    "A part of lambda: how far training leant towards the rare class. At 0 it did not; at 1 both classes counted as if they were equally frequent.",
  ],
  alpha: [
    "α (alpha)",
    "A part of lambda: the weight of positive cases in training, between 0 and 1. Negative ones had the rest.",
  ],
  phi: [
    "φ (phi)",
    "A part of lambda: how far training turned to the cases that are hard to tell. At 0 all counted alike.",
  ],
  omega: [
    "ω (omega)",
    "A part of lambda: how much more a rare case weighed in training. At 0 no more than others; at 1 both classes weighed the same in total.",
  ],
  max_m: [
    "margin (max_m)",
    "A part of lambda: by how much a case of the rare class had to be on the right side in training.",
  ],
  s: [
    "scale (s)",
    "A part of lambda: what scores were multiplied by in training. The larger, the surer the probabilities.",
  ],
};
export const nameOf = (hyperparameter) => HYPERPARAMETERS[hyperparameter]?.[0] ?? hyperparameter;
export const explained = (key) => (TERMS[key] ?? HYPERPARAMETERS[key])?.[1] ?? null;
export const termOf = (metric) => TERMS[metric.split("@")[0]]?.[0] ?? metric;

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

// Three digits that matter, no more places than these need.
export function number(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 999.5) return grouped.format(value);
  if (size === 0) return "0";
  if (size < 0.0001) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

// A share in percent: two digits that matter near 0 and 100, and never rounded to either.
export function percent(share) {
  if (!Number.isFinite(share)) return "–";
  const value = share * 100;
  if (value === 0 || value === 100) return `${value}%`;
  const away = Math.min(Math.abs(value), Math.abs(100 - value));
  if (away < 0.001) return value < 50 ? "< 0.001%" : "> 99.999%";
  const places = away >= 10 ? 1 : Math.min(3, Math.max(1, 1 - Math.floor(Math.log10(away))));
  return `${value.toFixed(places)}%`;
}

const NUMBERS = ["alerts", "mcc", "cost", "cost_a_day", "f1", "f2", "brier", "log_loss", "auc", "average_precision"];
export const asPercent = (metric) => !NUMBERS.includes(metric) && !metric.startsWith("net_benefit");
export const shown = (metric, value) => (asPercent(metric) ? percent(value) : number(value));

// What a number of things is and are called.
export const counted = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;
export const isOrAre = (n) => (n === 1 ? "is" : "are");

// A need as a sentence has it: "highest precision with recall at least 95%".
export function needAsPhrase({ objective, constraints }, higher) {
  const at = objective.split("@")[1];
  const goal = `${higher ? "highest" : "lowest"} ${termOf(objective)}${at ? ` at a threshold probability of ${percent(Number(at))}` : ""}`;
  return constraints.length ? `${goal} with ${constraints.map(constraintAsPhrase).join(" and ")}` : goal;
}

export const constraintAsPhrase = ({ metric, relation, bound, every }) =>
  `${termOf(metric)} ${relation === ">=" ? "at least" : "at most"} ${shown(metric, bound)}${every ? ` in every ${every}` : ""}`;

// As Python's format "g" writes it.
const general = (value) => String(Number(value.toPrecision(6)));
export const constraintText = ({ metric, relation, bound, every }) =>
  `${metric}${relation}${general(bound)}${every ? ` in every ${every}` : ""}`;

// What `constraintText` writes, or null; a metric is at most 1, and at least 0 but for the correlation.
export function readConstraint(text) {
  const match = /^([\w.]+)(>=|<=)([-+.\deE]+)(?: in every ([^]+))?$/.exec(text);
  if (!match) return null;
  const bound = Number(match[3]);
  if (!(bound >= (match[1] === "mcc" ? -1 : 0) && bound <= 1)) return null;
  return { metric: match[1], relation: match[2], bound, every: match[4] ?? null };
}

// One of the known objectives, net benefit with its threshold probability; or null.
export function readObjective(text, known) {
  const match = /^net_benefit@(\d*\.?\d+)$/.exec(text);
  if (match) return Number(match[1]) > 0 && Number(match[1]) < 1 ? text : null;
  return text !== "net_benefit" && known.includes(text) ? text : null;
}

// A need as a point carries it.
export function needInWords(need, lower) {
  const out = {};
  if (need.objective === "cost") out.cost = { fn: 0, fp: 0, tp: 0, tn: 0, ...need.cost };
  else out[lower ? "minimize" : "maximize"] = need.objective;
  if (need.constraints.length) out.subject_to = need.constraints.map(constraintText);
  if (need.prior !== null) out.prior = need.prior;
  return out;
}

// Whole numbers that add up to `total`, in proportion to shares: those cut off most are rounded up.
export function apportioned(shares, total) {
  const exact = shares.map((s) => s * total);
  const whole = exact.map(Math.floor);
  const order = exact.map((v, i) => [v - whole[i], i]).sort((a, b) => b[0] - a[0]);
  const rest = Math.round(total - whole.reduce((a, b) => a + b, 0));
  for (let i = 0; i < rest; i++) whole[order[i % order.length][1]]++;
  return whole;
}
