// What becomes of a point: in a thousand cases, in figures, beside the default lambda, within subgroups.

import { atPrior, isDefined, metricOf } from "./metrics.mjs";
import { bestOf, meets } from "./solve.mjs";
import { estimates } from "./intervals.mjs";
import { alertRateAt, cellsAt, nearestCut } from "./curves.mjs";
import { apportioned, isOrAre, number, percent, shown } from "./words.mjs";
import { $, element, svg } from "./dom.mjs";
import { cells, costs, grid, toldLambda, toldThreshold, view, wholeNeed } from "./state.mjs";
import { termButton } from "./terms.mjs";

const FIGURES = ["recall", "precision", "specificity", "alerts", "cost", "cost_a_day", "npv", "f1", "alert_rate"];

const PER_THOUSAND = {
  hit: (c) => c.tp,
  missed: (c) => c.positives - c.tp,
  alarm: (c) => c.fp,
  alone: (c) => c.negatives - c.fp,
};

const metricsHere = (names) =>
  Object.fromEntries(
    names.map((name) => {
      const share = (of, times) => (c) => (times * of(c)) / (c.positives + c.negatives);
      if (name in PER_THOUSAND) return [name, share(PER_THOUSAND[name], 1000)];
      if (name === "alerts") return [name, share((c) => c.tp + c.fp, view.volume)];
      if (name === "cost_a_day") return [name, (c) => view.volume * metricOf("cost", costs()).values(c)];
      return [name, metricOf(name, costs()).values];
    }),
  );
export const estimatesOf = (i, k, names) =>
  estimates(metricsHere(names), cellsAt(grid.curves[i], k), grid.sizes, view.prior);

const MARKS = {
  hit: (x, y, r) => `M${x - r},${y}a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0z`,
  missed: (x, y, r) => `M${x - r},${y}a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0z`,
  alarm: (x, y, r) => `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
  alone: (x, y, r) => `M${x - r / 3},${y - r / 3}h${(2 * r) / 3}v${(2 * r) / 3}h${(-2 * r) / 3}z`,
};
const ICONS = 1000;
const KINDS = [
  ["hit", "positive, alerted on: found"],
  ["missed", "positive, left alone: missed"],
  ["alarm", "negative, alerted on: false alarm"],
  ["alone", "negative, left alone"],
];
// Of each kind, the marks in all places.
const marksOf = Object.fromEntries(
  KINDS.map(([kind]) => [
    kind,
    Array.from({ length: ICONS }, (_, n) => MARKS[kind](10 * (n % 40) + 5, 10 * Math.floor(n / 40) + 5, 3.5)),
  ]),
);

export function buildOutcome() {
  for (const [kind] of KINDS) $("icons").append(svg("path", { class: kind }));
  for (const [kind, says] of KINDS) {
    const mark = svg("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" });
    mark.append(svg("path", { class: kind, d: MARKS[kind](5, 5, 3.5) }));
    $("legend").append(
      element(
        "li",
        {},
        mark,
        element("b", { id: `n-${kind}` }),
        element("span", {}, says, element("small", { id: `range-${kind}` })),
      ),
    );
  }
  for (const name of FIGURES) {
    const head = element("th", { scope: "row" }, termButton(name));
    if (name === "cost") head.append(" of a case");
    $("figures").tBodies[0].append(element("tr", { id: `row-${name}` }, head, element("td"), element("td")));
  }
}

export function writeOutcome() {
  const at = atPrior(cells(), view.prior);
  const all = at.positives + at.negatives;
  const shares = [at.tp, at.positives - at.tp, at.fp].map((n) => Math.max(n, 0) / all);
  const counts = outcomesOf(shares, ICONS);
  let n = 0;
  KINDS.forEach(([kind], j) => {
    const icons = $("icons").children[j];
    const places = `${n} ${counts[j]}`;
    if (icons.places !== places) icons.setAttribute("d", marksOf[kind].slice(n, n + counts[j]).join(""));
    icons.places = places;
    n += counts[j];
    $(`n-${kind}`).textContent = number(counts[j]);
  });
  $("summary").textContent = inWords(shares, ICONS) + inMore(shares);
  view.estimates = estimatesOf(view.lambda, view.bin, [...FIGURES, ...Object.keys(PER_THOUSAND)]);
  for (const [kind] of KINDS) {
    const [, low, high] = view.estimates[kind];
    const [from, to] = high < 10 ? [low, high] : [Math.floor(low), Math.ceil(high)];
    $(`range-${kind}`).textContent = `${number(from)} to ${number(to)}`;
  }
  for (const name of FIGURES) {
    const row = $(`row-${name}`).cells;
    [row[1].textContent, row[2].textContent] = withInterval(name, view.estimates[name], at);
  }
}

// Of `total` cases how many are found, missed, alarmed falsely and left alone, in whole numbers; as many are positive as
// the share of positives says.
function outcomesOf([hit, missed, alarm], total) {
  const positive = hit + missed;
  const [yes, no] = apportioned([positive, 1 - positive], total);
  const within = (part, of, n) => apportioned([part / of, 1 - part / of], n);
  return [...within(hit, positive, yes), ...within(alarm, 1 - positive, no)];
}

function inWords(shares, total) {
  const [hit, missed, alarm] = outcomesOf(shares, total);
  const positives = hit + missed;
  const few = `fewer than 1 is positive, ${number(total * (shares[0] + shares[1]))} on average`;
  const some = `${number(positives)} ${isOrAre(positives)} positive: ${number(hit)} ${isOrAre(hit)} found and ${number(missed)} missed`;
  return `Of ${number(total)} cases ${positives === 0 ? few : some}. ${alertsInWords(hit, alarm)}`;
}

function alertsInWords(hit, alarm) {
  if (hit + alarm === 0) return "There are no alerts.";
  if (hit + alarm === 1) return `There is 1 alert, a ${alarm ? "false" : "right"} one.`;
  return `There are ${number(hit + alarm)} alerts, ${hit ? number(alarm) : "all"} of them false.`;
}

// Events too rare for a thousand cases to show, in so many that there are ten or more; and of finds or misses that a
// thousand cases round to none, one or more.
function inMore(shares) {
  const [yes, positive] = [shares.slice(0, 2), shares[0] + shares[1]];
  const some = yes.filter((s) => s > 1e-12);
  const isHidden = outcomesOf(shares, ICONS).some((n, j) => n === 0 && yes[j] > 1e-12);
  if (some.length === 0 || (!isHidden && ICONS * positive >= 1 - 1e-9)) return "";
  const most = Math.max(10 / positive, ...some.map((s) => 0.5 / s));
  return ` ${inWords(shares, 10 ** Math.ceil(Math.log10(most) - 1e-9))}`;
}

// Rows are [name, ...cells]; names and what is in the head are texts or {term}, a cell a text or [text, small text].
// Where head and names are as they were, only the cells are written.
function writeTable(table, head, rows) {
  const form = JSON.stringify([head, rows.map(([name]) => name)]);
  if (table.form !== form) {
    table.form = form;
    const named = (scope) => (name) => element("th", { scope }, name.term ? termButton(name.term) : name);
    table.tHead.replaceChildren(element("tr", {}, ...head.map(named("col"))));
    table.tBodies[0].replaceChildren(
      ...rows.map(([name, ...rest]) => element("tr", {}, named("row")(name), ...rest.map(() => element("td")))),
    );
  }
  rows.forEach(([, ...rest], i) =>
    rest.forEach((cell, j) => {
      const [text, small] = [cell].flat();
      table.tBodies[0].rows[i].cells[j + 1].replaceChildren(
        text,
        ...(small === undefined ? [] : [element("small", {}, small)]),
      );
    }),
  );
}

// A figure of counts c, and its interval; of nothing there is no share.
function withInterval(name, [value, low, high], c) {
  if (!isDefined(name, c)) return ["–", `nobody is ${name === "npv" ? "left alone" : "alerted on"}`];
  const [from, to] = [shown(name, low), shown(name, high)];
  return [shown(name, value), from === to ? from : `${from} to ${to}`];
}

export function writeComparison() {
  const c = cells();
  const other = grid.curves[grid.default];
  // The fewest alerts of the default lambda that find as many positives.
  const wanted = c.tp / c.positives;
  let k = -1;
  while (k < other.edge.length - 1 && !(cellsAt(other, k).tp / other.positives >= wanted - 1e-12)) k++;
  const columns = [
    ["chosen", view.lambda, view.bin],
    ["default, same recall", grid.default, k],
  ];
  if (view.solved && view.lambda !== grid.default) {
    const own = bestOf(grid, wholeNeed())[grid.default];
    if (meets(own)) columns.push(["default, same need", grid.default, own.bin]);
  }
  const names = ["recall", "precision", "specificity", "alert_rate", "cost"];
  const of = columns.map(([, i, bin], j) => (j === 0 ? view.estimates : estimatesOf(i, bin, names)));
  const rows = [
    ["lambda", ...columns.map(([, i]) => toldLambda(i))],
    [{ term: "threshold" }, ...columns.map(([, i, bin]) => toldThreshold(i, bin))],
    ...names.map((name) => {
      const figures = columns.map(([, i, bin], j) => withInterval(name, of[j][name], cellsAt(grid.curves[i], bin)));
      return [{ term: name }, ...figures];
    }),
  ];
  $("compare-says").textContent = view.lambda === grid.default ? "Here the chosen lambda is the default itself." : "";
  writeTable($("comparison"), ["figure", ...columns.map(([name]) => name)], rows);
}

export function writeGroups() {
  const s = grid.subgroups.find((of) => of.column === view.column);
  if (!s) return;
  const cut = s.cuts[view.lambda];
  const all = grid.curves[view.lambda];
  const j = nearestCut(cut, all, view.bin, view.prior);
  const bin = j < 0 ? -1 : cut.ends[j];
  const groups = [["all cases", grid.rows, cellsAt(all, bin)]];
  s.values.forEach((value, g) => groups.push([value, s.rows[g], cellsAt(cut.curves[g], j)]));
  const names = ["recall", "precision", "specificity", "alert_rate"];
  const metrics = metricsHere(names);
  const rows = groups.map(([value, counts, within]) => {
    // Kish's effective numbers in proportion to the cases.
    const sizes = [0, 1].map((y) => counts[y] * (grid.sizes[y] / grid.rows[y]));
    const at = atPrior(within, view.prior, all);
    const prior = view.prior === null ? null : at.positives / (at.positives + at.negatives);
    const label = [value, number(counts[0] + counts[1]), number(counts[1])];
    if (!(within.positives > 0 && within.negatives > 0)) return [...label, "–", "–", "–", "–"];
    const of = estimates(metrics, within, [...sizes, sizes[0] + sizes[1]], prior);
    return [...label, ...Object.entries(of).map(([name, interval]) => withInterval(name, interval, within))];
  });
  writeTable($("subgroups"), [s.called, "cases", "positive", ...names.map((term) => ({ term }))], rows);
  const edge = toldThreshold(view.lambda, bin);
  const [rate, wanted] = [bin, view.bin].map((k) => percent(alertRateAt(all, k, view.prior)));
  const where =
    bin === view.bin
      ? `At the chosen threshold, ${edge}: alerts on ${rate} of all cases.`
      : `The chosen threshold alerts on ${wanted} of all cases. These figures are at the nearest one that subgroups ` +
        `have, ${edge}, which alerts on ${rate}: between two of these lie ${grid.smallest} cases of a subgroup or ` +
        `more, or none, and this lambda has ${cut.ends.length}.`;
  const [cases, ofEither] = grid.smallest_subgroup;
  const joined =
    ` ${s.joined === 1 ? "One value is" : `${s.joined} values are`} joined, as missing or rare: fewer than ` +
    `${cases} cases, or than ${ofEither} positive or negative ones` +
    `${s.joined > 1 ? "; where these are too few even together, with the next rarest" : ""}.`;
  $("groups-says").textContent = where + (s.joined ? joined : "");
}
