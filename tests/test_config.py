"""Configs: what is written reads back, and everything wrong is found at once."""

import dataclasses
import inspect
import itertools
import math
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunelater.config import (
    TRUNK_OPTIONS,
    AveragingConfig,
    Config,
    EarlyStoppingConfig,
    FiLMConfig,
    ImagesConfig,
    ModelConfig,
    OptimizerConfig,
    SAMConfig,
    ScheduleConfig,
    default_space,
    parse_distribution,
)
from tunelater.distributions import Distribution, LambdaSpace, Linear, PointMass, Triangular, Uniform
from tunelater.losses import FAMILIES
from tunelater.models import TRUNKS
from tunelater.problems import InputError

VARIED = Config(
    loss="focal",
    lambdas=LambdaSpace(alpha=Triangular(0.25, 0.75, rising=True), phi=PointMass(2.0)),
    lambda_per="sample",
    model=ModelConfig(
        trunk="resnet18", options={"in_chans": 1, "drop_rate": 0.25, "nested": {"sizes": [1, 2]}}, head="cosine"
    ),
    images=ImagesConfig(
        size=48,
        bits=12,
        crop="pad",
        padding=6,
        scale=(0.2, 0.9),
        horizontal_flip=True,
        vertical_flip=True,
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
    ),
    film=FiLMConfig(placement="stages", hidden=7, start="identity", rescale=True, bias=False),
    optimizer=OptimizerConfig(name="sgd", learning_rate=0.1, weight_decay=2e-4, momentum=0.95),
    schedule=ScheduleConfig(name="multistep", milestones=(400, 450), factor=0.01, warmup_epochs=2.5),
    epochs=500,
    batch_size=1,
    clip_norm=None,
    sam=SAMConfig(rho=0.05, adaptive=True, clip="first"),
    averaging=AveragingConfig(decay=0.99, every="step"),
    early_stopping=None,
    precision="bf16-mixed",
    compile=True,
    seed=2**63 - 1,
)


# ---------------------------------------------------------------------------------------------------------------------
# TOML
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        VARIED,
        Config(film=None, averaging=None, early_stopping=None, clip_norm=None),
        Config(averaging=AveragingConfig(), clip_norm=1e-30),
        Config(lambdas=LambdaSpace(gamma=0, tau=1)),
        Config(lambdas=LambdaSpace(tau=Uniform(1, 4), gamma=0.1)),
        Config(loss="cross_entropy", lambdas=LambdaSpace()),
        Config(loss="weighted_cross_entropy", lambdas=LambdaSpace(omega=Uniform(0, 1))),
    ],
)
def test_a_config_reads_back_as_written(config: Config) -> None:
    again = Config.from_toml(config.to_toml())
    assert again == config
    assert again.lambdas.draw(seed=1, step=2) == config.lambdas.draw(seed=1, step=2)
    assert again.to_toml() == config.to_toml()


def test_the_varied_config_differs_from_the_default_in_every_setting() -> None:
    """Otherwise a setting that is lost on the way would go unseen."""

    def leaves(value: Any, where: str) -> dict[str, Any]:
        if not dataclasses.is_dataclass(value) or isinstance(value, type):
            return {where: value}
        parts = [leaves(getattr(value, f.name), f"{where}.{f.name}") for f in dataclasses.fields(value)]
        return {key: leaf for part in parts for key, leaf in part.items()}

    optional = Config(averaging=AveragingConfig(), sam=SAMConfig(), images=ImagesConfig())
    other, default = leaves(VARIED, ""), leaves(optional, "")
    same = {key for key in other if key in default and other[key] == default[key]}
    assert not same


@st.composite
def vs_spaces(draw: st.DrawFn) -> LambdaSpace:
    def distribution() -> Distribution | float:
        a = draw(st.floats(0, 1e6))
        if draw(st.booleans()):
            return a
        b = a + draw(st.floats(1e-3, 1e6))
        return Linear(a, b, draw(st.floats(0, 1)) * 2 / (b - a))

    return LambdaSpace(gamma=distribution(), tau=distribution())


@given(vs_spaces(), st.floats(1e-300, 1e300))
def test_distributions_and_numbers_read_back_to_the_last_bit(space: LambdaSpace, rate: float) -> None:
    config = Config(lambdas=space, optimizer=OptimizerConfig(learning_rate=rate))
    again = Config.from_toml(config.to_toml())
    assert again.lambdas == space
    assert again.optimizer.learning_rate == rate


def test_toml_spells_out_every_setting() -> None:
    raw = tomllib.loads(Config().to_toml())
    assert raw.keys() == {f.name for f in dataclasses.fields(Config)}
    assert raw["schedule"].keys() == {f.name for f in dataclasses.fields(ScheduleConfig)}
    assert raw["averaging"] is False
    assert raw["lambdas"]["tau"] == {"linear": [0, 3, 0.33]}


def test_what_the_toml_does_not_set_takes_the_default() -> None:
    assert Config.from_toml("") == Config()
    config = Config.from_toml("epochs = 3\noptimizer.learning_rate = 1\n[lambdas]\ngamma = 0\ntau = {uniform = [0, 3]}")
    expected = Config(
        epochs=3, optimizer=OptimizerConfig(learning_rate=1.0), lambdas=LambdaSpace(gamma=0, tau=Uniform(0, 3))
    )
    assert config == expected
    assert isinstance(config.optimizer.learning_rate, float)


@pytest.mark.parametrize("loss", FAMILIES)
def test_every_loss_has_a_space_to_begin_with(loss: str) -> None:
    config = Config(loss=loss, lambdas=default_space(loss))
    assert set(config.lambdas) == set(FAMILIES[loss].hyperparameters)
    assert config.lambdas.free == tuple(config.lambdas)
    assert Config.from_toml(config.to_toml()) == config


def test_default_spaces_are_among_the_papers() -> None:
    """Table 2."""
    assert default_space("vs") == LambdaSpace(gamma=Linear(0, 0.3, 0), tau=Linear(0, 3, 0.33)) == Config().lambdas
    assert default_space("focal") == LambdaSpace(alpha=Linear(0.1, 0.9, 1.25), phi=Linear(1, 3, 0.5))


def test_a_config_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(VARIED.to_toml(), encoding="utf-8")
    assert Config.read(path) == Config.read(str(path)) == VARIED


# ---------------------------------------------------------------------------------------------------------------------
# Problems
# ---------------------------------------------------------------------------------------------------------------------


def problems_of(toml: str) -> tuple[str, ...]:
    with pytest.raises(InputError) as error:
        Config.from_toml(toml)
    return error.value.problems


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "trunk": ({"model": ModelConfig(trunk="mpl")}, "there is no trunk 'mpl'; did you mean 'mlp'?"),
    "image size": ({"images": ImagesConfig(size=0)}, "images.size must be 1 pixel or more, or None, got 0"),
    "crop": ({"images": ImagesConfig(crop="pads")}, "there is no images.crop 'pads'; did you mean 'pad'?"),
    "padding": ({"images": ImagesConfig(padding=-1)}, "images.padding must be 0 pixels or more, got -1"),
    "scale": (
        {"images": ImagesConfig(scale=(0.9, 0.5))},
        "images.scale is the smallest and largest share of the area, in (0, 1], got [0.9, 0.5]",
    ),
    "mean": (
        {"images": ImagesConfig(mean=(120.0, 110.0, 100.0))},
        "images.mean is three numbers in [0, 1] (of 255, that is 1), got [120.0, 110.0, 100.0]",
    ),
    "std": (
        {"images": ImagesConfig(std=(0.2, 0.2))},
        "images.std is three numbers in (0, 1] (of 255, that is 1), got [0.2, 0.2]",
    ),
    "bits": ({"images": ImagesConfig(bits=17)}, "images.bits must be from 1 to 16, or None, got 17"),
    "hidden": ({"film": FiLMConfig(hidden=0)}, "film.hidden must be 1 or more, got 0"),
    "placement": (
        {"film": FiLMConfig(placement="blocks")},
        "film.placement (--film) is 'features', 'logits' or 'stages', got 'blocks'",
    ),
    "start": ({"film": FiLMConfig(start="zero")}, "film.start is 'paper' or 'identity', got 'zero'"),
    "optimizer": ({"optimizer": OptimizerConfig("adm")}, "there is no optimizer 'adm'; did you mean 'adam'?"),
    "rate": ({"optimizer": OptimizerConfig(learning_rate=0)}, "optimizer.learning_rate must be positive, got 0.0"),
    "decay": ({"optimizer": OptimizerConfig(weight_decay=-1)}, "optimizer.weight_decay must be 0 or more, got -1.0"),
    "momentum": ({"optimizer": OptimizerConfig(momentum=1)}, "optimizer.momentum must be in [0, 1), got 1.0"),
    "schedule": ({"schedule": ScheduleConfig("cosin")}, "there is no schedule 'cosin'; did you mean 'cosine'?"),
    "milestones": (
        {"schedule": ScheduleConfig(milestones=(5, 5))},
        "schedule.milestones must be rising positive epochs, got [5, 5]",
    ),
    "first milestone": (
        {"schedule": ScheduleConfig(milestones=(0, 5))},
        "schedule.milestones must be rising positive epochs, got [0, 5]",
    ),
    "no milestones": ({"schedule": ScheduleConfig("multistep")}, "schedule 'multistep' needs milestones, got none"),
    "factor": ({"schedule": ScheduleConfig(factor=1)}, "schedule.factor must be in (0, 1), got 1.0"),
    "warmup": ({"schedule": ScheduleConfig(warmup_epochs=-1)}, "schedule.warmup_epochs must be 0 or more, got -1.0"),
    "warmup as long as training": (
        {"epochs": 5, "schedule": ScheduleConfig(warmup_epochs=5)},
        "schedule.warmup_epochs must be fewer than the 5 epochs, got 5: lower it",
    ),
    "width": (
        {"model": ModelConfig(options={"width": -3})},
        "model.options.width must be 1 unit or more, got -3",
    ),
    "depth": ({"model": ModelConfig(options={"depth": 0})}, "model.options.depth must be 1 layer or more, got 0"),
    "dropout": ({"model": ModelConfig(options={"dropout": 2})}, "model.options.dropout must be in [0, 1), got 2.0"),
    "no dropout at all": (
        {"model": ModelConfig(options={"dropout": 1.0})},
        "model.options.dropout must be in [0, 1), got 1.0",
    ),
    "width in words": (
        {"model": ModelConfig(options={"width": "wide"})},
        "model.options.width: needs int, got 'wide'",
    ),
    "option": (
        {"model": ModelConfig(options={"widht": 64})},
        "trunk 'mlp' has no option 'widht'; did you mean 'width'?",
    ),
    "option of the data": (
        {"model": ModelConfig(options={"n_features": 4})},
        "trunk 'mlp' has no option 'n_features'; known are bins, depth, dropout, embedding, embedding_width, "
        "frequency_scale, width",
    ),
    "option of none": (
        {"model": ModelConfig("resnet32", {"width": 3})},
        "trunk 'resnet32' has no option 'width'; it has none",
    ),
    "option that no file holds": (
        {"model": ModelConfig("resnet18", {"act_layer": None})},
        "model.options.act_layer needs a number, text, true or false, or lists or tables of them, got None",
    ),
    "average": ({"averaging": AveragingConfig(decay=1)}, "averaging.decay must be in (0, 1), got 1.0"),
    "every": ({"averaging": AveragingConfig(every="day")}, "averaging.every is 'epoch' or 'step', got 'day'"),
    "patience": (
        {"early_stopping": EarlyStoppingConfig(patience=0)},
        "early_stopping.patience must be 1 or more, got 0",
    ),
    "metric": (
        {"early_stopping": EarlyStoppingConfig(metric="average_precison")},
        "early_stopping.metric: there is no metric 'average_precison' of a lambda; did you mean 'average_precision'?",
    ),
    "loss": ({"loss": "focall"}, "there is no loss 'focall'; did you mean 'focal'?"),
    "lambda name": (
        {"lambdas": LambdaSpace(gama=0.1, gamma=0.1, tau=1)},
        "loss 'vs' has no hyperparameter 'gama'; did you mean 'gamma'?",
    ),
    "lambda missing": (
        {"lambdas": LambdaSpace(gamma=0.1)},
        "loss 'vs' needs a value or distribution for 'tau'",
    ),
    "lambda range": (
        {"loss": "focal", "lambdas": LambdaSpace(alpha=Uniform(0.5, 1.5), phi=1)},
        f"alpha of loss 'focal' must lie in [0.001, 0.999], got {Uniform(0.5, 1.5)}",
    ),
    "no lambdas": (
        {"loss": "cross_entropy", "lambdas": LambdaSpace(tau=1)},
        "loss 'cross_entropy' has no hyperparameters, got 'tau'",
    ),
    "lambda_per": ({"lambda_per": "epoch"}, "lambda_per is 'batch' or 'sample', got 'epoch'"),
    "epochs": ({"epochs": 0}, "epochs must be 1 or more, got 0"),
    "batch": ({"batch_size": 0}, "batch_size must be 1 or more, got 0"),
    "clip": ({"clip_norm": 0.0}, "clip_norm must be positive, got 0.0"),
    "infinite clip": ({"clip_norm": math.inf}, "clip_norm must be positive, got inf"),
    "precision": ({"precision": "16"}, "precision (--precision) is one of 32-true, bf16-mixed, got '16'"),
    "seed": ({"seed": -1}, "seed must be in [0, 2^63), got -1"),
    "nan": (
        {"optimizer": OptimizerConfig(learning_rate=math.nan)},
        "optimizer.learning_rate must be positive, got nan",
    ),
}


@pytest.mark.parametrize(("settings", "problem"), BROKEN.values(), ids=BROKEN)
def test_a_value_that_breaks_a_rule_is_named(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError) as error:
        Config(**settings)
    assert error.value.problems == (problem,)


WRONG_TYPES: dict[str, tuple[dict[str, Any], str]] = {
    "half an epoch": ({"epochs": 2.5}, "epochs: needs int, got 2.5"),
    "whole float": ({"epochs": 2.0}, "epochs: needs int, got 2.0"),
    "seed": ({"seed": "a"}, "seed: needs int, got 'a'"),
    "boolean": ({"batch_size": True}, "batch_size: needs int, got True"),
    "numpy's boolean": ({"clip_norm": np.True_}, "clip_norm: needs float, got np.True_"),
    "number for a boolean": ({"compile": 1}, "compile: needs bool, got 1"),
    "none": ({"epochs": None}, "epochs: needs int, got None"),
    "text for a part": ({"optimizer": "adam"}, "optimizer: needs OptimizerConfig, got 'adam'"),
    "table for a part": ({"sam": {"rho": 0.1}}, "sam: needs SAMConfig or None, got {'rho': 0.1}"),
    "no part": ({"schedule": None}, "schedule: needs ScheduleConfig, got None"),
    "in a part": (
        {"optimizer": OptimizerConfig(learning_rate="fast")},
        "optimizer.learning_rate: needs float, got 'fast'",
    ),
    "in a list": ({"schedule": ScheduleConfig(milestones=(1.5,))}, "schedule.milestones: needs int, got 1.5"),
    "loss": ({"loss": ["vs"]}, "loss: needs str, got ['vs']"),
    "lambdas": ({"lambdas": {"gamma": 0.1}}, "lambdas: needs LambdaSpace, got {'gamma': 0.1}"),
    "options": ({"model": ModelConfig(options="wide")}, "model.options: needs a table, got 'wide'"),
    "trunk": ({"model": ModelConfig(trunk=32)}, "model.trunk: needs str, got 32"),
    "metric": ({"early_stopping": EarlyStoppingConfig(metric=None)}, "early_stopping.metric: needs str, got None"),
}


@pytest.mark.parametrize(("settings", "problem"), WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_a_value_of_a_wrong_type_is_named_also_where_no_file_was_read(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError) as error:
        Config(**settings)
    assert error.value.problems == (problem,)


def test_wrong_types_and_broken_rules_are_reported_together() -> None:
    with pytest.raises(InputError) as error:
        Config(
            loss=7,
            lambdas=LambdaSpace(alpha=0.5, phi=1),
            model=ModelConfig(options={"width": "wide", "depth": 0, "dropuot": 0.1}),
            optimizer=OptimizerConfig("adm", learning_rate="fast"),
            epochs=0,
        )
    assert len(error.value.problems) == 7


def test_numbers_of_numpys_and_lists_become_pythons() -> None:
    """So that a config is the same, and its file too, wherever its numbers come from."""
    config = Config(
        epochs=np.int64(3),
        clip_norm=np.float32(0.5),
        optimizer=OptimizerConfig(learning_rate=1),
        schedule=ScheduleConfig("multistep", milestones=[1, np.int32(2)]),
        model=ModelConfig(options={"width": np.int64(7), "dropout": np.float64(0.5)}),
        lambdas=LambdaSpace(gamma=PointMass(np.int64(0)), tau=np.float32(1)),
    )
    plain = Config(
        epochs=3,
        clip_norm=0.5,
        optimizer=OptimizerConfig(learning_rate=1.0),
        schedule=ScheduleConfig("multistep", milestones=(1, 2)),
        model=ModelConfig(options={"width": 7, "dropout": 0.5}),
        lambdas=LambdaSpace(gamma=0, tau=1),
    )
    assert config == plain
    assert config.to_toml() == plain.to_toml() == Config.from_toml(plain.to_toml()).to_toml()
    assert type(config.epochs) is int
    assert type(config.optimizer.learning_rate) is float


@pytest.mark.parametrize("name", TRUNK_OPTIONS)
def test_the_options_of_a_trunk_are_those_of_its_network(name: str) -> None:
    taken = inspect.signature(TRUNKS[name]).parameters
    fields = dataclasses.fields(TRUNK_OPTIONS[name])
    assert {f.name for f in fields} == taken.keys() - {"n_features", "quantiles"}
    assert all(f.default == taken[f.name].default for f in fields)


def test_all_that_is_wrong_with_the_values_is_reported_at_once() -> None:
    with pytest.raises(InputError) as error:
        Config(
            lambdas=LambdaSpace(gama=-1),
            model=ModelConfig(trunk="mpl"),
            optimizer=OptimizerConfig(name="adm", learning_rate=-1),
            schedule=ScheduleConfig("multistep", factor=2),
            epochs=0,
            seed=-1,
        )
    assert len(error.value.problems) == 10


def test_all_that_is_wrong_with_a_text_is_reported_at_once() -> None:
    """Unknown names, wrong types and values out of range, at every depth."""
    found = problems_of(
        """
        epochs = "many"
        batch_size = 0
        batchsize = 3
        [optimizer]
        learning_rate = "small"
        weight_decay = -1
        momentun = 0.9
        [film]
        hidden = 1.5
        start = "zero"
        [lambdas]
        gamma = "small"
        tau = {linear = [3, 0, 0]}
        """
    )
    assert sorted(found) == sorted(
        [
            "epochs: needs int, got 'many'",
            "batch_size must be 1 or more, got 0",
            "unknown setting 'batchsize'; did you mean 'batch_size'?",
            "optimizer.learning_rate: needs float, got 'small'",
            "optimizer.weight_decay must be 0 or more, got -1.0",
            "unknown setting 'optimizer.momentun'; did you mean 'momentum'?",
            "film.hidden: needs int, got 1.5",
            "film.start is 'paper' or 'identity', got 'zero'",
            "lambdas.gamma: a distribution is a number, {linear = [a, b, h_b]} or {uniform = [a, b]}; got 'small'",
            "lambdas.tau: Linear(a, b, h_b) needs finite a < b, got a=3.0, b=0.0",
        ]
    )


@pytest.mark.parametrize(
    ("toml", "problems"),
    [
        # The default VS space would not fit focal loss, nor these lambdas a default loss: neither is to be reported.
        ('loss = "focal"\nlambdas = {alpha = "x", phi = 1}', ["lambdas.alpha: a distribution is"]),
        ("loss = 3\nlambdas = {alpha = 0.5, phi = 1}", ["loss: needs str, got 3"]),
        (
            'loss = "focall"\nlambdas = 3',
            ["lambdas: needs a table of distributions, got 3", "there is no loss 'focall'"],
        ),
        ('loss = "focal"\nlambdas = {alpha = 2, phi = 1}', ["alpha of loss 'focal' must lie in [0.001, 0.999]"]),
    ],
)
def test_a_broken_loss_or_space_does_not_make_the_other_look_wrong(toml: str, problems: list[str]) -> None:
    found = problems_of(toml)
    assert len(found) == len(problems)
    assert all(problem.startswith(start) for problem, start in zip(found, problems, strict=True))


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ("lamdas = {gamma = 1}", "unknown setting 'lamdas'; did you mean 'lambdas'?"),
        ("schedule.milestone = [3]", "unknown setting 'schedule.milestone'; did you mean 'milestones'?"),
        ("averaging.zzzz = 1", "unknown setting 'averaging.zzzz'; known are decay, every"),
    ],
)
def test_unknown_settings_are_explained(toml: str, problem: str) -> None:
    assert problems_of(toml) == (problem,)


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ("epochs = 1.0", "epochs: needs int, got 1.0"),
        ("epochs = true", "epochs: needs int, got True"),
        ("epochs = false", "epochs: needs int, got False"),
        ('optimizer.learning_rate = "0.1"', "optimizer.learning_rate: needs float, got '0.1'"),
        ("optimizer.learning_rate = true", "optimizer.learning_rate: needs float, got True"),
        ("optimizer.name = 3", "optimizer.name: needs str, got 3"),
        ("lambda_per = ['batch']", "lambda_per: needs str, got ['batch']"),
        ("film.bias = 1", "film.bias: needs bool, got 1"),
        ("film = true", "film: needs a table, got True"),
        ("optimizer = false", "optimizer: needs a table, got False"),
        ("clip_norm = true", "clip_norm: needs float, got True"),
        ("model.options = 3", "model.options: needs a table, got 3"),
        ("model.options = 'wide'", "model.options: needs a table, got 'wide'"),
        ("schedule.milestones = 5", "schedule.milestones: needs a list, got 5"),
        ("schedule.milestones = 'abc'", "schedule.milestones: needs a list, got 'abc'"),
        ("schedule.milestones = [1.5, 2]", "schedule.milestones: needs int, got 1.5"),
        ("schedule.milestones = ['a']", "schedule.milestones: needs int, got 'a'"),
        ("lambdas = 3", "lambdas: needs a table of distributions, got 3"),
    ],
)
def test_values_of_a_wrong_type_are_explained(toml: str, problem: str) -> None:
    assert problems_of(toml) == (problem,)


@pytest.mark.parametrize(
    "value",
    [
        "true",
        "'1'",
        "[0, 1]",
        "{}",
        "{linear = [0, 3]}",
        "{linear = [0, 3, 0.1, 1]}",
        "{linear = 1}",
        "{linear = ['0', '3', '0.1']}",
        "{linear = [false, true, true]}",
        "{uniform = [0]}",
        "{unifrm = [0, 3]}",
        "{uniform = [0, 3], linear = [0, 3, 0.1]}",
    ],
)
def test_what_is_not_a_distribution_is_refused_in_toml(value: str) -> None:
    (problem,) = problems_of(f"lambdas = {{gamma = 0.1, tau = {value}}}")
    assert problem.startswith("lambdas.tau: a distribution is a number, {linear = [a, b, h_b]} or {uniform = [a, b]}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no config file .*nowhere\.toml"):
        Config.read(tmp_path / "nowhere.toml")
    with pytest.raises(InputError, match="there is no config file"):
        Config.read(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"epochs = ", "the config is not valid TOML: "),
        (b"epochs = 1\nepochs = 2", "the config is not valid TOML: "),
        (b"\xff\xfe", "is not a text file in UTF-8"),
        (b"epochs = 0\nbatch_size = 0", "epochs must be 1 or more"),
    ],
)
def test_problems_in_a_file_name_the_file(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as error:
        Config.read(path)
    assert len(error.value.problems) == (2 if b"batch_size" in content else 1)
    assert all(str(path) in problem for problem in error.value.problems)


# ---------------------------------------------------------------------------------------------------------------------
# Distributions as text
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.1", PointMass(0.1)),
        (" 3 ", PointMass(3)),
        ("-2e-1", PointMass(-0.2)),
        ("linear(0, 3, 0.33)", Linear(0, 3, 0.33)),
        ("linear(0,3,0.33)", Linear(0, 3, 0.33)),
        ("  linear ( 0 , 3 , 0.33 )  ", Linear(0, 3, 0.33)),
        ("uniform(0.5, 3)", Uniform(0.5, 3)),
        ("uniform(-1, 1)", Linear(-1, 1, 0.5)),
    ],
)
def test_distributions_are_read_from_text(text: str, expected: Distribution) -> None:
    assert parse_distribution(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abc",
        "true",
        "0.1)",
        "0.1(",
        "(0.1)",
        "1 2",
        "0.1, 0.2",
        "linear",
        "linear()",
        "linear(0, 3)",
        "linear(0, 3, 0.1, 1)",
        "linear(0, 3, x)",
        "linear(0, 3, 0.1",
        "linear(0, 3, 0.1))",
        "linear((0, 3, 0.1)",
        "linear(0, 3, 0.1) 1",
        "linear(0 1, 3, 0.1)",
        "linear(0,, 3)",
        "linear[0, 3, 0.1]",
        "uniform(0)",
        "uniform(0, 1, 2)",
        "unifrm(0, 1)",
        "Uniform(0, 1)",
        "two uniform(0, 1)",
    ],
)
def test_text_that_is_not_a_distribution_is_refused_whole(text: str) -> None:
    with pytest.raises(InputError) as error:
        parse_distribution(text)
    form = "a distribution is a number, linear(a, b, h_b) or uniform(a, b)"
    assert error.value.problems == (f"{form}; got {text!r}",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("linear(0, 3, 0.7)", r"in \[0, 0.666667\].*got 0.7"),
        ("linear(3, 0, 0.1)", "finite a < b"),
        ("uniform(1, 1)", "finite a < b"),
        ("uniform(0, inf)", "finite a < b"),
        ("nan", "a finite value, got nan"),
        ("1e999", "a finite value, got inf"),
    ],
)
def test_distributions_that_cannot_be_say_why(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_distribution(text)


# ---------------------------------------------------------------------------------------------------------------------
# Schedules
# ---------------------------------------------------------------------------------------------------------------------


def rates(schedule: ScheduleConfig, epochs: int, steps_per_epoch: int, rate: float = 1.0) -> list[float]:
    steps = epochs * steps_per_epoch
    return [rate * schedule.multiplier(step, steps_per_epoch, steps) for step in range(steps)]


def test_constant_schedule() -> None:
    assert rates(ScheduleConfig("constant"), 3, 2) == [1] * 6


def test_warmup_is_a_line_from_zero_that_ends_at_the_full_rate() -> None:
    assert rates(ScheduleConfig("constant", warmup_epochs=2), 4, 2) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1])
    assert rates(ScheduleConfig("constant", warmup_epochs=0.5), 2, 4) == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 1])
    assert rates(ScheduleConfig("constant", warmup_epochs=9), 2, 2) == pytest.approx([i / 18 for i in range(1, 5)])


def test_multistep_schedule_is_the_papers() -> None:
    """0.1, then 1e-3 from epoch 400 and 1e-5 from epoch 450 (Section 5.1)."""
    schedule = ScheduleConfig("multistep", milestones=(400, 450), factor=0.01)
    by_epoch = rates(schedule, 500, 3, rate=0.1)[::3]
    assert by_epoch == pytest.approx([0.1] * 400 + [1e-3] * 50 + [1e-5] * 50)
    # Milestones fall on the first step of their epoch.
    assert rates(schedule, 500, 3, rate=0.1)[3 * 400 - 1 : 3 * 400 + 1] == pytest.approx([0.1, 1e-3])


def test_multistep_counts_its_milestones_from_the_start_of_training_also_after_warmup() -> None:
    schedule = ScheduleConfig("multistep", milestones=(3, 5), factor=0.1, warmup_epochs=2)
    assert rates(schedule, 6, 1) == pytest.approx([0.5, 1, 1, 0.1, 0.1, 0.01])


def test_cosine_schedule_falls_from_one_to_near_zero() -> None:
    assert rates(ScheduleConfig("cosine"), 4, 1) == pytest.approx([1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2])
    long = rates(ScheduleConfig("cosine", warmup_epochs=5), 100, 10)
    assert long[:50] == pytest.approx([(i + 1) / 50 for i in range(50)])
    assert long[50] == 1
    assert long[50 + 475] == pytest.approx(0.5)
    assert 0 < long[-1] < 1e-5
    assert all(later < earlier for earlier, later in itertools.pairwise(long[50:]))


# ---------------------------------------------------------------------------------------------------------------------
# Frozen
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part",
    [VARIED, VARIED.model, VARIED.film, VARIED.optimizer, VARIED.schedule, VARIED.averaging, EarlyStoppingConfig()],
)
def test_configs_are_frozen(part: Any) -> None:
    for field in dataclasses.fields(part):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, field.name, getattr(part, field.name))


def test_a_replaced_value_is_checked_too() -> None:
    assert dataclasses.replace(VARIED, epochs=3).epochs == 3
    with pytest.raises(InputError, match="epochs must be 1 or more"):
        dataclasses.replace(VARIED, epochs=0)


def test_the_order_in_which_a_space_is_written_does_not_matter() -> None:
    """TOML holds numbers before tables; were order to count, a run could not be repeated from its own config."""
    space, other = (
        LambdaSpace(gamma=Uniform(0, 1), phi=1, tau=Uniform(0, 3)),
        LambdaSpace(tau=Uniform(0, 3), phi=1, gamma=Uniform(0, 1)),
    )
    assert space == other
    assert hash(space) == hash(other)
    assert space.free == other.free
    assert space.draw(seed=3, step=5) == other.draw(seed=3, step=5)
    assert [values.tolist() for values in space.grid(3).values()] == [
        values.tolist() for values in other.grid(3).values()
    ]
