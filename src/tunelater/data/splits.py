"""What training and scoring need of data: inputs by index, targets, weights, in three splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from tunelater.problems import InputError, Problems

UNKNOWN = -1
"""The target of a sample without a label, where there may be such."""


class Split(Protocol):
    """N labelled samples."""

    @property
    def target(self) -> Tensor:
        """(N,) class indices, int64."""

    @property
    def weight(self) -> Tensor | None:
        """(N,) non-negative sample weights, float32, or None where all are one."""

    def __len__(self) -> int: ...

    def inputs(self, index: Tensor | slice, noise: int | None = None) -> Tensor:
        """The network's inputs of some samples; in training `noise` is the seed of what augments them."""

    def to(self, device: torch.device) -> Split:
        """The same split with what fits held on a device."""

    def take(self, index: Tensor) -> Split:
        """Some of the samples, in the order of their indices."""


@runtime_checkable
class Fetching(Split, Protocol):
    """A split that fetches inputs from the host: its indices are best there, and it fetches while the device works."""

    def expect(self, index: Tensor) -> None:
        """The inputs of these samples will be asked for next."""


@dataclass(frozen=True)
class TensorSplit:
    """Samples whose inputs are one tensor: preprocessed tables, or anything else that fits in memory.

    Args:
        x: (N, ...) inputs, finite float32 (or integers, for a network that takes them).
        target: (N,) class indices, int64.
        weight: (N,) non-negative sample weights, or None.

    Raises:
        InputError: shapes or types that do not fit, inputs or weights that are not finite, negative targets or weights.
    """

    x: Tensor
    target: Tensor
    weight: Tensor | None = None

    def __post_init__(self) -> None:
        problems = Problems()
        problems.add(*problems_of_labels(len(self.x), self.target, self.weight))
        problems.check(self.x.dtype != torch.float64, "inputs must be float32, got float64: convert them with .float()")
        problems.check(
            not self.x.is_floating_point() or bool(torch.isfinite(self.x).all()),
            "inputs must be finite; impute or remove what is not",
        )
        problems.raise_if_any()

    def __len__(self) -> int:
        return len(self.x)

    def inputs(self, index: Tensor | slice, noise: int | None = None) -> Tensor:
        return self.x[index]

    def take(self, index: Tensor) -> TensorSplit:
        return TensorSplit(self.x[index], self.target[index], None if self.weight is None else self.weight[index])

    def to(self, device: torch.device) -> TensorSplit:
        weight = None if self.weight is None else self.weight.to(device)
        return TensorSplit(self.x.to(device), self.target.to(device), weight)


def problems_of_labels(n: int, target: Tensor, weight: Tensor | None) -> list[str]:
    """What is wrong with the targets and weights of `n` inputs."""
    problems = Problems()
    problems.check(n > 0, "a split needs samples, got none")
    problems.check(target.shape == (n,), f"{n} inputs need {n} targets, got shape {tuple(target.shape)}")
    problems.check(target.dtype == torch.int64, f"targets are class indices, int64, got {target.dtype}")
    negative = int((target < 0).sum())
    problems.check(not negative, f"targets are class indices from 0 on, got {negative} below zero")
    if weight is not None:
        problems.check(weight.shape == (n,), f"{n} inputs need {n} weights, got {tuple(weight.shape)}")
        sound = bool(torch.isfinite(weight).all()) and bool((weight >= 0).all())
        problems.check(sound, "sample weights must be finite and not negative")
    return list(problems)


@dataclass(frozen=True)
class Splits:
    """Samples to train on, to choose on, and to report on; the last may be missing."""

    train: Split
    validation: Split
    test: Split | None = None


def class_counts(split: Split, n_classes: int = 2) -> list[float]:
    """The total weight of each class.

    Raises:
        InputError: a target beyond the last class.
    """
    largest = int(split.target.max())
    if largest >= n_classes:
        raise InputError(f"{n_classes} classes have targets 0 to {n_classes - 1}, got {largest}")
    weight = torch.ones(len(split), device=split.target.device) if split.weight is None else split.weight
    counts = torch.zeros(n_classes, dtype=torch.float64, device=weight.device)
    return counts.index_add_(0, split.target, weight.double()).tolist()
