"""The paper's Figures 1-8 from results, and one of our own: held-out AUC beside the paper's number.

Figures 1, 2 and 4-8 follow the paper's choice, the best *on the test part*, and say so. Each says what it is made of;
one without any results is left out. A value is drawn at a readable size (7 points or more at the printed width), told
apart by shape or place beside its colour, and by lightness in greyscale.
"""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from paper.comparison import Setting, Study, by_seed, by_setting, comparable, complete, pick, told
from paper.learning import RECALLS, best
from paper.methods import METHODS, Column, Method
from paper.store import Result
from paper.tables import REPORTED
from tunelater.distributions import Linear
from tunelater.look import FAINT, INK, LIGHT, MUTED, SEQUENCE, TYPEFACE, VERMILION
from tunelater.problems import InputError, Problems

Floats = NDArray[np.float64]

FORMATS = ("png", "pdf", "svg")
COLUMN, PAGE = 3.3, 6.75
"""Widths in inches: one column of two, and both."""
HOUSE: Mapping[str, Any] = {
    "font.family": TYPEFACE[:1],
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,
    "svg.hashsalt": "tunelater",
}
STRONG = VERMILION
"""Which the colour-blind tell from grey."""
GROUND = LIGHT["ground"]
SYMBOLS: Mapping[str, str] = {"gamma": "γ", "tau": "τ", "alpha": "α", "phi": "φ"}
ON_TEST = "chosen on the test part, as in the paper"


def figures(
    study: Study,
    column: Column,
    out: Path,
    *,
    formats: Sequence[str] = ("png", "pdf"),
    only: str | None = None,
    paper: Path | None = REPORTED,
    tell: Callable[[str], None] = print,
) -> list[Path]:
    """Write the figures of a column as `fig1` ... `fig8` and `heldout`, over those of an earlier call.

    Args:
        study: results of one length.
        column: the dataset and the imbalance ratio.
        out: a folder, made where it is missing.
        formats: of each figure, among `FORMATS`.
        only: names that begin so.
        paper: the paper's numbers, a CSV file with the columns metric, method, dataset and value; None leaves them out.
        tell: is given a line for each figure that is left out for want of results.

    Returns:
        the files that were written.

    Raises:
        InputError: an unknown format or figure, a folder that is a file, numbers that are missing or not as they should
            be.
    """
    problems = Problems()
    for name in formats:
        problems.check(name in FORMATS, f"a format of figures is one of {', '.join(FORMATS)}; got {name!r}")
    wanted = [name for name in FIGURES if name.startswith(only or "")]
    problems.check(bool(wanted), f"no figure begins with {only!r}; there are {', '.join(FIGURES)}")
    problems.check(not out.exists() or out.is_dir(), f"figures are written to a folder, got the file {out}")
    problems.raise_if_any()
    reported = _reported(paper, column) if paper is not None else {}
    written = []
    for name in wanted:
        with rc_context(HOUSE):  # type: ignore[arg-type]
            figure = draw(name, study, column, reported)
            if figure is None:
                tell(f"{name} is left out: {_of(column)} has no results of {', '.join(NEEDS[name])}")
                continue
            out.mkdir(parents=True, exist_ok=True)
            written += [_write(figure, out / f"{name}.{form}") for form in formats]
    return written


def draw(name: str, study: Study, column: Column, reported: Mapping[str, float] | None = None) -> Figure | None:
    """One of `FIGURES`; None without results of any method that it needs.

    Args:
        reported: the paper's AUC of methods, by their labels.
    """
    found = {need: list(study.of(column.dataset, column.beta, need)) for need in NEEDS[name]}
    if found and not any(found.values()):
        return None
    with rc_context(HOUSE):  # type: ignore[arg-type]
        return FIGURES[name](_Sheet(study, column, found, reported or {}))


def _write(figure: Figure, path: Path) -> Path:
    whole, form = io.BytesIO(), path.suffix[1:]
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(form)  # equal results make equal files
    figure.savefig(whole, format=form, dpi=300, metadata=undated)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(whole.getvalue())
    os.replace(partial, path)
    return path


def _reported(path: Path, column: Column) -> dict[str, float]:
    """The paper's AUC by a method's label."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"the paper's numbers are a CSV file, got {path}: {error}") from None
    if missing := [name for name in ("metric", "method", "dataset", "value") if name not in table]:
        raise InputError(f"the paper's numbers need the columns {', '.join(missing)}; {path} has {list(table)}")
    rows = table[(table["metric"] == "auroc") & (table["dataset"] == column.name)]
    return {str(method): float(value) for method, value in zip(rows["method"], rows["value"], strict=True)}


# --------------------------------------------------------------------------------------------------- what is drawn from


@dataclass(frozen=True)
class _Sheet:
    """What a figure is drawn from: the results of the methods that it needs, by name."""

    study: Study
    column: Column
    found: Mapping[str, Sequence[Result]]
    reported: Mapping[str, float]

    def note(self, *more: str, choice: str = ON_TEST) -> str:
        made_of = (_made_of(METHODS[name], results) for name, results in self.found.items())
        return "; ".join([choice, *made_of, *more, _whole(str(self.study.length))])

    def title(self, text: str) -> str:
        return f"{_of(self.column)}: {text}"


def _of(column: Column) -> str:
    beta = "" if column.beta is None or "β" in column.label else f" β={column.beta:g}"
    return f"{' '.join(column.label.split())}{beta}"


def _made_of(method: Method, results: Sequence[Result]) -> str:
    """ "VS: 3 of 16 settings, 1 to 2 seeds", so that nobody takes a part for the whole."""
    if not results:
        return f"{_label(method)}: no results"
    return f"{_label(method)}: {_n(method, results)}"


def _label(method: Method) -> str:
    """The method's, in the letters of the formulas."""
    words = {"lambda": "λ", **SYMBOLS}
    return _whole(" ".join(words.get(word, word) for word in method.label.split()))


def _n(method: Method, results: Sequence[Result]) -> str:
    seeds = [len(some) for some in by_setting(results).values()]
    settings, of = len(seeds), len(method.settings())
    few, many = min(seeds), max(seeds)
    amount = _whole(f"{settings} settings" if settings >= of else f"{settings} of {of} settings")
    return f"{amount}, " + _whole(f"{few if few == many else f'{few} to {many}'} {'seed' if many == 1 else 'seeds'}")


def _means(results: Sequence[Result], metric: str) -> dict[Setting, Floats]:
    """(L,) a metric on the test part at each lambda, a mean over seeds; by setting."""
    return {
        setting: np.mean([r.values("test", "logits", metric) for r in some], axis=0)
        for setting, some in by_setting(results).items()
    }


def _best(results: Sequence[Result], metric: str) -> tuple[Setting, int]:
    """The setting and the candidate of the best mean over seeds on the test part."""
    means = _means(comparable(results), metric)
    setting = list(means)[best([m[best(m, metric)] for m in means.values()], metric)]
    return setting, best(means[setting], metric)


def _told(values: Iterable[tuple[str, Any]]) -> str:
    """ "γ = 0, τ ~ L(0, 3, 0.33)", each of them on one line."""
    return ", ".join(_whole(_one(name, value)) for name, value in values)


def _one(name: str, value: Any) -> str:
    text = value if isinstance(value, str) else f"{value:g}"
    return f"{SYMBOLS.get(name, name)} {'~' if '(' in text else '='} {text.replace('linear', 'L')}"


def _whole(text: str) -> str:
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _lam(result: Result, candidate: int) -> str:
    return _told((name, values[candidate]) for name, values in result.lambdas.items())


# -------------------------------------------------------------------------------------------------------------- layout


def _figure(width: float, height: float, title: str, note: str, apart: float = 0.02) -> Figure:
    """A figure with its title above and its note below, both at its left edge and broken into lines that fit.

    Args:
        apart: the space between panels, a share of their width.
    """
    letters = int(width * 72 / (7 * 0.56))
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=apart, hspace=0.02)
    figure = Figure(figsize=(width, height), layout=layout)
    figure.suptitle(textwrap.fill(title, letters - 8), x=0.01, ha="left", size=8, weight="bold")
    if note:
        figure.supxlabel(textwrap.fill(note, letters), x=0.01, ha="left", size=7, color=MUTED, linespacing=1.15)
    return figure


@dataclass(frozen=True)
class _End:
    """Where a line ends, and what it is called."""

    value: float
    name: str
    look: Mapping[str, Any]
    """Of the line, which its leader goes on with: the only way to tell lines apart that end in one place."""
    weight: str = "normal"


def _end_labels(figure: Figure, axes: Axes, ends: Sequence[_End], x: float) -> None:
    """Names of lines beside their ends at x: apart from each other as far as the letters need."""
    figure.draw_without_rendering()
    low, high = axes.get_ylim()
    height = axes.get_window_extent().height * 72 / figure.dpi  # points
    ends = sorted(ends, key=lambda end: end.value)
    places = _spaced(np.array([end.value for end in ends]), 9.0 / height * (high - low), low, high)
    for end, y in zip(ends, places, strict=True):
        leader = {**end.look, "arrowstyle": "-", "shrinkA": 1, "shrinkB": 3, "relpos": (0, 0.5)}
        axes.annotate(
            end.name, (x, end.value), (1.14, y), textcoords=("axes fraction", "data"), va="center",
            annotation_clip=False, arrowprops=leader, color=end.look["color"], weight=end.weight,
        )  # fmt: skip


def _spaced(wanted: Floats, apart: float, low: float, high: float) -> Floats:
    """Rising places at least so far apart, near the wanted ones; below `low` only where there is no room."""
    steps = apart * np.arange(len(wanted))
    places = np.maximum.accumulate(np.maximum(wanted, low) - steps) + steps
    over = np.minimum.accumulate((np.minimum(places, high) - steps)[::-1])[::-1]
    return np.minimum(places, np.minimum(over, high - steps[-1]) + steps)


# ---------------------------------------------------------------------------------------------------- precision, recall

_LINES = tuple((colour, style) for style in ("-", "--", ":", "-.") for colour in (INK, LIGHT["edge"]))


def _figure_1(sheet: _Sheet) -> Figure:
    families = [m for m in ("vs", "focal") if sheet.found[m] or sheet.found[f"{m}+lct"]]
    trained = [
        f"{_label(METHODS[f'{m}+lct'])} of the best average precision: {_told(_best(results, 'average_precision')[0])}"
        for m in families
        if (results := sheet.found[f"{m}+lct"])
    ]
    shown = "baselines: those that are best at some recall, with a dot where they are; dashed: of alerts for all"
    note = sheet.note(shown, *trained, "means over seeds")
    figure = _figure(PAGE, 3.0, sheet.title("precision at eight recalls"), note)
    panels = figure.subplots(1, len(families), squeeze=False, sharey=True)[0]
    labels = []
    for axes, name in zip(panels, families, strict=True):
        labels.append(_winners(axes, sheet.found[name]) + _conditional(axes, sheet.found[f"{name}+lct"]))
        axes.set_xticks(range(len(RECALLS)), [f"{r:g}".lstrip("0") for r in RECALLS])
        axes.set(title=_label(METHODS[name]), xlabel="recall at least", xlim=(-0.25, len(RECALLS) - 0.75))
    panels[0].set_ylabel("precision")
    share = _share_of_positives(sheet)
    for axes in panels:
        axes.axhline(share, color=MUTED, lw=0.6, ls=(0, (4, 3)), zorder=0)
    low, high = panels[0].get_ylim()
    panels[0].set_ylim(min(low, share) - 0.06 * (high - low), high + 0.03 * (high - low))
    for axes, ends in zip(panels, labels, strict=True):
        _end_labels(figure, axes, ends, len(RECALLS) - 1)
    return figure


def _share_of_positives(sheet: _Sheet) -> float:
    """Of the test part: the precision of an alert for every sample."""
    negatives, positives = next(r for results in sheet.found.values() for r in results).record["data"]["sizes"]["test"]
    return positives / (negatives + positives)


def _curves(results: Sequence[Result]) -> dict[Setting, Floats]:
    """(L, 8) precision at each recall, by setting."""
    each = [_means(results, f"precision@recall>={recall:g}") for recall in RECALLS]
    return {setting: np.stack([means[setting] for means in each], axis=1) for setting in (each[0] if results else ())}


def winners(curves: Mapping[Setting, Floats]) -> dict[Setting, list[int]]:
    """The settings that are best at some recall, and where; of equals one that is best elsewhere too, or the first."""
    found: dict[Setting, list[int]] = {}
    for i in range(len(RECALLS)):
        top = max(curve[i] for curve in curves.values())
        equals = [setting for setting, curve in curves.items() if curve[i] == top]
        found.setdefault(next((s for s in equals if s in found), equals[0]), []).append(i)
    return found


def _winners(axes: Axes, results: Sequence[Result]) -> list[_End]:
    if not results:
        return []
    curves = {setting: curve[0] for setting, curve in _curves(comparable(results)).items()}
    ends = []
    for (setting, where), (colour, style) in zip(winners(curves).items(), _LINES, strict=False):
        look: dict[str, Any] = {"color": colour, "ls": style, "lw": 0.9}
        axes.plot(curves[setting], marker="o", ms=3.2, markevery=where, **look)
        ends.append(_End(float(curves[setting][-1]), _told(setting), look))
    return ends


def _conditional(axes: Axes, results: Sequence[Result]) -> list[_End]:
    if not results:
        return []
    setting, candidate = _best(results, "average_precision")
    some = by_setting(comparable(results))[setting]
    curve, lam = _curves(some)[setting][candidate], _lam(some[0], candidate)
    look: dict[str, Any] = {"color": STRONG, "lw": 2.2}
    axes.plot(curve, marker="s", ms=4, mec=GROUND, mew=0.5, zorder=5, **look)
    return [_End(float(curve[-1]), f"LCT at {lam}", look, "bold")]


# -------------------------------------------------------------------------------------------------------- adaptability

_SHAPES = "osD^vPX*"


def _figure_2(sheet: _Sheet) -> Figure:
    return _adaptability(sheet, "vs", "tau")


def _figure_8(sheet: _Sheet) -> Figure:
    return _adaptability(sheet, "focal", "phi")


def _adaptability(sheet: _Sheet, name: str, shade: str) -> Figure:
    """One training of each method, that of the highest AUC: against it, what lambda moves."""
    baseline, conditional = sheet.found[name], sheet.found[f"{name}+lct"]
    one = f"one training of each, the one of the highest AUC of any seed, {ON_TEST}"
    family = _label(METHODS[f"{name}+lct"])
    shown = [f"{family} shown: {_told(_highest(conditional).trial.setting)}"] if conditional else []
    note = sheet.note(*shown, choice=one)
    figure = _figure(PAGE, 2.5, sheet.title("one model, many operating points"), note, apart=0.05)
    panels = figure.subplots(1, 3, sharey=True)
    told_x = (("brier", "Brier score (← better)"), ("precision@recall>=0.99", "precision at recall ≥ 0.99 (better →)"),
              ("best_f1", "F1 score (better →)"))  # fmt: skip
    for axes, (metric, label) in zip(panels, told_x, strict=True):
        if conditional:
            _dots(axes, _highest(conditional), metric, shade)
        if baseline:
            result = _highest(baseline)
            x, y = (result.values("test", "logits", m) for m in (metric, "auc"))
            named = f"{_label(METHODS[name])},\n{_told(result.trial.setting)}"
            axes.plot(x, y, ls="none", marker="x", ms=7, mew=2, color=INK, label=named, zorder=6)
        axes.set_xlabel(label)
        axes.margins(0.09)
        axes.locator_params("x", nbins=3)  # values that differ little have long labels
        axes.locator_params("y", nbins=5)
    panels[0].set_ylabel("AUC")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, handletextpad=0.1, labelspacing=0.6,
                  title=family if conditional else None, title_fontsize=7,
                  alignment="left")  # fmt: skip
    return figure


def _highest(results: Sequence[Result]) -> Result:
    tops = [float(result.values("test", "logits", "auc").max()) for result in results]
    return results[int(np.argmax(tops))]


def _dots(axes: Axes, result: Result, metric: str, shade: str) -> None:
    x, y = (result.values("test", "logits", m) for m in (metric, "auc"))
    levels, which = np.unique(result.lambdas[shade], return_inverse=True)
    colours = colormaps[SEQUENCE](np.linspace(0, 0.92, len(levels)))
    for i, level in enumerate(levels):
        shape = {"marker": _SHAPES[i % len(_SHAPES)], "color": colours[i], "mec": INK, "mew": 0.4}
        axes.plot(x[which == i], y[which == i], ls="none", ms=4.5, label=f"{SYMBOLS[shade]} = {level:g}", **shape)


# ------------------------------------------------------------------------------------------------------- distributions

HEIGHTS = (0.0, 1 / 6, 1 / 3, 1 / 2, 2 / 3)
"""h_b of Figure 3: falling, uniform (the third) and rising; the paper's grids have the first and 0.33."""
_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def _figure_3(sheet: _Sheet) -> Figure:
    title = "Linear(0, 3, h): density and distribution function by the height h of the density at 3"
    figure = _figure(PAGE, 1.9, title, "", apart=0.08)
    density, area = figure.subplots(1, 2)
    x = np.linspace(0, 3, 301)
    colours = colormaps[SEQUENCE](np.linspace(0, 0.85, len(HEIGHTS)))
    for h, colour, style in zip(HEIGHTS, colours, _STYLES, strict=True):
        d, name = Linear(0, 3, h), f"h = {h:.2g}" + (" (uniform)" if h == 1 / 3 else "")
        line = {"color": colour, "ls": style, "lw": 1.5, "clip_on": False}
        density.plot(x, d.pdf(x), **line)
        area.plot(x, d.cdf(x), **line)
        density.annotate(name, (3, h), (4, 0), textcoords="offset points", va="center")
    # in the middle the lines are too close for names; the outer two tell which way the others go
    for h, x_at, shift, side in ((HEIGHTS[0], 0.9, -3, ("right", "bottom")), (HEIGHTS[-1], 2.1, 3, ("left", "top"))):
        at = x_at, float(Linear(0, 3, h).cdf(x_at))
        area.annotate(f"h = {h:.2g}", at, (shift, 0), textcoords="offset points", ha=side[0], va=side[1])
    density.set(xlabel="λ", ylabel="density", xlim=(0, 3), ylim=(0, None), xticks=range(4))
    area.set(xlabel="λ", ylabel="P(Λ ≤ λ)", xlim=(0, 3), ylim=(0, 1), xticks=range(4))
    return figure


# ----------------------------------------------------------------------------------------------------------- heat maps


def _figure_4(sheet: _Sheet) -> Figure:
    return _map(sheet, "vs", COLUMN, 2.6)


def _figure_5(sheet: _Sheet) -> Figure:
    return _map(sheet, "vs+lct", PAGE, 4.3)


def _figure_6(sheet: _Sheet) -> Figure:
    return _map(sheet, "vs+lct:gamma", COLUMN, 4.2)


def _figure_7(sheet: _Sheet) -> Figure:
    return _map(sheet, "vs+lct:tau", PAGE, 2.2)


GAP = 0.35
"""Between the blocks of two trainings, in cells."""


@dataclass(frozen=True)
class _Axis:
    """One hyperparameter along an axis of a heat map: settings as blocks, in each the values in evaluation."""

    name: str
    trained: Sequence[str]
    evaluated: Sequence[float]

    @classmethod
    def of(cls, method: Method, name: str) -> _Axis:
        return cls(name, method.axes[name], method.inference.get(name, (np.nan,)))

    @property
    def varies(self) -> bool:
        return len(self.evaluated) > 1

    @property
    def gap(self) -> float:
        return GAP if self.varies else 0.0

    def start(self, block: int) -> float:
        return block * (len(self.evaluated) + self.gap)

    @property
    def length(self) -> float:
        return self.start(len(self.trained)) - self.gap

    def ticks(self) -> tuple[list[float], list[str]]:
        places = [self.start(b) + i + 0.5 for b in range(len(self.trained)) for i in range(len(self.evaluated))]
        labels = [f"{v:g}" for _ in self.trained for v in self.evaluated] if self.varies else list(self.trained)
        return places, labels

    @property
    def label(self) -> str:
        return f"{SYMBOLS[self.name]}{' in evaluation' if self.varies else ''}"


def _map(sheet: _Sheet, name: str, width: float, height: float) -> Figure:
    """AUC of every setting of a method: a block for each training, a cell for each lambda that it is evaluated at."""
    method, results = METHODS[name], sheet.found[name]
    rows, columns = _Axis.of(method, "gamma"), _Axis.of(method, "tau")
    means, counts = _means(results, "auc"), {s: len(some) for s, some in by_setting(results).items()}
    top, candidate = _best(results, "auc")
    together = np.concatenate(list(means.values()))
    low, high = float(together.min()), float(together.max())
    norm = Normalize(low, high if high > low else low + 1e-6)
    lam = "" if not method.inference else f", evaluated at {_lam(by_setting(results)[top][0], candidate)}"
    marks = [f"the best, {means[top][candidate]:.3f}, in a frame: {_told(top)}{lam}"]
    if len(set(counts.values())) > 1:
        n = len(by_setting(comparable(results))[top])
        marks.append(f"in italics: fewer seeds than others (the best is that of {n} of each)")
    marks += ["hatched: no result"] if len(means) < len(method.settings()) else []
    figure = _figure(width, height, sheet.title(f"AUC of {_label(method)}"), sheet.note(*marks))
    axes = figure.subplots()
    for i, gamma in enumerate(rows.trained):
        for j, tau in enumerate(columns.trained):
            setting = (("gamma", gamma), ("tau", tau))
            corner = columns.start(j), rows.start(i)
            if setting not in means:
                size = len(columns.evaluated), len(rows.evaluated)
                axes.add_patch(Rectangle(corner, *size, fill=False, hatch="////", ec=FAINT, lw=0.5))
                continue
            block = _block(means[setting], by_setting(results)[setting][0], rows, columns)
            _cells(axes, block, corner, norm, italic=counts[setting] < max(counts.values()))
            if setting == top:
                r, c = np.argwhere(block == means[top][candidate])[0]
                place = corner[0] + c, corner[1] + r
                axes.add_patch(Rectangle(place, 1, 1, fill=False, ec=INK, lw=1.6, zorder=4, clip_on=False))
    _dress(axes, rows, columns)
    return figure


def _block(values: Floats, result: Result, rows: _Axis, columns: _Axis) -> Floats:
    """(rows, columns) of the (L,) values, by the lambda of each."""
    block = np.full((len(rows.evaluated), len(columns.evaluated)), np.nan)
    lams = result.lambdas
    for i, value in enumerate(values):
        at = [
            int(np.argmin(np.abs(np.array(axis.evaluated) - lams[axis.name][i]))) if axis.varies else 0
            for axis in (rows, columns)
        ]
        block[at[0], at[1]] = value
    return block


def _cells(axes: Axes, block: Floats, corner: tuple[float, float], norm: Normalize, *, italic: bool) -> None:
    n, m = block.shape
    x, y = corner[0] + np.arange(m + 1), corner[1] + np.arange(n + 1)
    cells = axes.pcolormesh(x, y, np.ma.masked_invalid(block), cmap=SEQUENCE, norm=norm, ec=GROUND, lw=0.4)
    for r, c in np.argwhere(np.isfinite(block)):
        red, green, blue, _ = cells.cmap(norm(block[r, c]))
        light = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
        text = f"{block[r, c]:.3f}" if block[r, c] >= 0.9995 else f"{block[r, c]:.3f}".removeprefix("0")
        axes.text(
            x[c] + 0.5, y[r] + 0.5, text, ha="center", va="center_baseline", size=7,
            color=INK if light > 0.18 else GROUND, style="italic" if italic else "normal",
        )  # fmt: skip


def _dress(axes: Axes, rows: _Axis, columns: _Axis) -> None:
    axes.set(xlim=(0, columns.length), ylim=(rows.length, 0), xlabel=columns.label, ylabel=rows.label)
    axes.set_xticks(*columns.ticks())
    axes.set_yticks(*rows.ticks())
    axes.tick_params(length=0, pad=2)
    axes.spines[:].set_visible(False)
    offset: dict[str, Any] = {"textcoords": "offset points", "annotation_clip": False}
    for j, text in enumerate(columns.trained if columns.varies else ()):
        middle = columns.start(j) + len(columns.evaluated) / 2
        axes.annotate(_one(columns.name, text), (middle, 0), (0, 3), ha="center", va="bottom", **offset)
    for i, text in enumerate(rows.trained if rows.varies else ()):
        middle = rows.start(i) + len(rows.evaluated) / 2
        two_lines = _one(rows.name, text).replace("~ ", "~\n")
        turned: dict[str, Any] = {"rotation": 270, "multialignment": "center", "ha": "left", "va": "center"}
        axes.annotate(two_lines, (columns.length, middle), (3, 0), **turned, **offset)


# ------------------------------------------------------------------------------------------------------------ held out


def _held_out(sheet: _Sheet) -> Figure:
    """Held-out AUC of each method: seeds, mean and standard deviation; the paper's number, which is chosen on test."""
    methods = [METHODS[name] for name, results in sheet.found.items() if results]
    seeds = {m.name: _of_seeds(sheet.found[m.name]) for m in methods}
    told_all = [
        "trained on all but the test part, which chose: not held out"
        if sheet.study.length.protocol == "paper"
        else "setting and λ chosen on the validation part, for each seed",
        "○ a seed, ┃ mean, bar ± standard deviation",
        *(["◇ the paper's number, best on its test part at full length"] if sheet.reported else []),
        _whole(str(sheet.study.length)),
    ]
    title = sheet.title("AUC on the test part")
    figure = _figure(PAGE, 0.85 + 0.19 * len(methods), title, "; ".join(told_all))
    axes = figure.subplots()
    for y, method in enumerate(methods):
        values, colour = seeds[method.name], STRONG if "lct" in method.name else INK
        mean, std = values.mean(), values.std(ddof=1) if len(values) > 1 else 0.0
        axes.plot([mean - std, mean + std], [y, y], color=colour, lw=1, solid_capstyle="butt")
        axes.plot(mean, y, "|", color=colour, ms=9, mew=1.8, zorder=4)
        axes.plot(values, np.full(len(values), y), "o", ms=3.6, mfc=GROUND, mec=colour, mew=0.8, zorder=5)
        if method.label in sheet.reported:
            axes.plot(sheet.reported[method.label], y, "D", mfc="none", mec=MUTED, mew=1, ms=5, zorder=3)
        spread = f" ± {std:.3f}" if len(values) > 1 else ""
        for text, shift, shade in (
            (f"{mean:.3f}{spread}", 8, INK),
            (_n(method, sheet.found[method.name]), 74, MUTED),
        ):
            place: dict[str, Any] = {
                "xycoords": ("axes fraction", "data"),
                "textcoords": "offset points",
                "va": "center",
            }
            axes.annotate(text, (1, y), (shift, 0), color=shade, **place)
    axes.set_yticks(range(len(methods)), [_label(m) for m in methods])
    axes.tick_params(axis="y", length=0)
    axes.set(ylim=(len(methods) - 0.4, -0.6), xlabel="AUC")
    axes.grid(axis="y", lw=0.4, color=LIGHT["line"])
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    return figure


def _of_seeds(results: Sequence[Result]) -> Floats:
    picks = [pick(some, "auc") for some in by_seed(complete(results)).values()]
    return np.array([told(p.result, "auc", "logits")[p.candidate] for p in picks])


FIGURES: Mapping[str, Callable[[_Sheet], Figure]] = {
    "fig1": _figure_1,
    "fig2": _figure_2,
    "fig3": _figure_3,
    "fig4": _figure_4,
    "fig5": _figure_5,
    "fig6": _figure_6,
    "fig7": _figure_7,
    "fig8": _figure_8,
    "heldout": _held_out,
}
"""By the name of their files: the paper's numbers, and one of our own."""
NEEDS: Mapping[str, tuple[str, ...]] = {
    "fig1": ("vs", "vs+lct", "focal", "focal+lct"),
    "fig2": ("vs", "vs+lct"),
    "fig3": (),
    "fig4": ("vs",),
    "fig5": ("vs+lct",),
    "fig6": ("vs+lct:gamma",),
    "fig7": ("vs+lct:tau",),
    "fig8": ("focal", "focal+lct"),
    "heldout": tuple(METHODS),
}
"""The methods whose results a figure shows, of which one is enough to draw it."""
