"""The best threshold of a lambda, exactly, and under many weightings of the same samples at once.

What was chosen on samples flatters them. How much, one learns by choosing again and again under other weights: none for
the samples of a fold (cross-fitting), or as many as a sample was drawn with replacement (bootstrap). So choosing is
done here for R weightings together: scores are sorted once, the weights of samples between two thresholds are summed by
one product for all R, and running sums give the confusion counts at every threshold. Nothing is copied or sorted again.

Shapes: N samples, K thresholds, R weightings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from tunelater.intervals import effective_size
from tunelater.losses import logit
from tunelater.metrics import (
    Constraint,
    Curve,
    Floats,
    Labels,
    Metric,
    Ranking,
    ThresholdMetric,
    argsort,
    sample_scores,
)
from tunelater.needs import Need, SampleCosts, groups_of, needs_negatives, needs_positives
from tunelater.scoring import Scores

MOST_THRESHOLDS = 1000
"""Tried under further weightings where every score is a threshold: evenly spaced ones of them."""
AT_ONCE = 128
"""Weightings that thresholds are judged under at a time: what they need stays in the processor's cache."""
FAR = 1e30
Sums = NDArray[np.floating]
"""Sums of weights, in the precision of the weights."""


class Cells(NamedTuple):
    """What is alerted on at each threshold, from nobody to everybody: (K, R) sums of weights."""

    tp: Sums
    fp: Sums
    groups: Sequence[tuple[Sums, Sums]]
    """The same within each subgroup."""
    spared: Sums
    """What alerting on positives saves, and on negatives costs, where costs are of samples."""
    wasted: Sums

    def of(self, part: slice) -> Cells:
        """Some of the weightings."""
        tp, fp, groups, spared, wasted = self
        return Cells(tp[:, part], fp[:, part], [(t[:, part], f[:, part]) for t, f in groups],
                     spared[:, part], wasted[:, part])  # fmt: skip

    def at(self, k: NDArray[np.intp]) -> Cells:
        """(1, R) at one threshold of each weighting."""
        j = np.arange(self.tp.shape[1])

        def one(values: Sums) -> Sums:
            return values[k, j][None]

        groups = [(one(t), one(f)) for t, f in self.groups]
        return Cells(one(self.tp), one(self.fp), groups, one(self.spared), one(self.wasted))


@dataclass(frozen=True, eq=False)
class Weighting:
    """R weightings of N samples, and what they sum up to."""

    values: NDArray[np.floating]
    """(N, R), C-contiguous."""
    positives: Floats
    """(R,) total weights."""
    negatives: Floats
    groups: Sequence[tuple[Floats, Floats]]
    missed: tuple[Floats, Floats]
    """(R,) what positives cost where nobody is alerted on, and negatives, where costs are of samples."""
    most: tuple[Floats, Floats]
    """(R,) what alerting on everybody spares and wastes of that."""
    sizes: tuple[float, float]
    """Kish's effective numbers of positives and negatives."""
    rounding: float

    def of(self, part: slice) -> Weighting:
        """Some of them."""
        return dataclasses.replace(
            self,
            values=self.values[:, part],
            positives=self.positives[part],
            negatives=self.negatives[part],
            groups=[(p[part], n[part]) for p, n in self.groups],
            missed=(self.missed[0][part], self.missed[1][part]),
            most=(self.most[0][part], self.most[1][part]),
        )


@dataclass(frozen=True, eq=False)
class Choices:
    """The best threshold of one lambda under R weightings; of several lambdas, (L, R)."""

    allowed: NDArray[np.bool_]
    """Whether a threshold meets the constraints; where none does, the one that misses them least was taken."""
    merit: Floats
    """The objective, more is better; where no threshold is allowed, by how much constraints are missed, negative."""
    lowest: Floats
    """The lowest log-odds alerted on, at the scores' prior."""
    recall: Floats
    error: Floats
    """The standard error of the merit; 0 for metrics of a whole lambda."""

    @classmethod
    def stack(cls, of_lambdas: Sequence[Choices]) -> Choices:
        return cls(*(np.stack([getattr(c, f.name) for c in of_lambdas]) for f in dataclasses.fields(cls)))


@dataclass(frozen=True, eq=False)
class Task:
    """A need, and the labelled samples that it is to be met on."""

    need: Need
    labels: Labels
    weight: Floats
    prior: float
    """That the scores' log-odds are for."""
    deployment_prior: float
    groups: Sequence[tuple[Constraint, NDArray[np.bool_]]]
    costs: SampleCosts | None

    @classmethod
    def of(cls, need: Need, scores: Scores) -> Task:
        weight = np.ones(len(scores.target)) if scores.weight is None else scores.weight
        groups = [
            (c, rows)
            for c in need.constraints
            if c.every is not None
            for rows in groups_of(scores.columns[c.every]).values()
        ]
        costs = need.cost.of_samples(scores.columns, scores.target) if need.cost and need.sample_costs else None
        share = float(weight[scores.target == 1].sum() / weight.sum())
        at = need.point_prior if need.point_prior is not None else share
        return cls(need, Labels.of(scores.target), weight, scores.prior, at, groups, costs)

    @property
    def half(self) -> float:
        """The log-odds at the scores' prior at which the probability at the deployment prior is 0.5."""
        return logit(self.prior) - logit(self.deployment_prior)

    @property
    def every_score(self) -> bool:
        """Whether scores of negatives matter as thresholds: where every constraint is a floor on what should be high or
        a ceiling on what should be low, those of positives are enough."""
        return not all(c.is_demanding for c in self.need.constraints)

    def weighting(self, values: NDArray[np.floating], share_of_samples: float = 1.0) -> Weighting:
        """Sums of (N, R) weightings.

        Args:
            share_of_samples: of the samples, that each weighting gives weight to.
        """
        positive = self.labels.sign < 0

        def total(rows: NDArray[np.bool_], factor: Floats | None = None) -> Floats:
            index = np.flatnonzero(rows)
            one = np.ones(len(index)) if factor is None else factor[index]
            return one.astype(values.dtype) @ values[index]

        groups = [(total(positive & rows), total(~positive & rows)) for _, rows in self.groups]
        missed = most = (np.zeros(values.shape[1]), np.zeros(values.shape[1]))
        if self.costs is not None:
            passed, saved = self.costs.passed, np.abs(self.costs.passed - self.costs.alerted)
            missed = total(positive, passed), total(~positive, passed)
            most = total(positive, saved), total(~positive, saved)
        kish = [effective_size(self.weight[rows]) * share_of_samples for rows in (positive, ~positive)]
        rounding = 1e-12 if values.dtype == np.float64 else 1e-6
        return Weighting(values, total(positive), total(~positive), groups, missed, most, (kish[0], kish[1]), rounding)

    def choose(self, row: NDArray[np.floating], weightings: Sequence[Weighting]) -> list[Choices]:
        """The best threshold of a lambda's (N,) log-odds, under each weighting."""
        ranked = Ranked.of(row, self, exact=True)
        thinned = ranked if len(ranked.thresholds) <= MOST_THRESHOLDS else None
        out = []
        for w in weightings:
            if w.values.shape[1] > 1 and thinned is None and self.every_score:
                thinned = Ranked.of(row, self, exact=False)
            out.append(self._chosen(row, thinned if w.values.shape[1] > 1 and thinned else ranked, w))
        return out

    def _chosen(self, row: NDArray[np.floating], ranked: Ranked, w: Weighting) -> Choices:
        cells = ranked.cells(self, w)
        width = w.values.shape[1]
        parts = [slice(i, min(i + AT_ONCE, width)) for i in range(0, width, AT_ONCE)]
        found = [self._best(ranked.thresholds, cells.of(part), w.of(part)) for part in parts]
        chosen = found[0]
        if len(found) > 1:
            names = [f.name for f in dataclasses.fields(Choices)]
            chosen = Choices(*(np.concatenate([getattr(c, name) for c in found]) for name in names))
        if isinstance(self.need.objective, Metric):
            whole = self.whole(row, self.need.objective, w)
            # Where the metric is not defined (no threshold meets its own constraint), the lambda is no candidate.
            merit = np.where(chosen.allowed, np.where(np.isnan(whole), -np.inf, whole), chosen.merit)
            chosen = dataclasses.replace(chosen, merit=merit)
        return chosen

    def _best(self, thresholds: Floats, cells: Cells, w: Weighting) -> Choices:
        """The best threshold under each of a few weightings: of equals the laxest, which has the higher recall."""
        merits = self._merits(thresholds, cells, w)
        shortfalls = self.shortfalls(cells, w)
        allowed = np.ones(merits.shape, bool)
        for shortfall in shortfalls:
            allowed &= shortfall <= w.rounding
        any_allowed: NDArray[np.bool_] = np.asarray(allowed.any(axis=0))
        merits = np.where(allowed, merits, -np.inf)
        if not any_allowed.all():
            least = sum(np.maximum(s[:, ~any_allowed], 0) for s in shortfalls)
            merits[:, ~any_allowed] = -least
        k = len(merits) - 1 - np.argmax(merits[::-1], axis=0)
        j = np.arange(merits.shape[1])
        at = cells.at(k)
        # Down to a sample without weight (of the fold held out) nothing changes: to stop there would be to know it.
        same = np.argmax((cells.tp >= at.tp) & (cells.fp >= at.fp), axis=0)
        k = np.where(thresholds[k] == self.half, k, same)
        error = self._error(at, w) if isinstance(self.need.objective, ThresholdMetric) else np.zeros(len(j))
        recall = _share(at.tp[0], w.positives)
        return Choices(any_allowed, merits[k, j], thresholds[k], recall, error)

    def _merits(self, thresholds: Floats, cells: Cells, w: Weighting) -> Floats:
        if isinstance(self.need.objective, Metric):
            near = -np.minimum(np.abs(thresholds - self.half), FAR)
            return np.broadcast_to(near[:, None], cells.tp.shape)
        return self.merit(cells, w)

    def merit(self, cells: Cells, w: Weighting) -> Floats:
        """The objective at each threshold, at the worst of the priors; more is better."""
        of_priors = []
        for prior in self.need.priors or (None,):
            if self.costs is not None:
                of_priors.append(-_sample_cost(cells, w, prior))
            else:
                objective = self.need.objective
                assert isinstance(objective, ThresholdMetric)
                values = objective.values(_curve(cells.tp, cells.fp, w.positives, w.negatives, w, prior))
                of_priors.append(values if objective.higher_is_better else -values)
        return of_priors[0] if len(of_priors) == 1 else np.min(of_priors, axis=0)

    def shortfalls(self, cells: Cells, w: Weighting) -> list[Floats]:
        """By how much each constraint is missed at each threshold, at the worst of the priors and in the worst
        subgroup."""
        out = []
        for c in self.need.constraints:
            within = [(w.positives, w.negatives, cells.tp, cells.fp)]
            if c.every is not None:
                mine = [i for i, (other, _) in enumerate(self.groups) if other is c]
                within = [(*w.groups[i], *cells.groups[i]) for i in mine]
            worst: Floats | None = None
            for prior in self.need.priors or (None,):
                for positives, negatives, tp, fp in within:
                    # A weighting may leave a small subgroup without the class that the metric is of, or empty.
                    some = positives + negatives > 0
                    missed = c.shortfall(
                        c.metric.values(_curve(tp, fp, positives, np.where(some, negatives, 1.0), w, prior))
                    )
                    missed = np.where(some, missed, -np.inf)
                    for of_class, concerns in ((positives, needs_positives), (negatives, needs_negatives)):
                        if c.every is not None and concerns(c.metric.name):
                            missed = np.where(of_class > 0, missed, -np.inf)
                    worst = missed if worst is None else np.maximum(worst, missed)
            assert worst is not None
            out.append(worst)
        return out

    def _error(self, at: Cells, w: Weighting) -> Floats:
        """(R,) standard errors of the merit at one threshold of each weighting, from those of both rates.

        Each rate is moved by its own standard error, with half an observation more of either kind, so that it does not
        vanish where no error was seen. Where costs are of samples the rates are shares of what is at stake.
        """
        out = np.zeros(at.tp.shape[1])
        channels = ("tp", "fp") if self.costs is None else ("spared", "wasted")
        totals = (w.positives, w.negatives) if self.costs is None else w.most
        for channel, total, size in zip(channels, totals, w.sizes, strict=True):
            rate = (_share(getattr(at, channel)[0], total) * size + 0.5) / (size + 1)
            step = np.sqrt(rate * (1 - rate) / (size + 1))
            either = [
                self.merit(at._replace(**{channel: (np.clip(rate + sign * step, 0, 1) * total)[None]}), w)[0]
                for sign in (1, -1)
            ]
            out += ((either[0] - either[1]) / 2) ** 2
        return np.sqrt(out)

    def whole(self, row: NDArray[np.floating], objective: Metric, w: Weighting) -> Floats:
        """(R,) a metric of the whole lambda, more is better, at the worst of the priors."""
        sign = 1 if objective.higher_is_better else -1
        priors = self.need.priors or (None,)
        if objective.of_curve is not None:
            curve = Ranking(row, self.labels).curve(w.values.T.astype(np.float64))
            curves = [curve if prior is None else curve.at_prior(prior) for prior in priors]
            return np.min([sign * objective.of_curve(c)[:, 0] for c in curves], axis=0)
        log_odds = row.astype(np.float64) - self.half
        loss = sample_scores(log_odds, self.labels.sign)[objective.proper].numpy()
        positive, negative = (
            loss[rows].astype(w.values.dtype) @ w.values[rows] for rows in (self.labels.positive, self.labels.negative)
        )
        values = [
            (positive + negative) / (w.positives + w.negatives)
            if prior is None
            else prior * positive / w.positives + (1 - prior) * negative / w.negatives
            for prior in priors
        ]
        return sign * np.max(values, axis=0)


@dataclass(frozen=True, eq=False)
class Ranked:
    """One lambda's samples in the order of their scores, cut by thresholds."""

    thresholds: Floats
    """(K,) the lowest log-odds alerted on, from nobody (infinity) to everybody."""
    order: NDArray[np.intp]
    """(N,) samples from the highest score down."""
    ends: NDArray[np.intp]
    """(K,) how many of these are alerted on."""

    @classmethod
    def of(cls, row: NDArray[np.floating], task: Task, *, exact: bool) -> Ranked:
        ascending = argsort(row)
        ordered = row[ascending]
        values = ordered if task.every_score else row[task.labels.positive]
        at = np.unique(np.append(values, ordered[0]).astype(np.float64))
        if not exact and len(at) > MOST_THRESHOLDS:
            at = at[np.unique(np.linspace(0, len(at) - 1, MOST_THRESHOLDS).astype(int))]
        if isinstance(task.need.objective, Metric):
            at = np.unique(np.append(at, task.half))
        ends = len(row) - np.searchsorted(ordered, at, "left")
        return cls(np.append(np.inf, at[::-1]), ascending[::-1], np.append(0, ends[::-1]))

    def cells(self, task: Task, w: Weighting) -> Cells:
        positive = task.labels.sign < 0
        nothing = np.zeros((len(self.ends), w.values.shape[1]))
        spared: Sums = nothing
        wasted: Sums = nothing
        if task.costs is not None:
            saved = np.abs(task.costs.passed - task.costs.alerted)
            spared, wasted = (
                self._sums(rows, w, total, saved) for rows, total in ((positive, w.most[0]), (~positive, w.most[1]))
            )
        groups = [
            (self._sums(positive & rows, w, totals[0]), self._sums(~positive & rows, w, totals[1]))
            for (_, rows), totals in zip(task.groups, w.groups, strict=True)
        ]
        return Cells(
            self._sums(positive, w, w.positives), self._sums(~positive, w, w.negatives), groups, spared, wasted
        )

    def _sums(self, rows: NDArray[np.bool_], w: Weighting, total: Floats, factor: Floats | None = None) -> Sums:
        """(K, R) sums of the weights (times a factor) of those rows that are alerted on at each threshold.

        Summed from the top, so that where none is alerted on the sum is exactly 0; at everybody it is the total.
        """
        member = rows[self.order]
        index = self.order[member]
        ends = np.append(0, np.cumsum(member))[self.ends]
        if w.values.shape[1] == 1:
            values = w.values[index, 0] if factor is None else w.values[index, 0] * factor[index]
            out = np.append(0.0, np.cumsum(values))[ends][:, None]
        else:
            out = np.zeros((len(ends), w.values.shape[1]), w.values.dtype)
            if ends[-2] > 0:  # nobody's sum is 0 and everybody's the total: most negatives are never touched
                taken = torch.from_numpy(np.ascontiguousarray(index[: ends[-2]]))
                each = None if factor is None else torch.from_numpy(factor[index[: ends[-2]]].astype(w.values.dtype))
                table, starts = torch.from_numpy(w.values), torch.from_numpy(ends[:-2].copy())
                by_slot = F.embedding_bag(taken, table, starts, mode="sum", per_sample_weights=each)
                np.cumsum(by_slot.numpy(), axis=0, out=out[1:-1])
        out[ends == ends[-1]] = total  # also below the last that has any weight, to the last bit
        return out


def _share(of: Sums, total: Floats) -> Floats:
    return np.divide(of, total, out=np.zeros(np.broadcast_shapes(np.shape(of), np.shape(total))), where=total > 0)


def _curve(tp: Any, fp: Any, positives: Any, negatives: Any, w: Weighting, prior: float | None) -> Curve:
    """Counts as they are, or as shares of a population in which a share `prior` is positive; those of a subgroup as
    shares of the whole population, which moves its own share of positives as it moves that of all."""
    if prior is not None:
        tp, positives = _share(tp, w.positives) * prior, _share(positives, w.positives) * prior
        fp, negatives = _share(fp, w.negatives) * (1 - prior), _share(negatives, w.negatives) * (1 - prior)
    return Curve(tp, tp, fp, tp, fp, tp, positives, negatives)


def _sample_cost(cells: Cells, w: Weighting, prior: float | None) -> Floats:
    """The cost of a case at each threshold: that of alerting on nobody, less what is spared, plus what is wasted."""
    of_positives, of_negatives = w.missed[0] - cells.spared, w.missed[1] + cells.wasted
    if prior is None:
        return (of_positives + of_negatives) / (w.positives + w.negatives)
    return prior * of_positives / w.positives + (1 - prior) * of_negatives / w.negatives


def pick(choices: Choices, distance: Floats | None) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(R,) the lambdas to take of (L, R) choices, and the best ones: of equals the one with the higher recall, then the
    first.

    Args:
        distance: (L,) from the default lambda, to take the nearest of those within one standard error of the best
            (Breiman et al. 1984); None takes the best.
    """
    some = choices.allowed.any(axis=0)
    merit = np.where(choices.allowed | ~some, choices.merit, -np.inf)
    top = merit.max(axis=0)
    best = np.argmax(np.where(merit == top, choices.recall, -1.0), axis=0)
    if distance is None:
        return best, best
    j = np.arange(len(top))
    reach = np.where(some & np.isfinite(top), choices.error[best, j], 0.0)
    near = (merit >= top - reach) & np.isfinite(merit)
    nearest = np.argmin(np.where(near, distance[:, None], np.inf), axis=0)
    return np.where(some & (reach > 0), nearest, best), best
