"""Everything that a training run depends on besides its data: frozen dataclasses, TOML in and TOML out.

A config checks itself when it is made and reports all that is wrong with it at once.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import tomli_w

from tunelater import vision
from tunelater.distributions import Distribution, LambdaSpace, Linear, PointMass, Uniform
from tunelater.losses import FAMILIES
from tunelater.metrics import metric
from tunelater.problems import InputError, Problems, did_you_mean

PRECISIONS = ("32-true", "bf16-mixed")


def default_space(loss: str) -> LambdaSpace:
    """The distribution of a loss's hyperparameters to begin with: wide, and the paper's where it has one (Table 2)."""
    return {
        "vs": LambdaSpace(gamma=Linear(0, 0.3, 0), tau=Linear(0, 3, 0.33)),
        "focal": LambdaSpace(alpha=Linear(0.1, 0.9, 1.25), phi=Linear(1, 3, 0.5)),
        "weighted_cross_entropy": LambdaSpace(omega=Uniform(0, 1)),
        "cross_entropy": LambdaSpace(),
        "ldam": LambdaSpace(max_m=Uniform(0, 1), s=Uniform(1, 30)),
    }[loss]


@dataclass(frozen=True)
class MLPOptions:
    """What `model.options` sets of the trunk `mlp`."""

    width: int = 128
    """Hidden units of each layer, and channels of the features."""
    depth: int = 3
    """Layers."""
    dropout: float = 0.1
    """Probability of dropping a hidden unit in training."""
    embedding: Literal["none", "piecewise", "periodic"] = "none"
    """What a numeric column becomes before the first layer (Gorishniy et al. 2022): itself; a line that bends at the
    training rows' quantiles; or sines and cosines of learned frequencies."""
    embedding_width: int = 8
    """Numbers that each numeric column becomes."""
    bins: int = 16
    """Pieces of a line, for `piecewise`; fewer where a column has few values."""
    frequency_scale: float = 0.1
    """Standard deviation of the first frequencies, for `periodic`; columns have a standard deviation of 1."""

    def problems(self) -> list[str]:
        problems = Problems()
        problems.check(self.width >= 1, f"model.options.width must be 1 unit or more, got {self.width}")
        problems.check(self.depth >= 1, f"model.options.depth must be 1 layer or more, got {self.depth}")
        problems.check(0 <= self.dropout < 1, f"model.options.dropout must be in [0, 1), got {self.dropout}")
        kinds = ("none", "piecewise", "periodic")
        problems.check(
            self.embedding in kinds, f"model.options.embedding is one of {', '.join(kinds)}, got {self.embedding!r}"
        )
        problems.check(
            self.embedding_width >= 1, f"model.options.embedding_width must be 1 or more, got {self.embedding_width}"
        )
        problems.check(self.bins >= 1, f"model.options.bins must be 1 piece or more, got {self.bins}")
        problems.check(
            0 < self.frequency_scale < math.inf,
            f"model.options.frequency_scale must be positive, got {self.frequency_scale}",
        )
        return list(problems)


@dataclass(frozen=True)
class TabMOptions(MLPOptions):
    """What `model.options` sets of the trunk `tabm`."""

    members: int = 8
    """Networks that share their weights but for scales of each unit, whose mean is the model (TabM's k)."""
    width: int = 64

    def problems(self) -> list[str]:
        problems = Problems()
        problems.add(*super().problems())
        problems.check(self.members >= 2, f"model.options.members must be 2 or more, got {self.members}")
        return list(problems)


@dataclass(frozen=True)
class ResNet32Options:
    """The trunk `resnet32` is as it is."""

    def problems(self) -> list[str]:
        return []


TRUNK_OPTIONS: Mapping[str, type[MLPOptions | ResNet32Options]] = {
    "mlp": MLPOptions,
    "tabm": TabMOptions,
    "resnet32": ResNet32Options,
}
"""The trunks of this library, and what can be set of each. The names of timm's models are trunks too."""
TABLE_TRUNKS = ("mlp", "tabm")
"""Those that take tables; all others take images."""


@dataclass(frozen=True)
class ModelConfig:
    """The trunk: which network, and how it is made."""

    trunk: str = "mlp"
    """Which network turns an input into pooled features: `mlp` or `tabm` for tables, `resnet32`, or the name of a model
    of timm's for images."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What there is to set of the trunk: see `MLPOptions` and `TabMOptions`; for timm's, `pretrained`, `weights` and
    what `TimmTrunk` takes, which timm checks when the model is built."""
    head: Literal["linear", "cosine"] = "linear"
    """Logits linear in the features, or the cosines between features and classes, in [-1, 1]; for loss `ldam`, whose s
    scales them up. Other losses learn little from cosines."""

    def problems(self) -> list[str]:
        problems = Problems()
        for name, value in self.options.items():
            problems.check(
                _fits_toml(value),
                f"model.options.{name} needs a number, text, true or false, or lists or tables of them, got {value!r}",
            )
        problems.check(self.head in ("linear", "cosine"), f"model.head is 'linear' or 'cosine', got {self.head!r}")
        problems.check(
            self.trunk != "tabm" or self.head == "linear",
            "trunk 'tabm' is an ensemble, and a mean of cosines is none: it needs model.head 'linear', got 'cosine'",
        )
        if self.trunk not in TRUNK_OPTIONS:
            return [*problems, *vision.problems_of_backbone(self.trunk, tuple(TRUNK_OPTIONS))]
        kind = TRUNK_OPTIONS[self.trunk]
        known = [f.name for f in dataclasses.fields(kind)]
        for name in self.options.keys() - known:
            hint = did_you_mean(str(name), known) if known else "; it has none"
            problems.add(f"trunk {self.trunk!r} has no option {name!r}{hint}")
        options = kind(**{name: value for name, value in self.options.items() if name in known})
        problems.add(*kind(**_typed(options, "model.options.", problems)).problems())
        return sorted(problems)


@dataclass(frozen=True)
class FiLMConfig:
    """How lambda enters the network (Section 4.3)."""

    placement: Literal["features", "logits", "stages"] = "features"
    """On the pooled features (the paper), on the logits (its released code for melanoma), or after every stage of the
    trunk: then lambda changes what the trunk does, and scoring takes a pass through it for each lambda. On two logits
    lambda can do no more than weigh them anew and move the threshold. The paper's start, with its sigma near 0, shrinks
    the output of every stage; `identity` leaves it."""
    hidden: int = 128
    """Width of the hidden layer of each of FiLM's two networks."""
    start: Literal["paper", "identity"] = "paper"
    """`identity` starts at sigma = 1, mu = 0."""
    rescale: bool = False
    """Map lambda to [0, 1] before FiLM sees it."""
    bias: bool = True
    """Whether FiLM's layers have biases, as in the paper's released code. Without them, and without `rescale`, sigma
    and mu are 0 at lambda = 0: with the paper's start, a model that tells nothing apart there."""

    def problems(self) -> list[str]:
        problems = Problems()
        problems.check(
            self.placement in ("features", "logits", "stages"),
            f"film.placement (--film) is 'features', 'logits' or 'stages', got {self.placement!r}",
        )
        problems.check(self.hidden >= 1, f"film.hidden must be 1 or more, got {self.hidden}")
        problems.check(self.start in ("paper", "identity"), f"film.start is 'paper' or 'identity', got {self.start!r}")
        return list(problems)


@dataclass(frozen=True)
class OptimizerConfig:
    """What takes the steps, and how large."""

    name: Literal["sgd", "adam", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    """L2 penalty for sgd and adam; decoupled for adamw."""
    momentum: float = 0.9
    """For sgd."""

    def problems(self) -> list[str]:
        problems = Problems()
        names = ("sgd", "adam", "adamw")
        problems.check(self.name in names, f"there is no optimizer {self.name!r}{did_you_mean(self.name, names)}")
        problems.check(
            0 < self.learning_rate < math.inf, f"optimizer.learning_rate must be positive, got {self.learning_rate}"
        )
        problems.check(
            0 <= self.weight_decay < math.inf, f"optimizer.weight_decay must be 0 or more, got {self.weight_decay}"
        )
        problems.check(0 <= self.momentum < 1, f"optimizer.momentum must be in [0, 1), got {self.momentum}")
        return list(problems)


@dataclass(frozen=True)
class SAMConfig:
    """Sharpness-aware minimization (Eq. 5; Foret et al. 2021): steps with the gradient at the worst point nearby."""

    rho: float = 0.1
    """Radius of the neighbourhood whose worst loss is minimised."""
    adaptive: bool = False
    """Measure the neighbourhood relative to each weight."""
    clip: Literal["step", "first"] = "step"
    """Which of a step's two gradients `clip_norm` bounds: the one that the optimizer steps with, which is the point of
    bounding; or the first, as the paper's released code does, which only points the way, so that nothing is bounded."""

    def problems(self) -> list[str]:
        problems = Problems()
        problems.check(0 < self.rho < math.inf, f"sam.rho must be positive and finite, got {self.rho}")
        problems.check(self.clip in ("step", "first"), f"sam.clip is 'step' or 'first', got {self.clip!r}")
        return list(problems)


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate changes over the training."""

    name: Literal["constant", "multistep", "cosine"] = "cosine"
    milestones: tuple[int, ...] = ()
    """Epochs at which `multistep` multiplies the learning rate by `factor`."""
    factor: float = 0.1
    warmup_epochs: float = 0.0
    """Epochs over which the rate first rises linearly from zero."""

    def problems(self) -> list[str]:
        problems = Problems()
        names = ("constant", "multistep", "cosine")
        problems.check(self.name in names, f"there is no schedule {self.name!r}{did_you_mean(self.name, names)}")
        rising = all(a < b for a, b in zip((0, *self.milestones), self.milestones, strict=False))
        problems.check(rising, f"schedule.milestones must be rising positive epochs, got {list(self.milestones)}")
        problems.check(
            self.name != "multistep" or bool(self.milestones), "schedule 'multistep' needs milestones, got none"
        )
        problems.check(0 < self.factor < 1, f"schedule.factor must be in (0, 1), got {self.factor}")
        problems.check(
            0 <= self.warmup_epochs < math.inf, f"schedule.warmup_epochs must be 0 or more, got {self.warmup_epochs}"
        )
        return list(problems)

    def multiplier(self, step: int, steps_per_epoch: int, steps: int) -> float:
        """The factor on the learning rate at a step, counted from 0, of a training of `steps` steps."""
        warmup = round(self.warmup_epochs * steps_per_epoch)
        if step < warmup:
            return (step + 1) / warmup
        if self.name == "cosine":
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
        if self.name == "multistep":
            return self.factor ** sum(step >= milestone * steps_per_epoch for milestone in self.milestones)
        return 1.0


@dataclass(frozen=True)
class AveragingConfig:
    """An average of the weights over the training, which is the model that results."""

    decay: float = 0.9
    """Exponential moving average of the weights: the share of the old average that an update keeps in the end. Update
    number n keeps (1 + n) / (10 + n) of it at most, as in the paper's released code: the weights of the first epochs
    would else be a large part of a short training's average."""
    every: Literal["epoch", "step"] = "epoch"

    def problems(self) -> list[str]:
        problems = Problems()
        problems.check(0 < self.decay < 1, f"averaging.decay must be in (0, 1), got {self.decay}")
        problems.check(self.every in ("epoch", "step"), f"averaging.every is 'epoch' or 'step', got {self.every!r}")
        return list(problems)


@dataclass(frozen=True)
class EarlyStoppingConfig:
    """When to stop before the last epoch, and which epoch's weights to keep."""

    metric: str = "log_loss"
    """A metric of the validation split, averaged over a small grid of lambdas; the best epoch's weights are kept. With
    few positives a ranking metric is too noisy to stop on (`benchmarks/README.md`)."""
    patience: int = 20
    """Stop after so many epochs without a better value."""

    def problems(self) -> list[str]:
        problems = Problems()
        problems.check(self.patience >= 1, f"early_stopping.patience must be 1 or more, got {self.patience}")
        try:
            metric(self.metric)
        except InputError as error:
            problems.add(*(f"early_stopping.metric: {problem}" for problem in error.problems))
        return list(problems)


@dataclass(frozen=True)
class ImagesConfig:
    """How images reach the network: cut to one size, augmented in training, normalised."""

    size: int | None = None
    """Height and width in pixels of what the network sees; None leaves images as large as they are. In evaluation the
    shorter side is resized to it and the centre cut out."""
    bits: int | None = None
    """The bits that grey samples of 16-bit files use, such as 12 of a detector's; None where the files say it, or all
    16. It is a part of what a network learns: the same holds for what it predicts later."""
    crop: Literal["none", "pad", "resized"] = "none"
    """In training: `pad` cuts the size out at a random place after padding with black (as for CIFAR); `resized` cuts a
    random box out and resizes it (as for ImageNet); `none` does as in evaluation."""
    padding: int = 4
    """Pixels on each side, for `pad`."""
    scale: tuple[float, float] = (0.65, 1.0)
    """Smallest and largest share of the image's area that a box of `resized` has."""
    horizontal_flip: bool = False
    """In training, mirror every other image, drawn at random."""
    vertical_flip: bool = False
    """In training, turn every other image upside down, drawn at random."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Of red, green and blue in [0, 1], subtracted; by default ImageNet's."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Standard deviations of red, green and blue in [0, 1], divided by; by default ImageNet's."""

    def problems(self) -> list[str]:
        problems = Problems()
        crops = ("none", "pad", "resized")
        problems.check(
            self.size is None or self.size >= 1, f"images.size must be 1 pixel or more, or None, got {self.size}"
        )
        deep = self.bits is None or 1 <= self.bits <= 16
        problems.check(deep, f"images.bits must be from 1 to 16, or None, got {self.bits}")
        problems.check(self.crop in crops, f"there is no images.crop {self.crop!r}{did_you_mean(self.crop, crops)}")
        problems.check(self.padding >= 0, f"images.padding must be 0 pixels or more, got {self.padding}")
        ordered = len(self.scale) == 2 and 0 < self.scale[0] <= self.scale[1] <= 1
        problems.check(
            ordered, f"images.scale is the smallest and largest share of the area, in (0, 1], got {list(self.scale)}"
        )
        colours = len(self.mean) == 3 and all(0 <= value <= 1 for value in self.mean)
        problems.check(colours, f"images.mean is three numbers in [0, 1] (of 255, that is 1), got {list(self.mean)}")
        spread = len(self.std) == 3 and all(0 < value <= 1 for value in self.std)
        problems.check(spread, f"images.std is three numbers in (0, 1] (of 255, that is 1), got {list(self.std)}")
        return list(problems)


@dataclass(frozen=True)
class Config:
    """A training run. The defaults are a plain perceptron's for tables; `recipes.tables` has settings to begin with.

    Raises:
        InputError: every value that breaks a rule, at once.
    """

    loss: str = "vs"
    lambdas: LambdaSpace = field(default=None)  # type: ignore[assignment]
    """The distribution of the loss hyperparameters; numbers are fixed values. By default `default_space(loss)`."""
    lambda_per: Literal["batch", "sample"] = "batch"
    """One draw of lambda for each mini-batch (the paper), or one for each sample."""
    model: ModelConfig = field(default_factory=ModelConfig)
    images: ImagesConfig | None = None
    """How images are cut, augmented and normalised; None for tables."""
    film: FiLMConfig | None = field(default_factory=FiLMConfig)
    """None hides lambda from the model ("LCT without FiLM", Eq. 8). Ignored where no hyperparameter varies."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    sam: SAMConfig | None = None
    """Sharpness-aware minimization around the optimizer: two passes a step."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    epochs: int = 100
    batch_size: int | None = None
    """Samples of a step over all processes together; None suits the number of samples (see `for_samples`)."""
    clip_norm: float | None = 0.5
    """Largest norm of a step's gradient."""
    averaging: AveragingConfig | None = None
    early_stopping: EarlyStoppingConfig | None = field(default_factory=EarlyStoppingConfig)
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    compile: bool = False
    """Train through `torch.compile`: slow to start, faster steps. It needs a compiler on the machine; the weights and
    what is saved are the same kind as without."""
    seed: int = 0

    def __post_init__(self) -> None:
        problems = Problems()
        loss_is_known = isinstance(self.loss, str) and self.loss in FAMILIES
        if self.lambdas is None:
            object.__setattr__(self, "lambdas", default_space(self.loss) if loss_is_known else LambdaSpace())
        elif loss_is_known and isinstance(self.lambdas, LambdaSpace):
            problems.add(*self.lambdas.problems_for(FAMILIES[self.loss].hyperparameters, self.loss))
        for name, value in _typed(self, "", problems).items():
            object.__setattr__(self, name, value)
        parts = (self.model, self.film, self.optimizer, self.sam, self.schedule, self.averaging, self.early_stopping)
        for part in (self.images, *parts):
            problems.add(*(part.problems() if part is not None else ()))
        problems.check(self.loss in FAMILIES, f"there is no loss {self.loss!r}{did_you_mean(self.loss, FAMILIES)}")
        problems.check(
            self.lambda_per in ("batch", "sample"), f"lambda_per is 'batch' or 'sample', got {self.lambda_per!r}"
        )
        problems.check(self.epochs >= 1, f"epochs must be 1 or more, got {self.epochs}")
        warmup = self.schedule.warmup_epochs
        problems.check(
            not 1 <= self.epochs <= warmup < math.inf,
            f"schedule.warmup_epochs must be fewer than the {self.epochs} epochs, got {warmup:g}: lower it",
        )
        problems.check(
            self.batch_size is None or self.batch_size >= 1, f"batch_size must be 1 or more, got {self.batch_size}"
        )
        problems.check(
            self.clip_norm is None or 0 < self.clip_norm < math.inf, f"clip_norm must be positive, got {self.clip_norm}"
        )
        problems.check(
            self.precision in PRECISIONS,
            f"precision (--precision) is one of {', '.join(PRECISIONS)}, got {self.precision!r}",
        )
        problems.check(0 <= self.seed < 2**63, f"seed must be in [0, 2^63), got {self.seed}")
        problems.raise_if_any()

    def for_samples(self, n: int) -> Config:
        """The config to train on n samples with: what is left open has a value.

        A batch is a power of two with some hundred steps an epoch on large sets, and the paper's 128 on small ones.
        """
        if self.batch_size is not None:
            return self
        return dataclasses.replace(self, batch_size=int(min(1024, max(128, 2 ** round(math.log2(max(n, 1) / 200))))))

    def to_toml(self) -> str:
        """The resolved config, with every default spelled out; None is written as false."""
        return tomli_w.dumps(_plain(self))

    @classmethod
    def from_toml(cls, text: str) -> Config:
        """The config of a TOML text; what it does not set takes the default.

        A distribution is a number, `{linear = [a, b, h_b]}` or `{uniform = [a, b]}`.

        Raises:
            InputError: text that is not TOML, unknown keys, values of a wrong type or out of range; all at once.
        """
        try:
            raw = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"the config is not valid TOML: {error}") from None
        problems = Problems()
        config = _parse(cls, raw, "", problems)
        problems.raise_if_any()
        return config

    @classmethod
    def read(cls, path: str | Path) -> Config:
        """The config in a TOML file."""
        path = Path(path)
        if not path.is_file():
            raise InputError(f"there is no config file {path}")
        try:
            return cls.from_toml(path.read_text(encoding="utf-8"))
        except InputError as error:
            raise InputError(f"{path}: {problem}" for problem in error.problems) from None
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not a text file in UTF-8: {error}") from None


def parse_distribution(text: str) -> Distribution:
    """A distribution from text: `0.1`, `linear(0, 3, 0.33)` or `uniform(0, 3)`.

    >>> parse_distribution("linear(0, 3, 0.1)")
    Linear(a=0.0, b=3.0, h_b=0.1)
    """
    call = re.fullmatch(r"\s*(\w+)\s*\((.*)\)\s*", text)
    try:
        if call is None:
            return PointMass(float(text))
        return _distribution({call[1]: [float(a) for a in call[2].split(",")]})
    except InputError:
        raise
    except ValueError:
        raise InputError(f"a distribution is a number, linear(a, b, h_b) or uniform(a, b); got {text!r}") from None


def _distribution(value: Any) -> Distribution:
    if _is_number(value):
        return PointMass(float(value))
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, arguments),) = value.items()
        numbers = arguments if isinstance(arguments, list) and all(map(_is_number, arguments)) else []
        if name == "linear" and len(numbers) == 3:
            return Linear(*map(float, numbers))
        if name == "uniform" and len(numbers) == 2:
            return Uniform(*map(float, numbers))
    raise ValueError(f"a distribution is a number, {{linear = [a, b, h_b]}} or {{uniform = [a, b]}}; got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _space(raw: Mapping[str, Any], where: str) -> LambdaSpace:
    problems = Problems()
    distributions = {}
    for name, item in raw.items():
        try:
            distributions[name] = _distribution(item)
        except ValueError as error:
            problems.add(*(f"{where}.{name}: {problem}" for problem in getattr(error, "problems", (error,))))
    problems.raise_if_any()
    return LambdaSpace(**distributions)


def _plain(value: Any) -> Any:
    """Dataclasses as plain dicts, lists and scalars that TOML can hold."""
    if isinstance(value, LambdaSpace):
        return {name: _plain(d) for name, d in value.items()}
    if isinstance(value, PointMass):
        return float(value.value)
    if isinstance(value, Linear):
        return {"linear": [float(value.a), float(value.b), float(value.h_b)]}
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return False if value is None else value


def _parse(cls: Any, raw: Mapping[str, Any], where: str, problems: Problems) -> Any:
    """An instance of dataclass `cls` from TOML's tables. Problems are collected; the return is then meaningless."""
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in hints:
            problems.add(f"unknown setting {where + key!r}{did_you_mean(key, hints)}")
            continue
        try:
            values[key] = _convert(hints[key], value, f"{where}{key}", problems)
        except (ValueError, TypeError) as error:
            problems.add(*(error.problems if isinstance(error, InputError) else (f"{where}{key}: {error}",)))
    try:
        return cls(**values)
    except InputError as error:
        problems.add(*error.problems)


def _convert(hint: Any, value: Any, where: str, problems: Problems) -> Any:
    """What TOML writes in another way than Python, as Python has it; the config checks the rest."""
    kind = _kind(hint)
    if _optional(hint) and value is False:
        return None
    if kind is LambdaSpace:
        if not isinstance(value, Mapping):
            raise TypeError(f"needs a table of distributions, got {value!r}")
        return _space(value, where)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise TypeError(f"needs a table, got {value!r}")
        return _parse(kind, value, f"{where}.", problems)
    return value


def _optional(hint: Any) -> bool:
    return isinstance(hint, types.UnionType) and type(None) in get_args(hint)


def _kind(hint: Any) -> Any:
    """The type that a field's hint asks for, but for None."""
    if isinstance(hint, types.UnionType):
        (hint,) = (option for option in get_args(hint) if option is not type(None))
    if typing.get_origin(hint) is Literal:  # of strings; which ones, the config checks
        return str
    return typing.get_origin(hint) or hint


_hints = functools.cache(typing.get_type_hints)


def _typed(part: Any, where: str, problems: Problems) -> dict[str, Any]:
    """The values of a dataclass's fields in the types that they declare: numpy's as Python's, lists as tuples.

    A value of another type is a problem; the default stands in for it, so that the rest is still checked.
    """
    values = {}
    hints = _hints(type(part))  # type: ignore[arg-type]
    for f in dataclasses.fields(part):
        try:
            values[f.name] = _of_type(hints[f.name], getattr(part, f.name), f"{where}{f.name}", problems)
        except TypeError as error:
            problems.add(f"{where}{f.name}: {error}")
            values[f.name] = getattr(type(part)(), f.name)
    return values


_SCALARS: Mapping[type, Any] = {float: numbers.Real, int: numbers.Integral, bool: bool | np.bool_, str: str}


def _of_type(hint: Any, value: Any, where: str, problems: Problems) -> Any:
    kind = _kind(hint)
    if value is None and _optional(hint):
        return None
    if kind in _SCALARS:
        is_boolean = isinstance(value, bool | np.bool_)
        if not isinstance(value, _SCALARS[kind]) or (is_boolean and kind is not bool):
            raise TypeError(f"needs {kind.__name__}, got {value!r}")
        return kind(value)
    if kind is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError(f"needs a list, got {value!r}")
        return tuple(_of_type(get_args(hint)[0], item, where, problems) for item in value)
    if kind is Mapping:
        if not isinstance(value, Mapping):
            raise TypeError(f"needs a table, got {value!r}")
        return {name: item.item() if isinstance(item, np.generic) else item for name, item in value.items()}
    if not isinstance(value, kind):
        raise TypeError(f"needs {kind.__name__}{' or None' if _optional(hint) else ''}, got {value!r}")
    if dataclasses.is_dataclass(kind):
        return dataclasses.replace(value, **_typed(value, f"{where}.", problems))
    return value


def _fits_toml(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _fits_toml(item) for name, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_fits_toml, value))
    return isinstance(value, bool | int | float | str)
