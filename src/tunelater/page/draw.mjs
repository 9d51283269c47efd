// Charts: uPlot draws them, in the colours of the look. The marks of the point are elements over them.

import { sigmoid } from "./grid.mjs";
import { element } from "./dom.mjs";
import { number } from "./words.mjs";

// What pictures are drawn for: a screen or paper, on which all is light and charts are as wide as half a sheet of A4. A
// browser may copy the page for its printer before it is laid out on the sheet, so that nothing can be measured there.
const PAPER_WIDTH = 308;
const onPaper = () => "paper" in document.documentElement.dataset;

// Colours of the look, as they are now.
export const DARK = matchMedia("(prefers-color-scheme: dark)");
let [known, knownFor] = [null, null];
export function colours() {
  const scheme = `${DARK.matches} ${onPaper()}`;
  if (knownFor !== scheme) [known, knownFor] = [readColours(), scheme];
  return known;
}

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["ground", "muted", "line", "edge", "chosen", "other", "positive", "negative", "mark", "rim"];
  const out = Object.fromEntries(names.map((name) => [name, of(name)]));
  return {
    ...out,
    typeface: of("typeface"),
    sequence: of("sequence")
      .split(",")
      .map((c) => c.trim()),
  };
}

const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

// The colour of a share from low (0) to high (1).
export function ramp(stops, share) {
  const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const below = Math.min(Math.floor(place), stops.length - 2);
  const [a, b] = [channels(stops[below]), channels(stops[below + 1])];
  const mixed = a.map((v, i) => Math.round(v + (place - below) * (b[i] - v)));
  return `rgb(${mixed.join(",")})`;
}

// From the middle outwards: those that find room stay.
const TICKS = [0.5, 0.01, 0.99, 1e-4, 0.9999, 0.1, 0.9, 0.001, 0.999, 1e-6, 0.999999];
const logOdds = (p) => Math.log(p / (1 - p));
const asLabel = (t) => `${Number((100 * sigmoid(t)).toPrecision(6))}%`;
// Pixels that labels take: of a letter, and between two of an axis to the left.
const [LETTER, LINE] = [7.6, 26];

// An axis whose place is log-odds and whose labels are probabilities.
export const PROBABILITY = {
  splits: (u, axis, low, high) => {
    const length = (axis === 0 ? u.bbox.width : u.bbox.height) / devicePixelRatio || 200;
    const pixels = (a, b) => (Math.abs(a - b) * length) / (high - low);
    const needed = (a, b) => (axis === 0 ? 16 + (LETTER * (asLabel(a).length + asLabel(b).length)) / 2 : LINE);
    const kept = [];
    for (const t of TICKS.map(logOdds)) {
      if (t >= low && t <= high && kept.every((k) => pixels(k, t) >= needed(k, t))) kept.push(t);
    }
    return kept.sort((a, b) => a - b);
  },
  values: (_, splits) => splits.map(asLabel),
};

// What a series of a chart looks like; colours are names in the look. Its data are [x, y], with x rising.
const paint = (colour) => () => colours()[colour];
const styled = (colour, more) => ({ auto: false, pxAlign: 0, stroke: paint(colour), ...more });

// Gaps are where y is null.
export const line = (colour, { width = 1.5, dash = [], alpha = 1 } = {}) =>
  styled(colour, { width, alpha, dash, paths: uPlot.paths.linear() });
export const CHOSEN = { width: 2.2 };
export const DEFAULT = { dash: [5, 4] };
export const NOBODY = { dash: [1, 3] };
export const EVERYBODY = { dash: [8, 3, 1, 3] };

export const dots = (colour, { rim = "ground", size = 5, width = 2 } = {}) => ({
  ...styled(rim, { width, fill: paint(colour), paths: uPlot.paths.points() }),
  points: { show: false, size: 2 * size, width },
});

const solid = (colour, paths) => ({ ...styled(colour, { width: 0, paths }), fill: paint(colour), fillTo: 0 });
// From x on, as wide as there is room.
export const columns = (colour) => solid(colour, uPlot.paths.bars({ size: [1], align: 1, gap: 1 }));
// From y down to the third of the data.
const third = { values: (u, i) => u.data[i][2] };
const second = { values: (u, i) => u.data[i][1] };
export const whiskers = (colour) =>
  solid(colour, uPlot.paths.bars({ size: [1, 1.5, 1.5], disp: { y0: third, y1: second } }));

// Cells of one row, `half` as wide and high in either direction from their places: data are [x, y, colours], null for one
// that is empty. uPlot leaves no gap of less than a pixel.
const GAP = 1.1;
const gapOn = (u, scale, length) =>
  (GAP * devicePixelRatio * (u.scales[scale].max - u.scales[scale].min)) / u.bbox[length];
export const rowOfCells = (half) => ({
  ...styled("line", { width: 1 }),
  paths: uPlot.paths.bars({
    disp: {
      x0: { unit: 1, values: (u, i) => u.data[i][0].map((x) => x - half) },
      size: { unit: 1, values: (u) => [2 * half - gapOn(u, "x", "width")] },
      y0: { values: (u, i) => u.data[i][1].map((y) => y - half + gapOn(u, "y", "height")) },
      y1: { values: (u, i) => u.data[i][1].map((y) => y + half) },
      fill: { values: (u, i) => u.data[i][2] },
      stroke: { values: (u, i) => u.data[i][2].map((colour) => (colour === null ? colours().line : null)) },
    },
  }),
});

// A chart is drawn again only where what it shows has changed; its marks are moved, which draws nothing.
export class Chart {
  // `x` and `y` are {label, range: () => [low, high], axis: uPlot's splits and values}; `data` those of each of `series`, which
  // change with the text that `shows` gives, as does what `under` paints before them. `marks` are [{kind, x, y, half}]: a
  // dot, a line where there is no y, a frame where there is a half.
  constructor(place, { x, y, series, data, shows, under = () => {}, marks, pick = null, height = 260 }) {
    Object.assign(this, { place, x, y, series, data, shows, under, marks, height });
    if (!pick) return;
    place.classList.add("pickable");
    place.addEventListener("click", (event) => this.plot && pick(...this.valuesAt(event)));
  }

  // Where on both axes a pointer is.
  valuesAt({ clientX, clientY }) {
    const box = this.plot.over.getBoundingClientRect();
    return [this.plot.posToVal(clientX - box.left, "x"), this.plot.posToVal(clientY - box.top, "y")];
  }

  // Takes the width that there is. Not asked for at each move, at which the page would have to be laid out.
  measure() {
    this.width = onPaper() ? PAPER_WIDTH : Math.max(Math.floor(this.place.clientWidth), 200);
  }

  // Made anew where the size has changed.
  draw() {
    if (!this.width) this.measure();
    const form = `${this.width} ${devicePixelRatio} ${colours().ground}`;
    const curves = `${form} ${this.shows()}`;
    if (curves !== this.drawn) {
      if (form === this.form) this.#again();
      else this.#make();
      [this.drawn, this.form, this.marked] = [curves, form, null];
    }
    const marks = this.marks().filter(({ x, y = 0 }) => Number.isFinite(x) && Number.isFinite(y));
    const marked = JSON.stringify(marks);
    if (marked !== this.marked) this.#mark(marks);
    this.marked = marked;
  }

  // uPlot would draw at the end of the task; in a batch it does so at once.
  #again() {
    this.plot.batch(() => this.plot.setData([null, ...this.data()]));
  }

  #make() {
    this.plot?.destroy();
    const c = colours();
    const axis = (of, size) => ({
      label: of.label,
      stroke: c.muted,
      font: `12px ${c.typeface}`,
      labelFont: `12px ${c.typeface}`,
      labelSize: 18,
      size,
      gap: 4,
      grid: { stroke: c.line, width: 0.5 },
      ticks: { stroke: c.line, width: 0.5, size: 4 },
      values: (_, splits) => splits.map(number),
      ...of.axis,
    });
    new uPlot(
      {
        ...plain(this.series),
        width: this.width,
        height: this.height,
        padding: [8, 30, 0, 0],
        scales: this.scales(),
        axes: [axis(this.x, 32), axis(this.y, byLabels)],
        hooks: { drawAxes: [(u) => this.under(u)] },
      },
      [null, ...this.data()],
      (u, begin) => {
        this.plot = u;
        this.place.append(u.root);
        u.batch(begin);
      },
    );
  }

  scales() {
    return { x: { time: false, range: () => this.x.range() }, y: { range: () => this.y.range() } };
  }

  // In percent of the plot, so that what is laid out anew need not be placed anew.
  #mark(marks) {
    const { over, scales } = this.plot;
    const share = (scale, v) => (100 * (v - scale.min)) / (scale.max - scale.min);
    while (over.querySelectorAll(".mark").length < marks.length) over.append(element("div", { class: "mark" }));
    over.querySelectorAll(".mark").forEach((mark, i) => {
      mark.hidden = i >= marks.length;
      if (mark.hidden) return;
      const { kind, x, y = scales.y.min, half = 0 } = marks[i];
      mark.className = `mark ${kind}`;
      mark.style.left = `${share(scales.x, x - half)}%`;
      mark.style.bottom = `${share(scales.y, y - half)}%`;
      mark.style.width = half ? `${share(scales.x, x + half) - share(scales.x, x - half)}%` : "";
      mark.style.height = half ? `${share(scales.y, y + half) - share(scales.y, y - half)}%` : "";
    });
  }
}

// An axis to the left, as wide as its labels are.
const byLabels = (_, labels) => Math.max(52, 12 + LETTER * Math.max(0, ...(labels ?? []).map(({ length }) => length)));
// uPlot's dashes are in pixels of the screen, of which there may be others by now.
const dashed = ({ dash = [], ...of }) => ({ ...of, dash: dash.map((d) => d * devicePixelRatio) });
const plain = (all) => ({
  mode: 2,
  series: [null, ...all.map(dashed)],
  legend: { show: false },
  cursor: { show: false },
});

// One faint line of every lambda, in an image of its own: some at a time, and shown once all are there.
const AT_ONCE = 100;
const NOTHING = [[], []];
export class Family {
  // `lineOf(curve)` are the data of a line in a chart; they change with the text that `shows` gives.
  constructor(curves, shows, lineOf) {
    Object.assign(this, { curves, shows, lineOf, image: null, shown: null, coming: null, begun: null, done: 0 });
  }

  paint({ ctx }) {
    const { width, height } = ctx.canvas;
    if (this.image?.width === width && this.image.height === height) ctx.drawImage(this.image, 0, 0);
  }

  // Some more lines; true until all are there. The chart is first brought up to date, whose size they have: frames may come
  // to the family before they come to its chart.
  more(chart) {
    chart.draw();
    const wanted = `${chart.form} ${this.shows()}`;
    if (this.shown === wanted) return false;
    if (this.begun !== wanted) this.#begin(chart, wanted);
    const some = this.curves.slice(this.done, this.done + AT_ONCE).map(this.lineOf);
    while (some.length < AT_ONCE) some.push(NOTHING);
    this.plot.batch(() => this.plot.setData([null, ...some]));
    this.coming.getContext("2d").drawImage(this.plot.ctx.canvas, 0, 0);
    this.done += AT_ONCE;
    if (this.done < this.curves.length) return true;
    [this.image, this.coming] = [this.coming, this.image];
    [this.shown, this.begun] = [wanted, null];
    chart.draw();
    return false;
  }

  #begin(chart, wanted) {
    const { width, height } = chart.plot.ctx.canvas;
    this.coming ??= document.createElement("canvas");
    [this.coming.width, this.coming.height] = [width, height]; // empties it
    if (this.form !== chart.form) this.#make(chart);
    [this.begun, this.done, this.form] = [wanted, 0, chart.form];
  }

  // A chart without axes, of the same plot.
  #make(chart) {
    this.plot?.destroy();
    const alpha = Math.max(0.05, Math.min(0.3, 12 / this.curves.length));
    const { left, top, width, height } = chart.plot.bbox;
    const { canvas } = chart.plot.ctx;
    const around = [top, canvas.width - left - width, canvas.height - top - height, left];
    const faint = Array.from({ length: AT_ONCE }, () => line("chosen", { width: 1, alpha }));
    this.plot = new uPlot(
      {
        ...plain(faint),
        width: chart.width,
        height: chart.height,
        padding: around.map((px) => px / devicePixelRatio),
        scales: chart.scales(),
        axes: [{ show: false }, { show: false }],
      },
      [null, ...faint.map(() => NOTHING)],
    );
  }
}
