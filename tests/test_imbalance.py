"""Splits: each row once, each class in each, no group torn apart."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tables import problems_of
from tunelater.data.imbalance import split_rows


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
            ["a positive row, but", "has none: got 6 positives in 1 group", "smaller groups"],
        ),
    ],
)
def test_splits_that_cannot_be_are_refused(arguments: dict[str, Any], words: list[str]) -> None:
    given_y = np.array(arguments.pop("y", [1] * 6 + [0] * 6))
    told = "\n".join(problems_of(lambda: split_rows(given_y, **arguments)))
    for word in words:
        assert word in told
