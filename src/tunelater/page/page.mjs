// The page: what follows a move, and how it all starts.

import { judgeSome, needKey } from "./solve.mjs";
import { WHOLE, isAbout } from "./curves.mjs";
import { HYPERPARAMETERS, TERMS, counted, explained, number, shown, termOf } from "./words.mjs";
import { DARK } from "./draw.mjs";
import { makeCharts } from "./charts.mjs";
import { inFrames } from "./frames.mjs";
import { $, element } from "./dom.mjs";
import { answer, grid, pick, told, toldLambda, view, whenMoved, wholeNeed } from "./state.mjs";
import { buildTip, questionOf, termButton } from "./terms.mjs";
import { OBJECTIVES, buildFields, buildForm, buildSliders, writeFields, writeNeed, writeSliders } from "./form.mjs";
import { buildOutcome, writeComparison, writeGroups, writeOutcome } from "./outcome.mjs";
import { buildTake, lastFragment, readFragment, tellStray, writeFragment, writeTake } from "./share.mjs";

const charts = makeCharts(
  view,
  Object.fromEntries(["roc", "pr", "heat", "cost", "decision", "reliability", "scores"].map((id) => [id, $(id)])),
  { pick, pointed: readHeat },
);

function describeCharts() {
  for (const [id, text] of Object.entries(charts.says())) $(id).setAttribute("aria-label", text);
}

function describeHeat() {
  const name = view.heatFigure();
  const [worst, best] = charts.heat.range();
  $("heat-worst").textContent = shown(name, worst);
  $("heat-best").textContent = shown(name, best);
  $("heat").setAttribute("aria-label", `Map of every lambda, coloured by ${termOf(name)}`);
  const about = isAbout(grid, name, view.prior) ? ABOUT : "";
  const empty = view.heatMetric === "need" ? "the need cannot be met" : "there is no such figure";
  $("heat-says").textContent =
    `The chosen lambda has a frame, the default a dashed one.${nearInWords()} Empty: ${empty}.${about}`;
  readHeat(charts.heat.at());
}

function nearInWords() {
  const near = charts.heat.near();
  if (near === null) return "";
  const n = near.filter(Boolean).length;
  return ` Dotted, ${number(n)} of ${number(grid.size)}: within one standard error of the best, so that the colours among these may be chance.`;
}

const ABOUT = " About, for these figures are from counts between thresholds.";

// The figure of a lambda in the map, that which is pointed at or the chosen one.
function readHeat(i) {
  const name = view.heatFigure();
  const value = charts.heat.value(i);
  const which = [
    i === view.lambda ? "chosen" : i === grid.default ? "default" : "",
    charts.heat.near()?.[i] ? "within one standard error of the best" : "",
  ].filter(Boolean);
  const about = isAbout(grid, name, view.prior) ? "about " : "";
  const figure = Number.isFinite(value)
    ? about + shown(name, value)
    : view.heatMetric === "need"
      ? "cannot be met"
      : "–";
  $("heat-at").textContent =
    `${toldLambda(i)}${which.length ? ` (${which.join("; ")})` : ""}: ${termOf(name)} ${figure}`;
}

// What follows a move is worked on where something that it depends on has changed: of the chosen lambda first.
const whenChanged = (key, work) => {
  let last = null;
  return () => {
    const now = key();
    if (now === last) return;
    last = now;
    work();
  };
};
const pointKey = () => [view.lambda, view.bin, view.prior].join();
const costKey = () => [pointKey(), view.fn, view.fp].join();
const heat = charts.heat && [
  () => (view.heatMetric === "need" && judgeSome(grid, wholeNeed(), 200)) || charts.heat.chart.draw(),
  whenChanged(() => `${view.lambda} ${view.heatKey()}`, describeHeat),
];
const frames = inFrames(
  [
    ...charts.chosen.map((chart) => () => chart.draw()),
    whenChanged(() => [costKey(), view.solved !== null && needKey(wholeNeed())].join(), writeComparison),
    whenChanged(() => [pointKey(), view.column].join(), writeGroups),
    whenChanged(costKey, describeCharts),
    ...(heat ?? []),
    ...charts.families,
  ],
  () => (document.documentElement.dataset.ready = "yes"),
);

// After a move: the answer at once, the pictures in the frames that follow.
function update() {
  writeSliders();
  writeOutcome();
  writeTake();
  writeFragment();
  // Where a need was solved there is less time left in the frame.
  redraw(view.asked);
}

function redraw(later = false) {
  document.documentElement.dataset.ready = "no";
  frames.again(later);
}

function buildWords() {
  const noun = `${told.noun}s`;
  $("run").textContent = told.run;
  const [cases, positives] = [grid.rows[0] + grid.rows[1], grid.rows[1]];
  const split = explained(grid.split) ? termButton(grid.split) : grid.split;
  const rest = ` ${cases === 1 ? told.noun : noun} of ${told.data}, ${number(positives)} of them ${told.labels[1]} (positive). `;
  $("about").append(
    `${number(cases)} `,
    split,
    rest,
    `${counted(grid.size, "lambda")} of one model; nothing is trained again.`,
  );
  document.querySelectorAll("[data-term]").forEach((place) => place.append(termButton(place.dataset.term)));
  document.querySelectorAll("[data-of-lambdas]").forEach((place) => (place.hidden = grid.size < 2));
  document.querySelectorAll("[data-asked]").forEach((place) => place.append(questionOf(place.dataset.asked)));
  const own = grid.names.filter((name) => name in HYPERPARAMETERS).map((name) => [name, HYPERPARAMETERS[name]]);
  for (const [key, [name, says]] of [...Object.entries(TERMS), ...own])
    $("terms").append(element("dt", { id: `term-${key}` }, name), element("dd", {}, says));
  const ofSubgroups = " (of a subgroup so many, or none); rare and missing values of a column are joined";
  $("made-of").textContent =
    `Counts of ${noun}, and nothing of any single one: no features, no scores. Between any two thresholds of a ` +
    `lambda lie ${grid.smallest} ${noun} at the least${grid.subgroups.length ? ofSubgroups : ""}. ` +
    (grid.units[0] > 1 ? `Weights are told as means of ${grid.smallest} ${noun} or more. ` : "") +
    `The file fetches nothing and sends nothing. The same ${noun} that a point is chosen on flatter it: tunelater ` +
    `evaluate tells what it achieves on others. Model ${grid.model}.`;
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    $("choose").focus();
  });
}

function buildHeat() {
  $("heat-figure").hidden = charts.heat === null;
  const option = (value, text) => element("option", { value }, text);
  $("heat-metric").append(
    option("need", "what is wanted, at each lambda's best threshold"),
    element(
      "optgroup",
      { label: "at this threshold" },
      ...OBJECTIVES.map((name) => option(`at:${name}`, `${termOf(name)}, at this threshold`)),
    ),
    element("optgroup", { label: "over all thresholds" }, ...WHOLE.map((name) => option(name, termOf(name)))),
  );
  // Read out where it is asked for, and not at every move.
  $("heat").addEventListener("focus", () => $("heat-at").setAttribute("aria-live", "polite"));
  $("heat").addEventListener("blur", () => $("heat-at").removeAttribute("aria-live"));
  $("heat-metric").addEventListener("change", () => {
    view.heatMetric = $("heat-metric").value;
    writeFragment();
    redraw();
  });
}

function buildGroups() {
  $("groups").hidden = grid.subgroups.length === 0;
  for (const s of grid.subgroups) $("column").append(element("option", { value: s.column }, s.called));
  $("column").addEventListener("change", () => {
    view.column = $("column").value;
    writeFragment();
    redraw();
  });
}

function start() {
  whenMoved(update);
  buildTip();
  buildWords();
  buildForm();
  buildFields();
  buildSliders();
  buildOutcome();
  buildTake();
  buildHeat();
  buildGroups();
  if (!readFragment(location.hash)) {
    if (told.start) startAt(told.start);
    else {
      writeNeed();
      writeFields();
      answer();
    }
    tellStray(location.hash);
  }
  const places = [...charts.chosen, charts.heat?.chart].filter(Boolean);
  const measure = () => places.forEach((chart) => chart.measure());
  const sizes = new ResizeObserver(() => {
    measure();
    redraw();
  });
  places.forEach(({ place }) => sizes.observe(place));
  DARK.addEventListener("change", redraw);
  addEventListener("dppxchange", redraw); // uPlot's, of a window on another screen
  // All is drawn before a browser goes on to print.
  const print = (is) => {
    document.documentElement.toggleAttribute("data-paper", is);
    measure();
    if (is) frames.finish();
    else redraw();
  };
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => setTimeout(() => print(false), 60));
  matchMedia("print").addEventListener("change", ({ matches }) => print(matches));
  addEventListener(
    "hashchange",
    () => location.hash !== lastFragment && (readFragment(location.hash) || tellStray(location.hash)),
  );
}

// At a point that was given, as far as the page can show it: what it cannot is told.
function startAt({ lambda, bin, prior, need, costs: stated, left_out: leftOut }) {
  view.prior = prior;
  if (need) view.need = need;
  if (stated) Object.assign(view, stated);
  writeNeed();
  writeFields();
  pick({ lambda, bin });
  $("verdict").textContent =
    `This is the point that the report was made for, at the nearest threshold there is here.${leftOut.length ? ` But ${leftOut.join("; ")}.` : ""}`;
}

start();
