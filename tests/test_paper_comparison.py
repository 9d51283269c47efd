"""Protocols, differences and tables of the study, on made-up results."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit
from sklearn import metrics as reference

from paper import comparison, tables
from paper.comparison import Difference, cell, difference, expected_of_best, holm
from paper.learning import Candidates, measure, worth_keeping
from paper.methods import METHODS, Length, Trial
from paper.store import Result, Store
from tunelater.problems import InputError

SHORT = Length(epochs=2)


def made_up(
    store: Store,
    method: str = "vs",
    *,
    seeds: Sequence[int] = (0, 1, 2),
    settings: int = 4,
    gain: float = 1.0,
    scale: float = 1.0,
    timed: str | None = None,
    dataset: str = "synthetic",
    beta: float | None = None,
    n: int = 300,
    length: Length = SHORT,
) -> None:
    """Results whose positives score higher by `gain`, on the same samples for all."""
    splits = enumerate(("validation", "test"))
    target = {split: (np.random.default_rng(7 + i).random(n) < 0.2).astype(np.int8) for i, split in splits}
    for seed in seeds:
        for i, setting in enumerate(METHODS[method].settings(settings)):
            rng = np.random.default_rng([seed, i, len(method)])
            trial = Trial(dataset, beta, method, tuple(setting.items()), seed, length)
            lambdas = trial.lambdas()
            n_lambdas = len(next(iter(lambdas.values()), [0]))
            logits = {
                s: (scale * (rng.normal(size=(n_lambdas, n)) + gain * y - 1)).astype(np.float32)
                for s, y in target.items()
            }
            found = Candidates(lambdas, target, logits, {s: z * 0.5 for s, z in logits.items()})
            values = measure(found)
            record = {
                "trial": trial.record(),
                "data": {"fingerprint": "f", "sizes": {}},
                "lambdas": {name: v.tolist() for name, v in lambdas.items()},
                "metrics": values,
                "kept": worth_keeping(values),
                "seconds": {"all": 36.0},
            } | ({} if timed is None else {"timed": timed})
            store.put(trial.identity("f"), record, found)


def results(store: Store, method: str = "vs") -> list[Result]:
    return [r for r in store.results() if r.trial.method == method]


# ------------------------------------------------------------------------------------------------------------ protocols


@pytest.mark.parametrize("higher_is_better", [True, False])
@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_the_expected_choice_is_the_mean_over_all_draws(n: int, higher_is_better: bool) -> None:
    rng = np.random.default_rng(n)
    on, reported = rng.normal(size=7), rng.normal(size=7)
    sign = 1 if higher_is_better else -1
    each = [reported[max(some, key=lambda i: sign * on[i])] for some in itertools.combinations(range(7), n)]
    assert expected_of_best(on, reported, n, higher_is_better=higher_is_better) == pytest.approx(np.mean(each))


def test_the_papers_protocol_takes_the_best_mean_over_seeds_on_the_test_part(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made_up(store, "vs+lct")
    found = results(store, "vs+lct")
    table: dict[object, list[np.ndarray]] = {}
    for result in found:
        table.setdefault(result.trial.setting, []).append(result.values("test", "logits", "auc"))
    expected = max(np.mean(rows, axis=0).max() for rows in table.values())
    got = cell(found, "auc", "paper")
    assert got is not None
    assert got.value == pytest.approx(expected)
    assert (got.seeds, got.settings, got.candidates) == (3, 4, 80)
    assert got.hours == pytest.approx(12 * 0.01)


def test_as_many_results_as_can_be_are_compared_by_means_over_equally_many_seeds(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made_up(store)
    found = sorted(results(store), key=lambda r: (r.trial.seed, r.trial.setting))  # as a sweep makes them
    for n in range(1, 13):
        some = found[:n]
        kept = comparison.comparable(some[::-1])
        counts = {len(seeds) for seeds in comparison.by_setting(kept).values()}
        assert len(counts) == 1
        by_hand = {k: k * sum(len(s) >= k for s in comparison.by_setting(some).values()) for k in (1, 2, 3)}
        assert len(kept) == max(by_hand.values())
        assert all(r.trial.seed < max(counts) for r in kept)
    one_more = cell(found[:5], "auc", "paper")
    assert one_more is not None
    assert one_more.value == pytest.approx(max(r.values("test", "logits", "auc")[0] for r in found[:4]))


def test_the_held_out_protocol_never_looks_at_the_test_part_to_choose(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made_up(store, "vs+lct")
    found = results(store, "vs+lct")
    expected = []
    for seed in (0, 1, 2):
        pairs = [
            (v, t)
            for r in found
            if r.trial.seed == seed
            for v, t in zip(r.values("validation", "logits", "brier"), r.values("test", "logits", "brier"), strict=True)
        ]
        expected.append(min(pairs)[1])
    got = cell(found, "brier", "held-out")
    assert got is not None
    assert got.value == pytest.approx(np.mean(expected))
    assert got.std == pytest.approx(np.std(expected, ddof=1))


def test_a_metric_of_a_threshold_has_the_validation_parts_threshold_when_held_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made_up(store, settings=1, seeds=(0,))
    (found,) = results(store)
    got = cell([found], "best_f1", "held-out")
    assert got is not None
    assert got.value == found.values("transferred", "logits", "f1")[0]
    assert got.value < found.values("test", "logits", "best_f1")[0]


def test_matched_budgets_at_their_ends(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made_up(store, "vs+lct")
    found = results(store, "vs+lct")
    whole, all_trainings = cell(found, "auc", "held-out"), cell(found, "auc", "matched trainings", budget=4)
    one = cell(found, "auc", "matched candidates", budget=1)
    assert whole is not None
    assert all_trainings is not None
    assert one is not None
    assert all_trainings.value == pytest.approx(whole.value)
    assert one.value == pytest.approx(np.mean([r.values("test", "logits", "auc").mean() for r in found]))


def test_nothing_is_made_of_no_results() -> None:
    assert cell([], "auc", "paper") is None


# ---------------------------------------------------------------------------------------------------------- differences


def test_a_better_method_is_told_from_an_equal_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made_up(store, "vs", gain=1.0)
    made_up(store, "vs+lct", gain=2.0)
    made_up(store, "focal", gain=1.0)
    ours, theirs, equal = (results(store, name) for name in ("vs+lct", "vs", "focal"))
    better, none = difference(ours, theirs, "auc"), difference(equal, theirs, "auc")
    assert better is not None
    assert none is not None
    assert better.low > 0
    assert better.p < 0.01
    assert none.low < 0 < none.high
    assert none.p > 0.05
    reversed_ = difference(theirs, ours, "auc")
    assert reversed_ is not None
    assert reversed_.value == pytest.approx(-better.value)


@pytest.mark.parametrize("metric", ["auc", "average_precision", "brier"])
def test_a_difference_is_that_of_the_held_out_choices(metric: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    made_up(store, "vs")
    made_up(store, "vs+lct", gain=1.3)
    ours, theirs = results(store, "vs+lct"), results(store, "vs")
    got, one, two = difference(ours, theirs, metric), cell(ours, metric, "held-out"), cell(theirs, metric, "held-out")
    assert got is not None
    assert one is not None
    assert two is not None
    assert got.value == pytest.approx(one.value - two.value, abs=2e-4)  # scores are kept in 16 bits
    assert got.low < got.value < got.high


@pytest.mark.parametrize("metric", ["auc", "average_precision", "brier"])
def test_resampled_values_are_those_of_a_slow_loop(metric: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    made_up(store, seeds=[0], settings=1)
    (result,) = results(store)
    scores, target = result.scores("test", 0)
    scores = scores.round(1)  # with ties
    rows = comparison._weights(target.tobytes(), 20, 0)
    assert (rows[:, 0] == 1).all()
    assert (rows[target == 1].sum(axis=0) == target.sum()).all()
    assert (rows.sum(axis=0) == len(target)).all()
    of = {"auc": comparison._auc, "average_precision": comparison._average_precision, "brier": comparison._brier}
    got = of[metric](scores, target, rows)
    p = 1 / (1 + np.exp(-scores))
    loop = {
        "auc": lambda w: reference.roc_auc_score(target, scores, sample_weight=w),
        "average_precision": lambda w: reference.average_precision_score(target, scores, sample_weight=w),
        "brier": lambda w: reference.brier_score_loss(target, p, sample_weight=w),
    }[metric]
    np.testing.assert_allclose(got, [loop(w) for w in rows.T], atol=1e-12)


def test_a_seed_that_could_choose_among_fewer_settings_does_not_count(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made_up(store)
    found = sorted(results(store), key=lambda r: (r.trial.seed, r.trial.setting))  # as a sweep makes them
    for n in range(1, 13):
        kept = comparison.complete(found[:n][::-1])
        seeds = comparison.by_seed(kept)
        assert {frozenset(r.trial.setting for r in some) for some in seeds.values()} == {
            frozenset(r.trial.setting for r in kept)
        }
        assert len(kept) == max(4 * (n // 4), (n // 4 + 1) * (n % 4))
    ten, eight = (cell(found[:n], "auc", "held-out") for n in (9, 8))
    assert ten is not None
    assert eight is not None
    assert (ten.value, ten.seeds, ten.settings, ten.candidates) == (eight.value, 2, 4, 4)


def test_holm_is_a_step_down() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(8) ** 3
    unknown = {8: Difference(0, 0, 0, math.nan, 1, (1, 1))}
    adjusted = holm({i: Difference(0, 0, 0, float(value), 3, (1, 1)) for i, value in enumerate(p)} | unknown)
    assert math.isnan(adjusted[8].adjusted)
    order, largest = np.argsort(p), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1, (8 - rank) * p[i]))
        assert adjusted[int(i)].adjusted == pytest.approx(largest)


def test_one_seed_gives_no_interval_and_says_that_it_is_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for method, gain in (("vs", 1.0), ("vs+lct", 3.0)):
        made_up(store, method, gain=gain, seeds=(0,))
    d = difference(results(store, "vs+lct"), results(store, "vs"), "auc")
    assert d is not None
    assert d.seeds == 1
    assert math.isnan(d.p)
    (study,) = comparison.studies(store.results())
    tables.write(study, tmp_path / "t", "differences-auc")
    told = (tmp_path / "t" / "differences-auc.md").read_text("utf-8")
    row = next(line for line in told.splitlines() if line.startswith("| VS + LCT - VS |"))
    assert "x1)" in row
    assert "**" not in row
    assert " p " not in row


def test_what_is_made_of_fewer_settings_says_so_under_every_protocol(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made_up(store, settings=9, seeds=(0, 1, 2))
    made_up(store, settings=16, seeds=(0,))
    for protocol in comparison.PROTOCOLS:
        found = comparison.cell(results(store), "auc", protocol)
        assert found is not None
        assert (found.settings, found.seeds) == (9, 3)


def test_without_a_seed_in_common_there_is_no_difference(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made_up(store, "vs", seeds=(0,))
    made_up(store, "vs+lct", seeds=(1,))
    assert difference(results(store, "vs+lct"), results(store, "vs"), "auc") is None


# ----------------------------------------------------------------------------------------------------- added afterwards


def test_calibration_fitted_to_the_validation_part_mends_scores_that_are_twice_too_sure(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    log_odds = {s: rng.normal(-1, 1.5, size=4000) for s in ("validation", "test")}
    target = {s: (rng.random(4000) < 1 / (1 + np.exp(-z))).astype(np.int8) for s, z in log_odds.items()}
    logits = {s: (3 * z[None]).astype(np.float32) for s, z in log_odds.items()}
    found = Candidates({}, target, logits, {s: z[None].astype(np.float32) for s, z in log_odds.items()})
    values = measure(found)
    trial = Trial("synthetic", None, "ce", (), 0)
    record = {
        "trial": trial.record(), "data": {}, "lambdas": {}, "metrics": values, "kept": worth_keeping(values),
        "seconds": {"all": 1.0},
    }  # fmt: skip
    store = Store(tmp_path)
    store.put("ab12", record, found)
    got = comparison.calibrated(store.results())
    for name in ("temperature", "platt", "isotonic", "beta"):
        assert got[name][0] == pytest.approx(got["link"][0], abs=2e-3)
    assert got["softmax"][0] > got["link"][0] + 0.01
    assert got["softmax"][1] > got["link"][1] + 0.1


def test_an_ensemble_of_noisy_members_is_better_than_they_are(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made_up(store, settings=1, gain=1.0)
    found = results(store)
    together, single = comparison.ensemble(found, "auc"), cell(found, "auc", "held-out")
    assert together is not None
    assert single is not None
    assert together[1] == 3
    assert together[0] > single.value + 0.03
    assert comparison.ensemble(found[:1], "auc") is None


# --------------------------------------------------------------------------------------------------------------- tables


def test_lengths_are_studies_of_their_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made_up(store, settings=4)
    made_up(store, settings=1, length=Length(epochs=9))
    long, short = comparison.studies(store.results())
    assert (long.length.epochs, short.length.epochs) == (2, 9)
    assert sum(map(len, long.results.values())) == 12
    assert sum(map(len, short.results.values())) == 3


def test_the_papers_numbers_are_beside_ours_and_what_is_incomplete_says_of_how_many(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made_up(store, "vs", dataset="cifar10-automobile-truck", beta=100, seeds=(0, 1))
    made_up(store, "vs+lct", dataset="cifar10-automobile-truck", beta=100, settings=16, gain=3.0)
    (study,) = comparison.studies(store.results())
    table = tables.metric_table(study, "table-3-paper", "auc", "AUC", "paper")
    rows = dict(table.rows)
    truck = table.columns.index("Auto Truck")
    assert rows["VS"][truck].text.endswith(" / 0.918 (4x2)")
    assert rows["VS + LCT"][truck].text.endswith(" / 0.930")
    assert rows["VS + LCT"][truck].best
    assert rows["VS + LCT"][truck].better
    assert not rows["VS"][truck].better
    assert rows["Focal"][truck].text == "– / 0.929"
    assert rows["Focal"][0].text == "– / 0.985"
    value = cell(study.of("cifar10-automobile-truck", 100, "vs"), "auc", "paper")
    assert value is not None
    assert rows["VS"][truck].value == value.value
    assert "12 of 54" not in table.markdown()
    assert "2 of 54 cells have results." in table.markdown()


def test_without_held_out_samples_only_the_papers_protocol_is_told(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for method in ("vs", "vs+lct", "ce"):
        made_up(store, method, length=Length(epochs=4, protocol="paper"))
    (study,) = comparison.studies(store.results())
    paths = tables.write(study, tmp_path / "tables")
    written = {path.stem: path.read_text("utf-8") for path in paths if path.suffix == ".md"}
    assert {"table-3-paper", "peers-auc-paper", "hours"} <= written.keys()
    for name, text in written.items():
        assert not any(word in name for word in ("held-out", "matched", "differences", "calibration", "ensembles"))
        assert "validation part" not in text


def test_lct_is_compared_with_what_a_user_would_pick_instead(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for method, gain in (("vs", 1.0), ("vs+lct", 1.0), ("ce", 3.0)):
        made_up(store, method, gain=gain)
    (study,) = comparison.studies(store.results())
    told = {p.suffix: p.read_text("utf-8") for p in tables.write(study, tmp_path / "t", "differences-auc")}
    assert any("VS + LCT - Cross-entropy" in line and "**-" in line for line in told[".md"].splitlines())
    with pytest.raises(InputError, match="no table begins with 'table-9'; there are table-3-paper"):
        tables.write(study, tmp_path / "t", "table-9")


def test_few_seeds_that_differ_make_no_certainty(tmp_path: Path) -> None:
    """In three seeds whose differences spread far, of which a bootstrap of seeds would see two thirds."""
    store = Store(tmp_path)
    made_up(store, "vs", gain=1.0)
    for seed, gain in enumerate((1.0, 1.5, 3.0)):
        made_up(store, "vs+lct", gain=gain, seeds=[seed])
    ours, theirs = results(store, "vs+lct"), results(store, "vs")
    got, each = difference(ours, theirs, "auc"), []
    for seed in range(3):
        one = [[r for r in some if r.trial.seed == seed] for some in (ours, theirs)]
        single = difference(*one, "auc")
        assert single is not None
        each.append(single.value)
    assert got is not None
    assert got.value == pytest.approx(np.mean(each))
    of_seeds = stats.ttest_1samp(each, 0).confidence_interval(0.95)
    by_samples_alone = 2 * 1.96 * np.std(each, ddof=1) / 3**0.5
    assert by_samples_alone < got.high - got.low < 1.2 * (of_seeds.high - of_seeds.low)


def test_every_form_of_a_table_has_every_number(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for method in ("vs", "vs+lct", "vs+lct-film"):
        made_up(store, method)
    (study,) = comparison.studies(store.results())
    written = tables.write(study, tmp_path / "tables")
    names = {path.stem for path in written}
    for number in ("3", "4", "13", "14", "15", "16", "17"):
        for protocol in ("paper", "held-out", "matched-trainings", "matched-candidates"):
            assert f"table-{number}-{protocol}" in names
    assert {"differences-auc", "calibration", "ensembles", "saturation", "hours"} <= names
    assert {f"peers-auc-{p}" for p in ("paper", "held-out", "matched-trainings", "matched-candidates")} <= names
    for name in names:
        md, text, tex = (
            (tmp_path / "tables" / f"{name}.{suffix}").read_text("utf-8") for suffix in ("md", "csv", "tex")
        )
        rows = [line for line in md.splitlines() if line.startswith("|")][2:]
        assert {line.count("|") for line in rows} == {md.splitlines()[2].count("|")}
        values = list(csv.DictReader(text.splitlines()))
        assert len(values) == len(rows) * (rows[0].count("|") - 2)
        assert any(math.isfinite(float(row["value"])) for row in values if row["value"])
        assert tex.count(r"\\") == len(rows) + 1
    assert {path.stem for path in tables.write(study, tmp_path / "one", "table-3")} == {
        f"table-3-{kind}{p}"
        for p in ("paper", "held-out", "matched-trainings", "matched-candidates")
        for kind in ("", "softmax-")
    }


def test_table_3_is_there_once_more_for_scores_that_a_softmax_has_made_equal(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made_up(store, "vs", seeds=(0,), settings=1, gain=3.0, scale=60.0)
    (result,) = store.results()
    (study,) = comparison.studies([result])
    by_name = {table.name: table for table in tables.paper_tables(study)}
    told = {}
    for kind in ("", "softmax-"):
        table = by_name[f"table-3-{kind}held-out"]
        told[kind] = dict(table.rows)["VS"][table.columns.index("synthetic")].value
    logits, target = result.scores("test", 0)
    saturated = expit(logits.astype(np.float32))
    assert told[""] == pytest.approx(reference.roc_auc_score(target, logits), abs=1e-4)
    assert told["softmax-"] == pytest.approx(reference.roc_auc_score(target, saturated), abs=1e-4)
    assert told["softmax-"] < told[""] - 0.001


def test_hours_say_whose_they_are(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made_up(store, "vs", settings=1, timed="processor")
    made_up(store, "vs+lct", settings=1, timed="wall")
    (study,) = comparison.studies(store.results())
    (table,) = (table for table in tables.paper_tables(study) if table.name == "table-3-held-out")
    assert "0.03 CPU-hours and 0.03 hours by the clock of training and scoring on" in table.markdown()


def test_special_characters_are_latexs() -> None:
    entry = tables.Entry("0.5 ± 0.1 [2_3]", 0.5, best=True)
    text = tables.Table("t", "50% of β >= 1", ["a_b"], [("x", [entry])]).latex()
    assert r"\textbf{0.5} $\pm$ 0.1 [2\_3]" in text
    assert r"50\% of $\beta$ $\geq$ 1" in text


def test_scores_that_were_not_kept_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made_up(store, "vs+lct", settings=1, seeds=(0,))
    (found,) = results(store, "vs+lct")
    missing = next(i for i in range(20) if i not in found.record["kept"])
    with pytest.raises(InputError, match=f"got {missing}"):
        found.scores("test", missing)
    assert math.isfinite(found.hours)
