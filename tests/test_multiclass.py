"""Choosing among K classes: two classes agree with the binary search, figures with scikit-learn's."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from tunelater.multiclass import ClassPoint, select_classes
from tunelater.problems import InputError
from tunelater.scoring import ClassScores, Scores
from tunelater.tuning import Infeasible, OperatingGrid

NAMES = ("a", "b", "c")


def class_scores(
    n: int = 90, k: int = 3, n_lambdas: int = 2, seed: int = 0, *, sharp: float = 1.0, weighted: bool = False
) -> ClassScores:
    """Of classes of which the first is the most frequent, told apart by log posteriors that are right on average."""
    rng = np.random.default_rng(seed)
    prior = np.arange(k, 0, -1) / np.arange(k, 0, -1).sum()
    target = np.concatenate([np.arange(k).repeat(3), rng.choice(k, n - 3 * k, p=prior)])
    noise = rng.normal(size=(n_lambdas, n, k)) + sharp * np.eye(k)[target]
    log_posterior = log_softmax(noise + np.log(prior), axis=2).astype(np.float32)
    weight = rng.uniform(0.2, 3, n) if weighted else None
    lambdas = {"tau": np.linspace(0, 1, n_lambdas)}
    return ClassScores(log_posterior, target, lambdas, tuple(prior), weight, model="m")


def decided(point: ClassPoint, s: ClassScores) -> np.ndarray:
    """By hand: argmax of log posterior at the point's prior, plus offsets."""
    (i,) = np.flatnonzero(s.lambdas["tau"] == point.lam["tau"])
    shifted = s.log_posterior[i].astype(np.float64) + np.log([*point.prior.values()]) - np.log(s.prior)
    return np.argmax(shifted + np.array([*point.offsets.values()]), axis=1)


BINARY_NEEDS = [
    ({"maximize": "balanced_accuracy"}, {}),
    ({"maximize": "accuracy"}, {"subject_to": "recall>=0.8"}),
    ({"maximize": "precision"}, {"subject_to": "recall>=0.6"}),
    ({"maximize": "recall"}, {"subject_to": ["precision>=0.5", "specificity>=0.7"]}),
    ({"cost": {"fn": 7, "fp": 2, "tp": 1}}, {"prior": 0.2}),
    ({"minimize": "log_loss"}, {}),
]


def of_two_classes(need: dict) -> dict:
    """A binary need in the words of two classes, `n` and `p`."""
    told = dict(need)
    for way in ("maximize", "minimize"):
        if told.get(way) in ("precision", "recall", "specificity"):
            told[way] = f"{told[way]}[p]"
    if "cost" in told:
        told["cost"] = [[0, told["cost"]["fp"]], [told["cost"]["fn"], told["cost"]["tp"]]]
    if "prior" in told:
        told["prior"] = {"p": told["prior"], "n": 1 - told["prior"]}
    rules = [told["subject_to"]] if isinstance(told.get("subject_to"), str) else told.get("subject_to", [])
    names = ("recall", "precision", "specificity")
    told["subject_to"] = [next(r.replace(n, f"{n}[p]") for n in names if n in r) for r in rules]
    return told


@pytest.mark.parametrize(("objective", "rest"), BINARY_NEEDS, ids=str)
@given(seed=st.integers(0, 10_000), ties=st.booleans(), weighted=st.booleans())
@settings(max_examples=8, deadline=None)
def test_two_classes_agree_with_the_search_over_thresholds(
    objective: dict, rest: dict, seed: int, ties: bool, weighted: bool
) -> None:
    rng = np.random.default_rng(seed)
    target = np.append([0, 0, 1, 1], rng.random(30) < 0.3).astype(np.int8)
    log_odds = rng.normal(2 * target - 2, 1.5, (3, len(target))).astype(np.float32)
    log_odds = np.round(log_odds) if ties else log_odds
    weight = rng.uniform(0.5, 2, len(target)) if weighted else None
    lambdas = {"tau": np.array([0.0, 1.0, 2.0])}
    both = np.stack([np.zeros_like(log_odds), log_odds], axis=2)
    scores = Scores(log_odds, target, lambdas, 0.25, weight)
    classes = ClassScores(log_softmax(both, axis=2), target.astype(np.int64), lambdas, (0.75, 0.25), weight)
    need = objective | rest
    prior = need.pop("prior", None)
    try:
        mine = select_classes(classes, ["n", "p"], **of_two_classes(objective | rest), simplest=False)
    except Infeasible:
        with pytest.raises(Infeasible):
            OperatingGrid(scores, prior).select(**need, simplest=False)
        return
    theirs = OperatingGrid(scores, prior).select(**need, simplest=False)
    ((way, name),) = objective.items()
    name = "cost" if way == "cost" else name
    ours = mine.metrics.get(f"{name}[p]", mine.metrics.get(name))
    assert ours is not None
    assert ours.value == pytest.approx(theirs.metrics[name].value, abs=1e-6)


@pytest.mark.parametrize("objective", ["balanced_accuracy", "macro_f1", "worst_recall", "precision[c]"])
def test_the_search_does_as_well_as_the_best_of_many_random_offsets(objective: str) -> None:
    rng = np.random.default_rng(0)
    tries = rng.normal(0, 1.5, (4000, 3))
    won = 0
    for seed in range(6):
        s = class_scores(70, n_lambdas=1, seed=seed)
        point = select_classes(s, NAMES, maximize=objective, subject_to="recall[a]>=0.3")
        guesses = np.argmax(s.log_posterior[0] + tries[:, None, :], axis=2)
        right = np.stack([((guesses == k) & (s.target == k)).sum(axis=1) for k in range(3)], axis=1)
        made = np.stack([(guesses == k).sum(axis=1) for k in range(3)], axis=1)
        total = np.bincount(s.target)
        recalls = right / total
        values = {
            "balanced_accuracy": recalls.mean(axis=1),
            "worst_recall": recalls.min(axis=1),
            "macro_f1": (2 * right / (made + total)).mean(axis=1),
            "precision[c]": right[:, 2] / np.maximum(made[:, 2], 1),
        }[objective]
        best = values[recalls[:, 0] >= 0.3].max()
        assert point.metrics["recall[a]"].value >= 0.3
        won += point.metrics[objective].value >= best - 1e-9
    assert won >= 5


def value(name: str, target: np.ndarray, guess: np.ndarray, weight: np.ndarray | None = None) -> float:
    told = {"zero_division": 0, "sample_weight": weight}
    if name == "precision[c]":
        return precision_score(target, guess, labels=[2], average=None, **told)[0]
    if name == "macro_f1":
        return f1_score(target, guess, average="macro", **told)
    recalls = recall_score(target, guess, average=None, **told)
    return recalls.mean() if name == "balanced_accuracy" else recalls.min()


@pytest.mark.parametrize("weighted", [False, True])
def test_figures_are_scikit_learns(weighted: bool) -> None:
    s = class_scores(weighted=weighted)
    point = select_classes(s, NAMES, maximize="macro_f1")
    guess, told = decided(point, s), {"sample_weight": s.weight}
    for name in ("macro_f1", "balanced_accuracy", "worst_recall", "precision[c]"):
        assert point.metrics[name].value == pytest.approx(value(name, s.target, guess, s.weight))
    assert point.metrics["accuracy"].value == pytest.approx(accuracy_score(s.target, guess, **told))
    for estimate in (*point.metrics.values(), *point.honest.values()):
        assert estimate.low <= estimate.value <= estimate.high


def test_a_stated_prior_weighs_classes_anew() -> None:
    """As would samples of which those of each class weigh so much more."""
    s = class_scores()
    prior = {"b": 0.5, "c": 0.3, "a": 0.2}
    share = np.bincount(s.target) / len(s.target)
    weight = np.array([0.2, 0.5, 0.3])[s.target] / share[s.target]
    stated = select_classes(s, NAMES, maximize="accuracy", prior=prior)
    weighted = select_classes(dataclasses.replace(s, weight=weight), NAMES, maximize="accuracy")
    assert stated.lam == weighted.lam
    assert stated.offsets == pytest.approx(weighted.offsets)
    assert stated.metrics["accuracy"].value == pytest.approx(weighted.metrics["accuracy"].value)
    assert stated.prior == pytest.approx({"a": 0.2, "b": 0.5, "c": 0.3})


def test_constraints_hold_in_every_class() -> None:
    s = class_scores(sharp=2)
    free = select_classes(s, NAMES, maximize="accuracy", simplest=False)
    bound = select_classes(s, NAMES, maximize="accuracy", subject_to="recall>=0.6 in every class", simplest=False)
    assert min(bound.metrics[f"recall[{c}]"].value for c in NAMES) >= 0.6
    assert bound.metrics["accuracy"].value <= free.metrics["accuracy"].value
    assert bound.needs["subject_to"] == ["recall>=0.6 in every class"]


def test_bayes_decisions_for_costs_are_a_start_and_never_beaten_by_it() -> None:
    cost = np.array([[0, 1, 4], [3, 0, 1], [9, 2, 0]])
    s = class_scores(n_lambdas=1)
    point = select_classes(s, NAMES, cost=cost, prior=s.prior)
    bayes = np.argmin(np.exp(s.log_posterior[0]) @ cost, axis=1)
    weight = np.array(s.prior)[s.target] / np.bincount(s.target)[s.target]
    mean = float(weight @ cost[s.target, bayes])
    assert point.metrics["cost"].value <= mean + 1e-9
    neutral = dataclasses.replace(point, offsets=dict.fromkeys(NAMES, 0.0))
    np.testing.assert_array_equal(neutral.decide(s.log_posterior[0]), bayes)


def test_what_cannot_be_met_is_told_with_how_near_it_comes() -> None:
    s = class_scores(sharp=0)
    with pytest.raises(Infeasible) as error:
        select_classes(s, NAMES, maximize="accuracy", subject_to=["recall>=0.9 in every class", "recall[a]>=0.2"])
    assert "recall>=0.9 in every class and recall[a]>=0.2" in error.value.problems[0]
    assert "is missed by" in error.value.problems[1]
    assert "can be met" in error.value.problems[2]


def test_honest_figures_are_worse_where_there_is_nothing_to_learn() -> None:
    """Log posteriors of pure noise: what was fitted to it does not come again."""
    seen, honest = [], []
    for seed in range(8):
        s = class_scores(60, sharp=0, seed=seed)
        point = select_classes(s, NAMES, maximize="balanced_accuracy", simplest=False)
        seen.append(point.metrics["balanced_accuracy"].value)
        honest.append(point.honest["balanced_accuracy"].value)
    assert np.mean(seen) > 1 / 3 + 0.08
    assert abs(np.mean(honest) - 1 / 3) < 0.06


def test_the_nearest_lambda_of_those_within_a_standard_error_is_taken() -> None:
    s = class_scores(n_lambdas=5)
    point = select_classes(s, NAMES, maximize="balanced_accuracy", default={"tau": 0.5})
    best = select_classes(s, NAMES, maximize="balanced_accuracy", default={"tau": 0.5}, simplest=False)
    assert abs(point.lam["tau"] - 0.5) <= abs(best.lam["tau"] - 0.5)
    assert point.simpler_than in (None, best.lam)
    assert best.simpler_than is None


def test_points_survive_json() -> None:
    point = select_classes(class_scores(), NAMES, cost=1 - np.eye(3), subject_to="recall[b]>=0.2")
    assert ClassPoint.from_json(point.to_json()) == point
    for wrong in ("", "[]", "{}", point.to_json().replace("class_point/1", "class_point/9")):
        with pytest.raises(InputError):
            ClassPoint.from_json(wrong)
    raw = json.loads(point.to_json())
    del raw["offsets"]["a"]
    with pytest.raises(InputError, match="an offset and a share of each"):
        ClassPoint.from_json(json.dumps(raw))


def test_everything_wrong_with_a_need_is_told_at_once() -> None:
    with pytest.raises(InputError) as error:
        select_classes(
            class_scores(),
            NAMES,
            maximize="recall[d]",
            cost=[[0, 1], [1, 0]],
            subject_to=["recal[a]>=0.5", "recall>=0.5", "recall[a]>=50", "accuracy>=0.5 in every class", "recall~1"],
            prior=[0.5, 0.5],
        )
    told = "\n".join(error.value.problems)
    for part in (
        "say one of maximize, minimize and cost",
        "'recall[d]' is of a class that there is not",
        "3 x 3 matrix",
        "no metric 'recal[a]'",
        "'recall' is of one class",
        "lies in [0, 1], got '50'",
        "'in every class' goes with one of",
        "a constraint reads like",
        "3 shares that are positive",
    ):
        assert part in told, part


@pytest.mark.parametrize(
    ("need", "rule"),
    [
        ({"minimize": "macro_f1"}, "macro_f1 is something to maximize"),
        ({"cost": [[0, 1, 1], [1, 2, 1], [1, 1, 0]]}, "no error may cost less than being right"),
        ({"minimize": "log_loss", "subject_to": "accuracy>=0.2"}, "log_loss is of probabilities"),
        ({"maximize": "accuracy", "prior": {"a": 0.5, "b": 0.5}}, "3 shares"),
        ({"maximize": "accuracy", "confidence": 2.0}, "a confidence lies in"),
    ],
    ids=str,
)
def test_a_need_that_cannot_be_is_refused(need: dict, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        select_classes(class_scores(), NAMES, **need)


def test_a_class_without_samples_is_told() -> None:
    s = class_scores()
    weight = np.where(s.target == 2, 0.0, 1.0)
    with pytest.raises(InputError, match="got none of 'c'"):
        select_classes(dataclasses.replace(s, weight=weight), NAMES, maximize="accuracy")
