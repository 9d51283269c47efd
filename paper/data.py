"""The data of a trial: the paper's datasets and some tables, divided, with an identity."""

from __future__ import annotations

import functools
import hashlib
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import make_classification

from tunelater import demo
from tunelater.config import Config, ImagesConfig
from tunelater.data import benchmarks
from tunelater.data.decoding import cache_images
from tunelater.data.images import ImageSplit, resized
from tunelater.data.imbalance import subsample
from tunelater.data.splits import Splits
from tunelater.data.table_form import prepare_table
from tunelater.problems import DoubtfulInputWarning, InputError, did_you_mean

SEED = 0
"""Of the division and the sub-sampling: seeds of trials are those of the weights and the order of samples, as in the
paper, so that scores of several seeds are of the same test samples."""

Table = pd.DataFrame | Path


def _synthetic(folder: Path) -> pd.DataFrame:
    x, y = make_classification(
        3000, 8, n_informative=5, n_redundant=0, weights=[0.95], class_sep=0.8, flip_y=0.01, random_state=0
    )
    return pd.DataFrame(x.round(6), columns=[f"x{i}" for i in range(8)]).assign(target=np.where(y, "yes", "no"))


def _hypothyroid(folder: Path) -> pd.DataFrame:
    return demo.thyroid()


def _file(name: str) -> Callable[[Path], Path]:
    return lambda folder: next((p for p in (folder / name, folder / "tables" / name) if p.exists()), folder / name)


@dataclass(frozen=True)
class _TableSource:
    table: Callable[[Path], Table]
    target: str
    positive: str
    header: bool = True


TABLES: Mapping[str, _TableSource] = {
    "synthetic": _TableSource(_synthetic, "target", "yes"),
    "hypothyroid": _TableSource(_hypothyroid, demo.TARGET, demo.POSITIVE),
    "mammography": _TableSource(_file("mammography.csv"), "column_7", "1", header=False),
    "wine_quality": _TableSource(_file("wine_quality.csv"), "Class", "1"),
    "abalone_19": _TableSource(_file("abalone_19.csv"), "Class", "1"),
}
"""Tables by name: one made up, one of a package, and files in the folder of data."""


@dataclass(frozen=True, eq=False)
class Data:
    """Samples to train on, to choose on and to report on."""

    splits: Splits
    fingerprint: str
    """Of the samples and of how they are divided."""
    shape: Mapping[str, Any] = field(default_factory=dict)
    """What a network must know of the samples."""

    @property
    def sizes(self) -> dict[str, list[int]]:
        """Samples of class 0 and 1 of each split."""
        splits = {"train": self.splits.train, "validation": self.splits.validation, "test": self.splits.test}
        return {name: torch.bincount(s.target, minlength=2).tolist() for name, s in splits.items() if s is not None}


def names() -> list[str]:
    """Datasets that `load` knows."""
    return [*benchmarks.DATASETS, *TABLES]


@functools.lru_cache(maxsize=4)
def load(dataset: str, beta: float | None, images: ImagesConfig | None, protocol: str, folder: Path) -> Data:
    """The data of trials, kept for the next ones of a process.

    Args:
        images: the size and normalisation of a dataset of images.
        protocol: "held-out", or "paper" to train on all but the test part and to choose on that.
        folder: holds the datasets, each as its owners ship it, or in a folder of its name or kind.

    Raises:
        InputError: an unknown dataset, or files that are missing or not as they should be.
    """
    if dataset in TABLES:
        return _table(dataset, beta, protocol, folder)
    if dataset not in benchmarks.DATASETS:
        raise InputError(f"there is no dataset {dataset!r}{did_you_mean(dataset, names())}")
    assert images is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        parts = benchmarks.dataset(dataset, _place(dataset, folder), seed=SEED).parts(
            beta, seed=SEED, protocol=protocol
        )
    train, validation = (_images(part, images, folder) for part in (parts.train, parts.validation))
    test = validation if parts.chosen_on_test else _images(parts.test, images, folder)
    told = f"{parts.source['digest']} {beta} {protocol} {SEED} {parts.train.digest}"
    return Data(Splits(train, validation, test), hashlib.sha256(told.encode()).hexdigest())


def load_for(dataset: str, beta: float | None, config: Config, protocol: str, folder: Path) -> Data:
    """The data that a config is trained on."""
    return load(dataset, beta, config.images, protocol, folder)


def _place(dataset: str, folder: Path) -> Path:
    """The folder of a dataset: one of its name or kind inside `folder`, or that itself."""
    kind = dataset.partition("-")[0]
    spellings = [dataset, kind, {"cifar100": "cifar-100-household"}.get(kind, kind)]
    return next((folder / name for name in spellings if (folder / name).is_dir()), folder)


def _images(part: benchmarks.LabelledImages, config: ImagesConfig, folder: Path) -> ImageSplit:
    target = torch.from_numpy(part.target)
    if part.images is None:
        assert config.size is not None
        cache = Path(os.environ.get("TUNELATER_CACHE", folder / ".cache"))
        return ImageSplit(cache_images(part.paths or (), cache, size=config.size), target, config)  # type: ignore[arg-type]
    pixels = torch.from_numpy(np.array(part.images))
    if config.size is not None and pixels.shape[-1] != config.size:  # once, rather than in every step
        pixels = resized(pixels, config.size).round().clamp(0, 255).to(torch.uint8)
    return ImageSplit(pixels, target, config)


def _table(dataset: str, beta: float | None, protocol: str, folder: Path) -> Data:
    source = TABLES[dataset]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        prepared = prepare_table(
            source.table(folder), target=source.target, positive=source.positive, header=source.header
        )
    rows = prepared.rows((0.6, 0.2, 0.2), SEED)
    if protocol == "paper":
        rows["train"], rows["validation"] = np.sort(np.concatenate([rows["train"], rows["validation"]])), rows["test"]
    if beta is not None:
        rows["train"] = rows["train"][subsample(prepared.target[rows["train"]], beta, seed=SEED)]
    form, samples = prepared.fitted(rows["train"], Config())
    taken = {name: samples.take(torch.from_numpy(some)) for name, some in rows.items()}
    digest = hashlib.sha256(prepared.fingerprint.encode())
    for some in rows.values():
        digest.update(some.tobytes())
    return Data(Splits(taken["train"], taken["validation"], taken["test"]), digest.hexdigest(), form.shape)
