// Charts: uPlot makes axes, grid and scales; what is drawn on them are painters, given the context and both scales.

import { sigmoid } from "./grid.mjs";
import { number } from "./words.mjs";

// Colours of the look, as they are now: they follow the scheme, and paper is light.
export const SCHEMES = ["(prefers-color-scheme: dark)", "print"].map((query) => matchMedia(query));
const PAPER = SCHEMES[1];
let [known, knownFor] = [null, null];
function colours() {
  const scheme = SCHEMES.map((query) => query.matches).join();
  if (knownFor !== scheme) [known, knownFor] = [readColours(), scheme];
  return known;
}

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["ground", "surface", "ink", "muted", "line", "edge", "chosen", "other", "positive", "negative"];
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
const ROOM = 52;
const logOdds = (p) => Math.log(p / (1 - p));

// An axis whose place is log-odds and whose labels are probabilities.
export const PROBABILITY = {
  splits: (u, axis, low, high) => {
    const length = (axis === 0 ? u.bbox.width : 2 * u.bbox.height) / devicePixelRatio || 200;
    const room = (ROOM * (high - low)) / length;
    const kept = [];
    for (const t of TICKS.map(logOdds)) {
      if (t >= low && t <= high && kept.every((k) => Math.abs(k - t) >= room)) kept.push(t);
    }
    return kept.sort((a, b) => a - b);
  },
  values: (_, splits) => splits.map((t) => `${Number((100 * sigmoid(t)).toPrecision(6))}%`),
};

// A chart has two layers, each drawn again only where what it shows has changed: the axes with the curves, and above them
// the mark of the point. On paper it has one: browsers print a canvas stroke by stroke, and where the upper layer was
// cleared, that would clear the lower one too.
export class Chart {
  // `x` and `y` are {label, range: () => [low, high], axis: uPlot's splits and values}. `paint` draws the curves, which change
  // with the text that `shows` gives; `mark` what changes with that of `marks` too. Both are called with a pen.
  constructor(place, { x, y, shows, paint, marks = () => "", mark = () => {}, pick = null, height = 260 }) {
    Object.assign(this, { place, x, y, shows, paint, marks, mark, height });
    if (pick) {
      place.classList.add("pickable");
      place.addEventListener("click", (event) => {
        if (!this.plot) return;
        const box = this.plot.over.getBoundingClientRect();
        pick(this.plot.posToVal(event.clientX - box.left, "x"), this.plot.posToVal(event.clientY - box.top, "y"));
      });
    }
  }

  // Takes the width that there is. Not asked for at each move, at which the page would have to be laid out.
  measure() {
    this.width = Math.max(Math.floor(this.place.clientWidth), 200);
  }

  // Made anew where the size or the scheme has changed.
  draw() {
    if (!this.width) this.measure();
    const form = `${this.width} ${colours().ground} ${devicePixelRatio} ${PAPER.matches}`;
    const curves = `${form} ${this.shows()} ${PAPER.matches ? this.marks() : ""}`;
    const point = `${curves} ${this.marks()}`;
    if (curves !== this.painted) {
      [this.painted, this.marked] = [curves, point];
      if (form === this.form) this.#again();
      else this.#make();
      this.form = form;
    } else if (point !== this.marked) {
      this.marked = point;
      this.#onLayer();
    }
  }

  // uPlot would draw at the end of the task; in a batch it does so at once.
  #again() {
    const ranges = [this.x.range(), this.y.range()];
    const same = ranges.flat().every((end, i) => end === this.ranges[i]);
    this.ranges = ranges.flat();
    this.plot.batch(() => (same ? this.plot.redraw(false) : this.plot.setData([ranges[0], [null, null]])));
  }

  #make() {
    this.plot?.destroy();
    const c = colours();
    this.ranges = [this.x.range(), this.y.range()].flat();
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
    this.layer = document.createElement("canvas");
    this.layer.className = "mark";
    new uPlot(
      {
        width: this.width,
        height: this.height,
        padding: [8, 22, 0, 0],
        legend: { show: false },
        cursor: { show: false },
        scales: { x: { time: false, range: () => this.x.range() }, y: { range: () => this.y.range() } },
        axes: [axis(this.x, 32), axis(this.y, 52)],
        series: [{}, { show: true }],
        hooks: {
          draw: [
            (u) => {
              this.#clipped(u.ctx, this.paint);
              if (PAPER.matches) this.#clipped(u.ctx, this.mark);
              else this.#onLayer();
            },
          ],
        },
      },
      [this.x.range(), [null, null]],
      (u, begin) => {
        this.plot = u;
        u.over.before(this.layer);
        this.place.append(u.root);
        u.batch(begin);
      },
    );
  }

  #onLayer() {
    const { width, height } = this.plot.ctx.canvas;
    if (this.layer.width !== width) this.layer.width = width;
    if (this.layer.height !== height) this.layer.height = height;
    const ctx = this.layer.getContext("2d");
    ctx.clearRect(0, 0, width, height);
    this.#clipped(ctx, this.mark);
  }

  #clipped(ctx, paint) {
    const { left, top, width, height } = this.plot.bbox;
    ctx.save();
    ctx.beginPath();
    ctx.rect(left - 1, top - 1, width + 2, height + 2);
    ctx.clip();
    paint(this.pen(ctx));
    ctx.restore();
  }

  // What painters draw with: a context, the colours, and where values of x and y are.
  pen(ctx) {
    const { bbox, scales } = this.plot;
    const right = bbox.width / (scales.x.max - scales.x.min);
    const up = bbox.height / (scales.y.max - scales.y.min);
    return {
      ctx,
      c: colours(),
      scale: devicePixelRatio,
      px: (v) => bbox.left + (v - scales.x.min) * right,
      py: (v) => bbox.top + bbox.height - (v - scales.y.min) * up,
    };
  }
}

// Through `size` points (x(i), y(i)), with gaps where these are no numbers.
export function line(pen, size, x, y, { colour, width = 1.5, dash = [], alpha = 1 }) {
  const { ctx, scale } = pen;
  ctx.lineJoin = "round";
  ctx.beginPath();
  let down = false;
  let lastX = NaN;
  let lastY = NaN;
  for (let i = 0; i < size; i++) {
    const px = pen.px(x(i));
    const py = pen.py(y(i));
    const there = Number.isFinite(px) && Number.isFinite(py);
    // Points that cannot be told apart are one.
    if (there && down && i < size - 1 && Math.abs(px - lastX) < 0.5 && Math.abs(py - lastY) < 0.5) continue;
    if (there && down) ctx.lineTo(px, py);
    else if (there) ctx.moveTo(px, py);
    down = there;
    lastX = px;
    lastY = py;
  }
  ctx.setLineDash(dash.map((d) => d * scale));
  ctx.globalAlpha = alpha;
  ctx.strokeStyle = colour;
  ctx.lineWidth = width * scale;
  ctx.stroke();
  ctx.setLineDash([]);
  ctx.globalAlpha = 1;
}

export const segment = (pen, [x0, y0], [x1, y1], style) =>
  line(
    pen,
    2,
    (i) => (i ? x1 : x0),
    (i) => (i ? y1 : y0),
    style,
  );

// One faint line of every lambda, in an image of its own: some at a time, and shown once all are there.
const AT_ONCE = 100;
export class Family {
  // `lineOf(curve)` is [size, x(i), y(i)] in a chart; it changes with the text that `shows` gives.
  constructor(curves, shows, lineOf) {
    Object.assign(this, { curves, shows, lineOf, image: null, shown: null, coming: null, begun: null, done: 0 });
  }

  paint({ ctx }) {
    const { width, height } = ctx.canvas;
    if (this.image?.width === width && this.image.height === height) ctx.drawImage(this.image, 0, 0);
  }

  // Some more lines; true until all are there.
  more(chart) {
    const wanted = `${chart.form} ${this.shows()}`;
    if (this.shown === wanted) return false;
    const { width, height } = chart.plot.ctx.canvas;
    if (this.begun !== wanted) {
      this.coming ??= document.createElement("canvas");
      [this.coming.width, this.coming.height] = [width, height]; // empties it
      [this.begun, this.done] = [wanted, 0];
    }
    const pen = chart.pen(this.coming.getContext("2d"));
    const alpha = Math.max(0.05, Math.min(0.3, 12 / this.curves.length));
    const some = this.curves.slice(this.done, this.done + AT_ONCE);
    for (const curve of some) line(pen, ...this.lineOf(curve), { colour: pen.c.chosen, width: 1, alpha });
    this.done += some.length;
    if (this.done < this.curves.length) return true;
    [this.image, this.coming] = [this.coming, this.image];
    [this.shown, this.begun] = [wanted, null];
    chart.draw();
    return false;
  }
}

export function dot(pen, x, y, { colour, hollow = false, size = 5 }) {
  if (!Number.isFinite(x) || !Number.isFinite(y)) return;
  const { ctx, scale, c } = pen;
  ctx.beginPath();
  ctx.arc(pen.px(x), pen.py(y), size * scale, 0, 2 * Math.PI);
  ctx.fillStyle = hollow ? c.ground : colour;
  ctx.fill();
  ctx.lineWidth = 2 * scale;
  ctx.strokeStyle = hollow ? colour : c.ground;
  ctx.stroke();
}
