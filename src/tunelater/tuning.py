"""Choosing where to operate, after training: needs in, (lambda, threshold) out.

An `OperatingGrid` holds the scores of labelled samples at many lambdas; `select` searches every lambda and every
threshold and returns an `OperatingPoint`, which is what predictions are made with. It is a choice among many on few
positives, so the figures of the samples it was chosen on flatter it. The point tells what to expect instead
(`tunelater.honesty`), and whether choosing lambda helped; `assess` gives its figures on other samples. With a
guarantee the samples are divided instead: one part chooses, and the other certifies (`tunelater.guarantee`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tunelater.assessment import (
    RESAMPLES,
    assess,
    compare,
    decision_curve,
    estimates,
    problems_of_classes,
    problems_of_draws,
    worst,
)
from tunelater.calibration import CalibrationMap, fit_at_prior, problems_of_kind, warn_if_few
from tunelater.distributions import Lambda, Lambdas, at
from tunelater.guarantee import (
    Claim,
    FieldPrior,
    Merit,
    claims_of,
    guaranteed,
    parts,
    problems_of_claims,
    problems_of_division,
)
from tunelater.honesty import (
    REPEATS,
    Decided,
    Folds,
    against_default,
    bootstraps,
    counting_choices,
    cross_fitted,
    figures,
    told_lambda,
)
from tunelater.intervals import Estimate, of_proper_scores, of_ranking
from tunelater.metrics import Curve, Floats, Metric, per_lambda
from tunelater.needs import Cost, Need, problems_of_needs, problems_of_prior
from tunelater.points import FORMAT, AgainstDefault, OperatingPoint, sigmoid
from tunelater.problems import InputError, Problems
from tunelater.scoring import Scores
from tunelater.search import Choices, Ranked, Task, Weighting, pick

__all__ = [
    "FORMAT", "RESAMPLES", "AgainstDefault", "Cost", "Estimate", "Infeasible", "Need", "OperatingGrid",
    "OperatingPoint", "assess", "compare", "decision_curve", "problems_of_draws", "problems_of_guarantee",
    "problems_of_needs", "select_from",
]  # fmt: skip

BEYOND = 1e6
"""Log-odds that no score reaches: the threshold of alerting on nobody, and negative, on everybody."""
FEWER_REPEATS = 20_000
"""Lambdas over which cross-fitting divides the samples twice only, so that its tables stay small."""
AT_ONCE = 32
"""Resamples whose choices are looked at together."""
NEARNESS = 1e-9
"""What nearness to probability 0.5 is worth beside a metric of the whole lambda, with a guarantee: a tie-break."""


class Infeasible(InputError):
    """No operating point meets the constraints; the message says what is attainable, and at what cost."""


@dataclass(frozen=True)
class OperatingGrid:
    """Every (lambda, threshold) that labelled samples let one choose from.

    Args:
        scores: of samples that the model was not trained on, with the columns that needs name.
        prior: the share of positives where the model will be used, in (0, 1), or a range of it, of which the worst
            counts; None takes the samples' own share.
        allow_test: the test split is for reporting, so choosing on it is refused unless this is set.
        default: the model's default lambda (`LambdaSpace.median`), which choices are compared with; the lambda nearest
            to it stands in for it. None takes the middle of the lambdas there are.

    Raises:
        InputError: a test split, a prior outside (0, 1), one class only, weights that cannot be used.
    """

    scores: Scores
    prior: float | tuple[float, float] | None = None
    allow_test: bool = False
    default: Lambda | None = None

    def __post_init__(self) -> None:
        problems = Problems()
        problems.check(
            self.scores.split.strip().casefold() != "test" or self.allow_test,
            "an operating point chosen on the test split would be reported on the samples that flatter it: choose on "
            "validation data, or say allow_test=True",
        )
        problems.add(*problems_of_prior(self.prior))
        problems.add(*problems_of_classes(self.scores.target, self.scores.weight, "choosing"))
        problems.add(*_problems_of_default(self.default, self.scores.lambdas))
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
        bootstrap: int | None = None,
        guarantee: float | None = None,
        calibrate: str | None = None,
    ) -> OperatingPoint:
        """The best operating point for a need (`tunelater.needs` has the vocabulary).

        Exactly one of `maximize`, `minimize` and `cost` says what is best. A metric of a threshold (`precision`, `f1`,
        ...) is searched over every lambda and threshold. A metric of a whole lambda (`brier`, `auc`, ...) picks the
        lambda; the threshold is then the allowed one nearest to probability 0.5. Among equals the higher recall wins,
        then the lambda that comes first.

        Args:
            cost: what outcomes cost, for instance `{"fn": 50, "fp": 1}`, or `{"fn": "amount", "fp": 5}` where the
                column `amount` has it for each sample: the lowest expected cost is best.
            subject_to: constraints such as `"recall>=0.9"`, `"alerts<=20/1000"` or `"recall>=0.9 in every sex"`, all of
                which must hold on the samples.
            simplest: take, of the lambdas whose best point is within one standard error of the best of all, the one
                nearest to the default lambda, with the best of its points. Differences that small are mostly noise.
            confidence: of the intervals, in (0, 1).
            seed: of the intervals' draws and of the folds, a whole number from 0 up.
            bootstrap: None, or so many resamples, 100 or more, in each of which lambda and threshold are chosen again:
                the intervals of `honest` then count how far these choices are apart, and those of `metrics` are as
                `assess` has them.
            guarantee: None, or a confidence in (0, 1) at which the constraints are to hold for future data:
                `tunelater.guarantee` says what that means and supposes. A part of the samples then chooses, and the
                others certify; `metrics` are those of the latter, without what `honest` corrects, and `simplest` does
                nothing. Of a metric of a whole lambda, the threshold is the certified one nearest to probability 0.5.
            calibrate: `platt`, `beta` or `isotonic`: fit such a map (`tunelater.calibration`) to the samples at the
                lambda chosen and the point's prior, and keep it on the point. Lambda and threshold are chosen on the
                link's log-odds, as without: a map that never falls changes no ranking, so that any decision is still to
                be had. Brier score and log-loss in `metrics` are of probabilities calibrated on the same samples; in
                `honest` maps are fitted again without each fold (or in each resample).

        Raises:
            InputError: no objective or several, unknown metrics, constraints that do not read, columns that are absent
                or that no cost or subgroup can be had of, a confidence or seed out of range, an unknown calibration.
            Infeasible: no operating point meets the constraints; says what is attainable.
            Uncertified: with a guarantee, the samples cannot certify the constraints; says how many could.

        Warns:
            DoubtfulInputWarning: few samples of a class for the calibration, or ranked the wrong way.
        """
        found = problems_of_draws(confidence, seed, bootstrap) + _problems_of_confidence(guarantee)
        found += problems_of_calibrating(calibrate, guarantee)
        need = Need.of(
            maximize=maximize, minimize=minimize, cost=cost, subject_to=subject_to, prior=self.prior, found=found
        )
        s = self.scores
        source = _Source(lambda _: s, s.lambdas, len(s), len(s))
        return _Choosing(
            source, need, self.default, simplest, confidence, seed, bootstrap, guarantee, calibrate
        ).point()


def problems_of_calibrating(calibrate: object, guarantee: object = None) -> list[str]:
    """What keeps a point from being calibrated so; None is not at all."""
    if calibrate is None:
        return []
    problems = problems_of_kind(calibrate)
    if guarantee is not None:
        problems.append(
            f"a guarantee holds for a point as it was certified, with nothing fitted to the rows that certify: leave "
            f"--calibrate (calibrate) out, or --guarantee (guarantee), got {calibrate!r} and {guarantee!r}"
        )
    return problems


def select_from(
    score: Callable[[Lambdas], Scores],
    lambdas: Lambdas,
    n: int,
    *,
    prior: float | tuple[float, float] | None = None,
    allow_test: bool = False,
    default: Lambda | None = None,
    simplest: bool = True,
    bootstrap: int | None = None,
    guarantee: float | None = None,
    field: FieldPrior | None = None,
    calibrate: str | None = None,
    memory_mb: int = 1024,
    **need: object,
) -> OperatingPoint:
    """As `OperatingGrid.select`, over grids of any size: lambdas are scored and searched in parts of bounded memory.

    Args:
        score: scores of the same samples at the lambdas that it is given, with the columns that the need names.
        lambdas: (L,) arrays by name.
        n: the number of samples.
        field: with a guarantee, the share of positives that it is for, where label shift made it another than that of
            the samples.
        memory_mb: bound on the scores held at a time, MiB; two lambdas at the least. With a guarantee, which takes all
            lambdas at once, they must fit.
        need: `maximize`, `minimize`, `cost` and `subject_to`.

    Raises:
        InputError, Infeasible, Uncertified: as `OperatingGrid` and its `select`.
    """
    found = problems_of_draws(0.95, 0, bootstrap) + _problems_of_default(default, lambdas)
    found += problems_of_calibrating(calibrate, guarantee)
    size = max((len(values) for values in lambdas.values()), default=1)
    found += _problems_of_confidence(guarantee) + _problems_of_room(guarantee, size, n, memory_mb)
    wanted = Need.of(prior=prior, found=found, **need)  # type: ignore[arg-type]
    at_once = _at_once(n, memory_mb)

    def scored(index: NDArray[np.intp]) -> Scores:
        part = score({name: np.asarray(values)[index] for name, values in lambdas.items()})
        return OperatingGrid(part, prior, allow_test).scores

    source = _Source(scored, lambdas, size, at_once)
    return _Choosing(source, wanted, default, simplest, 0.95, 0, bootstrap, guarantee, calibrate, field).point()


def problems_of_guarantee(
    guarantee: float | None, need: Need, target: NDArray, weight: NDArray | None, lambdas: Lambdas, memory_mb: int
) -> list[str]:
    """What keeps `select_from` from certifying a need on any number of such samples, before they are scored."""
    if guarantee is None:
        return []
    size = max((len(values) for values in lambdas.values()), default=1)
    of_claims = problems_of_claims(target, weight, [Claim(c) for c in need.constraints], need.prior)
    return of_claims + _problems_of_room(guarantee, size, len(target), memory_mb)


def _problems_of_confidence(guarantee: float | None) -> list[str]:
    return [] if guarantee is None else problems_of_division(guarantee)


def _problems_of_room(guarantee: float | None, size: int, n: int, memory_mb: int) -> list[str]:
    if guarantee is None or size <= _at_once(n, memory_mb):
        return []
    needed = math.ceil(2 * 4 * n * size / 2**20)
    return [
        f"a guarantee orders candidates of all lambdas at once: {size:,} lambdas and {n:,} samples take "
        f"{needed:,} MiB, got {memory_mb:,}; try fewer lambdas (--grid), or allow more (--memory)"
    ]


def _at_once(n: int, memory_mb: int) -> int:
    """How many lambdas' scores fit into the memory, twice: a part lives on while the next is scored."""
    return max(1, memory_mb * 2**20 // (2 * 4 * max(n, 1)))


def _problems_of_default(default: Lambda | None, lambdas: Lambdas) -> list[str]:
    if default is None or default.keys() == lambdas.keys():
        return []
    return [f"the default lambda needs values of {', '.join(lambdas) or 'nothing'}, got {dict(default)}"]


def _rows_of(s: Scores, index: NDArray[np.intp]) -> Scores:
    """The scores at some lambdas; all of them as they are."""
    if len(index) == len(s):
        return s
    return dataclasses.replace(
        s,
        log_odds=s.log_odds[index],
        lambdas={name: values[index] for name, values in s.lambdas.items()},
        extrapolated=None if s.extrapolated is None else s.extrapolated[index],
    )


@dataclass(frozen=True, eq=False)
class _Source:
    """Scores of the same samples at L lambdas, a few at a time."""

    score: Callable[[NDArray[np.intp]], Scores]
    lambdas: Lambdas
    size: int
    at_once: int

    @cached_property
    def _whole(self) -> Scores:
        return self.score(np.arange(self.size))

    def parts(self, index: NDArray[np.intp] | None = None) -> Iterator[tuple[NDArray[np.intp], Scores]]:
        """The scores at lambdas of ascending indices, by default at all; scored once, where all fit."""
        index = np.arange(self.size) if index is None else index
        if self.size <= self.at_once:
            yield index, _rows_of(self._whole, index)
            return
        for start in range(0, len(index), self.at_once):
            some = index[start : start + self.at_once]
            yield some, self.score(some)


@dataclass(frozen=True, eq=False)
class _Arm:
    """A way to choose under R weightings: the lambda for each, and the decisions that follow."""

    lam: NDArray[np.intp]
    lowest: Floats
    decided: Decided


@dataclass(frozen=True, eq=False)
class _Choosing:
    """One choice: every lambda is judged on all samples and without each fold, then the chosen ones are looked at."""

    source: _Source
    need: Need
    default: Lambda | None
    simplest: bool
    confidence: float
    seed: int
    bootstrap: int | None
    guarantee: float | None = None
    calibrate: str | None = None
    field: FieldPrior | None = None

    def point(self) -> OperatingPoint:
        """The operating point, with all that it tells."""
        _, scores = next(self.source.parts(np.arange(1)))
        wrong = self.need.problems_with(scores.columns, scores.target, scores.weight, "choosing")
        if self.guarantee is not None:
            claims = [Claim(c, field=self.field) for c in self.need.constraints]
            wrong += problems_of_claims(scores.target, scores.weight, claims, self.need.prior)
        if wrong:
            raise InputError(wrong)
        if self.guarantee is not None:
            return self._guaranteed(self.guarantee)
        task = Task.of(self.need, scores)
        exact = task.weighting(task.weight[:, None])
        folds = Folds.of(task, scores, self.seed, self._repeats(len(task.weight)))
        apart = [] if folds is None else [folds.weighting(task)]
        on_all, *without = self._judged(task, [exact, *apart])
        distance, default = distances(self.source.lambdas, self.source.size, self.default)
        some = on_all.allowed[:, 0] & np.isfinite(on_all.merit[:, 0])
        if not some.any():
            raise Infeasible(self._attainable(task, exact))
        error = self._error_of_best(task, on_all)
        on_all, *without = (with_error(c, error) for c in (on_all, *without))
        rule = distance if self.simplest and self.source.size > 1 else None
        (chosen,), (best,) = pick(on_all, rule)
        point, row = self._point(task, int(chosen), float(on_all.lowest[chosen, 0]))
        if chosen != best:
            point = dataclasses.replace(point, simpler_than=at(self.source.lambdas, int(best)))
        if self.calibrate is not None:
            fitted = self._map(row.log_odds[0], task, task.weight)
            warn_if_few(fitted, scores.target, scores.weight)
            point = dataclasses.replace(point, calibration=fitted)
        point = dataclasses.replace(point, metrics=self._estimates(point, row))
        if folds is not None:
            arms = self._arms(without[0], rule, default, folds, kept=chosen == default)
            self._decide(arms, folds, task)
            point = self._corrected(point, task, scores, arms, default)
            if self.bootstrap is not None:
                point = dataclasses.replace(point, honest=self._bootstrapped(point, task, row, rule, error))
        return point

    def _repeats(self, n: int) -> int:
        """Divisions into folds: fewer where their weights, or the tables of so many lambdas, would fill the memory."""
        most = REPEATS if self.source.size <= FEWER_REPEATS else 2
        return max(1, min(most, 2**28 // (4 * 5 * n)))

    def _judged(self, task: Task, weightings: Sequence[Weighting]) -> list[Choices]:
        """(L, R) the best threshold of every lambda under each of some weightings."""
        found: list[list[Choices]] = []
        for _, scores in self.source.parts():
            found += per_lambda(_judge(task, scores, weightings), len(scores))
        return [Choices.stack(each) for each in zip(*found, strict=True)]

    def _map(self, row: NDArray[np.floating], task: Task, weight: NDArray[np.floating]) -> CalibrationMap:
        """The calibration of a lambda's (N,) log-odds, at the point's prior, by samples of those weights."""
        assert self.calibrate is not None
        target = (task.labels.sign < 0).astype(np.int8)
        return fit_at_prior(self.calibrate, row.astype(np.float64) - task.half, target, weight, task.deployment_prior)

    def _error_of_best(self, task: Task, choices: Choices) -> float | None:
        """The standard error of a metric of the whole lambda, at its best lambda; None for others, whose choices have
        theirs."""
        objective = self.need.objective
        if not isinstance(objective, Metric):
            return None
        _, (best,) = pick(choices, None)
        (_, scores), *_ = self.source.parts(np.array([best]))
        row, target, one = scores.log_odds[0], scores.target, 0.6827
        weight, prior = task.weight, self.need.point_prior
        if objective.of_curve is None:
            log_odds = row.astype(np.float64) - task.half
            e = of_proper_scores(log_odds, target, weight, prior=prior, confidence=one)[objective.name]
            return (e.high - e.low) / 2
        if objective.name in ("auc", "average_precision"):
            e = of_ranking(row, target, weight, prior=prior, confidence=one)[objective.name]
            return (e.high - e.low) / 2
        drawn = next(iter(bootstraps(task, 200, self.seed)))
        return float(np.nanstd(task.whole(row, objective, drawn)))

    def _point(self, task: Task, index: int, lowest: float) -> tuple[OperatingPoint, Scores]:
        """The operating point at a lambda, without what it achieves yet, and the scores there."""
        (_, s), *_ = self.source.parts(np.array([index]))
        half = isinstance(self.need.objective, Metric) and lowest == task.half
        log_odds = 0.0 if half else _between(lowest, s.log_odds[0]) - task.half
        return self._deciding(task, s, log_odds), s

    def _deciding(self, task: Task, s: Scores, log_odds: float) -> OperatingPoint:
        """The point at the one lambda of some scores that alerts from these log-odds on, at its prior."""
        return OperatingPoint(
            lam=s.lam(0),
            threshold=sigmoid(log_odds),
            log_odds_threshold=log_odds,
            prior=task.deployment_prior,
            needs=dict(self.need.in_words),
            split=s.split,
            n=len(s.target),
            n_positive=int((s.target == 1).sum()),
            model=s.model,
            extrapolated=bool(s.extrapolated[0]) if s.extrapolated is not None else False,
        )

    def _estimates(self, point: OperatingPoint, row: Scores) -> dict[str, Estimate]:
        told = {"confidence": self.confidence, "seed": self.seed, "bootstrap": self.bootstrap}
        return estimates(point, self.need, row, 0, **told)  # type: ignore[arg-type]

    def _guaranteed(self, confidence: float) -> OperatingPoint:
        """The best point that part B certifies, with what it achieves there."""
        ((_, scores),) = self.source.parts()
        claims = claims_of(self.need.constraints, scores.columns, self.field)
        a, b = parts(scores.target, claims, seed=self.seed)
        need = self.need if self.field is None else dataclasses.replace(self.need, prior=self.field.chosen_for)
        merit = _merit(need, scores.take(a))
        best, certificate = guaranteed(scores, claims, merit, confidence=confidence, prior=need.prior, seed=self.seed)
        ((_, row),) = self.source.parts(np.array([best.at]))
        task = Task.of(self.need, row)
        # Not moved halfway to the next score: it is this threshold that was certified.
        point = self._deciding(task, row, best.threshold - task.half)
        metrics = self._estimates(point, row.take(b))
        return dataclasses.replace(point, metrics=metrics, certificate=certificate.to_dict())

    # --------------------------------------------------------------------------------------- what to expect of it

    def _arms(self, without: Choices, rule: Floats | None, default: int, folds: Folds, *, kept: bool) -> list[_Arm]:
        """The choice as it was made, with the default lambda alone, and, where that was kept, of the best lambda."""
        j = np.arange(without.merit.shape[1])
        chosen, best = pick(without, rule)
        ways = [chosen, np.full(len(j), default), *([best] if kept else [])]
        shape, first = folds.of_sample.shape, self.calibrate is not None
        arms = []
        for i, lam in enumerate(ways):
            arms.append(_Arm(lam, without.lowest[lam, j], Decided.empty(*shape, calibrated=first and i == 0)))
        return arms

    def _decide(self, arms: Sequence[_Arm], folds: Folds, task: Task) -> None:
        """Each fold is decided by what was chosen without it."""
        needed = np.unique(np.concatenate([arm.lam for arm in arms]))
        for index, scores in self.source.parts(needed):
            for i, row in zip(index, scores.log_odds, strict=True):
                for arm in arms:
                    for r in np.flatnonzero(arm.lam == i).tolist():
                        held, b = folds.held(r), r // folds.n
                        threshold = _between(arm.lowest[r], row[~held & (task.weight > 0)])
                        arm.decided.alerts[b, held] = row[held] >= threshold
                        arm.decided.log_odds[b, held] = row[held]
                        if arm.decided.calibrated is not None:
                            calibrated = self._map(row, task, np.where(held, 0.0, task.weight))
                            arm.decided.calibrated[b, held] = calibrated(row[held].astype(np.float64) - task.half)

    def _corrected(
        self, point: OperatingPoint, task: Task, scores: Scores, arms: Sequence[_Arm], default: int
    ) -> OperatingPoint:
        told = {"confidence": self.confidence, "seed": self.seed}
        honest = cross_fitted(task, scores, arms[0].decided, **told)  # type: ignore[arg-type]
        against: AgainstDefault | None = None
        if self.source.size > 1:
            first = arms[2] if len(arms) == 3 else arms[0]
            lam = at(self.source.lambdas, default)
            uncalibrated = dataclasses.replace(first.decided, calibrated=None)  # as the default's decisions are
            decided = uncalibrated, arms[1].decided
            against = against_default(task, scores, *decided, lam, kept=len(arms) == 3, **told)  # type: ignore[arg-type]
        return dataclasses.replace(point, honest=honest, against_default=against)

    def _bootstrapped(
        self, point: OperatingPoint, task: Task, scores: Scores, rule: Floats | None, error: float | None
    ) -> dict[str, Estimate]:
        """The honest figures, with intervals that count how far choices on resamples are apart.

        Args:
            scores: at the point's lambda.
        """
        assert self.bootstrap is not None
        # Percentiles of fixed decisions collapse where no error was seen; these do not.
        fixed = dataclasses.replace(self, bootstrap=None)._estimates(point, scores)
        here: list[list[dict[str, Floats]]] = []
        for w in bootstraps(task, int(self.bootstrap), self.seed):
            (choices,) = self._judged(task, [w])
            lam, _ = pick(with_error(choices, error), rule)
            lowest = choices.lowest[lam, np.arange(len(lam))]
            for index, part in self.source.parts(np.unique(lam)):
                chose = [(row, np.flatnonzero(lam == i)) for i, row in zip(index, part.log_odds, strict=True)]
                jobs = [
                    (row, mine[start : start + AT_ONCE])
                    for row, mine in chose
                    for start in range(0, len(mine), AT_ONCE)
                ]
                here += per_lambda(self._chosen_again(jobs, w, lowest, task, scores), len(jobs))
        told = [
            counting_choices(point.honest, fixed, _joined(each), self.confidence) for each in zip(*here, strict=True)
        ]
        return {name: worst(name, [each[name] for each in told]) for name in told[0]}

    def _chosen_again(
        self,
        jobs: Sequence[tuple[NDArray[np.floating], NDArray[np.intp]]],
        w: Weighting,
        lowest: Floats,
        task: Task,
        scores: Scores,
    ) -> Callable[[int], list[dict[str, Floats]]]:
        """What the choices of some resamples achieve on the samples themselves, for each prior.

        Args:
            jobs: a lambda's (N,) log-odds, and which of the weightings chose it.
            lowest: (R,) the lowest log-odds that each alerts on.
        """

        def of_job(at: int) -> list[dict[str, Floats]]:
            row, some = jobs[at]
            weights = np.ascontiguousarray(w.values[:, some].T)
            limits = [_between(lowest[r], row[v > 0]) for r, v in zip(some, weights, strict=True)]
            calibrated = None if self.calibrate is None else self._calibrated(row, task, weights)
            decided = Decided(row >= np.array(limits)[:, None], row[None], calibrated)
            return [figures(task, scores, decided, task.weight, prior) for prior in self.need.priors or (None,)]

        return of_job

    def _calibrated(self, row: NDArray[np.floating], task: Task, weights: NDArray[np.floating]) -> NDArray[np.float32]:
        """(R, N) a lambda's log-odds calibrated by each of some resamples."""
        log_odds = row.astype(np.float64) - task.half
        return np.stack([self._map(row, task, w)(log_odds) for w in weights]).astype(np.float32)

    # --------------------------------------------------------------------------------------- what is attainable

    def _attainable(self, task: Task, w: Weighting) -> list[str]:
        """For each constraint: how far its metric goes alone, how far with the others met, and what it does to these
        to insist on it."""
        if not self.need.constraints:
            return [f"{self.need.objective.name} is not defined at any lambda on these samples"]
        reaches: list[list[tuple[Reach, Reach, Reach]]] = []
        for index, scores in self.source.parts():
            reaches += per_lambda(_reach(task, w, scores, index), len(scores))
        return told_reaches(self.need, reaches, self.source.lambdas, -task.half)


@dataclass(frozen=True)
class Reach:
    """A threshold of a lambda that goes furthest in some way."""

    missed: float
    """What it is the least of; infinite where there is no such threshold."""
    lam: int
    threshold: float
    shortfalls: Sequence[float]
    """Of each constraint."""


def _judge(task: Task, scores: Scores, weightings: Sequence[Weighting]) -> Callable[[int], list[Choices]]:
    return lambda i: task.choose(scores.log_odds[i], weightings)


def _reach(
    task: Task, w: Weighting, scores: Scores, index: NDArray[np.intp]
) -> Callable[[int], list[tuple[Reach, Reach, Reach]]]:
    return lambda i: reaches_of(task, w, scores.log_odds[i], int(index[i]))


def reaches_of(task: Task, w: Weighting, row: NDArray[np.floating], lam: int) -> list[tuple[Reach, Reach, Reach]]:
    """For each constraint, the threshold that misses it least, the one that does with the others met, and the one that
    meets it and misses the others least."""
    ranked = Ranked.of(row, task, exact=True)
    missed = np.stack([s[:, 0] for s in task.shortfalls(ranked.cells(task, w), w)])
    out = []
    for j in range(len(missed)):
        others = np.delete(missed, j, axis=0)
        met = (others <= w.rounding).all(axis=0)
        rest = np.maximum(others, 0).sum(axis=0) if len(others) else np.zeros(missed.shape[1])
        ways = (missed[j], np.where(met, missed[j], np.inf), np.where(missed[j] <= w.rounding, rest, np.inf))
        found = []
        for way in ways:
            k = int(np.argmin(way))
            found.append(Reach(float(way[k]), lam, float(ranked.thresholds[k]), missed[:, k].tolist()))
        out.append((found[0], found[1], found[2]))
    return out


def _joined(parts: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def told_reaches(
    need: Need, reaches: Sequence[Sequence[tuple[Reach, Reach, Reach]]], lambdas: Lambdas, shift: float
) -> list[str]:
    """What is attainable, in words, from the `reaches_of` every lambda.

    Args:
        shift: what moves log-odds to the point's prior.
    """
    constraints = need.constraints
    lines = [f"no lambda and threshold meets {' and '.join(map(str, constraints))} on these samples"]
    for j, c in enumerate(constraints):

        def place(reach: Reach) -> str:
            threshold = sigmoid(min(max(reach.threshold + shift, -700), 700))
            return f"{told_lambda(at(lambdas, reach.lam))}, threshold {threshold:.3g}"

        def value(k: int, shortfall: float) -> str:
            other = constraints[k]
            number = other.bound - shortfall if other.relation == ">=" else other.bound + shortfall
            return f"{number:.4g}"

        others = [str(other) for other in constraints if other is not c]
        alone, together, kept = (min((r[j][i] for r in reaches), key=lambda x: x.missed) for i in range(3))
        within = "" if c.every is None else f" in every {c.every}"
        line = f"{c.metric.name}{within} reaches {value(j, alone.shortfalls[j])} alone"
        if not others:
            line += f", at {place(alone)}"
        elif math.isfinite(together.missed):
            line += f", and {value(j, together.missed)} with {' and '.join(others)}, at {place(together)}"
        else:
            line += f"; {' and '.join(others)} already fails"
        if others and math.isfinite(kept.missed):
            costs = [
                f"{other.metric.name} {value(k, kept.shortfalls[k])}"
                for k, other in enumerate(constraints)
                if other is not c
            ]
            line += f"; {c} costs {' and '.join(costs)}, at {place(kept)}"
        lines.append(line)
    return lines


def distances(lambdas: Lambdas, size: int, default: Lambda | None) -> tuple[Floats, int]:
    """(L,) distances from the default lambda, in units of each hyperparameter's range, and the nearest."""
    squares = np.zeros(size)
    for name, values in lambdas.items():
        values = np.asarray(values, np.float64)
        distinct = np.unique(values)
        middle = float(distinct[(len(distinct) - 1) // 2]) if default is None else default[name]
        squares += ((values - middle) / (np.ptp(values) or 1.0)) ** 2
    return np.sqrt(squares), int(np.argmin(squares))


def with_error(choices: Choices, error: float | None) -> Choices:
    return choices if error is None else dataclasses.replace(choices, error=np.full_like(choices.error, error))


def _merit(need: Need, scores: Scores) -> Merit:
    """How good thresholds are for a need, of a range of priors at the worst, by the samples that choose.

    Args:
        scores: of those samples alone.
    """
    objective, task = need.objective, Task.of(need, scores)
    if isinstance(objective, Metric):
        exact = task.weighting(task.weight[:, None])

        def of_whole(index: int, curve: Curve) -> Floats:
            away = np.abs(curve.threshold - task.half)
            return task.whole(scores.log_odds[index], objective, exact) - NEARNESS * away / (1 + away)

        return of_whole
    if task.costs is not None:
        return _merit_of_sample_costs(task, scores)
    values, sign = objective.values, 1 if objective.higher_is_better else -1
    priors = need.prior if isinstance(need.prior, tuple) else ()

    def of_threshold(_: int, curve: Curve) -> Floats:
        curves = [curve.at_prior(prior) for prior in need.priors] if priors else [curve]
        return np.min([sign * values(c) for c in curves], axis=0)

    return of_threshold


def _merit_of_sample_costs(task: Task, scores: Scores) -> Merit:
    """The cost of a case, negative, from the samples themselves: smoothed counts do not tell whose cost it is."""
    assert task.costs is not None
    saved, positive = task.costs.passed - task.costs.alerted, scores.target == 1
    priors = task.need.priors or (float(positive.mean()),)

    def merit(index: int, curve: Curve) -> Floats:
        def per_case(rows: NDArray[np.bool_]) -> Floats:
            assert task.costs is not None
            x = scores.log_odds[index, rows].astype(np.float64)
            order = np.argsort(x)
            above = np.append(np.cumsum(saved[rows][order][::-1])[::-1], 0.0)
            return (task.costs.passed[rows].sum() - above[np.searchsorted(x[order], curve.threshold)]) / rows.sum()

        of_positives, of_negatives = per_case(positive), per_case(~positive)
        return np.min([-prior * of_positives - (1 - prior) * of_negatives for prior in priors], axis=0)

    return merit


def _between(lowest: float, log_odds: NDArray[np.floating]) -> float:
    """A threshold halfway from the lowest score alerted on to the next below: the same decisions, whatever the rounding
    of another machine."""
    if math.isinf(lowest):
        return BEYOND
    spared = log_odds[log_odds < lowest]
    return float(lowest) / 2 + float(spared.max()) / 2 if len(spared) else -BEYOND
