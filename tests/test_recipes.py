"""Recipes: what the paper's text and its released code say, as configs."""

import dataclasses
import itertools

import pytest
import torch

from data_tables import problems_of
from tunelater import recipes
from tunelater.config import AveragingConfig, Config, FiLMConfig
from tunelater.data.benchmarks import DATASETS
from tunelater.models import build
from tunelater.recipes import METHODS, RECIPES, aptos, cifar, for_dataset, melanoma, shortened, with_method


@pytest.mark.parametrize(("family", "recipe"), [*itertools.product((cifar, melanoma), RECIPES), (aptos, "paper")])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_a_loss_a_space_and_an_optimizer(family, recipe: str, method: str) -> None:
    config = family(method, recipe=recipe, seed=3)
    assert config.loss == method.split("+")[0]
    assert bool(config.lambdas.free) == ("lct" in method)
    assert (config.sam is not None) == ("sam" in method)
    assert (config.batch_size, config.clip_norm, config.seed) == (128, 0.5, 3)
    assert Config.from_toml(config.to_toml()) == config
    assert with_method(with_method(config, "focal+lct"), method, recipe=recipe) == config
    assert config.sam is None or config.sam.clip == ("first" if recipe == "released" else "step")


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_has_its_family(name: str) -> None:
    trunk = for_dataset(name, "vs").model.trunk
    assert trunk == ("resnet32" if "cifar" in name else "convnext_tiny" if name == "aptos" else "resnext50_32x4d")


@pytest.mark.parametrize("recipe", RECIPES)
def test_film_has_the_codes_number_of_parameters_and_tells_samples_apart_at_lambda_zero(recipe: str) -> None:
    """Section 5.1 counts 8,448 for one of FiLM's two networks, without biases; then all logits are equal at zero."""
    model = build(cifar("vs+lct", recipe=recipe))
    assert sum(p.numel() for p in model.film.parameters()) == 2 * (8_448 + 128 + 64)
    assert build(cifar("vs")).film is None
    zero, features = {"gamma": 0.0, "tau": 0.0}, torch.randn(5, 64)
    assert float(model.logits(features, zero).detach().std(dim=0).min()) > 0
    bare = dataclasses.replace(cifar("vs+lct"), film=FiLMConfig(bias=False))
    assert float(build(bare).logits(features, zero).detach().std(dim=0).max()) == 0


@pytest.mark.parametrize(("family", "place"), [(cifar, "features"), (melanoma, "logits")])
def test_the_released_code_averages_weights_and_modulates_the_logits_of_melanoma(family, place: str) -> None:
    paper, released = family("vs+lct"), family("vs+lct", recipe="released")
    assert (paper.averaging, paper.film.placement) == (None, "features")
    assert (released.averaging, released.film.placement) == (AveragingConfig(0.9, "epoch"), place)
    small = dataclasses.replace(released, model=cifar().model)
    model = build(small)
    assert model.place == place
    assert model.film.weight_out.shape[-1] == (64 if place == "features" else 2)


@pytest.mark.parametrize(("recipe", "rates"), [("paper", (0.1, 1e-3, 1e-5)), ("released", (0.1, 1e-2, 1e-3))])
def test_cifars_rates_fall_at_400_and_450_epochs(recipe: str, rates: tuple[float, ...]) -> None:
    config = cifar("vs", recipe=recipe)
    for epoch, rate in zip((399, 400, 450), rates, strict=True):
        factor = config.schedule.multiplier(epoch * 40, 40, config.epochs * 40)
        assert config.optimizer.learning_rate * factor == pytest.approx(rate)


def test_a_shortened_training_keeps_its_course() -> None:
    whole, short = cifar("vs", recipe="released"), shortened(cifar("vs", recipe="released"), 50)
    assert (short.epochs, short.schedule.milestones, short.schedule.warmup_epochs) == (50, (40, 45), 0.5)
    for share in (0.005, 0.5, 0.79, 0.81, 0.89, 0.91):
        steps = [round(share * config.epochs * 100) for config in (whole, short)]
        multipliers = [
            c.schedule.multiplier(s, 100, c.epochs * 100) for c, s in zip((whole, short), steps, strict=True)
        ]
        assert multipliers[0] == pytest.approx(multipliers[1], abs=0.02)  # a step of warm-up
    assert shortened(whole, 3).schedule.milestones == (2,)
    assert (shortened(whole, 1).schedule.name, shortened(whole, 1).schedule.milestones) == ("constant", ())
    assert "epochs" in problems_of(lambda: shortened(whole, 0))[0]


def test_unknown_names_are_told_at_once() -> None:
    told = problems_of(lambda: cifar("vs+lst", recipe="papers"))
    assert ["did you mean 'vs+lct'" in told[0], "did you mean 'paper'" in told[1]] == [True, True]
    assert "no recipe 'released' here" in problems_of(lambda: aptos("vs", recipe="released"))[0]


def test_images_of_ones_own_are_fine_tuned_or_trained_from_scratch() -> None:
    scratch, tuned = recipes.images("resnet32"), recipes.images("convnext_tiny", pretrained=True)
    assert scratch.optimizer.learning_rate > tuned.optimizer.learning_rate
    assert scratch.epochs > tuned.epochs
    assert (scratch.images.size, tuned.images.size) == (32, 224)
    assert recipes.images("convnext_tiny", size=96, pretrained=True).images.size == 96
