"""Score histograms against the scores themselves: decisions, metrics and their bounds, pieces and shards, files."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tunelater.histograms import Bins, ScoreHistograms, merged
from tunelater.intervals import of_proper_scores, of_ranking
from tunelater.losses import logit
from tunelater.metrics import THRESHOLD_METRICS, Ranking, confusion, evaluate, metric, prior_weight, threshold_metric
from tunelater.problems import InputError
from tunelater.scoring import Scores

NAMES = [
    "auc", "average_precision", "brier", "log_loss", "best_f1", "best_balanced_accuracy", "best_mcc", "best_f0.5",
    "partial_auc@fpr<=0.1", "precision@recall>=0.9", "recall@fpr<=0.05", "recall@precision>=0.3",
    "recall@alert_rate<=0.1", "fpr@recall>=0.8",
]  # fmt: skip
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def made(
    n: int, n_lambdas: int = 2, *, seed: int = 0, spread: float = 1.5, positives: float = 0.1, weighted: bool = False
) -> Scores:
    """Normal scores whose classes are a unit-wide step apart, times `spread`, around the log-odds of the prior."""
    rng = np.random.default_rng(seed)
    target = (rng.random(n) < positives).astype(np.int8)
    target[:2] = 0, 1
    raw = rng.normal(size=(n_lambdas, n)) + 1.5 * target + np.arange(n_lambdas)[:, None] / 10
    log_odds = (raw * spread + logit(positives)).astype(np.float32)
    weight = rng.exponential(size=n) * (rng.random(n) < 0.95) if weighted else None
    if weight is not None:
        weight[:2] = 1
    lambdas = {"tau": np.arange(n_lambdas) / 3, "gamma": np.full(n_lambdas, 0.1)}
    return Scores(log_odds, target, lambdas, positives, weight, model="m", extrapolated=np.arange(n_lambdas) > 0)


def part(scores: Scores, rows: slice | NDArray) -> Scores:
    weight = None if scores.weight is None else scores.weight[rows]
    return dataclasses.replace(scores, log_odds=scores.log_odds[:, rows], target=scores.target[rows], weight=weight)


# ------------------------------------------------------------------------------------------- bins


@pytest.mark.parametrize("bits", [4, 12, 16])
def test_bins_cover_all_numbers_in_order(bits: int) -> None:
    bins = Bins(bits)
    edges = bins.edges
    assert len(edges) == len(bins) + 1
    assert (np.diff(edges) > 0).all()
    assert (edges[0], edges[-1]) == (np.finfo(np.float32).min, np.inf)
    assert (edges[:-1].astype(np.float32) == edges[:-1]).all(), "an edge that float32 cannot hold would be rounded"
    assert (bins.place(edges[:-1].astype(np.float32)) == np.arange(len(bins))).all()
    assert (bins.place(bins.centres) == np.arange(len(bins))).all()
    widths = np.diff(edges)[np.abs(edges[:-1]) < 32][1:-1]
    assert (widths == 2.0**-bits).all()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(FLOATS, st.floats(-40, 40, width=32), st.floats(-5000, 5000, width=32)), min_size=1),
       st.sampled_from([4, 9, 12, 16]))  # fmt: skip
def test_a_bin_holds_what_lies_between_its_edges(values: list[float], bits: int) -> None:
    x, bins = np.array(values, np.float32), Bins(bits)
    place, edges = bins.place(x), bins.edges
    exact = x.astype(np.float64)
    assert (edges[place] <= exact).all()
    assert (exact < edges[place + 1]).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(Bins(12)) - 1), st.integers(-3, 3))
def test_scores_next_to_an_edge_fall_on_their_side_of_it(index: int, steps: int) -> None:
    bins = Bins(12)
    edge = x = np.float32(bins.edges[index])
    for _ in range(abs(steps) if index else 0):  # below the first edge there is nothing
        x = np.nextafter(x, np.float32(np.inf if steps > 0 else -np.inf))
    assert (x >= edge) == (bins.place(np.array([x]))[0] >= index)


@pytest.mark.parametrize("bits", [3, 17, 12.0, True, "12"])
def test_other_steps_are_refused(bits: object) -> None:
    with pytest.raises(InputError, match="from 4 to 16"):
        Bins(bits)


# ------------------------------------------------------------------------------------------- decisions


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans(), st.sampled_from([0.01, 1.5, 30.0, 1000.0]))
def test_counts_at_the_thresholds_of_a_curve_are_those_of_the_raw_scores(
    seed: int, weighted: bool, every_bin: bool, spread: float
) -> None:
    scores = made(300, 1, seed=seed, weighted=weighted, spread=spread)
    histograms = ScoreHistograms.of(scores, Bins(5))
    c = histograms.curve(0, every_bin=every_bin)
    assert (np.diff(c.threshold) <= 0).all()
    assert c.threshold[0] == np.inf
    for k, threshold in enumerate(c.threshold):
        for moved in (threshold, histograms.threshold(0, threshold)):
            exact = confusion(scores.log_odds, scores.target, moved, scores.weight)
            got = [c.tp[k], c.fp[k], c.fn[k], c.tn[k]]
            np.testing.assert_allclose(got, [exact[n][0] for n in ("tp", "fp", "fn", "tn")], rtol=1e-9, atol=1e-9)
    if not every_bin:
        assert c.weight.sum() == pytest.approx(c.positives)
    assert (c.tp_above[1:-1] == (c.tp - c.weight)[1:-1]).all() or weighted


def test_a_threshold_keeps_its_distance_from_the_scores_below_empty_bins() -> None:
    log_odds = np.array([[-3.0, -1.0, 2.0, 2.0625]], np.float32)
    scores = Scores(log_odds, np.array([0, 0, 1, 0], np.int8), {}, 0.1)
    histograms = ScoreHistograms.of(scores, Bins(4))
    assert histograms.threshold(0, 2.0) == (2 + -1 + 1 / 16) / 2
    assert histograms.threshold(0, 2.0625) == 2.0625
    assert histograms.threshold(0, -3.0) == -3.0


# ------------------------------------------------------------------------------------------- metrics


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([4, 6, 8]),
    st.sampled_from([0.02, 1.5, 40.0]),
    st.booleans(),
    st.sampled_from([None, 0.02, 0.6]),
)
def test_bounds_contain_the_exact_metric(
    seed: int, bits: int, spread: float, weighted: bool, prior: float | None
) -> None:
    scores = made(400, 2, seed=seed, spread=spread, weighted=weighted)
    if seed % 3 == 0:  # ties
        scores = dataclasses.replace(scores, log_odds=np.round(scores.log_odds * 8) / np.float32(8))
    histograms = ScoreHistograms.of(scores, Bins(bits))
    weight, log_odds = scores.weight, scores.log_odds.astype(np.float64)
    if prior is not None:
        weight = prior_weight(scores.target, weight, prior)
        log_odds += logit(prior) - logit(scores.prior)
    exact = evaluate(log_odds, scores.target, weight, NAMES)
    values = histograms.evaluate(NAMES, prior=prior)
    for name in NAMES:
        low, high = histograms.bounds(name, prior=prior)
        slack = 1e-9 * (1 + np.abs(exact[name]))
        reached = ~np.isnan(exact[name])
        # The best under a constraint may be met between edges only: then one side is not known.
        of_edges, within = (low, high) if metric(name).higher_is_better else (high, low)
        assert not np.isnan(within[reached]).any(), name
        assert (np.isnan(of_edges) == np.isnan(values[name])).all(), name
        for found in (exact[name], values[name]):
            assert not (low > found + slack).any(), (name, low, found)
            assert not (high < found - slack).any(), (name, high, found)


def test_metrics_are_within_a_ten_thousandth_of_the_exact_ones_and_the_bounds_say_so() -> None:
    scores = made(200_000, 3, positives=0.02, spread=1.0)
    histograms = ScoreHistograms.of(scores)
    exact, values = evaluate(scores.log_odds, scores.target, None, NAMES), histograms.evaluate(NAMES)
    for name in ("auc", "average_precision", "brier", "log_loss", "partial_auc@fpr<=0.1"):
        np.testing.assert_allclose(values[name], exact[name], atol=1e-4, rtol=0, err_msg=name)
        low, high = histograms.bounds(name)
        assert (np.maximum(high - values[name], values[name] - low) < 1e-4).all(), (name, low, values[name], high)


def test_scores_that_are_all_one_leave_everything_open() -> None:
    scores = made(1000, 1, spread=0.0)
    low, high = ScoreHistograms.of(scores).bounds("auc")
    assert (low[0], high[0]) == (0.0, 1.0)


def test_the_best_threshold_of_the_histogram_is_hardly_worse_than_the_best_of_all() -> None:
    scores = made(50_000, 2, positives=0.05)
    histograms = ScoreHistograms.of(scores)
    labels = scores.target
    for i in range(2):
        c, exact = histograms.curve(i), Ranking(scores.log_odds[i], labels).curve()
        for name in THRESHOLD_METRICS:
            m = threshold_metric(name)
            best = max if m.higher_is_better else min
            assert best(m.values(c)) == pytest.approx(best(m.values(exact)), abs=1e-3)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("prior", [None, 0.02])
def test_intervals_are_those_of_the_scores(weighted: bool, prior: float | None) -> None:
    scores = made(3000, 1, weighted=weighted)
    found = ScoreHistograms.of(scores).intervals(0, prior=prior, confidence=0.9)
    kw = {"prior": prior, "confidence": 0.9}
    moved = scores.log_odds[0] + (0 if prior is None else logit(prior) - logit(scores.prior))
    exact = of_ranking(scores.log_odds[0], scores.target, scores.weight, **kw) | of_proper_scores(
        moved.astype(np.float64), scores.target, scores.weight, **kw
    )
    assert list(found) == list(exact)
    for name, e in exact.items():
        assert found[name] == pytest.approx(e, abs=5e-4), name
    values = ScoreHistograms.of(scores).evaluate(list(found), prior=prior)
    assert {n: e.value for n, e in found.items()} == pytest.approx({n: v[0] for n, v in values.items()})


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1.5, 40.0]))
def test_samples_that_stand_for_many_are_decided_on_as_they_are(seed: int, spread: float) -> None:
    scores = made(200, 1, seed=seed, spread=spread, weighted=True)
    histograms = ScoreHistograms.of(scores, Bins(5))
    log_odds, target, weight, squares = histograms.samples(0)
    assert scores.weight is not None
    assert weight.sum() == pytest.approx(scores.weight.sum())
    assert squares.sum() == pytest.approx((scores.weight**2).sum())
    for edge in histograms.curve(0, every_bin=True).threshold:
        for t in (edge, histograms.threshold(0, edge)):
            exact, ours = (
                confusion(scores.log_odds, scores.target, t, scores.weight),
                confusion(log_odds, target, t, weight),
            )
            assert [v[0] for v in ours.values()] == pytest.approx([v[0] for v in exact.values()])


# ------------------------------------------------------------------------------------------- pieces and shards


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.integers(1, 9))
def test_pieces_and_shards_in_any_order_give_what_one_pass_gives(seed: int, weighted: bool, shards: int) -> None:
    rng = np.random.default_rng(seed)
    scores = made(500, 3, seed=seed, weighted=weighted, spread=float(rng.choice([0.5, 20.0])))
    one = ScoreHistograms.of(scores, Bins(6))
    parts = np.array_split(rng.permutation(500), shards)
    if weighted:  # a piece without any weight is refused by `Scores`
        parts = [p for p in parts if scores.weight is not None and scores.weight[p].any()]
    summed = merged(ScoreHistograms.of(part(scores, p), Bins(6)) for p in parts)
    streamed = ScoreHistograms.empty(
        scores.lambdas, scores.prior, weighted=weighted, bins=Bins(6), model="m", extrapolated=scores.extrapolated
    )
    for p in parts[::-1]:
        streamed.update(part(scores, p))
    for other in (summed, streamed):
        if weighted:
            np.testing.assert_allclose(other.counts, one.counts, rtol=1e-12)
            np.testing.assert_allclose(other.squares, one.squares, rtol=1e-12)
        else:
            assert np.array_equal(other.counts, one.counts)
            assert np.array_equal(other.rows, one.rows)


def test_counts_are_those_of_a_slow_loop() -> None:
    scores = made(400, 2, weighted=True)
    assert scores.weight is not None
    bins = Bins(4)
    plain, weighed = (
        ScoreHistograms.of(dataclasses.replace(scores, weight=None), bins),
        ScoreHistograms.of(scores, bins),
    )
    counts, sums, squares = np.zeros((2, 2, len(bins)), np.int64), *np.zeros((2, 2, 2, len(bins)))
    for i in range(2):
        for x, c, w in zip(scores.log_odds[i], scores.target, scores.weight, strict=True):
            b = np.searchsorted(bins.edges, x, side="right") - 1
            counts[i, c, b] += 1
            sums[i, c, b] += w
            squares[i, c, b] += w**2
    assert np.array_equal(plain.counts, counts)
    assert plain.counts.dtype == np.int64
    np.testing.assert_allclose(weighed.counts, sums, rtol=1e-12)
    np.testing.assert_allclose(weighed.squares, squares, rtol=1e-12)
    assert plain.rows.tolist() == weighed.rows.tolist() == np.bincount(scores.target).tolist()


def test_adding_leaves_both_as_they_are() -> None:
    a, b = (ScoreHistograms.of(made(100, seed=s), Bins(4)) for s in (0, 1))
    before = a.counts.copy()
    total = a + b
    assert np.array_equal(total.counts, before + b.counts)
    total.counts[:] = 0
    assert np.array_equal(a.counts, before)


def test_long_pieces_are_counted_whole() -> None:
    scores = made(2**19 + 17, 1, spread=3.0)
    expected = [
        np.bincount(Bins(6).place(scores.log_odds[0][scores.target == c]), minlength=len(Bins(6))) for c in (0, 1)
    ]
    assert np.array_equal(ScoreHistograms.of(scores, Bins(6)).counts[0], expected)


# ------------------------------------------------------------------------------------------- what is refused


def test_everything_that_differs_is_told_at_once() -> None:
    a = ScoreHistograms.of(made(50), Bins(4))
    other = dataclasses.replace(
        made(50, weighted=True), lambdas={"tau": np.zeros(2)}, prior=0.2, model="other", split="train"
    )
    with pytest.raises(InputError) as caught:
        a + ScoreHistograms.of(other, Bins(5))
    told = "\n".join(caught.value.problems)
    for word in ("lambdas", "prior", "model", "split", "weights", "bins"):
        assert word in told, told
    assert all(problem.startswith("shard 2: ") for problem in caught.value.problems)


def test_a_piece_that_does_not_fit_changes_nothing() -> None:
    a, scores = ScoreHistograms.of(made(50), Bins(4)), made(50, 3, weighted=True)
    before = a.counts.copy(), a.rows.copy()
    target = scores.target.copy()
    target[3] = 2
    wrong = dataclasses.replace(scores, log_odds=scores.log_odds.astype(np.float64), target=target)
    with pytest.raises(InputError) as caught:
        a.update(wrong)
    told = "\n".join(caught.value.problems)
    for word in ("same lambdas", "2 lambdas", "with weights", "float32, as `score` gives", "0 or 1, got 1 "):
        assert word in told, told
    assert np.array_equal(a.counts, before[0])
    assert np.array_equal(a.rows, before[1])


def test_all_problems_of_evaluation_come_at_once() -> None:
    negatives = dataclasses.replace(made(50), target=np.zeros(50, np.int8))
    with pytest.raises(InputError) as caught:
        ScoreHistograms.of(negatives, Bins(4)).evaluate(["aucc", "best_f1", "recal@fpr<=0.1"], prior=1.0)
    told = "\n".join(caught.value.problems)
    for word in ("'auc'", "'recall'", "(0, 1)", "class 1"):
        assert word in told, told


def test_merging_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="got none"):
        merged([])


# ------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("weighted", [False, True])
def test_files_give_back_what_was_saved(tmp_path: Path, weighted: bool) -> None:
    a = ScoreHistograms.of(made(500, weighted=weighted, spread=20.0), Bins(7))
    a.save(tmp_path / "a.npz")
    b = ScoreHistograms.load(tmp_path / "a.npz")
    for f in dataclasses.fields(a):
        mine, theirs = getattr(a, f.name), getattr(b, f.name)
        if f.name == "lambdas":
            assert {k: v.tolist() for k, v in mine.items()} == {k: v.tolist() for k, v in theirs.items()}
        else:
            assert np.array_equal(mine, theirs), f.name
            assert getattr(mine, "dtype", None) == getattr(theirs, "dtype", None)
    assert np.array_equal((a + b).counts, 2 * a.counts)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_damaged_and_foreign_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(InputError, match="there are no score histograms"):
        ScoreHistograms.load(path)
    ScoreHistograms.of(made(500), Bins(5)).save(path)
    whole = path.read_bytes()
    for bad in (whole[: len(whole) // 2], b"", b"not a file of arrays", whole[:200] + b"\0" * 40 + whole[240:]):
        path.write_bytes(bad)
        with pytest.raises(InputError, match=re.escape(str(path))):
            ScoreHistograms.load(path)
    np.savez(path, other=np.arange(3))
    with pytest.raises(InputError, match="holds no score histograms"):
        ScoreHistograms.load(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"header": ('"tunelater.score_histograms/1"', '"tunelater.score_histograms/2"')}, "later version"),
        ({"header": ('"prior": 0.1', '"prior": 1.5')}, "share of positives"),
        ({"header": ('"bits": 5', '"bits": 4')}, "do not fit its bins|add up|all samples"),
        ({"counts": -1}, "0 or more|all samples"),
        ({"rows": 1}, "all samples"),
    ],
)
def test_files_whose_parts_disagree_are_refused(tmp_path: Path, change: dict, told: str) -> None:
    path = tmp_path / "a.npz"
    scores = dataclasses.replace(made(500), log_odds=made(500).log_odds + 20)
    ScoreHistograms.of(scores, Bins(5)).save(path)
    with np.load(path) as stored:
        arrays = dict(stored)
    for name, how in change.items():
        if isinstance(how, tuple):
            text = str(arrays[name])
            assert how[0] in text
            arrays[name] = np.array(text.replace(*how))
        else:
            arrays[name] = arrays[name] + how * (10 if how > 0 else 1000)
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=told):
        ScoreHistograms.load(path)


def test_an_interrupted_count_is_not_saved(tmp_path: Path) -> None:
    a = ScoreHistograms.of(made(100), Bins(4))
    a.counts[1, 0, 300] += 1
    with pytest.raises(InputError, match="every lambda"):
        a.save(tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())


def test_metrics_named_for_the_curve_are_those_of_metrics() -> None:
    histograms = ScoreHistograms.of(made(300, 1))
    for name in ("auc", "average_precision", "best_f1"):
        m = metric(name)
        assert m.of_curve is not None
        assert histograms.evaluate([name])[name][0] == m.of_curve(histograms.curve(0))[0]
