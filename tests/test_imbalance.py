"""Splits: each row once, each class in each, no group torn apart. Sub-sampling: the ratio asked for, nested."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tables import problems_of
from tunelater.data.imbalance import split_rows, subsample


@st.composite
def fractions(draw: st.DrawFn) -> tuple[float, float, float]:
    cuts = sorted(draw(st.tuples(st.integers(0, 20), st.integers(0, 20))))
    return cuts[0] / 20, (cuts[1] - cuts[0]) / 20, (20 - cuts[1]) / 20


@given(
    y=st.tuples(st.integers(3, 60), st.integers(3, 9)).flatmap(lambda n: st.permutations([0] * n[0] + [1] * n[1])),
    sizes=fractions(),
    seed=st.integers(0, 5),
)
def test_each_row_is_in_one_split_and_each_class_is_divided_evenly(
    y: list[int], sizes: tuple[float, float, float], seed: int
) -> None:
    labels = np.array(y)
    splits = split_rows(labels, sizes, seed=seed)
    assert list(splits) == ["train", "validation", "test"]
    assert sorted(np.concatenate(list(splits.values()))) == list(range(len(y)))
    again = split_rows(labels, sizes, seed=seed)
    for size, name in zip(sizes, splits, strict=True):
        rows = splits[name]
        np.testing.assert_array_equal(rows, again[name])
        assert (np.diff(rows) > 0).all()
        assert size > 0 or not len(rows)
        for k in (0, 1):
            asked, got = size * (labels == k).sum(), (labels[rows] == k).sum()
            assert got >= (size > 0)
            if min(f * (labels == k).sum() for f in sizes if f) >= 1:
                assert abs(got - asked) < 1


def test_shares_are_the_largest_remainders() -> None:
    splits = split_rows(np.repeat([0, 1], [100, 7]), (0.6, 0.2, 0.2))
    assert [int(sum(rows >= 100)) for rows in splits.values()] == [4, 2, 1]
    splits = split_rows(np.repeat([0, 1], [100, 3]), (0.98, 0.01, 0.01))
    assert [int(sum(rows >= 100)) for rows in splits.values()] == [1, 1, 1]


def test_the_seed_decides() -> None:
    y = np.arange(100) % 2
    assert not np.array_equal(split_rows(y, seed=0)["train"], split_rows(y, seed=1)["train"])


@given(
    group=st.lists(st.integers(0, 25), min_size=60, max_size=120),
    seed=st.integers(0, 3),
    sizes=st.sampled_from([(0.6, 0.2, 0.2), (0.5, 0.5, 0), (0.8, 0.1, 0.1)]),
)
def test_no_group_is_in_two_splits(group: list[int], seed: int, sizes: tuple[float, ...]) -> None:
    y = (np.array(group) % 4 == 0).astype(int)
    names = [f"patient {g}" for g in group]
    needed = sum(size > 0 for size in sizes)
    if min(len({g for g in group if (g % 4 == 0) == k}) for k in (True, False)) < needed:
        assert problems_of(lambda: split_rows(y, sizes, seed=seed, groups=names))
        return
    splits = split_rows(y, sizes, seed=seed, groups=names)
    assert sorted(np.concatenate(list(splits.values()))) == list(range(len(y)))
    seen = [set(np.array(names)[rows]) for rows in splits.values()]
    assert sum(len(s) for s in seen) == len(set(names))
    for size, rows in zip(sizes, splits.values(), strict=True):
        assert size == 0 or set(y[rows]) == {0, 1}


def test_many_groups_are_divided_evenly() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 800, 5000)
    y = ((groups % 20 == 0) | (rng.random(5000) < 0.02)).astype(int)
    splits = split_rows(y, groups=pd.Series(groups).astype(str), seed=3)
    for size, rows in zip((0.6, 0.2, 0.2), splits.values(), strict=True):
        assert len(rows) / 5000 == pytest.approx(size, abs=0.01)
        assert y[rows].sum() / y.sum() == pytest.approx(size, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"fractions": (0.6, 0.2, 0.3)}, ["add up to 1", "1.1"]),
        ({"fractions": (1.2, -0.2, 0.0)}, ["in [0, 1]", "1.2, -0.2, 0"]),
        ({"fractions": (np.nan, 0.5, 0.5)}, ["in [0, 1]"]),
        ({"fractions": (0.5, 0.5)}, ["three"]),
        ({"seed": -1, "fractions": (0.5, 0.2, 0.2)}, ["seed", "add up"]),
        ({"y": [0] * 9 + [1] * 2}, ["needs a positive row, got 2 positives for 3 splits", "set a fraction to 0"]),
        ({"y": [False] + [True] * 9}, ["needs a negative row, got 1 negative for 3 splits"]),
        ({"y": [0] * 9 + [7]}, ["needs a row of class 7, got 1 row of class 7 for 3 splits"]),
        ({"y": [0] * 9}, ["two classes, got 9 negatives and no other"]),
        ({"y": [2] * 9}, ["two classes, got 9 rows of class 2 and no other"]),
        ({"y": []}, ["integer class"]),
        ({"y": [0.5, 1.0]}, ["integer class", "float64"]),
        ({"groups": ["a"] * 7}, ["one group a row", "7 for 12 rows"]),
        ({"groups": ["a", None] * 6}, ["6 without", "first in row 2"]),
        (
            {"groups": ["a"] * 6 + list("bcdefg")},
            ["a positive row, and no group is torn", "got 6 positives in 1 group for 3 splits", "smaller groups"],
        ),
        ({"y": [0] * 9 + [1], "noun": "image"}, ["a positive image, got 1 positive for 3 splits; add images, or"]),
        ({"y": [0] * 9 + [1], "remedy": "buy some"}, ["got 1 positive for 3 splits; buy some"]),
        ({"groups": ["a"] * 12, "remedy": "buy some"}, ["leaves validation and test short; buy some"]),
    ],
)
def test_splits_that_cannot_be_are_refused(arguments: dict[str, Any], words: list[str]) -> None:
    given_y = np.array(arguments.pop("y", [1] * 6 + [0] * 6))
    told = "\n".join(problems_of(lambda: split_rows(given_y, **arguments)))
    for word in words:
        assert word in told


@pytest.mark.parametrize("groups", [["a"] * 12, ["a", "b"] * 6, ["a"] * 6 + ["b"] * 6])
def test_too_few_groups_are_one_problem(groups: list[str]) -> None:
    (told,) = problems_of(lambda: split_rows(np.array([1] * 6 + [0] * 6), groups=groups))
    each = 2 if groups[1] == "b" else 1
    held = f"{each} group{'s' * (each > 1)}"
    assert f"got 6 negatives in {held} and 6 positives in {held} for 3 splits" in told


# ------------------------------------------------------------------------------------------------------- sub-sampling


def two_classes(n_negative: int, n_positive: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.repeat([0, 1], [n_negative, n_positive]))


@given(
    n=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    hundredths=st.lists(st.integers(100, 2_000), min_size=2, max_size=2).map(sorted),
    seed=st.integers(0, 5),
)
def test_subsampling_reaches_beta_with_as_many_rows_as_it_can(
    n: tuple[int, int], hundredths: list[int], seed: int
) -> None:
    target = two_classes(*n)
    kept = []
    for h in hundredths:
        beta = h / 100
        if n[0] * 100 < h:
            assert "must leave a positive" in problems_of(lambda beta=beta: subsample(target, beta, seed=seed))[0]
            return
        rows = subsample(target, beta, seed=seed)
        assert (np.diff(rows) > 0).all()
        np.testing.assert_array_equal(rows, subsample(target, beta, seed=seed))
        n_negative, n_positive = np.bincount(target[rows], minlength=2)
        enough = n[1] >= n[0] * 100 // h
        assert n_positive == (n[0] * 100 // h if enough else n[1])
        assert n_negative == (n[0] if enough else n[1] * h // 100)
        kept.append({k: set(rows[target[rows] == k]) for k in (0, 1)})
    low, high = kept
    assert high[1] <= low[1]
    assert low[0] <= high[0]


def test_subsampling_takes_class_one_as_the_minority_whatever_its_size() -> None:
    target = two_classes(10, 90)
    assert np.bincount(target[subsample(target, 2, seed=0)]).tolist() == [10, 5]


def test_other_seeds_keep_other_positives() -> None:
    target = two_classes(1000, 1000)
    one, other = (
        set(subsample(target, 10, seed=seed)[target[subsample(target, 10, seed=seed)] == 1]) for seed in (0, 1)
    )
    assert one != other


def test_beta_is_the_decimal_that_was_written() -> None:
    for n_negative, beta, n_positive in ((11, 1.1, 10), (33, 3.3, 10), (1140, 11.4, 100)):
        target = two_classes(n_negative, 200)
        assert target[subsample(target, beta, seed=0)].sum() == n_positive


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"beta": 0.99}, ["from 1 on, got 0.99"]),
        ({"beta": np.nan, "seed": -1}, ["from 1 on, got nan", "seed must be at least 0, got -1"]),
        ({"beta": np.inf}, ["finite number from 1 on, got inf"]),
        ({"beta": 10.5}, ["must leave a positive, got 10.5 for 10 negatives; it can be at most 10"]),
        ({"target": [0, 0, 0]}, ["both classes, got 3 negatives and no other"]),
        ({"target": [1], "beta": 0}, ["both classes, got 1 positive and no other", "got 0"]),
        ({"target": [0, 1, 2]}, ["classes 0 and 1, got 0, 1, 2"]),
        ({"target": []}, ["one class a row"]),
        ({"target": [[0, 1]]}, ["one class a row", "(1, 2)"]),
        ({"target": [0.0, 1.0]}, ["one class a row", "float64"]),
    ],
)
def test_subsampling_that_cannot_be_is_refused(arguments: dict[str, Any], words: list[str]) -> None:
    given_arguments = {"target": [0] * 10 + [1] * 5, "beta": 2.0, "seed": 0} | arguments
    told = problems_of(lambda: subsample(**given_arguments))
    for word in words:
        assert word in "\n".join(told)
