"""Imbalance: which rows train, choose and report, so that each split has rows of the rare class.

Whatever draws rows by their class belongs here: the splits, and sub-sampling to an imbalance ratio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd

from tunelater.problems import InputError, Problems

_SPLITS = ("train", "validation", "test")
OWN_FRACTIONS = (0.6, 0.2, 0.2)
"""Of data that come undivided: to train on, to choose on, to report on."""


def split_rows(
    y: np.ndarray,
    fractions: Sequence[float] = OWN_FRACTIONS,
    *,
    seed: int = 0,
    groups: Sequence[Any] | np.ndarray | pd.Series | None = None,
    noun: str = "row",
    remedy: str | None = None,
) -> dict[str, np.ndarray]:
    """Rows for training, validation and test, with about the same share of each class.

    Without groups each class is divided by the largest remainders: every split has the number of rows that its fraction
    asks for, rounded up or down, but at least one. With groups, all rows of a group are in one split, every split has
    rows of each class, and the shares are as even as adding one group after the other, those with the largest part of a
    class first, makes them; they are not the closest possible.

    Args:
        y: (N,) integer classes.
        fractions: the sizes of train, validation and test, in [0, 1], of the sum 1. A split of size 0 is empty.
        seed: the same seed gives the same rows; at least 0.
        groups: (N,) what must not be torn apart: a patient, a lesion, a machine.
        noun: what one row stands for, in messages.
        remedy: what helps where a class is too small to divide, in messages; by default more rows or groups, or fewer
            splits.

    Returns:
        "train", "validation" and "test": sorted row indices from 0, int64; together every row once.

    Raises:
        InputError: fractions out of range, a class with fewer rows (or groups) than splits, groups that do not fit.
    """
    problems = Problems()
    y = np.asarray(y)
    sizes = np.array([float(f) for f in fractions])
    problems.check(seed >= 0, f"seed must be at least 0, got {seed}")
    problems.add(*problems_of_fractions(fractions))
    _check_classes(y, int((sizes > 0).sum()), noun, remedy or f"add {noun}s, or set a fraction to 0", problems)
    group_of_row = None if groups is None else _group_of_row(groups, len(y), problems)
    problems.raise_if_any()
    classes, class_of_row = np.unique(y, return_inverse=True)
    rng = np.random.default_rng(seed)
    if group_of_row is None:
        split_of_row = _split_rows(class_of_row, sizes, rng)
    else:
        split_of_row = _split_groups(class_of_row, group_of_row, sizes, rng)[group_of_row]
        remedy = remedy or "use more or smaller groups, or set a fraction to 0"
        _check_split_groups(split_of_row, class_of_row, group_of_row, classes, sizes, noun, remedy)
    return {name: np.flatnonzero(split_of_row == i) for i, name in enumerate(_SPLITS)}


def subsample(target: Sequence[int] | np.ndarray, beta: float, *, seed: int) -> np.ndarray:
    """Rows of a training set whose imbalance ratio n_-/n_+ is beta (the paper's Table 12).

    The positives, class 1, become the minority, however many there are: all n_- negatives stay, with
    n_+ = floor(n_- / beta) positives. Where there are fewer positives than that, all of them stay, with
    n_- = floor(beta n_+) negatives.

    For training rows only: a validation or test set keeps the sizes of its classes.

    For one target and seed the rows are nested: the positives at a higher beta are a part of those at a lower one, and
    the negatives at a lower beta a part of those at a higher one.

    Args:
        target: (N,) classes, 0 or 1.
        beta: the imbalance ratio, at least 1. It counts as the decimal number that it is written as.
        seed: the same seed gives the same rows; at least 0.

    Returns:
        Sorted row indices, int64.

    Raises:
        InputError: targets that are not of two classes, beta out of range, or so high that no positive stays.
    """
    problems = Problems()
    problems.check(seed >= 0, f"seed must be at least 0, got {seed}")
    problems.add(*problems_of_beta(beta))
    target = np.asarray(target)
    _check_binary(target, problems)
    problems.raise_if_any()
    negative, positive = np.flatnonzero(target == 0), np.flatnonzero(target == 1)
    # As a float, 1.1 is a little more than 1.1, and floor(11 / 1.1) would be 9.
    ratio = Fraction(str(float(beta)))
    n_positive = min(len(positive), len(negative) // ratio)
    problems.check(
        n_positive > 0,
        f"beta must leave a positive, got {beta:g} for {_members(0, len(negative), True)}; "
        f"it can be at most {len(negative):,}",
    )
    problems.raise_if_any()
    n_negative = len(negative) if n_positive == len(negative) // ratio else math.floor(ratio * n_positive)
    rng = np.random.default_rng(seed)
    kept = [rng.permutation(positive)[:n_positive], rng.permutation(negative)[:n_negative]]
    return np.sort(np.concatenate(kept))


def problems_of_beta(beta: float) -> list[str]:
    """What keeps a number from being an imbalance ratio."""
    return [] if math.isfinite(beta) and beta >= 1 else [f"beta is n_-/n_+, a finite number from 1 on, got {beta:g}"]


def _check_binary(target: np.ndarray, problems: Problems) -> None:
    if target.ndim != 1 or not len(target) or target.dtype.kind not in "iub":
        problems.add(f"target must hold one class a row, 0 or 1, got shape {target.shape} of {target.dtype}")
        return
    classes = np.unique(target).astype(np.int64)
    if not _is_binary(classes):
        problems.add(f"target must hold the classes 0 and 1, got {', '.join(map(str, classes[:5]))}")
    elif len(classes) < 2:
        told = _members(classes[0], len(target), True)
        problems.add(f"target must have rows of both classes, got {told} and no other")


def problems_of_fractions(fractions: Sequence[float]) -> list[str]:
    """What keeps numbers from being the sizes of train, validation and test."""
    problems = Problems()
    sizes = np.array([float(f) for f in fractions])
    told = ", ".join(f"{size:g}" for size in sizes)
    problems.check(len(sizes) == 3, f"fractions (--split) must be three: train, validation, test; got {told}")
    inside = bool(np.all((sizes >= 0) & (sizes <= 1)))
    problems.check(inside, f"fractions (--split) must be in [0, 1], got {told}")
    problems.check(
        not inside or abs(float(sizes.sum()) - 1) < 1e-6,
        f"fractions (--split) must add up to 1, got {told} = {sizes.sum():g}",
    )
    return list(problems)


def _check_classes(y: np.ndarray, needed: int, noun: str, remedy: str, problems: Problems) -> None:
    if y.ndim != 1 or not len(y) or y.dtype.kind not in "iub":
        problems.add(f"y must hold one integer class a {noun}, got shape {y.shape} of {y.dtype}")
        return
    classes, counts = np.unique(y, return_counts=True)
    binary = _is_binary(classes)
    problems.check(
        len(classes) > 1,
        f"y must have {noun}s of two classes, got {_members(classes[0], len(y), binary, noun)} and no other",
    )
    for k, n in zip(classes, counts, strict=True):
        problems.check(
            n >= needed,
            f"every split needs a {_member(k, binary, noun)}, got {_members(k, int(n), binary, noun)} for {needed} "
            f"splits; {remedy}",
        )


def _is_binary(classes: np.ndarray) -> bool:
    return set(classes.tolist()) <= {0, 1}


def _member(k: int, binary: bool, noun: str) -> str:
    if not binary:
        return f"{noun} of class {k}"
    return f"positive {noun}" if k else f"negative {noun}"


def _members(k: int, n: int, binary: bool, noun: str = "row") -> str:
    if not binary:
        return f"{_counted(n, noun)} of class {k}"
    return _counted(n, "positive" if k else "negative")


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _group_of_row(groups: Sequence[Any] | np.ndarray | pd.Series, n: int, problems: Problems) -> np.ndarray:
    """(N,) the number of each row's group, in the order in which the groups appear."""
    codes, _ = pd.factorize(pd.Series(groups, dtype=object))
    problems.check(len(codes) == n, f"groups must name one group a row, got {len(codes):,} for {_counted(n, 'row')}")
    if missing := int((codes < 0).sum()):
        problems.add(f"every row must have a group, got {missing:,} without, first in row {int(np.argmin(codes)) + 1}")
    return codes


def _split_rows(class_of_row: np.ndarray, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,) the split of each row, stratified by class."""
    split_of_row = np.empty(len(class_of_row), dtype=np.int64)
    for k in range(int(class_of_row.max()) + 1):
        rows = rng.permutation(np.flatnonzero(class_of_row == k))
        split_of_row[rows] = np.repeat(np.arange(3), _shares(len(rows), sizes))
    return split_of_row


def _shares(n: int, sizes: np.ndarray) -> np.ndarray:
    """(3,) n divided by the largest remainders; a split of positive size takes one from the largest if it got none."""
    # Without the rounding, 0.6 * 5 = 3.0000000000000004 - 3 would have a larger remainder than an exact 0.
    quotas = np.round(sizes * n, 9)
    shares = np.floor(quotas).astype(np.int64)
    order = np.argsort(shares - quotas, kind="stable")
    shares[order[: n - shares.sum()]] += 1
    while (empty := np.flatnonzero((shares == 0) & (sizes > 0))).size:
        shares[np.argmax(shares)] -= 1
        shares[empty[0]] += 1
    return shares


def _split_groups(
    class_of_row: np.ndarray, group_of_row: np.ndarray, sizes: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(groups,) the split of each group.

    Each group goes where it adds least to the sum of share²/fraction over splits and classes, which is smallest where
    every share of a class is its split's fraction. Relative to the fractions, so that all splits fill alike from the
    start: otherwise the largest one would draw in the groups with few rows of the rare class by its need of the others.
    """
    n_groups, n_classes = int(group_of_row.max()) + 1, int(class_of_row.max()) + 1
    counts = np.zeros((n_groups, n_classes), dtype=np.int64)
    np.add.at(counts, (group_of_row, class_of_row), 1)
    parts = counts / counts.sum(axis=0)
    order = rng.permutation(n_groups)
    order = order[np.argsort(-parts[order].max(axis=1), kind="stable")]
    usable = np.flatnonzero(sizes > 0)
    filled = np.zeros((len(usable), n_classes))
    split_of_group = np.empty(n_groups, dtype=np.int64)
    for group in order:
        part = parts[group]
        chosen = int(np.argmin(2 * (filled @ part) + (part @ part) / sizes[usable]))
        filled[chosen] += part / sizes[usable[chosen]]
        split_of_group[group] = usable[chosen]
    _fill_empty(split_of_group, counts, usable)
    return split_of_group


def _fill_empty(split_of_group: np.ndarray, counts: np.ndarray, usable: np.ndarray) -> None:
    """Moves the smallest group that helps into each split without rows of a class, if its own split can spare it."""
    for split in usable:
        for k in range(counts.shape[1]):
            if counts[split_of_group == split, k].any():
                continue
            candidates = np.flatnonzero(counts[:, k] > 0)
            for group in candidates[np.argsort(counts[candidates].sum(axis=1), kind="stable")]:
                rest = (split_of_group == split_of_group[group]) & (np.arange(len(counts)) != group)
                if counts[rest].any(axis=0).all():
                    split_of_group[group] = split
                    break


def _check_split_groups(
    split_of_row: np.ndarray,
    class_of_row: np.ndarray,
    group_of_row: np.ndarray,
    classes: np.ndarray,
    sizes: np.ndarray,
    noun: str,
    remedy: str,
) -> None:
    """That every split has rows of each class; whatever lacks, it is one problem.

    Raises:
        InputError: some splits lack some classes.
    """
    splits = np.flatnonzero(sizes > 0)
    counts = np.array([np.bincount(class_of_row[split_of_row == split], minlength=len(classes)) for split in splits])
    if counts.all():
        return
    binary, scarce = _is_binary(classes), np.flatnonzero(~counts.all(axis=0))
    needed = " and a ".join(_member(classes[k], binary, noun) for k in scarce)
    without = " and ".join(_SPLITS[split] for split in splits[~counts.all(axis=1)])
    got = " and ".join(
        f"{_members(classes[k], int(counts[:, k].sum()), binary, noun)} in "
        f"{_counted(len(np.unique(group_of_row[class_of_row == k])), 'group')}"
        for k in scarce
    )
    raise InputError(
        f"every split needs a {needed}, and no group is torn apart: got {got} for {len(splits)} splits, which leaves "
        f"{without} short; {remedy}"
    )
