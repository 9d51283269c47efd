// The pictures. Each is a function of `view`: the grid, the chosen lambda and bin, the prior and the costs.

import { Chart, PROBABILITY, colours, dot, line, ramp } from "./draw.mjs";
import { logit, sigmoid } from "./grid.mjs";
import { atPrior, costOf, netBenefit } from "./metrics.mjs";
import { ofShare } from "./intervals.mjs";
import { number, percent, shown } from "./words.mjs";

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

export const WHOLE = ["auc", "average_precision", "brier", "log_loss"];

// Metrics of a whole lambda at a prior, scores of a bin taken as equal to their mean.
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
    logLoss += p * of * Math.log1p(Math.exp(-t)) + (1 - p) * nf * (t > 30 ? t : Math.log1p(Math.exp(t)));
  }
  return { auc, average_precision: ap, brier, log_loss: logLoss };
}

const steps = (curve) => Array.from({ length: curve.edge.length + 1 }, (_, k) => cellsAt(curve, k - 1));
const fprOf = (c) => c.fp / c.negatives;
const recallOf = (c) => c.tp / c.positives;
const precisionOf = (prior) => (c) => {
  const at = atPrior(c, prior);
  return at.tp + at.fp > 0 ? at.tp / (at.tp + at.fp) : NaN;
};

// The faint family of all lambdas: painted once into an image of its own, as long as nothing about it changes. While
// something is being moved the image stays as it was.
class Family {
  paint(pen, key, resting, lines) {
    const { box, ctx } = pen;
    const now = `${key} ${pen.version} ${box.width}x${box.height}`;
    if (this.key !== now && !resting) {
      if (this.image && this.version === pen.version) ctx.drawImage(this.image, 0, 0);
      return;
    }
    if (this.key !== now) {
      this.version = pen.version;
      this.key = now;
      this.image = document.createElement("canvas");
      [this.image.width, this.image.height] = [ctx.canvas.width, ctx.canvas.height];
      const own = { ...pen, ctx: this.image.getContext("2d") };
      const alpha = Math.max(0.05, Math.min(0.3, 12 / lines.size));
      for (const [xs, ys] of lines.all()) line(own, xs, ys, { colour: pen.c.chosen, width: 1, alpha });
    }
    ctx.drawImage(this.image, 0, 0);
  }
}

export function makeCharts(view, places, pick) {
  const { grid } = view;
  const chosen = () => grid.curves[view.lambda];
  const other = () => grid.curves[grid.default];
  const here = () => cellsAt(chosen(), view.bin);
  const both = (draw) => {
    draw(other(), { colour: colours().other, dash: [5, 4] });
    draw(chosen(), { colour: colours().chosen, width: 2.2 });
  };
  const nearest = (distance) => {
    let [best, least] = [-1, Infinity];
    steps(chosen()).forEach((c, k) => {
      const d = distance(c);
      if (d < least) [best, least] = [k - 1, d];
    });
    pick({ bin: best });
  };

  const share = { splits: undefined, values: (_, s) => s.map((v) => `${Math.round(v * 100)}%`) };
  const unit = () => [0, 1];
  const axis = (label, range, more) => ({ label, range, axis: more });
  const [families, coordinates] = [[new Family(), new Family()], [[fprOf, recallOf], [recallOf, null]]];
  const curves = (n, place, x, y, of, rangeX) =>
    new Chart(place, {
      x: axis(x, rangeX, share),
      y: axis(y, () => [0, 1.02], share),
      pick: (px, py) => nearest((c) => (of()[0](c) - px) ** 2 + ((of()[1](c) || 0) - py) ** 2),
      paint(pen) {
        const [ofX, ofY] = of();
        const lines = { size: grid.size, all: () => grid.curves.map((c) => [steps(c).map(ofX), steps(c).map(ofY)]) };
        families[n].paint(pen, n === 1 ? view.prior : "", view.resting, lines);
        both((curve, style) => line(pen, steps(curve).map(ofX), steps(curve).map(ofY), style));
        dot(pen, ofX(here()), ofY(here()), { colour: pen.c.chosen, size: 6 });
      },
    });
  const roc = curves(0, places.roc, "false positive rate", "recall", () => coordinates[0], () => [-0.01, 1]);
  const pr = curves(1, places.pr, "recall", "precision", () => [recallOf, precisionOf(view.prior)], () => [0, 1.01]);

  // Where scores are, as log-odds at the prior: nearly all of them, at any lambda shown.
  const span = () => {
    const shift = shiftOf(grid, view.prior);
    const ends = [chosen(), other()].map((c) => [c.middle.at(-1), c.middle[0]]);
    const [low, high] = [Math.min(...ends.map((e) => e[0])), Math.max(...ends.map((e) => e[1]))];
    return [low + shift - 0.5, high + shift + 0.5];
  };
  const thresholdsOf = (curve) => [...curve.edge.slice(0, -1)].map((e) => e + shiftOf(grid, view.prior));
  const thresholdHere = () => {
    const edge = view.bin < 0 ? Infinity : chosen().edge[view.bin];
    const [low, high] = span();
    return Math.min(Math.max(edge + shiftOf(grid, view.prior), low), high);
  };
  const atProbability = (logOdds) => pick({ bin: binFrom(chosen(), logOdds - shiftOf(grid, view.prior)) });

  const costs = () => ({ fn: view.fn, fp: view.fp });
  const per1000 = (curve) => (k) => 1000 * costOf(costs())(atPrior(cellsAt(curve, k), view.prior));
  const cost = new Chart(places.cost, {
    x: axis("threshold (probability)", span, PROBABILITY),
    y: axis("cost of 1,000 cases", () => {
      const nobody = per1000(chosen())(-1);
      return [0, 1.3 * Math.min(nobody, per1000(chosen())(chosen().edge.length - 1)) || 1];
    }),
    pick: (x) => atProbability(x),
    paint(pen) {
      const [low, high] = span();
      const [nobody, everybody] = [per1000(chosen())(-1), per1000(chosen())(chosen().edge.length - 1)];
      line(pen, [low, high], [nobody, nobody], { colour: pen.c.edge, dash: [1, 3] });
      line(pen, [low, high], [everybody, everybody], { colour: pen.c.edge, dash: [8, 3, 1, 3] });
      both((curve, style) => {
        const ys = thresholdsOf(curve).map((_, k) => per1000(curve)(k));
        line(pen, [high, ...thresholdsOf(curve), low], [per1000(curve)(-1), ...ys, per1000(curve)(curve.edge.length - 1)], style);
      });
      dot(pen, thresholdHere(), per1000(chosen())(view.bin), { colour: pen.c.chosen, size: 6 });
    },
  });

  // Net benefit of alerting on what is at least as probable as r.
  const RS = Array.from({ length: 120 }, (_, i) => -7 + (i * 9) / 119);
  const benefit = (curve, t) => {
    const c = cellsAt(curve, binFrom(curve, t - shiftOf(grid, view.prior)));
    return 1000 * netBenefit(sigmoid(t))(atPrior(c, view.prior));
  };
  const decision = new Chart(places.decision, {
    x: axis("threshold probability r", () => [RS[0], RS.at(-1)], PROBABILITY),
    y: axis("net benefit, 1,000 cases", () => {
      const most = 1000 * shareOf(grid, view.prior);
      return [-0.25 * most, 1.05 * most];
    }),
    pick: (x) => atProbability(x),
    paint(pen) {
      const all = (t) => 1000 * netBenefit(sigmoid(t))(atPrior(cellsAt(chosen(), chosen().edge.length - 1), view.prior));
      line(pen, RS, RS.map(() => 0), { colour: pen.c.edge, dash: [1, 3] });
      line(pen, RS, RS.map(all), { colour: pen.c.edge, dash: [8, 3, 1, 3] });
      both((curve, style) => line(pen, RS, RS.map((t) => benefit(curve, t)), style));
      const t = thresholdHere();
      if (view.bin >= 0 && t > RS[0] && t < RS.at(-1)) {
        const c = atPrior(here(), view.prior);
        dot(pen, t, 1000 * netBenefit(sigmoid(t))(c), { colour: pen.c.chosen, size: 6 });
      }
    },
  });

  const reliability = new Chart(places.reliability, {
    x: axis("predicted probability", () => ends(), PROBABILITY),
    y: axis("share of positives", () => ends(), PROBABILITY),
    paint(pen) {
      const [low, high] = ends();
      line(pen, [low, high], [low, high], { colour: pen.c.edge, dash: [4, 4] });
      for (const g of groupsOf()) {
        line(pen, [g.x, g.x], [Math.max(logit(g.low || 1e-9), low), Math.min(g.high < 1 ? logit(g.high) : high, high)], { colour: pen.c.chosen, width: 1.2 });
        const inside = g.observed > 0 && g.observed < 1;
        const y = g.observed <= 0 ? g.high : g.observed >= 1 ? g.low : g.observed;
        dot(pen, g.x, Math.min(Math.max(logit(y), low), high), { colour: pen.c.chosen, hollow: !inside, size: 4.5 });
      }
    },
  });
  // Up to ten groups of bins, of equal share of both classes, so that the few positives have theirs.
  let [groups, groupsFor] = [null, null];
  function groupsOf() {
    const now = `${view.lambda} ${view.prior}`;
    if (groupsFor !== now) [groups, groupsFor] = [grouped(), now];
    return groups;
  }
  function grouped() {
    const [curve, p, shift] = [chosen(), shareOf(grid, view.prior), shiftOf(grid, view.prior)];
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
        const squares = (yes * yes) / (g.yes * grid.sizes[1] || 1) + ((all - yes) * (all - yes)) / (g.no * grid.sizes[0] || 1);
        const [observed, low, high] = ofShare(yes, all, (all * all) / squares);
        out.push({ x: logit(Math.min(Math.max(g.sum / all, 1e-9), 1 - 1e-9)), observed, low, high });
        g = { yes: 0, no: 0, sum: 0 };
      }
    }
    return out;
  }
  const ends = () => {
    const xs = groupsOf().map((g) => g.x);
    return [Math.min(...xs) - 0.7, Math.max(...xs, 0) + 0.7];
  };

  // Shares of each class in steps of log-odds; what lies in a bin is spread over it evenly.
  const STEPS = 48;
  const spreadOf = (counts, total) => {
    const [low, high] = span();
    const [curve, shift] = [chosen(), shiftOf(grid, view.prior)];
    const out = new Array(STEPS).fill(0);
    const width = (high - low) / STEPS;
    for (let k = 0; k < curve.edge.length; k++) {
      if (!counts[k]) continue;
      const last = curve.edge.length - 1;
      const upper = k === 0 ? 2 * curve.middle[0] - curve.edge[0] : curve.edge[k - 1];
      const lower = k === last ? 2 * curve.middle[last] - upper : curve.edge[k];
      const [from, to] = [(lower + shift - low) / width, (upper + shift - low) / width];
      for (let j = Math.max(0, Math.floor(from)); j <= Math.min(STEPS - 1, Math.floor(to)); j++) {
        const part = Math.min(to, j + 1) - Math.max(from, j);
        out[j] += ((counts[k] / total) * Math.max(part, 0)) / Math.max(to - from, 1e-9);
      }
    }
    return out;
  };
  const scores = new Chart(places.scores, {
    x: axis("probability", span, PROBABILITY),
    y: axis("negatives  |  positives", () => [-1.05, 1.05], { values: () => [], splits: () => [0] }),
    pick: (x) => atProbability(x),
    paint(pen) {
      const [low, high] = span();
      const width = (high - low) / STEPS;
      const { ctx } = pen;
      [[chosen().p, chosen().positives, 1, pen.c.positive], [chosen().n, chosen().negatives, -1, pen.c.negative]].forEach(
        ([counts, total, sign, colour]) => {
          const shares = spreadOf(counts, total);
          const most = Math.max(...shares);
          ctx.fillStyle = colour;
          shares.forEach((s, j) => {
            const [x0, x1] = [pen.px(low + j * width), pen.px(low + (j + 1) * width)];
            const [y0, y1] = [pen.py(0), pen.py((sign * s) / most)];
            ctx.fillRect(x0, Math.min(y0, y1), x1 - x0 - pen.scale * 0.7, Math.abs(y1 - y0));
          });
        },
      );
      line(pen, [low, high], [0, 0], { colour: pen.c.muted, width: 1 });
      const t = thresholdHere();
      line(pen, [t, t], [-1.05, 1.05], { colour: pen.c.ink, width: 2 });
    },
  });

  const heat = grid.names.some((name) => view.axes[name].length > 1) ? makeHeat(view, places, pick) : null;
  return {
    all: [roc, pr, heat?.chart, cost, decision, reliability, scores].filter(Boolean),
    heat,
    says: () => {
      const c = here();
      const w = wholeOf(chosen(), grid, view.prior);
      return {
        roc: `ROC curve of the chosen lambda, area ${number(w.auc)}; the point is at a false positive rate of ${percent(fprOf(c))} and a recall of ${percent(recallOf(c))}.`,
        pr: `Precision-recall curve, average precision ${number(w.average_precision)}; the point is at a recall of ${percent(recallOf(c))} and a precision of ${percent(precisionOf(view.prior)(c))}.`,
        cost: `Cost of 1,000 cases against the threshold; ${number(per1000(chosen())(view.bin))} at the point, ${number(per1000(chosen())(-1))} if nobody is alerted on.`,
        decision: `Net benefit against threshold probability, for the chosen and the default lambda, alerting on everybody, and on nobody.`,
        reliability: `Reliability of the probabilities in ${groupsOf().length} groups, with intervals; Brier score ${number(w.brier)}.`,
        scores: `Distribution of probabilities of positives (above) and negatives (below); the line is the threshold, probability ${percent(sigmoid(thresholdHere()))}.`,
      };
    },
  };
}

function makeHeat(view, places, pick) {
  const { grid } = view;
  const free = grid.names.filter((name) => view.axes[name].length > 1);
  const [x, y] = [free[0], free[1] ?? null];
  const placeOf = (name, i) => (name === null ? 0 : view.places[name][i]);
  const size = (name) => (name === null ? 1 : view.axes[name].length);
  let [cached, cachedFor] = [null, null];
  const values = () => {
    const key = view.heatKey();
    if (cached === null || (cachedFor !== key && view.resting)) {
      const whole = WHOLE.includes(view.heatMetric);
      cached = whole ? grid.curves.map((c) => wholeOf(c, grid, view.prior)[view.heatMetric]) : view.heatValues();
      cachedFor = key;
    }
    return cached;
  };
  const at = (name, most) => ({
    splits: () => {
      const every = Math.ceil(size(name) / most);
      return Array.from({ length: size(name) }, (_, i) => i).filter((i) => i % every === 0);
    },
    values: (_, s) => s.map((i) => (name === null ? "" : number(view.axes[name][i]))),
    grid: { show: false },
  });
  const range = (name) => () => [-0.5, size(name) - 0.5];
  const known = () => values().filter(Number.isFinite);
  const ends = () => (known().length ? [Math.min(...known()), Math.max(...known())] : [NaN, NaN]);
  const chart = new Chart(places.heat, {
    x: { label: x, range: range(x), axis: at(x, 4) },
    y: { label: y ?? "", range: range(y), axis: at(y, 7) },
    pick(px, py) {
      const [i, j] = [Math.round(px), Math.round(py)];
      const found = grid.curves.findIndex((_, l) => placeOf(x, l) === i && placeOf(y, l) === j);
      if (found >= 0) pick({ lambda: found });
    },
    paint(pen) {
      const of = values();
      const [low, high] = ends();
      const { ctx } = pen;
      for (let i = 0; i < grid.size; i++) {
        const [cx, cy] = [placeOf(x, i), placeOf(y, i)];
        const [x0, x1] = [pen.px(cx - 0.5), pen.px(cx + 0.5)];
        const [y0, y1] = [pen.py(cy + 0.5), pen.py(cy - 0.5)];
        if (Number.isFinite(of[i])) {
          ctx.fillStyle = ramp(pen.c.sequence, high > low ? (of[i] - low) / (high - low) : 0.5);
          ctx.fillRect(x0, y0, x1 - x0 + 0.5, y1 - y0 + 0.5);
        } else {
          ctx.strokeStyle = pen.c.line;
          ctx.strokeRect(x0 + 2, y0 + 2, x1 - x0 - 4, y1 - y0 - 4);
        }
        for (const [marked, colour, width] of [[i === grid.default, "#000000", 1.5], [i === view.lambda, "#FFFFFF", 5], [i === view.lambda, "#000000", 2.5]]) {
          if (!marked) continue;
          ctx.strokeStyle = colour;
          ctx.setLineDash(i === grid.default && i !== view.lambda ? [3 * pen.scale, 3 * pen.scale] : []);
          ctx.lineWidth = width * pen.scale;
          const inset = 2 * pen.scale;
          ctx.strokeRect(x0 + inset, y0 + inset, x1 - x0 - 2 * inset, y1 - y0 - 2 * inset);
          ctx.setLineDash([]);
        }
      }
    },
  });
  return {
    chart,
    range: ends,
    value: () => shown(view.heatMetric, values()[view.lambda]),
  };
}
