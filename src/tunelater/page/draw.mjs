// Charts: uPlot makes axes, grid and scales; what is drawn on them are painters, given the context and both scales.

import { sigmoid } from "./grid.mjs";
import { number } from "./words.mjs";

// Colours of the look, as they are now: they follow the scheme, and paper is light.
let [known, knownFor] = [null, null];
export function colours() {
  const scheme = ["(prefers-color-scheme: dark)", "print"].map((query) => matchMedia(query).matches).join();
  if (knownFor !== scheme) [known, knownFor] = [readColours(), scheme];
  return known;
}

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["ground", "surface", "ink", "muted", "line", "edge", "chosen", "other", "positive", "negative"];
  const out = Object.fromEntries(names.map((name) => [name, of(name)]));
  return { ...out, typeface: of("typeface"), sequence: of("sequence").split(",").map((c) => c.trim()) };
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

export class Chart {
  // `x` and `y` are {label, range: () => [low, high], axis: uPlot's splits and values}; `paint` is called with a pen.
  constructor(place, { x, y, paint, pick = null, height = 260 }) {
    Object.assign(this, { place, x, y, paint, height });
    this.frame = null;
    if (pick) {
      place.classList.add("pickable");
      place.addEventListener("click", (event) => {
        if (!this.plot) return;
        const box = this.plot.over.getBoundingClientRect();
        pick(this.plot.posToVal(event.clientX - box.left, "x"), this.plot.posToVal(event.clientY - box.top, "y"));
      });
    }
  }

  // Made anew where the size or the scheme has changed; otherwise only drawn again.
  draw() {
    const width = Math.max(Math.floor(this.place.clientWidth), 200);
    const c = colours();
    const key = `${width} ${c.ground} ${devicePixelRatio}`;
    if (this.plot && key === this.key) {
      const ranges = { x: this.x.range(), y: this.y.range() };
      if (JSON.stringify(ranges) !== this.ranges) {
        this.ranges = JSON.stringify(ranges);
        this.plot.setData([ranges.x, [null, null]]);
      } else {
        this.plot.redraw(false, false);
      }
      return;
    }
    this.key = key;
    this.version = (this.version ?? 0) + 1;
    this.ranges = JSON.stringify({ x: this.x.range(), y: this.y.range() });
    this.plot?.destroy();
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
    this.plot = new uPlot(
      {
        width,
        height: this.height,
        padding: [8, 22, 0, 0],
        legend: { show: false },
        cursor: { show: false },
        scales: { x: { time: false, range: () => this.x.range() }, y: { range: () => this.y.range() } },
        axes: [axis(this.x, 32), axis(this.y, 52)],
        series: [{}, { show: true }],
        hooks: { draw: [(u) => this.#painted(u, colours())] },
      },
      [this.x.range(), [null, null]],
      this.place,
    );
  }

  #painted(u, c) {
    const { left, top, width, height } = u.bbox;
    const { ctx } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(left - 1, top - 1, width + 2, height + 2);
    ctx.clip();
    ctx.lineJoin = "round";
    const scale = devicePixelRatio;
    const pen = {
      ctx,
      c,
      scale,
      box: u.bbox,
      version: this.version,
      px: (v) => u.valToPos(v, "x", true),
      py: (v) => u.valToPos(v, "y", true),
    };
    this.paint(pen);
    ctx.restore();
  }
}

export function line(pen, xs, ys, { colour, width = 1.5, dash = [], alpha = 1 }) {
  const { ctx, scale } = pen;
  ctx.beginPath();
  let down = false;
  for (let i = 0; i < xs.length; i++) {
    if (!Number.isFinite(xs[i]) || !Number.isFinite(ys[i])) {
      down = false;
      continue;
    }
    const [x, y] = [pen.px(xs[i]), pen.py(ys[i])];
    if (down) ctx.lineTo(x, y);
    else ctx.moveTo(x, y);
    down = true;
  }
  ctx.setLineDash(dash.map((d) => d * scale));
  ctx.globalAlpha = alpha;
  ctx.strokeStyle = colour;
  ctx.lineWidth = width * scale;
  ctx.stroke();
  ctx.setLineDash([]);
  ctx.globalAlpha = 1;
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
