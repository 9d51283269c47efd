"""LCTClassifier: scikit-learn's own checks, its composition with scikit-learn's tools, and what `tune` chooses."""

from __future__ import annotations

import io
import json
import pickle
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.special import logit
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris, make_classification
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, precision_score, recall_score
from sklearn.model_selection import GridSearchCV, TunedThresholdClassifierCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from typer.testing import CliRunner

import tunelater
from tunelater import LambdaSpace, LCTClassifier, Linear
from tunelater.cli import app
from tunelater.data.splits import Splits, TensorSplit
from tunelater.multiclass import ClassPoint
from tunelater.points import OperatingPoint
from tunelater.problems import DoubtfulInputWarning, InputError
from tunelater.runs import Run
from tunelater.scoring import score_classes
from tunelater.training import train

WEIGHTS = (
    "batches hold rows: one of weight 2 is in one batch, its two copies may be in two; and float32 sums of other terms "
    "differ in their last digits"
)
EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": WEIGHTS,
    "check_sample_weight_equivalence_on_sparse_data": WEIGHTS,
}
QUICK: dict[str, Any] = {"epochs": 3, "width": 16, "depth": 1, "random_state": 0}


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [LCTClassifier(epochs=12, width=16, depth=1, dropout=0.0, learning_rate=0.05)],
    expected_failed_checks=lambda _: EXPECTED,
)
def test_scikit_learns_checks(estimator: LCTClassifier, check: Any) -> None:
    check(estimator)


# ------------------------------------------------------------------------------------------------------------- fixtures


def binary(n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return make_classification(n, 6, weights=[0.85], class_sep=1.5, flip_y=0.05, random_state=seed)


@pytest.fixture(scope="module")
def two() -> LCTClassifier:
    X, y = binary()
    return LCTClassifier(**QUICK | {"epochs": 8}).fit(X[:400], y[:400])


@pytest.fixture(scope="module")
def held() -> tuple[np.ndarray, np.ndarray]:
    X, y = binary()
    return X[400:], y[400:]


def iris() -> tuple[pd.DataFrame, pd.Series]:
    X, y = load_iris(return_X_y=True, as_frame=True)
    order = np.random.default_rng(0).permutation(len(X))
    noise = np.random.default_rng(1).normal(0, 0.8, X.shape)  # so that classes overlap
    return (X + noise).iloc[order], pd.Series(load_iris().target_names[y], name="kind").iloc[order]


@pytest.fixture(scope="module")
def three() -> LCTClassifier:
    X, y = iris()
    return LCTClassifier(**QUICK | {"epochs": 30, "learning_rate": 0.01}).fit(X[:90], y[:90])


@pytest.fixture
def rest() -> tuple[pd.DataFrame, pd.Series]:
    X, y = iris()
    return X[90:], y[90:]


def mixed(n: int = 240) -> tuple[pd.DataFrame, np.ndarray]:
    """Numbers with gaps, categories, text and truth values, of which two tell something."""
    rng = np.random.default_rng(0)
    y = (rng.random(n) < 0.3).astype(int)
    frame = pd.DataFrame(
        {
            "size": np.where(rng.random(n) < 0.1, np.nan, rng.normal(y, 1)),
            "shape": pd.Categorical(np.where(rng.random(n) < 0.8, np.array(["round", "flat"])[y], "odd")),
            "site": rng.choice(["x", "y", None], n),
            "old": rng.random(n) < 0.5,
        }
    )
    return frame, y


# ----------------------------------------------------------------------------------------------------------- parameters


def test_parameters_are_kept_as_given_and_cloned() -> None:
    given = {"loss": "focal", "lambdas": {"alpha": 0.3, "phi": "linear(0, 2, 0.5)"}, "prior": 0.1, "width": 8}
    model = clone(LCTClassifier(**given).set_params(epochs=2))
    assert {name: model.get_params()[name] for name in given} == given
    assert model.epochs == 2
    space = LambdaSpace(gamma=0.0, tau=Linear(0, 2, 0.5))
    assert clone(LCTClassifier(lambdas=space)).lambdas == space


def test_everything_wrong_is_told_at_once_and_nothing_is_left_fitted() -> None:
    model = LCTClassifier(
        "vz", {"tau": "lin(0)"}, epochs=0, width=-1, film="middle", validation_fraction=1.5, device="tpu",
        numeric="log", random_state="x", prior=3, pos_label="no",
    )  # fmt: skip
    X, y = binary(60)
    with pytest.raises(InputError) as error:
        model.fit(X, y)
    told = "\n".join(error.value.problems)
    for part in ("no loss 'vz'", "a distribution is", "epochs must be", "width must be", "film.placement",
                 "validation_fraction lies in", "device is one of", "numeric is one of", "'x' cannot be used to seed",
                 "a prior lies in", "pos_label is one of"):  # fmt: skip
        assert part in told, part
    assert not hasattr(model, "run_")
    with pytest.raises(InputError, match=r"epochs must be(.|\n)*NaN"):
        LCTClassifier(epochs=0).fit(X, np.where(y, np.nan, 1.0))
    with pytest.raises(InputError, match="column that varies"):
        LCTClassifier().fit(np.ones((60, 2)), y)
    with pytest.raises(InputError, match=r"got 'tabn'; did you mean 'tabm'(.|\n)*trunk_options is a dict(.|\n)*NaN"):
        LCTClassifier(trunk="tabn", trunk_options=3).fit(X, np.where(y, np.nan, 1.0))
    with pytest.raises(InputError, match="has no option 'member'; did you mean 'members'"):
        LCTClassifier(trunk_options={"member": 3}).fit(X, y)


def test_a_fit_that_fails_leaves_the_former_one_whole() -> None:
    X, y = binary(60)
    model = LCTClassifier(**QUICK).fit(X, y)
    before = model.predict_proba(X)
    with pytest.raises(InputError, match="column that varies"):
        model.fit(np.ones((60, 2)), np.where(y, "a", "b"))
    np.testing.assert_array_equal(model.predict_proba(X), before)
    assert model.classes_.tolist() == [0, 1]


@pytest.mark.parametrize("film", ["features", "stages", "logits", None])
def test_lambda_enters_where_it_is_asked_to(film: str | None) -> None:
    X, y = binary(120)
    model = LCTClassifier(**QUICK, film=film).fit(X, y)
    apart = model.decision_function(X, lam={"gamma": 0, "tau": 0}) - model.decision_function(X, lam=model.lam_)
    assert np.ptp(apart) > 1e-3 if film else np.ptp(apart) >= 0
    split, lambdas = TensorSplit(*inputs(model, X)), model.run_.config.lambdas.grid(2)
    scores = model.run_.score(split, model.lam_)
    np.testing.assert_allclose(model.decision_function(X), scores.log_odds[0], rtol=1e-4, atol=1e-4)
    of_classes = score_classes(model.run_.model, split, lambdas, model.run_.family).log_posterior
    log_odds = model.run_.score(split, lambdas).log_odds
    np.testing.assert_allclose(of_classes[..., 1] - of_classes[..., 0], log_odds, rtol=1e-4, atol=1e-4)


def inputs(model: LCTClassifier, X: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    features = pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])
    x = torch.from_numpy(model.run_.form.preprocessor.transform(features))
    return x, torch.zeros(len(x), dtype=torch.int64)


# --------------------------------------------------------------------------------------------------------------- inputs


def test_what_was_trained_on_an_array_takes_a_frame_of_any_numbers() -> None:
    X, y = binary(120)
    X = X.round()
    model = LCTClassifier(**QUICK).fit(X, y)
    for kind in (np.int64, np.float32):
        with pytest.warns(UserWarning, match="X has feature names, but LCTClassifier was fitted without"):
            again = model.predict_proba(pd.DataFrame(X.astype(kind), columns=[*"abcdef"]))
        np.testing.assert_array_equal(again, model.predict_proba(X))


@pytest.mark.parametrize(
    "labels",
    [["b", "a"], [True, False], [2.0, -1.0], [10, 3], np.array(["x", "yy"], object), pd.Categorical(["n", "p"])],
    ids=str,
)
def test_labels_of_any_type_come_back_as_those_that_integers_would_be(labels: Any) -> None:
    X, y = binary(120)
    values = pd.Series(labels)[y]
    model = LCTClassifier(**QUICK).fit(X, values if isinstance(labels, pd.Categorical) else values.to_numpy())
    first, second = sorted(pd.Series(labels).tolist())
    assert model.classes_.tolist() == [first, second]
    as_integers = LCTClassifier(**QUICK).fit(X, (values == second).to_numpy().astype(int))
    np.testing.assert_array_equal(model.predict_proba(X), as_integers.predict_proba(X))
    assert model.predict(X).tolist() == [[first, second][i] for i in as_integers.predict(X)]


def test_data_frames_of_pandas_and_polars_give_one_model() -> None:
    polars = pytest.importorskip("polars")
    frame, y = mixed()
    model = LCTClassifier(**QUICK).fit(frame, y)
    other = LCTClassifier(**QUICK).fit(polars.from_pandas(frame), polars.Series(y))
    assert other.feature_names_in_.tolist() == list(frame.columns)
    np.testing.assert_array_equal(model.predict_proba(frame), other.predict_proba(polars.from_pandas(frame)))


def test_frames_with_categories_and_gaps_are_learned_from() -> None:
    frame, y = mixed()
    model = LCTClassifier(**QUICK | {"epochs": 30, "learning_rate": 0.01}).fit(frame[:160], y[:160])
    assert balanced_accuracy_score(y[160:], model.predict(frame[160:])) > 0.7
    kinds = model.run_.form.schema.columns
    assert kinds == {"size": "numeric", "shape": "categorical", "site": "categorical", "old": "boolean"}
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame.rename(columns={"size": "weight"}))
    with pytest.raises(InputError, match="'size'"):
        model.predict(frame.assign(size="large"))
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        np.testing.assert_array_equal(model.predict(frame.to_numpy()), model.predict(frame))


def test_columns_that_are_no_features_are_told() -> None:
    frame, y = mixed()
    with pytest.warns(DoubtfulInputWarning, match=r"identifier.*constant"):
        model = LCTClassifier(**QUICK).fit(frame.assign(patient_id=range(len(frame)), country="CH"), y)
    assert model.n_features_in_ == 6
    assert set(model.run_.form.schema.columns) == set(frame.columns)


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csc_matrix, sparse.coo_array])
def test_sparse_is_as_dense(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = binary(150)
    X[np.abs(X) < 0.7] = 0
    dense, model = (LCTClassifier(**QUICK).fit(form(X), y) for form in (np.asarray, kind))
    whole = dense.predict_proba(X)
    monkeypatch.setattr("tunelater.estimator.PIECE", 1000)  # bytes: pieces of 20 rows
    np.testing.assert_allclose(model.predict_proba(kind(X)), whole, rtol=1e-12)
    monkeypatch.setattr("tunelater.estimator.MOST_DENSE_MB", 0)
    with pytest.raises(InputError, match="reduce its columns"):
        clone(model).fit(kind(X), y)


def test_missing_numbers_in_arrays_are_taken_and_infinite_ones_refused() -> None:
    X, y = binary(150)
    X[::7, 2] = np.nan
    model = LCTClassifier(**QUICK).fit(X, y)
    assert np.isfinite(model.predict_proba(X)).all()
    with pytest.raises(ValueError, match="infinity"):
        model.predict(np.full((1, 6), np.inf))


# ------------------------------------------------------------------------------------------------------------- training


def test_a_seed_gives_one_model_whatever_the_global_state() -> None:
    X, y = binary(200)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    first = LCTClassifier(**QUICK).fit(X, y)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(2)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    second = LCTClassifier(**QUICK).fit(X, y)
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    assert first.run_.id == second.run_.id
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    other = clone(first).set_params(random_state=np.random.RandomState(5)).fit(X, y)
    assert other.run_.id != first.run_.id


def test_threads_change_last_digits_at_most() -> None:
    X, y = binary(300)
    before = torch.get_num_threads()
    try:
        probabilities = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            probabilities.append(LCTClassifier(**QUICK).fit(X, y).predict_proba(X))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(*probabilities, rtol=1e-4, atol=1e-6)


def test_rows_of_weight_zero_are_as_if_not_there_and_weights_are_relative() -> None:
    X, y = binary(200)
    weight = np.random.default_rng(0).integers(0, 3, len(y)).astype(float)
    model = LCTClassifier(**QUICK).fit(X, y, weight)
    without = LCTClassifier(**QUICK).fit(X[weight > 0], y[weight > 0], weight[weight > 0])
    np.testing.assert_array_equal(model.predict_proba(X), without.predict_proba(X))
    doubled = LCTClassifier(**QUICK).fit(X, y, 2 * weight)
    np.testing.assert_allclose(model.predict_proba(X), doubled.predict_proba(X), rtol=1e-4)


def test_weights_are_as_repetitions_where_batches_and_scaling_hold_all_rows() -> None:
    """What scikit-learn's check asks for, to float32: without a split, in one batch, over the same distinct rows."""
    X, y = binary(60)
    weight = np.random.default_rng(0).integers(1, 4, len(y))
    told = QUICK | {"early_stopping": False, "batch_size": 1000, "dropout": 0.0, "epochs": 10}
    # Quantiles of repeated rows are others; these two columns of two values each have the same scale either way.
    X = np.sign(X[:, :3]) * np.array([1, 2, 4])
    X = np.vstack([X, -X])
    y, weight = np.append(y, 1 - y), np.append(weight, weight)
    weighted = LCTClassifier(**told, numeric="standard").fit(X, y, weight)
    repeated = LCTClassifier(**told, numeric="standard").fit(X.repeat(weight, 0), y.repeat(weight))
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-3)


def test_it_stops_early_on_rows_held_back_of_each_class() -> None:
    X, y = binary(300)
    model = LCTClassifier(**QUICK | {"epochs": 60, "learning_rate": 0.05}, patience=2, validation_fraction=0.25)
    model.fit(X, y)
    assert model.n_iter_ == len(model.history_) < 60
    assert model.best_epoch_ == model.n_iter_ - 2
    for c in (0, 1):
        assert (y[model.run_.rows["validation"]] == c).sum() == pytest.approx((y == c).sum() / 4, abs=1)
    all_rows = clone(model).set_params(early_stopping=False, epochs=3).fit(X, y)
    assert len(all_rows.run_.rows["train"]) == 300
    assert all_rows.n_iter_ == all_rows.best_epoch_ == 3


def test_a_class_with_a_single_row_is_trained_on() -> None:
    X, y = binary(60)
    y = np.where(np.arange(60) == 7, 2, y)
    with pytest.warns(DoubtfulInputWarning, match="a class has a single row"):
        model = LCTClassifier(**QUICK).fit(X, y)
    assert model.predict_proba(X).shape == (60, 3)


@pytest.mark.parametrize(
    ("loss", "more"),
    [
        *((loss, {}) for loss in ("vs", "focal", "weighted_cross_entropy", "cross_entropy", "ldam")),
        ("ldam", {"trunk": "mlp", "head": "cosine"}),
    ],
)
@pytest.mark.parametrize("k", [2, 3])
def test_every_loss_learns_two_classes_and_three(loss: str, more: dict[str, str], k: int) -> None:
    X, y = iris()
    some = np.isin(y, ["setosa", "versicolor", "virginica"][:k])
    model = LCTClassifier(loss, **QUICK | {"epochs": 40, "learning_rate": 0.03} | more).fit(X[some], y[some])
    assert balanced_accuracy_score(y[some], model.predict(X[some])) > 0.75
    assert len(model.run_.family.class_counts) == k


def test_training_on_several_classes_needs_all_of_them_and_stops_on_log_loss() -> None:
    config = tunelater.Config(epochs=1, early_stopping=tunelater.config.EarlyStoppingConfig("auc"))
    model = tunelater.models.build(config, n_classes=3, n_features=2)
    split = TensorSplit(torch.randn(6, 2), torch.tensor([0, 1, 0, 1, 0, 1]))
    with pytest.raises(InputError, match=r"each of 3 classes, got weights(.|\n)*is 'log_loss', got 'auc'"):
        train(config, Splits(split, split), model)


def test_verbose_prints_a_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = binary(60)
    LCTClassifier(**QUICK, verbose=1).fit(X, y)
    assert len(capsys.readouterr().out.splitlines()) == 3


# ----------------------------------------------------------------------------------------------------------- predicting


def test_probabilities_move_with_the_prior_by_its_odds(two: LCTClassifier, held: Any) -> None:
    X, _ = held
    trained = two.run_.family.prior
    moved = logit(two.predict_proba(X, prior=0.01)[:, 1])
    np.testing.assert_allclose(moved, two.decision_function(X) + logit(0.01) - logit(trained), atol=1e-8)
    model = two.at(None).set_params(prior=0.01)
    np.testing.assert_allclose(model.predict_proba(X), two.predict_proba(X, prior=0.01))
    np.testing.assert_array_equal(model.predict(X), (moved > 0).astype(int))


def test_probabilities_of_several_classes_move_with_their_shares(three: LCTClassifier, rest: Any) -> None:
    X, _ = rest
    prior = {"virginica": 0.5, "setosa": 0.2, "versicolor": 0.3}
    p, q = three.predict_proba(X), three.predict_proba(X, prior=prior)
    counts = np.array(three.run_.family.class_counts)
    expected = p * np.array([0.2, 0.3, 0.5]) / counts
    np.testing.assert_allclose(q, expected / expected.sum(1, keepdims=True), rtol=1e-8)
    np.testing.assert_array_equal(three.predict(X), three.classes_[p.argmax(1)])
    with pytest.raises(InputError, match="3 shares"):
        three.predict_proba(X, prior=0.5)


def test_probabilities_at_another_lambda_keep_the_points_prior(held: Any) -> None:
    X, y = binary()
    model = LCTClassifier(**QUICK | {"epochs": 8}).fit(X[:400], y[:400])
    lam = {"gamma": 0.1, "tau": 0.5}
    before = model.predict_proba(X, lam=lam, prior=0.02)
    model.tune(*held, maximize="f1", prior=0.02, calibrate="platt")
    np.testing.assert_array_equal(model.predict_proba(X, lam=lam), before)


def test_a_lambda_beyond_the_training_is_told(two: LCTClassifier, held: Any) -> None:
    with pytest.warns(DoubtfulInputWarning, match="not trained at gamma 5, tau 80: .* extrapolated"):
        two.predict_proba(held[0], lam={"gamma": 5, "tau": 80})


@pytest.mark.parametrize("prior", [5, 0, (0.01, 0.1), "1%", [0.9, 0.1], {0: 0.9, 1: 0.1}])
def test_a_wrong_prior_that_is_set_after_fit_is_refused(prior: Any, held: Any, tmp_path: Path) -> None:
    X, y = binary(60)
    model = LCTClassifier(**QUICK).fit(X, y).set_params(prior=prior)
    for use in (model.predict_proba, model.predict, lambda X: model.save(tmp_path / "model")):
        with pytest.raises(InputError, match="prior"):
            use(X)
    assert not any(tmp_path.iterdir())


def test_lambda_must_be_one_of_the_loss(two: LCTClassifier, held: Any) -> None:
    with pytest.raises(InputError, match="lack tau"):
        two.predict_proba(held[0], lam={"gamma": 0.1})
    for wrong in ([0.1, 1], {"gamma": "a", "tau": 1}, {"gamma": None, "tau": 1}):
        with pytest.raises(InputError, match="by name"):
            two.decision_function(held[0], lam=wrong)


def test_the_positive_class_may_be_the_first(held: Any) -> None:
    X, y = binary()
    words = np.array(["rare", "usual"])[1 - y]  # sorted, the rare one comes first
    one = LCTClassifier(**QUICK, pos_label="rare").fit(X[:400], words[:400])
    same = LCTClassifier(**QUICK).fit(X[:400], y[:400])
    np.testing.assert_allclose(one.predict_proba(X), same.predict_proba(X)[:, ::-1])
    np.testing.assert_allclose(one.decision_function(X), -same.decision_function(X))
    point = one.tune(X[400:], words[400:], maximize="precision", subject_to="recall>=0.7", calibrate="platt")
    theirs = same.tune(X[400:], y[400:], maximize="precision", subject_to="recall>=0.7", calibrate="platt")
    assert point.threshold == theirs.threshold
    np.testing.assert_array_equal(one.predict(X) == "rare", same.predict(X) == 1)
    np.testing.assert_allclose(one.predict_proba(X), same.predict_proba(X)[:, ::-1])
    assert ((one.decision_function(X) < 0) == (one.predict(X) == "rare")).all()
    matrix = one.tune(X[400:], words[400:], cost=[[0, 9], [1, 0]])  # rows and columns: rare, usual
    assert matrix.needs["cost"] == {"fn": 9, "fp": 1, "tp": 0, "tn": 0}


# --------------------------------------------------------------------------------------------------------------- tuning


def test_a_positive_class_that_is_frequent_is_told_when_one_chooses(held: Any) -> None:
    X, y = binary()
    words = np.array(["negative", "hypothyroid"])[y]  # sorted, the rare one comes first
    model = LCTClassifier(**QUICK).fit(X[:400], words[:400])
    with pytest.warns(DoubtfulInputWarning, match="say so: pos_label='hypothyroid'"):
        model.tune(X[400:], words[400:], maximize="f1")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the positive class")
        model.set_params(pos_label="negative").tune(X[400:], words[400:], maximize="f1")


def test_needs_of_the_wrong_form_are_refused(two: LCTClassifier, three: LCTClassifier, held: Any, rest: Any) -> None:
    with pytest.raises(InputError, match="constraints are a list"):
        two.tune(*held, maximize="f1", subject_to=None)
    with pytest.raises(InputError, match="constraints are a list"):
        three.tune(*rest, maximize="macro_f1", subject_to=None)
    for cost in (np.ones((3, 3)), [1, 2], "dear"):
        with pytest.raises(InputError, match="or a 2 x 2 matrix"):
            two.tune(*held, cost=cost)
    with pytest.raises(InputError, match="a prior lies in"):
        two.tune(*held, maximize="f1", prior=np.array([0.1, 0.9, 0.2]))


def test_a_point_of_several_classes_is_text(tmp_path: Path) -> None:
    (tmp_path / "point.json").write_bytes(bytes(range(128, 256)))
    with pytest.raises(InputError, match="it is not text"):
        ClassPoint.load(tmp_path / "point.json")


def test_a_point_does_what_it_says(two: LCTClassifier, held: Any) -> None:
    X, y = held
    model = two.at(None)
    point = model.tune(X, y, maximize="precision", subject_to="recall>=0.8", simplest=False)
    assert isinstance(point, OperatingPoint)
    assert model.point_ is point
    assert two.point_ is None
    predicted = model.predict(X)
    assert recall_score(y, predicted) == pytest.approx(point.metrics["recall"].value)
    assert recall_score(y, predicted) >= 0.8
    assert precision_score(y, predicted) == pytest.approx(point.metrics["precision"].value)
    assert ((model.decision_function(X) >= 0) == (predicted == 1)).all()
    np.testing.assert_array_equal(two.at(point).predict(X), predicted)
    np.testing.assert_allclose(
        logit(model.predict_proba(X)[:, 1]) - point.log_odds_threshold, model.decision_function(X)
    )


def test_needs_are_those_of_the_library(two: LCTClassifier, held: Any) -> None:
    """Costs, ranges of priors, calibration and guarantees go through."""
    X, y = held
    point = two.at(None).tune(X, y, cost={"fn": 20, "fp": 1}, prior=(0.05, 0.2), grid=2)
    assert point.prior == pytest.approx(0.1)
    calibrated = two.at(None)
    point = calibrated.tune(X, y, minimize="brier", calibrate="platt", grid={"gamma": [0.1], "tau": [1.0]})
    assert point.lam == {"gamma": 0.1, "tau": 1.0}
    moved = calibrated.predict_proba(X, prior=0.5)[:, 1]
    np.testing.assert_allclose(logit(moved) - logit(calibrated.predict_proba(X)[:, 1]), logit(0.5) - logit(point.prior))
    certified = two.at(None).tune(X, y, maximize="recall", subject_to="fpr<=0.5", guarantee=0.8)
    assert certified.certificate is not None
    with pytest.raises(tunelater.tuning.Infeasible):
        two.at(None).tune(X, y, maximize="recall", subject_to=["recall>=0.99", "alert_rate<=0.01"])


def test_subgroups_and_costs_come_from_columns_of_a_frame() -> None:
    frame, y = mixed()
    model = LCTClassifier(**QUICK | {"epochs": 20}).fit(frame[:120], y[:120])
    val = frame[120:].assign(amount=1.0)[[*frame.columns]]
    point = model.tune(val, y[120:], maximize="precision", subject_to="recall>=0.5 in every old")
    assert {"recall[old=true]", "recall[old=false]"} <= set(point.metrics)
    with pytest.raises(InputError, match="'ages'"):
        model.tune(val, y[120:], maximize="precision", subject_to="recall>=0.5 in every ages")


@pytest.mark.parametrize(
    "need",
    [
        {"maximize": "macro_f1", "subject_to": "recall>=0.6 in every class"},
        {"maximize": "balanced_accuracy", "subject_to": "recall[virginica]>=0.8"},
        {"cost": [[0, 1, 1], [2, 0, 1], [20, 10, 0]]},
        {"minimize": "log_loss"},
    ],
    ids=str,
)
def test_a_point_among_several_classes_does_what_it_says(three: LCTClassifier, rest: Any, need: dict) -> None:
    X, y = rest
    model = three.at(None)
    point = model.tune(X, y, **need, grid=3)
    assert isinstance(point, ClassPoint)
    predicted = model.predict(X)
    recalls = recall_score(y, predicted, average=None)
    for name, value in zip(model.classes_, recalls, strict=True):
        assert value == pytest.approx(point.metrics[f"recall[{name}]"].value)
    if "cost" in need:
        mean = (confusion_matrix(y, predicted) * np.array(need["cost"])).sum() / len(y)
        assert mean == pytest.approx(point.metrics["cost"].value)
    np.testing.assert_array_equal(model.classes_[model.decision_function(X).argmax(1)], predicted)
    np.testing.assert_array_equal(three.at(point).predict(X), predicted)
    assert np.allclose(model.predict_proba(X).sum(1), 1)


def test_rows_that_were_trained_on_do_not_choose(two: LCTClassifier, held: Any) -> None:
    X, y = binary()
    with pytest.warns(DoubtfulInputWarning, match="left out"):
        point = two.at(None).tune(X, y, maximize="f1")
    assert point.n == len(y) - len(two.run_.rows["train"])
    train_rows = two.run_.rows["train"]
    with (
        pytest.warns(DoubtfulInputWarning, match="left out"),
        pytest.raises(InputError, match="was not trained on, got none of 0, 1"),
    ):
        two.at(None).tune(X[train_rows], y[train_rows], maximize="f1")


def test_rows_that_are_equal_by_chance_choose() -> None:
    """Of rows of three truth values, any are among the training rows."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 2, (200, 3)).astype(float)
    y = (X.sum(axis=1) + rng.normal(0, 0.5, 200) > 2).astype(int)
    for early_stopping in (True, False):
        model = LCTClassifier(**QUICK, early_stopping=early_stopping).fit(X[:100], y[:100])
        with pytest.warns(DoubtfulInputWarning, match="equal others by chance"):
            assert model.tune(X[100:], y[100:], maximize="f1", grid=2).n == 100


def test_everything_wrong_with_tuning_is_told_at_once(
    two: LCTClassifier, three: LCTClassifier, held: Any, rest: Any
) -> None:
    X, y = held
    with pytest.raises(InputError) as error:
        two.tune(X, np.where(y, "yes", "no"), maximize="recal", prior=7, calibrate="magic", grid=0)
    told = "\n".join(error.value.problems)
    for part in ("did you mean 'recall'", "a prior lies in", "magic", "whole number of points", "labels are 0, 1"):
        assert part in told, part
    with pytest.raises(InputError) as error:
        three.tune(*rest, maximize="macro_f", guarantee=0.9, calibrate="platt")
    assert [part in str(error.value) for part in ("macro_f", "guarantee is of two", "calibrate is of two")] == [
        True
    ] * 3
    assert two.point_ is None


def test_a_point_of_another_model_is_refused(
    two: LCTClassifier, three: LCTClassifier, held: Any, tmp_path: Path
) -> None:
    X, y = binary()
    other = clone(two).set_params(random_state=3).fit(X[:400], y[:400])
    point = other.tune(*held, maximize="f1")
    with pytest.raises(InputError, match="belongs to model"):
        two.at(point)
    with pytest.raises(InputError, match="ClassPoint"):
        three.at(point)
    point.save(tmp_path / "point.json")
    np.testing.assert_array_equal(other.at(tmp_path / "point.json").predict(X), other.predict(X))
    copied = other.at(point)
    assert copied.run_ is other.run_
    assert not hasattr(clone(copied), "run_")


# ---------------------------------------------------------------------------------------------------------- composition


def test_pipelines_grids_and_column_transformers() -> None:
    frame, y = mixed()
    frame = frame.assign(size=frame["size"].fillna(0), site=frame["site"].fillna("none"))
    columns = ColumnTransformer([("n", StandardScaler(), ["size"]), ("c", OneHotEncoder(), ["shape", "site"])])
    pipeline = make_pipeline(columns, LCTClassifier(**QUICK))
    grid = {"lctclassifier__width": [4, 8], "lctclassifier__lambdas": [None, {"gamma": 0.0, "tau": 1.0}]}
    search = GridSearchCV(pipeline, grid, scoring="roc_auc", cv=2, error_score="raise").fit(frame, y)
    assert len(search.cv_results_["params"]) == 4
    assert search.predict_proba(frame).shape == (len(y), 2)


def test_calibration_and_thresholds_of_scikit_learns() -> None:
    X, y = binary(240)
    calibrated = CalibratedClassifierCV(LCTClassifier(**QUICK), cv=2, ensemble=False).fit(X, y)
    (fitted,) = calibrated.calibrated_classifiers_
    scores = fitted.estimator.decision_function(X)
    np.testing.assert_allclose(calibrated.predict_proba(X)[:, 1], fitted.calibrators[0].predict(scores))
    tuned = TunedThresholdClassifierCV(LCTClassifier(**QUICK), scoring="balanced_accuracy", cv=2).fit(X, y)
    told = tuned.estimator_.predict_proba(X)[:, 1] >= tuned.best_threshold_
    np.testing.assert_array_equal(tuned.predict(X), told.astype(int))


def test_cross_validation_hands_weights_on() -> None:
    X, y = binary(160)
    weight = np.where(np.arange(160) % 2, 1.0, 0.0)
    import sklearn

    with sklearn.config_context(enable_metadata_routing=True):
        model = LCTClassifier(**QUICK).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        told = cross_validate(
            model, X, y, cv=2, params={"sample_weight": weight}, return_estimator=True, error_score="raise"
        )
    assert {e.run_.data["rows"] for e in told["estimator"]} == {40}


# --------------------------------------------------------------------------------------------------------------- saving


def test_pickle_and_joblib_keep_the_model(two: LCTClassifier, held: Any) -> None:
    X, y = held
    model = two.at(None)
    model.tune(X, y, maximize="f1", calibrate="platt", grid=2)
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    for again in (pickle.loads(pickle.dumps(model)), joblib.load(file)):
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
        np.testing.assert_array_equal(again.predict(X), model.predict(X))


@pytest.mark.parametrize("which", ["two", "three"])
def test_saved_models_come_back_whole(
    which: str, request: pytest.FixtureRequest, held: Any, rest: Any, tmp_path: Path
) -> None:
    model = request.getfixturevalue(which).at(None)
    X, y = held if which == "two" else rest
    model.tune(X, y, maximize="balanced_accuracy", grid=2)
    model.save(tmp_path / "model")
    again = LCTClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert again.get_params() == model.get_params()
    assert again.point_.to_json() == model.point_.to_json()
    assert (again.n_iter_, again.best_epoch_, again.lam_) == (model.n_iter_, model.best_epoch_, model.lam_)
    assert again.tune(X, y, maximize="accuracy", grid=2) == model.tune(X, y, maximize="accuracy", grid=2)
    with pytest.raises(InputError, match="exists"):
        model.save(tmp_path / "model")
    model.save(tmp_path / "model", force=True)
    assert not list(tmp_path.glob("**/*.pkl"))


@pytest.mark.parametrize("dtype", ["U", "i8", "f4", "?", "O"])
def test_labels_keep_their_type_in_a_file(dtype: str, tmp_path: Path) -> None:
    X, y = binary(80)
    labels = y.astype(dtype) if dtype != "O" else np.where(y, "yes", "no").astype(object)
    model = LCTClassifier(
        **QUICK, prior=0.1, pos_label=labels[y == 0][0], lambdas={"gamma": 0.0, "tau": "uniform(0, 2)"}
    ).fit(X, labels)
    model.save(tmp_path / "m")
    again = LCTClassifier.load(tmp_path / "m")
    assert again.classes_.dtype == model.classes_.dtype
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(clone(again).fit(X, labels).predict_proba(X), model.predict_proba(X))


def test_damaged_and_foreign_folders_are_refused(two: LCTClassifier, run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        LCTClassifier.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"not written by LCTClassifier\.save"):
        LCTClassifier.load(run.path)
    two.save(tmp_path / "m")
    file = tmp_path / "m" / "estimator.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"order": [1, 0]}))
    with pytest.raises(InputError, match=r"damaged: estimator\.json"):
        LCTClassifier.load(tmp_path / "m")
    X, y = binary(60)
    days = np.array(["2020-01-01", "2020-01-02"], "datetime64[D]")[y]
    with pytest.raises(InputError, match="labels that can be saved"):
        LCTClassifier(**QUICK).fit(X, days).save(tmp_path / "days")
    assert not (tmp_path / "days").exists()


def test_the_command_line_reads_a_saved_model_of_two_classes(tmp_path: Path) -> None:
    frame, y = mixed()
    labels = pd.Series(np.where(y, "ill", "well"), name="state")
    model = LCTClassifier(**QUICK | {"epochs": 10}, pos_label="ill").fit(frame[:160], labels[:160])
    model.save(tmp_path / "model")
    new = tmp_path / "new.csv"
    frame[160:].assign(state=labels[160:]).to_csv(new, index=False)
    point = tmp_path / "point.json"
    for command in (
        ["tune", tmp_path / "model", new, "--maximize", "f1", "--grid", "3", "--out", point],
        ["evaluate", tmp_path / "model", new, "--at", point],
        ["predict", tmp_path / "model", new, "--at", point, "--out", tmp_path / "out.csv"],
    ):
        result = CliRunner().invoke(app, [str(word) for word in command])
        assert result.exit_code == 0, result.output
    told = pd.read_csv(tmp_path / "out.csv")
    mine = model.at(point)
    np.testing.assert_array_equal(told["prediction"], mine.predict(frame[160:]))
    np.testing.assert_allclose(told["probability"], mine.predict_proba(frame[160:])[:, 0], rtol=1e-4)


def test_commands_tell_that_they_are_for_two_classes(three: LCTClassifier, tmp_path: Path) -> None:
    three.save(tmp_path / "model")
    X, y = iris()
    X.assign(kind=y).to_csv(tmp_path / "iris.csv", index=False)
    result = CliRunner().invoke(
        app, ["tune", str(tmp_path / "model"), str(tmp_path / "iris.csv"), "--maximize", "f1", "--out", "p.json"]
    )
    assert result.exit_code == 2
    assert "3 classes: use LCTClassifier.load" in result.output.replace("\n", " ")


def test_the_documentation_runs(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tunelater-demo").mkdir()
    shutil.copy(table, tmp_path / "tunelater-demo" / "thyroid.csv")
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "docs" / "scikit-learn.md").read_text(encoding="utf-8")
    there: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DoubtfulInputWarning)
            exec(compile(block, "scikit-learn.md", "exec"), there)
    np.testing.assert_array_equal(there["again"].predict(there["X_test"]), there["model"].predict(there["X_test"]))


def test_importing_the_package_does_not_import_scikit_learn() -> None:
    import subprocess
    import sys

    told = "import sys, tunelater; print({'torch', 'sklearn', 'pandas'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True).stdout.strip() == "set()"


def test_nothing_warns_on_ordinary_data(held: Any) -> None:
    X, y = binary()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = LCTClassifier(**QUICK).fit(X[:400], y[:400])
        model.tune(*held, maximize="f1", grid=2)
        model.predict(held[0])
