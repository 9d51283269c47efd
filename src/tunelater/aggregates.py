"""Curves without cases: what a page may show of labelled scores, and choosing on it.

A report is passed on to people who may not see the data. So it is made of counts: for each lambda, how many positives
and negatives lie between thresholds, and between any two thresholds lie several cases (`SMALLEST`), as in official
statistics. A threshold is never a case's score but a place in the gap below one, on a grid that is the same for
all data (`histograms.Bins`); and what stands for the scores between two thresholds is their mean, on the same grid.
Counts of subgroups are coarser, so that several cases of *each* subgroup lie between two of their thresholds.

`BinnedGrid.select` chooses on exactly these numbers, with the search of `tunelater.search`. The page does the same in
the reader's browser, and a test compares the two.

Shapes: L lambdas, K bins of a lambda (thresholds between them), G subgroups.
"""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelater.distributions import Lambda, Lambdas, at
from tunelater.histograms import Bins, ScoreHistograms
from tunelater.losses import logit
from tunelater.metrics import Floats, ThresholdMetric
from tunelater.needs import MISSING, Need, text_of
from tunelater.points import OperatingPoint, sigmoid
from tunelater.problems import InputError, Problems
from tunelater.scoring import Scores
from tunelater.search import Choices, Task, pick
from tunelater.tuning import BEYOND, Infeasible, distances

SMALLEST = 5
"""Cases that lie between two thresholds at the least."""
MOST_BINS = 256
"""Of a lambda: finer steps are not to be seen in a picture, and not to be told apart on a few hundred positives."""
BITS = 8
"""Thresholds are multiples of 2^-8 in log-odds: 0.4% of the odds."""
SMALLEST_SUBGROUP = 50
"""Cases of a value of a column at the least; rarer values are joined."""
SUBGROUP_COUNTS = 512
"""Of a lambda, at most: of many subgroups there are fewer bins, so that a page stays small."""
MOST_SUBGROUPS = 12
"""Of a column, with what is joined."""
OTHERS = "other values"
UNITS = 2**24
"""Where cases have weights, sums of these are told in so many parts of the total."""
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LambdaBins:
    """One lambda's counts, from high scores to low: (K,) each."""

    edges: Ints
    """The place on `Bins.edges` from which scores are in the bin; the last is 0, everybody."""
    middles: Ints
    """The place on `Bins.centres` of the mean score of the bin."""
    positives: Ints
    """In units of weight."""
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
    """Of each lambda: (K', 2, G) in units of weight, negatives first."""


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
    default: int
    """The lambda nearest to the model's default."""
    distance: Floats
    """(L,) from it, in units of each hyperparameter's range."""
    smallest: int = SMALLEST
    split: str = "validation"
    model: str = ""
    extrapolated: NDArray[np.bool_] | None = None
    subgroups: tuple[Subgroups, ...] = ()

    def __len__(self) -> int:
        return len(self.of_lambdas)

    @classmethod
    def of(
        cls,
        histograms: ScoreHistograms,
        *,
        default: Lambda | None = None,
        smallest: int = SMALLEST,
        within: Mapping[str, Mapping[str, ScoreHistograms]] | None = None,
    ) -> BinnedGrid:
        """From score histograms.

        Args:
            histograms: of all cases.
            default: the model's default lambda; None takes the middle of those there are.
            smallest: cases that lie between two thresholds at the least, a whole number from 1 up.
            within: histograms of the cases with each value of a column, by column, that together are all cases:
                see `joined_values`.

        Raises:
            InputError: fewer cases than two bins take, or of one class only; a number of cases that is none.
        """
        problems = Problems()
        problems.add(*problems_of_smallest(smallest))
        negatives, positives = (int(n) for n in histograms.rows)
        if not problems:
            enough = negatives + positives >= 2 * smallest
            rule = f"curves with {smallest} cases between two thresholds need {2 * smallest} cases at the least"
            problems.check(enough, f"{rule}, got {negatives + positives}")
        for n, of in ((negatives, "negatives"), (positives, "positives")):
            problems.check(n > 0, f"curves need cases of both classes, got no {of}")
        problems.raise_if_any()
        unit = 1.0 if histograms.squares is None else float(histograms.counts[0].sum()) / UNITS
        of_lambdas = [_merged(histograms, i, smallest, unit) for i in range(len(histograms))]
        empty = [i for i, one in enumerate(of_lambdas) if not (one.positives.any() and one.negatives.any())]
        if empty:
            raise InputError(f"curves need weight in both classes, got none at {len(empty)} lambdas")
        distance, nearest = distances(histograms.lambdas, len(histograms), default)
        return cls(
            lambdas=histograms.lambdas,
            bins=histograms.bins,
            of_lambdas=of_lambdas,
            prior=histograms.prior,
            rows=(negatives, positives),
            sizes=_sizes(histograms),
            default=nearest,
            distance=distance,
            smallest=smallest,
            split=histograms.split,
            model=histograms.model,
            extrapolated=histograms.extrapolated,
            subgroups=tuple(
                _subgroups(column, groups, of_lambdas, smallest, unit) for column, groups in (within or {}).items()
            ),
        )

    # ------------------------------------------------------------------------------------------- choosing

    def select(self, need: Need, *, simplest: bool = True) -> OperatingPoint:
        """The best point of the grid for a need, by the rules of `OperatingGrid.select`: the exact thresholds of the
        samples are not there to choose from, and figures are left to the page.

        Args:
            need: an objective of a threshold, or costs that are numbers, with constraints among all cases, or within
                the values of one column that the grid has.
            simplest: of the lambdas within one standard error of the best, the nearest to the default.

        Raises:
            InputError: a need that counts cannot answer.
            Infeasible: no lambda and threshold meets the constraints.
        """
        columns = self._columns(need)
        judged = [self._judged(need, i, columns) for i in range(len(self))]
        choices = Choices.stack(judged)
        some = choices.allowed[:, 0] & np.isfinite(choices.merit[:, 0])
        if not some.any():
            raise Infeasible(f"no lambda and threshold of the grid meets {' and '.join(map(str, need.constraints))}")
        (chosen,), (best,) = pick(choices, self.distance if simplest and len(self) > 1 else None)
        lowest = float(choices.lowest[chosen, 0])
        point = self.point(int(chosen), self.bin_of(int(chosen), lowest), need)
        return point if chosen == best else dataclasses.replace(point, simpler_than=at(self.lambdas, int(best)))

    def _columns(self, need: Need) -> str | None:
        """The column within whose values constraints are to hold, if any."""
        problems = Problems()
        problems.check(
            isinstance(need.objective, ThresholdMetric),
            f"a page chooses by metrics of a threshold, got {need.objective.name}: use `tunelater tune`",
        )
        problems.check(not need.sample_costs, "costs of each case are not in a page: use `tunelater tune`")
        known = [s.column for s in self.subgroups]
        for column in need.grouped:
            problems.check(column in known, f"there are no subgroups of {column!r} here, only of {known}")
        problems.check(len(need.grouped) <= 1, f"a page looks within one column at a time, got {list(need.grouped)}")
        problems.raise_if_any()
        return need.grouped[0] if need.grouped else None

    def _judged(self, need: Need, index: int, column: str | None) -> Choices:
        scores = self.scores(index, column)
        task = Task.of(need, scores)
        weighting = task.weighting(task.weight[:, None])
        weighting = dataclasses.replace(weighting, sizes=(self.sizes[1], self.sizes[0]))
        (choices,) = task.choose(scores.log_odds[0], [weighting])
        return choices

    def scores(self, index: int, column: str | None = None) -> Scores:
        """The counts of a lambda as samples: one for each bin and class (and subgroup) that holds any, at the bin's
        mean score, with the count as its weight."""
        one = self.of_lambdas[index]
        if column is None:
            middles, values = one.middles, np.array(["all"])
            counts = np.stack([one.negatives, one.positives], axis=1)[:, :, None]
        else:
            of = next(s for s in self.subgroups if s.column == column)
            middles, counts, values = one.middles[of.ends[index]], of.counts[index], np.array(of.values)
        k, c, g = np.nonzero(counts)
        return Scores(
            log_odds=self.bins.centres[middles[k]][None],
            target=c.astype(np.int8),
            lambdas={name: np.asarray(v)[[index]] for name, v in self.lambdas.items()},
            prior=self.prior,
            weight=counts[k, c, g].astype(np.float64),
            split=self.split,
            model=self.model,
            columns={} if column is None else {column: values[g]},
        )

    def bin_of(self, index: int, lowest: float) -> int:
        """The bin, by number, whose mean score this is; -1 for nobody."""
        if math.isinf(lowest):
            return -1
        centres = self.bins.centres[self.of_lambdas[index].middles]
        return int(np.flatnonzero(centres == np.float32(lowest))[0])

    def point(self, index: int, k: int, need: Need) -> OperatingPoint:
        """The operating point that alerts on a lambda's bins down to number k; -1 is on nobody."""
        one = self.of_lambdas[index]
        positives, negatives = int(one.positives.sum()), int(one.negatives.sum())
        prior = need.point_prior if need.point_prior is not None else positives / (positives + negatives)
        shift = logit(prior) - logit(self.prior)
        if k < 0 or k == len(one) - 1:
            log_odds = BEYOND if k < 0 else -BEYOND
        else:
            log_odds = float(self.bins.edges[one.edges[k]]) + shift
        return OperatingPoint(
            lam=at(self.lambdas, index),
            threshold=sigmoid(log_odds),
            log_odds_threshold=log_odds,
            prior=prior,
            needs=dict(need.in_words),
            split=self.split,
            n=sum(self.rows),
            n_positive=self.rows[1],
            model=self.model,
            extrapolated=bool(self.extrapolated[index]) if self.extrapolated is not None else False,
        )

    # ------------------------------------------------------------------------------------------- on paper

    def to_dict(self) -> dict[str, Any]:
        """In JSON types, for the page: whole numbers are packed (`packed`), lambda after lambda."""
        raw: dict[str, Any] = {
            "lambdas": {name: np.asarray(v, np.float64).tolist() for name, v in self.lambdas.items()},
            "bits": self.bins.bits,
            "prior": self.prior,
            "rows": list(self.rows),
            "sizes": list(self.sizes),
            "default": self.default,
            "distance": self.distance.tolist(),
            "smallest": self.smallest,
            "split": self.split,
            "model": self.model,
            "extrapolated": [] if self.extrapolated is None else np.flatnonzero(self.extrapolated).tolist(),
            "bins": [len(one) for one in self.of_lambdas],
        }
        # From high to low edges fall, and a mean lies at or above its bin's edge: differences are small and positive.
        raw["edges"] = packed(np.concatenate([-np.diff(one.edges, prepend=len(self.bins)) for one in self.of_lambdas]))
        raw["middles"] = packed(np.concatenate([one.middles - one.edges for one in self.of_lambdas]))
        for name in ("positives", "negatives"):
            raw[name] = packed(np.concatenate([getattr(one, name) for one in self.of_lambdas]))
        raw["subgroups"] = [
            {
                "column": s.column,
                "values": list(s.values),
                "rows": [list(n) for n in s.rows],
                "bins": [len(ends) for ends in s.ends],
                "ends": packed(np.concatenate([np.diff(ends, prepend=-1) for ends in s.ends])),
                "counts": packed(np.concatenate([counts.ravel() for counts in s.counts])),
            }
            for s in self.subgroups
        ]
        return raw


def problems_of_smallest(smallest: object) -> list[str]:
    """What keeps this from being the least number of cases between two thresholds."""
    if isinstance(smallest, int) and not isinstance(smallest, bool) and smallest >= 1:
        return []
    return [f"the cases between two thresholds (--smallest) are a whole number from 1 up, got {smallest!r}"]


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
    return dataclasses.replace(
        first,
        lambdas=lambdas,
        of_lambdas=[one for part in parts for one in part.of_lambdas],
        default=nearest,
        distance=distance,
        extrapolated=np.concatenate(known) if len(known) == len(parts) else None,
        subgroups=tuple(
            dataclasses.replace(
                of[0],
                ends=[ends for each in of for ends in each.ends],
                counts=[counts for each in of for counts in each.counts],
            )
            for of in zip(*(part.subgroups for part in parts), strict=True)
        ),
    )


def joined_values(values: NDArray, smallest: int = SMALLEST_SUBGROUP) -> NDArray[np.str_]:
    """(N,) the values of a column as text, with rare and missing ones joined to `OTHERS`.

    What is joined comes to `smallest` cases itself, if need be with the rarest values that would have been shown, after
    the largest of which it is then called: else its counts would follow from those of all cases and of the values
    shown.
    """
    names = text_of(values)
    shown, n = np.unique(names, return_counts=True)
    order = np.argsort(n, kind="stable")
    rare = [str(name) for name, size in zip(shown, n, strict=True) if name == MISSING or size < smallest]
    rest = [str(shown[i]) for i in order if shown[i] not in rare]
    called = OTHERS
    while rest and (len(rest) + bool(rare) > MOST_SUBGROUPS or (rare and np.isin(names, rare).sum() < smallest)):
        rare.append(rest.pop(0))
        called = f"{rare[-1]} or {OTHERS}"
    return np.where(np.isin(names, rare), called, names).astype(str)


def _sizes(histograms: ScoreHistograms) -> tuple[float, float, float]:
    counts = histograms.counts[0].sum(axis=1).astype(np.float64)
    squares = counts if histograms.squares is None else histograms.squares[0].sum(axis=1)
    negatives, positives, both = np.append(counts, counts.sum()) ** 2 / np.append(squares, squares.sum())
    return float(negatives), float(positives), float(both)


def _least_cases(histograms: ScoreHistograms, index: int) -> Floats:
    """(B,) of each bin so many cases at the least: Kish's effective number is never above their number."""
    counts = histograms.counts[index].sum(axis=0).astype(np.float64)
    if histograms.squares is None:
        return counts
    squares = histograms.squares[index].sum(axis=0)
    return np.divide(counts**2, squares, out=np.zeros_like(counts), where=squares > 0)


def _merged(histograms: ScoreHistograms, index: int, smallest: int, unit: float) -> LambdaBins:
    """A lambda's fine bins, joined from the top down until each holds enough cases and a share of both classes."""
    n, p = histograms.counts[index]
    places = np.flatnonzero((n > 0) | (p > 0))[::-1]
    n, p, cases = n[places], p[places], _least_cases(histograms, index)[places]
    share = (n / n.sum() + p / p.sum()) / 2
    ends = _ends([cases], share, smallest, MOST_BINS)
    starts = np.append(0, ends[:-1] + 1)
    # Halfway down to the next score: no case is at a threshold, or just above it.
    below = np.append(places[1:], 0)[ends]
    edges = (places[ends] + below + 1) // 2
    edges[-1] = 0
    middles = np.rint(np.add.reduceat(places * (n + p), starts) / np.add.reduceat(n + p, starts)).astype(np.int64)
    negatives, positives = (np.rint(np.add.reduceat(c, starts) / unit).astype(np.int64) for c in (n, p))
    return LambdaBins(edges.astype(np.int64), middles, positives, negatives)


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


def _subgroups(
    column: str,
    groups: Mapping[str, ScoreHistograms],
    of_lambdas: Sequence[LambdaBins],
    smallest: int,
    unit: float,
) -> Subgroups:
    """Counts of subgroups in bins that are joined from those of all cases until several of each subgroup lie in
    each."""
    all_ends, all_counts = [], []
    for index, one in enumerate(of_lambdas):
        # Ascending and with both ends, as `reduceat` wants them; then from the top down again.
        starts = one.edges[::-1]
        fine = np.stack([np.add.reduceat(g.counts[index], starts, axis=1)[:, ::-1] for g in groups.values()], axis=-1)
        cases = [np.add.reduceat(_least_cases(g, index), starts)[::-1] for g in groups.values()]
        share = (one.negatives / one.negatives.sum() + one.positives / one.positives.sum()) / 2
        ends = _ends(cases, share, smallest, SUBGROUP_COUNTS // len(groups))
        counts = np.add.reduceat(fine, np.append(0, ends[:-1] + 1), axis=1)
        all_ends.append(ends)
        all_counts.append(np.rint(counts.swapaxes(0, 1) / unit).astype(np.int64))
    rows = tuple((int(g.rows[0]), int(g.rows[1])) for g in groups.values())
    return Subgroups(column, tuple(groups), rows, all_ends, all_counts)


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
