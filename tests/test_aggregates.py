"""Counts for a page: what they keep of the samples, what cannot be read from them, and that page and Python agree."""

import base64
import dataclasses
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

from tunelater.aggregates import BITS, MOST_BINS, OTHERS, BinnedGrid, joined_values, packed
from tunelater.assessment import confusion_shares
from tunelater.histograms import Bins, ScoreHistograms
from tunelater.losses import logit
from tunelater.metrics import Curve, threshold_metric
from tunelater.needs import Cost, Need, groups_of
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
    histograms = ScoreHistograms.of(scores, Bins(BITS))
    within = {
        column: {value: ScoreHistograms.of(scores.take(np.flatnonzero(rows)), Bins(BITS))
                 for value, rows in groups_of(values).items()}
        for column, values in scores.columns.items()
    }  # fmt: skip
    return BinnedGrid.of(histograms, smallest=smallest, within=within)


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
    }  # fmt: skip
    every = rng.random() < 0.3
    constraints = []
    for name in rng.choice(list(bounds), int(rng.integers(0, 4)), replace=False):
        bound = rng.uniform(*bounds[str(name)])
        constraints.append(f"{name}{bound!r}" + (" in every site" if every and rng.random() < 0.6 else ""))
    return Need.of(subject_to=constraints, **said)


# ------------------------------------------------------------------------------------------- what is kept


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), smallest=st.integers(1, 30), weighted=st.booleans())
def test_counts_are_those_of_the_samples_at_every_threshold(seed: int, smallest: int, weighted: bool) -> None:
    scores = made(seed, n=300, positives=20, side=2, weighted=weighted)
    grid = binned(scores, smallest)
    weight = np.ones(300) if scores.weight is None else scores.weight
    positive = scores.target == 1
    rounding = 0 if scores.weight is None else MOST_BINS * float(weight.sum()) / 2**24
    for row, one in zip(scores.log_odds, grid.of_lambdas, strict=True):
        unit = 1 if scores.weight is None else float(weight.sum()) / 2**24
        assert len(one) <= MOST_BINS
        assert one.edges[-1] == 0
        for k, edge in enumerate(grid.bins.edges[one.edges]):
            alerts = row >= edge
            assert one.positives[: k + 1].sum() * unit == pytest.approx(weight[alerts & positive].sum(), abs=rounding)
            assert one.negatives[: k + 1].sum() * unit == pytest.approx(weight[alerts & ~positive].sum(), abs=rounding)
        place = np.searchsorted(one.edges[::-1], grid.bins.place(row), "right")
        assert np.bincount(place)[1:].min() >= min(smallest, 300)


def test_cases_between_two_thresholds_of_subgroups_are_several_of_each() -> None:
    scores = made(3)
    grid = binned(scores)
    (subgroups,) = grid.subgroups
    for i, (row, one) in enumerate(zip(scores.log_odds, grid.of_lambdas, strict=True)):
        edges = one.edges[subgroups.ends[i]][::-1]
        assert set(edges.tolist()) <= set(one.edges.tolist())
        for g, value in enumerate(subgroups.values):
            mine = (scores.columns["site"] == value) & (scores.target == 1), scores.columns["site"] == value
            place = np.searchsorted(edges, grid.bins.place(row), "right") - 1
            found = [np.bincount(place[rows], minlength=len(edges))[::-1] for rows in mine]
            assert found[1].min() >= 5
            np.testing.assert_array_equal(subgroups.counts[i][:, 1, g], found[0])
            np.testing.assert_array_equal(subgroups.counts[i].sum(axis=1)[:, g], found[1])


def test_thresholds_say_no_more_of_a_score_than_between_which_it_lies() -> None:
    """Moving every case about between its thresholds, on the means' side, leaves the same file."""
    scores = made(5, side=2)
    before = binned(scores).to_dict()
    for row in scores.log_odds:
        row[:] = np.floor(row * 2**BITS) / 2**BITS + np.random.default_rng(0).random(len(row)) * 0.999 / 2**BITS
    order = np.random.default_rng(1).permutation(len(scores.target))
    assert binned(scores.take(order)).to_dict() == before


def test_no_score_of_a_case_is_a_threshold_or_mean() -> None:
    scores = made(7)
    grid = binned(scores)
    for row, one in zip(scores.log_odds, grid.of_lambdas, strict=True):
        shown = np.concatenate([grid.bins.edges[one.edges[:-1]], grid.bins.centres[one.middles]])
        assert not np.isin(shown.astype(np.float32), row).any()


def test_the_choice_is_nearly_that_of_all_thresholds() -> None:
    """With a threshold at every fifth case, little is lost on what choosing among all would reach."""
    for seed in range(5):
        scores = made(seed, n=4000, positives=300)
        exact = OperatingGrid(scores).select(maximize="precision", subject_to="recall>=0.8", simplest=False)
        point = binned(scores).select(Need.of(maximize="precision", subject_to="recall>=0.8"), simplest=False)
        i = next(i for i in range(len(scores)) if scores.lam(i) == point.lam)
        alerts = point.decide(scores.log_odds[i], scores.prior)
        positive = scores.target == 1
        assert alerts[positive].mean() >= 0.8
        assert (alerts & positive).sum() / alerts.sum() >= exact.metrics["precision"].value - 0.03


def test_rare_values_are_joined_until_they_are_several() -> None:
    column = np.array(["a"] * 500 + ["b"] * 80 + ["c"] * 10 + ["d"] * 5)
    joined = joined_values(column)
    assert {v: int((joined == v).sum()) for v in np.unique(joined)} == {"a": 500, f"b or {OTHERS}": 95}
    assert set(joined_values(column[:580])) == {"a", "b"}
    assert set(joined_values(np.array([1.0] * 60 + [2.0] * 60 + [math.nan] * 60))) == {"1", "2", OTHERS}


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
    grid = binned(made(0))
    for need in (Need.of(minimize="brier"), Need.of(maximize="recall", subject_to="recall>=0.5 in every age")):
        with pytest.raises(InputError):
            grid.select(need)


# ------------------------------------------------------------------------------------------- in the page


@needs_node
@pytest.mark.parametrize("weighted", [False, True])
def test_the_page_chooses_what_python_does(weighted: bool) -> None:
    rng = np.random.default_rng(weighted)
    feasible = 0
    for seed in range(3):
        grid = binned(made(seed, side=3, weighted=weighted))
        needs = [(any_need(rng), bool(rng.integers(2))) for _ in range(100)]
        answers = in_page(grid=grid.to_dict(), needs=[{"need": told(n), "simplest": s} for n, s in needs])
        for (need, simplest), answer in zip(needs, answers["solved"], strict=True):
            try:
                point = grid.select(need, simplest=simplest)
            except Infeasible:
                assert not answer["feasible"], need.in_words
                continue
            feasible += 1
            assert answer["feasible"], need.in_words
            there = grid.point(answer["lambda"], answer["bin"], need)
            assert there == dataclasses.replace(point, simpler_than=None), need.in_words
            best = point.lam if point.simpler_than is None else point.simpler_than
            assert {k: float(v[answer["best"]]) for k, v in grid.lambdas.items()} == best
    assert feasible > 150


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
            np.testing.assert_array_equal(curve["tp"], np.cumsum(one.positives))
            np.testing.assert_array_equal(curve["fp"], np.cumsum(one.negatives))
        for of, cuts in zip(grid.subgroups, answers["subgroups"], strict=True):
            for i, cut in enumerate(cuts):
                np.testing.assert_array_equal(cut["ends"], of.ends[i])
                for g, curve in enumerate(cut["curves"]):
                    np.testing.assert_array_equal(curve["tp"], np.cumsum(of.counts[i][:, 1, g]))
                    np.testing.assert_array_equal(curve["fp"], np.cumsum(of.counts[i][:, 0, g]))


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
def test_what_is_attainable() -> None:
    grid = binned(made(2))
    need = Need.of(maximize="recall", subject_to=["precision>=0.999", "recall>=0.9"])
    with pytest.raises(Infeasible):
        grid.select(need)
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
        one = grid.of_lambdas[i]
        for k in range(-1, len(one)):
            point = grid.point(i, k, need)
            assert point.prior == 0.2
            assert (
                point.decide(scores.log_odds[i], scores.prior).sum() == (one.positives + one.negatives)[: k + 1].sum()
            )
            assert point.log_odds_threshold == pytest.approx(
                float(grid.bins.edges[one.edges[k]]) + logit(0.2) - logit(0.05)
            ) or k in (-1, len(one) - 1)
            assert isinstance(confusion_shares(np.ones((4, 1)), None), Curve)
