"""Choosing where to operate, after training: needs in, (lambda, threshold) out.

An `OperatingGrid` holds the scores of labelled samples at many lambdas; `select` searches every lambda and every
threshold and returns an `OperatingPoint`, which is what predictions are made with. It is a choice among many on few
positives, so the figures of the samples it was chosen on flatter it: `assess` gives them on others.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunelater.distributions import Lambdas, keyed_rng
from tunelater.intervals import (
    Estimate,
    effective_size,
    of_mean,
    of_proper_scores,
    of_ranking,
    problems_of_confidence,
)
from tunelater.losses import logit
from tunelater.metrics import (
    THRESHOLD_METRICS,
    Constraint,
    Curve,
    Floats,
    Labels,
    Metric,
    Ranking,
    ThresholdMetric,
    evaluate_one,
    metric,
    per_lambda,
    prior_weight,
    recall,
    sample_scores,
    threshold_metric,
)
from tunelater.problems import InputError, Problems
from tunelater.scoring import Scores

FORMAT = "tunelater.operating_point/1"
Fits = Callable[[str, Mapping[str, float]], list[str]]


class Infeasible(InputError):
    """No operating point meets the constraints; the message says what is attainable."""


@dataclass(frozen=True)
class Cost:
    """What each outcome of a decision costs, in any one unit; the expected cost is per case.

    Raises:
        InputError: a cost that is negative or not finite, or errors that cost no more than being right.
    """

    fn: float = 0.0
    """A miss: a positive that is not alerted on."""
    fp: float = 0.0
    """A false alarm."""
    tp: float = 0.0
    tn: float = 0.0

    def __post_init__(self) -> None:
        problems = Problems()
        for name, value in dataclasses.asdict(self).items():
            problems.check(0 <= value < math.inf, f"cost {name} must be 0 or more and finite, got {value}")
        problems.check(
            (self.fn > self.tp and self.fp >= self.tn) or (self.fn >= self.tp and self.fp > self.tn),
            f"errors must cost more than being right (fn over tp, or fp over tn), got {self}",
        )
        problems.raise_if_any()

    @classmethod
    def parse(cls, costs: Cost | Mapping[str, float]) -> Cost:
        """From `{"fn": 50, "fp": 1}`."""
        if isinstance(costs, Cost):
            return costs
        known = [f.name for f in dataclasses.fields(cls)]
        if not isinstance(costs, Mapping) or costs.keys() - set(known):
            got = ", ".join(sorted(costs.keys() - set(known))) if isinstance(costs, Mapping) else repr(costs)
            raise InputError(f"costs are given for {', '.join(known)}; got {got}")
        try:
            return cls(**{name: float(value) for name, value in costs.items()})
        except (TypeError, ValueError) as error:
            raise (
                error if isinstance(error, InputError) else InputError(f"costs are numbers, got {dict(costs)}")
            ) from None

    def values(self, c: Curve) -> Floats:
        """The expected cost of a case at each threshold."""
        total = self.fn * c.fn + self.fp * c.fp + self.tp * c.tp + self.tn * c.tn
        return total / (c.positives + c.negatives)

    def metric(self) -> ThresholdMetric:
        return ThresholdMetric("cost", self.values, higher_is_better=False)


@dataclass(frozen=True)
class OperatingPoint:
    """A lambda and a threshold, with the needs that it was chosen for and what it achieves."""

    lam: Mapping[str, float]
    """The loss hyperparameters that the model is conditioned on."""
    threshold: float
    """Alert where the probability of being positive is at least this, in [0, 1], at `prior`: `log_odds_threshold` for
    people to read. Near 0 and 1 it is rounded, and different thresholds may share it, so nothing is decided on it."""
    log_odds_threshold: float
    """The threshold as log-odds at `prior`. Every decision is taken on it."""
    prior: float
    """The share of positives where the point is used: what probabilities and metrics are for."""
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    """What it achieves on the samples it was chosen on, at `prior`, with 95% intervals (or the confidence asked
    for)."""
    needs: Mapping[str, Any] = field(default_factory=dict)
    """What was asked for, in words."""
    split: str = "validation"
    """Which samples it was chosen on."""
    n: int = 0
    n_positive: int = 0
    model: str = ""
    """Identity of the model that it belongs to."""
    extrapolated: bool = False
    """Whether its lambda lies outside of the range that the model was trained on."""

    def log_odds(self, log_odds: NDArray[np.floating], prior: float) -> Floats:
        """(N,) log-odds at the point's prior, float64, from those at `lam` for a share `prior` of positives."""
        return log_odds.astype(np.float64) + (logit(self.prior) - logit(prior))

    def decide(self, log_odds: NDArray[np.floating], prior: float) -> NDArray[np.bool_]:
        """Which samples to alert on, from their log-odds at `lam` for a share `prior` of positives."""
        return self.log_odds(log_odds, prior) >= self.log_odds_threshold

    def to_json(self) -> str:
        """The point as JSON, readable by `from_json` and by other programs."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, fits: Fits | None = None) -> OperatingPoint:
        """The point of a JSON text.

        Args:
            fits: what keeps the point of a model's identity and a lambda from being used, to be told with the rest.

        Raises:
            InputError: text that is not JSON, or not an operating point.
        """
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"an operating point is JSON, which this is not: {error}") from None
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            got = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
            if _is_later(got):
                raise InputError(
                    f"the operating point has the format {got!r}, of a later version of tunelater; this version reads "
                    f"{FORMAT!r}: update tunelater"
                )
            raise InputError(f"an operating point has format {FORMAT!r}, got {got!r}; make one with `tunelater tune`")
        problems = _problems_of_point(raw, fits)
        if problems:
            raise InputError(problems)
        known = {f.name for f in dataclasses.fields(cls)}
        values = {name: value for name, value in raw.items() if name in known}
        values["metrics"] = {name: Estimate(*value) for name, value in raw.get("metrics", {}).items()}
        return cls(**values)

    def save(self, path: str | Path) -> None:
        """Write the point as JSON."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path, fits: Fits | None = None) -> OperatingPoint:
        """Read a point that `save` or `tunelater tune --out` wrote; see `from_json`."""
        if not isinstance(path, str | Path):
            raise InputError(f"an operating point is an OperatingPoint or its file, got {type(path).__name__}")
        path = Path(path)
        if not path.is_file():
            raise InputError(f"there is no operating point {path}; make one with `tunelater tune`")
        try:
            return cls.from_json(path.read_text(encoding="utf-8"), fits)
        except InputError as error:
            raise InputError(f"{path}: {problem}" for problem in error.problems) from None
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: an operating point is JSON, which this is not: {error}") from None


def _is_later(found: object) -> bool:
    kind, _, number = FORMAT.partition("/")
    later = re.fullmatch(rf"{re.escape(kind)}/(\d+)", str(found))
    return later is not None and int(later[1]) > int(number)


def _problems_of_point(raw: Mapping[str, Any], fits: Fits | None) -> list[str]:
    """What keeps a parsed JSON object from being an operating point."""

    def number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

    rules: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "lam": ("an object of finite numbers", lambda v: isinstance(v, dict) and all(map(number, v.values()))),
        "threshold": ("a number in [0, 1]", lambda v: number(v) and 0 <= v <= 1),
        "log_odds_threshold": ("a finite number", number),
        "prior": ("a number in (0, 1)", lambda v: number(v) and 0 < v < 1),
        "model": ("a model's identity", lambda v: isinstance(v, str)),
        "needs": ("what `select` was asked for", _are_needs),
        "metrics": (
            "an object of [value, low, high]",
            lambda v: (
                isinstance(v, dict)
                and all(isinstance(e, list) and len(e) == 3 and all(map(number, e)) for e in v.values())
            ),
        ),
    }
    problems = Problems()
    for name, (rule, holds) in rules.items():
        if name in raw:
            problems.check(holds(raw[name]), f"{name!r} of an operating point is {rule}, got {raw[name]!r}")
        else:
            problems.check(name in ("needs", "metrics"), f"the operating point lacks {name!r}")
    if fits is not None and all(name in raw and rules[name][1](raw[name]) for name in ("model", "lam")):
        problems.add(*fits(raw["model"], raw["lam"]))
    if not problems and abs(_sigmoid(raw["log_odds_threshold"]) - raw["threshold"]) > 1e-6:
        problems.add(
            f"threshold {raw['threshold']} and log_odds_threshold {raw['log_odds_threshold']} of a point must"
            " be one threshold; decisions are taken on the second"
        )
    return list(problems)


def _are_needs(needs: Any) -> bool:
    if not isinstance(needs, dict) or not isinstance(needs.get("subject_to", []), list):
        return False
    try:
        _asked_for(needs)
    except (InputError, TypeError, AttributeError):
        return False
    prior = needs.get("prior", 0.5)
    return isinstance(prior, float) and 0 < prior < 1


def _sigmoid(log_odds: float) -> float:
    return 1 / (1 + math.exp(-max(log_odds, -700.0)))


@dataclass(frozen=True)
class OperatingGrid:
    """Every (lambda, threshold) that labelled samples let one choose from.

    Args:
        scores: of samples that the model was not trained on.
        prior: the share of positives where the model will be used, in (0, 1); None takes the samples' own share.
        allow_test: the test split is for reporting, so choosing on it is refused unless this is set.

    Raises:
        InputError: a test split, a prior outside (0, 1), one class only, weights that cannot be used.
    """

    scores: Scores
    prior: float | None = None
    allow_test: bool = False

    def __post_init__(self) -> None:
        problems = Problems()
        problems.check(
            self.scores.split.strip().casefold() != "test" or self.allow_test,
            "an operating point chosen on the test split would be reported on the samples that flatter it: choose on "
            "validation data, or say allow_test=True",
        )
        problems.add(*_problems_of_prior(self.prior))
        problems.add(*_problems_of_classes(self.scores, "choosing"))
        problems.raise_if_any()

    def select(
        self,
        *,
        maximize: str | None = None,
        minimize: str | None = None,
        cost: Cost | Mapping[str, float] | None = None,
        subject_to: str | Sequence[str] = (),
        confidence: float = 0.95,
        seed: int = 0,
        bootstrap: int | None = None,
    ) -> OperatingPoint:
        """The best operating point for a need.

        Exactly one of `maximize`, `minimize` and `cost` says what is best. A metric of a threshold (`precision`, `f1`,
        ...) is searched over every lambda and threshold. A metric of a whole lambda (`brier`, `auc`, ...) picks the
        lambda; the threshold is then the allowed one nearest to probability 0.5. Among equals the higher recall wins,
        then the lambda that comes first.

        Args:
            cost: what outcomes cost, for instance `{"fn": 50, "fp": 1}`: the lowest expected cost is best.
            subject_to: constraints such as `"recall>=0.9"`, all of which must hold on the samples.
            confidence: of the intervals, in (0, 1).
            seed: of the intervals' draws, a whole number from 0 up.
            bootstrap: intervals from so many resamples; see `assess`.

        Raises:
            InputError: no objective or several, unknown metrics, constraints that do not read, a confidence or seed out
                of range.
            Infeasible: no operating point meets the constraints; says what is attainable.
        """
        need = _Need.of(maximize, minimize, cost, subject_to, problems_of_draws(confidence, seed, bootstrap))
        return _chosen(lambda: [self], need, confidence, seed, bootstrap)

    def _best(self, need: _Need) -> _Candidate | None:
        """The best lambda and threshold for a need, None where no threshold of any lambda is allowed."""
        objective, constraints = need.objective, need.constraints
        curve_at = self._curves(need)
        whole = self._whole(objective) if isinstance(objective, Metric) else None
        half = logit(self.scores.prior) - logit(self._deployment_prior)
        candidates = per_lambda(
            lambda i: (
                _best_of(curve_at(i), objective, constraints, i)
                if isinstance(objective, ThresholdMetric)
                else self._nearest_to_half(curve_at(i), constraints, half, i)
            ),
            len(self.scores),
        )
        if whole is not None:
            merits = whole if objective.higher_is_better else -whole
            candidates = [c and c._replace(merit=float(merits[c.at])) for c in candidates]
            candidates = [None if c is None or math.isnan(c.merit) else c for c in candidates]
        return max((c for c in candidates if c is not None), key=lambda c: (c.merit, c.recall, -c.at), default=None)

    def _point(self, best: _Candidate, need: _Need) -> OperatingPoint:
        """The operating point of a candidate, without what it achieves yet."""
        s, shift = self.scores, logit(self._deployment_prior) - logit(self.scores.prior)
        log_odds = 0.0 if best.lowest is None else _between(best.lowest, s.log_odds[best.at]) + shift
        return OperatingPoint(
            lam=s.lam(best.at),
            threshold=_sigmoid(log_odds),
            log_odds_threshold=log_odds,
            prior=self._deployment_prior,
            needs=need.in_words | ({} if self.prior is None else {"prior": self.prior}),
            split=s.split,
            n=len(s.target),
            n_positive=int((s.target == 1).sum()),
            model=s.model,
            extrapolated=bool(s.extrapolated[best.at]) if s.extrapolated is not None else False,
        )

    @property
    def _deployment_prior(self) -> float:
        """The share of positives that points are for: as stated, or the samples' own."""
        if self.prior is not None:
            return self.prior
        weight = np.ones(len(self.scores.target)) if self.scores.weight is None else self.scores.weight
        return float(weight[self.scores.target == 1].sum() / weight.sum())

    def _curves(self, need: _Need) -> Callable[[int], Curve]:
        """The curve of a lambda, with the thresholds that the need lets matter, its counts as shares at the deployment
        prior where one is stated."""
        s, labels = self.scores, Labels.of(self.scores.target)
        every_score = not all(c.is_demanding for c in need.constraints)

        def curve(i: int) -> Curve:
            ranking = Ranking(s.log_odds[i], labels)
            c = ranking.full_curve(s.weight) if every_score else ranking.curve(s.weight)
            return c if self.prior is None else c.at_prior(self.prior)

        return curve

    def _nearest_to_half(
        self, c: Curve, constraints: Sequence[Constraint], half: float, index: int
    ) -> _Candidate | None:
        """Probability 0.5 where the constraints allow it, else the allowed threshold nearest to it; without a merit
        yet.

        Args:
            half: the log-odds at the scores' prior at which the probability at the deployment prior is 0.5.
        """
        s = self.scores
        weight = np.ones(len(s.target)) if s.weight is None else s.weight
        at_half = _confusion(weight, s.target, s.log_odds[index] >= half, self.prior)
        if _feasible(at_half, constraints).all():
            return _Candidate(index, None, 0.0, float(recall(at_half)[0]))
        allowed = np.flatnonzero(_feasible(c, constraints))
        if not len(allowed):
            return None
        nearest = allowed[np.argmin(np.abs(c.threshold[allowed] - half))]
        return _Candidate(index, float(c.threshold[nearest]), 0.0, float(c.tp[nearest] / c.positives))

    def _whole(self, objective: Metric) -> Floats:
        s = self.scores
        shift = np.float32(logit(self._deployment_prior) - logit(s.prior))
        weight = s.weight if self.prior is None else prior_weight(s.target, s.weight, self.prior)
        return np.array(
            per_lambda(lambda i: evaluate_one(s.log_odds[i] + shift, s.target, weight, [objective])[0], len(s))
        )


def assess(
    point: OperatingPoint,
    scores: Scores,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    bootstrap: int | None = None,
) -> dict[str, Estimate]:
    """What a point achieves on other labelled samples, with intervals.

    A prior that the point was chosen for holds here too; otherwise the samples' own share of positives counts.

    The intervals come from posteriors of the error rates and from influences (`tunelater.intervals`), or, if
    `bootstrap` says so, from resampling each class. With few positives the latter are too narrow where a metric is near
    its end (`benchmarks/README.md`), and a point where no error was seen.

    Args:
        scores: of one lambda, the point's (or a grid that contains it).
        confidence: of the intervals, in (0, 1).
        seed: of the intervals' draws, a whole number from 0 up.
        bootstrap: None, or the number of resamples, 100 or more, that percentile intervals are taken from. They keep
            the size of each class.

    Raises:
        InputError: scores of another model, of other lambdas or of one class; a confidence, seed or number of resamples
            out of range.
    """
    problems = Problems()
    index = _index(point, scores, problems)
    problems.add(*_problems_of_classes(scores, "assessing"), *problems_of_draws(confidence, seed, bootstrap))
    problems.raise_if_any()
    return _estimates(point, scores, index, point.needs.get("prior"), confidence, seed, bootstrap)


def compare(
    a: tuple[OperatingPoint, Scores],
    b: tuple[OperatingPoint, Scores],
    name: str,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    n: int = 2000,
) -> Estimate:
    """How much more of a metric operating point `a` achieves than `b` on the same labelled samples.

    The comparison is paired: what the two points have in common cancels. Threshold metrics come from draws of the joint
    cells of their decisions, the others are means of differences with their t intervals. Differences are of the metric
    as it is: negative is better for a cost or a Brier score.

    Args:
        a, b: points with scores that contain their lambda, of the same samples in the same order, at one prior.
        name: a threshold metric, `cost` where both points were chosen for the same costs, `brier` or `log_loss`.
        confidence: of the interval, in (0, 1).
        seed: of the interval's draws, a whole number from 0 up.
        n: how many draws.

    Raises:
        InputError: other samples, different priors or costs, one class only, a metric that this is not made for, or a
            confidence, seed or number of draws out of range.
    """
    problems = Problems()
    for mine, theirs, what in ((a[1].target, b[1].target, "samples"), (a[1].weight, b[1].weight, "weights")):
        problems.check(np.array_equal(mine, theirs), f"comparing needs scores of the same {what} in the same order")  # type: ignore[arg-type]
    for need in ("prior", "cost"):
        got = [point.needs.get(need) for point, _ in (a, b)]
        problems.check(got[0] == got[1], f"comparing needs points of one {need}, got {got[0]} and {got[1]}")
    if name == "cost":
        problems.check("cost" in a[0].needs, "comparing costs needs points that were chosen for costs")
    rows = [_index(point, scores, problems) for point, scores in (a, b)]
    problems.add(*_problems_of_classes(a[1], "comparing"), *problems_of_draws(confidence, seed))
    problems.check(isinstance(n, Integral) and n >= 1, f"an interval needs one or more draws n, got {n!r}")
    if name not in ("brier", "log_loss", "cost"):
        try:
            threshold_metric(name)
        except InputError as error:
            problems.add(*error.problems)
    problems.raise_if_any()
    weight, prior = a[1].weight, a[0].needs.get("prior")
    if name in ("brier", "log_loss"):
        losses = [_losses(point, scores, row, name) for (point, scores), row in zip((a, b), rows, strict=True)]
        return of_mean(losses[0] - losses[1], a[1].target, weight, prior=prior, confidence=confidence)
    of_threshold = Cost.parse(a[0].needs["cost"]).metric() if name == "cost" else threshold_metric(name)
    alerts = [p.decide(s.log_odds[row], s.prior) for (p, s), row in zip((a, b), rows, strict=True)]
    base = np.ones(len(a[1].target)) if weight is None else weight
    first, second = (of_threshold.values(_confusion(base, a[1].target, alert, prior)) for alert in alerts)
    observed = float(first[0] - second[0])
    first, second = map(of_threshold.values, _drawn_pair(base, a[1].target, alerts, prior, seed, n))
    tail = (1 - confidence) / 2 * 100
    low, high = np.percentile(first - second, [tail, 100 - tail])
    return Estimate(observed, min(float(low), observed), max(float(high), observed))


def _index(point: OperatingPoint, scores: Scores, problems: Problems) -> int:
    """Where a point's lambda is among scores of its own model."""
    same = not point.model or not scores.model or point.model == scores.model
    problems.check(same, f"the operating point belongs to model {point.model}, the scores to model {scores.model}")
    index = next((i for i in range(len(scores)) if _same_lambda(scores.lam(i), point.lam)), None)
    problems.check(index is not None, f"the scores do not contain the point's lambda {dict(point.lam)}")
    return index or 0


def _problems_of_classes(scores: Scores, job: str) -> list[str]:
    weight = np.ones(len(scores.target)) if scores.weight is None else scores.weight
    return [
        f"{job} needs samples of both classes, got none of class {c} (or no weight)"
        for c in (0, 1)
        if not weight[scores.target == c].sum() > 0
    ]


def problems_of_draws(confidence: float = 0.95, seed: int = 0, bootstrap: int | None = None) -> list[str]:
    """What keeps intervals from being drawn."""
    problems = problems_of_confidence(confidence)
    if bootstrap is not None and not (
        isinstance(bootstrap, Integral) and not isinstance(bootstrap, bool) and bootstrap >= 100
    ):
        problems.append(f"a bootstrap needs 100 resamples or more (1000 are customary), got {bootstrap!r}")
    if not (isinstance(seed, Integral) and not isinstance(seed, bool) and 0 <= seed < 2**64):
        problems.append(f"a seed is a whole number from 0 up (under 2^64), got {seed!r}")
    return problems


def _losses(point: OperatingPoint, scores: Scores, row: int, name: str) -> Floats:
    """(N,) what each sample adds to the Brier score or log-loss, at the point's prior."""
    log_odds = point.log_odds(scores.log_odds[row], scores.prior)
    return sample_scores(log_odds, Labels.of(scores.target).sign)[metric(name).proper].numpy()


def _drawn_pair(
    weight: Floats, target: NDArray, alerts: Sequence[NDArray[np.bool_]], prior: float | None, seed: int, n: int
) -> list[Curve]:
    """(n,) confusion shares of two decisions on the same samples.

    Within each class the four cells (both alert, one, the other, none) are drawn from their posterior under Jeffreys'
    prior, so that what the two agree on cancels, and agreement on a few samples is not taken for agreement on all.
    """
    rng = keyed_rng(seed, "posterior")
    rates = []
    for c in (1, 0):
        w, (first, second) = weight[target == c], (alert[target == c] for alert in alerts)
        cells = np.array([w[first & second].sum(), w[first & ~second].sum(), w[~first & second].sum(), 0.0])
        cells[3] = w.sum() - cells.sum()
        drawn = rng.dirichlet(np.maximum(cells, 0) / w.sum() * effective_size(w) + 0.5, n)
        rates.append((drawn[:, 0] + drawn[:, 1], drawn[:, 0] + drawn[:, 2]))
    share = _drawn_share(rng, weight, target == 1, n) if prior is None else np.full(n, prior)
    curves = []
    for i in range(2):
        tp, fp, nothing = rates[0][i] * share, rates[1][i] * (1 - share), np.zeros(n)
        curves.append(Curve(nothing, tp, fp, tp, fp, nothing, share, 1 - share))
    return curves


def _same_lambda(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    return a.keys() == b.keys() and all(math.isclose(a[k], b[k], rel_tol=1e-9, abs_tol=1e-12) for k in a)


# ------------------------------------------------------------------------------------------- the search


class _Candidate(NamedTuple):
    at: int
    lowest: float | None
    """The lowest log-odds alerted on, at the scores' prior; None for probability 0.5."""
    merit: float
    recall: float


@dataclass(frozen=True)
class _Need:
    """What a point is chosen for."""

    objective: ThresholdMetric | Metric
    constraints: Sequence[Constraint]
    in_words: dict[str, Any]

    @classmethod
    def of(
        cls,
        maximize: str | None,
        minimize: str | None,
        cost: Cost | Mapping[str, float] | None,
        subject_to: str | Sequence[str],
        found: Iterable[str] = (),
    ) -> _Need:
        """From the arguments of `select`; everything wrong with them, and what was found already, at once."""
        problems = Problems()
        told: dict[str, Any] = {"maximize": maximize, "minimize": minimize, "cost": cost}
        given = [name for name, value in told.items() if value is not None]
        problems.check(len(given) == 1, f"say one of maximize, minimize and cost, got {' and '.join(given) or 'none'}")
        objective: ThresholdMetric | Metric | None = None
        constraints = []
        try:
            if cost is not None:
                told["cost"] = dataclasses.asdict(Cost.parse(cost))
                objective = Cost.parse(cost).metric()
            elif maximize is not None or minimize is not None:
                objective = _objective(maximize if maximize is not None else minimize)
                wanted = "maximize" if objective.higher_is_better else "minimize"
                problems.check(wanted in given, f"{objective.name} is something to {wanted}")
        except InputError as error:
            problems.add(*error.problems)
        if not isinstance(subject_to, str | Sequence):
            problems.add(f"constraints are a list such as ['recall>=0.9'], got {type(subject_to).__name__}")
            subject_to = ()
        for text in [subject_to] if isinstance(subject_to, str) else subject_to:
            try:
                constraints.append(Constraint.parse(text))
            except InputError as error:
                problems.add(*error.problems)
        problems.add(*found)
        problems.raise_if_any()
        assert objective is not None
        told["subject_to"] = [str(c) for c in constraints]
        return cls(objective, constraints, {name: value for name, value in told.items() if value})


def select_from(
    score: Callable[[Lambdas], Scores],
    lambdas: Lambdas,
    n: int,
    *,
    prior: float | None = None,
    allow_test: bool = False,
    maximize: str | None = None,
    minimize: str | None = None,
    cost: Cost | Mapping[str, float] | None = None,
    subject_to: str | Sequence[str] = (),
    bootstrap: int | None = None,
    memory_mb: int = 1024,
) -> OperatingPoint:
    """As `OperatingGrid.select`, over grids of any size: lambdas are scored and searched in parts of bounded memory.

    Args:
        score: scores of the same samples at the lambdas that it is given.
        lambdas: (L,) arrays by name.
        n: the number of samples.
        memory_mb: bound on the scores held at a time, MiB; two lambdas at the least.

    Raises:
        InputError, Infeasible: as `OperatingGrid` and its `select`.
    """
    need = _Need.of(maximize, minimize, cost, subject_to, problems_of_draws(0.95, 0, bootstrap))
    size = max((len(values) for values in lambdas.values()), default=1)
    at_once = max(1, memory_mb * 2**20 // (2 * 4 * max(n, 1)))  # a part lives on while the next is scored

    def parts() -> Iterable[OperatingGrid]:
        for start in range(0, size, at_once):
            part = {name: values[start : start + at_once] for name, values in lambdas.items()}
            yield OperatingGrid(score(part), prior, allow_test)

    return _chosen(parts, need, confidence=0.95, seed=0, bootstrap=bootstrap)


def _chosen(
    parts: Callable[[], Iterable[OperatingGrid]], need: _Need, confidence: float, seed: int, bootstrap: int | None
) -> OperatingPoint:
    """The best operating point of the same samples' grids, with what it achieves."""
    best: tuple[float, float] | None = None
    chosen: tuple[OperatingPoint, Scores, float | None] | None = None
    for grid in parts():
        candidate = grid._best(need)
        if candidate is not None and (best is None or (candidate.merit, candidate.recall) > best):
            best = candidate.merit, candidate.recall
            row = dataclasses.replace(
                grid.scores,
                log_odds=grid.scores.log_odds[[candidate.at]],  # a copy, so that the others can go
                lambdas={name: values[[candidate.at]] for name, values in grid.scores.lambdas.items()},
                extrapolated=None,
            )
            chosen = grid._point(candidate, need), row, grid.prior
    if chosen is None:
        raise Infeasible(_attainable(parts(), need))
    point, scores, prior = chosen
    return dataclasses.replace(point, metrics=_estimates(point, scores, 0, prior, confidence, seed, bootstrap))


def problems_of_needs(
    *,
    maximize: str | None = None,
    minimize: str | None = None,
    cost: Cost | Mapping[str, float] | None = None,
    subject_to: str | Sequence[str] = (),
    prior: float | None = None,
) -> list[str]:
    """Everything wrong with what `select` would be asked for, before there are scores to ask it of."""
    problems = Problems()
    problems.add(*_problems_of_prior(prior))
    try:
        _Need.of(maximize, minimize, cost, subject_to)
    except InputError as error:
        problems.add(*error.problems)
    return list(problems)


def _problems_of_prior(prior: object) -> list[str]:
    sound = prior is None or (isinstance(prior, int | float | np.number) and 0 < prior < 1)
    return [] if sound else [f"a prior lies in (0, 1), got {prior!r}"]


def _objective(name: object) -> ThresholdMetric | Metric:
    if not isinstance(name, str):
        raise InputError(f"what to maximize or minimize is the name of a metric, got {name!r}")
    inner, _, constraint = name.removeprefix("best_").partition("@")
    if name.startswith("best_") or (constraint and inner != "partial_auc"):
        how = f", subject to {constraint!r}" if constraint else ""
        raise InputError(
            f"{name!r} already is the best over thresholds: ask for {inner!r}{how}, which finds the threshold"
        )
    try:
        return threshold_metric(name)
    except InputError as unknown:
        try:
            return metric(name)
        except InputError as also_unknown:
            better = [e for e in (unknown, also_unknown) if "did you mean" in str(e)]
            raise (better or [also_unknown])[0] from None


def _feasible(c: Curve, constraints: Sequence[Constraint]) -> NDArray[np.bool_]:
    allowed = np.ones(len(c.threshold), bool)
    for constraint in constraints:
        allowed &= constraint.holds(constraint.metric.values(c))
    return allowed


def _best_of(c: Curve, objective: ThresholdMetric, constraints: Sequence[Constraint], index: int) -> _Candidate | None:
    """The best threshold of one lambda, or None where none is allowed."""
    allowed = np.flatnonzero(_feasible(c, constraints))
    if not len(allowed):
        return None
    merits = objective.values(c)[allowed] * (1 if objective.higher_is_better else -1)
    last = len(merits) - 1 - int(np.argmax(merits[::-1]))  # the laxest of equals: it has the higher recall
    best = allowed[last]
    return _Candidate(index, float(c.threshold[best]), float(merits[last]), float(c.tp[best] / c.positives))


WITH_INTERVALS = ("auc", "average_precision", "brier", "log_loss")
"""Metrics of a lambda whose intervals come from influences."""
RESAMPLES = 1000
"""Behind the interval of any other metric of a lambda."""
WITH_INTERVALS = ("auc", "average_precision", "brier", "log_loss")
"""Metrics of a lambda whose intervals come from influences."""
RESAMPLES = 1000
"""Behind the interval of any other metric of a lambda."""
BEYOND = 1e6
"""Log-odds that no score reaches: the threshold of alerting on nobody, and negative, on everybody."""


def _between(lowest: float, log_odds: NDArray[np.floating]) -> float:
    """A threshold halfway from the lowest score alerted on to the next below: the same decisions, whatever the rounding
    of another machine."""
    if math.isinf(lowest):
        return BEYOND
    spared = log_odds[log_odds < lowest]
    return lowest / 2 + float(spared.max()) / 2 if len(spared) else -BEYOND


def _attainable(parts: Iterable[OperatingGrid], need: _Need) -> list[str]:
    """For each constraint, the furthest that its metric goes: alone, and with the others met."""
    constraints = need.constraints

    def reach(c: Curve) -> list[tuple[float, float]]:
        rows = []
        for constraint in constraints:
            values = constraint.metric.values(c)
            others = _feasible(c, [other for other in constraints if other is not constraint])
            rows.append((constraint.best(values), constraint.best(values[others]) if others.any() else math.nan))
        return rows

    def reaches(grid: OperatingGrid) -> list[list[tuple[float, float]]]:
        curve_at = grid._curves(need)
        return per_lambda(lambda i: reach(curve_at(i)), len(grid.scores))

    reached = np.array([row for grid in parts for row in reaches(grid)])
    lines = [f"no lambda and threshold meets {' and '.join(map(str, constraints))} on these samples"]
    for j, constraint in enumerate(constraints):
        alone, together = (constraint.best(column[~np.isnan(column)]) if (~np.isnan(column)).any() else None
                           for column in (reached[:, j, 0], reached[:, j, 1]))  # fmt: skip
        others = " and ".join(str(c) for c in constraints if c is not constraint)
        line = f"{constraint.metric.name} reaches {alone:.4g}"
        if others:
            line += (
                f" alone, and {together:.4g} with {others}"
                if together is not None
                else f" alone; {others} already fails"
            )
        lines.append(line)
    return ["; ".join(lines)]


# ------------------------------------------------------------------------------------------- estimates


def _estimates(
    point: OperatingPoint,
    scores: Scores,
    index: int,
    prior: float | None,
    confidence: float,
    seed: int,
    bootstrap: int | None,
) -> dict[str, Estimate]:
    """Every metric of a point on samples, with intervals.

    Metrics of the threshold come from draws of the two error rates from their posteriors under Jeffreys' prior, recall
    ~ Beta(tp + 1/2, fn + 1/2) and likewise for the negatives (counts scaled to the effective number of samples where
    there are weights): unlike resampling, these do not collapse to a point where no error was seen. Metrics of the
    lambda have the intervals of `tunelater.intervals`; one that this does not know (a partial AUC that was asked for)
    has that of a bootstrap within each class, of 1000 resamples. Where no prior is stated, the share of positives is
    uncertain too; at a stated prior it is fixed.
    """
    target = scores.target
    log_odds = point.log_odds(scores.log_odds[index], scores.prior)
    weight = np.ones(len(target)) if scores.weight is None else scores.weight
    alerts = point.decide(scores.log_odds[index], scores.prior)
    tail = (1 - confidence) / 2 * 100
    of_threshold, of_lambda = _asked_for(point.needs)
    names = {**THRESHOLD_METRICS, **of_threshold}

    observed = _confusion(weight, target, alerts, prior)
    draws = _drawn_confusion(weight, target, alerts, prior, seed)
    out = {}
    for name, m in names.items():
        out[name] = _within(float(m.values(observed)[0]), m.values(draws), tail)

    out |= of_ranking(scores.log_odds[index], target, weight, prior=prior, confidence=confidence)
    out |= of_proper_scores(log_odds, target, weight, prior=prior, confidence=confidence)
    values = evaluate_one(scores.log_odds[index], target, weight, [*of_lambda.values()])
    values_of = {name: e.value for name, e in out.items()} | dict(zip(of_lambda, values, strict=True))
    drawn: Mapping[str, Floats] = {}
    if bootstrap is not None:
        wanted = {name: metric(name) for name in out if name not in names}
        drawn = _resampled(log_odds, alerts, target, weight, prior, names, wanted | of_lambda, int(bootstrap), seed)
    elif of_lambda:
        drawn = _resampled(log_odds, alerts, target, weight, prior, {}, of_lambda, RESAMPLES, seed)
    return out | {name: _within(values_of[name], draws, tail) for name, draws in drawn.items()}


def _asked_for(needs: Mapping[str, Any]) -> tuple[dict[str, ThresholdMetric], dict[str, Metric]]:
    """The metrics that needs name: those of a threshold, and those of a lambda for which `tunelater.intervals` has
    none."""
    of_threshold: dict[str, ThresholdMetric] = {}
    of_lambda: dict[str, Metric] = {}
    if "cost" in needs:
        of_threshold["cost"] = Cost.parse(needs["cost"]).metric()
    for name in (needs[way] for way in ("maximize", "minimize") if way in needs):
        asked = _objective(name)
        if isinstance(asked, ThresholdMetric):
            of_threshold[name] = asked
        elif name not in WITH_INTERVALS:
            of_lambda[name] = asked
    constraints = (Constraint.parse(text).metric for text in needs.get("subject_to", ()))
    return of_threshold | {m.name: m for m in constraints}, of_lambda


def _within(value: float, draws: Floats, tail: float) -> Estimate:
    low, high = np.percentile(draws, [tail, 100 - tail])
    return Estimate(value, min(float(low), value), max(float(high), value))


def _resampled(
    log_odds: Floats,
    alerts: NDArray[np.bool_],
    target: NDArray,
    weight: Floats,
    prior: float | None,
    of_threshold: Mapping[str, ThresholdMetric],
    of_lambda: Mapping[str, Metric],
    n: int,
    seed: int,
) -> dict[str, Floats]:
    """(n,) values of each metric on samples drawn with replacement within each class, as weights: nothing is copied."""
    rng = keyed_rng(seed, "bootstrap")
    labels = Labels.of(target)
    ranking, losses = Ranking(log_odds, labels), [loss.numpy() for loss in sample_scores(log_odds, labels.sign)]
    total = {1: float(weight[labels.positive].sum()), 0: float(weight[labels.negative].sum())}
    cells, whole = np.empty((4, n)), np.empty((len(of_lambda), n))
    for i in range(n):
        drawn = np.empty(len(weight))
        for k, rows in ((1, labels.positive), (0, labels.negative)):
            counts = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows))) * weight[rows]
            # Weights that happen to be all zero in a resample leave the class as it is.
            drawn[rows] = counts * (total[k] / counts.sum()) if counts.sum() > 0 else weight[rows]
        w = drawn if prior is None else prior_weight(target, drawn, prior)
        curve = ranking.curve(w)
        cells[:, i] = _cells(drawn, target, alerts)
        whole[:, i] = [
            float(m.of_curve(curve)[0]) if m.of_curve else float(w @ losses[m.proper] / w.sum())
            for m in of_lambda.values()
        ]
    c = _single(cells, prior)
    return {name: m.values(c) for name, m in of_threshold.items()} | dict(zip(of_lambda, whole, strict=True))


def _confusion(weight: Floats, target: NDArray, alerts: NDArray[np.bool_], prior: float | None) -> Curve:
    return _single(_cells(weight, target, alerts)[:, None], prior)


def _cells(weight: Floats, target: NDArray, alerts: NDArray[np.bool_]) -> Floats:
    """(4,) tp, fn, fp and tn. Each is a sum of its own: the rest of another would leave rounding where there is
    nothing."""
    return np.array([weight[(target == c) & which].sum() for c in (1, 0) for which in (alerts, ~alerts)])


def _single(cells: Floats, prior: float | None) -> Curve:
    """One decision in n samples, from their (4, n) `_cells`."""
    tp, fn, fp, tn = cells
    nothing = np.zeros_like(tp)
    c = Curve(nothing, tp, fp, tp, fp, nothing, tp + fn, fp + tn)
    return c if prior is None else c.at_prior(prior)


def _drawn_confusion(
    weight: Floats, target: NDArray, alerts: NDArray[np.bool_], prior: float | None, seed: int, n: int = 4000
) -> Curve:
    """(n,) confusion shares under draws of both rates, and of the share of positives where no prior is stated."""
    rng = keyed_rng(seed, "posterior")
    rates = [_drawn_share(rng, weight[target == c], alerts[target == c], n) for c in (1, 0)]
    share = _drawn_share(rng, weight, target == 1, n) if prior is None else np.full(n, prior)
    tp, fp, nothing = rates[0] * share, rates[1] * (1 - share), np.zeros(n)
    return Curve(nothing, tp, fp, tp, fp, nothing, share, 1 - share)


def _drawn_share(rng: np.random.Generator, weight: Floats, yes: NDArray[np.bool_], n: int) -> Floats:
    """(n,) draws of the weighted share of `yes` from its posterior under Jeffreys' prior, with Kish's effective
    size."""
    effective = effective_size(weight)
    share = float(weight[yes].sum() / weight.sum())
    return rng.beta(share * effective + 0.5, (1 - share) * effective + 0.5, n)
