"""Images as a model takes them; see `data/forms.py`.

They come as a folder for each class, as a list of paths and labels (CSV or Parquet), or as one of the paper's datasets.
Where there are several classes, one is the positive and the others are the negatives together.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeGuard

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray

from tunelater.config import Config, ImagesConfig
from tunelater.data import benchmarks
from tunelater.data.benchmarks import HELD_OUT, Classes, LabelledImages
from tunelater.data.cells import as_cells, one_array, some_of, spelling_of, words_of
from tunelater.data.decoding import (
    MAX_PIXELS,
    Decoded,
    Depths,
    cache_images,
    decode_all,
    digests,
    equal_images,
    joined_groups,
)
from tunelater.data.forms import Data, FieldData, Labelled, NewRows
from tunelater.data.images import ImageSplit
from tunelater.data.imbalance import OWN_FRACTIONS, split_rows
from tunelater.data.reading import open_table, read_table
from tunelater.data.splits import UNKNOWN
from tunelater.data.tables import named_columns, no_csv_columns
from tunelater.problems import DoubtfulInputWarning, InputError, Problems, did_you_mean

PROTOCOLS = benchmarks.PROTOCOLS
PIECE = 256
"""Images that predicting holds at once."""
PATH = "path"
"""The column of image files, unless told otherwise."""
ENOUGH = "add images (equal ones count as one), or keep none to report on: --split 0.8,0.2,0 (fractions)"
"""What helps where a class has too few images to divide."""
MOST_TOLD = 6
"""Images that a message names."""


@dataclass(frozen=True)
class ImageSource:
    """Where images have their labels, and how their files are read.

    Args:
        dataset: one of `benchmarks.DATASETS`, in the folder of data; None for a folder for each class, or a list.
        download: fetch the dataset into that folder first, where it can be.
        protocol: of a dataset: "held-out", or "paper" to choose on the test part, as the paper did.
        path: of a list, the column of the image files; by default the one that the run was fitted with, or "path".
        folder: where those files are; by default the folder of the list.
        group: of a list, the column of what a split must not tear apart: a patient, a lesion.
        unlabelled: whether images without a row in the list may lie beside those with one, when fitting.
        cache: where decoded images are kept; by default the user's cache folder.
        on_bad: what to do about files that cannot be read: "raise", or "skip" to go on without them.
        max_pixels: the most that a file may have: what is larger is told as one that cannot be read.
        progress: called with the number of files decoded and of all.
    """

    dataset: str | None = None
    download: bool = False
    protocol: str = "held-out"
    path: str | None = None
    folder: str | Path | None = None
    group: str | None = None
    unlabelled: bool = False
    cache: str | Path | None = None
    on_bad: Literal["raise", "skip"] = "raise"
    max_pixels: int = MAX_PIXELS
    progress: Callable[[int, int], None] | None = None

    def problems(self) -> list[str]:
        problems = Problems()
        problems.check(
            self.protocol in PROTOCOLS,
            f"there is no protocol {self.protocol!r}{did_you_mean(self.protocol, PROTOCOLS)}",
        )
        problems.check(
            self.dataset is not None or self.protocol == "held-out",
            "only the paper's datasets have a test part to choose on: protocol 'paper' needs a dataset",
        )
        problems.check(self.dataset is not None or not self.download, "download needs a dataset")
        problems.check(self.on_bad in ("raise", "skip"), f"on_bad is 'raise' or 'skip', got {self.on_bad!r}")
        problems.check(self.max_pixels >= 1, f"max_pixels must be 1 or more, got {self.max_pixels}")
        return list(problems)

    def of_a_list(self, target: str | None) -> str:
        """What is set that only a list of images has a use for, by its name on the command line and here."""
        named: dict[str, Any] = {
            "--paths (path)": self.path,
            "--images (folder)": self.folder,
            "--group (group)": self.group,
        }
        named |= {"--unlabelled (unlabelled)": self.unlabelled, "--target (target)": target}
        return ", ".join(name for name, value in named.items() if value)

    def told(self) -> str:
        """What is set that a table has no use for, as `of_a_list` names it."""
        reading = {
            "--on-bad (on_bad)": self.on_bad != "raise",
            "--max-pixels (max_pixels)": self.max_pixels != MAX_PIXELS,
            "--cache (cache)": self.cache is not None,
        }
        return ", ".join(filter(None, [self.of_a_list(None), *(name for name, given in reading.items() if given)]))

    def check_is_for(self, data: str | Path, target: str | None = None) -> None:
        """That nothing is set which data of this form have no use for.

        Raises:
            InputError: settings for a list, and no list.
        """
        if Path(data).is_dir() and (told := self.of_a_list(target)):
            raise InputError(
                f"{data} is a folder, whose images have labels without a list: {told} is for a list (CSV or Parquet)"
            )

    @property
    def cache_folder(self) -> Path:
        if self.cache is not None:
            return Path(self.cache)
        import platformdirs

        return Path(platformdirs.user_cache_dir("tunelater", appauthor=False)) / "images"


# ---------------------------------------------------------------------------------------------------------------- found


@dataclass(frozen=True, eq=False)
class _Found:
    """Labelled images before any file is opened."""

    images: LabelledImages
    classes: Classes
    in_test: NDArray[np.bool_] | None = None
    """Which are the owners' test part."""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    columns: Mapping[str, NDArray[Any]] = dataclasses.field(default_factory=dict)
    """Of a list, the columns that were asked for, by name."""


def _found(data: Data, target: str | None, positive: str | None, source: ImageSource, seed: int) -> _Found:
    if isinstance(data, pd.DataFrame):
        raise InputError("images come as a folder, or a list of paths and labels, got a data frame; write it down")
    source.check_is_for(data, target)
    if source.dataset is not None:
        return _dataset(Path(data), positive, source, seed)
    folder = Path(data).is_dir()
    if is_one_image(data):
        raise InputError(one_image(data))
    problems = Problems()
    problems.check(positive is not None, "say which class is the rare event: --positive (positive)")
    problems.check(folder or target is not None, f"{data}: say which column has the labels: --target (target)")
    problems.raise_if_any()
    assert positive is not None
    if folder:
        return _Found(*benchmarks.labelled_folder(data, positive=positive))
    assert target is not None
    images, classes = benchmarks.labelled_table(
        data,
        positive=positive,
        path=source.path or PATH,
        target=target,
        group=source.group,
        folder=source.folder,
        unlabelled=source.unlabelled,
    )
    return _Found(images, classes)


def is_one_image(data: Data) -> TypeGuard[str | Path]:
    """Whether data are a file that is an image by its name."""
    return isinstance(data, str | Path) and benchmarks.is_image(Path(data)) and not Path(data).is_dir()


def one_image(data: str | Path) -> str:
    """Why one image is nothing to learn from, or to choose or assess on."""
    return (
        f"{data} is one image, without a label: give a folder with one folder of images for each class, or a list of "
        "paths and labels (CSV or Parquet, with --paths COLUMN)"
    )


def _dataset(folder: Path, positive: str | None, source: ImageSource, seed: int) -> _Found:
    assert source.dataset is not None
    benchmark = benchmarks.dataset(source.dataset, folder, seed=seed, download=source.download)
    if positive not in (None, benchmark.classes[1]):
        raise InputError(f"the positives of {benchmark.name} are {benchmark.classes[1]!r}, got {positive!r}")
    in_test = np.repeat([False, True], [len(benchmark.train), len(benchmark.test)])
    facts = {"dataset": source.dataset, "divided": benchmark.split, "shared_groups": benchmark.shared_groups}
    negative, positive = benchmark.classes
    return _Found(benchmark.whole, Classes(positive, (negative,)), in_test, facts)


@dataclass(frozen=True, eq=False)
class _Read:
    """The images of those found that could be read."""

    found: _Found
    pixels: Any
    digests: NDArray[np.str_]

    @cached_property
    def hashes(self) -> NDArray[np.uint64]:
        return np.array([[int(digest[:16], 16)] for digest in self.digests], np.uint64)

    @cached_property
    def fingerprint(self) -> str:
        """Of the pixels and labels in their order; not of the names of files."""
        digest = hashlib.sha256(self.found.images.target.astype("<i8").tobytes())
        digest.update("".join(self.digests).encode())
        if self.found.in_test is not None:
            digest.update(self.found.in_test.tobytes())
        return f"sha256:{digest.hexdigest()}"

    def split(self, config: ImagesConfig) -> ImageSplit:
        pixels = torch.from_numpy(self.pixels) if isinstance(self.pixels, np.ndarray) else self.pixels
        return ImageSplit(pixels, torch.from_numpy(self.found.images.target), config)


def _read(found: _Found, config: ImagesConfig, source: ImageSource) -> _Read:
    images = found.images
    if images.images is not None:
        return _Read(found, images.images, digests(images.images))
    if config.size is None:
        raise InputError("image files need a size to be decoded at: images.size (--size)")
    assert images.paths is not None
    cached = cache_images(
        images.paths,
        source.cache_folder,
        size=config.size,
        bits=config.bits,
        max_pixels=source.max_pixels,
        on_bad=source.on_bad,
        progress=source.progress,
    )
    in_test = None if found.in_test is None else found.in_test[cached.kept]
    columns = {name: values[cached.kept] for name, values in found.columns.items()}
    found = dataclasses.replace(found, images=images.take(cached.kept), in_test=in_test, columns=columns)
    return _Read(found, cached, cached.digests)


# ------------------------------------------------------------------------------------------------------------- prepared


@dataclass(frozen=True, eq=False)
class PreparedImages:
    """Images to fit on: found, labelled, decoded."""

    read: _Read
    config: ImagesConfig
    source: ImageSource
    column: str | None
    """Of the labels, where they come from a CSV file."""

    @property
    def target(self) -> NDArray[np.int64]:
        return self.read.found.images.target

    @property
    def labels(self) -> tuple[str, str]:
        return self.read.found.classes.labels

    @property
    def fingerprint(self) -> str:
        return self.read.fingerprint

    @property
    def hashes(self) -> NDArray[np.uint64]:
        return self.read.hashes

    @property
    def facts(self) -> Mapping[str, Any]:
        images = self.read.found.images
        return {
            "name": images.name,
            "grouped": images.groups is not None,
            "protocol": self.source.protocol,
            "chosen_on_test": self.source.protocol == "paper",
            **self.read.found.facts,
        }

    @cached_property
    def _groups(self) -> NDArray | None:
        """What a split must not tear apart: the groups given, and equal images."""
        equal, given = equal_images(self.read.digests), self.read.found.images.groups
        if len(np.unique(equal)) == len(equal):
            return given
        return equal if given is None else joined_groups(given, equal)

    def rows(self, fractions: Sequence[float] | None, seed: int) -> dict[str, NDArray[np.int64]]:
        in_test = self.read.found.in_test
        if in_test is None:
            return split_rows(
                self.target,
                fractions or OWN_FRACTIONS,
                seed=seed,
                groups=self._groups,
                noun="image",
                remedy=None if self.read.found.images.groups is not None else ENOUGH,
            )
        return benchmarks.parted_rows(
            self.target,
            in_test,
            protocol=self.source.protocol,
            validation=HELD_OUT if fractions is None else fractions[1] / (fractions[0] + fractions[1]),
            seed=seed,
            groups=self._groups,
            remedy=benchmarks.WHOLE,
        )

    def problems(self, rows: Mapping[str, NDArray[np.int64]]) -> list[str]:
        self._warn_of_equal(rows)
        return []

    def _warn_of_equal(self, rows: Mapping[str, NDArray[np.int64]]) -> None:
        equal = equal_images(self.read.digests)
        counts = np.bincount(equal)
        told = []
        if (counts > 1).any():
            n, kinds = int(counts[counts > 1].sum()), int((counts > 1).sum())
            told.append(f"{n:,} images are copies of one another ({kinds:,} different ones); copies stay in one split")
        positives = np.bincount(equal, self.target)
        if (both := (positives > 0) & (positives < counts)).any():
            n, some = int(counts[both].sum()), self._some_of(equal, both)
            told.append(f"{n:,} equal images have both labels: correct them, first {some}")
        if self.source.protocol != "paper":
            shared = np.isin(equal[rows["test"]], np.concatenate([equal[rows["train"]], equal[rows["validation"]]]))
            if shared.any():
                told[:1] = [
                    f"{int(shared.sum()):,} test images equal images that were trained or chosen on; results will look "
                    "better than they are"
                ]
        for text in told:
            warnings.warn(text, DoubtfulInputWarning, stacklevel=4)

    def _some_of(self, equal: NDArray[np.int64], kinds: NDArray[np.bool_]) -> str:
        """A few of the images of these kinds with their labels, equal ones side by side."""
        images, rows = self.read.found.images, np.flatnonzero(kinds[equal])
        first = rows[np.argsort(equal[rows], kind="stable")][:MOST_TOLD]
        names = [f"number {i + 1}" if images.paths is None else str(images.paths[i]) for i in first]
        told = [f"{name} ({self.labels[k]})" for name, k in zip(names, self.target[first], strict=True)]
        return ", ".join(told) + (f" and {len(rows) - len(first):,} more" if len(rows) > len(first) else "")

    def fitted(self, train: NDArray[np.int64], config: Config) -> tuple[ImageForm, ImageSplit]:
        assert config.images is not None
        form = ImageForm(
            config.images,
            self.labels,
            self.source.dataset,
            self.source.path or PATH,
            self.column,
            config.seed,
            self.read.found.classes.negatives,
        )
        return form, self.read.split(config.images)


@dataclass(frozen=True, eq=False)
class FoundImages:
    """Labelled images to fit on, of which no file was opened yet."""

    found: _Found
    source: ImageSource
    column: str | None


def find_images(
    data: Data, *, target: str | None, positive: str | None, source: ImageSource, seed: int = 0
) -> FoundImages:
    """Images to fit on, and their labels; nothing is decoded.

    Args:
        data: a folder with one for each class, a list of paths and labels, or the folder of a dataset.
        target: of a list, the column of the labels.
        positive: the label of the rare event; datasets know theirs.
        seed: of the split of a dataset whose owners give none.

    Raises:
        InputError: everything wrong with the source and the labels.
    """
    problems = Problems()
    problems.add(*source.problems())
    try:
        found = _found(data, target, positive, source, seed)
    except InputError as error:
        problems.add(*error.problems)
    problems.raise_if_any()
    is_list = source.dataset is None and isinstance(data, str | Path) and not Path(data).is_dir()
    return FoundImages(found, source, target if is_list else None)


def prepare_images(images: FoundImages, config: ImagesConfig) -> PreparedImages:
    """Images to fit on, decoded at the size that a config says.

    Raises:
        InputError: files that cannot be read, or no size to decode them at.
    """
    return PreparedImages(_read(images.found, config, images.source), config, images.source, images.column)


# ----------------------------------------------------------------------------------------------------------------- form


@dataclass(frozen=True, eq=False)
class ImageForm:
    """How images become inputs, and where a run's own had their labels from.

    Attributes:
        images: size and normalisation (and augmentation, which only training uses).
        labels: of the negatives and of the positives.
        dataset: the dataset that was trained on, if it was one.
        path: of a list, the column of image files.
        target: of a list, the column of labels.
        seed: of a dataset's split into training and test, where its owners give none.
        negatives: the classes that the negatives are of; the label of the negatives, where it is one class.
    """

    name: ClassVar[str] = "images"
    noun: ClassVar[str] = "image"
    equal_by_chance: ClassVar[bool] = False

    images: ImagesConfig
    labels: tuple[str, str]
    dataset: str | None = None
    path: str = PATH
    target: str | None = None
    seed: int = 0
    negatives: tuple[str, ...] = ()

    @property
    def shape(self) -> Mapping[str, Any]:
        return {}

    @property
    def told(self) -> str:
        what = "images as they are" if self.images.size is None else f"images of {self.images.size} pixels"
        return f"{what}, {self.labels[1]!r} against {_told_classes(*(self.negatives or self.labels[:1]))}"

    def digest(self) -> str:
        what: list[Any] = [self.images.size, list(self.images.mean), list(self.images.std), list(self.labels)]
        if self.images.bits is not None:
            what.append({"bits": self.images.bits})
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        told: dict[str, Any] = {
            "labels": list(self.labels),
            "dataset": self.dataset,
            "path": self.path,
            "target": self.target,
        }
        told |= {"seed": self.seed, "negatives": list(self.negatives)}
        (folder / "images.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, images: ImagesConfig | None) -> ImageForm:
        assert images is not None
        told = json.loads((folder / "images.json").read_text(encoding="utf-8"))
        negative, positive = told["labels"]
        of_list = (told["dataset"], told["path"], told["target"])
        return cls(images, (negative, positive), *of_list, told["seed"], tuple(told.get("negatives", ())))

    def labelled(self, data: Data, reading: ImageSource | None = None, columns: Sequence[str] = ()) -> Labelled:
        if reading is not None and isinstance(data, str | Path):
            reading.check_is_for(data)
        source = self._source(data, reading)
        target: str | None = self.target if self.target is not None else "label"
        positive = None if source.dataset is not None else self.labels[1]
        if isinstance(data, str | Path) and Path(data).is_dir():
            source, target = dataclasses.replace(source, path=None, unlabelled=False), None
        found = _found(data, target, positive, source, self.seed)
        self._check_classes(data, found.classes)
        found = dataclasses.replace(found, columns=_columns(data, columns))
        read = _read(found, self.images, source)
        return Labelled(read.split(self.images), read.hashes, read.fingerprint, read.found.columns)

    def field(self, data: Data, reading: ImageSource | None = None) -> FieldData:
        """A folder with one for each of the run's classes, a list with or without a column of labels, or any folder of
        image files, which have none."""
        if isinstance(data, pd.DataFrame):
            raise InputError("images come as a folder, or a list of paths, got a data frame; write it down")
        if Path(data).is_dir() and (self.dataset is not None or self._has_classes(Path(data))):
            whole = self.labelled(data, reading)
            return FieldData(
                whole.samples, whole.samples.target.numpy().astype(np.int8), whole.hashes, whole.fingerprint
            )
        if reading is not None:
            reading.check_is_for(data)
        source, column = self._reading(reading), self.target if self.target is not None else "label"
        is_list = not Path(data).is_dir() and not is_one_image(data)
        listed = [column] if is_list and column in open_table(data, True).names else []
        paths, kept = _files_of(Path(data), listed, False, source)
        target = self._labels_there_are(data, kept[column]) if listed else np.full(len(paths), UNKNOWN, np.int64)
        images = LabelledImages(
            str(data), np.zeros(len(paths), np.int64), paths=tuple(paths), groups=target.astype(str)
        )
        read = _read(_Found(images, Classes(self.labels[1], self.negatives or self.labels[:1])), self.images, source)
        assert read.found.images.groups is not None  # the labels of those that could be read
        return FieldData(
            read.split(self.images), read.found.images.groups.astype(np.int8), read.hashes, read.fingerprint
        )

    def _has_classes(self, folder: Path) -> bool:
        """Whether a folder has one for the positives, and one or more for the negatives."""
        return (folder / self.labels[1]).is_dir() and any(
            (folder / name).is_dir() for name in (*self.negatives, self.labels[0])
        )

    def _labels_there_are(self, data: Data, column: pa.ChunkedArray) -> NDArray[np.int64]:
        words, codes = words_of(as_cells(one_array(column)))
        meaning = {spelling_of(name): 0 for name in (*self.negatives, self.labels[0])}
        meaning[spelling_of(self.labels[1])] = 1
        if other := [repr(word) for word in words if word not in meaning]:
            raise InputError(
                f"{data} has labels that the run does not know: {some_of(other)}; they are "
                f"{_told_classes(*(self.negatives or self.labels[:1]), self.labels[1])}, or empty where not known"
            )
        return np.array([*(meaning[word] for word in words), UNKNOWN])[codes]

    def _check_classes(self, data: Data, classes: Classes) -> None:
        """Some of the run's negatives are enough: not every kind of them is in every lot."""
        known = {spelling_of(name) for name in (*self.negatives, self.labels[0])}
        same = spelling_of(classes.positive) == spelling_of(self.labels[1])
        if not same or any(spelling_of(name) not in known for name in classes.negatives):
            raise InputError(
                f"{data} has the classes {_told_classes(*classes.negatives, classes.positive)}; the run was fitted on "
                f"{_told_classes(*(self.negatives or self.labels[:1]), self.labels[1])}"
            )

    def _reading(self, reading: ImageSource | None) -> ImageSource:
        """Images without a label are left alone where nothing is learned from the others."""
        source = dataclasses.replace(reading if reading is not None else ImageSource(), unlabelled=True)
        return source if source.path is not None else dataclasses.replace(source, path=self.path)

    def _source(self, data: Data, reading: ImageSource | None) -> ImageSource:
        """The reading with what the run knows of its own data; a folder with one for each class is just that."""
        source = self._reading(reading)
        folder = Path(data) if isinstance(data, str | Path) else None
        by_class = folder is not None and all((folder / label).is_dir() for label in self.labels)
        if source.dataset is None and self.dataset is not None and folder is not None and folder.is_dir():
            return source if by_class else dataclasses.replace(source, dataset=self.dataset)
        return source

    def stream(
        self, data: str | Path, keep: Sequence[str], for_csv: bool, reading: ImageSource | None = None
    ) -> ImageFiles:
        if reading is not None:
            reading.check_is_for(data)
        source = self._reading(reading)
        if self.images.size is None:
            raise InputError("this run takes images as they are, and not files; fit again with a size (images.size)")
        if Path(data).is_dir() and benchmarks.in_batches(data):
            raise InputError(
                f"{data} holds CIFAR's batches, and predicting takes image files: give a folder of them, a list or "
                "one. How good a point is on the dataset's own images is what `tunelater evaluate` says"
            )
        paths, kept = _files_of(Path(data), keep, for_csv, source)
        return ImageFiles(self.images, paths, kept, source)


def _columns(data: Data, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Columns of a list of images, in the order of its rows."""
    if not names:
        return {}
    assert isinstance(data, str | Path)
    if Path(data).is_dir():
        told = ", ".join(map(repr, names))
        raise InputError(f"{data} is a folder of images, without columns, got {told}; give a list (CSV or Parquet)")
    return named_columns(read_table(data), names)


def _told_classes(*names: str) -> str:
    return " and ".join(map(repr, names)) if len(names) < 3 else some_of([repr(name) for name in names], 20)


def _files_of(data: Path, keep: Sequence[str], for_csv: bool, source: ImageSource) -> tuple[list[Path], pa.Table]:
    """The image files of a folder at any depth, of a list, or just one, and a table of what to hand on about each."""
    if data.is_dir() or is_one_image(data):
        if keep:
            what = "a folder of images" if data.is_dir() else "an image"
            raise InputError(f"{what} has no columns to keep, got {', '.join(keep)}; give a list (CSV or Parquet)")
        if not data.exists():
            raise InputError(f"{data}: there is no such file")
        paths = benchmarks.image_files(data) if data.is_dir() else [data]
        place = data if data.is_dir() else data.parent
        names = [os.fsencode(path.relative_to(place).as_posix()).decode("utf-8", "replace") for path in paths]
        return paths, pa.table({"path": pa.array(names, pa.string())})
    paths, table = benchmarks.paths_of_list(data, source.path or PATH, [*keep], folder=source.folder)
    if for_csv and (told := no_csv_columns(table.schema)):
        raise InputError(f"{data}: {problem}" for problem in told)
    return paths, table


class ImageFiles:
    """Image files in pieces, in one part; all that cannot be read are told together, at the end, as are those nearly
    black."""

    apart = False

    def __init__(self, images: ImagesConfig, paths: Sequence[Path], kept: pa.Table, source: ImageSource) -> None:
        self._images, self._paths, self._kept, self._source = images, paths, kept, source
        self.found: dict[str, str] = {}
        self._depths = Depths()

    def __len__(self) -> int:
        return 1

    @property
    def kept(self) -> pa.Schema:
        return self._kept.schema

    def part(self, index: int) -> ImageFiles:
        return self

    def absorb(self, found: dict[str, str]) -> None:
        """There is one part, which is this."""

    @property
    def sound(self) -> bool:
        return not (self.found and self._source.on_bad == "raise")

    def __iter__(self) -> Iterator[NewRows]:
        assert self._images.size is not None
        for start in range(0, len(self._paths), PIECE):
            paths = self._paths[start : start + PIECE]
            images = decode_all(paths, self._images.size, bits=self._images.bits, max_pixels=self._source.max_pixels)
            bad = {str(path): image for path, image in zip(paths, images, strict=True) if isinstance(image, str)}
            self.found |= bad
            for path, image in zip(paths, images, strict=True):
                if isinstance(image, Decoded):
                    self._depths.add(path, image.used)
            if len(bad) < len(images) and self.sound:
                yield NewRows(*self._piece(start, images))

    def raise_if_any(self) -> None:
        if not self.sound or (self.found and len(self.found) == len(self._paths)):
            skip = "" if self.sound else "; repair or remove them, or skip them: --on-bad skip (on_bad='skip')"
            raise InputError(f"{self._told()}{skip}")

    def _piece(self, start: int, images: Sequence[Decoded | str]) -> tuple[ImageSplit, pa.Table]:
        whole = {start + i: image.pixels for i, image in enumerate(images) if isinstance(image, Decoded)}
        pixels = torch.from_numpy(np.stack([*whole.values()]))
        split = ImageSplit(pixels, torch.zeros(len(whole), dtype=torch.int64), self._images)
        return split, self._kept.take(pa.array([*whole]))

    def doubts(self) -> list[str]:
        left_out = [f"{self._told()}; the result is without them"] if self.found else []
        return [*left_out, *self._depths.doubts()]

    def _told(self) -> str:
        first = ", ".join(f"{path} ({problem})" for path, problem in list(self.found.items())[:10])
        more = f" and {len(self.found) - 10:,} more" if len(self.found) > 10 else ""
        return f"every image file must be readable, got {len(self.found):,} of {len(self._paths):,} not: {first}{more}"
