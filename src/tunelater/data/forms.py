"""What a model's data are, a table or images: the part of the workflow that differs between them.

`fit` starts from `Prepared` data, checked and labelled but not divided, and learns from the training samples how later
data become inputs of the network. That is a `Form`, which the run keeps: it reads labelled data to choose and to assess
on, and new data to predict on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from tunelater.config import Config, ImagesConfig
from tunelater.data.splits import Split

Data = str | Path | pd.DataFrame


@dataclass(frozen=True, eq=False)
class Labelled:
    """N labelled samples, and what they are recognised by.

    Args:
        samples: inputs, targets and weights.
        hashes: (N, 1 or more) uint64. The first is the same for samples that are the same to the network. Further ones
            are the same, one or another, for copies of a sample with rounded numbers.
        fingerprint: of all samples in their order.
        columns: (N,) columns that were asked for by name, numbers or text.
    """

    samples: Split
    hashes: NDArray[np.uint64]
    fingerprint: str
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class FieldData:
    """N samples from where a model is used, of which all, some or none have labels.

    Args:
        samples: inputs and weights; their targets mean nothing.
        target: (N,) int8: 0, 1, or `splits.UNKNOWN` where there is no label.
        hashes, fingerprint: as in `Labelled`.
    """

    samples: Split
    target: NDArray[np.int8]
    hashes: NDArray[np.uint64]
    fingerprint: str


class NewRows(NamedTuple):
    """A piece of new samples."""

    samples: Split
    """Where they come without labels, their targets mean nothing."""
    kept: pa.Table
    """Columns to hand on."""
    hashes: NDArray[np.uint64] | None = None
    """As in `Labelled`, of samples with labels."""
    first: int = 0
    """How many samples came before these."""


class Part(Protocol):
    """New samples that can be read apart from the others, by another process too."""

    found: Any
    """What has turned up in its pieces so far, for `Stream.absorb`."""

    def __iter__(self) -> Iterator[NewRows]:
        """Its pieces, up to the first in which anything is wrong."""


class Stream(Protocol):
    """New samples in parts, each of them in pieces; what is wrong with any is told once all are read."""

    @property
    def apart(self) -> bool:
        """Whether other processes can read the parts."""

    @property
    def kept(self) -> pa.Schema:
        """The columns that are handed on."""

    def __len__(self) -> int:
        """How many parts there are."""

    def part(self, index: int) -> Part:
        """One of them."""

    def absorb(self, found: Any) -> None:
        """Take in what a part found, in the order of the parts."""

    @property
    def sound(self) -> bool:
        """Whether nothing wrong was taken in yet."""

    def raise_if_any(self) -> None:
        """Raise an InputError of all that is wrong with the parts."""

    def doubts(self) -> list[str]:
        """What was doubtful about the parts so far."""


class Form(Protocol):
    """How data become inputs of a network, as learned from the training samples."""

    name: ClassVar[str]
    noun: ClassVar[str]
    """Of one sample, in messages: row or image."""
    equal_by_chance: ClassVar[bool]
    """Whether samples of different origin can be equal, as rows of a few categories are and images are not."""

    @property
    def labels(self) -> tuple[str, str]:
        """Of the negatives and of the positives."""

    @property
    def shape(self) -> Mapping[str, Any]:
        """What the network must know of the inputs; see `models.build`."""

    @property
    def told(self) -> str:
        """What was learned from, in a few words."""

    def digest(self) -> str:
        """Of all that the inputs depend on: values, not files."""

    def save(self, folder: Path) -> None:
        """Write what `load` needs into a run folder."""

    @classmethod
    def load(cls, folder: Path, images: ImagesConfig | None) -> Self:
        """The form in a run folder. Nothing in it is executed."""

    def labelled(self, data: Data, reading: Any, columns: Sequence[str] = ()) -> Labelled:
        """Labelled data of this form, with the columns of these names, whether the model uses them or not."""

    def field(self, data: Data, reading: Any) -> FieldData:
        """Data of this form with all labels, some or none."""

    def stream(self, data: str | Path, keep: Sequence[str], for_csv: bool, reading: Any) -> Stream:
        """New data of this form, in pieces."""


class Prepared(Protocol):
    """Data to fit on, checked and labelled."""

    @property
    def target(self) -> NDArray[np.int64]:
        """(N,) classes, 0 or 1."""

    @property
    def labels(self) -> tuple[str, str]:
        """Of the negatives and of the positives."""

    @property
    def fingerprint(self) -> str:
        """As in `Labelled`."""

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """As in `Labelled`."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What else a run should note about its data, as JSON types."""

    def rows(self, fractions: Sequence[float] | None, seed: int) -> dict[str, NDArray[np.int64]]:
        """Which samples train, choose and report; in the usual sizes where no fractions are given."""

    def problems(self, rows: Mapping[str, NDArray[np.int64]]) -> list[str]:
        """What is wrong with such splits."""

    def fitted(self, train: NDArray[np.int64], config: Config) -> tuple[Form, Split]:
        """The form that the training samples teach, and all samples in it."""
