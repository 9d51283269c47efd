// Answers, from standard input to standard output, what the page would: solutions of needs, intervals, decoded grids, and
// what is worked on in which frame, and the numbers of the pictures.

import { inFrames } from "../src/tunelater/page/frames.mjs";
import {
  costOfThousand,
  benefitOfThousand,
  figuresOf,
  gridAxis,
  nearestCut,
  placeOn,
  reliabilityOf,
  spreadOf,
  stopsOf,
  wholeOf,
} from "../src/tunelater/page/curves.mjs";
import { estimates, ofShare } from "../src/tunelater/page/intervals.mjs";
import { readGrid } from "../src/tunelater/page/grid.mjs";
import { metricOf } from "../src/tunelater/page/metrics.mjs";
import { solve } from "../src/tunelater/page/solve.mjs";

let text = "";
for await (const piece of process.stdin) text += piece;
const asked = JSON.parse(text);
const answers = {};
if (asked.grid) {
  const grid = readGrid(asked.grid);
  answers.curves = grid.curves.map((c) => ({
    edge: [...c.edge].map(String),
    middle: [...c.middle],
    tp: [...c.tp],
    fp: [...c.fp],
  }));
  answers.subgroups = grid.subgroups.map((s) =>
    s.cuts.map((cut) => ({
      ends: cut.ends,
      tp: [...cut.tp],
      fp: [...cut.fp],
      curves: cut.curves.map((g) => ({ tp: [...g.tp], fp: [...g.fp] })),
    })),
  );
  answers.solved = asked.needs?.map(({ need, simplest }) => solve(grid, need, { simplest }));
  answers.pictures = asked.pictures?.map((of) => picturesOf(grid, of));
}
if (asked.axes)
  answers.places = asked.axes.map((values) => [gridAxis(values), values.map((v) => placeOn(gridAxis(values), v))]);
if (asked.cells) {
  answers.intervals = asked.cells.map(({ cells, sizes, prior, names }) =>
    estimates(
      Object.fromEntries(names.map((name) => [name, metricOf(name, { fn: 50, fp: 1 }).values])),
      cells,
      sizes,
      prior,
    ),
  );
  answers.shares = asked.cells.map(({ cells, sizes }) => ofShare(cells.tp, cells.positives, sizes[1]));
}
if (asked.frames) answers.frames = framesOf(asked.frames);

// The numbers of a lambda's pictures: of each threshold from nobody on where they are of thresholds.
function picturesOf(grid, { lambda, prior, costs, logOdds, range, steps }) {
  const curve = grid.curves[lambda];
  const thresholds = Array.from({ length: curve.edge.length + 1 }, (_, k) => k - 1);
  return {
    whole: wholeOf(curve, grid, prior),
    figures: figuresOf(grid, lambda, prior),
    stops: stopsOf(curve),
    cost: thresholds.map((k) => costOfThousand(curve, k, costs, prior)),
    benefit: logOdds.map((t) => benefitOfThousand(curve, grid, t, prior)),
    reliability: reliabilityOf(curve, grid, prior),
    spread: [curve.n, curve.p].map((counts) => spreadOf(curve, counts, range, steps)),
    nearest: grid.subgroups.map((s) => thresholds.map((k) => nearestCut(s.cuts[lambda], curve, k, prior))),
  };
}

// Frame by frame, the parts that were worked on, of such that take `costs` milliseconds in each of `rounds` frames after a
// move, of which there is one in each frame of the first `moves`, all of them long ones where `later`.
function framesOf({ costs, rounds, moves, later }) {
  let [clock, next] = [0, null];
  const told = [];
  performance.now = () => clock;
  globalThis.requestAnimationFrame = (run) => (next = run);
  let due = [];
  const parts = costs.map((ms, i) => () => {
    if (due[i] === 0) return false;
    clock += ms;
    told.at(-1).push(i);
    return --due[i] > 0;
  });
  const frames = inFrames(parts, () => told.push("settled"));
  for (let frame = 0; frame < moves || next !== null; frame++) {
    if (frame < moves) {
      due = costs.map((_, i) => rounds[i]);
      frames.again(later);
    }
    told.push([]);
    const run = next;
    next = null;
    run?.();
  }
  return told;
}

process.stdout.write(JSON.stringify(answers));
