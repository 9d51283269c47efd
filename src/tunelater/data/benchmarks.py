"""The paper's datasets, each from the files as their owners ship them: labels, pixels or paths, and splits.

Each dataset has one function; it gives a `Benchmark`: a training and a test part, as shipped, with the positives as
class 1. `Benchmark.parts` cuts a validation part from the training part and then sub-samples the positives that are
left to an imbalance ratio. The sizes are those of the paper's Table 12, as far as they can be.

Any other images come in by `image_folder` (a folder for each class) and `image_table` (a list of paths and labels);
by `labelled_folder` and `labelled_table`, before they are divided. One class is the positive, and all others together
are the negatives.

Nothing is downloaded unless asked for, and no image file is opened. Loading never runs code: the pickles of CIFAR are
checked against the owners' md5 sums, and read by an unpickler that knows arrays and nothing else.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import pickle
import warnings
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tunelater import vision
from tunelater.data.cells import UnsupportedType, absent_names, as_cells, is_text, one_array, words_of
from tunelater.data.imbalance import problems_of_beta, split_rows, subsample
from tunelater.data.reading import open_table
from tunelater.data.tables import chosen_label
from tunelater.problems import DoubtfulInputWarning, InputError, Problems, did_you_mean

PathLike = str | Path

PROTOCOLS = ("held-out", "paper")
HELD_OUT = 0.2
"""Of a training part, the share to choose on."""
WHOLE = "give all images of the dataset, as its owners ship it"
"""What helps where a dataset has too few images to divide."""
IMAGE_SUFFIXES = (
    ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
"""Still images that Pillow reads; of a moving one, the first frame."""
BESIDE_IMAGES = (
    ".cfg", ".csv", ".db", ".htm", ".html", ".ini", ".json", ".jsonl", ".log", ".md", ".parquet", ".toml", ".tsv",
    ".txt", ".xml", ".yaml", ".yml",
)  # fmt: skip
"""What lies beside images and is none; any other file that is left out is told."""

# ---------------------------------------------------------------------------------------------------------------- parts


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """N labelled images, in memory or as files.

    Args:
        name: what they are, for messages and records.
        target: (N,) classes, 0 or 1, int64.
        images: (N, 3, H, W) pixels, uint8; or None.
        paths: N image files; or None.
        groups: (N,) text: the patient or lesion of each image, which no split may tear apart; or None.

    Raises:
        InputError: shapes, types or classes that do not fit, both images and paths, or neither.
    """

    name: str
    target: np.ndarray
    images: np.ndarray | None = None
    paths: tuple[Path, ...] | None = None
    groups: np.ndarray | None = None

    def __post_init__(self) -> None:
        problems = Problems()
        n = len(self.target)
        told = f"{self.name}: {n:,} targets"
        problems.check(
            self.target.ndim == 1 and self.target.dtype == np.int64,
            f"{self.name}: targets are one int64 an image, got shape {self.target.shape} of {self.target.dtype}",
        )
        problems.check(
            bool(np.isin(self.target, (0, 1)).all()), f"{self.name}: targets are 0 or 1, got {np.unique(self.target)}"
        )
        problems.check(
            (self.images is None) != (self.paths is None), f"{self.name}: give either images or paths of files"
        )
        if self.images is not None:
            problems.check(
                self.images.ndim == 4 and self.images.shape[:2] == (n, 3) and self.images.dtype == np.uint8,
                f"{told} need uint8 images of shape ({n}, 3, H, W), got {self.images.dtype} {self.images.shape}",
            )
        if self.paths is not None:
            problems.check(len(self.paths) == n, f"{told} need as many paths, got {len(self.paths):,}")
        if self.groups is not None:
            problems.check(len(self.groups) == n, f"{told} need as many groups, got {len(self.groups):,}")
        problems.raise_if_any()

    def __len__(self) -> int:
        return len(self.target)

    @property
    def counts(self) -> tuple[int, int]:
        """The number of negatives and of positives."""
        n_positive = int(self.target.sum())
        return len(self) - n_positive, n_positive

    @cached_property
    def digest(self) -> str:
        """SHA-256 of targets, groups and pixels; of the names of files instead of their pixels.

        It is the same for the same data in another form or folder.
        """
        sha = hashlib.sha256(self.target.astype("<i8").tobytes())
        if self.images is not None:
            sha.update(np.ascontiguousarray(self.images).data)
        for texts in ([path.name for path in self.paths or ()], self.groups if self.groups is not None else ()):
            sha.update("\0".join(texts).encode() + b"\n")
        return sha.hexdigest()

    def followed_by(self, other: LabelledImages) -> LabelledImages:
        """These images and then others of the same dataset."""

        def joined(one: np.ndarray | None, two: np.ndarray | None) -> np.ndarray | None:
            return None if one is None or two is None else np.concatenate([one, two])

        return LabelledImages(
            self.name,
            np.concatenate([self.target, other.target]),
            joined(self.images, other.images),
            None if self.paths is None or other.paths is None else self.paths + other.paths,
            joined(self.groups, other.groups),
        )

    def take(self, index: np.ndarray) -> LabelledImages:
        """Some of the images, in the order of their indices."""
        return LabelledImages(
            self.name,
            self.target[index],
            None if self.images is None else self.images[index],
            None if self.paths is None else tuple(self.paths[i] for i in index),
            None if self.groups is None else self.groups[index],
        )


@dataclass(frozen=True, eq=False)
class Parts:
    """Images to train on, to choose on and to report on, and how they came to be.

    Under the protocol "paper" the validation part *is* the test part, so that what is reported was also chosen on.
    """

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    protocol: str
    beta: float | None
    seed: int
    source: Mapping[str, Any]

    @property
    def chosen_on_test(self) -> bool:
        return self.validation is self.test

    def record(self) -> dict[str, Any]:
        """What a run should write down about its data, as JSON types."""
        sizes = {name: list(getattr(self, name).counts) for name in ("train", "validation", "test")}
        return {
            **self.source,
            "protocol": self.protocol,
            "chosen_on_test": self.chosen_on_test,
            "beta": self.beta,
            "seed": self.seed,
            "sizes": sizes,
        }


@dataclass(frozen=True, eq=False)
class Benchmark:
    """A dataset of two classes in a training and a test part, before any sub-sampling.

    Args:
        name: the dataset and task.
        classes: the names of class 0 and class 1; class 1 is the positive, later the minority.
        train: the training part.
        test: the test part.
        split: how the two were told apart, for records.

    Raises:
        InputError: a part without images of both classes.

    Warns:
        DoubtfulInputWarning: groups with images in both parts.
    """

    name: str
    classes: tuple[str, str]
    train: LabelledImages
    test: LabelledImages
    split: str

    def __post_init__(self) -> None:
        problems = Problems()
        for part, images in (("training", self.train), ("test", self.test)):
            for k, n in enumerate(images.counts):
                problems.check(
                    n > 0, f"{self.name}: the {part} part needs images of both classes, got no {self.classes[k]!r}"
                )
        problems.raise_if_any()
        if self.shared_groups:
            warnings.warn(
                f"{self.name}: a group should be in one part only, got {self.shared_groups:,} with images in training "
                "and in test; results will look better than they are",
                DoubtfulInputWarning,
                stacklevel=5,
            )

    @cached_property
    def whole(self) -> LabelledImages:
        """All images: those of the training part, then those of the test part."""
        return self.train.followed_by(self.test)

    @cached_property
    def shared_groups(self) -> int:
        """How many groups (patients, lesions) have images in both parts."""
        if self.train.groups is None or self.test.groups is None:
            return 0
        return len(np.intersect1d(self.train.groups, self.test.groups))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the digests of both parts."""
        return hashlib.sha256(f"{self.train.digest} {self.test.digest}".encode()).hexdigest()

    def parts(
        self, beta: float | None = None, *, validation: float = HELD_OUT, seed: int = 0, protocol: str = "held-out"
    ) -> Parts:
        """Training, validation and test images.

        The validation part is cut from the training part, stratified by class and by group where there are groups.
        Then what is left to train on is sub-sampled to beta; validation and test keep the sizes of their classes.

        Args:
            beta: the imbalance ratio n_-/n_+ of the training part, at least 1; None leaves it as shipped.
            validation: the fraction of the training part to choose on, between 0 and 1. The protocol "paper" has none.
            seed: the same seed gives the same parts; at least 0.
            protocol: "held-out", or "paper" for the paper's own: nothing is cut from the training part (whose sizes are
                then those of Table 12), and the test part serves as the validation part.

        Raises:
            InputError: arguments out of range, too few images to cut, beta so high that no positive stays.
        """
        problems = Problems()
        problems.check(
            protocol in PROTOCOLS, f"protocol must be one of {PROTOCOLS}, got {protocol!r}{_like(protocol, PROTOCOLS)}"
        )
        problems.check(0 < validation < 1, f"validation must be a fraction between 0 and 1, got {validation:g}")
        problems.check(seed >= 0, f"seed must be at least 0, got {seed}")
        problems.add(*([] if beta is None else problems_of_beta(beta)))
        problems.raise_if_any()
        whole, in_test = self.whole, np.repeat([False, True], [len(self.train), len(self.test)])
        rows = parted_rows(
            whole.target, in_test, protocol=protocol, validation=validation, seed=seed, groups=whole.groups
        )
        train = whole.take(rows["train"])
        chosen_on = self.test if protocol == "paper" else whole.take(rows["validation"])
        if beta is not None:
            train = train.take(subsample(train.target, beta, seed=seed))
        source = {
            "name": self.name,
            "classes": list(self.classes),
            "split": self.split,
            "digest": self.digest,
            "shared_groups": self.shared_groups,
        }
        return Parts(train, chosen_on, self.test, protocol, beta, seed, source)


def parted_rows(
    target: np.ndarray,
    in_test: np.ndarray,
    *,
    protocol: str = "held-out",
    validation: float = HELD_OUT,
    seed: int = 0,
    groups: np.ndarray | None = None,
    remedy: str | None = None,
) -> dict[str, np.ndarray]:
    """Rows to train on, to choose on and to report on, where the test part is given.

    Args:
        target: (N,) classes.
        in_test: (N,) bool, which rows are the test part.
        protocol, validation, seed: as for `Benchmark.parts`.
        groups: (N,) what must not be torn apart.
        remedy: what helps where there are too few, in messages; by default more images or groups to train on.

    Returns:
        "train", "validation" and "test": sorted row indices.

    Raises:
        InputError: too few rows or groups to divide.
    """
    train, test = np.flatnonzero(~in_test), np.flatnonzero(in_test)
    if protocol == "paper":
        return {"train": train, "validation": test, "test": test}
    of_train = None if groups is None else groups[train]
    remedy = remedy or f"add images{'' if groups is None else ' of other groups'} to train on"
    fractions = (1 - validation, validation, 0)
    cut = split_rows(target[train], fractions, seed=seed, groups=of_train, noun="image", remedy=remedy)
    return {"train": train[cut["train"]], "validation": train[cut["validation"]], "test": test}


@dataclass(frozen=True)
class Classes:
    """The class of the positives, and the others, which are the negatives together."""

    positive: str
    negatives: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, str]:
        """Of the negatives and of the positives: the other class's own, or `not ...` where there are several."""
        return self.negatives[0] if len(self.negatives) == 1 else f"not {self.positive}", self.positive


def _divided(name: str, classes: tuple[str, str], images: LabelledImages, in_test: np.ndarray, split: str) -> Benchmark:
    train, test = images.take(np.flatnonzero(~in_test)), images.take(np.flatnonzero(in_test))
    return Benchmark(name, classes, train, test, split)


# ---------------------------------------------------------------------------------------------------------------- CIFAR

# The owners' files in the order of their images. Sums of CIFAR-10 and of CIFAR-100's python version as torchvision and
# others check them; of CIFAR-100's binary version as published with one third-party loader.
CIFAR_MD5 = {
    "cifar-10-batches-bin": {
        "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
        "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
        "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
        "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
        "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
        "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
    },
    "cifar-10-batches-py": {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    "cifar-100-binary": {
        "train.bin": "6172c7755cfe09b2fe270c85cebc1b15",
        "test.bin": "4499cfba6c016c1be1438163640a0898",
    },
    "cifar-100-python": {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    },
}
CIFAR10_TASKS: dict[str, dict[str, tuple[int, ...]]] = {
    "automobile-deer": {"automobile": (1,), "deer": (4,)},
    "automobile-truck": {"automobile": (1,), "truck": (9,)},
    "animal-vehicle": {"animal": (2, 3, 4, 5, 6, 7), "vehicle": (0, 1, 8, 9)},
}
# Bed, chair, couch, table, wardrobe; clock, keyboard, lamp, telephone, television.
HOUSEHOLD = {"furniture": (5, 20, 25, 84, 94), "electronics": (22, 39, 40, 86, 87)}
_HOUSEHOLD_COARSE = {"furniture": 6, "electronics": 5}
_PIXELS = 3 * 32 * 32


def cifar10(folder: PathLike, task: str, *, minority: str | None = None) -> Benchmark:
    """One of the paper's tasks from CIFAR-10, with the owners' training and test images.

    The first-named class of a task is the majority and the second-named the minority. The paper's text does not say
    which is which; its authors' released settings take animals as the majority of animal-vehicle, and the first-named
    class as the majority of their other pair of CIFAR-10.

    Args:
        folder: holds `cifar-10-batches-bin` (the binary version) or `cifar-10-batches-py` (the python version), or is
            one of them. Each file is checked against the owners' md5 sum. Where both are, the binary one is read.
        task: "automobile-deer", "automobile-truck" or "animal-vehicle".
        minority: the other class of the task, to turn it round.

    Raises:
        InputError: an unknown task or class; files that are missing or are not the owners'.
    """
    problems = Problems()
    problems.check(task in CIFAR10_TASKS, f"task must be one of CIFAR-10's, got {task!r}{_like(task, CIFAR10_TASKS)}")
    labels = CIFAR10_TASKS.get(task, {})
    classes = _ordered(tuple(labels), minority, problems) if labels else ("", "")
    form, contents = _checked_files(Path(folder), ("cifar-10-batches-bin", "cifar-10-batches-py"), problems)
    problems.raise_if_any()
    batches = _cifar_batches(form, contents, ("labels",))
    return _cifar_benchmark(f"cifar10 {task}", classes, labels, batches)


def cifar100_household(folder: PathLike, *, minority: str = "electronics") -> Benchmark:
    """Household electronics against furniture from CIFAR-100 (Wang et al. 2016), with the owners' test images.

    The paper's text does not say which class is the minority; its authors' released settings say electronics.

    Args:
        folder: holds `cifar-100-binary` or `cifar-100-python`, or is one of them, checked against the owners' md5 sums;
            or else holds an extract, `train.npz` and `test.npz` with `data` (N, 3072) uint8, `fine_labels` and
            `coarse_labels`, in the owners' coding, for which there is no sum to check.
        minority: "electronics" or "furniture".

    Raises:
        InputError: an unknown class; files that are missing, are not the owners', or do not hold what they should.
    """
    problems = Problems()
    classes = _ordered(tuple(HOUSEHOLD), minority, problems)
    folder = Path(folder)
    forms = ("cifar-100-binary", "cifar-100-python")
    if not _forms_in(folder, forms) and any((folder / f"{part}.npz").is_file() for part in ("train", "test")):
        batches = _npz_batches(folder, problems)
    else:
        form, contents = _checked_files(folder, forms, problems, "train.npz and test.npz")
        problems.raise_if_any()
        batches = _cifar_batches(form, contents, ("coarse_labels", "fine_labels"))
    _check_household(batches, problems)
    problems.raise_if_any()
    return _cifar_benchmark("cifar100 household", classes, HOUSEHOLD, batches)


@dataclass(frozen=True)
class _Batch:
    """Images of one file: (N, 3, 32, 32) uint8 pixels and (N,) labels, the fine ones last."""

    part: str
    pixels: np.ndarray
    labels: tuple[np.ndarray, ...]


def _ordered(classes: tuple[str, ...], minority: str | None, problems: Problems) -> tuple[str, str]:
    """The majority and the minority of two classes; the second-named is the minority unless told otherwise."""
    first, second = classes
    problems.check(
        minority in (None, first, second),
        f"minority must be one of the classes {first!r} and {second!r}, got {minority!r}",
    )
    return (second, first) if minority == first else (first, second)


def _forms_in(folder: Path, forms: Sequence[str]) -> list[Path]:
    """The folders of those forms that are there: inside the folder, or itself."""
    return [place for form in forms for place in (folder / form, folder) if place.name == form and place.is_dir()]


def _checked_files(
    folder: Path, forms: Sequence[str], problems: Problems, or_else: str = ""
) -> tuple[str, dict[str, bytes]]:
    """The contents of the owners' files of the first form that is there, each with the right md5 sum."""
    found = _forms_in(folder, forms)
    if not found:
        told = " or ".join([*forms, or_else] if or_else else forms)
        problems.add(f"{folder} must hold {told}, got none of them; unpack the owners' archive there")
        return "", {}
    place, contents = found[0], {}
    for name, expected in CIFAR_MD5[place.name].items():
        try:
            content = (place / name).read_bytes()
        except OSError as error:
            problems.add(f"{place} must hold {name}, got {error.strerror or error}; unpack the owners' archive again")
            continue
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        problems.check(
            md5 == expected, f"{place / name} must be the owners', md5 {expected}, got {md5}; unpack the archive again"
        )
        contents[name] = content
    return place.name, contents


def _cifar_batches(form: str, contents: Mapping[str, bytes], names: tuple[str, ...]) -> list[_Batch]:
    batches = []
    for name, content in contents.items():
        part = "test" if name.startswith("test") else "train"
        if "bin" in form:
            rows = np.frombuffer(content, np.uint8).reshape(-1, len(names) + _PIXELS)
            labels = tuple(rows[:, i] for i in range(len(names)))
            pixels = rows[:, len(names) :]
        else:
            batch = _unpickled(name, content)
            labels = tuple(np.asarray(batch[key]) for key in names)
            pixels = batch["data"]
        batches.append(_Batch(part, pixels.reshape(-1, 3, 32, 32), labels))
    return batches


class _ArraysOnly(pickle.Unpickler):
    """Reads plain values and arrays of numbers; whatever else a pickle asks for is refused."""

    _RECONSTRUCT = np.zeros(0).__reduce__()[0]

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Any] = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): _dtype}
        # Where NumPy keeps it depends on the version that wrote the file.
        for home in ("numpy.core.multiarray", "numpy._core.multiarray"):
            known[home, "_reconstruct"] = self._RECONSTRUCT
        # How Python 3 writes bytes for readers of Python 2.
        known["_codecs", "encode"] = lambda text, encoding: text.encode(encoding)
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return known[module, name]


def _dtype(code: str | bytes, align: object = False, copy: object = False) -> np.dtype[Any]:
    """Old pickles give the flags as integers, which NumPy warns of."""
    dtype = np.dtype(code.decode() if isinstance(code, bytes) else code, align=bool(align), copy=bool(copy))
    if dtype.kind not in "biuf":
        raise pickle.UnpicklingError(f"numpy.dtype({code!r})")
    return dtype


def _unpickled(name: str, content: bytes) -> dict[str, Any]:
    """The entries of a batch in the python version, with text as keys."""
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a broken pickle can raise anything
        raise InputError(
            f"{name} must hold numbers, text and arrays of them only, got {type(error).__name__}: {error}; "
            "use the owners' file"
        ) from error
    return {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}


def _npz_batches(folder: Path, problems: Problems) -> list[_Batch]:
    batches = []
    for part in ("train", "test"):
        path = folder / f"{part}.npz"
        try:
            with np.load(path, allow_pickle=False) as extract:
                data, coarse, fine = (extract[key] for key in ("data", "coarse_labels", "fine_labels"))
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            problems.add(f"{path} must be an npz of arrays data, fine_labels and coarse_labels, got: {error}")
            continue
        if data.dtype != np.uint8 or data.shape != (len(fine), _PIXELS) or not len(fine) == len(coarse) == fine.size:
            problems.add(
                f"{path} must hold data (N, {_PIXELS}) uint8 and N labels of each kind, "
                f"got {data.shape} {data.dtype}, fine {fine.shape}, coarse {coarse.shape}"
            )
            continue
        batches.append(_Batch(part, data.reshape(-1, 3, 32, 32), (coarse, fine)))
    return batches


def _check_household(batches: Iterable[_Batch], problems: Problems) -> None:
    for batch in batches:
        coarse, fine = batch.labels
        for name, labels in HOUSEHOLD.items():
            wrong = int((np.isin(fine, labels) != (coarse == _HOUSEHOLD_COARSE[name])).sum())
            problems.check(
                not wrong,
                f"{name} is the coarse label {_HOUSEHOLD_COARSE[name]} and the fine labels {labels}, "
                f"got {wrong:,} {batch.part} images with one and not the other; use the owners' coding",
            )


def _cifar_benchmark(
    name: str, classes: tuple[str, str], labels: Mapping[str, tuple[int, ...]], batches: Iterable[_Batch]
) -> Benchmark:
    pixels, targets = defaultdict(list), defaultdict(list)
    for batch in batches:
        fine = batch.labels[-1]
        kept = np.isin(fine, [*labels[classes[0]], *labels[classes[1]]])
        pixels[batch.part].append(batch.pixels[kept])
        targets[batch.part].append(np.isin(fine[kept], labels[classes[1]]).astype(np.int64))
    train, test = (
        LabelledImages(f"{name} {part}", np.concatenate(targets[part]), images=np.concatenate(pixels[part]))
        for part in ("train", "test")
    )
    return Benchmark(name, classes, train, test, "as shipped")


# -------------------------------------------------------------------------------------------------------------- medical

# Of the TFRecord files, as in the paper's authors' released code.
MELANOMA_TEST_FOLDS = {2019: (0, 5, 12, 16, 21, 29), 2020: (3, 6, 8, 9)}
_MELANOMA_TEST_SIZES = (12_300, 1_035)


def melanoma(
    labels_2019: PathLike,
    labels_2020: PathLike,
    *,
    lesions_2019: PathLike | None = None,
    duplicates_2020: PathLike | None = None,
    images_2019: PathLike | None = None,
    images_2020: PathLike | None = None,
    seed: int = 0,
) -> Benchmark:
    """SIIM-ISIC melanoma: the ISIC 2019 and 2020 training images together, melanoma against the rest.

    Where both label tables have a column `tfrecord`, the test part is the paper's folds of it; an image in no fold (-1)
    is for training. The folds of 2019 are those of the widely used Kaggle copy; those of 2020 number the competition's
    own 16 TFRecord files, not the 15 of the copies. A test part of another size than the paper's warns.

    Otherwise a fifth of each year goes to test, stratified by class and by group. In both cases the groups are the
    patients of 2020 and the lesions of 2019, those joined by a duplicate as one; an image without either is its own.
    `Benchmark.split` names those of them that the files given tell.

    Args:
        labels_2019: CSV with `image` and `MEL` (ISIC_2019_Training_GroundTruth.csv), or `image_name` and `target`.
        labels_2020: CSV with `image_name`, `patient_id` and `target` (ISIC_2020_Training_GroundTruth.csv).
        lesions_2019: CSV with `image` and `lesion_id` (ISIC_2019_Training_Metadata.csv). Without it, images of one
            lesion can fall on both sides of a split.
        duplicates_2020: CSV with `image_name_1` and `image_name_2` (ISIC_2020_Training_Duplicates.csv).
        images_2019: the folder of the JPEG files; without it, the paths are bare names and not checked.
        images_2020: likewise.
        seed: of the split by group; at least 0.

    Raises:
        InputError: files or columns that are missing, labels that are not 0 or 1, images named twice or without a file.

    Warns:
        DoubtfulInputWarning: images of 2019 of which no lesion is told; folds of other sizes than the paper's, or with
            groups in both parts.
    """
    problems = Problems()
    problems.check(seed >= 0, f"seed must be at least 0, got {seed}")
    years = {
        2019: _melanoma_year(2019, labels_2019, images_2019, problems),
        2020: _melanoma_year(2020, labels_2020, images_2020, problems),
    }
    lesions = _read_csv(lesions_2019, (("image", "image_id", "image_name"), ("lesion_id",)), problems)
    duplicates = _read_csv(duplicates_2020, (("image_name_1",), ("image_name_2",)), problems)
    tables = [table for table in years.values() if table is not None]
    with_folds = [year for year, table in years.items() if table is not None and "tfrecord" in table]
    problems.check(
        len(with_folds) in (0, len(tables)),
        f"the column tfrecord must be in both label tables or in none, got it in {with_folds} only; add or drop it",
    )
    problems.raise_if_any()
    table = pd.concat(tables, ignore_index=True)
    groups = _melanoma_groups(table, lesions, duplicates, problems)
    problems.raise_if_any()
    target = table["target"].to_numpy(np.int64)
    year_of_row = table["year"].to_numpy()
    images = LabelledImages("melanoma", target, paths=tuple(table["path"]), groups=groups)
    in_test = np.zeros(len(table), dtype=bool)
    for year, folds in MELANOMA_TEST_FOLDS.items():
        rows = np.flatnonzero(year_of_row == year)
        if with_folds:
            in_test[rows] = np.isin(table["tfrecord"].to_numpy()[rows], folds)
        else:
            drawn = split_rows(
                target[rows], (0.8, 0, 0.2), seed=seed, groups=groups[rows], noun="image", remedy=f"{year}: {WHOLE}"
            )
            in_test[rows[drawn["test"]]] = True
    known = {"patient": True, "lesion": lesions is not None, "duplicate": duplicates is not None}
    by = " and ".join(name for name, given in known.items() if given)
    split = f"TFRecord folds of the paper, the rest by {by}" if with_folds else f"a fifth by {by}, seed {seed}"
    if lesions is None:
        _warn_of_lesions(table)
    benchmark = _divided("melanoma", ("no melanoma", "melanoma"), images, in_test, split)
    if with_folds and benchmark.test.counts != _MELANOMA_TEST_SIZES:
        warnings.warn(
            "the paper's test folds hold {:,} negatives and {:,} positives, got {:,} and {:,}; "
            "check that tfrecord numbers the competition's 16 files of 2020 and the 30 of 2019".format(
                *_MELANOMA_TEST_SIZES, *benchmark.test.counts
            ),
            DoubtfulInputWarning,
            stacklevel=2,
        )
    return benchmark


def _melanoma_year(year: int, labels: PathLike, folder: PathLike | None, problems: Problems) -> pd.DataFrame | None:
    """image, target, path and group of one year, and tfrecord where the table has it."""
    columns = [("image_name", "image"), ("target", "MEL"), *([("patient_id",)] if year == 2020 else [])]
    raw = _read_csv(labels, columns, problems)
    if raw is None:
        return None
    image = raw[columns[0][0]]
    _check_named_once(image, labels, problems)
    table = pd.DataFrame({"year": year, "image": image, "target": _numbers(raw, "target", labels, problems, (0, 1))})
    table["path"] = pd.Series(_paths(image, ".jpg", folder, problems), dtype=object)
    patient = raw["patient_id"] if "patient_id" in raw else pd.Series("", index=raw.index)
    named = ~patient.isin(["", "-1", "-1.0"])
    own = image.str.removesuffix("_downsampled")
    table["group"] = f"{year} " + patient.where(named, own)
    table["has_patient"] = named
    if "tfrecord" in raw:
        table["tfrecord"] = _numbers(raw, "tfrecord", labels, problems)
    return table


def _warn_of_lesions(table: pd.DataFrame) -> None:
    """What leaks where the lesions of 2019, several images of one among them, are not told."""
    of_2019 = table["year"] == 2019
    if n := int((of_2019 & ~table["has_patient"]).sum()):
        warnings.warn(
            f"melanoma: a lesion should be in one part only, and of {n:,} of the {int(of_2019.sum()):,} images of 2019 "
            "neither lesion nor patient is known: images of one lesion may be trained on, chosen on and reported on, "
            "so that results look better than they are; fetch ISIC_2019_Training_Metadata.csv from the ISIC archive "
            "into the dataset's folder (lesions_2019), and fit again",
            DoubtfulInputWarning,
            stacklevel=3,
        )


def _melanoma_groups(
    table: pd.DataFrame, lesions: pd.DataFrame | None, duplicates: pd.DataFrame | None, problems: Problems
) -> np.ndarray:
    """(N,) text: patients, lesions and what a duplicate joins to them."""
    group = table["group"]
    if lesions is not None:
        lesion_of_image = lesions[lesions["lesion_id"] != ""].drop_duplicates("image").set_index("image")["lesion_id"]
        lesion = table["image"].map(lesion_of_image)
        known = lesion.notna() & (table["year"] == 2019)
        problems.check(bool(known.any()), "the lesions of 2019 name none of its images; give the metadata of 2019")
        group = ("2019 " + lesion.astype("str")).where(known, group)
    codes, names = pd.factorize(group)
    if duplicates is None:
        return np.asarray(names)[codes].astype(str)
    code_of_image = pd.Series(codes, index=table["image"])
    pairs = pd.DataFrame({side: duplicates[side].map(code_of_image) for side in ("image_name_1", "image_name_2")})
    # Some are of images that were not given labels.
    pairs = pairs.dropna().astype(np.int64)
    problems.check(len(pairs) > 0, "the duplicates name no two of the labelled images; give those of 2020")
    joined = coo_array((np.ones(len(pairs)), tuple(pairs.to_numpy().T)), shape=(len(names), len(names)))
    _, whole = connected_components(joined, directed=False)
    _, first = np.unique(whole, return_index=True)
    return np.asarray(names)[first[whole[codes]]].astype(str)


def aptos(labels: PathLike, *, images: PathLike | None = None, seed: int = 0) -> Benchmark:
    """APTOS 2019 diabetic retinopathy: grade 0 against the rest.

    A fifth of each of the five grades, rounded down, is the test part: 361 and 370 images, the sizes of Table 12. As
    shipped the positives outnumber the negatives.

    Args:
        labels: CSV with `id_code` and `diagnosis`, a grade from 0 to 4 (train.csv).
        images: the folder of the PNG files; without it, the paths are bare names and not checked.
        seed: of the split; at least 0.

    Raises:
        InputError: files or columns that are missing, other grades, images named twice or without a file.
    """
    problems = Problems()
    problems.check(seed >= 0, f"seed must be at least 0, got {seed}")
    table = _read_csv(labels, (("id_code",), ("diagnosis",)), problems)
    if table is None:
        raise InputError(problems)
    _check_named_once(table["id_code"], labels, problems)
    grade = _numbers(table, "diagnosis", labels, problems, range(5))
    paths = _paths(table["id_code"], ".png", images, problems)
    problems.raise_if_any()
    found = LabelledImages("aptos", (grade > 0).astype(np.int64), paths=tuple(paths))
    in_test = _drawn(grade, lambda n: n // 5, seed)
    classes = ("no retinopathy", "retinopathy")
    return _divided("aptos", classes, found, in_test, f"a fifth of each grade, seed {seed}")


# --------------------------------------------------------------------------------------------------- folders and tables


def dogs_vs_cats(folder: PathLike, *, minority: str = "dog", held_out: int = 1_000, seed: int = 0) -> Benchmark:
    """Dogs vs. Cats: a part of each class held out. The paper lists the dataset, and has no result on it.

    The minority is the dogs, as in the authors' released settings.

    Args:
        folder: holds `cat.0.jpg`, `dog.0.jpg` and so on, or the folder `train` with them.
        minority: "dog" or "cat".
        held_out: how many of each class are the test part.
        seed: of the split; at least 0.

    Raises:
        InputError: no images, a class with too few, images named otherwise.
    """
    problems = Problems()
    problems.check(seed >= 0, f"seed must be at least 0, got {seed}")
    problems.check(held_out >= 1, f"held_out must be at least 1, got {held_out}")
    classes = _ordered(("cat", "dog"), minority, problems)
    folder = Path(folder)
    place = folder / "train" if (folder / "train").is_dir() else folder
    paths = sorted(_image_files(place, problems), key=lambda path: (len(path.name), path.name))
    kinds = np.array([path.name.split(".")[0] for path in paths], dtype=str)
    others = [path for path, kind in zip(paths, kinds, strict=True) if kind not in classes]
    problems.check(
        not others, f"images in {place} must be named cat.0.jpg or dog.0.jpg, got {_some([p.name for p in others])}"
    )
    for name in classes:
        n = int((kinds == name).sum())
        problems.check(
            n > held_out,
            f"{place} must have more than the {held_out:,} images of {name!r} to hold out, got {n:,}; "
            "unpack the archive again, or hold out fewer",
        )
    problems.raise_if_any()
    images = LabelledImages("dogs-vs-cats", (kinds == classes[1]).astype(np.int64), paths=tuple(paths))
    in_test = _drawn(kinds, lambda n: held_out, seed)
    return _divided("dogs-vs-cats", classes, images, in_test, f"{held_out} of each class, seed {seed}")


def image_folder(folder: PathLike, *, positive: str, test: float | PathLike = 0.2, seed: int = 0) -> Benchmark:
    """Images in folders, one for each class, at any depth below them.

    Args:
        folder: the folder of these.
        positive: the name of the folder of the positives; all others are the negatives.
        test: the fraction to report on, between 0 and 1; or another such folder, with some of the same classes.
        seed: of the split; at least 0.

    Raises:
        InputError: no images, one class only, an image outside of them, too few to divide.

    Warns:
        DoubtfulInputWarning: files that are left out because they are not images that can be read.
    """
    problems = Problems()
    problems.check(seed >= 0, f"seed must be at least 0, got {seed}")
    problems.add(*_problems_of_test(test))
    folders = [Path(folder), *([] if isinstance(test, (int, float)) else [Path(test)])]
    parts, classes = _in_folders(folders, positive, problems)
    return _with_test(classes.labels, parts, test, seed)


def labelled_folder(folder: PathLike, *, positive: str) -> tuple[LabelledImages, Classes]:
    """As `image_folder`, before any split: all images, and their classes."""
    (images,), classes = _in_folders([Path(folder)], positive, Problems())
    return images, classes


def _in_folders(folders: Sequence[Path], positive: str, problems: Problems) -> tuple[list[LabelledImages], Classes]:
    found = [_class_folders(place, positive, problems) for place in folders]
    negatives = [set(names) - {positive} for names, _ in found]
    for more in negatives[1:]:
        problems.check(
            more <= negatives[0],
            f"both folders must have the same negatives, got {', '.join(sorted(negatives[0] | more))}; rename them",
        )
    problems.raise_if_any()
    parts = []
    for place, (_, paths) in zip(folders, found, strict=True):
        target = [path.relative_to(place).parts[0] == positive for path in paths]
        parts.append(LabelledImages(folders[0].name, np.array(target, np.int64), paths=tuple(paths)))
    return parts, Classes(positive, tuple(sorted(negatives[0])))


def image_table(
    labels: PathLike,
    *,
    positive: str,
    path: str = "path",
    target: str = "label",
    group: str | None = None,
    folder: PathLike | None = None,
    test: float | PathLike = 0.2,
    unlabelled: bool = False,
    seed: int = 0,
) -> Benchmark:
    """Images named by a list with a path and a label in each row, CSV or Parquet, as `reading.read_table` takes them.

    Args:
        labels: the list.
        positive: the label of the positives, in any spelling that `tables.label` takes; all others are the negatives.
        path: the column of the image files, relative to the folder.
        target: the column of the labels.
        group: the column of what must not be torn apart by a split: a patient, a lesion. No row may be without.
        folder: where the image files are; the folder of the list unless given.
        test: the fraction to report on, between 0 and 1, stratified by class, and by group where there are groups; or
            another list with the same columns and labels.
        unlabelled: whether the folders of labelled images may hold others, without a label.
        seed: of the split; at least 0.

    Raises:
        InputError: files or columns that are missing, one label only, rows without a label or group, a file named
            twice, a label without a file, a file without a label, too few images to divide.

    Warns:
        DoubtfulInputWarning: a test list with groups of the training list.
    """
    problems = Problems()
    problems.check(seed >= 0, f"seed must be at least 0, got {seed}")
    problems.add(*_problems_of_test(test))
    files = [Path(labels), *([] if isinstance(test, (int, float)) else [Path(test)])]
    parts, classes = _in_tables(files, positive, (path, target, group), folder, unlabelled, problems)
    return _with_test(classes.labels, parts, test, seed)


def labelled_table(
    labels: PathLike,
    *,
    positive: str,
    path: str = "path",
    target: str = "label",
    group: str | None = None,
    folder: PathLike | None = None,
    unlabelled: bool = False,
) -> tuple[LabelledImages, Classes]:
    """As `image_table`, before any split: all images, and their classes."""
    (images,), classes = _in_tables([Path(labels)], positive, (path, target, group), folder, unlabelled, Problems())
    return images, classes


def _in_tables(
    files: Sequence[Path],
    positive: str,
    columns: tuple[str, str, str | None],
    folder: PathLike | None,
    unlabelled: bool,
    problems: Problems,
) -> tuple[list[LabelledImages], Classes]:
    path, target, group = columns
    for (one, a), (two, b) in combinations(zip(("--paths", "--target", "--group"), columns, strict=True), 2):
        problems.check(a != b, f"{one} and {two} are columns of their own, got {a!r} for both")
    if len({*columns}) < len(columns):
        raise InputError(problems)
    read = [_read_list(file, list(filter(None, columns)), problems) for file in files]
    tables = [table for table in read if table is not None]
    if len(tables) < len(files):
        raise InputError(problems)
    texts = {
        name: np.concatenate([_text_of(table, name, problems, spelled=name == target) for table in tables])
        for name in filter(None, columns)
    }
    told = " and ".join(map(str, files))
    for name, text in texts.items():
        lacking = [texts[path][i] or _told_row(tables, int(i)) for i in np.flatnonzero(text == "")]
        problems.check(
            not lacking, f"{told}: every row needs a {name}, got {len(lacking):,} without, first {_some(lacking)}"
        )
    classes = _classes(sorted(set(texts[target]) - {""}), positive, f"{told}: {target!r}", problems)
    place = Path(folder) if folder is not None else files[0].parent
    names = texts[path][texts[path] != ""]
    paths = _paths(pd.Series(names), "", place, problems, _remedy(folder))
    _check_listed_once(paths, told, problems)
    if not unlabelled and len(names) == len(texts[path]):  # a file may lack a label because its row lacks the path
        _check_labelled(paths, problems)
    problems.raise_if_any()
    found = LabelledImages(
        files[0].stem,
        (texts[target] == classes.positive).astype(np.int64),
        paths=tuple(paths),
        groups=None if group is None else texts[group].astype(str),
    )
    ends = np.cumsum([0, *(table.rows.num_rows for table in tables)])
    return [found.take(np.arange(a, b)) for a, b in pairwise(ends)], classes


# ------------------------------------------------------------------------------------------------------------- by name


def dataset(name: str, folder: PathLike, *, seed: int = 0, download: bool = False) -> Benchmark:
    """One of the paper's datasets by name, from a folder that holds its files under the names its owners gave them.

    | name | files in the folder |
    |---|---|
    | `cifar10-automobile-deer`, `-automobile-truck`, `-animal-vehicle` | `cifar-10-batches-bin` or `-py` |
    | `cifar100-household` | `cifar-100-binary` or `cifar-100-python` |
    | `melanoma` | `ISIC_2019_Training_GroundTruth.csv` and `ISIC_2020_Training_GroundTruth.csv` (or `train.csv`), the \
      images in `ISIC_2019_Training_Input` and `ISIC_2020_Training_JPEG/train` (or `jpeg/train`, `train`); if there, \
      also `ISIC_2019_Training_Metadata.csv` and `ISIC_2020_Training_Duplicates.csv`. Or, of either year, the copies \
      with folds: `isic2019/train.csv` and `isic2019/train`, `isic2020/train.csv` and `isic2020/train` |
    | `aptos` | `train.csv` and `train_images` |
    | `dogs-vs-cats` | `train` |

    Args:
        name: one of `DATASETS`.
        folder: where the files are.
        seed: of the split into training and test, where the owners give none; at least 0.
        download: fetch CIFAR into the folder first, through torchvision, where it is not there already.

    Raises:
        InputError: an unknown name, files that are missing or cannot be fetched, or anything that the dataset's own
            function refuses.
    """
    problems = Problems()
    problems.check(name in DATASETS, f"there is no dataset {name!r}{did_you_mean(name, DATASETS)}")
    problems.check(
        not download or name not in DATASETS or name in _DOWNLOADED,
        f"only CIFAR can be downloaded, got {name!r}: fetch its files from where its owners publish them",
    )
    folder = Path(folder)
    problems.check(download or folder.is_dir(), f"{folder} must be the folder of the dataset, got no such folder")
    problems.raise_if_any()
    if download:
        _download(_DOWNLOADED[name], folder)
    return _LOADERS[name](folder, seed)


def _download(kind: str, folder: Path) -> None:
    """The python version of CIFAR, as `torchvision.datasets` fetches it: checked, and nothing where it is there."""
    vision.torchvision()
    datasets = importlib.import_module("torchvision.datasets")
    try:
        getattr(datasets, kind)(str(folder), download=True)
    except OSError as error:  # URLError is one
        raise InputError(
            f"{kind} could not be downloaded to {folder} ({error}); fetch its archive elsewhere and unpack it there"
        ) from None
    except RuntimeError as error:  # how torchvision tells a damaged archive
        raise InputError(f"{kind} in {folder} is not whole ({error}); remove what is there and try again") from None


def _melanoma_in(folder: Path, seed: int) -> Benchmark:
    problems = Problems()

    def found(*names: str) -> Path:
        there = [folder / name for name in names if (folder / name).exists()]
        problems.check(bool(there), f"{folder} must hold {' or '.join(names)} for melanoma, got none; fetch it")
        return there[0] if there else folder

    def optional(name: str) -> Path | None:
        return folder / name if (folder / name).exists() else None

    # The owners' names; then those of the competition, and of the copies of both years that have folds.
    labels_2019 = found("ISIC_2019_Training_GroundTruth.csv", "isic2019/train.csv")
    labels_2020 = found("ISIC_2020_Training_GroundTruth.csv", "train.csv", "isic2020/train.csv")
    images_2019 = found("ISIC_2019_Training_Input", "isic2019/train")
    images_2020 = found(
        "ISIC_2020_Training_JPEG/train", "ISIC_2020_Training_JPEG", "jpeg/train", "train", "isic2020/train"
    )
    problems.raise_if_any()
    return melanoma(
        labels_2019,
        labels_2020,
        lesions_2019=optional("ISIC_2019_Training_Metadata.csv"),
        duplicates_2020=optional("ISIC_2020_Training_Duplicates.csv"),
        images_2019=images_2019,
        images_2020=images_2020,
        seed=seed,
    )


def _cifar10_of(task: str) -> Callable[[Path, int], Benchmark]:
    return lambda folder, seed: cifar10(folder, task)


_LOADERS: Mapping[str, Callable[[Path, int], Benchmark]] = {
    **{f"cifar10-{task}": _cifar10_of(task) for task in CIFAR10_TASKS},
    "cifar100-household": lambda folder, seed: cifar100_household(folder),
    "melanoma": _melanoma_in,
    "aptos": lambda folder, seed: aptos(folder / "train.csv", images=folder / "train_images", seed=seed),
    "dogs-vs-cats": lambda folder, seed: dogs_vs_cats(folder, seed=seed),
}
DATASETS = tuple(_LOADERS)
"""The names that `dataset` knows."""
_DOWNLOADED = {name: "CIFAR100" if name == "cifar100-household" else "CIFAR10" for name in DATASETS if "cifar" in name}


# --------------------------------------------------------------------------------------------------------------- pieces


def _problems_of_test(test: float | PathLike) -> list[str]:
    if not isinstance(test, (int, float)) or 0 < test < 1:
        return []
    return [f"test must be a fraction between 0 and 1, or where the test images are, got {test:g}"]


def _with_test(
    classes: tuple[str, str], parts: Sequence[LabelledImages], test: float | PathLike, seed: int
) -> Benchmark:
    if not isinstance(test, (int, float)):
        return Benchmark(parts[0].name, classes, parts[0], parts[1], "as given")
    return divided(parts[0], classes, test=test, seed=seed)


def divided(images: LabelledImages, classes: tuple[str, str], *, test: float = 0.2, seed: int = 0) -> Benchmark:
    """A training and a test part, stratified by class, and by group where there are groups.

    Args:
        test: the fraction to report on, between 0 and 1.
        seed: at least 0.

    Raises:
        InputError: too few images or groups to divide.
    """
    remedy = f"add images{'' if images.groups is None else ' of other groups'}"
    fractions = (1 - test, 0, test)
    rows = split_rows(images.target, fractions, seed=seed, groups=images.groups, noun="image", remedy=remedy)
    how = "class" if images.groups is None else "class and group"
    split = f"{test:g}, by {how}, seed {seed}"
    return Benchmark(images.name, classes, images.take(rows["train"]), images.take(rows["test"]), split)


def _drawn(strata: np.ndarray, n_drawn: Callable[[int], int], seed: int) -> np.ndarray:
    """(N,) bool: a number of rows of each stratum, drawn at random."""
    rng = np.random.default_rng(seed)
    drawn = np.zeros(len(strata), dtype=bool)
    for stratum in np.unique(strata):
        rows = rng.permutation(np.flatnonzero(strata == stratum))
        drawn[rows[: n_drawn(len(rows))]] = True
    return drawn


def _class_folders(folder: Path, positive: str, problems: Problems) -> tuple[list[str], list[Path]]:
    """The names of the class folders and the images below them."""
    paths = _image_files(folder, problems)
    if not paths:
        return [], []
    inside = [path for path in paths if path.parent != folder]
    outside = [path.name for path in paths if path.parent == folder]
    problems.check(
        not outside,
        f"{folder}: an image has its label from its folder, got {len(outside):,} outside of the class folders: "
        f"{_some(outside)}; move or remove them",
    )
    names = sorted({path.relative_to(folder).parts[0] for path in inside})
    above = sorted({p[0] for path in inside if (p := path.relative_to(folder).parts)[1] == positive and len(p) > 2})
    if positive not in names and above:
        problems.add(
            f"{folder} must have a folder for each class, got {positive!r} further inside, of {_some(above)}: give "
            f"{' or '.join(str(folder / name) for name in above[:3])} itself{_ANOTHER if len(above) > 1 else ''}"
        )
        return names, inside
    if positive not in names and positive in _folders_in(folder):
        problems.add(
            f"{folder / positive} must hold images ({', '.join(IMAGE_SUFFIXES)}), got none: fill it, or name another "
            "folder (--positive)"
        )
        return names, inside
    if positive not in names:
        problems.add(f"{folder}: positive must be a folder with images, got {positive!r}{_like(positive, names)}")
    if len(names) < 2:
        problems.add(
            f"{folder} must have two or more folders with images, one a class, got {len(names)}: {_some(names)}"
        )
    return names, inside


_ANOTHER = ". Fit on one, with --split 0.8,0.2,0 (fractions), and evaluate on the other"


def _folders_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}


def _classes(labels: Sequence[str], positive: str, told: str, problems: Problems) -> Classes:
    """The classes of a list by their labels, in the spelling of `cells.spelling_of`."""
    chosen = chosen_label(labels, positive)
    if chosen is None:
        problems.add(f"{told}: positive must be a label, got {positive!r}{_like(positive, labels)}")
    if len(labels) < 2:
        problems.add(f"{told} must have two or more labels, got {len(labels)}: {_some(labels)}")
    return Classes(chosen or positive, tuple(label for label in labels if label != chosen))


# ---------------------------------------------------------------------------------------------------- files and columns


def image_files(folder: PathLike) -> list[Path]:
    """The image files at any depth below a folder, without hidden ones, sorted.

    Raises:
        InputError: no such folder, or no image in it.
    """
    problems = Problems()
    paths = _image_files(Path(folder), problems)
    problems.raise_if_any()
    return paths


def paths_of_list(
    listed: PathLike, path: str, columns: Sequence[str] = (), *, folder: PathLike | None = None
) -> tuple[list[Path], pa.Table]:
    """The image files that a list names (CSV or Parquet), and columns of it as they are.

    Args:
        path: the column of the files.
        columns: others that must be there.
        folder: where the files are; the folder of the list unless given.

    Raises:
        InputError: columns or files that are missing, rows without a file.
    """
    problems = Problems()
    table = _read_list(Path(listed), list(dict.fromkeys([path, *columns])), problems)
    if table is None:
        raise InputError(problems)
    names = _text_of(table, path, problems)
    lacking = [_told_row([table], int(i)) for i in np.flatnonzero(names == "")]
    problems.check(
        not lacking, f"{listed}: every row needs a {path}, got {len(lacking):,} without, first {_some(lacking)}"
    )
    place = Path(folder or Path(listed).parent)
    paths = _paths(pd.Series(names[names != ""]), "", place, problems, _remedy(folder), what="an image")
    problems.raise_if_any()
    return paths, table.rows


def in_batches(folder: PathLike) -> bool:
    """Whether a folder holds CIFAR as its owners ship it, and no image files."""
    place = Path(folder)
    return bool(_forms_in(place, [*CIFAR_MD5])) and not any(map(is_image, _walked(place, set())))


def _image_files(folder: Path, problems: Problems) -> list[Path]:
    if not folder.is_dir():
        problems.add(f"{folder} must be a folder of images, got no such folder")
        return []
    files = [path for path in _walked(folder, set()) if not path.name.startswith(".")]
    paths = sorted(path for path in files if is_image(path))
    others = Counter(path.suffix.lower() for path in files if _may_be_an_image(path))
    told = ", ".join(f"{n:,} {suffix or 'without a suffix'}" for suffix, n in others.most_common(10))
    batches = "; CIFAR's batches are read by name: --dataset (dataset)" if in_batches(folder) else ""
    problems.check(
        bool(paths), f"{folder} must hold images ({', '.join(IMAGE_SUFFIXES)}), got {told or 'none'}{batches}"
    )
    if paths and others:
        warnings.warn(
            f"{folder}: files that are not read as images are left out: {told}; to have them, convert them to PNG",
            DoubtfulInputWarning,
            stacklevel=2,
        )
    return paths


def _may_be_an_image(path: Path) -> bool:
    """Of a kind that is not read, and not one of those that lie beside images."""
    known = path.suffix.lower() in (*IMAGE_SUFFIXES, *BESIDE_IMAGES)
    return not known and path.name.lower() not in ("readme", "license", "licence")


def _walked(folder: Path, above: set[Path]) -> Iterator[Path]:
    """The files below a folder; links are followed, but not round in circles, and hidden folders left alone."""
    real = folder.resolve()
    if real in above:
        return
    for path in folder.iterdir():
        if not path.is_dir():
            yield path
        elif not path.name.startswith("."):
            yield from _walked(path, above | {real})


def is_image(path: Path) -> bool:
    """Whether a file is one by its name."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _remedy(folder: PathLike | None) -> str:
    """Of files that a list names, and that are not in the folder, if it was given, or beside the list."""
    return f"{_FETCH}, or say in which folder they are: --images FOLDER (folder)" if folder is None else _FETCH


_FETCH = "fetch them or drop their rows"


def _paths(
    names: pd.Series[str],
    suffix: str,
    folder: PathLike | None,
    problems: Problems,
    remedy: str = _FETCH,
    *,
    what: str = "a label",
) -> list[Path]:
    """The files of some images; those in a folder must be there, for what is known of them."""
    if folder is None:
        return [Path(name + suffix) for name in names]
    place = Path(folder)
    if not place.is_dir():
        problems.add(f"{place} must be the folder of the images, got no such folder")
        return []
    paths = [place / (name + suffix) for name in names]
    there = _files_in({path.parent for path in paths})
    missing = [name + suffix for name, path in zip(names, paths, strict=True) if os.path.abspath(path) not in there]
    problems.check(
        not missing,
        f"{place}: {what} needs its file, got {len(missing):,} of {len(paths):,} without: {_some(missing)}; {remedy}",
    )
    return paths


def _check_labelled(paths: Sequence[Path], problems: Problems) -> None:
    there = {path for path in _files_in({path.parent for path in paths}) if is_image(Path(path))}
    extra = sorted(there - set(map(os.path.abspath, paths)))
    problems.check(
        not extra,
        f"a file needs its label, got {len(extra):,} images without: {_some(extra)}; "
        "add rows for them, or allow them: --unlabelled (unlabelled=True)",
    )


def _check_listed_once(paths: Sequence[Path], told: str, problems: Problems) -> None:
    counts = Counter(map(os.path.abspath, paths))
    twice = [path for path, n in counts.items() if n > 1]
    problems.check(
        not twice,
        f"{told} must name each image once, got {len(twice):,} more than once: {_some(twice)}; drop the other rows",
    )


def _files_in(folders: Iterable[Path]) -> set[str]:
    """All files in some folders, as absolute paths; one listing is much faster than a look at each file."""
    found = set()
    for folder in folders:
        if folder.is_dir():
            place = os.path.abspath(folder)
            with os.scandir(folder) as entries:
                found |= {os.path.join(place, entry.name) for entry in entries if entry.is_file()}
    return found


@dataclass(frozen=True)
class _List:
    """Rows of a list of images, and how its cells read."""

    file: Path
    rows: pa.Table
    cells: Callable[[pa.ChunkedArray], pa.Array]


def _told_row(lists: Sequence[_List], index: int) -> str:
    """What to call a row without a path, by its index in all lists together: its number in its own, counted from 1."""
    ends = np.cumsum([one.rows.num_rows for one in lists])
    which = int(np.searchsorted(ends, index, side="right"))
    number = index - (ends[which - 1] if which else 0) + 1
    return f"row {number}" + (f" of {lists[which].file}" if len(lists) > 1 else "")


def _read_list(file: Path, columns: Sequence[str], problems: Problems) -> _List | None:
    """Some columns of a CSV or Parquet file; None where they cannot be had."""
    try:
        source = open_table(file, header=True)
        if absent := absent_names(columns, source.names, "column"):
            raise InputError(f"{file}: {told}" for told in absent)
        batches = list(source.batches(1 << 20, columns))
        if told := source.problems():
            raise InputError(told)
    except InputError as error:
        problems.add(*error.problems)
        return None
    if not batches:
        problems.add(f"{file}: must hold rows, got none")
        return None
    return _List(file, pa.concat_tables(batches).select(list(columns)), source.cells)


def _text_of(table: _List, column: str, problems: Problems, *, spelled: bool = False) -> np.ndarray:
    """(N,) text of a column, empty where a value is missing; spelled as labels are, or as it is written."""
    values = one_array(table.rows[column])
    try:
        cells = table.cells(values) if spelled else as_cells(values)
        if is_text(cells) and not spelled:
            return cells.fill_null("").to_numpy(zero_copy_only=False)
        words, codes = words_of(cells)
    except UnsupportedType as error:
        problems.add(f"{table.file}: the column {column!r} must hold text or numbers, got the type {error}; convert it")
        return np.full(len(values), "?", object)
    return np.array([*words, ""], object)[codes]


def _read_csv(path: PathLike | None, columns: Sequence[Sequence[str]], problems: Problems) -> pd.DataFrame | None:
    """A CSV file as text, each column under the first of its possible names; None if it cannot be."""
    if path is None:
        return None
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except (OSError, ValueError, pd.errors.ParserWarning) as error:  # what pandas raises are ValueErrors
        problems.add(f"{path} must be a CSV file of labels, got: {str(error).strip()}")
        return None
    missing = [names for names in columns if not any(name in table for name in names)]
    for names in missing:
        known = _some(table.columns, 12)
        problems.add(f"{path} must have a column {' or '.join(names)}, got {known}")
    problems.check(len(table) > 0, f"{path} must have rows, got none")
    if missing or not len(table):
        return None
    there = {next(name for name in names if name in table): names[0] for names in columns}
    return table.rename(columns=there).apply(lambda column: column.fillna("").str.strip())


def _check_named_once(names: pd.Series[str], path: PathLike, problems: Problems) -> None:
    twice = names[names.duplicated()].unique()
    problems.check(
        not len(twice), f"{path} must name each image once, got {len(twice):,} more than once: {_some(twice)}"
    )


def _numbers(
    table: pd.DataFrame, column: str, path: PathLike, problems: Problems, allowed: Sequence[int] | None = None
) -> np.ndarray:
    """(N,) int64: whole numbers, of those allowed; zeros where a cell is not one."""
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64)
    right = np.isin(values, allowed) if allowed is not None else values == np.floor(values)
    if not right.all():
        told = "whole numbers" if allowed is None else f"from {min(allowed)} to {max(allowed)}"
        wrong = table[column][~right]
        problems.add(f"{path}: {column} must be {told}, got {len(wrong):,} others: {_some(map(repr, wrong))}")
    return np.where(right, values, 0).astype(np.int64)


def _like(word: str, known: Iterable[str]) -> str:
    known = sorted(known)
    return did_you_mean(word, known) if known else ""


def _some(names: Iterable[Any], n: int = 3) -> str:
    """The first few, and how many more."""
    names = [str(name) for name in names]
    more = f" and {len(names) - n:,} more" if len(names) > n else ""
    return ", ".join(names[:n]) + more
