"""What each kind of move on the report's page takes, in Chromium: of pages given, or of a made-up one with 400 lambdas.

Pages are loaded in turn, so that two versions of one (`--write` makes the same data into a page) are compared in one
run. Figures come from the browser's trace of the page's main thread, in which everything counts: scripts, layout, paint
and collection of garbage. Of each move they are: milliseconds of processor time until the frame with the answer is
handed over, and by the clock, which has the wait for that frame in it and what other programs take; processor time of
the longest task, which is for how long the page can be deaf; and of all tasks until nothing is left to do.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tunelater.aggregates import BITS, BinnedGrid
from tunelater.histograms import Bins, ScoreHistograms
from tunelater.needs import groups_of
from tunelater.reporting import page
from tunelater.scoring import Scores

CATEGORIES = ["toplevel", "blink.user_timing", "devtools.timeline", "disabled-by-default-devtools.timeline"]
PAUSE = 350
"""Milliseconds after a move, in which all that follows it is done."""
MOVES = """
const $ = (id) => document.getElementById(id);
const put = (id, value, event = "input") => {
  $(id).value = value;
  $(id).dispatchEvent(new Event(event, { bubbles: true }));
};
const slide = (id, i) => put(id, Number($(id).min) + ((7 * i + 3) % (Number($(id).max) - $(id).min + 1)));
const click = (id, x, y) => {
  const box = document.querySelector(`#${id} .u-over`).getBoundingClientRect();
  const at = { clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true };
  document.querySelector(`#${id} .u-over`).dispatchEvent(new MouseEvent("click", at));
};
window.moves = {
  threshold: (i) => slide("slider-threshold", 5 * i + 2),
  gamma: (i) => slide("slider-gamma", i),
  tau: (i) => slide("slider-tau", i),
  "point on a curve": (i) => click("roc", 0.02 + 0.03 * i, 0.3),
  "lambda on the map": (i) => click("heat", (0.13 * i + 0.2) % 1, (0.29 * i + 0.4) % 1),
  prior: (i) => put("prior", 1 + i / 2),
  costs: (i) => put("fn", 20 + i),
  volume: (i) => put("volume", 500 + i),
  "need solved": (i) => $("presets").children[i % 3].click(),
  "prior, need met again": (i) => put("prior", 1.2 + i / 2),
  "costs, need met again": (i) => put("fn", 30 + i),
  "figure of the map": (i) => put("heat-metric", ["auc", "at:recall", "brier", "need"][i % 4], "change"),
};
"""


def made_up(rows: int = 20_000, positives: int = 600, side: int = 20) -> str:
    """A page of made-up scores at side x side lambdas, at three sites."""
    rng = np.random.default_rng(0)
    target = (np.arange(rows) < positives).astype(np.int8)
    site = rng.choice(["A", "B", "C"], rows, p=[0.5, 0.3, 0.2])
    a, b = (v.ravel() for v in np.meshgrid(np.linspace(0, 0.3, side), np.linspace(0, 3, side), indexing="ij"))
    signal, noise = rng.normal(2.2 * target, 1), rng.normal(size=(2, rows))
    log_odds = np.float32(signal + (0.2 + a[:, None]) * noise[0] + 0.1 * b[:, None] * noise[1] - 4 + b[:, None] / 3)
    scores = Scores(log_odds, target, {"gamma": a, "tau": b}, 0.05, split="validation", model="made-up")
    bins = Bins(BITS)
    within = {
        "site": {
            value: ScoreHistograms.of(scores.take(np.flatnonzero(of)), bins) for value, of in groups_of(site).items()
        }
    }
    grid = BinnedGrid.of(ScoreHistograms.of(scores, bins), within=within)
    told = {
        "run": "a made-up example", "data": "made-up scores", "noun": "row", "labels": ["no", "yes"], "start": None,
        "command": "tunelater predict run NEW --at point.json --out alerts.csv",
    }  # fmt: skip
    return page(told | {"grid": grid.to_dict()})


def traced(browser: Any, file: Path, each: int) -> list[dict[str, Any]]:
    """The events of the page's main thread in one load, with `each` moves of every kind."""
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    opened = context.new_page()
    opened.goto(file.resolve().as_uri())
    opened.wait_for_selector("html[data-ready=yes]")
    opened.wait_for_timeout(2 * PAUSE)
    opened.evaluate(MOVES)
    browser.start_tracing(page=opened, categories=CATEGORIES)
    for kind in opened.evaluate("Object.keys(moves)"):
        for i in range(each):
            opened.evaluate("([kind, i]) => { performance.mark('move ' + kind); moves[kind](i); }", [kind, i])
            opened.wait_for_timeout(PAUSE)
    events = json.loads(browser.stop_tracing())["traceEvents"]
    context.close()
    marks = [e for e in events if e["name"].startswith("move ")]
    thread = (marks[0]["pid"], marks[0]["tid"])
    return sorted((e for e in events if (e["pid"], e["tid"]) == thread), key=lambda e: e["ts"])


def moves_in(events: list[dict[str, Any]]) -> Iterator[tuple[str, list[float]]]:
    """The kind of each move with its figures, milliseconds."""
    tasks = [e for e in events if e["name"] == "RunTask" and "dur" in e]
    commits = [e["ts"] for e in events if e["name"] == "Commit"]
    marks = [(e["ts"], e["name"].removeprefix("move ")) for e in events if e["name"].startswith("move ")]
    for (start, kind), end in zip(marks, [ts for ts, _ in marks[1:]] + [np.inf], strict=True):
        mine = [e for e in tasks if e["ts"] + e["dur"] > start and e["ts"] + e["dur"] <= end]
        shown = min(ts for ts in commits if ts >= start)
        first = [e for e in mine if e["ts"] <= shown]
        used = [e["tdur"] / 1e3 for e in mine]
        clock = (first[-1]["ts"] + first[-1]["dur"] - start) / 1e3
        yield kind, [sum(used[: len(first)]), clock, max(used), sum(used)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path, nargs="*")
    parser.add_argument("--write", type=Path, help="write the made-up page here, and measure nothing")
    parser.add_argument("--loads", type=int, default=3)
    parser.add_argument("--moves", type=int, default=6, help="of each kind, in a load")
    options = parser.parse_args()
    if options.write:
        options.write.write_text(made_up(), encoding="utf-8")
        return
    from playwright.sync_api import sync_playwright  # made_up does without

    with tempfile.TemporaryDirectory() as folder:
        pages = options.pages
        if not pages:
            pages = [Path(folder) / "made-up.html"]
            pages[0].write_text(made_up(), encoding="utf-8")
        found: dict[Path, dict[str, list[list[float]]]] = {file: defaultdict(list) for file in pages}
        with sync_playwright() as driver:
            chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            for _ in range(options.loads):
                for file in pages:
                    for kind, figures in moves_in(traced(chromium, file, options.moves)):
                        found[file][kind].append(figures)
            chromium.close()
    columns = ("answer, ms of CPU", "by the clock", "longest task", "all")
    print(f"{options.loads} loads, {options.moves} moves of a kind in each: median, slowest")
    for file, kinds in found.items():
        print(f"\n| {file.name}, {file.stat().st_size / 1e6 if file.exists() else 0:.1f} MB | {' | '.join(columns)} |")
        print("|---" * (1 + len(columns)) + "|")
        for kind, rows in kinds.items():
            of = np.array(rows)
            cells = (f"{np.median(v):.0f}, {v.max():.0f}" for v in of.T)
            print(f"| {kind} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
