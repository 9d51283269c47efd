"""What operating points achieve on labelled samples: metrics with intervals, paired comparisons, decision curves.

These are figures of decisions that are already made. Choosing is in `tunelater.tuning`, and what a choice is worth in
spite of having been made on the same samples, in `tunelater.honesty`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from tunelater.calibration import BrierDecomposition, Reliability, brier_decomposition, reliability
from tunelater.distributions import keyed_rng
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
    Curve,
    Floats,
    Labels,
    Metric,
    Ranking,
    ThresholdMetric,
    evaluate_one,
    metric,
    net_benefit,
    prior_weight,
    sample_scores,
    threshold_metric,
)
from tunelater.needs import Need, groups_of
from tunelater.points import OperatingPoint
from tunelater.problems import InputError, Problems, did_you_mean
from tunelater.scoring import Scores

WITH_INTERVALS = ("auc", "average_precision", "brier", "log_loss")
"""Metrics of a lambda whose intervals come from influences."""
RESAMPLES = 1000
"""Behind the interval of any other metric of a lambda."""


def assess(
    point: OperatingPoint,
    scores: Scores,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    bootstrap: int | None = None,
) -> dict[str, Estimate]:
    """What a point achieves on other labelled samples, with intervals.

    A prior that the point was chosen for holds here too, and of a range of priors the one that is worst for each
    metric; otherwise the samples' own share of positives counts. A constraint within each value of a column adds its
    metric among the samples of each value that has what the metric needs, as `recall[sex=F]`.

    The intervals come from posteriors of the error rates and from influences (`tunelater.intervals`), or, if
    `bootstrap` says so, from resampling each class. With few positives the latter are too narrow where a metric is near
    its end (`benchmarks/README.md`), and a point where no error was seen.

    Args:
        scores: of one lambda, the point's (or a grid that contains it), with the columns that the point's needs name.
        confidence: of the intervals, in (0, 1).
        seed: of the intervals' draws, a whole number from 0 up.
        bootstrap: None, or the number of resamples, 100 or more, that percentile intervals are taken from. They keep
            the size of each class.

    Raises:
        InputError: scores of another model, of other lambdas or of one class; columns that are absent; a confidence,
            seed or number of resamples out of range.
    """
    problems = Problems()
    index = _index(point, scores, problems)
    need = Need.read(point.needs)
    problems.add(
        *problems_of_classes(scores.target, scores.weight, "assessing"), *problems_of_draws(confidence, seed, bootstrap)
    )
    problems.add(*_problems_of_columns(need, scores))
    problems.raise_if_any()
    return estimates(point, need, scores, index, confidence=confidence, seed=seed, bootstrap=bootstrap)


def rate_of_class(point: OperatingPoint, scores: Scores, *, confidence: float = 0.95) -> Estimate:
    """The share that a point alerts on of samples of one class alone: recall of positives, false positive rate of
    negatives. With Jeffreys' interval.

    Args:
        scores: of one lambda, the point's (or a grid that contains it).

    Raises:
        InputError: scores of another model, of other lambdas or of both classes, or a confidence out of range.
    """
    problems = Problems()
    index = _index(point, scores, problems)
    both = len(np.unique(scores.target)) > 1
    problems.check(not both, "the rate of a class is of samples of that class alone, got both; use `assess`")
    problems.add(*problems_of_draws(confidence, 0, None))
    problems.raise_if_any()
    weight = np.ones(len(scores.target)) if scores.weight is None else scores.weight
    alerts = point.decide(scores.log_odds[index], scores.prior)
    share = min(float(weight @ alerts / weight.sum()), 1.0)
    yes, no = share * effective_size(weight), (1 - share) * effective_size(weight)
    low, high = betaincinv(yes + 0.5, no + 0.5, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(share, min(share, float(low)), max(share, float(high)))


def _problems_of_columns(need: Need, scores: Scores) -> list[str]:
    """As `Need.problems_with`, but for subgroups without positives: they are left out where nothing is chosen."""
    absent = [name for name in need.columns if name not in scores.columns]
    if absent or not need.sample_costs:
        return [f"assessing needs the column {name!r}{did_you_mean(name, scores.columns)}" for name in absent]
    costs_alone = Need.of(cost=need.cost)
    return costs_alone.problems_with(scores.columns, scores.target, scores.weight, "assessing")


def reliability_of(
    point: OperatingPoint, scores: Scores, *, calibrated: bool = True
) -> tuple[Reliability, BrierDecomposition]:
    """How well a point's probabilities agree with labelled samples: the numbers of a reliability diagram, and the parts
    of the Brier score.

    The prior that the point was chosen for holds here too, and of a range its geometric middle: the classes are weighed
    to it. Otherwise the samples count as they are.

    Args:
        scores: of one lambda, the point's (or a grid that contains it).
        calibrated: whether by the point's calibration, if it has one; else by the link alone.

    Raises:
        InputError: scores of another model, of other lambdas or of one class.
    """
    problems = Problems()
    index = _index(point, scores, problems)
    problems.add(*problems_of_classes(scores.target, scores.weight, "assessing"))
    problems.raise_if_any()
    of = point.calibrated_log_odds if calibrated else point.log_odds
    log_odds, target, weight = of(scores.log_odds[index], scores.prior), scores.target, scores.weight
    if (prior := Need.read(point.needs).point_prior) is not None:
        weight = prior_weight(target, weight, prior)
    return reliability(log_odds, target, weight), brier_decomposition(log_odds, target, weight)


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
    as it is: negative is better for a cost or a Brier score. Points for a range of priors are compared at its geometric
    middle.

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
    for told in ("prior", "cost"):
        got = [point.needs.get(told) for point, _ in (a, b)]
        problems.check(got[0] == got[1], f"comparing needs points of one {told}, got {got[0]} and {got[1]}")
    if name == "cost":
        problems.check("cost" in a[0].needs, "comparing costs needs points that were chosen for costs")
    rows = [_index(point, scores, problems) for point, scores in (a, b)]
    problems.add(*problems_of_classes(a[1].target, a[1].weight, "comparing"), *problems_of_draws(confidence, seed))
    problems.check(isinstance(n, Integral) and n >= 1, f"an interval needs one or more draws n, got {n!r}")
    if name not in ("brier", "log_loss", "cost"):
        try:
            threshold_metric(name)
        except InputError as error:
            problems.add(*error.problems)
    need = Need.read(a[0].needs)
    if name == "cost":
        problems.add(*_problems_of_columns(need, a[1]))
    problems.raise_if_any()
    target, weight, prior = a[1].target, a[1].weight, need.point_prior
    if name in ("brier", "log_loss"):
        losses = [_losses(point, scores, row, name) for (point, scores), row in zip((a, b), rows, strict=True)]
        return of_mean(losses[0] - losses[1], target, weight, prior=prior, confidence=confidence)
    alerts = np.stack([p.decide(s.log_odds[row], s.prior) for (p, s), row in zip((a, b), rows, strict=True)])
    if name == "cost" and need.cost is not None and need.sample_costs:
        costs = need.cost.of_samples(a[1].columns, target)
        return of_mean(costs.of(alerts[0]) - costs.of(alerts[1]), target, weight, prior=prior, confidence=confidence)
    of_threshold = need.cost.metric() if name == "cost" and need.cost is not None else threshold_metric(name)
    base = np.ones(len(target)) if weight is None else weight
    first, second = (of_threshold.values(confusion_of(base, target, alert, prior)) for alert in alerts)
    observed = float(first[0] - second[0])
    first, second = map(of_threshold.values, drawn_pair(base, target, alerts[:, None], prior, seed, n))
    return _within(observed, first - second, (1 - confidence) / 2 * 100)


def decision_curve(scores: Scores, thresholds: ArrayLike, *, prior: float | None = None) -> dict[str, Floats]:
    """Net benefit at threshold probabilities (decision curve analysis; Vickers & Elkin 2006).

    Args:
        scores: of labelled samples at L lambdas.
        thresholds: (T,) probabilities in (0, 1) at which alerting and not alerting are worth the same.
        prior: the share of positives where the model will be used; None takes the samples' own.

    Returns:
        `model`: (L, T) of alerting on what is at least as probable as each threshold at that prior, by each lambda;
        `all`: (T,) of alerting on everybody; `none`: (T,) zeros.

    Raises:
        InputError: thresholds or a prior outside (0, 1), one class only.
    """
    r = np.atleast_1d(np.asarray(thresholds, np.float64))
    problems = Problems()
    problems.check(bool(((r > 0) & (r < 1)).all()), f"threshold probabilities lie in (0, 1), got {thresholds!r}")
    problems.check(prior is None or 0 < prior < 1, f"a prior lies in (0, 1), got {prior!r}")
    problems.add(*problems_of_classes(scores.target, scores.weight, "a decision curve"))
    problems.raise_if_any()
    weight = np.ones(len(scores.target)) if scores.weight is None else scores.weight
    share = float(weight[scores.target == 1].sum() / weight.sum()) if prior is None else prior
    limits = np.log(r) - np.log1p(-r) + logit(scores.prior) - logit(share)
    everybody = np.ones(len(weight), bool)
    of_all, of_model = np.empty(len(r)), np.empty((len(scores), len(r)))
    for j, (at, limit) in enumerate(zip(r, limits, strict=True)):
        benefit = net_benefit(float(at))
        of_all[j] = benefit(confusion_of(weight, scores.target, everybody, prior))[0]
        for i, row in enumerate(scores.log_odds):
            of_model[i, j] = benefit(confusion_of(weight, scores.target, row >= limit, prior))[0]
    return {"model": of_model, "all": of_all, "none": np.zeros(len(r))}


def _index(point: OperatingPoint, scores: Scores, problems: Problems) -> int:
    """Where a point's lambda is among scores of its own model."""
    same = not point.model or not scores.model or point.model == scores.model
    problems.check(same, f"the operating point belongs to model {point.model}, the scores to model {scores.model}")
    index = next((i for i in range(len(scores)) if same_lambda(scores.lam(i), point.lam)), None)
    problems.check(index is not None, f"the scores do not contain the point's lambda {dict(point.lam)}")
    return index or 0


def same_lambda(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    """Whether two lambdas are one, but for rounding."""
    return a.keys() == b.keys() and all(math.isclose(a[k], b[k], rel_tol=1e-9, abs_tol=1e-12) for k in a)


def problems_of_classes(target: NDArray, weight: NDArray | None, job: str) -> list[str]:
    """Which class the samples lack."""
    weight = np.ones(len(target)) if weight is None else weight
    return [
        f"{job} needs samples of both classes, got none of class {c} (or no weight): give some that count"
        for c in (0, 1)
        if not weight[target == c].sum() > 0
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
    log_odds = point.calibrated_log_odds(scores.log_odds[row], scores.prior)
    return sample_scores(log_odds, Labels.of(scores.target).sign)[metric(name).proper].numpy()


# ------------------------------------------------------------------------------------------- estimates


def metrics_told(need: Need) -> tuple[dict[str, ThresholdMetric], dict[str, Metric]]:
    """The metrics that points of a need tell: those of a threshold, and of a lambda those that the need names and
    `tunelater.intervals` has no interval of. Costs of samples are in neither."""
    of_threshold = dict(THRESHOLD_METRICS)
    of_lambda: dict[str, Metric] = {}
    if isinstance(need.objective, ThresholdMetric):
        if not need.sample_costs:
            of_threshold[need.objective.name] = need.objective
    elif need.objective.name not in WITH_INTERVALS:
        of_lambda[need.objective.name] = need.objective
    return of_threshold | {c.metric.name: c.metric for c in need.constraints}, of_lambda


def estimates(
    point: OperatingPoint,
    need: Need,
    scores: Scores,
    index: int,
    *,
    confidence: float,
    seed: int,
    bootstrap: int | None,
) -> dict[str, Estimate]:
    """Every metric of a point on samples, with intervals; unchecked. Of several priors, the worst for each."""
    told = [
        _at_prior(point, need, scores, index, prior, confidence, seed, bootstrap) for prior in need.priors or (None,)
    ]
    return {name: worst(name, [each[name] for each in told]) for name in told[0]}


def worst(name: str, of: Sequence[Estimate]) -> Estimate:
    """Of estimates of a metric called as a point tells it, the least good."""
    plain = name.partition("[")[0]
    known = THRESHOLD_METRICS.get(plain)
    lower = plain in ("cost", "brier", "log_loss") or (known is not None and not known.higher_is_better)
    return max(of) if lower else min(of)


def _at_prior(
    point: OperatingPoint,
    need: Need,
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
    log_odds = point.calibrated_log_odds(scores.log_odds[index], scores.prior)
    weight = np.ones(len(target)) if scores.weight is None else scores.weight
    alerts = point.decide(scores.log_odds[index], scores.prior)
    tail = (1 - confidence) / 2 * 100
    names, of_lambda = metrics_told(need)

    observed = confusion_of(weight, target, alerts, prior)
    draws = drawn_confusion(weight, target, alerts[None], prior, seed)
    out = {name: _within(float(m.values(observed)[0]), m.values(draws), tail) for name, m in names.items()}
    out |= _of_groups(need, scores, weight, alerts, prior, tail, seed)
    if need.cost is not None and need.sample_costs:
        costs = need.cost.of_samples(scores.columns, target).of(alerts)
        cost = of_mean(costs, target, weight, prior=prior, confidence=confidence)
        out["cost"] = cost._replace(low=max(cost.low, 0.0))

    out |= of_ranking(scores.log_odds[index], target, weight, prior=prior, confidence=confidence)
    out |= of_proper_scores(log_odds, target, weight, prior=prior, confidence=confidence)
    values = evaluate_one(scores.log_odds[index], target, weight, [*of_lambda.values()])
    values_of = {name: e.value for name, e in out.items()} | dict(zip(of_lambda, values, strict=True))
    drawn: Mapping[str, Floats] = {}
    if bootstrap is not None:
        wanted = {name: metric(name) for name in WITH_INTERVALS}
        of = scores.log_odds[index], log_odds
        drawn = _resampled(of, alerts, target, weight, prior, names, wanted | of_lambda, int(bootstrap), seed)
    elif of_lambda:
        of = scores.log_odds[index], log_odds
        drawn = _resampled(of, alerts, target, weight, prior, {}, of_lambda, RESAMPLES, seed)
    return out | {name: _within(values_of[name], draws, tail) for name, draws in drawn.items()}


def _of_groups(
    need: Need,
    scores: Scores,
    weight: Floats,
    alerts: NDArray[np.bool_],
    prior: float | None,
    tail: float,
    seed: int,
) -> dict[str, Estimate]:
    """The metrics of constraints within each value of a column, where both classes are there.

    A stated prior moves the share of positives of every value alike, as label shift does: what changes is how many are
    positive, not who is whose.
    """
    target, out = scores.target, {}
    moved = weight if prior is None else prior_weight(target, weight, prior)
    for c in need.constraints:
        if c.every is None:
            continue
        for value, rows in groups_of(scores.columns[c.every]).items():
            totals = [moved[rows & (target == y)].sum() for y in (0, 1)]
            if min(totals) > 0:
                share = None if prior is None else float(totals[1] / sum(totals))
                of_group = weight[rows], target[rows], alerts[rows]
                observed = c.metric.values(confusion_of(*of_group, share))
                draws = c.metric.values(drawn_confusion(*of_group[:2], of_group[2][None], share, seed))
                out[f"{c.metric.name}[{c.every}={value}]"] = _within(float(observed[0]), draws, tail)
    return out


def _within(value: float, draws: Floats, tail: float) -> Estimate:
    low, high = np.percentile(draws, [tail, 100 - tail])
    return Estimate(value, min(float(low), value), max(float(high), value))


def resamples(target: NDArray, weight: Floats, n: int, seed: int) -> Iterator[Floats]:
    """n times (N,) sample weights of samples drawn with replacement within each class: nothing is copied."""
    rng = keyed_rng(seed, "bootstrap")
    classes = [(rows, float(weight[rows].sum())) for rows in (np.flatnonzero(target == c) for c in (1, 0))]
    for _ in range(n):
        drawn = np.empty(len(target))
        for rows, total in classes:
            counts = np.bincount(rng.integers(len(rows), size=len(rows)), minlength=len(rows)) * weight[rows]
            # Weights that happen to be all zero in a resample leave the class as it is.
            drawn[rows] = counts * (total / counts.sum()) if counts.sum() > 0 else weight[rows]
        yield drawn


def _resampled(
    ranked_and_probable: tuple[NDArray[np.floating], Floats],
    alerts: NDArray[np.bool_],
    target: NDArray,
    weight: Floats,
    prior: float | None,
    of_threshold: Mapping[str, ThresholdMetric],
    of_lambda: Mapping[str, Metric],
    n: int,
    seed: int,
) -> dict[str, Floats]:
    """(n,) values of each metric on `resamples`.

    Args:
        ranked_and_probable: (N,) log-odds that rank, and those that probabilities come from: calibration may tie them.
    """
    labels = Labels.of(target)
    ranked, probable = ranked_and_probable
    ranking, losses = Ranking(ranked, labels), [loss.numpy() for loss in sample_scores(probable, labels.sign)]
    cells, whole = np.empty((4, n)), np.empty((len(of_lambda), n))
    for i, drawn in enumerate(resamples(target, weight, n, seed)):
        w = drawn if prior is None else prior_weight(target, drawn, prior)
        curve = ranking.curve(w)
        cells[:, i] = _cells(drawn, target, alerts)
        whole[:, i] = [
            # A sum of products: BLAS would wake its threads for each.
            float(m.of_curve(curve)[0]) if m.of_curve else float((w * losses[m.proper]).sum() / w.sum())
            for m in of_lambda.values()
        ]
    c = confusion_shares(cells, prior)
    return {name: m.values(c) for name, m in of_threshold.items()} | dict(zip(of_lambda, whole, strict=True))


def confusion_of(weight: Floats, target: NDArray, alerts: NDArray[np.bool_], prior: float | None) -> Curve:
    """(1,) confusion counts of the decisions (N,), as shares where a prior is stated."""
    return confusion_shares(_cells(weight, target, alerts)[:, None], prior)


def _cells(weight: Floats, target: NDArray, alerts: NDArray[np.bool_]) -> Floats:
    """(4,) tp, fn, fp and tn. Each is a sum of its own: the rest of another would leave rounding where there is
    nothing."""
    return np.array([weight[(target == c) & which].sum() for c in (1, 0) for which in (alerts, ~alerts)])


def confusion_shares(cells: Floats, prior: float | None) -> Curve:
    """One decision in n samples, from their (4, n) tp, fn, fp and tn."""
    tp, fn, fp, tn = cells
    nothing = np.zeros_like(tp)
    c = Curve(nothing, tp, fp, tp, fp, nothing, tp + fn, fp + tn)
    return c if prior is None else c.at_prior(prior)


def drawn_confusion(
    weight: Floats, target: NDArray, alerts: NDArray[np.bool_], prior: float | None, seed: int, n: int = 4000
) -> Curve:
    """(n,) confusion shares under draws of both rates, and of the share of positives where no prior is stated.

    Args:
        alerts: (B, N) decisions, of which the mean rates count: B is 1 unless each sample was decided several times.
    """
    rng = keyed_rng(seed, "posterior")
    share_of = alerts.mean(axis=0)
    rates = [_drawn_share(rng, weight[target == c], share_of[target == c], n) for c in (1, 0)]
    share = _drawn_share(rng, weight, (target == 1).astype(float), n) if prior is None else np.full(n, prior)
    return _shares(rates[0], rates[1], share)


def _shares(recall: Floats, fpr: Floats, share: Floats) -> Curve:
    tp, fp, nothing = recall * share, fpr * (1 - share), np.zeros(len(share))
    return Curve(nothing, tp, fp, tp, fp, nothing, share, 1 - share)


def _drawn_share(rng: np.random.Generator, weight: Floats, yes: Floats, n: int) -> Floats:
    """(n,) draws of the weighted mean of `yes`, shares in [0, 1], from its posterior under Jeffreys' prior, with Kish's
    effective size."""
    effective = effective_size(weight)
    share = min(float(weight @ yes / weight.sum()), 1.0)
    return rng.beta(share * effective + 0.5, (1 - share) * effective + 0.5, n)


def drawn_pair(
    weight: Floats, target: NDArray, alerts: NDArray[np.bool_], prior: float | None, seed: int, n: int
) -> list[Curve]:
    """(n,) confusion shares of two decisions on the same samples.

    Within each class the four cells (both alert, one, the other, none) are drawn from their posterior under Jeffreys'
    prior, so that what the two agree on cancels, and agreement on a few samples is not taken for agreement on all.

    Args:
        alerts: (2, B, N) the decisions; B is 1 unless each sample was decided several times.
    """
    rng = keyed_rng(seed, "posterior")
    first, second = alerts
    kinds = [each.mean(axis=0) for each in (first & second, first & ~second, ~first & second)]
    rates = []
    for c in (1, 0):
        w = weight[target == c]
        cells = np.array([*(w @ kind[target == c] for kind in kinds), 0.0])
        cells[3] = w.sum() - cells.sum()
        drawn = rng.dirichlet(np.maximum(cells, 0) / w.sum() * effective_size(w) + 0.5, n)
        rates.append((drawn[:, 0] + drawn[:, 1], drawn[:, 0] + drawn[:, 2]))
    share = _drawn_share(rng, weight, (target == 1).astype(float), n) if prior is None else np.full(n, prior)
    return [_shares(rates[0][i], rates[1][i], share) for i in range(2)]
