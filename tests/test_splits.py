"""What a split refuses, and what it counts."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from tunelater.data.splits import TensorSplit, class_counts
from tunelater.problems import InputError


def arguments(n: int = 4) -> dict[str, Any]:
    return {"x": torch.zeros(n, 3), "target": torch.arange(n) % 2, "weight": torch.ones(n)}


def with_value(tensor: torch.Tensor, value: float) -> torch.Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[-1] = value
    return tensor


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"x": torch.zeros(0, 3), "target": torch.zeros(0).long(), "weight": None}, "needs samples, got none"),
        ({"target": torch.tensor([0, 1])}, r"4 inputs need 4 targets, got shape \(2,\)"),
        ({"target": torch.zeros(4, 1).long()}, r"4 inputs need 4 targets, got shape \(4, 1\)"),
        ({"target": torch.zeros(4)}, "int64, got torch.float32"),
        ({"target": torch.tensor([0, -1, 1, -1])}, "from 0 on, got 2 below zero"),
        ({"x": torch.zeros(4, 3).double()}, r"inputs must be float32, got float64: convert them with .float\(\)"),
        ({"x": with_value(torch.zeros(4, 3), math.nan)}, "inputs must be finite"),
        ({"x": with_value(torch.zeros(4, 3), -math.inf)}, "inputs must be finite"),
        ({"weight": torch.ones(3)}, r"4 inputs need 4 weights, got \(3,\)"),
        ({"weight": torch.ones(4, 1)}, r"4 inputs need 4 weights, got \(4, 1\)"),
        ({"weight": with_value(torch.ones(4), math.nan)}, "weights must be finite and not negative"),
        ({"weight": with_value(torch.ones(4), math.inf)}, "weights must be finite and not negative"),
        ({"weight": with_value(torch.ones(4), -1e-9)}, "weights must be finite and not negative"),
    ],
)
def test_each_rule_is_a_problem_of_its_own(changes: dict[str, Any], problem: str) -> None:
    TensorSplit(**arguments())
    with pytest.raises(InputError, match=problem) as error:
        TensorSplit(**arguments() | changes)
    assert len(error.value.problems) == 1


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(InputError) as error:
        TensorSplit(torch.full((4, 3), math.nan), torch.zeros(5), torch.tensor([-1.0, 1]))
    words = ("4 targets", "int64", "4 weights", "not negative", "inputs must be finite")
    assert len(error.value.problems) == len(words)
    assert all(word in problem for word, problem in zip(words, error.value.problems, strict=True))


def test_inputs_may_be_images_of_bytes() -> None:
    split = TensorSplit(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.arange(4) % 2)
    assert len(split) == 4
    assert split.inputs(slice(1, 3)).shape == (2, 3, 8, 8)


def test_inputs_are_taken_by_index_or_slice() -> None:
    x = torch.arange(12.0).reshape(4, 3)
    split = TensorSplit(x, torch.arange(4) % 2).to(torch.device("cpu"))
    assert torch.equal(split.inputs(torch.tensor([2, 0, 2])), x[[2, 0, 2]])
    assert torch.equal(split.inputs(slice(1, 3), noise=7), x[1:3])


@pytest.mark.parametrize("n_classes", [2, 4])
def test_class_counts_are_total_weights(n_classes: int) -> None:
    rng = np.random.default_rng(0)
    target, weight = rng.integers(0, n_classes, 200), rng.random(200).astype(np.float32)
    x = torch.zeros(200, 1)
    plain = class_counts(TensorSplit(x, torch.from_numpy(target)), n_classes)
    assert plain == np.bincount(target, minlength=n_classes).tolist()
    weighted = class_counts(TensorSplit(x, torch.from_numpy(target), torch.from_numpy(weight)), n_classes)
    expected = np.bincount(target, weight.astype(np.float64), minlength=n_classes)
    assert weighted == pytest.approx(expected.tolist(), rel=1e-12)


def test_class_counts_keep_classes_that_are_absent_and_small_weights_beside_large_ones() -> None:
    target = torch.tensor([0, 0, 2])
    assert class_counts(TensorSplit(torch.zeros(3, 1), target), 4) == [2, 0, 1, 0]
    weight = torch.cat([torch.tensor([2.0**24]), torch.ones(1000)])  # a float32 sum would drop the ones
    split = TensorSplit(torch.zeros(1001, 1), torch.zeros(1001, dtype=torch.int64), weight)
    assert class_counts(split) == [2.0**24 + 1000, 0]


def test_class_counts_refuse_targets_beyond_the_last_class() -> None:
    with pytest.raises(InputError, match="2 classes have targets 0 to 1, got 2"):
        class_counts(TensorSplit(torch.zeros(3, 1), torch.tensor([0, 1, 2])))
