"""The training loop: the only one. A fixed lambda, a distribution of lambdas, one process or many run through it alike.

Everything random is keyed: lambda by (seed, step), the order of the samples by (seed, epoch), dropout by (seed, step,
process). So a training that was stopped anywhere and goes on from its checkpoint gives the same weights as one that was
not, and data-parallel processes see the same lambda.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tunelater.config import Config, OptimizerConfig
from tunelater.data.splits import Split, Splits, class_counts
from tunelater.distributions import keyed_rng
from tunelater.film import LossConditional
from tunelater.losses import LossFamily, loss_family
from tunelater.metrics import evaluate, metric
from tunelater.problems import InputError, Problems
from tunelater.sam import SAM
from tunelater.scoring import score

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


@dataclass
class _Progress:
    """What a checkpoint holds besides the weights."""

    step: int = 0
    best_value: float = -math.inf
    best_epoch: int = 0
    best_weights: dict[str, Tensor] | None = None
    epoch_loss: float = 0.0
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
) -> Trained:
    """Train `model` on `splits.train` as `config` says; `splits.validation` serves early stopping alone.

    Args:
        fabric: a launched Fabric for several devices or nodes; by default one device, the GPU where there is one.
        folder: where checkpoint.pt and metrics.csv (and TensorBoard events, if it is installed) go; None keeps nothing.
        resume: go on from the checkpoint in `folder`, if there is one.
        checkpoint_seconds: how often to write one in the middle of an epoch. One is also written when SIGINT or SIGTERM
            arrives.
        on_epoch: called with each row of the history, for progress bars.
        stop: asked with the number of finished steps after each; True stops as a signal would.

    Raises:
        InputError: a split without both classes, or a checkpoint of another config.
        TrainingDiverged: the loss turned NaN or infinite.
        TrainingInterrupted: stopped before the end; call again with the same arguments to go on.
    """
    family = loss_family(config.loss, _checked_counts(splits))
    stopping_on = metric(config.early_stopping.metric) if config.early_stopping else None
    fabric = fabric or Fabric(accelerator="auto", devices=1, precision=config.precision)
    folder = Path(folder) if folder is not None else None

    module = model.to(fabric.device)
    base = _optimizer(config.optimizer, module)
    sam = SAM(base, module, rho=config.sam.rho, adaptive=config.sam.adaptive) if config.sam is not None else None
    wrapped, optimizer = fabric.setup(module, sam or base)
    if sam is not None and fabric.world_size > 1:
        sam.first_pass = functools.partial(fabric.no_backward_sync, wrapped)
    averaged = _averaged(config, module)
    data, validation = splits.train.to(fabric.device), splits.validation.to(fabric.device)
    steps_per_epoch = math.ceil(len(data) / config.batch_size)
    steps = config.epochs * steps_per_epoch
    fabric.barrier()  # so that no process reads a checkpoint that another still writes
    progress = _load(folder, config, module, averaged, optimizer) if resume else _Progress()
    batches = _Batches(data, config, steps_per_epoch, fabric.global_rank, fabric.world_size)
    # Reading a loss on an accelerator waits for it, and agreeing with other processes waits for them.
    look_every = 1 if fabric.device.type == "cpu" and fabric.world_size == 1 else 50
    epoch_loss = torch.tensor(progress.epoch_loss, device=fabric.device)
    last_saved = time.monotonic()
    asked_to_stop = False

    def anywhere(so: bool) -> bool:
        """Whether it is so in any process: one that went its own way would leave the others waiting for it."""
        if fabric.world_size == 1:
            return so
        return bool(fabric.all_reduce(torch.tensor(float(so), device=fabric.device), reduce_op="max"))

    def save(next_step: int) -> None:
        progress.step, progress.epoch_loss = next_step, float(epoch_loss)
        if folder is not None and fabric.is_global_zero:
            _save(folder, config, module, averaged, optimizer, progress)

    module.train()
    log = _Log(folder if fabric.is_global_zero else None, progress.history)
    with contextlib.closing(log), _own_random_state(fabric.device), _stop_requested() as signalled:
        for step in range(progress.step, steps):
            x, target, weight = batches.at(step)
            lam = batches.lam(step)
            for group in optimizer.param_groups:
                group["lr"] = config.optimizer.learning_rate * config.schedule.multiplier(step, steps_per_epoch, steps)

            def closure(x: Tensor = x, target: Tensor = target, weight: Tensor = weight, lam: Any = lam) -> Tensor:
                optimizer.zero_grad()
                loss = weight @ family.loss(wrapped(x, lam), target, **lam)
                fabric.backward(loss)
                max_norm = math.inf if config.clip_norm is None else config.clip_norm
                norm = fabric.clip_gradients(wrapped, optimizer, max_norm=max_norm, error_if_nonfinite=False)
                # Where the norm overflows, clipping gives zeros and Adam stands still, at a finite loss: make it NaN.
                # The gradients are those of all processes, so that what is NaN in one is NaN in all, and all stop.
                return loss + 0 * norm  # type: ignore[operator]

            epoch_loss += optimizer.step(closure).detach() / fabric.world_size
            epoch, done_in_epoch = divmod(step + 1, steps_per_epoch)
            if averaged is not None and (config.averaging.every == "step" or not done_in_epoch):  # type: ignore[union-attr]
                averaged.update_parameters(module)
            look = step % look_every == 0 or not done_in_epoch
            if look and not math.isfinite(float(epoch_loss)):
                raise TrainingDiverged(_advice(config, step, steps_per_epoch, lam))

            if not done_in_epoch:
                total_loss = float(fabric.all_reduce(epoch_loss, reduce_op="sum"))  # type: ignore[arg-type]
                row = {"epoch": epoch, "step": step + 1, "loss": total_loss / steps_per_epoch}
                row["learning_rate"] = optimizer.param_groups[0]["lr"]
                epoch_loss.zero_()
                if config.early_stopping is not None and stopping_on is not None:
                    value = fabric.broadcast(_validation_metric(averaged, module, validation, family, config))
                    if value is None:
                        raise TrainingDiverged(_advice(config, step, steps_per_epoch, lam))
                    row[f"validation_{stopping_on.name}"] = value
                    sign = 1 if stopping_on.higher_is_better else -1
                    if sign * value > progress.best_value:
                        weights = {
                            k: v.detach().cpu().clone() for k, v in _final(averaged, module).state_dict().items()
                        }
                        progress.best_value, progress.best_epoch, progress.best_weights = sign * value, epoch, weights
                progress.history.append(row)
                log.write(row)
                if on_epoch is not None:
                    on_epoch(row)
                if config.early_stopping and epoch - progress.best_epoch >= config.early_stopping.patience:
                    save(steps)
                    break
            asked_to_stop |= signalled() or (stop is not None and bool(stop(step + 1)))
            if (look or fabric.world_size == 1) and anywhere(asked_to_stop):
                save(step + 1)
                raise TrainingInterrupted(f"stopped after step {step + 1} of {steps}")
            if not done_in_epoch or time.monotonic() - last_saved > checkpoint_seconds:
                save(step + 1)
                last_saved = time.monotonic()

    result = _final(averaged, module)
    if progress.best_weights is not None:
        result.load_state_dict(progress.best_weights)
    return Trained(result.cpu().eval(), family, config, progress.history, progress.best_epoch or config.epochs)


class _Batches:
    """The samples of each step, this process's share of them, and the lambda of the step."""

    def __init__(self, data: Split, config: Config, steps_per_epoch: int, rank: int, world_size: int) -> None:
        self._data, self._config = data, config
        self._steps_per_epoch, self._rank, self._world_size = steps_per_epoch, rank, world_size
        self._device = data.target.device
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def _index(self, step: int) -> Tensor:
        epoch, i = divmod(step, self._steps_per_epoch)
        if epoch != self._epoch:
            order = keyed_rng(self._config.seed, "shuffle", epoch).permutation(len(self._data))
            self._epoch, self._order = epoch, torch.from_numpy(order).to(self._device)
        return self._order[i * self._config.batch_size : (i + 1) * self._config.batch_size]

    def at(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, targets and loss weights.

        The weights sum to the number of processes over all of them, so that the mean of the processes' gradients is the
        gradient of the batch's weighted mean loss.
        """
        whole = self._index(step)
        share = whole[self._rank :: self._world_size]
        noise = (self._config.seed + 0x9E3779B97F4A7C15 * (step * self._world_size + self._rank + 1)) % 2**63
        torch.default_generator.manual_seed(noise)
        if self._device.type == "cuda":
            torch.cuda.manual_seed(noise)
        if self._data.weight is None:
            weight = torch.full((len(share),), self._world_size / len(whole), device=self._device)
        else:
            weight = self._data.weight[share].float()
            weight *= self._world_size / self._data.weight[whole].sum().clamp(min=1e-12)
        return self._data.inputs(share, noise), self._data.target[share], weight

    def lam(self, step: int) -> Any:
        """Floats by name, or tensors with one value for each sample of this process's share."""
        if self._config.lambda_per == "batch":
            return self._config.lambdas.draw(self._config.seed, step)
        draws = self._config.lambdas.draw(self._config.seed, step, size=len(self._index(step)))
        return {
            name: torch.as_tensor(values, dtype=torch.float32, device=self._device)[self._rank :: self._world_size]
            for name, values in draws.items()
        }


def _checked_counts(splits: Splits) -> list[float]:
    problems = Problems()
    for name, split in (("training", splits.train), ("validation", splits.validation)):
        counts = class_counts(split)
        problems.check(min(counts) > 0, f"the {name} split needs both classes, got weights {counts} of classes 0 and 1")
    problems.raise_if_any()
    return class_counts(splits.train)


def _optimizer(config: OptimizerConfig, module: torch.nn.Module) -> torch.optim.Optimizer:
    # One kernel for all parameters: the step of a small model is bound by the number of calls.
    common: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": True}
    if config.name == "sgd":
        return torch.optim.SGD(module.parameters(), momentum=config.momentum, **common)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name](module.parameters(), **common)


def _averaged(config: Config, module: LossConditional) -> AveragedModel | None:
    if config.averaging is None:
        return None
    return AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(config.averaging.decay), use_buffers=True)


def _final(averaged: AveragedModel | None, module: LossConditional) -> LossConditional:
    return module if averaged is None or not int(averaged.n_averaged) else averaged.module  # type: ignore[return-value]


def _validation_metric(
    averaged: AveragedModel | None, module: LossConditional, data: Split, family: LossFamily, config: Config
) -> float | None:
    """The early-stopping metric, averaged over a 3 x 3 x ... grid of lambdas; None where the scores are not finite."""
    assert config.early_stopping is not None
    try:
        scores = score(_final(averaged, module), data, config.lambdas.grid(3), family)
    except InputError:  # the config has the family's hyperparameters, so it is the log-odds
        return None
    values = evaluate(scores.log_odds, scores.target, scores.weight, [config.early_stopping.metric])
    return float(np.mean(values[config.early_stopping.metric]))


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
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


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


def _save(
    folder: Path, config: Config, module: LossConditional, averaged: AveragedModel | None, optimizer: Any, p: _Progress
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "config": config.to_toml(),
        "model": module.state_dict(),
        "averaged": averaged.state_dict() if averaged is not None else None,
        "optimizer": optimizer.state_dict(),
        "progress": vars(p),
    }
    partial = folder / f"{CHECKPOINT}.partial"
    torch.save(state, partial)
    os.replace(partial, folder / CHECKPOINT)


def _load(
    folder: Path | None, config: Config, module: LossConditional, averaged: AveragedModel | None, optimizer: Any
) -> _Progress:
    path = folder / CHECKPOINT if folder is not None else None
    if path is None or not path.exists():
        return _Progress()
    device = next(module.parameters()).device
    state = torch.load(path, map_location=device, weights_only=True)
    if state["config"] != config.to_toml():
        raise InputError(f"{path} belongs to a training with another config: use another folder, or resume=False")
    module.load_state_dict(state["model"])
    if averaged is not None:
        averaged.load_state_dict(state["averaged"])
    optimizer.load_state_dict(state["optimizer"])
    return _Progress(**state["progress"])


class _Log:
    """The history as metrics.csv, rewritten whole on resume, and as TensorBoard events where that is installed."""

    def __init__(self, folder: Path | None, history: list[dict[str, float]]) -> None:
        self._file = self._events = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "metrics.csv").open("w", newline="", encoding="utf-8")
        self._writer: csv.DictWriter[str] | None = None
        with contextlib.suppress(ImportError):
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=len(history) + 1)
        for row in history:
            self._write_csv(row)

    def _write_csv(self, row: dict[str, float]) -> None:
        assert self._file is not None
        if self._writer is None:
            self._writer = csv.DictWriter(self._file, row.keys())
            self._writer.writeheader()
        self._writer.writerow(row)
        self._file.flush()

    def write(self, row: dict[str, float]) -> None:
        if self._file is not None:
            self._write_csv(row)
        if self._events is not None:
            for name in row.keys() - {"epoch"}:
                self._events.add_scalar(name, row[name], int(row["epoch"]))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._events is not None:
            self._events.close()
