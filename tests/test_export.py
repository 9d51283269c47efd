"""Exported models: the same numbers as PyTorch's from raw values, and everything that must go along."""

import contextlib
import copy
import dataclasses
import functools
import json
import re
import shutil
import threading
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.datasets import load_iris
from typer.testing import CliRunner

from data_tables import messy, problems_of
from tunelater import LCTClassifier, export, recipes
from tunelater.calibration import Platt
from tunelater.cli import app
from tunelater.config import Config, FiLMConfig, ImagesConfig, ModelConfig
from tunelater.data import tables
from tunelater.data.cells import as_arrow, as_categories, as_cells, spelling_of
from tunelater.data.image_form import ImageForm
from tunelater.data.images import ImageSplit
from tunelater.data.portable import NormalQuantile, PortablePreprocessor
from tunelater.data.preprocessing import Preprocessor
from tunelater.data.table_form import TableForm
from tunelater.distributions import LambdaSpace, Linear
from tunelater.export import Exported, export_model, portable
from tunelater.film import FiLM, LossConditional
from tunelater.models import build
from tunelater.multiclass import ClassPoint, at_shares
from tunelater.points import OperatingPoint
from tunelater.problems import DoubtfulInputWarning, InputError
from tunelater.runs import Run
from tunelater.scoring import score_classes
from tunelater.workflow import fit, predict

ROOT = Path(__file__).parents[1]
BATCHES = (1, 7, 1000)
PRIORS = (1e-6, 0.1, 0.999)
needs_onnx = pytest.mark.skipif(
    any(export.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs tunelater[onnx]",
)


@pytest.fixture(scope="module", autouse=True)
def translations_are_read_once() -> Iterator[None]:
    """PyTorch's exporter reads the source of its 500 translations anew for each file: a third of its time."""
    with pytest.MonkeyPatch.context() as patch:
        with contextlib.suppress(ImportError, AttributeError):  # of versions that have them elsewhere
            from torch.onnx._internal.exporter._registration import onnxscript_apis as made_by

            patch.setattr(made_by, "get_torchlib_ops", functools.cache(made_by.get_torchlib_ops))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Of the network that `fit` takes for a table, an ensemble with embeddings, on every kind of column."""
    config = dataclasses.replace(recipes.tables(), epochs=8, early_stopping=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        out = tmp_path_factory.mktemp("messy") / "run"
        return fit(messy(600), target="label", positive="fraud", out=out, config=config)


@pytest.fixture(scope="module")
def point(run: Run) -> OperatingPoint:
    lam = {"gamma": 0.1, "tau": 1.0}
    return OperatingPoint(lam, float(expit(-1.0)), -1.0, 0.05, model=run.id)


@pytest.fixture(scope="module")
def onnx_file(run: Run, point: OperatingPoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript")
    return export_model(run, tmp_path_factory.mktemp("onnx") / "model.onnx", at=point).out


def session_of(path: Path) -> Any:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options)


def described(session: Any) -> dict[str, Any]:
    told = session.get_modelmeta().custom_metadata_map
    return {key.removeprefix("tunelater."): value for key, value in told.items()}


def cells(frame: pd.DataFrame, inputs: list[dict[str, Any]]) -> dict[str, NDArray]:
    """A data frame with the features that a schema asks for, as a user of onnxruntime feeds it."""
    x = {}
    for told in inputs:
        column = frame[told["column"]]
        text = told["kind"] == "categorical"
        x[told["input"]] = column.astype(object).where(column.notna(), "").to_numpy() if text else column.to_numpy()
    return x


def codes(x: dict[str, NDArray], inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """The same for an exported program of PyTorch, by what its description says."""
    columns: dict[str, list[NDArray]] = {}
    for told in inputs:
        cell = x[told["input"]]
        if told["kind"] == "categorical":
            known = told["codes"] | {"": told["missing"]}
            cell = np.array([known.get(text, told["other"]) for text in cell])
        columns.setdefault(told["kind"].replace("date", "numeric"), []).append(cell)
    return {kind: torch.from_numpy(np.stack(some, axis=1)) for kind, some in columns.items()}


def of_library(run: Run, samples: Any, lam: dict[str, float], prior: float) -> NDArray:
    """The library's log-odds, as `predict` has them."""
    return run.score(samples, lam, split="new").log_odds[0].astype(float) + logit(prior) - logit(run.family.prior)


def lambdas_of(run: Run) -> list[dict[str, float]]:
    grid = run.config.lambdas.grid(2)
    n = max((len(values) for values in grid.values()), default=1)
    return [{name: float(values[i]) for name, values in grid.items()} for i in range(n)]


def check_onnx(path: Path, run: Run, x: dict[str, NDArray], samples: Any, lambdas: list[dict[str, float]]) -> None:
    session = session_of(path)
    for n in BATCHES:
        some = {name: values[:n] for name, values in x.items()}
        part = samples.take(torch.arange(n))
        for lam in lambdas:
            for prior in PRIORS:
                at = {name: np.array(value, np.float32) for name, value in lam.items()} | {"prior": np.array(prior)}
                check(run, *session.run(["logit", "probability"], some | at), of_library(run, part, lam, prior), prior)


def check_torch(
    path: Path, run: Run, x: dict[str, torch.Tensor], samples: Any, lambdas: list[dict[str, float]]
) -> None:
    program = torch.export.load(path).module()
    for n in BATCHES:
        some = {name: values[:n] for name, values in x.items()}
        part = samples.take(torch.arange(n))
        for lam in lambdas:
            for prior in PRIORS:
                at = {name: torch.tensor(value) for name, value in lam.items()}
                with torch.no_grad():
                    made = program(some, at, torch.tensor(prior, dtype=torch.float64))
                check(run, *(values.numpy() for values in made), of_library(run, part, lam, prior), prior)


def check(run: Run, odds: NDArray, probability: NDArray, expected: NDArray, prior: float) -> None:
    """To 1e-5; where log-odds go to hundreds, of the largest: what float32 adds up is as exact as its largest term."""
    assert odds.shape == probability.shape == expected.shape
    largest = np.abs(expected - logit(prior) + logit(run.family.prior)).max()
    np.testing.assert_allclose(odds, expected, rtol=1e-5, atol=1e-5 * max(1, largest / 10))
    np.testing.assert_allclose(probability, expit(expected), atol=1e-5)


# -------------------------------------------------------------------------------------------------------------- tables


@needs_onnx
def test_onnx_takes_raw_columns(run: Run, onnx_file: Path) -> None:
    session = session_of(onnx_file)
    inputs = json.loads(described(session)["inputs"])
    frame = tables.conform(messy(1000, seed=1), run.form.schema)
    frame.loc[:9, "amount"] = 1e300
    frame.loc[10:19, "colour"] = "never seen"
    frame.loc[20:29, ["amount", "count", "flag", "colour", "code", "day"]] = None
    check_onnx(onnx_file, run, cells(frame, inputs), run.form.split(frame), lambdas_of(run))
    shapes = {i.name: (i.type, i.shape) for i in session.get_inputs()}
    assert shapes["amount"] == ("tensor(double)", ["batch"])
    assert shapes["colour"] == ("tensor(string)", ["batch"])
    assert shapes["tau"] == ("tensor(float)", [])
    assert shapes["prior"] == ("tensor(double)", [])
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("logit", ["batch"]), ("probability", ["batch"])]


@needs_onnx
def test_onnx_gives_what_predict_writes(run: Run, point: OperatingPoint, onnx_file: Path, tmp_path: Path) -> None:
    raw = messy(50, seed=2)
    raw.to_csv(tmp_path / "new.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        predict(run, tmp_path / "new.csv", at=point, out=tmp_path / "out.parquet")
    expected = pd.read_parquet(tmp_path / "out.parquet")
    session = session_of(onnx_file)
    told = described(session)
    x: dict[str, NDArray] = {}
    for column in json.loads(told["inputs"]):
        values = raw[column["column"]]
        if column["kind"] == "date":
            days = (pd.to_datetime(values, format="ISO8601") - pd.Timestamp(0)) / pd.Timedelta(days=1)
            x[column["input"]] = days.to_numpy(float)
        elif column["kind"] == "boolean":
            x[column["input"]] = values.map({"yes": 1.0, "No": 0.0, True: 1.0, False: 0.0}).to_numpy(float)
        elif column["kind"] == "numeric":
            x[column["input"]] = values.to_numpy(float)
        else:
            x[column["input"]] = as_categories(as_cells(as_arrow(values)))
            x[column["input"]] = np.array(["" if cell is None else cell for cell in x[column["input"]]], object)
    (at,) = json.loads(told["points"])
    lam = {name: np.array(value, np.float32) for name, value in at["lam"].items()}
    odds, probability = session.run(None, x | lam | {"prior": np.array(at["prior"])})
    np.testing.assert_allclose(odds, expected.log_odds, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(probability, expected.probability, atol=1e-5)
    classes = np.array(json.loads(told["classes"]))
    assert (classes[(odds >= at["log_odds_threshold"]).astype(int)] == expected.prediction).all()


def test_torch_takes_columns_and_codes(run: Run, tmp_path: Path) -> None:
    done = export_model(run, tmp_path / "model.pt2")
    extra = {export.DESCRIPTION: ""}
    torch.export.load(done.out, extra_files=extra)
    told = json.loads(extra[export.DESCRIPTION])
    assert told == done.description
    frame = tables.conform(messy(1000, seed=1), run.form.schema)
    x = codes(cells(frame, told["inputs"]), told["inputs"])
    check_torch(done.out, run, x, run.form.split(frame), lambdas_of(run))
    exec(done.snippet, made := {})
    assert made["probability"].shape == (1,)


@pytest.mark.parametrize("numeric", ["quantile", "standard"])
@pytest.mark.parametrize("n", [1, 40, 3000])
def test_portable_preprocessing_is_that_of_the_library(numeric: Any, n: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        features, _, schema = tables.prepare(messy(3000), "label", "fraud")
    preprocessor = Preprocessor(numeric).fit(features.iloc[:n], schema)
    made = PortablePreprocessor(preprocessor)
    new = tables.conform(messy(500, seed=3), schema)
    learned = features["amount"].iloc[:n].dropna().unique()
    new.loc[: len(learned[:400]) - 1, "amount"] = learned[:400]  # where quantiles are, and between them
    x: dict[str, torch.Tensor] = {}
    for kind, names in made.columns.items():
        if kind == "categorical":
            spelled = {name: made.codes[name].spelled() for name in names}
            texts = new[list(names)].astype(object).where(new[list(names)].notna(), "")
            found = [[of.get(cell, made.codes[name].other) for cell in texts[name]] for name, of in spelled.items()]
            x[kind] = torch.tensor(found).T
        else:
            x[kind] = torch.tensor(new[list(names)].to_numpy(float))
    np.testing.assert_allclose(made(x).numpy(), preprocessor.transform(new), atol=1e-6)


def test_normal_quantile_is_scipys() -> None:
    share = np.concatenate([np.geomspace(1e-300, 0.5, 500), 1 - np.geomspace(1e-16, 0.5, 500)])
    np.testing.assert_allclose(
        NormalQuantile()(torch.from_numpy(share)).numpy(), norm.ppf(share), rtol=1e-14, atol=1e-15
    )


def test_other_spellings_of_a_category_mean_it(run: Run) -> None:
    inputs = portable(run).inputs
    assert isinstance(inputs, PortablePreprocessor)
    for column in inputs.codes.values():
        for text, code in column.spelled().items():
            missing = as_categories(as_cells(as_arrow(pd.Series([text]))))[0] is None
            assert code == (column.missing if missing else column.of[spelling_of(text)])


# ------------------------------------------------------------------------------------------------------------- families


SMALL: dict[str, Any] = {"width": 8, "depth": 2, "dropout": 0.0}


def wide(
    loss: str,
    film: FiLMConfig,
    head: Any = "linear",
    names: tuple[str, ...] = ("a", "b"),
    trunk: str = "mlp",
    **more: Any,
) -> tuple[Run, pd.DataFrame]:
    """An untrained run of some columns whose margins span hundreds."""
    rng = np.random.default_rng(0)
    features = pd.DataFrame(rng.standard_normal((1000, len(names))), columns=list(names))
    schema = tables.TableSchema(dict.fromkeys(names, "numeric"), "y", "1", "0")
    scaled: Any = "quantile" if "embedding" in more else "standard"
    form = TableForm(schema, Preprocessor(scaled).fit(features, schema), (*names, "y"))
    config = Config(loss=loss, film=film, model=ModelConfig(trunk, SMALL | more, head))
    model = build(config, **form.shape).eval()
    rows = dict.fromkeys(("train", "validation", "test"), np.arange(0))
    run = Run(config, model, form, {"class_counts": [990, 10], "fingerprint": "none"}, rows, {})
    return run, features * 200


CASES = {
    "cross-entropy": ("cross_entropy", FiLMConfig(), "linear", [{}]),
    "weighted": ("weighted_cross_entropy", FiLMConfig(placement="logits"), "linear", [{"omega": 0.0}, {"omega": 1.0}]),
    "vs": (
        "vs",
        FiLMConfig(placement="stages", start="identity"),
        "linear",
        [{"gamma": 0.0, "tau": 0.0}, {"gamma": 0.3, "tau": 3.0}],
    ),
    "ldam": ("ldam", FiLMConfig(), "cosine", [{"max_m": 0.0, "s": 1.0}, {"max_m": 1.0, "s": 30.0}]),
    "focal": (
        "focal",
        FiLMConfig(),
        "linear",
        [{"alpha": 0.5, "phi": 0.0}, {"alpha": 1e-3, "phi": 3.0}, {"alpha": 1 - 1e-3, "phi": 1.0}],
    ),
}


@needs_onnx
@pytest.mark.parametrize("case", CASES)
def test_every_family_and_every_place_of_lambda(case: str, tmp_path: Path) -> None:
    loss, film, head, lambdas = CASES[case]
    run, features = wide(loss, film, head)
    done = export_model(run, tmp_path / "model.onnx")
    check_onnx(done.out, run, cells(features, list(done.description["inputs"])), run.form.split(features), lambdas)


@needs_onnx
def test_an_ensemble_with_waves_and_lambda_in_its_layers(tmp_path: Path) -> None:
    film = FiLMConfig(placement="stages", start="identity")
    run, features = wide("focal", film, trunk="tabm", members=3, embedding="periodic")
    done = export_model(run, tmp_path / "model.onnx")
    x = cells(features, list(done.description["inputs"]))
    check_onnx(done.out, run, x, run.form.split(features), CASES["focal"][-1])


@pytest.mark.parametrize("case", ["focal", "vs"])
def test_families_as_exported_programs(case: str, tmp_path: Path) -> None:
    loss, film, head, lambdas = CASES[case]
    run, features = wide(loss, film, head)
    done = export_model(run, tmp_path / "model.pt2")
    x = {"numeric": torch.tensor(features.to_numpy())}
    check_torch(done.out, run, x, run.form.split(features), lambdas)


@needs_onnx
def test_columns_that_are_called_as_inputs_are(tmp_path: Path) -> None:
    run, features = wide("vs", FiLMConfig(), names=("prior", "logit", "tau", "column.prior"))
    done = export_model(run, tmp_path / "model.onnx")
    x = cells(features, list(done.description["inputs"]))
    assert set(x) == {"column.prior", "column.logit", "column.tau", "column.column.prior"}
    check_onnx(done.out, run, x, run.form.split(features), [{"gamma": 0.1, "tau": 1.0}])


# -------------------------------------------------------------------------------------------------------------- float16


def rounded(run: Run) -> Run:
    """The run with float32 weights that went through float16: what an export in float16 stands for."""
    model = copy.deepcopy(run.model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "parametrizations" not in name:
                weight.copy_(weight.half().float())
    return dataclasses.replace(run, model=model)


@pytest.mark.parametrize("suffix", [pytest.param(".onnx", marks=needs_onnx), ".pt2"])
def test_weights_in_float16_are_those_of_pytorch_rounded(run: Run, suffix: str, tmp_path: Path) -> None:
    done = export_model(run, tmp_path / f"model{suffix}", half=True)
    inputs = done.description["inputs"]
    frame = tables.conform(messy(1000, seed=1), run.form.schema)
    samples, x = run.form.split(frame), cells(frame, inputs)
    if suffix == ".onnx":
        check_onnx(done.out, rounded(run), x, samples, lambdas_of(run))
    else:
        check_torch(done.out, rounded(run), codes(x, inputs), samples, lambdas_of(run))
    assert done.description["weights"] == "float16"


def check_says_nothing_of_where_it_was_made(file: Path) -> None:
    content = file.read_bytes()
    assert b"tunelater" in content
    assert str(Path(export.__file__).parent).encode() not in content
    assert str(file.parent).encode() not in content


@needs_onnx
def test_onnx_says_nothing_of_where_it_was_made(onnx_file: Path) -> None:
    check_says_nothing_of_where_it_was_made(onnx_file)


def test_exported_programs_say_nothing_of_where_they_were_made(tmp_path: Path) -> None:
    run, _ = wide("vs", FiLMConfig())
    check_says_nothing_of_where_it_was_made(export_model(run, tmp_path / "model.pt2").out)


@needs_onnx
def test_no_large_constant_is_in_a_file_twice(onnx_file: Path) -> None:
    import onnx

    constants = [onnx.numpy_helper.to_array(each) for each in onnx.load(onnx_file).graph.initializer]
    contents = [(each.dtype, each.shape, each.tobytes()) for each in constants if each.size > 8]
    assert contents
    assert len(set(contents)) == len(contents)


def test_float16_moves_log_odds_in_the_third_digit(run: Run) -> None:
    frame = tables.conform(messy(1000, seed=1), run.form.schema)
    samples = run.form.split(frame)
    for lam in lambdas_of(run):
        full, half = (of_library(each, samples, lam, 0.1) for each in (run, rounded(run)))
        assert 0 < np.abs(half - full).max() < 5e-3 * np.abs(full).max()
        np.testing.assert_allclose(expit(half), expit(full), atol=2e-3)


@pytest.mark.parametrize("suffix", [pytest.param(".onnx", marks=needs_onnx), ".pt2"])
def test_float16_halves_the_file_of_a_large_network(suffix: str, tmp_path: Path) -> None:
    run, _ = wide("vs", FiLMConfig(), width=512)
    full = export_model(run, tmp_path / f"full{suffix}").out.stat().st_size
    half = export_model(run, tmp_path / f"half{suffix}", half=True).out.stat().st_size
    assert full > 4 * sum(weight.numel() for weight in run.model.parameters())
    assert half < 0.55 * full


def test_weights_that_float16_has_no_room_for_stay_float32() -> None:
    run, features = wide("vs", FiLMConfig())
    with torch.no_grad():
        run.model.trunk.layers[0].weight[0, 0] = 1e6
    model = portable(run, half=True)
    x = {"numeric": torch.tensor(features.to_numpy())}
    lam = {"gamma": torch.tensor(0.1), "tau": torch.tensor(1.0)}
    with torch.no_grad():
        odds, _ = model(x, lam, torch.tensor(0.5, dtype=torch.float64))
    assert odds.isfinite().all()
    assert model.model.trunk.layers[0].weight[0, 0] == 1e6
    assert {weight.dtype for weight in model.model.parameters()} == {torch.float16, torch.float32}


# -------------------------------------------------------------------------------------------------------- scikit-learn


def iris() -> tuple[pd.DataFrame, pd.Series]:
    """With noise, so that classes overlap."""
    X, y = load_iris(return_X_y=True, as_frame=True)
    noise = np.random.default_rng(1).normal(0, 0.8, X.shape)
    order = np.random.default_rng(0).permutation(len(X))
    return (X + noise).iloc[order], pd.Series(load_iris().target_names[y], name="kind").iloc[order]


def classifier(loss: str = "vs", **options: Any) -> LCTClassifier:
    return LCTClassifier(loss, epochs=15, width=16, depth=1, learning_rate=0.01, random_state=0, **options)


@pytest.fixture(scope="module")
def three() -> LCTClassifier:
    X, y = iris()
    model = classifier().fit(X[:90], y[:90])
    model.tune(X[90:], y[90:], maximize="macro_f1", grid=2)
    return model


@pytest.fixture(scope="module")
def dear(three: LCTClassifier) -> LCTClassifier:
    """The same at another point: errors of some classes cost more."""
    X, y = iris()
    model = three.at(None)
    model.tune(X[90:], y[90:], cost=[[0, 1, 9], [1, 0, 1], [5, 1, 0]], grid=2)
    return model


@pytest.fixture(scope="module")
def three_file(three: LCTClassifier, dear: LCTClassifier, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """With both points, one of which comes as a file."""
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("three")
    dear.point_.save(folder / "dear.json")
    return three.export(folder / "model.onnx", at=[three.point_, folder / "dear.json"])


def check_classes(model: LCTClassifier, path: Path, x: Any, samples: Any) -> None:
    """Log posteriors and probabilities of all classes, at every lambda, at shares of all kinds."""
    run, pt2 = model.run_, path.suffix == ".pt2"
    program: Any = torch.export.load(path).module() if pt2 else session_of(path)
    for lam in lambdas_of(run):
        scores = score_classes(run.model, samples, {name: np.array([v]) for name, v in lam.items()}, run.family)
        for shares in ((0.2, 0.3, 0.5), (1e-6, 0.5 - 1e-6, 0.5)):
            expected = at_shares(scores.log_posterior[0].astype(float), scores.prior, np.array(shares))
            for n in BATCHES:
                some = {name: values[:n] for name, values in x.items()}
                if pt2:
                    at = {name: torch.tensor(value) for name, value in lam.items()}
                    with torch.no_grad():
                        made = program(some, at, torch.tensor(shares, dtype=torch.float64))
                    odds, probability = (values.numpy() for values in made)
                else:
                    feed = {name: np.array(value, np.float32) for name, value in lam.items()}
                    odds, probability = program.run(None, some | feed | {"prior": np.array(shares)})
                assert odds.shape == probability.shape == (n, 3)
                largest = np.abs(expected).max()
                np.testing.assert_allclose(odds, expected[:n], rtol=1e-5, atol=1e-5 * max(1, largest / 10))
                np.testing.assert_allclose(probability, np.exp(expected[:n]), atol=1e-5)


def check_several_classes(model: LCTClassifier, done: Exported) -> None:
    X, _ = iris()
    assert done.description["classes"] == model.classes_.tolist()
    assert sum(done.description["training_prior"]) == pytest.approx(1)
    many = X.sample(1000, replace=True, random_state=0)
    x = cells(many, done.description["inputs"])
    samples = model.run_.form.split(tables.conform(many, model.run_.form.schema))
    check_classes(model, done.out, x if done.out.suffix == ".onnx" else codes(x, done.description["inputs"]), samples)
    exec(done.snippet, made := {})
    assert made["probability"].shape == (1, 3)


@pytest.mark.parametrize(
    ("loss", "suffix"),
    [
        pytest.param("focal", ".onnx", marks=needs_onnx),
        ("ldam", ".pt2"),
        ("weighted_cross_entropy", ".pt2"),
    ],
)
def test_several_classes(loss: str, suffix: str, tmp_path: Path) -> None:
    model = classifier(loss, film="stages" if loss == "focal" else "features").fit(*iris())
    check_several_classes(model, model.export(tmp_path / f"model{suffix}"))


@needs_onnx
def test_several_classes_with_points(three: LCTClassifier, three_file: Exported) -> None:
    check_several_classes(three, three_file)


@needs_onnx
def test_points_among_classes_decide_in_other_programs(
    three: LCTClassifier, dear: LCTClassifier, three_file: Exported
) -> None:
    X, _ = iris()
    assert isinstance(three.point_, ClassPoint)
    assert ClassPoint.load(three_file.out.with_name("model.point.json")) == three.point_
    session, names = session_of(three_file.out), three_file.description["classes"]
    for model, point in zip((three, dear), json.loads(described(session)["points"]), strict=True):
        at = {name: np.array(value, np.float32) for name, value in point["lam"].items()}
        at["prior"] = np.array([point["prior"][name] for name in names])
        rule, probability = session.run(None, cells(X, three_file.description["inputs"]) | at)
        if point["cost"] is not None:
            costs = np.array(point["cost"])
            rule = -np.log(probability @ (costs - np.diag(costs)[:, None]))
        rule = rule + [point["offsets"][name] for name in names]
        second, best = np.sort(rule)[:, -2:].T
        sure = best - second > 1e-3
        assert (np.array(names)[rule.argmax(1)] == model.predict(X))[sure].all()
        assert sure.mean() > 0.9


@pytest.mark.parametrize("suffix", [pytest.param(".onnx", marks=needs_onnx), ".pt2"])
def test_an_array_is_one_input(suffix: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((1000, 5))
    y = np.where(X[:, 0] + X[:, 3] > 1.5, "ill", "well")
    X[:, 1] = 7.0  # which is left out
    X[rng.random(X.shape) < 0.05] = np.nan
    X[:, 1] = 7.0
    model = classifier(pos_label="ill").fit(X, y)
    done = model.export(tmp_path / f"model{suffix}")
    assert done.description["inputs"] == [{"input": "X", "kind": "array", "type": "float64", "shape": ["N", 5]}]
    assert done.description["classes"] == ["well", "ill"]
    features = pd.DataFrame(X, columns=[f"x{i}" for i in range(5)])
    samples = model.run_.form.split(features[[*model.run_.form.schema.columns]])
    if suffix == ".onnx":
        check_onnx(done.out, model.run_, {"X": X}, samples, lambdas_of(model.run_))
    else:
        check_torch(done.out, model.run_, {"X": torch.from_numpy(X)}, samples, lambdas_of(model.run_))
    exec(done.snippet, made := {})
    assert made["probability"].shape == (1,)


def test_the_command_exports_a_saved_classifier_with_its_point(three: LCTClassifier, tmp_path: Path) -> None:
    three.save(tmp_path / "saved")
    result = CliRunner().invoke(app, ["export", str(tmp_path / "saved"), str(tmp_path / "model.pt2")])
    assert result.exit_code == 0, result.output
    assert ClassPoint.load(tmp_path / "model.point.json") == three.point_
    arguments = ["export", str(tmp_path / "saved"), str(tmp_path / "other.pt2"), "--at"]
    result = CliRunner().invoke(app, [*arguments, str(tmp_path / "model.point.json")])
    assert result.exit_code == 0, result.output
    assert ClassPoint.load(tmp_path / "other.model.point.json") == three.point_


def test_points_of_another_kind_or_model_are_told(
    three: LCTClassifier, run: Run, point: OperatingPoint, tmp_path: Path
) -> None:
    among = three.point_
    assert isinstance(among, ClassPoint)
    out = tmp_path / "model.pt2"
    for call, told in (
        (lambda: three.export(out, at=point), "3 classes is a ClassPoint of `tune`, or its file; got OperatingPoint"),
        (lambda: three.export(out, at=dataclasses.replace(among, model="0" * 16)), "belongs to model 0000"),
        (lambda: export_model(run, out, at=among), "got ClassPoint"),
    ):
        (problem,) = problems_of(call)
        assert told in problem
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------------------------------------- images


def run_on_images() -> tuple[Run, NDArray, ImageSplit]:
    """A small network, a thousand images as bytes, and the same as the library has them."""
    images = ImagesConfig(size=8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    space = LambdaSpace(gamma=0.1, tau=Linear(0, 3, 0.33))
    config = Config(lambdas=space, model=ModelConfig("resnet32"), images=images)
    layers = (torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
    trunk = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    model = LossConditional(trunk, FiLM(space, channels=8), torch.nn.Linear(8, 2))  # resnet32 is the same, slowly
    form = ImageForm(images, ("sound", "cracked"))
    rows = dict.fromkeys(("train", "validation", "test"), np.arange(0))
    run = Run(config, model, form, {"class_counts": [990, 10], "fingerprint": "none"}, rows, {})
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 8, 8, 3), dtype=np.uint8)
    samples = ImageSplit(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.zeros(1000, dtype=torch.int64), images)
    for _ in range(20):
        model.trunk(samples.inputs(slice(0, 100)))  # batch normalisation learns what is usual
    model.eval()
    return run, pixels, samples


@needs_onnx
@pytest.mark.parametrize("half", [False, True])
def test_images_are_bytes(half: bool, tmp_path: Path) -> None:
    run, pixels, samples = run_on_images()
    lambdas = [{"gamma": 0.1, "tau": 1.5}]
    expected = rounded(run) if half else run
    done = export_model(run, tmp_path / "model.onnx", half=half)
    check_onnx(done.out, expected, {"image": pixels}, samples, lambdas)
    check_described_images(done.out, samples)
    done = export_model(run, tmp_path / "model.pt2", half=half)
    check_torch(done.out, expected, {"image": torch.from_numpy(pixels)}, samples, lambdas)


def check_described_images(file: Path, samples: ImageSplit) -> None:
    """What a file says is enough to feed it: bytes in its order, from what another program normalises by its mean and
    deviation."""
    (told,) = json.loads(described(session_of(file))["inputs"])
    mean, std = (np.array(told["inside"][name]) for name in ("mean", "std"))
    x = samples.inputs(slice(0, 50)).numpy().transpose(0, 2, 3, 1)
    assert told["axes"] == ["sample", "row", "column", "colour"]
    assert told["colours"] == ["red", "green", "blue"]
    assert x.shape[1:] == tuple(told["shape"][1:])
    back = np.round((x * std + mean) * 255).astype(told["type"])
    np.testing.assert_array_equal(back, samples.pixels[:50].permute(0, 2, 3, 1))


def test_images_of_any_size_are_told_to_have_no_graph(tmp_path: Path) -> None:
    run, _, _ = run_on_images()
    form = ImageForm(dataclasses.replace(run.form.images, size=None), run.form.labels)
    with pytest.raises(InputError, match=r"images\.size"):
        export_model(dataclasses.replace(run, form=form), tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------ what goes along


def schema_of_points(name: str = "operating-point") -> dict[str, Any]:
    return json.loads((ROOT / "src" / "tunelater" / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8"))


def test_points_among_classes_are_what_their_schema_says(three: LCTClassifier) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema, point = schema_of_points("class-point"), three.point_
    assert isinstance(point, ClassPoint)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    costs = dataclasses.replace(point, cost=[[0, 1, 9], [1, 0, 1], [5, 1, 0]], simpler_than=point.lam)
    for some in (point, costs):
        validator.validate(json.loads(some.to_json()))
    for wrong in ({"prior": {"setosa": 1.0}}, {"lam": {"tau": "1"}}, {"offsets": {}}, {"more": 1}):
        assert not validator.is_valid(json.loads(point.to_json()) | wrong)
    assert set(schema["properties"]) == {field.name for field in dataclasses.fields(ClassPoint)} | {"format"}


def test_points_are_what_their_schema_says(point: OperatingPoint) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema_of_points())
    validator = jsonschema.Draft202012Validator(schema_of_points())
    calibrated = dataclasses.replace(point, calibration=Platt(0.1, 0.9))
    for some in (point, calibrated):
        validator.validate(json.loads(some.to_json()))
    for wrong in ({"prior": 1.0}, {"lam": {"tau": "1"}}, {"format": "tunelater.operating_point/1"}, {"more": 1}):
        assert not validator.is_valid(json.loads(point.to_json()) | wrong)


def test_the_schema_has_every_field_of_a_point() -> None:
    fields = {field.name for field in dataclasses.fields(OperatingPoint)}
    assert set(schema_of_points()["properties"]) == fields | {"format"}


@needs_onnx
def test_points_travel(run: Run, point: OperatingPoint, onnx_file: Path) -> None:
    beside = onnx_file.with_name("model.point.json")
    assert OperatingPoint.load(beside) == point
    told = described(session_of(onnx_file))
    assert json.loads(told["points"]) == [json.loads(point.to_json())]
    assert told["model"] == run.id
    assert told["loss"] == "vs"
    assert json.loads(told["classes"]) == ["fine", "fraud"]
    assert json.loads(told["lambda"])["tau"]["high"] == 3
    assert float(told["training_prior"]) == run.family.prior
    assert told["tunelater"] == export.__version__


@needs_onnx
def test_command_and_snippet(
    run: Run, point: OperatingPoint, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export, "_write_onnx", lambda *_: shutil.copy(onnx_file, _[-1]))  # which takes seconds
    point.save("point.json")
    result = CliRunner().invoke(app, ["export", str(run.path), "model.onnx", "--at", "point.json"])
    assert result.exit_code == 0, result.output
    assert f"Model {run.id}: model.onnx" in result.output
    assert "model.point.json" in result.output
    snippet = result.output.partition("To run it:")[2].strip()
    assert len(snippet.splitlines()) == 5
    exec(snippet, made := {})
    assert 0 < made["probability"][0] < 1


@needs_onnx
def test_example_server(onnx_file: Path, point: OperatingPoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import serve_onnx

    server = serve_onnx.server(str(onnx_file), 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def ask(**request: Any) -> Any:
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            with urllib.request.urlopen(url, json.dumps(request).encode()) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return json.load(error)

    try:
        rows = [{"amount": 12.5, "colour": "red", "flag": 1}, {}]
        answers = ask(rows=rows)
        elsewhere = ask(rows=rows, prior=0.5)
        refused = [
            ask(rows=rows, prior=1),
            ask(rows=rows, piror=0.1),
            ask(rows=[{"amuont": 1.0}]),
            ask(rows=rows, **{"lambda": {"tau": 3.5}}),
            ask(rows=rows, **{"lambda": {"tau": None}}),
            ask(rows=rows, **{"lambda": [1]}),
            ask(rows=[{"amount": "many"}]),
            ask(rows=[{"amount": [1.0]}]),
            ask(rows=[]),
        ]
        low, high = (ask(rows=rows, threshold=share) for share in (1e-9, 1 - 1e-9))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    shift = logit(0.5) - logit(point.prior)
    for answer, moved in zip(answers, elsewhere, strict=True):
        assert moved["log_odds"] == pytest.approx(answer["log_odds"] + shift, abs=1e-5)
        assert answer["probability"] == pytest.approx(expit(answer["log_odds"]), abs=1e-6)
        expected = "fraud" if answer["log_odds"] >= point.log_odds_threshold else "fine"
        assert answer["prediction"] == moved["prediction"] == expected
    told = [" ".join(answer) for answer in refused]
    assert told == ["error"] * len(refused)
    for answer, part in zip(
        refused, ("'prior' lies in (0, 1)", "no piror", "no amuont", "training drew it"), strict=False
    ):
        assert part in answer["error"]
    assert [{answer["prediction"] for answer in answers} for answers in (low, high)] == [{"fraud"}, {"fine"}]
    assert len((ROOT / "examples" / "serve_onnx.py").read_text(encoding="utf-8").splitlines()) < 80


# --------------------------------------------------------------------------------------------------------------- errors


def test_everything_wrong_is_told_at_once(run: Run, point: OperatingPoint, tmp_path: Path) -> None:
    other = dataclasses.replace(point, model="0" * 16)
    (tmp_path / "model.point.json").write_text("mine", encoding="utf-8")
    told = problems_of(lambda: export_model(run, tmp_path / "model.bin", at=[other, tmp_path / "no.json"], force=True))
    expected = ["must end as its format says", "not an operating point, so", "belongs to model", "no operating point"]
    assert all(any(part in problem for problem in told) for part in expected), told
    assert len(told) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.point.json"]


@pytest.mark.parametrize(
    ("out", "format", "told"),
    [
        ("model.onnx", "torch", r"for format torch"),
        ("model.pt2", "onnx", r"for format onnx"),
        ("model.pt2", "tflite", r"format \(--format\) is one of"),
    ],
)
def test_format_and_ending_agree(run: Run, tmp_path: Path, out: str, format: str, told: str) -> None:
    (problem,) = problems_of(lambda: export_model(run, tmp_path / out, format=format))
    assert re.search(told, problem)


def test_a_missing_package_is_told(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    (problem,) = problems_of(lambda: export_model(run, tmp_path / "model.onnx"))
    assert "pip install 'tunelater[onnx]'" in problem


def test_what_is_there_is_not_replaced_unless_forced(run: Run, tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"older")
    problems_of(lambda: export_model(run, tmp_path / "model.pt2"))
    assert (tmp_path / "model.pt2").read_bytes() == b"older"


def test_a_calibrated_point_warns_that_its_map_stays_outside(
    run: Run, point: OperatingPoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_write_torch", lambda model, run, told, out: out.write_bytes(b""))
    calibrated = dataclasses.replace(point, calibration=Platt(0.1, 0.9))
    with pytest.warns(DoubtfulInputWarning, match=r"calibrated \(platt\)"):
        export_model(run, tmp_path / "model.pt2", at=calibrated)


def test_exporting_leaves_the_run_as_it_is(run: Run) -> None:
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    portable(run, half=True)
    assert all(torch.equal(before[name], tensor) for name, tensor in run.model.state_dict().items())
