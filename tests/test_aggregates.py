"""Counts for a page: what they keep of the samples, what cannot be read from them, and that page and Python agree."""

import base64
import dataclasses
import itertools
import json
import math
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit

from page_reference import chosen, point_at, reaches, samples_of
from tunelater.aggregates import (
    BITS,
    FEWEST,
    MOST_BINS,
    OTHERS,
    PARTS,
    BinnedGrid,
    JoinedValues,
    joined_values,
    packed,
    shared_weights,
)
from tunelater.assessment import confusion_shares, decision_curve
from tunelater.calibration import reliability
from tunelater.histograms import Bins, ScoreHistograms
from tunelater.losses import logit
from tunelater.metrics import confusion, evaluate, prior_weight, threshold_metric
from tunelater.needs import Cost, Need
from tunelater.problems import InputError
from tunelater.scoring import Scores
from tunelater.tuning import Infeasible, OperatingGrid

DRIVER = find_spec("playwright")
"""Which brings a node of its own."""
OWN = Path(DRIVER.origin).parent / "driver" / "node" if DRIVER is not None and DRIVER.origin is not None else None
NODE = shutil.which("node") or (OWN if OWN is not None and OWN.is_file() else None)
needs_node = pytest.mark.skipif(NODE is None, reason="the page's code runs in node, which is not installed")
METRICS = ("recall", "precision", "specificity", "fpr", "npv", "accuracy", "balanced_accuracy", "gmean", "mcc",
           "alert_rate", "f1", "f2", "net_benefit@0.1")  # fmt: skip


def made(seed: int, *, n: int = 800, positives: int = 60, side: int = 4, weighted: bool = False) -> Scores:
    """Scores of a made-up model on a grid of side x side lambdas, with a column of three sites."""
    rng = np.random.default_rng(seed)
    target = (np.arange(n) < positives).astype(np.int8)
    a, b = (axis.ravel() for axis in np.meshgrid(np.linspace(0, 0.3, side), np.linspace(0, 3, side), indexing="ij"))
    signal, noise = rng.normal(2.2 * target, 1), rng.normal(size=(side * side, n))
    log_odds = (signal + (0.2 + a[:, None]) * noise - 4 + b[:, None] / 3).astype(np.float32)
    return Scores(
        log_odds,
        target,
        {"gamma": a, "tau": b},
        prior=0.05,
        weight=rng.gamma(2, 1, n) if weighted else None,
        model="made-up",
        columns={"site": rng.choice(["A", "B", "C"], n, p=[0.5, 0.3, 0.2])},
    )


def binned(scores: Scores, smallest: int = 5) -> BinnedGrid:
    columns = {name: JoinedValues(values, 0) for name, values in scores.columns.items()}
    return BinnedGrid.of_scores(scores, smallest=smallest, columns=columns)


def counts_of(grid: BinnedGrid) -> dict[str, Any]:
    """The file without metrics of whole lambdas."""
    return dataclasses.replace(grid, whole=None).to_dict()


def bin_of_each(grid: BinnedGrid, index: int, row: Any) -> Any:
    """(N,) the bin of each score, by number, from high to low."""
    edges = grid.of_lambdas[index].edges[::-1]
    return len(edges) - np.searchsorted(edges, grid.bins.place(row), "right")


def in_page(**asked: Any) -> Any:
    assert NODE is not None
    script = Path(__file__).parent / "page_solver.mjs"
    done = subprocess.run([NODE, script], input=json.dumps(asked), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def told(need: Need) -> dict[str, Any]:
    """A need as the page has it."""
    return {
        "objective": need.objective.name,
        "cost": None if need.cost is None else dataclasses.asdict(need.cost),
        "constraints": [
            {"metric": c.metric.name, "relation": c.relation, "bound": c.bound, "every": c.every}
            for c in need.constraints
        ],
        "prior": need.prior,
    }


def any_need(rng: np.random.Generator) -> Need:
    """A need with any objective, up to three constraints, and a prior or none."""
    said: dict[str, Any] = {"prior": float(rng.uniform(0.001, 0.6)) if rng.random() < 0.5 else None}
    if rng.random() < 0.25:
        said["cost"] = {"fn": float(rng.integers(2, 100)), "fp": 1.0, "tp": float(rng.integers(0, 2))}
    else:
        name = str(rng.choice(METRICS))
        said["maximize" if threshold_metric(name).higher_is_better else "minimize"] = name
    bounds = {
        "recall>=": (0.5, 1), "precision>=": (0.1, 0.8), "fpr<=": (0, 0.2), "alert_rate<=": (0.01, 0.3),
        "alert_rate>=": (0.02, 0.2), "specificity>=": (0.7, 1), "recall<=": (0.5, 1), "mcc>=": (0.1, 0.7),
        "specificity<=": (0.8, 1), "fpr>=": (0, 0.1), "npv>=": (0.9, 1),
    }  # fmt: skip
    every = rng.random() < 0.3
    constraints = []
    for name in rng.choice(list(bounds), int(rng.integers(0, 4)), replace=False):
        bound = rng.uniform(*bounds[str(name)])
        constraints.append(f"{name}{bound!r}" + (" in every site" if every and rng.random() < 0.6 else ""))
    return Need.of(subject_to=constraints, **said)


# ------------------------------------------------------------------------------------------- what is kept


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), smallest=st.integers(FEWEST, 20), weighted=st.booleans())
def test_counts_are_those_of_the_samples_at_every_threshold(seed: int, smallest: int, weighted: bool) -> None:
    scores = made(seed, n=300, positives=20, side=2, weighted=weighted)
    grid = binned(scores, smallest)
    positive = scores.target == 1
    weight = np.ones(300) if scores.weight is None else shared_weights(scores.target, scores.weight, smallest)
    for i, (row, one) in enumerate(zip(scores.log_odds, grid.of_lambdas, strict=True)):
        assert len(one) <= MOST_BINS
        assert one.edges[-1] == 0
        for rows, counts in ((positive, one.positives), (~positive, one.negatives)):
            assert counts.sum() == (PARTS if weighted else 1) * rows.sum()
            for k, edge in enumerate(grid.bins.edges[one.edges]):
                share = weight[rows & (row >= edge)].sum() / weight[rows].sum()
                assert (
                    abs(counts[: k + 1].sum() - share * counts.sum()) <= 1e-9 + (0.5 + 1e-4 * counts.sum()) * weighted
                )
        assert np.bincount(bin_of_each(grid, i, row)).min() >= smallest
    totals = [weight[rows].sum() for rows in (~positive, positive)]
    told = [u * int(of.sum()) for u, of in zip(grid.units, (one.negatives, one.positives), strict=True)]
    assert told[1] / told[0] == pytest.approx(totals[1] / totals[0], rel=1e-3 if weighted else 1e-12)


def test_of_each_subgroup_several_cases_lie_between_two_thresholds_or_none() -> None:
    for seed in range(3):
        scores = made(seed)
        grid = binned(scores)
        (subgroups,) = grid.subgroups
        for i, (row, one) in enumerate(zip(scores.log_odds, grid.of_lambdas, strict=True)):
            ends = subgroups.ends[i]
            assert ends[-1] == len(one) - 1
            place = np.searchsorted(ends, bin_of_each(grid, i, row))
            for g, value in enumerate(subgroups.values):
                mine = scores.columns["site"] == value
                found = [np.bincount(place[mine & (scores.target == y)], minlength=len(ends)) for y in (0, 1)]
                np.testing.assert_array_equal(subgroups.counts[i][:, :, g].T, found)
                assert all(n == 0 or n >= 5 for n in np.sum(found, axis=0))


def test_within_a_bin_nobody_can_tell_which_case_is_positive() -> None:
    """Classes that change places between two thresholds leave the same file, but for four digits of its metrics of
    whole lambdas."""
    scores = made(5, n=400, side=1)  # so few that each bin has its share of them
    scores = dataclasses.replace(scores, columns={})
    grid = binned(scores)
    place = bin_of_each(grid, 0, scores.log_odds[0])
    assert len(grid.of_lambdas[0]) <= len(place) / 5
    target, rng = scores.target.copy(), np.random.default_rng(0)
    for k in range(len(grid.of_lambdas[0])):
        rows = np.flatnonzero(place == k)
        target[rows] = rng.permutation(target[rows])
    assert (target != scores.target).sum() > 20
    assert counts_of(binned(dataclasses.replace(scores, target=target))) == counts_of(grid)


def test_of_the_scores_in_a_bin_the_file_has_the_ends_and_the_mean() -> None:
    """Others may lie anywhere between, and digits finer than the grid are not told: but for four digits of metrics of
    whole lambdas."""
    scores = made(5, side=1)
    scores = dataclasses.replace(scores, columns={})
    grid, rng = binned(scores), np.random.default_rng(0)
    fine = grid.bins.place(scores.log_odds[0]).astype(int)
    place, moved = bin_of_each(grid, 0, scores.log_odds[0]), fine.copy()
    for k in range(len(grid.of_lambdas[0])):
        rows = np.flatnonzero(place == k)[np.argsort(fine[place == k])]
        lowest, highest = fine[rows[0]], fine[rows[-1]]
        # Two inner cases, as far up and down as there is room.
        a, b = rows[1], rows[-2]
        room = min(highest - fine[b], fine[a] - lowest - 1)
        if room > 0:
            moved[[a, b]] += [-room, room]
    assert (moved != fine).sum() > 40
    row = (grid.bins.edges[moved] + rng.random(len(moved)) * 0.999 / 2**BITS).astype(np.float32)[None]
    order = rng.permutation(len(fine))
    assert counts_of(binned(dataclasses.replace(scores, log_odds=row).take(order))) == counts_of(grid)


def test_a_threshold_is_halfway_down_to_the_next_score() -> None:
    """So that it is no case's own, but for chance."""
    scores = made(7)
    grid = binned(scores)
    for i, (row, one) in enumerate(zip(scores.log_odds, grid.of_lambdas, strict=True)):
        place = bin_of_each(grid, i, row)
        for k in range(len(one) - 1):
            lowest, next_below = row[place == k].min(), row[place == k + 1].max()
            assert abs(grid.bins.edges[one.edges[k]] - (lowest + next_below) / 2) <= 2**-BITS


# ------------------------------------------------------------------------------------------- weights


@settings(max_examples=100, deadline=None)
@given(
    weight=st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.0, 7.0]) | st.floats(0.01, 1000), min_size=1, max_size=80),
    seed=st.integers(0, 99),
    smallest=st.integers(FEWEST, 12),
)
def test_a_weight_is_that_of_several_cases(weight: list[float], seed: int, smallest: int) -> None:
    before = np.array(weight)
    target = np.random.default_rng(seed).integers(0, 2, len(before))
    after = shared_weights(target, before, smallest)
    np.testing.assert_array_equal(after == 0, before == 0)
    for y in (0, 1):
        was, now = before[(target == y) & (before > 0)], after[(target == y) & (before > 0)]
        assert now.sum() == pytest.approx(was.sum(), rel=1e-12)
        assert (np.diff(now[np.argsort(was)]) >= 0).all()
        for value in np.unique(now):
            of = was[now == value]
            assert value == pytest.approx(of.mean(), rel=1e-12)
            effective = of.sum() ** 2 / (of**2).sum()
            assert effective >= smallest - 1e-6 or len(of) == len(was)


def test_which_case_has_which_weight_is_not_in_the_file() -> None:
    """Weights that change places among cases with similar ones leave the same file, at every lambda and subgroup."""
    scores, rng = made(11, weighted=True), np.random.default_rng(0)
    assert scores.weight is not None
    shared, weight = shared_weights(scores.target, scores.weight), scores.weight.copy()
    for y, value in {*zip(scores.target.tolist(), shared.tolist(), strict=True)}:
        rows = np.flatnonzero((scores.target == y) & (shared == value))
        assert len(rows) >= 5
        weight[rows] = rng.permutation(weight[rows])
    assert (weight != scores.weight).mean() > 0.5
    assert binned(dataclasses.replace(scores, weight=weight)).to_dict() == binned(scores).to_dict()


def test_what_sharing_weights_changes_is_less_than_chance() -> None:
    """Of a recall, half a standard error at the most."""
    away = []
    for seed in range(5):
        scores = made(seed, weighted=True)
        assert scores.weight is not None
        positive = scores.target == 1
        weights = scores.weight, shared_weights(scores.target, scores.weight)
        size = weights[0][positive].sum() ** 2 / (weights[0][positive] ** 2).sum()
        for row in scores.log_odds:
            for cut in np.quantile(row[positive], [0.1, 0.3, 0.5, 0.7]):
                before, after = (w[positive & (row >= cut)].sum() / w[positive].sum() for w in weights)
                away.append(abs(before - after) / math.sqrt(before * (1 - before) / size))
    assert max(away) < 0.5


def test_weighted_counts_of_elsewhere_have_several_cases_of_either_class_between_thresholds() -> None:
    """And sums are told as whole cases of mean weight: nothing is left of a single weight."""
    scores = made(13, n=3000, positives=300, weighted=True)
    assert scores.weight is not None
    grid = BinnedGrid.of(ScoreHistograms.of(scores, Bins(12)))
    assert grid.bins == Bins(BITS)
    for i, (row, one) in enumerate(zip(scores.log_odds, grid.of_lambdas, strict=True)):
        place = bin_of_each(grid, i, row)
        for y, counts in ((0, one.negatives), (1, one.positives)):
            rows = scores.target == y
            assert np.bincount(place[rows], minlength=len(one)).min() >= 5
            assert counts.sum() == rows.sum()
            exact = np.cumsum(np.bincount(place[rows], scores.weight[rows])) / scores.weight[rows].mean()
            np.testing.assert_allclose(np.cumsum(counts), exact, atol=0.51)


# ------------------------------------------------------------------------------------------- choosing


def test_the_choice_is_nearly_that_of_all_thresholds() -> None:
    """With a threshold at every fifth case, little is lost on what choosing among all would reach."""
    for seed in range(5):
        scores = made(seed, n=4000, positives=300)
        exact = OperatingGrid(scores).select(maximize="precision", subject_to="recall>=0.8", simplest=False)
        point = chosen(binned(scores), Need.of(maximize="precision", subject_to="recall>=0.8"), simplest=False)
        i = next(i for i in range(len(scores)) if scores.lam(i) == point.lam)
        alerts = point.decide(scores.log_odds[i], scores.prior)
        positive = scores.target == 1
        assert alerts[positive].mean() >= 0.8
        assert (alerts & positive).sum() / alerts.sum() >= exact.metrics["precision"].value - 0.03


def test_the_threshold_near_to_another() -> None:
    scores = made(6)
    grid = binned(scores)
    for i in (0, 9):
        edges = grid.bins.edges[grid.of_lambdas[i].edges[:-1]]
        for wanted in np.append(edges, np.random.default_rng(i).normal(-3, 3, 50)):
            k = grid.edge_near(i, float(wanted))
            assert abs(edges[k] - wanted) == np.abs(edges - wanted).min()
        assert (grid.edge_near(i, 1e6), grid.edge_near(i, -1e6)) == (-1, len(edges))


def test_rare_values_are_joined_until_they_are_several() -> None:
    column = np.array(["a"] * 500 + ["b"] * 80 + ["c"] * 10 + ["d"] * 5)
    target = np.arange(len(column)) % 2
    joined = joined_values(column, target)
    assert {v: int((joined.values == v).sum()) for v in np.unique(joined.values)} == {"a": 500, f"b or {OTHERS}": 95}
    assert joined.joined == 3
    assert set(joined_values(column[:580], target[:580]).values) == {"a", "b"}
    missing = joined_values(np.array([1.0] * 60 + [2.0] * 60 + [math.nan] * 60), np.arange(180) % 2)
    assert (set(missing.values), missing.joined) == ({"1", "2", OTHERS}, 1)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), values=st.integers(1, 30), rate=st.floats(0.02, 0.98), smallest=st.integers(3, 20))
def test_values_with_few_of_either_class_are_joined(seed: int, values: int, rate: float, smallest: int) -> None:
    rng = np.random.default_rng(seed)
    column = rng.choice(values, 2000, p=rng.dirichlet(np.ones(values))).astype(str)
    target = (rng.random(2000) < rate).astype(int)
    joined = joined_values(column, target, smallest=smallest)
    told = np.unique(joined.values)
    assert len(told) <= 12
    for value in told:
        rows = joined.values == value
        if len(told) > 1:
            assert rows.sum() >= 50
            assert min(target[rows].sum(), (1 - target[rows]).sum()) >= max(3, 0.6 * smallest - 1)
        if value in column:
            np.testing.assert_array_equal(rows, column == value)
    apart = [v for v in np.unique(column) if v in told]
    assert joined.joined == len(np.unique(column)) - len(apart)


@given(st.lists(st.integers(0, 2**35 - 1), max_size=50))
def test_packed_numbers_can_be_read(numbers: list[int]) -> None:
    text, out, value, place = base64.b64decode(packed(np.array(numbers, np.int64))), [], 0, 0
    for byte in text:
        value |= (byte & 127) << place
        place += 7
        if byte < 128:
            out.append(value)
            value, place = 0, 0
    assert out == numbers


def test_what_is_wrong_is_told_at_once() -> None:
    scores = made(0, n=8, positives=0, side=1)
    with pytest.raises(InputError) as told_all:
        BinnedGrid.of(ScoreHistograms.of(scores, Bins(BITS)))
    assert len(told_all.value.problems) == 2
    with pytest.raises(InputError, match="3 positive, got 2"):
        binned(made(0, positives=2))
    for smallest in (0, 1, 2, 2.5, True):
        with pytest.raises(InputError, match="from 3 up"):
            binned(made(0), smallest)


# ------------------------------------------------------------------------------------------- in the page


@needs_node
@pytest.mark.parametrize("weighted", [False, True])
def test_the_page_chooses_what_python_does(weighted: bool) -> None:
    rng = np.random.default_rng(weighted)
    feasible = infeasible = 0
    for seed in range(3):
        grid = binned(made(seed, side=3, weighted=weighted))
        needs = [(any_need(rng), bool(rng.integers(2))) for _ in range(100)]
        answers = in_page(grid=grid.to_dict(), needs=[{"need": told(n), "simplest": s} for n, s in needs])
        for (need, simplest), answer in zip(needs, answers["solved"], strict=True):
            try:
                point = chosen(grid, need, simplest=simplest)
            except Infeasible:
                infeasible += 1
                assert not answer["feasible"], need.in_words
                assert answer["reaches"] == reaches(grid, need), need.in_words
                continue
            feasible += 1
            assert answer["feasible"], need.in_words
            there = point_at(grid, answer["lambda"], answer["bin"], need)
            assert there == dataclasses.replace(point, simpler_than=None), need.in_words
            best = point.lam if point.simpler_than is None else point.simpler_than
            assert {k: float(v[answer["best"]]) for k, v in grid.lambdas.items()} == best
    assert feasible > 150
    assert infeasible > 30


@needs_node
def test_the_page_reads_what_python_counted() -> None:
    for scores in (
        made(1),
        made(2, weighted=True),
        Scores(made(3).log_odds * 40, made(3).target, made(3).lambdas, 0.05),
    ):
        grid = binned(scores)
        answers = in_page(grid=grid.to_dict(), needs=[])
        for one, curve in zip(grid.of_lambdas, answers["curves"], strict=True):
            edges = [float(v.replace("Infinity", "inf")) for v in curve["edge"]]
            np.testing.assert_array_equal(edges[:-1], grid.bins.edges[one.edges[:-1]])
            assert edges[-1] == -math.inf
            np.testing.assert_array_equal(np.float32(curve["middle"]), grid.bins.centres[one.middles])
            np.testing.assert_array_equal(curve["tp"], np.cumsum(one.positives) * grid.units[1])
            np.testing.assert_array_equal(curve["fp"], np.cumsum(one.negatives) * grid.units[0])
        for of, cuts in zip(grid.subgroups, answers["subgroups"], strict=True):
            for i, cut in enumerate(cuts):
                np.testing.assert_array_equal(cut["ends"], of.ends[i])
                for name, y in (("tp", 1), ("fp", 0)):
                    np.testing.assert_array_equal(cut[name], np.cumsum(of.counts[i][:, y].sum(axis=1)) * grid.units[y])
                for g, curve in enumerate(cut["curves"]):
                    np.testing.assert_array_equal(curve["tp"], np.cumsum(of.counts[i][:, 1, g]) * grid.units[1])
                    np.testing.assert_array_equal(curve["fp"], np.cumsum(of.counts[i][:, 0, g]) * grid.units[0])


@needs_node
def test_intervals_of_the_page_are_those_of_many_draws() -> None:
    """Against 400,000 draws from the posteriors that `assess` draws 4,000 from."""
    rng, cases = np.random.default_rng(0), []
    for p, n in ((30, 600), (200, 9000), (5, 40), (4000, 400_000)):
        for recall, fpr in ((0.9, 0.05), (1.0, 0.3), (0.0, 0.0), (0.5, 0.001)):
            cells = {"tp": round(recall * p), "fp": round(fpr * n), "positives": p, "negatives": n}
            cases += [{"cells": cells, "sizes": [n, p, n + p], "prior": prior} for prior in (None, 0.01)]
    names = ["recall", "precision", "specificity", "alert_rate", "f1", "cost"]
    answers = in_page(cells=[case | {"names": names} for case in cases])
    metrics = {name: threshold_metric(name) for name in names[:-1]} | {"cost": Cost(fn=50, fp=1).metric()}
    for case, found, share in zip(cases, answers["intervals"], answers["shares"], strict=True):
        tp, fp, p, n = (case["cells"][name] for name in ("tp", "fp", "positives", "negatives"))
        r, f, pi = (rng.beta(yes + 0.5, no + 0.5, 400_000) for yes, no in ((tp, p - tp), (fp, n - fp), (p, n)))
        pi = pi if case["prior"] is None else np.full(len(pi), case["prior"])
        draws = confusion_shares(np.stack([r * pi, (1 - r) * pi, f * (1 - pi), (1 - f) * (1 - pi)]), None)
        observed = confusion_shares(np.array([[tp], [p - tp], [fp], [n - fp]], float), case["prior"])
        for name, m in metrics.items():
            value, low, high = found[name]
            assert value == pytest.approx(float(m.values(observed)[0]), rel=1e-12, abs=1e-15), (case, name)
            expected = np.percentile(m.values(draws), [2.5, 97.5])
            width = max(expected[1], value) - min(expected[0], value)
            np.testing.assert_allclose([low, high], [min(expected[0], value), max(expected[1], value)],
                                       atol=0.03 * width, err_msg=f"{case} {name}")  # fmt: skip
        exact = stats.beta.ppf([0.025, 0.975], tp + 0.5, p - tp + 0.5)
        np.testing.assert_allclose(share[1:], [0 if tp == 0 else exact[0], 1 if tp == p else exact[1]], atol=5e-4)


@needs_node
def test_no_frame_of_the_page_is_late_and_no_part_of_it_waits_for_ever() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 12):
        costs, rounds = rng.integers(1, 30, n).tolist(), rng.integers(1, 4, n).tolist()
        for later in (False, True):
            told = in_page(frames={"costs": costs, "rounds": rounds, "moves": 40, "later": later})["frames"]
            assert told.pop() == "settled"
            frames = [frame for frame in told if frame != "settled"]
            assert bool(frames[0]) != later, "where a move takes long, its own frame is left to it"
            for frame in frames:
                assert sum(costs[i] for i in frame[:-1]) < 8, "a part is begun in a frame that is late already"
            # A move in each frame, which makes all of it vain: in turn every part is worked on nevertheless.
            for start in range(40 - n - later):
                assert set().union(*frames[start : start + n + later]) == set(range(n))
            after = [i for frame in frames[39:] for i in frame]
            assert [after.count(i) for i in range(n)] == rounds


@needs_node
def test_what_is_attainable() -> None:
    grid = binned(made(2))
    need = Need.of(maximize="recall", subject_to=["precision>=0.999", "recall>=0.9"])
    with pytest.raises(Infeasible):
        chosen(grid, need)
    (answer,) = in_page(grid=grid.to_dict(), needs=[{"need": told(need), "simplest": True}])["solved"]
    curves = [np.cumsum(np.stack([one.positives, one.negatives]), axis=1) for one in grid.of_lambdas]
    precision = [tp / (tp + fp) for tp, fp in curves]
    recall = [tp / tp[-1] for tp, _ in curves]
    assert answer["reaches"][0]["alone"] == pytest.approx(max(p.max() for p in precision))
    together = max(p[r >= 0.9].max() for p, r in zip(precision, recall, strict=True))
    assert answer["reaches"][0]["together"] == pytest.approx(together)
    assert answer["reaches"][1]["alone"] == 1


def test_a_point_decides_as_its_bins_say() -> None:
    scores = made(4)
    grid = binned(scores)
    need = Need.of(maximize="f1", prior=0.2)
    for i in (0, 7):
        alerts = np.cumsum(grid.of_lambdas[i].positives + grid.of_lambdas[i].negatives)
        for k in range(-1, len(alerts)):
            point = point_at(grid, i, k, need)
            assert point.prior == 0.2
            assert point.decide(scores.log_odds[i], scores.prior).sum() == (alerts[k] if k >= 0 else 0)


# ------------------------------------------------------------------------------------------- pictures


@needs_node
@pytest.mark.parametrize("prior", [None, 0.02])
@pytest.mark.parametrize("weighted", [False, True])
def test_numbers_of_the_pictures_are_pythons(weighted: bool, prior: float | None) -> None:
    """Those of the counts to rounding; without weights also those of the scores, where counts are exact."""
    scores = made(21, side=2, weighted=weighted)
    grid = binned(scores)
    steps, span = 40, [-14.0, 8.0]
    asked, edges = [], [grid.bins.edges[one.edges] for one in grid.of_lambdas]
    negatives, positives = (
        grid.units[0] * grid.of_lambdas[0].negatives.sum(),
        grid.units[1] * grid.of_lambdas[0].positives.sum(),
    )
    share = float(positives / (positives + negatives))
    shift = logit(prior or share) - logit(grid.prior)
    for i in range(len(grid)):
        # Just above each threshold, so that rounding does not decide.
        log_odds = (edges[i][:-1] + shift - 1e-7).tolist()
        asked.append({"lambda": i, "prior": prior, "costs": {"fn": 50, "fp": 1}, "logOdds": log_odds, "range": span,
                      "steps": steps})  # fmt: skip
    for i, found in enumerate(in_page(grid=grid.to_dict(), pictures=asked)["pictures"]):
        of_scores = dataclasses.replace(
            scores, log_odds=scores.log_odds[[i]], lambdas={name: v[[i]] for name, v in scores.lambdas.items()}
        )
        for s, exact in [(samples_of(grid, i), True), *([] if weighted else [(of_scores, False)])]:
            row, weight = s.log_odds[0].astype(np.float64), np.ones(len(s.target)) if s.weight is None else s.weight
            at_prior = weight if prior is None else prior_weight(s.target, weight, prior)
            expected = evaluate(row + shift, s.target, at_prior, list(found["whole"]))
            for name, value in found["whole"].items():
                # Of cases in a bin the order is lost, which average precision feels most.
                near = 1e-9 if exact else 0.04 if name == "average_precision" else 0.015
                assert value == pytest.approx(expected[name][0], abs=near), name
            limits = np.concatenate([[np.inf], edges[i][:-1], [-np.inf]])
            cells = [confusion(row, s.target, limit, at_prior) for limit in limits]
            of_thousand = [1000 * float((50 * c["fn"] + c["fp"])[0]) / at_prior.sum() for c in cells]
            np.testing.assert_allclose(found["cost"], of_thousand, rtol=1e-9)
            curve = decision_curve(s, expit(asked[i]["logOdds"]), prior=prior)["model"][0]
            np.testing.assert_allclose(found["benefit"], 1000 * curve, atol=1e-7 * 1000)
            above, seen = np.inf, 0.0
            for group in found["reliability"]:
                rows = (row >= edges[i][group["end"]]) & (row < above)
                above = edges[i][group["end"]]
                predicted = np.average(expit(row + shift)[rows], weights=at_prior[rows])
                assert group["predicted"] == pytest.approx(predicted, rel=1e-9 if exact else 0.05)
                assert group["observed"] == pytest.approx(
                    np.average(s.target[rows] == 1, weights=at_prior[rows]), abs=1e-9
                )
                seen += at_prior[rows].sum()
                if not exact and len(np.unique(s.target[rows])) == 2:
                    reference = reliability(row[rows] + shift, s.target[rows], at_prior[rows], bins=1)
                    np.testing.assert_allclose([group["low"], group["high"]],
                                               [reference.low[0], reference.high[0]], rtol=2e-3, atol=5e-4)  # fmt: skip
            assert seen == pytest.approx(at_prior.sum())
        assert 5 <= len(found["reliability"]) <= 10
        one, middles = grid.of_lambdas[i], grid.bins.centres[grid.of_lambdas[i].middles].astype(np.float64)
        bounds = np.append(2 * middles[0] - edges[i][0], edges[i][:-1])
        bounds = np.append(bounds, 2 * middles[-1] - bounds[-1])[::-1]
        for shares, counts in zip(found["spread"], (one.negatives, one.positives), strict=True):
            below = np.append(0, np.cumsum(counts[::-1])) / counts.sum()
            expected_shares = np.diff(np.interp(np.linspace(*span, steps + 1), bounds, below))
            np.testing.assert_allclose(shares, expected_shares, atol=1e-9)


@needs_node
@pytest.mark.parametrize("weighted", [False, True])
def test_figures_of_whole_lambdas_are_those_of_the_scores(weighted: bool) -> None:
    """To four digits at the cases' own share of positives; elsewhere, or from counts alone, about."""
    scores = made(23, side=3, weighted=weighted)
    grid = binned(scores)
    weight = np.ones(len(scores.target)) if scores.weight is None else scores.weight
    share = float(weight[scores.target == 1].sum() / weight.sum())
    asked = [{"lambda": i, "prior": prior, "costs": {"fn": 1}, "logOdds": [], "range": [0, 1], "steps": 1}
             for prior in (None, 0.02) for i in range(len(grid))]  # fmt: skip
    pictures = in_page(grid=grid.to_dict(), pictures=asked)["pictures"]
    names = ["auc", "average_precision", "brier", "log_loss"]
    for at, found in zip(asked, pictures, strict=True):
        row = scores.log_odds[at["lambda"]].astype(np.float64)
        prior = at["prior"] or share
        at_prior = prior_weight(scores.target, weight, prior) if at["prior"] else weight
        expected = evaluate(row + logit(prior) - logit(scores.prior), scores.target, at_prior, names)
        for name in names:
            exact = at["prior"] is None or name == "auc"
            if exact and not weighted:
                assert found["figures"][name] == float(f"{expected[name][0]:.4g}"), name
            elif exact:  # of weights that several cases share
                assert found["figures"][name] == pytest.approx(expected[name][0], rel=0.03), name
            else:
                assert found["figures"][name] == found["whole"][name]
    elsewhere = BinnedGrid.of(ScoreHistograms.of(scores, Bins(12)))
    (of_counts,) = in_page(grid=elsewhere.to_dict(), pictures=asked[:1])["pictures"]
    assert of_counts["figures"] == of_counts["whole"]


@needs_node
def test_the_slider_stops_where_something_is_decided() -> None:
    for seed, n, positives in ((24, 3000, 40), (25, 600, 300), (26, 60, 5)):
        grid = binned(made(seed, n=n, positives=positives, side=1))
        asked = [{"lambda": 0, "prior": None, "costs": {"fn": 1}, "logOdds": [], "range": [0, 1], "steps": 1}]
        stops = in_page(grid=grid.to_dict(), pictures=asked)["pictures"][0]["stops"]
        one = grid.of_lambdas[0]
        alerts = np.append(np.cumsum(one.positives + one.negatives), 0)  # of nobody, -1, too
        assert stops == sorted(set(stops))
        assert (stops[0], stops[-1]) == (-1, len(one) - 1)
        assert {*np.flatnonzero(one.positives)} <= set(stops)
        for above, below in itertools.pairwise(stops):
            # What is passed over finds nobody, and is a small step.
            assert not one.positives[above + 1 : below].any()
            assert below == above + 1 or alerts[below - 1] < 1.25 * alerts[above]
            if not one.positives[below] and below < len(one) - 1:
                assert alerts[below] >= 1.25 * alerts[above]


@needs_node
def test_subgroups_are_told_at_the_threshold_nearest_by_alert_rate() -> None:
    grid = binned(made(22))
    asked = [{"lambda": i, "prior": prior, "costs": {"fn": 1}, "logOdds": [], "range": [0, 1], "steps": 1}
             for i in range(len(grid)) for prior in (None, 0.3)]  # fmt: skip
    for of, found in zip(asked, in_page(grid=grid.to_dict(), pictures=asked)["pictures"], strict=True):
        i, one = of["lambda"], grid.of_lambdas[of["lambda"]]
        p, n = (np.cumsum(counts) / counts.sum() for counts in (one.positives, one.negatives))
        share = of["prior"] or one.positives.sum() / (one.positives.sum() + one.negatives.sum())
        rate = share * p + (1 - share) * n
        ((nobody, *others),) = found["nearest"]
        assert nobody == -1
        ends = grid.subgroups[0].ends[i]
        for k, j in enumerate(others):
            assert j >= 0, "alerting on nobody stands for no threshold that alerts on somebody"
            assert abs(rate[ends[j]] - rate[k]) == pytest.approx(np.abs(rate[ends] - rate[k]).min(), abs=1e-12)


@needs_node
def test_a_lambda_beside_the_grid_lies_between_its_cells() -> None:
    gamma, tau = np.meshgrid([0, 0.1, 0.2], [1, 2, 4], indexing="ij")
    beside = [
        [*gamma.ravel().tolist(), 0.15],
        [*tau.ravel().tolist(), 2.5],
        [3, 1, 2],
        [0, 0, 1, 1, 9],
        [1, 1, 2, 2, 0],
    ]
    (g, of_g), (t, of_t), (one, of_one), beyond, before = in_page(axes=beside)["places"]
    assert (g, t, one) == ([0, 0.1, 0.2], [1, 2, 4], [1, 2, 3])
    assert of_g == pytest.approx([0, 0, 0, 1, 1, 1, 2, 2, 2, 1.5])
    assert of_t == pytest.approx([0, 1, 2] * 3 + [1.25])
    assert of_one == [2, 0, 1]
    assert (beyond[1][-1], before[1][-1]) == (1.5, -0.5)
