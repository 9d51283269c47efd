"""What a choice is worth on other samples, in spite of having been made on these.

Choosing among many lambdas and thresholds on few positives finds what is good by luck too. So the choice is
repeated, the same in every respect, under other weights of the same samples:

* cross-fitting: the samples are divided into folds, stratified by class (and subgroup), and each fold is decided by the
  choice made on the others, several times with other folds. These decisions are pooled.
* bootstrap: the choice is repeated on resamples too, and the intervals count how far the choices are apart.

Cross-fitted decisions of two ways to choose, with lambda and with the default lambda alone, are compared in pairs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tunelater.assessment import confusion_shares, drawn_confusion, drawn_pair, metrics_told, resamples, worst
from tunelater.distributions import Lambda, keyed_rng
from tunelater.intervals import Estimate, of_mean
from tunelater.metrics import Curve, Floats, Metric, Ranking, ThresholdMetric, lowest, prior_weight, sample_scores
from tunelater.needs import text_of
from tunelater.points import AgainstDefault
from tunelater.scoring import Scores
from tunelater.search import Ranked, Task, Weighting

FOLDS = 5
REPEATS = 10
NOTED = 0.05
"""The p-value up to which choosing lambda is said to help."""


@dataclass(frozen=True, eq=False)
class Folds:
    """(B, N) which fold each sample is in, in each of B divisions."""

    of_sample: NDArray[np.int8]
    n: int

    @classmethod
    def of(cls, task: Task, scores: Scores, seed: int, repeats: int = REPEATS) -> Folds | None:
        """Stratified by class, by the columns of subgroup constraints, and by having weight at all; None where a class
        has a single sample."""
        counts = task.weight > 0
        smallest = min(int((counts & (task.labels.sign == sign)).sum()) for sign in (-1, 1))
        n = min(FOLDS, smallest)
        if n < 2:
            return None
        keys = [task.labels.sign, counts, *(text_of(scores.columns[name]) for name in task.need.grouped)]
        strata = np.zeros(len(counts), np.int64)
        for key in keys:
            codes = np.unique(key, return_inverse=True)[1]
            strata = np.unique(strata * (codes.max() + 1) + codes, return_inverse=True)[1]
        order = np.argsort(strata, kind="stable")
        sizes = np.bincount(strata)
        fold = np.empty((repeats, len(strata)), np.int8)
        rng = keyed_rng(seed, "folds")
        for b in range(repeats):
            # Shuffled within strata, and dealt out one by one through all of them, so that folds are of one size.
            for part in np.split(np.arange(len(order)), np.cumsum(sizes)[:-1]):
                fold[b, order[part]] = rng.permutation(part) % n
        return cls(fold, n)

    def weighting(self, task: Task) -> Weighting:
        """(N, B * n) the samples' weights, none in the fold that is held out: weighting b * n + f holds out fold f of
        division b."""
        held = self.of_sample[:, None, :] == np.arange(self.n)[None, :, None]
        w = np.where(held, 0.0, task.weight).reshape(-1, len(task.weight))
        return task.weighting(np.ascontiguousarray(w.T, np.float32), 1 - 1 / self.n)

    def held(self, r: int) -> NDArray[np.bool_]:
        """(N,) which samples weighting r holds out."""
        return self.of_sample[r // self.n] == r % self.n


def bootstraps(task: Task, n: int, seed: int, memory: int = 2**28) -> Iterable[Weighting]:
    """`resamples` as weightings, so many at a time that they fit in `memory` bytes."""
    at_once = max(1, memory // (4 * len(task.weight)))
    target = (task.labels.sign < 0).astype(np.int8)
    block: list[NDArray[np.float32]] = []
    for i, row in enumerate(resamples(target, task.weight, n, seed)):
        block.append(row.astype(np.float32))
        if len(block) == at_once or i == n - 1:
            yield task.weighting(np.ascontiguousarray(np.stack(block).T))
            block = []


@dataclass(frozen=True, eq=False)
class Decided:
    """B decisions about each of N samples, and the log-odds (at the scores' prior) that they were taken on."""

    alerts: NDArray[np.bool_]
    """(B, N)."""
    log_odds: NDArray[np.float32]
    """(B, N), or (1, N) where all were taken on the same."""
    calibrated: NDArray[np.float32] | None = None
    """The same log-odds calibrated, at the point's prior, where probabilities are."""

    @classmethod
    def empty(cls, b: int, n: int, *, calibrated: bool = False) -> Decided:
        more = np.zeros((b, n), np.float32) if calibrated else None
        return cls(np.zeros((b, n), bool), np.zeros((b, n), np.float32), more)


def figures(
    task: Task, scores: Scores, decided: Decided, weight: NDArray[np.floating], prior: float | None
) -> dict[str, Floats]:
    """(B,) values of the metrics that a point tells, of each set of decisions; of a subgroup that weights leave without
    a class, NaN.

    Args:
        weight: (N,) or, one for each set, (B, N).
    """
    alerts, positive = decided.alerts, task.labels.sign < 0

    def cells(rows: NDArray[np.bool_]) -> Floats:
        return np.stack(
            [_sums(which, weight, rows & of) for of in (positive, ~positive) for which in (alerts, ~alerts)]
        )

    overall = cells(np.ones(len(positive), bool))
    curve = confusion_shares(overall, prior)
    out = {name: m.values(curve) for name, m in metrics_told(task.need)[0].items()}
    totals = overall[:2].sum(axis=0), overall[2:].sum(axis=0)
    for name, metric, rows in _of_groups(task, scores):
        within = cells(rows)
        if prior is not None:
            within = within * np.repeat(np.stack([prior / totals[0], (1 - prior) / totals[1]]), 2, axis=0)
        defined = (within[:2].sum(axis=0) > 0) & (within[2:].sum(axis=0) > 0)
        values = metric.values(confusion_shares(np.where(defined, within, 1.0), None))
        out[name] = np.where(defined, values, np.nan)
    for name, loss in _losses(task, decided).items():
        of_class = [_sums(loss, weight, rows) for rows in (positive, ~positive)]
        if prior is None:
            out[name] = sum(of_class) / sum(totals)
        else:
            out[name] = prior * of_class[0] / totals[0] + (1 - prior) * of_class[1] / totals[1]
    if isinstance(task.need.objective, Metric) and task.need.objective.of_curve is not None:
        out[task.need.objective.name] = _of_curves(task, decided, weight, prior, task.need.objective)
    return {name: np.broadcast_to(value, len(alerts)) for name, value in out.items()}


def _sums(values: NDArray, weight: NDArray[np.floating], rows: NDArray[np.bool_]) -> Floats:
    """(B,) weighted sums over some samples of (B, N) values, or of (1, N) that are the same for every weighting.

    No product of matrices, for which BLAS would wake its threads, and sum differently with each number of them.
    """
    index = np.flatnonzero(rows)
    some, of_sample = values[:, index].astype(np.float64), np.atleast_2d(weight)[:, index]
    return np.einsum("bn,bn->b", *np.broadcast_arrays(some, of_sample))


def _of_groups(task: Task, scores: Scores) -> list[tuple[str, ThresholdMetric, NDArray[np.bool_]]]:
    """The metric of each constraint within each subgroup that has both classes, as a point tells it."""
    out = []
    positive = task.labels.sign < 0
    for c, rows in task.groups:
        if task.weight[rows & positive].any() and task.weight[rows & ~positive].any():
            value = text_of(scores.columns[str(c.every)][rows][:1])[0]
            out.append((f"{c.metric.name}[{c.every}={value}]", c.metric, rows))
    return out


def _losses(task: Task, decided: Decided) -> dict[str, Floats]:
    """(B, N) what samples add to each metric that is a mean over them, or (1, N)."""
    if decided.calibrated is None:
        log_odds = decided.log_odds.astype(np.float64) - task.half
    else:
        log_odds = decided.calibrated.astype(np.float64)
    brier, log_loss = (loss.numpy() for loss in sample_scores(log_odds, task.labels.sign))
    out = {"brier": brier, "log_loss": log_loss}
    return out if task.costs is None else out | {"cost": task.costs.of(decided.alerts)}


def _of_curves(
    task: Task, decided: Decided, weight: NDArray[np.floating], prior: float | None, objective: Metric
) -> Floats:
    assert objective.of_curve is not None
    rows, weights, values = decided.log_odds, np.atleast_2d(weight), []
    for b in range(max(len(rows), len(weights))):
        if b < len(rows):
            ranking = Ranking(rows[b], task.labels)
        curve = ranking.curve(weights[min(b, len(weights) - 1)])
        values.append(float(objective.of_curve(curve if prior is None else curve.at_prior(prior))[0]))
    return np.array(values)


# ------------------------------------------------------------------------------------------- corrected estimates


def cross_fitted(task: Task, scores: Scores, decided: Decided, *, confidence: float, seed: int) -> dict[str, Estimate]:
    """Every metric of the decisions of cross-fitting, with intervals; at the worst of the priors for each.

    Within one division each sample is decided once, by a choice that did not see it. Values are means over divisions.
    Variances are those of the samples (as of decisions that were not chosen) and of the divisions, added: the second
    says how much the choice hangs on the samples that it was made on.
    """
    told = [_cross_fitted_at(task, scores, decided, prior, confidence, seed) for prior in task.need.priors or (None,)]
    return {name: worst(name, [each[name] for each in told]) for name in told[0]}


def _cross_fitted_at(
    task: Task, scores: Scores, decided: Decided, prior: float | None, confidence: float, seed: int
) -> dict[str, Estimate]:
    target = (task.labels.sign < 0).astype(np.int8)
    values = figures(task, scores, decided, task.weight, prior)
    draws = drawn_confusion(task.weight, target, decided.alerts, prior, seed)
    tail, out = (1 - confidence) / 2 * 100, {}
    for name, m in metrics_told(task.need)[0].items():
        reach = np.percentile(m.values(draws), [tail, 100 - tail])
        out[name] = _widened(values[name], reach, confidence, lowest(name), 1.0 if name != "cost" else math.inf)
    moved = task.weight if prior is None else prior_weight(target, task.weight, prior)
    for name, m, rows in _of_groups(task, scores):
        share = None if prior is None else float(moved[rows & (target == 1)].sum() / moved[rows].sum())
        drawn = drawn_confusion(task.weight[rows], target[rows], decided.alerts[:, rows], share, seed)
        reach = np.percentile(m.values(drawn), [tail, 100 - tail])
        out[name] = _widened(values[name], reach, confidence, lowest(m.name), 1.0)
    for name, losses in _losses(task, decided).items():
        mean = of_mean(losses.mean(axis=0), target, task.weight, prior=prior, confidence=confidence)
        out[name] = _widened(values[name], np.array(mean[1:]), confidence, 0.0, math.inf)
    objective = task.need.objective
    if isinstance(objective, Metric) and objective.of_curve is not None:
        out[objective.name] = _of_curve_estimate(task, decided, values[objective.name], prior, confidence, seed)
    return out


def _of_curve_estimate(
    task: Task, decided: Decided, values: Floats, prior: float | None, confidence: float, seed: int
) -> Estimate:
    """Of the divisions' values, with the interval of a small bootstrap of the first division."""
    objective = task.need.objective
    assert isinstance(objective, Metric)
    weights = np.stack([*resamples((task.labels.sign < 0).astype(np.int8), task.weight, 200, seed)])
    drawn = _of_curves(task, Decided(decided.alerts[:1], decided.log_odds[:1]), weights, prior, objective)
    z = float(stats.norm.ppf((1 + confidence) / 2))
    reach = values.mean() + np.array([-z, z]) * drawn.std()
    return _widened(values, reach, confidence, -math.inf, 1.0)


def _widened(values: Floats, reach: Floats, confidence: float, least: float, most: float) -> Estimate:
    """The mean of (B,) values, with the interval of one of them widened by the variance between them."""
    value = float(values.mean())
    # Where all samples are decided rightly nothing varies, and the rest is rounding.
    half = max(float(reach[1] - reach[0]) / 2 / float(stats.norm.ppf((1 + confidence) / 2)), 1e-12)
    factor = math.sqrt(1 + (float(values.std()) / half) ** 2)
    low, high = (value + factor * (float(end) - value) for end in reach)
    return Estimate(value, max(min(low, value), least), min(max(high, value), most))


def counting_choices(
    crossed: Mapping[str, Estimate], fixed: Mapping[str, Estimate], here: Mapping[str, Floats], confidence: float
) -> dict[str, Estimate]:
    """Cross-fitted estimates whose variances are those of the samples (as of decisions that were not chosen) and of
    what choices made on resamples achieve on the same samples, added.

    The values are those of cross-fitting. To take off what choices lose from the resamples that they were made on to
    the samples (Efron 1983) takes off too little, for 63% of the samples are in both.

    Args:
        fixed: what the point achieves on the samples that it was chosen on, with intervals of fixed decisions.
        here: (R,) values of the choice made on each resample, on the samples themselves. Those without a value (NaN: of
            a small subgroup not all have one) do not count.
    """
    z, out = float(stats.norm.ppf((1 + confidence) / 2)), dict(crossed)
    for name, e in crossed.items():
        if name in fixed and name in here:
            of_choices = z * float(np.nanstd(here[name]))
            least, most = lowest(name.partition("[")[0]), math.inf if name in ("cost", "log_loss") else 1.0
            low = e.value - math.hypot(fixed[name].value - fixed[name].low, of_choices)
            high = e.value + math.hypot(fixed[name].high - fixed[name].value, of_choices)
            out[name] = Estimate(e.value, max(low, least), min(high, most))
    return out


# ------------------------------------------------------------------------------------------- against the default


def against_default(
    task: Task,
    scores: Scores,
    chosen: Decided,
    default: Decided,
    lam: Lambda,
    *,
    kept: bool,
    confidence: float,
    seed: int,
) -> AgainstDefault:
    """Cross-fitted decisions with lambda against those with the default lambda alone.

    Where a constraint binds, the two ways to choose miss it by a little, and differently: less recall is higher
    precision. So both are taken to the same value of the constraint's metric, along the default lambda's own trade.

    The variance of the difference is that of the samples, paired, and that between divisions, which says how much hangs
    on the choices: the larger alone found differences twice too often where there were none (`benchmarks/README.md`).
    With a range of priors the comparison is at its geometric middle.

    Args:
        lam: the default lambda.
        kept: whether it is what was chosen; the comparison is then with the best lambda.
    """
    name, prior = task.need.objective.name, task.need.point_prior
    told = [figures(task, scores, d, task.weight, prior) for d in (chosen, default)]
    trade = _trade(task, default, told[1], prior, seed)
    difference = told[0][name] - told[1][name]
    if trade is not None:
        difference = difference - trade.slope * (told[0][trade.metric.name] - told[1][trade.metric.name])
    value, of_samples = float(difference.mean()), _paired_error(task, chosen, default, trade, prior, seed)
    error = math.hypot(of_samples, float(difference.std()))
    z = float(stats.norm.ppf((1 + confidence) / 2))
    p = float(2 * stats.norm.sf(abs(value) / error)) if error > 0 else 1.0
    estimate = Estimate(value, value - z * error, value + z * error)
    same = None if trade is None else trade.metric.name
    sentence = told_difference(task.need.objective, lam, estimate, p, same, kept)
    return AgainstDefault(name, dict(lam), estimate, p, sentence, same)


@dataclass(frozen=True)
class _Trade:
    """How much of the objective a change of a constraint's metric is worth at one lambda."""

    metric: ThresholdMetric
    slope: float


def _trade(task: Task, default: Decided, told: Mapping[str, Floats], prior: float | None, seed: int) -> _Trade | None:
    """The trade along the default lambda's thresholds between the objective and the constraint that binds: of those
    within three standard errors of their bounds, the nearest. None where no constraint binds."""
    if not isinstance(task.need.objective, ThresholdMetric):
        return None  # the threshold is no part of the objective
    target = (task.labels.sign < 0).astype(np.int8)
    draws = drawn_confusion(task.weight, target, default.alerts, prior, seed)
    near = []
    for c in task.need.constraints:
        error = float(np.std(c.metric.values(draws)))
        near.append((abs(float(c.shortfall(told[c.metric.name]).mean())) / max(error, 1e-300), error, c.metric))
    distance, error, metric = min(near, key=lambda of: of[0], default=(math.inf, 0.0, None))
    if metric is None or distance > 3:
        return None
    w = task.weighting(task.weight[:, None])
    ranked = Ranked.of(default.log_odds[0], task, exact=True)
    cells = ranked.cells(task, w)
    tp, fp = (np.asarray(counts[:, 0], np.float64) for counts in (cells.tp, cells.fp))
    curve = Curve(tp, tp, fp, tp, fp, tp, float(w.positives[0]), float(w.negatives[0]))
    x = metric.values(curve if prior is None else curve.at_prior(prior))
    at_prior = dataclasses.replace(task, need=dataclasses.replace(task.need, prior=prior))
    y = at_prior.merit(cells, w)[:, 0] * (1 if task.need.objective.higher_is_better else -1)
    window = np.abs(x - float(told[metric.name].mean())) <= 2 * error
    if np.ptp(x[window]) == 0 if window.any() else True:
        return None
    return _Trade(metric, float(np.polyfit(x[window], y[window], 1)[0]))


def _paired_error(task: Task, a: Decided, b: Decided, trade: _Trade | None, prior: float | None, seed: int) -> float:
    """The standard error of a difference that samples bring."""
    target, objective = (task.labels.sign < 0).astype(np.int8), task.need.objective
    pair: list[Curve] = []
    if isinstance(objective, ThresholdMetric):
        pair = drawn_pair(task.weight, target, np.stack([a.alerts, b.alerts]), prior, seed, 2000)
    traded = np.zeros(1)
    if trade is not None:
        first, second = map(trade.metric.values, pair)
        traded = trade.slope * (first - second)
    if isinstance(objective, ThresholdMetric) and task.costs is None:
        first, second = map(objective.values, pair)
        return float(np.std(first - second - traded))
    if isinstance(objective, Metric) and objective.of_curve is not None:
        weights = np.stack([*resamples(target, task.weight, 200, seed)])
        first, second = (
            _of_curves(task, Decided(d.alerts[:1], d.log_odds[:1]), weights, prior, objective) for d in (a, b)
        )
        return float(np.std(first - second))
    losses = [_losses(task, d)[objective.name].mean(axis=0) for d in (a, b)]
    mean = of_mean(losses[0] - losses[1], target, task.weight, prior=prior, confidence=0.6827)
    return math.hypot((mean.high - mean.low) / 2, float(np.std(traded)))


def told_difference(
    objective: ThresholdMetric | Metric, lam: Lambda, d: Estimate, p: float, same: str | None, kept: bool
) -> str:
    """A comparison with the default lambda in plain words; see `against_default`."""
    at = told_lambda(lam)
    held = "" if same is None else f" at the same {same}"
    figure = f"{objective.name} {d.value:+.3g} [{d.low:+.3g}, {d.high:+.3g}]{held}, p = {p:.2g}"
    helps = d.value > 0 if objective.higher_is_better else d.value < 0
    default = f"the same model at its default lambda, {at}, with a moved threshold"
    if kept:
        if p <= NOTED and helps:
            return (
                f"the default lambda, {at}, was kept, being within one standard error of the best, which is better all "
                f"the same ({figure}): simplest=False (--best) takes it"
            )
        return (
            f"choosing lambda does not help here: the default, {at}, was kept, and with a moved threshold it does as "
            f"well as the best lambda ({figure})"
        )
    if p > NOTED:
        return f"choosing lambda does not help here: {default} does as well ({figure})"
    if helps:
        return f"choosing lambda helps: it does better than {default} ({figure})"
    return f"choosing lambda does harm here: {default} does better ({figure})"


def told_lambda(lam: Lambda) -> str:
    """A lambda for people to read."""
    return ", ".join(f"{name} {value:.3g}" for name, value in lam.items()) or "none"
