"""Selection against a slow search over every lambda and threshold, and what an operating point promises."""

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk

from data_tables import problems_of
from tunelater import guarantee
from tunelater.distributions import Lambdas, LambdaSpace, Linear, at, keyed_rng
from tunelater.losses import logit
from tunelater.metrics import THRESHOLD_METRICS, Constraint, Curve, Floats, prior_weight
from tunelater.problems import InputError
from tunelater.scoring import Scores
from tunelater.tuning import (
    Cost,
    Infeasible,
    OperatingGrid,
    OperatingPoint,
    assess,
    compare,
    problems_of_needs,
    select_from,
)

SPACE = LambdaSpace(gamma=0.1, tau=Linear(0, 3, 0.33))


def scores(seed: int = 0, n: int = 400, positives: float = 0.1, weighted: bool = False, lambdas: int = 4) -> Scores:
    rng = np.random.default_rng(seed)
    target = (rng.random(n) < positives).astype(np.int8)
    target[:2] = 0, 1
    log_odds = (rng.normal(size=(lambdas, n)) + 1.5 * target + logit(positives)).astype(np.float32)
    weight = rng.random(n) + 0.1 if weighted else None
    return Scores(log_odds, target, SPACE.grid({"tau": lambdas}), positives, weight, model="m")


def every_decision(s: Scores, prior: float | None) -> list[dict[str, float]]:
    """The metrics at every threshold of every lambda, by scikit-learn."""
    weight = np.ones(len(s.target)) if s.weight is None else s.weight
    if prior is not None:
        share = {c: weight[s.target == c].sum() for c in (0, 1)}
        weight = weight * np.where(s.target == 1, prior / share[1], (1 - prior) / share[0])
    rows = []
    for row in s.log_odds:
        thresholds = [np.inf, *np.unique(row)]
        decided = np.stack([row >= t for t in thresholds], axis=1).astype(int)  # a label of scikit-learn's for each
        truth = np.broadcast_to(s.target[:, None], decided.shape)
        of_each = {"sample_weight": weight, "average": None, "zero_division": 0}
        (tn, fp), (fn, _) = sk.multilabel_confusion_matrix(truth, decided, sample_weight=weight).transpose(1, 2, 0)
        metrics = {
            "recall": sk.recall_score(truth, decided, **of_each),
            "precision": sk.precision_score(truth, decided, **of_each),
            "f1": sk.f1_score(truth, decided, **of_each),
            "fpr": fp / (fp + tn),
            "cost": (50 * fn + fp) / weight.sum(),
        }
        rows += [{name: float(values[j]) for name, values in metrics.items()} for j in range(len(thresholds))]
    return rows


@functools.cache
def decisions_of(weighted: bool, prior: float | None) -> list[dict[str, float]]:
    return every_decision(scores(n=120, weighted=weighted, lambdas=3), prior)


@pytest.mark.parametrize(("weighted", "prior"), list(itertools.product([False, True], [None, 0.02])))
@pytest.mark.parametrize(
    ("need", "name", "constraint", "sign"),
    [
        ({"maximize": "precision", "subject_to": "recall>=0.9"}, "precision", ("recall", 0.9), 1),
        ({"maximize": "recall", "subject_to": ["fpr<=0.2"]}, "recall", ("fpr", 0.2), 1),
        ({"maximize": "f1"}, "f1", None, 1),
        ({"cost": {"fn": 50, "fp": 1}}, "cost", None, -1),
    ],
)
def test_select_equals_a_search_over_everything(
    weighted: bool, prior: float | None, need: dict, name: str, constraint: tuple[str, float] | None, sign: int
) -> None:
    s = scores(n=120, weighted=weighted, lambdas=3)
    rows = decisions_of(weighted, prior)
    if constraint is not None:
        metric, bound = constraint
        rows = [r for r in rows if (r[metric] >= bound if metric == "recall" else r[metric] <= bound)]
    best = max(sign * r[name] for r in rows)
    point = OperatingGrid(s, prior=prior).select(**need, simplest=False)
    assert sign * point.metrics[name].value == pytest.approx(best)
    if constraint is not None:
        achieved = point.metrics[constraint[0]].value
        assert achieved >= constraint[1] if constraint[0] == "recall" else achieved <= constraint[1]


@pytest.mark.parametrize(
    ("need", "bands"),
    [
        ({"maximize": "precision", "subject_to": "alert_rate>=0.3"}, {"alert_rate": (0.3, 1)}),
        ({"maximize": "precision", "subject_to": ["alert_rate>=0.1", "alert_rate<=0.2"]}, {"alert_rate": (0.1, 0.2)}),
        ({"maximize": "precision", "subject_to": ["fpr>=0.05"]}, {"fpr": (0.05, 1)}),
        ({"maximize": "precision", "subject_to": ["recall<=0.5", "recall>=0.2"]}, {"recall": (0.2, 0.5)}),
    ],
)
def test_bands_and_floors_on_alerts_search_every_score(need: dict, bands: dict[str, tuple[float, float]]) -> None:
    s = scores(n=150, lambdas=2, positives=0.05)
    rows = []
    for row in s.log_odds:
        for t in [np.inf, *np.unique(row)]:
            d = row >= t
            tp, fp = (d & (s.target == 1)).sum(), (d & (s.target == 0)).sum()
            m = {"alert_rate": d.mean(), "fpr": fp / (s.target == 0).sum(), "recall": tp / (s.target == 1).sum()}
            if all(low <= m[k] <= high for k, (low, high) in bands.items()):
                rows.append(tp / max(tp + fp, 1))
    assert OperatingGrid(s).select(**need, simplest=False).metrics["precision"].value == pytest.approx(max(rows))


def _point_and_scores(
    log_odds: NDArray, target: NDArray, needs: dict, threshold: float = 0.0
) -> tuple[OperatingPoint, Scores]:
    s = Scores(log_odds[None].astype(np.float32), target.astype(np.int8), {}, 0.1, split="test")
    point = OperatingPoint({}, 1 / (1 + np.exp(-threshold)), threshold, needs.get("prior", 0.1), needs=needs)
    return point, s


@pytest.mark.parametrize("needs", [{}, {"prior": 0.02}])
@pytest.mark.parametrize("name", ["precision", "recall", "cost", "brier", "log_loss"])
def test_comparing_is_the_difference_of_what_assess_says_and_antisymmetric(name: str, needs: dict) -> None:
    rng = np.random.default_rng(0)
    target = (rng.random(600) < 0.1).astype(int)
    x = rng.normal(size=600) + 2 * target - 1
    needs = needs | {"cost": {"fn": 50, "fp": 1}}
    a = _point_and_scores(x, target, needs)
    b = _point_and_scores(x + rng.normal(size=600), target, needs)
    d, reverse = compare(a, b, name), compare(b, a, name)
    assert d.value == pytest.approx(assess(*a)[name].value - assess(*b)[name].value, abs=1e-6)
    assert reverse.value == pytest.approx(-d.value)
    assert d.low <= d.value <= d.high
    same = compare(a, a, name)
    assert same.value == 0
    assert same.low <= 0 <= same.high


def test_agreement_without_errors_is_not_proof_of_a_difference() -> None:
    """Two models that differ by chance alone: few false verdicts, also where no positive was missed."""
    rng = np.random.default_rng(1)
    verdicts = 0
    for _ in range(150):
        target = np.repeat([1, 0], [20, 400])
        common = rng.normal(size=420)
        needs = {"cost": {"fn": 50, "fp": 1}}
        a, b = (
            _point_and_scores(3 * target - 1.2 + 0.95 * common + 0.3 * rng.normal(size=420), target, needs)
            for _ in range(2)
        )
        d = compare(a, b, "cost")
        verdicts += d.low > 0 or d.high < 0
    assert verdicts / 150 < 0.08


def test_comparing_other_samples_or_needs_is_refused() -> None:
    target = np.repeat([1, 0], [5, 20])
    a = _point_and_scores(np.arange(25.0), target, {"prior": 0.1})
    with pytest.raises(InputError, match="same samples"):
        compare(a, _point_and_scores(np.arange(25.0), target[::-1], {"prior": 0.1}), "recall")
    with pytest.raises(InputError, match="one prior"):
        compare(a, _point_and_scores(np.arange(25.0), target, {"prior": 0.2}), "recall")
    with pytest.raises(InputError, match="chosen for costs"):
        compare(a, a, "cost")


def test_minimizing_brier_picks_the_lambda_whose_probabilities_fit_the_prior() -> None:
    s = scores(lambdas=5, n=2_000)
    off = np.linspace(-2, 2, 5, dtype=np.float32)[:, None]
    s = dataclasses.replace(s, log_odds=s.log_odds[:1] * 1.5 + off)
    point = OperatingGrid(s, prior=0.3).select(minimize="brier", simplest=False)
    weight = np.where(s.target == 1, 0.3 / (s.target == 1).sum(), 0.7 / (s.target == 0).sum())
    briers = []
    for row in s.log_odds.astype(np.float64) + logit(0.3) - logit(s.prior):
        briers.append(sk.brier_score_loss(s.target, 1 / (1 + np.exp(-row)), sample_weight=weight))
    assert point.metrics["brier"].value == pytest.approx(min(briers))
    assert point.lam == s.lam(int(np.argmin(briers)))
    assert point.threshold == 0.5


def test_a_whole_lambda_objective_keeps_its_constraints_and_stays_near_one_half() -> None:
    s = scores(n=500)
    free = OperatingGrid(s).select(minimize="brier")
    held = OperatingGrid(s).select(minimize="brier", subject_to="recall>=0.95")
    assert free.threshold == 0.5
    assert held.metrics["recall"].value >= 0.95
    assert held.threshold < 0.5


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.001, 0.5))
def test_point_decides_on_the_scores_it_was_chosen_on_as_it_says(seed: int, prior: float) -> None:
    s = scores(seed, n=200)
    point = OperatingGrid(s, prior=prior).select(maximize="precision", subject_to="recall>=0.8")
    i = next(i for i in range(len(s)) if s.lam(i) == point.lam)
    alerts = point.decide(s.log_odds[i], s.prior)
    assert alerts[s.target == 1].mean() == pytest.approx(point.metrics["recall"].value)
    assert alerts[s.target == 0].mean() == pytest.approx(point.metrics["fpr"].value)
    # and not on a knife's edge: rounding noise in the scores changes no decision
    noise = np.random.default_rng(0).normal(size=alerts.shape).astype(np.float32) * 1e-6
    assert np.array_equal(point.decide(s.log_odds[i] + noise, s.prior), alerts)


def test_what_nothing_meets_says_what_is_attainable() -> None:
    s = scores(n=300)
    with pytest.raises(Infeasible) as error:
        OperatingGrid(s).select(maximize="f1", subject_to=["recall>=0.9", "precision>=0.9"])
    rows = every_decision(s, None)
    reach = max(r["recall"] for r in rows if r["precision"] >= 0.9)
    assert f"recall reaches 1 alone, and {reach:.4g} with precision>=0.9, at gamma 0.1, tau" in str(error.value)
    reach = max(r["precision"] for r in rows if r["recall"] >= 0.9)
    assert f"and {reach:.4g} with recall>=0.9" in str(error.value)


def test_extremes_are_finite_points() -> None:
    s = scores(n=100)
    nobody = OperatingGrid(s).select(minimize="fpr")
    assert nobody.metrics["fpr"].value == 0
    everybody = OperatingGrid(s).select(cost={"fn": 1e9, "fp": 1e-9})
    assert everybody.metrics["recall"].value == 1
    none_costly = OperatingGrid(s).select(cost={"fn": 1e-9, "fp": 1e9})
    assert none_costly.metrics["fpr"].value == 0
    for point in (nobody, everybody, none_costly):
        assert np.isfinite(point.log_odds_threshold)
        assert OperatingPoint.from_json(point.to_json()) == point


def test_test_split_is_refused_unless_told() -> None:
    for split in ("Test", "test"):
        s = dataclasses.replace(scores(), split=split)
        with pytest.raises(InputError, match="test split"):
            OperatingGrid(s)
    point = OperatingGrid(s, allow_test=True).select(maximize="f1")
    assert point.split == "test"


@pytest.mark.parametrize(
    ("need", "words"),
    [
        ({}, ["say one of maximize, minimize and cost, got none"]),
        ({"maximize": "f1", "minimize": "brier"}, ["got maximize and minimize"]),
        ({"maximize": "precison"}, ["did you mean 'precision'"]),
        ({"maximize": "recall@precision>=0.9"}, ["ask for 'recall', subject to 'precision>=0.9'"]),
        ({"maximize": "best_f1"}, ["ask for 'f1'"]),
        ({"cost": "fn=50"}, ["costs are given for", "fn=50"]),
        ({"cost": {"fn": [1]}}, ["costs are numbers, or names of columns"]),
        ({"cost": {"fn": "x"}}, ["the costs of the column 'x'"]),
        ({"maximize": "brier"}, ["brier is something to minimize"]),
        ({"minimize": "recall"}, ["recall is something to maximize"]),
        ({"cost": {"fn": -1, "fp": 1}}, ["cost fn must be 0 or more", "got -1"]),
        ({"cost": {"miss": 1}}, ["costs are given for fn, fp, tp, tn", "got miss"]),
        ({"cost": {"fn": 1, "tp": 2}}, ["errors must cost more"]),
        ({"maximize": "f1", "subject_to": ["recal>=0.9", "fpr<=2"]}, ["did you mean 'recall'", "fpr lies in [0, 1]"]),
    ],
)
def test_needs_that_do_not_make_sense(need: dict, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        OperatingGrid(scores()).select(**need)
    assert all(word in str(error.value) for word in words)


def test_grid_problems_are_reported_at_once() -> None:
    s = dataclasses.replace(scores(), target=np.zeros(400, np.int8), split="test")
    with pytest.raises(InputError) as error:
        OperatingGrid(s, prior=1.0)
    assert len(error.value.problems) == 3


def test_json_round_trip_and_foreign_files(tmp_path: Path) -> None:
    point = OperatingGrid(scores(), prior=0.03).select(cost=Cost(fn=50, fp=1), subject_to="recall>=0.5")
    point.save(tmp_path / "point.json")
    assert OperatingPoint.load(tmp_path / "point.json") == point

    def changed(**values: object) -> str:
        return json.dumps(json.loads(point.to_json()) | values)

    for text, words in [
        ("not json", "is JSON"),
        ("[1]", "has format"),
        (json.dumps({"format": "tunelater.operating_point/2"}), "lacks 'lam'"),
        (changed(lam=[1, 2]), "'lam' of an operating point is an object"),
        (changed(prior="x"), "'prior' of an operating point is a number in"),
        (changed(log_odds_threshold=float("nan")), "is a finite number"),
        (changed(metrics={"recall": [1]}), "'metrics' of an operating point"),
        (changed(needs=[]), "'needs' of an operating point is what `select` was asked for"),
        (changed(needs={"maximize": 3}), "'needs' of an operating point is"),
        (changed(needs={"subject_to": ["recal>=0.9"]}), "'needs' of an operating point is"),
        (changed(model=None), "'model' of an operating point"),
        (changed(threshold=0.123), "must be one threshold"),
    ]:
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InputError, match=words):
            OperatingPoint.load(tmp_path / "bad.json")
    with pytest.raises(InputError, match="there is no operating point"):
        OperatingPoint.load(tmp_path / "missing.json")


def test_assess_on_other_samples_and_refusal_of_another_model() -> None:
    point = OperatingGrid(scores(0), prior=0.05).select(maximize="f1")
    other = dataclasses.replace(scores(1), split="test")
    estimates = assess(point, other)
    i = next(i for i in range(len(other)) if other.lam(i) == point.lam)
    alerts = point.decide(other.log_odds[i], other.prior)
    assert estimates["recall"].value == pytest.approx(alerts[other.target == 1].mean())
    tp, fp = 0.05 * alerts[other.target == 1].mean(), 0.95 * alerts[other.target == 0].mean()
    assert estimates["precision"].value == pytest.approx(tp / (tp + fp))
    with pytest.raises(InputError, match="belongs to model m, the scores to model x"):
        assess(point, dataclasses.replace(other, model="x"))
    with pytest.raises(InputError, match="do not contain the point's lambda"):
        assess(dataclasses.replace(point, lam={"gamma": 0.1, "tau": 9.0}), other)


def _coverage(metric: str, prior: float | None, repeats: int = 150) -> float:
    """How often a 95% interval of a fixed point on fresh samples contains the value on a million samples."""
    point = OperatingGrid(scores(0, n=2_000), prior=prior).select(maximize="f1")
    i = next(i for i in range(4) if scores(0, n=2_000).lam(i) == point.lam)
    one = {name: np.array([value]) for name, value in point.lam.items()}

    def fresh(seed: int, n: int) -> Scores:
        s = scores(seed, n=n)
        return dataclasses.replace(s, log_odds=s.log_odds[i : i + 1], lambdas=one)

    big = fresh(99, 400_000)
    alerts = point.decide(big.log_odds[0], big.prior)
    r, f = alerts[big.target == 1].mean(), alerts[big.target == 0].mean()
    pi = 0.1 if prior is None else prior
    p = 1 / (1 + np.exp(-big.at_prior(point.prior).log_odds[0].astype(float)))
    truth = {
        "recall": r,
        "fpr": f,
        "precision": r * pi / (r * pi + f * (1 - pi)),
        "alert_rate": r * pi + f * (1 - pi),
        "brier": pi * ((p - 1)[big.target == 1] ** 2).mean() + (1 - pi) * (p[big.target == 0] ** 2).mean(),
    }[metric]
    inside = 0
    for k in range(repeats):
        e = assess(point, fresh(1000 + k, 400))[metric]
        inside += e.low <= truth <= e.high
    return inside / repeats


@pytest.mark.parametrize(
    ("metric", "prior"),
    [("recall", None), ("fpr", None), ("precision", 0.02), ("precision", None), ("alert_rate", None), ("brier", None)],
)
def test_intervals_cover_what_they_promise(metric: str, prior: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _coverage(metric, prior) >= 0.90  # 0.95 less three standard errors of 150 repetitions


@pytest.mark.parametrize(
    "need",
    [
        {"maximize": "precision", "subject_to": "recall>=0.9"},
        {"minimize": "brier"},
        {"maximize": "auc", "subject_to": ["alert_rate>=0.1", "alert_rate<=0.2"], "prior": 0.01},
        {"maximize": "f1", "subject_to": ["recall>=0.9", "precision>=0.9"]},
        {"maximize": "specificity", "subject_to": "recall<=1"},  # every lambda attains it: the first must win
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_grid_in_parts_gives_the_point_of_the_whole(need: dict, weighted: bool) -> None:
    n, lambdas = 2**16, 7  # four lambdas to a MiB: two in a part, and two in the part before
    s = scores(n=n, lambdas=lambdas, weighted=weighted)
    sizes = []

    def part(some: Lambdas) -> Scores:
        rows = [next(i for i in range(lambdas) if s.lam(i) == at(some, j)) for j in range(len(some["tau"]))]
        sizes.append(len(rows))
        outside = np.arange(lambdas) % 2 == 1
        return dataclasses.replace(s, log_odds=s.log_odds[rows], lambdas=some, extrapolated=outside[rows])

    whole = dataclasses.replace(s, extrapolated=np.arange(lambdas) % 2 == 1)

    def outcome(work: Callable[[], OperatingPoint]) -> OperatingPoint | str:
        try:
            return work()
        except Infeasible as error:
            return str(error)

    in_parts = outcome(lambda: select_from(part, s.lambdas, n, memory_mb=1, **need))
    assert set(sizes) == {2, 1}
    rest = {name: value for name, value in need.items() if name != "prior"}
    assert in_parts == outcome(lambda: OperatingGrid(whole, prior=need.get("prior")).select(**rest))


def test_of_equals_in_several_parts_the_higher_recall_wins_then_the_first() -> None:
    target = np.repeat([1, 0], [4, 16]).astype(np.int8)
    above = [2, 3, 3, 1]  # positives over all negatives, which is the recall at full specificity
    rows = [np.where(np.arange(20) < k, 2.0, np.where(target == 1, -2.0, 0.0)) for k in above]
    s = Scores(np.stack(rows).astype(np.float32), target, SPACE.grid({"tau": 4}), 0.2)

    def part(some: Lambdas) -> Scores:
        i = next(i for i in range(4) if s.lam(i) == at(some, 0))
        return dataclasses.replace(s, log_odds=s.log_odds[[i]], lambdas=some)

    point = select_from(part, s.lambdas, 20, maximize="specificity", memory_mb=0, simplest=False)
    assert point.metrics["recall"].value == 0.75
    assert point.lam == s.lam(1) == OperatingGrid(s).select(maximize="specificity", simplest=False).lam


def test_a_need_that_does_not_read_is_told_before_scoring() -> None:
    def never(_: Lambdas) -> Scores:
        raise AssertionError("scored")

    with pytest.raises(InputError, match="did you mean 'precision'"):
        select_from(never, scores().lambdas, 400, maximize="precison")


def test_thresholds_that_share_a_probability_are_told_apart() -> None:
    """Every score is a probability of 1.0 in float64, and the choice between them is still made and kept."""
    target = np.repeat([1, 0], [10, 90]).astype(np.int8)
    row = np.where(target == 1, 60, 50).astype(np.float32) + np.linspace(0, 1, 100, dtype=np.float32)
    s = Scores(row[None], target, {}, 0.1)
    point = OperatingGrid(s).select(maximize="f1")
    assert point.threshold == 1.0
    again = OperatingPoint.from_json(point.to_json())
    for p in (point, again, dataclasses.replace(point, threshold=0.0)):
        np.testing.assert_array_equal(p.decide(row, s.prior), target == 1)
    low = OperatingGrid(dataclasses.replace(s, log_odds=s.log_odds - 800)).select(maximize="f1")
    assert low.threshold < 1e-300
    np.testing.assert_array_equal(OperatingPoint.from_json(low.to_json()).decide(row - 800, s.prior), target == 1)


@pytest.mark.parametrize("prior", [0.001, 0.1, 0.6])
def test_decisions_are_those_of_the_log_odds_that_are_shown(prior: float) -> None:
    s = scores(3, n=300)
    point = OperatingGrid(s, prior=prior).select(maximize="f1")
    i = next(i for i in range(len(s)) if s.lam(i) == point.lam)
    shown = point.log_odds(s.log_odds[i], s.prior)
    np.testing.assert_array_equal(point.decide(s.log_odds[i], s.prior), shown >= point.log_odds_threshold)
    np.testing.assert_allclose(shown, s.at_prior(prior).log_odds[i], atol=1e-5)
    assert point.threshold == pytest.approx(1 / (1 + np.exp(-point.log_odds_threshold)))


@pytest.mark.parametrize("value", [1.0, 1.5, np.inf])
def test_upper_bounds_of_priors_and_costs(value: float) -> None:
    with pytest.raises(InputError, match="a prior lies in"):
        OperatingGrid(scores(), prior=value)
    assert problems_of_needs(maximize="f1", prior=value) == [
        f"a prior lies in (0, 1), got {value}: give the share of positives, such as 0.01"
    ]
    if np.isinf(value):
        with pytest.raises(InputError, match="cost fn must be 0 or more and finite"):
            Cost(fn=value)
    else:
        assert Cost(fn=value).fn == value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"threshold": 1.1}, "a number in .0, 1., got 1.1"),
        ({"threshold": -0.1}, "a number in .0, 1., got -0.1"),
        ({"threshold": True}, "got True"),
        ({"prior": 1}, "a number in .0, 1., got 1"),
        ({"prior": 0}, "a number in .0, 1., got 0"),
        ({"threshold": 0.5001, "log_odds_threshold": 0.0}, "must be one threshold"),
        ({"threshold": 0.4999, "log_odds_threshold": 0.0}, "must be one threshold"),
        ({"metrics": {"recall": [0.5, 0.4, 0.6, 0.7]}}, "an object of .value, low, high."),
    ],
)
def test_bounds_of_a_points_numbers(changes: dict, words: str) -> None:
    point = OperatingGrid(scores(), prior=0.03).select(maximize="f1")
    with pytest.raises(InputError, match=words):
        OperatingPoint.from_json(json.dumps(json.loads(point.to_json()) | changes))


def test_thresholds_at_the_very_ends_are_points() -> None:
    point = OperatingGrid(scores(), prior=0.03).select(maximize="f1")
    for threshold, log_odds in ((1.0, 800.0), (0.0, -800.0)):
        changed = json.loads(point.to_json()) | {"threshold": threshold, "log_odds_threshold": log_odds}
        assert OperatingPoint.from_json(json.dumps(changed)).log_odds_threshold == log_odds


@pytest.mark.parametrize(
    ("text", "sound"),
    [
        ("recall<=1", True),
        ("recall<=1.01", False),
        ("fpr>=-0.01", False),
        ("mcc>=-1", True),
        ("mcc>=-1.01", False),
        ("mcc<=1.01", False),
    ],
)
def test_bounds_of_constraints(text: str, sound: bool) -> None:
    if sound:
        assert str(Constraint.parse(text)) == text
    else:
        with pytest.raises(InputError, match="so no bound can be"):
            Constraint.parse(text)


@pytest.mark.parametrize(
    "need",
    [
        {"maximize": "precision", "subject_to": "recall>=0.7"},
        {"minimize": "brier", "calibrate": "platt"},
        {"maximize": "auc", "subject_to": "recall<=0.9"},
    ],
    ids=str,
)
def test_the_number_of_threads_does_not_change_a_point(need: dict) -> None:
    before, s, points = torch.get_num_threads(), scores(n=1500, positives=0.2, lambdas=5, weighted=True), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            points.append(OperatingGrid(s).select(**need, bootstrap=150).to_json())
    finally:
        torch.set_num_threads(before)
    assert points[0] == points[1] == points[2]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("prior", [None, 0.05])
def test_bootstrap_intervals_equal_a_loop_over_resampled_rows(weighted: bool, prior: float | None) -> None:
    rng = np.random.default_rng(3)
    target = (np.arange(90) % 6 == 0).astype(np.int8)
    log_odds = np.round(rng.normal(1.5 * target, 1.0), 1).astype(np.float32)[None]  # with ties
    weight = rng.integers(1, 4, 90).astype(np.float64) if weighted else None
    scores = Scores(log_odds, target, {}, 0.2, weight)
    point = OperatingGrid(scores, prior=prior).select(maximize="f1", bootstrap=200, seed=5)
    w = np.ones(90) if weight is None else weight
    rows = {c: np.flatnonzero(target == c) for c in (1, 0)}
    draw, found = keyed_rng(5, "bootstrap"), []
    z = point.log_odds(log_odds[0], 0.2)
    alerts = point.decide(log_odds[0], 0.2)
    for _ in range(200):
        index, share = [], []
        for c, of_class in rows.items():
            index.append(of_class[draw.integers(len(of_class), size=len(of_class))])
            total = (w[of_class].sum() / w.sum()) if prior is None else (prior if c else 1 - prior)
            share.append(np.repeat(total / w[index[-1]].sum(), len(index[-1])))
        i, v = np.concatenate(index), np.concatenate(share) * w[np.concatenate(index)]
        y, p = target[i], 1 / (1 + np.exp(-z[i].astype(np.float64)))
        precision, recall, f1, _ = sk.precision_recall_fscore_support(y, alerts[i], average="binary", sample_weight=v)
        found.append(
            {
                "auc": sk.roc_auc_score(y, z[i], sample_weight=v),
                "average_precision": sk.average_precision_score(y, z[i], sample_weight=v),
                "brier": sk.brier_score_loss(y, p, sample_weight=v),
                "log_loss": sk.log_loss(y, p, sample_weight=v),
                "recall": recall,
                "precision": precision,
                "f1": f1,
            }
        )
    for name in found[0]:
        low, high = np.percentile([each[name] for each in found], [2.5, 97.5])
        assert point.metrics[name].low == pytest.approx(min(low, point.metrics[name].value), abs=1e-6), name
        assert point.metrics[name].high == pytest.approx(max(high, point.metrics[name].value), abs=1e-6), name
    assert assess(point, scores, bootstrap=200, seed=5) == dict(point.metrics)
    assert assess(point, scores, seed=5) != dict(point.metrics)


@pytest.mark.parametrize("number", [99, 0, True, 200.0, "1000"])
def test_a_bootstrap_needs_resamples(number: object) -> None:
    scores = Scores(np.zeros((1, 4), np.float32), np.array([0, 1, 0, 1], np.int8), {}, 0.5)
    with pytest.raises(InputError, match="100 resamples or more"):
        OperatingGrid(scores).select(maximize="f1", bootstrap=number)


def test_interval_does_not_collapse_where_no_error_was_seen() -> None:
    s = scores(n=200)
    perfect: NDArray = (s.target * 20 - 10).astype(np.float32)
    s = dataclasses.replace(s, log_odds=np.tile(perfect, (4, 1)))
    recall = OperatingGrid(s).select(maximize="f1").metrics["recall"]
    assert recall.value == 1
    assert recall.low < 0.95


@pytest.mark.parametrize("prior", [0.1, 0.2, 0.7])
@pytest.mark.parametrize("weighted", [False, True])
def test_who_alerts_on_everybody_leaves_nobody_alone(prior: float, weighted: bool) -> None:
    """No negative predictive value and no correlation can come of rounding, whatever the counts and the prior."""
    for n in range(10, 40):
        target = (np.arange(n) % 3 == 0).astype(np.int8)
        weight = np.random.default_rng(n).random(n) + 0.1 if weighted else None
        s = Scores(np.arange(n, dtype=np.float32)[None], target, {}, 0.4, weight)  # the lowest score is a positive's
        with pytest.raises(Infeasible):
            OperatingGrid(s, prior).select(maximize="recall", subject_to="npv>=0.999")
        everybody = OperatingGrid(s, prior).select(maximize="recall")
        for bootstrap in (None, 100):
            achieved = assess(everybody, s, bootstrap=bootstrap)
            assert (achieved["alert_rate"].value, achieved["npv"].value, achieved["mcc"].value) == (1, 0, 0)
            if bootstrap:
                assert achieved["npv"] == achieved["mcc"] == (0, 0, 0)


@pytest.mark.parametrize("bootstrap", [None, 200])
@pytest.mark.parametrize(
    ("need", "name"),
    [
        ({"maximize": "f0.5"}, "f0.5"),
        ({"maximize": "recall", "subject_to": ["f0.5>=0.1"]}, "f0.5"),
        ({"maximize": "partial_auc@fpr<=0.1"}, "partial_auc@fpr<=0.1"),
    ],
)
def test_a_point_tells_the_metrics_that_its_need_names(need: dict, name: str, bootstrap: int | None) -> None:
    s = scores(n=300, weighted=True)
    point = OperatingGrid(s, 0.05).select(**need, bootstrap=bootstrap)
    row = next(i for i in range(len(s)) if s.lam(i) == point.lam)
    decided = point.decide(s.log_odds[row], s.prior)
    if name == "f0.5":
        weight = prior_weight(s.target, s.weight, 0.05)
        expected = sk.fbeta_score(s.target, decided, beta=0.5, sample_weight=weight)
    else:
        expected = sk.roc_auc_score(s.target, s.log_odds[row], max_fpr=0.1, sample_weight=s.weight)
    for metrics in (point.metrics, assess(OperatingPoint.from_json(point.to_json()), s, bootstrap=bootstrap)):
        value, low, high = metrics[name]
        assert value == pytest.approx(expected)
        assert low < value < high


# ------------------------------------------------------------------------------------------- guarantees


def with_columns(seed: int = 0) -> Scores:
    """Enough samples to certify, of two sites, with what missing each costs."""
    s = scores(seed, n=3000, positives=0.2, lambdas=3)
    rng = np.random.default_rng(seed)
    columns = {"site": rng.choice(["a", "b"], 3000), "amount": rng.lognormal(1, 1, 3000)}
    return dataclasses.replace(s, columns=columns)


def test_a_guaranteed_choice_is_that_of_risk_control() -> None:
    s, asked = with_columns(), ["recall>=0.6 in every site", "fpr<=0.5"]
    point = OperatingGrid(s).select(maximize="precision", subject_to=asked, guarantee=0.9, seed=3)
    precision = THRESHOLD_METRICS["precision"].values
    claims = guarantee.claims_of(asked, s.columns)
    best, certificate = guarantee.guaranteed(s, claims, lambda _, c: precision(c), confidence=0.9, seed=3)
    assert point.lam == s.lam(best.at)
    np.testing.assert_array_equal(point.decide(s.log_odds[best.at], s.prior), s.log_odds[best.at] >= best.threshold)
    again = OperatingPoint.from_json(point.to_json())
    assert again == point
    assert again.certificate is not None
    assert guarantee.Certificate.from_dict(again.certificate) == certificate
    # What it tells is of part B, on which nothing was chosen.
    of_b = assess(point, s.take(guarantee.parts(s.target, claims, seed=3)[1]))
    assert of_b.keys() == point.metrics.keys()
    for c in certificate.constraints:
        site = c.constraint.partition(" where site=")[2]
        name = f"{c.metric}[site={site}]" if site else c.metric
        assert point.metrics[name].value == of_b[name].value == pytest.approx(c.observed)
    assert not point.honest
    assert point.against_default is None


@pytest.mark.parametrize("prior", [None, 0.05, (0.01, 0.2)])
@pytest.mark.parametrize("way", ["brier", "cost", "costs of samples", "f1"])
def test_the_order_of_a_guarantee_is_by_what_the_need_calls_best(
    way: str, prior: float | tuple[float, float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What part A is told is the need's objective on part A, counted by hand."""
    s, seen = with_columns(1), []
    need: dict = {
        "brier": {"minimize": "brier"}, "cost": {"cost": {"fn": 20, "fp": 1}}, "f1": {"maximize": "f1"},
        "costs of samples": {"cost": {"fn": "amount", "fp": 0.5}},
    }[way]  # fmt: skip
    a = s.take(guarantee.parts(s.target, guarantee.claims_of(["recall>=0.6"]))[0])

    def spied(scores: Scores, claims: object, merit: Callable[[int, Curve], Floats], **_: object) -> None:
        thresholds = np.array([-2.0, 0.0, 1.5])
        alerts = a.log_odds[1] >= thresholds[:, None]
        tp, fp = (alerts & (a.target == 1)).sum(axis=1) * 1.0, (alerts & (a.target == 0)).sum(axis=1) * 1.0
        n = float((a.target == 1).sum())
        curve = Curve(thresholds, tp, fp, tp, fp, 0 * tp, n, len(a.target) - n)
        seen.append(merit(1, curve if not isinstance(prior, float) else curve.at_prior(prior)))
        raise Infeasible("seen")

    monkeypatch.setattr("tunelater.tuning.guaranteed", spied)
    with pytest.raises(Infeasible, match="seen"):
        OperatingGrid(s, prior).select(**need, subject_to="recall>=0.6", guarantee=0.9)
    share = float((a.target == 1).mean())
    of_priors = []
    for p in prior if isinstance(prior, tuple) else (prior or share,):
        weight = np.where(a.target == 1, p / share, (1 - p) / (1 - share))
        values = []
        for t in (-2.0, 0.0, 1.5):
            d = a.log_odds[1] >= t
            if way == "brier":
                at = np.sqrt(prior[0] * prior[1]) if isinstance(prior, tuple) else p
                probability = 1 / (1 + np.exp(-(a.log_odds[1].astype(float) + logit(at) - logit(a.prior))))
                values.append(-np.average((probability - a.target) ** 2, weights=weight))
            elif way == "f1":
                values.append(sk.f1_score(a.target, d, sample_weight=weight))
            else:
                fn, fp = (20, 1) if way == "cost" else (a.columns["amount"], 0.5)
                values.append(-np.average(np.where(a.target == 1, fn * ~d, fp * d), weights=weight))
        of_priors.append(values)
    np.testing.assert_allclose(seen[0], np.min(of_priors, axis=0), atol=1e-6 if way == "brier" else 1e-9)


def test_of_equally_good_thresholds_the_certified_one_nearest_to_one_half_is_taken() -> None:
    s = with_columns(2)
    point = OperatingGrid(s).select(maximize="auc", subject_to="recall>=0.1", guarantee=0.9)
    assert point.certificate is not None
    assert point.certificate["passed"] == point.certificate["candidates"]  # far from what the constraint forbids
    assert point.threshold == pytest.approx(0.5, abs=0.05)


def test_guarantees_over_grids_in_parts_equal_those_over_whole_ones() -> None:
    s, need = with_columns(), {"maximize": "precision", "subject_to": "recall>=0.6"}

    def score(part: Lambdas) -> Scores:
        index = [int(np.flatnonzero(s.lambdas["tau"] == tau)[0]) for tau in part["tau"]]
        return dataclasses.replace(s, log_odds=s.log_odds[index], lambdas=part)

    whole = OperatingGrid(s).select(**need, guarantee=0.9)
    assert select_from(score, s.lambdas, 3000, guarantee=0.9, **need) == whole
    told = problems_of(lambda: select_from(score, s.lambdas, 100_000_000, guarantee=2, prior=3, **need))
    for words in ("confidence of a guarantee", "3 lambdas and 100,000,000 samples take", "a prior lies in"):
        assert any(words in problem for problem in told)
    assert len(told) == 3


def test_what_cannot_be_certified_is_refused_with_the_rest() -> None:
    uneven = dataclasses.replace(with_columns(), weight=np.linspace(1, 2, 3000))
    asked = ["precision>=0.5", "f1>=0.1", "recall>=1 in every sit"]
    told = problems_of(
        lambda: OperatingGrid(uneven, (0.01, 0.1)).select(cost={"fn": 9, "fp": 1}, subject_to=asked, guarantee=0.9)
    )
    expected = (
        "did you mean 'site'",
        "got prior 0.01 to 0.1",
        "got f1>=0.1",
        "recall>=1 in every sit",
        "weights from 1",
    )
    for words in expected:
        assert any(words in problem for problem in told), (words, told)
    assert len(told) == 5
    with pytest.raises(guarantee.Uncertified, match=r"too few positives to certify recall>=0\.9"):
        OperatingGrid(scores(n=60)).select(maximize="f1", subject_to="recall>=0.9", guarantee=0.9)


def test_a_certificate_that_is_none_is_refused() -> None:
    raw = json.loads(OperatingGrid(scores()).select(maximize="f1").to_json())
    assert (
        "'certificate' of an operating point"
        in problems_of(lambda: OperatingPoint.from_json(json.dumps(raw | {"certificate": [1]})))[0]
    )
