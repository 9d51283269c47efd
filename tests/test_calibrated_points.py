"""Operating points with calibrated probabilities: against the maps themselves, under label shift, on disk, in words."""

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import brier_score_loss, log_loss
from typer.testing import CliRunner

from tunelater.assessment import assess, reliability_of
from tunelater.calibration import Beta, CalibrationMap, Isotonic, Platt, fit_calibration, map_of
from tunelater.cli import app
from tunelater.honesty import Folds
from tunelater.losses import logit
from tunelater.metrics import prior_weight
from tunelater.needs import Need
from tunelater.points import OperatingPoint
from tunelater.problems import DoubtfulInputWarning, InputError
from tunelater.runs import Run
from tunelater.scoring import Scores
from tunelater.search import Task
from tunelater.tuning import OperatingGrid
from tunelater.workflow import evaluation, predict, tune

KINDS = ["platt", "beta", "isotonic"]
PRIOR = 0.2
NEED = {"maximize": "precision", "subject_to": "recall>=0.8"}


def wrong_scores(
    n: int = 2000, seed: int = 0, share: float = PRIOR, lambdas: int = 1, weighted: bool = False
) -> Scores:
    """Twice the true log-odds, and one more: of normal samples at -1 and 1, at any share the same given the class."""
    rng = np.random.default_rng(seed)
    target = (rng.random(n) < share).astype(np.int8)
    true = 2 * (rng.normal(size=(lambdas, n)) + 2.0 * target - 1) + logit(PRIOR)
    weight = rng.uniform(0.5, 2, n) if weighted else None
    taus = {"tau": np.linspace(0, 3, lambdas)}
    return Scores((2 * true + 1).astype(np.float32), target, taus, PRIOR, weight, model="m")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("prior", "weighted"), [(None, False), (0.02, True)])
def test_a_point_has_the_map_of_its_lambda_at_its_prior(kind: str, prior: float | None, weighted: bool) -> None:
    s = wrong_scores(lambdas=3, weighted=weighted)
    point = OperatingGrid(s, prior).select(**NEED, calibrate=kind)
    plain = OperatingGrid(s, prior).select(**NEED)
    assert dataclasses.replace(point, calibration=None, metrics={}, honest={}) == dataclasses.replace(
        plain, metrics={}, honest={}
    )
    row = s.log_odds[int(np.argmin(np.abs(s.lambdas["tau"] - point.lam["tau"])))]
    at_prior = point.log_odds(row, s.prior)
    expected = fit_calibration(kind, at_prior, s.target, prior_weight(s.target, s.weight, point.prior))
    np.testing.assert_allclose(point.calibrated_log_odds(row, s.prior), expected(at_prior), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(point.decide(row, s.prior), plain.decide(row, s.prior))
    for name, told in point.metrics.items():
        if name not in ("brier", "log_loss"):
            assert told == plain.metrics[name]


@pytest.mark.parametrize("prior", [None, 0.02])
@pytest.mark.parametrize("kind", KINDS)
def test_brier_score_and_log_loss_are_of_the_calibrated_probabilities(kind: str, prior: float | None) -> None:
    s, new = wrong_scores(), wrong_scores(seed=1, weighted=True)
    point = OperatingGrid(s, prior).select(**NEED, calibrate=kind)
    told = assess(point, new)
    p = point.probability(new.log_odds[0], new.prior)
    weight = new.weight if prior is None else prior_weight(new.target, new.weight, prior)
    assert told["brier"].value == pytest.approx(brier_score_loss(new.target, p, sample_weight=weight))
    assert told["log_loss"].value == pytest.approx(log_loss(new.target, p, sample_weight=weight))
    bins, parts = reliability_of(point, new)
    assert parts.brier == pytest.approx(told["brier"].value)
    assert parts.miscalibration - parts.discrimination + parts.uncertainty == pytest.approx(parts.brier)
    of_link, parts_of_link = reliability_of(point, new, calibrated=False)
    assert bins.ece < of_link.ece
    assert parts.miscalibration < parts_of_link.miscalibration
    plain = dataclasses.replace(point, calibration=None)
    assert parts_of_link.brier == pytest.approx(assess(plain, new)["brier"].value)
    bootstrapped = assess(point, new, bootstrap=100), assess(plain, new, bootstrap=100)
    assert bootstrapped[0]["auc"] == bootstrapped[1]["auc"]  # calibration may tie what the link tells apart
    assert bootstrapped[0]["brier"].low < told["brier"].value < bootstrapped[0]["brier"].high


def test_label_shift_moves_a_calibrated_point_to_the_right_probabilities() -> None:
    there = 0.02
    point = OperatingGrid(wrong_scores(40_000), there).select(**NEED, calibrate="platt")
    shift = logit(there) - logit(PRIOR)
    assert isinstance(point.calibration, Platt)
    # The truth at the other prior, as a line in the wrong log-odds there.
    assert point.calibration.slope == pytest.approx(0.5, abs=0.03)
    assert point.calibration.intercept == pytest.approx((shift - 1) / 2, abs=0.12)
    new = wrong_scores(40_000, seed=1, share=there)
    true = (new.log_odds[0].astype(float) - 1) / 2 + shift
    p = point.probability(new.log_odds[0], new.prior)
    assert p.mean() == pytest.approx(expit(true).mean(), rel=0.05)
    assert brier_score_loss(new.target, p) == pytest.approx(brier_score_loss(new.target, expit(true)), rel=0.02)


def test_an_isotonic_map_is_the_same_curve_at_every_prior() -> None:
    s = wrong_scores(weighted=True)
    points = [OperatingGrid(s, prior).select(**NEED, calibrate="isotonic") for prior in (0.3, 0.02)]
    moved = [p.calibrated_log_odds(s.log_odds[0], s.prior) - logit(p.prior) for p in points]
    np.testing.assert_allclose(moved[0], moved[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_honest_brier_score_is_of_maps_fitted_without_each_fold(kind: str) -> None:
    s = wrong_scores(1500, weighted=True)
    point = OperatingGrid(s, 0.1).select(maximize="f1", calibrate=kind, seed=3)
    task = Task.of(Need.of(maximize="f1", prior=0.1), s)
    folds = Folds.of(task, s, 3)
    assert folds is not None
    log_odds, weight = point.log_odds(s.log_odds[0], s.prior), prior_weight(s.target, s.weight, 0.1)
    values = []
    for fold in folds.of_sample:
        p = np.empty(len(log_odds))
        for f in range(folds.n):
            rest = fold != f
            moved = prior_weight(s.target[rest], s.weight[rest], 0.1)
            p[~rest] = expit(fit_calibration(kind, log_odds[rest], s.target[rest], moved)(log_odds[~rest]))
        values.append(brier_score_loss(s.target, p, sample_weight=weight))
    assert point.honest["brier"].value == pytest.approx(np.mean(values), rel=1e-5)
    assert point.metrics["brier"].value < point.honest["brier"].value


def test_the_bootstrap_fits_again_in_each_resample() -> None:
    """A line through two dozen positives flatters itself, more than probabilities that nothing was fitted to do."""
    s = wrong_scores(300, share=0.1)
    told = {}
    for kind in ("platt", None):
        point = OperatingGrid(s).select(maximize="f1", calibrate=kind, bootstrap=200)
        told[kind] = point.honest["brier"].value - point.metrics["brier"].value
    assert told["platt"] > 0
    assert abs(told[None]) < told["platt"]


def maps() -> st.SearchStrategy[CalibrationMap]:
    number = st.floats(-1e6, 1e6)
    rising = st.lists(number, min_size=1, max_size=6, unique=True).map(sorted)
    lines = st.builds(Platt, number, st.floats(0, 1e6))
    curves = st.builds(Beta, number, st.floats(0, 1e6), st.floats(0, 1e6))
    steps = rising.map(lambda at: Isotonic(tuple(at), tuple(at)))
    return st.one_of(lines, curves, steps)


@settings(deadline=None, max_examples=60)
@given(maps())
def test_points_with_calibrations_survive_json_exactly(calibration: CalibrationMap) -> None:
    point = OperatingPoint({"tau": 1.0}, 0.5, 0.0, 0.1, calibration=calibration)
    assert OperatingPoint.from_json(point.to_json()) == point
    assert map_of(json.loads(json.dumps(calibration.to_dict()))) == calibration


@pytest.mark.parametrize(
    ("calibration", "words"),
    [
        ({"kind": "plat", "intercept": 0, "slope": 1}, "did you mean 'platt'"),
        ({"kind": "platt", "intercept": 0}, "intercept, slope; got intercept"),
        ({"kind": "platt", "intercept": 0, "slope": -1}, "or it would fall; got -1"),
        ({"kind": "isotonic", "at": [1, 0], "values": [0, 1]}, "knots of an isotonic map must rise"),
        ("platt", "an object with its kind and parameters, got 'platt'"),
        ({"kind": ["platt"]}, "there is no calibration"),
    ],
)
def test_what_is_no_calibration_is_told_with_the_other_problems(calibration: object, words: str) -> None:
    raw = json.loads(OperatingPoint({"tau": 1.0}, 0.5, 0.0, 0.1).to_json()) | {"prior": 2, "calibration": calibration}
    with pytest.raises(InputError) as error:
        OperatingPoint.from_json(json.dumps(raw))
    assert len(error.value.problems) == 2
    assert words in str(error.value)
    assert "'prior' of an operating point" in str(error.value)


def test_few_positives_for_a_map_are_told() -> None:
    with pytest.warns(DoubtfulInputWarning, match="'isotonic' calibration wants 200 .* more noise than it mends"):
        OperatingGrid(wrong_scores(300)).select(**NEED, calibrate="isotonic")


def test_a_guarantee_is_of_points_that_nothing_is_fitted_to() -> None:
    with pytest.raises(InputError, match=r"leave --calibrate \(calibrate\) out, or --guarantee"):
        OperatingGrid(wrong_scores()).select(**NEED, calibrate="platt", guarantee=0.9)


def test_an_unknown_calibration_is_told_with_the_other_problems(run: Run, table: Path) -> None:
    with pytest.raises(InputError) as error:
        tune(run, table, maximize="precison", calibrate="isotonik", bootstrap=5)
    for words in ("did you mean 'precision'", "did you mean 'isotonic'", "100 resamples"):
        assert words in str(error.value)
    with pytest.raises(InputError, match=r"100 resamples.*\n.*did you mean 'beta'"):
        OperatingGrid(wrong_scores(300)).select(maximize="f1", calibrate="betta", bootstrap=5)
    with pytest.raises(InputError, match="leave --calibrate"):
        tune(run, table, maximize="f1", calibrate="platt", stream=True)


def test_tune_predict_and_evaluate_agree(run: Run, table: Path, tmp_path: Path) -> None:
    at, figure = tmp_path / "point.json", tmp_path / "reliability.png"

    def tunelater(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    told = tunelater(
        "tune", run.path, table, "--maximize", "f1", "--prior", "0.02", "--calibrate", "platt", "--out", at
    )
    assert "Probabilities are calibrated (platt) on the same samples" in told
    assert "the link's probability >=" in told
    point = OperatingPoint.load(at)
    assert isinstance(point.calibration, Platt)
    told = tunelater("evaluate", run.path, table, "--at", at, "--reliability", figure)
    done = evaluation(run, table, at=at)
    assert f"expected calibration error {done.reliability.ece:.4f}" in told
    assert f"Brier score {done.brier.brier:.4f} = reliability {done.brier.miscalibration:.4f}" in told
    assert done.of_link is not None
    assert f"Without calibration: expected calibration error {done.of_link[0].ece:.4f}" in told
    assert figure.read_bytes().startswith(b"\x89PNG")

    predict(run, table, at=at, out=tmp_path / "new.parquet")
    new = pd.read_parquet(tmp_path / "new.parquet").iloc[run.rows["test"]]
    np.testing.assert_allclose(new["probability"], expit(point.calibration(new["log_odds"])), rtol=1e-12)
    decided = new["prediction"] == run.form.labels[1]
    np.testing.assert_array_equal(decided, new["log_odds"] >= point.log_odds_threshold)
    y = (pd.read_csv(table)["diagnosis"].iloc[run.rows["test"]] == "hypothyroid").astype(int)
    brier = brier_score_loss(y, new["probability"], sample_weight=prior_weight(y.to_numpy(), None, 0.02))
    assert brier == pytest.approx(done.estimates["brier"].value)
    assert brier == pytest.approx(done.brier.brier)


def test_a_diagram_replaces_nothing_unasked(run: Run, table: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        point = tune(run, table, maximize="f1", calibrate="beta")
    there = tmp_path / "there.svg"
    there.write_text("mine")
    with pytest.raises(InputError, match="say --force"):
        evaluation(run, table, at=point, reliability=there)
    assert there.read_text() == "mine"
    evaluation(run, table, at=point, reliability=there, force=True)
    assert "<svg" in there.read_text()
    with pytest.raises(InputError) as error:
        evaluation(run, table, at=point, reliability=tmp_path / "there.gif", bootstrap=5)
    assert len(error.value.problems) == 2
    with pytest.raises(InputError, match=r"\.png, \.pdf, \.svg.*\n.*what evaluating reads"):
        evaluation(run, table, at=point, reliability=table, force=True)
