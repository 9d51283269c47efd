"""LibAUC's AUC-margin loss (Yuan et al., ICCV 2021) and average-precision loss (Qi et al., NeurIPS 2021) as peers.

They need the optional package `libauc` for the losses and their optimizers, PESG and SOAP. All else is as for the other
methods: the network, the data, augmentation, the number of steps, the schedule of the rate. Both losses compare the
positives of a batch with its negatives, so that each batch must have some: a fifth of it is drawn from the positives.
Scores enter as sigmoid(z_+ - z_-), as in the package's examples.

The AUC-margin loss is the published one ("v1"): the prior-free "v2" of release 2.0.1 takes a mean over the whole batch
where its formula has one over the negatives. PESG's regularizer starts anew after a half and three quarters of the
epochs, where the package's examples do so. Where the recipe stops early, as for tables, it does so by the metric that
the loss is made for, since its scores stand for no probability. The recipe's clipping (PESG and SOAP have their own),
its averaging of weights and checkpoints are left out.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paper.data import Data
from paper.methods import Trial
from tunelater.config import Config
from tunelater.data.splits import Split
from tunelater.distributions import keyed_rng
from tunelater.film import LossConditional
from tunelater.losses import loss_family
from tunelater.metrics import evaluate
from tunelater.models import build
from tunelater.problems import InputError
from tunelater.scoring import score
from tunelater.training import TrainingDiverged, TrainingInterrupted

POSITIVES = 0.2
"""The share of positives in a batch."""
MADE_FOR = {"aucm": "auc", "ap": "average_precision"}


Stop = Callable[[int], bool]


def trained(trial: Trial, data: Data, device: torch.device, stop: Stop | None = None) -> LossConditional:
    """Train a network of a trial's setting on the training part.

    Args:
        stop: asked with the number of finished steps after each; True stops, and what was trained is lost: there are no
            checkpoints.

    Raises:
        InputError: the package is missing.
        TrainingDiverged: the loss is no longer finite.
        TrainingInterrupted: it was stopped.
    """
    package = _package()
    config = trial.config().for_samples(len(data.splits.train))
    model = build(config, **data.shape).to(device)
    train = data.splits.train.to(device)
    with _seeded(device, trial.seed):  # PESG's first reference is drawn from PyTorch's generator
        loss, optimizer = _loss(package, trial, config, model, len(train), device)
        best = _fit(trial, config, model, train, data.splits.validation, loss, optimizer, stop)
    if best is not None:
        model.load_state_dict(best)
    return model.eval()


def _fit(
    trial: Trial,
    config: Config,
    model: LossConditional,
    train: Split,
    validation: Split,
    loss: torch.nn.Module,
    optimizer: Any,
    stop: Stop | None,
) -> dict[str, Tensor] | None:
    """The best epoch's weights, where the recipe stops early; None where the last are the result."""
    size = config.batch_size or 0
    per_epoch = math.ceil(len(train) / size)
    anew = {round(config.epochs * share) for share in (0.5, 0.75)} - {0, config.epochs}
    best_value, best_epoch, best = -math.inf, 0, None
    rate = config.optimizer.learning_rate * float(dict(trial.setting).get("rate", 1))
    target = train.target.cpu().numpy()
    model.train()
    for epoch in range(config.epochs):
        if epoch in anew and trial.kind.loss == "aucm":
            optimizer.update_regularizer()
        total = torch.zeros((), device=train.target.device)
        for i, rows in enumerate(dual_batches(target, size, per_epoch, trial.seed, epoch)):
            step = epoch * per_epoch + i
            factor = config.schedule.multiplier(step, per_epoch, config.epochs * per_epoch)
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            index = torch.from_numpy(rows).to(train.target.device)
            noise = (trial.seed + 0x9E3779B97F4A7C15 * (step + 1)) % 2**63
            torch.manual_seed(noise)
            z = model(train.inputs(index, noise), {}).float()
            value = loss(torch.sigmoid(z[:, 1] - z[:, 0]), train.target[index], index=index)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            total += value.detach().sum()
            if stop is not None and stop(step + 1):
                raise TrainingInterrupted(f"stopped after step {step + 1} of {config.epochs * per_epoch}")
        if not bool(torch.isfinite(total)):
            raise TrainingDiverged(f"the loss is no longer finite after epoch {epoch + 1}: lower its rate ({rate:g})")
        if config.early_stopping is not None:
            now = _value(model, validation, MADE_FOR[trial.kind.loss])
            if now > best_value:
                best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
                best_value, best_epoch = now, epoch
            if epoch - best_epoch >= config.early_stopping.patience:
                break
    return best


def dual_batches(
    target: NDArray[np.int64], size: int, batches: int, seed: int, epoch: int
) -> Iterator[NDArray[np.int64]]:
    """(size,) rows of each batch of an epoch, `POSITIVES` of them positive; a class comes again once all of it came."""
    rng = keyed_rng(seed, "shuffle", epoch)
    n_positive = max(1, round(POSITIVES * size))
    rows = []
    for c, n in ((1, n_positive), (0, size - n_positive)):
        of_class = np.flatnonzero(target == c)
        passes = math.ceil(n * batches / len(of_class))
        order = np.concatenate([rng.permutation(of_class) for _ in range(passes)])
        rows.append(order[: n * batches].reshape(batches, n))
    yield from np.concatenate(rows, axis=1)


def margins(model: LossConditional, split: Split) -> NDArray[np.float32]:
    """(N,) z_+ - z_- of a split's samples."""
    device = next(model.parameters()).device
    family = loss_family("cross_entropy", class_counts=[1, 1])
    return score(model, split.to(device), {}, family, link=False).log_odds[0]


def _value(model: LossConditional, split: Split, metric: str) -> float:
    scores = margins(model, split)
    model.train()
    return float(evaluate(scores[None], split.target.cpu().numpy(), metrics=[metric])[metric][0])


def _package() -> Any:
    try:
        import libauc.losses
        import libauc.optimizers
    except ImportError as error:
        raise InputError(f"LibAUC's losses need the package libauc: pip install libauc ({error})") from None
    return libauc


def _loss(
    package: Any, trial: Trial, config: Config, model: LossConditional, n: int, device: torch.device
) -> tuple[torch.nn.Module, Any]:
    """The loss with the optimizer that is made for it, of the recipe's kind, decay and momentum."""
    setting, chosen = {name: float(text) for name, text in trial.setting}, config.optimizer
    common = {
        "lr": chosen.learning_rate,
        "mode": "sgd" if chosen.name == "sgd" else "adam",
        "weight_decay": chosen.weight_decay,
        "momentum": chosen.momentum,
        "verbose": False,
        "device": device,
    }
    if trial.kind.loss == "aucm":
        loss = package.losses.AUCMLoss(margin=setting["margin"], version="v1", device=device)
        return loss, package.optimizers.PESG(list(model.parameters()), loss_fn=loss, **common)
    loss = package.losses.APLoss(data_len=n, margin=setting["margin"], gamma=setting["gamma"], device=device)
    return loss, package.optimizers.SOAP(list(model.parameters()), **common)


@contextlib.contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
