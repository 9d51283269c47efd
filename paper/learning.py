"""A trial from its data to its scores: the network, or another learner, and what is measured of it.

A model gives L candidates, one for each lambda that it is evaluated at, each of them a score of every sample.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_utilities.core import rank_zero
from numpy.typing import NDArray

from paper.data import Data
from paper.methods import Trial
from tunelater.data.splits import Split, TensorSplit, class_counts
from tunelater.distributions import Lambdas, at
from tunelater.film import LossConditional
from tunelater.losses import LossFamily, logit
from tunelater.metrics import THRESHOLD_METRICS, Curve, Ranking, evaluate, per_lambda
from tunelater.models import build
from tunelater.problems import InputError
from tunelater.scoring import Scores as SplitScores
from tunelater.scoring import head_grid, pooled_features, score
from tunelater.training import TrainingInterrupted, train

RECALLS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
"""The eight recalls of Figure 1. The paper does not name them."""
METRICS = (
    "auc",
    "average_precision",
    "brier",
    "log_loss",
    "best_f1",
    "best_balanced_accuracy",
    *(f"precision@recall>={recall:g}" for recall in RECALLS),
)
RANKING = tuple(name for name in METRICS if name not in ("brier", "log_loss"))
AT_THRESHOLD = ("f1", "balanced_accuracy", "precision@recall>=0.99", "recall@recall>=0.99")
"""On the test part, at the threshold that is best on the validation part."""
LOWER_IS_BETTER = frozenset({"brier", "log_loss"})
CHOSEN_BY = ("auc", "average_precision", "brier", "best_f1", "best_balanced_accuracy", "precision@recall>=0.99")
"""The metrics of the paper's tables; each has its own choice of lambda."""
SPLITS = ("validation", "test")

Stop = Callable[[int], bool]
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Candidates:
    """What a model says of every sample at each of L lambdas."""

    lambdas: Mapping[str, NDArray[np.float64]]
    target: Mapping[str, NDArray[np.int8]]
    """(N,) of each split."""
    logits: Mapping[str, Scores]
    """(L, N) of each split: z_+ - z_-, which is what a softmax takes."""
    posterior: Mapping[str, Scores]
    """(L, N) of each split: log-odds by the loss's own link, at the split's share of positives."""


def candidates(trial: Trial, data: Data, folder: Path | None, stop: Stop | None, device: str = "auto") -> Candidates:
    """Train what the trial says and score it.

    Args:
        folder: for checkpoints; a training that was stopped goes on from there. None keeps none.
        stop: asked after each step; True stops the training.
        device: "auto", "cpu", or "cuda:0" and so on.

    Raises:
        TrainingInterrupted: it was stopped.
        InputError: the trial and the data do not fit, or a package is missing.
    """
    learner = {"network": _network, "boosting": _boosting, "libauc": _libauc}[trial.kind.learner]
    return learner(trial, data, folder, stop, device)


def _network(trial: Trial, data: Data, folder: Path | None, stop: Stop | None, device: str) -> Candidates:
    config = trial.config()
    fabric = _fabric(device, config.precision)
    trained = train(config, data.splits, build(config, **data.shape), fabric=fabric, folder=folder, stop=stop)
    model = trained.model.to(fabric.device)
    lambdas, logits, posterior = trial.lambdas(), {}, {}
    for name, split in _evaluated(data).items():
        _stop_if(stop, int(trained.history[-1]["step"]))  # the last checkpoint is that of the trained network
        raw, linked = _with_and_without_link(model, split.to(fabric.device), lambdas, trained.family)
        logits[name], posterior[name] = raw.log_odds, linked.at_prior(_prior(split)).log_odds
    return Candidates(lambdas, _targets(data), logits, posterior)


def _with_and_without_link(
    model: LossConditional, split: Split, lambdas: Lambdas, family: LossFamily
) -> tuple[SplitScores, SplitScores]:
    """The raw margins and the posterior log-odds, of one pass through the trunk where all lambdas share it."""
    if model.stages is not None:
        return score(model, split, lambdas, family, link=False), score(model, split, lambdas, family)
    features = torch.from_numpy(pooled_features(model, split, at(lambdas, 0))).to(model.head.weight.device)
    target = split.target.cpu().numpy().astype(np.int8)

    def scores(link: bool) -> SplitScores:
        log_odds = head_grid(model, lambdas, family, link=link).log_odds(features)
        return SplitScores(log_odds.numpy(), target, lambdas, family.prior)

    return scores(link=False), scores(link=True)


def _stop_if(stop: Stop | None, step: int) -> None:
    if stop is not None and stop(step):
        raise TrainingInterrupted(f"stopped after step {step}")


def _fabric(device: str, precision: Any) -> Fabric:
    kind, _, index = device.partition(":")
    logger = rank_zero.log
    level = logger.level
    logger.setLevel(logging.WARNING)  # no notice of bfloat16 for every trial
    try:
        return Fabric(accelerator=kind, devices=[int(index)] if index else 1, precision=precision)
    finally:
        logger.setLevel(level)


def _evaluated(data: Data) -> dict[str, Split]:
    assert data.splits.test is not None
    return {"validation": data.splits.validation, "test": data.splits.test}


def _targets(data: Data) -> dict[str, NDArray[np.int8]]:
    return {name: split.target.cpu().numpy().astype(np.int8) for name, split in _evaluated(data).items()}


def _prior(split: Split) -> float:
    return float((split.target == 1).double().mean())


def _boosting(trial: Trial, data: Data, folder: Path | None, stop: Stop | None, device: str) -> Candidates:
    """Boosted trees of LightGBM, as many as the validation part's log-loss wants."""
    try:
        import lightgbm
    except ImportError:
        raise InputError("gradient boosting needs the package lightgbm: pip install lightgbm") from None
    setting, balanced = dict(trial.setting), trial.kind.loss == "balanced"
    train, validation = (_arrays(split) for split in (data.splits.train, data.splits.validation))
    trees = lightgbm.LGBMClassifier(
        n_estimators=2000,
        num_leaves=int(setting["num_leaves"]),
        learning_rate=float(setting["learning_rate"]),
        min_child_samples=5,
        subsample=0.8,
        subsample_freq=1,
        colsample_bytree=0.8,
        class_weight="balanced" if balanced else None,
        random_state=trial.seed,
        n_jobs=torch.get_num_threads(),
        verbose=-1,
    )
    trees.fit(
        *train,
        eval_X=validation[0],
        eval_y=validation[1],
        # unweighted, the loss would stop at a few trees; a name of weights is allowed, which its types don't know
        eval_class_weight=["balanced"] if balanced else None,  # type: ignore[list-item]
        eval_metric="binary_logloss",
        callbacks=[lightgbm.early_stopping(50, verbose=False)],
    )
    counts = class_counts(data.splits.train)
    trained_at = 0.5 if balanced else counts[1] / sum(counts)
    logits = {name: _row(trees.predict(_arrays(s)[0], raw_score=True)) for name, s in _evaluated(data).items()}
    moved = {name: np.float32(logit(_prior(s)) - logit(trained_at)) for name, s in _evaluated(data).items()}
    return Candidates({}, _targets(data), logits, {name: logits[name] + moved[name] for name in logits})


def _row(values: Any) -> Scores:
    return np.asarray(values, np.float32)[None]


def _arrays(split: Split) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    if not isinstance(split, TensorSplit):
        raise InputError("gradient boosting is for tables, got images")
    return split.x.numpy(), split.target.numpy()


def _libauc(trial: Trial, data: Data, folder: Path | None, stop: Stop | None, device: str) -> Candidates:
    from paper import libauc_losses

    model = libauc_losses.trained(trial, data, _fabric(device, "32-true").device, stop)
    logits = {name: _row(libauc_losses.margins(model, split)) for name, split in _evaluated(data).items()}
    # Its scores stand for no posterior; calibration on the validation part is what makes one of them.
    return Candidates({}, _targets(data), logits, dict(logits))


# ----------------------------------------------------------------------------------------------------------- measuring


def measure(found: Candidates) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Every metric of each candidate: by split (and "transferred"), by kind of scores, by name, L values.

    The kinds: "logits" ranks by z_+ - z_-; "softmax" by the float32 softmax of it, as is customary, in which large
    scores become equal; "posterior" by the log-odds that the loss's link gives, which with gamma > 0 is another order.
    Brier scores and log-losses are of the softmax under "logits" and "softmax", and of the posterior otherwise.

    "transferred" has `AT_THRESHOLD`: what the best threshold of the validation part attains on the test part.
    """
    values: dict[str, dict[str, dict[str, list[float]]]] = {}
    for split in SPLITS:
        target, logits = found.target[split], found.logits[split]
        saturated = torch.sigmoid(torch.from_numpy(logits)).numpy()  # a softmax of two is a sigmoid of the difference
        by_logits = _lists(evaluate(logits, target, metrics=METRICS))
        proper = {name: by_logits[name] for name in METRICS if name not in RANKING}
        values[split] = {
            "logits": by_logits,
            "softmax": {**_lists(evaluate(saturated, target, metrics=RANKING)), **proper},
            "posterior": _lists(evaluate(found.posterior[split], target, metrics=METRICS)),
        }
    values["transferred"] = {"logits": _transferred(found)}
    return values


def _lists(values: Mapping[str, NDArray[np.float64]]) -> dict[str, list[float]]:
    return {name: [float(f"{v:.7g}") for v in array] for name, array in values.items()}


def _transferred(found: Candidates) -> dict[str, list[float]]:
    (chosen_on, chosen_target), (told_on, told_target) = ((found.logits[s], found.target[s]) for s in SPLITS)

    def one(i: int) -> list[float]:
        curve, test = Ranking(chosen_on[i], chosen_target).curve(), Ranking(told_on[i], told_target).full_curve()
        recalls, precisions = (THRESHOLD_METRICS[name].values(curve) for name in ("recall", "precision"))
        floor = np.where(recalls >= 0.99 - 1e-12, precisions, -1.0)
        picks = {name: int(np.argmax(THRESHOLD_METRICS[name].values(curve))) for name in ("f1", "balanced_accuracy")}
        told = [_at(test, curve.threshold[pick], name) for name, pick in picks.items()]
        threshold = curve.threshold[int(np.argmax(floor))]
        return [*told, _at(test, threshold, "precision"), _at(test, threshold, "recall")]

    rows = per_lambda(one, len(chosen_on))
    return {name: [row[i] for row in rows] for i, name in enumerate(AT_THRESHOLD)}


def _at(curve: Curve, threshold: float, name: str) -> float:
    """A metric of the decisions `score >= threshold`, from a curve with every score."""
    place = int(np.searchsorted(-curve.threshold, -threshold, side="right")) - 1
    return float(THRESHOLD_METRICS[name].values(curve)[place])


def best(values: list[float] | NDArray[np.float64], metric: str) -> int:
    """Where a metric is best; the first of equals."""
    return int(np.argmin(values)) if metric in LOWER_IS_BETTER else int(np.argmax(values))


def worth_keeping(values: Mapping[str, Mapping[str, Mapping[str, list[float]]]]) -> list[int]:
    """The candidates that some metric of the paper's tables would choose, on the validation or on the test part."""
    return sorted({best(values[split]["logits"][metric], metric) for split in SPLITS for metric in CHOSEN_BY})


def run(
    trial: Trial, data: Data, folder: Path | None, stop: Stop | None = None, device: str = "auto"
) -> tuple[dict[str, Any], Candidates]:
    """A trial from start to end: its record but for identity, machine and time, and all its scores."""
    now, timed = clock(device)
    start = now()
    _stop_if(stop, 0)  # the data may have taken long
    found = candidates(trial, data, folder, stop, device)
    trained = now()
    values = measure(found)
    return {
        "trial": trial.record(),
        "data": {"fingerprint": data.fingerprint, "sizes": data.sizes},
        "lambdas": {name: array.tolist() for name, array in found.lambdas.items()},
        "metrics": values,
        "kept": worth_keeping(values),
        "seconds": {"training and scoring": trained - start, "measuring": now() - trained},
        "timed": timed,
    }, found


def clock(device: str) -> tuple[Callable[[], float], Literal["processor", "wall"]]:
    """A clock in seconds and its name: a processor's own time, whatever runs beside it; a GPU's has no such thing."""
    if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
        return time.monotonic, "wall"
    return time.process_time, "processor"
