// The pictures. Each is a function of `view`: the grid, the chosen lambda and bin, the prior and the costs.

import {
  CHOSEN,
  Chart,
  DEFAULT,
  EVERYBODY,
  Family,
  NOBODY,
  PROBABILITY,
  colours,
  columns,
  dots,
  line,
  ramp,
  rowOfCells,
  whiskers,
} from "./draw.mjs";
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

// A curve through the thresholds of a lambda, from nobody on.
const rocLine = ({ fpr, recall }) => [fpr, recall];
const prLine = ({ fpr, recall }, p) => [
  recall,
  Array.from(recall, (r, i) => {
    const [found, alarms] = [p * r, (1 - p) * fpr[i]];
    return found + alarms > 0 ? found / (found + alarms) : null;
  }),
];

// `pick` is called with what a click chooses, `pointed` with the lambda that the map is pointed at.
export function makeCharts(view, places, { pick, pointed }) {
  const { grid } = view;
  const chosen = () => grid.curves[view.lambda];
  const other = () => grid.curves[grid.default];
  const here = () => cellsAt(chosen(), view.bin);
  const BOTH = [line("other", DEFAULT), line("chosen", CHOSEN)];
  const both = (lineOf) => [lineOf(other()), lineOf(chosen())];
  const flat = ([low, high], y) => [
    [low, high],
    [y, y],
  ];

  const share = { values: (_, s) => s.map((v) => `${Math.round(v * 100)}%`) };
  const axis = (label, range, more) => ({ label, range, axis: more });
  const curves = (place, x, y, rangeX, lineOf, prior) => {
    const family = new Family(grid.curves, prior, lineOf);
    const chart = new Chart(place, {
      x: axis(x, rangeX, share),
      y: axis(y, () => [0, 1.02], share),
      series: BOTH,
      data: () => both(lineOf),
      shows: () => `${view.lambda} ${prior()} ${family.shown}`,
      under: (plot) => family.paint(plot),
      marks() {
        const [xs, ys] = lineOf(chosen());
        return [{ kind: "dot", x: xs[view.bin + 1], y: ys[view.bin + 1] ?? NaN }];
      },
      pick(px, py) {
        const [xs, ys] = lineOf(chosen());
        let [best, least] = [-1, Infinity];
        for (let i = 0; i < xs.length; i++) {
          const d = (xs[i] - px) ** 2 + ((ys[i] ?? 0) - py) ** 2;
          if (d < least) [best, least] = [i - 1, d];
        }
        pick({ bin: best });
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
  const within = (x, [low, high]) => Math.min(Math.max(x, low), high);
  // Not far outside of the picture: a browser leaves out the dashes of a line that is too long.
  const near =
    ([low, high]) =>
    (y) =>
      within(y, [low - 20 * (high - low), high + 20 * (high - low)]);
  const thresholdHere = () => {
    const edge = view.bin < 0 ? Infinity : chosen().edge[view.bin];
    return within(edge + shiftOf(grid, view.prior), span());
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
  // From everybody to nobody.
  const costLine = (curve) => {
    const [shift, [low, high], last] = [shiftOf(grid, view.prior), span(), curve.edge.length - 1];
    const bins = Array.from({ length: last + 2 }, (_, i) => last - i);
    return [
      bins.map((k) => (k < 0 ? high : k === last ? low : curve.edge[k] + shift)),
      bins.map(per1000(curve)).map(near(highestCost())),
    ];
  };
  const cost = new Chart(places.cost, {
    x: axis("threshold (probability)", span, PROBABILITY),
    y: axis("cost of 1,000 cases", highestCost),
    series: [line("edge", NOBODY), line("edge", EVERYBODY), ...BOTH],
    data: () => [...extremes().map((y) => flat(span(), y)), ...both(costLine)],
    shows: () => `${view.lambda} ${view.prior} ${view.fn} ${view.fp} ${highestCost()}`,
    marks: () => [{ kind: "dot", x: thresholdHere(), y: per1000(chosen())(view.bin) }],
    pick: (x) => atProbability(x),
  });

  // Net benefit of alerting on what is at least as probable as r.
  const STEPS_OF_R = 120;
  const rs = () => {
    const low = Math.min(-7, logit(shareOf(grid, view.prior)) - 2, thresholdHere() - 0.5);
    return [low, Math.max(2, thresholdHere() + 0.5)];
  };
  const benefits = () => [-0.25, 1.05].map((of) => of * 1000 * shareOf(grid, view.prior));
  const benefitLine = (benefitAt) => {
    const [low, high] = rs();
    const x = Array.from({ length: STEPS_OF_R }, (_, i) => low + (i * (high - low)) / (STEPS_OF_R - 1));
    return [x, x.map(benefitAt).map(near(benefits()))];
  };
  const decision = new Chart(places.decision, {
    x: axis("threshold probability r", rs, PROBABILITY),
    y: axis("net benefit, 1,000 cases", benefits),
    series: [line("edge", NOBODY), line("edge", EVERYBODY), ...BOTH],
    data() {
      const everybody = atPrior(cellsAt(chosen(), chosen().edge.length - 1), view.prior);
      return [
        flat(rs(), 0),
        benefitLine((r) => 1000 * netBenefit(sigmoid(r))(everybody)),
        ...both((curve) => benefitLine((r) => benefitOfThousand(curve, grid, r, view.prior))),
      ];
    },
    shows: () => `${view.lambda} ${view.prior} ${rs()}`,
    marks() {
      const worth = 1000 * netBenefit(sigmoid(thresholdHere()))(atPrior(here(), view.prior));
      const [least] = benefits();
      return [{ kind: worth < least ? "hollow dot" : "dot", x: thresholdHere(), y: Math.max(worth, least) }];
    },
    pick: (x) => atProbability(x),
  });

  let [groups, groupsFor] = [null, null];
  const groupsOf = () => {
    const now = `${view.lambda} ${view.prior}`;
    if (groupsFor !== now) {
      const x = ({ predicted }) => logit(Math.min(Math.max(predicted, 1e-9), 1 - 1e-9));
      [groups, groupsFor] = [reliabilityOf(chosen(), grid, view.prior).map((g) => ({ ...g, x: x(g) })), now];
    }
    return groups;
  };
  const ends = () => {
    const xs = groupsOf().map((g) => g.x);
    return [Math.min(...xs) - 0.7, Math.max(...xs, 0) + 0.7];
  };
  // Of one class alone there is an end of the interval.
  const observedIn = (g) => (g.observed <= 0 ? g.high : g.observed >= 1 ? g.low : g.observed);
  const reliability = new Chart(places.reliability, {
    x: axis("predicted probability", ends, PROBABILITY),
    y: axis("share of positives", ends, PROBABILITY),
    series: [line("edge", { dash: [4, 4] }), whiskers("chosen"), dots("chosen"), dots("ground", { rim: "chosen" })],
    data() {
      const all = groupsOf();
      const y = (of) => (g) => within(logit(of(g)), ends());
      const [low, high] = ends();
      const inside = [low + 0.04 * (high - low), high - 0.04 * (high - low)];
      const placed = (some) => [some.map((g) => g.x), some.map((g) => within(logit(observedIn(g)), inside))];
      const seen = ({ observed }) => observed > 0 && observed < 1;
      return [
        [ends(), ends()],
        [all.map((g) => g.x), all.map(y((g) => g.high)), all.map(y((g) => g.low))],
        placed(all.filter(seen)),
        placed(all.filter((g) => !seen(g))),
      ];
    },
    shows: () => `${view.lambda} ${view.prior}`,
    marks: () => [{ kind: "line", x: within(thresholdHere(), ends()) }],
  });

  const STEPS = 48;
  const scores = new Chart(places.scores, {
    x: axis("probability", span, PROBABILITY),
    y: axis("negatives  |  positives", () => [-1.05, 1.05], { values: () => [], splits: () => [0] }),
    series: [columns("positive"), columns("negative"), line("muted", { width: 1 })],
    data() {
      const [[low, high], shift] = [span(), shiftOf(grid, view.prior)];
      const x = Array.from({ length: STEPS }, (_, j) => low + (j * (high - low)) / STEPS);
      const heights = (counts, sign) => {
        const shares = spreadOf(chosen(), counts, [low - shift, high - shift], STEPS);
        const most = Math.max(...shares);
        return [x, shares.map((s) => (sign * s) / most)];
      };
      return [heights(chosen().p, 1), heights(chosen().n, -1), flat([low, high], 0)];
    },
    shows: () => `${view.lambda} ${view.prior}`,
    marks: () => [{ kind: "line", x: thresholdHere() }],
    pick: (x) => atProbability(x),
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
  // A small cell may lie on the edge of the grid, half beyond it.
  const range = (name) => {
    const places = name === null ? [0] : between[name];
    const ends = [Math.min(-0.5, Math.min(...places) - 0.25), Math.max(size(name) - 0.5, Math.max(...places) + 0.25)];
    return () => ends;
  };
  // Lambdas of one row and one size, the small ones last, which lie over others.
  const rowsOf = new Map();
  grid.curves.forEach((_, i) => {
    const key = `${placeOf(y, i)} ${halfOf(i)}`;
    rowsOf.set(key, [...(rowsOf.get(key) ?? []), i]);
  });
  const rows = [...rowsOf.values()].map((row) => row.sort((i, j) => placeOf(x, i) - placeOf(x, j)));
  rows.sort(([i], [j]) => halfOf(j) - halfOf(i));
  const placed = (some) => [some.map((i) => placeOf(x, i)), some.map((i) => placeOf(y, i))];
  const colourOf = (i) => {
    if (!Number.isFinite(values[i])) return null;
    return ramp(colours().sequence, best === worst ? 0.5 : (values[i] - worst) / (best - worst));
  };
  // Of cells over each other the one on top.
  const lambdaAt = (px, py) =>
    rows.flat().findLast((l) => Math.abs(placeOf(x, l) - px) <= halfOf(l) && Math.abs(placeOf(y, l) - py) <= halfOf(l));
  const chart = new Chart(place, {
    x: { label: nameOf(x), range: range(x), axis: at(x, 4) },
    y: { label: y === null ? "" : nameOf(y), range: range(y), axis: at(y, 10) },
    height: 430,
    // Black with a white rim, to be seen on any colour.
    series: [...rows.map(([first]) => rowOfCells(halfOf(first))), dots("mark", { rim: "rim", size: 2.6, width: 1 })],
    data() {
      known();
      return [...rows.map((row) => [...placed(row), row.map(colourOf)]), placed(rows.flat().filter((i) => near?.[i]))];
    },
    shows,
    marks() {
      const frame = (kind, i) => ({ kind, x: placeOf(x, i), y: placeOf(y, i), half: halfOf(i) });
      return [
        ...(view.lambda === grid.default ? [] : [frame("default frame", grid.default)]),
        frame("chosen frame", view.lambda),
        ...(cursor === null || cursor === view.lambda ? [] : [frame("pointed frame", cursor)]),
      ];
    },
    pick(px, py) {
      const lambda = lambdaAt(px, py);
      if (lambda !== undefined) pick({ lambda });
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
    point(lambdaAt(...chart.valuesAt(event)) ?? null);
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
