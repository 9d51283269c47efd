"""Choosing again under other weights, and what that says about a choice."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from tunelater.honesty import Decided, Folds, bootstraps, counting_choices, figures
from tunelater.intervals import Estimate
from tunelater.losses import logit
from tunelater.needs import Need
from tunelater.scoring import Scores
from tunelater.search import Task, pick
from tunelater.tuning import OperatingGrid, assess


def scores(
    seed: int = 0, n: int = 400, lambdas: int = 8, share: float = 0.1, noise: float = 0.7, best: float = 0.0
) -> Scores:
    """Lambdas that are equally good, but for the last, which is better by `best`."""
    rng = np.random.default_rng(seed)
    target = (np.arange(n) < share * n).astype(np.int8)
    common = rng.normal(size=n)
    shift = np.where(np.arange(lambdas) == lambdas - 1, 1.5 + best, 1.5)[:, None]
    row = common * np.sqrt(1 - noise**2) + noise * rng.normal(size=(lambdas, n)) + shift * target + logit(share)
    columns = {"sex": rng.choice(["F", "M"], n), "amount": rng.exponential(10, n)}
    return Scores(row.astype(np.float32), target, {"tau": np.arange(float(lambdas))}, share, columns=columns)


def repeated(s: Scores, counts: np.ndarray) -> Scores:
    """Each sample as often as it counts."""
    rows = np.repeat(np.arange(len(counts)), counts)
    columns = {name: values[rows] for name, values in s.columns.items()}
    return dataclasses.replace(s, log_odds=s.log_odds[:, rows], target=s.target[rows], columns=columns)


@pytest.mark.parametrize("prior", [None, 0.02, (0.01, 0.05)])
@pytest.mark.parametrize(
    "asked",
    [
        {"maximize": "f1"},
        {"maximize": "precision", "subject_to": ["recall>=0.8", "alerts<=500/1000"]},
        {"maximize": "recall", "subject_to": "alert_rate>=0.3"},
        {"cost": {"fn": "amount", "fp": 2}},
        {"maximize": "specificity", "subject_to": "recall>=0.7 in every sex"},
        {"minimize": "brier"},
        {"maximize": "average_precision", "subject_to": "recall>=0.8"},
    ],
)
def test_weights_choose_what_repeated_samples_choose(asked: dict[str, Any], prior: Any) -> None:
    s = scores(n=150, lambdas=2, share=0.2)
    s = dataclasses.replace(s, log_odds=np.round(s.log_odds, 1))  # with ties
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 3, (150, 3))
    counts[:5] = counts[-5:] = 1
    need = Need.of(**asked, prior=prior)
    task = Task.of(need, s)
    # The point's prior without a stated one is the samples' own, which repeating them would change.
    tasks = [
        dataclasses.replace(Task.of(need, repeated(s, c)), deployment_prior=task.deployment_prior) for c in counts.T
    ]
    for row in range(2):
        (many,) = task.choose(s.log_odds[row], [task.weighting(np.ascontiguousarray(counts, np.float32))])
        for r, (again, c) in enumerate(zip(tasks, counts.T, strict=True)):
            once = repeated(s, c)
            (one,) = again.choose(once.log_odds[row], [again.weighting(again.weight[:, None])])
            assert many.allowed[r] == one.allowed[0]
            assert many.merit[r] == pytest.approx(one.merit[0], rel=1e-5)
            assert many.recall[r] == pytest.approx(one.recall[0], rel=1e-5)
            alerts = once.log_odds[row] >= one.lowest[0]
            np.testing.assert_array_equal(once.log_odds[row] >= many.lowest[r], alerts)


@pytest.mark.parametrize("asked", [{"maximize": "f1"}, {"maximize": "f1", "subject_to": "recall>=0.1 in every sex"}])
def test_folds_hold_every_sample_out_once_and_are_stratified(asked: dict[str, Any]) -> None:
    s = scores(n=203)
    task = Task.of(Need.of(**asked), s)
    folds = Folds.of(task, s, seed=3, repeats=4)
    assert folds is not None
    w = folds.weighting(task)
    assert w.values.shape == (203, 4 * folds.n)
    for b in range(4):
        held = np.stack([folds.held(b * folds.n + f) for f in range(folds.n)])
        assert (held.sum(axis=0) == 1).all()
        np.testing.assert_array_equal(w.values.T[b * folds.n : (b + 1) * folds.n] == 0, held)
        strata = [s.target == 1, s.target == 0]
        if task.need.grouped:
            strata = [rows & (s.columns["sex"] == value) for rows in strata for value in "FM"]
        for rows in strata:
            sizes = (held & rows).sum(axis=1)
            assert sizes.max() - sizes.min() <= 1
    few = dataclasses.replace(s, target=(np.arange(203) == 0).astype(np.int8))
    assert Folds.of(Task.of(Need.of(maximize="f1"), few), few, seed=3) is None
    assert not OperatingGrid(few).select(maximize="f1").honest


def test_resamples_come_in_blocks_that_fit_and_do_not_depend_on_them() -> None:
    s = scores(n=100)
    task = Task.of(Need.of(maximize="f1"), s)
    whole = next(iter(bootstraps(task, 120, seed=2))).values
    blocks = [w.values for w in bootstraps(task, 120, seed=2, memory=4 * 100 * 50)]
    assert [block.shape[1] for block in blocks] == [50, 50, 20]
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole)
    np.testing.assert_allclose(whole[s.target == 1].sum(axis=0), 10)


def test_the_simplest_of_choices_within_one_standard_error() -> None:
    s = scores(lambdas=5)
    task = Task.of(Need.of(maximize="f1"), s)
    w = task.weighting(task.weight[:, None])
    choices = [task.choose(row, [w])[0] for row in s.log_odds]
    stacked = type(choices[0]).stack(choices)
    distance = np.abs(np.arange(5) - 2.0)
    (chosen,), (best,) = pick(stacked, distance)
    merit = stacked.merit[:, 0]
    assert best == merit.argmax()
    within = np.flatnonzero(merit >= merit.max() - stacked.error[best, 0])
    assert chosen in within
    assert distance[chosen] == distance[within].min()
    grid = OperatingGrid(s, default={"tau": 2.0})
    assert grid.select(maximize="f1").lam == s.lam(int(chosen))
    assert grid.select(maximize="f1", simplest=False).lam == s.lam(int(best))
    simpler = grid.select(maximize="f1").simpler_than
    assert simpler == (s.lam(int(best)) if chosen != best else None)


def test_standard_errors_are_those_of_a_rate() -> None:
    s = scores(n=2000)
    task = Task.of(Need.of(maximize="recall", subject_to="fpr<=0.1"), s)
    (choice,) = task.choose(s.log_odds[0], [task.weighting(task.weight[:, None])])
    r = choice.merit[0]
    assert choice.error[0] == pytest.approx(np.sqrt(r * (1 - r) / 200), rel=0.02)


def null(seed: int, **asked: Any) -> tuple[float, float, float, Any]:
    """What a choice among equal lambdas seems to achieve, what is called honest, and what it achieves on others."""
    s = scores(seed, n=400, lambdas=15, share=0.1)
    point = OperatingGrid(s).select(**asked, simplest=False, seed=seed)
    other = scores(10_000 + seed, n=8_000, lambdas=15, share=0.1)
    name = asked.get("maximize") or asked["minimize"]
    return point.metrics[name].value, point.honest[name].value, assess(point, other)[name].value, point


@pytest.mark.parametrize("asked", [{"maximize": "f1"}, {"maximize": "f1", "bootstrap": 100}])
def test_honest_figures_are_nearer_to_the_future_than_flattering_ones(asked: dict[str, Any]) -> None:
    apparent, honest, future = np.mean([null(seed, **asked)[:3] for seed in range(25)], axis=0)
    assert apparent - future > 0.03  # there is something to correct
    assert abs(honest - future) < (apparent - future) / 2


def test_equal_lambdas_are_seldom_said_to_help_and_a_better_one_is() -> None:
    said = [null(seed, maximize="f1")[3].against_default for seed in range(40)]
    helps = [a.sentence.startswith("choosing lambda helps") for a in said]
    assert sum(helps) <= 5  # of 40, at 5%: the chance of more is 1 in 70
    s = scores(n=1500, best=1.5)
    for asked in ({"maximize": "f1"}, {"cost": {"fn": "amount", "fp": 1}}, {"minimize": "brier"}):
        against = OperatingGrid(s).select(**asked).against_default
        assert against is not None
        assert against.p_value < 0.01
        assert against.sentence.startswith("choosing lambda helps")
        assert dict(against.lam) == s.lam(3)
        low, high = against.difference[1:]
        assert (low > 0) if asked == {"maximize": "f1"} else (high < 0)
    under = OperatingGrid(s).select(maximize="precision", subject_to="recall>=0.8").against_default
    assert under is not None
    assert under.at_same == "recall"
    assert under.p_value < 0.01


def test_choices_depend_on_the_seed_alone() -> None:
    s = scores()
    one, again, other = (OperatingGrid(s).select(maximize="f1", seed=seed, bootstrap=100) for seed in (1, 1, 2))
    assert one == again
    assert one.honest != other.honest
    assert (one.lam, one.threshold) == (other.lam, other.threshold)


def test_honest_figures_of_parts_are_told_by_value() -> None:
    s = scores(n=600, share=0.2)
    point = OperatingGrid(s).select(maximize="precision", subject_to="recall>=0.6 in every sex")
    for value in "FM":
        apparent, honest = (figures[f"recall[sex={value}]"] for figures in (point.metrics, point.honest))
        assert apparent.value >= 0.6
        assert honest.low <= honest.value <= honest.high
    assert set(point.metrics) - set(point.honest) <= {"auc", "average_precision"}


def test_one_lambda_is_compared_with_nothing() -> None:
    s = scores(lambdas=1)
    point = OperatingGrid(s).select(maximize="f1")
    assert point.against_default is None
    assert point.simpler_than is None
    assert point.honest["f1"].value <= point.metrics["f1"].value


def test_what_is_held_out_does_not_move_a_threshold() -> None:
    """A threshold is a score of a sample that has weight, or everybody's: the others could be anywhere."""
    s = scores(n=300, share=0.1)
    rng = np.random.default_rng(0)
    for asked in ({"maximize": "f1"}, {"maximize": "precision", "subject_to": "recall>=0.5"}):
        task = Task.of(Need.of(**asked), s)
        weights = (rng.random((300, 40)) < 0.6).astype(np.float32)
        (choices,) = task.choose(s.log_odds[0], [task.weighting(weights)])
        for r in range(40):
            known = s.log_odds[0][(weights[:, r] > 0) & (s.target == 1)]
            assert choices.lowest[r] in known


@pytest.mark.parametrize("bootstrap", [None, 100])
@pytest.mark.parametrize("rule", ["alert_rate<=0.2", "accuracy>=0.1", "fpr<=0.2", "net_benefit@0.2>=-0.1"])
def test_a_subgroup_that_a_weighting_leaves_empty_asks_for_nothing(rule: str, bootstrap: int | None) -> None:
    """A site of one sample, which no choice would alert on, changes nothing."""
    s = scores(lambdas=3)
    log_odds = s.log_odds.copy()
    log_odds[:, -1] = log_odds.min() - 1
    site = np.arange(len(s.target)) % 2 + 1.0
    points = []
    for of_last in (0.0, np.nan):  # NaN is in no subgroup
        site[-1] = of_last
        alone = dataclasses.replace(s, log_odds=log_odds, columns={"site": site.copy()})
        asked = {"maximize": "f1", "subject_to": f"{rule} in every site", "bootstrap": bootstrap}
        points.append(OperatingGrid(alone).select(**asked))
    assert points[0] == points[1]


def test_resamples_without_a_class_in_a_subgroup_do_not_count() -> None:
    s = scores(n=100, share=0.2)
    task = Task.of(Need.of(maximize="precision", subject_to="recall>=0.5 in every sex"), s)
    weights = np.ones((2, 100))
    weights[1, (s.columns["sex"] == "M") & (s.target == 1)] = 0
    decided = Decided(np.ones((2, 100), bool), s.log_odds[:1])
    found = figures(task, s, decided, weights, None)
    np.testing.assert_array_equal(found["recall[sex=M]"], [1, np.nan])
    np.testing.assert_array_equal(found["recall[sex=F]"], [1, 1])

    here = np.array([0.7, 0.6, 0.8])
    crossed, fixed = ({"recall[sex=M]": Estimate(*e)} for e in ((0.7, 0.5, 0.8), (0.8, 0.6, 0.9)))
    told = [counting_choices(crossed, fixed, {"recall[sex=M]": a}, 0.95) for a in (here, np.append(here, np.nan))]
    assert told[0] == told[1]
    reach = np.hypot([0.2, 0.1], 1.959964 * here.std())
    np.testing.assert_allclose(told[0]["recall[sex=M]"], [0.7, 0.7 - reach[0], min(0.7 + reach[1], 1)], rtol=1e-6)


def test_a_bootstrap_leaves_honest_values_as_they_are() -> None:
    s = scores()
    one, two = (OperatingGrid(s).select(maximize="f1", bootstrap=b).honest for b in (None, 100))
    assert {name: e.value for name, e in one.items()} == {name: e.value for name, e in two.items()}


def test_intervals_with_a_bootstrap_cover_a_metric_that_a_constraint_holds() -> None:
    """On every resample its floor holds, which says nothing about other samples."""
    covered = []
    for seed in range(40):
        point = null(seed, maximize="precision", subject_to="recall>=0.8", bootstrap=100)[3]
        future = assess(point, scores(10_000 + seed, n=8_000, lambdas=15, share=0.1))["recall"].value
        covered.append(point.honest["recall"].low <= future <= point.honest["recall"].high)
    assert sum(covered) >= 34  # of 40, at 95%: the chance of fewer is 1 in 300
