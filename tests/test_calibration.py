"""Calibration maps against closed forms, slow loops and scikit-learn; reliability and the Brier decomposition."""

import dataclasses
import itertools
import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from tunelater.calibration import (
    KINDS,
    Beta,
    Calibration,
    Isotonic,
    Platt,
    Reliability,
    brier_decomposition,
    calibrated,
    draw_reliability,
    expected_calibration_error,
    fit_calibration,
    probabilities,
    reliability,
)
from tunelater.losses import logit
from tunelater.metrics import prior_weight
from tunelater.problems import DoubtfulInputWarning, InputError
from tunelater.scoring import Scores

ANY_KIND = pytest.mark.parametrize("kind", sorted(KINDS))


def drawn(n: int, seed: int = 0, prior: float = 0.2, distance: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Binormal scores with the posterior log-odds that belong to them, and targets."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < prior).astype(np.int8)
    z = rng.normal(size=n) + distance * y
    return distance * z - distance**2 / 2 + logit(prior), y


def scores_of(log_odds: np.ndarray, target: np.ndarray, prior: float = 0.2, **more: object) -> Scores:
    lambdas = {"tau": np.arange(len(log_odds), dtype=np.float64), "gamma": np.linspace(0, 0.3, len(log_odds))}
    return Scores(log_odds.astype(np.float32), target, lambdas, prior, **({"model": "m"} | more))


@pytest.fixture
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        yield


# ------------------------------------------------------------------------------------------- maps


def soft_regression(features: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Logistic regression without a penalty on Platt's targets: each sample as a positive and as a negative of weights
    t and 1 - t, with Kish's class sizes."""
    size = [weight[y == c].sum() ** 2 / (weight[y == c] ** 2).sum() for c in (0, 1)]
    t = np.where(y == 1, (size[1] + 1) / (size[1] + 2), 1 / (size[0] + 2))
    x, label = np.concatenate([features, features]), np.repeat([1, 0], len(y))
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=5000, solver="newton-cholesky")
    model.fit(x, label, np.concatenate([weight * t, weight * (1 - t)]))
    return np.append(model.intercept_, model.coef_)


@pytest.mark.parametrize("weighted", [False, True])
def test_platt_is_logistic_regression_on_smoothed_targets(weighted: bool) -> None:
    s, y = drawn(1500)
    w = np.random.default_rng(1).gamma(2, size=len(y)) if weighted else np.ones(len(y))
    fitted = fit_calibration("platt", 3 * s - 1, y, w)
    np.testing.assert_allclose(
        dataclasses.astuple(fitted), soft_regression(3 * s[:, None] - 1, y, w), rtol=1e-5, atol=1e-6
    )


def test_platt_is_scikit_learns_sigmoid() -> None:
    s, y = drawn(1500)
    x = 2 * s[:, None]
    classifier = LogisticRegression().fit(x, y)
    sigmoid = CalibratedClassifierCV(FrozenEstimator(classifier), method="sigmoid", cv=2, ensemble=False).fit(x, y)
    ours = fit_calibration("platt", classifier.decision_function(x), y)(classifier.decision_function(x))
    np.testing.assert_allclose(expit(ours), sigmoid.predict_proba(x)[:, 1], atol=2e-4)  # its optimiser's tolerance


@pytest.mark.parametrize("weighted", [False, True])
def test_beta_is_logistic_regression_on_two_features(weighted: bool) -> None:
    s, y = drawn(3000, seed=3)
    bent = np.where(s > 0, 0.5 * s, 2 * s)
    w = np.random.default_rng(1).gamma(2, size=len(y)) if weighted else np.ones(len(y))
    fitted = fit_calibration("beta", bent, y, w)
    features = np.stack([np.log(expit(bent)), -np.log(expit(-bent))], axis=1)
    np.testing.assert_allclose(dataclasses.astuple(fitted), soft_regression(features, y, w), rtol=1e-4, atol=1e-5)
    assert fitted.b > fitted.a > 0  # unbends


def test_beta_finds_the_map_of_beta_distributed_probabilities() -> None:
    """Of p ~ Beta(a1, b1) among positives and Beta(a0, b0) among negatives, the posterior log-odds are exactly
    logit(prior) + (a1 - a0) log p + (b1 - b0) log(1 - p) + log B(a0, b0) / B(a1, b1)."""
    rng = np.random.default_rng(0)
    y = (rng.random(200_000) < 0.3).astype(int)
    p = np.where(y == 1, rng.beta(3, 1.5, len(y)), rng.beta(1, 2, len(y)))
    fitted = fit_calibration("beta", np.log(p) - np.log1p(-p), y)
    of = math.lgamma
    ratio = (of(1) + of(2) - of(3)) - (of(3) + of(1.5) - of(4.5))
    np.testing.assert_allclose([fitted.a, fitted.b, fitted.c], [2, 0.5, logit(0.3) + ratio], atol=0.05)


@pytest.mark.usefixtures("quiet")
@given(seed=st.integers(0, 10_000), n=st.integers(4, 60), turn=st.sampled_from([1.0, -1.0, 0.1]))
@settings(max_examples=40, deadline=None)
def test_beta_is_the_best_under_its_constraints(seed: int, n: int, turn: float) -> None:
    """No other non-negative pair of coefficients has a smaller loss: the Karush-Kuhn-Tucker conditions, which are
    sufficient because the loss is convex."""
    rng = np.random.default_rng(seed)
    y = np.append([0, 1], rng.integers(0, 2, n))
    s, w = turn * rng.normal(1, 3, n + 2) * y + rng.normal(0, 1, n + 2), rng.gamma(1, size=n + 2) + 1e-3
    fitted = fit_calibration("beta", s, y, w)
    size = [w[y == c].sum() ** 2 / (w[y == c] ** 2).sum() for c in (0, 1)]
    t = np.where(y == 1, (size[1] + 1) / (size[1] + 2), 1 / (size[0] + 2))
    residual = w / w.sum() * (expit(fitted(s)) - t)
    slopes = np.array([residual @ np.log(expit(s)), residual @ -np.log(expit(-s))])
    assert abs(residual.sum()) < 1e-8
    for value, slope in zip((fitted.a, fitted.b), slopes, strict=True):
        assert abs(slope) < 1e-6 if value > 0 else slope > -1e-6


def test_isotonic_is_scikit_learns_with_half_an_observation_more_in_each_class() -> None:
    s, y = drawn(3000, seed=4)
    s = np.round(s, 1)  # ties
    w = np.random.default_rng(1).gamma(2, size=len(y))
    fitted = fit_calibration("isotonic", s, y, w)
    half = [0.5 * (w[y == c] ** 2).sum() / w[y == c].sum() for c in (0, 1)]
    reference = IsotonicRegression().fit(
        np.append(s, [s.min(), s.max()]), np.append(y, [1, 0]), np.append(w, half[::-1])
    )
    np.testing.assert_allclose(expit(fitted(s)), reference.predict(s), atol=1e-9)
    assert np.array_equal(fitted([-1e9, 1e9]), [fitted.values[0], fitted.values[-1]])


def test_isotonic_is_straight_in_log_odds_between_blocks() -> None:
    fitted = Isotonic((0.0, 1.0, 2.0), (-4.0, -4.0, 2.0))
    np.testing.assert_allclose(fitted([-9, 0.5, 1.5, 1.75, 9]), [-4, -4, -1, 0.5, 2])


@ANY_KIND
def test_right_log_odds_are_left_nearly_alone(kind: str) -> None:
    s, y = drawn(100_000, prior=0.05)
    fitted = fit_calibration(kind, s, y)
    inner = np.linspace(*np.quantile(s, [0.3, 0.99]), 50)
    assert np.abs(expit(fitted(inner)) - expit(inner)).max() < 0.05


@ANY_KIND
def test_over_sure_log_odds_are_mended(kind: str) -> None:
    s, y = drawn(20_000, prior=0.1)
    new, target = drawn(20_000, seed=9, prior=0.1)
    fitted = fit_calibration(kind, 3 * s + 2, y)
    before, after, best = (brier_decomposition(t, target).brier for t in (3 * new + 2, fitted(3 * new + 2), new))
    assert after - best < 0.02 * (before - best)


@ANY_KIND
@pytest.mark.usefixtures("quiet")
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_maps_never_fall_and_stay_finite(kind: str, data: st.DataObject) -> None:
    number = st.floats(-300, 300, width=32)
    s = np.array(data.draw(st.lists(number, min_size=2, max_size=40)))
    y = np.array(data.draw(st.lists(st.integers(0, 1), min_size=len(s), max_size=len(s))))
    y[:2] = 0, 1
    w = np.array(data.draw(st.lists(st.sampled_from([0.0, 1e-6, 0.3, 1.0, 1e6]), min_size=len(s), max_size=len(s))))
    w[:2] = np.maximum(w[:2], 1e-6)
    fitted = fit_calibration(kind, s, y, w)
    out = fitted(np.sort(np.concatenate([s, np.nextafter(s, 1e9), np.linspace(-500, 500, 101)])))
    assert np.isfinite(out).all()
    assert (np.diff(out) >= -1e-12 * np.abs(out[1:])).all()
    np.testing.assert_allclose(fit_calibration(kind, s, y, 8 * w)(s), fitted(s), rtol=1e-5, atol=1e-5)


@ANY_KIND
@pytest.mark.usefixtures("quiet")
def test_samples_without_weight_do_not_count(kind: str) -> None:
    s, y = drawn(300)
    w = (np.arange(300) % 3 > 0).astype(float)
    some = w > 0
    assert fit_calibration(kind, s, y, w) == fit_calibration(kind, s[some], y[some])


@ANY_KIND
@pytest.mark.usefixtures("quiet")
def test_classes_that_scores_separate_get_finite_probabilities(kind: str) -> None:
    s, y = np.linspace(-4, 4, 40), np.repeat([0, 1], 20)
    p = expit(fit_calibration(kind, s, y)(s))
    assert (p > 0.001).all()
    assert (p < 0.999).all()
    assert p[19] < 0.5 < p[20]


@ANY_KIND
def test_scores_the_wrong_way_round_become_constant_and_are_told(kind: str) -> None:
    s, y = drawn(3000)
    with pytest.warns(DoubtfulInputWarning, match="no higher than negatives.*check which class is positive"):
        fitted = fit_calibration(kind, -s if kind != "isotonic" else -np.where(y == 1, 3.0, 1.0), y)
    assert np.ptp(fitted(np.linspace(-9, 9, 50))) == 0
    assert expit(fitted(0)) == pytest.approx(y.mean(), abs=2e-3)


@pytest.mark.parametrize(("kind", "fewest"), [("platt", 20), ("beta", 30), ("isotonic", 200)])
def test_few_positives_are_doubtful(kind: str, fewest: int) -> None:
    s = np.linspace(-3, 3, 1000) + np.random.default_rng(0).normal(size=1000)
    y = np.zeros(1000, int)
    y[-fewest:] = 1
    fit_calibration(kind, s, y)  # warnings are errors
    y[-fewest] = 0
    with pytest.warns(DoubtfulInputWarning, match=f"wants {fewest} or more samples of each class, got {fewest - 1}"):
        fit_calibration(kind, s, y)


def test_all_problems_of_fitting_come_at_once() -> None:
    with pytest.raises(InputError) as error:
        fit_calibration("isotonik", [0.0, math.nan, 1.0], [1, 1, 1], [1.0, -1.0, 1.0])
    told = "\n".join(error.value.problems)
    assert len(error.value.problems) == 4
    for part in ("did you mean 'isotonic'", "finite", "both classes", "not negative"):
        assert part in told


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Platt(math.inf, -1.0), ["'intercept'", "'slope'"]),
        (lambda: Beta(0.0, -0.1, math.nan), ["'a'", "'b'"]),
        (lambda: Isotonic((), (math.inf,)), ["'at'", "'values'"]),
        (lambda: Isotonic((1.0, 0.0), (1.0, 0.0)), ["must rise", "must not fall"]),
    ],
)
def test_maps_that_cannot_be_are_refused(make: object, told: list[str]) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert len(error.value.problems) == len(told)
    assert all(part in problem for part, problem in zip(told, error.value.problems, strict=True))


# ------------------------------------------------------------------------------------------- all lambdas


@ANY_KIND
def test_scores_are_calibrated_lambda_by_lambda_for_the_samples_share(kind: str) -> None:
    s, y = drawn(4000, prior=0.2)
    held_out = scores_of(np.stack([s, 2 * s + 1]), y)
    new = scores_of(np.stack(drawn(50, seed=5)[:1] * 2), drawn(50, seed=5)[1])
    calibration = Calibration.fit(kind, held_out)
    assert calibration.prior == pytest.approx(y.mean())
    got = calibration.apply(new)
    assert got.prior == calibration.prior
    shift = logit(calibration.prior) - logit(0.2)
    for i in range(2):
        alone = fit_calibration(kind, held_out.log_odds[i].astype(np.float64) + shift, y)
        np.testing.assert_allclose(got.log_odds[i], alone(new.log_odds[i].astype(np.float64) + shift), rtol=1e-6)


@ANY_KIND
def test_the_prior_that_scores_are_given_for_does_not_matter(kind: str) -> None:
    s, y = drawn(3000)
    held_out = scores_of(s[None], y)
    one = Calibration.fit(kind, held_out).apply(held_out)
    moved = Calibration.fit(kind, held_out.at_prior(0.01)).apply(held_out.at_prior(0.7))
    np.testing.assert_allclose(one.log_odds, moved.log_odds, atol=2e-4)


def test_a_deployment_prior_shifts_calibrated_log_odds() -> None:
    s, y = drawn(3000)
    held_out = scores_of(2 * s[None] - 1, y)
    calibration = Calibration.fit("platt", held_out)
    p = probabilities(held_out, 0.01, calibration)
    expected = expit(calibration.apply(held_out).log_odds.astype(np.float64) + logit(0.01) - logit(y.mean()))
    np.testing.assert_allclose(p, expected, rtol=1e-9)
    weight = prior_weight(y, None, 0.01)
    assert weight @ p[0] / weight.sum() == pytest.approx(0.01, rel=0.02)
    np.testing.assert_allclose(probabilities(held_out), expit(held_out.log_odds.astype(np.float64)))


@ANY_KIND
def test_json_round_trip(kind: str, tmp_path: Path) -> None:
    s, y = drawn(2000)
    calibration = Calibration.fit(kind, scores_of(np.stack([s, 2 * s]), y))
    calibration.save(tmp_path / "calibration.json")
    again = Calibration.load(tmp_path / "calibration.json")
    assert again == calibration
    assert again.id == calibration.id


def test_all_problems_of_a_file_come_at_once(tmp_path: Path) -> None:
    s, y = drawn(2000)
    raw = json.loads(Calibration.fit("platt", scores_of(np.stack([s, s, s]), y)).to_json())
    raw["maps"][0]["slope"] = -1
    raw["maps"][1] = {"slope": 1}
    raw["prior"] = 1
    del raw["split"]
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(InputError) as error:
        Calibration.load(path)
    told = "\n".join(error.value.problems)
    assert len(error.value.problems) == 4
    for part in ("lacks 'split'", "'prior'", "map 0: 'slope'", "map 1 of a platt calibration has intercept, slope"):
        assert part in told
    for text in ("{", "[]", '{"format": "tunelater.calibration/9"}'):
        path.write_text(text)
        with pytest.raises(InputError, match="a calibration"):
            Calibration.load(path)
    with pytest.raises(InputError, match="there is no calibration"):
        Calibration.load(tmp_path / "other.json")


def test_calibration_of_another_model_or_lambda_is_refused() -> None:
    s, y = drawn(2000)
    held_out = scores_of(np.stack([s, s]), y)
    calibration = Calibration.fit("platt", held_out)
    other = dataclasses.replace(held_out, model="other", lambdas={"tau": np.array([0.0, 7.0]), "gamma": np.zeros(2)})
    with pytest.raises(InputError) as error:
        calibration.apply(other)
    assert [p.split(":")[0][:30] for p in error.value.problems] == [
        "the calibration belongs to mod",
        "the calibration has no map for",
    ]
    with pytest.raises(InputError, match="belongs to model"):
        calibration.apply(calibration.apply(held_out))  # twice
    one = dataclasses.replace(held_out, log_odds=held_out.log_odds[1:], lambdas={"gamma": [0.3], "tau": [1.0]})
    np.testing.assert_array_equal(calibration.apply(one).log_odds[0], calibration.apply(held_out).log_odds[1])


def test_a_calibration_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError) as error:
        Calibration("plat", (Platt(0, 1),), ({"tau": 1.0}, {"phi": 1.0}), 0.0, "", "validation", 1, 1)
    assert len(error.value.problems) == 5
    assert "did you mean 'platt'" in error.value.problems[0]


def test_one_warning_for_all_lambdas() -> None:
    s, y = drawn(60)
    with pytest.warns(DoubtfulInputWarning) as told:
        Calibration.fit("isotonic", scores_of(np.stack([s] * 5), y))
    assert len(told) == 1


@ANY_KIND
def test_cross_fitting_shows_what_calibration_is_worth_on_other_samples(kind: str) -> None:
    """Mean loss of cross-fitted samples against new ones: equal; of those that maps were fitted to: flattered."""
    gaps = []
    for seed in range(6):
        s, y = drawn(500, seed=seed, prior=0.5)
        new, target = drawn(20_000, seed=100 + seed, prior=0.5)
        here, there = scores_of(s[None], y, 0.5), scores_of(new[None], target, 0.5)
        own = Calibration.fit(kind, here)
        crossed = calibrated(here, kind)
        assert crossed.model == own.apply(here).model
        assert crossed.prior == own.prior
        of = [brier_decomposition(a.log_odds[0], a.target).brier for a in (own.apply(here), crossed, own.apply(there))]
        right = [brier_decomposition(a, b).brier for a, b in ((s, y), (s, y), (new, target))]  # takes luck away
        gaps.append(np.subtract(of, right))
    fitted, crossed, elsewhere = np.mean(gaps, axis=0)
    assert fitted < 0 < crossed
    assert abs(crossed - elsewhere) < abs(fitted - elsewhere)


def test_each_sample_is_left_out_of_its_own_map() -> None:
    """Wherever its score is moved, it meets the same line; the lines of the others follow it."""
    s, y = drawn(500, prior=0.3)
    got = []
    for value in (-4.0, 0.0, 4.0):
        s[7] = value
        got.append(calibrated(scores_of(s[None], y, y.mean()), "platt").log_odds[0])
    assert got[2][7] - got[1][7] == pytest.approx(got[1][7] - got[0][7], rel=1e-5)
    changed = np.abs(got[2] - got[0]) > 1e-6
    assert 0.75 < changed.mean() < 0.85  # the other four folds of five


def test_all_problems_of_cross_fitting_come_at_once() -> None:
    s, y = np.linspace(-1, 1, 20), np.repeat([0, 1], [17, 3])
    with pytest.raises(InputError) as error:
        calibrated(scores_of(s[None], y), "bета")
    assert len(error.value.problems) == 2
    assert "5 folds need as many samples of each class with weight, got 17 and 3" in error.value.problems[1]
    with pytest.raises(InputError, match="2 folds or more, got 1"):
        calibrated(scores_of(s[None], y), "beta", folds=1)
    with pytest.raises(InputError, match="both classes, got none of class 1"):
        calibrated(scores_of(s[None], np.zeros(20, np.int8)), "beta")


# ------------------------------------------------------------------------------------------- reliability


@pytest.mark.parametrize("strategy", ["quantile", "uniform"])
def test_reliability_is_scikit_learns_calibration_curve(strategy: str) -> None:
    s, y = drawn(2000)
    got = reliability(s, y, bins=8, strategy=strategy)
    observed, predicted = calibration_curve(y, expit(s), n_bins=8, strategy=strategy)
    np.testing.assert_allclose(got.observed, observed, rtol=1e-12)
    np.testing.assert_allclose(got.predicted, predicted, rtol=1e-12)
    assert got.n.sum() == len(y)


def test_weights_are_repetitions_for_all_but_intervals() -> None:
    s, y = drawn(500)
    times = np.random.default_rng(0).integers(0, 4, len(s))
    y[:2], times[:2] = (0, 1), 1
    a, b = reliability(s, y, times), reliability(np.repeat(s, times), np.repeat(y, times))
    for name in ("predicted", "observed", "weight"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-9)
    assert a.ece == pytest.approx(b.ece)
    one, other = brier_decomposition(s, y, times), brier_decomposition(np.repeat(s, times), np.repeat(y, times))
    np.testing.assert_allclose(one, other, rtol=1e-9)


def test_equal_scores_share_a_bin() -> None:
    s, y = np.repeat([-2.0, 0.0, 1.0], [90, 5, 5]), np.tile([0, 1], 50)
    got = reliability(s, y, bins=20)
    assert got.n.tolist() == [90, 5, 5]
    assert (np.diff(got.predicted) > 0).all()
    np.testing.assert_allclose(got.weight, [0.9, 0.05, 0.05])


def test_intervals_of_bins_cover() -> None:
    """At least about 95% of bins' intervals hold the bin's mean probability, rare positives too."""
    hits = []
    for seed in range(150):
        s, y = drawn(1000, seed=seed, prior=0.05)
        got = reliability(s, y, bins=5)
        hits.append((got.low <= got.predicted) & (got.predicted <= got.high))
    assert 0.93 < np.mean(hits) < 0.99
    empty = reliability([-3.0] * 50 + [1.0] * 5, [0] * 50 + [1] * 5, bins=2)
    assert (empty.low[0], empty.high[-1]) == (0, 1)


@pytest.mark.parametrize("weighted", [False, True])
def test_calibration_error_of_right_probabilities_is_what_chance_gives(weighted: bool) -> None:
    errors = []
    for seed in range(200):
        s, y = drawn(600, seed=seed, prior=0.05)
        w = np.random.default_rng([seed, 1]).uniform(0.5, 1.5, len(s)) if weighted else None
        errors.append(expected_calibration_error(s, y, w))
    value, expected = np.mean(errors, axis=0)
    assert value == pytest.approx(expected, rel=0.06)


def test_chance_of_a_bin_in_closed_form_is_the_sum_over_outcomes() -> None:
    n, p = 37, 0.043
    ways = [math.comb(n, k) * p**k * (1 - p) ** (n - k) * abs(k / n - p) for k in range(n + 1)]
    one = np.ones(1)
    bins = Reliability(p * one, one, one, one, np.array([n]), n * one, one, p * (1 - p) * one, 0.95, (one, one))
    assert bins.ece_if_calibrated == pytest.approx(sum(ways), rel=1e-9)


def test_calibration_error_of_a_known_shift() -> None:
    y = np.repeat([0, 1, 0, 1], [900, 100, 500, 500])
    s = np.repeat([logit(0.3), logit(0.6)], 1000)
    assert expected_calibration_error(s, y).value == pytest.approx((0.2 + 0.1) / 2)


def test_all_problems_of_a_diagram_come_at_once() -> None:
    with pytest.raises(InputError) as error:
        reliability([0.0, math.inf], [0, 0], bins=0, strategy="quantiles", confidence=95)
    told = "\n".join(error.value.problems)
    assert len(error.value.problems) == 5
    for part in ("1 bin or more, got 0", "did you mean 'quantile'", "confidence", "finite", "both classes"):
        assert part in told


# ------------------------------------------------------------------------------------------- Brier decomposition


@given(st.lists(st.tuples(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0, 4.0]), st.integers(0, 1), st.floats(0.1, 3))))
@settings(max_examples=60, deadline=None)
def test_decomposition_against_the_min_max_formula(rows: list[tuple[float, int, float]]) -> None:
    """Isotonic regression by its definition: the largest over starts of the smallest over ends of means between."""
    s, y, w = np.array([*rows, (-1.0, 1, 1.0), (0.0, 0, 1.0)]).T
    levels = np.unique(s)

    def mean(i: int, j: int) -> float:
        some = (s >= levels[i]) & (s <= levels[j])
        return np.average(y[some], weights=w[some])

    n = len(levels)
    fit = [max(min(mean(i, j) for j in range(k, n)) for i in range(k + 1)) for k in range(n)]
    recalibrated = np.average((np.array(fit)[np.searchsorted(levels, s)] - y) ** 2, weights=w)
    got = brier_decomposition(s, y, w)
    share = np.average(y, weights=w)
    brier = np.average((expit(s) - y) ** 2, weights=w)
    expected = (brier, brier - recalibrated, share * (1 - share) - recalibrated, share * (1 - share))
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_decomposition_adds_up_and_agrees_with_scikit_learn() -> None:
    s, y = drawn(3000, prior=0.03)
    w = np.random.default_rng(0).gamma(1, size=len(y))
    got = brier_decomposition(2 * s, y, w)
    assert got.brier == pytest.approx(brier_score_loss(y, expit(2 * s), sample_weight=w), rel=1e-12)
    assert got.miscalibration - got.discrimination + got.uncertainty == pytest.approx(got.brier, abs=1e-15)
    best = IsotonicRegression().fit(2 * s, y, w).predict(2 * s)
    assert got.miscalibration == pytest.approx(got.brier - np.average((best - y) ** 2, weights=w), abs=1e-12)
    assert min(got) >= 0
    same_ranking = brier_decomposition(s, y, w)
    assert same_ranking.discrimination == pytest.approx(got.discrimination, rel=1e-12)


def test_useless_and_perfect_probabilities() -> None:
    y = np.repeat([0, 1], [90, 10])
    base = brier_decomposition(np.full(100, logit(0.1)), y)
    np.testing.assert_allclose(base, (0.09, 0, 0, 0.09), atol=1e-15)
    sure = brier_decomposition(np.where(y == 1, 800.0, -800.0), y)
    np.testing.assert_allclose(sure, (0, 0, 0.09, 0.09), atol=1e-15)


# ------------------------------------------------------------------------------------------- the diagram


@pytest.mark.parametrize("scale", ["logit", "linear"])
def test_diagram_shows_every_bin(scale: str) -> None:
    from matplotlib.figure import Figure

    s, y = drawn(1000, prior=0.05)
    of = reliability(s, y)
    axes = Figure().subplots()
    axes.set(xscale=scale, yscale=scale)
    of.draw(axes, "link")
    filled, hollow = axes.lines[1:3]
    both = (of.observed > 0) & (of.observed < 1)
    np.testing.assert_allclose(filled.get_xydata(), np.stack([of.predicted[both], of.observed[both]], axis=1))
    np.testing.assert_allclose(hollow.get_xydata(), np.stack([of.predicted[~both], of.high[~both]], axis=1))
    assert len(hollow.get_xdata()) > 0
    assert hollow.get_markerfacecolor() == "white"


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_diagram_of_several_series_is_written(suffix: str, tmp_path: Path) -> None:
    s, y = drawn(1000, prior=0.05)
    path = tmp_path / f"diagram{suffix}"
    draw_reliability({"link": reliability(s, y), "softmax": reliability(3 * s, y)}, path, title="A table")
    assert path.stat().st_size > 5000
    assert path.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")


@pytest.mark.parametrize("spread", [0.5, 2.0, 5.0, 9.0])
@pytest.mark.parametrize("prior", [0.001, 0.05, 0.5])
def test_labels_of_a_diagram_do_not_touch(
    spread: float, prior: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    found: list[list[tuple[float, float]]] = []
    save = Figure.savefig

    def measured(figure: Figure, *args: object, **options: object) -> None:
        save(figure, *args, **options)
        (axes,) = figure.axes
        boxes = [[label.get_window_extent() for label in axis.get_ticklabels()] for axis in (axes.xaxis, axes.yaxis)]
        found.extend([[(b.x0, b.x1) for b in boxes[0]], [(b.y0, b.y1) for b in boxes[1]]])

    monkeypatch.setattr(Figure, "savefig", measured)
    rng = np.random.default_rng(0)
    s = rng.normal(np.log(prior / (1 - prior)), spread, 2000)
    draw_reliability(reliability(s, (rng.random(2000) < expit(s)).astype(np.int8)), tmp_path / "diagram.png")
    assert len(found) == 2
    for labels in found:
        assert len(labels) >= 1
        assert all(end < start for (_, end), (start, _) in itertools.pairwise(labels))


def test_all_problems_of_a_diagrams_file_come_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = reliability(*drawn(100, prior=0.3))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError) as error:
        draw_reliability(dict.fromkeys("abcdef", of), tmp_path / "diagram.jpg", scale="logic")
    told = "\n".join(error.value.problems)
    assert len(error.value.problems) == 4
    for part in ("pip install 'tunelater[demo]'", "'diagram.jpg'", "did you mean 'logit'", "got 6"):
        assert part in told
    assert not list(tmp_path.iterdir())
