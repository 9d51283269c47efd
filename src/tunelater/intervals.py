"""Intervals of AUC, average precision and proper scores, from one ranking and without resampling.

Each of these metrics is, to first order, a mean over the positives plus a mean over the negatives: what a sample adds
is its influence (for AUC its placement: DeLong et al. 1988, in the fast form of Sun & Xu 2014). The variances of the
two means give an interval on the scale on which the metric is nearly normal: log-odds for AUC and average precision,
the logarithm for losses.

Few positives rarely include the bad one that decides how far a good metric may fall, and a variance that is blind to it
makes intervals too narrow near the ends of the scale, and points at them. So a second interval is formed with half an
observation more in each class, placed amid the other class (as Jeffreys' prior does for a proportion), and the
interval given contains both. `benchmarks/intervals.py` measures what this covers.

Weights say how much a sample counts, not how often it was seen: multiplying all by a number changes nothing. Variances
are those of weighted means, and the number of samples of a class is Kish's effective one, (sum w)^2 / sum w^2.

Where a score stands for several samples (a bin of a histogram), its weight is the sum of theirs, and the sum of their
squared weights is given besides as `squares`: the same as if each had been given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tunelater.losses import logit
from tunelater.metrics import Curve, Floats, Labels, Ranking, auc, average_precision, sample_scores

PSEUDO = 0.5
"""Observations added to each class, as Jeffreys' prior adds."""


class Estimate(NamedTuple):
    """A metric with its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def effective_size(weight: Floats, squares: Floats | None = None) -> float:
    """Kish's effective number of samples of (N,) weights: N where all are equal.

    Args:
        squares: (N,) sums of squared weights, where each weight is that of several samples.
    """
    return float(weight.sum() ** 2 / (weight**2 if squares is None else squares).sum())


def problems_of_confidence(confidence: float) -> list[str]:
    """What is wrong with the confidence of an interval."""
    sound = isinstance(confidence, float | np.floating) and 0 < confidence < 1
    return [] if sound else [f"a confidence lies in (0, 1), such as 0.95 for 95% intervals; got {confidence!r}"]


class _Mean(NamedTuple):
    """A weighted mean over one class."""

    value: float
    variance: float
    """Of the mean, with n rather than n - 1 in the denominator."""
    n: float
    """Kish's effective number of samples."""

    @classmethod
    def of(cls, values: Floats, weight: Floats, squares: Floats | None = None) -> _Mean:
        total = weight.sum()
        value = float(weight @ values / total)
        shares = (weight if squares is None else np.sqrt(squares)) / total
        spread = shares * (values - value)
        return cls(value, float(spread @ spread), effective_size(weight, squares))

    @property
    def unbiased(self) -> float:
        return self.variance * self.n / max(self.n - 1, 0.5)

    @property
    def freedom(self) -> float:
        """Degrees of freedom; one where there is a single sample, which is as wide as a t interval goes."""
        return max(self.n - 1, 1.0)

    def joined_by(self, value: float) -> _Mean:
        """With half an observation more."""
        n = self.n + PSEUDO
        mean = (self.n * self.value + PSEUDO * value) / n
        spread = self.n**2 * self.variance + self.n * PSEUDO / n * (self.value - value) ** 2
        return _Mean(mean, spread / n**2, n)


def _t(confidence: float, variances: Sequence[float], freedom: Sequence[float], known: float) -> float:
    """The quantile of Student's t for a sum of independent estimates, with the degrees of freedom of Satterthwaite.

    Args:
        known: a further variance that is not estimated from as few samples.
    """
    total = sum(v * v / f for v, f in zip(variances, freedom, strict=True))
    degrees = (sum(variances) + known) ** 2 / total if total > 0 else math.inf
    return float(stats.t.ppf((1 + confidence) / 2, degrees))


def _on_log_odds(centre: float, variance: float, quantile: float) -> tuple[float, float]:
    """An interval in [0, 1], symmetric in log-odds; the centre alone at the ends, where these are infinite."""
    if not 0 < centre < 1:
        return centre, centre
    reach = quantile * math.sqrt(variance) / (centre * (1 - centre))
    low, high = (1 / (1 + math.exp(min(700.0, -(logit(centre) + r)))) for r in (-reach, reach))
    return low, high


def _on_log(centre: float, variance: float, quantile: float) -> tuple[float, float]:
    """An interval of a positive number, symmetric in its logarithm."""
    if centre <= 0:
        return centre, centre
    factor = math.exp(min(700.0, quantile * math.sqrt(variance) / centre))
    return centre / factor, centre * factor


def _hull(value: float, *intervals: tuple[float, float]) -> Estimate:
    low, high = zip(*intervals, strict=True)
    return Estimate(value, min(value, *low), max(value, *high))


@dataclass(frozen=True)
class _Sample:
    """Labelled samples of a population in which `share` are positive."""

    labels: Labels
    positive: Floats
    """Weights of the positives."""
    negative: Floats
    squares: tuple[Floats, Floats] | tuple[None, None]
    """Of the weights, of the positives and the negatives; None where each sample has a weight of its own."""
    share: float
    share_variance: float
    """Of the share as it is known here: 0 where it was stated."""

    @classmethod
    def of(cls, target: NDArray, weight: Floats | None, prior: float | None, squares: Floats | None) -> _Sample:
        labels = Labels.of(target)
        weight = np.ones(len(labels.sign)) if weight is None else weight
        positive, negative = weight[labels.positive], weight[labels.negative]
        share = float(positive.sum() / weight.sum()) if prior is None else prior
        variance = share * (1 - share) / effective_size(weight, squares) if prior is None else 0.0
        of_classes = (None, None) if squares is None else (squares[labels.positive], squares[labels.negative])
        return cls(labels, positive, negative, of_classes, share, variance)

    def means(self, values: Floats) -> tuple[_Mean, _Mean]:
        """Of (N,) values over the positives, and over the negatives."""
        labels, (positive, negative) = self.labels, self.squares
        return (
            _Mean.of(values[labels.positive], self.positive, positive),
            _Mean.of(values[labels.negative], self.negative, negative),
        )

    def mean(self, positive: float, negative: float) -> float:
        """Over the population, from those of the classes."""
        return self.share * positive + (1 - self.share) * negative

    def variance(self, positive: float, negative: float) -> float:
        """Of a mean over the population, from those of the classes; without the share's part."""
        return self.share**2 * positive + (1 - self.share) ** 2 * negative


def of_ranking(
    scores: NDArray[np.floating],
    target: NDArray,
    weight: Floats | None = None,
    *,
    squares: Floats | None = None,
    prior: float | None = None,
    confidence: float = 0.95,
) -> dict[str, Estimate]:
    """`auc` and `average_precision` with intervals.

    AUC: DeLong's variance, normal quantiles. Average precision: the variance of its influence function, the t quantile,
    and a centre freed of the bias to first order that each positive's own rank brings. Half an observation is added to
    each class with placement 1/2, or to the positives with precision 1/2.

    Args:
        scores: (N,) finite logits.
        target: (N,) 0 or 1, with both present.
        weight: (N,) sample weights, some of each class above 0.
        squares: (N,) sums of squared weights, where a score stands for several samples.
        prior: the share of positives that average precision is for; None takes the samples' own, whose uncertainty
            then counts.
        confidence: of the intervals, in (0, 1).
    """
    sample = _Sample.of(target, weight, prior, squares)
    ranking = Ranking(scores, sample.labels)
    curve = ranking.curve(weight)
    # As the curve has its weights: from the highest positive down, between two ends.
    ranked = None if squares is None else ranking.curve(squares).weight
    return {
        "auc": _of_auc(ranking, curve, sample, ranked, confidence),
        "average_precision": _of_average_precision(ranking, curve.at_prior(sample.share), sample, ranked, confidence),
    }


def _of_auc(ranking: Ranking, c: Curve, sample: _Sample, squares: Floats | None, confidence: float) -> Estimate:
    """From placements: of each positive among the negatives, and of each negative among the positives."""
    below = 1 - (c.fp[1:-1] + c.fp_above[1:-1]) / 2 / c.negatives
    share_below = np.append(0, np.cumsum(c.weight[-2:0:-1])) / c.positives
    lower, up_to = ranking.places_of_negatives
    above = 1 - (share_below[lower] + share_below[up_to]) / 2
    positive = _Mean.of(below, c.weight[1:-1], None if squares is None else squares[1:-1])
    negative = _Mean.of(above, sample.negative, sample.squares[1])
    value = float(auc(c)[0])
    more = positive.joined_by(0.5), negative.joined_by(0.5)
    centre = value + sum(after.value - before.value for before, after in zip((positive, negative), more, strict=True))
    normal = float(stats.norm.ppf((1 + confidence) / 2))
    return _hull(
        value,
        _on_log_odds(value, positive.unbiased + negative.unbiased, normal),
        _on_log_odds(centre, more[0].variance + more[1].variance, normal),
    )


def _of_average_precision(
    ranking: Ranking, c: Curve, sample: _Sample, squares: Floats | None, confidence: float
) -> Estimate:
    """From influences.

    With R and F the true and false positive rates, pi the share of positives and P = pi R / D, D = pi R + (1 - pi) F,
    at each positive's score, average precision is the mean of P over the positives. A sample moves R or F at every
    score up to its own, and P there by dP/dR = pi (1 - pi) F / D^2 or dP/dF = -pi (1 - pi) R / D^2; dP/dpi = R F / D^2.
    """
    pi, value = sample.share, min(float(average_precision(c)[0]), 1.0)
    w, tp, fp = (counts[-2:0:-1] for counts in (c.weight / pi, c.tp, c.fp))  # from the lowest positive up
    alerts = np.where(tp + fp > 0, tp + fp, 1.0)  # positives on top may have no weight
    r, f = tp / pi, fp / (1 - pi)
    by_r, by_f, by_pi = pi * (1 - pi) * f / alerts**2, -pi * (1 - pi) * r / alerts**2, r * f / alerts**2
    of_positives = tp / alerts + np.append(0, np.cumsum(w * by_r))[ranking.positives_up_to]
    of_negatives = np.append(0, np.cumsum(w * by_f))[ranking.places_of_negatives[1]]
    ascending = None if squares is None else squares[-2:0:-1] / sample.positive.sum() ** 2
    positive, negative = (
        _Mean.of(of_positives, w, ascending),
        _Mean.of(of_negatives, sample.negative, sample.squares[1]),
    )
    of_share = float(w @ by_pi) ** 2 * sample.share_variance
    rest = negative.unbiased + of_share
    t = _t(confidence, (positive.unbiased, negative.unbiased), (positive.freedom, negative.freedom), of_share)
    centre = value - float(w @ (by_r * (1 - r))) / positive.n  # a positive's own rank counts in its precision
    more = positive._replace(value=centre).joined_by(0.5)
    return _hull(
        value,
        _on_log_odds(centre, positive.unbiased + rest, t),
        _on_log_odds(more.value, more.variance + rest, t),
    )


def of_proper_scores(
    log_odds: Floats,
    target: NDArray,
    weight: Floats | None = None,
    *,
    squares: Floats | None = None,
    prior: float | None = None,
    confidence: float = 0.95,
) -> dict[str, Estimate]:
    """`brier` and `log_loss` (nats) with intervals.

    Half an observation is added to each class with the average log-odds of the other: the confident error that the
    samples may not have shown.

    Args:
        log_odds: (N,) posterior log-odds, float64.
        target, weight, squares, prior, confidence: as for `of_ranking`.
    """
    sample = _Sample.of(target, weight, prior, squares)
    average = [mean.value for mean in sample.means(log_odds)]
    losses = sample_scores(log_odds, sample.labels.sign)
    swapped = sample_scores(np.array(average[::-1]), np.array([-1.0, 1.0]))
    brier, log_loss = (
        _of_loss(sample, loss.numpy(), bad.tolist(), confidence) for loss, bad in zip(losses, swapped, strict=True)
    )
    return {"brier": brier._replace(high=min(brier.high, 1.0)), "log_loss": log_loss}


def _of_loss(sample: _Sample, loss: Floats, worse: list[float], confidence: float) -> Estimate:
    means = sample.means(loss)
    more = [mean.joined_by(value) for mean, value in zip(means, worse, strict=True)]
    t, variance, of_share = _of_strata(sample, means, confidence)
    value = sample.mean(*(mean.value for mean in means))
    return _hull(
        value,
        _on_log(value, variance, t),
        _on_log(sample.mean(*(m.value for m in more)), sample.variance(*(m.variance for m in more)) + of_share, t),
    )


def of_mean(
    values: Floats,
    target: NDArray,
    weight: Floats | None = None,
    *,
    squares: Floats | None = None,
    prior: float | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """The mean of (N,) values over the population, with its t interval: for paired differences, which know no end of a
    scale.

    Args:
        target, weight, squares, prior, confidence: as for `of_ranking`.
    """
    sample = _Sample.of(target, weight, prior, squares)
    means = sample.means(values)
    t, variance, _ = _of_strata(sample, means, confidence)
    value, reach = sample.mean(*(mean.value for mean in means)), t * math.sqrt(variance)
    return Estimate(value, value - reach, value + reach)


def _of_strata(sample: _Sample, means: tuple[_Mean, _Mean], confidence: float) -> tuple[float, float, float]:
    """The t quantile and the variance of a mean over the population, and the part of the share in it."""
    positive, negative = means
    of_share = (positive.value - negative.value) ** 2 * sample.share_variance
    parts = sample.share**2 * positive.unbiased, (1 - sample.share) ** 2 * negative.unbiased
    t = _t(confidence, parts, (positive.freedom, negative.freedom), of_share)
    return t, sum(parts) + of_share, of_share
