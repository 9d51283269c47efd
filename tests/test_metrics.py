"""Every metric against scikit-learn or its definition, with ties and sample weights."""

import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk

from tunelater import metrics
from tunelater.metrics import Constraint, Ranking, evaluate
from tunelater.problems import InputError

EXACT = {"rel": 1e-10, "abs": 1e-10}


@st.composite
def problems(draw: st.DrawFn, largest: int = 300) -> tuple[NDArray, NDArray, NDArray | None]:
    """Scores with or without ties, a rare or common positive class, with or without weights (some zero)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(4, largest))
    target = (rng.random(n) < draw(st.sampled_from([0.05, 0.3, 0.7]))).astype(np.int64)
    target[:2] = 0, 1
    scores = rng.normal(size=n) * draw(st.sampled_from([1, 100])) + target
    if draw(st.booleans()):
        scores = np.round(scores)  # ties, and both -0.0 and 0.0
    weight = rng.random(n) * (rng.random(n) < 0.9) if draw(st.booleans()) else None
    if weight is not None:
        weight[:2] = 1
    return scores.astype(draw(st.sampled_from([np.float32, np.float64]))), target, weight


def sigmoid(scores: NDArray) -> NDArray:
    scores = scores.astype(np.float64)
    return np.exp(-np.logaddexp(0, -scores))


@settings(max_examples=100, deadline=None)
@given(problems())
def test_ranking_metrics_and_proper_scores_equal_scikit_learn(
    problem: tuple[NDArray, NDArray, NDArray | None],
) -> None:
    scores, target, weight = problem
    ours = evaluate(scores, target, weight, ["auc", "average_precision", "brier", "log_loss", "partial_auc@fpr<=0.2"])
    s64 = scores.astype(np.float64)
    assert ours["auc"][0] == pytest.approx(sk.roc_auc_score(target, s64, sample_weight=weight), **EXACT)
    ap = sk.average_precision_score(target, s64, sample_weight=weight)
    assert ours["average_precision"][0] == pytest.approx(ap, **EXACT)
    brier = sk.brier_score_loss(target, sigmoid(scores), sample_weight=weight)
    assert ours["brier"][0] == pytest.approx(brier, **EXACT)
    log_loss = np.average(np.logaddexp(0, np.where(target == 1, -s64, s64)), weights=weight)
    assert ours["log_loss"][0] == pytest.approx(log_loss, **EXACT)
    partial = sk.roc_auc_score(target, s64, sample_weight=weight, max_fpr=0.2)
    assert ours["partial_auc@fpr<=0.2"][0] == pytest.approx(partial, **EXACT)


def test_log_loss_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores, target, weight = rng.normal(size=500), rng.integers(0, 2, 500), rng.random(500)
    expected = sk.log_loss(target, sigmoid(scores), sample_weight=weight)
    assert evaluate(scores, target, weight, ["log_loss"])["log_loss"][0] == pytest.approx(expected, **EXACT)


def decisions_at(scores: NDArray) -> NDArray:
    """(N, T) which samples each distinct score decides for, as a threshold; the first one decides for none."""
    return np.stack([scores >= t for t in [np.inf, *sorted(set(scores.tolist()), reverse=True)]], axis=1).astype(int)


def by_threshold(scores: NDArray, target: NDArray, weight: NDArray | None) -> dict[str, NDArray]:
    """scikit-learn's metrics of the decisions at every distinct score, each of which is a label to it."""
    decisions = decisions_at(scores)
    truth = np.broadcast_to(target[:, None], decisions.shape)
    of_each: Any = {"sample_weight": weight, "average": None, "zero_division": 0}
    recall = sk.recall_score(truth, decisions, **of_each)
    specificity = sk.recall_score(1 - truth, 1 - decisions, **of_each)
    return {
        "recall": recall,
        "specificity": specificity,
        "fpr": 1 - specificity,
        "precision": sk.precision_score(truth, decisions, **of_each),
        "f1": sk.f1_score(truth, decisions, **of_each),
        "f0.5": sk.fbeta_score(truth, decisions, beta=0.5, **of_each),
        "f2": sk.fbeta_score(truth, decisions, beta=2, **of_each),
        "balanced_accuracy": (recall + specificity) / 2,
        "gmean": np.sqrt(recall * specificity),
    }


BEST_OVER_THRESHOLDS = ["f1", "f0.5", "f2", "balanced_accuracy", "gmean", "accuracy", "mcc", "recall", "specificity"]


@settings(max_examples=25, deadline=None)
@given(problems(largest=40))
def test_best_over_thresholds_equals_a_loop_over_every_score(problem: tuple[NDArray, NDArray, NDArray | None]) -> None:
    scores, target, weight = problem
    slow = by_threshold(scores, target, weight)
    for name, of_one in (("accuracy", sk.accuracy_score), ("mcc", sk.matthews_corrcoef)):
        slow[name] = np.array([of_one(target, each, sample_weight=weight) for each in decisions_at(scores).T])
    ours = evaluate(scores, target, weight, [f"best_{name}" for name in BEST_OVER_THRESHOLDS])
    for name in BEST_OVER_THRESHOLDS:
        assert ours[f"best_{name}"][0] == pytest.approx(slow[name].max(), **EXACT), name


@settings(max_examples=25, deadline=None)
@given(problems(largest=40), st.sampled_from([0.1, 0.5, 0.9, 1.0]))
def test_best_under_a_constraint_equals_a_loop_over_every_score(
    problem: tuple[NDArray, NDArray, NDArray | None], bound: float
) -> None:
    scores, target, weight = problem
    slow = by_threshold(scores, target, weight)
    for best, under, relation in [
        ("precision", "recall", ">="),
        ("recall", "precision", ">="),
        ("recall", "fpr", "<="),
    ]:
        meets = slow[under] >= bound - 1e-12 if relation == ">=" else slow[under] <= bound + 1e-12
        expected = slow[best][meets].max() if meets.any() else np.nan
        ours = evaluate(scores, target, weight, [f"{best}@{under}{relation}{bound}"])
        assert next(iter(ours.values()))[0] == pytest.approx(expected, **EXACT, nan_ok=True)


def distance_to_polyline(points: NDArray, line: NDArray) -> NDArray:
    """The distance of each point (P, 2) to the polyline through the corners (Q, 2)."""
    start, along = line[:-1], np.diff(line, axis=0)
    length2 = np.maximum((along**2).sum(1), 1e-300)
    t = np.clip(((points[:, None] - start) * along).sum(-1) / length2, 0, 1)
    return np.linalg.norm(points[:, None] - start - t[..., None] * along, axis=-1).min(1)


@settings(max_examples=50, deadline=None)
@given(problems())
def test_curves_equal_scikit_learn(problem: tuple[NDArray, NDArray, NDArray | None]) -> None:
    scores, target, weight = problem
    curve = Ranking(scores, target).curve(weight)
    fpr, tpr, _ = sk.roc_curve(target, scores, sample_weight=weight, drop_intermediate=False)
    ours = curve.roc()
    theirs, ours = np.stack([fpr, tpr], axis=1), np.stack(curve.roc(), axis=1)
    assert distance_to_polyline(theirs, ours).max() < 1e-9
    assert distance_to_polyline(ours, theirs).max() < 1e-9
    precision, recall, thresholds = sk.precision_recall_curve(target, scores, sample_weight=weight)
    expected = {t: (p, r) for p, r, t in zip(precision[:-1], recall[:-1], thresholds, strict=True)}
    for t, p, r, w in zip(curve.threshold[1:-1], *curve.precision_recall(), curve.weight[1:-1], strict=True):
        if w == 0:  # scikit-learn leaves out samples without weight
            continue
        assert (p, r) == pytest.approx(expected[t], **EXACT)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 40, 400]), st.sampled_from([0.0, 1e-30, 1.0, 1e30, 3e38]))
def test_places_among_positives_equal_binary_search(seed: int, n: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    dtype = rng.choice([np.float32, np.float64])
    ascending = np.sort((rng.uniform(-1, 1, n) * spread).astype(dtype))
    scores = (rng.uniform(-1.5, 1.5, 500) * min(spread, 2e38)).astype(dtype)
    scores[:50] = rng.choice(ascending, 50)
    place, tied = metrics._places(ascending, scores)
    np.testing.assert_array_equal(place, np.searchsorted(ascending, scores))
    np.testing.assert_array_equal(np.sort(tied), np.flatnonzero(np.isin(scores, ascending)))


def test_all_lambdas_at_once_equal_one_at_a_time() -> None:
    rng = np.random.default_rng(1)
    logits, target = rng.normal(size=(7, 400)).astype(np.float32), rng.integers(0, 2, 400)
    names = ["auc", "brier", "best_f1", "precision@recall>=0.9"]
    together = evaluate(logits, target, metrics=names)
    for i in range(7):
        alone = evaluate(logits[i], target, metrics=names)
        assert all(together[name][i] == alone[name][0] for name in names)


def test_confusion_counts_equal_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    logits, target, weight = rng.normal(size=(5, 300)).round(1), rng.integers(0, 2, 300), rng.random(300)
    limits = np.array([-np.inf, -0.5, 0.0, 0.3, np.inf])
    for w in (None, weight):
        ours = metrics.confusion(logits, target, limits, w)
        for i in range(5):
            tn, fp, fn, tp = sk.confusion_matrix(target, logits[i] >= limits[i], sample_weight=w).ravel()
            got = {name: counts[i] for name, counts in ours.items()}
            assert got == pytest.approx({"tp": tp, "fp": fp, "fn": fn, "tn": tn}, **EXACT)
    one = metrics.confusion(logits, target, 0.0)
    assert one["tp"][2] == metrics.confusion(logits[2], target, 0.0)["tp"][0]
    with pytest.raises(InputError, match="one for each of the 5 lambdas"):
        metrics.confusion(logits, target, [0.0, 1.0])


def test_a_prior_is_the_same_as_weights_that_bring_it_about() -> None:
    rng = np.random.default_rng(2)
    target, scores, weight = rng.integers(0, 2, 500), rng.normal(size=500), rng.random(500)
    shifted = metrics.prior_weight(target, weight, 0.03)
    assert shifted[target == 1].sum() == pytest.approx(0.03)
    assert shifted.sum() == pytest.approx(1)
    by_weight = Ranking(scores, target).curve(shifted)
    by_prior = Ranking(scores, target).curve(weight).at_prior(0.03)
    for name, m in metrics.THRESHOLD_METRICS.items():
        np.testing.assert_allclose(m.values(by_weight), m.values(by_prior), atol=1e-12, err_msg=name)
    assert metrics.auc(by_prior) == pytest.approx(metrics.auc(Ranking(scores, target).curve(weight)))
    assert metrics.average_precision(by_weight) == pytest.approx(metrics.average_precision(by_prior))


def test_logits_rank_where_saturated_probabilities_tie() -> None:
    logits = np.array([20, 25, 30, 18], np.float32)
    target = np.array([0, 1, 1, 0])
    saturated = 1 / (1 + np.exp(-logits))
    assert evaluate(logits, target, metrics=["auc"])["auc"][0] == 1
    assert evaluate(saturated, target, metrics=["auc"])["auc"][0] < 1


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=200))
def test_fast_argsort_is_a_stable_argsort(values: list[float]) -> None:
    scores = np.array(values, np.float32)
    np.testing.assert_array_equal(metrics.argsort(scores), np.argsort(scores, kind="stable"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("average_precison", "did you mean 'average_precision'"),
        ("best_recal", "did you mean 'recall'"),
        ("precision@recal>=0.9", "did you mean 'recall'"),
        ("precision@recall=0.9", "reads like"),
        ("precision@recall>=1.1", r"\[0, 1\]"),
        ("partial_auc@recall>=0.5", "partial AUC reads like"),
        ("partial_auc@fpr<=0", "partial AUC reads like"),
    ],
)
def test_unknown_metric_names_are_explained(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        evaluate(np.zeros(2), np.array([0, 1]), metrics=[name])


def test_all_problems_of_a_call_are_reported_at_once() -> None:
    with pytest.raises(InputError) as error:
        evaluate(np.array([[np.nan, 1, 2]]), np.array([0, 0, 0]), np.array([1, -1, 1]))
    assert len(error.value.problems) == 3
    with pytest.raises(InputError, match="weights of class 1 are all zero"):
        evaluate(np.zeros((1, 2)), np.array([0, 1]), np.array([1.0, 0.0]))


def test_constraints_read_back_as_written() -> None:
    assert str(Constraint.parse(" recall >= 0.95 ")) == "recall>=0.95"
    assert metrics.metric("fpr@recall>=0.5").higher_is_better is False


def test_lambdas_are_worked_on_by_as_many_threads_as_pytorch_may_use_each_alone() -> None:
    """Threads that wake teams of their own, or a call from within, would take the cores from one another."""
    before = torch.get_num_threads()

    def seen(_: int) -> tuple[int, int, set[int]]:
        time.sleep(0.02)  # long enough for the other thread to begin
        within = metrics.per_lambda(lambda _: threading.get_ident(), 3)
        return threading.get_ident(), torch.get_num_threads(), set(within)

    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found = metrics.per_lambda(seen, 6)
            assert len({thread for thread, _, _ in found}) == threads
            assert all(alone == 1 and within == {thread} for thread, alone, within in found)
            assert torch.get_num_threads() == threads
            with pytest.raises(ZeroDivisionError):
                metrics.per_lambda(lambda i: 1 // i, 2)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
