"""The training loop against a literal one, and its promises: resumable anywhere, the same on one process and on two."""

import contextlib
import copy
import csv
import itertools
import logging
import math
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.logger import Logger
from sklearn import metrics as sk
from torch import Tensor
from torch.nn import functional as F

from tunelater import training
from tunelater.config import (
    AveragingConfig,
    Config,
    EarlyStoppingConfig,
    FiLMConfig,
    ModelConfig,
    OptimizerConfig,
    SAMConfig,
    ScheduleConfig,
)
from tunelater.data.splits import Splits, TensorSplit, class_counts
from tunelater.distributions import LambdaSpace, Linear, Uniform, keyed_rng
from tunelater.film import FiLM, LossConditional
from tunelater.losses import loss_family
from tunelater.models import build
from tunelater.problems import DoubtfulInputWarning, InputError
from tunelater.scoring import score
from tunelater.trackers import tracker_of
from tunelater.training import CHECKPOINT, Trained, TrainingDiverged, TrainingInterrupted, train

FEATURES = 5
CONSTANT: dict[str, Any] = {"optimizer": OptimizerConfig("sgd", 0.05), "schedule": ScheduleConfig("constant")}
LCT = LambdaSpace(gamma=Linear(0, 0.3, 0), tau=Linear(0, 3, 0.33))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Sums in one order, also in the processes started here; and small matrices are faster so."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def samples(n: int, seed: int, *, weighted: bool = False) -> TensorSplit:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, FEATURES, generator=g)
    target = (x[:, 0] + 0.7 * torch.randn(n, generator=g) > 1).long()
    weight = torch.rand(n, generator=g) * (torch.rand(n, generator=g) > 0.1)
    return TensorSplit(x, target, weight if weighted else None)


# Batches of 32, 32, 32, 32 and 22 samples.
SPLITS = Splits(samples(150, 0), samples(120, 1))
WEIGHTED = Splits(samples(150, 0, weighted=True), samples(120, 1, weighted=True))


def small(*, dropout: float = 0.0, **settings: Any) -> Config:
    defaults: dict[str, Any] = {
        "epochs": 4,
        "batch_size": 32,
        "early_stopping": None,
        "optimizer": OptimizerConfig(learning_rate=0.01),
        "model": ModelConfig(options={"width": 16, "depth": 2, "dropout": dropout}),
    }
    return Config(**defaults | settings)


def untrained(config: Config) -> LossConditional:
    return build(config, n_features=FEATURES)


def weights(model: LossConditional | Trained) -> dict[str, Tensor]:
    model = model.model if isinstance(model, Trained) else model
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def assert_close(a: Mapping[str, Tensor], b: Mapping[str, Tensor], rtol: float = 1e-4, atol: float = 1e-5) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=rtol, atol=atol, msg=lambda m, name=name: f"{name}: {m}")


# ------------------------------------------------------------------------------------------- a literal loop


def literal_loss(name: str, counts: list[float], logits: Tensor, target: Tensor, lam: Mapping[str, Any]) -> Tensor:
    """Each loss as the papers print it, for two classes."""
    z_neg, z_pos = logits[:, 0], logits[:, 1]
    beta = counts[0] / counts[1]
    sign = 2 * target - 1
    if name == "vs":
        eta = z_pos / beta ** lam["gamma"] - z_neg - lam["tau"] * math.log(beta)
        return F.softplus(-sign * eta)
    p = torch.sigmoid(sign * (z_pos - z_neg))
    if name == "focal":
        alpha = lam["alpha"] * target + (1 - lam["alpha"]) * (1 - target)
        return -alpha * (1 - p) ** lam["phi"] * p.log()
    if name == "weighted_cross_entropy":
        balanced = torch.tensor([sum(counts) / (2 * n) for n in counts])
        return -(balanced[target] ** lam["omega"]) * p.log()
    assert name == "cross_entropy"
    return -p.log()


def literal(
    config: Config, splits: Splits, rate: Callable[[int], float] = lambda step: 1.0
) -> tuple[LossConditional, list[float]]:
    """The training that `config` describes without anything of `training.py`: the model, and the loss of each step."""
    data, options = splits.train, config.optimizer
    assert isinstance(data, TensorSplit)
    model, weight = untrained(config), torch.ones(len(data)) if data.weight is None else data.weight
    counts = [float(weight[data.target == c].sum()) for c in (0, 1)]
    common = {"lr": options.learning_rate, "weight_decay": options.weight_decay}
    optimizer = {
        "sgd": lambda: torch.optim.SGD(model.parameters(), momentum=options.momentum, **common),
        "adam": lambda: torch.optim.Adam(model.parameters(), **common),
        "adamw": lambda: torch.optim.AdamW(model.parameters(), **common),
    }[options.name]()
    losses = []
    for epoch in range(config.epochs):
        order = keyed_rng(config.seed, "shuffle", epoch).permutation(len(data))
        for rows in torch.from_numpy(order).split(config.batch_size):
            step = len(losses)
            optimizer.param_groups[0]["lr"] = options.learning_rate * rate(step)
            if config.lambda_per == "batch":
                lam: Any = config.lambdas.draw(config.seed, step)
            else:
                draws = config.lambdas.draw(config.seed, step, size=len(rows))
                lam = {name: torch.tensor(values, dtype=torch.float32) for name, values in draws.items()}
            each = literal_loss(config.loss, counts, model(data.x[rows], lam), data.target[rows], lam)
            loss = (weight[rows] / weight.mean() * each).sum() / len(rows)
            optimizer.zero_grad()
            loss.backward()
            if config.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            losses.append(loss.item())
    return model, losses


def literal_sam(config: Config, splits: Splits, processes: int = 1) -> LossConditional:
    """Sharpness-aware SGD by hand: each process finds the worst point nearby on its own share, and the gradients there
    are averaged, clipped and stepped with."""
    data = splits.train
    assert isinstance(data, TensorSplit)
    assert config.sam is not None
    model, weight = untrained(config), torch.ones(len(data)) if data.weight is None else data.weight
    counts = [float(weight[data.target == c].sum()) for c in (0, 1)]
    options = config.optimizer
    parameters = list(model.parameters())
    momentum = [torch.zeros_like(p) for p in parameters]
    order = [keyed_rng(config.seed, "shuffle", epoch).permutation(len(data)) for epoch in range(config.epochs)]
    for step, rows in enumerate(rows for o in order for rows in torch.from_numpy(o).split(config.batch_size)):
        lam = config.lambdas.draw(config.seed, step)
        start, total = [p.detach().clone() for p in parameters], [torch.zeros_like(p) for p in parameters]
        for rank in range(processes):
            share = rows[rank::processes]
            for worst in (False, True):
                each = literal_loss(config.loss, counts, model(data.x[share], lam), data.target[share], lam)
                loss = (weight[share] / weight.mean() * each).sum() / len(rows)
                gradient = torch.autograd.grad(loss, parameters)
                with torch.no_grad():
                    if not worst:
                        scale = [w.abs() if config.sam.adaptive else torch.ones_like(w) for w in start]
                        norm = torch.sqrt(sum(((g * s) ** 2).sum() for g, s in zip(gradient, scale, strict=True)))
                        for p, g, s in zip(parameters, gradient, scale, strict=True):
                            p += config.sam.rho * g * s**2 / norm.clamp(min=1e-30)
                    else:
                        for p, w, t, g in zip(parameters, start, total, gradient, strict=True):
                            p.copy_(w)
                            t += g
        with torch.no_grad():
            norm = torch.sqrt(sum((t**2).sum() for t in total))
            clip = 1.0 if config.clip_norm is None else min(1.0, config.clip_norm / float(norm))
            for p, t, m in zip(parameters, total, momentum, strict=True):
                m.mul_(options.momentum).add_(t * clip + options.weight_decay * p)
                p -= options.learning_rate * m
    return model


def cosine(step: int, steps: int) -> float:
    return (1 + math.cos(math.pi * step / steps)) / 2


SCHEDULES: dict[str, tuple[ScheduleConfig, Callable[[int], float]]] = {
    "constant": (ScheduleConfig("constant"), lambda step: 1.0),
    "multistep": (ScheduleConfig("multistep", (1, 3), factor=0.3), lambda step: [1, 0.3, 0.3, 0.09][step // 5]),
    "cosine": (ScheduleConfig("cosine"), lambda step: cosine(step, 20)),
    "warmup": (
        ScheduleConfig("cosine", warmup_epochs=1.4),
        lambda step: (step + 1) / 7 if step < 7 else cosine(step - 7, 13),
    ),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_optimizers_and_schedules_equal_a_literal_loop(optimizer: Any, schedule: str) -> None:
    settings, rate = SCHEDULES[schedule]
    config = small(
        optimizer=OptimizerConfig(optimizer, 0.03, weight_decay=0.1, momentum=0.8),
        schedule=settings,
        clip_norm=None,
    )
    ours = train(config, SPLITS, untrained(config))
    model, losses = literal(config, SPLITS, rate)
    assert_close(weights(ours), weights(model))
    assert [row["epoch"] for row in ours.history] == [1, 2, 3, 4]
    assert [row["step"] for row in ours.history] == [5, 10, 15, 20]
    assert [row["loss"] for row in ours.history] == pytest.approx(np.reshape(losses, (4, 5)).mean(1).tolist())
    assert [row["learning_rate"] for row in ours.history] == pytest.approx([0.03 * rate(s) for s in (4, 9, 14, 19)])


STAGED = FiLMConfig(placement="stages", start="identity", rescale=True)


@pytest.mark.parametrize(("milestones", "late"), [((1, 3), None), ((1, 4), r"\[4\]"), ((5, 9), r"\[5, 9\]")])
def test_milestones_that_never_come_are_said(milestones: tuple[int, ...], late: str | None) -> None:
    config = small(schedule=ScheduleConfig("multistep", milestones))
    said: Any = (
        pytest.warns(DoubtfulInputWarning, match=rf"milestones {late} are not before")
        if late
        else contextlib.nullcontext()
    )
    with said:
        train(config, SPLITS, untrained(config))
    ignored = small(schedule=ScheduleConfig("cosine", milestones))
    train(ignored, SPLITS, untrained(ignored))


LAMBDAS: dict[str, dict[str, Any]] = {
    "vs, LCT after every stage": {"lambdas": LCT, "film": STAGED},
    "vs, LCT after every stage, per sample": {"lambdas": LCT, "film": STAGED, "lambda_per": "sample"},
    "vs, fixed": {"lambdas": LambdaSpace(gamma=0.2, tau=1.5)},
    "vs, LCT": {"lambdas": LCT},
    "vs, LCT, one dimension": {"lambdas": LambdaSpace(gamma=0.1, tau=Linear(0, 3, 0.33))},
    "vs, LCT without FiLM": {"lambdas": LCT, "film": None},
    "vs, LCT, per sample": {"lambdas": LCT, "lambda_per": "sample"},
    "focal, LCT": {"loss": "focal", "lambdas": LambdaSpace(alpha=Uniform(0.3, 0.9), phi=Uniform(0, 3))},
    "focal, LCT, per sample": {
        "loss": "focal",
        "lambdas": LambdaSpace(alpha=Uniform(0.3, 0.9), phi=1.5),
        "lambda_per": "sample",
    },
    "weighted cross-entropy, LCT": {"loss": "weighted_cross_entropy", "lambdas": LambdaSpace(omega=Uniform(0, 1))},
    "weighted cross-entropy, per sample": {
        "loss": "weighted_cross_entropy",
        "lambdas": LambdaSpace(omega=Uniform(0, 1)),
        "lambda_per": "sample",
    },
    "cross-entropy": {"loss": "cross_entropy", "lambdas": LambdaSpace()},
}


@pytest.mark.parametrize(("splits", "clip_norm"), [(SPLITS, 0.1), (WEIGHTED, None)], ids=["clipped", "weighted"])
@pytest.mark.parametrize("lambdas", LAMBDAS)
def test_losses_lambdas_weights_and_clipping_equal_a_literal_loop(
    lambdas: str, splits: Splits, clip_norm: float | None
) -> None:
    # SGD, because Adam forgives a wrong scale of the loss.
    config = small(
        optimizer=OptimizerConfig("sgd", 0.05),
        schedule=ScheduleConfig("constant"),
        clip_norm=clip_norm,
        **LAMBDAS[lambdas],
    )
    ours = train(config, splits, untrained(config))
    model, losses = literal(config, splits)
    assert_close(weights(ours), weights(model))
    assert [row["loss"] for row in ours.history] == pytest.approx(np.reshape(losses, (4, 5)).mean(1).tolist(), rel=1e-5)
    if clip_norm is not None:
        free, _ = literal(replace(config, clip_norm=None), splits)
        assert not torch.allclose(free.head.weight, model.head.weight, rtol=1e-2), "clipping should have acted"


@pytest.mark.parametrize("clip_norm", [None, 0.1])
@pytest.mark.parametrize("sam", [SAMConfig(0.1), SAMConfig(0.5, adaptive=True)], ids=["sam", "adaptive"])
@pytest.mark.parametrize("film", [FiLMConfig(), STAGED], ids=["features", "stages"])
def test_sharpness_aware_steps_equal_a_literal_loop(sam: SAMConfig, clip_norm: float | None, film: FiLMConfig) -> None:
    config = small(sam=sam, clip_norm=clip_norm, film=film, **CONSTANT)
    assert_close(weights(train(config, WEIGHTED, untrained(config))), weights(literal_sam(config, WEIGHTED)))


def test_clipping_the_first_of_sams_gradients_bounds_nothing() -> None:
    config = small(sam=SAMConfig(0.1, clip="first"), clip_norm=0.01, **CONSTANT)
    first = weights(train(config, SPLITS, untrained(config)))
    assert_close(first, weights(literal_sam(replace(config, clip_norm=None), SPLITS)))
    step = replace(config, sam=SAMConfig(0.1))
    bounded = weights(train(step, SPLITS, untrained(step)))
    assert not torch.allclose(first["head.weight"], bounded["head.weight"], rtol=1e-2)


def test_a_batch_that_is_left_open_suits_the_number_of_samples() -> None:
    config = small(batch_size=None, epochs=1)
    assert [config.for_samples(n).batch_size for n in (10, 30_000, 60_000, 10**7)] == [128, 128, 256, 1024]
    trained = train(config, SPLITS, untrained(config))
    assert (trained.config.batch_size, trained.history[-1]["step"]) == (128, 2)
    assert small(batch_size=7).for_samples(10**7).batch_size == 7


@pytest.mark.parametrize("batch_size", [16, 4000])
def test_small_batches_learn_the_weighted_share_of_positives(batch_size: int) -> None:
    """Of inputs that tell nothing, the posterior is the weighted share, however the weights fall into batches."""
    n = 4000
    target = (torch.arange(n) % 50 == 0).long()
    data = TensorSplit(torch.ones(n, FEATURES), target, torch.where(target == 1, 49.0, 1.0))
    config = small(
        batch_size=batch_size,
        epochs=6 if batch_size == 16 else 300,
        loss="cross_entropy",
        lambdas=LambdaSpace(),
        optimizer=OptimizerConfig("adam", 0.01, weight_decay=0.0),
        clip_norm=None,
    )
    trained = train(config, Splits(data, data), untrained(config))
    log_odds = score(trained.model, data, {}, trained.family).log_odds[0]
    assert trained.family.prior == pytest.approx(0.5)
    assert abs(float(log_odds[0])) < 0.1  # with each batch's own weights it is about -1


def test_only_the_ratios_of_sample_weights_matter_and_their_type_does_not() -> None:
    config = small(schedule=ScheduleConfig("constant"))
    expected = weights(train(config, WEIGHTED, untrained(config)))

    def reweighted(change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        data = WEIGHTED.train
        assert isinstance(data, TensorSplit)
        assert data.weight is not None
        splits = Splits(replace(data, weight=change(data.weight)), WEIGHTED.validation)
        return weights(train(config, splits, untrained(config)))

    assert_close(reweighted(lambda w: 1000 * w), expected)
    assert_close(reweighted(Tensor.double), expected)
    assert not torch.allclose(reweighted(torch.ones_like)["head.weight"], expected["head.weight"], rtol=1e-2)


# ------------------------------------------------------------------------------------------- speed without a difference


def images() -> tuple[Config, Splits, Callable[[], LossConditional]]:
    """Small images, and a network of convolutions."""

    def split(n: int, seed: int) -> TensorSplit:
        table = samples(n, seed)
        return TensorSplit(table.x[:, :4].reshape(n, 1, 2, 2).repeat(1, 3, 3, 3), table.target)

    def network() -> LossConditional:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            trunk = torch.nn.Sequential(
                torch.nn.Conv2d(3, 8, 3, bias=False),
                torch.nn.BatchNorm2d(8),
                torch.nn.ReLU(),
                torch.nn.Unflatten(1, (8, 1)),
                torch.nn.Conv3d(8, 4, 1),
                torch.nn.Flatten(),
            )
            return LossConditional(trunk, FiLM(LCT, 4 * 4 * 4), torch.nn.Linear(4 * 4 * 4, 2))

    return small(**CONSTANT), Splits(split(150, 0), split(120, 1)), network


def test_image_convolutions_train_with_channels_innermost_to_the_same_weights() -> None:
    config, splits, network = images()
    ours = train(config, splits, network()).model
    plain = network().train()
    family = loss_family("vs", class_counts(splits.train))
    optimizer = torch.optim.SGD(plain.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
    for step in range(20):
        epoch, i = divmod(step, 5)
        rows = keyed_rng(0, "shuffle", epoch).permutation(150)[i * 32 : (i + 1) * 32]
        lam: Any = LCT.draw(0, step)
        x, target = splits.train.inputs(torch.from_numpy(rows)), splits.train.target[rows]
        optimizer.zero_grad()
        family.loss(plain(x, lam), target, **lam).mean().backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        optimizer.step()
    assert not plain.trunk[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert ours.trunk[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert_close(weights(ours), weights(plain))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it compiles
def test_a_compiled_training_gives_the_same_weights_under_the_same_names(tmp_path: Path) -> None:
    config = small(batch_size=150, compile=True, averaging=AveragingConfig())  # one size of batch, for speed
    try:
        compiled = train(config, SPLITS, untrained(config), folder=tmp_path)
    except InputError as error:
        pytest.skip(str(error))
    plain = replace(config, compile=False)
    assert_close(weights(compiled), weights(train(plain, SPLITS, untrained(plain))))
    copy.deepcopy(compiled.model)
    saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert saved["model"].keys() == untrained(config).state_dict().keys()


def test_compiling_without_a_compiler_is_refused_before_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no C++ compiler found\nand a long trace")

    monkeypatch.setattr(torch, "compile", no_compiler)
    config = small(compile=True)
    with pytest.raises(InputError, match=r"torch.compile for cpu.*\(no C\+\+ compiler found\).*set compile = false"):
        train(config, SPLITS, untrained(config), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("per", ["batch", "sample"])
@pytest.mark.parametrize("sizes", [(150, 32), (7, 32), (64, 32)], ids=str)
def test_the_lambdas_of_a_step_are_the_spaces_draws(per: Any, sizes: tuple[int, int]) -> None:
    n, batch_size = sizes
    config, data = small(lambda_per=per, batch_size=batch_size, seed=5), samples(n, 0)
    batches = [training._Batches(data, config, rank, 2) for rank in (0, 1)]
    for step in [0, 1, 2, batches[0].steps - 1, 1]:  # also back into an earlier epoch
        of_batch = min(batch_size, n - step % batches[0].steps_per_epoch * batch_size)
        drawn = LCT.draw(5, step, size=None if per == "batch" else of_batch)
        for rank in (0, 1):
            lam = batches[rank].lam(step)
            assert list(lam) == list(drawn)
            for name, values in lam.items():
                expected = np.asarray(drawn[name], np.float32)
                np.testing.assert_array_equal(values, expected if per == "batch" else expected[rank::2])


# ------------------------------------------------------------------------------------------- checkpoints


def eventful(every: Any = "epoch") -> Config:
    """Everything that a checkpoint has to carry: dropout, momenta, averages, the best epoch."""
    return small(
        dropout=0.5,
        epochs=8,
        optimizer=OptimizerConfig(learning_rate=0.05),
        averaging=AveragingConfig(0.8, every),
        early_stopping=EarlyStoppingConfig("average_precision", patience=2),
    )


@dataclass
class Whole:
    """A training that nothing interrupted."""

    trained: Trained
    csv: bytes


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], Whole]:
    known: dict[str, Whole] = {}

    def get(every: Any) -> Whole:
        if every not in known:
            folder = tmp_path_factory.mktemp("whole")
            trained = train(eventful(every), SPLITS, untrained(eventful(every)), folder=folder)
            known[every] = Whole(trained, (folder / "metrics.csv").read_bytes())
        return known[every]

    return get


def assert_resumes(config: Config, folder: Path, whole: Whole) -> None:
    """A resumed training ends bit for bit where an uninterrupted one does."""
    resumed = train(config, SPLITS, untrained(config), folder=folder)
    assert same(weights(resumed), weights(whole.trained))
    assert resumed.history == whole.trained.history
    assert resumed.best_epoch == whole.trained.best_epoch
    assert (folder / "metrics.csv").read_bytes() == whole.csv


@pytest.mark.parametrize("every", ["epoch", "step"])
def test_resumed_from_any_step_equals_uninterrupted(every: Any, tmp_path: Path, whole: Callable[[Any], Whole]) -> None:
    config, expected = eventful(every), whole(every)
    assert 3 <= len(expected.trained.history) < config.epochs, "it should stop early"
    assert expected.trained.best_epoch == len(expected.trained.history) - 2
    last = int(expected.trained.history[-1]["step"])
    for at in range(1, last):
        folder = tmp_path / str(at)
        with pytest.raises(TrainingInterrupted, match=f"stopped after step {at} of 40"):
            train(config, SPLITS, untrained(config), folder=folder, stop=lambda step, at=at: step == at)
        assert_resumes(config, folder, expected)


def test_stopped_at_every_step_and_resumed_each_time_equals_uninterrupted(
    tmp_path: Path, whole: Callable[[Any], Whole]
) -> None:
    config, expected = eventful(), whole("epoch")
    for _ in range(int(expected.trained.history[-1]["step"]) - 1):
        with pytest.raises(TrainingInterrupted):
            train(config, SPLITS, untrained(config), folder=tmp_path, stop=lambda step: True)
    assert_resumes(config, tmp_path, expected)
    assert_resumes(config, tmp_path, expected)  # and once it is finished, it stays so


@pytest.mark.parametrize("signalled", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_between_steps_with_a_checkpoint(
    signalled: signal.Signals, tmp_path: Path, whole: Callable[[Any], Whole]
) -> None:
    def stop(step: int) -> bool:
        if step == 8:
            signal.raise_signal(signalled)
        return False

    config = eventful()
    with pytest.raises(TrainingInterrupted, match="stopped after step 9"):
        train(config, SPLITS, untrained(config), folder=tmp_path, stop=stop)
    assert_resumes(config, tmp_path, whole("epoch"))


def in_its_own_process(function: str, *arguments: str, **env: str) -> subprocess.Popen[str]:
    """Run a function of this file."""
    code = f"import sys, test_training as t; t.{function}(*sys.argv[1:])"
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environ = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"} | env
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until_killed(folder: str) -> None:
    """Train with a checkpoint after each step, slowly from step 8 on."""

    def stop(step: int) -> bool:
        print("step", step, flush=True)
        time.sleep(0.7 if step >= 8 else 0)
        return False

    try:
        train(eventful(), SPLITS, untrained(eventful()), folder=folder, checkpoint_seconds=0, stop=stop)
    except TrainingInterrupted as stopped:
        print(stopped)
        sys.exit(3)


def test_killed_processes_resume_as_if_nothing_had_happened(tmp_path: Path, whole: Callable[[Any], Whole]) -> None:
    folders = {s: tmp_path / s.name for s in (signal.SIGTERM, signal.SIGKILL)}
    processes = {s: in_its_own_process("until_killed", str(folder)) for s, folder in folders.items()}
    outputs = {}
    for s, process in processes.items():
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                if line == "step 8\n":
                    break
            process.send_signal(s)
            outputs[s] = process.communicate(timeout=60)[0]
    assert processes[signal.SIGKILL].returncode == -signal.SIGKILL, outputs[signal.SIGKILL]
    assert processes[signal.SIGTERM].returncode == 3, outputs[signal.SIGTERM]
    assert "stopped after step" in outputs[signal.SIGTERM]
    for folder in folders.values():
        saved = torch.load(folder / CHECKPOINT, weights_only=True)["progress"]["step"]
        assert 7 <= saved < whole("epoch").trained.history[-1]["step"], "it should have been killed in the middle"
        assert_resumes(eventful(), folder, whole("epoch"))


def test_a_death_while_writing_leaves_the_checkpoint_before(
    tmp_path: Path, whole: Callable[[Any], Whole], monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = torch.save, itertools.count()

    def torn(state: Any, path: Path) -> None:
        save(state, path)
        if next(calls) == 6:
            with path.open("r+b") as file:
                file.truncate(path.stat().st_size // 2)
            raise OSError("no space left on device")

    config = eventful()
    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(OSError, match="no space left"):
        train(config, SPLITS, untrained(config), folder=tmp_path, checkpoint_seconds=0)
    monkeypatch.undo()
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["progress"]["step"] == 6
    assert_resumes(config, tmp_path, whole("epoch"))


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, [None, *range(1, 12)]), (math.inf, [None] * 5 + [5] * 5 + [10] * 2)]
)
def test_checkpoints_come_at_epochs_ends_and_every_so_many_seconds(
    seconds: float, expected: list[int | None], tmp_path: Path
) -> None:
    seen: list[int | None] = []

    def stop(step: int) -> bool:
        path = tmp_path / CHECKPOINT
        seen.append(torch.load(path, weights_only=True)["progress"]["step"] if path.exists() else None)
        return step == 12

    with pytest.raises(TrainingInterrupted):
        train(small(), SPLITS, untrained(small()), folder=tmp_path, checkpoint_seconds=seconds, stop=stop)
    assert seen == expected


def test_a_checkpoint_of_another_config_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(TrainingInterrupted):
        train(small(), SPLITS, untrained(small()), folder=tmp_path, stop=lambda step: step == 7)
    before = {name: (tmp_path / name).read_bytes() for name in (CHECKPOINT, "metrics.csv")}
    other = small(epochs=5)
    with pytest.raises(InputError, match=r"another config: use another folder, or resume=False"):
        train(other, SPLITS, untrained(other), folder=tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    fresh = train(other, SPLITS, untrained(other), folder=tmp_path, resume=False)
    assert same(weights(fresh), weights(train(other, SPLITS, untrained(other))))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that was stopped after step 7."""
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.raises(TrainingInterrupted):
        train(small(), WEIGHTED, untrained(small()), folder=folder, stop=lambda step: step == 7)
    return folder


def other_data() -> dict[str, tuple[str, Splits]]:
    data, validation = WEIGHTED.train, WEIGHTED.validation
    assert isinstance(data, TensorSplit)
    assert data.weight is not None
    swapped = data.target.clone()
    swapped[[int((swapped == 0).nonzero()[0]), int((swapped == 1).nonzero()[0])]] = torch.tensor([1, 0])
    one_more = replace(data, target=data.target.scatter(0, (data.target == 0).nonzero()[0], 1))
    changes = {
        "rows": TensorSplit(data.x[1:], data.target[1:], data.weight[1:]),
        "counts": one_more,
        "targets": replace(data, target=swapped),
        "weights": replace(data, weight=data.weight.flip(0)),
        "no weights": replace(data, weight=None),
        "inputs": replace(data, x=data.x + 0.1),
        "features": replace(data, x=data.x.float().half()),
    }
    found = {name: ("training data", Splits(changed, validation)) for name, changed in changes.items()}
    return found | {"validation": ("validation data", Splits(data, samples(120, 9)))}


@pytest.mark.parametrize("change", other_data())
def test_a_checkpoint_of_other_data_is_refused(change: str, interrupted: Path) -> None:
    which, splits = other_data()[change]
    before = (interrupted / CHECKPOINT).read_bytes()
    with pytest.raises(InputError) as error:
        train(small(), splits, untrained(small()), folder=interrupted)
    (problem,) = error.value.problems
    assert f"another {which} (saved: " in problem
    assert problem.endswith("use another folder, or resume=False")
    assert (interrupted / CHECKPOINT).read_bytes() == before


def test_all_that_differs_from_a_checkpoint_is_said_at_once(interrupted: Path) -> None:
    splits = Splits(samples(99, 5), samples(98, 6))
    with pytest.raises(InputError) as error:
        train(small(seed=1), splits, untrained(small()), folder=interrupted)
    assert ["config" in p or "99 samples" in p or "98 samples" in p for p in error.value.problems] == [True] * 3


def test_a_checkpoint_of_another_model_or_a_damaged_one_is_refused(interrupted: Path, tmp_path: Path) -> None:
    wider = build(small(film=None), n_features=FEATURES)
    with pytest.raises(InputError, match=r"checkpoint.pt belongs to another model .* use another folder"):
        train(small(), WEIGHTED, wider, folder=interrupted)
    whole = (interrupted / CHECKPOINT).read_bytes()
    for damaged in (b"", b"no checkpoint", whole[: len(whole) // 2]):
        (tmp_path / CHECKPOINT).write_bytes(damaged)
        with pytest.raises(InputError, match=r"no checkpoint of this version, or damaged .* use another folder"):
            train(small(), WEIGHTED, untrained(small()), folder=tmp_path)


def test_metrics_csv_is_the_history_and_on_epoch_sees_it(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    trained = train(eventful(), SPLITS, untrained(eventful()), folder=tmp_path, on_epoch=rows.append)
    with (tmp_path / "metrics.csv").open(encoding="utf-8") as file:
        read = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert read == rows == trained.history
    assert set(rows[0]) == {"epoch", "step", "loss", "learning_rate", "validation_average_precision"}


# ------------------------------------------------------------------------------------------- two processes

# 101 samples: the last batch of 25 is one sample, which leaves the second process none.
ODD, ODD_WEIGHTED = Splits(samples(101, 2), samples(80, 3)), Splits(samples(101, 2, weighted=True), samples(80, 3))
TWO_PROCESSES: dict[str, tuple[Config, Splits]] = {
    "odd batches": (small(batch_size=25, **CONSTANT), ODD),
    "weights": (small(batch_size=33, **CONSTANT), ODD_WEIGHTED),
    "lambda per sample": (small(batch_size=25, lambda_per="sample", **CONSTANT), ODD_WEIGHTED),
    "focal": (small(batch_size=25, **CONSTANT, **LAMBDAS["focal, LCT, per sample"]), ODD),
    "after every stage": (
        small(batch_size=25, film=STAGED, averaging=AveragingConfig(), early_stopping=EarlyStoppingConfig()),
        ODD,
    ),
    "fixed lambda": (small(batch_size=50, **CONSTANT, **LAMBDAS["vs, fixed"]), ODD),
    "batch of one": (
        small(batch_size=1, epochs=1, lambda_per="sample", **CONSTANT),
        Splits(samples(31, 4), samples(80, 3)),
    ),
    "adamw, cosine, averages, early stopping": (
        small(
            epochs=6,
            batch_size=25,
            optimizer=OptimizerConfig(learning_rate=0.05),
            averaging=AveragingConfig(0.8, "step"),
            early_stopping=EarlyStoppingConfig("brier", patience=1),
        ),
        ODD,
    ),
}
INTERRUPTED = small(batch_size=25, **CONSTANT)
# 75 steps an epoch: the processes look at each other after 51, and at the end.
LONG = small(epochs=1, batch_size=2, **CONSTANT)
SHARP = small(batch_size=25, sam=SAMConfig(0.2), **CONSTANT)
ONE_STEP = small(batch_size=101, **CONSTANT)


class Poisoned(TensorSplit):
    """The first sample turns NaN on its way to the network."""

    def inputs(self, index: Tensor | slice, noise: int | None = None) -> Tensor:
        x = super().inputs(index, noise).clone()
        return x.masked_fill((x == self.x[0]).all(-1, keepdim=True), math.nan)

    def to(self, device: torch.device) -> TensorSplit:
        return self


def watched(config: Config) -> tuple[LossConditional, list[dict[str, Any]]]:
    """An untrained model, and the lambdas that it will be called with."""
    model, seen = untrained(config), []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(dict(inputs[1])))
    return model, seen


def one_of_two(folder: str) -> None:
    """What each of two processes does; its results go into a file of its own."""
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    results: dict[str, Any] = {}
    for name, (config, splits) in TWO_PROCESSES.items():
        model, seen = watched(config)
        trained = train(config, splits, model, fabric=fabric)
        results[name] = weights(trained), trained.history, seen

    results["sam"] = weights(train(SHARP, ODD, untrained(SHARP), fabric=fabric))

    def stop(step: int) -> bool:
        if step == 7 and fabric.global_rank == 1:
            signal.raise_signal(signal.SIGTERM)
        return False

    run = Path(folder) / "run"
    try:
        train(INTERRUPTED, ODD, untrained(INTERRUPTED), fabric=fabric, folder=run, stop=stop)
    except TrainingInterrupted as error:
        results["signal to one"] = str(error)
    results["resumed"] = weights(train(INTERRUPTED, ODD, untrained(INTERRUPTED), fabric=fabric, folder=run))

    try:
        train(LONG, SPLITS, untrained(LONG), fabric=fabric, folder=f"{folder}/long", stop=lambda step: step > 40)
    except TrainingInterrupted as error:
        results["stopped"] = str(error)
    results["history"] = train(LONG, SPLITS, untrained(LONG), fabric=fabric, folder=f"{folder}/long").history
    half = replace(INTERRUPTED, precision="bf16-mixed")
    try:
        train(half, ODD, untrained(half), fabric=fabric)
    except InputError as error:
        results["precision"] = str(error)

    poisoned = Splits(Poisoned(ODD.train.x, ODD.train.target), ODD.validation)
    try:
        train(ONE_STEP, poisoned, untrained(ONE_STEP), fabric=fabric)
    except TrainingDiverged as error:
        results["NaN in one"] = str(error)
    sharp = replace(ONE_STEP, sam=SAMConfig())
    try:
        train(sharp, poisoned, untrained(sharp), fabric=fabric)
    except TrainingDiverged as error:
        results["NaN in one, sharpness-aware"] = str(error)
    torch.save(results, Path(folder) / f"{fabric.global_rank}.pt")


@pytest.fixture(scope="module")
def two_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def two(two_folder: Path) -> list[dict[str, Any]]:
    """The results of two processes that talk through gloo, started as torchrun starts them."""
    folder = two_folder
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "tests",
    }
    processes = [in_its_own_process("one_of_two", str(folder), **common, RANK=r, LOCAL_RANK=r) for r in "01"]
    try:
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0, 0], "\n\n".join(outputs)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", TWO_PROCESSES)
def test_two_processes_give_the_weights_of_one(name: str, two: list[dict[str, Any]]) -> None:
    config, splits = TWO_PROCESSES[name]
    model, seen = watched(config)
    trained = train(config, splits, model)
    (first, history, seen_first), (second, also_history, seen_second) = (results[name] for results in two)
    assert same(first, second)
    assert_close(first, weights(trained))
    assert len(history) == len(trained.history)
    for ours, also, alone in zip(history, also_history, trained.history, strict=True):
        assert ours == also
        assert ours == pytest.approx(alone, rel=1e-4)
    assert len(seen) == len(seen_first) == len(seen_second) > 10
    for one, a, b in zip(seen, seen_first, seen_second, strict=True):
        if config.lambda_per == "batch":
            assert one == a == b
        else:  # sample by sample, dealt out in turn
            for key, values in one.items():
                assert torch.equal(values[0::2], a[key])
                assert torch.equal(values[1::2], b[key])


def test_two_sharpness_aware_processes_each_look_around_on_their_own_share(two: list[dict[str, Any]]) -> None:
    assert same(two[0]["sam"], two[1]["sam"])
    assert_close(two[0]["sam"], weights(literal_sam(SHARP, ODD, processes=2)))


def test_a_signal_to_one_process_stops_both_and_they_resume(two: list[dict[str, Any]]) -> None:
    assert two[0]["signal to one"] == two[1]["signal to one"] == "stopped after step 10 of 20"
    alone = train(INTERRUPTED, ODD, untrained(INTERRUPTED))
    for results in two:
        assert_close(results["resumed"], weights(alone))


def test_the_epochs_loss_counts_every_process_also_after_a_resume_in_its_middle(two: list[dict[str, Any]]) -> None:
    assert two[0]["stopped"] == two[1]["stopped"] == "stopped after step 51 of 75"
    alone = train(LONG, SPLITS, untrained(LONG)).history
    for results in two:
        assert [row["loss"] for row in results["history"]] == pytest.approx([row["loss"] for row in alone], rel=1e-4)


def test_a_checkpoint_of_two_processes_is_not_one_processes(two: list[dict[str, Any]], two_folder: Path) -> None:
    with pytest.raises(InputError, match=r"another processes \(saved: 2; now: 1\): use another folder"):
        train(LONG, SPLITS, untrained(LONG), folder=two_folder / "long")


def test_a_fabric_of_another_precision_is_refused(two: list[dict[str, Any]]) -> None:
    assert "got 'bf16-mixed' and '32-true'" in two[0]["precision"]
    half = small(precision="bf16-mixed")
    train(half, SPLITS, untrained(half), fabric=Fabric(accelerator="cpu", devices=1, precision="bf16-mixed"))


@pytest.mark.parametrize("what", ["NaN in one", "NaN in one, sharpness-aware"])
def test_a_loss_that_diverges_in_one_process_stops_both(what: str, two: list[dict[str, Any]]) -> None:
    assert two[0][what] == two[1][what]
    assert "no longer finite at step 1 (epoch 1" in two[0][what]


# ------------------------------------------------------------------------------------------- early stopping, averages


@pytest.mark.parametrize("name", ["average_precision", "brier", "fpr@recall>=0.8"])
def test_early_stopping_keeps_the_best_epoch_and_stops_after_patience(name: str) -> None:
    config = small(
        dropout=0.5,
        epochs=30,
        early_stopping=EarlyStoppingConfig(name, patience=3),
    )
    model, epochs = untrained(config), []
    trained = train(config, WEIGHTED, model, on_epoch=lambda row: epochs.append(weights(model)))
    values = [row[f"validation_{name}"] for row in trained.history]
    best = max(values) if name == "average_precision" else min(values)
    assert 1 < trained.best_epoch == values.index(best) + 1
    assert len(values) == trained.best_epoch + 3 < 30
    assert same(weights(trained), epochs[trained.best_epoch - 1])
    assert not same(weights(trained), epochs[-1])

    # The value itself, from the returned model and scikit-learn: the mean over a 3 x 3 grid of lambdas.
    target, weight = WEIGHTED.validation.target.numpy(), WEIGHTED.validation.weight.numpy()
    scores = score(trained.model, WEIGHTED.validation, LCT.grid(3), trained.family).log_odds.astype(np.float64)
    assert len(scores) == 9
    if name == "average_precision":
        each = [sk.average_precision_score(target, s, sample_weight=weight) for s in scores]
    elif name == "brier":
        each = [sk.brier_score_loss(target, 1 / (1 + np.exp(-s)), sample_weight=weight) for s in scores]
    else:
        curves = [sk.roc_curve(target, s, sample_weight=weight, drop_intermediate=False) for s in scores]
        each = [fpr[tpr >= 0.8 - 1e-12].min() for fpr, tpr, _ in curves]
    assert best == pytest.approx(np.mean(each), rel=1e-6)


@pytest.mark.parametrize("name", ["recall@precision>=0.9", "precision@recall>=0.5"])
def test_an_epoch_without_a_value_is_never_the_best(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no threshold attains the precision at some lambda, the mean over lambdas is NaN."""
    config = small(epochs=6, early_stopping=EarlyStoppingConfig(name, patience=6))
    given = iter([math.nan, 0.25, math.nan, 0.75, math.nan, 0.5])
    monkeypatch.setattr(training, "evaluate", lambda *_: {name: np.array([0.5, next(given), 0.5])})
    model, epochs = untrained(config), []
    trained = train(config, SPLITS, model, on_epoch=lambda row: epochs.append(weights(model)))
    assert np.isnan([row[f"validation_{name}"] for row in trained.history]).tolist() == [True, False] * 3
    assert trained.best_epoch == 4
    assert same(weights(trained), epochs[3])


def test_a_metric_that_is_never_defined_is_said(tmp_path: Path) -> None:
    """No threshold has precision 1 on targets that the features say nothing about."""
    noise = samples(120, 1)
    noise = replace(noise, target=noise.target[torch.from_numpy(np.random.default_rng(0).permutation(120))])
    splits = Splits(SPLITS.train, noise)
    config = small(epochs=9, early_stopping=EarlyStoppingConfig("recall@precision>=0.99", patience=3))
    for _ in ("at once", "from the checkpoint of the finished training"):
        model, epochs = untrained(config), []
        with pytest.warns(
            DoubtfulInputWarning, match=r"'recall@precision>=0.99' was finite after none of the 3 epochs"
        ):
            trained = train(config, splits, model, folder=tmp_path, on_epoch=lambda row: epochs.append(row))  # noqa: B023
        assert len(trained.history) == trained.best_epoch == 3
        assert same(weights(trained), weights(model))
    assert not epochs


def test_without_early_stopping_the_last_epoch_is_the_result() -> None:
    trained = train(small(), SPLITS, model := untrained(small()))
    assert trained.best_epoch == 4
    assert same(weights(trained), weights(model))
    assert not trained.model.training


@pytest.mark.parametrize(
    ("decay", "every", "updates"),
    [
        (0.9, "epoch", [5, 10, 15, 20]),
        (0.4, "step", list(range(1, 21))),  # from the fifth update on, what it keeps is the decay
        (0.9, "step", list(range(1, 21))),
    ],
)
def test_averaging_equals_an_exponential_moving_average_by_hand(decay: float, every: Any, updates: list[int]) -> None:
    config = small(averaging=AveragingConfig(decay, every), **CONSTANT)
    model, after = untrained(config), {}

    def stop(step: int) -> bool:
        after[step] = weights(model)
        return False

    trained = train(config, SPLITS, model, stop=stop)
    # The share of each update's weights, as a product of what the later ones keep.
    kept = [0.0, *(min(decay, (1 + n) / (10 + n)) for n in range(2, len(updates) + 1))]
    shares = [(1 - kept[i]) * math.prod(kept[i + 1 :]) for i in range(len(updates))]
    assert sum(shares) == pytest.approx(1)
    assert shares[-1] == max(shares), "in a short training no early weights should dominate"
    average = {
        name: sum(share * after[step][name].double() for share, step in zip(shares, updates, strict=True)).to(w.dtype)
        for name, w in after[20].items()
    }
    assert_close(weights(trained), average)
    assert not torch.allclose(average["head.weight"], after[20]["head.weight"], rtol=1e-2)
    plain = replace(config, averaging=None)
    assert same(after[20], weights(train(plain, SPLITS, untrained(plain)))), "averaging should not change the training"


def test_early_stopping_judges_and_keeps_the_averages() -> None:
    config = replace(eventful("step"), averaging=AveragingConfig(0.97, "step"))
    trained = train(config, SPLITS, untrained(config))
    values = [row["validation_average_precision"] for row in trained.history]
    scores = score(trained.model, SPLITS.validation, LCT.grid(3), trained.family).log_odds
    each = [sk.average_precision_score(SPLITS.validation.target, s) for s in scores]
    assert max(values) == pytest.approx(np.mean(each), rel=1e-6)


def test_bf16_lands_near_float32_with_float32_weights() -> None:
    config = small(epochs=10, optimizer=OptimizerConfig("sgd", 0.05))
    start, exact = weights(untrained(config)), weights(train(config, SPLITS, untrained(config)))
    half = replace(config, precision="bf16-mixed")
    rounded = weights(train(half, SPLITS, untrained(half)))
    assert {value.dtype for value in rounded.values()} == {torch.float32}
    away = {name: float((rounded[name] - exact[name]).norm() / (exact[name] - start[name]).norm()) for name in exact}
    assert 1e-5 < max(away.values()) < 0.1, "it should have computed in bfloat16, and lost little by it"


# ------------------------------------------------------------------------------------------- divergence


@pytest.mark.parametrize("early_stopping", [None, EarlyStoppingConfig()], ids=["", "early stopping"])
@pytest.mark.parametrize("batch_size", [32, 150], ids=["5 steps", "1 step"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_learning_rate_that_is_too_high_is_named(
    optimizer: Any, batch_size: int, early_stopping: EarlyStoppingConfig | None, tmp_path: Path
) -> None:
    config = small(
        batch_size=batch_size,
        optimizer=OptimizerConfig(optimizer, 1e12),
        early_stopping=early_stopping,
        clip_norm=None,
        precision="bf16-mixed",
        lambda_per="sample",
    )
    with pytest.raises(TrainingDiverged) as error:
        train(config, SPLITS, untrained(config), folder=tmp_path)
    for words in (
        r"lower optimizer.learning_rate (1e+12, try 1e+11)",
        "set clip_norm (0.5",
        "set schedule.warmup_epochs",
        "train in precision 32-true",
    ):
        assert words in str(error.value)
    step = 1 if batch_size == 150 and early_stopping else 2
    assert f"at step {step} (epoch {1 if batch_size == 32 else step}, lambda gamma 0." in str(error.value)


def test_advice_leaves_out_what_is_done_already() -> None:
    warm = ScheduleConfig(warmup_epochs=0.2)
    config = small(optimizer=OptimizerConfig("sgd", 1e12), schedule=warm, loss="cross_entropy", lambdas=LambdaSpace())
    with pytest.raises(TrainingDiverged) as error:
        train(config, SPLITS, untrained(config))
    assert "learning_rate" in str(error.value)
    assert not any(words in str(error.value) for words in ("clip_norm", "warmup", "precision", "lambda"))


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_inputs_that_overflow_the_gradient_are_not_trained_on_in_silence(
    optimizer: Any, clip_norm: float | None
) -> None:
    """The loss stays finite: clipping divides by an infinite norm, Adam by an infinite second moment."""
    data = SPLITS.train
    assert isinstance(data, TensorSplit)
    splits = Splits(replace(data, x=data.x * 1e30), SPLITS.validation)
    config = small(optimizer=OptimizerConfig(optimizer), clip_norm=clip_norm)
    with pytest.raises(TrainingDiverged, match=r"at step 1 .*lower optimizer.*scale the inputs"):
        train(config, splits, untrained(config))


def test_scaling_by_the_infinite_limit_of_no_clipping_changes_nothing() -> None:
    config = small(clip_norm=None)
    assert same(
        weights(train(config, SPLITS, untrained(config))),
        weights(train(replace(config, clip_norm=1e30), SPLITS, untrained(config))),
    )


def test_no_checkpoint_holds_what_diverged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an accelerator the loss is looked at seldom, but always before it is saved."""
    monkeypatch.setattr(training, "_look_every", lambda fabric: 50)

    def stop(step: int) -> bool:
        if step > 2:
            raise AssertionError("it should have been found")
        return False

    config = small(batch_size=1, optimizer=OptimizerConfig("sgd", 1e12), clip_norm=None)
    with pytest.raises(TrainingDiverged, match="at step 2 "):
        train(config, SPLITS, untrained(config), folder=tmp_path, checkpoint_seconds=0, stop=stop)
    saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert saved["progress"]["step"] == 1
    assert all(value.isfinite().all() for value in saved["model"].values())


# ------------------------------------------------------------------------------------------- good manners


@contextlib.contextmanager
def untouched_random_state() -> Iterator[None]:
    def state() -> tuple[Any, ...]:
        return torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state())  # noqa: NPY002

    torch.manual_seed(123)
    before = state()
    yield
    assert state() == before


def test_the_global_random_state_is_the_users() -> None:
    config = eventful()
    with untouched_random_state():
        train(config, SPLITS, untrained(config))
    with untouched_random_state(), pytest.raises(TrainingInterrupted):
        train(config, SPLITS, untrained(config), stop=lambda step: step == 3)
    wild = replace(config, optimizer=OptimizerConfig(learning_rate=1e12))
    with untouched_random_state(), pytest.raises(TrainingDiverged):
        train(wild, SPLITS, untrained(wild))


def test_the_seed_decides_everything() -> None:
    config = eventful()
    model = untrained(config)
    first = train(config, SPLITS, copy.deepcopy(model))
    torch.manual_seed(99)
    again = train(config, SPLITS, copy.deepcopy(model))
    assert same(weights(first), weights(again))
    assert first.history == again.history
    other = replace(config, seed=1)
    assert not same(weights(untrained(other)), weights(model))
    assert not same(weights(train(other, SPLITS, copy.deepcopy(model))), weights(first))


def test_random_numbers_of_metal_are_keyed_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apple's GPUs have a generator of their own; it stands in for itself here, as there is none to test on."""
    metal = torch.Generator().manual_seed(7)
    monkeypatch.setattr(torch.mps, "get_rng_state", metal.get_state)
    monkeypatch.setattr(torch.mps, "set_rng_state", metal.set_state)
    monkeypatch.setattr(torch.mps, "manual_seed", metal.manual_seed)
    draws = []
    with untouched_random_state():
        before = metal.get_state()
        with training._own_random_state(torch.device("mps")):
            for seed in (1, 2, 1):
                training._seed(torch.device("mps"), seed)
                draws.append(torch.rand(4, generator=metal).tolist())
    assert draws[0] == draws[2] != draws[1]
    assert torch.equal(metal.get_state(), before)


def test_bf16_goes_without_a_notice(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("lightning_fabric"), "propagate", True)
    caplog.set_level(logging.INFO)
    Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    assert "bfloat16" in caplog.text, "the user's own Fabric tells as always"
    caplog.clear()
    config = small(epochs=1, precision="bf16-mixed")
    train(config, SPLITS, untrained(config))
    assert not caplog.records


@pytest.mark.parametrize("ends", ["well", "interrupted", "diverged"])
def test_signal_handlers_are_put_back(ends: str) -> None:
    def mine(*_: Any) -> None:
        raise AssertionError("not during training")

    before = {s: signal.signal(s, mine) for s in (signal.SIGINT, signal.SIGTERM)}
    during = []

    def stop(step: int) -> bool:
        during.append(signal.getsignal(signal.SIGTERM))
        return ends == "interrupted"

    config = small(optimizer=OptimizerConfig(learning_rate=1e12 if ends == "diverged" else 0.01))
    try:
        with contextlib.suppress(TrainingInterrupted, TrainingDiverged):
            train(config, SPLITS, untrained(config), stop=stop)
        assert [signal.getsignal(s) for s in before] == [mine, mine]
        assert mine not in during
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def test_training_works_from_another_thread() -> None:
    config, results = eventful(), []

    def run() -> None:
        try:
            results.append(train(config, SPLITS, untrained(config)))
        except BaseException:
            results.append(traceback.format_exc())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert isinstance(results[0], Trained), results[0]
    assert same(weights(results[0]), weights(train(config, SPLITS, untrained(config))))


def test_splits_without_both_classes_are_refused_together(tmp_path: Path) -> None:
    x = torch.zeros(4, FEATURES)
    unseen = TensorSplit(x, torch.tensor([0, 0, 1, 1]), torch.tensor([1.0, 1, 0, 0]))
    splits = Splits(TensorSplit(x, torch.zeros(4, dtype=torch.int64)), unseen)
    config = small(early_stopping=EarlyStoppingConfig())
    with pytest.raises(InputError) as error:
        train(config, splits, untrained(config), folder=tmp_path)
    training_problem, validation_problem = error.value.problems
    assert "the training split needs both classes, got weights [4.0, 0.0]" in training_problem
    assert "the validation split needs both classes, got weights [2.0, 0.0]" in validation_problem
    assert not any(tmp_path.iterdir())
    train(small(epochs=1), Splits(SPLITS.train, unseen), untrained(small()))  # which nothing looks at


# ------------------------------------------------------------------------------------------- trackers


def test_tensorboard_events_are_the_history_also_after_a_resume(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = eventful()
    tracker = tracker_of("tensorboard", tmp_path, config, "run")

    def die(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise OSError("after the event, before the checkpoint")

    with pytest.raises(OSError, match="after the event"):
        train(config, SPLITS, untrained(config), folder=tmp_path, on_epoch=die, tracker=tracker)
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["progress"]["step"] == 5
    time.sleep(1.1)  # event files are read in the order of their names, which tell whole seconds apart
    trained = train(config, SPLITS, untrained(config), folder=tmp_path, tracker=tracker)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"step", "loss", "learning_rate", "validation_average_precision"}
    for name in events.Tags()["scalars"]:
        logged = [(event.step, event.value) for event in events.Scalars(name)]
        expected = [(row["epoch"], row[name]) for row in trained.history]
        assert logged == [(epoch, pytest.approx(value, rel=1e-6)) for epoch, value in expected]


class Recorder(Logger):
    """What a tracker was told."""

    def __init__(self) -> None:
        self.rows: list[tuple[int | None, dict[str, float]]] = []
        self.status: list[str] = []

    name = version = "recorder"

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("a training logs its course alone")

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows.append((step, metrics))

    def finalize(self, status: str) -> None:
        self.status.append(status)


def test_loggers_of_a_fabric_and_a_tracker_hear_the_history(tmp_path: Path) -> None:
    mine, made, behind = Recorder(), Recorder(), []

    def tracker(epochs: int) -> Recorder:
        behind.append(epochs)
        return made

    def train_some(**options: Any) -> Any:
        fabric = Fabric(accelerator="cpu", devices=1, loggers=[mine])
        return train(small(), SPLITS, untrained(small()), fabric=fabric, folder=tmp_path, tracker=tracker, **options)

    with pytest.raises(TrainingInterrupted):
        train_some(on_epoch=lambda row: None, stop=lambda step: len(mine.rows) == 2)
    trained = train_some()
    rows = [(int(row["epoch"]), {name: row[name] for name in row if name != "epoch"}) for row in trained.history]
    assert mine.rows == made.rows == rows
    assert mine.status == made.status == ["failed", "success"]
    assert behind == [0, 2]


def test_nothing_is_tracked_unless_asked_for(tmp_path: Path) -> None:
    trained = train(small(), SPLITS, untrained(small()), folder=tmp_path)
    assert len(trained.history) == 4
    assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT, "metrics.csv"}


def test_files_are_closed_however_training_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = []

    class Log(training._Log):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            logs.append(self)

    monkeypatch.setattr(training, "_Log", Log)
    with pytest.raises(TrainingInterrupted):
        train(small(), SPLITS, untrained(small()), folder=tmp_path / "a", stop=lambda step: True)
    wild = small(optimizer=OptimizerConfig(learning_rate=1e12))
    with pytest.raises(TrainingDiverged):
        train(wild, SPLITS, untrained(wild), folder=tmp_path / "b")
    train(small(), SPLITS, untrained(small()), folder=tmp_path / "c")
    assert [log._file.closed for log in logs] == [True] * 3
