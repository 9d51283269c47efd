// The pictures. Each is a function of `view`: the grid, the chosen lambda and bin, the prior and the costs.

import { Chart, Family, PROBABILITY, dot, line, ramp, segment } from "./draw.mjs";
import {
  WHOLE,
  benefitOfThousand,
  binFrom,
  cellsAt,
  costOfThousand,
  figuresOf,
  gridAxis,
  isAbout,
  placeOn,
  reliabilityOf,
  shareOf,
  shiftOf,
  spreadOf,
} from "./curves.mjs";
import { logit, sigmoid } from "./grid.mjs";
import { atPrior, higherIsBetter, isDefined, metricOf, netBenefit } from "./metrics.mjs";
import { nameOf, number, percent } from "./words.mjs";

// Lines through a curve's thresholds, from nobody on: [size, x(i), y(i)].
const rocLine = ({ fpr, recall }) => [fpr.length, (i) => fpr[i], (i) => recall[i]];
const prLine = ({ fpr, recall }, p) => [
  recall.length,
  (i) => recall[i],
  (i) => (p * recall[i]) / (p * recall[i] + (1 - p) * fpr[i]),
];

// `pick` is called with what a click chooses, `pointed` with the lambda that the map is pointed at.
export function makeCharts(view, places, { pick, pointed }) {
  const { grid } = view;
  const chosen = () => grid.curves[view.lambda];
  const other = () => grid.curves[grid.default];
  const here = () => cellsAt(chosen(), view.bin);
  const both = ({ c }, draw) => {
    draw(other(), { colour: c.other, dash: [5, 4] });
    draw(chosen(), { colour: c.chosen, width: 2.2 });
  };

  const share = { values: (_, s) => s.map((v) => `${Math.round(v * 100)}%`) };
  const axis = (label, range, more) => ({ label, range, axis: more });
  const curves = (place, x, y, rangeX, lineOf, prior) => {
    const family = new Family(grid.curves, prior, lineOf);
    const chart = new Chart(place, {
      x: axis(x, rangeX, share),
      y: axis(y, () => [0, 1.02], share),
      pick(px, py) {
        const [size, ofX, ofY] = lineOf(chosen());
        let [best, least] = [-1, Infinity];
        for (let i = 0; i < size; i++) {
          const d = (ofX(i) - px) ** 2 + ((ofY(i) || 0) - py) ** 2;
          if (d < least) [best, least] = [i - 1, d];
        }
        pick({ bin: best });
      },
      shows: () => `${view.lambda} ${prior()} ${family.shown}`,
      paint(pen) {
        family.paint(pen);
        both(pen, (curve, style) => line(pen, ...lineOf(curve), style));
      },
      marks: () => view.bin,
      mark(pen) {
        const [, ofX, ofY] = lineOf(chosen());
        dot(pen, ofX(view.bin + 1), ofY(view.bin + 1), { colour: pen.c.chosen, size: 6 });
      },
    });
    return [chart, () => family.more(chart)];
  };
  const [roc, rocFamily] = curves(
    places.roc,
    "false positive rate",
    "recall",
    () => [-0.01, 1],
    rocLine,
    () => "",
  );
  const [pr, prFamily] = curves(
    places.pr,
    "recall",
    "precision",
    () => [0, 1.01],
    (curve) => prLine(curve, shareOf(grid, view.prior)),
    () => view.prior,
  );

  // Where scores are, as log-odds at the prior: nearly all of them, at any lambda shown.
  const span = () => {
    const shift = shiftOf(grid, view.prior);
    const ends = [chosen(), other()].map((c) => [c.middle.at(-1), c.middle[0]]);
    const [low, high] = [Math.min(...ends.map((e) => e[0])), Math.max(...ends.map((e) => e[1]))];
    return [low + shift - 0.5, high + shift + 0.5];
  };
  const thresholdHere = () => {
    const edge = view.bin < 0 ? Infinity : chosen().edge[view.bin];
    const [low, high] = span();
    return Math.min(Math.max(edge + shiftOf(grid, view.prior), low), high);
  };
  const atProbability = (logOdds) => pick({ bin: binFrom(chosen(), logOdds - shiftOf(grid, view.prior)) });

  const costs = () => ({ fn: view.fn, fp: view.fp });
  const per1000 = (curve) => (k) => costOfThousand(curve, k, costs(), view.prior);
  // Of alerting on nobody and on everybody.
  const extremes = () => [-1, chosen().edge.length - 1].map(per1000(chosen()));
  // Up to somewhat more than the cheaper of these, or than the point where that is dearer.
  const highestCost = () => {
    const [cheap, dear] = extremes().sort((a, b) => a - b);
    return [0, Math.max(1.3 * (cheap || dear), 1.1 * per1000(chosen())(view.bin)) || 1];
  };
  const cost = new Chart(places.cost, {
    x: axis("threshold (probability)", span, PROBABILITY),
    y: axis("cost of 1,000 cases", highestCost),
    pick: (x) => atProbability(x),
    shows: () => `${view.lambda} ${view.prior} ${view.fn} ${view.fp} ${highestCost()}`,
    paint(pen) {
      const [low, high] = span();
      const [nobody, everybody] = extremes();
      segment(pen, [low, nobody], [high, nobody], { colour: pen.c.edge, dash: [1, 3] });
      segment(pen, [low, everybody], [high, everybody], { colour: pen.c.edge, dash: [8, 3, 1, 3] });
      const shift = shiftOf(grid, view.prior);
      both(pen, (curve, style) => {
        const last = curve.edge.length;
        const x = (i) => (i === 0 ? high : i === last ? low : curve.edge[i - 1] + shift);
        const y = per1000(curve);
        line(pen, last + 1, x, (i) => y(i - 1), style);
      });
    },
    marks: () => view.bin,
    mark: (pen) => dot(pen, thresholdHere(), per1000(chosen())(view.bin), { colour: pen.c.chosen, size: 6 }),
  });

  // Net benefit of alerting on what is at least as probable as r.
  const STEPS_OF_R = 120;
  const rs = () => {
    const low = Math.min(-7, logit(shareOf(grid, view.prior)) - 2, thresholdHere() - 0.5);
    return [low, Math.max(2, thresholdHere() + 0.5)];
  };
  const benefits = () => [-0.25, 1.05].map((of) => of * 1000 * shareOf(grid, view.prior));
  const decision = new Chart(places.decision, {
    x: axis("threshold probability r", rs, PROBABILITY),
    y: axis("net benefit, 1,000 cases", benefits),
    pick: (x) => atProbability(x),
    shows: () => `${view.lambda} ${view.prior} ${rs()}`,
    paint(pen) {
      const everybody = atPrior(cellsAt(chosen(), chosen().edge.length - 1), view.prior);
      const [low, high] = rs();
      const at = (i) => low + (i * (high - low)) / (STEPS_OF_R - 1);
      segment(pen, [low, 0], [high, 0], { colour: pen.c.edge, dash: [1, 3] });
      line(pen, STEPS_OF_R, at, (i) => 1000 * netBenefit(sigmoid(at(i)))(everybody), {
        colour: pen.c.edge,
        dash: [8, 3, 1, 3],
      });
      both(pen, (curve, style) =>
        line(pen, STEPS_OF_R, at, (i) => benefitOfThousand(curve, grid, at(i), view.prior), style),
      );
    },
    marks: () => view.bin,
    mark(pen) {
      const worth = 1000 * netBenefit(sigmoid(thresholdHere()))(atPrior(here(), view.prior));
      const [least] = benefits();
      dot(pen, thresholdHere(), Math.max(worth, least), { colour: pen.c.chosen, hollow: worth < least, size: 6 });
    },
  });

  const reliability = new Chart(places.reliability, {
    x: axis("predicted probability", () => ends(), PROBABILITY),
    y: axis("share of positives", () => ends(), PROBABILITY),
    shows: () => `${view.lambda} ${view.prior}`,
    paint(pen) {
      const [low, high] = ends();
      segment(pen, [low, low], [high, high], { colour: pen.c.edge, dash: [4, 4] });
      for (const g of groupsOf()) {
        const [from, to] = [Math.max(logit(g.low || 1e-9), low), Math.min(g.high < 1 ? logit(g.high) : high, high)];
        segment(pen, [g.x, from], [g.x, to], { colour: pen.c.chosen, width: 1.2 });
        const inside = g.observed > 0 && g.observed < 1;
        const y = g.observed <= 0 ? g.high : g.observed >= 1 ? g.low : g.observed;
        dot(pen, g.x, Math.min(Math.max(logit(y), low), high), { colour: pen.c.chosen, hollow: !inside, size: 4.5 });
      }
    },
    marks: () => view.bin,
    mark(pen) {
      const [low, high] = ends();
      const t = Math.min(Math.max(thresholdHere(), low), high);
      segment(pen, [t, low], [t, high], { colour: pen.c.ink, width: 2 });
    },
  });
  let [groups, groupsFor] = [null, null];
  function groupsOf() {
    const now = `${view.lambda} ${view.prior}`;
    if (groupsFor !== now) {
      const x = ({ predicted }) => logit(Math.min(Math.max(predicted, 1e-9), 1 - 1e-9));
      [groups, groupsFor] = [reliabilityOf(chosen(), grid, view.prior).map((g) => ({ ...g, x: x(g) })), now];
    }
    return groups;
  }
  const ends = () => {
    const xs = groupsOf().map((g) => g.x);
    return [Math.min(...xs) - 0.7, Math.max(...xs, 0) + 0.7];
  };

  const STEPS = 48;
  const scores = new Chart(places.scores, {
    x: axis("probability", span, PROBABILITY),
    y: axis("negatives  |  positives", () => [-1.05, 1.05], { values: () => [], splits: () => [0] }),
    pick: (x) => atProbability(x),
    shows: () => `${view.lambda} ${view.prior}`,
    paint(pen) {
      const [low, high] = span();
      const width = (high - low) / STEPS;
      const { ctx } = pen;
      const shift = shiftOf(grid, view.prior);
      [
        [chosen().p, 1, pen.c.positive],
        [chosen().n, -1, pen.c.negative],
      ].forEach(([counts, sign, colour]) => {
        const shares = spreadOf(chosen(), counts, [low - shift, high - shift], STEPS);
        const most = Math.max(...shares);
        ctx.fillStyle = colour;
        shares.forEach((s, j) => {
          const [x0, x1] = [pen.px(low + j * width), pen.px(low + (j + 1) * width)];
          const [y0, y1] = [pen.py(0), pen.py((sign * s) / most)];
          ctx.fillRect(x0, Math.min(y0, y1), x1 - x0 - pen.scale * 0.7, Math.abs(y1 - y0));
        });
      });
      segment(pen, [low, 0], [high, 0], { colour: pen.c.muted, width: 1 });
    },
    marks: () => view.bin,
    mark: (pen) => segment(pen, [thresholdHere(), -1.05], [thresholdHere(), 1.05], { colour: pen.c.ink, width: 2 }),
  });

  return {
    chosen: [roc, pr, cost, decision, reliability, scores],
    families: [rocFamily, prFamily],
    heat: grid.names.some((name) => view.axes[name].length > 1) ? makeHeat(view, places.heat, { pick, pointed }) : null,
    says: () => {
      const c = here();
      const [fpr, recall, precision] = ["fpr", "recall", "precision"].map((name) =>
        isDefined(name, c) ? percent(metricOf(name).values(atPrior(c, view.prior))) : "none, for nobody is alerted on",
      );
      const w = figuresOf(grid, view.lambda, view.prior);
      const told = (name) => `${isAbout(grid, name, view.prior) ? "about " : ""}${number(w[name])}`;
      return {
        roc: `ROC curve of the chosen lambda, area ${told("auc")}; the point is at a false positive rate of ${fpr} and a recall of ${recall}.`,
        pr: `Precision-recall curve, average precision ${told("average_precision")}; the point is at a recall of ${recall} and a precision of ${precision}.`,
        cost: `Cost of 1,000 cases against the threshold; ${number(per1000(chosen())(view.bin))} at the point, ${number(extremes()[0])} if nobody is alerted on.`,
        decision: `Net benefit against threshold probability, for the chosen and the default lambda, alerting on everybody, and on nobody.`,
        reliability: `Reliability of the probabilities in ${groupsOf().length} groups, with intervals; Brier score ${told("brier")}.`,
        scores: `Distribution of probabilities of positives (above) and negatives (below); the line is the threshold, probability ${percent(sigmoid(thresholdHere()))}.`,
      };
    },
  };
}

function makeHeat(view, place, { pick, pointed }) {
  const { grid } = view;
  const free = grid.names.filter((name) => view.axes[name].length > 1);
  const [x, y] = [free[0], free[1] ?? null];
  const axes = Object.fromEntries(free.map((name) => [name, gridAxis(grid.lambdas[name])]));
  const between = Object.fromEntries(free.map((name) => [name, grid.lambdas[name].map((v) => placeOn(axes[name], v))]));
  const placeOf = (name, i) => (name === null ? 0 : between[name][i]);
  const size = (name) => (name === null ? 1 : axes[name].length);
  // A lambda beside the grid, such as a default between its values, is a small cell over those around it.
  const halfOf = (i) => (free.every((name) => Number.isInteger(between[name][i])) ? 0.5 : 0.25);
  const shows = () => view.heatKey();
  let [values, near, worst, best, valuesFor] = [[], null, NaN, NaN, null];
  const known = () => {
    if (valuesFor === shows()) return;
    const whole = WHOLE.includes(view.heatMetric);
    values = whole ? grid.curves.map((_, i) => figuresOf(grid, i, view.prior)[view.heatMetric]) : view.heatValues();
    near = view.heatNear(values);
    const rising = values.filter(Number.isFinite).sort((a, b) => a - b);
    if (!higherIsBetter(view.heatFigure())) rising.reverse();
    [worst, best] = rising.length ? [rising[0], rising.at(-1)] : [NaN, NaN];
    valuesFor = shows();
  };
  const at = (name, most) => ({
    splits: () => {
      const every = Math.ceil(size(name) / most);
      return Array.from({ length: size(name) }, (_, i) => i).filter((i) => i % every === 0);
    },
    values: (_, s) => s.map((i) => (name === null ? "" : number(axes[name][i]))),
    grid: { show: false },
  });
  const range = (name) => () => [-0.5, size(name) - 0.5];
  const cellOf = (pen, i) => {
    const [cx, cy] = [placeOf(x, i), placeOf(y, i)];
    const half = halfOf(i);
    const [x0, y0] = [pen.px(cx - half), pen.py(cy + half)];
    return [x0, y0, pen.px(cx + half) - x0, pen.py(cy - half) - y0];
  };
  // Black with a white rim, to be seen on any colour.
  const dotIn = ({ ctx, scale }, cx, cy) => {
    for (const [colour, radius] of [
      ["#FFFFFF", 2.6],
      ["#000000", 1.6],
    ]) {
      ctx.fillStyle = colour;
      ctx.beginPath();
      ctx.arc(cx, cy, radius * scale, 0, 2 * Math.PI);
      ctx.fill();
    }
  };
  // Of cells over each other the last, which is painted last.
  const lambdaAt = (px, py) =>
    grid.curves.findLastIndex(
      (_, l) => Math.abs(placeOf(x, l) - px) <= halfOf(l) && Math.abs(placeOf(y, l) - py) <= halfOf(l),
    );
  const chart = new Chart(place, {
    x: { label: nameOf(x), range: range(x), axis: at(x, 4) },
    y: { label: y === null ? "" : nameOf(y), range: range(y), axis: at(y, 7) },
    pick(px, py) {
      const lambda = lambdaAt(px, py);
      if (lambda >= 0) pick({ lambda });
    },
    shows,
    paint(pen) {
      known();
      const { ctx } = pen;
      for (let i = 0; i < grid.size; i++) {
        const [x0, y0, width, height] = cellOf(pen, i);
        if (Number.isFinite(values[i])) {
          ctx.fillStyle = ramp(pen.c.sequence, best === worst ? 0.5 : (values[i] - worst) / (best - worst));
          ctx.fillRect(x0, y0, width + 0.5, height + 0.5);
        } else {
          ctx.strokeStyle = pen.c.line;
          ctx.strokeRect(x0 + 2, y0 + 2, width - 4, height - 4);
        }
        if (near?.[i]) dotIn(pen, x0 + width / 2, y0 + height / 2);
      }
    },
    marks: () => `${view.lambda} ${cursor}`,
    mark(pen) {
      const { ctx, scale } = pen;
      const frame = (i, colour, thick, dash = []) => {
        const [x0, y0, width, height] = cellOf(pen, i);
        ctx.strokeStyle = colour;
        ctx.lineWidth = thick * scale;
        ctx.setLineDash(dash.map((d) => d * scale));
        ctx.strokeRect(x0 + 2 * scale, y0 + 2 * scale, width - 4 * scale, height - 4 * scale);
      };
      if (view.lambda !== grid.default) frame(grid.default, "#000000", 1.5, [3, 3]);
      frame(view.lambda, "#FFFFFF", 5);
      frame(view.lambda, "#000000", 2.5);
      if (cursor === null || cursor === view.lambda) return;
      frame(cursor, "#000000", 3);
      frame(cursor, "#FFFFFF", 1.5);
    },
  });

  // The lambda that is pointed at, by the pointer or the arrow keys.
  let cursor = null;
  const point = (lambda) => {
    if (lambda === cursor) return;
    cursor = lambda;
    chart.draw();
    pointed(lambda ?? view.lambda);
  };
  place.addEventListener("pointermove", (event) => {
    if (!chart.plot) return;
    const box = chart.plot.over.getBoundingClientRect();
    const lambda = lambdaAt(
      chart.plot.posToVal(event.clientX - box.left, "x"),
      chart.plot.posToVal(event.clientY - box.top, "y"),
    );
    point(lambda < 0 ? null : lambda);
  });
  for (const event of ["pointerleave", "blur"]) place.addEventListener(event, () => point(null));
  // The next lambda in a direction: straight on where there is one, else the nearest on that side.
  const towards = (dx, dy) => {
    const from = cursor ?? view.lambda;
    let [next, least] = [from, Infinity];
    for (let i = 0; i < grid.size; i++) {
      const [right, up] = [placeOf(x, i) - placeOf(x, from), placeOf(y, i) - placeOf(y, from)];
      const [ahead, aside] = [dx * right + dy * up, Math.abs(dx * up) + Math.abs(dy * right)];
      if (ahead > 0 && ahead + 100 * aside < least) [next, least] = [i, ahead + 100 * aside];
    }
    return next;
  };
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] };
  place.addEventListener("keydown", (event) => {
    if (event.key in arrows) point(towards(...arrows[event.key]));
    else if (["Enter", " "].includes(event.key)) pick({ lambda: cursor ?? view.lambda });
    else return;
    event.preventDefault();
  });
  return {
    chart,
    at: () => cursor ?? view.lambda,
    range() {
      known();
      return [worst, best];
    },
    value(lambda) {
      known();
      return values[lambda];
    },
    // Which lambdas have a dot: within one standard error of the best; null where that is not counted.
    near() {
      known();
      return near;
    },
  };
}
