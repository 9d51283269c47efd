// The counts of a report: for each lambda, positives and negatives between thresholds. Made by aggregates.py.

// Whole numbers, seven bits a byte, lowest first; the eighth bit says that more follow.
function unpacked(text) {
  const bytes = atob(text);
  const out = [];
  for (let i = 0; i < bytes.length;) {
    let value = 0;
    let place = 1;
    let byte;
    do {
      byte = bytes.charCodeAt(i++);
      value += (byte & 127) * place;
      place *= 128;
    } while (byte & 128);
    out.push(value);
  }
  return out;
}

export const logit = (p) => Math.log(p) - Math.log1p(-p);
export const sigmoid = (x) => 1 / (1 + Math.exp(-Math.max(x, -700)));

// histograms.Bins: steps of 2^-bits up to log-odds of 32, then 2^bits steps an octave, for seven octaves.
function edgeAt(place, bits) {
  const steps = place - (32 + 7) * 2 ** bits;
  const centre = 32 * 2 ** bits;
  if (Math.abs(steps) <= centre) return steps / 2 ** bits;
  const beyond = Math.abs(steps) - centre;
  const octave = Math.floor(beyond / 2 ** bits);
  return Math.sign(steps) * 32 * 2 ** octave * (1 + (beyond % 2 ** bits) / 2 ** bits);
}

const runningSum = (values) => {
  let sum = 0;
  return Float64Array.from(values, (v) => (sum += v));
};

// A share of the total at every threshold, from nobody on.
const shareFrom = (running) =>
  Float64Array.from({ length: running.length + 1 }, (_, k) => (k > 0 ? running[k - 1] / running.at(-1) : 0));

export function readGrid(raw) {
  const { bits } = raw;
  const starts = [0];
  for (const n of raw.bins) starts.push(starts.at(-1) + n);
  const [edges, middles, positives, negatives] = ["edges", "middles", "positives", "negatives"].map((name) =>
    unpacked(raw[name]),
  );
  const size = raw.bins.length;
  const curves = [];
  for (let i = 0; i < size; i++) {
    const [from, to] = [starts[i], starts[i + 1]];
    let place = 2 * (32 + 7) * 2 ** bits;
    const at = edges.slice(from, to).map((step) => (place -= step));
    const inside = middles.slice(from, to).map((above, k) => at[k] + above);
    const curve = {
      // From high scores to low: bin k holds scores from edge[k] up to edge[k - 1].
      edge: Float64Array.from(at, (p) => edgeAt(p, bits)),
      middle: Float64Array.from(inside, (p) => (edgeAt(p, bits) + edgeAt(p + 1, bits)) / 2),
      p: Float64Array.from(positives.slice(from, to), (v) => v * raw.units[1]),
      n: Float64Array.from(negatives.slice(from, to), (v) => v * raw.units[0]),
    };
    curve.edge[curve.edge.length - 1] = -Infinity;
    curve.tp = runningSum(curve.p);
    curve.fp = runningSum(curve.n);
    curve.positives = curve.tp.at(-1);
    curve.negatives = curve.fp.at(-1);
    curve.recall = shareFrom(curve.tp);
    curve.fpr = shareFrom(curve.fp);
    curves.push(curve);
  }
  return {
    ...raw,
    size,
    curves,
    names: Object.keys(raw.lambdas),
    subgroups: raw.subgroups.map((s) => readSubgroups(s, size, raw.units)),
  };
}

function readSubgroups(raw, size, units) {
  const steps = unpacked(raw.ends);
  const counts = unpacked(raw.counts);
  const groups = raw.values.length;
  const cuts = [];
  let k = 0;
  for (let i = 0; i < size; i++) {
    let bin = -1;
    const ends = [];
    const of = raw.values.map(() => ({ p: [], n: [] }));
    for (let j = 0; j < raw.bins[i]; j++, k++) {
      ends.push((bin += steps[k]));
      of.forEach((group, g) => {
        group.n.push(units[0] * counts[2 * groups * k + g]);
        group.p.push(units[1] * counts[2 * groups * k + groups + g]);
      });
    }
    const curves = of.map(({ p, n }) => {
      const [tp, fp] = [runningSum(p), runningSum(n)];
      return { tp, fp, positives: tp.at(-1), negatives: fp.at(-1) };
    });
    const all = (name) => Float64Array.from(ends, (_, j) => curves.reduce((sum, group) => sum + group[name][j], 0));
    const [tp, fp] = [all("tp"), all("fp")];
    cuts.push({ ends, curves, tp, fp, positives: tp.at(-1), negatives: fp.at(-1) });
  }
  return { ...raw, cuts };
}
