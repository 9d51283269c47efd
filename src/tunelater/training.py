"""The training loop: the only one. A fixed lambda, a distribution of lambdas, one process or many run through it alike.

Everything random is keyed: lambda by (seed, step), the order of the samples by (seed, epoch), dropout by (seed, step,
process). So a training that was stopped anywhere and goes on from its checkpoint gives the same weights as one that was
not, and data-parallel processes see the same lambda.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import hashlib
import logging
import math
import os
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.logger import Logger
from lightning_utilities.core import rank_zero
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tunelater.config import Config, EarlyStoppingConfig, OptimizerConfig
from tunelater.data.splits import Fetching, Split, Splits, class_counts
from tunelater.distributions import keyed_rng
from tunelater.film import LossConditional
from tunelater.losses import LossFamily, loss_family
from tunelater.metrics import evaluate, metric
from tunelater.models import channels_last
from tunelater.problems import DoubtfulInputWarning, InputError, Problems
from tunelater.sam import SAM
from tunelater.scoring import score, score_classes

CHECKPOINT = "checkpoint.pt"


class TrainingDiverged(RuntimeError):
    """The loss is no longer finite; the message says what to change."""


class TrainingInterrupted(KeyboardInterrupt):
    """Training was asked to stop; its checkpoint is written."""


@dataclass(frozen=True)
class Trained:
    """A trained model with what is needed to score with it."""

    model: LossConditional
    """On the CPU, in evaluation mode: averaged weights where averaging is on, the best epoch's under early stopping."""
    family: LossFamily
    config: Config
    history: list[dict[str, float]]
    """One row an epoch: epoch, step, loss, learning_rate, and the validation metric where there is one."""
    best_epoch: int
    """The epoch that the weights are of, from 1: the best under early stopping, else the last."""


@dataclass
class _Progress:
    """What a checkpoint holds besides the weights."""

    step: int = 0
    best_value: float = -math.inf
    best_epoch: int = 0
    best_weights: dict[str, Tensor] | None = None
    epoch_loss: float = 0.0
    """The losses of this epoch's steps so far, summed over all processes."""
    history: list[dict[str, float]] = field(default_factory=list)


def train(
    config: Config,
    splits: Splits,
    model: LossConditional,
    *,
    fabric: Fabric | None = None,
    folder: str | Path | None = None,
    resume: bool = True,
    checkpoint_seconds: float = 60.0,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    stop: Callable[[int], bool] | None = None,
    tracker: Callable[[int], Logger] | None = None,
) -> Trained:
    """Train `model` on `splits.train` as `config` says; `splits.validation` serves early stopping alone.

    Args:
        fabric: a launched Fabric for several devices or nodes; by default one device, the GPU where there is one. Its
            loggers get each row of the history.
        folder: where checkpoint.pt and metrics.csv go; None keeps nothing.
        resume: go on from the checkpoint in `folder`, if there is one.
        checkpoint_seconds: how often to write one in the middle of an epoch. One is also written when SIGINT or SIGTERM
            arrives.
        on_epoch: called with each row of the history, for progress bars.
        stop: asked with the number of finished steps after each; True stops as a signal would.
        tracker: makes a logger that gets each row too, given how many epochs a resumed training has behind it; see
            `trackers.tracker_of`.

    Raises:
        InputError: a split without all classes that the model has, a Fabric of another precision than the config's, a
            checkpoint of another config, of other data or of another number of processes, or `compile` without a
            compiler.
        TrainingDiverged: the loss turned NaN or infinite.
        TrainingInterrupted: stopped before the end; call again with the same arguments to go on.
    """
    config = config.for_samples(len(splits.train))
    family = loss_family(config.loss, _checked_counts(splits, config, model.head.out_features))
    _warn_of_milestones(config)
    fabric = _one_device(config) if fabric is None else _of_precision(fabric, config)
    learner = _Learner(config, family, model, fabric)
    batches = _Batches(splits.train.to(fabric.device), config, fabric.global_rank, fabric.world_size)
    early = _EarlyStopping(config.early_stopping, splits.validation, fabric) if config.early_stopping else None
    folder = Path(folder) if folder is not None else None
    checkpoints = _Checkpoints(folder, config, splits, fabric, checkpoint_seconds)
    fabric.barrier()  # so that no process reads a checkpoint that another still writes
    progress = checkpoints.load(learner) if resume else _Progress()
    epoch_loss = _EpochLoss(progress.epoch_loss, fabric)
    alone, look_every = fabric.world_size == 1, _look_every(fabric)
    asked_to_stop = out_of_patience = False

    def diverged(step: int) -> TrainingDiverged:
        return TrainingDiverged(_advice(config, step, batches.steps_per_epoch, batches.lam(step)))

    model.train()
    leads = fabric.is_global_zero
    loggers = [*fabric.loggers, *([tracker(len(progress.history))] if tracker is not None and leads else [])]
    log = _Log(folder if leads else None, progress.history, on_epoch, loggers)
    with log, _own_random_state(fabric.device), _stop_requested() as signalled:
        for step in range(progress.step, batches.steps):
            factor = config.schedule.multiplier(step, batches.steps_per_epoch, batches.steps)
            rate = config.optimizer.learning_rate * factor
            epoch_loss.add(learner.step(*batches.at(step), batches.lam(step), rate))
            epoch, into_epoch = divmod(step + 1, batches.steps_per_epoch)
            ends_epoch = into_epoch == 0
            learner.average(ends_epoch)

            looking = ends_epoch or step % look_every == 0
            if looking and not math.isfinite(epoch_loss.total()):
                raise diverged(step)
            if ends_epoch:
                loss = epoch_loss.total() / batches.steps_per_epoch
                row = {"epoch": epoch, "step": step + 1, "loss": loss, "learning_rate": rate}
                epoch_loss.reset()
                if early is not None:
                    value = early.judge(epoch, learner, progress)
                    if value is None:
                        raise diverged(step)
                    row[early.column] = value
                    out_of_patience = early.out_of_patience(epoch, progress)
                log.add(row)

            asked_to_stop |= signalled() or (stop is not None and bool(stop(step + 1)))
            flags = asked_to_stop, checkpoints.due()
            stopping, due = _anywhere(fabric, *flags) if alone or looking else (False, False)
            if ends_epoch or due or stopping:
                progress.step = batches.steps if out_of_patience else step + 1
                progress.epoch_loss = epoch_loss.total()
                if not math.isfinite(progress.epoch_loss):
                    raise diverged(step)
                checkpoints.save(learner, progress)
            if out_of_patience:
                break
            if stopping:
                raise TrainingInterrupted(f"stopped after step {step + 1} of {batches.steps}")

    result = learner.result
    if progress.best_weights is not None:
        result.load_state_dict(progress.best_weights)
    elif early is not None:
        early.warn_of_no_best(len(progress.history))
    best_epoch = progress.best_epoch or len(progress.history)
    return Trained(result.cpu().eval(), family, config, progress.history, best_epoch)


def _one_device(config: Config) -> Fabric:
    logger = rank_zero.log  # Fabric's, or that of lightning, which puts its own in this place when it is imported
    level = logger.level
    logger.setLevel(logging.WARNING)  # the notice that bfloat16 is on: the config asked for it
    try:
        return Fabric(accelerator="auto", devices=1, precision=config.precision)
    finally:
        logger.setLevel(level)


def _of_precision(fabric: Fabric, config: Config) -> Fabric:
    precision = fabric.strategy.precision.precision
    if precision != config.precision:
        raise InputError(
            f"the config's precision and the Fabric's must be the same, got {config.precision!r} and {precision!r}: "
            f"make it Fabric(precision={config.precision!r}), or set precision in the config"
        )
    return fabric


def _look_every(fabric: Fabric) -> int:
    """Reading a loss on an accelerator waits for it, and agreeing with other processes waits for them."""
    return 1 if fabric.device.type == "cpu" and fabric.world_size == 1 else 50


class _Learner:
    """What the steps change: the weights, the optimizer's state, and the average of the weights."""

    def __init__(self, config: Config, family: LossFamily, model: LossConditional, fabric: Fabric) -> None:
        self.config, self.family, self._fabric = config, family, fabric
        self.module = channels_last(model.to(fabric.device))
        base = _optimizer(config.optimizer, self.module)
        sam = SAM(base, self.module, rho=config.sam.rho, adaptive=config.sam.adaptive) if config.sam else None
        self._sam = sam
        forward = _compiled(self.module, config, fabric.device) if config.compile else self.module
        self._wrapped, self._optimizer = fabric.setup(forward, sam or base)
        # Fabric's wrapper converts precision and exchanges gradients; where it has neither to do, it still costs a
        # small network a tenth of its step.
        idle = fabric.world_size == 1 and config.precision == "32-true"
        self._forward = forward if idle else self._wrapped
        if sam is not None and fabric.world_size > 1:
            sam.first_pass = functools.partial(fabric.no_backward_sync, self._wrapped)
        self._averaged: AveragedModel | None = None
        if config.averaging is not None:
            self._averaged = AveragedModel(self.module, multi_avg_fn=self._move_average, use_buffers=True)

    def step(self, x: Tensor, target: Tensor, weight: Tensor, lam: Any, rate: float) -> Tensor:
        """One step of the optimizer; this process's part of the loss before it."""
        config, fabric = self.config, self._fabric
        for group in self._optimizer.param_groups:
            group["lr"] = rate

        def closure() -> Tensor:
            self._optimizer.zero_grad()
            loss = weight @ mean_loss(self.family, self._forward(x, lam), target, lam)
            fabric.backward(loss)
            max_norm = config.clip_norm if config.clip_norm is not None and self._clips else math.inf
            norm = fabric.clip_gradients(self._wrapped, self._optimizer, max_norm=max_norm, error_if_nonfinite=False)
            # Where the norm overflows, clipping gives zeros and Adam stands still, at a finite loss: make it NaN.
            # The gradients are those of all processes, so that what is NaN in one is NaN in all, and all stop.
            return loss + 0 * norm  # type: ignore[operator]

        return self._optimizer.step(closure).detach() / fabric.world_size

    @property
    def _clips(self) -> bool:
        """Whether the pass that runs is one whose gradient `clip_norm` bounds."""
        sam = self.config.sam
        return self._sam is None or sam is None or self._sam.second == (sam.clip == "step")

    def average(self, ends_epoch: bool) -> None:
        averaging = self.config.averaging
        if self._averaged is not None and averaging is not None and (ends_epoch or averaging.every == "step"):
            self._averaged.update_parameters(self.module)

    def _move_average(self, averaged: Any, now: Any, _: Any) -> None:
        """The update after the first, which copies the weights: what was before training is no part of the average."""
        assert self._averaged is not None
        assert self.config.averaging is not None
        update = int(self._averaged.n_averaged) + 1  # from the CPU, where it stays: reading a copy would wait
        decay = min(self.config.averaging.decay, (1 + update) / (10 + update))
        get_ema_multi_avg_fn(decay)(averaged, now, update)

    @property
    def result(self) -> LossConditional:
        """The averaged model where there is one by now."""
        if self._averaged is None or not int(self._averaged.n_averaged):
            return self.module
        return self._averaged.module  # type: ignore[return-value]

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.module.state_dict(),
            "averaged": self._averaged.state_dict() if self._averaged is not None else None,
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.module.load_state_dict(state["model"])
        if self._averaged is not None:
            self._averaged.load_state_dict(state["averaged"])
        self._optimizer.load_state_dict(state["optimizer"])


def mean_loss(family: LossFamily, logits: Tensor, target: Tensor, lam: Mapping[str, Tensor]) -> Tensor:
    """(N,) losses of (N, K) logits, or of an ensemble's (N, E, K) the mean of its members' losses."""
    if logits.ndim == 2:
        return family.loss(logits, target, **lam)
    n, members, _ = logits.shape
    of_each = {name: value.repeat_interleave(members) if value.ndim else value for name, value in lam.items()}
    return family.loss(logits.flatten(0, 1), target.repeat_interleave(members), **of_each).view(n, members).mean(1)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def problems_of_compiling(config: Config, device: torch.device | None = None) -> list[str]:
    """Why a config's `compile` cannot be; a small function is compiled to see, which takes seconds.

    Args:
        device: by default the one that `train` takes.
    """
    if not config.compile:
        return []
    device = _one_device(config).device if device is None else device
    try:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # torch's own, as it loads
            torch.compile(F.softplus, dynamic=False)(torch.zeros(8, device=device))
    except Exception as error:  # of many kinds: no C++ compiler, no Triton, a Python that torch can't compile for
        return [
            f"compile = true (--compile) needs a working torch.compile for {device.type}, and it failed "
            f"({_first_line(error)}): install a compiler, or set compile = false (--no-compile)"
        ]
    return []


def _compiled(module: LossConditional, config: Config, device: torch.device) -> torch.nn.Module:
    """The module with a compiled forward and backward; its weights are shared.

    Batches of another size are compiled apart rather than once for any size, since an epoch has two sizes at most.
    """
    if problems := problems_of_compiling(config, device):
        raise InputError(problems)
    return torch.compile(module, dynamic=False)  # type: ignore[return-value]


class _Batches:
    """The samples of each step, this process's share of them, and the lambda of the step.

    What is random is drawn an epoch at a time and moved to the device at once, so that a step waits for no copy. Data
    that are fetched from the host are asked for a step ahead.
    """

    def __init__(self, data: Split, config: Config, rank: int, world_size: int) -> None:
        self._data, self._config, self._rank, self._world_size = data, config, rank, world_size
        self._device = data.target.device
        self._fetching = data if isinstance(data, Fetching) else None
        self._size = config.for_samples(len(data)).batch_size or 0
        self.steps_per_epoch = math.ceil(len(data) / self._size)
        self.steps = config.epochs * self.steps_per_epoch
        self._mean_weight = 1.0 if data.weight is None else float(data.weight.double().mean())
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)
        self._lambdas: dict[str, Tensor] = {}

    def at(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, targets and loss weights.

        The weights are those of the samples relative to their mean over all samples, divided by the size of the batch.
        Relative to the batch's own, they would weigh a heavy sample less the more of its kind are around it, and the
        minimum would not be the weighted risk's, which the link is made for. Times the number of processes, so that the
        mean of the processes' gradients is the gradient of the batch's loss.
        """
        rows = self._rows(step)
        n = min(self._size, len(self._data) - rows.start)
        share = self._share(rows)
        noise = (self._config.seed + 0x9E3779B97F4A7C15 * (step * self._world_size + self._rank + 1)) % 2**63
        _seed(self._device, noise)
        inputs = self._data.inputs(share, noise)
        if self._fetching is not None and rows.stop < len(self._data):
            self._fetching.expect(self._share(slice(rows.stop, rows.stop + self._size)))
        share = share.to(self._device, non_blocking=self._device.type == "cuda")  # or it would wait for the step before
        if self._data.weight is None:
            weight = torch.full((len(share),), self._world_size / n, device=self._device)
        else:
            weight = self._data.weight[share].float() * (self._world_size / (self._mean_weight * n))
        return inputs, self._data.target[share], weight

    def _share(self, rows: slice) -> Tensor:
        """This process's samples of those at some rows of the epoch's order."""
        return self._order[rows][self._rank :: self._world_size]

    def lam(self, step: int) -> dict[str, Tensor]:
        """Tensors by name: one value, or one for each sample of this process's share."""
        rows = self._rows(step)
        if self._config.lambda_per == "batch":
            return {name: values[step % self.steps_per_epoch] for name, values in self._lambdas.items()}
        return {name: values[rows][self._rank :: self._world_size] for name, values in self._lambdas.items()}

    def _rows(self, step: int) -> slice:
        """Where the step's samples are in the order of its epoch, which is drawn first where that is due."""
        epoch, i = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            order = keyed_rng(self._config.seed, "shuffle", epoch).permutation(len(self._data))
            self._order = torch.from_numpy(order)
            if self._fetching is None:
                self._order = self._order.to(self._device)
            self._lambdas = {n: torch.from_numpy(v).float().to(self._device) for n, v in self._draw(epoch).items()}
            self._epoch = epoch
        return slice(i * self._size, (i + 1) * self._size)

    def _draw(self, epoch: int) -> dict[str, NDArray[np.float64]]:
        """The lambdas of an epoch: one a step, or one a sample in the order of the samples."""
        space, seed, size = self._config.lambdas, self._config.seed, self._size
        starts = range(0, len(self._data), size)
        steps = range(epoch * self.steps_per_epoch, (epoch + 1) * self.steps_per_epoch)
        if self._config.lambda_per == "batch":
            draws: list[Any] = [space.draw(seed, step) for step in steps]
        else:
            sizes = [min(size, len(self._data) - start) for start in starts]
            draws = [space.draw(seed, step, size=n) for step, n in zip(steps, sizes, strict=True)]
        return {name: np.concatenate([np.atleast_1d(draw[name]) for draw in draws]) for name in space}


class _EpochLoss:
    """The losses of an epoch's steps, summed where they are: reading the sum waits for the device, and for others."""

    def __init__(self, so_far: float, fabric: Fabric) -> None:
        self._fabric = fabric
        self._sum = torch.tensor(so_far if fabric.is_global_zero else 0.0, device=fabric.device)

    def add(self, loss: Tensor) -> None:
        self._sum += loss

    def total(self) -> float:
        """Over all processes."""
        return float(self._fabric.all_reduce(self._sum.clone(), reduce_op="sum"))  # type: ignore[arg-type]

    def reset(self) -> None:
        self._sum.zero_()


def _anywhere(fabric: Fabric, *so: bool) -> list[bool]:
    """Whether each is so in any process: one that went its own way would leave the others waiting for it."""
    if fabric.world_size == 1:
        return list(so)
    flags = torch.tensor(so, dtype=torch.float32, device=fabric.device)
    return [bool(flag) for flag in fabric.all_reduce(flags, reduce_op="max")]


class _EarlyStopping:
    """Judges the epochs by a metric of the validation split, averaged over a 3 x 3 x ... grid of lambdas."""

    def __init__(self, settings: EarlyStoppingConfig, data: Split, fabric: Fabric) -> None:
        self._settings, self._data, self._fabric = settings, data.to(fabric.device), fabric
        self._metric = metric(settings.metric)
        self.column = f"validation_{self._metric.name}"

    def judge(self, epoch: int, learner: _Learner, progress: _Progress) -> float | None:
        """The epoch's value, whose weights are kept if it is the best so far; None where the scores are not finite.

        A value may be NaN (no threshold attains a precision, say): that is never the best.
        """
        value = self._fabric.broadcast(self._value(learner))
        if value is None:
            return None
        signed = value if self._metric.higher_is_better else -value
        if signed > progress.best_value:
            weights = {name: tensor.detach().cpu().clone() for name, tensor in learner.result.state_dict().items()}
            progress.best_value, progress.best_epoch, progress.best_weights = signed, epoch, weights
        return value

    def out_of_patience(self, epoch: int, progress: _Progress) -> bool:
        return epoch - progress.best_epoch >= self._settings.patience

    def warn_of_no_best(self, epochs: int) -> None:
        warnings.warn(
            f"early_stopping.metric {self._settings.metric!r} was finite after none of the {epochs} epochs, so that "
            "the last epoch's weights are the result: choose another metric, or more validation samples",
            DoubtfulInputWarning,
            stacklevel=3,
        )

    def _value(self, learner: _Learner) -> float | None:
        lambdas = learner.config.lambdas.grid(3)
        try:
            if len(learner.family.class_counts) > 2:
                return float(np.mean(score_classes(learner.result, self._data, lambdas, learner.family).log_loss()))
            scores = score(learner.result, self._data, lambdas, learner.family)
        except InputError:  # the config has the family's hyperparameters, so it is the log-odds
            return None
        values = evaluate(scores.log_odds, scores.target, scores.weight, [self._settings.metric])
        return float(np.mean(values[self._settings.metric]))


def _checked_counts(splits: Splits, config: Config, n_classes: int) -> list[float]:
    """The training split's, once each split that is used has all classes."""
    problems = Problems()
    early = config.early_stopping
    used = {"training": splits.train} | ({"validation": splits.validation} if early else {})
    needed = "both classes" if n_classes == 2 else f"each of {n_classes} classes"
    for name, split in used.items():
        counts = class_counts(split, n_classes)
        named = " and ".join((", ".join(map(str, range(n_classes - 1))), str(n_classes - 1)))
        problems.check(min(counts) > 0, f"the {name} split needs {needed}, got weights {counts} of classes {named}")
    if early and n_classes > 2:
        problems.check(
            early.metric == "log_loss",
            f"early_stopping.metric of {n_classes} classes is 'log_loss', got {early.metric!r}, which is of two",
        )
    problems.raise_if_any()
    return class_counts(splits.train, n_classes)


def _warn_of_milestones(config: Config) -> None:
    late = [milestone for milestone in config.schedule.milestones if milestone >= config.epochs]
    if config.schedule.name == "multistep" and late:
        warnings.warn(
            f"schedule.milestones {late} are not before the end of training, after {config.epochs} epochs, so that the "
            "learning rate never falls there: lower them (`recipes.shortened` does), or train longer",
            DoubtfulInputWarning,
            stacklevel=3,
        )


def _optimizer(config: OptimizerConfig, module: torch.nn.Module) -> torch.optim.Optimizer:
    # One kernel for all parameters: the step of a small model is bound by the number of calls.
    common: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": True}
    if config.name == "sgd":
        return torch.optim.SGD(module.parameters(), momentum=config.momentum, **common)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name](module.parameters(), **common)


def _advice(config: Config, step: int, steps_per_epoch: int, lam: Any) -> str:
    lower = config.optimizer.learning_rate / 10
    advice = [f"lower optimizer.learning_rate ({config.optimizer.learning_rate:g}, try {lower:g})"]
    if config.clip_norm is None:
        advice.append("set clip_norm (0.5 is the paper's)")
    if not config.schedule.warmup_epochs:
        advice.append("set schedule.warmup_epochs (5)")
    if config.precision != "32-true":
        advice.append("train in precision 32-true")
    advice.append("scale the inputs, if they are large")
    epoch = step // steps_per_epoch + 1
    at = ", ".join(f"{name} {float(torch.as_tensor(value).mean()):.4g}" for name, value in lam.items())
    where = f"step {step + 1} (epoch {epoch}{', lambda ' if at else ''}{at})"
    return f"the loss, its gradient or the scores are no longer finite at {where}: {', or '.join(advice)}"


@contextlib.contextmanager
def _own_random_state(device: torch.device) -> Iterator[None]:
    """Dropout draws from PyTorch's global generators, which belong to the user: leave them as they were."""
    metal = torch.mps.get_rng_state() if device.type == "mps" else None
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        if metal is not None:
            torch.mps.set_rng_state(metal)


def _seed(device: torch.device, seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextlib.contextmanager
def _stop_requested() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM has arrived: acted on between steps, where the weights are whole."""
    arrived = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield arrived.is_set
        return
    # A handler that was not set from Python reads as None, and could not be put back.
    ours = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) is not None]
    before = {s: signal.signal(s, lambda *_: arrived.set()) for s in ours}
    try:
        yield arrived.is_set
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


class _Checkpoints:
    """checkpoint.pt in a folder, or none. It knows what it belongs to, and goes on with nothing else."""

    def __init__(self, folder: Path | None, config: Config, splits: Splits, fabric: Fabric, seconds: float) -> None:
        self._folder, self._seconds, self._writes = folder, seconds, fabric.is_global_zero
        self._saved = time.monotonic()
        self._of: dict[str, Any] = {}
        if folder is not None:
            self._of = {
                "config": config.to_toml(),
                "training data": _digest(splits.train),
                "validation data": _digest(splits.validation),
                "processes": fabric.world_size,
            }

    def due(self) -> bool:
        return self._folder is not None and time.monotonic() - self._saved > self._seconds

    def save(self, learner: _Learner, progress: _Progress) -> None:
        self._saved = time.monotonic()
        if self._folder is None or not self._writes:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f"{CHECKPOINT}.partial"
        torch.save({"of": self._of, **learner.state_dict(), "progress": vars(progress)}, partial)
        os.replace(partial, self._folder / CHECKPOINT)

    def load(self, learner: _Learner) -> _Progress:
        """What was saved last, put into the learner; where nothing was, a beginning."""
        path = self._folder / CHECKPOINT if self._folder is not None else None
        if path is None or not path.exists():
            return _Progress()
        device = next(learner.module.parameters()).device
        instead = "use another folder, or resume=False"
        try:
            state = torch.load(path, map_location=device, weights_only=True)
            saved_of = dict(state["of"])
        except (RuntimeError, OSError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise InputError(
                f"{path} is no checkpoint of this version, or damaged ({type(error).__name__}): {instead}"
            ) from error
        problems = Problems()
        for what, mine in self._of.items():
            theirs = saved_of.get(what)
            difference = "" if what == "config" else f" (saved: {theirs}; now: {mine})"
            problems.check(theirs == mine, f"{path} belongs to a training with another {what}{difference}: {instead}")
        problems.raise_if_any()
        try:
            learner.load_state_dict(state)
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{path} belongs to another model ({_first_line(error)}): {instead}") from error
        return _Progress(**state["progress"])


def _digest(split: Split) -> str:
    """Which samples a split holds, from every target and weight and from some of the inputs."""
    n = len(split)
    some = torch.linspace(0, n - 1, min(n, 64), dtype=torch.float64).long().to(split.target.device)
    digest = hashlib.sha256()
    for tensor in (split.target, split.weight, split.inputs(some)):
        if tensor is not None:
            digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    n_classes = max(2, int(split.target.max()) + 1)
    counts = ", ".join(f"{count:g}" for count in class_counts(split, n_classes))
    return f"{n} samples, classes of weight {counts}, digest {digest.hexdigest()[:12]}"


class _Log:
    """The history, and who hears of it: metrics.csv, rewritten whole on resume, loggers, and the caller."""

    def __init__(
        self,
        folder: Path | None,
        history: list[dict[str, float]],
        on_epoch: Callable[[dict[str, float]], None] | None,
        loggers: Sequence[Logger] = (),
    ) -> None:
        self._history, self._on_epoch, self._loggers = history, on_epoch, loggers
        self._file = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "metrics.csv").open("w", newline="", encoding="utf-8")
        self._writer: csv.DictWriter[str] | None = None
        for row in history:
            self._write_csv(row)

    def _write_csv(self, row: dict[str, float]) -> None:
        assert self._file is not None
        if self._writer is None:
            self._writer = csv.DictWriter(self._file, row.keys())
            self._writer.writeheader()
        self._writer.writerow(row)
        self._file.flush()

    def add(self, row: dict[str, float]) -> None:
        self._history.append(row)
        if self._file is not None:
            self._write_csv(row)
        for logger in self._loggers:
            logger.log_metrics({name: row[name] for name in row if name != "epoch"}, step=int(row["epoch"]))
        if self._on_epoch is not None:
            self._on_epoch(row)

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        for logger in self._loggers:
            logger.finalize("success" if failure is None else "failed")
