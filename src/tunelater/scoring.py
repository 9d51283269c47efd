"""Scores of every sample at every lambda: the waist between training and everything after it.

Where FiLM acts on pooled features, the trunk runs once for each sample, and a grid of lambdas is one matrix product:
with f the features and w_l, b_l the binary head at lambda l, the margins are f . w_l + b_l. Where it acts after every
stage of the trunk, the trunk runs once for each sample and lambda.

Shapes: N samples, L lambdas, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tunelater.data.splits import Split
from tunelater.distributions import Lambdas, at
from tunelater.film import LossConditional
from tunelater.losses import LossFamily, logit
from tunelater.problems import InputError, Problems


@dataclass(frozen=True)
class Scores:
    """Posterior log-odds of N samples at L lambdas. Everything after training is a pure function of it.

    Raises:
        InputError: shapes that do not fit, or log-odds that are not finite.
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
    """(N,) sample weights."""
    split: str = "validation"
    """Where the samples come from: `train`, `validation`, `test`, or a name of the user's."""
    model: str = ""
    """Identity of the model, so that an operating point is not applied to another."""
    extrapolated: NDArray[np.bool_] | None = None
    """(L,) which lambdas lie outside of the range trained on; None where that is not known."""

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
    data: Split,
    lambdas: Lambdas,
    family: LossFamily,
    *,
    link: bool = True,
    split: str = "validation",
    memory_mb: int = 256,
    model_id: str = "",
) -> Scores:
    """Score every sample of a split at every lambda, on the model's device.

    A model with FiLM after every stage costs L passes through its trunk instead of one: nine for the 3 x 3 grid that
    early stopping looks at.

    Args:
        lambdas: (L,) arrays by name, as `LambdaSpace.grid` gives them.
        link: posterior log-odds by the family's link; False keeps the raw difference of logits z_+ - z_-, which is what
            a softmax would take for them.
        memory_mb: bound on the working memory besides the result, MiB.

    Raises:
        InputError: hyperparameters that the loss needs and `lambdas` lacks.
    """
    check_lambdas(lambdas, family)
    device = next(model.parameters()).device
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode():
            heads = head_grid(model, lambdas, family, link=link)
            log_odds = np.empty((heads.size, len(data)), np.float32)
            numbers = data.inputs(slice(0, 1)).numel()
            together = heads.size if model.stages is None else 1  # lambdas that share a pass through the trunk
            for rows in _chunks(len(data), together, numbers, memory_mb):
                x = data.inputs(rows).to(device)
                for start in range(0, heads.size, together):
                    features = model.features(x, at(lambdas, start))
                    some = slice(start, start + together)
                    for block in _blocks(rows):
                        piece = features[block.start - rows.start : block.stop - rows.start]
                        heads[some].log_odds(piece, out=torch.from_numpy(log_odds)[some, block])
    finally:
        for module, mode in modes.items():
            module.training = mode
    weight = None if data.weight is None else data.weight.cpu().double().numpy()
    target = data.target.cpu().numpy().astype(np.int8)
    return Scores(log_odds, target, lambdas, family.prior, weight, split, model_id)


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

    def log_odds(self, features: Tensor, out: Tensor | None = None) -> Tensor:
        """(L, N) float32 on the host, from features (N, C); written into `out` where it is given."""
        out = torch.empty(self.size, len(features)) if out is None else out
        product = (self.bias[:, None], self.weight, features.float().T)
        if self.family is None and out.device == self.weight.device:
            return torch.addmm(*product, out=out)  # straight into place: a copy would cost half as much as the product
        margins = torch.addmm(*product)
        return out.copy_(margins if self.family is None else self.family.link(margins, **self.lambdas))


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


def _blocks(rows: slice, size: int = 1024) -> list[slice]:
    """Pieces whose margins stay in the processor's cache on their way to the result."""
    return [slice(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size)]


def _chunks(n: int, n_lambdas: int, numbers: int, memory_mb: int) -> list[slice]:
    """Pieces of the samples whose margins and their link stay within the budget, and so do the trunk's activations if
    they are no more than some 64 times as many as the `numbers` of an input."""
    per_sample = 4 * (10 * n_lambdas + max(1024, 64 * numbers))  # the focal link holds ten numbers a margin
    rows = max(1, min(8192, memory_mb * 2**20 // per_sample))
    return [slice(start, min(start + rows, n)) for start in range(0, n, rows)]
