"""Training recipes: functions that return a full config.

The paper trains three families of datasets (Section 5.1), each in six ways (its Table 1). `cifar`, `melanoma` and
`aptos` give the settings of a family in one of those ways: as the paper's text has them (`recipe="paper"`), or as the
code does that the authors released for an earlier version of the work (`recipe="released"`). `tables` and `images` give
settings for anybody's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from tunelater import vision
from tunelater.config import (
    TABLE_TRUNKS,
    AveragingConfig,
    Config,
    EarlyStoppingConfig,
    FiLMConfig,
    ImagesConfig,
    ModelConfig,
    OptimizerConfig,
    SAMConfig,
    ScheduleConfig,
)
from tunelater.distributions import LambdaSpace, Linear
from tunelater.problems import InputError, Problems, did_you_mean

METHODS = ("focal", "focal+lct", "vs", "vs+lct", "vs+sam", "vs+sam+lct")
"""The rows of the paper's Table 1."""
RECIPES = ("paper", "released")

_SPACES: Mapping[str, LambdaSpace] = {
    # Figure 4's best setting. The paper names no best one for focal loss: this is the middle of what LCT draws from.
    "vs": LambdaSpace(gamma=0.0, tau=2.0),
    "focal": LambdaSpace(alpha=0.5, phi=2.0),
    # Figure 5's best setting, and the first of Table 2's, which is uniform.
    "vs+lct": LambdaSpace(gamma=Linear(0.1, 0.3, 5.0), tau=Linear(0, 3, 0.33)),
    "focal+lct": LambdaSpace(alpha=Linear(0.25, 0.75, 2.0), phi=Linear(1, 3, 0.5)),
}


def with_method(config: Config, method: str, *, recipe: str = "paper") -> Config:
    """The config with a method of Table 1: its loss, its values or distributions of lambda, its optimizer.

    Table 2 has 16 settings for each method. Here is one, to be changed with `dataclasses.replace(config, lambdas=...)`.
    SAM's radius is the paper's, 0.1. The paper clips gradients in all its experiments, so that of SAM's step is
    clipped; the released code clips the other one (`recipe="released"`).

    Raises:
        InputError: a method that is not one of `METHODS`, or an unknown recipe.
    """
    _check(method, recipe)
    sam = SAMConfig(rho=0.1, clip="first" if recipe == "released" else "step")
    loss, *extras = method.split("+")
    space = _SPACES[f"{loss}+lct" if "lct" in extras else loss]
    return dataclasses.replace(config, loss=loss, lambdas=space, sam=sam if "sam" in extras else None)


def shortened(config: Config, epochs: int) -> Config:
    """The config at another length: milestones and warm-up keep their place in the training.

    Raises:
        InputError: fewer than one epoch.
    """
    share, schedule = epochs / config.epochs, config.schedule
    rising = dict.fromkeys(max(1, round(milestone * share)) for milestone in schedule.milestones)
    milestones = tuple(milestone for milestone in rising if milestone < epochs)
    if schedule.name == "multistep" and not milestones:  # too short for any
        schedule = dataclasses.replace(schedule, name="constant")
    schedule = dataclasses.replace(schedule, milestones=milestones, warmup_epochs=schedule.warmup_epochs * share)
    return dataclasses.replace(config, epochs=epochs, schedule=schedule)


# ---------------------------------------------------------------------------------------------------- the paper's three


def cifar(method: str = "vs+lct", *, recipe: str = "paper", seed: int = 0) -> Config:
    """CIFAR-10 and CIFAR-100: ResNet-32 from scratch, 500 epochs of SGD with momentum.

    Neither says how long the paper's rates last but for two milestones: its text has 0.1, 1e-3, 1e-5, and the released
    code 0.1, 1e-2, 1e-3 after five epochs of linear warm-up, evaluating a moving average of the weights. The text names
    no weight decay and no augmentation; both recipes have the code's.

    Args:
        method: one of `METHODS`.
        recipe: "paper" or "released".
        seed: of the split, the weights and everything else random.

    Raises:
        InputError: an unknown method or recipe.
    """
    _check(method, recipe)
    released = recipe == "released"
    config = Config(
        model=ModelConfig("resnet32"),
        film=_film(),
        images=ImagesConfig(
            size=32,
            crop="pad",
            padding=4,
            horizontal_flip=True,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
        ),
        optimizer=OptimizerConfig("sgd", learning_rate=0.1, weight_decay=2e-4, momentum=0.9),
        schedule=ScheduleConfig(
            "multistep",
            milestones=(400, 450),
            factor=0.1 if released else 0.01,
            warmup_epochs=5.0 if released else 0.0,
        ),
        averaging=_averaging(recipe),
        early_stopping=None,
        epochs=500,
        batch_size=128,
        clip_norm=0.5,
        seed=seed,
    )
    return with_method(config, method, recipe=recipe)


def melanoma(method: str = "vs+lct", *, recipe: str = "paper", seed: int = 0) -> Config:
    """SIIM-ISIC melanoma, and Dogs vs. Cats: ResNeXt50-32x4d with ImageNet weights, 10 epochs of SGD with momentum.

    The paper's text refers to another for rates and weight decay, and names no augmentation: both recipes have the
    released code's, 0.01 and 0.001 from epoch 5 on, decay 1e-3, random resized crops and both flips at 256 pixels. The
    code modulates the two logits instead of the features, and evaluates a moving average of the weights.

    Raises:
        InputError: an unknown method or recipe.
    """
    _check(method, recipe)
    config = Config(
        model=ModelConfig("resnext50_32x4d", {"pretrained": True}),
        film=_film("logits" if recipe == "released" else "features"),
        images=_medical(size=256),
        optimizer=OptimizerConfig("sgd", learning_rate=0.01, weight_decay=1e-3, momentum=0.9),
        schedule=ScheduleConfig("multistep", milestones=(5,), factor=0.1),
        averaging=_averaging(recipe),
        early_stopping=None,
        epochs=10,
        batch_size=128,
        clip_norm=0.5,
        seed=seed,
    )
    return with_method(config, method, recipe=recipe)


def aptos(method: str = "vs+lct", *, recipe: str = "paper", seed: int = 0) -> Config:
    """APTOS 2019: ConvNeXt-tiny with ImageNet weights, 35 epochs of Adam at 5e-5, no weight decay, cosine.

    The paper names no size and no augmentation; these are the network's 224 pixels and melanoma's crops and flips. The
    released code has no recipe for it.

    Raises:
        InputError: an unknown method, or another recipe than "paper".
    """
    _check(method, recipe, known=("paper",))
    config = Config(
        model=ModelConfig("convnext_tiny", {"pretrained": True}),
        film=_film(),
        images=_medical(size=224),
        optimizer=OptimizerConfig("adam", learning_rate=5e-5, weight_decay=0.0),
        schedule=ScheduleConfig("cosine"),
        early_stopping=None,
        epochs=35,
        batch_size=128,
        clip_norm=0.5,
        seed=seed,
    )
    return with_method(config, method, recipe=recipe)


def for_dataset(name: str, method: str = "vs+lct", *, recipe: str = "paper", seed: int = 0) -> Config:
    """The recipe of the family that one of `data.benchmarks.DATASETS` belongs to.

    Dogs vs. Cats, which the paper lists and has no results on, goes with melanoma.
    """
    family: Callable[..., Config] = aptos if name == "aptos" else cifar if name.startswith("cifar") else melanoma
    return family(method, recipe=recipe, seed=seed)


def _check(method: str, recipe: str, known: tuple[str, ...] = RECIPES) -> None:
    problems = Problems()
    problems.check(method in METHODS, f"there is no method {method!r}{did_you_mean(method, METHODS)}")
    problems.check(recipe in known, f"there is no recipe {recipe!r} here{did_you_mean(recipe, known)}")
    problems.raise_if_any()


def _film(placement: Literal["features", "logits"] = "features") -> FiLMConfig:
    """As the released code has it, with biases. The paper's text counts parameters without, which cannot be meant: at
    lambda = (0, 0), where it evaluates, FiLM without biases gives sigma = mu = 0, and every sample the same logits."""
    return FiLMConfig(placement=placement, hidden=128, start="paper", rescale=False, bias=True)


def _averaging(recipe: str) -> AveragingConfig | None:
    """The paper's text has no average of the weights."""
    return AveragingConfig(decay=0.9, every="epoch") if recipe == "released" else None


def _medical(size: int) -> ImagesConfig:
    """Random resized crops and both flips, normalised as ImageNet is."""
    return ImagesConfig(size=size, crop="resized", scale=(0.65, 1.0), horizontal_flip=True, vertical_flip=True)


# ------------------------------------------------------------------------------------------------------------ one's own


def tables(trunk: str = "tabm", *, seed: int = 0) -> Config:
    """Settings for tables of one's own, to begin with: what `benchmarks/tables.py` found on its development tables.

    Args:
        trunk: `tabm`, an ensemble with piecewise-linear embeddings; or `mlp`, one plain perceptron, which trains in a
            quarter of the time and whose probabilities far from cross-entropy are less good: `Config()`.

    Raises:
        InputError: a trunk that takes no tables.
    """
    if trunk not in TABLE_TRUNKS:
        raise InputError(f"the trunk of a table is {' or '.join(TABLE_TRUNKS)}, got {trunk!r}")
    options = {"embedding": "piecewise"} if trunk == "tabm" else {}
    return Config(model=ModelConfig(trunk, options), seed=seed)


def images(trunk: str, *, size: int | None = None, bits: int | None = None, seed: int = 0, **options: Any) -> Config:
    """Settings for images of one's own, to begin with.

    A network that starts from weights trained elsewhere is fine-tuned: 20 epochs of AdamW at 1e-4. One from scratch
    takes 60 epochs at 1e-3. Both stop early on the log-loss of the validation images. FiLM starts as the identity, with
    lambda scaled to [0, 1]: at the paper's start features are small, and short trainings lose by it.

    Args:
        trunk: `resnet32`, for images of about 32 pixels, or a name of timm's.
        size: training resolution in pixels; by default 32 for `resnet32`, and for others the one that their weights
            were trained at. Mean and deviation of the colours are those that went with the weights, too.
        bits: in use of grey 16-bit files, as in `ImagesConfig`.
        options: of the trunk, such as `pretrained=True` or `weights=PATH`.

    Raises:
        InputError: an unknown trunk or impossible settings.
    """
    started = bool(options.get("pretrained") or options.get("weights"))
    small = trunk == "resnet32"
    unknown = [] if small else vision.problems_of_backbone(trunk, ("resnet32",))
    seen = None if small or unknown else vision.expected(trunk)
    if size is None:
        size = 32 if seen is None else seen.size
    unfit = [] if seen is None else vision.problems_of_size(trunk, size)
    if unknown or unfit:
        raise InputError([*unknown, *unfit, *ImagesConfig(size=None if unfit else size, bits=bits).problems()])
    normalised: dict[str, Any] = {} if seen is None else {"mean": seen.mean, "std": seen.std}
    augmented: dict[str, Any] = {"crop": "pad", "padding": 4} if small else {"crop": "resized", "scale": (0.65, 1.0)}
    return Config(
        model=ModelConfig(trunk, options),
        film=FiLMConfig(start="identity", rescale=True),
        images=ImagesConfig(size=size, bits=bits, horizontal_flip=True, **augmented, **normalised),
        optimizer=OptimizerConfig("adamw", learning_rate=1e-4 if started else 1e-3, weight_decay=1e-2),
        schedule=ScheduleConfig("cosine", warmup_epochs=1.0),
        early_stopping=EarlyStoppingConfig(patience=5 if started else 15),
        epochs=20 if started else 60,
        batch_size=64,
        clip_norm=1.0,
        seed=seed,
    )
