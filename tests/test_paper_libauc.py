"""LibAUC's losses among the peers; what needs the package itself is skipped where it is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from paper import learning, libauc_losses
from paper.data import Data, load
from paper.methods import LIBAUC, METHODS, Column, Length, Trial, trials
from tunelater.problems import InputError
from tunelater.training import TrainingInterrupted

COLUMN = Column("synthetic", "Synthetic", "synthetic", 20)
EVERY = trials([COLUMN], LIBAUC, seeds=(0,), length=Length(epochs=6))


@pytest.fixture
def data() -> Data:
    return load("synthetic", 20, None, "held-out", Path())


def _trial(method: str) -> Trial:
    return next(t for t in EVERY if t.method == method and dict(t.setting)["margin"] == "1")


def test_each_setting_is_a_trial_of_its_own_without_a_lambda() -> None:
    assert len({trial.identity("f") for trial in EVERY}) == len(EVERY) == 32
    assert all(trial.lambdas() == {} for trial in EVERY)
    images = Trial("cifar10-automobile-truck", 100, "aucm", EVERY[0].setting, 0)
    assert images.config().images is not None


@pytest.mark.parametrize("n_positive", [3, 40, 400])
def test_batches_have_positives_and_every_sample_as_often_as_the_others_of_its_class(n_positive: int) -> None:
    target = np.random.default_rng(0).permutation(np.repeat([0, 1], [1000, n_positive]))
    epoch = list(libauc_losses.dual_batches(target, 50, 21, 0, 0))
    assert [len(rows) for rows in epoch] == [50] * 21
    assert {int(target[rows].sum()) for rows in epoch} == {10}
    times = np.bincount(np.concatenate(epoch), minlength=len(target))
    assert all(np.ptp(times[target == c]) <= 1 for c in (0, 1))
    for seed, number, same in ((0, 0, True), (0, 1, False), (1, 0, False)):
        other = libauc_losses.dual_batches(target, 50, 21, seed, number)
        assert same == all(np.array_equal(a, b) for a, b in zip(epoch, other, strict=True))


def test_without_the_package_the_way_to_get_it_is_told(monkeypatch: pytest.MonkeyPatch, data: Data) -> None:
    monkeypatch.setitem(sys.modules, "libauc", None)
    monkeypatch.setitem(sys.modules, "libauc.losses", None)
    with pytest.raises(InputError, match="pip install libauc"):
        learning.run(_trial("ap"), data, None, device="cpu")


@pytest.mark.parametrize("method", [m.name for m in LIBAUC])
def test_a_training_ranks_and_repeats(method: str, data: Data) -> None:
    pytest.importorskip("libauc.losses")
    loss = METHODS[method].loss
    setting = {"aucm": {"margin": "1", "rate": "3"}, "ap": {"margin": "1", "gamma": "0.9"}}[loss]
    trial = Trial("synthetic", 20, method, tuple(setting.items()), 0, Length(epochs=15))
    (one, found), (again, _) = (learning.run(trial, data, None, device="cpu") for _ in range(2))
    assert one["metrics"] == again["metrics"]
    assert one["lambdas"] == {}
    assert {scores.shape for scores in found.logits.values()} == {(1, 600)}
    assert one["metrics"]["test"]["logits"]["auc"][0] > 0.8


def test_a_training_can_be_stopped(data: Data) -> None:
    pytest.importorskip("libauc.losses")
    asked: list[int] = []

    def stop(step: int) -> bool:
        asked.append(step)
        return step == 3

    with pytest.raises(TrainingInterrupted, match="after step 3 "):
        learning.run(_trial("aucm"), data, None, stop, "cpu")
    assert asked == [0, 1, 2, 3]
