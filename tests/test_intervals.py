"""Intervals against slow forms of what they claim to be, and against what they promise: coverage."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, special, stats
from sklearn import metrics as sk

from tunelater import intervals
from tunelater.intervals import Estimate, effective_size, of_mean, of_proper_scores, of_ranking
from tunelater.losses import logit
from tunelater.problems import InputError
from tunelater.scoring import Scores
from tunelater.tuning import OperatingGrid, OperatingPoint, assess, compare

Z = stats.norm.ppf(0.975)


def sample(
    seed: int,
    positives: int = 12,
    negatives: int = 60,
    distance: float = 1.0,
    ties: bool = False,
    weighted: bool = False,
) -> tuple[NDArray, NDArray, NDArray | None]:
    """Binormal scores, with ties and weights (some zero) where asked for."""
    rng = np.random.default_rng(seed)
    target = rng.permutation(np.repeat([1, 0], [positives, negatives]))
    x = rng.normal(size=len(target)) + distance * target
    weight = rng.exponential(size=len(target)) * (rng.random(len(target)) < 0.9) if weighted else None
    return np.round(2 * x) / 2 if ties else x, target, weight


def everything(
    x: NDArray, target: NDArray, weight: NDArray | None, prior: float | None, **kw: float | NDArray
) -> dict[str, Estimate]:
    given = {"prior": prior, **kw}
    return of_ranking(x, target, weight, **given) | of_proper_scores(x - 2, target, weight, **given)


def half_width(e: Estimate) -> float:
    return (special.logit(e.high) - special.logit(e.low)) / 2


# ------------------------------------------------------------------------------------------- against slow forms


def slow_auc(x: NDArray, target: NDArray, weight: NDArray | None) -> tuple[float, float]:
    """The ends of the interval from the kernel of every pair of samples."""
    w = np.ones(len(x)) if weight is None else weight
    pos, neg = (np.flatnonzero(target == c) for c in (1, 0))
    kernel = np.array([[1.0 if x[i] > x[j] else 0.5 if x[i] == x[j] else 0.0 for j in neg] for i in pos])
    w_pos, w_neg = w[pos] / w[pos].sum(), w[neg] / w[neg].sum()
    area = w_pos @ kernel @ w_neg
    centres, variances = [area, area], [0.0, 0.0]
    for placement, share in ((kernel @ w_neg, w_pos), (w_pos @ kernel, w_neg)):
        n = 1 / (share**2).sum()
        spread = (share**2 * (placement - area) ** 2).sum()
        variances[0] += spread * n / (n - 1)
        mean = (n * area + 0.5 * 0.5) / (n + 0.5)
        centres[1] += mean - area
        variances[1] += (n**2 * spread + n * (area - mean) ** 2 + 0.5 * (0.5 - mean) ** 2) / (n + 0.5) ** 2
    ends = []
    for centre, variance in zip(centres, variances, strict=True):
        reach = Z * math.sqrt(variance) / (centre * (1 - centre))
        ends += [special.expit(special.logit(centre) + sign * reach) for sign in (-1, 1)]
    return min(ends), max(ends)


@pytest.mark.parametrize(("ties", "weighted"), list(itertools.product([False, True], repeat=2)))
def test_auc_interval_is_delong_from_every_pair(ties: bool, weighted: bool) -> None:
    for seed in range(5):
        problem = sample(seed, ties=ties, weighted=weighted)
        e = of_ranking(*problem)["auc"]
        assert e.value == pytest.approx(sk.roc_auc_score(problem[1], problem[0], sample_weight=problem[2]))
        assert (e.low, e.high) == pytest.approx(slow_auc(*problem), abs=1e-9)


@pytest.mark.parametrize(
    ("ties", "weighted", "prior"), list(itertools.product([False, True], [False, True], [None, 0.02]))
)
def test_width_of_average_precision_is_that_of_its_numerical_derivative(
    ties: bool, weighted: bool, prior: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a sample's weight does to scikit-learn's value is its influence."""
    monkeypatch.setattr(intervals, "PSEUDO", 0.0)
    distance = 2.5 if prior is None else 4.0  # so that half a positive more decides an end of the interval
    x, target, weight = sample(1, positives=30, negatives=200, distance=distance, ties=ties, weighted=weighted)
    w = np.ones(len(x)) if weight is None else weight
    own = w[target == 1].sum() / w.sum()

    def value(w: NDArray, share: float) -> float:
        by_class = np.where(target == 1, share / w[target == 1].sum(), (1 - share) / w[target == 0].sum())
        return sk.average_precision_score(target, x, sample_weight=w * by_class)

    share, step = own if prior is None else prior, 1e-5
    at = value(w, share)
    moved = np.array([w[j] * (value(w + step * (np.arange(len(x)) == j), share) - at) / step for j in range(len(x))])
    n = {c: effective_size(w[target == c]) for c in (0, 1)}
    parts = {c: np.square(moved[target == c]).sum() * n[c] / (n[c] - 1) for c in (0, 1)}
    of_share = 0.0
    if prior is None:
        slope = (value(w, share + step) - value(w, share - step)) / (2 * step)
        of_share = slope**2 * share * (1 - share) / effective_size(w)
    total = sum(parts.values()) + of_share
    t = stats.t.ppf(0.975, total**2 / sum(parts[c] ** 2 / (n[c] - 1) for c in (0, 1)))
    e = of_ranking(x, target, weight, prior=prior)["average_precision"]
    assert e.value == pytest.approx(at)
    low, high = special.logit(e.low), special.logit(e.high)
    centre = special.expit((low + high) / 2)
    assert (high - low) / 2 == pytest.approx(t * math.sqrt(total) / (centre * (1 - centre)), rel=1e-3)

    monkeypatch.undo()  # with half a positive more, of precision 1/2
    m, spread = n[1] + 0.5, np.square(moved[target == 1]).sum()
    mean = (n[1] * centre + 0.25) / m
    variance = (n[1] ** 2 * spread + n[1] * 0.5 / m * (centre - 0.5) ** 2) / m**2 + parts[0] + of_share
    reach = t * math.sqrt(variance) / (mean * (1 - mean))
    expected = [special.expit(special.logit(mean) + sign * reach) for sign in (-1, 1)]
    assert expected[0] < e.low or expected[1] > e.high
    both = of_ranking(x, target, weight, prior=prior)["average_precision"]
    assert both[1:] == pytest.approx((min(expected[0], e.low), max(expected[1], e.high)), abs=1e-4)


def test_average_precision_is_centred_with_less_of_the_bias_of_own_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of scores that know nothing, average precision is the share of positives."""
    monkeypatch.setattr(intervals, "PSEUDO", 0.0)
    values, centres = [], []
    for seed in range(300):
        x, target, _ = sample(seed, positives=40, negatives=360, distance=0)
        e = of_ranking(x, target, prior=0.1)["average_precision"]
        values.append(e.value)
        centres.append(special.expit((special.logit(e.low) + special.logit(e.high)) / 2))
    assert np.mean(values) > 0.11
    assert abs(np.mean(centres) - 0.1) < 0.5 * (np.mean(values) - 0.1)


def test_a_mean_of_one_class_has_students_interval() -> None:
    rng = np.random.default_rng(0)
    target = np.repeat([1, 0], [7, 50])
    values = np.where(target == 1, rng.normal(size=57), 0.0)
    e = of_mean(values, target, prior=0.3, confidence=0.9)
    mine = values[:7]
    low, high = stats.t.interval(0.9, 6, mine.mean(), stats.sem(mine))
    assert (e.value, e.low, e.high) == pytest.approx((0.3 * mine.mean(), 0.3 * low, 0.3 * high))


def test_a_mean_over_both_classes_has_welchs_interval() -> None:
    """With equal shares it is half a difference of means, once one class has changed its sign."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=9), 3 * rng.normal(size=25) + 1
    welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    e = of_mean(np.concatenate([a, -b]), np.repeat([1, 0], [9, 25]), prior=0.5)
    assert (2 * e.low, 2 * e.high) == pytest.approx((welch.low, welch.high))


def test_an_unknown_share_adds_its_own_variance() -> None:
    target = np.repeat([1, 0], [20, 80])
    e = of_mean(target * 1.0, target)
    assert (e.value, e.high - e.value, e.value - e.low) == pytest.approx((0.2, Z * 0.04, Z * 0.04))


@pytest.mark.parametrize("prior", [0.2, None])
def test_losses_gain_half_a_confident_error_in_each_class(prior: float | None) -> None:
    x, target, _ = sample(3, positives=8, negatives=40, distance=3)
    x, pi = x - 2, prior or 8 / 48
    loss = {1: np.logaddexp(0, -x[target == 1]), 0: np.logaddexp(0, x[target == 0])}
    worse = {1: np.logaddexp(0, -x[target == 0].mean()), 0: np.logaddexp(0, x[target == 1].mean())}
    share, n = {1: pi, 0: 1 - pi}, {1: 8, 0: 40}
    parts = {c: share[c] ** 2 * loss[c].var(ddof=1) / n[c] for c in (0, 1)}
    of_share = 0.0 if prior else (loss[1].mean() - loss[0].mean()) ** 2 * pi * (1 - pi) / 48
    total = sum(parts.values()) + of_share
    t = stats.t.ppf(0.975, total**2 / sum(v**2 / (n[c] - 1) for c, v in parts.items()))
    value = sum(share[c] * loss[c].mean() for c in (0, 1))
    ends = [value * math.exp(s * t * math.sqrt(total) / value) for s in (-1, 1)]
    centre, spread = 0.0, of_share
    for c in (0, 1):
        both, w = np.append(loss[c], worse[c]), np.append(np.ones(n[c]), 0.5)
        centre += share[c] * (mean := np.average(both, weights=w))
        spread += share[c] ** 2 * np.average((both - mean) ** 2, weights=w) / w.sum()
    ends += [centre * math.exp(s * t * math.sqrt(spread) / centre) for s in (-1, 1)]
    e = of_proper_scores(x, target, prior=prior)["log_loss"]
    assert (e.value, e.low, e.high) == pytest.approx((value, min(ends), max(ends)))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("line", [-3.0, 1.0, 4.0])
def test_intervals_of_rates_are_jeffreys(line: float, weighted: bool) -> None:
    """Both ends, to the error of some thousand draws, also where all or none are alerted on; with weights at Kish's
    effective size."""
    x, target, weight = sample(0, positives=40, negatives=300, distance=2, weighted=weighted)
    s = Scores(x[None].astype(np.float32), target.astype(np.int8), {}, 0.1, weight, split="test")
    e = assess(OperatingPoint({}, special.expit(line), line, 0.1, needs={"prior": 0.1}), s)
    for name, c in (("recall", 1), ("fpr", 0)):
        w = np.ones((target == c).sum()) if weight is None else weight[target == c]
        n = w.sum() ** 2 / (w**2).sum()
        rate = np.average(x[target == c] >= line, weights=w)
        low, high = stats.beta.ppf([0.025, 0.975], rate * n + 0.5, (1 - rate) * n + 0.5)
        assert e[name].value == pytest.approx(rate)
        assert (e[name].low, e[name].high) == pytest.approx((low, high), abs=0.08 * (high - low))


@pytest.mark.parametrize("weighted", [False, True])
def test_interval_of_a_paired_difference_of_rates_has_the_variance_of_its_cells(weighted: bool) -> None:
    """With many samples: the share on which the two disagree, over Kish's effective size."""
    x, target, weight = sample(0, positives=900, negatives=900, distance=2, weighted=weighted)
    y = x + np.random.default_rng(1).normal(size=len(x))
    point = OperatingPoint({}, special.expit(1.0), 1.0, 0.1, needs={"prior": 0.1})
    a, b = (
        (point, Scores(z[None].astype(np.float32), target.astype(np.int8), {}, 0.1, weight, split="test"))
        for z in (x, y)
    )
    for name, c in (("recall", 1), ("fpr", 0)):
        w = np.ones((target == c).sum()) if weight is None else weight[target == c]
        gap = (x >= 1)[target == c].astype(float) - (y >= 1)[target == c]
        mean = np.average(gap, weights=w)
        sd = math.sqrt((np.average(gap**2, weights=w) - mean**2) / effective_size(w))
        e = compare(a, b, name)
        assert e.value == pytest.approx(mean)
        assert (e.high - e.low) / 2 == pytest.approx(Z * sd, rel=0.08)


# ------------------------------------------------------------------------------------------- what must hold


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=30), st.floats(0.01, 100))
def test_effective_size(weights: list[float], factor: float) -> None:
    w = np.array(weights)
    n = effective_size(w)
    assert 1 - 1e-9 <= n <= len(w) + 1e-9
    assert effective_size(w * factor) == pytest.approx(n)
    assert effective_size(np.append(w, 0)) == pytest.approx(n)
    assert effective_size(np.full(len(w), factor)) == pytest.approx(len(w))
    assert effective_size(np.repeat(w, 3)) == pytest.approx(3 * n)


@pytest.mark.parametrize("prior", [None, 0.05])
def test_only_relative_weights_count_and_weightless_rows_do_not(prior: float | None) -> None:
    x, target, weight = sample(5, positives=30, negatives=200, ties=True, weighted=True)
    assert weight is not None
    weight[np.argmax(x - 100 * (target == 0))] = 0  # the positive on top, above which nothing counts
    x[np.argmax(x - 100 * (target == 0))] = 100
    base = everything(x, target, weight, prior)
    counted = weight > 0
    for same in (
        everything(x, target, 2 * weight, prior),
        everything(x[counted], target[counted], weight[counted], prior),
    ):
        for name, e in base.items():
            assert same[name] == pytest.approx(e), name
    plain, ones = everything(x, target, None, prior), everything(x, target, np.full(len(x), 7.3), prior)
    for name, e in plain.items():
        assert ones[name] == pytest.approx(e), name


@pytest.mark.parametrize("prior", [None, 0.05])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_interval_of_a_point_keeps_its_width_under_doubled_weights_and_shrinks_with_rows(
    weighted: bool, prior: float | None
) -> None:
    x, target, weight = sample(6, positives=400, negatives=1200, weighted=weighted)
    weight = np.ones(len(x)) if weight is None else weight
    point = OperatingPoint({}, 0.5, 0.0, 0.05, needs={} if prior is None else {"prior": prior})

    def assessed(k: int, factor: float) -> dict[str, Estimate]:
        rows = np.tile(np.arange(len(x)), k)
        log_odds = (x[rows] - 0.5)[None].astype(np.float32)
        return assess(point, Scores(log_odds, target[rows].astype(np.int8), {}, 0.05, factor * weight[rows], "test"))

    base, doubled, twice = assessed(1, 1), assessed(1, 2), assessed(2, 1)
    for name, e in base.items():
        assert doubled[name] == pytest.approx(e), name
        narrower = (e.high - e.low) / (twice[name].high - twice[name].low)
        assert narrower == pytest.approx(math.sqrt(2), rel=0.06), name


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 6),
    st.integers(1, 30),
    st.floats(0, 30),
    st.booleans(),
    st.sampled_from([None, 1e-6, 0.5]),
)
def test_intervals_hold_their_value_and_stay_on_their_scale(
    seed: int, positives: int, negatives: int, distance: float, ties: bool, prior: float | None
) -> None:
    """Also of one sample a class, of perfect ranking, and of certain probabilities."""
    x, target, _ = sample(seed, positives, negatives, distance, ties)
    for name, e in everything(x, target, None, prior).items():
        assert all(map(math.isfinite, e)), name
        assert 0 <= e.low <= e.value <= e.high, name
        if name != "log_loss":
            assert e.high <= 1, name


def test_intervals_of_a_perfect_ranking_have_width_that_shrinks_with_samples() -> None:
    lows = []
    for n in (5, 20, 100):
        target = np.repeat([1, 0], [n, 20 * n])
        x = target + np.linspace(0, 0.5, len(target))
        e = of_ranking(x, target)
        assert (*e["auc"][::2], *e["average_precision"][::2]) == pytest.approx((1, 1, 1, 1))
        lows.append([e["auc"].low, e["average_precision"].low])
        upside_down = of_ranking(-x, target)["auc"]
        assert upside_down.value == upside_down.low == 0
        assert upside_down.high == pytest.approx(1 - e["auc"].low)
    assert np.all(np.diff(lows, axis=0) > 0)
    assert np.all(np.array(lows) < 1)


def test_more_confidence_is_wider_at_both_ends() -> None:
    x, target, _ = sample(2)
    s = Scores(x[None].astype(np.float32), target.astype(np.int8), {}, 0.1, split="test")
    point = OperatingPoint({}, 0.5, 0.0, 0.1, needs={"cost": {"fn": 5, "fp": 1}})
    sure, less = assess(point, s, confidence=0.99), assess(point, s, confidence=0.8)
    for name in sure:
        assert sure[name].low < less[name].low <= less[name].value <= less[name].high < sure[name].high, name
    other = dataclasses.replace(
        s, log_odds=s.log_odds + np.random.default_rng(0).normal(size=len(x))[None].astype("f4")
    )
    for name in ("brier", "recall"):
        a, b = (compare((point, s), (point, other), name, confidence=c) for c in (0.99, 0.8))
        assert a.low < b.low < b.high < a.high


# ------------------------------------------------------------------------------------------- coverage


@pytest.mark.parametrize(
    ("positives", "area", "weighted", "slack"),
    [(10, 0.99, False, 0.05), (30, 0.95, False, 0.05), (100, 0.8, False, 0.0), (100, 0.8, True, 0.0)],
)
def test_intervals_cover_the_truth(positives: int, area: float, weighted: bool, slack: float) -> None:
    """Within three standard errors of 95% of 400 samples, on either side; `slack` is what the pseudo-observations may
    add with few positives and AUC near 1. Misses lie on both sides unless the scale ends there."""
    d, pi, repeats = math.sqrt(2) * stats.norm.ppf(area), 1 / 21, 400
    big = np.random.default_rng(0).normal(size=(2, 200_000))
    odds = lambda x: d * x - d * d / 2 + logit(pi)
    grid = np.linspace(-8, d + 8, 4001)
    r, f = stats.norm.sf(grid - d), stats.norm.sf(grid)
    truth = {
        "auc": area,
        "average_precision": integrate.trapezoid(stats.norm.pdf(grid - d) * pi * r / (pi * r + (1 - pi) * f), grid),
        "brier": pi * (special.expit(-odds(big[0] + d)) ** 2).mean()
        + (1 - pi) * (special.expit(odds(big[1])) ** 2).mean(),
    }
    target = np.repeat([1, 0], [positives, 20 * positives])
    rng, misses = np.random.default_rng(1), {name: np.zeros(2) for name in truth}
    for _ in range(repeats):
        x = odds(rng.normal(size=len(target)) + d * target)
        weight = rng.exponential(size=len(target)) if weighted else None
        estimates = of_ranking(x, target, weight, prior=pi) | of_proper_scores(x, target, weight, prior=pi)
        for name, value in truth.items():
            misses[name] += estimates[name].low > value, estimates[name].high < value
    tolerance = 3 * math.sqrt(0.95 * 0.05 / repeats)
    for name, (above, below) in misses.items():
        covered = 1 - (above + below) / repeats
        assert 0.95 - tolerance <= covered <= min(0.95 + tolerance + slack, 0.999), (name, covered)
        assert not (slack == 0 and min(above, below) == 0), (name, above, below)


# ------------------------------------------------------------------------------------------- scores of several samples


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([None, 0.02, 0.6]))
def test_a_score_may_stand_for_several_samples(seed: int, weighted: bool, prior: float | None) -> None:
    x, target, weight = sample(seed, ties=True, weighted=weighted)
    weight = np.ones(len(x)) if weight is None else weight
    if not all(weight[target == c].any() for c in (0, 1)):
        return
    pairs, place = np.unique(np.stack([x, target]), axis=1, return_inverse=True)
    sums, squares = (np.bincount(place.ravel(), w) for w in (weight, weight**2))
    given_together = everything(pairs[0], pairs[1].astype(int), sums, prior, squares=squares)
    for name, each in everything(x, target, weight, prior).items():
        assert given_together[name] == pytest.approx(each, rel=1e-9, abs=1e-12), name
    assert effective_size(sums, squares) == pytest.approx(effective_size(weight))
    means = of_mean(x, target, weight, prior=prior), of_mean(*pairs, sums, squares=squares, prior=prior)
    assert means[1] == pytest.approx(means[0], rel=1e-9, abs=1e-12)


# ------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("confidence", [0, 1, 0.0, 1.0, 95, -0.1, math.nan, "0.95", None])
def test_confidence_lies_between_0_and_1(confidence: object) -> None:
    _refused("a confidence lies in", confidence=confidence)


@pytest.mark.parametrize("seed", [-1, 0.5, 2**64, True, "0", None])
def test_seed_is_a_whole_number_from_0(seed: object) -> None:
    _refused("a seed is a whole number", seed=seed)


def _refused(words: str, **given: object) -> None:
    x, target, _ = sample(0)
    s = Scores(x[None].astype(np.float32), target.astype(np.int8), {}, 0.1)
    point = OperatingPoint({}, 0.5, 0.0, 0.1)
    for work in (
        lambda: OperatingGrid(s).select(maximize="f1", **given),
        lambda: assess(point, s, **given),
        lambda: compare((point, s), (point, s), "recall", **given),
    ):
        with pytest.raises(InputError, match=words):
            work()


def test_all_that_is_wrong_is_told_at_once() -> None:
    x, target, _ = sample(0)
    s = Scores(x[None].astype(np.float32), target.astype(np.int8), {}, 0.1)
    with pytest.raises(InputError) as error:
        OperatingGrid(s).select(maximize="precison", subject_to="recall>=2", confidence=1, seed=-1)
    assert len(error.value.problems) == 4
    point = OperatingPoint({}, 0.5, 0.0, 0.1)
    with pytest.raises(InputError) as error:
        compare((point, s), (point, s), "aux", confidence=1, seed=-1, n=0)
    assert len(error.value.problems) == 4
    weightless = dataclasses.replace(s, weight=(target == 0) * 1.0)
    for work in (
        lambda: assess(point, weightless),
        lambda: compare((point, weightless), (point, weightless), "recall"),
    ):
        with pytest.raises(InputError, match="none of class 1"):
            work()
