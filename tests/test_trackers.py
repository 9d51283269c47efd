"""Trackers: MLflow models, and trainings followed in TensorBoard and Weights & Biases."""

import base64
import dataclasses
import gc
import os
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from typer.testing import CliRunner

from data_tables import messy, problems_of
from tunelater import trackers
from tunelater.calibration import Platt
from tunelater.cli import app
from tunelater.config import Config, ImagesConfig, ModelConfig
from tunelater.data.image_form import ImageForm
from tunelater.data.tables import conform
from tunelater.estimator import LCTClassifier
from tunelater.models import build
from tunelater.points import OperatingPoint
from tunelater.problems import DoubtfulInputWarning, InputError
from tunelater.runs import Run
from tunelater.workflow import fit, predict, predictions_of

SMALL = Config(epochs=3, early_stopping=None)


def fitted(out: Path | None, **options: Any) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        return fit(messy(300), target="label", positive="fraud", out=out, config=SMALL, **options)


def test_fit_follows_in_tensorboard(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    messy(300).to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "c.toml").write_text(SMALL.to_toml(), encoding="utf-8")
    arguments = ["fit", "t.csv", "--target", "label", "--positive", "fraud", "--out", "run", "--config", "c.toml"]
    arguments = [str(tmp_path / word) if (tmp_path / word).exists() or word == "run" else word for word in arguments]
    result = CliRunner().invoke(app, [*arguments, "--tracker", "tensorboard"])
    assert result.exit_code == 0, result.output
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    history = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(history["loss"].tolist(), rel=1e-6)
    assert Run.load(tmp_path / "run").path == tmp_path / "run"


def test_problems_of_trackers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert any("tracker (--tracker) is one of" in told for told in problems_of(lambda: fitted(None, tracker="comet")))
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    told = problems_of(lambda: fitted(None, tracker="tensorboard"))
    assert [bool("tunelater[tensorboard]" in one) for one in told] == [True, False]
    assert "name one (out)" in told[1]
    (told_of_wandb,) = problems_of(lambda: fitted(tmp_path / "run", tracker="wandb"))
    assert "tunelater[wandb]" in told_of_wandb
    assert not list(tmp_path.iterdir())


def test_what_wandb_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stand-in; the real one is below."""
    told: dict[str, Any] = {"log": []}

    class Session:
        name, id = "run", "abc"

        def log(self, metrics: dict[str, float], step: int | None) -> None:
            told["log"].append((step, metrics))

        def finish(self, exit_code: int) -> None:
            told["exit_code"] = exit_code

    wandb: Any = types.ModuleType("wandb")
    wandb.init = lambda **options: told.update(options) or Session()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setattr(trackers, "find_spec", lambda name: object())
    fitted(tmp_path / "run", tracker="wandb")
    history = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert [step for step, _ in told["log"]] == history["epoch"].tolist()
    assert [metrics["loss"] for _, metrics in told["log"]] == pytest.approx(history["loss"].tolist())
    assert told["exit_code"] == 0
    assert (told["project"], told["name"]) == ("tunelater", "run")
    assert told["config"]["epochs"] == 3
    assert not list(tmp_path.glob(".run*"))


@pytest.mark.skipif(trackers.find_spec("wandb") is None, reason="needs tunelater[wandb]")
@pytest.mark.filterwarnings("ignore")
def test_wandb_offline_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    fitted(tmp_path / "run", tracker="wandb")
    (written,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    assert written.stat().st_size > 0
    assert b"learning_rate" in written.read_bytes()


# -------------------------------------------------------------------------------------------------------------- MLflow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fitted(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def point(run: Run) -> OperatingPoint:
    """Which alerts on half of some rows."""
    at = OperatingPoint({"gamma": 0.1, "tau": 1.0}, 0.5, 0.0, 0.05, model=run.id, calibration=Platt(0.3, 1.2))
    rows = run.form.split(conform(messy(100, seed=4), run.form.schema))
    median = float(predictions_of(run, at, rows).to_pandas()["log_odds"].median())
    return dataclasses.replace(at, log_odds_threshold=median, threshold=float(expit(median)))


@pytest.fixture(scope="module")
def logged(run: Run, point: OperatingPoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The model, loaded from a store in SQLite."""
    folder = tmp_path_factory.mktemp("mlflow")
    before = os.getcwd()
    os.chdir(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow about itself
        mlflow = pytest.importorskip("mlflow")
        pytest.importorskip("sqlalchemy")
        from tunelater.pyfunc import log_model

        mlflow.set_tracking_uri(f"sqlite:///{folder / 'store.db'}")
        mlflow.create_experiment("screen", artifact_location=str(folder / "artifacts"))
        mlflow.set_experiment("screen")
        with mlflow.start_run():
            info = log_model(run, point, registered_model_name="screen")
        yield types.SimpleNamespace(model=mlflow.pyfunc.load_model("models:/screen/1"), info=info, folder=folder)
        gc.collect()  # MLflow leaves connections to its database open
    os.chdir(before)


def asked(logged: Any, frame: pd.DataFrame, **params: float) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return logged.model.predict(frame, params=params or None)


def of_tunelater(run: Run, point: OperatingPoint, frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
    frame.to_parquet(folder / "new.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        predict(run, folder / "new.parquet", at=point, out=folder / "out.parquet")
    return pd.read_parquet(folder / "out.parquet")


def test_mlflow_predicts_as_the_library(logged: Any, run: Run, point: OperatingPoint, tmp_path: Path) -> None:
    frame = messy(100, seed=4)
    pd.testing.assert_frame_equal(asked(logged, frame), of_tunelater(run, point, frame, tmp_path), check_dtype=False)


def test_lambda_threshold_and_prior_are_parameters(
    logged: Any, run: Run, point: OperatingPoint, tmp_path: Path
) -> None:
    frame = messy(100, seed=4)
    lam = {"gamma": 0.3, "tau": 2.5}
    moved = dataclasses.replace(
        point, lam=lam, prior=0.5, threshold=0.7, log_odds_threshold=float(logit(0.7)), calibration=None
    )
    made = asked(logged, frame, **lam, prior=0.5, threshold=0.7)
    pd.testing.assert_frame_equal(made, of_tunelater(run, moved, frame, tmp_path), check_dtype=False)
    assert ((made["probability"] >= 0.7) == (made["prediction"] == "fraud")).all()


def test_another_prior_moves_probabilities_and_no_decision(logged: Any, point: OperatingPoint) -> None:
    """Calibrated probabilities too, by the priors' odds; decisions follow a threshold that is given with the prior."""
    frame = messy(100, seed=4)
    here, elsewhere = asked(logged, frame), asked(logged, frame, prior=0.5)
    shift = logit(0.5) - logit(point.prior)
    np.testing.assert_allclose(elsewhere["log_odds"] - here["log_odds"], shift, rtol=1e-9)
    np.testing.assert_allclose(logit(elsewhere["probability"]) - logit(here["probability"]), shift, rtol=1e-6)
    assert 0 < (here["prediction"] == "fraud").mean() < 1
    assert (elsewhere["prediction"] == here["prediction"]).all()
    given = asked(logged, frame, prior=0.5, threshold=point.threshold)
    assert ((given["log_odds"] >= logit(point.threshold)) == (given["prediction"] == "fraud")).all()
    assert (given["prediction"] != here["prediction"]).any()


def test_another_prior_is_the_same_to_the_classifier_and_to_models_of_mlflow() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    y = X[:, 0] + rng.normal(size=300) > 1.5
    model = LCTClassifier(trunk="mlp", epochs=3, random_state=0).fit(X[:200], y[:200])
    point = dataclasses.replace(model.tune(X[200:], y[200:], maximize="f1", grid=2), calibration=Platt(0.3, 1.2))
    model = model.at(point)
    samples = model.run_.form.split(pd.DataFrame(X, columns=["x0", "x1", "x2"]))
    for prior in (0.05, 0.5):
        made = predictions_of(model.run_, point, samples, prior).to_pandas()
        np.testing.assert_allclose(made["probability"], model.predict_proba(X, prior=prior)[:, 1], rtol=1e-4)
        assert ((made["prediction"] == model.run_.form.labels[1]) == model.predict(X)).all()


def test_a_threshold_that_rounds_to_one_stays_what_it_is(logged: Any, run: Run, point: OperatingPoint) -> None:
    from tunelater.pyfunc import _asked

    extreme = dataclasses.replace(point, log_odds_threshold=50.0, threshold=1.0)
    moved, prior = _asked(extreme, {"prior": 0.2, "threshold": None}, run)
    assert (moved.log_odds_threshold, prior) == (50.0, 0.2)
    moved, _ = _asked(extreme, {"prior": 0.2, "threshold": 0.3}, run)
    assert moved.log_odds_threshold == pytest.approx(logit(0.3) - logit(0.2) + logit(point.prior))


def test_parameters_are_in_the_signature_with_the_points_defaults(logged: Any, point: OperatingPoint) -> None:
    params = {param.name: param.default for param in logged.info.signature.params}
    assert params == {**point.lam, "threshold": None, "prior": point.prior}


def test_columns_of_the_result_are_in_the_signature(logged: Any) -> None:
    """Which registries ask for."""
    made = asked(logged, messy(5))
    of = {"double": "float64", "string": "str", "boolean": "bool"}
    assert {column.name: of[column.type.name] for column in logged.info.signature.outputs} == {
        name: str(dtype) for name, dtype in made.dtypes.items()
    }


def test_wrong_parameters_are_told_at_once(logged: Any) -> None:
    with pytest.raises(InputError) as caught:
        asked(logged, messy(5), prior=1.0, threshold=0.0, tau=-1.0)
    assert len(caught.value.problems) == 3


@pytest.fixture(scope="module")
def images(logged: Any) -> Any:
    """A model of images with its run, its point, and a folder of images."""
    pillow = pytest.importorskip("PIL.Image")
    folder = logged.folder / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        pillow.fromarray(rng.integers(0, 256, (20 + i, 30, 3), np.uint8)).save(folder / f"{i}.png")
    config = Config(model=ModelConfig("resnet32"), images=ImagesConfig(size=16))
    assert config.images is not None
    splits = ("train", "validation", "test")
    hashes = {name: np.empty((0, 1), np.uint64) for name in splits}
    facts = {"class_counts": [990, 10], "fingerprint": "none"}
    form = ImageForm(config.images, ("sound", "cracked"))
    run = Run(config, build(config).eval(), form, facts, {name: np.arange(0) for name in splits}, hashes)
    at = OperatingPoint({"gamma": 0.1, "tau": 1.0}, float(expit(-4.0)), -4.0, 0.05, model=run.id)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow

        from tunelater.pyfunc import log_model

        with mlflow.start_run():
            model = mlflow.pyfunc.load_model(log_model(run, at).model_uri)
    return types.SimpleNamespace(model=model, run=run, point=at, folder=folder)


@pytest.mark.parametrize("as_text", [False, True])
def test_mlflow_predicts_images_as_the_library(images: Any, as_text: bool, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        predict(images.run, images.folder, at=images.point, out=tmp_path / "out.parquet")
    expected = pd.read_parquet(tmp_path / "out.parquet")
    contents: list[Any] = [(images.folder / name).read_bytes() for name in expected["path"]]
    if as_text:  # as in a request
        contents = [base64.b64encode(each).decode() for each in contents]
    made = asked(images, pd.DataFrame({"image": contents}))
    pd.testing.assert_frame_equal(made, expected.drop(columns="path"), check_dtype=False)
    assert len(set(made["log_odds"])) == 6


def test_images_that_mlflow_cannot_read_are_told_at_once(images: Any) -> None:
    sound = (images.folder / "0.png").read_bytes()
    with pytest.raises(InputError, match=r"got 3 of 4 not: row 1 \(not an image\), row 2 .*, row 3"):
        asked(images, pd.DataFrame({"image": [sound, b"cracked", sound[:60], "no base64"]}))
    with pytest.raises(InputError, match=r"column 'image', .*; got path"):
        asked(images, pd.DataFrame({"path": ["0.png"]}))


def test_what_mlflow_stores_has_no_pickle(logged: Any) -> None:
    files = [path for path in (logged.folder / "artifacts").rglob("*") if path.is_file()]
    assert any(path.name == "weights.safetensors" for path in files)
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".pt", ".bin")]
