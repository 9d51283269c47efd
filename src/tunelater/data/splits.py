"""What training and scoring need of data: inputs by index, targets and weights, in splits; or a loader's batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, WeightedRandomSampler

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


Loadable = DataLoader[Any] | Dataset[Any]
"""Samples as PyTorch's own loaders give them: see `labelled_batches`."""

LABELS = ("labels", "label")
"""The keys under which a batch that is a mapping may have its targets; Hugging Face's collators write the first."""


def is_split(data: Split | Loadable) -> TypeGuard[Split]:
    """Whether data give inputs by index, rather than batch by batch."""
    return hasattr(data, "inputs") and hasattr(data, "target")


@dataclass(frozen=True)
class Batch:
    """Samples as a loader gave them."""

    x: Any
    """What the network takes: a tensor, or a mapping of keyword arguments."""
    target: Tensor
    """(n,) class indices, int64, on the host."""
    weight: Tensor | None
    """(n,) sample weights, float32, on the host."""

    def on(self, device: torch.device) -> Any:
        """The inputs on a device."""
        return _moved(self.x, device)


def labelled_batches(data: Loadable, n_classes: int = 2, size: int = 64) -> Iterator[Batch]:
    """The batches of a `DataLoader`, or of a map-style `Dataset` (of Hugging Face's too), `size` samples each.

    A batch is a pair (inputs, targets), a triple with sample weights, or a mapping with the targets under `labels` or
    `label` and, if there are any, sample weights under `weight`; the rest of it goes to the network by keyword.

    Raises:
        InputError: a loader that shuffles, samples or drops rows, no samples, batches of another form, targets or
            weights that do not fit.
    """
    loader = data if isinstance(data, DataLoader) else _loader(data, size)
    problems = Problems()
    drawn = isinstance(loader.sampler, RandomSampler | WeightedRandomSampler)
    kind = type(loader.sampler).__name__
    problems.check(
        not drawn, f"samples to score come once each and in their order, got a loader with {kind}; use shuffle=False"
    )
    problems.check(not loader.drop_last, "all samples are to be scored, got a loader with drop_last=True; use False")
    problems.raise_if_any()
    return _checked(loader, n_classes)


def _loader(data: Dataset[Any], size: int) -> DataLoader[Any]:
    if isinstance(data, tuple):
        raise InputError(
            f"samples come as a Split, a DataLoader or a Dataset, got a tuple of {len(data)}; "
            "pass torch.utils.data.TensorDataset(inputs, targets)"
        )
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        told = f"got {type(data).__name__}"
        raise InputError(
            f"samples come as a Split, a DataLoader, or a Dataset with a length, {told}; pass a DataLoader"
        )
    if not len(data):
        raise InputError("a dataset to score needs samples, got none")
    return DataLoader(data, batch_size=size)


def _checked(loader: DataLoader[Any], n_classes: int) -> Iterator[Batch]:
    empty = True
    for raw in loader:
        batch = _batch(raw)
        problems = Problems()
        problems.add(*problems_of_labels(len(batch.target), batch.target, batch.weight))
        largest = int(batch.target.max()) if batch.target.numel() else 0
        problems.check(largest < n_classes, f"{n_classes} classes have targets 0 to {n_classes - 1}, got {largest}")
        problems.raise_if_any()
        empty = False
        yield batch
    if empty:
        raise InputError("a loader to score needs samples, got none")


def _batch(raw: Any) -> Batch:
    if isinstance(raw, Mapping):
        key = next((key for key in LABELS if key in raw), None)
        if key is None:
            raise InputError(f"a batch that is a mapping has its targets under 'labels' or 'label', got {sorted(raw)}")
        x: Any = {name: value for name, value in raw.items() if name not in (key, "weight")}
        target, weight = raw[key], raw.get("weight")
    elif isinstance(raw, tuple | list) and len(raw) in (2, 3):
        x, target, weight = raw[0], raw[1], raw[2] if len(raw) == 3 else None
    else:
        got = f"{len(raw)} of them" if isinstance(raw, tuple | list) else type(raw).__name__
        raise InputError(
            f"a batch is (inputs, targets), (inputs, targets, weights), or a mapping with labels; got {got}"
        )
    target = torch.as_tensor(target).cpu()
    whole = not target.is_floating_point() and not target.is_complex()
    weight = None if weight is None else torch.as_tensor(weight).cpu().float()
    return Batch(x, target.long() if whole else target, weight)


def _moved(x: Any, device: torch.device) -> Any:
    if isinstance(x, Mapping):
        return {name: _moved(value, device) for name, value in x.items()}
    return x.to(device) if isinstance(x, Tensor) else x
