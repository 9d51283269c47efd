"""What is compared: the paper's methods with their grids (Table 2), its ablations, and the peers that users would pick.

A `Trial` is one training: a method at one of its settings, on a dataset, with a seed, at a length. It is all that a
result depends on besides the data, and its identity is a digest of it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tunelater import recipes
from tunelater.config import Config, ScheduleConfig, parse_distribution
from tunelater.data import benchmarks
from tunelater.distributions import LambdaSpace
from tunelater.problems import InputError, Problems, did_you_mean

VERSION = 1
"""Of what a trial does and keeps; results of another version are not the same results."""

Learner = Literal["network", "boosting", "libauc"]


BUDGETS = (1, 4, 9, 16)
"""How many settings of sixteen can be taken with as many values of each of two axes."""
BUDGETS_TOLD = "1, 4, 9 or 16"


@dataclass(frozen=True)
class Method:
    """A row of the tables: how to train, which settings to try, and where to evaluate what comes out.

    Args:
        name: on the command line and in results.
        label: in tables.
        axes: text values of each setting; the settings are their product, the last varying fastest. A name is that of a
            loss hyperparameter, with a value or a distribution; or of a field of the config, such as
            `optimizer.learning_rate`, or of what a learner of another kind has.
        inference: the values of each hyperparameter that a model is evaluated at; the trained value, or the mean of the
            trained distribution, for those that are not named.
        loss: of `losses.FAMILIES`; or, for another learner, which loss or weighting it has.
        sam: whether SAM takes the steps.
        film: whether the network is told lambda, where that varies.
        learner: what is trained.
        baseline: the method that this one adds something to, for paired comparisons.
    """

    name: str
    label: str
    axes: Mapping[str, Sequence[str]]
    inference: Mapping[str, Sequence[float]] = field(default_factory=dict)
    loss: str = "vs"
    sam: bool = False
    film: bool = True
    learner: Learner = "network"
    baseline: str | None = None

    def settings(self, n: int | None = None) -> list[dict[str, str]]:
        """All settings; or `n` of them, as many for every method, the same share of the values of each axis.

        Four of sixteen are every other value of two axes, one is the middle of each.

        Raises:
            InputError: a number that two axes cannot share.
        """
        if n is not None and n not in BUDGETS:
            raise InputError(f"of sixteen settings there can be {BUDGETS_TOLD}, got {n}")
        axes = self.axes
        if n is not None:
            each = max(1, round(n ** (1 / max(1, sum(len(values) > 1 for values in axes.values())))))
            axes = {name: _spread(values, each) for name, values in axes.items()}
        return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _spread(values: Sequence[str], n: int) -> Sequence[str]:
    """n of the values: every other one of four for two, the third for one (the paper's best VS setting is there)."""
    if n >= len(values):
        return values
    return [values[round((i + (n == 1)) * len(values) / (n + (n == 1)))] for i in range(n)]


def _texts(values: Iterable[float]) -> tuple[str, ...]:
    return tuple(f"{value:g}" for value in values)


_GAMMA, _TAU = (0.0, 0.1, 0.2, 0.3), (0.0, 1.0, 2.0, 3.0)
_ALPHA, _PHI = (0.1, 0.25, 0.5, 0.75), (0.0, 1.0, 2.0, 3.0)
_GAMMA_LCT = ("linear(0, 0.3, 0)", "linear(0, 0.3, 3.3)", "linear(0, 0.2, 5)", "linear(0.1, 0.3, 5)")
_TAU_LCT = ("linear(0, 3, 0)", "linear(0, 3, 0.33)", "linear(1, 4, 0)", "linear(1, 4, 0.33)")
_ALPHA_LCT = ("linear(0.25, 0.75, 2)", "linear(0.25, 0.75, 0)", "linear(0.25, 0.75, 4)", "linear(0.1, 0.9, 1.25)")
# The paper's L(1, 3, 2) cannot be: its height at 3 is twice what leaves an area of one. As L(0.25, 0.75, 4) is the
# rising triangle on its interval, so is L(1, 3, 1) on this one.
_PHI_LCT = ("linear(1, 3, 0.5)", "linear(1, 3, 0)", "linear(1, 3, 1)", "linear(1, 4, 0.33)")
_TAU_INFERENCE = (*_TAU, 4.0)

_VS = {"gamma": _texts(_GAMMA), "tau": _texts(_TAU)}
_VS_LCT = {"gamma": _GAMMA_LCT, "tau": _TAU_LCT}
_VS_AT = {"gamma": _GAMMA, "tau": _TAU_INFERENCE}
_FOCAL = {"alpha": _texts(_ALPHA), "phi": _texts(_PHI)}
_FOCAL_LCT = {"alpha": _ALPHA_LCT, "phi": _PHI_LCT}
_FOCAL_AT = {"alpha": _ALPHA, "phi": _PHI}
# What is tuned where a loss has nothing to tune: multiples of the recipe's rate and decay. Where a recipe has no decay,
# of this one, or the four values of it would be one.
_DECAY_OF_NONE = 1e-4
_RATES = {
    "optimizer.learning_rate": ("x0.3", "x0.55", "x1", "x1.8"),
    "optimizer.weight_decay": ("x0", "x0.3", "x1", "x3"),
}

PAPER = (
    Method("focal", "Focal", _FOCAL, loss="focal"),
    Method("focal+lct", "Focal + LCT", _FOCAL_LCT, _FOCAL_AT, loss="focal", baseline="focal"),
    Method("vs", "VS", _VS),
    Method("vs+lct", "VS + LCT", _VS_LCT, _VS_AT, baseline="vs"),
    Method("vs+sam", "VS + SAM", _VS, sam=True),
    Method("vs+sam+lct", "VS + SAM + LCT", _VS_LCT, _VS_AT, sam=True, baseline="vs+sam"),
)
"""Table 1."""
ABLATION = (
    Method("vs+lct-film", "VS + LCT without FiLM", _VS_LCT, film=False, baseline="vs"),
    Method("vs+sam+lct-film", "VS + SAM + LCT without FiLM", _VS_LCT, sam=True, film=False, baseline="vs+sam"),
    Method("focal+lct-film", "Focal + LCT without FiLM", _FOCAL_LCT, loss="focal", film=False, baseline="focal"),
)
"""Table 4: lambda reaches the loss and not the network (Eq. 8)."""
APPENDIX_F = (
    Method(
        "vs+lct:gamma", "VS + LCT, lambda = gamma", {"gamma": _GAMMA_LCT, "tau": _texts(_TAU)}, {"gamma": _GAMMA},
        baseline="vs",
    ),
    Method(
        "vs+lct:tau", "VS + LCT, lambda = tau", {"gamma": _texts(_GAMMA), "tau": _TAU_LCT}, {"tau": _TAU_INFERENCE},
        baseline="vs",
    ),
)  # fmt: skip
"""Figures 6 and 7: one of the two hyperparameters varies."""
PEERS = (
    Method("ce", "Cross-entropy", _RATES, loss="cross_entropy"),
    Method("wce", "Weighted cross-entropy", {"omega": _texts(np.arange(1, 17) / 10)}, loss="weighted_cross_entropy"),
    Method("la", "Logit adjustment", {"gamma": ("0",), "tau": _texts(np.arange(1, 17) / 4)}),
    Method("ldam", "LDAM", {"max_m": _texts((0.1, 0.25, 0.5, 1)), "s": _texts((3, 10, 30, 60))}, loss="ldam"),
)
"""What a user would pick instead. A threshold is chosen for every method alike, so that cross-entropy is the one with a
moved threshold; calibration and ensembles are added to all of them afterwards (`comparison.py`)."""
_MARGIN, _RATE, _DECAY = _texts((0.3, 0.6, 1, 1.5)), _texts((0.3, 1, 3, 10)), _texts((0.1, 0.5, 0.9, 0.99))
LIBAUC = (
    Method("aucm", "AUCM (LibAUC)", {"margin": _MARGIN, "rate": _RATE}, loss="aucm", learner="libauc"),
    Method(
        "ap",
        "AP loss (LibAUC)",
        {"margin": _MARGIN, "gamma": _DECAY},
        loss="ap",
        learner="libauc",
    ),
)
"""Losses that need the optional package LibAUC."""
_TREES = {"num_leaves": _texts((7, 15, 31, 63)), "learning_rate": _texts((0.02, 0.05, 0.1, 0.2))}
BOOSTING = (
    Method("gbm", "LightGBM", _TREES, loss="plain", learner="boosting"),
    Method("gbm+weights", "LightGBM, class weights", _TREES, loss="balanced", learner="boosting", baseline="gbm"),
)
"""For tables only."""
GROUPS: Mapping[str, tuple[Method, ...]] = {
    "paper": PAPER,
    "ablation": ABLATION,
    "appendix-f": APPENDIX_F,
    "peers": PEERS,
    "libauc": LIBAUC,
    "boosting": BOOSTING,
}
METHODS: Mapping[str, Method] = {method.name: method for group in GROUPS.values() for method in group}


def methods(names: Iterable[str]) -> list[Method]:
    """Methods by name, or by the name of a group of them.

    Raises:
        InputError: every name that is neither.
    """
    problems, found = Problems(), {}
    for name in names:
        known = name in GROUPS or name in METHODS
        problems.check(known, f"there is no method {name!r}{did_you_mean(name, [*METHODS, *GROUPS])}")
        for method in (GROUPS.get(name) or (METHODS[name],)) if known else ():
            found[method.name] = method
    problems.raise_if_any()
    return list(found.values())


# ---------------------------------------------------------------------------------------------------------- the columns


@dataclass(frozen=True)
class Column:
    """A column of the tables: a dataset at an imbalance ratio.

    Args:
        name: as in the record of the paper's numbers.
        label: in tables, over two lines at most.
        dataset: one of `benchmarks.DATASETS`, or a table of `data.TABLES`.
        beta: the ratio that the training part is sub-sampled to; None leaves it as it is.
    """

    name: str
    label: str
    dataset: str
    beta: float | None


COLUMNS: Mapping[str, Column] = {
    column.name: column
    for column in (
        Column("cifar10-auto-deer", "Auto Deer", "cifar10-automobile-deer", 100),
        Column("cifar10-auto-truck", "Auto Truck", "cifar10-automobile-truck", 100),
        Column("cifar10-animal-vehicle", "Animal Vehicle", "cifar10-animal-vehicle", 100),
        Column("cifar100-household", "Household", "cifar100-household", 100),
        Column("melanoma-b10", "Melanoma β=10", "melanoma", 10),
        Column("melanoma-b100", "Melanoma β=100", "melanoma", 100),
        Column("melanoma-b200", "Melanoma β=200", "melanoma", 200),
        Column("aptos-b100", "APTOS β=100", "aptos", 100),
        Column("aptos-b200", "APTOS β=200", "aptos", 200),
    )
}
"""Those of Table 3."""
SEEDS = (0, 1, 2)


# ----------------------------------------------------------------------------------------------------------- the trials


@dataclass(frozen=True)
class Length:
    """How far a training goes, and on how much: what makes two studies of the same methods different ones.

    Args:
        epochs: None for the recipe's own. A shorter training has a cosine schedule: the paper's milestones, which suit
            500 epochs, would leave it at a rate that is too high until its last moments.
        size: pixels; None for the recipe's own.
        recipe: "paper" or "released", see `recipes`.
        protocol: "held-out" cuts a validation part from the training part; "paper" trains on all of it, and the test
            part is the validation part.
        precision: "32-true" or "bf16-mixed".
    """

    epochs: int | None = None
    size: int | None = None
    recipe: str = "paper"
    protocol: str = "held-out"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"

    def __str__(self) -> str:
        told = [f"{self.epochs} epochs" if self.epochs else "full length"]
        told += [f"{self.size} px"] if self.size else []
        told += ["released recipe"] if self.recipe != "paper" else []
        told += ["trained on all but the test part"] if self.protocol == "paper" else []
        return ", ".join([*told, *(["bf16"] if self.precision != "32-true" else [])])


@dataclass(frozen=True)
class Trial:
    """One training and the evaluation of what came out."""

    dataset: str
    beta: float | None
    method: str
    setting: tuple[tuple[str, str], ...]
    seed: int
    length: Length = Length()

    def __post_init__(self) -> None:
        problems = Problems()
        problems.check(
            self.method in METHODS, f"there is no method {self.method!r}{did_you_mean(self.method, METHODS)}"
        )
        problems.raise_if_any()

    def __str__(self) -> str:
        setting = ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in self.setting)
        beta = "" if self.beta is None else f" β={self.beta:g}"
        return f"{self.dataset}{beta} {self.method} ({setting}) seed {self.seed}"

    @property
    def kind(self) -> Method:
        return METHODS[self.method]

    def config(self) -> Config:
        """What the network is trained with; for another learner all but its loss and what that has to tune.

        Raises:
            InputError: settings that make no sense.
        """
        base = _base(self.dataset, self.seed, self.length)
        space, changes = {}, {}
        for name, text in self.setting:
            if "." in name:
                changes[name] = text
            elif self.kind.learner == "network":
                space[name] = parse_distribution(text)
        config = dataclasses.replace(
            base,
            loss=self.kind.loss if self.kind.learner == "network" else "cross_entropy",
            lambdas=LambdaSpace(**space),
            model=dataclasses.replace(base.model, head="cosine") if self.kind.loss == "ldam" else base.model,
            film=base.film if self.kind.film else None,
            sam=recipes.with_method(base, "vs+sam", recipe=self.length.recipe).sam if self.kind.sam else None,
            early_stopping=base.early_stopping if self.is_table else None,
            precision=self.length.precision,
        )
        for name, text in changes.items():
            part, _, key = name.partition(".")
            before = getattr(getattr(config, part), key) or _DECAY_OF_NONE
            value = before * float(text.removeprefix("x")) if text.startswith("x") else float(text)
            config = dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **{key: value})})
        return config

    @property
    def is_table(self) -> bool:
        return self.dataset not in benchmarks.DATASETS

    def lambdas(self) -> dict[str, np.ndarray]:
        """(L,) values of each hyperparameter that the model is evaluated at."""
        named = [pair for pair in self.setting if "." not in pair[0] and self.kind.learner == "network"]
        trained = {name: parse_distribution(text).mean for name, text in named}
        axes = {name: self.kind.inference.get(name, (mean,)) for name, mean in trained.items()}
        product = list(itertools.product(*axes.values()))
        return {name: np.array([values[i] for values in product]) for i, name in enumerate(axes)}

    def record(self) -> dict[str, Any]:
        """As JSON types."""
        return {**dataclasses.asdict(self), "setting": dict(self.setting)}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Trial:
        told = {**record, "setting": tuple(record["setting"].items()), "length": Length(**record["length"])}
        return cls(**told)

    def identity(self, fingerprint: str) -> str:
        """A digest of what is trained and how it is evaluated, and of the data."""
        what: dict[str, Any] = {"version": VERSION, "method": self.method, "data": fingerprint, "seed": self.seed}
        if self.kind.learner != "boosting":
            config = dataclasses.replace(self.config(), compile=False)
            what |= {"config": config.to_toml(), "lambdas": {n: v.tolist() for n, v in self.lambdas().items()}}
        if self.kind.learner != "network":
            what |= {"setting": dict(self.setting), "learner": self.kind.learner}
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:20]


@functools.lru_cache(maxsize=256)
def _base(dataset: str, seed: int, length: Length) -> Config:
    """What all methods have in common; made once, since a sweep asks for thousands."""
    if dataset not in benchmarks.DATASETS:
        return dataclasses.replace(Config(seed=seed), epochs=length.epochs or Config().epochs)
    recipe = "paper" if dataset == "aptos" else length.recipe  # there is one recipe of APTOS
    config = recipes.for_dataset(dataset, recipe=recipe, seed=seed)
    if length.size is not None:
        assert config.images is not None
        config = dataclasses.replace(config, images=dataclasses.replace(config.images, size=length.size))
    if length.epochs is None or length.epochs >= config.epochs:
        return config
    schedule = ScheduleConfig("cosine", warmup_epochs=min(1.0, length.epochs / 5))
    return dataclasses.replace(config, epochs=length.epochs, schedule=schedule)


def trials(
    columns: Iterable[Column],
    methods: Iterable[Method],
    *,
    settings: int | None = None,
    seeds: Iterable[int] = SEEDS,
    length: Length = Length(),
) -> list[Trial]:
    """Every training of a study, seeds last: the first trials are one seed of everything.

    Args:
        settings: of each method; None for all, sixteen.
    """
    return [
        Trial(column.dataset, column.beta, method.name, tuple(setting.items()), seed, length)
        for seed in seeds
        for column in columns
        for method in methods
        if method.learner != "boosting" or column.dataset not in benchmarks.DATASETS
        for setting in method.settings(settings)
    ]
