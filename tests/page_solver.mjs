// Answers, from standard input to standard output, what the page would: solutions of needs, intervals, decoded grids.

import { estimate, ofShare, posterior } from "../src/tunelater/page/intervals.mjs";
import { readGrid } from "../src/tunelater/page/grid.mjs";
import { atPrior, metricOf } from "../src/tunelater/page/metrics.mjs";
import { solve } from "../src/tunelater/page/solve.mjs";

let text = "";
for await (const piece of process.stdin) text += piece;
const asked = JSON.parse(text);
const answers = {};
if (asked.grid) {
  const grid = readGrid(asked.grid);
  answers.curves = grid.curves.map((c) => ({ edge: [...c.edge].map(String), middle: [...c.middle], tp: [...c.tp], fp: [...c.fp] }));
  answers.subgroups = grid.subgroups.map((s) => s.cuts.map((cut) => ({ ends: cut.ends, curves: cut.curves.map((g) => ({ tp: [...g.tp], fp: [...g.fp] })) })));
  answers.solved = asked.needs.map(({ need, simplest }) => solve(grid, need, { simplest }));
}
if (asked.cells) {
  answers.intervals = asked.cells.map(({ cells, sizes, prior, names }) => {
    const points = posterior(cells, sizes, prior);
    const observed = atPrior(cells, prior);
    return Object.fromEntries(names.map((name) => [name, estimate(metricOf(name, { fn: 50, fp: 1 }).values, observed, points)]));
  });
  answers.shares = asked.cells.map(({ cells, sizes }) => ofShare(cells.tp, cells.positives, sizes[1]));
}
process.stdout.write(JSON.stringify(answers));
