"""Choosing on score histograms: an operating point from labelled samples of any number.

`FoldedHistograms` count samples that stream by, in K random parts: the folds, on each of which the choice made on the
others is judged. `HistogramGrid` searches them as `OperatingGrid` searches scores, with the same needs. Memory and the
time of the search do not depend on the number of samples.

What is exact and what is not. Thresholds are edges of bins, and an alert on `log_odds >= edge` is counted exactly, so
that every metric of a threshold is that of the samples; there only are fewer thresholds to choose from, 2^-12 of
log-odds apart by default. Metrics of a whole lambda (AUC, Brier score, ...) are off by what `ScoreHistograms.bounds`
says. A deployment prior, or a range, only weighs the counts anew.

What histograms cannot say, since no sample is left in them: costs that are columns, constraints in every value of a
column, calibration, and the bootstrap. Two lambdas' decisions on the same sample are not known either; they are
compared in pairs fold by fold.

Shapes: L lambdas, K folds, M filled bins, each of one class.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tunelater.assessment import confusion_shares, metrics_told, problems_of_draws, worst
from tunelater.distributions import Lambda, Lambdas, at, keyed_rng
from tunelater.histograms import Bins, ScoreHistograms, merged, read_arrays, write_arrays
from tunelater.honesty import told_difference
from tunelater.intervals import Estimate
from tunelater.losses import logit
from tunelater.metrics import Curve, Floats, Metric, ThresholdMetric, lowest, per_lambda
from tunelater.needs import Cost, Need
from tunelater.points import AgainstDefault, OperatingPoint, sigmoid
from tunelater.problems import InputError, Problems
from tunelater.scoring import Scores
from tunelater.search import Choices, Task, Weighting, pick
from tunelater.tuning import BEYOND, Infeasible, distances, reaches_of, told_reaches, with_error

FORMAT = "tunelater.folded_histograms/1"
FOLDS = 10
COARSEST, FINEST = 8, 12
"""Bits of the bins that are taken where memory is the limit, and where it is not."""
DRAWS = 4000


@dataclass(frozen=True)
class FoldedHistograms:
    """Score histograms of K random parts of the samples.

    Which part a sample is in follows from its position in its stream, so that any division of the stream among
    processes gives the same.
    """

    folds: tuple[ScoreHistograms, ...]

    @classmethod
    def empty(
        cls,
        lambdas: Lambdas,
        prior: float,
        *,
        folds: int = FOLDS,
        memory_mb: int = 1024,
        bins: Bins | None = None,
        **of: Any,
    ) -> FoldedHistograms:
        """Histograms that nothing was counted in yet.

        Args:
            folds: how many parts, 2 or more.
            memory_mb: bound on the counts, MiB. The bins are the finest, of 2^-12 at most, that keep it.
            bins: these instead, whatever their memory.
            of: `weighted`, `split`, `model` and `extrapolated`, as `ScoreHistograms.empty` takes them.

        Raises:
            InputError: fewer than two folds; memory for less than bins of 2^-8.
        """
        if not (isinstance(folds, int) and folds >= 2):
            raise InputError(f"folds must be a whole number from 2 up, got {folds!r}")
        size = max((np.size(values) for values in lambdas.values()), default=1)
        if bins is None:
            a_bin = folds * size * 2 * (16 if of.get("weighted") else 8)
            fitting = [bits for bits in range(FINEST, COARSEST - 1, -1) if a_bin * len(Bins(bits)) <= memory_mb * 2**20]
            if not fitting:
                needed = math.ceil(a_bin * len(Bins(COARSEST)) / 2**20)
                raise InputError(
                    f"histograms of {size:,} lambdas take {needed:,} MiB, and {memory_mb:,} MiB are allowed: try fewer "
                    "lambdas (--grid), or allow more (--memory)"
                )
            bins = Bins(fitting[0])
        return cls(tuple(ScoreHistograms.empty(lambdas, prior, bins=bins, **of) for _ in range(folds)))

    def __len__(self) -> int:
        """How many lambdas there are."""
        return len(self.folds[0])

    def update(self, scores: Scores, position: NDArray[np.integer]) -> None:
        """Count a piece of the samples, in place.

        Args:
            position: (N,) of the samples in their stream, from 0.

        Raises:
            InputError: as `ScoreHistograms.update`; another number of positions.
        """
        if len(position) != len(scores.target):
            raise InputError(f"{len(scores.target)} samples need as many positions, got {len(position)}")
        fold = _mixed(position.astype(np.uint64)) % np.uint64(len(self.folds))
        for k, histograms in enumerate(self.folds):
            rows = np.flatnonzero(fold == k)
            if len(rows) and (scores.weight is None or scores.weight[rows].any()):
                histograms.update(scores.take(rows))

    @cached_property
    def total(self) -> ScoreHistograms:
        """Of all samples."""
        return merged(self.folds)

    def __add__(self, other: FoldedHistograms) -> FoldedHistograms:
        """Of the samples of both.

        Raises:
            InputError: everything that differs between them, other than what was counted.
        """
        if len(self.folds) != len(other.folds):
            raise InputError(f"histograms add up in as many folds only: {len(self.folds)}, and got {len(other.folds)}")
        return FoldedHistograms(tuple(a + b for a, b in zip(self.folds, other.folds, strict=True)))

    def save(self, path: str | Path) -> None:
        """Write one compressed .npz, without pickles, which is in its place only once it is whole."""
        header = np.array(json.dumps({"format": FORMAT, "folds": len(self.folds)}))
        arrays = {"folded": header}
        for k, histograms in enumerate(self.folds):
            arrays |= {f"{k}_{name}": array for name, array in histograms.stored().items()}
        write_arrays(Path(path), arrays)

    @classmethod
    def load(cls, path: str | Path) -> FoldedHistograms:
        """Read what `save` wrote.

        Raises:
            InputError: no such file, another kind of file or one that is damaged, or that a later version wrote.
        """
        return read_arrays(Path(path), cls._from_stored)

    @classmethod
    def _from_stored(cls, stored: Mapping[str, NDArray]) -> FoldedHistograms:
        header = json.loads(str(stored["folded"][()]))
        if header["format"] != FORMAT:
            raise InputError(f"folded histograms have the format {FORMAT!r}, got {header['format']!r}")
        folds = []
        for k in range(header["folds"]):
            prefix = f"{k}_"
            names = [name for name in stored if name.startswith(prefix)]
            folds.append(ScoreHistograms.from_stored({name.removeprefix(prefix): stored[name] for name in names}))
        return cls(tuple(folds))


def _mixed(position: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Positions made random: SplitMix64 (Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        x = position + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclass(frozen=True)
class HistogramGrid:
    """Every (lambda, edge of a bin) that score histograms let one choose from.

    Args:
        histograms: of samples that the model was not trained on.
        prior: the share of positives where the model will be used, in (0, 1), or a range of it, of which the worst
            counts; None takes the samples' own share.
        allow_test: the test split is for reporting, so choosing on it is refused unless this is set.
        default: the model's default lambda (`LambdaSpace.median`), which choices are compared with; the lambda nearest
            to it stands in for it. None takes the middle of the lambdas there are.

    Raises:
        InputError: a test split, a prior outside (0, 1), one class only.
    """

    histograms: FoldedHistograms
    prior: float | tuple[float, float] | None = None
    allow_test: bool = False
    default: Lambda | None = None

    def __post_init__(self) -> None:
        problems, total = Problems(), self.histograms.total
        problems.check(
            total.split.strip().casefold() != "test" or self.allow_test,
            "an operating point chosen on the test split would be reported on the samples that flatter it: choose on "
            "validation data, or say allow_test=True",
        )
        for c, weight in enumerate(total.counts[0].sum(axis=1)):
            problems.check(weight > 0, f"choosing needs samples of both classes, got none of class {c} (or no weight)")
        problems.raise_if_any()

    def select(
        self,
        *,
        maximize: str | None = None,
        minimize: str | None = None,
        cost: Cost | Mapping[str, float | str] | None = None,
        subject_to: str | Sequence[str] = (),
        simplest: bool = True,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> OperatingPoint:
        """The best operating point for a need; the arguments are those of `OperatingGrid.select`.

        The point's threshold is an edge, so that its counts are exact. `honest` pools the decisions about each fold of
        the choice made without it. With so many samples it hardly differs from `metrics`; it is what says so.

        Raises:
            InputError: as `OperatingGrid.select`; costs or subgroups that are columns.
            Infeasible: no operating point meets the constraints; says what is attainable.
        """
        found = problems_of_draws(confidence, seed)
        need = Need.of(
            maximize=maximize, minimize=minimize, cost=cost, subject_to=subject_to, prior=self.prior, found=found
        )
        if problems := problems_of_rows(need):
            raise InputError(problems)
        return _Choosing(self.histograms, need, self.default, simplest, confidence, seed).point()


def problems_of_rows(
    need: Need, bootstrap: int | None = None, guarantee: float | None = None, calibrate: str | None = None
) -> list[str]:
    """What a need asks of rows, which histograms do not have."""
    whole = "choose on rows that fit in memory (--whole)"
    problems = Problems()
    for name in need.columns:
        what = "a cost of each row" if name not in need.grouped else "a constraint in every value"
        problems.add(f"{what} needs the column {name!r} beside each score, which histograms do not keep: {whole}")
    problems.check(bootstrap is None, f"a bootstrap draws rows, which histograms do not keep: leave it out, or {whole}")
    problems.check(
        guarantee is None, f"a guarantee divides the rows and counts them, which histograms do not keep: {whole}"
    )
    problems.check(
        calibrate is None,
        f"a calibration is fitted to rows, which histograms do not keep: leave --calibrate (calibrate) out, or {whole}",
    )
    return list(problems)


@dataclass(frozen=True, eq=False)
class _Lambda:
    """One lambda's filled bins, as samples that stand for many."""

    task: Task
    exact: Weighting
    without: Weighting
    """(M, K): without each fold."""


@dataclass(frozen=True, eq=False)
class _Arm:
    """A way to choose: a lambda and an edge for each fold, from the others."""

    lam: NDArray[np.intp]
    edge: Floats


@dataclass(frozen=True, eq=False)
class _Choosing:
    """One choice on histograms."""

    histograms: FoldedHistograms
    need: Need
    default: Lambda | None
    simplest: bool
    confidence: float
    seed: int

    @property
    def _total(self) -> ScoreHistograms:
        return self.histograms.total

    def point(self) -> OperatingPoint:
        """The operating point, with all that it tells."""
        total, size = self._total, len(self._total)
        judged = per_lambda(self._judged, size)
        on_all, without = (Choices.stack(each) for each in zip(*judged, strict=True))
        if not (on_all.allowed[:, 0] & np.isfinite(on_all.merit[:, 0])).any():
            raise Infeasible(self._attainable())
        error = self._error_of_best(on_all)
        on_all, without = with_error(on_all, error), with_error(without, error)
        distance, default = distances(total.lambdas, size, self.default)
        rule = distance if self.simplest and size > 1 else None
        (chosen,), (best,) = pick(on_all, rule)
        point = self._point(int(chosen), self._edge(on_all.lowest[chosen, 0]))
        if chosen != best:
            point = dataclasses.replace(point, simpler_than=at(total.lambdas, int(best)))
        arms = self._arms(without, rule, default, kept=chosen == default)
        return dataclasses.replace(
            point,
            metrics=self._estimates(int(chosen), self._edge(on_all.lowest[chosen, 0])),
            honest=self._cross_fitted(arms[0]),
            against_default=self._against_default(arms, default) if size > 1 else None,
        )

    # ---------------------------------------------------------------------------------------------- the search

    def _lambda(self, index: int) -> _Lambda:
        total = self._total
        log_odds, target, weight, squares = total.samples(index)
        lambdas = {name: np.asarray(values)[[index]] for name, values in total.lambdas.items()}
        task = Task.of(self.need, Scores(log_odds[None], target, lambdas, total.prior, weight))
        places = target.astype(np.int64), total.bins.place(log_odds)
        held = np.stack([fold.counts[index][places] for fold in self.histograms.folds], axis=1)
        # Kish's effective sizes: of what was counted, not of the bins that stand for it.
        sizes = [float(weight[target == c].sum() ** 2 / squares[target == c].sum()) for c in (1, 0)]
        share = 1 - 1 / len(self.histograms.folds)
        exact, without = (
            dataclasses.replace(task.weighting(np.ascontiguousarray(w, np.float64)), sizes=(p * sizes[0], p * sizes[1]))
            for w, p in ((weight[:, None], 1.0), (np.maximum(weight[:, None] - held, 0.0), share))
        )
        return _Lambda(task, exact, without)

    def _judged(self, index: int) -> list[Choices]:
        one = self._lambda(index)
        row = self._total.samples(index)[0]
        return one.task.choose(row, [one.exact, one.without])

    def _edge(self, lowest: float) -> float:
        """The lower edge of the first bin that is alerted on, where thresholds are centres of bins."""
        bins = self._total.bins
        if math.isinf(lowest):
            return math.inf
        first = int(np.searchsorted(bins.centres, lowest))
        return float(bins.edges[first])

    def _error_of_best(self, choices: Choices) -> float | None:
        """The standard error of a metric of the whole lambda, at its best lambda; None for metrics of a threshold."""
        objective = self.need.objective
        if not isinstance(objective, Metric):
            return None
        _, (best,) = pick(choices, None)
        known = self._total.intervals(int(best), prior=self.need.point_prior, confidence=0.6827)
        if objective.name in known:
            return (known[objective.name].high - known[objective.name].low) / 2
        values = self._of_folds(int(best), objective, self.need.point_prior)
        return float(np.nanstd(values, ddof=1)) / math.sqrt(len(values))

    def _of_folds(self, index: int, objective: Metric, prior: float | None) -> Floats:
        """(K,) a metric of a lambda on each fold."""
        assert objective.of_curve is not None
        curves = [fold.curve(index) for fold in self.histograms.folds]
        return np.array([float(objective.of_curve(c if prior is None else c.at_prior(prior))[0]) for c in curves])

    def _deployment_prior(self) -> float:
        negatives, positives = self._total.counts[0].sum(axis=1)
        own = float(positives) / float(negatives + positives)
        return own if self.need.point_prior is None else self.need.point_prior

    def _point(self, index: int, edge: float) -> OperatingPoint:
        """The operating point at a lambda, without what it achieves yet."""
        total, prior = self._total, self._deployment_prior()
        shift = logit(prior) - logit(total.prior)
        spared = not math.isinf(edge) and _cells(total, index, edge)[0][[1, 3]].any()
        log_odds = BEYOND if math.isinf(edge) else edge + shift if spared else -BEYOND
        return OperatingPoint(
            lam=total.lam(index),
            threshold=sigmoid(log_odds),
            log_odds_threshold=log_odds,
            prior=prior,
            needs=dict(self.need.in_words),
            split=total.split,
            n=int(total.rows.sum()),
            n_positive=int(total.rows[1]),
            model=total.model,
            extrapolated=bool(total.extrapolated[index]) if total.extrapolated is not None else False,
            off_by=total.off_by(index, self.need.point_prior),
        )

    def _attainable(self) -> list[str]:
        if not self.need.constraints:
            return [f"{self.need.objective.name} is not defined at any lambda on these samples"]

        def reach(index: int) -> Any:
            one = self._lambda(index)
            return reaches_of(one.task, one.exact, self._total.samples(index)[0], index)

        reaches = per_lambda(reach, len(self._total))
        return told_reaches(
            self.need, reaches, self._total.lambdas, logit(self._deployment_prior()) - logit(self._total.prior)
        )

    # ------------------------------------------------------------------------------------------- what it is worth

    def _estimates(self, index: int, edge: float) -> dict[str, Estimate]:
        """Every metric of a lambda and edge on the samples, with intervals; of several priors, the worst for each."""
        cells, squares = _cells(self._total, index, edge)
        return self._told(cells, squares, lambda prior: self._of_lambda(index, prior))

    def _of_lambda(self, index: int, prior: float | None) -> dict[str, Estimate]:
        out = self._total.intervals(index, prior=prior, confidence=self.confidence)
        for name, m in metrics_told(self.need)[1].items():
            value, values = self._total.evaluate([name], prior=prior)[name][index], self._of_folds(index, m, prior)
            out[name] = _student(float(value), values, self.confidence)
        return out

    def _cross_fitted(self, arm: _Arm) -> dict[str, Estimate]:
        """The decisions about each fold of the choice made without it, pooled."""
        cells, squares = self._pooled(arm)
        return self._told(cells, squares, lambda prior: self._of_lambdas(arm, prior))

    def _pooled(self, arm: _Arm, but: int | None = None) -> tuple[Floats, Floats]:
        """(4,) tp, fn, fp and tn of the folds, or of all but one, and of squared weights the same."""
        found = [
            _cells(fold, int(arm.lam[k]), float(arm.edge[k]))
            for k, fold in enumerate(self.histograms.folds)
            if k != but
        ]
        cells, squares = (np.sum(each, axis=0) for each in zip(*found, strict=True))
        return cells, squares

    def _of_lambdas(self, arm: _Arm, prior: float | None) -> dict[str, Estimate]:
        """Metrics of whole lambdas: means over folds, with intervals as wide as the total's."""
        folds, out = self.histograms.folds, {}
        widths = self._total.intervals(int(arm.lam[0]), prior=prior, confidence=self.confidence)
        shares = np.array([float(fold.counts[0].sum()) for fold in folds])
        losses = np.array([fold.losses(int(i), prior) for fold, i in zip(folds, arm.lam, strict=True)])
        for name, values in zip(("brier", "log_loss"), losses.T, strict=True):
            mean = float(shares @ values / shares.sum())
            out[name] = _moved(widths[name], mean, name)
        objective = self.need.objective
        if isinstance(objective, Metric) and objective.of_curve is not None:
            values = np.array([self._of_folds(int(i), objective, prior)[k] for k, i in enumerate(arm.lam)])
            out[objective.name] = _student(float(values.mean()), values, self.confidence)
        return out

    def _told(
        self, cells: Floats, squares: Floats, rest: Callable[[float | None], dict[str, Estimate]]
    ) -> dict[str, Estimate]:
        told = []
        for prior in self.need.priors or (None,):
            observed, draws = confusion_shares(cells[:, None], prior), self._drawn(cells, squares, prior)
            of_prior = {}
            for name, m in metrics_told(self.need)[0].items():
                value, tail = float(m.values(observed)[0]), (1 - self.confidence) / 2 * 100
                low, high = np.percentile(m.values(draws), [tail, 100 - tail])
                of_prior[name] = Estimate(value, min(float(low), value), max(float(high), value))
            told.append(of_prior | rest(prior))
        return {name: worst(name, [each[name] for each in told]) for name in told[0]}

    def _drawn(self, cells: Floats, squares: Floats, prior: float | None) -> Curve:
        """(n,) confusion shares under draws of both rates from their posteriors under Jeffreys' prior, and of the share
        of positives where no prior is stated; with Kish's effective sizes."""
        rng = keyed_rng(self.seed, "posterior")

        def rate(yes: float, no: float, squared: float) -> Floats:
            share, size = yes / (yes + no), (yes + no) ** 2 / squared
            return rng.beta(share * size + 0.5, (1 - share) * size + 0.5, DRAWS)

        recall = rate(cells[0], cells[1], squares[:2].sum())
        fpr = rate(cells[2], cells[3], squares[2:].sum())
        share = np.full(DRAWS, prior)
        if prior is None:
            share = rate(cells[:2].sum(), cells[2:].sum(), squares.sum())
        return confusion_shares(
            np.stack([recall * share, (1 - recall) * share, fpr * (1 - share), (1 - fpr) * (1 - share)]), None
        )

    # ----------------------------------------------------------------------------------------- against the default

    def _arms(self, without: Choices, rule: Floats | None, default: int, *, kept: bool) -> list[_Arm]:
        """The choice as it was made, with the default lambda alone, and, where that was kept, of the best lambda."""
        j = np.arange(without.merit.shape[1])
        chosen, best = pick(without, rule)
        ways = [chosen, np.full(len(j), default), *([best] if kept else [])]
        return [_Arm(lam, np.array([self._edge(t) for t in without.lowest[lam, j]])) for lam in ways]

    def _against_default(self, arms: Sequence[_Arm], default: int) -> AgainstDefault:
        """Cross-fitted decisions with lambda against those with the default lambda alone.

        The error of the difference is that of the jackknife over folds: both decide the same samples in each, so that
        what they have in common cancels.
        """
        first, second = arms[2] if len(arms) == 3 else arms[0], arms[1]
        objective, n = self.need.objective, len(self.histograms.folds)
        value = self._objective(first) - self._objective(second)
        left_out = np.array([self._objective(first, k) - self._objective(second, k) for k in range(n)])
        error = math.sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))
        p = float(2 * stats.t.sf(abs(value) / error, n - 1)) if error > 0 else 1.0
        reach = float(stats.t.ppf((1 + self.confidence) / 2, n - 1)) * error
        estimate, lam = Estimate(value, value - reach, value + reach), self._total.lam(default)
        sentence = told_difference(objective, lam, estimate, p, None, len(arms) == 3)
        return AgainstDefault(objective.name, lam, estimate, p, sentence)

    def _objective(self, arm: _Arm, but: int | None = None) -> float:
        """The objective of cross-fitted decisions, or of those about all folds but one; with a range of priors at its
        geometric middle."""
        objective, prior = self.need.objective, self.need.point_prior
        if isinstance(objective, ThresholdMetric):
            return float(objective.values(confusion_shares(self._pooled(arm, but)[0][:, None], prior))[0])
        folds = [(k, fold) for k, fold in enumerate(self.histograms.folds) if k != but]
        if objective.of_curve is None:
            values = np.array([fold.losses(int(arm.lam[k]), prior)[objective.proper] for k, fold in folds])
        else:
            values = np.array([self._of_folds(int(arm.lam[k]), objective, prior)[k] for k, _ in folds])
        shares = np.array([float(fold.counts[0].sum()) for _, fold in folds])
        return float(shares @ values / shares.sum())


def _cells(histograms: ScoreHistograms, index: int, edge: float) -> tuple[Floats, Floats]:
    """(4,) tp, fn, fp and tn of alerting on `log_odds >= edge`, and the same of squared weights."""
    first = len(histograms.bins) if math.isinf(edge) else int(np.searchsorted(histograms.bins.edges, edge))
    squares = histograms.counts if histograms.squares is None else histograms.squares
    out = [
        np.array([float(part.sum()) for c in (1, 0) for part in (of[index, c, first:], of[index, c, :first])])
        for of in (histograms.counts, squares)
    ]
    return out[0], out[1]


def _student(value: float, values: Floats, confidence: float) -> Estimate:
    """A value with the t interval that its (K,) values on folds give."""
    n = len(values)
    reach = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * float(values.std(ddof=1)) / math.sqrt(n)
    return Estimate(value, value - reach, value + reach)


def _moved(e: Estimate, value: float, name: str) -> Estimate:
    """An estimate around another value."""
    return Estimate(value, max(e.low + value - e.value, lowest(name)), e.high + value - e.value)


def load_shards(paths: Iterable[Path]) -> FoldedHistograms:
    """What `FoldedHistograms.save` wrote of the shards of samples, added up, read one at a time.

    Raises:
        InputError: none; files that hold something else; everything in which any differs from the first; a shard that
            is there twice, whose samples would seem to be twice as many.
    """
    total: FoldedHistograms | None = None
    problems, first = Problems(), ""
    known: dict[bytes, Path] = {}
    for path in paths:
        try:
            one = FoldedHistograms.load(path)
            with path.open("rb") as file:
                earlier = known.setdefault(hashlib.file_digest(file, "sha256").digest(), path)
            if earlier is not path and any(fold.rows.any() for fold in one.folds):
                problems.add(
                    f"{path} holds the same counts as {earlier}: give each shard once, or its rows count twice"
                )
                continue
            total, first = (one, str(path)) if total is None else (total + one, first)
        except InputError as error:
            problems.add(*(p if str(path) in p else f"{path}: {p} (compared with {first})" for p in error.problems))
    problems.check(total is not None or bool(problems), "there are no score histograms to choose on; count some")
    problems.raise_if_any()
    assert total is not None
    return total
