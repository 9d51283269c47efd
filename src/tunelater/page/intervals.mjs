// Intervals of metrics of a threshold, from the posteriors of both error rates under Jeffreys' prior, as in
// assessment.py: recall ~ Beta(tp + 1/2, fn + 1/2), likewise of the negatives, and of the share of positives where no
// prior is stated. Python draws from them; here the same few thousand evenly spread points stand for the draws, so that
// an interval does not flicker while a slider moves.
//
// All of it is asked for at every move: arrays are made once, and written over.

import { atPrior, noCounts } from "./metrics.mjs";

const POINTS = 2048;
const NODES = 512;

// Hammersley's points, evenly spread in three dimensions: i / n, and i's digits to base 2 and to base 3 mirrored.
const mirrored = (i, base) => {
  let [value, place] = [0, 1 / base];
  for (let rest = i; rest > 0; rest = Math.floor(rest / base), place /= base) value += (rest % base) * place;
  return value;
};
// Of each dimension: its coordinates from low to high, and which points they are of.
const SPREAD = [(i) => i / POINTS, (i) => mirrored(i, 2), (i) => mirrored(i, 3)].map((of) => {
  const at = Float64Array.from({ length: POINTS }, (_, i) => (of(i) + 0.5 / POINTS) % 1);
  const point = Uint16Array.from(at.keys()).sort((i, j) => at[i] - at[j]);
  return { rising: Float64Array.from(point, (i) => at[i]), point };
});

const [density, below] = [new Float64Array(NODES), new Float64Array(NODES)];

// Quantiles of Beta(a, b) at rising probabilities, the j-th into out[place[j]]. Its density over log-odds, x^a (1 - x)^b,
// is summed up over a fine grid.
function betaQuantiles(a, b, rising, place, out) {
  const centre = Math.log(a / b);
  const spread = 9 * Math.sqrt(1 / a + 1 / b);
  const low = centre - Math.max(spread, 18 / a);
  const step = (centre + Math.max(spread, 18 / b) - low) / (NODES - 1);
  // log x = -log(1 + exp(-t)) at log-odds t, and log(1 - x) = log x - t.
  const logDensity = (t) => {
    const log = t > -700 ? -Math.log1p(Math.exp(-t)) : t;
    return a * log + b * (log - t);
  };
  const most = logDensity(centre);
  for (let i = 0; i < NODES; i++) {
    density[i] = Math.exp(logDensity(low + i * step) - most);
    below[i] = i > 0 ? below[i - 1] + (density[i - 1] + density[i]) / 2 : 0;
  }
  for (let j = 0, from = 0; j < rising.length; j++) {
    const wanted = rising[j] * below[NODES - 1];
    while (from < NODES - 2 && below[from + 1] <= wanted) from++;
    // Within a step the density is a straight line, and what lies below a quadratic in the place.
    const left = density[from];
    const needed = wanted - below[from];
    const root = Math.sqrt(Math.max(left * left + 2 * (density[from + 1] - left) * needed, 0));
    const part = left + root > 0 ? (2 * needed) / (left + root) : 0.5;
    out[place[j]] = 1 / (1 + Math.exp(-(low + (from + Math.min(Math.max(part, 0), 1)) * step)));
  }
}

const [RECALL, FPR, SHARE] = SPREAD.map(() => new Float64Array(POINTS));
const drawn = new Float64Array(POINTS);

// Intervals [value, low, high] of metrics of counts, equal-tailed: by name, as the metrics are. `sizes` are the effective
// numbers of negatives, positives and all cases; where a prior is stated, the share of positives is known.
export function estimates(metrics, c, sizes, prior, confidence = 0.95) {
  const rates = (yes, total, size, { rising, point }, out) => {
    const share = Math.min(total > 0 ? yes / total : 0, 1);
    betaQuantiles(share * size + 0.5, (1 - share) * size + 0.5, rising, point, out);
  };
  rates(c.tp, c.positives, sizes[1], SPREAD[0], RECALL);
  rates(c.fp, c.negatives, sizes[0], SPREAD[1], FPR);
  if (prior === null) rates(c.positives, c.positives + c.negatives, sizes[2], SPREAD[2], SHARE);
  else SHARE.fill(prior);
  const observed = atPrior(c, prior);
  const tail = (1 - confidence) / 2;
  const at = noCounts();
  const interval = (values) => {
    for (let i = 0; i < POINTS; i++) {
      at.positives = SHARE[i];
      at.negatives = 1 - SHARE[i];
      at.tp = RECALL[i] * at.positives;
      at.fp = FPR[i] * at.negatives;
      drawn[i] = values(at);
    }
    drawn.sort();
    const value = values(observed);
    return [value, Math.min(quantile(drawn, tail), value), Math.max(quantile(drawn, 1 - tail), value)];
  };
  return Object.fromEntries(Object.entries(metrics).map(([name, values]) => [name, interval(values)]));
}

function quantile(rising, q) {
  const place = q * (rising.length - 1);
  const from = Math.floor(place);
  return rising[from] + (place - from) * (rising[Math.min(from + 1, rising.length - 1)] - rising[from]);
}

// The interval of a share, open to 0 or 1 where one class alone was seen (Brown, Cai & DasGupta 2001).
export function ofShare(yes, total, size, confidence = 0.95) {
  const share = yes / total;
  const tail = (1 - confidence) / 2;
  const ends = [0, 0];
  betaQuantiles(share * size + 0.5, (1 - share) * size + 0.5, [tail, 1 - tail], [0, 1], ends);
  return [share, share <= 0 ? 0 : ends[0], share >= 1 ? 1 : ends[1]];
}
