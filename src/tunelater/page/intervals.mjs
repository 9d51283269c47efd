// Intervals of metrics of a threshold, from the posteriors of both error rates under Jeffreys' prior, as in
// assessment.py: recall ~ Beta(tp + 1/2, fn + 1/2), likewise of the negatives, and of the share of positives where no
// prior is stated. Python draws from them; here the same few thousand evenly spread points stand for the draws, so that
// an interval does not flicker while a slider moves.

const POINTS = 2048;
const NODES = 512;

// Hammersley's points, evenly spread in three dimensions: i / n, and i's digits to base 2 and to base 3 mirrored.
const mirrored = (i, base) => {
  let [value, place] = [0, 1 / base];
  for (let rest = i; rest > 0; rest = Math.floor(rest / base), place /= base) value += (rest % base) * place;
  return value;
};
const SPREAD = [(i) => i / POINTS, (i) => mirrored(i, 2), (i) => mirrored(i, 3)].map((of) =>
  Float64Array.from({ length: POINTS }, (_, i) => (of(i) + 0.5 / POINTS) % 1),
);

// The quantile function of Beta(a, b): its density over log-odds, x^a (1 - x)^b, summed up over a fine grid.
export function betaQuantile(a, b) {
  const centre = Math.log(a / b);
  const spread = 9 * Math.sqrt(1 / a + 1 / b);
  const low = centre - Math.max(spread, 18 / a);
  const step = (centre + Math.max(spread, 18 / b) - low) / (NODES - 1);
  const logDensity = (t) => -a * Math.log1p(Math.exp(-t)) - b * (t > 30 ? t : Math.log1p(Math.exp(t)));
  const most = logDensity(centre);
  const density = Float64Array.from({ length: NODES }, (_, i) => Math.exp(logDensity(low + i * step) - most));
  const below = new Float64Array(NODES);
  for (let i = 1; i < NODES; i++) below[i] = below[i - 1] + (density[i - 1] + density[i]) / 2;
  const total = below[NODES - 1];
  return (u) => {
    const wanted = u * total;
    let [from, to] = [0, NODES - 1];
    while (to - from > 1) {
      const middle = (from + to) >> 1;
      if (below[middle] <= wanted) from = middle;
      else to = middle;
    }
    // Within a step the density is a straight line, and what lies below a quadratic in the place.
    const [left, right] = [density[from], density[to]];
    const needed = wanted - below[from];
    const slope = right - left;
    const root = Math.sqrt(Math.max(left * left + 2 * slope * needed, 0));
    const part = left + root > 0 ? (2 * needed) / (left + root) : 0.5;
    return 1 / (1 + Math.exp(-(low + (from + Math.min(Math.max(part, 0), 1)) * step)));
  };
}

// Points that stand for the posterior of confusion shares: {tp, fp, positives, negatives} of each.
export function posterior(c, sizes, prior) {
  const rate = (yes, total, size) => {
    const share = Math.min(total > 0 ? yes / total : 0, 1);
    return betaQuantile(share * size + 0.5, (1 - share) * size + 0.5);
  };
  const recall = rate(c.tp, c.positives, sizes[1]);
  const fpr = rate(c.fp, c.negatives, sizes[0]);
  const all = c.positives + c.negatives;
  const share = prior === null ? rate(c.positives, all, sizes[2]) : () => prior;
  return Array.from({ length: POINTS }, (_, i) => {
    const of = share(SPREAD[2][i]);
    return { tp: recall(SPREAD[0][i]) * of, fp: fpr(SPREAD[1][i]) * (1 - of), positives: of, negatives: 1 - of };
  });
}

// [value, low, high] of a metric, with an equal-tailed interval of this confidence.
export function estimate(values, observed, points, confidence = 0.95) {
  const value = values(observed);
  const drawn = Float64Array.from(points, values).sort();
  const at = (q) => {
    const place = q * (drawn.length - 1);
    const below = Math.floor(place);
    const above = Math.min(below + 1, drawn.length - 1);
    return drawn[below] + (place - below) * (drawn[above] - drawn[below]);
  };
  const tail = (1 - confidence) / 2;
  return [value, Math.min(at(tail), value), Math.max(at(1 - tail), value)];
}

// The interval of a share, open to 0 or 1 where one class alone was seen (Brown, Cai & DasGupta 2001).
export function ofShare(yes, total, size, confidence = 0.95) {
  const share = yes / total;
  const quantile = betaQuantile(share * size + 0.5, (1 - share) * size + 0.5);
  const tail = (1 - confidence) / 2;
  return [share, share <= 0 ? 0 : quantile(tail), share >= 1 ? 1 : quantile(1 - tail)];
}
