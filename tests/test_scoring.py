"""Scores of a lambda grid against one forward pass for each lambda, and what `Scores` promises and refuses."""

import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tunelater.config import default_space
from tunelater.data.splits import TensorSplit
from tunelater.distributions import LambdaSpace, at
from tunelater.film import FiLM, LossConditional, Place, Stage, StageFiLM
from tunelater.losses import FAMILIES, LossFamily, loss_family
from tunelater.problems import InputError
from tunelater.scoring import HeadGrid, Scores, head_grid, score

FEATURES, CHANNELS = 5, 12


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small matrices are faster so."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model_of(
    space: LambdaSpace, *, film: bool = True, bias: bool = True, rescale: bool = False, place: Place = "features"
) -> LossConditional:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        trunk = nn.Sequential(nn.Linear(FEATURES, CHANNELS), nn.BatchNorm1d(CHANNELS), nn.Tanh(), nn.Dropout(0.5))
        channels = CHANNELS if place == "features" else 2
        modulation = FiLM(space, channels, hidden=8, rescale=rescale) if film and space.free else None
        head = nn.Linear(CHANNELS, 2, bias=bias)
        nn.init.normal_(head.weight)
        return LossConditional(trunk, modulation, head, place=place)


def staged_model_of(space: LambdaSpace) -> LossConditional:
    """FiLM after the first layer and after the last."""
    model = model_of(space, film=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model.stages = StageFiLM(space, [Stage("0", CHANNELS), Stage("3", CHANNELS)], hidden=8)
    return model


def samples(n: int, *, weighted: bool = False) -> TensorSplit:
    g = torch.Generator().manual_seed(n)
    weight = torch.rand(n, generator=g) if weighted else None
    return TensorSplit(torch.randn(n, FEATURES, generator=g), torch.arange(n) % 3 // 2, weight)


def one_pass_each(model: LossConditional, data: TensorSplit, lambdas: Any, family: LossFamily, link: bool) -> Tensor:
    """(L, N) float64: the whole network once for each lambda."""
    model = model.double().eval()
    rows = []
    with torch.no_grad():
        for i in range(max([1, *(len(values) for values in lambdas.values())])):
            logits = model(data.x.double(), at(lambdas, i))
            rows.append(family.log_odds(logits, **at(lambdas, i)) if link else logits[:, 1] - logits[:, 0])
    return torch.stack(rows)


@pytest.mark.parametrize("link", [True, False], ids=["link", "no link"])
@pytest.mark.parametrize(
    ("film", "place"),
    [(True, "features"), (True, "logits"), (False, "features")],
    ids=["FiLM on features", "FiLM on logits", "no FiLM"],
)
@pytest.mark.parametrize("name", FAMILIES)
def test_scores_equal_a_forward_pass_for_each_lambda(name: str, film: bool, place: Place, link: bool) -> None:
    space, family, data = default_space(name), loss_family(name, [30, 3]), samples(50, weighted=True)
    model, lambdas = model_of(space, film=film, place=place), space.grid(4)
    passed: list[int] = []
    hook = model.trunk.register_forward_hook(lambda *io: passed.append(len(io[-1])))
    scores = score(model, data, lambdas, family, link=link, split="test", model_id="abc")
    hook.remove()
    assert passed == [50], "the trunk should run once for each sample"
    expected = one_pass_each(model, data, lambdas, family, link)
    assert scores.log_odds.dtype == np.float32
    np.testing.assert_allclose(scores.log_odds, expected, rtol=1e-4, atol=1e-4)
    assert len(scores) == 4 ** len(space.free)
    if film and len(scores) > 1:
        assert np.abs(np.diff(scores.log_odds, axis=0)).max() > 0.01, "lambda should reach the model"
    assert data.weight is not None
    np.testing.assert_array_equal(scores.target, data.target)
    np.testing.assert_array_equal(scores.weight, data.weight.double())
    assert (scores.prior, scores.split, scores.model) == (3 / 33, "test", "abc")
    assert [scores.lam(i) for i in range(len(scores))] == [at(lambdas, i) for i in range(len(scores))]


@pytest.mark.parametrize("link", [True, False], ids=["link", "no link"])
@pytest.mark.parametrize("name", ["vs", "focal"])
@pytest.mark.parametrize("memory_mb", [0, 256])
def test_with_film_after_every_stage_the_trunk_runs_for_each_lambda(name: str, link: bool, memory_mb: int) -> None:
    space, family, data = default_space(name), loss_family(name, [30, 3]), samples(20, weighted=True)
    model, lambdas = staged_model_of(space), space.grid(3)
    rows: list[int] = []
    hook = model.trunk.register_forward_hook(lambda *io: rows.append(len(io[-1])))
    scores = score(model, data, lambdas, family, link=link, memory_mb=memory_mb)
    again = score(model, data, lambdas, family, link=link, memory_mb=memory_mb)
    hook.remove()
    assert rows == 2 * ([1] * 9 * 20 if memory_mb == 0 else [20] * 9)
    np.testing.assert_array_equal(scores.log_odds, again.log_odds)
    expected = one_pass_each(model, data, lambdas, family, link)
    np.testing.assert_allclose(scores.log_odds, expected, rtol=1e-4, atol=1e-4)
    centred = scores.log_odds - scores.log_odds.mean(1, keepdims=True)
    assert np.abs(np.diff(centred, axis=0)).max() > 0.01, "lambda should change more than the bias"


@pytest.mark.parametrize(("bias", "rescale"), [(False, False), (True, True)])
def test_heads_without_bias_and_rescaled_lambdas_score_alike(bias: bool, rescale: bool) -> None:
    space, family, data = default_space("vs"), loss_family("vs", [30, 3]), samples(50)
    model, lambdas = model_of(space, bias=bias, rescale=rescale), space.grid(3)
    scores = score(model, data, lambdas, family)
    np.testing.assert_allclose(scores.log_odds, one_pass_each(model, data, lambdas, family, True), rtol=1e-4, atol=1e-4)


def test_one_lambda_and_lambdas_off_the_grid_are_tables_too() -> None:
    space, family, data = default_space("vs"), loss_family("vs", [30, 3]), samples(20)
    model, grid = model_of(space), space.grid(3)
    whole = score(model, data, grid, family)
    for i in range(len(whole)):
        alone = score(model, data, {name: values[i : i + 1] for name, values in grid.items()}, family)
        np.testing.assert_allclose(alone.log_odds[0], whole.log_odds[i], rtol=1e-5, atol=1e-5)
    outside = {"gamma": np.array([0.5, 0.0]), "tau": np.array([8.0, 9.0])}
    scores = score(model, data, outside, family)
    np.testing.assert_allclose(scores.log_odds, one_pass_each(model, data, outside, family, True), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [1, 500, 9000])
@pytest.mark.parametrize("name", ["vs", "focal"])
def test_memory_budgets_do_not_change_the_scores(name: str, n: int) -> None:
    """A budget of 0 MiB takes samples one by one; 1 MiB in uneven pieces; more than 8192 samples never go at once."""
    space, family, data = default_space(name), loss_family(name, [30, 3]), samples(n)
    model, lambdas = model_of(space), space.grid(3)
    reference = one_pass_each(model_of(space), data, lambdas, family, True)
    pieces: dict[int, list[int]] = {0: [], 1: [], 100_000: []}
    for memory_mb, rows in pieces.items():
        hook = model.trunk.register_forward_hook(lambda *io, rows=rows: rows.append(len(io[-1])))
        scores = score(model, data, lambdas, family, memory_mb=memory_mb)
        hook.remove()
        assert sum(rows) == n
        np.testing.assert_allclose(scores.log_odds, reference, rtol=1e-4, atol=1e-4)
    if n == 500:
        assert pieces[0] == [1] * 500
        assert 1 < len(pieces[1]) < 500
        assert pieces[1][-1] < pieces[1][0]
        assert pieces[100_000] == [500]
    if n == 9000:
        assert pieces[100_000] == [8192, 808]


def test_samples_do_not_see_each_other() -> None:
    space, family, data = default_space("vs"), loss_family("vs", [30, 3]), samples(40)
    model, lambdas = model_of(space), space.grid(2)
    whole = score(model, data, lambdas, family).log_odds
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:7]
    some = score(model, TensorSplit(data.x[order], data.target[order]), lambdas, family).log_odds
    np.testing.assert_allclose(some, whole[:, order], rtol=1e-5, atol=1e-5)


class Broken(TensorSplit):
    def inputs(self, index: Tensor | slice, noise: int | None = None) -> Tensor:
        raise OSError("the disk is gone")


def test_scoring_leaves_the_model_as_it_was() -> None:
    space, family, data = default_space("vs"), loss_family("vs", [30, 3]), samples(40)
    model = model_of(space).train()
    model.trunk[1].eval()  # a batch normalisation that its owner froze
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    first = score(model, data, space.grid(2), family)
    with pytest.raises(OSError, match="the disk is gone"):
        score(model, Broken(data.x, data.target), space.grid(2), family)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator), "dropout should be off"
    np.testing.assert_array_equal(score(model.eval(), data, space.grid(2), family).log_odds, first.log_odds)
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad and not parameter.is_inference() for parameter in model.parameters())


def test_hyperparameters_that_the_loss_needs_are_named() -> None:
    space, data = default_space("vs"), samples(10)
    with pytest.raises(InputError, match=r"lack tau, which loss 'vs' needs"):
        score(model_of(space), data, {"gamma": np.zeros(2)}, loss_family("vs", [30, 3]))
    with pytest.raises(InputError, match=r"lack alpha, phi, which loss 'focal' needs"):
        score(model_of(space), data, space.grid(2), loss_family("focal", [30, 3]))


def test_lambda_tables_of_unequal_length_are_refused() -> None:
    lambdas = {"gamma": np.zeros(2), "tau": np.zeros(3)}
    with pytest.raises(InputError, match="got 2 of gamma, 3 of tau"):
        score(model_of(default_space("vs")), samples(10), lambdas, loss_family("vs", [30, 3]))


@pytest.mark.parametrize("prior", [0.001, 3 / 33, 0.9])
def test_at_prior_is_bayes_rule(prior: float) -> None:
    space, family, data = default_space("focal"), loss_family("focal", [30, 3]), samples(30)
    scores = score(model_of(space), data, space.grid(2), family)
    moved = scores.at_prior(prior)
    p = 1 / (1 + np.exp(-scores.log_odds.astype(np.float64)))
    positive, negative = p * prior / scores.prior, (1 - p) * (1 - prior) / (1 - scores.prior)
    expected = positive / (positive + negative)
    np.testing.assert_allclose(1 / (1 + np.exp(-moved.log_odds.astype(np.float64))), expected, rtol=1e-5)
    assert moved.prior == prior
    assert moved.log_odds.dtype == np.float32
    back = moved.at_prior(scores.prior)
    np.testing.assert_allclose(back.log_odds, scores.log_odds, rtol=1e-5, atol=1e-5)
    assert back.prior == scores.prior


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.1, 1.1, math.nan])
def test_at_prior_refuses_what_is_no_prior(prior: float) -> None:
    with pytest.raises(InputError, match=f"strictly between 0 and 1, got {prior}"):
        valid().at_prior(prior)


def valid() -> Scores:
    """Three samples at two lambdas."""
    return Scores(
        log_odds=np.array([[0.0, 1.0, -1.0], [2.0, 0.5, 0.0]], np.float32),
        target=np.array([0, 1, 0], np.int8),
        lambdas={"gamma": np.array([0.0, 0.1]), "tau": np.array([1.0, 2.0])},
        prior=0.1,
        weight=np.ones(3),
        extrapolated=np.array([False, True]),
    )


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({"log_odds": np.zeros(3, np.float32)}, ["log-odds need shape (L, N), got (3,)"]),
        ({"target": np.zeros(4, np.int8)}, ["3 samples need 3 targets, got (4,)"]),
        ({"target": np.zeros((3, 1), np.int8)}, ["3 samples need 3 targets, got (3, 1)"]),
        ({"weight": np.ones(2)}, ["weights needs shape (3,), got (2,)"]),
        ({"weight": np.array([1.0, -1.0, np.nan])}, ["weights must be finite and 0 or more, got 2 that are not"]),
        ({"weight": np.zeros(3)}, ["weights must be above 0 for some samples, got none"]),
        ({"extrapolated": np.zeros(3, np.bool_)}, ["extrapolated needs shape (2,), got (3,)"]),
        ({"lambdas": {"gamma": np.zeros(2), "tau": np.zeros(3)}}, ["2 lambdas need as many tau, got 3"]),
        (
            {"log_odds": np.array([[0, np.nan, 1], [np.inf, -np.inf, 2]], np.float32)},
            ["log-odds must be finite, got 3 that are not: the model has diverged"],
        ),
        ({"log_odds": np.array([[0, -np.inf, 1], [1, 3, 2]], np.float32)}, ["got 1 that are not"]),
        ({"log_odds": np.array([[0, np.inf, 1], [1, 3, 2]], np.float32)}, ["got 1 that are not"]),
        ({"log_odds": np.array([[0, np.nan, 1], [1, 3, 2]], np.float32)}, ["got 1 that are not"]),
        (
            {
                "log_odds": np.full((3, 2), np.nan, np.float32),
                "weight": np.ones(4),
            },
            ["2 samples need 2 targets", "3 lambdas need as many gamma", "many tau", "weights", "extrap", "got 6 that"],
        ),
    ],
)
def test_scores_that_do_not_fit_are_refused_with_all_that_is_wrong(changes: Any, problems: list[str]) -> None:
    with pytest.raises(InputError) as error:
        replace(valid(), **changes)
    assert len(error.value.problems) == len(problems)
    for found, expected in zip(error.value.problems, problems, strict=True):
        assert expected in found


def test_models_that_have_diverged_are_found_out() -> None:
    space, family, data = default_space("vs"), loss_family("vs", [30, 3]), samples(10)
    model = model_of(space)
    with torch.no_grad():
        model.head.weight[1, 3] = math.inf
    with pytest.raises(InputError, match=r"got \d+ that are not: the model has diverged"):
        score(model, data, space.grid(2), family)


@pytest.mark.parametrize("name", FAMILIES)
def test_extreme_margins_stay_finite_and_in_order(name: str) -> None:
    """Margins far beyond where float32 probabilities saturate; the links are increasing, so no order may be lost."""
    space, family = default_space(name), loss_family(name, [1e6, 1])
    lambdas = space.grid(5)
    n_lambdas = max([1, *(len(values) for values in lambdas.values())])
    columns = {key: torch.tensor(values, dtype=torch.float32)[:, None] for key, values in lambdas.items()}
    heads = HeadGrid(torch.ones(n_lambdas, 1), torch.zeros(n_lambdas), columns, family)
    large = torch.logspace(-3, 6, 200)
    margins = torch.cat([-large.flip(0), torch.zeros(1), large])
    log_odds = heads.log_odds(margins[:, None])
    assert torch.isfinite(log_odds).all()
    steps = torch.diff(log_odds, dim=1)
    rounding = 1e-5 * log_odds.abs().clamp(min=1)[:, 1:]
    assert (steps >= -rounding).all()
    assert (log_odds[:, -1] - log_odds[:, 0] > 1e6).all()


def test_head_grid_gives_the_scores_from_features() -> None:
    space, family, data = default_space("vs"), loss_family("vs", [30, 3]), samples(25)
    model = model_of(space).eval()
    for link in (True, False):
        heads = head_grid(model, space.grid(3), family, link=link)
        assert heads.size == 9
        with torch.inference_mode():
            log_odds = heads.log_odds(model.features(data.x))
        expected = score(model, data, space.grid(3), family, link=link).log_odds
        np.testing.assert_allclose(log_odds, expected, rtol=1e-5, atol=1e-5)


def peak_beyond_result(n_lambdas: str, n: str, memory_mb: str) -> None:
    """Print the peak of this process's memory during a scoring, less what it held before and the result, MiB."""

    def peak() -> float:
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))

    torch.set_num_threads(1)
    space, family, data = default_space("focal"), loss_family("focal", [30, 3]), samples(int(n))
    model, lambdas = model_of(space), space.sample(int(n_lambdas), np.random.default_rng(0))
    score(model, samples(10), space.grid(2), family)  # what loads on first use
    Path("/proc/self/clear_refs").write_text("5")  # start the peak anew
    before = peak()
    scores = score(model, data, lambdas, family, memory_mb=int(memory_mb))
    print(peak() - before - scores.log_odds.nbytes / 2**20)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the peak of memory from Linux's /proc")
def test_working_memory_stays_within_its_budget() -> None:
    code = "import sys, test_scoring as t; t.peak_beyond_result(*sys.argv[1:])"
    arguments = [sys.executable, "-c", code, "500", "50000", "64"]
    result = subprocess.run(arguments, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    # The result is 95 MiB: a second copy of it, or all margins at once, would show.
    assert 0 < float(result.stdout) < 64 + 24
