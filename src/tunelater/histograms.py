"""Score histograms: labelled scores of any number, in memory that does not grow with it.

Scores are not held but counted, for each lambda and class, in bins that are the same on every machine whatever the
data. Pieces stream through `update`, shards merge with `+`. Whole counts add exactly, so that without weights the
result is the same to the bit in any order and division; sums of weights are the same to rounding.

What binning costs. A bin holds the float32 log-odds from its edge up to the next, so an alert on `log_odds >= edge` is
counted exactly: at the edges every metric of a threshold is exact, there only are fewer thresholds to choose from. What
is lost is the order within a bin, and with it a little of the metrics of a whole lambda. Their values take the scores
of a bin as tied (Brier score and log-loss: as the bin's centre), and `bounds` gives, from the histogram itself,
values between which the exact metric must lie whatever the order:

* AUC: half of the tied pairs of a positive and a negative, sum p_b n_b / 2 with p_b and n_b the shares of each class in
  bin b. With steps h and a density of one class that is nowhere over d, that is at most h d / 2: 5e-5 for h = 1 / 4096
  and normal scores of unit width.
* average precision, a partial AUC, the best of a metric of a threshold: all positives of a bin before its negatives, or
  after them. These metrics only rise with true and fall with false positives, or the reverse, so that the ends of a bin
  enclose all thresholds within it.
* Brier score and log-loss: all scores of a bin at its lower edge, or at its upper; at most h / 2 from the value up to
  log-odds of +-32.

Shapes: L lambdas, B bins; of the two classes, negatives come first.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from tunelater.distributions import Lambdas, at
from tunelater.intervals import Estimate, of_proper_scores, of_ranking, problems_of_confidence
from tunelater.losses import logit
from tunelater.metrics import (
    Constraint,
    Curve,
    Floats,
    Metric,
    ThresholdMetric,
    auc,
    average_precision,
    metric,
    partial_auc,
    per_lambda,
    sample_scores,
    threshold_metric,
)
from tunelater.problems import InputError, Problems
from tunelater.scoring import Scores

T = TypeVar("T")

FORMAT = "tunelater.score_histograms/1"
METRICS = ("auc", "average_precision", "brier", "log_loss")

CENTRE = 32.0
"""Up to here, of either sign, bins are equally wide: log-odds of 32 are a probability within 1e-14 of 1."""
OCTAVES = 7
"""Beyond, widths double with every doubling of the log-odds, which only a model that is far too sure of itself gives;
from 32 * 2^7 = 4096 on, all is one bin."""


@dataclass(frozen=True)
class Bins:
    """Where float32 log-odds are cut: the same everywhere, whatever the data.

    Steps of 2^-bits up to +-32, then 2^bits steps for each octave up to +-4096; the first and the last bin are open.
    Edges are float32 and placing a score is exact, so that `log_odds >= edges[b]` is the same as
    `place(log_odds) >= b`.

    Raises:
        InputError: bits that are not a whole number from 4 to 16.
    """

    bits: int = 12

    def __post_init__(self) -> None:
        if not (isinstance(self.bits, int) and not isinstance(self.bits, bool) and 4 <= self.bits <= 16):
            raise InputError(f"bins have steps of 2^-bits with bits a whole number from 4 to 16, got {self.bits!r}")

    def __len__(self) -> int:
        return 2 * (int(CENTRE) + OCTAVES) << self.bits

    @property
    def edges(self) -> Floats:
        """(B + 1,) ascending: bin b holds edges[b] <= log-odds < edges[b + 1]. The first is the lowest float32 (a
        threshold that alerts on everybody), the last is infinite."""
        edges = _nominal_edges(self.bits).copy()
        edges[0], edges[-1] = np.finfo(np.float32).min, np.inf
        return edges

    @property
    def centres(self) -> NDArray[np.float32]:
        """(B,) the middle of each bin, itself a score of that bin; the open ones as if they ended at +-4096."""
        edges = _nominal_edges(self.bits)
        return ((edges[:-1] + edges[1:]) / 2).astype(np.float32)

    def place(self, log_odds: NDArray[np.float32]) -> NDArray[np.int32]:
        """The bin of each of (N,) finite log-odds."""
        half = len(self) // 2
        with np.errstate(over="ignore"):
            steps = log_odds * np.float32(2**self.bits)  # exact, as the factor is a power of two
        np.floor(steps, out=steps)
        centre = int(CENTRE) << self.bits
        far = len(steps) > 0 and not -centre <= steps.min() <= steps.max() < centre
        if far:
            outside = np.flatnonzero((steps < -centre) | (steps >= centre))
            steps[outside] = 0
        bins = steps.astype(np.int32)
        bins += np.int32(half)
        if far:
            bins[outside] = self._place_far(log_odds[outside])
        return bins

    def _place_far(self, log_odds: NDArray[np.float32]) -> NDArray[np.int32]:
        """Bins of log-odds beyond +-32, where the upper bits of a float32 are steps of its octave."""
        negative = log_odds < 0
        # An edge belongs to the bin above it, which for negative log-odds is the one of smaller magnitude.
        above = np.abs(log_odds).view(np.int32) - np.float32(CENTRE).view(np.int32) - negative
        step = np.minimum(above >> np.int32(23 - self.bits), np.int32((OCTAVES << self.bits) - 1))
        half, centre = len(self) // 2, int(CENTRE) << self.bits
        return np.where(negative, half - centre - 1 - step, half + centre + step).astype(np.int32)


@functools.cache
def _nominal_edges(bits: int) -> Floats:
    """(B + 1,) the edges of bins, with the open ones ending at +-4096."""
    octave = CENTRE * (1 + np.arange(2**bits) / 2**bits)
    tail = np.append((2.0 ** np.arange(OCTAVES)[:, None] * octave).reshape(-1), CENTRE * 2**OCTAVES)
    centre = np.arange(-(int(CENTRE) << bits), int(CENTRE) << bits) / 2**bits
    edges = np.concatenate([-tail[:0:-1], centre, tail])
    edges.flags.writeable = False
    return edges


@dataclass(frozen=True)
class ScoreHistograms:
    """How many scores of each class lie in each bin, at L lambdas.

    Memory is 16 bytes for each lambda and bin (32 with weights) and does not depend on the number of scores: with the
    319,488 bins of 12 bits 5 MB for each lambda (10 with weights), and half of that for each bit less. Bins that no
    score ever fell into cost no memory where the system gives it on first use.

    Raises:
        InputError: arrays that do not fit each other, counts that are negative, not finite, or that do not add up to
            the same for every lambda.
    """

    counts: NDArray[np.int64] | Floats
    """(L, 2, B) how many scores; or float64, the sums of their weights."""
    lambdas: Lambdas
    """(L,) values of each loss hyperparameter, by name."""
    prior: float
    """The share of positives that the log-odds are for."""
    rows: NDArray[np.int64]
    """(2,) samples of each class, whatever their weight."""
    squares: Floats | None = None
    """(L, 2, B) sums of squared weights, from which effective sizes follow; None where there are no weights."""
    bins: Bins = Bins()
    split: str = "validation"
    model: str = ""
    extrapolated: NDArray[np.bool_] | None = None
    """(L,) which lambdas lie outside of the range trained on; None where that is not known."""

    def __post_init__(self) -> None:
        problems = Problems()
        lengths = {name: np.size(values) for name, values in self.lambdas.items()}
        n_lambdas = next(iter(lengths.values()), 1)
        problems.check(len(set(lengths.values())) <= 1, f"each lambda needs a value of every name, got {lengths}")
        shape = (n_lambdas, 2, len(self.bins))
        arrays: dict[str, tuple[NDArray | None, tuple[int, ...]]] = {
            "counts": (self.counts, shape), "rows": (self.rows, (2,)),
            "squares": (self.squares, shape), "extrapolated": (self.extrapolated, (n_lambdas,)),
        }  # fmt: skip
        for name, (array, wanted) in arrays.items():
            sound = array is None or array.shape == wanted
            problems.check(sound, f"{name} of these lambdas and bins need shape {wanted}, got {np.shape(array)}")  # type: ignore[arg-type]
        problems.check(0 < self.prior < 1, f"a prior is a share of positives in (0, 1), got {self.prior}")
        kind = np.int64 if self.squares is None else np.float64
        problems.check(
            self.counts.dtype == kind, f"counts need {np.dtype(kind)} without squares only, got {self.counts.dtype}"
        )
        if not problems:
            problems.add(*self._problems_of_counts())
        problems.raise_if_any()

    def _problems_of_counts(self) -> list[str]:
        problems = Problems()
        for name, array in (("counts", self.counts), ("squares", self.squares)):
            if array is None:
                continue
            totals = array.sum(axis=2)
            if not (np.isfinite(totals).all() and all(row.min() >= 0 for row in array)):
                problems.add(f"{name} must be finite and 0 or more; count the scores again")
                continue
            expected = self.rows if self.squares is None else totals[0]
            same = np.allclose(totals, expected, rtol=1e-9)
            if self.squares is None:
                same = bool((totals == expected).all())
            problems.check(same, f"every lambda must have {name} of all samples, got {totals.tolist()[:3]}")
        return list(problems)

    @classmethod
    def empty(
        cls,
        lambdas: Lambdas,
        prior: float,
        *,
        weighted: bool = False,
        bins: Bins | None = None,
        split: str = "validation",
        model: str = "",
        extrapolated: NDArray[np.bool_] | None = None,
    ) -> ScoreHistograms:
        """Histograms that nothing was counted in yet.

        Args:
            lambdas: (L,) arrays by name, as `LambdaSpace.grid` gives them.
            prior: the share of positives that the log-odds are for, in (0, 1).
            weighted: whether the samples will come with weights.
            bins: steps of 2^-12 up to log-odds of +-32, unless others are given.
        """
        bins = bins or Bins()
        values = {name: np.array(v, np.float64).reshape(-1) for name, v in lambdas.items()}
        shape = (len(next(iter(values.values()), [0])), 2, len(bins))
        counts: NDArray = np.zeros(shape, np.float64 if weighted else np.int64)
        squares = np.zeros(shape) if weighted else None
        return cls(counts, values, prior, np.zeros(2, np.int64), squares, bins, split, model, extrapolated)

    @classmethod
    def of(cls, scores: Scores, bins: Bins | None = None) -> ScoreHistograms:
        """Histograms of scores that are at hand."""
        histograms = cls.empty(
            scores.lambdas,
            scores.prior,
            weighted=scores.weight is not None,
            bins=bins,
            split=scores.split,
            model=scores.model,
            extrapolated=scores.extrapolated,
        )
        histograms.update(scores)
        return histograms

    def __len__(self) -> int:
        return len(self.counts)

    def lam(self, index: int) -> dict[str, float]:
        """The lambda at an index."""
        return at(self.lambdas, index)

    # --------------------------------------------------------------------------------------- counting

    def update(self, scores: Scores) -> None:
        """Count a piece of the samples, in place.

        All lambdas are counted, or none: what is wrong with a piece is found first.

        Raises:
            InputError: scores of other lambdas, another prior, model or split, with weights where there were none or
                without, log-odds that are not float32, targets that are not 0 or 1.
        """
        problems = Problems()
        problems.add(*self._differences(scores, weighted=scores.weight is not None))
        problems.check(len(scores) == len(self), f"{len(self)} lambdas are counted here, and got {len(scores)}")
        kind = scores.log_odds.dtype
        problems.check(kind == np.float32, f"log-odds need float32, as `score` gives them, got {kind}")
        positive, negative = (np.flatnonzero(scores.target == c) for c in (1, 0))
        other = len(scores.target) - len(positive) - len(negative)
        problems.check(not other, f"targets must be 0 or 1, got {other} that are not")
        problems.raise_if_any()
        if len(scores.target) == 0:
            return
        self.rows[:] += len(negative), len(positive)
        if self.squares is None:
            per_lambda(lambda i: self._count(i, scores.log_odds[i], positive), len(self))
        else:
            by_class = [(rows, torch.from_numpy(scores.weight[rows])) for rows in (negative, positive)]  # type: ignore[index]
            per_lambda(lambda i: self._weigh(i, scores.log_odds[i], by_class), len(self))

    def _count(self, index: int, log_odds: NDArray[np.float32], positive: NDArray[np.intp], size: int = 2**18) -> None:
        """Count all scores, and then the positives, which are rare, over again.

        Args:
            size: so many at a time that their bins stay in the processor's cache.
        """
        negatives, positives = self.counts[index]
        for start in range(0, len(log_odds), size):
            some, found = _counted(self.bins.place(log_odds[start : start + size]))
            negatives[some] += found
        if len(positive):
            some, found = _counted(self.bins.place(log_odds[positive]))
            positives[some] += found
            negatives[some] -= found

    def _weigh(
        self, index: int, log_odds: NDArray[np.float32], by_class: Sequence[tuple[NDArray[np.intp], torch.Tensor]]
    ) -> None:
        """Sum weights, each class on its own: a difference of sums would leave rounding where there is nothing."""
        assert self.squares is not None
        for c, (rows, weight) in enumerate(by_class):
            if len(rows):
                bins = self.bins.place(log_odds[rows])
                for sums, of_rows in ((self.counts, weight), (self.squares, weight * weight)):
                    some, found = _counted(bins, of_rows)
                    sums[index, c, some] += found

    def __add__(self, other: ScoreHistograms) -> ScoreHistograms:
        """Histograms of the samples of both.

        Raises:
            InputError: everything that differs between them, other than what was counted.
        """
        return merged([self, other])

    def _differences(self, other: Scores | ScoreHistograms, weighted: bool) -> list[str]:
        """What keeps the samples of `other` from being counted here."""
        problems = Problems()
        same = self.lambdas.keys() == other.lambdas.keys() and all(
            np.array_equal(values, other.lambdas[name]) for name, values in self.lambdas.items()
        )
        problems.check(same, f"histograms add up at the same lambdas only: {_told(self.lambdas)}, and got "
                             f"{_told(other.lambdas)}; score all shards at one grid")  # fmt: skip
        for name in ("prior", "model", "split"):
            mine, theirs = getattr(self, name), getattr(other, name)
            problems.check(mine == theirs, f"histograms add up for one {name} only: {mine!r}, and got {theirs!r}")
        mine = self.squares is not None
        kinds = ["without weights", "with weights"]
        problems.check(mine == weighted, f"samples here are {kinds[mine]}, and got some {kinds[weighted]}")
        if isinstance(other, ScoreHistograms):
            problems.check(
                self.bins == other.bins,
                f"histograms add up in the same bins only: {self.bins}, and got {other.bins}; count again in one",
            )
        return list(problems)

    def _absorb(self, other: ScoreHistograms) -> None:
        self.rows[:] += other.rows
        for mine, theirs in ((self.counts, other.counts), (self.squares, other.squares)):
            if mine is not None and theirs is not None:
                mine += theirs

    # --------------------------------------------------------------------------------------- reading

    def curve(self, index: int, *, every_bin: bool = False) -> Curve:
        """One lambda's operating curve, with bins' lower edges as thresholds.

        Its counts are those of alerting on raw log-odds >= threshold, exactly. Where `threshold` is the lowest score
        alerted on in a curve of `metrics.Ranking`, here it is an edge at or below it.

        Args:
            every_bin: thresholds at all bins that are not empty, rather than those with positives; needed for
                constraints that are not floors on what should be high or ceilings on what should be low.
        """
        n, p = self.counts[index]
        below, above = np.cumsum(n), np.cumsum(p)
        negatives, positives = float(below[-1]), float(above[-1])
        some = np.flatnonzero((p > 0) | (n > 0) if every_bin else p > 0)[::-1]
        lowest = int(np.flatnonzero((p > 0) | (n > 0))[0]) if positives + negatives > 0 else 0

        def from_top(cumulated: NDArray, total: float, at_or: NDArray) -> Floats:
            return total - np.where(at_or > 0, cumulated[at_or - 1], 0).astype(np.float64)

        edges = self.bins.edges
        ends = lambda first, inner, last: np.concatenate([[first], inner, [last]])
        return Curve(
            threshold=ends(np.inf, edges[some], edges[lowest]),
            tp=ends(0.0, from_top(above, positives, some), positives),
            fp=ends(0.0, from_top(below, negatives, some), negatives),
            tp_above=ends(0.0, from_top(above, positives, some + 1), positives),
            fp_above=ends(0.0, from_top(below, negatives, some + 1), negatives),
            weight=ends(0.0, p[some].astype(np.float64), 0.0),
            positives=positives,
            negatives=negatives,
        )

    def threshold(self, index: int, edge: float) -> float:
        """The threshold halfway from an edge of `curve` down to where the next scores may lie: the same decisions on
        all that was counted. The edge itself, unless the bins just below are empty.

        Args:
            index: of the lambda.
            edge: a threshold of its curve.
        """
        if math.isinf(edge):
            return edge
        first = int(np.searchsorted(self.bins.edges, edge))
        filled = np.flatnonzero(self.counts[index, :, :first].any(axis=0))
        if not len(filled):
            return edge
        return edge / 2 + float(self.bins.edges[filled[-1] + 1]) / 2

    def evaluate(self, metrics: Sequence[str] = METRICS, *, prior: float | None = None) -> dict[str, Floats]:
        """Metrics of all lambdas, as if the scores of a bin tied; `bounds` says how far off they may be.

        Args:
            metrics: names, as `tunelater.metrics` lists them.
            prior: the share of positives that they are for, to which probabilities are moved too; None takes the
                samples' own share and the log-odds as they are.

        Returns:
            Arrays of shape (L,), float64, by name.

        Raises:
            InputError: unknown metrics, a prior outside (0, 1), one class only.
        """
        wanted = self._checked(metrics, prior)
        rows = per_lambda(lambda i: [self._value(i, m, prior) for m in wanted], len(self))
        return {m.name: np.array([row[j] for row in rows]) for j, m in enumerate(wanted)}

    def bounds(self, name: str, *, prior: float | None = None) -> tuple[Floats, Floats]:
        """Between which values a metric of the exact scores lies, at each lambda.

        Args:
            name: a metric, as `tunelater.metrics` lists them.
            prior: as for `evaluate`.

        Returns:
            The lowest and the highest values, (L,) each. NaN for the best under a constraint where no threshold at an
            edge, or none at all, meets it.

        Raises:
            InputError: as for `evaluate`.
        """
        (m,) = self._checked([name], prior)
        low, high = np.array(per_lambda(lambda i: self._enclosed(i, m, prior), len(self))).T
        return low, high

    def off_by(self, index: int, prior: float | None = None) -> dict[str, float]:
        """By how much `METRICS` of one lambda may differ from those of the exact scores, at the most: the farther of
        both `bounds`.

        Raises:
            InputError: as for `evaluate`.
        """
        out = {}
        for m in self._checked(METRICS, prior):
            value, (low, high) = self._value(index, m, prior), self._enclosed(index, m, prior)
            out[m.name] = max(value - low, high - value, 0.0)
        return out

    def intervals(self, index: int, *, prior: float | None = None, confidence: float = 0.95) -> dict[str, Estimate]:
        """`auc`, `average_precision`, `brier` and `log_loss` of one lambda with the intervals of `tunelater.intervals`,
        which are about chance; `bounds` are about binning.

        Args:
            prior: as for `evaluate`.
            confidence: of the intervals, in (0, 1).

        Raises:
            InputError: a prior or confidence outside (0, 1), one class only.
        """
        self._checked((), prior, problems_of_confidence(confidence))
        log_odds, target, weight, squares = self.samples(index)
        moved = log_odds.astype(np.float64) + self._shift(prior)
        given: dict[str, Any] = {"squares": squares, "prior": prior, "confidence": confidence}
        return of_ranking(log_odds, target, weight, **given) | of_proper_scores(moved, target, weight, **given)

    def samples(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int8], Floats, Floats]:
        """One lambda as samples that stand for many: each bin's of each class as one.

        Returns:
            Log-odds (the centres of bins, on the same side of every edge as what is in them), targets, sums of weights
            and of squared weights, (M,) each with M at most 2 B.
        """
        squares = self.counts if self.squares is None else self.squares
        filled = [np.flatnonzero(of_class) for of_class in self.counts[index]]
        centres = self.bins.centres
        return (
            np.concatenate([centres[some] for some in filled]),
            np.repeat(np.array([0, 1], np.int8), [len(some) for some in filled]),
            np.concatenate([self.counts[index, c, some] for c, some in enumerate(filled)]).astype(np.float64),
            np.concatenate([squares[index, c, some] for c, some in enumerate(filled)]).astype(np.float64),
        )

    def _shift(self, prior: float | None) -> float:
        """What moves log-odds to a prior."""
        return 0.0 if prior is None else logit(prior) - logit(self.prior)

    def _checked(self, names: Sequence[str], prior: float | None, found: Iterable[str] = ()) -> list[Metric]:
        problems = Problems()
        problems.add(*found)
        wanted = []
        for name in names:
            try:
                wanted.append(metric(name))
            except InputError as error:
                problems.add(*error.problems)
        problems.check(prior is None or 0 < prior < 1, f"a prior lies in (0, 1), got {prior!r}")
        totals = self.counts[:1].sum(axis=(0, 2))
        for c in (0, 1):
            problems.check(totals[c] > 0, f"metrics need samples of both classes, got none of class {c} (or no weight)")
        problems.raise_if_any()
        return wanted

    def _value(self, index: int, m: Metric, prior: float | None) -> float:
        if m.of_curve is None:
            return self.losses(index, prior)[m.proper]
        return float(m.of_curve(self._curve_at(index, prior, every_bin=False))[0])

    def _curve_at(self, index: int, prior: float | None, *, every_bin: bool) -> Curve:
        c = self.curve(index, every_bin=every_bin)
        return c if prior is None else c.at_prior(prior)

    def _enclosed(self, index: int, m: Metric, prior: float | None) -> tuple[float, float]:
        if m.of_curve is None:
            lower, upper = self.bins.edges[:-1], self.bins.edges[1:]
            best = self._losses(index, lower, upper, prior)[m.proper]
            return best, self._losses(index, upper, lower, prior)[m.proper]
        c = self._curve_at(index, prior, every_bin=True)
        if m.name == "auc":
            value, tied = float(auc(c)[0]), float(c.weight @ (c.fp - c.fp_above))
            gap = tied / 2 / float(c.positives * c.negatives)
            return value - gap, value + gap
        if m.name == "average_precision":
            # Where all weights are one, so is the step from each positive to the next.
            step = float(c.positives) / float(self.rows[1]) if self.squares is None else 0.0
            return _lowest_average_precision(c, step), float(average_precision(_positives_first(c))[0])
        if m.name.startswith("partial_auc@"):
            last, first = _positives_last(c), _positives_first(c)
            ceiling = Constraint.parse(m.name.removeprefix("partial_auc@")).bound
            return float(partial_auc(last, ceiling)[0]), float(partial_auc(first, ceiling)[0])
        at_edges, within = float(m.of_curve(c)[0]), _best_within(c, m.name)
        return (at_edges, within) if m.higher_is_better else (within, at_edges)

    def losses(self, index: int, prior: float | None = None) -> tuple[float, float]:
        """Brier score and log-loss (nats) of one lambda, with every score taken as its bin's centre; unchecked."""
        return self._losses(index, self.bins.centres, self.bins.centres, prior)

    def _losses(
        self, index: int, of_negatives: NDArray[np.floating], of_positives: NDArray[np.floating], prior: float | None
    ) -> tuple[float, float]:
        """Brier score and log-loss (nats) where the scores of each bin are replaced by (B,) others, for each class."""
        shift = self._shift(prior)
        means, totals = [], []
        for counts, values, sign in zip(self.counts[index], (of_negatives, of_positives), (1.0, -1.0), strict=True):
            some = np.flatnonzero(counts)
            losses = sample_scores(values[some].astype(np.float64) + shift, np.full(len(some), sign))
            weight = counts[some].astype(np.float64)
            totals.append(weight.sum())
            means.append([float(weight @ loss.numpy()) / totals[-1] for loss in losses])
        share = totals[1] / (totals[0] + totals[1]) if prior is None else prior
        brier, log_loss = ((1 - share) * n + share * p for n, p in zip(*means, strict=True))
        return brier, log_loss

    # --------------------------------------------------------------------------------------- on disk

    def save(self, path: str | Path) -> None:
        """Write one compressed .npz, without pickles, which is in its place only once it is whole.

        Raises:
            InputError: counts that do not add up, as an interrupted `update` leaves them.
        """
        if problems := self._problems_of_counts():
            raise InputError(problems)
        write_arrays(Path(path), self.stored())

    def stored(self) -> dict[str, NDArray]:
        """Arrays without pickles, from which `from_stored` makes the same."""
        header = {
            "format": FORMAT, "prior": self.prior, "bits": self.bins.bits, "split": self.split, "model": self.model,
            "lambdas": {name: values.tolist() for name, values in self.lambdas.items()},
            "extrapolated": None if self.extrapolated is None else self.extrapolated.tolist(),
        }  # fmt: skip
        arrays: dict[str, NDArray] = {"header": np.array(json.dumps(header, allow_nan=False)), "rows": self.rows}
        for name, array in (("counts", self.counts), ("squares", self.squares)):
            if array is not None:
                # Most bins are empty: what is left is a fraction of the size, and quick to write.
                arrays[f"{name}_at"] = np.flatnonzero(array)
                arrays[name] = array.reshape(-1)[arrays[f"{name}_at"]]
        return arrays

    def __reduce__(self) -> tuple[Any, ...]:
        """Between processes they travel as `stored`."""
        return type(self).from_stored, (self.stored(),)

    @classmethod
    def load(cls, path: str | Path) -> ScoreHistograms:
        """Read what `save` wrote.

        Raises:
            InputError: no such file, another kind of file or one that is damaged, or that a later version wrote.
        """
        return read_arrays(Path(path), cls.from_stored)

    @classmethod
    def from_stored(cls, stored: Mapping[str, NDArray]) -> ScoreHistograms:
        """The inverse of `stored`.

        Raises:
            InputError, ValueError, KeyError, TypeError: arrays that are none of those.
        """
        header: dict[str, Any] = json.loads(str(stored["header"][()]))
        if header["format"] != FORMAT:
            raise InputError(
                f"score histograms have the format {FORMAT!r}, got {header['format']!r}{_newer(header['format'])}"
            )
        lambdas = {name: np.array(values, np.float64) for name, values in header["lambdas"].items()}
        bins, weighted = Bins(header["bits"]), "squares" in stored
        shape = (max([1, *map(len, lambdas.values())]) if lambdas else 1, 2, len(bins))
        arrays: dict[str, NDArray] = {}
        for name, kind in (("counts", np.float64 if weighted else np.int64), ("squares", np.float64)):
            if name in stored:
                arrays[name] = np.zeros(shape, kind)
                places, values = stored[f"{name}_at"], stored[name]
                if values.dtype != kind or not (len(places) == 0 or 0 <= places.min() <= places.max() < np.prod(shape)):
                    raise ValueError(f"its {name} do not fit its bins")
                arrays[name].reshape(-1)[places] = values
        extrapolated = header["extrapolated"]
        return cls(
            arrays["counts"],
            lambdas,
            header["prior"],
            stored["rows"],
            arrays.get("squares"),
            bins,
            header["split"],
            header["model"],
            None if extrapolated is None else np.array(extrapolated, bool),
        )


def write_arrays(path: Path, arrays: Mapping[str, NDArray]) -> None:
    """Write one compressed .npz, which is in its place only once it is whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_arrays(path: Path, made: Callable[[Mapping[str, NDArray]], T]) -> T:
    """What `made` makes of the arrays in a file that `write_arrays` wrote.

    Raises:
        InputError: no such file, another kind of file or one that is damaged, or what `made` raises.
    """
    if not path.is_file():
        raise InputError(f"there are no score histograms {path}; write them with `ScoreHistograms.save`")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return made({name: stored[name] for name in stored.files})
    except InputError as error:
        raise InputError(f"{path}: {problem}" for problem in error.problems) from None
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise InputError(f"{path} holds no score histograms, or is damaged ({error}); write it again") from None


def merged(histograms: Iterable[ScoreHistograms]) -> ScoreHistograms:
    """Histograms of the samples of all, which may be read one at a time: the sum and one of them are held.

    Raises:
        InputError: none were given; or everything in which any differs from the first, other than what was counted.
    """
    total: ScoreHistograms | None = None
    problems = Problems()
    number = 0
    for each in histograms:
        number += 1  # noqa: SIM113
        if total is None:
            squares = None if each.squares is None else each.squares.copy()
            total = dataclasses.replace(each, counts=each.counts.copy(), squares=squares, rows=each.rows.copy())
        else:
            differences = total._differences(each, weighted=each.squares is not None)
            problems.add(*(f"shard {number}: {difference}" for difference in differences))
            if not problems:
                total._absorb(each)
        del each  # or it would live on while the next is read, as it does in `enumerate`
    if total is None:
        raise InputError("merging needs score histograms, got none")
    problems.raise_if_any()
    return total


def _counted(bins: NDArray[np.int32], weight: torch.Tensor | None = None) -> tuple[slice, NDArray]:
    """A range of bins that contains (N,) others, and how many of them each is, or the sums of their weights.

    PyTorch counts int32 as they are, which NumPy first turns into int64, and without the interpreter lock.
    """
    low, high = int(bins.min()), int(bins.max()) + 1
    return slice(low, high), torch.bincount(torch.from_numpy(bins - np.int32(low)), weight, high - low).numpy()


def _told(lambdas: Lambdas) -> str:
    """A grid in a few words."""
    values = ", ".join(f"{name} from {np.min(v):g} to {np.max(v):g}" for name, v in lambdas.items() if np.size(v))
    return f"{max(map(np.size, lambdas.values()), default=1)} with {values or 'no names'}"


def _newer(found: object) -> str:
    later = re.fullmatch(rf"{re.escape(FORMAT.partition('/')[0])}/(\d+)", str(found))
    return ", of a later version of tunelater: update it" if later else ""


# ------------------------------------------------------------------------------------------- what order would change


def _positives_first(c: Curve) -> Curve:
    """The curve if all positives of a bin had scores above its negatives'."""
    return dataclasses.replace(c, fp=c.fp_above)


def _positives_last(c: Curve) -> Curve:
    return dataclasses.replace(c, fp_above=c.fp)


def _lowest_average_precision(c: Curve, step: float) -> float:
    """Average precision if in every bin the negatives came first, and positives of different scores after them.

    A bin with weight w of positives, a of them above and f false positives down to its end, then adds the sum over its
    positives of g = x / (x + f) at x = a + their running weight. As g is concave and rising, that is at least the
    integral of g from a + step / 2 to a + step / 2 + w: with equal steps each g stands for the stretch around it, where
    its mean is no higher; with weights (step 0) for the stretch before it.
    """
    a = c.tp_above + step / 2
    below = a + c.fp
    lost = np.zeros(len(c.fp))
    some = (c.weight > 0) & (c.fp > 0)
    start = np.where(some, below, 1.0)
    lost[some] = (c.fp * np.log1p(c.weight / start))[some]
    return float((c.weight - lost).sum() / c.positives)


class _Best(NamedTuple):
    inner: ThresholdMetric
    constraint: Constraint | None

    @classmethod
    def named(cls, name: str) -> _Best:
        """Of `best_f1`, or `precision@recall>=0.9`."""
        inner, _, constraint = name.removeprefix("best_").partition("@")
        return cls(threshold_metric(inner), Constraint.parse(constraint) if constraint else None)


def _best_within(c: Curve, name: str) -> float:
    """The best that any threshold within a bin could reach: each metric of a threshold rises or falls with true
    positives, and with false ones, so that its extremes over a bin are at the bin's ends."""
    inner, constraint = _Best.named(name)
    corners = [dataclasses.replace(c, tp=tp, fp=fp) for tp in (c.tp_above, c.tp) for fp in (c.fp_above, c.fp)]
    values = np.stack([inner.values(corner) for corner in corners])
    best = values.max(axis=0) if inner.higher_is_better else values.min(axis=0)
    if constraint is not None:
        allowed = np.any([constraint.holds(constraint.metric.values(corner)) for corner in corners], axis=0)
        best = best[allowed]
    if not len(best):
        return math.nan
    return float(best.max() if inner.higher_is_better else best.min())
