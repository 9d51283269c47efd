"""Curves without cases: what a page may show of labelled scores, and choosing on it.

A report is passed on to people who may not see the data. So it is made of counts: for each lambda, how many positives
and negatives lie between thresholds, and between any two thresholds lie several cases (`SMALLEST`), as in official
statistics. A threshold is a place halfway down to the next score, on a grid that is the same for all data
(`histograms.Bins`); and what stands for the scores between two thresholds is their mean, on the same grid. Counts of
subgroups are coarser: between two of their thresholds lie several cases of a subgroup, or none.

Weights are cells of the data too. So cases of similar weight share their mean (`shared_weights`), and sums of weights
are told in coarse parts. Histograms that were counted elsewhere, case by case weighted, get thresholds between which
several cases of either class lie, and sums as whole cases of mean weight.

Metrics of a whole lambda depend on the order within bins too. They are computed on the scores, and told in four digits
(`whole_figures`).

Shapes: L lambdas, K bins of a lambda (thresholds between them), G subgroups.
"""

from __future__ import annotations

import base64
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelater.distributions import Lambda, Lambdas
from tunelater.histograms import Bins, ScoreHistograms
from tunelater.losses import logit
from tunelater.metrics import Floats, evaluate
from tunelater.needs import MISSING, text_of
from tunelater.problems import InputError, Problems
from tunelater.scoring import Scores
from tunelater.tuning import BEYOND, distances

SMALLEST = 5
"""Cases that lie between two thresholds at the least, unless another number is asked for."""
FEWEST = 3
"""That can be asked for, and of either class in whatever is told apart: of two cases each would know the other."""
MOST_BINS = 256
"""Of a lambda: finer steps are not to be seen in a picture, and not to be told apart on a few hundred positives."""
BITS = 8
"""Thresholds are multiples of 2^-8 in log-odds: 0.4% of the odds."""
SMALLEST_SUBGROUP = 50
"""Cases of a value of a column at the least; rarer values are joined, and those with too few of either class."""
SUBGROUP_COUNTS = 512
"""Of a lambda, at most: of many subgroups there are fewer bins, so that a page stays small."""
MOST_SUBGROUPS = 12
"""Of a column, with what is joined."""
OTHERS = "other values"
PARTS = 16
"""Where cases have weights, sums of these are told in so many parts of the mean weight of the class."""
WHOLE = ("auc", "average_precision", "brier", "log_loss")
"""Metrics of a whole lambda."""
DIGITS = 4
"""That these are told in: one more than is shown, so that a map of them has even steps."""
RATIO = 1000
"""Units of the class with the lighter parts: as fine as the ratio of both classes' parts is told."""
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LambdaBins:
    """One lambda's counts, from high scores to low: (K,) each."""

    edges: Ints
    """The place on `Bins.edges` from which scores are in the bin; the last is 0, everybody."""
    middles: Ints
    """The place on `Bins.centres` of the mean score of the bin."""
    positives: Ints
    """Cases, or parts of weight: see `BinnedGrid.units`."""
    negatives: Ints

    def __len__(self) -> int:
        return len(self.edges)


@dataclass(frozen=True, eq=False)
class Subgroups:
    """Counts within each value of a column."""

    column: str
    values: tuple[str, ...]
    """What they are called; the last may be `OTHERS`, which rare and missing values are joined in."""
    rows: tuple[tuple[int, int], ...]
    """(G,) cases of each, negative and positive."""
    ends: Sequence[Ints]
    """Of each lambda: the bins, by number, at whose lower edges the subgroups are cut. They are fewer than the bins."""
    counts: Sequence[Ints]
    """Of each lambda: (K', 2, G) cases or parts of weight, negatives first."""
    joined: int = 0
    """How many values are told as `OTHERS`."""


@dataclass(frozen=True, eq=False)
class BinnedGrid:
    """Every (lambda, threshold) that a page lets its readers choose from.

    `BinnedGrid.of` makes one of score histograms.
    """

    lambdas: Lambdas
    """(L,) arrays by name."""
    bins: Bins
    of_lambdas: Sequence[LambdaBins]
    prior: float
    """The share of positives that log-odds are for."""
    rows: tuple[int, int]
    """Cases, negative and positive."""
    sizes: tuple[float, float, float]
    """Kish's effective numbers of negatives, positives and all cases."""
    units: tuple[int, int]
    """What one of a count of negatives weighs, and one of positives, in the same unit; 1 without weights."""
    default: int
    """The lambda nearest to the model's default."""
    distance: Floats
    """(L,) from it, in units of each hyperparameter's range."""
    smallest: int = SMALLEST
    split: str = "validation"
    model: str = ""
    extrapolated: NDArray[np.bool_] | None = None
    subgroups: tuple[Subgroups, ...] = ()
    whole: Mapping[str, Floats] | None = None
    """(L,) metrics of whole lambdas by name, at the cases' own share of positives; None where scores were counted
    elsewhere."""

    def __len__(self) -> int:
        return len(self.of_lambdas)

    @classmethod
    def of_scores(
        cls,
        scores: Scores,
        *,
        default: Lambda | None = None,
        smallest: int = SMALLEST,
        columns: Mapping[str, JoinedValues] | None = None,
    ) -> BinnedGrid:
        """From the scores of labelled samples.

        Args:
            scores: of all cases; with weights, these are shared (`shared_weights`) before anything is counted.
            default, smallest: as for `of`.
            columns: within whose values the cases are counted, too.

        Raises:
            InputError: as `of`.
        """
        if scores.weight is not None:
            scores = dataclasses.replace(scores, weight=shared_weights(scores.target, scores.weight, smallest))
        bins = Bins(BITS)
        within = {
            name: {
                str(value): ScoreHistograms.of(scores.take(np.flatnonzero(column.values == value)), bins)
                for value in np.unique(column.values)
            }
            for name, column in (columns or {}).items()
        }
        grid = cls.of(
            ScoreHistograms.of(scores, bins), default=default, smallest=smallest, within=within, weights_shared=True
        )
        told = zip(grid.subgroups, (columns or {}).values(), strict=True)
        subgroups = tuple(dataclasses.replace(s, joined=column.joined) for s, column in told)
        return dataclasses.replace(grid, subgroups=subgroups, whole=whole_figures(scores))

    @classmethod
    def of(
        cls,
        histograms: ScoreHistograms,
        *,
        default: Lambda | None = None,
        smallest: int = SMALLEST,
        within: Mapping[str, Mapping[str, ScoreHistograms]] | None = None,
        weights_shared: bool = False,
    ) -> BinnedGrid:
        """From score histograms.

        Args:
            histograms: of all cases.
            default: the model's default lambda; None takes the middle of those there are.
            smallest: cases that lie between two thresholds at the least, a whole number from `FEWEST` up.
            within: histograms of the cases with each value of a column, by column, that together are all cases:
                see `joined_values`.
            weights_shared: whether each weight is that of several cases (`shared_weights`), so that sums may be told
                at all thresholds. Otherwise several cases of either class lie between two thresholds.

        Raises:
            InputError: fewer cases than two bins take, or too few of a class; a number of cases that is none.
        """
        problems = Problems()
        problems.add(*problems_of_smallest(smallest))
        negatives, positives = (int(n) for n in histograms.rows)
        if not problems:
            counted = f"curves with {smallest} cases between two thresholds need"
            fewer = ", or ask for fewer (--smallest)" if smallest > FEWEST else ""
            found = ((negatives, FEWEST, "negative", ""), (positives, FEWEST, "positive", ""),
                     (negatives + positives, 2 * smallest, "in all", fewer))  # fmt: skip
            for n, least, which, instead in found:
                problems.check(n >= least, f"{counted} {least} {which}, got {n}: give more cases{instead}")
        problems.raise_if_any()
        histograms = _coarse(histograms)
        empty = [i for i, counts in enumerate(histograms.counts) if not (counts.sum(axis=1) > 0).all()]
        if empty:
            raise InputError(f"curves need weight in both classes, got none at {len(empty)} lambdas")
        weighted = histograms.squares is not None
        parts = _parts(histograms, PARTS if weights_shared else 1)
        counting = _Counting(smallest, weighted and not weights_shared, parts)
        of_lambdas = [counting.bins(histograms, i) for i in range(len(histograms))]
        distance, nearest = distances(histograms.lambdas, len(histograms), default)
        return cls(
            lambdas=histograms.lambdas,
            bins=histograms.bins,
            of_lambdas=of_lambdas,
            prior=histograms.prior,
            rows=(negatives, positives),
            sizes=_sizes(histograms),
            units=(1, 1) if not weighted else _ratio(parts),
            default=nearest,
            distance=distance,
            smallest=smallest,
            split=histograms.split,
            model=histograms.model,
            extrapolated=histograms.extrapolated,
            subgroups=tuple(
                counting.subgroups(column, {value: _coarse(h) for value, h in groups.items()}, of_lambdas)
                for column, groups in (within or {}).items()
            ),
        )

    def edge_near(self, index: int, log_odds: float) -> int:
        """The bin of a lambda, by number, at whose lower edge lies the threshold nearest to these log-odds, at the
        prior of the scores. Alerting on nobody (-1) or everybody is near to no other threshold."""
        one = self.of_lambdas[index]
        if abs(log_odds) >= BEYOND / 2:
            return -1 if log_odds > 0 else len(one) - 1
        edges = self.bins.edges[one.edges[:-1]]
        return int(np.argmin(np.abs(edges - log_odds))) if len(edges) else 0

    # ------------------------------------------------------------------------------------------- on paper

    def to_dict(self) -> dict[str, Any]:
        """In JSON types, for the page: whole numbers are packed (`packed`), lambda after lambda."""
        raw: dict[str, Any] = {
            "lambdas": {name: np.asarray(v, np.float64).tolist() for name, v in self.lambdas.items()},
            "bits": self.bins.bits,
            "prior": self.prior,
            "rows": list(self.rows),
            "sizes": list(self.sizes),
            "units": list(self.units),
            "default": self.default,
            "distance": self.distance.tolist(),
            "smallest": self.smallest,
            "smallest_subgroup": [SMALLEST_SUBGROUP, least_of_class(self.smallest)],
            "split": self.split,
            "model": self.model,
            "extrapolated": [] if self.extrapolated is None else np.flatnonzero(self.extrapolated).tolist(),
            "bins": [len(one) for one in self.of_lambdas],
            "whole": None if self.whole is None else {name: v.tolist() for name, v in self.whole.items()},
        }
        # From high to low edges fall, and a mean lies at or above its bin's edge: differences are small and positive.
        raw["edges"] = packed(np.concatenate([-np.diff(one.edges, prepend=len(self.bins)) for one in self.of_lambdas]))
        raw["middles"] = packed(np.concatenate([one.middles - one.edges for one in self.of_lambdas]))
        for name in ("positives", "negatives"):
            raw[name] = packed(np.concatenate([getattr(one, name) for one in self.of_lambdas]))
        raw["subgroups"] = [
            {
                "column": s.column,
                "called": s.column,
                "values": list(s.values),
                "rows": [list(n) for n in s.rows],
                "joined": s.joined,
                "bins": [len(ends) for ends in s.ends],
                "ends": packed(np.concatenate([np.diff(ends, prepend=-1) for ends in s.ends])),
                "counts": packed(np.concatenate([counts.ravel() for counts in s.counts])),
            }
            for s in self.subgroups
        ]
        return raw


def whole_figures(scores: Scores) -> dict[str, Floats]:
    """(L,) each of `WHOLE`, to `DIGITS` digits, of the probabilities at the samples' own share of positives."""
    weight = np.ones(len(scores.target)) if scores.weight is None else scores.weight
    share = float(weight[scores.target == 1].sum() / weight.sum())
    shift = logit(share) - logit(scores.prior)
    found = [evaluate(row.astype(np.float64) + shift, scores.target, scores.weight, WHOLE) for row in scores.log_odds]
    return {name: np.array([float(f"{of[name][0]:.{DIGITS}g}") for of in found]) for name in WHOLE}


def problems_of_smallest(smallest: object) -> list[str]:
    """What keeps this from being the least number of cases between two thresholds."""
    if isinstance(smallest, int) and not isinstance(smallest, bool) and smallest >= FEWEST:
        return []
    rule = f"the cases between two thresholds (--smallest) are a whole number from {FEWEST} up, so that none is alone"
    return [f"{rule}, got {smallest!r}"]


def joined(parts: Sequence[BinnedGrid], default: Lambda | None = None) -> BinnedGrid:
    """One grid of those of the same cases at different lambdas.

    Args:
        default: the model's default lambda; None takes the middle of those there are.
    """
    first = parts[0]
    lambdas = {name: np.concatenate([part.lambdas[name] for part in parts]) for name in first.lambdas}
    size = sum(map(len, parts))
    distance, nearest = distances(lambdas, size, default)
    known = [part.extrapolated for part in parts if part.extrapolated is not None]
    whole = [part.whole for part in parts if part.whole is not None]
    return dataclasses.replace(
        first,
        lambdas=lambdas,
        of_lambdas=[one for part in parts for one in part.of_lambdas],
        default=nearest,
        distance=distance,
        extrapolated=np.concatenate(known) if len(known) == len(parts) else None,
        whole={name: np.concatenate([of[name] for of in whole]) for name in WHOLE}
        if len(whole) == len(parts)
        else None,
        subgroups=tuple(
            dataclasses.replace(
                of[0],
                ends=[ends for each in of for ends in each.ends],
                counts=[counts for each in of for counts in each.counts],
            )
            for of in zip(*(part.subgroups for part in parts), strict=True)
        ),
    )


def least_of_class(smallest: int) -> int:
    """Cases of either class that a value told apart has: `FEWEST`, and more in proportion where more than `SMALLEST`
    are to lie between two thresholds."""
    return max(FEWEST, FEWEST * smallest // SMALLEST)


@dataclass(frozen=True, eq=False)
class JoinedValues:
    """A column's values, none of which is rare."""

    values: NDArray[np.str_]
    """(N,) as text."""
    joined: int
    """How many values were joined; 0 where all are told apart."""


def joined_values(
    values: NDArray, target: NDArray, *, smallest: int = SMALLEST, smallest_group: int = SMALLEST_SUBGROUP
) -> JoinedValues:
    """The values of a column as text, with rare and missing ones joined to `OTHERS`.

    What is joined is not rare itself, if need be with the rarest values that would have been shown, after the largest
    of which it is then called: else its counts would follow from those of all cases and of the values shown.

    Args:
        values: (N,) of any type.
        target: (N,) 0 or 1.
        smallest: cases between two thresholds at the least, which say how many of either class a value has at the
            least: `least_of_class`.
        smallest_group: cases of a value, of both classes, at the least.
    """
    fewest = least_of_class(smallest)
    names = text_of(values)
    shown, place = np.unique(names, return_inverse=True)
    by_class = [np.bincount(place[target == y], minlength=len(shown)) for y in (0, 1)]
    least = np.minimum(*by_class)
    n = by_class[0] + by_class[1]
    # From the rarest, by what there is least of in proportion to what is needed.
    share = np.minimum(least / fewest, n / smallest_group)
    is_rare = (share < 1) | (shown == MISSING)
    rest = [i for i in np.argsort(share, kind="stable") if not is_rare[i]]

    def short() -> bool:
        totals = [counts[is_rare].sum() for counts in by_class]
        return bool(is_rare.any() and (min(totals) < fewest or sum(totals) < smallest_group))

    called = OTHERS
    while rest and (len(rest) + bool(is_rare.any()) > MOST_SUBGROUPS or short()):
        is_rare[rest[0]] = True
        called = f"{shown[rest.pop(0)]} or {OTHERS}"
    told = np.where(is_rare, called, shown).astype(str)
    return JoinedValues(told[place], int(is_rare.sum()))


def shared_weights(target: NDArray, weight: NDArray, smallest: int = SMALLEST) -> Floats:
    """(N,) weights of which each is had by several cases: the mean of theirs.

    Within a class, cases are grouped from the greatest weight down, until a group has an effective number (Kish) of
    `smallest`; equal weights stay together. This is microaggregation (Domingo-Ferrer and Mateo-Sanz 2002): sums of a
    class stay as they are, and nothing that is computed from the result tells one weight of a group from another.

    Args:
        target: (N,) 0 or 1.
        weight: (N,) of 0 or more. Cases without weight stay without.
        smallest: cases of a group at the least.
    """
    out = np.array(weight, np.float64)
    for y in (0, 1):
        rows = np.flatnonzero((target == y) & (out > 0))
        rows = rows[np.argsort(-out[rows], kind="stable")]
        values = out[rows]
        for start, end in _stretches(values, smallest):
            out[rows[start:end]] = values[start:end].mean()
    return out


def _stretches(values: Floats, smallest: int) -> list[tuple[int, int]]:
    """Of (N,) falling weights: stretches with an effective number of cases of `smallest`, that part no equal ones. What
    is left at the end joins the last."""
    # Equal weights as one, so that each step is a place where a stretch may end.
    falling, n = np.unique(-values, return_counts=True)
    stops, total, squares = [0], 0.0, 0.0
    for weight, many, stop in zip((-falling).tolist(), n.tolist(), np.cumsum(n).tolist(), strict=True):
        total, squares = total + many * weight, squares + many * weight * weight
        if total * total >= (smallest - 1e-9) * squares:
            stops.append(stop)
            total, squares = 0.0, 0.0
    if stops[-1] < len(values):
        stops = [*(stops[:-1] or [0]), len(values)]
    return list(itertools.pairwise(stops))


def _coarse(histograms: ScoreHistograms) -> ScoreHistograms:
    """In bins of 2^-`BITS`, each of which is made of whole finer ones."""
    if (finer := histograms.bins.bits - BITS) <= 0:
        return histograms

    def summed(counts: NDArray) -> NDArray:
        return counts.reshape(*counts.shape[:-1], -1, 2**finer).sum(axis=-1)

    squares = None if histograms.squares is None else summed(histograms.squares)
    return dataclasses.replace(histograms, counts=summed(histograms.counts), squares=squares, bins=Bins(BITS))


def _sizes(histograms: ScoreHistograms) -> tuple[float, float, float]:
    """Effective numbers; those of weights are rounded to three digits, as more would say something of single ones."""
    if histograms.squares is None:
        negatives, positives = (float(n) for n in histograms.rows)
        return negatives, positives, negatives + positives
    counts, squares = histograms.counts[0].sum(axis=1), histograms.squares[0].sum(axis=1)
    sizes = np.append(counts, counts.sum()) ** 2 / np.append(squares, squares.sum())
    negatives, positives, both = (float(f"{size:.3g}") for size in sizes)
    return negatives, positives, both


def _parts(histograms: ScoreHistograms, parts: int) -> tuple[float, float]:
    """The weight that sums are told in multiples of, of negatives and of positives: so many parts of the mean."""
    if histograms.squares is None:
        return 1.0, 1.0
    means = histograms.counts[0].sum(axis=1) / np.maximum(histograms.rows, 1)
    negatives, positives = (float(f"{mean / parts:.6g}") for mean in means)
    return negatives, positives


def _ratio(parts: tuple[float, float]) -> tuple[int, int]:
    """The same in whole numbers, so that sums of both classes are exact."""
    negatives, positives = (round(RATIO * part / min(parts)) for part in parts)
    return negatives, positives


def _least_cases(histograms: ScoreHistograms, index: int, *, apart: bool) -> list[Floats]:
    """(B,) of each bin so many cases at the least, of each class if these are to be kept apart: Kish's effective number
    is never above their number."""
    counts = histograms.counts[index].astype(np.float64)
    squares = counts if histograms.squares is None else histograms.squares[index]
    out = []
    for of, of_squares in zip(counts, squares, strict=True) if apart else [(counts.sum(axis=0), squares.sum(axis=0))]:
        out.append(np.divide(of**2, of_squares, out=np.zeros_like(of), where=of_squares > 0))
    return out


@dataclass(frozen=True)
class _Counting:
    """How cases are counted between thresholds."""

    smallest: int
    classes_apart: bool
    """Whether that many cases of either class lie between two thresholds."""
    parts: tuple[float, float]
    """The weight that sums of negatives and positives are told in multiples of."""

    def bins(self, histograms: ScoreHistograms, index: int) -> LambdaBins:
        """A lambda's fine bins, joined from the top down until each holds enough cases and a share of both classes."""
        n, p = histograms.counts[index]
        places = np.flatnonzero((n > 0) | (p > 0))[::-1]
        n, p = n[places], p[places]
        cases = [of[places] for of in _least_cases(histograms, index, apart=self.classes_apart)]
        share = (n / n.sum() + p / p.sum()) / 2
        ends = _ends(cases, share, self.smallest, MOST_BINS)
        starts = np.append(0, ends[:-1] + 1)
        # Halfway down to the next score: no case is at a threshold, or just above it.
        below = np.append(places[1:], 0)[ends]
        edges = (places[ends] + below + 1) // 2
        edges[-1] = 0
        middles = np.rint(np.add.reduceat(places * (n + p), starts) / np.add.reduceat(n + p, starts)).astype(np.int64)
        negatives, positives = (self._told(np.add.reduceat(of, starts), y) for y, of in enumerate((n, p)))
        return LambdaBins(edges.astype(np.int64), middles, positives, negatives)

    def subgroups(
        self, column: str, groups: Mapping[str, ScoreHistograms], of_lambdas: Sequence[LambdaBins]
    ) -> Subgroups:
        """Counts of subgroups in bins that are joined from those of all cases until each holds several cases of a
        subgroup, or none."""
        all_ends, all_counts = [], []
        for index, one in enumerate(of_lambdas):
            # Ascending and with both ends, as `reduceat` wants them; then from the top down again.
            starts = one.edges[::-1]
            fine = np.stack([np.add.reduceat(g.counts[index], starts, axis=1)[:, ::-1] for g in groups.values()])
            cases = [
                np.add.reduceat(of, starts)[::-1]
                for g in groups.values()
                for of in _least_cases(g, index, apart=self.classes_apart)
            ]
            share = (one.negatives / one.negatives.sum() + one.positives / one.positives.sum()) / 2
            ends = _ends_of_groups(np.stack(cases), share, self.smallest, SUBGROUP_COUNTS // len(groups))
            sums = np.add.reduceat(fine, np.append(0, ends[:-1] + 1), axis=2)
            all_ends.append(ends)
            all_counts.append(
                np.stack([[self._told(of, y) for y, of in enumerate(group)] for group in sums]).transpose(2, 1, 0)
            )
        rows = tuple((int(g.rows[0]), int(g.rows[1])) for g in groups.values())
        return Subgroups(column, tuple(groups), rows, all_ends, all_counts)

    def _told(self, sums: NDArray, y: int) -> Ints:
        """(K,) sums of a class in parts: running sums are rounded, so that what rounding does never adds up."""
        running = np.rint(np.cumsum(sums) / self.parts[y]).astype(np.int64)
        return running - np.append(np.zeros(1, np.int64), running[:-1])


def _ends(cases: Sequence[Floats], share: Floats, smallest: int, most: int) -> Ints:
    """Where to cut (B,) bins in a row: the last of each stretch that holds enough of each kind of cases, and a share of
    1 in `most`. What is left at the end joins the last."""
    sums = [np.cumsum(of) for of in cases] + [np.cumsum(share)]
    least = [smallest - 1e-6] * len(cases) + [1 / most - 1e-12]
    ends: list[int] = []
    while True:
        before = [s[ends[-1]] if ends else 0.0 for s in sums]
        end = max(int(np.searchsorted(s, b + needed)) for s, b, needed in zip(sums, before, least, strict=True))
        if end >= len(share):
            break
        ends.append(end)
    if not ends:
        return np.array([len(share) - 1])
    ends[-1] = len(share) - 1
    return np.array(ends)


def _ends_of_groups(cases: Floats, share: Floats, smallest: int, most: int) -> Ints:
    """Where to cut a row of bins with (G, B) cases of each group: the last of each stretch in which every group has
    enough cases or none, with a share of 1 in `most`. What is left at the end joins the last such stretch."""
    running = np.concatenate([np.zeros((len(cases), 1)), np.cumsum(cases, axis=1)], axis=1)
    shares = np.append(0.0, np.cumsum(share))

    def sound(start: int, end: int) -> bool:
        within = running[:, end] - running[:, start]
        return bool(((within < 1e-6) | (within >= smallest - 1e-6)).all())

    stops, size = [0], len(share)
    for end in range(1, size + 1):
        if shares[end] - shares[stops[-1]] >= 1 / most - 1e-12 and sound(stops[-1], end):
            stops.append(end)
    while len(stops) > 1 and stops[-1] != size and not sound(stops[-1], size):
        stops.pop()
    if stops[-1] != size:
        stops.append(size)
    return np.array(stops[1:]) - 1


def packed(numbers: Ints) -> str:
    """Whole numbers from 0 up as text: seven bits a byte, lowest first, the eighth says that more follow; in base64.

    Raises:
        InputError: a number below 0, or of more than 35 bits.
    """
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < 2**35:
        raise InputError(f"packed numbers lie in [0, 2^35), got {numbers.min()} to {numbers.max()}")
    groups = (numbers[:, None] >> (7 * np.arange(5))) & 127
    more = numbers[:, None] >> (7 * np.arange(1, 6)) > 0
    kept = np.concatenate([np.ones((len(numbers), 1), bool), more[:, :-1]], axis=1)
    return base64.b64encode((groups | (more << 7)).astype(np.uint8)[kept].tobytes()).decode("ascii")
