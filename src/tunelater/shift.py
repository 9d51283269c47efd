"""Label shift: how many are positive where the model is used, and whether that is all that has changed.

Under label shift the share of positives moves and each class looks as before: p(x | y) stays. Then the link's
posterior at any prior is right again at the new one, and only the new prior is to be found, which needs no labels:

* `estimate_prior` finds it, by the maximum likelihood that the EM algorithm of Saerens, Latinne & Decaestecker (2002)
  climbs to, with an interval;
* `check_label_shift` tests whether label shift explains the new cases at all. Where the inputs themselves have drifted,
  an estimate of the prior means nothing, and nothing should be adapted by it.

Both compare with a `Reference`: labelled scores of the same model that it was not trained on. New cases come as
`Scores` too, with target `UNKNOWN` where there is no label (`unlabelled` makes all of them so).

Weights say how much a case counts, not how often it was seen: multiplying all by a number changes nothing, and the
number of cases is Kish's effective one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, sparse, stats
from scipy.special import expit

from tunelater.calibration import KINDS, CalibrationMap, fit_calibration
from tunelater.data.splits import UNKNOWN as UNKNOWN
from tunelater.distributions import keyed_rng
from tunelater.intervals import PSEUDO, effective_size, problems_of_confidence
from tunelater.losses import logit
from tunelater.metrics import Floats
from tunelater.problems import Problems, did_you_mean
from tunelater.scoring import Scores

BELIEF = 2.0

_LARGEST = 600.0
"""Log ratios are held within so much, far over any that samples can show, so that their exponentials are finite."""


def unlabelled(scores: Scores) -> Scores:
    """The same scores with every label unknown."""
    return replace(scores, target=np.full(len(scores.target), UNKNOWN, np.int8))


# ------------------------------------------------------------------------------------------- what to compare with


@dataclass(frozen=True)
class LogRatio:
    """log p(s | +) / p(s | -) of scores at one lambda: posterior log-odds less those of their prior.

    The link gives it in closed form; a calibration map, fitted to labelled samples, mends what the model got wrong.
    EM multiplies such errors where the prior moves far (Alexandari, Kundaje & Shrikumar 2020).
    """

    map: CalibrationMap | None
    """None trusts the link."""
    prior: float
    """The share of positives that the map takes and gives log-odds for."""

    def __call__(self, log_odds: ArrayLike, prior: float) -> Floats:
        """Log ratios, float64, from posterior log-odds (any shape) for a share `prior` of positives."""
        ratio = np.asarray(log_odds, np.float64) - logit(prior)
        if self.map is None:
            return ratio
        low, high = self.map([-_LARGEST, _LARGEST])
        if low == high:  # whatever level it is at, it tells nothing
            return np.zeros(ratio.shape)
        return self.map(ratio + logit(self.prior)) - logit(self.prior)


@dataclass(frozen=True, eq=False)
class Reference:
    """Labelled scores that new ones are compared with. `Reference.of` makes it."""

    scores: Scores
    """Of one lambda or several."""
    at: int
    """Which of them decisions are taken at."""
    log_ratio: LogRatio
    """There."""

    @classmethod
    def of(cls, scores: Scores, lam: Mapping[str, float] | None = None, calibration: str | None = "platt") -> Reference:
        """From validation scores.

        Args:
            scores: of labelled samples that the model was not trained on, both classes.
            lam: the lambda of the operating point; may be left out where scores have a single one.
            calibration: how log ratios are calibrated (`platt`, `beta` or `isotonic`), None for the link as it is.

        Raises:
            InputError: training samples, labels that are not 0 and 1, a class without samples, a lambda that the scores
                do not have, an unknown calibration.

        Warns:
            DoubtfulInputWarning: few samples for the calibration.
        """
        problems = Problems()
        weight = _weights(scores)
        labels = set(np.unique(scores.target).tolist())
        problems.check(labels <= {0, 1}, f"a reference needs the label of every sample, 0 or 1; got {sorted(labels)}")
        for c in (0, 1):
            some = bool(weight[scores.target == c].any())
            problems.check(some, f"a reference needs samples of both classes, got none of class {c} (or no weight)")
        problems.check(
            scores.split.strip().casefold() != "train",
            "a model is too sure of the samples that it was trained on: take validation scores as a reference",
        )
        if calibration is not None and calibration not in KINDS:
            problems.add(f"there is no calibration {calibration!r}{did_you_mean(str(calibration), KINDS)}")
        at = place_of(lam, scores, problems)
        problems.raise_if_any()
        prior = float(weight[scores.target == 1].sum() / weight.sum())
        of_map = None
        if calibration is not None:
            log_odds = scores.log_odds[at].astype(np.float64) + (logit(prior) - logit(scores.prior))
            of_map = fit_calibration(calibration, log_odds, scores.target, scores.weight)
        return cls(scores, at, LogRatio(of_map, prior))

    @property
    def prior(self) -> float:
        """The reference's own share of positives."""
        return self.log_ratio.prior

    @property
    def lam(self) -> dict[str, float]:
        """The lambda that decisions are taken at."""
        return self.scores.lam(self.at)

    def log_ratios(self, of: Scores | None = None) -> Floats:
        """(N,) log ratios at `lam`, of the reference's samples or of other scores of its model.

        Raises:
            InputError: scores of another model or without this lambda.
        """
        of = self.scores if of is None else of
        problems = Problems()
        problems.add(*problems_of_model(self.scores.model, of))
        at = place_of(self.lam, of, problems)
        problems.raise_if_any()
        return np.clip(self.log_ratio(of.log_odds[at], of.prior), -_LARGEST, _LARGEST)


def _weights(scores: Scores) -> Floats:
    return np.ones(len(scores.target)) if scores.weight is None else scores.weight


def place_of(lam: Mapping[str, float] | None, scores: Scores, problems: Problems) -> int:
    """Where a lambda is among scores, None for the only one; what keeps it from being there is a problem."""
    if lam is None:
        problems.check(len(scores) == 1, f"scores of {len(scores)} lambdas need to be told which: say lam=")
        return 0
    for i in range(len(scores)):
        mine = scores.lam(i)
        if mine.keys() == lam.keys() and all(math.isclose(mine[k], lam[k], rel_tol=1e-9, abs_tol=1e-12) for k in lam):
            return i
    problems.add(f"the scores do not contain the lambda {dict(lam)}: score the samples at it")
    return 0


def problems_of_model(model: str, new: Scores) -> list[str]:
    """Whether new scores come from a model, where both have a name."""
    if not model or not new.model or model == new.model:
        return []
    return [f"the reference belongs to model {model}, the new scores to model {new.model}: score with the same model"]


def problems_of_new(model: str, lam: Mapping[str, float], new: Scores) -> list[str]:
    """What keeps new scores from being compared with those of a model at a lambda."""
    problems = Problems()
    problems.add(*problems_of_model(model, new))
    place_of(lam, new, problems)
    problems.check(len(new.target) > 0, "there are no new cases: give one or more")
    odd = sorted(set(np.unique(new.target).tolist()) - {0, 1, UNKNOWN})
    problems.check(not odd, f"labels of new cases are 0, 1 or {UNKNOWN} for unknown, got {odd[:5]}")
    return list(problems)


# ------------------------------------------------------------------------------------------- the prior


@dataclass(frozen=True)
class PriorEstimate:
    """The share of positives among new cases, with its interval."""

    value: float
    """The most likely share, in [0, 1]: 0 where nothing looks like a positive."""
    low: float
    high: float
    confidence: float
    adopted: float
    """The share to choose operating points for, inside (0, 1): the median of what it may be, given the new cases, the
    error of the reference, and that it was `before`. Where the cases say much it is near `value`; where they say
    little it stays near `before`, and little is changed."""
    before: float
    """The share that was believed until now."""
    n: int
    """New cases, and those of them that have a label."""
    n_labelled: int

    def excludes(self, prior: float) -> bool:
        """Whether the interval shows that the share is another."""
        return not self.low <= prior <= self.high

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def maximum_likelihood_prior(
    log_ratio: ArrayLike, target: ArrayLike | None = None, weight: ArrayLike | None = None, *, pseudo: float = 0.0
) -> float:
    """The share of positives pi under which cases are most likely.

    A case without a label has the likelihood (1 - pi) + pi exp(log_ratio), up to a factor; one with a label has pi or
    1 - pi. The sum of their logarithms is concave in pi, and its only stationary point is where pi is the mean of the
    posteriors at pi: what the EM algorithm of Saerens et al. (2002) converges to. It is found by bracketing instead,
    which takes a dozen passes where EM takes thousands if the classes overlap.

    Args:
        log_ratio: (N,) log p(s | +) / p(s | -), without NaN.
        target: (N,) 0, 1 or `UNKNOWN`; None for no labels.
        weight: (N,) finite, 0 or more, some above 0.
        pseudo: how many labelled cases to add to each class.

    Returns:
        A share in [0, 1]; NaN where every share is as likely (all log ratios 0).

    Raises:
        InputError: shapes that differ, NaN, labels and weights that cannot be.
    """
    g = np.asarray(log_ratio, np.float64)
    y = np.full(g.shape, UNKNOWN) if target is None else np.asarray(target)
    w = np.ones(g.shape) if weight is None else np.asarray(weight, np.float64)
    problems = Problems()
    problems.check(g.ndim == 1 and g.size > 0, f"log ratios need shape (N,), N of 1 or more, got {g.shape}")
    problems.check(not np.isnan(g).any(), f"log ratios must be numbers, got {int(np.isnan(g).sum())} NaN")
    problems.check(
        y.shape == g.shape == w.shape, f"log ratios, labels and weights of one shape; got {y.shape, w.shape}"
    )
    odd = sorted(set(np.unique(y).tolist()) - {0, 1, UNKNOWN})
    problems.check(not odd, f"labels are 0, 1 or {UNKNOWN} for unknown, got {odd[:5]}")
    sound = bool((np.isfinite(w) & (w >= 0)).all() and w.any())
    problems.check(sound, "weights must be finite, 0 or more, and above 0 for some case")
    problems.raise_if_any()
    free = y == UNKNOWN
    labelled = tuple(float(w[y == c].sum()) + pseudo for c in (0, 1))
    return _most_likely(np.clip(g[free], -_LARGEST, _LARGEST), w[free], labelled)


def _most_likely(g: Floats, w: Floats, labelled: tuple[float, ...]) -> float:
    negatives, positives = labelled
    if not negatives and not positives:
        at_none, at_all = float(w @ np.expm1(g)), float(w @ -np.expm1(-g))
        if at_none <= 0 or at_all >= 0:
            return math.nan if at_none == at_all == 0 else float(at_all >= 0)
    elif not len(g):
        return positives / (negatives + positives)

    def slope(t: float) -> float:
        """Of the log-likelihood in log-odds t: what the posteriors sum to over what they would have to."""
        # Near 1 as a difference of complements, which does not round to 0.
        rise = expit(g + t) - expit(t) if t < 0 else expit(-t) - expit(-g - t)
        return float(w @ rise) + positives * expit(-t) - negatives * expit(t)

    low, high = -40.0, 40.0  # log-odds; no number of cases tells a share under 1e-17 from none
    if slope(low) <= 0:
        return 0.0
    return float(expit(optimize.brentq(slope, low, high, xtol=1e-12))) if slope(high) < 0 else 1.0


def estimate_prior(
    reference: Reference, new: Scores, *, before: float | None = None, confidence: float = 0.95
) -> PriorEstimate:
    """The share of positives among new cases, unlabelled, labelled or partly so, under label shift.

    The value is `maximum_likelihood_prior` at the reference's lambda. It trusts the calibrated log ratios.

    The interval does not. Whatever function h of a case one takes, under label shift its mean over new cases is (1 -
    pi) E[h | -] + pi E[h | +], and the reference tells both means, with an error. h is the slope of the log-likelihood
    near its top, the best choice where log ratios are right; where they are not, the interval becomes wide, not wrong.
    It holds every pi that the means do not contradict, so that it counts the sampling error of the new cases and that
    of the reference (as Wilson's and Fieller's intervals do), and is formed a second time with half an observation
    added to the class that few speak for, as in `tunelater.intervals`; the hull of both and the value is given.
    `benchmarks/README.md` measures what it covers. It leaves out drift of the inputs: that is for `check_label_shift`.

    Labels may be there for some cases only. Whether they are may depend on the score (alerts are looked into first),
    but beyond that not on the class.

    Args:
        new: scores of the same model that contain the reference's lambda, for any prior.
        before: the share that was believed until now, such as the operating point's prior, for `adopted`; the
            reference's own by default.
        confidence: of the interval, in (0, 1).

    Raises:
        InputError: all that keeps the scores from being compared, or a confidence out of range.
    """
    problems = Problems()
    problems.add(*problems_of_new(reference.scores.model, reference.lam, new), *problems_of_confidence(confidence))
    problems.add(*_problems_of_before(before))
    problems.raise_if_any()
    before = reference.prior if before is None else before
    g, y, w = reference.log_ratios(new), new.target, _weights(new)
    value = maximum_likelihood_prior(g, y, w)
    if math.isnan(value):
        value = before  # nothing is known but what was known
    observed, n, negative, positive, open_ = _compared(reference, g, y, w, _inside(g, y, w))
    ends = [_accepted(observed, n, negative, positive, confidence)]
    if open_:
        joined = negative.joined_by(positive.mean), positive.joined_by(negative.mean)
        ends.append(_accepted(observed, n, *joined, confidence))
    return PriorEstimate(
        value,
        min(value, *(low for low, _ in ends)),
        max(value, *(high for _, high in ends)),
        confidence,
        _posterior_median(observed, n, negative, positive, before),
        before,
        len(y),
        int((y != UNKNOWN).sum()),
    )


def _problems_of_before(before: object) -> list[str]:
    sound = before is None or (isinstance(before, float | np.floating) and 0 < before < 1)
    return [] if sound else [f"the prior believed before lies in (0, 1), got {before!r}"]


def _inside(g: Floats, y: NDArray, w: Floats) -> float:
    """The most likely share with half a case of each class added, inside (0, 1), where slopes are finite."""
    return maximum_likelihood_prior(g, y, w / w.sum() * effective_size(w), pseudo=PSEUDO)


def _slope(g: Floats, pi: float) -> Floats:
    """Of a case's log-likelihood in pi."""
    return np.expm1(g) / ((1 - pi) + pi * np.exp(g))


class _Moments(NamedTuple):
    """Of h over one class of the reference."""

    mean: float
    square: float
    """Mean of h squared."""
    variance: float
    """Of the mean, by the reference's size."""
    n: float
    """Kish's effective number of samples."""

    @classmethod
    def of(cls, h: Floats, square: Floats, w: Floats) -> _Moments:
        """Of (N,) expected h and expected h squared, given the score."""
        share, n = w / w.sum(), effective_size(w)
        mean = float(share @ h)
        spread = float(share @ (h - mean) ** 2)
        return cls(mean, float(share @ square), spread / max(n - 1, 0.5), n)

    def joined_by(self, value: float) -> _Moments:
        """With half an observation more."""
        n = self.n + PSEUDO
        mean = (self.n * self.mean + PSEUDO * value) / n
        spread = self.variance * max(self.n - 1, 0.5) + PSEUDO / n * (self.mean - value) ** 2
        return _Moments(mean, (self.n * self.square + PSEUDO * value**2) / n, spread / n, n)


def _compared(
    reference: Reference, g: Floats, y: NDArray, w: Floats, pi: float
) -> tuple[float, float, _Moments, _Moments, bool]:
    """The mean of h over new cases, their number, h's moments in the classes, and whether some case has no label."""
    target, weight = reference.scores.target, _weights(reference.scores)
    ratio = reference.log_ratios()
    known = _share_labelled(g, y, ratio)
    told = (-1 / (1 - pi), 1 / pi)  # the slope of a labelled case, by class
    h = np.where(y == UNKNOWN, _slope(g, pi), np.where(y == 1, told[1], told[0]))
    of_class = []
    for c in (0, 1):
        mine = target == c
        slope, k = _slope(ratio[mine], pi), known[mine]
        of_class.append(_Moments.of((1 - k) * slope + k * told[c], (1 - k) * slope**2 + k * told[c] ** 2, weight[mine]))
    return float(w @ h / w.sum()), effective_size(w), of_class[0], of_class[1], bool((y == UNKNOWN).any())


def _posterior_median(observed: float, n: float, negative: _Moments, positive: _Moments, before: float) -> float:
    """The median of pi's posterior: its log-odds are believed to be normal around those of `before`, and the likelihood
    is the normal one of the observed mean of h that `_accepted` inverts."""
    t = np.linspace(-20.0, 20.0, 4001)
    pi, rest = expit(t), expit(-t)
    mean = rest * negative.mean + pi * positive.mean
    drawn = rest * negative.square + pi * positive.square - mean**2
    variance = drawn / n + rest**2 * negative.variance + pi**2 * positive.variance
    if not variance.all():
        return before  # h is 0 everywhere: the scores say nothing
    log_density = -((observed - mean) ** 2) / (2 * variance) - np.log(variance) / 2
    log_density -= ((t - logit(before)) / BELIEF) ** 2 / 2
    below = np.cumsum(np.exp(log_density - log_density.max()))
    return float(expit(np.interp(below[-1] / 2, below, t)))


def _share_labelled(g: Floats, y: NDArray, at: Floats) -> Floats:
    """The share of new cases that have labels, by score, at other scores.

    Between quantiles of the labelled and of the unlabelled: a share that is level, or jumps where alerts begin.
    """
    labelled = y != UNKNOWN
    if labelled.all() or not labelled.any():
        return np.full(len(at), float(labelled[0]))
    levels = np.linspace(0, 1, 11)
    # A quantile that is a score begins a bin, so that the lowest alert is the first of its bin.
    edges = np.unique(np.concatenate([np.quantile(g[some], levels, method="lower") for some in (labelled, ~labelled)]))
    place = np.searchsorted(edges, g, side="right")
    all_cases = np.bincount(place, minlength=len(edges) + 1)
    with_label = np.bincount(place, labelled, minlength=len(edges) + 1)
    share = np.where(all_cases > 0, with_label / np.maximum(all_cases, 1), labelled.mean())
    return share[np.searchsorted(edges, at, side="right")]


def _accepted(
    observed: float, n: float, negative: _Moments, positive: _Moments, confidence: float
) -> tuple[float, float]:
    """The shares pi for which the observed mean of h lies within its error of (1 - pi) E[h | -] + pi E[h | +].

    With the variance at pi, (1 - pi)^2 V_- + pi^2 V_+ of the reference and that of a draw from the mixture, this is a
    quadratic inequality in pi.
    """
    distance, above = positive.mean - negative.mean, observed - negative.mean
    at = min(max(above / distance, 0.0), 1.0) if distance > 0 else 0.5
    q = _quantile(at, n, negative, positive, confidence) ** 2
    a = distance**2 * (1 + q / n) - q * (negative.variance + positive.variance)
    drawn = positive.square - negative.square - 2 * negative.mean * distance
    b = -2 * above * distance - q * (drawn / n - 2 * negative.variance)
    c = above**2 - q * ((negative.square - negative.mean**2) / n + negative.variance)
    root = b * b - 4 * a * c
    if a <= 0 or distance <= 0:
        return 0.0, 1.0  # the reference does not tell the classes apart
    if root < 0:
        return at, at
    low, high = ((-b + sign * math.sqrt(root)) / (2 * a) for sign in (-1, 1))
    return min(max(low, 0.0), 1.0), min(max(high, 0.0), 1.0)


def _quantile(pi: float, n: float, negative: _Moments, positive: _Moments, confidence: float) -> float:
    """Student's t with the degrees of freedom of Satterthwaite: the reference's variances are estimates."""
    parts = (1 - pi) ** 2 * negative.variance, pi**2 * positive.variance
    mean = (1 - pi) * negative.mean + pi * positive.mean
    total = sum(parts) + ((1 - pi) * negative.square + pi * positive.square - mean**2) / n
    loss = sum(v * v / max(m.n - 1, 1.0) for v, m in zip(parts, (negative, positive), strict=True))
    return float(stats.t.ppf((1 + confidence) / 2, total**2 / loss if loss > 0 else math.inf))


# ------------------------------------------------------------------------------------------- whether that explains it


class Part(NamedTuple):
    """One of the comparisons of `check_label_shift`."""

    name: str
    """`scores` or `inputs`, of all new cases; `positives` or `negatives`, of those with labels."""
    statistic: float
    p: float
    """Under label shift, before the correction for several parts."""
    where: str
    """The column in which the difference is largest."""


@dataclass(frozen=True)
class ShiftTest:
    """Whether new cases look as they would if the share of positives alone had changed."""

    parts: tuple[Part, ...]
    p: float
    """Of all parts together: the smallest of theirs, times their number (Bonferroni)."""
    alpha: float
    """The error that is allowed: how often label shift, where it is all that happened, is taken for drift."""
    prior: PriorEstimate

    @property
    def explained(self) -> bool:
        """Whether nothing speaks against label shift. That is no proof: with few cases little would show."""
        return self.p >= self.alpha

    @property
    def verdict(self) -> str:
        """In plain words, with what to do."""
        if not self.explained:
            worst = min(self.parts, key=lambda part: part.p)
            return (
                f"the inputs have drifted (p = {self.p:.2g}, mostly in {worst.name}: {worst.where}): a change of the "
                "share of positives does not explain the new cases, so do not adapt to it; find out what changed, or "
                "retrain"
            )
        change = f"from {self.prior.before:.3g} to {self.prior}"
        if self.prior.excludes(self.prior.before):
            return f"label shift explains the change (p = {self.p:.2g}): the share of positives moved {change}"
        return f"no change shows (p = {self.p:.2g}): the share of positives may be as before, {change}"


def check_label_shift(
    reference: Reference,
    new: Scores,
    *,
    features: tuple[ArrayLike, ArrayLike] | None = None,
    before: float | None = None,
    alpha: float = 0.05,
    draws: int = 499,
    seed: int = 0,
) -> ShiftTest:
    """Test whether label shift explains new cases.

    Under label shift the distribution of the new cases is a mixture of the reference's two classes, in every score and
    every feature, with one unknown share. So at the share that fits best, the difference of the distribution functions
    is compared with what chance gives: squared, over its variance, averaged over places in the column (as Anderson &
    Darling's statistic, with the reference's error in the variance), and the largest over columns, each in units of its
    spread. What chance gives comes from drawing both samples anew from all cases under label shift, the share
    estimated in each draw as it is in the data. So neither the estimate nor the reference's size makes the test alarm
    too often, nor do columns that go together make it blind; and it needs no calibrated probabilities.

    * `scores`: at every lambda of the reference that the new scores have too.
    * `inputs`: the columns of `features`, where given: what a drift of the inputs may leave in no score.
    * `positives`, `negatives`: where there are labels, the scores of each class at the reference's lambda against the
      same class of the reference (Kolmogorov & Smirnov). Labels must be there at random within the class, or of all
      cases; a class with fewer than 5 labels is left out.

    Args:
        features: two matrices (n, F) and (N, F) of finite numbers, of the reference's samples and of the new cases, in
            the order of the scores: pooled features of the trunk, or columns of the table.
        before: as for `estimate_prior`; what the verdict compares with.
        alpha: the error allowed, in (0, 1).
        draws: of the reference, 99 or more; the smallest p of a part is 1 / (draws + 1).
        seed: of the draws, a whole number from 0 up.

    Raises:
        InputError: all that is wrong with scores, features, alpha and draws.
    """
    problems = Problems()
    problems.add(*problems_of_new(reference.scores.model, reference.lam, new))
    given = None if features is None else tuple(np.asarray(x, np.float64) for x in features)
    if given is not None:
        problems.add(*_problems_of_features(given, len(reference.scores.target), len(new.target)))
    problems.add(*_problems_of_before(before))
    sound = isinstance(alpha, float) and 0 < alpha < 1
    problems.check(sound, f"alpha is an error allowed, in (0, 1), such as 0.05; got {alpha!r}")
    whole = all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in (draws, seed))
    problems.check(whole and draws >= 99, f"the test needs 99 draws or more (a whole number), got {draws!r}")
    problems.check(whole and 0 <= seed < 2**64, f"a seed is a whole number from 0 up (under 2^64), got {seed!r}")
    problems.raise_if_any()
    prior = estimate_prior(reference, new, before=before)
    columns = _score_columns(reference, new)
    if given is not None:
        columns |= {f"feature {j}": (given[0][:, j], given[1][:, j]) for j in range(given[0].shape[1])}
    g = reference.log_ratios(new)
    pi = _inside(g, np.full(len(g), UNKNOWN), _weights(new))
    parts = _mixture_parts(reference, new, columns, pi, draws, seed)
    parts += _class_parts(reference, new)
    p = min(1.0, len(parts) * min(part.p for part in parts))
    return ShiftTest(tuple(parts), p, alpha, prior)


def _problems_of_features(features: tuple[Floats, ...], n: int, n_new: int) -> list[str]:
    problems = Problems()
    if len(features) != 2:
        return [f"features are two matrices, of the reference and of the new cases; got {len(features)}"]
    for x, size, what in zip(features, (n, n_new), ("the reference", "the new cases"), strict=True):
        problems.check(
            x.ndim == 2 and len(x) == size, f"features of {what} need shape ({size}, F), got {x.shape}: one row a score"
        )
        bad = int(np.count_nonzero(~np.isfinite(x)))
        problems.check(not bad, f"features of {what} must be finite, got {bad} that are not: fill or leave them out")
    if not problems:
        a, b = features[0].shape[1], features[1].shape[1]
        problems.check(a == b > 0, f"features of both need the same columns, one or more; got {a} and {b}")
    return list(problems)


def _score_columns(reference: Reference, new: Scores) -> dict[str, tuple[Floats, Floats]]:
    """By lambda, the log ratios of the link for both: the reference's own lambda first."""
    columns = {}
    order = [reference.at, *(i for i in range(len(reference.scores)) if i != reference.at)]
    for i in order:
        lam = reference.scores.lam(i)
        absent = Problems()
        place = place_of(lam, new, absent)
        if not absent:
            told = ", ".join(f"{name} = {value:g}" for name, value in lam.items()) or "the only one"
            columns[f"score at {told}"] = (
                reference.scores.log_odds[i].astype(np.float64) - logit(reference.scores.prior),
                new.log_odds[place].astype(np.float64) - logit(new.prior),
            )
    return columns


def _mixture_parts(
    reference: Reference,
    new: Scores,
    columns: Mapping[str, tuple[Floats, Floats]],
    pi: float,
    draws: int,
    seed: int,
) -> list[Part]:
    """`scores` and `inputs`."""
    samples = _Samples.of(reference, new, columns, pi)
    observed, prior = samples.distance(samples.shares)
    chance = samples.by_chance(float(prior[0]), draws, keyed_rng(seed, "bootstrap"))
    observed = observed[0]
    parts = []
    names = list(columns)
    for part, of_part in (("scores", "score"), ("inputs", "feature")):
        some = [j for j, name in enumerate(names) if name.startswith(of_part)]
        if some:
            centre, spread = chance[:, some].mean(0), chance[:, some].std(0)
            spread = np.where(spread > 0, spread, np.inf)  # a column of one value says nothing
            excess, largest = (observed[some] - centre) / spread, ((chance[:, some] - centre) / spread).max(axis=1)
            # Rounding must not tell equal values apart.
            p = (1 + np.count_nonzero(largest >= excess.max() - 1e-9)) / (1 + draws)
            parts.append(Part(part, float(excess.max()), float(p), names[some[int(excess.argmax())]]))
    return parts


@dataclass(frozen=True)
class _Samples:
    """The reference and the new cases, R rows in all, as J columns, each a distribution function at places of its own.

    P places in all, those of a column next to each other.
    """

    inside: sparse.csr_array
    """(P, R): which rows lie above the place before, and not above this one."""
    first: NDArray[np.intp]
    """(J,) where a column's places begin."""
    h: Floats
    """(R,) the slope of the log-likelihood, which the share of positives is estimated from."""
    shares: Floats
    """(R, 3) the rows' weights, as shares of the reference's negatives, of its positives and of the new cases."""
    sizes: tuple[float, float, float]
    """Kish's effective numbers of the three."""
    classes: tuple[Floats, Floats]
    """(R,) shares of all negatives and of all positives, new cases by their posteriors."""

    @classmethod
    def of(cls, reference: Reference, new: Scores, columns: Mapping[str, tuple[Floats, Floats]], pi: float) -> _Samples:
        target, n_new = reference.scores.target, len(new.target)
        known, w = _weights(reference.scores), _weights(new)
        nothing, mine = np.zeros(len(target)), np.zeros(n_new)
        weights = [np.concatenate([known * (target == c), mine]) for c in (0, 1)] + [np.concatenate([nothing, w])]
        negative, positive, new_share = shares = [v / v.sum() for v in weights]
        sizes = effective_size(weights[0]), effective_size(weights[1]), effective_size(w)
        g = np.concatenate([reference.log_ratios(), reference.log_ratios(new)])
        posterior = expit(g + logit(pi))
        classes = (
            sizes[0] * negative + sizes[2] * new_share * (1 - posterior),
            sizes[1] * positive + sizes[2] * new_share * posterior,
        )
        edges = [_places_of(x[target == 0], x[target == 1]) for x, _ in columns.values()]
        ends = np.cumsum([len(e) + 1 for e in edges])
        first = np.concatenate([[0], ends[:-1]])
        place = np.concatenate(
            [
                at + np.searchsorted(e, np.concatenate(x))
                for at, e, x in zip(first, edges, columns.values(), strict=True)
            ]
        )
        rows = np.tile(np.arange(len(g)), len(edges))
        inside = sparse.csr_array((np.ones(len(place)), (place, rows)), shape=(int(ends[-1]), len(g)))
        made = classes[0] / classes[0].sum(), classes[1] / classes[1].sum()
        return cls(inside, first, _slope(g, pi), np.stack(shares, axis=1), sizes, made)

    def distance(self, shares: Floats) -> tuple[Floats, Floats]:
        """How far new cases are from a mixture of the classes: (B, J), and (B,) the share of positives in it.

        Args:
            shares: (R, 3 B), of the negatives of B references, then of their positives, then of new cases.
        """
        below = _functions(self.inside @ shares, self.first).reshape(-1, 3, shares.shape[1] // 3)
        h = (self.h @ shares).reshape(3, -1)
        apart = h[1] - h[0]
        pi = np.clip((h[2] - h[0]) / np.where(apart > 0, apart, np.inf), 0, 1)
        difference = below[:, 2] - (1 - pi) * below[:, 0] - pi * below[:, 1]
        # The variance of a difference, with half an observation on either side so that it is never 0.
        f = [(m * below[:, c] + PSEUDO) / (m + 2 * PSEUDO) for c, m in enumerate(self.sizes[:2])]
        mixed = (1 - pi) * f[0] + pi * f[1]
        variance = mixed * (1 - mixed) / self.sizes[2]
        for weight, share, m in zip((1 - pi, pi), f, self.sizes, strict=False):
            variance = variance + weight**2 * share * (1 - share) / m
        counts = np.diff([*self.first, len(below)])
        mean = np.add.reduceat(difference**2 / variance, self.first, axis=0) / counts[:, None]
        return mean.T, pi

    def by_chance(self, pi: float, draws: int, rng: np.random.Generator) -> Floats:
        """(draws, J) distances of references and new cases drawn under label shift.

        They are drawn from reference and new cases together, as in a permutation test: what the reference alone has not
        seen, new cases may have all the same. Each row comes a Poisson number of times.
        """
        mixture = (1 - pi) * self.classes[0] + pi * self.classes[1]
        laws = [m * share for m, share in zip(self.sizes, (*self.classes, mixture), strict=True)]
        at_once = max(2, 2**22 // len(self.h))
        found = []
        for start in range(0, draws, at_once):
            size = min(at_once, draws - start)
            drawn = [rng.poisson(law[:, None], (len(law), size)).astype(np.float64) for law in laws]
            shares = [some / np.maximum(some.sum(axis=0), 1) for some in drawn]
            found.append(self.distance(np.concatenate(shares, axis=1))[0])
        return np.concatenate(found)


def _functions(mass: Floats, first: NDArray[np.intp]) -> Floats:
    """(P, B) distribution functions, from the mass in each place; they begin anew with each column."""
    total = np.cumsum(mass, axis=0)
    before = np.concatenate([np.zeros((1, mass.shape[1])), total])[first]
    return total - np.repeat(before, np.diff([*first, len(mass)]), axis=0)


def _places_of(negative: Floats, positive: Floats) -> Floats:
    """Where a column's distribution functions are compared: quantiles of each class, closer at the ends."""
    levels = np.concatenate([[0.003, 0.01, 0.03], np.linspace(0.1, 0.9, 9), [0.97, 0.99, 0.997]])
    return np.unique(np.concatenate([np.quantile(negative, levels), np.quantile(positive, levels[3:-3])]))


def _class_parts(reference: Reference, new: Scores) -> list[Part]:
    """`positives` and `negatives`, those of them that have labels enough."""
    parts = []
    mine, theirs, w = reference.log_ratios(), reference.log_ratios(new), _weights(new)
    for c, name in ((1, "positives"), (0, "negatives")):
        some, of = (new.target == c) & (w > 0), reference.scores.target == c
        if np.count_nonzero(some) >= _FEWEST_LABELS:
            statistic, p = _kolmogorov_smirnov(mine[of], _weights(reference.scores)[of], theirs[some], w[some])
            parts.append(Part(name, statistic, p, "score"))
    return parts


_FEWEST_LABELS = 5


def _kolmogorov_smirnov(a: Floats, of_a: Floats, b: Floats, of_b: Floats) -> tuple[float, float]:
    """The largest difference of two weighted distribution functions, and its p by Kolmogorov's limit with Stephens'
    (1970) correction for small samples; ties make it larger than it need be."""
    at = np.unique(np.concatenate([a, b]))
    functions = [
        np.cumsum(np.bincount(np.searchsorted(at, x), w, minlength=len(at))) / w.sum()
        for x, w in ((a, of_a), (b, of_b))
    ]
    d = float(np.abs(functions[0] - functions[1]).max())
    m, n = effective_size(of_a), effective_size(of_b)
    root = math.sqrt(m * n / (m + n))
    return d, float(stats.kstwobign.sf((root + 0.12 + 0.11 / root) * d))
