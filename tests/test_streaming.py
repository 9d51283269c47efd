"""Choosing on folded histograms, against the same choice made by looking at every sample."""

import dataclasses
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tables import problems_of
from test_cli import tunelater
from tunelater import workflow
from tunelater.data import reading, tables
from tunelater.demo import POSITIVE, TARGET
from tunelater.histograms import METRICS, Bins
from tunelater.losses import logit
from tunelater.metrics import evaluate
from tunelater.needs import Need
from tunelater.points import OperatingPoint
from tunelater.problems import DoubtfulInputWarning, InputError
from tunelater.runs import Run
from tunelater.scoring import Scores
from tunelater.streaming import FoldedHistograms, HistogramGrid, load_shards, problems_of_rows
from tunelater.tuning import Infeasible, OperatingGrid
from tunelater.workflow import count, evaluation, fit, predict, tune

PRIOR = 0.1


def scored(
    n: int = 3000, lambdas: int = 3, positives: float = 0.1, seed: int = 0, weighted: bool = False, signal: float = 1.5
) -> Scores:
    rng = np.random.default_rng(seed)
    target = (rng.random(n) < positives).astype(np.int8)
    target[:2] = 0, 1
    angle = np.linspace(0.2, 1.2, lambdas)
    x = rng.normal(size=(2, n)) + signal * target
    log_odds = (np.stack([np.cos(angle), np.sin(angle)], axis=1) @ x - 2).astype(np.float32)
    weight = rng.random(n) + 0.1 if weighted else None
    return Scores(log_odds, target, {"tau": np.linspace(0, 3, lambdas)}, PRIOR, weight, model="m")


def counted(scores: Scores, cuts: list[int] | None = None, **options: Any) -> FoldedHistograms:
    """In pieces that end at `cuts`."""
    options.setdefault("bins", Bins(8))
    empty = FoldedHistograms.empty(
        scores.lambdas, scores.prior, weighted=scores.weight is not None, model=scores.model, **options
    )
    ends = [*(cuts or []), len(scores.target)]
    for start, end in zip([0, *ends], ends, strict=False):
        empty.update(scores.take(np.arange(start, end)), np.arange(start, end))
    return empty


def at_edges(scores: Scores, bins: Bins) -> Scores:
    """The scores moved down to the edges of their bins: looking at these is looking at edges alone."""
    moved = bins.edges[bins.place(scores.log_odds.reshape(-1))].astype(np.float32).reshape(scores.log_odds.shape)
    return Scores(**{**vars(scores), "log_odds": moved})


NEEDS: list[dict[str, Any]] = [
    {"maximize": "precision", "subject_to": ["recall>=0.8"]},
    {"maximize": "f1"},
    {"maximize": "recall", "subject_to": ["fpr<=0.1", "alerts<=150/1000"]},
    {"cost": {"fn": 20, "fp": 1}},
    {"minimize": "fpr", "subject_to": ["recall<=0.9", "recall>=0.5"]},
]


@pytest.mark.parametrize("prior", [None, 0.02, (0.01, 0.2)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("need", NEEDS, ids=str)
def test_the_choice_is_that_of_looking_at_every_sample_at_the_edges(need: dict, weighted: bool, prior: Any) -> None:
    scores = scored(weighted=weighted)
    point = HistogramGrid(counted(scores), prior).select(**need, simplest=False)
    exact = OperatingGrid(at_edges(scores, Bins(8)), prior).select(**need, simplest=False)
    assert point.lam == exact.lam
    alerts = point.decide(scores.log_odds[list(scores.lambdas["tau"]).index(point.lam["tau"])], PRIOR)
    same = exact.decide(at_edges(scores, Bins(8)).log_odds[list(scores.lambdas["tau"]).index(point.lam["tau"])], PRIOR)
    np.testing.assert_array_equal(alerts, same)
    # Counts at edges are exact, so the metrics of the threshold are those of the samples, and so are their intervals.
    for name in ("recall", "precision", "fpr", "f1", "alert_rate"):
        np.testing.assert_allclose(point.metrics[name].value, exact.metrics[name].value, rtol=1e-9)
        np.testing.assert_allclose(point.metrics[name][1:], exact.metrics[name][1:], atol=0.01)
    assert (point.n, point.n_positive, point.prior) == (exact.n, exact.n_positive, pytest.approx(exact.prior))


@pytest.mark.parametrize("name", [*METRICS, "partial_auc@fpr<=0.2"])
def test_whole_lambdas_are_chosen_within_the_bounds(name: str) -> None:
    scores = scored()
    way = "minimize" if name in ("brier", "log_loss") else "maximize"
    point = HistogramGrid(counted(scores)).select(**{way: name}, simplest=False)
    exact = OperatingGrid(scores).select(**{way: name}, simplest=False)
    values = evaluate(scores.log_odds, scores.target, None, [name])[name]
    mine, best = (values[list(scores.lambdas["tau"]).index(p.lam["tau"])] for p in (point, exact))
    low, high = counted(scores).total.bounds(name)
    assert abs(mine - best) <= (high - low).max()
    assert abs(point.threshold - 0.5) < 2**-8


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bits", [10, 12])
def test_auc_is_right_to_1e_4_and_says_how_far_off_it_may_be(bits: int, weighted: bool) -> None:
    """With the finest bins, and with those that the default grid gets."""
    scores = scored(n=20_000, lambdas=2, weighted=weighted)
    histograms = counted(scores, bins=Bins(bits), folds=2)
    point = HistogramGrid(histograms).select(maximize="auc")
    i = list(scores.lambdas["tau"]).index(point.lam["tau"])
    values = evaluate(scores.log_odds[[i]], scores.target, scores.weight, METRICS)
    exact = {name: v[0] for name, v in values.items()}
    assert abs(point.metrics["auc"].value - exact["auc"]) < 1e-4
    for name in METRICS:
        assert abs(point.metrics[name].value - exact[name]) <= point.off_by[name] + 1e-12
    assert OperatingPoint.from_json(point.to_json()).off_by == pytest.approx(point.off_by)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 799), max_size=6, unique=True).map(sorted), st.booleans())
def test_folds_do_not_depend_on_the_pieces(cuts: list[int], weighted: bool) -> None:
    scores = scored(n=800, weighted=weighted)
    whole, pieces = counted(scores, bins=Bins(4)), counted(scores, cuts, bins=Bins(4))
    for a, b in zip(whole.folds, pieces.folds, strict=True):
        np.testing.assert_allclose(a.counts, b.counts, rtol=1e-12)
    assert sum(int(fold.rows.sum()) for fold in whole.folds) == 800


def test_eight_shards_are_one_pass(tmp_path: Path) -> None:
    scores = scored(n=4000)
    rows = np.array_split(np.arange(4000), 8)
    for i, some in enumerate(rows):
        shard = FoldedHistograms.empty(scores.lambdas, PRIOR, bins=Bins(6), model="m")
        shard.update(scores.take(some), some)
        shard.save(tmp_path / f"{i}.npz")
    total, one = load_shards(sorted(tmp_path.iterdir())), counted(scores, bins=Bins(6))
    packed = pickle.loads(pickle.dumps(one))
    for a, b, c in zip(total.folds, one.folds, packed.folds, strict=True):
        np.testing.assert_array_equal(a.counts, b.counts)
        np.testing.assert_array_equal(c.counts, b.counts)
        np.testing.assert_array_equal(a.rows, b.rows)
    need = {"maximize": "precision", "subject_to": ["recall>=0.7"]}
    assert HistogramGrid(total).select(**need) == HistogramGrid(one).select(**need)


def test_shards_that_differ_are_told_all_at_once(tmp_path: Path) -> None:
    counted(scored()).save(tmp_path / "a.npz")
    counted(scored(), bins=Bins(6)).save(tmp_path / "b.npz")
    counted(scored(lambdas=2)).save(tmp_path / "c.npz")
    counted(scored(), folds=3).save(tmp_path / "d.npz")
    (tmp_path / "e.npz").write_bytes(b"PK and no more")
    counted(scored(weighted=True)).save(tmp_path / "f.npz")
    other = dataclasses.replace(scored(), model="n", prior=0.2)
    counted(other).save(tmp_path / "g.npz")
    told = "\n".join(problems_of(lambda: load_shards(sorted(tmp_path.iterdir()))))
    for words in ("b.npz", "same bins", "c.npz", "same lambdas", "d.npz", "as many folds", "e.npz holds no score",
                  "f.npz: shard 2: samples here are without weights, and got some with weights",
                  "g.npz: shard 2: histograms add up for one prior only: 0.1, and got 0.2",
                  "g.npz: shard 2: histograms add up for one model only: 'm', and got 'n'"):  # fmt: skip
        assert words in told


def test_a_shard_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    scores = scored()
    counted(scores).save(tmp_path / "a.npz")
    counted(scores).save(tmp_path / "b.npz")  # the same rows, counted again
    counted(scored(seed=1)).save(tmp_path / "c.npz")
    paths = [tmp_path / name for name in ("a.npz", "c.npz", "b.npz", "a.npz")]
    told = problems_of(lambda: load_shards(paths))
    assert [problem.partition(":")[0] for problem in told] == [
        f"{path} holds the same counts as {tmp_path / 'a.npz'}" for path in paths[2:]
    ]
    assert load_shards(paths[:2]).total.rows.sum() == 6000


@pytest.mark.parametrize("weighted", [False, True])
def test_shards_may_be_empty_or_of_one_class(tmp_path: Path, weighted: bool) -> None:
    """On some machines there are no rows, or no rare ones; only all together must have both classes."""
    scores = scored(weighted=weighted)
    negative, positive = (np.flatnonzero(scores.target == c) for c in (0, 1))
    shards = {"a": negative[:0], "b": negative, "c": positive, "d": negative[:0]}
    for name, rows in shards.items():
        shard = FoldedHistograms.empty(scores.lambdas, PRIOR, bins=Bins(8), model="m", weighted=weighted)
        if len(rows):
            shard.update(scores.take(rows), rows)
        shard.save(tmp_path / f"{name}.npz")
    total, one = load_shards(sorted(tmp_path.iterdir())), counted(scores)
    np.testing.assert_allclose(total.total.counts, one.total.counts, rtol=1e-12)
    need = {"maximize": "precision", "subject_to": ["recall>=0.7"]}
    together, whole = HistogramGrid(total).select(**need), HistogramGrid(one).select(**need)
    assert (together.lam, together.log_odds_threshold) == (whole.lam, whole.log_odds_threshold)
    for some in ("a", "b"):
        with pytest.raises(InputError, match="got none of class 1"):
            HistogramGrid(load_shards([tmp_path / f"{some}.npz"]))


def test_folds_are_of_one_size_and_random() -> None:
    n = 100_000
    histograms = FoldedHistograms.empty({"tau": np.zeros(1)}, PRIOR, bins=Bins(4))
    target = (np.arange(n) % 10 == 0).astype(np.int8)  # in step with ten folds, were these dealt out in turn
    histograms.update(Scores(np.zeros((1, n), np.float32), target, {"tau": np.zeros(1)}, PRIOR), np.arange(n))
    rows = np.array([fold.rows for fold in histograms.folds])
    expected = np.array([0.9, 0.1]) * n / 10
    assert (np.abs(rows - expected) < 5 * np.sqrt(expected)).all()


def test_what_is_expected_of_lucky_choices_is_honest() -> None:
    """On scores that say nothing, the best of many lambdas looks good on the samples, and on average not on folds."""
    n, points = 400, []
    target = (np.arange(n) % 10 == 0).astype(np.int8)
    for seed in range(12):
        noise = np.random.default_rng(seed).normal(size=(20, n)).astype(np.float32)
        scores = Scores(noise, target, {"tau": np.arange(20.0)}, PRIOR, model="m")
        points.append(HistogramGrid(counted(scores, bins=Bins(4))).select(maximize="auc", simplest=False))
    assert np.mean([point.metrics["auc"].value for point in points]) > 0.57
    honest = np.array([point.honest["auc"].value for point in points])
    assert abs(honest.mean() - 0.5) < 3 * honest.std() / np.sqrt(len(honest))
    helped = [point.against_default for point in points if point.against_default is not None]
    assert len(helped) == 12
    assert sum(each.p_value < 0.05 for each in helped) <= 3


def test_cross_fitting_is_that_of_refitting_by_hand() -> None:
    scores, bins = scored(n=500, lambdas=4), Bins(5)
    folded = counted(scores, bins=bins, folds=4)
    point = HistogramGrid(folded).select(maximize="f1", simplest=False)
    tp = fp = fn = 0.0
    for k, fold in enumerate(folded.folds):
        others = folded.folds[:k] + folded.folds[k + 1 :]
        best: tuple[float, float, int, float] | None = None
        total = sum(other.counts for other in others)
        for i in range(4):
            above = total[i][:, ::-1].cumsum(axis=1)[:, ::-1]
            f1 = 2 * above[1] / (above.sum(axis=0) + total[i][1].sum())
            b = int(np.flatnonzero(f1 == f1.max()).min())  # of equals the laxest, at which positives begin
            b = int(np.flatnonzero(total[i][1][b:]).min()) + b
            recall = above[1][b] / total[i][1].sum()
            if best is None or (f1[b], recall) > best[:2]:
                best = f1[b], recall, i, b
        assert best is not None
        (n0, n1), b = fold.counts[best[2]], int(best[3])
        tp, fn, fp = tp + n1[b:].sum(), fn + n1[:b].sum(), fp + n0[b:].sum()
    assert point.honest["f1"].value == pytest.approx(2 * tp / (2 * tp + fp + fn), rel=1e-9)


def test_needs_that_nothing_meets_say_what_is_attainable() -> None:
    scores = scored()
    need = {"maximize": "recall", "subject_to": ["precision>=0.99", "recall>=0.9"]}
    with pytest.raises(Infeasible) as mine:
        HistogramGrid(counted(scores)).select(**need)
    with pytest.raises(Infeasible) as exact:
        OperatingGrid(at_edges(scores, Bins(8))).select(**need)
    told = [[line.split(", at ")[0] for line in caught.value.problems] for caught in (mine, exact)]
    assert told[0] == told[1]


def test_what_needs_rows_is_refused() -> None:
    need = Need.of(cost={"fn": "amount", "fp": 1}, subject_to=["recall>=0.9 in every sex"])
    told = "\n".join(problems_of_rows(need, bootstrap=100))
    for words in ("'amount'", "'sex'", "a bootstrap draws rows"):
        assert words in told
    with pytest.raises(InputError, match="'amount'"):
        HistogramGrid(counted(scored())).select(cost={"fn": "amount", "fp": 1})
    assert problems_of_rows(Need.of(maximize="f1")) == []


def test_bad_histograms_are_refused() -> None:
    scores = scored()
    with pytest.raises(InputError, match="test split"):
        HistogramGrid(FoldedHistograms(tuple(fold for fold in _of_split(scores, "test").folds)))
    one_class = Scores(scores.log_odds[:, :5], np.zeros(5, np.int8), scores.lambdas, PRIOR, model="m")
    with pytest.raises(InputError, match="none of class 1"):
        HistogramGrid(counted(one_class))
    with pytest.raises(InputError, match="folds must be a whole number from 2"):
        FoldedHistograms.empty(scores.lambdas, PRIOR, folds=1)
    with pytest.raises(InputError, match="as many positions"):
        counted(scores).update(scores, np.arange(3))


def _of_split(scores: Scores, split: str) -> FoldedHistograms:
    empty = FoldedHistograms.empty(scores.lambdas, scores.prior, bins=Bins(4), split=split)
    empty.update(Scores(**{**vars(scores), "split": split, "model": ""}), np.arange(len(scores.target)))
    return empty


def test_bins_are_as_fine_as_memory_allows() -> None:
    def bits(lambdas: int, memory: int) -> int:
        grid = {"tau": np.zeros(lambdas)}
        return FoldedHistograms.empty(grid, PRIOR, memory_mb=memory).folds[0].bins.bits

    assert bits(20, 1024) == 12
    assert bits(81, 1024) == 10
    with pytest.raises(InputError, match=r"take .* MiB, and 64 MiB are allowed"):
        bits(81, 64)


# --------------------------------------------------------------------------------------------------- workflow

NEED: dict[str, Any] = {"maximize": "precision", "subject_to": ["recall>=0.7"]}
FEW = {"grid": 2, "memory_mb": 64}


@pytest.fixture(scope="module")
def fresh(frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of rows that nobody has seen."""
    folder = tmp_path_factory.mktemp("fresh") / "t"
    folder.mkdir()
    moved = frame.assign(TSH=frame["TSH"] * 1.37 + 0.011, age=frame["age"] + 0.3)
    for i, rows in enumerate(np.array_split(np.arange(len(moved)), 3)):
        moved.iloc[rows].to_parquet(folder / f"{i}.parquet", index=False, row_group_size=300)
    return folder


def test_streaming_chooses_as_looking_at_all_rows_does(run: Run, fresh: Path) -> None:
    streamed = tune(run, fresh, stream=True, **FEW, **NEED)
    whole = tune(run, fresh, stream=False, grid=2, **NEED)
    assert (streamed.n, streamed.n_positive, streamed.split) == (whole.n, whole.n_positive, whole.split)
    assert streamed.model == run.id
    assert streamed.off_by
    assert not whole.off_by
    assert streamed.metrics["precision"].value == pytest.approx(whole.metrics["precision"].value, abs=0.05)
    assert evaluation(run, fresh, at=streamed).estimates["recall"].value == pytest.approx(
        streamed.metrics["recall"].value, abs=1e-9
    )


def test_rows_that_the_run_has_seen_are_left_out_alike(run: Run, frame: pd.DataFrame, tmp_path: Path) -> None:
    shuffled = frame.sample(frac=1, random_state=0)
    shuffled.to_csv(tmp_path / "t.csv", index=False)
    points, told = [], []
    for stream in (True, False):
        with pytest.warns(DoubtfulInputWarning, match="left out") as caught:
            points.append(tune(run, tmp_path / "t.csv", stream=stream, **FEW, **NEED))
        told.append([str(warning.message) for warning in caught])
    assert told[0] == told[1]
    assert points[0].n == points[1].n
    frame.iloc[run.rows["train"]].to_parquet(tmp_path / "seen.parquet", index=False)
    with pytest.raises(InputError, match="none is of class 0, 1: give rows"):
        tune(run, tmp_path / "seen.parquet", stream=True, **FEW, **NEED)


def test_weights_stream_too(frame: pd.DataFrame, run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weighted = frame.assign(w=rng.integers(0, 3, len(frame)).astype(float))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = fit(weighted, target=TARGET, positive=POSITIVE, weight="w", config=run.config)
    moved = weighted.assign(TSH=weighted["TSH"] * 1.37 + 0.011, age=weighted["age"] + 0.3)
    moved.to_parquet(tmp_path / "t.parquet", index=False)
    streamed, whole = (tune(fitted, tmp_path / "t.parquet", stream=way, **FEW, **NEED) for way in (True, False))
    assert streamed.metrics["recall"].value == pytest.approx(whole.metrics["recall"].value, abs=0.05)
    assert streamed.prior == pytest.approx(whole.prior)


def test_shards_counted_apart_are_chosen_on_together(run: Run, fresh: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for i, path in enumerate(sorted(fresh.iterdir())):
        count(run, path, out=shards / f"{i}.npz", **FEW)
    together, streamed = tune(run, shards, **NEED), tune(run, fresh, stream=True, **FEW, **NEED)
    assert (together.lam, together.log_odds_threshold) == (streamed.lam, streamed.log_odds_threshold)
    for name in ("recall", "precision", "auc", "brier"):
        assert together.metrics[name].value == pytest.approx(streamed.metrics[name].value, rel=1e-9)
    assert tune(run, shards / "0.npz", **NEED).n == len(pd.read_parquet(sorted(fresh.iterdir())[0]))
    with pytest.raises(InputError, match=r"exists; say --force"):
        count(run, fresh, out=shards / "0.npz", **FEW)
    with pytest.raises(InputError, match=r"ends in \.npz"):
        count(run, fresh, out=shards / "0.csv", **FEW)


def test_a_table_that_is_not_there_is_told_with_the_rest(run: Run, tmp_path: Path) -> None:
    absent, out = tmp_path / "absent.csv", tmp_path / "no folder" / "0.npz"
    with pytest.raises(InputError) as told:
        count(run, absent, out=out)
    assert [str(absent) in problem for problem in told.value.problems] == [False, True]
    with pytest.raises(InputError) as told:
        tune(run, absent, stream=True, maximize="precison")
    assert [str(absent) in problem for problem in told.value.problems] == [False, True]


def test_shards_of_one_class_are_counted_and_those_of_another_model_refused(
    run: Run, fresh: Path, tmp_path: Path
) -> None:
    rows = pd.concat([pd.read_parquet(path) for path in sorted(fresh.iterdir())], ignore_index=True)
    (tmp_path / "shards").mkdir()
    for name, of_class in rows.groupby(rows[TARGET] == POSITIVE):
        of_class.to_parquet(tmp_path / f"{name}.parquet", index=False)
        count(run, tmp_path / f"{name}.parquet", out=tmp_path / "shards" / f"{name}.npz", **FEW)
    together = tune(run, tmp_path / "shards", **NEED)
    assert (together.n, together.n_positive) == (len(rows), (rows[TARGET] == POSITIVE).sum())
    with pytest.raises(InputError, match="got none of class 1"):
        tune(run, tmp_path / "shards" / "False.npz", **NEED)
    _of_split(scored(), "given").save(tmp_path / "other.npz")
    with pytest.raises(InputError, match="the histograms belong to model"):
        tune(run, tmp_path / "other.npz", **NEED)


def test_large_tables_stream_by_themselves(run: Run, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "size_in_memory", lambda path: 2**30)
    assert tune(run, fresh, grid=2, memory_mb=64, **NEED).off_by
    monkeypatch.setattr(workflow, "size_in_memory", lambda path: 2**20)
    assert not tune(run, fresh, grid=2, memory_mb=64, **NEED).off_by


def test_everything_wrong_with_streaming_is_told_at_once(
    run: Run, frame: pd.DataFrame, fresh: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="got a data frame"):
        tune(run, frame, stream=True, **NEED)
    with pytest.raises(InputError, match="'amount'"):
        tune(run, fresh, stream=True, cost={"fn": "amount", "fp": 1}, **FEW)
    spoiled = pd.read_parquet(fresh / "0.parquet").astype({"age": str})
    spoiled.loc[5, [TARGET, "age"]] = None, "old"
    spoiled.to_parquet(tmp_path / "0.parquet", index=False)
    told = "\n".join(
        problems_of(lambda: tune(run, tmp_path, stream=True, out=tmp_path.parent / "p.json", **FEW, **NEED))
    )
    assert f"first in row 6 of {tmp_path / '0.parquet'}: 'old'" in told
    assert f"missing values, got 1, in row 6 of {tmp_path / '0.parquet'}" in told
    assert not (tmp_path.parent / "p.json").exists()


def test_the_pieces_do_not_change_what_is_counted(
    run: Run, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = count(run, fresh, out=tmp_path / "a.npz", **FEW)
    original = tables.stream_table
    monkeypatch.setattr(reading, "FRAGMENT_ROWS", 400)
    monkeypatch.setattr(tables, "stream_table", lambda *a, **k: original(*a, **{**k, "batch_rows": 97}))
    pieces = count(run, fresh, out=tmp_path / "b.npz", **FEW)
    for a, b in zip(whole.folds, pieces.folds, strict=True):
        np.testing.assert_array_equal(a.rows, b.rows)
        # Scores of other batches may differ in their last bit, and lie across an edge.
        assert np.abs(np.cumsum(a.counts - b.counts, axis=2)).max() <= 2


def test_rows_are_scored_on_one_thread_as_rays_processes_do(
    run: Run, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two, a matrix product may differ in its last bit, and a score lie across an edge."""
    before, original, threads = torch.get_num_threads(), Run.score, []

    def score(*arguments: Any, **options: Any) -> Scores:
        threads.append(torch.get_num_threads())
        return original(*arguments, **options)

    monkeypatch.setattr(Run, "score", score)
    torch.set_num_threads(2)
    try:
        point = tune(run, fresh, stream=True, **FEW, **NEED)
        predict(run, fresh, at=point, out=tmp_path / "alerts.parquet")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert len(threads) >= 6
    assert set(threads) == {1}


@pytest.mark.usefixtures("on_ray")
def test_ray_counts_the_same(run: Run, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "FRAGMENT_ROWS", 400)
    here = count(run, fresh, out=tmp_path / "a.npz", **FEW)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        there = count(run, fresh, out=tmp_path / "b.npz", engine="ray", **FEW)
        point = tune(run, fresh, engine="ray", **FEW, **NEED)
    for a, b in zip(here.folds, there.folds, strict=True):
        np.testing.assert_array_equal(a.counts, b.counts)
    assert point == tune(run, fresh, stream=True, **FEW, **NEED)


def test_log_odds_at_an_edge_are_alerted_on_at_any_prior() -> None:
    """The threshold is the edge moved by the prior, and so are the scores: rounding must not part them."""
    scores = at_edges(scored(), Bins(8))
    for prior in (0.001, 0.037, 0.5):
        point = HistogramGrid(counted(scores), prior).select(maximize="recall", subject_to="fpr<=0.2", simplest=False)
        i = list(scores.lambdas["tau"]).index(point.lam["tau"])
        edge = point.log_odds_threshold - (logit(prior) - logit(PRIOR))
        nearest = Bins(8).edges[np.argmin(np.abs(Bins(8).edges - edge))]
        np.testing.assert_array_equal(point.decide(scores.log_odds[i], PRIOR), scores.log_odds[i] >= nearest)


def test_the_command_line_counts_chooses_and_predicts_on_folders(run: Run, fresh: Path, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    usual = ("--grid", "2", "--memory", "64")
    for i in range(2):
        code, out, _ = tunelater(
            "count", run.path, fresh / f"{i}.parquet", "--out", tmp_path / "shards" / f"{i}.npz", *usual
        )
        assert code == 0
        assert "rows, " in out
    point = tmp_path / "point.json"
    need = ("--maximize", "precision", "--subject-to", "recall>=0.7")
    code, out, _ = tunelater("tune", run.path, tmp_path / "shards", *need, "--out", point)
    assert (code, "counted in bins" in out) == (0, True)
    code, out, _ = tunelater("tune", run.path, fresh, *need, "--stream", *usual)
    assert (code, "counted in bins" in out) == (0, True)
    assert tunelater("predict", run.path, fresh, "--at", point, "--out", tmp_path / "alerts")[0] == 0
    assert len(pd.read_parquet(sorted((tmp_path / "alerts").glob("*.parquet")))) == 3163
    code, _, err = tunelater("tune", run.path, fresh, *need, "--stream", "--bootstrap", "100")
    assert (code, "a bootstrap draws rows" in err) == (2, True)
