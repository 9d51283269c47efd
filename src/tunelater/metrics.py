"""Metrics of imbalanced binary classification, for every lambda at once, with ties and sample weights.

Only the scores of positives matter as thresholds. Between two of them a lower threshold adds false positives and
nothing else, so the best threshold for any sensible metric is the score of some positive, and a `Curve` holds one
operating point for each positive instead of one for each sample. Building it means to
find each negative's place among the positives, which is fast exactly where positives are rare.

Scores are logits (log-odds), never saturated probabilities: a float32 softmax turns many scores into exactly 1.0, and
the ties change every ranking metric.

That holds under floors on what should be high and ceilings on what should be low. Other constraints (`alert_rate>=0.1`)
need every score as a threshold: `Ranking.full_curve`.

Names: `auc`, `average_precision`, `brier`, `log_loss`; `best_f1`, `best_balanced_accuracy`, ... (the best over
thresholds of any `THRESHOLD_METRICS`, with `f2`, `f0.5` for other F-beta); `precision@recall>=0.9` (the best of one
threshold metric under a floor or ceiling on another); `partial_auc@fpr<=0.1`. Among the metrics of a threshold,
`net_benefit@0.1` is the net benefit at a threshold probability of 0.1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional as F

from tunelater.problems import InputError, Problems, did_you_mean

Floats = NDArray[np.float64]
T = TypeVar("T")

DEFAULT_METRICS = ("auc", "average_precision", "brier", "log_loss", "best_f1", "best_balanced_accuracy", "best_gmean")


# ------------------------------------------------------------------------------------------- one lambda's curve


@dataclass(frozen=True)
class Curve:
    """Confusion counts at every threshold worth choosing, from the strictest to the laxest.

    Element 0 alerts on nobody, the last alerts on everybody, and those between alert on scores >= one positive's score.
    Arrays have shape (positives + 2,); counts are sums of sample weights. Bootstrap replicates add a leading dimension
    to the counts, and make `positives` and `negatives` columns.
    """

    threshold: Floats
    """The lowest score that is alerted on; +inf for nobody, the lowest score of all for everybody."""
    tp: Floats
    fp: Floats
    tp_above: Floats
    """True positives with scores strictly above the threshold (differs by more than one positive where scores tie)."""
    fp_above: Floats
    weight: Floats
    """The weight of the positive at each threshold; zero at both ends."""
    positives: float | Floats
    negatives: float | Floats

    @property
    def fn(self) -> Floats:
        return self.positives - self.tp

    @property
    def tn(self) -> Floats:
        return self.negatives - self.fp

    def at_prior(self, prior: float) -> Curve:
        """The same curve where a share `prior` of the population is positive, as shares of that population."""
        # The rate comes first: of all, it is exactly 1, so that nothing remains for `fn` or `tn` by rounding.
        return replace(
            self,
            tp=self.tp / self.positives * prior,
            tp_above=self.tp_above / self.positives * prior,
            weight=self.weight / self.positives * prior,
            fp=self.fp / self.negatives * (1 - prior),
            fp_above=self.fp_above / self.negatives * (1 - prior),
            positives=prior,
            negatives=1 - prior,
        )

    def roc(self) -> tuple[Floats, Floats]:
        """False and true positive rates of the corners of the ROC polyline; ties are its slanted pieces."""
        fpr = np.stack([self.fp_above, self.fp], axis=-1).reshape(-1) / self.negatives
        tpr = np.stack([self.tp_above, self.tp], axis=-1).reshape(-1) / self.positives
        return fpr, tpr

    def precision_recall(self) -> tuple[Floats, Floats]:
        """Precision and recall at each positive's score, from low recall to high."""
        inner = slice(1, -1)
        return precision(self)[inner], recall(self)[inner]


@dataclass(frozen=True)
class Labels:
    """Targets of N samples, taken apart once for all lambdas."""

    positive: NDArray[np.intp]
    """Indices of the positives."""
    negative: NDArray[np.intp]
    sign: Floats
    """(N,) -1 for positives, 1 for negatives."""

    @classmethod
    def of(cls, target: ArrayLike | Labels) -> Labels:
        """From (N,) 0 or 1."""
        if isinstance(target, Labels):
            return target
        is_positive = np.asarray(target) == 1
        return cls(np.flatnonzero(is_positive), np.flatnonzero(~is_positive), np.where(is_positive, -1.0, 1.0))


class Ranking:
    """One lambda's scores, ranked once; curves for any sample weights (and bootstrap replicates) follow cheaply.

    The positives are sorted, and every negative is put into its slot between two of them. A curve then is a sum of
    weights by slot, so most negatives are never sorted at all.

    Args:
        scores: (N,) finite logits, float32 or float64.
        target: (N,) 0 or 1, with both present, or their `Labels`.
    """

    def __init__(self, scores: ArrayLike, target: ArrayLike | Labels) -> None:
        scores, labels = np.asarray(scores), Labels.of(target)
        self._scores = scores
        s_pos = scores[labels.positive]
        order = np.argsort(s_pos)
        self._positive, self._negative = labels.positive[order], labels.negative
        s_pos = s_pos[order]
        self._threshold = _with_ends(np.inf, s_pos, scores.min())
        self._pos_below = np.searchsorted(s_pos, s_pos, "left")
        self._pos_up_to = np.searchsorted(s_pos, s_pos, "right")
        self._slot, self._tied = _places(s_pos, scores[self._negative])
        """(negatives,) how many positives have lower scores, and the negatives that tie with a positive."""

    def curve(self, weight: NDArray[np.floating] | None = None) -> Curve:
        """The operating curve under sample weights (N,), all one by default; or curves of (replicates, N) weights."""
        w_pos = np.ones(len(self._positive)) if weight is None else weight[..., self._positive].astype(np.float64)
        cum_pos = np.concatenate([np.zeros((*w_pos.shape[:-1], 1)), np.cumsum(w_pos, axis=-1)], axis=-1)
        # Slot k holds the negatives with k positives below them: all from k = i + 1 on are above positive i.
        by_slot = self._by_slot(weight)
        cum_above = np.cumsum(by_slot, axis=-1)
        cum_neg = np.cumsum(self._with_ties(by_slot, weight), axis=-1) if len(self._tied) else cum_above
        positives, negatives = cum_pos[..., -1:], cum_neg[..., -1:]
        single = cum_pos.ndim == 1
        return Curve(
            threshold=self._threshold,
            tp=_with_ends(0, positives - cum_pos[..., self._pos_below], positives),
            fp=_with_ends(0, negatives - cum_neg[..., :-1], negatives),
            tp_above=_with_ends(0, positives - cum_pos[..., self._pos_up_to], positives),
            fp_above=_with_ends(0, negatives - cum_above[..., :-1], negatives),
            weight=_with_ends(0, w_pos, 0),
            positives=float(positives[0]) if single else positives,
            negatives=float(negatives[0]) if single else negatives,
        )

    @property
    def positives_up_to(self) -> NDArray[np.intp]:
        """(positives,) for each positive in ascending order, how many positives have scores no higher than its own."""
        return self._pos_up_to

    @property
    def places_of_negatives(self) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
        """(negatives,) each: how many positives have lower scores, and how many have scores no higher."""
        up_to = self._slot.copy()
        up_to[self._tied] = self._pos_up_to[self._slot[self._tied]]
        return self._slot, up_to

    def full_curve(self, weight: NDArray[np.floating] | None = None) -> Curve:
        """The curve with every distinct score as a threshold, whatever its class, under sample weights (N,)."""
        w = np.ones(len(self._scores)) if weight is None else weight.astype(np.float64)
        order = argsort(self._scores)[::-1]
        scores, w, positive = self._scores[order], w[order], np.isin(order, self._positive)
        last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # of each run of equal scores
        tp, fp = (np.append(0.0, np.cumsum(w * of_class)[last]) for of_class in (positive, ~positive))
        return Curve(
            threshold=np.append(np.inf, scores[last].astype(np.float64)),
            tp=tp,
            fp=fp,
            tp_above=np.append(0.0, tp[:-1]),
            fp_above=np.append(0.0, fp[:-1]),
            weight=np.diff(tp, prepend=0.0),
            positives=float(tp[-1]),
            negatives=float(fp[-1]),
        )

    def _by_slot(self, weight: NDArray[np.floating] | None) -> Floats:
        """Sums of the negatives' weights by slot: (positives + 1,), or (replicates, positives + 1)."""
        if weight is not None and weight.ndim == 2:
            return np.stack([self._by_slot(row) for row in weight])
        w = None if weight is None else weight[self._negative]
        return np.bincount(self._slot, w, minlength=len(self._positive) + 1).astype(np.float64)

    def _with_ties(self, by_slot: Floats, weight: NDArray[np.floating] | None) -> Floats:
        """The sums with each tied negative moved above the positives that it ties with."""
        low = self._slot[self._tied]
        high = self._pos_up_to[low]
        moved = np.zeros_like(by_slot)
        for index in np.ndindex(by_slot.shape[:-1]):
            w = np.ones(len(low)) if weight is None else weight[(*index, self._negative[self._tied])]
            n = by_slot.shape[-1]
            moved[index] = np.bincount(high, w, minlength=n) - np.bincount(low, w, minlength=n)
        return by_slot + moved


def _places(
    ascending: NDArray[np.floating], scores: NDArray[np.floating], bins: int = 1 << 15
) -> tuple[NDArray[np.integer], NDArray[np.intp]]:
    """`np.searchsorted(ascending, scores)`, and the indices of the scores that equal an element of `ascending`.

    Faster than a search where scores are many, in any order, and places few: both are cut into bins by one map that
    never decreases, so a score whose bin holds no element of `ascending` has its place from a table. Only the others
    are searched for, in order, so that the search stays in the cache.
    """
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        factor = ascending.dtype.type(bins) / (ascending[-1] - ascending[0])
    if not 0 < factor < np.inf:  # all in one place, or too far apart for their dtype
        return _searched(ascending, scores, np.arange(len(scores)), np.empty(len(scores), np.int32))

    def binned(values: NDArray[np.floating]) -> NDArray[np.int32]:
        with np.errstate(over="ignore"):
            position = values - ascending[0]
            position *= factor
        np.maximum(position, -1, out=position)
        np.minimum(position, bins + 1, out=position)
        return position.astype(np.int32) + 1

    held = np.bincount(binned(ascending), minlength=bins + 3)
    before = np.zeros(bins + 4, np.int32)
    np.cumsum(held, out=before[1:])
    bin_of_score = binned(scores)
    return _searched(ascending, scores, np.flatnonzero((held > 0)[bin_of_score]), before[bin_of_score])


def _searched(
    ascending: NDArray[np.floating], scores: NDArray[np.floating], some: NDArray[np.intp], place: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """`place` with the places of `some` scores filled in, and those of them that equal an element of `ascending`."""
    some = some[argsort(scores[some])]
    values = scores[some]
    place[some] = found = np.searchsorted(ascending, values)
    return place, some[np.append(ascending, np.nan)[found] == values]


def _with_ends(strictest: float, ascending: NDArray[np.floating], laxest: float | NDArray[np.floating]) -> Floats:
    out = np.empty((*ascending.shape[:-1], ascending.shape[-1] + 2))
    out[..., 0], out[..., 1:-1], out[..., -1:] = strictest, ascending[..., ::-1], laxest
    return out


def argsort(scores: NDArray[np.floating]) -> NDArray[np.intp]:
    """The permutation that sorts finite scores, ties in order of appearance.

    For float32 it sorts 64-bit integers (the score's bits, made order-preserving, above the index), which NumPy does
    with SIMD instructions: ten times faster than sorting indices.
    """
    if scores.dtype != np.float32 or len(scores) >= 2**32:
        return np.argsort(scores, kind="stable")
    bits = (scores + np.float32(0)).view(np.int32)  # adding zero turns -0.0 into 0.0, which it equals
    ordered = np.where(bits < 0, ~bits, bits | np.int32(-(2**31))).view(np.uint32)
    keys = (ordered.astype(np.uint64) << np.uint64(32)) | np.arange(len(scores), dtype=np.uint64)
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.intp)


# ------------------------------------------------------------------------------------------- metrics of a threshold


def _ratio(numerator: Floats, denominator: Floats | float) -> Floats:
    """numerator / denominator, and 0 where there is nothing to divide by (scikit-learn's zero_division=0)."""
    denominator = np.broadcast_to(np.asarray(denominator, np.float64), np.shape(numerator))
    return np.divide(numerator, denominator, out=np.zeros(np.shape(numerator)), where=denominator > 0)


def recall(c: Curve) -> Floats:
    """Share of the positives that are alerted on (true positive rate, sensitivity; Eq. 9)."""
    return _ratio(c.tp, c.positives)


def precision(c: Curve) -> Floats:
    """Share of the alerts that are positive (positive predictive value; Eq. 11); 0 where there are no alerts."""
    return _ratio(c.tp, c.tp + c.fp)


def fpr(c: Curve) -> Floats:
    """Share of the negatives that are alerted on (Eq. 10)."""
    return _ratio(c.fp, c.negatives)


def specificity(c: Curve) -> Floats:
    """Share of the negatives that are left alone (true negative rate)."""
    return _ratio(c.tn, c.negatives)


def npv(c: Curve) -> Floats:
    """Share of the cases left alone that are negative (negative predictive value)."""
    return _ratio(c.tn, c.tn + c.fn)


def accuracy(c: Curve) -> Floats:
    """Share of correct decisions (Eq. 12)."""
    return (c.tp + c.tn) / (c.positives + c.negatives)


def balanced_accuracy(c: Curve) -> Floats:
    """Mean of recall and specificity (Eq. 13)."""
    return (recall(c) + specificity(c)) / 2


def gmean(c: Curve) -> Floats:
    """Geometric mean of recall and specificity (Eq. 16)."""
    return np.sqrt(recall(c) * specificity(c))


def alert_rate(c: Curve) -> Floats:
    """Share of all cases that are alerted on."""
    return (c.tp + c.fp) / (c.positives + c.negatives)


def mcc(c: Curve) -> Floats:
    """Matthews correlation coefficient; 0 where a row or column of the confusion matrix is empty."""
    p, n, alerts, rest = c.positives, c.negatives, c.tp + c.fp, c.tn + c.fn
    return _ratio(c.tp * c.tn - c.fp * c.fn, np.sqrt(p * n * alerts * rest))


def f_beta(beta: float) -> Callable[[Curve], Floats]:
    """The F score that weighs recall `beta` times as much as precision (Eq. 15)."""

    def f(c: Curve) -> Floats:
        b2 = beta * beta
        return _ratio((1 + b2) * c.tp, (1 + b2) * c.tp + b2 * c.fn + c.fp)

    return f


def net_benefit(threshold: float) -> Callable[[Curve], Floats]:
    """True positives less false positives in their worth, per case: tp/n - fp/n * r/(1 - r) (Vickers & Elkin 2006).

    Args:
        threshold: r in (0, 1), the probability at which alerting and not alerting are worth the same.
    """
    worth = threshold / (1 - threshold)
    return lambda c: (c.tp - worth * c.fp) / (c.positives + c.negatives)


@dataclass(frozen=True)
class ThresholdMetric:
    """A metric of the decisions at a threshold."""

    name: str
    values: Callable[[Curve], Floats]
    higher_is_better: bool = True


THRESHOLD_METRICS: Mapping[str, ThresholdMetric] = {
    m.name: m
    for m in (
        ThresholdMetric("recall", recall),
        ThresholdMetric("precision", precision),
        ThresholdMetric("specificity", specificity),
        ThresholdMetric("fpr", fpr, higher_is_better=False),
        ThresholdMetric("npv", npv),
        ThresholdMetric("accuracy", accuracy),
        ThresholdMetric("balanced_accuracy", balanced_accuracy),
        ThresholdMetric("gmean", gmean),
        ThresholdMetric("mcc", mcc),
        ThresholdMetric("alert_rate", alert_rate, higher_is_better=False),
        ThresholdMetric("f1", f_beta(1)),
        ThresholdMetric("f2", f_beta(2)),
    )
}


def threshold_metric(name: str) -> ThresholdMetric:
    """The threshold metric called `name`; `f0.5`, `f3`, ... are F-beta scores, `net_benefit@0.1` a net benefit.

    Raises:
        InputError: an unknown name, with the closest known one; a threshold probability outside (0, 1).
    """
    if name in THRESHOLD_METRICS:
        return THRESHOLD_METRICS[name]
    if re.fullmatch(r"f\d+(\.\d+)?", name) and float(name[1:]) > 0:
        return ThresholdMetric(name, f_beta(float(name[1:])))
    kind, _, at = name.partition("@")
    if kind == "net_benefit":
        return ThresholdMetric(name, net_benefit(_threshold_probability(name, at)))
    known = [*THRESHOLD_METRICS, "net_benefit@0.1"]
    raise InputError(f"there is no metric {name!r} of a threshold{did_you_mean(name, known)}")


def _threshold_probability(name: str, text: str) -> float:
    try:
        r = float(text)
    except ValueError:
        r = math.nan
    if not 0 < r < 1:
        raise InputError(
            "a net benefit reads like 'net_benefit@0.1', with the probability in (0, 1) at which alerting and not "
            f"alerting are worth the same; got {name!r}"
        )
    return r


def lowest(name: str) -> float:
    """The least that the threshold metric called `name` can be; the most is 1."""
    if name.startswith("net_benefit@"):
        r = float(name.partition("@")[2])
        return -r / (1 - r)
    return -1.0 if name == "mcc" else 0.0


@dataclass(frozen=True)
class Constraint:
    """A floor or ceiling on a threshold metric, such as `recall>=0.9`."""

    metric: ThresholdMetric
    relation: str
    bound: float
    every: str | None = None
    """The column within each value of which it must hold, if not among all samples; `needs.parse_constraint` reads
    these."""

    _FORM = re.compile(r"\s*([\w.]+(?:@[\d.]+)?)\s*(>=|<=)\s*([-+.\deE]+)\s*")

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read `metric>=value` or `metric<=value`.

        Raises:
            InputError: another form, an unknown metric, a bound outside [0, 1] ([-1, 1] for `mcc`).
        """
        match = cls._FORM.fullmatch(text) if isinstance(text, str) else None
        if not match:
            raise InputError(f"a constraint reads like 'recall>=0.9' or 'fpr<=0.01', got {text!r}")
        metric = threshold_metric(match[1])
        try:
            bound = float(match[3])
        except ValueError:
            raise InputError(f"the bound of a constraint must be a number, got {match[3]!r} in {text!r}") from None
        low = lowest(metric.name)
        if not low <= bound <= 1:
            raise InputError(
                f"{metric.name} lies in [{low:g}, 1], so no bound can be {bound:g} (in {text!r}): give one within"
            )
        return cls(metric, match[2], bound)

    @property
    def is_demanding(self) -> bool:
        """Whether it is a floor on what should be high or a ceiling on what should be low, so that a lower threshold
        that adds nothing but false positives never helps to meet it."""
        return (self.relation == ">=") == self.metric.higher_is_better

    def shortfall(self, values: Floats) -> Floats:
        """By how much values miss the bound; negative where they exceed it."""
        return self.bound - values if self.relation == ">=" else values - self.bound

    def holds(self, values: Floats, rounding: float = 1e-12) -> NDArray[np.bool_]:
        """Where values meet the constraint, to rounding of weighted sums."""
        return self.shortfall(values) <= rounding

    def best(self, values: Floats) -> float:
        """The value that goes furthest towards meeting the constraint."""
        return float(values.max() if self.relation == ">=" else values.min())

    def __str__(self) -> str:
        within = "" if self.every is None else f" in every {self.every}"
        return f"{self.metric.name}{self.relation}{self.bound:g}{within}"


# ------------------------------------------------------------------------------------------- metrics of a whole lambda


def _total(values: Floats) -> Floats:
    """Sums over the thresholds, as a column: (1,), or (replicates, 1)."""
    return values.sum(axis=-1, keepdims=True)


def auc(c: Curve) -> Floats:
    """Area under the ROC curve; ties count half (Section A.8)."""
    below = c.negatives - (c.fp + c.fp_above) / 2
    return _total(c.weight * below) / (c.positives * c.negatives)


def average_precision(c: Curve) -> Floats:
    """Sum over thresholds of (R_n - R_{n-1}) P_n (Eq. 18, with its sum)."""
    return _total(c.weight * precision(c)) / c.positives


def partial_auc(c: Curve, max_fpr: float) -> Floats:
    """Area under the ROC curve up to `max_fpr`, standardised to 0.5 for chance and 1 for perfect (McClish 1989)."""
    low, high = c.fp_above / c.negatives, c.fp / c.negatives
    slanted = _ratio((max_fpr - low) ** 2, 2 * (high - low))
    area = np.where(max_fpr <= low, 0.0, np.where(max_fpr >= high, max_fpr - (low + high) / 2, slanted))
    minimum = max_fpr**2 / 2
    return 0.5 * (1 + (_total(c.weight * area) / c.positives - minimum) / (max_fpr - minimum))


def sample_scores(log_odds: NDArray[np.floating], sign: NDArray[np.floating]) -> tuple[torch.Tensor, torch.Tensor]:
    """What each sample contributes to the Brier score and to the log-loss (nats), (N,) float64 each.

    With s the log-odds of the class that a sample is not of, these are sigmoid(s)^2 and log(1 + e^s). PyTorch's
    vectorised functions are several times faster than NumPy's.

    Args:
        log_odds: (N,) posterior log-odds of the positive class.
        sign: (N,) `Labels.sign`.
    """
    s = torch.from_numpy(log_odds) * torch.from_numpy(sign)
    return torch.sigmoid(s).square_(), F.softplus(s, threshold=40)  # above 40, log(1 + e^s) is s in float64


def proper_scores(
    log_odds: NDArray[np.floating], labels: Labels, weight: NDArray[np.floating] | None = None
) -> tuple[float, float]:
    """Brier score (Eq. 19, as a mean) and log-loss (nats) of (N,) posterior log-odds, in float64."""
    scores = sample_scores(log_odds, labels.sign)
    if weight is None:
        brier, log_loss = (float(of_samples.mean()) for of_samples in scores)
    else:
        w = torch.from_numpy(weight)
        brier, log_loss = (float(w @ of_samples / w.sum()) for of_samples in scores)
    return brier, log_loss


@dataclass(frozen=True)
class Metric:
    """A metric of one lambda: of its curve, or of its probabilities."""

    name: str
    of_curve: Callable[[Curve], Floats] | None = None
    """None for a proper score: an index into `proper_scores`."""
    proper: int = -1
    higher_is_better: bool = True


_WHOLE = {
    m.name: m
    for m in (
        Metric("auc", auc),
        Metric("average_precision", average_precision),
        Metric("brier", proper=0, higher_is_better=False),
        Metric("log_loss", proper=1, higher_is_better=False),
    )
}


def metric(name: str) -> Metric:
    """The metric called `name` (the module's docstring lists the forms).

    Raises:
        InputError: an unknown name or form, with the closest known one.
    """
    if name in _WHOLE:
        return _WHOLE[name]
    if name.startswith("partial_auc@"):
        ceiling = Constraint.parse(name.removeprefix("partial_auc@"))
        if ceiling.metric.name != "fpr" or ceiling.relation != "<=" or not 0 < ceiling.bound < 1:
            raise InputError(f"a partial AUC reads like 'partial_auc@fpr<=0.1', with a bound in (0, 1); got {name!r}")
        return Metric(name, lambda c: partial_auc(c, ceiling.bound))
    if name.startswith("best_"):
        inner = threshold_metric(name.removeprefix("best_"))
        return Metric(name, lambda c: _best(inner, inner.values(c)), higher_is_better=inner.higher_is_better)
    if "@" in name:
        decided, _, under = name.rpartition("@")
        inner, constraint = threshold_metric(decided), Constraint.parse(under)
        if not constraint.is_demanding:
            raise InputError(
                f"the constraint in {name!r} must be a floor on what should be high or a ceiling on what should be low"
            )
        return Metric(name, lambda c: _best_under(inner, constraint, c), higher_is_better=inner.higher_is_better)
    known = [*_WHOLE, *(f"best_{m}" for m in THRESHOLD_METRICS), "precision@recall>=0.9", "partial_auc@fpr<=0.1"]
    raise InputError(f"there is no metric {name!r} of a lambda{did_you_mean(name, known)}")


def _best(m: ThresholdMetric, values: Floats) -> Floats:
    return values.max(axis=-1, keepdims=True) if m.higher_is_better else values.min(axis=-1, keepdims=True)


def _best_under(m: ThresholdMetric, constraint: Constraint, c: Curve) -> Floats:
    """NaN where no threshold meets the constraint."""
    never = -np.inf if m.higher_is_better else np.inf
    best = _best(m, np.where(constraint.holds(constraint.metric.values(c)), m.values(c), never))
    return np.where(np.isinf(best), np.nan, best)


# ------------------------------------------------------------------------------------------- all lambdas


def check_scores(logits: NDArray, target: NDArray, weight: NDArray | None) -> None:
    """Raise one InputError for all that keeps (L, N) logits, (N,) targets and weights from being scored."""
    problems = Problems()
    problems.check(logits.ndim == 2, f"logits need shape (L, N), got {logits.shape}")
    problems.check(
        bool(np.isfinite(logits).all()), f"logits must be finite, got {int((~np.isfinite(logits)).sum())} that are not"
    )
    n = logits.shape[-1] if logits.ndim else 0
    problems.check(
        target.shape == (n,), f"target needs one value for each of the {n} samples, got shape {target.shape}"
    )
    values = set(np.unique(target).tolist())
    problems.check(values == {0, 1}, f"target needs both classes, 0 and 1; got {sorted(values)[:5]}")
    if weight is not None:
        problems.check(
            weight.shape == (n,), f"weight needs one value for each of the {n} samples, got shape {weight.shape}"
        )
        sound = bool(np.isfinite(weight).all() and (weight >= 0).all())
        problems.check(sound, "weights must be finite and not negative")
        if sound and weight.shape == target.shape == (n,):
            for c in (0, 1):
                problems.check(weight[target == c].sum() > 0, f"the weights of class {c} are all zero")
    problems.raise_if_any()


def per_lambda(function: Callable[[int], T], n: int) -> list[T]:
    """`[function(0), ..., function(n - 1)]` on as many threads as PyTorch may use (`torch.get_num_threads`): NumPy's
    sorts and ufuncs, and PyTorch, release the interpreter lock.

    Each of these threads works alone. Otherwise PyTorch would wake a team of threads for each, which wait by spinning
    and take the cores from one another; so would a call of this from within.
    """
    workers = min(n, torch.get_num_threads())
    if workers <= 1:
        return [function(i) for i in range(n)]
    with one_thread(), ThreadPoolExecutor(workers) as pool:  # new threads begin with what is set then
        return list(pool.map(function, range(n), chunksize=1))


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch's operations on one thread. A matrix product on several adds up in another order, and may differ in the
    last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def prior_weight(target: NDArray, weight: NDArray | None, prior: float) -> Floats:
    """(N,) weights under which a share `prior` of the total is positive."""
    weight = np.ones(len(target)) if weight is None else np.asarray(weight, np.float64)
    positive = target == 1
    share = np.where(positive, prior / weight[positive].sum(), (1 - prior) / weight[~positive].sum())
    return weight * share


def evaluate(
    logits: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> dict[str, Floats]:
    """Metrics of L lambdas at once.

    Args:
        logits: (L, N) or (N,) finite scores, float32 or float64: posterior log-odds where `brier` or `log_loss` is
            asked for, any score that ranks for the others.
        target: (N,) 0 or 1.
        weight: (N,) non-negative sample weights.
        metrics: names; the module's docstring lists the forms.

    Returns:
        Arrays of shape (L,), float64, by name.

    Raises:
        InputError: unknown metrics, non-finite logits, one class only, unusable weights, shapes that do not fit.
    """
    logits, target = np.atleast_2d(np.asarray(logits)), np.asarray(target)
    weight = None if weight is None else np.asarray(weight, np.float64)
    wanted = [metric(name) for name in metrics]
    check_scores(logits, target, weight)
    labels = Labels.of(target)
    rows = per_lambda(lambda i: evaluate_one(logits[i], labels, weight, wanted), len(logits))
    return {m.name: np.array([row[j] for row in rows]) for j, m in enumerate(wanted)}


def confusion(
    logits: ArrayLike, target: ArrayLike, threshold: ArrayLike, weight: ArrayLike | None = None
) -> dict[str, Floats]:
    """Confusion counts of L lambdas at once, alerting on scores of at least the threshold.

    Args:
        logits, target, weight: as for `evaluate`.
        threshold: one score, or (L,) of them; infinities alert on nobody or on everybody.

    Returns:
        `tp`, `fp`, `fn`, `tn`: (L,) sums of sample weights.

    Raises:
        InputError: as for `evaluate`, or thresholds that are NaN or do not fit.
    """
    logits, target = np.atleast_2d(np.asarray(logits)), np.asarray(target)
    threshold = np.asarray(threshold, np.float64)
    check_scores(logits, target, None if weight is None else np.asarray(weight, np.float64))
    if threshold.shape not in ((), (len(logits),)) or np.isnan(threshold).any():
        raise InputError(f"threshold needs one number, or one for each of the {len(logits)} lambdas; got {threshold}")
    w = np.ones(len(target)) if weight is None else np.asarray(weight, np.float64)
    by_class = np.stack([w * (target == 1), w * (target == 0)], axis=1)
    limits = np.broadcast_to(threshold, len(logits))
    alerts = np.stack(per_lambda(lambda i: (logits[i].astype(np.float64) >= limits[i]) @ by_class, len(logits)))
    rest = by_class.sum(axis=0) - alerts
    return {"tp": alerts[:, 0], "fp": alerts[:, 1], "fn": rest[:, 0], "tn": rest[:, 1]}


def evaluate_one(
    scores: NDArray[np.floating], target: ArrayLike | Labels, weight: Floats | None, wanted: Sequence[Metric]
) -> list[float]:
    """The wanted metrics of one lambda's (N,) scores, unchecked."""
    labels = Labels.of(target)
    curve = Ranking(scores, labels).curve(weight) if any(m.of_curve for m in wanted) else None
    proper = proper_scores(scores, labels, weight) if any(m.proper >= 0 for m in wanted) else (math.nan, math.nan)
    return [float(m.of_curve(curve)[0]) if m.of_curve and curve else proper[m.proper] for m in wanted]
