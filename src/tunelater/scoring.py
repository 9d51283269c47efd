"""Scores of every sample at every lambda: the waist between training and everything after it.

Where FiLM acts on pooled features, the trunk runs once for each sample, and a grid of lambdas is one matrix product:
with f the features and w_l, b_l the binary head at lambda l, the margins are f . w_l + b_l. Where it acts after every
stage of the trunk, the trunk runs once for each sample and lambda.

Shapes: N samples, L lambdas, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tunelater.data.splits import Loadable, Split, is_split, labelled_batches
from tunelater.distributions import Lambdas, at
from tunelater.film import LossConditional
from tunelater.losses import LossFamily, logit
from tunelater.problems import InputError, Problems


@dataclass(frozen=True)
class Scores:
    """Posterior log-odds of N samples at L lambdas. Everything after training is a pure function of it.

    Raises:
        InputError: shapes that do not fit, log-odds that are not finite, weights that are negative, not finite or all
            zero.
    """

    log_odds: NDArray[np.float32]
    """(L, N): log P(+|x) / P(-|x) where a share `prior` is positive."""
    target: NDArray[np.int8]
    """(N,) 0 or 1."""
    lambdas: Lambdas
    """(L,) values of each loss hyperparameter, by name."""
    prior: float
    """The share of positives that the log-odds are for: the training prior, unless moved by `at_prior`."""
    weight: NDArray[np.float64] | None = None
    """(N,) sample weights, finite and 0 or more."""
    split: str = "validation"
    """Where the samples come from: `train`, `validation`, `test`, or a name of the user's."""
    model: str = ""
    """Identity of the model, so that an operating point is not applied to another."""
    extrapolated: NDArray[np.bool_] | None = None
    """(L,) which lambdas lie outside of the range trained on; None where that is not known."""
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """(N,) what else is known of the samples, by name: subgroups as text, costs as numbers."""

    def __post_init__(self) -> None:
        problems = Problems()
        problems.check(self.log_odds.ndim == 2, f"log-odds need shape (L, N), got {self.log_odds.shape}")
        if self.log_odds.ndim == 2:
            n_lambdas, n = self.log_odds.shape
            problems.check(self.target.shape == (n,), f"{n} samples need {n} targets, got {self.target.shape}")
            for name, values in self.lambdas.items():
                problems.check(len(values) == n_lambdas, f"{n_lambdas} lambdas need as many {name}, got {len(values)}")
            for name, array, size in (("weights", self.weight, n), ("extrapolated", self.extrapolated, n_lambdas)):
                sound = array is None or array.shape == (size,)
                problems.check(sound, f"{name} needs shape ({size},), got {getattr(array, 'shape', None)}")
            for name, column in self.columns.items():
                problems.check(np.shape(column) == (n,), f"{n} samples need as many {name!r}, got {np.shape(column)}")
        if self.weight is not None:
            bad = int(np.count_nonzero(~(np.isfinite(self.weight) & (self.weight >= 0))))
            problems.check(not bad, f"weights must be finite and 0 or more, got {bad} that are not; correct them")
            problems.check(
                bool(bad) or bool(self.weight.any()), "weights must be above 0 for some samples, got none; correct them"
            )
        with np.errstate(invalid="ignore", over="ignore"):
            total = self.log_odds.sum()  # not finite if any of them is not: one pass, without an (L, N) mask
        if not np.isfinite(total):
            bad = int(np.count_nonzero(~np.isfinite(self.log_odds)))
            problems.check(not bad, f"log-odds must be finite, got {bad} that are not: the model has diverged")
        problems.raise_if_any()

    def __len__(self) -> int:
        return len(self.log_odds)

    def lam(self, index: int) -> dict[str, float]:
        """The lambda at an index."""
        return at(self.lambdas, index)

    def take(self, rows: NDArray[np.intp]) -> Scores:
        """The scores of some samples."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        weight = None if self.weight is None else self.weight[rows]
        return replace(self, log_odds=self.log_odds[:, rows], target=self.target[rows], weight=weight, columns=columns)

    def at_prior(self, prior: float) -> Scores:
        """The same scores as log-odds where another share of cases is positive.

        Raises:
            InputError: a prior outside (0, 1).
        """
        if not 0 < prior < 1:
            raise InputError(f"a prior is a share of positives strictly between 0 and 1, got {prior}")
        shift = np.float32(logit(prior) - logit(self.prior))
        return replace(self, log_odds=self.log_odds + shift, prior=prior)


def score(
    model: LossConditional,
    data: Split | Loadable,
    lambdas: Lambdas,
    family: LossFamily,
    *,
    link: bool = True,
    split: str = "validation",
    memory_mb: int = 256,
    model_id: str = "",
) -> Scores:
    """Score every sample at every lambda, on the model's device.

    A model with FiLM after every stage costs L passes through its trunk instead of one: nine for the 3 x 3 grid that
    early stopping looks at.

    Args:
        data: a split; or a `DataLoader` or map-style `Dataset` of (inputs, targets), (inputs, targets, weights) or
            mappings with `labels`, in their order.
        lambdas: (L,) arrays by name, as `LambdaSpace.grid` gives them.
        link: posterior log-odds by the family's link; False keeps the raw difference of logits z_+ - z_-, which is what
            a softmax would take for them.
        memory_mb: bound on the working memory besides the result, MiB.

    Raises:
        InputError: hyperparameters that the loss needs and `lambdas` lacks, arrays of different lengths, or batches
            that `labelled_batches` refuses.
    """
    check_lambdas(lambdas, family)
    lengths = {name: np.size(values) for name, values in lambdas.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{n} of {name}" for name, n in lengths.items())
        raise InputError(f"each lambda needs a value of every hyperparameter, got {told}; see `LambdaSpace.grid`")
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode():
            heads = head_grid(model, lambdas, family, link=link)
            if is_split(data):
                log_odds = _fresh(heads.size, len(data))
                fill = _in_one_pass if model.stages is None else _in_a_pass_for_each_lambda
                fill(log_odds, model, data, lambdas, heads, memory_mb * 2**20)
                target, weight = data.target, data.weight
            else:
                log_odds, target, weight = _batch_by_batch(
                    model, cast(Loadable, data), lambdas, heads, memory_mb * 2**20
                )
    finally:
        for module, mode in modes.items():
            module.training = mode
    weights = None if weight is None else weight.cpu().double().numpy()
    targets = target.cpu().numpy().astype(np.int8)
    return Scores(log_odds.numpy(), targets, lambdas, family.prior, weights, split, model_id)


def pooled_features(
    model: LossConditional, data: Split, lam: Mapping[str, float], *, memory_mb: int = 256
) -> NDArray[np.float32]:
    """(N, C) float32: what the trunk makes of every sample, on the model's device.

    Args:
        lam: the lambda to find them at; only those of a model with FiLM after every stage depend on it.
        memory_mb: bound on the working memory besides the result, MiB.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode():
            device = model.head.weight.device
            pieces = _pieces(slice(0, len(data)), _rows_of_a_pass(data, memory_mb * 2**20))
            found = [model.features(data.inputs(rows).to(device), lam).float().cpu().numpy() for rows in pieces]
            return np.concatenate(found)
    finally:
        for module, mode in modes.items():
            module.training = mode


@dataclass(frozen=True)
class ClassScores:
    """Log posteriors of N samples among K classes, two or more, at L lambdas.

    Raises:
        InputError: shapes that do not fit, log posteriors that are not finite, weights that are negative, not finite or
            all zero, shares that are not positive or do not sum to one.
    """

    log_posterior: NDArray[np.float32]
    """(L, N, K): log P(c|x) where classes have the shares `prior`."""
    target: NDArray[np.int64]
    """(N,) class indices."""
    lambdas: Lambdas
    """(L,) values of each loss hyperparameter, by name."""
    prior: tuple[float, ...]
    """The K shares of the classes that the posteriors are for."""
    weight: NDArray[np.float64] | None = None
    split: str = "validation"
    model: str = ""
    extrapolated: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        problems = Problems()
        problems.check(self.log_posterior.ndim == 3, f"log posteriors need shape (L, N, K), got {self._shape}")
        if self.log_posterior.ndim == 3:
            n_lambdas, n, k = self._shape
            inside = self.target.shape == (n,) and bool(((self.target >= 0) & (self.target < k)).all())
            problems.check(inside, f"{n} samples need {n} targets from 0 to {k - 1}, got shape {self.target.shape}")
            for name, values in self.lambdas.items():
                problems.check(len(values) == n_lambdas, f"{n_lambdas} lambdas need as many {name}, got {len(values)}")
            sound = len(self.prior) == k and min(self.prior) > 0 and abs(sum(self.prior) - 1) < 1e-6
            problems.check(sound, f"{k} classes need {k} positive shares that sum to 1, got {list(self.prior)}")
            if self.weight is not None:
                sound = self.weight.shape == (n,) and bool((np.isfinite(self.weight) & (self.weight >= 0)).all())
                problems.check(
                    sound and bool(self.weight.any()), f"{n} samples need finite weights of 0 or more, some above 0"
                )
        bad = int(np.count_nonzero(~np.isfinite(self.log_posterior)))
        problems.check(not bad, f"log posteriors must be finite, got {bad} that are not: the model has diverged")
        problems.raise_if_any()

    def __len__(self) -> int:
        return len(self.log_posterior)

    @property
    def _shape(self) -> tuple[int, ...]:
        return self.log_posterior.shape

    def log_loss(self) -> NDArray[np.float64]:
        """(L,) the mean log-loss of the samples, in nats."""
        of_target = np.take_along_axis(self.log_posterior, self.target[None, :, None], axis=2)[:, :, 0]
        return -np.average(of_target.astype(np.float64), axis=1, weights=self.weight)


def score_classes(
    model: LossConditional,
    data: Split | Loadable,
    lambdas: Lambdas,
    family: LossFamily,
    *,
    split: str = "validation",
    model_id: str = "",
) -> ClassScores:
    """Log posteriors of every sample at every lambda, on the model's device: `score` for any number of classes.

    Raises:
        InputError: hyperparameters that the loss needs and `lambdas` lacks, log posteriors that are not finite, or
            batches that `labelled_batches` refuses.
    """
    check_lambdas(lambdas, family)
    size = max((np.size(values) for values in lambdas.values()), default=1)
    device, modes = model.head.weight.device, {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode():
            if is_split(data):
                out = np.empty((size, len(data), len(family.class_counts)), np.float32)
                for rows in _pieces(slice(0, len(data)), _rows_of_a_pass(data, 2**27)):
                    out[:, rows] = _log_posteriors(model, data.inputs(rows).to(device), lambdas, size, family)
                target, weight = data.target, data.weight
            else:
                parts, targets, weights = [], [], []
                for batch in labelled_batches(cast(Loadable, data), len(family.class_counts)):
                    parts.append(_log_posteriors(model, batch.on(device), lambdas, size, family))
                    targets.append(_as_many(batch.target, parts[-1].shape[1]))
                    weights.append(batch.weight)
                out, target, weight = np.concatenate(parts, axis=1), torch.cat(targets), _joined(weights)
    finally:
        for module, mode in modes.items():
            module.training = mode
    weights_of_all = None if weight is None else weight.cpu().double().numpy()
    counts = np.asarray(family.class_counts)
    prior = tuple((counts / counts.sum()).tolist())
    return ClassScores(out, target.cpu().numpy(), lambdas, prior, weights_of_all, split, model_id)


def _log_posteriors(
    model: LossConditional, x: Any, lambdas: Lambdas, size: int, family: LossFamily
) -> NDArray[np.float32]:
    """(L, n, K) of n samples."""
    shared = None if model.stages is not None else model.features(x)
    lams = [at(lambdas, i) for i in range(size)]
    logits = (model.logits(model.features(x, lam) if shared is None else shared, lam) for lam in lams)
    return np.stack(
        [family.log_posterior(z, None, **lam).cpu().numpy() for z, lam in zip(logits, lams, strict=True)]
    ).astype(np.float32, copy=False)


def _in_one_pass(
    out: Tensor, model: LossConditional, data: Split, lambdas: Lambdas, heads: HeadGrid, memory: int
) -> None:
    """Fill `out` (L, N) from features that all lambdas share.

    The features of many samples are gathered before they are multiplied: the threads of a product wait for each other
    at its end, so that many small ones are several times slower than a large one where other programs are running.
    """
    channels = model.head.in_features
    for stretch in _pieces(slice(0, len(data)), memory // (2 * 4 * channels)):
        features = _fresh(stretch.stop - stretch.start, channels).to(heads.bias.device)
        for rows in _pieces(stretch, _rows_of_a_pass(data, memory // 2)):
            place = slice(rows.start - stretch.start, rows.stop - stretch.start)
            features[place] = model.features(data.inputs(rows).to(features.device))
        heads.log_odds(features, out[:, stretch], memory // 2)


def _fresh(*shape: int) -> Tensor:
    """Memory from NumPy, which asks for huge pages: PyTorch's takes four times as long to touch first."""
    return torch.from_numpy(np.empty(shape, np.float32))


def _in_a_pass_for_each_lambda(
    out: Tensor, model: LossConditional, data: Split, lambdas: Lambdas, heads: HeadGrid, memory: int
) -> None:
    for rows in _pieces(slice(0, len(data)), _rows_of_a_pass(data, memory)):
        x = data.inputs(rows).to(heads.bias.device)
        for i in range(heads.size):
            heads[i : i + 1].log_odds(model.features(x, at(lambdas, i)), out[i : i + 1, rows])


def _batch_by_batch(
    model: LossConditional, data: Loadable, lambdas: Lambdas, heads: HeadGrid, memory: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Log-odds (L, N), targets and weights of a loader's samples, read once."""
    device = heads.bias.device
    enough = max(1, memory // (2 * 4 * model.head.in_features))
    scored: list[Tensor] = []
    gathered: list[Tensor] = []  # features of many batches, multiplied at once: as in `_in_one_pass`
    targets: list[Tensor] = []
    weights: list[Tensor | None] = []
    for batch in labelled_batches(data):
        x = batch.on(device)
        if model.stages is None:
            gathered.append(model.features(x))
            _as_many(batch.target, len(gathered[-1]))
            if sum(map(len, gathered)) >= enough:
                scored.append(heads.log_odds(torch.cat(gathered), memory=memory // 2))
                gathered.clear()
        else:
            rows = [heads[i : i + 1].log_odds(model.features(x, at(lambdas, i))) for i in range(heads.size)]
            scored.append(torch.cat(rows))
            _as_many(batch.target, scored[-1].shape[1])
        targets.append(batch.target)
        weights.append(batch.weight)
    if gathered:
        scored.append(heads.log_odds(torch.cat(gathered), memory=memory // 2))
    log_odds = scored[0] if len(scored) == 1 else torch.cat(scored, dim=1)
    return log_odds, torch.cat(targets), _joined(weights)


def _as_many(target: Tensor, n: int) -> Tensor:
    if len(target) != n:
        raise InputError(f"{len(target)} targets of a batch need as many inputs, got features of {n}")
    return target


def _joined(weights: list[Tensor | None]) -> Tensor | None:
    given = [weight for weight in weights if weight is not None]
    if given and len(given) < len(weights):
        raise InputError(f"all batches have sample weights or none, got {len(given)} of {len(weights)} with them")
    return torch.cat(given) if given else None


def _rows_of_a_pass(data: Split, memory: int) -> int:
    """So many samples that the trunk's activations stay within `memory` bytes, if they are no more than some 64 times
    as many as the numbers of an input."""
    return min(8192, memory // (4 * max(1024, 64 * data.inputs(slice(0, 1)).numel())))


def _pieces(rows: slice, size: int) -> list[slice]:
    size = max(1, size)
    return [slice(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size)]


def check_lambdas(lambdas: Lambdas | Mapping[str, float], family: LossFamily) -> None:
    """Whether lambdas have the hyperparameters of a loss, and values that it allows.

    Raises:
        InputError: all that are missing, unknown or out of range.
    """
    problems = Problems()
    missing = [name for name in family.hyperparameters if name not in lambdas]
    problems.check(not missing, f"the lambdas to score lack {', '.join(missing)}, which loss {family.name!r} needs")
    for name, values in lambdas.items():
        if name not in family.hyperparameters:
            known = ", ".join(family.hyperparameters) or "none"
            problems.add(f"loss {family.name!r} has no hyperparameter {name!r}; its hyperparameters are: {known}")
            continue
        low, high = family.hyperparameters[name]
        bad = [float(v) for v in np.ravel(values) if not low <= v <= high]
        problems.check(not bad, f"{name} of loss {family.name!r} must lie in [{low:g}, {high:g}], got {bad[:3]}")
    problems.raise_if_any()


@dataclass(frozen=True)
class HeadGrid:
    """The head at L lambdas as one linear map, and the link that turns its margins into log-odds."""

    weight: Tensor
    bias: Tensor
    lambdas: Mapping[str, Tensor]
    family: LossFamily | None
    """None where the margins are what is wanted: raw, or with a link that is a shift and has gone into the bias."""

    @property
    def size(self) -> int:
        return len(self.bias)

    def __getitem__(self, some: slice) -> HeadGrid:
        lambdas = {name: values[some] for name, values in self.lambdas.items()}
        return HeadGrid(self.weight[some], self.bias[some], lambdas, self.family)

    def log_odds(self, features: Tensor, out: Tensor | None = None, memory: int = 64 * 2**20) -> Tensor:
        """(L, N) float32 on the host, from features (N, C).

        Args:
            out: written into where it is given.
            memory: bound on what the link may hold besides, bytes.
        """
        out = torch.empty(self.size, len(features)) if out is None else out
        features = features.float()
        if self.family is None and out.device == self.weight.device:
            # Straight into place: a copy would cost half as much as the product.
            return torch.addmm(self.bias[:, None], self.weight, features.T, out=out)
        # The focal link holds ten numbers a margin, and is fastest where they stay in the processor's cache.
        margins_at_once = min(2**19, memory // (10 * 4))
        for rows in _pieces(slice(0, len(features)), margins_at_once // self.size):
            margins = torch.addmm(self.bias[:, None], self.weight, features[rows].T)
            out[:, rows] = margins if self.family is None else self.family.link(margins, **self.lambdas)
        return out


def head_grid(model: LossConditional, lambdas: Lambdas, family: LossFamily, *, link: bool = True) -> HeadGrid:
    """The model's head at a table of lambdas, on the model's device."""
    device = model.head.weight.device
    values = {name: torch.as_tensor(v, dtype=torch.float32, device=device).reshape(-1) for name, v in lambdas.items()}
    with torch.inference_mode():
        weight, bias = model.margins(values, family if link else None)
        shift = family.shift(bias, **values) if link else None
    if shift is not None:
        return HeadGrid(weight.float(), (bias + shift).float(), {}, None)
    return HeadGrid(
        weight.float(), bias.float(), {name: v[:, None] for name, v in values.items()}, family if link else None
    )
