"""Networks for tables: embeddings and the ensemble against their authors' models, looped passes and closed forms."""

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rtdl_num_embeddings as rtdl
import tabm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

import tunelater
from benchmarks import tables as benchmark
from benchmarks.tables import Data
from data_tables import messy, problems_of
from tunelater import recipes
from tunelater.cli import app
from tunelater.config import Config, FiLMConfig, MLPOptions, ModelConfig, OptimizerConfig, SAMConfig
from tunelater.data import tables
from tunelater.data.preprocessing import Preprocessor
from tunelater.data.splits import Splits, TensorSplit
from tunelater.demo import POSITIVE, TARGET
from tunelater.distributions import LambdaSpace, Linear, at
from tunelater.estimator import LCTClassifier
from tunelater.film import LossConditional
from tunelater.losses import loss_family
from tunelater.models import NumericEmbedding, build
from tunelater.problems import InputError
from tunelater.runs import Run
from tunelater.scoring import Scores, score
from tunelater.training import TrainingInterrupted, mean_loss, train

SPACE = LambdaSpace(gamma=Linear(0, 0.3, 0), tau=Linear(0, 3, 0.33))
EMBEDDINGS = ("none", "piecewise", "periodic")
SHAPE: dict[str, Any] = {
    "n_features": 5,
    # A continuous column, one of few values, and a constant one; two more are not numeric.
    "quantiles": [np.linspace(-5, 5, 1000).tolist(), [0.0] * 900 + [1.0] * 100, [2.0] * 1000],
}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def config_of(trunk: str, embedding: str = "none", **changes: Any) -> Config:
    options = {"embedding": embedding, "width": 16, "depth": 2, "dropout": 0.0, "embedding_width": 3}
    changes.setdefault("lambdas", SPACE)
    return Config(model=ModelConfig(trunk, options | changes.pop("options", {})), **changes)


def samples(n: int = 60, seed: int = 0) -> TensorSplit:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 5, generator=rng)
    return TensorSplit(x, (x[:, 0] + x[:, 1] ** 2 > 1.5).long())


def lambdas_of_each(n: int) -> dict[str, Tensor]:
    return {"gamma": torch.linspace(0, 0.3, n), "tau": torch.linspace(3, 0, n)}


# ---------------------------------------------------------------------------------------------------------------------
# Embeddings
# ---------------------------------------------------------------------------------------------------------------------


def embedding(kind: str, **options: Any) -> NumericEmbedding:
    options = {"embedding_width": 3, "bins": 4, "frequency_scale": 0.1} | options
    return NumericEmbedding(SHAPE["n_features"], SHAPE["quantiles"], kind=kind, **options)


@pytest.mark.parametrize("kind", EMBEDDINGS[1:])
def test_numeric_columns_are_embedded_and_others_pass(kind: str) -> None:
    x = torch.randn(7, 5)
    made = embedding(kind)
    out = made(x)
    assert out.shape == (7, 3 * 3 + 2) == (7, made.width)
    assert made.chunks == [3, 3, 3, 1, 1]
    assert torch.equal(out[:, -2:], x[:, 3:])
    for column in range(3):  # each by itself
        moved = x.clone()
        moved[:, column] += 0.5
        changed = (made(moved) != out).any(dim=0)
        assert set(torch.nonzero(changed).flatten().tolist()) <= set(range(3 * column, 3 * column + 3))
        assert changed.any()


def test_a_piecewise_embedding_bends_at_the_quantiles_and_nowhere_else() -> None:
    made = embedding("piecewise")
    nn.init.normal_(made.embed.linear.weight)
    grid = torch.linspace(-5, 5, 401)
    x = torch.zeros(len(grid), 5)
    x[:, 0] = grid
    with torch.no_grad():
        line = made(x)[:, 0].double()
    slopes = line.diff() / grid.double().diff()
    bends = grid[1:-1][(slopes.diff().abs() > 1e-3)]
    assert bends.tolist() == pytest.approx([-2.5, 0.0, 2.5], abs=0.03)


@settings(deadline=None, max_examples=50)
@given(
    values=st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=40),
    bins=st.integers(1, 20),
)
def test_any_column_has_pieces(values: list[float], bins: int) -> None:
    made = NumericEmbedding(1, [sorted(values)], kind="piecewise", embedding_width=2, bins=bins, frequency_scale=1.0)
    x = torch.tensor([[-1e6], [0.0], [1e6], *([v] for v in values)])
    assert torch.isfinite(made(x)).all()
    assert made.embed.impl.get_max_n_bins() <= bins


def test_without_numeric_columns_there_is_nothing_to_embed() -> None:
    x = torch.randn(4, 5)
    for kind in EMBEDDINGS[1:]:
        model = build(config_of("mlp", kind), n_features=5, quantiles=[])
        plain = build(config_of("mlp"), n_features=5)
        assert torch.equal(model.features(x), plain.features(x))


def test_embeddings_need_the_quantiles() -> None:
    for kind in EMBEDDINGS[1:]:
        for trunk in ("mlp", "tabm"):
            (problem,) = problems_of(lambda kind=kind, trunk=trunk: build(config_of(trunk, kind), n_features=5))
            assert kind in problem
            assert "numeric_quantiles()" in problem


def test_quantiles_are_those_of_the_training_rows_as_they_are_transformed() -> None:
    frame = messy(300)
    features, _, schema = tables.prepare(frame, "label", "fraud")
    fitted = Preprocessor().fit(features.iloc[:200], schema)
    rows = fitted.transform(features.iloc[:200])
    numeric = [name for name, kind in schema.columns.items() if kind == "numeric"]
    quantiles = fitted.numeric_quantiles()
    assert len(quantiles) == len(numeric) > 1
    for column, values in enumerate(quantiles):
        # As many quantiles as rows: the values, but where scikit-learn's rounding misses one of several equal ones.
        assert len(values) == 200
        assert np.isclose(values, np.sort(rows[:, column]), atol=1e-5).mean() > 0.97
    only_words = tables.prepare(frame[["colour", "label"]], "label", "fraud")
    assert Preprocessor().fit(only_words[0], only_words[2]).numeric_quantiles() == []
    (problem,) = problems_of(Preprocessor("standard").fit(features, schema).numeric_quantiles)
    assert "quantile" in problem
    assert "fitted" in problems_of(Preprocessor().numeric_quantiles)[0]


# ---------------------------------------------------------------------------------------------------------------------
# The ensemble
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EMBEDDINGS)
def test_members_are_those_of_the_authors_tabm(kind: str) -> None:
    model = build(config_of("tabm", kind, lambdas=LambdaSpace(gamma=0, tau=1)), **SHAPE).eval()
    n_numeric = 5 if kind == "none" else 3
    embed = None if kind == "none" else model.trunk.embedding.embed
    theirs = tabm.TabM(
        n_num_features=n_numeric,
        cat_cardinalities=[2] if kind != "none" else [],
        d_out=2,
        num_embeddings=embed,
        n_blocks=2,
        d_block=16,
        dropout=0.0,
        k=8,
        start_scaling_init="normal",
    ).eval()
    theirs.backbone.load_state_dict(model.trunk.layers.state_dict())
    with torch.no_grad():
        raw = model.head.parametrizations.weight.original  # (2, 8 * 16)
        theirs.output.weight.copy_(raw.unflatten(1, (8, 16)).permute(1, 2, 0))
        theirs.output.bias.copy_(model.head.bias)
        x = torch.randn(11, 5)
        category = torch.randint(2, (11,))
        x[:, 3:] = F.one_hot(category, 2).float() if kind != "none" else x[:, 3:]
        expected = theirs(x[:, :n_numeric], category[:, None] if kind != "none" else None)
        lam = {"gamma": 0.0, "tau": 1.0}
        torch.testing.assert_close(model.member_logits(model.features(x), lam), expected)
        torch.testing.assert_close(model(x, lam), expected.mean(1))
        model.train()
        torch.testing.assert_close(model(x, lam), expected)


@pytest.mark.parametrize("placement", ["features", "logits", "stages"])
@pytest.mark.parametrize("kind", EMBEDDINGS)
def test_logits_are_the_mean_of_the_members_at_every_lambda(kind: str, placement: Any) -> None:
    model = build(config_of("tabm", kind, film=FiLMConfig(placement=placement)), **SHAPE)
    with torch.no_grad():
        x, lam = torch.randn(6, 5), lambdas_of_each(6)
        members = model.train()(x, lam)
        assert members.shape == (6, 8, 2)
        assert members.std(dim=1).min() > 1e-4  # they differ
        mean = model.eval()(x, lam)
        torch.testing.assert_close(mean, members.mean(1))
        for i in range(6):
            alone = model(x, {name: float(values[i]) for name, values in lam.items()})
            torch.testing.assert_close(alone[i], mean[i])


@pytest.mark.parametrize(("trunk", "kind"), [("mlp", "piecewise"), ("tabm", "none"), ("tabm", "periodic")])
def test_scoring_equals_a_looped_pass(trunk: str, kind: str) -> None:
    model, split = build(config_of(trunk, kind), **SHAPE), samples()
    family = loss_family("vs", [50, 10])
    lambdas = SPACE.grid(4)
    scores = score(model, split, lambdas, family)
    assert model.training  # as it was
    model.eval()
    for i in range(len(scores)):
        with torch.no_grad():
            expected = family.log_odds(model(split.x, at(lambdas, i)), **at(lambdas, i))
        np.testing.assert_allclose(scores.log_odds[i], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_each_member_learns_from_its_own_loss() -> None:
    """The mean of losses, not the loss of the mean: its gradient is that of members trained apart."""
    logits = torch.randn(5, 3, 2, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 1, 0, 0, 1])
    family = loss_family("vs", [90, 10])
    shared: dict[str, Tensor] = {"gamma": torch.tensor(0.1).double(), "tau": torch.tensor(2.0).double()}
    of_samples = {name: values.double() for name, values in lambdas_of_each(5).items()}
    for lam in (shared, of_samples):
        found = mean_loss(family, logits, target, lam)
        apart = torch.stack([family.loss(logits[:, member], target, **lam) for member in range(3)], dim=1)
        torch.testing.assert_close(found, apart.mean(1))
    (gradient,) = torch.autograd.grad(mean_loss(family, logits, target, shared).sum(), logits)
    other = logits.detach().clone()
    other[:, 1:] += 1.0  # what the others say does not matter to the first
    other.requires_grad_(True)
    (again,) = torch.autograd.grad(mean_loss(family, other, target, shared).sum(), other)
    torch.testing.assert_close(gradient[:, 0], again[:, 0])


def test_members_that_do_not_divide_the_features_and_cosines_are_refused() -> None:
    with pytest.raises(InputError, match="divide the 6 channels of the features, got 4 members"):
        LossConditional(nn.Identity(), None, nn.Linear(6, 2), members=4)
    (problem,) = problems_of(lambda: Config(model=ModelConfig("tabm", head="cosine")))
    assert "'linear', got 'cosine'" in problem


def test_all_that_is_wrong_with_options_is_told_at_once() -> None:
    options = {
        "embedding": "piece", "embedding_width": 0, "bins": 0, "frequency_scale": 0, "members": 1, "width": 0,
    }  # fmt: skip
    found = problems_of(lambda: Config(model=ModelConfig("tabm", options)))
    assert len(found) == len(options)
    for name in options:
        assert any(f"model.options.{name} " in problem for problem in found)


# ---------------------------------------------------------------------------------------------------------------------
# Training, runs and the command line
# ---------------------------------------------------------------------------------------------------------------------

TRAINED = [("mlp", "piecewise", None), ("tabm", "none", None), ("tabm", "piecewise", SAMConfig(0.05))]


@pytest.mark.parametrize(("trunk", "kind", "sam"), TRAINED)
def test_the_seed_decides_the_weights_and_a_resumed_training_has_the_same(
    trunk: str, kind: str, sam: SAMConfig | None, tmp_path: Path
) -> None:
    config = config_of(trunk, kind, options={"dropout": 0.2}, epochs=4, batch_size=16, sam=sam, early_stopping=None)
    splits = Splits(samples(), samples(seed=1))

    def trained(config: Config, **arguments: Any) -> dict[str, Tensor]:
        return train(config, splits, build(config, **SHAPE), **arguments).model.state_dict()

    whole = trained(config)
    with pytest.raises(TrainingInterrupted):
        trained(config, folder=tmp_path, stop=lambda step: step == 7)
    for again in (trained(config), trained(config, folder=tmp_path)):
        assert again.keys() == whole.keys()
        assert all(torch.equal(value, whole[name]) for name, value in again.items())
    other = trained(dataclasses.replace(config, seed=1))
    assert not all(torch.equal(value, whole[name]) for name, value in other.items())


def test_an_ensemble_learns_and_every_parameter_of_it() -> None:
    fast = OptimizerConfig(learning_rate=0.01)
    config = config_of("tabm", "piecewise", epochs=20, batch_size=64, early_stopping=None, optimizer=fast)
    before = build(config, **SHAPE)
    trained = train(config, Splits(samples(600), samples(seed=1)), build(config, **SHAPE))
    new = samples(2000, seed=2)
    scores = score(trained.model, new, SPACE.grid(2), trained.family)
    assert float(((scores.log_odds > 0) == new.target.numpy()).mean()) > 0.85
    constant = {"trunk.embedding.embed.impl"}  # the pieces
    for name, value in trained.model.state_dict().items():
        still = torch.equal(value, before.state_dict()[name])
        assert still == any(name.startswith(prefix) for prefix in constant), name


@pytest.mark.parametrize(("trunk", "kind"), [("mlp", "piecewise"), ("tabm", "none"), ("tabm", "periodic")])
def test_a_run_comes_back_from_its_folder(trunk: str, kind: str, tmp_path: Path) -> None:
    table = messy(300)
    table["amount"] = np.where(table["label"] == "fraud", 5.0, 1.0) * np.arange(1, 301)
    config = config_of(trunk, kind, epochs=2)
    run = tunelater.fit(table, target="label", positive="fraud", config=config, out=tmp_path / "run")
    loaded = Run.load(tmp_path / "run")
    assert loaded.id == run.id
    mine, theirs = run.model.state_dict(), loaded.model.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    some = run.form.split(tables.conform(table, run.form.schema))
    with torch.no_grad():
        lam = {"gamma": 0.1, "tau": 1.0}
        assert torch.equal(run.model(some.x, lam), loaded.model(some.x, lam))


@pytest.mark.parametrize(("trunk", "kind"), [("mlp", "periodic"), ("tabm", "piecewise")])
def test_the_trunk_is_exported_for_batches_of_any_size(trunk: str, kind: str) -> None:
    """What a portable model needs: its head at a lambda is one linear map."""
    network = build(config_of(trunk, kind), **SHAPE).trunk.eval()
    size = {0: torch.export.Dim("batch", min=1)}
    program = torch.export.export(network, (torch.randn(3, 5),), dynamic_shapes=(size,), strict=False)
    for n in (1, 7, 100):
        x = torch.randn(n, 5)
        torch.testing.assert_close(program.module()(x), network(x))


def test_a_config_of_before_the_embeddings_means_the_same() -> None:
    old = Config(model=ModelConfig("mlp", {"width": 16}))
    text = old.to_toml()
    assert "embedding" not in text  # as an older version wrote it
    plain = build(Config.from_toml(text), n_features=5)
    assert plain.trunk.embedding is None
    assert MLPOptions().embedding == "none"
    layers = [module for module in plain.trunk.layers if isinstance(module, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(5, 16), (16, 16), (16, 16)]


def test_their_pieces_are_those_of_the_authors_package() -> None:
    """The columns of a table by the package's own way to its bins, where values are many and different."""
    x = torch.randn(1000, 2)
    (first, second) = rtdl.compute_bins(x, n_bins=4)
    made = NumericEmbedding(
        2, x.sort(dim=0).values.T.tolist(), kind="piecewise", embedding_width=2, bins=4, frequency_scale=1.0
    )
    theirs = rtdl.PiecewiseLinearEncoding([first, second])
    torch.testing.assert_close(made.embed.impl(x).flatten(1), theirs(x), rtol=0, atol=0.01)


def test_tables_of_any_kind_are_fitted_with_the_network_that_is_asked_for(tmp_path: Path) -> None:
    for trunk in ("mlp", "tabm"):
        run = tunelater.fit(
            pd.DataFrame({"word": ["a", "b"] * 60, "label": [0, 0, 0, 1] * 30}),
            target="label",
            positive=1,
            config=config_of(trunk, "piecewise", epochs=1),
        )
        assert run.config.model.trunk == trunk


def test_the_command_line_fits_a_table_with_the_network_that_is_asked_for(table: Path, tmp_path: Path) -> None:
    given = ["fit", str(table), "--target", TARGET, "--positive", POSITIVE, "--epochs", "1"]
    done = CliRunner().invoke(app, [*given, "--backbone", "tabm", "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    expected = recipes.shortened(recipes.tables("tabm"), 1)
    assert Run.load(tmp_path / "run").config == expected.for_samples(1898)
    assert Config.from_toml(expected.to_toml()) == expected
    refused = CliRunner().invoke(app, [*given, "--backbone", "resnet32", "--out", str(tmp_path / "other")])
    assert refused.exit_code == 2
    assert "a table's --backbone is mlp or tabm, got 'resnet32'" in " ".join(refused.stderr.split())
    assert not (tmp_path / "other").exists()


def test_the_recipes_of_tables() -> None:
    assert recipes.tables("mlp", seed=3) == Config(seed=3)  # what it was before there was another
    assert recipes.tables().model.trunk == "tabm"
    (problem,) = problems_of(lambda: recipes.tables("resnet32"))
    assert problem == "the trunk of a table is mlp or tabm, got 'resnet32'"


@pytest.mark.parametrize("numeric", ["quantile", "standard"])
def test_the_estimator_takes_either_network(numeric: str) -> None:
    data = samples(200)
    for trunk in ("mlp", "tabm"):
        model = LCTClassifier(trunk=trunk, numeric=numeric, epochs=2).fit(data.x.numpy(), data.target.numpy())
        assert model.predict_proba(data.x.numpy()).shape == (200, 2)
        assert (model.run_.config.model == recipes.tables(trunk).model) == (trunk == "mlp" or numeric == "quantile")


# ---------------------------------------------------------------------------------------------------------------------
# The benchmark
# ---------------------------------------------------------------------------------------------------------------------


def guess(quality: float) -> Callable[[Data], tuple[Scores, Scores]]:
    """A method whose log-odds are the labels and noise."""

    def scores(data: Data) -> tuple[Scores, Scores]:
        rng = np.random.default_rng(data.seed)
        return tuple(
            Scores(
                (quality * data.y[name] + rng.normal(size=(2, len(data.y[name]))) - 3).astype(np.float32),
                data.y[name].astype(np.int8),
                {"tau": np.array([0.0, 1.0])},
                0.1,
                split=name,
            )
            for name in ("validation", "test")
        )

    return scores


def test_the_benchmark_goes_on_where_it_stopped_and_sums_up_what_all_have_done(tmp_path: Path) -> None:
    for name in ("one", "two"):
        frame = messy(200)
        frame["label"] = np.where(frame["label"] == "fraud", "yes", "no")
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    out = tmp_path / "out" / "rows.jsonl"
    out.parent.mkdir()
    asked = argparse.Namespace(tables=tmp_path, first=0, seeds=2, only=None, among=["one", "two"])
    calls: list[str] = []

    def counted(name: str, method: Any, most: int = 100) -> Any:
        def scores(data: Data) -> Any:
            if len(calls) >= most:
                raise KeyboardInterrupt
            calls.append(name)
            return method(data)

        return scores

    with pytest.raises(KeyboardInterrupt):
        benchmark.go("report", {name: counted(name, guess(3.0), 3) for name in ("good", "other")}, out, asked)
    assert len(out.read_text().splitlines()) == 3
    methods = {"good": counted("good", guess(3.0)), "other": counted("other", guess(1.0))}
    benchmark.go("report", methods, out, asked)
    assert len(calls) == 8  # two tables, seeds and methods: none twice
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len({(row["table"], row["seed"], row["method"]) for row in rows}) == 8
    (unfinished := tmp_path / "more.jsonl").write_text(json.dumps(rows[0] | {"seed": 7}) + "\n")
    text = benchmark.summary([out, unfinished], "other")
    assert "2 tables, 4 pairs of table and seed, 2 methods" in text
    mean = np.mean([row["auc"] for row in rows if row["method"] == "good"])
    assert f"| good | {mean:.4f} (" in text


def test_the_benchmark_reports_what_was_chosen_on_the_validation_rows() -> None:
    """Of two lambdas the first is better on the validation rows and worse on the test rows: the first it is."""
    y = np.tile(np.array([1, 0, 0, 0, 0], np.int8), 20)
    right, wrong = 4.0 * y - 2, 2 - 4.0 * y
    lambdas = {"tau": np.array([0.0, 1.0])}

    def scores(split: str, *log_odds: np.ndarray) -> Scores:
        return Scores(np.stack(log_odds).astype(np.float32), y, lambdas, 0.2, split=split)

    found = benchmark.values(scores("validation", right, wrong), scores("test", wrong, right))
    assert found["auc"] == 0.0
    assert found["mean_auc"] == 0.5
    assert found["cost_10"] == pytest.approx(0.2 * 10 + 0.8)  # all wrong: every miss and every false alarm
    assert benchmark.values(scores("validation", right, wrong), scores("test", right, wrong))["cost_10"] == 0.0
