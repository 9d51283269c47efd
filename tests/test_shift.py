"""Priors from unlabelled cases against the EM algorithm, a grid of the likelihood and QuaPy; size and power of the test
for label shift."""

import math
import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit

from tunelater.losses import logit
from tunelater.problems import DoubtfulInputWarning, InputError
from tunelater.scoring import Scores
from tunelater.shift import (
    UNKNOWN,
    LogRatio,
    Reference,
    check_label_shift,
    estimate_prior,
    maximum_likelihood_prior,
    unlabelled,
)

LAMBDAS = {"tau": np.array([0.0])}
TRAINING = 0.02
"""The prior that scores are for; any would do."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        yield


def drawn(
    rng: np.random.Generator, n: int, prior: float, distance: float = 2.0, spread: float = 1.0, shift: float = 0.0
) -> Scores:
    """Binormal scores, whose log ratios are right where `spread` is 1."""
    y = (rng.random(n) < prior).astype(np.int8)
    z = rng.normal(size=n) * np.where(y == 1, spread, 1.0) + distance * y + shift
    ratio = distance * z - distance**2 / 2
    return Scores((ratio + logit(TRAINING)).astype(np.float32)[None], y, LAMBDAS, TRAINING, model="m")


def some_log_ratios(seed: int, n: int = 200, prior: float = 0.2) -> np.ndarray:
    scores = drawn(np.random.default_rng(seed), n, prior)
    return scores.log_odds[0].astype(np.float64) - logit(TRAINING)


def em(log_ratio: np.ndarray, target: np.ndarray, weight: np.ndarray, start: float, steps: int = 20_000) -> float:
    """The algorithm as Saerens et al. (2002) write it, with posteriors at a starting prior; labels are kept."""
    posterior = expit(log_ratio + logit(start))
    prior = start
    for _ in range(steps):
        odds = [prior / start * p / (prior / start * p + (1 - prior) / (1 - start) * (1 - p)) for p in posterior]
        known = [p if y == UNKNOWN else float(y) for p, y in zip(odds, target, strict=True)]
        before, prior = prior, sum(w * p for w, p in zip(weight, known, strict=True)) / weight.sum()
        if abs(prior - before) < 1e-13:
            break
    return prior


# ------------------------------------------------------------------------------------------- the value


@pytest.mark.parametrize("labelled", [0.0, 0.3])
@pytest.mark.parametrize("start", [0.02, 0.5])
def test_the_estimate_is_what_em_converges_to(labelled: float, start: float) -> None:
    rng = np.random.default_rng(1)
    scores = drawn(rng, 60, 0.3, distance=3.0)
    g = scores.log_odds[0].astype(np.float64) - logit(TRAINING)
    y = np.where(rng.random(60) < labelled, scores.target, UNKNOWN)
    w = rng.integers(1, 4, 60).astype(np.float64)
    assert maximum_likelihood_prior(g, y, w) == pytest.approx(em(g, y, w, start), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), prior=st.sampled_from([0.0, 0.01, 0.3, 0.9]), labelled=st.sampled_from([0.0, 0.2]))
def test_no_other_prior_is_more_likely(seed: int, prior: float, labelled: float) -> None:
    rng = np.random.default_rng(seed)
    scores = drawn(rng, 80, prior)
    g = scores.log_odds[0].astype(np.float64) - logit(TRAINING)
    y = np.where(rng.random(80) < labelled, scores.target, UNKNOWN)

    def log_likelihood(pi: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            free = np.log((1 - pi) + pi * np.exp(g[y == UNKNOWN, None])).sum(axis=0)
            known = [np.log(p) * k if k else 0.0 for p, k in ((pi, (y == 1).sum()), (1 - pi, (y == 0).sum()))]
        return free + known[0] + known[1]

    found = maximum_likelihood_prior(g, y)
    grid = log_likelihood(np.linspace(0, 1, 2001))
    assert log_likelihood(np.array([found]))[0] >= grid.max() - 1e-9


def test_quapy_finds_the_same() -> None:
    aggregative = pytest.importorskip("quapy.method.aggregative")
    for seed, prior in ((0, 0.05), (1, 0.3), (2, 0.8)):
        g = some_log_ratios(seed, 2000, prior)
        posterior = expit(g + logit(TRAINING))
        theirs, _ = aggregative.EMQ.EM(
            np.array([1 - TRAINING, TRAINING]), np.stack([1 - posterior, posterior], axis=1), epsilon=1e-12
        )
        assert maximum_likelihood_prior(g) == pytest.approx(theirs[1], abs=1e-6)


def test_boundaries() -> None:
    assert maximum_likelihood_prior([-3.0, -2.0, -5.0]) == 0
    assert maximum_likelihood_prior([3.0, 2.0, 5.0]) == 1
    assert 0 < maximum_likelihood_prior([-3.0, -2.0, -5.0], pseudo=0.5) < 0.5
    assert math.isnan(maximum_likelihood_prior([0.0, 0.0]))
    assert maximum_likelihood_prior([0.0, 0.0], [1, UNKNOWN]) == 1
    assert maximum_likelihood_prior([900.0, -900.0]) == pytest.approx(0.5)


def test_a_prior_near_one_is_found_as_one_near_zero() -> None:
    g = some_log_ratios(3, 500, 0.02)
    assert 1 - maximum_likelihood_prior(-g) == pytest.approx(maximum_likelihood_prior(g), abs=1e-9)


def test_labels_of_all_cases_make_it_their_share() -> None:
    y = np.array([1, 0, 0, 1, 0])
    assert maximum_likelihood_prior(np.zeros(5), y) == 0.4
    assert maximum_likelihood_prior(np.zeros(5), y, [3, 1, 1, 1, 2]) == 0.5


def test_the_order_of_cases_does_not_matter_and_weights_are_repetitions() -> None:
    rng = np.random.default_rng(5)
    g, w = some_log_ratios(5), rng.integers(0, 4, 200)
    y = np.where(rng.random(200) < 0.1, 1, UNKNOWN)
    order = rng.permutation(200)
    value = maximum_likelihood_prior(g, y, w)
    assert maximum_likelihood_prior(g[order], y[order], w[order]) == pytest.approx(value, abs=1e-12)
    assert maximum_likelihood_prior(np.repeat(g, w), np.repeat(y, w)) == pytest.approx(value, abs=1e-12)
    assert maximum_likelihood_prior(g, y, 7.5 * w) == pytest.approx(value, abs=1e-12)


def test_the_prior_that_scores_are_for_does_not_matter() -> None:
    rng = np.random.default_rng(6)
    reference, new = drawn(rng, 1000, 0.05), unlabelled(drawn(rng, 1000, 0.1))
    at = estimate_prior(Reference.of(reference), new)
    moved = estimate_prior(Reference.of(reference.at_prior(0.3)), new.at_prior(0.6))
    for name in ("value", "low", "high", "adopted"):
        assert getattr(moved, name) == pytest.approx(getattr(at, name), rel=1e-4)


def test_a_log_ratio_forgets_the_prior_and_calibration_mends_a_stretched_score() -> None:
    link = LogRatio(None, 0.3)
    assert link(logit(0.2) + 1.5, 0.2) == pytest.approx(1.5)
    rng = np.random.default_rng(7)
    reference, new = drawn(rng, 20_000, 0.1), unlabelled(drawn(rng, 20_000, 0.4))
    stretched = [replace(s, log_odds=2 * s.log_odds + np.float32(1)) for s in (reference, new)]
    trusted, mended = (estimate_prior(Reference.of(stretched[0], calibration=c), stretched[1]) for c in (None, "platt"))
    right = estimate_prior(Reference.of(reference, calibration=None), new).value
    assert abs(mended.value - right) < 0.2 * abs(trusted.value - right)


# ------------------------------------------------------------------------------------------- the interval


def coverage(
    *, n: int, before: float, after: float, spread: float = 1.0, label: str = "none", runs: int = 200
) -> float:
    rng, held = np.random.default_rng(8), 0
    for _ in range(runs):
        reference, new = drawn(rng, n, before, spread=spread), drawn(rng, n, after, spread=spread)
        if label == "none":
            new = unlabelled(new)
        elif label == "alerts":  # the highest scores are looked into
            seen = new.log_odds[0] >= np.quantile(new.log_odds[0], 0.9)
            new = replace(new, target=np.where(seen, new.target, UNKNOWN).astype(np.int8))
        e = estimate_prior(Reference.of(reference), new)
        held += e.low <= after <= e.high
    return held / runs


@pytest.mark.parametrize(
    "case",
    [
        {"n": 1000, "before": 0.05, "after": 0.2},
        {"n": 2000, "before": 0.02, "after": 0.001},
        {"n": 1000, "before": 0.05, "after": 0.1, "spread": 1.5},
        {"n": 1000, "before": 0.05, "after": 0.1, "label": "all"},
        {"n": 1000, "before": 0.05, "after": 0.1, "spread": 1.5, "label": "alerts"},
    ],
    ids=["more", "fewer", "wrong ratios", "labelled", "alerts labelled"],
)
def test_intervals_hold_the_prior_as_often_as_they_say(case: dict) -> None:
    # 200 runs: a coverage of 0.95 falls under 0.91 in less than 1% of them
    assert coverage(**case) >= 0.91


def test_more_new_cases_narrow_the_interval_as_far_as_the_reference_lets_them() -> None:
    rng = np.random.default_rng(9)
    reference = Reference.of(drawn(rng, 1000, 0.05))
    width = [e.high - e.low for e in (estimate_prior(reference, unlabelled(drawn(rng, n, 0.1))) for n in (300, 3000))]
    many = estimate_prior(reference, unlabelled(drawn(rng, 300_000, 0.1)))
    better = estimate_prior(Reference.of(drawn(rng, 30_000, 0.05)), unlabelled(drawn(rng, 300_000, 0.1)))
    assert width[1] < width[0]
    assert better.high - better.low < (many.high - many.low) / 2 < width[1]


def test_labels_of_all_cases_give_wilsons_interval() -> None:
    rng = np.random.default_rng(10)
    new = drawn(rng, 500, 0.1)
    e = estimate_prior(Reference.of(drawn(rng, 500, 0.1)), new, confidence=0.9)
    wilson = stats.binomtest(int(new.target.sum()), 500).proportion_ci(0.9, method="wilson")
    assert (e.low, e.high) == pytest.approx((wilson.low, wilson.high), rel=1e-6)
    assert e.value == pytest.approx(new.target.mean())
    assert e.n_labelled == e.n == 500


def test_labels_make_the_interval_narrower() -> None:
    rng = np.random.default_rng(11)
    reference, new = Reference.of(drawn(rng, 1000, 0.1, 1.0)), drawn(rng, 2000, 0.1, 1.0)
    half = replace(new, target=np.where(np.arange(2000) % 2 == 0, new.target, UNKNOWN).astype(np.int8))
    none, some, every = (estimate_prior(reference, s) for s in (unlabelled(new), half, new))
    assert every.high - every.low < some.high - some.low < none.high - none.low


def test_scores_that_tell_nothing_leave_the_prior_open() -> None:
    rng = np.random.default_rng(12)
    reference, new = drawn(rng, 500, 0.1, 2.0), unlabelled(drawn(rng, 500, 0.1, 2.0))
    level = [replace(s, log_odds=np.full_like(s.log_odds, -1.0)) for s in (reference, new)]
    e = estimate_prior(Reference.of(level[0]), level[1])
    assert (e.low, e.high) == (0, 1)
    assert e.value == e.before


def test_without_positives_the_estimate_is_near_none_but_can_be_used() -> None:
    rng = np.random.default_rng(13)
    e = estimate_prior(Reference.of(drawn(rng, 3000, 0.05, 4.0)), unlabelled(drawn(rng, 3000, 0.0, 4.0)))
    assert e.value < 0.002
    assert e.low == 0
    assert 0 < e.adopted < 0.005
    assert e.excludes(0.05)
    assert "[" in str(e)


def test_what_to_choose_for_lies_between_what_was_believed_and_what_is_seen() -> None:
    rng = np.random.default_rng(21)
    reference = Reference.of(drawn(rng, 20_000, 0.05))
    few, many = unlabelled(drawn(rng, 20, 0.3)), unlabelled(drawn(rng, 20_000, 0.3))
    seen = estimate_prior(reference, many, before=0.05)
    assert seen.adopted == pytest.approx(seen.value, rel=0.05)
    for before in (0.001, 0.05, 0.6):
        e = estimate_prior(reference, few, before=before)
        assert min(before, e.low) < e.adopted < max(before, e.high)
    far, near = (estimate_prior(reference, few, before=before).adopted for before in (0.001, 0.05))
    assert far < near


# ------------------------------------------------------------------------------------------- the test


def rejections(runs: int = 100, *, prior: float, features: bool = False, drift: float = 0.0, **more: float) -> float:
    """The share of runs in which label shift is rejected at 5%."""
    rng, count = np.random.default_rng(14), 0
    for i in range(runs):
        reference, new = drawn(rng, 800, 0.05), drawn(rng, 800, prior, **more)
        given = None
        if features:
            given = tuple(rng.normal(size=(800, 5)) + s.target[:, None] for s in (reference, new))
            given[1][:, 2] += drift
        test = check_label_shift(Reference.of(reference), unlabelled(new), features=given, draws=99, seed=i)
        count += not test.explained
    return count / runs


@pytest.mark.parametrize(("prior", "features"), [(0.001, False), (0.3, True)])
def test_label_shift_is_seldom_taken_for_drift(prior: float, features: bool) -> None:
    # 100 runs: a rate of 5% goes over 11% in less than 1% of them
    assert rejections(prior=prior, features=features) <= 0.11


def test_drift_of_scores_and_of_inputs_is_found() -> None:
    assert rejections(20, prior=0.1, shift=0.6) >= 0.8
    assert rejections(20, prior=0.1, features=True, drift=0.4) >= 0.8


def test_labels_show_a_class_that_changed() -> None:
    rng = np.random.default_rng(15)
    reference, new = Reference.of(drawn(rng, 3000, 0.1)), drawn(rng, 3000, 0.1)
    positive = (new.target == 1) & (rng.random(3000) < 0.5)
    broken = replace(new, log_odds=np.where(positive, np.float32(-6), new.log_odds).astype(np.float32))
    test = check_label_shift(reference, broken)
    p = {part.name: part.p for part in test.parts}
    assert not test.explained
    assert p["positives"] < 1e-6 < 0.01 < p["negatives"]
    assert test.p == min(1.0, len(test.parts) * min(p.values()))


def test_verdicts_say_what_to_do() -> None:
    rng = np.random.default_rng(16)
    reference = Reference.of(drawn(rng, 3000, 0.05))
    verdict = {
        name: check_label_shift(reference, unlabelled(drawn(rng, 3000, prior, shift=shift)), draws=99).verdict
        for name, prior, shift in (("same", 0.05, 0), ("moved", 0.3, 0), ("drifted", 0.05, 1.0))
    }
    assert verdict["same"].startswith("no change shows")
    assert verdict["moved"].startswith("label shift explains the change")
    assert verdict["drifted"].startswith("the inputs have drifted")
    assert "do not adapt" in verdict["drifted"]


def test_the_test_depends_on_its_seed_alone_and_takes_every_lambda() -> None:
    rng = np.random.default_rng(17)
    two = {"tau": np.array([0.0, 1.0])}
    pairs = [drawn(rng, 500, 0.1), drawn(rng, 700, 0.2)]
    noisy = [
        replace(s, log_odds=np.concatenate([s.log_odds, s.log_odds + rng.normal(size=s.log_odds.shape)]), lambdas=two)
        for s in pairs
    ]
    noisy = [replace(s, log_odds=s.log_odds.astype(np.float32)) for s in noisy]
    reference, new = Reference.of(noisy[0], {"tau": 1.0}), unlabelled(noisy[1])
    a, b = (check_label_shift(reference, new, draws=99, seed=3) for _ in range(2))
    assert a.parts == b.parts
    # a drift at the lambda that no decision is taken at is seen too
    second = new.log_odds + np.array([[1.5], [0.0]], np.float32)
    assert "tau = 0" in check_label_shift(reference, replace(new, log_odds=second), draws=99).parts[0].where


def test_equal_weights_change_nothing() -> None:
    rng = np.random.default_rng(18)
    reference, new = drawn(rng, 400, 0.1), unlabelled(drawn(rng, 400, 0.1))
    weighted = [replace(s, weight=np.full(400, 3.0)) for s in (reference, new)]
    plain = check_label_shift(Reference.of(reference), new, draws=99)
    other = check_label_shift(Reference.of(weighted[0]), weighted[1], draws=99)
    assert other.p == plain.p
    assert other.prior.low == pytest.approx(plain.prior.low, rel=1e-9)
    assert other.prior.adopted == pytest.approx(plain.prior.adopted, rel=1e-9)


# ------------------------------------------------------------------------------------------- bad input


def test_a_reference_tells_all_that_is_wrong() -> None:
    rng = np.random.default_rng(19)
    one_class = replace(unlabelled(drawn(rng, 50, 0.1)), target=np.zeros(50, np.int8), split="train")
    with pytest.raises(InputError) as told:
        Reference.of(one_class, {"tau": 3.0}, calibration="plat")
    assert len(told.value.problems) == 4
    for word in ("class 1", "trained on", "did you mean 'platt'", "tau"):
        assert word in str(told.value)
    with pytest.raises(InputError, match="label of every sample"):
        Reference.of(unlabelled(drawn(rng, 50, 0.1)))


def test_new_scores_tell_all_that_is_wrong() -> None:
    rng = np.random.default_rng(20)
    reference = Reference.of(drawn(rng, 200, 0.2))
    empty = Scores(np.empty((1, 0), np.float32), np.empty(0, np.int8), {"tau": np.array([9.0])}, 0.1, model="other")
    with pytest.raises(InputError) as told:
        estimate_prior(reference, empty, before=0.0, confidence=95)
    assert len(told.value.problems) == 5
    for word in ("model other", "no new cases", "tau", "confidence", "before"):
        assert word in str(told.value)
    new = drawn(rng, 30, 0.2)
    with pytest.raises(InputError, match="0, 1 or -1"):
        estimate_prior(reference, replace(new, target=np.full(30, 2, np.int8)))
    with pytest.raises(InputError) as told:
        check_label_shift(
            reference,
            new,
            features=(np.ones((200, 2)), np.full((29, 3), np.nan)),
            alpha=0.0,
            draws=10,
            seed=-1,
        )
    assert len(told.value.problems) == 5
    with pytest.raises(InputError, match="same columns"):
        check_label_shift(reference, new, features=(np.ones((200, 2)), np.ones((30, 3))))
    with pytest.raises(InputError, match="finite"):
        Scores(np.array([[np.nan, 1.0]], np.float32), np.array([0, 1], np.int8), LAMBDAS, 0.1)


def test_likelihood_tells_all_that_is_wrong() -> None:
    with pytest.raises(InputError) as told:
        maximum_likelihood_prior([np.nan, 1.0], [0, 3], [-1.0, 1.0])
    assert len(told.value.problems) == 3
    with pytest.raises(InputError, match="one shape"):
        maximum_likelihood_prior([1.0, 2.0], [0])
